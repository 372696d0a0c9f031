//! The place that archived WAL is read from, as the setting `pg_backstop.archive_source` names it.

use std::fmt;
use std::path::{Path, PathBuf};

/// Where archived WAL is read.
///
/// One variant a layout. Whoever adds one gives it a listing and a way to open a file in [`listing`](crate::listing), where the
/// compiler names the places; what the chain makes of a listing is the same for all. `non_exhaustive` keeps callers from relying on
/// there being one only.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Source {
    /// A directory that holds the segments under their own names, uncompressed.
    Directory(PathBuf),
}

/// What `pg_backstop.archive_source` asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Setting {
    /// Find the source from the server's own settings, see [`derive`](crate::derive::derive).
    Auto,
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
        "archive source \"{setting}\" has a path that is not absolute; write the whole path, such as dir:/mnt/server/archivedir"
    )]
    RelativePath {
        /// The value as it was given.
        setting: String,
    },
    /// The prefix names no layout that can be read.
    #[error("archive source \"{setting}\" is not of a kind that is known; it is auto or dir:/path")]
    UnknownKind {
        /// The value as it was given.
        setting: String,
    },
}

impl Setting {
    /// Reads a value of `pg_backstop.archive_source`. White space around it does not count.
    pub fn parse(setting: &str) -> Result<Self, SourceError> {
        if setting.trim() == "auto" {
            Ok(Self::Auto)
        } else {
            Source::parse(setting).map(Self::Fixed)
        }
    }
}

impl Source {
    /// Reads a value that names a source: `dir:/path`. White space around it does not count.
    pub fn parse(setting: &str) -> Result<Self, SourceError> {
        let setting = setting.trim();
        if setting.is_empty() {
            return Err(SourceError::Empty);
        }
        let Some(path) = setting.strip_prefix("dir:") else {
            return Err(SourceError::UnknownKind {
                setting: setting.to_owned(),
            });
        };
        let path = Path::new(path);
        if !path.is_absolute() {
            return Err(SourceError::RelativePath {
                setting: setting.to_owned(),
            });
        }
        Ok(Self::Directory(tidy(path)))
    }

    /// The place on disk, for messages and for listing.
    pub fn root(&self) -> &Path {
        match self {
            Self::Directory(path) => path,
        }
    }
}

/// As the setting would be written.
impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Directory(path) => write!(f, "dir:{}", path.display()),
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
    fn a_directory_is_named_by_its_whole_path() {
        assert_eq!(
            Source::parse("dir:/mnt/my archive/"),
            Ok(Source::Directory(PathBuf::from("/mnt/my archive")))
        );
        assert_eq!(
            Source::parse(" dir:/a//b/./c "),
            Ok(Source::Directory(PathBuf::from("/a/b/c")))
        );
    }

    #[test]
    fn a_source_prints_as_it_is_set() {
        let source = Source::Directory(PathBuf::from("/mnt/my archive"));
        assert_eq!(Source::parse(&source.to_string()), Ok(source));
    }

    #[test]
    fn a_relative_path_is_refused_with_the_way_to_write_it() {
        let error = Source::parse("dir:archive").unwrap_err();
        assert!(error.to_string().contains("not absolute"), "{error}");
        assert!(error.to_string().contains("dir:/"), "{error}");
    }

    #[test]
    fn an_unknown_kind_is_refused_by_name() {
        for setting in ["/mnt/archive", "s3:bucket", "dir", "DIR:/a"] {
            let error = Source::parse(setting).unwrap_err().to_string();
            assert!(error.contains(setting), "{error}");
        }
        assert_eq!(Source::parse("  "), Err(SourceError::Empty));
    }

    #[test]
    fn auto_leaves_the_choice_to_the_server_settings() {
        assert_eq!(Setting::parse("auto"), Ok(Setting::Auto));
        assert_eq!(
            Setting::parse("dir:/a"),
            Ok(Setting::Fixed(Source::Directory(PathBuf::from("/a"))))
        );
        assert!(Setting::parse("automatic").is_err());
    }
}
