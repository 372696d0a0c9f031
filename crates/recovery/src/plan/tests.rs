//! Choices among made-up windows: one of segments 1 to 9, a gap, one of segments 20 to 29, all on timeline 1.

mod apart;
mod branch;
mod hostile;
mod steps;

use chrono::{DateTime, TimeDelta, Utc};
use wal::{Lsn, SegmentName, Timeline};

use super::refusal::Asked;
use super::*;
use crate::tests::scenario::{SIZE, at, backup, cluster, now, segment};

/// So many minutes before now.
fn minutes(ago: i64) -> DateTime<Utc> {
    now() - TimeDelta::minutes(ago)
}

fn origin(id: i64, start: f64, end: f64, ago: i64) -> Origin {
    Origin {
        id,
        start: at(start),
        consistent_at: at(end),
        consistent_time: Some(minutes(ago)),
        has_place: true,
    }
}

fn stretch(timeline: u32, first: u64, last: u64, from: i64, to: i64, origins: Vec<Origin>) -> Stretch {
    Stretch {
        timeline: Timeline(timeline),
        on_history: timeline == 1,
        is_current: false,
        bounds: Bounds {
            from_time: Some(minutes(from)),
            to_time: Some(minutes(to)),
            from_lsn: origins.first().map_or(Lsn(0), |origin| origin.consistent_at),
            to_lsn: segment(timeline, last).end().less(100),
        },
        origins,
        segments: vec![archive::expected::Stretch {
            timeline: Timeline(timeline),
            first,
            last,
            size: SIZE,
        }],
    }
}

fn windows() -> Vec<Stretch> {
    let first = vec![origin(1, 1.2, 1.5, 100), origin(2, 5.2, 5.5, 80)];
    let second = vec![origin(3, 20.2, 20.5, 50), origin(4, 24.2, 24.5, 30)];
    let mut windows = vec![stretch(1, 1, 9, 100, 60, first), stretch(1, 20, 29, 50, 10, second)];
    if let Some(last) = windows.last_mut() {
        last.is_current = true;
    }
    windows
}

fn wanted(target: Target) -> Wanted {
    Wanted {
        target,
        inclusive: true,
        timeline: None,
    }
}

fn chosen(target: Target) -> Result<Choice, Refusal> {
    choose(
        &windows(),
        &windows().as_slice(),
        &wanted(target),
        &Evidence::default(),
        now(),
    )
}

fn point(number: u64, lsn: f64) -> Point {
    Point {
        segment: segment(1, number),
        lsn: at(lsn),
        at: None,
    }
}

fn with_points(points: &[(u64, f64)]) -> Result<Choice, Refusal> {
    let evidence = Evidence {
        points: points.iter().map(|(number, lsn)| point(*number, *lsn)).collect(),
        ..Evidence::default()
    };
    choose(
        &windows(),
        &windows().as_slice(),
        &wanted(Target::Name("here".to_owned())),
        &evidence,
        now(),
    )
}

#[test]
fn without_a_target_it_is_the_newest_backup_and_the_end_of_the_wal() {
    let choice = chosen(Target::Latest).unwrap();
    assert_eq!(
        (choice.backup, choice.stop, choice.timeline),
        (4, Stop::End, Timeline(1))
    );
}

#[test]
fn a_time_is_reached_from_the_newest_backup_that_was_consistent_by_then() {
    for (ago, backup) in [(99, 1), (100, 1), (80, 2), (61, 2), (49, 3), (30, 4), (11, 4)] {
        let choice = chosen(Target::Time(minutes(ago))).unwrap();
        assert_eq!(
            (choice.backup, choice.stop),
            (backup, Stop::Time(minutes(ago))),
            "{ago} minutes ago"
        );
    }
}

#[test]
fn the_last_commit_of_a_window_is_reached_by_its_lsn_since_no_later_one_stops_the_server() {
    let choice = chosen(Target::Time(minutes(60))).unwrap();
    assert_eq!((choice.backup, choice.stop), (2, Stop::Lsn(windows()[0].bounds.to_lsn)));
    assert!(choice.inclusive);
    let wanted = Wanted {
        inclusive: false,
        ..wanted(Target::Time(minutes(60)))
    };
    let choice = choose(&windows(), &windows().as_slice(), &wanted, &Evidence::default(), now()).unwrap();
    assert_eq!((choice.stop, choice.inclusive), (Stop::Time(minutes(60)), false));
}

