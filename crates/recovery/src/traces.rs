//! The traces that a recovery leaves: what is known of a start of the server, and of what came before it.

use chrono::{DateTime, Utc};
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
    /// When pg_control had last been written before the start.
    pub control_written_at: Option<DateTime<Utc>>,
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
    /// When replay was last found paused, and did not go on any more.
    pub paused_at: Option<DateTime<Utc>>,
    /// Where the WAL of the backup that was restored begins.
    pub backup_start: Option<Lsn>,
}
