//! Base backups found in the archive: each leaves a backup history file there, whoever took it.

use crate::catalog::detection::{self, Detected};
use crate::error::Result;
use crate::server::Server;
use chrono::{Datelike, NaiveDateTime};
use wal::{BackupHistory, TimelineHistory};

/// Makes the ledger know of the backup that `file` tells of. Needs a transaction.
///
/// A backup of another branch, or one that lies in this server's future, is somebody else's: it is left out.
pub fn record(server: &Server, history: &TimelineHistory, file: &str, backup: &BackupHistory) -> Result<()> {
    // The look may have begun before the backup ended, and the file is looked at once.
    let flush = Server::observe()?.flush.max(server.flush);
    let ours = backup.stop_lsn <= flush
        && history.timeline_of(backup.start_lsn) == backup.start_timeline
        && backup.start_lsn < backup.stop_lsn;
    if !ours {
        return Ok(());
    }
    detection::record(&Detected {
        file: file.to_owned(),
        // What the file holds is outside data, and text in PostgreSQL holds no zero byte.
        label: backup.label.replace('\0', "\u{FFFD}"),
        backup_type: if backup.incremental_from.is_some() {
            "incremental"
        } else {
            "full"
        },
        timeline: backup.start_timeline.0,
        start: backup.start_lsn.0,
        end: backup.stop_lsn.0,
        start_wal_file: backup.start_wal_file.clone(),
        end_wal_file: backup.stop_wal_file.clone(),
        started_at: backup.start_time.as_deref().and_then(moment),
        finished_at: backup.stop_time.as_deref().and_then(moment),
        parent_start: backup.incremental_from.map(|(lsn, _)| lsn.0),
    })
}

/// The date and time of day that `text` begins with, if PostgreSQL can read them too: an error in SQL would take the whole look
/// at the archive with it, for the sake of one damaged file.
fn moment(text: &str) -> Option<String> {
    let text = text.get(..19)?;
    let moment = NaiveDateTime::parse_from_str(text, "%Y-%m-%d %H:%M:%S").ok()?;
    // As PostgreSQL writes it: chrono also reads what PostgreSQL does not.
    (1..10_000)
        .contains(&moment.year())
        .then(|| moment.format("%Y-%m-%d %H:%M:%S").to_string())
}
