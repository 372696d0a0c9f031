//! What is wrong with a file as a whole, or with its pages, is called by its name: size, place, cluster, version, timeline.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]

mod damage;
mod writer;

use std::io;

use damage::{MB, SYSTEM, assert_fault, bench, bench_of, fault_in, format, put};
use wal::{
    Lsn, Major, Problem, SegmentName, SegmentSize, SegmentVerifier, Status, Timeline, TimelineHistory, WalFormat,
    verify_reader,
};
use writer::Writer;

#[test]
fn an_empty_file_is_empty() {
    let bench = bench();
    assert_fault(
        &fault_in(bench.name, &[], None),
        Problem::Empty,
        bench.name.start(),
        &["empty", "1048576"],
    );
}

#[test]
fn a_file_that_was_cut_is_truncated_wherever_it_was_cut() {
    let bench = bench();
    for length in [1, 23, 24, 39, 40, 41, 8191, 8192, 8200, 500_000, MB - 1] {
        let fault = fault_in(bench.name, &bench.bytes[..length], None);
        let end = Lsn(bench.name.start().0 + length as u64);
        assert_fault(
            &fault,
            Problem::Truncated,
            end,
            &[&format!("byte {length}"), &end.to_string(), "1048576"],
        );
        assert_eq!(fault.offset, length as u64);
    }
}

#[test]
fn a_file_that_goes_on_is_oversized() {
    let bench = bench();
    for more in [1, 8192, MB] {
        let mut bytes = bench.bytes.clone();
        bytes.resize(MB + more, 7);
        let fault = fault_in(bench.name, &bytes, None);
        assert_fault(&fault, Problem::Oversized, bench.name.end(), &["1048576"]);
        assert_eq!(fault.offset, MB as u64);
    }
}

#[test]
fn an_endless_stream_is_oversized_after_little_more_than_a_segment() {
    let bench = bench();
    let verifier = SegmentVerifier::new(&format(), bench.name, None, None);
    let outcome = verify_reader(io::repeat(1), verifier, &mut |_| {});
    assert_eq!(outcome.result.unwrap_err().problem, Problem::Oversized);
    assert!(outcome.bytes <= 2 * MB as u64);
}

#[test]
fn a_file_of_zeros_is_zeroed_only_when_its_size_is_right() {
    let bench = bench();
    assert_fault(
        &fault_in(bench.name, &vec![0; MB], None),
        Problem::Zeroed,
        bench.name.start(),
        &["All 1048576 bytes"],
    );
    assert_eq!(fault_in(bench.name, &vec![0; MB - 1], None).problem, Problem::Truncated);
    assert_eq!(fault_in(bench.name, &vec![0; MB + 1], None).problem, Problem::Oversized);
    let mut bytes = vec![0; MB];
    bytes[MB - 1] = 1;
    assert_eq!(fault_in(bench.name, &bytes, None).problem, Problem::BadPageHeader);
}

#[test]
fn a_read_error_makes_the_file_unreadable_and_says_why() {
    struct Failing(usize);
    impl io::Read for Failing {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            if self.0 == 0 {
                return Err(io::Error::other("the disk is on fire"));
            }
            self.0 -= 1;
            Ok(buffer.len())
        }
    }
    let bench = bench();
    let verifier = SegmentVerifier::new(&format(), bench.name, None, None);
    let fault = verify_reader(Failing(1), verifier, &mut |_| {}).result.unwrap_err();
    assert_eq!(fault.problem, Problem::Unreadable);
    assert!(fault.sentence.contains("the disk is on fire"), "{fault}");
    assert!(fault.offset > 0);
}

