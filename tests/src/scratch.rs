//! The directory under which this process keeps everything that it makes, and its removal whatever happens.
//!
//! One directory a process, open to the server's user. A shell in the background waits for this process to end, however it
//! ends (a pipe tells it), and removes the directory then; the signal handler stops the servers first.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::{Look, process, running, wait_until};

/// The exit status of a shell whose program was interrupted.
const EXIT_INTERRUPTED: i32 = 130;

/// Set as soon as a signal has come.
static INTERRUPTED: AtomicBool = AtomicBool::new(false);

struct Root {
    path: PathBuf,
    /// Its standard input closes when we end, and not before.
    _remover: Child,
}

/// The directory of this process, made when first asked for.
///
/// # Errors
/// When the temporary directory cannot be written.
pub fn root() -> Result<&'static Path> {
    static ROOT: OnceLock<Result<Root, String>> = OnceLock::new();
    let root = ROOT.get_or_init(|| make_root().map_err(|error| format!("{error:#}")));
    root.as_ref()
        .map(|root| root.path.as_path())
        .map_err(|error| anyhow::anyhow!("{error}"))
}

fn make_root() -> Result<Root> {
    let path = tempfile::Builder::new()
        .prefix("pg_backstop-")
        .tempdir_in(parent())?
        .keep();
    fs::set_permissions(&path, Permissions::from_mode(0o755))?;
    // A server that is just ending may still write, hence the second and third try.
    let script =
        r#"trap '' INT TERM HUP; cat; for pause in 0.2 1 5; do rm -rf "$0" && exit; sleep $pause; done; rm -rf "$0""#;
    let mut remover = Command::new("sh");
    remover.args(["-c", script]).arg(&path).current_dir("/");
    remover
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    let _remover = process::spawn(&mut remover).context("sh")?;
    let doomed = path.clone();
    let handled = ctrlc::set_handler(move || {
        INTERRUPTED.store(true, Ordering::SeqCst);
        running::stop_all();
        remove(&doomed);
        std::process::exit(EXIT_INTERRUPTED);
    });
    handled.context("installing the signal handler")?;
    Ok(Root { path, _remover })
}

/// To be called where the program has failed and is about to end: a signal makes everything fail that goes on, and then the
/// signal handler, which may be a moment late, has the last word.
pub fn leave_to_signal_handler() {
    let interrupted = wait_until("a signal", Duration::from_millis(300), || {
        Ok(if INTERRUPTED.load(Ordering::SeqCst) {
            Look::Done(())
        } else {
            Look::not_yet("none")
        })
    });
    while interrupted.is_ok() {
        thread::park();
    }
}

/// Socket paths may not pass 107 bytes, so a long temporary directory will not do.
fn parent() -> PathBuf {
    let parent = std::env::temp_dir();
    if parent.as_os_str().len() <= 60 {
        parent
    } else {
        PathBuf::from("/tmp")
    }
}

/// Removes a directory with all that is in it, also what a server that is just ending still writes there.
pub fn remove(path: &Path) {
    let gone = wait_until("the directory to be removable", Duration::from_secs(10), || {
        Ok(match fs::remove_dir_all(path) {
            Err(error) if path.exists() => Look::not_yet(error),
            _ => Look::Done(()),
        })
    });
    if let Err(error) = gone {
        eprintln!("{} could not be removed: {error}", path.display());
    }
}

/// A directory of its own, owned by the server's user, removed on drop.
#[derive(Debug)]
pub struct Scratch {
    path: PathBuf,
}

impl Scratch {
    /// Makes one. The name is short, because sockets live in it.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn new() -> Result<Self> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let path = root()?.join(NEXT.fetch_add(1, Ordering::Relaxed).to_string());
        fs::create_dir(&path).with_context(|| path.display().to_string())?;
        let scratch = Self { path };
        process::give_to_server(&scratch.path)?;
        Ok(scratch)
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        remove(&self.path);
    }
}
