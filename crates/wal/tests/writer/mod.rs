//! Writes WAL as the server does, so that every case can be made on purpose, the rare ones too.
//!
//! Shared by the tests, the fuzz target and the benchmark; it uses nothing of the crate but its names for things.
#![allow(dead_code, clippy::unwrap_used, clippy::indexing_slicing)]

use wal::{Lsn, SegmentName, Timeline, WalFormat};

pub const XLOG: u8 = 0;
pub const XACT: u8 = 1;
pub const HEAP: u8 = 10;

pub const SWITCH: u8 = 0x40;
pub const RESTORE_POINT: u8 = 0x70;
pub const OVERWRITE_CONTRECORD: u8 = 0xD0;
pub const COMMIT: u8 = 0x00;
pub const PREPARE: u8 = 0x10;
pub const ABORT: u8 = 0x20;
pub const COMMIT_PREPARED: u8 = 0x30;
/// XLOG_XACT_HAS_INFO: nearly every commit has it.
pub const HAS_INFO: u8 = 0x80;

const CONTRECORD: u16 = 1;
const LONG: u16 = 2;
const OVERWRITE: u16 = 8;

#[derive(Clone)]
pub struct Writer {
    pub format: WalFormat,
    pub timeline: Timeline,
    /// XLP_BKP_REMOVABLE on new pages.
    pub removable: bool,
    /// xl_xid of the next record.
    pub xid: u32,
    /// xl_prev of the next record.
    pub previous: Lsn,
    /// The starts of all records so far.
    pub starts: Vec<Lsn>,
    start: Lsn,
    bytes: Vec<u8>,
    overwrite_next: bool,
}

impl Writer {
    /// Begins at a segment's start. The record before it is taken to have begun 64 bytes earlier.
    pub fn new(format: WalFormat, timeline: u32, segment: u64) -> Self {
        let start = Lsn(segment * format.segment_size.bytes());
        Self {
            format,
            timeline: Timeline(timeline),
            removable: true,
            xid: 7,
            previous: Lsn(start.0 - 64),
            starts: Vec::new(),
            start,
            bytes: Vec::new(),
            overwrite_next: false,
        }
    }

    pub fn position(&self) -> Lsn {
        Lsn(self.start.0 + self.bytes.len() as u64)
    }

    pub fn room_in_page(&self) -> usize {
        let block = self.format.block_size() as usize;
        match self.bytes.len() % block {
            0 => block - self.header_length(),
            used => block - used,
        }
    }

    pub fn room_in_segment(&self) -> usize {
        let size = self.format.segment_size.bytes() as usize;
        (size - self.bytes.len() % size) % size
    }

    fn header_length(&self) -> usize {
        if self.position().0.is_multiple_of(self.format.segment_size.bytes()) {
            40
        } else {
            24
        }
    }

    fn page_header(&mut self, remaining: u32) {
        let address = self.position();
        let long = self.header_length() == 40;
        let mut info = if self.removable { 4 } else { 0 };
        info |= if remaining > 0 { CONTRECORD } else { 0 };
        info |= if long { LONG } else { 0 };
        info |= if std::mem::take(&mut self.overwrite_next) {
            OVERWRITE
        } else {
            0
        };
        self.bytes.extend(self.format.major.page_magic().to_ne_bytes());
        self.bytes.extend(info.to_ne_bytes());
        self.bytes.extend(self.timeline.0.to_ne_bytes());
        self.bytes.extend(address.0.to_ne_bytes());
        self.bytes.extend(remaining.to_ne_bytes());
        self.bytes.extend([0; 4]);
        if long {
            self.bytes.extend(self.format.system_identifier.to_ne_bytes());
            self.bytes
                .extend((self.format.segment_size.bytes() as u32).to_ne_bytes());
            self.bytes.extend(self.format.block_size().to_ne_bytes());
        }
    }

    /// The bytes of a record that would go here.
    pub fn encode(&self, resource_manager: u8, info: u8, body: &[u8]) -> Vec<u8> {
        let mut record = Vec::with_capacity(24 + body.len());
        record.extend((24 + body.len() as u32).to_ne_bytes());
        record.extend(self.xid.to_ne_bytes());
        record.extend(self.previous.0.to_ne_bytes());
        record.extend([info, resource_manager, 0, 0]);
        let crc = crc32c::crc32c_append(crc32c::crc32c(body), &record);
        record.extend(crc.to_ne_bytes());
        record.extend(body);
        record
    }

    /// Writes a record, and returns its start.
    pub fn record(&mut self, resource_manager: u8, info: u8, body: &[u8]) -> Lsn {
        let record = self.encode(resource_manager, info, body);
        let start = self.raw(&record, record.len());
        self.previous = start;
        start
    }

