//! Processor time: what work really costs, whoever else uses the machine meanwhile.

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike;
use rustix::param::clock_ticks_per_second;
use tests::Cluster;

/// Of this process and of the children that it has waited for.
///
/// # Errors
/// What the operating system says.
pub fn ours() -> Result<Duration> {
    let mut total = 0;
    for who in [UsageWho::RUSAGE_SELF, UsageWho::RUSAGE_CHILDREN] {
        let usage = getrusage(who)?;
        total += usage.user_time().num_microseconds() + usage.system_time().num_microseconds();
    }
    Ok(Duration::from_micros(u64::try_from(total)?))
}

/// Of all processes that a running cluster has and ever had since its start, the children of its archiver too.
///
/// # Errors
/// What the operating system says.
pub fn of_cluster(cluster: &Cluster) -> Result<Duration> {
    let data = cluster.data();
    let mut ticks = 0;
    for entry in fs::read_dir("/proc")? {
        let process = entry?.path();
        // A server's processes have its data directory as theirs. One that ends while we look is its parent's by then.
        if fs::read_link(process.join("cwd")).is_ok_and(|cwd| cwd == data) {
            ticks += self::ticks(&process).unwrap_or_default();
        }
    }
    Ok(Duration::from_secs_f64(ticks as f64 / clock_ticks_per_second() as f64))
}

/// Of one process.
///
/// # Errors
/// When it has ended.
pub fn of_process(pid: u32) -> Result<Duration> {
    // Its time on a processor in nanoseconds (Documentation/scheduler/sched-stats.rst in the kernel's sources).
    let path = format!("/proc/{pid}/schedstat");
    let text = fs::read_to_string(&path).with_context(|| path.clone())?;
    let nanoseconds = text.split_whitespace().next().context(path)?.parse()?;
    Ok(Duration::from_nanos(nanoseconds))
}

/// utime, stime, cutime and cstime: its own, and that of children that have ended (proc_pid_stat(5)).
fn ticks(process: &Path) -> Option<u64> {
    let stat = fs::read_to_string(process.join("stat")).ok()?;
    // The name before may hold anything. What follows begins with the third field.
    let (_, fields) = stat.rsplit_once(')')?;
    let times = fields.split_whitespace().skip(14 - 3).take(4);
    times.map(|ticks| ticks.parse::<u64>().ok()).sum()
}
