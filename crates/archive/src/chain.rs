//! The chain: what the archive should hold, what it does hold, and what is already known of it, made into what to do now.
//!
//! Pure sums over facts that the caller gathered **in this order**, so that nothing just done is taken for undone: the server's
//! flush LSN, then the archiver's `.ready` files, then the listing. What comes out is proportional to the news, not to the archive.
//!
//! The caller carries out a [`Plan`] in one transaction before it verifies anything: every expected segment then has a row, and
//! whatever lies between two verified rows and is not sound is on record as such. Crate `recovery` relies on that.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use wal::{PgTimestamp, SegmentName, Timeline, WalFileName};

use crate::expected::Stretch;
use crate::listing::{Listing, RootId, StoredFile};
use crate::status::Status;

/// How a file looked when it was last read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mark {
    /// Its size in the archive.
    pub bytes: u64,
    /// Its ctime.
    pub changed_at: PgTimestamp,
}

impl Mark {
    /// How a file looks now.
    pub const fn of(file: &StoredFile) -> Self {
        Self {
            bytes: file.bytes,
            changed_at: file.changed_at,
        }
    }
}

/// What is on record of one archived file: its `wal_archive` row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Recorded {
    /// The verdict.
    pub status: Status,
    /// How it looked when it was read; none if it was never seen in the archive. Kept when it goes missing.
    pub mark: Option<Mark>,
    /// When it was first expected or seen.
    pub noticed_at: PgTimestamp,
    /// That it is to be read again although it looks the same: the last attempt failed for a reason outside the file, its
    /// predecessor changed, or `reverify_interval` has passed.
    pub due: bool,
}

/// What the caller gathered for one look at the archive.
#[derive(Debug, Clone, Copy)]
pub struct Inputs<'a> {
    /// The segments that the archive must hold, see [`expected`](crate::expected::expected).
    pub expected: &'a [Stretch],
    /// What it holds; none if it could not be listed, and then nothing changes.
    pub listing: Option<&'a Listing>,
    /// What is on record of segments.
    pub recorded: &'a BTreeMap<SegmentName, Recorded>,
    /// What is on record of history and backup history files, by file name.
    pub recorded_others: &'a BTreeMap<String, Recorded>,
    /// Names (without the suffix) that have a `.ready` file in `pg_wal/archive_status`: the archiver has yet to send them, or to
    /// finish sending.
    pub ready: &'a BTreeSet<String>,
    /// How long a file that the archiver called done may stay invisible (`archive_grace`).
    pub grace: Duration,
    /// The time.
    pub now: PgTimestamp,
}

/// Why a file is to be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Why {
    /// It has not been read yet.
    New,
    /// It does not look as it did when it was read.
    Changed,
    /// It was missing, or given up, and is there again.
    BackAgain,
    /// Its row asks for it.
    Due,
}

/// A segment to be verified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ToVerify {
    /// Which.
    pub segment: SegmentName,
    /// How it looked in the listing. What the verdict is about is how it looks when it is opened.
    pub file: StoredFile,
    /// Why.
    pub why: Why,
}

/// A history or backup history file to be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ToRead {
    /// What it is by its name.
    pub kind: WalFileName,
    /// How it looked in the listing.
    pub file: StoredFile,
    /// Why.
    pub why: Why,
}

/// How a file came to be missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Loss {
    /// The archiver does not mean to send it (any more), and it did not appear within `archive_grace`.
    NeverArrived,
    /// It was in the archive and is not there now.
    Gone,
}

/// Something odd about the archive as a whole, that forbids conclusions about single files.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Suspicion {
    /// It is empty, though WAL was read from it before, and it is not known to be the same directory: most likely a file system
    /// is not mounted.
    #[error(
        "the archive holds no WAL file at all, although {files} were read from it before; is its file system mounted?"
    )]
    EmptyElsewhere {
        /// How many files are on record as having been there.
        files: u64,
    },
}

/// What to do. Segments are in the order of timeline, then place.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Plan {
    /// Read and verify these segments.
    pub to_verify: Vec<ToVerify>,
    /// Read these history and backup history files.
    pub to_read: Vec<ToRead>,
    /// Enter these as `pending`: expected, and without a row, or with a verdict that holds no longer because the archiver is
    /// sending them (again).
    ///
    /// With each the mark that the row is to have from now on: set if the file is in the archive and ready to be read, so that
    /// it is noticed should it vanish before.
    pub newly_pending: Vec<(SegmentName, Option<Mark>)>,
    /// Enter these as `missing`.
    pub newly_missing: Vec<(SegmentName, Loss)>,
    /// These were missing or given up and are in the archive again. They are in `to_verify` too, or, while the archiver is still
    /// writing, in `newly_pending`.
    pub back_again: Vec<SegmentName>,
    /// Delete the rows of these segments: gone, and nothing needs them.
    pub forgotten: Vec<SegmentName>,
    /// Enter the history files of these timelines as `pending`.
    pub newly_pending_histories: Vec<Timeline>,
    /// Enter the history files of these timelines as `missing` (`missing_history`).
    pub newly_missing_histories: Vec<(Timeline, Loss)>,
    /// Delete the rows of these history and backup history files.
    pub forgotten_others: Vec<String>,
    /// How many expected segments are without a verdict: in the archive or not, read before or not.
    pub unverified: u64,
    /// Set where the archive as a whole is not to be believed; then everything above is empty.
    pub suspicion: Option<Suspicion>,
}

