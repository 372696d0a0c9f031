//! Memory that runs out: an ERROR as PostgreSQL's own, in place of an abort that takes every session along.
//!
//! A failed allocation ends a Rust program with SIGABRT, which the postmaster takes for a crash; and an allocator must not unwind,
//! so it cannot raise the error itself. Hence a process that uses the extension sets some address space aside first. When memory
//! runs out, that goes back to the system: what is going on gets what it asked for, so does PostgreSQL where it copies its own
//! error, and [`check`], which every row that is read passes, raises the error before the rest is used up.
//!
//! ```text
//! allocation fails ── reserve given back ── allocation succeeds ── next check(): ERROR 53200 ── rollback ── reserve set aside anew
//! ```
//!
//! An allocation of more than [`LARGEST`] must be one that may fail: rows are collected by [`collect`], and before sums over many
//! facts comes [`require`]. For what nobody has thought of there is [`last_resort`]: it ends the session, and not the server.

mod last_resort;
mod reserve;

use std::alloc::{GlobalAlloc, Layout, System};
use std::collections::HashMap;
use std::ffi::c_void;
use std::hash::Hash;
use std::hint::black_box;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use pgrx::pg_sys;
use pgrx::pg_sys::panic::{ErrorReport, ErrorReportWithLevel};
use pgrx::prelude::*;

use crate::error::{Error, Result};

pub use reserve::ReleasedByErrors;

/// What may be allocated at once where nobody looks whether it succeeds, bytes: half of the reserve, so that the other half is left
/// for the way to the error.
const LARGEST: usize = reserve::SIZE / 2;

/// How much was asked for in vain; 0 as long as nothing was.
static REFUSED: AtomicUsize = AtomicUsize::new(0);

#[global_allocator]
static ALLOCATOR: Allocator = Allocator;

/// The system's allocator with the reserve behind it. It calls nothing of PostgreSQL's, for it serves forked children too.
struct Allocator;

// SAFETY: each block comes from System and goes back to it with the same layout.
unsafe impl GlobalAlloc for Allocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's promise, handed on.
        or_from_reserve(layout.size(), || unsafe { System.alloc(layout) })
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: as above.
        or_from_reserve(layout.size(), || unsafe { System.alloc_zeroed(layout) })
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: as above; a block that could not be resized is still the one that it was.
        or_from_reserve(size, || unsafe { System.realloc(block, layout, size) })
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: as above.
        unsafe { System.dealloc(block, layout) }
    }
}

#[inline]
fn or_from_reserve(bytes: usize, allocate: impl Fn() -> *mut u8) -> *mut u8 {
    let block = allocate();
    if block.is_null() {
        after_release(bytes, &allocate)
    } else {
        block
    }
}

#[cold]
fn after_release(bytes: usize, allocate: &dyn Fn() -> *mut u8) -> *mut u8 {
    if bytes <= LARGEST {
        REFUSED.store(bytes, Ordering::Relaxed);
        if reserve::release() {
            let block = allocate();
            if !block.is_null() {
                return block;
            }
        }
    }
    last_resort::arm(bytes);
    std::ptr::null_mut()
}

/// To be called before the extension does anything in a process: sets the reserve aside, and refuses where memory is short already.
///
/// # Errors
/// [`Error::OutOfMemory`].
pub fn begin() -> Result<()> {
    static ARRANGED: AtomicBool = AtomicBool::new(false);
    if !ARRANGED.load(Ordering::Relaxed) {
        // SAFETY: the callbacks are plain functions of this library, which stays loaded.
        unsafe {
            pg_sys::RegisterXactCallback(Some(transaction_ends), std::ptr::null_mut());
            pg_sys::RegisterSubXactCallback(Some(subtransaction_ends), std::ptr::null_mut());
        }
        last_resort::belongs_to_this_process();
        rehearse();
        ARRANGED.store(true, Ordering::Relaxed);
    }
    check()?;
    if reserve::set_aside() {
        Ok(())
    } else {
        Err(Error::OutOfMemory { bytes: reserve::SIZE })
    }
}

/// Takes the way of an error once. What is thread-local and has a destructor is registered with the C library where it is first used,
/// and that ends the process where it finds no memory for it (`__cxa_thread_atexit_impl()`).
fn rehearse() {
    let _ = std::panic::catch_unwind(|| std::panic::panic_any(()));
}

