//! What a base backup on disk consists of: the data directory, the tablespaces and the WAL, wherever each of them lies.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::kind::{Kind, recognise};
use crate::measure::ArtifactError;

/// A tablespace in a base backup.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BackedUpTablespace {
    /// Its OID, which names it.
    pub oid: u32,
    /// The directory that holds its copy, or its tar file.
    pub path: PathBuf,
}

/// The parts of a base backup.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Parts {
    /// A data directory.
    Plain {
        /// Its tablespaces: where the links in pg_tblspc lead, and what lies there itself.
        tablespaces: Vec<BackedUpTablespace>,
        /// Where pg_wal leads, if it is a link.
        wal: Option<PathBuf>,
    },
    /// Tar files.
    Tar {
        /// The name of the data directory's file.
        base: String,
        /// The name of pg_wal's, if there is one.
        wal: Option<String>,
        /// The tablespaces' files.
        tablespaces: Vec<BackedUpTablespace>,
    },
    /// No base backup, but this.
    Other(Kind),
}

/// Looks at the names in a base backup, and at where links in it lead. Nothing behind a link is read.
///
/// # Errors
/// Where it cannot be read, or is not there.
pub fn parts(path: &Path) -> Result<Parts, ArtifactError> {
    match recognise(path)? {
        Kind::PlainBaseBackup | Kind::DataDirectory => Ok(Parts::Plain {
            tablespaces: linked(path)?,
            wal: target(&path.join("pg_wal"))?,
        }),
        Kind::TarBaseBackup => tar(path),
        other => Ok(Parts::Other(other)),
    }
}

fn linked(path: &Path) -> Result<Vec<BackedUpTablespace>, ArtifactError> {
    let mut found = Vec::new();
    for name in names(&path.join("pg_tblspc"))? {
        let Ok(oid) = name.parse() else {
            continue;
        };
        let entry = path.join("pg_tblspc").join(&name);
        let path = target(&entry)?.unwrap_or(entry);
        found.push(BackedUpTablespace { oid, path });
    }
    found.sort_by_key(|tablespace| tablespace.oid);
    Ok(found)
}

/// Where a link leads; none where there is no link.
fn target(link: &Path) -> Result<Option<PathBuf>, ArtifactError> {
    match fs::read_link(link) {
        Ok(to) => Ok(Some(link.parent().unwrap_or(link).join(to))),
        // It is no link, or not there.
        Err(error) if matches!(error.kind(), io::ErrorKind::InvalidInput | io::ErrorKind::NotFound) => Ok(None),
        Err(error) => Err(ArtifactError::io(link, error)),
    }
}

fn tar(path: &Path) -> Result<Parts, ArtifactError> {
    let (mut base, mut wal, mut tablespaces) = (None, None, Vec::new());
    for name in names(path)? {
        let Some((stem, rest)) = name.split_once(".tar") else {
            continue;
        };
        if !(rest.is_empty() || rest.starts_with('.')) {
            continue;
        }
        match stem {
            "base" => base = Some(name),
            "pg_wal" => wal = Some(name),
            stem => {
                if let Ok(oid) = stem.parse() {
                    tablespaces.push(BackedUpTablespace {
                        oid,
                        path: path.join(&name),
                    });
                }
            }
        }
    }
    tablespaces.sort_by_key(|tablespace| tablespace.oid);
    Ok(match base {
        Some(base) => Parts::Tar { base, wal, tablespaces },
        // It was there a moment ago, or the path is the file itself.
        None => Parts::Other(Kind::TarBaseBackup),
    })
}

/// The names in a directory that are UTF-8, in their order; none where it is not there.
fn names(directory: &Path) -> Result<Vec<String>, ArtifactError> {
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            return Ok(Vec::new());
        }
        Err(error) => return Err(ArtifactError::io(directory, error)),
    };
    let mut names = Vec::new();
    for entry in entries {
        let entry = entry.map_err(|error| ArtifactError::io(directory, error))?;
        if let Ok(name) = entry.file_name().into_string() {
            names.push(name);
        }
    }
    names.sort();
    Ok(names)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn tablespace(oid: u32, path: impl Into<PathBuf>) -> BackedUpTablespace {
        BackedUpTablespace { oid, path: path.into() }
    }

    #[test]
    fn a_plain_backup_is_told_with_where_its_links_lead() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path();
        fs::write(path.join("PG_VERSION"), "15\n").unwrap();
        fs::write(path.join("backup_label"), "").unwrap();
        assert_eq!(
            parts(path).unwrap(),
            Parts::Plain {
                tablespaces: Vec::new(),
                wal: None
            }
        );
        fs::create_dir_all(path.join("pg_tblspc/16390")).unwrap();
        symlink("/elsewhere/ts", path.join("pg_tblspc/16385")).unwrap();
        symlink("../wal of it", path.join("pg_wal")).unwrap();
        assert_eq!(
            parts(path).unwrap(),
            Parts::Plain {
                tablespaces: vec![
                    tablespace(16385, "/elsewhere/ts"),
                    tablespace(16390, path.join("pg_tblspc/16390"))
                ],
                wal: Some(path.join("../wal of it"))
            }
        );
    }

    #[test]
    fn a_tar_backup_is_told_with_its_files() {
        let root = tempfile::tempdir().unwrap();
        for name in [
            "base.tar.gz",
            "pg_wal.tar.gz",
            "16385.tar.gz",
            "backup_manifest",
            "x.tar",
            "16386.tarred",
        ] {
            fs::write(root.path().join(name), "").unwrap();
        }
        assert_eq!(
            parts(root.path()).unwrap(),
            Parts::Tar {
                base: "base.tar.gz".to_owned(),
                wal: Some("pg_wal.tar.gz".to_owned()),
                tablespaces: vec![tablespace(16385, root.path().join("16385.tar.gz"))]
            }
        );
    }

    #[test]
    fn what_is_no_base_backup_is_told_as_what_it_is() {
        let root = tempfile::tempdir().unwrap();
        fs::write(root.path().join("toc.dat"), "").unwrap();
        assert_eq!(parts(root.path()).unwrap(), Parts::Other(Kind::DirectoryDump));
        assert!(parts(Path::new("/nowhere/base")).is_err());
    }
}
