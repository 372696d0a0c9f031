//! The settings `pg_backstop.*`, one line of meaning each.

use crate::catalog::sayable;
use crate::foreign_text;
use pgrx::prelude::*;
use pgrx::{GucContext, GucFlags, GucRegistry, GucSetting, PostgresGucEnum};
use recovery::objectives::Objectives;
use std::ffi::{CStr, CString, c_char, c_void};
use std::time::Duration;

static DATABASE: GucSetting<Option<CString>> = GucSetting::<Option<CString>>::new(Some(c"postgres"));
static ARCHIVE_SOURCE: GucSetting<Option<CString>> = GucSetting::<Option<CString>>::new(Some(c"auto"));
static CHECK_INTERVAL_MS: GucSetting<i32> = GucSetting::<i32>::new(10_000);
static ARCHIVE_GRACE_S: GucSetting<i32> = GucSetting::<i32>::new(60);
static VERIFY_RATE_LIMIT_KB: GucSetting<i32> = GucSetting::<i32>::new(0);
static REVERIFY_INTERVAL_S: GucSetting<i32> = GucSetting::<i32>::new(7 * 24 * 60 * 60);
static RESTORE_COMMAND_TIMEOUT_S: GucSetting<i32> = GucSetting::<i32>::new(60);
static TARGET_RPO_S: GucSetting<i32> = GucSetting::<i32>::new(5 * 60);
static TARGET_RTO_S: GucSetting<i32> = GucSetting::<i32>::new(60 * 60);
static COUNTED_RECEIVERS: GucSetting<CountedReceivers> = GucSetting::<CountedReceivers>::new(CountedReceivers::All);
static RUNNING_BACKUP_TIMEOUT_S: GucSetting<i32> = GucSetting::<i32>::new(24 * 60 * 60);
static SAMPLE_RETENTION_MIN: GucSetting<i32> = GucSetting::<i32>::new(30 * 24 * 60);

/// Which connected physical receivers protect what they have flushed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PostgresGucEnum)]
pub enum CountedReceivers {
    /// Every one.
    #[name = c"all"]
    All,
    /// Those that commits wait for.
    #[name = c"synchronous"]
    Synchronous,
    /// None: only the archive protects.
    #[name = c"none"]
    None,
}

/// The database that the worker attaches to.
pub fn database() -> CString {
    DATABASE.get().unwrap_or_else(|| c"postgres".to_owned())
}

/// Where archived WAL is read, as the administrator wrote it; see [`foreign_text`] for what in it is no UTF-8.
pub fn archive_source() -> String {
    ARCHIVE_SOURCE
        .get()
        .map_or_else(|| "auto".to_owned(), |value| foreign_text::decode(value.to_bytes()))
}

/// The worker's tick.
pub fn check_interval() -> Duration {
    Duration::from_millis(CHECK_INTERVAL_MS.get().unsigned_abs().into())
}

/// How long a segment may stay invisible in the archive before it is missing.
pub fn archive_grace() -> Duration {
    Duration::from_secs(ARCHIVE_GRACE_S.get().unsigned_abs().into())
}

/// How fast the worker may read archived WAL, bytes a second; none when the setting is 0.
pub fn verify_rate_limit() -> Option<u64> {
    match VERIFY_RATE_LIMIT_KB.get() {
        0 => None,
        kilobytes => Some(u64::from(kilobytes.unsigned_abs()) * 1024),
    }
}

/// How long a verified segment may go without being read again; none when the setting is 0.
pub fn reverify_interval() -> Option<Duration> {
    match REVERIFY_INTERVAL_S.get() {
        0 => None,
        seconds => Some(Duration::from_secs(seconds.unsigned_abs().into())),
    }
}

/// How long `restore_command` may take for one file.
pub fn restore_command_timeout() -> Duration {
    Duration::from_secs(RESTORE_COMMAND_TIMEOUT_S.get().unsigned_abs().into())
}

/// The cluster's recovery point objective; none when the setting is 0.
pub fn target_rpo() -> Option<Duration> {
    match TARGET_RPO_S.get() {
        0 => None,
        seconds => Some(Duration::from_secs(seconds.unsigned_abs().into())),
    }
}

/// The cluster's recovery time objective; none when the setting is 0.
pub fn target_rto() -> Option<Duration> {
    match TARGET_RTO_S.get() {
        0 => None,
        seconds => Some(Duration::from_secs(seconds.unsigned_abs().into())),
    }
}

/// The cluster's objectives.
pub fn objectives() -> Objectives {
    Objectives {
        rpo: target_rpo(),
        rto: target_rto(),
    }
}

/// Which receivers count as protection.
pub fn counted_receivers() -> CountedReceivers {
    COUNTED_RECEIVERS.get()
}

/// How long a recorded backup may run before it counts as failed.
pub fn running_backup_timeout() -> Duration {
    Duration::from_secs(RUNNING_BACKUP_TIMEOUT_S.get().unsigned_abs().into())
}

/// How long samples are kept.
pub fn sample_retention() -> Duration {
    Duration::from_secs(u64::from(SAMPLE_RETENTION_MIN.get().unsigned_abs()) * 60)
}

