//! One inspection of the archive: what should be there, what is there, what is on record, and what follows from it.
//!
//! The worker and `verify_wal_archive()` share it. Whoever calls it opens the transactions.

use crate::catalog;
use crate::catalog::archive::{Absent, Finding};
use crate::error::{Error, Result};
use crate::server::{self, Server};
use crate::{detection, settings, verification};
use archive::chain::{self, Inputs, Loss, Mark, Memory, Plan, Recorded};
use archive::expected::{self, Stretch};
use archive::{Derived, Listing, Setting, Source, Status, derive, listing};
use std::collections::{BTreeMap, BTreeSet};
use wal::{Handover, PgTimestamp, Problem, SegmentName, SegmentReader, TimelineHistory, WalFileName};

/// Where archived WAL is read, and a clause that says which setting led there.
///
/// # Errors
/// A sentence that says what to set, where the settings of the server do not tell.
pub fn choose_source(server: &Server) -> Result<Derived> {
    let setting = settings::archive_source();
    match Setting::parse(&setting).map_err(|error| Error::Archive(error.to_string()))? {
        Setting::Fixed(source) => Ok(Derived {
            source,
            because: "pg_backstop.archive_source says so".to_owned(),
        }),
        Setting::Auto => derive(
            &server::setting(c"archive_command").unwrap_or_default(),
            &server::setting(c"archive_library").unwrap_or_default(),
            &server::setting(c"basic_archive.archive_directory").unwrap_or_default(),
            server.data_directory(),
        )
        .map_err(|error| Error::Archive(error.to_string())),
    }
}

/// The facts of one moment, gathered in the order that [`chain`] asks for.
pub struct Inspection {
    server: Server,
    history: TimelineHistory,
    source: Source,
    ready: BTreeSet<String>,
    listing: Listing,
    segments: BTreeMap<SegmentName, Recorded>,
    others: BTreeMap<String, Recorded>,
    stretches: Vec<Stretch>,
}

impl Inspection {
    /// Looks at server and archive. Touches no table, so no transaction is held while a slow disk answers.
    ///
    /// # Errors
    /// Where the archive or the server's own directories cannot be read: then nothing may be concluded.
    pub fn gather(server: &Server, source: &Source) -> Result<Self> {
        let history = server.history()?;
        let ready = server.ready_files()?;
        let listing =
            listing::list(source, server.format.segment_size).map_err(|error| Error::Archive(error.to_string()))?;
        Ok(Self {
            server: server.clone(),
            history,
            source: source.clone(),
            ready,
            listing,
            segments: BTreeMap::new(),
            others: BTreeMap::new(),
            stretches: Vec::new(),
        })
    }

    /// What shows that nothing was added or removed since, see [`listing::DirectoryStamp`].
    pub fn stamp(&self) -> Option<archive::DirectoryStamp> {
        self.listing.stamp
    }

    /// Adds what is on record. Needs a transaction.
    pub fn load(&mut self) -> Result<()> {
        let size = self.server.format.segment_size;
        for row in catalog::archive::recorded()? {
            let recorded = Recorded {
                status: row
                    .status
                    .parse()
                    .map_err(|_| Error::UnexpectedAnswer { what: "a known status" })?,
                mark: row.stored_bytes.zip(row.changed_at).map(|(bytes, changed_at)| Mark {
                    bytes: bytes.unsigned_abs(),
                    changed_at: PgTimestamp(changed_at),
                }),
                noticed_at: PgTimestamp(row.first_seen_at),
                // Not the file's fault, perhaps: permissions and network mounts come back.
                due: row.problem.as_deref() == Some(Problem::Unreadable.as_str()),
            };
            match WalFileName::classify(&row.name, size) {
                Some(WalFileName::Segment(segment)) => {
                    self.segments.insert(segment, recorded);
                }
                _ => {
                    self.others.insert(row.name, recorded);
                }
            }
        }
        let backups = catalog::facts::backups(self.server.system_identifier())?;
        let needed_from = recovery::backups::needed_from(&backups, &self.history, size);
        let held = self.listing.segments.keys().copied();
        let begin = expected::begin(needed_from, &self.history, held, self.server.flush);
        self.stretches = expected::expected(&self.history, size, begin, self.server.flush);
        Ok(())
    }

