//! The verdict: could we recover, and if that is in doubt, why, and what is to be done about it.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use archive::secrets::masked;
use archive::{Status, printable};

use crate::backups::Unusable;
use crate::facts::{BackupFact, BackupStatus, Facts};
use crate::gaps::{Gap, GapState};
use crate::protection::{OldestCommit, seconds_between};
use crate::rto::Prediction;
use crate::sentence::{backups, seconds, span};
use crate::{Survey, Window};

/// The state of the cluster, from best to worst.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Readiness {
    /// It can be recovered within the objectives.
    Ready,
    /// It can be recovered, but not as it should be, or not for long.
    AtRisk,
    /// It cannot be said: what is known is too little or too old.
    Unknown,
    /// Nothing protects: no usable backup, and no receiver.
    Unrecoverable,
}

impl Readiness {
    /// The word in `recovery_readiness.status`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ready => "ready",
            Self::AtRisk => "at_risk",
            Self::Unknown => "unknown",
            Self::Unrecoverable => "unrecoverable",
        }
    }
}

impl fmt::Display for Readiness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// One thing that the verdict takes into account.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reason {
    /// The state that it alone would make.
    pub weight: Readiness,
    /// Whether somebody should be told: not of what is in order, nor of a loss that was acknowledged.
    pub alarms: bool,
    /// What is the matter, where, and what to do: one or two English sentences.
    pub sentence: String,
}

/// The verdict.
#[derive(Debug, Clone, PartialEq)]
pub struct Verdict {
    /// The worst that any reason makes it.
    pub status: Readiness,
    /// The reasons, gravest first. A `ready` cluster may have some: worth knowing, but no harm.
    pub reasons: Vec<Reason>,
    /// RPO exposure in seconds, see [`Protection::rpo_seconds`](crate::Protection::rpo_seconds).
    pub rpo_seconds: Option<f64>,
    /// RPO exposure in bytes.
    pub rpo_bytes: Option<u64>,
    /// The window that a recovery would go to today.
    pub window: Option<Window>,
}

/// How many gaps and how many unusable backups are named one by one.
pub(crate) const NAMED: usize = 5;

/// Judges what was found. `oldest` is the first commit in local WAL at or after `survey.protection.protected`.
pub fn assess(facts: &Facts, survey: &Survey, oldest: &OldestCommit) -> Verdict {
    let mut reasons = Reasons(Vec::new());
    let rpo_seconds = survey.protection.rpo_seconds(oldest, facts.now);
    evidence(facts, &mut reasons);
    archiving(facts, &mut reasons);
    usable_backups(facts, survey, &mut reasons);
    broken_wal(facts, survey, &mut reasons);
    objectives(facts, survey, oldest, rpo_seconds, &mut reasons);
    let mut reasons = reasons.0;
    reasons.sort_by_key(|reason| std::cmp::Reverse(reason.weight));
    Verdict {
        status: reasons.first().map_or(Readiness::Ready, |worst| worst.weight),
        reasons,
        rpo_seconds,
        rpo_bytes: survey.protection.rpo_bytes,
        window: survey.current_window().cloned(),
    }
}

struct Reasons(Vec<Reason>);

impl Reasons {
    fn add(&mut self, weight: Readiness, sentence: String) {
        self.add_unless(false, weight, sentence);
    }

    /// What alarms unless it was acknowledged.
    fn add_unless(&mut self, acknowledged: bool, weight: Readiness, sentence: String) {
        self.0.push(Reason {
            weight,
            alarms: weight != Readiness::Ready && !acknowledged,
            sentence,
        });
    }
}

/// A worker that has not been heard of for three of its ticks is not looking; the floor leaves room for a slow one.
pub fn stale_after(check_interval: Duration) -> Duration {
    check_interval.saturating_mul(3).max(Duration::from_secs(30))
}

