//! One file of the archive, asked for as recovery would ask for it: by running `restore_command`.
//!
//! The rules are those of RestoreArchivedFile() in src/backend/access/transam/xlogarchive.c. Unlike recovery, this gives
//! nothing an unlimited time or an unlimited part of the disk.

use crate::compat;
use crate::error::{Error, Result};
use crate::process::{Program, ProgramError};
use crate::scratch::ScratchDirectory;
use crate::server::Server;
use crate::settings;
use archive::printable_lines;
use archive::restore_command::{command_line, ending, received_as, stops_recovery};
use archive::secrets::masked;
use std::fs::{self, File, OpenOptions};
use std::io::ErrorKind;
use std::ops::ControlFlow;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// The command may fill the disk with as many segments before it is ended. More than one, for there are commands that fetch
/// what comes next too.
const SEGMENTS_ON_DISK: u64 = 16;
/// Time between two looks at how much it has written.
const BETWEEN_LOOKS: Duration = Duration::from_millis(50);

/// What `restore_command` answered.
#[derive(Debug)]
pub enum Fetched {
    /// The file. Its size is not looked at here: recovery stops at a segment of another size ("archive file … has wrong
    /// size"), save a standby, which takes a short one for a copy that still runs.
    File(FetchedFile),
    /// Recovery would take it as the end of the archive. The sentence tells of the exit code, or that there is no file.
    NotThere(String),
}

/// A file that `restore_command` has brought; removed when dropped. It may be a link to the archive: see [`open`].
#[derive(Debug)]
pub struct FetchedFile {
    scratch: ScratchDirectory,
    name: &'static str,
}

impl FetchedFile {
    /// Where it is.
    pub fn path(&self) -> PathBuf {
        self.scratch.path().join(self.name)
    }
}

/// Runs `command`, a `restore_command`, for the file `name` of the archive: a segment, a history or a backup history file.
///
/// Waits as long as `pg_backstop.restore_command_timeout` says; `between` is called meanwhile, at least every 100 ms, and may
/// raise an error.
///
/// # Errors
/// Where recovery would stop rather than go on without the file: the command was not to be run, was ended by a signal, or
/// exited with a code above 125. Where it was ended because of the time it took or the room. Nothing is known of the file then.
pub fn fetch(server: &Server, command: &str, name: &str, between: &mut dyn FnMut()) -> Result<Fetched> {
    // In front of what the program was about to say, secrets may stand in the command itself.
    let failed = |what: &str| Error::Fetch(format!("restore_command cannot fetch {name}: {what}"));
    let data = server.data_directory();
    let scratch = ScratchDirectory::make(data)
        .map_err(|error| failed(&format!("no directory for it can be made in base/pgsql_tmp: {error}")))?;
    let target = received_as(name);
    let path = format!("{}/{target}", scratch.relative());
    let line = command_line(command, compat::MAJOR, name, &path).map_err(|error| failed(&error.to_string()))?;
    let program = Program::shell(&line, data).map_err(|error| failed(&error.to_string()))?;

    let most = server.format.segment_size.bytes().saturating_mul(SEGMENTS_ON_DISK);
    let mut looked = Instant::now();
    let ended = program.run(settings::restore_command_timeout(), &mut || {
        between();
        if looked.elapsed() < BETWEEN_LOOKS {
            return ControlFlow::Continue(());
        }
        looked = Instant::now();
        match scratch.used() {
            used if used > most => ControlFlow::Break(format!("it had written {used} bytes and was ended")),
            _ => ControlFlow::Continue(()),
        }
    });
    let said = masked(&printable_lines(&ended.said));
    let status = ended.result.map_err(|error| {
        let what = match error {
            ProgramError::TimedOut(_) => format!("{error} (pg_backstop.restore_command_timeout)"),
            _ => error.to_string(),
        };
        failed(&with_words(&what, &said))
    })?;
    if stops_recovery(status) {
        return Err(failed(&with_words(
            &format!("it {}, at which recovery stops", ending(status)),
            &said,
        )));
    }
    if !status.success() {
        // One of many rows may hold it: the last line usually says why.
        let why = said.lines().last().unwrap_or_default();
        return Ok(Fetched::NotThere(with_words(
            &format!("restore_command {} for {name}", ending(status)),
            why,
        )));
    }
    // Where it leads, if it is a link, is for the process that reads it to find out.
    match fs::symlink_metadata(scratch.path().join(target)) {
        Ok(_) => Ok(Fetched::File(FetchedFile { scratch, name: target })),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(Fetched::NotThere(left_nothing(name))),
        Err(error) => Err(failed(&format!("what it left at %p cannot be read: {error}"))),
    }
}

/// Says that the command left nothing.
pub fn left_nothing(name: &str) -> String {
    format!("restore_command exited with code 0 for {name}, but left no file at %p.")
}

/// Opens what the command left, through a link too, as recovery would, and gives its size in bytes; none where there is nothing.
/// It may wait for the archive's disk for ever.
///
/// # Errors
/// A clause that says what is wrong with it.
pub fn open(path: &Path) -> Result<Option<(File, u64)>, String> {
    // Without O_NONBLOCK, a pipe would wait for somebody to write into it.
    let opened = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path);
    let cannot = |error: std::io::Error| format!("cannot be read: {error}");
    let file = match opened {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        opened => opened.map_err(cannot)?,
    };
    let found = file.metadata().map_err(cannot)?;
    if !found.is_file() {
        return Err("is no regular file".to_owned());
    }
    Ok(Some((file, found.len())))
}

/// A sentence, with what the program printed if it printed something.
fn with_words(what: &str, said: &str) -> String {
    if said.is_empty() {
        format!("{what}.")
    } else {
        format!("{what}. It said: {said}")
    }
}
