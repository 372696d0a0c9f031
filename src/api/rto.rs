//! How long recoveries would take, from SQL.

use crate::assessment::{Assessment, Depth};
use crate::catalog::{PgLsn, Text, backup, windows};
use crate::error::{Result, sayably};
use crate::memory;
use crate::server::Server;
use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::*;
use recovery::{Load, Prediction, Unpredictable};
use std::collections::{BTreeSet, HashSet};
use wal::Lsn;

/// Two rows: how long a recovery to this moment would take, and one to the moment of the current window that takes longest.
#[pg_extern(stable, parallel_restricted)]
pub fn list_rto_predictions() -> Result<
    TableIterator<
        'static,
        (
            name!(recovery_to, Text),
            name!(target_lsn, Option<PgLsn>),
            name!(backup_id, Option<i64>),
            name!(backup_bytes, Option<i64>),
            name!(wal_bytes, Option<i64>),
            name!(restore_seconds, Option<f64>),
            name!(replay_seconds, Option<f64>),
            name!(startup_seconds, Option<f64>),
            name!(predicted_rto_seconds, Option<f64>),
            name!(basis, Text),
        ),
    >,
    ErrorReport,
> {
    let server = Server::observe()?;
    let assessment = sayably(|| Assessment::of(&server, Depth::Overview))?;
    let now = assessment.survey.recovery_time.clone();
    let (worst, at) = worst(&server, &assessment)?;
    let rows = [
        ("now", assessment.facts.flush, now),
        ("the worst moment of the current window", at, worst),
    ];
    Ok(TableIterator::new(rows.into_iter().map(|(to, target, prediction)| {
        let target = target.map(|lsn| PgLsn(lsn.0));
        let bytes = |bytes: u64| i64::try_from(bytes).unwrap_or(i64::MAX);
        match prediction {
            Ok(p) => (
                to.into(),
                target,
                Some(p.load.backup),
                p.load.backup_bytes.map(bytes),
                Some(bytes(p.load.wal_bytes)),
                Some(p.restore_seconds),
                Some(p.replay_seconds),
                Some(p.startup_seconds),
                Some(p.seconds()),
                p.basis.into(),
            ),
            Err(why) => (
                to.into(),
                target,
                None,
                None,
                None,
                None,
                None,
                None,
                None,
                why.to_string().into(),
            ),
        }
    })))
}

/// The longest recovery within the current window, and the moment that it leads to.
fn worst(
    server: &Server,
    assessment: &Assessment,
) -> Result<(std::result::Result<Prediction, Unpredictable>, Option<Lsn>)> {
    let facts = &assessment.facts;
    let Some(window) = assessment.survey.current_window() else {
        return Ok((Err(Unpredictable::NoBackup), None));
    };
    if facts.rates.restore.is_none() || facts.rates.replay.is_none() {
        return Ok((assessment.survey.recovery_time.clone(), None));
    }
    let origins = windows::origins_between(
        &assessment.timelines(),
        window.from_lsn,
        window.to_lsn,
        server.system_identifier(),
    )?;
    // Sets and maps of them, which double when they grow.
    memory::require(origins.len().saturating_mul(256))?;
    let known: HashSet<i64> = origins.iter().map(|origin| origin.id).collect();
    let parents = origins.iter().filter_map(|origin| origin.parent);
    let older: BTreeSet<i64> = parents.filter(|parent| !known.contains(parent)).collect();
    let older = backup::sizes_with_parents(older.into_iter().collect())?;
    Ok(match facts.rates.longest(&origins, &older, window.to_lsn) {
        Some((origin, at)) => (
            facts.rates.predict(Load {
                backup: origin.id,
                backup_bytes: backup::size_with_parents(origin.id)?,
                wal_bytes: at.bytes_since(origin.start),
            }),
            Some(at),
        ),
        None => (Err(Unpredictable::NoBackup), None),
    })
}