impl Plan {
    /// Whether it has anything to say of files that are not there, or not to be read.
    pub const fn has_absences(&self) -> bool {
        !(self.newly_pending.is_empty()
            && self.newly_missing.is_empty()
            && self.forgotten.is_empty()
            && self.newly_pending_histories.is_empty()
            && self.newly_missing_histories.is_empty()
            && self.forgotten_others.is_empty())
    }
}

/// What the chain remembers from one look to the next, beyond the rows. Losing it (a restart) only makes it more patient.
#[derive(Debug, Clone)]
pub struct Memory {
    since: PgTimestamp,
    root: Option<RootId>,
    last_ready: BTreeMap<String, PgTimestamp>,
}

impl Memory {
    /// Nothing seen yet.
    pub const fn new(now: PgTimestamp) -> Self {
        Self {
            since: now,
            root: None,
            last_ready: BTreeMap::new(),
        }
    }

    /// When the archiver is known to have had `name` still before it, or might have had.
    fn patience_from(&self, name: &str, noticed_at: PgTimestamp) -> PgTimestamp {
        self.last_ready.get(name).copied().unwrap_or(self.since).max(noticed_at)
    }

    fn observe(&mut self, inputs: &Inputs<'_>) {
        let grace = micros(inputs.grace);
        self.last_ready
            .retain(|_, seen| inputs.now.0.saturating_sub(seen.0) <= grace);
        for name in inputs.ready {
            self.last_ready.insert(name.clone(), inputs.now);
        }
        // A clock set back must not make everything wait until it is where it was.
        self.since = self.since.min(inputs.now);
        if let Some(listing) = inputs.listing.filter(|listing| !listing.is_empty()) {
            self.root = Some(listing.root);
        }
    }
}

/// Compares what is expected, held and recorded.
pub fn plan(inputs: &Inputs<'_>, memory: &mut Memory) -> Plan {
    let mut plan = Plan::default();
    memory.observe(inputs);
    let Some(listing) = inputs.listing else {
        return plan;
    };
    if listing.is_empty() && memory.root != Some(listing.root) {
        let seen = |r: &&Recorded| r.mark.is_some() && !matches!(r.status, Status::Missing | Status::Acknowledged);
        let files = inputs
            .recorded
            .values()
            .chain(inputs.recorded_others.values())
            .filter(seen)
            .count();
        if files > 0 {
            plan.suspicion = Some(Suspicion::EmptyElsewhere {
                files: u64::try_from(files).unwrap_or(u64::MAX),
            });
            return plan;
        }
    }
    let judge = Judge { inputs, memory };
    for stretch in inputs.expected {
        segments(&judge, listing, stretch, &mut plan);
    }
    plan.forgotten = inputs
        .recorded
        .keys()
        .filter(|segment| is_past(inputs.expected, segment) && !listing.segments.contains_key(segment))
        .copied()
        .collect();
    others(&judge, listing, &mut plan);
    plan
}

/// Whether nothing needs a segment any more. One ahead of the expected ones on the same timeline may be a later caller's.
fn is_past(expected: &[Stretch], segment: &SegmentName) -> bool {
    !expected.iter().any(|stretch| stretch.contains(segment))
        && !expected
            .last()
            .is_some_and(|last| last.timeline == segment.timeline && last.last < segment.number)
}

fn segments(judge: &Judge<'_>, listing: &Listing, stretch: &Stretch, plan: &mut Plan) {
    let range = stretch.name(stretch.first)..=stretch.name(stretch.last);
    let mut held = listing.segments.range(range.clone()).peekable();
    let mut recorded = judge.inputs.recorded.range(range).peekable();
    for number in stretch.first..=stretch.last {
        let segment = stretch.name(number);
        let file = held.next_if(|(name, _)| **name == segment).map(|(_, file)| file);
        let record = recorded
            .next_if(|(name, _)| **name == segment)
            .map(|(_, record)| record);
        let action = judge.needed(file, record, || segment.to_string());
        let settled = match action {
            Action::Leave => record.is_some_and(|r| r.status != Status::Pending),
            Action::Lost(_) => true,
            Action::Read(_) | Action::Await => false,
        };
        plan.unverified += u64::from(!settled);
        if file.is_some() && record.is_some_and(|r| matches!(r.status, Status::Missing | Status::Acknowledged)) {
            plan.back_again.push(segment);
        }
        match (action, file) {
            (Action::Read(why), Some(file)) => {
                if record.is_none() {
                    plan.newly_pending.push((segment, Some(Mark::of(file))));
                }
                plan.to_verify.push(ToVerify {
                    segment,
                    file: file.clone(),
                    why,
                });
            }
            (Action::Await, _) => plan.newly_pending.push((segment, None)),
            (Action::Lost(loss), _) => plan.newly_missing.push((segment, loss)),
            (Action::Leave | Action::Read(_), _) => {}
        }
    }
}

