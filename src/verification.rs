//! One look at one file of the archive: read once from end to end, and turned into the row that tells of it.

use crate::catalog::archive::Finding;
use crate::memory;
use crate::server::Server;
use archive::{Comparison, DecompressionError, Status, contained};
use sha2::{Digest, Sha256};
use std::error::Error;
use std::fmt::Write;
use std::io::{self, Read};
use wal::{
    BackupHistory, Handover, PgTimestamp, Problem, SegmentName, SegmentOutcome, SegmentReader, SegmentVerifier,
    Timeline, TimelineHistory, WalFileName,
};

mod local_copy;

pub use local_copy::LocalCopy;

// So many segments' worth of what is behind a segment's end is decompressed to see how it ends.
const LONGEST_EXCESS: u64 = 4;
// A segment takes no more room than so many, however badly it is compressed. What is larger can take hours to decompress to nothing.
const MOST_SEGMENTS_STORED: u64 = 4;
// Nor does a history file take more, bytes.
const LONGEST_TEXT_STORED: u64 = 1 << 20;
// The server allows no longer label of a base backup, bytes (MAXPGPATH).
const LONGEST_LABEL: usize = 1024;
// History and backup history files are a few lines of text. What is larger is none.
const LONGEST_TEXT: u64 = 64 * 1024;

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

/// A segment to be read, and what is known beforehand.
pub struct Subject<'a> {
    /// The server whose archive it is in.
    pub server: &'a Server,
    /// The history of the segment's timeline, if it is on the server's own.
    pub history: Option<&'a TimelineHistory>,
    /// What it should be.
    pub name: SegmentName,
    /// What the segment in front of it handed over, if that one is verified.
    pub before: Option<Handover>,
    /// SHA-256 of what was verified under this name first.
    pub sound_sha256: Option<String>,
}

impl Subject<'_> {
    /// Its row as far as it is known before it is read.
    pub fn unread(&self) -> Finding {
        Finding {
            timeline: self.name.timeline.0,
            start: Some(self.name.start().0),
            end: Some(self.name.end().0),
            name: self.name.to_string(),
            ..Finding::default()
        }
    }

    /// Its row where it is there and cannot be read.
    pub fn unreadable(&self, sentence: &str) -> Finding {
        let mut finding = self.unread();
        reject(&mut finding, Problem::Unreadable, sentence);
        finding
    }

    /// Reads it. `between` is called after each piece with its length in bytes, for interrupts and the like.
    pub fn look_at(self, opened: Opened, reader: &mut SegmentReader, between: &mut dyn FnMut(usize)) -> Finding {
        memory::before_reading();
        let mut finding = self.unread();
        finding.path.clone_from(&opened.path);
        finding.bytes = i64::try_from(opened.bytes).unwrap_or(i64::MAX);
        finding.changed_at = opened.changed_at.map(|at| at.0);
        let most = self.name.size.bytes().saturating_mul(MOST_SEGMENTS_STORED);
        if opened.bytes > most {
            let sentence = format!(
                "it has {} bytes, where at most {most} were expected; it was not read.",
                opened.bytes
            );
            reject(&mut finding, Problem::Oversized, &sentence);
            return finding;
        }
        let local = LocalCopy::open(self.server, &finding.name);
        let before = self.before.clone();
        let read = contained(|callback| {
            let verifier = SegmentVerifier::new(&self.server.format, self.name, self.history, before);
            let mut content = DecompressionWatch::new(opened.content);
            let mut both = Comparison::new(&mut content, local.as_ref().map(LocalCopy::file));
            let outcome = reader.verify(&mut both, verifier, &mut |bytes| callback.run(|| between(bytes)));
            let (compared, difference) = (both.compared(), both.difference());
            // Damage inside a compressed file can make more of it than there was; what is wrong shows where it ends.
            if outcome.bytes > self.name.size.bytes() {
                content.read_on(self.name.size.bytes() * LONGEST_EXCESS, &mut |bytes| {
                    callback.run(|| between(bytes));
                });
            }
            (outcome, compared, difference, content.failure)
        });
        let (outcome, compared, difference, failure) = match read {
            Ok(read) => read,
            Err(panic) => {
                *reader = SegmentReader::new();
                reject(
                    &mut finding,
                    Problem::Unreadable,
                    &format!(
                        "verification itself failed ({panic}); this is a defect of pg_backstop: please report it."
                    ),
                );
                return finding;
            }
        };
        finding.sha256 = Some(hexadecimal(&outcome.sha256));
        match (failure, opened.bytes) {
            (Some(failure), 1..) if !failure.is_damage => {
                finding.sha256 = None;
                reject(&mut finding, Problem::Unreadable, &format!("{failure}."));
            }
            (Some(failure), 1..) => reject(
                &mut finding,
                Problem::DecompressionFailed,
                &format!("byte {} of its content: {failure}", outcome.bytes),
            ),
            _ => self.judge(&mut finding, outcome, local.as_ref(), compared, difference),
        }
        finding
    }

    fn judge(
        &self,
        finding: &mut Finding,
        outcome: SegmentOutcome,
        local: Option<&LocalCopy>,
        compared: u64,
        difference: Option<u64>,
    ) {
        let summary = match outcome.result {
            Ok(summary) => summary,
            Err(fault) => {
                let sentence = format!("LSN {}, byte {}: {}", fault.lsn, fault.offset, fault.sentence);
                finding.detail = Some(format!("{}, {sentence}", finding.name));
                finding.status = Status::of(fault.problem);
                finding.problem = Some(fault.problem);
                finding.last_record = outcome.sound_head.map(|head| head.last_record.0);
                finding.last_commit_at = outcome.sound_head.and_then(|head| head.last_commit_at).map(|at| at.0);
                return;
            }
        };
        let data = summary.end_of_data.bytes_since(self.name.start());
        let local = local.filter(|local| local.is_still_there());
        // Behind the last record there is nothing that anybody will read.
        if let (Some(local), Some(at)) = (local, difference.filter(|at| *at < data))
            && let Some(sha256) = local.sound_sha256(self)
        {
            finding.sound_sha256 = Some(sha256);
            return reject_content(
                finding,
                &format!(
                    "LSN {}, byte {at}: it is sound, but not the same as the server's own copy, {}.",
                    self.name.start().plus(at),
                    local.path().display()
                ),
            );
        }
        let confirmed = local.is_some() && difference.is_none_or(|at| at >= data) && compared >= data;
        if !confirmed
            && let Some(expected) = &self.sound_sha256
            && finding.sha256.as_ref() != Some(expected)
        {
            return reject_content(
                finding,
                &format!(
                    "LSN {} to {}: it is sound, but not the content that was verified before: its SHA-256 is {}, where {expected} was expected.",
                    self.name.start(),
                    self.name.end(),
                    finding.sha256.as_deref().unwrap_or_default(),
                ),
            );
        }
        finding.sound_sha256.clone_from(&finding.sha256);
        finding.status = Status::Verified;
        finding.first_commit_at = summary.first_commit_at.map(|at| at.0);
        finding.last_commit_at = summary.last_commit_at.map(|at| at.0);
        finding.latest_xact_at = summary.latest_xact_at.map(|at| at.0);
        finding.last_record = summary.last_record.map(|lsn| lsn.0);
        finding.lowest_xid = summary.xids.map(|xids| i64::from(xids.lowest));
        finding.highest_xid = summary.xids.map(|xids| i64::from(xids.highest));
        finding.commits = i64::try_from(summary.commit_count).ok();
        finding.records = i64::try_from(summary.records).ok();
        finding.data_bytes = i64::try_from(data).ok();
        finding.handover = Some(summary.handover.to_bytes());
        finding.ledger_heads = summary.ledger_heads;
        finding.restore_points = summary
            .restore_points
            .into_iter()
            .filter_map(|point| Some((point.name, point.lsn.0, point.at?.0)))
            .collect();
    }
}

