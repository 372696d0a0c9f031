//! The facts of this moment put together, and what crate `recovery` makes of them.

use crate::access::{choose_source, is_filled_by_archiver};
use crate::catalog::{self, candidates, facts, ledger, outline, plan, windows};
use crate::error::{Error, Result};

use crate::server::{self, Exposure, Server};
use crate::{memory, settings, shmem};
use archive::Source;
use chrono::{DateTime, Utc};
use pgrx::datum::TimestampWithTimeZone;
use recovery::plan::Bounds;
use recovery::{
    Archiver, BackupFact, BackupStatus, EndedBy, Facts, Need, OldestCommit, Rates, Survey, Usable, Verdict, Window,
    WorkerFact, assess, survey,
};
use std::collections::{HashMap, HashSet};
use std::time::Instant;
use wal::{Lsn, PgTimestamp, Timeline};

/// A commit may carry a time that lies so far ahead.
const CLOCK_TOLERANCE: chrono::TimeDelta = chrono::TimeDelta::seconds(1);

/// What can be said now.
pub struct Assessment {
    /// What it rests on.
    pub facts: Facts,
    /// What can be recovered, and how far.
    pub survey: Survey,
    /// When [`Facts::now`] was read, by a clock that nobody sets.
    pub looked_at: Instant,
}

/// How much is gathered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Depth {
    /// What the worker samples: nothing that only a sentence needs.
    Protection,
    /// What a view shows. Of many backups only those are looked at that make a difference.
    Overview,
    /// As [`Depth::Overview`], and of the backups that each gap affects as many as a sentence tells of.
    Verdict,
    /// As [`Depth::Overview`], and whether each gap affects any backup.
    Gaps,
}

