//! What the worker costs a busy cluster that archives: pgbench with it and without it.

use anyhow::{Result, ensure};
use tests::progress::step;
use tests::{Cluster, Settings};

use crate::ledger::transactions_per_second;
use crate::measure::{Line, compare};

pub fn bench() -> Result<Line> {
    let cluster = step("a cluster under load", || {
        let cluster = Cluster::start(Settings::new().segment_mb(16))?;
        cluster.text("CREATE EXTENSION pg_backstop")?;
        cluster.client("pgbench", &["-i", "-q", "-s", "20"])?;
        cluster.base_backup(&cluster.place("backup"))?;
        anyhow::Ok(cluster)
    })?;
    let load = || transactions_per_second(&cluster, &["-c", "4", "-j", "2", "-T", "6"]);
    let mut with = || {
        cluster.text("SELECT start_worker()")?;
        cluster.wait_for("SELECT pid IS NOT NULL FROM v_worker_status", "t")?;
        load()
    };
    let mut without = || {
        cluster.text("SELECT stop_worker()")?;
        cluster.wait_for(
            "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'pg_backstop worker'",
            "0",
        )?;
        load()
    };
    let line = compare(
        "pgbench transactions/s".to_owned(),
        ("worker on", &mut with),
        ("worker off", &mut without),
    )?;
    cluster.text("SELECT start_worker()")?;
    let verified = "SELECT count(*) > 5 FROM wal_archive WHERE status = 'verified'";
    cluster.wait_for(verified, "t")?;
    ensure!(
        cluster.text("SELECT count(*) FROM wal_archive_gaps")? == "0",
        "the worker found gaps"
    );
    Ok(line)
}
