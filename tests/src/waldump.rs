//! What `pg_waldump` sees in a segment: where records begin and how long they are.

use std::path::Path;

use anyhow::{Context, Result, ensure};

use crate::{Server, process};

/// A record as `pg_waldump` lists it.
#[derive(Clone, Debug)]
pub struct Record {
    /// As PostgreSQL's `pg_lsn` writes it.
    pub lsn: String,
    /// Byte offset in its segment.
    pub offset: u64,
    /// Length in bytes, with its header.
    pub length: u64,
    /// Name of the resource manager.
    pub resource_manager: String,
    /// The description.
    pub description: String,
}

/// The records that begin in a segment, in order.
///
/// # Errors
/// When there are none, or the output is not as expected.
pub fn records(server: &Server, segment: &Path) -> Result<Vec<Record>> {
    // The last record mostly ends in the next segment, and pg_waldump calls that an error.
    let output = process::output(server.program("pg_waldump")?.arg(segment))?;
    let text = String::from_utf8_lossy(&output.stdout);
    let size = std::fs::metadata(segment)?.len();
    let records = text
        .lines()
        .map(|line| parse(line, size).with_context(|| line.to_owned()))
        .collect::<Result<Vec<_>>>()?;
    ensure!(
        !records.is_empty(),
        "pg_waldump: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(records)
}

/// `rmgr: Heap        len (rec/tot):     59/  7635, tx: 730, lsn: 0/01000028, prev 0/01000000, desc: INSERT …`
fn parse(line: &str, segment_size: u64) -> Option<Record> {
    let between = |from: &str, to: &str| Some(line.split_once(from)?.1.split_once(to)?.0.trim());
    let lsn = between("lsn: ", ",")?;
    let (high, low) = lsn.split_once('/')?;
    let (high, low) = (u64::from_str_radix(high, 16).ok()?, u64::from_str_radix(low, 16).ok()?);
    Some(Record {
        // pg_waldump of some majors pads the second half with zeros.
        lsn: format!("{high:X}/{low:X}"),
        offset: (high << 32 | low) % segment_size,
        length: between("(rec/tot):", ", tx")?.split_once('/')?.1.trim().parse().ok()?,
        resource_manager: between("rmgr: ", "len (")?.to_owned(),
        description: line.split_once("desc: ")?.1.to_owned(),
    })
}

/// How many transactions committed in the WAL of an archive, from its first segment to its last.
///
/// # Errors
/// When `pg_waldump` cannot read it.
pub fn commits(server: &Server, archive: &Path, first: &str, last: &str) -> Result<u64> {
    let mut command = server.program("pg_waldump")?;
    let output = process::output(
        command
            .args(["--rmgr=Transaction", "-p"])
            .arg(archive)
            .args([first, last]),
    )?;
    let text = String::from_utf8_lossy(&output.stdout);
    Ok(text.lines().filter(|line| line.contains("desc: COMMIT")).count() as u64)
}
