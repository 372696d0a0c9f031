//! Page headers (XLogPageHeaderData and XLogLongPageHeaderData, xlog_internal.h).

use crate::bytes::{u16_at, u32_at, u64_at};
use crate::lsn::{Lsn, Timeline};

/// SizeOfXLogShortPHD.
pub(crate) const SHORT_HEADER: usize = 24;
/// SizeOfXLogLongPHD, the header of a segment's first page.
pub(crate) const LONG_HEADER: usize = 40;

/// XLP_FIRST_IS_CONTRECORD: the page begins with the rest of a record.
pub(crate) const FIRST_IS_CONTRECORD: u16 = 0x0001;
/// XLP_LONG_HEADER.
pub(crate) const HAS_LONG_HEADER: u16 = 0x0002;
/// XLP_FIRST_IS_OVERWRITE_CONTRECORD: the record that should go on here was given up after a crash.
pub(crate) const FIRST_IS_OVERWRITE_CONTRECORD: u16 = 0x0008;
/// XLP_ALL_FLAGS. 0x0004 is XLP_BKP_REMOVABLE, set while no base backup runs; PostgreSQL itself never reads it.
pub(crate) const ALL_FLAGS: u16 = 0x000F;

#[derive(Clone, Copy, Debug)]
pub(crate) struct PageHeader {
    pub magic: u16,
    pub info: u16,
    /// The timeline of the first record on the page.
    pub timeline: Timeline,
    pub address: Lsn,
    /// How many bytes of the continued record are still to come, this page's included.
    pub remaining: u32,
    pub padding: u32,
    /// Of a long header only.
    pub identity: Option<Identity>,
}

/// What a long header adds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Identity {
    pub system_identifier: u64,
    pub segment_size: u32,
    pub block_size: u32,
}

impl PageHeader {
    /// Reads a header of 24 bytes, or 40 for a long one; none when there are fewer than 24.
    pub fn read(bytes: &[u8]) -> Option<Self> {
        Some(Self {
            magic: u16_at(bytes, 0)?,
            info: u16_at(bytes, 2)?,
            timeline: Timeline(u32_at(bytes, 4)?),
            address: Lsn(u64_at(bytes, 8)?),
            remaining: u32_at(bytes, 16)?,
            padding: u32_at(bytes, 20)?,
            identity: Identity::read(bytes),
        })
    }

    pub const fn has(&self, flag: u16) -> bool {
        self.info & flag != 0
    }
}

impl Identity {
    fn read(bytes: &[u8]) -> Option<Self> {
        Some(Self {
            system_identifier: u64_at(bytes, 24)?,
            segment_size: u32_at(bytes, 32)?,
            block_size: u32_at(bytes, 36)?,
        })
    }
}
