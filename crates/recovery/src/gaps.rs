//! Runs of segments that are not in order, and the backups that they break.

use std::borrow::Cow;

use archive::Status;
use chrono::{DateTime, Utc};
use wal::{Lsn, SegmentName, SegmentSize};

use crate::backups::first_needed;
use crate::facts::{BackupFact, BrokenRun, Facts};
use crate::path::Path;

/// What can be done about a run, as `wal_archive_gaps.state` says it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum GapState {
    /// The archiver has yet to send it.
    Late,
    /// It is gone, or what is there is no good.
    Lost,
    /// It is still in pg_wal although the archiver does not mean to send it.
    Rescuable,
    /// The DBA accepted the loss.
    Acknowledged,
}

impl GapState {
    /// The word in the view.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Late => "late",
            Self::Lost => "lost",
            Self::Rescuable => "rescuable",
            Self::Acknowledged => "acknowledged",
        }
    }
}

/// A run of consecutive segments with the same trouble.
#[derive(Debug, Clone, PartialEq)]
pub struct Gap {
    /// Its first segment.
    pub first: SegmentName,
    /// Its last segment.
    pub last: SegmentName,
    /// How many segments.
    pub segments: u64,
    /// What can be done about it.
    pub state: GapState,
    /// The segments' status.
    pub status: Status,
    /// The column `problem`.
    pub problem: Option<String>,
    /// Since when the oldest of them is known.
    pub since: DateTime<Utc>,
    /// The backups from which recovery cannot get past it, ascending: it breaks them, or ends their window.
    pub affected_backups: Vec<i64>,
    /// Whether the newest usable backup is one of them.
    pub affects_newest: bool,
}

impl Gap {
    /// The first LSN in it.
    pub const fn from_lsn(&self) -> Lsn {
        self.first.start()
    }

    /// The first LSN behind it.
    pub const fn to_lsn(&self) -> Lsn {
        self.last.end()
    }
}

/// What is to be said about segments, if anything: those that are in the archive and wait to be read are no gap, nor are those
/// that the archiver may still be about to send.
fn state(broken: &BrokenRun, facts: &Facts) -> Option<GapState> {
    match broken.status {
        Status::Verified => None,
        Status::Pending => {
            let waited = facts
                .now
                .signed_duration_since(broken.noticed_at)
                .to_std()
                .unwrap_or_default();
            (!broken.stored && waited >= facts.archiver.grace).then_some(GapState::Late)
        }
        Status::Acknowledged => Some(GapState::Acknowledged),
        Status::Missing if broken.problem.as_deref() == Some("not_archived") => Some(GapState::Rescuable),
        Status::Missing | Status::Corrupt | Status::Foreign => Some(GapState::Lost),
    }
}

/// Runs about which the same is to be said, and that follow upon each other, as one.
fn joined(facts: &Facts) -> Vec<Gap> {
    let mut broken: Vec<(&BrokenRun, GapState)> = facts
        .broken
        .iter()
        .filter_map(|broken| Some((broken, state(broken, facts)?)))
        .collect();
    broken.sort_by_key(|(broken, _)| broken.first);
    let mut gaps: Vec<Gap> = Vec::new();
    for (run, state) in broken {
        let segments = (run.last.number.saturating_sub(run.first.number)).saturating_add(1);
        match gaps.last_mut() {
            Some(gap)
                if gap.last.next() == Some(run.first)
                    && (gap.state, gap.status, &gap.problem) == (state, run.status, &run.problem) =>
            {
                gap.last = run.last;
                gap.segments = gap.segments.saturating_add(segments);
                gap.since = gap.since.min(run.noticed_at);
            }
            _ => gaps.push(Gap {
                first: run.first,
                last: run.last,
                segments,
                state,
                status: run.status,
                problem: run.problem.clone(),
                since: run.noticed_at,
                affected_backups: Vec::new(),
                affects_newest: false,
            }),
        }
    }
    gaps
}

/// What the recovery from a backup needs to begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Need {
    /// The backup.
    pub id: i64,
    /// The first segment that it asks the archive for.
    pub first: SegmentName,
    /// Where the backup ends.
    pub end: Lsn,
}

impl Need {
    /// That of a backup; none if nobody would recover from it.
    pub fn of(backup: &BackupFact, size: SegmentSize) -> Option<Self> {
        Some(Self {
            id: backup.id,
            first: first_needed(backup, size)?,
            end: backup.end?,
        })
    }
}

pub(crate) fn gaps(facts: &Facts, path: &Path<'_>, newest: Option<i64>) -> Vec<Gap> {
    let mut gaps = joined(facts);
    if gaps.is_empty() {
        return gaps;
    }
    let mut needs: Cow<'_, [Need]> = match &facts.needs {
        Some(needs) => Cow::Borrowed(needs),
        None => (facts.backups.iter())
            .filter_map(|backup| Need::of(backup, facts.size))
            .collect(),
    };
    if !needs.is_sorted_by_key(|need| need.id) {
        needs.to_mut().sort_unstable_by_key(|need| need.id);
    }
    let on_history: Vec<bool> = needs
        .iter()
        .map(|need| path.is_on_history(need.first.timeline, need.end))
        .collect();
    // What lies ahead of the server is another one's.
    let is_asked_for = |gap: &Gap| path.asks_for(&gap.last) && facts.flush.is_none_or(|flush| gap.from_lsn() < flush);
    for gap in &mut gaps {
        let asked_for = is_asked_for(gap);
        gap.affected_backups = needs
            .iter()
            .zip(&on_history)
            .filter(|(need, on_history)| {
                need.first.number <= gap.last.number
                    && if **on_history {
                        asked_for
                    } else {
                        need.first.timeline == gap.last.timeline
                    }
            })
            .map(|(need, _)| need.id)
            .collect();
        gap.affects_newest = newest.is_some_and(|newest| gap.affected_backups.binary_search(&newest).is_ok());
    }
    // Segments of a branch that no recovery from here takes are nobody's gap.
    gaps.retain(|gap| {
        gap.problem.as_deref() != Some("foreign_timeline") || is_asked_for(gap) || !gap.affected_backups.is_empty()
    });
    gaps
}
