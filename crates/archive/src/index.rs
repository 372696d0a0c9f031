//! The index: one byte for each expected segment, which says what is known of it, so that a look at the archive is about what
//! has changed and not about all that there is.
//!
//! It holds nothing that is not on record: a segment whose state is unknown is looked up there. A million segments take a
//! megabyte.

use wal::SegmentName;

use crate::expected::Stretch;

/// What is known of a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum State {
    /// Nothing: its row is to be looked up.
    Unknown,
    /// Pending, and not there yet, or not to be read yet.
    Awaited,
    /// There, and to be read.
    Queued,
    /// Read, and found sound.
    Sound,
    /// Read, and no good.
    Bad,
    /// Missing, or given up.
    Lost,
}

/// The states of all expected segments.
#[derive(Debug, Clone, Default)]
pub struct Index {
    /// Ascending, one a timeline, as [`expected`](crate::expected::expected) gives them.
    parts: Vec<Part>,
}

#[derive(Debug, Clone)]
struct Part {
    stretch: Stretch,
    states: Vec<State>,
}

impl Part {
    fn position(&self, segment: &SegmentName) -> Option<usize> {
        if !self.stretch.contains(segment) {
            return None;
        }
        usize::try_from(segment.number - self.stretch.first).ok()
    }

    fn entries(&self) -> impl DoubleEndedIterator<Item = (SegmentName, State)> + ExactSizeIterator + '_ {
        self.states
            .iter()
            .enumerate()
            .map(|(position, state)| (self.stretch.name(self.stretch.first + position as u64), *state))
    }
}

impl Index {
    /// Makes it cover these stretches; what is known of segments that stay is kept.
    pub fn align(&mut self, stretches: &[Stretch]) {
        if self.parts.iter().map(|part| &part.stretch).eq(stretches) {
            return;
        }
        let before = std::mem::take(&mut self.parts);
        self.parts = stretches
            .iter()
            .map(|stretch| {
                let kept = before.iter().find(|part| part.stretch.timeline == stretch.timeline);
                let state = |number| {
                    kept.and_then(|part| part.states.get(part.position(&stretch.name(number))?).copied())
                        .unwrap_or(State::Unknown)
                };
                Part {
                    stretch: *stretch,
                    states: (stretch.first..=stretch.last).map(state).collect(),
                }
            })
            .collect();
    }

    /// What it covers.
    pub fn stretches(&self) -> impl Iterator<Item = &Stretch> {
        self.parts.iter().map(|part| &part.stretch)
    }

    /// Whether it covers a segment.
    pub fn covers(&self, segment: &SegmentName) -> bool {
        self.parts.iter().any(|part| part.stretch.contains(segment))
    }

    /// What is known of a segment; nothing of one that it does not cover.
    pub fn state(&self, segment: &SegmentName) -> State {
        self.parts
            .iter()
            .find_map(|part| part.states.get(part.position(segment)?).copied())
            .unwrap_or(State::Unknown)
    }

    /// Keeps what is known of a segment, if it covers it.
    pub fn set(&mut self, segment: &SegmentName, state: State) {
        for part in &mut self.parts {
            if let Some(position) = part.position(segment)
                && let Some(kept) = part.states.get_mut(position)
            {
                *kept = state;
            }
        }
    }

