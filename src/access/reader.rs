//! The process that reads the archive, as it is from inside: asked by [`Access`](super::Access), and the only one that waits for
//! the archive's disk. It must not call PostgreSQL.

use crate::catalog::archive::Finding;
use crate::restore_command;
use crate::server::Server;
use crate::verification::{Opened, Subject, Text, TextFinding};
use archive::chain::{Held, Mark};
use archive::{Listing, ReadError, Source, Store, contained};
use serde::{Deserialize, Serialize};
use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;
use std::time::{Duration, Instant};
use wal::{
    Commit, Handover, Hashing, Lsn, PgTimestamp, SegmentName, SegmentReader, SegmentVerifier, Timeline,
    TimelineHistory, WalFileName,
};

/// What it is asked.
#[derive(Serialize, Deserialize)]
pub(super) enum Question {
    /// What the archive holds, seen from where the server is.
    Refresh {
        timeline: Timeline,
        flush: Lsn,
        history: TimelineHistory,
        /// The listing that the asker has.
        known: u64,
    },
    /// How it has these files.
    LookUp(Vec<String>),
    /// What is in a segment.
    Segment {
        name: SegmentName,
        place: Place,
        /// A [`Handover`].
        before: Option<Vec<u8>>,
        sound_sha256: Option<String>,
        bytes_per_second: Option<u64>,
    },
    /// What is in a history or backup history file.
    Text {
        kind: WalFileName,
        name: String,
        place: Place,
    },
    /// Commits in a segment of this history.
    Commits {
        history: TimelineHistory,
        name: SegmentName,
        place: Place,
        before: Option<Vec<u8>>,
        wanted: CommitsWanted,
    },
}

/// Where a file lies.
#[derive(Serialize, Deserialize)]
pub(super) enum Place {
    /// In the archive.
    Archive,
    /// At this path, where `restore_command` has put it.
    Fetched(Vec<u8>),
}

/// Which commits are told.
#[derive(Clone, Copy, Serialize, Deserialize)]
pub enum CommitsWanted {
    /// Those of a transaction, without its epoch.
    Of(u32),
    /// The last one up to a moment, behind the first one after `limit` if that comes before it.
    UpTo {
        /// The moment.
        time: PgTimestamp,
        /// A later one.
        limit: PgTimestamp,
    },
}

/// What it answers, or a sentence that says why the archive as a whole cannot be read.
pub(super) type Answer = Result<Reply, String>;

#[derive(Serialize, Deserialize)]
pub(super) enum Reply {
    Refreshed {
        version: u64,
        /// Where the asker does not have it.
        listing: Option<Listing>,
    },
    LookedUp(Vec<Held>),
    Segment(Box<Finding>),
    Text(Box<TextFinding>),
    Commits(Option<Vec<Commit>>),
    NotThere(String),
    /// What `restore_command` left is not to be read; of other files that says nothing.
    NotFetched(String),
}

/// What came of opening a file.
enum Opening {
    File(Opened),
    NotThere(String),
    Unreadable(String),
    NotFetched(String),
}

/// What it knows.
pub(super) struct ArchiveReader {
    source: Source,
    server: Server,
    history: TimelineHistory,
    store: Option<Store>,
    version: u64,
    reader: SegmentReader,
    pace: Pace,
}

impl ArchiveReader {
    pub fn new(source: &Source, server: &Server) -> Self {
        Self {
            source: source.clone(),
            server: server.clone(),
            history: TimelineHistory::root(server.timeline),
            store: None,
            version: 0,
            reader: SegmentReader::new(),
            pace: Pace::new(None),
        }
    }

    pub fn answer(&mut self, question: Question, working: &mut dyn FnMut()) -> Answer {
        match question {
            Question::Refresh {
                timeline,
                flush,
                history,
                known,
            } => {
                (self.server.timeline, self.server.flush, self.history) = (timeline, flush, history);
                self.refresh(known).map_err(|error| error.to_string())
            }
            Question::LookUp(names) => {
                let mut held = Vec::with_capacity(names.len());
                for name in names {
                    held.push(self.look_up(&name)?);
                    working();
                }
                Ok(Reply::LookedUp(held))
            }
            Question::Segment {
                name,
                place,
                before,
                sound_sha256,
                bytes_per_second,
            } => {
                self.pace.limit(bytes_per_second);
                let before = before.and_then(|bytes| Handover::from_bytes(&bytes).ok());
                self.segment(name, place, before, sound_sha256, working)
            }
            Question::Text { kind, name, place } => self.text(kind, &name, place),
            Question::Commits {
                history,
                name,
                place,
                before,
                wanted,
            } => {
                self.history = history;
                let before = before.and_then(|bytes| Handover::from_bytes(&bytes).ok());
                self.commits(name, place, before, wanted, working)
            }
        }
    }

