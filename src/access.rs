//! How the archive is reached: as files on disk, or only through `restore_command`.
//!
//! Nothing here waits for a disk that may not answer: what touches the archive runs in a process of its own, [`reader`].

use crate::catalog::archive::Finding;
use crate::error::{Error, Result};
use crate::foreign_text;
use crate::process::{self, FunctionProcess, ProgramError};
use crate::restore_command::{self, Fetched};
use crate::server::{self, Server};
use crate::settings;
use crate::verification::TextFinding;
use archive::chain::Held;
use archive::derive::ServerSettings;
use archive::{Derived, Listing, Setting, Source, derive};
use std::collections::BTreeSet;
use std::os::unix::ffi::OsStrExt;
use std::time::Duration;
use wal::{Commit, Handover, SegmentName, SegmentSize, TimelineHistory, WalFileName};

mod reader;

pub use reader::CommitsWanted;
use reader::{Answer, ArchiveReader, Place, Question, Reply};

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

/// How long somebody waits for an archive that does not answer, and what is done meanwhile.
#[derive(Clone, Copy)]
pub struct Waiting {
    /// So long without a sign of life.
    pub patience: Duration,
    /// Called at least every 100 ms with the time since the last one. It may raise an error.
    pub between: fn(Duration),
}

impl Waiting {
    /// Of a session: its user may end it before.
    pub const SESSION: Self = Self {
        patience: process::PATIENCE,
        between: |_| {
            crate::memory::check_for_interrupts();
        },
    };
}

/// An archive that can be asked.
pub struct Access {
    source: Source,
    server: Server,
    waiting: Waiting,
    /// None before the first question, and after one that went wrong.
    reader: Option<FunctionProcess<Question, Answer>>,
    /// What it holds, where it is files on disk.
    listing: Option<Listing>,
    /// Which of the reader's listings that is.
    version: u64,
    /// Backup history files that pg_wal tells of: of a command nobody can ask for their names.
    backups: BTreeSet<String>,
}

/// What came of reading a file.
pub enum ReadOutcome<T> {
    /// It was there.
    Found(T),
    /// It is not in the archive. One sentence says how that was found.
    NotThere(String),
}

impl Access {
    /// Nothing is read yet.
    pub fn new(source: &Source, server: &Server, waiting: Waiting) -> Self {
        Self {
            source: source.clone(),
            server: server.clone(),
            waiting,
            reader: None,
            listing: None,
            version: 0,
            backups: BTreeSet::new(),
        }
    }

    /// Learns what has come or gone, as seen by `server` with its `history`; false if nothing has, since this last succeeded.
    ///
    /// # Errors
    /// Where the archive cannot be listed: then nothing may be concluded.
    pub fn refresh(&mut self, server: &Server, history: &TimelineHistory, local: &BTreeSet<String>) -> Result<bool> {
        self.server = server.clone();
        let command = matches!(self.source, Source::RestoreCommand(_));
        if command {
            self.backups
                .extend(local.iter().filter(|name| name.ends_with(".backup")).cloned());
        }
        let question = Question::Refresh {
            timeline: server.timeline,
            flush: server.flush,
            history: history.clone(),
            // Another reader counts its listings anew.
            known: if self.reader.is_some() { self.version } else { 0 },
        };
        let Reply::Refreshed { version, listing } = self.ask(&question)? else {
            return Err(Error::UnexpectedAnswer { what: "a listing" });
        };
        self.version = version;
        let changed = listing.is_some();
        self.listing = listing.or(self.listing.take());
        Ok(changed)
    }

    /// What it holds, where it is files on disk that have been listed.
    pub fn listing(&self) -> Option<&Listing> {
        self.listing.as_ref()
    }

    /// Whether what it holds can be listed.
    pub fn is_listed(&self) -> bool {
        !matches!(self.source, Source::RestoreCommand(_))
    }

    /// Whether a segment is there, if that can be said.
    pub fn holds(&self, segment: &SegmentName) -> Option<bool> {
        self.listing().map(|listing| listing.holds(segment))
    }