impl Assessment {
    /// Gathers the facts. Reads only; needs a transaction, and works on a standby.
    pub fn of(server: &Server, depth: Depth) -> Result<Self> {
        let archive_mode = server::setting(c"archive_mode").unwrap_or_default();
        let mode_on = matches!(archive_mode.as_str(), "on" | "always");
        let source = choose_source(server).map(|derived| derived.source);
        let unreadable = source.as_ref().ok().and_then(unreadable);
        // What was archived before still counts, and nothing follows it.
        let source = if mode_on || server.standby || !is_filled_by_archiver() {
            source
        } else {
            Err(Error::Archive("archive_mode is off".to_owned()))
        };
        let history = server.history()?;
        let mut broken_histories = facts::broken_histories()?;
        // What is wrong with another branch's is no trouble of this server's.
        broken_histories.retain(|broken| history.contains(broken.timeline));
        let looked_at = Instant::now();
        let mut facts = Facts {
            now: Utc::now(),
            size: server.format.segment_size,
            history,
            flush: (!server.standby).then_some(server.flush),
            is_standby: server.standby,
            backups: Vec::new(),
            needs: None,
            unlisted: 0,
            put_in_by_sql: None,
            broken: facts::broken_runs(server.format.segment_size, settings::archive_grace())?,
            extents: facts::extents()?,
            broken_histories,
            receivers: facts::receivers(settings::counted_receivers())?,
            archiver: Archiver {
                mode_on,
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
            rates: Rates::of(&catalog::recovery::measured()?),
        };
        load_backups(&mut facts, server, depth)?;
        memory::require(room_for_sums(&facts))?;
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
        if let (Some(newest), Depth::Verdict) = (survey.newest_usable, depth) {
            facts.put_in_by_sql = ledger::put_in_by_sql(newest)?;
        }
        Ok(Self {
            facts,
            survey,
            looked_at,
        })
    }

    /// Looks at these backups too, and at those that they build on.
    pub fn add_backups(&mut self, server: &Server, ids: &[i64]) -> Result<()> {
        let more = candidates::with_parents(server.system_identifier(), ids)?;
        let known: HashSet<i64> = self.facts.backups.iter().map(|backup| backup.id).collect();
        let backups = &mut self.facts.backups;
        backups.extend(more.into_iter().filter(|backup| !known.contains(&backup.id)));
        backups.sort_by_key(|backup| backup.id);
        memory::require(room_for_sums(&self.facts))?;
        self.survey = survey(&self.facts);
        Ok(())
    }

    /// Where a search for the oldest commit that would be lost begins; none where nothing protects, or on a standby.
    pub fn exposure(&self, server: &Server) -> Option<Exposure> {
        let protected = self.survey.protection.protected.filter(|_| !server.standby)?;
        Some(search_after(server, protected))
    }

    /// For each backup the first moment that it can be recovered to: the latest commit or abort in the segments that it needs to be
    /// consistent, since recovery to an earlier time would stop there. Where nothing happened meanwhile, its end.
    pub fn consistent_times(&self, backups: &[&Usable]) -> Result<HashMap<i64, DateTime<Utc>>> {
        let by_id: HashMap<i64, &BackupFact> = self.facts.backups.iter().map(|fact| (fact.id, fact)).collect();
        let facts: Vec<&BackupFact> = backups
            .iter()
            .filter_map(|usable| by_id.get(&usable.id).copied())
            .collect();
        self.consistent_times_of(&facts)
    }

    /// The same of usable backups by their facts.
    pub fn consistent_times_of(&self, facts: &[&BackupFact]) -> Result<HashMap<i64, DateTime<Utc>>> {
        let size = self.facts.size.bytes();
        let ranges: Vec<_> = facts
            .iter()
            .map(|fact| {
                let end = fact.end.unwrap_or_default();
                let behind = Lsn(end.0.div_ceil(size).saturating_mul(size));
                (fact.timeline, fact.start.unwrap_or(end), behind)
            })
            .collect();
        let latest = plan::latest_xacts(&ranges)?;
        Ok(facts
            .iter()
            .zip(latest)
            .filter_map(|(fact, latest)| Some((fact.id, latest.or(fact.finished_at)?)))
            .collect())
    }

    /// What all backups need that gaps may affect.
    pub fn needs(&self, server: &Server) -> Result<Vec<Need>> {
        if self.survey.gaps.is_empty() {
            return Ok(Vec::new());
        }
        outline::needs(
            server.system_identifier(),
            &self.facts.broken,
            &self.facts.history,
            None,
        )
    }

    /// The verdict, given the oldest commit that would be lost.
    pub fn judge(&self, oldest: &OldestCommit) -> Verdict {
        assess(&self.facts, &self.survey, oldest)
    }
}

impl Assessment {
    /// The timelines of the server's history, oldest first.
    pub fn timelines(&self) -> Vec<Timeline> {
        let history = &self.facts.history;
        let ancestors = history.entries().iter().map(|entry| entry.timeline);
        ancestors.chain([history.timeline()]).collect()
    }

