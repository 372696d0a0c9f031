//! What a backup weighs.

use std::collections::HashSet;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// The weight of a backup.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
pub struct Measured {
    /// Sum of the sizes of its files, in bytes; a file with several names below the path counts once, a hole counts as its length.
    pub bytes: u64,
    /// How many regular files it has, by the same count.
    pub files: u64,
}

/// Why a backup on disk could not be looked at.
#[derive(Debug, thiserror::Error)]
pub enum ArtifactError {
    /// Nothing is there.
    #[error("backup \"{}\" does not exist", path.display())]
    Absent {
        /// The path that was given.
        path: PathBuf,
    },
    /// Neither a file nor a directory (a socket, a device, a FIFO).
    #[error("backup \"{}\" is neither a file nor a directory", path.display())]
    NotAFile {
        /// The path that was given.
        path: PathBuf,
    },
    /// The operating system refused to show a path.
    #[error("could not read \"{}\": {source}", path.display())]
    Io {
        /// The file or directory in question: the backup or something below it.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

impl ArtifactError {
    pub(crate) fn io(path: &Path, source: io::Error) -> Self {
        if source.kind() == io::ErrorKind::NotFound {
            Self::Absent { path: path.to_owned() }
        } else {
            Self::Io {
                path: path.to_owned(),
                source,
            }
        }
    }

    pub(crate) fn walk(root: &Path, error: walkdir::Error) -> Self {
        let path = error.path().unwrap_or(root).to_owned();
        let source = error
            .into_io_error()
            .unwrap_or_else(|| io::Error::other("the directory tree has a loop"));
        Self::io(&path, source)
    }
}

/// The backup itself: the path's own last link is followed (`/backup/latest` is a habit), links below it are not.
pub(crate) fn root(path: &Path) -> Result<(PathBuf, fs::Metadata), ArtifactError> {
    let real = fs::canonicalize(path).map_err(|e| ArtifactError::io(path, e))?;
    let metadata = fs::symlink_metadata(&real).map_err(|e| ArtifactError::io(path, e))?;
    if !(metadata.is_file() || metadata.is_dir()) {
        return Err(ArtifactError::NotAFile { path: path.to_owned() });
    }
    Ok((real, metadata))
}

/// Adds up the regular files at and below `path`.
///
/// Links below it are not followed: a plain backup's tablespaces lie behind links in `pg_tblspc` and are not part of the sum unless
/// they were backed up into the same directory. A file that vanishes meanwhile is left out. One that cannot be looked at is an
/// error, since a sum without it would be wrong.
///
/// `between` is called before each entry: a big backup takes its time, and the caller may want to stop.
pub fn measure(path: &Path, between: &mut dyn FnMut()) -> Result<Measured, ArtifactError> {
    let (root, metadata) = root(path)?;
    if metadata.is_file() {
        return Ok(Measured {
            bytes: metadata.len(),
            files: 1,
        });
    }
    let mut measured = Measured::default();
    let mut seen = HashSet::new();
    for entry in walkdir::WalkDir::new(&root).follow_links(false) {
        between();
        let metadata = match entry.and_then(|entry| entry.metadata()) {
            Ok(metadata) => metadata,
            Err(error) if vanished(&error) => continue,
            Err(error) => return Err(ArtifactError::walk(path, error)),
        };
        if !metadata.is_file() {
            continue;
        }
        // Only files with more than one name are worth remembering.
        if metadata.nlink() > 1 && !seen.insert((metadata.dev(), metadata.ino())) {
            continue;
        }
        measured.bytes = measured.bytes.saturating_add(metadata.len());
        measured.files += 1;
    }
    Ok(measured)
}

/// Whether an entry below the root went away between being listed and being looked at.
pub(crate) fn vanished(error: &walkdir::Error) -> bool {
    error.depth() > 0 && error.io_error().is_some_and(|e| e.kind() == io::ErrorKind::NotFound)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn a_single_file_is_a_backup_too() {
        let directory = tempfile::tempdir().unwrap();
        let dump = directory.path().join("db.dump");
        fs::write(&dump, vec![0; 1234]).unwrap();
        assert_eq!(measure(&dump, &mut || {}).unwrap(), Measured { bytes: 1234, files: 1 });
    }

    #[test]
    fn a_tree_is_summed_without_following_links_out_of_it() {
        let outside = tempfile::tempdir().unwrap();
        fs::write(outside.path().join("huge"), vec![0; 5000]).unwrap();
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path();
        fs::create_dir_all(root.join("base/1")).unwrap();
        fs::write(root.join("base/1/1259"), vec![0; 8192]).unwrap();
        fs::write(root.join("PG_VERSION"), "15\n").unwrap();
        fs::hard_link(root.join("PG_VERSION"), root.join("base/1/PG_VERSION")).unwrap();
        symlink(outside.path(), root.join("pg_tblspc")).unwrap();
        symlink(outside.path().join("huge"), root.join("huge")).unwrap();
        assert_eq!(measure(root, &mut || {}).unwrap(), Measured { bytes: 8195, files: 2 });
    }

    #[test]
    fn the_backup_may_itself_be_named_by_a_link() {
        let directory = tempfile::tempdir().unwrap();
        let real = directory.path().join("2024-05-01");
        fs::create_dir(&real).unwrap();
        fs::write(real.join("a"), "abc").unwrap();
        symlink(&real, directory.path().join("latest")).unwrap();
        assert_eq!(
            measure(&directory.path().join("latest"), &mut || {}).unwrap(),
            Measured { bytes: 3, files: 1 }
        );
    }

    #[test]
    fn the_caller_is_asked_between_all_entries() {
        let directory = tempfile::tempdir().unwrap();
        for name in 0..10 {
            fs::write(directory.path().join(name.to_string()), "").unwrap();
        }
        let mut asked = 0;
        measure(directory.path(), &mut || asked += 1).unwrap();
        assert_eq!(asked, 11);
    }

    #[test]
    fn an_absent_backup_and_a_device_are_told_apart_by_name() {
        let error = measure(Path::new("/nowhere/at/all"), &mut || {}).unwrap_err();
        assert!(matches!(error, ArtifactError::Absent { .. }));
        assert!(error.to_string().contains("/nowhere/at/all"), "{error}");
        let error = measure(Path::new("/dev/null"), &mut || {}).unwrap_err();
        assert!(matches!(error, ArtifactError::NotAFile { .. }), "{error}");
    }

    #[test]
    fn a_file_name_that_is_no_text_is_counted_all_the_same() {
        use std::ffi::OsStr;
        use std::os::unix::ffi::OsStrExt;
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join(OsStr::from_bytes(b"a\xff b")), "12345").unwrap();
        assert_eq!(
            measure(directory.path(), &mut || {}).unwrap(),
            Measured { bytes: 5, files: 1 }
        );
    }
}
