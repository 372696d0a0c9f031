//! Time inside and outside of the objectives, over states that held for a while.

use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use proptest::prelude::*;

use super::scenario::now;
use crate::OldestCommit;
use crate::compliance::*;
use crate::objectives::Objectives;

const SECOND: i64 = 1_000_000;

fn after(seconds: i64) -> DateTime<Utc> {
    now() + TimeDelta::seconds(seconds)
}

/// From `now()` on, with objectives of one minute for the exposure and an hour for a recovery.
fn state(exposure: Exposure) -> State {
    State {
        at: now(),
        exposure,
        rpo_bytes: Some(1000),
        predicted_rto: Some(1800.0),
        objectives: Objectives {
            rpo: Some(Duration::from_secs(60)),
            rto: Some(Duration::from_secs(3600)),
        },
    }
}

fn share(inside: i64, outside: i64) -> Share {
    Share {
        inside: inside * SECOND,
        outside: outside * SECOND,
    }
}

#[test]
fn an_idle_cluster_stays_inside_however_long() {
    let tally = state(Exposure::None).tally(now(), after(86_400));
    assert_eq!(tally.rpo, share(86_400, 0));
    assert_eq!((tally.worst_rpo, tally.measured), (Some(0), 86_400 * SECOND));
    assert_eq!(tally.rto.kept(), Some(1.0));
}

#[test]
fn an_exposure_grows_by_a_second_a_second_until_it_is_outside() {
    let tally = state(Exposure::Since(after(-20))).tally(now(), after(100));
    assert_eq!(tally.rpo, share(40, 60));
    assert_eq!(tally.worst_rpo, Some(120 * SECOND));
    assert_eq!(tally.exposure_area, 70.0 * 100.0);
    assert_eq!(tally.rpo.kept(), Some(0.4));
}

#[test]
fn what_nothing_protects_is_outside_and_what_is_not_known_is_neither() {
    let unprotected = state(Exposure::Unprotected).tally(now(), after(10));
    assert_eq!((unprotected.rpo, unprotected.unprotected), (share(0, 10), 10 * SECOND));
    let unknown = state(Exposure::Unknown).tally(now(), after(10));
    assert_eq!(
        (unknown.rpo, unknown.observed, unknown.measured),
        (share(0, 0), 10 * SECOND, 0)
    );
    assert_eq!(unknown.rpo.kept(), None);
}

#[test]
fn without_an_objective_nothing_is_judged() {
    let free = State {
        objectives: Objectives::default(),
        ..state(Exposure::Since(now()))
    };
    let tally = free.tally(now(), after(1000));
    assert_eq!(
        (tally.rpo, tally.rto, tally.worst_rpo),
        (share(0, 0), share(0, 0), Some(1000 * SECOND))
    );
    let slow = State {
        predicted_rto: Some(3600.5),
        ..state(Exposure::None)
    };
    assert_eq!(slow.tally(now(), after(5)).rto, share(0, 5));
}

#[test]
fn a_clock_that_was_set_back_makes_no_negative_time() {
    let held = state(Exposure::Since(after(50)));
    assert_eq!(held.tally(after(10), after(-10)), Tally::default());
    assert_eq!(stretches(&held, after(-10), None), []);
    // The commit's time has yet to come: until then it cannot be old.
    let tally = held.tally(now(), after(200));
    assert_eq!((tally.rpo, tally.worst_rpo), (share(110, 90), Some(150 * SECOND)));
}

#[test]
fn what_a_look_sees_began_with_the_commit_and_not_with_the_look() {
    let (before, seen) = (state(Exposure::None), state(Exposure::Since(after(10))));
    let since = stretches(&before, after(100), Some(&seen));
    let rpo: Vec<Share> = since.iter().map(|s| s.state.tally(s.from, s.to).rpo).collect();
    assert_eq!(rpo, [share(10, 0), share(60, 30)]);
    // A commit from before the last look has lost its protection since: from when on, nobody knows.
    let lost = state(Exposure::Since(after(-10)));
    assert_eq!(stretches(&before, after(100), Some(&lost)).len(), 1);
}

#[test]
fn a_stored_sample_tells_the_same_as_the_look_that_made_it() {
    let at = after(0);
    assert_eq!(
        Exposure::stored(at, Some(12.5), true),
        Exposure::Since(at - TimeDelta::milliseconds(12_500))
    );
    assert_eq!(Exposure::stored(at, Some(0.0), true), Exposure::None);
    assert_eq!(Exposure::stored(at, None, true), Exposure::Unknown);
    assert_eq!(Exposure::stored(at, None, false), Exposure::Unprotected);
    assert_eq!(Exposure::stored(at, Some(1e300), true), Exposure::Unknown);
    assert_eq!(Exposure::stored(at, Some(f64::NAN), true), Exposure::None);
    assert_eq!(Exposure::of(false, &OldestCommit::None), Exposure::Unprotected);
    assert_eq!(Exposure::of(true, &OldestCommit::At(at)), Exposure::Since(at));
}

