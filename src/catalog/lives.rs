//! Statements about the lives of the server, and about what it knows of its own recovery.

use super::facts::moment;
use super::value::Sentences;
use super::{Image, PgLsn, Scope, Statement, Text};
use crate::error::{Error, Result};
use chrono::{DateTime, TimeDelta, Utc};
use pgrx::prelude::*;
use recovery::detected::{Detected, RecoveryType};
use recovery::lives::Home;
use recovery::traces::Durability;
use wal::Lsn;

/// What a standby last heard of its primary; 0 stands for what is not known.
pub struct Heard {
    /// When the primary last said anything, in microseconds since 2000-01-01; 0 where no receiver is connected.
    pub at: i64,
    /// The end of its WAL then.
    pub end: u64,
    /// The end of the WAL that arrived, connected or not.
    pub received: u64,
}

/// What the WAL receiver last heard.
pub fn heard() -> Result<Heard> {
    static HEARD: Statement = Statement::new(
        "SELECT receiver.last_msg_receipt_time, receiver.latest_end_lsn, pg_last_wal_receive_lsn()
           FROM (SELECT) AS always LEFT JOIN pg_stat_wal_receiver AS receiver ON receiver.pid IS NOT NULL",
    );
    HEARD.read(&[], |rows| {
        let row = rows.one("what the WAL receiver heard")?;
        let position = |column| Ok::<_, Error>(row.get::<PgLsn>(column)?.map_or(0, |lsn| lsn.0));
        Ok(Heard {
            at: row.get::<TimestampWithTimeZone>(1)?.map_or(0, i64::from),
            end: position(2)?,
            received: position(3)?,
        })
    })
}

/// What a recovery was told to reach.
#[derive(Default)]
pub struct Target {
    /// `recovery_target_time`
    pub time: Option<TimestampWithTimeZone>,
    /// `recovery_target_lsn`
    pub lsn: Option<PgLsn>,
    /// `recovery_target_name`
    pub name: Option<Text>,
    /// `recovery_target_xid`
    pub xid: Option<i64>,
}

impl Target {
    /// The part of it that a recovery of this kind ended at. Settings stay, and mean nothing to later recoveries.
    pub fn of(self, kind: RecoveryType) -> Self {
        let nothing = Self::default();
        match kind {
            RecoveryType::PointInTime => Self {
                time: self.time,
                ..nothing
            },
            RecoveryType::Lsn => Self {
                lsn: self.lsn,
                ..nothing
            },
            RecoveryType::Name => Self {
                name: self.name,
                ..nothing
            },
            RecoveryType::Xid => Self {
                xid: self.xid,
                ..nothing
            },
            RecoveryType::Immediate | RecoveryType::Latest | RecoveryType::Crash | RecoveryType::Failover => nothing,
        }
    }
}

/// What the server itself says of its recovery.
pub struct SelfKnowledge {
    /// Whether commits are sure to be on disk.
    pub durability: Durability,
    /// `checkpoint_timeout`
    pub checkpoint_timeout: TimeDelta,
    /// The target that was set at its start; its time is for [`target_time`] to read.
    pub target: Target,
    /// The last commit that was replayed, from an archive or as a standby.
    pub last_replayed_at: Option<DateTime<Utc>>,
    /// The end of the WAL that arrived from a primary in this life of the server; 0 for none.
    pub received: u64,
}

/// What the server itself says of its recovery. The settings of targets hold from its start on.
pub fn self_knowledge() -> Result<SelfKnowledge> {
    // The worker's own synchronous_commit is off: what sessions begin with counts.
    static KNOWN: Statement = Statement::new(
        "SELECT current_setting('fsync')::boolean, current_setting('full_page_writes')::boolean,
                (SELECT reset_val <> 'off' FROM pg_settings WHERE name = 'synchronous_commit'),
                nullif(current_setting('recovery_target_lsn'), '')::pg_lsn,
                nullif(current_setting('recovery_target_name'), ''),
                substring(current_setting('recovery_target_xid') FROM '^[1-9][0-9]{0,17}$')::bigint,
                pg_last_xact_replay_timestamp(), pg_last_wal_receive_lsn(),
                (SELECT setting::integer FROM pg_settings WHERE name = 'checkpoint_timeout')",
    );
    KNOWN.read(&[], |rows| {
        let row = rows.one("the server's settings")?;
        Ok(SelfKnowledge {
            durability: Durability {
                fsync: row.need(1, "fsync")?,
                full_page_writes: row.need(2, "full_page_writes")?,
                synchronous_commit: row.need(3, "synchronous_commit")?,
            },
            // pg_settings shows it in seconds.
            checkpoint_timeout: TimeDelta::seconds(row.need::<i32>(9, "checkpoint_timeout")?.into()),
            target: Target {
                time: None,
                lsn: row.get(4)?,
                name: row.get(5)?,
                xid: row.get(6)?,
            },
            last_replayed_at: row.get(7)?.and_then(moment),
            received: row.get::<PgLsn>(8)?.map_or(0, |lsn| lsn.0),
        })
    })
}

