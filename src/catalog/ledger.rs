//! The chain of events: how it grows.
//!
//! A change of a ledgered row is marked when it is made and becomes an event when its transaction commits, in a deferred trigger.
//! So there is an event for what came about and for nothing else, and the chain's lock, the last one that a transaction takes, is
//! held by none that still waits for something.

use std::cell::Cell;
use std::ffi::{CStr, c_int, c_void};

use pgrx::datum::TimestampWithTimeZone;
use pgrx::pg_sys;
use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::*;

use super::image::Image;
use super::ledger_check::Fault;
use super::scope::FunctionWrites;
use super::statement::Row;
use super::value::Argument;
use super::{Scope, Statement, Text};
use crate::error::{Error, Result, sayably};

/// One lock for each database's chain, apart from the locks that DDL takes on the extension itself (those have subobject 0).
const CHAIN: u16 = 1;

thread_local! {
    static WAITS: Cell<bool> = const { Cell::new(true) };
    /// The transaction of this session that marked a row last.
    static MARKED_IN: Cell<pg_sys::TransactionId> = const { Cell::new(pg_sys::InvalidTransactionId) };
    /// How many rows this session has marked.
    static MARKS: Cell<u64> = const { Cell::new(0) };
}

/// What a row has in place of its newest event until that is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mark {
    /// It was changed by the extension's own code.
    Function,
    /// It was changed by SQL.
    Sql,
}

impl Mark {
    /// For a row trigger: who fired it.
    pub fn of_this_change() -> Self {
        // SAFETY: gives the transaction the number that the change needs anyway.
        MARKED_IN.set(unsafe { pg_sys::GetTopTransactionId() });
        MARKS.set(MARKS.get().wrapping_add(1));
        if FunctionWrites::fired_this_trigger() {
            Self::Function
        } else {
            Self::Sql
        }
    }

    /// What a row carries.
    pub fn last_event_id(self) -> i64 {
        match self {
            Self::Function => 0,
            Self::Sql => -1,
        }
    }

    /// The mark that a row carries; what is none was written by SQL.
    pub fn carried(last_event_id: Option<i64>) -> Self {
        if last_event_id == Some(0) {
            Self::Function
        } else {
            Self::Sql
        }
    }

    fn via(self) -> &'static str {
        match self {
            Self::Function => "function",
            Self::Sql => "sql",
        }
    }
}

/// Whether the row at hand may come out of a dump: every script that pg_dump makes, and every session of pg_restore, begins with
/// these settings (`_doSetFixedOutputState()` in pg_backup_archiver.c). Anybody can set them, so a superuser's word is taken alone. To be
/// asked outside of a [`Scope`], which has a search_path of its own.
pub fn is_restoring() -> bool {
    // SAFETY: plain variables of this process; the path is NULL or a NUL-terminated string that guc.c owns, and is not kept.
    unsafe {
        let path = pg_sys::namespace_search_path;
        !pg_sys::check_function_bodies && !path.is_null() && CStr::from_ptr(path).is_empty() && pg_sys::superuser()
    }
}

/// Makes this process, a background worker, give up a transaction that cannot append to the chain at once: another one that was told
/// to make its events early may hold it for long, and there is other work to do.
pub fn never_wait_for_chain() {
    WAITS.set(false);
}

