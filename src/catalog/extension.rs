//! Where the extension lives in this database: its schema and its owner.
//!
//! Neither is fixed (`CREATE EXTENSION … SCHEMA`), and a session may see the extension dropped and made again, or its schema
//! renamed. So each use looks at pg_extension, which is one index lookup. Whether the place can be trusted is for
//! [`trust`](super::trust) to say.

use std::ffi::{CStr, CString};

use pgrx::pg_sys;

use crate::compat;
use crate::error::{Error, Result};

const NAME: &CStr = c"pg_backstop";

/// What catalog/pg_depend.h says, which pg_sys lacks.
mod depend {
    use pgrx::pg_sys;

    pub const RELATION: pg_sys::Oid = pg_sys::Oid::from_u32(2608);
    pub const INDEX: pg_sys::Oid = pg_sys::Oid::from_u32(2674);
    pub const REFCLASSID: pg_sys::AttrNumber = 4;
    pub const REFOBJID: pg_sys::AttrNumber = 5;

    /// The first columns of a row.
    #[repr(C)]
    pub struct Row {
        pub class: pg_sys::Oid,
        pub object: pg_sys::Oid,
    }
}

/// The extension's row in pg_extension.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extension {
    /// Its OID: another one after `DROP EXTENSION` and `CREATE EXTENSION`.
    pub oid: pg_sys::Oid,
    /// The role that made it, on whose behalf its statements run.
    pub owner: pg_sys::Oid,
    /// The schema that holds its objects.
    pub schema: pg_sys::Oid,
}

impl Extension {
    /// Finds the extension in the current database; `None` where it is not installed.
    ///
    /// Needs a transaction. Works on a standby.
    pub fn find() -> Option<Self> {
        // SAFETY: a plain catalog scan, as get_extension_oid() in commands/extension.c does it; the key lives as long as the
        // scan, the tuple is read before the scan ends. An error unwinds, and transaction abort closes scan and relation.
        unsafe {
            let relation = pg_sys::table_open(pg_sys::ExtensionRelationId, pg_sys::AccessShareLock as pg_sys::LOCKMODE);
            let mut key = pg_sys::ScanKeyData::default();
            pg_sys::ScanKeyInit(
                &mut key,
                pg_sys::Anum_pg_extension_extname as pg_sys::AttrNumber,
                pg_sys::BTEqualStrategyNumber as pg_sys::StrategyNumber,
                pg_sys::Oid::from(pg_sys::F_NAMEEQ),
                pg_sys::Datum::from(NAME.as_ptr()),
            );
            let scan = pg_sys::systable_beginscan(
                relation,
                pg_sys::Oid::from(pg_sys::ExtensionNameIndexId),
                true,
                std::ptr::null_mut(),
                1,
                &mut key,
            );
            let tuple = pg_sys::systable_getnext(scan);
            let found = (!tuple.is_null()).then(|| {
                let row = pg_sys::GETSTRUCT(tuple).cast::<pg_sys::FormData_pg_extension>();
                Self {
                    oid: (*row).oid,
                    owner: (*row).extowner,
                    schema: (*row).extnamespace,
                }
            });
            pg_sys::systable_endscan(scan);
            pg_sys::table_close(relation, pg_sys::AccessShareLock as pg_sys::LOCKMODE);
            found
        }
    }

    /// Sees to it that the extension, if it is there, is not dropped before the end of the transaction. `DROP EXTENSION` locks the
    /// extension before it locks the tables one by one: whoever holds some of these and wants others would be in its way, and it in
    /// theirs.
    ///
    /// Needs a transaction that has locked nothing yet. Waits while somebody drops it. Does nothing in a process without a database.
    pub fn keep() {
        // SAFETY: a plain variable of this process.
        if unsafe { pg_sys::MyDatabaseId } == pg_sys::InvalidOid {
            return;
        }
        if let Some(extension) = Self::find() {
            extension.wait_for_lock();
        }
    }

