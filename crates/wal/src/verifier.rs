//! Verification of one segment file as its bytes come by.

use std::io;

use arrayvec::ArrayVec;
use sha2::{Digest, Sha256};

use crate::commits::Commit;
use crate::finding::Finding;
use crate::format::WalFormat;
use crate::handover::Handover;
use crate::history::TimelineHistory;
use crate::ledger_head::LedgerHead;
use crate::lsn::Lsn;
use crate::page::SHORT_HEADER;
use crate::problem::{Fault, Problem, Status};
use crate::record::{Meaning, Record};
use crate::segment::SegmentName;
use crate::stream::{State, Stream};
use crate::timelines::Timelines;
use crate::timestamp::PgTimestamp;
use crate::xid::XidRange;

/// Whether the bytes are hashed on their way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hashing {
    /// The outcome has the SHA-256 of all bytes.
    Sha256,
    /// It has zeros.
    None,
}

/// A named moment in WAL, made by pg_create_restore_point().
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RestorePoint {
    /// Its name, in the encoding of whichever database it was made in; nothing tells which.
    pub name: Vec<u8>,
    /// The end of its record: where a recovery to it stops.
    pub lsn: Lsn,
    /// When it was made.
    pub at: Option<PgTimestamp>,
}

/// What a sound segment holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SegmentSummary {
    /// Records that end in it and whose beginning was known.
    pub records: u64,
    /// Commits among them, of prepared transactions too; aborts not.
    pub commit_count: u64,
    /// When the first of them in WAL order was committed.
    pub first_commit_at: Option<PgTimestamp>,
    /// When the last of them in WAL order was committed.
    pub last_commit_at: Option<PgTimestamp>,
    /// The latest time of any commit or abort in it. They are not in order of their times, not even without a clock that was
    /// set; a recovery to a time stops at the first that is later (recoveryStopsBefore, xlogrecovery.c).
    pub latest_xact_at: Option<PgTimestamp>,
    /// The start of the last record that ends in it: the greatest `recovery_target_lsn` that it can serve.
    pub last_record: Option<Lsn>,
    /// Between which numbers the transactions lie that they are of, both ends included; see [`XidRange`].
    pub xids: Option<XidRange>,
    /// The restore points among them; the first [`SegmentVerifier::MAX_RESTORE_POINTS`].
    pub restore_points: Vec<RestorePoint>,
    /// The newest head of each ledger that was noted in it; of at most [`SegmentVerifier::MAX_LEDGERS`].
    pub ledger_heads: Vec<LedgerHead>,
    /// The end of the last record, where a switch ended the segment early; else the segment's end.
    pub end_of_data: Lsn,
    /// Whether an XLOG_SWITCH record ended it.
    pub switched: bool,
    /// Bytes at its start that belong to a record whose beginning was not known, and which therefore no CRC covers.
    pub unchecked_head: u64,
    /// For the segment that follows.
    pub handover: Handover,
}

/// What recovery still replays of a segment before it meets the fault in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SoundHead {
    /// The start of the last sound record.
    pub last_record: Lsn,
    /// When the last commit among the sound records was made.
    pub last_commit_at: Option<PgTimestamp>,
}

/// What came of a segment file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SegmentOutcome {
    /// How many bytes were read.
    pub bytes: u64,
    /// Their SHA-256.
    pub sha256: [u8; 32],
    /// What the segment holds, or what is wrong with it.
    pub result: Result<SegmentSummary, Fault>,
    /// Where a page or a record is at fault, the sound records before it, if there are any. A file of a wrong size, or of another
    /// cluster, recovery does not replay at all.
    pub sound_head: Option<SoundHead>,
}

/// Verifies one segment, fed in pieces of any size.
///
/// Checks every page header and every record as PostgreSQL's own reader would (xlogreader.c), and beyond it that padding is
/// zero. Not covered by any check are the flag XLP_BKP_REMOVABLE, which PostgreSQL never reads, what follows an XLOG_SWITCH
/// record, and [`SegmentSummary::unchecked_head`].
pub struct SegmentVerifier {
    pub(crate) name: SegmentName,
    stream: Stream,
    tally: Tally,
    hasher: Option<Sha256>,
    pub(crate) bytes: u64,
    all_zero: bool,
    stage: Stage,
}

enum Stage {
    Sound,
    /// A fault that the header of the page after it can turn into another.
    Undecided {
        finding: Box<Finding>,
        next_page: Lsn,
        header: ArrayVec<u8, SHORT_HEADER>,
    },
    Faulty(Fault),
}

#[derive(Default)]
struct Tally {
    records: u64,
    commits: u64,
    first_commit_at: Option<PgTimestamp>,
    last_commit_at: Option<PgTimestamp>,
    latest_xact_at: Option<PgTimestamp>,
    xids: Option<XidRange>,
    restore_points: Vec<RestorePoint>,
    ledger_heads: Vec<LedgerHead>,
    last_start: Option<Lsn>,
    last_end: Option<Lsn>,
}

