//! The few backups of many that the sums need, found by an index; see `outline` in crate `recovery`.
//!
//! What is asked of many backups is answered by the indexes `backup_history_end` and `backup_history_needed` alone, for they hold
//! every column of it; only the rows that are wanted in the end are read from the table.

use super::facts::backup;
use super::statement::Row;
use super::{PgLsn, Statement};
use crate::error::Result;
use crate::memory;
use recovery::outline::{FEW, Lookup, NEWEST, NEWEST_WHOLE};
use recovery::{BackupFact, BrokenRun, Need};
use std::collections::BTreeSet;
use wal::{Lsn, SegmentSize, Timeline, TimelineHistory};

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
              WHERE b.status = 'completed' AND b.backup_type IN ('full', 'incremental', 'differential') AND b.is_wal_range IS NOT TRUE
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
             -- OFFSET 0 keeps these look-ups what they are: else a plan for many rows would read the whole table for a few.
             (SELECT max(f.id) FROM (SELECT b.id FROM @extschema@.backup_history b
               WHERE (b.status = 'failed' OR b.verification = 'failed') AND b.status = 'failed'
                 AND b.backup_type IN ('full', 'incremental', 'differential') AND b.is_wal_range IS NOT TRUE
                 AND (b.system_identifier IS NULL OR b.system_identifier = $1) OFFSET 0) f))
             UNION
             SELECT p.id
               FROM wanted w,
                    LATERAL (SELECT b.parent_id FROM @extschema@.backup_history b WHERE b.id = w.id OFFSET 0) c,
                    LATERAL (SELECT b.id FROM @extschema@.backup_history b
                              WHERE b.id = c.parent_id AND b.status <> 'expired'
                                AND b.backup_type IN ('full', 'incremental', 'differential') AND b.is_wal_range IS NOT TRUE
                                AND (b.system_identifier IS NULL OR b.system_identifier = $1) OFFSET 0) p
         )
         SELECT b.id, b.backup_type, b.parent_id, b.timeline_id, b.start_lsn, b.end_lsn, b.finished_at, b.status, b.error,
                b.verification, b.wal_included IS TRUE, b.backup_size_bytes
           FROM wanted w, LATERAL (SELECT * FROM @extschema@.backup_history b WHERE b.id = w.id OFFSET 0) b
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
        |rows| rows.gather(|row| backup(&row)),
    )
}

/// What the backups that somebody would recover from need, together where it lies between the ends of the same two of these runs, and
/// of those no more than `limit`, where there is one: the first in WAL.
pub fn needs(
    system_identifier: i64,
    broken: &[BrokenRun],
    history: &TimelineHistory,
    limit: Option<usize>,
) -> Result<Vec<Need>> {
    // Off the server's own history are those of other timelines, and on one that it left those that end behind where; they meet
    // nothing but what is broken of their own timeline.
    static NEEDS: Statement = Statement::new(
        "WITH history AS MATERIALIZED (
             SELECT h.timeline_id, '0/0'::pg_lsn + h.left_at::numeric AS left_at
               FROM unnest($4::integer[], $5::bigint[]) AS h (timeline_id, left_at)
         ), between AS MATERIALIZED (
             SELECT s.first, '0/0'::pg_lsn + s.first::numeric AS from_lsn, '0/0'::pg_lsn + s.behind::numeric AS behind_lsn
               FROM unnest($2::bigint[], $3::bigint[]) AS s (first, behind)
         ), candidates AS NOT MATERIALIZED (
             SELECT b.id, b.timeline_id::integer AS timeline_id, b.end_lsn,
                    CASE WHEN b.wal_included THEN b.end_lsn ELSE b.start_lsn END AS needed
               FROM @extschema@.backup_history b
              WHERE b.status = 'completed' AND b.backup_type IN ('full', 'incremental', 'differential') AND b.is_wal_range IS NOT TRUE
                AND b.verification <> 'failed' AND (b.system_identifier IS NULL OR b.system_identifier = $1)
         ), elsewhere AS MATERIALIZED (
             SELECT t.timeline_id, coalesce(h.left_at, '0/0') AS left_at
               FROM unnest($6::integer[]) AS t (timeline_id) LEFT JOIN history h ON h.timeline_id = t.timeline_id
         )
         SELECT s.first, h.timeline_id, true,
                ARRAY(SELECT c.id FROM candidates c
                       WHERE c.timeline_id = h.timeline_id AND c.needed >= s.from_lsn AND c.needed < s.behind_lsn
                         AND c.end_lsn <= h.left_at
                       ORDER BY c.needed LIMIT $7)
           FROM between s JOIN history h ON s.from_lsn <= h.left_at
         UNION ALL
         SELECT s.first, e.timeline_id, false,
                ARRAY(SELECT c.id FROM candidates c
                       WHERE c.timeline_id = e.timeline_id AND c.needed >= s.from_lsn AND c.needed < s.behind_lsn
                         AND c.end_lsn > e.left_at
                       ORDER BY c.needed LIMIT $7)
           FROM between s CROSS JOIN elsewhere e",
    );
    let behind: Vec<i64> = recovery::gaps::ends(broken).into_iter().map(signed).collect();
    let mut first = behind.clone();
    first.insert(0, 0);
    first.pop();
    let (timelines, left) = left_at(history);
    let elsewhere: BTreeSet<i32> = broken
        .iter()
        .map(|run| run.first.timeline)
        .filter(|timeline| *timeline != history.timeline())
        .map(|timeline| timeline.0.cast_signed())
        .collect();
    NEEDS.read(
        &[
            system_identifier.into(),
            first.into(),
            behind.into(),
            timelines.into(),
            left.into(),
            elsewhere.into_iter().collect::<Vec<i32>>().into(),
            // One more than wanted tells whether there are more.
            limit.map(|limit| count(limit.saturating_add(1))).into(),
        ],
        |rows| {
            let need = |row: Row| {
                let mut ids: Vec<i64> = row.need_many(4, "ids")?;
                let and_more = limit.is_some_and(|limit| ids.len() > limit);
                ids.truncate(limit.unwrap_or(usize::MAX));
                Ok(Need {
                    from: Lsn(row.need::<i64>(1, "a position")?.unsigned_abs()),
                    timeline: Timeline(row.need::<i32>(2, "a timeline")?.cast_unsigned()),
                    on_history: row.need(3, "whether it is on the history")?,
                    ids,
                    and_more,
                })
            };
            memory::collect(
                rows.map(need)
                    .filter(|need| need.as_ref().map_or(true, |need| !need.ids.is_empty())),
            )
        },
    )
}

