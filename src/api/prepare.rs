//! Checking a recovery before it begins.

use archive::brief;
use pgrx::pg_sys;
use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::*;
use recovery::prepare::Target;
use wal::Lsn;

use super::argument;
use super::call;
use super::storage;
use crate::catalog::{PgLsn, Scope, Text, facts};
use crate::error::{Error, Result, sayably};
use crate::preparation;
use crate::server::Server;

/// Checks whether a recovery from the backup at `backup_path` can get to the target, or without one to the end of WAL. One row
/// a check, with what was found; a check that finds a fault does not stop the others.
///
/// Volatile: it runs `restore_command` for one segment.
#[pg_extern(volatile, parallel_unsafe)]
fn prepare_recovery(
    backup_path: Option<Text>,
    target_time: default!(Option<TimestampWithTimeZone>, "NULL"),
    target_lsn: default!(Option<PgLsn>, "NULL"),
) -> Result<
    TableIterator<
        'static,
        (
            name!(check_item, Text),
            name!(check_result, Text),
            name!(check_status, Text),
        ),
    >,
    ErrorReport,
> {
    let rows = sayably(|| prepare(backup_path.as_ref(), target_time, target_lsn))?;
    Ok(TableIterator::new(rows.into_iter().map(|check| {
        (check.item.into(), check.result.into(), check.status.as_str().into())
    })))
}

fn prepare(
    path: Option<&Text>,
    time: Option<TimestampWithTimeZone>,
    lsn: Option<PgLsn>,
) -> Result<Vec<preparation::Check>> {
    let path = path.ok_or_else(|| Error::NullArgument {
        argument: "backup_path",
        hint: "Pass the path of a base backup on the database server; backup_history shows those on record.".to_owned(),
    })?;
    if !path.as_path().is_absolute() {
        return Err(Error::invalid(
            format!("backup_path is not an absolute path: \"{}\"", brief(&path.to_utf8())),
            "It is looked up on the database server, whose working directory is its data directory.",
            "Pass the path from the root on; backup_history shows those on record.",
        ));
    }
    if !storage::may_read_server_files() {
        return Err(Error::MayNotRead {
            what: format!("\"{}\"", brief(&path.to_utf8())),
            hint: "Ask a superuser for GRANT pg_read_server_files.",
        });
    }
    let target = target(time, lsn)?;
    let _scope = Scope::enter()?;
    preparation::prepare(path, target, &mut || {
        crate::memory::check_for_interrupts();
    })
}

/// The target, if it can be one: what has not happened yet cannot be recovered.
fn target(time: Option<TimestampWithTimeZone>, lsn: Option<PgLsn>) -> Result<Target> {
    match (time, lsn) {
        (None, None) => Ok(Target::Latest),
        (Some(time), Some(lsn)) => Err(Error::invalid(
            format!("target_time {time} and target_lsn {lsn} are both given"),
            "A recovery ends at one target.",
            "Pass one of them, or none for the end of WAL.",
        )),
        (Some(time), None) => {
            argument::finite("target_time", time)?;
            if pg_sys::TimestampTz::from(time) > call::now() {
                return Err(Error::invalid(
                    format!("target_time is in the future: {time}"),
                    format!("It is {} now.", call::now_with_time_zone()?),
                    "Leave target_time out for a recovery to the end of WAL.",
                ));
            }
            facts::moment(time).map(Target::Time).ok_or_else(|| {
                Error::invalid(
                    format!("target_time cannot be a moment of this cluster: {time}"),
                    "It lies too far in the past.",
                    "Pass a moment since the first backup; recovery_windows shows what can be reached.",
                )
            })
        }
        (None, Some(lsn)) => {
            let flush = Server::observe()?.flush;
            if lsn.0 > flush.0 {
                return Err(Error::invalid(
                    format!("target_lsn {lsn} has not been reached"),
                    format!("WAL of this server ends at {flush}."),
                    "Leave target_lsn out for a recovery to the end of WAL.",
                ));
            }
            Ok(Target::Lsn(Lsn(lsn.0)))
        }
    }
}
