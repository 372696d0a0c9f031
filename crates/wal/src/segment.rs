//! WAL segments by size and by name (xlog_internal.h).

use std::fmt;

use crate::lsn::{Lsn, Timeline, hex_u32};

/// The size of a cluster's WAL segments: a power of two from 1 MB to 1 GB, chosen at initdb (IsValidWalSegSize).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
pub struct SegmentSize(u32);

/// A number of bytes that cannot be a WAL segment's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0} bytes is not a WAL segment size (a power of two from 1 MB to 1 GB)")]
pub struct SegmentSizeError(pub u32);

impl SegmentSize {
    /// What initdb takes without --wal-segsize: 16 MB.
    pub const DEFAULT: Self = Self(16 << 20);
    const MIN: u32 = 1 << 20;
    const MAX: u32 = 1 << 30;

    /// The size of `bytes` bytes.
    ///
    /// # Errors
    /// When no server can have such segments.
    pub const fn new(bytes: u32) -> Result<Self, SegmentSizeError> {
        if bytes.is_power_of_two() && bytes >= Self::MIN && bytes <= Self::MAX {
            Ok(Self(bytes))
        } else {
            Err(SegmentSizeError(bytes))
        }
    }

    /// In bytes.
    #[must_use]
    pub const fn bytes(self) -> u64 {
        self.0 as u64
    }

    /// How many segments share the middle eight digits of a name: XLogSegmentsPerXLogId.
    const fn per_log_id(self) -> u64 {
        0x1_0000_0000 / self.bytes()
    }

    const fn highest_number(self) -> u64 {
        u64::MAX / self.bytes()
    }
}

/// A segment file's name: 24 hex digits, of a timeline and a place in it.
///
/// Ordered by timeline, then place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
pub struct SegmentName {
    /// The timeline that the file belongs to.
    pub timeline: Timeline,
    /// XLogSegNo: the segment's first LSN over the segment size.
    pub number: u64,
    /// The cluster's segment size, without which a name means no place.
    pub size: SegmentSize,
}

/// A text that names no segment.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SegmentNameError {
    /// Not 24 upper-case hex digits (IsXLogFileName).
    #[error("not a WAL segment name: \"{0}\" (24 upper-case hex digits)")]
    NotAName(String),
    /// The last eight digits are beyond what segments of this size reach.
    #[error("no segment of {size} bytes is named {name}: its last eight digits are at most {highest:08X}")]
    BeyondSize {
        /// The text.
        name: String,
        /// The segment size, bytes.
        size: u64,
        /// The highest value of the last eight digits.
        highest: u64,
    },
    /// Timeline 0 does not exist.
    #[error("not a WAL segment name: \"{0}\" (there is no timeline 0)")]
    TimelineZero(String),
}

impl SegmentName {
    /// The segment called `name`, in a cluster of such segments (XLogFromFileName).
    ///
    /// # Errors
    /// When it is not exactly a segment's name, `.partial` and the like included.
    pub fn parse(name: &str, size: SegmentSize) -> Result<Self, SegmentNameError> {
        let shown = || name.chars().take(64).collect::<String>();
        let parts = || {
            let digits = name.as_bytes();
            if digits.len() != 24 || !digits.iter().all(|digit| is_name_digit(*digit)) {
                return None;
            }
            Some((
                hex_u32(digits.get(..8)?)?,
                hex_u32(digits.get(8..16)?)?,
                hex_u32(digits.get(16..)?)?,
            ))
        };
        let (timeline, log, segment) = parts().ok_or_else(|| SegmentNameError::NotAName(shown()))?;
        if timeline == 0 {
            return Err(SegmentNameError::TimelineZero(shown()));
        }
        if u64::from(segment) >= size.per_log_id() {
            return Err(SegmentNameError::BeyondSize {
                name: shown(),
                size: size.bytes(),
                highest: size.per_log_id().saturating_sub(1),
            });
        }
        let number = u64::from(log)
            .saturating_mul(size.per_log_id())
            .saturating_add(u64::from(segment));
        Ok(Self {
            timeline: Timeline(timeline),
            number,
            size,
        })
    }

