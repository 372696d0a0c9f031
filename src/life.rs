//! This life of the server: from one start, crash restart or promotion to the next.
//!
//! How it began is read in the postmaster, before anything is recovered: afterwards neither pg_control nor the signal files tell.
//! PostgreSQL sets up shared memory then, at each start and again after the crash of a process, and in no child. What is learned
//! later is kept there too, so that it outlives a worker that is killed.

use crate::heartbeat::Heartbeat;
use crate::server;
use crate::shmem;
use pgrx::prelude::*;
use pgrx::{PGRXSharedMemory, PgLwLock, pg_shmem_init};
use recovery::lives::{Beginning, ControlState, Signals};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use wal::PgTimestamp;

static LIFE: PgLwLock<Life> =
    // SAFETY: the name is ours alone.
    unsafe { PgLwLock::new(c"pg_backstop_life") };

static RESERVED: AtomicBool = AtomicBool::new(false);

/// A restore is watched this closely, so that it is known when it was over.
const WATCH: Duration = Duration::from_secs(1);

/// What is known of this life. Times are PostgreSQL's microseconds since 2000-01-01, positions are LSNs; 0 stands for unknown.
#[derive(Clone, Debug, Default)]
pub struct Life {
    /// How it began.
    pub beginning: Beginning,
    /// When the postmaster began it: the key of this life.
    pub began_at: i64,
    /// When pg_control had last been written before, by a server that was open.
    pub control_written_at: i64,
    /// The server's own `TimeZone` and `DateStyle`, by which it reads `recovery_target_time`. Sessions may have others.
    pub time_zone: heapless::String<128>,
    /// See [`Self::time_zone`].
    pub date_style: heapless::String<32>,
    /// Where replay begins, where the server is to recover without a backup.
    pub redo: u64,
    /// Whether `backup_label.old` is of this recovery.
    pub has_backup_label: bool,
    /// When the server was first seen to accept writes.
    pub writes_at: i64,
    /// When it was last seen not to.
    pub no_writes_at: i64,
    /// The end of what was replayed after a crash.
    pub recovered_to: u64,
    /// When replay was found paused, without having gone on since.
    pub paused_at: i64,
    paused_lsn: u64,
    /// When the primary was last heard, on a standby.
    pub primary_heard_at: i64,
    /// The end of the primary's WAL, as it last said.
    pub primary_end: u64,
    /// The end of the WAL that arrived from it.
    pub received: u64,
    /// The last heartbeat of the life before.
    pub last_heartbeat: Option<Heartbeat>,
    has_looked_back: bool,
    /// Whether nothing is left to be recorded of how it began.
    pub is_settled: bool,
    /// What `v_worker_status` shows as `cluster_role`.
    pub role: Option<Role>,
    /// What it shows as `clone_of`; empty where this server is none.
    pub clone_of: heapless::String<1024>,
}

/// What part this server plays.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// It accepts writes.
    Primary,
    /// It follows a primary.
    Standby,
    /// It is being restored.
    Recovering,
    /// It accepts writes, as a copy of another cluster.
    Clone,
}

impl Role {
    /// The word that `v_worker_status` shows.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Primary => "primary",
            Self::Standby => "standby",
            Self::Recovering => "recovering",
            Self::Clone => "clone",
        }
    }
}

// SAFETY: plain data without pointers; heapless strings hold their bytes in place.
unsafe impl PGRXSharedMemory for Life {}

/// Reserves the shared memory; called from `_PG_init` while the postmaster loads its libraries. The value is made anew each time
/// the postmaster sets up shared memory.
pub fn reserve() {
    pg_shmem_init!(LIFE = Life::begin());
    RESERVED.store(true, Ordering::Relaxed);
}

/// What is known of this life; `None` without `shared_preload_libraries`: then nobody saw how it began.
pub fn read() -> Option<Life> {
    RESERVED.load(Ordering::Relaxed).then(|| LIFE.share().clone())
}

/// Adds to what is known; does nothing without `shared_preload_libraries`.
pub fn update(change: impl FnOnce(&mut Life)) {
    if RESERVED.load(Ordering::Relaxed) {
        change(&mut LIFE.exclusive());
    }
}

