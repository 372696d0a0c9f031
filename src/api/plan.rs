//! The plan of a recovery from SQL.

use pgrx::pg_sys;
use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::*;
use recovery::plan::{Action, Step, Target, Wanted};
use wal::{Lsn, Timeline};

use super::argument;
use crate::catalog::{PgLsn, Text, facts};
use crate::error::{Error, Result, sayably};
use crate::planning::{self, Request};

const ACTIONS: [&str; 2] = ["promote", "pause"];
/// FirstNormalTransactionId (transam.h).
const FIRST_NORMAL_XID: i64 = 3;

/// The steps of a recovery to a moment, with commands for a shell; to the end of the archived WAL without a target.
///
/// Restores into `data_directory`, or into the running server's own place. Refuses what the server could not reach, with the nearest
/// moments that it can.
#[pg_extern(stable, parallel_restricted)]
#[allow(clippy::too_many_arguments)]
fn recovery_plan(
    target_time: default!(Option<TimestampWithTimeZone>, "NULL"),
    target_lsn: default!(Option<PgLsn>, "NULL"),
    target_name: default!(Option<Text>, "NULL"),
    target_xid: default!(Option<i64>, "NULL"),
    data_directory: default!(Option<Text>, "NULL"),
    target_timeline: default!(Option<i32>, "NULL"),
    target_inclusive: default!(Option<bool>, "true"),
    target_action: default!(Option<Text>, "'promote'"),
) -> Result<TableIterator<'static, (name!(step, i32), name!(action, Text), name!(command, Option<Text>))>, ErrorReport>
{
    argument::no_longer_than(argument::LONGEST_LABEL, "target_name", target_name.as_ref())?;
    argument::no_longer_than(argument::LONGEST_PATH, "data_directory", data_directory.as_ref())?;
    let target = target(target_time, target_lsn, target_name.as_ref(), target_xid)?;
    argument::positive("target_timeline", target_timeline.map(i64::from))?;
    let action = match argument::one_of("target_action", target_action.as_ref(), &ACTIONS)? {
        "pause" => Action::Pause,
        _ => Action::Promote,
    };
    let inclusive = target_inclusive.unwrap_or(true);
    let needs_target = |argument: &str| {
        Error::invalid(
            format!("{argument} needs a target"),
            "Without one, recovery goes on to the end of the WAL, and the server then takes writes.",
            format!("Leave {argument} out, or pass a target."),
        )
    };
    if target == Target::Latest && action == Action::Pause {
        return Err(needs_target("target_action").into());
    }
    if target == Target::Latest && !inclusive {
        return Err(needs_target("target_inclusive").into());
    }
    let request = Request {
        wanted: Wanted {
            target,
            inclusive,
            timeline: target_timeline.map(|timeline| Timeline(timeline.unsigned_abs())),
        },
        name: target_name.as_ref(),
        data_directory: data_directory.as_ref(),
        action,
    };
    let steps = sayably(|| planning::make(&request))?;
    require_sayable(&steps)?;
    Ok(TableIterator::new((1..).zip(steps).map(|(number, step)| {
        (number, step.action.into(), step.command.map(Text::from))
    })))
}

/// Refuses a plan with a name that comes out as another one in the database's encoding, or that was none in UTF-8.
fn require_sayable(steps: &[Step]) -> Result<()> {
    let changes =
        |command: &str| command.contains(char::REPLACEMENT_CHARACTER) || *Text::from(command).to_utf8() != *command;
    match steps.iter().find(|step| step.command.as_deref().is_some_and(changes)) {
        None => Ok(()),
        Some(step) => Err(Error::WrongState {
            message: "the plan cannot be written in the encoding of this database".to_owned(),
            detail: format!(
                "A command has a name of other characters than can be shown, at the step \"{}\".",
                step.action
            ),
            hint: "Call recovery_plan() in a database whose encoding is UTF8, or use names in ASCII.".to_owned(),
        }),
    }
}

fn target(
    time: Option<TimestampWithTimeZone>,
    lsn: Option<PgLsn>,
    name: Option<&Text>,
    xid: Option<i64>,
) -> Result<Target> {
    let given: Vec<&str> = [
        (time.is_some(), "target_time"),
        (lsn.is_some(), "target_lsn"),
        (name.is_some(), "target_name"),
        (xid.is_some(), "target_xid"),
    ]
    .into_iter()
    .filter_map(|(is_given, name)| is_given.then_some(name))
    .collect();
    if given.len() > 1 {
        return Err(Error::invalid(
            format!("more than one recovery target: {}", given.join(", ")),
            "PostgreSQL recovers to one target.",
            "Pass one of them, or none for the end of the archived WAL.",
        ));
    }
    if let Some(time) = time {
        argument::finite("target_time", time)?;
        let moment = facts::moment(time).ok_or_else(|| {
            Error::invalid(
                format!("target_time is out of range: {time}"),
                "No recovery reaches that far.",
                "recovery_windows shows what can be reached.",
            )
        })?;
        return Ok(Target::Time(moment));
    }
    if let Some(lsn) = lsn {
        return Ok(Target::Lsn(Lsn(lsn.0)));
    }
    if let Some(name) = name {
        return Ok(Target::Name(name.to_utf8().into_owned()));
    }
    match xid {
        Some(xid) => transaction_number(xid).map(Target::Xid),
        None => Ok(Target::Latest),
    }
}

/// The 32 bits that WAL has of a transaction's number, with or without its epoch.
fn transaction_number(xid: i64) -> Result<u32> {
    // SAFETY: reads shared memory, in recovery too.
    let next = unsafe { pg_sys::ReadNextFullTransactionId() }.value;
    let given = u64::try_from(xid).unwrap_or_default();
    let low = (given & u64::from(u32::MAX)) as u32;
    let reserved = i64::from(low) < FIRST_NORMAL_XID;
    if xid < FIRST_NORMAL_XID || reserved {
        return Err(Error::invalid(
            format!("target_xid is no transaction: {xid}"),
            "Transactions are numbered from 3, in each epoch.",
            "Pass what pg_current_xact_id() or txid_current() returned in it.",
        ));
    }
    // Without an epoch it may be of the one before; with one, it has to have begun.
    let has_epoch = given > u64::from(u32::MAX);
    let in_first_epoch = next <= u64::from(u32::MAX);
    if given >= next && (has_epoch || in_first_epoch) {
        return Err(Error::invalid(
            format!("target_xid is a transaction that has not begun: {xid}"),
            format!("The next one is {next} (epoch {}).", next >> 32),
            "Pass what pg_current_xact_id() or txid_current() returned in it, or its last 32 bits.",
        ));
    }
    Ok(low)
}
