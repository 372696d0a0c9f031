//! Runs of segments that are not in order, and the backups that they break.

use std::borrow::Cow;

use archive::Status;
use chrono::{DateTime, Utc};
use wal::{Lsn, SegmentName, Timeline};

use crate::backups::first_needed;
use crate::facts::{BackupFact, BrokenRun, Facts};
use crate::outline::COUNTED;
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
    /// Whether there are more of these, which were not loaded.
    pub affects_more: bool,
    /// Whether the newest usable backup is one of them.
    pub affects_newest: bool,
    /// Whether recoveries along the server's own history ask for it.
    pub is_asked_for: bool,
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
                affects_more: false,
                affects_newest: false,
                is_asked_for: false,
            }),
        }
    }
    gaps
}

/// What recoveries from some backups need to begin: the same, as far as the gaps are concerned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Need {
    /// The backups.
    pub ids: Vec<i64>,
    /// Whether there are more of these, which were not loaded.
    pub and_more: bool,
    /// Their timeline.
    pub timeline: Timeline,
    /// Whether they end on the server's own history.
    pub on_history: bool,
    /// What they ask the archive for begins here or later, and before the end of the first gap that ends behind here.
    pub from: Lsn,
}

impl Need {
    /// What a backup needs from which somebody would recover; none of the others.
    fn of(backup: &BackupFact, facts: &Facts, path: &Path<'_>) -> Option<Self> {
        let first = first_needed(backup, facts.size)?;
        Some(Self {
            ids: vec![backup.id],
            and_more: false,
            timeline: first.timeline,
            on_history: path.is_on_history(first.timeline, backup.end?),
            from: first.start(),
        })
    }

    /// Whether a recovery meets this gap of a [`Survey`](crate::Survey).
    pub fn meets(&self, gap: &Gap) -> bool {
        self.from < gap.to_lsn()
            && if self.on_history {
                gap.is_asked_for
            } else {
                self.timeline == gap.last.timeline
            }
    }
}

/// Where gaps can end, ascending: between two of these, it makes no difference to any gap where a backup's needs begin.
pub fn ends(broken: &[BrokenRun]) -> Vec<Lsn> {
    let mut ends: Vec<Lsn> = broken.iter().map(|run| run.last.end()).collect();
    ends.sort_unstable();
    ends.dedup();
    ends
}

pub(crate) fn gaps(facts: &Facts, path: &Path<'_>, newest: Option<i64>) -> Vec<Gap> {
    let mut gaps = joined(facts);
    if gaps.is_empty() {
        return gaps;
    }
    let need = |backup: &BackupFact| Need::of(backup, facts, path);
    let needs: Cow<'_, [Need]> = match &facts.needs {
        Some(needs) => Cow::Borrowed(needs),
        None => Cow::Owned(facts.backups.iter().filter_map(need).collect()),
    };
    let newest = newest
        .and_then(|newest| facts.backups.iter().find(|backup| backup.id == newest))
        .and_then(need);
    // What lies ahead of the server is another one's.
    let is_asked_for = |gap: &Gap| path.asks_for(&gap.last) && facts.flush.is_none_or(|flush| gap.from_lsn() < flush);
    for gap in &mut gaps {
        gap.is_asked_for = is_asked_for(gap);
        let (mut ids, mut more) = (Vec::new(), false);
        for need in needs.iter().filter(|need| need.meets(gap)) {
            // Where not all backups are loaded, a sentence needs no more than these.
            if facts.needs.is_some() && ids.len() >= COUNTED {
                more = true;
                break;
            }
            ids.extend_from_slice(&need.ids);
            more |= need.and_more;
        }
        (gap.affected_backups, gap.affects_more) = (ids, more);
        gap.affected_backups.sort();
        gap.affects_newest = newest.as_ref().is_some_and(|newest| newest.meets(gap));
    }
    // Segments of a branch that no recovery from here takes are nobody's gap.
    gaps.retain(|gap| {
        gap.problem.as_deref() != Some("foreign_timeline") || gap.is_asked_for || !gap.affected_backups.is_empty()
    });
    gaps
}