    /// Segments of the server's own history that are known to be there, ascending.
    pub fn segments(&self) -> impl Iterator<Item = SegmentName> + '_ {
        self.listing().into_iter().flat_map(Listing::segments)
    }

    /// History and backup history files that are there, or that the archive can be asked for.
    pub fn texts(&self, history: &TimelineHistory, size: SegmentSize) -> Vec<(WalFileName, String)> {
        if self.is_listed() {
            return self
                .listing()
                .into_iter()
                .flat_map(Listing::others)
                .filter(|(kind, _)| !matches!(kind, WalFileName::Partial(_)))
                .map(|(kind, name)| (kind, name.to_owned()))
                .collect();
        }
        let histories = history
            .entries()
            .iter()
            .map(|entry| entry.timeline)
            .chain([history.timeline()])
            .filter(|timeline| timeline.0 > 1)
            .map(|timeline| (WalFileName::History(timeline), format!("{:08X}.history", timeline.0)));
        let backups = self
            .backups
            .iter()
            .filter_map(|name| Some((WalFileName::classify(name, size)?, name.clone())));
        histories.chain(backups).collect()
    }

    /// How the archive has files now, each in its turn.
    ///
    /// # Errors
    /// Where the archive cannot be read.
    pub fn look_up(&mut self, names: Vec<String>) -> Result<Vec<Held>> {
        if !self.is_listed() {
            return Ok(vec![Held::Unlisted; names.len()]);
        }
        if names.is_empty() {
            return Ok(Vec::new());
        }
        let asked = names.len();
        match self.ask(&Question::LookUp(names))? {
            Reply::LookedUp(held) if held.len() == asked => Ok(held),
            _ => Err(Error::UnexpectedAnswer {
                what: "files looked up",
            }),
        }
    }

    /// Reads and verifies a segment, after one that handed over `before`, where `sound_sha256` was verified under its name first.
    ///
    /// # Errors
    /// Where the archive as a whole cannot be read now.
    pub fn read_segment(
        &mut self,
        name: SegmentName,
        before: Option<&Handover>,
        sound_sha256: Option<String>,
        bytes_per_second: Option<u64>,
    ) -> Result<ReadOutcome<Finding>> {
        let question = |place| Question::Segment {
            name,
            place,
            before: before.map(Handover::to_bytes),
            sound_sha256,
            bytes_per_second,
        };
        match self.read(&name.to_string(), question)? {
            Reply::Segment(finding) => Ok(ReadOutcome::Found(*finding)),
            Reply::NotThere(sentence) => Ok(ReadOutcome::NotThere(sentence)),
            _ => Err(Error::UnexpectedAnswer { what: "a segment" }),
        }
    }

    /// Reads a history or backup history file.
    ///
    /// # Errors
    /// Where the archive as a whole cannot be read now.
    pub fn read_text(&mut self, kind: WalFileName, name: &str) -> Result<ReadOutcome<TextFinding>> {
        let question = |place| Question::Text {
            kind,
            name: name.to_owned(),
            place,
        };
        match self.read(name, question)? {
            Reply::Text(finding) => Ok(ReadOutcome::Found(*finding)),
            Reply::NotThere(sentence) => Ok(ReadOutcome::NotThere(sentence)),
            _ => Err(Error::UnexpectedAnswer { what: "a history file" }),
        }
    }

    /// The commits in a segment that are wanted; none where it cannot be read from end to end.
    ///
    /// # Errors
    /// Where the archive as a whole cannot be read now.
    pub fn commits(
        &mut self,
        history: &TimelineHistory,
        name: SegmentName,
        before: Option<&Handover>,
        wanted: CommitsWanted,
    ) -> Result<Option<Vec<Commit>>> {
        let question = |place| Question::Commits {
            history: history.clone(),
            name,
            place,
            before: before.map(Handover::to_bytes),
            wanted,
        };
        match self.read(&name.to_string(), question)? {
            Reply::Commits(commits) => Ok(commits),
            Reply::NotThere(_) => Ok(None),
            _ => Err(Error::UnexpectedAnswer { what: "commits" }),
        }
    }

    /// Has a file read where it is, which of a command is where that has put it.
    fn read(&mut self, name: &str, question: impl FnOnce(Place) -> Question) -> Result<Reply> {
        let Source::RestoreCommand(command) = &self.source else {
            return self.ask(&question(Place::Archive));
        };
        let between = self.waiting.between;
        let fetched = match restore_command::fetch(&self.server, command, name, &mut || between(Duration::ZERO))? {
            Fetched::File(fetched) => fetched,
            Fetched::NotThere(sentence) => return Ok(Reply::NotThere(sentence)),
        };
        let path = fetched.path().as_os_str().as_bytes().to_vec();
        match self.ask(&question(Place::Fetched(path)))? {
            Reply::NotFetched(sentence) => Err(Error::Fetch(sentence)),
            reply => Ok(reply),
        }
    }

    fn ask(&mut self, question: &Question) -> Result<Reply> {
        let Waiting { patience, mut between } = self.waiting;
        let mut reader = match self.reader.take() {
            Some(reader) => reader,
            None => {
                let mut archive = ArchiveReader::new(&self.source, &self.server);
                self.version = 0;
                FunctionProcess::start(&self.source.to_string(), move |question, working: &mut dyn FnMut()| {
                    archive.answer(question, working)
                })
                .map_err(|error| self.failed(&error))?
            }
        };
        match reader.ask(question, patience, &mut between) {
            Ok(answer) => {
                self.reader = Some(reader);
                answer.map_err(Error::Archive)
            }
            Err(error) => {
                // It may answer yet; any other error is the end of it.
                if let ProgramError::NoAnswer(_) = &error {
                    self.reader = Some(reader);
                }
                Err(self.failed(&error))
            }
        }
    }

    fn failed(&self, error: &ProgramError) -> Error {
        if let ProgramError::OutOfMemory = error {
            return Error::OutOfMemory { bytes: 0 };
        }
        Error::Archive(error.about(&self.source.to_string()))
    }
}
