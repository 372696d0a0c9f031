//! Commits looked up in archived WAL: of one transaction, or the last one up to a moment. Only segments that can hold them are read.

use super::handover_before;
use crate::access::{Access, Opening};
use crate::api::storage;
use crate::assessment::Assessment;
use crate::catalog::plan as facts;
use crate::error::{Error, Result};
use crate::memory;
use crate::server::Server;
use archive::{Source, contained};
use chrono::{DateTime, Utc};
use recovery::plan::{CommitTimes, CommitsUpTo, FoundCommit, Stretch};
use wal::{Commit, Hashing, Lsn, PgTimestamp, SegmentName, SegmentReader, SegmentVerifier};

/// So many segments are read for one transaction at most: long ones commit among the numbers of many others.
const MOST_READ: usize = 64;

/// What a search found.
pub struct Sought {
    /// The commits.
    pub commits: Vec<FoundCommit>,
    /// Segments that were not read.
    pub unread: u64,
}

/// Looks for the commits of a transaction along these windows.
///
/// # Errors
/// Where the archive cannot be read, or the caller may not have it read.
pub fn find(
    xid: u32,
    stretches: &[Stretch],
    server: &Server,
    assessment: &Assessment,
    archive: Option<&Source>,
) -> Result<Sought> {
    if !storage::may_read_server_files() {
        return Err(Error::MayNotRead {
            what: "archived WAL".to_owned(),
            hint: "Where a transaction commits is found by reading WAL. A time, an LSN or a restore point needs no such look.",
        });
    }
    let size = server.format.segment_size;
    let candidates: Vec<SegmentName> = facts::segments_of_transaction(xid)?
        .iter()
        .filter_map(|name| SegmentName::parse(name, size).ok())
        .filter(|segment| stretches.iter().any(|stretch| stretch.holds(segment)))
        .collect();
    let mut sought = Sought {
        commits: Vec::new(),
        unread: candidates.len().saturating_sub(MOST_READ) as u64,
    };
    if candidates.is_empty() {
        return Ok(sought);
    }
    let mut reading = Reading::open(server, assessment, archive)?;
    for segment in candidates.into_iter().take(MOST_READ) {
        let commits = &mut sought.commits;
        let was_read = reading.commits(segment, &mut |commit| {
            if commit.xid == Some(xid) {
                commits.push(FoundCommit {
                    segment,
                    lsn: commit.lsn,
                    at: commit.at.and_then(moment),
                });
            }
        })?;
        if !was_read {
            sought.unread = sought.unread.saturating_add(1);
        }
    }
    Ok(sought)
}

/// What the segment at `start` tells of its commits up to a moment; none where it has none or cannot be read, or not for this caller.
///
/// # Errors
/// Where the archive cannot be read.
pub fn commits_up_to(
    time: DateTime<Utc>,
    start: Lsn,
    stretch: &Stretch,
    server: &Server,
    assessment: &Assessment,
    archive: Option<&Source>,
) -> Result<Option<CommitsUpTo>> {
    if !storage::may_read_server_files() {
        return Ok(None);
    }
    let Some((timeline, ..)) = stretch
        .ranges(start)
        .into_iter()
        .find(|(_, first, end)| (*first..*end).contains(&start))
    else {
        return Ok(None);
    };
    let segment = SegmentName::containing(timeline, start, server.format.segment_size);
    let limit = CommitTimes::limit(time);
    let (mut has_later, mut found) = (false, None);
    let was_read = Reading::open(server, assessment, archive)?.commits(segment, &mut |commit| {
        let Some(at) = commit.at.and_then(moment) else {
            return;
        };
        has_later = has_later || at > limit;
        if at <= time {
            found = Some(CommitsUpTo {
                last: commit.lsn,
                is_behind_later: has_later,
            });
        }
    })?;
    Ok(found.filter(|_| was_read))
}

fn moment(at: PgTimestamp) -> Option<DateTime<Utc>> {
    DateTime::from_timestamp_micros(at.unix_micros())
}

struct Reading<'a> {
    server: &'a Server,
    assessment: &'a Assessment,
    access: Access,
    reader: SegmentReader,
}

impl<'a> Reading<'a> {
    fn open(server: &'a Server, assessment: &'a Assessment, archive: Option<&Source>) -> Result<Self> {
        let archive = archive.ok_or_else(|| {
            Error::Archive("nothing says where archived WAL is read; set pg_backstop.archive_source".to_owned())
        })?;
        if matches!(archive, Source::RestoreCommand(_)) && !storage::may_execute_server_programs() {
            return Err(Error::MayNotRead {
                what: "archived WAL".to_owned(),
                hint: "It is read through restore_command here, which takes pg_execute_server_program too. A time, an LSN or a \
                       restore point needs no such look.",
            });
        }
        Ok(Self {
            server,
            assessment,
            access: Access::open(archive, server)?,
            reader: SegmentReader::new(),
        })
    }

    /// Tells of every commit in a segment; false where it could not be read from end to end.
    fn commits(&mut self, segment: SegmentName, on_commit: &mut dyn FnMut(&Commit)) -> Result<bool> {
        memory::before_reading();
        let between = || {
            memory::check_for_interrupts();
        };
        let opening = self.access.read(self.server, &segment.to_string(), &mut || between())?;
        let Opening::File(opened) = opening else {
            return Ok(false);
        };
        let history = self.assessment.facts.history.as_of(segment.timeline);
        let before = handover_before(segment, self.assessment)?;
        let verifier =
            SegmentVerifier::new(&self.server.format, segment, history.as_ref(), before).with_hashing(Hashing::None);
        let (mut reader, mut content) = (std::mem::take(&mut self.reader), opened.content);
        let read = contained(|callback| {
            let outcome = reader.verify_with(&mut content, verifier, on_commit, &mut |_| callback.run(between));
            (outcome.result.is_ok(), reader)
        });
        Ok(match read {
            Ok((sound, reader)) => {
                self.reader = reader;
                sound
            }
            Err(_panic) => false,
        })
    }
}
