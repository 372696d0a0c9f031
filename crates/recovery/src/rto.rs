//! How long a recovery would take, from what earlier ones took: never from a rate that nobody measured.
//!
//! The sum is the contract's: the backup's size over the restore rate, plus the WAL behind its start over the replay rate, plus the
//! start-up.

use std::collections::HashMap;
use std::fmt;

use wal::Lsn;

use crate::facts::{BackupFact, Facts};
use crate::sentence::{seconds, size};

/// What a recovery or a rehearsal took, as far as somebody measured it. Seconds are not negative.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Measured {
    /// Its row in `recovery_history`.
    pub recovery: i64,
    /// Size of the backup that was copied back.
    pub restored_bytes: Option<u64>,
    /// How long that took.
    pub restore_seconds: Option<f64>,
    /// From where WAL was replayed to where, as a distance in WAL.
    pub replayed_bytes: Option<u64>,
    /// How long that took.
    pub replay_seconds: Option<f64>,
    /// The rest: until the server took connections.
    pub startup_seconds: Option<f64>,
}

/// Bytes over seconds, of several recoveries together.
#[derive(Debug, Clone, PartialEq)]
pub struct Rate {
    /// Greater than zero.
    pub bytes_per_second: f64,
    /// The recoveries that it was measured in.
    pub recoveries: Vec<i64>,
}

impl Rate {
    /// The volume decides: a recovery that moved next to nothing says next to nothing of how fast things move.
    fn of(measured: impl Iterator<Item = (i64, Option<u64>, Option<f64>)>) -> Option<Self> {
        let (mut total, mut took, mut recoveries) = (0.0, 0.0, Vec::new());
        for (recovery, bytes, seconds) in measured {
            if let (Some(bytes), Some(seconds)) = (bytes.filter(|bytes| *bytes > 0), seconds.filter(|s| *s > 0.0)) {
                total += bytes as f64;
                took += seconds;
                recoveries.push(recovery);
            }
        }
        let bytes_per_second = total / took;
        (bytes_per_second.is_finite() && bytes_per_second > 0.0).then_some(Self {
            bytes_per_second,
            recoveries,
        })
    }

    fn seconds_for(&self, bytes: u64) -> f64 {
        bytes as f64 / self.bytes_per_second
    }
}

/// What the recoveries of a cluster say of the next one.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Rates {
    /// Copying a backup back.
    pub restore: Option<Rate>,
    /// Replaying WAL.
    pub replay: Option<Rate>,
    /// Seconds of start-up, the mean of those measured, and the recoveries that they were measured in.
    pub startup: Option<(f64, Vec<i64>)>,
}

impl Rates {
    /// From the recoveries given; the caller takes the newest few, since hardware and data change.
    pub fn of(measured: &[Measured]) -> Self {
        let startups: Vec<(i64, f64)> = measured
            .iter()
            .filter_map(|m| Some((m.recovery, m.startup_seconds.filter(|s| s.is_finite() && *s >= 0.0)?)))
            .collect();
        let sum: f64 = startups.iter().map(|(_, seconds)| seconds).sum();
        Self {
            restore: Rate::of(
                measured
                    .iter()
                    .map(|m| (m.recovery, m.restored_bytes, m.restore_seconds)),
            ),
            replay: Rate::of(
                measured
                    .iter()
                    .map(|m| (m.recovery, m.replayed_bytes, m.replay_seconds)),
            ),
            startup: (!startups.is_empty()).then(|| {
                (
                    sum / startups.len() as f64,
                    startups.iter().map(|(id, _)| *id).collect(),
                )
            }),
        }
    }

