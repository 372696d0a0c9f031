//! Restraint: what the worker writes is WAL too, and an idle cluster must not be kept awake by being watched.
//!
//! With `archive_timeout` one sample is enough to have a segment archived, which is news and would be a sample again, without end.
//! So news about WAL in which nobody else has committed anything wait, twice as long each time.

use super::process;
use crate::assessment::search_after;
use crate::server::{Exposure, Server};
use std::time::{Duration, Instant};
use wal::Lsn;

const FIRST_PAUSE: Duration = Duration::from_secs(10);
const LONGEST_PAUSE: Duration = Duration::from_secs(60 * 60);

/// When news may be written again, and what others have committed meanwhile.
#[derive(Default)]
pub struct Restraint {
    /// A search for commits of others; kept while its beginning stays, so that WAL is read once.
    search: Option<Exposure>,
    others: bool,
    pause: Duration,
    not_before: Option<Instant>,
}

impl Restraint {
    /// Whether a transaction of somebody else was committed at `from` or later.
    pub fn others_worked(&mut self, server: &Server, from: Lsn) -> bool {
        if self.search.as_ref().is_none_or(|search| search.protected() != from) {
            self.search = Some(search_after(server, from));
            self.others = false;
        }
        if let Some(search) = self.search.as_mut().filter(|_| !self.others) {
            // WAL that cannot be read may hold anything.
            self.others = search
                .measure(server, &mut process::answer_interrupts)
                .map_or(true, |commit| commit.is_some());
        }
        self.others
    }

    /// Whether news may be written of WAL from `from` on.
    pub fn permits(&mut self, server: &Server, from: Lsn) -> bool {
        self.others_worked(server, from) || self.not_before.is_none_or(|at| at <= Instant::now())
    }

    /// To be called after news was written, that [`Restraint::permits`] was last asked for.
    pub fn wrote(&mut self) {
        self.pause = if self.others {
            Duration::ZERO
        } else {
            (self.pause * 2).clamp(FIRST_PAUSE, LONGEST_PAUSE)
        };
        self.not_before = Some(Instant::now() + self.pause);
    }
}
