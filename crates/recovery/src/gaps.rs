//! Runs of segments that are not in order, and the backups that they break.

use archive::Status;
use archive::chain::runs;
use chrono::{DateTime, Utc};
use wal::{Lsn, SegmentName};

use crate::backups::first_needed;
use crate::facts::{BrokenSegment, Facts};
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

/// What is to be said about one segment, if anything: one that is in the archive and waits to be read is no gap, nor is one that
/// the archiver may still be about to send.
fn state(broken: &BrokenSegment, facts: &Facts) -> Option<GapState> {
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

pub(crate) fn gaps(facts: &Facts, path: &Path<'_>, newest: Option<i64>) -> Vec<Gap> {
    let mut broken: Vec<(&BrokenSegment, GapState)> = facts
        .broken
        .iter()
        .filter_map(|broken| Some((broken, state(broken, facts)?)))
        .collect();
    broken.sort_by_key(|(broken, _)| broken.segment);
    let first_needed: Vec<(i64, SegmentName, bool)> = facts
        .backups
        .iter()
        .filter_map(|backup| {
            let on_history = path.is_on_history(backup.timeline, backup.end?);
            Some((backup.id, first_needed(backup, facts.size)?, on_history))
        })
        .collect();
    let about = |(broken, state): &(&BrokenSegment, GapState)| (*state, broken.status, broken.problem.clone());
    runs(broken.iter().map(|entry| (entry.0.segment, about(entry))))
        .into_iter()
        .map(|run| {
            let (state, status, problem) = run.about;
            let asked_for = path.asks_for(&run.last);
            let mut affected_backups: Vec<i64> = first_needed
                .iter()
                .filter(|(_, needed, on_history)| {
                    needed.number <= run.last.number
                        && if *on_history {
                            asked_for
                        } else {
                            needed.timeline == run.last.timeline
                        }
                })
                .map(|(id, _, _)| *id)
                .collect();
            affected_backups.sort_unstable();
            let from = broken.partition_point(|(b, _)| b.segment < run.first);
            let to = broken.partition_point(|(b, _)| b.segment <= run.last);
            let since = broken
                .get(from..to)
                .and_then(|run| run.iter().map(|(b, _)| b.noticed_at).min());
            Gap {
                first: run.first,
                last: run.last,
                segments: run.segments,
                state,
                status,
                problem,
                since: since.unwrap_or(facts.now),
                affects_newest: newest.is_some_and(|newest| affected_backups.contains(&newest)),
                affected_backups,
            }
        })
        .collect()
}
