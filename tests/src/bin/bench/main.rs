//! `make bench`: what the extension does and costs, each time beside a peer on the same work in the same run.
//!
//! The two sides take turns, so that whatever else the machine does hits both; a line shows the medians, and the ratio within
//! a pair of turns, which is what can be compared between machines.
//!
//! `bench NAME…` runs only the parts of these names.

mod cpu;
mod ledger;
mod load;
mod many_segments;
mod measure;
mod pgbench;
mod recovery_time;
mod repository;
mod session;
mod views;
mod wal_files;

use std::process::ExitCode;

use anyhow::{Result, bail};
use measure::Line;
use tests::{Server, scratch};

/// A part of the benchmark.
type Part = (&'static str, fn() -> Result<Vec<Line>>);

const PARTS: &[Part] = &[
    ("wal_files", wal_files::bench),
    ("ledger", ledger::bench),
    ("load", load::bench),
    ("many_segments", many_segments::bench),
    ("repository", repository::bench),
    ("recovery_time", recovery_time::bench),
    ("views", views::bench),
];

fn main() -> ExitCode {
    match bench(&std::env::args().skip(1).collect::<Vec<_>>()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            scratch::leave_to_signal_handler();
            eprintln!("\nThe benchmark failed: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn bench(wanted: &[String]) -> Result<()> {
    if let Some(unknown) = wanted.iter().find(|name| PARTS.iter().all(|(part, _)| part != name)) {
        let names: Vec<_> = PARTS.iter().map(|(name, _)| *name).collect();
        bail!("there is no part {unknown:?}, only {}", names.join(", "));
    }
    let mut lines = Vec::new();
    for (name, part) in PARTS {
        if wanted.is_empty() || wanted.iter().any(|wanted| wanted == name) {
            lines.extend(part()?);
        }
    }
    println!(
        "\nPostgreSQL {}; medians, the middle half of the turns in brackets; the ratio is that of a pair of turns",
        Server::chosen()?.major()
    );
    println!("{}", Line::header());
    for line in &lines {
        println!("{line}");
    }
    Ok(())
}
