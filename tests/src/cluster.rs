//! A throw-away cluster: its directory, its server process, and sessions in it.

use std::fs::{self, OpenOptions, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context, Result, bail};
use postgres::error::DbError;
use postgres::{Client, NoTls, SimpleQueryMessage};
use rustix::process::Signal;

use crate::running::Running;
use crate::scratch::Scratch;
use crate::wait::SOON;
use crate::{Archive, Look, Server, Settings, full_disk, process, template, wait_until};

const PORT: u16 = 5432;
const SUPERUSER: &str = "postgres";

/// How a server is stopped.
#[derive(Clone, Copy, Debug)]
pub enum Shutdown {
    /// Sessions are ended, a checkpoint is written, the rest is archived.
    Fast,
    /// At once; the next start recovers.
    Immediate,
    /// SIGKILL to the postmaster: nobody gets to do anything.
    Kill,
}

/// A cluster of its own in a temporary directory; gone when dropped.
#[derive(Debug)]
pub struct Cluster {
    // Dropped first: the server ends before its directory goes.
    running: Option<Running>,
    scratch: Scratch,
    server: Server,
    settings: Settings,
    archive: Archive,
    has_small_disk: bool,
}

impl Cluster {
    /// A new cluster on the chosen server, running.
    ///
    /// # Errors
    /// When it cannot be made or does not start.
    pub fn start(settings: Settings) -> Result<Self> {
        let mut cluster = Self::empty(Server::chosen()?.clone(), settings, None)?;
        template::fill(&cluster.server, &cluster.settings, &cluster.data())?;
        cluster.configure()?;
        cluster.start_server()?;
        Ok(cluster)
    }

    pub(crate) fn empty(server: Server, settings: Settings, archive: Option<Archive>) -> Result<Self> {
        let scratch = Scratch::new()?;
        let archive = archive.unwrap_or_else(|| Archive::beside(scratch.path()));
        archive.make()?;
        Ok(Self {
            running: None,
            scratch,
            server,
            settings,
            archive,
            has_small_disk: false,
        })
    }

    /// A copy of this stopped cluster with its archive, not running: the same system identifier, the same contents.
    ///
    /// # Errors
    /// When it is running, or cannot be copied.
    pub fn copy(&self) -> Result<Self> {
        if self.running.is_some() {
            bail!("only a stopped cluster can be copied");
        }
        let copy = Self::empty(self.server.clone(), self.settings.clone(), None)?;
        template::copy(&self.data(), &copy.data())?;
        template::copy(self.archive.path(), copy.archive.path())?;
        copy.configure()?;
        Ok(copy)
    }

    /// A hot standby that streams from this cluster and has its archive, running.
    ///
    /// # Errors
    /// When the base backup or the start fails.
    pub fn standby(&self, settings: Settings) -> Result<Self> {
        let conninfo = format!(
            "host='{}' port={PORT} user={SUPERUSER} application_name=standby",
            self.socket().display()
        );
        let settings = settings.set("primary_conninfo", &conninfo);
        let mut standby = Self::empty(self.server.clone(), settings, Some(self.archive.clone()))?;
        self.base_backup(&standby.data())?;
        fs::write(standby.data().join("standby.signal"), "")?;
        standby.configure()?;
        standby.start_server()?;
        Ok(standby)
    }

    pub(crate) fn settings(&self) -> &Settings {
        &self.settings
    }

    pub(crate) fn configure(&self) -> Result<()> {
        let path = self.data().join("postgresql.conf");
        fs::write(&path, self.settings.file(self.socket(), &self.archive.command())?)?;
        process::give_to_server(&path)
    }

    /// Changes a setting in `postgresql.conf`. See [`Self::reload`].
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn set(&mut self, name: &str, value: &str) -> Result<()> {
        self.settings = self.settings.clone().set(name, value);
        self.configure()
    }

    /// Has the server read its settings again, and waits until new sessions see them.
    ///
    /// # Errors
    /// When the server is not running or does not reload.
    pub fn reload(&self) -> Result<()> {
        let before = self.text("SELECT pg_conf_load_time() FROM pg_reload_conf()")?;
        wait_until("the settings to be reloaded", SOON, || {
            let loaded = self.text("SELECT pg_conf_load_time()")?;
            Ok(if loaded == before {
                Look::not_yet(loaded)
            } else {
                Look::Done(())
            })
        })
    }

    /// Has the server see a small disk from its next start on, see [`full_disk::SmallDisk`].
    pub fn give_small_disk(&mut self) {
        self.has_small_disk = true;
    }

    /// The data directory.
    #[must_use]
    pub fn data(&self) -> PathBuf {
        self.scratch.path().join("data")
    }

