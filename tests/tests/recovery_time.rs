//! The predicted duration of a recovery: from measured ones, or not at all.

use anyhow::{Result, ensure};
use tests::{Cluster, Settings};

const PREDICTED: &str = "SELECT predicted_rto_seconds, rto_basis FROM recovery_readiness";

/// A cluster with a recorded base backup of 1,000 MB on record, however small it is.
fn cluster() -> Result<Cluster> {
    let cluster = Cluster::start(Settings::new().set("pg_backstop.check_interval", "200ms"))?;
    cluster.text("CREATE EXTENSION pg_backstop")?;
    cluster.text("SELECT * FROM record_backup_start('full')")?;
    cluster.base_backup(&cluster.place("backup"))?;
    cluster.text("SELECT * FROM record_backup_complete(1, backup_size_bytes => 1048576000)")?;
    cluster.archive_now()?;
    cluster.wait_for("SELECT status FROM recovery_readiness", "ready")?;
    Ok(cluster)
}

/// A rehearsal that took 100 s: so long to copy the backup back, so long to replay so much WAL, and the rest to start.
fn rehearse(cluster: &Cluster, restore: u32, replay: u32, megabytes: u64) -> Result<String> {
    let id = cluster.text(
        "SELECT recovery_id FROM record_recovery_start('latest', backup_id => 1, is_drill => true,
                                                       started_at => clock_timestamp() - interval '100 s')",
    )?;
    cluster.text(&format!(
        "SELECT * FROM record_recovery_complete({id}, restore_seconds => {restore}, replay_seconds => {replay},
                                                startup_seconds => {}, wal_replayed_bytes => {})",
        100 - restore - replay,
        megabytes << 20
    ))?;
    Ok(id)
}

#[test]
fn without_a_measured_recovery_nothing_is_predicted_and_the_basis_says_what_to_do() -> Result<()> {
    let cluster = cluster()?;
    let shown = cluster.text(PREDICTED)?;
    assert!(shown.starts_with("|nothing: no restore was measured"), "{shown}");
    assert!(shown.contains("restore_seconds"), "{shown}");
    let id =
        cluster.text("SELECT recovery_id FROM record_recovery_start('latest', backup_id => 1, is_drill => true)")?;
    let stored = format!("SELECT predicted_rto_seconds IS NULL FROM recovery_history WHERE id = {id}");
    assert_eq!(cluster.text(&stored)?, "t");
    Ok(())
}

#[test]
fn a_prediction_is_what_measured_rates_make_of_the_backup_and_its_wal() -> Result<()> {
    let cluster = cluster()?;
    rehearse(&cluster, 10, 80, 800)?;
    rehearse(&cluster, 30, 40, 400)?;
    // 50 MB/s, 10 MB/s, and a start-up of 10 s and 30 s.
    let expected = "SELECT abs(r.predicted_rto_seconds - (20 + wal.bytes / 10485760.0 + 20)) < 0.01, wal.bytes > 0
                      FROM recovery_readiness r, (SELECT pg_current_wal_flush_lsn() - start_lsn AS bytes
                                                    FROM backup_history WHERE id = 1) AS wal";
    assert_eq!(cluster.text(expected)?, "t|t", "{}", cluster.text(PREDICTED)?);
    let basis = cluster.text("SELECT rto_basis FROM recovery_readiness")?;
    for part in [
        "backup 1 (1000 MB) at 50 MB/s",
        "WAL at 10 MB/s",
        "recoveries 2 and 1",
        "start-up in 20.0 s",
    ] {
        assert!(basis.contains(part), "no {part:?} in {basis:?}");
    }
    // The next recovery keeps what was predicted beside what it takes.
    let next = rehearse(&cluster, 20, 60, 600)?;
    let beside = cluster.text(&format!(
        "SELECT round(predicted_rto_seconds / 10), round(rto_seconds) FROM recovery_history WHERE id = {next}"
    ))?;
    assert_eq!(beside, "4|100");
    Ok(())
}

#[test]
fn what_a_recovery_of_an_incremental_backup_restored_counts_those_that_it_builds_on() -> Result<()> {
    let cluster = cluster()?;
    let mut session = cluster.connect()?;
    // Recovery 1: 4 MB in 4 s, of three backups. Of what recovery 2 restored, one is not on record. Recovery 3: 2 MB in 4 s.
    session.batch_execute(
        "SET session_replication_role = replica;
         INSERT INTO backup_history (id, backup_type, parent_id, backup_size_bytes, status, origin, last_event_id)
         VALUES (1001, 'full', NULL, 2097152, 'completed', 'recorded', 0), (1002, 'incremental', 1001, 1048576, 'completed', 'recorded', 0),
                (1003, 'differential', 1002, 1048576, 'completed', 'recorded', 0),
                (1004, 'incremental', 4711, 1048576, 'completed', 'recorded', 0);
         INSERT INTO recovery_history (id, recovery_type, is_drill, backup_id, start_time, end_time, status, rto_seconds, restore_seconds,
                                       replay_seconds, wal_replayed_bytes, startup_seconds, last_event_id)
         VALUES (1, 'latest', true, 1003, now(), now(), 'completed', 6, 4, 1, 1048576, 1, 0),
                (2, 'latest', true, 1004, now(), now(), 'completed', 6, 4, 1, 1048576, 1, 0),
                (3, 'latest', true, 1001, now(), now(), 'completed', 6, 4, 1, 1048576, 1, 0)",
    )?;
    let basis = cluster.text("SELECT rto_basis FROM recovery_readiness")?;
    ensure!(basis.contains("at 768 kB/s (recoveries 3 and 1)"), "{basis}");
    Ok(())
}

#[test]
fn the_worst_moment_of_the_window_is_just_before_a_backup() -> Result<()> {
    let cluster = cluster()?;
    rehearse(&cluster, 10, 80, 800)?;
    cluster.text("CREATE TABLE filler AS SELECT repeat('x', 500) FROM generate_series(1, 20000)")?;
    cluster.archive_now()?;
    cluster.text("SELECT * FROM record_backup_start('full')")?;
    cluster.base_backup(&cluster.place("second"))?;
    cluster.text("SELECT * FROM record_backup_complete(2, backup_size_bytes => 1048576000)")?;
    cluster.archive_now()?;
    cluster.wait_for("SELECT newest_usable_backup FROM recovery_readiness", "2")?;
    let rows = "SELECT backup_id, wal_bytes > 10000000,
                       target_lsn = (SELECT end_lsn FROM backup_history WHERE id = 2)
                  FROM v_rto_prediction ORDER BY predicted_rto_seconds DESC";
    let shown = cluster.text(rows)?;
    assert_eq!(shown, "1|t|t\n2|f|f");
    Ok(())
}
