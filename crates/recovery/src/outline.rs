//! The outline of many backups: the few of them that the sums need.
//!
//! A window begins with the first usable backup of an unbroken stretch of WAL, and the verdict rests on the newest one; what lies
//! between changes neither. So of ten thousand backups a handful is looked up for each stretch, by an index. A full backup in an
//! unbroken stretch is usable without a look at any other, so a stretch's first and last one give it an exact beginning. Only
//! where more than [`FEW`] backups with parents come before the first full one, or behind the last, and the parents of all of
//! these are lost, can a window come out smaller than it is; never larger.

use wal::{Lsn, Timeline};

use crate::facts::Facts;
use crate::path::Path;
use crate::readiness::NAMED;

/// So many backups are looked up at either end of a stretch, whatever their type.
pub const FEW: usize = 8;

/// So many of the newest are needed, since sentences name them. More than [`NAMED`], as those of other timelines are among them.
pub const NEWEST: usize = NAMED * 2;

/// So many of those that have their own WAL inside: each of them can be a window, however little is archived.
pub const NEWEST_WHOLE: usize = 100;

/// Of the backups that no gap tells apart so many are counted for a sentence; of more it says "at least".
pub const COUNTED: usize = 1000;

/// Backups of one timeline that lie in one unbroken stretch of verified WAL. Wanted are, of the completed physical ones that have
/// not failed verification, in the order of (end, id): the first and last [`FEW`], the first and the last full one. And the
/// parents of all that are found, and theirs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lookup {
    /// The timeline that they were taken on.
    pub timeline: Timeline,
    /// What they need begins here or later ...
    pub from: Lsn,
    /// ... and before this, the end of the stretch.
    pub behind: Lsn,
    /// They end later than this ...
    pub ends_after: Lsn,
    /// ... and no later than this.
    pub ends_by: Lsn,
}

/// What is to be looked up, given everything but the backups.
pub fn lookups(facts: &Facts) -> Vec<Lookup> {
    let path = Path::new(facts);
    let lsn = |number: u64| Lsn(number.saturating_mul(facts.size.bytes()));
    let history = &facts.history;
    let ancestors = history
        .entries()
        .iter()
        .map(|entry| (entry.timeline, entry.switch_lsn))
        .chain([(history.timeline(), Lsn(u64::MAX))]);
    // Each with where it began and where it was left.
    let mut began = Lsn::INVALID;
    let mut timelines = Vec::new();
    for (timeline, left) in ancestors {
        timelines.push((timeline, began, left));
        began = left;
    }
    let mut lookups = Vec::new();
    for (first, behind) in path.unbroken_history() {
        let (from, behind) = (lsn(first), lsn(behind));
        for &(timeline, began, left) in &timelines {
            let lookup = Lookup {
                timeline,
                from,
                behind,
                ends_after: began,
                ends_by: behind.min(left),
            };
            if lookup.may_find_something() {
                lookups.push(lookup);
            }
        }
    }
    // Branches that the server has left, or never was on.
    for (timeline, first, behind) in path.timelines() {
        let left = match (history.contains(timeline), history.switch_point(timeline)) {
            (false, _) => Lsn::INVALID,
            (true, Some(left)) => left,
            (true, None) => continue,
        };
        let stretch = archive::expected::Stretch {
            timeline,
            first,
            last: behind.saturating_sub(1),
            size: facts.size,
        };
        for (first, behind) in path.unbroken(&stretch) {
            let lookup = Lookup {
                timeline,
                from: lsn(first),
                behind: lsn(behind),
                ends_after: left,
                ends_by: lsn(behind),
            };
            if lookup.may_find_something() {
                lookups.push(lookup);
            }
        }
    }
    lookups
}

impl Lookup {
    fn may_find_something(&self) -> bool {
        self.ends_by > self.ends_after && self.ends_by >= self.from
    }
}
