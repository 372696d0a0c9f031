//! A file as the archive stores it, the directory that it lies in, and why either could not be read.

use std::fs::Metadata;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

use wal::PgTimestamp;

/// One file of the archive as its directory shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredFile {
    /// Its path below the archive's root.
    pub name: String,
    /// Its size.
    pub bytes: u64,
    /// When it last changed in content, name or attributes: the inode's ctime, in the whole microseconds that a timestamptz
    /// keeps. Unlike the mtime, `cp -p`, `rsync -t` and `touch` cannot set it back.
    pub changed_at: PgTimestamp,
    /// Its inode.
    pub inode: u64,
}

/// Which directory an archive is: a mount or an unmount gives the same path another one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct RootId {
    /// The device that it lies on.
    pub device: u64,
    /// Its inode there.
    pub inode: u64,
}

/// What shows, for the price of one system call, that no name was added, removed or replaced since a listing.
///
/// A file overwritten in place leaves it as it is, so that a listing is due now and then all the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DirectoryStamp {
    /// Which directory it is.
    pub root: RootId,
    /// The directory's mtime, nanoseconds since 1970.
    pub modified_at: i64,
}

/// Why an archive, or a file of it, could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The archive is not there.
    #[error("archive directory \"{}\" does not exist, or is not mounted", path.display())]
    NoArchive {
        /// The archive's root.
        path: PathBuf,
    },
    /// The archive is something else.
    #[error("archive \"{}\" is not a directory", path.display())]
    NotADirectory {
        /// The archive's root.
        path: PathBuf,
    },
    /// The file is not there (any more).
    #[error("archived file \"{}\" does not exist", path.display())]
    Absent {
        /// The file.
        path: PathBuf,
    },
    /// A link, FIFO, socket, device or directory under a WAL file's name, or a name that leads out of the archive.
    #[error("\"{}\" is not a regular file of the archive", path.display())]
    NotRegular {
        /// The file.
        path: PathBuf,
    },
    /// Not what the source's layout looks like.
    #[error("\"{}\" {why}", path.display())]
    NotInLayout {
        /// The directory or file.
        path: PathBuf,
        /// The rest of the sentence: what is wrong, and what to do.
        why: String,
    },
    /// A repository that only its own program can read.
    #[error(
        "\"{}\" is encrypted; set pg_backstop.archive_source = restore_command, so that WAL is read as recovery would read it",
        path.display()
    )]
    Encrypted {
        /// The file that showed it.
        path: PathBuf,
    },
    /// A pgBackRest stanza that is another cluster's.
    #[error(
        "\"{}\" knows no cluster of PostgreSQL {version} with the system identifier {system_identifier}; name the stanza of \
         this cluster in pg_backstop.archive_source, or run pgbackrest stanza-upgrade if it is the right one",
        path.display()
    )]
    NotThisCluster {
        /// The stanza's `archive.info`.
        path: PathBuf,
        /// This server's major.
        version: u32,
        /// This cluster's own number.
        system_identifier: u64,
    },
    /// Several files of one segment whose contents differ: pgBackRest's `archive-get` refuses to choose, and so recovery stops.
    #[error(
        "the archive holds {} versions of {name} with different contents ({}), so pgBackRest refuses to restore any of them; \
         find out whether several servers archive to this stanza, and remove the versions that are not this cluster's",
        stored.len(),
        stored.join(", ")
    )]
    Duplicates {
        /// The segment's file name.
        name: String,
        /// The stored files below the archive's root, at most the first few.
        stored: Vec<String>,
    },
    /// The system refused.
    #[error("could not read \"{}\": {source}", path.display())]
    Io {
        /// The directory or file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

impl ReadError {
    /// Whether it is about the archive as a whole, so that nothing is to be concluded from it about one file.
    pub const fn is_of_archive(&self) -> bool {
        match self {
            Self::NoArchive { .. }
            | Self::NotADirectory { .. }
            | Self::NotInLayout { .. }
            | Self::Encrypted { .. }
            | Self::NotThisCluster { .. } => true,
            Self::Absent { .. } | Self::NotRegular { .. } | Self::Duplicates { .. } | Self::Io { .. } => false,
        }
    }
}

impl StoredFile {
    /// How the system describes the file that is stored under `name`.
    pub(crate) fn of(name: String, metadata: &Metadata) -> Self {
        Self {
            name,
            bytes: metadata.len(),
            changed_at: PgTimestamp::from_unix_micros(
                nanoseconds(metadata.ctime(), metadata.ctime_nsec()).div_euclid(1000),
            ),
            inode: metadata.ino(),
        }
    }
}

/// A time of the file system as one number, nanoseconds since 1970.
pub(crate) const fn nanoseconds(seconds: i64, nanoseconds: i64) -> i64 {
    seconds.saturating_mul(1_000_000_000).saturating_add(nanoseconds)
}