#[test]
fn a_time_that_nothing_holds_is_refused_with_both_neighbours() {
    let refusal = chosen(Target::Time(minutes(55))).unwrap_err();
    let shown = refusal.detail();
    let (ends, begins) = (windows()[0].end().to_string(), windows()[1].beginning().to_string());
    assert!(shown.contains(&ends) && shown.contains(&begins), "{shown}");
    for (ago, what) in [(101, "before the first moment"), (9, "after the last moment")] {
        let refusal = chosen(Target::Time(minutes(ago))).unwrap_err();
        assert!(refusal.to_string().contains(what), "{refusal}");
    }
    let refusal = chosen(Target::Time(minutes(-1))).unwrap_err();
    assert!(
        matches!(refusal, Refusal::InTheFuture { last: Some(_), .. }),
        "{refusal}"
    );
}

#[test]
fn an_lsn_is_reached_from_the_consistent_point_to_the_last_record() {
    let last = windows()[1].bounds.to_lsn;
    for (lsn, backup) in [(at(1.5), 1), (at(5.49), 1), (at(5.5), 2), (at(20.5), 3), (last, 4)] {
        let choice = chosen(Target::Lsn(lsn)).unwrap();
        assert_eq!((choice.backup, choice.stop), (backup, Stop::Lsn(lsn)), "{lsn}");
    }
    for lsn in [at(1.4), at(12.0), last.plus(1), Lsn(0), Lsn::MAX] {
        let refusal = chosen(Target::Lsn(lsn)).unwrap_err();
        assert!(
            matches!(
                refusal,
                Refusal::Outside {
                    asked: Asked::Lsn(_),
                    ..
                }
            ),
            "{lsn}: {refusal}"
        );
        assert!(
            !refusal.detail().is_empty() && refusal.hint().contains("recovery_windows"),
            "{lsn}"
        );
    }
}

#[test]
fn a_restore_point_is_reached_by_name_from_a_backup_behind_older_ones_of_that_name() {
    let choice = with_points(&[(7, 7.5)]).unwrap();
    assert_eq!((choice.backup, choice.stop), (2, Stop::Name("here".to_owned())));
    // The backup of segment 24 lies behind the older one.
    let choice = with_points(&[(22, 22.5), (27, 27.5)]).unwrap();
    assert_eq!((choice.backup, choice.stop_lsn), (4, Some(at(27.5))));
    // And where there is none, the LSN is the way.
    let refusal = with_points(&[(26, 26.5), (27, 27.5)]).unwrap_err();
    assert!(matches!(refusal, Refusal::Repeated { .. }), "{refusal}");
    assert!(
        refusal
            .hint()
            .contains(&format!("'{}', target_inclusive => false", at(27.5))),
        "{}",
        refusal.hint()
    );
    // Before the consistent point of the first backup, and in the gap.
    for place in [(1, 1.3), (12, 12.5)] {
        assert!(
            matches!(with_points(&[place]).unwrap_err(), Refusal::Outside { .. }),
            "{place:?}"
        );
    }
}

#[test]
fn a_name_that_nothing_has_is_refused_with_those_that_are_known() {
    let evidence = Evidence {
        newest_names: vec!["monday".to_owned(), "sunday".to_owned()],
        ..Evidence::default()
    };
    let refusal = choose(
        &windows(),
        &windows().as_slice(),
        &wanted(Target::Name("tuesday".to_owned())),
        &evidence,
        now(),
    )
    .unwrap_err();
    assert!(
        refusal.detail().contains("\"monday\", \"sunday\""),
        "{}",
        refusal.detail()
    );
    assert!(refusal.is_about_absence());
}

#[test]
fn a_transaction_is_reached_from_a_backup_that_is_consistent_at_its_commit() {
    let commit = |number: u64, lsn: f64| FoundCommit {
        segment: segment(1, number),
        lsn: at(lsn),
        at: None,
    };
    let with = |commits: Vec<FoundCommit>| {
        let evidence = Evidence {
            commits,
            ..Evidence::default()
        };
        choose(
            &windows(),
            &windows().as_slice(),
            &wanted(Target::Xid(800)),
            &evidence,
            now(),
        )
    };
    let choice = with(vec![commit(24, 24.6)]).unwrap();
    assert_eq!((choice.backup, choice.stop), (4, Stop::Xid(800)));
    assert_eq!(with(vec![commit(24, 24.4)]).unwrap().backup, 3);
    assert!(matches!(with(vec![commit(12, 12.4)]), Err(Refusal::Outside { .. })));
    assert!(matches!(with(Vec::new()), Err(Refusal::UnknownXid { .. })));
}