impl Tally {
    #[inline]
    fn count(&mut self, record: &Record<'_>, on_commit: &mut dyn FnMut(&Commit)) {
        self.records = self.records.saturating_add(1);
        self.last_start = Some(record.start);
        self.last_end = Some(record.end);
        match record.meaning() {
            Some(Meaning::Commit { at, origin, xid }) => {
                on_commit(&Commit {
                    at,
                    lsn: record.start,
                    end: record.end,
                    origin,
                    xid,
                });
                self.commits = self.commits.saturating_add(1);
                self.first_commit_at = self.first_commit_at.or(at);
                self.last_commit_at = at.or(self.last_commit_at);
                self.latest_xact_at = self.latest_xact_at.max(at);
                if let Some(xid) = xid {
                    self.xids = Some(self.xids.map_or(XidRange::of(xid), |range| range.with(xid)));
                }
            }
            Some(Meaning::Abort { at }) => self.latest_xact_at = self.latest_xact_at.max(at),
            Some(Meaning::RestorePoint { name, at })
                if self.restore_points.len() < SegmentVerifier::MAX_RESTORE_POINTS =>
            {
                self.restore_points.push(RestorePoint {
                    name,
                    lsn: record.end,
                    at,
                });
            }
            Some(Meaning::LedgerHead(head)) => self.note(head),
            _ => {}
        }
    }
}

impl Tally {
    fn note(&mut self, head: LedgerHead) {
        let is_same = |known: &&mut LedgerHead| known.database == head.database && known.extension == head.extension;
        if let Some(known) = self.ledger_heads.iter_mut().find(is_same) {
            *known = head;
        } else if self.ledger_heads.len() < SegmentVerifier::MAX_LEDGERS {
            self.ledger_heads.push(head);
        }
    }
}

impl SegmentVerifier {
    /// Of how many ledgers the heads are kept; each database can have one.
    pub const MAX_LEDGERS: usize = 64;
    /// How many restore points of one segment are kept.
    pub const MAX_RESTORE_POINTS: usize = 1024;

    /// A verifier for the segment that should be called `name`.
    ///
    /// `history` is that of the segment's timeline, or of a timeline that descends from it; without one, all that is asked of a
    /// timeline other than the first is that it does not descend from a higher number. `handover` is what the segment before
    /// left, on this timeline or the one that it branched from; one of another place is left aside.
    #[must_use]
    pub fn new(
        format: &WalFormat,
        name: SegmentName,
        history: Option<&TimelineHistory>,
        handover: Option<Handover>,
    ) -> Self {
        let mut stream = Stream::new(format, Timelines::of_file(name.timeline, history), name.start());
        if let Some(handover) = handover.filter(|handover| handover.at() == name.start() && handover.fits(format)) {
            stream.resume(handover);
        }
        Self {
            name,
            stream,
            tally: Tally::default(),
            hasher: Some(Sha256::new()),
            bytes: 0,
            all_zero: true,
            stage: Stage::Sound,
        }
    }

    /// The same with or without hashing; new verifiers hash.
    #[must_use]
    pub fn with_hashing(mut self, hashing: Hashing) -> Self {
        self.hasher = match hashing {
            Hashing::Sha256 => Some(Sha256::new()),
            Hashing::None => None,
        };
        self
    }

    /// Takes the next bytes of the file. Once something is wrong, it only counts and hashes.
    pub fn feed(&mut self, chunk: &[u8]) {
        self.feed_with(chunk, &mut |_| {});
    }

    /// The same, and tells `on_commit` of every commit that the bytes complete.
    pub fn feed_with(&mut self, chunk: &[u8], on_commit: &mut dyn FnMut(&Commit)) {
        let left = usize::try_from(self.name.size.bytes().saturating_sub(self.bytes)).unwrap_or(usize::MAX);
        let inside = chunk.get(..left).unwrap_or(chunk);
        self.all_zero = self.all_zero && inside.iter().all(|byte| *byte == 0);
        match &mut self.stage {
            Stage::Sound => {
                let tally = &mut self.tally;
                if let Err(finding) = self.stream.feed(inside, &mut |record| tally.count(record, on_commit)) {
                    self.found(finding, inside);
                }
            }
            Stage::Undecided { .. } => self.hear_witness(self.bytes, inside),
            Stage::Faulty(_) => {}
        }
        // Right after the CRC, while the bytes are in the processor's cache.
        if let Some(hasher) = &mut self.hasher {
            hasher.update(chunk);
        }
        self.bytes = self.bytes.saturating_add(chunk.len() as u64);
    }

    fn found(&mut self, finding: Box<Finding>, chunk: &[u8]) {
        if finding.witness.is_none() {
            self.stage = Stage::Faulty(finding.fault);
            return;
        }
        let next_page = finding.fault.lsn.plus(u64::from(self.stream.format.block_size()));
        self.stage = Stage::Undecided {
            finding,
            next_page,
            header: ArrayVec::new(),
        };
        self.hear_witness(self.bytes, chunk);
    }

