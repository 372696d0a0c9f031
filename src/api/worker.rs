//! Starting, stopping and asking the background worker.

use crate::catalog::{self, Text};
use crate::error::{Error, Result};
use crate::life;
use crate::process;
use crate::shmem::{self, WorkerState};
use crate::worker;
use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::*;
use std::time::{Duration, Instant};

/// The launcher is waited for as long; it answers in milliseconds.
const LONGEST_ANSWER: Duration = Duration::from_secs(10);
const BETWEEN_LOOKS: Duration = Duration::from_millis(20);

/// Starts the worker: for good where the library is in `shared_preload_libraries`, else until the server restarts.
///
/// Returns whether it started one; `false` where one runs already. An error says why none could be started.
#[pg_extern(volatile, parallel_unsafe)]
fn start_worker() -> Result<bool, ErrorReport> {
    Ok(start()?)
}

fn start() -> Result<bool> {
    let Some(status) = shmem::read() else {
        if catalog::worker::running()?.is_some() {
            return Ok(false);
        }
        worker::start_unattended()?;
        return Ok(true);
    };
    shmem::update(|status| {
        status.stop_requested = false;
        status.start_requested = true;
        if status.state == WorkerState::Stopped {
            status.state = WorkerState::Waiting;
        }
    });
    shmem::wake_launcher(&status);
    if status.pid != 0 {
        return Ok(false);
    }
    wait_for_answer(status.starts_answered)?;
    Ok(true)
}

/// Waits until the launcher has started a worker, or tells why it could not.
fn wait_for_answer(answered: u32) -> Result<()> {
    let begun = Instant::now();
    loop {
        pgrx::check_for_interrupts!();
        let Some(status) = shmem::read() else {
            return Ok(());
        };
        if status.pid != 0 {
            return Ok(());
        }
        if status.starts_answered != answered {
            return match status.start_error.as_str() {
                "" => Ok(()),
                why => Err(Error::WorkerNotStarted(why.to_owned())),
            };
        }
        if begun.elapsed() > LONGEST_ANSWER {
            let why = status.why_not_started().unwrap_or_else(|| {
                format!(
                    "the launcher has not answered within {} s; it starts the worker as soon as it can",
                    LONGEST_ANSWER.as_secs()
                )
            });
            return Err(Error::WorkerNotStarted(why));
        }
        process::wait_for_latch(BETWEEN_LOOKS);
    }
}

/// Stops the worker until `start_worker()` or, without `shared_preload_libraries`, for good. Returns whether one ran.
#[pg_extern(volatile, parallel_unsafe)]
fn stop_worker() -> Result<bool, ErrorReport> {
    shmem::update(|status| status.stop_requested = true);
    Ok(catalog::worker::terminate()?)
}

type WorkerStatusRow = (
    name!(pid, Option<i32>),
    name!(database, Option<Text>),
    name!(state, Text),
    name!(last_tick_at, Option<TimestampWithTimeZone>),
    name!(last_verified_segment, Option<Text>),
    name!(unverified_segments, Option<i64>),
    name!(bytes_per_second, Option<f64>),
    name!(last_error, Option<Text>),
    name!(archive_source, Option<Text>),
    name!(cluster_role, Option<Text>),
    name!(clone_of, Option<Text>),
    name!(ledger_head_id, Option<i64>),
    name!(ledger_head_hash, Option<Vec<u8>>),
);

/// What the worker says of itself. Without `shared_preload_libraries` only what pg_stat_activity shows.
#[pg_extern(stable, parallel_restricted)]
pub fn worker_status() -> Result<
    TableIterator<
        'static,
        (
            name!(pid, Option<i32>),
            name!(database, Option<Text>),
            name!(state, Text),
            name!(last_tick_at, Option<TimestampWithTimeZone>),
            name!(last_verified_segment, Option<Text>),
            name!(unverified_segments, Option<i64>),
            name!(bytes_per_second, Option<f64>),
            name!(last_error, Option<Text>),
            name!(archive_source, Option<Text>),
            name!(cluster_role, Option<Text>),
            name!(clone_of, Option<Text>),
            name!(ledger_head_id, Option<i64>),
            name!(ledger_head_hash, Option<Vec<u8>>),
        ),
    >,
    ErrorReport,
> {
    Ok(TableIterator::new(status_rows()?))
}

fn status_rows() -> Result<Vec<WorkerStatusRow>> {
    let Some(status) = shmem::read() else {
        let row = catalog::worker::running()?.map(|running| {
            let database = Some(running.database.into());
            let state = "running without shared memory".into();
            (
                Some(running.pid),
                database,
                state,
                running.last_tick_at,
                None,
                None,
                None,
                running.error.map(Text::from),
                None,
                None,
                None,
                None,
                None,
            )
        });
        return Ok(row.into_iter().collect());
    };
    let text = |text: &str| (!text.is_empty()).then(|| Text::from(text));
    let life = life::read();
    let not_started = status
        .why_not_started()
        .map(|why| format!("the worker could not be started: {why}"));
    let ticked = status.last_tick_at != 0;
    let has_head = status.ledger_head_id != 0;
    Ok(vec![(
        (status.pid != 0).then_some(status.pid),
        text(&status.database),
        status.state.as_str().into(),
        catalog::archive::time(status.last_tick_at).filter(|_| ticked),
        text(&status.last_verified_segment),
        ticked.then_some(status.unverified_segments),
        (status.bytes_per_second > 0.0).then_some(status.bytes_per_second),
        not_started.map_or_else(|| text(&status.last_error), |why| Some(why.into())),
        text(&status.archive_source),
        life.as_ref()
            .and_then(|life| life.role)
            .map(|role| role.as_str().into()),
        life.as_ref().and_then(|life| text(&life.clone_of)),
        has_head.then_some(status.ledger_head_id),
        has_head.then(|| status.ledger_head_hash.to_vec()),
    )])
}

impl From<worker::StartError> for Error {
    fn from(error: worker::StartError) -> Self {
        Self::WorkerNotStarted(error.to_string())
    }
}
