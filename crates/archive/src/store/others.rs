//! The WAL files of an archive that are no whole segments: timeline history, backup history, partial segments.

use std::collections::BTreeMap;

use wal::{Timeline, TimelineHistory, WalFileName};

use super::layout::Group;

/// Those files by name, each with a mask of the forms that it is stored in.
///
/// Anybody can put any number of them into an archive. The history files of the server's own timelines are all kept, of the
/// others the newest.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(super) struct Others {
    histories: BTreeMap<Timeline, Other>,
    rest: BTreeMap<Box<str>, Other>,
}

#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
struct Other {
    kind: WalFileName,
    name: Box<str>,
    forms: u8,
}

impl Others {
    /// So many of either sort are kept.
    const MOST: usize = 32_768;

    pub fn is_empty(&self) -> bool {
        self.histories.is_empty() && self.rest.is_empty()
    }

    pub fn iter(&self) -> impl Iterator<Item = (WalFileName, &str)> + '_ {
        self.histories
            .values()
            .chain(self.rest.values())
            .map(|other| (other.kind, &*other.name))
    }

    /// The forms that a file is stored in; 0 where it is not known.
    pub fn get(&self, kind: &WalFileName, name: &str) -> u8 {
        let other = match kind {
            WalFileName::History(timeline) => self.histories.get(timeline),
            _ => self.rest.get(name),
        };
        other.map_or(0, |other| other.forms)
    }

    /// Adds a form of a file.
    pub fn add(&mut self, kind: WalFileName, name: &str, form: u8, ours: &TimelineHistory) {
        let name: Box<str> = name.into();
        let other = |name| Other { kind, name, forms: 0 };
        if let WalFileName::History(timeline) = kind {
            self.histories.entry(timeline).or_insert_with(|| other(name)).forms |= form;
            if self.histories.len() > Self::MOST {
                let mut timelines = self.histories.keys().copied();
                let stranger = timelines.find(|timeline| !ours.contains(*timeline));
                stranger.and_then(|timeline| self.histories.remove(&timeline));
            }
        } else {
            self.rest.entry(name.clone()).or_insert_with(|| other(name)).forms |= form;
            if self.rest.len() > Self::MOST {
                self.rest.pop_first();
            }
        }
    }

    /// Makes the timeline histories those of `new`; says whether that changed any.
    pub fn replace_histories(&mut self, new: Self) -> bool {
        let changed = self.histories != new.histories;
        self.histories = new.histories;
        changed
    }

    /// Makes the files of a group those of `new`; says whether that changed any.
    pub fn replace_group(&mut self, group: Group, new: Self) -> bool {
        // Names of a group's files are the group's own and more digits: they come behind it and before its successor.
        let first = group.to_string().into_boxed_str();
        let last = format!("{first}G").into_boxed_str();
        let known: Vec<Box<str>> = self
            .rest
            .range(first.clone()..last)
            .map(|(name, _)| name.clone())
            .collect();
        let old: BTreeMap<Box<str>, Other> = known
            .into_iter()
            .filter_map(|name| self.rest.remove_entry(&name))
            .collect();
        let changed = old != new.rest;
        self.rest.extend(new.rest);
        while self.rest.len() > Self::MOST {
            self.rest.pop_first();
        }
        changed
    }
}
