//! Recoverability in numbers: pure sums over recorded facts.
//!
//! The caller loads [`Facts`], lets [`survey`] find what can be recovered and how far, looks up the commit times that belong to the
//! LSNs found (nothing here reads WAL), and has [`assess`] judge. Verdicts are never stored: they are computed anew from facts.
//!
//! ```
//! # use recovery::{assess, survey, Facts, OldestCommit};
//! # fn look(facts: &Facts) {
//! let survey = survey(facts);
//! // Read local WAL from `survey.protection.protected` to its first commit record.
//! let verdict = assess(facts, &survey, &OldestCommit::None);
//! # }
//! ```
#![forbid(unsafe_code)]

pub mod backups;
pub mod compliance;
pub mod detected;
pub mod facts;
pub mod gaps;
pub mod lives;
pub mod objectives;
pub mod outline;
mod path;
pub mod plan;
pub mod prepare;
pub mod protection;
pub mod readiness;
pub mod rto;
pub mod schedule;
pub mod sentence;
mod stop_reason;
pub mod traces;
pub mod windows;

pub use backups::{Unusable, Usable};
pub use facts::{
    Archiver, ArchiverFailure, BackupFact, BackupStatus, BackupType, BrokenHistory, BrokenRun, Extent, Facts,
    UnknownWord, Verification, WorkerFact,
};
pub use gaps::{Gap, GapState, Need};
pub use protection::{OldestCommit, Protection};
pub use readiness::{Readiness, Reason, Verdict, assess};
pub use rto::{Load, Measured, Origin, Prediction, Rates, Unpredictable};
pub use windows::{EndedBy, Window};

/// What can be recovered, and how far: everything that follows from the facts without looking at a clock or at WAL.
#[derive(Debug, Clone, PartialEq)]
pub struct Survey {
    /// Each physical backup on record, and whether recovery can start from it.
    pub backups: Vec<(i64, Result<Usable, Unusable>)>,
    /// The newest usable backup on the server's own history; what the verdict rests on.
    pub newest_usable: Option<i64>,
    /// Unbroken stretches of recoverable history, oldest first.
    pub windows: Vec<Window>,
    /// Runs of segments that are not in order, oldest first.
    pub gaps: Vec<Gap>,
    /// Up to where commits are safe if this host dies now.
    pub protection: Protection,
    /// How long a recovery to this moment would take, or why that cannot be said.
    pub recovery_time: Result<Prediction, Unpredictable>,
}

impl Survey {
    /// The window that the newest usable backup lies in: where a recovery would go today.
    pub fn current_window(&self) -> Option<&Window> {
        let newest = self.newest_usable?;
        self.windows.iter().find(|window| window.backups.contains(&newest))
    }

    /// The verdict on one backup; none if it is no physical backup or not on record.
    pub fn backup(&self, id: i64) -> Option<&Result<Usable, Unusable>> {
        self.backups
            .iter()
            .find(|(backup, _)| *backup == id)
            .map(|(_, verdict)| verdict)
    }
}

/// Finds what the facts allow to recover.
pub fn survey(facts: &Facts) -> Survey {
    let path = path::Path::new(facts);
    let backups = backups::usability(&facts.backups, &path);
    let newest_usable = backups::newest(&backups);
    let windows = windows::windows(&backups, newest_usable);
    let protection = protection::protection(facts, &backups, newest_usable);
    let gaps = gaps::gaps(facts, &path, newest_usable);
    let recovery_time = rto::now(facts, newest_usable);
    Survey {
        backups,
        newest_usable,
        windows,
        gaps,
        protection,
        recovery_time,
    }
}

#[cfg(test)]
mod tests;
