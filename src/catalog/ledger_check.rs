//! Statements that hold the ledger against itself and against the rows it tells of.
//!
//! Each reads the events once, in order, and returns one row: memory stays bounded by work_mem, however long the chain is.

use pgrx::datum::TimestampWithTimeZone;

use super::Statement;
use crate::error::Result;

/// What the chain itself tells.
pub struct Chain {
    /// How many events there are.
    pub events: i64,
    /// The first that is missing, does not follow the one before, does not have the hash of its contents, or tells of a
    /// change of a backup or a recovery, or of an acknowledgement, that came past the functions.
    pub first_broken: Option<i64>,
}

static CHAIN: Statement = Statement::new(
    "SELECT count(*), min(CASE
         WHEN id <> expected THEN expected
         WHEN hash <> computed OR prev_hash IS DISTINCT FROM hash_before
             OR (via = 'sql' AND operation <> 'INSERT' AND table_name IN ('backup_history', 'recovery_history', 'wal_archive')) THEN id
         END)
     FROM (SELECT id, hash, prev_hash, via, operation, table_name,
                  coalesce(lag(id) OVER chain, 0) + 1 AS expected, lag(hash) OVER chain AS hash_before,
                  @extschema@.ledger_hash(prev_hash, id, at, actor, table_name, row_id, operation, via, image) AS computed
           FROM @extschema@.ledger_events
           WINDOW chain AS (ORDER BY id)) AS events",
);

/// Recomputes the chain.
pub fn chain() -> Result<Chain> {
    CHAIN.read(&[], |rows| {
        let row = rows.one("the count of events")?;
        Ok(Chain {
            events: row.need(1, "the count of events")?,
            first_broken: row.get(2)?,
        })
    })
}

/// An event that the chain breaks at.
pub struct Event {
    /// Whether its hash is that of its contents.
    pub intact: bool,
    /// Whether it refers to the event before it.
    pub linked: bool,
    /// INSERT, UPDATE or DELETE.
    pub operation: String,
    /// The table it tells of.
    pub table: String,
    /// The row it tells of.
    pub row: i64,
    /// Who did it.
    pub actor: String,
    /// When.
    pub at: TimestampWithTimeZone,
}

static EVENT: Statement = Statement::new(
    "SELECT event.hash = @extschema@.ledger_hash(event.prev_hash, event.id, event.at, event.actor, event.table_name,
                                                 event.row_id, event.operation, event.via, event.image),
            event.prev_hash IS NOT DISTINCT FROM before.hash,
            event.operation, event.table_name, event.row_id, event.actor, event.at
     FROM @extschema@.ledger_events AS event
     LEFT JOIN @extschema@.ledger_events AS before ON before.id = event.id - 1
     WHERE event.id = $1",
);

/// The event of that id; `None` where it is missing.
pub fn event(id: i64) -> Result<Option<Event>> {
    EVENT.read(&[id.into()], |rows| {
        rows.first()
            .map(|row| {
                Ok(Event {
                    intact: row.need(1, "whether the hash is right")?,
                    linked: row.need(2, "whether the event is linked")?,
                    operation: row.need(3, "the operation")?,
                    table: row.need(4, "the table")?,
                    row: row.need(5, "the row")?,
                    actor: row.need(6, "the actor")?,
                    at: row.need(7, "the time")?,
                })
            })
            .transpose()
    })
}

static OUT_OF_TURN: Statement = Statement::new(
    "SELECT id, operation, table_name, row_id
     FROM (SELECT id, operation, table_name, row_id,
                  lag(operation) OVER (PARTITION BY table_name, row_id ORDER BY id) IN ('INSERT', 'UPDATE') AS was_there
           FROM @extschema@.ledger_events WHERE operation <> 'ACKNOWLEDGE') AS events
     WHERE (operation = 'INSERT') = coalesce(was_there, false)
     ORDER BY id LIMIT 1",
);

/// An event that cannot have happened to its row: an INSERT of one that was there, another change of one that was not.
pub struct OutOfTurn {
    /// The event.
    pub id: i64,
    /// INSERT, UPDATE or DELETE.
    pub operation: String,
    /// The table it tells of.
    pub table: String,
    /// The row it tells of.
    pub row: i64,
}

/// The first such event.
pub fn out_of_turn() -> Result<Option<OutOfTurn>> {
    OUT_OF_TURN.read(&[], |rows| {
        rows.first()
            .map(|row| {
                Ok(OutOfTurn {
                    id: row.need(1, "the event's id")?,
                    operation: row.need(2, "the operation")?,
                    table: row.need(3, "the table")?,
                    row: row.need(4, "the row")?,
                })
            })
            .transpose()
    })
}

