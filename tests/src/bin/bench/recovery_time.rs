//! How well the duration of a recovery is predicted: two rehearsals are measured, and a third is predicted that has to replay
//! more WAL than both.

use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, Result};
use tests::progress::step;
use tests::{Cluster, Settings};

use crate::measure::Line;

/// Percent of what it took.
const LARGEST_ERROR: f64 = 30.0;
/// Rounds of pgbench before each rehearsal.
const ROUNDS: [usize; 3] = [1, 1, 3];
/// Transactions of each of four clients in a round. A checkpoint comes before it, as it does every few minutes in real life, so
/// that pages are logged whole as often in one round as in another.
const TRANSACTIONS: &str = "7500";

pub fn bench() -> Result<Vec<Line>> {
    let rehearsals = step("a cluster of 400 MB and its backup", Rehearsals::prepare)?;
    let mut error = None;
    for (number, rounds) in ROUNDS.into_iter().enumerate() {
        error = step(&format!("rehearsal {}", number + 1), || rehearsals.next(rounds))?;
    }
    let error = error.context("the third recovery was not predicted")?;
    Ok(vec![Line::within(
        "duration of a recovery, error of its prediction, %",
        LARGEST_ERROR,
        &[error],
    )?])
}

struct Rehearsals {
    cluster: Cluster,
    backup: PathBuf,
    id: String,
}

impl Rehearsals {
    fn prepare() -> Result<Self> {
        let cluster = Cluster::start(
            Settings::new()
                .segment_mb(16)
                .set("pg_backstop.check_interval", "500ms"),
        )?;
        cluster.client("pgbench", &["-i", "-q", "-s", "25"])?;
        cluster.text("CREATE EXTENSION pg_backstop")?;
        let backup = cluster.place("backup");
        let id = cluster.text(&format!(
            "SELECT backup_id FROM record_backup_start('full', '{}')",
            backup.display()
        ))?;
        cluster.base_backup(&backup)?;
        cluster.text(&format!("SELECT * FROM record_backup_complete({id})"))?;
        Ok(Self { cluster, backup, id })
    }

    /// Writes WAL, rehearses a recovery of all of it, and records what it took. Gives by how many percent the prediction was
    /// wrong, where there was one.
    fn next(&self, rounds: usize) -> Result<Option<f64>> {
        let cluster = &self.cluster;
        for _ in 0..rounds {
            cluster.text("CHECKPOINT")?;
            cluster.client("pgbench", &["-n", "-c", "4", "-t", TRANSACTIONS])?;
        }
        let last = cluster.archive_now()?;
        cluster.wait_for(
            &format!("SELECT status FROM wal_archive WHERE segment_name = '{last}'"),
            "verified",
        )?;
        let predicted = cluster.text("SELECT predicted_rto_seconds FROM recovery_readiness")?;
        let recovery = cluster.text(&format!(
            "SELECT recovery_id FROM record_recovery_start('latest', backup_id => {}, is_drill => true)",
            self.id
        ))?;
        let took = self.rehearse(&self.backup, &recovery)?;
        Ok(predicted
            .parse::<f64>()
            .ok()
            .map(|predicted| 100.0 * (predicted / took - 1.0).abs()))
    }

    /// Gives how long the recovery took, in seconds, as it is on record.
    fn rehearse(&self, backup: &Path, recovery: &str) -> Result<f64> {
        let began = Instant::now();
        let mut copy = self.cluster.restore(backup, &[])?;
        let restored = began.elapsed().as_secs_f64();
        copy.start_server()?;
        let reached = copy.text("SELECT pg_last_wal_replay_lsn()")?;
        let rto = self.cluster.text(&format!(
            "SELECT rto_seconds FROM record_recovery_complete({recovery}, recovered_to_lsn => '{reached}',
                    restore_seconds => {restored}, replay_seconds => {})",
            copy.replay_seconds()?
        ))?;
        Ok(rto.parse()?)
    }
}
