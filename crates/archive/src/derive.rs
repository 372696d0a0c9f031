//! The archive source read off the server's own settings: what an `archive_command` stores where.
//!
//! Only commands whose effect is plain are followed: a copy of `%p` to a local directory under the name `%f`, compressed or not,
//! and the archivers whose layouts are known. Everything else is answered by a sentence that says why, and which setting to make;
//! a wrong guess would prove the wrong archive.

mod arguments;
mod compressors;
mod environment;
mod line;
mod pgbackrest;
mod walg;

use std::fmt;
use std::path::{Component, Path, PathBuf};

use self::line::{Made, Target};
use crate::printable::printable;
use crate::secrets::{masked, program_of};
use crate::shell::{SEGMENT_NAME, SEGMENT_PATH};
use crate::source::{Source, tidy};

/// The values of the server's settings of the same names; an unset one is empty.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ServerSettings<'a> {
    /// `restore_command`.
    pub restore_command: &'a str,
    /// `archive_command`; the server shows `(disabled)` where `archive_mode` is off.
    pub archive_command: &'a str,
    /// `archive_library`.
    pub archive_library: &'a str,
    /// `basic_archive.archive_directory`.
    pub basic_archive_directory: &'a str,
}

/// A source found, and what it was read from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Derived {
    /// Where archived WAL is.
    pub source: Source,
    /// One English clause that says which setting led there.
    pub because: String,
}

/// Why no source could be read off the server's settings. Each sentence ends with what to do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DeriveError {
    /// `archive_mode` is off: the server shows its command as `(disabled)`.
    #[error(
        "WAL archiving is off; set archive_mode = on with an archive_command or archive_library, and restart the server"
    )]
    Off,
    /// Archiving is on, yet nothing says how.
    #[error(
        "neither archive_command nor archive_library is set, so the server keeps all WAL and archives none; set one of them"
    )]
    NotSet,
    /// `archive_library` is one whose store is not known.
    #[error(
        "archive_library \"{library}\" does not say where it stores WAL; set pg_backstop.archive_source, such as dir:/mnt/archive"
    )]
    UnknownLibrary {
        /// The library's name.
        library: String,
    },
    /// `basic_archive` without its directory: it archives nothing.
    #[error(
        "archive_library is basic_archive, but basic_archive.archive_directory is empty, so nothing is archived; set it"
    )]
    NoBasicDirectory,
    /// The command is not one that can be followed.
    #[error("archive_command{} cannot be followed: {why}; {remedy}", named(.program.as_deref()))]
    NotFollowed {
        /// The program that it begins with: what follows may hold a password.
        program: Option<String>,
        /// A clause that says what stands in the way.
        why: String,
        /// What to do.
        remedy: Remedy,
    },
}

fn named(program: Option<&str>) -> String {
    program.map_or_else(String::new, |program| format!(" (\"{program}\" …)"))
}

/// How to say by hand what could not be found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Remedy {
    /// The archive may be a place on disk that can be named.
    NameIt,
    /// The archive is nothing that can be read from here but by its own program.
    FetchIt,
}

impl fmt::Display for Remedy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NameIt => "set pg_backstop.archive_source, such as dir:/mnt/archive",
            Self::FetchIt => {
                "set restore_command to what a recovery would use, and set pg_backstop.archive_source = restore_command"
            }
        })
    }
}

/// What stands in the way of following a command.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Refusal {
    why: String,
    remedy: Remedy,
}

impl Refusal {
    /// The archive is where only its own program can read it.
    fn fetch(why: impl Into<String>) -> Self {
        Self {
            why: why.into(),
            remedy: Remedy::FetchIt,
        }
    }
}

impl From<String> for Refusal {
    fn from(why: String) -> Self {
        Self {
            why,
            remedy: Remedy::NameIt,
        }
    }
}

impl From<&str> for Refusal {
    fn from(why: &str) -> Self {
        Self::from(why.to_owned())
    }
}

