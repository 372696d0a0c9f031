//! How the background processes are registered, what signals they answer, and how they wait.

use crate::transaction::caught;
use crate::{compat, life, settings};
use pgrx::bgworkers::{
    BackgroundWorker, BackgroundWorkerBuilder, BackgroundWorkerStatus, BgWorkerStartTime, DynamicBackgroundWorker,
    SignalWakeFlags,
};
use pgrx::pg_sys;
use std::ffi::CStr;
use std::time::Duration;

/// `backend_type` of the launcher in pg_stat_activity.
pub const LAUNCHER_TYPE: &str = "pg_backstop launcher";
/// `backend_type` of a verifier in pg_stat_activity.
pub const VERIFIER_TYPE: &str = "pg_backstop verifier";
/// `backend_type` of the worker in pg_stat_activity.
pub const WORKER_TYPE: &str = "pg_backstop worker";

const LIBRARY: &str = "pg_backstop";
const LAUNCHER_RESTART: Duration = Duration::from_secs(5);

/// Why there is no worker.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// All slots are taken.
    #[error("no background worker slot is free: raise max_worker_processes and restart the server")]
    NoSlot,
    /// The postmaster did not start it.
    #[error("the background worker did not start: {0:?}")]
    DidNotStart(BackgroundWorkerStatus),
}

pub(super) fn register_launcher() {
    builder(LAUNCHER_TYPE, "pg_backstop_launcher_main")
        .set_restart_time(Some(LAUNCHER_RESTART))
        .load();
}

/// Starts a worker and waits until the postmaster has done so. Nobody restarts it: that is for its caller to see to.
///
/// # Errors
/// Where no background worker slot is free, or the postmaster is stopping.
pub fn start_unattended() -> Result<DynamicBackgroundWorker, StartError> {
    let worker = start(builder(WORKER_TYPE, "pg_backstop_worker_main"))?;
    worker.wait_for_startup().map_err(StartError::DidNotStart)?;
    Ok(worker)
}

/// Starts a verifier with what it is to do, and does not wait for it. Its end wakes this process.
///
/// # Errors
/// As [`start_unattended`].
pub(super) fn start_verifier(job: pg_sys::dsm_handle) -> Result<DynamicBackgroundWorker, StartError> {
    start(builder(VERIFIER_TYPE, "pg_backstop_verifier_main").set_argument(Some(pg_sys::Datum::from(job))))
}

fn start(builder: BackgroundWorkerBuilder) -> Result<DynamicBackgroundWorker, StartError> {
    // SAFETY: a plain variable of this process.
    let me = unsafe { pg_sys::MyProcPid };
    builder
        .set_restart_time(None)
        .set_notify_pid(me)
        .load_dynamic()
        .map_err(|_| StartError::NoSlot)
}

fn builder(kind: &str, entry: &str) -> BackgroundWorkerBuilder {
    BackgroundWorkerBuilder::new(kind)
        .set_type(kind)
        .set_library(LIBRARY)
        .set_function(entry)
        // Sets the start time too, so the one that standbys need comes after it.
        .enable_spi_access()
        .set_start_time(BgWorkerStartTime::ConsistentState)
}

unsafe extern "C-unwind" {
    // pg_sys has it behind a guard, which a signal handler must not run through.
    fn die(signal: std::ffi::c_int);
}

/// Takes over the signals; the first thing in a process.
///
/// SIGTERM is core's `die`, as in any session: a handler that only sets a flag would leave a shutdown waiting for the end
/// of whatever query runs.
pub(super) fn take_over_signals() {
    // SAFETY: first thing in the process; `die` is what PostgreSQL's own backends install.
    unsafe { compat::set_signal_handler(pg_sys::SIGTERM, die) };
    BackgroundWorker::attach_signal_handlers(SignalWakeFlags::SIGHUP);
}

/// Takes over the signals and connects, to `database` or to none.
pub(super) fn begin(database: Option<&CStr>) {
    take_over_signals();
    let name = database.map_or(std::ptr::null(), CStr::as_ptr);
    // SAFETY: the process was registered with a database connection; a null name gives the shared catalogs only.
    unsafe { pg_sys::BackgroundWorkerInitializeConnection(name, std::ptr::null(), 0) };
}

/// Waits for the latch or the end of `timeout`, then answers what came meanwhile: termination, a barrier, a reload.
pub(super) fn wait(timeout: Duration) {
    wait_for_latch(timeout);
    // Whoever cancels what runs finds nothing running here: the error that this raises has nothing to abort.
    let _ = caught(|| {
        answer_interrupts();
        Ok(())
    });
}

/// The same in a session, where an interrupt ends what runs.
pub(super) fn wait_in_session(timeout: Duration) {
    wait_for_latch(timeout);
    crate::memory::check_for_interrupts();
}

fn wait_for_latch(timeout: Duration) {
    let events = pg_sys::WL_LATCH_SET | pg_sys::WL_TIMEOUT | pg_sys::WL_EXIT_ON_PM_DEATH;
    let milliseconds = std::ffi::c_long::try_from(timeout.as_millis()).unwrap_or(10_000);
    // SAFETY: MyLatch belongs to this process.
    unsafe {
        pg_sys::WaitLatch(
            pg_sys::MyLatch,
            events as std::ffi::c_int,
            milliseconds,
            pg_sys::PG_WAIT_EXTENSION,
        );
        pg_sys::ResetLatch(pg_sys::MyLatch);
    }
}

/// To be called between two pieces of work that take time.
pub(super) fn answer_interrupts() {
    crate::memory::check_for_interrupts();
    if BackgroundWorker::sighup_received() {
        // SAFETY: outside of any transaction or between two files; this is what core's own processes do.
        unsafe { pg_sys::ProcessConfigFile(pg_sys::GucContext::PGC_SIGHUP) };
    }
}

/// The tick, as the settings now have it, or less where something is about to happen.
pub(super) fn wait_for_next_tick() {
    wait(life::Life::patience(settings::check_interval()));
}