/// Whether memory has run out since the transaction began. Every loop over what grows with the data asks it.
///
/// # Errors
/// [`Error::OutOfMemory`], until the transaction or subtransaction is rolled back.
#[inline]
pub fn check() -> Result<()> {
    match REFUSED.load(Ordering::Relaxed) {
        0 => Ok(()),
        bytes => Err(Error::OutOfMemory { bytes }),
    }
}

/// Whether a panic is the error that memory has run out.
pub fn is_out_of_memory(panic: &(dyn std::any::Any + Send)) -> bool {
    panic
        .downcast_ref::<ErrorReportWithLevel>()
        .is_some_and(|raised| raised.sql_error_code() == PgSqlErrorCode::ERRCODE_OUT_OF_MEMORY)
}

/// Raises the error where what reads a stored file might not find the memory for it: most decoders have no way to say so.
pub fn before_reading() {
    // The window that a decoder may ask for, what it needs beside it, and a piece of what it gives.
    const READING: usize = 2 * archive::Compression::MOST_WINDOW as usize + LARGEST;
    raise(require(READING));
}

/// Raises the error where a text of so many bytes could not be copied, converted and told of: users pass what they like.
pub fn before_copy(bytes: usize) {
    raise(begin());
    if bytes > LARGEST / 8 {
        raise(require(bytes.saturating_mul(4)));
    }
}

/// Answers interrupts, and raises the error where memory has run out: for callbacks that return nothing.
pub fn check_for_interrupts() {
    pgrx::check_for_interrupts!();
    raise(check());
}

fn raise(result: Result<()>) {
    if let Err(error) = result {
        ErrorReport::from(error).report(PgLogLevel::ERROR);
    }
}

/// Finds out whether so much can still be allocated, and so whether what is about to be done can be done without a look at each step:
/// nobody else allocates in this process meanwhile.
///
/// # Errors
/// [`Error::OutOfMemory`].
pub fn require(bytes: usize) -> Result<()> {
    check()?;
    let mut room: Vec<u8> = Vec::new();
    let found = room.try_reserve_exact(bytes);
    // Else the compiler sees that nothing is done with it, and leaves it out.
    black_box(room.as_mut_ptr());
    // This failure is nobody's end.
    last_resort::disarm();
    found.map_err(|_| Error::OutOfMemory { bytes })
}

/// Collects what may be many.
///
/// # Errors
/// The first of `items`, or [`Error::OutOfMemory`].
pub fn collect<T>(items: impl Iterator<Item = Result<T>>) -> Result<Vec<T>> {
    let mut all = Vec::new();
    for item in items {
        if all.len() == all.capacity() {
            // Grows as push() does, but may fail.
            all.try_reserve(1).map_err(|_| Error::OutOfMemory {
                bytes: (all.capacity().saturating_mul(2)).saturating_mul(size_of::<T>()),
            })?;
        }
        all.push(item?);
        check()?;
    }
    Ok(all)
}

/// The same with keys.
///
/// # Errors
/// As [`collect`].
pub fn collect_map<K: Eq + Hash, V>(items: Vec<(K, V)>) -> Result<HashMap<K, V>> {
    let mut map = HashMap::new();
    map.try_reserve(items.len()).map_err(|_| Error::OutOfMemory {
        bytes: items.len().saturating_mul(size_of::<(K, V)>()),
    })?;
    map.extend(items);
    Ok(map)
}

/// What was allocated for the transaction is freed by now, and the next one starts afresh.
#[pg_guard]
unsafe extern "C-unwind" fn transaction_ends(_event: pg_sys::XactEvent::Type, _argument: *mut c_void) {
    REFUSED.store(0, Ordering::Relaxed);
    last_resort::disarm();
}

#[pg_guard]
unsafe extern "C-unwind" fn subtransaction_ends(
    event: pg_sys::SubXactEvent::Type,
    _subtransaction: pg_sys::SubTransactionId,
    _parent: pg_sys::SubTransactionId,
    _argument: *mut c_void,
) {
    if event == pg_sys::SubXactEvent::SUBXACT_EVENT_ABORT_SUB {
        REFUSED.store(0, Ordering::Relaxed);
    }
}
