//! The verifier: what `verify_wal_archive()` has done in a process of its own, with transactions of its own.
//!
//! Reading an archive can take hours. In the caller's transaction every row found would stay locked for so long;
//! here each segment is on record as soon as it was read, beside what the worker records.

use super::process;
use super::session::Configured;
use crate::access::{Waiting, choose_source};
use crate::catalog::ledger;
use crate::error::{Error, Result};
use crate::inspection::{Inspection, Precedent, Succession};
use crate::locks;
use crate::server::Server;
use crate::transaction::{caught, in_transaction};
use archive::chain::Memory;
use pgrx::bgworkers::{BackgroundWorkerStatus, DynamicBackgroundWorker};
use pgrx::pg_sys;
use pgrx::prelude::*;
use std::collections::BTreeSet;
use std::ffi::c_int;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};
use wal::{PgTimestamp, SegmentName};

/// So long it waits for a transaction that keeps it from recording what it found.
const LOCKED_OUT_AT_MOST: Duration = Duration::from_secs(60);
/// Between two attempts, and two looks of the caller.
const PAUSE: Duration = Duration::from_millis(100);

/// What the caller and the verifier tell each other, in dynamic shared memory. Zeros at first.
#[repr(C)]
struct Job {
    database: pg_sys::Oid,
    caller: i32,
    from: Bound,
    to: Bound,
    /// [`DONE`] or [`FAILED`] at its end; the message is written before it.
    state: AtomicU32,
    /// Which of the kinds of [`Failure`].
    failure: u32,
    message_length: u32,
    message: [u8; 2048],
}

/// An end of the range; `is_given` is 0 where it is open.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Bound {
    is_given: u64,
    number: u64,
}

const DONE: u32 = 1;
const FAILED: u32 = 2;

/// What of an error has its own SQLSTATE for the caller.
#[derive(Clone, Copy)]
#[repr(u32)]
enum Failure {
    Archive = 1,
    Fetch = 2,
    Server = 3,
    Lock = 4,
    Memory = 5,
    Other = 6,
}

impl Bound {
    fn of(segment: Option<SegmentName>) -> Self {
        segment.map_or(Self::default(), |segment| Self {
            is_given: 1,
            number: segment.number,
        })
    }

    fn number(self) -> Option<u64> {
        (self.is_given == 1).then_some(self.number)
    }
}

/// Has a verifier read the archived segments from `from` to `to`, and waits for its end. It ends with this call, however that ends.
///
/// # Errors
/// What the verifier could not do, or that no process could be started for it.
pub fn verify(from: Option<SegmentName>, to: Option<SegmentName>) -> Result<()> {
    let _one_at_a_time = locks::Verification::begin();
    // SAFETY: shared memory of this call's resource owner, large enough for a Job and aligned for any type; nobody else knows of
    // it yet.
    let (segment, job) = unsafe {
        let segment = pg_sys::dsm_create(size_of::<Job>(), 0);
        let job = pg_sys::dsm_segment_address(segment).cast::<Job>();
        std::ptr::write_bytes(job, 0, 1);
        (*job).database = pg_sys::MyDatabaseId;
        (*job).caller = pg_sys::MyProcPid;
        (*job).from = Bound::of(from);
        (*job).to = Bound::of(to);
        (segment, job)
    };
    // SAFETY: the segment is there.
    let handle = unsafe { pg_sys::dsm_segment_handle(segment) };
    let worker = process::start_verifier(handle)?;
    let running = Running(Some(worker));
    while running.is_running() {
        process::wait_in_session(PAUSE);
    }
    // SAFETY: the segment stays until the end of this call; the verifier is gone, and does not write any more.
    let outcome = unsafe { (*job).outcome() };
    // SAFETY: nobody uses it any more.
    unsafe { pg_sys::dsm_detach(segment) };
    outcome
}

