//! Whatever bytes an archive, pg_wal or the ledger holds: no panic, no large allocation, and the same verdict however the
//! bytes are cut.
//!
//! The first byte chooses what the rest is: raw bytes of a segment, or instructions for writing sound WAL (so that the fuzzer
//! gets past the CRCs) and then damaging it. There is no unsafe code to watch, so it runs without a sanitizer, several times
//! as fast; from crates/wal:
//!
//! ```text
//! cargo +nightly fuzz run -s none wal fuzz/corpus/wal fuzz/seeds -- -max_len=20000 -rss_limit_mb=256 -max_total_time=600
//! ```
#![no_main]

#[path = "../../tests/writer/mod.rs"]
mod writer;

use std::io::{self, Cursor};

use libfuzzer_sys::fuzz_target;
use wal::{
    BackupHistory, CommitScanner, Handover, Hashing, Lsn, Major, ScanError, ScanProgress, SegmentName, SegmentOutcome,
    SegmentSize, SegmentVerifier, Timeline, TimelineHistory, WalFileName, WalFormat, verify_reader,
};
use writer::Writer;

const FIRST: u64 = 3;
const MB: u64 = 1 << 20;

struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    fn u8(&mut self) -> u8 {
        let (first, rest) = self.0.split_first().unwrap_or((&0, &[]));
        self.0 = rest;
        *first
    }

    fn u16(&mut self) -> usize {
        usize::from(u16::from_le_bytes([self.u8(), self.u8()]))
    }

    fn u64(&mut self) -> u64 {
        u64::from_le_bytes(std::array::from_fn(|_| self.u8()))
    }

    fn bytes(&mut self, length: usize) -> &'a [u8] {
        let (bytes, rest) = self.0.split_at(length.min(self.0.len()));
        self.0 = rest;
        bytes
    }

    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

fuzz_target!(|data: &[u8]| {
    let mut input = Input(data);
    match input.u8() % 5 {
        0 => raw(input),
        1 | 2 => written(input),
        3 => scanned(input),
        _ => texts(input.0),
    }
});

/// Small pages, so that short inputs have many.
fn format(input: &mut Input<'_>) -> WalFormat {
    let choice = input.u8();
    let major = Major::ALL[usize::from(choice % 4)];
    let size = SegmentSize::new(MB as u32).unwrap();
    WalFormat::new(major, size, 0x0102_0304_0506_0708)
        .with_block_size(if choice & 4 == 0 { 1024 } else { 8192 })
        .unwrap()
}

fn history(input: &mut Input<'_>, timeline: u32) -> Option<TimelineHistory> {
    if input.u8() % 2 == 0 {
        return None;
    }
    let branch = Lsn(FIRST * MB + input.u16() as u64);
    TimelineHistory::parse(Timeline(timeline), format!("1\t{branch}\tfuzz\n")).ok()
}

/// Arbitrary bytes, under an arbitrary name, behind an arbitrary handover.
fn raw(mut input: Input<'_>) {
    let format = format(&mut input);
    let timeline = 1 + u32::from(input.u8() % 3);
    let history = history(&mut input, timeline);
    let mut name = SegmentName {
        timeline: Timeline(timeline),
        number: FIRST,
        size: format.segment_size,
    };
    if input.u8() == 0 {
        name = SegmentName::containing(Timeline(timeline), Lsn(input.u64()), format.segment_size);
    }
    let length = usize::from(input.u8());
    let handover = Handover::from_bytes(input.bytes(length)).ok();
    let outcome = verify(&format, name, history.as_ref(), handover.clone(), &[input.0]);
    let reread = SegmentVerifier::new(&format, name, history.as_ref(), handover).with_hashing(Hashing::None);
    assert_eq!(verify_reader(input.0, reread, &mut |_| {}), outcome);
}

