//! Timeline history files, `<timeline>.history`: from which timelines this one descends (timeline.c).

use crate::bytes::text;
use crate::lsn::{Lsn, Timeline, hex_u32};
use crate::segment::SegmentSize;

/// An ancestor, and where it was left.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct HistoryEntry {
    /// The ancestor.
    pub timeline: Timeline,
    /// Where the next timeline branches off: the first LSN that is not the ancestor's any more.
    pub switch_lsn: Lsn,
    /// Why, in the server's words ("no recovery target specified", "before 2000-01-01 …").
    pub reason: String,
}

/// A timeline and its ancestors.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct TimelineHistory {
    timeline: Timeline,
    /// Oldest first.
    ancestors: Vec<HistoryEntry>,
}

/// What makes a file no history file. Lines count from 1.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HistoryError {
    /// More than any number of promotions would leave.
    #[error(
        "{bytes} bytes are too many for a timeline history file (at most {})",
        TimelineHistory::MAX_BYTES
    )]
    TooLong {
        /// The file's length.
        bytes: usize,
    },
    /// A line longer than the server reads at once.
    #[error("line {line} is longer than the 1023 bytes that the server reads")]
    LineTooLong {
        /// Its number.
        line: usize,
    },
    /// A line that does not begin with the number of a timeline.
    #[error("line {line} does not begin with a timeline's number: {content:?}")]
    NoTimeline {
        /// Its number.
        line: usize,
        /// The line.
        content: String,
    },
    /// A line without the LSN at which the timeline was left.
    #[error("line {line} does not tell at which LSN its timeline was left: {content:?}")]
    NoSwitchPoint {
        /// Its number.
        line: usize,
        /// The line.
        content: String,
    },
    /// Ancestors must come in ascending order.
    #[error("line {line} names timeline {timeline} after timeline {before}; they must ascend")]
    NotAscending {
        /// Its number.
        line: usize,
        /// The line's timeline.
        timeline: Timeline,
        /// The timeline of the line before.
        before: Timeline,
    },
    /// A timeline is always newer than its ancestors.
    #[error("the history of timeline {timeline} names timeline {ancestor} as its ancestor, which is not older")]
    NotOlder {
        /// The file's timeline.
        timeline: Timeline,
        /// The last ancestor in it.
        ancestor: Timeline,
    },
    /// The server writes at least the parent.
    #[error("the history of timeline {timeline} names no ancestor")]
    NoAncestor {
        /// The file's timeline.
        timeline: Timeline,
    },
}

impl TimelineHistory {
    /// Every promotion adds one line of some 60 bytes.
    pub const MAX_BYTES: usize = 1 << 20;
    /// readTimeLineHistory reads lines into MAXPGPATH bytes.
    const MAX_LINE: usize = 1023;

    /// A timeline without ancestors: the cluster's first, or one whose history file is lost.
    #[must_use]
    pub const fn root(timeline: Timeline) -> Self {
        Self {
            timeline,
            ancestors: Vec::new(),
        }
    }

    /// The history of `timeline`, out of its history file (readTimeLineHistory).
    ///
    /// Stricter than the server in one thing: a file that names no ancestor is an error, since the server never writes one
    /// and takes it for a timeline that came from nowhere.
    ///
    /// # Errors
    /// When the server would refuse the file; see [`HistoryError`].
    pub fn parse(timeline: Timeline, content: impl AsRef<[u8]>) -> Result<Self, HistoryError> {
        let content = content.as_ref();
        if content.len() > Self::MAX_BYTES {
            return Err(HistoryError::TooLong { bytes: content.len() });
        }
        let mut ancestors: Vec<HistoryEntry> = Vec::new();
        for (index, raw) in content.split(|byte| *byte == b'\n').enumerate() {
            let line = index.saturating_add(1);
            if raw.len() > Self::MAX_LINE {
                return Err(HistoryError::LineTooLong { line });
            }
            let Some(entry) = Self::parse_line(raw, line)? else {
                continue;
            };
            if let Some(before) = ancestors.last().map(|before| before.timeline)
                && entry.timeline <= before
            {
                return Err(HistoryError::NotAscending {
                    line,
                    timeline: entry.timeline,
                    before,
                });
            }
            ancestors.push(entry);
        }
        match ancestors.last() {
            None => Err(HistoryError::NoAncestor { timeline }),
            Some(last) if last.timeline >= timeline => Err(HistoryError::NotOlder {
                timeline,
                ancestor: last.timeline,
            }),
            Some(_) => Ok(Self { timeline, ancestors }),
        }
    }

