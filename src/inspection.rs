//! The inspection of the archive: what should be there, what is there, what is on record, and what follows from it.
//!
//! The worker keeps one from tick to tick; `verify_wal_archive()` begins anew. Whoever calls it opens the transactions: what
//! needs one says so, and everything else touches no table, so that none is held open while a slow disk answers.

use crate::access::{Access, Waiting};
use crate::catalog;
use crate::catalog::archive::{Finding, Recorded as Row, Unread};
use crate::error::{Error, Result};
use crate::server::Server;
use crate::settings;
use archive::chain::{Decision, Held, Judge, Mark, Memory, Recorded};
use archive::expected::{self, Stretch};
use archive::index::{Index, State};
use archive::{Source, Status};
use std::collections::{BTreeMap, BTreeSet};
use wal::{Handover, Lsn, PgTimestamp, Problem, SegmentName, SegmentSize, Timeline, TimelineHistory, WalFileName};

mod decided;
mod sentences;
mod strangers;
mod succession;
mod texts;

pub use decided::Decided;
pub use succession::{Looked, Precedent, Succession};
use texts::Texts;

/// Decisions are made on so many segments at once, bounded so that neither memory nor a transaction grows with the archive.
const LOT: usize = 4096;
/// A backlog is read newest first, in lots that are read oldest first: so many bytes of WAL each.
const LOT_TO_READ: u64 = 1 << 30;
/// So many segments are looked at again in each look, in turn: one that was overwritten in place shows only then.
const ROUND: usize = 512;
/// So many of the newest segments that are lost or no good are looked for again in each look.
const TROUBLE: usize = 256;
/// So many that are not sound are asked for in each look, in turn, where each costs a process.
const TROUBLE_UNLISTED: usize = 4;

/// What is known of the archive. All of it can be found again from the tables and the archive.
pub struct Inspection {
    source: Source,
    access: Access,
    memory: Memory,
    index: Index,
    /// What is expected. The index begins earlier where the archive holds more: that is read too, and not missed.
    expected: Vec<Stretch>,
    texts: Texts,
    /// The oldest WAL that a backup needs, as of which event of the ledger, on which timeline.
    needed_from: Option<(catalog::ledger::Version, Timeline, Option<Lsn>)>,
    /// Whether a name may have come or gone since all decisions were made.
    changed: bool,
    /// Where the oldest segment begins that the archive holds of the server's history, if it holds any; `None` where that has to
    /// be found out anew.
    oldest: Option<Option<Lsn>>,
    /// Segments of other branches that have a row.
    strangers: BTreeSet<SegmentName>,
    /// The last segment of the last lot.
    decided_to: Option<SegmentName>,
    /// Where the round of [`ROUND`] goes on.
    round: Option<SegmentName>,
    /// The same among those that are not sound, where each costs a process.
    round_of_trouble: Option<SegmentName>,
    /// Where the search for rows that nothing needs any more goes on.
    outside: (u32, u64),
    server: Server,
    history: TimelineHistory,
    ready: BTreeSet<String>,
    local: BTreeSet<String>,
    now: PgTimestamp,
}

impl Inspection {
    /// Looks at the server, and not yet at the archive. `memory` is what is known of the archiver.
    ///
    /// # Errors
    /// Where the server's own directories cannot be read.
    pub fn new(source: &Source, server: &Server, memory: Memory, waiting: Waiting) -> Result<Self> {
        Ok(Self {
            source: source.clone(),
            access: Access::new(source, server, waiting),
            memory,
            index: Index::default(),
            expected: Vec::new(),
            texts: Texts::default(),
            needed_from: None,
            changed: true,
            oldest: None,
            strangers: BTreeSet::new(),
            decided_to: None,
            round: None,
            round_of_trouble: None,
            outside: (0, 0),
            server: server.clone(),
            history: server.history()?,
            ready: BTreeSet::new(),
            local: BTreeSet::new(),
            now: PgTimestamp(0),
        })
    }

    /// Whether it is of this archive, as this server would open it.
    pub fn is_of(&self, source: &Source, server: &Server) -> bool {
        self.source == *source && self.server.format == server.format
    }

