//! Backups that a plan or a check asks for by name or by target: of hundreds of thousands a page at a time, so that no more than a
//! page is held.

use std::collections::HashMap;

use chrono::{DateTime, Utc};
use pgrx::prelude::*;
use recovery::BackupFact;
use recovery::outline::{FEW, Lookup};
use recovery::plan::Fit;
use wal::{Lsn, PgTimestamp};

use super::archive::time;
use super::facts::backup;
use super::plan::BackupPlace;
use super::statement::Row;
use super::{PgLsn, Statement};
use crate::error::Result;
use crate::memory;

/// So many backups are read at a time.
pub const PAGE: i64 = 200;

/// Where backups are, by their ids.
pub type BackupPlaces = HashMap<i64, BackupPlace>;

/// A place in the order of (end, id).
pub type Position = (Lsn, i64);

/// Of the backups of a lookup that may fit the next [`PAGE`] before `before`, the newest first: their facts, and where they are.
pub fn page(
    system_identifier: i64,
    lookup: &Lookup,
    segment_bytes: u64,
    fit: &Fit,
    before: Option<Position>,
) -> Result<Vec<(BackupFact, BackupPlace)>> {
    // The inner query is the one that limits, so that WAL is looked at of those only that come into question otherwise.
    static CANDIDATES: Statement = Statement::new(
        "SELECT b.id, b.backup_type, b.parent_id, b.timeline_id, b.start_lsn, b.end_lsn, b.finished_at, b.status, b.error,
                b.verification, b.wal_included IS TRUE, b.backup_size_bytes, b.method, b.label, b.backup_path, b.start_wal_file
           FROM @extschema@.backup_history b
          WHERE b.status = 'completed' AND b.backup_type IN ('full', 'incremental', 'differential') AND b.is_wal_range IS NOT TRUE
            AND b.verification <> 'failed' AND (b.system_identifier IS NULL OR b.system_identifier = $1)
            AND b.timeline_id = $2 AND (b.start_lsn >= $3 OR b.wal_included) AND b.start_lsn < $4
            AND b.end_lsn > $5 AND b.end_lsn >= $3 AND b.end_lsn <= $6 AND (b.end_lsn, b.id) < ($7, $8) AND b.start_lsn >= $9
            AND ($10::timestamptz IS NULL
                 OR coalesce((SELECT max(w.latest_xact_at) FROM @extschema@.wal_archive w
                               WHERE w.timeline_id = b.timeline_id AND w.status = 'verified' AND w.end_lsn > b.start_lsn
                                 AND w.end_lsn <= '0/0'::pg_lsn + ceil((b.end_lsn - '0/0'::pg_lsn) / $11) * $11),
                             b.finished_at) <= $10)
          ORDER BY b.end_lsn DESC, b.id DESC LIMIT $12",
    );
    let (end, id) = before.unwrap_or((Lsn::MAX, i64::MAX));
    let by = fit.consistent_time.map(|(by, _)| by);
    CANDIDATES.read(
        &[
            system_identifier.into(),
            lookup.timeline.0.cast_signed().into(),
            PgLsn(lookup.from.0).into(),
            PgLsn(lookup.behind.0).into(),
            PgLsn(lookup.ends_after.0).into(),
            PgLsn(lookup.ends_by.min(fit.consistent_by).0).into(),
            PgLsn(end.0).into(),
            id.into(),
            PgLsn(fit.started_from.0).into(),
            by.and_then(sql_time).into(),
            AnyNumeric::from(segment_bytes).into(),
            PAGE.into(),
        ],
        |rows| rows.gather(|row| Ok((backup(&row)?, place(&row, 13)?))),
    )
}

/// A page as its facts and its places.
pub fn apart(page: Vec<(BackupFact, BackupPlace)>) -> (Vec<BackupFact>, BackupPlaces) {
    page.into_iter()
        .map(|(backup, place)| {
            let id = backup.id;
            (backup, (id, place))
        })
        .unzip()
}

/// These backups and all that they build on, in the order of their ids; none of them that is no backup of this cluster, or expired.
pub fn with_parents(system_identifier: i64, ids: &[i64]) -> Result<Vec<BackupFact>> {
    static NAMED: Statement = Statement::new(
        "WITH RECURSIVE wanted (id) AS (
             SELECT DISTINCT w.id FROM unnest($2::bigint[]) AS w (id)
             UNION
             SELECT c.parent_id
               FROM wanted w, LATERAL (SELECT b.parent_id FROM @extschema@.backup_history b WHERE b.id = w.id OFFSET 0) c
              WHERE c.parent_id IS NOT NULL
         )
         SELECT b.id, b.backup_type, b.parent_id, b.timeline_id, b.start_lsn, b.end_lsn, b.finished_at, b.status, b.error,
                b.verification, b.wal_included IS TRUE, b.backup_size_bytes
           FROM wanted w, LATERAL (SELECT * FROM @extschema@.backup_history b WHERE b.id = w.id OFFSET 0) b
          WHERE b.status <> 'expired' AND b.backup_type IN ('full', 'incremental', 'differential') AND b.is_wal_range IS NOT TRUE
            AND (b.system_identifier IS NULL OR b.system_identifier = $1)
          ORDER BY b.id",
    );
    if ids.is_empty() {
        return Ok(Vec::new());
    }
    NAMED.read(&[system_identifier.into(), ids.to_vec().into()], |rows| {
        rows.gather(|row| backup(&row))
    })
}

