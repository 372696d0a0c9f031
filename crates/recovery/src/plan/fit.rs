//! The backup of a window that suits a target best, and where it comes from: all backups of a window may be far too many to be held.

use chrono::{DateTime, Utc};
use wal::Lsn;

use super::{Origin, Stretch};

/// What a backup must be so that a recovery from it comes to a target, and to no other before.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Fit {
    /// It is consistent here at the latest.
    pub consistent_by: Lsn,
    /// Replay from it starts here or later.
    pub started_from: Lsn,
    /// It was consistent by this time, or before it where it is not inclusive.
    pub consistent_time: Option<(DateTime<Utc>, bool)>,
}

impl Fit {
    /// What any backup is.
    pub const ANY: Self = Self {
        consistent_by: Lsn::MAX,
        started_from: Lsn::INVALID,
        consistent_time: None,
    };

    /// Whether this backup is such a one.
    pub fn suits(&self, origin: &Origin) -> bool {
        origin.consistent_at <= self.consistent_by
            && origin.start >= self.started_from
            && self.consistent_time.is_none_or(|(time, inclusive)| {
                origin
                    .consistent_time
                    .is_some_and(|consistent| consistent < time || (inclusive && consistent == time))
            })
    }
}

/// The best backup for a target.
#[derive(Debug, Clone, PartialEq)]
pub struct Best {
    /// The newest of those of which it is on record where they are; where it is of none, the newest.
    pub origin: Origin,
    /// The newest one, where it is newer and its place is not on record.
    pub newer_without_place: Option<i64>,
}

impl Best {
    /// Chooses among backups that suit, in the order of [`newer`], the newest first. No more of them are looked at than is needed.
    pub fn of(suitable: impl Iterator<Item = Origin>) -> Option<Self> {
        let mut without_place: Option<Origin> = None;
        for origin in suitable {
            if origin.has_place {
                let newer_without_place = without_place
                    .filter(|other| other.consistent_at > origin.consistent_at)
                    .map(|other| other.id);
                return Some(Self {
                    origin,
                    newer_without_place,
                });
            }
            without_place.get_or_insert(origin);
        }
        without_place.map(|origin| Self {
            origin,
            newer_without_place: None,
        })
    }
}

/// The order in which one backup is newer than another.
pub const fn newer(origin: &Origin) -> (Lsn, i64) {
    (origin.consistent_at, origin.id)
}

/// Who knows all backups of the windows.
pub trait Origins {
    /// The best one in this window, by its place in the list, of those that fit.
    fn best(&self, stretch: usize, fit: &Fit) -> Option<Best>;
}

/// Windows that hold all of their backups themselves.
impl Origins for &[Stretch] {
    fn best(&self, stretch: usize, fit: &Fit) -> Option<Best> {
        let mut suitable: Vec<&Origin> = self
            .get(stretch)?
            .origins
            .iter()
            .filter(|origin| fit.suits(origin))
            .collect();
        suitable.sort_by_key(|origin| std::cmp::Reverse(newer(origin)));
        Best::of(suitable.into_iter().cloned())
    }
}
