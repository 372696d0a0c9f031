//! Whether the WAL that a base backup needs is inside it: read and verified, not judged by file names.

use std::io::Read;
use std::ops::ControlFlow;
use std::path::Path;

use artifact::base_backup::open_file;
use artifact::{BaseBackup, WalPlace, WalRange};
use wal::{Handover, Hashing, Problem, SegmentName, SegmentReader, SegmentVerifier, TimelineHistory};

use super::visit_tar;
use crate::server::Server;

/// What was found of it.
#[derive(Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum OwnWal {
    /// All of it, and sound.
    Whole,
    /// None of it, as after `pg_basebackup -X none`.
    Absent,
    /// Some of it. The clause says what is missing or wrong.
    Faulty(String),
    /// It is another cluster's, and so is the backup. The clause says what was found.
    Foreign(String),
    /// It lies where looking for it would mean to decompress the whole backup.
    OutOfReach(String),
}

/// Looks for the WAL of `range` inside `backup`. `between` is called between pieces of what is read.
///
/// The work is that of reading the WAL, and for a tar that holds data too (`-X fetch`) of leaping over those.
pub fn own_wal(server: &Server, backup: &BaseBackup, range: WalRange, between: &mut dyn FnMut()) -> OwnWal {
    let history = server.history().ok().filter(|history| history.contains(range.timeline));
    let mut check = Check::new(server, range, history.as_ref());
    let read = match backup.wal() {
        None => Ok(()),
        Some(WalPlace::Directory(directory)) => check.directory(&directory, between),
        Some(WalPlace::Tar(tar)) => {
            let mut result = Ok(());
            visit_tar(&tar, between, &mut |member, between| {
                check.member(member, Path::new(""), &mut result, between)
            })
            .and(result)
        }
        Some(WalPlace::MainTar(tar)) if tar.suffix.is_empty() => {
            let mut result = Ok(());
            open_file(&tar.path)
                .map_err(|error| error.to_string())
                .and_then(|file| {
                    artifact::members_by_seeking(file, &mut |member| {
                        between();
                        check.member(member, Path::new("pg_wal"), &mut result, between)
                    })
                    .map_err(|error| format!("could not read \"{}\": {error}", tar.path.display()))
                })
                .and(result)
        }
        Some(WalPlace::MainTar(tar)) => {
            return OwnWal::OutOfReach(format!(
                "there is no pg_wal.tar beside \"{}\", which is not decompressed to look for WAL in it",
                tar.path.display()
            ));
        }
    };
    match read {
        Ok(()) if check.next > check.last => OwnWal::Whole,
        Ok(()) if check.next == check.first => OwnWal::Absent,
        Ok(()) => OwnWal::Faulty(format!("segment {} is not inside it", check.name(check.next))),
        Err(why) if check.is_foreign => OwnWal::Foreign(why),
        Err(why) => OwnWal::Faulty(why),
    }
}

/// Segments of the range, one after the other.
struct Check<'s> {
    server: &'s Server,
    range: WalRange,
    history: Option<&'s TimelineHistory>,
    first: u64,
    last: u64,
    /// The number of the segment that must come next.
    next: u64,
    handover: Option<Handover>,
    reader: SegmentReader,
    /// Whether a segment was found to be another cluster's.
    is_foreign: bool,
}

impl<'s> Check<'s> {
    fn new(server: &'s Server, range: WalRange, history: Option<&'s TimelineHistory>) -> Self {
        let bytes = server.format.segment_size.bytes();
        let first = range.start.0 / bytes;
        Self {
            server,
            range,
            history,
            first,
            last: (range.end.less(1).0 / bytes).max(first),
            next: first,
            handover: None,
            reader: SegmentReader::new(),
            is_foreign: false,
        }
    }

    fn name(&self, number: u64) -> SegmentName {
        SegmentName {
            timeline: self.range.timeline,
            number,
            size: self.server.format.segment_size,
        }
    }

    fn directory(&mut self, directory: &Path, between: &mut dyn FnMut()) -> Result<(), String> {
        while self.next <= self.last {
            between();
            let path = directory.join(self.name(self.next).to_string());
            match open_file(&path) {
                Ok(file) => self.read(file, between)?,
                Err(artifact::ArtifactError::Absent { .. }) => return Ok(()),
                Err(error) => return Err(error.to_string()),
            }
        }
        Ok(())
    }

    /// Looks at one member of a tar that holds segments below `parent`, in order: so they are streamed, and so the server sorts
    /// those that are fetched.
    fn member(
        &mut self,
        member: artifact::Member<'_>,
        parent: &Path,
        result: &mut Result<(), String>,
        between: &mut dyn FnMut(),
    ) -> ControlFlow<()> {
        let segment = member
            .path
            .strip_prefix(parent)
            .ok()
            .and_then(Path::to_str)
            .and_then(|name| SegmentName::parse(name, self.server.format.segment_size).ok())
            .filter(|segment| member.is_file && segment.timeline == self.range.timeline);
        match segment {
            Some(segment) if segment.number == self.next => {
                *result = self.read(member.content, between);
                if result.is_err() || self.next > self.last {
                    return ControlFlow::Break(());
                }
            }
            Some(segment) if (self.next..=self.last).contains(&segment.number) => {
                *result = Err(format!("segment {} is not inside it", self.name(self.next)));
                return ControlFlow::Break(());
            }
            _ => {}
        }
        ControlFlow::Continue(())
    }

    /// Verifies the next segment.
    fn read(&mut self, content: impl Read, between: &mut dyn FnMut()) -> Result<(), String> {
        let name = self.name(self.next);
        let verifier = SegmentVerifier::new(&self.server.format, name, self.history, self.handover.take())
            .with_hashing(Hashing::None);
        let outcome = self.reader.verify(content, verifier, &mut |_| between());
        let end = self.range.end.min(name.end());
        match outcome.result {
            Ok(summary) if summary.end_of_data >= end => self.handover = Some(summary.handover),
            Ok(summary) => {
                return Err(format!(
                    "segment {name} inside it ends at LSN {}, where WAL up to {end} is needed",
                    summary.end_of_data
                ));
            }
            // No switch ends the last segment of a backup that a standby gave: what follows there is not the backup's.
            Err(fault)
                if self.next == self.last
                    && fault.lsn >= end
                    && !matches!(
                        fault.problem,
                        Problem::Truncated | Problem::Oversized | Problem::Unreadable
                    ) => {}
            Err(fault) => {
                self.is_foreign = fault.problem == Problem::ForeignSystem;
                let sentence = fault.sentence.trim_end_matches('.');
                return Err(format!(
                    "segment {name} inside it is {} ({}): LSN {}, byte {}: {sentence}",
                    fault.problem.status().as_str(),
                    fault.problem,
                    fault.lsn,
                    fault.offset
                ));
            }
        }
        self.next += 1;
        Ok(())
    }
}
