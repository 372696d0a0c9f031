//! A real pgBackRest for a cluster, with its repository in the cluster's own directory.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result};

use crate::codec::Codec;
use crate::process::{self, OnOurEnd};
use crate::{Cluster, process::tool};

/// The stanza's name.
pub const STANZA: &str = "main";

/// The pgBackRest of a cluster.
#[derive(Debug)]
pub struct PgBackRest {
    program: PathBuf,
    place: PathBuf,
}

impl PgBackRest {
    /// Configures it for a cluster. See [`Self::create_stanza`].
    ///
    /// # Errors
    /// When it is not installed, or its files cannot be written.
    pub fn new(cluster: &Cluster, codec: Option<Codec>) -> Result<Self> {
        let place = cluster.place("pgbackrest");
        let this = Self {
            program: tool("pgbackrest")?,
            place,
        };
        fs::create_dir_all(&this.place)?;
        process::give_to_server(&this.place)?;
        let compress = match codec {
            None => "none",
            Some(Codec::Gzip | Codec::Pigz) => "gz",
            Some(Codec::Bzip2) => "bz2",
            Some(Codec::Zstd) => "zst",
            Some(Codec::Lz4) => "lz4",
            Some(codec) => anyhow::bail!("pgBackRest does not compress with {}", codec.program()),
        };
        let place = this.place.display();
        let text = format!(
            "[global]\nrepo1-path={}\nrepo1-retention-full=9\nlock-path={place}/lock\nlog-path={place}\nspool-path={place}/spool\n\
             log-level-file=off\nlog-level-console=warn\ncompress-type={compress}\nstart-fast=y\narchive-timeout=30\n\
             [{STANZA}]\npg1-path={}\npg1-socket-path={}\npg1-user=postgres\n",
            this.repository().display(),
            cluster.data().display(),
            cluster.socket().display(),
        );
        fs::write(this.configuration(), text)?;
        Ok(this)
    }

    fn configuration(&self) -> PathBuf {
        self.place.join("pgbackrest.conf")
    }

    /// The repository.
    #[must_use]
    pub fn repository(&self) -> PathBuf {
        self.place.join("repo")
    }

    /// The stanza's archive in it, as `pg_backstop.archive_source` names it.
    #[must_use]
    pub fn archive(&self) -> PathBuf {
        self.repository().join("archive").join(STANZA)
    }

    /// The `archive_command`.
    #[must_use]
    pub fn archive_command(&self) -> String {
        format!(
            "{} --config={} --stanza={STANZA} archive-push %p",
            self.program.display(),
            self.configuration().display()
        )
    }

    /// One of its commands (`backup`, `check`, `verify`, …) on the stanza.
    ///
    /// # Errors
    /// When the server's user is not there.
    pub fn command(&self, name: &str) -> Result<Command> {
        let mut command = process::program(&self.program, OnOurEnd::Kill)?;
        command.arg(format!("--config={}", self.configuration().display()));
        command.arg(format!("--stanza={STANZA}")).arg(name);
        Ok(command)
    }

    /// Makes the stanza; the server runs.
    ///
    /// # Errors
    /// When that fails.
    pub fn create_stanza(&self) -> Result<()> {
        process::run(&mut self.command("stanza-create")?)
            .context("making the stanza")
            .map(drop)
    }
}
