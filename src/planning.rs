//! A plan of a recovery put together: what is known of windows, backups and the target, and the steps that crate `recovery` makes
//! of it.

mod backup;
mod origins;
mod transaction;

use crate::assessment::{Assessment, Depth};
use crate::catalog::candidates::{self, BackupPlaces, Near};
use crate::catalog::plan::{self as facts, BackupPlace, Places};
use crate::catalog::{Text, archive as wal_archive};
use crate::compat;
use crate::error::{Error, Result};
use crate::memory;
use crate::prediction;
use crate::server::{self, Server};
use archive::{Compression, Source};
use chrono::{DateTime, Utc};
use origins::Recorded;
use recovery::plan::{
    Account, Action, Choice, CommitTimes, Destination, Evidence, Link, Origin, Point, Record, Refusal, Site, Step,
    Stop, Stretch, Target, Wanted, check_clock, choose, restore_command, steps,
};
use recovery::{BackupFact, Usable, Window, outline, plan};
use std::borrow::Cow;
use std::collections::HashMap;
use std::path::Path;
use wal::{Lsn, SegmentName};

/// What a caller asks for.
pub struct Request<'a> {
    /// What to recover to.
    pub wanted: Wanted,
    /// The name in [`Target::Name`], as the database holds it.
    pub name: Option<&'a Text>,
    /// Where to; none for the running server's place.
    pub data_directory: Option<&'a Text>,
    /// What to do there.
    pub action: Action,
}

/// So many restore points are named where one is not known.
const NAMED: i64 = 10;

/// Makes the plan. Reads only; needs a transaction.
///
/// # Errors
/// [`Error::NotReachable`] where the target cannot be reached, with what can be.
pub fn make(request: &Request<'_>) -> Result<Vec<Step>> {
    let server = Server::observe()?;
    let mut assessment = Assessment::of(&server, Depth::Overview)?;
    let system = server.system_identifier();
    let mut wanted = candidates::earliest(system, &outline::lookups(&assessment.facts))?;
    match request.wanted.target {
        Target::Lsn(lsn) => wanted.extend(candidates::whole_near(system, Near::Lsn(lsn))?),
        Target::Time(time) => wanted.extend(candidates::whole_near(system, Near::Time(time))?),
        Target::Latest | Target::Name(_) | Target::Xid(_) => {}
    }
    assessment.add_backups(&server, &wanted)?;
    let archive = crate::access::choose_source(&server).ok().map(|derived| derived.source);
    let ids: Vec<i64> = assessment.facts.backups.iter().map(|backup| backup.id).collect();
    let places = candidates::places(&ids)?;
    let planning = Planning {
        server,
        assessment,
        archive,
        places,
    };
    let steps = planning.steps(request)?;
    // Whatever was told in words meanwhile may have been told wrong.
    memory::check()?;
    Ok(steps)
}

struct Planning {
    server: Server,
    assessment: Assessment,
    archive: Option<Source>,
    /// Of the backups in `assessment`.
    places: BackupPlaces,
}

