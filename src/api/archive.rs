//! Looking at the archive from SQL.

use super::call::require_primary;
use crate::access::choose_source;
use crate::catalog::{self, PgLsn, Scope, Text, ledger};
use crate::error::{Error, Result, sayably};
use crate::inspection::{Inspection, Precedent, Succession};
use crate::locks;
use crate::server::Server;
use archive::chain::Memory;
use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::*;
use std::collections::BTreeSet;
use wal::{PgTimestamp, SegmentName, SegmentSize};

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
    if reason.to_utf8().trim().is_empty() {
        return Err(Error::invalid(
            "reason must not be empty",
            "Whoever sees the gap later has nothing but the reason to go by.",
            "Say why the loss is accepted; the ledger keeps it.",
        ));
    }
    locks::write_findings();
    let _scope = Scope::enter()?;
    ledger::lock_chain()?;
    let acknowledged = catalog::archive::acknowledge(&from, &to, reason)?;
    if acknowledged.segments == 0 {
        return Err(Error::WrongState {
            message: format!("no segment from {from} to {to} is missing, corrupt or foreign"),
            detail: "Only what is known to be lost or no good can be acknowledged; what is late may still arrive."
                .to_owned(),
            hint: "See wal_archive_gaps for the gaps and their state; verify_wal_archive() looks again now.".to_owned(),
        });
    }
    ledger::append_acknowledgement("wal_archive", acknowledged.image)?;
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
    let source = choose_source(&server)?.source;
    locks::write_findings();
    // Nobody has watched the archiver between two calls, so the grace counts from when a segment was first missed.
    let mut inspection = Inspection::open(&source, &server, Memory::new(PgTimestamp(i64::MIN)))?;
    // SAFETY: reads the clock.
    inspection.gather(&server, PgTimestamp(unsafe { pg_sys::GetCurrentTimestamp() }))?;
    inspection.load()?;
    inspection.expect()?;
    let looked_up = inspection.look_up_texts()?;
    let texts = inspection.decide_texts(looked_up)?;
    inspection.record_texts(&texts)?;
    let all = from.is_none() && to.is_none();
    let to_read = if all { inspection.held_texts() } else { texts.to_read };
    for (kind, name) in to_read {
        let read = inspection.read_text(kind, &name, &mut || {
            pgrx::check_for_interrupts!();
        })?;
        inspection.store_text(&name, read.as_ref())?;
    }
    // They may have told of a backup, and with it of what is expected.
    inspection.expect()?;
    // Whatever range is asked for, all that is expected gets its row: between verified rows, what has none counts as verified.
    let mut lot = inspection.first_lot();
    while !lot.is_empty() {
        let looked_up = inspection.look_up(&lot)?;
        let decided = inspection.decide(looked_up)?;
        inspection.record(&decided)?;
        inspection.settle(&decided);
        pgrx::check_for_interrupts!();
        lot = inspection.next_lot();
    }
    let strangers = inspection.news_of_strangers()?;
    inspection.record_strangers(&strangers)?;
    let wanted = |segment: &SegmentName| {
        from.is_none_or(|from| segment.number >= from.number) && to.is_none_or(|to| segment.number <= to.number)
    };
    let mut queue: BTreeSet<SegmentName> = inspection.readable().into_iter().filter(wanted).collect();
    let mut succession = Succession::new();
    while let Some(segment) = queue.pop_first() {
        let precedent = Precedent::of(&inspection, segment)?;
        let looked = succession.read(&mut inspection, segment, precedent, &mut |_| {
            pgrx::check_for_interrupts!();
        })?;
        queue.extend(inspection.store(segment, &looked)?);
    }
    Ok(())
}

fn segment_argument(argument: &'static str, name: &Text, size: SegmentSize) -> Result<SegmentName> {
    let name = name.to_utf8();
    SegmentName::parse(&name, size).map_err(|error| {
        Error::invalid(
            format!("{argument} \"{name}\" is not the name of a WAL segment"),
            error.to_string(),
            "Give the 24 hexadecimal digits of a segment's file name, as wal_archive.segment_name shows it.",
        )
    })
}
