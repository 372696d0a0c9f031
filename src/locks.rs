//! Locks of this database that keep the extension's own processes and calls out of each other's way.
//!
//! They are what advisory locks are, under a kind that no SQL function takes (`LOCKTAG_USERLOCK` in storage/lock.h; pg_locks
//! shows `userlock`). Anybody may take any advisory lock: one call would keep the worker from starting, or from writing what
//! it found.

use crate::catalog;
use crate::error::{Result, sayably};
use pgrx::pg_sys;

// Held by the worker's session as long as it lives.
const OWNERSHIP: u32 = 1;
// Held until the end of a transaction that writes findings about the archive.
const FINDINGS: u32 = 2;
// Held until the end of a transaction that records a recovery: shared by calls, by the worker alone.
const RECOVERIES: u32 = 3;
// Held by a session that has the archive verified, for as long as that takes: each takes a background worker of the server's.
const VERIFICATION: u32 = 4;

// Sets these locks apart from another extension's that has the same idea.
const SPACE: u32 = u32::from_be_bytes(*b"bkst");

/// Makes this session the worker of its database; `false` where another one is it. Needs a transaction.
pub fn try_own_database() -> bool {
    acquire(OWNERSHIP, true, true)
}

/// The right to have the archive verified; given back when dropped.
pub struct Verification(());

impl Verification {
    /// Waits until no other session of this database has it.
    pub fn begin() -> Self {
        acquire(VERIFICATION, true, false);
        Self(())
    }
}

impl Drop for Verification {
    fn drop(&mut self) {
        // SAFETY: a lock that this session holds; where the session ends without unwinding, it goes with it.
        unsafe { pg_sys::LockRelease(&tag(VERIFICATION), pg_sys::ExclusiveLock as pg_sys::LOCKMODE, true) };
    }
}

/// Lets this transaction write findings, if no other one does. A worker does not wait for `acknowledge_wal_gap()`, whose
/// transaction may stay open for long.
pub fn try_write_findings() -> bool {
    acquire(FINDINGS, false, true)
}

/// Lets this transaction write findings, once no other one does. The ledger's chain comes after it.
pub fn write_findings() {
    acquire(FINDINGS, false, false);
}

/// The process whose transaction writes findings; none where that is over by now. Needs a transaction.
pub fn findings_writer() -> Result<Option<i32>> {
    catalog::worker::holder_of_userlock(SPACE, FINDINGS)
}

/// Keeps the worker from recording a recovery that this transaction is recording too, which waits for the worker if need be.
pub fn record_recovery() {
    acquire_in(RECOVERIES, pg_sys::ShareLock, false, false);
}

/// Lets the worker record the recovery that it found, if no transaction that records one is under way.
pub fn try_record_found_recovery() -> bool {
    acquire(RECOVERIES, false, true)
}

/// Takes a lock for the session or the transaction; `false` where another one has it and `at_once` is wanted.
fn acquire(lock: u32, session: bool, at_once: bool) -> bool {
    acquire_in(lock, pg_sys::ExclusiveLock, session, at_once)
}

fn acquire_in(lock: u32, mode: u32, session: bool, at_once: bool) -> bool {
    let tag = tag(lock);
    // SAFETY: an ordinary heavyweight lock, seen by the deadlock detector; waiting for it answers interrupts.
    let result = sayably(|| unsafe { pg_sys::LockAcquire(&tag, mode as pg_sys::LOCKMODE, session, at_once) });
    result != pg_sys::LockAcquireResult::LOCKACQUIRE_NOT_AVAIL
}

fn tag(lock: u32) -> pg_sys::LOCKTAG {
    // SAFETY: a plain variable of this process.
    let database = unsafe { pg_sys::MyDatabaseId };
    pg_sys::LOCKTAG {
        locktag_field1: database.to_u32(),
        locktag_field2: SPACE,
        locktag_field3: lock,
        locktag_field4: 0,
        locktag_type: pg_sys::LockTagType::LOCKTAG_USERLOCK as u8,
        // As for advisory locks: the other method's session locks end with the first transaction that aborts.
        locktag_lockmethodid: pg_sys::USER_LOCKMETHOD as u8,
    }
}
