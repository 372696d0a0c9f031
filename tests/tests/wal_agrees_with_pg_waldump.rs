//! What `crates/wal` reads out of WAL is what PostgreSQL's own reader reads: every record, and the moment of every commit.
//!
//! Over more than 1 GB of WAL that the chosen server writes, with two segment sizes. The WAL is read where the server wrote it,
//! in `pg_wal`, of which nothing is removed meanwhile.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::Stdio;

use anyhow::{Context, Result, ensure};
use chrono::NaiveDateTime;
use postgres::Client;
use tests::cluster::text_in;
use tests::{Cluster, Settings, Shutdown, process};
use wal::{
    Commit, Handover, Hashing, Lsn, Major, RestorePoint, ScanProgress, SegmentName, SegmentSize, SegmentVerifier,
    Timeline, WalFormat, scan_commits,
};

/// More than half a gigabyte each.
const ENOUGH: u64 = 540 << 20;

#[test]
fn every_record_and_commit_time_agrees_in_segments_of_1_mb() -> Result<()> {
    agree(1)
}

#[test]
fn every_record_and_commit_time_agrees_in_segments_of_16_mb() -> Result<()> {
    agree(16)
}

fn agree(segment_mb: u32) -> Result<()> {
    let settings = Settings::new()
        .without_library()
        .segment_mb(segment_mb)
        .set("archive_mode", "off")
        .set("wal_level", "logical")
        .set("synchronous_commit", "off")
        .set("max_prepared_transactions", "10")
        .set("track_commit_timestamp", "on")
        .set("max_wal_size", "4GB")
        .set("wal_keep_size", "4GB");
    let mut cluster = Cluster::start(settings)?;
    write_wal(&mut cluster)?;
    let end: Lsn = cluster.text("SELECT pg_switch_wal()")?.parse()?;
    let size = SegmentSize::new(segment_mb << 20)?;
    let major = Major::from_number(cluster.server().major()).context("a known major")?;
    let system = cluster
        .text("SELECT system_identifier FROM pg_control_system()")?
        .parse()?;
    let format = WalFormat::new(major, size, system);

    let directory = cluster.data().join("pg_wal");
    let last = SegmentName::containing(Timeline(1), end.less(1), size);
    let first = first_segment(&directory, size)?;
    let bytes = last.end().bytes_since(first.start());
    ensure!(bytes >= ENOUGH, "only {bytes} bytes of WAL");

    let ours = read(&format, first, last, &directory)?;
    let records = compare(&cluster, first, last, &ours.commits)?;
    ensure!(
        ours.records == records,
        "{} records, where pg_waldump shows {records}",
        ours.records
    );
    let names: Vec<_> = ours
        .restore_points
        .iter()
        .map(|point| String::from_utf8_lossy(&point.name))
        .collect();
    ensure!(names == ["before the crash", "after it: ünïcode"], "{names:?}");
    scans_agree(&format, &ours.commits, last.end(), &directory)?;
    eprintln!(
        "PostgreSQL {major}, segments of {segment_mb} MB: {bytes} bytes, {records} records, {} commits agree",
        ours.commits.len()
    );
    Ok(())
}

const TABLES: &[&str] = &[
    "CREATE TABLE bulk AS SELECT i, repeat(md5(i::text), 25) AS t FROM generate_series(1, 100000) i",
    "CREATE INDEX ON bulk (t)",
    "CREATE TABLE small (i int PRIMARY KEY, t text)",
    "CREATE PROCEDURE commit_often(n int) LANGUAGE plpgsql AS $$
     BEGIN FOR k IN 1..n LOOP INSERT INTO small VALUES (k % 1000) ON CONFLICT (i) DO UPDATE SET t = k; COMMIT; END LOOP; END $$",
    // Commits that name many relations and subtransactions, longer than a page.
    "CREATE PROCEDURE commit_long(n int) LANGUAGE plpgsql AS $$
     BEGIN FOR k IN 1..n LOOP
         FOR j IN 1..k * 10 LOOP
             BEGIN EXECUTE format('CREATE TABLE wide_%s (a int PRIMARY KEY, b text)', j);
             EXCEPTION WHEN division_by_zero THEN NULL; END;
         END LOOP;
         COMMIT;
         FOR j IN 1..k * 10 LOOP EXECUTE format('DROP TABLE wide_%s', j); END LOOP;
         COMMIT;
     END LOOP; END $$",
];

