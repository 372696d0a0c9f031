//! The one place that reads an archive's directories: names and kinds, without a system call for each.
//!
//! Everything below the root is reached from its parent's descriptor, so that no link leads out, and what was listed is what
//! was open, whatever is mounted over it meanwhile.

use std::fs::{self, File, Metadata, OpenOptions};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use rustix::fs::{FileType, Mode, OFlags, RawDir};

use crate::stored::{DirectoryStamp, ReadError, RootId, nanoseconds};

/// How long a directory must have been at rest for its mtime to be trusted: the coarsest time stamps in use count in 2 s.
const AT_REST: Duration = Duration::from_secs(3);
/// Names are taken from the kernel in pieces of so many bytes.
const NAMES: usize = 64 << 10;

/// An open directory.
pub(super) struct Directory {
    file: File,
    path: PathBuf,
}

/// What an entry is, as far as the layouts care.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum EntryKind {
    File,
    Directory,
    Other,
}

impl Directory {
    /// The archive's root. Links on the way are followed: the setting is the superuser's.
    pub fn root(path: &Path) -> Result<Self, ReadError> {
        let file = OpenOptions::new()
            .read(true)
            .custom_flags(libc::O_DIRECTORY)
            .open(path)
            .map_err(|error| root_error(path, error))?;
        Ok(Self {
            file,
            path: path.to_owned(),
        })
    }

    /// The directory `name` in this one; none if there is none, which is also what a link is.
    pub fn below(&self, name: &str) -> Result<Option<Self>, ReadError> {
        let path = self.path.join(name);
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        match rustix::fs::openat(&self.file, name, flags, Mode::empty()) {
            Ok(descriptor) => Ok(Some(Self {
                file: File::from(descriptor),
                path,
            })),
            Err(rustix::io::Errno::NOENT | rustix::io::Errno::NOTDIR | rustix::io::Errno::LOOP) => Ok(None),
            Err(errno) => Err(ReadError::Io {
                path,
                source: errno.into(),
            }),
        }
    }

    /// The same for a directory that everything lies in: what is no directory would make an archive look empty.
    pub fn place(&self, name: &str) -> Result<Option<Self>, ReadError> {
        match self.below(name)? {
            None if look(&self.path.join(name))?.is_some() => Err(ReadError::NotADirectory {
                path: self.path.join(name),
            }),
            place => Ok(place),
        }
    }

    /// Opens the file `name` in this directory for reading.
    ///
    /// Links are not followed, and a FIFO or device under a WAL file's name is refused rather than waited for.
    pub fn open(&self, name: &str) -> Result<(File, Metadata), ReadError> {
        let path = self.path.join(name);
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        let file = match rustix::fs::openat(&self.file, name, flags, Mode::empty()) {
            Ok(descriptor) => File::from(descriptor),
            Err(rustix::io::Errno::NOENT) => return Err(ReadError::Absent { path }),
            // What open(2) says of a link under O_NOFOLLOW, and of a socket.
            Err(rustix::io::Errno::LOOP | rustix::io::Errno::NXIO) => return Err(ReadError::NotRegular { path }),
            Err(errno) => {
                return Err(ReadError::Io {
                    path,
                    source: errno.into(),
                });
            }
        };
        match file.metadata() {
            Ok(metadata) if metadata.is_file() => Ok((file, metadata)),
            Ok(_) => Err(ReadError::NotRegular { path }),
            Err(source) => Err(ReadError::Io { path, source }),
        }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// How it looks now.
    pub fn stamp(&self) -> Result<DirectoryStamp, ReadError> {
        self.metadata().map(|metadata| stamp_of(&metadata))
    }

    /// Hands every entry to `visit`, in the file system's order. An error ends it: what comes after would be missing.
    pub fn names(&self, visit: &mut dyn FnMut(&[u8], EntryKind)) -> Result<(), ReadError> {
        let failed = |source| ReadError::Io {
            path: self.path.clone(),
            source,
        };
        // One that was read before is at its end.
        rustix::fs::seek(&self.file, rustix::fs::SeekFrom::Start(0)).map_err(|errno| failed(errno.into()))?;
        let mut buffer = Vec::with_capacity(NAMES);
        let mut entries = RawDir::new(&self.file, buffer.spare_capacity_mut());
        while let Some(entry) = entries.next() {
            let entry = entry.map_err(|errno| failed(errno.into()))?;
            let name = entry.file_name().to_bytes();
            if matches!(name, b"." | b"..") {
                continue;
            }
            let kind = match entry.file_type() {
                FileType::RegularFile => EntryKind::File,
                FileType::Directory => EntryKind::Directory,
                // Some file systems do not say.
                FileType::Unknown => match self.kind_of(entry.file_name()) {
                    Ok(Some(kind)) => kind,
                    // Removed or renamed since its name was read: not part of the archive any more.
                    Ok(None) => continue,
                    Err(error) => return Err(failed(error)),
                },
                _ => EntryKind::Other,
            };
            visit(name, kind);
        }
        Ok(())
    }

    fn kind_of(&self, name: &std::ffi::CStr) -> io::Result<Option<EntryKind>> {
        match rustix::fs::statat(&self.file, name, rustix::fs::AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => Ok(Some(match FileType::from_raw_mode(stat.st_mode) {
                FileType::RegularFile => EntryKind::File,
                FileType::Directory => EntryKind::Directory,
                _ => EntryKind::Other,
            })),
            Err(rustix::io::Errno::NOENT) => Ok(None),
            Err(errno) => Err(errno.into()),
        }
    }

    fn metadata(&self) -> Result<Metadata, ReadError> {
        self.file.metadata().map_err(|source| ReadError::Io {
            path: self.path.clone(),
            source,
        })
    }
}

/// Looks at a path without following a link at its end; none if there is nothing.
pub(super) fn look(path: &Path) -> Result<Option<Metadata>, ReadError> {
    match fs::symlink_metadata(path) {
        Ok(metadata) => Ok(Some(metadata)),
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => Ok(None),
        Err(source) => Err(ReadError::Io {
            path: path.to_owned(),
            source,
        }),
    }
}

/// How a directory looks, from what the system says of it.
pub(super) fn stamp_of(metadata: &Metadata) -> DirectoryStamp {
    DirectoryStamp {
        root: RootId {
            device: metadata.dev(),
            inode: metadata.ino(),
        },
        modified_at: nanoseconds(metadata.mtime(), metadata.mtime_nsec()),
    }
}

/// Whether the next change of a directory will carry another time than its last one.
///
/// A clock behind the file server's makes it look restless for ever, which costs readings and nothing else.
pub(super) fn at_rest(stamp: &DirectoryStamp) -> bool {
    let modified = u64::try_from(stamp.modified_at).map(Duration::from_nanos).ok();
    modified
        .and_then(|modified| SystemTime::UNIX_EPOCH.checked_add(modified))
        .and_then(|modified| SystemTime::now().duration_since(modified).ok())
        .is_some_and(|age| age >= AT_REST)
}

fn root_error(root: &Path, error: io::Error) -> ReadError {
    let path = root.to_owned();
    match error.kind() {
        io::ErrorKind::NotFound => ReadError::NoArchive { path },
        io::ErrorKind::NotADirectory => ReadError::NotADirectory { path },
        _ => ReadError::Io { path, source: error },
    }
}