/// Feeds the bytes, as one and cut, and compares.
fn verify(
    format: &WalFormat,
    name: SegmentName,
    history: Option<&TimelineHistory>,
    handover: Option<Handover>,
    parts: &[&[u8]],
) -> SegmentOutcome {
    let verifier = || SegmentVerifier::new(format, name, history, handover.clone()).with_hashing(Hashing::None);
    let mut whole = verifier();
    parts.iter().for_each(|part| whole.feed(part));
    let whole = whole.finish();
    let mut cut = verifier();
    let mut size = 1 + parts.iter().map(|part| part.len()).sum::<usize>() % 97;
    for part in parts {
        let mut rest = *part;
        while !rest.is_empty() {
            let (chunk, after) = rest.split_at(size.min(rest.len()));
            cut.feed(chunk);
            rest = after;
            size = size % 1031 * 7 + 1;
        }
    }
    assert_eq!(cut.finish(), whole);
    match &whole.result {
        Ok(summary) => {
            let bytes = summary.handover.to_bytes();
            assert!(bytes.len() < 256);
            assert_eq!(Handover::from_bytes(&bytes).as_ref(), Ok(&summary.handover));
            assert!(summary.end_of_data > name.start() && summary.end_of_data <= name.end());
            assert!(summary.commit_count <= summary.records);
        }
        Err(fault) => {
            assert!(fault.sentence.ends_with('.') && fault.sentence.len() < 1000, "{fault}");
            assert!(fault.offset <= whole.bytes.max(40), "{fault:?}");
        }
    }
    whole
}

/// Sound WAL of the input's choosing.
fn write(input: &mut Input<'_>, format: WalFormat) -> Writer {
    let mut writer = Writer::new(format, 1, FIRST);
    let records = input.u8() % 64;
    for _ in 0..records {
        if input.is_empty() {
            break;
        }
        match input.u8() % 16 {
            0 => drop(writer.commit(input.u64() as i64)),
            1 => drop(writer.commit_from(input.u64() as i64, input.u16() as u16)),
            2 => drop(writer.restore_point(input.u64() as i64, &String::from_utf8_lossy(input.bytes(20)))),
            3 => {
                let room = writer.room_in_page();
                let body = vec![7; room + 3 * format.block_size() as usize + input.u16()];
                writer.abandoned(&body, 1 + usize::from(input.u8() % 3));
            }
            4 => writer.removable = !writer.removable,
            5 if writer.timeline == Timeline(1) => writer.timeline = Timeline(2),
            6 => drop(writer.record(writer::HEAP, 0, &vec![9; input.u16()])),
            7 => {
                // Up to the last bytes of the page.
                let room = writer.room_in_page();
                let left = usize::from(input.u8() % 16) * 8;
                writer.record(writer::HEAP, 0, &vec![1; room.saturating_sub(24 + left)]);
            }
            8 if writer.bytes().len() < MB as usize && input.u8() % 4 == 0 => drop(writer.switch()),
            9 if writer.bytes().len() < MB as usize && input.u8() % 4 == 0 => {
                // Up to the last bytes of the segment.
                let payload =
                    |bytes: u64| bytes / u64::from(format.block_size()) * (u64::from(format.block_size()) - 24);
                let room = payload(writer.room_in_segment() as u64) as usize;
                let left = usize::from(input.u8()) * 8;
                writer.record(writer::HEAP, 0, &vec![1; room.saturating_sub(2000 + left)]);
            }
            kind => {
                let info = input.u8();
                let length = input.u16() % 300;
                let body = input.bytes(length);
                let manager = [writer::XLOG, writer::XACT, writer::HEAP, 200][usize::from(kind % 4)];
                // A switch has to be written as one.
                let info = if manager == writer::XLOG && info & 0xF0 == writer::SWITCH {
                    0
                } else {
                    info
                };
                writer.record(manager, info, body);
            }
        }
    }
    writer
}