/// Keeps the complaint of a decoder apart from what else can go wrong with reading.
struct DecompressionWatch<R> {
    read: R,
    failure: Option<DecompressionError>,
}

impl<R> DecompressionWatch<R> {
    fn new(read: R) -> Self {
        Self { read, failure: None }
    }
}

impl<R: Read> DecompressionWatch<R> {
    /// Reads to the end, or so many bytes, and keeps nothing.
    fn read_on(&mut self, most: u64, on_piece: &mut dyn FnMut(usize)) {
        let mut piece = [0; 16 << 10];
        let mut rest = self.take(most);
        while let Ok(bytes @ 1..) = rest.read(&mut piece) {
            on_piece(bytes);
        }
    }
}

impl<R: Read> Read for &mut DecompressionWatch<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.read.read(buffer).inspect_err(|error| {
            self.failure = error
                .get_ref()
                .and_then(|inner| (inner as &(dyn Error + 'static)).downcast_ref::<DecompressionError>())
                .cloned();
        })
    }
}

fn reject(finding: &mut Finding, problem: Problem, sentence: &str) {
    finding.status = Status::of(problem);
    finding.problem = Some(problem);
    finding.detail = Some(format!("{}: {sentence}", finding.name));
}

fn reject_content(finding: &mut Finding, sentence: &str) {
    reject(finding, Problem::ContentDiffers, "");
    finding.detail = Some(format!("{}, {sentence}", finding.name));
}

/// What came of a history or backup history file.
#[derive(serde::Serialize, serde::Deserialize)]
pub struct TextFinding {
    /// The row.
    pub finding: Finding,
    /// The base backup that the file tells of.
    pub backup: Option<BackupHistory>,
}

/// A timeline history or backup history file.
pub struct Text<'a> {
    /// The server whose archive it is in.
    pub server: &'a Server,
    /// The history of the server's own timeline.
    pub history: &'a TimelineHistory,
    /// What it is by its name.
    pub kind: WalFileName,
    /// Its name.
    pub name: &'a str,
}

