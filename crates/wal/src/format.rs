//! What a cluster's WAL looks like: the only place that knows one PostgreSQL major from another.

use std::fmt;

use crate::segment::SegmentSize;

/// A PostgreSQL major whose WAL can be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
pub enum Major {
    /// PostgreSQL 15.
    V15,
    /// PostgreSQL 16.
    V16,
    /// PostgreSQL 17.
    V17,
    /// PostgreSQL 18.
    V18,
}

impl Major {
    /// All of them, oldest first.
    pub const ALL: [Self; 4] = [Self::V15, Self::V16, Self::V17, Self::V18];

    /// The major of that number; none when its WAL is not known here.
    #[must_use]
    pub fn from_number(number: u32) -> Option<Self> {
        Self::ALL.into_iter().find(|major| major.number() == number)
    }

    /// 15 to 18.
    #[must_use]
    pub const fn number(self) -> u32 {
        match self {
            Self::V15 => 15,
            Self::V16 => 16,
            Self::V17 => 17,
            Self::V18 => 18,
        }
    }

    /// XLOG_PAGE_MAGIC, the first two bytes of every page.
    #[must_use]
    pub const fn page_magic(self) -> u16 {
        match self {
            Self::V15 => 0xD110,
            Self::V16 => 0xD113,
            Self::V17 => 0xD116,
            Self::V18 => 0xD118,
        }
    }

    /// The longest record that a server of this major can replay.
    ///
    /// Since 16 the server refuses to write longer ones (XLogRecordMaxSize, xlogrecord.h). Before, its reader could not
    /// allocate them (MaxAllocSize, memutils.h; allocate_recordbuf rounds up to whole pages).
    #[must_use]
    pub(crate) const fn longest_record(self) -> u32 {
        match self {
            Self::V15 => 0x3FFF_FFFF,
            Self::V16 | Self::V17 | Self::V18 => 1020 * 1024 * 1024,
        }
    }

    /// The highest resource manager that the server itself has (RM_MAX_BUILTIN_ID, rmgrlist.h).
    #[must_use]
    pub(crate) const fn highest_builtin_resource_manager(self) -> u8 {
        match self {
            Self::V15 | Self::V16 | Self::V17 | Self::V18 => 21,
        }
    }
}

impl fmt::Display for Major {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.number().fmt(f)
    }
}

/// Which server writes such pages, for a sentence.
pub(crate) fn writer_of_magic(magic: u16) -> String {
    if let Some(major) = Major::ALL.into_iter().find(|major| major.page_magic() == magic) {
        return format!("PostgreSQL {major}");
    }
    match magic {
        0xD093 => "PostgreSQL 9.6".into(),
        0xD097 => "PostgreSQL 10".into(),
        0xD098 => "PostgreSQL 11".into(),
        0xD101 => "PostgreSQL 12".into(),
        0xD106 => "PostgreSQL 13".into(),
        0xD10D => "PostgreSQL 14".into(),
        _ => "another version of PostgreSQL".into(),
    }
}

/// What one cluster's WAL must look like.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct WalFormat {
    /// The server's major.
    pub major: Major,
    /// Its segment size.
    pub segment_size: SegmentSize,
    /// The cluster's own number, from pg_control.
    pub system_identifier: u64,
    block_size: u32,
}

/// A number of bytes that cannot be a WAL page's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0} bytes is not a WAL block size (a power of two from 1 kB to 64 kB)")]
pub struct BlockSizeError(pub u32);

impl WalFormat {
    /// XLOG_BLCKSZ of every packaged server.
    pub const DEFAULT_BLOCK_SIZE: u32 = 8192;

    /// The format of a cluster with pages of 8 kB.
    #[must_use]
    pub const fn new(major: Major, segment_size: SegmentSize, system_identifier: u64) -> Self {
        Self {
            major,
            segment_size,
            system_identifier,
            block_size: Self::DEFAULT_BLOCK_SIZE,
        }
    }

    /// The same for a server that was configured --with-wal-blocksize.
    ///
    /// # Errors
    /// When no server can be built so.
    pub const fn with_block_size(self, block_size: u32) -> Result<Self, BlockSizeError> {
        if is_block_size(block_size) {
            Ok(Self { block_size, ..self })
        } else {
            Err(BlockSizeError(block_size))
        }
    }

    /// XLOG_BLCKSZ, bytes.
    #[must_use]
    pub const fn block_size(&self) -> u32 {
        self.block_size
    }
}

/// configure takes 1, 2, 4, … 64 kB.
pub(crate) const fn is_block_size(bytes: u32) -> bool {
    bytes.is_power_of_two() && bytes >= 1 << 10 && bytes <= 1 << 16
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_major_has_a_magic_of_its_own() {
        for major in Major::ALL {
            assert_eq!(Major::from_number(major.number()), Some(major));
            assert_eq!(writer_of_magic(major.page_magic()), format!("PostgreSQL {major}"));
        }
        assert_eq!(Major::from_number(14), None);
    }

    #[test]
    fn a_block_size_that_no_server_has_is_refused() {
        let format = WalFormat::new(Major::V18, SegmentSize::DEFAULT, 1);
        for bytes in [0, 1, 512, 8191, 1 << 17] {
            assert_eq!(format.with_block_size(bytes), Err(BlockSizeError(bytes)));
        }
        assert_eq!(
            format.with_block_size(65536).map(|format| format.block_size()),
            Ok(65536)
        );
    }
}
