//! Rows of wal_archive and restore_points: what is known of each archived file.

use super::{Image, PgLsn, Statement, Text};
use crate::error::Result;
use archive::Status;
use pgrx::prelude::*;
use wal::{Problem, SegmentName};

/// What wal_archive holds of a file, as far as the next look at the archive needs it.
#[derive(Clone, Debug)]
pub struct Recorded {
    /// The file's name without any compression suffix.
    pub name: String,
    /// `pending`, `verified`, `missing`, `corrupt`, `foreign` or `acknowledged`.
    pub status: String,
    /// What is wrong with it.
    pub problem: Option<String>,
    /// Size of the stored file when it was read; `None` where it never was.
    pub stored_bytes: Option<i64>,
    /// The stored file's ctime when it was read, microseconds since 2000-01-01 UTC.
    pub changed_at: Option<i64>,
    /// When it was first expected or seen.
    pub first_seen_at: i64,
}

/// The rows of the files of these names.
pub fn recorded(names: Vec<String>) -> Result<Vec<Recorded>> {
    static RECORDED: Statement = Statement::new(
        "SELECT segment_name, status, problem, stored_bytes, stored_changed_at, first_seen_at
           FROM @extschema@.wal_archive WHERE segment_name = ANY ($1)",
    );
    RECORDED.read(&[names.into()], |rows| {
        rows.gather(|row| {
            Ok(Recorded {
                name: row.need(1, "a segment name")?,
                status: row.need(2, "a status")?,
                problem: row.get(3)?,
                stored_bytes: row.get(4)?,
                changed_at: row.get::<TimestampWithTimeZone>(5)?.map(i64::from),
                first_seen_at: row.need::<TimestampWithTimeZone>(6, "a time")?.into(),
            })
        })
    })
}

/// Names of the history and backup history files that have a row.
pub fn recorded_texts() -> Result<Vec<String>> {
    static TEXTS: Statement = Statement::new(
        "SELECT segment_name FROM @extschema@.wal_archive WHERE start_lsn IS NULL ORDER BY segment_name",
    );
    TEXTS.read(&[], |rows| rows.gather(|row| row.need(1, "a file name")))
}

/// How many files were in the archive when they were last looked for.
pub fn files_on_record() -> Result<i64> {
    static FILES: Statement = Statement::new(
        "SELECT count(*) FROM @extschema@.wal_archive
          WHERE stored_bytes IS NOT NULL AND status NOT IN ('missing', 'acknowledged')",
    );
    FILES.read(&[], |rows| rows.one("a count")?.need(1, "a count"))
}

/// The verified segments that were read longest ago, and when, oldest first.
pub fn read_longest_ago(most: i64) -> Result<Vec<(String, i64)>> {
    static LONGEST_AGO: Statement = Statement::new(
        "SELECT segment_name, verified_at FROM @extschema@.wal_archive
          WHERE status = 'verified' AND start_lsn IS NOT NULL AND verified_at IS NOT NULL
          ORDER BY verified_at LIMIT $1",
    );
    LONGEST_AGO.read(&[most.into()], |rows| {
        rows.gather(|row| {
            let read_at: TimestampWithTimeZone = row.need(2, "a time")?;
            Ok((row.need(1, "a segment name")?, read_at.into()))
        })
    })
}

/// A stretch of segments: timeline, first LSN, and the LSN behind it.
pub type Range = (u32, u64, u64);

