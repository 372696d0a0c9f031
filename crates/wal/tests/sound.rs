//! What sound segments are found to hold.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]

mod writer;

use std::io::Read;

use wal::{
    Handover, Hashing, Lsn, Major, PgTimestamp, SegmentName, SegmentOutcome, SegmentSize, SegmentSummary,
    SegmentVerifier, Timeline, TimelineHistory, WalFormat, verify_reader,
};
use writer::{ABORT, COMMIT_PREPARED, HAS_INFO, HEAP, PREPARE, Writer, XACT, main_data};

fn format() -> WalFormat {
    WalFormat::new(Major::V18, SegmentSize::new(1 << 20).unwrap(), 0x6A5B_4C3D_2E1F_0001)
}

fn verify(format: &WalFormat, name: SegmentName, bytes: &[u8], handover: Option<Handover>) -> SegmentOutcome {
    let mut verifier = SegmentVerifier::new(format, name, None, handover);
    verifier.feed(bytes);
    verifier.finish()
}

fn verify_all(writer: &Writer) -> Vec<SegmentSummary> {
    let mut handover = None;
    let mut summaries = Vec::new();
    for (name, bytes) in writer.segments() {
        let summary = verify(&writer.format, name, &bytes, handover.take()).result.unwrap();
        handover = Some(Handover::from_bytes(&summary.handover.to_bytes()).unwrap());
        assert_eq!(handover.as_ref(), Some(&summary.handover));
        summaries.push(summary);
    }
    summaries
}

#[test]
fn every_record_is_counted_once_whichever_segment_it_begins_in() {
    for major in Major::ALL {
        let mut writer = Writer::new(WalFormat::new(major, format().segment_size, 99), 1, 3);
        for seed in 1..5 {
            writer.fill(seed, true);
        }
        writer.fill(5, false);
        let summaries = verify_all(&writer);
        assert_eq!(summaries.len(), 5);
        assert_eq!(
            summaries.iter().map(|summary| summary.records).sum::<u64>(),
            writer.starts.len() as u64
        );
        assert!(
            summaries
                .iter()
                .all(|summary| summary.unchecked_head == 0 && !summary.switched)
        );
        assert_eq!(summaries[4].handover.last_record(), Some(writer.previous));
        assert_eq!(summaries[4].handover.at(), Lsn(8 << 20));
        assert_eq!(summaries[4].end_of_data, Lsn(8 << 20));
    }
}

#[test]
fn every_segment_and_block_size_is_read() {
    for (segment, block) in [(1 << 20, 1 << 10), (1 << 20, 1 << 16), (1 << 21, 1 << 13)] {
        let format = WalFormat::new(Major::V15, SegmentSize::new(segment).unwrap(), 1)
            .with_block_size(block)
            .unwrap();
        let mut writer = Writer::new(format, 1, 1);
        writer.fill(1, true);
        writer.fill(2, false);
        let records: u64 = verify_all(&writer).iter().map(|summary| summary.records).sum();
        assert_eq!(records, writer.starts.len() as u64);
    }
}

#[test]
fn commits_count_and_aborts_do_not() {
    let mut writer = Writer::new(format(), 1, 3);
    writer.record(XACT, ABORT | HAS_INFO, &main_data(&1_i64.to_ne_bytes()));
    writer.commit(5_000_000);
    writer.record(XACT, PREPARE, &main_data(&[2; 300]));
    writer.record(
        XACT,
        COMMIT_PREPARED | HAS_INFO,
        &main_data(&[&4_000_000_i64.to_ne_bytes()[..], &[0; 300]].concat()),
    );
    writer.commit_from(4_500_000, 0xFFFF);
    writer.record(XACT, 0x40, &main_data(&9_i64.to_ne_bytes()));
    writer.record(XACT, 0x20, &main_data(&9_000_000_i64.to_ne_bytes()));
    writer.switch();
    let summary = &verify_all(&writer)[0];
    assert_eq!(summary.records, 8);
    assert_eq!(summary.commit_count, 3);
    assert_eq!(summary.first_commit_at, Some(PgTimestamp(5_000_000)));
    assert_eq!(summary.last_commit_at, Some(PgTimestamp(4_500_000)));
    assert_eq!(summary.latest_xact_at, Some(PgTimestamp(9_000_000)));
}