/// Waits until no other transaction can append to the chain, and keeps it so to the end of this one.
///
/// Appending takes the newest event's hash, so appenders must come one after the other, and the next may only begin when the
/// one before has committed. A lock of its own does that: nobody takes it with SQL, unlike an advisory lock; and neither
/// autovacuum nor ANALYZE waits for it or is cancelled by it, unlike a lock on the table.
///
/// Taken at the end of a transaction only, after all other locks: that order is what keeps two writers from a deadlock.
///
/// # Errors
/// [`Error::ChainIsHeld`] in a process that never waits for it.
fn lock_chain(scope: &Scope) -> Result<()> {
    refuse_to_be_prepared();
    let extension = scope.extension().oid;
    if WAITS.get() {
        // SAFETY: an ordinary heavyweight lock, released at the end of the transaction and seen by the deadlock detector.
        sayably(|| unsafe {
            pg_sys::LockDatabaseObject(
                pg_sys::ExtensionRelationId,
                extension,
                CHAIN,
                pg_sys::ExclusiveLock as pg_sys::LOCKMODE,
            );
        });
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

thread_local! {
    /// Whether the transaction under way has locked a chain.
    static LOCKED: Cell<bool> = const { Cell::new(false) };
}

/// Has `PREPARE TRANSACTION` fail from now on in this transaction, as it does for one that has used temporary tables: it would hold
/// the chain, and keep everybody else from recording, for as long as nobody ends it.
fn refuse_to_be_prepared() {
    thread_local! {
        static ARRANGED: Cell<bool> = const { Cell::new(false) };
    }
    LOCKED.set(true);
    if !ARRANGED.replace(true) {
        // SAFETY: the callback is a plain function of this library, which stays loaded.
        unsafe { pg_sys::RegisterXactCallback(Some(transaction_ends), std::ptr::null_mut()) };
    }
}

#[pg_guard]
unsafe extern "C-unwind" fn transaction_ends(event: pg_sys::XactEvent::Type, _argument: *mut c_void) {
    // Before the transaction commits nothing is decided yet.
    let is_over =
        event != pg_sys::XactEvent::XACT_EVENT_PRE_COMMIT && event != pg_sys::XactEvent::XACT_EVENT_PARALLEL_PRE_COMMIT;
    if LOCKED.get() && event == pg_sys::XactEvent::XACT_EVENT_PRE_PREPARE {
        ErrorReport::from(Error::CannotPrepare).report(PgLogLevel::ERROR);
    }
    if is_over {
        LOCKED.set(false);
    }
}

/// The process whose transaction holds the chain; none where that is over by now.
fn chain_holder(extension: pg_sys::Oid) -> Result<Option<i32>> {
    static HOLDER: Statement = Statement::new(
        "SELECT pid FROM pg_locks
          WHERE locktype = 'object' AND classid = 'pg_extension'::regclass AND objid = $1 AND objsubid = $2 AND granted
            AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
          LIMIT 1",
    );
    HOLDER.read(&[extension.into(), i32::from(CHAIN).into()], |rows| {
        rows.first().map_or(Ok(None), |row| row.get(1))
    })
}

/// The process that is in the way of a change of backups: it holds the chain or, failing that, its transaction has been at work on
/// backups for the longest time. None where that is over by now.
pub fn writer_in_the_way() -> Result<Option<i32>> {
    if let Some(holder) = chain_holder(Scope::enter()?.extension().oid)? {
        return Ok(Some(holder));
    }
    static WRITER: Statement = Statement::new(
        "SELECT l.pid FROM pg_locks AS l
           JOIN pg_class AS c ON c.oid = l.relation
           JOIN pg_extension AS e ON e.extnamespace = c.relnamespace AND e.extname = 'pg_backstop'
           JOIN pg_database AS d ON d.oid = l.database AND d.datname = current_database()
           JOIN pg_stat_activity AS a ON a.pid = l.pid
          WHERE c.relname = 'backup_history' AND l.mode = 'RowExclusiveLock' AND l.granted AND l.pid <> pg_backend_pid()
          ORDER BY a.xact_start LIMIT 1",
    );
    WRITER.read(&[], |rows| rows.first().map_or(Ok(None), |row| row.get(1)))
}

/// The statement that appends an event, and has it carried by the row that it tells of where that is still the version at hand.
macro_rules! append {
    ($carry:expr) => {
        Statement::new(concat!(
            "WITH event AS (
                 INSERT INTO @extschema@.ledger_events
                     (id, at, actor, table_name, row_id, operation, via, image, prev_hash, hash)
                 SELECT next.id, $1, next.actor, $2, $3, $4, $5, $6, next.prev_hash,
                        @extschema@.ledger_hash(next.prev_hash, next.id, $1, next.actor, $2, $3, $4, $5, $6)
                 FROM (SELECT coalesce(head.id, 0) + 1 AS id, head.hash AS prev_hash, session_user::text AS actor
                       FROM (SELECT) AS always
                       LEFT JOIN (SELECT id, hash FROM @extschema@.ledger_events ORDER BY id DESC LIMIT 1) AS head
                              ON true) AS next
                 RETURNING id
             )",
            $carry,
            " SELECT id FROM event"
        ))
    };
    (carried by $table:literal) => {
        append!(concat!(
            ", carried AS (UPDATE @extschema@.",
            $table,
            " AS ledgered SET last_event_id = event.id FROM event WHERE ledgered.ctid = $7)"
        ))
    };
}

static APPEND: Statement = append!("");
static APPEND_POLICY: Statement = append!(carried by "backup_policies");
static APPEND_BACKUP: Statement = append!(carried by "backup_history");
static APPEND_RECOVERY: Statement = append!(carried by "recovery_history");

/// A change that has come about.
pub struct Change<'a> {
    /// The table.
    pub table: &'a str,
    /// The row's id.
    pub row: i64,
    /// INSERT, UPDATE or DELETE.
    pub operation: &'static str,
    /// Who made it.
    pub mark: Mark,
    /// The row after the change, or before it was deleted.
    pub image: Image,
    /// Where the row lies, unless it was deleted.
    pub place: Option<pg_sys::ItemPointerData>,
}

