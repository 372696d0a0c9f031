//! The worker's first duty: read what is new in the archive, once, and remember what was seen.

use super::process;
use super::restraint::Restraint;
use crate::error::{Error, Result};
use crate::inspection::{Inspection, Succession, choose_source};
use crate::server::Server;
use crate::shmem::{self, WorkerState};
use crate::transaction::in_transaction;
use crate::{locks, settings};
use archive::chain::{Memory, Plan, Why};
use archive::{Derived, DirectoryStamp, Source, listing};
use pgrx::pg_sys;
use std::collections::BTreeSet;
use std::time::{Duration, Instant};
use wal::{Lsn, PgTimestamp, SegmentName};

/// An archive without news is looked through at most this share of the time: a file overwritten in place shows only then.
const SHARE_OF_TIME: u32 = 50;

/// What the worker remembers of the archive from tick to tick.
#[derive(Default)]
pub struct ArchiveDuty {
    memory: Option<(Source, Memory)>,
    last_look: Option<Look>,
    restraint: Restraint,
    /// Where the WAL begins of which the last look had news that may wait, see [`Restraint`]; none if there was none.
    postponed: Option<Lsn>,
    awaited: u64,
    queued: u64,
    has_backlog: bool,
}

struct Look {
    began: Instant,
    took: Duration,
    stamp: Option<DirectoryStamp>,
    flush: Lsn,
}

impl ArchiveDuty {
    /// Expected segments without a verdict, as of the last look.
    pub fn unverified(&self) -> u64 {
        self.awaited.saturating_add(self.queued)
    }

    /// Looks for news and verifies it.
    ///
    /// # Errors
    /// Where the archive cannot be read: then nothing is concluded from it.
    pub fn tick(&mut self, server: &Server) -> Result<()> {
        self.has_backlog = false;
        let Derived { source, because } = choose_source(server)?;
        shmem::update(|status| status.archive_source = shmem::cut(&format!("{source} ({because})")));
        if self.memory.as_ref().is_none_or(|(known, _)| *known != source) {
            self.memory = Some((source.clone(), Memory::new(now())));
            self.last_look = None;
        }
        if !self.is_look_due(server, &source)? {
            return Ok(());
        }
        let began = Instant::now();
        let mut inspection = Inspection::gather(server, &source)?;
        in_transaction(|| inspection.load())?;
        let took = began.elapsed();
        let Some((_, memory)) = &mut self.memory else {
            return Ok(());
        };
        let plan = inspection.plan(memory, now())?;
        let queue: BTreeSet<SegmentName> = plan.to_verify.iter().map(|segment| segment.segment).collect();
        let queued = u64::try_from(queue.len()).unwrap_or(u64::MAX);
        self.awaited = plan.unverified.saturating_sub(queued);
        self.queued = queued;
        let look = Look {
            began,
            took,
            stamp: inspection.stamp(),
            flush: server.flush,
        };
        let silent = queue.is_empty() && plan.to_read.is_empty() && !plan.has_absences();
        // Sessions learn from shared memory that nothing of others waits, though that WAL may be gone from pg_wal by then.
        self.postponed = routine(&plan).filter(|begin| shmem::is_reserved() && !self.restraint.permits(server, *begin));
        if silent || self.postponed.is_some() {
            self.publish(None);
            self.last_look = Some(look);
            return Ok(());
        }
        if plan.has_absences() && write(|| inspection.record_absences(&plan))?.is_none() {
            return Ok(());
        }
        for text in &plan.to_read {
            if write(|| inspection.store_text(text.kind, &text.file.name))?.is_none() {
                return Ok(());
            }
        }
        // Long enough for the look to be a small part of it, short enough for the rest of the tick to come in time.
        let budget = settings::check_interval().max(took * SHARE_OF_TIME);
        if self.verify(&inspection, queue, budget)? {
            self.last_look = Some(look);
            self.restraint.wrote();
        }
        Ok(())
    }

