//! One SQL statement: prepared at its first use, kept for the session, run with a safe search_path and the owner's rights.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::ffi::{CStr, CString, c_char};
use std::mem::ManuallyDrop;
use std::rc::Rc;

use pgrx::{Spi, pg_sys};

use super::Extension;
use super::names::Names;
use super::scope::{FunctionWrites, OwnerRights, Scope};
use super::value::{Argument, Column};
use crate::error::{Error, Result, sayably};
use crate::memory::{self, ReleasedByErrors};

/// A statement of the extension. The extension's schema is written `@extschema@` in it; all else that has no schema is
/// PostgreSQL's own. Its arguments have the types that the first call gives them: pass the same types always.
///
/// It must be a `static`: a plan is kept under its address.
pub struct Statement {
    sql: &'static str,
}

/// How a statement sees the database.
enum Mode {
    /// Changes nothing and takes no transaction ID, so that it works on a standby.
    Read,
    /// As `Read`, and sees all that is committed now, even where the caller's snapshot is older.
    ReadLatest,
    /// As `Read`, and sees what that snapshot shows.
    ReadUnder(pg_sys::Snapshot),
    /// May change rows.
    Write,
    /// May change rows, and sees all that is committed now, even in a transaction whose own snapshot is older.
    WriteLatest,
}

impl Statement {
    /// A statement from its text.
    pub const fn new(sql: &'static str) -> Self {
        Self { sql }
    }

    /// Runs a statement that only reads, and hands its rows to `rows`.
    ///
    /// # Errors
    /// What `rows` returns, [`Error::NotInstalled`], or what SPI refuses. PostgreSQL's own errors unwind.
    pub fn read<R>(&'static self, args: &[Argument], rows: impl FnOnce(Rows) -> Result<R>) -> Result<R> {
        sayably(|| self.run(Mode::Read, args, rows))
    }

    /// Runs a statement that only reads, under a snapshot taken now: for a second look, after another session was faster.
    /// Errors as [`Statement::read`].
    pub fn read_latest<R>(&'static self, args: &[Argument], rows: impl FnOnce(Rows) -> Result<R>) -> Result<R> {
        sayably(|| self.run(Mode::ReadLatest, args, rows))
    }

    /// Runs a statement that only reads, under a snapshot that several statements share. Errors as [`Statement::read`].
    pub fn read_under<R>(
        &'static self,
        snapshot: &OneSnapshot,
        args: &[Argument],
        rows: impl FnOnce(Rows) -> Result<R>,
    ) -> Result<R> {
        sayably(|| self.run(Mode::ReadUnder(snapshot.0), args, rows))
    }

    /// Runs a statement that may write. Errors as [`Statement::read`].
    pub fn write<R>(&'static self, args: &[Argument], rows: impl FnOnce(Rows) -> Result<R>) -> Result<R> {
        sayably(|| self.run(Mode::Write, args, rows))
    }

    /// Runs a statement that may write, under a snapshot taken now, whatever the transaction's isolation level.
    /// Only for what a lock serialises: it may see what the transaction otherwise cannot. Errors as [`Statement::read`].
    pub fn write_latest<R>(&'static self, args: &[Argument], rows: impl FnOnce(Rows) -> Result<R>) -> Result<R> {
        sayably(|| self.run(Mode::WriteLatest, args, rows))
    }

