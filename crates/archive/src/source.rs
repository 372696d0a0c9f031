//! The place that archived WAL is read from, as the setting `pg_backstop.archive_source` names it.

use std::fmt;
use std::path::{Path, PathBuf};

/// Where archived WAL is read, one variant a layout. What lies on disk is read by [`Store`](crate::Store).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// A directory that holds the segments under their own names, compressed or not: what a copying `archive_command`,
    /// `basic_archive` and `pg_receivewal` leave.
    Directory(PathBuf),
    /// One stanza in the archive of a pgBackRest repository, `<repository>/archive/<stanza>`.
    PgBackRest(PathBuf),
    /// The `wals` directory of one server of Barman.
    Barman(PathBuf),
    /// A local storage of WAL-G (`WALG_FILE_PREFIX`), or the `wal_005` directory in it.
    WalG(PathBuf),
    /// Whatever this command fetches, with the placeholders of the setting `restore_command` still in it.
    RestoreCommand(String),
}

/// What `pg_backstop.archive_source` asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Setting {
    /// Find the source from the server's own settings, see [`derive`](crate::derive::derive).
    Auto,
    /// Read through the server's `restore_command`, as recovery does.
    RestoreCommand,
    /// Read here.
    Fixed(Source),
}

/// Why a value of `pg_backstop.archive_source` is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SourceError {
    /// Nothing was named.
    #[error("archive source is empty; name one, such as dir:/mnt/server/archivedir, or auto")]
    Empty,
    /// The path after the prefix does not start at the root.
    #[error(
        "archive source \"{setting}\" has a path that is not absolute; write the whole path, such as {kind}:/mnt/server/archivedir"
    )]
    RelativePath {
        /// The value as it was given.
        setting: String,
        /// The kind in front of the colon.
        kind: &'static str,
    },
    /// The prefix names no layout that can be read.
    #[error(
        "archive source \"{setting}\" is not of a kind that is known; it is auto, restore_command, dir:/path, \
         pgbackrest:/repository/archive/stanza, barman:/path/wals or walg:/path"
    )]
    UnknownKind {
        /// The value as it was given.
        setting: String,
    },
}

/// A layout's name in front of the colon, and what makes a source of the path behind it.
type Kind = (&'static str, fn(PathBuf) -> Source);

const KINDS: [Kind; 4] = [
    ("dir", Source::Directory),
    ("pgbackrest", Source::PgBackRest),
    ("barman", Source::Barman),
    ("walg", Source::WalG),
];

impl Setting {
    /// Reads a value of `pg_backstop.archive_source`. White space around it does not count.
    ///
    /// # Errors
    /// When it names no source; see [`SourceError`].
    pub fn parse(setting: &str) -> Result<Self, SourceError> {
        match setting.trim() {
            "auto" => Ok(Self::Auto),
            "restore_command" => Ok(Self::RestoreCommand),
            _ => Source::parse(setting).map(Self::Fixed),
        }
    }
}

/// As it would be written.
impl fmt::Display for Setting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto => f.write_str("auto"),
            Self::RestoreCommand => f.write_str("restore_command"),
            Self::Fixed(source) => source.fmt(f),
        }
    }
}

impl Source {
    /// Reads a value that names a place on disk: a kind, a colon, and an absolute path. White space around it does not count.
    ///
    /// # Errors
    /// When it does not; see [`SourceError`].
    pub fn parse(setting: &str) -> Result<Self, SourceError> {
        let setting = setting.trim();
        if setting.is_empty() {
            return Err(SourceError::Empty);
        }
        let named = setting.split_once(':').and_then(|(name, path)| {
            let kind = KINDS.iter().find(|(kind, _)| *kind == name)?;
            Some((kind, Path::new(path)))
        });
        let Some(((kind, source), path)) = named else {
            return Err(SourceError::UnknownKind {
                setting: setting.to_owned(),
            });
        };
        if !path.is_absolute() {
            return Err(SourceError::RelativePath {
                setting: setting.to_owned(),
                kind,
            });
        }
        Ok(source(tidy(path)))
    }

    /// The place on disk; none for a command.
    pub fn root(&self) -> Option<&Path> {
        match self {
            Self::Directory(path) | Self::PgBackRest(path) | Self::Barman(path) | Self::WalG(path) => Some(path),
            Self::RestoreCommand(_) => None,
        }
    }
}

/// As the setting would be written.
impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Directory(path) => write!(f, "dir:{}", path.display()),
            Self::PgBackRest(path) => write!(f, "pgbackrest:{}", path.display()),
            Self::Barman(path) => write!(f, "barman:{}", path.display()),
            Self::WalG(path) => write!(f, "walg:{}", path.display()),
            Self::RestoreCommand(_) => f.write_str("restore_command"),
        }
    }
}

/// The path without `.` and doubled or trailing slashes, so that one place has one name. `..` stays: behind a link it means
/// something that only the file system knows.
pub(crate) fn tidy(path: &Path) -> PathBuf {
    path.components().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_layout_is_named_by_its_kind_and_its_whole_path() {
        for (setting, source) in [
            (
                "dir:/mnt/my archive/",
                Source::Directory(PathBuf::from("/mnt/my archive")),
            ),
            (" dir:/a//b/./c ", Source::Directory(PathBuf::from("/a/b/c"))),
            ("dir:/a:b", Source::Directory(PathBuf::from("/a:b"))),
            (
                "pgbackrest:/repo/archive/main",
                Source::PgBackRest(PathBuf::from("/repo/archive/main")),
            ),
            (
                "barman:/var/lib/barman/main/wals/",
                Source::Barman(PathBuf::from("/var/lib/barman/main/wals")),
            ),
            ("walg:/backup", Source::WalG(PathBuf::from("/backup"))),
        ] {
            assert_eq!(Source::parse(setting), Ok(source.clone()));
            assert_eq!(Setting::parse(setting), Ok(Setting::Fixed(source)));
        }
    }

    #[test]
    fn a_setting_prints_as_it_is_written() {
        for setting in [
            "auto",
            "restore_command",
            "dir:/mnt/my archive",
            "pgbackrest:/r/archive/s",
            "barman:/b/wals",
            "walg:/w",
        ] {
            assert_eq!(Setting::parse(setting).unwrap().to_string(), setting);
        }
        let command = Source::RestoreCommand("cp /a/%f %p".to_owned());
        assert_eq!(command.to_string(), "restore_command");
        assert_eq!(command.root(), None);
    }

    #[test]
    fn a_relative_path_is_refused_with_the_way_to_write_it() {
        for (setting, way) in [("dir:archive", "dir:/"), ("walg:", "walg:/")] {
            let error = Source::parse(setting).unwrap_err().to_string();
            assert!(error.contains("not absolute") && error.contains(way), "{error}");
        }
    }

    #[test]
    fn an_unknown_kind_is_refused_with_the_kinds_that_there_are() {
        for setting in [
            "/mnt/archive",
            "s3:bucket",
            "dir",
            "DIR:/a",
            "restore_command:x",
            "automatic",
        ] {
            let error = Setting::parse(setting).unwrap_err().to_string();
            assert!(error.contains(setting) && error.contains("pgbackrest:/"), "{error}");
        }
        assert_eq!(Source::parse("  "), Err(SourceError::Empty));
    }
}
