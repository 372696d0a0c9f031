//! Reading segments one after the other, each beginning with what the one before it left.

use super::Inspection;
use crate::access::Opening;
use crate::catalog;
use crate::catalog::archive::Finding;
use crate::error::Result;
use crate::verification::Subject;
use wal::{Handover, SegmentName, SegmentReader};

/// What came of reading a segment.
pub enum Looked {
    /// It was there.
    Found(Box<Finding>),
    /// It was not; one sentence says how that was found.
    NotThere(String),
}

/// Reads segments through one buffer.
pub struct Succession {
    reader: SegmentReader,
    last: Option<(SegmentName, Option<Handover>)>,
}

/// What is on record that a segment's verification needs.
pub struct Precedent {
    handover: Option<Handover>,
    sound_sha256: Option<String>,
}

impl Precedent {
    /// Looks it up. Needs a transaction.
    pub fn of(inspection: &Inspection, segment: SegmentName) -> Result<Self> {
        Ok(Self {
            handover: inspection.recorded_handover(segment)?,
            sound_sha256: catalog::archive::sound_sha256(&segment.to_string())?,
        })
    }
}

impl Succession {
    /// Nothing read yet.
    pub fn new() -> Self {
        Self {
            reader: SegmentReader::new(),
            last: None,
        }
    }

    /// Reads one segment. `between` is called after each piece with its length in bytes, and with 0 while there is none.
    ///
    /// # Errors
    /// Where the archive as a whole cannot be read now.
    pub fn read(
        &mut self,
        inspection: &mut Inspection,
        segment: SegmentName,
        precedent: Precedent,
        between: &mut dyn FnMut(usize),
    ) -> Result<Looked> {
        let before = match self.last.take() {
            Some((previous, handover)) if inspection.predecessor(segment) == Some(previous) => handover,
            _ => precedent.handover,
        };
        let opening = inspection.read(&segment.to_string(), &mut || between(0))?;
        let history = inspection.history.as_of(segment.timeline);
        let subject = Subject {
            server: &inspection.server,
            history: history.as_ref(),
            name: segment,
            before,
            sound_sha256: precedent.sound_sha256,
        };
        let finding = match opening {
            Opening::File(opened) => subject.look_at(opened, &mut self.reader, between),
            Opening::Unreadable(sentence) => subject.unreadable(&sentence),
            Opening::NotThere(sentence) => return Ok(Looked::NotThere(sentence)),
        };
        let handover = finding.handover.as_deref();
        self.last = Some((segment, handover.and_then(|bytes| Handover::from_bytes(bytes).ok())));
        Ok(Looked::Found(Box::new(finding)))
    }
}
