//! Rows of recovery_hourly: what each hour was like, for as long as somebody may ask.

use super::Statement;
use super::facts::moment;
use crate::error::Result;
use chrono::{DateTime, Utc};
use pgrx::prelude::*;
use recovery::compliance::{Share, Tally};
use std::time::Duration;
use wal::PgTimestamp;

/// Hours are kept for so long: a year and a month, so that a month can be compared with the same one of the year before.
pub const KEPT: Duration = Duration::from_secs(400 * 24 * 60 * 60);

/// Up to where the hour that begins then is summed up.
pub fn counted_to(hour: DateTime<Utc>) -> Result<Option<DateTime<Utc>>> {
    static COUNTED: Statement = Statement::new(
        "SELECT counted_to FROM @extschema@.recovery_hourly
          WHERE hour = $1 AND system_identifier = (SELECT c.system_identifier FROM pg_control_system() c)",
    );
    COUNTED.read(&[time(hour).into()], |rows| match rows.first() {
        Some(row) => Ok(row.get(1)?.and_then(moment)),
        None => Ok(None),
    })
}

/// Up to where time is summed up, before a moment.
pub fn counted_before(now: DateTime<Utc>) -> Result<Option<DateTime<Utc>>> {
    static LAST: Statement = Statement::new(
        "SELECT counted_to FROM @extschema@.recovery_hourly
          WHERE hour <= $1 AND system_identifier = (SELECT c.system_identifier FROM pg_control_system() c)
          ORDER BY hour DESC LIMIT 1",
    );
    LAST.read(&[time(now).into()], |rows| match rows.first() {
        Some(row) => Ok(row.get(1)?.and_then(moment)),
        None => Ok(None),
    })
}

/// Adds to an hour what is summed up of it, up to a moment, and so many samples.
pub fn add(hour: DateTime<Utc>, counted_to: DateTime<Utc>, tally: &Tally, samples: i64) -> Result<()> {
    static ADD: Statement = Statement::new(
        "INSERT INTO @extschema@.recovery_hourly AS h
             (hour, counted_to, sample_count, observed_seconds, rpo_inside_seconds, rpo_outside_seconds,
              rto_inside_seconds, rto_outside_seconds, unprotected_seconds, measured_seconds, avg_rpo_seconds,
              worst_rpo_seconds, worst_rpo_bytes, worst_predicted_rto_seconds, system_identifier)
         VALUES ($1, $2, $3, round($4::numeric / 1000000, 6), round($5::numeric / 1000000, 6),
                 round($6::numeric / 1000000, 6), round($7::numeric / 1000000, 6), round($8::numeric / 1000000, 6),
                 round($9::numeric / 1000000, 6), round($10::numeric / 1000000, 6), round($11::numeric, 6),
                 round($12::numeric / 1000000, 3), $13, round($14::numeric, 3),
                 (SELECT c.system_identifier FROM pg_control_system() c))
         ON CONFLICT (hour, system_identifier) DO UPDATE SET
             counted_to = greatest(h.counted_to, EXCLUDED.counted_to),
             sample_count = h.sample_count + EXCLUDED.sample_count,
             observed_seconds = h.observed_seconds + EXCLUDED.observed_seconds,
             rpo_inside_seconds = h.rpo_inside_seconds + EXCLUDED.rpo_inside_seconds,
             rpo_outside_seconds = h.rpo_outside_seconds + EXCLUDED.rpo_outside_seconds,
             rto_inside_seconds = h.rto_inside_seconds + EXCLUDED.rto_inside_seconds,
             rto_outside_seconds = h.rto_outside_seconds + EXCLUDED.rto_outside_seconds,
             unprotected_seconds = h.unprotected_seconds + EXCLUDED.unprotected_seconds,
             measured_seconds = h.measured_seconds + EXCLUDED.measured_seconds,
             avg_rpo_seconds = coalesce(round(
                 (coalesce(h.avg_rpo_seconds, 0) * h.measured_seconds
                     + coalesce(EXCLUDED.avg_rpo_seconds, 0) * EXCLUDED.measured_seconds)
                 / nullif(h.measured_seconds + EXCLUDED.measured_seconds, 0), 6), h.avg_rpo_seconds),
             worst_rpo_seconds = greatest(h.worst_rpo_seconds, EXCLUDED.worst_rpo_seconds),
             worst_rpo_bytes = greatest(h.worst_rpo_bytes, EXCLUDED.worst_rpo_bytes),
             worst_predicted_rto_seconds = greatest(h.worst_predicted_rto_seconds, EXCLUDED.worst_predicted_rto_seconds)",
    );
    let bytes = tally
        .worst_rpo_bytes
        .map(|bytes| i64::try_from(bytes).unwrap_or(i64::MAX));
    ADD.write(
        &[
            time(hour).into(),
            time(counted_to).into(),
            samples.into(),
            tally.observed.into(),
            tally.rpo.inside.into(),
            tally.rpo.outside.into(),
            tally.rto.inside.into(),
            tally.rto.outside.into(),
            tally.unprotected.into(),
            tally.measured.into(),
            tally.mean_exposure().into(),
            tally.worst_rpo.into(),
            bytes.into(),
            tally.worst_predicted_rto.into(),
        ],
        |_| Ok(()),
    )
}

