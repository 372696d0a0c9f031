//! Recoveries that nobody recorded: what one was, took and lost, out of the traces that it left.
//!
//! What the traces do not tell stays unknown, with the reason; where they tell it indirectly, a remark says which was used.

use chrono::{DateTime, Utc};
use wal::{Lsn, Timeline};

use crate::lives::Beginning;
use crate::stop_reason::StopReason;
use crate::traces::{Branch, Durability, Traces};

/// The column `recovery_type` of `recovery_history`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RecoveryType {
    /// To a time.
    PointInTime,
    /// To a position.
    Lsn,
    /// To a transaction.
    Xid,
    /// To a restore point.
    Name,
    /// To the first consistent state.
    Immediate,
    /// To the end of the WAL.
    Latest,
    /// After a crash, in place.
    Crash,
    /// A standby took over.
    Failover,
}

impl RecoveryType {
    /// The word in the table.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::PointInTime => "point_in_time",
            Self::Lsn => "lsn",
            Self::Xid => "xid",
            Self::Name => "name",
            Self::Immediate => "immediate",
            Self::Latest => "latest",
            Self::Crash => "crash",
            Self::Failover => "failover",
        }
    }
}

/// A row of `recovery_history`, as far as it can be filled.
#[derive(Debug, Clone, PartialEq)]
pub struct Detected {
    /// What kind of recovery it was.
    pub kind: RecoveryType,
    /// The timeline that was followed.
    pub target_timeline: Option<Timeline>,
    /// When it began.
    pub start: DateTime<Utc>,
    /// When it was over.
    pub end: DateTime<Utc>,
    /// When the server that was recovered had failed.
    pub failure_time: Option<DateTime<Utc>>,
    /// Seconds of replay.
    pub replay_seconds: Option<f64>,
    /// Seconds from the end of replay until the server accepted writes.
    pub startup_seconds: Option<f64>,
    /// Bytes of WAL that were replayed.
    pub wal_replayed_bytes: Option<u64>,
    /// The last commit that was recovered.
    pub recovered_to_time: Option<DateTime<Utc>>,
    /// The end of what was recovered.
    pub recovered_to: Option<Lsn>,
    /// What it took.
    pub rto_seconds: Option<f64>,
    /// What was lost.
    pub rpo_seconds: Option<f64>,
    /// The evidence for a column, or why it is not known: the column and a sentence.
    pub remarks: Vec<(&'static str, String)>,
}

impl Traces {
    /// The recovery that this life began with; none where there was none, or nothing certain is known.
    #[must_use]
    pub fn recovery(&self) -> Option<Detected> {
        match (self.beginning, &self.branch) {
            (Beginning::Crash, _) => Some(self.crash()),
            (Beginning::Backup, _) => Some(self.restored_in_place_of_wal()),
            (Beginning::Archive, Some(branch)) => Some(self.restore(branch)),
            (Beginning::Standby, Some(branch)) => Some(match StopReason::parse(&branch.reason) {
                // Ended by promotion, as any standby's recovery is; with a target set or not.
                stop if stop.kind == RecoveryType::Latest || !stop.reached => self.failover(branch),
                _ => self.restore(branch),
            }),
            _ => None,
        }
    }

    fn crash(&self) -> Detected {
        let mut remarks = Vec::new();
        let mut undated = None;
        let start = if self.is_copy {
            remarks.push((
                "start_time",
                "the start of this server: it runs on a copy of the files, so how long the original was down is not known here"
                    .to_owned(),
            ));
            self.began_at
        } else {
            let last = self.last_alive();
            undated = self.no_downtime(last.map(|(at, _)| at));
            let (at, evidence) = last.unwrap_or((
                self.began_at,
                "the start of the server: nothing tells when it was last alive",
            ));
            remarks.push(("start_time", evidence.to_owned()));
            at
        };
        self.say_end(&mut remarks);
        let (rpo_seconds, because) = self.lost_in_crash();
        remarks.push(("rpo_seconds", because));
        self.say_no_commit(&mut remarks);
        let replay_seconds = span(self.began_at, self.writes_at);
        if replay_seconds.is_some() {
            remarks.push((
                "replay_seconds",
                "from the start until the server accepted writes: replay and the checkpoint after it together"
                    .to_owned(),
            ));
        }
        let mut found = Detected {
            kind: RecoveryType::Crash,
            target_timeline: None,
            failure_time: (!self.is_copy && undated.is_none()).then_some(start),
            replay_seconds,
            startup_seconds: None,
            wal_replayed_bytes: replayed(self.redo, self.recovered_to),
            recovered_to_time: self.last_commit_at,
            recovered_to: self.recovered_to,
            rpo_seconds,
            ..self.timed(start, self.writes_at, remarks)
        };
        if let Some(because) = undated
            && found.rto_seconds.take().is_some()
        {
            found.remarks.push(("rto_seconds", because));
        }
        found
    }

