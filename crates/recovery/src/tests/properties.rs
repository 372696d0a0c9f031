//! What holds for every cluster.

use archive::Status;
use proptest::prelude::*;
use wal::{Lsn, Timeline, TimelineHistory};

use super::scenario::*;
use crate::*;

const LAST: u64 = 30;

/// Where the one promotion of the cluster was, in segments.
#[derive(Debug, Clone, Copy)]
struct Switch(Option<f64>);

fn timeline_at(switch: Switch, position: f64) -> u32 {
    if switch.0.is_some_and(|switch| position >= switch) {
        2
    } else {
        1
    }
}

fn a_backup(switch: Switch) -> impl Strategy<Value = BackupFact> {
    (
        1_u32..290,
        1_u32..30,
        0_u8..8,
        any::<bool>(),
        0_u8..8,
        prop::option::of(1_i64..6),
    )
        .prop_map(move |(start, length, kind, wal_included, state, parent_id)| {
            let (start, end) = (f64::from(start) / 10.0 + 1.0, f64::from(start + length) / 10.0 + 1.0);
            let mut b = backup(0, start, end);
            b.timeline = Timeline(timeline_at(switch, start));
            b.wal_included = wal_included;
            b.parent_id = parent_id;
            match kind {
                0 => b.backup_type = BackupType::Incremental,
                1 => b.backup_type = BackupType::Differential,
                2 => b.backup_type = BackupType::Logical,
                _ => {}
            }
            match state {
                0 => b.status = BackupStatus::Failed,
                1 => b.status = BackupStatus::Running,
                2 => b.verification = Verification::Failed,
                _ => {}
            }
            b
        })
}

fn a_broken_segment(switch: Switch) -> impl Strategy<Value = BrokenRun> {
    (1..LAST, 0_usize..5, any::<bool>()).prop_map(move |(number, status, stored)| {
        let (status, problem) = [
            (Status::Missing, "missing"),
            (Status::Corrupt, "bad_record_crc"),
            (Status::Foreign, "foreign_system"),
            (Status::Acknowledged, "missing"),
            (Status::Pending, ""),
        ][status];
        #[allow(clippy::cast_precision_loss)]
        let timeline = timeline_at(switch, number as f64 + 0.999_999);
        BrokenRun {
            stored,
            ..broken(timeline, number, status, problem)
        }
    })
}

/// A cluster that may have any trouble: segments 1 to `LAST - 1` are filled, `LAST` is being written.
pub fn any_cluster() -> impl Strategy<Value = Facts> {
    prop_oneof![
        Just(Switch(None)),
        (30_u32..280).prop_map(|s| Switch(Some(f64::from(s) / 10.0)))
    ]
    .prop_flat_map(|switch| {
        (
            prop::collection::vec(a_backup(switch), 0..6),
            prop::collection::btree_map(1..LAST, a_broken_segment(switch), 0..5),
            prop::collection::vec(10_u32..305, 0..2),
            any::<[bool; 6]>(),
            prop::option::of(0_i64..100),
            prop::option::weighted(0.2, 1..LAST),
        )
            .prop_map(move |(mut backups, broken, receivers, faults, last_tick, hole)| {
                for (id, backup) in (1..).zip(backups.iter_mut()) {
                    backup.id = id;
                }
                let mut facts = cluster(backups);
                let broken: std::collections::BTreeMap<_, _> = broken.into_values().map(|b| (b.first, b)).collect();
                facts.broken = broken.into_values().collect();
                #[allow(clippy::cast_precision_loss)]
                let (last, flush) = (at(LAST as f64), at(LAST as f64 + 0.5));
                facts.flush = Some(flush);
                facts.extents = vec![Extent {
                    timeline: Timeline(1),
                    first: at(1.0),
                    last,
                }];
                if let Some(switch) = switch.0 {
                    let line = format!("1\t{}\tx\n", at(switch));
                    facts.history = TimelineHistory::parse(Timeline(2), line).unwrap();
                    let boundary = at(switch.floor());
                    facts.extents = vec![
                        Extent {
                            timeline: Timeline(1),
                            first: at(1.0),
                            last: boundary,
                        },
                        Extent {
                            timeline: Timeline(2),
                            first: boundary,
                            last,
                        },
                    ];
                    if faults[4] {
                        facts.broken_histories = vec![BrokenHistory {
                            timeline: Timeline(2),
                            problem: "missing_history".to_owned(),
                        }];
                    }
                }
                // A segment of which nothing is on record at all.
                if let Some(hole) = hole {
                    let hole = segment(facts.history.timeline_of_segment(hole, SIZE).0, hole);
                    facts.broken.retain(|b| b.first != hole);
                    facts.extents = facts.extents.iter().flat_map(|extent| around(extent, &hole)).collect();
                }
                facts.receivers = receivers.into_iter().map(|r| at(f64::from(r) / 10.0)).collect();
                facts.worker.last_tick_at = last_tick.map(ago);
                if faults[0] {
                    facts.archiver.failing = Some(ArchiverFailure {
                        file: "x".to_owned(),
                        at: ago(9),
                    });
                }
                if faults[1] && faults[2] {
                    facts.archiver.source = Err("not understood".to_owned());
                }
                if faults[3] {
                    facts.archiver.unreadable = Some("permission denied".to_owned());
                }
                facts.rates = if faults[5] {
                    restores_in(7200.0)
                } else {
                    Rates::default()
                };
                facts
            })
    })
}

