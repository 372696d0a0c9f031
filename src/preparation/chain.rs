//! The backups that an incremental one builds on: pg_combinebackup needs all of them, down to a full one.

use artifact::BaseBackup;

use super::backup::Seen;
use super::{Checks, Status};
use crate::base_backup;
use crate::catalog::{PgLsn, prepare};
use crate::error::Result;
use crate::process;

const ITEM: &str = "backup_chain";

/// Looks at each backup down to the full one; gives the id of the one that this one builds on.
pub fn check(seen: Option<&Seen>, checks: &mut Checks) -> Result<Option<i64>> {
    let Some(label) = seen.and_then(|seen| seen.label.as_ref()) else {
        checks.add(
            ITEM,
            Status::Skipped,
            "without a label nothing tells what the backup builds on",
        );
        return Ok(None);
    };
    let Some(mut wanted) = label.incremental_from else {
        checks.add(ITEM, Status::Passed, "it is a full backup, and builds on no other");
        return Ok(None);
    };
    let mut below = label.start;
    let mut parents = Vec::new();
    let failed = loop {
        let (lsn, timeline) = wanted;
        // Also what keeps a circle from being followed for ever.
        if lsn >= below {
            break format!("the backup that begins at LSN {below} builds on one that begins at LSN {lsn}");
        }
        let recorded = match i32::try_from(timeline.0) {
            Ok(timeline) => prepare::beginning_at(timeline, PgLsn(lsn.0))?,
            Err(_) => None,
        };
        let Some(recorded) = recorded else {
            break format!(
                "it builds on a backup that begins at LSN {lsn} on timeline {timeline}, and no completed one of backup_history does"
            );
        };
        parents.push(recorded.id);
        let Some(path) = recorded.path else {
            break format!(
                "where backup {} lies, which it builds on, is not on record",
                recorded.id
            );
        };
        let shown = format!("\"{}\"", path.to_utf8());
        let label = process::look_at(&shown, |working| match BaseBackup::open(path.as_path()) {
            Ok(Some(backup)) => base_backup::label(&backup, working),
            Ok(None) => Err(format!("{shown} is no base backup")),
            Err(error) => Err(error.to_string()),
        });
        match label.flatten() {
            Err(why) => break format!("backup {}, which it builds on: {why}", recorded.id),
            Ok(label) if label.start != lsn || label.timeline != timeline => {
                break format!(
                    "backup {}, which it builds on, is not the one at \"{}\": that begins at LSN {}",
                    recorded.id,
                    path.to_utf8(),
                    label.start
                );
            }
            Ok(label) => match label.incremental_from {
                Some(next) => (below, wanted) = (lsn, next),
                None => {
                    let ids: Vec<String> = parents.iter().map(i64::to_string).collect();
                    let found = format!("it builds on backups {}, all of them readable", ids.join(", "));
                    checks.add(ITEM, Status::Passed, found);
                    return Ok(parents.first().copied());
                }
            },
        }
    };
    checks.add(ITEM, Status::Failed, failed);
    Ok(parents.first().copied())
}
