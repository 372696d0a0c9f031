//! Finding, looking at and opening single files of an archive under their own names.

use std::fs::{File, Metadata};

use wal::WalFileName;

use super::Store;
use super::contents::form;
use super::directory::{Directory, EntryKind, at_rest, look};
use super::layout::{Group, Layout, sha1_in};
use crate::compression::Compression;
use crate::content::Content;
use crate::stored::{DirectoryStamp, ReadError, StoredFile};

/// The names in one group of a layout whose names hold checksums, kept because its segments are read one after the other.
#[derive(Debug)]
pub(super) struct Listed {
    group: Group,
    stamps: Vec<Option<DirectoryStamp>>,
    /// With the number of the place that each lies in.
    names: Vec<(usize, String)>,
}

/// More names than this are not kept: a group has at most 4096 segments.
const MOST_LISTED: usize = 3 * 4096;
/// So many files of one segment are named in a message.
const DUPLICATES: usize = 5;

/// Where a file may be stored: directories below the root, and the name there.
#[derive(Debug, Clone)]
struct Candidate {
    directories: Vec<String>,
    name: String,
    compression: Compression,
}

impl Candidate {
    fn path(&self) -> String {
        let mut path = self.directories.join("/");
        if !path.is_empty() {
            path.push('/');
        }
        path + &self.name
    }
}

impl Store {
    /// Looks at the WAL file that the server calls `name`; none if the archive has no such regular file.
    ///
    /// # Errors
    /// When the archive cannot be read, the name is no WAL file's, or several files of that name differ.
    pub fn stat(&mut self, name: &str) -> Result<Option<StoredFile>, ReadError> {
        let kind = self.kind(name)?;
        for _ in 0..self.attempts() {
            for candidate in self.candidates(name, &kind)? {
                let path = candidate.path();
                if let Some(metadata) = look(&self.path().join(&path))?.filter(Metadata::is_file) {
                    return Ok(Some(self.stored(&path, &metadata)));
                }
            }
            self.listed = None;
        }
        // Only an archive that is there can say that a file is not.
        self.confirm()?;
        Ok(None)
    }

    /// Opens the WAL file that the server calls `name`, with its size and time of change as of this opening. What comes out is
    /// decompressed as it is read.
    ///
    /// # Errors
    /// When the archive cannot be read, has no such regular file, or has several that differ.
    pub fn read(&mut self, name: &str) -> Result<(Content, StoredFile), ReadError> {
        let kind = self.kind(name)?;
        let mut refused = None;
        for _ in 0..self.attempts() {
            let root = Directory::root(&self.path())?;
            for candidate in self.candidates(name, &kind)? {
                match open(&root, &candidate) {
                    Ok(Some((file, metadata))) => {
                        let path = candidate.path();
                        let stored = self.stored(&path, &metadata);
                        let content = Content::open(file, candidate.compression).map_err(|source| ReadError::Io {
                            path: self.path().join(&path),
                            source,
                        })?;
                        return Ok((content, stored));
                    }
                    Ok(None) | Err(ReadError::Absent { .. }) => {}
                    Err(error @ ReadError::NotRegular { .. }) => {
                        refused.get_or_insert(error);
                    }
                    Err(error) => return Err(error),
                }
            }
            self.listed = None;
        }
        self.confirm()?;
        Err(refused.unwrap_or_else(|| ReadError::Absent {
            path: self.path().join(name),
        }))
    }

    /// Names come from tables too: only a WAL file's is looked for, and none of those leads out of the archive.
    fn kind(&self, name: &str) -> Result<WalFileName, ReadError> {
        WalFileName::classify(name, self.format.segment_size).ok_or_else(|| ReadError::NotRegular {
            path: self.path().join(name),
        })
    }

    /// Names that were kept may be out of date.
    const fn attempts(&self) -> u32 {
        match self.layout {
            Layout::PgBackRest => 2,
            Layout::Flat | Layout::Barman | Layout::WalG => 1,
        }
    }

    fn stored(&self, path: &str, metadata: &Metadata) -> StoredFile {
        let name = match self.below {
            "" => path.to_owned(),
            below => format!("{below}/{path}"),
        };
        StoredFile::of(name, metadata)
    }

    fn confirm(&self) -> Result<(), ReadError> {
        let path = self.path();
        if Directory::root(&path)?.stamp()?.root == self.listing.root {
            Ok(())
        } else {
            Err(ReadError::NoArchive { path })
        }
    }

