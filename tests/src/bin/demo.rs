//! `make demo`: the whole job on a throw-away cluster, each step with the SQL that a user would type.
//!
//! Ends with status 0 only if every verdict that it showed was the expected one.

use std::process::ExitCode;

use anyhow::{Context, Result};
use tests::progress::step;
use tests::{Cluster, Settings, Shutdown, scratch};

fn main() -> ExitCode {
    match demo() {
        Ok(()) => {
            println!("\nEvery verdict was the expected one. The cluster is gone.");
            ExitCode::SUCCESS
        }
        Err(error) => {
            scratch::leave_to_signal_handler();
            eprintln!("\nThe demo failed: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn demo() -> Result<()> {
    let settings = Settings::new().segment_mb(16);
    let mut show = Show {
        cluster: step("making a throw-away cluster that archives its WAL", || {
            Cluster::start(settings)
        })?,
    };
    let archive = show.cluster.archive().clone();
    let backup = show.cluster.place("backup");
    println!(
        "PostgreSQL {}, archive_command = {}",
        show.cluster.server().major(),
        archive.command()
    );

    show.explain("The extension. Its worker runs already, by shared_preload_libraries, and begins once it finds it.");
    show.sql("CREATE EXTENSION pg_backstop")?;

    show.explain("Data, and load on it: pgbench.");
    show.client("pgbench", &["-i", "-q", "-s", "10"])?;

    show.explain("A base backup, by whatever takes yours; here pg_basebackup. Two calls put it into the ledger.");
    show.sql(&format!(
        "SELECT * FROM record_backup_start('full', '{}')",
        backup.display()
    ))?;
    let id = show.value("SELECT max(id) FROM backup_history")?;
    show.client(
        "pg_basebackup",
        &["--checkpoint=fast", "-D", &backup.display().to_string()],
    )?;
    show.sql(&format!("SELECT * FROM record_backup_complete({id})"))?;
    show.rows("SELECT status, start_lsn, end_lsn, pg_size_pretty(backup_size_bytes) AS size, file_count, duration_seconds, origin FROM backup_history")?;

    show.explain("More load. Every segment goes to the archive, where the worker reads it record by record.");
    show.client("pgbench", &["-c", "2", "-j", "2", "-T", "5"])?;
    let newest = step("archiving the last segment", || show.cluster.archive_now())?;
    let verified = format!("SELECT status FROM wal_archive WHERE segment_name = '{newest}'");
    show.expect("the worker verifies it", &verified, "verified")?;
    show.sql("SELECT status, count(*) AS segments, sum(commit_count) AS commits, max(last_commit_at) AS last_commit FROM wal_archive GROUP BY status")?;
    show.rows(
        "SELECT state, last_verified_segment, unverified_segments, bytes_per_second, last_error FROM v_worker_status",
    )?;

    show.explain("The verdict: can this cluster be recovered, to which moments, and what would be lost?");
    show.expect("the verdict", "SELECT status FROM recovery_readiness", "ready")?;
    show.rows("SELECT * FROM recovery_readiness")?;

    let victim = middle(&show.cluster, &id)?;
    show.explain("Now a segment vanishes from the middle of the archive. No tool that goes by names or by the archiver's word sees it.");
    let fault = archive.remove(&victim)?;
    println!("$ rm '{}'", archive.file(&victim).display());
    show.rows("SELECT segment_name, status, problem, detail FROM verify_wal_archive() WHERE status <> 'verified'")?;
    show.expect(
        "the segment",
        &format!("SELECT problem FROM wal_archive WHERE segment_name = '{victim}'"),
        "missing",
    )?;
    show.rows("SELECT * FROM wal_archive_gaps")?;
    show.expect("the verdict", "SELECT status FROM recovery_readiness", "at_risk")?;
    show.rows(
        "SELECT status, recoverable_to, rpo_seconds, rpo_bytes, unnest(reasons) AS reason FROM recovery_readiness",
    )?;

    show.explain("It is found again and put back. The worker sees that by itself.");
    println!("$ mv … '{}'", archive.file(&victim).display());
    fault.mend()?;
    show.expect(
        "the segment",
        &format!("SELECT status FROM wal_archive WHERE segment_name = '{victim}'"),
        "verified",
    )?;
    show.expect("the verdict", "SELECT status FROM recovery_readiness", "ready")?;
    show.rows(
        "SELECT status, recoverable_from, recoverable_to, rpo_seconds, rpo_bytes, reasons FROM recovery_readiness",
    )?;

    show.explain("The ledger is chained by hashes: nobody rewrites it unseen.");
    show.sql("SELECT * FROM verify_ledger()")?;
    show.expect("the ledger", "SELECT status FROM verify_ledger()", "intact")?;
    show.cluster.stop(Shutdown::Fast)
}

/// An archived segment well after the backup, with others after it.
fn middle(cluster: &Cluster, backup: &str) -> Result<String> {
    let end = cluster.text(&format!(
        "SELECT pg_walfile_name(end_lsn) FROM backup_history WHERE id = {backup}"
    ))?;
    let segments: Vec<_> = cluster
        .archive()
        .segments()?
        .into_iter()
        .filter(|segment| *segment > end)
        .collect();
    segments
        .get(segments.len() / 2)
        .cloned()
        .context("no segment was archived after the backup")
}

/// Shows steps on a cluster.
struct Show {
    cluster: Cluster,
}

impl Show {
    fn explain(&self, line: &str) {
        println!("\n── {line}");
    }

    /// Runs a statement as the user would, with its rows in columns.
    fn sql(&self, sql: &str) -> Result<()> {
        self.psql(&[], sql)
    }

    /// The same with a row's columns below each other.
    fn rows(&self, sql: &str) -> Result<()> {
        self.psql(&["-x"], sql)
    }

    fn psql(&self, options: &[&str], sql: &str) -> Result<()> {
        println!("postgres=# {sql};");
        print!("{}", self.cluster.psql(options, sql)?);
        Ok(())
    }

    /// What a query gives, without showing it.
    fn value(&self, sql: &str) -> Result<String> {
        self.cluster.text(sql)
    }

    /// Runs a client program, shown as it would be typed.
    fn client(&self, program: &str, arguments: &[&str]) -> Result<()> {
        println!("$ {program} {}", arguments.join(" "));
        step(program, || self.cluster.client(program, arguments)).map(drop)
    }

    /// Waits until a query gives the expected verdict.
    fn expect(&self, what: &str, sql: &str, expected: &str) -> Result<()> {
        step(&format!("{what}: {expected}"), || self.cluster.wait_for(sql, expected))
    }
}
