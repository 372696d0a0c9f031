//! How each kind of archive names what it stores: all that one layout differs from another in.

use std::fmt;
use std::ops::RangeInclusive;

use wal::{SegmentName, SegmentSize, Timeline, WalFileName};

use crate::compression::Compression;
use crate::source::Source;

/// How the files of an archive are named, and in which directories they lie.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Layout {
    /// All in one directory, under their own names and a suffix for the compression. `pg_receivewal` puts the suffix in front
    /// of `.partial` (walmethods.c).
    Flat,
    /// Segments as `<segment>[.partial]-<SHA-1 of the content>[.suffix]` in a directory for each group, backup history beside
    /// them, timeline history above (command/archive/common.h, storage/helper.c of pgBackRest).
    PgBackRest,
    /// Under their own names, compressed or not, in a directory for each group; timeline history above (barman/xlog.py).
    Barman,
    /// All in one directory, each with the suffix of its compression (internal/fetch_helper.go of WAL-G).
    WalG,
}

/// What a stored file is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stored {
    /// The WAL file.
    pub kind: WalFileName,
    /// The compression that its name declares.
    pub compression: Compression,
}

/// What pgBackRest compresses with (COMPRESS_TYPE_REGEXP, common/compress/helper.h).
const PGBACKREST_SUFFIXES: [Compression; 4] = [
    Compression::Gzip,
    Compression::Lz4,
    Compression::Zstd,
    Compression::Bzip2,
];
/// Hex digits of a SHA-1.
const SHA1_DIGITS: usize = 40;

impl Layout {
    /// The layout of a source; none for one that is no place on disk.
    pub const fn of(source: &Source) -> Option<Self> {
        match source {
            Source::Directory(_) => Some(Self::Flat),
            Source::PgBackRest(_) => Some(Self::PgBackRest),
            Source::Barman(_) => Some(Self::Barman),
            Source::WalG(_) => Some(Self::WalG),
            Source::RestoreCommand(_) => None,
        }
    }

    /// Whether segments lie in a directory for each [`Group`].
    pub const fn is_grouped(self) -> bool {
        matches!(self, Self::PgBackRest | Self::Barman)
    }

    /// The directory that a file belongs in, where not at the top.
    pub fn group(self, kind: &WalFileName) -> Option<Group> {
        match kind {
            _ if !self.is_grouped() => None,
            WalFileName::History(_) => None,
            WalFileName::Segment(segment)
            | WalFileName::Partial(segment)
            | WalFileName::BackupHistory { segment, .. } => Some(Group::of(segment)),
        }
    }

    /// The compressions that the layout's names declare, in the order in which a file is looked for. WAL-G's own order begins
    /// with whatever it met last, and otherwise is this one.
    pub const fn compressions(self) -> [Compression; 8] {
        match self {
            Self::WalG => [
                Compression::Lz4,
                Compression::Lzma,
                Compression::Zstd,
                Compression::Brotli,
                Compression::Gzip,
                Compression::Xz,
                Compression::Bzip2,
                Compression::None,
            ],
            // A copy by restore_command that is plain to write finds the plain file.
            Self::Flat | Self::PgBackRest | Self::Barman => [
                Compression::None,
                Compression::Gzip,
                Compression::Zstd,
                Compression::Lz4,
                Compression::Xz,
                Compression::Bzip2,
                Compression::Brotli,
                Compression::Lzma,
            ],
        }
    }

    /// What the file called `name` is; none for what is no WAL file in this layout.
    pub fn classify(self, name: &str, size: SegmentSize) -> Option<Stored> {
        match self {
            Self::PgBackRest => pgbackrest(name, size),
            Self::Flat | Self::Barman | Self::WalG => suffixed(name, size),
        }
    }

    /// The names under which the WAL file `name` may be stored with a compression, where they hold no checksum.
    pub fn stored_names(name: &str, kind: &WalFileName, compression: Compression) -> Vec<String> {
        let suffix = match compression {
            Compression::None => String::new(),
            _ => format!(".{}", compression.suffix()),
        };
        let mut names = vec![format!("{name}{suffix}")];
        if let (WalFileName::Partial(segment), false) = (kind, suffix.is_empty()) {
            names.push(format!("{segment}{suffix}.partial"));
        }
        names
    }
}

