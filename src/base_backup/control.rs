//! `global/pg_control` of a base backup: which cluster it is of, and with which WAL segments (src/include/catalog/pg_control.h).

use std::io::Read;
use std::mem::{offset_of, size_of};

use pgrx::pg_sys::{ControlFileData, PG_CONTROL_VERSION};

/// What is needed of a control file. What stands behind the versions is laid out as this server's major has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Control {
    /// The cluster's.
    pub system_identifier: u64,
    /// PG_CONTROL_VERSION of the server that wrote it; the same for several majors.
    pub version: u32,
    /// CATALOG_VERSION_NO of the server that wrote it: a major has one.
    pub catalog_version: u32,
    /// The size of its WAL segments, bytes; none where another major wrote it.
    pub segment_size: Option<u32>,
}

impl Control {
    /// Reads a control file.
    ///
    /// # Errors
    /// A clause that says why it cannot be understood.
    pub fn read(file: impl Read) -> Result<Self, String> {
        let mut bytes = Vec::new();
        file.take(size_of::<ControlFileData>() as u64)
            .read_to_end(&mut bytes)
            .map_err(|error| format!("it could not be read: {error}"))?;
        let short = || "it is cut".to_owned();
        let number = |at: usize| -> Option<u32> {
            let bytes = bytes.get(at..)?.first_chunk()?;
            Some(u32::from_ne_bytes(*bytes))
        };
        let system_identifier = bytes.first_chunk().map(|bytes| u64::from_ne_bytes(*bytes));
        let version = number(offset_of!(ControlFileData, pg_control_version)).ok_or_else(short)?;
        let catalog_version = number(offset_of!(ControlFileData, catalog_version_no)).ok_or_else(short)?;
        let mut control = Self {
            system_identifier: system_identifier.ok_or_else(short)?,
            version,
            catalog_version,
            segment_size: None,
        };
        if version == PG_CONTROL_VERSION {
            let crc_at = offset_of!(ControlFileData, crc);
            let covered = bytes.get(..crc_at).ok_or_else(short)?;
            if number(crc_at) != Some(crc32c::crc32c(covered)) {
                return Err("its checksum is wrong".to_owned());
            }
            control.segment_size = number(offset_of!(ControlFileData, xlog_seg_size));
        }
        Ok(control)
    }
}
