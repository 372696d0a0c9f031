//! `initdb` once for every kind of cluster in this process; each cluster is a copy.

use std::collections::HashMap;
use std::ffi::OsString;
use std::path::Path;
use std::sync::{LazyLock, Mutex, PoisonError};

use anyhow::Result;

use crate::process::{self, OnOurEnd};
use crate::scratch::Scratch;
use crate::{Server, Settings};

/// Makes a data directory at `to`, which does not exist yet.
///
/// # Errors
/// When `initdb` or the copy fails.
pub fn fill(server: &Server, settings: &Settings, to: &Path) -> Result<()> {
    if settings.own_identity {
        return initdb(server, settings, to);
    }
    /// Size of a segment, in MB, and options of initdb.
    type Kind = (u32, Vec<String>);
    static TEMPLATES: LazyLock<Mutex<HashMap<Kind, Scratch>>> = LazyLock::new(Mutex::default);
    let mut templates = TEMPLATES.lock().unwrap_or_else(PoisonError::into_inner);
    let kind = (settings.segment_mb, settings.initdb.clone());
    let template = match templates.get(&kind) {
        Some(template) => template,
        None => {
            let template = Scratch::new()?;
            initdb(server, settings, &template.path().join("data"))?;
            templates.entry(kind).or_insert(template)
        }
    };
    copy(&template.path().join("data"), to)
}

fn initdb(server: &Server, settings: &Settings, to: &Path) -> Result<()> {
    let mut initdb = server.program("initdb")?;
    initdb.args([
        "--username=postgres",
        "--auth=trust",
        "--encoding=UTF8",
        "--locale=C",
        "--no-sync",
    ]);
    initdb.args(&settings.initdb);
    initdb.arg(format!("--wal-segsize={}", settings.segment_mb));
    process::run(initdb.arg("-D").arg(to)).map(drop)
}

/// Copies a directory's contents, with owners and times, into one that may exist already.
///
/// # Errors
/// When `cp` fails.
pub fn copy(from: &Path, to: &Path) -> Result<()> {
    let mut contents = OsString::from(from);
    contents.push("/.");
    let mut cp = process::program("cp", OnOurEnd::Kill)?;
    process::run(cp.args(["-a", "--reflink=auto"]).arg(contents).arg(to)).map(drop)
}
