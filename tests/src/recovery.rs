//! Recovering a base backup with the WAL of an archive, as an operator would, to see what the server makes of it.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail};

use crate::{Cluster, Settings, template};

/// How a recovery ended.
#[derive(Debug)]
pub enum Recovery {
    /// The server reached its target, was promoted, and takes connections.
    Reached(Box<Cluster>),
    /// The server gave up; this is why.
    Refused(String),
}

impl Recovery {
    /// The recovered cluster.
    ///
    /// # Errors
    /// When the server refused.
    pub fn reached(self) -> Result<Cluster> {
        match self {
            Self::Reached(cluster) => Ok(*cluster),
            Self::Refused(why) => bail!("the server refused: {why}"),
        }
    }

    /// What the server said when it gave up.
    ///
    /// # Errors
    /// When it did not.
    pub fn refused(self) -> Result<String> {
        match self {
            Self::Refused(why) => Ok(why),
            Self::Reached(cluster) => bail!(
                "the server reached a target that it should not, at {}",
                cluster.text("SELECT pg_last_wal_replay_lsn()")?
            ),
        }
    }
}

impl Cluster {
    /// Recovers a copy of a plain base backup, see [`Self::restore`].
    ///
    /// # Errors
    /// When the copy cannot be made, or the server ends without saying why.
    pub fn recover(&self, backup: &Path, target: &[(&str, &str)]) -> Result<Recovery> {
        let mut copy = self.restore(backup, target)?;
        match copy.start_server() {
            Ok(()) => Ok(Recovery::Reached(Box::new(copy))),
            Err(error) => {
                let log = copy.log()?;
                // Whoever tried to connect meanwhile was told so as a FATAL too.
                let why = log
                    .lines()
                    .rev()
                    .filter_map(|line| line.split_once("FATAL:  "))
                    .find(|(_, why)| !why.starts_with("the database system is"));
                match why {
                    Some((_, why)) => Ok(Recovery::Refused(why.to_owned())),
                    None => Err(error),
                }
            }
        }
    }

    /// Copies a plain base backup of this cluster to a place beside it, where the next start recovers it with the WAL that the
    /// archive has then. `target` are the settings `recovery_target_*`; none means all WAL. The copy archives nothing, does not
    /// load the extension's library, and takes no connection before the end of recovery.
    ///
    /// # Errors
    /// When the copy cannot be made.
    pub fn restore(&self, backup: &Path, target: &[(&str, &str)]) -> Result<Cluster> {
        let mut settings = self
            .settings()
            .clone()
            .without_library()
            .set("archive_mode", "off")
            .set("hot_standby", "off")
            .set("recovery_target_action", "promote");
        for (name, value) in target {
            settings = settings.set(name, value);
        }
        self.restored(backup, settings)
    }

    /// Another cluster, restored from a plain base backup of this one, that will replay this one's archive when it is started. It
    /// has an archive of its own.
    ///
    /// # Errors
    /// When the backup cannot be copied.
    pub fn restored(&self, backup: &Path, settings: Settings) -> Result<Self> {
        let settings = settings.set("restore_command", &self.archive().fetch_command());
        let copy = Self::empty(self.server().clone(), settings, None)?;
        template::copy(backup, &copy.data())?;
        fs::write(copy.data().join("recovery.signal"), "")?;
        copy.configure()?;
        Ok(copy)
    }

    /// Puts a plain base backup in the place of the stopped server's data directory, to replay the archive when it is started.
    ///
    /// # Errors
    /// When the backup cannot be copied.
    pub fn restore_in_place(&mut self, backup: &Path) -> Result<()> {
        fs::rename(self.data(), self.place("data before"))?;
        template::copy(backup, &self.data())?;
        fs::write(self.data().join("recovery.signal"), "")?;
        let command = self.archive().fetch_command();
        self.set("restore_command", &command)
    }

    /// How long the server replayed WAL at its last start, in seconds, as it logged it.
    ///
    /// # Errors
    /// When it did not.
    pub fn replay_seconds(&self) -> Result<f64> {
        let log = self.log()?;
        let elapsed = log
            .lines()
            .rev()
            .find(|line| line.contains("redo done at"))
            .and_then(|line| line.split_once("elapsed: "))
            .and_then(|(_, elapsed)| elapsed.strip_suffix(" s"));
        Ok(elapsed.context("nothing was replayed")?.parse()?)
    }
}
