//! What a call needs to know of the server that it runs on.

use pgrx::pg_sys;
use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::*;
use wal::{Lsn, SegmentName, SegmentSize, Timeline, TimelineHistory};

use crate::catalog::PgLsn;
use crate::error::{Error, Result};

/// Refuses on a standby and in a read-only transaction, before anything is read or measured in vain.
///
/// # Errors
/// [`Error::InRecovery`], [`Error::ReadOnlyTransaction`].
pub fn require_primary(function: &'static str) -> Result<()> {
    // SAFETY: reads shared memory, and a plain variable of this process.
    let (in_recovery, read_only) = unsafe { (pg_sys::RecoveryInProgress(), pg_sys::XactReadOnly) };
    if in_recovery {
        Err(Error::InRecovery { function })
    } else if read_only {
        Err(Error::ReadOnlyTransaction { function })
    } else {
        Ok(())
    }
}

/// Where WAL is on this primary.
pub struct WalPosition {
    /// The flush position. PostgreSQL writes a page only when its WAL is flushed, so a copy of the data directory that ended
    /// before now has no page newer than this; and a backup that begins from now on starts at a checkpoint not older than this.
    pub lsn: PgLsn,
    /// The timeline that WAL is written on.
    pub timeline: u32,
}

impl WalPosition {
    /// The position now. Only on a primary.
    pub fn now() -> Self {
        let mut timeline = 0;
        // SAFETY: reads shared memory; not in recovery, as the function wants it.
        let lsn = unsafe { pg_sys::GetFlushRecPtr(&mut timeline) };
        Self {
            lsn: PgLsn(lsn),
            timeline,
        }
    }
}

/// The time now, in µs since 2000 (TimestampTz).
pub fn now() -> pg_sys::TimestampTz {
    // SAFETY: reads the clock.
    unsafe { pg_sys::GetCurrentTimestamp() }
}

/// The same as SQL has it.
pub fn now_with_time_zone() -> Result<TimestampWithTimeZone> {
    with_time_zone(now())
}

/// A time in µs since 2000 (TimestampTz) as SQL has it.
pub fn with_time_zone(time: pg_sys::TimestampTz) -> Result<TimestampWithTimeZone> {
    TimestampWithTimeZone::try_from(time).map_err(|_| Error::UnexpectedAnswer {
        what: "a time that SQL can hold",
    })
}

/// When the server was started, in µs since 2000 (TimestampTz).
pub fn started_at() -> pg_sys::TimestampTz {
    // SAFETY: set by the postmaster.
    unsafe { pg_sys::PgStartTime }
}

/// The cluster's identity, as pg_control_system() shows it.
pub fn system_identifier() -> i64 {
    // SAFETY: reads the copy of the control file that the server holds in memory.
    unsafe { pg_sys::GetSystemIdentifier() }.cast_signed()
}

impl WalPosition {
    /// The timeline as SQL knows it.
    pub fn timeline(&self) -> Result<i32> {
        i32::try_from(self.timeline).map_err(|_| Error::UnexpectedAnswer {
            what: "a timeline below 2^31",
        })
    }

    /// Name of the segment that the next byte goes to: where a backup's WAL begins.
    pub fn file_of_next_byte(&self) -> Result<String> {
        self.file(self.lsn.0)
    }

    /// Name of the segment that the last byte is in: where a backup's WAL ends.
    pub fn file_of_last_byte(&self) -> Result<String> {
        self.file(self.lsn.0.saturating_sub(1))
    }

    fn file(&self, byte: u64) -> Result<String> {
        let name = SegmentName::containing(Timeline(self.timeline), Lsn(byte), segment_size()?);
        Ok(name.to_string())
    }
}

/// The cluster's segment size.
pub fn segment_size() -> Result<SegmentSize> {
    // SAFETY: set when the server starts, from the control file.
    let bytes = unsafe { pg_sys::wal_segment_size };
    SegmentSize::new(bytes.unsigned_abs()).map_err(|_| Error::UnexpectedAnswer {
        what: "a WAL segment size",
    })
}

/// The segments that hold the WAL from `start` up to `end`, in order, each under the timeline that recovery along this
/// server's own history would read it from.
pub fn segments_of(start: PgLsn, end: PgLsn, timeline: u32) -> Result<Vec<SegmentName>> {
    let size = segment_size()?;
    let history = own_history(Timeline(timeline));
    let first = start.0 / size.bytes();
    let last = end.0.saturating_sub(1) / size.bytes();
    Ok((first..=last)
        .map(|number| SegmentName {
            timeline: history.timeline_of_segment(number, size),
            number,
            size,
        })
        .collect())
}

/// The history of the timeline that this server writes. Its first timeline has no history file; one that cannot be read
/// counts as none, as it does for the server itself (readTimeLineHistory() in timeline.c).
fn own_history(timeline: Timeline) -> TimelineHistory {
    // The server's working directory is its data directory.
    std::fs::read(format!("pg_wal/{:08X}.history", timeline.0))
        .ok()
        .and_then(|content| TimelineHistory::parse(timeline, content).ok())
        .unwrap_or(TimelineHistory::root(timeline))
}

/// Tells the caller something that is no error.
pub fn tell(level: PgLogLevel, message: String, detail: String, hint: &str) {
    let code = match level {
        PgLogLevel::WARNING => PgSqlErrorCode::ERRCODE_WARNING,
        _ => PgSqlErrorCode::ERRCODE_SUCCESSFUL_COMPLETION,
    };
    ErrorReport::new(code, message, "pg_backstop")
        .set_detail(detail)
        .set_hint(hint)
        .report(level);
}
