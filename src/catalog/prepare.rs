//! What the ledger knows of a backup that somebody wants to recover from, and of a segment that it needs.

use super::{PgLsn, Statement, Text};
use crate::error::Result;

/// A backup on record.
pub struct Recorded {
    /// Its key.
    pub id: i64,
    /// One of the types of backup_history.
    pub backup_type: String,
    /// running, completed, failed or expired.
    pub status: String,
    /// Why it failed.
    pub error: Option<Text>,
    /// unverified, passed or failed.
    pub verification: String,
    /// Where it begins.
    pub start_lsn: Option<PgLsn>,
    /// Where it is consistent.
    pub end_lsn: Option<PgLsn>,
    /// Where it lies.
    pub path: Option<Text>,
}

static RECORDED_AT: Statement = Statement::new(
    "SELECT id, backup_type, status, error, verification, start_lsn, end_lsn, backup_path
     FROM @extschema@.backup_history
     WHERE rtrim(backup_path, '/') = rtrim($1, '/') AND is_wal_range IS NOT TRUE
     ORDER BY status = 'completed' DESC, id DESC LIMIT 1",
);

/// The newest backup on record at this path, a completed one if there is one.
pub fn recorded_at(path: &Text) -> Result<Option<Recorded>> {
    RECORDED_AT.read(&[path.into()], |rows| rows.first().map(recorded).transpose())
}

static BEGINNING_AT: Statement = Statement::new(
    "SELECT id, backup_type, status, error, verification, start_lsn, end_lsn, backup_path
     FROM @extschema@.backup_history
     WHERE timeline_id = $1 AND start_lsn = $2 AND status = 'completed'
       AND backup_type IN ('full', 'incremental', 'differential') AND is_wal_range IS NOT TRUE
     ORDER BY backup_path IS NULL, id DESC LIMIT 1",
);

/// The newest completed physical backup that begins there, one whose path is known if there is one.
pub fn beginning_at(timeline: i32, start: PgLsn) -> Result<Option<Recorded>> {
    BEGINNING_AT.read(&[timeline.into(), start.into()], |rows| {
        rows.first().map(recorded).transpose()
    })
}

fn recorded(row: super::statement::Row) -> Result<Recorded> {
    Ok(Recorded {
        id: row.need(1, "the backup's id")?,
        backup_type: row.need(2, "the backup's type")?,
        status: row.need(3, "the backup's status")?,
        error: row.get(4)?,
        verification: row.need(5, "the backup's verification")?,
        start_lsn: row.get(6)?,
        end_lsn: row.get(7)?,
        path: row.get(8)?,
    })
}

static VERIFIED_SHA256: Statement =
    Statement::new("SELECT sha256 FROM @extschema@.wal_archive WHERE segment_name = $1 AND status = 'verified'");

/// SHA-256 of what was verified under a segment's name.
pub fn verified_sha256(segment: &str) -> Result<Option<String>> {
    VERIFIED_SHA256.read(&[segment.into()], |rows| {
        rows.first().map_or(Ok(None), |row| row.get(1))
    })
}
