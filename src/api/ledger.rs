//! The ledger: every change of a policy, a backup or a recovery, and every acknowledgement, becomes an event in a chain of
//! hashes, and who doubts it can have the chain recomputed.

use pgrx::AnyElement;
use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::*;

use super::{argument, call};
use crate::catalog::ledger_check::{self, Fault, Kind};
use crate::catalog::{Image, Scope, Text, ledger};
use crate::error::{Error, Result, sayably};

/// The image of a row as the ledger keeps it: a JSON object without NULLs, times in UTC, the same in every session.
///
/// One for each table: a call with a row of it fits none better, whoever adds another function of this name. A cast to `record`
/// would not do, since the parser leaves a row the type that it has.
#[pg_extern(
    sql = "
CREATE FUNCTION ledger_image(ledgered backup_policies) RETURNS jsonb
STRICT STABLE PARALLEL SAFE LANGUAGE c AS '@MODULE_PATHNAME@', '@FUNCTION_NAME@';
CREATE FUNCTION ledger_image(ledgered backup_history) RETURNS jsonb
STRICT STABLE PARALLEL SAFE LANGUAGE c AS '@MODULE_PATHNAME@', '@FUNCTION_NAME@';
CREATE FUNCTION ledger_image(ledgered recovery_history) RETURNS jsonb
STRICT STABLE PARALLEL SAFE LANGUAGE c AS '@MODULE_PATHNAME@', '@FUNCTION_NAME@';
",
    requires = ["tables"]
)]
fn ledger_image(ledgered: AnyElement) -> Result<Image, ErrorReport> {
    // SAFETY: the SQL declarations admit rows only.
    Ok(unsafe { Image::of_composite(ledgered.datum()) }?)
}

/// What has been seen of the chain before: the id and the hash of an event.
struct Witness {
    id: i64,
    hash: Vec<u8>,
}

/// Recomputes the chain of events, and compares every row that it tells of with its newest event.
///
/// `first_broken` is the event at which the ledger stops being credible, NULL where it is intact or where a row has no event
/// at all; `status` is `intact` or one sentence that says what is wrong there. What was acknowledged is passed over;
/// verify_ledger_faults() shows all of it. With the id and the hash of an event that was noted elsewhere, it also says whether the
/// chain runs through that event: without such a witness it cannot see that the chain was rewritten, or its end removed.
///
/// In a transaction that has changed the ledger, the events of these changes are made first.
#[pg_extern(stable)]
fn verify_ledger(
    known_id: default!(Option<i64>, "NULL"),
    known_hash: default!(Option<Vec<u8>>, "NULL"),
) -> Result<
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
    let (events, first_broken, status) = sayably(|| verify(witness(known_id, known_hash)?))?;
    Ok(TableIterator::once((events, first_broken, status.into())))
}

/// Every fault of the ledger, the oldest event first, and whether it was acknowledged, and why. `fault` is what
/// acknowledge_ledger_fault() takes.
#[pg_extern(stable)]
fn verify_ledger_faults() -> Result<
    TableIterator<
        'static,
        (
            name!(event, Option<i64>),
            name!(table_name, Option<Text>),
            name!(row_id, Option<i64>),
            name!(what, Text),
            name!(acknowledged, bool),
            name!(reason, Option<Text>),
            name!(fault, Text),
        ),
    >,
    ErrorReport,
> {
    let found = sayably(|| ledger_check::look(None))?;
    let faults = found.faults.into_iter().map(|fault| {
        let what = sentence(&fault);
        (
            fault.event,
            fault.table.map(Text::from),
            fault.row,
            what.into(),
            fault.accepted.is_some(),
            fault.accepted,
            fault.key.into(),
        )
    });
    Ok(TableIterator::new(faults))
}

/// Accepts a fault that verify_ledger_faults() shows, and returns what it is. It stays in that list, marked, and verify_ledger() passes
/// over it; what is wrong at the same place in another way is another fault. Who accepted it and why becomes an event of the ledger.
#[pg_extern(volatile, parallel_unsafe)]
fn acknowledge_ledger_fault(fault: Option<Text>, reason: Option<Text>) -> Result<Text, ErrorReport> {
    Ok(sayably(|| acknowledge(fault.as_ref(), reason.as_ref()))?.into())
}

fn acknowledge(key: Option<&Text>, reason: Option<&Text>) -> Result<String> {
    const SEE_FAULTS: &str =
        "SELECT event, what, fault FROM verify_ledger_faults() WHERE NOT acknowledged shows those that can be.";
    call::require_primary("acknowledge_ledger_fault")?;
    let key = key.ok_or_else(|| Error::NullArgument {
        argument: "fault",
        hint: SEE_FAULTS.to_owned(),
    })?;
    let key = key.to_utf8();
    argument::no_longer_than(argument::LONGEST_REASON, "reason", reason)?;
    let reason = reason.ok_or_else(|| Error::NullArgument {
        argument: "reason",
        hint: "Say why the fault is accepted; the ledger keeps it.".to_owned(),
    })?;
    if reason.to_utf8().trim().is_empty() {
        return Err(Error::invalid(
            "reason must not be empty",
            "Whoever sees the fault later has nothing but the reason to go by.",
            "Say why the fault is accepted; the ledger keeps it.",
        ));
    }
    let _scope = Scope::enter()?;
    let found = ledger_check::look(None)?
        .faults
        .into_iter()
        .find(|fault| fault.key == key);
    let Some(found) = found.filter(|fault| fault.accepted.is_none()) else {
        return Err(Error::WrongState {
            message: "the ledger has no such fault that is not acknowledged".to_owned(),
            detail: format!("The fault asked for is \"{}\".", archive::brief(&key)),
            hint: SEE_FAULTS.to_owned(),
        });
    };
    let what = sentence(&found);
    ledger::acknowledge_fault(&found, &what, reason)?;
    Ok(what)
}

