//! The chain of events: its lock, its growth.

use std::cell::Cell;

use pgrx::datum::TimestampWithTimeZone;
use pgrx::pg_sys;

use super::image::Image;
use super::scope::FunctionWrites;
use super::{Scope, Statement};
use crate::error::{Error, Result};

/// One lock for each database's chain, apart from the locks that DDL takes on the extension itself (those have subobject 0).
const CHAIN: u16 = 1;

thread_local! {
    static WAITS: Cell<bool> = const { Cell::new(true) };
}

/// Makes this process, a background worker, give up what it is about to write where another transaction holds the chain: it may
/// hold it for as long as a backup takes, and there is other work to do.
pub fn never_wait_for_chain() {
    WAITS.set(false);
}

/// Waits until no other transaction can append to the chain, and keeps it so to the end of this one.
///
/// Appending takes the newest event's hash, so appenders must come one after the other, and the next may only begin when the
/// one before has committed. A lock of its own does that: nobody takes it with SQL, unlike an advisory lock; and neither
/// autovacuum nor ANALYZE waits for it or is cancelled by it, unlike a lock on the table.
///
/// Whoever writes takes it before any row, and before the lock of the findings about the archive ([`crate::locks`]): one order
/// keeps two writers from a deadlock.
///
/// # Errors
/// [`Error::ChainIsHeld`] in a process that never waits for it.
pub fn lock_chain() -> Result<()> {
    let scope = Scope::enter()?;
    let extension = scope.extension().oid;
    if WAITS.get() {
        // SAFETY: an ordinary heavyweight lock, released at the end of the transaction and seen by the deadlock detector.
        unsafe {
            pg_sys::LockDatabaseObject(
                pg_sys::ExtensionRelationId,
                extension,
                CHAIN,
                pg_sys::ExclusiveLock as pg_sys::LOCKMODE,
            );
        }
        return Ok(());
    }
    // SAFETY: a plain variable of this process.
    let database = unsafe { pg_sys::MyDatabaseId };
    let tag = pg_sys::LOCKTAG {
        locktag_field1: database.to_u32(),
        locktag_field2: pg_sys::ExtensionRelationId.to_u32(),
        locktag_field3: extension.to_u32(),
        locktag_field4: CHAIN,
        locktag_type: pg_sys::LockTagType::LOCKTAG_OBJECT as u8,
        locktag_lockmethodid: pg_sys::DEFAULT_LOCKMETHOD as u8,
    };
    // SAFETY: the same lock, as LockDatabaseObject() in storage/lmgr/lmgr.c takes it, but at once or not at all.
    let taken = unsafe { pg_sys::LockAcquire(&tag, pg_sys::ExclusiveLock as pg_sys::LOCKMODE, false, true) };
    if taken == pg_sys::LockAcquireResult::LOCKACQUIRE_NOT_AVAIL {
        return Err(Error::ChainIsHeld {
            by: chain_holder(extension)?,
        });
    }
    // SAFETY: what others committed before they let go of it must be known here.
    unsafe { pg_sys::AcceptInvalidationMessages() };
    Ok(())
}

/// The process whose transaction holds the chain; none where that is a prepared one, or over by now.
fn chain_holder(extension: pg_sys::Oid) -> Result<Option<i32>> {
    static HOLDER: Statement = Statement::new(
        "SELECT pid FROM pg_locks
          WHERE locktype = 'object' AND classid = 'pg_extension'::regclass AND objid = $1 AND objsubid = $2 AND granted
            AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
          LIMIT 1",
    );
    HOLDER.read(&[extension.into(), i16::try_from(CHAIN).unwrap_or(1).into()], |rows| {
        rows.first().map_or(Ok(None), |row| row.get(1))
    })
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
