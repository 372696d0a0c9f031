//! The backup itself: is it there, is it whole, is it this cluster's.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::Path;

use artifact::base_backup::open_file;
use artifact::presence::tablespace_of;
use artifact::{BackupLabel, BaseBackup, Format, Manifest, ManifestError, Presence, WalRange, read_manifest};
use wal::{Lsn, SegmentName};

use super::tar_files::TarFiles;
use super::{Checks, Status};
use crate::base_backup::{self, Control, OwnWal, own_wal};
use crate::catalog::Text;
use crate::catalog::prepare::Recorded;
use crate::compat;
use crate::process;
use crate::server::Server;
use pgrx::pg_sys;

/// The checks of what is in the backup, in the order in which they are shown.
const INSIDE: [&str; 3] = ["backup_label", "backup_manifest", "backup_files"];
/// The checks of whose backup it is, which follow.
const IDENTITY: [&str; 3] = ["system_identifier", "server_version", "wal_segment_size"];
const NOTHING: &str = "There is no base backup to look at.";
/// So many files that are missing or wrong are named.
const NAMED: usize = 3;
/// Of more tablespaces the sizes are not told apart.
const MOST_TABLESPACES: usize = 10_000;

/// A base backup that is there.
#[derive(serde::Serialize, serde::Deserialize)]
pub struct Seen {
    /// Where and how.
    pub backup: BaseBackup,
    /// Its label, if it can be read.
    pub label: Option<BackupLabel>,
    /// Its manifest, if it has a sound one.
    pub manifest: Option<Manifest>,
    /// What each tablespace's files weigh, bytes; those of the main one under 0.
    pub sizes: BTreeMap<u32, u64>,
    /// Whether it is known to be another cluster's.
    pub is_foreign: bool,
    /// The WAL inside it, where a manifest says what that should be.
    pub own_wal: Option<OwnWal>,
    /// How its tars of data and of WAL are compressed.
    pub suffixes: Vec<String>,
    /// What all of it takes up, bytes, where no manifest tells that; or why that is not known.
    pub measured: Result<u64, String>,
}

/// What a manifest lists, summed up while it is read.
#[derive(Default)]
struct Listed {
    sizes: BTreeMap<u32, u64>,
    /// Files that must be as listed, and the sum of their sizes.
    files: u64,
    bytes: u64,
    faults: u64,
    named: Vec<String>,
}

impl Seen {
    /// Looks at what lies at `path`; none where that is no base backup.
    pub fn look(path: &Text, server: &Server, checks: &mut Checks) -> Option<Self> {
        let shown = format!("\"{}\"", path.to_utf8());
        let looked = process::look_at(&shown, |working| {
            let mut checks = Checks::default();
            let seen = Self::look_inside(path.as_path(), server, &mut checks, working);
            (seen, checks)
        });
        match looked {
            Ok((seen, found)) => {
                checks.0.extend(found.0);
                seen
            }
            Err(why) => {
                checks.add("backup_path", Status::Failed, why);
                checks.skip(&INSIDE, NOTHING);
                checks.skip(&IDENTITY, NOTHING);
                None
            }
        }
    }

