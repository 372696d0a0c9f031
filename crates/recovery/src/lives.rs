//! Lives of a server: from one start, crash restart or promotion to the next. How one began, and whether it goes on where the
//! life before ended or is that of a copy.

use chrono::{DateTime, Utc};
use wal::Lsn;

/// The state in pg_control that a start found (DBState in pg_control.h).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ControlState {
    /// Never opened yet, or none that is known.
    Starting,
    /// Shut down in order.
    ShutDown,
    /// Shut down in order while it was in recovery.
    ShutDownInRecovery,
    /// It was about to be shut down.
    ShuttingDown,
    /// It was replaying WAL after a crash.
    InCrashRecovery,
    /// It was replaying archived WAL.
    InArchiveRecovery,
    /// It was open.
    InProduction,
}

impl ControlState {
    /// The state that pg_control has under this number.
    #[must_use]
    pub const fn from_number(number: u32) -> Self {
        match number {
            1 => Self::ShutDown,
            2 => Self::ShutDownInRecovery,
            3 => Self::ShuttingDown,
            4 => Self::InCrashRecovery,
            5 => Self::InArchiveRecovery,
            6 => Self::InProduction,
            _ => Self::Starting,
        }
    }

    /// Whether the time in pg_control is sure to be a sign of life of a server that was open. In recovery it is that of a start,
    /// which may have failed; and the checkpoint at its end counts as one of a shutdown (CreateCheckPoint() in xlog.c).
    #[must_use]
    pub const fn dates_life(self) -> bool {
        matches!(self, Self::InProduction)
    }
}

/// The files that tell a starting server what to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Signals {
    /// `standby.signal`
    pub standby: bool,
    /// `recovery.signal`
    pub recovery: bool,
    /// `backup_label`
    pub backup_label: bool,
}

/// How a life began, as far as that was certain at its start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Beginning {
    /// Nothing that is known.
    #[default]
    Unknown,
    /// It had been shut down in order: nothing was to be recovered.
    Planned,
    /// It had not been shut down in order.
    Crash,
    /// A restored backup with `recovery.signal`.
    Archive,
    /// A restored backup without a signal file: it replays what its own pg_wal holds, and stays on its timeline.
    Backup,
    /// With `standby.signal`.
    Standby,
}

impl Beginning {
    /// What the server will do, by the rules of InitWalRecovery() in xlogrecovery.c.
    #[must_use]
    pub const fn of(state: ControlState, signals: Signals) -> Self {
        match (signals, state) {
            (Signals { standby: true, .. }, _) => Self::Standby,
            (Signals { recovery: true, .. }, _) => Self::Archive,
            (Signals { backup_label: true, .. }, _) => Self::Backup,
            // A standby that was shut down, and whose signal file somebody took away, is opened as it is.
            (_, ControlState::ShutDown | ControlState::ShutDownInRecovery) => Self::Planned,
            (_, ControlState::ShuttingDown | ControlState::InCrashRecovery | ControlState::InProduction) => Self::Crash,
            (_, ControlState::Starting | ControlState::InArchiveRecovery) => Self::Unknown,
        }
    }

    /// The word in `server_lives.began`, once it accepts writes.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Planned => "start",
            Self::Crash => "crash",
            Self::Archive | Self::Backup => "restore",
            Self::Standby => "promotion",
        }
    }
}

/// Where a server lives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Home {
    /// Name of the machine.
    pub host: String,
    /// Path of the data directory.
    pub directory: String,
    /// Device and inode of the data directory, `device:inode`.
    pub identity: String,
}

/// What the last heartbeat of the life before tells of its place. No base backup holds that file, so where it is found the
/// directory is the same one or a copy of the files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Trace<'a> {
    /// Device and inode of the data directory then.
    pub identity: &'a str,
    /// Whether the machine was booted since; none where that cannot be told.
    pub same_boot: Option<bool>,
}

impl Home {
    /// Whether a life here is that of a copy, when the life before was at `before`.
    ///
    /// A recovery under the old name in the old place is no copy, though its directory may be new. Under another name it is the
    /// old directory only where its own heartbeat shows it, and the machine has run on: a snapshot of a disk has the same inodes.
    #[must_use]
    pub fn is_elsewhere(&self, before: &Self, trace: Option<Trace<'_>>) -> bool {
        let same_name = self.host == before.host && self.directory == before.directory;
        let same_directory =
            trace.is_some_and(|trace| trace.identity == self.identity && trace.same_boot == Some(true));
        !same_name && !same_directory
    }
}

/// What is known of how a copy came about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Copied {
    /// Where the original had last run, as far as the copy knows.
    pub host: String,
    /// Its data directory.
    pub directory: String,
    /// The identifier that both have.
    pub system_identifier: i64,
    /// Whether it was restored from a backup, rather than started from a copy of the files.
    pub restored: bool,
    /// The backup in the ledger.
    pub backup_id: Option<i64>,
    /// Its label.
    pub backup_label: Option<String>,
    /// Where the backup's WAL begins.
    pub backup_start: Option<Lsn>,
    /// How far it was recovered.
    pub recovered_to: Option<Lsn>,
    /// Time of the last commit in it.
    pub recovered_to_time: Option<DateTime<Utc>>,
    /// Since when it has accepted writes.
    pub since: DateTime<Utc>,
}

