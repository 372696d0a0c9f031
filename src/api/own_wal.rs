//! What a base backup that is recorded as completed says of its own WAL: what goes into its row of the ledger.
//!
//! Nothing here fails the recording: what cannot be found out is told, and stays unknown.

use std::path::Path;

use artifact::{BackupLabel, BaseBackup, Manifest, ManifestError, WalRange, read_manifest};
use pgrx::prelude::*;
use serde::{Deserialize, Serialize};
use wal::{Lsn, SegmentName, Timeline};

use super::call;
use crate::base_backup::{self, OwnWal};
use crate::catalog::{PgLsn, Text, backup, prepare};
use crate::error::{Error, Result};
use crate::process;
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
    if !path.as_path().is_absolute() {
        return Ok(None);
    }
    let server = Server::observe()?;
    let shown = format!("\"{}\"", path.to_utf8());
    let seen = match process::look_at(&shown, |working| look(path.as_path(), &server, working)) {
        Ok(Ok(Some(seen))) => seen,
        // What is no base backup, or is not there at all, was told when it was measured, or is nobody's concern.
        Ok(Ok(None)) => return Ok(None),
        Ok(Err(why)) | Err(why) => return unknown(&why),
    };
    let Seen {
        manifest,
        system_identifier,
        own_wal,
        label,
    } = seen;
    let ours = server.format.system_identifier;
    if let Some(identifier) = system_identifier.filter(|identifier| *identifier != ours) {
        return unknown(&format!(
            "The backup at {shown} is of the cluster {identifier}, and this is {ours}"
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
            "The backup at {shown} goes from {} to {} on timeline {}, which is not within what was recorded",
            range.start, range.end, range.timeline
        ));
    }
    let included = match own_wal {
        Some(OwnWal::Whole) => true,
        Some(OwnWal::Absent) | None => false,
        Some(OwnWal::Faulty(why)) => {
            call::tell(
                PgLogLevel::NOTICE,
                format!("backup {id} does not have all of its WAL inside"),
                format!("{why}."),
                "Without its own WAL it takes that of the archive to recover from it.",
            );
            false
        }
        Some(OwnWal::Foreign(why) | OwnWal::OutOfReach(why)) => return unknown(&why),
    };
    match label {
        Ok(label) => row(&server, *range, included, label.incremental_from).map(Some),
        Err(why) => unknown(&why),
    }
}

/// What a backup says of itself.
#[derive(Serialize, Deserialize)]
struct Seen {
    manifest: Manifest,
    system_identifier: Option<u64>,
    /// Where its manifest names one range.
    own_wal: Option<OwnWal>,
    label: Result<BackupLabel, String>,
}

/// Looks at it; none where that is no base backup with a manifest.
fn look(path: &Path, server: &Server, between: &mut dyn FnMut()) -> Result<Option<Seen>, String> {
    let Ok(Some(found)) = BaseBackup::open(path) else {
        return Ok(None);
    };
    let manifest = match read_manifest(&found.manifest(), &mut |_| between()) {
        Ok(manifest) => manifest,
        Err(ManifestError::Absent { .. }) => return Ok(None),
        Err(error) => return Err(error.to_string()),
    };
    let control = || Some(base_backup::control(&found).ok()?.system_identifier);
    let own_wal = match manifest.wal_ranges.as_slice() {
        [range] => Some(base_backup::own_wal(server, &found, *range, between)),
        _ => None,
    };
    Ok(Some(Seen {
        system_identifier: manifest.system_identifier.or_else(control),
        own_wal,
        label: base_backup::label(&found, between),
        manifest,
    }))
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
