//! A recovery window as a plan needs it: its exact ends, the backups in it, and the segments along its way.

use std::collections::BTreeMap;

use archive::expected::{self, expected};
use chrono::{DateTime, Utc};
use wal::{Lsn, SegmentName, Timeline};

use super::refusal::Edge;
use crate::facts::Facts;
use crate::windows::Window;
use crate::{Survey, Usable};

/// The ends of a window, both included.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Bounds {
    /// From when on the past can be recovered.
    pub from_time: Option<DateTime<Utc>>,
    /// The last commit that can be recovered.
    pub to_time: Option<DateTime<Utc>>,
    /// The first `recovery_target_lsn` that works.
    pub from_lsn: Lsn,
    /// The last one: the start of the last whole record.
    pub to_lsn: Lsn,
}

/// A backup that recovery can start from.
#[derive(Debug, Clone, PartialEq)]
pub struct Origin {
    /// Its id.
    pub id: i64,
    /// Where replay starts.
    pub start: Lsn,
    /// Where it is consistent.
    pub consistent_at: Lsn,
    /// A time at which it was, no earlier than any commit before that place.
    pub consistent_time: Option<DateTime<Utc>>,
    /// Whether it is on record where it is.
    pub has_place: bool,
}

/// A recovery window with all that a plan asks of it.
#[derive(Debug, Clone, PartialEq)]
pub struct Stretch {
    /// The timeline on which it ends.
    pub timeline: Timeline,
    /// Whether it lies on the server's own history.
    pub on_history: bool,
    /// Whether it reaches the present.
    pub is_current: bool,
    /// Its ends.
    pub bounds: Bounds,
    /// The usable backups in it, oldest first.
    pub origins: Vec<Origin>,
    /// The segments that recoveries along it read.
    pub segments: Vec<expected::Stretch>,
}

impl Stretch {
    /// The windows of this survey, oldest first. `origin` tells of a backup what else is in [`Origin`], given where its replay
    /// starts; none of one that is no copy of the cluster. The times of the ends are left out.
    pub fn all(facts: &Facts, survey: &Survey, origin: &dyn Fn(&Usable, Lsn) -> Option<Origin>) -> Vec<Self> {
        let starts: BTreeMap<i64, Lsn> = facts
            .backups
            .iter()
            .filter_map(|backup| Some((backup.id, backup.start?)))
            .collect();
        let usable: BTreeMap<i64, &Usable> = survey
            .backups
            .iter()
            .filter_map(|(id, verdict)| Some((*id, verdict.as_ref().ok()?)))
            .collect();
        let of = |window: &Window| {
            let backups = window.backups.iter().filter_map(|id| {
                let usable = *usable.get(id)?;
                Some((usable, starts.get(id).copied().unwrap_or(usable.consistent_at)))
            });
            Self::of(facts, window, &backups.collect::<Vec<_>>(), origin)
        };
        survey.windows.iter().map(of).collect()
    }

    fn of(
        facts: &Facts,
        window: &Window,
        backups: &[(&Usable, Lsn)],
        origin: &dyn Fn(&Usable, Lsn) -> Option<Origin>,
    ) -> Self {
        let size = facts.size;
        let from = backups.iter().map(|(_, start)| *start).min().unwrap_or(window.from_lsn);
        let to = backups.iter().map(|(usable, _)| usable.reach).max();
        let end = to.unwrap_or(window.to_lsn).0.div_ceil(size.bytes());
        let on_history = backups.iter().any(|(usable, _)| usable.on_history);
        let segments = if on_history {
            expected(&facts.history, size, from, Lsn(end.saturating_mul(size.bytes())))
        } else {
            vec![expected::Stretch {
                timeline: window.timeline,
                first: from.0 / size.bytes(),
                last: end.saturating_sub(1),
                size,
            }]
        };
        let origins: Vec<Origin> = backups
            .iter()
            .filter_map(|(usable, start)| origin(usable, *start))
            .collect();
        Self {
            timeline: window.timeline,
            on_history,
            is_current: window.is_current,
            bounds: Bounds {
                from_time: None,
                to_time: None,
                from_lsn: origins.first().map_or(window.from_lsn, |origin| origin.consistent_at),
                to_lsn: window.to_lsn,
            },
            origins,
            segments,
        }
    }

    /// Whether a recovery along it reads this segment.
    pub fn holds(&self, segment: &SegmentName) -> bool {
        self.segments.iter().any(|stretch| stretch.contains(segment))
    }

    /// Its segments from the one that holds `start` on: timeline, start of the first and end of the last.
    pub fn ranges(&self, start: Lsn) -> Vec<(Timeline, Lsn, Lsn)> {
        self.segments
            .iter()
            .filter_map(|stretch| {
                let first = stretch.first.max(start.0 / stretch.size.bytes());
                let last = stretch.name(stretch.last).end();
                (first <= stretch.last).then(|| (stretch.timeline, stretch.name(first).start(), last))
            })
            .collect()
    }

    pub(super) const fn beginning(&self) -> Edge {
        Edge {
            time: self.bounds.from_time,
            lsn: self.bounds.from_lsn,
            timeline: self.timeline,
        }
    }

    pub(super) const fn end(&self) -> Edge {
        Edge {
            time: self.bounds.to_time,
            lsn: self.bounds.to_lsn,
            timeline: self.timeline,
        }
    }
}