impl Life {
    /// Looks at what the startup process will find.
    fn begin() -> Self {
        let directory = server::data_directory();
        let exists = |name: &str| directory.join(name).exists();
        let signals = Signals {
            standby: exists("standby.signal"),
            recovery: exists("recovery.signal"),
            backup_label: exists("backup_label"),
        };
        let setting = |name| server::setting(name).unwrap_or_default();
        let nothing = Self {
            began_at: now(),
            time_zone: shmem::cut(&setting(c"TimeZone")),
            date_style: shmem::cut(&setting(c"DateStyle")),
            ..Self::default()
        };
        let Some(control) = control_file() else {
            return nothing;
        };
        let state = ControlState::from_number(control.state);
        let beginning = Beginning::of(state, signals);
        let is_resumed = state == ControlState::InArchiveRecovery && beginning == Beginning::Archive;
        Self {
            beginning,
            control_written_at: if state.dates_life() {
                PgTimestamp::from_unix_micros(control.time.saturating_mul(1_000_000)).0
            } else {
                0
            },
            redo: if signals.backup_label {
                0
            } else {
                control.checkPointCopy.redo
            },
            has_backup_label: signals.backup_label || is_resumed,
            ..nothing
        }
    }

    /// How long the worker may wait for its next tick, which otherwise comes after `interval`.
    pub fn patience(interval: Duration) -> Duration {
        match read() {
            Some(life) if life.writes_at == 0 && life.beginning == Beginning::Archive => interval.min(WATCH),
            _ => interval,
        }
    }
}

/// Notices that the server has come to accept writes, or that replay is paused. Any process of the server may call it.
pub fn look() {
    if read().is_none_or(|life| life.writes_at != 0) {
        return;
    }
    // SAFETY: plain functions of the server without side effects.
    let (in_recovery, paused, replayed) = unsafe {
        (
            pg_sys::RecoveryInProgress(),
            pg_sys::GetRecoveryPauseState() == pg_sys::RecoveryPauseState::RECOVERY_PAUSED,
            pg_sys::GetXLogReplayRecPtr(std::ptr::null_mut()),
        )
    };
    if in_recovery {
        update(|life| {
            life.no_writes_at = now();
            if paused && life.paused_lsn != replayed {
                life.paused_at = life.no_writes_at;
                life.paused_lsn = replayed;
            } else if life.paused_lsn < replayed {
                life.paused_at = 0;
            }
        });
        return;
    }
    // After a crash the server writes a checkpoint before it accepts writes. Its own place is the end of what was replayed.
    let checkpoint = control_file().map_or(0, |control| control.checkPointCopy.redo);
    update(|life| {
        if life.writes_at == 0 {
            life.writes_at = now();
            let replays_own_wal = matches!(life.beginning, Beginning::Crash | Beginning::Backup);
            life.recovered_to = if replays_own_wal && checkpoint > life.redo {
                checkpoint
            } else {
                0
            };
        }
    });
}

/// Takes over what the last heartbeat of the life before says, once, before this life gives its own.
pub fn look_back(system_identifier: u64) {
    if read().is_none_or(|life| life.has_looked_back) {
        return;
    }
    let last = Heartbeat::read(&server::data_directory()).filter(|last| last.system_identifier == system_identifier);
    update(|life| {
        life.has_looked_back = true;
        life.last_heartbeat = last.filter(|last| last.life != life.began_at);
        // A standby that was restarted since its primary went has heard nothing itself.
        if let (Beginning::Standby, Some(last)) = (life.beginning, &life.last_heartbeat) {
            life.primary_heard_at = last.primary_heard_at;
            life.primary_end = last.primary_end;
            life.received = last.received;
        }
    });
}

/// The control file as it is on disk; `None` where it is damaged.
fn control_file() -> Option<pg_sys::ControlFileData> {
    let mut is_sound = false;
    // SAFETY: gives a palloc'ed copy, which is copied again and freed. The server has read the file itself before, so it is there.
    unsafe {
        let data = pg_sys::get_controlfile(pg_sys::DataDir, &mut is_sound);
        let control = data.read();
        pg_sys::pfree(data.cast());
        is_sound.then_some(control)
    }
}

/// The time now, in microseconds since 2000-01-01.
pub fn now() -> i64 {
    // SAFETY: reads the clock.
    unsafe { pg_sys::GetCurrentTimestamp() }
}
