//! The few backups of an outline lead to what all of them lead to, or to less; never to more.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use wal::{Lsn, Timeline};

use super::properties::any_cluster;
use super::scenario::*;
use crate::backups::{first_needed, is_candidate, is_on_history};
use crate::gaps::ends;
use crate::outline::{Lookup, NEWEST, lookups};
use crate::*;

/// What the lookup finds, looking at `few` at either end.
pub fn found(lookup: &Lookup, backups: &[BackupFact], few: usize) -> Vec<i64> {
    let mut found: Vec<&BackupFact> = backups
        .iter()
        .filter(|backup| is_candidate(backup) && backup.timeline == lookup.timeline)
        .filter(|backup| {
            let (Some(start), Some(end)) = (backup.start, backup.end) else {
                return false;
            };
            let needed = if backup.wal_included { end } else { start };
            lookup.from <= needed && needed < lookup.behind && lookup.ends_after < end && end <= lookup.ends_by
        })
        .collect();
    found.sort_by_key(|backup| (backup.end, backup.id));
    let full: Vec<&&BackupFact> = found.iter().filter(|b| b.backup_type == BackupType::Full).collect();
    let ends = full.first().into_iter().chain(full.last());
    let ends: Vec<i64> = ends.map(|backup| backup.id).collect();
    let few = found.iter().take(few).chain(found.iter().rev().take(few));
    few.map(|backup| backup.id).chain(ends).collect()
}

/// The same cluster as the extension would load it, looking at `few` at either end of a stretch.
fn outlined(facts: &Facts, few: usize) -> Facts {
    let nothing = Facts {
        backups: Vec::new(),
        ..facts.clone()
    };
    let mut wanted: BTreeSet<i64> = lookups(&nothing)
        .iter()
        .flat_map(|lookup| found(lookup, &facts.backups, few))
        .collect();
    let physical = || facts.backups.iter().filter(|b| b.backup_type.is_physical());
    let mut completed: Vec<&BackupFact> = physical().filter(|b| b.status == BackupStatus::Completed).collect();
    completed.sort_by_key(|b| std::cmp::Reverse((b.end, b.id)));
    wanted.extend(completed.iter().take(NEWEST).map(|b| b.id));
    wanted.extend(completed.iter().filter(|b| b.wal_included).map(|b| b.id));
    wanted.extend(
        physical()
            .filter(|b| b.status == BackupStatus::Failed)
            .map(|b| b.id)
            .max(),
    );
    loop {
        let parents = facts
            .backups
            .iter()
            .filter(|b| wanted.contains(&b.id))
            .filter_map(|b| b.parent_id);
        let more: BTreeSet<i64> = wanted.iter().copied().chain(parents).collect();
        if more == wanted {
            break;
        }
        wanted = more;
    }
    Facts {
        backups: facts
            .backups
            .iter()
            .filter(|b| wanted.contains(&b.id))
            .cloned()
            .collect(),
        needs: Some(needs(facts)),
        ..facts.clone()
    }
}

/// What the extension would load of the needs of all backups: together what lies between the ends of the same two gaps.
fn needs(facts: &Facts) -> Vec<Need> {
    let mut needs: BTreeMap<(Lsn, Timeline, bool), Vec<i64>> = BTreeMap::new();
    let ends = ends(&facts.broken);
    for backup in &facts.backups {
        let (Some(first), Some(end)) = (first_needed(backup, facts.size), backup.end) else {
            continue;
        };
        let needed = if backup.wal_included { backup.end } else { backup.start }.unwrap();
        let slice = ends.partition_point(|end| *end <= needed);
        if slice < ends.len() {
            let from = slice.checked_sub(1).map_or(Lsn::INVALID, |before| ends[before]);
            let on_history = is_on_history(&facts.history, first.timeline, end);
            needs
                .entry((from, first.timeline, on_history))
                .or_default()
                .push(backup.id);
        }
    }
    let need = |((from, timeline, on_history), ids)| Need {
        ids,
        and_more: false,
        timeline,
        on_history,
        from,
    };
    needs.into_iter().map(need).collect()
}

