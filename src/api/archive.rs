//! Looking at the archive from SQL.

use super::call::require_primary;
use crate::catalog::{self, PgLsn};
use crate::error::{Error, Result};
use crate::inspection::{Inspection, Succession, choose_source};
use crate::locks;
use crate::server::Server;
use archive::chain::Memory;
use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::*;
use wal::{PgTimestamp, SegmentName, SegmentSize};

/// Reads the archived segments from `from_segment` to `to_segment` again (all where an end is not given, history and backup
/// history files too where neither is), stores what was found, and returns the rows of wal_archive of that range.
///
/// Segments that should be there and are not become `missing` as they do for the worker, after `pg_backstop.archive_grace`.
#[pg_extern(volatile, parallel_unsafe)]
fn verify_wal_archive(
    from_segment: default!(Option<&str>, "NULL"),
    to_segment: default!(Option<&str>, "NULL"),
) -> Result<
    TableIterator<
        'static,
        (
            name!(segment_name, String),
            name!(timeline_id, Option<i32>),
            name!(start_lsn, Option<PgLsn>),
            name!(end_lsn, Option<PgLsn>),
            name!(status, String),
            name!(problem, Option<String>),
            name!(detail, Option<String>),
            name!(stored_path, Option<String>),
            name!(stored_bytes, Option<i64>),
            name!(sha256, Option<String>),
            name!(first_commit_at, Option<TimestampWithTimeZone>),
            name!(last_commit_at, Option<TimestampWithTimeZone>),
            name!(commit_count, Option<i64>),
            name!(first_seen_at, TimestampWithTimeZone),
            name!(verified_at, Option<TimestampWithTimeZone>),
        ),
    >,
    ErrorReport,
> {
    check(from_segment, to_segment)?;
    Ok(TableIterator::new(catalog::archive::rows(from_segment, to_segment)?))
}

fn check(from: Option<&str>, to: Option<&str>) -> Result<()> {
    require_primary("verify_wal_archive")?;
    let server = Server::observe()?;
    let size = server.format.segment_size;
    let from = from
        .map(|name| segment_argument("from_segment", name, size))
        .transpose()?;
    let to = to.map(|name| segment_argument("to_segment", name, size)).transpose()?;
    if let (Some(from), Some(to)) = (from, to)
        && from.number > to.number
    {
        return Err(Error::invalid(
            format!("from_segment {from} lies after to_segment {to}"),
            "A range of segments is given from its older to its newer end.",
            "Exchange the two.",
        ));
    }
    let source = choose_source(&server)?.source;
    locks::write_findings();
    let mut inspection = Inspection::gather(&server, &source)?;
    inspection.load()?;
    // SAFETY: reads the clock.
    let now = PgTimestamp(unsafe { pg_sys::GetCurrentTimestamp() });
    // Nobody has watched the archiver between two calls, so the grace counts from when a segment was first missed.
    let mut memory = Memory::new(PgTimestamp(i64::MIN));
    let plan = inspection.plan(&mut memory, now)?;
    inspection.record_absences(&plan)?;
    let wanted = |segment: &SegmentName| {
        from.is_none_or(|from| segment.number >= from.number) && to.is_none_or(|to| segment.number <= to.number)
    };
    let mut succession = Succession::new(&inspection);
    for segment in inspection.to_reread().filter(wanted) {
        let recorded = || inspection.recorded_handover(segment);
        let finding = succession.verify(segment, recorded, &mut |_| {
            pgrx::check_for_interrupts!();
        })?;
        catalog::archive::store(&finding)?;
    }
    if from.is_none() && to.is_none() {
        for (kind, name) in inspection.held_others() {
            inspection.store_text(kind, name)?;
        }
    }
    Ok(())
}

fn segment_argument(argument: &'static str, name: &str, size: SegmentSize) -> Result<SegmentName> {
    SegmentName::parse(name, size).map_err(|error| {
        Error::invalid(
            format!("{argument} \"{name}\" is not the name of a WAL segment"),
            error.to_string(),
            "Give the 24 hexadecimal digits of a segment's file name, as wal_archive.segment_name shows it.",
        )
    })
}
