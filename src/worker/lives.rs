//! The worker's sign of life, and its look at how the life of the server began: crashes, failovers and restores record
//! themselves here, once for each life.

use super::process;
use crate::catalog::lives::{self, Begun, Newest, SelfKnowledge};
use crate::catalog::{self, PgLsn};
use crate::error::Result;
use crate::heartbeat::Heartbeat;
use crate::home;
use crate::life::{self, Life, Role};
use crate::locks;
use crate::server::{Exposure, Server};
use crate::shmem;
use crate::transaction::in_transaction;
use chrono::{DateTime, Utc};
use pgrx::pg_sys;
use recovery::Rates;
use recovery::detected::{Detected, RecoveryType};
use recovery::lives::{Beginning, Home, Trace};
use recovery::traces::{Branch, LONGEST_STRETCH, Traces, searches_from};
use std::fs;
use std::time::SystemTime;
use wal::{BackupHistory, BackupLabel, Lsn, PgTimestamp};

/// What the worker remembers of this life from tick to tick.
#[derive(Default)]
pub struct LifeDuty {
    is_recorded: bool,
    home: Option<Home>,
    boot: Option<String>,
}

impl LifeDuty {
    /// Gives a sign of life, listens to the primary on a standby, and records how this life began once the server accepts writes.
    /// Does nothing without `shared_preload_libraries`.
    ///
    /// # Errors
    /// Where the facts cannot be read, or nothing be written; the next tick tries again.
    pub fn tick(&mut self, server: &Server) -> Result<()> {
        life::look();
        life::look_back(server.format.system_identifier);
        let Some(life) = life::read() else {
            return Ok(());
        };
        let done = if server.standby {
            listen(&life)
        } else {
            // Finding out how it began can take a while, in which it may end.
            let begun = if self.is_recorded { Ok(()) } else { self.beat(server) };
            begun.and(self.record_once(server, &life))
        };
        // Whatever went wrong above, the server is alive.
        self.beat(server)?;
        done
    }

    fn beat(&mut self, server: &Server) -> Result<()> {
        let boot = self.boot.get_or_insert_with(home::boot).clone();
        let home = self.home(server)?;
        let Some(life) = life::read() else {
            return Ok(());
        };
        Heartbeat {
            life: life.began_at,
            at: life::now(),
            system_identifier: server.format.system_identifier,
            // Once it writes itself, what a primary had said belongs to the past.
            primary_heard_at: if server.standby { life.primary_heard_at } else { 0 },
            primary_end: if server.standby { life.primary_end } else { 0 },
            received: if server.standby { life.received } else { 0 },
            directory: shmem::cut(&home.identity),
            boot: shmem::cut(&boot),
        }
        .write(server.data_directory())
    }

    fn home(&mut self, server: &Server) -> Result<&Home> {
        let home = match self.home.take() {
            Some(home) => home,
            None => home::of(server.data_directory())?,
        };
        Ok(self.home.insert(home))
    }

    fn record_once(&mut self, server: &Server, life: &Life) -> Result<()> {
        if !self.is_recorded {
            let home = self.home(server)?.clone();
            let before = in_transaction(|| lives::newest(server.system_identifier(), &home))?;
            let chapter = Chapter::read(server, life, &home, before)?;
            if !in_transaction(|| chapter.record(server))? {
                return Ok(());
            }
            life::update(|life| life.is_settled = true);
            self.is_recorded = true;
        }
        let copied = in_transaction(|| lives::copied(server.system_identifier()))?;
        life::update(|life| {
            life.role = Some(if copied.is_some() { Role::Clone } else { Role::Primary });
            life.clone_of = shmem::cut(&copied.map_or_else(String::new, |copied| copied.sentence()));
        });
        Ok(())
    }
}

/// How long a restore was to take from the start of the server on, by what earlier recoveries took. A crash or a promotion
/// restores nothing.
fn predicted(found: &Detected) -> Result<Option<f64>> {
    if matches!(found.kind, RecoveryType::Crash | RecoveryType::Failover) {
        return Ok(None);
    }
    let rates = Rates::of(&catalog::recovery::measured()?);
    Ok(found
        .wal_replayed_bytes
        .and_then(|bytes| rates.seconds_after_restore(bytes)))
}

/// To be called when the extension is not there: what is created later has nothing to say of how this life began.
pub fn let_pass(server: &Server) {
    life::look();
    if !server.standby {
        life::update(|life| life.is_settled = true);
    }
}

/// Hears what the primary says, for the day on which it says nothing more.
fn listen(life: &Life) -> Result<()> {
    let heard = in_transaction(lives::heard)?;
    let role = if life.beginning == Beginning::Standby {
        Role::Standby
    } else {
        Role::Recovering
    };
    life::update(|life| {
        // Of several primaries, one after the other, the last one counts.
        life.received = life.received.max(heard.received);
        if heard.at != 0 && heard.at >= life.primary_heard_at {
            life.primary_heard_at = heard.at;
            if heard.end != 0 {
                life.primary_end = heard.end;
            }
        }
        life.role = Some(role);
        life.clone_of.clear();
    });
    Ok(())
}