/// `recovery_target_time`, read as the server itself read it, under its own `TimeZone` and `DateStyle`: the worker's may be those
/// of its database or role.
///
/// # Errors
/// Where it means nothing under them.
pub fn target_time(time_zone: &str, date_style: &str) -> Result<Option<TimestampWithTimeZone>> {
    static AS_THE_SERVER: Statement =
        Statement::new("SELECT set_config('TimeZone', $1, true), set_config('DateStyle', $2, true)");
    static TARGET: Statement =
        Statement::new("SELECT nullif(current_setting('recovery_target_time'), '')::timestamptz");
    // They hold until this scope ends, or at the latest until the transaction does.
    let _scope = Scope::enter()?;
    AS_THE_SERVER.read(&[time_zone.into(), date_style.into()], |_| Ok(()))?;
    TARGET.read(&[], |rows| rows.one("recovery_target_time")?.get(1))
}

/// Whether a life is on record: the one that began then and is on this timeline.
pub fn is_recorded(system_identifier: i64, began_at: TimestampWithTimeZone, timeline: i32) -> Result<bool> {
    static RECORDED: Statement = Statement::new(
        "SELECT FROM @extschema@.server_lives WHERE system_identifier = $1 AND started_at = $2 AND timeline_id = $3",
    );
    RECORDED.read_latest(&[system_identifier.into(), began_at.into(), timeline.into()], |rows| {
        Ok(rows.processed() > 0)
    })
}

/// The newest life on record.
pub struct Newest {
    /// Its key.
    pub id: i64,
    /// Where the server lived.
    pub home: Home,
    /// The life that it is a copy of, where nobody has adopted the copy.
    pub copy_of: Option<i64>,
}

/// The newest life of the cluster with this identity. Rows of another one came with a dump or from before pg_upgrade. A name of its
/// home is that of `here` where that would be put on record in the same words: the database's encoding may lack some of it.
pub fn newest(system_identifier: i64, here: &Home) -> Result<Option<Newest>> {
    static NEWEST: Statement = Statement::new(
        "SELECT id, host_name, data_directory, directory_identity, CASE WHEN adopted_at IS NULL THEN copy_of_id END
           FROM @extschema@.server_lives WHERE system_identifier = $1 ORDER BY id DESC LIMIT 1",
    );
    let name = |kept: Text, here: &str| {
        if kept == Text::from(here) {
            here.to_owned()
        } else {
            kept.to_utf8().into_owned()
        }
    };
    NEWEST.read(&[system_identifier.into()], |rows| {
        rows.first()
            .map(|row| {
                Ok(Newest {
                    id: row.need(1, "a life's id")?,
                    home: Home {
                        host: name(row.need(2, "a host name")?, &here.host),
                        directory: name(row.need(3, "a directory")?, &here.directory),
                        identity: row.need(4, "a directory's identity")?,
                    },
                    copy_of: row.get(5)?,
                })
            })
            .transpose()
    })
}

/// The backup whose WAL begins there: the one that says so or, failing that, one whose recorded range holds it.
pub fn backup_that_begins_at(system_identifier: i64, start: PgLsn, label: &str) -> Result<Option<i64>> {
    static BACKUP: Statement = Statement::new(
        "SELECT id FROM @extschema@.backup_history
          WHERE system_identifier = $1 AND backup_type IN ('full', 'incremental', 'differential') AND is_wal_range IS NOT TRUE
            AND start_lsn <= $2 AND (start_lsn = $2 OR origin = 'recorded' AND backup_history_file IS NULL)
            AND (end_lsn IS NULL OR end_lsn >= $2)
          ORDER BY start_lsn = $2 DESC, (label = $3) IS TRUE DESC, id DESC LIMIT 1",
    );
    BACKUP.read(&[system_identifier.into(), start.into(), label.into()], |rows| {
        rows.first().map(|row| row.need(1, "a backup's id")).transpose()
    })
}

