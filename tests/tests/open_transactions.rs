//! Transactions of sessions that stay open: the worker and everybody else go on, and it is said who is in the way of what.

use anyhow::{Result, ensure};
use tests::Scene;
use tests::cluster::text_in;

/// What a session does and leaves open.
fn left_open(scene: &Scene, statements: &str) -> Result<(postgres::Client, String)> {
    let mut session = scene.cluster.connect()?;
    let pid = text_in(&mut session, "SELECT pg_backend_pid()")?;
    session.batch_execute(&format!("BEGIN; {statements}"))?;
    Ok((session, pid))
}

/// The worker finds out what happened to a segment, and samples what is not archived.
fn the_worker_goes_on(scene: &Scene) -> Result<()> {
    let cluster = &scene.cluster;
    let victim = scene.victim()?;
    let gone = cluster.archive().remove(&victim)?;
    let status = format!("SELECT status FROM wal_archive WHERE segment_name = '{victim}'");
    cluster.wait_for(&status, "missing")?;
    gone.mend()?;
    cluster.wait_for(&status, "verified")?;
    let before = cluster.text("SELECT max(sampled_at) FROM recovery_samples")?;
    cluster.text("CREATE TABLE IF NOT EXISTS noise AS SELECT 1 AS n; INSERT INTO noise VALUES (2)")?;
    cluster.wait_for(
        &format!("SELECT max(sampled_at) > '{before}' FROM recovery_samples"),
        "t",
    )
}

#[test]
fn a_transaction_left_open_after_recording_a_backup_holds_up_nobody() -> Result<()> {
    let scene = Scene::verified()?;
    let cluster = &scene.cluster;
    let (mut session, _) = left_open(&scene, "SELECT * FROM record_backup_start()")?;
    let mut other = cluster.connect()?;
    text_in(&mut other, "SET lock_timeout = '5s'; SET statement_timeout = '30s'")?;
    text_in(&mut other, "SELECT * FROM record_backup_start()")?;
    cluster.base_backup(&cluster.place("second"))?;
    cluster.archive_now()?;
    cluster.wait_for(
        "SELECT count(*) FROM backup_history WHERE backup_history_file IS NOT NULL",
        "2",
    )?;
    the_worker_goes_on(&scene)?;
    ensure!(
        cluster
            .text("SELECT coalesce(last_error, '') FROM v_worker_status")?
            .is_empty(),
        "the worker had to wait"
    );
    session.batch_execute("COMMIT")?;
    ensure!(
        cluster.text("SELECT status FROM verify_ledger()")? == "intact",
        "the ledger"
    );
    Ok(())
}

#[test]
fn a_transaction_that_holds_the_row_that_the_worker_is_to_complete_is_named_and_the_rest_goes_on() -> Result<()> {
    let scene = Scene::verified()?;
    let cluster = &scene.cluster;
    let id = cluster.text("SELECT backup_id FROM record_backup_start()")?;
    cluster.base_backup(&cluster.place("second"))?;
    let (mut session, pid) = left_open(&scene, &format!("SELECT * FROM record_backup_complete({id})"))?;
    cluster.archive_now()?;
    cluster.wait_for(
        &format!("SELECT last_error LIKE '%the transaction of process {pid} %' FROM v_worker_status"),
        "t",
    )?;
    the_worker_goes_on(&scene)?;
    session.batch_execute("COMMIT")?;
    cluster.wait_for(
        &format!("SELECT backup_history_file IS NOT NULL FROM backup_history WHERE id = {id}"),
        "t",
    )?;
    cluster.wait_for("SELECT coalesce(last_error, '') FROM v_worker_status", "")
}

