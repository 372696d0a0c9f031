//! What is wrong with a record is called by its name, with the record's own LSN, wherever it spans to.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]

mod damage;
mod writer;

use damage::{MB, assert_fault, bench, fault_in, format, handover, inner_record, offset, put, spanning_record, verify};
use wal::{Lsn, Problem, SegmentVerifier};
use writer::{HEAP, Writer};

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
fn the_first_fault_is_the_one_told() {
    let bench = bench();
    let start = inner_record(&bench);
    let mut bytes = bench.bytes.clone();
    bytes[offset(start) + 25] ^= 1;
    bytes[100 * 8192] ^= 1;
    assert_eq!(fault_in(bench.name, &bytes, None).lsn, start);
}

#[test]
fn what_recovery_still_replays_before_the_damage_is_told() {
    let bench = bench();
    let outcome = |bytes: &[u8]| {
        let mut verifier = SegmentVerifier::new(&format(), bench.name, None, None);
        verifier.feed(bytes);
        verifier.finish()
    };
    let damaged = inner_record(&bench);
    let mut bytes = bench.bytes.clone();
    bytes[offset(damaged) + 30] ^= 0x10;
    let head = outcome(&bytes).sound_head.unwrap();
    assert!(head.last_record < damaged);
    let whole = outcome(&bench.bytes);
    assert!(whole.result.unwrap().last_record.unwrap() > damaged);
    // The record that is damaged begins right behind the last sound one: nothing lies between.
    let mut earlier = bench.bytes.clone();
    earlier[offset(head.last_record) + 30] ^= 0x10;
    assert_eq!(
        fault_in(bench.name, &earlier, None).lsn,
        head.last_record,
        "the last sound record is a record"
    );
    let half = &bytes[..bytes.len() / 2];
    assert_eq!(outcome(half).sound_head, None, "recovery takes no file of a wrong size");
}
