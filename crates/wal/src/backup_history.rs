//! Backup history files, `<segment>.<offset>.backup`: what the server leaves in the archive about each base backup that it
//! finished, whoever took it (build_backup_content, xlogbackup.c; xlog.c before 16).

use crate::bytes::text;
use crate::lsn::{Lsn, Timeline};

/// One base backup, as the server recorded it.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct BackupHistory {
    /// Where replay must begin: the redo point of the backup's checkpoint.
    pub start_lsn: Lsn,
    /// The segment that holds `start_lsn`.
    pub start_wal_file: String,
    /// How far replay must get before the backup is consistent.
    pub stop_lsn: Lsn,
    /// The segment that holds `stop_lsn`.
    pub stop_wal_file: String,
    /// The checkpoint record itself.
    pub checkpoint_lsn: Lsn,
    /// "streamed" in all supported majors.
    pub method: Option<String>,
    /// "primary" or "standby".
    pub from: Option<String>,
    /// When the backup started, as written: in the server's log_timezone, whose abbreviation need not be unambiguous.
    pub start_time: Option<String>,
    /// The label that the backup was given.
    pub label: String,
    /// The timeline on which it started.
    pub start_timeline: Timeline,
    /// When it stopped, as written.
    pub stop_time: Option<String>,
    /// The timeline on which it stopped.
    pub stop_timeline: Timeline,
    /// For an incremental backup (17 and later): where the backup that it builds on started.
    pub incremental_from: Option<(Lsn, Timeline)>,
}

/// What makes a file no backup history file.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BackupHistoryError {
    /// The server writes less than 3 kB.
    #[error(
        "{bytes} bytes are too many for a backup history file (at most {})",
        BackupHistory::MAX_BYTES
    )]
    TooLong {
        /// The file's length.
        bytes: usize,
    },
    /// A line that must be there is not.
    #[error("there is no line \"{0}: ...\"")]
    Missing(&'static str),
    /// A line that must be there holds something else.
    #[error("the line \"{field}: ...\" holds {found:?}, where {expected} was expected")]
    Malformed {
        /// What stands before the colon.
        field: &'static str,
        /// What stands behind it.
        found: String,
        /// What should stand there.
        expected: &'static str,
    },
}

impl BackupHistory {
    /// Longer files are refused: a label has at most 1024 bytes.
    pub const MAX_BYTES: usize = 64 << 10;

    /// Reads a backup history file.
    ///
    /// # Errors
    /// When a position, a segment or a timeline of the backup is missing or unreadable. The other lines may be missing.
    pub fn parse(content: impl AsRef<[u8]>) -> Result<Self, BackupHistoryError> {
        let content = content.as_ref();
        if content.len() > Self::MAX_BYTES {
            return Err(BackupHistoryError::TooLong { bytes: content.len() });
        }
        let lines: Vec<&[u8]> = content.split(|byte| *byte == b'\n').collect();
        // A label can hold line ends, and behind them anything, lines of this very file too. What the server wrote stands before
        // the first LABEL, and from the last START TIMELINE on.
        let label_at = lines
            .iter()
            .position(|line| line.starts_with(b"LABEL: "))
            .unwrap_or(lines.len());
        let (head, from_label) = lines.split_at(label_at);
        let tail_at = from_label
            .iter()
            .rposition(|line| line.starts_with(b"START TIMELINE: "))
            .unwrap_or(from_label.len());
        let (label, tail) = from_label.split_at(tail_at);
        let label = label.join(&b'\n');
        let label = text(label.strip_prefix(b"LABEL: ").unwrap_or(&label));

        let (start_lsn, start_wal_file) = wal_location(head, "START WAL LOCATION")?;
        let (stop_lsn, stop_wal_file) = wal_location(head, "STOP WAL LOCATION")?;
        Ok(Self {
            start_lsn,
            start_wal_file,
            stop_lsn,
            stop_wal_file,
            checkpoint_lsn: lsn(head, "CHECKPOINT LOCATION")?,
            method: optional(head, "BACKUP METHOD"),
            from: optional(head, "BACKUP FROM"),
            start_time: optional(head, "START TIME"),
            label: label.trim_end_matches(['\r', '\n']).to_owned(),
            start_timeline: timeline(tail, "START TIMELINE")?,
            stop_time: optional(tail, "STOP TIME"),
            stop_timeline: timeline(tail, "STOP TIMELINE")?,
            incremental_from: match (
                lsn(tail, "INCREMENTAL FROM LSN"),
                timeline(tail, "INCREMENTAL FROM TLI"),
            ) {
                (Ok(lsn), Ok(timeline)) => Some((lsn, timeline)),
                _ => None,
            },
        })
    }
}