    fn look_inside(path: &Path, server: &Server, checks: &mut Checks, between: &mut dyn FnMut()) -> Option<Self> {
        let found = artifact::recognise(path).and_then(|kind| Ok((kind, BaseBackup::open(path)?)));
        let backup = match found {
            Ok((kind, Some(backup))) => {
                checks.add(
                    "backup_path",
                    Status::Passed,
                    format!("\"{}\" is a {kind}", path.display()),
                );
                backup
            }
            Ok((kind, None)) => {
                let what = format!(
                    "\"{}\" is no base backup that a recovery can start from ({kind})",
                    path.display()
                );
                checks.add("backup_path", Status::Failed, what);
                checks.skip(&INSIDE, NOTHING);
                checks.skip(&IDENTITY, NOTHING);
                return None;
            }
            Err(error) => {
                checks.add("backup_path", Status::Failed, error);
                checks.skip(&INSIDE, NOTHING);
                checks.skip(&IDENTITY, NOTHING);
                return None;
            }
        };
        let label = match base_backup::label(&backup, between) {
            Ok(label) => {
                let found = format!(
                    "\"{}\", begun at LSN {} on timeline {}{}{}",
                    label.label,
                    label.start,
                    label.timeline,
                    label
                        .start_time
                        .as_ref()
                        .map_or(String::new(), |time| format!(", {time}")),
                    label
                        .from
                        .as_ref()
                        .map_or(String::new(), |from| format!(", from a {from}"))
                );
                checks.add("backup_label", Status::Passed, found);
                Some(label)
            }
            Err(why) => {
                checks.add("backup_label", Status::Failed, why);
                None
            }
        };
        let mut seen = Self {
            backup,
            label,
            manifest: None,
            sizes: BTreeMap::new(),
            is_foreign: false,
            own_wal: None,
            suffixes: Vec::new(),
            measured: Ok(0),
        };
        let tar = (seen.backup.format == Format::Tar).then(|| TarFiles::count(&seen.backup, between));
        seen.files(tar.as_ref(), checks, between);
        seen.identity(tar.as_ref(), server, checks);
        if let Some(range) = seen.range().filter(|_| !seen.is_foreign) {
            seen.own_wal = Some(own_wal(server, &seen.backup, range, between));
        }
        if seen.backup.format == Format::Tar {
            let tars = ["base", "pg_wal"].iter().filter_map(|stem| seen.backup.tar(stem));
            seen.suffixes = tars.map(|tar| tar.suffix.to_owned()).collect();
        }
        if seen.manifest.is_none() {
            seen.measured = artifact::measure(&seen.backup.directory, between)
                .map(|measured| measured.bytes)
                .map_err(|error| error.to_string());
        }
        Some(seen)
    }

    /// The range of WAL that its manifest says it needs, where that is one.
    pub fn range(&self) -> Option<WalRange> {
        match self.manifest.as_ref()?.wal_ranges.as_slice() {
            [range] => Some(*range),
            _ => None,
        }
    }

    /// The manifest, and what it lists.
    fn files(&mut self, tar: Option<&Result<TarFiles, String>>, checks: &mut Checks, between: &mut dyn FnMut()) {
        let mut listed = Listed::default();
        let mut presence = tar.is_none().then(|| Presence::below(self.backup.directory.clone()));
        let read = read_manifest(&self.backup.manifest(), &mut |file| {
            between();
            let tablespace = tablespace_of(&file.path).unwrap_or(0);
            let known = listed.sizes.len();
            if known < MOST_TABLESPACES || listed.sizes.contains_key(&tablespace) {
                let sum = listed.sizes.entry(tablespace).or_default();
                *sum = sum.saturating_add(file.bytes);
            }
            if !Presence::may_differ(file) {
                listed.files += 1;
                listed.bytes = listed.bytes.saturating_add(file.bytes);
            }
            if let Some(Err(fault)) = presence.as_mut().map(|presence| presence.look_for(file)) {
                listed.faults += 1;
                if listed.named.len() < NAMED {
                    listed.named.push(fault.to_string());
                }
            }
        });
        let manifest = match read {
            Ok(manifest) => manifest,
            Err(error) => {
                let status = match error {
                    // pg_basebackup --no-manifest, and other programs, leave none.
                    ManifestError::Absent { .. } => Status::Warning,
                    _ => Status::Failed,
                };
                checks.add("backup_manifest", status, error);
                checks.add(
                    "backup_files",
                    Status::Skipped,
                    "Without its manifest nothing tells which files a backup has.",
                );
                return;
            }
        };
        // The oldest timeline's WAL is listed last.
        let begins_at = manifest.wal_ranges.last().map(|range| range.start);
        match (&self.label, begins_at) {
            (Some(label), Some(start)) if label.start != start => checks.add(
                "backup_manifest",
                Status::Failed,
                format!(
                    "it is of a backup that begins at LSN {start}, and the label says {}",
                    label.start
                ),
            ),
            _ => checks.add(
                "backup_manifest",
                Status::Passed,
                format!(
                    "version {}, {} files of {} bytes, its own checksum is right",
                    manifest.version, manifest.files, manifest.bytes
                ),
            ),
        }
        let (status, found) = match tar {
            None if listed.faults == 0 => (
                Status::Passed,
                format!(
                    "all {} files that the manifest lists are there with their size",
                    manifest.files
                ),
            ),
            None => (
                Status::Failed,
                format!(
                    "{} of {} files are not as the manifest lists them: {}{}",
                    listed.faults,
                    manifest.files,
                    listed.named.join("; "),
                    if listed.faults > listed.named.len() as u64 {
                        "; and others"
                    } else {
                        ""
                    }
                ),
            ),
            Some(Err(why)) => (Status::Failed, why.clone()),
            Some(Ok(files)) if files.compressed => (
                Status::Skipped,
                "it would take decompressing the whole backup to see which files its tars hold".to_owned(),
            ),
            Some(Ok(files)) if (files.files, files.bytes) == (listed.files, listed.bytes) => (
                Status::Passed,
                format!(
                    "the tars hold {} files of {} bytes, as the manifest lists",
                    files.files, files.bytes
                ),
            ),
            Some(Ok(files)) => (
                Status::Failed,
                format!(
                    "the tars hold {} files of {} bytes, where the manifest lists {} of {}",
                    files.files, files.bytes, listed.files, listed.bytes
                ),
            ),
        };
        checks.add("backup_files", status, found);
        self.sizes = listed.sizes;
        self.manifest = Some(manifest);
    }

