//! Backups on disk: what they are, what they weigh, what they say of themselves, and which WAL they carry.
//!
//! Nothing here follows a link out of the path it was given, with one exception that [`presence`] explains, and every error names
//! the path.
#![forbid(unsafe_code)]

pub mod backup_label;
pub mod base_backup;
pub mod kind;
pub mod manifest;
pub mod measure;
pub mod parts;
mod path_bytes;
pub mod presence;
pub mod tar_members;
pub mod wal_files;

pub use backup_label::BackupLabel;
pub use base_backup::{BaseBackup, Format, Tar, WalPlace};
pub use kind::{Kind, recognise};
pub use manifest::{Manifest, ManifestError, ManifestFile, WalRange, read_manifest};
pub use measure::{ArtifactError, Measured, measure};
pub use parts::{BackedUpTablespace, Parts, parts};
pub use presence::{Absence, Presence};
pub use tar_members::{Member, members, members_by_seeking};
pub use wal_files::{WalFile, WalFiles, wal_files_in};
