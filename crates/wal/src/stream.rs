//! The state machine that turns WAL bytes, however they are cut, into records.
//!
//! It does what xlogreader.c does, record by record, but never holds more of a record than its header and the first bytes of
//! its body: bodies go into the CRC straight from where they were read. So a record of a gigabyte takes no more memory than
//! one of a hundred bytes, and neither does a length that is a lie.

use arrayvec::ArrayVec;
use crc32c::crc32c_append;

use crate::finding::Finding;
use crate::format::WalFormat;
use crate::handover::{Continues, Handover, PartialRecord};
use crate::lsn::{Lsn, RECORD_ALIGNMENT, Timeline};
use crate::page::{LONG_HEADER, PageHeader, SHORT_HEADER};
use crate::problem::{Fault, Problem};
use crate::record::{HEADER_UNDER_CRC, Meaning, PREFIX, RECORD_HEADER, Record, RecordHeader};
use crate::timelines::Timelines;

pub(crate) struct Stream {
    pub(crate) format: WalFormat,
    pub(crate) timelines: Timelines,
    /// Of the next byte to come.
    pub(crate) position: Lsn,
    /// The start of the segment that the last byte was of.
    pub(crate) segment_start: Lsn,
    /// A page header of which only a part has come.
    header: ArrayVec<u8, LONG_HEADER>,
    /// The timeline of the page before.
    pub(crate) timeline: Timeline,
    /// The last complete record.
    pub(crate) previous: Option<Lsn>,
    pub(crate) state: State,
    /// The record in progress, while the state says so.
    pub(crate) partial: PartialRecord,
    /// Whether a page header has confirmed the length of the record in progress.
    pub(crate) length_confirmed: bool,
    /// A record's length and a page's xlp_rem_len contradict each other, and it is not known yet which is damaged.
    pub(crate) doubt: Option<Box<Doubt>>,
    /// The page said that a record was given up, so its first record must say so too.
    pub(crate) given_up: Option<GivenUp>,
    /// Bytes of a continued record whose beginning is not known.
    pub(crate) unseen: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    /// Nothing is known: the first page can begin with the rest of any record.
    Start,
    /// A record starts here, or behind the page header that comes next.
    Boundary,
    /// In the record `partial`.
    Record,
    /// In a record whose beginning is not known.
    Unseen { remaining: u32 },
    /// Between a record's end and the next multiple of 8.
    Padding { owner: Lsn },
    /// Behind an XLOG_SWITCH record: padding up to the segment's end.
    Switched,
}

/// Two readings of one contradiction.
#[derive(Debug)]
pub(crate) struct Doubt {
    pub page: Fault,
    pub record: Fault,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct GivenUp {
    /// The page with the flag.
    pub page: Lsn,
    /// The record, where its start is known.
    pub record: Option<Lsn>,
}

impl Stream {
    /// A stream from `start`, the beginning of a page.
    pub fn new(format: &WalFormat, timelines: Timelines, start: Lsn) -> Self {
        Self {
            format: *format,
            timelines,
            position: start,
            segment_start: start.floor(format.segment_size.bytes()),
            header: ArrayVec::new_const(),
            timeline: Timeline(0),
            previous: None,
            state: State::Start,
            partial: PartialRecord::at(Lsn::INVALID),
            length_confirmed: false,
            doubt: None,
            given_up: None,
            unseen: 0,
        }
    }

    /// Takes over what is known of the segment before.
    pub fn resume(&mut self, handover: Handover) {
        self.timeline = handover.timeline;
        self.previous = handover.previous;
        self.state = match handover.continues {
            Continues::Nothing => State::Boundary,
            Continues::Record(record) => {
                let block = u64::from(self.format.block_size());
                self.length_confirmed = record.start.floor(block).plus(block) < handover.at;
                self.partial = record;
                State::Record
            }
            Continues::Unseen(remaining) => State::Unseen { remaining },
        };
    }

    /// What the next segment must know; asked at a segment's end.
    pub fn handover(&self) -> Handover {
        let continues = match self.state {
            State::Record => Continues::Record(self.partial.clone()),
            State::Unseen { remaining } => Continues::Unseen(remaining),
            State::Start | State::Boundary | State::Padding { .. } | State::Switched => Continues::Nothing,
        };
        Handover {
            at: self.position,
            timeline: self.timeline,
            previous: self.previous,
            continues,
        }
    }

