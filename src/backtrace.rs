//! Backtraces kept out of what callers and monitoring read.

use std::backtrace::Backtrace;
use std::env;

/// Decides for the life of this process, and of those that it forks, that errors carry no backtrace. pgrx takes one with each error
/// where the server's environment has RUST_BACKTRACE, and appends it to the DETAIL, which goes to every client, to the log and to
/// tables: hundreds of lines on paths of the machine that built the library.
///
/// The standard library asks the environment once, at the first backtrace, and remembers the answer. The environment stays as it
/// was, since other libraries and programs that the server starts have it too.
pub fn never_take_any() {
    const VARIABLE: &str = "RUST_LIB_BACKTRACE";
    let before = env::var_os(VARIABLE);
    // SAFETY: a PostgreSQL process has one thread when it loads a library; nobody reads the environment meanwhile.
    unsafe { env::set_var(VARIABLE, "0") };
    drop(Backtrace::capture());
    // SAFETY: as above.
    unsafe {
        match before {
            Some(value) => env::set_var(VARIABLE, value),
            None => env::remove_var(VARIABLE),
        }
    }
}
