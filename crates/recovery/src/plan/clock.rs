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
}

impl CommitTimes {
    /// The latest time that counts as no jump for a target.
    pub fn limit(target: DateTime<Utc>) -> DateTime<Utc> {
        target.checked_add_signed(DISORDER).unwrap_or(DateTime::<Utc>::MAX_UTC)
    }
}

/// Looks at the WAL that would be replayed: `ahead` is its first segment with a commit later than [`CommitTimes::limit`], `behind` its
/// last one with a commit up to the target, `last_commit` the last such commit.
///
/// # Errors
/// [`Refusal::ClockWentBack`] where the server would stop before it came to all commits up to the target.
pub fn check_clock(
    choice: &Choice,
    ahead: Option<CommitTimes>,
    behind: Option<CommitTimes>,
    last_commit: &mut dyn FnMut(Lsn) -> Option<Lsn>,
) -> Result<(), Refusal> {
    let (Stop::Time(time), Some(ahead), Some(behind)) = (&choice.stop, ahead, behind) else {
        return Ok(());
    };
    let limit = CommitTimes::limit(*time);
    let jumped =
        behind.start > ahead.start || (behind.start == ahead.start && behind.first > limit && behind.last <= *time);
    if !jumped {
        return Ok(());
    }
    Err(Refusal::ClockWentBack {
        time: *time,
        ahead_at: if ahead.first > limit { ahead.first } else { ahead.last },
        ahead_lsn: ahead.start,
        way_out: last_commit(behind.start),
        behind_lsn: behind.start,
    })
}