    /// Why a last sign of life does not tell how long the server was down; none where it does.
    ///
    /// A heartbeat is given at each tick. All else comes from work, and an idle server does none: then its last sign may be days
    /// older than its end.
    fn no_downtime(&self, last: Option<DateTime<Utc>>) -> Option<String> {
        let Some(last) = last else {
            return Some("not known: nothing tells when the server was last alive".to_owned());
        };
        let heartbeat = self.heartbeat_at.filter(|at| *at <= self.began_at);
        let is_near = |later: DateTime<Utc>| later - last <= self.checkpoint_timeout;
        // Later than a heartbeat is not long after it, unless the worker had been stopped.
        if is_near(self.began_at) || heartbeat.is_some_and(|at| last - at <= self.checkpoint_timeout) {
            return None;
        }
        Some(format!(
            "not known: there is no heartbeat of the worker from then, and the last sign of life is {} s older than the start of the \
             server, more than checkpoint_timeout ({} s): it may have been idle in between, and not down",
            (self.began_at - last).num_seconds(),
            self.checkpoint_timeout.num_seconds()
        ))
    }

    /// When the life before was last seen, and the evidence: no later than its end, and as near to it as there is any.
    fn last_alive(&self) -> Option<(DateTime<Utc>, &'static str)> {
        let seen = [
            (self.heartbeat_at, "the worker's last heartbeat before the crash"),
            (
                self.last_commit_at,
                "the last commit that was recovered, which is later than the worker's last heartbeat",
            ),
            (
                self.control_written_at,
                "the time at which pg_control was last written, since no later heartbeat of the worker was found",
            ),
        ];
        seen.into_iter()
            .filter_map(|(at, evidence)| Some((at.filter(|at| *at <= self.began_at)?, evidence)))
            .max_by_key(|(at, _)| *at)
    }

    fn lost_in_crash(&self) -> (Option<f64>, String) {
        let known = |text: &str| (Some(0.0), text.to_owned());
        let unknown = |text: &str| (None, text.to_owned());
        let Durability {
            fsync,
            full_page_writes,
            synchronous_commit,
        } = self.durability;
        match self.same_boot {
            _ if self.is_copy => {
                unknown("not known: this server runs on a copy of the files, and the original may have gone on")
            }
            _ if !synchronous_commit => unknown(
                "not known: synchronous_commit is off, so commits of up to three times wal_writer_delay may have been \
                 acknowledged and not written",
            ),
            // What a process has written is the kernel's, whatever becomes of the process.
            Some(true) => known(
                "nothing: the machine ran on, so all WAL that was written is there, and commits are written before they are \
                 acknowledged",
            ),
            _ if !fsync => unknown("not known: fsync is off, and the machine may have gone down too"),
            _ if !full_page_writes => {
                unknown("not known: full_page_writes is off, and the machine may have gone down too")
            }
            _ => known("nothing: commits are flushed to disk before they are acknowledged"),
        }
    }