    /// Where a given LSN lies in the segment that is being read; for what started in an earlier one, where this one goes on
    /// with it.
    pub fn offset_of(&self, lsn: Lsn) -> u64 {
        if lsn < self.segment_start {
            LONG_HEADER as u64
        } else {
            lsn.bytes_since(self.segment_start)
        }
    }

    pub(crate) fn finding(&self, problem: Problem, lsn: Lsn, sentence: String) -> Box<Finding> {
        Finding::boxed(problem, self.offset_of(lsn), lsn, sentence)
    }

    /// "0/3000028 (byte 40)", or that it lies in an earlier segment.
    pub(crate) fn place(&self, lsn: Lsn) -> String {
        if lsn < self.segment_start {
            format!("{lsn} (in an earlier segment)")
        } else {
            format!("{lsn} (byte {})", lsn.bytes_since(self.segment_start))
        }
    }

    /// Takes the next bytes, and tells `sink` of every record that they complete. After an error there is nothing more to feed.
    pub fn feed<S: FnMut(&Record<'_>)>(&mut self, mut bytes: &[u8], sink: &mut S) -> Result<(), Box<Finding>> {
        let block = u64::from(self.format.block_size());
        let segment = self.format.segment_size.bytes();
        while !bytes.is_empty() {
            let in_segment = self.position.within(segment);
            let in_page = self.position.within(block);
            if self.state == State::Switched {
                if in_segment == 0 {
                    self.state = State::Boundary;
                } else {
                    bytes = self.pass(bytes, segment.saturating_sub(in_segment));
                    continue;
                }
            }
            let header = if in_segment < LONG_HEADER as u64 {
                LONG_HEADER
            } else {
                SHORT_HEADER
            };
            if in_page < header as u64 {
                bytes = self.page_header(bytes, header)?;
            } else {
                let room = usize::try_from(block.saturating_sub(in_page)).unwrap_or(usize::MAX);
                let (piece, rest) = bytes.split_at(room.min(bytes.len()));
                self.body(piece, sink)?;
                bytes = rest;
            }
        }
        Ok(())
    }