impl Planning {
    fn steps(&self, request: &Request<'_>) -> Result<Vec<Step>> {
        let (stretches, windows) = self.stretches()?;
        let now = self.assessment.facts.now;
        let evidence = self.evidence(request, &stretches)?;
        let recorded = Recorded::new(self, &stretches, &windows);
        let choice = choose(&stretches, &recorded, &request.wanted, &evidence, now);
        recorded.finish()?;
        let mut choice = choice.map_err(|refusal| refusal.in_view_of(&self.assessment.facts.history, &stretches))?;
        self.look_at_the_clock(&mut choice, &stretches)?;
        let asked = request.data_directory.map(Text::to_utf8);
        let chain = self.chain(choice.backup)?;
        let own = self.server.data_directory().display().to_string();
        let paths: Vec<String> = chain
            .iter()
            .filter_map(|(_, place)| {
                Some(backup::from_the_root(
                    place.path.as_ref()?,
                    self.server.data_directory(),
                ))
            })
            .collect();
        let archived = self
            .archive
            .as_ref()
            .and_then(Source::root)
            .map(|root| root.display().to_string());
        let mut others: Vec<(&'static str, &str)> = paths.iter().map(|path| ("the backup", path.as_str())).collect();
        others.extend(archived.as_deref().map(|root| ("the archive", root)));
        let server_places = facts::server_places()?;
        let site = site(server_places.clone(), &self.server);
        let to = Destination::choose(asked.as_deref(), &own, &site.tablespaces, &others)
            .map_err(|error| Error::invalid(error.to_string(), error.detail(), error.hint()))?;
        if let Some(stretch) = stretches.get(choice.stretch) {
            choice.keep_to_history(stretch, &self.assessment.facts.history, request.wanted.timeline, &to);
        }
        let tool = chain.last().and_then(|(_, place)| self.tool(place));
        let links = match tool {
            Some(_) => Vec::new(),
            None => chain
                .iter()
                .map(|(id, place)| {
                    Ok(Link {
                        backup: *id,
                        copied: backup::look_at(
                            *id,
                            place.path.as_ref(),
                            &server_places,
                            self.server.data_directory(),
                        )?,
                    })
                })
                .collect::<Result<Vec<_>>>()?,
        };
        let predicted = match choice.stop_lsn {
            Some(stop) => prediction::seconds(
                &self.assessment.facts.rates,
                choice.backup,
                stop.bytes_since(choice.start),
            )?,
            None => None,
        };
        let account = Account {
            restore_command: self.restore_command(&choice, &stretches)?,
            chain: links,
            tool,
            backup_at: choice.backup_at,
            choice,
            now,
            to,
            action: request.action,
            predicted,
        };
        Ok(steps(&account, &site)?)
    }

    /// The windows, with the exact ends of each, but for those without a copy of the cluster.
    fn stretches(&self) -> Result<(Vec<Stretch>, Vec<&Window>)> {
        let usable: Vec<&Usable> = self
            .assessment
            .survey
            .backups
            .iter()
            .filter_map(|(_, verdict)| verdict.as_ref().ok())
            .collect();
        let consistent = self.assessment.consistent_times(&usable)?;
        let origin = |usable: &Usable, start: Lsn| self.origin(usable, start, &consistent, &self.places);
        let (of, survey) = (&self.assessment.facts, &self.assessment.survey);
        let mut found = Vec::new();
        for (mut stretch, window) in Stretch::all(of, survey, &origin).into_iter().zip(&survey.windows) {
            stretch.bounds = self.assessment.bounds(window)?;
            if !stretch.origins.is_empty() {
                found.push((stretch, window));
            }
        }
        Ok(found.into_iter().unzip())
    }

    /// A backup to start from; none of one that is no copy of the cluster.
    fn origin(
        &self,
        usable: &Usable,
        start: Lsn,
        consistent: &HashMap<i64, DateTime<Utc>>,
        places: &BackupPlaces,
    ) -> Option<Origin> {
        let place = places.get(&usable.id)?;
        Some(Origin {
            id: usable.id,
            start,
            consistent_at: usable.consistent_at,
            consistent_time: consistent.get(&usable.id).copied(),
            has_place: record_of(place, label(place).as_deref()).says_where(),
        })
    }

    fn tool(&self, place: &BackupPlace) -> Option<plan::Tool> {
        plan::Tool::of(&record_of(place, label(place).as_deref()), self.archive.as_ref())
    }

    /// What the target's own kind needs to be looked up.
    fn evidence(&self, request: &Request<'_>, stretches: &[Stretch]) -> Result<Evidence> {
        let mut evidence = Evidence::default();
        match (&request.wanted.target, request.name) {
            (Target::Name(_), Some(name)) => {
                let size = self.server.format.segment_size;
                for (segment, lsn, at) in facts::points(name)? {
                    // A row from before a change of the segment size has a name that is none any more.
                    if let Ok(segment) = SegmentName::parse(&segment, size) {
                        evidence.points.push(Point { segment, lsn, at });
                    }
                }
                match evidence.points.last() {
                    None => evidence.newest_names = facts::newest_points(NAMED)?,
                    Some(point) if !name.is_same_everywhere() => return Err(unsayable(&name.to_utf8(), point.lsn)),
                    Some(_) => {}
                }
            }
            (Target::Xid(xid), _) => {
                let sought = transaction::find(*xid, stretches, &self.server, &self.assessment, self.archive.as_ref())?;
                evidence.commits = sought.commits;
                evidence.unread = sought.unread;
            }
            _ => {}
        }
        Ok(evidence)
    }

    /// Refuses a time that a clock set back makes ambiguous, and tells how far replay goes.
    fn look_at_the_clock(&self, choice: &mut Choice, stretches: &[Stretch]) -> Result<()> {
        let (Stop::Time(time), Some(stretch)) = (&choice.stop, stretches.get(choice.stretch)) else {
            return Ok(());
        };
        let ranges = stretch.ranges(choice.start);
        let (ahead, behind) = facts::around(&ranges, *time, CommitTimes::limit(*time))?;
        let stop = facts::first_after(&ranges, *time)?;
        let mut trouble = None;
        let checked = check_clock(choice, ahead, behind, &mut |segment| {
            let found = transaction::commits_up_to(
                *time,
                segment,
                stretch,
                &self.server,
                &self.assessment,
                self.archive.as_ref(),
            );
            found.unwrap_or_else(|error| {
                trouble = Some(error);
                None
            })
        });
        if let Some(error) = trouble {
            return Err(error);
        }
        checked?;
        choice.stop_lsn = stop;
        Ok(())
    }

    /// The backup and those that it builds on, the full one first.
    fn chain(&self, backup: i64) -> Result<Vec<(i64, BackupPlace)>> {
        let facts = candidates::with_parents(self.server.system_identifier(), &[backup])?;
        let by_id: HashMap<i64, &BackupFact> = facts.iter().map(|fact| (fact.id, fact)).collect();
        let ids: Vec<i64> = facts.iter().map(|fact| fact.id).collect();
        let mut places = candidates::places(&ids)?;
        let mut chain = Vec::new();
        let mut next = Some(backup);
        while let Some(id) = next.filter(|id| !chain.iter().any(|(known, _)| known == id)) {
            let place = places.remove(&id).ok_or(Error::UnexpectedAnswer {
                what: "the place of a usable backup",
            })?;
            chain.push((id, place));
            next = by_id
                .get(&id)
                .filter(|fact| fact.backup_type.needs_parent())
                .and_then(|fact| fact.parent_id);
        }
        chain.reverse();
        Ok(chain)
    }

    fn restore_command(&self, choice: &Choice, stretches: &[Stretch]) -> Result<Option<String>> {
        let own = server::setting(c"restore_command").unwrap_or_default();
        let compressions = match (&self.archive, stretches.get(choice.stretch)) {
            (Some(Source::Directory(_)), Some(stretch)) if own.is_empty() => {
                facts::suffixes(&stretch.ranges(choice.start))?
                    .iter()
                    .filter_map(|suffix| Compression::of_suffix(suffix))
                    .collect()
            }
            _ => Vec::new(),
        };
        let archive_command = server::setting(c"archive_command").unwrap_or_default();
        Ok(restore_command(
            &own,
            self.archive.as_ref(),
            &archive_command,
            &compressions,
        )?)
    }
}

fn label(place: &BackupPlace) -> Option<Cow<'_, str>> {
    place.label.as_ref().map(Text::to_utf8)
}

