//! Starting, stopping and asking the background worker.

use crate::catalog::{self, Text};
use crate::error::{Error, Result};
use crate::life;
use crate::shmem::{self, WorkerState};
use crate::worker;
use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::*;

/// Starts the worker: for good where the library is in `shared_preload_libraries`, else until the server restarts.
///
/// Returns whether it started one; `false` where one runs already.
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
    Ok(status.pid == 0)
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
    let ticked = status.last_tick_at != 0;
    Ok(vec![(
        (status.pid != 0).then_some(status.pid),
        text(&status.database),
        status.state.as_str().into(),
        catalog::archive::time(status.last_tick_at).filter(|_| ticked),
        text(&status.last_verified_segment),
        ticked.then_some(status.unverified_segments),
        (status.bytes_per_second > 0.0).then_some(status.bytes_per_second),
        text(&status.last_error),
        text(&status.archive_source),
        life.as_ref()
            .and_then(|life| life.role)
            .map(|role| role.as_str().into()),
        life.as_ref().and_then(|life| text(&life.clone_of)),
    )])
}

impl From<worker::StartError> for Error {
    fn from(error: worker::StartError) -> Self {
        Self::WorkerNotStarted(error.to_string())
    }
}
