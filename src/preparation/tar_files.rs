//! What the tars of a base backup hold, by their headers.

use std::io::Read;
use std::ops::ControlFlow;
use std::path::Path;

use artifact::base_backup::open_file;
use artifact::{BaseBackup, ManifestFile, Presence, Tar, members_by_seeking};

use crate::base_backup::Control;

/// The sums over all tars of a base backup, its WAL left aside.
#[derive(Default)]
pub struct TarFiles {
    /// Whether some of them are compressed: then they were not looked into.
    pub compressed: bool,
    /// How many files a manifest would list with a size that must be right.
    pub files: u64,
    /// The sum of their sizes, bytes.
    pub bytes: u64,
    /// The content of `PG_VERSION`.
    pub version: Option<String>,
    /// The control file.
    pub control: Option<Result<Control, String>>,
}

impl TarFiles {
    /// Leaps from header to header.
    ///
    /// # Errors
    /// A clause that says which tar cannot be read.
    pub fn count(backup: &BaseBackup, between: &mut dyn FnMut()) -> Result<Self, String> {
        let mut this = Self::default();
        let main = backup
            .tar("base")
            .ok_or_else(|| format!("there is no base.tar in \"{}\"", backup.directory.display()))?;
        this.add(&main, true, between)?;
        for (_, tar) in backup.tablespace_tars().map_err(|error| error.to_string())? {
            this.add(&tar, false, between)?;
        }
        Ok(this)
    }

    fn add(&mut self, tar: &Tar, is_main: bool, between: &mut dyn FnMut()) -> Result<(), String> {
        let file = open_file(&tar.path).map_err(|error| error.to_string())?;
        if !tar.suffix.is_empty() {
            self.compressed = true;
            return Ok(());
        }
        let size = file.metadata().map_or(0, |metadata| metadata.len());
        let mut end = 0;
        members_by_seeking(file, &mut |member| {
            between();
            end = member.end;
            if is_main && member.path == Path::new("PG_VERSION") {
                let mut text = String::new();
                if member.content.take(64).read_to_string(&mut text).is_ok() {
                    self.version = Some(text);
                }
            } else if is_main && member.path == Path::new("global/pg_control") {
                self.control = Some(Control::read(&mut *member.content));
            }
            let file = ManifestFile {
                path: member.path,
                bytes: member.bytes,
            };
            let is_listed = member.is_file
                && !Presence::may_differ(&file)
                && !(is_main && (file.path.starts_with("pg_wal") || file.path == Path::new("backup_manifest")));
            if is_listed {
                self.files += 1;
                self.bytes = self.bytes.saturating_add(file.bytes);
            }
            ControlFlow::Continue(())
        })
        .map_err(|error| format!("could not read \"{}\": {error}", tar.path.display()))?;
        // Leaping over what a member holds does not notice that it is not there.
        if end > size {
            return Err(format!(
                "\"{}\" has {size} bytes, where its last file ends at byte {end}: it is cut",
                tar.path.display()
            ));
        }
        Ok(())
    }
}
