//! Reading segments one after the other, each beginning with what the one before it left.

use super::Inspection;
use crate::access::ReadOutcome;
use crate::catalog;
use crate::catalog::archive::Finding;
use crate::error::Result;
use wal::{Handover, SegmentName};

/// What came of reading a segment.
pub enum Looked {
    /// It was there.
    Found(Box<Finding>),
    /// It was not; one sentence says how that was found.
    NotThere(String),
}

/// Segments read one after the other.
#[derive(Default)]
pub struct Succession {
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
    /// Reads one segment, at so many bytes a second at most.
    ///
    /// # Errors
    /// Where the archive as a whole cannot be read now.
    pub fn read(
        &mut self,
        inspection: &mut Inspection,
        segment: SegmentName,
        precedent: Precedent,
        bytes_per_second: Option<u64>,
    ) -> Result<Looked> {
        let before = match self.last.take() {
            Some((previous, handover)) if inspection.predecessor(segment) == Some(previous) => handover,
            _ => precedent.handover,
        };
        let read =
            inspection
                .access
                .read_segment(segment, before.as_ref(), precedent.sound_sha256, bytes_per_second)?;
        let finding = match read {
            ReadOutcome::Found(finding) => finding,
            ReadOutcome::NotThere(sentence) => return Ok(Looked::NotThere(sentence)),
        };
        let handover = finding.handover.as_deref();
        self.last = Some((segment, handover.and_then(|bytes| Handover::from_bytes(bytes).ok())));
        Ok(Looked::Found(Box::new(finding)))
    }
}