fn suffixed(name: &str, size: SegmentSize) -> Option<Stored> {
    if let Some(kind) = WalFileName::classify(name, size) {
        return Some(Stored {
            kind,
            compression: Compression::None,
        });
    }
    let (stem, suffix) = name.rsplit_once('.')?;
    if let Some(compression) = Compression::of_suffix(suffix) {
        let kind = WalFileName::classify(stem, size)?;
        return Some(Stored { kind, compression });
    }
    let (segment, suffix) = stem.split_once('.').filter(|_| suffix == "partial")?;
    Some(Stored {
        kind: WalFileName::Partial(SegmentName::parse(segment, size).ok()?),
        compression: Compression::of_suffix(suffix)?,
    })
}

fn pgbackrest(name: &str, size: SegmentSize) -> Option<Stored> {
    let Some((stem, rest)) = name.split_once('-') else {
        // Segments have a checksum, the others have none and are never compressed.
        let kind = WalFileName::classify(name, size)?;
        return matches!(kind, WalFileName::History(_) | WalFileName::BackupHistory { .. }).then_some(Stored {
            kind,
            compression: Compression::None,
        });
    };
    let kind = WalFileName::classify(stem, size)
        .filter(|kind| matches!(kind, WalFileName::Segment(_) | WalFileName::Partial(_)))?;
    let (sha1, suffix) = rest.split_at_checked(SHA1_DIGITS)?;
    if !sha1.bytes().all(|digit| matches!(digit, b'0'..=b'9' | b'a'..=b'f')) {
        return None;
    }
    let compression = match suffix.strip_prefix('.') {
        None if suffix.is_empty() => Compression::None,
        None => return None,
        Some(suffix) => Compression::of_suffix(suffix).filter(|known| PGBACKREST_SUFFIXES.contains(known))?,
    };
    Some(Stored { kind, compression })
}

/// A WAL file's own name, whatever the stored one is.
pub(crate) fn own_name(kind: &WalFileName) -> String {
    match kind {
        WalFileName::Segment(segment) => segment.to_string(),
        WalFileName::Partial(segment) => format!("{segment}.partial"),
        WalFileName::History(timeline) => format!("{:08X}.history", timeline.0),
        WalFileName::BackupHistory { segment, offset } => format!("{segment}.{offset:08X}.backup"),
    }
}

/// The checksum in the name of a segment in a pgBackRest repository.
pub(super) fn sha1_in(name: &str) -> Option<&str> {
    name.split_once('-')?.1.get(..SHA1_DIGITS)
}

/// The segments that share a directory: those whose names share the first sixteen digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Group {
    /// The timeline.
    pub timeline: Timeline,
    /// The upper half of the LSN.
    pub log: u32,
}

impl Group {
    /// The group of a segment.
    pub fn of(segment: &SegmentName) -> Self {
        Self {
            timeline: segment.timeline,
            // A segment's number times its size is an LSN, so that this is below 2^32.
            log: u32::try_from(segment.start().0 >> 32).unwrap_or(u32::MAX),
        }
    }

    /// The group whose directory is called `name`: sixteen upper-case hex digits.
    pub fn parse(name: &str) -> Option<Self> {
        if name.len() != 16 || !name.bytes().all(|digit| matches!(digit, b'0'..=b'9' | b'A'..=b'F')) {
            return None;
        }
        let (timeline, log) = name.split_at_checked(8)?;
        let timeline = u32::from_str_radix(timeline, 16)
            .ok()
            .filter(|timeline| *timeline != 0)?;
        Some(Self {
            timeline: Timeline(timeline),
            log: u32::from_str_radix(log, 16).ok()?,
        })
    }

    /// The numbers of its segments.
    pub fn numbers(self, size: SegmentSize) -> RangeInclusive<u64> {
        let start = u64::from(self.log) << 32;
        start / size.bytes()..=(start | 0xFFFF_FFFF) / size.bytes()
    }

    /// Its first and last segment.
    pub fn segments(self, size: SegmentSize) -> RangeInclusive<SegmentName> {
        let name = |number| SegmentName {
            timeline: self.timeline,
            number,
            size,
        };
        let numbers = self.numbers(size);
        name(*numbers.start())..=name(*numbers.end())
    }
}