/// All of a survey that a view shows or the worker goes by.
type Shown = (Vec<Window>, Vec<Gap>, Protection, Option<i64>);

fn shown(facts: &Facts) -> Shown {
    let survey = survey(facts);
    let windows = survey.windows.into_iter().map(|mut window| {
        window.backups.clear();
        window
    });
    (windows.collect(), survey.gaps, survey.protection, survey.newest_usable)
}

pub fn with_full_backups_only(mut facts: Facts) -> Facts {
    facts.backups.iter_mut().for_each(|b| b.backup_type = BackupType::Full);
    facts
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(3000))]

    #[test]
    fn an_outline_leads_to_what_all_backups_lead_to(facts in any_cluster()) {
        prop_assert_eq!(shown(&outlined(&facts, 6)), shown(&facts));
    }

    #[test]
    fn one_full_backup_at_either_end_of_a_stretch_is_enough(facts in any_cluster()) {
        let facts = with_full_backups_only(facts);
        prop_assert_eq!(shown(&outlined(&facts, 0)), shown(&facts));
    }

    #[test]
    fn gaps_weigh_the_same_where_not_all_backups_that_they_affect_are_counted(facts in any_cluster()) {
        let mut few = outlined(&facts, 6);
        for need in few.needs.iter_mut().flatten() {
            need.and_more = need.ids.len() > 1;
            need.ids.truncate(1);
        }
        let (few, all) = (survey(&few).gaps, survey(&facts).gaps);
        prop_assert_eq!(few.len(), all.len());
        for (few, all) in few.iter().zip(&all) {
            prop_assert_eq!(few.first, all.first);
            prop_assert_eq!(few.affects_newest, all.affects_newest);
            prop_assert_eq!(few.affected_backups.is_empty(), all.affected_backups.is_empty());
            prop_assert!(few.affected_backups.iter().all(|id| all.affected_backups.contains(id)));
            prop_assert_eq!(few.affects_more, few.affected_backups.len() < all.affected_backups.len());
        }
    }

    #[test]
    fn an_outline_never_claims_more(facts in any_cluster()) {
        let (few, all) = (survey(&outlined(&facts, 0)), survey(&facts));
        for window in &few.windows {
            prop_assert!(
                all.windows.iter().any(|w| w.from_lsn <= window.from_lsn && window.to_lsn <= w.to_lsn),
                "{window:?} is in none of {:?}", all.windows
            );
        }
        prop_assert!(few.protection.protected <= all.protection.protected);
        let outlined = outlined(&facts, 0);
        for (id, verdict) in &few.backups {
            prop_assert_eq!(Some(verdict), all.backup(*id), "{} of {:?}", id, outlined);
        }
    }

    #[test]
    fn what_is_looked_up_is_needed_by_the_backups_found(facts in any_cluster()) {
        for lookup in lookups(&facts) {
            for id in found(&lookup, &facts.backups, usize::MAX) {
                let backup = facts.backups.iter().find(|b| b.id == id).unwrap();
                prop_assert!(first_needed(backup, facts.size).unwrap().start() >= lookup.from);
            }
        }
    }
}

#[test]
fn of_many_backups_between_two_gaps_a_handful_is_looked_up() {
    let many = (0..1000)
        .map(|id| backup(id, 2.0 + id as f64 / 150.0, 2.1 + id as f64 / 150.0))
        .collect();
    let facts = cluster(many).with_broken([missing(4), missing(6)]);
    let outline = outlined(&facts, 1);
    assert!(outline.backups.len() < 30, "{}", outline.backups.len());
    assert_eq!(shown(&outline), shown(&facts));
    assert_eq!(survey(&facts).windows.len(), 3);
}

#[test]
fn where_no_backup_is_usable_the_others_are_counted() {
    let mut facts = cluster(vec![backup(1, 2.0, 2.5)]).with_broken([missing(2)]);
    facts.unlisted = 99_999;
    facts
        .verdict()
        .says(Readiness::Unrecoverable, &["backup 1:", "and 99999 more"]);
}
