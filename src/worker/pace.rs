//! Pace: how much of what was verified the worker reads again in a tick.

use super::restraint::Restraint;
use crate::server::Server;
use std::time::{Duration, Instant};
use wal::Lsn;

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
