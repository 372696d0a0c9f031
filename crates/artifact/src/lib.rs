//! Backups on disk: what they are, what they weigh, and which WAL they carry.
//!
//! Everything here reads names and sizes only, follows no link out of the path it was given, and names the path in every error.
#![forbid(unsafe_code)]

pub mod base_backup;
pub mod kind;
pub mod measure;
pub mod wal_files;

pub use base_backup::{BackedUpTablespace, BaseBackup, base_backup};
pub use kind::{Kind, recognise};
pub use measure::{ArtifactError, Measured, measure};
pub use wal_files::{WalFile, WalFiles, wal_files_in};
