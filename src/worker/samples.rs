//! The worker's second duty: a sample of the exposure in each tick in which anything changed.
//!
//! "Anything" is work of others. A sample is a commit too, and the server's own housekeeping answers it with records; if those
//! counted, an idle cluster would be kept awake by being watched.

use super::process;
use super::restraint::Restraint;
use crate::assessment::{Assessment, oldest_commit};
use crate::catalog::samples::{self, Sample};
use crate::error::Result;
use crate::server::{Exposure, Server};
use crate::transaction::in_transaction;
use crate::{settings, shmem};
use recovery::OldestCommit;
use std::time::{Duration, Instant};
use wal::Lsn;

const PRUNE_EVERY: Duration = Duration::from_secs(60 * 60);

/// What the worker remembers of samples from tick to tick.
#[derive(Default)]
pub struct SampleDuty {
    last: Option<Sample>,
    restraint: Restraint,
    /// The search for the oldest unprotected commit, kept while the protected position stays.
    exposure: Option<Exposure>,
    pruned: Option<Instant>,
}

impl SampleDuty {
    /// Takes a sample if anything changed.
    ///
    /// # Errors
    /// Where the facts cannot be read or the sample not be stored.
    pub fn tick(&mut self, server: &Server, unverified_segments: u64) -> Result<()> {
        let assessment = in_transaction(|| Assessment::gather(server))?;
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
            rpo_seconds: protection.rpo_seconds(&oldest, assessment.facts.now),
            rpo_bytes: protection.rpo_bytes,
            protected: protection.protected.map(|lsn| lsn.0),
            flush: server.flush.0,
            archived: protection.contiguous_to.map(|lsn| lsn.0),
            streamed: protection.received_to.map(|lsn| lsn.0),
            unverified_segments,
            ready_segments: u64::try_from(server.ready_files()?.len()).unwrap_or(u64::MAX),
        };
        if !self.is_news(server, &sample) {
            return Ok(());
        }
        let prune = self.pruned.is_none_or(|at| at.elapsed() >= PRUNE_EVERY);
        in_transaction(|| {
            samples::store(&sample)?;
            if prune {
                samples::prune(settings::sample_retention())?;
            }
            Ok(())
        })?;
        if prune {
            self.pruned = Some(Instant::now());
        }
        self.last = Some(sample);
        self.restraint.wrote();
        Ok(())
    }

    /// Whether a fact other than the clock and the extension's own writing changed since the last sample.
    ///
    /// That writing moves the flush position, and with a receiver the protected one; with archive_timeout it makes segments.
    fn is_news(&mut self, server: &Server, sample: &Sample) -> bool {
        let Some(last) = &self.last else {
            return true;
        };
        let facts = |sample: &Sample| {
            (
                sample.protected.is_some(),
                sample.archived,
                sample.rpo_seconds.map(|seconds| seconds > 0.0),
            )
        };
        let queues = |sample: &Sample| (sample.unverified_segments, sample.ready_segments);
        let since = Lsn(last.flush);
        facts(last) != facts(sample)
            || self.restraint.others_worked(server, since)
            || (queues(last) != queues(sample) && self.restraint.permits(server, since))
    }
}
