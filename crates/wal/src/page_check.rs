//! What a page header must hold, given what came before it (XLogReaderValidatePageHeader, and the checks of continued records
//! in XLogDecodeNextRecord, xlogreader.c).

use crate::finding::{Evidence, Finding};
use crate::format::{is_block_size, writer_of_magic};
use crate::lsn::{Lsn, Timeline};
use crate::page::{
    ALL_FLAGS, FIRST_IS_CONTRECORD, FIRST_IS_OVERWRITE_CONTRECORD, HAS_LONG_HEADER, Identity, PageHeader, SHORT_HEADER,
};
use crate::problem::{Fault, Problem};
use crate::segment::{SegmentName, SegmentSize};
use crate::stream::{Doubt, GivenUp, State, Stream};
use crate::timelines::Timelines;

type Checked = Result<(), Box<Finding>>;

/// Whether the two differ as a stored value and its damaged copy do.
const fn one_bit_apart(a: u64, b: u64) -> bool {
    (a ^ b).is_power_of_two()
}

impl Stream {
    /// Checks the header of the page at `address`, and settles what its first bytes are.
    pub(crate) fn check_page(&mut self, address: Lsn, header: &PageHeader) -> Checked {
        let first = address == self.segment_start;
        self.check_magic(address, header, first)?;
        self.check_flags(address, header, first)?;
        if let Some(identity) = header.identity {
            self.check_identity(address, &identity)?;
        }
        self.check_address(address, header, first)?;
        self.check_timeline(address, header.timeline)?;
        self.timeline = header.timeline;
        self.check_continuation(address, header)
    }

    fn header_finding(&self, address: Lsn, what: &str) -> Box<Finding> {
        self.finding(
            Problem::BadPageHeader,
            address,
            format!("The page header at {} {what}.", self.place(address)),
        )
    }

    fn check_magic(&self, address: Lsn, header: &PageHeader, first: bool) -> Checked {
        let expected = self.format.major.page_magic();
        if header.magic == expected {
            return Ok(());
        }
        let finding = self.header_finding(
            address,
            &format!(
                "has magic {:04X}, where PostgreSQL {} writes {expected:04X}",
                header.magic, self.format.major
            ),
        );
        // All majors since 8.3 have 0xD0.. or 0xD1... Only the first pages tell: no server goes on in another one's segment.
        if !first || !matches!(header.magic >> 8, 0xD0 | 0xD1) {
            return Err(finding);
        }
        let sentence = format!(
            "The first two pages have magic {:04X}, which {} writes, where {expected:04X} of PostgreSQL {} was expected.",
            header.magic,
            writer_of_magic(header.magic),
            self.format.major
        );
        Err(finding.unless(Evidence::Magic(header.magic), Problem::WrongVersion, sentence))
    }

    fn check_flags(&self, address: Lsn, header: &PageHeader, first: bool) -> Checked {
        let unknown = header.info & !ALL_FLAGS;
        if unknown != 0 {
            return Err(self.header_finding(
                address,
                &format!("has flags {:04X}, of which {unknown:04X} are not known", header.info),
            ));
        }
        if header.has(HAS_LONG_HEADER) != first {
            let what = if first {
                "lacks the flag of a segment's first page"
            } else {
                "has the flag of a segment's first page, which it is not"
            };
            return Err(self.header_finding(address, what));
        }
        // The server clears the page first.
        if header.padding != 0 {
            return Err(self.header_finding(
                address,
                &format!(
                    "has {:08X} in its four padding bytes, which must be zero",
                    header.padding
                ),
            ));
        }
        Ok(())
    }

