//! Why a target cannot be reached, and what can be reached instead.

use archive::printable;
use chrono::{DateTime, Utc};
use wal::{Lsn, Timeline, TimelineHistory};

use super::Stretch;
use super::pg_ctl::NOT_FOR_PG_CTL;
use crate::sentence::moment;

/// A target as it was asked for.
#[derive(Debug, Clone, PartialEq)]
pub enum Asked {
    /// `target_time`.
    Time(DateTime<Utc>),
    /// `target_lsn`.
    Lsn(Lsn),
    /// `target_name`.
    Name(String),
    /// `target_xid`.
    Xid(u32),
}

impl std::fmt::Display for Asked {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Time(time) => write!(f, "target_time {}", moment(*time)),
            Self::Lsn(lsn) => write!(f, "target_lsn {lsn}"),
            Self::Name(name) => write!(f, "restore point \"{}\"", printable(name)),
            Self::Xid(xid) => write!(f, "the commit of transaction {xid}"),
        }
    }
}

/// One end of a recovery window.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Edge {
    /// When.
    pub time: Option<DateTime<Utc>>,
    /// Where in the WAL.
    pub lsn: Lsn,
    /// The timeline on which the window ends.
    pub timeline: Timeline,
}

impl std::fmt::Display for Edge {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.time {
            Some(time) => write!(f, "{} (LSN {}, timeline {})", moment(time), self.lsn, self.timeline),
            None => write!(f, "LSN {} (timeline {})", self.lsn, self.timeline),
        }
    }
}

/// Why there is no plan.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum Refusal {
    /// Nothing can be recovered.
    #[error("no recovery is possible: there is no recovery window")]
    NoWindow {
        /// Timelines off the server's own history that have one.
        branches: Vec<Timeline>,
    },
    /// No window ends on the timeline that was asked for.
    #[error("no recovery window ends on timeline {timeline}")]
    UnknownTimeline {
        /// As asked for.
        timeline: Timeline,
        /// Those that windows end on.
        known: Vec<Timeline>,
        /// Where the server left it, if it was on it and a window leads there.
        left_at: Option<Lsn>,
    },
    /// It has not come yet.
    #[error("target_time {} is in the future", moment(*time))]
    InTheFuture {
        /// As asked for.
        time: DateTime<Utc>,
        /// The server's clock.
        now: DateTime<Utc>,
        /// The end of the last window.
        last: Option<Edge>,
    },
    /// No window holds it.
    #[error("{asked} {}", where_it_lies(.before.as_ref(), .after.as_ref()))]
    Outside {
        /// The target.
        asked: Asked,
        /// The end of the window before it.
        before: Option<Edge>,
        /// The beginning of the one after it.
        after: Option<Edge>,
        /// A branch off the server's own history that holds it.
        elsewhere: Option<Timeline>,
    },
    /// The clock was set back, so that the server would stop at another moment of the same time.
    #[error("target_time {} would stop recovery at another moment: the clock was set back", moment(*time))]
    ClockWentBack {
        /// As asked for.
        time: DateTime<Utc>,
        /// The commit that the server would stop at.
        ahead_at: DateTime<Utc>,
        /// The start of the segment that it is in.
        ahead_lsn: Lsn,
        /// The last commit up to the target; the target to take. None where it could not be read.
        way_out: Option<Lsn>,
        /// Where the last segment begins that has commits up to the target.
        behind_lsn: Lsn,
    },
    /// Several are called the same, and replay comes across the wrong one first.
    #[error("{asked} is not the first of its kind that recovery would come across")]
    Repeated {
        /// The target.
        asked: Asked,
        /// All of them.
        places: Vec<(Lsn, Option<DateTime<Utc>>)>,
        /// The LSN of the newest of them, and whether it is to be taken inclusively.
        way_out: (Lsn, bool),
    },
    /// No restore point has this name.
    #[error("restore point \"{}\" is not in the verified WAL", printable(.name))]
    UnknownName {
        /// As asked for.
        name: String,
        /// Those made last.
        newest: Vec<String>,
    },
    /// No commit of this transaction was found.
    #[error("the commit of transaction {xid} is not in the verified WAL")]
    UnknownXid {
        /// As asked for.
        xid: u32,
        /// Segments that may hold it and were not read.
        unread: u64,
        /// The end of the last window.
        last: Option<Edge>,
    },
    /// The server has no program that puts a chain of incremental backups together.
    #[error("backup {backup} is incremental, and PostgreSQL {major} cannot combine it with the one that it builds on")]
    NoCombining {
        /// The backup.
        backup: i64,
        /// The server's major version.
        major: u32,
    },
    /// A plain copy whose link to a tablespace leads into the running server.
    #[error("backup {backup} holds no copy of tablespace {oid}")]
    TablespaceNotCopied {
        /// The backup.
        backup: i64,
        /// The tablespace.
        oid: u32,
        /// Where the link leads.
        leads_to: String,
    },
    /// A tablespace of the running server that the backup does not know, so that replay would make it at the same place.
    #[error("backup {backup} is without tablespace {oid}, which the running server uses")]
    TablespaceNotInBackup {
        /// The backup.
        backup: i64,
        /// The tablespace.
        oid: u32,
        /// Where the running server has it.
        place: String,
    },
    /// A schema whose name would end the SQL in a command.
    #[error("the name of the extension's schema holds a control character: {schema:?}")]
    ControlInSchema {
        /// The schema.
        schema: String,
    },
    /// A chain in tar format with tablespaces.
    #[error("backup {backup} is in tar format with tablespaces, and pg_combinebackup reads plain backups only")]
    TarChain {
        /// The backup.
        backup: i64,
    },
    /// A place of the server that pg_ctl cannot pass on as it is.
    #[error("{what} \"{}\" cannot be given to pg_ctl", printable(.path))]
    NotForPgCtl {
        /// What it is.
        what: &'static str,
        /// The place.
        path: String,
    },
    /// The name of a restore point that a tool would put into the server's settings as it is.
    #[error("the name of restore point \"{}\" cannot be given to {tool}", printable(.name))]
    NameNotForTool {
        /// The name.
        name: String,
        /// The tool.
        tool: &'static str,
        /// The LSN of the same place, and whether it is to be taken inclusively.
        way_out: (Lsn, bool),
    },
    /// A command that postgresql.auto.conf cannot keep.
    #[error("restore_command holds a line break")]
    LineBreakInCommand,
    /// Paths or names that no shell command can hold.
    #[error("a path, name or command holds bytes that are no characters, or a null byte")]
    NotQuotable,
}

