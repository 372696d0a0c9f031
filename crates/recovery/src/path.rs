//! The way that a recovery takes through segments: along the timeline history, as far as each next segment is verified.

use std::collections::BTreeMap;

use archive::expected::{Stretch, expected};
use wal::{Lsn, SegmentName, Timeline};

use crate::backups::is_on_history;
use crate::facts::{BrokenHistory, BrokenRun, Facts};

/// What stops replay.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Stop<'a> {
    /// A segment that is not in order, and the run that it is of.
    Broken(SegmentName, &'a BrokenRun),
    /// A segment of which nothing is on record.
    Unknown(SegmentName),
    /// The way into this timeline is not known to recovery.
    History(&'a BrokenHistory),
    /// Nothing: the next segment is the one that the server is writing.
    Now,
    /// The end of what is archived of a timeline that the server has left.
    Left,
}

/// Verified and broken segments, ready to be walked along.
pub(crate) struct Path<'a> {
    facts: &'a Facts,
    /// Half-open ranges of segment numbers, ascending, not touching.
    verified: BTreeMap<Timeline, Vec<(u64, u64)>>,
    /// By the first segment of each.
    broken: BTreeMap<SegmentName, &'a BrokenRun>,
    /// Up to where the server's own history is of interest.
    end: Lsn,
}

impl<'a> Path<'a> {
    pub(crate) fn new(facts: &'a Facts) -> Self {
        let bytes = facts.size.bytes();
        let mut verified: BTreeMap<Timeline, Vec<(u64, u64)>> = BTreeMap::new();
        for extent in &facts.extents {
            let range = (extent.first.0.div_ceil(bytes), extent.last.0 / bytes);
            if range.0 < range.1 {
                verified.entry(extent.timeline).or_default().push(range);
            }
        }
        for ranges in verified.values_mut() {
            ranges.sort_unstable();
            let mut merged: Vec<(u64, u64)> = Vec::with_capacity(ranges.len());
            for (from, to) in ranges.drain(..) {
                match merged.last_mut() {
                    Some(last) if from <= last.1 => last.1 = last.1.max(to),
                    _ => merged.push((from, to)),
                }
            }
            *ranges = merged;
        }
        let broken = facts.broken.iter().map(|broken| (broken.first, broken)).collect();
        let archived = facts
            .extents
            .iter()
            .map(|extent| extent.last)
            .max()
            .unwrap_or(Lsn::INVALID);
        Self {
            facts,
            verified,
            broken,
            end: facts.flush.unwrap_or(archived),
        }
    }

    /// Whether there is an archive that segments can come from.
    pub(crate) const fn has_archive(&self) -> bool {
        self.facts.archiver.has_archive()
    }

    /// Whether a position of a timeline lies on the server's own history: a recovery from there can reach the present.
    pub(crate) fn is_on_history(&self, timeline: Timeline, lsn: Lsn) -> bool {
        is_on_history(&self.facts.history, timeline, lsn)
    }

    /// Whether recovery along the server's own history would ask for this segment.
    pub(crate) fn asks_for(&self, segment: &SegmentName) -> bool {
        self.facts.history.timeline_of_segment(segment.number, segment.size) == segment.timeline
    }

    /// From the segment that holds `from`, how far verified segments follow upon each other: the end of the last of them (`from`'s
    /// segment start, if it is none itself), its timeline, and what stops there.
    pub(crate) fn walk(&self, timeline: Timeline, from: Lsn, on_history: bool) -> (Lsn, Timeline, Stop<'a>) {
        let size = self.facts.size;
        let start = from.0 / size.bytes();
        let lsn = |number: u64| Lsn(number.saturating_mul(size.bytes()));
        let stretches = if on_history {
            expected(&self.facts.history, size, from, self.end)
        } else {
            let last = self
                .verified
                .get(&timeline)
                .and_then(|ranges| ranges.last())
                .map_or(start, |range| range.1);
            vec![Stretch {
                timeline,
                first: start,
                last: last.max(start),
                size,
            }]
        };
        let mut at = (start, timeline);
        for (index, stretch) in stretches.iter().enumerate() {
            // Asked for more than is ever expected at once: what lies before is not known to be in order.
            if stretch.first > at.0 {
                return (
                    lsn(at.0),
                    at.1,
                    Stop::Unknown(SegmentName {
                        timeline: stretch.timeline,
                        number: at.0,
                        size,
                    }),
                );
            }
            if index > 0
                && let Some(history) = self
                    .facts
                    .broken_histories
                    .iter()
                    .find(|h| h.timeline == stretch.timeline)
            {
                return (lsn(at.0), at.1, Stop::History(history));
            }
            let (reached, stop) = self.along(stretch);
            if reached > stretch.first {
                at = (reached, stretch.timeline);
            }
            if let Some(stop) = stop {
                let left = !on_history && matches!(stop, Stop::Unknown(_));
                return (lsn(reached), at.1, if left { Stop::Left } else { stop });
            }
        }
        (lsn(at.0), at.1, if on_history { Stop::Now } else { Stop::Left })
    }

