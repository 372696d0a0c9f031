//! Crashes, failovers and restores leave a row in `recovery_history` without anybody's doing, once each; planned starts leave none;
//! and a restored copy knows that it is one.

use std::fs;
use std::time::SystemTime;

use anyhow::{Context, Result, ensure};
use rustix::process::Signal;
use tests::running::signal_process;
use tests::wait::SOON;
use tests::{Cluster, Look, Settings, Shutdown, wait_until, worker};

const FOUND: &str = "SELECT count(*) FROM recovery_history WHERE origin = 'detected'";
const HEARTBEAT: &str = "pg_stat_tmp/pg_backstop.heartbeat";
const ROLE: &str = "SELECT cluster_role FROM v_worker_status";

/// Ticks as fast as it may, so that what the worker saw last is not long ago.
fn settings() -> Settings {
    Settings::new().set("pg_backstop.check_interval", "100ms")
}

fn running() -> Result<Cluster> {
    let cluster = Cluster::start(settings())?;
    cluster.text("CREATE EXTENSION pg_backstop")?;
    cluster.wait_for(ROLE, "primary")?;
    worker::ticks(&cluster, 1)?;
    Ok(cluster)
}

/// Waits for a row while the server may be restarting.
fn wait_through_restart(cluster: &Cluster, sql: &str, expected: &str) -> Result<()> {
    wait_until(&format!("{expected:?} from {sql}"), SOON, || {
        let seen = cluster.text(sql).unwrap_or_else(|error| format!("{error:#}"));
        Ok(if seen == expected {
            Look::Done(())
        } else {
            Look::NotYet(seen)
        })
    })
}

/// Waits until the life that the server is in is on record, with all that belongs to it.
fn settled(cluster: &Cluster) -> Result<()> {
    wait_through_restart(
        cluster,
        "SELECT count(*) > 0 FROM server_lives WHERE started_at >= pg_postmaster_start_time() - interval '2 s'
            AND (SELECT last_tick_at FROM v_worker_status) > writes_at",
        "t",
    )?;
    worker::ticks(cluster, 2)
}

fn holds(cluster: &Cluster, condition: &str) -> Result<()> {
    let sql = format!("SELECT ({condition}) IS TRUE FROM recovery_history ORDER BY id DESC LIMIT 1");
    let seen = cluster.text(&sql)?;
    ensure!(
        seen == "t",
        "{condition} does not hold of {}",
        cluster.text("SELECT to_jsonb(r) FROM recovery_history r ORDER BY id DESC LIMIT 1")?
    );
    Ok(())
}

#[test]
fn a_killed_server_records_its_crash_once() -> Result<()> {
    let mut cluster = running()?;
    let before = cluster.text("SELECT clock_timestamp()")?;
    cluster.text("CREATE TABLE last_commit AS SELECT 1 AS one")?;
    worker::ticks(&cluster, 2)?;
    let after = cluster.text("SELECT clock_timestamp()")?;
    cluster.stop(Shutdown::Kill)?;
    cluster.start_server()?;
    cluster.wait_for(FOUND, "1")?;
    for condition in [
        "recovery_type = 'crash' AND status = 'completed' AND NOT is_drill".to_owned(),
        // It was alive then, and the heartbeat shows it to within a tick or two.
        format!("start_time BETWEEN '{after}'::timestamptz - interval '2 s' AND pg_postmaster_start_time()"),
        "checks ->> 'start_time' LIKE '%last heartbeat%'".to_owned(),
        "end_time BETWEEN pg_postmaster_start_time() AND clock_timestamp()".to_owned(),
        "abs(rto_seconds - extract(epoch FROM end_time - start_time)) < 0.002".to_owned(),
        // The machine ran on, so what was written is there, though fsync is off.
        "rpo_seconds = 0 AND checks ? 'rpo_seconds'".to_owned(),
        format!("recovered_to_time BETWEEN '{before}' AND '{after}'"),
        "recovered_to_lsn > '0/0' AND wal_replayed_bytes > 0 AND replay_seconds >= 0".to_owned(),
    ] {
        holds(&cluster, &condition)?;
    }
    assert_eq!(
        cluster.text("SELECT began, recovery_id, copy_of_id IS NULL FROM server_lives ORDER BY id DESC LIMIT 1")?,
        "crash|1|t"
    );

    // Neither another worker of this life nor a planned restart adds anything.
    let first = worker::pid(&cluster)?;
    cluster.text("SELECT pg_terminate_backend(pid) FROM v_worker_status")?;
    worker::successor(&cluster, first)?;
    worker::ticks(&cluster, 2)?;
    assert_eq!(cluster.text(FOUND)?, "1");
    cluster.restart(Shutdown::Fast)?;
    settled(&cluster)?;
    assert_eq!(cluster.text(FOUND)?, "1");
    // A crash that comes before anybody could look is of its own.
    // As after a crash of the machine, its heartbeat may be gone: then nothing is sure that fsync did not make sure.
    cluster.stop(Shutdown::Kill)?;
    fs::remove_file(cluster.data().join(HEARTBEAT))?;
    cluster.start_server()?;
    cluster.wait_for(FOUND, "2")?;
    holds(
        &cluster,
        "checks ->> 'start_time' NOT LIKE '%last heartbeat before%' AND start_time < pg_postmaster_start_time()
         AND rpo_seconds IS NULL AND checks ->> 'rpo_seconds' LIKE '%fsync is off%'",
    )?;
    assert_eq!(cluster.text("SELECT status FROM verify_ledger()")?, "intact");
    Ok(())
}

