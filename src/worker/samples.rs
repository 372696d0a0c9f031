//! The worker's second duty: a sample of the exposure in each tick in which anything changed, and the sums over the time since.
//!
//! "Anything" is work of others. A sample is a commit too, and the server's own housekeeping answers it with records; if those
//! counted, an idle cluster would be kept awake by being watched. One sample an hour is taken all the same: it makes known for good
//! that somebody has watched.

use super::process;
use super::restraint::Restraint;
use super::watch::{self, Held, Watch};
use crate::assessment::{Assessment, Depth, oldest_commit};
use crate::catalog::hourly;
use crate::catalog::samples::{self, Sample};
use crate::error::Result;
use crate::server::{Exposure, Server};
use crate::transaction::in_transaction;
use crate::{settings, shmem};
use chrono::{DateTime, Utc};
use recovery::compliance::{self, State, Stretch, Tally};
use recovery::{OldestCommit, Prediction};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};
use wal::Lsn;

const PRUNE_EVERY: Duration = Duration::from_secs(60 * 60);
/// A sample is never older than this while the worker looks.
pub const SAMPLE_EVERY: Duration = Duration::from_secs(60 * 60);
/// A state that held for longer than hours are kept is summed up for the hours that are.
const MOST_HOURS: usize = hourly::KEPT.as_secs() as usize / 3600;

/// What the worker remembers of samples from tick to tick.
#[derive(Default)]
pub struct SampleDuty {
    last: Option<Last>,
    /// What the worker before this one saw last; none once that is summed up, or where there was nothing.
    inherited: Option<Stretch>,
    has_inherited: bool,
    restraint: Restraint,
    /// The search for the oldest unprotected commit, kept while the protected position stays.
    exposure: Option<Exposure>,
    pruned: Option<Instant>,
}

/// The newest sample, and what was seen since.
struct Last {
    sample: Sample,
    state: State,
    newest_usable: Option<i64>,
    taken: Instant,
    watch: Watch,
}

impl SampleDuty {
    /// Takes a sample if anything changed.
    ///
    /// # Errors
    /// Where the facts cannot be read or the sample not be stored.
    pub fn tick(&mut self, server: &Server, unverified_segments: u64) -> Result<()> {
        let assessment = in_transaction(|| Assessment::of(server, Depth::Protection))?;
        let now = assessment.facts.now;
        if !self.has_inherited {
            self.inherited = in_transaction(|| inherited(now))?;
            self.has_inherited = true;
        }
        let protection = assessment.survey.protection;
        if self.exposure.as_ref().map(Exposure::protected) != protection.protected {
            self.exposure = assessment.exposure(server);
        }
        let oldest = oldest_commit(server, self.exposure.as_mut(), &mut process::answer_interrupts);
        if let (OldestCommit::None, Some(exposure)) = (&oldest, &self.exposure) {
            shmem::update(|status| {
                status.clear_from = exposure.protected().0;
                status.clear_to = exposure.clear_to().0;
            });
        }
        let sample = Sample {
            at: now,
            rpo_seconds: protection.rpo_seconds(&oldest, now),
            rpo_bytes: protection.rpo_bytes,
            predicted_rto_seconds: assessment.survey.recovery_time.as_ref().map(Prediction::seconds).ok(),
            protected: protection.protected.map(|lsn| lsn.0),
            flush: server.flush.0,
            archived: protection.contiguous_to.map(|lsn| lsn.0),
            streamed: protection.received_to.map(|lsn| lsn.0),
            unverified_segments,
            ready_segments: u64::try_from(server.ready_files()?.len()).unwrap_or(u64::MAX),
        };
        let seen = Last {
            state: State {
                at: now,
                exposure: compliance::Exposure::of(protection.protected.is_some(), &oldest),
                rpo_bytes: sample.rpo_bytes,
                predicted_rto: sample.predicted_rto_seconds,
                objectives: settings::objectives(),
            },
            sample,
            newest_usable: assessment.survey.newest_usable,
            taken: assessment.looked_at,
            watch: Watch::at(now, assessment.looked_at),
        };
        let held = self
            .last
            .as_ref()
            .map(|last| seen.watch.after(&last.watch, settings::check_interval()));
        let is_news = self.is_news(server, &seen);
        if let (Some(last), Some(held)) = (&mut self.last, held)
            && held.unbroken
            && !is_news
        {
            last.watch = seen.watch;
            watch::publish(last.state.at, held.to);
            return Ok(());
        }
        self.store(seen, held)
    }

