//! Segments in an archive that are not of this cluster's history: those of abandoned branches, of clones, of other clusters.

use std::collections::BTreeSet;
use std::ops::RangeInclusive;

use wal::SegmentName;

/// The segments in an archive that recovery along the server's own history never asks for.
///
/// Anybody can put any number of them into an archive, so only the newest are known by name.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Strangers {
    /// The newest of them by timeline and place, at most [`Strangers::MOST`].
    pub newest: BTreeSet<SegmentName>,
    /// How many more there are, or at least how many: directories full of them are not all looked into.
    pub more: u64,
}

impl Strangers {
    /// So many are known by name.
    pub const MOST: usize = 4096;

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.newest.is_empty() && self.more == 0
    }

    /// How many there are.
    pub(super) fn count(&self) -> u64 {
        self.more.saturating_add(self.newest.len() as u64)
    }

    pub(super) fn add(&mut self, segment: SegmentName) {
        if self.newest.insert(segment) && self.newest.len() > Self::MOST {
            self.newest.pop_first();
            self.more = self.more.saturating_add(1);
        }
    }

    /// Makes those in `range`, of which there were `before`, those of `new`; says whether that changed any.
    pub(super) fn replace(&mut self, range: RangeInclusive<SegmentName>, before: u64, new: &Self) -> bool {
        let old: BTreeSet<SegmentName> = self.newest.range(range).copied().collect();
        let changed = before != new.count() || !old.is_subset(&new.newest);
        let count = self.count().saturating_sub(before).saturating_add(new.count());
        for segment in &old {
            self.newest.remove(segment);
        }
        self.newest.extend(&new.newest);
        while self.newest.len() > Self::MOST {
            self.newest.pop_first();
        }
        self.more = count.saturating_sub(self.newest.len() as u64);
        changed
    }
}
