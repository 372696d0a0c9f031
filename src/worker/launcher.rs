//! The launcher: sees to it that one worker runs while its database can be connected to and nobody has stopped it.

use super::process;
use crate::error::tell;
use crate::transaction::in_transaction;
use crate::{life, settings, shmem};
use pgrx::bgworkers::{BackgroundWorkerStatus, DynamicBackgroundWorker};
use pgrx::pg_sys;
use pgrx::prelude::*;
use std::ffi::CStr;
use std::time::{Duration, Instant};

const PAUSE: Duration = Duration::from_secs(1);
// A worker that falls over at once is not started more often than this.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
const HEALTHY: Duration = Duration::from_secs(30);

#[pg_guard]
#[unsafe(no_mangle)]
pub extern "C-unwind" fn pg_backstop_launcher_main(_argument: pg_sys::Datum) {
    process::begin(None);
    // SAFETY: a plain variable of this process.
    let me = unsafe { pg_sys::MyProcPid };
    shmem::update(|status| status.launcher_pid = me);
    let mut launcher = Launcher::new();
    loop {
        // The first process of the extension to run after a crash: the worker starts only when the database is there.
        life::look();
        let pause = launcher.look_after_worker();
        process::wait(pause);
    }
}

struct Launcher {
    /// The worker that this process started, and when.
    worker: Option<(DynamicBackgroundWorker, Instant)>,
    /// How long to wait after a worker ended; grows while they end soon.
    pause: Duration,
    not_before: Instant,
    /// Why the last start failed; logged once.
    reported: String,
}

impl Launcher {
    fn new() -> Self {
        Self {
            worker: None,
            pause: PAUSE,
            not_before: Instant::now(),
            reported: String::new(),
        }
    }

    /// Starts the worker if there should be one and is none. Returns how long to wait for the next look; the postmaster wakes
    /// us when a worker ends that we started, and `start_worker()` when it wants one.
    fn look_after_worker(&mut self) -> Duration {
        self.notice_end();
        let (mut stopped, mut running, mut wanted_now) = (false, false, false);
        shmem::update(|status| {
            stopped = status.stop_requested;
            // It may outlive the launcher that started it. Nobody else would know when it ends.
            running = status.pid != 0;
            wanted_now = std::mem::take(&mut status.start_requested);
        });
        if wanted_now {
            self.pause = PAUSE;
            self.not_before = Instant::now();
        }
        if self.worker.is_none() && !running && !stopped && Instant::now() >= self.not_before {
            self.try_to_start(wanted_now);
        }
        if wanted_now {
            shmem::update(|status| status.starts_answered = status.starts_answered.wrapping_add(1));
        }
        if self.worker.is_some() {
            LONGEST_PAUSE
        } else {
            self.pause.max(settings::check_interval().min(LONGEST_PAUSE))
        }
    }

    fn notice_end(&mut self) {
        let Some((worker, since)) = self.worker.take() else {
            return;
        };
        match worker.pid() {
            Err(BackgroundWorkerStatus::Stopped | BackgroundWorkerStatus::PostmasterDied) => {
                self.pause = if since.elapsed() > HEALTHY {
                    PAUSE
                } else {
                    (self.pause * 2).min(LONGEST_PAUSE)
                };
                self.not_before = Instant::now() + self.pause;
            }
            _ => self.worker = Some((worker, since)),
        }
    }

    /// Starts the worker if its database is there. Where somebody asks for it, they are told that it is not; else it is waited for.
    fn try_to_start(&mut self, wanted_now: bool) {
        if database_takes_connections() {
            self.start();
            return;
        }
        let why = format!(
            "database \"{}\" (pg_backstop.database) does not exist or takes no connections; the worker starts once it does",
            settings::database().to_string_lossy()
        );
        shmem::update(|status| {
            status.start_error.clear();
            if wanted_now {
                status.start_error = shmem::cut(&why);
            }
        });
    }

    fn start(&mut self) {
        match process::start_unattended() {
            Ok(worker) => {
                self.worker = Some((worker, Instant::now()));
                self.reported.clear();
                shmem::update(|status| status.start_error.clear());
            }
            Err(reason) => {
                let reason = reason.to_string();
                shmem::update(|status| status.start_error = shmem::cut(&reason));
                if reason != self.reported {
                    tell(PgLogLevel::WARNING, format!("pg_backstop: {reason}"), None, None);
                    self.reported = reason;
                }
                self.not_before = Instant::now() + LONGEST_PAUSE;
            }
        }
    }
}

/// Looks through pg_database as the autovacuum launcher does, without an index: the indexes of shared catalogs are not at hand
/// in a process without a database until some session has connected to one.
fn database_takes_connections() -> bool {
    let name = settings::database();
    in_transaction(|| {
        let mut found = false;
        // SAFETY: pg_database is a shared catalog that every process may read; each tuple is looked at before the next is
        // fetched; an error unwinds, and transaction abort closes scan and relation.
        unsafe {
            let relation = pg_sys::table_open(pg_sys::DatabaseRelationId, pg_sys::AccessShareLock as pg_sys::LOCKMODE);
            let scan = pg_sys::table_beginscan_catalog(relation, 0, std::ptr::null_mut());
            loop {
                let tuple = pg_sys::heap_getnext(scan, pg_sys::ScanDirection::ForwardScanDirection);
                if tuple.is_null() {
                    break;
                }
                let row = pg_sys::GETSTRUCT(tuple).cast::<pg_sys::FormData_pg_database>();
                // A limit below -1 marks what an interrupted DROP DATABASE left.
                found |= CStr::from_ptr((*row).datname.data.as_ptr()) == name.as_c_str()
                    && (*row).datallowconn
                    && (*row).datconnlimit >= -1;
            }
            // What table_endscan() is; that one is inline in C.
            pg_sys::heap_endscan(scan);
            pg_sys::table_close(relation, pg_sys::AccessShareLock as pg_sys::LOCKMODE);
        }
        Ok(found)
    })
    .unwrap_or(false)
}
