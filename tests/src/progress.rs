//! Progress of a long step, on standard error.

use std::io::{IsTerminal, stderr};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

/// Runs a step and shows meanwhile that it runs and for how long: a line that counts seconds on a terminal, else one line
/// when it begins and one when it ends.
pub fn step<T>(what: &str, work: impl FnOnce() -> T) -> T {
    let started = Instant::now();
    let terminal = stderr().is_terminal();
    if !terminal {
        eprintln!("… {what}");
    }
    let (done, ticks) = channel::<()>();
    let result = thread::scope(|scope| {
        scope.spawn(move || {
            while terminal && ticks.recv_timeout(Duration::from_millis(200)) == Err(RecvTimeoutError::Timeout) {
                eprint!("\r… {what}, {} s ", started.elapsed().as_secs());
            }
        });
        let result = work();
        drop(done);
        result
    });
    let clear = if terminal { "\r" } else { "" };
    eprintln!("{clear}✓ {what}, {:.1} s", started.elapsed().as_secs_f64());
    result
}
