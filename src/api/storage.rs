//! Reading files of the server on a caller's behalf: who may, and what is said when nothing is read.

use pgrx::pg_sys;
use pgrx::prelude::*;

use super::call;
use crate::catalog::Text;

/// Whether the caller may have files of the server read that are not the database's.
pub fn may_read_server_files() -> bool {
    is_member_of(pg_sys::ROLE_PG_READ_SERVER_FILES)
}

/// Whether the caller may have the server run programs.
pub fn may_execute_server_programs() -> bool {
    is_member_of(pg_sys::ROLE_PG_EXECUTE_SERVER_PROGRAM)
}

fn is_member_of(role: u32) -> bool {
    // SAFETY: reads the catalog within the caller's transaction. A superuser is a member of every role.
    unsafe { pg_sys::has_privs_of_role(pg_sys::GetUserId(), pg_sys::Oid::from(role)) }
}

/// Whether the caller may have `path` read. Where not, a notice says that `consequence` follows, and why.
pub fn readable(path: &Text, consequence: &str) -> bool {
    if !may_read_server_files() {
        call::tell(
            PgLogLevel::NOTICE,
            consequence.to_owned(),
            format!(
                "Reading \"{}\" takes the privileges of pg_read_server_files.",
                path.to_utf8()
            ),
            "Have them granted, or pass what you know of the backup.",
        );
        return false;
    }
    if !path.as_path().is_absolute() {
        not_read(consequence, &format!("\"{}\" is not an absolute path.", path.to_utf8()));
        return false;
    }
    true
}

/// Says that something on disk was not read, what follows, and why.
pub fn not_read(consequence: &str, why: &str) {
    call::tell(
        PgLogLevel::NOTICE,
        consequence.to_owned(),
        why.to_owned(),
        "The path is looked up on the database server, by the user that the server runs as.",
    );
}
