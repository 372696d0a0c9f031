//! An installed PostgreSQL server: its programs and its major version.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use anyhow::{Context, Result, ensure};

use crate::process::{self, Environment, OnOurEnd};

/// The server that clusters are made of.
#[derive(Clone, Debug)]
pub struct Server {
    bindir: PathBuf,
    major: u32,
}

impl Server {
    /// The server of `PG_CONFIG`, else the newest that `pgrx-config/setup.sh` provides.
    ///
    /// # Errors
    /// When neither is there.
    pub fn chosen() -> Result<&'static Self> {
        static CHOSEN: OnceLock<Result<Server, String>> = OnceLock::new();
        let chosen = CHOSEN.get_or_init(|| Self::choose().map_err(|error| format!("{error:#}")));
        chosen.as_ref().map_err(|error| anyhow::anyhow!("{error}"))
    }

    fn choose() -> Result<Self> {
        if let Some(config) = std::env::var_os("PG_CONFIG") {
            return Self::of(Path::new(&config));
        }
        let list = Environment::get()?.cache.join("servers");
        let text =
            fs::read_to_string(&list).with_context(|| format!("{}: run pgrx-config/setup.sh", list.display()))?;
        let config = text
            .lines()
            .next()
            .and_then(|line| line.split_once(' '))
            .context("it names no server")?
            .1;
        Self::of(Path::new(config))
    }

    fn of(config: &Path) -> Result<Self> {
        let ask = |what| process::run(Command::new(config).arg(what)).map(|answer| answer.trim().to_owned());
        let bindir = PathBuf::from(ask("--bindir")?);
        let version = ask("--version")?;
        let digits = version
            .trim_start_matches("PostgreSQL ")
            .split(|c: char| !c.is_ascii_digit())
            .next();
        let major = digits
            .and_then(|digits| digits.parse().ok())
            .with_context(|| format!("no version in {version:?}"))?;
        ensure!(bindir.join("postgres").exists(), "{} holds no server", bindir.display());
        Ok(Self { bindir, major })
    }

    /// Its major version.
    #[must_use]
    pub fn major(&self) -> u32 {
        self.major
    }

    /// Where its programs are.
    #[must_use]
    pub fn bindir(&self) -> &Path {
        &self.bindir
    }

    /// One of its programs, to be started as the server's user; it does not outlive us.
    ///
    /// # Errors
    /// When that user is not there.
    pub fn program(&self, name: &str) -> Result<Command> {
        process::program(self.bindir.join(name), OnOurEnd::Kill)
    }

    /// The server program itself, which shuts down when we end.
    ///
    /// # Errors
    /// When its user is not there.
    pub fn postgres(&self) -> Result<Command> {
        process::program(self.bindir.join("postgres"), OnOurEnd::Quit)
    }
}
