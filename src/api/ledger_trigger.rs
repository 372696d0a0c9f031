//! The ledger's triggers: a row is marked when it is changed, and its event is appended when the transaction commits.

use std::ffi::CStr;

use pgrx::heap_tuple::PgHeapTuple;
use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::*;
use pgrx::{PgTupleDesc, pg_sys};

use super::trigger::{TriggerRow, column, or_report};
use crate::catalog::Image;
use crate::catalog::ledger::{self, Change, Mark};
use crate::error::{Error, Result};

/// `BEFORE INSERT OR UPDATE … FOR EACH ROW`: marks the row with who changes it, and refuses a change of its id.
#[pg_trigger]
fn ledger_mark<'a>(trigger: &'a PgTrigger<'a>) -> Result<TriggerRow<'a>, ErrorReport> {
    or_report(mark(trigger.trigger_data()))
}

/// A deferred `AFTER INSERT OR UPDATE OR DELETE … FOR EACH ROW`: appends the event, and notes its id in the row.
#[pg_trigger]
fn ledger_append<'a>(trigger: &'a PgTrigger<'a>) -> Result<TriggerRow<'a>, ErrorReport> {
    or_report(append(trigger.trigger_data()))?;
    Ok(None)
}

const NOT_THE_TRIGGER: Error = Error::NotTheTrigger {
    function: "ledger_mark or ledger_append",
};

/// A row that a trigger looks at.
struct Row {
    tuple: pg_sys::HeapTuple,
    shape: pg_sys::TupleDesc,
    id: i64,
}

impl Row {
    /// # Safety
    /// `tuple` must be NULL or a row of the relation that the trigger was fired for, which is open.
    unsafe fn of(data: &pg_sys::TriggerData, tuple: pg_sys::HeapTuple) -> Result<Self> {
        if tuple.is_null() {
            return Err(NOT_THE_TRIGGER);
        }
        // SAFETY: as the caller says.
        unsafe {
            let shape = (*data.tg_relation).rd_att;
            let Some((_, Some(id))) = column::<i64>(tuple, shape, c"id") else {
                return Err(NOT_THE_TRIGGER);
            };
            Ok(Self { tuple, shape, id })
        }
    }

    fn last_event_id(&self) -> Result<(i32, Option<i64>)> {
        // SAFETY: the tuple is of that shape.
        unsafe { column::<i64>(self.tuple, self.shape, c"last_event_id") }.ok_or(NOT_THE_TRIGGER)
    }

    fn image(&self) -> Image {
        // SAFETY: the tuple is of that shape.
        unsafe { Image::of(self.tuple, self.shape) }
    }
}

/// The name of the trigger's table.
fn table(data: &pg_sys::TriggerData) -> String {
    // SAFETY: a row trigger's relation is open, and its name ends with a NUL.
    let name = unsafe { CStr::from_ptr((*(*data.tg_relation).rd_rel).relname.data.as_ptr()) };
    name.to_string_lossy().into_owned()
}

// What PostgreSQL 18 takes as const pointers, 15 takes as mutable ones.
#[allow(clippy::unnecessary_mut_passed)]
fn mark(data: &pg_sys::TriggerData) -> Result<TriggerRow<'_>> {
    let event = data.tg_event;
    if !pgrx::trigger_fired_before(event) || pgrx::trigger_fired_by_delete(event) {
        return Err(NOT_THE_TRIGGER);
    }
    let inserts = pgrx::trigger_fired_by_insert(event);
    let tuple = if inserts { data.tg_trigtuple } else { data.tg_newtuple };
    // SAFETY: a row trigger's tuples are rows of its relation.
    let row = unsafe { Row::of(data, tuple) }?;
    let (position, told) = row.last_event_id()?;
    let unchanged = |tuple| {
        // SAFETY: the tuple is of that shape.
        unsafe { PgHeapTuple::from_heap_tuple(PgTupleDesc::from_pg_unchecked(row.shape), tuple) }
    };
    if inserts {
        if let Some(told) = told
            && is_told_already(data, &row, told)?
        {
            return Ok(Some(unchanged(tuple)));
        }
    } else {
        // SAFETY: as above; an UPDATE has the row before it too.
        require_same_id(data, &unsafe { Row::of(data, data.tg_trigtuple) }?, &row)?;
    }
    let (mut position, mut is_null) = (position, false);
    let mut value = pg_sys::Datum::from(Mark::of_this_change().last_event_id());
    // SAFETY: the column was found by its name and is a bigint, which is passed by value.
    let marked =
        unsafe { pg_sys::heap_modify_tuple_by_cols(tuple, row.shape, 1, &mut position, &mut value, &mut is_null) };
    Ok(Some(unchanged(marked)))
}

/// Whether a row that is inserted brings its event along, or comes before it out of a dump: nothing new has happened then. Whether
/// the two fit together is for verify_ledger() to say.
fn is_told_already(data: &pg_sys::TriggerData, row: &Row, told: i64) -> Result<bool> {
    let table = table(data);
    match ledger::describes(told, &table, row.id, row.image())? {
        Some(describes) => Ok(describes),
        // What is no id of an event is a mark, which is for this trigger to set.
        None if told > 0 && ledger::is_restoring() => Ok(true),
        None => Err(Error::invalid(
            format!("last_event_id {told} of a new row of \"{table}\" is no event of the ledger"),
            "A row may come before its event only while a dump is restored, by pg_restore or by a script of pg_dump.",
            "Leave last_event_id out: the ledger gives the row the event that it makes of it.",
        )),
    }
}

fn require_same_id(data: &pg_sys::TriggerData, before: &Row, after: &Row) -> Result<()> {
    if before.id == after.id {
        return Ok(());
    }
    Err(Error::invalid(
        format!(
            "id {} of \"{}\" cannot be changed to {}",
            before.id,
            table(data),
            after.id
        ),
        "The ledger's events tell of a row by its id.",
        "Insert another row and delete this one: both become events of the ledger.",
    ))
}

fn append(data: &pg_sys::TriggerData) -> Result<()> {
    let event = data.tg_event;
    if pgrx::trigger_fired_before(event) {
        return Err(NOT_THE_TRIGGER);
    }
    let table = table(data);
    let (operation, tuple) = if pgrx::trigger_fired_by_insert(event) {
        ("INSERT", data.tg_trigtuple)
    } else if pgrx::trigger_fired_by_delete(event) {
        ("DELETE", data.tg_trigtuple)
    } else {
        ("UPDATE", data.tg_newtuple)
    };
    // SAFETY: a row trigger's tuples are rows of its relation.
    let row = unsafe { Row::of(data, tuple) }?;
    // No function of the extension deletes a ledgered row, and a deleted one carries the mark of another change.
    let mark = match operation {
        "DELETE" => Mark::Sql,
        _ => Mark::carried(row.last_event_id()?.1),
    };
    if table == "ledger_pending" {
        return ledger::append_pending(row.id, mark);
    }
    if operation == "UPDATE" {
        // Another trigger may have changed it after ledger_mark().
        // SAFETY: as above.
        require_same_id(data, &unsafe { Row::of(data, data.tg_trigtuple) }?, &row)?;
    }
    ledger::append(Change {
        table: &table,
        row: row.id,
        operation,
        mark,
        image: row.image(),
        // SAFETY: the tuple was read from its table.
        place: (operation != "DELETE").then(|| unsafe { (*tuple).t_self }),
    })
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
