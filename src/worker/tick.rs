//! The worker's life: connect, then one tick after another until it is told to end.

use super::archive::ArchiveDuty;
use super::lives::{self, LifeDuty};
use super::process;
use super::samples::SampleDuty;
use crate::error::{Result, tell};
use crate::server::Server;
use crate::shmem::{self, WorkerState};
use crate::transaction::{caught, in_transaction};
use crate::{catalog, locks, settings};
use pgrx::pg_sys;
use pgrx::prelude::*;
use std::ffi::CStr;

// Readers of WAL know the extension's own commits by it; see origin.h, DoNotReplicateId.
const BOOKKEEPING_ORIGIN: pg_sys::RepOriginId = u16::MAX;

#[pg_guard]
#[unsafe(no_mangle)]
pub extern "C-unwind" fn pg_backstop_worker_main(_argument: pg_sys::Datum) {
    let database = settings::database();
    process::begin(Some(&database));
    prepare_session();
    if !matches!(in_transaction(|| Ok(locks::try_own_database())), Ok(true)) {
        let message = "pg_backstop: another worker serves this database; this one ends".to_owned();
        tell(PgLogLevel::LOG, message, None, None);
        return;
    }
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

/// Session settings that make the worker harmless and independent of what the database or its owner prefer.
fn prepare_session() {
    const SETTINGS: &[(&CStr, &CStr)] = &[
        (c"search_path", c""),
        catalog::NO_JIT,
        // Facts can be found again; no session should wait for the disk, or for a standby, because of them.
        (c"synchronous_commit", c"off"),
        (c"default_transaction_read_only", c"off"),
        (c"default_transaction_isolation", c"read committed"),
        (c"statement_timeout", c"0"),
        (c"lock_timeout", c"10s"),
        // The ledger's triggers must see what the worker writes.
        (c"session_replication_role", c"origin"),
        // It would end the process, not the transaction.
        #[cfg(any(feature = "pg17", feature = "pg18"))]
        (c"transaction_timeout", c"0"),
    ];
    for (name, value) in SETTINGS {
        // SAFETY: zero-terminated constants; the source is the one of SET in a session.
        unsafe {
            pg_sys::SetConfigOption(
                name.as_ptr(),
                value.as_ptr(),
                pg_sys::GucContext::PGC_SUSET,
                pg_sys::GucSource::PGC_S_SESSION,
            );
        }
    }
    // SAFETY: a variable of this process; with this value PostgreSQL tracks no origin and only marks the commit records.
    unsafe { pg_sys::replorigin_session_origin = BOOKKEEPING_ORIGIN };
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
        report_idle();
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
            return Ok(WorkerState::WaitingForExtension);
        }
        // What it cannot do must not keep it from looking at the archive.
        let lived = self.lives.tick(&server);
        if server.standby {
            return lived.map(|()| WorkerState::Standby);
        }
        in_transaction(|| crate::api::backup::fail_abandoned_backups(settings::running_backup_timeout()))?;
        // Samples come second, and come even when the archive cannot be read: that is when exposure grows.
        let looked = self.archive.tick(&server);
        self.samples.tick(&server, self.archive.unverified())?;
        looked.and(lived).map(|()| WorkerState::Idle)
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

fn report_idle() {
    // SAFETY: as above; null means no text.
    unsafe {
        pg_sys::pgstat_report_activity(pg_sys::BackendState::STATE_IDLE, std::ptr::null());
        pg_sys::pgstat_report_stat(true);
    }
}
