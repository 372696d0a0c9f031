//! The worker's first duty: read what is new in the archive, once, and remember what was seen.

use super::pace::Rereading;
use super::process;
use super::restraint::Restraint;
use crate::access::{Waiting, choose_source};
use crate::catalog::{self, ledger};
use crate::error::{Error, Result};
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
    /// Since when another session keeps the worker from writing what it found.
    locked_out_since: Option<Instant>,
    /// What restore_command failed on last, until it works again; and when.
    failed_fetch: Option<(String, Instant)>,
}

/// How far a piece of work got.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Progress {
    /// It is done, as far as there was anything to do now.
    Done,
    /// The rest is for the next tick.
    OutOfTime,
    /// Another session's transaction is in the way.
    LockedOut,
}

/// A verdict that nobody keeps up to date must not look as if somebody did.
const LOCKED_OUT_AT_MOST: Duration = Duration::from_secs(10);
/// An archive that does not answer for so long is given up in this tick: samples are due.
const PATIENCE: Duration = Duration::from_secs(10);
/// So long history and backup history files are read in a tick, at the least: they come before all else.
const LEAST_BUDGET: Duration = Duration::from_secs(1);
/// For so long it may just be slow.
const SLOW: Duration = Duration::from_secs(3);
/// A failed fetch that nobody has had a reason to repeat for so long says nothing any more.
const FAILED_FETCH_STANDS: Duration = Duration::from_secs(1200);
/// So many files in a row that `restore_command` fails on, and the archive counts as unreadable.
const FAILURES_IN_A_ROW: usize = 3;

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
            None => {
                self.failed_fetch = None;
                let waiting = Waiting {
                    patience: PATIENCE,
                    between: while_waiting,
                };
                let mut inspection = Inspection::new(&source, server, Memory::new(now()), waiting)?;
                in_transaction(|| inspection.load())?;
                inspection
            }
        };
        let mut failed = Failures::default();
        let outcome = self.look(&mut inspection, server, &mut failed);
        publish(inspection.unverified(), None);
        self.inspection = Some(inspection);
        let archive_error = match &outcome {
            Err(Error::Archive(why)) => why.as_str(),
            _ => "",
        };
        shmem::update(|status| status.archive_error = shmem::cut(archive_error));
        let outcome = self.stand_by(outcome.and_then(|progress| failed.outcome(progress)), &failed);
        if outcome? != Progress::LockedOut {
            self.locked_out_since = None;
            return Ok(());
        }
        let since = *self.locked_out_since.get_or_insert_with(Instant::now);
        if since.elapsed() < LOCKED_OUT_AT_MOST {
            return Ok(());
        }
        Err(Error::FindingsAreHeld {
            by: in_transaction(locks::findings_writer)?,
        })
    }

    /// What failed stands until it has worked: a tick that did not try proves nothing.
    fn stand_by(&mut self, outcome: Result<Progress>, failed: &Failures) -> Result<Progress> {
        match outcome {
            Err(Error::Fetch(why)) => {
                self.failed_fetch = Some((why.clone(), Instant::now()));
                Err(Error::Fetch(why))
            }
            outcome if failed.has_fetched => {
                self.failed_fetch = None;
                outcome
            }
            Ok(progress) => match &self.failed_fetch {
                Some((why, at)) if at.elapsed() < FAILED_FETCH_STANDS => Err(Error::Fetch(why.clone())),
                _ => Ok(progress),
            },
            outcome => outcome,
        }
    }

    fn look(&mut self, inspection: &mut Inspection, server: &Server, failed: &mut Failures) -> Result<Progress> {
        inspection.gather(server, now())?;
        in_transaction(|| inspection.expect())?;
        let looked_up = inspection.look_up_texts()?;
        let texts = in_transaction(|| inspection.decide_texts(looked_up))?;
        if texts.is_to_be_recorded() && write(|| inspection.record_texts(&texts))?.is_none() {
            return Ok(Progress::LockedOut);
        }
        let started = Instant::now();
        for (kind, name) in &texts.to_read {
            if started.elapsed() >= settings::check_interval().max(LEAST_BUDGET) {
                self.has_backlog = true;
                return Ok(Progress::OutOfTime);
            }
            let read = match inspection.read_text(*kind, name) {
                Ok(read) => read,
                Err(error) => {
                    failed.add(error)?;
                    continue;
                }
            };
            failed.none();
            if let Some(read) = &read
                && let Err(error) = in_transaction(|| inspection.record_backup(name, read))
            {
                // Its turn comes again in the next tick, as long as it has no row.
                failed.put_off(of_whom(error)?);
                continue;
            }
            if write(|| inspection.store_text(name, read.as_ref()))?.is_none() {
                return Ok(Progress::LockedOut);
            }
        }
        if !texts.to_read.is_empty() {
            // They may have told of a backup, and with it of what is expected.
            in_transaction(|| inspection.expect())?;
        }
        let strangers = inspection.news_of_strangers()?;
        let mut lot = inspection.first_lot();
        let mut next = inspection.next_lot();
        let is_routine = texts.is_silent() && strangers.is_silent() && next.is_empty();
        let mut wrote = !(texts.is_silent() && strangers.is_silent());
        while !lot.is_empty() {
            let looked_up = inspection.look_up(&lot)?;
            let decided = in_transaction(|| inspection.decide(looked_up))?;
            if is_routine && inspection.lot_to_read().is_empty() && self.can_wait(server, &decided) {
                return Ok(Progress::Done);
            }
            if decided.is_news() && write(|| inspection.record(&decided))?.is_none() {
                return Ok(Progress::LockedOut);
            }
            wrote |= !decided.is_silent();
            inspection.settle(&decided);
            process::answer_interrupts();
            lot = next;
            next = inspection.next_lot();
        }
        if !strangers.is_silent() && write(|| inspection.record_strangers(&strangers))?.is_none() {
            return Ok(Progress::LockedOut);
        }
        inspection.have_decided();
        let progress = self.verify(inspection, failed)?;
        if progress != Progress::Done {
            return Ok(progress);
        }
        if wrote {
            self.restraint.wrote();
        }
        self.tidy(inspection)?;
        self.reread(inspection, server)?;
        Ok(Progress::Done)
    }

    /// Whether the news is only of WAL in which nobody but the worker has written: see [`Restraint`]. Sessions learn from
    /// shared memory that nothing of others waits, though that WAL may be gone from pg_wal by then.
    fn can_wait(&mut self, server: &Server, decided: &Decided) -> bool {
        let first: Option<Lsn> = decided.routine();
        first.is_some_and(|first| shmem::is_reserved() && !self.restraint.permits(server, first))
    }

    /// Verifies the segments that are to be read, each in a transaction of its own that begins after the file was read.
    ///
    /// One that `restore_command` fails on must not hold up the others: its turn comes again in the next tick.
    fn verify(&mut self, inspection: &mut Inspection, failed: &mut Failures) -> Result<Progress> {
        let started = Instant::now();
        let budget = settings::check_interval();
        let mut succession = Succession::default();
        loop {
            let lot = inspection.lot_to_read();
            if lot.is_empty() {
                return Ok(Progress::Done);
            }
            // Counting them takes a look at every segment that there is.
            let mut left = inspection.unverified();
            for segment in lot {
                publish(left, Some(WorkerState::Verifying));
                left = left.saturating_sub(1);
                match verify_one(inspection, &mut succession, segment) {
                    Ok(true) => failed.none(),
                    Ok(false) => return Ok(Progress::LockedOut),
                    Err(error) => {
                        failed.add(error)?;
                        inspection.put_off(&segment);
                    }
                }
                if started.elapsed() >= budget && !inspection.lot_to_read().is_empty() {
                    self.has_backlog = true;
                    return Ok(Progress::OutOfTime);
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
        let unneeded = in_transaction(|| inspection.unneeded())?;
        let gone = inspection.gone(unneeded)?;
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
        let mut succession = Succession::default();
        let mut read = 0;
        let unverified = inspection.unverified();
        for segment in segments {
            publish(unverified, Some(WorkerState::Verifying));
            if !verify_one(inspection, &mut succession, segment)? {
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

/// What `restore_command` failed on in this tick. A disk that fails is an error at once.
#[derive(Default)]
struct Failures {
    first: Option<Error>,
    in_a_row: usize,
    has_fetched: bool,
}

impl Failures {
    /// # Errors
    /// The first failure, once they are too many.
    fn add(&mut self, error: Error) -> Result<()> {
        self.in_a_row += 1;
        let is_of_one_file = matches!(error, Error::Fetch(_));
        let first = self.first.take().unwrap_or(error);
        if !is_of_one_file || self.in_a_row >= FAILURES_IN_A_ROW {
            return Err(first);
        }
        self.first = Some(first);
        Ok(())
    }

    /// Something has been fetched.
    fn none(&mut self) {
        self.in_a_row = 0;
        self.has_fetched = true;
    }

    /// Remembers what is in the way of one file, such as somebody else's transaction.
    fn put_off(&mut self, error: Error) {
        self.first.get_or_insert(error);
    }

    /// The tick's own outcome.
    fn outcome(&mut self, progress: Progress) -> Result<Progress> {
        self.first.take().map_or(Ok(progress), Err)
    }
}

/// The error, with the process that is in the way where a row was locked.
fn of_whom(error: Error) -> Result<Error> {
    match error {
        Error::LockNotAvailable(_) => Ok(Error::ChainIsHeld {
            by: in_transaction(ledger::writer_in_the_way)?,
        }),
        error => Ok(error),
    }
}

/// What the worker does while the archive does not answer; it has not for so long.
fn while_waiting(silent: Duration) {
    process::answer_interrupts();
    if silent >= SLOW {
        shmem::update(|status| {
            if status.state != WorkerState::WaitingForArchive {
                status.state = WorkerState::WaitingForArchive;
            }
        });
    }
}

/// Reads one segment and stores what was found; `false` where another session's transaction is in the way.
fn verify_one(inspection: &mut Inspection, succession: &mut Succession, segment: SegmentName) -> Result<bool> {
    let precedent = in_transaction(|| Precedent::of(inspection, segment))?;
    let began = Instant::now();
    let looked = succession.read(inspection, segment, precedent, settings::verify_rate_limit())?;
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

fn publish(unverified: u64, state: Option<WorkerState>) {
    let unverified = i64::try_from(unverified).unwrap_or(i64::MAX);
    shmem::update(|status| {
        status.unverified_segments = unverified;
        status.state = state.unwrap_or(status.state);
    });
}

/// A transaction that writes findings; `None`, and nothing done, where another session's is writing them.
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