/// Sound WAL is sound; damaged WAL is judged the same however it is cut.
fn written(mut input: Input<'_>) {
    let format = format(&mut input);
    let full = input.u8();
    let mut writer = write(&mut input, format);
    // A whole segment takes its time.
    if full % 8 == 0 {
        writer.switch();
    }
    let timeline = writer.timeline;
    let mut bytes = writer.bytes().to_vec();
    let damaged = !input.is_empty();
    while !input.is_empty() {
        // Mostly where the records are, and sometimes values that look right.
        let at = (input.u16() | usize::from(input.u8() & 0x1F) << 16) % bytes.len().max(1);
        let with: &[u8] = match input.u8() % 8 {
            0 => &[0; 4],
            1 => &[0xFF; 4],
            2 => &[0, 0, 0, 0x30],
            _ => input.bytes(2),
        };
        for (place, with) in bytes.iter_mut().skip(at).zip(with) {
            *place = *with;
        }
    }
    let mut handover = None;
    for (number, segment) in (FIRST..).zip(bytes.chunks(MB as usize)) {
        let name = SegmentName {
            timeline,
            number,
            size: format.segment_size,
        };
        let outcome = verify(&format, name, None, handover.take(), &[segment]);
        match outcome.result {
            Ok(summary) => handover = Some(summary.handover),
            Err(fault) => assert!(damaged || segment.len() < MB as usize, "{fault}"),
        }
    }
}

/// Scans of live WAL from anywhere to anywhere, sound or not.
fn scanned(mut input: Input<'_>) {
    let format = format(&mut input);
    let writer = write(&mut input, format);
    let mut bytes = writer.bytes().to_vec();
    let start = FIRST * MB;
    let from = Lsn(start + (input.u16() as u64 | u64::from(input.u8() & 0x1F) << 16));
    let budget = if input.u8() & 1 == 0 {
        u64::MAX
    } else {
        1 + input.u16() as u64 * 8
    };
    let damaged = !input.is_empty();
    while !input.is_empty() {
        let at = input.u16() % bytes.len().max(1);
        for (place, with) in bytes.iter_mut().skip(at).zip(input.bytes(2)) {
            *place = *with;
        }
    }
    let mut scanner = CommitScanner::new(&format, from);
    let mut open = |number: u64| {
        let at = number.checked_sub(FIRST).ok_or(io::ErrorKind::NotFound)? * MB;
        let rest = bytes.get(at as usize..).ok_or(io::ErrorKind::NotFound)?;
        Ok(Cursor::new(&rest[..rest.len().min(MB as usize)]))
    };
    let end = writer.position();
    let mut reached = from;
    for _ in 0..100 {
        match scanner.advance(end, budget, &mut open) {
            Ok(ScanProgress::Found(commit)) => {
                assert!(
                    commit.end > from && commit.end <= end && commit.lsn < commit.end && commit.origin != Some(0xFFFF)
                );
                break;
            }
            Ok(ScanProgress::UpTo { lsn, more }) => {
                assert!(lsn >= reached);
                reached = lsn;
                if !more {
                    assert!(
                        damaged || from >= end || reached == end || scanner.unseen_head(),
                        "{reached} of {end}"
                    );
                    break;
                }
            }
            Err(ScanError::Fault(fault)) => {
                assert!(damaged, "{fault}");
                break;
            }
            Err(ScanError::Io { .. }) => break,
        }
    }
}

/// Names, history files, backup history files and handovers.
fn texts(data: &[u8]) {
    if let Ok(history) = TimelineHistory::parse(Timeline(u32::MAX), data) {
        for entry in history.entries() {
            assert!(history.contains(history.timeline_of(entry.switch_lsn)));
            assert!(history.as_of(entry.timeline).is_some());
        }
    }
    if let Ok(backup) = BackupHistory::parse(data) {
        assert!(!backup.label.contains('\0'));
    }
    if let Ok(handover) = Handover::from_bytes(data) {
        assert_eq!(handover.to_bytes(), data);
    }
    if let Ok(text) = std::str::from_utf8(data) {
        if let Ok(lsn) = text.parse::<Lsn>() {
            assert_eq!(lsn.to_string().parse(), Ok(lsn));
        }
        for size in [SegmentSize::DEFAULT, SegmentSize::new(1 << 30).unwrap()] {
            if let Some(WalFileName::Segment(name)) = WalFileName::classify(text, size) {
                assert_eq!(name.to_string(), text);
            }
        }
    }
}