#[test]
fn a_start_that_failed_is_no_sign_of_life() -> Result<()> {
    let mut cluster = running()?;
    cluster.text("CREATE TABLE replayed (n integer)")?;
    cluster.text("CHECKPOINT")?;
    cluster.text("INSERT INTO replayed VALUES (1)")?;
    worker::ticks(&cluster, 1)?;
    let file = cluster
        .data()
        .join(cluster.text("SELECT pg_relation_filepath('replayed')")?);
    let aside = cluster.place("aside");
    cluster.stop(Shutdown::Kill)?;
    // Replay fails at that table, and pg_control has been written by then; it keeps whole seconds.
    fs::rename(&file, &aside)?;
    fs::create_dir(&file)?;
    let second = || {
        SystemTime::now()
            .duration_since(SystemTime::UNIX_EPOCH)
            .map(|since| since.as_secs())
    };
    let killed = second()?;
    wait_until("the next second", SOON, || {
        Ok(if second()? > killed {
            Look::Done(())
        } else {
            Look::not_yet("the same second")
        })
    })?;
    ensure!(cluster.start_server().is_err(), "replay did not fail");
    fs::remove_dir(&file)?;
    fs::rename(&aside, &file)?;
    cluster.start_server()?;
    cluster.wait_for(FOUND, "1")?;
    holds(
        &cluster,
        &format!("checks ->> 'start_time' LIKE '%last heartbeat before%' AND start_time < to_timestamp({killed} + 1)"),
    )
}

#[test]
fn the_first_sign_of_life_waits_for_nothing_else() -> Result<()> {
    let mut cluster = Cluster::start(settings().set("max_prepared_transactions", "1"))?;
    cluster.text("CREATE EXTENSION pg_backstop")?;
    cluster.wait_for(ROLE, "primary")?;
    worker::ticks(&cluster, 1)?;
    // Outlives the crash, so that the worker cannot look at what was before.
    cluster.text("BEGIN; LOCK TABLE server_lives; PREPARE TRANSACTION 'in the way'")?;
    cluster.stop(Shutdown::Kill)?;
    let heartbeat = cluster.data().join(HEARTBEAT);
    let before = fs::read_to_string(&heartbeat)?;
    cluster.start_server()?;
    cluster.wait_for(
        "SELECT count(*) FROM pg_locks WHERE NOT granted AND relation = 'server_lives'::regclass",
        "1",
    )?;
    assert_ne!(fs::read_to_string(&heartbeat)?, before);
    cluster.text("COMMIT PREPARED 'in the way'")?;
    cluster.wait_for(FOUND, "1")?;
    holds(&cluster, "checks ->> 'start_time' LIKE '%last heartbeat before%'")
}

#[test]
fn the_crash_of_one_backend_is_one_recovery_and_who_records_it_by_hand_is_not_doubled() -> Result<()> {
    let cluster = running()?;
    let kill = || -> Result<()> {
        let mut session = cluster.connect()?;
        let pid = tests::cluster::text_in(&mut session, "SELECT pg_backend_pid()")?;
        signal_process(pid.parse()?, Signal::KILL)
    };
    kill()?;
    wait_through_restart(&cluster, FOUND, "1")?;
    holds(
        &cluster,
        "recovery_type = 'crash' AND rpo_seconds = 0 AND rto_seconds < 30 AND start_time >= pg_postmaster_start_time()",
    )?;

    let id = cluster.text("SELECT recovery_id FROM record_recovery_start('crash')")?;
    kill()?;
    let linked = "SELECT recovery_id FROM server_lives ORDER BY id DESC LIMIT 1";
    wait_through_restart(&cluster, linked, &id)?;
    worker::ticks(&cluster, 2)?;
    assert_eq!(cluster.text(FOUND)?, "1");
    cluster.text(&format!("SELECT record_recovery_complete({id})"))?;
    // This server was the one, so it knows how far it came.
    holds(
        &cluster,
        "recovered_to_lsn IS NOT NULL AND rto_seconds > 0 AND checks ? 'rpo_seconds'",
    )
}

