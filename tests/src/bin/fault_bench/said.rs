//! What each tool says, reduced to whether it noticed anything, its exit status, and its first complaint.

use std::process::{Command, Output};

use anyhow::{Context, Result};
use tests::{Cluster, process, waldump};
use wal::{SegmentName, SegmentSize};

use crate::site::Site;

/// A tool's answer.
#[derive(Clone)]
pub struct Said {
    exit: Option<i32>,
    complaint: Option<String>,
}

impl Said {
    /// For a cell of the table.
    pub fn cell(&self) -> String {
        let exit = self.exit.map_or_else(|| "a signal".to_owned(), |code| code.to_string());
        match &self.complaint {
            None => format!("not seen (exit {exit})"),
            Some(complaint) => format!("**seen** (exit {exit}): {complaint}"),
        }
    }

    fn new(output: &Output, complaint: Option<&str>, cluster: &Cluster) -> Self {
        Self {
            exit: output.status.code(),
            complaint: complaint.map(|complaint| shortened(complaint, cluster)),
        }
    }
}

/// One line, without what changes from run to run, fit for a table.
fn shortened(text: &str, cluster: &Cluster) -> String {
    let text = text.replace(&cluster.socket().display().to_string(), "…");
    let text = text.replace('|', "\\|");
    match text.char_indices().nth(110) {
        Some((cut, _)) => format!("{} …", text.get(..cut).unwrap_or_default()),
        None => text,
    }
}

fn run(mut command: Command) -> Result<(Output, String)> {
    let output = process::output(&mut command)?;
    let said = [&output.stdout, &output.stderr].map(|bytes| String::from_utf8_lossy(bytes).into_owned());
    Ok((output, said.concat()))
}

/// `pgbackrest verify`: what it reports of the archive.
pub fn pgbackrest_verify(site: &Site) -> Result<Said> {
    let mut command = site.pgbackrest.command("verify")?;
    command.arg("--output=text");
    let (output, said) = run(command)?;
    let complaint = if said.contains("status: error") {
        let counts: Vec<&str> = said
            .lines()
            .map(str::trim)
            .filter(|line| {
                ["missing:", "checksum", "size", "other:"]
                    .iter()
                    .any(|kind| line.starts_with(kind))
            })
            .collect();
        Some(counts.join("; "))
    } else {
        error_of(&said)
    };
    Ok(Said::new(&output, complaint.as_deref(), &site.cluster))
}

/// `pgbackrest check`: whether a new segment gets into the archive.
pub fn pgbackrest_check(site: &Site) -> Result<Said> {
    let (output, said) = run(site.pgbackrest.command("check")?)?;
    Ok(Said::new(&output, error_of(&said).as_deref(), &site.cluster))
}

/// `2026-01-01 00:00:00.000 P00  ERROR: [082]: …`
fn error_of(said: &str) -> Option<String> {
    let line = said.lines().find(|line| line.contains("ERROR:"))?;
    Some(line.split_once("ERROR:")?.1.trim().to_owned())
}

/// `barman check`: what it calls failed.
pub fn barman_check(site: &Site) -> Result<Said> {
    let (output, said) = run(site.barman.command("check", &[])?)?;
    let failed = said
        .lines()
        .find(|line| line.contains("FAILED") || line.contains("ERROR"));
    Ok(Said::new(&output, failed.map(str::trim), &site.cluster))
}

/// `barman check-backup`, which says nothing and exits with 0 where WAL is missing, but marks the backup as failed.
pub fn barman_check_backup(site: &Site) -> Result<Said> {
    let information = site.barman.backups().join(&site.backup).join("backup.info");
    let before = std::fs::read(&information).with_context(|| information.display().to_string())?;
    let (output, said) = run(site.barman.command("check-backup", &[&site.backup])?)?;
    let after = process::run(&mut site.barman.command("list-backup", &[])?)?;
    // It would stay failed after the mend.
    std::fs::write(&information, before)?;
    let complaint = if after.contains("FAILED") {
        Some("the backup is FAILED from now on".to_owned())
    } else {
        said.lines().find(|line| line.contains("ERROR")).map(str::to_owned)
    };
    Ok(Said::new(&output, complaint.as_deref(), &site.cluster))
}

/// What `pg_waldump` is to read, to have every chance: a segment, the one before, and the one that follows, where there is one.
pub struct Stretch {
    timeline: String,
    start: String,
    end: String,
}

impl Stretch {
    /// That of a segment in an archive that is sound.
    pub fn of(site: &Site, segment: &str) -> Result<Self> {
        let size = SegmentSize::new(1 << 20)?;
        let name = SegmentName::parse(segment, size)?;
        let last = |name: &SegmentName| -> Result<String> {
            let path = site.cluster.archive().file(name.to_string());
            let records = waldump::records(site.cluster.server(), &path)?;
            Ok(records.last().context("no record")?.lsn.clone())
        };
        let previous = name.previous().filter(|name| site.content(&name.to_string()).is_ok());
        let next = name.next().context("the last segment of all")?;
        Ok(Self {
            timeline: name.timeline.0.to_string(),
            start: previous.unwrap_or(name).start().to_string(),
            end: last(&next).or_else(|_| last(&name))?,
        })
    }
}

/// `pg_waldump` over the plain directory.
pub fn pg_waldump(site: &Site, stretch: &Stretch) -> Result<Said> {
    let mut command = site.cluster.server().program("pg_waldump")?;
    command.arg("--quiet").arg("--path").arg(site.cluster.archive().path());
    command.args(["--timeline", &stretch.timeline]);
    command.args(["--start", &stretch.start, "--end", &stretch.end]);
    let (output, said) = run(command)?;
    let failed = !output.status.success();
    let complaint = said.lines().find(|line| line.contains("error:")).filter(|_| failed);
    let complaint = complaint.map(|line| line.replace("pg_waldump: error: ", ""));
    Ok(Said::new(&output, complaint.as_deref(), &site.cluster))
}
