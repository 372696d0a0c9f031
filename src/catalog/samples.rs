//! Samples of how well the cluster is protected.

use super::facts::moment;
use super::hourly::time;
use super::{PgLsn, Statement};
use crate::error::Result;
use chrono::{DateTime, Utc};
use recovery::compliance::{Exposure, State};
use recovery::objectives::Objectives;
use std::time::Duration;

/// One sample; a value that is not known is NULL.
#[derive(Clone, Debug, PartialEq)]
pub struct Sample {
    /// When it was taken.
    pub at: DateTime<Utc>,
    /// Age of the oldest commit that would be lost.
    pub rpo_seconds: Option<f64>,
    /// Flushed WAL that would be lost.
    pub rpo_bytes: Option<u64>,
    /// How long a recovery would take.
    pub predicted_rto_seconds: Option<f64>,
    /// Up to where WAL is safe.
    pub protected: Option<u64>,
    /// Up to where the server has flushed.
    pub flush: u64,
    /// Up to where archived WAL is verified without a break.
    pub archived: Option<u64>,
    /// Up to where the furthest receiver has flushed.
    pub streamed: Option<u64>,
    /// Expected segments without a verdict.
    pub unverified_segments: u64,
    /// Files that the archiver has yet to send.
    pub ready_segments: u64,
}

/// Stores a sample.
pub fn store(sample: &Sample) -> Result<()> {
    static STORE: Statement = Statement::new(
        "INSERT INTO @extschema@.recovery_samples
             (sampled_at, rpo_seconds, rpo_bytes, protected_lsn, flush_lsn, archived_lsn, streamed_lsn, unverified_segments,
              ready_segments, predicted_rto_seconds)
         VALUES ($1, round($2::numeric, 3), $3, $4, $5, $6, $7, $8, $9, round($10::numeric, 3))",
    );
    let count = |count: u64| i64::try_from(count).unwrap_or(i64::MAX);
    STORE.write(
        &[
            time(sample.at).into(),
            sample.rpo_seconds.into(),
            sample.rpo_bytes.map(count).into(),
            sample.protected.map(PgLsn).into(),
            PgLsn(sample.flush).into(),
            sample.archived.map(PgLsn).into(),
            sample.streamed.map(PgLsn).into(),
            count(sample.unverified_segments).into(),
            count(sample.ready_segments).into(),
            sample.predicted_rto_seconds.into(),
        ],
        |_| Ok(()),
    )
}

/// How things stood when the newest sample was taken; one ahead of the clock does not count. The table is unlogged: a crash
/// empties it, and a standby has none.
pub fn newest(now: DateTime<Utc>, objectives: Objectives) -> Result<Option<State>> {
    static NEWEST: Statement = Statement::new(
        "SELECT sampled_at, rpo_seconds::double precision, protected_lsn IS NOT NULL, rpo_bytes,
                predicted_rto_seconds::double precision
           FROM @extschema@.recovery_samples WHERE sampled_at <= $1 ORDER BY sampled_at DESC LIMIT 1",
    );
    NEWEST.read(&[time(now).into()], |rows| {
        let Some(row) = rows.first() else {
            return Ok(None);
        };
        let Some(at) = row.get(1)?.and_then(moment) else {
            return Ok(None);
        };
        Ok(Some(State {
            at,
            exposure: Exposure::stored(at, row.get(2)?, row.need(3, "a boolean")?),
            rpo_bytes: row.get::<i64>(4)?.map(i64::unsigned_abs),
            predicted_rto: row.get(5)?,
            objectives,
        }))
    })
}

/// Deletes samples older than `retention`.
pub fn prune(retention: Duration) -> Result<()> {
    static PRUNE: Statement = Statement::new(
        "DELETE FROM @extschema@.recovery_samples WHERE sampled_at < clock_timestamp() - make_interval(secs => $1)",
    );
    PRUNE.write(&[retention.as_secs_f64().into()], |_| Ok(()))
}
