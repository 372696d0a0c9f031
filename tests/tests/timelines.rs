//! Timelines: the history files that recovery follows, what a failover leaves behind, and what a copy of the cluster adds.

use std::fs;
use std::process::Command;

use anyhow::{Context, Result};
use tests::process::{self, OnOurEnd};
use tests::{Cluster, Scene, Settings, Shutdown};

const HISTORY: &str = "00000002.history";

/// A scene whose server was promoted after the backup and went on, on timeline 2. The extension is not created yet.
fn promoted() -> Result<Scene> {
    let mut scene = Scene::stopped()?;
    fs::write(scene.cluster.data().join("standby.signal"), "")?;
    scene.cluster.start_server()?;
    scene.cluster.promote()?;
    scene.cluster.client("pgbench", &["-t", "300"])?;
    scene.cluster.archive_now()?;
    Ok(scene)
}

fn row(name: &str) -> String {
    format!("SELECT status, problem FROM wal_archive WHERE segment_name = '{name}'")
}

/// Waits until the newest timeline is verified, can be recovered to, and nothing is wrong.
fn is_well(scene: &Scene) -> Result<()> {
    scene.cluster.wait_for(&row(HISTORY), "verified|")?;
    scene.wait_until_ready()?;
    scene
        .cluster
        .wait_for("SELECT timeline_id FROM recovery_windows WHERE is_current", "2")
}

/// A fault in the history file is found, weighed, and gone once it is mended.
fn history_fault(
    make: impl Fn(&Scene) -> Result<tests::archive::Fault>,
    status: &str,
    problem: &str,
    detail: impl Fn(&Scene) -> Result<Vec<String>>,
) -> Result<()> {
    let scene = promoted()?;
    let cluster = &scene.cluster;
    let detail = detail(&scene)?;
    let fault = make(&scene)?;
    cluster.text("CREATE EXTENSION pg_backstop")?;
    let is_shown = || -> Result<()> {
        cluster.wait_for(&row(HISTORY), &format!("{status}|{problem}"))?;
        let told = cluster.text(&format!(
            "SELECT detail FROM wal_archive WHERE segment_name = '{HISTORY}'"
        ))?;
        for part in &detail {
            assert!(told.contains(part), "no {part:?} in {told:?}");
        }
        cluster.wait_for("SELECT status FROM recovery_readiness", "at_risk")?;
        let reasons = cluster.text("SELECT array_to_string(reasons, ' ') FROM recovery_readiness")?;
        assert!(reasons.contains(HISTORY), "no reason names {HISTORY}: {reasons}");
        // Recovery would end where timeline 1 does.
        assert_eq!(
            cluster.text("SELECT count(*) FROM recovery_windows WHERE timeline_id > 1")?,
            "0"
        );
        Ok(())
    };
    is_shown()?;
    fault.mend()?;
    is_well(&scene).context("after the mend")?;

    let fault = make(&scene)?;
    let bad = cluster.text(
        "SELECT segment_name, status, problem FROM verify_wal_archive() WHERE status NOT IN ('verified', 'pending')",
    )?;
    assert_eq!(bad, format!("{HISTORY}|{status}|{problem}"));
    is_shown()?;
    fault.mend()?;
    is_well(&scene).context("after the second mend")
}

/// A19
#[test]
fn a_deleted_history_file_is_reported_missing() -> Result<()> {
    history_fault(
        |scene| scene.cluster.archive().remove(HISTORY),
        "missing",
        "missing_history",
        |_| Ok(vec![HISTORY.to_owned()]),
    )
}

/// A19
#[test]
fn a_history_file_with_another_branch_point_is_reported_bad_with_both() -> Result<()> {
    // `1<tab>0/1E02AB8<tab>reason`: one segment earlier is as credible as the true one.
    let branch = |scene: &Scene| -> Result<(String, String)> {
        let told = String::from_utf8(scene.cluster.archive().read(HISTORY)?)?;
        let branch = told.split('\t').nth(1).context("no branch point")?;
        let (high, low) = branch.split_once('/').context("no LSN")?;
        let earlier = u32::from_str_radix(low, 16)? - (1 << 20);
        Ok((branch.to_owned(), format!("{high}/{earlier:X}")))
    };
    history_fault(
        |scene| {
            let (branch, earlier) = branch(scene)?;
            scene.cluster.archive().change(HISTORY, |bytes| {
                *bytes = String::from_utf8_lossy(bytes).replace(&branch, &earlier).into_bytes();
            })
        },
        "corrupt",
        "bad_history",
        |scene| branch(scene).map(|(branch, earlier)| vec![branch, earlier]),
    )
}

/// A19
#[test]
fn a_history_file_that_is_none_is_reported_bad() -> Result<()> {
    history_fault(
        |scene| scene.cluster.archive().replace(HISTORY, b"404 not found\n"),
        "corrupt",
        "bad_history",
        |_| Ok(vec![HISTORY.to_owned()]),
    )
}

/// What stands before the command in `detail`, at its end.
const RUN: &str = "run as the server's user: ";