    /// Writes the first `length` bytes of a record.
    fn raw(&mut self, record: &[u8], length: usize) -> Lsn {
        let block = self.format.block_size() as usize;
        if self.bytes.len().is_multiple_of(block) {
            self.page_header(0);
        }
        let start = self.position();
        self.starts.push(start);
        let mut written = 0;
        while written < length {
            if self.bytes.len().is_multiple_of(block) {
                self.page_header((record.len() - written) as u32);
            }
            let part = (block - self.bytes.len() % block).min(length - written);
            self.bytes.extend(&record[written..written + part]);
            written += part;
        }
        self.bytes.resize(self.bytes.len().next_multiple_of(8), 0);
        start
    }

    /// Writes a record as far as `pages` page boundaries on, and gives it up there, as crash recovery does.
    pub fn abandoned(&mut self, body: &[u8], pages: usize) -> Lsn {
        let record = self.encode(HEAP, 0, body);
        let block = self.format.block_size() as usize;
        let mut length = self.room_in_page();
        let page_end = (self.bytes.len() / block + 1) * block;
        for page in 1..pages {
            let at = page_end + (page - 1) * block;
            let header = if at.is_multiple_of(self.format.segment_size.bytes() as usize) {
                40
            } else {
                24
            };
            length += block - header;
        }
        assert!(length < record.len(), "a record that goes on");
        let start = self.raw(&record, length);
        self.starts.pop();
        assert!(self.bytes.len().is_multiple_of(block));
        self.overwrite_next = true;
        let body = main_data(&[start.0.to_ne_bytes(), 0_u64.to_ne_bytes()].concat());
        self.record(XLOG, OVERWRITE_CONTRECORD, &body);
        start
    }

    pub fn commit(&mut self, at: i64) -> Lsn {
        self.record(
            XACT,
            COMMIT | HAS_INFO,
            &main_data(&[at.to_ne_bytes(), [0; 8]].concat()),
        )
    }

    pub fn commit_from(&mut self, at: i64, origin: u16) -> Lsn {
        let mut body = vec![253];
        body.extend(origin.to_ne_bytes());
        body.push(252);
        body.extend(9_u32.to_ne_bytes());
        body.extend(main_data(&at.to_ne_bytes()));
        self.record(XACT, COMMIT, &body)
    }

    pub fn restore_point(&mut self, at: i64, name: &str) -> Lsn {
        let mut data = at.to_ne_bytes().to_vec();
        data.extend(name.as_bytes());
        data.resize(72, 0);
        self.record(XLOG, RESTORE_POINT, &main_data(&data))
    }

    /// Ends the segment early.
    pub fn switch(&mut self) -> Lsn {
        let start = self.record(XLOG, SWITCH, &[]);
        let size = self.format.segment_size.bytes() as usize;
        self.bytes.resize(self.bytes.len().next_multiple_of(size), 0);
        start
    }

    /// Writes records of many sizes until the segment is full; the last one goes on in the next segment if `spanning`.
    pub fn fill(&mut self, seed: u64, spanning: bool) {
        let mut random = Random(seed | 1);
        let size = self.format.segment_size.bytes();
        let end = (self.position().0 / size + 1) * size;
        while self.position().0 < end {
            let room = self.room_in_page();
            let length = if !spanning && end - self.position().0 < 40_000 {
                // No record is to cross the segment's end: each fills what is left of its page, or else goes a bit into the next.
                if room < 24 { 100 } else { room - 24 }
            } else {
                match random.next() % 16 {
                    0 => (random.next() % 30_000) as usize,
                    1..5 => (random.next() % 8_200) as usize,
                    5 | 6 => {
                        self.commit(random.next() as i64 >> 8);
                        continue;
                    }
                    _ => (random.next() % 200) as usize,
                }
            };
            let body = random.bytes(length);
            self.record(HEAP, 0, &body);
        }
    }

    /// All whole segments written so far.
    pub fn segments(&self) -> Vec<(SegmentName, Vec<u8>)> {
        let size = self.format.segment_size;
        self.bytes
            .chunks_exact(size.bytes() as usize)
            .enumerate()
            .map(|(index, bytes)| {
                let lsn = Lsn(self.start.0 + index as u64 * size.bytes());
                (SegmentName::containing(self.timeline, lsn, size), bytes.to_vec())
            })
            .collect()
    }

    /// Everything written so far.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }
}

/// Main data with its header, as XLogRecordAssemble lays it out.
pub fn main_data(data: &[u8]) -> Vec<u8> {
    let mut body = match u8::try_from(data.len()) {
        Ok(length) => vec![255, length],
        Err(_) => [&[254], &(data.len() as u32).to_ne_bytes()[..]].concat(),
    };
    body.extend(data);
    body
}

/// xorshift64: enough for filling.
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    pub fn bytes(&mut self, length: usize) -> Vec<u8> {
        (0..length).map(|_| self.next() as u8).collect()
    }
}