    fn run<R>(&'static self, mode: Mode, args: &[Argument], rows: impl FnOnce(Rows) -> Result<R>) -> Result<R> {
        let scope = Scope::enter()?;
        let extension = scope.extension();
        let _rights = OwnerRights::assume(extension);
        let _via = matches!(mode, Mode::Write | Mode::WriteLatest).then(FunctionWrites::begin);
        // Values outlive SPI's own memory when they are copied to where the caller works.
        // SAFETY: always set.
        let caller = unsafe { pg_sys::CurrentMemoryContext };
        let mut entry = ReleasedByErrors::entry();
        let _reserve = ReleasedByErrors::begin(&mut entry);
        Spi::connect_mut(|_| {
            let plan = self.safe_plan(extension, args)?;
            let mut values: Vec<pg_sys::Datum> = Vec::with_capacity(args.len());
            let mut nulls: Vec<c_char> = Vec::with_capacity(args.len());
            for arg in args {
                nulls.push(if arg.value.is_some() {
                    b' ' as c_char
                } else {
                    b'n' as c_char
                });
                values.push(arg.value.unwrap_or(pg_sys::Datum::from(0_usize)));
            }
            // SAFETY: the plan is a kept one and takes as many values of these types, see plan().
            let status = unsafe {
                pg_sys::SPI_tuptable = std::ptr::null_mut();
                match mode {
                    // Within a transaction that has written already, a read must see what it wrote.
                    Mode::Read => {
                        let unwritten = pg_sys::GetCurrentTransactionIdIfAny() == pg_sys::InvalidTransactionId;
                        pg_sys::SPI_execute_plan(plan.pointer, values.as_mut_ptr(), nulls.as_ptr(), unwritten, 0)
                    }
                    Mode::Write => {
                        pg_sys::SPI_execute_plan(plan.pointer, values.as_mut_ptr(), nulls.as_ptr(), false, 0)
                    }
                    Mode::ReadLatest | Mode::WriteLatest | Mode::ReadUnder(_) => pg_sys::SPI_execute_snapshot(
                        plan.pointer,
                        values.as_mut_ptr(),
                        nulls.as_ptr(),
                        match mode {
                            Mode::ReadUnder(snapshot) => snapshot,
                            _ => pg_sys::GetLatestSnapshot(),
                        },
                        std::ptr::null_mut(),
                        !matches!(mode, Mode::WriteLatest),
                        true,
                        0,
                    ),
                }
            };
            Spi::check_status(status)?;
            // SAFETY: set by the call above, valid until SPI_finish().
            let answer = rows(unsafe { Rows::current(caller) })?;
            memory::check()?;
            Ok(answer)
        })
    }

    /// The kept plan, of which the names still mean our own objects, and will until it runs.
    ///
    /// Whatever changes in the catalogs while we wait for locks makes the plan invalid, and PostgreSQL would then parse its text
    /// again, under the names as they are by then, and go on. So the locks come first, and whoever finds the plan invalid after them
    /// begins anew. Once it is found valid nothing more is waited for until it is planned: the locks are there.
    fn safe_plan(&'static self, extension: &Extension, args: &[Argument]) -> Result<Rc<Plan>> {
        // Others can change the catalogs as often as they like, but hardly each time within these microseconds.
        const ATTEMPTS: usize = 1000;
        for _ in 0..ATTEMPTS {
            let plan = self.plan(extension, args)?;
            plan.names.lock();
            if plan.is_valid() {
                if !plan.is_checked.get() {
                    plan.names.check_membership(extension)?;
                    plan.is_checked.set(true);
                }
                plan.names.check_triggers(extension)?;
                // Both looked into the catalogs, and so may have heard of news.
                if plan.is_valid() {
                    return Ok(plan);
                }
            }
            PLANS.with(|plans| plans.borrow_mut().forget(self));
            pgrx::check_for_interrupts!();
        }
        Err(Error::Unsettled)
    }

    /// The kept plan, made now where there is none.
    fn plan(&'static self, extension: &Extension, args: &[Argument]) -> Result<Rc<Plan>> {
        let schema = extension.quoted_schema()?;
        let key = std::ptr::from_ref(self) as usize;
        let kept = PLANS.with(|plans| plans.borrow_mut().find(extension, &schema, key));
        if let Some(plan) = kept {
            return Ok(plan);
        }
        // Bytes, not text: the name is in the database's encoding, and all else is ASCII.
        let pieces: Vec<&[u8]> = self.sql.split("@extschema@").map(str::as_bytes).collect();
        let sql = CString::new(pieces.join(schema.as_bytes())).map_err(|_| Error::UnexpectedAnswer {
            what: "a statement without a null byte",
        })?;
        let mut types: Vec<pg_sys::Oid> = args.iter().map(|arg| arg.kind).collect();
        // SAFETY: the text and the types outlive the call, which copies them; SPI is connected.
        let plan = unsafe {
            let plan = pg_sys::SPI_prepare(sql.as_ptr(), types.len() as i32, types.as_mut_ptr());
            if plan.is_null() {
                return Err(Error::UnexpectedAnswer { what: "a plan" });
            }
            // Fails only on a NULL plan and on one that is kept already.
            pg_sys::SPI_keepplan(plan);
            Rc::new(Plan {
                names: Names::of(plan),
                is_checked: Cell::new(false),
                pointer: plan,
            })
        };
        PLANS.with(|plans| plans.borrow_mut().by_statement.insert(key, Rc::clone(&plan)));
        Ok(plan)
    }
}