    fn refresh(&mut self, known: u64) -> Result<Reply, ReadError> {
        if matches!(self.source, Source::RestoreCommand(_)) {
            return Ok(Reply::Refreshed {
                version: 0,
                listing: None,
            });
        }
        let (history, flush) = (self.history.clone(), self.server.flush);
        let store = self.store()?;
        if store.refresh(&history, flush)? {
            self.version += 1;
        }
        let news = self.store.as_ref().filter(|_| known != self.version);
        Ok(Reply::Refreshed {
            version: self.version,
            listing: news.map(|store| store.listing().clone()),
        })
    }

    /// The archive, opened where this process has not asked it anything yet.
    fn store(&mut self) -> Result<&mut Store, ReadError> {
        let store = match self.store.take() {
            Some(store) => store,
            None => Store::open(&self.source, &self.server.format)?,
        };
        Ok(self.store.insert(store))
    }

    fn look_up(&mut self, name: &str) -> Result<Held, String> {
        let store = self.store().map_err(|error| error.to_string())?;
        match store.stat(name) {
            Ok(Some(file)) => Ok(Held::File(Mark::of(&file))),
            Ok(None) => Ok(Held::Absent),
            // Something is there; reading it will say what is the matter.
            Err(error) => of_one_file(store, error).map(|_| Held::File(Mark::UNKNOWN)),
        }
    }

    fn open(&mut self, name: &str, place: Place) -> Result<Opening, String> {
        match place {
            Place::Fetched(path) => {
                let path = PathBuf::from(OsString::from_vec(path));
                Ok(match restore_command::open(&path) {
                    Ok(Some((file, bytes))) => Opening::File(Opened {
                        content: Box::new(file),
                        bytes,
                        changed_at: None,
                        path: format!("restore_command: {name}"),
                    }),
                    Ok(None) => Opening::NotThere(restore_command::left_nothing(name)),
                    Err(what) => Opening::NotFetched(format!(
                        "restore_command cannot fetch {name}: what it left at %p {what}"
                    )),
                })
            }
            Place::Archive => {
                let store = self.store().map_err(|error| error.to_string())?;
                match store.read(name) {
                    Ok((content, file)) => Ok(Opening::File(Opened {
                        content: Box::new(content),
                        bytes: file.bytes,
                        changed_at: Some(file.changed_at),
                        path: store.path_of(&file).display().to_string(),
                    })),
                    Err(error @ ReadError::Absent { .. }) => Ok(Opening::NotThere(format!("{error}."))),
                    Err(error) => of_one_file(store, error).map(|error| Opening::Unreadable(format!("{error}."))),
                }
            }
        }
    }

    fn segment(
        &mut self,
        name: SegmentName,
        place: Place,
        before: Option<Handover>,
        sound_sha256: Option<String>,
        working: &mut dyn FnMut(),
    ) -> Answer {
        let opening = self.open(&name.to_string(), place)?;
        let history = self.history.as_of(name.timeline);
        let subject = Subject {
            server: &self.server,
            history: history.as_ref(),
            name,
            before,
            sound_sha256,
        };
        let pace = &mut self.pace;
        Ok(match opening {
            Opening::File(opened) => {
                Reply::Segment(Box::new(subject.look_at(opened, &mut self.reader, &mut |bytes| {
                    working();
                    pace.keep(bytes, working);
                })))
            }
            Opening::Unreadable(sentence) => Reply::Segment(Box::new(subject.unreadable(&sentence))),
            Opening::NotThere(sentence) => Reply::NotThere(sentence),
            Opening::NotFetched(sentence) => Reply::NotFetched(sentence),
        })
    }

    fn text(&mut self, kind: WalFileName, name: &str, place: Place) -> Answer {
        let opening = self.open(name, place)?;
        let text = Text {
            server: &self.server,
            history: &self.history,
            kind,
            name,
        };
        Ok(match opening {
            Opening::File(opened) => Reply::Text(Box::new(text.look_at(opened))),
            Opening::Unreadable(sentence) => Reply::Text(Box::new(text.unreadable(&sentence))),
            Opening::NotThere(sentence) => Reply::NotThere(sentence),
            Opening::NotFetched(sentence) => Reply::NotFetched(sentence),
        })
    }

