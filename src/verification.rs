//! One look at one file of the archive: opened, read once from end to end, and turned into the row that tells of it.

use crate::catalog::archive::Finding;
use crate::server::Server;
use archive::listing;
use archive::{Source, Status};
use sha2::{Digest, Sha256};
use std::fmt::Write;
use std::io::Read;
use wal::{
    BackupHistory, Handover, Problem, SegmentName, SegmentReader, SegmentVerifier, Timeline, TimelineHistory,
    WalFileName,
};

// History and backup history files are a few lines of text. What is larger is none.
const LONGEST_TEXT: u64 = 64 * 1024;

/// Reads the segment `name` from the archive. `between` is called after each piece, for interrupts and the like.
///
/// `before` is what the segment in front of it handed over, if that one is verified.
pub fn look_at_segment(
    server: &Server,
    history: Option<&TimelineHistory>,
    source: &Source,
    name: SegmentName,
    before: Option<Handover>,
    reader: &mut SegmentReader,
    between: &mut dyn FnMut(usize),
) -> Finding {
    let text = name.to_string();
    let mut finding = Finding {
        timeline: name.timeline.0,
        start: Some(name.start().0),
        end: Some(name.end().0),
        path: source.root().join(&text).display().to_string(),
        name: text,
        ..Finding::default()
    };
    let (file, stored) = match listing::open(source, &finding.name) {
        Ok(opened) => opened,
        Err(error) => {
            finding.status = Problem::Unreadable.status().as_str();
            finding.problem = Some(Problem::Unreadable.as_str());
            finding.detail = Some(format!("{}: {error}.", finding.name));
            return finding;
        }
    };
    finding.bytes = i64::try_from(stored.bytes).unwrap_or(i64::MAX);
    finding.changed_at = stored.changed_at.0;
    let verifier = SegmentVerifier::new(&server.format, name, history, before);
    let outcome = reader.verify(file, verifier, between);
    finding.sha256 = Some(hexadecimal(&outcome.sha256));
    match outcome.result {
        Ok(summary) => {
            finding.status = Status::Verified.as_str();
            finding.first_commit_at = summary.first_commit_at.map(|at| at.0);
            finding.last_commit_at = summary.last_commit_at.map(|at| at.0);
            finding.commits = i64::try_from(summary.commit_count).ok();
            finding.records = i64::try_from(summary.records).ok();
            finding.handover = Some(summary.handover.to_bytes());
            finding.restore_points = summary
                .restore_points
                .into_iter()
                .filter_map(|point| Some((point.name, point.lsn.0, point.at?.0)))
                .collect();
        }
        Err(fault) => {
            finding.status = fault.problem.status().as_str();
            finding.problem = Some(fault.problem.as_str());
            finding.detail = Some(format!(
                "{}, LSN {}, byte {}: {}",
                finding.name, fault.lsn, fault.offset, fault.sentence
            ));
        }
    }
    finding
}

/// What came of a history or backup history file.
pub struct TextFinding {
    /// The row.
    pub finding: Finding,
    /// The base backup that the file tells of.
    pub backup: Option<BackupHistory>,
}

/// Reads a timeline history or backup history file from the archive.
pub fn look_at_text(
    server: &Server,
    history: &TimelineHistory,
    source: &Source,
    kind: WalFileName,
    name: &str,
) -> TextFinding {
    let timeline = match kind {
        WalFileName::History(timeline) => timeline,
        WalFileName::Segment(segment) | WalFileName::Partial(segment) | WalFileName::BackupHistory { segment, .. } => {
            segment.timeline
        }
    };
    let mut finding = Finding {
        name: name.to_owned(),
        timeline: timeline.0,
        path: source.root().join(name).display().to_string(),
        status: Status::Verified.as_str(),
        ..Finding::default()
    };
    let mut backup = None;
    let judged = read_text(source, name, &mut finding).and_then(|content| match kind {
        WalFileName::History(_) => judge_history(server, history, timeline, name, &content),
        WalFileName::BackupHistory { .. } => {
            let parsed = BackupHistory::parse(&content).map_err(|error| (Problem::BadHistory, format!("{error}.")))?;
            backup = Some(parsed);
            Ok(())
        }
        WalFileName::Segment(_) | WalFileName::Partial(_) => Ok(()),
    });
    if let Err((problem, sentence)) = judged {
        finding.status = problem.status().as_str();
        finding.problem = Some(problem.as_str());
        finding.detail = Some(format!("{name}: {sentence}"));
    }
    TextFinding { finding, backup }
}

fn read_text(source: &Source, name: &str, finding: &mut Finding) -> Result<Vec<u8>, (Problem, String)> {
    let (file, stored) = listing::open(source, name).map_err(|error| (Problem::Unreadable, format!("{error}.")))?;
    finding.bytes = i64::try_from(stored.bytes).unwrap_or(i64::MAX);
    finding.changed_at = stored.changed_at.0;
    let mut content = Vec::new();
    file.take(LONGEST_TEXT + 1)
        .read_to_end(&mut content)
        .map_err(|error| (Problem::Unreadable, format!("it could not be read: {error}.")))?;
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

/// A timeline's history must be readable, and the same as the server's own if the server has it.
fn judge_history(
    server: &Server,
    history: &TimelineHistory,
    timeline: Timeline,
    name: &str,
    content: &[u8],
) -> Result<(), (Problem, String)> {
    let stored =
        TimelineHistory::parse(timeline, content).map_err(|error| (Problem::BadHistory, format!("{error}.")))?;
    match history.as_of(timeline) {
        Some(own) if own.entries() != stored.entries() => {
            let ours = server.wal_path(name);
            Err((
                Problem::BadHistory,
                format!("it tells another history than the server's own {}.", ours.display()),
            ))
        }
        _ => Ok(()),
    }
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes
        .iter()
        .fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
            // Writing to a String cannot fail.
            let _ = write!(text, "{byte:02x}");
            text
        })
}