const BEFORE_THE_CRASH: &[&str] = &[
    "CALL commit_often(50000)",
    "CALL commit_long(8)",
    "SELECT pg_create_restore_point('before the crash')",
    "BEGIN; INSERT INTO small VALUES (-1); PREPARE TRANSACTION 'one'",
    "BEGIN; INSERT INTO small VALUES (-2); PREPARE TRANSACTION 'two'",
    "COMMIT PREPARED 'one'",
    "ROLLBACK PREPARED 'two'",
    "SELECT pg_replication_origin_create('elsewhere')",
    "SELECT pg_replication_origin_session_setup('elsewhere')",
    "CALL commit_often(100)",
    "BEGIN; SELECT pg_replication_origin_xact_setup('0/1', '2020-02-02 02:02:02.020202+00'); INSERT INTO small VALUES (-3); COMMIT",
    "SELECT pg_replication_origin_session_reset()",
    // Longer than a segment of 1 MB, and than several.
    "SELECT pg_logical_emit_message(false, 'long', repeat('x', 5000000))",
    "SELECT pg_logical_emit_message(true, 'long', repeat('y', 1100000))",
    "SELECT pg_switch_wal()",
    "CHECKPOINT",
    "SELECT pg_switch_wal()",
    // Full-page images, since the checkpoint.
    "UPDATE bulk SET i = i + 1",
];

const AFTER_THE_CRASH: &[&str] = &[
    "SET wal_compression = on",
    "UPDATE bulk SET i = i + 1 WHERE i % 10 = 0",
    "RESET wal_compression",
    "SELECT pg_create_restore_point('after it: ünïcode')",
    "BEGIN; INSERT INTO small VALUES (-4); SAVEPOINT a; DELETE FROM small; ROLLBACK",
    "CALL commit_often(50000)",
];

const MORE: &[&str] = &[
    "CREATE TABLE more AS SELECT i, repeat('z', 700) FROM generate_series(1, 60000) i",
    "DROP TABLE more",
    "CALL commit_often(2000)",
];

/// All kinds of WAL: bulk and small, full-page images, commits of every form and length, records longer than a segment, and
/// a crash.
fn write_wal(cluster: &mut Cluster) -> Result<()> {
    let mut session = cluster.connect()?;
    run(&mut session, TABLES)?;
    run(&mut session, BEFORE_THE_CRASH)?;
    drop(session);
    cluster.restart(Shutdown::Kill)?;
    let mut session = cluster.connect()?;
    run(&mut session, AFTER_THE_CRASH)?;
    // Some of what is there lies before the first segment that is kept.
    let enough = ENOUGH + (48 << 20);
    while text_in(&mut session, "SELECT pg_current_wal_lsn()")?.parse::<Lsn>()? < Lsn(enough) {
        run(&mut session, MORE)?;
    }
    Ok(())
}

/// Each in a call of its own: a procedure that commits may not be one of several.
fn run(session: &mut Client, statements: &[&str]) -> Result<()> {
    for statement in statements {
        session
            .batch_execute(statement)
            .with_context(|| (*statement).to_owned())?;
    }
    Ok(())
}

fn first_segment(directory: &Path, size: SegmentSize) -> Result<SegmentName> {
    let mut names = Vec::new();
    for entry in std::fs::read_dir(directory)? {
        if let Ok(name) = SegmentName::parse(&entry?.file_name().to_string_lossy(), size) {
            names.push(name);
        }
    }
    names.into_iter().min().context("a segment in pg_wal")
}

struct Read {
    records: u64,
    commits: Vec<Commit>,
    restore_points: Vec<RestorePoint>,
}