    /// All segments with what is known of them, ascending.
    pub fn entries(&self) -> impl DoubleEndedIterator<Item = (SegmentName, State)> + '_ {
        self.parts.iter().flat_map(Part::entries)
    }

    /// The segments on which a decision is due, ascending: those of which nothing is known or that are awaited, and those that
    /// are there or not there against what is known of them. `holds` says whether a segment is there, if that can be said.
    pub fn undecided<'a>(
        &'a self,
        holds: impl Fn(&SegmentName) -> Option<bool> + 'a,
    ) -> impl Iterator<Item = SegmentName> + 'a {
        self.entries()
            .filter(move |(segment, state)| match state {
                State::Unknown | State::Awaited => true,
                State::Queued | State::Sound | State::Bad => holds(segment) == Some(false),
                State::Lost => holds(segment) == Some(true),
            })
            .map(|(segment, _)| segment)
    }

    /// The next `most` segments after `cursor` that are in one of these states, and around to the first after the last.
    pub fn round(&self, wanted: &[State], cursor: Option<SegmentName>, most: usize) -> Vec<SegmentName> {
        if wanted.is_empty() {
            return Vec::new();
        }
        let read = |from: Option<SegmentName>| {
            self.parts
                .iter()
                .filter(move |part| from.is_none_or(|from| part.stretch.name(part.stretch.last) > from))
                .flat_map(move |part| {
                    let skip = from.and_then(|from| part.position(&from)).map_or(0, |at| at + 1);
                    part.entries().skip(skip)
                })
                .filter(|(_, state)| wanted.contains(state))
                .map(|(segment, _)| segment)
        };
        let mut round: Vec<SegmentName> = read(cursor).take(most).collect();
        if let Some(cursor) = cursor.filter(|_| round.len() < most) {
            let rest = most - round.len();
            round.extend(read(None).take_while(|segment| *segment <= cursor).take(rest));
        }
        round
    }

    /// The newest `most` segments in this state, ascending.
    pub fn newest(&self, wanted: State, most: usize) -> Vec<SegmentName> {
        let mut newest: Vec<SegmentName> = self
            .entries()
            .rev()
            .filter(|(_, state)| *state == wanted)
            .map(|(segment, _)| segment)
            .take(most)
            .collect();
        newest.reverse();
        newest
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use wal::{SegmentSize, Timeline};

    fn stretch(timeline: u32, first: u64, last: u64) -> Stretch {
        Stretch {
            timeline: Timeline(timeline),
            first,
            last,
            size: SegmentSize::DEFAULT,
        }
    }

    fn name(timeline: u32, number: u64) -> SegmentName {
        stretch(timeline, 0, 0).name(number)
    }

    fn numbers(segments: impl IntoIterator<Item = SegmentName>) -> Vec<u64> {
        segments.into_iter().map(|segment| segment.number).collect()
    }

    fn index(stretches: &[Stretch], state: State) -> Index {
        let mut index = Index::default();
        index.align(stretches);
        let all: Vec<_> = index.entries().map(|(segment, _)| segment).collect();
        for segment in all {
            index.set(&segment, state);
        }
        index
    }

    #[test]
    fn what_is_known_outlives_a_chain_that_moves_on() {
        let mut index = index(&[stretch(1, 3, 6)], State::Sound);
        index.set(&name(1, 5), State::Bad);
        index.align(&[stretch(1, 5, 7), stretch(2, 8, 9)]);
        let states: Vec<_> = index
            .entries()
            .map(|(segment, state)| (segment.number, state))
            .collect();
        assert_eq!(
            states,
            [
                (5, State::Bad),
                (6, State::Sound),
                (7, State::Unknown),
                (8, State::Unknown),
                (9, State::Unknown)
            ]
        );
        assert_eq!(index.state(&name(2, 5)), State::Unknown, "another timeline's");
    }

    #[test]
    fn only_what_is_at_odds_with_the_archive_wants_a_decision() {
        let mut index = index(&[stretch(1, 1, 6)], State::Sound);
        assert_eq!(numbers(index.undecided(|_| Some(true))), [0; 0]);
        assert_eq!(numbers(index.undecided(|segment| Some(segment.number != 4))), [4]);
        index.set(&name(1, 4), State::Lost);
        assert_eq!(numbers(index.undecided(|segment| Some(segment.number != 4))), [0; 0]);
        assert_eq!(numbers(index.undecided(|_| Some(true))), [4]);
        index.set(&name(1, 2), State::Awaited);
        index.set(&name(1, 3), State::Queued);
        assert_eq!(numbers(index.undecided(|segment| Some(segment.number != 4))), [2]);
        assert_eq!(numbers(index.undecided(|_| None)), [2], "nobody can say what is there");
    }

    #[test]
    fn a_round_comes_to_every_segment_in_turn() {
        let index = index(&[stretch(1, 1, 3), stretch(2, 4, 7)], State::Sound);
        let mut cursor = None;
        let mut seen = Vec::new();
        for _ in 0..4 {
            let round = index.round(&[State::Sound], cursor, 2);
            cursor = round.last().copied().or(cursor);
            seen.extend(numbers(round));
        }
        assert_eq!(seen, [1, 2, 3, 4, 5, 6, 7, 1]);
        assert_eq!(numbers(index.round(&[State::Sound], None, 99)), [1, 2, 3, 4, 5, 6, 7]);
        assert_eq!(
            numbers(index.round(&[State::Sound], Some(name(2, 7)), 99)),
            [1, 2, 3, 4, 5, 6, 7]
        );
    }

    #[test]
    fn the_newest_segments_are_read_first_each_lot_in_order() {
        let mut index = index(&[stretch(1, 1, 9)], State::Queued);
        assert_eq!(numbers(index.newest(State::Queued, 3)), [7, 8, 9]);
        for number in 7..=9 {
            index.set(&name(1, number), State::Sound);
        }
        assert_eq!(numbers(index.newest(State::Queued, 3)), [4, 5, 6]);
    }
}
