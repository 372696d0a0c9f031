//! Faults in archived segments are noticed, named, located and weighed, and the verdict turns back once they are mended.
//!
//! Each fault is made twice on a copy of one cluster: once before the worker has seen the segment, so that it finds it by
//! itself, and once in a verified segment, so that `verify_wal_archive()` finds it at once. The numbers are those of the
//! project's list of faults.

use anyhow::{Context, Result};
use tests::archive::Fault;
use tests::waldump::{self, Record};
use tests::{Archive, Cluster, Scene};

/// What must be said of a fault.
struct Verdict {
    segment: String,
    status: &'static str,
    problem: &'static str,
    /// What `detail` must contain.
    detail: Vec<String>,
    readiness: &'static str,
}

impl Verdict {
    fn new(segment: &str, status: &'static str, problem: &'static str) -> Self {
        Self {
            segment: segment.to_owned(),
            status,
            problem,
            detail: Vec::new(),
            readiness: "at_risk",
        }
    }

    fn detail(mut self, part: impl Into<String>) -> Self {
        self.detail.push(part.into());
        self
    }

    fn unrecoverable(mut self) -> Self {
        self.readiness = "unrecoverable";
        self
    }

    /// Waits until the worker has found it.
    fn is_found_by_the_worker(&self, cluster: &Cluster) -> Result<()> {
        let found = format!(
            "SELECT status, problem FROM wal_archive WHERE segment_name = '{}'",
            self.segment
        );
        cluster.wait_for(&found, &format!("{}|{}", self.status, self.problem))
    }

    /// Has it found in the foreground.
    fn is_found_at_once(&self, cluster: &Cluster) -> Result<()> {
        let bad = cluster.text(
            "SELECT segment_name, status, problem FROM verify_wal_archive() WHERE status NOT IN ('verified', 'pending')",
        )?;
        assert_eq!(bad, format!("{}|{}|{}", self.segment, self.status, self.problem));
        Ok(())
    }

    /// Everything that shows it agrees on it.
    fn is_shown(&self, cluster: &Cluster) -> Result<()> {
        let detail = format!("SELECT detail FROM wal_archive WHERE segment_name = '{}'", self.segment);
        let detail = cluster.text(&detail)?;
        for part in &self.detail {
            assert!(detail.contains(part), "no {part:?} in {detail:?}");
        }
        assert!(detail.ends_with('.'), "not a sentence: {detail:?}");

        let gaps = "SELECT from_segment, to_segment, segments, state, g.problem, from_lsn < to_lsn,
                           since > first_seen_at, affected_backups
                    FROM wal_archive_gaps g JOIN wal_archive ON segment_name = from_segment WHERE state <> 'late'";
        let backup = cluster.text("SELECT id FROM backup_history")?;
        let expected = format!("{0}|{0}|1|lost|{1}|t|t|{{{backup}}}", self.segment, self.problem);
        assert_eq!(cluster.text(gaps)?, expected);

        cluster.wait_for("SELECT status FROM recovery_readiness", self.readiness)?;
        let reasons = cluster.text("SELECT array_to_string(reasons, ' ') FROM recovery_readiness")?;
        assert!(
            reasons.contains(&self.segment),
            "no reason names {}: {reasons}",
            self.segment
        );
        Ok(())
    }
}

/// The life of a fault: found by the worker, mended, found at once, mended.
fn goes_through(
    make: impl Fn(&Scene, &Archive) -> Result<Fault>,
    verdict: impl FnOnce(&Scene) -> Result<Verdict>,
) -> Result<()> {
    let mut scene = Scene::stopped()?;
    let archive = scene.cluster.archive().clone();
    let verdict = verdict(&scene)?;

    let fault = make(&scene, &archive)?;
    scene.start()?;
    verdict.is_found_by_the_worker(&scene.cluster)?;
    verdict.is_shown(&scene.cluster)?;
    fault.mend()?;
    scene.wait_until_ready().context("after the mend")?;
    assert_eq!(
        scene
            .cluster
            .text("SELECT count(*) FROM wal_archive_gaps WHERE state <> 'late'")?,
        "0"
    );

    let fault = make(&scene, &archive)?;
    verdict.is_found_at_once(&scene.cluster)?;
    verdict.is_shown(&scene.cluster)?;
    fault.mend()?;
    scene.wait_until_ready().context("after the second mend")
}

/// The records that begin in the victim.
fn records(scene: &Scene) -> Result<Vec<Record>> {
    waldump::records(scene.cluster.server(), &scene.cluster.archive().file(scene.victim()?))
}

/// A record in the victim's second half that lies on one page, with a body to damage.
fn record_on_one_page(scene: &Scene) -> Result<Record> {
    let records = records(scene)?;
    let on_one_page = |record: &&Record| record.length > 60 && record.offset % 8192 + record.length < 8192;
    let last_half = records.iter().skip(records.len() / 2);
    last_half.clone().find(on_one_page).cloned().context("no such record")
}

/// A1
#[test]
fn a_deleted_segment_is_reported_missing_with_the_backups_it_breaks() -> Result<()> {
    goes_through(
        |scene, archive| archive.remove(&scene.victim()?),
        |scene| Ok(Verdict::new(&scene.victim()?, "missing", "missing")),
    )
}

/// A2
#[test]
fn without_its_first_segment_a_backup_is_not_usable() -> Result<()> {
    goes_through(
        |scene, archive| archive.remove(&scene.backup.start_wal_file),
        |scene| Ok(Verdict::new(&scene.backup.start_wal_file, "missing", "missing").unrecoverable()),
    )
}

