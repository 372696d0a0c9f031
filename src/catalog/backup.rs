//! Statements about backups and their policies.

use std::collections::HashMap;

use pgrx::AnyNumeric;
use pgrx::datum::TimestampWithTimeZone;

use super::statement::Rows;
use super::{PgLsn, Statement, Text};
use crate::error::Result;
use crate::memory;
use wal::Lsn;

/// What a policy says about a backup that is recorded under its name.
pub struct Policy {
    /// Its key.
    pub id: i64,
    /// Who takes the backups.
    pub method: String,
}

static POLICY: Statement = Statement::new("SELECT id, method FROM @extschema@.backup_policies WHERE policy_name = $1");

/// The policy of that name.
pub fn policy(name: &Text) -> Result<Option<Policy>> {
    POLICY.read(&[name.into()], |rows| {
        rows.first()
            .map(|row| {
                Ok(Policy {
                    id: row.need(1, "the policy's id")?,
                    method: row.need(2, "the policy's method")?,
                })
            })
            .transpose()
    })
}

static POLICY_NAMES: Statement =
    Statement::new("SELECT policy_name FROM @extschema@.backup_policies ORDER BY policy_name LIMIT 20");

/// Names of policies, for a message; not more than 20.
pub fn policy_names() -> Result<Vec<Text>> {
    POLICY_NAMES.read(&[], |rows| rows.gather(|row| row.need(1, "the policy's name")))
}

/// A backup that begins now.
pub struct Started<'a> {
    /// The policy that asks for it.
    pub policy: Option<Policy>,
    /// One of the types of backup_policies.
    pub backup_type: &'a str,
    /// What the caller calls it.
    pub label: Option<&'a Text>,
    /// Where the caller puts it.
    pub path: Option<&'a Text>,
    /// Of this cluster.
    pub system_identifier: i64,
    /// The timeline that WAL is written on.
    pub timeline: i32,
    /// Where WAL is now.
    pub start_lsn: PgLsn,
    /// The segment that holds `start_lsn`.
    pub start_wal_file: &'a str,
    /// Running backups that began before it are abandoned.
    pub abandoned_before: TimestampWithTimeZone,
}

static START: Statement = Statement::new(
    "INSERT INTO @extschema@.backup_history
         (policy_id, backup_type, method, label, system_identifier, timeline_id, start_lsn, start_wal_file, backup_path)
     VALUES ($1, $2, coalesce($3, 'external'), $4, $5, $6, $7, $8, $9)
     RETURNING id, coalesce((SELECT other.started_at FROM @extschema@.backup_history AS other WHERE other.status = 'running'
                             ORDER BY other.started_at LIMIT 1) < $10, false)",
);

/// Records a running backup, and returns its id and whether others are abandoned.
pub fn start(backup: &Started<'_>) -> Result<(i64, bool)> {
    let args = [
        backup.policy.as_ref().map(|policy| policy.id).into(),
        backup.backup_type.into(),
        backup.policy.as_ref().map(|policy| policy.method.as_str()).into(),
        backup.label.into(),
        backup.system_identifier.into(),
        backup.timeline.into(),
        backup.start_lsn.into(),
        backup.start_wal_file.into(),
        backup.path.into(),
        backup.abandoned_before.into(),
    ];
    START.write(&args, |rows| {
        let row = rows.one("the backup's id")?;
        Ok((
            row.need(1, "the backup's id")?,
            row.need(2, "whether backups are abandoned")?,
        ))
    })
}

/// What completing a backup needs to know of it.
pub struct Known {
    /// running, completed, failed or expired.
    pub status: String,
    /// Where it lies.
    pub path: Option<Text>,
    /// Why it failed.
    pub error: Option<Text>,
    /// When it was recorded to begin.
    pub started_at: TimestampWithTimeZone,
    /// When it was recorded to end.
    pub finished_at: Option<TimestampWithTimeZone>,
    /// Whether it began before the server's last start.
    pub server_restarted: bool,
    /// Whether it is a copy of the cluster's files.
    pub is_physical: bool,
    /// Where WAL was when it was recorded to begin.
    pub start_lsn: Option<PgLsn>,
}

static KNOWN: Statement = Statement::new(
    "SELECT status, backup_path, error, started_at, finished_at, started_at < pg_postmaster_start_time(),
            backup_type IN ('full', 'incremental', 'differential'), start_lsn
     FROM @extschema@.backup_history WHERE id = $1",
);