    /// Whose backup it is: of this cluster, this major, this segment size.
    fn identity(&mut self, tar: Option<&Result<TarFiles, String>>, server: &Server, checks: &mut Checks) {
        let tar = match tar {
            None => None,
            Some(Ok(files)) => Some(files),
            Some(Err(_)) => {
                // What the matter is was told of its files.
                checks.skip(&IDENTITY, "The tars cannot be read.");
                return;
            }
        };
        let control = match tar {
            None => base_backup::control(&self.backup),
            Some(files) => files
                .control
                .clone()
                .unwrap_or_else(|| Err("pg_control was not found in its main tar".to_owned())),
        };
        let ours = server.format.system_identifier;
        let named = self.manifest.as_ref().and_then(|manifest| manifest.system_identifier);
        let theirs = [named, control.as_ref().ok().map(|control| control.system_identifier)];
        match (theirs.into_iter().flatten().find(|theirs| *theirs != ours), &control) {
            (Some(theirs), _) => {
                self.is_foreign = true;
                checks.add(
                    "system_identifier",
                    Status::Failed,
                    format!(
                        "it is of the cluster {theirs}, and this is {ours}: no WAL of this cluster's archive fits it"
                    ),
                );
            }
            (None, Err(why)) if named.is_none() || !is_out_of_reach(tar) => {
                checks.add("system_identifier", unread(tar), why);
            }
            _ => checks.add(
                "system_identifier",
                Status::Passed,
                format!("{ours}, as this cluster's"),
            ),
        }
        self.version(tar, &control, checks);
        self.segment_size(&control, server, checks);
    }

    fn version(&self, tar: Option<&TarFiles>, control: &Result<Control, String>, checks: &mut Checks) {
        const ITEM: &str = "server_version";
        let ours = compat::MAJOR.number();
        let version = match tar {
            None => read_version(&self.backup).map(Some),
            Some(files) => Ok(files.version.clone()),
        };
        match (version, control) {
            (Ok(Some(version)), _) if version.trim() != ours.to_string() => checks.add(
                ITEM,
                Status::Failed,
                format!("it was taken from PostgreSQL {}, and this is {ours}", version.trim()),
            ),
            (_, Ok(control)) if control.catalog_version != pg_sys::CATALOG_VERSION_NO => checks.add(
                ITEM,
                Status::Failed,
                format!(
                    "its catalogs are of version {}, and this server's of {}",
                    control.catalog_version,
                    pg_sys::CATALOG_VERSION_NO
                ),
            ),
            (Ok(Some(_)), _) => checks.add(ITEM, Status::Passed, format!("PostgreSQL {ours}, as this server")),
            (Ok(None), _) if is_out_of_reach(tar) => {
                checks.add(ITEM, Status::Skipped, "PG_VERSION lies in a compressed tar");
            }
            (Ok(None), _) => checks.add(ITEM, Status::Failed, "there is no PG_VERSION in its main tar"),
            (Err(why), _) => checks.add(ITEM, Status::Failed, why),
        }
    }