/// An extent without one of its segments.
fn around(extent: &Extent, hole: &wal::SegmentName) -> Vec<Extent> {
    if extent.timeline != hole.timeline || hole.start() < extent.first || hole.end() > extent.last {
        return vec![*extent];
    }
    vec![
        Extent {
            last: hole.start(),
            ..*extent
        },
        Extent {
            first: hole.end(),
            ..*extent
        },
    ]
}

/// The oldest commit behind an LSN, in a cluster that commits once in each tenth of a segment, each ten seconds after the other.
fn oldest_commit(facts: &Facts, protected: Option<Lsn>) -> OldestCommit {
    let flush = facts.flush.unwrap();
    let Some(protected) = protected else {
        return OldestCommit::None;
    };
    (0..LAST * 10 + 5)
        .map(|tenth| {
            (
                Lsn(tenth * 1_677_721),
                ago(i64::try_from((LAST * 10 + 5 - tenth) * 10).unwrap()),
            )
        })
        .find(|(lsn, _)| *lsn >= protected && *lsn < flush)
        .map_or(OldestCommit::None, |(_, at)| OldestCommit::At(at))
}

fn judge(facts: &Facts) -> (Survey, Verdict) {
    let survey = survey(facts);
    let verdict = assess(facts, &survey, &oldest_commit(facts, survey.protection.protected));
    (survey, verdict)
}

/// The segments that a recovery from this LSN to the last filled segment asks for.
fn asked_for(facts: &Facts, from: Lsn) -> Vec<wal::SegmentName> {
    (from.0 / SIZE.bytes()..LAST)
        .map(|number| segment(facts.history.timeline_of_segment(number, SIZE).0, number))
        .collect()
}