#[test]
fn planned_restarts_reloads_and_the_extension_made_anew_are_no_recoveries() -> Result<()> {
    let mut cluster = running()?;
    for _ in 0..2 {
        cluster.restart(Shutdown::Fast)?;
        settled(&cluster)?;
    }
    cluster.reload()?;
    worker::ticks(&cluster, 2)?;
    assert_eq!(cluster.text("SELECT count(*) FROM recovery_history")?, "0");
    assert_eq!(
        cluster.text("SELECT string_agg(began, ' ' ORDER BY id) FROM server_lives")?,
        "start start start"
    );

    // Made after a crash, it has nothing to say of what was before it.
    cluster.text("DROP EXTENSION pg_backstop")?;
    cluster.restart(Shutdown::Kill)?;
    cluster.wait_for(
        "SELECT state FROM pg_stat_activity WHERE backend_type = 'pg_backstop worker'",
        "idle",
    )?;
    cluster.text("CREATE EXTENSION pg_backstop")?;
    settled(&cluster)?;
    assert_eq!(cluster.text("SELECT count(*) FROM recovery_history")?, "0");
    Ok(())
}

#[test]
fn a_promoted_standby_records_the_failover() -> Result<()> {
    let mut primary = running()?;
    let mut standby = primary.standby(settings())?;
    standby.wait_for(ROLE, "standby")?;
    assert_eq!(standby.refusal("SELECT adopt_cluster()")?.code().code(), "25006");
    // No restart of a standby is a recovery.
    standby.restart(Shutdown::Fast)?;
    standby.wait_for(ROLE, "standby")?;
    primary.text("CREATE TABLE last_commit AS SELECT 1 AS one")?;
    let end = primary.text("SELECT pg_current_wal_flush_lsn()")?;
    standby.wait_for(&format!("SELECT pg_last_wal_replay_lsn() >= '{end}'"), "t")?;
    worker::ticks(&standby, 2)?;
    let alive = standby.text("SELECT last_msg_receipt_time FROM pg_stat_wal_receiver")?;
    primary.stop(Shutdown::Kill)?;
    worker::ticks(&standby, 2)?;
    // The standby may be restarted meanwhile: what it had heard is not forgotten.
    standby.restart(Shutdown::Fast)?;
    standby.wait_for(ROLE, "standby")?;
    worker::ticks(&standby, 2)?;
    standby.promote()?;
    standby.wait_for(FOUND, "1")?;
    standby.wait_for(ROLE, "primary")?;
    let history = fs::read_to_string(standby.data().join("pg_wal/00000002.history"))?;
    let branch = history.split_whitespace().nth(1).context("a switch point")?.to_owned();
    for condition in [
        "recovery_type = 'failover' AND status = 'completed' AND target_timeline = 1".to_owned(),
        format!("recovered_to_lsn = '{branch}'"),
        format!("start_time >= '{alive}'::timestamptz - interval '2 s' AND start_time < end_time"),
        "failure_time = start_time AND rto_seconds > 0".to_owned(),
        "rpo_seconds IS NULL AND checks ->> 'rpo_seconds' LIKE '%cannot be known here%'".to_owned(),
        "recovered_to_time IS NOT NULL".to_owned(),
    ] {
        holds(&standby, &condition)?;
    }
    assert_eq!(
        standby.text("SELECT began, timeline_id, recovery_id FROM server_lives ORDER BY id DESC LIMIT 1")?,
        "promotion|2|1"
    );
    assert_eq!(standby.text("SELECT status FROM verify_ledger()")?, "intact");
    standby.restart(Shutdown::Fast)?;
    settled(&standby)?;
    assert_eq!(standby.text(FOUND)?, "1");
    assert_eq!(standby.text(ROLE)?, "primary");
    Ok(())
}

#[test]
fn a_switchover_from_a_primary_that_was_shut_down_lost_nothing() -> Result<()> {
    let mut primary = running()?;
    let standby = primary.standby(settings())?;
    standby.wait_for(ROLE, "standby")?;
    primary.text("CREATE TABLE last_commit AS SELECT 1 AS one")?;
    primary.stop(Shutdown::Fast)?;
    standby.promote()?;
    standby.wait_for(FOUND, "1")?;
    holds(
        &standby,
        "recovery_type = 'failover' AND rpo_seconds = 0 AND failure_time IS NULL
         AND checks ->> 'rpo_seconds' LIKE '%shut down in order%'",
    )
}

