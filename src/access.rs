//! How the archive is reached: as files on disk, or only through `restore_command`.

use crate::error::{Error, Result};
use crate::foreign_text;
use crate::restore_command::{self, Fetched};
use crate::server::{self, Server};
use crate::settings;
use archive::chain::{Held, Mark};
use archive::derive::ServerSettings;
use archive::{Derived, ReadError, Setting, Source, Store, derive};
use std::collections::BTreeSet;
use std::io::Read;
use wal::{Lsn, PgTimestamp, SegmentName, SegmentSize, TimelineHistory, WalFileName};

/// Where archived WAL is read, and a clause that says which setting led there.
///
/// # Errors
/// A sentence that says what to set, where the settings of the server do not tell.
pub fn choose_source(server: &Server) -> Result<Derived> {
    let setting = settings::archive_source();
    let restore_command = server::setting(c"restore_command").unwrap_or_default();
    match Setting::parse(&setting).map_err(|error| Error::Archive(error.to_string()))? {
        Setting::Fixed(source) => Ok(Derived {
            source: foreign_text::place(source),
            because: "pg_backstop.archive_source says so".to_owned(),
        }),
        Setting::RestoreCommand if restore_command.is_empty() => Err(Error::Archive(
            "pg_backstop.archive_source is restore_command, but restore_command is not set; set it to the command that a \
             recovery of this cluster would use"
                .to_owned(),
        )),
        Setting::RestoreCommand => Ok(Derived {
            source: Source::RestoreCommand(restore_command),
            because: "pg_backstop.archive_source says so".to_owned(),
        }),
        Setting::Auto => derive(
            &ServerSettings {
                restore_command: &restore_command,
                archive_command: &server::setting(c"archive_command").unwrap_or_default(),
                archive_library: &server::setting(c"archive_library").unwrap_or_default(),
                basic_archive_directory: &server::setting(c"basic_archive.archive_directory").unwrap_or_default(),
            },
            server.data_directory(),
        )
        .map(|derived| Derived {
            source: foreign_text::place(derived.source),
            ..derived
        })
        .map_err(|error| Error::Archive(error.to_string())),
    }
}

/// Whether nobody but the server's own archiver is known to fill the archive: then it grows no more while archive_mode is off.
pub fn is_filled_by_archiver() -> bool {
    let is_derived = matches!(Setting::parse(&settings::archive_source()), Ok(Setting::Auto));
    is_derived && server::setting(c"restore_command").unwrap_or_default().is_empty()
}

/// An archive that was opened.
pub enum Access {
    /// Its files are on a disk of this machine.
    Store(Box<Store>),
    /// Only this command knows.
    Command {
        /// The value of `restore_command`.
        command: String,
        /// Backup history files that pg_wal tells of: nobody can be asked for their names.
        backups: BTreeSet<String>,
    },
}

/// A file of the archive, opened for reading.
pub struct Opened {
    /// Its content, not compressed.
    pub content: Box<dyn Read>,
    /// Its size there.
    pub bytes: u64,
    /// Its ctime there; `None` where the archive shows no files.
    pub changed_at: Option<PgTimestamp>,
    /// Where it came from, for the column `stored_path`.
    pub path: String,
}

/// What came of opening a file.
pub enum Opening {
    /// Here it is.
    File(Opened),
    /// It is not in the archive. One sentence says how that was found.
    NotThere(String),
    /// It is there, and cannot be read. One sentence says why.
    Unreadable(String),
}

impl Access {
    /// Opens the archive.
    ///
    /// # Errors
    /// Where it cannot be read.
    pub fn open(source: &Source, server: &Server) -> Result<Self> {
        match source {
            Source::RestoreCommand(command) => Ok(Self::Command {
                command: command.clone(),
                backups: BTreeSet::new(),
            }),
            _ => Store::open(source, &server.format)
                .map(|store| Self::Store(Box::new(store)))
                .map_err(unreachable),
        }
    }

    /// Learns what has come or gone; false if nothing has, since this last succeeded.
    ///
    /// # Errors
    /// Where the archive cannot be listed: then nothing may be concluded.
    pub fn refresh(&mut self, history: &TimelineHistory, flush: Lsn, local: &BTreeSet<String>) -> Result<bool> {
        match self {
            Self::Store(store) => store.refresh(history, flush).map_err(unreachable),
            Self::Command { backups, .. } => {
                backups.extend(local.iter().filter(|name| name.ends_with(".backup")).cloned());
                Ok(false)
            }
        }
    }