    /// Whether segments wait that could be verified now.
    pub fn has_backlog(&self) -> bool {
        self.has_backlog
    }

    /// Whether anything can have changed. While a segment waits for its grace to end, time itself is the change.
    fn is_look_due(&mut self, server: &Server, source: &Source) -> Result<bool> {
        let Some(last) = &self.last_look else {
            return Ok(true);
        };
        if last.stamp.is_none() || last.began.elapsed() >= last.took * SHARE_OF_TIME {
            return Ok(true);
        }
        let may_have_changed = match self.postponed {
            Some(begin) => self.restraint.permits(server, begin),
            None => self.unverified() > 0,
        };
        if may_have_changed {
            return Ok(true);
        }
        let size = server.format.segment_size.bytes();
        let filled_since = server.flush.0 / size != last.flush.0 / size;
        let stamp = listing::stamp(source).map_err(|error| Error::Archive(error.to_string()))?;
        Ok(filled_since || last.stamp != Some(stamp))
    }

    /// Verifies the segments of `queue` in order, each in a transaction of its own that begins after the file was read.
    /// Returns `false` where it gave way to a call of `verify_wal_archive()`, or where `budget` was used up: the rest is for a
    /// later tick.
    fn verify(&mut self, inspection: &Inspection, mut queue: BTreeSet<SegmentName>, budget: Duration) -> Result<bool> {
        let started = Instant::now();
        let mut succession = Succession::new(inspection);
        while let Some(segment) = queue.first().copied() {
            self.queued = u64::try_from(queue.len()).unwrap_or(u64::MAX);
            self.publish(Some(WorkerState::Verifying));
            let began = Instant::now();
            let finding = succession.verify(
                segment,
                || in_transaction(|| inspection.recorded_handover(segment)),
                &mut |_| process::answer_interrupts(),
            )?;
            let took = began.elapsed();
            let stored = write(|| {
                let successor = inspection.successor_to_repeat(segment, &finding)?;
                inspection.store(segment, &finding)?;
                Ok(successor)
            })?;
            let Some(successor) = stored else {
                return Ok(false);
            };
            queue.pop_first();
            queue.extend(successor);
            shmem::update(|status| {
                status.last_verified_segment = shmem::cut(&finding.name);
                status.bytes_per_second = finding.bytes as f64 / took.as_secs_f64().max(1e-6);
                status.last_tick_at = now().0;
            });
            process::answer_interrupts();
            if started.elapsed() >= budget && !queue.is_empty() {
                self.queued = u64::try_from(queue.len()).unwrap_or(u64::MAX);
                self.publish(None);
                self.has_backlog = true;
                return Ok(false);
            }
        }
        self.queued = 0;
        self.publish(None);
        Ok(true)
    }

    fn publish(&self, state: Option<WorkerState>) {
        let unverified = i64::try_from(self.unverified()).unwrap_or(i64::MAX);
        shmem::update(|status| {
            status.unverified_segments = unverified;
            status.state = state.unwrap_or(status.state);
        });
    }
}

/// Where the first segment begins that the plan is of, if it is of nothing but segments that were filled just now: what the
/// worker's own writing can bring about.
fn routine(plan: &Plan) -> Option<Lsn> {
    let other_news = !(plan.to_read.is_empty()
        && plan.to_verify.iter().all(|segment| segment.why == Why::New)
        && plan.back_again.is_empty()
        && plan.newly_missing.is_empty()
        && plan.newly_pending_histories.is_empty()
        && plan.newly_missing_histories.is_empty()
        && plan.forgotten.is_empty()
        && plan.forgotten_others.is_empty());
    let read = plan.to_verify.iter().map(|segment| segment.segment);
    let awaited = plan.newly_pending.iter().map(|(segment, _)| *segment);
    let first = read.chain(awaited).map(|segment| segment.start()).min();
    first.filter(|_| !other_news)
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

fn now() -> PgTimestamp {
    // SAFETY: reads the clock.
    PgTimestamp(unsafe { pg_sys::GetCurrentTimestamp() })
}