    /// How long a recovery from a backup of this size would take that replays this much WAL.
    ///
    /// # Errors
    /// What of it was never measured, or is not known.
    pub fn predict(&self, load: Load) -> Result<Prediction, Unpredictable> {
        let unknown = Unpredictable::BackupSizeUnknown { backup: load.backup };
        let backup_bytes = load.backup_bytes.ok_or(unknown)?;
        let restore = self.restore.as_ref().ok_or(Unpredictable::NoRestore)?;
        let replay = self.replay.as_ref().ok_or(Unpredictable::NoReplay)?;
        let (startup_seconds, started) = self.startup.as_ref().ok_or(Unpredictable::NoStartup)?;
        let basis = format!(
            "restore of backup {} ({}) at {}/s ({}), replay of {} of WAL at {}/s ({}), start-up in {startup_seconds:.1} s ({})",
            load.backup,
            size(backup_bytes),
            size(restore.bytes_per_second as u64),
            named(&restore.recoveries),
            size(load.wal_bytes),
            size(replay.bytes_per_second as u64),
            named(&replay.recoveries),
            named(started),
        );
        Ok(Prediction {
            load,
            restore_seconds: restore.seconds_for(backup_bytes),
            replay_seconds: replay.seconds_for(load.wal_bytes),
            startup_seconds: *startup_seconds,
            basis,
        })
    }

    /// The backup and the moment that a recovery takes the longest to get to, where somebody goes back to each moment from the last
    /// backup before it: just before the next backup, or at the end, `to`. `origins` are in the order of their ends;
    /// `older` has the sizes of those that they build on and that are not among them, each with what it builds on itself.
    pub fn longest<'a>(&self, origins: &'a [Origin], older: &HashMap<i64, u64>, to: Lsn) -> Option<(&'a Origin, Lsn)> {
        let (restore, replay) = (self.restore.as_ref()?, self.replay.as_ref()?);
        let mut with_parents: HashMap<i64, u64> = HashMap::with_capacity(origins.len());
        let mut longest: Option<(f64, &Origin, Lsn)> = None;
        let upto = origins.iter().skip(1).map(|next| next.end).chain([to]);
        for (origin, upto) in origins.iter().zip(upto) {
            let below = origin
                .parent
                .map(|parent| with_parents.get(&parent).or_else(|| older.get(&parent)));
            // Of what is not on record nothing can be said; it counts for nothing rather than hide what is.
            let below = below.flatten().copied().unwrap_or_default();
            let bytes = origin.bytes.unwrap_or_default().saturating_add(below);
            with_parents.insert(origin.id, bytes);
            let seconds = restore.seconds_for(bytes) + replay.seconds_for(upto.bytes_since(origin.start));
            if longest.is_none_or(|(most, _, _)| seconds > most) {
                longest = Some((seconds, origin, upto));
            }
        }
        longest.map(|(_, origin, upto)| (origin, upto))
    }

    /// How many seconds it would take from the start of the restored server on, which knows nothing of how long copying the backup
    /// back took.
    pub fn seconds_after_restore(&self, wal_bytes: u64) -> Option<f64> {
        let (startup_seconds, _) = self.startup.as_ref()?;
        Some(self.replay.as_ref()?.seconds_for(wal_bytes) + startup_seconds)
    }
}

/// A backup that a recovery can begin with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Origin {
    /// Its key.
    pub id: i64,
    /// Where replay from it begins.
    pub start: Lsn,
    /// Where it is consistent.
    pub end: Lsn,
    /// Its own size, where that is on record.
    pub bytes: Option<u64>,
    /// The backup that it builds on, where it does.
    pub parent: Option<i64>,
}

/// `recovery 3`, `recoveries 3, 4 and 2 more`.
fn named(recoveries: &[i64]) -> String {
    match recoveries {
        [one] => format!("recovery {one}"),
        [a, b] => format!("recoveries {a} and {b}"),
        [a, b, rest @ ..] => format!("recoveries {a}, {b} and {} more", rest.len()),
        [] => "no recovery".to_owned(),
    }
}

/// What a recovery has to move.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Load {
    /// The backup that it starts from.
    pub backup: i64,
    /// Its size, with those that it builds on; none where that is not on record.
    pub backup_bytes: Option<u64>,
    /// WAL from its start to the target.
    pub wal_bytes: u64,
}

/// How long a recovery would take.
#[derive(Debug, Clone, PartialEq)]
pub struct Prediction {
    /// Of what.
    pub load: Load,
    /// Copying the backup back.
    pub restore_seconds: f64,
    /// Replaying WAL.
    pub replay_seconds: f64,
    /// The rest.
    pub startup_seconds: f64,
    /// What it rests on: a clause.
    pub basis: String,
}

