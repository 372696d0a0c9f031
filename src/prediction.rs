//! How long a recovery that begins now is expected to take, to be kept beside what it took.

use crate::assessment::{Assessment, Depth};
use crate::catalog::recovery::Started;
use crate::catalog::{backup, windows};
use crate::error::Result;
use crate::server::Server;
use recovery::{Load, Rates};
use wal::Lsn;

/// The expected duration of a recovery, in seconds; none where too little was measured, or it is not known how much WAL lies
/// between the backup and the target.
pub fn predict(server: &Server, recovery: &Started<'_>) -> Result<Option<f64>> {
    let assessment = Assessment::of(server, Depth::Protection)?;
    let Some(id) = recovery.backup.or(assessment.survey.newest_usable) else {
        return Ok(None);
    };
    let Some((start, target)) = backup::start_lsn(id)?.zip(target(&assessment, recovery)?) else {
        return Ok(None);
    };
    seconds(&assessment.facts.rates, id, target.bytes_since(start))
}

/// The same where it is known how much WAL is replayed.
pub fn seconds(rates: &Rates, backup: i64, wal_bytes: u64) -> Result<Option<f64>> {
    let load = Load {
        backup,
        backup_bytes: backup::size_with_parents(backup)?,
        wal_bytes,
    };
    Ok(rates.predict(load).ok().map(|predicted| predicted.seconds()))
}

/// Where the recovery has to get; without a target, to the end of WAL.
fn target(assessment: &Assessment, recovery: &Started<'_>) -> Result<Option<Lsn>> {
    if let Some(lsn) = recovery.target_lsn {
        return Ok(Some(Lsn(lsn.0)));
    }
    if let Some(time) = recovery.target_time {
        return windows::committed_by(&assessment.timelines(), time);
    }
    if let Some(name) = recovery.target_name {
        return windows::restore_point(&assessment.timelines(), name);
    }
    if recovery.target_xid.is_some() || recovery.recovery_type == "immediate" {
        return Ok(None);
    }
    Ok(assessment.facts.flush)
}