#[test]
fn a_commit_whose_time_no_server_can_show_counts_without_a_time() {
    let mut writer = Writer::new(format(), 1, 3);
    writer.commit(i64::MAX);
    writer.record(XACT, 0, &[]);
    writer.switch();
    let summary = &verify_all(&writer)[0];
    assert_eq!(
        (summary.commit_count, summary.first_commit_at, summary.last_commit_at),
        (2, None, None)
    );
}

#[test]
fn every_commit_is_told_with_its_place_and_origin() {
    let mut writer = Writer::new(format(), 1, 3);
    let first = writer.commit(1);
    let second = writer.commit_from(2, 17);
    writer.switch();
    let (name, bytes) = writer.segments().remove(0);
    let mut verifier = SegmentVerifier::new(&writer.format, name, None, None);
    let mut commits = Vec::new();
    verifier.feed_with(&bytes, &mut |commit| {
        commits.push((commit.lsn, commit.end, commit.at, commit.origin))
    });
    assert_eq!(commits.len(), 2);
    assert_eq!(commits[0], (first, second, Some(PgTimestamp(1)), None));
    assert_eq!(
        (commits[1].0, commits[1].2, commits[1].3),
        (second, Some(PgTimestamp(2)), Some(17))
    );
}

#[test]
fn a_commit_is_told_with_the_transaction_that_it_is_of() {
    let mut writer = Writer::new(format(), 1, 3);
    for xid in [u32::MAX - 5, 4, u32::MAX - 9] {
        writer.xid = xid;
        writer.commit(1);
    }
    // COMMIT PREPARED is written outside of any transaction: its body names the one that commits, behind the database's two
    // numbers, a list of two subtransactions and one of an invalidation.
    writer.xid = 0;
    let number = |number: u32| number.to_ne_bytes().to_vec();
    let body = |flags: u32, middle: Vec<u8>, xid: u32| {
        main_data(&[1_i64.to_ne_bytes().to_vec(), number(flags), middle, number(xid)].concat())
    };
    let lists = [
        number(5),
        number(6),
        number(2),
        number(90),
        number(91),
        number(1),
        vec![0xAA; 16],
    ]
    .concat();
    writer.record(XACT, COMMIT_PREPARED | HAS_INFO, &body(0b1_1011, lists, 9));
    writer.record(XACT, COMMIT_PREPARED | HAS_INFO, &body(0b1_0000, Vec::new(), 11));
    // One whose number lies too far behind, and one that says nothing of it.
    let many = [number(100), vec![0; 400]].concat();
    writer.record(XACT, COMMIT_PREPARED | HAS_INFO, &body(0b1_0010, many, 12));
    writer.record(XACT, COMMIT_PREPARED, &main_data(&1_i64.to_ne_bytes()));
    writer.switch();
    let (name, bytes) = writer.segments().remove(0);
    let mut verifier = SegmentVerifier::new(&writer.format, name, None, None);
    let mut xids = Vec::new();
    verifier.feed_with(&bytes, &mut |commit| xids.push(commit.xid));
    let known = [u32::MAX - 5, 4, u32::MAX - 9, 9, 11].map(Some);
    assert_eq!(xids, [known.as_slice(), &[None, None]].concat());
    let range = verifier.finish().result.unwrap().xids.unwrap();
    assert_eq!((range.lowest, range.highest), (u32::MAX - 9, 11));
}

#[test]
fn restore_points_are_named_with_the_end_of_their_record() {
    let mut writer = Writer::new(format(), 1, 3);
    writer.restore_point(7, "before the release");
    let end = writer.position();
    writer.restore_point(8, &"x".repeat(64));
    writer.switch();
    let points = &verify_all(&writer)[0].restore_points;
    assert_eq!(
        (points[0].name.as_slice(), points[0].lsn, points[0].at),
        (&b"before the release"[..], end, Some(PgTimestamp(7)))
    );
    assert_eq!(points[1].name, b"x".repeat(64));
}

#[test]
fn restore_points_beyond_any_use_are_not_kept() {
    let mut writer = Writer::new(format(), 1, 3);
    for _ in 0..SegmentVerifier::MAX_RESTORE_POINTS + 1 {
        writer.restore_point(7, "again");
    }
    writer.switch();
    assert_eq!(
        verify_all(&writer)[0].restore_points.len(),
        SegmentVerifier::MAX_RESTORE_POINTS
    );
}

