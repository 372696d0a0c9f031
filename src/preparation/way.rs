//! The way from the backup to the target: its WAL, its window, its timeline.

use chrono::{DateTime, Utc};
use recovery::prepare::{Outside, Stretch, Target, nearest};
use recovery::{BackupFact, BackupStatus, BackupType, Facts, Unusable, Usable, Verification, Window, survey};
use wal::{SegmentName, Timeline};

use super::backup::Seen;
use super::{Checks, Status};
use crate::assessment::Assessment;
use crate::base_backup::OwnWal;
use crate::catalog::candidates;
use crate::catalog::prepare::Recorded;
use crate::error::Result;
use crate::server::Server;

/// Stands for a backup that is not on record.
const NOT_RECORDED: i64 = i64::MAX;

/// What a recovery from the backup would find.
pub struct Way {
    fact: Option<BackupFact>,
    verdict: Result<Usable, String>,
    stretch: Option<Stretch>,
    /// What the WAL inside the backup lacks.
    own_wal: Option<String>,
    /// Whether the backup was there to be looked into.
    seen: bool,
}

impl Way {
    /// Finds it: as the survey of all backups does, but by what the backup itself says now.
    pub fn find(
        server: &Server,
        assessment: &Assessment,
        recorded: Option<&Recorded>,
        seen: Option<&Seen>,
        parent: Option<i64>,
    ) -> Result<Self> {
        let nothing = |why: &str| Self {
            fact: None,
            verdict: Err(why.to_owned()),
            stretch: None,
            own_wal: None,
            seen: seen.is_some(),
        };
        if seen.is_some_and(|seen| seen.is_foreign) {
            return Ok(nothing("The backup is another cluster's."));
        }
        let system = server.system_identifier();
        let known = match recorded {
            Some(recorded) => candidates::with_parents(system, &[recorded.id])?
                .into_iter()
                .find(|fact| fact.id == recorded.id),
            None => None,
        };
        let mut fact = match (known, seen) {
            (Some(known), _) => known,
            (None, None) => return Ok(nothing("There is no base backup whose WAL could be looked for.")),
            (None, Some(seen)) => unrecorded(seen, parent),
        };
        let mut lacking = None;
        if let Some(seen) = seen {
            if let Some(label) = &seen.label {
                (fact.start, fact.timeline) = (Some(label.start), label.timeline);
                if label.incremental_from.is_some() && !fact.backup_type.needs_parent() {
                    fact.backup_type = BackupType::Incremental;
                }
                fact.parent_id = fact.parent_id.or(parent);
            }
            let range = seen.range();
            fact.wal_included = false;
            if let Some(range) = range {
                (fact.start, fact.end, fact.timeline) = (Some(range.start), Some(range.end), range.timeline);
                match &seen.own_wal {
                    Some(OwnWal::Whole) => fact.wal_included = true,
                    Some(OwnWal::Absent) | None => {}
                    Some(OwnWal::Faulty(why) | OwnWal::Foreign(why) | OwnWal::OutOfReach(why)) => {
                        lacking = Some(why.clone());
                    }
                }
            }
        }
        // No other backup has a say in whether this one can be recovered from.
        let parents: Vec<i64> = fact.parent_id.into_iter().collect();
        let mut backups = candidates::with_parents(system, &parents)?;
        backups.retain(|backup| backup.id != fact.id);
        backups.push(fact.clone());
        let facts = Facts {
            backups,
            ..assessment.facts.clone()
        };
        let survey = survey(&facts);
        let own = Assessment {
            facts,
            survey,
            looked_at: assessment.looked_at,
        };
        let verdict: Result<Usable, Unusable> = match own.survey.backup(fact.id) {
            Some(verdict) => verdict.clone(),
            None => Err(Unusable::RangeUnknown),
        };
        let stretch = match &verdict {
            Ok(usable) => Some(stretch(
                &own,
                &Window {
                    timeline: usable.reach_timeline,
                    backup_id: fact.id,
                    backups: vec![fact.id],
                    from_lsn: usable.consistent_at,
                    to_lsn: usable.reach,
                    ended_by: usable.ended_by.clone(),
                    is_current: false,
                },
            )?),
            Err(_) => None,
        };
        Ok(Self {
            verdict: verdict.map_err(|why| match &why {
                Unusable::NotCompleted(_) => format!("the ledger says of the backup that {why}"),
                why => why.to_string(),
            }),
            fact: Some(fact),
            stretch,
            own_wal: lacking,
            seen: seen.is_some(),
        })
    }

