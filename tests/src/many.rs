//! A ledger of years made up in seconds: tens of thousands of backups along verified WAL.

use anyhow::Result;
use postgres::Client;

use crate::cluster::text_in;
use crate::{Cluster, Settings, Shutdown, process};

/// A server whose WAL is at 1/0 already, and whose worker, which would find none of what is made up, has no database to work in.
///
/// # Errors
/// When it cannot be made.
pub fn cluster_at_4_gb(settings: Settings) -> Result<Cluster> {
    let mut cluster = Cluster::start(settings.set("pg_backstop.database", "nobody"))?;
    cluster.stop(Shutdown::Fast)?;
    let mut reset = cluster.server().program("pg_resetwal")?;
    reset.args(["-l", "000000010000000100000000", "-D"]).arg(cluster.data());
    process::run(&mut reset)?;
    cluster.start_server()?;
    cluster.text("CREATE EXTENSION pg_backstop")?;
    Ok(cluster)
}

/// So many backups along 4 GB of verified WAL, that has two gaps. Every tenth builds on the one before, every hundredth failed, of
/// every fifth the place is not on record, and every twentieth has its own WAL inside.
///
/// # Errors
/// What the server says.
pub fn fill(session: &mut Client, backups: u32) -> Result<()> {
    text_in(
        session,
        &format!(
            "SET session_replication_role = replica;
             INSERT INTO backup_history (id, backup_type, parent_id, system_identifier, timeline_id, start_lsn, end_lsn, status,
                                         verification, wal_included, backup_path, origin, started_at, finished_at,
                                         backup_size_bytes, last_event_id)
             SELECT n, CASE n % 10 WHEN 9 THEN 'incremental' ELSE 'full' END, CASE n % 10 WHEN 9 THEN n - 1 END,
                    (SELECT system_identifier FROM pg_control_system()), 1,
                    '0/1000000'::pg_lsn + n::bigint * (4200000000 / {backups}),
                    '0/1000000'::pg_lsn + n::bigint * (4200000000 / {backups}) + 70000,
                    CASE n % 100 WHEN 50 THEN 'failed' ELSE 'completed' END,
                    CASE n % 100 WHEN 51 THEN 'failed' ELSE 'unverified' END,
                    n % 20 = 0, CASE WHEN n % 5 <> 4 THEN '/backups/' || n END, 'detected',
                    now() - interval '30 d' + n * (interval '29 d' / {backups}),
                    now() - interval '30 d' + (n + 0.5) * (interval '29 d' / {backups}), 1000000, 0
               FROM generate_series(1, {backups}) n;
             INSERT INTO wal_archive (segment_name, timeline_id, start_lsn, end_lsn, status, problem, first_seen_at, verified_at,
                                      first_commit_at, last_commit_at, latest_xact_at, commit_count)
             SELECT upper(format('00000001%s%s', lpad(to_hex(mb / 4096), 8, '0'), lpad(to_hex(mb % 4096), 8, '0'))), 1,
                    '0/0'::pg_lsn + mb * 1048576, '0/0'::pg_lsn + (mb + 1) * 1048576,
                    CASE WHEN gap THEN 'missing' ELSE 'verified' END, CASE WHEN gap THEN 'missing' END, now(),
                    CASE WHEN NOT gap THEN now() END, at, at, at, 1
               FROM (SELECT mb, mb IN (1500, 2800) AS gap, now() - interval '30 d' + mb * (interval '29 d' / 4096) AS at
                       FROM generate_series(16, 4095::bigint) mb) AS made;
             SET session_replication_role = origin;
             ANALYZE"
        ),
    )?;
    Ok(())
}