    /// The segment that holds the byte at `lsn` (XLByteToSeg).
    #[must_use]
    pub const fn containing(timeline: Timeline, lsn: Lsn, size: SegmentSize) -> Self {
        Self {
            timeline,
            number: lsn.0 / size.bytes(),
            size,
        }
    }

    /// Where the segment begins.
    #[must_use]
    pub const fn start(&self) -> Lsn {
        Lsn(self.number.saturating_mul(self.size.bytes()))
    }

    /// The first LSN behind the segment.
    #[must_use]
    pub const fn end(&self) -> Lsn {
        self.start().plus(self.size.bytes())
    }

    /// The segment that follows on the same timeline; none behind the last one that can be named.
    #[must_use]
    pub const fn next(&self) -> Option<Self> {
        if self.number >= self.size.highest_number() {
            return None;
        }
        Some(Self {
            number: self.number.saturating_add(1),
            ..*self
        })
    }

    /// The segment before it on the same timeline.
    #[must_use]
    pub fn previous(&self) -> Option<Self> {
        Some(Self {
            number: self.number.checked_sub(1)?,
            ..*self
        })
    }

    /// The segment at the same place on another timeline.
    #[must_use]
    pub const fn on(&self, timeline: Timeline) -> Self {
        Self { timeline, ..*self }
    }
}

impl fmt::Display for SegmentName {
    /// XLogFileName.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let per_log_id = self.size.per_log_id();
        let (log, segment) = (self.number.checked_div(per_log_id), self.number.checked_rem(per_log_id));
        write!(
            f,
            "{:08X}{:08X}{:08X}",
            self.timeline.0,
            log.unwrap_or(0),
            segment.unwrap_or(0)
        )
    }
}

/// The server writes and knows upper-case digits only.
fn is_name_digit(digit: u8) -> bool {
    matches!(digit, b'0'..=b'9' | b'A'..=b'F')
}

/// What a file in pg_wal or in an archive is, by its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
pub enum WalFileName {
    /// A whole segment.
    Segment(SegmentName),
    /// `<segment>.partial`: a segment that its writer had not filled when the timeline ended, or that pg_receivewal is filling.
    Partial(SegmentName),
    /// `<timeline>.history`.
    History(Timeline),
    /// `<segment>.<offset>.backup`: what the server left about a base backup.
    BackupHistory {
        /// The segment in which the backup starts.
        segment: SegmentName,
        /// How far into it the backup starts, bytes.
        offset: u32,
    },
}