/// What `backup_label` says of the backup that a server was restored from; the server keeps it as `backup_label.old`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BackupLabel {
    /// Where replay began: the redo point of the backup's checkpoint.
    pub start_lsn: Lsn,
    /// The label that the backup was given.
    pub label: String,
}

impl BackupLabel {
    /// Reads a `backup_label`.
    ///
    /// # Errors
    /// When the position is missing or unreadable, or the file is longer than [`BackupHistory::MAX_BYTES`].
    pub fn parse(content: impl AsRef<[u8]>) -> Result<Self, BackupHistoryError> {
        let content = content.as_ref();
        if content.len() > BackupHistory::MAX_BYTES {
            return Err(BackupHistoryError::TooLong { bytes: content.len() });
        }
        let lines: Vec<&[u8]> = content.split(|byte| *byte == b'\n').collect();
        Ok(Self {
            start_lsn: wal_location(&lines, "START WAL LOCATION")?.0,
            label: optional(&lines, "LABEL").unwrap_or_default(),
        })
    }
}

fn optional(lines: &[&[u8]], field: &'static str) -> Option<String> {
    lines
        .iter()
        .find_map(|line| line.strip_prefix(field.as_bytes())?.strip_prefix(b": "))
        .map(|value| text(value.trim_ascii()))
}

fn required(lines: &[&[u8]], field: &'static str) -> Result<String, BackupHistoryError> {
    optional(lines, field).ok_or(BackupHistoryError::Missing(field))
}

fn lsn(lines: &[&[u8]], field: &'static str) -> Result<Lsn, BackupHistoryError> {
    let value = required(lines, field)?;
    value.parse().map_err(|_| malformed(field, &value, "a WAL position"))
}

fn timeline(lines: &[&[u8]], field: &'static str) -> Result<Timeline, BackupHistoryError> {
    let value = required(lines, field)?;
    match value.parse::<u32>() {
        Ok(number) if number > 0 => Ok(Timeline(number)),
        _ => Err(malformed(field, &value, "the number of a timeline")),
    }
}

/// `0/2000028 (file 000000010000000000000002)`
fn wal_location(lines: &[&[u8]], field: &'static str) -> Result<(Lsn, String), BackupHistoryError> {
    let value = required(lines, field)?;
    let parse = || {
        let (lsn, rest) = value.split_once(" (file ")?;
        let file = rest.strip_suffix(')')?;
        let is_segment = file.len() == 24 && file.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'A'..=b'F'));
        is_segment.then_some((lsn.parse().ok()?, file.to_owned()))
    };
    parse().ok_or_else(|| malformed(field, &value, "a WAL position and its segment"))
}