impl Job {
    fn outcome(&self) -> Result<()> {
        match self.state.load(Ordering::Acquire) {
            DONE => Ok(()),
            FAILED => {
                let length = (self.message_length as usize).min(self.message.len());
                let message = String::from_utf8_lossy(self.message.get(..length).unwrap_or_default()).into_owned();
                Err(match self.failure {
                    failure if failure == Failure::Archive as u32 => Error::Archive(message),
                    failure if failure == Failure::Fetch as u32 => Error::Fetch(message),
                    failure if failure == Failure::Server as u32 => Error::Server(message),
                    failure if failure == Failure::Lock as u32 => Error::LockNotAvailable(message),
                    failure if failure == Failure::Memory as u32 => Error::OutOfMemory { bytes: 0 },
                    _ => Error::Raised(message),
                })
            }
            _ => Err(Error::Server(
                "the background process that verifies the archive ended before it was done; see the server's log"
                    .to_owned(),
            )),
        }
    }

    fn fail(&mut self, error: &Error) {
        let text = error.to_string();
        let kind = match error {
            Error::Archive(_) => Failure::Archive,
            Error::Fetch(_) => Failure::Fetch,
            Error::Server(_) => Failure::Server,
            Error::LockNotAvailable(_) | Error::ChainIsHeld { .. } | Error::FindingsAreHeld { .. } => Failure::Lock,
            Error::OutOfMemory { .. } => Failure::Memory,
            _ => Failure::Other,
        };
        let mut length = text.len().min(self.message.len());
        while !text.is_char_boundary(length) {
            length -= 1;
        }
        if let (Some(to), Some(text)) = (self.message.get_mut(..length), text.as_bytes().get(..length)) {
            to.copy_from_slice(text);
        }
        self.message_length = u32::try_from(length).unwrap_or(0);
        self.failure = kind as u32;
        self.state.store(FAILED, Ordering::Release);
    }
}

/// The right to a verifier that runs: ends it when dropped.
struct Running(Option<DynamicBackgroundWorker>);

impl Running {
    fn is_running(&self) -> bool {
        self.0.as_ref().is_some_and(|worker| {
            !matches!(
                worker.pid(),
                Err(BackgroundWorkerStatus::Stopped | BackgroundWorkerStatus::PostmasterDied)
            )
        })
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(worker) = self.0.take() {
            // It hears that also where its caller does not live to see its end.
            let _ = worker.terminate();
        }
    }
}

#[pg_guard]
#[unsafe(no_mangle)]
pub extern "C-unwind" fn pg_backstop_verifier_main(argument: pg_sys::Datum) {
    process::take_over_signals();
    // SAFETY: the handle that the caller gave; without a resource owner the segment stays until the process ends. Where the
    // caller is gone, so is the segment.
    let job = unsafe {
        let segment = pg_sys::dsm_attach(argument.value() as pg_sys::dsm_handle);
        if segment.is_null() {
            return;
        }
        &mut *pg_sys::dsm_segment_address(segment).cast::<Job>()
    };
    let configured = Configured::remember();
    // SAFETY: first connection of this process.
    unsafe { pg_sys::BackgroundWorkerInitializeConnectionByOid(job.database, pg_sys::InvalidOid, 0) };
    ledger::never_wait_for_chain();
    CALLER.set(job.caller);
    match caught(|| configured.restore().and_then(|()| run(job.from, job.to))) {
        Ok(()) => job.state.store(DONE, Ordering::Release),
        Err(error) => job.fail(&error),
    }
}

thread_local! {
    static CALLER: std::cell::Cell<c_int> = const { std::cell::Cell::new(0) };
}

/// Answers interrupts, and ends this process where nobody waits for it any more.
fn go_on(_silent: Duration) {
    process::answer_interrupts();
    // SAFETY: looks through shared memory; NULL where no process of the server has this number.
    if unsafe { pg_sys::BackendPidGetProc(CALLER.get()) }.is_null() {
        // SAFETY: as at the end of any background worker.
        unsafe { pg_sys::proc_exit(0) };
    }
}

