//! Every kind of fault is called by its name, with the place and what was expected.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]

mod writer;

use std::io;

use wal::{
    Fault, Handover, Lsn, Major, Problem, SegmentName, SegmentSize, SegmentVerifier, Status, Timeline, TimelineHistory,
    WalFormat, verify_reader,
};
use writer::{HEAP, Writer};

const MB: usize = 1 << 20;
const SYSTEM: u64 = 0x6A5B_4C3D_2E1F_0001;

fn format() -> WalFormat {
    WalFormat::new(Major::V18, SegmentSize::new(1 << 20).unwrap(), SYSTEM)
}

/// Two segments full of records; one spans from the first to the second.
struct Bench {
    writer: Writer,
    name: SegmentName,
    bytes: Vec<u8>,
    next: SegmentName,
    next_bytes: Vec<u8>,
}

fn bench() -> Bench {
    bench_of(format())
}

fn bench_of(format: WalFormat) -> Bench {
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

fn fault_in(name: SegmentName, bytes: &[u8], handover: Option<Handover>) -> Fault {
    let mut verifier = SegmentVerifier::new(&format(), name, None, handover);
    for chunk in bytes.chunks(100_000) {
        verifier.feed(chunk);
    }
    let outcome = verifier.finish();
    assert_eq!(outcome.bytes, bytes.len() as u64);
    outcome.result.unwrap_err()
}

fn handover(name: SegmentName, bytes: &[u8]) -> Handover {
    let mut verifier = SegmentVerifier::new(&format(), name, None, None);
    verifier.feed(bytes);
    verifier.finish().result.unwrap().handover
}

/// A record in mid-segment that lies within one page, has a successor there, and is not the segment's first.
fn inner_record(bench: &Bench) -> Lsn {
    let starts = &bench.writer.starts;
    let at = (40..starts.len())
        .find(|at| starts[*at].0 / 8192 == starts[at + 1].0 / 8192 && starts[at + 1].0 - starts[*at].0 > 40);
    starts[at.unwrap()]
}

/// A record that goes on in the next page and ends there.
fn spanning_record(bench: &Bench) -> Lsn {
    let starts = &bench.writer.starts;
    let at = (40..starts.len())
        .find(|at| starts[*at].0 / 8192 + 1 == starts[at + 1].0 / 8192 && starts[*at].0 % 8192 < 8000);
    starts[at.unwrap()]
}

fn offset(lsn: Lsn) -> usize {
    lsn.0 as usize % MB
}

fn put(bytes: &mut [u8], at: usize, value: &[u8]) {
    bytes[at..at + value.len()].copy_from_slice(value);
}

#[track_caller]
fn assert_fault(fault: &Fault, problem: Problem, lsn: Lsn, words: &[&str]) {
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
fn a_tail_of_zeros_is_a_record_length_or_a_page_header() {
    let bench = bench();
    let start = inner_record(&bench);
    let mut bytes = bench.bytes.clone();
    bytes[offset(start)..].fill(0);
    assert_fault(
        &fault_in(bench.name, &bytes, None),
        Problem::BadRecordLength,
        start,
        &["length 0", "24"],
    );
    let mut bytes = bench.bytes.clone();
    bytes[500 * 1024..].fill(0);
    let page = Lsn(bench.name.start().0 + 57 * 8192);
    assert!(fault_in(bench.name, &bytes, None).lsn.0 > page.0);
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
fn a_damaged_record_body_is_a_crc_with_its_lsn() {
    let bench = bench();
    let start = inner_record(&bench);
    let mut bytes = bench.bytes.clone();
    bytes[offset(start) + 30] ^= 0x10;
    let fault = fault_in(bench.name, &bytes, None);
    assert_fault(
        &fault,
        Problem::BadRecordCrc,
        start,
        &["CRC-32C", &start.to_string(), &format!("byte {}", offset(start))],
    );
    assert_eq!(fault.offset, offset(start) as u64);
}

#[test]
fn a_damaged_record_header_is_a_crc_where_nothing_else_tells() {
    let bench = bench();
    let start = inner_record(&bench);
    // xl_xid, xl_info, the padding, xl_crc.
    for at in [4, 16, 18, 19, 20] {
        let mut bytes = bench.bytes.clone();
        bytes[offset(start) + at] ^= 0x10;
        assert_fault(
            &fault_in(bench.name, &bytes, None),
            Problem::BadRecordCrc,
            start,
            &["CRC-32C"],
        );
    }
    let mut bytes = bench.bytes;
    bytes[offset(start) + 17] = 99;
    assert_fault(
        &fault_in(bench.name, &bytes, None),
        Problem::BadRecordCrc,
        start,
        &["resource manager 99"],
    );
}

#[test]
fn a_damaged_link_is_a_link_with_both_addresses() {
    let bench = bench();
    let start = inner_record(&bench);
    let before = *bench.writer.starts.iter().filter(|lsn| **lsn < start).max().unwrap();
    let mut bytes = bench.bytes.clone();
    bytes[offset(start) + 8] ^= 8;
    let found = Lsn(before.0 ^ 8);
    assert_fault(
        &fault_in(bench.name, &bytes, None),
        Problem::BadRecordLink,
        start,
        &[&found.to_string(), &before.to_string()],
    );
}

#[test]
fn an_impossible_record_length_is_a_length_and_allocates_nothing() {
    let bench = bench();
    for start in [inner_record(&bench), spanning_record(&bench)] {
        for length in [0_u32, 1, 23, 0xFFFF_FFFF, 0x8000_0000] {
            let mut bytes = bench.bytes.clone();
            put(&mut bytes, offset(start), &length.to_ne_bytes());
            assert_fault(
                &fault_in(bench.name, &bytes, None),
                Problem::BadRecordLength,
                start,
                &[&length.to_string(), "24"],
            );
        }
    }
}

#[test]
fn a_possible_length_that_the_next_page_contradicts_is_a_length() {
    let bench = bench();
    for start in [inner_record(&bench), spanning_record(&bench)] {
        for length in [0x3000_0000_u32, 123_456] {
            let mut bytes = bench.bytes.clone();
            put(&mut bytes, offset(start), &length.to_ne_bytes());
            let fault = fault_in(bench.name, &bytes, None);
            assert_fault(
                &fault,
                Problem::BadRecordLength,
                start,
                &[&length.to_string(), "remain"].map(|word| if word == "remain" { "says that" } else { word }),
            );
        }
    }
}

#[test]
fn one_bit_in_a_length_that_reaches_over_the_page_is_a_length() {
    let bench = bench();
    let start = spanning_record(&bench);
    for bit in 3..28 {
        let mut bytes = bench.bytes.clone();
        let was = u32::from_ne_bytes(bytes[offset(start)..offset(start) + 4].try_into().unwrap());
        let length = was ^ 1 << bit;
        let over = offset(start) % 8192 + length as usize > 8192;
        put(&mut bytes, offset(start), &length.to_ne_bytes());
        let fault = fault_in(bench.name, &bytes, None);
        let expected = if over || length < 24 {
            Problem::BadRecordLength
        } else {
            Problem::BadRecordCrc
        };
        assert_eq!(fault.problem, expected, "bit {bit}: {fault}");
        assert_eq!(fault.lsn, start);
    }
}

#[test]
fn one_bit_in_what_a_page_says_of_the_record_before_is_the_pages_fault() {
    let bench = bench();
    let start = spanning_record(&bench);
    let page = offset(start) / 8192 * 8192 + 8192;
    for bit in 0..32 {
        let mut bytes = bench.bytes.clone();
        bytes[page + 16 + bit / 8] ^= 1 << (bit % 8);
        let fault = fault_in(bench.name, &bytes, None);
        assert_fault(
            &fault,
            Problem::BadPageHeader,
            Lsn(bench.name.start().0 + page as u64),
            &["bytes of"],
        );
    }
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
fn bytes_between_records_that_are_not_zero_are_noticed() {
    let mut writer = Writer::new(format(), 1, 3);
    writer.commit(1);
    let start = writer.record(HEAP, 0, &[1; 9]);
    writer.commit(1);
    writer.switch();
    let (name, mut bytes) = writer.segments().remove(0);
    bytes[offset(start) + 24 + 9] = 1;
    assert_fault(
        &fault_in(name, &bytes, None),
        Problem::BadRecordCrc,
        start,
        &["padding"],
    );
}

#[test]
fn damage_in_the_second_half_of_a_spanning_record_shows_in_the_second_segment() {
    let bench = bench();
    let handover = handover(bench.name, &bench.bytes);
    let start = handover.continued_record().unwrap();
    let mut bytes = bench.next_bytes.clone();
    bytes[41] ^= 1;
    let fault = fault_in(bench.next, &bytes, Some(handover.clone()));
    assert_fault(&fault, Problem::BadRecordCrc, start, &["in an earlier segment"]);
    assert_eq!(fault.offset, 40);
    // Without what the first segment handed over, nobody can know.
    let mut verifier = SegmentVerifier::new(&format(), bench.next, None, None);
    verifier.feed(&bytes);
    assert!(verifier.finish().result.unwrap().unchecked_head > 1);
    let mut verifier = SegmentVerifier::new(&format(), bench.next, None, Some(handover));
    verifier.feed(&bench.next_bytes);
    assert_eq!(verifier.finish().result.unwrap().unchecked_head, 0);
}

#[test]
fn a_segment_that_does_not_go_on_where_the_last_one_ended_is_noticed() {
    let bench = bench();
    let handover = handover(bench.name, &bench.bytes);
    // The same place, from another history: no record goes on there.
    let mut other = Writer::new(format(), 1, 4);
    other.fill(3, false);
    let fault = fault_in(bench.next, &other.segments()[0].1, Some(handover.clone()));
    assert_eq!(fault.problem, Problem::BadRecordLength);
    // And where none should go on, the link tells.
    let mut first = Writer::new(format(), 1, 3);
    first.fill(3, false);
    let (name, bytes) = first.segments().remove(0);
    let mut verifier = SegmentVerifier::new(&format(), name, None, None);
    verifier.feed(&bytes);
    let handover = verifier.finish().result.unwrap().handover;
    let fault = fault_in(bench.next, &other.segments()[0].1, Some(handover));
    assert_fault(
        &fault,
        Problem::BadRecordLink,
        Lsn(4 * MB as u64 + 40),
        &[&first.previous.to_string()],
    );
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
fn a_record_that_was_given_up_must_be_the_one_in_progress() {
    let mut writer = Writer::new(format(), 1, 3);
    writer.commit(1);
    let abandoned = writer.abandoned(&[5; 20_000], 1);
    let start = *writer.starts.last().unwrap();
    writer.fill(1, false);
    let (name, bytes) = writer.segments().remove(0);
    assert!(matches!(verify(name, &bytes), Ok(())));
    // The record tells of another one.
    let mut other = bytes.clone();
    let body = offset(start) + 24 + 2;
    put(&mut other, body, &(abandoned.0 + 8).to_ne_bytes());
    let crc = crc32c::crc32c_append(
        crc32c::crc32c(&other[offset(start) + 24..body + 16]),
        &other[offset(start)..offset(start) + 20],
    );
    put(&mut other, offset(start) + 20, &crc.to_ne_bytes());
    assert_fault(
        &verify(name, &other).unwrap_err(),
        Problem::BadRecordLink,
        start,
        &[&abandoned.to_string()],
    );
    // The flag alone, on a page like any other.
    let mut flagged = bytes.clone();
    let page = (10..)
        .map(|page| page * 8192)
        .find(|page| bytes[page + 2] & 1 == 0)
        .unwrap();
    flagged[page + 2] |= 8;
    assert_fault(
        &verify(name, &flagged).unwrap_err(),
        Problem::BadPageHeader,
        Lsn(name.start().0 + page as u64),
        &["given up"],
    );
}

#[test]
fn a_first_page_that_wrongly_tells_of_a_record_given_up_is_damaged() {
    let mut writer = Writer::new(format(), 1, 3);
    writer.fill(1, false);
    let (name, mut bytes) = writer.segments().remove(0);
    bytes[2] |= 8;
    assert_fault(
        &verify(name, &bytes).unwrap_err(),
        Problem::BadPageHeader,
        name.start(),
        &["given up"],
    );
}

fn verify(name: SegmentName, bytes: &[u8]) -> Result<(), Fault> {
    let mut verifier = SegmentVerifier::new(&format(), name, None, None);
    verifier.feed(bytes);
    verifier.finish().result.map(|_| ())
}

#[test]
fn the_first_fault_is_the_one_told() {
    let bench = bench();
    let start = inner_record(&bench);
    let mut bytes = bench.bytes.clone();
    bytes[offset(start) + 25] ^= 1;
    bytes[100 * 8192] ^= 1;
    assert_eq!(fault_in(bench.name, &bytes, None).lsn, start);
}
