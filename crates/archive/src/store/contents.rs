//! What an archive holds, and what one reading of one directory found.

use std::collections::BTreeSet;

use wal::WalFileName;

use super::directory::EntryKind;
use super::layout::{Group, Layout, own_name};
use super::others::Others;
use super::presence::Presence;
use super::strangers::Strangers;
use super::view::{Relation, View};
use crate::compression::Compression;

/// The WAL files of an archive, or of one directory of it.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(super) struct Contents {
    pub ours: Presence,
    pub strangers: Strangers,
    pub others: Others,
}

impl Contents {
    /// Makes what belongs in the directory of `group` what `new` is, where `strangers` had been there before; says whether that
    /// changed anything.
    pub fn replace_group(&mut self, group: Group, strangers: u64, new: Self, view: &View) -> bool {
        let ours = self.ours.replace(
            group.numbers(view.size),
            |number| view.segment(number).timeline == group.timeline,
            &new.ours,
        );
        let strangers = self
            .strangers
            .replace(group.segments(view.size), strangers, &new.strangers);
        self.others.replace_group(group, new.others) || ours || strangers
    }
}

/// One reading of one directory, or of the directories that stand for one.
pub(super) struct Scan<'a> {
    view: &'a View,
    layout: Layout,
    group: Option<Group>,
    pub contents: Contents,
    /// The directories below that can hold segments of ours.
    pub groups: BTreeSet<Group>,
    /// The newest of the others.
    pub strange_groups: BTreeSet<Group>,
    /// How many more of those there are.
    pub unread_groups: u64,
    /// Entries that are no WAL file of this layout.
    pub ignored: u64,
    pub examples: Vec<String>,
}

impl<'a> Scan<'a> {
    /// So many directories without a segment of ours are read.
    const MOST_STRANGE_GROUPS: usize = 4096;
    /// So many names are kept as examples of what was left out.
    pub const EXAMPLES: usize = 5;

    pub fn new(view: &'a View, layout: Layout, group: Option<Group>) -> Self {
        Self {
            view,
            layout,
            group,
            contents: Contents::default(),
            groups: BTreeSet::new(),
            strange_groups: BTreeSet::new(),
            unread_groups: 0,
            ignored: 0,
            examples: Vec::new(),
        }
    }

    /// Takes one entry in.
    pub fn entry(&mut self, name: &[u8], kind: EntryKind) {
        let known = match (std::str::from_utf8(name), kind) {
            (Ok(name), EntryKind::File) => self.file(name),
            (Ok(name), EntryKind::Directory) => self.directory(name),
            _ => None,
        };
        if known.is_none() {
            self.ignored = self.ignored.saturating_add(1);
            if self.examples.len() < Self::EXAMPLES {
                let name = String::from_utf8_lossy(name);
                self.examples.push(match self.group {
                    Some(group) => format!("{group}/{name}"),
                    None => name.into_owned(),
                });
            }
        }
    }

    fn file(&mut self, name: &str) -> Option<()> {
        let stored = self.layout.classify(name, self.view.size)?;
        if self.layout.group(&stored.kind) != self.group {
            return None;
        }
        let form = form(self.layout, stored.compression);
        match stored.kind {
            WalFileName::Segment(segment) => match self.view.relation(&segment) {
                Relation::Ours => self.contents.ours.add(segment.number, form),
                Relation::Stranger => self.contents.strangers.add(segment),
                Relation::Past => {}
            },
            kind => self
                .contents
                .others
                .add(kind, &own_name(&kind), form, &self.view.history),
        }
        Some(())
    }

    fn directory(&mut self, name: &str) -> Option<()> {
        let group = Group::parse(name).filter(|_| self.layout.is_grouped() && self.group.is_none())?;
        if self.view.concerns(group) {
            self.groups.insert(group);
        } else if self.strange_groups.insert(group) && self.strange_groups.len() > Self::MOST_STRANGE_GROUPS {
            self.strange_groups.pop_first();
            self.unread_groups = self.unread_groups.saturating_add(1);
        }
        Some(())
    }
}

/// The bit that stands for a form in which a file is stored. Where the name holds a checksum, its directory is asked anyway.
pub(super) fn form(layout: Layout, compression: Compression) -> u8 {
    match layout {
        Layout::PgBackRest => 1,
        Layout::Flat | Layout::Barman | Layout::WalG => Compression::ALL
            .into_iter()
            .zip(0..)
            .find(|(known, _)| *known == compression)
            .map_or(0, |(_, bit): (_, u32)| 1 << bit),
    }
}
