//! What lies on disk of a backup, as far as the caller may have it looked at.

use crate::api::storage;
use crate::catalog::Text;
use crate::catalog::plan::Places;
use crate::error::Result;
use artifact::{BackedUpTablespace, Parts, parts};
use recovery::plan::{Copied, Refusal, Tablespace};
use std::path::Path;

/// Looks at the backup.
///
/// # Errors
/// [`Refusal::TablespaceNotCopied`] where it is a copy whose links lead into the running server.
pub fn look_at(id: i64, path: Option<&Text>, places: &Places, data_directory: &Path) -> Result<Copied> {
    let Some(path) = path else {
        return Ok(Copied::Nowhere);
    };
    let shown = from_the_root(path, data_directory);
    let unseen = |why: String| Copied::Unseen {
        path: shown.clone(),
        why,
    };
    if !storage::readable(path, "what lies at the path of the backup is not known") {
        return Ok(unseen("the caller may not have it read".to_owned()));
    }
    let found = match parts(path.as_path()) {
        Ok(found) => found,
        Err(error) => return Ok(unseen(error.to_string())),
    };
    let tablespaces = |found: Vec<BackedUpTablespace>| {
        found
            .into_iter()
            .map(|tablespace| Tablespace {
                oid: tablespace.oid,
                from: tablespace.path.display().to_string(),
            })
            .collect()
    };
    Ok(match found {
        Parts::Plain {
            tablespaces: found,
            wal,
        } => {
            if let Some(tablespace) = found
                .iter()
                .find(|tablespace| is_the_servers_own(&tablespace.path, places, data_directory))
            {
                return Err(Refusal::TablespaceNotCopied {
                    backup: id,
                    oid: tablespace.oid,
                    leads_to: tablespace.path.display().to_string(),
                }
                .into());
            }
            // A copy of a running server's directory whose WAL stayed behind: the archive has it.
            let wal = wal.filter(|wal| !is_the_servers_own(wal, places, data_directory));
            Copied::Plain {
                path: shown,
                tablespaces: tablespaces(found),
                wal: wal.map(|wal| wal.display().to_string()),
            }
        }
        Parts::Tar {
            base,
            wal,
            tablespaces: found,
        } => Copied::Tar {
            path: shown,
            base,
            wal,
            tablespaces: tablespaces(found),
        },
        Parts::Other(kind) => unseen(format!("it looks like this: {kind}")),
    })
}

/// A path as anybody can use it: the server takes a relative one from its data directory, and a shell from where it stands.
pub fn from_the_root(path: &Text, data_directory: &Path) -> String {
    if path.as_path().is_absolute() {
        return path.to_utf8().into_owned();
    }
    format!("{}/{}", data_directory.display(), path.to_utf8())
}

fn is_the_servers_own(path: &Path, places: &Places, data_directory: &Path) -> bool {
    let real = |path: &Path| path.canonicalize().unwrap_or_else(|_| path.to_owned());
    let this = real(path);
    let wal = data_directory.join("pg_wal");
    places
        .tablespaces
        .iter()
        .map(|(_, place)| place.as_path())
        .chain([data_directory, wal.as_path()])
        .any(|own| this.starts_with(real(own)))
}
