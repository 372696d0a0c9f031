//! The facts that the verdict rests on, as crate `recovery` wants them.

use super::statement::Row;
use super::{PgLsn, Statement};
use crate::error::{Error, Result};
use crate::memory;
use crate::settings::CountedReceivers;
use chrono::{DateTime, TimeZone, Utc};
use pgrx::prelude::*;
use recovery::{ArchiverFailure, BackupFact, BrokenHistory, BrokenRun, Extent};
use std::time::Duration;
use wal::{Lsn, PgTimestamp, SegmentName, SegmentSize, Timeline};

/// A backup, from its columns id, backup_type, parent_id, timeline_id, start_lsn, end_lsn, finished_at, status, error, verification,
/// wal_included (not NULL) and backup_size_bytes.
pub(super) fn backup(row: &Row) -> Result<BackupFact> {
    Ok(BackupFact {
        id: row.need(1, "an id")?,
        backup_type: word(row.need::<String>(2, "a type")?)?,
        parent_id: row.get(3)?,
        timeline: timeline(row.get::<i32>(4)?),
        start: row.get::<PgLsn>(5)?.map(|lsn| Lsn(lsn.0)),
        end: row.get::<PgLsn>(6)?.map(|lsn| Lsn(lsn.0)),
        finished_at: row.get(7)?.and_then(moment),
        status: word(row.need::<String>(8, "a status")?)?,
        error: row.get(9)?,
        verification: word(row.need::<String>(10, "a verification")?)?,
        wal_included: row.need(11, "a boolean")?,
        size: row.get::<i64>(12)?.map(i64::unsigned_abs),
    })
}

/// Segments without a good verdict, those together that follow upon each other and are alike; so many rows in a run make one
/// fact. Pending ones that are so for longer than `grace` are kept apart from the others.
pub fn broken_runs(size: SegmentSize, grace: Duration) -> Result<Vec<BrokenRun>> {
    static BROKEN: Statement = Statement::new(
        "SELECT min(segment_name), max(segment_name), status, problem, min(status_since), stored
           FROM (SELECT segment_name, timeline_id, status, problem, status_since, stored, late, place,
                        place - row_number() OVER (PARTITION BY timeline_id, status, problem, stored, late ORDER BY place) AS run
                   FROM (SELECT segment_name, timeline_id, status, problem, status_since,
                                stored_bytes IS NOT NULL AND status <> 'missing' AS stored,
                                status = 'pending' AND status_since <= clock_timestamp() - $2 * interval '1 second' AS late,
                                div(start_lsn - '0/0'::pg_lsn, $1) AS place
                           FROM @extschema@.wal_archive
                          WHERE status <> 'verified' AND start_lsn IS NOT NULL) AS broken) AS placed
          GROUP BY timeline_id, status, problem, stored, late, run
          ORDER BY timeline_id, min(place)",
    );
    let bytes = pgrx::AnyNumeric::from(size.bytes());
    BROKEN.read(&[bytes.into(), grace.as_secs_f64().into()], |rows| {
        memory::collect(rows.filter_map(|row| {
            let read = || {
                // Rows from before a change of the segment size have names that are none any more.
                let name = |column| row.need::<String>(column, "a segment name");
                let (Ok(first), Ok(last)) = (SegmentName::parse(&name(1)?, size), SegmentName::parse(&name(2)?, size))
                else {
                    return Ok(None);
                };
                Ok(Some(BrokenRun {
                    first,
                    last,
                    status: word(row.need::<String>(3, "a status")?)?,
                    problem: row.get(4)?,
                    noticed_at: row.get(5)?.and_then(moment).unwrap_or_default(),
                    stored: row.need(6, "a boolean")?,
                }))
            };
            read().transpose()
        }))
    })
}

/// History files of timelines that are not in order. One of a timeline that is not this server's is nobody's trouble here.
pub fn broken_histories() -> Result<Vec<BrokenHistory>> {
    static HISTORIES: Statement = Statement::new(
        "SELECT timeline_id, COALESCE(problem, status) FROM @extschema@.wal_archive
          WHERE status IN ('missing', 'corrupt', 'foreign') AND problem IS DISTINCT FROM 'foreign_timeline'
            AND start_lsn IS NULL AND segment_name LIKE '%.history'",
    );
    HISTORIES.read(&[], |rows| {
        rows.gather(|row| {
            Ok(BrokenHistory {
                timeline: timeline(row.get(1)?),
                problem: row.need(2, "a problem")?,
            })
        })
    })
}

