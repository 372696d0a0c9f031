//! Statements that hold the ledger against itself, against the rows it tells of, and against what others have seen of it.
//!
//! Each reads the events in order and returns a row for each fault, all of them under one snapshot: memory stays bounded by work_mem
//! and by what is wrong, however long the chain is.

use super::ledger;
use super::statement::{OneSnapshot, Row};
use super::{Scope, Statement, Text};
use crate::error::{Error, Result};
use crate::memory;

/// What is wrong with an event or a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Events are missing, from this one up to the one that `detail` gives.
    Missing,
    /// The event does not have the hash of its contents.
    Changed,
    /// The event does not refer to the one before it.
    Unlinked,
    /// The event tells of a change that came past the functions, made by and at what `detail` says.
    PastFunctions,
    /// The event inserts a row that was there, or changes one that was not.
    OutOfTurn,
    /// The row has no event.
    NoEvent,
    /// The row refers to an event that is not there, newer than all of its events.
    NoNewestEvent,
    /// The row is gone, and no event says so.
    Gone,
    /// The row is there, though its newest event deleted it.
    Returned,
    /// The columns that `detail` names differ.
    Columns,
    /// The row refers to another event.
    Reference,
    /// The segment that `detail` names is acknowledged, though no event accepts what is wrong with it.
    Unexplained,
    /// The WAL of the segment that `detail` names has another event under this id, or one where the chain has none.
    Witness,
}

impl Kind {
    fn parse(word: &str) -> Self {
        match word {
            "missing" => Self::Missing,
            "changed" => Self::Changed,
            "unlinked" => Self::Unlinked,
            "past functions" => Self::PastFunctions,
            "out of turn" => Self::OutOfTurn,
            "no event" => Self::NoEvent,
            "no newest event" => Self::NoNewestEvent,
            "gone" => Self::Gone,
            "returned" => Self::Returned,
            "columns" => Self::Columns,
            "unexplained" => Self::Unexplained,
            "witness" => Self::Witness,
            _ => Self::Reference,
        }
    }
}

/// A fault.
pub struct Fault {
    /// What kind of fault it is.
    pub kind: Kind,
    /// The event at which it is, if at one.
    pub event: Option<i64>,
    /// The table that is told of.
    pub table: Option<String>,
    /// The row that is told of.
    pub row: Option<i64>,
    /// INSERT, UPDATE, DELETE or ACKNOWLEDGE, where it is of an event.
    pub operation: Option<String>,
    /// What [`Kind`] says.
    pub detail: Option<Text>,
    /// Names this fault and no other: what is wrong at the same place in another way has another key.
    pub key: String,
    /// Why it is accepted, where an event of the ledger says so.
    pub accepted: Option<Text>,
}

/// All that a look at the ledger found, under one snapshot.
pub struct Findings {
    /// How many events there are.
    pub events: i64,
    /// What is wrong, the oldest event first.
    pub faults: Vec<Fault>,
    /// The hash of the event that was asked for.
    pub known_hash: Option<Vec<u8>>,
}

/// The faults that `found` gives, as (kind, event, table_name, row_id, operation, detail, evidence), each with its key and with the
/// reason for which it was accepted.
macro_rules! faults {
    ($($found:expr),+) => {
        Statement::new(concat!(
            "SELECT fault.kind, fault.event, fault.table_name, fault.row_id, fault.operation, fault.detail, fault.key,
                    (SELECT event.image ->> 'reason' FROM @extschema@.ledger_events AS event
                      WHERE event.operation = 'ACKNOWLEDGE' AND event.table_name = 'ledger_events' AND event.via = 'function'
                        AND event.image ->> 'fault' = fault.key LIMIT 1)
             FROM (SELECT found.*, encode(sha256(convert_to(jsonb_build_array(kind, event, table_name, row_id, evidence)::text,
                        CASE WHEN getdatabaseencoding() IN ('SQL_ASCII', 'MULE_INTERNAL') THEN 'SQL_ASCII'::name ELSE 'UTF8'::name END)),
                        'hex') AS key
                   FROM (", $($found),+, ") AS found) AS fault"
        ))
    };
}

