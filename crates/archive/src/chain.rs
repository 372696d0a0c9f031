//! The chain: what the archive should hold, what it does hold, and what is already known of it, made into what to do now.
//!
//! Pure decisions over facts that the caller gathered **in this order**, so that nothing just done is taken for undone: the
//! server's flush LSN, then the archiver's `.ready` files, then what the archive holds. [`Index`](crate::index::Index) says which
//! segments want a decision at all.
//!
//! The caller enters what was decided before it verifies anything: every expected segment then has a row, and whatever lies
//! between two verified rows and is not sound is on record as such. Crate `recovery` relies on that.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use wal::PgTimestamp;

use crate::status::Status;
use crate::stored::{RootId, StoredFile};

/// How a file looked when it was last read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Mark {
    /// Its size in the archive.
    pub bytes: u64,
    /// Its ctime.
    pub changed_at: PgTimestamp,
}

impl Mark {
    /// Of a file that is there, but that cannot be looked at: like no other.
    pub const UNKNOWN: Self = Self {
        bytes: 0,
        changed_at: PgTimestamp(i64::MIN),
    };

    /// How a file looks now.
    pub const fn of(file: &StoredFile) -> Self {
        Self {
            bytes: file.bytes,
            changed_at: file.changed_at,
        }
    }
}

/// What is on record of one archived file: its `wal_archive` row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Recorded {
    /// The verdict.
    pub status: Status,
    /// How it looked when it was read; none if it was never seen in the archive. Kept when it goes missing.
    pub mark: Option<Mark>,
    /// When it was first expected or seen.
    pub noticed_at: PgTimestamp,
    /// That it is to be read again although it looks the same: the last attempt failed for a reason outside the file, or the
    /// timeline that it is of has become this server's.
    pub due: bool,
    /// That it was not there when it was last looked for: `missing`, or acknowledged as such.
    pub absent: bool,
    /// That it is on record as `not_archived`.
    pub rescuable: bool,
}

/// How the archive has one file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum Held {
    /// It is there and looks like this.
    File(Mark),
    /// It is not there.
    Absent,
    /// The archive cannot be listed, only asked for files: see [`Source::RestoreCommand`](crate::Source::RestoreCommand).
    Unlisted,
}

/// Why a file is to be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Why {
    /// It has not been read yet.
    New,
    /// It does not look as it did when it was read.
    Changed,
    /// It was missing, or given up, and is there again.
    BackAgain,
    /// Its row asks for it.
    Due,
}

/// How a file came to be missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Loss {
    /// The archiver does not mean to send it (any more), and it did not appear within `archive_grace`.
    NeverArrived,
    /// The same, but the server's own copy is still in pg_wal.
    NotArchived,
    /// It was in the archive and is not there now.
    Gone,
}

/// What to do about one file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// Nothing: what is on record holds.
    Stands,
    /// Nothing: it is pending, and has yet to arrive or to be finished.
    Waits,
    /// Enter it as `pending`: it is expected and without a row, or its verdict holds no longer because the archiver is sending
    /// it (again).
    Await,
    /// Read it. One without a row is entered as `pending` first, with its mark, so that it is noticed should it vanish before.
    Read(Why),
    /// Enter it as `missing`.
    Lose(Loss),
}

/// An archive that is empty, though WAL was read from it before, and that is not known to be the same directory: most likely a
/// file system is not mounted. It forbids conclusions about single files.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the archive holds no WAL file at all, although {files} were read from it before; is its file system mounted?")]
pub struct EmptyElsewhere {
    /// How many files are on record as having been there.
    pub files: u64,
}

/// What is remembered from one look to the next, beyond the rows. Losing it (a restart) only makes the chain more patient.
#[derive(Debug, Clone)]
pub struct Memory {
    since: PgTimestamp,
    root: Option<RootId>,
    last_ready: BTreeMap<String, PgTimestamp>,
}

impl Memory {
    /// Nothing seen yet.
    pub const fn new(now: PgTimestamp) -> Self {
        Self {
            since: now,
            root: None,
            last_ready: BTreeMap::new(),
        }
    }

    /// When the archiver is known to have had `name` still before it, or might have had.
    fn patience_from(&self, name: &str, noticed_at: PgTimestamp) -> PgTimestamp {
        self.last_ready.get(name).copied().unwrap_or(self.since).max(noticed_at)
    }

    /// To be called once a look, with what the archiver has yet to send.
    pub fn observe(&mut self, ready: &BTreeSet<String>, grace: Duration, now: PgTimestamp) {
        let grace = micros(grace);
        self.last_ready.retain(|_, seen| now.0.saturating_sub(seen.0) <= grace);
        for name in ready {
            self.last_ready.insert(name.clone(), now);
        }
        // A clock set back must not make everything wait until it is where it was.
        self.since = self.since.min(now);
    }

