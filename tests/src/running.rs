//! The servers that this process has running, so that a signal handler can stop them all.

use std::collections::HashMap;
use std::process::{Child, ExitStatus};
use std::sync::{LazyLock, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result};
use rustix::process::{Pid, Signal, kill_process};

use crate::{Look, wait_until};

static SERVERS: LazyLock<Mutex<HashMap<u32, Child>>> = LazyLock::new(Mutex::default);

fn servers() -> MutexGuard<'static, HashMap<u32, Child>> {
    // A test that panicked elsewhere leaves the map whole.
    SERVERS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A server process that we started: shut down at once when dropped.
#[derive(Debug)]
pub struct Running {
    pid: u32,
}

impl Running {
    /// Takes charge of a server.
    pub fn new(server: Child) -> Self {
        let pid = server.id();
        servers().insert(pid, server);
        Self { pid }
    }

    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// How it ended, if it has.
    ///
    /// # Errors
    /// What the operating system says.
    pub fn ended(&self) -> Result<Option<ExitStatus>> {
        match servers().get_mut(&self.pid) {
            Some(server) => Ok(server.try_wait()?),
            None => Ok(None),
        }
    }

    /// Sends it a signal.
    ///
    /// # Errors
    /// When it has ended.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        signal_process(self.pid, signal)
    }

    /// Sends it a signal and waits for its end.
    ///
    /// # Errors
    /// When it does not end within the deadline.
    pub fn end(self, signal: Signal, deadline: Duration) -> Result<()> {
        self.signal(signal)?;
        wait_until("the server to end", deadline, || {
            Ok(if self.ended()?.is_some() {
                Look::Done(())
            } else {
                Look::not_yet("it runs")
            })
        })
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Not with the lock held: others have servers to stop meanwhile.
        let server = servers().remove(&self.pid);
        if let Some(server) = server {
            stop(server);
        }
    }
}

/// Sends a signal to any process.
///
/// # Errors
/// When there is no such process, or it is not ours.
pub fn signal_process(pid: u32, signal: Signal) -> Result<()> {
    let id = i32::try_from(pid)
        .ok()
        .and_then(Pid::from_raw)
        .with_context(|| format!("{pid} is no process id"))?;
    kill_process(id, signal).with_context(|| format!("sending {signal:?} to process {pid}"))
}

/// Stops every server of this process at once.
pub fn stop_all() {
    let all: Vec<Child> = servers().drain().map(|(_, server)| server).collect();
    all.into_iter().for_each(stop);
}

/// How long an immediate shutdown may take: the postmaster ends its children with SIGKILL after five seconds.
const IMMEDIATE: Duration = Duration::from_secs(15);

/// An immediate shutdown. What does not heed it, such as a shell whose caller has SIGQUIT ignored, is killed.
fn stop(mut server: Child) {
    if matches!(server.try_wait(), Ok(None)) {
        signal_process(server.id(), Signal::QUIT).ok();
        let ended = wait_until("the process to end", IMMEDIATE, || {
            Ok(match server.try_wait()? {
                Some(_) => Look::Done(()),
                None => Look::not_yet("it runs"),
            })
        });
        if ended.is_err() {
            server.kill().ok();
            server.wait().ok();
        }
    }
}