    /// Where the file may be, the likeliest first.
    fn candidates(&mut self, name: &str, kind: &WalFileName) -> Result<Vec<Candidate>, ReadError> {
        let group = self.layout.group(kind);
        if self.layout == Layout::PgBackRest {
            return match group {
                Some(group) if matches!(kind, WalFileName::Segment(_) | WalFileName::Partial(_)) => {
                    self.with_checksum(name, kind, group)
                }
                _ => Ok(self.in_every_place(name, group)),
            };
        }
        let forms = match kind {
            WalFileName::Segment(segment) => self.listing.contents.ours.get(segment.number),
            other => self.listing.contents.others.get(other, name),
        };
        let mut compressions = self.layout.compressions();
        // Stable: within the known and the unknown the layout's order stays.
        compressions.sort_by_key(|compression| forms & form(self.layout, *compression) == 0);
        let directories: Vec<String> = group.map(|group| group.to_string()).into_iter().collect();
        Ok(compressions
            .into_iter()
            .flat_map(|compression| {
                let names = Layout::stored_names(name, kind, compression);
                names.into_iter().map(move |name| (name, compression))
            })
            .map(|(name, compression)| Candidate {
                directories: directories.clone(),
                name,
                compression,
            })
            .collect())
    }

    fn in_every_place(&self, name: &str, group: Option<Group>) -> Vec<Candidate> {
        let group = group.map(|group| group.to_string());
        let place = |place: &String| Candidate {
            directories: [Some(place.clone()), group.clone()].into_iter().flatten().collect(),
            name: name.to_owned(),
            compression: Compression::None,
        };
        self.places.iter().map(place).collect()
    }

    /// The files of a segment, whose names hold checksums. Where those differ, pgBackRest gives none of them to recovery;
    /// where they do not, it takes the first that it can read (command/archive/get/get.c).
    fn with_checksum(&mut self, name: &str, kind: &WalFileName, group: Group) -> Result<Vec<Candidate>, ReadError> {
        let mut found: Vec<(usize, String)> = Vec::new();
        let mut checksums: Vec<String> = Vec::new();
        let (layout, size) = (self.layout, self.format.segment_size);
        self.names(group, &mut |place, stored| {
            let is_asked_for =
                stored.starts_with(name) && layout.classify(stored, size).is_some_and(|known| known.kind == *kind);
            if !is_asked_for || found.len() >= DUPLICATES {
                return;
            }
            if let Some(checksum) = sha1_in(stored)
                && !checksums.iter().any(|known| known == checksum)
            {
                checksums.push(checksum.to_owned());
            }
            found.push((place, stored.to_owned()));
        })?;
        found.sort();
        let candidates: Vec<Candidate> = found
            .into_iter()
            .filter_map(|(place, stored)| {
                Some(Candidate {
                    directories: vec![self.places.get(place)?.clone(), group.to_string()],
                    compression: layout.classify(&stored, size)?.compression,
                    name: stored,
                })
            })
            .collect();
        if checksums.len() > 1 {
            return Err(ReadError::Duplicates {
                name: name.to_owned(),
                stored: candidates.iter().map(Candidate::path).collect(),
            });
        }
        Ok(candidates)
    }

    /// Hands every file name in a group to `visit`, with the number of its place.
    fn names(&mut self, group: Group, visit: &mut dyn FnMut(usize, &str)) -> Result<(), ReadError> {
        let root = Directory::root(&self.path())?;
        let mut directories = Vec::with_capacity(self.places.len());
        let mut stamps = Vec::with_capacity(self.places.len());
        for place in &self.places {
            let directory = match root.place(place)? {
                Some(place) => place.below(&group.to_string())?,
                None => None,
            };
            stamps.push(directory.as_ref().map(Directory::stamp).transpose()?);
            directories.push(directory);
        }
        if let Some(listed) = self
            .listed
            .as_ref()
            .filter(|listed| listed.group == group && listed.stamps == stamps)
        {
            for (place, name) in &listed.names {
                visit(*place, name);
            }
            return Ok(());
        }
        let mut names = Some(Vec::new()).filter(|_| stamps.iter().flatten().all(at_rest));
        for (place, directory) in directories.iter().enumerate() {
            let Some(directory) = directory else { continue };
            directory.names(&mut |name, kind| {
                let Some(name) = std::str::from_utf8(name).ok().filter(|_| kind == EntryKind::File) else {
                    return;
                };
                visit(place, name);
                if let Some(names) = &mut names {
                    names.push((place, name.to_owned()));
                }
                if names.as_ref().is_some_and(|names| names.len() > MOST_LISTED) {
                    names = None;
                }
            })?;
        }
        self.listed = names.map(|names| Listed { group, stamps, names });
        Ok(())
    }
}

fn open(root: &Directory, candidate: &Candidate) -> Result<Option<(File, Metadata)>, ReadError> {
    let mut inner: Option<Directory> = None;
    for name in &candidate.directories {
        let Some(next) = inner.as_ref().unwrap_or(root).below(name)? else {
            return Ok(None);
        };
        inner = Some(next);
    }
    inner.as_ref().unwrap_or(root).open(&candidate.name).map(Some)
}