/// The backup of that id, as the caller's transaction sees it.
pub fn known(id: i64) -> Result<Option<Known>> {
    KNOWN.read(&[id.into()], Known::from_rows)
}

/// Where the WAL begins that a backup needs, if that is on record.
pub fn start_lsn(id: i64) -> Result<Option<Lsn>> {
    static START_LSN: Statement = Statement::new("SELECT start_lsn FROM @extschema@.backup_history WHERE id = $1");
    START_LSN.read(&[id.into()], |rows| {
        rows.first()
            .map_or(Ok(None), |row| Ok(row.get::<PgLsn>(1)?.map(|lsn| Lsn(lsn.0))))
    })
}

/// The size of a backup together with those that it builds on, in bytes; none where one of them is not on record, or its size.
pub fn size_with_parents(id: i64) -> Result<Option<u64>> {
    Ok(sizes_with_parents(vec![id])?.remove(&id))
}

/// The same of several, without those of which it is not known.
pub fn sizes_with_parents(ids: Vec<i64>) -> Result<HashMap<i64, u64>> {
    // OFFSET 0 keeps the look-up of a parent what it is: else a plan for many rows would read the whole table for a few.
    static SIZES: Statement = Statement::new(
        "WITH RECURSIVE chain AS (
             SELECT w.id AS whole, b.id, b.parent_id, b.backup_type, b.backup_size_bytes
               FROM unnest($1::bigint[]) AS w (id),
                    LATERAL (SELECT * FROM @extschema@.backup_history b WHERE b.id = w.id OFFSET 0) b
             UNION
             SELECT c.whole, p.id, p.parent_id, p.backup_type, p.backup_size_bytes
               FROM chain c
               LEFT JOIN LATERAL (SELECT * FROM @extschema@.backup_history b WHERE b.id = c.parent_id OFFSET 0) p ON true
              WHERE c.backup_type IN ('incremental', 'differential')
         )
         SELECT c.whole, sum(c.backup_size_bytes)::bigint
           FROM chain c GROUP BY c.whole HAVING bool_and(c.backup_size_bytes IS NOT NULL)",
    );
    SIZES.read(&[ids.into()], |rows| {
        memory::collect_map(
            rows.gather(|row| Ok((row.need(1, "an id")?, row.need::<i64>(2, "a size")?.unsigned_abs())))?,
        )
    })
}

/// The backup of that id, as it is now.
pub fn known_now(id: i64) -> Result<Option<Known>> {
    KNOWN.read_latest(&[id.into()], Known::from_rows)
}

impl Known {
    fn from_rows(rows: Rows) -> Result<Option<Self>> {
        rows.first()
            .map(|row| {
                Ok(Self {
                    status: row.need(1, "the backup's status")?,
                    path: row.get(2)?,
                    error: row.get(3)?,
                    started_at: row.need(4, "when the backup began")?,
                    finished_at: row.get(5)?,
                    server_restarted: row.need(6, "whether the server was restarted")?,
                    is_physical: row.need(7, "whether the backup is physical")?,
                    start_lsn: row.get(8)?,
                })
            })
            .transpose()
    }
}

/// How a backup ended.
pub struct Ended<'a> {
    /// Its key.
    pub id: i64,
    /// completed or failed.
    pub status: &'a str,
    /// Why it failed.
    pub error: Option<&'a Text>,
    /// Bytes on disk.
    pub size_bytes: Option<i64>,
    /// Files on disk.
    pub file_count: Option<i64>,
    /// As the caller measured it; `None`: by the clock.
    pub duration_seconds: Option<AnyNumeric>,
    /// Where WAL is now, for a completed backup.
    pub end_lsn: Option<PgLsn>,
    /// The segment that holds the last byte before `end_lsn`.
    pub end_wal_file: Option<&'a str>,
    /// When.
    pub at: TimestampWithTimeZone,
    /// What the backup says of its own WAL.
    pub own: Option<OwnWal>,
}

/// The WAL that a base backup's manifest asks for: exact, where what was recorded is from call to call.
pub struct OwnWal {
    /// The timeline that it lies on.
    pub timeline: i32,
    /// Its first byte.
    pub start_lsn: PgLsn,
    /// The byte behind its last.
    pub end_lsn: PgLsn,
    /// The segment that holds its first byte.
    pub start_wal_file: String,
    /// The segment that holds its last byte.
    pub end_wal_file: String,
    /// Whether it is inside the backup, whole and sound.
    pub included: bool,
    /// Whether the backup says that it is incremental.
    pub is_incremental: bool,
    /// The backup that it says it builds on, where that is on record.
    pub parent: Option<i64>,
}

