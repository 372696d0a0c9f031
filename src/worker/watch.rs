//! The watch: for how long the state that was seen last is known to have held.
//!
//! Between two samples nothing is written, so a reader cannot tell a cluster at rest from a worker that was away. The worker can:
//! as long as one look follows upon the other, nothing has changed in between. It keeps the end of that time in shared memory, for
//! the views and for the worker that comes after it, and adds it to `recovery_hourly` with the next sample.

use crate::shmem;
use chrono::{DateTime, TimeDelta, Utc};
use recovery::readiness::stale_after;
use std::time::{Duration, Instant};

/// A clock that goes differently from the machine's own by more than this between two looks was set.
const CLOCK_SET: Duration = Duration::from_secs(1);

/// When somebody looked last.
#[derive(Clone, Copy)]
pub struct Watch {
    /// By the clock, which may be set.
    wall: DateTime<Utc>,
    /// By a clock that is never set, and that stands still while the machine sleeps.
    steady: Instant,
}

/// What a look found of the time since the one before.
#[derive(Clone, Copy)]
pub struct Held {
    /// Up to when what the look before saw is known to have held.
    pub to: DateTime<Utc>,
    /// Whether that is up to now.
    pub unbroken: bool,
}

impl Watch {
    /// The look that was taken then, by both clocks.
    pub fn at(wall: DateTime<Utc>, steady: Instant) -> Self {
        Self { wall, steady }
    }

    /// What this look, after `before`, says of the time in between.
    pub fn after(&self, before: &Self, check_interval: Duration) -> Held {
        let passed = self.steady.saturating_duration_since(before.steady);
        let by_the_clock = self.wall.signed_duration_since(before.wall);
        let passed_delta = TimeDelta::from_std(passed).unwrap_or(TimeDelta::MAX);
        let was_set = (by_the_clock - passed_delta)
            .abs()
            .to_std()
            .is_ok_and(|apart| apart > CLOCK_SET);
        if passed > stale_after(check_interval) {
            // Nobody looked for so long that anything may have been.
            return Held {
                to: before.wall,
                unbroken: false,
            };
        }
        Held {
            to: match was_set {
                true => before.wall + by_the_clock.clamp(TimeDelta::zero(), passed_delta),
                false => self.wall,
            },
            unbroken: !was_set,
        }
    }
}

/// Tells everybody until when the sample taken at `sample` is known to hold.
pub fn publish(sample: DateTime<Utc>, held_to: DateTime<Utc>) {
    shmem::update(|status| {
        status.sampled_at = sample.timestamp_micros();
        status.sample_held_to = held_to.timestamp_micros();
    });
}

/// Until when the sample taken at `sample` is known to hold; none where nobody can tell.
pub fn held_to(sample: DateTime<Utc>) -> Option<DateTime<Utc>> {
    shmem::read()
        .filter(|status| status.sampled_at == sample.timestamp_micros())
        .and_then(|status| DateTime::from_timestamp_micros(status.sample_held_to))
}
