//! A worker that cannot be started is not said to have been, and nobody is advised to do what was tried in vain.

use anyhow::{Result, ensure};
use tests::{Cluster, Settings, Shutdown};

const REASONS: &str = "SELECT array_to_string(reasons, ' ') FROM recovery_readiness";

/// A cluster with room for so many background workers.
fn with_slots(slots: &str) -> Result<Cluster> {
    let cluster = Cluster::start(Settings::new().set("max_worker_processes", slots))?;
    cluster.text("CREATE EXTENSION pg_backstop")?;
    Ok(cluster)
}

/// It says so everywhere.
fn is_not_started(cluster: &Cluster, why: &str) -> Result<()> {
    cluster.wait_for(
        &format!("SELECT pid IS NULL AND last_error LIKE '%{why}%' FROM v_worker_status"),
        "t",
    )?;
    let error = cluster.refusal("SELECT start_worker()")?;
    ensure!(
        error.message().contains(why) && error.message().contains("max_worker_processes"),
        "{error}"
    );
    assert_eq!(error.code().code(), "53000");
    let reasons = cluster.text(REASONS)?;
    ensure!(
        reasons.contains("could not be started") && reasons.contains(why) && !reasons.contains("start_worker()"),
        "{reasons}"
    );
    Ok(())
}

#[test]
fn without_a_free_slot_start_worker_says_so_and_readiness_advises_what_helps() -> Result<()> {
    // One is taken by the launcher for logical replication, and one by our own.
    let mut cluster = with_slots("2")?;
    is_not_started(&cluster, "no background worker slot is free")?;
    assert_eq!(
        cluster.log()?.matches("no background worker slot is free").count(),
        2,
        "once by the launcher"
    );
    cluster.set("max_worker_processes", "4")?;
    cluster.restart(Shutdown::Fast)?;
    cluster.wait_for(
        "SELECT pid IS NOT NULL AND last_error IS NULL FROM v_worker_status",
        "t",
    )?;
    assert_eq!(cluster.text("SELECT stop_worker()")?, "t");
    cluster.wait_for("SELECT pid IS NULL FROM v_worker_status", "t")?;
    assert_eq!(cluster.text("SELECT start_worker()")?, "t");
    cluster.wait_for("SELECT pid IS NOT NULL FROM v_worker_status", "t")
}

#[test]
fn without_a_slot_for_the_launcher_the_same_is_said() -> Result<()> {
    is_not_started(&with_slots("1")?, "the launcher does not run")
}

#[test]
fn a_worker_whose_database_is_not_there_is_not_said_to_be_started() -> Result<()> {
    let cluster = Cluster::start(Settings::new().set("pg_backstop.database", "nowhere"))?;
    cluster.text("CREATE EXTENSION pg_backstop")?;
    let error = cluster.refusal("SELECT start_worker()")?;
    ensure!(error.message().contains("database \"nowhere\""), "{error}");
    cluster.text("CREATE DATABASE nowhere")?;
    assert_eq!(cluster.text("SELECT start_worker()")?, "t");
    cluster.wait_for("SELECT database FROM v_worker_status", "nowhere")
}
