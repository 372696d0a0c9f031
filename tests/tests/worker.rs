//! The worker lives through what kills it, counts nothing twice, loses nothing, and is quiet where it has nothing to do.

use anyhow::{Context, Result};
use postgres::Client;
use rustix::process::Signal;
use tests::cluster::text_in;
use tests::running::signal_process;
use tests::wait::SOON;
use tests::{Cluster, Look, Scene, Settings, Shutdown, wait_until, waldump, worker};

/// A scene whose worker is stuck in the middle of a tick: all that was archived after the backup has changed on disk (to the
/// same bytes), it has read and stored a part of that again, and waits for a row that the session has locked.
fn in_the_middle_of_a_tick() -> Result<(Scene, Client)> {
    let scene = Scene::verified()?;
    let mut session = scene.cluster.connect()?;
    let (changed, victim) = (scene.after_the_backup(), scene.victim()?);
    let lock = format!("BEGIN; SELECT clock_timestamp() FROM wal_archive WHERE segment_name = '{victim}' FOR UPDATE");
    let since = text_in(&mut session, &lock)?;
    for segment in &changed {
        scene.cluster.archive().change(segment, |_| ())?.stays();
    }
    waits_for_the_row(&scene.cluster)?;
    let again = format!("SELECT count(*) FROM wal_archive WHERE verified_at > '{since}'");
    let again: usize = scene.cluster.text(&again)?.parse()?;
    assert!(
        again > 0 && again < changed.len(),
        "{again} of {} verified again",
        changed.len()
    );
    Ok((scene, session))
}

fn waits_for_the_row(cluster: &Cluster) -> Result<()> {
    let waits = "SELECT wait_event_type FROM pg_stat_activity JOIN v_worker_status USING (pid)";
    cluster.wait_for(waits, "Lock")
}

/// After whatever happened: every segment once, every commit once, one backup, and a ledger to believe.
fn nothing_is_lost_or_counted_twice(scene: &Scene) -> Result<()> {
    scene.wait_until_ready()?;
    let cluster = &scene.cluster;
    let (first, last) = (
        scene.segments.first().context("first")?,
        scene.segments.last().context("last")?,
    );
    let commits = waldump::commits(cluster.server(), cluster.archive().path(), first, last)?;
    assert!(commits > 1200, "{commits}");
    let counted = "SELECT count(*), sum(commit_count) FROM wal_archive WHERE start_lsn IS NOT NULL";
    let range = format!("{counted} AND segment_name BETWEEN '{first}' AND '{last}' AND segment_name NOT LIKE '%.%'");
    assert_eq!(cluster.text(&range)?, format!("{}|{commits}", scene.segments.len()));
    assert_eq!(
        cluster.text("SELECT count(*), min(origin) FROM backup_history")?,
        "1|detected"
    );
    assert_eq!(cluster.text("SELECT status FROM verify_ledger()")?, "intact");
    Ok(())
}

/// W1
#[test]
fn a_worker_ended_in_the_middle_of_a_tick_ends_at_once_and_its_successor_goes_on() -> Result<()> {
    let (scene, mut session) = in_the_middle_of_a_tick()?;
    let ended = worker::pid(&scene.cluster)?;
    assert_eq!(
        scene
            .cluster
            .text(&format!("SELECT pg_terminate_backend({ended}, 2000)"))?,
        "t"
    );
    let successor = worker::successor(&scene.cluster, ended)?;
    assert_ne!(successor, ended);
    text_in(&mut session, "ROLLBACK")?;
    nothing_is_lost_or_counted_twice(&scene)
}

/// W1. That all sessions end is PostgreSQL's own rule for a child that was killed.
#[test]
fn a_worker_killed_in_the_middle_of_a_tick_is_back_and_goes_on() -> Result<()> {
    let (scene, _session) = in_the_middle_of_a_tick()?;
    let killed = worker::pid(&scene.cluster)?;
    signal_process(killed, Signal::KILL)?;
    worker::successor(&scene.cluster, killed)?;
    nothing_is_lost_or_counted_twice(&scene)
}

