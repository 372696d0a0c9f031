//! Usable backups, windows, gaps and the protected LSN.

use archive::Status;
use wal::{Timeline, TimelineHistory};

use super::scenario::*;
use crate::*;

/// Each window as (backup, from, to, what ended it, whether it is current), positions in segments.
fn shown(facts: &Facts) -> Vec<(i64, f64, f64, String, bool)> {
    let segments = |lsn: wal::Lsn| lsn.0 as f64 / 16_777_216.0;
    survey(facts)
        .windows
        .into_iter()
        .map(|w| {
            (
                w.backup_id,
                segments(w.from_lsn),
                segments(w.to_lsn),
                w.ended_by.to_string(),
                w.is_current,
            )
        })
        .collect()
}

fn why(facts: &Facts, id: i64) -> String {
    survey(facts).backup(id).unwrap().as_ref().unwrap_err().to_string()
}

#[test]
fn a_backup_and_the_wal_after_it_make_a_window_that_ends_now() {
    let facts = cluster(vec![backup(1, 2.25, 2.5)]);
    assert_eq!(shown(&facts), [(1, 2.5, 10.0, "now".to_owned(), true)]);
    let protection = survey(&facts).protection;
    assert_eq!(protection.protected, Some(at(10.0)));
    assert_eq!(protection.rpo_bytes, Some(8 << 20));
}

#[test]
fn backups_in_one_unbroken_stretch_share_a_window() {
    let facts = cluster(vec![backup(2, 6.0, 6.5), backup(1, 2.25, 2.5)]);
    assert_eq!(shown(&facts), [(1, 2.5, 10.0, "now".to_owned(), true)]);
    assert_eq!(survey(&facts).windows[0].backups, [1, 2]);
    assert_eq!(survey(&facts).newest_usable, Some(2));
}

#[test]
fn a_gap_parts_two_windows_and_names_the_backups_it_breaks() {
    let facts = cluster(vec![backup(1, 2.25, 2.5), backup(2, 6.0, 6.5)]).with_broken([missing(4)]);
    assert_eq!(
        shown(&facts),
        [
            (
                1,
                2.5,
                4.0,
                "gap at segment 000000010000000000000004: missing".to_owned(),
                false
            ),
            (2, 6.5, 10.0, "now".to_owned(), true),
        ]
    );
    let gaps = survey(&facts).gaps;
    assert_eq!(
        (gaps.len(), gaps[0].affected_backups.as_slice(), gaps[0].affects_newest),
        (1, &[1][..], false)
    );
    assert_eq!(gaps[0].state, GapState::Lost);
}

#[test]
fn the_first_segment_that_a_backup_needs_decides_over_it() {
    let facts = cluster(vec![backup(1, 2.25, 2.5), backup(2, 6.0, 6.5)]).with_broken([missing(6)]);
    assert_eq!(survey(&facts).newest_usable, Some(1));
    assert_eq!(
        why(&facts, 2),
        "segment 000000010000000000000006, which it needs, is missing"
    );
    assert_eq!(survey(&facts).protection.protected, Some(at(6.0)));
    assert_eq!(survey(&facts).gaps[0].affected_backups, [1, 2]);
}

#[test]
fn a_gap_inside_a_backup_makes_it_unusable_and_one_behind_its_end_does_not() {
    let inside = cluster(vec![backup(1, 2.25, 5.5)]).with_broken([broken(1, 5, Status::Corrupt, "bad_record_crc")]);
    assert_eq!(
        why(&inside, 1),
        "segment 000000010000000000000005, which it needs, is corrupt (bad_record_crc)"
    );
    let behind = cluster(vec![backup(1, 2.25, 5.0)]).with_broken([missing(5)]);
    assert_eq!(survey(&behind).windows[0].from_lsn, survey(&behind).windows[0].to_lsn);
}

#[test]
fn wal_that_was_never_seen_does_not_count() {
    let older_than_the_archive = backup(1, 0.5, 2.5);
    let newer_than_what_is_verified = backup(2, 10.1, 10.2);
    let facts = cluster(vec![older_than_the_archive, newer_than_what_is_verified]);
    assert_eq!(
        why(&facts, 1),
        "segment 000000010000000000000000, which it needs, is not verified yet"
    );
    assert_eq!(
        why(&facts, 2),
        "segment 00000001000000000000000A, which it needs, is not verified yet"
    );
    assert_eq!(survey(&facts).protection, Protection::default());
}

#[test]
fn a_pending_segment_stops_the_window_and_is_no_gap_until_it_is_late() {
    let mut pending = broken(1, 8, Status::Pending, "");
    pending.noticed_at = ago(20);
    let mut facts = cluster(vec![backup(1, 2.25, 2.5)]).with_broken([pending]);
    assert_eq!(
        shown(&facts),
        [(
            1,
            2.5,
            8.0,
            "segment 000000010000000000000008 is not verified yet".to_owned(),
            true
        )]
    );
    assert_eq!(survey(&facts).gaps, []);
    facts.broken[0].noticed_at = ago(61);
    assert_eq!(survey(&facts).gaps[0].state, GapState::Late);
    facts.broken[0].stored = true;
    assert_eq!(survey(&facts).gaps, [], "it is there and waits for its turn");
}

