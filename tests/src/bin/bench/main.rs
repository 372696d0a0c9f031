//! `make bench`: what the extension does and costs, each time beside a peer on the same work in the same run.
//!
//! The two sides take turns, so that whatever else the machine does hits both; a line shows the medians, their spread, and
//! the ratio, which is what can be compared between machines.

mod ledger;
mod load;
mod measure;
mod wal_files;

use std::process::ExitCode;

use anyhow::Result;
use measure::Line;
use tests::{Server, scratch};

fn main() -> ExitCode {
    match bench() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            scratch::leave_to_signal_handler();
            eprintln!("\nThe benchmark failed: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn bench() -> Result<()> {
    let mut lines = wal_files::bench()?;
    lines.extend(ledger::bench()?);
    lines.push(load::bench()?);
    println!(
        "\nPostgreSQL {}; medians of {} turns each, least to most in brackets",
        Server::chosen()?.major(),
        measure::TURNS
    );
    println!("{}", Line::header());
    for line in &lines {
        println!("{line}");
    }
    Ok(())
}