fn run(from: Bound, to: Bound) -> Result<()> {
    let server = Server::observe()?;
    let source = in_transaction(|| choose_source(&server))?.source;
    let waiting = Waiting {
        patience: Waiting::SESSION.patience,
        between: go_on,
    };
    // Nobody has watched the archiver between two calls, so the grace counts from when a segment was first missed.
    let mut inspection = Inspection::new(&source, &server, Memory::new(PgTimestamp(i64::MIN)), waiting)?;
    // SAFETY: reads the clock.
    inspection.gather(&server, PgTimestamp(unsafe { pg_sys::GetCurrentTimestamp() }))?;
    in_transaction(|| inspection.load())?;
    in_transaction(|| inspection.expect())?;
    let all = from.number().is_none() && to.number().is_none();
    texts(&mut inspection, all)?;
    // They may have told of a backup, and with it of what is expected.
    in_transaction(|| inspection.expect())?;
    // Whatever range is asked for, all that is expected gets its row: between verified rows, what has none counts as verified.
    let mut lot = inspection.first_lot();
    while !lot.is_empty() {
        let looked_up = inspection.look_up(&lot)?;
        let decided = in_transaction(|| inspection.decide(looked_up))?;
        if decided.is_news() {
            write(|| inspection.record(&decided))?;
        }
        inspection.settle(&decided);
        go_on(Duration::ZERO);
        lot = inspection.next_lot();
    }
    let strangers = inspection.news_of_strangers()?;
    if !strangers.is_silent() {
        write(|| inspection.record_strangers(&strangers))?;
    }
    let wanted = |segment: &SegmentName| {
        from.number().is_none_or(|from| segment.number >= from) && to.number().is_none_or(|to| segment.number <= to)
    };
    let mut queue: BTreeSet<SegmentName> = inspection.readable().into_iter().filter(wanted).collect();
    let mut succession = Succession::default();
    while let Some(segment) = queue.pop_first() {
        go_on(Duration::ZERO);
        let precedent = in_transaction(|| Precedent::of(&inspection, segment))?;
        let looked = succession.read(&mut inspection, segment, precedent, None)?;
        queue.extend(write(|| inspection.store(segment, &looked))?);
    }
    Ok(())
}

/// Reads history and backup history files: all, or those that nobody has read.
fn texts(inspection: &mut Inspection, all: bool) -> Result<()> {
    let looked_up = inspection.look_up_texts()?;
    let texts = in_transaction(|| inspection.decide_texts(looked_up))?;
    if texts.is_to_be_recorded() {
        write(|| inspection.record_texts(&texts))?;
    }
    let to_read = if all { inspection.held_texts() } else { texts.to_read };
    for (kind, name) in to_read {
        go_on(Duration::ZERO);
        let read = inspection.read_text(kind, &name)?;
        if let Some(read) = &read {
            match in_transaction(|| inspection.record_backup(&name, read)) {
                // The caller's own transaction may be the one in the way. As long as the file has no row, the worker comes back to it.
                Err(Error::ChainIsHeld { .. } | Error::LockNotAvailable(_)) => continue,
                recorded => recorded?,
            }
        }
        write(|| inspection.store_text(&name, read.as_ref()))?;
    }
    Ok(())
}

/// A transaction that writes findings, when no other one does.
fn write<R>(mut body: impl FnMut() -> Result<R>) -> Result<R> {
    let since = Instant::now();
    loop {
        let written = in_transaction(|| {
            if locks::try_write_findings() {
                body().map(Some)
            } else {
                Ok(None)
            }
        })?;
        if let Some(written) = written {
            return Ok(written);
        }
        let by = in_transaction(locks::findings_writer)?;
        // Its caller would wait for itself.
        if since.elapsed() >= LOCKED_OUT_AT_MOST || by == Some(CALLER.get()) {
            return Err(Error::FindingsAreHeld { by });
        }
        go_on(Duration::ZERO);
        process::wait(PAUSE);
    }
}
