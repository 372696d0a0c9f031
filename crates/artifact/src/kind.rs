//! What a backup on disk is, told by the files that only its kind has.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use crate::measure::{self, ArtifactError};

/// What lies at a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Kind {
    /// A plain base backup: a data directory with `backup_label` or `backup_manifest` beside `PG_VERSION`.
    PlainBaseBackup,
    /// A base backup in tar format: `base.tar`, perhaps compressed.
    TarBaseBackup,
    /// A dump that `pg_restore` reads from one file (magic `PGDMP`, src/bin/pg_dump/pg_backup_archiver.h).
    CustomDump,
    /// A dump that `pg_restore` reads from a directory (`toc.dat`).
    DirectoryDump,
    /// A dump that `pg_restore` reads from a tar file (its first member is `toc.dat`).
    TarDump,
    /// SQL as `pg_dump` and `pg_dumpall` write it.
    PlainDump,
    /// A directory that holds a data directory's `PG_VERSION` and nothing that makes it a backup.
    DataDirectory,
    /// None of these.
    Unknown,
}

impl Kind {
    /// A short name for messages.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::PlainBaseBackup => "plain base backup",
            Self::TarBaseBackup => "tar base backup",
            Self::CustomDump => "custom-format dump",
            Self::DirectoryDump => "directory-format dump",
            Self::TarDump => "tar-format dump",
            Self::PlainDump => "plain SQL dump",
            Self::DataDirectory => "data directory without a backup label",
            Self::Unknown => "unknown",
        }
    }

    /// Whether recovery can start from it: a physical copy of the cluster.
    pub const fn is_physical(self) -> bool {
        matches!(self, Self::PlainBaseBackup | Self::TarBaseBackup)
    }
}

impl std::fmt::Display for Kind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The first bytes of every archive that `pg_restore` reads from a file of its own format.
const CUSTOM_MAGIC: &[u8] = b"PGDMP";
/// Where a POSIX tar header says that it is one.
const TAR_MAGIC_AT: usize = 257;
/// How a compressed or plain tar of the main data directory may end.
pub(crate) const TAR_SUFFIXES: &[&str] = &["", ".gz", ".lz4", ".zst", ".bz2", ".xz"];

/// Tells what lies at `path`. Names and at most the first 512 bytes of a file are read.
pub fn recognise(path: &Path) -> Result<Kind, ArtifactError> {
    let (root, metadata) = measure::root(path)?;
    if metadata.is_file() {
        return file_kind(&root).map_err(|e| ArtifactError::io(path, e));
    }
    // The permission to look into the directory comes first, or everything below would seem absent.
    fs::read_dir(&root).map_err(|e| ArtifactError::io(path, e))?;
    let has = |name: &str| fs::symlink_metadata(root.join(name)).is_ok_and(|m| m.is_file());
    if has("PG_VERSION") {
        return Ok(if has("backup_label") || has("backup_manifest") {
            Kind::PlainBaseBackup
        } else {
            Kind::DataDirectory
        });
    }
    if TAR_SUFFIXES.iter().any(|suffix| has(&format!("base.tar{suffix}"))) {
        return Ok(Kind::TarBaseBackup);
    }
    Ok(if has("toc.dat") {
        Kind::DirectoryDump
    } else {
        Kind::Unknown
    })
}

fn file_kind(path: &Path) -> io::Result<Kind> {
    let mut head = [0_u8; 512];
    let read = read_head(path, &mut head)?;
    let head = head.get(..read).unwrap_or_default();
    if head.starts_with(CUSTOM_MAGIC) {
        return Ok(Kind::CustomDump);
    }
    if head
        .get(TAR_MAGIC_AT..)
        .is_some_and(|magic| magic.starts_with(b"ustar"))
    {
        return Ok(if head.starts_with(b"toc.dat\0") {
            Kind::TarDump
        } else if path.file_name().is_some_and(|name| name == "base.tar") {
            Kind::TarBaseBackup
        } else {
            Kind::Unknown
        });
    }
    let text = String::from_utf8_lossy(head);
    if text.contains("-- PostgreSQL database dump") || text.contains("-- PostgreSQL database cluster dump") {
        return Ok(Kind::PlainDump);
    }
    let is_base_tar = path
        .file_name()
        .and_then(|name| name.to_str())
        .and_then(|name| name.strip_prefix("base.tar"))
        .is_some_and(|suffix| !suffix.is_empty() && TAR_SUFFIXES.contains(&suffix));
    Ok(if is_base_tar {
        Kind::TarBaseBackup
    } else {
        Kind::Unknown
    })
}

fn read_head(path: &Path, head: &mut [u8]) -> io::Result<usize> {
    // Not to hang on a FIFO that took the file's place meanwhile.
    let mut file: File = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NONBLOCK | libc::O_NOFOLLOW)
        .open(path)?;
    let mut filled = 0;
    while let Some(rest) = head.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        match file.read(rest) {
            Ok(0) => break,
            Ok(n) => filled += n,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(filled)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn directory(files: &[&str]) -> tempfile::TempDir {
        let directory = tempfile::tempdir().unwrap();
        for file in files {
            fs::write(directory.path().join(file), "").unwrap();
        }
        directory
    }

    #[test]
    fn directories_are_told_by_the_files_that_only_their_kind_has() {
        for (files, kind) in [
            (&["PG_VERSION", "backup_label"][..], Kind::PlainBaseBackup),
            (&["PG_VERSION", "backup_manifest"], Kind::PlainBaseBackup),
            (&["PG_VERSION", "postgresql.conf"], Kind::DataDirectory),
            (&["base.tar", "pg_wal.tar"], Kind::TarBaseBackup),
            (&["base.tar.zst", "backup_manifest"], Kind::TarBaseBackup),
            (&["toc.dat", "3000.dat.gz"], Kind::DirectoryDump),
            (&["notes.txt"], Kind::Unknown),
            (&[], Kind::Unknown),
        ] {
            let directory = directory(files);
            assert_eq!(recognise(directory.path()).unwrap(), kind, "{files:?}");
        }
    }

    #[test]
    fn files_are_told_by_their_first_bytes() {
        let directory = tempfile::tempdir().unwrap();
        let mut tar = vec![0_u8; 1024];
        tar[..7].copy_from_slice(b"toc.dat");
        tar[257..262].copy_from_slice(b"ustar");
        for (name, bytes, kind) in [
            ("a.dump", b"PGDMP\x01\x0e\x00".to_vec(), Kind::CustomDump),
            ("a.tar", tar, Kind::TarDump),
            (
                "a.sql",
                b"--\n-- PostgreSQL database dump\n--\n".to_vec(),
                Kind::PlainDump,
            ),
            (
                "all.sql",
                b"--\n-- PostgreSQL database cluster dump\n--\n".to_vec(),
                Kind::PlainDump,
            ),
            ("base.tar.gz", b"\x1f\x8b".to_vec(), Kind::TarBaseBackup),
            ("empty", Vec::new(), Kind::Unknown),
            ("short", b"PGD".to_vec(), Kind::Unknown),
        ] {
            let path = directory.path().join(name);
            fs::write(&path, bytes).unwrap();
            assert_eq!(recognise(&path).unwrap(), kind, "{name}");
        }
    }

    #[test]
    fn an_absent_path_is_an_error_that_names_it() {
        let error = recognise(Path::new("/nowhere/base")).unwrap_err();
        assert!(error.to_string().contains("/nowhere/base"), "{error}");
    }
}
