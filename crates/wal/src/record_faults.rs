//! The sentences about records that are wrong.

use crate::finding::Finding;
use crate::lsn::Lsn;
use crate::problem::Problem;
use crate::record::{RECORD_HEADER, RecordHeader};
use crate::stream::Stream;

impl Stream {
    #[cold]
    pub(crate) fn impossible_length(&self, start: Lsn, length: u32) -> Box<Finding> {
        let longest = self.format.major.longest_record();
        self.finding(
            Problem::BadRecordLength,
            start,
            format!(
                "The record at {} has length {length}, where {RECORD_HEADER} to {longest} bytes were expected.",
                self.place(start)
            ),
        )
    }

    #[cold]
    pub(crate) fn wrong_link(&self, start: Lsn, found: Lsn) -> Box<Finding> {
        let expected = match self.previous {
            Some(previous) => format!("where the record before begins at {previous}"),
            None => "which is not before it".to_owned(),
        };
        self.finding(
            Problem::BadRecordLink,
            start,
            format!(
                "The record at {} gives {found} as the start of the record before, {expected}.",
                self.place(start)
            ),
        )
    }

    #[cold]
    pub(crate) fn wrong_crc(&self, start: Lsn, header: &RecordHeader, found: u32) -> Box<Finding> {
        let length = header.total_length;
        let whence = if start < self.segment_start {
            ", and the damage can be in that earlier segment too"
        } else {
            ""
        };
        self.finding(
            Problem::BadRecordCrc,
            start,
            format!(
                "The {length} bytes of the record at {} give CRC-32C {found:08X}, where the record says {:08X}{whence}.",
                self.place(start),
                header.crc
            ),
        )
    }

    #[cold]
    pub(crate) fn unknown_resource_manager(&self, start: Lsn, id: u8) -> Box<Finding> {
        self.finding(
            Problem::BadRecordCrc,
            start,
            format!(
                "The record at {} names resource manager {id}, which PostgreSQL {} does not have, so its contents are damaged.",
                self.place(start),
                self.format.major
            ),
        )
    }

    #[cold]
    pub(crate) fn dirty_padding(&self, owner: Lsn) -> Box<Finding> {
        let lsn = self.position;
        let mut finding = self.finding(
            Problem::BadRecordCrc,
            owner,
            format!(
                "The padding at {} behind the record at {} is not zero.",
                self.place(lsn),
                self.place(owner)
            ),
        );
        finding.fault.offset = self.offset_of(lsn);
        finding
    }

    #[cold]
    pub(crate) fn another_given_up(&self, start: Lsn, found: Option<Lsn>, expected: Lsn) -> Box<Finding> {
        let found = found.map_or_else(|| "no record".to_owned(), |lsn| format!("the record at {lsn}"));
        self.finding(
            Problem::BadRecordLink,
            start,
            format!(
                "The record at {} says that {found} was given up, where that at {expected} was.",
                self.place(start)
            ),
        )
    }

    #[cold]
    pub(crate) fn nothing_given_up(&self, page: Lsn, start: Lsn) -> Box<Finding> {
        self.finding(
            Problem::BadPageHeader,
            page,
            format!(
                "The page header at {} says that a record was given up, but the record at {} does not say which.",
                self.place(page),
                self.place(start)
            ),
        )
    }
}
