//! The memory of a server's process: how much it has taken, and how much it may take.

use std::fs;

use anyhow::{Context, Result};
use postgres::Client;

use crate::cluster::text_in;
use crate::process::{self, OnOurEnd};

/// The process of this session.
///
/// # Errors
/// What the server says.
pub fn process_of(session: &mut Client) -> Result<i32> {
    Ok(text_in(session, "SELECT pg_backend_pid()")?.parse()?)
}

/// A line of `/proc/PID/status`, such as `VmHWM`, in kB.
///
/// # Errors
/// When there is no such process or line.
pub fn status_kb(process_id: i32, line: &str) -> Result<u64> {
    let status = fs::read_to_string(format!("/proc/{process_id}/status"))?;
    let found = status
        .lines()
        .find_map(|text| text.strip_prefix(line)?.strip_prefix(':'))
        .and_then(|value| value.trim().strip_suffix(" kB"));
    Ok(found
        .with_context(|| format!("no {line} in {status}"))?
        .trim()
        .parse()?)
}

/// Lets a process have so much address space beyond what it has, or as much as it wants again: what `ulimit -v` does to a new one.
///
/// # Errors
/// When there is no such process.
pub fn limit(process_id: i32, more_kb: Option<u64>) -> Result<()> {
    let most = match more_kb {
        Some(more) => ((status_kb(process_id, "VmSize")? + more) << 10).to_string(),
        None => "unlimited".to_owned(),
    };
    // As the server's user, since root may lack the capability for processes of others. The limit that cannot be raised stays.
    let mut prlimit = process::program(process::tool("prlimit")?, OnOurEnd::Kill)?;
    process::run(prlimit.arg(format!("--pid={process_id}")).arg(format!("--as={most}:")))?;
    Ok(())
}
