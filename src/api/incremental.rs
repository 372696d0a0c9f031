//! Recording a range of WAL as an incremental backup, with what is really there of it.

use std::collections::BTreeMap;
use std::path::Path;

use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::*;
use wal::{Lsn, SegmentName};

use super::argument;
use super::call;
use super::storage;
use crate::catalog::{PgLsn, Scope, Text, backup};
use crate::error::{Error, Result, sayably};
use crate::process;
use crate::server::Server;

/// Records the WAL from `start_lsn` up to `end_lsn` as an incremental backup. Its segments are looked for in `backup_path`,
/// then among the archived ones that the worker knows, then in pg_wal; counts and sizes are of the files found. Where a
/// segment is in none of them, the backup is recorded as failed, with a warning.
#[pg_extern]
fn incremental_backup(
    start_lsn: Option<PgLsn>,
    end_lsn: Option<PgLsn>,
    backup_path: Option<Text>,
) -> Result<
    TableIterator<
        'static,
        (
            name!(backup_id, i64),
            name!(wal_files_count, i64),
            name!(backup_size_bytes, i64),
        ),
    >,
    ErrorReport,
> {
    call::require_primary("incremental_backup")?;
    let null = |argument| Error::NullArgument {
        argument,
        hint: "Pass the range as two values of type pg_lsn.".to_owned(),
    };
    let start = start_lsn.ok_or_else(|| null("start_lsn"))?;
    let end = end_lsn.ok_or_else(|| null("end_lsn"))?;
    argument::no_longer_than(argument::LONGEST_PATH, "backup_path", backup_path.as_ref())?;
    let recorded = sayably(|| record(start, end, backup_path.as_ref()))?;
    Ok(TableIterator::once(recorded))
}

fn record(start: PgLsn, end: PgLsn, path: Option<&Text>) -> Result<(i64, i64, i64)> {
    let now = Server::observe()?;
    require_range(start, end, PgLsn(now.flush.0))?;
    let wanted = now.segments_of(Lsn(start.0), Lsn(end.0))?;
    let found = look_for(&wanted, path)?;
    let missing = wanted.iter().find(|segment| !found.contains_key(*segment));
    let count = i64::try_from(found.len()).unwrap_or(i64::MAX);
    let bytes = found.values().fold(0_i64, |sum, bytes| sum.saturating_add(*bytes));
    let error = missing.map(|segment| {
        format!("Segment {segment} was found neither in the backup's path nor in the archive nor in pg_wal.")
    });

    let _scope = Scope::enter()?;
    let parent = backup::reaching(now.system_identifier(), start)?;
    let first = wanted.first().map(ToString::to_string);
    let last = wanted.last().map(ToString::to_string);
    let id = backup::record_range(&backup::Range {
        system_identifier: now.system_identifier(),
        timeline: now.timeline_id()?,
        start_lsn: start,
        end_lsn: end,
        start_wal_file: first.as_deref(),
        end_wal_file: last.as_deref(),
        parent,
        path,
        size_bytes: bytes,
        file_count: count,
        error: error.as_deref(),
    })?;
    match (error, parent) {
        (Some(error), _) => call::tell(
            PgLogLevel::WARNING,
            format!("incremental backup {id} is recorded as failed"),
            error,
            "Bring the segment back, or begin a new chain with a full backup.",
        ),
        (None, None) => call::tell(
            PgLogLevel::NOTICE,
            format!("incremental backup {id} builds on no recorded backup"),
            format!("No completed full or incremental backup of this cluster reaches {start}."),
            "Record the backup that it builds on, or begin the range earlier.",
        ),
        (None, Some(_)) => {}
    }
    Ok((id, count, bytes))
}

fn require_range(start: PgLsn, end: PgLsn, flushed: PgLsn) -> Result<()> {
    if start >= end {
        return Err(Error::invalid(
            format!("start_lsn {start} is not before end_lsn {end}"),
            "The range runs from start_lsn up to, and without, end_lsn.",
            "Pass the earlier position first.",
        ));
    }
    if end > flushed {
        return Err(Error::invalid(
            format!("end_lsn {end} has not been reached"),
            format!("WAL is written and flushed up to {flushed}."),
            "Pass a position not beyond pg_current_wal_flush_lsn().",
        ));
    }
    Ok(())
}

/// The size of each segment that was found, at the first place that has it.
fn look_for(wanted: &[SegmentName], path: Option<&Text>) -> Result<BTreeMap<SegmentName, i64>> {
    let mut found = BTreeMap::new();
    if let Some(path) = path
        && storage::readable(path, "the WAL files in the backup's path are not counted")
    {
        for (first, last) in runs(wanted) {
            let files = process::look_at(&format!("\"{}\"", path.to_utf8()), |_| {
                let files = artifact::wal_files_in(path.as_path(), first, last).map_err(|error| error.to_string())?;
                let sizes = files.found.iter().map(|file| (file.segment, signed(file.bytes)));
                Ok::<Vec<_>, String>(sizes.collect())
            });
            match files.flatten() {
                Ok(files) => found.extend(files),
                Err(why) => {
                    storage::not_read("the WAL files in the backup's path are not counted", &why);
                    break;
                }
            }
        }
    }
    for (first, last) in runs(wanted) {
        if found.len() == wanted.len() {
            break;
        }
        let (from, to) = (first.to_string(), last.to_string());
        for (name, bytes) in backup::archived_segments(&from, &to)? {
            if let Ok(segment) = SegmentName::parse(&name, first.size) {
                found.entry(segment).or_insert(bytes);
            }
        }
    }
    for (first, last) in runs(wanted) {
        if found.len() == wanted.len() {
            break;
        }
        // The server's working directory is its data directory.
        if let Ok(files) = artifact::wal_files_in(Path::new("pg_wal"), first, last) {
            for file in files.found {
                found.entry(file.segment).or_insert(signed(file.bytes));
            }
        }
    }
    Ok(found)
}

fn signed(bytes: u64) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}

/// First and last segment of each timeline's stretch.
fn runs(segments: &[SegmentName]) -> impl Iterator<Item = (SegmentName, SegmentName)> {
    segments
        .chunk_by(|a, b| a.timeline == b.timeline)
        .filter_map(|run| Some((*run.first()?, *run.last()?)))
}
