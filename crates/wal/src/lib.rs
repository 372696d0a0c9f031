//! PostgreSQL WAL as it lies on disk: names, pages, records, and what a segment holds.
//!
//! Reads the write-ahead log of PostgreSQL 15 to 18, on 64-bit machines, in the byte order of the machine that it runs on.
//! Nothing here needs a server, and nothing that a file holds can make it panic, loop, or allocate more than a few kilobytes.
//!
//! A chain of segments is verified one by one, each with what the one before handed over:
//!
//! ```no_run
//! use std::fs::File;
//! use wal::{Major, SegmentName, SegmentReader, SegmentSize, SegmentVerifier, WalFormat};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let format = WalFormat::new(Major::V18, SegmentSize::new(16 << 20)?, 7_528_731_009_426_112_233);
//! let mut reader = SegmentReader::new();
//! let mut handover = None;
//! for name in ["000000010000000000000003", "000000010000000000000004"] {
//!     let segment = SegmentName::parse(name, format.segment_size)?;
//!     let verifier = SegmentVerifier::new(&format, segment, None, handover.take());
//!     let outcome = reader.verify(File::open(name)?, verifier, &mut |_bytes| {});
//!     match outcome.result {
//!         Ok(summary) => {
//!             println!("{name}: {} records, {} commits", summary.records, summary.commit_count);
//!             handover = Some(summary.handover);
//!         }
//!         Err(fault) => println!("{name}: {} ({})", fault, fault.problem),
//!     }
//! }
//! # Ok(())
//! # }
//! ```
#![forbid(unsafe_code)]

mod backup_history;
mod bytes;
mod commits;
mod finding;
mod format;
mod handover;
mod history;
mod ledger_head;
mod lsn;
mod page;
mod page_check;
mod problem;
mod reading;
mod record;
mod record_faults;
mod segment;
mod stream;
mod timelines;
mod timestamp;
mod verifier;
mod xid;

pub use backup_history::{BackupHistory, BackupHistoryError, BackupLabel};
pub use commits::{Commit, CommitScanner, ScanError, ScanProgress, ends_with_shutdown, scan_commits};
pub use format::{BlockSizeError, Major, WalFormat};
pub use handover::{Handover, HandoverError};
pub use history::{HistoryEntry, HistoryError, TimelineHistory};
pub use ledger_head::LedgerHead;
pub use lsn::{Lsn, LsnError, Timeline};
pub use problem::{Fault, Problem, Status};
pub use reading::{SegmentReader, verify_reader};
pub use segment::{SegmentName, SegmentNameError, SegmentSize, SegmentSizeError, WalFileName};
pub use timestamp::PgTimestamp;
pub use verifier::{Hashing, RestorePoint, SegmentOutcome, SegmentSummary, SegmentVerifier, SoundHead};
pub use xid::XidRange;