#[test]
fn every_bit_of_every_page_header_is_checked_but_the_one_that_means_nothing() {
    let bench = bench();
    for page in [0, 1, 2, 50, 127] {
        for bit in 0..if page == 0 { 320 } else { 192 } {
            // XLP_BKP_REMOVABLE
            if bit == 18 {
                continue;
            }
            let mut bytes = bench.bytes.clone();
            bytes[page * 8192 + bit / 8] ^= 1 << (bit % 8);
            let fault = fault_in(bench.name, &bytes, None);
            let expected = if (64..128).contains(&bit) {
                Problem::BadPageAddress
            } else {
                Problem::BadPageHeader
            };
            assert_fault(&fault, expected, Lsn(bench.name.start().0 + page as u64 * 8192), &[]);
            assert_eq!(fault.offset, page as u64 * 8192);
        }
    }
}

#[test]
fn another_segment_under_this_name_is_the_wrong_segment() {
    let bench = bench();
    let fault = fault_in(bench.next, &bench.bytes, None);
    assert_fault(
        &fault,
        Problem::WrongSegment,
        bench.next.start(),
        &[&bench.name.to_string(), &bench.name.start().to_string()],
    );
    assert_eq!(fault.problem.status(), Status::Foreign);
    // Also when it was cut: what it is explains more than how long it is.
    assert_eq!(
        fault_in(bench.next, &bench.bytes[..100_000], None).problem,
        Problem::WrongSegment
    );
}

#[test]
fn a_page_of_another_place_within_the_segment_is_a_bad_address() {
    let bench = bench();
    let mut bytes = bench.bytes.clone();
    bytes.copy_within(40 * 8192..41 * 8192, 60 * 8192);
    let at = Lsn(bench.name.start().0 + 60 * 8192);
    let found = Lsn(bench.name.start().0 + 40 * 8192);
    assert_fault(
        &fault_in(bench.name, &bytes, None),
        Problem::BadPageAddress,
        at,
        &[&found.to_string()],
    );
    // The first page alone of another segment, too.
    let mut bytes = bench.bytes.clone();
    bytes[..8192].copy_from_slice(&bench.next_bytes[..8192]);
    assert_eq!(fault_in(bench.name, &bytes, None).problem, Problem::BadPageAddress);
}

#[test]
fn the_same_name_of_another_cluster_is_a_foreign_system() {
    let other = bench_of(WalFormat::new(Major::V18, format().segment_size, 0x1234_5678_9ABC_DEF0));
    let fault = fault_in(other.name, &other.bytes, None);
    let words = [0x1234_5678_9ABC_DEF0_u64.to_string(), SYSTEM.to_string()];
    assert_fault(
        &fault,
        Problem::ForeignSystem,
        other.name.start(),
        &[&words[0], &words[1]],
    );
    for length in [40, 100_000] {
        assert_eq!(
            fault_in(other.name, &other.bytes[..length], None).problem,
            Problem::ForeignSystem
        );
    }
    assert_eq!(
        fault_in(other.name, &other.bytes[..39], None).problem,
        Problem::Truncated
    );
}

#[test]
fn segments_of_another_size_are_told_by_their_header() {
    let other = bench_of(WalFormat::new(Major::V18, SegmentSize::new(2 << 20).unwrap(), SYSTEM));
    let name = SegmentName::containing(Timeline(1), other.name.start(), format().segment_size);
    assert_fault(
        &fault_in(name, &other.bytes, None),
        Problem::WrongSegmentSize,
        name.start(),
        &["2097152", "1048576"],
    );
}

#[test]
fn pages_of_another_block_size_are_of_another_system() {
    let other = bench_of(format().with_block_size(16384).unwrap());
    let fault = fault_in(other.name, &other.bytes, None);
    assert_fault(&fault, Problem::ForeignSystem, other.name.start(), &["16384", "8192"]);
}

