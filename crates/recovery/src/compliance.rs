//! Compliance: how much of the time the objectives were kept, summed up from what was seen and when.
//!
//! Between two looks at which nothing changed, the exposure is known at every moment: it is 0 as long as nothing would be lost,
//! and the age of the oldest commit that would be otherwise. So a sample is needed only when something changes, and the time in
//! between is summed up exactly. Time in which nobody looked counts neither as inside an objective nor as outside.
//!
//! Times and durations are whole microseconds: sums over parts of a stretch give the sum over the whole of it, to the last one.

use chrono::{DateTime, TimeDelta, Utc};

use crate::objectives::Objectives;
use crate::protection::OldestCommit;

/// What would be lost if the host died.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exposure {
    /// Everything: nothing protects. No objective is kept.
    Unprotected,
    /// It was not found out.
    Unknown,
    /// Nothing.
    None,
    /// All that was committed since then. A time that is yet to come, as after a clock was set back, means nothing until it has.
    Since(DateTime<Utc>),
}

impl Exposure {
    /// What a look has found: whether anything protects, and the oldest commit behind it.
    pub fn of(is_protected: bool, oldest: &OldestCommit) -> Self {
        match oldest {
            _ if !is_protected => Self::Unprotected,
            OldestCommit::None => Self::None,
            OldestCommit::At(at) => Self::Since(*at),
            OldestCommit::Unknown(_) => Self::Unknown,
        }
    }

    /// What a stored sample tells, by its `sampled_at`, `rpo_seconds` and whether it has a `protected_lsn`.
    pub fn stored(at: DateTime<Utc>, rpo_seconds: Option<f64>, is_protected: bool) -> Self {
        match rpo_seconds {
            _ if !is_protected => Self::Unprotected,
            None => Self::Unknown,
            Some(seconds) if seconds > 0.0 => TimeDelta::try_milliseconds(milliseconds(seconds))
                .and_then(|age| at.checked_sub_signed(age))
                .map_or(Self::Unknown, Self::Since),
            Some(_) => Self::None,
        }
    }

    /// Its age at a moment, in microseconds; none where nothing protects or it is not known.
    pub fn at(self, moment: DateTime<Utc>) -> Option<i64> {
        match self {
            Self::Unprotected | Self::Unknown => None,
            Self::None => Some(0),
            Self::Since(since) => Some(micros(since, moment).max(0)),
        }
    }
}

/// How things stand from a moment on, until they are seen to be otherwise.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct State {
    /// Since when, as far as is known.
    pub at: DateTime<Utc>,
    /// What would be lost.
    pub exposure: Exposure,
    /// How much WAL that is, bytes.
    pub rpo_bytes: Option<u64>,
    /// How long a recovery would take, seconds.
    pub predicted_rto: Option<f64>,
    /// What was promised.
    pub objectives: Objectives,
}

/// Microseconds inside and outside of an objective.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Share {
    /// In which it was kept.
    pub inside: i64,
    /// In which it was not.
    pub outside: i64,
}

impl Share {
    /// The part inside, from 0 to 1; none where nothing could be judged.
    pub fn kept(self) -> Option<f64> {
        let judged = self.inside.saturating_add(self.outside);
        (judged > 0).then(|| self.inside as f64 / judged as f64)
    }

    fn add(&mut self, other: Self) {
        self.inside = self.inside.saturating_add(other.inside);
        self.outside = self.outside.saturating_add(other.outside);
    }
}

/// Sums over a stretch of time, or over several. All durations are microseconds.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Tally {
    /// How long somebody looked.
    pub observed: i64,
    /// The objective for what may be lost. What is neither inside nor outside had no objective, or its exposure is not known.
    pub rpo: Share,
    /// The objective for how long a recovery may take, likewise.
    pub rto: Share,
    /// How long nothing protected: no usable backup, and no receiver.
    pub unprotected: i64,
    /// How long the exposure was known.
    pub measured: i64,
    /// The exposure times how long it was so, seconds times seconds: over `measured` it gives the mean.
    pub exposure_area: f64,
    /// The greatest exposure, microseconds.
    pub worst_rpo: Option<i64>,
    /// The greatest exposure, bytes.
    pub worst_rpo_bytes: Option<u64>,
    /// The longest predicted recovery, seconds.
    pub worst_predicted_rto: Option<f64>,
}

impl Tally {
    /// The mean exposure while it was known, seconds.
    pub fn mean_exposure(&self) -> Option<f64> {
        (self.measured > 0).then(|| self.exposure_area / seconds(self.measured))
    }