static CHAIN: Statement = faults!(
    "SELECT wrong.kind, CASE wrong.kind WHEN 'missing' THEN before_id + 1 ELSE id END AS event,
            CASE WHEN wrong.kind <> 'missing' THEN table_name END AS table_name,
            CASE WHEN wrong.kind <> 'missing' THEN row_id END AS row_id, operation,
            CASE wrong.kind WHEN 'missing' THEN (id - 1)::text ELSE format('%s at %s', actor, at) END AS detail,
            CASE wrong.kind WHEN 'missing' THEN (id - 1)::text
                            ELSE concat_ws(' ', encode(hash, 'hex'), encode(computed, 'hex'), encode(prev_hash, 'hex'),
                                           encode(hash_before, 'hex')) END AS evidence
     FROM (SELECT id, table_name, row_id, operation, via, actor, at, hash, prev_hash, image,
                  coalesce(lag(id) OVER chain, 0) AS before_id, lag(hash) OVER chain AS hash_before,
                  @extschema@.ledger_hash(prev_hash, id, at, actor, table_name, row_id, operation, via, image) AS computed
           FROM @extschema@.ledger_events
           WINDOW chain AS (ORDER BY id)) AS events
     CROSS JOIN LATERAL (VALUES
         ('missing', id <> before_id + 1),
         ('changed', hash <> computed),
         ('unlinked', id = before_id + 1 AND hash = computed AND prev_hash IS DISTINCT FROM hash_before),
         ('past functions', hash = computed AND via = 'sql'
             AND table_name IN ('backup_history', 'recovery_history', 'wal_archive', 'ledger_events')
             AND NOT (operation = 'INSERT' AND image ->> 'origin' = 'imported'))) AS wrong (kind, holds)
     WHERE (id <> before_id + 1 OR hash <> computed OR prev_hash IS DISTINCT FROM hash_before OR via = 'sql') AND wrong.holds"
);

static OUT_OF_TURN: Statement = faults!(
    "SELECT 'out of turn' AS kind, id AS event, table_name, row_id, operation, NULL::text AS detail,
            encode(hash, 'hex') AS evidence
     FROM (SELECT id, operation, table_name, row_id, hash,
                  lag(operation) OVER (PARTITION BY table_name, row_id ORDER BY id) IN ('INSERT', 'UPDATE') AS was_there
           FROM @extschema@.ledger_events WHERE operation <> 'ACKNOWLEDGE') AS events
     WHERE (operation = 'INSERT') = coalesce(was_there, false)"
);

