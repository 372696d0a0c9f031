//! What a cluster is to be like.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

use crate::process;

/// How a cluster is made and configured, in addition to `pgrx-config/postgresql.conf`.
#[derive(Clone, Debug)]
pub struct Settings {
    pub(crate) segment_mb: u32,
    pub(crate) own_identity: bool,
    pub(crate) initdb: Vec<String>,
    lines: Vec<(String, String)>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            segment_mb: 1,
            own_identity: false,
            initdb: Vec::new(),
            lines: Vec::new(),
        }
    }
}

impl Settings {
    /// Segments of 1 MB, archived by `cp`, with the extension's library loaded.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The size of a WAL segment, in MB.
    #[must_use]
    pub fn segment_mb(mut self, megabytes: u32) -> Self {
        self.segment_mb = megabytes;
        self
    }

    /// An option of initdb; it comes after those for UTF-8 and the locale C, and wins.
    #[must_use]
    pub fn initdb(mut self, option: &str) -> Self {
        self.initdb.push(option.to_owned());
        self
    }

    /// With a system identifier that no other cluster of this process has. Clusters share theirs otherwise, because they
    /// are copies of one template.
    #[must_use]
    pub fn own_identity(mut self) -> Self {
        self.own_identity = true;
        self
    }

    /// A server that does not load the extension's library at its start.
    #[must_use]
    pub fn without_library(self) -> Self {
        self.set("shared_preload_libraries", "")
    }

    /// A line of `postgresql.conf`; the value is quoted here. A later line wins.
    #[must_use]
    pub fn set(mut self, name: &str, value: &str) -> Self {
        self.lines.push((name.to_owned(), value.to_owned()));
        self
    }

    /// The text of `postgresql.conf` for a cluster with this socket directory and this archive.
    pub(crate) fn file(&self, socket: &Path, archive_command: &str) -> Result<String> {
        let shared = process::repository().join("pgrx-config/postgresql.conf");
        let mut text = fs::read_to_string(&shared).with_context(|| shared.display().to_string())?;
        let own = [
            ("unix_socket_directories", format!("\"{}\"", socket.display())),
            ("archive_command", archive_command.to_owned()),
            // As initdb sets them: by the number of segments, not of bytes.
            ("min_wal_size", format!("{}MB", 5 * self.segment_mb)),
            ("max_wal_size", format!("{}MB", 64 * self.segment_mb)),
        ];
        let own = own.iter().map(|(name, value)| (*name, value.as_str()));
        for (name, value) in own.chain(self.lines.iter().map(|(name, value)| (name.as_str(), value.as_str()))) {
            writeln!(text, "{name} = '{}'", value.replace('\\', r"\\").replace('\'', "''"))?;
        }
        Ok(text)
    }
}