/// A4
#[test]
fn half_a_segment_is_reported_truncated() -> Result<()> {
    goes_through(
        |scene, archive| archive.change(&scene.victim()?, |bytes| bytes.truncate(bytes.len() / 2)),
        |scene| {
            Ok(Verdict::new(&scene.victim()?, "corrupt", "truncated")
                .detail("524288")
                .detail("1048576"))
        },
    )
}

/// A5
#[test]
fn a_file_without_bytes_is_reported_empty() -> Result<()> {
    goes_through(
        |scene, archive| archive.replace(&scene.victim()?, b""),
        |scene| Ok(Verdict::new(&scene.victim()?, "corrupt", "empty")),
    )
}

/// A6
#[test]
fn zeros_under_the_right_name_and_size_are_reported_zeroed() -> Result<()> {
    goes_through(
        |scene, archive| archive.change(&scene.victim()?, |bytes| bytes.fill(0)),
        |scene| Ok(Verdict::new(&scene.victim()?, "corrupt", "zeroed")),
    )
}

/// A7
#[test]
fn one_flipped_bit_in_a_record_is_reported_with_the_records_lsn() -> Result<()> {
    goes_through(
        |scene, archive| {
            let record = record_on_one_page(scene)?;
            archive.flip_bit(&scene.victim()?, record.offset + record.length - 5, 3)
        },
        |scene| {
            let record = record_on_one_page(scene)?;
            let verdict = Verdict::new(&scene.victim()?, "corrupt", "bad_record_crc");
            Ok(verdict.detail(record.lsn).detail(record.offset.to_string()))
        },
    )
}

/// A9: what the CRC cannot guard, because it must be believed before the record can be read.
#[test]
fn an_impossible_record_length_is_reported_with_the_records_lsn() -> Result<()> {
    for length in [0_u32, 1, u32::MAX] {
        goes_through(
            |scene, archive| {
                archive.overwrite(
                    &scene.victim()?,
                    record_on_one_page(scene)?.offset,
                    &length.to_ne_bytes(),
                )
            },
            |scene| {
                let record = record_on_one_page(scene)?;
                Ok(Verdict::new(&scene.victim()?, "corrupt", "bad_record_length").detail(record.lsn))
            },
        )?;
    }
    Ok(())
}

/// A8
#[test]
fn one_flipped_bit_in_any_field_of_a_page_header_is_reported_with_the_page() -> Result<()> {
    const PAGE: u64 = 8192;
    // Offsets in XLogPageHeaderData (src/include/access/xlog_internal.h), a bit each, and what must be said.
    let fields = [
        ("xlp_magic", 1, 6, "bad_page_header"),
        ("xlp_info", 2, 5, "bad_page_header"),
        ("xlp_tli", 4, 4, "bad_page_header"),
        ("xlp_pageaddr", 9, 6, "bad_page_address"),
        ("xlp_rem_len", 17, 3, "bad_page_header"),
    ];
    let page = 40 * PAGE;
    let scene = Scene::verified()?;
    let (archive, victim) = (scene.cluster.archive(), scene.victim()?);
    for (field, offset, bit, problem) in fields {
        let fault = archive.flip_bit(&victim, page + offset, bit)?;
        let verdict = Verdict::new(&victim, "corrupt", problem).detail(page.to_string());
        verdict.is_found_at_once(&scene.cluster).context(field)?;
        verdict.is_shown(&scene.cluster).context(field)?;
        fault.mend()?;
    }
    scene.wait_until_ready()?;
    let page = page / 2;
    goes_through(
        |scene, archive| archive.flip_bit(&scene.victim()?, page + 8, 7),
        |scene| Ok(Verdict::new(&scene.victim()?, "corrupt", "bad_page_address").detail(page.to_string())),
    )
}

/// A10
#[test]
fn a_segment_under_its_neighbours_name_is_reported_as_the_wrong_one() -> Result<()> {
    fn neighbour(scene: &Scene) -> Result<String> {
        let victim = scene.victim()?;
        scene
            .segments
            .iter()
            .find(|segment| **segment > victim)
            .cloned()
            .context("no segment follows")
    }
    goes_through(
        |scene, archive| {
            let bytes = archive.read(&scene.victim()?)?;
            archive.replace(&neighbour(scene)?, &bytes)
        },
        |scene| Ok(Verdict::new(&neighbour(scene)?, "foreign", "wrong_segment")),
    )
}

/// A12
#[test]
fn bytes_behind_a_segment_are_reported_oversized() -> Result<()> {
    goes_through(
        |scene, archive| archive.change(&scene.victim()?, |bytes| bytes.extend([0; 512])),
        |scene| {
            Ok(Verdict::new(&scene.victim()?, "corrupt", "oversized")
                .detail("1049088")
                .detail("1048576"))
        },
    )
}

/// A13
#[test]
fn a_record_that_spans_two_segments_is_reported_on_the_one_with_the_damage() -> Result<()> {
    // The first page of a segment says how much of the record before it is still to come; xlp_rem_len in XLogPageHeaderData.
    fn continued(scene: &Scene) -> Result<String> {
        let archive = scene.cluster.archive();
        for segment in scene.after_the_backup().into_iter().skip(1) {
            let bytes = archive.read(&segment)?;
            let rest = bytes
                .get(16..20)
                .and_then(|rest| rest.try_into().ok())
                .map_or(0, u32::from_ne_bytes);
            if rest > 16 {
                return Ok(segment);
            }
        }
        anyhow::bail!("no record spans two segments")
    }
    const LONG_HEADER: u64 = 40;
    goes_through(
        |scene, archive| archive.flip_bit(&continued(scene)?, LONG_HEADER + 3, 0),
        |scene| Ok(Verdict::new(&continued(scene)?, "corrupt", "bad_record_crc")),
    )
}
