//! What a plan of a recovery looks up: commits, restore points and backups, and what the server says of its places.

use super::facts::moment;
use super::{PgLsn, Statement, Text, archive::time};
use crate::error::Result;
use chrono::{DateTime, Utc};
use pgrx::prelude::*;
use recovery::plan::CommitTimes;
use wal::{Lsn, PgTimestamp, Timeline};

/// Segments of a timeline: the start of the first and the end of the last.
pub type Range = (Timeline, Lsn, Lsn);

/// What is on record of a backup beside the facts of its verdict.
#[derive(Clone, Debug)]
pub struct BackupPlace {
    /// Who took it.
    pub method: String,
    /// What it is called.
    pub label: Option<Text>,
    /// Where it is.
    pub path: Option<Text>,
    /// The segment that it begins in.
    pub start_wal_file: Option<String>,
}

/// The columns of ranges, as arrays: timelines, and where each begins and ends.
fn columns(ranges: &[Range]) -> (Vec<i32>, Vec<i64>, Vec<i64>) {
    let position = |lsn: Lsn| i64::try_from(lsn.0).unwrap_or(i64::MAX);
    (
        ranges
            .iter()
            .map(|range| i32::try_from(range.0.0).unwrap_or(i32::MAX))
            .collect(),
        ranges.iter().map(|range| position(range.1)).collect(),
        ranges.iter().map(|range| position(range.2)).collect(),
    )
}

/// For each range the latest time of a commit or abort in its verified segments.
pub fn latest_xacts(ranges: &[Range]) -> Result<Vec<Option<DateTime<Utc>>>> {
    static LATEST: Statement = Statement::new(
        "SELECT x.latest
           FROM unnest($1::integer[], $2::bigint[], $3::bigint[]) WITH ORDINALITY AS r (timeline_id, first, behind, place),
                LATERAL (SELECT max(w.latest_xact_at) AS latest
                           FROM @extschema@.wal_archive w
                          WHERE w.timeline_id = r.timeline_id AND w.end_lsn > '0/0'::pg_lsn + r.first::numeric
                            AND w.end_lsn <= '0/0'::pg_lsn + r.behind::numeric AND w.status = 'verified') AS x
          ORDER BY r.place",
    );
    let (timelines, first, behind) = columns(ranges);
    LATEST.read(&[timelines.into(), first.into(), behind.into()], |rows| {
        rows.gather(|row| Ok(row.get::<TimestampWithTimeZone>(1)?.and_then(moment)))
    })
}

/// The first segment of these ranges with a commit or abort later than `limit`, and the last one with a commit up to `target`.
pub fn around(
    ranges: &[Range],
    target: DateTime<Utc>,
    limit: DateTime<Utc>,
) -> Result<(Option<CommitTimes>, Option<CommitTimes>)> {
    static AHEAD: Statement = Statement::new(
        "SELECT w.start_lsn, coalesce(w.first_commit_at, w.latest_xact_at), coalesce(w.last_commit_at, w.latest_xact_at),
                greatest(w.first_commit_at, w.last_commit_at, w.latest_xact_at)
           FROM unnest($1::integer[], $2::bigint[], $3::bigint[]) AS r (timeline_id, first, behind)
           JOIN @extschema@.wal_archive w
             ON w.timeline_id = r.timeline_id AND w.end_lsn > '0/0'::pg_lsn + r.first::numeric
            AND w.end_lsn <= '0/0'::pg_lsn + r.behind::numeric
          WHERE w.status = 'verified' AND greatest(w.first_commit_at, w.last_commit_at, w.latest_xact_at) > $4
          ORDER BY w.end_lsn LIMIT 1",
    );
    static BEHIND: Statement = Statement::new(
        "SELECT w.start_lsn, coalesce(w.first_commit_at, w.latest_xact_at), coalesce(w.last_commit_at, w.latest_xact_at),
                greatest(w.first_commit_at, w.last_commit_at, w.latest_xact_at)
           FROM unnest($1::integer[], $2::bigint[], $3::bigint[]) AS r (timeline_id, first, behind)
           JOIN @extschema@.wal_archive w
             ON w.timeline_id = r.timeline_id AND w.end_lsn > '0/0'::pg_lsn + r.first::numeric
            AND w.end_lsn <= '0/0'::pg_lsn + r.behind::numeric
          WHERE w.status = 'verified' AND least(w.first_commit_at, w.last_commit_at) <= $4
          ORDER BY w.end_lsn DESC LIMIT 1",
    );
    let ask = |statement: &'static Statement, bound: DateTime<Utc>| {
        let (timelines, first, behind) = columns(ranges);
        let bound = time(PgTimestamp::from_unix_micros(bound.timestamp_micros()).0);
        statement.read(&[timelines.into(), first.into(), behind.into(), bound.into()], |rows| {
            let Some(row) = rows.first() else {
                return Ok(None);
            };
            let at = |column| Ok::<_, crate::error::Error>(row.get::<TimestampWithTimeZone>(column)?.and_then(moment));
            let start = Lsn(row.need::<PgLsn>(1, "an LSN")?.0);
            let (first, last, latest) = (at(2)?, at(3)?, at(4)?);
            Ok(first.zip(last).zip(latest).map(|((first, last), latest)| CommitTimes {
                start,
                first,
                last,
                latest,
            }))
        })
    };
    Ok((ask(&AHEAD, limit)?, ask(&BEHIND, target)?))
}

