//! Whether a target lies inside a stretch of recoverable history, and what is nearest where it does not.

use std::cmp::Ordering;
use std::fmt;

use chrono::{DateTime, SecondsFormat, Utc};
use wal::Lsn;

/// Where a recovery is to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target {
    /// At the end of WAL.
    Latest,
    /// At this position.
    Lsn(Lsn),
    /// After the last commit up to this moment.
    Time(DateTime<Utc>),
}

/// A stretch of recoverable history from end to end, in LSN and in time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stretch {
    /// The backup that it begins with.
    pub backup_id: i64,
    /// Where that is consistent.
    pub from_lsn: Lsn,
    /// How far WAL follows: the greatest `recovery_target_lsn`.
    pub to_lsn: Lsn,
    /// When the backup was consistent, at the latest; none where nothing tells.
    pub from_time: Option<DateTime<Utc>>,
    /// The last commit in that WAL; none where there is none.
    pub to_time: Option<DateTime<Utc>>,
}

/// Where a target lies that a stretch does not reach.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outside {
    /// Before its beginning: the server refuses to stop before the backup is consistent.
    Before,
    /// Behind its end: the server gives up after it has replayed everything.
    Behind,
    /// It cannot be told, since the times of its ends are not known.
    Unknown,
}

impl Stretch {
    /// Whether a recovery that begins with this stretch's backup gets to the target.
    ///
    /// # Errors
    /// Where the target lies instead.
    pub fn reaches(&self, target: Target) -> Result<(), Outside> {
        match target {
            Target::Latest => Ok(()),
            Target::Lsn(lsn) => within(lsn, self.from_lsn, self.to_lsn),
            Target::Time(time) => {
                let from = self.from_time.ok_or(Outside::Unknown)?;
                within(time, from, self.to_time.map_or(from, |to| to.max(from)))
            }
        }
    }

    /// Both of its ends, in the terms of the target.
    fn ends(&self, target: Target) -> Option<(Moment, Moment)> {
        match target {
            Target::Latest | Target::Lsn(_) => Some((Moment::Lsn(self.from_lsn), Moment::Lsn(self.to_lsn))),
            Target::Time(_) => {
                let from = self.from_time?;
                let to = self.to_time.map_or(from, |to| to.max(from));
                Some((Moment::Time(from), Moment::Time(to)))
            }
        }
    }
}

fn within<T: Ord>(at: T, from: T, to: T) -> Result<(), Outside> {
    if at < from {
        Err(Outside::Before)
    } else if at > to {
        Err(Outside::Behind)
    } else {
        Ok(())
    }
}

/// A moment that can be reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Moment {
    /// A position.
    Lsn(Lsn),
    /// A time.
    Time(DateTime<Utc>),
}

impl Moment {
    fn cmp_to(self, target: Target) -> Option<Ordering> {
        match (self, target) {
            (Self::Lsn(lsn), Target::Lsn(target)) => Some(lsn.cmp(&target)),
            (Self::Time(time), Target::Time(target)) => Some(time.cmp(&target)),
            _ => None,
        }
    }
}

impl fmt::Display for Moment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Lsn(lsn) => write!(f, "LSN {lsn}"),
            Self::Time(time) => f.write_str(&time.to_rfc3339_opts(SecondsFormat::Micros, true)),
        }
    }
}

/// The moments nearest to a target that none of the stretches of one backup has, and where another backup has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Nearest {
    /// The last moment before the target, and the backup that reaches it.
    pub before: Option<(Moment, i64)>,
    /// The first moment behind the target, and the backup that reaches it.
    pub behind: Option<(Moment, i64)>,
    /// The backup that reaches the target itself.
    pub reached_by: Option<i64>,
}

/// What is nearest to `target` in any of `stretches`.
pub fn nearest(target: Target, stretches: &[Stretch]) -> Nearest {
    let mut nearest = Nearest::default();
    for stretch in stretches {
        if stretch.reaches(target) == Ok(()) {
            nearest.reached_by = Some(stretch.backup_id);
        }
        let Some((from, to)) = stretch.ends(target) else {
            continue;
        };
        // Of the moments before the target the last one, and of those behind it the first.
        for (moment, id) in [(from, stretch.backup_id), (to, stretch.backup_id)] {
            let (slot, wanted) = match moment.cmp_to(target) {
                Some(Ordering::Less) => (&mut nearest.before, Ordering::Greater),
                Some(Ordering::Greater) => (&mut nearest.behind, Ordering::Less),
                Some(Ordering::Equal) | None => continue,
            };
            if slot.is_none_or(|(known, _)| order(moment, known) == Some(wanted)) {
                *slot = Some((moment, id));
            }
        }
    }
    nearest
}

fn order(one: Moment, other: Moment) -> Option<Ordering> {
    match (one, other) {
        (Moment::Lsn(one), Moment::Lsn(other)) => Some(one.cmp(&other)),
        (Moment::Time(one), Moment::Time(other)) => Some(one.cmp(&other)),
        _ => None,
    }
}

