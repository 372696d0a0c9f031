//! Which backups a recovery can start from, and which WAL they need.

use std::collections::BTreeMap;

use archive::Status;
use wal::{Lsn, SegmentName, SegmentSize, Timeline, TimelineHistory};

use crate::facts::{BackupFact, BackupStatus, Facts, Verification};
use crate::path::{Path, Stop};
use crate::windows::EndedBy;

/// A backup that recovery can start from.
#[derive(Debug, Clone, PartialEq)]
pub struct Usable {
    /// Its id.
    pub id: i64,
    /// The timeline that it was taken on.
    pub timeline: Timeline,
    /// Where it is consistent: the first moment that it can be recovered to.
    pub consistent_at: Lsn,
    /// Up to where verified WAL follows upon it without a break.
    pub reach: Lsn,
    /// The timeline on which that lies: the `recovery_target_timeline` to take.
    pub reach_timeline: Timeline,
    /// What keeps it from reaching further.
    pub ended_by: EndedBy,
    /// Whether it lies on the server's own history. One that does not leads to a branch that the server has left.
    pub on_history: bool,
}

/// Why recovery cannot start from a backup.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unusable {
    /// Not finished, failed, or expired.
    #[error("it is {0}")]
    NotCompleted(BackupStatus),
    /// Looking into it found damage.
    #[error("its verification failed; see its verification_detail")]
    VerificationFailed,
    /// Nobody recorded from where to where it goes.
    #[error("its start or end LSN is not on record")]
    RangeUnknown,
    /// Its end lies before its start.
    #[error("its end, {end}, lies before its start, {start}")]
    RangeInverted {
        /// Start.
        start: Lsn,
        /// End.
        end: Lsn,
    },
    /// A segment that it needs to become consistent is not in order.
    #[error("segment {segment}, which it needs, is {}{}", status_in_words(*.status), problem_in_brackets(*.status, .problem.as_deref()))]
    WalBroken {
        /// The first such segment.
        segment: SegmentName,
        /// What it is.
        status: Status,
        /// The column `problem`.
        problem: Option<String>,
    },
    /// A segment that it needs to become consistent is not verified (yet).
    #[error("segment {segment}, which it needs, is not verified yet")]
    WalUnverified {
        /// The first such segment.
        segment: SegmentName,
    },
    /// A segment that it needs to become consistent is not inside it, and there is no archive that could hold it.
    #[error("segment {segment}, which it needs, is not inside it, and WAL is not archived")]
    WalNotArchived {
        /// The first such segment.
        segment: SegmentName,
    },
    /// Recovery from it must cross into a timeline whose history file is not in order.
    #[error("the history file of timeline {timeline}, which it needs, is not in order ({problem})")]
    HistoryBroken {
        /// The timeline.
        timeline: Timeline,
        /// The column `problem`.
        problem: String,
    },
    /// It builds on a backup that is not on record.
    #[error("the backup that it builds on is not on record")]
    NoParent,
    /// It builds on a backup whose files are not all there and sound.
    #[error("backup {parent}, which it builds on, cannot be restored: {why}")]
    ParentUnusable {
        /// The parent.
        parent: i64,
        /// Why.
        why: Box<Unusable>,
    },
    /// It builds, through others, on itself.
    #[error("it builds, in the end, on itself")]
    Circular,
}

fn status_in_words(status: Status) -> &'static str {
    match status {
        Status::Acknowledged => "acknowledged as lost",
        status => status.as_str(),
    }
}

fn problem_in_brackets(status: Status, problem: Option<&str>) -> String {
    match problem {
        Some(problem) if problem != status.as_str() => format!(" ({problem})"),
        _ => String::new(),
    }
}

impl Unusable {
    /// Whether nothing is wrong but that the worker has yet to see the WAL, as is so right after a backup.
    pub fn is_waiting(&self) -> bool {
        matches!(self, Self::WalUnverified { .. })
    }

    /// Whether the loss that it comes from was acknowledged.
    pub fn is_acknowledged(&self) -> bool {
        matches!(
            self,
            Self::WalBroken {
                status: Status::Acknowledged,
                ..
            }
        )
    }
}

/// The first segment that a recovery from this backup asks the archive for; none if it is no candidate for one.
///
/// A backup that has its own WAL inside still needs the segment that its end lies in to get any further.
pub fn first_needed(backup: &BackupFact, size: SegmentSize) -> Option<SegmentName> {
    if !is_candidate(backup) {
        return None;
    }
    let lsn = if backup.wal_included {
        backup.end?
    } else {
        backup.start?
    };
    Some(SegmentName::containing(backup.timeline, lsn, size))
}

/// Whether a position of a timeline lies on this history: a recovery from there can reach its end.
pub(crate) fn is_on_history(history: &TimelineHistory, timeline: Timeline, lsn: Lsn) -> bool {
    history.contains(timeline) && history.switch_point(timeline).is_none_or(|switch| lsn <= switch)
}

/// Whether a recovery would be tried from it.
pub(crate) fn is_candidate(backup: &BackupFact) -> bool {
    backup.backup_type.is_physical()
        && backup.status == BackupStatus::Completed
        && backup.verification != Verification::Failed
}

