//! What pg_stat_activity and pg_extension say of the worker and its extension.

use super::{Extension, Statement};
use crate::error::{Error, Result};
use pgrx::prelude::*;

/// The version that this library's SQL objects have.
const VERSION: &str = env!("CARGO_PKG_VERSION");

/// The extension, if its SQL objects are those that this library knows.
///
/// # Errors
/// Where they are of another version: columns could be missing.
pub fn find_fitting_extension() -> Result<Option<Extension>> {
    static INSTALLED: Statement = Statement::new("SELECT extversion FROM pg_extension WHERE extname = 'pg_backstop'");
    let Some(extension) = Extension::find() else {
        return Ok(None);
    };
    let objects: String = INSTALLED.read(&[], |rows| rows.one("the extension's row")?.need(1, "a version"))?;
    if objects != VERSION {
        return Err(Error::OtherVersion {
            library: VERSION,
            objects,
        });
    }
    Ok(Some(extension))
}

/// How the text in pg_stat_activity begins while the worker's last tick has failed.
pub const FAILING: &str = "pg_backstop: failing: ";

/// The worker's process.
pub struct Running {
    /// Its process id.
    pub pid: i32,
    /// Its database.
    pub database: String,
    /// When it last went from work to waiting.
    pub last_tick_at: Option<TimestampWithTimeZone>,
    /// Why its last tick failed, if it did; cut at track_activity_query_size.
    pub error: Option<String>,
}

/// The worker of the current database, if one runs.
pub fn running() -> Result<Option<Running>> {
    static RUNNING: Statement = Statement::new(
        "SELECT pid, datname::text, state_change, query FROM pg_stat_activity
          WHERE backend_type = 'pg_backstop worker' AND datname = current_database() LIMIT 1",
    );
    RUNNING.read(&[], |rows| {
        rows.first()
            .map(|row| {
                Ok(Running {
                    pid: row.need(1, "a pid")?,
                    database: row.need(2, "a name")?,
                    last_tick_at: row.get(3)?,
                    error: row
                        .get::<String>(4)?
                        .and_then(|said| said.strip_prefix(FAILING).map(str::to_owned)),
                })
            })
            .transpose()
    })
}

/// Ends the worker, whichever database it serves. Returns whether one ran.
pub fn terminate() -> Result<bool> {
    static TERMINATE: Statement = Statement::new(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE backend_type = 'pg_backstop worker'",
    );
    TERMINATE.write(&[], |rows| Ok(rows.processed() > 0))
}

/// The process that holds a lock of module `locks` in the current database; none where that is
/// over by now.
pub fn holder_of_userlock(space: u32, lock: u32) -> Result<Option<i32>> {
    static HOLDER: Statement = Statement::new(
        "SELECT pid FROM pg_locks
          WHERE locktype = 'userlock' AND classid = $1 AND objid = $2 AND granted
            AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
          LIMIT 1",
    );
    let (space, lock) = (pg_sys::Oid::from(space), pg_sys::Oid::from(lock));
    HOLDER.read(&[space.into(), lock.into()], |rows| {
        rows.first().map_or(Ok(None), |row| row.get(1))
    })
}
