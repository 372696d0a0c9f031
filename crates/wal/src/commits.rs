//! The first commit behind a position in live WAL: how old is what would be lost.

use std::io::{self, Read, Seek, SeekFrom};

use crate::finding::Finding;
use crate::format::WalFormat;
use crate::lsn::{Lsn, RECORD_ALIGNMENT};
use crate::page::{FIRST_IS_CONTRECORD, LONG_HEADER, PageHeader, SHORT_HEADER};
use crate::problem::Fault;
use crate::record::{Meaning, Record};
use crate::stream::{State, Stream};
use crate::timelines::Timelines;
use crate::timestamp::PgTimestamp;

/// DoNotReplicateId (origin.h): the origin under which nobody's data changes.
pub(crate) const DO_NOT_REPLICATE: u16 = 0xFFFF;

/// A commit found in WAL.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Commit {
    /// When it was committed; none when the record holds no time that the server could show.
    pub at: Option<PgTimestamp>,
    /// The start of its record.
    pub lsn: Lsn,
    /// The end of its record: a server that has this much has the commit.
    pub end: Lsn,
    /// The replication origin that it was made under, where there was one.
    pub origin: Option<u16>,
    /// The transaction's number, without its epoch. None of a prepared transaction whose record names it too far behind lists of
    /// subtransactions or of changes to the catalog.
    pub xid: Option<u32>,
}

/// How far a scan has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ScanProgress {
    /// The first commit.
    Found(Commit),
    /// No commit has its end up to here.
    UpTo {
        /// The end of the last complete record that was looked at; a new scan can start here.
        lsn: Lsn,
        /// Whether there is more to look at up to the limit, which the budget did not allow.
        more: bool,
    },
}

/// Why a scan could not go on.
#[derive(Debug, thiserror::Error)]
pub enum ScanError {
    /// A segment could not be opened or read.
    #[error("reading WAL at {lsn}: {source}")]
    Io {
        /// Where.
        lsn: Lsn,
        /// Why.
        source: io::Error,
    },
    /// What was read is not the WAL that should be there.
    #[error("{0}")]
    Fault(#[from] Fault),
}

/// Looks for the first commit whose record ends behind a given LSN, a stretch of WAL at a time.
///
/// Commits with the replication origin 0xFFFF are passed over: they are bookkeeping that nobody would miss. Every record that is
/// passed is verified, CRC included.
pub struct CommitScanner {
    format: WalFormat,
    from: Lsn,
    stream: Option<Stream>,
    found: Option<Commit>,
    unseen_head: bool,
}

/// One segment's file, as long as it is the one wanted.
struct Segments<'a, R> {
    format: WalFormat,
    open: &'a mut dyn FnMut(u64) -> io::Result<R>,
    current: Option<(u64, R)>,
}

impl<R: Read + Seek> Segments<'_, R> {
    /// Fills `buffer` with what lies at `lsn`; it must not reach into the next segment.
    fn read(&mut self, lsn: Lsn, buffer: &mut [u8]) -> Result<(), ScanError> {
        self.try_read(lsn, buffer)
            .map_err(|source| ScanError::Io { lsn, source })
    }

    fn try_read(&mut self, lsn: Lsn, buffer: &mut [u8]) -> io::Result<()> {
        let size = self.format.segment_size.bytes();
        let number = lsn.0.checked_div(size).unwrap_or_default();
        let reader = match &mut self.current {
            Some((current, reader)) if *current == number => reader,
            current => {
                // Closed before the next is opened.
                *current = None;
                &mut current.insert((number, (self.open)(number)?)).1
            }
        };
        reader.seek(SeekFrom::Start(lsn.within(size)))?;
        reader.read_exact(buffer)
    }

    /// The header of the page at `page`.
    fn header(&mut self, page: Lsn) -> Result<Option<PageHeader>, ScanError> {
        let mut bytes = [0_u8; LONG_HEADER];
        let length = header_length(&self.format, page);
        let bytes = bytes.get_mut(..length).unwrap_or_default();
        self.read(page, bytes)?;
        Ok(PageHeader::read(bytes))
    }
}

const fn header_length(format: &WalFormat, page: Lsn) -> usize {
    if page.within(format.segment_size.bytes()) == 0 {
        LONG_HEADER
    } else {
        SHORT_HEADER
    }
}

