//! What happens where an allocation fails that must not: the session ends with FATAL, and the server stays up.
//!
//! Rust aborts then (`handle_alloc_error()`), and says so by SIGABRT alone. The handler is in place from such a failure to the
//! end of the transaction, or until whoever asked has looked whether it failed; any other SIGABRT is a crash as ever.

use std::ffi::{c_char, c_int};
use std::sync::atomic::{AtomicI32, AtomicUsize, Ordering};

/// The process that may end by PostgreSQL's own ways; 0 for none. A forked child has no business there.
static PROCESS: AtomicI32 = AtomicI32::new(0);
/// How much could not be had just now; 0 where all is well.
static FAILED: AtomicUsize = AtomicUsize::new(0);

/// Says that this is a process of the server's.
pub fn belongs_to_this_process() {
    // SAFETY: has no conditions.
    PROCESS.store(unsafe { libc::getpid() }, Ordering::Relaxed);
}

/// To be called when an allocation has failed.
pub fn arm(bytes: usize) {
    // SAFETY: has no conditions.
    if PROCESS.load(Ordering::Relaxed) != unsafe { libc::getpid() } {
        return;
    }
    FAILED.store(bytes.max(1), Ordering::Relaxed);
    let handler: extern "C" fn(c_int) = end_session;
    // SAFETY: a handler of this library, which stays loaded.
    unsafe { libc::signal(libc::SIGABRT, handler as libc::sighandler_t) };
}

/// To be called when whoever asked knows, or is gone.
#[inline]
pub fn disarm() {
    if FAILED.load(Ordering::Relaxed) != 0 {
        FAILED.store(0, Ordering::Relaxed);
        // SAFETY: what it was before: nobody in a server handles SIGABRT.
        unsafe { libc::signal(libc::SIGABRT, libc::SIG_DFL) };
    }
}

unsafe extern "C-unwind" {
    // elog.h; pg_sys leaves them out, and what it has in their place allocates.
    fn errstart(level: c_int, domain: *const c_char) -> bool;
    fn errcode(code: c_int) -> c_int;
    fn errmsg(format: *const c_char, ...) -> c_int;
    fn errdetail(format: *const c_char, ...) -> c_int;
    fn errfinish(file: *const c_char, line: c_int, function: *const c_char);
}

extern "C" fn end_session(_signal: c_int) {
    use pgrx::prelude::{PgLogLevel, PgSqlErrorCode};
    // SAFETY: abort() of this very thread got here, from between two calls of the allocator, so that this is no other place than
    // any where PostgreSQL may end a session; nothing is unwound, for FATAL does not come back.
    unsafe {
        if errstart(PgLogLevel::FATAL as c_int, std::ptr::null()) {
            errcode(PgSqlErrorCode::ERRCODE_OUT_OF_MEMORY as c_int);
            errmsg(c"out of memory".as_ptr());
            errdetail(
                c"Failed on request of size %zu.".as_ptr(),
                FAILED.load(Ordering::Relaxed),
            );
            errfinish(c"memory.rs".as_ptr(), 0, c"end_session".as_ptr());
        }
        libc::_exit(1);
    }
}