#[test]
fn a_backup_of_which_nobody_knows_where_it_is_is_taken_only_where_there_is_no_other() {
    let mut windows = windows();
    windows[1].origins[1].has_place = false;
    let of =
        |windows: &[Stretch]| choose(windows, &windows, &wanted(Target::Latest), &Evidence::default(), now()).unwrap();
    assert_eq!((of(&windows).backup, of(&windows).newer_without_place), (3, Some(4)));
    windows[1].origins[0].has_place = false;
    assert_eq!((of(&windows).backup, of(&windows).newer_without_place), (4, None));
}

#[test]
fn a_branch_is_recovered_only_when_it_is_asked_for() {
    let mut windows = windows();
    windows.insert(0, stretch(7, 40, 45, 70, 65, vec![origin(9, 40.2, 40.5, 70)]));
    let time = |timeline| Wanted {
        timeline,
        ..wanted(Target::Lsn(at(41.0)))
    };
    let refusal = choose(&windows, &windows.as_slice(), &time(None), &Evidence::default(), now()).unwrap_err();
    assert!(refusal.hint().contains("target_timeline => 7"), "{}", refusal.hint());
    let choice = choose(
        &windows,
        &windows.as_slice(),
        &time(Some(Timeline(7))),
        &Evidence::default(),
        now(),
    )
    .unwrap();
    assert_eq!((choice.backup, choice.timeline), (9, Timeline(7)));
    let refusal = choose(
        &windows,
        &windows.as_slice(),
        &time(Some(Timeline(3))),
        &Evidence::default(),
        now(),
    )
    .unwrap_err();
    assert!(refusal.detail().contains("timeline 1, 7"), "{}", refusal.detail());
}

#[test]
fn without_any_window_there_is_no_plan() {
    let refusal = choose(
        &[],
        &[].as_slice(),
        &wanted(Target::Latest),
        &Evidence::default(),
        now(),
    )
    .unwrap_err();
    assert!(
        refusal.is_about_state() && refusal.hint().contains("base backup"),
        "{refusal}"
    );
}

#[test]
fn of_several_windows_without_a_present_the_newest_is_recovered() {
    let mut windows = windows();
    windows[1].is_current = false;
    let of =
        |windows: &[Stretch]| choose(windows, &windows, &wanted(Target::Latest), &Evidence::default(), now()).unwrap();
    assert_eq!(of(&windows).backup, 4);
    // One that reaches the present is taken all the same.
    windows[0].is_current = true;
    assert_eq!(of(&windows).backup, 2);
}

fn commits(number: f64, first: i64, last: i64, latest: i64) -> CommitTimes {
    CommitTimes {
        start: at(number),
        first: minutes(first),
        last: minutes(last),
        latest: minutes(latest),
    }
}

/// What reading a segment tells.
fn found(is_behind_later: bool) -> impl Fn(Lsn) -> Option<CommitsUpTo> {
    move |start| {
        Some(CommitsUpTo {
            last: start.plus(8),
            is_behind_later,
        })
    }
}

/// Checks a target 20 minutes ago, where reading a segment finds this.
fn checked(ahead: CommitTimes, behind: CommitTimes, read: impl Fn(Lsn) -> Option<CommitsUpTo>) -> Result<(), Refusal> {
    let choice = chosen(Target::Time(minutes(20))).unwrap();
    check_clock(&choice, Some(ahead), Some(behind), &mut |start| read(start))
}