#[test]
fn a_transaction_that_has_written_to_the_ledger_cannot_be_prepared() -> Result<()> {
    let mut scene = Scene::stopped()?;
    scene.cluster.set("max_prepared_transactions", "2")?;
    scene.start()?;
    scene.wait_until_ready()?;
    let cluster = &scene.cluster;
    let mut session = cluster.connect()?;
    session.batch_execute("BEGIN; SELECT * FROM record_backup_start(); SELECT count(*) FROM recovery_windows")?;
    let refused = tests::cluster::refusal_in(&mut session, "PREPARE TRANSACTION 'left'")?;
    ensure!(
        refused.code().code() == "0A000" && refused.hint().is_some(),
        "{refused}"
    );
    session.batch_execute("ROLLBACK")?;
    cluster.text("SELECT * FROM record_backup_start()")?;
    // Reading prevents nothing.
    for step in [
        "BEGIN",
        "SELECT count(*) FROM verify_ledger()",
        "PREPARE TRANSACTION 'read'",
        "COMMIT PREPARED 'read'",
    ] {
        session.batch_execute(step)?;
    }
    the_worker_goes_on(&scene)
}

#[test]
fn a_transaction_that_verified_the_archive_holds_nothing() -> Result<()> {
    let scene = Scene::verified()?;
    let cluster = &scene.cluster;
    let (mut session, pid) = left_open(&scene, "SELECT count(*) FROM verify_wal_archive()")?;
    let mut other = cluster.connect()?;
    text_in(&mut other, "SET lock_timeout = '5s'")?;
    text_in(&mut other, "SELECT * FROM record_backup_start()")?;
    the_worker_goes_on(&scene)?;
    let held = format!("SELECT backend_xid FROM pg_stat_activity WHERE pid = {pid}");
    ensure!(cluster.text(&held)?.is_empty(), "a transaction ID");
    session.batch_execute("COMMIT")?;
    Ok(())
}

#[test]
fn a_transaction_that_records_and_then_verifies_gets_through_whatever_the_worker_records() -> Result<()> {
    let scene = Scene::verified()?;
    let cluster = &scene.cluster;
    let mut session = cluster.connect()?;
    text_in(&mut session, "SET statement_timeout = '60s'")?;
    for round in 1..=6 {
        cluster.base_backup(&cluster.place(&format!("copy{round}")))?;
        session.batch_execute("BEGIN; SELECT * FROM record_backup_start(); SELECT pg_switch_wal()")?;
        session.batch_execute("SELECT count(*) FROM verify_wal_archive(); COMMIT")?;
    }
    ensure!(
        cluster.text("SELECT count(*) FROM backup_history WHERE origin = 'recorded'")? == "6",
        "records are lost"
    );
    ensure!(
        cluster.text("SELECT status FROM verify_ledger()")? == "intact",
        "the ledger"
    );
    cluster.wait_for(
        "SELECT count(*) FROM backup_history WHERE backup_history_file IS NOT NULL",
        "7",
    )
}

#[test]
fn a_verification_that_takes_long_holds_no_lock_and_ends_with_its_caller() -> Result<()> {
    let mut scene = Scene::verified()?;
    let command = format!("sleep 2; cp \"{}/%f\" \"%p\"", scene.cluster.archive().path().display());
    scene.cluster.set("restore_command", &command)?;
    scene.cluster.set("pg_backstop.archive_source", "restore_command")?;
    scene.cluster.reload()?;
    let cluster = &scene.cluster;
    let mut session = cluster.connect()?;
    let pid = text_in(&mut session, "SELECT pg_backend_pid()")?;
    let call = std::thread::spawn(move || session.batch_execute("SELECT count(*) FROM verify_wal_archive()"));
    let verifiers = "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'pg_backstop verifier'";
    cluster.wait_for(verifiers, "1")?;
    let held = format!("SELECT backend_xid IS NULL FROM pg_stat_activity WHERE pid = {pid}");
    if let Err(error) = cluster.wait_for(&held, "t") {
        anyhow::bail!("{error:#}: {:?}", call.join());
    }
    let mut other = cluster.connect()?;
    text_in(&mut other, "SET lock_timeout = '5s'")?;
    text_in(&mut other, "SELECT * FROM record_backup_start()")?;
    ensure!(cluster.text(verifiers)? == "1", "it was over too soon to tell");
    cluster.text(&format!("SELECT pg_cancel_backend({pid})"))?;
    ensure!(call.join().is_ok_and(|ended| ended.is_err()), "it was not canceled");
    cluster.wait_for(verifiers, "0")
}