// What the archive has told of the backup meanwhile is exact, so it stays. What the backup's own manifest says is taken where
// it lies within that or what was recorded: else it is another backup's. An incremental backup cannot stand as a full one,
// whatever its recorder called it.
static END: Statement = Statement::new(
    "UPDATE @extschema@.backup_history AS b
     SET status = $2, error = $3, backup_size_bytes = $4, file_count = $5,
         duration_seconds = coalesce($6, round(greatest(extract(epoch FROM $9 - started_at), 0), 3)),
         (backup_type, parent_id, timeline_id, start_lsn, end_lsn, start_wal_file, end_wal_file, wal_bytes, wal_included) = (
             SELECT range.backup_type, range.parent_id, range.timeline_id, range.start_lsn, range.end_lsn, range.start_wal_file, range.end_wal_file,
                    (range.end_lsn - range.start_lsn)::bigint, range.wal_included
             FROM (SELECT CASE WHEN own.fits AND $16 AND b.backup_type = 'full' THEN 'incremental' ELSE b.backup_type END AS backup_type,
                          CASE WHEN own.fits THEN coalesce(b.parent_id, $17) ELSE b.parent_id END AS parent_id,
                          CASE WHEN own.fits THEN $10 ELSE b.timeline_id END AS timeline_id,
                          CASE WHEN own.fits THEN $11 ELSE b.start_lsn END AS start_lsn,
                          CASE WHEN own.fits THEN $12 ELSE coalesce(b.end_lsn, $7) END AS end_lsn,
                          CASE WHEN own.fits THEN $13 ELSE b.start_wal_file END AS start_wal_file,
                          CASE WHEN own.fits THEN $14 WHEN b.end_lsn IS NULL THEN $8 ELSE b.end_wal_file END AS end_wal_file,
                          CASE WHEN own.fits THEN $15 END AS wal_included
                   FROM (SELECT (b.start_lsn <= $11 AND coalesce(b.end_lsn, $7) >= $12) IS TRUE AS fits) AS own) AS range),
         finished_at = $9
     WHERE id = $1 AND status = 'running' AND ($2 <> 'completed' OR started_at >= pg_postmaster_start_time())",
);

/// Records the end of a running backup; false where it is not running, or cannot have been completed because the server was
/// started since.
pub fn end(backup: &Ended<'_>) -> Result<bool> {
    let own = backup.own.as_ref();
    let args = [
        backup.id.into(),
        backup.status.into(),
        backup.error.into(),
        backup.size_bytes.into(),
        backup.file_count.into(),
        backup.duration_seconds.clone().into(),
        backup.end_lsn.into(),
        backup.end_wal_file.into(),
        backup.at.into(),
        own.map(|own| own.timeline).into(),
        own.map(|own| own.start_lsn).into(),
        own.map(|own| own.end_lsn).into(),
        own.map(|own| own.start_wal_file.as_str()).into(),
        own.map(|own| own.end_wal_file.as_str()).into(),
        own.map(|own| own.included).into(),
        own.map(|own| own.is_incremental).into(),
        own.and_then(|own| own.parent).into(),
    ];
    END.write(&args, |rows| Ok(rows.processed() == 1))
}

// The oldest one tells, and the index has it first. Asked for any that is old enough, the planner may prefer to read the table when
// many backups run.
static ANY_ABANDONED: Statement = Statement::new(
    "SELECT FROM (SELECT started_at FROM @extschema@.backup_history WHERE status = 'running'
                  ORDER BY started_at LIMIT 1) AS oldest
     WHERE oldest.started_at < $1",
);

/// Whether a running backup began before `bound`.
pub fn any_running_since_before(bound: TimestampWithTimeZone) -> Result<bool> {
    ANY_ABANDONED.read(&[bound.into()], |rows| Ok(rows.processed() > 0))
}

