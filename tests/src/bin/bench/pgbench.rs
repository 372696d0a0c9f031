//! What pgbench reports of a run.

use anyhow::{Context, Result};
use tests::Cluster;

/// A run that has ended.
pub struct Run {
    /// Transactions a second, without the time to connect.
    pub per_second: f64,
    /// All of them.
    pub transactions: f64,
}

/// Runs pgbench, without the VACUUM that it begins with otherwise.
///
/// # Errors
/// When it fails, or reports something else than expected.
pub fn run(cluster: &Cluster, options: &[&str]) -> Result<Run> {
    let said = cluster.client("pgbench", &[&["-n"], options].concat())?;
    let number = |label: &str| {
        let after = said.split(label).nth(1)?;
        let digits = after.split(|c: char| !c.is_ascii_digit() && c != '.').next()?;
        digits.parse().ok()
    };
    let numbers = number("tps = ").zip(number("actually processed: "));
    let (per_second, transactions) = numbers.with_context(|| format!("no numbers in: {said}"))?;
    Ok(Run {
        per_second,
        transactions,
    })
}
