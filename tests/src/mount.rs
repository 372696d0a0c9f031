//! A mount of a directory whose server can be stopped: from then on a system call on it does not return, as on a network
//! file system whose server is gone.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result};
use rustix::process::Signal;

use crate::process::{Environment, spawn, tool};
use crate::running::signal_process;
use crate::wait::{Look, SOON, wait_until};

/// A directory seen through a user-space file system.
#[derive(Debug)]
pub struct Mount {
    at: PathBuf,
    server: Child,
}

impl Mount {
    /// Shows `directory` at `at`, which is made.
    ///
    /// # Errors
    /// When this machine allows no user-space file systems.
    pub fn of(directory: &Path, at: &Path) -> Result<Self> {
        std::fs::create_dir(at)?;
        let mut command = Command::new(tool("bindfs")?);
        command.arg("-f");
        if Environment::get()?.server_user.is_some() {
            command.args(["-o", "allow_other"]);
        }
        command.arg(directory).arg(at).stdin(Stdio::null());
        let server = spawn(&mut command).context("starting bindfs")?;
        let mut mount = Self {
            at: at.to_owned(),
            server,
        };
        wait_until("bindfs to mount", SOON, || {
            if let Some(status) = mount.server.try_wait()? {
                anyhow::bail!("bindfs ended: {status}");
            }
            let mounts = std::fs::read_to_string("/proc/self/mounts")?;
            Ok(if mounts.contains(&format!(" {} ", at.display())) {
                Look::Done(())
            } else {
                Look::not_yet("not mounted")
            })
        })?;
        Ok(mount)
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.at
    }

    /// Makes it hang.
    ///
    /// # Errors
    /// When its server is gone.
    pub fn hang(&self) -> Result<()> {
        signal_process(self.server.id(), Signal::STOP)
    }

    /// Makes it answer again.
    ///
    /// # Errors
    /// When its server is gone.
    pub fn answer(&self) -> Result<()> {
        signal_process(self.server.id(), Signal::CONT)
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        // What waits for it gets an error, and the mount point is free.
        self.server.kill().ok();
        self.server.wait().ok();
        for unmount in [&["umount", "-l"][..], &["fusermount", "-u", "-z"]] {
            let Some((program, options)) = unmount.split_first() else {
                continue;
            };
            let mut command = Command::new(program);
            command.args(options).arg(&self.at).stderr(Stdio::null());
            if spawn(&mut command).is_ok_and(|mut child| child.wait().is_ok_and(|status| status.success())) {
                return;
            }
        }
    }
}
