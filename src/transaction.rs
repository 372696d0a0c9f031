//! The one way in which a worker runs a transaction: commit on `Ok`, abort on `Err` and on any PostgreSQL error or panic.
//!
//! pgrx's own `BackgroundWorker::transaction` commits whatever the body returns, and leaves the transaction open when an
//! error is caught further out.

use crate::catalog::Extension;
use crate::error::{Error, Result};
use pgrx::pg_sys;
use pgrx::pg_sys::errcodes::PgSqlErrorCode;
use pgrx::pg_sys::panic::CaughtError;
use std::panic::AssertUnwindSafe;

/// Runs `body` in a transaction of its own. A PostgreSQL error or a panic comes back as [`Error::Raised`].
pub fn in_transaction<R>(body: impl FnOnce() -> Result<R>) -> Result<R> {
    // SAFETY: called by a background worker that is connected to a database, outside of any transaction.
    unsafe {
        pg_sys::SetCurrentStatementStartTimestamp();
        pg_sys::StartTransactionCommand();
        // A commit record with an origin carries this time too, and logical decoding and commit timestamps on a standby take it
        // for the commit's own (xactdesc.c, decode.c). PostgreSQL would leave there the time of the commit before.
        pg_sys::replorigin_session_origin_timestamp = pg_sys::GetCurrentTimestamp();
    }
    let result = caught(|| {
        // SAFETY: a transaction is open.
        unsafe { pg_sys::PushActiveSnapshot(pg_sys::GetTransactionSnapshot()) };
        Extension::keep();
        let value = body()?;
        // SAFETY: pops what was pushed above; the body leaves the snapshot stack as it found it.
        unsafe {
            pg_sys::PopActiveSnapshot();
            pg_sys::CommitTransactionCommand();
        }
        Ok(value)
    });
    if result.is_err() {
        // SAFETY: the transaction is open or already failed; abort releases its locks, snapshots and memory.
        unsafe { pg_sys::AbortCurrentTransaction() };
    }
    result
}

/// Turns a PostgreSQL error or a Rust panic inside `body` into its message.
pub fn caught<R>(body: impl FnOnce() -> Result<R>) -> Result<R> {
    pgrx::PgTryBuilder::new(AssertUnwindSafe(body))
        .catch_others(|error| {
            let text = describe(&error);
            Err(match &error {
                CaughtError::PostgresError(report)
                    if report.sql_error_code() == PgSqlErrorCode::ERRCODE_LOCK_NOT_AVAILABLE =>
                {
                    Error::LockNotAvailable(text)
                }
                _ => Error::Raised(text),
            })
        })
        .execute()
}

fn describe(error: &CaughtError) -> String {
    let report = match error {
        CaughtError::PostgresError(report) | CaughtError::ErrorReport(report) => report,
        CaughtError::RustPanic { ereport, .. } => ereport,
    };
    match report.detail() {
        Some(detail) => format!("{}: {detail}", report.message()),
        None => report.message().to_owned(),
    }
}