/// Where the first segment of these ranges begins that has a commit or abort later than `target`: replay stops in it.
pub fn first_after(ranges: &[Range], target: DateTime<Utc>) -> Result<Option<Lsn>> {
    Ok(around(ranges, target, target)?.0.map(|times| times.start))
}

/// Restore points of this name: the segment that each was seen in, the end of its record, and when it was made.
pub fn points(name: &Text) -> Result<Vec<(String, Lsn, Option<DateTime<Utc>>)>> {
    static POINTS: Statement = Statement::new(
        "SELECT p.segment_name, p.lsn, p.created_at FROM @extschema@.restore_points p
           JOIN @extschema@.wal_archive w ON w.segment_name = p.segment_name AND w.status = 'verified'
          WHERE p.name = $1 ORDER BY p.lsn",
    );
    POINTS.read(&[name.into()], |rows| {
        rows.gather(|row| {
            Ok((
                row.need(1, "a segment name")?,
                Lsn(row.need::<PgLsn>(2, "an LSN")?.0),
                row.get::<TimestampWithTimeZone>(3)?.and_then(moment),
            ))
        })
    })
}

/// The names of the restore points made last, the newest first.
pub fn newest_points(most: i64) -> Result<Vec<String>> {
    static NEWEST: Statement = Statement::new(
        "SELECT p.name FROM @extschema@.restore_points p GROUP BY p.name ORDER BY max(p.created_at) DESC LIMIT $1",
    );
    NEWEST.read(&[most.into()], |rows| {
        rows.gather(|row| Ok(row.need::<Text>(1, "a name")?.to_utf8().into_owned()))
    })
}

/// Verified segments that can hold the commit of a transaction, those first in which the fewest others commit.
pub fn segments_of_transaction(xid: u32) -> Result<Vec<String>> {
    // 32 bits that wrap around: wal::XidRange::contains().
    static SEGMENTS: Statement = Statement::new(
        "SELECT segment_name FROM @extschema@.wal_archive
          WHERE status = 'verified' AND (($1 - lowest_xid) & 4294967295) <= ((highest_xid - lowest_xid) & 4294967295)
          ORDER BY (highest_xid - lowest_xid) & 4294967295, end_lsn DESC",
    );
    SEGMENTS.read(&[i64::from(xid).into()], |rows| {
        rows.gather(|row| row.need(1, "a segment name"))
    })
}

/// What the names of the stored segments of these ranges end in, without the dot: `gz`.
pub fn suffixes(ranges: &[Range]) -> Result<Vec<String>> {
    static SUFFIXES: Statement = Statement::new(
        "SELECT DISTINCT substring(w.stored_path FROM '[.]([a-z0-9]+)$')
           FROM unnest($1::integer[], $2::bigint[], $3::bigint[]) AS r (timeline_id, first, behind)
           JOIN @extschema@.wal_archive w
             ON w.timeline_id = r.timeline_id AND w.end_lsn > '0/0'::pg_lsn + r.first::numeric
            AND w.end_lsn <= '0/0'::pg_lsn + r.behind::numeric
          WHERE w.status = 'verified' AND w.stored_path ~ '[.][a-z0-9]+$'
          ORDER BY 1",
    );
    let (timelines, first, behind) = columns(ranges);
    SUFFIXES.read(&[timelines.into(), first.into(), behind.into()], |rows| {
        rows.gather(|row| row.need(1, "a suffix"))
    })
}

/// What the server says of where it is.
#[derive(Clone, Debug)]
pub struct Places {
    /// Where its programs are.
    pub bindir: String,
    /// The role that initdb made.
    pub superuser: Text,
    /// The current database.
    pub database: Text,
    /// The schema of the extension, quoted.
    pub schema: Text,
    /// Tablespaces with a place of their own.
    pub tablespaces: Vec<(u32, Text)>,
}

/// Asks it.
pub fn server_places() -> Result<Places> {
    static PLACES: Statement = Statement::new(
        "SELECT (SELECT c.setting FROM pg_config() c WHERE c.name = 'BINDIR'),
                pg_get_userbyid(10)::text, current_database()::text,
                (SELECT quote_ident(n.nspname) FROM pg_extension e JOIN pg_namespace n ON n.oid = e.extnamespace
                  WHERE e.extname = 'pg_backstop')",
    );
    static TABLESPACES: Statement = Statement::new(
        "SELECT t.oid::bigint, pg_tablespace_location(t.oid) FROM pg_tablespace t
          WHERE pg_tablespace_location(t.oid) LIKE '/%' ORDER BY t.oid",
    );
    let tablespaces = TABLESPACES.read(&[], |rows| {
        rows.gather(|row| {
            let oid = u32::try_from(row.need::<i64>(1, "an OID")?).unwrap_or_default();
            Ok((oid, row.need(2, "a place")?))
        })
    })?;
    PLACES.read(&[], |rows| {
        let row = rows.one("the server's places")?;
        Ok(Places {
            bindir: row.need(1, "a directory")?,
            superuser: row.need(2, "a role")?,
            database: row.need(3, "a database")?,
            schema: row.need(4, "a schema")?,
            tablespaces,
        })
    })
}