impl Text<'_> {
    fn unread(&self) -> Finding {
        let timeline = match self.kind {
            WalFileName::History(timeline) => timeline,
            WalFileName::Segment(segment)
            | WalFileName::Partial(segment)
            | WalFileName::BackupHistory { segment, .. } => segment.timeline,
        };
        Finding {
            name: self.name.to_owned(),
            timeline: timeline.0,
            ..Finding::default()
        }
    }

    /// Its row where it is there and cannot be read.
    pub fn unreadable(&self, sentence: &str) -> TextFinding {
        let mut finding = self.unread();
        reject(&mut finding, Problem::Unreadable, sentence);
        TextFinding { finding, backup: None }
    }

    /// Reads it.
    pub fn look_at(&self, opened: Opened) -> TextFinding {
        let mut finding = self.unread();
        finding.status = Status::Verified;
        finding.path.clone_from(&opened.path);
        finding.bytes = i64::try_from(opened.bytes).unwrap_or(i64::MAX);
        finding.changed_at = opened.changed_at.map(|at| at.0);
        let mut backup = None;
        let judged = read_text(opened, &mut finding).and_then(|content| match self.kind {
            WalFileName::History(timeline) => self.judge_history(timeline, &content),
            WalFileName::BackupHistory { .. } => {
                let parsed =
                    BackupHistory::parse(&content).map_err(|error| (Problem::BadHistory, format!("{error}.")))?;
                if parsed.label.len() > LONGEST_LABEL {
                    let bytes = parsed.label.len();
                    let sentence = format!("its label has {bytes} bytes, where at most {LONGEST_LABEL} were expected.");
                    return Err((Problem::BadHistory, sentence));
                }
                backup = Some(parsed);
                Ok(())
            }
            WalFileName::Segment(_) | WalFileName::Partial(_) => Ok(()),
        });
        if let Err((problem, sentence)) = judged {
            reject(&mut finding, problem, &sentence);
        }
        TextFinding { finding, backup }
    }

    /// A timeline's history must be readable, this server's, and the same as the server's own if the server has it.
    fn judge_history(&self, timeline: Timeline, content: &[u8]) -> Result<(), (Problem, String)> {
        let stored =
            TimelineHistory::parse(timeline, content).map_err(|error| (Problem::BadHistory, format!("{error}.")))?;
        match self.history.as_of(timeline) {
            Some(own) if own.entries() != stored.entries() => {
                let ours = self.server.wal_path(self.name);
                Err((
                    Problem::BadHistory,
                    format!(
                        "it says that {}, where the server's own {} says that {}.",
                        lineage(&stored),
                        ours.display(),
                        lineage(&own)
                    ),
                ))
            }
            Some(_) => Ok(()),
            None => Err((
                Problem::ForeignTimeline,
                format!(
                    "timeline {timeline} is not on this server's history. A recovery with recovery_target_timeline = 'latest' \
                     would follow it all the same: name timeline {} instead.",
                    self.server.timeline
                ),
            )),
        }
    }
}

/// Which timelines were left where on the way: a clause.
fn lineage(history: &TimelineHistory) -> String {
    let left: Vec<String> = history
        .entries()
        .iter()
        .map(|entry| format!("timeline {} was left at LSN {}", entry.timeline, entry.switch_lsn))
        .collect();
    if left.is_empty() {
        "it has no ancestor".to_owned()
    } else {
        left.join(" and ")
    }
}

fn read_text(opened: Opened, finding: &mut Finding) -> Result<Vec<u8>, (Problem, String)> {
    memory::before_reading();
    if opened.bytes > LONGEST_TEXT_STORED {
        return Err((
            Problem::Oversized,
            format!("it has {} bytes, where a few hundred were expected.", opened.bytes),
        ));
    }
    let mut content = Vec::new();
    let read = contained(|_| {
        let mut watch = DecompressionWatch::new(opened.content);
        let read = (&mut watch).take(LONGEST_TEXT + 1).read_to_end(&mut content);
        (read, watch.failure)
    });
    match read {
        Err(panic) => return Err((Problem::Unreadable, format!("reading it failed ({panic})."))),
        Ok((Err(_), Some(failure))) if opened.bytes > 0 => {
            let problem = if failure.is_damage {
                Problem::DecompressionFailed
            } else {
                Problem::Unreadable
            };
            return Err((problem, failure.to_string()));
        }
        Ok((Err(error), None)) => return Err((Problem::Unreadable, format!("it could not be read: {error}."))),
        Ok(_) => {}
    }
    if content.len() as u64 > LONGEST_TEXT {
        let bytes = finding.bytes;
        return Err((
            Problem::Oversized,
            format!("it has {bytes} bytes, where a few hundred were expected."),
        ));
    }
    if content.is_empty() {
        return Err((Problem::Empty, "it is empty.".to_owned()));
    }
    finding.sha256 = Some(hexadecimal(&Sha256::digest(&content)));
    Ok(content)
}

/// Bytes as the tables hold a digest: two lower-case digits each.
pub fn hexadecimal(bytes: &[u8]) -> String {
    bytes
        .iter()
        .fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
            // Writing to a String cannot fail.
            let _ = write!(text, "{byte:02x}");
            text
        })
}
