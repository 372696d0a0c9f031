//! Commits looked up in archived WAL: of one transaction, or the last one up to a moment. Only segments that can hold them are read.

use super::handover_before;
use crate::access::{Access, CommitsWanted, Waiting};
use crate::api::storage;
use crate::assessment::Assessment;
use crate::catalog::plan as facts;
use crate::error::{Error, Result};
use crate::memory;
use crate::server::Server;
use archive::Source;
use chrono::{DateTime, Utc};
use recovery::plan::{CommitTimes, CommitsUpTo, FoundCommit, Stretch};
use wal::{Commit, Lsn, PgTimestamp, SegmentName};

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
        match reading.commits(segment, CommitsWanted::Of(xid))? {
            Some(commits) => sought.commits.extend(commits.into_iter().map(|commit| FoundCommit {
                segment,
                lsn: commit.lsn,
                at: commit.at.and_then(moment),
            })),
            None => sought.unread = sought.unread.saturating_add(1),
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
    let micros = |at: DateTime<Utc>| PgTimestamp::from_unix_micros(at.timestamp_micros());
    let wanted = CommitsWanted::UpTo {
        time: micros(time),
        limit: micros(CommitTimes::limit(time)),
    };
    let commits = Reading::open(server, assessment, archive)?.commits(segment, wanted)?;
    Ok(commits.and_then(|commits| {
        let last = commits
            .last()
            .filter(|commit| commit.at.is_some_and(|at| at <= micros(time)))?;
        Some(CommitsUpTo {
            last: last.lsn,
            is_behind_later: commits.len() > 1,
        })
    }))
}

fn moment(at: PgTimestamp) -> Option<DateTime<Utc>> {
    DateTime::from_timestamp_micros(at.unix_micros())
}

struct Reading<'a> {
    assessment: &'a Assessment,
    access: Access,
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
            assessment,
            access: Access::new(archive, server, Waiting::SESSION),
        })
    }

    /// The commits in a segment that are wanted; none where it could not be read from end to end.
    fn commits(&mut self, segment: SegmentName, wanted: CommitsWanted) -> Result<Option<Vec<Commit>>> {
        memory::before_reading();
        let before = handover_before(segment, self.assessment)?;
        let history = &self.assessment.facts.history;
        self.access.commits(history, segment, before.as_ref(), wanted)
    }
}
