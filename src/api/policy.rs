//! Policies: their schedules are checked when they are written, and asked for when something is due.

use chrono::{DateTime, Utc};
use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::*;
use recovery::schedule;

use super::ledger::{TriggerRow, or_report};
use crate::error::{Error, Result};

/// Between the epochs of Unix and of PostgreSQL (POSTGRES_EPOCH_JDATE in datatype/timestamp.h), in µs.
const EPOCHS_APART: i64 = 946_684_800_000_000;

/// `BEFORE INSERT OR UPDATE … FOR EACH ROW`: refuses a policy with a schedule that does not parse.
#[pg_trigger]
fn check_schedules<'a>(trigger: &'a PgTrigger<'a>) -> Result<TriggerRow<'a>, ErrorReport> {
    or_report(check(trigger))
}

fn check<'a>(trigger: &'a PgTrigger<'a>) -> Result<TriggerRow<'a>> {
    let row = trigger.new().ok_or(Error::NotTheTrigger {
        function: "check_schedules",
    })?;
    for column in ["schedule_cron", "drill_cron"] {
        let Some(expression) = row.get_by_name::<String>(column)? else {
            continue;
        };
        schedule::check(&expression).map_err(|fault| {
            let field = fault.field.map_or_else(String::new, |field| format!(" ({field})"));
            Error::invalid(
                format!("invalid cron expression in {column}: \"{expression}\""),
                format!("At position {}{field}: {}.", fault.position, fault.message),
                "Write five fields (minute, hour, day of month, month, day of week), as in \"30 2 * * 1-5\", or @daily and \
                 the like. Times are in UTC.",
            )
        })?;
    }
    Ok(Some(row))
}

/// The first moment after `after` at which the schedule is due, in UTC whatever the session's TimeZone. NULL where the
/// expression does not parse, which check_schedules() keeps out of policies.
#[pg_extern(immutable, parallel_safe)]
fn cron_next(expression: &str, after: TimestampWithTimeZone) -> Option<TimestampWithTimeZone> {
    if after.is_infinity() || after.is_neg_infinity() {
        return None;
    }
    let after = pg_sys::TimestampTz::from(after).checked_add(EPOCHS_APART)?;
    let after: DateTime<Utc> = DateTime::from_timestamp_micros(after)?;
    let due = schedule::next_due(expression, &after).ok()?;
    TimestampWithTimeZone::try_from(due.timestamp_micros().checked_sub(EPOCHS_APART)?).ok()
}