/// Names of at most `most` segments that have a row and lie in none of these stretches, in the order of timeline and place,
/// after the place (timeline, end LSN) where the last search ended; with the place of the last of them.
pub fn outside(stretches: &[Range], after: (u32, u64), most: i64) -> Result<(Vec<String>, Option<(u32, u64)>)> {
    static OUTSIDE: Statement = Statement::new(
        "WITH RECURSIVE timelines AS (
             (SELECT timeline_id FROM @extschema@.wal_archive WHERE end_lsn IS NOT NULL ORDER BY timeline_id LIMIT 1)
             UNION ALL
             SELECT (SELECT w.timeline_id FROM @extschema@.wal_archive w
                      WHERE w.timeline_id > t.timeline_id AND w.end_lsn IS NOT NULL ORDER BY w.timeline_id LIMIT 1)
               FROM timelines t WHERE t.timeline_id IS NOT NULL
         ), bounds AS (
             SELECT t.timeline_id,
                    COALESCE('0/0'::pg_lsn + s.first::numeric, 'FFFFFFFF/FFFFFFFF') AS first,
                    COALESCE('0/0'::pg_lsn + s.behind::numeric, 'FFFFFFFF/FFFFFFFF') AS behind
               FROM timelines t
               LEFT JOIN unnest($1::integer[], $2::bigint[], $3::bigint[]) AS s (timeline_id, first, behind)
                      ON s.timeline_id = t.timeline_id
              WHERE t.timeline_id >= $4
         )
         SELECT o.segment_name, o.timeline_id, o.end_lsn
           FROM bounds b, LATERAL (
               (SELECT w.segment_name, w.timeline_id, w.end_lsn FROM @extschema@.wal_archive w
                 WHERE w.timeline_id = b.timeline_id AND w.end_lsn <= b.first
                   AND (b.timeline_id > $4 OR w.end_lsn > $5) ORDER BY w.end_lsn LIMIT $6)
               UNION ALL
               (SELECT w.segment_name, w.timeline_id, w.end_lsn FROM @extschema@.wal_archive w
                 WHERE w.timeline_id = b.timeline_id AND w.end_lsn > b.behind
                   AND (b.timeline_id > $4 OR w.end_lsn > $5) ORDER BY w.end_lsn LIMIT $6)
           ) o
          ORDER BY o.timeline_id, o.end_lsn LIMIT $6",
    );
    let column = |of: fn(&Range) -> i64| stretches.iter().map(of).collect::<Vec<i64>>();
    let timelines: Vec<i32> = stretches.iter().map(|stretch| signed(stretch.0)).collect();
    OUTSIDE.read(
        &[
            timelines.into(),
            column(|stretch| stretch.1.min(i64::MAX.unsigned_abs()).cast_signed()).into(),
            column(|stretch| stretch.2.min(i64::MAX.unsigned_abs()).cast_signed()).into(),
            signed(after.0).into(),
            PgLsn(after.1).into(),
            most.into(),
        ],
        |rows| {
            let (mut names, mut last) = (Vec::new(), None);
            for row in rows {
                names.push(row.need(1, "a segment name")?);
                last = Some((
                    row.need::<i32>(2, "a timeline")?.unsigned_abs(),
                    row.need::<PgLsn>(3, "an LSN")?.0,
                ));
            }
            Ok((names, last))
        },
    )
}

/// Puts a verified segment back to be read again, because what its verification rested on has changed.
pub fn read_anew(name: &str, detail: &str) -> Result<()> {
    static ANEW: Statement = Statement::new(
        "UPDATE @extschema@.wal_archive
            SET status = 'pending', detail = $2, status_since = clock_timestamp()
          WHERE segment_name = $1 AND status = 'verified'",
    );
    ANEW.write(&[name.into(), detail.into()], |_| Ok(()))
}

/// Segments of other branches that have a row because of their names.
pub fn strangers(most: i64) -> Result<Vec<String>> {
    static STRANGERS: Statement = Statement::new(
        "SELECT segment_name FROM @extschema@.wal_archive
          WHERE status = 'foreign' AND problem = 'foreign_timeline' AND start_lsn IS NOT NULL AND stored_bytes IS NULL
          ORDER BY segment_name DESC LIMIT $1",
    );
    STRANGERS.read(&[most.into()], |rows| rows.gather(|row| row.need(1, "a segment name")))
}

/// Removes what is on record of another cluster's archive: a dump brings it along.
pub fn forget_other_clusters(system_identifier: i64) -> Result<()> {
    static POINTS: Statement = Statement::new(
        "DELETE FROM @extschema@.restore_points p USING @extschema@.wal_archive w
          WHERE w.segment_name = p.segment_name AND w.system_identifier <> $1",
    );
    static ROWS: Statement = Statement::new("DELETE FROM @extschema@.wal_archive WHERE system_identifier <> $1");
    POINTS.write(&[system_identifier.into()], |_| Ok(()))?;
    ROWS.write(&[system_identifier.into()], |_| Ok(()))
}

/// What a segment's content must be, as far as is on record: the SHA-256 of what was verified first.
pub fn sound_sha256(name: &str) -> Result<Option<String>> {
    static SOUND: Statement =
        Statement::new("SELECT sound_sha256 FROM @extschema@.wal_archive WHERE segment_name = $1");
    SOUND.read(&[name.into()], |rows| rows.first().map_or(Ok(None), |row| row.get(1)))
}

