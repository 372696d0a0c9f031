//! What `backup_manifest` says of a base backup: its files, the WAL that it needs, the cluster that it is of.
//!
//! Written by the server (src/backend/backup/backup_manifest.c), read as src/common/parse_manifest.c reads it: versions 1, and
//! since PostgreSQL 17 also 2. A manifest of a big cluster lists millions of files, so that its files are handed to the caller
//! one by one and never kept.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufReader, Read};
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Component, Path, PathBuf};

use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor};
use sha2::{Digest, Sha256};
use wal::{Lsn, Timeline};

/// A file of the backup, as its manifest lists it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ManifestFile {
    /// Where it lies below the backup's root: relative, and without `..`.
    pub path: PathBuf,
    /// Its size in bytes.
    pub bytes: u64,
}

/// WAL that a recovery of the backup needs to become consistent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct WalRange {
    /// The timeline that it lies on.
    pub timeline: Timeline,
    /// Its first byte.
    pub start: Lsn,
    /// The byte behind its last.
    pub end: Lsn,
}

/// A manifest whose own checksum is right.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Manifest {
    /// The version of its format: 1 or 2.
    pub version: u32,
    /// Of the cluster that was backed up; since version 2.
    pub system_identifier: Option<u64>,
    /// As many as the backup saw timelines, the newest first.
    pub wal_ranges: Vec<WalRange>,
    /// How many files it lists.
    pub files: u64,
    /// The sum of their sizes, bytes.
    pub bytes: u64,
}

/// Why a manifest says nothing.
#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    /// There is none: the backup was taken with `--no-manifest`, or it was lost.
    #[error("\"{}\" does not exist", path.display())]
    Absent {
        /// Where it should be.
        path: PathBuf,
    },
    /// The operating system refused to show it.
    #[error("could not read \"{}\": {source}", path.display())]
    Io {
        /// The manifest.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// It is no manifest, or it is damaged.
    #[error("\"{}\" is damaged: {what}", path.display())]
    Malformed {
        /// The manifest.
        path: PathBuf,
        /// What was found where: a clause.
        what: String,
    },
    /// It is not what the server wrote.
    #[error("\"{}\" is damaged: its SHA-256 is {found}, where its last line says {expected}", path.display())]
    WrongChecksum {
        /// The manifest.
        path: PathBuf,
        /// What the last line says.
        expected: String,
        /// What the lines before it give.
        found: String,
    },
}

/// The server writes a line for each file, with a path below 1024 bytes that takes up to six bytes for each of them.
const LONGEST_LINE: usize = 16 << 10;
/// A backup sees a timeline for each promotion that happens while it is taken.
const MOST_WAL_RANGES: usize = 1024;
/// The last line holds a checksum of 64 digits and little else.
const LAST_LINE: u64 = 512;

/// Reads the manifest at `path`, and hands each file that it lists to `visit` on the way. What was visited is to be believed only
/// once this returns: the manifest's checksum is known at its end.
///
/// # Errors
/// See [`ManifestError`]; what is wrong is told with line and column where it can be.
pub fn read_manifest(path: &Path, visit: &mut dyn FnMut(&ManifestFile)) -> Result<Manifest, ManifestError> {
    let io_error = |source: io::Error| match source.kind() {
        io::ErrorKind::NotFound => ManifestError::Absent { path: path.to_owned() },
        _ => ManifestError::Io {
            path: path.to_owned(),
            source,
        },
    };
    let malformed = |what: String| ManifestError::Malformed {
        path: path.to_owned(),
        what,
    };
    // Links are not followed, and a pipe in the file's place is not waited for.
    if !fs::symlink_metadata(path).map_err(io_error)?.is_file() {
        return Err(malformed("it is no regular file".to_owned()));
    }
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NONBLOCK | libc::O_NOFOLLOW)
        .open(path)
        .map_err(io_error)?;
    let covered = start_of_last_line(&file)
        .map_err(io_error)?
        .ok_or_else(|| malformed("it does not end in a whole line with its checksum".to_owned()))?;
    let mut reader = Covered {
        file,
        left: covered,
        line: 0,
        hasher: Sha256::new(),
        failure: None,
    };
    let mut json = serde_json::Deserializer::from_reader(BufReader::with_capacity(64 << 10, &mut reader));
    let parsed = Body { visit }
        .deserialize(&mut json)
        .and_then(|body| json.end().map(|()| body));
    drop(json);
    if let Some(failure) = reader.failure {
        return Err(io_error(failure));
    }
    let body = parsed.map_err(|error| malformed(error.to_string()))?;
    let found = hexadecimal(&reader.hasher.finalize());
    if !found.eq_ignore_ascii_case(&body.checksum) {
        return Err(ManifestError::WrongChecksum {
            path: path.to_owned(),
            expected: body.checksum,
            found,
        });
    }
    Ok(body.manifest)
}