thread_local! {
    // Never dropped: when the process ends, PostgreSQL's memory may be gone before Rust's destructors run.
    static PLANS: ManuallyDrop<RefCell<Plans>> = ManuallyDrop::new(RefCell::new(Plans::default()));
}

/// A snapshot of all that is committed now and of what this transaction has written, whatever its isolation level: for statements
/// that hold one thing against another, and must not see the one earlier than the other.
pub struct OneSnapshot(pg_sys::Snapshot);

impl OneSnapshot {
    /// Takes it; `after_writes` where this command has written what is to be seen.
    pub fn take(after_writes: bool) -> Self {
        // SAFETY: within a transaction. The snapshot is registered, so it lives until it is dropped or the transaction ends.
        unsafe {
            if after_writes {
                pg_sys::CommandCounterIncrement();
            }
            Self(pg_sys::RegisterSnapshot(pg_sys::GetLatestSnapshot()))
        }
    }
}

impl Drop for OneSnapshot {
    fn drop(&mut self) {
        // After an error the transaction's abort has released it, or will.
        if !std::thread::panicking() {
            // SAFETY: registered when it was taken, by the same resource owner.
            unsafe { pg_sys::UnregisterSnapshot(self.0) };
        }
    }
}

/// A plan that SPI keeps. Whoever runs it holds it, so that it is not freed under way.
struct Plan {
    pointer: pg_sys::SPIPlanPtr,
    names: Names,
    /// Whether all that it names belongs to the extension. What belongs to it stays so, but for a superuser's hand.
    is_checked: Cell<bool>,
}

impl Plan {
    fn is_valid(&self) -> bool {
        // SAFETY: computes the search_path, which PostgreSQL compares before it trusts a plan; the plan is a kept one.
        unsafe {
            pg_sys::fetch_search_path_array(std::ptr::null_mut(), 0);
            pg_sys::SPI_plan_is_valid(self.pointer)
        }
    }
}

impl Drop for Plan {
    fn drop(&mut self) {
        // SAFETY: kept when it was made, and freed only here.
        unsafe { pg_sys::SPI_freeplan(self.pointer) };
    }
}

/// Plans of this session, all for the same extension in the same schema.
#[derive(Default)]
struct Plans {
    home: Option<(Extension, CString)>,
    by_statement: HashMap<usize, Rc<Plan>>,
}

impl Plans {
    fn find(&mut self, extension: &Extension, schema: &CStr, statement: usize) -> Option<Rc<Plan>> {
        let at_home = self
            .home
            .as_ref()
            .is_some_and(|(known, name)| known == extension && name.as_c_str() == schema);
        if !at_home {
            // The extension was dropped and made again, or its schema has another name: the text of each plan is stale.
            self.by_statement.clear();
            self.home = Some((*extension, schema.to_owned()));
        }
        self.by_statement.get(&statement).map(Rc::clone)
    }

    fn forget(&mut self, statement: &'static Statement) {
        self.by_statement.remove(&(std::ptr::from_ref(statement) as usize));
    }
}

/// The rows that a statement gave.
pub struct Rows {
    table: *mut pg_sys::SPITupleTable,
    processed: u64,
    next: u64,
    /// Of each column; of a domain what it is made of.
    types: Rc<[pg_sys::Oid]>,
    caller: pg_sys::MemoryContext,
}

impl Rows {
    /// # Safety
    /// SPI must be connected, and its last call the one whose rows are wanted.
    unsafe fn current(caller: pg_sys::MemoryContext) -> Self {
        // SAFETY: global state of SPI, of this thread.
        let (table, processed) = unsafe { (pg_sys::SPI_tuptable, pg_sys::SPI_processed) };
        // SAFETY: a statement that gives no rows has no table; the description of one that does is valid as long as it is.
        let types = unsafe { table.as_ref() }.map_or_else(Vec::new, |table| unsafe {
            (1..=(*table.tupdesc).natts)
                .map(|column| pg_sys::getBaseType(pg_sys::SPI_gettypeid(table.tupdesc, column)))
                .collect()
        });
        Self {
            table,
            processed,
            next: 0,
            types: types.into(),
            caller,
        }
    }