    fn failover(&self, branch: &Branch) -> Detected {
        let mut remarks = Vec::new();
        let end = branch.written_at.unwrap_or(self.writes_at);
        // Both are the primary's last signs of life; the later one is nearer to its end.
        let heard = self.primary_heard_at.filter(|at| *at <= end);
        let committed = self.last_commit_at.filter(|at| *at <= end);
        let (start, evidence) = match (heard, committed) {
            (Some(heard), Some(committed)) if committed > heard => {
                (committed, "the last commit of the primary that was received")
            }
            (Some(heard), _) => (heard, "when the primary was last heard"),
            (None, _) => (
                end,
                "the promotion itself: this server never saw itself connected to a primary",
            ),
        };
        remarks.push(("start_time", evidence.to_owned()));
        remarks.push((
            "end_time",
            format!("when the history file of timeline {} was written", branch.timeline.0),
        ));
        // The beginning of a record may have arrived that was never finished: nobody was told of what was to be in it.
        let arrived = self.received.map_or(branch.at, |received| received.max(branch.at));
        let lost = self
            .primary_end
            .map(|end| end.bytes_since(arrived))
            .filter(|lost| *lost > 0);
        let mut rpo_seconds = None;
        let because = match (heard, lost) {
            _ if self.primary_shut_down => {
                rpo_seconds = Some(0.0);
                "nothing: the primary had been shut down in order, and all of its WAL arrived".to_owned()
            }
            (Some(heard), Some(lost)) => {
                remarks.push(("lost_bytes", lost.to_string()));
                rpo_seconds = committed.and_then(|commit| span(commit, heard.max(commit)));
                format!(
                    "the primary had said to have {lost} bytes of WAL more than arrived here; from the last commit that arrived to \
                     when it was last heard"
                )
            }
            (Some(heard), None) => format!(
                "not known: all arrived that the primary was known to have, but what it committed after it was last heard at {} \
                 cannot be known here",
                heard.format("%Y-%m-%d %H:%M:%S UTC")
            ),
            (None, _) => "not known: this server never saw itself connected to a primary".to_owned(),
        };
        remarks.push(("rpo_seconds", because));
        remarks.push(("timeline", branch.timeline.0.to_string()));
        let mut found = Detected {
            kind: RecoveryType::Failover,
            target_timeline: Some(branch.parent),
            failure_time: heard.map(|_| start).filter(|_| !self.primary_shut_down),
            recovered_to_time: self.last_commit_at,
            recovered_to: Some(branch.at),
            rpo_seconds,
            ..self.timed(start, end, remarks)
        };
        if heard.is_none() {
            found.rto_seconds = None;
            found.remarks.push((
                "rto_seconds",
                "not known: nothing tells since when there was no primary".to_owned(),
            ));
        }
        found
    }

    fn restore(&self, branch: &Branch) -> Detected {
        let stop = StopReason::parse(&branch.reason);
        let mut remarks = vec![(
            "start_time",
            "the start of the server: how long it took to copy the backup back before is not known to it".to_owned(),
        )];
        self.say_end(&mut remarks);
        let ended = branch.written_at.filter(|at| *at >= self.began_at);
        let replayed_at = match (self.paused_at, ended) {
            (Some(paused), _) => {
                remarks.push((
                    "replay_seconds",
                    "until replay was found paused: the server then waited for pg_wal_replay_resume() or a promotion"
                        .to_owned(),
                ));
                Some(paused)
            }
            (None, ended) => ended,
        };
        let (rpo_seconds, because) = self.lost_in_restore(&stop);
        remarks.push(("rpo_seconds", because));
        if let (RecoveryType::PointInTime, Some(error)) = (stop.kind, &self.target_unread) {
            remarks.push(("target_time", format!("not known: {error}")));
        }
        if !stop.reached {
            remarks.push((
                "recovery_type",
                "the server was promoted before it reached the target".to_owned(),
            ));
        }
        remarks.push(("reason", branch.reason.trim().to_owned()));
        remarks.push(("timeline", branch.timeline.0.to_string()));
        Detected {
            kind: stop.kind,
            target_timeline: Some(branch.parent),
            failure_time: None,
            replay_seconds: replayed_at.and_then(|at| span(self.began_at, at)),
            startup_seconds: ended.and_then(|at| span(at, self.writes_at)),
            wal_replayed_bytes: replayed(self.backup_start.or(self.redo), Some(branch.at)),
            recovered_to_time: self.last_commit_at,
            recovered_to: Some(branch.at),
            rpo_seconds,
            ..self.timed(self.began_at, self.writes_at, remarks)
        }
    }