/// Reads the segments one after the other, as a worker does: each with what the one before handed over.
fn read(format: &WalFormat, first: SegmentName, last: SegmentName, directory: &Path) -> Result<Read> {
    let mut read = Read {
        records: 0,
        commits: Vec::new(),
        restore_points: Vec::new(),
    };
    let mut handover: Option<Handover> = None;
    let mut name = first;
    while name <= last {
        let bytes = std::fs::read(directory.join(name.to_string()))?;
        let mut verifier = SegmentVerifier::new(format, name, None, handover.take()).with_hashing(Hashing::None);
        let before = read.commits.len();
        // No multiple of anything.
        for chunk in bytes.chunks(100_003) {
            verifier.feed_with(chunk, &mut |commit| read.commits.push(*commit));
        }
        let summary = verifier.finish().result.with_context(|| name.to_string())?;
        let here = read.commits.get(before..).unwrap_or_default();
        // initdb's own first segments may be gone, and pg_waldump too leaves out what began in them.
        ensure!(
            summary.unchecked_head == 0 || name == first,
            "{name}: {} bytes unchecked",
            summary.unchecked_head
        );
        ensure!(
            summary.commit_count == here.len() as u64,
            "{name}: {} commits",
            summary.commit_count
        );
        ensure!(
            summary.first_commit_at == here.first().and_then(|commit| commit.at),
            "{name}: the first commit's time"
        );
        ensure!(
            summary.last_commit_at == here.last().and_then(|commit| commit.at),
            "{name}: the last commit's time"
        );
        read.records += summary.records;
        read.restore_points.extend(summary.restore_points);
        handover = Some(Handover::from_bytes(&summary.handover.to_bytes())?);
        name = name.next().context("the last segment of all")?;
    }
    Ok(read)
}

/// Compares every commit with what pg_waldump shows, and gives the number of records that it shows.
fn compare(cluster: &Cluster, first: SegmentName, last: SegmentName, commits: &[Commit]) -> Result<u64> {
    let mut command = cluster.server().program("pg_waldump")?;
    command.env("TZ", "UTC").arg("-p").arg(cluster.data().join("pg_wal"));
    command
        .args([first.to_string(), last.to_string()])
        .stdout(Stdio::piped());
    let mut child = process::spawn(&mut command)?;
    let mut records = 0;
    let mut ours = commits.iter();
    for line in BufReader::new(child.stdout.take().context("its output")?).lines() {
        let line = line?;
        ensure!(line.starts_with("rmgr: "), "{line}");
        records += 1;
        if !line.starts_with("rmgr: Transaction") {
            continue;
        }
        let (head, description) = line.split_once(", desc: ").with_context(|| line.clone())?;
        let Some(time) = commit_time(description) else { continue };
        let (_, lsn) = head.split_once("lsn: ").with_context(|| line.clone())?;
        let lsn: Lsn = lsn.split(',').next().unwrap_or_default().parse()?;
        let time = NaiveDateTime::parse_from_str(time, "%Y-%m-%d %H:%M:%S%.6f").with_context(|| line.clone())?;
        let commit = ours.next().with_context(|| format!("a commit for {line}"))?;
        let at = commit.at.map(wal::PgTimestamp::unix_micros);
        ensure!(
            commit.lsn == lsn && at == Some(time.and_utc().timestamp_micros()),
            "{commit:?}, where pg_waldump shows {line}"
        );
    }
    ensure!(child.wait()?.success(), "pg_waldump failed");
    ensure!(
        ours.next().is_none(),
        "{} commits, more than pg_waldump shows",
        commits.len()
    );
    Ok(records)
}

/// `COMMIT 2025-01-02 03:04:05.678901 UTC; …` or `COMMIT_PREPARED 731: 2025-…`.
fn commit_time(description: &str) -> Option<&str> {
    let rest = match description.strip_prefix("COMMIT ") {
        Some(rest) => rest,
        None => description.strip_prefix("COMMIT_PREPARED ")?.split_once(": ")?.1,
    };
    rest.split_once(" UTC").map(|(time, _)| time)
}

/// From wherever a commit's record begins, the scan of live WAL finds that commit.
fn scans_agree(format: &WalFormat, commits: &[Commit], to: Lsn, directory: &Path) -> Result<()> {
    let mut open = |number| {
        let name = SegmentName {
            timeline: Timeline(1),
            number,
            size: format.segment_size,
        };
        File::open(directory.join(name.to_string()))
    };
    for commit in commits.iter().step_by(commits.len() / 500 + 1).chain(commits.last()) {
        for from in [commit.lsn, commit.end.less(1)] {
            let progress = scan_commits(format, from, to, u64::MAX, &mut open)?;
            ensure!(
                progress == ScanProgress::Found(*commit),
                "{progress:?} from {from}, where {commit:?} was expected"
            );
        }
    }
    Ok(())
}
