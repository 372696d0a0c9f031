//! The scan for the first commit that would be lost.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]

mod writer;

use std::cell::Cell;
use std::io::{self, Cursor};

use wal::{
    Commit, CommitScanner, Lsn, Major, PgTimestamp, ScanError, ScanProgress, SegmentSize, WalFormat,
    ends_with_shutdown, scan_commits,
};
use writer::{HEAP, Writer};

const FIRST: u64 = 3;
const ALL: u64 = u64::MAX;

fn format() -> WalFormat {
    WalFormat::new(Major::V16, SegmentSize::new(1 << 20).unwrap(), 11)
}

fn writer() -> Writer {
    Writer::new(format(), 1, FIRST)
}

/// Live WAL: a segment's file has its full size from the start, and old contents where nothing has been written yet.
fn open(writer: &Writer) -> impl FnMut(u64) -> io::Result<Cursor<Vec<u8>>> + '_ {
    |number| {
        let at = (number.checked_sub(FIRST).ok_or(io::ErrorKind::NotFound)? << 20) as usize;
        let rest = writer.bytes().get(at..).ok_or(io::ErrorKind::NotFound)?;
        let mut segment = rest[..rest.len().min(1 << 20)].to_vec();
        segment.resize(1 << 20, 0xEE);
        Ok(Cursor::new(segment))
    }
}

fn scan(writer: &Writer, from: Lsn, to: Lsn) -> ScanProgress {
    scan_commits(&format(), from, to, ALL, &mut open(writer)).unwrap()
}

#[track_caller]
fn found(progress: ScanProgress) -> Commit {
    match progress {
        ScanProgress::Found(commit) => commit,
        ScanProgress::UpTo { .. } => panic!("{progress:?}"),
    }
}

#[test]
fn the_first_commit_behind_every_position_is_found() {
    let mut writer = writer();
    let mut ends = Vec::new();
    let mut random = writer::Random(77);
    while writer.position().0 < (FIRST << 20) + (1 << 20) + 40_000 {
        writer.record(HEAP, 0, &random.bytes((random.0 % 12_000) as usize));
        let at = random.next() as i64 >> 8;
        writer.commit(at);
        ends.push((writer.position(), at));
    }
    let to = writer.position();
    let mut from = Lsn(FIRST << 20);
    while from < to {
        let (end, at) = *ends.iter().find(|(end, _)| *end > from).unwrap();
        let commit = found(scan(&writer, from, to));
        assert_eq!((commit.end, commit.at), (end, Some(PgTimestamp(at))), "from {from}");
        from = Lsn(from.0 + 1 + random.next() % 700);
    }
}

#[test]
fn nothing_behind_the_last_commit_is_nothing() {
    let mut writer = writer();
    writer.commit(1);
    let from = writer.position();
    assert_eq!(scan(&writer, from, from), ScanProgress::UpTo { lsn: from, more: false });
    writer.record(HEAP, 0, &[1; 40_000]);
    let to = writer.position();
    assert_eq!(scan(&writer, from, to), ScanProgress::UpTo { lsn: to, more: false });
}

#[test]
fn a_commit_that_is_not_whole_yet_is_not_found_until_it_is() {
    let mut writer = writer();
    writer.commit(1);
    let from = writer.position();
    let commit = writer.commit(2);
    let mut scanner = CommitScanner::new(&format(), from);
    for to in commit.0 + 1..writer.position().0 {
        let progress = scanner.advance(Lsn(to), ALL, &mut open(&writer)).unwrap();
        assert_eq!(progress, ScanProgress::UpTo { lsn: from, more: false });
    }
    let progress = scanner.advance(writer.position(), ALL, &mut open(&writer)).unwrap();
    assert_eq!(found(progress).lsn, commit);
    // And it stays the answer.
    assert_eq!(
        scanner.advance(writer.position(), ALL, &mut open(&writer)).unwrap(),
        progress
    );
}

#[test]
fn a_commit_that_spans_the_protected_end_counts() {
    for room in [8_usize, 16, 24, 32] {
        let mut writer = writer();
        writer.commit(1);
        let used = (writer.position().0 % (1 << 20)) as usize;
        writer.record(HEAP, 0, &vec![1; (1 << 20) - 127 * 24 - used - 24 - room]);
        assert_eq!(writer.room_in_page(), room);
        let commit = writer.commit(2);
        let protected = Lsn((FIRST + 1) << 20);
        assert!(commit < protected && writer.position() > protected);
        assert_eq!(found(scan(&writer, protected, writer.position())).lsn, commit);
        // With the segment before gone, it cannot be known, and that is told.
        let mut scanner = CommitScanner::new(&format(), protected);
        let mut live = open(&writer);
        let progress = scanner.advance(writer.position(), ALL, &mut |number| {
            if number == FIRST {
                Err(io::ErrorKind::NotFound.into())
            } else {
                live(number)
            }
        });
        assert!(matches!(progress.unwrap(), ScanProgress::UpTo { more: false, .. }));
        assert!(scanner.unseen_head());
    }
}

