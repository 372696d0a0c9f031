//! The facts that every verdict is computed from, as the tables and the server have them.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use archive::Status;
use chrono::{DateTime, Utc};
use wal::{Lsn, SegmentName, SegmentSize, Timeline, TimelineHistory};

use crate::gaps::Need;
use crate::rto::Rates;

/// A word that is not in the list of its column.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("\"{word}\" is no {column}; one is {known}")]
pub struct UnknownWord {
    /// What was given.
    pub word: String,
    /// The column.
    pub column: &'static str,
    /// The words that it takes.
    pub known: &'static str,
}

macro_rules! words {
    ($(#[$meta:meta])* $name:ident, $column:literal, $known:literal, { $($(#[$doc:meta])* $variant:ident => $word:literal),+ $(,)? }) => {
        $(#[$meta])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum $name { $($(#[$doc])* $variant),+ }

        impl $name {
            /// The word in the table.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $word),+ }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.as_str())
            }
        }

        impl FromStr for $name {
            type Err = UnknownWord;

            fn from_str(word: &str) -> Result<Self, UnknownWord> {
                match word {
                    $($word => Ok(Self::$variant),)+
                    _ => Err(UnknownWord { word: word.to_owned(), column: $column, known: $known }),
                }
            }
        }
    };
}

words! {
    /// What kind of backup it is.
    BackupType, "backup type", "full, incremental, differential, logical or globals", {
        /// The whole cluster, on its own.
        Full => "full",
        /// What changed since its parent.
        Incremental => "incremental",
        /// What changed since the last full backup, its parent.
        Differential => "differential",
        /// A dump of a database: a point, not the start of a recovery.
        Logical => "logical",
        /// A dump of roles and tablespaces.
        Globals => "globals",
    }
}

words! {
    /// How far a backup got.
    BackupStatus, "backup status", "running, completed, failed or expired", {
        /// Not finished.
        Running => "running",
        /// Finished well.
        Completed => "completed",
        /// Finished badly, or given up.
        Failed => "failed",
        /// Removed by retention.
        Expired => "expired",
    }
}

words! {
    /// What looking into the backup found.
    Verification, "verification", "unverified, passed or failed", {
        /// Nobody looked.
        Unverified => "unverified",
        /// It is whole.
        Passed => "passed",
        /// It is not.
        Failed => "failed",
    }
}

impl BackupType {
    /// Whether it is a copy of the cluster's files, from which WAL can be replayed.
    pub const fn is_physical(self) -> bool {
        matches!(self, Self::Full | Self::Incremental | Self::Differential)
    }

    /// Whether it is of no use without another backup.
    pub const fn needs_parent(self) -> bool {
        matches!(self, Self::Incremental | Self::Differential)
    }
}

/// One row of `backup_history`.
#[derive(Debug, Clone, PartialEq)]
pub struct BackupFact {
    /// Its id.
    pub id: i64,
    /// Its kind.
    pub backup_type: BackupType,
    /// The backup that it builds upon.
    pub parent_id: Option<i64>,
    /// The timeline that it was taken on.
    pub timeline: Timeline,
    /// Where replay starts.
    pub start: Option<Lsn>,
    /// Where the copy is consistent: its end.
    pub end: Option<Lsn>,
    /// When it ended.
    pub finished_at: Option<DateTime<Utc>>,
    /// Its size in bytes, if that is on record.
    pub size: Option<u64>,
    /// How it ended.
    pub status: BackupStatus,
    /// Why it failed.
    pub error: Option<String>,
    /// Whether it was looked into.
    pub verification: Verification,
    /// Whether the WAL from its start to its end is inside it (`pg_basebackup -X stream` or `fetch`).
    pub wal_included: bool,
}

/// Consecutive segments of one timeline that are not verified, and whose rows of `wal_archive` say the same. All are to be loaded
/// that lie in any [`Extent`].
#[derive(Debug, Clone, PartialEq)]
pub struct BrokenRun {
    /// The first of them.
    pub first: SegmentName,
    /// The last of them.
    pub last: SegmentName,
    /// What they are instead.
    pub status: Status,
    /// The column `problem`.
    pub problem: Option<String>,
    /// Since when the first of them to be so is so (`status_since`).
    pub noticed_at: DateTime<Utc>,
    /// Whether files under these names are in the archive, as far as is known.
    pub stored: bool,
}

/// From the first to the last verified segment of a timeline. Whatever lies between and is not in a [`BrokenRun`] counts as
/// verified; crate `archive` sees to it that every expected segment has a row. Several extents of one timeline are fine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Extent {
    /// The timeline.
    pub timeline: Timeline,
    /// Start of the first verified segment.
    pub first: Lsn,
    /// End of the last verified segment.
    pub last: Lsn,
}

