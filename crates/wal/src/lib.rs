//! PostgreSQL WAL as it lies on disk: names, pages, records, and what a segment holds.
//!
//! Reads the write-ahead log of PostgreSQL 15 to 18, on 64-bit machines, in the byte order of the machine that it runs on.
//! Nothing here needs a server, and nothing that a file holds can make it panic, loop, or allocate more than a few kilobytes.
#![forbid(unsafe_code)]

mod backup_history;
mod bytes;
mod commits;
mod finding;
mod format;
mod handover;
mod history;
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

pub use backup_history::{BackupHistory, BackupHistoryError};
pub use commits::{Commit, CommitScanner, ScanError, ScanProgress, scan_commits};
pub use format::{BlockSizeError, Major, WalFormat};
pub use handover::{Handover, HandoverError};
pub use history::{HistoryEntry, HistoryError, TimelineHistory};
pub use lsn::{Lsn, LsnError, Timeline};
pub use problem::{Fault, Problem, Status};
pub use reading::{SegmentReader, verify_reader};
pub use segment::{SegmentName, SegmentNameError, SegmentSize, SegmentSizeError, WalFileName};
pub use timestamp::PgTimestamp;
pub use verifier::{Hashing, RestorePoint, SegmentOutcome, SegmentSummary, SegmentVerifier};
