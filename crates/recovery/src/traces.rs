//! The traces that a recovery leaves: what is known of a start of the server, and of what came before it.

use chrono::{DateTime, Duration, Utc};
use wal::{Lsn, Timeline};

use crate::lives::Beginning;

/// The branch that ended a recovery from the archive or of a standby.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Branch {
    /// The timeline that was followed.
    pub parent: Timeline,
    /// The new one.
    pub timeline: Timeline,
    /// Where it begins.
    pub at: Lsn,
    /// Why, in the server's words.
    pub reason: String,
    /// When the new timeline's history file was written.
    pub written_at: Option<DateTime<Utc>>,
}

/// Whether a commit that was acknowledged is sure to be on disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Durability {
    /// `fsync`
    pub fsync: bool,
    /// `full_page_writes`
    pub full_page_writes: bool,
    /// Whether the server's own `synchronous_commit` is anything but `off`.
    pub synchronous_commit: bool,
}

/// All that is known of a start and of what came before it.
#[derive(Debug, Clone, PartialEq)]
pub struct Traces {
    /// How this life began.
    pub beginning: Beginning,
    /// When: the postmaster's start, or its restart after a crash of one of its processes.
    pub began_at: DateTime<Utc>,
    /// When the server was first seen to accept writes.
    pub writes_at: DateTime<Utc>,
    /// When it was last seen not to.
    pub no_writes_at: Option<DateTime<Utc>>,
    /// The last heartbeat of the life before.
    pub heartbeat_at: Option<DateTime<Utc>>,
    /// When pg_control had last been written before the start, by a server that was open.
    pub control_written_at: Option<DateTime<Utc>>,
    /// `checkpoint_timeout`: a server that works writes pg_control at least this often.
    pub checkpoint_timeout: Duration,
    /// Whether the machine has run on since the heartbeat.
    pub same_boot: Option<bool>,
    /// Where replay began.
    pub redo: Option<Lsn>,
    /// The end of what was replayed after a crash.
    pub recovered_to: Option<Lsn>,
    /// The last commit that was recovered.
    pub last_commit_at: Option<DateTime<Utc>>,
    /// Why the WAL that was replayed could not be searched for it.
    pub unread: Option<String>,
    /// What a crash can have taken.
    pub durability: Durability,
    /// Whether this server is a copy in another place.
    pub is_copy: bool,
    /// When the primary was last heard, on a standby.
    pub primary_heard_at: Option<DateTime<Utc>>,
    /// The end of the primary's WAL, as it last said.
    pub primary_end: Option<Lsn>,
    /// The end of the WAL that arrived from it.
    pub received: Option<Lsn>,
    /// Whether the WAL before the branch ends with the primary's shutdown.
    pub primary_shut_down: bool,
    /// The branch, where there is one.
    pub branch: Option<Branch>,
    /// The setting `recovery_target_time`.
    pub target_time: Option<DateTime<Utc>>,
    /// Why that setting could not be read.
    pub target_unread: Option<String>,
    /// When replay was last found paused, and did not go on any more.
    pub paused_at: Option<DateTime<Utc>>,
    /// Where the WAL of the backup that was restored begins.
    pub backup_start: Option<Lsn>,
}

/// The last commit is searched for from so many bytes before the end of what was replayed, and from further back where there is
/// none.
const FIRST_STRETCH: u64 = 256 << 10;

/// It is searched for no further back than this many bytes.
pub const LONGEST_STRETCH: u64 = 1 << 30;

/// Where to begin searching for the last commit between `from` and `to`, one place after the other, each further back.
///
/// The checkpoint after recovery leaves the last segment in pg_wal, and those before it only where something needs them. So the
/// first place is in the last segment, of `segment_size` bytes.
pub fn searches_from(from: Lsn, to: Lsn, segment_size: u64) -> impl Iterator<Item = Lsn> {
    let in_last_segment = to.less(1).0.checked_rem(segment_size).unwrap_or_default() + 1;
    let mut stretch = Some(FIRST_STRETCH.min(in_last_segment));
    std::iter::from_fn(move || {
        let length = stretch?;
        let begin = to.less(length).max(from);
        stretch = (begin > from && length < LONGEST_STRETCH).then(|| length.saturating_mul(8).min(LONGEST_STRETCH));
        Some(begin)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_short_replay_is_searched_from_its_beginning_and_a_long_one_to_a_limit() {
        let starts = |from, to| searches_from(Lsn(from), Lsn(to), 16 << 20).collect::<Vec<_>>();
        assert_eq!(starts(1000, 2000), [Lsn(1000)]);
        let end = 100_u64 << 30;
        assert_eq!(starts(end - (1 << 20), end).last(), Some(&Lsn(end - (1 << 20))));
        assert_eq!(starts(0x28, end).last(), Some(&Lsn(end - LONGEST_STRETCH)));
    }

    proptest! {
        #[test]
        fn each_search_begins_further_back_and_none_before_the_replay(from in 0_u64..1 << 40, length in 0_u64..1 << 40, size in 20_u32..31) {
            let (from, to) = (Lsn(from), Lsn(from + length));
            let starts: Vec<Lsn> = searches_from(from, to, 1 << size).collect();
            prop_assert!(!starts.is_empty() && starts.len() < 20);
            prop_assert!(starts.windows(2).all(|pair| pair[1] < pair[0]));
            prop_assert!(starts.iter().all(|start| (from..=to).contains(start) && to.bytes_since(*start) <= LONGEST_STRETCH));
        }
    }
}