/// Where the last line begins, whose checksum covers all before it; none where the file does not end in a line of a bearable
/// length (verify_manifest_checksum() in parse_manifest.c).
fn start_of_last_line(file: &File) -> io::Result<Option<u64>> {
    let size = file.metadata()?.len();
    let from = size.saturating_sub(LAST_LINE);
    let mut tail = vec![0; usize::try_from(size - from).unwrap_or_default()];
    file.read_exact_at(&mut tail, from)?;
    let Some((b'\n', before)) = tail.split_last() else {
        return Ok(None);
    };
    let start = before.iter().rposition(|byte| *byte == b'\n');
    Ok(start.map(|at| from + at as u64 + 1))
}

/// The bytes of the manifest, hashed as far as its checksum covers them.
struct Covered {
    file: File,
    left: u64,
    line: usize,
    hasher: Sha256,
    /// What the disk said, which the parser would report as a fault of the manifest.
    failure: Option<io::Error>,
}

impl Read for &mut Covered {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = match self.file.read(buffer) {
            Ok(length) => length,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return Err(error),
            Err(error) => {
                let told = io::Error::from(error.kind());
                self.failure = Some(error);
                return Err(told);
            }
        };
        let bytes = buffer.get(..length).unwrap_or_default();
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            self.line = self.line.saturating_add(piece.len());
            // The parser would keep all of it in memory.
            if self.line > LONGEST_LINE {
                return Err(io::Error::other(format!("a line is longer than {LONGEST_LINE} bytes")));
            }
            if piece.ends_with(b"\n") {
                self.line = 0;
            }
        }
        let inside = usize::try_from(self.left).unwrap_or(usize::MAX).min(length);
        self.hasher.update(bytes.get(..inside).unwrap_or_default());
        self.left -= inside as u64;
        Ok(length)
    }
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

struct Parsed {
    manifest: Manifest,
    checksum: String,
}

/// The whole of the manifest.
struct Body<'v> {
    visit: &'v mut dyn FnMut(&ManifestFile),
}

impl<'de> DeserializeSeed<'de> for Body<'_> {
    type Value = Parsed;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Parsed, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Body<'_> {
    type Value = Parsed;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a backup manifest")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Parsed, A::Error> {
        let (mut version, mut system_identifier, mut files, mut wal_ranges, mut checksum) =
            (None, None, None, None, None);
        while let Some(key) = map.next_key::<String>()? {
            match key.as_str() {
                "PostgreSQL-Backup-Manifest-Version" => {
                    let number = map.next_value::<u32>()?;
                    if !matches!(number, 1 | 2) {
                        return Err(A::Error::custom(format!("version {number} is not known")));
                    }
                    version = Some(number);
                }
                "System-Identifier" => system_identifier = Some(map.next_value()?),
                "Files" => {
                    files = Some(map.next_value_seed(Files {
                        visit: &mut *self.visit,
                    })?);
                }
                "WAL-Ranges" => wal_ranges = Some(map.next_value_seed(Ranges)?),
                "Manifest-Checksum" => checksum = Some(map.next_value::<String>()?),
                _ => drop(map.next_value::<IgnoredAny>()?),
            }
        }
        let missing = A::Error::missing_field;
        let (files, bytes) = files.ok_or_else(|| missing("Files"))?;
        Ok(Parsed {
            manifest: Manifest {
                version: version.ok_or_else(|| missing("PostgreSQL-Backup-Manifest-Version"))?,
                system_identifier,
                wal_ranges: wal_ranges.unwrap_or_default(),
                files,
                bytes,
            },
            checksum: checksum.ok_or_else(|| missing("Manifest-Checksum"))?,
        })
    }
}

