//! What the views take over years of history: 1,000,000 segments with a handful of holes in the middle, 100,000 backups in chains of
//! seven, 2,600,000 samples.
//!
//! The rows are made up, and no worker runs, since it would find none of those segments. A view is explained with ANALYZE, so that
//! what is measured is planning and executing it, not printing what it gave.

use std::time::Instant;

use anyhow::{Context, Result, ensure};
use postgres::Client;
use tests::cluster::text_in;
use tests::progress::step;
use tests::{Cluster, Settings, Shutdown, process};

use crate::measure::Line;

/// Of 1 MB each.
const SEGMENTS: u32 = 1_000_000;
const TURNS: usize = 11;
/// Milliseconds.
const LONGEST: f64 = 50.0;

const VIEWS: &[&str] = &[
    "recovery_readiness",
    "recovery_windows",
    "wal_archive_gaps",
    "v_backup_status",
    "v_policy_status",
    "v_rto_rpo_monitoring",
    "v_objective_compliance",
    "v_rto_prediction",
];

/// Each fills a table; the ledger's triggers are off, since they would make it a benchmark of the ledger.
const FILL: &[&str] = &[
    "INSERT INTO wal_archive (segment_name, timeline_id, start_lsn, end_lsn, status, stored_path, stored_bytes, sha256,
         sound_sha256, first_commit_at, last_commit_at, latest_xact_at, last_record_lsn, commit_count, record_count, data_bytes,
         verified_at, handover)
     SELECT '00000001' || upper(lpad(to_hex(n / 4096), 8, '0')) || upper(lpad(to_hex(n % 4096), 8, '0')), 1,
            '0/0'::pg_lsn + n * 1048576, '0/0'::pg_lsn + (n + 1) * 1048576, 'verified', '/mnt/archive', 1048576,
            repeat('ab', 32), repeat('ab', 32), now() - (1000000 - n) * interval '10 s',
            now() - (1000000 - n) * interval '10 s', now() - (1000000 - n) * interval '10 s',
            '0/0'::pg_lsn + (n + 1) * 1048576 - 100, 100, 5000, 1048576, now(), decode(repeat('00', 40), 'hex')
       FROM generate_series(1, 999999::bigint) n",
    "UPDATE wal_archive SET status = 'missing', problem = 'missing', detail = 'It is gone.'
      WHERE start_lsn IN (SELECT '0/0'::pg_lsn + n * 1048576
                            FROM unnest('{300000,400000,500000,500001,500002,600000,700000}'::bigint[]) n)",
    "INSERT INTO backup_policies (policy_name, backup_type, schedule_cron, last_event_id)
     SELECT 'policy ' || n, CASE WHEN n < 3 THEN 'full' ELSE 'incremental' END, '30 2 * * *', 0 FROM generate_series(1, 5) n",
    "INSERT INTO backup_history (id, policy_id, backup_type, parent_id, label, system_identifier, timeline_id, start_lsn,
         end_lsn, backup_path, backup_size_bytes, duration_seconds, status, verification, origin, error, started_at, finished_at,
         last_event_id)
     SELECT n, CASE WHEN n % 10 < 5 THEN n % 10 + 1 END, CASE n % 7 WHEN 0 THEN 'full' ELSE 'incremental' END,
            CASE n % 7 WHEN 0 THEN NULL ELSE n - 1 END, 'nightly', (SELECT system_identifier FROM pg_control_system()), 1,
            '0/0'::pg_lsn + n * 10485750, '0/0'::pg_lsn + n * 10485750 + 2000000, '/backup/' || n, 10000000000, 600,
            CASE n % 500 WHEN 1 THEN 'failed' ELSE 'completed' END, 'unverified',
            CASE WHEN n % 10 < 5 THEN 'recorded' ELSE 'detected' END, CASE n % 500 WHEN 1 THEN 'no space left' END,
            now() - (100000 - n) * interval '100 s' - interval '1 h', now() - (100000 - n) * interval '100 s', 0
       FROM generate_series(1, 99990::bigint) n",
    "INSERT INTO recovery_history (recovery_type, is_drill, backup_id, start_time, end_time, status, rto_seconds, rpo_seconds,
         predicted_rto_seconds, restore_seconds, replay_seconds, wal_replayed_bytes, startup_seconds, last_event_id)
     SELECT 'point_in_time', true, n * 90, now() - n * interval '1 d', now() - n * interval '1 d' + interval '1 h',
            'completed', 3000 + n, n % 60, 3100 + n, 2000, 900 + n, 5000000000, 100, 0
       FROM generate_series(1, 1000) n",
    "INSERT INTO recovery_samples
     SELECT now() - (2600000 - n) * interval '1 s', n % 20, n, 1800, '0/0'::pg_lsn + n * 1000, '0/0'::pg_lsn + n * 1001,
            '0/0'::pg_lsn + n * 1000, NULL, 0, n % 3
       FROM generate_series(1, 2600000::bigint) n",
    "INSERT INTO recovery_hourly
     SELECT date_trunc('hour', now(), 'UTC') - n * interval '1 h',
            date_trunc('hour', now(), 'UTC') - (n - 1) * interval '1 h', 3600, 3600, 3500, 100, 3600, 0, 0, 3600, 9.5, 400,
            100000000, 1800, system_identifier
       FROM pg_control_system(), generate_series(1, 9600) n",
    "VACUUM (ANALYZE, FREEZE)",
];