    fn check_identity(&self, address: Lsn, identity: &Identity) -> Checked {
        let format = &self.format;
        let foreign = |problem, sentence| Err(self.finding(problem, address, sentence));
        if identity.system_identifier != format.system_identifier {
            let (found, expected) = (identity.system_identifier, format.system_identifier);
            if one_bit_apart(found, expected) {
                return Err(self.header_finding(
                    address,
                    &format!("has system identifier {found}, one bit away from the cluster's, {expected}"),
                ));
            }
            return foreign(
                Problem::ForeignSystem,
                format!(
                    "The first page is of the cluster with system identifier {found}; this cluster's is {expected}."
                ),
            );
        }
        let (found, expected) = (identity.segment_size, format.segment_size.bytes());
        if u64::from(found) != expected {
            if SegmentSize::new(found).is_err() {
                return Err(self.header_finding(
                    address,
                    &format!("gives {found} bytes as the segment size, where {expected} was expected"),
                ));
            }
            return foreign(
                Problem::WrongSegmentSize,
                format!(
                    "The first page is of a cluster with segments of {found} bytes; this cluster's have {expected}."
                ),
            );
        }
        let (found, expected) = (identity.block_size, format.block_size());
        if found != expected {
            if !is_block_size(found) {
                return Err(self.header_finding(
                    address,
                    &format!("gives {found} bytes as the WAL block size, where {expected} was expected"),
                ));
            }
            return foreign(
                Problem::ForeignSystem,
                format!(
                    "The first page is of a server with WAL blocks of {found} bytes; this cluster's have {expected}."
                ),
            );
        }
        Ok(())
    }

    fn check_address(&self, address: Lsn, header: &PageHeader, first: bool) -> Checked {
        if header.address == address {
            return Ok(());
        }
        let finding = self.finding(
            Problem::BadPageAddress,
            address,
            format!(
                "The page at {} bears the address {}.",
                self.place(address),
                header.address
            ),
        );
        let size = self.format.segment_size;
        if !first || header.address.within(size.bytes()) != 0 {
            return Err(finding);
        }
        let held = SegmentName::containing(header.timeline, header.address, size);
        let sentence = format!(
            "The file holds segment {held}: its first two pages bear the addresses {} and {}, where {address} was expected first.",
            header.address,
            header.address.plus(u64::from(self.format.block_size()))
        );
        let next = header.address.plus(u64::from(self.format.block_size()));
        Err(finding.unless(Evidence::Address(next), Problem::WrongSegment, sentence))
    }

    fn check_timeline(&self, address: Lsn, found: Timeline) -> Checked {
        if let Timelines::NotIn { file, history } = self.timelines {
            return Err(self.finding(
                Problem::ForeignTimeline,
                address,
                format!("The file is of timeline {file}, which the history of timeline {history} does not name."),
            ));
        }
        let expectation = match &self.timelines {
            Timelines::History(history) => {
                let expected = history.timeline_of(address);
                (found != expected).then(|| format!("timeline {expected} was expected"))
            }
            Timelines::UpTo(file) => (found > *file || found.0 == 0).then(|| format!("the file is of timeline {file}")),
            Timelines::NotIn { .. } | Timelines::Any => None,
        };
        if let Some(expectation) = expectation {
            let finding = self.header_finding(address, &format!("is of timeline {found}, where {expectation}"));
            let sentence = format!(
                "The pages from {} on are of timeline {found}, where {expectation}.",
                self.place(address)
            );
            return Err(finding.unless(Evidence::Timeline(found), Problem::ForeignTimeline, sentence));
        }
        // A history says it all; without one at least no page goes back to an older timeline.
        if found < self.timeline && self.timelines.expected(address).is_none() {
            let before = self.timeline;
            return Err(self.header_finding(
                address,
                &format!("is of timeline {found}, although the page before is of timeline {before}"),
            ));
        }
        Ok(())
    }