impl Prediction {
    /// All of it.
    pub fn seconds(&self) -> f64 {
        self.restore_seconds + self.replay_seconds + self.startup_seconds
    }
}

/// A clause such as `about 12 min`.
impl fmt::Display for Prediction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "about {}", seconds(self.seconds()))
    }
}

/// Why there is no prediction: a clause that says what to do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unpredictable {
    /// There is nothing to recover from.
    #[error("nothing: there is no usable backup")]
    NoBackup,
    /// Up to where WAL would be replayed is not known.
    #[error("nothing: how much WAL would be replayed is known on the primary only")]
    NoTarget,
    /// The backup's size is not on record.
    #[error(
        "nothing: the size of backup {backup}, or of one that it builds on, is not on record; give it to record_backup_complete()"
    )]
    BackupSizeUnknown {
        /// The backup.
        backup: i64,
    },
    /// Nobody measured copying a backup back.
    #[error(
        "nothing: no restore was measured on this cluster; rehearse one and give restore_seconds to record_recovery_complete()"
    )]
    NoRestore,
    /// Nobody measured replay.
    #[error(
        "nothing: no replay was measured on this cluster; rehearse a recovery and give replay_seconds to record_recovery_complete()"
    )]
    NoReplay,
    /// Nobody measured start-up.
    #[error(
        "nothing: no start-up was measured on this cluster; rehearse a recovery and give restore_seconds and replay_seconds to \
         record_recovery_complete(), which takes the rest for it"
    )]
    NoStartup,
}

/// What a recovery from this backup to `wal_bytes` behind its start has to move.
pub(crate) fn load(backups: &[BackupFact], backup: i64, wal_bytes: u64) -> Load {
    Load {
        backup,
        backup_bytes: size_with_parents(backups, backup),
        wal_bytes,
    }
}

/// The prediction for a recovery to this moment, from the newest usable backup.
pub(crate) fn now(facts: &Facts, newest: Option<i64>) -> Result<Prediction, Unpredictable> {
    let newest = newest.ok_or(Unpredictable::NoBackup)?;
    let start = facts.backups.iter().find(|b| b.id == newest).and_then(|b| b.start);
    let start = start.ok_or(Unpredictable::NoBackup)?;
    let flush = facts.flush.ok_or(Unpredictable::NoTarget)?;
    facts
        .rates
        .predict(load(&facts.backups, newest, flush.bytes_since(start)))
}

