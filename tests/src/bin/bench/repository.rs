//! A repository of pgBackRest, read by the worker and by pgBackRest's own `verify`: as a whole, and again without news.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use postgres::Client;
use tests::cluster::text_in;
use tests::codec::Codec;
use tests::pgbackrest::PgBackRest;
use tests::progress::step;
use tests::{Cluster, Settings, process, worker};

use crate::cpu;
use crate::measure::{Cost, Line, compare};
use crate::session::{stop_worker, wait_for};

const SEGMENT_MB: u32 = 16;
/// 1 GB.
const SEGMENTS: usize = 64;
const TURNS: usize = 5;
const TICKS: usize = 10;

pub fn bench() -> Result<Vec<Line>> {
    let mut lines = Vec::new();
    // As it is, and as pgBackRest stores it unless it is told otherwise.
    for (codec, how) in [(None, "plain"), (Some(Codec::Gzip), "gz")] {
        let what = format!("1 GB of WAL in a repository, {how}");
        let repository = step(&what, || Repository::make(codec))?;
        let mut session = repository.cluster.connect()?;
        repository.tick_every("10s")?;
        let mut first = || repository.first_run(&mut session);
        let mut verify = || Ok(repository.verify()?.rates(1.0));
        lines.extend(compare(
            ["s", "s of CPU"].map(|time| format!("repository, {how}, first run, runs/{time}")),
            TURNS,
            ("worker", &mut first),
            ("pgbackrest verify", &mut verify),
        )?);
        repository.tick_every("100ms")?;
        let mut again = || repository.tick();
        let mut verify = || {
            let [_, per_cpu_second] = repository.verify()?.rates(1.0);
            Ok([per_cpu_second])
        };
        lines.extend(compare(
            [format!("repository, {how}, without news, runs/s of CPU")],
            TURNS,
            ("worker", &mut again),
            ("pgbackrest verify", &mut verify),
        )?);
    }
    Ok(lines)
}

struct Repository {
    cluster: Cluster,
    pgbackrest: PgBackRest,
}

impl Repository {
    fn make(codec: Option<Codec>) -> Result<Self> {
        let settings = Settings::new()
            .segment_mb(SEGMENT_MB)
            // What is still in pg_wal the worker reads there too, to compare: as good as nothing, as on a server in use.
            .set("max_wal_size", "64MB")
            .set("min_wal_size", "32MB");
        let mut cluster = Cluster::start(settings)?;
        let pgbackrest = PgBackRest::new(&cluster, codec)?;
        pgbackrest.create_stanza()?;
        cluster.set("archive_command", &pgbackrest.archive_command())?;
        let source = format!("pgbackrest:{}", pgbackrest.archive().display());
        cluster.set("pg_backstop.archive_source", &source)?;
        cluster.reload()?;
        cluster.text("CREATE EXTENSION pg_backstop")?;
        process::run(&mut pgbackrest.command("backup")?)?;
        cluster.client("pgbench", &["-i", "-q", "-s", "20"])?;
        let written = format!("SELECT pg_current_wal_lsn() - '0/0' > {SEGMENTS}::numeric * {SEGMENT_MB} * 1024 * 1024");
        while cluster.text(&written)? == "f" {
            cluster.client("pgbench", &["-n", "-c", "4", "-j", "2", "-t", "5000"])?;
            cluster.text("CHECKPOINT")?;
        }
        cluster.archive_now()?;
        cluster.text("CHECKPOINT")?;
        Ok(Self { cluster, pgbackrest })
    }

    fn tick_every(&self, interval: &str) -> Result<()> {
        let setting = format!("ALTER SYSTEM SET pg_backstop.check_interval = '{interval}'");
        self.cluster.text(&setting)?;
        self.cluster.reload()
    }

    /// Runs pgBackRest's verification, which must find nothing.
    fn verify(&self) -> Result<Cost> {
        Cost::of(|| process::run(&mut self.pgbackrest.command("verify")?).map(drop))
    }

    /// From the start of a worker that knows of nothing until all is verified: runs a second, and a second of processor time.
    fn first_run(&self, session: &mut Client) -> Result<[f64; 2]> {
        stop_worker(session)?;
        session.batch_execute("TRUNCATE wal_archive")?;
        let began = Instant::now();
        session.batch_execute("SELECT start_worker()")?;
        wait_for(
            session,
            &format!(
                "SELECT unverified_segments = 0 AND (SELECT count(*) >= {SEGMENTS} FROM wal_archive) FROM v_worker_status"
            ),
        )?;
        let wall = began.elapsed();
        let cpu = cpu::of_process(worker::pid(&self.cluster)?)?;
        let bad = text_in(session, "SELECT count(*) FROM wal_archive WHERE status <> 'verified'")?;
        ensure!(bad == "0", "{bad} segments of a sound repository are not verified");
        Ok(Cost { wall, cpu }.rates(1.0))
    }

    /// Ticks in a second of processor time.
    fn tick(&self) -> Result<[f64; 1]> {
        let pid = worker::pid(&self.cluster)?;
        worker::ticks(&self.cluster, 0)?;
        let before = cpu::of_process(pid)?;
        worker::ticks(&self.cluster, TICKS - 1)?;
        let took: Duration = cpu::of_process(pid)? - before;
        Ok([TICKS as f64 / took.as_secs_f64()])
    }
}