    /// The first number of a stretch that is not verified (one past its last, if all are), and why.
    fn along(&self, stretch: &Stretch) -> (u64, Option<Stop<'a>>) {
        let covered_to = self
            .verified
            .get(&stretch.timeline)
            .and_then(|ranges| {
                let after = ranges.partition_point(|range| range.0 <= stretch.first);
                ranges.get(after.checked_sub(1)?)
            })
            .map_or(stretch.first, |range| range.1.max(stretch.first));
        let end = stretch.last.saturating_add(1);
        let until = covered_to.min(end);
        let (from, to) = (stretch.name(stretch.first), stretch.name(until.max(stretch.first)));
        let began_before = self
            .broken
            .range(..from)
            .next_back()
            .filter(|(_, run)| run.last >= from)
            .map(|(_, run)| (from, *run));
        let broken = began_before
            .or_else(|| self.broken.range(from..=to).next().map(|(first, run)| (*first, *run)))
            .filter(|(segment, _)| segment.number < end);
        match broken {
            Some((segment, run)) => (segment.number, Some(Stop::Broken(segment, run))),
            None if until < end => (until, Some(Stop::Unknown(stretch.name(until)))),
            None => (end, None),
        }
    }
}

impl Path<'_> {
    /// The name of the segment that holds `lsn`.
    pub(crate) const fn segment(&self, timeline: Timeline, lsn: Lsn) -> SegmentName {
        SegmentName::containing(timeline, lsn, self.facts.size)
    }

    /// Timelines of which something is verified, and from which number to behind which.
    pub(crate) fn timelines(&self) -> impl Iterator<Item = (Timeline, u64, u64)> {
        self.verified
            .iter()
            .filter_map(|(timeline, ranges)| Some((*timeline, ranges.first()?.0, ranges.last()?.1)))
    }

    /// The unbroken runs of verified segments in a stretch: half-open ranges of numbers, ascending.
    pub(crate) fn unbroken(&self, stretch: &Stretch) -> Vec<(u64, u64)> {
        let mut runs = Vec::new();
        let mut from = *stretch;
        while from.first <= stretch.last {
            let (reached, stop) = self.along(&from);
            if reached > from.first {
                runs.push((from.first, reached));
            }
            from.first = match stop {
                Some(Stop::Broken(_, run)) => run.last.number.max(reached).saturating_add(1),
                Some(Stop::Unknown(_)) => self
                    .verified
                    .get(&stretch.timeline)
                    .and_then(|ranges| ranges.get(ranges.partition_point(|range| range.0 <= reached)))
                    .map_or(u64::MAX, |range| range.0),
                _ => u64::MAX,
            };
            if from.first == u64::MAX {
                break;
            }
        }
        runs
    }

    /// The unbroken runs along the server's own history, as far as a recovery would get from one timeline into the next.
    pub(crate) fn unbroken_history(&self) -> Vec<(u64, u64)> {
        let size = self.facts.size;
        let Some(first) = self.timelines().map(|(_, first, _)| first).min() else {
            return Vec::new();
        };
        let from = Lsn(first.saturating_mul(size.bytes()));
        let mut runs: Vec<(u64, u64)> = Vec::new();
        for stretch in expected(&self.facts.history, size, from, self.end) {
            let is_known = !(self.facts.broken_histories.iter()).any(|history| history.timeline == stretch.timeline);
            for run in self.unbroken(&stretch) {
                match runs.last_mut() {
                    Some(last) if last.1 == run.0 && (is_known || run.0 > stretch.first) => last.1 = run.1,
                    _ => runs.push(run),
                }
            }
        }
        runs
    }
}
