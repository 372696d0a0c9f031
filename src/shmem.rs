//! What the worker says of itself in shared memory, for sessions in any database and on standbys, where it can write nothing.

use pgrx::prelude::*;
use pgrx::{PGRXSharedMemory, PgLwLock, pg_shmem_init};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

static STATUS: PgLwLock<WorkerStatus> =
    // SAFETY: the name is ours alone.
    unsafe { PgLwLock::new(c"pg_backstop_status") };

// Every process inherits this from the postmaster; it stays false where the library was loaded later.
static RESERVED: AtomicBool = AtomicBool::new(false);

/// What the worker is doing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WorkerState {
    /// Not running, and nobody asked it to stop: it waits for its database or its next start.
    #[default]
    Waiting,
    /// Connected, but the extension is not created in its database.
    WaitingForExtension,
    /// Reading archived WAL.
    Verifying,
    /// Waiting for its next tick.
    Idle,
    /// Waiting for an archive that does not answer.
    WaitingForArchive,
    /// On a standby: looks, and writes nothing.
    Standby,
    /// The last tick failed; `last_error` says why.
    Failing,
    /// Stopped by `stop_worker()`.
    Stopped,
}

impl WorkerState {
    /// The word that `v_worker_status` shows.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::WaitingForExtension => "waiting for extension",
            Self::Verifying => "verifying",
            Self::Idle => "idle",
            Self::WaitingForArchive => "waiting for archive",
            Self::Standby => "standby",
            Self::Failing => "failing",
            Self::Stopped => "stopped",
        }
    }
}

/// The worker's status; fixed in size, as shared memory demands. Texts that are too long are cut.
#[derive(Clone, Debug, Default)]
pub struct WorkerStatus {
    /// Process id of the worker, 0 while none runs.
    pub pid: i32,
    /// The database it is connected to.
    pub database: heapless::String<64>,
    /// What it is doing.
    pub state: WorkerState,
    /// End of the last tick, in PostgreSQL's microseconds since 2000-01-01; 0 before the first.
    pub last_tick_at: i64,
    /// The segment verified last.
    pub last_verified_segment: heapless::String<24>,
    /// Archived segments that still have to be read.
    pub unverified_segments: i64,
    /// Speed of the last verification, bytes a second; 0 before the first.
    pub bytes_per_second: f64,
    /// The archive source in use and why it was chosen.
    pub archive_source: heapless::String<512>,
    /// Why the last tick failed; empty when it did not.
    pub last_error: heapless::String<1024>,
    /// Why the archive cannot be read; empty when it can.
    pub archive_error: heapless::String<1024>,
    /// When the newest sample was taken, in microseconds since 1970; 0 before the first.
    pub sampled_at: i64,
    /// Until when nothing had changed since, as far as the worker has looked, likewise.
    pub sample_held_to: i64,
    /// From here, as a position in the WAL, ...
    pub clear_from: u64,
    /// ... to here, the end of a record, the worker found no commit but its own. Archived WAL may be gone from pg_wal.
    pub clear_to: u64,
    /// Id of the ledger's newest event; 0 before the first.
    pub ledger_head_id: i64,
    /// Its hash.
    pub ledger_head_hash: [u8; 32],
    /// False after `stop_worker()`: the launcher then starts none.
    pub stop_requested: bool,
    /// True after `start_worker()`, until the launcher has seen it: it then starts one without further delay.
    pub start_requested: bool,
    /// Process id of the launcher, which a request to start has to wake.
    pub launcher_pid: i32,
    /// How many requests to start the launcher has answered: with a worker, or with `start_error`.
    pub starts_answered: u32,
    /// Why the launcher could not start a worker when it last tried; empty when it could.
    pub start_error: heapless::String<256>,
}

// SAFETY: plain data without pointers; heapless strings hold their bytes in place.
unsafe impl PGRXSharedMemory for WorkerStatus {}

/// Reserves the shared memory; called from `_PG_init` while the postmaster loads its libraries.
pub fn reserve() {
    pg_shmem_init!(STATUS);
    RESERVED.store(true, Ordering::Relaxed);
}

/// Whether this server reserved the shared memory, that is: the library is in `shared_preload_libraries`.
pub fn is_reserved() -> bool {
    RESERVED.load(Ordering::Relaxed)
}

/// The status, or `None` without `shared_preload_libraries`.
pub fn read() -> Option<WorkerStatus> {
    is_reserved().then(|| STATUS.share().clone())
}

/// Changes the status; does nothing without `shared_preload_libraries`.
pub fn update(change: impl FnOnce(&mut WorkerStatus)) {
    if is_reserved() {
        change(&mut STATUS.exclusive());
    }
}

impl WorkerStatus {
    /// Why no worker runs although one should, as far as the launcher knows, or its absence tells.
    pub fn why_not_started(&self) -> Option<String> {
        if self.pid != 0 || self.stop_requested {
            return None;
        }
        if !self.start_error.is_empty() {
            return Some(self.start_error.as_str().to_owned());
        }
        let is_absent = self.launcher().is_none() && server_age() > LAUNCHER_COMES;
        is_absent.then(|| {
            "the launcher does not run; where the server's log says \"too many background workers\", raise max_worker_processes and \
             restart the server"
                .to_owned()
        })
    }

    /// The launcher's process, if it runs.
    fn launcher(&self) -> Option<*mut pg_sys::PGPROC> {
        // SAFETY: NULL where no process of this server has that id.
        let process = unsafe { pg_sys::BackendPidGetProc(self.launcher_pid) };
        (!process.is_null()).then_some(process)
    }
}

/// The launcher starts within this time of the server's own start, and comes back within it when it was ended.
const LAUNCHER_COMES: Duration = Duration::from_secs(10);

fn server_age() -> Duration {
    // SAFETY: reads the clock, and a variable that the postmaster has set.
    let micros = unsafe { pg_sys::GetCurrentTimestamp().saturating_sub(pg_sys::PgStartTime) };
    Duration::from_micros(micros.unsigned_abs())
}

/// Makes the launcher look at once whether a worker is wanted.
pub fn wake_launcher(status: &WorkerStatus) {
    if let Some(process) = status.launcher() {
        // SAFETY: the latch stays valid while the server runs, and setting it only wakes (logicalrep_worker_wakeup_ptr() in
        // replication/logical/launcher.c).
        unsafe { pg_sys::SetLatch(&raw mut (*process).procLatch) };
    }
}

/// `text` cut at the capacity of the field, on a character boundary.
pub fn cut<const N: usize>(text: &str) -> heapless::String<N> {
    let mut field = heapless::String::new();
    for character in text.chars() {
        if field.push(character).is_err() {
            break;
        }
    }
    field
}