/// Is what we know fresh, and ours to judge?
fn evidence(facts: &Facts, reasons: &mut Reasons) {
    if facts.is_standby {
        reasons.add(
            Readiness::Unknown,
            "This server is a standby, and the archive is judged on its primary; ask recovery_readiness there."
                .to_owned(),
        );
    }
    worker(facts, reasons);
    if let Some(error) = &facts.worker.error {
        reasons.add(
            Readiness::AtRisk,
            format!(
                "The worker could not finish its last look: {}; see v_worker_status and the server's log.",
                clause(error)
            ),
        );
    }
}

/// Does the worker look at the archive? What was tried already, and failed, is not advised.
fn worker(facts: &Facts, reasons: &mut Reasons) {
    let worker = &facts.worker;
    let age = worker
        .last_tick_at
        .map(|at| facts.now.signed_duration_since(at).to_std().unwrap_or_default());
    let not_started = worker.not_started.as_deref().map(clause);
    let sentence = match (age, not_started) {
        (Some(age), _) if age <= stale_after(worker.check_interval) => return,
        (None, None) => {
            "The worker has not looked at the archive yet; add pg_backstop to shared_preload_libraries and restart the \
                         server, or call start_worker()."
                .to_owned()
        }
        (None, Some(why)) => format!("The worker has not looked at the archive yet: it could not be started; {why}."),
        (Some(age), None) => format!(
            "The worker last looked at the archive {} ago, although it should every {}; see v_worker_status and the server's log, \
             and start it with start_worker().",
            span(age),
            span(worker.check_interval)
        ),
        (Some(age), Some(why)) => format!(
            "The worker last looked at the archive {} ago, although it should every {}: it could not be started; {why}.",
            span(age),
            span(worker.check_interval)
        ),
    };
    reasons.add(Readiness::Unknown, sentence);
}

/// Does WAL get into the archive, and can we see it there?
fn archiving(facts: &Facts, reasons: &mut Reasons) {
    let archiver = &facts.archiver;
    match &archiver.source {
        Err(why) if archiver.mode_on => {
            reasons.add(Readiness::Unknown, format!("Where WAL is archived is not known: {}.", clause(why)));
        }
        Err(_) => reasons.add(
            Readiness::AtRisk,
            "WAL archiving is off, so that nothing written after a backup ends can be recovered; set archive_mode = on and \
             an archive_command, and restart the server."
                .to_owned(),
        ),
        // A source that was named by hand may be fed by pg_receivewal.
        Ok(source) => {
            if let Some(why) = &archiver.unreadable {
                reasons.add(
                    Readiness::AtRisk,
                    format!(
                        "The archive {source} cannot be read: {}; until it can, nothing newly archived counts as protected.",
                        clause(why)
                    ),
                );
            }
        }
    }
    if let Some(failure) = &archiver.failing {
        reasons.add(
            Readiness::AtRisk,
            format!(
                "The archiver fails: {} could not be archived, last tried {} ago; see the server's log for what \
                 archive_command said.",
                failure.file,
                seconds(seconds_between(failure.at, facts.now))
            ),
        );
    }
}