#[test]
fn an_acknowledged_gap_still_breaks_the_window() {
    let facts = cluster(vec![backup(1, 2.25, 2.5)]).with_broken([broken(1, 4, Status::Acknowledged, "missing")]);
    assert_eq!(
        shown(&facts)[0].3,
        "gap at segment 000000010000000000000004: acknowledged as lost"
    );
    assert_eq!(survey(&facts).gaps[0].state, GapState::Acknowledged);
}

#[test]
fn runs_of_the_same_trouble_are_one_gap() {
    let rescuable = [7, 8].map(|n| broken(1, n, Status::Missing, "not_archived"));
    let facts = cluster(vec![backup(1, 2.25, 2.5)])
        .with_broken([missing(4), missing(3)])
        .with_broken(rescuable);
    let gaps: Vec<_> = survey(&facts)
        .gaps
        .iter()
        .map(|g| (g.first.number, g.last.number, g.segments, g.state))
        .collect();
    assert_eq!(gaps, [(3, 4, 2, GapState::Lost), (7, 8, 2, GapState::Rescuable)]);
}

#[test]
fn a_backup_with_its_wal_inside_needs_no_archive_to_become_consistent() {
    let mut own = backup(1, 2.25, 2.5);
    own.wal_included = true;
    let mut facts = cluster(vec![own]);
    facts.extents.clear();
    facts.archiver.mode_on = false;
    assert_eq!(
        shown(&facts),
        [(
            1,
            2.5,
            2.5,
            "segment 000000010000000000000002 is not verified yet".to_owned(),
            true
        )]
    );
    assert_eq!(survey(&facts).protection.protected, Some(at(2.5)));
    facts.extents = vec![Extent {
        timeline: Timeline(1),
        first: at(2.0),
        last: at(5.0),
    }];
    assert_eq!(
        survey(&facts).protection.protected,
        Some(at(5.0)),
        "from the segment that its end lies in, WAL follows"
    );
    facts.extents = vec![Extent {
        timeline: Timeline(1),
        first: at(3.0),
        last: at(5.0),
    }];
    assert_eq!(
        survey(&facts).protection.protected,
        Some(at(2.5)),
        "the rest of its last segment is not there"
    );
}

#[test]
fn without_an_archive_a_backup_counts_by_the_wal_inside_it_alone() {
    let mut own = backup(1, 2.25, 2.5);
    own.wal_included = true;
    let mut without = backup(2, 6.25, 6.5);
    without.finished_at = Some(ago(60));
    let mut facts = cluster(vec![own, without]);
    facts.extents.clear();
    facts.archiver.mode_on = false;
    facts.archiver.source = Err("no archive_command is set".to_owned());
    assert_eq!(
        shown(&facts),
        [(1, 2.5, 2.5, "WAL is not archived any further".to_owned(), true)]
    );
    assert_eq!(survey(&facts).newest_usable, Some(1));
    assert_eq!(
        why(&facts, 2),
        "segment 000000010000000000000006, which it needs, is not inside it, and WAL is not archived"
    );
    assert_eq!(survey(&facts).gaps, []);
    assert_eq!(survey(&facts).protection.protected, Some(at(2.5)));
    // What was archived before archiving was turned off still counts, as far as it goes.
    facts.extents = vec![Extent {
        timeline: Timeline(1),
        first: at(2.0),
        last: at(4.0),
    }];
    assert_eq!(shown(&facts)[0].2, 4.0);
    facts.backups[0].verification = Verification::Failed;
    assert_eq!(shown(&facts), []);
}

#[test]
fn a_chain_of_backups_with_their_wal_inside_needs_no_archive() {
    let mut full = backup(1, 2.0, 2.5);
    full.wal_included = true;
    let mut incremental = backup(2, 4.0, 4.5);
    incremental.backup_type = BackupType::Incremental;
    incremental.parent_id = Some(1);
    incremental.wal_included = true;
    let mut facts = cluster(vec![full, incremental]);
    facts.extents.clear();
    facts.archiver.mode_on = false;
    facts.archiver.source = Err("no archive_command is set".to_owned());
    let shown: Vec<_> = shown(&facts).into_iter().map(|w| (w.0, w.1, w.2, w.4)).collect();
    assert_eq!(shown, [(1, 2.5, 2.5, false), (2, 4.5, 4.5, true)]);
}

#[test]
fn dumps_are_no_windows() {
    let mut dump = backup(1, 2.25, 2.5);
    dump.backup_type = BackupType::Logical;
    let facts = cluster(vec![dump]);
    assert_eq!(shown(&facts), []);
    assert_eq!(survey(&facts).backups, []);
}