    /// WAL, target and timeline.
    pub fn check(&self, assessment: &Assessment, target: Target, checks: &mut Checks) -> Result<()> {
        let (usable, stretch) = match (&self.verdict, &self.stretch) {
            (Ok(usable), Some(stretch)) => (usable, stretch),
            (verdict, _) => {
                let why = verdict.as_ref().err().map_or("nothing is known of it", String::as_str);
                let own = self.own_wal.as_ref().map_or(String::new(), |own| format!("; {own}"));
                if self.fact.is_some() {
                    checks.add("wal", Status::Failed, format!("{why}{own}"));
                    let others = nearest(target, &self.others(assessment)?);
                    let found = match target {
                        Target::Latest => "nothing can be reached from this backup".to_owned(),
                        _ => format!("nothing can be reached from this backup; {others}"),
                    };
                    checks.add("target", Status::Failed, found);
                    checks.skip(&["timeline"], "From this backup there is no way to any timeline.");
                } else {
                    checks.skip(&["wal", "target", "timeline"], why);
                }
                return Ok(());
            }
        };
        let reached = stretch.reaches(target);
        self.check_wal(usable, stretch, target, reached, checks);
        match reached {
            Ok(()) if matches!(target, Target::Time(time) if Some(time) == stretch.to_time) => {
                let found = format!(
                    "{}; it is the very last commit, and a recovery to a time fails where no later one makes it stop: set \
                     recovery_target_lsn = '{}' instead",
                    in_words(target, stretch),
                    stretch.to_lsn
                );
                checks.add("target", Status::Warning, found);
            }
            Ok(()) => checks.add("target", Status::Passed, in_words(target, stretch)),
            Err(outside) => {
                let where_to = match outside {
                    Outside::Before => "it lies before this backup is consistent",
                    Outside::Behind => "it lies behind what can be reached from this backup",
                    Outside::Unknown => "when this backup was consistent is not known",
                };
                let mut all = self.others(assessment)?;
                all.push(*stretch);
                let found = format!("{where_to} ({}); {}", ends(target, stretch), nearest(target, &all));
                // Of a backup that is not on record there is no number to give.
                let found = found.replace(&format!(" (backup {NOT_RECORDED})"), " (this backup)");
                checks.add("target", Status::Failed, found);
            }
        }
        check_timeline(usable, checks);
        Ok(())
    }

    fn check_wal(
        &self,
        usable: &Usable,
        stretch: &Stretch,
        target: Target,
        reached: Result<(), Outside>,
        checks: &mut Checks,
    ) {
        let included = self.fact.as_ref().is_some_and(|fact| fact.wal_included);
        let own = match (included, &self.own_wal) {
            (true, _) if !self.seen => "by the ledger, the WAL that makes it consistent is inside it".to_owned(),
            (true, _) => "the WAL that makes it consistent is inside it, and sound".to_owned(),
            (false, None) => "the WAL that makes it consistent is in the archive, and verified".to_owned(),
            (false, Some(lacking)) => {
                format!("the WAL that makes it consistent is in the archive, and verified ({lacking})")
            }
        };
        let reach = format!(
            "{own}; WAL follows without a break to LSN {}, ended by: {}",
            stretch.to_lsn, usable.ended_by
        );
        let status = match (target, reached) {
            (_, Err(Outside::Behind)) => Status::Failed,
            // Recovery would go as far as this, and end there without a word.
            (Target::Latest, _) if !usable.ended_by.is_open() => Status::Warning,
            _ => Status::Passed,
        };
        checks.add("wal", status, reach);
    }