impl Copied {
    /// One sentence for whoever looks at the copy.
    #[must_use]
    pub fn sentence(&self) -> String {
        let time = |at: DateTime<Utc>| at.format("%Y-%m-%d %H:%M:%S UTC");
        let mut text = format!(
            "This is a copy of the cluster with the system identifier {} that ran in {} on {}, ",
            self.system_identifier, self.directory, self.host
        );
        text.push_str(match (self.restored, self.backup_id, self.backup_start) {
            (false, ..) => "started from a copy of its files",
            (true, None, None) => "restored from a backup",
            (true, ..) => "restored from ",
        });
        if self.restored {
            match (self.backup_id, self.backup_start) {
                (Some(id), _) => text.push_str(&format!("backup {id}")),
                (None, Some(start)) => text.push_str(&format!("a backup that begins at {start}")),
                (None, None) => {}
            }
            if let Some(label) = &self.backup_label {
                text.push_str(&format!(" (\"{label}\")"));
            }
        }
        if let Some(lsn) = self.recovered_to {
            text.push_str(&format!(", recovered to {lsn}"));
            if let Some(at) = self.recovered_to_time {
                text.push_str(&format!(" and the commit of {}", time(at)));
            }
        }
        text.push_str(&format!("; it has accepted writes since {}.", time(self.since)));
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn home(host: &str, directory: &str, identity: &str) -> Home {
        Home {
            host: host.to_owned(),
            directory: directory.to_owned(),
            identity: identity.to_owned(),
        }
    }

    #[test]
    fn a_start_is_what_the_control_file_and_the_signal_files_make_it() {
        let none = Signals::default();
        assert_eq!(Beginning::of(ControlState::ShutDown, none), Beginning::Planned);
        assert_eq!(Beginning::of(ControlState::InProduction, none), Beginning::Crash);
        assert_eq!(Beginning::of(ControlState::ShuttingDown, none), Beginning::Crash);
        assert_eq!(Beginning::of(ControlState::Starting, none), Beginning::Unknown);
        let label = Signals {
            backup_label: true,
            ..none
        };
        assert_eq!(Beginning::of(ControlState::InProduction, label), Beginning::Backup);
        let recovery = Signals {
            recovery: true,
            ..label
        };
        assert_eq!(Beginning::of(ControlState::ShutDown, recovery), Beginning::Archive);
        let standby = Signals {
            standby: true,
            ..recovery
        };
        assert_eq!(Beginning::of(ControlState::ShutDown, standby), Beginning::Standby);
    }

    #[test]
    fn a_start_that_failed_is_no_sign_of_life() {
        let dates_life = |number| ControlState::from_number(number).dates_life();
        assert_eq!([3, 4, 5, 6].map(dates_life), [false, false, false, true]);
    }

    #[test]
    fn what_is_recovered_in_place_is_no_copy_and_what_runs_elsewhere_is_one() {
        let before = home("a", "/data", "1:2");
        let restored = home("a", "/data", "1:99");
        assert!(!restored.is_elsewhere(&before, None));
        assert!(home("b", "/data", "1:99").is_elsewhere(&before, None));
        assert!(home("a", "/other", "1:99").is_elsewhere(&before, None));
    }

    #[test]
    fn a_directory_that_got_another_name_is_no_copy_but_a_snapshot_of_its_disk_is_one() {
        let before = home("a", "/data", "1:2");
        let trace = |same_boot| {
            Some(Trace {
                identity: "1:2",
                same_boot,
            })
        };
        assert!(!home("container-2", "/data", "1:2").is_elsewhere(&before, trace(Some(true))));
        assert!(home("b", "/data", "1:2").is_elsewhere(&before, trace(Some(false))));
        assert!(home("b", "/data", "1:2").is_elsewhere(&before, trace(None)));
        assert!(home("a", "/copy", "1:3").is_elsewhere(&before, trace(Some(true))));
    }

    #[test]
    fn the_sentence_says_of_what_from_what_and_to_where() {
        let mut copied = Copied {
            host: "db1".to_owned(),
            directory: "/var/lib/pg".to_owned(),
            system_identifier: 7,
            restored: true,
            backup_id: Some(3),
            backup_label: Some("weekly".to_owned()),
            backup_start: Some(Lsn(0x100_0028)),
            recovered_to: Some(Lsn(0x200_0000)),
            recovered_to_time: DateTime::from_timestamp_micros(0),
            since: DateTime::UNIX_EPOCH,
        };
        assert_eq!(
            copied.sentence(),
            "This is a copy of the cluster with the system identifier 7 that ran in /var/lib/pg on db1, restored from backup 3 \
             (\"weekly\"), recovered to 0/2000000 and the commit of 1970-01-01 00:00:00 UTC; it has accepted writes since \
             1970-01-01 00:00:00 UTC."
        );
        copied.backup_id = None;
        copied.backup_label = None;
        assert!(
            copied
                .sentence()
                .contains("restored from a backup that begins at 0/1000028, ")
        );
        copied.backup_start = None;
        assert!(copied.sentence().contains("restored from a backup, "));
        copied.restored = false;
        assert!(copied.sentence().contains("started from a copy of its files, "));
    }

    proptest! {
        #[test]
        fn the_same_name_in_the_same_place_is_never_a_copy(host in "[a-z]{1,5}", directory in "/[a-z]{1,5}", one in "[0-9]:[0-9]", other in "[0-9]:[0-9]") {
            prop_assert!(!home(&host, &directory, &one).is_elsewhere(&home(&host, &directory, &other), None));
        }
    }
}
