//! Two segments full of records to be damaged, and what is asked of the fault that is found then.
#![allow(dead_code, clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]

use wal::{Fault, Handover, Lsn, Major, Problem, SegmentName, SegmentSize, SegmentVerifier, WalFormat};

use crate::writer::Writer;

pub const MB: usize = 1 << 20;
pub const SYSTEM: u64 = 0x6A5B_4C3D_2E1F_0001;

pub fn format() -> WalFormat {
    WalFormat::new(Major::V18, SegmentSize::new(1 << 20).unwrap(), SYSTEM)
}

/// Two segments full of records; one spans from the first to the second.
pub struct Bench {
    pub writer: Writer,
    pub name: SegmentName,
    pub bytes: Vec<u8>,
    pub next: SegmentName,
    pub next_bytes: Vec<u8>,
}

pub fn bench() -> Bench {
    bench_of(format())
}

pub fn bench_of(format: WalFormat) -> Bench {
    let mut writer = Writer::new(format, 1, 3);
    writer.fill(7, true);
    writer.fill(8, false);
    let mut segments = writer.segments().into_iter();
    let ((name, bytes), (next, next_bytes)) = (segments.next().unwrap(), segments.next().unwrap());
    Bench {
        writer,
        name,
        bytes,
        next,
        next_bytes,
    }
}

pub fn fault_in(name: SegmentName, bytes: &[u8], handover: Option<Handover>) -> Fault {
    let mut verifier = SegmentVerifier::new(&format(), name, None, handover);
    for chunk in bytes.chunks(100_000) {
        verifier.feed(chunk);
    }
    let outcome = verifier.finish();
    assert_eq!(outcome.bytes, bytes.len() as u64);
    outcome.result.unwrap_err()
}

pub fn handover(name: SegmentName, bytes: &[u8]) -> Handover {
    let mut verifier = SegmentVerifier::new(&format(), name, None, None);
    verifier.feed(bytes);
    verifier.finish().result.unwrap().handover
}

/// A record in mid-segment that lies within one page, has a successor there, and is not the segment's first.
pub fn inner_record(bench: &Bench) -> Lsn {
    let starts = &bench.writer.starts;
    let at = (40..starts.len())
        .find(|at| starts[*at].0 / 8192 == starts[at + 1].0 / 8192 && starts[at + 1].0 - starts[*at].0 > 40);
    starts[at.unwrap()]
}

/// A record that goes on in the next page and ends there.
pub fn spanning_record(bench: &Bench) -> Lsn {
    let starts = &bench.writer.starts;
    let at = (40..starts.len())
        .find(|at| starts[*at].0 / 8192 + 1 == starts[at + 1].0 / 8192 && starts[*at].0 % 8192 < 8000);
    starts[at.unwrap()]
}

pub fn offset(lsn: Lsn) -> usize {
    lsn.0 as usize % MB
}

pub fn put(bytes: &mut [u8], at: usize, value: &[u8]) {
    bytes[at..at + value.len()].copy_from_slice(value);
}

#[track_caller]
pub fn assert_fault(fault: &Fault, problem: Problem, lsn: Lsn, words: &[&str]) {
    assert_eq!(fault.problem, problem, "{fault}");
    assert_eq!(fault.lsn, lsn, "{fault}");
    assert!(
        fault.sentence.ends_with('.') && fault.sentence.starts_with(char::is_uppercase),
        "{fault}"
    );
    for word in words {
        assert!(fault.sentence.contains(word), "{word:?} in {fault}");
    }
}

pub fn verify(name: SegmentName, bytes: &[u8]) -> Result<(), Fault> {
    let mut verifier = SegmentVerifier::new(&format(), name, None, None);
    verifier.feed(bytes);
    verifier.finish().result.map(|_| ())
}
