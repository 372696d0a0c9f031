//! Which segments are the server's own, seen from where it is now.

use std::ops::RangeInclusive;

use wal::{Lsn, SegmentName, SegmentSize, TimelineHistory};

use super::layout::Group;
use crate::expected::MOST_EXPECTED;

/// Segments that many ahead of the server are remembered, so that it can come to them without anything being read again: a
/// standby replays what its primary archived long ago.
const AHEAD: u64 = 1 << 16;
/// The archiver sends a segment once the server is in the next; by the time the archive is read it can be in one more.
const LEEWAY: u64 = 2;

/// What an archive is compared with.
#[derive(Debug, Clone, serde::Serialize, serde::Deserialize)]
pub(super) struct View {
    pub history: TimelineHistory,
    pub size: SegmentSize,
    /// The segment that the server is in.
    flush: u64,
    /// Where the server was when the window was laid.
    laid_at: u64,
}

/// What a segment is to the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Relation {
    /// On its history, and near enough to be remembered.
    Ours,
    /// On its history, but longer ago than anything is expected.
    Past,
    /// Not on its history.
    Stranger,
}

impl View {
    pub fn new(history: &TimelineHistory, size: SegmentSize, flush: Lsn) -> Self {
        let flush = flush.0 / size.bytes();
        Self {
            history: history.clone(),
            size,
            flush,
            laid_at: flush,
        }
    }

    /// Moves on with the server; false where what was remembered from here does not do for there.
    pub fn follow(&mut self, history: &TimelineHistory, flush: Lsn) -> bool {
        let flush = flush.0 / self.size.bytes();
        if self.history != *history || flush < self.laid_at || flush.saturating_add(LEEWAY) >= *self.window().end() {
            return false;
        }
        self.flush = flush;
        true
    }

    /// The numbers that are remembered.
    pub const fn window(&self) -> RangeInclusive<u64> {
        self.laid_at.saturating_sub(MOST_EXPECTED)..=self.laid_at.saturating_add(AHEAD)
    }

    /// The numbers that the archive can be expected to hold.
    pub const fn present(&self) -> RangeInclusive<u64> {
        self.flush.saturating_sub(MOST_EXPECTED)..=self.flush
    }

    /// The remembered numbers that the server has not come to.
    pub const fn ahead(&self) -> RangeInclusive<u64> {
        self.flush.saturating_add(1)..=*self.window().end()
    }

    /// Those of them that it cannot have sent itself.
    pub const fn far_ahead(&self) -> RangeInclusive<u64> {
        self.flush.saturating_add(LEEWAY + 1)..=*self.window().end()
    }

    pub fn relation(&self, segment: &SegmentName) -> Relation {
        let window = self.window();
        if !self.is_on_history(segment) || segment.number > *window.end() {
            Relation::Stranger
        } else if segment.number < *window.start() {
            Relation::Past
        } else {
            Relation::Ours
        }
    }

    /// Whether recovery along this history would ask for a segment of this timeline at this place.
    pub fn is_on_history(&self, segment: &SegmentName) -> bool {
        self.history.timeline_of_segment(segment.number, self.size) == segment.timeline
    }

    /// The segment of this history at a place.
    pub fn segment(&self, number: u64) -> SegmentName {
        SegmentName {
            timeline: self.history.timeline_of_segment(number, self.size),
            number,
            size: self.size,
        }
    }

    /// Whether a group can hold segments of ours.
    pub fn concerns(&self, group: Group) -> bool {
        let (window, numbers) = (self.window(), group.numbers(self.size));
        self.history.contains(group.timeline) && numbers.start() <= window.end() && numbers.end() >= window.start()
    }
}
