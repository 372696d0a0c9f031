//! Statements about recoveries and rehearsals of them.

use pgrx::AnyNumeric;
use pgrx::datum::TimestampWithTimeZone;

use super::statement::{Row, Rows};
use super::value::Argument;
use super::{PgLsn, Statement, Text, backup};
use crate::error::Result;
use recovery::Measured;

/// A recovery that begins.
pub struct Started<'a> {
    /// One of the types of recovery_history.
    pub recovery_type: &'a str,
    /// Whether it is a rehearsal.
    pub is_drill: bool,
    /// The backup that it starts from.
    pub backup: Option<i64>,
    /// Where it shall end, by time.
    pub target_time: Option<TimestampWithTimeZone>,
    /// Where it shall end, by position.
    pub target_lsn: Option<PgLsn>,
    /// Where it shall end, by restore point.
    pub target_name: Option<&'a Text>,
    /// Where it shall end, by transaction.
    pub target_xid: Option<i64>,
    /// The timeline that it shall follow.
    pub target_timeline: Option<i32>,
    /// When it began; `None`: now.
    pub started_at: Option<TimestampWithTimeZone>,
    /// How long it is expected to take, in seconds.
    pub predicted_seconds: Option<f64>,
}

static START: Statement = Statement::new(
    "INSERT INTO @extschema@.recovery_history
         (recovery_type, is_drill, backup_id, target_time, target_lsn, target_name, target_xid, target_timeline, start_time,
          predicted_rto_seconds)
     VALUES ($1, $2, $3, $4, $5, $6, $7, $8, coalesce($9, clock_timestamp()), round($10::numeric, 3))
     RETURNING id, start_time",
);

/// Records a running recovery and returns its id and when it began.
pub fn start(recovery: &Started<'_>) -> Result<(i64, TimestampWithTimeZone)> {
    START.write(&recovery.arguments(), |rows| begun(&rows.one("the recovery's id")?))
}

// It began before the server accepted writes, and the life before had begun by then: so it is the one that this life began with.
static DETECTED: Statement = Statement::new(
    "SELECT found.id
       FROM (SELECT * FROM @extschema@.server_lives WHERE system_identifier = $1 ORDER BY id DESC LIMIT 1) AS life
       JOIN @extschema@.recovery_history AS found ON found.id = life.recovery_id
       LEFT JOIN @extschema@.server_lives AS before ON before.id = life.predecessor_id
      WHERE life.started_at = $2
        AND found.recovery_type = $3 AND found.origin = 'detected' AND found.status = 'completed' AND NOT found.is_drill
        AND $4 <= life.writes_at AND (before.id IS NULL OR before.writes_at <= $4)",
);

/// The recovery that the worker found this life of the server to have begun with, where it is of this kind and can have begun
/// then. `life`: when this life began.
pub fn detected(
    system_identifier: i64,
    life: TimestampWithTimeZone,
    kind: &str,
    started_at: TimestampWithTimeZone,
) -> Result<Option<i64>> {
    DETECTED.read_latest(
        &[system_identifier.into(), life.into(), kind.into(), started_at.into()],
        |rows| rows.first().map(|row| row.need(1, "the recovery's id")).transpose(),
    )
}

// What was measured from the server's own start on, or up to when it accepted writes, holds no more: the recovery began before
// and goes on until it is completed. All else that was found stays until the caller says otherwise.
static TAKE_OVER: Statement = Statement::new(
    "UPDATE @extschema@.recovery_history
     SET origin = 'recorded', status = 'running',
         backup_id = coalesce($3, backup_id), target_time = coalesce($4, target_time), target_lsn = coalesce($5, target_lsn),
         target_name = coalesce($6, target_name), target_xid = coalesce($7, target_xid),
         target_timeline = coalesce($8, target_timeline), start_time = coalesce($9, start_time),
         end_time = NULL, duration_seconds = NULL, rto_seconds = NULL, predicted_rto_seconds = NULL,
         checks = nullif(checks - ARRAY['start_time', 'end_time', 'rto_seconds',
                                        CASE WHEN $4 IS NOT NULL THEN 'target_time' END], '{}')
     WHERE id = $11 AND origin = 'detected'
     RETURNING id, start_time",
);

/// Makes a detected recovery the one that the caller records, still without what it is expected to take; `None` where it is no
/// detected one any more. Otherwise as [`start`].
pub fn take_over(id: i64, recovery: &Started<'_>) -> Result<Option<(i64, TimestampWithTimeZone)>> {
    let mut args = Vec::from(recovery.arguments());
    args.push(id.into());
    TAKE_OVER.write_latest(&args, |rows| rows.first().as_ref().map(begun).transpose())
}

/// Adds how long a recovery is expected to take, in seconds.
pub fn expect(id: i64, predicted_seconds: f64) -> Result<()> {
    static EXPECT: Statement = Statement::new(
        "UPDATE @extschema@.recovery_history SET predicted_rto_seconds = round($2::numeric, 3) WHERE id = $1",
    );
    EXPECT.write_latest(&[id.into(), predicted_seconds.into()], |_| Ok(()))
}