    /// Finds the extension, and keeps it from being dropped before the end of the transaction.
    ///
    /// # Errors
    /// [`Error::NotInstalled`] where it is not in the current database, [`Error::BeingDropped`] where another session drops it and
    /// must not be waited for.
    pub fn hold() -> Result<Self> {
        loop {
            let found = Self::find().ok_or(Error::NotInstalled)?;
            found.lock()?;
            // While we waited it may have gone, or have been made again.
            if Self::find() == Some(found) {
                return Ok(found);
            }
        }
    }

    /// A query locks the views that it names before a function in them is called, so this may come second. `DROP EXTENSION` would
    /// then wait for us as we wait for it, and one of both would fail after a second. Better at once, and always the same one.
    fn lock(&self) -> Result<()> {
        // SAFETY: an ordinary heavyweight lock of the transaction, as RemoveObjects() takes a stronger one of.
        let taken = unsafe {
            pg_sys::ConditionalLockDatabaseObject(
                pg_sys::ExtensionRelationId,
                self.oid,
                0,
                pg_sys::AccessShareLock as pg_sys::LOCKMODE,
            )
        };
        if taken {
            return Ok(());
        }
        if self.relations().into_iter().any(compat::is_locked_by_me) {
            return Err(Error::BeingDropped);
        }
        self.wait_for_lock();
        Ok(())
    }

    fn wait_for_lock(&self) {
        // SAFETY: as above; waiting for it answers interrupts.
        unsafe {
            pg_sys::LockDatabaseObject(
                pg_sys::ExtensionRelationId,
                self.oid,
                0,
                pg_sys::AccessShareLock as pg_sys::LOCKMODE,
            );
        }
    }

    /// The tables, views and sequences that belong to it.
    fn relations(&self) -> Vec<pg_sys::Oid> {
        let mut found = Vec::new();
        // SAFETY: a plain catalog scan, as in find(); a row of pg_depend has no column that could be NULL.
        unsafe {
            let catalog = pg_sys::table_open(depend::RELATION, pg_sys::AccessShareLock as pg_sys::LOCKMODE);
            let mut keys = [pg_sys::ScanKeyData::default(); 2];
            let wanted = [
                (depend::REFCLASSID, pg_sys::ExtensionRelationId),
                (depend::REFOBJID, self.oid),
            ];
            for (key, (column, value)) in keys.iter_mut().zip(wanted) {
                pg_sys::ScanKeyInit(
                    key,
                    column,
                    pg_sys::BTEqualStrategyNumber as pg_sys::StrategyNumber,
                    pg_sys::Oid::from(pg_sys::F_OIDEQ),
                    pg_sys::Datum::from(value),
                );
            }
            let (count, keys) = (keys.len() as i32, keys.as_mut_ptr());
            let scan = pg_sys::systable_beginscan(catalog, depend::INDEX, true, std::ptr::null_mut(), count, keys);
            loop {
                let tuple = pg_sys::systable_getnext(scan);
                if tuple.is_null() {
                    break;
                }
                let row = pg_sys::GETSTRUCT(tuple).cast::<depend::Row>();
                if (*row).class == pg_sys::RelationRelationId {
                    found.push((*row).object);
                }
            }
            pg_sys::systable_endscan(scan);
            pg_sys::table_close(catalog, pg_sys::AccessShareLock as pg_sys::LOCKMODE);
        }
        found
    }

    /// Whether an object, of which `catalog` tells, belongs to it.
    pub fn has(&self, catalog: pg_sys::Oid, object: pg_sys::Oid) -> bool {
        // SAFETY: a plain catalog scan.
        unsafe { pg_sys::getExtensionOfObject(catalog, object) == self.oid }
    }

    /// The schema's name, quoted where SQL wants quotes, in the database's encoding.
    pub fn quoted_schema(&self) -> Result<CString> {
        // SAFETY: get_namespace_name() gives NULL or a palloc'ed string, quote_identifier() that string or another palloc'ed one.
        unsafe {
            let name = pg_sys::get_namespace_name(self.schema);
            if name.is_null() {
                return Err(Error::NotInstalled);
            }
            Ok(CStr::from_ptr(pg_sys::quote_identifier(name)).to_owned())
        }
    }
}