/// Finds where archived WAL is to be read. Relative paths are the server's: they start at its data directory.
///
/// # Errors
/// When the settings do not say; see [`DeriveError`].
pub fn derive(settings: &ServerSettings<'_>, data_directory: &Path) -> Result<Derived, DeriveError> {
    if !settings.restore_command.trim().is_empty() {
        return Ok(Derived {
            source: Source::RestoreCommand(settings.restore_command.to_owned()),
            because: "restore_command is set: WAL is read as recovery would read it".to_owned(),
        });
    }
    // The library wins where both are set: 15 says so, later majors refuse the pair.
    if !settings.archive_library.is_empty() {
        return from_library(settings, data_directory);
    }
    match settings.archive_command.trim() {
        "" => return Err(DeriveError::NotSet),
        "(disabled)" => return Err(DeriveError::Off),
        _ => {}
    }
    from_command(settings.archive_command, data_directory).map_err(|refusal| DeriveError::NotFollowed {
        program: program_of(settings.archive_command),
        why: masked(&printable(&shown(&refusal.why))),
        remedy: refusal.remedy,
    })
}

fn from_library(settings: &ServerSettings<'_>, data_directory: &Path) -> Result<Derived, DeriveError> {
    let name = Path::new(settings.archive_library)
        .file_stem()
        .and_then(|n| n.to_str())
        .unwrap_or(settings.archive_library);
    if name != "basic_archive" {
        return Err(DeriveError::UnknownLibrary {
            library: settings.archive_library.to_owned(),
        });
    }
    if settings.basic_archive_directory.is_empty() {
        return Err(DeriveError::NoBasicDirectory);
    }
    Ok(Derived {
        source: Source::Directory(absolute(Path::new(settings.basic_archive_directory), data_directory)),
        because: "basic_archive.archive_directory names it".to_owned(),
    })
}

fn from_command(command: &str, data_directory: &Path) -> Result<Derived, Refusal> {
    let copy = match line::follow(command, data_directory)? {
        Made::Archived { source, because } => return Ok(Derived { source, because }),
        Made::Copy(copy) => copy,
    };
    let directory = match line::target(&copy)? {
        Target::Under(directory) => absolute(Path::new(&directory), data_directory),
        // `cp %p /mnt/archive`: right for a directory, and a file that every segment overwrites otherwise.
        Target::DirectoryOrFile(path) => {
            let path = absolute(Path::new(&path), data_directory);
            if !path.is_dir() {
                return Err(Refusal::from(format!(
                    "it stores every segment as {}, which is no directory that can be seen from here",
                    path.display()
                )));
            }
            path
        }
    };
    if directory.file_name().is_some_and(|name| name == "incoming") {
        return barman(&directory);
    }
    Ok(Derived {
        source: Source::Directory(directory),
        because: format!("archive_command stores segments there with {}", shown(&copy.program)),
    })
}

/// Barman takes segments out of its `incoming` directory and stores them in `wals` beside it.
fn barman(incoming: &Path) -> Result<Derived, Refusal> {
    let wals = incoming.with_file_name("wals");
    if !wals.is_dir() {
        return Err(Refusal::from(format!(
            "{} looks like the directory from which Barman takes segments to its own archive, but there is no directory wals \
             beside it",
            incoming.display()
        )));
    }
    Ok(Derived {
        source: Source::Barman(wals),
        because: format!(
            "archive_command stores segments in {}, from where Barman takes them there",
            incoming.display()
        ),
    })
}

/// A text with the placeholders as they were typed.
fn shown(text: &str) -> String {
    text.replace(SEGMENT_NAME, "%f").replace(SEGMENT_PATH, "%p")
}

fn absolute(path: &Path, data_directory: &Path) -> PathBuf {
    // The server runs in its data directory, so `../archive` is beside it. The step up is taken here, for a name that reads well,
    // where no link can lie in between: the data directory's own path is the server's and real.
    let joined = data_directory.join(path);
    let mut out = PathBuf::new();
    let mut own = data_directory.components().count();
    for component in tidy(&joined).components() {
        if component == Component::ParentDir && own > 0 && out.components().count() <= own && out.pop() {
            own = out.components().count();
        } else {
            out.push(component);
        }
    }
    out
}

/// For the fuzzer.
#[cfg(fuzzing)]
pub(crate) fn fuzz_pgbackrest(content: &str) {
    let _ = pgbackrest::sections(&[content.to_owned()]);
}

#[cfg(test)]
mod tests;