fn begun(row: &Row) -> Result<(i64, TimestampWithTimeZone)> {
    Ok((
        row.need(1, "the recovery's id")?,
        row.need(2, "when the recovery began")?,
    ))
}

impl Started<'_> {
    fn arguments(&self) -> [Argument; 10] {
        [
            self.recovery_type.into(),
            self.is_drill.into(),
            self.backup.into(),
            self.target_time.into(),
            self.target_lsn.into(),
            self.target_name.into(),
            self.target_xid.into(),
            self.target_timeline.into(),
            self.started_at.into(),
            self.predicted_seconds.into(),
        ]
    }
}

/// So many recoveries, the newest, say how long the next one will take: hardware and data change.
const NEWEST: i64 = 10;

/// What the newest recoveries and rehearsals took. A crash recovery says nothing of them: it reads pg_wal, not the archive.
pub fn measured() -> Result<Vec<Measured>> {
    static MEASURED: Statement = Statement::new(
        "SELECT r.id, r.backup_id, r.restore_seconds::float8, r.wal_replayed_bytes, r.replay_seconds::float8,
                COALESCE(r.startup_seconds, r.rto_seconds - r.restore_seconds - r.replay_seconds)::float8
           FROM @extschema@.recovery_history r
          WHERE r.status = 'completed' AND r.recovery_type NOT IN ('crash', 'failover')
            AND (r.restore_seconds IS NOT NULL OR r.replay_seconds IS NOT NULL)
          ORDER BY r.id DESC LIMIT $1",
    );
    let mut measured: Vec<(Option<i64>, Measured)> = MEASURED.read(&[NEWEST.into()], |rows| {
        rows.gather(|row| {
            let measured = Measured {
                recovery: row.need(1, "an id")?,
                restored_bytes: None,
                restore_seconds: row.get(3)?,
                replayed_bytes: row.get::<i64>(4)?.map(i64::unsigned_abs),
                replay_seconds: row.get(5)?,
                startup_seconds: row.get(6)?,
            };
            Ok((row.get(2)?, measured))
        })
    })?;
    let restored: Vec<i64> = measured.iter().filter_map(|(backup, _)| *backup).collect();
    if !restored.is_empty() {
        let sizes = backup::sizes_with_parents(restored)?;
        for (backup, measured) in &mut measured {
            measured.restored_bytes = backup.and_then(|backup| sizes.get(&backup).copied());
        }
    }
    Ok(measured.into_iter().map(|(_, measured)| measured).collect())
}

/// What completing a recovery needs to know of it.
pub struct Known {
    /// running, completed or failed.
    pub status: String,
    /// Whether it is a rehearsal.
    pub is_drill: bool,
    /// When it ended.
    pub end_time: Option<TimestampWithTimeZone>,
    /// Why it failed.
    pub error: Option<Text>,
}

static KNOWN: Statement =
    Statement::new("SELECT status, is_drill, end_time, error FROM @extschema@.recovery_history WHERE id = $1");

/// The recovery of that id, as the caller's transaction sees it.
pub fn known(id: i64) -> Result<Option<Known>> {
    KNOWN.read(&[id.into()], Known::from_rows)
}

/// The recovery of that id, as it is now.
pub fn known_now(id: i64) -> Result<Option<Known>> {
    KNOWN.read_latest(&[id.into()], Known::from_rows)
}

impl Known {
    fn from_rows(rows: Rows) -> Result<Option<Self>> {
        rows.first()
            .map(|row| {
                Ok(Self {
                    status: row.need(1, "the recovery's status")?,
                    is_drill: row.need(2, "whether it is a rehearsal")?,
                    end_time: row.get(3)?,
                    error: row.get(4)?,
                })
            })
            .transpose()
    }
}

/// How a recovery ended.
pub struct Ended<'a> {
    /// Its key.
    pub id: i64,
    /// completed or failed.
    pub status: &'a str,
    /// Why it failed.
    pub error: Option<&'a Text>,
    /// Time of the last commit that was recovered.
    pub recovered_to_time: Option<TimestampWithTimeZone>,
    /// Take that time from this server's own recovery where it is not given.
    pub ask_this_server: bool,
    /// Position that was recovered to.
    pub recovered_to_lsn: Option<PgLsn>,
    /// When the server had failed.
    pub failure_time: Option<TimestampWithTimeZone>,
    /// Seconds it took to copy the backup back.
    pub restore_seconds: Option<AnyNumeric>,
    /// Seconds it took to replay WAL.
    pub replay_seconds: Option<AnyNumeric>,
    /// Bytes of WAL that were replayed; `None`: from the backup's start to where it was recovered to.
    pub wal_replayed_bytes: Option<i64>,
    /// Seconds from the end of replay until the server accepted writes.
    pub startup_seconds: Option<AnyNumeric>,
}