/// A20
#[test]
fn what_a_failed_primary_streamed_but_did_not_archive_is_rescued_by_the_command_that_is_given() -> Result<()> {
    let mut scene = Scene::verified()?;
    let standby = scene.cluster.standby(
        Settings::new()
            .set("pg_backstop.archive_grace", "2s")
            // A standby has no reason to keep what the primary was to archive; long enough for this test it does.
            .set("wal_keep_size", "256MB"),
    )?;
    let source = format!("dir:{}", scene.cluster.archive().path().display());
    scene.cluster.set("pg_backstop.archive_source", &source)?;
    scene.cluster.set("archive_command", "/bin/false")?;
    scene.cluster.reload()?;
    let primary = &scene.cluster;
    let mut lost = Vec::new();
    for _ in 0..2 {
        primary.client("pgbench", &["-t", "50"])?;
        lost.push(primary.text("SELECT pg_walfile_name(pg_switch_wal() - 1)")?);
    }
    primary.text("CREATE TABLE last_words AS SELECT 1 AS one")?;
    let end = primary.text("SELECT pg_current_wal_flush_lsn()")?;
    standby.wait_for(
        &format!("SELECT pg_last_wal_replay_lsn() >= '{end}' AND pg_last_wal_receive_lsn() >= '{end}'"),
        "t",
    )?;
    scene.cluster.stop(Shutdown::Kill)?;
    standby.promote()?;
    let after = standby.archive_now()?;
    assert!(after.starts_with("00000002"), "{after}");

    for name in &lost {
        assert!(!standby.archive().file(name).exists(), "{name} was archived");
        standby.wait_for(&row(name), "missing|not_archived")?;
    }
    let gaps = "SELECT state, problem, sum(segments), bool_and(affected_backups <> '{}') FROM wal_archive_gaps WHERE state <> 'late' GROUP BY 1, 2";
    standby.wait_for(gaps, &format!("rescuable|not_archived|{}|t", lost.len()))?;
    standby.wait_for("SELECT status FROM recovery_readiness", "at_risk")?;
    // It stays so until somebody does something.
    standby.text("SELECT count(*) FROM verify_wal_archive()")?;
    standby.wait_for(gaps, &format!("rescuable|not_archived|{}|t", lost.len()))?;

    for name in &lost {
        let detail = standby.text(&format!("SELECT detail FROM wal_archive WHERE segment_name = '{name}'"))?;
        let command = detail.split(RUN).nth(1).with_context(|| detail.clone())?;
        run_as_the_servers_user(command)?;
    }
    for name in &lost {
        standby.wait_for(&row(name), "verified|")?;
    }
    standby.wait_for(&row(HISTORY), "verified|")?;
    standby.wait_for("SELECT status, reasons FROM recovery_readiness", "ready|{}")?;
    standby.wait_for("SELECT count(*) FROM wal_archive_gaps WHERE state <> 'late'", "0")
}

fn run_as_the_servers_user(command: &str) -> Result<()> {
    let mut shell: Command = process::program("sh", OnOurEnd::Kill)?;
    process::run(shell.args(["-c", command])).map(drop)
}

/// A21
#[test]
fn a_promoted_clone_in_our_archive_is_told_apart_and_harms_nothing() -> Result<()> {
    let scene = Scene::verified()?;
    let ours = &scene.cluster;
    let window = "SELECT timeline_id, backup_id, from_lsn, is_current FROM recovery_windows";
    let before = ours.text(window)?;

    let mut clone: Cluster = Scene::stopped()?.cluster;
    clone.set("archive_command", &ours.archive().command())?;
    fs::write(clone.data().join("standby.signal"), "")?;
    clone.start_server()?;
    clone.promote()?;
    clone.client("pgbench", &["-t", "300"])?;
    let theirs = clone.archive_now()?;
    assert!(theirs.starts_with("00000002"), "{theirs}");
    clone.stop(Shutdown::Fast)?;
    let all: Vec<String> = ours.archive().segments()?;
    let all = all.iter().filter(|name| name.starts_with("00000002"));

    for name in all {
        ours.wait_for(&row(name), "foreign|foreign_timeline")?;
    }
    let detail = ours.text(&format!(
        "SELECT detail FROM wal_archive WHERE segment_name = '{theirs}'"
    ))?;
    assert!(
        detail.contains("timeline 2") && detail.contains("timeline 1"),
        "{detail}"
    );
    // We go on, beside them.
    ours.client("pgbench", &["-t", "100"])?;
    let newest = ours.archive_now()?;
    ours.wait_for(&row(&newest), "verified|")?;
    scene.wait_until_ready()?;
    assert_eq!(ours.text(window)?, before);
    assert_eq!(
        ours.text("SELECT count(*) FROM wal_archive_gaps WHERE state <> 'late'")?,
        "0"
    );
    let bad =
        "SELECT count(*) FROM verify_wal_archive() WHERE status NOT IN ('verified', 'pending') AND timeline_id = 1";
    assert_eq!(ours.text(bad)?, "0");
    scene.wait_until_ready()
}