pub fn bench() -> Result<Vec<Line>> {
    let cluster = step("years of history", years_of_history)?;
    let mut session = cluster.connect()?;
    let counts = "SELECT (SELECT count(*) FROM recovery_windows), (SELECT count(*) FROM wal_archive_gaps),
                         (SELECT sum(cardinality(affected_backups)) FROM wal_archive_gaps)";
    let seen = text_in(&mut session, counts)?;
    ensure!(seen.starts_with("6|5|"), "windows, gaps, affected backups: {seen}");
    step("the views", || {
        VIEWS
            .iter()
            .map(|view| {
                let took = (0..=TURNS)
                    .map(|_| milliseconds(&mut session, view))
                    .collect::<Result<Vec<_>>>()?;
                // The first one fills the session's caches.
                let took = took.get(1..).unwrap_or_default();
                Line::within(&format!("{view}, ms"), LONGEST, took)
            })
            .collect()
    })
}

fn years_of_history() -> Result<Cluster> {
    // A database that is not there has no worker.
    let settings = Settings::new().set("pg_backstop.database", "nobody");
    let mut cluster = Cluster::start(settings)?;
    cluster.stop(Shutdown::Fast)?;
    let next = format!("00000001{:08X}{:08X}", SEGMENTS / 4096, SEGMENTS % 4096);
    let mut reset = cluster.server().program("pg_resetwal")?;
    process::run(reset.arg("-l").arg(next).arg("-D").arg(cluster.data()))?;
    cluster.start_server()?;
    cluster.text("CREATE EXTENSION pg_backstop")?;
    let mut session = cluster.connect()?;
    session.batch_execute("SET session_replication_role = replica; SET statement_timeout = 0")?;
    for fill in FILL {
        let began = Instant::now();
        session.batch_execute(fill).with_context(|| fill.to_string())?;
        let table = fill.split_whitespace().nth(2).unwrap_or_default();
        eprintln!("  {table}: {:.0} s", began.elapsed().as_secs_f64());
    }
    Ok(cluster)
}

/// What planning and executing take together.
fn milliseconds(session: &mut Client, view: &str) -> Result<f64> {
    let plan = text_in(
        session,
        &format!("EXPLAIN (ANALYZE, TIMING OFF, SUMMARY) SELECT * FROM {view}"),
    )?;
    ["Planning Time: ", "Execution Time: "]
        .iter()
        .map(|what| {
            let line = plan
                .lines()
                .find_map(|line| line.strip_prefix(what))
                .context("a time")?;
            Ok(line.trim_end_matches(" ms").parse::<f64>()?)
        })
        .sum()
}
