//! Locks of this database that keep the extension's own processes and calls out of each other's way.
//!
//! They are what advisory locks are, under a kind that no SQL function takes (`LOCKTAG_USERLOCK` in storage/lock.h; pg_locks
//! shows `userlock`). Anybody may take any advisory lock: one call would keep the worker from starting, or from writing what
//! it found.

use crate::error::sayably;
use pgrx::pg_sys;

// Held by the worker's session as long as it lives.
const OWNERSHIP: u32 = 1;
// Held until the end of a transaction that writes findings about the archive.
const FINDINGS: u32 = 2;

// Sets these locks apart from another extension's that has the same idea.
const SPACE: u32 = u32::from_be_bytes(*b"bkst");

/// Makes this session the worker of its database; `false` where another one is it. Needs a transaction.
pub fn try_own_database() -> bool {
    acquire(OWNERSHIP, true, true)
}

/// Lets this transaction write findings, if no other one does. The worker gives way to `verify_wal_archive()`, which may hold
/// its rows for as long as it reads.
pub fn try_write_findings() -> bool {
    acquire(FINDINGS, false, true)
}

/// Lets this transaction write findings, once no other one does.
pub fn write_findings() {
    acquire(FINDINGS, false, false);
}

/// Takes a lock for the session or the transaction; `false` where another one has it and `at_once` is wanted.
fn acquire(lock: u32, session: bool, at_once: bool) -> bool {
    // SAFETY: a plain variable of this process.
    let database = unsafe { pg_sys::MyDatabaseId };
    let tag = pg_sys::LOCKTAG {
        locktag_field1: database.to_u32(),
        locktag_field2: SPACE,
        locktag_field3: lock,
        locktag_field4: 0,
        locktag_type: pg_sys::LockTagType::LOCKTAG_USERLOCK as u8,
        // As for advisory locks: the other method's session locks end with the first transaction that aborts.
        locktag_lockmethodid: pg_sys::USER_LOCKMETHOD as u8,
    };
    // SAFETY: an ordinary heavyweight lock, seen by the deadlock detector; waiting for it answers interrupts.
    let result =
        sayably(|| unsafe { pg_sys::LockAcquire(&tag, pg_sys::ExclusiveLock as pg_sys::LOCKMODE, session, at_once) });
    result != pg_sys::LockAcquireResult::LOCKACQUIRE_NOT_AVAIL
}