/// The verdicts on some backups, given all else; each of them is to be there with those that it builds on.
pub fn verdicts(facts: &Facts, backups: &[BackupFact]) -> Vec<(i64, Result<Usable, Unusable>)> {
    usability(backups, &Path::new(facts))
}

/// The verdict on every physical backup that is not expired, in the order given.
pub(crate) fn usability(backups: &[BackupFact], path: &Path<'_>) -> Vec<(i64, Result<Usable, Unusable>)> {
    let by_id: BTreeMap<i64, &BackupFact> = backups.iter().map(|backup| (backup.id, backup)).collect();
    let physical = |backup: &&BackupFact| backup.backup_type.is_physical() && backup.status != BackupStatus::Expired;
    backups
        .iter()
        .filter(physical)
        .map(|backup| (backup.id, with_parents(backup, path, &by_id)))
        .collect()
}

/// A chain of incremental backups is as good as its worst link. Of those that one builds on only the files are needed: each block
/// that changed since the parent began is in the child (pg_combinebackup, and so do the tools), which replays its own WAL alone.
fn with_parents(backup: &BackupFact, path: &Path<'_>, by_id: &BTreeMap<i64, &BackupFact>) -> Result<Usable, Unusable> {
    let own = on_its_own(backup, path)?;
    let mut child = backup;
    for _ in 0..=by_id.len() {
        if !child.backup_type.needs_parent() {
            return Ok(own);
        }
        let parent = child.parent_id.and_then(|id| by_id.get(&id)).copied();
        let why = match parent {
            None => Unusable::NoParent,
            Some(parent) if !parent.backup_type.is_physical() => Unusable::NoParent,
            Some(parent) => match files_are_sound(parent) {
                Err(why) => Unusable::ParentUnusable {
                    parent: parent.id,
                    why: Box::new(why),
                },
                Ok(()) => {
                    child = parent;
                    continue;
                }
            },
        };
        return Err(if child.id == backup.id {
            why
        } else {
            Unusable::ParentUnusable {
                parent: child.id,
                why: Box::new(why),
            }
        });
    }
    Err(Unusable::Circular)
}

/// Whether its files are all there and sound, as far as is known.
fn files_are_sound(backup: &BackupFact) -> Result<(), Unusable> {
    if backup.status != BackupStatus::Completed {
        return Err(Unusable::NotCompleted(backup.status));
    }
    if backup.verification == Verification::Failed {
        return Err(Unusable::VerificationFailed);
    }
    Ok(())
}

fn on_its_own(backup: &BackupFact, path: &Path<'_>) -> Result<Usable, Unusable> {
    files_are_sound(backup)?;
    let (Some(start), Some(end)) = (backup.start, backup.end) else {
        return Err(Unusable::RangeUnknown);
    };
    if end < start {
        return Err(Unusable::RangeInverted { start, end });
    }
    let on_history = path.is_on_history(backup.timeline, end);
    let from = if backup.wal_included { end } else { start };
    let (reach, reach_timeline, stop) = path.walk(backup.timeline, from, on_history);
    // A backup that ends where it starts needs that segment all the same.
    let whole = reach >= end && reach > path.segment(backup.timeline, start).start();
    let not_archived = !path.has_archive();
    if !whole && !backup.wal_included {
        return Err(match stop {
            Stop::Broken(segment, broken) if broken.status.is_bad() => Unusable::WalBroken {
                segment,
                status: broken.status,
                problem: broken.problem.clone(),
            },
            Stop::Broken(segment, _) | Stop::Unknown(segment) if not_archived => Unusable::WalNotArchived { segment },
            Stop::Broken(segment, _) | Stop::Unknown(segment) => Unusable::WalUnverified { segment },
            Stop::History(history) => Unusable::HistoryBroken {
                timeline: history.timeline,
                problem: history.problem.clone(),
            },
            // Its end lies in the segment that the server is writing, which is not archived yet.
            Stop::Now | Stop::Left => {
                let segment = path.segment(reach_timeline, reach);
                if not_archived {
                    Unusable::WalNotArchived { segment }
                } else {
                    Unusable::WalUnverified { segment }
                }
            }
        });
    }
    let (reach, reach_timeline) = if reach < end {
        (end, backup.timeline)
    } else {
        (reach, reach_timeline)
    };
    Ok(Usable {
        id: backup.id,
        timeline: backup.timeline,
        consistent_at: end,
        reach,
        reach_timeline,
        ended_by: match EndedBy::of(stop, backup.timeline) {
            EndedBy::Now | EndedBy::Unverified { .. } if not_archived => EndedBy::NotArchived,
            ended_by => ended_by,
        },
        on_history,
    })
}

/// The newest one from which the server's present can be reached.
pub(crate) fn newest(backups: &[(i64, Result<Usable, Unusable>)]) -> Option<i64> {
    backups
        .iter()
        .filter_map(|(_, verdict)| verdict.as_ref().ok())
        .filter(|usable| usable.on_history)
        .max_by_key(|usable| (usable.consistent_at, usable.id))
        .map(|usable| usable.id)
}
