//! `crates/wal` follows WAL where a real server left its straight course: over a record that a crash cut off, and from one
//! timeline to the next.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use tests::{Cluster, Settings, Shutdown, process};
use wal::{
    Handover, Lsn, Major, Problem, SegmentName, SegmentSize, SegmentSummary, SegmentVerifier, Timeline,
    TimelineHistory, WalFormat,
};

fn settings() -> Settings {
    Settings::new()
        .without_library()
        .set("archive_mode", "off")
        .set("wal_keep_size", "1GB")
}

fn format_of(cluster: &Cluster) -> Result<WalFormat> {
    let major = Major::from_number(cluster.server().major()).context("a known major")?;
    let system = cluster
        .text("SELECT system_identifier FROM pg_control_system()")?
        .parse()?;
    Ok(WalFormat::new(major, SegmentSize::new(1 << 20)?, system))
}

fn verify(
    format: &WalFormat,
    name: SegmentName,
    history: Option<&TimelineHistory>,
    handover: Option<Handover>,
    directory: &Path,
) -> Result<SegmentSummary, wal::Fault> {
    let mut verifier = SegmentVerifier::new(format, name, history, handover);
    match fs::read(directory.join(name.to_string())) {
        Ok(bytes) => verifier.feed(&bytes),
        Err(error) => return verifier.fail(&error).result,
    }
    verifier.finish().result
}

#[test]
fn a_record_that_lost_its_second_half_in_a_crash_is_passed_over() -> Result<()> {
    // As src/test/recovery/t/026_overwrite_contrecord.pl makes one.
    let mut cluster = Cluster::start(settings().set("autovacuum", "off").set("checkpoint_timeout", "1h"))?;
    let format = format_of(&cluster)?;
    let directory = cluster.data().join("pg_wal");
    let before: Lsn = cluster.text("SELECT pg_switch_wal()")?.parse()?;
    let first = SegmentName::containing(Timeline(1), before, format.segment_size);
    let first = if before == first.start() {
        first
    } else {
        first.next().context("a next segment")?
    };
    cluster.text("CREATE TABLE t AS SELECT 1 AS one; SELECT pg_current_wal_flush_lsn()")?;
    // A record that spans into the segment after next.
    let end: Lsn = cluster
        .text("SELECT pg_logical_emit_message(true, 'cut', repeat('x', 1500000))")?
        .parse()?;
    cluster.stop(Shutdown::Immediate)?;
    let lost = SegmentName::containing(Timeline(1), end, format.segment_size);
    fs::remove_file(directory.join(lost.to_string()))?;
    cluster.start_server()?;
    cluster.text("CREATE TABLE u AS SELECT 1 AS one")?;
    let end: Lsn = cluster.text("SELECT pg_switch_wal()")?.parse()?;
    let last = SegmentName::containing(Timeline(1), end.less(1), format.segment_size);
    ensure!(last >= lost, "{last} is before {lost}");

    let (mut handover, mut records, mut name) = (None, 0, first);
    while name <= last {
        let summary = verify(&format, name, None, handover.take(), &directory).with_context(|| name.to_string())?;
        records += summary.records;
        handover = Some(summary.handover);
        name = name.next().context("a next segment")?;
    }
    let mut waldump = cluster.server().program("pg_waldump")?;
    let shown = process::run(
        waldump
            .arg("-p")
            .arg(&directory)
            .args([first.to_string(), last.to_string()]),
    )?;
    ensure!(
        shown.contains("OVERWRITE_CONTRECORD"),
        "no record was cut off:\n{shown}"
    );
    ensure!(
        shown.lines().count() as u64 == records,
        "{records} records, where pg_waldump shows\n{shown}"
    );
    Ok(())
}

#[test]
fn a_promotions_segments_are_verified_along_its_history_and_the_old_primarys_are_not_taken_for_them() -> Result<()> {
    let primary = Cluster::start(settings().own_identity())?;
    let format = format_of(&primary)?;
    let standby = primary.standby(settings())?;
    primary.text("CREATE TABLE t AS SELECT i, repeat('x', 100) FROM generate_series(1, 20000) i")?;
    let seen: Lsn = primary.text("SELECT pg_current_wal_flush_lsn()")?.parse()?;
    standby.wait_for(&format!("SELECT pg_last_wal_replay_lsn() >= '{seen}'"), "t")?;
    standby.promote()?;
    // Both go on, over several segments.
    for cluster in [&primary, &standby] {
        cluster.text("CREATE TABLE u AS SELECT i, repeat('x', 100) FROM generate_series(1, 20000) i")?;
        cluster.text("SELECT pg_switch_wal()")?;
    }
    let (old, new) = (primary.data().join("pg_wal"), standby.data().join("pg_wal"));
    let history = TimelineHistory::parse(Timeline(2), fs::read(new.join("00000002.history"))?)?;
    let branch = history.begin();
    ensure!(
        branch.0 % 8192 != 0,
        "the branch at {branch} shows nothing: it is at a page's start"
    );

    let end: Lsn = standby.text("SELECT pg_current_wal_flush_lsn()")?.parse()?;
    let mut name = SegmentName::containing(Timeline(1), branch.less(4 << 20), format.segment_size);
    let mut handover = None;
    let mut timelines = Vec::new();
    while name.end() <= end {
        name.timeline = history.timeline_of_segment(name.number, name.size);
        timelines.push(name.timeline.0);
        let directory = if name.timeline == Timeline(1) { &old } else { &new };
        let summary = verify(&format, name, Some(&history), handover.take(), directory)
            .with_context(|| format!("{name}, branch at {branch}"))?;
        // It would be another one if the records did not join.
        ensure!(timelines.len() == 1 || summary.unchecked_head == 0, "{name}");
        handover = Some(summary.handover);
        name = name.next().context("a next segment")?;
    }
    ensure!(
        timelines.contains(&1) && timelines.iter().filter(|timeline| **timeline == 2).count() > 1,
        "{timelines:?}"
    );

    // The old primary's segment behind the branch, under the new timeline's name: the branch's own one and the next.
    let branched = SegmentName::containing(Timeline(2), branch, format.segment_size);
    for name in [branched, branched.next().context("a next segment")?] {
        let old_name = name.on(Timeline(1));
        let mut verifier = SegmentVerifier::new(&format, name, Some(&history), None);
        verifier.feed(&fs::read(old.join(old_name.to_string()))?);
        let fault = verifier
            .finish()
            .result
            .err()
            .with_context(|| format!("{old_name} passed for {name}"))?;
        ensure!(fault.problem == Problem::ForeignTimeline, "{fault}");
        ensure!(
            fault.sentence.contains("timeline 1") && fault.sentence.contains("timeline 2"),
            "{fault}"
        );
    }
    Ok(())
}
