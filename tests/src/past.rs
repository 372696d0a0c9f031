//! A cluster with a past to go back to: a backup, and rows committed one by one after it, all archived and verified.

use std::path::Path;

use anyhow::{Context, Result};

use crate::process;
use crate::{Cluster, Settings};

/// A row was committed; what can be said of that moment.
#[derive(Clone, Debug)]
pub struct Moment {
    /// Right after it.
    pub time: String,
    /// Where WAL went on.
    pub lsn: String,
    /// The transaction's number.
    pub xid: String,
}

/// A cluster whose table `events` has the rows 1 to 6, one a transaction. A backup was taken after row 1, and recorded; the restore
/// point `after three` was made after row 3.
#[derive(Debug)]
pub struct Past {
    /// It runs.
    pub cluster: Cluster,
    /// Right after rows 2 to 6.
    moments: Vec<Moment>,
}

/// The rows that are there, in their order.
pub const ROWS: &str = "SELECT string_agg(n::text, ',' ORDER BY n) FROM events";

/// What such a cluster needs.
#[must_use]
pub fn settings() -> Settings {
    Settings::new().set("max_prepared_transactions", "5")
}

impl Past {
    /// Right after a row from 2 to 6.
    ///
    /// # Errors
    /// Where there is no such row.
    pub fn moment(&self, row: usize) -> Result<&Moment> {
        self.moments.get(row.wrapping_sub(2)).context("no such row")
    }

    /// A new one. The backup is what `take` puts at the path that it is given, `the backup` in the cluster's own directory.
    ///
    /// # Errors
    /// When anything on the way fails.
    pub fn with(settings: Settings, take: impl FnOnce(&Cluster, &Path) -> Result<()>) -> Result<Self> {
        let cluster = Cluster::start(settings)?;
        cluster.text("CREATE EXTENSION pg_backstop; CREATE TABLE events (n integer)")?;
        Self::go_on(cluster, take)
    }

    /// The same on a cluster that has the extension, and the table of the rows.
    ///
    /// # Errors
    /// When anything on the way fails.
    pub fn go_on(cluster: Cluster, take: impl FnOnce(&Cluster, &Path) -> Result<()>) -> Result<Self> {
        cluster.text("INSERT INTO events VALUES (1)")?;
        let path = cluster.place("the backup");
        recorded(&cluster, "full", &path, take)?;
        let mut moments = Vec::new();
        for row in 2..=6 {
            // One that is committed in two steps has its number elsewhere in the WAL.
            let insert = if row == 5 { insert_prepared } else { insert };
            moments.push(insert(&cluster, row)?);
            if row == 3 {
                cluster.text("SELECT pg_create_restore_point('after three')")?;
            }
        }
        archived(&cluster)?;
        Ok(Self { cluster, moments })
    }
}

/// Commits a row.
///
/// # Errors
/// What the server says.
pub fn insert(cluster: &Cluster, row: usize) -> Result<Moment> {
    let xid = cluster.text(&format!(
        "INSERT INTO events VALUES ({row}) RETURNING pg_current_xact_id()"
    ))?;
    moment_after(cluster, xid)
}

fn insert_prepared(cluster: &Cluster, row: usize) -> Result<Moment> {
    let xid = cluster.text(&format!(
        "BEGIN; INSERT INTO events VALUES ({row}); SELECT pg_current_xact_id(); PREPARE TRANSACTION 'row {row}'"
    ))?;
    cluster.text(&format!("COMMIT PREPARED 'row {row}'"))?;
    moment_after(cluster, xid)
}

fn moment_after(cluster: &Cluster, xid: String) -> Result<Moment> {
    let after = cluster.text("SELECT clock_timestamp(), pg_current_wal_insert_lsn()")?;
    let (time, lsn) = after.split_once('|').context(after.clone())?;
    Ok(Moment {
        time: time.to_owned(),
        lsn: lsn.to_owned(),
        xid,
    })
}

/// Takes a backup that is recorded, and waits until the archive has told of it.
///
/// # Errors
/// When that fails.
pub fn recorded(
    cluster: &Cluster,
    backup_type: &str,
    path: &Path,
    take: impl FnOnce(&Cluster, &Path) -> Result<()>,
) -> Result<()> {
    let id = cluster.text(&format!(
        "SELECT backup_id FROM record_backup_start('{backup_type}', '{}')",
        path.display()
    ))?;
    take(cluster, path)?;
    cluster.text(&format!("SELECT record_backup_complete({id})"))?;
    // The file that tells of it is archived with what comes next.
    cluster.text("SELECT pg_create_restore_point('after the backup')")?;
    cluster.archive_now()?;
    cluster.wait_for(
        &format!("SELECT backup_history_file IS NOT NULL FROM backup_history WHERE id = {id}"),
        "t",
    )
}

/// Archives all there is, and waits until it is verified and can be recovered.
///
/// # Errors
/// When that does not come.
pub fn archived(cluster: &Cluster) -> Result<()> {
    cluster.text("SELECT pg_create_restore_point('the end')")?;
    let last = cluster.archive_now()?;
    cluster.wait_for(
        &format!("SELECT status FROM wal_archive WHERE segment_name = '{last}'"),
        "verified",
    )?;
    cluster.wait_for("SELECT count(*) FROM recovery_windows WHERE is_current", "1")
}

/// Takes a base backup with other options than [`Cluster::base_backup`].
///
/// # Errors
/// When `pg_basebackup` fails.
pub fn basebackup(cluster: &Cluster, options: &[&str], path: &Path) -> Result<()> {
    let mut command = cluster.client_command("pg_basebackup")?;
    command
        .args(["--checkpoint=fast", "--no-sync"])
        .args(options)
        .arg("-D")
        .arg(path);
    process::run(&mut command).map(drop)
}
