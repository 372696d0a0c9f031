//! The ledger's calls beside the same logic in PL/pgSQL: same tables, same checks, same cluster; once with the same chain of hashes,
//! and once without any chain.

use std::fs;

use anyhow::{Result, ensure};
use tests::progress::step;
use tests::{Cluster, Settings};

use crate::measure::{Line, TURNS, compare};
use crate::pgbench;

/// Start and completion of a backup.
const CALLS: f64 = 2.0;

pub fn bench() -> Result<Vec<Line>> {
    let cluster = step("a cluster with two ledgers", || {
        let cluster = Cluster::start(Settings::new().segment_mb(16))?;
        cluster.text("CREATE SCHEMA backstop; CREATE EXTENSION pg_backstop SCHEMA backstop")?;
        // Both sides for themselves.
        cluster.text("SELECT backstop.stop_worker()")?;
        cluster.text(include_str!("peer.sql"))?;
        cluster.text(&without_chain())?;
        anyhow::Ok(cluster)
    })?;
    let mut lines = Vec::new();
    for (schema, name, chain) in [
        ("peer", "PL/pgSQL", "with a chain"),
        ("plain", "PL/pgSQL", "peer without chain"),
    ] {
        for sessions in [1, 8, 32] {
            let what = format!("ledger calls/s, {sessions} at a time, {chain}");
            let mut ours = || calls_per_second(&cluster, "backstop", sessions);
            let mut peer = || calls_per_second(&cluster, schema, sessions);
            lines.extend(compare([what], TURNS, ("pg_backstop", &mut ours), (name, &mut peer))?);
        }
    }
    for schema in ["backstop", "peer"] {
        let ended = cluster.text(&format!(
            "SELECT count(*) > 100, count(*) * 2 = (SELECT count(*) FROM {schema}.ledger_events) FROM {schema}.backup_history
             WHERE status = 'completed'"
        ))?;
        ensure!(ended == "t|t", "{schema} has lost calls: {ended}");
    }
    ensure!(
        cluster.text("SELECT status FROM backstop.verify_ledger()")? == "intact",
        "the ledger is broken"
    );
    Ok(lines)
}

/// The peer once more, in a schema of its own, and with nothing that makes a chain.
fn without_chain() -> String {
    let plain = include_str!("peer.sql")
        .replace("peer", "plain")
        .replace("PERFORM pg_advisory_xact_lock(1);", "");
    format!(
        "{plain}
         DROP TRIGGER ledger_lock ON plain.backup_history; DROP TRIGGER ledger_append ON plain.backup_history;
         ALTER TABLE plain.backup_history ALTER last_event_id SET DEFAULT 0,
             DROP CONSTRAINT backup_history_last_event_id_fkey"
    )
}

fn calls_per_second(cluster: &Cluster, schema: &str, sessions: usize) -> Result<[f64; 1]> {
    let script = cluster.place(&format!("{schema}.pgbench"));
    let calls = format!(
        "SELECT backup_id FROM {schema}.record_backup_start() \\gset\n\
         SELECT status FROM {schema}.record_backup_complete(:backup_id, 1000);\n"
    );
    fs::write(&script, calls)?;
    let sessions = sessions.to_string();
    let script = script.display().to_string();
    let run = pgbench::run(cluster, &["-f", &script, "-c", &sessions, "-j", "2", "-T", "2"])?;
    Ok([run.per_second * CALLS])
}
