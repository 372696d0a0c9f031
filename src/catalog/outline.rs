//! The few backups of many that the sums need, found by an index; see `outline` in crate `recovery`.
//!
//! All statements here read the index `backup_history_end` alone, for its columns are all that they ask for; only the rows that
//! are wanted in the end are read from the table.

use super::facts::{backup, timeline};
use super::{PgLsn, Statement};
use crate::error::Result;
use recovery::outline::{FEW, Lookup, NEWEST, NEWEST_WHOLE};
use recovery::{BackupFact, Need};
use wal::{Lsn, SegmentName, SegmentSize, TimelineHistory};

/// The backups that these lookups find, the newest ones, the last that failed, and the parents of them all.
pub fn backups(system_identifier: i64, lookups: &[Lookup]) -> Result<Vec<BackupFact>> {
    static OUTLINE: Statement = Statement::new(
        "WITH RECURSIVE lookup AS (
             SELECT l.timeline_id, '0/0'::pg_lsn + l.first::numeric AS first, '0/0'::pg_lsn + l.behind::numeric AS behind,
                    '0/0'::pg_lsn + l.ends_after::numeric AS ends_after, '0/0'::pg_lsn + l.ends_by::numeric AS ends_by
               FROM unnest($2::integer[], $3::bigint[], $4::bigint[], $5::bigint[], $6::bigint[])
                    AS l (timeline_id, first, behind, ends_after, ends_by)
         ), completed AS NOT MATERIALIZED (
             SELECT b.id, b.backup_type, b.timeline_id, b.start_lsn, b.end_lsn, b.verification, b.wal_included
               FROM @extschema@.backup_history b
              WHERE b.status = 'completed' AND b.backup_type IN ('full', 'incremental', 'differential')
                AND (b.system_identifier IS NULL OR b.system_identifier = $1)
         ), wanted (id) AS (
             (SELECT f.id FROM lookup l, LATERAL (
                 (SELECT c.id FROM completed c
                   WHERE c.verification <> 'failed' AND c.timeline_id = l.timeline_id
                     AND (c.start_lsn >= l.first OR c.wal_included) AND c.start_lsn < l.behind
                     AND c.end_lsn > l.ends_after AND c.end_lsn >= l.first AND c.end_lsn <= l.ends_by
                   ORDER BY c.end_lsn, c.id LIMIT $7)
                 UNION ALL
                 (SELECT c.id FROM completed c
                   WHERE c.verification <> 'failed' AND c.timeline_id = l.timeline_id
                     AND (c.start_lsn >= l.first OR c.wal_included) AND c.start_lsn < l.behind
                     AND c.end_lsn > l.ends_after AND c.end_lsn >= l.first AND c.end_lsn <= l.ends_by
                   ORDER BY c.end_lsn DESC, c.id DESC LIMIT $7)
                 UNION ALL
                 (SELECT c.id FROM completed c
                   WHERE c.verification <> 'failed' AND c.timeline_id = l.timeline_id AND c.backup_type = 'full'
                     AND (c.start_lsn >= l.first OR c.wal_included) AND c.start_lsn < l.behind
                     AND c.end_lsn > l.ends_after AND c.end_lsn >= l.first AND c.end_lsn <= l.ends_by
                   ORDER BY c.end_lsn, c.id LIMIT 1)
                 UNION ALL
                 (SELECT c.id FROM completed c
                   WHERE c.verification <> 'failed' AND c.timeline_id = l.timeline_id AND c.backup_type = 'full'
                     AND (c.start_lsn >= l.first OR c.wal_included) AND c.start_lsn < l.behind
                     AND c.end_lsn > l.ends_after AND c.end_lsn >= l.first AND c.end_lsn <= l.ends_by
                   ORDER BY c.end_lsn DESC, c.id DESC LIMIT 1)) f
             UNION ALL
             (SELECT c.id FROM completed c WHERE c.end_lsn IS NOT NULL ORDER BY c.end_lsn DESC, c.id DESC LIMIT $8)
             UNION ALL
             (SELECT c.id FROM completed c WHERE c.end_lsn IS NULL ORDER BY c.end_lsn DESC, c.id DESC LIMIT $8)
             UNION ALL
             (SELECT c.id FROM completed c WHERE c.wal_included ORDER BY c.end_lsn DESC, c.id DESC LIMIT $9)
             UNION ALL
             (SELECT b.id FROM @extschema@.backup_history b
               WHERE b.status = 'failed' AND b.backup_type IN ('full', 'incremental', 'differential')
                 AND (b.system_identifier IS NULL OR b.system_identifier = $1)
               ORDER BY b.id DESC LIMIT 1))
             UNION
             SELECT p.id FROM wanted w
               JOIN @extschema@.backup_history c ON c.id = w.id
               JOIN @extschema@.backup_history p ON p.id = c.parent_id
              WHERE p.status <> 'expired' AND p.backup_type IN ('full', 'incremental', 'differential')
                AND (p.system_identifier IS NULL OR p.system_identifier = $1)
         )
         SELECT b.id, b.backup_type, b.parent_id, b.timeline_id, b.start_lsn, b.end_lsn, b.finished_at, b.status, b.error,
                b.verification, b.wal_included IS TRUE, b.backup_size_bytes
           FROM wanted w JOIN @extschema@.backup_history b ON b.id = w.id
          ORDER BY b.id",
    );
    let column = |of: fn(&Lookup) -> Lsn| lookups.iter().map(|lookup| signed(of(lookup))).collect::<Vec<i64>>();
    let timelines: Vec<i32> = lookups.iter().map(|lookup| lookup.timeline.0.cast_signed()).collect();
    OUTLINE.read(
        &[
            system_identifier.into(),
            timelines.into(),
            column(|lookup| lookup.from).into(),
            column(|lookup| lookup.behind).into(),
            column(|lookup| lookup.ends_after).into(),
            column(|lookup| lookup.ends_by).into(),
            count(FEW).into(),
            count(NEWEST).into(),
            count(NEWEST_WHOLE).into(),
        ],
        |rows| rows.map(|row| backup(&row)).collect(),
    )
}

