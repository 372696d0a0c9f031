//! What an archive holds, without the archive: it can be asked where nothing may wait for a disk.

use serde::{Deserialize, Serialize};
use wal::{SegmentName, WalFileName};

use super::contents::Contents;
use super::strangers::Strangers;
use super::view::View;
use crate::stored::RootId;

/// What an archive held when its store was last refreshed; before that it looks empty.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Listing {
    pub(super) root: RootId,
    pub(super) view: Option<View>,
    pub(super) contents: Contents,
    pub(super) strangers: Strangers,
}

impl Listing {
    pub(super) fn new(root: RootId) -> Self {
        Self {
            root,
            view: None,
            contents: Contents::default(),
            strangers: Strangers::default(),
        }
    }

    /// Whether the archive holds a segment of the server's own history that the server has come to.
    pub fn holds(&self, segment: &SegmentName) -> bool {
        self.view.as_ref().is_some_and(|view| {
            view.present().contains(&segment.number)
                && segment.size == view.size
                && self.contents.ours.get(segment.number) != 0
                && view.is_on_history(segment)
        })
    }

    /// The segments of the server's own history that the archive holds, in the order of their place.
    pub fn segments(&self) -> impl Iterator<Item = SegmentName> + '_ {
        self.view.iter().flat_map(|view| {
            self.contents
                .ours
                .iter(view.present())
                .map(|number| view.segment(number))
        })
    }

    /// The segments that are not on the server's history, or further ahead than the server can have archived.
    pub const fn strangers(&self) -> &Strangers {
        &self.strangers
    }

    /// The timeline history, backup history and partial files, with their names.
    pub fn others(&self) -> impl Iterator<Item = (WalFileName, &str)> + '_ {
        self.contents.others.iter()
    }

    /// Which directory it is.
    pub const fn root(&self) -> RootId {
        self.root
    }

    /// Whether it holds no WAL file of any kind.
    pub fn is_empty(&self) -> bool {
        self.contents.ours.is_empty() && self.strangers.is_empty() && self.contents.others.is_empty()
    }
}
