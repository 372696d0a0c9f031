//! What a base backup that is recorded as completed says of its own WAL: what goes into its row of the ledger.
//!
//! Nothing here fails the recording: what cannot be found out is told, and stays unknown.

use artifact::{BaseBackup, ManifestError, WalRange, read_manifest};
use pgrx::prelude::*;
use wal::{Lsn, SegmentName, Timeline};

use super::call;
use crate::base_backup::{self, OwnWal};
use crate::catalog::{PgLsn, Text, backup, prepare};
use crate::error::{Error, Result};
use crate::server::Server;

/// The WAL that the backup at `path` needs, and whether it is inside it; none where that cannot be known, or where the backup
/// there is not the one that was recorded to begin at `recorded_start`.
pub fn find(id: i64, path: &Text, recorded_start: Option<PgLsn>) -> Result<Option<backup::OwnWal>> {
    let unknown = |why: &str| {
        call::tell(
            PgLogLevel::NOTICE,
            format!("whether backup {id} has its WAL inside is not known"),
            format!("{why}."),
            "Without its own WAL it takes that of the archive to recover from it.",
        );
        Ok(None)
    };
    // What is no base backup, or is not there at all, was told when it was measured, or is nobody's concern.
    if !path.as_path().is_absolute() {
        return Ok(None);
    }
    let Ok(Some(found)) = BaseBackup::open(path.as_path()) else {
        return Ok(None);
    };
    let server = Server::observe()?;
    let between = &mut || {
        crate::memory::check_for_interrupts();
    };
    let manifest = match read_manifest(&found.manifest(), &mut |_| between()) {
        Ok(manifest) => manifest,
        Err(ManifestError::Absent { .. }) => return Ok(None),
        Err(error) => return unknown(&error.to_string()),
    };
    let ours = server.format.system_identifier;
    let identifier = manifest.system_identifier.or_else(|| {
        base_backup::control(&found)
            .ok()
            .map(|control| control.system_identifier)
    });
    if let Some(identifier) = identifier.filter(|identifier| *identifier != ours) {
        return unknown(&format!(
            "The backup at \"{}\" is of the cluster {identifier}, and this is {ours}",
            path.to_utf8()
        ));
    }
    let [range] = manifest.wal_ranges.as_slice() else {
        return unknown(&format!(
            "Its manifest names {} ranges of WAL instead of one",
            manifest.wal_ranges.len()
        ));
    };
    let recorded = recorded_start.is_some_and(|start| Lsn(start.0) <= range.start) && range.end <= server.flush;
    if !recorded || server.history()?.timeline_of(range.start) != range.timeline {
        return unknown(&format!(
            "The backup at \"{}\" goes from {} to {} on timeline {}, which is not within what was recorded",
            path.to_utf8(),
            range.start,
            range.end,
            range.timeline
        ));
    }
    let included = match base_backup::own_wal(&server, &found, *range, between) {
        OwnWal::Whole => true,
        OwnWal::Absent => false,
        OwnWal::Faulty(why) => {
            call::tell(
                PgLogLevel::NOTICE,
                format!("backup {id} does not have all of its WAL inside"),
                format!("{why}."),
                "Without its own WAL it takes that of the archive to recover from it.",
            );
            false
        }
        OwnWal::Foreign(why) | OwnWal::OutOfReach(why) => return unknown(&why),
    };
    let label = match base_backup::label(&found, between) {
        Ok(label) => label,
        Err(why) => return unknown(&why),
    };
    row(&server, *range, included, label.incremental_from).map(Some)
}

fn row(
    server: &Server,
    range: WalRange,
    included: bool,
    incremental_from: Option<(Lsn, Timeline)>,
) -> Result<backup::OwnWal> {
    let parent = match incremental_from {
        Some((start, timeline)) => prepare::beginning_at(timeline_id(timeline)?, PgLsn(start.0))?,
        None => None,
    };
    let segment = |lsn| SegmentName::containing(range.timeline, lsn, server.format.segment_size).to_string();
    Ok(backup::OwnWal {
        timeline: timeline_id(range.timeline)?,
        start_lsn: PgLsn(range.start.0),
        end_lsn: PgLsn(range.end.0),
        start_wal_file: segment(range.start),
        end_wal_file: segment(range.end.less(1)),
        included,
        is_incremental: incremental_from.is_some(),
        parent: parent.map(|parent| parent.id),
    })
}

fn timeline_id(timeline: Timeline) -> Result<i32> {
    i32::try_from(timeline.0).map_err(|_| Error::UnexpectedAnswer {
        what: "a timeline below 2^31",
    })
}
