//! The objectives from SQL: whether they were kept in the last day, week and month, and whether they are now.

use crate::catalog::{Text, archive, hourly, samples};
use crate::error::Result;
use crate::server::Server;
use crate::worker::{SAMPLE_EVERY, watch};
use crate::{settings, shmem};
use chrono::{DateTime, TimeDelta, Utc};
use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::*;
use recovery::compliance::{self, State, Tally};
use recovery::readiness::stale_after;
use wal::PgTimestamp;

/// What is looked back on: a name, and so many hours.
const PERIODS: [(&str, i64); 3] = [("24 h", 24), ("7 d", 7 * 24), ("30 d", 30 * 24)];

/// One row for each period: how much of the time was watched, and how much of that lay within the objectives.
#[pg_extern(stable, parallel_restricted)]
pub fn list_objective_compliance() -> Result<
    TableIterator<
        'static,
        (
            name!(period, Text),
            name!(since, Option<TimestampWithTimeZone>),
            name!(observed_share, f64),
            name!(rpo_share, Option<f64>),
            name!(rto_share, Option<f64>),
            name!(worst_rpo_seconds, Option<f64>),
            name!(worst_rpo_bytes, Option<i64>),
            name!(worst_predicted_rto_seconds, Option<f64>),
            name!(avg_rpo_seconds, Option<f64>),
            name!(observed_seconds, f64),
            name!(rpo_outside_seconds, f64),
            name!(rto_outside_seconds, f64),
            name!(unprotected_seconds, f64),
            name!(sample_count, i64),
        ),
    >,
    ErrorReport,
> {
    let now = Utc::now();
    let since_sample = since_sample(now)?;
    let mut rows = Vec::with_capacity(PERIODS.len());
    for (period, hours) in PERIODS {
        let since = compliance::hour_of(now - TimeDelta::hours(hours));
        let (mut tally, samples) = hourly::sum(since, now)?;
        tally.add(&since_sample);
        let length = seconds((now - since).num_microseconds().unwrap_or(i64::MAX));
        rows.push((
            period.into(),
            archive::time(PgTimestamp::from_unix_micros(since.timestamp_micros()).0),
            (seconds(tally.observed) / length).min(1.0),
            tally.rpo.kept(),
            tally.rto.kept(),
            tally.worst_rpo.map(seconds),
            tally.worst_rpo_bytes.and_then(|bytes| i64::try_from(bytes).ok()),
            tally.worst_predicted_rto,
            tally.mean_exposure(),
            seconds(tally.observed),
            seconds(tally.rpo.outside),
            seconds(tally.rto.outside),
            seconds(tally.unprotected),
            samples,
        ));
    }
    Ok(TableIterator::new(rows))
}

/// The cluster's objectives, and how things stand: what is known now, NULL where it is not.
#[pg_extern(stable, parallel_restricted)]
pub fn current_objectives() -> Result<
    TableIterator<
        'static,
        (
            name!(target_rpo_seconds, Option<f64>),
            name!(target_rto_seconds, Option<f64>),
            name!(rpo_seconds, Option<f64>),
            name!(is_protected, Option<bool>),
            name!(predicted_rto_seconds, Option<f64>),
        ),
    >,
    ErrorReport,
> {
    let now = Utc::now();
    let objectives = settings::objectives();
    let state = newest_sample(now)?.filter(|state| still_holds(state, now));
    let exposure = state.map(|state| state.exposure);
    Ok(TableIterator::once((
        objectives.rpo.map(|target| target.as_secs_f64()),
        objectives.rto.map(|target| target.as_secs_f64()),
        exposure.and_then(|exposure| exposure.at(now)).map(seconds),
        exposure.map(|exposure| exposure != compliance::Exposure::Unprotected),
        state.and_then(|state| state.predicted_rto),
    )))
}

/// The newest sample. A standby cannot read its own, and has none.
fn newest_sample(now: DateTime<Utc>) -> Result<Option<State>> {
    if Server::observe()?.standby {
        return Ok(None);
    }
    samples::newest(now, settings::objectives())
}

/// The time since the newest sample, as far as the worker has seen that nothing changed. It is in no hour yet.
fn since_sample(now: DateTime<Utc>) -> Result<Tally> {
    let Some(state) = newest_sample(now)? else {
        return Ok(Tally::default());
    };
    let Some(held_to) = watch::held_to(state.at) else {
        return Ok(Tally::default());
    };
    // A clock that was set back comes by the same moments again.
    let from = state.at.max(hourly::counted_before(now)?.unwrap_or(state.at));
    Ok(state.tally(from, held_to.min(now)))
}

/// Whether what a sample says can be taken for what is so now: the worker looks, or would have taken another by now.
fn still_holds(state: &State, now: DateTime<Utc>) -> bool {
    let stale = stale_after(settings::check_interval());
    let (seen, stale) = match watch::held_to(state.at) {
        Some(held_to) => (held_to, stale),
        None if shmem::is_reserved() => return false,
        None => (state.at, SAMPLE_EVERY + stale),
    };
    now.signed_duration_since(seen)
        .to_std()
        .map_or(true, |age| age <= stale)
}

fn seconds(micros: i64) -> f64 {
    micros as f64 / 1e6
}