impl WalFileName {
    /// What the file called `name` is; none of them for anything else. Compression suffixes are not looked through.
    #[must_use]
    pub fn classify(name: &str, size: SegmentSize) -> Option<Self> {
        if let Some(timeline) = name.strip_suffix(".history") {
            let digits = timeline.as_bytes();
            let timeline = hex_u32(digits)?;
            return (digits.len() == 8 && digits.iter().all(|digit| is_name_digit(*digit)) && timeline != 0)
                .then_some(Self::History(Timeline(timeline)));
        }
        if let Some(segment) = name.strip_suffix(".partial") {
            return SegmentName::parse(segment, size).ok().map(Self::Partial);
        }
        if let Some(stem) = name.strip_suffix(".backup") {
            let (segment, offset) = stem.split_once('.')?;
            let segment = SegmentName::parse(segment, size).ok()?;
            if offset.len() != 8 || !offset.bytes().all(is_name_digit) {
                return None;
            }
            let offset = hex_u32(offset.as_bytes())?;
            return (u64::from(offset) < size.bytes()).then_some(Self::BackupHistory { segment, offset });
        }
        SegmentName::parse(name, size).ok().map(Self::Segment)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MB: SegmentSize = SegmentSize(1 << 20);
    const GB: SegmentSize = SegmentSize(1 << 30);

    #[test]
    fn only_powers_of_two_from_1_mb_to_1_gb_are_segment_sizes() {
        for bytes in [0, 1, 1 << 19, (1 << 20) + 1, 3 << 20, 1 << 31, u32::MAX] {
            assert_eq!(SegmentSize::new(bytes), Err(SegmentSizeError(bytes)));
        }
        assert_eq!(SegmentSize::new(1 << 24), Ok(SegmentSize::DEFAULT));
        assert_eq!(GB.bytes(), 1 << 30);
    }

    #[test]
    fn a_name_is_a_place_and_back() {
        for (text, size, start) in [
            ("000000010000000000000001", SegmentSize::DEFAULT, 0x0100_0000),
            ("0000000A00000002000000FF", SegmentSize::DEFAULT, 0x2_FF00_0000),
            ("000000010000000000000FFF", MB, 0xFFF0_0000),
            ("000000010000000100000003", GB, 0x1_C000_0000),
        ] {
            let name = SegmentName::parse(text, size).unwrap();
            assert_eq!(name.start(), Lsn(start));
            assert_eq!(name.end(), Lsn(start + size.bytes()));
            assert_eq!(name.to_string(), text);
            assert_eq!(SegmentName::containing(name.timeline, Lsn(start + 1), size), name);
            assert_eq!(name.next().unwrap().previous(), Some(name));
        }
    }

    #[test]
    fn names_wrap_at_four_gigabytes() {
        let last = SegmentName::parse("0000000100000000000000FF", SegmentSize::DEFAULT).unwrap();
        assert_eq!(last.next().unwrap().to_string(), "000000010000000100000000");
        let last = SegmentName::parse("000000010000000000000003", GB).unwrap();
        assert_eq!(last.next().unwrap().to_string(), "000000010000000100000000");
    }

    #[test]
    fn a_name_that_its_segment_size_cannot_have_is_refused() {
        assert!(SegmentName::parse("000000010000000000000100", SegmentSize::DEFAULT).is_err());
        assert!(SegmentName::parse("000000010000000000000004", GB).is_err());
        assert!(SegmentName::parse("000000010000000000000100", MB).is_ok());
    }

    #[test]
    fn there_is_nothing_before_the_first_and_behind_the_last_segment() {
        let first = SegmentName {
            timeline: Timeline(1),
            number: 0,
            size: MB,
        };
        assert_eq!(first.previous(), None);
        let last = SegmentName::parse("00000001FFFFFFFF00000FFF", MB).unwrap();
        assert_eq!(last.next(), None);
        assert_eq!(last.end(), Lsn::MAX);
    }

    #[test]
    fn segments_are_ordered_by_timeline_then_place() {
        let name = |text| SegmentName::parse(text, MB).unwrap();
        assert!(name("000000010000000000000FFF") < name("000000010000000100000000"));
        assert!(name("000000010000000100000000") < name("000000020000000000000001"));
    }

    #[test]
    fn every_kind_of_wal_file_is_known_by_its_name() {
        let classify = |name| WalFileName::classify(name, SegmentSize::DEFAULT);
        let segment = SegmentName::parse("000000010000000000000003", SegmentSize::DEFAULT).unwrap();
        assert_eq!(
            classify("000000010000000000000003"),
            Some(WalFileName::Segment(segment))
        );
        assert_eq!(
            classify("000000010000000000000003.partial"),
            Some(WalFileName::Partial(segment))
        );
        assert_eq!(classify("0000000B.history"), Some(WalFileName::History(Timeline(11))));
        assert_eq!(
            classify("000000010000000000000003.00000028.backup"),
            Some(WalFileName::BackupHistory { segment, offset: 0x28 })
        );
    }

    #[test]
    fn other_names_are_no_wal_files() {
        for name in [
            "",
            "00000001000000000000000",
            "0000000100000000000000033",
            "00000001000000000000000a",
            "000000000000000000000001",
            "00000000.history",
            "1.history",
            "0000000g.history",
            ".history",
            "000000010000000000000003.gz",
            "000000010000000000000003.partial.partial",
            "000000010000000000000003.backup",
            "000000010000000000000003.28.backup",
            "000000010000000000000003.01000000.backup",
            "000000010000000000000003.00000028.00000028.backup",
            "0000000100000000000000é",
            "+00000010000000000000003",
        ] {
            assert_eq!(WalFileName::classify(name, SegmentSize::DEFAULT), None, "{name}");
        }
    }
}
