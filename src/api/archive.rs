//! Looking at the archive from SQL.

use super::argument;
use super::call::require_primary;
use crate::catalog::{self, PgLsn, Scope, Text, ledger};
use crate::error::{Error, Result, sayably};
use crate::locks;
use crate::server::Server;
use crate::worker;
use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::*;
use wal::{SegmentName, SegmentSize};

/// Reads the archived segments from `from_segment` to `to_segment` again (all where an end is not given, history and backup
/// history files too where neither is), stores what was found, and returns the rows of wal_archive of that range.
///
/// Segments that should be there and are not become `missing` as they do for the worker, after `pg_backstop.archive_grace`.
#[pg_extern(volatile, parallel_unsafe)]
fn verify_wal_archive(
    from_segment: default!(Option<Text>, "NULL"),
    to_segment: default!(Option<Text>, "NULL"),
) -> Result<
    TableIterator<
        'static,
        (
            name!(segment_name, Text),
            name!(timeline_id, Option<i32>),
            name!(start_lsn, Option<PgLsn>),
            name!(end_lsn, Option<PgLsn>),
            name!(status, Text),
            name!(problem, Option<Text>),
            name!(detail, Option<Text>),
            name!(stored_path, Option<Text>),
            name!(stored_bytes, Option<i64>),
            name!(sha256, Option<Text>),
            name!(first_commit_at, Option<TimestampWithTimeZone>),
            name!(last_commit_at, Option<TimestampWithTimeZone>),
            name!(commit_count, Option<i64>),
            name!(first_seen_at, TimestampWithTimeZone),
            name!(verified_at, Option<TimestampWithTimeZone>),
        ),
    >,
    ErrorReport,
> {
    let (from, to) = (from_segment.as_ref(), to_segment.as_ref());
    sayably(|| check(from, to))?;
    Ok(TableIterator::new(catalog::archive::rows(from, to)?))
}

/// Marks the segments from `from_segment` to `to_segment` that are missing, corrupt or foreign as known and accepted, and
/// returns how many. They go on to end recovery windows, and alarm no more.
///
/// A segment that is put back, or that is found to have another problem, is judged anew.
#[pg_extern(volatile, parallel_unsafe)]
fn acknowledge_wal_gap(
    from_segment: Option<Text>,
    to_segment: Option<Text>,
    reason: Option<Text>,
) -> Result<i64, ErrorReport> {
    let (from, to) = (from_segment.as_ref(), to_segment.as_ref());
    Ok(sayably(|| acknowledge(from, to, reason.as_ref()))?)
}

fn acknowledge(from: Option<&Text>, to: Option<&Text>, reason: Option<&Text>) -> Result<i64> {
    require_primary("acknowledge_wal_gap")?;
    let size = Server::observe()?.format.segment_size;
    let segment = |argument, name: Option<&Text>| match name {
        Some(name) => segment_argument(argument, name, size),
        None => Err(Error::NullArgument {
            argument,
            hint: "Pass the name of a segment; wal_archive_gaps shows those that can be acknowledged.".to_owned(),
        }),
    };
    let (from, to) = (segment("from_segment", from)?, segment("to_segment", to)?);
    in_order(&from, &to)?;
    if from.timeline != to.timeline {
        return Err(Error::invalid(
            format!("from_segment {from} and to_segment {to} are of different timelines"),
            "The first eight digits of a segment's name are its timeline, and a gap is of one.",
            "Call it once for each timeline, as wal_archive_gaps shows the gaps.",
        ));
    }
    let reason = reason.ok_or_else(|| Error::NullArgument {
        argument: "reason",
        hint: "Say why the loss is accepted; the ledger keeps it.".to_owned(),
    })?;
    argument::no_longer_than(argument::LONGEST_REASON, "reason", Some(reason))?;
    if reason.to_utf8().trim().is_empty() {
        return Err(Error::invalid(
            "reason must not be empty",
            "Whoever sees the gap later has nothing but the reason to go by.",
            "Say why the loss is accepted; the ledger keeps it.",
        ));
    }
    let _scope = Scope::enter()?;
    locks::write_findings();
    let acknowledged = catalog::archive::acknowledge(&from, &to, reason)?;
    if acknowledged.segments == 0 {
        return Err(Error::WrongState {
            message: format!("no segment from {from} to {to} is missing, corrupt or foreign"),
            detail: "Only what is known to be lost or no good can be acknowledged; what is late may still arrive."
                .to_owned(),
            hint: "See wal_archive_gaps for the gaps and their state; verify_wal_archive() looks again now.".to_owned(),
        });
    }
    ledger::acknowledge("wal_archive", acknowledged.image)?;
    Ok(acknowledged.segments)
}

/// Refuses a range that ends before it begins.
fn in_order(from: &SegmentName, to: &SegmentName) -> Result<()> {
    if from.number <= to.number {
        return Ok(());
    }
    Err(Error::invalid(
        format!("from_segment {from} lies after to_segment {to}"),
        "A range of segments is given from its older to its newer end.",
        "Exchange the two.",
    ))
}

fn check(from: Option<&Text>, to: Option<&Text>) -> Result<()> {
    require_primary("verify_wal_archive")?;
    let server = Server::observe()?;
    let size = server.format.segment_size;
    let from = from
        .map(|name| segment_argument("from_segment", name, size))
        .transpose()?;
    let to = to.map(|name| segment_argument("to_segment", name, size)).transpose()?;
    if let (Some(from), Some(to)) = (&from, &to) {
        in_order(from, to)?;
    }
    worker::verify(from, to)
}

fn segment_argument(argument: &'static str, name: &Text, size: SegmentSize) -> Result<SegmentName> {
    let name = name.to_utf8();
    SegmentName::parse(&name, size).map_err(|error| {
        Error::invalid(
            format!(
                "{argument} \"{}\" is not the name of a WAL segment",
                archive::brief(&name)
            ),
            archive::printable(&error.to_string()),
            "Give the 24 hexadecimal digits of a segment's file name, as wal_archive.segment_name shows it.",
        )
    })
}