    /// The directory of the server's socket.
    #[must_use]
    pub fn socket(&self) -> &Path {
        self.scratch.path()
    }

    /// A path in the cluster's own directory, where the server's user may write.
    #[must_use]
    pub fn place(&self, name: &str) -> PathBuf {
        self.scratch.path().join(name)
    }

    /// The server that it runs on.
    #[must_use]
    pub fn server(&self) -> &Server {
        &self.server
    }

    /// Where its WAL is archived.
    #[must_use]
    pub fn archive(&self) -> &Archive {
        &self.archive
    }

    fn log_path(&self) -> PathBuf {
        self.scratch.path().join("log")
    }

    /// All that the server has logged.
    ///
    /// # Errors
    /// When the log cannot be read.
    pub fn log(&self) -> Result<String> {
        Ok(String::from_utf8_lossy(&fs::read(self.log_path())?).into_owned())
    }

    /// Starts the server and waits until it takes connections.
    ///
    /// # Errors
    /// When it ends instead; the message holds the end of its log.
    pub fn start_server(&mut self) -> Result<()> {
        fs::set_permissions(self.data(), Permissions::from_mode(0o700))?;
        let log = OpenOptions::new().create(true).append(true).open(self.log_path())?;
        let mut postgres = self.server.postgres()?;
        postgres.arg("-D").arg(self.data()).arg("-p").arg(PORT.to_string());
        // As some service files have it: no message may get longer by it.
        postgres.env("RUST_BACKTRACE", "1").env_remove("RUST_LIB_BACKTRACE");
        if self.has_small_disk {
            postgres = full_disk::with_small_disk(&postgres, self.scratch.path())?;
        }
        let running = Running::new(process::spawn(
            postgres.stdout(Stdio::from(log.try_clone()?)).stderr(Stdio::from(log)),
        )?);
        let ready = wait_until("the server to take connections", SOON, || {
            if let Some(status) = running.ended()? {
                bail!("the server ended with {status}");
            }
            Ok(match self.connect() {
                Ok(_) => Look::Done(()),
                Err(error) => Look::not_yet(format!("{error:#}")),
            })
        });
        ready.with_context(|| self.end_of_log())?;
        self.running = Some(running);
        Ok(())
    }

    fn end_of_log(&self) -> String {
        let log = self.log().unwrap_or_default();
        let lines: Vec<&str> = log.lines().rev().take(30).collect();
        lines.into_iter().rev().collect::<Vec<_>>().join("\n")
    }

    /// Stops the server.
    ///
    /// # Errors
    /// When it was not running or does not end.
    pub fn stop(&mut self, how: Shutdown) -> Result<()> {
        let running = self.running.take().context("the server is not running")?;
        let signal = match how {
            Shutdown::Fast => Signal::INT,
            Shutdown::Immediate => Signal::QUIT,
            Shutdown::Kill => Signal::KILL,
        };
        running.end(signal, SOON).with_context(|| self.end_of_log())?;
        // A killed postmaster's children find out by themselves, and until then no other may start.
        wait_until("the server's children to end", SOON, || {
            let left = processes_in(&self.data())?;
            Ok(if left == 0 {
                Look::Done(())
            } else {
                Look::not_yet(format!("{left} processes"))
            })
        })
    }

    /// Stops the server and starts it again.
    ///
    /// # Errors
    /// See [`Self::stop`] and [`Self::start_server`].
    pub fn restart(&mut self, how: Shutdown) -> Result<()> {
        self.stop(how)?;
        self.start_server()
    }

    /// Makes a standby a primary, and waits until it is one.
    ///
    /// # Errors
    /// When it is none.
    pub fn promote(&self) -> Result<()> {
        self.text("SELECT pg_promote()").map(drop)
    }

    /// A superuser's session in the database `postgres`.
    ///
    /// # Errors
    /// When the server does not take it.
    pub fn connect(&self) -> Result<Client> {
        self.connect_as(SUPERUSER, "postgres")
    }

    /// A session of any user in any database.
    ///
    /// # Errors
    /// When the server does not take it.
    pub fn connect_as(&self, user: &str, database: &str) -> Result<Client> {
        let mut config = postgres::Config::new();
        config.host_path(self.socket()).port(PORT).user(user).dbname(database);
        // A statement that hangs is a failure with a name, not a test run that never ends.
        config.connect_timeout(SOON).options("-c statement_timeout=120s");
        Ok(config.connect(NoTls)?)
    }

    /// Runs SQL in a session of its own and gives its rows as `psql -At` shows them: columns parted by `|`.
    ///
    /// # Errors
    /// What the server says.
    pub fn text(&self, sql: &str) -> Result<String> {
        text_in(&mut self.connect()?, sql)
    }

