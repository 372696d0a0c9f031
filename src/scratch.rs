//! A private directory for as long as a program needs one, where the server itself keeps its temporary files.
//!
//! Its name begins as theirs do, so the server removes it at its start (RemovePgTempFiles() in storage/file/fd.c), and base
//! backups and pg_rewind leave it out (excludeFiles in basebackup.c, filemap.c).

use std::cell::{Cell, RefCell};
use std::ffi::c_int;
use std::fs::{self, DirBuilder};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use pgrx::prelude::*;
use walkdir::WalkDir;

/// PG_TEMP_FILES_DIR below the default tablespace.
const TEMPORARY_FILES: &str = "base/pgsql_tmp";
/// PG_TEMP_FILE_PREFIX.
const PREFIX: &str = "pgsql_tmp";
/// Whoever may be in a directory while it is removed is being ended, so a second look finds less.
const REMOVALS: u32 = 3;

thread_local! {
    // PostgreSQL ends a process without unwinding it, so what is to be removed then must be found from outside.
    static HELD: RefCell<Vec<PathBuf>> = const { RefCell::new(Vec::new()) };
    static MADE: Cell<u64> = const { Cell::new(0) };
}

/// A directory that only the server's user can enter; removed with all that is in it when dropped.
#[derive(Debug)]
pub struct ScratchDirectory {
    relative: String,
    path: PathBuf,
}

impl ScratchDirectory {
    /// Makes one.
    ///
    /// # Errors
    /// What the operating system says.
    pub fn make(data_directory: &Path) -> io::Result<Self> {
        remove_with_this_process();
        let number = MADE.replace(MADE.get().wrapping_add(1));
        // SAFETY: a plain variable of this process.
        let process = unsafe { pg_sys::MyProcPid };
        let relative = format!("{TEMPORARY_FILES}/{PREFIX}{process}.{number}.pg_backstop");
        let path = data_directory.join(&relative);
        let mut private = DirBuilder::new();
        private.mode(0o700);
        let mut made = private.create(&path);
        if let Err(error) = &made {
            match error.kind() {
                // The server, too, makes it when it first needs it; its umask says who of the group may enter.
                ErrorKind::NotFound => match fs::create_dir(data_directory.join(TEMPORARY_FILES)) {
                    Err(error) if error.kind() != ErrorKind::AlreadyExists => return Err(error),
                    _ => {}
                },
                // Of a process that had this number before and was killed.
                ErrorKind::AlreadyExists => remove(&path),
                _ => {}
            }
            made = private.create(&path);
        }
        made?;
        HELD.with_borrow_mut(|held| held.push(path.clone()));
        Ok(Self { relative, path })
    }

    /// Its path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Its path as seen from the data directory.
    pub fn relative(&self) -> &str {
        &self.relative
    }

    /// What the files in it take up on disk, bytes. What vanishes meanwhile does not count.
    pub fn used(&self) -> u64 {
        WalkDir::new(&self.path)
            .into_iter()
            .flatten()
            .filter_map(|entry| entry.metadata().ok())
            .map(|file| file.blocks().saturating_mul(512))
            .fold(0, u64::saturating_add)
    }
}

impl Drop for ScratchDirectory {
    fn drop(&mut self) {
        remove(&self.path);
        HELD.with_borrow_mut(|held| held.retain(|path| *path != self.path));
    }
}

fn remove(path: &Path) {
    for _ in 0..REMOVALS {
        match fs::remove_dir_all(path) {
            Err(error) if error.kind() != ErrorKind::NotFound => {}
            // What stays after all is removed by the server at its next start.
            _ => return,
        }
    }
}

fn remove_with_this_process() {
    thread_local! {
        static ARRANGED: Cell<bool> = const { Cell::new(false) };
    }
    if !ARRANGED.replace(true) {
        // SAFETY: the callback is a plain function that raises no error.
        unsafe { pg_sys::before_shmem_exit(Some(remove_at_exit), pg_sys::Datum::from(0)) };
    }
}

#[pg_guard]
unsafe extern "C-unwind" fn remove_at_exit(_code: c_int, _argument: pg_sys::Datum) {
    if let Ok(held) = HELD.try_with(|held| held.take()) {
        held.iter().for_each(|path| remove(path));
    }
}
