//! The worker's session: independent of what the database, its owner or a role prefer.
//!
//! Whoever owns a database may have settings take effect for every session in it (`ALTER DATABASE … SET`), the worker's too:
//! another user, whose name the ledger would then tell, other formats, errors that end the process, plans that take for ever. So
//! what comes from there is taken back as a whole; the worker goes by the server's configuration, as the launcher does.

use crate::compat;
use crate::error::{Error, Result};
use crate::{catalog, transaction};
use pgrx::pg_sys;
use std::collections::HashMap;
use std::ffi::{CStr, CString};

/// What a setting has where no database and no role has a say, by its name.
pub struct Configured(HashMap<CString, CString>);

impl Configured {
    /// To be called before the process connects to its database.
    pub fn remember() -> Self {
        let values = compat::settings().into_iter().filter_map(|setting| {
            // SAFETY: a setting's name lives as long as the process; its value is copied at once.
            unsafe {
                let name = (*setting).name;
                let value = pg_sys::GetConfigOption(name, true, false);
                let is_known = !name.is_null() && !value.is_null();
                is_known.then(|| (CStr::from_ptr(name).to_owned(), CStr::from_ptr(value).to_owned()))
            }
        });
        Self(values.collect())
    }

    /// Takes back what the database or a role have set, and sets what the worker needs. To be called once it has connected.
    ///
    /// # Errors
    /// Where a setting cannot be set.
    pub fn restore(&self) -> Result<()> {
        transaction::in_transaction(|| {
            // Others are set with the rights of the session's user, so this comes first.
            be_bootstrap_superuser()?;
            for setting in compat::settings() {
                // SAFETY: as above.
                let (name, source) = unsafe { ((*setting).name, (*setting).source) };
                if !is_from_database_or_role(source) {
                    continue;
                }
                // SAFETY: as above.
                let name = unsafe { CStr::from_ptr(name) };
                if let Some(value) = self.0.get(name)
                    && !is_user(name)
                {
                    set(name, value);
                }
            }
            OWN.iter().for_each(|(name, value)| set(name, value));
            // SAFETY: a variable of this process; with this value PostgreSQL tracks no origin and only marks the commit records.
            unsafe { pg_sys::replorigin_session_origin = BOOKKEEPING_ORIGIN };
            Ok(())
        })
    }
}

// Readers of WAL know the extension's own commits by it; see origin.h, DoNotReplicateId.
const BOOKKEEPING_ORIGIN: pg_sys::RepOriginId = u16::MAX;

/// What makes the worker harmless.
const OWN: &[(&CStr, &CStr)] = &[
    (c"search_path", c""),
    catalog::NO_JIT,
    // Facts can be found again; no session should wait for the disk, or for a standby, because of them.
    (c"synchronous_commit", c"off"),
    (c"default_transaction_read_only", c"off"),
    (c"default_transaction_isolation", c"read committed"),
    (c"statement_timeout", c"0"),
    (c"lock_timeout", c"10s"),
    // An error ends the tick, not the process.
    (c"exit_on_error", c"off"),
    // The ledger's triggers must see what the worker writes.
    (c"session_replication_role", c"origin"),
    // It would end the process, not the transaction.
    #[cfg(any(feature = "pg17", feature = "pg18"))]
    (c"transaction_timeout", c"0"),
];

/// Whether `ALTER DATABASE … SET` or `ALTER ROLE … SET` gave the setting its value.
fn is_from_database_or_role(source: pg_sys::GucSource::Type) -> bool {
    use pg_sys::GucSource::{PGC_S_DATABASE_USER, PGC_S_GLOBAL};
    (PGC_S_GLOBAL..=PGC_S_DATABASE_USER).contains(&source)
}

fn is_user(name: &CStr) -> bool {
    [c"session_authorization", c"role"].contains(&name)
}

fn be_bootstrap_superuser() -> Result<()> {
    // SAFETY: gives NULL or a palloc'ed string, inside of a transaction.
    let name = unsafe { pg_sys::GetUserNameFromId(pg_sys::BOOTSTRAP_SUPERUSERID.into(), true) };
    if name.is_null() {
        return Err(Error::UnexpectedAnswer {
            what: "the bootstrap superuser",
        });
    }
    // SAFETY: palloc'ed in the transaction's memory.
    set(c"session_authorization", unsafe { CStr::from_ptr(name) });
    set(c"role", c"none");
    Ok(())
}

fn set(name: &CStr, value: &CStr) {
    // SAFETY: zero-terminated strings; the source is the one of SET in a session. What a transaction sets stays when it commits.
    unsafe {
        pg_sys::SetConfigOption(
            name.as_ptr(),
            value.as_ptr(),
            pg_sys::GucContext::PGC_SUSET,
            pg_sys::GucSource::PGC_S_SESSION,
        );
    }
}
