//! The RPO exposure that is shown is what a loss of the host really costs.

use std::fs;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tests::wait::SOON;
use tests::{Cluster, Look, Settings, Shutdown, wait_until};

const TICK: Duration = Duration::from_millis(200);

/// A commit that the server acknowledged to its client: the row, and the server's clock just before, in seconds.
struct Acknowledged {
    id: i64,
    at: f64,
}

/// Commits one row after another, until the server is gone.
fn write_until_the_end(cluster: &Cluster) -> Result<thread::JoinHandle<Vec<Acknowledged>>> {
    let mut session = cluster.connect()?;
    let insert = session
        .prepare("INSERT INTO written DEFAULT VALUES RETURNING id, extract(epoch FROM clock_timestamp())::float8")?;
    Ok(thread::spawn(move || {
        let mut acknowledged = Vec::new();
        while let Ok(row) = session.query_one(&insert, &[]) {
            acknowledged.push(Acknowledged {
                id: row.get(0),
                at: row.get(1),
            });
        }
        acknowledged
    }))
}

/// What was shown when all that was archived was verified, and the exposure long enough to be told from one tick.
struct Shown {
    at: f64,
    rpo_seconds: f64,
    rpo_bytes: u64,
}

fn shown_with_all_that_is_archived_verified(cluster: &Cluster) -> Result<Shown> {
    let look = "SELECT r.rpo_seconds, r.rpo_bytes, extract(epoch FROM clock_timestamp()),
                       (SELECT w.status FROM wal_archive w, pg_stat_archiver a WHERE w.segment_name = a.last_archived_wal)
                  FROM recovery_readiness r";
    let mut session = cluster.connect()?;
    wait_until("an exposure of ten ticks", SOON, || {
        let row = tests::cluster::text_in(&mut session, look)?;
        let columns: Vec<&str> = row.split('|').collect();
        let [rpo_seconds, rpo_bytes, at, "verified"] = columns[..] else {
            return Ok(Look::NotYet(row));
        };
        let shown = Shown {
            at: at.parse()?,
            rpo_seconds: rpo_seconds.parse().with_context(|| row.clone())?,
            rpo_bytes: rpo_bytes.parse()?,
        };
        // Before the segment is full, and then in the archive too.
        ensure!(shown.rpo_bytes < 14 << 20, "too much was written: {row}");
        Ok(if shown.rpo_seconds > 10.0 * TICK.as_secs_f64() {
            Look::Done(shown)
        } else {
            Look::NotYet(row)
        })
    })
}

#[test]
fn the_commits_lost_with_a_host_are_those_that_the_exposure_showed() -> Result<()> {
    let mut cluster = Cluster::start(
        Settings::new()
            .segment_mb(16)
            .set("pg_backstop.check_interval", "200ms"),
    )?;
    let backup = cluster.place("backup");
    cluster.base_backup(&backup)?;
    cluster.text("CREATE TABLE written (id bigint GENERATED ALWAYS AS IDENTITY); CREATE EXTENSION pg_backstop")?;
    cluster.archive_now()?;
    cluster.wait_for("SELECT status FROM recovery_readiness", "ready")?;

    let writer = write_until_the_end(&cluster)?;
    cluster.wait_for("SELECT count(*) > 100 FROM written", "t")?;
    cluster.archive_now()?;
    let shown = shown_with_all_that_is_archived_verified(&cluster)?;
    cluster.stop(Shutdown::Kill)?;
    let acknowledged = writer.join().map_err(|_| anyhow::anyhow!("the writer panicked"))?;
    fs::remove_dir_all(cluster.data().join("pg_wal"))?;

    let recovered = cluster.recover(&backup, &[])?.reached()?;
    let kept: i64 = recovered.text("SELECT coalesce(max(id), 0) FROM written")?.parse()?;
    let lost: Vec<&Acknowledged> = acknowledged.iter().filter(|commit| commit.id > kept).collect();
    let oldest = lost.first().context("nothing was lost")?;
    let really = shown.at - oldest.at;
    println!(
        "exposure shown: {:.3} s and {} bytes; really lost: {} commits, the oldest {really:.3} s old",
        shown.rpo_seconds,
        shown.rpo_bytes,
        lost.len()
    );
    ensure!(kept > 0, "nothing was recovered");
    assert!(
        (really - shown.rpo_seconds).abs() <= TICK.as_secs_f64(),
        "{} s were shown, {really} s were lost",
        shown.rpo_seconds
    );
    let since = shown.at - shown.rpo_seconds;
    let (early, late): (Vec<f64>, Vec<f64>) = acknowledged
        .iter()
        .map(|commit| commit.at)
        .partition(|at| *at < since - TICK.as_secs_f64());
    assert!(
        lost.len() <= late.len() && lost.len() + early.len() <= acknowledged.len(),
        "{} commits were lost, {} were made since the oldest that was shown",
        lost.len(),
        late.len()
    );
    Ok(())
}
