//! Everything that can be checked before a recovery begins, each check with what was found.
//!
//! What is read is the backup itself, the ledger, the archive's rows, the disks and one segment through `restore_command`. A
//! check that finds a fault does not stop the others: whoever prepares a recovery wants to know of all of them.

use std::fmt;

use recovery::prepare::Target;

use crate::assessment::{Assessment, Depth};
use crate::catalog::{Text, prepare};
use crate::error::Result;
use crate::memory;
use crate::server::Server;

mod backup;
mod chain;
mod fetch;
mod place;
mod tar_files;
mod way;

use backup::Seen;
use way::Way;

/// How a check ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum Status {
    /// All is well.
    Passed,
    /// Recovery would fail, or end elsewhere.
    Failed,
    /// Recovery may succeed; somebody should look.
    Warning,
    /// It could not be checked, or does not apply. The result says why.
    Skipped,
}

impl Status {
    /// The word in `check_status`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Passed => "passed",
            Self::Failed => "failed",
            Self::Warning => "warning",
            Self::Skipped => "skipped",
        }
    }
}

/// One check, as a row of prepare_recovery().
#[derive(Debug, serde::Serialize, serde::Deserialize)]
pub struct Check {
    /// What was checked.
    pub item: String,
    /// What was found: a sentence.
    pub result: String,
    /// How it ended.
    pub status: Status,
}

/// The checks so far.
#[derive(Debug, Default, serde::Serialize, serde::Deserialize)]
struct Checks(Vec<Check>);

impl Checks {
    fn add(&mut self, item: &str, status: Status, clause: impl fmt::Display) {
        let mut result = clause.to_string();
        // The crates' messages are clauses; what a person reads is a sentence.
        if let Some(first) = result.chars().next().filter(char::is_ascii_lowercase) {
            result.replace_range(..1, &first.to_ascii_uppercase().to_string());
        }
        if !result.ends_with('.') {
            result.push('.');
        }
        self.0.push(Check {
            item: item.to_owned(),
            result,
            status,
        });
    }

    fn skip(&mut self, items: &[&str], why: &str) {
        for item in items {
            self.add(item, Status::Skipped, why);
        }
    }
}

/// Checks whether a recovery from the backup at `path` can get to `target`. `between` is called between pieces of what is read.
///
/// # Errors
/// Where the ledger or the server itself cannot be read.
pub fn prepare(path: &Text, target: Target, between: &mut dyn FnMut()) -> Result<Vec<Check>> {
    let mut checks = Checks::default();
    let server = Server::observe()?;
    let assessment = Assessment::of(&server, Depth::Overview)?;
    let recorded = prepare::recorded_at(path)?;
    let seen = Seen::look(path, &server, &mut checks);
    backup::on_record(recorded.as_ref(), seen.as_ref(), &mut checks);
    let parent = chain::check(seen.as_ref(), &mut checks)?;
    let way = Way::find(&server, &assessment, recorded.as_ref(), seen.as_ref(), parent)?;
    way.check(&assessment, target, &mut checks)?;
    place::disk_space(&server, seen.as_ref(), way.wal_bytes(target), &mut checks);
    place::tools(seen.as_ref(), &mut checks);
    fetch::check(&server, way.first_needed(&server)?, &mut checks, between)?;
    // Whatever was told in words meanwhile may have been told wrong.
    memory::check()?;
    Ok(checks.0)
}
