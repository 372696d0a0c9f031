//! A plan that looks at few backups, and asks for the best one, is the plan that a look at all of them makes.

use std::collections::BTreeSet;

use chrono::{DateTime, TimeDelta, Utc};
use proptest::prelude::*;
use wal::{Lsn, SegmentName};

use super::outline::{found, with_full_backups_only};
use super::properties::any_cluster;
use super::scenario::*;
use crate::backups::{is_candidate, verdicts};
use crate::outline::{Lookup, lookups};
use crate::plan::Origin;
use crate::plan::fit::newer;
use crate::plan::*;
use crate::*;

/// When the record at a position was written, by a clock that was set back by an hour at segment 15.
fn written_at(lsn: Lsn) -> DateTime<Utc> {
    let segments = lsn.0 / (SIZE.bytes() / 10);
    let set_back = if lsn > at(15.0) { 3600 } else { 0 };
    now() - TimeDelta::days(1) + TimeDelta::seconds(i64::try_from(segments).unwrap() * 90 - set_back)
}

fn origin(usable: &Usable, start: Lsn) -> Option<Origin> {
    Some(Origin {
        id: usable.id,
        start,
        consistent_at: usable.consistent_at,
        consistent_time: Some(written_at(usable.consistent_at)),
        has_place: usable.id % 3 != 0,
    })
}

/// The windows as a plan has them.
fn stretches(facts: &Facts) -> Vec<Stretch> {
    let survey = survey(facts);
    let mut stretches = Stretch::all(facts, &survey, &origin);
    for (stretch, window) in stretches.iter_mut().zip(&survey.windows) {
        stretch.bounds = Bounds {
            from_time: Some(written_at(window.from_lsn)),
            to_time: Some(written_at(window.to_lsn).max(written_at(window.from_lsn))),
            from_lsn: window.from_lsn,
            to_lsn: window.to_lsn,
        };
    }
    stretches
}

/// Of each stretch of WAL the first and the last backup, and the one that begins first; and those that have their WAL inside.
fn few_of(facts: &Facts) -> Facts {
    let nothing = Facts {
        backups: Vec::new(),
        ..facts.clone()
    };
    let mut wanted: BTreeSet<i64> = BTreeSet::new();
    for lookup in lookups(&nothing) {
        wanted.extend(found(&lookup, &facts.backups, 0));
        let of = found(&lookup, &facts.backups, usize::MAX);
        let of = facts.backups.iter().filter(|backup| of.contains(&backup.id));
        wanted.extend(
            of.min_by_key(|backup| (backup.start, backup.id))
                .map(|backup| backup.id),
        );
    }
    let whole = |backup: &&BackupFact| is_candidate(backup) && backup.wal_included;
    wanted.extend(facts.backups.iter().filter(whole).map(|backup| backup.id));
    let backups = facts.backups.iter().filter(|backup| wanted.contains(&backup.id));
    Facts {
        backups: backups.cloned().collect(),
        ..facts.clone()
    }
}

/// Knows the backups of the windows as the extension does: those that it holds, and those that the lookups find.
struct Looked<'a> {
    all: &'a Facts,
    lookups: Vec<Lookup>,
    windows: Vec<Window>,
    stretches: &'a [Stretch],
}

impl Origins for Looked<'_> {
    fn best(&self, stretch: usize, fit: &Fit) -> Option<Best> {
        let (of, window) = (&self.stretches[stretch], &self.windows[stretch]);
        let mut suitable = of.origins.clone();
        let ids: Vec<i64> = self
            .lookups
            .iter()
            .filter(|lookup| lookup.ends_by >= window.from_lsn && lookup.ends_after < window.to_lsn)
            .flat_map(|lookup| found(lookup, &self.all.backups, usize::MAX))
            .collect();
        for (id, verdict) in verdicts(self.all, &self.all.backups) {
            let Some(usable) = verdict.ok().filter(|_| ids.contains(&id)) else {
                continue;
            };
            let start = self.all.backups.iter().find(|backup| backup.id == id).unwrap().start;
            if usable.on_history == of.on_history
                && (usable.on_history || usable.timeline == window.timeline)
                && (window.from_lsn..=window.to_lsn).contains(&usable.consistent_at)
            {
                suitable.extend(origin(&usable, start.unwrap()));
            }
        }
        suitable.retain(|origin| fit.suits(origin));
        suitable.sort_by_key(|origin| std::cmp::Reverse(newer(origin)));
        suitable.dedup_by_key(|origin| origin.id);
        Best::of(suitable.into_iter())
    }
}

fn a_target() -> impl Strategy<Value = (Target, Vec<f64>)> {
    let position = || (10_u32..305).prop_map(|tenths| f64::from(tenths) / 10.0);
    prop_oneof![
        Just((Target::Latest, Vec::new())),
        position().prop_map(|at_segment| (Target::Lsn(at(at_segment)), Vec::new())),
        position().prop_map(|at_segment| (Target::Time(written_at(at(at_segment))), Vec::new())),
        prop::collection::vec(position(), 1..4).prop_map(|places| (Target::Name("here".to_owned()), places)),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(3000))]

    #[test]
    fn a_plan_that_asks_for_backups_is_the_plan_of_all_of_them(
        facts in any_cluster(),
        (target, places) in a_target(),
        inclusive in any::<bool>(),
    ) {
        let facts = with_full_backups_only(facts);
        let all = stretches(&facts);
        let few_facts = few_of(&facts);
        let few = stretches(&few_facts);
        let looked = Looked {
            all: &facts,
            lookups: lookups(&few_facts),
            windows: survey(&few_facts).windows,
            stretches: &few,
        };
        let evidence = Evidence {
            points: places
                .iter()
                .map(|place| Point {
                    segment: SegmentName::containing(
                        facts.history.timeline_of_segment(at(*place).0 / SIZE.bytes(), SIZE), at(*place), SIZE,
                    ),
                    lsn: at(*place),
                    at: None,
                })
                .collect(),
            ..Evidence::default()
        };
        let wanted = Wanted { target, inclusive, timeline: None };
        prop_assert_eq!(
            choose(&few, &looked, &wanted, &evidence, now()),
            choose(&all, &all.as_slice(), &wanted, &evidence, now())
        );
    }
}