    /// `timeline <white space> hex/hex <anything>`, or none for a comment or a blank line.
    fn parse_line(raw: &[u8], line: usize) -> Result<Option<HistoryEntry>, HistoryError> {
        let raw = raw.trim_ascii();
        if raw.is_empty() || raw.starts_with(b"#") {
            return Ok(None);
        }
        let content = || text(raw);
        let (digits, rest) = split_while(raw, |byte| byte.is_ascii_digit());
        let timeline = std::str::from_utf8(digits)
            .ok()
            .and_then(|digits| digits.parse::<u32>().ok())
            .filter(|number| *number > 0);
        let Some(timeline) = timeline else {
            return Err(HistoryError::NoTimeline {
                line,
                content: content(),
            });
        };
        let no_switch_point = || HistoryError::NoSwitchPoint {
            line,
            content: content(),
        };
        let (high, rest) = split_while(rest.trim_ascii_start(), |byte| byte.is_ascii_hexdigit());
        let rest = rest.strip_prefix(b"/").ok_or_else(no_switch_point)?;
        let (low, reason) = split_while(rest, |byte| byte.is_ascii_hexdigit());
        let (Some(high), Some(low)) = (hex_u32(high), hex_u32(low)) else {
            return Err(no_switch_point());
        };
        if reason.first().is_some_and(|byte| !byte.is_ascii_whitespace()) {
            return Err(no_switch_point());
        }
        Ok(Some(HistoryEntry {
            timeline: Timeline(timeline),
            switch_lsn: Lsn(u64::from(high) << 32 | u64::from(low)),
            reason: text(reason.trim_ascii()),
        }))
    }

    /// The timeline whose history this is.
    #[must_use]
    pub const fn timeline(&self) -> Timeline {
        self.timeline
    }

    /// Its ancestors, oldest first.
    #[must_use]
    pub fn entries(&self) -> &[HistoryEntry] {
        &self.ancestors
    }

    /// The timeline that it branched from, where, and why; none for one without ancestors.
    #[must_use]
    pub fn parent(&self) -> Option<&HistoryEntry> {
        self.ancestors.last()
    }

    /// Whether `timeline` is this one or an ancestor (tliInHistory).
    #[must_use]
    pub fn contains(&self, timeline: Timeline) -> bool {
        timeline == self.timeline || self.ancestors.iter().any(|ancestor| ancestor.timeline == timeline)
    }

    /// On which timeline the byte at `lsn` was written (tliOfPointInHistory).
    #[must_use]
    pub fn timeline_of(&self, lsn: Lsn) -> Timeline {
        // Newest first, as the server does it: where a recovery ended on an ancestor of the timeline that it was following, the
        // switch points do not ascend, and the newer one counts.
        let mut newer = self.timeline;
        for ancestor in self.ancestors.iter().rev() {
            if lsn >= ancestor.switch_lsn {
                return newer;
            }
            newer = ancestor.timeline;
        }
        newer
    }

    /// Where `timeline` was left; none for this timeline itself and for those not in the history (tliSwitchPoint).
    #[must_use]
    pub fn switch_point(&self, timeline: Timeline) -> Option<Lsn> {
        self.ancestors
            .iter()
            .find(|ancestor| ancestor.timeline == timeline)
            .map(|ancestor| ancestor.switch_lsn)
    }

    /// Where this timeline begins; 0/0 for one without ancestors.
    #[must_use]
    pub fn begin(&self) -> Lsn {
        self.parent().map_or(Lsn::INVALID, |parent| parent.switch_lsn)
    }

    /// The timeline under whose name recovery along this history first looks for segment `number`: a new timeline's first
    /// segment repeats what the old one wrote of it, so it is the newest timeline that begins in the segment or before
    /// (XLogFileReadAnyTLI, xlogrecovery.c).
    #[must_use]
    pub fn timeline_of_segment(&self, number: u64, size: SegmentSize) -> Timeline {
        let last_byte = Lsn(number.saturating_mul(size.bytes())).plus(size.bytes().saturating_sub(1));
        self.timeline_of(last_byte)
    }

    /// The history that an ancestor had of itself; none where `timeline` is not in the history.
    #[must_use]
    pub fn as_of(&self, timeline: Timeline) -> Option<Self> {
        if timeline == self.timeline {
            return Some(self.clone());
        }
        let older = self
            .ancestors
            .iter()
            .take_while(|ancestor| ancestor.timeline < timeline)
            .cloned()
            .collect();
        self.contains(timeline).then_some(Self {
            timeline,
            ancestors: older,
        })
    }
}