/// W2
#[test]
fn an_immediate_shutdown_in_the_middle_of_a_tick_changes_nothing() -> Result<()> {
    let (mut scene, session) = in_the_middle_of_a_tick()?;
    scene.cluster.restart(Shutdown::Immediate)?;
    drop(session);
    nothing_is_lost_or_counted_twice(&scene)
}

/// A session that is in the worker's way for longer than the worker waits makes one error, and no more than a delay.
#[test]
fn the_worker_goes_on_after_a_tick_that_failed() -> Result<()> {
    let (scene, mut session) = in_the_middle_of_a_tick()?;
    let failed = "SELECT last_error <> '' FROM v_worker_status";
    scene.cluster.wait_for(failed, "t")?;
    text_in(&mut session, "ROLLBACK")?;
    nothing_is_lost_or_counted_twice(&scene)?;
    scene
        .cluster
        .wait_for("SELECT coalesce(last_error, '') FROM v_worker_status", "")
}

/// The lines of the log in which one of the extension's processes complains.
fn complaints(cluster: &Cluster) -> Result<Vec<String>> {
    let complains = |line: &&str| {
        ["WARNING:", "ERROR:", "FATAL:", "PANIC:"]
            .iter()
            .any(|level| line.contains(level))
            && line.contains("pg_backstop")
    };
    Ok(cluster.log()?.lines().filter(complains).map(str::to_owned).collect())
}

/// W3
#[test]
fn the_extension_dropped_and_created_again_makes_no_loop_of_errors() -> Result<()> {
    let scene = Scene::verified()?;
    let cluster = &scene.cluster;
    let before = worker::pid(cluster)?;
    cluster.text("DROP EXTENSION pg_backstop")?;
    // Without the extension there is no view to ask; the server says that the worker lives, and through it time passes.
    let alive = "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'pg_backstop worker'";
    cluster.wait_for(alive, "1")?;
    let asleep = format!("SELECT state FROM pg_stat_activity WHERE pid = {before}");
    cluster.wait_for(&asleep, "idle")?;
    cluster.text("CREATE EXTENSION pg_backstop")?;
    scene.wait_until_ready()?;
    assert_eq!(worker::pid(cluster)?, before, "it lives through it");
    let complaints = complaints(cluster)?;
    assert!(complaints.len() <= 1, "{complaints:#?}");
    Ok(())
}

/// W3
#[test]
fn the_extension_can_be_dropped_while_the_worker_writes() -> Result<()> {
    let cluster = Cluster::start(Settings::new().set("pg_backstop.check_interval", "100ms"))?;
    cluster.client("pgbench", &["-i", "-q", "-s", "1"])?;
    for _ in 0..12 {
        cluster.text("CREATE EXTENSION pg_backstop")?;
        cluster.client("pgbench", &["-n", "-t", "50"])?;
        cluster.wait_for("SELECT count(*) > 0 FROM recovery_samples", "t")?;
        cluster.text("DROP EXTENSION pg_backstop")?;
    }
    assert!(!cluster.log()?.contains("deadlock detected"));
    Ok(())
}

