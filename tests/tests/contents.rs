//! A sound segment is not enough: it must be the one that the server wrote, and stay the one that was verified.
//!
//! Two servers that go on from one moment write other WAL under the same names, and each segment of either is sound. That is
//! how a restored copy that archives into its original's place overwrites it, and so does an older state brought back.

use std::fs;

use anyhow::{Context, Result};
use tests::wait::SOON;
use tests::{Look, Scene, wait_until};

/// Where a cluster that is stopped goes on, what another one wrote there, and what it writes there itself.
struct Twins {
    ours: Scene,
    /// The segment that both wrote.
    segment: String,
    /// What the other one wrote.
    theirs: Vec<u8>,
}

/// Our scene is not started yet. Whatever the first segment that it writes is, the other one has written it, too.
fn twins() -> Result<Twins> {
    let mut other = Scene::stopped()?;
    other.cluster.start_server()?;
    let segment = other
        .cluster
        .text("SELECT pg_walfile_name(pg_current_wal_insert_lsn())")?;
    other.cluster.client("pgbench", &["-t", "50"])?;
    other.cluster.archive_now()?;
    let theirs = other.cluster.archive().read(&segment)?;
    let mut ours = Scene::stopped()?;
    let source = format!("dir:{}", ours.cluster.archive().path().display());
    ours.cluster.set("pg_backstop.archive_source", &source)?;
    Ok(Twins { ours, segment, theirs })
}

impl Twins {
    fn is_found(&self, at_once: bool) -> Result<()> {
        let cluster = &self.ours.cluster;
        if at_once {
            let bad = "SELECT segment_name, status, problem FROM verify_wal_archive() WHERE status NOT IN ('verified', 'pending')";
            assert_eq!(cluster.text(bad)?, format!("{}|corrupt|content_differs", self.segment));
        }
        cluster.wait_for(&self.row("status, problem"), "corrupt|content_differs")?;
        cluster.wait_for("SELECT status FROM recovery_readiness", "at_risk")?;
        let gaps = "SELECT from_segment, to_segment, state, problem, cardinality(affected_backups) FROM wal_archive_gaps WHERE state <> 'late'";
        assert_eq!(
            cluster.text(gaps)?,
            format!("{0}|{0}|lost|content_differs|1", self.segment)
        );
        Ok(())
    }

    fn row(&self, columns: &str) -> String {
        format!(
            "SELECT {columns} FROM wal_archive WHERE segment_name = '{}'",
            self.segment
        )
    }

    /// Waits until our own segment is verified, and all is well.
    fn is_verified(&self) -> Result<()> {
        self.ours.cluster.wait_for(&self.row("status, problem"), "verified|")?;
        self.ours.wait_until_ready()
    }

    fn is_in_pg_wal(&self) -> Result<bool> {
        let found = format!("SELECT count(*) FROM pg_ls_waldir() WHERE name = '{}'", self.segment);
        Ok(self.ours.cluster.text(&found)? == "1")
    }
}

/// A14, while pg_wal still has the segment.
#[test]
fn a_sound_segment_that_is_not_what_pg_wal_has_is_reported_as_different() -> Result<()> {
    let mut twins = twins()?;
    // The archiver stores the other's segment as ours.
    let other = twins.ours.cluster.place("theirs");
    fs::write(&other, &twins.theirs)?;
    tests::process::give_to_server(&other)?;
    let honest = twins.ours.cluster.archive().command();
    let archive = twins.ours.cluster.archive().path().display().to_string();
    let swapped = format!(
        "if test \"%f\" = {}; then cp '{}' \"{archive}/%f\"; else {honest}; fi",
        twins.segment,
        other.display()
    );
    twins.ours.cluster.set("archive_command", &swapped)?;
    twins.ours.cluster.set("wal_keep_size", "256MB")?;
    twins.ours.start()?;
    twins.ours.cluster.archive_now()?;
    twins.is_found(false)?;

    let own = fs::read(twins.ours.cluster.data().join("pg_wal").join(&twins.segment))?;
    let first_difference = own
        .iter()
        .zip(&twins.theirs)
        .position(|(own, theirs)| own != theirs)
        .context("both wrote the same")?;
    let detail = twins.ours.cluster.text(&twins.row("detail"))?;
    for part in ["pg_wal", &first_difference.to_string()] {
        assert!(detail.contains(part), "no {part:?} in {detail:?}");
    }

    // pg_wal's own copy mends it, and the fault is found at once where it comes back.
    let mend = twins.ours.cluster.archive().replace(&twins.segment, &own)?;
    mend.stays();
    twins.is_verified()?;
    let archive = twins.ours.cluster.archive().clone();
    fs::remove_file(archive.kept(&twins.segment))?;
    let fault = archive.replace(&twins.segment, &twins.theirs)?;
    twins.is_found(true)?;
    fault.mend()?;
    twins.is_verified()
}

/// A14, with nothing to compare with but what was verified.
#[test]
fn another_sound_segment_in_place_of_a_verified_one_is_reported_as_different() -> Result<()> {
    let mut twins = twins()?;
    twins.ours.start()?;
    let cluster = &twins.ours.cluster;
    cluster.archive_now()?;
    twins.is_verified()?;
    wait_until("pg_wal to be without the segment", SOON, || {
        if !twins.is_in_pg_wal()? {
            return Ok(Look::Done(()));
        }
        cluster.client("pgbench", &["-t", "100"])?;
        cluster.archive_now()?;
        cluster.text("CHECKPOINT")?;
        Ok(Look::not_yet("it is there"))
    })?;
    let fault = cluster.archive().replace(&twins.segment, &twins.theirs)?;
    // The file has changed, so the worker sees it by itself.
    twins.is_found(false)?;
    fault.mend()?;
    twins.is_verified()?;
    let fault = cluster.archive().replace(&twins.segment, &twins.theirs)?;
    twins.is_found(true)?;
    // It does not become right by being looked at twice.
    twins.is_found(true)?;
    fault.mend()?;
    twins.is_verified()
}
