//! Where `wal-g wal-push` stores, as far as its command line says (internal/config and internal/configure.go of WAL-G).

use std::path::{Path, PathBuf};

use super::Refusal;
use super::environment::Environment;
use super::line::is_segment;
use crate::source::{Source, tidy};

/// The storage on this host's disk. Each name exists with WAL-E's prefix too.
const FILE_PREFIX: [&str; 2] = ["WALG_FILE_PREFIX", "WALE_FILE_PREFIX"];
/// WAL-E's way to write a path.
const FILE_URL: &str = "file://localhost";
/// Parts of the names of settings that turn encryption on.
const ENCRYPTION: [&str; 5] = ["LIBSODIUM_KEY", "PGP_KEY", "GPG_KEY_ID", "CSE_KMS", "ENVELOPE"];

pub(super) fn source(arguments: &[String], environment: &Environment) -> Result<(Source, String), Refusal> {
    match arguments {
        [push, segment] if push == "wal-push" && is_segment(segment) => {}
        _ => return Err(Refusal::fetch("wal-g in it is not called as wal-g wal-push %p")),
    }
    let set = |parts: &[&str]| {
        environment
            .keys()
            .find(|name| parts.iter().any(|part| name.contains(part)))
    };
    if let Some(name) = set(&ENCRYPTION) {
        return Err(Refusal::fetch(format!("WAL-G encrypts what it stores ({name} is set)")));
    }
    if let Some(name) = environment
        .keys()
        .find(|name| name.ends_with("_PREFIX") && !FILE_PREFIX.contains(&name.as_str()))
        .or_else(|| set(&["FAILOVER_STORAGES"]))
    {
        return Err(Refusal::fetch(format!(
            "WAL-G may store elsewhere than on this host ({name} is set)"
        )));
    }
    let Some(prefix) = FILE_PREFIX.iter().find_map(|name| environment.get(*name)) else {
        return Err(Refusal::fetch(
            "its command line does not say where WAL-G stores (WALG_FILE_PREFIX is not set in it)",
        ));
    };
    let path = Path::new(prefix.strip_prefix(FILE_URL).unwrap_or(prefix));
    if !path.is_absolute() {
        return Err(Refusal::fetch(format!(
            "WALG_FILE_PREFIX is \"{prefix}\", which is no absolute path"
        )));
    }
    let path: PathBuf = tidy(path);
    Ok((
        Source::WalG(path),
        "archive_command gives segments to WAL-G, which stores them there (WALG_FILE_PREFIX)".to_owned(),
    ))
}