/// The statement that compares a table with the newest events of its rows.
macro_rules! differing {
    ($table:literal) => {
        faults!(
            "SELECT CASE WHEN event.id IS NULL THEN 'no event'
                         WHEN ledgered.last_event_id > event.id THEN 'no newest event'
                         WHEN ledgered.id IS NULL THEN 'gone'
                         WHEN event.operation = 'DELETE' THEN 'returned'
                         WHEN event.image <> ledgered.image THEN 'columns'
                         ELSE 'reference' END AS kind,
                    CASE WHEN ledgered.last_event_id > event.id THEN ledgered.last_event_id ELSE event.id END AS event, '",
            $table,
            "' AS table_name, coalesce(event.row_id, ledgered.id) AS row_id, event.operation,
                    (SELECT string_agg(coalesce(said.key, found.key), ', ' ORDER BY coalesce(said.key, found.key))
                     FROM jsonb_each(event.image) AS said
                     FULL JOIN jsonb_each(ledgered.image) AS found ON said.key = found.key
                     WHERE said.value IS DISTINCT FROM found.value) AS detail,
                    concat_ws(' ', encode(event.hash, 'hex'), ledgered.last_event_id, ledgered.image) AS evidence
             FROM (SELECT DISTINCT ON (row_id) id, row_id, operation, image, hash
                   FROM @extschema@.ledger_events WHERE table_name = '",
            $table,
            "' ORDER BY row_id, id DESC) AS event
             FULL JOIN (SELECT id, last_event_id, @extschema@.ledger_image(whole) AS image
                        FROM @extschema@.",
            $table,
            " AS whole) AS ledgered ON ledgered.id = event.row_id
             WHERE event.id IS NULL
                OR (ledgered.id IS NULL) <> (event.operation = 'DELETE')
                OR (event.operation <> 'DELETE'
                    AND (event.image <> ledgered.image OR ledgered.last_event_id IS DISTINCT FROM event.id))"
        )
    };
}

static POLICIES: Statement = differing!("backup_policies");
static BACKUPS: Statement = differing!("backup_history");
static RECOVERIES: Statement = differing!("recovery_history");

static UNEXPLAINED: Statement = faults!(
    "SELECT 'unexplained' AS kind, NULL::bigint AS event, 'wal_archive' AS table_name, NULL::bigint AS row_id,
            NULL::text AS operation, segment.segment_name AS detail,
            concat_ws(' ', segment.segment_name, segment.problem, segment.sha256) AS evidence
     FROM @extschema@.wal_archive AS segment
     WHERE segment.status = 'acknowledged'
       AND NOT EXISTS (
           SELECT FROM @extschema@.ledger_events AS event,
                jsonb_to_recordset(event.image -> 'runs') AS run (from_segment text, to_segment text, problem text)
            WHERE event.table_name = 'wal_archive' AND event.operation = 'ACKNOWLEDGE'
              AND segment.segment_name COLLATE \"C\" BETWEEN run.from_segment AND run.to_segment
              AND run.problem IS NOT DISTINCT FROM segment.problem
              AND coalesce(event.image -> 'sha256' ->> segment.segment_name, segment.sha256)
                  IS NOT DISTINCT FROM segment.sha256)"
);

static WITNESSES: Statement = faults!(
    "SELECT 'witness' AS kind, witness.event_id AS event, 'ledger_events' AS table_name, NULL::bigint AS row_id,
            NULL::text AS operation, min(witness.segment_name COLLATE \"C\") AS detail, encode(witness.hash, 'hex') AS evidence
     FROM @extschema@.ledger_witnesses AS witness
     LEFT JOIN @extschema@.ledger_events AS event ON event.id = witness.event_id
     WHERE event.hash IS DISTINCT FROM witness.hash
     GROUP BY witness.event_id, witness.hash"
);

/// Looks at all of it, and for the hash of the event `known`.
pub fn look(known: Option<i64>) -> Result<Findings> {
    static HASH: Statement = Statement::new("SELECT hash FROM @extschema@.ledger_events WHERE id = $1");
    static COUNT: Statement = Statement::new("SELECT count(*) FROM @extschema@.ledger_events");
    let _scope = Scope::enter()?;
    let appended = ledger::append_now()?;
    let snapshot = OneSnapshot::take(appended);
    let events = COUNT.read_under(&snapshot, &[], |rows| {
        rows.one("the count of events")?.need(1, "the count of events")
    })?;
    let known_hash = match known {
        Some(id) => HASH.read_under(&snapshot, &[id.into()], |rows| {
            rows.first().map_or(Ok(None), |row| row.get(1))
        })?,
        None => None,
    };
    let mut faults: Vec<Fault> = Vec::new();
    for statement in [
        &CHAIN,
        &OUT_OF_TURN,
        &POLICIES,
        &BACKUPS,
        &RECOVERIES,
        &UNEXPLAINED,
        &WITNESSES,
    ] {
        let mut found = statement.read_under(&snapshot, &[], |rows| rows.gather(|row| fault(&row)))?;
        faults.try_reserve(found.len()).map_err(|_| Error::OutOfMemory {
            bytes: found.len().saturating_mul(size_of::<Fault>()),
        })?;
        faults.append(&mut found);
    }
    // Sorting takes as much again.
    memory::require(faults.len().saturating_mul(size_of::<Fault>()))?;
    // In a tie the chain goes first: it is the deeper fault. What is at no event comes last.
    faults.sort_by_key(|fault: &Fault| fault.event.map_or((true, 0), |event| (false, event)));
    Ok(Findings {
        events,
        faults,
        known_hash,
    })
}

fn fault(row: &Row) -> Result<Fault> {
    Ok(Fault {
        kind: Kind::parse(&row.need::<String>(1, "the kind of fault")?),
        event: row.get(2)?,
        table: row.get(3)?,
        row: row.get(4)?,
        operation: row.get(5)?,
        detail: row.get(6)?,
        key: row.need(7, "the fault's key")?,
        accepted: row.get(8)?,
    })
}
