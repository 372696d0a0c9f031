//! Samples of how well the cluster is protected.

use super::{PgLsn, Statement};
use crate::error::Result;
use std::time::Duration;

/// One sample; a value that is not known is NULL.
#[derive(Clone, Debug, PartialEq)]
pub struct Sample {
    /// Age of the oldest commit that would be lost.
    pub rpo_seconds: Option<f64>,
    /// Flushed WAL that would be lost.
    pub rpo_bytes: Option<u64>,
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
             (rpo_seconds, rpo_bytes, protected_lsn, flush_lsn, archived_lsn, streamed_lsn, unverified_segments, ready_segments)
         VALUES (round($1::numeric, 3), $2, $3, $4, $5, $6, $7, $8)",
    );
    let count = |count: u64| i64::try_from(count).unwrap_or(i64::MAX);
    STORE.write(
        &[
            sample.rpo_seconds.into(),
            sample.rpo_bytes.map(count).into(),
            sample.protected.map(PgLsn).into(),
            PgLsn(sample.flush).into(),
            sample.archived.map(PgLsn).into(),
            sample.streamed.map(PgLsn).into(),
            count(sample.unverified_segments).into(),
            count(sample.ready_segments).into(),
        ],
        |_| Ok(()),
    )
}

/// Deletes samples older than `retention`.
pub fn prune(retention: Duration) -> Result<()> {
    static PRUNE: Statement = Statement::new(
        "DELETE FROM @extschema@.recovery_samples WHERE sampled_at < clock_timestamp() - make_interval(secs => $1)",
    );
    PRUNE.write(&[retention.as_secs_f64().into()], |_| Ok(()))
}
