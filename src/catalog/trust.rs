//! Whether the extension lies where nobody but superusers can put something in its place.
//!
//! Whoever owns a schema can exchange it for another of the same name; whoever may create objects in it can add functions there
//! that fit a call better than ours. Our statements run with the rights of the extension's owner, so either would be a way to
//! become a superuser. Owners and privileges change at any time, so this is asked in each call: a few look-ups in caches.
//! `sql/schema.sql` asks the same before `CREATE EXTENSION` makes anything.

use std::ffi::{CStr, c_char};
use std::ptr::NonNull;

use pgrx::array::RawArray;
use pgrx::pg_sys;

use super::Extension;
use crate::error::{Error, Result};

/// Refuses an extension whose owner is no superuser, and one in a schema that others than superusers own or may create in.
///
/// # Errors
/// [`Error::OwnerIsNoSuperuser`], [`Error::UnsafeSchema`].
pub fn check(extension: &Extension) -> Result<()> {
    if !is_superuser(extension.owner) {
        return Err(Error::OwnerIsNoSuperuser {
            role: role_name(extension.owner),
        });
    }
    match intruder(extension.schema)? {
        None => Ok(()),
        Some(intruder) => Err(Error::UnsafeSchema {
            // SAFETY: NULL or a palloc'ed string.
            schema: unsafe { name(pg_sys::get_namespace_name(extension.schema)) },
            who: intruder.who(),
            why: intruder.why(),
        }),
    }
}

/// Somebody who could put something in the place of what is in a schema.
enum Intruder {
    /// Owns it.
    Owner(pg_sys::Oid),
    /// Owns the database, and thereby what belongs to pg_database_owner.
    DatabaseOwner(pg_sys::Oid),
    /// May create in it.
    Creator(pg_sys::Oid),
    /// Everybody may create in it.
    Public,
}

impl Intruder {
    fn who(&self) -> String {
        match self {
            Self::Owner(role) | Self::DatabaseOwner(role) | Self::Creator(role) => {
                format!("role \"{}\"", role_name(*role))
            }
            Self::Public => "PUBLIC".into(),
        }
    }

    fn why(&self) -> &'static str {
        match self {
            Self::Owner(_) => "owns it",
            Self::DatabaseOwner(_) => "owns the database, and so what belongs to pg_database_owner,",
            Self::Creator(_) | Self::Public => "may create objects in it",
        }
    }
}

/// The first one who is no superuser and could.
fn intruder(schema: pg_sys::Oid) -> Result<Option<Intruder>> {
    // SAFETY: reads a row of pg_namespace as pg_namespace_aclmask() does, and releases it after its last use; the list of
    // privileges is an array of AclItem without NULLs, a copy where it was compressed.
    unsafe {
        let cache = pg_sys::SysCacheIdentifier::NAMESPACEOID as i32;
        let row = pg_sys::SearchSysCache1(cache, pg_sys::Datum::from(schema));
        if row.is_null() {
            return Err(Error::NotInstalled);
        }
        let owner = (*pg_sys::GETSTRUCT(row).cast::<pg_sys::FormData_pg_namespace>()).nspowner;
        let mut is_null = false;
        let column = pg_sys::Anum_pg_namespace_nspacl as pg_sys::AttrNumber;
        let acl = pg_sys::SysCacheGetAttr(cache, row, column, &mut is_null);
        let mut creators = Vec::new();
        if !is_null && let Some(array) = NonNull::new(pg_sys::pg_detoast_datum(acl.cast_mut_ptr())) {
            let mut items = RawArray::from_ptr(array.cast());
            for item in items.data::<pg_sys::AclItem>().as_ref() {
                if item.ai_privs & pg_sys::AclMode::from(pg_sys::ACL_CREATE) != 0 {
                    creators.push(item.ai_grantee);
                }
            }
        }
        pg_sys::ReleaseSysCache(row);
        if let Some(stranger) = stranger(owner, Intruder::Owner) {
            return Ok(Some(stranger));
        }
        Ok(creators.into_iter().find_map(|role| stranger(role, Intruder::Creator)))
    }
}

/// The role, if it is no superuser; of pg_database_owner the owner of the database.
fn stranger(role: pg_sys::Oid, kind: fn(pg_sys::Oid) -> Intruder) -> Option<Intruder> {
    // A grant to PUBLIC names no role.
    if role == pg_sys::InvalidOid {
        return Some(Intruder::Public);
    }
    if role.to_u32() == pg_sys::ROLE_PG_DATABASE_OWNER {
        let owner = database_owner();
        return (!is_superuser(owner)).then_some(Intruder::DatabaseOwner(owner));
    }
    (!is_superuser(role)).then(|| kind(role))
}

/// The owner of the current database; none where it cannot be found.
fn database_owner() -> pg_sys::Oid {
    // SAFETY: reads a row of pg_database, and releases it after its last use.
    unsafe {
        let cache = pg_sys::SysCacheIdentifier::DATABASEOID as i32;
        let row = pg_sys::SearchSysCache1(cache, pg_sys::Datum::from(pg_sys::MyDatabaseId));
        if row.is_null() {
            return pg_sys::InvalidOid;
        }
        let owner = (*pg_sys::GETSTRUCT(row).cast::<pg_sys::FormData_pg_database>()).datdba;
        pg_sys::ReleaseSysCache(row);
        owner
    }
}

/// Whether a role is a superuser; one that is gone is none.
pub(super) fn is_superuser(role: pg_sys::Oid) -> bool {
    // SAFETY: looks into the caches.
    unsafe { pg_sys::superuser_arg(role) }
}

/// A role's name, for a message.
pub(super) fn role_name(role: pg_sys::Oid) -> String {
    // SAFETY: NULL or a palloc'ed string.
    unsafe { name(pg_sys::GetUserNameFromId(role, true)) }
}

/// A name for a message; that of what is gone is a question mark.
///
/// # Safety
/// `name` must be NULL or NUL-terminated.
pub(super) unsafe fn name(name: *const c_char) -> String {
    if name.is_null() {
        return "?".into();
    }
    // SAFETY: as the caller says.
    unsafe { CStr::from_ptr(name) }.to_string_lossy().into_owned()
}