#[test]
fn a_stretch_is_parted_at_full_hours() {
    let from = hour_of(now()) + TimeDelta::minutes(50);
    let to = from + TimeDelta::minutes(70);
    let stretch = Stretch {
        state: state(Exposure::None),
        from,
        to,
    };
    let parts = by_hour(&stretch, 100);
    let minutes: Vec<i64> = parts
        .iter()
        .map(|(_, part)| (part.to - part.from).num_minutes())
        .collect();
    assert_eq!(minutes, [10, 60]);
    assert_eq!(parts[0].0, hour_of(now()));
    assert_eq!(by_hour(&stretch, 1).len(), 1);
}

fn any_exposure() -> impl Strategy<Value = Exposure> {
    prop_oneof![
        Just(Exposure::Unprotected),
        Just(Exposure::Unknown),
        Just(Exposure::None),
        (-10_000_000_000_i64..10_000_000_000).prop_map(|us| Exposure::Since(now() + TimeDelta::microseconds(us))),
    ]
}

fn any_state() -> impl Strategy<Value = State> {
    let objective = || prop::option::of((0_u64..20_000_000_000).prop_map(Duration::from_micros));
    (any_exposure(), prop::option::of(0.0..8000.0), objective(), objective()).prop_map(
        |(exposure, predicted_rto, rpo, rto)| State {
            predicted_rto,
            objectives: Objectives { rpo, rto },
            ..state(exposure)
        },
    )
}

fn moment() -> impl Strategy<Value = DateTime<Utc>> {
    (-20_000_000_000_i64..20_000_000_000).prop_map(|us| now() + TimeDelta::microseconds(us))
}

fn same(a: &Tally, b: &Tally) -> bool {
    let close = (a.exposure_area - b.exposure_area).abs() <= 1e-6 * a.exposure_area.abs().max(1.0);
    let exact = |t: &Tally| Tally {
        exposure_area: 0.0,
        ..*t
    };
    close && exact(a) == exact(b)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(5000))]

    #[test]
    fn parts_add_up_to_the_whole(state in any_state(), mut times in prop::collection::vec(moment(), 3)) {
        times.sort();
        let mut sum = state.tally(times[0], times[1]);
        sum.add(&state.tally(times[1], times[2]));
        let whole = state.tally(times[0], times[2]);
        prop_assert!(same(&sum, &whole), "{sum:?} is not {whole:?}");
    }

    #[test]
    fn hours_add_up_to_the_whole(state in any_state(), from in moment(), to in moment()) {
        let whole = state.tally(from, to);
        let mut sum = Tally::default();
        for (hour, part) in by_hour(&Stretch { state, from, to }, 1000) {
            prop_assert!(hour <= part.from && part.from < part.to && part.to <= hour + TimeDelta::hours(1));
            prop_assert_eq!(hour, hour_of(part.from));
            sum.add(&state.tally(part.from, part.to));
        }
        prop_assert!(same(&sum, &whole), "{sum:?} is not {whole:?}");
    }

    #[test]
    fn inside_outside_and_unknown_are_all_there_is(state in any_state(), from in moment(), to in moment()) {
        let tally = state.tally(from, to);
        let length = (to - from).num_microseconds().unwrap().max(0);
        prop_assert_eq!(tally.observed, length);
        for share in [tally.rpo, tally.rto] {
            prop_assert!(share.inside >= 0 && share.outside >= 0);
            let judged = share.inside + share.outside;
            prop_assert!(judged == 0 || judged == length);
        }
        prop_assert!(tally.measured + tally.unprotected <= length);
        prop_assert_eq!(tally.worst_rpo.is_some(), tally.measured > 0);
    }

    #[test]
    fn every_moment_is_judged_as_it_is(state in any_state(), at in moment()) {
        // A microsecond is inside exactly if the exposure at its end is within the objective.
        let tally = state.tally(at - TimeDelta::microseconds(1), at);
        if let (Some(rpo), Some(target)) = (tally.worst_rpo, state.objectives.rpo) {
            prop_assert_eq!(tally.rpo.inside == 1, rpo <= target.as_micros() as i64);
        }
    }

    #[test]
    fn what_is_seen_next_only_parts_the_time_since(before in any_state(), next in any_exposure(), held_to in moment()) {
        let next = State { at: held_to, exposure: next, ..before };
        let parts = stretches(&before, held_to, Some(&next));
        let length: i64 = parts.iter().map(|s| (s.to - s.from).num_microseconds().unwrap()).sum();
        prop_assert_eq!(length, (held_to - before.at).num_microseconds().unwrap().max(0));
        for pair in parts.windows(2) {
            prop_assert_eq!(pair[0].to, pair[1].from);
        }
    }
}
