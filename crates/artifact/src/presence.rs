//! Whether the files that a manifest lists are there, with their size.
//!
//! Links are not followed, except those that are `pg_tblspc/<oid>`: a tablespace of a plain base backup lies behind one, wherever
//! pg_basebackup's `--tablespace-mapping` put it. Nothing is read there; sizes are looked at.

use std::fs;
use std::io;
use std::path::{Component, Path, PathBuf};

use crate::manifest::ManifestFile;

/// What is wrong with a file that should be there.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Absence {
    /// It is not there.
    #[error("\"{}\" is missing", .0.display())]
    Missing(PathBuf),
    /// It has another size.
    #[error("\"{}\" has {found} bytes, where the manifest says {expected}", path.display())]
    WrongSize {
        /// It.
        path: PathBuf,
        /// What it has, bytes.
        found: u64,
        /// What it should have, bytes.
        expected: u64,
    },
    /// A link, a directory or something else is in its place, or a link on the way to it.
    #[error("\"{}\" is no regular file", .0.display())]
    NotAFile(PathBuf),
    /// The system does not let it be looked at.
    #[error("\"{}\" cannot be looked at: {why}", path.display())]
    Unreadable {
        /// It.
        path: PathBuf,
        /// What the system said.
        why: String,
    },
}

/// Looks for one file of a plain base backup after the other.
pub struct Presence {
    root: PathBuf,
    /// The directory that was last found to be one, without links on the way: most files follow others of their directory.
    known: Option<PathBuf>,
}

impl Presence {
    /// Below this directory, which is the backup itself, without links.
    pub fn below(root: PathBuf) -> Self {
        Self { root, known: None }
    }

    /// Whether `file` is not to be compared: pg_basebackup and whoever restores change it (`postgresql.auto.conf`), as
    /// pg_verifybackup has it.
    pub fn may_differ(file: &ManifestFile) -> bool {
        ["postgresql.auto.conf", "recovery.signal", "standby.signal"]
            .iter()
            .any(|name| file.path == Path::new(name))
    }

    /// Looks for one file.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn look_for(&mut self, file: &ManifestFile) -> Result<(), Absence> {
        let path = self.root.join(&file.path);
        let at = || path.clone();
        let parent = file.path.parent().unwrap_or(Path::new(""));
        if self.known.as_deref() != Some(parent) {
            self.walk_to(parent).map_err(|error| absence(at(), &error))?;
            self.known = Some(parent.to_owned());
        }
        let metadata = fs::symlink_metadata(&path).map_err(|error| absence(at(), &error))?;
        if !metadata.is_file() {
            return Err(Absence::NotAFile(path));
        }
        if metadata.len() != file.bytes && !Self::may_differ(file) {
            return Err(Absence::WrongSize {
                path,
                found: metadata.len(),
                expected: file.bytes,
            });
        }
        Ok(())
    }

    /// Sees to it that each directory on the way is one, and no link but a tablespace's.
    fn walk_to(&self, directory: &Path) -> io::Result<()> {
        let mut way = PathBuf::new();
        for component in directory.components() {
            way.push(component);
            let place = self.root.join(&way);
            let metadata = if is_tablespace(&way) {
                fs::metadata(place)?
            } else {
                fs::symlink_metadata(place)?
            };
            if !metadata.is_dir() {
                return Err(io::Error::from(io::ErrorKind::NotADirectory));
            }
        }
        Ok(())
    }
}

/// `pg_tblspc/<oid>`.
fn is_tablespace(path: &Path) -> bool {
    tablespace_of(path).is_some() && path.components().count() == 2
}

/// The tablespace whose file lies at this path below a data directory; none for those of the main one.
pub fn tablespace_of(path: &Path) -> Option<u32> {
    let mut components = path.components();
    match (components.next()?, components.next()?) {
        (Component::Normal(first), Component::Normal(oid)) if first == "pg_tblspc" => oid.to_str()?.parse().ok(),
        _ => None,
    }
}

fn absence(path: PathBuf, error: &io::Error) -> Absence {
    match error.kind() {
        io::ErrorKind::NotFound => Absence::Missing(path),
        io::ErrorKind::NotADirectory => Absence::NotAFile(path),
        _ => Absence::Unreadable {
            path,
            why: error.to_string(),
        },
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn file(path: &str, bytes: u64) -> ManifestFile {
        ManifestFile {
            path: path.into(),
            bytes,
        }
    }

    #[test]
    fn a_file_is_there_with_its_size_or_something_is_wrong() {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path();
        fs::create_dir_all(root.join("base/1")).unwrap();
        fs::write(root.join("base/1/1259"), "12345").unwrap();
        fs::write(root.join("postgresql.auto.conf"), "more than there was").unwrap();
        let mut presence = Presence::below(root.to_owned());
        assert_eq!(presence.look_for(&file("base/1/1259", 5)), Ok(()));
        assert_eq!(presence.look_for(&file("postgresql.auto.conf", 5)), Ok(()));
        let said = presence.look_for(&file("base/1/1259", 6)).unwrap_err().to_string();
        assert!(said.contains("has 5 bytes, where the manifest says 6"), "{said}");
        for absent in ["base/1/1260", "base/2/1259", "global/pg_control"] {
            let said = presence.look_for(&file(absent, 5)).unwrap_err();
            assert!(matches!(said, Absence::Missing(_)), "{absent}: {said}");
        }
        let said = presence.look_for(&file("base/1", 5)).unwrap_err();
        assert!(matches!(said, Absence::NotAFile(_)), "{said}");
    }

    #[test]
    fn only_the_links_of_tablespaces_are_followed() {
        let outside = tempfile::tempdir().unwrap();
        fs::create_dir(outside.path().join("PG_15_1")).unwrap();
        fs::write(outside.path().join("PG_15_1/7"), "1").unwrap();
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path();
        fs::create_dir(root.join("pg_tblspc")).unwrap();
        symlink(outside.path(), root.join("pg_tblspc/16384")).unwrap();
        symlink(outside.path(), root.join("base")).unwrap();
        symlink(outside.path(), root.join("pg_tblspc/other")).unwrap();
        symlink(outside.path().join("PG_15_1/7"), root.join("7")).unwrap();
        let mut presence = Presence::below(root.to_owned());
        assert_eq!(presence.look_for(&file("pg_tblspc/16384/PG_15_1/7", 1)), Ok(()));
        for path in ["base/PG_15_1/7", "pg_tblspc/other/PG_15_1/7", "7"] {
            let said = presence.look_for(&file(path, 1)).unwrap_err();
            assert!(matches!(said, Absence::NotAFile(_)), "{path}: {said}");
        }
    }
}
