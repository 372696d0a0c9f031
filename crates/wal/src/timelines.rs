//! Which timeline the pages of a segment must be of.

use crate::history::TimelineHistory;
use crate::lsn::{Lsn, Timeline};

/// What is known about the timelines that a stretch of WAL can hold.
#[derive(Clone, Debug)]
pub(crate) enum Timelines {
    /// The history of the file's timeline: the timeline of every page is known.
    History(TimelineHistory),
    /// The file's timeline, without a history: an ancestor has a lower number.
    UpTo(Timeline),
    /// The file's timeline, which is not in the history that was given.
    NotIn { file: Timeline, history: Timeline },
    /// Nothing: live WAL, which the server itself chose.
    Any,
}

impl Timelines {
    pub fn of_file(file: Timeline, history: Option<&TimelineHistory>) -> Self {
        match history {
            Some(history) => match history.as_of(file) {
                Some(history) => Self::History(history),
                None => Self::NotIn {
                    file,
                    history: history.timeline(),
                },
            },
            // The first timeline of a cluster has no ancestor and no history file.
            None if file == Timeline(1) => Self::History(TimelineHistory::root(file)),
            None => Self::UpTo(file),
        }
    }

    /// The timeline that the page at `address` must be of, where that is known.
    pub fn expected(&self, address: Lsn) -> Option<Timeline> {
        match self {
            Self::History(history) => Some(history.timeline_of(address)),
            Self::UpTo(_) | Self::NotIn { .. } | Self::Any => None,
        }
    }
}