static FAIL_ABANDONED: Statement = Statement::new(
    "UPDATE @extschema@.backup_history
     SET status = 'failed', finished_at = clock_timestamp(),
         error = CASE WHEN started_at < pg_postmaster_start_time()
             THEN 'The server was started at ' || to_char(pg_postmaster_start_time() AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS')
                  || ' UTC, after this backup began, and nobody had recorded its end: a backup does not outlive its server.'
             ELSE 'Nobody recorded the end of this backup within ' || $2 || ' s (pg_backstop.running_backup_timeout).'
         END
     WHERE id IN (SELECT id FROM @extschema@.backup_history WHERE status = 'running' AND started_at < $1
                  FOR NO KEY UPDATE SKIP LOCKED)",
);

/// Marks running backups that began before `bound` failed, with the reason, and returns how many they were. `bound` is the
/// server's last start, or `timeout_seconds` ago where that is later.
pub fn fail_abandoned(bound: TimestampWithTimeZone, timeout_seconds: i64) -> Result<u64> {
    FAIL_ABANDONED.write(&[bound.into(), timeout_seconds.into()], |rows| Ok(rows.processed()))
}

/// A range of WAL that is recorded as a backup.
pub struct Range<'a> {
    /// Of this cluster.
    pub system_identifier: i64,
    /// The timeline that the range ends on.
    pub timeline: i32,
    /// Its first byte.
    pub start_lsn: PgLsn,
    /// The byte after its last.
    pub end_lsn: PgLsn,
    /// The segment that holds its first byte.
    pub start_wal_file: Option<&'a str>,
    /// The segment that holds its last byte.
    pub end_wal_file: Option<&'a str>,
    /// The backup that it continues.
    pub parent: Option<i64>,
    /// Where it lies.
    pub path: Option<&'a Text>,
    /// Bytes of the files found.
    pub size_bytes: i64,
    /// How many files were found.
    pub file_count: i64,
    /// What is missing.
    pub error: Option<&'a str>,
}

static RECORD_RANGE: Statement = Statement::new(
    "INSERT INTO @extschema@.backup_history
         (backup_type, system_identifier, timeline_id, start_lsn, end_lsn, start_wal_file, end_wal_file, parent_id,
          backup_path, backup_size_bytes, wal_bytes, file_count, duration_seconds, status, error, started_at, finished_at,
          is_wal_range)
     SELECT 'incremental', $1, $2, $3, $4, $5, $6, $7, $8, $9, ($4 - $3)::bigint, $10, 0,
            CASE WHEN $11 IS NULL THEN 'completed' ELSE 'failed' END, $11, clock.now, clock.now, true
     FROM (SELECT clock_timestamp() AS now) AS clock
     RETURNING id",
);

/// Records a range of WAL, completed or, with an error, failed; returns its id.
pub fn record_range(range: &Range<'_>) -> Result<i64> {
    let args = [
        range.system_identifier.into(),
        range.timeline.into(),
        range.start_lsn.into(),
        range.end_lsn.into(),
        range.start_wal_file.into(),
        range.end_wal_file.into(),
        range.parent.into(),
        range.path.into(),
        range.size_bytes.into(),
        range.file_count.into(),
        range.error.into(),
    ];
    RECORD_RANGE.write(&args, |rows| rows.one("the backup's id")?.need(1, "the backup's id"))
}

static REACHING: Statement = Statement::new(
    "SELECT id FROM @extschema@.backup_history
     WHERE status = 'completed' AND backup_type IN ('full', 'incremental')
       AND system_identifier = $1 AND start_lsn <= $2 AND end_lsn >= $2
     ORDER BY end_lsn DESC, id DESC LIMIT 1",
);

/// The newest completed full or incremental backup whose range reaches a position: what a range from there continues.
pub fn reaching(system_identifier: i64, start: PgLsn) -> Result<Option<i64>> {
    REACHING.read(&[system_identifier.into(), start.into()], |rows| {
        rows.first().map(|row| row.need(1, "the backup's id")).transpose()
    })
}

static ARCHIVED_SEGMENTS: Statement = Statement::new(
    "SELECT segment_name, stored_bytes FROM @extschema@.wal_archive
     WHERE segment_name BETWEEN $1 AND $2 AND length(segment_name) = 24
       AND status IN ('verified', 'pending') AND stored_bytes IS NOT NULL",
);

/// Names and stored sizes of the archived segments between two of the same timeline, both included.
pub fn archived_segments(first: &str, last: &str) -> Result<Vec<(String, i64)>> {
    ARCHIVED_SEGMENTS.read(&[first.into(), last.into()], |rows| {
        rows.gather(|row| Ok((row.need(1, "the segment's name")?, row.need(2, "the segment's size")?)))
    })
}