fn witness(id: Option<i64>, hash: Option<Vec<u8>>) -> Result<Option<Witness>> {
    let missing = |argument| Error::NullArgument {
        argument,
        hint: "Pass both the id and the hash of an event that was noted elsewhere, or neither.".to_owned(),
    };
    match (id, hash) {
        (None, None) => Ok(None),
        (Some(id), Some(hash)) => Ok(Some(Witness { id, hash })),
        (None, Some(_)) => Err(missing("known_id")),
        (Some(_), None) => Err(missing("known_hash")),
    }
}

fn verify(witness: Option<Witness>) -> Result<(i64, Option<i64>, String)> {
    let found = ledger_check::look(witness.as_ref().map(|witness| witness.id))?;
    let first = found.faults.iter().find(|fault| fault.accepted.is_none());
    let contradicted = witness.and_then(|witness| contradiction(&witness, found.known_hash.as_deref(), found.events));
    let (event, status) = match (first, contradicted) {
        (None, None) => (None, "intact".to_owned()),
        // What the chain says of itself counts only as far as the witness goes.
        (Some(fault), Some((id, _))) if fault.event.is_some_and(|event| event < id) => (fault.event, sentence(fault)),
        (_, Some((id, sentence))) => (Some(id), sentence),
        (Some(fault), None) => (fault.event, sentence(fault)),
    };
    Ok((found.events, event, status))
}

/// What is between the chain and a witness of it.
fn contradiction(witness: &Witness, hash: Option<&[u8]>, events: i64) -> Option<(i64, String)> {
    let id = witness.id;
    match hash {
        Some(hash) if hash == witness.hash => None,
        Some(_) => Some((
            id,
            format!("event {id} is not the one that is known: its hash is another, so the chain was rewritten"),
        )),
        None => Some((
            id,
            format!("event {id}, which is known, is missing: the chain has {events} events, so its end was removed"),
        )),
    }
}

/// A fault in one sentence.
fn sentence(fault: &Fault) -> String {
    let table = fault.table.as_deref().unwrap_or_default();
    let row = fault.row.unwrap_or_default();
    let event = fault.event.unwrap_or_default();
    let operation = fault.operation.as_deref().unwrap_or_default();
    let detail = fault.detail.as_ref().map(Text::to_utf8).unwrap_or_default();
    match fault.kind {
        Kind::Missing if detail == event.to_string() => {
            format!("event {event} is missing: it was removed from ledger_events")
        }
        Kind::Missing => format!("events {event} to {detail} are missing: they were removed from ledger_events"),
        Kind::Changed => {
            format!("event {event} was changed after it was written: its hash is not that of its contents")
        }
        Kind::Unlinked => {
            let before = event - 1;
            format!("event {event} does not follow event {before}: its prev_hash is not the hash of event {before}")
        }
        Kind::PastFunctions => {
            let done = match operation {
                "DELETE" => "deleted",
                "ACKNOWLEDGE" => "acknowledged",
                "INSERT" => "inserted",
                _ => "updated",
            };
            format!("event {event}: {table} row {row} was {done} past the functions of pg_backstop, by {detail}")
        }
        Kind::OutOfTurn if operation == "INSERT" => {
            format!("event {event} inserts {table} row {row}, which was there already")
        }
        Kind::OutOfTurn => format!("event {event} changes {table} row {row}, which was not there"),
        Kind::NoEvent => format!("{table} row {row} has no event: it was inserted past the ledger"),
        Kind::NoNewestEvent => {
            format!(
                "event {event} is missing, though {table} row {row} refers to it: it was removed from ledger_events"
            )
        }
        Kind::Gone => {
            format!(
                "{table} row {row} is gone, but event {event}, its newest, is no DELETE: it was removed past the ledger"
            )
        }
        Kind::Returned => format!("{table} row {row} is there, although event {event}, its newest, deleted it"),
        Kind::Columns => {
            format!(
                "{table} row {row} is not what event {event}, its newest, says: changed past the ledger in {detail}"
            )
        }
        Kind::Reference => format!(
            "{table} row {row} does not refer to event {event}, its newest: last_event_id was changed past the ledger"
        ),
        Kind::Unexplained => format!(
            "segment {detail} is acknowledged in wal_archive, but no event says so of what is wrong with it: it was changed past \
             the ledger"
        ),
        Kind::Witness => format!(
            "event {event} is not the one that the WAL of segment {detail} has under this id: the chain was rewritten, or its end \
             removed"
        ),
    }
}
