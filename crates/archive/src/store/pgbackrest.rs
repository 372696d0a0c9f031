//! Which directories of a pgBackRest stanza are this cluster's, as its `archive.info` says (info/infoArchive.c and info/infoPg.c
//! of pgBackRest).

use std::io;
use std::path::Path;

use serde::Deserialize;
use wal::WalFormat;

use crate::small_file;
use crate::stored::ReadError;

/// The file, and the copy that pgBackRest writes after it and reads where the file will not do.
const FILES: [&str; 2] = ["archive.info", "archive.info.copy"];
/// What OpenSSL puts in front of what it encrypts, and pgBackRest too (common/crypto/cipherBlock.c).
const ENCRYPTED: &[u8] = b"Salted__";

/// One cluster that a stanza was made or upgraded for.
#[derive(Debug, Deserialize)]
struct Cluster {
    #[serde(rename = "db-id")]
    system_identifier: u64,
    #[serde(rename = "db-version")]
    version: String,
}

/// The names of the directories in the stanza at `root` that hold the WAL of this cluster, newest first.
///
/// pgBackRest looks into every one whose version and system identifier are the cluster's (command/archive/get/get.c).
pub(super) fn archive_ids(root: &Path, format: &WalFormat) -> Result<Vec<String>, ReadError> {
    let mut reason = "has neither an archive.info nor an archive.info.copy, so it is no stanza's archive; name one in \
                      pg_backstop.archive_source, such as pgbackrest:/var/lib/pgbackrest/archive/main"
        .to_owned();
    for name in FILES {
        let path = root.join(name);
        let content = match small_file::read(&path) {
            Ok(content) => content,
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(source) => return Err(ReadError::Io { path, source }),
        };
        if content.starts_with(ENCRYPTED) {
            return Err(ReadError::Encrypted { path });
        }
        match clusters(&content) {
            Ok(clusters) => return ours(clusters, format).ok_or_else(|| not_ours(&path, format)),
            Err(what) => {
                reason = format!(
                    "has an {name} that cannot be read ({what}); set pg_backstop.archive_source = restore_command, or mend it \
                     with pgbackrest stanza-create"
                );
            }
        }
    }
    Err(ReadError::NotInLayout {
        path: root.to_owned(),
        why: reason,
    })
}

/// The lines of the section `[db:history]`: the number of a history, and what it is of.
fn clusters(content: &[u8]) -> Result<Vec<(u32, Cluster)>, String> {
    let content = std::str::from_utf8(content).map_err(|_| "it is no text".to_owned())?;
    let lines = content.lines().skip_while(|line| *line != "[db:history]").skip(1);
    let clusters: Vec<(u32, Cluster)> = lines
        .take_while(|line| !line.starts_with('['))
        .filter(|line| !line.is_empty())
        .map(|line| {
            let (number, cluster) = line.split_once('=').ok_or("a line of [db:history] has no value")?;
            let number = number.parse().map_err(|_| "a key of [db:history] is no number")?;
            let cluster = serde_json::from_str(cluster).map_err(|error| error.to_string())?;
            Ok((number, cluster))
        })
        .collect::<Result<_, String>>()?;
    if clusters.is_empty() {
        return Err("it has no section [db:history]".to_owned());
    }
    Ok(clusters)
}

fn ours(clusters: Vec<(u32, Cluster)>, format: &WalFormat) -> Option<Vec<String>> {
    let version = format.major.number().to_string();
    let mut numbers: Vec<u32> = clusters
        .into_iter()
        .filter(|(_, cluster)| cluster.system_identifier == format.system_identifier && cluster.version == version)
        .map(|(number, _)| number)
        .collect();
    numbers.sort_unstable_by(|a, b| b.cmp(a));
    let names = numbers.iter().map(|number| format!("{version}-{number}"));
    Some(names.collect()).filter(|names: &Vec<String>| !names.is_empty())
}

fn not_ours(path: &Path, format: &WalFormat) -> ReadError {
    ReadError::NotThisCluster {
        path: path.to_owned(),
        version: format.major.number(),
        system_identifier: format.system_identifier,
    }
}

/// For the fuzzer.
#[cfg(fuzzing)]
pub(crate) fn fuzz(content: &[u8], format: &WalFormat) {
    let names = clusters(content).ok().and_then(|clusters| ours(clusters, format));
    assert!(
        names
            .iter()
            .flatten()
            .all(|name| !name.contains(['/', '\0']) && !name.starts_with('.'))
    );
}