#[test]
fn a_long_record_that_covers_the_start_is_read_from_its_beginning() {
    let mut writer = writer();
    writer.commit(1);
    writer.record(HEAP, 0, &writer::Random(4).bytes(1_500_000));
    let commit = writer.commit(2);
    let mut scanner = CommitScanner::new(&format(), Lsn(((FIRST + 1) << 20) + 5000));
    assert_eq!(
        found(scanner.advance(writer.position(), ALL, &mut open(&writer)).unwrap()).lsn,
        commit
    );
    assert!(!scanner.unseen_head());
}

#[test]
fn bookkeeping_of_our_own_does_not_count() {
    let mut writer = writer();
    let from = Lsn(FIRST << 20);
    writer.commit_from(1, 0xFFFF);
    writer.commit_from(2, 0xFFFF);
    let to = writer.position();
    assert_eq!(scan(&writer, from, to), ScanProgress::UpTo { lsn: to, more: false });
    writer.commit_from(3, 4);
    let commit = found(scan(&writer, from, writer.position()));
    assert_eq!((commit.at, commit.origin), (Some(PgTimestamp(3)), Some(4)));
}

#[test]
fn padding_behind_a_switch_is_passed_without_reading() {
    let mut writer = writer();
    writer.commit(1);
    let from = writer.position();
    let switch = writer.switch();
    let flushed = writer.position();
    assert_eq!(
        scan(&writer, from, flushed),
        ScanProgress::UpTo {
            lsn: flushed,
            more: false
        }
    );
    let commit = writer.commit(2);
    for from in [from, switch, Lsn(switch.0 + 24), Lsn(switch.0 + 30_000), flushed] {
        assert_eq!(found(scan(&writer, from, writer.position())).lsn, commit, "from {from}");
    }
}

#[test]
fn a_scan_goes_on_where_its_budget_ended_it() {
    let mut writer = writer();
    writer.commit(1);
    let from = writer.position();
    // Longer than the budget: no progress would be made by starting anew.
    writer.record(HEAP, 0, &vec![3; 900_000]);
    let commit = writer.commit(2);
    let mut scanner = CommitScanner::new(&format(), from);
    let opened = Cell::new(0);
    for calls in 1.. {
        let mut live = open(&writer);
        let progress = scanner.advance(writer.position(), 50_000, &mut |number| {
            opened.set(opened.get() + 1);
            live(number)
        });
        match progress.unwrap() {
            ScanProgress::Found(found) => {
                assert_eq!(found.lsn, commit);
                assert!((18..25).contains(&calls), "{calls}");
                break;
            }
            ScanProgress::UpTo { lsn, more } => assert!(lsn == from && more),
        }
    }
}

#[test]
fn a_new_scan_can_start_where_another_ended() {
    let mut writer = writer();
    let mut from = writer.position();
    let mut random = writer::Random(3);
    for at in 0..200 {
        writer.record(HEAP, 0, &random.bytes((random.0 % 9_000) as usize));
        let to = writer.position();
        let ScanProgress::UpTo { lsn, more: false } = scan(&writer, from, Lsn(to.0 - random.0 % 30)) else {
            panic!("none yet")
        };
        assert!(lsn >= from);
        from = lsn;
        writer.commit(at);
        let commit = found(scan(&writer, from, writer.position()));
        assert_eq!(commit.at, Some(PgTimestamp(at)));
        from = commit.end;
    }
}

#[test]
fn damaged_wal_is_an_error_that_says_where() {
    let mut writer = writer();
    writer.commit(1);
    let start = writer.record(HEAP, 0, &[1; 100]);
    writer.commit(2);
    let from = start;
    let mut bytes = writer.bytes().to_vec();
    bytes[start.0 as usize % (1 << 20) + 50] ^= 1;
    let error = scan_commits(&format(), from, writer.position(), ALL, &mut |_| {
        Ok(Cursor::new(bytes.clone()))
    })
    .unwrap_err();
    assert!(
        matches!(&error, ScanError::Fault(fault) if fault.lsn == start),
        "{error}"
    );
    assert!(error.to_string().contains(&start.to_string()), "{error}");
}