/// Appends a change to the chain.
pub fn append(change: Change<'_>) -> Result<()> {
    let scope = Scope::enter()?;
    lock_chain(&scope)?;
    let statement = match (change.table, &change.place) {
        ("backup_policies", Some(_)) => &APPEND_POLICY,
        ("backup_history", Some(_)) => &APPEND_BACKUP,
        ("recovery_history", Some(_)) => &APPEND_RECOVERY,
        _ => &APPEND,
    };
    let mut args = arguments(&change.mark, change.table, change.row, change.operation, change.image)?;
    if let Some(place) = change.place {
        args.push(place.into());
    }
    let _quietly = WithoutTriggers::begin();
    statement.write_latest(&args, |rows| {
        rows.one("the event's id")?.need::<i64>(1, "the event's id").map(|_| ())
    })
}

/// Makes an event of an acknowledgement that was noted in `ledger_pending`, under this id.
pub fn append_pending(pending: i64, mark: Mark) -> Result<()> {
    static TAKE: Statement =
        Statement::new("DELETE FROM @extschema@.ledger_pending WHERE id = $1 RETURNING table_name, image");
    const NO_ROW: i64 = 0;
    let scope = Scope::enter()?;
    let taken: Option<(String, Image)> = TAKE.write_latest(&[pending.into()], |rows| {
        rows.first()
            .map(|row| Ok((row.need(1, "a table's name")?, row.need(2, "an image")?)))
            .transpose()
    })?;
    // Whoever takes it back with SQL, in the same transaction, has acknowledged nothing.
    let Some((table, image)) = taken else {
        return Ok(());
    };
    lock_chain(&scope)?;
    let args = arguments(&mark, &table, NO_ROW, "ACKNOWLEDGE", image)?;
    APPEND.write_latest(&args, |_| Ok(()))
}

fn arguments(mark: &Mark, table: &str, row: i64, operation: &'static str, image: Image) -> Result<Vec<Argument>> {
    // SAFETY: reads the clock.
    let now = TimestampWithTimeZone::try_from(unsafe { pg_sys::GetCurrentTimestamp() }).map_err(|_| {
        Error::UnexpectedAnswer {
            what: "a time on the clock",
        }
    })?;
    Ok(vec![
        now.into(),
        table.into(),
        row.into(),
        operation.into(),
        mark.via().into(),
        image.into(),
    ])
}

/// Notes for the end of the transaction that somebody accepted what is wrong in rows of a table that is not ledgered itself. The
/// image says which rows, and why.
pub fn acknowledge(table: &str, image: Image) -> Result<()> {
    static NOTE: Statement =
        Statement::new("INSERT INTO @extschema@.ledger_pending (table_name, image) VALUES ($1, $2)");
    NOTE.write(&[table.into(), image.into()], |_| Ok(()))
}

/// Notes likewise that somebody accepted what is wrong in the ledger itself, `what` in one sentence.
pub fn acknowledge_fault(fault: &Fault, what: &str, reason: &Text) -> Result<()> {
    static NOTE: Statement = Statement::new(
        "INSERT INTO @extschema@.ledger_pending (table_name, image)
         VALUES ('ledger_events', jsonb_strip_nulls(jsonb_build_object(
             'fault', $1, 'event', $2, 'table_name', $3, 'row_id', $4, 'what', $5, 'reason', $6)))",
    );
    let args = [
        fault.key.as_str().into(),
        fault.event.into(),
        fault.table.as_deref().into(),
        fault.row.into(),
        what.into(),
        reason.into(),
    ];
    NOTE.write(&args, |_| Ok(()))
}

