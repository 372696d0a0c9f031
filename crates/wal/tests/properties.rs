//! What holds for any damage, any way of cutting the bytes, and any input.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, clippy::expect_used)]

mod writer;

use std::sync::LazyLock;

use proptest::prelude::*;
use wal::{
    BackupHistory, Handover, Hashing, Lsn, Major, PgTimestamp, SegmentName, SegmentOutcome, SegmentSize,
    SegmentVerifier, Timeline, TimelineHistory, WalFileName, WalFormat,
};
use writer::{HEAP, Writer};

const MB: usize = 1 << 20;

fn format() -> WalFormat {
    WalFormat::new(Major::V17, SegmentSize::new(1 << 20).unwrap(), 0x6A5B_4C3D_2E1F_0001)
}

/// A segment of which every byte counts: a record goes on in it from the segment before, and none goes on behind it.
struct Full {
    name: SegmentName,
    bytes: Vec<u8>,
    handover: Handover,
}

static FULL: LazyLock<Full> = LazyLock::new(|| {
    let mut writer = Writer::new(format(), 1, 3);
    writer.fill(7, true);
    writer.restore_point(5, "here");
    writer.record(HEAP, 0, &writer::Random(5).bytes(50_000));
    writer.fill(8, false);
    let segments = writer.segments();
    let mut verifier = SegmentVerifier::new(&format(), segments[0].0, None, None);
    verifier.feed(&segments[0].1);
    let handover = verifier.finish().result.unwrap().handover;
    assert!(handover.continued_record().is_some());
    let (name, bytes) = segments[1].clone();
    Full { name, bytes, handover }
});

fn verify(bytes: &[u8]) -> SegmentOutcome {
    let mut verifier =
        SegmentVerifier::new(&format(), FULL.name, None, Some(FULL.handover.clone())).with_hashing(Hashing::None);
    verifier.feed(bytes);
    verifier.finish()
}

/// XLP_BKP_REMOVABLE, which PostgreSQL never reads: see [`SegmentVerifier`].
fn means_nothing(bit: usize) -> bool {
    bit % (8192 * 8) == 18
}

fn assert_flip_is_found(bytes: &mut [u8], bit: usize) {
    bytes[bit / 8] ^= 1 << (bit % 8);
    let outcome = verify(bytes);
    bytes[bit / 8] ^= 1 << (bit % 8);
    match outcome.result {
        Ok(_) => assert!(
            means_nothing(bit),
            "bit {bit} (byte {}) may be flipped unnoticed",
            bit / 8
        ),
        Err(fault) => {
            assert!(!means_nothing(bit));
            assert_eq!(fault.problem.status().as_str(), "corrupt", "bit {bit}: {fault}");
            // Where it says is where it was, or the record that the flip ended up in.
            assert!(fault.offset <= bit as u64 / 8 + 8192, "bit {bit}: {fault}");
        }
    }
}

#[test]
fn every_single_bit_of_the_first_pages_is_checked() {
    let mut bytes = FULL.bytes.clone();
    assert!(verify(&bytes).result.is_ok());
    for bit in 0..3 * 8192 * 8 {
        assert_flip_is_found(&mut bytes, bit);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4000, ..ProptestConfig::default() })]

    #[test]
    fn a_single_flipped_bit_anywhere_is_found(bit in 0..MB * 8) {
        let mut bytes = FULL.bytes.clone();
        assert_flip_is_found(&mut bytes, bit);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, ..ProptestConfig::default() })]

    #[test]
    fn how_the_bytes_are_cut_makes_no_difference(
        cuts in prop::collection::vec(prop_oneof![1..40_usize, 1..9000_usize, 1..300_000_usize], 1..60),
        damage in prop::option::of((0..MB * 8, 0..4_usize)),
    ) {
        let mut bytes = FULL.bytes.clone();
        if let Some((bit, more)) = damage {
            for bit in (bit..).take(more) {
                bytes[bit % (MB * 8) / 8] ^= 1 << (bit % 8);
            }
        }
        let whole = verify(&bytes);
        let mut verifier = SegmentVerifier::new(&format(), FULL.name, None, Some(FULL.handover.clone())).with_hashing(Hashing::None);
        let mut rest = &bytes[..];
        for cut in cuts.into_iter().cycle() {
            let (chunk, after) = rest.split_at(cut.min(rest.len()));
            verifier.feed(chunk);
            rest = after;
            if rest.is_empty() {
                break;
            }
        }
        prop_assert_eq!(verifier.finish(), whole);
    }

    #[test]
    fn one_byte_at_a_time_gives_the_same(seed in 1..u64::MAX) {
        let mut writer = Writer::new(format(), 1, 9);
        while writer.position().0 < 9 * MB as u64 + 30_000 {
            writer.commit(seed as i64);
            writer.record(HEAP, 0, &writer::Random(seed).bytes((seed % 700) as usize));
        }
        writer.switch();
        let (name, bytes) = writer.segments().remove(0);
        let mut whole = SegmentVerifier::new(&format(), name, None, None);
        whole.feed(&bytes);
        let mut single = SegmentVerifier::new(&format(), name, None, None);
        for byte in bytes.chunks(1) {
            single.feed(byte);
        }
        prop_assert_eq!(single.finish(), whole.finish());
    }

    #[test]
    fn several_bytes_overwritten_are_found(at in 0..MB - 64, with in prop::collection::vec(any::<u8>(), 1..64)) {
        let mut bytes = FULL.bytes.clone();
        bytes[at..at + with.len()].copy_from_slice(&with);
        let changed = bytes != FULL.bytes;
        let only_nothing = bytes.iter().zip(&FULL.bytes).enumerate().all(|(byte, (a, b))| a == b || (byte % 8192 == 2 && a ^ b == 4));
        let outcome = verify(&bytes);
        prop_assert_eq!(outcome.result.is_err(), changed && !only_nothing);
    }

    #[test]
    fn every_commit_time_comes_back(times in prop::collection::vec((-1_000_000_000_i64..1 << 60, any::<bool>(), 0..20_000_usize), 1..200)) {
        let mut writer = Writer::new(format(), 1, 3);
        for (at, with_origin, filler) in &times {
            if *with_origin { writer.commit_from(*at, 5) } else { writer.commit(*at) };
            writer.record(HEAP, 0, &vec![1; *filler]);
        }
        writer.switch();
        let mut handover = None;
        let mut found = Vec::new();
        for (name, bytes) in writer.segments() {
            let mut verifier = SegmentVerifier::new(&format(), name, None, handover.take());
            verifier.feed_with(&bytes, &mut |commit| found.push((commit.at, commit.origin)));
            let summary = verifier.finish().result.unwrap();
            handover = Some(Handover::from_bytes(&summary.handover.to_bytes()).unwrap());
        }
        let expected: Vec<_> = times.iter().map(|(at, with_origin, _)| (Some(PgTimestamp(*at)), with_origin.then_some(5))).collect();
        prop_assert_eq!(found, expected);
    }
}