fn others(judge: &Judge<'_>, listing: &Listing, plan: &mut Plan) {
    let recorded = judge.inputs.recorded_others;
    let mut held: BTreeMap<&str, &StoredFile> = BTreeMap::new();
    for (kind, file) in &listing.others {
        // The segment that a timeline ended in: recovery does not ask for it.
        if matches!(kind, WalFileName::Partial(_)) {
            continue;
        }
        held.insert(&file.name, file);
        if let Action::Read(why) = judge.needed(Some(file), recorded.get(&file.name), || file.name.clone()) {
            plan.to_read.push(ToRead {
                kind: *kind,
                file: file.clone(),
                why,
            });
        }
    }
    // A recovery that crosses into a timeline needs its history file. The first timeline's is not asked for: nothing is before it.
    let needed: BTreeMap<String, Timeline> = judge
        .inputs
        .expected
        .iter()
        .skip(1)
        .map(|stretch| (format!("{:08X}.history", stretch.timeline.0), stretch.timeline))
        .collect();
    for (name, timeline) in &needed {
        if held.contains_key(name.as_str()) {
            continue;
        }
        match judge.needed(None, recorded.get(name), || name.clone()) {
            Action::Await => plan.newly_pending_histories.push(*timeline),
            Action::Lost(loss) => plan.newly_missing_histories.push((*timeline, loss)),
            Action::Leave | Action::Read(_) => {}
        }
    }
    plan.forgotten_others = recorded
        .keys()
        .filter(|name| !held.contains_key(name.as_str()) && !needed.contains_key(*name))
        .cloned()
        .collect();
}

/// What is to be done about one file that is needed, or that is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Action {
    Leave,
    Read(Why),
    Await,
    Lost(Loss),
}

struct Judge<'a> {
    inputs: &'a Inputs<'a>,
    memory: &'a Memory,
}

impl Judge<'_> {
    /// `name` is asked for only where there is news, since making it costs more than all the rest.
    fn needed(&self, file: Option<&StoredFile>, record: Option<&Recorded>, name: impl Fn() -> String) -> Action {
        match (file, record) {
            (Some(file), Some(record)) => {
                let why = match record.status {
                    Status::Missing | Status::Acknowledged => Why::BackAgain,
                    Status::Pending => Why::New,
                    _ if record.mark != Some(Mark::of(file)) => Why::Changed,
                    _ if record.due => Why::Due,
                    _ => return Action::Leave,
                };
                if !self.is_ready(&name()) {
                    Action::Read(why)
                } else if matches!(why, Why::BackAgain | Why::Changed) {
                    // Neither what was found before nor the loss is true any more, and what comes instead is not finished.
                    Action::Await
                } else {
                    Action::Leave
                }
            }
            // The archiver may be in the middle of writing it.
            (Some(_), None) => {
                if self.is_ready(&name()) {
                    Action::Await
                } else {
                    Action::Read(Why::New)
                }
            }
            (None, None) => Action::Await,
            (None, Some(record)) => self.absent(record, &name()),
        }
    }

    fn absent(&self, record: &Recorded, name: &str) -> Action {
        let ready = self.is_ready(name);
        match record.status {
            // Given up by the DBA: only its return is news.
            Status::Acknowledged => Action::Leave,
            Status::Missing if ready => Action::Await,
            Status::Missing => Action::Leave,
            Status::Pending if ready => Action::Leave,
            // The archiver means to send it again, as it does after a crash.
            _ if ready => Action::Await,
            Status::Pending if record.mark.is_none() => {
                let from = self.memory.patience_from(name, record.noticed_at);
                if self.inputs.now.0.saturating_sub(from.0) >= micros(self.inputs.grace) {
                    Action::Lost(Loss::NeverArrived)
                } else {
                    Action::Leave
                }
            }
            Status::Pending | Status::Verified | Status::Corrupt | Status::Foreign => Action::Lost(Loss::Gone),
        }
    }

    fn is_ready(&self, name: &str) -> bool {
        self.inputs.ready.contains(name)
    }
}

fn micros(duration: Duration) -> i64 {
    i64::try_from(duration.as_micros()).unwrap_or(i64::MAX)
}

/// Consecutive segments of one timeline about which the same can be said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Run<T> {
    /// The first of them.
    pub first: SegmentName,
    /// The last of them.
    pub last: SegmentName,
    /// How many they are.
    pub segments: u64,
    /// What can be said about each.
    pub about: T,
}

/// Groups segments into runs. They must come in ascending order; each comes with what is to be equal within a run.
pub fn runs<T: PartialEq>(segments: impl IntoIterator<Item = (SegmentName, T)>) -> Vec<Run<T>> {
    let mut runs: Vec<Run<T>> = Vec::new();
    for (segment, about) in segments {
        match runs.last_mut() {
            Some(run) if run.last.next() == Some(segment) && run.about == about => {
                run.last = segment;
                run.segments += 1;
            }
            _ => runs.push(Run {
                first: segment,
                last: segment,
                segments: 1,
                about,
            }),
        }
    }
    runs
}

#[cfg(test)]
mod tests;