fn record_of<'a>(place: &'a BackupPlace, label: Option<&'a str>) -> Record<'a> {
    Record {
        method: &place.method,
        label,
        start_wal_file: place.start_wal_file.as_deref(),
        has_path: place.path.is_some(),
    }
}

/// A server that was told the name in other bytes would replay all WAL there is in search of it, and then not start.
fn unsayable(name: &str, lsn: Lsn) -> Error {
    Error::invalid(
        format!("restore point \"{name}\" cannot be named to a recovery"),
        "WAL has its name in the encoding of the database in which it was made, and it may have other characters than are shown.",
        format!("Pass target_lsn => '{lsn}', where it lies."),
    )
}

fn site(places: Places, server: &Server) -> Site {
    let data_directory = server.data_directory();
    let config_file = server::setting(c"config_file").filter(|file| !Path::new(file).starts_with(data_directory));
    let sockets = server::setting(c"unix_socket_directories").unwrap_or_default();
    Site {
        major: compat::MAJOR.number(),
        is_standby: server.standby,
        bindir: places.bindir,
        config_file,
        port: server::setting(c"port")
            .and_then(|port| port.parse().ok())
            .unwrap_or(5432),
        socket: first_of_list(&sockets),
        superuser: places.superuser.to_utf8().into_owned(),
        database: places.database.to_utf8().into_owned(),
        schema: places.schema.to_utf8().into_owned(),
        tablespaces: places
            .tablespaces
            .iter()
            .map(|(oid, place)| (*oid, place.to_utf8().into_owned()))
            .collect(),
    }
}

/// The first item of a list as SplitDirectoriesString() (varlena.c) reads it.
fn first_of_list(list: &str) -> Option<String> {
    let list = list.trim_start();
    let first = match list.strip_prefix('"') {
        Some(quoted) => {
            let mut item = String::new();
            let mut rest = quoted.chars().peekable();
            while let Some(character) = rest.next() {
                if character == '"' && rest.next_if_eq(&'"').is_none() {
                    break;
                }
                item.push(character);
            }
            item
        }
        None => list.split(',').next().unwrap_or_default().trim_end().to_owned(),
    };
    Some(first).filter(|first| !first.is_empty())
}

impl From<Refusal> for Error {
    fn from(refusal: Refusal) -> Self {
        Self::NotReachable(Box::new(refusal))
    }
}

/// What the segment in front of one left for its verification, as far as that is on record.
fn handover_before(segment: SegmentName, assessment: &Assessment) -> Result<Option<wal::Handover>> {
    let Some(previous) = segment.previous() else {
        return Ok(None);
    };
    let on_history = assessment
        .facts
        .history
        .timeline_of_segment(previous.number, previous.size);
    for name in [previous, previous.on(on_history)] {
        if let Some(bytes) = wal_archive::handover(&name.to_string())? {
            return Ok(wal::Handover::from_bytes(&bytes).ok());
        }
    }
    Ok(None)
}