/// A cluster with a base backup that the ledger knows, two commits after it, and the time between them.
fn with_a_past(settings: Settings, before: &str) -> Result<(Cluster, std::path::PathBuf, String)> {
    let cluster = Cluster::start(settings)?;
    cluster.text("CREATE EXTENSION pg_backstop")?;
    cluster.text(before)?;
    let backup = cluster.place("backup");
    cluster.base_backup(&backup)?;
    cluster.wait_for("SELECT count(*) FROM backup_history WHERE origin = 'detected'", "1")?;
    cluster.text("CREATE TABLE wanted AS SELECT 1 AS one")?;
    let target = cluster.text("SELECT clock_timestamp()")?;
    cluster.text("CREATE TABLE unwanted AS SELECT 1 AS one")?;
    cluster.archive_now()?;
    Ok((cluster, backup, target))
}

#[test]
fn a_point_in_time_recovery_in_place_records_what_it_reached_and_is_no_clone() -> Result<()> {
    let (mut cluster, backup, target) = with_a_past(settings(), "SELECT")?;
    let id = cluster.text("SELECT id FROM backup_history")?;
    cluster.stop(Shutdown::Fast)?;
    cluster.restore_in_place(&backup)?;
    cluster.set("recovery_target_time", &target)?;
    cluster.set("recovery_target_action", "promote")?;
    cluster.start_server()?;
    wait_through_restart(&cluster, FOUND, "1")?;
    for condition in [
        format!("recovery_type = 'point_in_time' AND target_time = '{target}' AND backup_id = {id}"),
        format!("recovered_to_time < '{target}' AND recovered_to_time > '{target}'::timestamptz - interval '60 s'"),
        "abs(rpo_seconds - extract(epoch FROM target_time - recovered_to_time)) < 0.002".to_owned(),
        "start_time >= pg_postmaster_start_time() - interval '1 s' AND end_time >= start_time".to_owned(),
        "replay_seconds > 0 AND startup_seconds >= 0 AND rto_seconds >= replay_seconds".to_owned(),
        "wal_replayed_bytes > 0 AND target_timeline = 1 AND checks ->> 'reason' LIKE 'before %'".to_owned(),
    ] {
        holds(&cluster, &condition)?;
    }
    assert_eq!(
        cluster.text("SELECT count(*) FROM pg_class WHERE relname IN ('wanted', 'unwanted')")?,
        "1"
    );
    cluster.wait_for(ROLE, "primary")?;
    assert_eq!(
        cluster.text("SELECT began, backup_id, copy_of_id IS NULL FROM server_lives ORDER BY id DESC LIMIT 1")?,
        format!("restore|{id}|t")
    );
    // The target stays in the settings, and is not that of a crash.
    cluster.stop(Shutdown::Kill)?;
    cluster.start_server()?;
    cluster.wait_for(FOUND, "2")?;
    holds(
        &cluster,
        "recovery_type = 'crash' AND target_time IS NULL AND rpo_seconds = 0",
    )?;
    assert_eq!(cluster.text("SELECT status FROM verify_ledger()")?, "intact");
    Ok(())
}

#[test]
fn a_target_is_read_as_the_server_read_it_and_not_as_the_worker_would() -> Result<()> {
    let (mut cluster, backup, target) = with_a_past(
        settings().set("timezone", "UTC").set("datestyle", "ISO, MDY"),
        "ALTER DATABASE postgres SET timezone = 'Asia/Tokyo'; ALTER ROLE postgres SET datestyle = 'SQL, DMY'",
    )?;
    let month_first = cluster.text(&format!(
        "SELECT to_char('{target}'::timestamptz AT TIME ZONE 'UTC', 'MM/DD/YYYY HH24:MI:SS.US')"
    ))?;
    cluster.stop(Shutdown::Fast)?;
    cluster.restore_in_place(&backup)?;
    cluster.set("recovery_target_time", &month_first)?;
    cluster.set("recovery_target_action", "promote")?;
    cluster.start_server()?;
    wait_through_restart(&cluster, FOUND, "1")?;
    holds(
        &cluster,
        &format!(
            "recovery_type = 'point_in_time' AND abs(extract(epoch FROM target_time - '{target}')) < 0.001
             AND rpo_seconds BETWEEN 0 AND 60"
        ),
    )
}

