//! What the worker costs a busy cluster that archives: pgbench with it and without it.
//!
//! The claim is about one part in a hundred, so everything else that varies is kept away: no disk is waited for, no
//! checkpoint or autovacuum comes in between, pages have been written in full before the first turn, and a turn begins when
//! the archiver and the worker have nothing left to do. Turns are short and many, for what the machine does besides.

use std::time::Duration;

use anyhow::{Result, ensure};
use postgres::Client;
use tests::cluster::text_in;
use tests::progress::step;
use tests::{Cluster, Settings};

use crate::cpu;
use crate::measure::{Line, compare};
use crate::pgbench::{self, Run};
use crate::session::{stop_worker, wait_for};

const TURNS: usize = 40;
const SECONDS: &str = "3";

pub fn bench() -> Result<Vec<Line>> {
    let settings = Settings::new()
        .segment_mb(16)
        .set("synchronous_commit", "off")
        .set("autovacuum", "off")
        .set("checkpoint_timeout", "1d")
        .set("max_wal_size", "64GB");
    let cluster = step("a cluster under load", || {
        let cluster = Cluster::start(settings)?;
        cluster.text("CREATE EXTENSION pg_backstop")?;
        cluster.client("pgbench", &["-i", "-q", "-s", "10"])?;
        cluster.base_backup(&cluster.place("backup"))?;
        load(&cluster, "10")?;
        anyhow::Ok(cluster)
    })?;
    let mut session = cluster.connect()?;
    let mut shares = Vec::new();
    let mut with = || {
        cluster.text("SELECT start_worker()")?;
        let turn = Turn::of(&cluster, &mut session, CAUGHT_UP)?;
        shares.push((
            turn.per_cpu_second(turn.all),
            turn.per_cpu_second(turn.all - turn.worker),
        ));
        Ok([turn.run.per_second, turn.per_cpu_second(turn.all)])
    };
    let mut other_session = cluster.connect()?;
    let mut without = || {
        stop_worker(&mut other_session)?;
        let turn = Turn::of(&cluster, &mut other_session, ARCHIVED)?;
        Ok([turn.run.per_second, turn.per_cpu_second(turn.all)])
    };
    let mut lines = compare(
        ["s", "s of CPU"].map(|time| format!("pgbench transactions/{time}")),
        TURNS,
        ("worker on", &mut with),
        ("worker off", &mut without),
    )?;
    lines.push(Line::of(
        "the same turns, transactions/s of CPU".to_owned(),
        "worker on",
        "its own CPU left out",
        &shares,
    )?);
    let verified = cluster.text("SELECT count(*) > 5 FROM wal_archive WHERE status = 'verified'")?;
    ensure!(verified == "t", "the worker has verified next to nothing");
    ensure!(
        cluster.text("SELECT count(*) FROM wal_archive_gaps")? == "0",
        "the worker found gaps"
    );
    Ok(lines)
}

/// The archiver has nothing left to send, and the worker has verified all that it sent.
const CAUGHT_UP: &str = "SELECT pid IS NOT NULL AND last_tick_at > now() - interval '2 s' AND unverified_segments = 0
    AND last_verified_segment = (SELECT left(last_archived_wal, 24) FROM pg_stat_archiver)
    AND NOT EXISTS (SELECT FROM pg_ls_archive_statusdir() WHERE name LIKE '%.ready') FROM v_worker_status";
/// The archiver has nothing left to send.
const ARCHIVED: &str = "SELECT NOT EXISTS (SELECT FROM pg_ls_archive_statusdir() WHERE name LIKE '%.ready')";

/// One run of pgbench, and the processor time of all that has to do with it: pgbench and the whole server with its archiver
/// and its worker, until they have done with the WAL of this run.
struct Turn {
    run: Run,
    all: Duration,
    worker: Duration,
}

impl Turn {
    fn of(cluster: &Cluster, session: &mut Client, done: &str) -> Result<Self> {
        wait_for(session, done)?;
        let worker = text_in(session, "SELECT pid FROM v_worker_status")?.parse().ok();
        let of_worker = || worker.map_or(Ok(Duration::ZERO), cpu::of_process);
        let before = (cpu::ours()? + cpu::of_cluster(cluster)?, of_worker()?);
        let run = load(cluster, SECONDS)?;
        wait_for(session, done)?;
        Ok(Self {
            run,
            all: cpu::ours()? + cpu::of_cluster(cluster)? - before.0,
            worker: of_worker()? - before.1,
        })
    }

    fn per_cpu_second(&self, time: Duration) -> f64 {
        self.run.transactions / time.as_secs_f64()
    }
}

fn load(cluster: &Cluster, seconds: &str) -> Result<Run> {
    pgbench::run(cluster, &["-c", "4", "-j", "2", "-T", seconds])
}