    /// To be called once a look, with which directory the archive is and whether it holds no WAL file. `files_on_record`, how
    /// many files were there when they were last looked at, is asked for only where it matters.
    ///
    /// # Errors
    /// Those of `files_on_record`; [`EmptyElsewhere`] in the inner result.
    pub fn trust<E>(
        &mut self,
        root: RootId,
        is_empty: bool,
        files_on_record: impl FnOnce() -> Result<u64, E>,
    ) -> Result<Result<(), EmptyElsewhere>, E> {
        if !is_empty {
            self.root = Some(root);
        } else if self.root != Some(root) {
            let files = files_on_record()?;
            if files > 0 {
                return Ok(Err(EmptyElsewhere { files }));
            }
        }
        Ok(Ok(()))
    }
}

/// Decides about files, one by one, from the facts of one moment.
#[derive(Debug, Clone, Copy)]
pub struct Judge<'a> {
    /// Names (without the suffix) that have a `.ready` file in `pg_wal/archive_status`: the archiver has yet to send them, or to
    /// finish sending.
    pub ready: &'a BTreeSet<String>,
    /// Names of files in `pg_wal` itself.
    pub local: &'a BTreeSet<String>,
    /// How long a file that the archiver called done may stay invisible (`archive_grace`).
    pub grace: Duration,
    /// The time.
    pub now: PgTimestamp,
    /// What was seen before.
    pub memory: &'a Memory,
}

impl Judge<'_> {
    /// What to do about the file `name`, which is needed or there.
    pub fn decide(&self, name: &str, held: Held, record: Option<&Recorded>) -> Decision {
        match (held, record) {
            (Held::File(mark), Some(record)) => {
                let why = match record.status {
                    Status::Missing | Status::Acknowledged if record.absent => Why::BackAgain,
                    Status::Pending => Why::New,
                    _ if record.mark != Some(mark) => Why::Changed,
                    _ if record.due => Why::Due,
                    _ => return Decision::Stands,
                };
                if !self.ready.contains(name) {
                    Decision::Read(why)
                } else if matches!(why, Why::BackAgain | Why::Changed) {
                    // Neither what was found before nor the loss is true any more, and what comes instead is not finished.
                    Decision::Await
                } else if why == Why::New {
                    Decision::Waits
                } else {
                    Decision::Stands
                }
            }
            // The archiver may be in the middle of writing it.
            (Held::File(_) | Held::Unlisted, None) => {
                if self.ready.contains(name) {
                    Decision::Await
                } else {
                    Decision::Read(Why::New)
                }
            }
            (Held::Absent, None) => Decision::Await,
            (Held::Absent, Some(record)) => self.absent(name, record),
            (Held::Unlisted, Some(record)) => match record.status {
                Status::Pending | Status::Missing if self.ready.contains(name) => self.absent(name, record),
                Status::Pending => Decision::Read(Why::New),
                Status::Missing => Decision::Read(Why::BackAgain),
                Status::Acknowledged if record.absent => Decision::Read(Why::BackAgain),
                _ if record.due => Decision::Read(Why::Due),
                _ => Decision::Stands,
            },
        }
    }

    /// What to do about a file that is known not to be in the archive.
    pub fn absent(&self, name: &str, record: &Recorded) -> Decision {
        let ready = self.ready.contains(name);
        let local = self.local.contains(name);
        match record.status {
            // Given up by the DBA: only its return is news.
            Status::Acknowledged => Decision::Stands,
            Status::Pending if ready => Decision::Waits,
            // The archiver means to send it again, as it does after a crash.
            _ if ready => Decision::Await,
            Status::Missing if record.rescuable && !local => Decision::Lose(Loss::NeverArrived),
            Status::Missing if !record.rescuable && local && record.mark.is_none() => Decision::Lose(Loss::NotArchived),
            Status::Missing => Decision::Stands,
            Status::Pending if record.mark.is_none() => {
                let from = self.memory.patience_from(name, record.noticed_at);
                if self.now.0.saturating_sub(from.0) < micros(self.grace) {
                    Decision::Waits
                } else if local {
                    Decision::Lose(Loss::NotArchived)
                } else {
                    Decision::Lose(Loss::NeverArrived)
                }
            }
            Status::Pending | Status::Verified | Status::Corrupt | Status::Foreign => Decision::Lose(Loss::Gone),
        }
    }
}

fn micros(duration: Duration) -> i64 {
    i64::try_from(duration.as_micros()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests;