/// A clause, such as "backup 3 reaches it" or "the nearest moments are LSN 0/1 (backup 1) and LSN 0/9 (backup 2)".
impl fmt::Display for Nearest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(id) = self.reached_by {
            return write!(f, "backup {id} reaches it");
        }
        match (self.before, self.behind) {
            (None, None) => f.write_str("no moment near it can be reached"),
            (Some((moment, id)), None) | (None, Some((moment, id))) => {
                write!(f, "the nearest moment that can be reached is {moment} (backup {id})")
            }
            (Some((before, first)), Some((behind, second))) => write!(
                f,
                "the nearest moments that can be reached are {before} (backup {first}) and {behind} (backup {second})"
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn time(seconds: i64) -> DateTime<Utc> {
        DateTime::from_timestamp(1_700_000_000 + seconds, 0).unwrap()
    }

    fn stretch(backup_id: i64, from: i64, to: i64) -> Stretch {
        Stretch {
            backup_id,
            from_lsn: Lsn(from.unsigned_abs() * 100),
            to_lsn: Lsn(to.unsigned_abs() * 100),
            from_time: Some(time(from)),
            to_time: Some(time(to)),
        }
    }

    #[test]
    fn both_ends_of_a_stretch_belong_to_it() {
        let stretch = stretch(1, 10, 20);
        for (at, expected) in [
            (9, Err(Outside::Before)),
            (10, Ok(())),
            (20, Ok(())),
            (21, Err(Outside::Behind)),
        ] {
            assert_eq!(stretch.reaches(Target::Time(time(at))), expected, "{at}");
            assert_eq!(
                stretch.reaches(Target::Lsn(Lsn(at.unsigned_abs() * 100))),
                expected,
                "{at}"
            );
        }
        assert_eq!(stretch.reaches(Target::Latest), Ok(()));
    }

    #[test]
    fn without_a_commit_since_the_backups_end_is_the_only_moment() {
        let mut lone = stretch(1, 10, 20);
        lone.to_time = None;
        assert_eq!(lone.reaches(Target::Time(time(10))), Ok(()));
        assert_eq!(lone.reaches(Target::Time(time(11))), Err(Outside::Behind));
        lone.to_time = Some(time(5));
        assert_eq!(
            lone.reaches(Target::Time(time(10))),
            Ok(()),
            "a commit from before the backup's end"
        );
        lone.from_time = None;
        assert_eq!(lone.reaches(Target::Time(time(10))), Err(Outside::Unknown));
        assert_eq!(lone.reaches(Target::Lsn(Lsn(1500))), Ok(()));
    }

    #[test]
    fn what_is_nearest_is_named_with_its_backup() {
        let all = [stretch(1, 10, 20), stretch(2, 40, 50), stretch(3, 30, 60)];
        let said = |at: u64| nearest(Target::Lsn(Lsn(at)), &all).to_string();
        assert_eq!(
            said(2500),
            "the nearest moments that can be reached are LSN 0/7D0 (backup 1) and LSN 0/BB8 (backup 3)"
        );
        assert_eq!(
            said(500),
            "the nearest moment that can be reached is LSN 0/3E8 (backup 1)"
        );
        assert_eq!(said(3500), "backup 3 reaches it");
        assert_eq!(
            nearest(Target::Time(time(99)), &all).to_string(),
            "the nearest moment that can be reached is 2023-11-14T22:14:20.000000Z (backup 3)"
        );
        assert_eq!(
            nearest(Target::Lsn(Lsn(1)), &[]).to_string(),
            "no moment near it can be reached"
        );
    }

    proptest! {
        #[test]
        fn nothing_reachable_lies_nearer(
            ends in prop::collection::vec((0_i64..50, 0_i64..50), 0..8),
            at in 0_i64..50,
        ) {
            let all: Vec<Stretch> = ends.iter().enumerate()
                .map(|(id, (a, b))| stretch(i64::try_from(id).unwrap(), *a.min(b), *a.max(b)))
                .collect();
            let target = Target::Time(time(at));
            let found = nearest(target, &all);
            let reached = all.iter().any(|s| s.reaches(target).is_ok());
            prop_assert_eq!(found.reached_by.is_some(), reached);
            for (moment, id) in [found.before, found.behind].into_iter().flatten() {
                let Moment::Time(moment) = moment else { panic!("an LSN") };
                let by = all.iter().find(|s| s.backup_id == id).unwrap();
                prop_assert!(by.reaches(Target::Time(moment)).is_ok());
                for other in &all {
                    for end in [other.from_time.unwrap(), other.to_time.unwrap()] {
                        let between = (moment.min(time(at)), moment.max(time(at)));
                        prop_assert!(end <= between.0 || end >= between.1);
                    }
                }
            }
        }
    }
}