    /// Remembers what is on record from before, and forgets what is of another cluster. Needs a transaction; to be called once.
    pub fn load(&mut self) -> Result<()> {
        catalog::archive::forget_other_clusters(self.server.system_identifier())?;
        let most = i64::try_from(2 * LOT).unwrap_or(i64::MAX);
        self.strangers = catalog::archive::strangers(most)?
            .iter()
            .filter_map(|name| self.segment(name))
            .collect();
        self.texts = Texts::load()?;
        Ok(())
    }

    /// Gathers the facts of this moment, in the order that [`archive::chain`] asks for.
    ///
    /// # Errors
    /// Where the archive or the server's own directories cannot be read: then nothing may be concluded.
    pub fn gather(&mut self, server: &Server, now: PgTimestamp) -> Result<()> {
        let history = server.history()?;
        if self.history != history {
            self.changed = true;
            self.oldest = None;
        }
        self.server = server.clone();
        self.history = history;
        self.now = now;
        self.ready = server.ready_files()?;
        self.local = server.local_files()?;
        if self.access.refresh(server, &self.history, &self.local)? {
            self.changed = true;
            self.oldest = None;
        }
        self.memory.observe(&self.ready, settings::archive_grace(), now);
        Ok(())
    }

    /// Finds out which segments are expected. Needs a transaction.
    ///
    /// # Errors
    /// Where the archive as a whole is not to be believed.
    pub fn expect(&mut self) -> Result<()> {
        if let Some(listing) = self.access.listing() {
            let on_record = || catalog::archive::files_on_record().map(i64::unsigned_abs);
            self.memory
                .trust(listing.root(), listing.is_empty(), on_record)?
                .map_err(|distrust| Error::Archive(format!("{}: {distrust}", self.source)))?;
        }
        let size = self.size();
        let needed_from = self.needed_from()?;
        let flush = self.server.flush;
        let oldest = match self.oldest {
            Some(oldest) => oldest,
            None => expected::oldest(&self.history, self.access.segments()),
        };
        self.oldest = Some(oldest);
        let begin = expected::begin(needed_from, oldest, flush);
        let begin_reading = oldest.map_or(begin, |oldest| oldest.min(begin));
        self.expected = expected::expected(&self.history, size, begin, flush);
        self.index
            .align(&expected::expected(&self.history, size, begin_reading, flush));
        Ok(())
    }

    /// Whether it is of interest: expected, or there all the same.
    fn matters(&self, segment: &SegmentName) -> bool {
        self.is_expected(segment) || self.access.holds(segment) == Some(true)
    }

    fn is_expected(&self, segment: &SegmentName) -> bool {
        self.expected.iter().any(|stretch| stretch.contains(segment))
    }

    /// The oldest WAL that a backup needs. Without a change in the ledger, and on the same timeline, it is what it was.
    fn needed_from(&mut self) -> Result<Option<Lsn>> {
        let version = catalog::ledger::version()?;
        match self.needed_from {
            Some((of, timeline, lsn)) if of == version && timeline == self.history.timeline() => Ok(lsn),
            _ => {
                let system = self.server.system_identifier();
                let lsn = catalog::outline::needed_from(system, &self.history, self.size())?;
                self.needed_from = Some((version, self.history.timeline(), lsn));
                Ok(lsn)
            }
        }
    }

    fn size(&self) -> SegmentSize {
        self.server.format.segment_size
    }

    /// The first lot of segments on which a decision is due: those that are looked at in each look, and what else there is room
    /// for. What is due after them, [`Inspection::next_lot`] gives.
    pub fn first_lot(&mut self) -> Vec<SegmentName> {
        self.decided_to = None;
        let mut lot: BTreeSet<SegmentName> = self.next_lot().into_iter().collect();
        let (settled, trouble) = match self.access.is_listed() {
            true => {
                lot.extend(self.index.newest(State::Lost, TROUBLE));
                lot.extend(self.index.newest(State::Bad, TROUBLE));
                (&[State::Sound, State::Bad, State::Lost][..], &[][..])
            }
            // Each that is not sound costs a process; of the others only the row is looked at, which somebody may have changed.
            false => (&[State::Sound][..], &[State::Bad, State::Lost][..]),
        };
        lot.extend(
            self.ready
                .iter()
                .filter_map(|name| self.segment(name))
                .filter(|segment| self.index.state(segment) == State::Lost),
        );
        let round = self.index.round(settled, self.round, ROUND);
        self.round = round.last().copied();
        lot.extend(round);
        let asked_for = self.index.round(trouble, self.round_of_trouble, TROUBLE_UNLISTED);
        self.round_of_trouble = asked_for.last().copied();
        lot.extend(asked_for);
        lot.into_iter().filter(|segment| self.matters(segment)).collect()
    }

