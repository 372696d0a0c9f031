//! Damage at random in WAL that a server wrote: whatever bit is flipped, wherever a file is cut, it is found.
//!
//! Every bit of a segment counts but for three kinds, which nothing can tell or nobody reads:
//! - XLP_BKP_REMOVABLE in a page header, a hint for archiving tools. No check covers it, and PostgreSQL never reads it.
//! - What follows an XLOG_SWITCH record. It is padding, which recovery skips unseen; no segment here has any.
//! - The end of a record that began before the first segment at hand. Its CRC needs its beginning, so that segment only
//!   hands over to those that are damaged here.

use std::sync::LazyLock;

use anyhow::{Context, Result, bail, ensure};
use fastrand::Rng;
use tests::{Cluster, Settings};
use wal::{Fault, Handover, Hashing, Major, SegmentName, SegmentSize, SegmentSummary, SegmentVerifier, WalFormat};

const FLIPS: usize = 2000;
const CUTS: usize = 500;
/// What the random places follow from; every failure tells it.
const SEED: u64 = 0x00C0_FFEE;
const PAGE: usize = WalFormat::DEFAULT_BLOCK_SIZE as usize;

#[test]
fn every_flipped_bit_is_found_in_its_segment_or_in_the_next_one() -> Result<()> {
    let wal = wal()?;
    let mut random = Rng::with_seed(SEED);
    let (mut here, mut in_the_next) = (0, 0);
    while here + in_the_next < FLIPS {
        let (segment, next) = wal.segment_and_next(random.usize(..wal.segments.len() - 1))?;
        let bit = random.usize(..segment.bytes.len() * 8);
        if is_removable_flag(bit) {
            continue;
        }
        let mut bytes = segment.bytes.clone();
        let byte = bytes.get_mut(bit / 8).context("a byte in the segment")?;
        *byte ^= 1 << (bit % 8);
        match wal.verify(segment.name, &bytes, Some(segment.before.clone())) {
            Err(_) => here += 1,
            // The damaged record goes on in the next segment, and so does the sum that will not come out right.
            Ok(summary) => match wal.verify(next.name, &next.bytes, Some(summary.handover)) {
                Err(_) => in_the_next += 1,
                Ok(_) => bail!(
                    "bit {} of byte {} of {} was flipped unnoticed (byte {} of its page; seed {SEED:#X}, flip {})",
                    bit % 8,
                    bit / 8,
                    segment.name,
                    bit / 8 % PAGE,
                    here + in_the_next
                ),
            },
        }
    }
    eprintln!("{here} flips found in their segments, {in_the_next} in the next ones");
    Ok(())
}

#[test]
fn every_cut_is_found() -> Result<()> {
    let wal = wal()?;
    let mut random = Rng::with_seed(SEED);
    for cut in 0..CUTS {
        let (segment, _) = wal.segment_and_next(random.usize(..wal.segments.len() - 1))?;
        let length = random.usize(..segment.bytes.len());
        let rest = segment.bytes.get(..length).context("a place in the segment")?;
        let Err(fault) = wal.verify(segment.name, rest, Some(segment.before.clone())) else {
            bail!(
                "{} cut to {length} bytes passes (seed {SEED:#X}, cut {cut})",
                segment.name
            );
        };
        let expected = if length == 0 { "empty" } else { "truncated" };
        ensure!(
            fault.problem.as_str() == expected && fault.offset == length as u64,
            "{} cut to {length} bytes (seed {SEED:#X}, cut {cut}): {} at byte {}: {fault}",
            segment.name,
            fault.problem,
            fault.offset
        );
    }
    Ok(())
}

/// Bit 2 of xlp_info, which is at byte 2 of a page (xlog_internal.h).
fn is_removable_flag(bit: usize) -> bool {
    bit % (PAGE * 8) == 2 * 8 + 2
}

/// Segments that follow one another, all full of records to their last byte.
struct Wal {
    format: WalFormat,
    segments: Vec<Segment>,
}

struct Segment {
    name: SegmentName,
    bytes: Vec<u8>,
    /// What the segment before it handed over.
    before: Handover,
}

fn wal() -> Result<&'static Wal> {
    static WAL: LazyLock<Result<Wal, String>> = LazyLock::new(|| Wal::write().map_err(|error| format!("{error:#}")));
    WAL.as_ref().map_err(|error| anyhow::anyhow!("{error}"))
}

impl Wal {
    fn write() -> Result<Self> {
        let cluster = Cluster::start(Settings::new().without_library())?;
        // Bulk, single rows, full pages after a checkpoint, and records that span many pages.
        cluster.client("pgbench", &["-i", "-q", "-s", "1"])?;
        cluster.client("pgbench", &["-c", "2", "-t", "1000"])?;
        cluster.text("CHECKPOINT")?;
        cluster.client("pgbench", &["-c", "2", "-t", "1000"])?;
        for length in [20_000, 300_000, 700_000] {
            cluster.text(&format!(
                "SELECT pg_logical_emit_message(false, 'long', repeat('x', {length}))"
            ))?;
            cluster.client("pgbench", &["-t", "50"])?;
        }
        let switched = cluster.archive_now()?;
        let size = SegmentSize::new(1 << 20)?;
        let system = cluster
            .text("SELECT system_identifier FROM pg_control_system()")?
            .parse()?;
        let major = Major::from_number(cluster.server().major()).context("a known major")?;
        let mut wal = Self {
            format: WalFormat::new(major, size, system),
            segments: Vec::new(),
        };
        let mut before = None;
        for name in cluster.archive().segments()? {
            if name == switched {
                break;
            }
            let bytes = cluster.archive().read(&name)?;
            let name = SegmentName::parse(&name, size)?;
            let summary = wal.verify(name, &bytes, before.clone())?;
            ensure!(!summary.switched, "{name} is not full");
            if let Some(before) = before.replace(summary.handover) {
                ensure!(before.at() == name.start(), "{name} does not follow the segment before");
                wal.segments.push(Segment { name, bytes, before });
            }
        }
        ensure!(wal.segments.len() > 10, "only {} segments", wal.segments.len());
        Ok(wal)
    }

    fn segment_and_next(&self, index: usize) -> Result<(&Segment, &Segment)> {
        let pair = self.segments.get(index).zip(self.segments.get(index + 1));
        pair.context("two segments")
    }

    fn verify(&self, name: SegmentName, bytes: &[u8], before: Option<Handover>) -> Result<SegmentSummary, Fault> {
        let mut verifier = SegmentVerifier::new(&self.format, name, None, before).with_hashing(Hashing::None);
        verifier.feed(bytes);
        verifier.finish().result
    }
}
