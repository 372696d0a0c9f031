//! An archive of 100,000 segments: how soon a hole in it is told after a cold start, and what a tick costs once all is known.
//!
//! The segments are sparse files, since listing and remembering them is what is measured; a cluster whose WAL position was
//! moved ahead expects them all.

use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::Write as _;
use std::os::unix::fs::MetadataExt;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use chrono::DateTime;
use tests::progress::step;
use tests::{Cluster, Settings, Shutdown, process, worker};
use wal::{SegmentName, SegmentSize, Timeline};

use crate::cpu;
use crate::measure::Line;
use crate::session::stop_worker;

const SEGMENTS: u64 = 100_000;
/// Where the hole is.
const HOLE: u64 = SEGMENTS / 2;
const SEGMENT_MB: u32 = 1;
const TURNS: usize = 11;
const TICKS: usize = 5;
/// Milliseconds of processor time.
const LONGEST_TICK: f64 = 20.0;
/// Seconds.
const LONGEST_WAIT: f64 = 5.0;

pub fn bench() -> Result<Vec<Line>> {
    let mut archive = step("an archive of 100,000 segments", Archive::make)?;
    let first_report = step("the first report of a hole after a cold start", || {
        archive.first_report()
    })?;
    step("an archive of which all is known", || archive.make_known())?;
    let ticks = step("ticks without news", || {
        (0..TURNS).map(|_| archive.tick()).collect::<Result<Vec<_>>>()
    })?;
    Ok(vec![
        Line::within(
            "100,000 segments, first report of a hole, s",
            LONGEST_WAIT,
            &first_report,
        )?,
        Line::within("100,000 segments, idle tick, ms of CPU", LONGEST_TICK, &ticks)?,
    ])
}

struct Archive {
    cluster: Cluster,
    size: SegmentSize,
}

impl Archive {
    fn make() -> Result<Self> {
        let settings = Settings::new()
            .segment_mb(SEGMENT_MB)
            .set("pg_backstop.check_interval", "500ms")
            // Sparse files pass for verified only as long as nobody reads them.
            .set("pg_backstop.reverify_interval", "0")
            // The archiver never had these segments to send.
            .set("pg_backstop.archive_grace", "0");
        let mut cluster = Cluster::start(settings)?;
        cluster.text("CREATE EXTENSION pg_backstop")?;
        cluster.stop(Shutdown::Fast)?;
        for name in cluster.archive().segments()? {
            fs::remove_file(cluster.archive().file(name))?;
        }
        let archive = Self {
            size: SegmentSize::new(SEGMENT_MB << 20)?,
            cluster,
        };
        let mut reset = archive.cluster.server().program("pg_resetwal")?;
        reset.arg("-l").arg(archive.name(SEGMENTS + 1).to_string());
        process::run(reset.arg("-D").arg(archive.cluster.data()))?;
        for number in 1..=SEGMENTS {
            archive.store(number)?;
        }
        Ok(archive)
    }

    fn name(&self, number: u64) -> SegmentName {
        SegmentName {
            timeline: Timeline(1),
            number,
            size: self.size,
        }
    }

    fn store(&self, number: u64) -> Result<()> {
        let path = self.cluster.archive().file(self.name(number).to_string());
        let file = File::create(&path).with_context(|| path.display().to_string())?;
        Ok(file.set_len(self.size.bytes())?)
    }

    /// Seconds from the server's start until the hole is in `wal_archive_gaps`, each time with nothing on record.
    fn first_report(&mut self) -> Result<Vec<f64>> {
        let hole = self.name(HOLE).to_string();
        fs::remove_file(self.cluster.archive().file(&hole))?;
        let told =
            format!("SELECT count(*) FROM wal_archive_gaps WHERE from_segment = '{hole}' AND to_segment = '{hole}'");
        let mut seconds = Vec::new();
        for _ in 0..3 {
            let began = Instant::now();
            self.cluster.start_server()?;
            self.cluster.wait_for(&told, "1")?;
            seconds.push(began.elapsed().as_secs_f64());
            let mut session = self.cluster.connect()?;
            stop_worker(&mut session)?;
            session.batch_execute("TRUNCATE wal_archive")?;
            drop(session);
            self.cluster.stop(Shutdown::Fast)?;
        }
        self.store(HOLE)?;
        Ok(seconds)
    }

    /// Records all segments as verified, as they lie there, and has the worker find nothing to do.
    fn make_known(&mut self) -> Result<()> {
        self.cluster.start_server()?;
        let mut session = self.cluster.connect()?;
        stop_worker(&mut session)?;
        let mut rows = String::new();
        for number in 1..=SEGMENTS {
            let name = self.name(number);
            let file = fs::metadata(self.cluster.archive().file(name.to_string()))?;
            let changed_at = DateTime::from_timestamp_micros(file.ctime() * 1_000_000 + file.ctime_nsec() / 1000)
                .context("a time")?
                .to_rfc3339();
            let (start, end, bytes) = (name.start(), name.end(), file.len());
            writeln!(rows, "{name}\t1\t{start}\t{end}\tverified\t{bytes}\t{changed_at}\tnow")?;
        }
        session.batch_execute("TRUNCATE wal_archive")?;
        let mut copy = session.copy_in(
            "COPY wal_archive (segment_name, timeline_id, start_lsn, end_lsn, status, stored_bytes, stored_changed_at, verified_at) FROM STDIN",
        )?;
        copy.write_all(rows.as_bytes())?;
        copy.finish()?;
        session.batch_execute("VACUUM ANALYZE wal_archive")?;
        self.cluster.text("SELECT start_worker()")?;
        self.cluster
            .wait_for("SELECT unverified_segments FROM v_worker_status", "0")?;
        worker::ticks(&self.cluster, 5)?;
        let read = self
            .cluster
            .text("SELECT count(*) FROM wal_archive WHERE status <> 'verified'")?;
        ensure!(read == "0", "the worker found {read} segments that it did not know");
        Ok(())
    }

    /// Milliseconds of the worker's processor time in a tick.
    fn tick(&self) -> Result<f64> {
        let pid = worker::pid(&self.cluster)?;
        worker::ticks(&self.cluster, 0)?;
        let before = cpu::of_process(pid)?;
        worker::ticks(&self.cluster, TICKS - 1)?;
        Ok((cpu::of_process(pid)? - before).as_secs_f64() * 1000.0 / TICKS as f64)
    }
}