    fn commits(
        &mut self,
        name: SegmentName,
        place: Place,
        before: Option<Handover>,
        wanted: CommitsWanted,
        working: &mut dyn FnMut(),
    ) -> Answer {
        let mut opened = match self.open(&name.to_string(), place)? {
            Opening::File(opened) => opened,
            Opening::Unreadable(_) | Opening::NotThere(_) | Opening::NotFetched(_) => return Ok(Reply::Commits(None)),
        };
        let history = self.history.as_of(name.timeline);
        let verifier =
            SegmentVerifier::new(&self.server.format, name, history.as_ref(), before).with_hashing(Hashing::None);
        let mut reader = std::mem::replace(&mut self.reader, SegmentReader::new());
        let mut found = FoundCommits::default();
        let read = contained(|_| {
            let outcome = reader.verify_with(
                &mut opened.content,
                verifier,
                &mut |commit| found.add(commit, wanted),
                &mut |_| working(),
            );
            outcome.result.is_ok()
        });
        Ok(Reply::Commits(matches!(read, Ok(true)).then(|| found.into_commits())))
    }
}

/// Commits, as far as they are wanted.
#[derive(Default)]
struct FoundCommits {
    of_transaction: Vec<Commit>,
    first_after: Option<Commit>,
    last_before: Option<Commit>,
}

impl FoundCommits {
    /// A transaction commits once; more are of other epochs.
    const MOST: usize = 16;

    fn add(&mut self, commit: &Commit, wanted: CommitsWanted) {
        match wanted {
            CommitsWanted::Of(xid) => {
                if commit.xid == Some(xid) && self.of_transaction.len() < Self::MOST {
                    self.of_transaction.push(*commit);
                }
            }
            CommitsWanted::UpTo { time, limit } => match commit.at {
                Some(at) if at <= time => self.last_before = Some(*commit),
                Some(at) if at > limit && self.first_after.is_none() => self.first_after = Some(*commit),
                _ => {}
            },
        }
    }

    fn into_commits(self) -> Vec<Commit> {
        let mut commits = self.of_transaction;
        let earlier = |commit: &Commit| self.last_before.is_some_and(|last| commit.lsn < last.lsn);
        commits.extend(self.first_after.filter(earlier));
        commits.extend(self.last_before);
        commits
    }
}

/// The error, if it is one of a single file; one of the archive as a whole comes back as `Err`.
fn of_one_file(store: &Store, error: ReadError) -> Result<ReadError, String> {
    if error.is_of_archive() {
        return Err(error.to_string());
    }
    // Where not even names can be read, no file is to be blamed.
    store.check().map(|()| error).map_err(|error| error.to_string())
}

/// Keeps reading below a limit.
struct Pace {
    bytes_per_second: Option<u64>,
    began: Instant,
    last: Instant,
    read: u64,
}

impl Pace {
    /// Waits so long at once that there is a sign of life in time.
    const LONGEST_WAIT: Duration = Duration::from_millis(100);
    /// Who has not read for so long has saved up nothing.
    const REST: Duration = Duration::from_secs(1);

    fn new(bytes_per_second: Option<u64>) -> Self {
        let now = Instant::now();
        Self {
            bytes_per_second,
            began: now,
            last: now,
            read: 0,
        }
    }

    fn limit(&mut self, bytes_per_second: Option<u64>) {
        if self.bytes_per_second != bytes_per_second || self.last.elapsed() >= Self::REST {
            *self = Self::new(bytes_per_second);
        }
    }

    /// Counts bytes that were read, and waits until they are within the limit.
    fn keep(&mut self, bytes: usize, working: &mut dyn FnMut()) {
        let Some(limit) = self.bytes_per_second else { return };
        self.read = self.read.saturating_add(bytes as u64);
        let due = Duration::from_secs_f64(self.read as f64 / limit.max(1) as f64);
        while let Some(wait) = due.checked_sub(self.began.elapsed()).filter(|wait| !wait.is_zero()) {
            std::thread::sleep(wait.min(Self::LONGEST_WAIT));
            working();
        }
        self.last = Instant::now();
    }
}
