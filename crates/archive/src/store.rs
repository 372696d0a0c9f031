//! An archive on disk, whatever its layout: what it holds for one cluster, and what is in its files.
//!
//! Names are read anew only where a directory changed, and what is remembered of them is bounded, whatever lies in the archive.

mod contents;
mod directory;
pub(crate) mod layout;
mod listing;
mod lookup;
mod others;
pub(crate) mod pgbackrest;
mod presence;
mod strangers;
mod view;

use std::collections::BTreeMap;
use std::mem;
use std::path::{Path, PathBuf};

use wal::{Lsn, TimelineHistory, WalFormat};

use crate::source::Source;
use crate::stored::{DirectoryStamp, ReadError, StoredFile};
use contents::{Contents, Scan};
use directory::{Directory, at_rest, look, stamp_of};
use layout::{Group, Layout};
pub use listing::Listing;
pub use strangers::Strangers;
use view::View;

/// A readable archive on disk for one cluster.
///
/// Files are named as the server names them, whatever they are called in the archive.
///
/// [`refresh`](Self::refresh) is called before anything else is asked; until then the archive looks empty. A reading is whole
/// or an error, never a part: whoever takes a part for the whole calls segments missing that are there. After an error,
/// nothing is to be concluded from what is not there until a refresh succeeds.
pub struct Store {
    layout: Layout,
    /// The source's path.
    base: PathBuf,
    /// The directory below it that everything lies in; empty for the path itself.
    below: &'static str,
    format: WalFormat,
    /// The directories of this cluster below the root, newest first; an empty name for the root itself.
    places: Vec<String>,
    listing: Listing,
    top: Unit,
    groups: BTreeMap<Group, Unit>,
    unread_groups: u64,
    ignored: u64,
    examples: Vec<String>,
    listed: Option<lookup::Listed>,
    readings: u64,
    /// That something changed since the last refresh that succeeded.
    changed: bool,
}

/// What is remembered of a directory, or of those that stand for one: pgBackRest can have several for a cluster.
#[derive(Debug, Default)]
struct Unit {
    /// While they look so, reading them again gives the same. None where they are to be read: not read yet, or changed so
    /// lately that the next change might carry the same time.
    stamps: Option<Box<[Option<DirectoryStamp>]>>,
    strangers: u64,
    ignored: u64,
}

/// What WAL-G calls the directory of WAL in its storage (utility.go).
const WALG_DIRECTORY: &str = "wal_005";

impl Store {
    /// Finds the place of the cluster that `format` describes in the archive. Nothing is read of what it holds.
    ///
    /// # Errors
    /// When the archive is not there, is not in the layout that the source names, or is not this cluster's.
    pub fn open(source: &Source, format: &WalFormat) -> Result<Self, ReadError> {
        let (Some(layout), Some(base)) = (Layout::of(source), source.root()) else {
            return Err(ReadError::NotInLayout {
                path: PathBuf::from(source.to_string()),
                why: "is a command, and no place on disk".to_owned(),
            });
        };
        let below = match layout {
            Layout::WalG => walg_directory(base)?,
            Layout::Flat | Layout::PgBackRest | Layout::Barman => "",
        };
        let root = path_below(base, below);
        let identity = Directory::root(&root)?.stamp()?.root;
        let mut store = Self {
            layout,
            base: base.to_owned(),
            below,
            format: *format,
            places: Vec::new(),
            listing: Listing::new(identity),
            top: Unit::default(),
            groups: BTreeMap::new(),
            unread_groups: 0,
            ignored: 0,
            examples: Vec::new(),
            listed: None,
            readings: 0,
            changed: true,
        };
        store.places = store.find_places()?;
        Ok(store)
    }

    /// Brings what is known of the archive's names up to date, as seen by a server that is at `flush` on the timeline of
    /// `history`. True if some name may have come or gone since the last refresh that succeeded.
    ///
    /// Costs a system call for each directory, and a reading of those that changed.
    ///
    /// # Errors
    /// When the archive, or any directory of it, cannot be read whole.
    pub fn refresh(&mut self, history: &TimelineHistory, flush: Lsn) -> Result<bool, ReadError> {
        let path = self.path();
        let root = Directory::root(&path)?;
        let identity = root.stamp()?.root;
        let places = self.find_places()?;
        if identity != self.listing.root || places != self.places {
            self.forget();
        }
        self.listing.root = identity;
        self.places = places;
        let mut view = match self.listing.view.take() {
            Some(view) => view,
            None => View::new(history, self.format.segment_size, flush),
        };
        if view.follow(history, flush) {
            // What was ahead may not be so any more.
            self.changed |= self.listing.contents.ours.iter(view.ahead()).next().is_some();
        } else {
            view = View::new(history, self.format.segment_size, flush);
            self.forget();
        }
        let read = self.read_all(&root, &view);
        self.listing.view = Some(view);
        read?;
        // Unmounted or mounted over while it was read: which of the two was read is anybody's guess.
        if Directory::root(&path)?.stamp()?.root != identity {
            return Err(ReadError::NoArchive { path });
        }
        if self.changed {
            self.listing.strangers = self.all_strangers();
        }
        Ok(mem::take(&mut self.changed))
    }