    /// Told by the control file, else by the name of the segment that the backup begins in: that depends on it.
    fn segment_size(&self, control: &Result<Control, String>, server: &Server, checks: &mut Checks) {
        const ITEM: &str = "wal_segment_size";
        let size = server.format.segment_size;
        let ours = size.bytes();
        let theirs = control.as_ref().ok().and_then(|control| control.segment_size);
        match (theirs, &self.label) {
            (Some(theirs), _) if u64::from(theirs) == ours => {
                checks.add(ITEM, Status::Passed, format!("{ours} bytes, as this cluster's"));
            }
            (Some(theirs), _) => checks.add(
                ITEM,
                Status::Failed,
                format!("its segments have {theirs} bytes, and this cluster's {ours}"),
            ),
            (None, Some(label)) => {
                let expected = SegmentName::containing(label.timeline, label.start, size).to_string();
                let (status, words) = if expected == label.start_wal_file {
                    (Status::Passed, "as segments")
                } else {
                    (Status::Failed, "not as segments")
                };
                let found = format!(
                    "LSN {} lies in its segment {}, {words} of {ours} bytes have it",
                    label.start, label.start_wal_file
                );
                checks.add(ITEM, status, found);
            }
            (None, None) => checks.add(ITEM, Status::Skipped, "neither a control file nor a label tells it"),
        }
    }
}

/// Whether a file that is not found was not looked for, since it lies in a compressed tar.
fn is_out_of_reach(tar: Option<&TarFiles>) -> bool {
    tar.is_some_and(|files| files.compressed)
}

/// Of a plain backup a file that cannot be read is a fault.
fn unread(tar: Option<&TarFiles>) -> Status {
    if is_out_of_reach(tar) {
        Status::Skipped
    } else {
        Status::Failed
    }
}

fn read_version(backup: &BaseBackup) -> Result<String, String> {
    let path = backup.directory.join("PG_VERSION");
    let mut text = String::new();
    open_file(&path)
        .map_err(|error| error.to_string())?
        .take(64)
        .read_to_string(&mut text)
        .map_err(|error| format!("could not read \"{}\": {error}", path.display()))?;
    Ok(text)
}

/// What the ledger knows of the backup.
pub fn on_record(recorded: Option<&Recorded>, seen: Option<&Seen>, checks: &mut Checks) {
    let Some(recorded) = recorded else {
        checks.add(
            "backup_record",
            Status::Warning,
            "no row of backup_history has this backup_path; what follows goes by the backup itself",
        );
        checks.add(
            "verification",
            Status::Skipped,
            "a backup that is not on record was never verified",
        );
        return;
    };
    let id = recorded.id;
    let label = seen.and_then(|seen| seen.label.as_ref());
    let other = label.filter(|label| {
        let from = recorded.start_lsn.map_or(Lsn::INVALID, |lsn| Lsn(lsn.0));
        let to = recorded.end_lsn.map_or(Lsn::MAX, |lsn| Lsn(lsn.0));
        !(from..=to).contains(&label.start)
    });
    match (recorded.status.as_str(), other) {
        ("completed", Some(label)) => checks.add(
            "backup_record",
            Status::Failed,
            format!(
                "backup {id} of backup_history was taken elsewhere in WAL than the one that lies there now, which begins at LSN {}",
                label.start
            ),
        ),
        ("completed", None) => checks.add(
            "backup_record",
            Status::Passed,
            format!("backup {id} of backup_history, {}, completed", recorded.backup_type),
        ),
        (status, _) => {
            let why = recorded
                .error
                .as_ref()
                .map_or(String::new(), |error| format!(": {}", error.to_utf8()));
            checks.add("backup_record", Status::Failed, format!("backup {id} of backup_history is {status}{why}"));
        }
    }
    let (status, found) = match recorded.verification.as_str() {
        "passed" => (Status::Passed, "its contents were verified"),
        "failed" => (Status::Failed, "its verification failed; see its verification_detail"),
        _ => (
            Status::Skipped,
            "nobody has verified its contents yet; sizes are checked here, contents are not",
        ),
    };
    checks.add("verification", status, found);
}
