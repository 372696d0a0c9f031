//! Which segments the archive must hold: from the oldest that is needed to the last that the server has filled.

use wal::{Lsn, SegmentName, SegmentSize, Timeline, TimelineHistory};

/// An unbroken run of segments of one timeline, both ends included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stretch {
    /// The timeline that the files carry in their names.
    pub timeline: Timeline,
    /// Number of the first segment.
    pub first: u64,
    /// Number of the last segment.
    pub last: u64,
    /// The cluster's segment size.
    pub size: SegmentSize,
}

/// No server writes segment 0: a cluster's WAL begins with its second segment (BootStrapXLOG, xlog.c).
const FIRST_NUMBER: u64 = 1;

/// More segments than this are not expected at once, whatever LSN a caller of the ledger made up: 16 TB of 16 MB segments.
pub const MOST_EXPECTED: u64 = 1 << 20;

impl Stretch {
    /// The name of a segment of it.
    pub const fn name(&self, number: u64) -> SegmentName {
        SegmentName {
            timeline: self.timeline,
            number,
            size: self.size,
        }
    }

    /// Whether a segment belongs to it.
    pub fn contains(&self, segment: &SegmentName) -> bool {
        segment.timeline == self.timeline && (self.first..=self.last).contains(&segment.number)
    }
}

/// The segments from the one that holds `from` to the last that ends at or before `filled_to` (the server's flush LSN), along the
/// history of the server's timeline; oldest first, one stretch a timeline.
///
/// The segment in which a timeline begins is expected under the new timeline's name only: the old timeline's copy was never
/// filled, and recovery takes the newer one (XLogFileReadAnyTLI, xlogrecovery.c).
pub fn expected(history: &TimelineHistory, size: SegmentSize, from: Lsn, filled_to: Lsn) -> Vec<Stretch> {
    let end = filled_to.0 / size.bytes();
    let lowest = end.saturating_sub(MOST_EXPECTED).max(FIRST_NUMBER);
    let first = (from.0 / size.bytes()).max(lowest);
    let mut stretches: Vec<Stretch> = Vec::new();
    let mut number = first;
    while number < end {
        let timeline = history.timeline_of_segment(number, size);
        // The timeline changes only where an ancestor was left: jump from one such segment to the next.
        let until = history
            .entries()
            .iter()
            .map(|ancestor| ancestor.switch_lsn.0 / size.bytes())
            .filter(|switch| *switch > number)
            .min()
            .map_or(end, |switch| switch.min(end));
        match stretches.last_mut() {
            Some(before) if before.timeline == timeline => before.last = until.saturating_sub(1),
            _ => stretches.push(Stretch {
                timeline,
                first: number,
                last: until.saturating_sub(1),
                size,
            }),
        }
        number = until;
    }
    stretches
}

/// Where the chain begins: at the oldest WAL that a backup needs; without one, at the oldest segment of this history that the
/// archive still holds, and with nothing in the archive at the segment that the server is writing.
///
/// What counts as a backup here is every completed one that is neither expired nor known to be bad, also one whose WAL is not
/// whole: if it did not count any more, its missing segment would be forgotten, and it would seem whole again.
pub fn begin(needed_from: Option<Lsn>, oldest: Option<Lsn>, filled_to: Lsn) -> Lsn {
    needed_from.unwrap_or_else(|| oldest.map_or(filled_to, |oldest| oldest.min(filled_to)))
}

/// Where the oldest segment of this history begins that the archive holds.
pub fn oldest(history: &TimelineHistory, held: impl IntoIterator<Item = SegmentName>) -> Option<Lsn> {
    held.into_iter()
        .filter(|segment| history.timeline_of_segment(segment.number, segment.size) == segment.timeline)
        .map(|segment| segment.start())
        .min()
}

#[cfg(test)]
mod tests {
    use super::*;

    const MB: u64 = 1 << 20;

    fn size() -> SegmentSize {
        SegmentSize::new(1 << 20).unwrap()
    }

    fn shown(stretches: &[Stretch]) -> Vec<(u32, u64, u64)> {
        stretches.iter().map(|s| (s.timeline.0, s.first, s.last)).collect()
    }

    #[test]
    fn only_filled_segments_are_expected() {
        let history = TimelineHistory::root(Timeline(1));
        let of = |from, to| shown(&expected(&history, size(), Lsn(from), Lsn(to)));
        assert_eq!(of(2 * MB + 40, 5 * MB), [(1, 2, 4)]);
        assert_eq!(of(2 * MB + 40, 5 * MB + 1), [(1, 2, 4)]);
        assert_eq!(of(2 * MB + 40, 6 * MB - 1), [(1, 2, 4)]);
        assert_eq!(of(2 * MB + 40, 3 * MB - 1), []);
        assert_eq!(of(9 * MB, 3 * MB), []);
        assert_eq!(of(0, 3 * MB), [(1, 1, 2)]);
    }

    #[test]
    fn the_segment_of_a_switch_is_expected_from_the_new_timeline() {
        let history = TimelineHistory::parse(Timeline(3), "1\t0/350000\tx\n2\t0/600000\ty\n").unwrap();
        assert_eq!(
            shown(&expected(&history, size(), Lsn(MB), Lsn(9 * MB))),
            [(1, 1, 2), (2, 3, 5), (3, 6, 8)]
        );
        assert_eq!(
            shown(&expected(&history, size(), Lsn(4 * MB), Lsn(9 * MB))),
            [(2, 4, 5), (3, 6, 8)]
        );
    }

    #[test]
    fn two_switches_in_one_segment_leave_the_newest_timeline() {
        let history = TimelineHistory::parse(Timeline(3), "1\t0/310000\tx\n2\t0/320000\ty\n").unwrap();
        assert_eq!(
            shown(&expected(&history, size(), Lsn(MB), Lsn(5 * MB))),
            [(1, 1, 2), (3, 3, 4)]
        );
    }

    #[test]
    fn a_made_up_lsn_does_not_make_the_list_endless() {
        let history = TimelineHistory::root(Timeline(1));
        let stretches = expected(&history, size(), Lsn(0), Lsn::MAX);
        assert_eq!(stretches.len(), 1);
        assert_eq!(stretches[0].last - stretches[0].first + 1, MOST_EXPECTED);
    }

    #[test]
    fn without_a_backup_the_chain_begins_at_the_oldest_segment_held() {
        let history = TimelineHistory::parse(Timeline(2), "1\t0/350000\tx\n").unwrap();
        let name = |timeline, number| SegmentName {
            timeline: Timeline(timeline),
            number,
            size: size(),
        };
        let held = [name(2, 6), name(2, 5), name(9, 1), name(1, 4)];
        let oldest_held = oldest(&history, held);
        assert_eq!(oldest_held, Some(Lsn(5 * MB)), "other branches do not count");
        assert_eq!(begin(None, oldest_held, Lsn(8 * MB)), Lsn(5 * MB));
        assert_eq!(begin(Some(Lsn(77)), oldest_held, Lsn(8 * MB)), Lsn(77));
        assert_eq!(begin(None, oldest(&history, []), Lsn(8 * MB)), Lsn(8 * MB));
    }
}
