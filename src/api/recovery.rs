//! Recording recoveries and rehearsals of them.

use pgrx::AnyNumeric;
use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::*;

use super::argument;
use super::call;
use crate::catalog::{PgLsn, Scope, Text, archive, backup, recovery};
use crate::error::{Error, Result, sayably};
use crate::life;
use crate::locks;
use crate::prediction;
use crate::server::Server;

const RECOVERY_TYPES: [&str; 8] = [
    "point_in_time",
    "lsn",
    "xid",
    "name",
    "immediate",
    "latest",
    "crash",
    "failover",
];
const ENDINGS: [&str; 2] = ["completed", "failed"];
const SEE_HISTORY: &str =
    "SELECT id, recovery_type, status FROM recovery_history ORDER BY id DESC shows those that exist.";
const SEE_BACKUPS: &str = "SELECT id, label, status FROM backup_history ORDER BY id DESC shows those that exist.";

/// Records that a recovery begins, and returns its id and when it began. The target must be of the kind that the type names.
///
/// Where the worker has found that recovery already, its row becomes this one. It is the one that the server's present life began
/// with, if it is of this type and no rehearsal, and `started_at` lies between the beginning of the life before and when the server
/// accepted writes.
#[pg_extern]
#[allow(clippy::too_many_arguments)]
fn record_recovery_start(
    recovery_type: Option<Text>,
    target_time: default!(Option<TimestampWithTimeZone>, "NULL"),
    target_lsn: default!(Option<PgLsn>, "NULL"),
    target_name: default!(Option<Text>, "NULL"),
    target_xid: default!(Option<i64>, "NULL"),
    target_timeline: default!(Option<i32>, "NULL"),
    backup_id: default!(Option<i64>, "NULL"),
    is_drill: default!(Option<bool>, "false"),
    started_at: default!(Option<TimestampWithTimeZone>, "NULL"),
) -> Result<TableIterator<'static, (name!(recovery_id, i64), name!(start_time, TimestampWithTimeZone))>, ErrorReport> {
    let recovery_type = argument::one_of("recovery_type", recovery_type.as_ref(), &RECOVERY_TYPES)?;
    let recovery = recovery::Started {
        recovery_type,
        is_drill: is_drill.unwrap_or(false),
        backup: backup_id,
        target_time,
        target_lsn,
        target_name: target_name.as_ref(),
        target_xid,
        target_timeline,
        started_at,
        predicted_seconds: None,
    };
    Ok(TableIterator::once(sayably(|| start(recovery))?))
}

fn start(mut recovery: recovery::Started<'_>) -> Result<(i64, TimestampWithTimeZone)> {
    call::require_primary("record_recovery_start")?;
    argument::no_longer_than(argument::LONGEST_LABEL, "target_name", recovery.target_name)?;
    require_fitting_target(&recovery)?;
    if let Some(time) = recovery.started_at {
        argument::finite("started_at", time)?;
        argument::not_in_the_future("started_at", time)?;
    }
    if let Some(id) = recovery.backup
        && backup::known(id)?.is_none()
    {
        return Err(Error::NotFound {
            kind: "backup",
            key: id,
            hint: SEE_BACKUPS,
        });
    }
    let _scope = Scope::enter()?;
    let server = Server::observe()?;
    // On the worst day a recovery is recorded all the same where nothing can be predicted.
    let predicted = |recovery: &recovery::Started<'_>| prediction::predict(&server, recovery).unwrap_or(None);
    locks::record_recovery();
    // Another session may be faster.
    if let Some(id) = detected(&server, &recovery)?
        && let Some(begun) = recovery::take_over(id, &recovery)?
    {
        // Only now: what this recovery itself took must not be among the measurements.
        if let Some(seconds) = predicted(&recovery) {
            recovery::expect(id, seconds)?;
        }
        return Ok(begun);
    }
    recovery.predicted_seconds = predicted(&recovery);
    recovery::start(&recovery)
}

/// The recovery that this one is, where the worker was faster than the caller. A rehearsal goes on elsewhere, and what begins now
/// was not found before.
fn detected(server: &Server, recovery: &recovery::Started<'_>) -> Result<Option<i64>> {
    let life = life::read().and_then(|life| archive::time(life.began_at));
    match (life, recovery.started_at) {
        (Some(life), Some(started_at)) if !recovery.is_drill => {
            recovery::detected(server.system_identifier(), life, recovery.recovery_type, started_at)
        }
        _ => Ok(None),
    }
}

/// A recovery ends at one target at most, and its type says of which kind (recovery_target_* in postgresql.conf).
fn require_fitting_target(recovery: &recovery::Started<'_>) -> Result<()> {
    let given: Vec<&str> = [
        (recovery.target_time.is_some(), "target_time"),
        (recovery.target_lsn.is_some(), "target_lsn"),
        (recovery.target_name.is_some(), "target_name"),
        (recovery.target_xid.is_some(), "target_xid"),
    ]
    .into_iter()
    .filter_map(|(is_given, name)| is_given.then_some(name))
    .collect();
    let wanted = match recovery.recovery_type {
        "point_in_time" => Some("target_time"),
        "lsn" => Some("target_lsn"),
        "name" => Some("target_name"),
        "xid" => Some("target_xid"),
        _ => None,
    };
    let (given, kind) = (given.as_slice(), recovery.recovery_type);
    if given.len() > 1 {
        return Err(Error::invalid(
            format!("more than one recovery target: {}", given.join(", ")),
            "PostgreSQL recovers to one target.",
            wanted.map_or_else(
                || format!("A recovery of type {kind} has no target: leave them out."),
                |wanted| format!("A recovery of type {kind} has a {wanted}: leave the others out."),
            ),
        ));
    }
    match (wanted, given.first()) {
        (Some(wanted), Some(&given)) if wanted != given => Err(Error::invalid(
            format!("recovery type {kind} does not go with {given}"),
            format!("A recovery of type {kind} ends at its {wanted}."),
            format!("Pass {wanted}, or the type that goes with {given}."),
        )),
        (Some(wanted), None) => Err(Error::invalid(
            format!("recovery type {kind} needs a {wanted}"),
            format!("A recovery of type {kind} ends at its {wanted}."),
            format!("Pass {wanted} => ..., or 'latest' for a recovery to the end of the WAL."),
        )),
        (None, Some(given)) => Err(Error::invalid(
            format!("recovery type {kind} does not go with {given}"),
            format!("A recovery of type {kind} has no target."),
            format!("Leave {given} out, or pass the type that goes with it."),
        )),
        _ => Ok(()),
    }?;
    if let Some(time) = recovery.target_time {
        argument::finite("target_time", time)?;
        argument::has_come("target_time", time)?;
    }
    argument::positive("target_xid", recovery.target_xid)?;
    argument::positive("target_timeline", recovery.target_timeline.map(i64::from))
}

