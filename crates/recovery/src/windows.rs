//! Recovery windows: from where to where history can be recovered without a break.

use std::fmt;

use archive::Status;
use wal::{Lsn, SegmentName, Timeline};

use crate::backups::{Unusable, Usable};
use crate::path::Stop;

/// What ends a window.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EndedBy {
    /// A segment that is bad.
    Gap {
        /// It.
        segment: SegmentName,
        /// What it is.
        status: Status,
        /// The column `problem`.
        problem: Option<String>,
    },
    /// A segment that is not verified: late, or its turn has not come.
    Unverified {
        /// It.
        segment: SegmentName,
    },
    /// A timeline whose history file is missing or bad.
    History {
        /// The timeline.
        timeline: Timeline,
        /// The column `problem`.
        problem: String,
    },
    /// The server left this timeline for another; its archived WAL ends here.
    Branch {
        /// The timeline left.
        timeline: Timeline,
    },
    /// There is no archive, or none that grows: WAL goes no further than what was archived before, or is inside the backup.
    NotArchived,
    /// Nothing: it grows with each archived segment.
    Now,
}

impl EndedBy {
    pub(crate) fn of(stop: Stop<'_>, timeline: Timeline) -> Self {
        match stop {
            Stop::Broken(segment, broken) if broken.status.is_bad() => Self::Gap {
                segment,
                status: broken.status,
                problem: broken.problem.clone(),
            },
            Stop::Broken(segment, _) | Stop::Unknown(segment) => Self::Unverified { segment },
            Stop::History(history) => Self::History {
                timeline: history.timeline,
                problem: history.problem.clone(),
            },
            Stop::Left => Self::Branch { timeline },
            Stop::Now => Self::Now,
        }
    }

    /// Whether the window ends only because what comes next is not archived or not verified (yet).
    pub const fn is_open(&self) -> bool {
        matches!(self, Self::Now | Self::Unverified { .. } | Self::NotArchived)
    }
}

/// A clause, such as `ended by …` would need it.
impl fmt::Display for EndedBy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Gap {
                segment,
                status: Status::Acknowledged,
                ..
            } => write!(f, "gap at segment {segment}: acknowledged as lost"),
            Self::Gap {
                segment,
                status,
                problem,
            } => {
                write!(
                    f,
                    "gap at segment {segment}: {}",
                    problem.as_deref().unwrap_or(status.as_str())
                )
            }
            Self::Unverified { segment } => write!(f, "segment {segment} is not verified yet"),
            Self::History { timeline, problem } => write!(f, "history file of timeline {timeline}: {problem}"),
            Self::Branch { timeline } => write!(
                f,
                "end of archived WAL of timeline {timeline}, which the server has left"
            ),
            Self::NotArchived => f.write_str("WAL is not archived any further"),
            Self::Now => f.write_str("now"),
        }
    }
}

/// An unbroken stretch of recoverable history. The times that belong to its ends are for the caller to look up: the commit nearest
/// to each LSN in verified WAL.
#[derive(Debug, Clone, PartialEq)]
pub struct Window {
    /// The timeline on which it ends.
    pub timeline: Timeline,
    /// The oldest usable backup in it, where it begins.
    pub backup_id: i64,
    /// All usable backups in it, oldest first.
    pub backups: Vec<i64>,
    /// Where the oldest one is consistent.
    pub from_lsn: Lsn,
    /// Up to where verified WAL follows.
    pub to_lsn: Lsn,
    /// What ended it.
    pub ended_by: EndedBy,
    /// Whether it reaches the present, as far as that is archived: it holds the newest usable backup, and no fault ends it.
    pub is_current: bool,
}

/// Joins what the usable backups reach into stretches, oldest first; branches that the server has left come before its own.
pub(crate) fn windows(backups: &[(i64, Result<Usable, Unusable>)], newest: Option<i64>) -> Vec<Window> {
    let mut usable: Vec<(Option<Timeline>, &Usable)> = backups
        .iter()
        .filter_map(|(_, verdict)| verdict.as_ref().ok())
        .map(|usable| ((!usable.on_history).then_some(usable.timeline), usable))
        .collect();
    usable.sort_by_key(|(branch, usable)| (branch.is_none(), *branch, usable.consistent_at, usable.id));
    let mut windows: Vec<(Option<Timeline>, Window)> = Vec::new();
    for (branch, usable) in usable {
        match windows.last_mut() {
            Some((of, window)) if *of == branch && usable.consistent_at <= window.to_lsn => {
                window.backups.push(usable.id);
                if usable.reach > window.to_lsn {
                    window.to_lsn = usable.reach;
                    window.timeline = usable.reach_timeline;
                    window.ended_by = usable.ended_by.clone();
                }
            }
            _ => windows.push((
                branch,
                Window {
                    timeline: usable.reach_timeline,
                    backup_id: usable.id,
                    backups: vec![usable.id],
                    from_lsn: usable.consistent_at,
                    to_lsn: usable.reach,
                    ended_by: usable.ended_by.clone(),
                    is_current: false,
                },
            )),
        }
    }
    windows
        .into_iter()
        .map(|(_, mut window)| {
            window.is_current = window.ended_by.is_open() && newest.is_some_and(|id| window.backups.contains(&id));
            window
        })
        .collect()
}