/// All that belongs on record of how this life began.
struct Chapter<'a> {
    life: &'a Life,
    home: &'a Home,
    before: Option<Newest>,
    is_copy: bool,
    label: Option<BackupLabel>,
    knowledge: SelfKnowledge,
    found: Option<Detected>,
}

impl<'a> Chapter<'a> {
    fn read(server: &Server, life: &'a Life, home: &'a Home, before: Option<Newest>) -> Result<Self> {
        let mut knowledge = in_transaction(lives::self_knowledge)?;
        // Apart, so that a time that cannot be read does not keep the rest from being recorded.
        let target_unread = match in_transaction(|| lives::target_time(&life.time_zone, &life.date_style)) {
            Ok(time) => {
                knowledge.target.time = time;
                None
            }
            Err(error) => Some(error.to_string()),
        };
        let trace = life.last_heartbeat.as_ref().map(|last| Trace {
            identity: &last.directory,
            same_boot: same_boot(last),
        });
        // A standby that takes over is the cluster itself from then on.
        let is_copy = life.beginning != Beginning::Standby
            && before
                .as_ref()
                .is_some_and(|before| home.is_elsewhere(&before.home, trace));
        let label = if life.has_backup_label {
            backup_label(server)
        } else {
            None
        };
        let found = if life.is_settled {
            None
        } else {
            traces(server, life, &knowledge, is_copy, label.as_ref())?
                .map(|traces| Traces {
                    target_unread,
                    ..traces
                })
                .and_then(|traces| traces.recovery())
        };
        Ok(Self {
            life,
            home,
            before,
            is_copy,
            label,
            knowledge,
            found,
        })
    }

    /// Writes it down, unless that has been done; `false` where that has to wait for a session that is recording a recovery. Needs a
    /// transaction.
    fn record(self, server: &Server) -> Result<bool> {
        let (Some(started_at), Some(writes_at)) = (
            crate::catalog::archive::time(self.life.began_at),
            crate::catalog::archive::time(self.life.writes_at),
        ) else {
            return Ok(true);
        };
        let (system, timeline) = (server.system_identifier(), server.timeline_id()?);
        if !locks::try_record_found_recovery() {
            return Ok(false);
        }
        if lives::is_recorded(system, started_at, timeline)? {
            return Ok(true);
        }
        let start = self.label.as_ref().map(|label| PgLsn(label.start_lsn.0));
        let backup = match (&self.label, start) {
            (Some(label), Some(start)) => lives::backup_that_begins_at(system, start, &label.label)?,
            _ => None,
        };
        let recovery = match &self.found {
            None => None,
            Some(found) => {
                // Before that moment nobody can have written anything here: what was completed since is this recovery.
                let over = match self.life.beginning {
                    Beginning::Standby => lives::sql_time(found.end)?,
                    _ => started_at,
                };
                match lives::recorded_by_hand(found.kind.as_str(), over)? {
                    Some(id) => Some(id),
                    None => Some(lives::add_recovery(
                        found,
                        backup,
                        self.knowledge.target.of(found.kind),
                        predicted(found)?,
                    )?),
                }
            }
        };
        let predecessor = self.before.as_ref().map(|before| before.id);
        lives::begin(&Begun {
            system_identifier: system,
            timeline,
            began: self.life.beginning.as_str(),
            started_at,
            writes_at,
            home: self.home,
            predecessor,
            copy_of: if self.is_copy {
                predecessor
            } else {
                self.before.and_then(|before| before.copy_of)
            },
            recovery,
            backup,
            backup_label: self.label.as_ref().map(|label| label.label.as_str()),
            backup_start: start,
            recovered_to: self.found.as_ref().and_then(|found| found.recovered_to),
            recovered_to_time: self.found.as_ref().and_then(|found| found.recovered_to_time),
        })?;
        // The worker's commits are not waited for otherwise; this one would be missed after the next crash.
        // SAFETY: a flag of the transaction that is open.
        unsafe { pg_sys::ForceSyncCommit() };
        Ok(true)
    }
}

/// Whether the machine has run on since that heartbeat; `None` where it does not tell.
fn same_boot(last: &Heartbeat) -> Option<bool> {
    let boot = home::boot();
    (!boot.is_empty() && !last.boot.is_empty()).then(|| last.boot.as_str() == boot)
}

/// What the backup that was restored says of itself.
fn backup_label(server: &Server) -> Option<BackupLabel> {
    let path = server.data_directory().join("backup_label.old");
    let length = fs::metadata(&path).ok()?.len();
    if length > BackupHistory::MAX_BYTES as u64 {
        return None;
    }
    BackupLabel::parse(fs::read(&path).ok()?).ok()
}