    /// What it holds, as of the last refresh.
    pub const fn listing(&self) -> &Listing {
        &self.listing
    }

    /// How many entries of the archive are no WAL files of this layout (other names, links, FIFOs, stray directories), and the
    /// first few of them, for messages.
    pub fn ignored(&self) -> (u64, &[String]) {
        (self.ignored, &self.examples)
    }

    /// How often a directory was read since this was opened, for measurements.
    pub const fn readings(&self) -> u64 {
        self.readings
    }

    /// Whether its root can be read now, whatever was read of it before.
    ///
    /// # Errors
    /// What the system says.
    pub fn check(&self) -> Result<(), ReadError> {
        Directory::root(&self.path()).map(drop)
    }

    /// Where a file of it lies.
    pub fn path_of(&self, file: &StoredFile) -> PathBuf {
        self.base.join(&file.name)
    }

    /// The directory that everything lies in.
    fn path(&self) -> PathBuf {
        path_below(&self.base, self.below)
    }

    fn find_places(&self) -> Result<Vec<String>, ReadError> {
        match self.layout {
            Layout::PgBackRest => pgbackrest::archive_ids(&self.path(), &self.format),
            Layout::Flat | Layout::Barman | Layout::WalG => Ok(vec![String::new()]),
        }
    }

    /// Takes everything for unread.
    fn forget(&mut self) {
        self.top = Unit::default();
        self.groups.clear();
        self.unread_groups = 0;
        self.listing.contents = Contents::default();
        self.ignored = 0;
        self.examples.clear();
        self.listed = None;
        self.changed = true;
    }

    fn read_all(&mut self, root: &Directory, view: &View) -> Result<(), ReadError> {
        let mut places = Vec::with_capacity(self.places.len());
        for place in &self.places {
            places.push(match place.as_str() {
                "" => Some(Directory::root(root.path())?),
                // pgBackRest makes it with the first segment.
                place => root.place(place)?,
            });
        }
        self.read_top(&places, view)?;
        let groups: Vec<Group> = self.groups.keys().copied().collect();
        for group in groups {
            self.read_group(&places, group, view)?;
        }
        Ok(())
    }

    fn read_top(&mut self, places: &[Option<Directory>], view: &View) -> Result<(), ReadError> {
        let mut stamps = Vec::with_capacity(places.len());
        for place in places {
            stamps.push(place.as_ref().map(Directory::stamp).transpose()?);
        }
        if self.top.stamps.as_deref() == Some(&stamps) {
            return Ok(());
        }
        let mut scan = Scan::new(view, self.layout, None);
        self.readings = self.readings.saturating_add(1);
        let stamps = read(places, stamps, &mut scan)?;
        self.count_ignored(self.top.ignored, &scan, None);
        self.top = Unit {
            stamps,
            strangers: 0,
            ignored: scan.ignored,
        };
        if self.layout.is_grouped() {
            self.changed |= self.listing.contents.others.replace_histories(scan.contents.others);
            self.changed |= self.unread_groups != scan.unread_groups;
            self.unread_groups = scan.unread_groups;
            let mut found = scan.groups;
            found.append(&mut scan.strange_groups);
            let gone: Vec<Group> = self
                .groups
                .keys()
                .filter(|group| !found.contains(group))
                .copied()
                .collect();
            for group in gone {
                self.remove_group(group, view);
            }
            for group in found {
                self.groups.entry(group).or_default();
            }
        } else {
            self.changed |= self.listing.contents != scan.contents;
            self.listing.contents = scan.contents;
        }
        Ok(())
    }