#[test]
fn a_segment_that_cannot_be_opened_is_an_error_that_says_where() {
    let mut writer = writer();
    writer.commit(1);
    let mut gone = |_| Err::<Cursor<Vec<u8>>, _>(io::Error::from(io::ErrorKind::PermissionDenied));
    let error = scan_commits(&format(), Lsn(FIRST << 20), writer.position(), ALL, &mut gone).unwrap_err();
    assert!(matches!(error, ScanError::Io { .. }));
    assert!(error.to_string().contains("0/300000"), "{error}");
}

#[test]
fn a_scan_reads_little_behind_the_commit_that_it_finds() {
    struct Counted<'a>(Cursor<Vec<u8>>, &'a Cell<usize>);
    impl io::Read for Counted<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let length = self.0.read(buffer)?;
            self.1.set(self.1.get() + length);
            Ok(length)
        }
    }
    impl io::Seek for Counted<'_> {
        fn seek(&mut self, to: io::SeekFrom) -> io::Result<u64> {
            self.0.seek(to)
        }
    }
    let mut writer = writer();
    let commit = writer.commit(1);
    writer.fill(1, true);
    let count = Cell::new(0);
    let mut live = open(&writer);
    let mut open = |number| live(number).map(|segment| Counted(segment, &count));
    let progress = scan_commits(&format(), Lsn(FIRST << 20), writer.position(), ALL, &mut open).unwrap();
    assert_eq!(found(progress).lsn, commit);
    assert!(count.get() < 20_000, "{}", count.get());
}

#[test]
fn damage_behind_the_commit_does_not_hide_it() {
    let mut writer = writer();
    let commit = writer.commit(1);
    let start = writer.record(HEAP, 0, &[1; 100]);
    writer.commit(2);
    let mut bytes = writer.bytes().to_vec();
    bytes[start.0 as usize % (1 << 20) + 50] ^= 1;
    let mut scanner = CommitScanner::new(&format(), Lsn(FIRST << 20));
    let progress = scanner
        .advance(writer.position(), ALL, &mut |_| Ok(Cursor::new(bytes.clone())))
        .unwrap();
    assert_eq!(found(progress).lsn, commit);
}

#[test]
fn a_failed_scan_can_be_tried_again() {
    let mut writer = writer();
    writer.commit(1);
    let from = writer.position();
    writer.record(HEAP, 0, &[1; 100]);
    let commit = writer.commit(2);
    let mut damaged = writer.bytes().to_vec();
    damaged[from.0 as usize % (1 << 20) + 50] ^= 1;
    let mut scanner = CommitScanner::new(&format(), from);
    let to = writer.position();
    for _ in 0..2 {
        let error = scanner
            .advance(to, ALL, &mut |_| Ok(Cursor::new(damaged.clone())))
            .unwrap_err();
        assert!(matches!(error, ScanError::Fault(_)), "{error}");
        let error = scanner
            .advance(to, ALL, &mut |_| {
                Err::<Cursor<Vec<u8>>, _>(io::ErrorKind::NotFound.into())
            })
            .unwrap_err();
        assert!(matches!(error, ScanError::Io { .. }), "{error}");
    }
    assert_eq!(found(scanner.advance(to, ALL, &mut open(&writer)).unwrap()).lsn, commit);
}

#[test]
fn the_end_of_a_server_that_was_shut_down_is_known_wherever_it_lies() {
    const SHUTDOWN: u8 = 0x00;
    const ONLINE: u8 = 0x10;
    let mut writer = writer();
    let mut random = writer::Random(5);
    let mut ends = Vec::new();
    while writer.position().0 < (FIRST << 20) + (1 << 20) + 40_000 {
        writer.record(HEAP, 0, &random.bytes((random.0 % 9_000) as usize));
        ends.push((writer.position(), false));
        let is_shutdown = random.next().is_multiple_of(2);
        let info = if is_shutdown { SHUTDOWN } else { ONLINE };
        writer.record(writer::XLOG, info, &writer::main_data(&random.bytes(88)));
        ends.push((writer.position(), is_shutdown));
    }
    for (end, is_shutdown) in ends {
        let told = ends_with_shutdown(&format(), end, &mut open(&writer)).unwrap();
        assert_eq!(told, is_shutdown, "{end}");
    }
    assert!(!ends_with_shutdown(&format(), Lsn(FIRST << 20), &mut open(&writer)).unwrap_or(false));
}
