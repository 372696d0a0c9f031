//! Which backup, which timeline and which target bring a wanted moment back, or why none does.
//!
//! The server says so only after hours of replay: "recovery ended before configured recovery target was reached", or "requested
//! recovery stop point is before consistent recovery point". What it stops at is decided by recoveryStopsBefore() and
//! recoveryStopsAfter() in src/backend/access/transam/xlogrecovery.c, and so are the rules here.

pub mod account;
mod branch;
mod clock;
pub mod command;
pub mod destination;
pub mod fit;
mod pg_ctl;
pub mod refusal;
mod restore;
mod settings;
mod shell;
mod stamps;
pub mod steps;
pub mod stretch;
mod tablespaces;
pub mod tool;

use chrono::{DateTime, Utc};
use wal::{Lsn, SegmentName, Timeline};

pub use account::{Account, Action, Copied, Link, Site, Tablespace};
pub use clock::{CommitTimes, CommitsUpTo, check_clock};
pub use command::restore_command;
pub use destination::{Destination, DestinationError};
pub use fit::{Best, Fit, Origins};
pub use refusal::Refusal;
pub use steps::{Step, steps};
pub use stretch::{Bounds, Origin, Stretch};
pub use tool::{Record, Tool};

use refusal::Asked;

/// What a recovery is to bring back.
#[derive(Debug, Clone, PartialEq)]
pub enum Target {
    /// All there is.
    Latest,
    /// `recovery_target_time`.
    Time(DateTime<Utc>),
    /// `recovery_target_lsn`.
    Lsn(Lsn),
    /// `recovery_target_name`.
    Name(String),
    /// `recovery_target_xid`, without its epoch.
    Xid(u32),
}

/// A target and how it is meant.
#[derive(Debug, Clone, PartialEq)]
pub struct Wanted {
    /// The target.
    pub target: Target,
    /// `recovery_target_inclusive`: whether what is at the target itself is to be recovered. Names have no such choice.
    pub inclusive: bool,
    /// The timeline to end on; none for the server's own history.
    pub timeline: Option<Timeline>,
}

/// A named restore point in verified WAL.
#[derive(Debug, Clone, PartialEq)]
pub struct Point {
    /// The segment that it was seen in.
    pub segment: SegmentName,
    /// The end of its record.
    pub lsn: Lsn,
    /// When it was made.
    pub at: Option<DateTime<Utc>>,
}

/// A commit in verified WAL.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct FoundCommit {
    /// The segment that its record ends in.
    pub segment: SegmentName,
    /// The start of its record.
    pub lsn: Lsn,
    /// When it was made.
    pub at: Option<DateTime<Utc>>,
}

/// What the caller looked up for a target.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Evidence {
    /// For a name: all restore points that have it.
    pub points: Vec<Point>,
    /// For a name that nothing has: those made last, the newest first.
    pub newest_names: Vec<String>,
    /// For a transaction: its commits.
    pub commits: Vec<FoundCommit>,
    /// For a transaction: segments that may hold its commit and were not read.
    pub unread: u64,
}

/// Where the server is told to stop.
#[derive(Debug, Clone, PartialEq)]
pub enum Stop {
    /// Nowhere: at the end of the WAL.
    End,
    /// `recovery_target_time`.
    Time(DateTime<Utc>),
    /// `recovery_target_lsn`.
    Lsn(Lsn),
    /// `recovery_target_name`.
    Name(String),
    /// `recovery_target_xid`.
    Xid(u32),
}

