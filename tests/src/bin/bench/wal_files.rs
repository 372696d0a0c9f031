//! Verification of archived WAL beside `pg_waldump -q`, which reads the same files and checks every record's CRC.

use std::fs::File;
use std::path::PathBuf;
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};
use tests::progress::step;
use tests::{Cluster, Settings, Shutdown, process};
use wal::{Handover, Hashing, Major, SegmentName, SegmentReader, SegmentSize, SegmentVerifier, WalFormat};

use crate::measure::{Line, compare};

const SEGMENT_MB: u32 = 16;
const ENOUGH: usize = (1 << 30) / (SEGMENT_MB as usize * (1 << 20)) + 1;

pub fn bench() -> Result<Vec<Line>> {
    let archive = step("writing 1 GB of WAL", Archive::make)?;
    let files = archive.files.len();
    println!("{files} segments of {SEGMENT_MB} MB");
    let mut lines = Vec::new();
    for (hashing, what) in [
        (Hashing::None, "WAL verified, MB/s"),
        (Hashing::Sha256, "WAL verified and hashed, MB/s"),
    ] {
        let name = if hashing == Hashing::None {
            "crates/wal"
        } else {
            "crates/wal with SHA-256"
        };
        let mut ours = || archive.rate(|| archive.verify(hashing));
        let mut peer = || archive.rate(|| archive.waldump());
        lines.push(compare(
            what.to_owned(),
            (name, &mut ours),
            ("pg_waldump -q", &mut peer),
        )?);
    }
    Ok(lines)
}

/// Archived segments of a cluster that has stopped.
struct Archive {
    cluster: Cluster,
    format: WalFormat,
    files: Vec<(SegmentName, PathBuf)>,
}

impl Archive {
    fn make() -> Result<Self> {
        let mut cluster = Cluster::start(
            Settings::new()
                .without_library()
                .segment_mb(SEGMENT_MB)
                .set("max_wal_size", "4GB"),
        )?;
        cluster.client("pgbench", &["-i", "-q", "-s", "20"])?;
        while cluster.archive().segments()?.len() < ENOUGH + 1 {
            // Both kinds of WAL: many small records, and full pages after a checkpoint.
            cluster.client("pgbench", &["-c", "4", "-j", "2", "-t", "5000"])?;
            cluster.text("CHECKPOINT")?;
            cluster.archive_now()?;
        }
        let system = cluster
            .text("SELECT system_identifier FROM pg_control_system()")?
            .parse()?;
        cluster.stop(Shutdown::Fast)?;
        let size = SegmentSize::new(SEGMENT_MB << 20)?;
        let major = Major::from_number(cluster.server().major()).context("a major that crates/wal knows")?;
        let files = cluster
            .archive()
            .segments()?
            .into_iter()
            .map(|name| Ok((SegmentName::parse(&name, size)?, cluster.archive().file(&name))))
            .collect::<Result<Vec<_>>>()?;
        ensure!(files.len() >= ENOUGH, "only {} segments", files.len());
        Ok(Self {
            format: WalFormat::new(major, size, system),
            files,
            cluster,
        })
    }

    /// MB a second that `read` gets through.
    fn rate(&self, read: impl FnOnce() -> Result<()>) -> Result<f64> {
        let started = Instant::now();
        read()?;
        let seconds = started.elapsed().as_secs_f64();
        Ok(self.files.len() as f64 * f64::from(SEGMENT_MB) / seconds)
    }

    fn verify(&self, hashing: Hashing) -> Result<()> {
        let mut reader = SegmentReader::new();
        let mut handover: Option<Handover> = None;
        for (name, path) in &self.files {
            let verifier = SegmentVerifier::new(&self.format, *name, None, handover.take()).with_hashing(hashing);
            match reader.verify(File::open(path)?, verifier, &mut |_| ()).result {
                Ok(summary) => handover = Some(summary.handover),
                Err(fault) => bail!("{name}: {}", fault.sentence),
            }
        }
        Ok(())
    }

    fn waldump(&self) -> Result<()> {
        let (Some((first, _)), Some((last, _))) = (self.files.first(), self.files.last()) else {
            bail!("no segments")
        };
        let mut command = self.cluster.server().program("pg_waldump")?;
        command.arg("-q").arg("-p").arg(self.cluster.archive().path());
        let output = process::output(command.args([first.to_string(), last.to_string()]))?;
        // The last segment ends in the middle of nothing, of which it complains.
        let complaints = String::from_utf8_lossy(&output.stderr).into_owned();
        ensure!(complaints.lines().count() <= 1, "{complaints}");
        Ok(())
    }
}
