//! The heartbeat: a small file that says when this server was last alive, and what a standby had last heard of its primary.
//!
//! A file and no row: rows are WAL, which would keep an idle cluster awake, and a standby can write none. It lies where base
//! backups take nothing from (PG_STAT_TMP_DIR in basebackup.c), so a restored copy does not take its original's for its own.
//! Nothing is flushed: after a crash of the machine it may be empty or gone, and then it says nothing.

use crate::error::{Error, Result};
use std::fmt::Write as _;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write as _};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

const DIRECTORY: &str = "pg_stat_tmp";
const NAME: &str = "pg_backstop.heartbeat";
const MAX_BYTES: u64 = 4096;

/// A sign of life. Times are PostgreSQL's microseconds since 2000-01-01; 0 stands for what is not known.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Heartbeat {
    /// When the life began that it is a sign of; see [`crate::life::Life`].
    pub life: i64,
    /// When it was given.
    pub at: i64,
    /// The cluster's identity.
    pub system_identifier: u64,
    /// When the primary was last heard, on a standby.
    pub primary_heard_at: i64,
    /// The end of the primary's WAL, as it last said.
    pub primary_end: u64,
    /// The end of the WAL that arrived from it.
    pub received: u64,
    /// Device and inode of the data directory.
    pub directory: heapless::String<48>,
    /// The machine's boot; empty where the system does not tell.
    pub boot: heapless::String<40>,
}

impl Heartbeat {
    /// The last one in this data directory; `None` where there is none that can be read.
    pub fn read(data_directory: &Path) -> Option<Self> {
        let mut text = String::new();
        let file = File::open(path(data_directory)).ok()?;
        file.take(MAX_BYTES).read_to_string(&mut text).ok()?;
        Self::parse(&text)
    }

    fn parse(text: &str) -> Option<Self> {
        let value = |name: &str| text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        // The last line is there only where all others are.
        value("end")?;
        Some(Self {
            life: value("life")?.parse().ok()?,
            at: value("at")?.parse().ok()?,
            system_identifier: value("system_identifier")?.parse().ok()?,
            primary_heard_at: value("primary_heard_at")?.parse().ok()?,
            primary_end: value("primary_end")?.parse().ok()?,
            received: value("received")?.parse().ok()?,
            directory: heapless::String::try_from(value("directory")?).ok()?,
            boot: heapless::String::try_from(value("boot")?).ok()?,
        })
    }

    fn text(&self) -> String {
        let mut text = String::with_capacity(256);
        // Writing to a String cannot fail.
        let _ = write!(
            text,
            "life {}\nat {}\nsystem_identifier {}\nprimary_heard_at {}\nprimary_end {}\nreceived {}\ndirectory {}\nboot {}\nend 1\n",
            self.life,
            self.at,
            self.system_identifier,
            self.primary_heard_at,
            self.primary_end,
            self.received,
            self.directory,
            self.boot
        );
        text
    }

    /// Puts this one in the place of the last.
    ///
    /// # Errors
    /// What the system says.
    pub fn write(&self, data_directory: &Path) -> Result<()> {
        let path = path(data_directory);
        self.replace(&path).map_err(|error| Error::server_file(&path, error))
    }

    fn replace(&self, path: &Path) -> io::Result<()> {
        let temporary = path.with_extension("tmp");
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(true).mode(0o600);
        let mut file = match options.open(&temporary) {
            // A tool that restores nothing of the directory may leave the directory itself out.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                if let Some(directory) = path.parent() {
                    fs::create_dir(directory)?;
                }
                options.open(&temporary)?
            }
            opened => opened?,
        };
        file.write_all(self.text().as_bytes())?;
        drop(file);
        fs::rename(&temporary, path)
    }
}

fn path(data_directory: &Path) -> PathBuf {
    data_directory.join(DIRECTORY).join(NAME)
}