/// As its directory is called.
impl fmt::Display for Group {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:08X}{:08X}", self.timeline.0, self.log)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIZE: SegmentSize = SegmentSize::DEFAULT;
    const SHA1: &str = "da39a3ee5e6b4b0d3255bfef95601890afd80709";

    fn kinds(layout: Layout, name: &str) -> Option<(WalFileName, Compression)> {
        layout
            .classify(name, SIZE)
            .map(|stored| (stored.kind, stored.compression))
    }

    fn segment(name: &str) -> SegmentName {
        SegmentName::parse(name, SIZE).unwrap()
    }

    #[test]
    fn plain_names_carry_the_suffixes_of_every_compressor() {
        let name = "000000010000000000000003";
        for layout in [Layout::Flat, Layout::Barman, Layout::WalG] {
            for compression in Compression::ALL {
                for (own, kind) in [
                    (name.to_owned(), WalFileName::Segment(segment(name))),
                    (format!("{name}.partial"), WalFileName::Partial(segment(name))),
                    ("00000002.history".to_owned(), WalFileName::History(Timeline(2))),
                    (
                        format!("{name}.00000028.backup"),
                        WalFileName::BackupHistory {
                            segment: segment(name),
                            offset: 0x28,
                        },
                    ),
                ] {
                    for stored in Layout::stored_names(&own, &kind, compression) {
                        assert_eq!(kinds(layout, &stored), Some((kind, compression)), "{stored}");
                    }
                }
            }
        }
        assert_eq!(
            kinds(Layout::Flat, "000000010000000000000003.gz.partial"),
            Some((WalFileName::Partial(segment(name)), Compression::Gzip))
        );
    }

    #[test]
    fn pgbackrest_names_carry_a_checksum() {
        let name = "0000000A0000000200000003";
        for (stored, kind, compression) in [
            (
                format!("{name}-{SHA1}"),
                WalFileName::Segment(segment(name)),
                Compression::None,
            ),
            (
                format!("{name}-{SHA1}.gz"),
                WalFileName::Segment(segment(name)),
                Compression::Gzip,
            ),
            (
                format!("{name}-{SHA1}.zst"),
                WalFileName::Segment(segment(name)),
                Compression::Zstd,
            ),
            (
                format!("{name}.partial-{SHA1}.lz4"),
                WalFileName::Partial(segment(name)),
                Compression::Lz4,
            ),
            (
                "0000000B.history".to_owned(),
                WalFileName::History(Timeline(11)),
                Compression::None,
            ),
        ] {
            assert_eq!(
                kinds(Layout::PgBackRest, &stored),
                Some((kind, compression)),
                "{stored}"
            );
        }
        for stored in [
            name.to_owned(),
            format!("{name}.gz"),
            format!("{name}-{SHA1}.xz"),
            format!("{name}-{SHA1}.gz.pgbackrest.tmp"),
            format!("{name}-{SHA1}x"),
            format!("{name}-{}", SHA1.to_uppercase()),
            format!("{name}-{}", &SHA1[1..]),
            format!("{name}-{}é", &SHA1[1..]),
            format!("0000000B.history-{SHA1}"),
            "-".to_owned(),
        ] {
            assert_eq!(kinds(Layout::PgBackRest, &stored), None, "{stored}");
        }
        assert_eq!(sha1_in(&format!("{name}.partial-{SHA1}.lz4")), Some(SHA1));
    }

    #[test]
    fn what_lies_beside_the_segments_is_nothing() {
        for name in [
            "xlog.db",
            ".walg.lock",
            "000000010000000000000003.tmp",
            "000000010000000000000003.gz.tmp",
            "000000010000000000000003.partial.partial",
            "000000010000000000000003.lzo",
            "000000010000000000000003_000000010000000000000008_delta.lz4",
            "",
            ".gz",
            ".partial",
        ] {
            for layout in [Layout::Flat, Layout::PgBackRest, Layout::Barman, Layout::WalG] {
                assert_eq!(kinds(layout, name), None, "{name}");
            }
        }
    }

    #[test]
    fn a_group_is_the_first_sixteen_digits() {
        let name = segment("0000000A00000002000000FF");
        let group = Group::of(&name);
        assert_eq!(group.to_string(), "0000000A00000002");
        assert_eq!(Group::parse("0000000A00000002"), Some(group));
        assert_eq!(group.segments(SIZE).end(), &name);
        assert_eq!(group.numbers(SIZE), 512..=767);
        assert_eq!(Group::of(group.segments(SIZE).start()), group);
        for name in [
            "",
            "000000010000000",
            "00000000000000FF",
            "000000010000000g",
            "00000001000000é",
        ] {
            assert_eq!(Group::parse(name), None, "{name}");
        }
    }
}