    /// Collects the header of the page that decides; `chunk` begins at byte `at` of the file.
    fn hear_witness(&mut self, at: u64, chunk: &[u8]) {
        let Stage::Undecided {
            finding,
            next_page,
            header,
        } = &mut self.stage
        else {
            return;
        };
        let wanted = next_page
            .bytes_since(self.name.start())
            .saturating_add(header.len() as u64);
        let skip = usize::try_from(wanted.saturating_sub(at)).unwrap_or(usize::MAX);
        let bytes = chunk.get(skip..).unwrap_or_default();
        header.extend(bytes.iter().take(header.remaining_capacity()).copied());
        if let Ok(header) = header.as_slice().try_into() {
            let finding = std::mem::replace(
                &mut **finding,
                Finding {
                    fault: nothing(),
                    witness: None,
                },
            );
            let fault = self.stream.second_opinion(finding, *next_page, header);
            self.stage = Stage::Faulty(fault);
        }
    }

    /// The file has ended here.
    #[must_use]
    pub fn finish(self) -> SegmentOutcome {
        self.end(None)
    }

    /// Reading the file has failed here.
    #[must_use]
    pub fn fail(self, error: &io::Error) -> SegmentOutcome {
        let sentence = format!("Reading failed at byte {}: {error}.", self.bytes);
        let fault = self.fault_here(Problem::Unreadable, sentence);
        self.end(Some(fault))
    }

    fn end(mut self, failure: Option<Fault>) -> SegmentOutcome {
        let (bytes, sha256) = (
            self.bytes,
            self.hasher
                .take()
                .map(|hasher| hasher.finalize().into())
                .unwrap_or_default(),
        );
        let sound_head = self.tally.last_start.map(|last_record| SoundHead {
            last_record,
            last_commit_at: self.tally.last_commit_at,
        });
        let result = match failure {
            Some(fault) => Err(fault),
            None => self.conclude(),
        };
        let met_in_replay = result.as_ref().is_err_and(|fault| fault.problem.is_met_in_replay());
        SegmentOutcome {
            bytes,
            sha256,
            result,
            sound_head: sound_head.filter(|_| met_in_replay),
        }
    }

    fn conclude(self) -> Result<SegmentSummary, Fault> {
        let size = self.name.size.bytes();
        let size_fault = if self.bytes == 0 {
            Some(self.fault_here(
                Problem::Empty,
                format!("The file is empty, where {size} bytes were expected."),
            ))
        } else if self.bytes < size {
            let sentence = format!(
                "The file ends at byte {}, LSN {}, where {size} bytes were expected.",
                self.bytes,
                self.here()
            );
            Some(self.fault_here(Problem::Truncated, sentence))
        } else if self.bytes > size {
            let mut fault = self.fault_here(
                Problem::Oversized,
                format!(
                    "The file goes on behind byte {size}, where a segment ends ({} bytes were read).",
                    self.bytes
                ),
            );
            fault.offset = size;
            fault.lsn = self.name.end();
            Some(fault)
        } else if self.all_zero {
            let sentence = format!("All {size} bytes of the file are zero.");
            Some(Fault {
                problem: Problem::Zeroed,
                offset: 0,
                lsn: self.name.start(),
                sentence,
            })
        } else {
            None
        };
        let fault = match self.stage {
            Stage::Sound => None,
            Stage::Undecided { finding, .. } => Some(finding.fault),
            Stage::Faulty(fault) => Some(fault),
        };
        // That the file is another cluster's explains its size; damage inside does not.
        let foreign = fault
            .as_ref()
            .is_some_and(|fault| fault.problem.status() == Status::Foreign);
        if let Some(fault) = if foreign { fault } else { size_fault.or(fault) } {
            return Err(fault);
        }
        // The page that could have decided is in the next segment.
        if let Some(doubt) = self.stream.doubt {
            return Err(doubt.page);
        }
        let switched = self.stream.state == State::Switched;
        Ok(SegmentSummary {
            records: self.tally.records,
            commit_count: self.tally.commits,
            first_commit_at: self.tally.first_commit_at,
            last_commit_at: self.tally.last_commit_at,
            latest_xact_at: self.tally.latest_xact_at,
            last_record: self.tally.last_start,
            xids: self.tally.xids,
            restore_points: self.tally.restore_points,
            ledger_heads: self.tally.ledger_heads,
            end_of_data: self.tally.last_end.filter(|_| switched).unwrap_or(self.name.end()),
            switched,
            unchecked_head: self.stream.unseen,
            handover: self.stream.handover(),
        })
    }

    fn here(&self) -> Lsn {
        self.name.start().plus(self.bytes)
    }

    fn fault_here(&self, problem: Problem, sentence: String) -> Fault {
        Fault {
            problem,
            offset: self.bytes,
            lsn: self.here(),
            sentence,
        }
    }
}

/// Stands where a finding was taken out.
fn nothing() -> Fault {
    Fault {
        problem: Problem::BadPageHeader,
        offset: 0,
        lsn: Lsn::INVALID,
        sentence: String::new(),
    }
}