proptest! {
    #[test]
    fn any_bytes_as_a_handover_do_no_harm(mut bytes in prop::collection::vec(any::<u8>(), 0..200), like in any::<bool>()) {
        if like {
            // Damage to a real one gets further.
            let mut real = FULL.handover.to_bytes();
            for pair in bytes.chunks_exact(2).take(2) {
                let at = usize::from(pair[0]) % real.len();
                real[at] = pair[1];
            }
            bytes = real;
        }
        if let Ok(handover) = Handover::from_bytes(&bytes) {
            prop_assert_eq!(Handover::from_bytes(&handover.to_bytes()).unwrap(), handover.clone());
            let mut verifier = SegmentVerifier::new(&format(), FULL.name, None, Some(handover)).with_hashing(Hashing::None);
            verifier.feed(&FULL.bytes[..100_000]);
            drop(verifier.finish());
        }
    }

    #[test]
    fn a_handover_cut_or_prolonged_is_refused(length in 0..500_usize) {
        let mut bytes = FULL.handover.to_bytes();
        let whole = bytes.len();
        bytes.resize(length, 0);
        prop_assert_eq!(Handover::from_bytes(&bytes).is_ok(), length == whole);
    }

    #[test]
    fn any_text_is_a_name_or_is_not(text in "\\PC{0,40}", hex in "[0-9A-F]{8,26}(\\.(partial|history|backup|[0-9A-F]{8}\\.backup))?") {
        for name in [text, hex] {
            match WalFileName::classify(&name, SegmentSize::DEFAULT) {
                Some(WalFileName::Segment(segment)) => prop_assert_eq!(segment.to_string(), name),
                Some(WalFileName::Partial(segment)) => prop_assert_eq!(format!("{segment}.partial"), name),
                Some(WalFileName::History(timeline)) => prop_assert_eq!(format!("{:08X}.history", timeline.0), name),
                Some(WalFileName::BackupHistory { segment, offset }) => prop_assert_eq!(format!("{segment}.{offset:08X}.backup"), name),
                None => {}
            }
        }
    }

    #[test]
    fn any_lsn_and_name_comes_back(lsn in any::<u64>(), timeline in 1..=u32::MAX, shift in 20..=30_u32) {
        prop_assert_eq!(Lsn(lsn).to_string().parse::<Lsn>(), Ok(Lsn(lsn)));
        let size = SegmentSize::new(1 << shift).unwrap();
        let name = SegmentName::containing(Timeline(timeline), Lsn(lsn), size);
        prop_assert_eq!(SegmentName::parse(&name.to_string(), size), Ok(name));
        prop_assert!(name.start() <= Lsn(lsn));
        prop_assert!(name.end() > Lsn(lsn) || name.next().is_none());
    }

    #[test]
    fn any_bytes_as_a_history_do_no_harm(bytes in prop::collection::vec(any::<u8>(), 0..300), text in "([0-9]{1,3}\t[0-9A-F]{1,2}/[0-9A-F]{1,8}\tx\n){0,5}") {
        for content in [&bytes[..], text.as_bytes()] {
            if let Ok(history) = TimelineHistory::parse(Timeline(500), content) {
                for entry in history.entries() {
                    prop_assert!(history.contains(entry.timeline));
                    prop_assert!(history.contains(history.timeline_of(entry.switch_lsn)));
                    prop_assert_eq!(history.as_of(entry.timeline).unwrap().timeline(), entry.timeline);
                }
                prop_assert_eq!(history.timeline_of(Lsn::MAX), Timeline(500));
            }
            drop(BackupHistory::parse(content));
        }
    }
}