impl CommitScanner {
    /// How much is read at first: on a busy server a commit is near.
    const FIRST_CHUNK: u64 = 16 << 10;
    /// How much is read at once, after some doubling.
    const CHUNK: u64 = 128 << 10;

    /// A scan for the first commit whose record ends behind `from`, which may lie anywhere in WAL.
    #[must_use]
    pub const fn new(format: &WalFormat, from: Lsn) -> Self {
        Self {
            format: *format,
            from,
            stream: None,
            found: None,
            unseen_head: false,
        }
    }

    /// Whether `from` lies in a record whose beginning could not be read any more, so that it cannot be told whether it is a
    /// commit.
    #[must_use]
    pub const fn unseen_head(&self) -> bool {
        self.unseen_head
    }

    /// Goes on up to `to`, but reads at most about `budget` bytes. `to` must not go beyond what the server has flushed: what
    /// lies behind that is not WAL yet.
    ///
    /// `open` opens a segment by its number (its start over the segment size), on the timeline whose file holds it
    /// ([`TimelineHistory::timeline_of_segment`](crate::TimelineHistory::timeline_of_segment)). It is asked for earlier ones
    /// than that of `from` where a record reaches over; if it then fails, [`Self::unseen_head`] tells.
    ///
    /// The scan can be taken up again with a later `to`. Once it has found a commit, that is what it answers.
    ///
    /// # Errors
    /// When a segment cannot be read, or what it holds is not sound. The next call goes on or starts anew.
    pub fn advance<R: Read + Seek>(
        &mut self,
        to: Lsn,
        budget: u64,
        open: &mut dyn FnMut(u64) -> io::Result<R>,
    ) -> Result<ScanProgress, ScanError> {
        if let Some(found) = self.found {
            return Ok(ScanProgress::Found(found));
        }
        // A record ends with its padding.
        let to = to.floor(RECORD_ALIGNMENT);
        let mut segments = Segments {
            format: self.format,
            open,
            current: None,
        };
        let mut stream = match self.stream.take() {
            Some(stream) => stream,
            None => match self.first_page(to, &mut segments)? {
                Some(start) => Stream::new(&self.format, Timelines::Any, start),
                None => {
                    return Ok(ScanProgress::UpTo {
                        lsn: self.from,
                        more: false,
                    });
                }
            },
        };
        let size = self.format.segment_size.bytes();
        let mut left = budget.max(1);
        let mut at_once = Self::FIRST_CHUNK;
        let mut chunk = Vec::new();
        while stream.position < to && left > 0 {
            let in_segment = stream.position.within(size);
            if stream.state == State::Switched && in_segment != 0 {
                // Nothing but padding up to the segment's end, but the server does count it as flushed.
                stream.position = stream.position.plus(size.saturating_sub(in_segment)).min(to);
                continue;
            }
            let length = to
                .bytes_since(stream.position)
                .min(size.saturating_sub(in_segment))
                .min(left)
                .min(at_once);
            chunk.resize(usize::try_from(length).unwrap_or_default(), 0);
            if let Err(error) = segments.read(stream.position, &mut chunk) {
                // Nothing is lost; the next call tries again.
                self.stream = Some(stream);
                return Err(error);
            }
            left = left.saturating_sub(length);
            at_once = at_once.saturating_mul(2).min(Self::CHUNK);
            let (from, mut found) = (self.from, None);
            let fed = stream.feed(&chunk, &mut |record: &Record<'_>| {
                if found.is_none() && record.end > from {
                    found = commit(record);
                }
            });
            if let Some(found) = found {
                self.found = Some(found);
                return Ok(ScanProgress::Found(found));
            }
            fed.map_err(|finding: Box<Finding>| ScanError::Fault(finding.fault))?;
        }
        let lsn = self.from.max(complete_up_to(&stream)).min(to.max(self.from));
        let more = stream.position < to;
        self.stream = Some(stream);
        Ok(ScanProgress::UpTo { lsn, more })
    }

    /// The page to start at, so that the record that covers `from` is read from its beginning; none when there is nothing to read
    /// up to `to`.
    fn first_page<R: Read + Seek>(
        &mut self,
        to: Lsn,
        segments: &mut Segments<'_, R>,
    ) -> Result<Option<Lsn>, ScanError> {
        let block = u64::from(self.format.block_size());
        let page = self.from.floor(block);
        if to <= self.from || to.bytes_since(page) <= header_length(&self.format, page) as u64 {
            return Ok(None);
        }
        let Some(header) = segments.header(page)? else {
            return Ok(None);
        };
        if header.magic == 0 && page.within(self.format.segment_size.bytes()) != 0 {
            // Padding behind a switch. Its record is somewhere before.
            return Ok(Some(page.floor(self.format.segment_size.bytes())));
        }
        let head_end = |page: Lsn, header: &PageHeader| {
            let remaining = if header.has(FIRST_IS_CONTRECORD) {
                header.remaining
            } else {
                0
            };
            page.plus(header_length(&self.format, page) as u64)
                .plus(u64::from(remaining))
        };
        if !header.has(FIRST_IS_CONTRECORD) || head_end(page, &header).aligned() <= self.from {
            return Ok(Some(page));
        }
        // The record that covers `from`, or ends behind it, began on an earlier page: the last one before that has a record's start.
        let mut start = page;
        while start.0 >= block {
            start = start.less(block);
            let header = match segments.header(start) {
                Ok(Some(header)) if header.address == start => header,
                // Gone: the server keeps WAL from some segment on. Or an older file in its place.
                Ok(_) | Err(ScanError::Io { .. }) => break,
                Err(error) => return Err(error),
            };
            if head_end(start, &header) < start.plus(block) {
                return Ok(Some(start));
            }
        }
        self.unseen_head = true;
        Ok(Some(page))
    }
}

