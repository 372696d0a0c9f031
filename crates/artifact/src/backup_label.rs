//! `backup_label`: what tells a server that it starts from a base backup, and where replay begins
//! (build_backup_content() in src/backend/access/transam/xlogbackup.c; xlog.c before PostgreSQL 16).

use wal::{Lsn, Timeline};

/// A base backup's own account of its beginning.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct BackupLabel {
    /// Where replay begins: the redo point of the backup's checkpoint.
    pub start: Lsn,
    /// The segment that holds it.
    pub start_wal_file: String,
    /// The checkpoint record.
    pub checkpoint: Lsn,
    /// "streamed" in all supported majors.
    pub method: Option<String>,
    /// "primary" or "standby".
    pub from: Option<String>,
    /// When the backup began, as written: in the server's log_timezone.
    pub start_time: Option<String>,
    /// The label that the backup was given.
    pub label: String,
    /// The timeline on which it began.
    pub timeline: Timeline,
    /// For an incremental backup (17 and later): where the backup that it builds on began.
    pub incremental_from: Option<(Lsn, Timeline)>,
}

/// What makes a file no backup label.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BackupLabelError {
    /// The server writes less than 3 kB.
    #[error("it has more than {} bytes, too many for a backup label", BackupLabel::MAX_BYTES)]
    TooLong,
    /// A line that must be there is not, or holds something else.
    #[error("there is no line \"{0}\" that could be read")]
    Missing(&'static str),
}

impl BackupLabel {
    /// Longer files are refused: a label has at most 1024 bytes.
    pub const MAX_BYTES: u64 = 64 << 10;

    /// Reads a backup label.
    ///
    /// # Errors
    /// When a position or the timeline is missing or unreadable. The other lines may be missing.
    pub fn parse(content: &[u8]) -> Result<Self, BackupLabelError> {
        if content.len() as u64 > Self::MAX_BYTES {
            return Err(BackupLabelError::TooLong);
        }
        let text = String::from_utf8_lossy(content);
        // The label itself can hold line ends, and lines like those of this file behind them. What the server wrote stands
        // before it, and from the last START TIMELINE on.
        let (head, rest) = text.split_once("LABEL: ").unwrap_or((&text, ""));
        let tail_at = rest.rfind("START TIMELINE: ").unwrap_or(0);
        let (label, tail) = rest.split_at_checked(tail_at).unwrap_or((rest, ""));
        let field = |part: &str, name: &str| {
            part.lines()
                .find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
                .map(|value| value.trim().to_owned())
        };
        let lsn = |part: &str, name: &'static str| {
            field(part, name)
                .and_then(|value| value.parse::<Lsn>().ok())
                .ok_or(BackupLabelError::Missing(name))
        };
        let timeline = |part: &str, name: &'static str| {
            field(part, name)
                .and_then(|value| value.parse().ok())
                .filter(|number| *number > 0)
                .map(Timeline)
                .ok_or(BackupLabelError::Missing(name))
        };
        let (start, start_wal_file) = field(head, "START WAL LOCATION")
            .and_then(|value| {
                let (lsn, file) = value.split_once(" (file ")?;
                Some((lsn.parse().ok()?, file.strip_suffix(')')?.to_owned()))
            })
            .ok_or(BackupLabelError::Missing("START WAL LOCATION"))?;
        Ok(Self {
            start,
            start_wal_file,
            checkpoint: lsn(head, "CHECKPOINT LOCATION")?,
            method: field(head, "BACKUP METHOD"),
            from: field(head, "BACKUP FROM"),
            start_time: field(head, "START TIME"),
            label: label.trim_end_matches(['\r', '\n']).to_owned(),
            timeline: timeline(tail, "START TIMELINE")?,
            incremental_from: lsn(tail, "INCREMENTAL FROM LSN")
                .ok()
                .zip(timeline(tail, "INCREMENTAL FROM TLI").ok()),
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LABEL: &str = "START WAL LOCATION: 0/2000028 (file 000000010000000000000002)\n\
        CHECKPOINT LOCATION: 0/2000060\n\
        BACKUP METHOD: streamed\n\
        BACKUP FROM: primary\n\
        START TIME: 2024-05-01 10:00:00 UTC\n\
        LABEL: pg_basebackup base backup\n\
        START TIMELINE: 3\n";

    #[test]
    fn a_label_tells_where_and_when_the_backup_began() {
        let label = BackupLabel::parse(LABEL.as_bytes()).unwrap();
        assert_eq!((label.start, label.checkpoint), (Lsn(0x200_0028), Lsn(0x200_0060)));
        assert_eq!(label.start_wal_file, "000000010000000000000002");
        assert_eq!(label.timeline, Timeline(3));
        assert_eq!(label.label, "pg_basebackup base backup");
        assert_eq!(label.from.as_deref(), Some("primary"));
        assert_eq!(label.method.as_deref(), Some("streamed"));
        assert_eq!(label.start_time.as_deref(), Some("2024-05-01 10:00:00 UTC"));
        assert_eq!(label.incremental_from, None);
    }

    #[test]
    fn an_incremental_backup_names_the_one_it_builds_on() {
        let text = format!("{LABEL}INCREMENTAL FROM LSN: 0/1000028\nINCREMENTAL FROM TLI: 2\n");
        let label = BackupLabel::parse(text.as_bytes()).unwrap();
        assert_eq!(label.incremental_from, Some((Lsn(0x100_0028), Timeline(2))));
    }

    #[test]
    fn what_a_user_puts_into_the_label_changes_nothing_else() {
        let text = LABEL.replace(
            "pg_basebackup base backup",
            "a\nSTART TIMELINE: 9\nLABEL: b\nINCREMENTAL FROM LSN: 0/1",
        );
        let label = BackupLabel::parse(text.as_bytes()).unwrap();
        assert_eq!((label.timeline, label.incremental_from), (Timeline(3), None));
        assert!(label.label.starts_with("a\nSTART"), "{}", label.label);
    }

    #[test]
    fn what_is_no_label_is_refused_with_the_line_that_is_missing() {
        for (text, words) in [
            (String::new(), "START WAL LOCATION"),
            (LABEL.replace("(file ", ""), "START WAL LOCATION"),
            (LABEL.replace("CHECKPOINT", "CHECK"), "CHECKPOINT LOCATION"),
            (LABEL.replace("TIMELINE: 3", "TIMELINE: 0"), "START TIMELINE"),
            ("x".repeat(70_000), "too many"),
        ] {
            let said = BackupLabel::parse(text.as_bytes()).unwrap_err().to_string();
            assert!(said.contains(words), "{said}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_harm(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            prop_assert!(BackupLabel::parse(&bytes).is_err());
        }
    }
}
