//! The facts of this moment put together, and what crate `recovery` makes of them.

use crate::access::{choose_source, trouble};
use crate::catalog::{self, facts, plan};
use crate::error::Result;

use crate::server::{self, Exposure, Server};
use crate::{settings, shmem};
use chrono::{DateTime, Utc};
use recovery::plan::{Bounds, Stretch};
use recovery::{Archiver, BackupFact, Facts, OldestCommit, Survey, Usable, Verdict, WorkerFact, assess, survey};
use std::collections::HashMap;
use wal::{Handover, Lsn};

/// What can be said now.
pub struct Assessment {
    /// What it rests on.
    pub facts: Facts,
    /// What can be recovered, and how far.
    pub survey: Survey,
}

impl Assessment {
    /// Gathers the facts. Reads only; needs a transaction, and works on a standby.
    pub fn gather(server: &Server) -> Result<Self> {
        let archive_mode = server::setting(c"archive_mode").unwrap_or_default();
        let source = choose_source(server).map(|derived| derived.source);
        let unreadable = source.as_ref().ok().and_then(|source| trouble(source, server));
        let history = server.history()?;
        let mut broken_histories = facts::broken_histories()?;
        // What is wrong with another branch's is no trouble of this server's.
        broken_histories.retain(|broken| history.contains(broken.timeline));
        let facts = Facts {
            now: Utc::now(),
            size: server.format.segment_size,
            history,
            flush: (!server.standby).then_some(server.flush),
            is_standby: server.standby,
            backups: facts::backups(server.system_identifier())?,
            broken: facts::broken_runs(server.format.segment_size, settings::archive_grace())?,
            extents: facts::extents()?,
            broken_histories,
            receivers: facts::receivers()?,
            archiver: Archiver {
                mode_on: matches!(archive_mode.as_str(), "on" | "always"),
                source: source
                    .map(|source| source.to_string())
                    .map_err(|error| error.to_string()),
                unreadable,
                failing: facts::archiver_failure()?,
                grace: settings::archive_grace(),
            },
            worker: worker_fact()?,
            target_rpo: settings::target_rpo(),
            target_rto: None,
            predicted_rto: None,
        };
        let survey = survey(&facts);
        Ok(Self { facts, survey })
    }

    /// Where a search for the oldest commit that would be lost begins; none where nothing protects, or on a standby.
    pub fn exposure(&self, server: &Server) -> Option<Exposure> {
        let protected = self.survey.protection.protected.filter(|_| !server.standby)?;
        Some(search_after(server, protected))
    }

    /// The exact ends of a window: its first and last moment, and the first and last `recovery_target_lsn` that work.
    pub fn bounds(&self, stretch: &Stretch) -> Result<Bounds> {
        // A record can fill so many segments that none of them holds the end of another; those of more than this are not met.
        const SEGMENTS: i64 = 64;
        let ranges = stretch.ranges(Lsn(0));
        let from_time = stretch.origins.first().and_then(|origin| origin.consistent_time);
        let last_record = plan::last_handovers(&ranges, SEGMENTS)?
            .iter()
            .filter_map(|bytes| Handover::from_bytes(bytes).ok()?.last_record())
            .next();
        Ok(Bounds {
            from_time,
            // Without a commit since, the end of the backup is the last moment that can be reached.
            to_time: plan::last_commit(&ranges)?.max(from_time),
            from_lsn: stretch.bounds.from_lsn,
            to_lsn: last_record
                .unwrap_or(stretch.bounds.to_lsn)
                .max(stretch.bounds.from_lsn),
        })
    }

    /// For each backup a time at which it was consistent: its end, or a later commit in the segments that it needs, since no commit
    /// before its end may be later than a time to recover to.
    pub fn consistent_times(&self, backups: &[&Usable]) -> Result<HashMap<i64, DateTime<Utc>>> {
        let size = self.facts.size.bytes();
        let by_id: HashMap<i64, &BackupFact> = self.facts.backups.iter().map(|fact| (fact.id, fact)).collect();
        let facts: Vec<&BackupFact> = backups
            .iter()
            .filter_map(|usable| by_id.get(&usable.id).copied())
            .collect();
        let ranges: Vec<_> = facts
            .iter()
            .map(|fact| {
                let end = fact.end.unwrap_or_default();
                let behind = Lsn(end.0.div_ceil(size).saturating_mul(size));
                (fact.timeline, fact.start.unwrap_or(end), behind)
            })
            .collect();
        let latest = plan::latest_commits(&ranges)?;
        Ok(facts
            .iter()
            .zip(latest)
            .filter_map(|(fact, latest)| Some((fact.id, fact.finished_at.max(latest)?)))
            .collect())
    }

    /// The verdict, given the oldest commit that would be lost.
    pub fn judge(&self, oldest: &OldestCommit) -> Verdict {
        assess(&self.facts, &self.survey, oldest)
    }
}

/// A search for commits of others behind `from`, which begins behind what the worker has searched already.
pub fn search_after(server: &Server, from: Lsn) -> Exposure {
    match shmem::read() {
        Some(status) if (status.clear_from..=status.clear_to).contains(&from.0) => {
            Exposure::resumed(server, from, Lsn(status.clear_to))
        }
        _ => Exposure::after(server, from),
    }
}

/// The first commit behind the protected position, or why it is not known.
pub fn oldest_commit(server: &Server, exposure: Option<&mut Exposure>, between: &mut dyn FnMut()) -> OldestCommit {
    let Some(exposure) = exposure else {
        return OldestCommit::None;
    };
    match exposure.measure(server, between) {
        Ok(None) => OldestCommit::None,
        Ok(Some(commit)) => match commit
            .at
            .and_then(|at| DateTime::from_timestamp_micros(at.unix_micros()))
        {
            Some(at) => OldestCommit::At(at),
            None => OldestCommit::Unknown(format!("the commit at {} has no time", commit.lsn)),
        },
        Err(error) => OldestCommit::Unknown(error.to_string()),
    }
}

fn worker_fact() -> Result<WorkerFact> {
    let (last_tick_at, error) = match shmem::read() {
        Some(status) => (
            catalog::archive::time(status.last_tick_at).filter(|_| status.last_tick_at != 0),
            Some(status.last_error.as_str().to_owned()).filter(|error| !error.is_empty()),
        ),
        None => (
            catalog::worker::running()?.and_then(|running| running.last_tick_at),
            None,
        ),
    };
    Ok(WorkerFact {
        last_tick_at: last_tick_at.and_then(facts::moment),
        check_interval: settings::check_interval(),
        error,
    })
}
