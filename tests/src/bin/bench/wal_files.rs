//! Verification of archived WAL beside `pg_waldump -q`, which reads the same files and checks every record's CRC, and beside
//! SHA-256 alone.

use std::fs::File;
use std::hint::black_box;
use std::io::Read;
use std::path::PathBuf;

use anyhow::{Context, Result, bail, ensure};
use sha2::{Digest, Sha256};
use tests::progress::step;
use tests::{Cluster, Settings, Shutdown, process};
use wal::{Handover, Hashing, Major, SegmentName, SegmentReader, SegmentSize, SegmentVerifier, WalFormat};

use crate::measure::{Cost, Line, TURNS, compare};

/// MB.
const ENOUGH: usize = 1 << 10;

pub fn bench() -> Result<Vec<Line>> {
    let mut lines = Vec::new();
    for segment_mb in [16, 1] {
        let what = format!("writing 1 GB of WAL in segments of {segment_mb} MB");
        let archive = step(&what, || Archive::make(segment_mb))?;
        let what = ["s", "s of CPU"].map(|time| format!("WAL in segments of {segment_mb} MB, MB/{time}"));
        let mut waldump = || archive.rates(|| archive.waldump());
        let mut check = || archive.rates(|| archive.verify(Hashing::None));
        let mut check_and_hash = || archive.rates(|| archive.verify(Hashing::Sha256));
        let mut hash = || archive.rates(|| archive.hash());
        lines.extend(compare(
            what.clone(),
            TURNS,
            ("checked", &mut check),
            ("pg_waldump -q", &mut waldump),
        )?);
        lines.extend(compare(
            what,
            TURNS,
            ("checked and hashed", &mut check_and_hash),
            ("SHA-256 alone", &mut hash),
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
    fn make(segment_mb: u32) -> Result<Self> {
        let mut cluster = Cluster::start(
            Settings::new()
                .without_library()
                .segment_mb(segment_mb)
                .set("max_wal_size", "4GB"),
        )?;
        cluster.client("pgbench", &["-i", "-q", "-s", "20"])?;
        let enough = ENOUGH / usize::try_from(segment_mb)? + 1;
        while cluster.archive().segments()?.len() < enough {
            // Both kinds of WAL: many small records, and full pages after a checkpoint.
            cluster.client("pgbench", &["-c", "4", "-j", "2", "-t", "5000"])?;
            cluster.text("CHECKPOINT")?;
            cluster.archive_now()?;
        }
        let system = cluster
            .text("SELECT system_identifier FROM pg_control_system()")?
            .parse()?;
        cluster.stop(Shutdown::Fast)?;
        let size = SegmentSize::new(segment_mb << 20)?;
        let major = Major::from_number(cluster.server().major()).context("a major that crates/wal knows")?;
        let files = cluster
            .archive()
            .segments()?
            .into_iter()
            .map(|name| Ok((SegmentName::parse(&name, size)?, cluster.archive().file(&name))))
            .collect::<Result<Vec<_>>>()?;
        Ok(Self {
            format: WalFormat::new(major, size, system),
            files,
            cluster,
        })
    }

    /// MB a second, and a second of processor time, that `read` gets through.
    fn rates(&self, read: impl FnOnce() -> Result<()>) -> Result<[f64; 2]> {
        let bytes = self.files.len() as f64 * self.format.segment_size.bytes() as f64;
        Ok(Cost::of(read)?.rates(bytes / f64::from(1 << 20)))
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

    /// The same reads, and nothing but the hash.
    fn hash(&self) -> Result<()> {
        let mut chunk = vec![0; SegmentReader::CHUNK];
        for (_, path) in &self.files {
            let mut file = File::open(path)?;
            let mut hasher = Sha256::new();
            loop {
                let length = file.read(&mut chunk)?;
                if length == 0 {
                    break;
                }
                hasher.update(chunk.get(..length).unwrap_or_default());
            }
            black_box(hasher.finalize());
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