/// From the first to the last verified segment, a timeline each: two index look-ups a timeline, however long the archive.
pub fn extents() -> Result<Vec<Extent>> {
    static EXTENTS: Statement = Statement::new(
        "WITH RECURSIVE timelines AS (
             (SELECT timeline_id FROM @extschema@.wal_archive WHERE end_lsn IS NOT NULL
               ORDER BY timeline_id LIMIT 1)
             UNION ALL
             SELECT (SELECT w.timeline_id FROM @extschema@.wal_archive w
                      WHERE w.timeline_id > t.timeline_id AND w.end_lsn IS NOT NULL ORDER BY w.timeline_id LIMIT 1)
               FROM timelines t WHERE t.timeline_id IS NOT NULL
         )
         SELECT t.timeline_id, oldest.start_lsn, newest.end_lsn
           FROM timelines t,
                LATERAL (SELECT w.start_lsn FROM @extschema@.wal_archive w
                          WHERE w.timeline_id = t.timeline_id AND w.status = 'verified' AND w.end_lsn IS NOT NULL
                          ORDER BY w.end_lsn LIMIT 1) oldest,
                LATERAL (SELECT w.end_lsn FROM @extschema@.wal_archive w
                          WHERE w.timeline_id = t.timeline_id AND w.status = 'verified' AND w.end_lsn IS NOT NULL
                          ORDER BY w.end_lsn DESC LIMIT 1) newest",
    );
    EXTENTS.read(&[], |rows| {
        rows.gather(|row| {
            Ok(Extent {
                timeline: timeline(row.get(1)?),
                first: Lsn(row.need::<PgLsn>(2, "an LSN")?.0),
                last: Lsn(row.need::<PgLsn>(3, "an LSN")?.0),
            })
        })
    })
}

/// Flush positions of connected physical receivers, of those that count. A base backup's own stream does not: it ends with the
/// backup.
pub fn receivers(counted: CountedReceivers) -> Result<Vec<Lsn>> {
    static RECEIVERS: Statement = Statement::new(
        "SELECT r.flush_lsn FROM pg_stat_replication r
          WHERE r.flush_lsn IS NOT NULL
            -- Nobody has what has not been written yet, whatever they say.
            AND (pg_is_in_recovery() OR r.flush_lsn <= pg_current_wal_flush_lsn())
            AND r.state IN ('streaming', 'catchup') AND r.application_name <> 'pg_basebackup'
            AND ($1 OR r.sync_state IN ('sync', 'quorum'))
            AND NOT EXISTS (SELECT FROM pg_replication_slots s WHERE s.active_pid = r.pid AND s.slot_type = 'logical')",
    );
    if counted == CountedReceivers::None {
        return Ok(Vec::new());
    }
    RECEIVERS.read(&[(counted == CountedReceivers::All).into()], |rows| {
        rows.gather(|row| Ok(Lsn(row.need::<PgLsn>(1, "an LSN")?.0)))
    })
}

/// The archiver's last failure, if nothing was archived since.
pub fn archiver_failure() -> Result<Option<ArchiverFailure>> {
    static FAILURE: Statement = Statement::new(
        "SELECT last_failed_wal, last_failed_time FROM pg_stat_archiver
          WHERE last_failed_time > COALESCE(last_archived_time, '-infinity') AND last_failed_wal IS NOT NULL",
    );
    FAILURE.read(&[], |rows| {
        let Some(row) = rows.first() else {
            return Ok(None);
        };
        let at = row.get(2)?.and_then(moment);
        Ok(at.zip(row.get(1)?).map(|(at, file)| ArchiverFailure { file, at }))
    })
}

/// When a recovery of this cluster was last brought to a good end, for real or in a drill.
pub fn last_proven_at() -> Result<Option<TimestampWithTimeZone>> {
    static PROVEN: Statement = Statement::new(
        "SELECT max(end_time) FROM @extschema@.recovery_history
          WHERE status = 'completed' AND recovery_type NOT IN ('crash', 'failover')",
    );
    PROVEN.read(&[], |rows| rows.one("a time")?.get(1))
}

/// A word of one of the tables' lists.
fn word<T: std::str::FromStr>(text: String) -> Result<T> {
    text.parse().map_err(|_| Error::UnexpectedAnswer {
        what: "a word that this version knows",
    })
}

fn timeline(id: Option<i32>) -> Timeline {
    Timeline(id.map_or(0, i32::unsigned_abs))
}

/// A point in time for the sums; none for infinity.
pub fn moment(at: TimestampWithTimeZone) -> Option<DateTime<Utc>> {
    Utc.timestamp_micros(PgTimestamp(at.into()).unix_micros()).single()
}