/// How a target is reached.
#[derive(Debug, Clone, PartialEq)]
pub struct Choice {
    /// The backup to restore.
    pub backup: i64,
    /// A newer one that would do, but of which it is not on record where it is.
    pub newer_without_place: Option<i64>,
    /// Where its replay starts.
    pub start: Lsn,
    /// When it was consistent, as far as is known.
    pub backup_at: Option<DateTime<Utc>>,
    /// Where to stop.
    pub stop: Stop,
    /// `recovery_target_inclusive`.
    pub inclusive: bool,
    /// `recovery_target_timeline`.
    pub timeline: Timeline,
    /// Where in the WAL that is, as far as is known: before the end of the window at most.
    pub stop_lsn: Option<Lsn>,
    /// The ends of the window that it lies in.
    pub bounds: Bounds,
    /// That window's place in the list that was chosen from.
    pub stretch: usize,
    /// The first segment of the server's own timeline, where nothing of that is verified and recovery goes on into it.
    pub unverified: Option<SegmentName>,
}

/// Finds how to reach a target, given the windows, oldest first, and who knows all of their backups.
///
/// # Errors
/// Where it cannot be reached: what can be instead.
pub fn choose(
    stretches: &[Stretch],
    origins: &dyn Origins,
    wanted: &Wanted,
    evidence: &Evidence,
    now: DateTime<Utc>,
) -> Result<Choice, Refusal> {
    let open = eligible(stretches, wanted.timeline)?;
    let choosing = Choosing {
        stretches: &open,
        all: stretches,
        origins,
        inclusive: wanted.inclusive,
    };
    match &wanted.target {
        Target::Latest => choosing.latest(),
        Target::Time(time) => choosing.time(*time, now),
        Target::Lsn(lsn) => choosing.lsn(*lsn),
        Target::Name(name) => choosing.name(name, evidence),
        Target::Xid(xid) => choosing.xid(*xid, evidence),
    }
}

/// The windows that end on the timeline asked for; those of the server's own history where none is.
fn eligible(stretches: &[Stretch], timeline: Option<Timeline>) -> Result<Vec<(usize, &Stretch)>, Refusal> {
    let mut known: Vec<Timeline> = stretches.iter().map(|stretch| stretch.timeline).collect();
    known.sort_unstable();
    known.dedup();
    let all = || stretches.iter().enumerate();
    let open: Vec<_> = match timeline {
        Some(wanted) if !known.contains(&wanted) => {
            return Err(Refusal::UnknownTimeline {
                timeline: wanted,
                known,
                left_at: None,
            });
        }
        Some(wanted) => all().filter(|(_, stretch)| stretch.timeline == wanted).collect(),
        None => all().filter(|(_, stretch)| stretch.on_history).collect(),
    };
    if open.is_empty() {
        return Err(Refusal::NoWindow { branches: known });
    }
    Ok(open)
}

struct Choosing<'a> {
    stretches: &'a [(usize, &'a Stretch)],
    all: &'a [Stretch],
    origins: &'a dyn Origins,
    inclusive: bool,
}

/// A place in the WAL that has a name or a number, which others may have too.
struct Place {
    segment: SegmentName,
    /// The backup must be consistent here at the latest.
    consistent_by: Lsn,
    /// Replay that starts before this comes across it.
    seen_from: Lsn,
    /// For a message.
    shown: Lsn,
    /// For a message.
    at: Option<DateTime<Utc>>,
}

/// The ends of a window, and a target, in one measure.
struct Placed<T> {
    from: T,
    to: T,
    target: T,
}