#[test]
fn a_clock_set_back_is_noticed_where_replay_would_meet_it() {
    // In order: the last commit up to the target lies before the first later one, or in the same segment.
    let (before, later) = (commits(26.0, 22, 21, 21), commits(27.0, 19, 18, 18));
    assert_eq!(checked(later, before, found(false)), Ok(()));
    let both = commits(27.0, 21, 18, 18);
    assert_eq!(checked(both, both, found(false)), Ok(()));
    let choice = chosen(Target::Time(minutes(20))).unwrap();
    assert_eq!(check_clock(&choice, None, None, &mut |_| None), Ok(()));
    let refusal = checked(commits(26.0, 19, 5, 5), commits(28.0, 25, 15, 15), found(false)).unwrap_err();
    assert!(
        refusal.hint().contains(&at(28.0).plus(8).to_string()),
        "{}",
        refusal.hint()
    );
    let back = commits(27.0, 15, 21, 15);
    assert!(checked(back, back, found(true)).is_err());
}

#[test]
fn a_clock_that_was_ahead_in_the_middle_of_a_segment_is_noticed_and_a_late_abort_at_its_end_is_none() {
    let segment = commits(27.0, 25, 21, 5);
    let refusal = checked(segment, segment, found(true)).unwrap_err();
    assert!(
        matches!(refusal, Refusal::ClockWentBack { ahead_at, .. } if ahead_at == minutes(5)),
        "{refusal}"
    );
    assert_eq!(checked(segment, segment, found(false)), Ok(()));
    // Nobody may look.
    assert!(checked(segment, segment, |_| None).is_err());
    // In a segment before that of the last commit it is no question.
    let aborts = commits(26.0, 5, 5, 5);
    assert!(checked(aborts, segment, found(false)).is_err());
}

#[test]
fn a_window_of_the_survey_is_taken_with_the_segments_and_the_backups_in_it() {
    let facts = cluster(vec![backup(1, 2.5, 3.5), backup(2, 5.5, 6.5)]);
    let survey = crate::survey(&facts);
    let all = Stretch::all(&facts, &survey, &|usable, start| {
        // The second one is no copy of the cluster.
        (usable.id == 1).then(|| Origin {
            start,
            ..origin(usable.id, 0.0, 3.5, 0)
        })
    });
    let [of] = all.as_slice() else { panic!("{all:?}") };
    assert_eq!(
        of.origins
            .iter()
            .map(|origin| (origin.id, origin.start))
            .collect::<Vec<_>>(),
        [(1, at(2.5))]
    );
    assert!(of.on_history && of.is_current);
    assert!(of.holds(&segment(1, 2)) && of.holds(&segment(1, 9)) && !of.holds(&segment(1, 10)));
    assert_eq!(of.bounds.from_lsn, at(3.5));
}

#[test]
fn segments_are_held_and_their_ranges_told_from_a_start() {
    let windows = windows();
    assert!(
        windows[1].holds(&segment(1, 20)) && !windows[1].holds(&segment(1, 30)) && !windows[1].holds(&segment(2, 25))
    );
    let end = SegmentName::containing(Timeline(1), at(29.0), SIZE).end();
    assert_eq!(windows[1].ranges(at(24.2)), [(Timeline(1), at(24.0), end)]);
    assert_eq!(windows[1].ranges(at(30.0)), []);
}

mod properties {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Whatever is asked for, what is chosen lies in a window, behind the consistent point of its backup.
        #[test]
        fn every_choice_lies_between_its_backup_and_the_end_of_its_window(
            lsn in 0_u64..40 << 24,
            micros in -7_200_000_000_i64..600_000_000,
            inclusive: bool,
        ) {
            let time = now() + TimeDelta::microseconds(micros);
            for target in [Target::Lsn(Lsn(lsn)), Target::Time(time)] {
                let wanted = Wanted { target, inclusive, timeline: None };
                let windows = windows();
                match choose(&windows, &windows.as_slice(), &wanted, &Evidence::default(), now()) {
                    Ok(choice) => {
                        let stretch = &windows[choice.stretch];
                        let origin = stretch.origins.iter().find(|origin| origin.id == choice.backup).unwrap();
                        match choice.stop {
                            Stop::Lsn(lsn) => {
                                prop_assert!(origin.consistent_at <= lsn && lsn <= stretch.bounds.to_lsn);
                            }
                            Stop::Time(time) => {
                                prop_assert!(origin.consistent_time.unwrap() <= time);
                                prop_assert!(time < stretch.bounds.to_time.unwrap() || !inclusive);
                            }
                            other => prop_assert!(false, "{other:?}"),
                        }
                    }
                    Err(refusal) => prop_assert!(!refusal.detail().is_empty() && !refusal.hint().is_empty()),
                }
            }
        }
    }
}