/// Where the completed ones of these backups are.
pub fn places(ids: &[i64]) -> Result<BackupPlaces> {
    static PLACES: Statement = Statement::new(
        "SELECT b.id, b.method, b.label, b.backup_path, b.start_wal_file
           FROM unnest($1::bigint[]) AS w (id), LATERAL (SELECT * FROM @extschema@.backup_history b WHERE b.id = w.id OFFSET 0) b
          WHERE b.status = 'completed'",
    );
    PLACES.read(&[ids.to_vec().into()], |rows| {
        memory::collect_map(rows.gather(|row| Ok((row.need(1, "an id")?, place(&row, 2)?)))?)
    })
}

/// Of each lookup the few whose replay starts first: one that took long ends behind many that began later.
pub fn earliest(system_identifier: i64, lookups: &[Lookup]) -> Result<Vec<i64>> {
    static EARLIEST: Statement = Statement::new(
        "SELECT b.id FROM @extschema@.backup_history b
          WHERE b.status = 'completed' AND b.backup_type IN ('full', 'incremental', 'differential') AND b.is_wal_range IS NOT TRUE
            AND b.verification <> 'failed' AND (b.system_identifier IS NULL OR b.system_identifier = $1)
            AND b.timeline_id = $2 AND (b.start_lsn >= $3 OR b.wal_included) AND b.start_lsn < $4
            AND b.end_lsn > $5 AND b.end_lsn >= $3 AND b.end_lsn <= $6
          ORDER BY b.start_lsn, b.id LIMIT $7",
    );
    let mut found = Vec::new();
    for lookup in lookups {
        found.extend(EARLIEST.read(
            &[
                system_identifier.into(),
                lookup.timeline.0.cast_signed().into(),
                PgLsn(lookup.from.0).into(),
                PgLsn(lookup.behind.0).into(),
                PgLsn(lookup.ends_after.0).into(),
                PgLsn(lookup.ends_by.0).into(),
                few().into(),
            ],
            |rows| rows.gather(|row| row.need::<i64>(1, "an id")),
        )?);
    }
    Ok(found)
}

/// The few backups with their own WAL inside that end nearest to a position or a time, on both sides of it: each may be a window, be
/// it of one moment, where nothing is archived.
pub fn whole_near(system_identifier: i64, at: Near) -> Result<Vec<i64>> {
    static BY_LSN: Statement = Statement::new(
        "WITH whole AS NOT MATERIALIZED (
             SELECT b.id, b.end_lsn FROM @extschema@.backup_history b
              WHERE b.status = 'completed' AND b.backup_type IN ('full', 'incremental', 'differential') AND b.is_wal_range IS NOT TRUE
                AND b.wal_included AND b.verification <> 'failed' AND (b.system_identifier IS NULL OR b.system_identifier = $1)
         )
         (SELECT w.id FROM whole w WHERE w.end_lsn <= $2 ORDER BY w.end_lsn DESC, w.id DESC LIMIT $3)
         UNION ALL
         (SELECT w.id FROM whole w WHERE w.end_lsn > $2 ORDER BY w.end_lsn, w.id LIMIT $3)",
    );
    static BY_TIME: Statement = Statement::new(
        "WITH whole AS NOT MATERIALIZED (
             SELECT b.id, b.finished_at FROM @extschema@.backup_history b
              WHERE b.status = 'completed' AND b.backup_type IN ('full', 'incremental', 'differential') AND b.is_wal_range IS NOT TRUE
                AND b.wal_included AND b.verification <> 'failed' AND (b.system_identifier IS NULL OR b.system_identifier = $1)
         )
         (SELECT w.id FROM whole w WHERE w.finished_at <= $2 ORDER BY w.finished_at DESC, w.id DESC LIMIT $3)
         UNION ALL
         (SELECT w.id FROM whole w WHERE w.finished_at > $2 ORDER BY w.finished_at, w.id LIMIT $3)",
    );
    let (statement, position) = match at {
        Near::Lsn(lsn) => (&BY_LSN, PgLsn(lsn.0).into()),
        Near::Time(at) => (&BY_TIME, sql_time(at).into()),
    };
    statement.read(&[system_identifier.into(), position, few().into()], |rows| {
        rows.gather(|row| row.need(1, "an id"))
    })
}

/// What backups lie near to.
#[derive(Debug, Clone, Copy)]
pub enum Near {
    /// A position.
    Lsn(Lsn),
    /// A moment.
    Time(DateTime<Utc>),
}

/// A place from four columns, of which the method is the first.
fn place(row: &Row, method: i32) -> Result<BackupPlace> {
    Ok(BackupPlace {
        method: row.need(method, "a method")?,
        label: row.get(method + 1)?,
        path: row.get(method + 2)?,
        start_wal_file: row.get(method + 3)?,
    })
}

fn few() -> i64 {
    i64::try_from(FEW).unwrap_or(i64::MAX)
}

fn sql_time(at: DateTime<Utc>) -> Option<TimestampWithTimeZone> {
    time(PgTimestamp::from_unix_micros(at.timestamp_micros()).0)
}