/// The list of files; gives their number and the sum of their sizes.
struct Files<'v> {
    visit: &'v mut dyn FnMut(&ManifestFile),
}

impl<'de> DeserializeSeed<'de> for Files<'_> {
    type Value = (u64, u64);

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(u64, u64), D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for Files<'_> {
    type Value = (u64, u64);

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a list of files")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<(u64, u64), A::Error> {
        let (mut files, mut bytes) = (0_u64, 0_u64);
        while let Some(listed) = list.next_element::<ListedFile>()? {
            let file = ManifestFile {
                path: listed.path().map_err(A::Error::custom)?,
                bytes: listed.bytes,
            };
            files += 1;
            bytes = bytes.saturating_add(file.bytes);
            (self.visit)(&file);
        }
        Ok((files, bytes))
    }
}

#[derive(Deserialize)]
struct ListedFile {
    #[serde(rename = "Path")]
    path: Option<String>,
    /// In hexadecimal digits, where the path is not UTF-8.
    #[serde(rename = "Encoded-Path")]
    encoded_path: Option<String>,
    #[serde(rename = "Size")]
    bytes: u64,
}

impl ListedFile {
    /// Its path, if that stays below the backup's root: a manifest is data from outside.
    fn path(&self) -> Result<PathBuf, String> {
        let path = match (&self.path, &self.encoded_path) {
            (Some(path), None) => PathBuf::from(path),
            (None, Some(digits)) => {
                let bytes = from_hexadecimal(digits).ok_or_else(|| format!("\"{digits}\" encodes no path"))?;
                PathBuf::from(OsString::from_vec(bytes))
            }
            (Some(_), Some(_)) => return Err("a file has both a path and an encoded one".to_owned()),
            (None, None) => return Err("a file has no path".to_owned()),
        };
        let stays_inside = path
            .components()
            .all(|component| matches!(component, Component::Normal(_)));
        let is_named = !path.as_os_str().is_empty() && !path.as_os_str().as_encoded_bytes().contains(&0);
        if stays_inside && is_named {
            Ok(path)
        } else {
            Err(format!("the path {path:?} leads out of the backup"))
        }
    }
}

fn from_hexadecimal(digits: &str) -> Option<Vec<u8>> {
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    let (pairs, rest) = digits.as_bytes().as_chunks::<2>();
    if !rest.is_empty() {
        return None;
    }
    pairs
        .iter()
        .map(|[high, low]| Some(digit(*high)? << 4 | digit(*low)?))
        .collect()
}

/// The list of WAL ranges.
struct Ranges;

impl<'de> DeserializeSeed<'de> for Ranges {
    type Value = Vec<WalRange>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Vec<WalRange>, D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for Ranges {
    type Value = Vec<WalRange>;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a list of WAL ranges")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Vec<WalRange>, A::Error> {
        let mut ranges = Vec::new();
        while let Some(listed) = list.next_element::<ListedRange>()? {
            let lsn = |text: &str| text.parse::<Lsn>().map_err(A::Error::custom);
            let range = WalRange {
                timeline: Timeline(listed.timeline),
                start: lsn(&listed.start)?,
                end: lsn(&listed.end)?,
            };
            if range.timeline.0 == 0 || range.start > range.end {
                return Err(A::Error::custom(format!(
                    "there is no WAL from {} to {} on timeline {}",
                    range.start, range.end, range.timeline
                )));
            }
            if ranges.len() == MOST_WAL_RANGES {
                return Err(A::Error::custom(format!(
                    "there are more than {MOST_WAL_RANGES} WAL ranges"
                )));
            }
            ranges.push(range);
        }
        Ok(ranges)
    }
}

#[derive(Deserialize)]
struct ListedRange {
    #[serde(rename = "Timeline")]
    timeline: u32,
    #[serde(rename = "Start-LSN")]
    start: String,
    #[serde(rename = "End-LSN")]
    end: String,
}

#[cfg(test)]
mod tests;