/// Whether the last record before `to`, the end of a record, is the checkpoint of a shutdown: then the server that wrote it had
/// nothing more to say. `open` is that of [`CommitScanner::advance`].
///
/// # Errors
/// When a segment cannot be read, or what it holds is not sound.
pub fn ends_with_shutdown<R: Read + Seek>(
    format: &WalFormat,
    to: Lsn,
    open: &mut dyn FnMut(u64) -> io::Result<R>,
) -> Result<bool, ScanError> {
    let mut segments = Segments {
        format: *format,
        open,
        current: None,
    };
    let Some(start) = CommitScanner::new(format, to.less(1)).first_page(to, &mut segments)? else {
        return Ok(false);
    };
    let size = format.segment_size.bytes();
    let mut stream = Stream::new(format, Timelines::Any, start);
    let mut chunk = Vec::new();
    let mut last = None;
    while stream.position < to {
        let position = stream.position;
        let length = to
            .bytes_since(position)
            .min(size.saturating_sub(position.within(size)))
            .min(CommitScanner::CHUNK);
        chunk.resize(usize::try_from(length).unwrap_or_default(), 0);
        segments.read(position, &mut chunk)?;
        stream
            .feed(&chunk, &mut |record: &Record<'_>| {
                last = Some((record.end, record.header.is_shutdown()));
            })
            .map_err(|finding: Box<Finding>| ScanError::Fault(finding.fault))?;
        if stream.position <= position {
            // Padding behind a switch: no shutdown ends like that.
            return Ok(false);
        }
    }
    Ok(last == Some((to, true)))
}

/// The end of the last complete record.
fn complete_up_to(stream: &Stream) -> Lsn {
    match stream.state {
        State::Record => stream.partial.start,
        State::Padding { .. } => stream.position.aligned(),
        State::Start | State::Unseen { .. } => Lsn::INVALID,
        State::Boundary | State::Switched => stream.position,
    }
}

fn commit(record: &Record<'_>) -> Option<Commit> {
    match record.meaning()? {
        Meaning::Commit {
            origin: Some(DO_NOT_REPLICATE),
            ..
        } => None,
        Meaning::Commit { at, origin, xid } => Some(Commit {
            at,
            lsn: record.start,
            end: record.end,
            origin,
            xid,
        }),
        Meaning::Abort { .. }
        | Meaning::RestorePoint { .. }
        | Meaning::LedgerHead(_)
        | Meaning::OverwriteContrecord { .. } => None,
    }
}

/// One call of a new [`CommitScanner`]: the first commit whose record ends behind `from` and not behind `to`.
///
/// # Errors
/// See [`CommitScanner::advance`].
pub fn scan_commits<R: Read + Seek>(
    format: &WalFormat,
    from: Lsn,
    to: Lsn,
    budget: u64,
    open: &mut dyn FnMut(u64) -> io::Result<R>,
) -> Result<ScanProgress, ScanError> {
    CommitScanner::new(format, from).advance(to, budget, open)
}