fn where_it_lies(before: Option<&Edge>, after: Option<&Edge>) -> &'static str {
    match (before, after) {
        (Some(_), None) => "lies after the last moment that can be recovered",
        (None, Some(_)) => "lies before the first moment that can be recovered",
        _ => "lies in no recovery window",
    }
}

impl Refusal {
    /// What there is instead, and why it is so.
    pub fn detail(&self) -> String {
        match self {
            Self::NoWindow { branches } if branches.is_empty() => {
                "No backup on record is usable: completed, not failed in verification, and with all WAL from its start to its \
                 end verified."
                    .to_owned()
            }
            Self::NoWindow { branches } => format!(
                "No usable backup lies on the server's own history; there are recovery windows on timeline {}.",
                list(branches)
            ),
            Self::UnknownTimeline {
                timeline,
                known,
                left_at,
            } => {
                let windows = if known.is_empty() {
                    "There is no recovery window at all.".to_owned()
                } else {
                    format!(
                        "Recovery windows end on timeline {}. The way to a timeline passes through those that it descends from.",
                        list(known)
                    )
                };
                match left_at {
                    None => windows,
                    Some(left_at) => format!(
                        "{windows} This server left timeline {timeline} at LSN {left_at}; what the archive holds of it behind that \
                         place is not verified."
                    ),
                }
            }
            Self::InTheFuture { now, last, .. } => {
                format!("It is {} now.{}", moment(*now), the_last(last.as_ref()))
            }
            Self::Outside { before, after, .. } => match (before, after) {
                (Some(before), Some(after)) => format!(
                    "The window before it ends at {before}; the next one begins at {after}. Between them no recovery can stop."
                ),
                (Some(before), None) => format!(
                    "The last moment that can be recovered is {before}. The server would replay all WAL, and then fail because \
                     it never came to the target."
                ),
                (None, Some(after)) => format!("The first moment that can be recovered is {after}."),
                (None, None) => "No backup that is consistent by then has verified WAL up to there.".to_owned(),
            },
            Self::ClockWentBack {
                ahead_at,
                ahead_lsn,
                behind_lsn,
                way_out,
                ..
            } => {
                let last = match way_out {
                    Some(lsn) => format!("the last commit up to the target is at LSN {lsn}"),
                    None => format!("commits up to the target are found up to the segment at LSN {behind_lsn}"),
                };
                format!(
                    "The segment at LSN {ahead_lsn} has a commit of {}, where the server would stop; yet {last}, behind it.",
                    moment(*ahead_at)
                )
            }
            Self::Repeated { places, .. } => {
                let shown: Vec<String> = places
                    .iter()
                    .rev()
                    .take(10)
                    .map(|(lsn, at)| match at {
                        Some(at) => format!("LSN {lsn} ({})", moment(*at)),
                        None => format!("LSN {lsn}"),
                    })
                    .collect();
                format!(
                    "The server stops at the first one behind the start of the backup, and no backup lies behind the others. \
                     The newest are at {}.",
                    shown.join(", ")
                )
            }
            Self::UnknownName { newest, .. } if newest.is_empty() => "No restore point is known.".to_owned(),
            Self::UnknownName { newest, .. } => {
                let quoted: Vec<String> = newest.iter().map(|name| format!("\"{}\"", printable(name))).collect();
                format!("The restore points made last are {}.", quoted.join(", "))
            }
            Self::UnknownXid { unread, last, .. } => {
                let mut text = "It may have been rolled back, be a subtransaction, have written nothing, or not be archived and verified \
                                yet; of a prepared transaction with many subtransactions the number is not always known."
                    .to_owned();
                if *unread > 0 {
                    text.push_str(&format!(" {unread} segments that may hold it were not read."));
                }
                text + &the_last(last.as_ref())
            }
            Self::NoCombining { .. } => {
                "Chains of incremental backups are put together by pg_combinebackup, which is there since PostgreSQL 17.".to_owned()
            }
            Self::TablespaceNotCopied { leads_to, .. } => format!(
                "Its link leads to \"{}\", which the running server uses. A recovery that followed it would write there.",
                printable(leads_to)
            ),
            Self::TablespaceNotInBackup { place, .. } => format!(
                "It is at \"{}\" and was made after the backup. A copy beside the running server that replays that would write \
                 into the same directory.",
                printable(place)
            ),
            Self::ControlInSchema { .. } => "The command that records the recovery cannot hold it.".to_owned(),
            Self::TarChain { .. } => "Their links are not in the tar files of the data directory.".to_owned(),
            Self::NotForPgCtl { .. } => NOT_FOR_PG_CTL.to_owned(),
            Self::NameNotForTool { tool, .. } => format!(
                "{tool} writes it into the server's settings as it is, where quotes, backslashes and control characters have a \
                 meaning."
            ),
            Self::LineBreakInCommand => {
                "ALTER SYSTEM writes it into postgresql.auto.conf as it is, and the server cannot read the file then.".to_owned()
            }
            Self::NotQuotable => "A command with it would be about another file, or could not be run at all.".to_owned(),
        }
    }