/// The recovery that somebody recorded by calls and that is this one: still running, or completed since it ended. One that nobody
/// ever completes stands for one life and no more.
pub fn recorded_by_hand(kind: &str, ended_at: TimestampWithTimeZone) -> Result<Option<i64>> {
    static BY_HAND: Statement = Statement::new(
        "SELECT id FROM @extschema@.recovery_history AS recovery
          WHERE recovery_type = $1 AND NOT is_drill AND origin = 'recorded'
            AND (status = 'running' OR status = 'completed' AND end_time >= $2)
            AND NOT EXISTS (SELECT FROM @extschema@.server_lives AS life WHERE life.recovery_id = recovery.id)
          ORDER BY id DESC LIMIT 1",
    );
    BY_HAND.read_latest(&[kind.into(), ended_at.into()], |rows| {
        rows.first().map(|row| row.need(1, "a recovery's id")).transpose()
    })
}

/// Adds a recovery that was found, and how long it was expected to take, and returns its id.
pub fn add_recovery(
    found: &Detected,
    backup: Option<i64>,
    target: Target,
    predicted_seconds: Option<f64>,
) -> Result<i64> {
    static ADD: Statement = Statement::new(
        "INSERT INTO @extschema@.recovery_history
             (recovery_type, origin, backup_id, target_time, target_lsn, target_name, target_xid, target_timeline,
              start_time, end_time, duration_seconds, replay_seconds, startup_seconds, wal_replayed_bytes, failure_time,
              recovered_to_time, recovered_to_lsn, status, rto_seconds, rpo_seconds, checks,
              predicted_rto_seconds)
         VALUES ($1, 'detected', $2, $3, $4, $5, $6, $7, $8, $9, round($10::numeric, 3), round($11::numeric, 3),
                 round($12::numeric, 3), $13, $14, $15, $16, 'completed', round($10::numeric, 3), round($17::numeric, 3), $18,
                 round($19::numeric, 3))
         RETURNING id",
    );
    ADD.write(
        &[
            found.kind.as_str().into(),
            backup.into(),
            target.time.into(),
            target.lsn.into(),
            target.name.as_ref().into(),
            target.xid.into(),
            found
                .target_timeline
                .and_then(|timeline| i32::try_from(timeline.0).ok())
                .into(),
            sql_time(found.start)?.into(),
            sql_time(found.end)?.into(),
            found.rto_seconds.into(),
            found.replay_seconds.into(),
            found.startup_seconds.into(),
            found
                .wal_replayed_bytes
                .and_then(|bytes| i64::try_from(bytes).ok())
                .into(),
            found.failure_time.map(sql_time).transpose()?.into(),
            found.recovered_to_time.map(sql_time).transpose()?.into(),
            found.recovered_to.map(|lsn| PgLsn(lsn.0)).into(),
            found.rpo_seconds.into(),
            Sentences(found.remarks.clone()).into(),
            predicted_seconds.into(),
        ],
        |rows| rows.one("the recovery's id")?.need(1, "the recovery's id"),
    )
}

/// A life that accepts writes.
pub struct Begun<'a> {
    /// The cluster's identity.
    pub system_identifier: i64,
    /// The timeline that it writes.
    pub timeline: i32,
    /// The column `began`.
    pub began: &'static str,
    /// When the postmaster began it.
    pub started_at: TimestampWithTimeZone,
    /// When it was first seen to accept writes.
    pub writes_at: TimestampWithTimeZone,
    /// Where it lives.
    pub home: &'a Home,
    /// The life before.
    pub predecessor: Option<i64>,
    /// The life that it is a copy of.
    pub copy_of: Option<i64>,
    /// The recovery that it began with.
    pub recovery: Option<i64>,
    /// The backup that it was restored from.
    pub backup: Option<i64>,
    /// That backup's label, as `backup_label` has it.
    pub backup_label: Option<&'a str>,
    /// Where that backup's WAL begins.
    pub backup_start: Option<PgLsn>,
    /// How far it was recovered.
    pub recovered_to: Option<Lsn>,
    /// The last commit that was recovered.
    pub recovered_to_time: Option<DateTime<Utc>>,
}

