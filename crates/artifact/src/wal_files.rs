//! WAL segments that lie beside a backup: what an incremental copy of WAL consists of, and what a backup carries inside.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use wal::{SegmentName, WalFileName};

use crate::measure::{self, ArtifactError};

/// What archivers append to the name of a segment that they compress.
const SUFFIXES: &[&str] = &[".gz", ".lz4", ".zst", ".zstd", ".bz2", ".xz", ".br", ".lzma"];

/// One segment found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WalFile {
    /// Which.
    pub segment: SegmentName,
    /// Where.
    pub path: PathBuf,
    /// The size of the file, compressed or not.
    pub bytes: u64,
    /// Whether its name says that it is compressed.
    pub compressed: bool,
}

/// The segments of a range that were found in a directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WalFiles {
    /// Those found, in order, each once: the plain file where there is a compressed one too.
    pub found: Vec<WalFile>,
    /// How many the range has.
    pub expected: u64,
}

impl WalFiles {
    /// How many were found.
    pub fn count(&self) -> u64 {
        u64::try_from(self.found.len()).unwrap_or(u64::MAX)
    }

    /// Sum of their sizes as stored.
    pub fn bytes(&self) -> u64 {
        self.found.iter().fold(0, |sum, file| sum.saturating_add(file.bytes))
    }

    /// Whether none of the range is absent.
    pub fn is_complete(&self) -> bool {
        self.count() == self.expected
    }
}

/// Finds which WAL segments from `first` to `last`, both included and of the same timeline and segment size, lie in the directory
/// `path` or in `pg_wal` below it. Regular files only, by name; what is in them is not looked at. The work is that of listing the
/// directory, however long the range.
pub fn wal_files_in(path: &Path, first: SegmentName, last: SegmentName) -> Result<WalFiles, ArtifactError> {
    let (root, metadata) = measure::root(path)?;
    let expected = if first.timeline == last.timeline && first.number <= last.number {
        (last.number - first.number).saturating_add(1)
    } else {
        0
    };
    let mut found = Vec::new();
    if metadata.is_dir() {
        collect(&root, first, last, &mut found)?;
        let pg_wal = root.join("pg_wal");
        // pg_wal may be a link in a plain backup as in a data directory; what it leads to is not the backup's.
        if fs::symlink_metadata(&pg_wal).is_ok_and(|m| m.is_dir()) {
            collect(&pg_wal, first, last, &mut found)?;
        }
    } else if let Some((parent, name)) = root.parent().zip(root.file_name().and_then(|name| name.to_str()))
        && let Some(file) = wal_file(parent, name, first, last)
    {
        found.push(WalFile {
            bytes: metadata.len(),
            ..file
        });
    }
    found.sort_by(|a, b| (a.segment, a.compressed, &a.path).cmp(&(b.segment, b.compressed, &b.path)));
    found.dedup_by_key(|file| file.segment);
    Ok(WalFiles { found, expected })
}

fn collect(
    directory: &Path,
    first: SegmentName,
    last: SegmentName,
    found: &mut Vec<WalFile>,
) -> Result<(), ArtifactError> {
    let failed = |source: io::Error| ArtifactError::io(directory, source);
    for entry in fs::read_dir(directory).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let name = entry.file_name();
        let Some(file) = name.to_str().and_then(|name| wal_file(directory, name, first, last)) else {
            continue;
        };
        match entry.metadata() {
            Ok(metadata) if metadata.is_file() => found.push(WalFile {
                bytes: metadata.len(),
                ..file
            }),
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(ArtifactError::io(&file.path, error)),
        }
    }
    Ok(())
}

/// What a file is by its name, if it is a segment of the range; its size is left open.
fn wal_file(directory: &Path, name: &str, first: SegmentName, last: SegmentName) -> Option<WalFile> {
    let stem = SUFFIXES.iter().find_map(|suffix| name.strip_suffix(suffix));
    let Some(WalFileName::Segment(segment)) = WalFileName::classify(stem.unwrap_or(name), first.size) else {
        return None;
    };
    let within = segment.timeline == first.timeline
        && segment.timeline == last.timeline
        && (first.number..=last.number).contains(&segment.number);
    within.then(|| WalFile {
        segment,
        path: directory.join(name),
        bytes: 0,
        compressed: stem.is_some(),
    })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use wal::{SegmentSize, Timeline};

    use super::*;

    fn segment(number: u64) -> SegmentName {
        SegmentName {
            timeline: Timeline(1),
            number,
            size: SegmentSize::DEFAULT,
        }
    }

    fn store(directory: &Path, name: &str, bytes: usize) {
        fs::write(directory.join(name), vec![0; bytes]).unwrap();
    }

    #[test]
    fn segments_of_the_range_are_found_plain_compressed_and_in_pg_wal() {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path();
        store(root, "000000010000000000000002", 20);
        store(root, "000000010000000000000003.gz", 3);
        store(root, "000000010000000000000003", 30);
        store(root, "000000010000000000000005.zst", 5);
        store(root, "000000010000000000000009", 90);
        store(root, "000000020000000000000004", 40);
        store(root, "000000010000000000000004.partial", 40);
        store(root, "notes", 1);
        fs::create_dir(root.join("pg_wal")).unwrap();
        store(&root.join("pg_wal"), "000000010000000000000006", 60);
        store(&root.join("pg_wal"), "000000010000000000000005", 50);
        symlink(
            root.join("000000010000000000000002"),
            root.join("000000010000000000000007"),
        )
        .unwrap();
        fs::create_dir(root.join("000000010000000000000008")).unwrap();
        let files = wal_files_in(root, segment(2), segment(8)).unwrap();
        let shown: Vec<_> = files
            .found
            .iter()
            .map(|f| (f.segment.number, f.bytes, f.compressed))
            .collect();
        assert_eq!(shown, [(2, 20, false), (3, 30, false), (5, 50, false), (6, 60, false)]);
        assert_eq!((files.count(), files.bytes(), files.expected), (4, 160, 7));
        assert!(!files.is_complete());
        assert!(wal_files_in(root, segment(2), segment(3)).unwrap().is_complete());
    }

    #[test]
    fn a_single_segment_file_may_be_named() {
        let directory = tempfile::tempdir().unwrap();
        store(directory.path(), "000000010000000000000002", 20);
        let path = directory.path().join("000000010000000000000002");
        assert_eq!(wal_files_in(&path, segment(2), segment(2)).unwrap().bytes(), 20);
        assert_eq!(wal_files_in(&path, segment(3), segment(9)).unwrap().count(), 0);
    }

    #[test]
    fn an_endless_or_upside_down_range_costs_no_more_than_the_directory() {
        let directory = tempfile::tempdir().unwrap();
        store(directory.path(), "000000010000000000000002", 20);
        let files = wal_files_in(directory.path(), segment(0), segment(u64::MAX)).unwrap();
        assert_eq!((files.count(), files.expected), (1, u64::MAX));
        let files = wal_files_in(directory.path(), segment(5), segment(2)).unwrap();
        assert_eq!((files.count(), files.expected), (0, 0));
        assert!(wal_files_in(Path::new("/nowhere"), segment(1), segment(2)).is_err());
    }
}