/// Records how a recovery ended, and returns what it took (RTO) and what was lost (RPO), in seconds.
///
/// The RPO of a completed recovery is from `recovered_to_time` to the target's time or else to `failure_time`, and NULL where
/// one of them is unknown. When this server is the one that was recovered, it knows `recovered_to_time` itself. The RTO is NULL
/// where the clock or the parts given contradict it. The column `checks` says why either is NULL.
#[pg_extern]
#[allow(clippy::too_many_arguments, clippy::type_complexity)]
fn record_recovery_complete(
    recovery_id: Option<i64>,
    status: default!(Option<Text>, "'completed'"),
    recovered_to_time: default!(Option<TimestampWithTimeZone>, "NULL"),
    recovered_to_lsn: default!(Option<PgLsn>, "NULL"),
    failure_time: default!(Option<TimestampWithTimeZone>, "NULL"),
    restore_seconds: default!(Option<AnyNumeric>, "NULL"),
    replay_seconds: default!(Option<AnyNumeric>, "NULL"),
    error: default!(Option<Text>, "NULL"),
    wal_replayed_bytes: default!(Option<i64>, "NULL"),
    startup_seconds: default!(Option<AnyNumeric>, "NULL"),
) -> Result<
    TableIterator<
        'static,
        (
            name!(recovery_id, i64),
            name!(rto_seconds, Option<AnyNumeric>),
            name!(rpo_seconds, Option<AnyNumeric>),
        ),
    >,
    ErrorReport,
> {
    let id = recovery_id.ok_or_else(|| Error::NullArgument {
        argument: "recovery_id",
        hint: "Pass the recovery_id that record_recovery_start() returned.".to_owned(),
    })?;
    let status = argument::one_of("status", status.as_ref(), &ENDINGS)?;
    argument::no_longer_than(argument::LONGEST_REASON, "error", error.as_ref())?;
    let recovery = recovery::Ended {
        id,
        status,
        error: error.as_ref(),
        recovered_to_time,
        ask_this_server: false,
        recovered_to_lsn,
        failure_time,
        restore_seconds,
        replay_seconds,
        wal_replayed_bytes,
        startup_seconds,
    };
    let (rto, rpo) = sayably(|| complete(recovery))?;
    Ok(TableIterator::once((id, rto, rpo)))
}

fn complete(mut recovery: recovery::Ended<'_>) -> Result<(Option<AnyNumeric>, Option<AnyNumeric>)> {
    call::require_primary("record_recovery_complete")?;
    argument::not_negative("restore_seconds", recovery.restore_seconds.as_ref())?;
    argument::not_negative("replay_seconds", recovery.replay_seconds.as_ref())?;
    argument::not_negative("startup_seconds", recovery.startup_seconds.as_ref())?;
    argument::size("wal_replayed_bytes", recovery.wal_replayed_bytes)?;
    argument::error_goes_with_failure(recovery.status, recovery.error)?;
    for (name, time) in [
        ("recovered_to_time", recovery.recovered_to_time),
        ("failure_time", recovery.failure_time),
    ] {
        if let Some(time) = time {
            argument::finite(name, time)?;
            argument::has_come(name, time)?;
        }
    }
    let _scope = Scope::enter()?;
    let known = recovery::known(recovery.id)?.ok_or_else(|| not_found(recovery.id))?;
    require_running(recovery.id, &known)?;
    // A rehearsal goes on elsewhere: what this server last replayed has nothing to do with it.
    recovery.ask_this_server = !known.is_drill && recovery.status == "completed";
    locks::record_recovery();
    if let Some(objectives) = recovery::end(&recovery)? {
        return Ok(objectives);
    }
    // Another session was faster, after the look above.
    let known = recovery::known_now(recovery.id)?.ok_or_else(|| not_found(recovery.id))?;
    require_running(recovery.id, &known)?;
    Err(Error::StaleSnapshot {
        kind: "recovery",
        key: recovery.id,
    })
}

fn not_found(id: i64) -> Error {
    Error::NotFound {
        kind: "recovery",
        key: id,
        hint: SEE_HISTORY,
    }
}

fn require_running(id: i64, known: &recovery::Known) -> Result<()> {
    if known.status == "running" {
        return Ok(());
    }
    Err(Error::WrongState {
        message: format!("recovery {id} is not running"),
        detail: argument::ended(&known.status, known.end_time, known.error.as_ref()),
        hint: "A recovery ends once. Record another one with record_recovery_start().".to_owned(),
    })
}
