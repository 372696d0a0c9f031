//! The one place that starts a process: as the server's user, and never outliving this one.
//!
//! `setpriv` (util-linux) does both. It asks the kernel to signal the child when its parent ends, and as root it changes to
//! the unprivileged user first, since PostgreSQL refuses to run as root. The kernel means the parent *thread*, and tests run
//! on threads that end with them, so one thread that lives as long as this process starts everything.

use std::io;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::OnceLock;
use std::sync::mpsc::{Sender, channel};
use std::thread;

use anyhow::{Context, Result, bail, ensure};

/// What `pgrx-config/cache.env` says: where caches live and whom servers run as.
#[derive(Debug)]
pub struct Environment {
    /// The cache folder.
    pub cache: PathBuf,
    /// The user that servers run as; `None` when that is us.
    pub server_user: Option<User>,
}

/// An account of this machine.
#[derive(Debug)]
pub struct User {
    /// Its name.
    pub name: String,
    /// Its user id.
    pub uid: u32,
    /// Its group id.
    pub gid: u32,
}

impl Environment {
    /// Reads `cache.env` once.
    ///
    /// # Errors
    /// When the file or the account that it names is not there.
    pub fn get() -> Result<&'static Self> {
        static ENVIRONMENT: OnceLock<Result<Environment, String>> = OnceLock::new();
        let read = ENVIRONMENT.get_or_init(|| Self::read().map_err(|error| format!("{error:#}")));
        read.as_ref().map_err(|error| anyhow::anyhow!("{error}"))
    }

    fn read() -> Result<Self> {
        let file = repository().join("pgrx-config/cache.env");
        let script = r#". "$0" && echo "$CACHE" && id -u && echo "$SERVER_USER" && { id -u "$SERVER_USER" && id -g "$SERVER_USER" || true; } 2>/dev/null"#;
        let output = spawn(
            Command::new("sh")
                .args(["-c", script])
                .arg(&file)
                .stdout(Stdio::piped()),
        )?
        .wait_with_output()?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let mut lines = text.lines();
        let mut next = || lines.next().map(str::to_owned);
        let (Some(cache), Some(me), Some(name)) = (next(), next(), next()) else {
            bail!("{} could not be read", file.display());
        };
        let server_user = if me == "0" {
            let (Some(uid), Some(gid)) = (next(), next()) else {
                bail!("the user {name} does not exist: run pgrx-config/setup.sh");
            };
            Some(User {
                name,
                uid: uid.parse()?,
                gid: gid.parse()?,
            })
        } else {
            None
        };
        Ok(Self {
            cache: cache.into(),
            server_user,
        })
    }
}

/// The root of this repository.
#[must_use]
pub fn repository() -> &'static Path {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().unwrap_or(here)
}

/// What the kernel does to a child when this process ends.
#[derive(Clone, Copy, Debug)]
pub enum OnOurEnd {
    /// For client programs: gone at once.
    Kill,
    /// For servers: an immediate shutdown, which takes the server's own children and its shared memory along.
    Quit,
}

/// A program to be started as the server's user, with an environment that holds nothing of the caller's libpq settings and
/// a working directory that this user can enter.
///
/// # Errors
/// When `cache.env` or its user is not there.
pub fn program(path: impl AsRef<Path>, on_our_end: OnOurEnd) -> Result<Command> {
    let mut command = Command::new("setpriv");
    let signal = match on_our_end {
        OnOurEnd::Kill => "KILL",
        OnOurEnd::Quit => "QUIT",
    };
    command.args(["--pdeathsig", signal]);
    if let Some(user) = &Environment::get()?.server_user {
        command.args([
            "--reuid",
            &user.uid.to_string(),
            "--regid",
            &user.gid.to_string(),
            "--init-groups",
        ]);
    }
    command.arg("--").arg(path.as_ref());
    for (name, _) in std::env::vars_os() {
        if name.as_encoded_bytes().starts_with(b"PG") {
            command.env_remove(name);
        }
    }
    let home = crate::scratch::root()?;
    command
        .env("HOME", home)
        .env("LC_ALL", "C.UTF-8")
        .current_dir(home)
        .stdin(Stdio::null());
    Ok(command)
}

/// A program that `pgrx-config/setup.sh --peers` provides, or that is on the `PATH`.
///
/// # Errors
/// When it is neither.
pub fn tool(name: &str) -> Result<PathBuf> {
    let provided = Environment::get()?.cache.join("tools/bin").join(name);
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut places =
        std::iter::once(provided).chain(std::env::split_paths(&path).map(|directory| directory.join(name)));
    places
        .find(|place| place.is_file())
        .with_context(|| format!("{name} is not installed: run pgrx-config/setup.sh --peers"))
}

/// Starts a process. Everything that this crate starts goes through here.
///
/// # Errors
/// What the operating system says.
pub fn spawn(command: &mut Command) -> io::Result<Child> {
    type Job = (Command, Sender<io::Result<Child>>);
    static STARTER: OnceLock<Sender<Job>> = OnceLock::new();
    let starter = STARTER.get_or_init(|| {
        let (jobs, queue) = channel::<Job>();
        thread::spawn(move || {
            for (mut command, answer) in queue {
                // Nobody waits for the answer any more only when the asking thread is gone.
                answer.send(command.spawn()).ok();
            }
        });
        jobs
    });
    let gone = || io::Error::other("the thread that starts processes has ended");
    let command = std::mem::replace(command, Command::new("true"));
    let (answer, child) = channel();
    starter.send((command, answer)).map_err(|_| gone())?;
    child.recv().map_err(|_| gone())?
}

/// Runs a command to its end and gives its standard output.
///
/// # Errors
/// When it cannot be started or exits with another status than 0; the message holds the command and all that it said.
pub fn run(command: &mut Command) -> Result<String> {
    let shown = format!("{command:?}");
    let output = output(command)?;
    ensure!(
        output.status.success(),
        "{shown}: {}\n{}{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Runs a command to its end, whatever its exit status.
///
/// # Errors
/// When it cannot be started.
pub fn output(command: &mut Command) -> Result<Output> {
    let shown = format!("{command:?}");
    let child = spawn(command.stdout(Stdio::piped()).stderr(Stdio::piped())).with_context(|| shown.clone())?;
    child.wait_with_output().with_context(|| shown)
}

/// Gives a file or directory that we made to the server's user.
///
/// # Errors
/// What the operating system says.
pub fn give_to_server(path: &Path) -> Result<()> {
    if let Some(user) = &Environment::get()?.server_user {
        std::os::unix::fs::chown(path, Some(user.uid), Some(user.gid))
            .with_context(|| format!("chown {}", path.display()))?;
    }
    Ok(())
}
