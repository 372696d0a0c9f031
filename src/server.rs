//! What this server says of itself, and what lies in its own pg_wal.

use crate::compat;
use crate::error::{Error, Result};
use crate::foreign_text;
use pgrx::pg_sys;
use std::collections::BTreeSet;
use std::ffi::{CStr, CString};
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use wal::{Commit, CommitScanner, Lsn, ScanProgress, SegmentName, SegmentSize, Timeline, TimelineHistory, WalFormat};

/// The server as it is now. Taken anew for each tick: a promotion changes the timeline.
#[derive(Clone, Debug)]
pub struct Server {
    /// The format that all of its WAL has.
    pub format: WalFormat,
    /// The timeline that it writes, or replays on a standby.
    pub timeline: Timeline,
    /// End of the WAL that is safely on its own disk.
    pub flush: Lsn,
    /// Whether it is in recovery.
    pub standby: bool,
    data_directory: PathBuf,
}

impl Server {
    /// Asks the server that this process belongs to.
    ///
    /// # Errors
    /// Where the server has a segment or block size that no supported server has.
    pub fn observe() -> Result<Self> {
        // SAFETY: plain variables and functions of the server without side effects.
        let (standby, segment_size, system_identifier) = unsafe {
            (
                pg_sys::RecoveryInProgress(),
                pg_sys::wal_segment_size,
                pg_sys::GetSystemIdentifier(),
            )
        };
        let segment_size =
            SegmentSize::new(segment_size.unsigned_abs()).map_err(|error| Error::Server(error.to_string()))?;
        let mut timeline: pg_sys::TimeLineID = 0;
        // SAFETY: each is called in the state of the server for which it exists.
        let flush = unsafe {
            if standby {
                pg_sys::GetXLogReplayRecPtr(&mut timeline)
            } else {
                pg_sys::GetFlushRecPtr(&mut timeline)
            }
        };
        let format = WalFormat::new(compat::MAJOR, segment_size, system_identifier)
            .with_block_size(pg_sys::XLOG_BLCKSZ)
            .map_err(|error| Error::Server(error.to_string()))?;
        Ok(Self {
            format,
            timeline: Timeline(timeline),
            flush: Lsn(flush),
            standby,
            data_directory: data_directory(),
        })
    }

    /// The data directory.
    pub fn data_directory(&self) -> &Path {
        &self.data_directory
    }

    /// The cluster's identity, as pg_control_system() shows it.
    pub fn system_identifier(&self) -> i64 {
        self.format.system_identifier.cast_signed()
    }

    /// The timeline, as pg_control_checkpoint() shows it.
    ///
    /// # Errors
    /// Where SQL cannot hold it.
    pub fn timeline_id(&self) -> Result<i32> {
        i32::try_from(self.timeline.0).map_err(|_| Error::UnexpectedAnswer {
            what: "a timeline below 2^31",
        })
    }

    /// The segment of the current timeline that the next byte after the flush position goes to.
    pub fn segment_of_next_byte(&self) -> SegmentName {
        SegmentName::containing(self.timeline, self.flush, self.format.segment_size)
    }

    /// The segment of the current timeline that the last byte before the flush position is in.
    pub fn segment_of_last_byte(&self) -> SegmentName {
        SegmentName::containing(self.timeline, self.flush.less(1), self.format.segment_size)
    }

    /// The segments that hold the WAL from `start` up to `end`, in order, each under the timeline that recovery along this
    /// server's own history would read it from.
    ///
    /// # Errors
    /// Those of [`Server::history`].
    pub fn segments_of(&self, start: Lsn, end: Lsn) -> Result<Vec<SegmentName>> {
        let size = self.format.segment_size;
        let history = self.history()?;
        let (first, last) = (start.0 / size.bytes(), end.less(1).0 / size.bytes());
        Ok((first..=last)
            .map(|number| SegmentName {
                timeline: history.timeline_of_segment(number, size),
                number,
                size,
            })
            .collect())
    }

    /// Where the server keeps the file `name` of its WAL.
    pub fn wal_path(&self, name: &str) -> PathBuf {
        self.data_directory.join("pg_wal").join(name)
    }

    /// The way the current timeline came from its ancestors.
    ///
    /// # Errors
    /// Where the server's own history file cannot be read.
    pub fn history(&self) -> Result<TimelineHistory> {
        if self.timeline.0 <= 1 {
            return Ok(TimelineHistory::root(self.timeline));
        }
        let path = self.wal_path(&format!("{:08X}.history", self.timeline.0));
        let content = std::fs::read(&path).map_err(|error| Error::server_file(&path, error))?;
        TimelineHistory::parse(self.timeline, &content).map_err(|error| Error::server_file(&path, error))
    }

