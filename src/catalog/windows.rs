//! What verified WAL says of the ends of a recovery window.

use super::facts::moment;
use super::{PgLsn, Statement, Text};
use crate::error::Result;
use chrono::{DateTime, Utc};
use pgrx::prelude::*;
use recovery::Origin;
use wal::{Lsn, SegmentName, Timeline};

/// No record spans more segments, however small these are (XLogRecordMaxSize is a gigabyte).
const LONGEST_RECORD: i64 = 1024;

/// The start of the last record in verified WAL of `timeline` up to `end`: the greatest `recovery_target_lsn` that can be reached
/// there, since recovery stops behind the first record that starts at its target or later. None where none is known.
pub fn last_record_before(timeline: Timeline, end: Lsn) -> Result<Option<Lsn>> {
    // Nearly always the first row has it; a segment in the middle of one long record has none.
    static LAST: Statement = Statement::new(
        "SELECT last_record_lsn
           FROM (SELECT end_lsn, last_record_lsn FROM @extschema@.wal_archive
                  WHERE timeline_id = $1 AND end_lsn <= $2 AND status = 'verified'
                  ORDER BY end_lsn DESC LIMIT $3) AS newest
          WHERE last_record_lsn IS NOT NULL
          ORDER BY end_lsn DESC LIMIT 1",
    );
    LAST.read(
        &[number(timeline).into(), PgLsn(end.0).into(), LONGEST_RECORD.into()],
        |rows| {
            rows.first()
                .map_or(Ok(None), |row| Ok(row.get::<PgLsn>(1)?.map(|lsn| Lsn(lsn.0))))
        },
    )
}

/// What recovery still replays of a damaged segment before it meets the damage: the start of the last sound record, and the time
/// of the last commit before it. None where it replays nothing of it.
pub fn sound_head(segment: &SegmentName) -> Result<Option<(Lsn, Option<DateTime<Utc>>)>> {
    static HEAD: Statement = Statement::new(
        "SELECT last_record_lsn, last_commit_at FROM @extschema@.wal_archive
          WHERE segment_name = $1 AND status IN ('corrupt', 'acknowledged') AND last_record_lsn IS NOT NULL
            AND problem IN ('bad_page_header', 'bad_page_address', 'bad_record_length', 'bad_record_link', 'bad_record_crc')",
    );
    HEAD.read(&[segment.to_string().into()], |rows| {
        rows.first()
            .map(|row| {
                Ok((
                    Lsn(row.need::<PgLsn>(1, "an LSN")?.0),
                    row.get::<TimestampWithTimeZone>(2)?.and_then(moment),
                ))
            })
            .transpose()
    })
}

/// Time of the last commit in verified WAL of `timeline` in segments that end behind `from` and not behind `to`.
pub fn last_commit_between(timeline: Timeline, from: Lsn, to: Lsn) -> Result<Option<DateTime<Utc>>> {
    static LAST: Statement = Statement::new(
        "SELECT last_commit_at FROM @extschema@.wal_archive
          WHERE timeline_id = $1 AND end_lsn > $2 AND end_lsn <= $3 AND status = 'verified' AND last_commit_at IS NOT NULL
          ORDER BY end_lsn DESC LIMIT 1",
    );
    LAST.read(
        &[number(timeline).into(), PgLsn(from.0).into(), PgLsn(to.0).into()],
        |rows| {
            rows.first().map_or(Ok(None), |row| {
                Ok(row.get::<TimestampWithTimeZone>(1)?.and_then(moment))
            })
        },
    )
}

/// The end of the last verified segment in which somebody committed by that time, on this history: about where a recovery to that
/// time has to get.
pub fn committed_by(timelines: &[Timeline], time: TimestampWithTimeZone) -> Result<Option<Lsn>> {
    static COMMITTED: Statement = Statement::new(
        "SELECT end_lsn FROM @extschema@.wal_archive
          WHERE timeline_id = ANY ($1) AND status = 'verified' AND first_commit_at <= $2
          ORDER BY end_lsn DESC LIMIT 1",
    );
    let timelines: Vec<i32> = timelines.iter().copied().map(number).collect();
    COMMITTED.read(&[timelines.into(), time.into()], |rows| {
        rows.first()
            .map_or(Ok(None), |row| Ok(row.get::<PgLsn>(1)?.map(|lsn| Lsn(lsn.0))))
    })
}

/// Where the newest restore point of this name on this history lies.
pub fn restore_point(timelines: &[Timeline], name: &Text) -> Result<Option<Lsn>> {
    static POINT: Statement = Statement::new(
        "SELECT lsn FROM @extschema@.restore_points WHERE name = $2 AND timeline_id = ANY ($1) ORDER BY lsn DESC LIMIT 1",
    );
    let timelines: Vec<i32> = timelines.iter().copied().map(number).collect();
    POINT.read(&[timelines.into(), name.into()], |rows| {
        rows.first()
            .map_or(Ok(None), |row| Ok(row.get::<PgLsn>(1)?.map(|lsn| Lsn(lsn.0))))
    })
}

/// The backups that recoveries to moments between `from` and `to`, on these timelines, can begin with, in the order of their ends.
pub fn origins_between(timelines: &[Timeline], from: Lsn, to: Lsn, system_identifier: i64) -> Result<Vec<Origin>> {
    static ORIGINS: Statement = Statement::new(
        "SELECT id, start_lsn, end_lsn, backup_size_bytes::bigint, CASE WHEN backup_type <> 'full' THEN parent_id END
           FROM @extschema@.backup_history
          WHERE status = 'completed' AND verification <> 'failed' AND start_lsn IS NOT NULL
            AND backup_type IN ('full', 'incremental', 'differential') AND is_wal_range IS NOT TRUE
            AND (system_identifier IS NULL OR system_identifier = $4)
            AND (backup_type = 'full' OR parent_id IS NOT NULL)
            AND timeline_id = ANY ($1) AND end_lsn BETWEEN $2 AND $3
          ORDER BY end_lsn, id",
    );
    let timelines: Vec<i32> = timelines.iter().copied().map(number).collect();
    ORIGINS.read(
        &[
            timelines.into(),
            PgLsn(from.0).into(),
            PgLsn(to.0).into(),
            system_identifier.into(),
        ],
        |rows| {
            rows.gather(|row| {
                Ok(Origin {
                    id: row.need(1, "an id")?,
                    start: Lsn(row.need::<PgLsn>(2, "an LSN")?.0),
                    end: Lsn(row.need::<PgLsn>(3, "an LSN")?.0),
                    bytes: row.get::<i64>(4)?.map(i64::unsigned_abs),
                    parent: row.get(5)?,
                })
            })
        },
    )
}

fn number(timeline: Timeline) -> i32 {
    i32::try_from(timeline.0).unwrap_or(i32::MAX)
}
