//! An archive or a backup on a mount that does not answer: everybody gets an answer all the same, and nobody is held up.

use anyhow::{Result, ensure};
use tests::wait::SOON;
use tests::{Look, Mount, Scene, Shutdown, wait_until, worker};

const CANCELED: &str = "57014";

/// A verified scene whose worker reads the archive through a mount, at which a copy of the base backup is seen too.
fn mounted() -> Result<(Scene, Mount)> {
    let mut scene = Scene::stopped()?;
    let mount = Mount::of(scene.cluster.archive().path(), &scene.cluster.place("mount"))?;
    let source = format!("dir:{}", mount.path().display());
    scene.cluster.set("pg_backstop.archive_source", &source)?;
    scene.start()?;
    scene.wait_until_ready()?;
    Ok((scene, mount))
}

fn wait_until_it_is_said(scene: &Scene) -> Result<()> {
    scene.cluster.wait_for(
        "SELECT state, last_error LIKE '%has not answered since%' FROM v_worker_status",
        "failing|t",
    )
}

#[test]
fn while_the_archive_hangs_views_answer_samples_go_on_and_it_is_said() -> Result<()> {
    let (scene, mount) = mounted()?;
    let cluster = &scene.cluster;
    mount.hang()?;
    cluster.wait_for("SELECT state FROM v_worker_status", "waiting for archive")?;
    wait_until_it_is_said(&scene)?;
    // As monitoring does it: a connection for each look.
    for _ in 0..40 {
        let mut monitor = cluster.connect()?;
        tests::cluster::text_in(&mut monitor, "SET statement_timeout = '10s'")?;
        for view in [
            "recovery_readiness",
            "recovery_windows",
            "wal_archive_gaps",
            "v_rto_prediction",
        ] {
            tests::cluster::text_in(&mut monitor, &format!("SELECT count(*) FROM {view}"))?;
        }
    }
    let reasons = cluster.text("SELECT status, reasons FROM recovery_readiness")?;
    ensure!(
        reasons.starts_with("at_risk")
            && reasons.contains("cannot be read")
            && reasons.contains("has not answered since"),
        "{reasons}"
    );
    let samples = "SELECT count(*) FROM recovery_samples WHERE sampled_at > now() - interval '1 s'";
    cluster.text("CREATE TABLE noise (n int)")?;
    wait_until("a sample of what is not archived", SOON, || {
        cluster.text("INSERT INTO noise SELECT generate_series(1, 100)")?;
        let fresh = cluster.text(samples)?;
        Ok(if fresh == "0" {
            Look::NotYet(fresh)
        } else {
            Look::Done(())
        })
    })?;
    mount.answer()?;
    cluster.archive_now()?;
    cluster.wait_for("SELECT last_error FROM v_worker_status", "")?;
    scene.wait_until_ready()
}

#[test]
fn a_session_that_waits_for_a_dead_mount_is_canceled_and_ended_in_time() -> Result<()> {
    let (scene, mount) = mounted()?;
    let cluster = &scene.cluster;
    mount.hang()?;
    wait_until_it_is_said(&scene)?;
    let path = mount.path().join("backup").display().to_string();
    let calls = [
        "SELECT count(*) FROM verify_wal_archive()".to_owned(),
        format!("SELECT count(*) FROM prepare_recovery('{path}')"),
        format!("SELECT * FROM incremental_backup('0/1000000', '0/1100000', '{path}')"),
        format!(
            "SELECT * FROM record_backup_complete((SELECT backup_id FROM record_backup_start('full', '{path}')), 1)"
        ),
    ];
    for call in &calls {
        let mut session = cluster.connect()?;
        tests::cluster::text_in(&mut session, "SET statement_timeout = '2s'")?;
        let refused = tests::cluster::refusal_in(&mut session, call)?;
        ensure!(refused.code().code() == CANCELED, "{call}: {refused}");
        tests::cluster::text_in(&mut session, "SELECT 1")?;
    }
    let Some(call) = calls.get(1).cloned() else {
        anyhow::bail!("no call");
    };
    let mut session = cluster.connect()?;
    let pid = tests::cluster::text_in(&mut session, "SELECT pg_backend_pid()")?;
    let ended = std::thread::spawn(move || tests::cluster::text_in(&mut session, &call).is_err());
    cluster.wait_for(
        &format!("SELECT state FROM pg_stat_activity WHERE pid = {pid} AND query LIKE '%prepare_recovery%'"),
        "active",
    )?;
    cluster.text(&format!("SELECT pg_terminate_backend({pid})"))?;
    cluster.wait_for(&format!("SELECT count(*) FROM pg_stat_activity WHERE pid = {pid}"), "0")?;
    ensure!(ended.join().is_ok_and(|ended| ended), "the session went on");
    Ok(())
}

#[test]
fn databases_come_and_go_and_the_server_stops_fast_beside_a_dead_mount() -> Result<()> {
    let (mut scene, mount) = mounted()?;
    mount.hang()?;
    wait_until_it_is_said(&scene)?;
    let cluster = &mut scene.cluster;
    let mut session = cluster.connect()?;
    tests::cluster::text_in(&mut session, "SET statement_timeout = '30s'")?;
    tests::cluster::text_in(&mut session, "CREATE DATABASE other")?;
    tests::cluster::text_in(&mut session, "DROP DATABASE other")?;
    worker::ticks(cluster, 2)?;
    cluster.stop(Shutdown::Fast)?;
    // The next server starts although a process of the last one may still hang.
    cluster.start_server()?;
    mount.answer()?;
    scene.wait_until_ready()
}