/// How many completed backups are on record.
pub fn completed(system_identifier: i64) -> Result<u64> {
    static COMPLETED: Statement = Statement::new(
        "SELECT count(*) FROM @extschema@.backup_history
          WHERE status = 'completed' AND backup_type IN ('full', 'incremental', 'differential') AND is_wal_range IS NOT TRUE
            AND (system_identifier IS NULL OR system_identifier = $1)",
    );
    let count: i64 = COMPLETED.read(&[system_identifier.into()], |rows| {
        rows.one("a count")?.need(1, "a count")
    })?;
    Ok(count.unsigned_abs())
}

/// The oldest WAL that must be kept for the backups on this history, usable or not: a backup whose WAL has a gap must not make its
/// gap unimportant. None without a completed physical backup that has not failed its verification.
pub fn needed_from(system_identifier: i64, history: &TimelineHistory, size: SegmentSize) -> Result<Option<Lsn>> {
    static NEEDED: Statement = Statement::new(
        "SELECT min(o.needed)
           FROM unnest($2::integer[], $3::bigint[]) AS h (timeline_id, left_at),
                LATERAL (SELECT CASE WHEN b.wal_included THEN b.end_lsn ELSE b.start_lsn END AS needed
                           FROM @extschema@.backup_history b
                          WHERE b.status = 'completed' AND b.backup_type IN ('full', 'incremental', 'differential') AND b.is_wal_range IS NOT TRUE
                            AND b.verification <> 'failed'
                            AND (b.system_identifier IS NULL OR b.system_identifier = $1)
                            AND b.timeline_id = h.timeline_id AND b.end_lsn <= '0/0'::pg_lsn + h.left_at::numeric
                            AND CASE WHEN b.wal_included THEN b.end_lsn ELSE b.start_lsn END IS NOT NULL
                          ORDER BY CASE WHEN b.wal_included THEN b.end_lsn ELSE b.start_lsn END LIMIT 1) o",
    );
    let (timelines, left) = left_at(history);
    let lsn: Option<PgLsn> = NEEDED.read(&[system_identifier.into(), timelines.into(), left.into()], |rows| {
        rows.one("an LSN")?.get(1)
    })?;
    Ok(lsn.map(|lsn| Lsn(lsn.0 - lsn.0 % size.bytes())))
}

/// The timelines of a history, and where each was left.
fn left_at(history: &TimelineHistory) -> (Vec<i32>, Vec<i64>) {
    history
        .entries()
        .iter()
        .map(|entry| (entry.timeline.0.cast_signed(), signed(entry.switch_lsn)))
        .chain([(history.timeline().0.cast_signed(), i64::MAX)])
        .unzip()
}

/// As SQL has it here: no server has written 2^63 bytes of WAL.
fn signed(lsn: Lsn) -> i64 {
    i64::try_from(lsn.0).unwrap_or(i64::MAX)
}

fn count(few: usize) -> i64 {
    i64::try_from(few).unwrap_or(i64::MAX)
}
