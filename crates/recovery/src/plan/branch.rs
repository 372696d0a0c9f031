//! Right after a promotion nothing of the new timeline is verified, and the last window ends on the one that the server has left. What
//! lies there behind the switch is no part of the server's history, and recovery must not replay it.

use wal::{SegmentName, Timeline, TimelineHistory};

use super::{Choice, Destination, Stop, Stretch};

impl Choice {
    /// Keeps a recovery to the end of the WAL off what the server has left behind. In the server's place its own timeline is named,
    /// whose WAL is still in pg_wal; a copy beside it stops at the end of the window, and so does one that was asked to end on a
    /// timeline.
    pub fn keep_to_history(
        &mut self,
        stretch: &Stretch,
        history: &TimelineHistory,
        asked: Option<Timeline>,
        to: &Destination,
    ) {
        let own = history.timeline();
        if self.stop != Stop::End || !stretch.on_history || self.timeline == own {
            return;
        }
        if to.is_beside || asked.is_some() {
            self.stop = Stop::Lsn(self.bounds.to_lsn);
            return;
        }
        self.unverified = stretch.segments.last().and_then(|last| {
            let number = last.last.saturating_add(1);
            let timeline = history.timeline_of_segment(number, last.size);
            // Where the window ends before the switch, recovery ends there too.
            (timeline != self.timeline).then_some(SegmentName {
                timeline,
                number,
                size: last.size,
            })
        });
        self.timeline = own;
    }
}