/// A row as `verify_wal_archive()` returns it: the columns of the table in their order.
pub type FullRow = (
    Text,
    Option<i32>,
    Option<PgLsn>,
    Option<PgLsn>,
    Text,
    Option<Text>,
    Option<Text>,
    Option<Text>,
    Option<i64>,
    Option<Text>,
    Option<TimestampWithTimeZone>,
    Option<TimestampWithTimeZone>,
    Option<i64>,
    TimestampWithTimeZone,
    Option<TimestampWithTimeZone>,
);

/// Rows of the segments from `from` to `to` on any timeline; without both ends, of all files.
pub fn rows(from: Option<&Text>, to: Option<&Text>) -> Result<Vec<FullRow>> {
    static ROWS: Statement = Statement::new(
        "SELECT segment_name, timeline_id, start_lsn, end_lsn, status, problem, detail, stored_path, stored_bytes, sha256,
                first_commit_at, last_commit_at, commit_count, first_seen_at, verified_at
           FROM @extschema@.wal_archive
          WHERE ($1 IS NULL OR start_lsn IS NOT NULL AND substring(segment_name FROM 9) >= substring($1 FROM 9))
            AND ($2 IS NULL OR start_lsn IS NOT NULL AND substring(segment_name FROM 9) <= substring($2 FROM 9))
          ORDER BY start_lsn, segment_name",
    );
    ROWS.read_latest(&[from.into(), to.into()], |rows| {
        rows.gather(|row| {
            Ok((
                row.need(1, "a segment name")?,
                row.get(2)?,
                row.get(3)?,
                row.get(4)?,
                row.need(5, "a status")?,
                row.get(6)?,
                row.get(7)?,
                row.get(8)?,
                row.get(9)?,
                row.get(10)?,
                row.get(11)?,
                row.get(12)?,
                row.get(13)?,
                row.need(14, "a time")?,
                row.get(15)?,
            ))
        })
    })
}

/// What verifying the segment after `name` needs to know of its end; `None` unless `name` is verified.
pub fn handover(name: &str) -> Result<Option<Vec<u8>>> {
    static HANDOVER: Statement =
        Statement::new("SELECT handover FROM @extschema@.wal_archive WHERE segment_name = $1 AND status = 'verified'");
    HANDOVER.read(&[name.into()], |rows| rows.first().map_or(Ok(None), |row| row.get(1)))
}

/// What one look at a stored file found.
#[derive(Clone, Debug, Default, serde::Serialize, serde::Deserialize)]
pub struct Finding {
    /// The file's name.
    pub name: String,
    /// Its timeline.
    pub timeline: u32,
    /// Where its WAL begins; `None` for a history file.
    pub start: Option<u64>,
    /// Where its WAL ends.
    pub end: Option<u64>,
    /// The contract's status.
    pub status: Status,
    /// The contract's problem, where there is one.
    pub problem: Option<Problem>,
    /// What was found where, and what was expected.
    pub detail: Option<String>,
    /// Where it was read.
    pub path: String,
    /// Its size as stored.
    pub bytes: i64,
    /// Its ctime, microseconds since 2000-01-01 UTC; `None` where the archive shows no files.
    pub changed_at: Option<i64>,
    /// SHA-256 of its content, not compressed, in hexadecimal digits.
    pub sha256: Option<String>,
    /// SHA-256 of what its content has to be, where this look found that out.
    pub sound_sha256: Option<String>,
    /// Time of the first commit, microseconds since 2000-01-01 UTC.
    pub first_commit_at: Option<i64>,
    /// Time of the last commit.
    pub last_commit_at: Option<i64>,
    /// The latest time of a commit or abort.
    pub latest_xact_at: Option<i64>,
    /// The start of the last record that recovery can replay of it.
    pub last_record: Option<u64>,
    /// The oldest transaction that commits in it, as far as its record names it.
    pub lowest_xid: Option<i64>,
    /// The newest one.
    pub highest_xid: Option<i64>,
    /// Commits in it.
    pub commits: Option<i64>,
    /// Records that end in it.
    pub records: Option<i64>,
    /// Bytes of WAL in it, up to the switch that ended it, if one did.
    pub data_bytes: Option<i64>,
    /// What the next segment's verification needs.
    pub handover: Option<Vec<u8>>,
    /// Named restore points in it: name, LSN, time.
    pub restore_points: Vec<(Vec<u8>, u64, i64)>,
    /// Heads of ledgers that were noted in it.
    pub ledger_heads: Vec<wal::LedgerHead>,
}

