//! Address space set aside, and given back to the system when memory runs out: not only Rust's allocator has to go on then, but
//! PostgreSQL's and the C library's too.

use std::ffi::c_void;
use std::ptr::null_mut;
use std::sync::atomic::{AtomicPtr, Ordering};

use pgrx::pg_sys;
use pgrx::prelude::*;

/// 8 MB: AllocSet asks for up to 1 MB at least when it cannot have more (`AllocSetAlloc()` in aset.c), and so does malloc() where it
/// has to leave the heap (`MMAP_AS_MORECORE_SIZE`); the error's way to the client takes some kB. It is never touched, so that it
/// costs no memory but where the kernel is told to promise no more than there is.
pub const SIZE: usize = 8 << 20;

static RESERVE: AtomicPtr<c_void> = AtomicPtr::new(null_mut());

/// Sets it aside, unless that is so already; false where there is no room.
pub fn set_aside() -> bool {
    if !RESERVE.load(Ordering::Relaxed).is_null() {
        return true;
    }
    // SAFETY: a mapping of its own, wherever there is room.
    let reserve = unsafe {
        libc::mmap(
            null_mut(),
            SIZE,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
            -1,
            0,
        )
    };
    if reserve == libc::MAP_FAILED {
        return false;
    }
    RESERVE.store(reserve, Ordering::Relaxed);
    true
}

/// Gives it back; false where there is nothing to be given.
pub fn release() -> bool {
    let reserve = RESERVE.swap(null_mut(), Ordering::Relaxed);
    // SAFETY: mapped by set_aside(), and known to nobody since it was taken from where it was kept.
    !reserve.is_null() && unsafe { libc::munmap(reserve, SIZE) } == 0
}

/// While it lives, PostgreSQL's own "out of memory" gives the reserve back before it is thrown: pgrx copies it into memory of the
/// server's first, and an error there would be thrown to where nobody is any more (`pg_guard_ffi_boundary_impl()` in pgrx).
pub struct ReleasedByErrors<'a> {
    entry: &'a mut pg_sys::ErrorContextCallback,
}

impl<'a> ReleasedByErrors<'a> {
    /// Begins it; `entry` is where PostgreSQL finds it.
    pub fn begin(entry: &'a mut pg_sys::ErrorContextCallback) -> Self {
        // SAFETY: a stack of this process; `entry` stays where it is until it is taken off again below.
        unsafe {
            entry.previous = pg_sys::error_context_stack;
            entry.callback = Some(release_when_out_of_memory);
            entry.arg = null_mut();
            pg_sys::error_context_stack = entry;
        }
        Self { entry }
    }

    /// What `begin()` wants.
    pub const fn entry() -> pg_sys::ErrorContextCallback {
        pg_sys::ErrorContextCallback {
            previous: null_mut(),
            callback: None,
            arg: null_mut(),
        }
    }
}

impl Drop for ReleasedByErrors<'_> {
    fn drop(&mut self) {
        // SAFETY: whatever lay above it ended before, be it by an error.
        unsafe { pg_sys::error_context_stack = self.entry.previous };
    }
}

unsafe extern "C-unwind" {
    // pg_sys has it behind a guard, which the way of an error must not run through.
    fn geterrcode() -> std::ffi::c_int;
}

unsafe extern "C-unwind" fn release_when_out_of_memory(_argument: *mut c_void) {
    // SAFETY: called by errfinish() only, while there is an error.
    if unsafe { geterrcode() } == PgSqlErrorCode::ERRCODE_OUT_OF_MEMORY as std::ffi::c_int {
        release();
    }
}