    /// The files on disk, where the archive is that.
    pub fn store(&self) -> Option<&Store> {
        match self {
            Self::Store(store) => Some(store),
            Self::Command { .. } => None,
        }
    }

    /// Whether a segment is there, if that can be said.
    pub fn holds(&self, segment: &SegmentName) -> Option<bool> {
        self.store().map(|store| store.holds(segment))
    }

    /// Segments of the server's own history that are known to be there, ascending.
    pub fn segments(&self) -> impl Iterator<Item = SegmentName> + '_ {
        self.store().into_iter().flat_map(Store::segments)
    }

    /// History and backup history files that are there, or that the archive can be asked for.
    pub fn texts(&self, history: &TimelineHistory, size: SegmentSize) -> Vec<(WalFileName, String)> {
        match self {
            Self::Store(store) => store
                .others()
                .filter(|(kind, _)| !matches!(kind, WalFileName::Partial(_)))
                .map(|(kind, name)| (kind, name.to_owned()))
                .collect(),
            Self::Command { backups, .. } => {
                let histories = history
                    .entries()
                    .iter()
                    .map(|entry| entry.timeline)
                    .chain([history.timeline()])
                    .filter(|timeline| timeline.0 > 1)
                    .map(|timeline| (WalFileName::History(timeline), format!("{:08X}.history", timeline.0)));
                let backups = backups
                    .iter()
                    .filter_map(|name| Some((WalFileName::classify(name, size)?, name.clone())));
                histories.chain(backups).collect()
            }
        }
    }

    /// How the archive has a file now.
    ///
    /// # Errors
    /// Where the archive cannot be read.
    pub fn look_up(&mut self, name: &str) -> Result<Held> {
        match self {
            Self::Store(store) => match store.stat(name) {
                Ok(Some(file)) => Ok(Held::File(Mark::of(&file))),
                Ok(None) => Ok(Held::Absent),
                Err(error) => match self.whole(error) {
                    // Something is there; reading it will say what is the matter.
                    Ok(_) => Ok(Held::File(Mark::UNKNOWN)),
                    Err(error) => Err(unreachable(error)),
                },
            },
            Self::Command { .. } => Ok(Held::Unlisted),
        }
    }

    /// The error, if it is one of a single file: it gives back an error of the archive as a whole as `Err`.
    fn whole(&self, error: ReadError) -> std::result::Result<ReadError, ReadError> {
        match self.store() {
            _ if error.is_of_archive() => Err(error),
            // Where not even names can be read, no file is to be blamed.
            Some(store) => store.check().map(|()| error),
            None => Ok(error),
        }
    }

    /// Opens a file. `between` is called while a command runs.
    ///
    /// # Errors
    /// Where the archive as a whole cannot be read now.
    pub fn read(&mut self, server: &Server, name: &str, between: &mut dyn FnMut()) -> Result<Opening> {
        match self {
            Self::Store(store) => match store.read(name) {
                Ok((content, file)) => Ok(Opening::File(Opened {
                    content: Box::new(content),
                    bytes: file.bytes,
                    changed_at: Some(file.changed_at),
                    path: store.path_of(&file).display().to_string(),
                })),
                Err(error @ ReadError::Absent { .. }) => Ok(Opening::NotThere(format!("{error}."))),
                Err(error) => self
                    .whole(error)
                    .map(|error| Opening::Unreadable(format!("{error}.")))
                    .map_err(unreachable),
            },
            Self::Command { command, .. } => Ok(match restore_command::fetch(server, command, name, between)? {
                Fetched::File(file) => Opening::File(Opened {
                    bytes: file.bytes,
                    changed_at: None,
                    path: format!("restore_command: {name}"),
                    content: Box::new(file.file),
                }),
                Fetched::NotThere(sentence) => Opening::NotThere(sentence),
            }),
        }
    }
}

/// Why an archive cannot be read, if it cannot. One that only a command reaches is not asked.
pub fn trouble(source: &Source, server: &Server) -> Option<String> {
    match source {
        Source::RestoreCommand(_) => None,
        _ => Store::open(source, &server.format).err().map(|error| error.to_string()),
    }
}

fn unreachable(error: ReadError) -> Error {
    Error::Archive(error.to_string())
}