    /// Compares what is expected, held and recorded.
    ///
    /// # Errors
    /// Where the archive as a whole is not to be believed.
    pub fn plan(&self, memory: &mut Memory, now: PgTimestamp) -> Result<Plan> {
        let plan = chain::plan(
            &Inputs {
                expected: &self.stretches,
                listing: Some(&self.listing),
                recorded: &self.segments,
                recorded_others: &self.others,
                ready: &self.ready,
                grace: settings::archive_grace(),
                now,
            },
            memory,
        );
        match plan.suspicion {
            Some(suspicion) => Err(Error::Archive(format!("{}: {suspicion}", self.source))),
            None => Ok(plan),
        }
    }

    /// Enters what the plan says of files that are not there. Needs a transaction.
    pub fn record_absences(&self, plan: &Plan) -> Result<()> {
        for (segment, mark) in &plan.newly_pending {
            let detail = if mark.is_some() {
                format!("{segment} is in {} and has not been verified yet.", self.source)
            } else if self.ready.contains(&segment.to_string()) {
                format!("{segment} waits in pg_wal for the archiver to send it.")
            } else {
                format!(
                    "{segment} is expected in {} and has not appeared there yet.",
                    self.source
                )
            };
            catalog::archive::store_absent(&Absent {
                waiting: mark.map(|mark| (i64::try_from(mark.bytes).unwrap_or(i64::MAX), mark.changed_at.0)),
                ..self.absent_segment(segment, Status::Pending, None, detail)
            })?;
        }
        for (segment, loss) in &plan.newly_missing {
            let detail = format!(
                "{segment} (LSN {} to {}) is expected in {} {}",
                segment.start(),
                segment.end(),
                self.source,
                why(*loss)
            );
            catalog::archive::store_absent(&self.absent_segment(segment, Status::Missing, Some("missing"), detail))?;
        }
        for timeline in &plan.newly_pending_histories {
            self.absent_history(timeline.0, Status::Pending, None, "has not appeared there yet.")?;
        }
        for (timeline, loss) in &plan.newly_missing_histories {
            self.absent_history(timeline.0, Status::Missing, Some("missing_history"), why(*loss))?;
        }
        for segment in &plan.forgotten {
            catalog::archive::forget(&segment.to_string())?;
        }
        for name in &plan.forgotten_others {
            catalog::archive::forget(name)?;
        }
        Ok(())
    }

    fn absent_segment(
        &self,
        segment: &SegmentName,
        status: Status,
        problem: Option<&'static str>,
        detail: String,
    ) -> Absent {
        Absent {
            name: segment.to_string(),
            timeline: segment.timeline.0,
            start: Some(segment.start().0),
            end: Some(segment.end().0),
            status: status.as_str(),
            problem,
            detail,
            waiting: None,
        }
    }

    fn absent_history(&self, timeline: u32, status: Status, problem: Option<&'static str>, what: &str) -> Result<()> {
        let name = format!("{timeline:08X}.history");
        let detail = format!("{name} is expected in {} {what}", self.source);
        catalog::archive::store_absent(&Absent {
            name,
            timeline,
            start: None,
            end: None,
            status: status.as_str(),
            problem,
            detail,
            waiting: None,
        })
    }