/// Puts a life on record.
pub fn begin(life: &Begun<'_>) -> Result<()> {
    static BEGIN: Statement = Statement::new(
        "INSERT INTO @extschema@.server_lives
             (system_identifier, timeline_id, began, started_at, writes_at, host_name, data_directory, directory_identity,
              predecessor_id, copy_of_id, recovery_id, backup_id, backup_label, backup_start_lsn, recovered_to_lsn,
              recovered_to_time)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16)",
    );
    BEGIN.write(
        &[
            life.system_identifier.into(),
            life.timeline.into(),
            life.began.into(),
            life.started_at.into(),
            life.writes_at.into(),
            life.home.host.as_str().into(),
            life.home.directory.as_str().into(),
            life.home.identity.as_str().into(),
            life.predecessor.into(),
            life.copy_of.into(),
            life.recovery.into(),
            life.backup.into(),
            life.backup_label.into(),
            life.backup_start.into(),
            life.recovered_to.map(|lsn| PgLsn(lsn.0)).into(),
            life.recovered_to_time.map(sql_time).transpose()?.into(),
        ],
        |_| Ok(()),
    )
}

/// What is on record of how the newest life came to be a copy; `None` where it is none, or was adopted.
pub fn copied(system_identifier: i64) -> Result<Option<recovery::lives::Copied>> {
    // A copy may have been restarted since: how it came about is in its first life.
    static COPIED: Statement = Statement::new(
        "SELECT original.host_name, original.data_directory, first.began = 'restore', first.backup_id, first.backup_label,
                first.backup_start_lsn, first.recovered_to_lsn, first.recovered_to_time, first.writes_at
           FROM (SELECT copy_of_id, adopted_at FROM @extschema@.server_lives
                  WHERE system_identifier = $1 ORDER BY id DESC LIMIT 1) AS now
           JOIN @extschema@.server_lives AS original ON original.id = now.copy_of_id
           CROSS JOIN LATERAL (SELECT * FROM @extschema@.server_lives AS life
                                WHERE life.copy_of_id = now.copy_of_id AND life.system_identifier = $1
                                ORDER BY life.id LIMIT 1) AS first
          WHERE now.adopted_at IS NULL",
    );
    COPIED.read(&[system_identifier.into()], |rows| {
        rows.first()
            .map(|row| {
                let since: Option<DateTime<Utc>> = row.get(9)?.and_then(moment);
                Ok(recovery::lives::Copied {
                    host: row.need(1, "a host name")?,
                    directory: row.need(2, "a directory")?,
                    system_identifier,
                    restored: row.need(3, "how a life began")?,
                    backup_id: row.get(4)?,
                    backup_label: row.get(5)?,
                    backup_start: row.get::<PgLsn>(6)?.map(|lsn| Lsn(lsn.0)),
                    recovered_to: row.get::<PgLsn>(7)?.map(|lsn| Lsn(lsn.0)),
                    recovered_to_time: row.get(8)?.and_then(moment),
                    since: since.ok_or(Error::UnexpectedAnswer {
                        what: "when a life began to accept writes",
                    })?,
                })
            })
            .transpose()
    })
}

/// Makes the copy that the newest life is the cluster itself, and returns that life's id and what the ledger keeps of it; `None`
/// where it is no copy.
pub fn adopt(system_identifier: i64, reason: Option<&Text>) -> Result<Option<(i64, Image)>> {
    static ADOPT: Statement = Statement::new(
        "UPDATE @extschema@.server_lives AS life
            SET adopted_at = clock_timestamp(), adopted_by = session_user, adoption_reason = $2
          WHERE life.id = (SELECT id FROM @extschema@.server_lives WHERE system_identifier = $1 ORDER BY id DESC LIMIT 1)
            AND life.copy_of_id IS NOT NULL AND life.adopted_at IS NULL
         RETURNING life.id, jsonb_strip_nulls(jsonb_build_object(
             'reason', $2, 'life', life.id, 'copy_of', life.copy_of_id, 'system_identifier', life.system_identifier,
             'host_name', life.host_name, 'data_directory', life.data_directory))",
    );
    ADOPT.write(&[system_identifier.into(), reason.into()], |rows| {
        rows.first()
            .map(|row| Ok((row.need(1, "a life's id")?, row.need(2, "what was adopted")?)))
            .transpose()
    })
}

/// A moment as SQL has it.
///
/// # Errors
/// Where SQL cannot hold it.
pub fn sql_time(at: DateTime<Utc>) -> Result<TimestampWithTimeZone> {
    super::archive::time(wal::PgTimestamp::from_unix_micros(at.timestamp_micros()).0).ok_or(Error::UnexpectedAnswer {
        what: "a time that SQL can hold",
    })
}