/// Rows that follow upon each other and are alike, as one run.
fn taken_together(mut rows: Vec<BrokenRun>) -> Vec<BrokenRun> {
    rows.sort_by_key(|row| row.first);
    rows.dedup_by_key(|row| row.first);
    let mut runs: Vec<BrokenRun> = Vec::new();
    for row in rows {
        match runs.last_mut() {
            Some(run)
                if run.last.next() == Some(row.first)
                    && (run.status, &run.problem, run.stored) == (row.status, &row.problem, row.stored) =>
            {
                run.last = row.last;
                run.noticed_at = run.noticed_at.min(row.noticed_at);
            }
            _ => runs.push(row),
        }
    }
    runs
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn rows_taken_together_say_the_same_as_one_by_one(facts in any_cluster()) {
        let mut facts = facts;
        facts.broken.sort_by_key(|row| row.first);
        facts.broken.dedup_by_key(|row| row.first);
        let together = Facts { broken: taken_together(facts.broken.clone()), ..facts.clone() };
        prop_assert_eq!(survey(&facts), survey(&together));
    }

    #[test]
    fn a_cluster_is_never_ready_with_a_bad_segment_behind_the_newest_usable_backup(facts in any_cluster()) {
        let (survey, verdict) = judge(&facts);
        if verdict.status == Readiness::Ready {
            let newest = facts.backups.iter().find(|b| Some(b.id) == survey.newest_usable);
            let Some(newest) = newest else { return Err(TestCaseError::fail("ready without a backup")) };
            let from = if newest.wal_included { newest.end } else { newest.start }.unwrap();
            for segment in asked_for(&facts, from) {
                let bad = facts.broken.iter().any(|b| b.first == segment && b.status.is_bad());
                prop_assert!(!bad, "{segment} is bad");
            }
            prop_assert!(facts.worker.last_tick_at.is_some_and(|at| at > ago(31)));
        }
    }

    #[test]
    fn what_is_called_recoverable_is_covered_by_verified_segments(facts in any_cluster()) {
        let (survey, _) = judge(&facts);
        for usable in survey.backups.iter().filter_map(|(_, verdict)| verdict.as_ref().ok()) {
            let backup = facts.backups.iter().find(|b| b.id == usable.id).unwrap();
            prop_assert!(usable.reach >= usable.consistent_at);
            if !usable.on_history {
                continue;
            }
            let from = if backup.wal_included { backup.end } else { backup.start }.unwrap();
            for segment in asked_for(&facts, from) {
                if segment.start() >= usable.reach {
                    break;
                }
                let own = backup.wal_included && segment.end() > usable.reach;
                let covered = facts
                    .extents
                    .iter()
                    .any(|e| e.timeline == segment.timeline && e.first <= segment.start() && segment.end() <= e.last);
                let verified = covered && !facts.broken.iter().any(|b| b.first == segment);
                prop_assert!(own || verified, "{segment} for {}", usable.id);
            }
        }
        for pair in survey.windows.windows(2) {
            prop_assert!(pair[0].to_lsn < pair[1].from_lsn || pair[0].timeline != pair[1].timeline || !pair[0].is_current);
        }
    }

    #[test]
    fn the_exposure_is_known_exactly_when_something_protects(facts in any_cluster()) {
        let (survey, verdict) = judge(&facts);
        prop_assert_eq!(verdict.rpo_bytes.is_some(), survey.protection.protected.is_some());
        prop_assert_eq!(verdict.rpo_seconds.is_some(), survey.protection.protected.is_some());
        prop_assert_eq!(verdict.status == Readiness::Unrecoverable, survey.protection.protected.is_none());
        prop_assert_eq!(verdict.window.is_some(), survey.newest_usable.is_some());
        prop_assert!(verdict.status == Readiness::Ready || !verdict.reasons.is_empty());
        for reason in &verdict.reasons {
            prop_assert!(reason.sentence.ends_with('.') && !reason.sentence.contains(".."), "{}", reason.sentence);
        }
    }

    #[test]
    fn mending_a_fault_never_makes_the_verdict_worse(facts in any_cluster(), which in 0_usize..12) {
        let (before_survey, before) = judge(&facts);
        let mut mended = facts.clone();
        match which {
            0 => mended.worker.last_tick_at = Some(ago(1)),
            1 => mended.archiver.failing = None,
            2 => mended.archiver.source = Ok("dir:/mnt/archive".to_owned()),
            3 => mended.archiver.unreadable = None,
            4 => mended.broken_histories.clear(),
            5 => mended.rates = restores_in(60.0),
            6 => mended.backups.retain(|b| b.status != BackupStatus::Failed),
            7 => mended.backups.iter_mut().for_each(|b| b.verification = Verification::Passed),
            _ => {
                if !mended.broken.is_empty() {
                    let mend = which % mended.broken.len();
                    mended.broken.remove(mend);
                }
            }
        }
        let (after_survey, after) = judge(&mended);
        prop_assert!(after.status <= before.status, "{:?} became {:?}", before.reasons, after.reasons);
        prop_assert!(after_survey.protection.protected >= before_survey.protection.protected);
    }

    #[test]
    fn every_bad_segment_on_the_way_from_a_backup_is_in_a_gap_that_names_it(facts in any_cluster()) {
        let (survey, _) = judge(&facts);
        for bad in facts.broken.iter().filter(|b| b.status.is_bad()) {
            let gaps: Vec<&Gap> =
                survey.gaps.iter().filter(|g| g.first <= bad.first && bad.first <= g.last).collect();
            prop_assert_eq!(gaps.len(), 1);
            for (id, verdict) in &survey.backups {
                if let Err(Unusable::WalBroken { segment, .. }) = verdict
                    && *segment == bad.first
                {
                    prop_assert!(gaps[0].affected_backups.contains(id), "{segment} breaks {id}");
                }
            }
        }
    }
}