/// Is there a backup to start from, and is it the one that one would think?
fn usable_backups(facts: &Facts, survey: &Survey, reasons: &mut Reasons) {
    let helpless = survey.protection.protected.is_none();
    let without = if helpless {
        Readiness::Unrecoverable
    } else {
        Readiness::AtRisk
    };
    let only_receiver = if helpless {
        ""
    } else {
        " Only the connected receivers protect what is committed."
    };
    let by_id: BTreeMap<i64, &BackupFact> = facts.backups.iter().map(|backup| (backup.id, backup)).collect();
    let mut unusable: Vec<(&BackupFact, &Unusable)> = survey
        .backups
        .iter()
        .filter_map(|(id, verdict)| Some((*by_id.get(id)?, verdict.as_ref().err()?)))
        .filter(|(backup, _)| backup.status == BackupStatus::Completed)
        .collect();
    unusable.sort_by_key(|(backup, _)| std::cmp::Reverse((backup.end, backup.id)));
    let position = |backup: &BackupFact| (backup.end, backup.id);
    let newest = facts
        .backups
        .iter()
        .find(|backup| Some(backup.id) == survey.newest_usable);
    match newest {
        None if unusable.is_empty() => reasons.add(
            without,
            format!("There is no completed base backup to recover from; take one, such as with pg_basebackup.{only_receiver}"),
        ),
        None => {
            let mut sentence = "No backup can be recovered from:".to_owned();
            for (backup, why) in unusable.iter().take(NAMED) {
                sentence.push_str(&format!(" backup {}: {};", backup.id, why));
            }
            let others = u64::try_from(unusable.len().saturating_sub(NAMED)).unwrap_or(u64::MAX);
            let others = others.saturating_add(facts.unlisted);
            if others > 0 {
                sentence.push_str(&format!(" and {others} more;"));
            }
            let waiting = unusable.iter().any(|(_, why)| why.is_waiting());
            sentence.push_str(if waiting {
                " wait until its WAL is archived and verified, or take a base backup."
            } else {
                " take a base backup, or put the WAL back into the archive."
            });
            sentence.push_str(only_receiver);
            reasons.add(without, sentence);
        }
        Some(newest) => {
            if let Some(by) = &facts.put_in_by_sql {
                reasons.add(
                    Readiness::AtRisk,
                    format!(
                        "Backup {}, from which recovery starts, was put on record with SQL, past the functions of pg_backstop, by {by}, \
                         and nothing but that says that it is there; record backups with record_backup_start() and \
                         record_backup_complete(), give a row that is imported origin = 'imported', or accept it with \
                         acknowledge_ledger_fault().",
                        newest.id
                    ),
                );
            }
            let newer = unusable.iter().filter(|(backup, _)| position(backup) > position(newest));
            for (backup, why) in newer.take(NAMED) {
                // Right after a backup its last segment has yet to be archived and read: that is no fault.
                let weight = if why.is_waiting() { Readiness::Ready } else { Readiness::AtRisk };
                let sentence =
                    format!("Backup {} is not usable: {why}; until it is, recovery starts from backup {}.", backup.id, newest.id);
                reasons.add_unless(why.is_acknowledged(), weight, sentence);
            }
            let failed = facts
                .backups
                .iter()
                .filter(|b| b.status == BackupStatus::Failed && b.backup_type.is_physical() && b.id > newest.id)
                .max_by_key(|b| b.id);
            if let Some(failed) = failed {
                let error = failed.error.as_deref().map_or(String::new(), |error| format!(": {}", clause(error)));
                reasons.add(
                    Readiness::AtRisk,
                    format!("Backup {} failed{error}; take another, since recovery still starts from backup {}.", failed.id, newest.id),
                );
            }
        }
    }
}

/// Does the WAL behind the backups hang together?
fn broken_wal(facts: &Facts, survey: &Survey, reasons: &mut Reasons) {
    let newest = survey.newest_usable;
    let place = facts.archiver.source.as_deref().unwrap_or("the archive");
    for history in &facts.broken_histories {
        reasons.add(
            Readiness::AtRisk,
            format!(
                "The history file of timeline {timeline} is not in order ({}), so that no recovery gets into that timeline; copy \
                 {timeline:08X}.history from pg_wal to {place}.",
                history.problem,
                timeline = history.timeline.0,
            ),
        );
    }
    let concerning: Vec<&Gap> = survey
        .gaps
        .iter()
        .filter(|gap| !gap.affected_backups.is_empty())
        .collect();
    // Those that matter first, and of these the first in WAL: nothing behind it counts until it is mended.
    let (needed, mut spared): (Vec<&Gap>, Vec<&Gap>) = concerning
        .into_iter()
        .partition(|gap| gap.affects_newest || newest.is_none());
    // Whoever acknowledged a gap knows of it, and where it does no harm any more, the windows are enough to show it.
    spared.retain(|gap| !is_known(gap));
    for (gaps, weight) in [(&needed, Readiness::AtRisk), (&spared, Readiness::Ready)] {
        for gap in gaps.iter().take(NAMED) {
            reasons.add_unless(is_known(gap), weight, gap_sentence(gap, place, newest));
        }
        let others: Vec<&&Gap> = gaps.iter().skip(NAMED).collect();
        if !others.is_empty() {
            reasons.add_unless(
                others.iter().all(|gap| is_known(gap)),
                weight,
                format!("There are {} more gaps like these; see wal_archive_gaps.", others.len()),
            );
        }
    }
}

