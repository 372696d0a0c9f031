//! Pace: how fast the worker may read, and how much of what was verified it reads again in a tick.

use super::process;
use super::restraint::Restraint;
use crate::server::Server;
use std::time::{Duration, Instant};
use wal::Lsn;

/// Waits so long at once that interrupts and the latch are answered in time.
const LONGEST_WAIT: Duration = Duration::from_millis(100);

/// Keeps reading below a limit.
pub struct Pace {
    bytes_per_second: Option<u64>,
    began: Instant,
    read: u64,
}

impl Pace {
    /// No limit where there is none.
    pub fn new(bytes_per_second: Option<u64>) -> Self {
        Self {
            bytes_per_second,
            began: Instant::now(),
            read: 0,
        }
    }

    /// Counts bytes that were read, and waits until they are within the limit.
    pub fn keep(&mut self, bytes: usize) {
        let Some(limit) = self.bytes_per_second else { return };
        self.read = self.read.saturating_add(bytes as u64);
        let due = Duration::from_secs_f64(self.read as f64 / limit.max(1) as f64);
        while let Some(wait) = due.checked_sub(self.began.elapsed()).filter(|wait| !wait.is_zero()) {
            process::wait(wait.min(LONGEST_WAIT));
        }
    }
}

/// Reading verified segments again, spread evenly over the interval in which each has to have its turn.
#[derive(Default)]
pub struct Rereading {
    /// Segments that could have been read since, at an even pace.
    credit: f64,
    counted_at: Option<Instant>,
    restraint: Restraint,
    /// Up to where WAL was looked through for the work of others.
    since: Option<Lsn>,
}

/// How many segments are due.
pub struct Due {
    /// So many at an even pace.
    pub paced: usize,
    /// At most so many, with those that were not read for the whole interval.
    pub most: i64,
}

/// No more at once: the rest of a tick has to come in time.
const MOST: usize = 1024;

impl Rereading {
    /// How many of `segments` are due, if all are to be read within `interval`.
    pub fn due(&mut self, segments: u64, interval: Duration) -> Due {
        let passed = self
            .counted_at
            .replace(Instant::now())
            .map_or(Duration::ZERO, |at| at.elapsed());
        self.credit += segments as f64 * passed.as_secs_f64() / interval.as_secs_f64().max(1e-3);
        self.credit = self.credit.min(segments as f64);
        let paced = (self.credit as usize).min(MOST);
        Due {
            paced,
            most: i64::try_from(paced.saturating_add(16)).unwrap_or(16),
        }
    }

    /// Whether the worker may write now for the sake of rereading.
    pub fn permits(&mut self, server: &Server) -> bool {
        let since = *self.since.get_or_insert(server.flush);
        self.restraint.permits(server, since)
    }

    /// So many were read.
    pub fn did(&mut self, segments: usize, server: &Server) {
        self.credit = (self.credit - segments as f64).max(0.0);
        self.since = Some(server.flush);
        self.restraint.wrote();
    }
}