fn malformed(field: &'static str, found: &str, expected: &'static str) -> BackupHistoryError {
    BackupHistoryError::Malformed {
        field,
        found: found.chars().take(200).collect(),
        expected,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SAMPLE: &str = "START WAL LOCATION: 0/2000028 (file 000000010000000000000002)
STOP WAL LOCATION: 0/2000120 (file 000000010000000000000002)
CHECKPOINT LOCATION: 0/2000080
BACKUP METHOD: streamed
BACKUP FROM: primary
START TIME: 2025-03-04 05:06:07 CET
LABEL: pg_basebackup base backup
START TIMELINE: 1
STOP TIME: 2025-03-04 05:06:09 CET
STOP TIMELINE: 2
";

    #[test]
    fn every_field_is_read() {
        let backup = BackupHistory::parse(SAMPLE).unwrap();
        assert_eq!((backup.start_lsn, backup.stop_lsn), (Lsn(0x200_0028), Lsn(0x200_0120)));
        assert_eq!(backup.start_wal_file, "000000010000000000000002");
        assert_eq!(backup.checkpoint_lsn, Lsn(0x200_0080));
        assert_eq!(backup.method.as_deref(), Some("streamed"));
        assert_eq!(backup.from.as_deref(), Some("primary"));
        assert_eq!(backup.start_time.as_deref(), Some("2025-03-04 05:06:07 CET"));
        assert_eq!(backup.label, "pg_basebackup base backup");
        assert_eq!(
            (backup.start_timeline, backup.stop_timeline),
            (Timeline(1), Timeline(2))
        );
        assert_eq!(backup.stop_time.as_deref(), Some("2025-03-04 05:06:09 CET"));
        assert_eq!(backup.incremental_from, None);
    }

    #[test]
    fn a_backup_label_has_no_end_yet() {
        let content = SAMPLE
            .lines()
            .filter(|line| !line.starts_with("STOP "))
            .collect::<Vec<_>>()
            .join("\n");
        assert!(BackupHistory::parse(&content).is_err());
        let label = BackupLabel::parse(&content).unwrap();
        assert_eq!(
            (label.start_lsn, label.label.as_str()),
            (Lsn(0x200_0028), "pg_basebackup base backup")
        );
        assert!(BackupLabel::parse("LABEL: x\n").is_err());
    }

    #[test]
    fn an_incremental_backup_names_what_it_builds_on() {
        let backup = BackupHistory::parse(format!(
            "{SAMPLE}INCREMENTAL FROM LSN: 0/1000028\nINCREMENTAL FROM TLI: 1\n"
        ))
        .unwrap();
        assert_eq!(backup.incremental_from, Some((Lsn(0x100_0028), Timeline(1))));
    }

    #[test]
    fn a_label_cannot_pass_for_the_servers_own_lines() {
        let label = "x\nSTART TIMELINE: 9\nSTOP TIMELINE: 9\nSTOP WAL LOCATION: 0/0 (file 000000010000000000000002)";
        let backup = BackupHistory::parse(SAMPLE.replace("pg_basebackup base backup", label)).unwrap();
        assert_eq!(backup.label, label);
        assert_eq!(
            (backup.start_timeline, backup.stop_timeline),
            (Timeline(1), Timeline(2))
        );
        assert_eq!(backup.stop_lsn, Lsn(0x200_0120));
    }

    #[test]
    fn a_label_in_another_encoding_does_not_hide_the_backup() {
        let mut content = SAMPLE.as_bytes().to_vec();
        let at = SAMPLE.find("pg_basebackup").unwrap();
        content[at] = 0xE9;
        content[at + 1] = 0;
        assert_eq!(
            BackupHistory::parse(content).unwrap().label,
            "\u{FFFD}\u{FFFD}_basebackup base backup"
        );
    }

    #[test]
    fn what_lacks_a_position_is_refused_and_says_which() {
        for field in [
            "START WAL LOCATION",
            "STOP WAL LOCATION",
            "CHECKPOINT LOCATION",
            "START TIMELINE",
            "STOP TIMELINE",
        ] {
            assert_eq!(
                BackupHistory::parse(SAMPLE.replace(field, "X")),
                Err(BackupHistoryError::Missing(field))
            );
            let broken = SAMPLE.replace(&format!("{field}: "), &format!("{field}: x"));
            assert!(
                matches!(BackupHistory::parse(broken), Err(BackupHistoryError::Malformed { .. })),
                "{field}"
            );
        }
        assert!(BackupHistory::parse("").is_err());
    }

    #[test]
    fn a_huge_file_is_refused_unread() {
        let content = vec![b'\n'; BackupHistory::MAX_BYTES + 1];
        assert_eq!(
            BackupHistory::parse(content),
            Err(BackupHistoryError::TooLong { bytes: 65537 })
        );
    }
}