fn is_known(gap: &Gap) -> bool {
    gap.state == GapState::Acknowledged
}

fn gap_sentence(gap: &Gap, place: &str, newest: Option<i64>) -> String {
    let mut what = if gap.segments == 1 {
        format!("Segment {}", gap.first)
    } else {
        format!("The {} segments from {} to {}", gap.segments, gap.first, gap.last)
    };
    let (is, them) = if gap.segments == 1 {
        ("is", "it")
    } else {
        ("are", "them")
    };
    let trouble = match (gap.state, gap.problem.as_deref()) {
        (GapState::Late, _) => "late: the archiver has yet to send".to_owned() + " " + them,
        (GapState::Acknowledged, _) => "acknowledged as lost".to_owned(),
        (GapState::Rescuable, _) => "not archived, but still in pg_wal".to_owned(),
        (GapState::Lost, Some(problem)) if problem != gap.status.as_str() => format!("{} ({problem})", gap.status),
        (GapState::Lost, _) => gap.status.to_string(),
    };
    what.push_str(&format!(" {is} {trouble}"));
    what.push_str(&format!(
        ": nothing from {} on can be recovered with {}",
        gap.from_lsn(),
        backups(&gap.affected_backups, gap.affects_more)
    ));
    if let Some(newest) = newest.filter(|_| !gap.affects_newest) {
        what.push_str(&format!(
            ", but backup {newest} and what follows it do not need {them}."
        ));
        return what;
    }
    what.push_str("; ");
    what.push_str(&match (gap.state, gap.status) {
        (GapState::Late, _) => "see v_archiver_status for what keeps the archiver.".to_owned(),
        (GapState::Acknowledged, _) => format!("take a base backup, from which recovery does not need {them}."),
        (GapState::Rescuable, _) => format!("copy {them} from pg_wal to {place}, or take a base backup."),
        (GapState::Lost, Status::Missing) => format!("put {them} back into {place}, or take a base backup."),
        (GapState::Lost, _) => format!("put a sound copy of {them} into {place}, or take a base backup."),
    });
    what
}

/// Are the objectives met?
fn objectives(facts: &Facts, survey: &Survey, oldest: &OldestCommit, rpo: Option<f64>, reasons: &mut Reasons) {
    let protection = &survey.protection;
    if let (Some(protected), OldestCommit::Unknown(why)) = (protection.protected, oldest) {
        // Behind a gap this is to be expected, and the gap is certain: its weight must not be hidden.
        let behind_a_gap = survey.gaps.iter().any(|gap| gap.affects_newest);
        reasons.add(
            if behind_a_gap {
                Readiness::AtRisk
            } else {
                Readiness::Unknown
            },
            format!(
                "How old the oldest commit behind the protected LSN, {protected}, is cannot be said: {}.",
                clause(why)
            ),
        );
    }
    if let (Some(rpo), Some(target)) = (rpo, facts.target_rpo)
        && rpo > target.as_secs_f64()
    {
        reasons.add(
            Readiness::AtRisk,
            format!(
                "If this host were lost now, the commits of the last {} would be too, more than target_rpo, {}: WAL is protected up \
                 to {} only; see v_archiver_status and wal_archive_gaps for what keeps it.",
                seconds(rpo),
                span(target),
                protection.protected.unwrap_or_default()
            ),
        );
    }
    if let (Ok(rto), Some(target)) = (survey.recovery_time.as_ref().map(Prediction::seconds), facts.target_rto)
        && rto > target.as_secs_f64()
    {
        reasons.add(
            Readiness::AtRisk,
            format!(
                "A recovery would take {}, longer than target_rto, {}; a newer base backup leaves less WAL to replay.",
                seconds(rto),
                span(target)
            ),
        );
    }
}

/// A message of somebody else, fit to stand before a full stop or a semicolon.
/// What somebody else has said, as a part of a sentence: on one line, and without what looks like a password.
fn clause(message: &str) -> String {
    masked(&printable(message.trim().trim_end_matches(['.', ';'])))
}
