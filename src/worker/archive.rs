//! The worker's first duty: read what is new in the archive, once, and remember what was seen.

use super::pace::{Pace, Rereading};
use super::process;
use super::restraint::Restraint;
use crate::access::choose_source;
use crate::catalog;
use crate::error::Result;
use crate::inspection::{Decided, Inspection, Looked, Precedent, Succession};
use crate::server::Server;
use crate::shmem::{self, WorkerState};
use crate::transaction::in_transaction;
use crate::{locks, settings};
use archive::Derived;
use archive::chain::Memory;
use pgrx::pg_sys;
use std::time::{Duration, Instant};
use wal::{Lsn, PgTimestamp, SegmentName};

/// Rows that nothing needs any more are looked for this often.
const BETWEEN_TIDYINGS: Duration = Duration::from_secs(60);

/// What the worker remembers of the archive from tick to tick.
#[derive(Default)]
pub struct ArchiveDuty {
    inspection: Option<Inspection>,
    restraint: Restraint,
    rereading: Rereading,
    tidied_at: Option<Instant>,
    has_backlog: bool,
}

/// How far a piece of work got.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Progress {
    /// It is done.
    Done,
    /// It gave way, to a call of `verify_wal_archive()` or to the next tick.
    GaveWay,
}

impl ArchiveDuty {
    /// Expected segments without a verdict, as of the last look.
    pub fn unverified(&self) -> u64 {
        self.inspection.as_ref().map_or(0, Inspection::unverified)
    }

    /// Whether segments wait that could be verified now.
    pub fn has_backlog(&self) -> bool {
        self.has_backlog
    }

    /// Looks for news and verifies it.
    ///
    /// # Errors
    /// Where the archive cannot be read: then nothing is concluded from it.
    pub fn tick(&mut self, server: &Server) -> Result<()> {
        self.has_backlog = false;
        let Derived { source, because } = choose_source(server)?;
        shmem::update(|status| status.archive_source = shmem::cut(&format!("{source} ({because})")));
        let mut inspection = match self.inspection.take().filter(|known| known.is_of(&source, server)) {
            Some(inspection) => inspection,
            None => Inspection::open(&source, server, Memory::new(now()))?,
        };
        let outcome = self.look(&mut inspection, server);
        publish(&inspection, None);
        self.inspection = Some(inspection);
        outcome
    }

    fn look(&mut self, inspection: &mut Inspection, server: &Server) -> Result<()> {
        inspection.gather(server, now())?;
        in_transaction(|| {
            inspection.expect()?;
            inspection.load_texts()
        })?;
        let looked_up = inspection.look_up_texts()?;
        let texts = in_transaction(|| inspection.decide_texts(looked_up))?;
        if texts.is_to_be_recorded() && write(|| inspection.record_texts(&texts))?.is_none() {
            return Ok(());
        }
        for (kind, name) in &texts.to_read {
            let read = inspection.read_text(*kind, name, &mut process::answer_interrupts)?;
            if write(|| inspection.store_text(name, read.as_ref()))?.is_none() {
                return Ok(());
            }
        }
        if !texts.to_read.is_empty() {
            // They may have told of a backup, and with it of what is expected.
            in_transaction(|| inspection.expect())?;
        }
        let strangers = inspection.new_strangers();
        let mut lot = inspection.first_lot();
        let mut next = inspection.next_lot();
        let is_routine = texts.is_silent() && strangers.is_empty() && next.is_empty();
        let mut wrote = !(texts.is_silent() && strangers.is_empty());
        while !lot.is_empty() {
            let looked_up = inspection.look_up(&lot)?;
            let decided = in_transaction(|| inspection.decide(looked_up))?;
            if is_routine && self.can_wait(server, &decided) {
                return Ok(());
            }
            if decided.is_news() && write(|| inspection.record(&decided))?.is_none() {
                return Ok(());
            }
            wrote |= !decided.is_silent();
            inspection.settle(&decided);
            process::answer_interrupts();
            lot = next;
            next = inspection.next_lot();
        }
        if !strangers.is_empty() && write(|| inspection.record_strangers(&strangers))?.is_none() {
            return Ok(());
        }
        inspection.have_decided();
        if self.verify(inspection)? == Progress::Done {
            if wrote {
                self.restraint.wrote();
            }
            self.tidy(inspection)?;
            self.reread(inspection, server)?;
        }
        Ok(())
    }

    /// Whether the news is only of WAL in which nobody but the worker has written: see [`Restraint`]. Sessions learn from
    /// shared memory that nothing of others waits, though that WAL may be gone from pg_wal by then.
    fn can_wait(&mut self, server: &Server, decided: &Decided) -> bool {
        let first: Option<Lsn> = decided.routine();
        first.is_some_and(|first| shmem::is_reserved() && !self.restraint.permits(server, first))
    }