/// Registers the settings; called once, from `_PG_init`.
///
/// `preloading` tells whether the postmaster is loading us: PostgreSQL takes a setting that wants a restart only then.
pub fn define(preloading: bool) {
    GucRegistry::define_string_guc(
        c"pg_backstop.database",
        c"Database that the worker attaches to.",
        c"The extension must be created there. A change takes a server restart.",
        &DATABASE,
        if preloading {
            GucContext::Postmaster
        } else {
            GucContext::Sighup
        },
        GucFlags::default(),
    );
    // SAFETY: the hook has the signature that PostgreSQL calls it with.
    unsafe {
        GucRegistry::define_string_guc_with_hooks(
            c"pg_backstop.archive_source",
            c"Where archived WAL is read: auto, dir:/path, pgbackrest:/repo/archive/stanza, barman:/path/wals, walg:/path, or restore_command.",
            c"auto takes restore_command if that is set, else the place that archive_command or basic_archive.archive_directory names.",
            &ARCHIVE_SOURCE,
            GucContext::Sighup,
            GucFlags::SUPERUSER_ONLY,
            Some(check_archive_source),
            None,
            None,
        );
    }
    GucRegistry::define_int_guc(
        c"pg_backstop.check_interval",
        c"Time between two ticks of the worker.",
        c"",
        &CHECK_INTERVAL_MS,
        100,
        3_600_000,
        GucContext::Sighup,
        GucFlags::UNIT_MS,
    );
    GucRegistry::define_int_guc(
        c"pg_backstop.archive_grace",
        c"How long a finished segment may stay invisible in the archive before it is missing.",
        c"It starts when the segment is first expected there and does not run while the archiver still has it to send.",
        &ARCHIVE_GRACE_S,
        0,
        86_400,
        GucContext::Sighup,
        GucFlags::UNIT_S,
    );
    GucRegistry::define_int_guc(
        c"pg_backstop.verify_rate_limit",
        c"How much archived WAL the worker may read a second.",
        c"It reads as stored or, where that is compressed, so much of the content. 0 sets no limit.",
        &VERIFY_RATE_LIMIT_KB,
        0,
        i32::MAX,
        GucContext::Sighup,
        GucFlags::UNIT_KB,
    );
    GucRegistry::define_int_guc(
        c"pg_backstop.reverify_interval",
        c"Every verified segment is read again at least this often.",
        c"Reading is spread evenly over the interval. 0 means never.",
        &REVERIFY_INTERVAL_S,
        0,
        i32::MAX,
        GucContext::Sighup,
        GucFlags::UNIT_S,
    );
    GucRegistry::define_int_guc(
        c"pg_backstop.restore_command_timeout",
        c"How long restore_command may take for one file before it is ended.",
        c"Recovery itself would wait for ever. What is ended so says nothing of the segment.",
        &RESTORE_COMMAND_TIMEOUT_S,
        1,
        86_400,
        GucContext::Sighup,
        GucFlags::UNIT_S,
    );
    GucRegistry::define_int_guc(
        c"pg_backstop.target_rpo",
        c"Recovery point objective of the cluster.",
        c"recovery_readiness is at_risk while the exposure is larger. 0 sets no objective.",
        &TARGET_RPO_S,
        0,
        i32::MAX,
        GucContext::Sighup,
        GucFlags::UNIT_S,
    );
    GucRegistry::define_int_guc(
        c"pg_backstop.target_rto",
        c"Recovery time objective of the cluster.",
        c"recovery_readiness is at_risk while a recovery is predicted to take longer. 0 sets no objective.",
        &TARGET_RTO_S,
        0,
        i32::MAX,
        GucContext::Sighup,
        GucFlags::UNIT_S,
    );
    GucRegistry::define_enum_guc(
        c"pg_backstop.counted_receivers",
        c"Which connected standbys and pg_receivewal count as protection: all, synchronous or none.",
        c"What a counted receiver has flushed survives the loss of this host. synchronous counts those that commits wait for.",
        &COUNTED_RECEIVERS,
        GucContext::Sighup,
        GucFlags::default(),
    );
    GucRegistry::define_int_guc(
        c"pg_backstop.running_backup_timeout",
        c"How long a recorded backup may run before it is marked failed.",
        c"A backup whose recorder never completes it must not look as if it were still being taken.",
        &RUNNING_BACKUP_TIMEOUT_S,
        60,
        i32::MAX,
        GucContext::Sighup,
        GucFlags::UNIT_S,
    );
    GucRegistry::define_int_guc(
        c"pg_backstop.sample_retention",
        c"How long rows of recovery_samples are kept.",
        c"",
        &SAMPLE_RETENTION_MIN,
        60,
        i32::MAX,
        GucContext::Sighup,
        GucFlags::UNIT_MIN,
    );
    // A misspelt setting is worth a warning, and no value that anybody may set.
    // SAFETY: a zero-terminated constant; all settings of the prefix are defined above.
    unsafe { pg_sys::MarkGUCPrefixReserved(c"pg_backstop".as_ptr()) };
}

/// Refuses a value that names no place, with the reason as the error's detail (`GUC_check_errdetail` in guc.h).
#[pg_guard]
unsafe extern "C-unwind" fn check_archive_source(
    value: *mut *mut c_char,
    _extra: *mut *mut c_void,
    _source: pg_sys::GucSource::Type,
) -> bool {
    // SAFETY: guc.c passes the address of the new value, a zero-terminated string or null.
    let text = unsafe {
        if (*value).is_null() {
            return true;
        }
        CStr::from_ptr(*value).to_string_lossy()
    };
    let Err(error) = archive::Setting::parse(&text) else {
        return true;
    };
    // The postmaster reads settings too, and is in no database.
    let detail = format!("{}.", archive::secrets::masked(&error.to_string()));
    if let Ok(detail) = CString::new(sayable(detail)) {
        // SAFETY: the detail is copied to where guc.c's own macro would put it.
        unsafe {
            pg_sys::GUC_check_errdetail_string = pg_sys::MemoryContextStrdup(pg_sys::ErrorContext, detail.as_ptr());
        }
    }
    false
}