    fn read_group(&mut self, places: &[Option<Directory>], group: Group, view: &View) -> Result<(), ReadError> {
        let name = group.to_string();
        let mut stamps = Vec::with_capacity(places.len());
        for place in places {
            let path = place.as_ref().map(|place| place.path().join(&name));
            let metadata = path.map(|path| look(&path)).transpose()?.flatten();
            stamps.push(
                metadata
                    .filter(|metadata| metadata.is_dir())
                    .map(|metadata| stamp_of(&metadata)),
            );
        }
        if stamps.iter().all(Option::is_none) {
            self.remove_group(group, view);
            return Ok(());
        }
        let Some(unit) = self.groups.get(&group) else {
            return Ok(());
        };
        if unit.stamps.as_deref() == Some(&stamps) {
            return Ok(());
        }
        let mut directories = Vec::with_capacity(places.len());
        for place in places {
            directories.push(place.as_ref().map(|place| place.below(&name)).transpose()?.flatten());
        }
        let mut scan = Scan::new(view, self.layout, Some(group));
        self.readings = self.readings.saturating_add(1);
        let stamps = read(&directories, stamps, &mut scan)?;
        self.put_group(group, stamps, scan, view);
        Ok(())
    }

    fn put_group(&mut self, group: Group, stamps: Option<Box<[Option<DirectoryStamp>]>>, scan: Scan<'_>, view: &View) {
        let before = self.groups.remove(&group).unwrap_or_default();
        self.count_ignored(before.ignored, &scan, Some(group));
        let unit = Unit {
            stamps,
            strangers: scan.contents.strangers.count(),
            ignored: scan.ignored,
        };
        self.changed |= self
            .listing
            .contents
            .replace_group(group, before.strangers, scan.contents, view);
        self.groups.insert(group, unit);
    }

    fn remove_group(&mut self, group: Group, view: &View) {
        self.put_group(group, None, Scan::new(view, self.layout, Some(group)), view);
        self.groups.remove(&group);
    }

    fn count_ignored(&mut self, before: u64, scan: &Scan<'_>, group: Option<Group>) {
        self.ignored = self.ignored.saturating_sub(before).saturating_add(scan.ignored);
        let directory = group.map(|group| format!("{group}/"));
        self.examples.retain(|example| match &directory {
            Some(directory) => !example.starts_with(directory),
            None => example.contains('/'),
        });
        let room = Scan::EXAMPLES.saturating_sub(self.examples.len());
        self.examples.extend(scan.examples.iter().take(room).cloned());
    }

    fn all_strangers(&self) -> Strangers {
        let mut strangers = self.listing.contents.strangers.clone();
        strangers.more = strangers.more.saturating_add(self.unread_groups);
        if let Some(view) = &self.listing.view {
            for number in self.listing.contents.ours.iter(view.far_ahead()) {
                strangers.add(view.segment(number));
            }
        }
        strangers
    }
}

/// Reads directories that stand for one, and gives what they looked like if that can be relied on.
fn read(
    directories: &[Option<Directory>],
    expected: Vec<Option<DirectoryStamp>>,
    scan: &mut Scan<'_>,
) -> Result<Option<Box<[Option<DirectoryStamp>]>>, ReadError> {
    let mut stamps = Vec::with_capacity(directories.len());
    for directory in directories {
        let Some(directory) = directory else {
            stamps.push(None);
            continue;
        };
        directory.names(&mut |name, kind| scan.entry(name, kind))?;
        stamps.push(Some(directory.stamp()?));
    }
    let at_rest = stamps.iter().flatten().all(at_rest);
    Ok(Some(stamps.into_boxed_slice()).filter(|stamps| at_rest && **stamps == *expected))
}

/// Joining an empty name would leave a slash at the end, for everybody to read.
fn path_below(base: &Path, below: &str) -> PathBuf {
    match below {
        "" => base.to_owned(),
        below => base.join(below),
    }
}

fn walg_directory(base: &Path) -> Result<&'static str, ReadError> {
    if look(&base.join(WALG_DIRECTORY))?.is_some() {
        return Ok(WALG_DIRECTORY);
    }
    Directory::root(base)?;
    if base.file_name().is_some_and(|name| name == WALG_DIRECTORY) {
        return Ok("");
    }
    Err(ReadError::NotInLayout {
        path: base.to_owned(),
        why: format!(
            "has no directory {WALG_DIRECTORY}, so WAL-G has archived nothing there; name the storage in \
             pg_backstop.archive_source as WALG_FILE_PREFIX does, without file://"
        ),
    })
}

#[cfg(test)]
mod tests;
