//! The extension's background worker, as a test sees it.

use anyhow::{Context, Result};

use crate::wait::SOON;
use crate::{Cluster, Look, wait_until};

/// The worker's process id.
///
/// # Errors
/// When there is none within the deadline.
pub fn pid(cluster: &Cluster) -> Result<u32> {
    wait_until("a worker", SOON, || {
        Ok(match cluster.text("SELECT pid FROM v_worker_status")?.parse() {
            Ok(pid) => Look::Done(pid),
            Err(_) => Look::not_yet("no worker"),
        })
    })
}

/// Waits for another worker than the one with this process id, and gives its own.
///
/// # Errors
/// When none comes within the deadline.
pub fn successor(cluster: &Cluster, of: u32) -> Result<u32> {
    wait_until("another worker", SOON, || {
        // While the server restarts after a SIGKILL it takes no session.
        let seen = cluster
            .text("SELECT pid FROM v_worker_status")
            .unwrap_or_else(|error| format!("{error:#}"));
        Ok(match seen.parse() {
            Ok(pid) if pid != of => Look::Done(pid),
            _ => Look::NotYet(seen),
        })
    })
}

/// Waits until the worker has done so many ticks that began after this call.
///
/// # Errors
/// When it does not.
pub fn ticks(cluster: &Cluster, count: usize) -> Result<()> {
    // The tick that is under way does not count.
    for _ in 0..=count {
        let before = cluster.text("SELECT last_tick_at FROM v_worker_status")?;
        wait_until("the worker's next tick", SOON, || {
            let now = cluster.text("SELECT last_tick_at FROM v_worker_status")?;
            Ok(if now == before {
                Look::NotYet(now)
            } else {
                Look::Done(())
            })
        })?;
    }
    Ok(())
}

/// The process that reads the archive for the worker: the child of its keeper, which is the worker's.
///
/// # Errors
/// When there is none.
pub fn reader(cluster: &Cluster) -> Result<u32> {
    let worker = pid(cluster)?;
    let child = |parent: u32| {
        let processes = std::fs::read_dir("/proc").ok()?;
        let mut numbers = processes.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<u32>().ok());
        numbers.find(|process| {
            let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
            // The name in brackets may hold spaces; the state and the parent follow it.
            let after = stat.rsplit_once(") ").map_or("", |(_, after)| after);
            after.split(' ').nth(1) == Some(parent.to_string().as_str())
        })
    };
    let keeper = child(worker).context("the worker has no child")?;
    child(keeper).context("the keeper has no child")
}
