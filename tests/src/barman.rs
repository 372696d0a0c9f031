//! A real Barman for a cluster, with its home in the cluster's own directory.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::Result;

use crate::Cluster;
use crate::codec::Codec;
use crate::process::{self, Environment, OnOurEnd, tool};

/// The name that it has for the cluster.
pub const SERVER: &str = "main";

/// The Barman of a cluster.
#[derive(Debug)]
pub struct Barman {
    program: PathBuf,
    place: PathBuf,
}

impl Barman {
    /// Configures it for a cluster.
    ///
    /// # Errors
    /// When it is not installed, or its files cannot be written.
    pub fn new(cluster: &Cluster, codec: Option<Codec>) -> Result<Self> {
        let this = Self {
            program: tool("barman")?,
            place: cluster.place("barman"),
        };
        for directory in [this.place.clone(), this.server(), this.incoming(), this.wals()] {
            fs::create_dir_all(&directory)?;
            process::give_to_server(&directory)?;
        }
        let user = match &Environment::get()?.server_user {
            Some(user) => user.name.clone(),
            None => process::run(Command::new("id").arg("-un"))?.trim().to_owned(),
        };
        let compression = codec.map_or_else(String::new, |codec| format!("compression = {}\n", codec.program()));
        let conninfo = format!("host={} user=postgres dbname=postgres", cluster.socket().display());
        let place = this.place.display();
        let text = format!(
            "[barman]\nbarman_user = {user}\nbarman_home = {place}\nlog_file = {place}/log\n\
             [{SERVER}]\ndescription = {SERVER}\narchiver = on\nconninfo = {conninfo}\nstreaming_conninfo = {conninfo}\n\
             backup_method = postgres\nimmediate_checkpoint = true\npath_prefix = {}\n{compression}",
            cluster.server().bindir().display(),
        );
        fs::write(this.configuration(), text)?;
        Ok(this)
    }

    fn configuration(&self) -> PathBuf {
        self.place.join("barman.conf")
    }

    fn server(&self) -> PathBuf {
        self.place.join(SERVER)
    }

    /// Where the server puts WAL for Barman to take in.
    #[must_use]
    pub fn incoming(&self) -> PathBuf {
        self.server().join("incoming")
    }

    /// Where Barman keeps WAL, as `pg_backstop.archive_source` names it.
    #[must_use]
    pub fn wals(&self) -> PathBuf {
        self.server().join("wals")
    }

    /// An `archive_command` that waits for no cron job: Barman takes each file in at once.
    #[must_use]
    pub fn archive_command(&self) -> String {
        format!("{} && {}", self.plain_archive_command(), self.take_in())
    }

    /// The `archive_command` of Barman's manual.
    #[must_use]
    pub fn plain_archive_command(&self) -> String {
        format!("cp %p {}/%f", self.incoming().display())
    }

    /// A shell command that has Barman take in what has come.
    #[must_use]
    pub fn take_in(&self) -> String {
        format!(
            "{} -q -c {} archive-wal {SERVER}",
            self.program.display(),
            self.configuration().display()
        )
    }

    /// One of its commands (`backup`, `check`, `check-backup`, …) on the server.
    ///
    /// # Errors
    /// When the server's user is not there.
    pub fn command(&self, name: &str, more: &[&str]) -> Result<Command> {
        let mut command = process::program(&self.program, OnOurEnd::Kill)?;
        command
            .arg("-c")
            .arg(self.configuration())
            .args([name, SERVER])
            .args(more);
        Ok(command)
    }
}
