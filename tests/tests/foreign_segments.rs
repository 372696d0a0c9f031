//! Segments of other clusters in our archive are told from our own.

use anyhow::{Context, Result};
use tests::{Cluster, Scene, Settings, Shutdown};

/// A11
#[test]
fn a_segment_of_another_cluster_under_our_name_is_reported_with_both_identities() -> Result<()> {
    let mut scene = Scene::stopped()?;
    let victim = scene.victim()?;
    let mut other = Cluster::start(Settings::new().without_library().own_identity())?;
    let theirs = other.text("SELECT system_identifier FROM pg_control_system()")?;
    other.client("pgbench", &["-i", "-q", "-s", "2"])?;
    other.archive_now()?;
    other.stop(Shutdown::Fast)?;
    let bytes = other
        .archive()
        .read(&victim)
        .context("the other cluster has written too little")?;

    let fault = scene.cluster.archive().replace(&victim, &bytes)?;
    scene.start()?;
    let ours = scene
        .cluster
        .text("SELECT system_identifier FROM pg_control_system()")?;
    assert_ne!(ours, theirs);
    let row = format!("SELECT status, problem FROM wal_archive WHERE segment_name = '{victim}'");
    scene.cluster.wait_for(&row, "foreign|foreign_system")?;
    let detail = scene.cluster.text(&format!(
        "SELECT detail FROM wal_archive WHERE segment_name = '{victim}'"
    ))?;
    for part in [&ours, &theirs] {
        assert!(detail.contains(part.as_str()), "no {part} in {detail:?}");
    }
    scene
        .cluster
        .wait_for("SELECT status FROM recovery_readiness", "at_risk")?;
    let gap = "SELECT from_segment, state, problem, cardinality(affected_backups) FROM wal_archive_gaps WHERE state <> 'late'";
    assert_eq!(scene.cluster.text(gap)?, format!("{victim}|lost|foreign_system|1"));

    fault.mend()?;
    scene.wait_until_ready()?;
    let again = scene.cluster.archive().replace(&victim, &bytes)?;
    let found =
        "SELECT segment_name, status, problem FROM verify_wal_archive() WHERE status NOT IN ('verified', 'pending')";
    assert_eq!(scene.cluster.text(found)?, format!("{victim}|foreign|foreign_system"));
    again.mend()?;
    scene.wait_until_ready()
}