fn split_while(bytes: &[u8], belongs: impl Fn(u8) -> bool) -> (&[u8], &[u8]) {
    let length = bytes.iter().position(|byte| !belongs(*byte)).unwrap_or(bytes.len());
    bytes.split_at(length)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MB: SegmentSize = match SegmentSize::new(1 << 20) {
        Ok(size) => size,
        Err(_) => SegmentSize::DEFAULT,
    };

    fn parse(content: &str) -> Result<TimelineHistory, HistoryError> {
        TimelineHistory::parse(Timeline(5), content)
    }

    #[test]
    fn a_history_tells_the_timeline_of_every_lsn() {
        let history =
            parse("# comment\n\n1\t0/5000000\tno recovery target specified\n\n  3 0/7000028 before 2000-01-01\n")
                .unwrap();
        assert_eq!(history.timeline_of(Lsn(0)), Timeline(1));
        assert_eq!(history.timeline_of(Lsn(0x4FF_FFFF)), Timeline(1));
        assert_eq!(history.timeline_of(Lsn(0x500_0000)), Timeline(3));
        assert_eq!(history.timeline_of(Lsn(0x700_0027)), Timeline(3));
        assert_eq!(history.timeline_of(Lsn(0x700_0028)), Timeline(5));
        assert_eq!(history.switch_point(Timeline(1)), Some(Lsn(0x500_0000)));
        assert_eq!(history.switch_point(Timeline(5)), None);
        assert!(history.contains(Timeline(3)) && history.contains(Timeline(5)) && !history.contains(Timeline(2)));
        assert_eq!(history.parent().unwrap().reason, "before 2000-01-01");
        assert_eq!(history.entries()[0].reason, "no recovery target specified");
        assert_eq!(history.begin(), Lsn(0x700_0028));
    }

    #[test]
    fn a_segment_in_which_a_timeline_begins_is_read_under_the_new_name() {
        let history = parse("1 0/500000\n3 0/700028\n").unwrap();
        let timelines: Vec<u32> = (4..9).map(|number| history.timeline_of_segment(number, MB).0).collect();
        assert_eq!(timelines, [1, 3, 3, 5, 5]);
    }

    #[test]
    fn an_ancestor_has_the_older_part_of_the_history() {
        let history = parse("1 0/500000\n3 0/700028\n").unwrap();
        assert_eq!(
            history.as_of(Timeline(3)),
            TimelineHistory::parse(Timeline(3), "1 0/500000").ok()
        );
        assert_eq!(history.as_of(Timeline(1)), Some(TimelineHistory::root(Timeline(1))));
        assert_eq!(history.as_of(Timeline(5)), Some(history.clone()));
        assert_eq!(history.as_of(Timeline(2)), None);
    }

    #[test]
    fn a_recovery_that_ended_on_an_ancestor_leaves_no_hole() {
        // Following timeline 2 (begun at 0/600), recovery stopped at 0/500, which is timeline 1's.
        let history = TimelineHistory::parse(Timeline(3), "1 0/600\n2 0/500\n").unwrap();
        assert_eq!(history.timeline_of(Lsn(0x4FF)), Timeline(1));
        assert_eq!(history.timeline_of(Lsn(0x500)), Timeline(3));
        assert_eq!(history.timeline_of(Lsn(0x600)), Timeline(3));
    }

    #[test]
    fn a_history_that_the_server_would_refuse_is_refused() {
        assert!(matches!(parse("x 0/5"), Err(HistoryError::NoTimeline { line: 1, .. })));
        assert!(matches!(
            parse("99999999999 0/5"),
            Err(HistoryError::NoTimeline { line: 1, .. })
        ));
        assert!(matches!(parse("1"), Err(HistoryError::NoSwitchPoint { line: 1, .. })));
        assert!(matches!(
            parse("\n1 5"),
            Err(HistoryError::NoSwitchPoint { line: 2, .. })
        ));
        assert!(matches!(
            parse("1 0/"),
            Err(HistoryError::NoSwitchPoint { line: 1, .. })
        ));
        assert!(matches!(
            parse("1 0/5x"),
            Err(HistoryError::NoSwitchPoint { line: 1, .. })
        ));
        assert!(matches!(
            parse("1 000000000/5"),
            Err(HistoryError::NoSwitchPoint { line: 1, .. })
        ));
        assert!(matches!(
            parse("2 0/5\n1 0/6"),
            Err(HistoryError::NotAscending { line: 2, .. })
        ));
        assert!(matches!(
            parse("2 0/5\n2 0/6"),
            Err(HistoryError::NotAscending { line: 2, .. })
        ));
        assert!(matches!(parse("5 0/5"), Err(HistoryError::NotOlder { .. })));
        assert!(matches!(parse("# nothing\n"), Err(HistoryError::NoAncestor { .. })));
        assert!(matches!(
            parse(&"#".repeat(1024)),
            Err(HistoryError::LineTooLong { line: 1 })
        ));
        assert!(matches!(
            parse(&"\n".repeat(TimelineHistory::MAX_BYTES + 1)),
            Err(HistoryError::TooLong { .. })
        ));
    }

    #[test]
    fn a_reason_in_another_encoding_is_kept_as_far_as_it_can_be_read() {
        let history = TimelineHistory::parse(Timeline(2), b"1\t0/5\tat restore point \"caf\xE9\0\"\r\n").unwrap();
        assert_eq!(
            history.parent().unwrap().reason,
            "at restore point \"caf\u{FFFD}\u{FFFD}\""
        );
    }
}