#[test]
fn a_recorded_range_of_wal_is_not_taken_for_the_backup_that_was_restored() -> Result<()> {
    let mut cluster = running()?;
    let backup = cluster.place("backup");
    cluster.text("SELECT stop_worker()")?;
    cluster.base_backup(&backup)?;
    let label = fs::read_to_string(backup.join("backup_label"))?;
    let start = label
        .lines()
        .find_map(|line| line.strip_prefix("START WAL LOCATION: "))
        .and_then(|line| line.split(' ').next())
        .context("a backup label without a start")?;
    cluster.text(&format!(
        "SELECT incremental_backup('{start}', pg_current_wal_flush_lsn(), NULL)"
    ))?;
    cluster.archive_now()?;
    cluster.stop(Shutdown::Fast)?;
    cluster.restore_in_place(&backup)?;
    cluster.start_server()?;
    wait_through_restart(&cluster, FOUND, "1")?;
    holds(&cluster, "backup_id IS NULL")
}

#[test]
fn a_copy_restored_elsewhere_calls_itself_a_clone_until_it_is_adopted() -> Result<()> {
    let (original, backup, _) = with_a_past(settings(), "SELECT")?;
    let id = original.text("SELECT id FROM backup_history")?;
    let mut copy = original.restored(&backup, settings())?;
    copy.start_server()?;
    copy.wait_for(ROLE, "clone")?;
    let sentence = copy.text("SELECT clone_of FROM v_worker_status")?;
    for part in [
        original.data().display().to_string(),
        format!("restored from backup {id}"),
        "recovered to".to_owned(),
        original.text("SELECT system_identifier FROM pg_control_system()")?,
    ] {
        assert!(sentence.contains(&part), "{part} in {sentence}");
    }
    holds(
        &copy,
        "recovery_type = 'latest' AND rpo_seconds IS NULL AND checks ? 'rpo_seconds' AND rto_seconds > 0",
    )?;
    assert_eq!(original.text(ROLE)?, "primary");
    assert_eq!(original.text("SELECT clone_of IS NULL FROM v_worker_status")?, "t");

    copy.restart(Shutdown::Fast)?;
    copy.wait_for(ROLE, "clone")?;
    assert_eq!(copy.text("SELECT clone_of FROM v_worker_status")?, sentence);
    copy.text("SELECT adopt_cluster('the old host burnt down')")?;
    copy.wait_for(ROLE, "primary")?;
    assert_eq!(copy.text("SELECT clone_of IS NULL FROM v_worker_status")?, "t");
    let event = "SELECT image ->> 'reason' FROM ledger_events WHERE table_name = 'server_lives'";
    assert_eq!(copy.text(event)?, "the old host burnt down");
    assert_eq!(copy.text("SELECT status FROM verify_ledger()")?, "intact");
    let refused = copy.refusal("SELECT adopt_cluster()")?;
    assert_eq!(refused.code().code(), "55000", "{refused}");
    copy.restart(Shutdown::Fast)?;
    settled(&copy)?;
    assert_eq!(copy.text(ROLE)?, "primary");
    Ok(())
}

#[test]
fn a_copied_directory_calls_itself_a_clone_too() -> Result<()> {
    let mut original = running()?;
    original.stop(Shutdown::Kill)?;
    let mut copy = original.copy()?;
    copy.start_server()?;
    copy.wait_for(ROLE, "clone")?;
    assert_eq!(
        copy.text("SELECT clone_of LIKE '%started from a copy of its files%' FROM v_worker_status")?,
        "t"
    );
    // What the original lost, and for how long it was down, nobody knows here.
    holds(
        &copy,
        "recovery_type = 'crash' AND rpo_seconds IS NULL AND start_time >= pg_postmaster_start_time() - interval '1 s'",
    )?;
    original.start_server()?;
    original.wait_for(FOUND, "1")?;
    assert_eq!(original.text(ROLE)?, "primary");
    Ok(())
}

#[test]
fn signs_of_life_cost_no_wal() -> Result<()> {
    let cluster = running()?;
    cluster.archive_now()?;
    worker::ticks(&cluster, 20)?;
    cluster.text("CHECKPOINT")?;
    worker::ticks(&cluster, 3)?;
    let heartbeat = cluster.data().join(HEARTBEAT);
    let first = fs::read_to_string(&heartbeat)?;
    let before = cluster.text("SELECT pg_current_wal_insert_lsn()")?;
    worker::ticks(&cluster, 100)?;
    let written = cluster.text(&format!("SELECT pg_current_wal_insert_lsn() - '{before}'"))?;
    // A running-transactions record (50 bytes or so) may come from the background writer.
    ensure!(written.parse::<u64>()? < 200, "{written} bytes");
    assert_ne!(fs::read_to_string(&heartbeat)?, first);
    Ok(())
}
