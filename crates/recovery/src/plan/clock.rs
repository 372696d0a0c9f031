//! Clocks that jumped back: the server stops at the first commit later than the target, whatever comes behind it.

use chrono::{DateTime, TimeDelta, Utc};
use wal::Lsn;

use super::{Choice, Refusal, Stop};

/// Commits are written in another order than that of their times, by this much at most while nobody sets the clock.
const DISORDER: TimeDelta = TimeDelta::seconds(1);

/// The commits of one segment.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct CommitTimes {
    /// Where the segment begins.
    pub start: Lsn,
    /// The time of its first commit in WAL order.
    pub first: DateTime<Utc>,
    /// That of its last one.
    pub last: DateTime<Utc>,
    /// The latest time of a commit or abort in it, wherever that lies.
    pub latest: DateTime<Utc>,
}

/// What reading a segment tells of its commits up to a moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CommitsUpTo {
    /// The start of the last of them.
    pub last: Lsn,
    /// Whether one that is later than [`CommitTimes::limit`] lies before it.
    pub is_behind_later: bool,
}

impl CommitTimes {
    /// The latest time that counts as no jump for a target.
    pub fn limit(target: DateTime<Utc>) -> DateTime<Utc> {
        target.checked_add_signed(DISORDER).unwrap_or(DateTime::<Utc>::MAX_UTC)
    }
}

/// Looks at the WAL that would be replayed: `ahead` is its first segment with a commit or abort later than [`CommitTimes::limit`],
/// `behind` its last one with a commit up to the target; `read` reads that one, and gives none where it cannot be read.
///
/// # Errors
/// [`Refusal::ClockWentBack`] where the server would stop before it came to all commits up to the target.
pub fn check_clock(
    choice: &Choice,
    ahead: Option<CommitTimes>,
    behind: Option<CommitTimes>,
    read: &mut dyn FnMut(Lsn) -> Option<CommitsUpTo>,
) -> Result<(), Refusal> {
    let (Stop::Time(time), Some(ahead), Some(behind)) = (&choice.stop, ahead, behind) else {
        return Ok(());
    };
    let limit = CommitTimes::limit(*time);
    let in_one = behind.start == ahead.start;
    let may_have_jumped = behind.start > ahead.start || (in_one && ahead.latest > limit && behind.last <= *time);
    if !may_have_jumped {
        return Ok(());
    }
    let found = read(behind.start);
    // What is later may as well be an abort behind the last commit. Where nobody can look, that is not to be relied on.
    if in_one && behind.first <= limit && found.is_some_and(|found| !found.is_behind_later) {
        return Ok(());
    }
    Err(Refusal::ClockWentBack {
        time: *time,
        ahead_at: if ahead.first > limit { ahead.first } else { ahead.latest },
        ahead_lsn: ahead.start,
        way_out: found.map(|found| found.last),
        behind_lsn: behind.start,
    })
}
