//! The compressions that archived WAL comes in: how their files are named, how they begin, and what can go wrong.

use std::fmt;
use std::io;

/// How a stored file is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Compression {
    /// Not at all.
    None,
    /// gzip (RFC 1952), one or more members.
    Gzip,
    /// bzip2, one or more streams.
    Bzip2,
    /// xz, one or more streams.
    Xz,
    /// Zstandard (RFC 8878), one or more frames.
    Zstd,
    /// LZ4 frames.
    Lz4,
    /// Brotli (RFC 7932).
    Brotli,
    /// The older format of xz's makers, `.lzma`.
    Lzma,
}

impl Compression {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::None,
        Self::Gzip,
        Self::Bzip2,
        Self::Xz,
        Self::Zstd,
        Self::Lz4,
        Self::Brotli,
        Self::Lzma,
    ];

    /// Enough of a file's beginning for [`of_content`](Self::of_content), bytes.
    pub const HEAD: usize = 6;

    /// The largest window that is decompressed here, bytes: what `xz -9` and `zstd --ultra -21` ask for.
    ///
    /// A decoder keeps as much of the content as has been read, and no more than its window: 16 MB and what grows with it of a
    /// segment of the default size, whatever its compressor was told.
    pub const MOST_WINDOW: u32 = 64 << 20;

    /// What a file so compressed carries behind its own name, without the dot; empty for none.
    pub const fn suffix(self) -> &'static str {
        match self {
            Self::None => "",
            Self::Gzip => "gz",
            Self::Bzip2 => "bz2",
            Self::Xz => "xz",
            Self::Zstd => "zst",
            Self::Lz4 => "lz4",
            Self::Brotli => "br",
            Self::Lzma => "lzma",
        }
    }

    /// The compression that a suffix (without the dot) declares.
    pub fn of_suffix(suffix: &str) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|compression| *compression != Self::None && compression.suffix() == suffix)
    }

    /// The compression that a file's first bytes show: Barman stores compressed segments under their plain names.
    ///
    /// No page of WAL begins so: its magic number is 0xD1.. in the machine's byte order. Brotli and `.lzma` have no magic number.
    pub fn of_content(head: &[u8]) -> Self {
        const MAGIC: [(&[u8], Compression); 5] = [
            (b"\x1F\x8B\x08", Compression::Gzip),
            (b"BZh", Compression::Bzip2),
            (b"\xFD7zXZ\0", Compression::Xz),
            (b"\x28\xB5\x2F\xFD", Compression::Zstd),
            (b"\x04\x22\x4D\x18", Compression::Lz4),
        ];
        MAGIC
            .into_iter()
            .find(|(magic, _)| head.starts_with(magic))
            .map_or(Self::None, |(_, compression)| compression)
    }

    /// Its name in a sentence.
    const fn name(self) -> &'static str {
        match self {
            Self::None => "plain",
            Self::Gzip => "gzip",
            Self::Bzip2 => "bzip2",
            Self::Xz => "xz",
            Self::Zstd => "zstd",
            Self::Lz4 => "lz4",
            Self::Brotli => "Brotli",
            Self::Lzma => "lzma",
        }
    }
}

impl fmt::Display for Compression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What is stored is not what its compression makes of any file: damage, an end too soon, bytes too many, or a file that is not
/// compressed at all; or it is not decompressed here, and nothing is known of it. It travels inside an [`io::Error`], where `downcast` finds it; what the disk refuses travels as it is.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{sentence}")]
pub struct DecompressionError {
    /// The compression that was expected.
    pub compression: Compression,
    /// Whether the stored file is damaged: another decoder would not read it either.
    pub is_damage: bool,
    /// One English clause that says what was found.
    pub sentence: String,
}

impl DecompressionError {
    /// What a decoder complained of.
    pub(crate) fn of(compression: Compression, complaint: &io::Error) -> Self {
        let text = complaint.to_string();
        match complaint.kind() {
            io::ErrorKind::UnexpectedEof => Self::cut(compression),
            io::ErrorKind::OutOfMemory => Self::window(compression),
            // The decoder in C has no other way to say it (ZSTD_error_frameParameter_windowTooLarge).
            _ if text.contains("too much memory") => Self::window(compression),
            _ => Self::damage(compression, format!("its {compression} data are damaged ({text})")),
        }
    }

    fn damage(compression: Compression, sentence: String) -> Self {
        Self {
            compression,
            is_damage: true,
            sentence,
        }
    }

    /// The stored file ends before the compressed data do.
    pub(crate) fn cut(compression: Compression) -> Self {
        Self::damage(
            compression,
            format!("its {compression} data end in the middle: the stored file is cut"),
        )
    }

    /// The stored file has no bytes at all.
    pub(crate) fn empty(compression: Compression) -> Self {
        Self::damage(
            compression,
            format!("the stored file is empty, where {compression} data were expected"),
        )
    }

    /// Bytes follow where everything should have ended.
    pub(crate) fn trailing(compression: Compression) -> Self {
        Self::damage(compression, format!("other bytes follow its {compression} data"))
    }

    /// Not damage either: what `lz4 -l` writes has no end mark and no checksum, so that nothing would tell a cut one.
    pub(crate) fn legacy_lz4() -> Self {
        Self {
            compression: Compression::Lz4,
            is_damage: false,
            sentence: "it is in LZ4's legacy format, which cannot show whether it is whole and is not read here; \
                       set pg_backstop.archive_source = restore_command to read it all the same"
                .to_owned(),
        }
    }

    /// Not damage: more memory than is given to a decoder.
    pub(crate) fn window(compression: Compression) -> Self {
        let (most, option) = match compression {
            Compression::Brotli => (16, "without its option --large_window"),
            Compression::Zstd => (64, "with --long=26 or less, and below --ultra -22"),
            Compression::Lzma | Compression::Xz => (64, "with -9 or less, and no larger dict= in --lzma1 or --lzma2"),
            Compression::None | Compression::Gzip | Compression::Bzip2 | Compression::Lz4 => (64, "with less memory"),
        };
        Self {
            compression,
            is_damage: false,
            sentence: format!(
                "its {compression} data need a window of more than {most} MB to be decompressed, more memory than is used here, so \
                 that nothing is known of its content; compress {option}, or set pg_backstop.archive_source = restore_command to \
                 read it all the same"
            ),
        }
    }
}

impl From<DecompressionError> for io::Error {
    fn from(error: DecompressionError) -> Self {
        Self::new(io::ErrorKind::InvalidData, error)
    }
}
