//! Waiting for a condition with a deadline: the only place in this crate that sleeps.

use std::fmt::Display;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

/// How long a condition may take that normally comes true within a second or two.
pub const SOON: Duration = Duration::from_secs(60);

/// What one look at a condition gave.
pub enum Look<T> {
    /// It holds.
    Done(T),
    /// Not yet; what was seen instead, for the message when the deadline passes.
    NotYet(String),
}

impl<T> Look<T> {
    /// "Not yet", with what was seen.
    pub fn not_yet(seen: impl Display) -> Self {
        Self::NotYet(seen.to_string())
    }
}

/// Looks at a condition again and again until it holds.
///
/// # Errors
/// The probe's own error at once, or, after the deadline, one that names `what` and what was seen last.
pub fn wait_until<T>(what: &str, deadline: Duration, mut probe: impl FnMut() -> Result<Look<T>>) -> Result<T> {
    let started = Instant::now();
    let mut pause = Duration::from_millis(5);
    loop {
        match probe()? {
            Look::Done(value) => return Ok(value),
            Look::NotYet(seen) if started.elapsed() >= deadline => {
                bail!("waited {} s for {what}; seen last: {seen}", deadline.as_secs())
            }
            Look::NotYet(_) => sleep(pause),
        }
        pause = (pause * 2).min(Duration::from_millis(100));
    }
}
