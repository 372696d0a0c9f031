//! A directory of a server whose disk can be full.
//!
//! A file system of a few megabytes, mounted where only the server sees it, so that it is gone with the server. Where such a
//! mount is not allowed, as in many containers, a library between server and kernel refuses what would make files longer.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use anyhow::{Context, Result};

use crate::process::{self, Environment};
use crate::{Cluster, scratch};

/// Small, and more than the tables of a test need.
const MEGABYTES: u32 = 8;

/// Where the directory is in a cluster's own.
pub(crate) fn place(cluster: &Path) -> PathBuf {
    cluster.join("small disk")
}

fn flag(cluster: &Path) -> PathBuf {
    cluster.join("small disk is full")
}

/// The disk of a cluster that was made with [`Cluster::give_small_disk`].
#[derive(Debug)]
pub struct SmallDisk<'a>(&'a Cluster);

impl<'a> SmallDisk<'a> {
    /// That of this cluster, which runs.
    #[must_use]
    pub fn of(cluster: &'a Cluster) -> Self {
        Self(cluster)
    }

    /// The directory: empty, and the server's.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        place(self.0.socket())
    }

    /// Leaves no room on it.
    ///
    /// # Errors
    /// When the server does not take it.
    pub fn fill(&self) -> Result<()> {
        fs::write(flag(self.0.socket()), "")?;
        // The mount is the server's, so that a program which the server starts must write there.
        self.run("head -c 1G /dev/zero > filler; true")
    }

    /// Gives the room back.
    ///
    /// # Errors
    /// When the server does not take it.
    pub fn free(&self) -> Result<()> {
        self.run("rm filler")?;
        Ok(fs::remove_file(flag(self.0.socket()))?)
    }

    fn run(&self, command: &str) -> Result<()> {
        if mount()?.is_none() {
            return Ok(());
        }
        let sql = format!(
            "COPY (SELECT) TO PROGRAM 'cd \"{}\" && {command}'",
            self.path().display()
        );
        self.0.text(&sql).map(drop)
    }
}

/// Has a server start with the small disk of the cluster at `cluster`.
pub(crate) fn with_small_disk(server: &Command, cluster: &Path) -> Result<Command> {
    let place = place(cluster);
    fs::create_dir_all(&place)?;
    process::give_to_server(&place)?;
    let mut command = match mount()? {
        Some(mount) => mount.command(&place, server),
        None => {
            let mut command = Command::new(server.get_program());
            command.args(server.get_args()).env("LD_PRELOAD", preloaded()?);
            command
                .env("BACKSTOP_FULL_DIRECTORY", &place)
                .env("BACKSTOP_FULL_FLAG", flag(cluster));
            command
        }
    };
    for (name, value) in server.get_envs() {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
    if let Some(directory) = server.get_current_dir() {
        command.current_dir(directory);
    }
    Ok(command)
}

/// How a mount of the server's own is made.
struct Mount {
    unshare: &'static [&'static str],
    options: String,
    /// Before the server's own command.
    then: Vec<String>,
}

impl Mount {
    fn command(&self, place: &Path, server: &Command) -> Command {
        let mut command = Command::new("unshare");
        let script = format!("mount -t tmpfs -o {} none \"$0\" && exec \"$@\"", self.options);
        command.args(self.unshare).args(["sh", "-c", &script]).arg(place);
        command
            .args(&self.then)
            .arg(server.get_program())
            .args(server.get_args());
        command
    }
}

/// `None` where it is not allowed.
fn mount() -> Result<Option<&'static Mount>> {
    static MOUNT: OnceLock<Result<Option<Mount>, String>> = OnceLock::new();
    let mount = MOUNT.get_or_init(|| try_mount().map_err(|error| format!("{error:#}")));
    mount
        .as_ref()
        .map(Option::as_ref)
        .map_err(|error| anyhow::anyhow!("{error}"))
}

fn try_mount() -> Result<Option<Mount>> {
    let mount = match &Environment::get()?.server_user {
        Some(user) => Mount {
            unshare: &["--mount"],
            options: format!("size={MEGABYTES}m,mode=0700,uid={},gid={}", user.uid, user.gid),
            then: Vec::new(),
        },
        // Root in a namespace of one's own may mount; as root the server would not run, so there is another one in it.
        None => Mount {
            unshare: &["--user", "--map-root-user", "--mount"],
            options: format!("size={MEGABYTES}m,mode=0700"),
            then: [
                "unshare".to_owned(),
                "--user".to_owned(),
                format!("--map-user={}", rustix::process::getuid().as_raw()),
                format!("--map-group={}", rustix::process::getgid().as_raw()),
            ]
            .into(),
        },
    };
    let place = scratch::Scratch::new()?;
    let tried = process::output(&mut mount.command(place.path(), &Command::new("true")))?;
    if !tried.status.success() {
        eprintln!(
            "no mount of one's own here, so a library stands in for a full disk: {}",
            String::from_utf8_lossy(&tried.stderr).trim()
        );
        return Ok(None);
    }
    Ok(Some(mount))
}

fn preloaded() -> Result<OsString> {
    static BUILT: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    let build = || -> Result<PathBuf> {
        let (source, library) = (
            scratch::root()?.join("full_disk.c"),
            scratch::root()?.join("full_disk.so"),
        );
        fs::write(&source, include_str!("full_disk.c"))?;
        let mut cc = Command::new("cc");
        process::run(
            cc.args(["-shared", "-fPIC", "-O1", "-o"])
                .arg(&library)
                .arg(&source)
                .arg("-ldl"),
        )
        .context("a C compiler is needed")?;
        Ok(library)
    };
    let built = BUILT.get_or_init(|| build().map_err(|error| format!("{error:#}")));
    built
        .as_ref()
        .map(|library| library.clone().into_os_string())
        .map_err(|error| anyhow::anyhow!("{error}"))
}
