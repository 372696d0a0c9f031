//! On a standby the worker writes nothing, shows what it does, and takes over with a promotion.

use anyhow::Result;
use tests::{Scene, Settings, Shutdown, worker};

#[test]
fn a_standbys_worker_writes_nothing_shows_its_status_and_takes_over_after_promotion() -> Result<()> {
    let mut scene = Scene::verified()?;
    let standby = scene
        .cluster
        .standby(Settings::new().set("pg_backstop.archive_grace", "2s"))?;
    standby.wait_for("SELECT state FROM v_worker_status", "standby")?;
    worker::ticks(&standby, 2)?;
    assert_eq!(
        standby.text("SELECT database, last_error FROM v_worker_status")?,
        "postgres|"
    );

    // What the primary has found can be read here.
    assert_eq!(
        standby.text("SELECT count(*) > 10 FROM wal_archive WHERE status = 'verified'")?,
        "t"
    );
    for call in [
        "SELECT record_backup_start()",
        "SELECT record_backup_complete(1)",
        "SELECT incremental_backup('0/1000000', '0/2000000', '/tmp')",
        "SELECT record_recovery_start('latest')",
        "SELECT record_recovery_complete(1)",
        "SELECT verify_wal_archive()",
        "SELECT acknowledge_wal_gap('000000010000000000000001', '000000010000000000000001', 'known')",
    ] {
        let error = standby.refusal(call)?;
        assert_eq!(error.code().code(), "25006", "{call}: {error}");
        assert!(
            error.hint().is_some_and(|hint| hint.contains("primary")),
            "{call}: {error:?}"
        );
    }
    let log = standby.log()?;
    for complaint in ["cannot assign TransactionIds", "WARNING:  pg_backstop", "PANIC"] {
        assert!(!log.contains(complaint), "{complaint} in {log}");
    }
    // With a receiver that has it all, nothing is exposed.
    scene.cluster.text("CREATE TABLE fresh AS SELECT 1 AS one")?;
    scene
        .cluster
        .wait_for("SELECT rpo_seconds = 0, rpo_bytes FROM recovery_readiness", "t|0")?;

    let workers_before = worker::pid(&standby)?;
    scene.cluster.stop(Shutdown::Fast)?;
    standby.promote()?;
    standby.wait_for(
        "SELECT state FROM v_worker_status WHERE state IN ('idle', 'verifying')",
        "idle",
    )?;
    assert_eq!(
        worker::pid(&standby)?,
        workers_before,
        "the worker lives through promotion"
    );
    let segment = standby.archive_now()?;
    assert!(segment.starts_with("00000002"), "{segment}");
    let row = |name: &str| format!("SELECT status FROM wal_archive WHERE segment_name = '{name}'");
    standby.wait_for(&row(&segment), "verified")?;
    standby.wait_for(&row("00000002.history"), "verified")?;
    standby.text("SELECT record_backup_complete((SELECT backup_id FROM record_backup_start()))")?;
    standby.wait_for("SELECT status FROM recovery_readiness", "ready")?;
    assert_eq!(standby.text("SELECT status FROM verify_ledger()")?, "intact");
    Ok(())
}