/// Makes the events of what this transaction has changed so far, so that the ledger can be held against its rows. Returns whether
/// there was anything to do. The transaction then keeps other ones from appending until it ends.
pub fn append_now() -> Result<bool> {
    static IMMEDIATE: Statement =
        Statement::new("SET CONSTRAINTS @extschema@.ledger_append, @extschema@.ledger_append_insert IMMEDIATE");
    static DEFERRED: Statement =
        Statement::new("SET CONSTRAINTS @extschema@.ledger_append, @extschema@.ledger_append_insert DEFERRED");
    // SAFETY: a plain look at this process's state.
    let transaction = unsafe { pg_sys::GetTopTransactionIdIfAny() };
    if transaction == pg_sys::InvalidTransactionId || MARKED_IN.get() != transaction {
        return Ok(false);
    }
    require_own_constraints()?;
    IMMEDIATE.write(&[], |_| Ok(()))?;
    DEFERRED.write(&[], |_| Ok(()))?;
    Ok(true)
}

/// Refuses where somebody gave a constraint trigger on another table of the schema the name of ours: it would be meant too.
fn require_own_constraints() -> Result<()> {
    static STRANGER: Statement = Statement::new(
        "SELECT t.tgname::text, c.relname::text FROM pg_trigger AS t JOIN pg_class AS c ON c.oid = t.tgrelid
           JOIN pg_extension AS e ON e.extnamespace = c.relnamespace AND e.extname = 'pg_backstop'
          WHERE t.tgname IN ('ledger_append', 'ledger_append_insert')
            AND NOT EXISTS (SELECT FROM pg_depend AS d
                             WHERE d.classid = 'pg_proc'::regclass AND d.objid = t.tgfoid AND d.deptype = 'e' AND d.refobjid = e.oid)
          LIMIT 1",
    );
    let stranger = STRANGER.read_latest(&[], |rows| {
        let named = |row: Row| Ok((row.need::<String>(1, "a trigger")?, row.need::<String>(2, "a table")?));
        rows.first().map(named).transpose()
    })?;
    match stranger {
        None => Ok(()),
        Some((trigger, table)) => Err(Error::UnfitTrigger {
            trigger,
            table,
            why: "has the name of one of the ledger's",
        }),
    }
}

/// Who inserted a backup with SQL, and when, unless it is an import or was accepted. As long as nobody inserts by SQL, the index that
/// is asked is empty.
pub fn put_in_by_sql(backup: i64) -> Result<Option<String>> {
    static BY_SQL: Statement = Statement::new(
        "SELECT format('%s at %s UTC', put.actor, date_trunc('second', put.at AT TIME ZONE 'UTC'))
         FROM @extschema@.ledger_events AS put
         WHERE put.table_name = 'backup_history' AND put.row_id = $1 AND put.via = 'sql' AND put.operation = 'INSERT'
           AND put.image ->> 'origin' IS DISTINCT FROM 'imported'
           AND NOT EXISTS (SELECT FROM @extschema@.ledger_events AS accepted
                            WHERE accepted.table_name = 'ledger_events' AND accepted.operation = 'ACKNOWLEDGE'
                              AND accepted.via = 'function' AND accepted.image ->> 'event' = put.id::text)
         ORDER BY put.id DESC LIMIT 1",
    );
    BY_SQL.read(&[backup.into()], |rows| {
        rows.first()
            .map(|row| Ok(row.need::<Text>(1, "who inserted a backup")?.to_utf8().into_owned()))
            .transpose()
    })
}

/// Two of these differ where a ledgered row may have changed in between, as far as this session can see.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Version {
    newest_event: Option<i64>,
    marks: u64,
}

/// The ledger's version.
pub fn version() -> Result<Version> {
    static LAST: Statement = Statement::new("SELECT max(id) FROM @extschema@.ledger_events");
    Ok(Version {
        newest_event: LAST.read(&[], |rows| rows.one("an event's id")?.get(1))?,
        marks: MARKS.get(),
    })
}

/// While it lives, no trigger and no rule fires that is not meant for replicas too: a row is to carry its event, and nothing else
/// of it may change any more.
struct WithoutTriggers(c_int);

impl WithoutTriggers {
    fn begin() -> Self {
        // SAFETY: a plain variable of this process. Its setting's assign hook would throw away every plan of the session for the
        // sake of rules, and the statements that run meanwhile never run otherwise.
        unsafe {
            let before = pg_sys::SessionReplicationRole;
            pg_sys::SessionReplicationRole = pg_sys::SESSION_REPLICATION_ROLE_REPLICA as c_int;
            Self(before)
        }
    }
}

impl Drop for WithoutTriggers {
    fn drop(&mut self) {
        // SAFETY: as above.
        unsafe { pg_sys::SessionReplicationRole = self.0 };
    }
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