/// Gathers the traces of the recovery that this life began with; `None` where it began with none.
fn traces(
    server: &Server,
    life: &Life,
    knowledge: &SelfKnowledge,
    is_copy: bool,
    label: Option<&BackupLabel>,
) -> Result<Option<Traces>> {
    if matches!(life.beginning, Beginning::Planned | Beginning::Unknown) {
        return Ok(None);
    }
    let (Some(began_at), Some(writes_at)) = (moment(life.began_at), moment(life.writes_at)) else {
        return Ok(None);
    };
    let branch = match life.beginning {
        Beginning::Archive | Beginning::Standby => branch(server)?,
        _ => None,
    };
    let backup_start = label.map(|label| label.start_lsn);
    let position = |lsn: u64| Some(Lsn(lsn)).filter(|lsn| !lsn.is_invalid());
    let redo = position(life.redo);
    let recovered_to = position(life.recovered_to);
    let replayed = match (&branch, redo.or(backup_start), recovered_to) {
        (Some(_), ..) => Ok(knowledge.last_replayed_at),
        (None, Some(from), Some(to)) => last_commit(server, from, to),
        _ => Ok(None),
    };
    let (last_commit_at, unread) = match replayed {
        Ok(at) => (at, None),
        Err(error) => (None, Some(error)),
    };
    // What cannot be read says nothing: then nobody knows.
    let primary_shut_down = branch
        .as_ref()
        .is_some_and(|branch| server.shut_down_at(branch.at).unwrap_or(false));
    let last = life.last_heartbeat.as_ref();
    Ok(Some(Traces {
        beginning: life.beginning,
        began_at,
        writes_at,
        no_writes_at: moment(life.no_writes_at),
        heartbeat_at: last.and_then(|last| moment(last.at)),
        control_written_at: moment(life.control_written_at),
        checkpoint_timeout: knowledge.checkpoint_timeout,
        same_boot: last.and_then(same_boot),
        redo,
        recovered_to,
        last_commit_at,
        unread,
        durability: knowledge.durability,
        is_copy,
        primary_heard_at: moment(life.primary_heard_at),
        primary_end: position(life.primary_end),
        received: position(life.received.max(knowledge.received)),
        primary_shut_down,
        branch,
        target_time: knowledge.target.time.and_then(crate::catalog::facts::moment),
        target_unread: None,
        paused_at: moment(life.paused_at),
        backup_start,
    }))
}

/// The branch that the server's timeline is; `None` for a timeline without ancestors.
fn branch(server: &Server) -> Result<Option<Branch>> {
    let history = server.history()?;
    let Some(parent) = history.parent() else {
        return Ok(None);
    };
    let file = server.wal_path(&format!("{:08X}.history", server.timeline.0));
    let written_at = fs::metadata(file).and_then(|metadata| metadata.modified()).ok();
    Ok(Some(Branch {
        parent: parent.timeline,
        timeline: server.timeline,
        at: parent.switch_lsn,
        reason: parent.reason.clone(),
        written_at: written_at.and_then(|at: SystemTime| {
            let since = at.duration_since(SystemTime::UNIX_EPOCH).ok()?;
            DateTime::from_timestamp_micros(i64::try_from(since.as_micros()).ok()?)
        }),
    }))
}

/// The last commit in the server's own WAL from `from` to `to`, the extension's own bookkeeping aside; `None` where there is none.
///
/// # Errors
/// Why it is not known: the server's own WAL cannot be read, or is too much to be searched.
fn last_commit(server: &Server, from: Lsn, to: Lsn) -> Result<Option<DateTime<Utc>>, String> {
    let mut replayed = server.clone();
    replayed.flush = to;
    let mut searched_from = to;
    for begin in searches_from(from, to, server.format.segment_size.bytes()) {
        let mut last = None;
        let mut next = begin;
        while let Some(commit) = Exposure::after(&replayed, next)
            .measure(&replayed, &mut process::answer_interrupts)
            .map_err(|error| error.to_string())?
        {
            last = commit.at.or(last);
            next = commit.end;
        }
        if last.is_some() {
            return Ok(last.and_then(|at| moment(at.0)));
        }
        searched_from = begin;
    }
    if searched_from > from {
        return Err(format!(
            "nothing was committed in the last {} MB of the WAL that was replayed, and what is before was not searched",
            LONGEST_STRETCH >> 20
        ));
    }
    Ok(None)
}

/// A moment in PostgreSQL's microseconds; `None` for 0, which stands for none.
fn moment(micros: i64) -> Option<DateTime<Utc>> {
    DateTime::from_timestamp_micros(PgTimestamp(micros).unix_micros()).filter(|_| micros != 0)
}