    /// What to do.
    pub fn hint(&self) -> String {
        match self {
            Self::NoWindow { branches } => match branches.last() {
                Some(branch) => format!("Pass target_timeline => {branch} for that branch, or take a base backup."),
                None => "Take a base backup; SELECT reasons FROM recovery_readiness says what is the matter.".to_owned(),
            },
            Self::UnknownTimeline {
                timeline,
                left_at: Some(left_at),
                ..
            } => format!(
                "To go on along it after a recovery to too early a moment, take the plan for a target before LSN {left_at}, and put \
                 timeline {timeline} and the later target into its commands, wherever they name these; nothing vouches for that WAL."
            ),
            Self::UnknownTimeline { .. } => {
                "Leave target_timeline out for the server's own history; recovery_windows shows the others.".to_owned()
            }
            Self::InTheFuture { .. } => "Leave the target out to recover all there is.".to_owned(),
            Self::Outside {
                elsewhere: Some(timeline),
                ..
            } => format!(
                "It lies on timeline {timeline}, a branch that the server has left: pass target_timeline => {timeline} for that."
            ),
            Self::Outside { before, after, .. } => match before.or(*after) {
                Some(edge) => format!(
                    "Pass target_lsn => '{}', or leave the target out to recover all there is; recovery_windows shows what can \
                     be reached.",
                    edge.lsn
                ),
                None => "recovery_windows shows what can be reached.".to_owned(),
            },
            Self::ClockWentBack { way_out, .. } => match way_out {
                Some(lsn) => format!("Pass target_lsn => '{lsn}' to recover up to that commit."),
                None => "Find the LSN of the commit that is wanted, with pg_waldump, and pass it as target_lsn.".to_owned(),
            },
            Self::Repeated {
                way_out: (lsn, inclusive),
                ..
            } => format!("Pass target_lsn => '{lsn}', target_inclusive => {inclusive} for the newest of them."),
            Self::UnknownName { .. } => {
                "SELECT name, created_at, lsn FROM restore_points ORDER BY created_at DESC shows those that are known.".to_owned()
            }
            Self::UnknownXid { .. } => {
                "Pass the time or the LSN instead. Numbers are those of pg_current_xact_id() or txid_current().".to_owned()
            }
            Self::NoCombining { .. } => "Restore it with the tool that took it.".to_owned(),
            Self::TablespaceNotCopied { .. } => {
                "Choose a target that another backup reaches, or restore by hand from where its tablespaces were copied to.".to_owned()
            }
            Self::TablespaceNotInBackup { .. } => "Take a new backup, restore on another host, or leave data_directory out to \
                                                   restore in the running server's place."
                .to_owned(),
            Self::TarChain { .. } => "Unpack the backups of the chain by hand, and record the unpacked ones.".to_owned(),
            Self::NotForPgCtl { .. } => {
                "Restore by hand, or move it to a place whose path is free of them and restart the server.".to_owned()
            }
            Self::NameNotForTool {
                way_out: (lsn, inclusive),
                ..
            } => format!("Pass target_lsn => '{lsn}', target_inclusive => {inclusive} for the same place."),
            Self::LineBreakInCommand => "Write it on one line, or put it into a script of its own.".to_owned(),
            Self::NotQuotable | Self::ControlInSchema { .. } => "Rename it.".to_owned(),
        }
    }

