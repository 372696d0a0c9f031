//! Recording backups that somebody else takes.

use std::path::Path;
use std::time::Duration;

use pgrx::AnyNumeric;
use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::*;

use super::argument;
use super::server::{self, WalPosition};
use super::storage;
use crate::catalog::{PgLsn, Scope, backup, ledger};
use crate::error::{Error, Result};
use crate::settings;

const BACKUP_TYPES: [&str; 5] = ["full", "incremental", "differential", "logical", "globals"];
const ENDINGS: [&str; 2] = ["completed", "failed"];
const SEE_HISTORY: &str = "SELECT id, label, status FROM backup_history ORDER BY id DESC shows those that exist.";

/// Records that a backup begins now, and returns its id and where WAL is.
#[pg_extern]
fn record_backup_start(
    backup_type: default!(Option<&str>, "'full'"),
    backup_path: default!(Option<&str>, "NULL"),
    policy_name: default!(Option<&str>, "NULL"),
    label: default!(Option<&str>, "NULL"),
) -> Result<TableIterator<'static, (name!(backup_id, i64), name!(start_lsn, PgLsn))>, ErrorReport> {
    let started = start(backup_type, backup_path, policy_name, label)?;
    Ok(TableIterator::once(started))
}

fn start(
    backup_type: Option<&str>,
    path: Option<&str>,
    policy_name: Option<&str>,
    label: Option<&str>,
) -> Result<(i64, PgLsn)> {
    server::require_primary("record_backup_start")?;
    let backup_type = argument::one_of("backup_type", backup_type, &BACKUP_TYPES)?;
    let _scope = Scope::enter()?;
    ledger::lock_chain()?;
    let policy = match policy_name {
        None => None,
        Some(name) => match backup::policy(name)? {
            None => {
                return Err(Error::UnknownPolicy {
                    name: name.to_owned(),
                    known: backup::policy_names()?,
                });
            }
            found => found,
        },
    };
    let position = WalPosition::now();
    let timeout = settings::running_backup_timeout();
    let abandoned_before = abandoned_before(timeout)?;
    let (id, others_are_abandoned) = backup::start(&backup::Started {
        policy,
        backup_type,
        label,
        path,
        system_identifier: server::system_identifier(),
        timeline: position.timeline()?,
        start_lsn: position.lsn,
        start_wal_file: &position.file_of_next_byte()?,
        abandoned_before,
    })?;
    if others_are_abandoned {
        backup::fail_abandoned(abandoned_before, seconds(timeout))?;
    }
    Ok((id, position.lsn))
}

/// Records how a backup ended. What is not given is measured: the size from the backup's path, the duration by the clock.
#[pg_extern]
fn record_backup_complete(
    backup_id: Option<i64>,
    backup_size_bytes: default!(Option<i64>, "NULL"),
    duration_seconds: default!(Option<AnyNumeric>, "NULL"),
    status: default!(Option<&str>, "'completed'"),
    error: default!(Option<&str>, "NULL"),
) -> Result<TableIterator<'static, (name!(backup_id, i64), name!(status, String))>, ErrorReport> {
    let ended = complete(backup_id, backup_size_bytes, duration_seconds, status, error)?;
    Ok(TableIterator::once(ended))
}

fn complete(
    id: Option<i64>,
    size_bytes: Option<i64>,
    duration_seconds: Option<AnyNumeric>,
    status: Option<&str>,
    error: Option<&str>,
) -> Result<(i64, String)> {
    server::require_primary("record_backup_complete")?;
    let id = id.ok_or_else(|| Error::NullArgument {
        argument: "backup_id",
        hint: "Pass the backup_id that record_backup_start() returned.".to_owned(),
    })?;
    let status = argument::one_of("status", status, &ENDINGS)?;
    argument::size("backup_size_bytes", size_bytes)?;
    argument::not_negative("duration_seconds", duration_seconds.as_ref())?;
    argument::error_goes_with_failure(status, error)?;
    let _scope = Scope::enter()?;
    let completed = status == "completed";
    let (size_bytes, file_count) = if completed && size_bytes.is_none() {
        let known = backup::known(id)?.ok_or_else(|| not_found(id))?;
        require_running(id, status, &known)?;
        known.path.as_deref().map_or((None, None), measure)
    } else {
        (size_bytes, None)
    };
    ledger::lock_chain()?;
    let position = completed.then(WalPosition::now);
    let end_wal_file = position.as_ref().map(WalPosition::file_of_last_byte).transpose()?;
    let ended = backup::end(&backup::Ended {
        id,
        status,
        error,
        size_bytes,
        file_count,
        duration_seconds,
        end_lsn: position.as_ref().map(|position| position.lsn),
        end_wal_file: end_wal_file.as_deref(),
        at: server::now_with_time_zone()?,
    })?;
    if !ended {
        // It never was, or another session was faster.
        let known = backup::known_now(id)?.ok_or_else(|| not_found(id))?;
        require_running(id, status, &known)?;
        return Err(Error::StaleSnapshot {
            kind: "backup",
            key: id,
        });
    }
    Ok((id, status.to_owned()))
}

fn not_found(id: i64) -> Error {
    Error::NotFound {
        kind: "backup",
        key: id,
        hint: SEE_HISTORY,
    }
}

/// Bytes and files at the backup's path; nothing, and a notice, where it cannot be looked at.
fn measure(path: &str) -> (Option<i64>, Option<i64>) {
    const CONSEQUENCE: &str = "the size of the backup is not known";
    if !storage::readable(path, CONSEQUENCE) {
        return (None, None);
    }
    match artifact::measure(Path::new(path)) {
        Ok(measured) => (i64::try_from(measured.bytes).ok(), i64::try_from(measured.files).ok()),
        Err(error) => {
            storage::not_read(CONSEQUENCE, &error.to_string());
            (None, None)
        }
    }
}

fn require_running(id: i64, wanted: &str, known: &backup::Known) -> Result<()> {
    if known.status != "running" {
        return Err(Error::WrongState {
            message: format!("backup {id} is not running"),
            detail: argument::ended(&known.status, known.finished_at, known.error.as_deref()),
            hint: "A backup ends once. Record another one with record_backup_start().".to_owned(),
        });
    }
    if known.server_restarted && wanted == "completed" {
        return Err(Error::WrongState {
            message: format!("backup {id} cannot have been completed"),
            detail: format!("It began at {}, before the server was last started.", known.started_at),
            hint: format!(
                "Take another backup. This one can be recorded as failed: record_backup_complete({id}, status => 'failed')."
            ),
        });
    }
    Ok(())
}

/// Marks running backups failed whose recorder is gone for good: those that began before the server was last started, since
/// a base backup or a dump does not outlive its server, and those older than `timeout`. Returns how many they were.
///
/// Writes nothing where there are none. Needs a transaction on a primary.
pub fn fail_abandoned_backups(timeout: Duration) -> Result<u64> {
    let _scope = Scope::enter()?;
    let bound = abandoned_before(timeout)?;
    if !backup::any_running_since_before(bound)? {
        return Ok(0);
    }
    ledger::lock_chain()?;
    backup::fail_abandoned(bound, seconds(timeout))
}

/// A running backup that began before this is abandoned.
fn abandoned_before(timeout: Duration) -> Result<TimestampWithTimeZone> {
    let timed_out = server::now().saturating_sub(seconds(timeout).saturating_mul(1_000_000));
    server::with_time_zone(server::started_at().max(timed_out))
}

fn seconds(timeout: Duration) -> i64 {
    i64::try_from(timeout.as_secs()).unwrap_or(i64::MAX)
}
