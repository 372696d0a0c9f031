//! What an archive holds, by name, size and time of change: the one place that reads an archive's directory.
//!
//! Only regular files count, and no link is followed out of the archive's root. A listing is whole or an error, never a part:
//! whoever takes a part for the whole calls segments missing that are there.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Component, Path, PathBuf};
use std::time::{Duration, SystemTime};

use wal::{SegmentName, SegmentSize, WalFileName};

use crate::source::Source;
pub use crate::stored::{DirectoryStamp, ReadError, RootId, StoredFile};

/// Everything in an archive that has the name of a WAL file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listing {
    /// The segments.
    pub segments: BTreeMap<SegmentName, StoredFile>,
    /// Timeline history, backup history and partial files.
    pub others: Vec<(WalFileName, StoredFile)>,
    /// How many entries were left out: other names, names that are no text, links, subdirectories, FIFOs.
    pub ignored: u64,
    /// The first few of them, for messages.
    pub ignored_examples: Vec<String>,
    /// Which directory was listed.
    pub root: RootId,
    /// While [`stamp`] gives this again, another listing would be the same. None where the directory changed so lately that the
    /// next change might carry the same time.
    pub stamp: Option<DirectoryStamp>,
}

/// How long a directory must have been at rest for its mtime to be trusted: the coarsest time stamps in use count in 2 s.
const AT_REST: Duration = Duration::from_secs(3);
/// How many names are kept as examples of what was left out.
const EXAMPLES: usize = 5;

impl Listing {
    /// Whether it holds no WAL file of any kind.
    pub fn is_empty(&self) -> bool {
        self.segments.is_empty() && self.others.is_empty()
    }
}

/// What shows whether the archive's directory changed since it was last listed, see [`DirectoryStamp`].
pub fn stamp(source: &Source) -> Result<DirectoryStamp, ReadError> {
    let root = root_of(source)?;
    let metadata = fs::metadata(root).map_err(|e| root_error(root, e))?;
    if !metadata.is_dir() {
        return Err(ReadError::NotADirectory { path: root.to_owned() });
    }
    Ok(DirectoryStamp {
        root: RootId {
            device: metadata.dev(),
            inode: metadata.ino(),
        },
        modified_at: crate::stored::nanoseconds(metadata.mtime(), metadata.mtime_nsec()),
    })
}

/// Lists the archive. `size` is the cluster's segment size, without which a name cannot be told from a segment's.
pub fn list(source: &Source, size: SegmentSize) -> Result<Listing, ReadError> {
    let before = stamp(source)?;
    let root = root_of(source)?;
    let mut listing = Listing {
        segments: BTreeMap::new(),
        others: Vec::new(),
        ignored: 0,
        ignored_examples: Vec::new(),
        root: before.root,
        stamp: None,
    };
    for entry in fs::read_dir(root).map_err(|e| root_error(root, e))? {
        // An error here ends the listing: what comes after it would be missing from it.
        let entry = entry.map_err(|e| ReadError::Io {
            path: root.to_owned(),
            source: e,
        })?;
        let file_name = entry.file_name();
        let known = file_name
            .to_str()
            .and_then(|name| Some((name, WalFileName::classify(name, size)?)));
        let Some((name, kind)) = known else {
            listing.ignore(&file_name.to_string_lossy());
            continue;
        };
        let metadata = match entry.metadata() {
            Ok(metadata) => metadata,
            // Removed or renamed since its name was read: not part of the archive any more.
            Err(e) if e.kind() == io::ErrorKind::NotFound => continue,
            Err(e) => {
                return Err(ReadError::Io {
                    path: entry.path(),
                    source: e,
                });
            }
        };
        if !metadata.is_file() {
            listing.ignore(name);
            continue;
        }
        let file = StoredFile::of(name.to_owned(), &metadata);
        match kind {
            WalFileName::Segment(segment) => {
                listing.segments.insert(segment, file);
            }
            other => listing.others.push((other, file)),
        }
    }
    listing.others.sort_by(|(_, a), (_, b)| a.name.cmp(&b.name));
    let after = stamp(source)?;
    // Unmounted or mounted over while it was read: which of the two was listed is anybody's guess.
    if after.root != before.root {
        return Err(ReadError::NoArchive { path: root.to_owned() });
    }
    listing.stamp = Some(after).filter(|after| *after == before && at_rest(after));
    Ok(listing)
}

