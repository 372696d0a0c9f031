//! Where the extension lives in this database: its schema and its owner.
//!
//! Neither is fixed (`CREATE EXTENSION … SCHEMA`), and a session may see the extension dropped and made again, or its schema
//! renamed. So each use looks at pg_extension, which is one index lookup.

use std::ffi::{CStr, CString};

use pgrx::pg_sys;

use crate::error::{Error, Result};

const NAME: &CStr = c"pg_backstop";

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
    /// Needs a transaction. Waits while somebody drops it. Does nothing in a process without a database.
    pub fn keep() {
        // SAFETY: a plain variable of this process.
        if unsafe { pg_sys::MyDatabaseId } == pg_sys::InvalidOid {
            return;
        }
        if let Some(extension) = Self::find() {
            // SAFETY: an ordinary heavyweight lock of the transaction, as RemoveObjects() takes a stronger one of; waiting for it
            // answers interrupts.
            unsafe {
                pg_sys::LockDatabaseObject(
                    pg_sys::ExtensionRelationId,
                    extension.oid,
                    0,
                    pg_sys::AccessShareLock as pg_sys::LOCKMODE,
                );
            }
        }
    }

    /// Finds the extension.
    ///
    /// # Errors
    /// [`Error::NotInstalled`] where it is not in the current database.
    pub fn get() -> Result<Self> {
        Self::find().ok_or(Error::NotInstalled)
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
