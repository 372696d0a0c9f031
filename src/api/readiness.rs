//! The verdict from SQL: readiness, windows and gaps. The views of the same names show what these functions return.

use crate::assessment::{Assessment, Depth, oldest_commit, timestamp};
use crate::catalog::{Ids, PgLsn, Text, facts};
use crate::error::{Result, sayably};
use crate::memory;
use crate::server::Server;
use chrono::{DateTime, Utc};
use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::*;
use recovery::{Gap, Need, Prediction};

/// One row: can this cluster be recovered, to when, with what loss.
#[pg_extern(stable, parallel_restricted)]
pub fn assess_recovery_readiness() -> Result<
    TableIterator<
        'static,
        (
            name!(status, Text),
            name!(recoverable_from, Option<TimestampWithTimeZone>),
            name!(recoverable_to, Option<TimestampWithTimeZone>),
            name!(rpo_seconds, Option<f64>),
            name!(rpo_bytes, Option<i64>),
            name!(predicted_rto_seconds, Option<f64>),
            name!(rto_basis, Text),
            name!(last_proven_at, Option<TimestampWithTimeZone>),
            name!(verifier_age_seconds, Option<f64>),
            name!(open_alerts, i64),
            name!(reasons, Vec<Text>),
            name!(newest_usable_backup, Option<i64>),
            name!(protected_lsn, Option<PgLsn>),
        ),
    >,
    ErrorReport,
> {
    let server = Server::observe()?;
    let assessment = sayably(|| Assessment::of(&server, Depth::Verdict))?;
    let mut exposure = assessment.exposure(&server);
    let oldest = oldest_commit(&server, exposure.as_mut(), &mut || {
        crate::memory::check_for_interrupts();
    });
    let verdict = assessment.judge(&oldest);
    let ends = verdict
        .window
        .as_ref()
        .map(|window| assessment.bounds(window))
        .transpose()?;
    let age = assessment
        .facts
        .worker
        .last_tick_at
        .map(|at| seconds_since(at, assessment.facts.now));
    let prediction = &assessment.survey.recovery_time;
    let alarming = verdict.reasons.iter().filter(|reason| reason.alarms).count();
    let row = (
        verdict.status.as_str().into(),
        ends.as_ref().and_then(|ends| timestamp(ends.from_time?)),
        ends.as_ref().and_then(|ends| timestamp(ends.to_time?)),
        verdict.rpo_seconds,
        verdict.rpo_bytes.and_then(|bytes| i64::try_from(bytes).ok()),
        prediction.as_ref().map(Prediction::seconds).ok(),
        prediction
            .as_ref()
            .map_or_else(ToString::to_string, |prediction| prediction.basis.clone())
            .into(),
        facts::last_proven_at()?,
        age,
        i64::try_from(alarming).unwrap_or(i64::MAX),
        verdict
            .reasons
            .into_iter()
            .map(|reason| reason.sentence.into())
            .collect(),
        assessment.survey.newest_usable,
        assessment.survey.protection.protected.map(|lsn| PgLsn(lsn.0)),
    );
    Ok(TableIterator::once(row))
}

/// One row for each unbroken stretch of recoverable history.
#[pg_extern(stable, parallel_restricted)]
pub fn list_recovery_windows() -> Result<
    TableIterator<
        'static,
        (
            name!(timeline_id, i64),
            name!(backup_id, i64),
            name!(from_time, Option<TimestampWithTimeZone>),
            name!(to_time, Option<TimestampWithTimeZone>),
            name!(from_lsn, PgLsn),
            name!(to_lsn, PgLsn),
            name!(ended_by, Text),
            name!(is_current, bool),
        ),
    >,
    ErrorReport,
> {
    let server = Server::observe()?;
    let assessment = sayably(|| Assessment::of(&server, Depth::Overview))?;
    let mut rows = Vec::with_capacity(assessment.survey.windows.len());
    for window in &assessment.survey.windows {
        let ends = assessment.bounds(window)?;
        rows.push((
            i64::from(window.timeline.0),
            window.backup_id,
            ends.from_time.and_then(timestamp),
            ends.to_time.and_then(timestamp),
            PgLsn(ends.from_lsn.0),
            PgLsn(ends.to_lsn.0),
            window.ended_by.to_string().into(),
            window.is_current,
        ));
    }
    Ok(TableIterator::new(rows))
}

/// One row for each run of segments that recovery could not read.
#[pg_extern(stable, parallel_restricted)]
pub fn list_wal_archive_gaps() -> Result<
    TableIterator<
        'static,
        (
            name!(timeline_id, i64),
            name!(from_segment, Text),
            name!(to_segment, Text),
            name!(segments, i64),
            name!(from_lsn, PgLsn),
            name!(to_lsn, PgLsn),
            name!(state, Text),
            name!(problem, Option<Text>),
            name!(since, Option<TimestampWithTimeZone>),
            name!(affected_backups, Ids),
        ),
    >,
    ErrorReport,
> {
    let server = Server::observe()?;
    let assessment = sayably(|| Assessment::of(&server, Depth::Gaps))?;
    let needs = assessment.needs(&server)?;
    // One list after another: each may hold every backup of years.
    let rows = assessment.survey.gaps.into_iter().map(move |gap| {
        let affected = affected_backups(&gap, &needs).unwrap_or_else(|error| {
            ErrorReport::from(error).report(PgLogLevel::ERROR);
            Vec::new()
        });
        (
            i64::from(gap.first.timeline.0),
            gap.first.to_string().into(),
            gap.last.to_string().into(),
            i64::try_from(gap.segments).unwrap_or(i64::MAX),
            PgLsn(gap.from_lsn().0),
            PgLsn(gap.to_lsn().0),
            gap.state.as_str().into(),
            gap.problem.as_deref().map(Text::from),
            timestamp(gap.since),
            Ids(affected),
        )
    });
    Ok(TableIterator::new(rows))
}

fn affected_backups(gap: &Gap, needs: &[Need]) -> Result<Vec<i64>> {
    let affected = || needs.iter().filter(|need| need.meets(gap));
    let count: usize = affected().map(|need| need.ids.len()).sum();
    // With the array that is made of it.
    memory::require(count.saturating_mul(3 * size_of::<i64>()))?;
    let mut ids = Vec::with_capacity(count);
    ids.extend(affected().flat_map(|need| &need.ids));
    ids.sort_unstable();
    Ok(ids)
}

fn seconds_since(then: DateTime<Utc>, now: DateTime<Utc>) -> f64 {
    now.signed_duration_since(then).as_seconds_f64().max(0.0)
}
