//! The ledger: every change of a policy, a backup or a recovery, and every acknowledgement, becomes an event in a chain of
//! hashes, and who doubts it can have the chain recomputed.

use std::ffi::CStr;

use pgrx::heap_tuple::PgHeapTuple;
use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::*;
use pgrx::{AnyElement, PgTupleDesc, pg_sys};

use super::trigger::{TriggerRow, column, or_report};
use crate::catalog::ledger_check::{self, Difference};
use crate::catalog::{Image, Text, ledger};
use crate::error::{Error, Result, sayably};

/// The image of a row as the ledger keeps it: a JSON object without NULLs, times in UTC, the same in every session.
#[pg_extern(sql = "
CREATE FUNCTION ledger_image(ledgered record) RETURNS jsonb
STRICT STABLE PARALLEL SAFE LANGUAGE c AS '@MODULE_PATHNAME@', '@FUNCTION_NAME@';
")]
fn ledger_image(ledgered: AnyElement) -> Image {
    // SAFETY: the SQL declaration admits rows only.
    unsafe { Image::of_composite(ledgered.datum()) }
}

/// `BEFORE INSERT OR UPDATE OR DELETE … FOR EACH STATEMENT`: takes the chain's lock before any row is locked.
#[pg_trigger]
fn ledger_lock<'a>(_trigger: &'a PgTrigger<'a>) -> Result<TriggerRow<'a>, ErrorReport> {
    or_report(ledger::lock_chain())?;
    Ok(None)
}

/// `BEFORE INSERT OR UPDATE OR DELETE … FOR EACH ROW`: appends the event and notes its id in the row.
#[pg_trigger]
fn ledger_append<'a>(trigger: &'a PgTrigger<'a>) -> Result<TriggerRow<'a>, ErrorReport> {
    or_report(append(trigger.trigger_data()))
}

// What PostgreSQL 18 takes as const pointers, 15 takes as mutable ones.
#[allow(clippy::unnecessary_mut_passed)]
fn append(data: &pg_sys::TriggerData) -> Result<TriggerRow<'_>> {
    const NOT_THE_TRIGGER: Error = Error::NotTheTrigger {
        function: "ledger_append",
    };
    let event = data.tg_event;
    // SAFETY: reads flags.
    let (inserts, deletes) = (
        pgrx::trigger_fired_by_insert(event),
        pgrx::trigger_fired_by_delete(event),
    );
    let operation = match (inserts, deletes) {
        (true, _) => "INSERT",
        (_, true) => "DELETE",
        _ => "UPDATE",
    };
    let tuple = if operation == "UPDATE" {
        data.tg_newtuple
    } else {
        data.tg_trigtuple
    };
    if tuple.is_null() || !pgrx::trigger_fired_before(event) {
        return Err(NOT_THE_TRIGGER);
    }
    // SAFETY: a row trigger's relation is open, and its tuples are of that relation's shape.
    unsafe {
        let relation = &*data.tg_relation;
        let shape = relation.rd_att;
        let table = CStr::from_ptr((*relation.rd_rel).relname.data.as_ptr()).to_string_lossy();
        let Some((_, Some(id))) = column::<i64>(tuple, shape, c"id") else {
            return Err(NOT_THE_TRIGGER);
        };
        let Some((position, told)) = column::<i64>(tuple, shape, c"last_event_id") else {
            return Err(NOT_THE_TRIGGER);
        };
        let image = || Image::of(tuple, shape);

        // A row that comes back from a dump brings its event along, or comes before it: nothing new has happened. Whether the
        // two fit together is for verify_ledger() to say.
        if let (true, Some(event)) = (inserts, told)
            && ledger::describes(event, &table, id, image())? != Some(false)
        {
            return Ok(Some(PgHeapTuple::from_heap_tuple(
                PgTupleDesc::from_pg_unchecked(shape),
                tuple,
            )));
        }
        ledger::lock_chain()?;
        let appended = ledger::append(&table, id, operation, image())?;
        let row = if deletes {
            tuple
        } else {
            let (mut position, mut is_null) = (position, false);
            let mut value = pg_sys::Datum::from(appended);
            pg_sys::heap_modify_tuple_by_cols(tuple, shape, 1, &mut position, &mut value, &mut is_null)
        };
        Ok(Some(PgHeapTuple::from_heap_tuple(
            PgTupleDesc::from_pg_unchecked(shape),
            row,
        )))
    }
}

