//! What the archiver says is not believed: segments that it lost, holds back or has not stored whole are told apart.

use anyhow::Result;
use tests::{Scene, worker};

/// A16
#[test]
fn an_archive_command_that_only_says_yes_is_found_out_after_the_grace() -> Result<()> {
    let mut scene = Scene::verified()?;
    let honest = scene.cluster.archive().command();
    scene.cluster.set("archive_command", "/bin/true")?;
    scene.cluster.set(
        "pg_backstop.archive_source",
        &format!("dir:{}", scene.cluster.archive().path().display()),
    )?;
    scene.cluster.reload()?;
    let cluster = &scene.cluster;
    cluster.client("pgbench", &["-t", "200"])?;
    let lost = cluster.archive_now()?;
    let row = format!("SELECT status, problem FROM wal_archive WHERE segment_name = '{lost}'");
    cluster.wait_for(&row, "missing|not_archived")?;
    assert_eq!(
        cluster.text("SELECT failed_count FROM pg_stat_archiver")?,
        "0",
        "the archiver is content"
    );
    cluster.wait_for("SELECT status, rpo_bytes > 0 FROM recovery_readiness", "at_risk|t")?;
    assert_eq!(
        cluster.text("SELECT cardinality(problems) > 0 FROM v_archiver_status")?,
        "t"
    );

    // Once the server has recycled its copy, nothing can be rescued any more.
    cluster.text("CHECKPOINT")?;
    cluster.wait_for(&row, "missing|missing")?;
    assert_eq!(cluster.text("SELECT DISTINCT state FROM wal_archive_gaps")?, "lost");

    // A new base backup makes what was lost unimportant to the present.
    scene.cluster.set("archive_command", &honest)?;
    scene.cluster.reload()?;
    let cluster = &scene.cluster;
    cluster.base_backup(&cluster.place("newer"))?;
    cluster.archive_now()?;
    cluster.wait_for("SELECT status FROM recovery_readiness", "ready")
}

/// A17
#[test]
fn an_archive_command_that_fails_makes_segments_late_and_none_missing() -> Result<()> {
    let mut scene = Scene::verified()?;
    let honest = scene.cluster.archive().command();
    let source = format!("dir:{}", scene.cluster.archive().path().display());
    scene.cluster.set("archive_command", "/bin/false")?;
    scene.cluster.set("pg_backstop.archive_source", &source)?;
    scene.cluster.reload()?;
    let cluster = &scene.cluster;
    cluster.client("pgbench", &["-t", "200"])?;
    let late = cluster.text("SELECT pg_walfile_name(pg_switch_wal() - 1)")?;
    cluster.wait_for("SELECT DISTINCT state FROM wal_archive_gaps", "late")?;
    worker::ticks(cluster, 4)?;
    assert_eq!(
        cluster.text("SELECT count(*) FROM wal_archive WHERE status NOT IN ('verified', 'pending')")?,
        "0"
    );
    cluster.wait_for("SELECT rpo_seconds > 0, rpo_bytes > 0 FROM recovery_readiness", "t|t")?;
    cluster.wait_for(
        "SELECT ready_segments > 0, cardinality(problems) > 0 FROM v_archiver_status",
        "t|t",
    )?;
    let first = cluster.text("SELECT rpo_seconds FROM recovery_readiness")?;
    cluster.wait_for(&format!("SELECT rpo_seconds > {first} FROM recovery_readiness"), "t")?;

    scene.cluster.set("archive_command", &honest)?;
    scene.cluster.reload()?;
    let row = format!("SELECT status FROM wal_archive WHERE segment_name = '{late}'");
    scene.cluster.wait_for(&row, "verified")?;
    scene.wait_until_ready()
}

/// A3
#[test]
fn the_newest_segments_deleted_grow_the_exposure() -> Result<()> {
    let scene = Scene::verified()?;
    let cluster = &scene.cluster;
    cluster.client("pgbench", &["-t", "300"])?;
    let newest = cluster.archive_now()?;
    cluster.wait_for(
        &format!("SELECT status FROM wal_archive WHERE segment_name = '{newest}'"),
        "verified",
    )?;
    let exposure = "SELECT rpo_bytes FROM recovery_readiness";
    let before: u64 = cluster.text(exposure)?.parse()?;
    let all = cluster.archive().segments()?;
    let faults = all
        .iter()
        .rev()
        .take(2)
        .map(|name| cluster.archive().remove(name))
        .collect::<Result<Vec<_>>>()?;
    let found = "SELECT count(*) FROM verify_wal_archive() WHERE problem = 'missing'";
    assert_eq!(cluster.text(found)?, "2");
    let after: u64 = cluster.text(exposure)?.parse()?;
    assert!(after >= before + (1 << 20), "{before} bytes, then {after}");
    assert_eq!(
        cluster.text("SELECT status, rpo_seconds > 0 FROM recovery_readiness")?,
        "at_risk|t"
    );
    for fault in faults {
        fault.mend()?;
    }
    scene.wait_until_ready()
}

/// `cp` writes a segment piece by piece, and the worker may look meanwhile.
#[test]
fn a_segment_that_is_still_being_copied_is_not_called_truncated() -> Result<()> {
    let mut scene = Scene::verified()?;
    let place = scene.cluster.archive().path().display().to_string();
    // Half of it now, the other half when the test says so.
    let gate = scene.cluster.place("gate").display().to_string();
    let slow = format!(
        "head -c 500000 \"%p\" > \"{place}/%f\" && while ! test -e \"{gate}\"; do sleep 0.1; done && cp \"%p\" \"{place}/%f\""
    );
    scene.cluster.set("archive_command", &slow)?;
    scene
        .cluster
        .set("pg_backstop.archive_source", &format!("dir:{place}"))?;
    scene.cluster.reload()?;
    let cluster = &scene.cluster;
    cluster.text("CREATE TABLE filler AS SELECT 1 AS one")?;
    let copied = cluster.text("SELECT pg_walfile_name(pg_switch_wal() - 1)")?;
    // This one, or one that was filled just before.
    cluster.wait_for(
        &format!(
            "SELECT count(*) FROM pg_ls_dir('{place}') AS name, pg_stat_file('{place}/' || name) WHERE size = 500000"
        ),
        "1",
    )?;
    worker::ticks(cluster, 4)?;
    assert_eq!(
        cluster.text("SELECT count(*) FROM wal_archive WHERE status NOT IN ('verified', 'pending')")?,
        "0"
    );
    std::fs::write(&gate, "")?;
    cluster.wait_for(
        &format!("SELECT status FROM wal_archive WHERE segment_name = '{copied}'"),
        "verified",
    )?;
    scene.wait_until_ready()
}
