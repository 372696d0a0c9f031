//! Recording backups that somebody else takes.

use std::time::Duration;

use pgrx::AnyNumeric;
use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::*;

use super::argument;
use super::call;
use super::own_wal;
use super::storage;
use crate::catalog::{PgLsn, Scope, Text, backup};
use crate::error::{Error, Result, sayably};
use crate::process;
use crate::server::Server;
use crate::settings;

const BACKUP_TYPES: [&str; 5] = ["full", "incremental", "differential", "logical", "globals"];
const ENDINGS: [&str; 2] = ["completed", "failed"];
const SEE_HISTORY: &str = "SELECT id, label, status FROM backup_history ORDER BY id DESC shows those that exist.";

/// Records that a backup begins now, and returns its id and where WAL is.
#[pg_extern]
fn record_backup_start(
    backup_type: default!(Option<Text>, "'full'"),
    backup_path: default!(Option<Text>, "NULL"),
    policy_name: default!(Option<Text>, "NULL"),
    label: default!(Option<Text>, "NULL"),
) -> Result<TableIterator<'static, (name!(backup_id, i64), name!(start_lsn, PgLsn))>, ErrorReport> {
    let started = sayably(|| {
        start(
            backup_type.as_ref(),
            backup_path.as_ref(),
            policy_name.as_ref(),
            label.as_ref(),
        )
    })?;
    Ok(TableIterator::once(started))
}

fn start(
    backup_type: Option<&Text>,
    path: Option<&Text>,
    policy_name: Option<&Text>,
    label: Option<&Text>,
) -> Result<(i64, PgLsn)> {
    call::require_primary("record_backup_start")?;
    argument::no_longer_than(argument::LONGEST_LABEL, "label", label)?;
    argument::no_longer_than(argument::LONGEST_PATH, "backup_path", path)?;
    let backup_type = argument::one_of("backup_type", backup_type, &BACKUP_TYPES)?;
    let _scope = Scope::enter()?;
    let policy = match policy_name {
        None => None,
        Some(name) => match backup::policy(name)? {
            None => {
                return Err(Error::UnknownPolicy {
                    name: name.to_utf8().into_owned(),
                    known: backup::policy_names()?
                        .iter()
                        .map(|name| name.to_utf8().into_owned())
                        .collect(),
                });
            }
            found => found,
        },
    };
    // PostgreSQL writes a page only when its WAL is flushed, so a copy of the data directory that ended before now has no page
    // newer than the flush position; and a backup that begins from now on starts at a checkpoint not older than it.
    let now = Server::observe()?;
    let timeout = settings::running_backup_timeout();
    let abandoned_before = abandoned_before(timeout)?;
    let (id, others_are_abandoned) = backup::start(&backup::Started {
        policy,
        backup_type,
        label,
        path,
        system_identifier: now.system_identifier(),
        timeline: now.timeline_id()?,
        start_lsn: PgLsn(now.flush.0),
        start_wal_file: &now.segment_of_next_byte().to_string(),
        abandoned_before,
    })?;
    if others_are_abandoned {
        backup::fail_abandoned(abandoned_before, seconds(timeout))?;
    }
    Ok((id, PgLsn(now.flush.0)))
}

/// Records how a backup ended. What is not given is measured: the size from the backup's path, the duration by the clock.
#[pg_extern]
fn record_backup_complete(
    backup_id: Option<i64>,
    backup_size_bytes: default!(Option<i64>, "NULL"),
    duration_seconds: default!(Option<AnyNumeric>, "NULL"),
    status: default!(Option<Text>, "'completed'"),
    error: default!(Option<Text>, "NULL"),
) -> Result<TableIterator<'static, (name!(backup_id, i64), name!(status, Text))>, ErrorReport> {
    let (id, status) = sayably(|| {
        complete(
            backup_id,
            backup_size_bytes,
            duration_seconds,
            status.as_ref(),
            error.as_ref(),
        )
    })?;
    Ok(TableIterator::once((id, status.into())))
}

fn complete(
    id: Option<i64>,
    size_bytes: Option<i64>,
    duration_seconds: Option<AnyNumeric>,
    status: Option<&Text>,
    error: Option<&Text>,
) -> Result<(i64, &'static str)> {
    call::require_primary("record_backup_complete")?;
    let id = id.ok_or_else(|| Error::NullArgument {
        argument: "backup_id",
        hint: "Pass the backup_id that record_backup_start() returned.".to_owned(),
    })?;
    let status = argument::one_of("status", status, &ENDINGS)?;
    argument::size("backup_size_bytes", size_bytes)?;
    argument::not_negative("duration_seconds", duration_seconds.as_ref())?;
    argument::error_goes_with_failure(status, error)?;
    argument::no_longer_than(argument::LONGEST_REASON, "error", error)?;
    let _scope = Scope::enter()?;
    let completed = status == "completed";
    let (mut size_bytes, mut file_count, mut own) = (size_bytes, None, None);
    if completed {
        let known = backup::known(id)?.ok_or_else(|| not_found(id))?;
        require_running(id, status, &known)?;
        if let Some(path) = known.path.as_ref() {
            if size_bytes.is_none() {
                (size_bytes, file_count) = measure(path);
            }
            if known.is_physical && storage::may_read_server_files() {
                own = own_wal::find(id, path, known.start_lsn)?;
            }
        }
    }
    let now = completed.then(Server::observe).transpose()?;
    let end_wal_file = now.as_ref().map(|now| now.segment_of_last_byte().to_string());
    let ended = backup::end(&backup::Ended {
        id,
        status,
        error,
        size_bytes,
        file_count,
        duration_seconds,
        end_lsn: now.as_ref().map(|now| PgLsn(now.flush.0)),
        end_wal_file: end_wal_file.as_deref(),
        at: call::now_with_time_zone()?,
        own,
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
    Ok((id, status))
}

fn not_found(id: i64) -> Error {
    Error::NotFound {
        kind: "backup",
        key: id,
        hint: SEE_HISTORY,
    }
}

/// Bytes and files at the backup's path; nothing, and a notice, where it cannot be looked at.
fn measure(path: &Text) -> (Option<i64>, Option<i64>) {
    const CONSEQUENCE: &str = "the size of the backup is not known";
    if !storage::readable(path, CONSEQUENCE) {
        return (None, None);
    }
    let measured = process::look_at(&format!("\"{}\"", path.to_utf8()), |working| {
        artifact::measure(path.as_path(), working).map_err(|error| error.to_string())
    });
    match measured.flatten() {
        Ok(measured) => (i64::try_from(measured.bytes).ok(), i64::try_from(measured.files).ok()),
        Err(why) => {
            storage::not_read(CONSEQUENCE, &why);
            (None, None)
        }
    }
}

fn require_running(id: i64, wanted: &str, known: &backup::Known) -> Result<()> {
    if known.status != "running" {
        return Err(Error::WrongState {
            message: format!("backup {id} is not running"),
            detail: argument::ended(&known.status, known.finished_at, known.error.as_ref()),
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
    backup::fail_abandoned(bound, seconds(timeout))
}

/// A running backup that began before this is abandoned.
fn abandoned_before(timeout: Duration) -> Result<TimestampWithTimeZone> {
    let timed_out = call::now().saturating_sub(seconds(timeout).saturating_mul(1_000_000));
    call::with_time_zone(call::started_at().max(timed_out))
}

fn seconds(timeout: Duration) -> i64 {
    i64::try_from(timeout.as_secs()).unwrap_or(i64::MAX)
}