/// `BEFORE UPDATE OR DELETE OR TRUNCATE` on the events, `BEFORE TRUNCATE` on what they tell of: refuses.
#[pg_trigger]
fn ledger_refuse<'a>(trigger: &'a PgTrigger<'a>) -> Result<TriggerRow<'a>, ErrorReport> {
    let operation = match trigger.op() {
        Ok(PgTriggerOperation::Update) => "UPDATE",
        Ok(PgTriggerOperation::Delete) => "DELETE",
        _ => "TRUNCATE",
    };
    let table = trigger.table_name().unwrap_or_default();
    let (detail, hint) = if table == "ledger_events" {
        (
            "The ledger is append-only: each event carries the hash of the one before it.",
            "Correct the row that the event tells of: the correction becomes an event of its own.",
        )
    } else {
        (
            "Rows that vanish without an event would break the ledger.",
            "Use DELETE, which leaves an event for each row, or DROP EXTENSION pg_backstop to give the ledger up.",
        )
    };
    or_report(Err(Error::LedgerIsAppendOnly {
        operation,
        table,
        detail,
        hint,
    }))
}

/// Recomputes the chain of events, and compares every row that it tells of with its newest event.
///
/// `first_broken` is the event at which the ledger stops being credible, NULL where it is intact or where a row has no event
/// at all; `status` is `intact` or one sentence that says what is wrong there. What it cannot see is the removal of the newest
/// events together with the rows they tell of: keep the newest hash elsewhere to see that too.
#[pg_extern(stable)]
fn verify_ledger() -> Result<
    TableIterator<
        'static,
        (
            name!(events, i64),
            name!(first_broken, Option<i64>),
            name!(status, Text),
        ),
    >,
    ErrorReport,
> {
    let (events, first_broken, status) = sayably(verify)?;
    Ok(TableIterator::once((events, first_broken, status.into())))
}

/// Something that is wrong: the event at which it is, if at one, and the sentence that says so.
type Finding = (Option<i64>, String);

fn verify() -> Result<(i64, Option<i64>, String)> {
    let chain = ledger_check::chain()?;
    let mut findings: Vec<Finding> = Vec::new();
    if let Some(id) = chain.first_broken {
        findings.push((Some(id), broken_at(id)?));
    }
    if let Some(event) = ledger_check::out_of_turn()? {
        let (table, row) = (&event.table, event.row);
        let sentence = match event.operation.as_str() {
            "INSERT" => format!("event {} inserts {table} row {row}, which was there already", event.id),
            _ => format!("event {} changes {table} row {row}, which was not there", event.id),
        };
        findings.push((Some(event.id), sentence));
    }
    for table in ledger_check::TABLES {
        if let Some(found) = ledger_check::differing(table)? {
            findings.push((found.event, differing(table, &found)));
        }
    }
    if let Some(segment) = ledger_check::unexplained_acknowledgement()? {
        let sentence = format!(
            "segment {segment} is acknowledged in wal_archive, but no event says so: it was changed past the ledger"
        );
        findings.push((None, sentence));
    }
    // In a tie the chain goes first: it is the deeper fault. None sorts last.
    let first = findings
        .into_iter()
        .min_by_key(|(event, _)| event.map_or((1, 0), |event| (0, event)));
    Ok(match first {
        None => (chain.events, None, "intact".to_owned()),
        Some((event, sentence)) => (chain.events, event, sentence),
    })
}

fn broken_at(id: i64) -> Result<String> {
    Ok(match ledger_check::event(id)? {
        None => format!("event {id} is missing: it was removed from ledger_events"),
        Some(event) if !event.intact => {
            format!("event {id} was changed after it was written: its hash is not that of its contents")
        }
        Some(event) if !event.linked => {
            let before = id - 1;
            format!("event {id} does not follow event {before}: its prev_hash is not the hash of event {before}")
        }
        Some(event) => format!(
            "event {id}: {} row {} was {} past the functions of pg_backstop, by {} at {}",
            event.table,
            event.row,
            match event.operation.as_str() {
                "DELETE" => "deleted",
                "ACKNOWLEDGE" => "acknowledged",
                _ => "updated",
            },
            event.actor,
            event.at
        ),
    })
}

fn differing(table: &str, found: &ledger_check::Differing) -> String {
    let row = found.row;
    let event = found.event.unwrap_or_default();
    match &found.difference {
        Difference::NoEvent => format!("{table} row {row} has no event: it was inserted past the ledger"),
        Difference::NoNewestEvent => {
            format!(
                "event {event} is missing, though {table} row {row} refers to it: it was removed from ledger_events"
            )
        }
        Difference::Gone => {
            format!(
                "{table} row {row} is gone, but event {event}, its newest, is no DELETE: it was removed past the ledger"
            )
        }
        Difference::Returned => {
            format!("{table} row {row} is there, although event {event}, its newest, deleted it")
        }
        Difference::Columns(columns) => {
            format!(
                "{table} row {row} is not what event {event}, its newest, says: changed past the ledger in {columns}"
            )
        }
        Difference::Reference => {
            format!(
                "{table} row {row} does not refer to event {event}, its newest: last_event_id was changed past the ledger"
            )
        }
    }
}
