//! What a base backup on disk says of itself: crate `artifact` knows where it says it, crate `archive` how to decompress that.

use std::fs::File;
use std::io::{self, Read};
use std::ops::ControlFlow;
use std::path::Path;

use archive::{Compression, Content, contained};
use artifact::base_backup::open_file;
use artifact::{BackupLabel, BaseBackup, Format, Tar, members};

use crate::memory;

mod control;
mod own_wal;

pub use control::Control;
pub use own_wal::{OwnWal, own_wal};

/// The label is the first file that the server sends (SendBaseBackup() in src/backend/backup/basebackup.c); a client may put a
/// few in front of it.
const MEMBERS_TO_THE_LABEL: usize = 64;

/// A base backup's label.
///
/// # Errors
/// A clause that says why it cannot be read.
pub fn label(backup: &BaseBackup, between: &mut dyn FnMut()) -> Result<BackupLabel, String> {
    let mut content = Vec::new();
    match backup.format {
        Format::Plain => {
            let path = backup.directory.join("backup_label");
            let file = open_file(&path).map_err(|error| error.to_string())?;
            file.take(BackupLabel::MAX_BYTES + 1)
                .read_to_end(&mut content)
                .map_err(|error| format!("could not read \"{}\": {error}", path.display()))?;
        }
        Format::Tar => {
            let tar = backup
                .tar("base")
                .ok_or_else(|| format!("there is no base.tar in \"{}\"", backup.directory.display()))?;
            let mut found = Ok(0);
            let mut seen = 0;
            visit_tar(&tar, between, &mut |member, _| {
                seen += 1;
                if member.path == Path::new("backup_label") {
                    found = member
                        .content
                        .take(BackupLabel::MAX_BYTES + 1)
                        .read_to_end(&mut content);
                    return ControlFlow::Break(());
                }
                if seen >= MEMBERS_TO_THE_LABEL {
                    return ControlFlow::Break(());
                }
                ControlFlow::Continue(())
            })?;
            found.map_err(|error| format!("could not read \"{}\": {error}", tar.path.display()))?;
            if content.is_empty() {
                return Err(format!("\"{}\" does not begin with a backup_label", tar.path.display()));
            }
        }
    }
    BackupLabel::parse(&content).map_err(|error| format!("backup_label cannot be understood: {error}"))
}

/// A plain base backup's control file. That of a tar one is the last file in its main tar, and is not looked for.
///
/// # Errors
/// A clause that says why it cannot be read.
pub fn control(backup: &BaseBackup) -> Result<Control, String> {
    if backup.format == Format::Tar {
        return Err("it is the last file of a tar".to_owned());
    }
    let path = backup.directory.join("global/pg_control");
    let file = open_file(&path).map_err(|error| error.to_string())?;
    Control::read(file).map_err(|error| format!("\"{}\" cannot be understood: {error}", path.display()))
}

/// Reads a tar, decompressed, and hands its members to `visit` until that says to stop. `between` is called between pieces of
/// what is stored; `visit` gets it too, for what it does itself.
///
/// # Errors
/// A clause that says why it cannot be read.
pub fn visit_tar(
    tar: &Tar,
    between: &mut dyn FnMut(),
    visit: &mut dyn FnMut(artifact::Member<'_>, &mut dyn FnMut()) -> ControlFlow<()>,
) -> Result<(), String> {
    memory::before_reading();
    let file = open_file(&tar.path).map_err(|error| error.to_string())?;
    let compression = Compression::of_suffix(tar.suffix).unwrap_or(Compression::None);
    // The decoders are other people's code, and what they read comes from outside; what `between` raises goes through.
    let read = contained(|callback| {
        let pause = std::cell::RefCell::new(|| callback.run(&mut *between));
        let stored = Interruptible {
            file,
            between: &mut || (pause.borrow_mut())(),
        };
        members(Content::new(stored, compression), &mut |member| {
            visit(member, &mut || (pause.borrow_mut())())
        })
    });
    match read {
        Ok(Ok(())) => Ok(()),
        Ok(Err(error)) => Err(format!("could not read \"{}\": {error}", tar.path.display())),
        Err(panic) => Err(format!("reading \"{}\" failed ({panic})", tar.path.display())),
    }
}

/// A file whose reader may be stopped between two pieces.
struct Interruptible<'b> {
    file: File,
    between: &'b mut dyn FnMut(),
}

impl Read for Interruptible<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        (self.between)();
        self.file.read(buffer)
    }
}
