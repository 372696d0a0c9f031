//! What lies on disk of a backup, as far as the caller may have it looked at.

use crate::api::storage;
use crate::catalog::Text;
use crate::catalog::plan::Places;
use crate::error::Result;
use crate::process;
use artifact::{BackedUpTablespace, Parts, parts};
use recovery::plan::{Copied, Refusal, Tablespace};
use serde::{Deserialize, Serialize};
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
    let looked = process::look_at(&format!("\"{shown}\""), |_| {
        look_inside(path.as_path(), &shown, places, data_directory)
    });
    match looked {
        Ok(Looked::Copied(copied)) => Ok(copied),
        Ok(Looked::Unseen(why)) | Err(why) => Ok(unseen(why)),
        Ok(Looked::LeadsToServer { oid, leads_to }) => Err(Refusal::TablespaceNotCopied {
            backup: id,
            oid,
            leads_to,
        }
        .into()),
    }
}

/// What was seen of a backup.
#[derive(Serialize, Deserialize)]
enum Looked {
    Copied(Copied),
    Unseen(String),
    /// The link of a tablespace leads into the running server.
    LeadsToServer {
        oid: u32,
        leads_to: String,
    },
}

fn look_inside(path: &Path, shown: &str, places: &Places, data_directory: &Path) -> Looked {
    let found = match parts(path) {
        Ok(found) => found,
        Err(error) => return Looked::Unseen(error.to_string()),
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
    match found {
        Parts::Plain {
            tablespaces: found,
            wal,
        } => {
            if let Some(tablespace) = found
                .iter()
                .find(|tablespace| is_the_servers_own(&tablespace.path, places, data_directory))
            {
                return Looked::LeadsToServer {
                    oid: tablespace.oid,
                    leads_to: tablespace.path.display().to_string(),
                };
            }
            // A copy of a running server's directory whose WAL stayed behind: the archive has it.
            let wal = wal.filter(|wal| !is_the_servers_own(wal, places, data_directory));
            Looked::Copied(Copied::Plain {
                path: shown.to_owned(),
                tablespaces: tablespaces(found),
                wal: wal.map(|wal| wal.display().to_string()),
            })
        }
        Parts::Tar {
            base,
            wal,
            tablespaces: found,
        } => Looked::Copied(Copied::Tar {
            path: shown.to_owned(),
            base,
            wal,
            tablespaces: tablespaces(found),
        }),
        Parts::Other(kind) => Looked::Unseen(format!("it looks like this: {kind}")),
    }
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