    /// Where exactly a window begins and ends, as a recovery would find it.
    pub fn bounds(&self, window: &Window) -> Result<Bounds> {
        let origin = self
            .survey
            .backup(window.backup_id)
            .and_then(|verdict| verdict.as_ref().ok());
        let origins: Vec<&Usable> = origin.into_iter().collect();
        let from_time = self.consistent_times(&origins)?.remove(&window.backup_id);
        let history = &self.facts.history;
        // What an ancestor has behind the point where it was left is no part of the way, nor is its own copy of that segment.
        let segment = self.facts.size.bytes();
        let ancestors = history.entries().iter().rev().map(|entry| {
            let left = Lsn(entry.switch_lsn.0 - entry.switch_lsn.0 % segment);
            (entry.timeline, left.min(window.to_lsn))
        });
        let own = ancestors.filter(|(timeline, _)| *timeline < window.timeline && history.contains(window.timeline));
        let mut to_time = None;
        for (timeline, to) in std::iter::once((window.timeline, window.to_lsn)).chain(own) {
            to_time = windows::last_commit_between(timeline, window.from_lsn, to)?;
            if to_time.is_some() {
                break;
            }
        }
        let head = match &window.ended_by {
            EndedBy::Gap { segment, .. } if segment.timeline == window.timeline => windows::sound_head(segment)?,
            _ => None,
        };
        let last_record = match head {
            Some((start, at)) => {
                to_time = at.or(to_time);
                Some(start)
            }
            None => windows::last_record_before(window.timeline, window.to_lsn)?,
        };
        Ok(Bounds {
            from_time,
            // Without a commit since, the end of the backup is the last moment that can be reached.
            to_time: to_time.max(from_time),
            from_lsn: window.from_lsn,
            to_lsn: last_record.map_or(window.to_lsn, |start| start.max(window.from_lsn)),
        })
    }
}

/// As SQL has it.
pub fn timestamp(at: DateTime<Utc>) -> Option<TimestampWithTimeZone> {
    catalog::archive::time(PgTimestamp::from_unix_micros(at.timestamp_micros()).0)
}

/// Loads the backups, as many as `depth` asks for.
fn load_backups(facts: &mut Facts, server: &Server, depth: Depth) -> Result<()> {
    let system = server.system_identifier();
    facts.backups = outline::backups(system, &recovery::outline::lookups(facts))?;
    let limit = match depth {
        Depth::Verdict => recovery::outline::COUNTED,
        Depth::Gaps => 1,
        Depth::Protection | Depth::Overview => return Ok(()),
    };
    if !facts.broken.is_empty() {
        facts.needs = Some(outline::needs(system, &facts.broken, &facts.history, Some(limit))?);
    }
    Ok(())
}

/// Why the worker cannot read this archive, if it cannot: nobody else tries, for the archive's disk need not answer.
fn unreadable(source: &Source) -> Option<String> {
    let status = shmem::read().filter(|status| status.pid != 0)?;
    let is_of_source = status.archive_source.starts_with(&format!("{source} ("));
    Some(status.archive_error.as_str().to_owned()).filter(|error| is_of_source && !error.is_empty())
}

/// What a survey of these facts and what follows from it take at most, bytes: some thousand for each fact, for each may become a window
/// or a gap, and be sorted and told of.
fn room_for_sums(facts: &Facts) -> usize {
    const EACH: usize = 4096;
    let lists = [
        facts.backups.len(),
        facts.broken.len(),
        facts.extents.len(),
        facts.history.entries().len(),
    ];
    let each = lists.iter().sum::<usize>().saturating_mul(EACH);
    // Every gap lists backups that it affects.
    let ids: usize = facts.needs.iter().flatten().map(|need| need.ids.len()).sum();
    let listed = facts
        .broken
        .len()
        .saturating_mul(ids.min(2 * recovery::outline::COUNTED));
    each.saturating_add(listed.saturating_mul(2 * size_of::<i64>()))
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
            Some(at) if at > Utc::now() + CLOCK_TOLERANCE => OldestCommit::Unknown(format!(
                "the commit at {} was made at {}, which is still to come: the clock was set back",
                commit.lsn,
                at.format("%Y-%m-%d %H:%M:%S UTC")
            )),
            Some(at) => OldestCommit::At(at),
            None => OldestCommit::Unknown(format!("the commit at {} has no time", commit.lsn)),
        },
        Err(error) => OldestCommit::Unknown(error.to_string()),
    }
}

fn worker_fact() -> Result<WorkerFact> {
    let (last_tick_at, error, not_started) = match shmem::read() {
        Some(status) => (
            catalog::archive::time(status.last_tick_at).filter(|_| status.last_tick_at != 0),
            Some(status.last_error.as_str().to_owned()).filter(|error| !error.is_empty()),
            status.why_not_started(),
        ),
        None => {
            let running = catalog::worker::running()?;
            let error = running.as_ref().and_then(|running| running.error.clone());
            (running.and_then(|running| running.last_tick_at), error, None)
        }
    };
    Ok(WorkerFact {
        last_tick_at: last_tick_at.and_then(facts::moment),
        check_interval: settings::check_interval(),
        error,
        not_started,
    })
}