    /// Names of files that the archiver has yet to send.
    ///
    /// # Errors
    /// Where the server's own directory cannot be read.
    pub fn ready_files(&self) -> Result<BTreeSet<String>> {
        self.names_in("archive_status", |name| name.strip_suffix(".ready"))
    }

    /// Names of the files in pg_wal itself: segments, those for future use too, history and backup history files.
    ///
    /// # Errors
    /// Where the server's own directory cannot be read.
    pub fn local_files(&self) -> Result<BTreeSet<String>> {
        self.names_in("", |name| Some(name))
    }

    fn names_in(&self, directory: &str, wanted: impl Fn(&str) -> Option<&str>) -> Result<BTreeSet<String>> {
        let path = self.wal_path(directory);
        let mut names = BTreeSet::new();
        for entry in std::fs::read_dir(&path).map_err(|error| Error::server_file(&path, error))? {
            let entry = entry.map_err(|error| Error::server_file(&path, error))?;
            if let Some(name) = entry.file_name().to_str().and_then(&wanted) {
                names.insert(name.to_owned());
            }
        }
        Ok(names)
    }

    /// Opens the server's own copy of segment `number`.
    ///
    /// The segment in which the current timeline began exists under its name only, with the older timeline's records in front.
    fn open_wal(&self, history: &TimelineHistory, number: u64) -> io::Result<File> {
        let size = self.format.segment_size;
        let timeline = history.timeline_of_segment(number, size);
        File::open(self.wal_path(&SegmentName { timeline, number, size }.to_string()))
    }
}

impl Server {
    /// Whether the WAL up to `at`, the end of a record, is all that its server ever wrote, because it was shut down there.
    ///
    /// # Errors
    /// Where the server's own WAL cannot be read.
    pub fn shut_down_at(&self, at: Lsn) -> Result<bool> {
        let history = self.history()?;
        wal::ends_with_shutdown(&self.format, at, &mut |number| self.open_wal(&history, number))
            .map_err(|error| Error::server_file(&self.wal_path(""), error))
    }
}

/// How far local WAL has been searched for the first commit after `protected`, from one measurement to the next.
pub struct Exposure {
    protected: Lsn,
    clear_to: Lsn,
    scanner: CommitScanner,
}

impl Exposure {
    /// Read this much before interrupts are answered again, bytes.
    const BUDGET: u64 = 16 << 20;

    /// A search from `protected` on.
    pub fn after(server: &Server, protected: Lsn) -> Self {
        Self::resumed(server, protected, protected)
    }

    /// A search from `protected` on, of which everything up to `clear_to`, the end of a record, is known to hold nothing.
    pub fn resumed(server: &Server, protected: Lsn, clear_to: Lsn) -> Self {
        Self {
            protected,
            clear_to,
            scanner: CommitScanner::new(&server.format, clear_to),
        }
    }

    /// The end of the last record up to which nothing was found.
    pub fn clear_to(&self) -> Lsn {
        self.clear_to
    }

    /// The position after which commits count.
    pub fn protected(&self) -> Lsn {
        self.protected
    }

    /// The first commit after the protected position that is on the server's disk: the oldest one to be lost with it.
    /// The extension's own bookkeeping does not count. `between` is called after each piece that was read.
    ///
    /// # Errors
    /// Where the server's own WAL cannot be read.
    pub fn measure(&mut self, server: &Server, between: &mut dyn FnMut()) -> Result<Option<Commit>> {
        let history = server.history()?;
        loop {
            let progress = self
                .scanner
                .advance(server.flush, Self::BUDGET, &mut |number| {
                    server.open_wal(&history, number)
                })
                .map_err(|error| Error::server_file(&server.wal_path(""), error))?;
            match progress {
                ScanProgress::Found(commit) => return Ok(Some(commit)),
                ScanProgress::UpTo { lsn, more } => {
                    self.clear_to = lsn;
                    if !more {
                        return Ok(None);
                    }
                    between();
                }
            }
        }
    }
}

/// The data directory.
pub fn data_directory() -> PathBuf {
    // SAFETY: set once, before any library is loaded and any process of the server starts.
    path_of(unsafe { CStr::from_ptr(pg_sys::DataDir) })
}

/// The value of a setting of the server, if it has it; see [`foreign_text`] for what in it is no UTF-8.
pub fn setting(name: &CStr) -> Option<String> {
    // SAFETY: the name ends in a zero byte; the result is copied before anything can change it.
    let value = unsafe { pg_sys::GetConfigOption(name.as_ptr(), true, false) };
    if value.is_null() {
        return None;
    }
    // SAFETY: not null, and the server's own zero-terminated string.
    Some(foreign_text::decode(unsafe { CStr::from_ptr(value) }.to_bytes()))
}

fn path_of(text: &CStr) -> PathBuf {
    use std::os::unix::ffi::OsStringExt;
    PathBuf::from(std::ffi::OsString::from_vec(CString::from(text).into_bytes()))
}
