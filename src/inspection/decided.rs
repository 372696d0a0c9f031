//! What was decided about a lot of segments, and whether it is news.

use archive::chain::{Decision, Held, Recorded, Why};
use wal::{Lsn, SegmentName};

/// What is to be done about some segments.
#[derive(Default)]
pub struct Decided {
    pub(super) segments: Vec<(SegmentName, Held, Decision, Option<Recorded>)>,
}

impl Decided {
    /// Whether anything is to be entered.
    pub fn is_news(&self) -> bool {
        self.segments.iter().any(|(_, _, decision, record)| match decision {
            Decision::Stands | Decision::Waits => false,
            Decision::Read(_) => record.is_none(),
            Decision::Await | Decision::Lose(_) => true,
        })
    }

    /// Where the WAL begins of which there is news, if the news is of nothing but segments that were filled just now: what the
    /// worker's own writing can bring about.
    pub fn routine(&self) -> Option<Lsn> {
        let mut first = None;
        for (segment, held, decision, record) in &self.segments {
            match decision {
                Decision::Stands | Decision::Waits => continue,
                // Tried again in each look, and news only if something else is found.
                Decision::Read(_) if record.as_ref().is_some_and(|record| is_retry(record, *held)) => continue,
                Decision::Await if record.is_none() => {}
                Decision::Read(Why::New) => {}
                _ => return None,
            }
            first = first.or(Some(segment.start()));
        }
        first
    }

    /// Whether there is nothing to do, or nothing but what is tried again in each look.
    pub fn is_silent(&self) -> bool {
        self.segments.iter().all(|(_, held, decision, record)| match decision {
            Decision::Stands | Decision::Waits => true,
            Decision::Read(_) => record.as_ref().is_some_and(|record| is_retry(record, *held)),
            Decision::Await | Decision::Lose(_) => false,
        })
    }
}

/// Whether a file is read only because it was no good or not to be had, and may be better now.
fn is_retry(record: &Recorded, held: Held) -> bool {
    record.status.is_bad() && (held == Held::Unlisted || record.due || !record.absent && record.mark.is_none())
}