    /// Segments that the archive holds and that the archiver is not about to send again, in order.
    pub fn to_reread(&self) -> impl Iterator<Item = SegmentName> + '_ {
        self.listing
            .segments
            .keys()
            .filter(|segment| !self.ready.contains(&segment.to_string()))
            .copied()
    }

    /// History and backup history files that the archive holds.
    pub fn held_others(&self) -> impl Iterator<Item = (WalFileName, &str)> {
        let texts = self
            .listing
            .others
            .iter()
            .filter(|(kind, _)| !matches!(kind, WalFileName::Partial(_)));
        texts.map(|(kind, file)| (*kind, file.name.as_str()))
    }

    /// The segment after `segment`, if it was verified without knowing how `segment` ends, or knowing another end: its first
    /// record has to be read again. Needs a transaction; call it before `finding` is stored.
    pub fn successor_to_repeat(&self, segment: SegmentName, finding: &Finding) -> Result<Option<SegmentName>> {
        let Some(next) = segment.next() else {
            return Ok(None);
        };
        let next = SegmentName {
            timeline: self.history.timeline_of_segment(next.number, next.size),
            ..next
        };
        let was_verified = self
            .segments
            .get(&next)
            .is_some_and(|row| row.status == Status::Verified);
        if !was_verified || finding.handover.is_none() || !self.listing.segments.contains_key(&next) {
            return Ok(None);
        }
        let before = catalog::archive::handover(&finding.name)?;
        Ok((before != finding.handover).then_some(next))
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
    pub fn recorded_handover(&self, segment: SegmentName) -> Result<Option<Handover>> {
        let Some(previous) = self.predecessor(segment) else {
            return Ok(None);
        };
        let bytes = catalog::archive::handover(&previous.to_string())?;
        // What an older version stored and this one cannot read is as good as nothing: the segment is read without it.
        Ok(bytes.and_then(|bytes| Handover::from_bytes(&bytes).ok()))
    }

    /// Stores what was found in `segment`. A file that cannot be read is tried again at each look: that is news once.
    pub fn store(&self, segment: SegmentName, finding: &Finding) -> Result<()> {
        if Self::is_unreadable_still(finding, self.segments.get(&segment)) {
            return Ok(());
        }
        catalog::archive::store(finding)
    }

    fn is_unreadable_still(finding: &Finding, recorded: Option<&Recorded>) -> bool {
        finding.problem == Some(Problem::Unreadable.as_str()) && recorded.is_some_and(|recorded| recorded.due)
    }

    /// Reads a history or backup history file and stores what it tells. Needs a transaction: such a file is a few lines.
    pub fn store_text(&self, kind: WalFileName, name: &str) -> Result<()> {
        let read = verification::look_at_text(&self.server, &self.history, &self.source, kind, name);
        if !Self::is_unreadable_still(&read.finding, self.others.get(name)) {
            catalog::archive::store(&read.finding)?;
        }
        match &read.backup {
            Some(backup) => detection::record(&self.server, &self.history, name, backup),
            None => Ok(()),
        }
    }
}

fn why(loss: Loss) -> &'static str {
    match loss {
        Loss::NeverArrived => {
            "and never appeared there, although the archiver does not mean to send it any more: \
             look whether archive_command stores what it reports as stored, and copy the segment from pg_wal if it is still there."
        }
        Loss::Gone => {
            "and is not there any more, although it was: restore it from another copy of the archive, \
             or take a new base backup."
        }
    }
}

/// Reads segments of an inspected archive, oldest first, through one buffer, and has each begin with what the one before it left.
pub struct Succession<'a> {
    inspection: &'a Inspection,
    reader: SegmentReader,
    last: Option<(SegmentName, Option<Handover>)>,
}

impl<'a> Succession<'a> {
    /// Nothing read yet.
    pub fn new(inspection: &'a Inspection) -> Self {
        Self {
            inspection,
            reader: SegmentReader::new(),
            last: None,
        }
    }

    /// Reads one segment. `recorded` gives what is on record of the one before it, where that was not read just now; nothing
    /// else here touches a table. `between` is called after each piece that was read.
    ///
    /// # Errors
    /// Those of `recorded`.
    pub fn verify(
        &mut self,
        segment: SegmentName,
        recorded: impl FnOnce() -> Result<Option<Handover>>,
        between: &mut dyn FnMut(usize),
    ) -> Result<Finding> {
        let inspection = self.inspection;
        let before = match self.last.take() {
            Some((previous, handover)) if inspection.predecessor(segment) == Some(previous) => handover,
            _ => recorded()?,
        };
        let history = inspection.history.as_of(segment.timeline);
        let finding = verification::look_at_segment(
            &inspection.server,
            history.as_ref(),
            &inspection.source,
            segment,
            before,
            &mut self.reader,
            between,
        );
        let handover = finding.handover.as_deref();
        self.last = Some((segment, handover.and_then(|bytes| Handover::from_bytes(bytes).ok())));
        Ok(finding)
    }
}