/// Whether the file's row says the same, of the same file.
pub fn is_on_record(finding: &Finding) -> Result<bool> {
    static SAME: Statement = Statement::new(
        "SELECT true FROM @extschema@.wal_archive
          WHERE segment_name = $1 AND problem IS NOT DISTINCT FROM $3
            AND (status = 'acknowledged' OR status = $2 AND detail IS NOT DISTINCT FROM $4)
            AND sha256 IS NOT DISTINCT FROM $5 AND stored_changed_at IS NOT DISTINCT FROM $6",
    );
    SAME.read(
        &[
            finding.name.as_str().into(),
            finding.status.as_str().into(),
            finding.problem.map(Problem::as_str).into(),
            finding.detail.as_deref().into(),
            finding.sha256.as_deref().into(),
            finding.changed_at.and_then(time).into(),
        ],
        |rows| Ok(rows.first().is_some()),
    )
}

/// Stores what was found, in place of what was known of the file before. Who has acknowledged a problem has acknowledged it
/// for as long as the same one is found in the same bytes.
pub fn store(finding: &Finding) -> Result<()> {
    static STORE: Statement = Statement::new(
        "INSERT INTO @extschema@.wal_archive AS w
             (segment_name, timeline_id, start_lsn, end_lsn, status, problem, detail, stored_path, stored_bytes,
              stored_changed_at, sha256, first_commit_at, last_commit_at, commit_count, record_count, handover,
              sound_sha256, data_bytes, latest_xact_at, last_record_lsn, lowest_xid, highest_xid, system_identifier,
              verified_at)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20, $21, $22,
                 (SELECT c.system_identifier FROM pg_control_system() c), clock_timestamp())
         ON CONFLICT (segment_name) DO UPDATE SET
             timeline_id = EXCLUDED.timeline_id, start_lsn = EXCLUDED.start_lsn, end_lsn = EXCLUDED.end_lsn,
             status = CASE WHEN w.status = 'acknowledged' AND w.problem = EXCLUDED.problem
                               AND w.sha256 IS NOT DISTINCT FROM EXCLUDED.sha256
                           THEN w.status ELSE EXCLUDED.status END,
             problem = EXCLUDED.problem,
             detail = CASE WHEN w.status = 'acknowledged' AND w.problem = EXCLUDED.problem
                               AND w.sha256 IS NOT DISTINCT FROM EXCLUDED.sha256
                           THEN w.detail ELSE EXCLUDED.detail END,
             stored_path = EXCLUDED.stored_path, stored_bytes = EXCLUDED.stored_bytes,
             stored_changed_at = EXCLUDED.stored_changed_at, sha256 = EXCLUDED.sha256,
             first_commit_at = EXCLUDED.first_commit_at, last_commit_at = EXCLUDED.last_commit_at,
             commit_count = EXCLUDED.commit_count, record_count = EXCLUDED.record_count,
             handover = EXCLUDED.handover, verified_at = EXCLUDED.verified_at,
             sound_sha256 = COALESCE(EXCLUDED.sound_sha256, w.sound_sha256), data_bytes = EXCLUDED.data_bytes,
             latest_xact_at = EXCLUDED.latest_xact_at, last_record_lsn = EXCLUDED.last_record_lsn,
             lowest_xid = EXCLUDED.lowest_xid, highest_xid = EXCLUDED.highest_xid,
             system_identifier = EXCLUDED.system_identifier,
             status_since = CASE WHEN w.status IN (EXCLUDED.status, 'acknowledged')
                                      AND w.problem IS NOT DISTINCT FROM EXCLUDED.problem
                                 THEN w.status_since ELSE clock_timestamp() END",
    );
    static FORGET_POINTS: Statement = Statement::new("DELETE FROM @extschema@.restore_points WHERE segment_name = $1");
    static ADD_POINT: Statement = Statement::new(
        "INSERT INTO @extschema@.restore_points (name, lsn, created_at, timeline_id, segment_name)
         VALUES ($1, $2, $3, $4, $5)
         ON CONFLICT (timeline_id, lsn) DO UPDATE SET
             name = EXCLUDED.name, created_at = EXCLUDED.created_at, segment_name = EXCLUDED.segment_name",
    );
    let timeline = signed(finding.timeline);
    let lsn = |position: Option<u64>| position.map(PgLsn);
    STORE.write(
        &[
            finding.name.as_str().into(),
            timeline.into(),
            lsn(finding.start).into(),
            lsn(finding.end).into(),
            finding.status.as_str().into(),
            finding.problem.map(Problem::as_str).into(),
            finding.detail.as_deref().into(),
            finding.path.as_str().into(),
            finding.bytes.into(),
            finding.changed_at.and_then(time).into(),
            finding.sha256.as_deref().into(),
            finding.first_commit_at.and_then(time).into(),
            finding.last_commit_at.and_then(time).into(),
            finding.commits.into(),
            finding.records.into(),
            finding.handover.clone().into(),
            finding.sound_sha256.as_deref().into(),
            finding.data_bytes.into(),
            finding.latest_xact_at.and_then(time).into(),
            lsn(finding.last_record).into(),
            finding.lowest_xid.into(),
            finding.highest_xid.into(),
        ],
        |_| Ok(()),
    )?;
    FORGET_POINTS.write(&[finding.name.as_str().into()], |_| Ok(()))?;
    for (name, position, at) in &finding.restore_points {
        ADD_POINT.write(
            &[
                Text::from_outside(name).into(),
                PgLsn(*position).into(),
                time(*at).into(),
                timeline.into(),
                finding.name.as_str().into(),
            ],
            |_| Ok(()),
        )?;
    }
    super::ledger_head::store(&finding.name, &finding.ledger_heads)
}

