//! A directory of archived WAL, the faults that a test makes in it, and their mending.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

use crate::process;

/// An archive directory. Names of files in it may be paths below it.
#[derive(Clone, Debug)]
pub struct Archive {
    directory: PathBuf,
    /// Beside the archive, on its file system: where originals wait while a fault is in their place.
    kept: PathBuf,
}

/// A fault in an archive: what was there before it was made.
#[must_use = "a fault that is not mended stays"]
#[derive(Debug)]
pub struct Fault {
    place: PathBuf,
    original: Option<PathBuf>,
}

impl Fault {
    /// Leaves it as it is.
    pub fn stays(self) {}

    /// Puts the original file back, the very one (as `mv` would), or removes what was not there before.
    ///
    /// # Errors
    /// What the operating system says.
    pub fn mend(self) -> Result<()> {
        match self.original {
            Some(original) => fs::rename(original, &self.place),
            None => fs::remove_file(&self.place),
        }
        .with_context(|| format!("mending {}", self.place.display()))
    }
}

impl Archive {
    /// A directory that somebody else fills and has made, with another beside it for originals.
    ///
    /// # Errors
    /// When the other cannot be made.
    pub fn of(directory: PathBuf, kept: PathBuf) -> Result<Self> {
        let this = Self { directory, kept };
        this.make()?;
        Ok(this)
    }

    /// The directory of this name in `parent`. A space in it shows whether everybody quotes.
    pub(crate) fn beside(parent: &Path) -> Self {
        Self {
            directory: parent.join("archived wal"),
            kept: parent.join("kept"),
        }
    }

    pub(crate) fn make(&self) -> Result<()> {
        for directory in [&self.directory, &self.kept] {
            fs::create_dir_all(directory).with_context(|| directory.display().to_string())?;
            process::give_to_server(directory)?;
        }
        Ok(())
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.directory
    }

    /// The `archive_command` that fills it.
    #[must_use]
    pub fn command(&self) -> String {
        format!("cp \"%p\" \"{}/%f\"", self.directory.display())
    }

    /// The `restore_command` that reads it.
    #[must_use]
    pub fn fetch_command(&self) -> String {
        format!("cp \"{}/%f\" \"%p\"", self.directory.display())
    }

    /// Where a file of this name is or would be.
    pub fn file(&self, name: impl AsRef<OsStr>) -> PathBuf {
        self.directory.join(name.as_ref())
    }

    /// Where the original of a file waits while a fault is in its place.
    #[must_use]
    pub fn kept(&self, name: &str) -> PathBuf {
        self.kept.join(Path::new(name).file_name().unwrap_or_default())
    }

    /// The names of the segments in it, in their order.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn segments(&self) -> Result<Vec<String>> {
        self.names(|name| name.len() == 24 && name.bytes().all(|digit| digit.is_ascii_hexdigit()))
    }

    /// The names of the files in it that tell of base backups.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn backup_files(&self) -> Result<Vec<String>> {
        self.names(|name| name.ends_with(".backup"))
    }

    fn names(&self, wanted: impl Fn(&str) -> bool) -> Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(&self.directory).with_context(|| self.directory.display().to_string())? {
            if let Ok(name) = entry?.file_name().into_string()
                && wanted(&name)
            {
                names.push(name);
            }
        }
        names.sort();
        Ok(names)
    }

    /// The bytes of a file in it.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn read(&self, name: &str) -> Result<Vec<u8>> {
        let path = self.file(name);
        fs::read(&path).with_context(|| path.display().to_string())
    }

    /// Takes a file away.
    ///
    /// # Errors
    /// When it is not there.
    pub fn remove(&self, name: &str) -> Result<Fault> {
        let (place, original) = (self.file(name), self.kept(name));
        ensure!(!original.exists(), "{name} has a fault already");
        fs::rename(&place, &original).with_context(|| format!("taking {} away", place.display()))?;
        Ok(Fault {
            place,
            original: Some(original),
        })
    }

    /// Puts other bytes in a file's place, or a new file where there was none.
    ///
    /// # Errors
    /// What the operating system says.
    pub fn replace(&self, name: &str, bytes: &[u8]) -> Result<Fault> {
        let place = self.file(name);
        let fault = if place.exists() {
            self.remove(name)?
        } else {
            Fault {
                place: place.clone(),
                original: None,
            }
        };
        // In one step, so that nobody sees half of it.
        let new = self.kept(&format!("{name}.new"));
        fs::write(&new, bytes)?;
        process::give_to_server(&new)?;
        fs::rename(&new, &place).with_context(|| place.display().to_string())?;
        Ok(fault)
    }

    /// Replaces a file by its own bytes, changed.
    ///
    /// # Errors
    /// When it is not there.
    pub fn change(&self, name: &str, change: impl FnOnce(&mut Vec<u8>)) -> Result<Fault> {
        let mut bytes = self.read(name)?;
        change(&mut bytes);
        self.replace(name, &bytes)
    }

    /// Flips one bit of the byte at `offset`.
    ///
    /// # Errors
    /// When there is no such byte.
    pub fn flip_bit(&self, name: &str, offset: u64, bit: u8) -> Result<Fault> {
        let mut byte = [0];
        fs::File::open(self.file(name))?.read_exact_at(&mut byte, offset)?;
        self.overwrite(name, offset, &[byte[0] ^ (1 << bit)])
    }

    /// Puts other bytes at `offset`.
    ///
    /// # Errors
    /// When the file is too short for them.
    pub fn overwrite(&self, name: &str, offset: u64, with: &[u8]) -> Result<Fault> {
        let mut bytes = self.read(name)?;
        let start = usize::try_from(offset)?;
        let there = bytes
            .get_mut(start..start + with.len())
            .with_context(|| format!("{name} ends before byte {offset}"))?;
        there.copy_from_slice(with);
        self.replace(name, &bytes)
    }
}