#[test]
fn what_follows_a_switch_is_padding_and_the_next_segment_links_to_it() {
    let mut writer = Writer::new(format(), 1, 3);
    writer.commit(1);
    let switch = writer.switch();
    writer.commit(2);
    writer.switch();
    let mut segments = writer.segments();
    // Whatever lies there.
    let end = segments[0].1.len();
    segments[0].1[end - 100_000..].fill(0xAA);
    let first = verify(&writer.format, segments[0].0, &segments[0].1, None)
        .result
        .unwrap();
    assert!(first.switched);
    assert_eq!(first.end_of_data, Lsn(switch.0 + 24));
    assert_eq!(first.handover.last_record(), Some(switch));
    let second = verify(&writer.format, segments[1].0, &segments[1].1, Some(first.handover))
        .result
        .unwrap();
    assert_eq!(second.records, 2);
}

#[test]
fn a_switch_that_ends_with_its_segment_or_straddles_a_page_is_one() {
    let payload = (1 << 20) - 40 - 127 * 24 - 24;
    // The last bytes of the last page; then 8 and 16 bytes of the one before it.
    for (room, behind) in [(24, 0), (8, 8168), (16, 8168)] {
        let mut writer = Writer::new(format(), 1, 3);
        writer.record(HEAP, 0, &vec![1; payload - room - behind]);
        assert_eq!(writer.room_in_page(), room);
        writer.switch();
        writer.commit(3);
        writer.switch();
        let summaries = verify_all(&writer);
        assert!(summaries[0].switched);
        assert_eq!(summaries[1].commit_count, 1);
    }
}

#[test]
fn a_record_longer_than_a_segment_is_verified_across_all_of_them() {
    let mut writer = Writer::new(format(), 1, 3);
    writer.commit(1);
    let long = writer.record(HEAP, 0, &writer::Random(9).bytes(3_500_000));
    writer.commit(2);
    writer.switch();
    let summaries = verify_all(&writer);
    assert_eq!(
        summaries.iter().map(|summary| summary.records).collect::<Vec<_>>(),
        [1, 0, 0, 3]
    );
    assert_eq!(summaries[1].handover.continued_record(), Some(long));
    assert!(summaries[1].handover.to_bytes().len() < 256);
}

#[test]
fn what_is_unknown_at_the_oldest_segment_is_told() {
    let mut writer = Writer::new(format(), 1, 3);
    writer.record(HEAP, 0, &writer::Random(9).bytes(2_500_000));
    writer.commit(2);
    writer.switch();
    let segments = writer.segments();
    let (mut handover, mut unchecked, mut records) = (None, 0, 0);
    for (name, bytes) in &segments[1..] {
        let summary = verify(&writer.format, *name, bytes, handover.take()).result.unwrap();
        unchecked += summary.unchecked_head;
        records += summary.records;
        handover = Some(summary.handover);
    }
    let in_first_segment = (1 << 20) - 40 - 127 * 24;
    assert_eq!(unchecked, 2_500_024 - in_first_segment);
    assert_eq!(records, 2);
}

#[test]
fn commits_and_restore_points_that_span_segments_are_understood() {
    for room in [8_usize, 16, 24, 32, 48, 80] {
        for point in [false, true] {
            let mut writer = Writer::new(format(), 1, 3);
            let overhead = 40 + 127 * 24 + 24;
            writer.record(HEAP, 0, &vec![1; (1 << 20) - overhead - room]);
            assert_eq!(writer.room_in_page(), room);
            if point {
                writer.restore_point(77, "spanning");
            } else {
                writer.commit_from(77, 3);
            }
            writer.switch();
            let summaries = verify_all(&writer);
            if point {
                assert_eq!(summaries[1].restore_points[0].name, b"spanning");
                assert_eq!(summaries[1].restore_points[0].at, Some(PgTimestamp(77)));
            } else {
                let home = summaries.iter().position(|summary| summary.commit_count == 1).unwrap();
                assert_eq!(summaries[home].first_commit_at, Some(PgTimestamp(77)));
            }
        }
    }
}

