//! What holds while one of our statements runs: names mean PostgreSQL's own objects, the extension's owner is asked, and the
//! ledger knows that the change comes from us.
//!
//! All of it ends with the scope. Where an error ends it, the transaction's or subtransaction's abort restores them.

use std::cell::Cell;
use std::ffi::{CStr, c_int};

use pgrx::pg_sys;

use super::{Extension, trust};
use crate::error::Result;
use crate::memory;

thread_local! {
    static HELD: Cell<Option<Extension>> = const { Cell::new(None) };
}

/// While it lives, the extension's place in the database is known and the search_path is the safe one. A statement makes one
/// for itself; a function that runs several makes one for all of them. Nothing can drop the extension meanwhile, nor before the end
/// of the transaction.
pub struct Scope {
    extension: Extension,
    before: Option<Extension>,
    _path: SafeSearchPath,
}

impl Scope {
    /// Begins one, within another or not.
    ///
    /// # Errors
    /// What [`Extension::hold`] and [`trust::check`] return.
    pub fn enter() -> Result<Self> {
        memory::begin()?;
        let before = HELD.get();
        let extension = match before {
            Some(extension) => extension,
            None => {
                let extension = Extension::hold()?;
                trust::check(&extension)?;
                extension
            }
        };
        // A trigger of the user's may have changed the path since an outer scope began, so it is looked at each time.
        let path = SafeSearchPath::set();
        HELD.set(Some(extension));
        Ok(Self {
            extension,
            before,
            _path: path,
        })
    }

    /// The extension.
    pub fn extension(&self) -> &Extension {
        &self.extension
    }
}

impl Drop for Scope {
    fn drop(&mut self) {
        HELD.set(self.before);
    }
}

/// PostgreSQL's own GUC_SAFE_SEARCH_PATH (`utils/guc.h` since 17): no object of the caller's can be reached by an unqualified
/// name, neither a table nor an operator.
const SAFE_SEARCH_PATH: &CStr = c"pg_catalog, pg_temp";

/// What the extension asks takes milliseconds; compiling it first would take a hundred.
pub const NO_JIT: (&CStr, &CStr) = (c"jit", c"off");

/// While it lives, `search_path` is the safe one.
///
/// Setting it is cheaper than it looks, and a plan that SPI keeps was made under this path, so it stays valid whatever the
/// caller's path is.
struct SafeSearchPath(Option<c_int>);

impl SafeSearchPath {
    fn set() -> Self {
        // SAFETY: the variable is NULL or a NUL-terminated string that guc.c owns; it is not kept.
        let is_safe = unsafe {
            let current = pg_sys::namespace_search_path;
            !current.is_null() && CStr::from_ptr(current) == SAFE_SEARCH_PATH
        };
        if is_safe {
            return Self(None);
        }
        // SAFETY: as RestrictSearchPath() in guc.c does it.
        unsafe {
            let level = pg_sys::NewGUCNestLevel();
            for (name, value) in [(c"search_path", SAFE_SEARCH_PATH), NO_JIT] {
                pg_sys::set_config_option(
                    name.as_ptr(),
                    value.as_ptr(),
                    pg_sys::GucContext::PGC_USERSET,
                    pg_sys::GucSource::PGC_S_SESSION,
                    pg_sys::GucAction::GUC_ACTION_SAVE,
                    true,
                    0,
                    false,
                );
            }
            Self(Some(level))
        }
    }
}

impl Drop for SafeSearchPath {
    fn drop(&mut self) {
        if let Some(level) = self.0
            && !std::thread::panicking()
        {
            // SAFETY: the level is the innermost one, since scopes nest like calls.
            unsafe { pg_sys::AtEOXact_GUC(true, level) };
        }
    }
}

/// While it lives, permissions are those of the extension's owner, as they are those of a table's owner while a foreign key
/// is checked (`ri_PerformCheck()` in utils/adt/ri_triggers.c).
///
/// So `GRANT EXECUTE` on a function that writes is enough: whoever has it changes the ledger through that function and in no
/// other way. It covers the constant statements of this module only, nothing that a caller can put words into.
pub struct OwnerRights {
    user: pg_sys::Oid,
    context: c_int,
}

impl OwnerRights {
    pub fn assume(extension: &Extension) -> Self {
        let mut user = pg_sys::InvalidOid;
        let mut context = 0;
        // SAFETY: plain reads and writes of miscinit.c's state.
        unsafe {
            pg_sys::GetUserIdAndSecContext(&mut user, &mut context);
            pg_sys::SetUserIdAndSecContext(
                extension.owner,
                context | (pg_sys::SECURITY_LOCAL_USERID_CHANGE | pg_sys::SECURITY_NOFORCE_RLS) as c_int,
            );
        }
        Self { user, context }
    }
}

impl Drop for OwnerRights {
    fn drop(&mut self) {
        // SAFETY: as above.
        unsafe { pg_sys::SetUserIdAndSecContext(self.user, self.context) };
    }
}

thread_local! {
    static FUNCTION_WRITES: Cell<Option<i32>> = const { Cell::new(None) };
}

/// While it lives, what is written is written by the extension's own code. SQL has no way to make one, so an event of the
/// ledger can say whether a row was changed through the functions or past them. What a trigger of somebody else's writes while
/// one of our statements runs is past them.
pub struct FunctionWrites {
    before: Option<i32>,
}

impl FunctionWrites {
    pub fn begin() -> Self {
        Self {
            before: FUNCTION_WRITES.replace(Some(trigger_depth())),
        }
    }

    /// For a row trigger: whether the statement that fired it is one of the extension's own.
    pub fn fired_this_trigger() -> bool {
        FUNCTION_WRITES.get().is_some_and(|depth| trigger_depth() == depth + 1)
    }
}

impl Drop for FunctionWrites {
    fn drop(&mut self) {
        FUNCTION_WRITES.set(self.before);
    }
}

/// How many triggers are running within each other, as pg_trigger_depth() shows it.
fn trigger_depth() -> i32 {
    // SAFETY: reads a counter; takes no arguments.
    unsafe { pgrx::direct_function_call(pg_sys::pg_trigger_depth, &[]) }.unwrap_or(0)
}