    /// Whether it is about something that is not there, rather than about a value that cannot be meant.
    pub const fn is_about_absence(&self) -> bool {
        matches!(
            self,
            Self::UnknownName { .. } | Self::UnknownXid { .. } | Self::UnknownTimeline { .. }
        )
    }

    /// The same, knowing where the server has been.
    pub fn in_view_of(mut self, history: &TimelineHistory, stretches: &[Stretch]) -> Self {
        if let Self::UnknownTimeline { timeline, left_at, .. } = &mut self {
            let leads_to = |place: &Lsn| {
                let mut own = stretches.iter().filter(|stretch| stretch.on_history);
                own.any(|stretch| stretch.bounds.from_lsn <= *place && *place <= stretch.bounds.to_lsn)
            };
            *left_at = history.switch_point(*timeline).filter(leads_to);
        }
        self
    }

    /// Whether another target would fare no better.
    pub const fn is_about_state(&self) -> bool {
        matches!(
            self,
            Self::NoWindow { .. }
                | Self::NoCombining { .. }
                | Self::TablespaceNotCopied { .. }
                | Self::TablespaceNotInBackup { .. }
                | Self::ControlInSchema { .. }
                | Self::TarChain { .. }
                | Self::NotForPgCtl { .. }
                | Self::LineBreakInCommand
        )
    }
}

fn the_last(edge: Option<&Edge>) -> String {
    edge.map_or_else(String::new, |edge| {
        format!(" The last moment that can be recovered is {edge}.")
    })
}

fn list(timelines: &[Timeline]) -> String {
    let shown: Vec<String> = timelines.iter().map(ToString::to_string).collect();
    shown.join(", ")
}
