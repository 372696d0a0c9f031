//! A cluster with a past, on which faults are made: data, a base backup, and a dozen archived segments of real load.
//!
//! Made once in a process and stopped; a test gets a copy of its own. The extension's library is loaded, but the extension
//! is not created, so the worker has seen nothing of it yet.

use std::sync::Mutex;
use std::sync::PoisonError;

use anyhow::{Context, Result, ensure};

use wal::BackupHistory;

use crate::{Cluster, Settings, Shutdown};

/// The stopped cluster that every scene is a copy of.
static BASE: Mutex<Option<Cluster>> = Mutex::new(None);

/// A copy of the cluster, and what is in its archive.
#[derive(Debug)]
pub struct Scene {
    /// Not running yet, or running: as the constructor says.
    pub cluster: Cluster,
    /// The archived segments, in order.
    pub segments: Vec<String>,
    /// The base backup.
    pub backup: BackupHistory,
}

impl Scene {
    /// A copy that is not running.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn stopped() -> Result<Self> {
        let mut base = BASE.lock().unwrap_or_else(PoisonError::into_inner);
        let base = match &mut *base {
            Some(base) => base,
            none => none.insert(make_base()?),
        };
        let cluster = base.copy()?;
        let segments = cluster.archive().segments()?;
        let backup = cluster
            .archive()
            .backup_files()?
            .pop()
            .context("the base backup left no file in the archive")?;
        let told = cluster.archive().read(&backup)?;
        Self::of(cluster, segments, &told)
    }

    /// A cluster with these archived segments, of whose base backup this file tells.
    pub(crate) fn of(cluster: Cluster, segments: Vec<String>, backup: &[u8]) -> Result<Self> {
        let scene = Self {
            backup: BackupHistory::parse(backup)?,
            cluster,
            segments,
        };
        ensure!(
            scene.after_the_backup().len() >= 6,
            "too little was archived after the backup"
        );
        Ok(scene)
    }

    /// A copy that runs, with the extension created.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn running() -> Result<Self> {
        let mut scene = Self::stopped()?;
        scene.start()?;
        Ok(scene)
    }

    /// A copy that runs, with the extension created, all of whose archive is verified.
    ///
    /// # Errors
    /// When it cannot be made, or the worker does not get there.
    pub fn verified() -> Result<Self> {
        let scene = Self::running()?;
        scene.wait_until_ready()?;
        Ok(scene)
    }

    /// Starts the server and creates the extension.
    ///
    /// # Errors
    /// When either fails.
    pub fn start(&mut self) -> Result<()> {
        self.cluster.start_server()?;
        self.cluster.text("CREATE EXTENSION pg_backstop").map(drop)
    }

    /// Waits until all that the backup needs of what the archive held at the beginning is verified, and the verdict is good.
    ///
    /// # Errors
    /// When that does not come.
    pub fn wait_until_ready(&self) -> Result<()> {
        let needed: Vec<&str> = self
            .segments
            .iter()
            .map(String::as_str)
            .filter(|segment| *segment >= self.backup.start_wal_file.as_str())
            .collect();
        let list = needed.join("','");
        let verified =
            format!("SELECT count(*) FROM wal_archive WHERE status = 'verified' AND segment_name IN ('{list}')");
        let ready = || {
            self.cluster.wait_for(&verified, &needed.len().to_string())?;
            self.cluster
                .wait_for("SELECT status, reasons FROM recovery_readiness", "ready|{}")
        };
        ready().with_context(|| {
            let others = "SELECT status, problem, detail FROM wal_archive WHERE status <> 'verified'";
            self.cluster.text(others).unwrap_or_default()
        })
    }

    /// The segments that come after what the base backup needs.
    #[must_use]
    pub fn after_the_backup(&self) -> Vec<String> {
        self.segments
            .iter()
            .filter(|segment| **segment > self.backup.stop_wal_file)
            .cloned()
            .collect()
    }

    /// A segment in the middle of those, full of records, with others after it.
    ///
    /// # Errors
    /// When there is none.
    pub fn victim(&self) -> Result<String> {
        let after = self.after_the_backup();
        after
            .get(after.len() / 2)
            .cloned()
            .context("nothing was archived after the backup")
    }
}

fn make_base() -> Result<Cluster> {
    // The loss of a segment is certain as soon as the archiver has called it done, not a minute later.
    let mut base = Cluster::start(Settings::new().set("pg_backstop.archive_grace", "2s"))?;
    base.client("pgbench", &["-i", "-q", "-s", "1"])?;
    base.base_backup(&base.place("backup"))?;
    base.client("pgbench", &["-c", "2", "-t", "600"])?;
    base.archive_now()?;
    base.stop(Shutdown::Fast)?;
    Ok(base)
}