    /// How much WAL a recovery replays, bytes.
    pub fn wal_bytes(&self, target: Target) -> u64 {
        let start = self.fact.as_ref().and_then(|fact| fact.start);
        let reach = self.verdict.as_ref().ok().map(|usable| usable.reach);
        let end = match (target, reach) {
            (Target::Lsn(lsn), Some(reach)) => Some(lsn.min(reach)),
            (_, reach) => reach,
        };
        start.zip(end).map_or(0, |(start, end)| end.bytes_since(start))
    }

    /// The first segment that recovery asks `restore_command` for; none where it can do without.
    pub fn first_needed(&self, server: &Server) -> Result<Option<SegmentName>> {
        let Some(fact) = &self.fact else { return Ok(None) };
        let usable = self.verdict.as_ref().ok();
        if fact.wal_included && usable.is_none_or(|usable| Some(usable.reach) <= fact.end) {
            return Ok(None);
        }
        let size = server.format.segment_size;
        let Some(segment) = recovery::backups::first_needed(fact, size) else {
            return Ok(None);
        };
        if usable.is_some_and(|usable| usable.on_history) {
            return Ok(Some(
                segment.on(server.history()?.timeline_of_segment(segment.number, size)),
            ));
        }
        Ok(Some(segment))
    }

    /// What other backups reach.
    fn others(&self, assessment: &Assessment) -> Result<Vec<Stretch>> {
        assessment
            .survey
            .windows
            .iter()
            .map(|window| stretch(assessment, window))
            .collect()
    }
}

fn check_timeline(usable: &Usable, checks: &mut Checks) {
    if !usable.on_history {
        let found = format!(
            "the backup is of timeline {}, which the server has left: recovery leads to a past that it does not share; \
             set recovery_target_timeline = '{}'",
            usable.timeline, usable.reach_timeline
        );
        checks.add("timeline", Status::Warning, found);
        return;
    }
    // That of the whole way, wherever on it the target lies: the segment in which a timeline began is there under its name only.
    let timeline = usable.reach_timeline;
    let found = format!(
        "from timeline {} to timeline {timeline}, on this server's own history: recovery_target_timeline = '{timeline}'",
        usable.timeline
    );
    checks.add("timeline", Status::Passed, found);
}

/// The backup as it speaks for itself.
fn unrecorded(seen: &Seen, parent: Option<i64>) -> BackupFact {
    let label = seen.label.as_ref();
    BackupFact {
        id: NOT_RECORDED,
        backup_type: match label.and_then(|label| label.incremental_from) {
            Some(_) => BackupType::Incremental,
            None => BackupType::Full,
        },
        parent_id: parent,
        timeline: label.map_or(Timeline(1), |label| label.timeline),
        start: label.map(|label| label.start),
        end: None,
        finished_at: None,
        size: None,
        status: BackupStatus::Completed,
        error: None,
        verification: Verification::Unverified,
        wal_included: false,
    }
}

/// A window with its ends in LSN and time.
fn stretch(assessment: &Assessment, window: &Window) -> Result<Stretch> {
    let ends = assessment.bounds(window)?;
    Ok(Stretch {
        backup_id: window.backup_id,
        from_lsn: ends.from_lsn,
        to_lsn: ends.to_lsn,
        from_time: ends.from_time,
        to_time: ends.to_time,
    })
}

fn ends(target: Target, stretch: &Stretch) -> String {
    let time =
        |time: Option<DateTime<Utc>>| time.map_or_else(|| "an unknown time".to_owned(), |time| time.to_rfc3339());
    match target {
        Target::Latest | Target::Lsn(_) => format!("LSN {} to {}", stretch.from_lsn, stretch.to_lsn),
        Target::Time(_) => format!(
            "{} to {}",
            time(stretch.from_time),
            time(stretch.to_time.max(stretch.from_time))
        ),
    }
}

fn in_words(target: Target, stretch: &Stretch) -> String {
    match target {
        Target::Latest => {
            let last = stretch.to_time.map_or(String::new(), |time| {
                format!("; the last commit there was at {}", time.to_rfc3339())
            });
            format!("the end of WAL is LSN {}{last}", stretch.to_lsn)
        }
        Target::Lsn(lsn) => format!("LSN {lsn} lies inside ({})", ends(target, stretch)),
        Target::Time(time) => format!("{} lies inside ({})", time.to_rfc3339(), ends(target, stretch)),
    }
}