impl Listing {
    fn ignore(&mut self, name: &str) {
        self.ignored += 1;
        if self.ignored_examples.len() < EXAMPLES {
            self.ignored_examples.push(name.to_owned());
        }
    }
}

/// Looks at one file of the archive; none if there is no such regular file.
pub fn stat_one(source: &Source, name: &str) -> Result<Option<StoredFile>, ReadError> {
    let path = path_of(source, name)?;
    match fs::symlink_metadata(&path) {
        Ok(metadata) if metadata.is_file() => Ok(Some(StoredFile::of(name.to_owned(), &metadata))),
        Ok(_) => Ok(None),
        // Only an archive that is there can say that a file is not.
        Err(e) if e.kind() == io::ErrorKind::NotFound => stamp(source).map(|_| None),
        Err(e) => Err(ReadError::Io { path, source: e }),
    }
}

/// Opens one file of the archive for reading, with its size and time of change as of this opening.
///
/// Links are not followed, and a FIFO or device under a WAL file's name is refused rather than waited for.
pub fn open(source: &Source, name: &str) -> Result<(File, StoredFile), ReadError> {
    let path = path_of(source, name)?;
    let opened = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_NOCTTY)
        .open(&path);
    let file = match opened {
        Ok(file) => file,
        Err(e) => {
            return Err(match e.raw_os_error() {
                Some(libc::ENOENT) => ReadError::Absent { path },
                // What open(2) says of a link under O_NOFOLLOW, and of a socket.
                Some(libc::ELOOP | libc::ENXIO) => ReadError::NotRegular { path },
                _ => ReadError::Io { path, source: e },
            });
        }
    };
    let metadata = match file.metadata() {
        Ok(metadata) => metadata,
        Err(source) => return Err(ReadError::Io { path, source }),
    };
    if !metadata.is_file() {
        return Err(ReadError::NotRegular { path });
    }
    let stored = StoredFile::of(name.to_owned(), &metadata);
    Ok((file, stored))
}

/// Where a file of the archive lies. Names come from tables too, so they may not lead elsewhere.
fn path_of(source: &Source, name: &str) -> Result<PathBuf, ReadError> {
    let path = root_of(source)?.join(name);
    let mut components = Path::new(name).components();
    match (components.next(), components.next()) {
        (Some(Component::Normal(only)), None) if only.len() == name.len() => Ok(path),
        _ => Err(ReadError::NotRegular { path }),
    }
}

fn root_of(source: &Source) -> Result<&Path, ReadError> {
    source
        .root()
        .ok_or_else(|| ReadError::NoArchive { path: PathBuf::new() })
}

fn root_error(root: &Path, error: io::Error) -> ReadError {
    let path = root.to_owned();
    match error.kind() {
        io::ErrorKind::NotFound => ReadError::NoArchive { path },
        io::ErrorKind::NotADirectory => ReadError::NotADirectory { path },
        _ => ReadError::Io { path, source: error },
    }
}

/// A clock behind the file server's makes the directory look restless for ever, which costs listings and nothing else.
fn at_rest(stamp: &DirectoryStamp) -> bool {
    let modified = u64::try_from(stamp.modified_at).map(Duration::from_nanos).ok();
    modified
        .and_then(|modified| SystemTime::UNIX_EPOCH.checked_add(modified))
        .and_then(|modified| SystemTime::now().duration_since(modified).ok())
        .is_some_and(|age| age >= AT_REST)
}

#[cfg(test)]
mod tests;