// Of a recovery that was found before it was recorded, what the caller does not say stays as it was found, with its evidence.
// pg_last_xact_replay_timestamp() is NULL on a server that was not recovered from an archive or as a standby since its start.
// Where the recovery was this server's own, the worker knows how far it came.
static END: Statement = Statement::new(
    "UPDATE @extschema@.recovery_history AS recovery
     SET status = $2, error = $3, end_time = known.now,
         recovered_to_time = known.recovered, recovered_to_lsn = known.lsn, failure_time = coalesce($7, recovery.failure_time),
         restore_seconds = $8, replay_seconds = known.replay, startup_seconds = known.startup,
         wal_replayed_bytes = coalesce($10, recovery.wal_replayed_bytes, CASE WHEN known.lsn >= known.backup_start
             THEN (known.lsn - known.backup_start)::bigint END),
         duration_seconds = CASE WHEN known.took >= 0.0 THEN known.took END,
         rto_seconds = CASE WHEN $2 = 'completed' AND known.no_rto IS NULL THEN known.took END,
         rpo_seconds = CASE WHEN $2 <> 'completed' THEN NULL WHEN known.lost < 0.0 THEN 0
                            ELSE coalesce(known.lost, recovery.rpo_seconds) END,
         checks = nullif(jsonb_strip_nulls(jsonb_build_object(
             'rto_seconds', known.no_rto,
             'rpo_seconds', CASE WHEN $2 = 'completed' AND known.lost IS NULL THEN known.no_rpo END))
             || (coalesce(recovery.checks, '{}') - known.outdated), '{}')
     FROM (SELECT measured.*,
                  CASE WHEN took < 0.0 THEN
                           'not known: the clock was set back, so the end appears to be before the start'
                       WHEN $2 = 'completed' AND parts > took THEN
                           format('not known: restore, replay and start-up add up to %s s, more than the %s s from start_time '
                                  'to end_time, so the recovery began before it was recorded to', parts, took)
                  END AS no_rto,
                  CASE WHEN until IS NULL THEN
                           'not known: there is no target_time, and no failure_time was given'
                       ELSE 'not known: nothing tells which commit was the last to be recovered'
                  END AS no_rpo,
                  ARRAY[CASE WHEN $4 IS NOT NULL THEN 'recovered_to_time' END, CASE WHEN $9 IS NOT NULL THEN 'replay_seconds' END,
                        CASE WHEN lost IS NOT NULL OR $2 <> 'completed' THEN 'rpo_seconds' END] AS outdated
           FROM (SELECT clock.now, clock.recovered, clock.replay, clock.startup,
                        coalesce($6, begun.recovered_to_lsn, life.recovered_to_lsn) AS lsn, backup.start_lsn AS backup_start,
                        round(extract(epoch FROM clock.now - begun.start_time), 3) AS took,
                        coalesce($8, 0.0) + coalesce(clock.replay, 0.0) + coalesce(clock.startup, 0.0) AS parts,
                        coalesce(begun.target_time, $7) AS until,
                        round(extract(epoch FROM coalesce(begun.target_time, $7) - clock.recovered), 3) AS lost
                 FROM @extschema@.recovery_history AS begun
                 CROSS JOIN LATERAL (SELECT clock_timestamp() AS now,
                                            coalesce($4, begun.recovered_to_time,
                                                     CASE WHEN $5 THEN pg_last_xact_replay_timestamp() END) AS recovered,
                                            coalesce($9, begun.replay_seconds) AS replay,
                                            coalesce($11, begun.startup_seconds) AS startup) AS clock
                 LEFT JOIN @extschema@.backup_history AS backup ON backup.id = begun.backup_id
                 LEFT JOIN LATERAL (SELECT server.recovered_to_lsn FROM @extschema@.server_lives AS server
                                    WHERE $5 AND server.recovery_id = begun.id
                                    ORDER BY server.id DESC LIMIT 1) AS life ON true
                 WHERE begun.id = $1) AS measured) AS known
     WHERE recovery.id = $1 AND recovery.status = 'running'
     RETURNING recovery.rto_seconds, recovery.rpo_seconds",
);

/// Records the end of a running recovery and returns its RTO and RPO; `None` where it is not running.
pub fn end(recovery: &Ended<'_>) -> Result<Option<(Option<AnyNumeric>, Option<AnyNumeric>)>> {
    let args = [
        recovery.id.into(),
        recovery.status.into(),
        recovery.error.into(),
        recovery.recovered_to_time.into(),
        recovery.ask_this_server.into(),
        recovery.recovered_to_lsn.into(),
        recovery.failure_time.into(),
        recovery.restore_seconds.clone().into(),
        recovery.replay_seconds.clone().into(),
        recovery.wal_replayed_bytes.into(),
        recovery.startup_seconds.clone().into(),
    ];
    END.write(&args, |rows| {
        rows.first().map(|row| Ok((row.get(1)?, row.get(2)?))).transpose()
    })
}