    /// Verifies the segments that are to be read, each in a transaction of its own that begins after the file was read.
    fn verify(&mut self, inspection: &mut Inspection) -> Result<Progress> {
        let started = Instant::now();
        let budget = settings::check_interval();
        let mut succession = Succession::new();
        let mut pace = Pace::new(settings::verify_rate_limit());
        loop {
            let lot = inspection.lot_to_read();
            if lot.is_empty() {
                return Ok(Progress::Done);
            }
            for segment in lot {
                publish(inspection, Some(WorkerState::Verifying));
                if !verify_one(inspection, &mut succession, segment, &mut pace)? {
                    return Ok(Progress::GaveWay);
                }
                if started.elapsed() >= budget && !inspection.lot_to_read().is_empty() {
                    self.has_backlog = true;
                    return Ok(Progress::GaveWay);
                }
            }
        }
    }

    /// Removes rows that nothing needs any more.
    fn tidy(&mut self, inspection: &mut Inspection) -> Result<()> {
        if self
            .tidied_at
            .is_some_and(|at| at.elapsed() < BETWEEN_TIDYINGS.min(settings::check_interval() * 10))
        {
            return Ok(());
        }
        self.tidied_at = Some(Instant::now());
        let gone = in_transaction(|| inspection.forgettable())?;
        if !gone.is_empty() {
            write(|| catalog::archive::forget(gone))?;
        }
        Ok(())
    }

    /// Reads verified segments again, those first that were read longest ago, so that all have their turn within
    /// `reverify_interval`.
    fn reread(&mut self, inspection: &mut Inspection, server: &Server) -> Result<()> {
        let Some(interval) = settings::reverify_interval() else {
            return Ok(());
        };
        let due = self.rereading.due(inspection.segments(), interval);
        let oldest = in_transaction(|| catalog::archive::read_longest_ago(due.most))?;
        let limit = now().0.saturating_sub(micros(interval));
        let segments: Vec<SegmentName> = oldest
            .into_iter()
            .enumerate()
            .filter(|(place, (_, read_at))| *place < due.paced || *read_at <= limit)
            .filter_map(|(_, (name, _))| inspection.segment(&name))
            .collect();
        // Each leaves a row: on a cluster in which nobody else writes, they are written together and seldom.
        if segments.is_empty() || shmem::is_reserved() && !self.rereading.permits(server) {
            return Ok(());
        }
        let started = Instant::now();
        let mut succession = Succession::new();
        let mut pace = Pace::new(settings::verify_rate_limit());
        let mut read = 0;
        for segment in segments {
            publish(inspection, Some(WorkerState::Verifying));
            if !verify_one(inspection, &mut succession, segment, &mut pace)? {
                break;
            }
            read += 1;
            if started.elapsed() >= settings::check_interval() {
                break;
            }
        }
        self.rereading.did(read, server);
        Ok(())
    }
}

/// Reads one segment and stores what was found; `false` where a call of `verify_wal_archive()` is in the way.
fn verify_one(
    inspection: &mut Inspection,
    succession: &mut Succession,
    segment: SegmentName,
    pace: &mut Pace,
) -> Result<bool> {
    let precedent = in_transaction(|| Precedent::of(inspection, segment))?;
    let began = Instant::now();
    let looked = succession.read(inspection, segment, precedent, &mut |bytes| {
        process::answer_interrupts();
        pace.keep(bytes);
    })?;
    let took = began.elapsed();
    if write(|| inspection.store(segment, &looked))?.is_none() {
        return Ok(false);
    }
    if let Looked::Found(finding) = looked {
        shmem::update(|status| {
            status.last_verified_segment = shmem::cut(&finding.name);
            status.bytes_per_second = finding.bytes as f64 / took.as_secs_f64().max(1e-6);
            status.last_tick_at = now().0;
        });
    }
    process::answer_interrupts();
    Ok(true)
}

fn publish(inspection: &Inspection, state: Option<WorkerState>) {
    let unverified = i64::try_from(inspection.unverified()).unwrap_or(i64::MAX);
    shmem::update(|status| {
        status.unverified_segments = unverified;
        status.state = state.unwrap_or(status.state);
    });
}

/// A transaction that writes findings; `None`, and nothing done, where a call of `verify_wal_archive()` is writing them.
fn write<R>(body: impl FnOnce() -> Result<R>) -> Result<Option<R>> {
    in_transaction(|| {
        if locks::try_write_findings() {
            body().map(Some)
        } else {
            Ok(None)
        }
    })
}

fn micros(duration: Duration) -> i64 {
    i64::try_from(duration.as_micros()).unwrap_or(i64::MAX)
}

fn now() -> PgTimestamp {
    // SAFETY: reads the clock.
    PgTimestamp(unsafe { pg_sys::GetCurrentTimestamp() })
}
