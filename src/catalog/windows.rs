//! What verified WAL says of the ends of a recovery window.

use super::{PgLsn, Statement};
use crate::error::Result;
use pgrx::prelude::*;
use wal::{Handover, Lsn, Timeline};

/// So many segments back, at most: a record that is longer than all of them is none that a server writes.
const LONGEST_RECORD_SEGMENTS: i64 = 1100;

/// The start of the last whole record in verified WAL of `timeline` up to `end`: the greatest `recovery_target_lsn` that can be
/// reached there, since recovery stops behind the first record that starts at its target or later. None where no such record
/// is known.
pub fn last_record_before(timeline: Timeline, end: Lsn) -> Result<Option<Lsn>> {
    // Nearly always the first row has it; a segment in the middle of one long record has none.
    static HANDOVERS: Statement = Statement::new(
        "SELECT handover FROM @extschema@.wal_archive
          WHERE timeline_id = $1 AND end_lsn <= $2 AND status = 'verified' AND handover IS NOT NULL
          ORDER BY end_lsn DESC OFFSET $3 LIMIT 1",
    );
    for back in 0..LONGEST_RECORD_SEGMENTS {
        let handover = HANDOVERS.read(&[number(timeline).into(), PgLsn(end.0).into(), back.into()], |rows| {
            rows.first().map_or(Ok(None), |row| row.get::<Vec<u8>>(1))
        })?;
        let Some(handover) = handover else {
            return Ok(None);
        };
        if let Some(start) = Handover::from_bytes(&handover).ok().and_then(|known| known.last_record()) {
            return Ok(Some(start));
        }
    }
    Ok(None)
}

/// Time of the last commit in verified WAL of `timeline` in segments that end behind `from` and not behind `to`.
pub fn last_commit_between(timeline: Timeline, from: Lsn, to: Lsn) -> Result<Option<TimestampWithTimeZone>> {
    static LAST: Statement = Statement::new(
        "SELECT last_commit_at FROM @extschema@.wal_archive
          WHERE timeline_id = $1 AND end_lsn > $2 AND end_lsn <= $3 AND status = 'verified' AND last_commit_at IS NOT NULL
          ORDER BY end_lsn DESC LIMIT 1",
    );
    LAST.read(
        &[number(timeline).into(), PgLsn(from.0).into(), PgLsn(to.0).into()],
        |rows| rows.first().map_or(Ok(None), |row| row.get(1)),
    )
}

/// The latest time of a commit or abort in the verified segments that a backup of `timeline` from `start` to `end` lies in: a
/// recovery from it to an earlier time would have to stop before it is consistent.
pub fn latest_xact_within(timeline: Timeline, start: Lsn, end: Lsn) -> Result<Option<TimestampWithTimeZone>> {
    static LATEST: Statement = Statement::new(
        "SELECT max(latest_xact_at) FROM @extschema@.wal_archive
          WHERE timeline_id = $1 AND end_lsn > $2 AND start_lsn < $3 AND status = 'verified'",
    );
    LATEST.read(
        &[number(timeline).into(), PgLsn(start.0).into(), PgLsn(end.0).into()],
        |rows| rows.one("a time")?.get(1),
    )
}

fn number(timeline: Timeline) -> i32 {
    i32::try_from(timeline.0).unwrap_or(i32::MAX)
}
