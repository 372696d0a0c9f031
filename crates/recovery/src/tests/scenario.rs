//! Made-up clusters with segments of 16 MB. Positions are given in segments: `at(3.5)` is the middle of segment 3.

use std::time::Duration;

use archive::Status;
use chrono::{DateTime, TimeDelta, Utc};
use wal::{Lsn, SegmentName, SegmentSize, Timeline, TimelineHistory};

use crate::*;

pub const SIZE: SegmentSize = SegmentSize::DEFAULT;

pub fn now() -> DateTime<Utc> {
    DateTime::from_timestamp(1_700_000_000, 0).unwrap()
}

pub fn ago(seconds: i64) -> DateTime<Utc> {
    now() - TimeDelta::seconds(seconds)
}

pub fn at(segments: f64) -> Lsn {
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    Lsn((segments * 16_777_216.0) as u64)
}

pub fn segment(timeline: u32, number: u64) -> SegmentName {
    SegmentName {
        timeline: Timeline(timeline),
        number,
        size: SIZE,
    }
}

/// A full backup of timeline 1.
pub fn backup(id: i64, start: f64, end: f64) -> BackupFact {
    BackupFact {
        id,
        backup_type: BackupType::Full,
        parent_id: None,
        timeline: Timeline(1),
        start: Some(at(start)),
        end: Some(at(end)),
        finished_at: Some(ago(86_400)),
        size: Some(1 << 30),
        status: BackupStatus::Completed,
        error: None,
        verification: Verification::Unverified,
        wal_included: false,
    }
}

/// Segments 1 to 9 are verified and 10 is being written, all on timeline 1; everything else is in order.
pub fn cluster(backups: Vec<BackupFact>) -> Facts {
    Facts {
        now: now(),
        size: SIZE,
        history: TimelineHistory::root(Timeline(1)),
        flush: Some(at(10.5)),
        is_standby: false,
        backups,
        needs: None,
        unlisted: 0,
        put_in_by_sql: None,
        broken: Vec::new(),
        extents: vec![Extent {
            timeline: Timeline(1),
            first: at(1.0),
            last: at(10.0),
        }],
        broken_histories: Vec::new(),
        receivers: Vec::new(),
        archiver: Archiver {
            mode_on: true,
            source: Ok("dir:/mnt/archive".to_owned()),
            unreadable: None,
            failing: None,
            grace: Duration::from_secs(60),
        },
        worker: WorkerFact {
            last_tick_at: Some(ago(3)),
            check_interval: Duration::from_secs(10),
            error: None,
            not_started: None,
        },
        target_rpo: Some(Duration::from_secs(300)),
        target_rto: Some(Duration::from_secs(3600)),
        rates: Rates::default(),
    }
}

/// Rates by which a backup of 1 GB takes so long to restore, and nothing else takes any time.
pub fn restores_in(seconds: f64) -> Rates {
    Rates::of(&[Measured {
        recovery: 1,
        restored_bytes: Some(1 << 30),
        restore_seconds: Some(seconds),
        replayed_bytes: Some(1 << 62),
        replay_seconds: Some(0.001),
        startup_seconds: Some(0.0),
    }])
}

pub fn broken(timeline: u32, number: u64, status: Status, problem: &str) -> BrokenRun {
    BrokenRun {
        first: segment(timeline, number),
        last: segment(timeline, number),
        status,
        problem: Some(problem.to_owned()).filter(|p| !p.is_empty()),
        noticed_at: ago(3600),
        stored: matches!(status, Status::Corrupt | Status::Foreign),
    }
}

pub fn missing(number: u64) -> BrokenRun {
    broken(1, number, Status::Missing, "missing")
}

impl Facts {
    /// The same with these segments not in order.
    pub fn with_broken(mut self, broken: impl IntoIterator<Item = BrokenRun>) -> Self {
        self.broken.extend(broken);
        self
    }

    /// What is concluded where a commit 5 s old is the oldest behind the protected LSN.
    pub fn verdict(&self) -> Verdict {
        self.verdict_with(OldestCommit::At(ago(5)))
    }

    /// What is concluded with this oldest commit.
    pub fn verdict_with(&self, oldest: OldestCommit) -> Verdict {
        assess(self, &survey(self), &oldest)
    }
}

impl Verdict {
    /// That some reason of this weight says all of these.
    #[track_caller]
    pub fn says(&self, weight: Readiness, words: &[&str]) {
        let found = self
            .reasons
            .iter()
            .any(|r| r.weight == weight && words.iter().all(|w| r.sentence.contains(w)));
        assert!(found, "no {weight} reason with {words:?} in {:#?}", self.reasons);
    }
}
