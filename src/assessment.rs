//! The facts of this moment put together, and what crate `recovery` makes of them.

use crate::access::{choose_source, trouble};
use crate::catalog::{self, facts, outline};
use crate::error::Result;

use crate::server::{self, Exposure, Server};
use crate::{settings, shmem};
use archive::Source;
use chrono::{DateTime, Utc};
use recovery::readiness::stale_after;
use recovery::{Archiver, BackupStatus, Facts, OldestCommit, Survey, Verdict, WorkerFact, assess, survey};
use wal::Lsn;

/// What can be said now.
pub struct Assessment {
    /// What it rests on.
    pub facts: Facts,
    /// What can be recovered, and how far.
    pub survey: Survey,
}

/// How much is gathered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Depth {
    /// What the worker samples: nothing that only a sentence needs.
    Protection,
    /// What a view shows. Of many backups only those are looked at that make a difference.
    Overview,
    /// As [`Depth::Overview`], and which backups each gap affects.
    Gaps,
    /// Every backup, each with its own verdict.
    Everything,
}

impl Assessment {
    /// Gathers the facts, with every backup. Reads only; needs a transaction, and works on a standby.
    #[allow(dead_code)]
    pub fn gather(server: &Server) -> Result<Self> {
        Self::of(server, Depth::Everything)
    }

    /// Gathers the facts. As [`Assessment::gather`].
    pub fn of(server: &Server, depth: Depth) -> Result<Self> {
        let archive_mode = server::setting(c"archive_mode").unwrap_or_default();
        let source = choose_source(server).map(|derived| derived.source);
        let unreadable = match &source {
            Ok(source) if depth != Depth::Protection && !is_read(source) => trouble(source, server),
            _ => None,
        };
        let history = server.history()?;
        let mut broken_histories = facts::broken_histories()?;
        // What is wrong with another branch's is no trouble of this server's.
        broken_histories.retain(|broken| history.contains(broken.timeline));
        let mut facts = Facts {
            now: Utc::now(),
            size: server.format.segment_size,
            history,
            flush: (!server.standby).then_some(server.flush),
            is_standby: server.standby,
            backups: Vec::new(),
            needs: None,
            unlisted: 0,
            broken: facts::broken_runs(server.format.segment_size, settings::archive_grace())?,
            extents: facts::extents()?,
            broken_histories,
            receivers: facts::receivers(settings::counted_receivers())?,
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
            target_rto: settings::target_rto(),
            predicted_rto: None,
        };
        load_backups(&mut facts, server, depth)?;
        let survey = survey(&facts);
        if survey.newest_usable.is_none() && depth != Depth::Protection {
            let listed = facts
                .backups
                .iter()
                .filter(|b| b.status == BackupStatus::Completed)
                .count();
            let completed = outline::completed(server.system_identifier())?;
            facts.unlisted = completed.saturating_sub(u64::try_from(listed).unwrap_or(u64::MAX));
        }
        Ok(Self { facts, survey })
    }

    /// Where a search for the oldest commit that would be lost begins; none where nothing protects, or on a standby.
    pub fn exposure(&self, server: &Server) -> Option<Exposure> {
        let protected = self.survey.protection.protected.filter(|_| !server.standby)?;
        Some(search_after(server, protected))
    }

    /// The verdict, given the oldest commit that would be lost.
    pub fn judge(&self, oldest: &OldestCommit) -> Verdict {
        assess(&self.facts, &self.survey, oldest)
    }
}

/// Loads the backups, as many as `depth` asks for.
fn load_backups(facts: &mut Facts, server: &Server, depth: Depth) -> Result<()> {
    let system = server.system_identifier();
    if depth == Depth::Everything {
        facts.backups = facts::backups(system)?;
        return Ok(());
    }
    facts.backups = outline::backups(system, &recovery::outline::lookups(facts))?;
    if depth == Depth::Gaps && !facts.broken.is_empty() {
        let ends = recovery::gaps::ends(&facts.broken);
        facts.needs = Some(outline::needs(system, &ends, &facts.history)?);
    }
    Ok(())
}

/// Whether the worker has just read this archive without any trouble, so that nobody else needs to try.
fn is_read(source: &Source) -> bool {
    let Some(status) = shmem::read() else {
        return false;
    };
    let stale = stale_after(settings::check_interval());
    let age = catalog::archive::time(status.last_tick_at)
        .and_then(facts::moment)
        .and_then(|at| Utc::now().signed_duration_since(at).to_std().ok());
    status.pid != 0
        && status.last_error.is_empty()
        && age.is_some_and(|age| age <= stale)
        && status.archive_source.starts_with(&format!("{source} ("))
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