/// A timeline's history file that is missing or bad: recovery does not find its way into that timeline.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BrokenHistory {
    /// The timeline.
    pub timeline: Timeline,
    /// The column `problem`: `missing_history`, `bad_history`, `unreadable`.
    pub problem: String,
}

/// What is known of archiving.
#[derive(Debug, Clone, PartialEq)]
pub struct Archiver {
    /// Whether `archive_mode` is on (or always).
    pub mode_on: bool,
    /// Where archived WAL is read (`dir:/path`), or the sentence that says why that is not known.
    pub source: Result<String, String>,
    /// Why the archive could not be read in the last tick: an error, or a suspicion about it as a whole.
    pub unreadable: Option<String>,
    /// The failure that `pg_stat_archiver` shows, if it came after the last success.
    pub failing: Option<ArchiverFailure>,
    /// The setting `archive_grace`.
    pub grace: Duration,
}

impl Archiver {
    /// Whether there is an archive. Where archiving is off, one may be named all the same: pg_receivewal may fill it.
    pub const fn has_archive(&self) -> bool {
        self.mode_on || self.source.is_ok()
    }
}

/// The archiver's last failure.
#[derive(Debug, Clone, PartialEq)]
pub struct ArchiverFailure {
    /// The file that it could not archive.
    pub file: String,
    /// When it last tried.
    pub at: DateTime<Utc>,
}

/// What is known of the worker.
#[derive(Debug, Clone, PartialEq)]
pub struct WorkerFact {
    /// When it last finished a look at the archive.
    pub last_tick_at: Option<DateTime<Utc>>,
    /// The setting `check_interval`.
    pub check_interval: Duration,
    /// What stopped its last tick.
    pub error: Option<String>,
    /// Why none runs although one should.
    pub not_started: Option<String>,
}

/// Everything that a verdict rests on.
#[derive(Debug, Clone, PartialEq)]
pub struct Facts {
    /// The time.
    pub now: DateTime<Utc>,
    /// The cluster's segment size.
    pub size: SegmentSize,
    /// The history of the server's timeline.
    pub history: TimelineHistory,
    /// Up to where the server has flushed WAL. None where it cannot be asked.
    pub flush: Option<Lsn>,
    /// Whether the server is a standby.
    pub is_standby: bool,
    /// All backups that are not `expired`, which do no harm; or those of an [`outline`](crate::outline), where they are many.
    pub backups: Vec<BackupFact>,
    /// What the backups that count need, up to the last gap; where `backups` does not hold them all.
    pub needs: Option<Vec<Need>>,
    /// How many completed backups are on record and not in `backups`.
    pub unlisted: u64,
    /// Who put the newest usable backup on record with SQL, past the functions, and when; none where nobody did, where it was declared
    /// as imported, and where somebody has accepted it.
    pub put_in_by_sql: Option<String>,
    /// What is not verified.
    pub broken: Vec<BrokenRun>,
    /// What is.
    pub extents: Vec<Extent>,
    /// History files that are not in order.
    pub broken_histories: Vec<BrokenHistory>,
    /// The flush LSNs of the physical receivers that count as protection.
    pub receivers: Vec<Lsn>,
    /// Archiving.
    pub archiver: Archiver,
    /// The worker.
    pub worker: WorkerFact,
    /// `target_rpo`; none where there is no objective.
    pub target_rpo: Option<Duration>,
    /// `target_rto`; none where there is no objective.
    pub target_rto: Option<Duration>,
    /// What earlier recoveries took.
    pub rates: Rates,
}
