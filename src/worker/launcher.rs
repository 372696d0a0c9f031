//! The launcher: sees to it that one worker runs while its database exists and nobody has stopped it.

use super::process;
use crate::transaction::in_transaction;
use crate::{settings, shmem};
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
    let mut worker: Option<(DynamicBackgroundWorker, Instant)> = None;
    let mut pause = PAUSE;
    let mut not_before = Instant::now();
    loop {
        if let Some((running, since)) = worker.take() {
            match running.pid() {
                Err(BackgroundWorkerStatus::Stopped | BackgroundWorkerStatus::PostmasterDied) => {
                    pause = if since.elapsed() > HEALTHY {
                        PAUSE
                    } else {
                        (pause * 2).min(LONGEST_PAUSE)
                    };
                    not_before = Instant::now() + pause;
                }
                _ => worker = Some((running, since)),
            }
        }
        let stopped = shmem::read().is_some_and(|status| status.stop_requested);
        if worker.is_none() && !stopped && Instant::now() >= not_before && database_exists() {
            match process::start_unattended() {
                Ok(started) => worker = Some((started, Instant::now())),
                Err(reason) => {
                    warning!("pg_backstop: {reason}");
                    not_before = Instant::now() + LONGEST_PAUSE;
                }
            }
        }
        // The postmaster wakes us when the worker ends; the rest is for a database that appears.
        process::wait(if worker.is_some() {
            LONGEST_PAUSE
        } else {
            pause.max(settings::check_interval().min(LONGEST_PAUSE))
        });
    }
}

/// Looks through pg_database as the autovacuum launcher does, without an index: the indexes of shared catalogs are not at hand
/// in a process without a database until some session has connected to one.
fn database_exists() -> bool {
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
                found |= CStr::from_ptr((*row).datname.data.as_ptr()) == name.as_c_str();
            }
            // What table_endscan() is; that one is inline in C.
            pg_sys::heap_endscan(scan);
            pg_sys::table_close(relation, pg_sys::AccessShareLock as pg_sys::LOCKMODE);
        }
        Ok(found)
    })
    .unwrap_or(false)
}
