//! Policies: their schedules are checked when they are written, and asked for when something is due.

use archive::brief;
use chrono::{DateTime, Utc};
use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::*;
use recovery::schedule;

use super::trigger::{TriggerRow, column, or_report};
use crate::catalog::Text;
use crate::error::{Error, Result};

/// Between the epochs of Unix and of PostgreSQL (POSTGRES_EPOCH_JDATE in datatype/timestamp.h), in µs.
const EPOCHS_APART: i64 = 946_684_800_000_000;

/// `BEFORE INSERT OR UPDATE … FOR EACH ROW`: refuses a policy with a schedule that does not parse.
#[pg_trigger]
fn check_schedules<'a>(trigger: &'a PgTrigger<'a>) -> Result<TriggerRow<'a>, ErrorReport> {
    or_report(check(trigger))
}

fn check<'a>(trigger: &'a PgTrigger<'a>) -> Result<TriggerRow<'a>> {
    const NOT_THE_TRIGGER: Error = Error::NotTheTrigger {
        function: "check_schedules",
    };
    let row = trigger.new().ok_or(NOT_THE_TRIGGER)?;
    let data = trigger.trigger_data();
    let inserts = pgrx::trigger_fired_by_insert(data.tg_event);
    let tuple = if inserts { data.tg_trigtuple } else { data.tg_newtuple };
    for name in [c"schedule_cron", c"drill_cron"] {
        // SAFETY: a row trigger's relation is open, and its tuples are of that relation's shape.
        let found = unsafe { column::<Text>(tuple, (*data.tg_relation).rd_att, name) };
        let (_, value) = found.ok_or(NOT_THE_TRIGGER)?;
        let Some(expression) = value else { continue };
        let column = name.to_string_lossy();
        refuse_long(&column, &expression)?;
        let expression = expression.to_utf8();
        schedule::check(&expression).map_err(|fault| {
            let field = fault.field.map_or_else(String::new, |field| format!(" ({field})"));
            Error::invalid(
                format!("invalid cron expression in {column}: \"{}\"", brief(&expression)),
                format!("At position {}{field}: {}.", fault.position, fault.message),
                "Write five fields (minute, hour, day of month, month, day of week), as in \"30 2 * * 1-5\", or @daily and \
                 the like. Times are in UTC.",
            )
        })?;
    }
    Ok(Some(row))
}

/// Refuses what is no expression for its length alone, whatever it holds.
fn refuse_long(what: &str, expression: &Text) -> Result<()> {
    let bytes = expression.bytes();
    if bytes <= schedule::MOST_BYTES {
        return Ok(());
    }
    Err(Error::invalid(
        format!("cron expression in {what} is too long"),
        format!("It has {bytes} bytes, and may have {}.", schedule::MOST_BYTES),
        "Write five fields (minute, hour, day of month, month, day of week), as in \"30 2 * * 1-5\", or @daily and the like.",
    ))
}

/// The first moment after `after` at which the schedule is due, in UTC whatever the session's TimeZone. NULL where the
/// expression does not parse, which check_schedules() keeps out of policies; an error where it is longer than any that does.
#[pg_extern(immutable, parallel_safe)]
fn cron_next(expression: Text, after: TimestampWithTimeZone) -> Result<Option<TimestampWithTimeZone>, ErrorReport> {
    refuse_long("expression", &expression)?;
    Ok(next(&expression, after))
}

fn next(expression: &Text, after: TimestampWithTimeZone) -> Option<TimestampWithTimeZone> {
    if after.is_infinity() || after.is_neg_infinity() {
        return None;
    }
    let after = pg_sys::TimestampTz::from(after).checked_add(EPOCHS_APART)?;
    let after: DateTime<Utc> = DateTime::from_timestamp_micros(after)?;
    let due = schedule::next_due(&expression.to_utf8(), &after).ok()?;
    TimestampWithTimeZone::try_from(due.timestamp_micros().checked_sub(EPOCHS_APART)?).ok()
}
