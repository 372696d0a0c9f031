//! The worker's life: connect, then one tick after another until it is told to end.

use super::archive::ArchiveDuty;
use super::lives::{self, LifeDuty};
use super::process;
use super::samples::SampleDuty;
use super::session::Configured;
use super::witness::WitnessDuty;
use crate::error::{Result, tell};
use crate::server::Server;
use crate::shmem::{self, WorkerState};
use crate::transaction::{caught, in_transaction};
use crate::{catalog, locks, settings};
use pgrx::pg_sys;
use pgrx::prelude::*;
use std::ffi::{CStr, CString};

#[pg_guard]
#[unsafe(no_mangle)]
pub extern "C-unwind" fn pg_backstop_worker_main(_argument: pg_sys::Datum) {
    let database = settings::database();
    let configured = Configured::remember();
    process::begin(Some(&database));
    if let Err(error) = configured.restore() {
        let message = format!("pg_backstop: the worker ends, because it cannot prepare its session: {error}");
        tell(PgLogLevel::WARNING, message, None, None);
        return;
    }
    if !matches!(in_transaction(|| Ok(locks::try_own_database())), Ok(true)) {
        let message = "pg_backstop: another worker serves this database; this one ends".to_owned();
        tell(PgLogLevel::LOG, message, None, None);
        return;
    }
    catalog::ledger::never_wait_for_chain();
    publish_identity(&database);
    // stop_worker() may have looked for this process just before it could be found.
    if shmem::read().is_some_and(|status| status.stop_requested) {
        return;
    }
    let mut worker = Worker::default();
    loop {
        worker.tick_and_report();
        if worker.archive.has_backlog() {
            process::answer_interrupts();
        } else {
            process::wait_for_next_tick();
        }
    }
}

fn publish_identity(database: &CStr) {
    // SAFETY: a plain variable of this process.
    let pid = unsafe { pg_sys::MyProcPid };
    shmem::update(|status| {
        status.pid = pid;
        status.database = shmem::cut(&database.to_string_lossy());
        status.state = WorkerState::Waiting;
        status.last_error.clear();
    });
    // SAFETY: the callback is a plain function; a process that ends by a signal runs it too.
    unsafe { pg_sys::before_shmem_exit(Some(withdraw_identity), pg_sys::Datum::from(0)) };
}

#[pg_guard]
unsafe extern "C-unwind" fn withdraw_identity(_code: std::ffi::c_int, _argument: pg_sys::Datum) {
    shmem::update(|status| {
        status.pid = 0;
        status.state = if status.stop_requested {
            WorkerState::Stopped
        } else {
            WorkerState::Waiting
        };
    });
}

/// What the worker remembers between ticks. All of it can be found again from the tables and the archive.
#[derive(Default)]
struct Worker {
    extension: Option<catalog::Extension>,
    lives: LifeDuty,
    archive: ArchiveDuty,
    samples: SampleDuty,
    witness: WitnessDuty,
    reported: String,
}

impl Worker {
    /// One tick. An error is logged when it is new, and shown in `v_worker_status` as long as it lasts.
    fn tick_and_report(&mut self) {
        report_activity(c"pg_backstop: looking for news in the archive");
        let outcome = caught(|| self.tick());
        let (state, error) = match outcome {
            Ok(state) => (state, String::new()),
            Err(error) => (WorkerState::Failing, error.to_string()),
        };
        if error != self.reported {
            if error.is_empty() {
                tell(
                    PgLogLevel::LOG,
                    "pg_backstop: the worker works again".to_owned(),
                    None,
                    None,
                );
            } else {
                tell(PgLogLevel::WARNING, format!("pg_backstop: {error}"), None, None);
            }
            self.reported.clone_from(&error);
        }
        shmem::update(|status| {
            status.state = state;
            status.last_tick_at = now();
            status.last_error = shmem::cut(&error);
        });
        report_idle(&error);
    }

    fn tick(&mut self) -> Result<WorkerState> {
        let server = Server::observe()?;
        let extension = in_transaction(catalog::worker::find_fitting_extension)?;
        if self.extension != extension {
            // Another extension means other tables: nothing remembered holds for them.
            *self = Self {
                reported: std::mem::take(&mut self.reported),
                extension,
                ..Self::default()
            };
        }
        if extension.is_none() {
            lives::let_pass(&server);
            shmem::update(|status| status.ledger_head_id = 0);
            return Ok(WorkerState::WaitingForExtension);
        }
        // What one duty cannot do keeps no other from being done.
        let lived = caught(|| self.lives.tick(&server));
        let witnessed = caught(|| self.witness.tick(server.standby));
        if server.standby {
            return lived.and(witnessed).map(|()| WorkerState::Standby);
        }
        let timeout = settings::running_backup_timeout();
        let abandoned = in_transaction(|| crate::api::backup::fail_abandoned_backups(timeout));
        let looked = caught(|| self.archive.tick(&server));
        // Samples come even when the archive cannot be read: that is when exposure grows.
        let sampled = caught(|| self.samples.tick(&server, self.archive.unverified()));
        let outcomes = [looked, lived, sampled, witnessed, abandoned.map(drop)];
        outcomes.into_iter().collect::<Result<()>>().map(|()| WorkerState::Idle)
    }
}

fn now() -> i64 {
    // SAFETY: reads the clock.
    unsafe { pg_sys::GetCurrentTimestamp() }
}

fn report_activity(what: &CStr) {
    // SAFETY: a zero-terminated constant, copied into this process's entry.
    unsafe { pg_sys::pgstat_report_activity(pg_sys::BackendState::STATE_RUNNING, what.as_ptr()) };
}

/// Without the shared memory that sessions else look into, pg_stat_activity is where they find what went wrong.
fn report_idle(error: &str) {
    let text = match error {
        "" => "pg_backstop: waiting for the next look".to_owned(),
        error => format!("{}{}", catalog::worker::FAILING, catalog::sayable(error.to_owned())),
    };
    let text = CString::new(text).unwrap_or_default();
    // SAFETY: a zero-terminated string, copied into this process's entry.
    unsafe {
        pg_sys::pgstat_report_activity(pg_sys::BackendState::STATE_IDLE, text.as_ptr());
        pg_sys::pgstat_report_stat(true);
    }
}