#[test]
fn its_database_dropped_and_created_again_leaves_a_server_that_works() -> Result<()> {
    let cluster = Cluster::start(Settings::new().set("pg_backstop.database", "watched"))?;
    // Nobody has made it yet, so there is no worker and nobody to complain of it.
    let workers = "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'pg_backstop worker'";
    assert_eq!(cluster.text(workers)?, "0");
    let made = || -> Result<u32> {
        cluster.text("CREATE DATABASE watched")?;
        cluster.wait_for(workers, "1")?;
        let mut session = cluster.connect_as("postgres", "watched")?;
        text_in(&mut session, "CREATE EXTENSION pg_backstop")?;
        let pid = wait_until("the worker to tick", SOON, || {
            let seen = text_in(
                &mut session,
                "SELECT pid FROM v_worker_status WHERE last_tick_at IS NOT NULL",
            )?;
            Ok(seen.parse().map_or_else(|_| Look::NotYet(seen), Look::Done))
        })?;
        text_in(&mut session, "SELECT record_backup_start()")?;
        Ok(pid)
    };
    let first = made()?;
    cluster.text("DROP DATABASE watched WITH (FORCE)")?;
    cluster.wait_for(workers, "0")?;
    let second = made()?;
    assert_ne!(first, second);
    let complaints = complaints(&cluster)?;
    assert!(complaints.len() <= 3, "{complaints:#?}");
    Ok(())
}

#[test]
fn without_preloading_everything_but_shared_memory_works_and_a_worker_can_be_started() -> Result<()> {
    let mut scene = Scene::stopped()?;
    scene.cluster.set("shared_preload_libraries", "")?;
    scene.start()?;
    let cluster = &scene.cluster;
    let gone = cluster.archive().remove(&scene.victim()?)?;
    let found = "SELECT segment_name, problem FROM verify_wal_archive() WHERE problem IS NOT NULL";
    cluster.wait_for(found, &format!("{}|missing", scene.victim()?))?;
    gone.mend()?;
    assert_eq!(cluster.text("SELECT start_worker()")?, "t");
    scene.wait_until_ready()?;
    assert_eq!(cluster.text("SELECT start_worker()")?, "f", "one is enough");
    // What it cannot read, sessions learn from pg_stat_activity.
    let archive = cluster.archive().path().to_owned();
    let away = archive.with_extension("away");
    std::fs::rename(&archive, &away)?;
    cluster.wait_for("SELECT last_error LIKE '%does not exist%' FROM v_worker_status", "t")?;
    assert_ne!(cluster.text("SELECT status FROM recovery_readiness")?, "ready");
    std::fs::rename(&away, &archive)?;
    scene.wait_until_ready()?;
    assert_eq!(cluster.text("SELECT stop_worker()")?, "t");
    let workers = "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'pg_backstop worker'";
    cluster.wait_for(workers, "0")?;
    assert_eq!(cluster.text("SELECT stop_worker()")?, "f");
    Ok(())
}

/// With no other writes, ticks leave the WAL where it is.
#[test]
fn an_idle_cluster_stays_idle() -> Result<()> {
    let scene = Scene::verified()?;
    let cluster = &scene.cluster;
    cluster.text("CHECKPOINT")?;
    worker::ticks(cluster, 3)?;
    let before = cluster.text("SELECT pg_current_wal_insert_lsn()")?;
    worker::ticks(cluster, 5)?;
    let written = cluster.text(&format!("SELECT pg_current_wal_insert_lsn() - '{before}'"))?;
    // A running-transactions record (50 bytes or so) may come from the background writer.
    assert!(written.parse::<u64>()? < 200, "{written} bytes");
    Ok(())
}

#[test]
fn a_reader_of_the_archive_that_is_killed_leaves_no_false_verdict() -> Result<()> {
    let mut scene = Scene::verified()?;
    scene.cluster.restart(Shutdown::Fast)?;
    let cluster = &scene.cluster;
    worker::ticks(cluster, 2)?;
    for _ in 0..2 {
        signal_process(worker::reader(cluster)?, Signal::KILL)?;
        cluster.text("CREATE TABLE IF NOT EXISTS noise AS SELECT 1 AS n; INSERT INTO noise VALUES (2)")?;
        let newest = cluster.archive_now()?;
        cluster.wait_for(
            &format!("SELECT status FROM wal_archive WHERE segment_name = '{newest}'"),
            "verified",
        )?;
    }
    assert_eq!(
        cluster.text("SELECT count(*) FROM wal_archive WHERE problem IS NOT NULL")?,
        "0"
    );
    scene.wait_until_ready()
}