    /// A page begins with a record, or with the rest of one. The flag, xlp_rem_len and the record in progress must agree.
    fn check_continuation(&mut self, address: Lsn, header: &PageHeader) -> Checked {
        let continues = header.has(FIRST_IS_CONTRECORD);
        let gives_up = header.has(FIRST_IS_OVERWRITE_CONTRECORD);
        let remaining = header.remaining;
        if continues && gives_up {
            return Err(self.header_finding(address, "says both that a record goes on and that it was given up"));
        }
        if continues != (remaining != 0) {
            let what = if continues {
                "says that a record goes on, but no byte of it".to_owned()
            } else {
                format!("says that {remaining} bytes of a record remain, but not that one goes on")
            };
            return Err(self.header_finding(address, &what));
        }
        if remaining > self.format.major.longest_record() {
            return Err(self.header_finding(
                address,
                &format!("says that {remaining} bytes of a record remain, more than any record has"),
            ));
        }
        match self.state {
            State::Record if gives_up => self.give_up(address, Some(self.partial.start)),
            State::Unseen { .. } | State::Start if gives_up => self.give_up(address, None),
            State::Record => return self.check_record_continuation(address, remaining),
            State::Unseen { remaining: expected } if remaining != expected => {
                let what =
                    format!("says that {remaining} bytes of a record remain, where the page before left {expected}");
                return Err(self.header_finding(address, &what));
            }
            State::Start if continues => self.state = State::Unseen { remaining },
            State::Start => self.state = State::Boundary,
            State::Boundary | State::Padding { .. } | State::Switched if continues => {
                let what =
                    format!("says that {remaining} bytes of a record remain, although the last record has ended");
                return Err(self.header_finding(address, &what));
            }
            State::Boundary | State::Padding { .. } | State::Switched if gives_up => {
                return Err(self.header_finding(
                    address,
                    "says that a record was given up, although the last record has ended",
                ));
            }
            State::Unseen { .. } | State::Boundary | State::Padding { .. } | State::Switched => {}
        }
        Ok(())
    }

    fn give_up(&mut self, page: Lsn, record: Option<Lsn>) {
        // What was doubtful about it does not matter any more.
        self.doubt = None;
        self.given_up = Some(GivenUp { page, record });
        self.state = State::Boundary;
    }

    /// Where the record in progress and the page disagree about how much of it remains, one of them is damaged. A record whose
    /// length an earlier page confirmed is right; a page without continuation, in flag and length, is; then the number of bits
    /// tells, and in the last resort the record's CRC or the next page.
    fn check_record_continuation(&mut self, address: Lsn, found: u32) -> Checked {
        let start = self.partial.start;
        let length = self.partial.total_length().unwrap_or(0);
        let expected = length.saturating_sub(self.partial.got);
        if let Some(doubt) = self.doubt.take() {
            let fault = if found == expected { doubt.page } else { doubt.record };
            return Err(Box::new(Finding { fault, witness: None }));
        }
        if found == expected {
            self.length_confirmed = true;
            return Ok(());
        }
        let says = if found == 0 {
            "that no record goes on".to_owned()
        } else {
            format!("that {found} bytes of a record remain")
        };
        let page = self.header_finding(
            address,
            &format!(
                "says {says}, where {expected} of the {length} bytes of the record at {} are to come",
                self.place(start)
            ),
        );
        let record = self.finding(
            Problem::BadRecordLength,
            start,
            format!(
                "The record at {} has length {length}, of which {expected} bytes would be in the page at {} and after, but that page says {says}.",
                self.place(start),
                self.place(address)
            ),
        );
        let like_page = found != 0 && one_bit_apart(u64::from(found), u64::from(expected));
        let like_record = one_bit_apart(u64::from(found.saturating_add(self.partial.got)), u64::from(length));
        if self.length_confirmed || (like_page && !like_record) {
            return Err(page);
        }
        if !like_page {
            return Err(record);
        }
        let (page, record): (Fault, Fault) = (page.fault, record.fault);
        self.doubt = Some(Box::new(Doubt { page, record }));
        Ok(())
    }

    /// The timeline and the header of the page after one at fault, out of its first bytes.
    pub(crate) fn second_opinion(&self, finding: Finding, address: Lsn, bytes: &[u8; SHORT_HEADER]) -> Fault {
        match PageHeader::read(bytes) {
            Some(header) => finding.judge(&header, self.timelines.expected(address)),
            None => finding.fault,
        }
    }
}
