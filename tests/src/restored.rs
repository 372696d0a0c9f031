//! What the printed commands of recovery_plan() make: a server of its own, gone when dropped.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use postgres::NoTls;

use crate::cluster::text_in;
use crate::process::{self, OnOurEnd};
use crate::{Cluster, Server};

/// A server that a plan has started.
#[derive(Debug)]
pub struct Restored {
    data: PathBuf,
    socket: PathBuf,
    server: Server,
}

impl Restored {
    /// The server in a data directory, which answers on a socket in another one; whether it runs yet does not matter.
    #[must_use]
    pub fn of(cluster: &Cluster, data: PathBuf, socket: PathBuf) -> Self {
        Self {
            data,
            socket,
            server: cluster.server().clone(),
        }
    }

    /// Its data directory.
    #[must_use]
    pub fn data(&self) -> &Path {
        &self.data
    }

    /// Runs SQL and gives its rows as `psql -At` shows them.
    ///
    /// # Errors
    /// What the server says.
    pub fn text(&self, sql: &str) -> Result<String> {
        let mut config = postgres::Config::new();
        config
            .host_path(&self.socket)
            .port(5432)
            .user("postgres")
            .dbname("postgres");
        text_in(&mut config.connect(NoTls)?, sql)
    }
}

impl Drop for Restored {
    fn drop(&mut self) {
        if let Ok(mut command) = self.server.program("pg_ctl") {
            command.args(["stop", "-m", "immediate", "-D"]).arg(&self.data);
            process::run(&mut command).ok();
        }
    }
}

/// The printed commands for these arguments, one after the other as they are.
///
/// # Errors
/// Where there is no plan.
pub fn commands(cluster: &Cluster, arguments: &str) -> Result<String> {
    cluster.text(&format!(
        "SELECT string_agg(command, E'\\n' ORDER BY step) FROM recovery_plan({arguments})"
    ))
}

/// Runs commands in bash, as the server's user, until one fails.
///
/// # Errors
/// When one does; the message holds all of them and what they said.
pub fn run(cluster: &Cluster, name: &str, commands: &str) -> Result<()> {
    let script = cluster.place(&format!("{name}.sh"));
    fs::write(&script, commands)?;
    process::run(process::program("bash", OnOurEnd::Kill)?.arg("-e").arg(&script))
        .map(drop)
        .with_context(|| commands.to_owned())
}

/// Runs what is printed for these arguments and a data directory of that name beside the cluster's own.
///
/// # Errors
/// Where there is no plan, or a command fails.
pub fn carried_out(cluster: &Cluster, name: &str, arguments: &str) -> Result<Restored> {
    let data = cluster.place(name);
    let separator = if arguments.is_empty() { "" } else { ", " };
    let commands = commands(
        cluster,
        &format!("{arguments}{separator}data_directory => '{}'", data.display()),
    )?;
    let restored = Restored::of(cluster, data.clone(), data);
    run(cluster, name, &commands)?;
    Ok(restored)
}
