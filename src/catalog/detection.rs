//! Base backups that the archive tells of, joined with what was recorded by calls.

use super::{PgLsn, Statement};
use crate::error::Result;

/// A base backup as its backup history file tells of it.
#[derive(Clone, Debug)]
pub struct Detected {
    /// Name of the backup history file.
    pub file: String,
    /// The backup's label.
    pub label: String,
    /// `full` or `incremental`.
    pub backup_type: &'static str,
    /// Timeline on which it started.
    pub timeline: u32,
    /// Where replay starts.
    pub start: u64,
    /// Where it is consistent.
    pub end: u64,
    /// First segment that it needs.
    pub start_wal_file: String,
    /// Last segment that it needs.
    pub end_wal_file: String,
    /// When it started, `YYYY-MM-DD HH:MM:SS` in the server's log_timezone.
    pub started_at: Option<String>,
    /// When it ended, likewise.
    pub finished_at: Option<String>,
    /// Where the backup that an incremental one builds on starts.
    pub parent_start: Option<u64>,
}

/// Makes the ledger know of a backup: a recorded row that encloses it gets the backup's own positions, and without one a row
/// is added. Does nothing where the file is known already, and raises an error where another transaction holds that row.
pub fn record(backup: &Detected) -> Result<()> {
    // Of several recorded rows that enclose the backup, the one with its label or, failing that, the one begun last.
    static RECORD: Statement = Statement::new(
        "WITH told AS (
             SELECT $1::text AS file, $2::text AS label, $3::text AS backup_type, $4::integer AS timeline_id,
                    $5::pg_lsn AS start_lsn, $6::pg_lsn AS end_lsn, $7::text AS start_wal_file, $8::text AS end_wal_file,
                    -- The zone's abbreviation in the file can mean several zones; the setting means one.
                    $9::text::timestamp AT TIME ZONE current_setting('log_timezone') AS started_at,
                    $10::text::timestamp AT TIME ZONE current_setting('log_timezone') AS finished_at,
                    (SELECT system_identifier FROM pg_control_system()) AS system_identifier
         ), parent AS (
             SELECT p.id FROM @extschema@.backup_history p, told t
              WHERE p.start_lsn = $11::pg_lsn AND p.system_identifier = t.system_identifier
              ORDER BY p.id DESC LIMIT 1
         ), known AS (
             SELECT 1 FROM @extschema@.backup_history b, told t WHERE b.backup_history_file = t.file
         ), recorded AS (
             SELECT b.id
               FROM @extschema@.backup_history b, told t
              WHERE b.origin = 'recorded' AND b.status IN ('running', 'completed') AND b.backup_history_file IS NULL
                AND b.backup_type IN ('full', 'incremental', 'differential')
                AND b.system_identifier = t.system_identifier
                AND b.start_lsn <= t.start_lsn AND (b.end_lsn IS NULL OR b.end_lsn >= t.end_lsn)
                AND NOT EXISTS (SELECT FROM known)
              ORDER BY b.start_lsn = t.start_lsn DESC, (b.label = t.label) IS TRUE DESC, b.started_at DESC
              LIMIT 1 FOR UPDATE OF b NOWAIT
         ), joined AS (
             UPDATE @extschema@.backup_history b
                SET start_lsn = t.start_lsn, end_lsn = t.end_lsn, timeline_id = t.timeline_id,
                    start_wal_file = t.start_wal_file, end_wal_file = t.end_wal_file,
                    wal_bytes = t.end_lsn - t.start_lsn, label = COALESCE(b.label, t.label), backup_history_file = t.file,
                    parent_id = COALESCE(b.parent_id, (SELECT id FROM parent)),
                    backup_type = CASE b.backup_type WHEN 'full' THEN t.backup_type ELSE b.backup_type END
               FROM told t, recorded r
              WHERE b.id = r.id
          RETURNING b.id
         )
         INSERT INTO @extschema@.backup_history
                (backup_type, label, system_identifier, timeline_id, start_lsn, end_lsn, start_wal_file, end_wal_file,
                 parent_id, wal_bytes, duration_seconds, status, origin, started_at, finished_at, backup_history_file)
         SELECT t.backup_type, t.label, t.system_identifier, t.timeline_id, t.start_lsn, t.end_lsn, t.start_wal_file,
                t.end_wal_file,
                (SELECT id FROM parent),
                t.end_lsn - t.start_lsn, greatest(extract(epoch FROM t.finished_at - t.started_at), 0), 'completed',
                'detected', COALESCE(t.started_at, clock_timestamp()), t.finished_at, t.file
           FROM told t
          WHERE NOT EXISTS (SELECT FROM known) AND NOT EXISTS (SELECT FROM joined)",
    );
    RECORD.write(
        &[
            backup.file.as_str().into(),
            backup.label.as_str().into(),
            backup.backup_type.into(),
            i32::try_from(backup.timeline).unwrap_or(i32::MAX).into(),
            PgLsn(backup.start).into(),
            PgLsn(backup.end).into(),
            backup.start_wal_file.as_str().into(),
            backup.end_wal_file.as_str().into(),
            backup.started_at.as_deref().into(),
            backup.finished_at.as_deref().into(),
            backup.parent_start.map(PgLsn).into(),
        ],
        |_| Ok(()),
    )
}