/// What each backup that somebody would recover from needs, as far as that begins before `before`.
pub fn needs(system_identifier: i64, before: Lsn, size: SegmentSize) -> Result<Vec<Need>> {
    static NEEDS: Statement = Statement::new(
        "SELECT id, timeline_id, CASE WHEN wal_included THEN end_lsn ELSE start_lsn END, end_lsn
           FROM @extschema@.backup_history
          WHERE status = 'completed' AND backup_type IN ('full', 'incremental', 'differential')
            AND verification <> 'failed' AND (system_identifier IS NULL OR system_identifier = $1)
            AND CASE WHEN wal_included THEN end_lsn ELSE start_lsn END < $2 AND end_lsn IS NOT NULL",
    );
    NEEDS.read(&[system_identifier.into(), PgLsn(before.0).into()], |rows| {
        rows.map(|row| {
            let start = Lsn(row.need::<PgLsn>(3, "an LSN")?.0);
            Ok(Need {
                id: row.need(1, "an id")?,
                first: SegmentName::containing(timeline(row.get(2)?), start, size),
                end: Lsn(row.need::<PgLsn>(4, "an LSN")?.0),
            })
        })
        .collect()
    })
}

/// How many completed backups are on record.
pub fn completed(system_identifier: i64) -> Result<u64> {
    static COMPLETED: Statement = Statement::new(
        "SELECT count(*) FROM @extschema@.backup_history
          WHERE status = 'completed' AND backup_type IN ('full', 'incremental', 'differential')
            AND (system_identifier IS NULL OR system_identifier = $1)",
    );
    let count: i64 = COMPLETED.read(&[system_identifier.into()], |rows| {
        rows.one("a count")?.need(1, "a count")
    })?;
    Ok(count.unsigned_abs())
}

/// The oldest WAL that a backup on this history needs: what [`recovery::backups::needed_from`] gives for all of them.
pub fn needed_from(system_identifier: i64, history: &TimelineHistory, size: SegmentSize) -> Result<Option<Lsn>> {
    static NEEDED: Statement = Statement::new(
        "SELECT min(CASE WHEN b.wal_included THEN b.end_lsn ELSE b.start_lsn END)
           FROM @extschema@.backup_history b
           JOIN unnest($2::integer[], $3::bigint[]) AS h (timeline_id, left_at) ON h.timeline_id = b.timeline_id
          WHERE b.status = 'completed' AND b.backup_type IN ('full', 'incremental', 'differential')
            AND b.verification <> 'failed' AND (b.system_identifier IS NULL OR b.system_identifier = $1)
            AND b.end_lsn <= '0/0'::pg_lsn + h.left_at::numeric",
    );
    let (timelines, left): (Vec<i32>, Vec<i64>) = history
        .entries()
        .iter()
        .map(|entry| (entry.timeline.0.cast_signed(), signed(entry.switch_lsn)))
        .chain([(history.timeline().0.cast_signed(), i64::MAX)])
        .unzip();
    let lsn: Option<PgLsn> = NEEDED.read(&[system_identifier.into(), timelines.into(), left.into()], |rows| {
        rows.one("an LSN")?.get(1)
    })?;
    Ok(lsn.map(|lsn| Lsn(lsn.0 - lsn.0 % size.bytes())))
}

/// As SQL has it here: no server has written 2^63 bytes of WAL.
fn signed(lsn: Lsn) -> i64 {
    i64::try_from(lsn.0).unwrap_or(i64::MAX)
}

fn count(few: usize) -> i64 {
    i64::try_from(few).unwrap_or(i64::MAX)
}
