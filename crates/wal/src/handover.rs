//! What one segment hands to the next: where its last record began, and the state of a record that goes on there.

use arrayvec::ArrayVec;

use crate::format::WalFormat;
use crate::lsn::{Lsn, Timeline};
use crate::record::{PREFIX, RECORD_HEADER};

/// What must be known of a segment to check the start of the next one. Some 200 bytes at most, however long the record is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Handover {
    /// The end of the segment that this is of, and so the start of the one that it is for.
    pub(crate) at: Lsn,
    /// The timeline of the segment's last page.
    pub(crate) timeline: Timeline,
    /// The last complete record; none when the segment held no end of a record whose start was known.
    pub(crate) previous: Option<Lsn>,
    pub(crate) continues: Continues,
}

/// What of a record is still to come at a segment's end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Continues {
    Nothing,
    Record(PartialRecord),
    /// A record whose beginning was not seen; so many bytes of it remain.
    Unseen(u32),
}

/// A record of which some bytes have been read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PartialRecord {
    pub start: Lsn,
    /// How many of its bytes have been read, the header's included.
    pub got: u32,
    /// Of the body so far.
    pub crc: u32,
    pub header: ArrayVec<u8, RECORD_HEADER>,
    /// The start of the body, as far as it has been read and is of interest.
    pub prefix: ArrayVec<u8, PREFIX>,
}

impl PartialRecord {
    pub const fn at(start: Lsn) -> Self {
        Self {
            start,
            got: 0,
            crc: 0,
            header: ArrayVec::new_const(),
            prefix: ArrayVec::new_const(),
        }
    }

    /// xl_tot_len, once it has been read.
    pub fn total_length(&self) -> Option<u32> {
        crate::bytes::u32_at(&self.header, 0)
    }
}

/// Bytes that are no handover.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HandoverError {
    /// Of a version of this crate that wrote something else.
    #[error("a handover of version {0}, which is not known here")]
    Version(u8),
    /// Too short, too long, or of values that no handover has.
    #[error("not a handover between WAL segments")]
    Malformed,
}

impl Handover {
    const VERSION: u8 = 1;

    /// The LSN at which the segment starts that this handover is for.
    #[must_use]
    pub const fn at(&self) -> Lsn {
        self.at
    }

    /// The start of the last complete record; the next one's xl_prev.
    #[must_use]
    pub const fn last_record(&self) -> Option<Lsn> {
        self.previous
    }

    /// The start of the record that goes on in the next segment; none when none does or its start was not seen.
    #[must_use]
    pub const fn continued_record(&self) -> Option<Lsn> {
        match &self.continues {
            Continues::Record(record) => Some(record.start),
            Continues::Nothing | Continues::Unseen(_) => None,
        }
    }

    /// A form to be stored; [`Handover::from_bytes`] reads it on any machine.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(160);
        bytes.push(Self::VERSION);
        bytes.extend(self.at.0.to_le_bytes());
        bytes.extend(self.timeline.0.to_le_bytes());
        // No record starts at 0/0.
        bytes.extend(self.previous.unwrap_or(Lsn::INVALID).0.to_le_bytes());
        match &self.continues {
            Continues::Nothing => bytes.push(0),
            Continues::Record(record) => {
                bytes.push(1);
                bytes.extend(record.start.0.to_le_bytes());
                bytes.extend(record.got.to_le_bytes());
                bytes.extend(record.crc.to_le_bytes());
                for part in [record.header.as_slice(), record.prefix.as_slice()] {
                    bytes.push(u8::try_from(part.len()).unwrap_or(u8::MAX));
                    bytes.extend(part);
                }
            }
            Continues::Unseen(remaining) => {
                bytes.push(2);
                bytes.extend(remaining.to_le_bytes());
            }
        }
        bytes
    }

    /// What [`Handover::to_bytes`] wrote. Any other bytes give an error, or a handover that fits nothing; never a panic.
    ///
    /// # Errors
    /// When the bytes are of an unknown version or malformed.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, HandoverError> {
        let mut reader = Reader(bytes);
        let version = reader.u8()?;
        if version != Self::VERSION {
            return Err(HandoverError::Version(version));
        }
        let at = Lsn(reader.u64()?);
        let timeline = Timeline(reader.u32()?);
        let previous = Some(Lsn(reader.u64()?)).filter(|lsn| !lsn.is_invalid());
        let continues = match reader.u8()? {
            0 => Continues::Nothing,
            1 => Continues::Record(reader.record()?),
            2 => Continues::Unseen(reader.u32()?),
            _ => return Err(HandoverError::Malformed),
        };
        let sound = reader.0.is_empty()
            && previous.is_none_or(|previous| previous < at)
            && match &continues {
                Continues::Nothing => true,
                Continues::Record(record) => {
                    record.start < at && previous.is_none_or(|previous| previous < record.start)
                }
                Continues::Unseen(remaining) => *remaining > 0,
            };
        if sound {
            Ok(Self {
                at,
                timeline,
                previous,
                continues,
            })
        } else {
            Err(HandoverError::Malformed)
        }
    }

    /// Whether a server of this format could have left it.
    pub(crate) fn fits(&self, format: &WalFormat) -> bool {
        let longest = format.major.longest_record();
        match &self.continues {
            Continues::Nothing => true,
            Continues::Record(record) => record.total_length().is_some_and(|length| length <= longest),
            Continues::Unseen(remaining) => *remaining <= longest,
        }
    }
}

struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn array<const N: usize>(&mut self) -> Result<[u8; N], HandoverError> {
        let (array, rest) = self.0.split_first_chunk::<N>().ok_or(HandoverError::Malformed)?;
        self.0 = rest;
        Ok(*array)
    }

    fn u8(&mut self) -> Result<u8, HandoverError> {
        self.array().map(u8::from_le_bytes)
    }

    fn u32(&mut self) -> Result<u32, HandoverError> {
        self.array().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Result<u64, HandoverError> {
        self.array().map(u64::from_le_bytes)
    }

    fn part<const N: usize>(&mut self) -> Result<ArrayVec<u8, N>, HandoverError> {
        let length = usize::from(self.u8()?);
        let (part, rest) = self.0.split_at_checked(length).ok_or(HandoverError::Malformed)?;
        self.0 = rest;
        ArrayVec::try_from(part).map_err(|_| HandoverError::Malformed)
    }

    fn record(&mut self) -> Result<PartialRecord, HandoverError> {
        let record = PartialRecord {
            start: Lsn(self.u64()?),
            got: self.u32()?,
            crc: self.u32()?,
            header: self.part()?,
            prefix: self.part()?,
        };
        // A record starts with at least 8 bytes in its page, so its length is known; the header comes first; and the body's part
        // that is kept is whole or empty.
        let header = u32::try_from(record.header.len()).map_err(|_| HandoverError::Malformed)?;
        let body = usize::try_from(record.got.saturating_sub(header)).map_err(|_| HandoverError::Malformed)?;
        let sound = record
            .total_length()
            .is_some_and(|length| record.got < length && length >= RECORD_HEADER as u32)
            && header >= 8
            && (record.header.is_full() || record.got == header)
            && record.got >= header
            && (record.prefix.is_empty() || record.prefix.len() == body.min(PREFIX));
        if sound {
            Ok(record)
        } else {
            Err(HandoverError::Malformed)
        }
    }
}
