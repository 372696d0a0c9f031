//! The server's own copy of a segment, while pg_wal still has it: what the archived one must be equal to.

use super::{Subject, hexadecimal};
use crate::server::Server;
use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use wal::{SegmentReader, SegmentVerifier};

/// A segment in pg_wal, opened.
pub struct LocalCopy {
    path: PathBuf,
    file: File,
    inode: u64,
}

impl LocalCopy {
    /// Opens it, if it is there.
    pub fn open(server: &Server, name: &str) -> Option<Self> {
        let path = server.wal_path(name);
        let file = File::open(&path).ok()?;
        let inode = file.metadata().ok()?.ino();
        Some(Self { path, file, inode })
    }

    /// Its bytes from the start.
    pub fn file(&self) -> &File {
        &self.file
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether the file read is still this segment: a server that recycles one renames it, and writes another one over it.
    pub fn is_still_there(&self) -> bool {
        fs::metadata(&self.path).is_ok_and(|metadata| metadata.ino() == self.inode)
    }

    /// SHA-256 of its content, if that is sound, and still this segment's after it was read.
    pub fn sound_sha256(&self, subject: &Subject<'_>) -> Option<String> {
        let verifier = SegmentVerifier::new(
            &subject.server.format,
            subject.name,
            subject.history,
            subject.before.clone(),
        );
        let file = File::open(&self.path).ok()?;
        let outcome = SegmentReader::new().verify(file, verifier, &mut |_| {});
        (outcome.result.is_ok() && self.is_still_there()).then(|| hexadecimal(&outcome.sha256))
    }
}
