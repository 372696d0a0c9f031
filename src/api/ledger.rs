//! The ledger: every change of a policy, a backup or a recovery, and every acknowledgement, becomes an event in a chain of
//! hashes, and who doubts it can have the chain recomputed.

use pgrx::AnyElement;
use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::*;

use crate::catalog::Image;
use crate::catalog::ledger_check::{self, Difference};
use crate::error::Result;

/// The image of a row as the ledger keeps it: a JSON object without NULLs, times in UTC, the same in every session.
#[pg_extern(sql = "
CREATE FUNCTION ledger_image(ledgered record) RETURNS jsonb
STRICT STABLE PARALLEL SAFE LANGUAGE c AS '@MODULE_PATHNAME@', '@FUNCTION_NAME@';
")]
fn ledger_image(ledgered: AnyElement) -> Image {
    // SAFETY: the SQL declaration admits rows only.
    unsafe { Image::of_composite(ledgered.datum()) }
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
            name!(status, String),
        ),
    >,
    ErrorReport,
> {
    Ok(TableIterator::once(verify()?))
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