#[test]
fn an_incremental_backup_is_as_good_as_what_it_builds_on() {
    let incremental = |id, parent, start, end| {
        let mut b = backup(id, start, end);
        b.backup_type = BackupType::Incremental;
        b.parent_id = parent;
        b
    };
    let mut facts = cluster(vec![
        backup(1, 2.0, 2.5),
        incremental(2, Some(1), 4.0, 4.5),
        incremental(3, Some(2), 6.0, 6.5),
    ]);
    assert_eq!(survey(&facts).newest_usable, Some(3));
    facts.backups[0].verification = Verification::Failed;
    assert_eq!(
        why(&facts, 3),
        "backup 2, which it builds on, cannot be restored: backup 1, which it builds on, cannot be restored: its verification failed; see its \
         verification_detail"
    );
    assert_eq!(survey(&facts).newest_usable, None);
    let orphan = cluster(vec![incremental(2, None, 4.0, 4.5), incremental(3, Some(77), 6.0, 6.5)]);
    assert_eq!(why(&orphan, 2), "the backup that it builds on is not on record");
    assert_eq!(why(&orphan, 3), "the backup that it builds on is not on record");
    let circular = cluster(vec![
        incremental(2, Some(3), 4.0, 4.5),
        incremental(3, Some(2), 6.0, 6.5),
    ]);
    assert!(why(&circular, 2).contains("on itself"));
}

#[test]
fn an_incremental_backup_needs_the_files_of_what_it_builds_on_and_not_their_wal() {
    let mut incremental = backup(2, 6.0, 6.5);
    incremental.backup_type = BackupType::Incremental;
    incremental.parent_id = Some(1);
    let facts = cluster(vec![backup(1, 2.0, 2.5), incremental]).with_broken([missing(2)]);
    assert_eq!(
        why(&facts, 1),
        "segment 000000010000000000000002, which it needs, is missing"
    );
    assert_eq!(shown(&facts), [(2, 6.5, 10.0, "now".to_owned(), true)]);
}

#[test]
fn a_window_goes_on_over_a_promotion_and_reads_the_switch_segment_from_the_new_timeline() {
    let mut facts = cluster(vec![backup(1, 2.25, 2.5)]);
    facts.history = TimelineHistory::parse(Timeline(2), "1\t0/5800000\tno recovery target specified\n").unwrap();
    facts.extents = vec![
        Extent {
            timeline: Timeline(1),
            first: at(1.0),
            last: at(5.0),
        },
        Extent {
            timeline: Timeline(2),
            first: at(5.0),
            last: at(10.0),
        },
    ];
    assert_eq!(shown(&facts), [(1, 2.5, 10.0, "now".to_owned(), true)]);
    assert_eq!(survey(&facts).windows[0].timeline, Timeline(2));
    facts.broken = vec![broken(1, 5, Status::Missing, "missing")];
    assert_eq!(
        survey(&facts).protection.protected,
        Some(at(10.0)),
        "the old timeline's last segment is not asked for"
    );
    facts.broken = vec![broken(2, 5, Status::Missing, "not_archived")];
    let window = &survey(&facts).windows[0];
    assert_eq!(
        (window.timeline, window.to_lsn, window.is_current),
        (Timeline(1), at(5.0), false)
    );
    facts.broken.clear();
    facts.broken_histories = vec![BrokenHistory {
        timeline: Timeline(2),
        problem: "missing_history".to_owned(),
    }];
    assert_eq!(shown(&facts)[0].3, "history file of timeline 2: missing_history");
}

#[test]
fn a_backup_on_a_branch_that_the_server_left_has_its_own_window_and_protects_nothing() {
    let mut left = backup(2, 6.25, 6.5);
    left.finished_at = Some(ago(10));
    let mut facts = cluster(vec![backup(1, 2.25, 2.5), left]);
    facts.history = TimelineHistory::parse(Timeline(2), "1\t0/5800000\tno recovery target specified\n").unwrap();
    facts.extents = vec![
        Extent {
            timeline: Timeline(1),
            first: at(1.0),
            last: at(8.0),
        },
        Extent {
            timeline: Timeline(2),
            first: at(5.0),
            last: at(10.0),
        },
    ];
    assert_eq!(survey(&facts).newest_usable, Some(1));
    assert_eq!(
        shown(&facts),
        [
            (
                2,
                6.5,
                8.0,
                "end of archived WAL of timeline 1, which the server has left".to_owned(),
                false
            ),
            (1, 2.5, 10.0, "now".to_owned(), true),
        ]
    );
}

#[test]
fn a_receiver_protects_further_than_the_archive() {
    let mut facts = cluster(vec![backup(1, 2.25, 2.5)]);
    facts.receivers = vec![at(9.0), at(10.25)];
    let protection = survey(&facts).protection;
    assert_eq!(
        (protection.protected, protection.contiguous_to),
        (Some(at(10.25)), Some(at(10.0)))
    );
    facts.backups.clear();
    assert_eq!(survey(&facts).protection.protected, Some(at(10.25)));
}