#[test]
fn another_majors_wal_is_the_wrong_version() {
    for (major, word) in [(Major::V15, "PostgreSQL 15"), (Major::V17, "PostgreSQL 17")] {
        let other = bench_of(WalFormat::new(major, format().segment_size, 5));
        assert_fault(
            &fault_in(other.name, &other.bytes, None),
            Problem::WrongVersion,
            other.name.start(),
            &[word, "PostgreSQL 18"],
        );
    }
    // 15 and 18 are one bit apart: a page alone is damaged.
    let bench = bench();
    let mut bytes = bench.bytes.clone();
    put(&mut bytes, 0, &0xD110_u16.to_ne_bytes());
    assert_eq!(fault_in(bench.name, &bytes, None).problem, Problem::BadPageHeader);
}

#[test]
fn pages_of_a_timeline_that_is_not_on_the_history_are_foreign() {
    let mut writer = Writer::new(format(), 3, 3);
    writer.fill(1, false);
    let (_, bytes) = writer.segments().remove(0);
    let name = SegmentName {
        timeline: Timeline(5),
        ..writer.segments()[0].0
    };
    let history = TimelineHistory::parse(Timeline(5), "1\t0/100000\tx\n4\t0/2000000\tx\n").unwrap();
    let mut verifier = SegmentVerifier::new(&format(), name, Some(&history), None);
    verifier.feed(&bytes);
    assert_fault(
        &verifier.finish().result.unwrap_err(),
        Problem::ForeignTimeline,
        name.start(),
        &["timeline 3", "timeline 4"],
    );
    // The file's own timeline is not on the history.
    let name = writer.segments()[0].0;
    let mut verifier = SegmentVerifier::new(&format(), name, Some(&history), None);
    verifier.feed(&bytes);
    assert_fault(
        &verifier.finish().result.unwrap_err(),
        Problem::ForeignTimeline,
        name.start(),
        &["timeline 3", "timeline 5"],
    );
    // Nothing is known but that ancestors have lower numbers.
    let name = SegmentName {
        timeline: Timeline(2),
        ..name
    };
    let mut verifier = SegmentVerifier::new(&format(), name, None, None);
    verifier.feed(&bytes);
    assert_eq!(verifier.finish().result.unwrap_err().problem, Problem::ForeignTimeline);
}

#[test]
fn a_segment_that_branched_off_elsewhere_is_foreign_from_there_on() {
    let mut writer = Writer::new(format(), 1, 3);
    while writer.position().0 % MB as u64 <= 300_000 {
        writer.commit(1);
    }
    let branch = writer.position();
    writer.timeline = Timeline(2);
    writer.fill(2, false);
    let (name, bytes) = writer.segments().remove(0);
    let later = Lsn(branch.0 + 200_000);
    let history = TimelineHistory::parse(Timeline(2), format!("1\t{later}\tx\n")).unwrap();
    let mut verifier = SegmentVerifier::new(&format(), name, Some(&history), None);
    verifier.feed(&bytes);
    let page = Lsn(branch.0.next_multiple_of(8192));
    assert_fault(
        &verifier.finish().result.unwrap_err(),
        Problem::ForeignTimeline,
        page,
        &["timeline 2", "timeline 1"],
    );
}

#[test]
fn a_page_that_goes_back_to_an_older_timeline_is_damaged() {
    let mut writer = Writer::new(format(), 2, 3);
    writer.fill(1, false);
    let (name, mut bytes) = writer.segments().remove(0);
    put(&mut bytes, 20 * 8192 + 4, &1_u32.to_ne_bytes());
    let fault = fault_in(name, &bytes, None);
    assert_fault(
        &fault,
        Problem::BadPageHeader,
        Lsn(name.start().0 + 20 * 8192),
        &["timeline 1", "timeline 2"],
    );
}

#[test]
fn a_first_page_that_wrongly_tells_of_a_record_given_up_is_damaged() {
    let mut writer = Writer::new(format(), 1, 3);
    writer.fill(1, false);
    let (name, mut bytes) = writer.segments().remove(0);
    bytes[2] |= 8;
    assert_fault(
        &fault_in(name, &bytes, None),
        Problem::BadPageHeader,
        name.start(),
        &["given up"],
    );
}