    /// The next segments on which a decision is due, after those of the lot before; empty after the last.
    pub fn next_lot(&mut self) -> Vec<SegmentName> {
        // While no name has come or gone, what is there is as it was decided about.
        let holds = |segment: &SegmentName| self.access.holds(segment).filter(|_| self.changed);
        let after = self.decided_to;
        let lot: Vec<SegmentName> = self
            .index
            .undecided(holds)
            .filter(|segment| after.is_none_or(|after| *segment > after) && self.matters(segment))
            .take(LOT)
            .collect();
        self.decided_to = lot.last().copied().or(after);
        lot
    }

    /// Looks these segments up in the archive.
    ///
    /// # Errors
    /// Where the archive cannot be read.
    pub fn look_up(&mut self, lot: &[SegmentName]) -> Result<Vec<(SegmentName, Held)>> {
        let (asked, absent): (Vec<SegmentName>, Vec<SegmentName>) = lot
            .iter()
            .partition(|segment| self.access.holds(segment) != Some(false));
        let held = self.access.look_up(asked.iter().map(ToString::to_string).collect())?;
        let mut looked_up: Vec<(SegmentName, Held)> = asked.into_iter().zip(held).collect();
        looked_up.extend(absent.into_iter().map(|segment| (segment, Held::Absent)));
        looked_up.sort_by_key(|(segment, _)| *segment);
        Ok(looked_up)
    }

    /// Decides about segments that were looked up. Needs a transaction.
    pub fn decide(&self, looked_up: Vec<(SegmentName, Held)>) -> Result<Decided> {
        let names = looked_up.iter().map(|(segment, _)| segment.to_string()).collect();
        let rows = self.recorded(names)?;
        let judge = self.judge();
        let segments = looked_up
            .into_iter()
            .map(|(segment, held)| {
                let name = segment.to_string();
                let record = rows.get(&name).copied();
                (segment, held, judge.decide(&name, held, record.as_ref()), record)
            })
            .collect();
        Ok(Decided { segments })
    }

