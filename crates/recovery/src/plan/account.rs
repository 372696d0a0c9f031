//! What the steps of a recovery depend on: the server, what lies on disk of the backup, and where it goes.

use chrono::{DateTime, Utc};

use super::{Choice, Destination, Tool};

/// `recovery_target_action`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// The server takes writes as soon as the target is reached.
    Promote,
    /// It waits at the target, so that somebody can look before that.
    Pause,
}

impl Action {
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Promote => "promote",
            Self::Pause => "pause",
        }
    }
}

/// The running server, as far as the steps depend on it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Site {
    /// Its major version.
    pub major: u32,
    /// Whether it is a standby, which cannot record anything.
    pub is_standby: bool,
    /// Where its programs are.
    pub bindir: String,
    /// Its configuration file, where that lies outside of the data directory.
    pub config_file: Option<String>,
    /// Its port.
    pub port: u16,
    /// The directory of its socket; none where it has no socket.
    pub socket: Option<String>,
    /// The role that initdb made: who may surely connect after a recovery.
    pub superuser: String,
    /// The database that the extension is in.
    pub database: String,
    /// The schema that the extension is in, quoted for SQL.
    pub schema: String,
    /// Its tablespaces and where they are.
    pub tablespaces: Vec<(u32, String)>,
}

/// What lies on disk of a backup.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum Copied {
    /// Where it is, is not on record.
    Nowhere,
    /// It could not be looked at.
    Unseen {
        /// Its path.
        path: String,
        /// Why.
        why: String,
    },
    /// A data directory.
    Plain {
        /// Its path.
        path: String,
        /// Its tablespaces, with the directory that each was copied to.
        tablespaces: Vec<Tablespace>,
        /// Where its pg_wal is, if that is a link to a place that is the backup's own.
        wal: Option<String>,
    },
    /// What `pg_basebackup --format=tar` writes.
    Tar {
        /// The directory.
        path: String,
        /// The name of the data directory's file.
        base: String,
        /// The name of pg_wal's.
        wal: Option<String>,
        /// Its tablespaces, with the path of each one's file.
        tablespaces: Vec<Tablespace>,
    },
}

/// A tablespace in a backup.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Tablespace {
    /// Its OID.
    pub oid: u32,
    /// Where the backup has it.
    pub from: String,
}

/// One backup of a chain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    /// Its id.
    pub backup: i64,
    /// What lies on disk of it.
    pub copied: Copied,
}

/// All that the steps tell of.
#[derive(Debug, Clone, PartialEq)]
pub struct Account {
    /// How the target is reached.
    pub choice: Choice,
    /// The backup and what it builds on, the full one first.
    pub chain: Vec<Link>,
    /// The tool that keeps it, if one does.
    pub tool: Option<Tool>,
    /// When it was consistent.
    pub backup_at: Option<DateTime<Utc>>,
    /// Now.
    pub now: DateTime<Utc>,
    /// Where to.
    pub to: Destination,
    /// What fetches WAL; none where nothing says how.
    pub restore_command: Option<String>,
    /// At the target.
    pub action: Action,
    /// How long a recovery is predicted to take, in seconds.
    pub predicted: Option<f64>,
}