    /// Stores a sample, and adds the time since the one before to the hours that it lies in.
    fn store(&mut self, seen: Last, held: Option<Held>) -> Result<()> {
        let mut since: Vec<Stretch> = self.inherited.into_iter().collect();
        if let (Some(last), Some(held)) = (&self.last, held) {
            let after = held.unbroken.then_some(&seen.state);
            since.extend(compliance::stretches(&last.state, held.to, after));
        }
        let prune = self.pruned.is_none_or(|at| at.elapsed() >= PRUNE_EVERY);
        in_transaction(|| {
            samples::store(&seen.sample)?;
            sum_up(&since, seen.state.at)?;
            if prune {
                samples::prune(settings::sample_retention())?;
                hourly::prune()?;
            }
            Ok(())
        })?;
        if prune {
            self.pruned = Some(Instant::now());
        }
        watch::publish(seen.state.at, seen.state.at);
        self.inherited = None;
        self.last = Some(seen);
        self.restraint.wrote();
        Ok(())
    }

    /// Whether a fact other than the clock and the extension's own writing changed since the last sample.
    ///
    /// That writing moves the flush position, and with a receiver the protected one; with archive_timeout it makes segments.
    fn is_news(&mut self, server: &Server, seen: &Last) -> bool {
        let Some(last) = &self.last else {
            return true;
        };
        let facts = |seen: &Last| {
            (
                seen.sample.archived,
                seen.state.exposure,
                seen.newest_usable,
                seen.state.objectives,
            )
        };
        let queues = |seen: &Last| (seen.sample.unverified_segments, seen.sample.ready_segments);
        let since = Lsn(last.sample.flush);
        facts(last) != facts(seen)
            || last.taken.elapsed() >= SAMPLE_EVERY
            || self.restraint.others_worked(server, since)
            || (queues(last) != queues(seen) && self.restraint.permits(server, since))
    }
}

/// The time for which the sample of the worker before this one is known to have held. Needs a transaction.
fn inherited(now: DateTime<Utc>) -> Result<Option<Stretch>> {
    let Some(state) = samples::newest(now, settings::objectives())? else {
        return Ok(None);
    };
    Ok(watch::held_to(state.at).map(|held_to| Stretch {
        state,
        from: state.at,
        to: held_to.min(now),
    }))
}

/// Adds stretches of time to the hours that they lie in, and a sample to that in which it was taken. What is summed up already
/// is not summed up again, whatever the clock said meanwhile. Needs a transaction.
fn sum_up(stretches: &[Stretch], sampled_at: DateTime<Utc>) -> Result<()> {
    let this_hour = compliance::hour_of(sampled_at);
    let mut hours: BTreeMap<DateTime<Utc>, (DateTime<Utc>, Tally)> = BTreeMap::new();
    let parts = stretches
        .iter()
        .flat_map(|stretch| compliance::by_hour(stretch, MOST_HOURS));
    for (hour, part) in parts {
        let counted_to = match hours.get(&hour) {
            Some((counted_to, _)) => *counted_to,
            None => hourly::counted_to(hour)?.unwrap_or(hour),
        };
        let (to, tally) = hours.entry(hour).or_insert((counted_to, Tally::default()));
        tally.add(&part.state.tally(part.from.max(counted_to), part.to));
        *to = part.to.max(counted_to);
    }
    hours.entry(this_hour).or_insert((sampled_at, Tally::default()));
    for (hour, (counted_to, tally)) in hours {
        hourly::add(hour, counted_to, &tally, i64::from(hour == this_hour))?;
    }
    Ok(())
}
