//! The chain of events: its lock, its growth.

use pgrx::datum::TimestampWithTimeZone;
use pgrx::pg_sys;

use super::image::Image;
use super::scope::FunctionWrites;
use super::{Scope, Statement};
use crate::error::{Error, Result, sayably};

/// One lock for each database's chain, apart from the locks that DDL takes on the extension itself (those have subobject 0).
const CHAIN: u16 = 1;

/// Waits until no other transaction can append to the chain, and keeps it so to the end of this one.
///
/// Appending takes the newest event's hash, so appenders must come one after the other, and the next may only begin when the
/// one before has committed. A lock of its own does that: nobody takes it with SQL, unlike an advisory lock; and neither
/// autovacuum nor ANALYZE waits for it or is cancelled by it, unlike a lock on the table.
///
/// Whoever writes takes it before any row: the order chain, then rows is what keeps two writers from a deadlock.
pub fn lock_chain() -> Result<()> {
    let scope = Scope::enter()?;
    // SAFETY: an ordinary heavyweight lock, released at the end of the transaction and seen by the deadlock detector.
    sayably(|| unsafe {
        pg_sys::LockDatabaseObject(
            pg_sys::ExtensionRelationId,
            scope.extension().oid,
            CHAIN,
            pg_sys::ExclusiveLock as pg_sys::LOCKMODE,
        );
    });
    Ok(())
}

static APPEND: Statement = Statement::new(
    "INSERT INTO @extschema@.ledger_events (id, at, actor, table_name, row_id, operation, via, image, prev_hash, hash)
     SELECT next.id, $1, next.actor, $2, $3, $4, $5, $6, next.prev_hash,
            @extschema@.ledger_hash(next.prev_hash, next.id, $1, next.actor, $2, $3, $4, $5, $6)
     FROM (SELECT coalesce(head.id, 0) + 1 AS id, head.hash AS prev_hash, session_user::text AS actor
           FROM (SELECT) AS always
           LEFT JOIN (SELECT id, hash FROM @extschema@.ledger_events ORDER BY id DESC LIMIT 1) AS head ON true) AS next
     RETURNING id",
);

/// Appends what a trigger saw to the chain, which must be locked, and returns the event's id.
pub fn append(table: &str, row: i64, operation: &'static str, image: Image) -> Result<i64> {
    let via = if FunctionWrites::fired_this_trigger() {
        "function"
    } else {
        "sql"
    };
    insert(table, row, operation, via, image)
}

/// Appends to the chain, which must be locked, that somebody accepted what is wrong in rows of a table that is not ledgered
/// itself. The image says which rows, and why.
pub fn append_acknowledgement(table: &str, image: Image) -> Result<i64> {
    const NO_ROW: i64 = 0;
    insert(table, NO_ROW, "ACKNOWLEDGE", "function", image)
}

fn insert(table: &str, row: i64, operation: &'static str, via: &'static str, image: Image) -> Result<i64> {
    // SAFETY: reads the clock.
    let now = TimestampWithTimeZone::try_from(unsafe { pg_sys::GetCurrentTimestamp() }).map_err(|_| {
        Error::UnexpectedAnswer {
            what: "a time on the clock",
        }
    })?;
    let args = [
        now.into(),
        table.into(),
        row.into(),
        operation.into(),
        via.into(),
        image.into(),
    ];
    APPEND.write_latest(&args, |rows| rows.one("the event's id")?.need(1, "the event's id"))
}

/// Id of the newest event; `None` before the first.
pub fn last_event() -> Result<Option<i64>> {
    static LAST: Statement = Statement::new("SELECT max(id) FROM @extschema@.ledger_events");
    LAST.read(&[], |rows| rows.one("an event's id")?.get(1))
}

static DESCRIBES: Statement = Statement::new(
    "SELECT table_name = $2 AND row_id = $3 AND operation <> 'DELETE' AND image = $4
     FROM @extschema@.ledger_events WHERE id = $1",
);

/// Whether the event says exactly this of this row; `None` where there is no such event.
pub fn describes(event: i64, table: &str, row: i64, image: Image) -> Result<Option<bool>> {
    DESCRIBES.read(&[event.into(), table.into(), row.into(), image.into()], |rows| {
        rows.first()
            .map(|row| row.need(1, "whether the event describes the row"))
            .transpose()
    })
}