    /// How many rows the statement returned or changed.
    pub fn processed(&self) -> u64 {
        self.processed
    }

    /// Every row, as `of` makes of it.
    ///
    /// # Errors
    /// The first of `of`'s, or [`Error::OutOfMemory`].
    pub fn gather<T>(self, of: impl FnMut(Row) -> Result<T>) -> Result<Vec<T>> {
        memory::collect(self.map(of))
    }

    /// The only row, where there is one.
    pub fn first(mut self) -> Option<Row> {
        self.next()
    }

    /// The only row of a statement that must return one.
    ///
    /// # Errors
    /// [`Error::UnexpectedAnswer`] where there is none.
    pub fn one(self, what: &'static str) -> Result<Row> {
        self.first().ok_or(Error::UnexpectedAnswer { what })
    }
}

impl Iterator for Rows {
    type Item = Row;

    fn next(&mut self) -> Option<Row> {
        if self.table.is_null() || self.next >= self.processed {
            return None;
        }
        let mut values = vec![pg_sys::Datum::null(); self.types.len()];
        let mut nulls = vec![true; self.types.len()];
        // SAFETY: SPI gives `processed` tuples in `vals`, with as many columns as there are types, valid until SPI_finish(); a Row
        // cannot be made elsewhere, and Statement::run() ends before SPI does.
        unsafe {
            let tuple = *(*self.table).vals.add(self.next as usize);
            pg_sys::heap_deform_tuple(tuple, (*self.table).tupdesc, values.as_mut_ptr(), nulls.as_mut_ptr());
        }
        self.next += 1;
        Some(Row {
            values,
            nulls,
            types: Rc::clone(&self.types),
            caller: self.caller,
        })
    }
}

/// One row. Read its values before the closure that got it returns.
pub struct Row {
    values: Vec<pg_sys::Datum>,
    nulls: Vec<bool>,
    types: Rc<[pg_sys::Oid]>,
    caller: pg_sys::MemoryContext,
}

impl Row {
    /// The value in `column` (from 1), `None` for NULL.
    ///
    /// # Errors
    /// [`Error::UnexpectedType`] where the column has another type, [`Error::UnexpectedAnswer`] where there is no such column.
    pub fn get<T: Column>(&self, column: i32) -> Result<Option<T>> {
        memory::check()?;
        let place = usize::try_from(column).ok().and_then(|column| column.checked_sub(1));
        let found = place.and_then(|place| {
            Some((
                *self.values.get(place)?,
                *self.nulls.get(place)?,
                *self.types.get(place)?,
            ))
        });
        let Some((value, is_null, kind)) = found else {
            return Err(Error::UnexpectedAnswer { what: "more columns" });
        };
        // SAFETY: the value is of the type that the description says; it is copied into the caller's memory.
        unsafe { T::read(value, is_null, kind, self.caller) }
    }

    /// The value in `column` (from 1), which must not be NULL.
    ///
    /// # Errors
    /// As [`Row::get`], and [`Error::UnexpectedAnswer`] for NULL.
    pub fn need<T: Column>(&self, column: i32, what: &'static str) -> Result<T> {
        self.get(column)?.ok_or(Error::UnexpectedAnswer { what })
    }

    /// The array in `column` (from 1), which must not be NULL and may be long: as [`Row::need`], and [`Error::OutOfMemory`].
    pub fn need_many<T>(&self, column: i32, what: &'static str) -> Result<Vec<T>>
    where
        Vec<T>: Column,
    {
        let place = usize::try_from(column).ok().and_then(|column| column.checked_sub(1));
        let given = place.and_then(|place| Some((*self.values.get(place)?, *self.nulls.get(place)?)));
        if let Some((value, false)) = given {
            // SAFETY: the value of a tuple, of a type of variable length.
            let bytes = unsafe { pg_sys::toast_raw_datum_size(value) };
            // A vector that grows holds its elements twice while it does, in up to twice the room.
            memory::require(bytes.saturating_mul(4))?;
        }
        self.need(column, what)
    }
}