/// What is between a row and its newest event.
pub enum Difference {
    /// The row has no event.
    NoEvent,
    /// The row refers to an event that is not there, newer than all of its events.
    NoNewestEvent,
    /// The row is gone, and no event says so.
    Gone,
    /// The row is there, though its newest event deleted it.
    Returned,
    /// These columns differ.
    Columns(String),
    /// The row refers to another event.
    Reference,
}

/// A row that is not what the ledger says.
pub struct Differing {
    /// The newest event of the row, or the missing one that it refers to.
    pub event: Option<i64>,
    /// The row.
    pub row: i64,
    /// What differs.
    pub difference: Difference,
}

/// The statement that compares a table with the newest events of its rows, and returns the first difference.
macro_rules! differing {
    ($table:literal) => {
        Statement::new(concat!(
            "SELECT CASE WHEN ledgered.last_event_id > event.id THEN ledgered.last_event_id ELSE event.id END AS event,
                    coalesce(event.row_id, ledgered.id) AS row,
                    CASE WHEN event.id IS NULL THEN 'no event'
                         WHEN ledgered.last_event_id > event.id THEN 'no newest event'
                         WHEN ledgered.id IS NULL THEN 'gone'
                         WHEN event.operation = 'DELETE' THEN 'returned'
                         WHEN event.image <> ledgered.image THEN 'columns'
                         ELSE 'reference' END,
                    (SELECT string_agg(coalesce(said.key, found.key), ', ' ORDER BY coalesce(said.key, found.key))
                     FROM jsonb_each(event.image) AS said
                     FULL JOIN jsonb_each(ledgered.image) AS found ON said.key = found.key
                     WHERE said.value IS DISTINCT FROM found.value)
             FROM (SELECT DISTINCT ON (row_id) id, row_id, operation, image
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
                    AND (event.image <> ledgered.image OR ledgered.last_event_id IS DISTINCT FROM event.id))
             ORDER BY 1 NULLS LAST, 2 LIMIT 1"
        ))
    };
}

static POLICIES: Statement = differing!("backup_policies");
static BACKUPS: Statement = differing!("backup_history");
static RECOVERIES: Statement = differing!("recovery_history");

/// The tables whose rows are ledgered.
pub const TABLES: [&str; 3] = ["backup_policies", "backup_history", "recovery_history"];

/// The row with the oldest newest event among those that are not what that event says, or one without an event.
pub fn differing(table: &str) -> Result<Option<Differing>> {
    let statement = match table {
        "backup_policies" => &POLICIES,
        "backup_history" => &BACKUPS,
        _ => &RECOVERIES,
    };
    statement.read(&[], |rows| {
        rows.first()
            .map(|row| {
                let kind: String = row.need(3, "the kind of difference")?;
                Ok(Differing {
                    event: row.get(1)?,
                    row: row.need(2, "the row")?,
                    difference: match kind.as_str() {
                        "no event" => Difference::NoEvent,
                        "no newest event" => Difference::NoNewestEvent,
                        "gone" => Difference::Gone,
                        "returned" => Difference::Returned,
                        "columns" => Difference::Columns(row.get(4)?.unwrap_or_default()),
                        _ => Difference::Reference,
                    },
                })
            })
            .transpose()
    })
}

static UNEXPLAINED: Statement = Statement::new(
    "WITH said AS MATERIALIZED (
         SELECT run.from_segment, run.to_segment
         FROM @extschema@.ledger_events AS event,
              jsonb_to_recordset(event.image -> 'runs') AS run (from_segment text, to_segment text)
         WHERE event.table_name = 'wal_archive' AND event.operation = 'ACKNOWLEDGE'
     )
     SELECT segment.segment_name
     FROM @extschema@.wal_archive AS segment
     WHERE segment.status = 'acknowledged'
       AND NOT EXISTS (SELECT FROM said WHERE segment.segment_name BETWEEN said.from_segment AND said.to_segment)
     ORDER BY 1 LIMIT 1",
);

/// A segment that is acknowledged, though no event says so.
pub fn unexplained_acknowledgement() -> Result<Option<String>> {
    UNEXPLAINED.read(&[], |rows| {
        rows.first().map(|row| row.need(1, "a segment name")).transpose()
    })
}