fn size_with_parents(backups: &[BackupFact], id: i64) -> Option<u64> {
    let mut total = 0_u64;
    let mut at = id;
    for _ in 0..=backups.len() {
        let backup = backups.iter().find(|backup| backup.id == at)?;
        total = total.saturating_add(backup.size?);
        if !backup.backup_type.needs_parent() {
            return Some(total);
        }
        at = backup.parent_id?;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const MB: u64 = 1 << 20;

    fn measured(recovery: i64, restore: (u64, f64), replay: (u64, f64), startup: f64) -> Measured {
        Measured {
            recovery,
            restored_bytes: Some(restore.0),
            restore_seconds: Some(restore.1),
            replayed_bytes: Some(replay.0),
            replay_seconds: Some(replay.1),
            startup_seconds: Some(startup),
        }
    }

    fn of(wal_bytes: u64) -> Load {
        Load {
            backup: 7,
            backup_bytes: Some(1000 * MB),
            wal_bytes,
        }
    }

    #[test]
    fn a_prediction_is_the_sum_of_what_was_measured_and_names_it() {
        let rates = Rates::of(&[
            measured(1, (100 * MB, 1.0), (50 * MB, 1.0), 2.0),
            measured(2, (300 * MB, 1.0), (250 * MB, 2.0), 4.0),
        ]);
        let predicted = rates.predict(of(1000 * MB)).unwrap();
        assert_eq!(
            (
                predicted.restore_seconds,
                predicted.replay_seconds,
                predicted.startup_seconds
            ),
            (5.0, 10.0, 3.0)
        );
        assert_eq!(predicted.seconds(), 18.0);
        assert_eq!(rates.seconds_after_restore(1000 * MB), Some(13.0));
        assert_eq!(
            predicted.basis,
            "restore of backup 7 (1000 MB) at 200 MB/s (recoveries 1 and 2), replay of 1000 MB of WAL at 100 MB/s (recoveries 1 and \
             2), start-up in 3.0 s (recoveries 1 and 2)"
        );
    }

    #[test]
    fn the_longest_recovery_leads_to_just_before_a_backup_and_restores_its_parents() {
        let rates = Rates::of(&[measured(1, (MB, 1.0), (MB, 1.0), 0.0)]);
        let origin = |id, start: u64, size: u64, parent| Origin {
            id,
            start: Lsn(start * MB),
            end: Lsn((start + 1) * MB),
            bytes: Some(size * MB),
            parent,
        };
        let longest = |origins: &[Origin]| {
            let found = rates.longest(origins, &HashMap::from([(1, 10 * MB)]), Lsn(100 * MB));
            found.map(|(origin, at)| (origin.id, at.0 / MB))
        };
        let full = [origin(1, 0, 10, None), origin(2, 50, 10, None), origin(3, 90, 10, None)];
        assert_eq!(longest(&full), Some((1, 51)));
        assert_eq!(longest(&full[1..]), Some((2, 91)));
        assert_eq!(longest(&full[2..]), Some((3, 100)));
        assert_eq!(longest(&[]), None);
        let chain = [
            origin(1, 0, 10, None),
            origin(2, 50, 1, Some(1)),
            origin(3, 80, 35, Some(2)),
        ];
        assert_eq!(
            longest(&chain),
            Some((3, 100)),
            "46 MB restored and 20 replayed against 10 and 51"
        );
        let younger = [origin(3, 80, 5, Some(1)), origin(4, 90, 14, None)];
        assert_eq!(
            longest(&younger),
            Some((3, 91)),
            "15 MB restored and 11 replayed against 14 and 10"
        );
        assert_eq!(Rates::default().longest(&full, &HashMap::new(), Lsn(100 * MB)), None);
    }

    #[test]
    fn what_was_not_measured_is_not_predicted() {
        let nothing = Rates::of(&[]);
        assert_eq!(nothing.predict(of(MB)), Err(Unpredictable::NoRestore));
        let mut one = measured(1, (MB, 1.0), (MB, 1.0), 0.0);
        one.replay_seconds = None;
        assert_eq!(
            Rates::of(std::slice::from_ref(&one)).predict(of(MB)),
            Err(Unpredictable::NoReplay)
        );
        one.replay_seconds = Some(0.0);
        assert_eq!(
            Rates::of(std::slice::from_ref(&one)).predict(of(MB)),
            Err(Unpredictable::NoReplay),
            "no time is no rate"
        );
        one.replay_seconds = Some(1.0);
        one.startup_seconds = None;
        assert_eq!(Rates::of(&[one]).predict(of(MB)), Err(Unpredictable::NoStartup));
        let rates = Rates::of(&[measured(1, (MB, 1.0), (MB, 1.0), 0.0)]);
        let mut load = of(MB);
        load.backup_bytes = None;
        assert_eq!(rates.predict(load), Err(Unpredictable::BackupSizeUnknown { backup: 7 }));
    }

    proptest! {
        #[test]
        fn predictions_are_finite_not_negative_and_grow_with_the_wal(
            all in proptest::collection::vec((any::<u64>(), 0.0..1e9_f64, any::<u64>(), 0.0..1e9_f64, 0.0..1e9_f64), 0..5),
            size: u64, less: u64, more: u64,
        ) {
            let measured: Vec<Measured> = all
                .iter()
                .zip(1..)
                .map(|((a, b, c, d, e), id)| measured(id, (*a, *b), (*c, *d), *e))
                .collect();
            let rates = Rates::of(&measured);
            let load = |wal_bytes| Load { backup: 1, backup_bytes: Some(size), wal_bytes };
            if let Ok(short) = rates.predict(load(less.min(more))) {
                let long = rates.predict(load(less.max(more))).unwrap();
                prop_assert!(short.seconds() >= 0.0 && long.seconds().is_finite());
                prop_assert!(short.seconds() <= long.seconds());
            }
        }
    }
}