    fn lost_in_restore(&self, stop: &StopReason) -> (Option<f64>, String) {
        match (stop.kind, self.target_time, self.last_commit_at) {
            (RecoveryType::PointInTime, Some(target), Some(commit)) => (
                Some(span(commit, target).unwrap_or(0.0)),
                "from the last commit that was recovered to recovery_target_time".to_owned(),
            ),
            (RecoveryType::PointInTime, None, _) if self.target_unread.is_some() => {
                (None, "not known: recovery_target_time could not be read".to_owned())
            }
            (RecoveryType::PointInTime, Some(_), None) => (
                None,
                "not known: no commit was replayed, so there is none to measure from".to_owned(),
            ),
            _ => (
                None,
                "not known: there is no time that was meant to be reached, and none at which the original had failed"
                    .to_owned(),
            ),
        }
    }

    /// A backup that was started without a signal file: it takes its WAL from its own pg_wal.
    fn restored_in_place_of_wal(&self) -> Detected {
        let mut remarks = vec![
            (
                "start_time",
                "the start of the server: how long it took to copy the backup back before is not known to it".to_owned(),
            ),
            (
                "recovery_type",
                "a backup was started without recovery.signal: it replayed the WAL in its own pg_wal and stayed on its timeline"
                    .to_owned(),
            ),
            (
                "rpo_seconds",
                "not known: nothing tells when the original had failed".to_owned(),
            ),
        ];
        self.say_end(&mut remarks);
        self.say_no_commit(&mut remarks);
        Detected {
            kind: RecoveryType::Latest,
            target_timeline: None,
            failure_time: None,
            replay_seconds: span(self.began_at, self.writes_at),
            startup_seconds: None,
            wal_replayed_bytes: replayed(self.backup_start, self.recovered_to),
            recovered_to_time: self.last_commit_at,
            recovered_to: self.recovered_to,
            rpo_seconds: None,
            ..self.timed(self.began_at, self.writes_at, remarks)
        }
    }

    fn say_end(&self, remarks: &mut Vec<(&'static str, String)>) {
        let seen = match self.no_writes_at.and_then(|before| span(before, self.writes_at)) {
            Some(seconds) if seconds >= 0.001 => {
                format!("when the server was found to accept writes; {seconds:.1} s before, it did not yet")
            }
            _ => "when the server was found to accept writes".to_owned(),
        };
        remarks.push(("end_time", seen));
    }

    fn say_no_commit(&self, remarks: &mut Vec<(&'static str, String)>) {
        if self.last_commit_at.is_some() {
            return;
        }
        let because = match (&self.unread, self.recovered_to) {
            (Some(error), _) => format!("not known: {error}"),
            (None, Some(_)) => "nothing was committed in the WAL that was replayed".to_owned(),
            (None, None) => "not known: the end of the WAL that was replayed was not seen".to_owned(),
        };
        remarks.push(("recovered_to_time", because));
    }

    /// The times, and an RTO where the clock makes sense.
    fn timed(&self, start: DateTime<Utc>, end: DateTime<Utc>, mut remarks: Vec<(&'static str, String)>) -> Detected {
        let rto_seconds = span(start, end);
        if rto_seconds.is_none() {
            remarks.push((
                "rto_seconds",
                "not known: the clock was set back, so the end appears to be before the start".to_owned(),
            ));
        }
        Detected {
            kind: RecoveryType::Crash,
            target_timeline: None,
            start,
            end,
            failure_time: None,
            replay_seconds: None,
            startup_seconds: None,
            wal_replayed_bytes: None,
            recovered_to_time: None,
            recovered_to: None,
            rto_seconds,
            rpo_seconds: None,
            remarks,
        }
    }
}

/// Seconds from one moment to another; none where the second is earlier.
fn span(from: DateTime<Utc>, to: DateTime<Utc>) -> Option<f64> {
    let micros = (to - from).num_microseconds()?;
    (micros >= 0).then_some(micros as f64 / 1e6)
}

fn replayed(from: Option<Lsn>, to: Option<Lsn>) -> Option<u64> {
    let (from, to) = (from?, to?);
    (to >= from).then(|| to.bytes_since(from))
}
