//! What is said of files that were not read: why they are awaited, missing, or another's, and what to do.

use super::Inspection;
use crate::catalog::archive::Unread;
use archive::Status;
use archive::chain::{Decision, Held, Loss, Recorded};
use wal::{Problem, SegmentName};

impl Inspection {
    /// The row that a decision about a segment asks for, if it asks for one.
    pub(super) fn unread(
        &self,
        segment: &SegmentName,
        held: Held,
        decision: Decision,
        record: Option<&Recorded>,
    ) -> Option<Unread> {
        let stored = match held {
            Held::File(mark) => Some((i64::try_from(mark.bytes).unwrap_or(i64::MAX), mark.changed_at.0)),
            Held::Absent | Held::Unlisted => None,
        };
        let name = segment.to_string();
        let (status, problem, detail, stored) = match decision {
            Decision::Stands | Decision::Waits => return None,
            Decision::Read(_) if record.is_some() => return None,
            Decision::Read(_) if held == Held::Unlisted => (
                Status::Pending,
                None,
                format!("{name} has not been asked for with restore_command yet."),
                None,
            ),
            Decision::Read(_) => (
                Status::Pending,
                None,
                format!("{name} is in {} and has not been verified yet.", self.source),
                stored,
            ),
            Decision::Await if self.ready.contains(&name) => (
                Status::Pending,
                None,
                format!("{name} waits in pg_wal for the archiver to send it."),
                None,
            ),
            Decision::Await => (
                Status::Pending,
                None,
                format!("{name} is expected in {} and has not appeared there yet.", self.source),
                None,
            ),
            Decision::Lose(loss) => (
                Status::Missing,
                Some(problem_of(loss)),
                format!(
                    "{name} (LSN {} to {}) is expected in {} {}",
                    segment.start(),
                    segment.end(),
                    self.source,
                    self.loss(loss, &name)
                ),
                None,
            ),
        };
        Some(Unread {
            name,
            timeline: segment.timeline.0,
            range: Some((segment.start().0, segment.end().0)),
            status: status.as_str(),
            problem,
            detail,
            stored,
        })
    }

    /// The row of a segment that is not on the server's history.
    pub(super) fn stranger(&self, segment: &SegmentName) -> Unread {
        let problem = Problem::ForeignTimeline;
        let detail = match self.history.switch_point(segment.timeline) {
            Some(switch) => format!(
                "{segment}: this server left timeline {} at LSN {switch}, so that it will never ask for this segment.",
                segment.timeline
            ),
            None if segment.timeline == self.server.timeline => format!(
                "{segment}: it lies ahead of this server, which has come to LSN {}; another server archives to the same place.",
                self.server.flush
            ),
            None => format!(
                "{segment}: timeline {} is not on the history of this server, which is on timeline {}; another server archives to \
                 the same place.",
                segment.timeline, self.server.timeline
            ),
        };
        Unread {
            name: segment.to_string(),
            timeline: segment.timeline.0,
            range: Some((segment.start().0, segment.end().0)),
            status: problem.status().as_str(),
            problem: Some(problem.as_str()),
            detail,
            stored: None,
        }
    }

    /// The row of a history file that is not there.
    pub(super) fn absent_history(&self, name: &str, timeline: u32, loss: Option<Loss>) -> Unread {
        let what = match loss {
            Some(loss) => self.loss(loss, name),
            None => "and has not appeared there yet.".to_owned(),
        };
        Unread {
            name: name.to_owned(),
            timeline,
            range: None,
            status: loss.map_or(Status::Pending, |_| Status::Missing).as_str(),
            problem: loss.map(|_| "missing_history"),
            detail: format!("{name} is expected in {} {what}", self.source),
            stored: None,
        }
    }

    fn loss(&self, loss: Loss, name: &str) -> String {
        match loss {
            Loss::NeverArrived => {
                "and never appeared there, although the archiver does not mean to send it any more, and pg_wal does not have it \
                 either: look whether archive_command stores what it reports as stored, and take a new base backup."
                    .to_owned()
            }
            Loss::NotArchived => format!(
                "and never appeared there, although the archiver does not mean to send it any more. It is still in pg_wal; to have \
                 the archiver send it, run as the server's user: {}",
                self.rescue(name)
            ),
            Loss::Gone if self.local.contains(name) => format!(
                "and is not there any more, although it was. It is still in pg_wal; to have the archiver send it again, run as \
                 the server's user: {}",
                self.rescue(name)
            ),
            Loss::Gone => {
                "and is not there any more, although it was: restore it from another copy of the archive, or take a new base backup."
                    .to_owned()
            }
        }
    }

    /// A shell command that has the archiver send a file of pg_wal.
    fn rescue(&self, name: &str) -> String {
        let status = |suffix: &str| {
            let path = self.server.wal_path("archive_status").join(format!("{name}.{suffix}"));
            quoted(&path.display().to_string())
        };
        let (ready, done) = (status("ready"), status("done"));
        format!("mv -f {done} {ready} || touch {ready}")
    }
}

fn problem_of(loss: Loss) -> &'static str {
    match loss {
        Loss::NeverArrived | Loss::Gone => "missing",
        Loss::NotArchived => "not_archived",
    }
}

/// A word of a shell command line.
fn quoted(word: &str) -> String {
    format!("'{}'", word.replace('\'', r"'\''"))
}