    fn judge(&self) -> Judge<'_> {
        Judge {
            ready: &self.ready,
            local: &self.local,
            grace: settings::archive_grace(),
            now: self.now,
            memory: &self.memory,
        }
    }

    /// What is on record of the files of these names. Needs a transaction.
    fn recorded(&self, names: Vec<String>) -> Result<BTreeMap<String, Recorded>> {
        catalog::archive::recorded(names)?
            .into_iter()
            .map(|row| Ok((row.name.clone(), self.read_row(&row)?)))
            .collect()
    }

    fn read_row(&self, row: &Row) -> Result<Recorded> {
        let status: Status = row
            .status
            .parse()
            .map_err(|_| Error::UnexpectedAnswer { what: "a known status" })?;
        let problem = row.problem.as_deref();
        let mark = row.stored_bytes.zip(row.changed_at);
        Ok(Recorded {
            status,
            mark: mark.map(|(bytes, changed_at)| Mark {
                bytes: bytes.unsigned_abs(),
                changed_at: PgTimestamp(changed_at),
            }),
            noticed_at: PgTimestamp(row.first_seen_at),
            due: status.is_bad()
                && status != Status::Acknowledged
                && match problem {
                    // Not the file's fault, perhaps: permissions and network mounts come back.
                    Some(problem) if problem == Problem::Unreadable.as_str() => true,
                    // What was another branch's history when it was read may be ours after a promotion.
                    Some(problem) if problem == Problem::ForeignTimeline.as_str() && self.is_our_history(&row.name) => {
                        true
                    }
                    _ => !self.access.is_listed(),
                },
            absent: matches!(problem, Some("missing" | "not_archived" | "missing_history")),
            rescuable: problem == Some("not_archived"),
        })
    }

    /// Enters what was decided about segments that are not there, or not to be read yet. Needs a transaction.
    pub fn record(&self, decided: &Decided) -> Result<()> {
        let unread: Vec<Unread> = decided
            .segments
            .iter()
            .filter_map(|(segment, held, decision, record)| self.unread(segment, *held, *decision, record.as_ref()))
            .collect();
        catalog::archive::store_unread(&unread)
    }

    /// Remembers what was decided, once it is on record.
    pub fn settle(&mut self, decided: &Decided) {
        for (segment, held, decision, record) in &decided.segments {
            let state = match decision {
                Decision::Stands => record.as_ref().map_or(State::Unknown, |record| standing(record, *held)),
                Decision::Waits | Decision::Await => State::Awaited,
                Decision::Read(_) => State::Queued,
                Decision::Lose(_) => State::Lost,
            };
            self.index.set(segment, state);
        }
    }

    /// Remembers that everything was decided about, and is on record.
    pub fn have_decided(&mut self) {
        self.changed = false;
    }

    /// Names of segments that have a row and are not expected: some of them, in turn. Needs a transaction.
    pub fn unneeded(&mut self) -> Result<Vec<String>> {
        if !self.access.is_listed() {
            return Ok(Vec::new());
        }
        let mut stretches: Vec<catalog::archive::Range> = self.expected.iter().map(range).collect();
        // What lies ahead may be a later caller's.
        if let Some(last) = stretches.last_mut() {
            last.2 = u64::MAX;
        }
        let most = i64::try_from(LOT).unwrap_or(i64::MAX);
        let (names, last) = catalog::archive::outside(&stretches, self.outside, most)?;
        self.outside = last.filter(|_| names.len() == LOT).unwrap_or_default();
        Ok(names)
    }

    /// Those of them that are not in the archive.
    ///
    /// # Errors
    /// Where the archive cannot be read.
    pub fn gone(&mut self, names: Vec<String>) -> Result<Vec<String>> {
        // Left over from before a change of the segment size: a name that means nothing now.
        let (asked, mut gone): (Vec<String>, Vec<String>) =
            names.into_iter().partition(|name| self.segment(name).is_some());
        let held = self.access.look_up(asked.clone())?;
        let absent = asked.into_iter().zip(held).filter(|(_, held)| *held == Held::Absent);
        gone.extend(absent.map(|(name, _)| name));
        Ok(gone)
    }

    /// The newest segments that are to be read, ascending.
    pub fn lot_to_read(&self) -> Vec<SegmentName> {
        let most = usize::try_from(LOT_TO_READ / self.size().bytes())
            .unwrap_or(LOT)
            .clamp(8, LOT);
        self.index.newest(State::Queued, most)
    }

    /// The segment of this name, if it is one.
    pub fn segment(&self, name: &str) -> Option<SegmentName> {
        SegmentName::parse(name, self.size()).ok()
    }

    /// Has a segment wait for the next look.
    pub fn put_off(&mut self, segment: &SegmentName) {
        self.index.set(segment, State::Awaited);
    }

    /// Segments without a verdict that are expected, or there.
    pub fn unverified(&self) -> u64 {
        let open = |state| matches!(state, State::Unknown | State::Awaited | State::Queued);
        let segments = self.index.entries().filter(|(_, state)| open(*state));
        segments.filter(|(segment, _)| self.matters(segment)).count() as u64
    }

    /// Segments that can be read and that the archiver is not about to send again, in order: all that are held, or all that are
    /// expected where the archive cannot be listed.
    pub fn readable(&self) -> Vec<SegmentName> {
        let listed: Vec<SegmentName> = match self.access.listing() {
            Some(listing) => listing.segments().collect(),
            None => self.index.entries().map(|(segment, _)| segment).collect(),
        };
        listed
            .into_iter()
            .filter(|segment| !self.ready.contains(&segment.to_string()))
            .collect()
    }

    /// How many segments there may be to read.
    pub fn segments(&self) -> u64 {
        self.index
            .stretches()
            .map(|stretch| stretch.last - stretch.first + 1)
            .sum()
    }

    fn is_our_history(&self, name: &str) -> bool {
        match WalFileName::classify(name, self.size()) {
            Some(WalFileName::History(timeline)) => self.history.contains(timeline),
            _ => false,
        }
    }

    /// The segment in front of `segment`, on whichever timeline it was written.
    fn predecessor(&self, segment: SegmentName) -> Option<SegmentName> {
        let previous = segment.previous()?;
        let history = self.history.as_of(segment.timeline)?;
        Some(SegmentName {
            timeline: history.timeline_of_segment(previous.number, previous.size),
            ..previous
        })
    }

    /// What the segment in front of `segment` handed over, as recorded. Needs a transaction.
    fn recorded_handover(&self, segment: SegmentName) -> Result<Option<Handover>> {
        let Some(previous) = self.predecessor(segment) else {
            return Ok(None);
        };
        let bytes = catalog::archive::handover(&previous.to_string())?;
        // What an older version stored and this one cannot read is as good as nothing: the segment is read without it.
        Ok(bytes.and_then(|bytes| Handover::from_bytes(&bytes).ok()))
    }

    /// The segment after `segment`, if it was verified without knowing how `segment` ends, or knowing another end: its first
    /// record has to be read again. Needs a transaction; call it before `finding` is stored.
    fn successor_to_repeat(&self, segment: SegmentName, finding: &Finding) -> Result<Option<SegmentName>> {
        let Some(next) = segment.next() else {
            return Ok(None);
        };
        let next = SegmentName {
            timeline: self.history.timeline_of_segment(next.number, next.size),
            ..next
        };
        if !matches!(self.index.state(&next), State::Sound | State::Bad) || finding.handover.is_none() {
            return Ok(None);
        }
        let before = catalog::archive::handover(&finding.name)?;
        Ok((before != finding.handover).then_some(next))
    }

    /// Stores what came of reading a segment, and gives the segment after it if that has to be read again. Needs a transaction.
    pub fn store(&mut self, segment: SegmentName, looked: &Looked) -> Result<Option<SegmentName>> {
        match looked {
            Looked::Found(finding) => {
                let repeat = self.successor_to_repeat(segment, finding)?;
                store_news(finding)?;
                let sound = finding.status == Status::Verified;
                self.index.set(&segment, if sound { State::Sound } else { State::Bad });
                if let Some(repeat) = repeat {
                    // On record, for whoever is to do it may not live to do it.
                    let detail =
                        format!("{repeat} is read again: what it follows upon, {segment}, has been verified anew.");
                    catalog::archive::read_anew(&repeat.to_string(), &detail)?;
                    self.index.set(&repeat, State::Queued);
                }
                Ok(repeat)
            }
            Looked::NotThere(sentence) => self.store_not_there(segment, sentence).map(|()| None),
        }
    }

    /// What is not there although it was listed, the next look will find missing. Of an archive that cannot be listed, this is
    /// the only way to learn it.
    fn store_not_there(&mut self, segment: SegmentName, sentence: &str) -> Result<()> {
        self.index.set(&segment, State::Unknown);
        let name = segment.to_string();
        let rows = self.recorded(vec![name.clone()])?;
        let Some(record) = rows.get(&name).filter(|_| !self.access.is_listed()) else {
            return Ok(());
        };
        if !self.is_expected(&segment) {
            return catalog::archive::forget(vec![name]);
        }
        let decision = self.judge().absent(&name, record);
        if let Some(unread) = self.unread(&segment, Held::Absent, decision, Some(record)) {
            // A command to be pasted may stand at the end.
            let detail = format!("{sentence} {}", unread.detail);
            catalog::archive::store_unread(&[Unread { detail, ..unread }])?;
        }
        self.settle(&Decided {
            segments: vec![(segment, Held::Absent, decision, Some(*record))],
        });
        Ok(())
    }
}

/// Stores a finding. What is no good is looked at again and again, and is news once.
fn store_news(finding: &Finding) -> Result<()> {
    let is_sound = finding.status == Status::Verified;
    if is_sound || !catalog::archive::is_on_record(finding)? {
        catalog::archive::store(finding)?;
    }
    Ok(())
}

/// What a verdict on record says, where it stands.
fn standing(record: &Recorded, held: Held) -> State {
    match record.status {
        Status::Verified => State::Sound,
        Status::Corrupt | Status::Foreign => State::Bad,
        Status::Acknowledged if held == Held::Absent || record.absent => State::Lost,
        Status::Acknowledged => State::Bad,
        Status::Missing => State::Lost,
        Status::Pending => State::Awaited,
    }
}

fn range(stretch: &Stretch) -> catalog::archive::Range {
    (
        stretch.timeline.0,
        stretch.name(stretch.first).start().0,
        stretch.name(stretch.last).end().0,
    )
}