    /// The error that the server answers to this SQL.
    ///
    /// # Errors
    /// When it answers none.
    pub fn refusal(&self, sql: &str) -> Result<DbError> {
        refusal_in(&mut self.connect()?, sql)
    }

    /// Waits until a query gives this text.
    ///
    /// # Errors
    /// When it does not within [`SOON`]; the message says what it gave, and holds the end of the server's log.
    pub fn wait_for(&self, sql: &str, expected: &str) -> Result<()> {
        wait_until(&format!("{expected:?} from {sql}"), SOON, || {
            let seen = self.text(sql)?;
            Ok(if seen == expected {
                Look::Done(())
            } else {
                Look::NotYet(seen)
            })
        })
        .with_context(|| self.end_of_log())
    }

    /// Runs a client program of this server (`psql`, `pg_dump`, `pgbench`, …) with the connection in its environment.
    ///
    /// # Errors
    /// When it fails; the message holds what it said.
    pub fn client(&self, program: &str, arguments: &[&str]) -> Result<String> {
        process::run(self.client_command(program)?.args(arguments))
    }

    /// The command that [`Self::client`] runs, to be started otherwise.
    ///
    /// # Errors
    /// When the server's user is not there.
    pub fn client_command(&self, program: &str) -> Result<std::process::Command> {
        let mut command = self.server.program(program)?;
        command.env("PGHOST", self.socket()).env("PGPORT", PORT.to_string());
        command.env("PGUSER", SUPERUSER).env("PGDATABASE", "postgres");
        Ok(command)
    }

    /// Runs psql, without its start-up file, on one statement or meta-command.
    ///
    /// # Errors
    /// When psql fails.
    pub fn psql(&self, options: &[&str], sql: &str) -> Result<String> {
        let mut arguments = vec!["-X", "-v", "ON_ERROR_STOP=1"];
        arguments.extend(options);
        arguments.extend(["-c", sql]);
        self.client("psql", &arguments)
    }

    /// Takes a plain base backup.
    ///
    /// # Errors
    /// When `pg_basebackup` fails.
    pub fn base_backup(&self, to: &Path) -> Result<()> {
        let mut command = self.client_command("pg_basebackup")?;
        process::run(
            command
                .args(["--checkpoint=fast", "--no-sync", "--wal-method=stream", "-D"])
                .arg(to),
        )
        .map(drop)
    }

    /// Ends the current segment, unless nothing is in it, and waits until the last one is archived. Gives its name.
    ///
    /// # Errors
    /// When the archiver does not get there.
    pub fn archive_now(&self) -> Result<String> {
        let segment = self.text("SELECT pg_walfile_name(pg_switch_wal() - 1)")?;
        let sql = format!(
            "SELECT left(last_archived_wal, 24) COLLATE \"C\" >= '{segment}', last_archived_wal, last_failed_wal FROM pg_stat_archiver"
        );
        wait_until(&format!("{segment} to be archived"), SOON, || {
            let seen = self.text(&sql)?;
            Ok(if seen.starts_with("t|") {
                Look::Done(())
            } else {
                Look::NotYet(seen)
            })
        })?;
        Ok(segment)
    }
}

/// Runs SQL in a session and gives its rows as `psql -At` shows them.
///
/// # Errors
/// What the server says.
pub fn text_in(session: &mut Client, sql: &str) -> Result<String> {
    let mut lines = Vec::new();
    for message in session.simple_query(sql).with_context(|| beginning(sql))? {
        if let SimpleQueryMessage::Row(row) = message {
            let columns = (0..row.len()).map(|column| row.get(column).unwrap_or_default());
            lines.push(columns.collect::<Vec<_>>().join("|"));
        }
    }
    Ok(lines.join("\n"))
}

/// As much of a statement as a message needs.
fn beginning(sql: &str) -> String {
    match sql.char_indices().nth(300) {
        Some((cut, _)) => format!("{} …", sql.get(..cut).unwrap_or_default()),
        None => sql.to_owned(),
    }
}

/// The error that the server answers to this SQL in a session.
///
/// # Errors
/// When it answers none.
pub fn refusal_in(session: &mut Client, sql: &str) -> Result<DbError> {
    match session.simple_query(sql) {
        Ok(answer) => bail!("no error from {sql}, but {} messages", answer.len()),
        Err(error) => error.as_db_error().cloned().with_context(|| format!("{sql}: {error}")),
    }
}

/// How many processes have this working directory: those of a server have its data directory.
fn processes_in(directory: &Path) -> Result<usize> {
    let processes = fs::read_dir("/proc")?.flatten();
    Ok(processes
        .filter(|process| fs::read_link(process.path().join("cwd")).is_ok_and(|cwd| cwd == directory))
        .count())
}