#[test]
fn a_record_that_a_crash_cut_off_is_passed_over() {
    for pages in 1..4 {
        let mut writer = Writer::new(format(), 1, 3);
        writer.commit(1);
        writer.abandoned(&[5; 60_000], pages);
        writer.commit(2);
        writer.fill(1, false);
        let summaries = verify_all(&writer);
        assert_eq!(summaries[0].records, writer.starts.len() as u64);
    }
}

#[test]
fn a_record_that_a_crash_cut_off_at_a_segments_end_is_passed_over() {
    let mut writer = Writer::new(format(), 1, 3);
    writer.record(HEAP, 0, &vec![1; (1 << 20) - 40 - 127 * 24 - 24 - 16]);
    writer.abandoned(&[5; 60_000], 1);
    writer.switch();
    let segments = writer.segments();
    let known = verify_all(&writer);
    assert_eq!(known[1].records, 2);
    // And without the segment before.
    let unknown = verify(&writer.format, segments[1].0, &segments[1].1, None)
        .result
        .unwrap();
    assert_eq!(unknown.records, 2);
}

#[test]
fn a_new_timeline_begins_in_the_middle_of_the_old_ones_segment() {
    let mut writer = Writer::new(format(), 1, 3);
    writer.fill(1, true);
    while writer.position() < Lsn((4 << 20) + 300_000) {
        writer.commit(3);
    }
    let branch = writer.position();
    assert_ne!(branch.0 % 8192, 0);
    writer.timeline = Timeline(2);
    writer.fill(3, false);
    let history = TimelineHistory::parse(Timeline(2), format!("1\t{branch}\tno recovery target specified\n")).unwrap();
    let segments = writer.segments();
    let old = SegmentName {
        timeline: Timeline(1),
        ..segments[0].0
    };
    let first = SegmentVerifier::new(&writer.format, old, Some(&history), None);
    let first = verify_reader(&segments[0].1[..], first, &mut |_| {}).result.unwrap();
    for history in [Some(&history), None] {
        let verifier = SegmentVerifier::new(&writer.format, segments[1].0, history, Some(first.handover.clone()));
        let second = verify_reader(&segments[1].1[..], verifier, &mut |_| {}).result.unwrap();
        assert_eq!(first.records + second.records, writer.starts.len() as u64);
    }
}

#[test]
fn a_handover_of_another_place_is_left_aside() {
    let mut writer = Writer::new(format(), 1, 3);
    writer.fill(1, true);
    writer.fill(2, false);
    let segments = writer.segments();
    let first = verify(&writer.format, segments[0].0, &segments[0].1, None)
        .result
        .unwrap();
    let again = verify(
        &writer.format,
        segments[0].0,
        &segments[0].1,
        Some(first.handover.clone()),
    )
    .result
    .unwrap();
    assert_eq!(first, again);
}

#[test]
fn the_hash_is_of_all_bytes_and_can_be_left_out() {
    use sha2::Digest;
    let mut writer = Writer::new(format(), 1, 3);
    writer.fill(1, false);
    let (name, bytes) = writer.segments().remove(0);
    let outcome = verify(&writer.format, name, &bytes, None);
    assert_eq!(outcome.sha256, <[u8; 32]>::from(sha2::Sha256::digest(&bytes)));
    assert_eq!(outcome.bytes, 1 << 20);
    let mut verifier = SegmentVerifier::new(&writer.format, name, None, None).with_hashing(Hashing::None);
    verifier.feed(&bytes);
    let plain = verifier.finish();
    assert_eq!(plain.sha256, [0; 32]);
    assert_eq!(plain.result, outcome.result);
}

#[test]
fn a_reader_is_read_in_chunks_that_add_up() {
    let mut writer = Writer::new(format(), 1, 3);
    writer.fill(1, false);
    let (name, bytes) = writer.segments().remove(0);
    let mut told = 0;
    let verifier = SegmentVerifier::new(&writer.format, name, None, None);
    // Interrupted reads are not errors.
    let mut interrupted = false;
    let reader = Interrupted(&bytes, &mut interrupted);
    let outcome = verify_reader(reader, verifier, &mut |length| told += length);
    assert!(outcome.result.is_ok());
    assert_eq!(told, 1 << 20);
}

struct Interrupted<'a>(&'a [u8], &'a mut bool);

impl Read for Interrupted<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        *self.1 = !*self.1;
        if *self.1 {
            Err(std::io::ErrorKind::Interrupted.into())
        } else {
            self.0.read(buffer)
        }
    }
}