    /// Passes over at most `limit` bytes.
    fn pass<'a>(&mut self, bytes: &'a [u8], limit: u64) -> &'a [u8] {
        let length = usize::try_from(limit).unwrap_or(usize::MAX).min(bytes.len());
        self.advance(length);
        bytes.get(length..).unwrap_or_default()
    }

    fn advance(&mut self, bytes: usize) {
        self.position = self.position.plus(bytes as u64);
    }

    fn page_header<'a>(&mut self, bytes: &'a [u8], length: usize) -> Result<&'a [u8], Box<Finding>> {
        let missing = length.saturating_sub(self.header.len());
        let (part, rest) = bytes.split_at(missing.min(bytes.len()));
        let address = self.position.less(self.header.len() as u64);
        self.advance(part.len());
        let header = if part.len() == length {
            PageHeader::read(part)
        } else {
            self.header.extend(part.iter().copied());
            if self.header.len() < length {
                return Ok(rest);
            }
            let header = PageHeader::read(&self.header);
            self.header.clear();
            header
        };
        if address.within(self.format.segment_size.bytes()) == 0 {
            self.segment_start = address;
        }
        if let Some(header) = header {
            self.check_page(address, &header)?;
        }
        Ok(rest)
    }

    /// Takes a piece of one page, from behind its header.
    fn body<S: FnMut(&Record<'_>)>(&mut self, mut piece: &[u8], sink: &mut S) -> Result<(), Box<Finding>> {
        while !piece.is_empty() {
            piece = match self.state {
                State::Start | State::Boundary => {
                    let rest = self.whole_records(piece, sink)?;
                    if !rest.is_empty() && self.state == State::Boundary {
                        self.partial = PartialRecord::at(self.position);
                        self.length_confirmed = false;
                        self.state = State::Record;
                    }
                    rest
                }
                State::Record => self.part_of_record(piece, sink)?,
                State::Unseen { remaining } => {
                    let rest = self.pass(piece, u64::from(remaining));
                    let passed = piece.len().saturating_sub(rest.len());
                    self.unseen = self.unseen.saturating_add(passed as u64);
                    // `pass` took no more than remains.
                    let remaining = remaining.saturating_sub(u32::try_from(passed).unwrap_or(u32::MAX));
                    self.state = if remaining == 0 {
                        self.behind_record(self.position)
                    } else {
                        State::Unseen { remaining }
                    };
                    rest
                }
                State::Padding { owner } => self.padding(piece, owner)?,
                State::Switched => self.pass(piece, u64::MAX),
            };
        }
        Ok(())
    }

    /// The records that lie in `piece` as a whole: nearly all of them. Stops at the first that does not, or at a switch.
    fn whole_records<'a, S: FnMut(&Record<'_>)>(
        &mut self,
        mut piece: &'a [u8],
        sink: &mut S,
    ) -> Result<&'a [u8], Box<Finding>> {
        self.state = State::Boundary;
        while let Some((fixed, behind)) = piece.split_first_chunk::<RECORD_HEADER>() {
            let header = RecordHeader::read(fixed);
            self.check_length(self.position, header.total_length)?;
            let body_length = (header.total_length as usize).saturating_sub(RECORD_HEADER);
            let Some((body, behind)) = behind.split_at_checked(body_length) else {
                break;
            };
            self.check_header(self.position, &header)?;
            let crc = record_crc(body, fixed);
            let start = self.position;
            self.advance(header.total_length as usize);
            let prefix = if header.is_read() {
                body.get(..PREFIX).unwrap_or(body)
            } else {
                &[]
            };
            self.complete(start, &header, crc, prefix, sink)?;
            piece = behind;
            if let State::Padding { owner } = self.state {
                piece = self.padding(piece, owner)?;
            }
            if self.state != State::Boundary {
                break;
            }
        }
        Ok(piece)
    }

    /// A record that comes in parts, because a page or what was read so far ends in it.
    fn part_of_record<'a, S: FnMut(&Record<'_>)>(
        &mut self,
        piece: &'a [u8],
        sink: &mut S,
    ) -> Result<&'a [u8], Box<Finding>> {
        let start = self.partial.start;
        if !self.partial.header.is_full() {
            let had = self.partial.header.len();
            let (part, rest) = piece.split_at(self.partial.header.remaining_capacity().min(piece.len()));
            self.partial.header.extend(part.iter().copied());
            self.partial.got = self.partial.got.saturating_add(part.len() as u32);
            self.advance(part.len());
            if had < 4
                && let Some(length) = self.partial.total_length()
            {
                self.check_length(start, length)?;
            }
            let Some(fixed) = self.partial.header.first_chunk::<RECORD_HEADER>() else {
                return Ok(rest);
            };
            let header = RecordHeader::read(fixed);
            self.check_header(start, &header)?;
            if header.total_length > RECORD_HEADER as u32 {
                return Ok(rest);
            }
            return self.end_of_part(&header, rest, sink);
        }
        let Some(fixed) = self.partial.header.first_chunk::<RECORD_HEADER>() else {
            return Ok(&[]);
        };
        let header = RecordHeader::read(fixed);
        let missing = header.total_length.saturating_sub(self.partial.got) as usize;
        let (part, rest) = piece.split_at(missing.min(piece.len()));
        self.partial.crc = crc32c_append(self.partial.crc, part);
        self.partial.got = self
            .partial
            .got
            .saturating_add(u32::try_from(part.len()).unwrap_or(u32::MAX));
        if header.is_read() {
            let kept = part.len().min(self.partial.prefix.remaining_capacity());
            self.partial.prefix.extend(part.iter().take(kept).copied());
        }
        self.advance(part.len());
        if part.len() < missing {
            return Ok(rest);
        }
        self.end_of_part(&header, rest, sink)
    }

    /// The record in progress is complete.
    fn end_of_part<'a, S: FnMut(&Record<'_>)>(
        &mut self,
        header: &RecordHeader,
        rest: &'a [u8],
        sink: &mut S,
    ) -> Result<&'a [u8], Box<Finding>> {
        let crc = crc32c_append(
            self.partial.crc,
            self.partial.header.get(..HEADER_UNDER_CRC).unwrap_or_default(),
        );
        if let Some(doubt) = self.doubt.take() {
            // Read to the length that it gives itself, the record is right or it is not.
            let fault = if crc == header.crc { doubt.page } else { doubt.record };
            return Err(Box::new(Finding { fault, witness: None }));
        }
        let prefix = std::mem::take(&mut self.partial.prefix);
        self.complete(self.partial.start, header, crc, &prefix, sink)?;
        Ok(rest)
    }

    /// A record's last byte has been read.
    #[inline]
    fn complete<S: FnMut(&Record<'_>)>(
        &mut self,
        start: Lsn,
        header: &RecordHeader,
        crc: u32,
        prefix: &[u8],
        sink: &mut S,
    ) -> Result<(), Box<Finding>> {
        if crc != header.crc {
            return Err(self.wrong_crc(start, header, crc));
        }
        let record = Record {
            start,
            end: self.position.aligned(),
            header: *header,
            prefix,
        };
        if let Some(given_up) = self.given_up.take() {
            self.check_given_up(given_up, &record)?;
        }
        self.previous = Some(start);
        self.state = if header.is_switch() {
            State::Switched
        } else {
            self.behind_record(start)
        };
        sink(&record);
        Ok(())
    }

    const fn behind_record(&self, owner: Lsn) -> State {
        if self.position.within(RECORD_ALIGNMENT) == 0 {
            State::Boundary
        } else {
            State::Padding { owner }
        }
    }

    /// Records are aligned, and the server clears a page before it writes into it (AdvanceXLInsertBuffer), so the bytes between
    /// two records are zeros.
    #[inline]
    fn padding<'a>(&mut self, piece: &'a [u8], owner: Lsn) -> Result<&'a [u8], Box<Finding>> {
        let missing = self.position.aligned().bytes_since(self.position);
        let (part, rest) = piece.split_at((missing as usize).min(piece.len()));
        if part.iter().any(|byte| *byte != 0) {
            return Err(self.dirty_padding(owner));
        }
        self.advance(part.len());
        if part.len() as u64 == missing {
            self.state = State::Boundary;
        }
        Ok(rest)
    }

    #[inline]
    fn check_length(&self, start: Lsn, length: u32) -> Result<(), Box<Finding>> {
        if length < RECORD_HEADER as u32 || length > self.format.major.longest_record() {
            return Err(self.impossible_length(start, length));
        }
        Ok(())
    }

    #[inline]
    fn check_header(&self, start: Lsn, header: &RecordHeader) -> Result<(), Box<Finding>> {
        let linked = match self.previous {
            Some(previous) => header.previous == previous,
            // All that the server asks of a record whose predecessor it does not know.
            None => header.previous < start,
        };
        if !linked {
            return Err(self.wrong_link(start, header.previous));
        }
        // RmgrIdIsValid, rmgr.h: extensions have the upper half.
        let highest = self.format.major.highest_builtin_resource_manager();
        if header.resource_manager > highest && header.resource_manager < 128 {
            return Err(self.unknown_resource_manager(start, header.resource_manager));
        }
        Ok(())
    }

    fn check_given_up(&self, given_up: GivenUp, record: &Record<'_>) -> Result<(), Box<Finding>> {
        match (record.meaning(), given_up.record) {
            (Some(Meaning::OverwriteContrecord { overwritten }), Some(start)) if overwritten != Some(start) => {
                Err(self.another_given_up(record.start, overwritten, start))
            }
            (Some(Meaning::OverwriteContrecord { .. }), _) => Ok(()),
            _ => Err(self.nothing_given_up(given_up.page, record.start)),
        }
    }
}

/// Eight bytes at a time is how the processor takes them.
#[repr(align(8))]
struct Short([u8; 256]);

/// The CRC of a whole record: of its body, then of the header up to xl_crc (ValidXLogRecord).
///
/// Most records are short, and for them two calls take longer than the bytes do. So they are put together first.
#[inline]
fn record_crc(body: &[u8], header: &[u8; RECORD_HEADER]) -> u32 {
    let header = header
        .first_chunk::<HEADER_UNDER_CRC>()
        .unwrap_or(&[0; HEADER_UNDER_CRC]);
    let mut short = Short([0; 256]);
    if let Some((front, back)) = short.0.split_at_mut_checked(body.len())
        && let Some(back) = back.first_chunk_mut::<HEADER_UNDER_CRC>()
    {
        front.copy_from_slice(body);
        *back = *header;
        let length = body.len().saturating_add(HEADER_UNDER_CRC);
        return crc32c_append(0, short.0.get(..length).unwrap_or_default());
    }
    crc32c_append(crc32c_append(0, body), header)
}