/// A file that is to get a verdict without having been read: one that is not there, waits to be read, or is another's by name.
#[derive(Clone, Debug)]
pub struct Unread {
    /// Its name.
    pub name: String,
    /// Its timeline.
    pub timeline: u32,
    /// Where its WAL begins and ends; `None` for a history file.
    pub range: Option<(u64, u64)>,
    /// `pending`, `missing` or `foreign`.
    pub status: &'static str,
    /// The contract's problem, where the status is not `pending`.
    pub problem: Option<&'static str>,
    /// One sentence.
    pub detail: String,
    /// Size and ctime (microseconds since 2000-01-01 UTC) of the stored file, if there is one.
    pub stored: Option<(i64, i64)>,
}

/// Stores verdicts on files that were not read. What was known of their content stays: it tells what to look for elsewhere.
pub fn store_unread(files: &[Unread]) -> Result<()> {
    static UNREAD: Statement = Statement::new(
        "INSERT INTO @extschema@.wal_archive AS w
             (segment_name, timeline_id, start_lsn, end_lsn, status, problem, detail, stored_bytes, stored_changed_at,
              system_identifier)
         SELECT f.name, f.timeline, '0/0'::pg_lsn + f.first::numeric, '0/0'::pg_lsn + f.behind::numeric, f.status, f.problem, f.detail,
                f.bytes, f.changed_at, (SELECT c.system_identifier FROM pg_control_system() c)
           FROM unnest($1::text[], $2::integer[], $3::bigint[], $4::bigint[], $5::text[], $6::text[], $7::text[],
                       $8::bigint[], $9::timestamptz[])
                AS f (name, timeline, first, behind, status, problem, detail, bytes, changed_at)
         ON CONFLICT (segment_name) DO UPDATE SET
             status = EXCLUDED.status, problem = EXCLUDED.problem, detail = EXCLUDED.detail,
             stored_bytes = CASE EXCLUDED.status WHEN 'missing' THEN w.stored_bytes ELSE EXCLUDED.stored_bytes END,
             stored_changed_at =
                 CASE EXCLUDED.status WHEN 'missing' THEN w.stored_changed_at ELSE EXCLUDED.stored_changed_at END,
             status_since = CASE WHEN w.status = EXCLUDED.status AND w.problem IS NOT DISTINCT FROM EXCLUDED.problem
                                 THEN w.status_since ELSE clock_timestamp() END
          WHERE (w.status, w.problem, w.detail) IS DISTINCT FROM (EXCLUDED.status, EXCLUDED.problem, EXCLUDED.detail)
             OR EXCLUDED.status <> 'missing'
                AND (w.stored_bytes, w.stored_changed_at)
                    IS DISTINCT FROM (EXCLUDED.stored_bytes, EXCLUDED.stored_changed_at)",
    );
    if files.is_empty() {
        return Ok(());
    }
    let lsn = |position: u64| i64::try_from(position).unwrap_or(i64::MAX);
    UNREAD.write(
        &[
            files.iter().map(|file| file.name.clone()).collect::<Vec<_>>().into(),
            files
                .iter()
                .map(|file| signed(file.timeline))
                .collect::<Vec<_>>()
                .into(),
            files
                .iter()
                .map(|file| file.range.map(|range| lsn(range.0)))
                .collect::<Vec<_>>()
                .into(),
            files
                .iter()
                .map(|file| file.range.map(|range| lsn(range.1)))
                .collect::<Vec<_>>()
                .into(),
            files
                .iter()
                .map(|file| file.status.to_owned())
                .collect::<Vec<_>>()
                .into(),
            files
                .iter()
                .map(|file| file.problem.map(str::to_owned))
                .collect::<Vec<_>>()
                .into(),
            files.iter().map(|file| file.detail.clone()).collect::<Vec<_>>().into(),
            files
                .iter()
                .map(|file| file.stored.map(|stored| stored.0))
                .collect::<Vec<_>>()
                .into(),
            files
                .iter()
                .map(|file| file.stored.and_then(|stored| time(stored.1)))
                .collect::<Vec<_>>()
                .into(),
        ],
        |_| Ok(()),
    )
}

