//! The faults that are made in segments, by their numbers in the project's list.

use anyhow::{Context, Result};
use tests::waldump::{self, Record};
use tests::{Cluster, Settings, Shutdown};

use crate::site::{Change, Site};

/// A fault, and the verdict that pg_backstop must give.
pub struct Fault {
    pub number: &'static str,
    pub what: &'static str,
    pub change: Change,
    /// `status`, `problem`
    pub verdict: (&'static str, &'static str),
}

const PAGE: usize = 8192;

/// A1 to A13, on an archive that is not compressed.
pub fn in_segments(site: &Site) -> Result<Vec<Fault>> {
    let all = site.segments()?;
    let after: Vec<String> = all
        .iter()
        .filter(|name| **name > after_backups(site))
        .cloned()
        .collect();
    // Something comes before and behind it.
    let victim = after.get(after.len() / 2).context("too few segments")?.clone();
    let neighbour = after.get(after.len() / 2 + 1).context("too few segments")?.clone();
    let content = site.content(&victim)?;
    let record = record_on_one_page(site, &victim)?;
    let offset = usize::try_from(record.offset)?;
    let end = offset + usize::try_from(record.length)?;
    let changed = |change: &dyn Fn(&mut Vec<u8>)| {
        let mut content = content.clone();
        change(&mut content);
        Change::Content(victim.clone(), content)
    };
    let flipped = |at: usize, bit: u8| {
        changed(&|content: &mut Vec<u8>| {
            if let Some(byte) = content.get_mut(at) {
                *byte ^= 1 << bit;
            }
        })
    };
    let (spanning, rest) = continued(site, &after)?;
    let newest = after.iter().rev().take(2).cloned().collect();
    let fault = |number, what, change, verdict| Fault {
        number,
        what,
        change,
        verdict,
    };
    Ok(vec![
        // Before anybody archives more.
        fault(
            "A3",
            "the newest two segments deleted",
            Change::Gone(newest),
            ("missing", "missing"),
        ),
        fault(
            "A1",
            "a segment in the middle deleted",
            Change::Gone(vec![victim.clone()]),
            ("missing", "missing"),
        ),
        fault(
            "A2",
            "the first segment that each backup needs deleted",
            Change::Gone(first_needed(site)?),
            ("missing", "missing"),
        ),
        fault(
            "A4",
            "cut to half",
            changed(&|content| content.truncate(content.len() / 2)),
            ("corrupt", "truncated"),
        ),
        fault("A5", "0 bytes", changed(&Vec::clear), ("corrupt", "empty")),
        fault(
            "A6",
            "all zeros",
            changed(&|content| content.fill(0)),
            ("corrupt", "zeroed"),
        ),
        fault(
            "A7",
            "one bit flipped in a record's body",
            flipped(end - 5, 3),
            ("corrupt", "bad_record_crc"),
        ),
        fault(
            "A8",
            "one bit flipped in a page header",
            flipped(20 * PAGE + 9, 6),
            ("corrupt", "bad_page_address"),
        ),
        fault(
            "A9",
            "a record's length overwritten with 0xFFFFFFFF",
            changed(&|content| {
                content.iter_mut().skip(offset).take(4).for_each(|byte| *byte = 0xFF);
            }),
            ("corrupt", "bad_record_length"),
        ),
        fault(
            "A10",
            "the neighbour's content",
            Change::Content(neighbour, content.clone()),
            ("foreign", "wrong_segment"),
        ),
        fault(
            "A11",
            "the same name from another cluster",
            Change::Content(victim.clone(), of_another_cluster(&victim)?),
            ("foreign", "foreign_system"),
        ),
        fault(
            "A12",
            "512 bytes appended",
            changed(&|content| content.extend([0; 512])),
            ("corrupt", "oversized"),
        ),
        fault(
            "A13",
            "a record over two segments, damaged in the second",
            Change::Content(spanning, rest),
            ("corrupt", "bad_record_crc"),
        ),
    ])
}

/// A15, on an archive that is compressed.
pub fn in_compressed_segments(site: &Site) -> Result<Vec<Fault>> {
    let all = site.segments()?;
    let after: Vec<&String> = all.iter().filter(|name| **name > after_backups(site)).collect();
    let victim = (*after.get(after.len() / 2).context("too few segments")?).clone();
    let cut = |bytes: &mut Vec<u8>| bytes.truncate(bytes.len() / 2);
    let damaged = |bytes: &mut Vec<u8>| {
        let middle = bytes.len() / 2;
        bytes.iter_mut().skip(middle).take(16).for_each(|byte| *byte = !*byte);
    };
    let verdict = ("corrupt", "decompression_failed");
    Ok(vec![
        Fault {
            number: "A15",
            what: "a compressed segment (gzip) cut to half",
            change: Change::Stored(victim.clone(), cut),
            verdict,
        },
        Fault {
            number: "A15",
            what: "a compressed segment (gzip) damaged inside",
            change: Change::Stored(victim, damaged),
            verdict,
        },
    ])
}

/// The last segment that a backup needs to be consistent.
fn after_backups(site: &Site) -> String {
    let files = site.cluster.archive().backup_files().unwrap_or_default();
    files
        .last()
        .and_then(|name| name.get(..24))
        .unwrap_or_default()
        .to_owned()
}

fn first_needed(site: &Site) -> Result<Vec<String>> {
    let files = site.cluster.archive().backup_files()?;
    let first = files.iter().filter_map(|name| name.get(..24));
    Ok(first.map(str::to_owned).collect())
}

fn record_on_one_page(site: &Site, segment: &str) -> Result<Record> {
    let records = waldump::records(site.cluster.server(), &site.cluster.archive().file(segment))?;
    let page = PAGE as u64;
    let on_one_page = |record: &&Record| record.length > 60 && record.offset % page + record.length < page;
    let half = records.len() / 2;
    records
        .iter()
        .skip(half)
        .find(on_one_page)
        .cloned()
        .context("no such record")
}

/// A segment that begins with the rest of a record, and its content with that rest damaged.
fn continued(site: &Site, segments: &[String]) -> Result<(String, Vec<u8>)> {
    const LONG_HEADER: usize = 40;
    for segment in segments.iter().skip(1) {
        let mut content = site.content(segment)?;
        // xlp_rem_len in XLogPageHeaderData.
        let rest = content
            .get(16..20)
            .and_then(|rest| rest.try_into().ok())
            .map_or(0, u32::from_ne_bytes);
        if rest > 16
            && let Some(byte) = content.get_mut(LONG_HEADER + 3)
        {
            *byte ^= 1;
            return Ok((segment.clone(), content));
        }
    }
    anyhow::bail!("no record spans two segments")
}

fn of_another_cluster(segment: &str) -> Result<Vec<u8>> {
    let mut other = Cluster::start(Settings::new().without_library().own_identity())?;
    while !other.archive().file(segment).exists() {
        other.client("pgbench", &["-i", "-q", "-s", "1"])?;
        other.archive_now()?;
    }
    other.stop(Shutdown::Fast)?;
    other.archive().read(segment)
}