/// The hours from `since` to `now` together, and the samples in them. Hours ahead of the clock do not count.
pub fn sum(since: DateTime<Utc>, now: DateTime<Utc>) -> Result<(Tally, i64)> {
    static SUM: Statement = Statement::new(
        "SELECT coalesce(sum(sample_count), 0)::bigint,
                (coalesce(sum(observed_seconds), 0) * 1000000)::bigint,
                (coalesce(sum(rpo_inside_seconds), 0) * 1000000)::bigint,
                (coalesce(sum(rpo_outside_seconds), 0) * 1000000)::bigint,
                (coalesce(sum(rto_inside_seconds), 0) * 1000000)::bigint,
                (coalesce(sum(rto_outside_seconds), 0) * 1000000)::bigint,
                (coalesce(sum(unprotected_seconds), 0) * 1000000)::bigint,
                (coalesce(sum(measured_seconds), 0) * 1000000)::bigint,
                coalesce(sum(avg_rpo_seconds * measured_seconds), 0)::double precision,
                (max(worst_rpo_seconds) * 1000000)::bigint, max(worst_rpo_bytes)::bigint,
                max(worst_predicted_rto_seconds)::double precision
           FROM @extschema@.recovery_hourly
          WHERE hour >= $1 AND hour <= $2 AND system_identifier = (SELECT c.system_identifier FROM pg_control_system() c)",
    );
    SUM.read(&[time(since).into(), time(now).into()], |rows| {
        let row = rows.one("sums")?;
        let number = |column| row.need::<i64>(column, "a sum");
        let tally = Tally {
            observed: number(2)?,
            rpo: Share {
                inside: number(3)?,
                outside: number(4)?,
            },
            rto: Share {
                inside: number(5)?,
                outside: number(6)?,
            },
            unprotected: number(7)?,
            measured: number(8)?,
            exposure_area: row.need(9, "a sum")?,
            worst_rpo: row.get(10)?,
            worst_rpo_bytes: row.get::<i64>(11)?.map(i64::unsigned_abs),
            worst_predicted_rto: row.get(12)?,
        };
        Ok((tally, number(1)?))
    })
}

/// Deletes hours that are older than they are kept.
pub fn prune() -> Result<()> {
    static PRUNE: Statement = Statement::new(
        "DELETE FROM @extschema@.recovery_hourly WHERE hour < clock_timestamp() - make_interval(secs => $1)",
    );
    PRUNE.write(&[KEPT.as_secs_f64().into()], |_| Ok(()))
}

/// A moment as SQL has it.
pub(super) fn time(at: DateTime<Utc>) -> Option<TimestampWithTimeZone> {
    super::archive::time(PgTimestamp::from_unix_micros(at.timestamp_micros()).0)
}
