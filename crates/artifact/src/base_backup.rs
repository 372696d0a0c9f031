//! A base backup's parts on disk, plain or tar: where its label, its manifest and its WAL lie.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use crate::kind::{Kind, TAR_SUFFIXES, recognise};
use crate::measure::{self, ArtifactError};

/// How pg_basebackup wrote it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum Format {
    /// Files and directories as in a data directory (`-Fp`).
    Plain,
    /// A tar of the data directory and one for each tablespace (`-Ft`).
    Tar,
}

/// A base backup that was found.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct BaseBackup {
    /// The directory that holds its parts; no link.
    #[serde(with = "crate::path_bytes")]
    pub directory: PathBuf,
    /// Its format.
    pub format: Format,
}

/// One tar of a base backup.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tar {
    /// Where it is.
    pub path: PathBuf,
    /// What follows `.tar` in its name, without the dot: how it is compressed; empty for not at all.
    pub suffix: &'static str,
}

/// Where a base backup has WAL of its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WalPlace {
    /// The segments are files of this directory.
    Directory(PathBuf),
    /// They are members of a tar, under their plain names.
    Tar(Tar),
    /// They can only be members of the main tar, below `pg_wal/` (`-X fetch`).
    MainTar(Tar),
}

impl BaseBackup {
    /// The base backup at `path`, which names its directory or its main tar; none if something else is there.
    ///
    /// # Errors
    /// When nothing is there, or the system does not show it.
    pub fn open(path: &Path) -> Result<Option<Self>, ArtifactError> {
        let format = match recognise(path)? {
            Kind::PlainBaseBackup => Format::Plain,
            Kind::TarBaseBackup => Format::Tar,
            _ => return Ok(None),
        };
        let (root, metadata) = measure::root(path)?;
        let directory = match root.parent() {
            Some(parent) if metadata.is_file() => parent.to_owned(),
            _ => root,
        };
        Ok(Some(Self { directory, format }))
    }

    /// Where its manifest is or should be: beside the tars of a tar backup.
    pub fn manifest(&self) -> PathBuf {
        self.directory.join("backup_manifest")
    }

    /// The tar called `stem` (`base`, `pg_wal`, a tablespace's OID), compressed or not.
    pub fn tar(&self, stem: &str) -> Option<Tar> {
        TAR_SUFFIXES.iter().find_map(|suffix| {
            let path = self.directory.join(format!("{stem}.tar{suffix}"));
            fs::symlink_metadata(&path).is_ok_and(|m| m.is_file()).then(|| Tar {
                path,
                suffix: suffix.trim_start_matches('.'),
            })
        })
    }

    /// The tars of its tablespaces, by OID, ascending.
    ///
    /// # Errors
    /// When the directory cannot be read.
    pub fn tablespace_tars(&self) -> Result<Vec<(u32, Tar)>, ArtifactError> {
        let failed = |source: io::Error| ArtifactError::io(&self.directory, source);
        let mut tars = Vec::new();
        for entry in fs::read_dir(&self.directory).map_err(failed)? {
            let name = entry.map_err(failed)?.file_name();
            let oid = name
                .to_str()
                .and_then(|name| name.split_once(".tar"))
                .and_then(|(stem, _)| stem.parse::<u32>().ok());
            if let Some(oid) = oid
                && let Some(tar) = self.tar(&oid.to_string())
            {
                tars.push((oid, tar));
            }
        }
        tars.sort_unstable_by_key(|(oid, _)| *oid);
        tars.dedup_by_key(|(oid, _)| *oid);
        Ok(tars)
    }

    /// Where its own WAL lies, if it may have any.
    pub fn wal(&self) -> Option<WalPlace> {
        match self.format {
            Format::Plain => {
                let pg_wal = self.directory.join("pg_wal");
                // What a link leads to is not the backup's.
                fs::symlink_metadata(&pg_wal)
                    .is_ok_and(|m| m.is_dir())
                    .then_some(WalPlace::Directory(pg_wal))
            }
            Format::Tar => self
                .tar("pg_wal")
                .map(WalPlace::Tar)
                .or_else(|| self.tar("base").map(WalPlace::MainTar)),
        }
    }
}

/// Opens a regular file; neither through a link nor waiting for a pipe.
///
/// # Errors
/// What the system says, by the file's name.
pub fn open_file(path: &Path) -> Result<File, ArtifactError> {
    let failed = |source: io::Error| ArtifactError::io(path, source);
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NONBLOCK | libc::O_NOFOLLOW)
        .open(path)
        .map_err(failed)?;
    if file.metadata().map_err(failed)?.is_file() {
        Ok(file)
    } else {
        Err(failed(io::Error::other("it is no regular file")))
    }
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
    fn a_plain_backup_has_its_wal_in_pg_wal() {
        let place = directory(&["PG_VERSION", "backup_label"]);
        let backup = BaseBackup::open(place.path()).unwrap().unwrap();
        assert_eq!((backup.format, backup.wal()), (Format::Plain, None));
        let elsewhere = directory(&[]);
        let pg_wal = backup.directory.join("pg_wal");
        std::os::unix::fs::symlink(elsewhere.path(), &pg_wal).unwrap();
        assert_eq!(backup.wal(), None, "a link leads out of the backup");
        fs::remove_file(&pg_wal).unwrap();
        fs::create_dir(&pg_wal).unwrap();
        assert_eq!(backup.wal(), Some(WalPlace::Directory(pg_wal)));
    }

    #[test]
    fn a_tar_backup_is_found_by_its_directory_or_its_main_tar() {
        let place = directory(&[
            "base.tar.gz",
            "16385.tar.gz",
            "16384.tar",
            "pg_wal.tar",
            "backup_manifest",
            "x.tar",
        ]);
        for path in [place.path().to_owned(), place.path().join("base.tar.gz")] {
            let backup = BaseBackup::open(&path).unwrap().unwrap();
            assert_eq!(backup.format, Format::Tar);
            assert!(backup.manifest().ends_with("backup_manifest"));
            assert_eq!(backup.tar("base").unwrap().suffix, "gz");
            let oids: Vec<u32> = backup.tablespace_tars().unwrap().iter().map(|(oid, _)| *oid).collect();
            assert_eq!(oids, [16384, 16385]);
            assert!(matches!(backup.wal(), Some(WalPlace::Tar(tar)) if tar.suffix.is_empty()));
        }
        fs::remove_file(place.path().join("pg_wal.tar")).unwrap();
        let backup = BaseBackup::open(place.path()).unwrap().unwrap();
        assert!(matches!(backup.wal(), Some(WalPlace::MainTar(_))));
    }

    #[test]
    fn what_is_no_base_backup_is_none() {
        assert_eq!(BaseBackup::open(directory(&["toc.dat"]).path()).unwrap(), None);
        assert!(BaseBackup::open(Path::new("/nowhere/base")).is_err());
        assert!(open_file(Path::new("/dev/null")).is_err());
    }
}
