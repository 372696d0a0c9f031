//! Advisory locks of this database that keep the extension's own processes and calls out of each other's way.

use pgrx::prelude::*;
use pgrx::{direct_function_call, pg_sys};

// Held by the worker's session as long as it lives.
const OWNERSHIP: i64 = i64::from_be_bytes(*b"backstop");
// Held until the end of a transaction that writes findings about the archive.
const FINDINGS: i64 = i64::from_be_bytes(*b"bkstopwa");

/// Makes this session the worker of its database; `false` where another one is it. Needs a transaction.
pub fn try_own_database() -> bool {
    // SAFETY: takes a session lock without waiting, as the SQL function does.
    unsafe { direct_function_call::<bool>(pg_sys::pg_try_advisory_lock_int8, &[OWNERSHIP.into_datum()]) }
        .unwrap_or(false)
}

/// Lets this transaction write findings, if no other one does. The worker gives way to `verify_wal_archive()`, which may hold
/// its rows for as long as it reads.
pub fn try_write_findings() -> bool {
    // SAFETY: takes a lock of the transaction without waiting, as the SQL function does.
    unsafe { direct_function_call::<bool>(pg_sys::pg_try_advisory_xact_lock_int8, &[FINDINGS.into_datum()]) }
        .unwrap_or(false)
}

/// Lets this transaction write findings, once no other one does.
pub fn write_findings() {
    // SAFETY: takes a lock of the transaction, as the SQL function does; it answers interrupts while it waits.
    unsafe { direct_function_call::<()>(pg_sys::pg_advisory_xact_lock_int8, &[FINDINGS.into_datum()]) };
}
