//! What a call asks the server about itself first, and tells its caller.

use pgrx::pg_sys;
use pgrx::prelude::*;

use crate::error::{self, Error, Result};

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

/// Tells the caller something that is no error.
pub fn tell(level: PgLogLevel, message: String, detail: String, hint: &str) {
    error::tell(level, message, Some(detail), Some(hint.to_owned()));
}
