//! Up to where commits are safe if this host dies now, and what would be lost.

use chrono::{DateTime, Utc};
use wal::Lsn;

use crate::backups::{Unusable, Usable};
use crate::facts::Facts;

/// What protects, and up to where.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Protection {
    /// Up to where verified WAL follows upon the newest usable backup without a break.
    pub contiguous_to: Option<Lsn>,
    /// The furthest that a connected physical receiver has flushed.
    pub received_to: Option<Lsn>,
    /// The greater of the two: what lies before survives this host. None where nothing protects.
    pub protected: Option<Lsn>,
    /// How much flushed WAL lies behind it, in bytes. None where nothing protects, or the flush LSN is not known.
    pub rpo_bytes: Option<u64>,
}

/// The first commit in local WAL at or after the protected LSN, as the caller found it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OldestCommit {
    /// There is none: nothing would be lost.
    None,
    /// It was made then.
    At(DateTime<Utc>),
    /// It could not be found out, and why: a clause, such as "segment … is no longer in pg_wal".
    Unknown(String),
}

pub(crate) fn protection(
    facts: &Facts,
    backups: &[(i64, Result<Usable, Unusable>)],
    newest: Option<i64>,
) -> Protection {
    let contiguous_to = backups
        .iter()
        .filter_map(|(id, verdict)| verdict.as_ref().ok().filter(|_| Some(*id) == newest))
        .map(|usable| usable.reach)
        .next();
    let received_to = facts.receivers.iter().copied().max();
    let protected = contiguous_to.max(received_to);
    let rpo_bytes = protected.and_then(|protected| Some(facts.flush?.bytes_since(protected)));
    Protection {
        contiguous_to,
        received_to,
        protected,
        rpo_bytes,
    }
}

impl Protection {
    /// RPO exposure in seconds: the age of the oldest commit that would be lost, 0 where none would. None where nothing protects or
    /// the commit's time is not known. A clock set back gives 0, not a negative age.
    pub fn rpo_seconds(&self, oldest: &OldestCommit, now: DateTime<Utc>) -> Option<f64> {
        self.protected?;
        match oldest {
            OldestCommit::None => Some(0.0),
            OldestCommit::At(at) => Some(seconds_between(*at, now)),
            OldestCommit::Unknown(_) => None,
        }
    }
}

/// From `then` to `now`, not negative.
pub(crate) fn seconds_between(then: DateTime<Utc>, now: DateTime<Utc>) -> f64 {
    now.signed_duration_since(then)
        .to_std()
        .map_or(0.0, |age| age.as_secs_f64())
}