/// What [`acknowledge`] did.
pub struct Acknowledged {
    /// How many segments.
    pub segments: i64,
    /// All of it, for the ledger.
    pub image: Image,
}

/// Marks the segments from `from` to `to`, of one timeline, that are bad as accepted, and adds to each who did so and why.
pub fn acknowledge(from: &SegmentName, to: &SegmentName, reason: &Text) -> Result<Acknowledged> {
    static ACKNOWLEDGE: Statement = Statement::new(
        "WITH changed AS (
             UPDATE @extschema@.wal_archive AS w
                SET status = 'acknowledged', status_since = clock_timestamp(),
                    detail = concat_ws(' ', w.detail, format('Acknowledged by %s: %s.', session_user, rtrim($4, E'. \\n')))
              WHERE w.timeline_id = $1 AND w.start_lsn >= $2 AND w.end_lsn <= $3 AND w.segment_name NOT LIKE '%.%'
                AND w.status IN ('missing', 'corrupt', 'foreign')
             RETURNING w.segment_name, w.problem, w.start_lsn, w.end_lsn, w.sha256
         ), runs AS (
             SELECT min(placed.segment_name) AS from_segment, max(placed.segment_name) AS to_segment,
                    count(*) AS segments, placed.problem
               FROM (SELECT segment_name, problem, div(start_lsn - '0/0'::pg_lsn, end_lsn - start_lsn)
                                - row_number() OVER (PARTITION BY problem ORDER BY start_lsn) AS run
                       FROM changed) AS placed
              GROUP BY placed.problem, placed.run
         )
         SELECT coalesce(sum(segments), 0)::bigint,
                jsonb_build_object('reason', $4, 'from_segment', $5, 'to_segment', $6,
                                   'segments', coalesce(sum(segments), 0),
                                   'runs', jsonb_agg(to_jsonb(runs) ORDER BY from_segment))
                || coalesce((SELECT jsonb_build_object('sha256', jsonb_object_agg(segment_name, sha256))
                               FROM changed WHERE problem NOT LIKE '%missing%' AND problem <> 'not_archived'
                                 AND sha256 IS NOT NULL HAVING count(*) > 0), '{}')
           FROM runs",
    );
    ACKNOWLEDGE.write(
        &[
            signed(from.timeline.0).into(),
            PgLsn(from.start().0).into(),
            PgLsn(to.end().0).into(),
            reason.into(),
            from.to_string().into(),
            to.to_string().into(),
        ],
        |rows| {
            let row = rows.one("the count of acknowledged segments")?;
            Ok(Acknowledged {
                segments: row.need(1, "the count of acknowledged segments")?,
                image: row.need(2, "what was acknowledged")?,
            })
        },
    )
}

/// Removes the rows of files that are gone and that no backup needs.
pub fn forget(names: Vec<String>) -> Result<()> {
    static FORGET_POINTS: Statement =
        Statement::new("DELETE FROM @extschema@.restore_points WHERE segment_name = ANY ($1)");
    static FORGET: Statement = Statement::new("DELETE FROM @extschema@.wal_archive WHERE segment_name = ANY ($1)");
    if names.is_empty() {
        return Ok(());
    }
    FORGET_POINTS.write(&[names.clone().into()], |_| Ok(()))?;
    FORGET.write(&[names.into()], |_| Ok(()))
}

/// A point in time as SQL has it; `None` for what is no valid timestamp.
pub fn time(micros_since_2000: i64) -> Option<TimestampWithTimeZone> {
    TimestampWithTimeZone::try_from(micros_since_2000).ok()
}

/// Timelines are unsigned on disk and `integer` in SQL, as in pg_control_checkpoint().
fn signed(timeline: u32) -> i32 {
    i32::try_from(timeline).unwrap_or(i32::MAX)
}