    /// Both together.
    pub fn add(&mut self, other: &Self) {
        self.observed = self.observed.saturating_add(other.observed);
        self.rpo.add(other.rpo);
        self.rto.add(other.rto);
        self.unprotected = self.unprotected.saturating_add(other.unprotected);
        self.measured = self.measured.saturating_add(other.measured);
        self.exposure_area += other.exposure_area;
        self.worst_rpo = self.worst_rpo.max(other.worst_rpo);
        self.worst_rpo_bytes = self.worst_rpo_bytes.max(other.worst_rpo_bytes);
        self.worst_predicted_rto = match (self.worst_predicted_rto, other.worst_predicted_rto) {
            (Some(a), Some(b)) => Some(a.max(b)),
            (a, b) => a.or(b),
        };
    }
}

impl State {
    /// Sums up the time from `from` to `to`, in which this state held. A stretch that ends before it begins, as a clock that
    /// was set back makes one, is empty.
    pub fn tally(&self, from: DateTime<Utc>, to: DateTime<Utc>) -> Tally {
        let length = micros(from, to);
        if length <= 0 {
            return Tally::default();
        }
        let mut tally = Tally {
            observed: length,
            worst_rpo: self.exposure.at(to),
            worst_rpo_bytes: self.rpo_bytes,
            worst_predicted_rto: self.predicted_rto,
            ..Tally::default()
        };
        let (begin, end) = (self.exposure.at(from), self.exposure.at(to));
        if let (Some(begin), Some(end)) = (begin, end) {
            tally.measured = length;
            // It grows by a second a second, so what it grows by is how long it did.
            let (begin, end) = (seconds(begin), seconds(end));
            tally.exposure_area = (begin + end) / 2.0 * (end - begin);
        }
        let share = |inside: i64| Share {
            inside,
            outside: length - inside,
        };
        if self.exposure == Exposure::Unprotected {
            tally.unprotected = length;
        }
        if let Some(target) = self.objectives.rpo {
            let target = i64::try_from(target.as_micros()).unwrap_or(i64::MAX);
            tally.rpo = match self.exposure {
                Exposure::Unprotected => share(0),
                Exposure::Unknown => Share::default(),
                Exposure::None => share(length),
                Exposure::Since(since) => share(micros(from, since).saturating_add(target).clamp(0, length)),
            };
        }
        if let (Some(target), Some(predicted)) = (self.objectives.rto, self.predicted_rto) {
            tally.rto = share(if predicted <= target.as_secs_f64() { length } else { 0 });
        }
        tally
    }
}

/// A stretch of time in which one state held.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Stretch {
    /// The state.
    pub state: State,
    /// Where it begins.
    pub from: DateTime<Utc>,
    /// Where it ends.
    pub to: DateTime<Utc>,
}

/// The time since `before`, as far as it is known to have held on, `held_to`; `after` is what was seen then, if anything was.
///
/// What is seen at a look began between it and the look before. Where a commit is seen to be exposed, its time tells when.
pub fn stretches(before: &State, held_to: DateTime<Utc>, after: Option<&State>) -> Vec<Stretch> {
    let stretch = |state: State, from, to| Stretch { state, from, to };
    if held_to <= before.at {
        return Vec::new();
    }
    let began = match after.map(|after| after.exposure) {
        Some(Exposure::Since(since)) if before.exposure == Exposure::None => Some(since.clamp(before.at, held_to)),
        _ => None,
    };
    match began {
        // One that was there before the look before is one whose protection was lost since, nobody knows when.
        Some(began) if began > before.at && began < held_to => {
            let grown = State {
                exposure: Exposure::Since(began),
                ..*before
            };
            vec![stretch(*before, before.at, began), stretch(grown, began, held_to)]
        }
        _ => vec![stretch(*before, before.at, held_to)],
    }
}

/// An hour has so many microseconds.
const HOUR: i64 = 3_600_000_000;

/// The full hour (UTC) in which a moment lies.
pub fn hour_of(moment: DateTime<Utc>) -> DateTime<Utc> {
    let micros = moment.timestamp_micros();
    DateTime::from_timestamp_micros(micros - micros.rem_euclid(HOUR)).unwrap_or(moment)
}

/// The parts of a stretch that lie in one hour each, oldest first, with the beginning of that hour. No more than `most` of them,
/// the newest.
pub fn by_hour(stretch: &Stretch, most: usize) -> Vec<(DateTime<Utc>, Stretch)> {
    let mut parts = Vec::new();
    let mut to = stretch.to;
    while to > stretch.from && parts.len() < most {
        // The moment at a full hour ends the hour before.
        let hour = hour_of(to - TimeDelta::microseconds(1));
        let from = hour.max(stretch.from);
        parts.push((hour, Stretch { from, to, ..*stretch }));
        to = from;
    }
    parts.reverse();
    parts
}

fn micros(from: DateTime<Utc>, to: DateTime<Utc>) -> i64 {
    to.timestamp_micros().saturating_sub(from.timestamp_micros())
}

fn seconds(micros: i64) -> f64 {
    micros as f64 / 1e6
}

/// Samples are stored to the millisecond.
fn milliseconds(seconds: f64) -> i64 {
    (seconds * 1000.0).round() as i64
}
