//! Where the backup is to be restored: is there room, and are the programs there that it takes.

use std::collections::BTreeMap;
use std::ffi::CStr;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use artifact::Format;
use pgrx::pg_sys;

use super::backup::Seen;
use super::{Checks, Status};
use crate::server::Server;

/// What is needed on one file system.
struct Need {
    /// A directory on it.
    place: PathBuf,
    bytes: u64,
}

/// Compares the free space with what the backup's files and the WAL to be replayed take.
pub fn disk_space(server: &Server, seen: Option<&Seen>, wal_bytes: u64, checks: &mut Checks) {
    const ITEM: &str = "disk_space";
    let Some(seen) = seen else {
        checks.add(ITEM, Status::Skipped, "without the backup its size is not known");
        return;
    };
    let data = server.data_directory();
    // Restartpoints remove what was replayed; until the second of them, WAL of two checkpoints can be there.
    // SAFETY: a plain variable of the server.
    let max_wal_size = unsafe { pg_sys::max_wal_size_mb }.unsigned_abs();
    let kept_wal = wal_bytes.min(u64::from(max_wal_size) << 21);
    // The data directory comes first, so that its file system goes by its name.
    let mut wanted = vec![(data.to_owned(), 0)];
    if seen.manifest.is_some() {
        for (tablespace, bytes) in &seen.sizes {
            let own = data.join("pg_tblspc").join(tablespace.to_string());
            // One that this server does not have may go anywhere; the data directory is as good a guess as any.
            let place = if *tablespace != 0 && own.exists() {
                own
            } else {
                data.to_owned()
            };
            wanted.push((place, *bytes));
        }
    } else {
        match &seen.measured {
            Ok(bytes) => wanted.push((data.to_owned(), *bytes)),
            Err(error) => {
                checks.add(ITEM, Status::Skipped, error);
                return;
            }
        }
    }
    wanted.push((data.join("pg_wal"), kept_wal));
    let (mut found, mut fits) = (Vec::new(), true);
    for need in by_file_system(wanted) {
        match rustix::fs::statvfs(&need.place) {
            Ok(disk) => {
                let free = disk.f_bavail.saturating_mul(disk.f_frsize);
                fits &= free >= need.bytes;
                found.push(format!(
                    "the file system of \"{}\" has {free} bytes free, and {} are needed",
                    need.place.display(),
                    need.bytes
                ));
            }
            Err(error) => {
                fits = false;
                found.push(format!("\"{}\" cannot be looked at: {error}", need.place.display()));
            }
        }
    }
    let mut found = found.join("; ");
    if !fits {
        found.push_str("; what the present data directory takes can be freed first, once it is not needed any more");
    }
    checks.add(ITEM, if fits { Status::Passed } else { Status::Failed }, found);
}

fn by_file_system(wanted: Vec<(PathBuf, u64)>) -> Vec<Need> {
    let mut by_device: BTreeMap<Option<u64>, Need> = BTreeMap::new();
    for (place, bytes) in wanted {
        let device = fs::metadata(&place).ok().map(|metadata| metadata.dev());
        let need = by_device.entry(device).or_insert(Need { place, bytes: 0 });
        need.bytes = need.bytes.saturating_add(bytes);
    }
    by_device.into_values().collect()
}

/// Looks for the programs that restoring this format takes: on the server's PATH, and in its own directory.
pub fn tools(seen: Option<&Seen>, checks: &mut Checks) {
    const ITEM: &str = "tools";
    let Some(seen) = seen else {
        checks.add(ITEM, Status::Skipped, "without the backup its format is not known");
        return;
    };
    let path = std::env::var_os("PATH").unwrap_or_default();
    let on_path = |name: &&str| std::env::split_paths(&path).any(|directory| directory.join(name).is_file());
    let mut needed: Vec<&str> = Vec::new();
    if seen.backup.format == Format::Tar {
        needed.push("tar");
        needed.extend(seen.suffixes.iter().filter_map(|suffix| decompressor(suffix)));
        needed.dedup();
    }
    let (mut there, mut missing): (Vec<&str>, Vec<&str>) = needed.into_iter().partition(on_path);
    let is_incremental = seen
        .label
        .as_ref()
        .is_some_and(|label| label.incremental_from.is_some());
    if is_incremental {
        if own_programs().join("pg_combinebackup").is_file() {
            there.push("pg_combinebackup");
        } else {
            missing.push("pg_combinebackup");
        }
    }
    match (there.is_empty(), missing.is_empty()) {
        (true, true) => checks.add(ITEM, Status::Passed, "a plain backup is copied, and takes no tool"),
        (_, true) => checks.add(ITEM, Status::Passed, format!("found: {}", there.join(", "))),
        (_, false) => checks.add(
            ITEM,
            Status::Failed,
            format!("not found on this server: {}", missing.join(", ")),
        ),
    }
}

fn decompressor(suffix: &str) -> Option<&'static str> {
    match suffix {
        "gz" => Some("gzip"),
        "lz4" => Some("lz4"),
        "zst" => Some("zstd"),
        "bz2" => Some("bzip2"),
        "xz" => Some("xz"),
        _ => None,
    }
}

/// The directory of this server's own programs.
fn own_programs() -> PathBuf {
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt;
    // SAFETY: an array of MAXPGPATH characters that the server fills with its own path at its start, and never changes.
    let postgres = unsafe { CStr::from_ptr((&raw const pg_sys::my_exec_path).cast()) };
    let postgres = Path::new(OsStr::from_bytes(postgres.to_bytes()));
    postgres.parent().unwrap_or(Path::new("")).to_owned()
}