impl Choosing<'_> {
    /// How the best backup of those that fit gets there: the newest of those of which it is on record where they are.
    fn with_best(&self, stretch: usize, stop: Stop, fit: &Fit) -> Option<Choice> {
        let of = self.all.get(stretch)?;
        let best = self.origins.best(stretch, fit)?;
        let stop_lsn = match &stop {
            Stop::End => Some(of.bounds.to_lsn),
            Stop::Lsn(lsn) => Some(*lsn),
            _ => None,
        };
        Some(Choice {
            backup: best.origin.id,
            newer_without_place: best.newer_without_place,
            start: best.origin.start,
            backup_at: best.origin.consistent_time,
            stop,
            inclusive: self.inclusive,
            timeline: of.timeline,
            stop_lsn,
            bounds: of.bounds,
            stretch,
            unverified: None,
        })
    }

    fn latest(&self) -> Result<Choice, Refusal> {
        self.stretches
            .iter()
            .max_by_key(|(_, stretch)| (stretch.is_current, stretch.bounds.to_lsn))
            .and_then(|(index, _)| self.with_best(*index, Stop::End, &Fit::ANY))
            .ok_or(Refusal::NoWindow { branches: Vec::new() })
            .map(|choice| Choice {
                inclusive: true,
                ..choice
            })
    }

    fn time(&self, time: DateTime<Utc>, now: DateTime<Utc>) -> Result<Choice, Refusal> {
        if time > now {
            return Err(Refusal::InTheFuture {
                time,
                now,
                last: self.stretches.last().map(|(_, stretch)| stretch.end()),
            });
        }
        for (index, stretch) in self.stretches.iter().rev() {
            let (Some(from), Some(to)) = (stretch.bounds.from_time, stretch.bounds.to_time) else {
                continue;
            };
            if time < from || time > to {
                continue;
            }
            // Only a later commit (or, exclusively, one at this time) makes the server stop. Where nothing was committed since, the
            // end of the WAL is that moment.
            let reached_by_time = time < to || (!self.inclusive && from < to);
            let stop = if reached_by_time {
                Stop::Time(time)
            } else {
                Stop::Lsn(stretch.bounds.to_lsn)
            };
            let fit = Fit {
                consistent_time: Some((time, self.inclusive)),
                ..Fit::ANY
            };
            if let Some(mut choice) = self.with_best(*index, stop, &fit) {
                choice.inclusive = choice.inclusive || !reached_by_time;
                return Ok(choice);
            }
        }
        Err(self.outside(Asked::Time(time), &|stretch| {
            let (from, to) = (stretch.bounds.from_time?, stretch.bounds.to_time?);
            Some(Placed { from, to, target: time })
        }))
    }

    fn lsn(&self, lsn: Lsn) -> Result<Choice, Refusal> {
        self.stretches
            .iter()
            .rev()
            .filter(|(_, stretch)| (stretch.bounds.from_lsn..=stretch.bounds.to_lsn).contains(&lsn))
            .find_map(|(index, _)| {
                let fit = Fit {
                    consistent_by: lsn,
                    ..Fit::ANY
                };
                self.with_best(*index, Stop::Lsn(lsn), &fit)
            })
            .ok_or_else(|| self.outside_by_lsn(Asked::Lsn(lsn), lsn))
    }

    fn name(&self, name: &str, evidence: &Evidence) -> Result<Choice, Refusal> {
        if evidence.points.is_empty() {
            return Err(Refusal::UnknownName {
                name: name.to_owned(),
                newest: evidence.newest_names.clone(),
            });
        }
        let places: Vec<Place> = evidence
            .points
            .iter()
            .map(|point| Place {
                segment: point.segment,
                // Its record begins at least a record's header before its end.
                consistent_by: point.lsn.less(1),
                seen_from: point.lsn,
                shown: point.lsn,
                at: point.at,
            })
            .collect();
        self.place(places, &Asked::Name(name.to_owned()), &Stop::Name(name.to_owned()))
            .map(|choice| Choice {
                inclusive: true,
                ..choice
            })
    }

    fn xid(&self, xid: u32, evidence: &Evidence) -> Result<Choice, Refusal> {
        if evidence.commits.is_empty() {
            return Err(Refusal::UnknownXid {
                xid,
                unread: evidence.unread,
                last: self.stretches.last().map(|(_, stretch)| stretch.end()),
            });
        }
        let places: Vec<Place> = evidence
            .commits
            .iter()
            .map(|commit| Place {
                segment: commit.segment,
                consistent_by: commit.lsn,
                seen_from: commit.lsn.plus(1),
                shown: commit.lsn,
                at: commit.at,
            })
            .collect();
        self.place(places, &Asked::Xid(xid), &Stop::Xid(xid))
    }

    /// The newest of several places that are called the same and can be reached. The server stops at the first one that its
    /// replay comes across, so the backup must lie behind the others.
    fn place(&self, mut places: Vec<Place>, asked: &Asked, stop: &Stop) -> Result<Choice, Refusal> {
        places.sort_by_key(|place| place.seen_from);
        places.dedup_by_key(|place| (place.seen_from, place.segment));
        for (index, stretch) in self.stretches.iter().rev() {
            let on_path: Vec<&Place> = places.iter().filter(|place| stretch.holds(&place.segment)).collect();
            for (position, place) in on_path.iter().enumerate().rev() {
                let earlier = position.checked_sub(1).and_then(|before| on_path.get(before));
                let becomes_consistent = Fit {
                    consistent_by: place.consistent_by,
                    ..Fit::ANY
                };
                let passes_no_other = Fit {
                    started_from: earlier.map_or(Lsn::INVALID, |earlier| earlier.seen_from),
                    ..becomes_consistent
                };
                if let Some(mut choice) = self.with_best(*index, stop.clone(), &passes_no_other) {
                    choice.stop_lsn = Some(place.seen_from);
                    return Ok(choice);
                }
                // The window's first backup is the first to be consistent.
                if stretch.origins.iter().any(|origin| becomes_consistent.suits(origin)) {
                    return Err(Refusal::Repeated {
                        asked: asked.clone(),
                        places: on_path.iter().map(|place| (place.shown, place.at)).collect(),
                        way_out: self.way_to(asked, place, stretch),
                    });
                }
            }
        }
        let newest = places.last().map_or(Lsn::INVALID, |place| place.shown);
        Err(self.outside_by_lsn(asked.clone(), newest))
    }

    /// The LSN, and recovery_target_inclusive with it, that stops at the same place whatever it is called.
    fn way_to(&self, asked: &Asked, place: &Place, stretch: &Stretch) -> (Lsn, bool) {
        match asked {
            // The start of its record.
            Asked::Xid(_) => (place.shown, self.inclusive),
            _ if place.seen_from <= stretch.bounds.to_lsn => (place.seen_from, false),
            _ => (stretch.bounds.to_lsn, true),
        }
    }

    fn outside_by_lsn(&self, asked: Asked, lsn: Lsn) -> Refusal {
        self.outside(asked, &|stretch| {
            Some(Placed {
                from: stretch.bounds.from_lsn,
                to: stretch.bounds.to_lsn,
                target: lsn,
            })
        })
    }

    /// What lies nearest to a target that no window holds.
    fn outside<T: Ord + Copy>(&self, asked: Asked, place: &dyn Fn(&Stretch) -> Option<Placed<T>>) -> Refusal {
        let placed = || {
            self.stretches
                .iter()
                .filter_map(|(_, stretch)| Some((place(stretch)?, *stretch)))
        };
        let before = placed()
            .filter(|(placed, _)| placed.to < placed.target)
            .max_by_key(|(placed, _)| placed.to)
            .map(|(_, stretch)| stretch.end());
        let after = placed()
            .filter(|(placed, _)| placed.from > placed.target)
            .min_by_key(|(placed, _)| placed.from)
            .map(|(_, stretch)| stretch.beginning());
        let elsewhere = self
            .all
            .iter()
            .filter(|other| !self.stretches.iter().any(|(_, open)| std::ptr::eq(*open, *other)))
            .filter(|other| place(other).is_some_and(|placed| (placed.from..=placed.to).contains(&placed.target)))
            .map(|other| other.timeline)
            .next_back();
        Refusal::Outside {
            asked,
            before,
            after,
            elsewhere,
        }
    }
}

#[cfg(test)]
#[allow(clippy::panic)]
mod tests;
