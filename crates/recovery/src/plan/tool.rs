//! Backups that a tool keeps in a form of its own: its own command restores them.

use std::path::Path;

use archive::is_hidden;
use chrono::{DateTime, Utc};

use super::shell::word;
use super::{Action, Choice, Destination, Refusal, Stop};
use crate::sentence::moment;

/// A tool, and what it calls the backup.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Tool {
    /// pgBackRest.
    PgBackRest {
        /// The stanza; none where it is not known.
        stanza: Option<String>,
        /// The backup set; none where it is not known, and pgBackRest chooses.
        set: Option<String>,
        /// The segment that the backup begins in, by which `pgbackrest info` tells it from others.
        start_wal_file: Option<String>,
    },
    /// Barman.
    Barman {
        /// The server's name there; none where it is not known.
        server: Option<String>,
        /// The backup's id.
        backup: Option<String>,
    },
    /// WAL-G.
    WalG {
        /// `WALG_FILE_PREFIX`, where the storage is a directory.
        prefix: Option<String>,
        /// The backup's name.
        backup: String,
    },
}

/// What is on record of a backup, as far as it tells who keeps it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Record<'a> {
    /// Its method: who took it, as whoever may write the ledger has it.
    pub method: &'a str,
    /// Its label. Whoever may take a base backup can give one, so that it is a hint at most.
    pub label: Option<&'a str>,
    /// The segment that it begins in.
    pub start_wal_file: Option<&'a str>,
    /// Whether it is on record where it is.
    pub has_path: bool,
}

impl Record<'_> {
    /// Whether it is on record where it is, or who keeps it: more than a label and the archive let suppose.
    pub fn says_where(&self) -> bool {
        self.has_path || matches!(self.method, "pgbackrest" | "barman" | "wal-g")
    }
}

impl Tool {
    /// The tool that keeps a backup: the one on record; else, where it is not on record where the backup is, the one whose own
    /// repository the archive is, if the label does not speak against it.
    pub fn of(record: &Record<'_>, archive: Option<&archive::Source>) -> Option<Self> {
        let label = record.label.unwrap_or_default();
        let start_wal_file = record.start_wal_file.filter(|name| is_segment(name));
        let is_supposed = !record.has_path && record.method == "external";
        match (record.method, archive) {
            ("pgbackrest", _) => Some(Self::pgbackrest(label, start_wal_file, archive)),
            ("barman", _) => Some(Self::barman(label, archive)),
            ("wal-g", _) => Some(Self::wal_g(start_wal_file, archive)),
            (_, Some(archive::Source::PgBackRest(_)))
                if is_supposed && label.starts_with("pgBackRest backup started at ") =>
            {
                Some(Self::pgbackrest(label, start_wal_file, archive))
            }
            (_, Some(archive::Source::Barman(path))) if is_supposed => {
                let (server, _) = named_by_barman(label)?;
                let is_its_own = path.parent().and_then(last_part).as_deref() == Some(server);
                is_its_own.then(|| Self::barman(label, archive))
            }
            (_, Some(archive::Source::WalG(_))) if is_supposed => Some(Self::wal_g(start_wal_file, archive)),
            _ => None,
        }
    }

    fn pgbackrest(label: &str, start_wal_file: Option<&str>, archive: Option<&archive::Source>) -> Self {
        Self::PgBackRest {
            stanza: match archive {
                Some(archive::Source::PgBackRest(path)) => last_part(path),
                _ => None,
            },
            set: Some(label)
                .filter(|label| is_set_of_pgbackrest(label))
                .map(str::to_owned),
            start_wal_file: start_wal_file.map(str::to_owned),
        }
    }

    fn barman(label: &str, archive: Option<&archive::Source>) -> Self {
        let (server, backup) = named_by_barman(label).unzip();
        let own = match archive {
            Some(archive::Source::Barman(path)) => path.parent().and_then(last_part),
            _ => None,
        };
        Self::Barman {
            server: own.or_else(|| server.map(str::to_owned)),
            backup: backup.map(str::to_owned),
        }
    }

    fn wal_g(start_wal_file: Option<&str>, archive: Option<&archive::Source>) -> Self {
        Self::WalG {
            prefix: match archive {
                Some(archive::Source::WalG(path)) => Some(path.display().to_string()),
                _ => None,
            },
            // Full backups are called after the segment that they begin in.
            backup: start_wal_file.map_or_else(|| "LATEST".to_owned(), |segment| format!("base_{segment}")),
        }
    }

    /// Whether its restore sets restore_command, the target and recovery.signal itself.
    pub(super) const fn configures_recovery(&self) -> bool {
        matches!(self, Self::PgBackRest { .. } | Self::Barman { .. })
    }

    /// What to do, and the command where enough is known for one.
    pub(super) fn restore(
        &self,
        choice: &Choice,
        to: &Destination,
        action: Action,
    ) -> Result<(String, Option<String>), Refusal> {
        let directory = word(&to.path)?;
        match self {
            Self::PgBackRest {
                stanza,
                set,
                start_wal_file,
            } => {
                let Some(stanza) = stanza else {
                    return Ok((
                        "Restore the backup with pgbackrest restore and the stanza of this cluster, which is not known here."
                            .to_owned(),
                        None,
                    ));
                };
                let stanza = word(stanza)?;
                // By itself it takes the newest set, or for a time the newest one before that.
                let chooses = matches!(choice.stop, Stop::End | Stop::Time(_));
                let mut parts = vec!["pgbackrest".to_owned(), format!("--stanza={stanza}")];
                match set {
                    Some(set) => parts.push(format!("--set={}", word(set)?)),
                    None if chooses => {}
                    None => parts.push("--set=SET".to_owned()),
                }
                parts.push(format!("--pg1-path={directory}"));
                if to.is_beside {
                    parts.push("--archive-mode=off".to_owned());
                    parts.push(format!(
                        "--tablespace-map-all={}",
                        word(&format!("{}.tablespaces", to.path))?
                    ));
                }
                refuse_name(choice, "pgBackRest")?;
                let (kind, target) = match &choice.stop {
                    Stop::End => ("default", None),
                    Stop::Time(time) => ("time", Some(at(*time))),
                    Stop::Lsn(lsn) => ("lsn", Some(lsn.to_string())),
                    Stop::Name(name) => ("name", Some(name.clone())),
                    Stop::Xid(xid) => ("xid", Some(xid.to_string())),
                };
                parts.push(format!("--type={kind}"));
                if let Some(target) = target {
                    parts.push(format!("--target={}", word(&target)?));
                    parts.push(format!("--target-action={}", action.as_str()));
                    if !choice.inclusive {
                        parts.push("--target-exclusive".to_owned());
                    }
                }
                parts.push(format!("--target-timeline={}", choice.timeline));
                parts.push("restore".to_owned());
                if set.is_none() && !chooses {
                    let segment = start_wal_file.as_deref().map_or_else(
                        || format!("holds LSN {}", choice.start),
                        |segment| format!("is {segment}"),
                    );
                    return Ok((
                        format!(
                            "Restore the backup with pgBackRest, which also writes restore_command and the target. What it calls \
                             this backup is not on record, and without a name it would take the newest, which may lie behind the \
                             target: choose the set whose first WAL segment {segment} from pgbackrest --stanza={stanza} info, \
                             put its name in the place of SET, and run: {}",
                            parts.join(" ")
                        ),
                        None,
                    ));
                }
                Ok((
                    "Restore the backup with pgBackRest, which also writes restore_command and the target.".to_owned(),
                    Some(parts.join(" ")),
                ))
            }
            Self::Barman { server, backup } => {
                let (Some(server), Some(backup)) = (server, backup) else {
                    return Ok((
                        "Restore the backup with barman recover, the name of this server there and the backup's id, which are \
                         not known here."
                            .to_owned(),
                        None,
                    ));
                };
                refuse_name(choice, "Barman")?;
                let mut parts = vec!["barman recover".to_owned()];
                let target = match &choice.stop {
                    Stop::End => None,
                    Stop::Time(time) => Some(("time", at(*time))),
                    Stop::Lsn(lsn) => Some(("lsn", lsn.to_string())),
                    Stop::Name(name) => Some(("name", name.clone())),
                    Stop::Xid(xid) => Some(("xid", xid.to_string())),
                };
                if let Some((kind, target)) = target {
                    parts.push(format!("--target-{kind} {}", word(&target)?));
                    parts.push(format!("--target-action {}", action.as_str()));
                    if !choice.inclusive {
                        parts.push("--exclusive".to_owned());
                    }
                }
                parts.push(format!("--target-tli {}", choice.timeline));
                parts.extend([word(server)?, word(backup)?, directory]);
                Ok((
                    "Restore the backup with Barman, as its own user and on its own host, which also writes restore_command and \
                     the target. Relocate each tablespace with --tablespace NAME:LOCATION."
                        .to_owned(),
                    Some(parts.join(" ")),
                ))
            }
            Self::WalG { prefix, backup } => {
                let prefix = match prefix {
                    Some(prefix) => format!("WALG_FILE_PREFIX={} ", word(prefix)?),
                    None => String::new(),
                };
                Ok((
                    "Restore the backup with WAL-G. Tablespaces go where its own restore specification puts them."
                        .to_owned(),
                    Some(format!("{prefix}wal-g backup-fetch {directory} {}", word(backup)?)),
                ))
            }
        }
    }
}

fn at(time: DateTime<Utc>) -> String {
    moment(time)
}

/// Refuses the name of a restore point that these tools would write into the server's settings as it is.
fn refuse_name(choice: &Choice, tool: &'static str) -> Result<(), Refusal> {
    let Stop::Name(name) = &choice.stop else {
        return Ok(());
    };
    if !name.contains(['\'', '\\', char::REPLACEMENT_CHARACTER]) && !name.contains(is_hidden) {
        return Ok(());
    }
    let to = choice.bounds.to_lsn;
    let way_out = match choice.stop_lsn {
        Some(behind) if behind <= to => (behind, false),
        _ => (to, true),
    };
    Err(Refusal::NameNotForTool {
        name: name.clone(),
        tool,
        way_out,
    })
}

/// The server and the id in a label as Barman gives it: `Barman backup <server> <id>`.
fn named_by_barman(label: &str) -> Option<(&str, &str)> {
    let (server, id) = label.strip_prefix("Barman backup ")?.split_once(' ')?;
    let is_name = server.len() <= 63
        && server.starts_with(|first: char| first.is_ascii_alphanumeric() || first == '_')
        && server
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.'));
    (is_name && has_shape(id, "00000000T000000")).then_some((server, id))
}

/// The name of a segment, as far as that needs no knowledge of its size.
fn is_segment(name: &str) -> bool {
    name.len() == 24 && name.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'A'..=b'F'))
}

/// Whether a text is the same as the shape, where a 0 of that stands for any digit.
fn has_shape(text: &str, shape: &str) -> bool {
    let is_meant = |(byte, meant)| {
        if meant == b'0' {
            u8::is_ascii_digit(&byte)
        } else {
            byte == meant
        }
    };
    text.len() == shape.len() && text.bytes().zip(shape.bytes()).all(is_meant)
}

fn last_part(path: &Path) -> Option<String> {
    Some(path.file_name()?.to_str()?.to_owned())
}

/// `20261121-153817F`, `20261121-153817F_20261122-010000D`.
fn is_set_of_pgbackrest(label: &str) -> bool {
    label.split('_').count() <= 2
        && label.split('_').all(|part| {
            let (digits, kind) = part.split_at_checked(15).unwrap_or_default();
            matches!(kind, "F" | "D" | "I") && has_shape(digits, "00000000-000000")
        })
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use archive::Source;

    use super::*;

    const SEGMENT: &str = "000000010000000000000004";

    fn external<'a>(label: &'a str, has_path: bool) -> Record<'a> {
        Record {
            method: "external",
            label: Some(label),
            start_wal_file: Some(SEGMENT),
            has_path,
        }
    }

    fn by<'a>(method: &'a str, label: &'a str) -> Record<'a> {
        Record {
            method,
            ..external(label, false)
        }
    }

    #[test]
    fn a_backup_is_kept_by_the_tool_on_record_and_what_its_label_names_is_used() {
        let stanza = Source::PgBackRest(PathBuf::from("/repo/archive/main"));
        let set = "20261121-153817F_20261122-010000D";
        let kept = Tool::PgBackRest {
            stanza: Some("main".to_owned()),
            set: Some(set.to_owned()),
            start_wal_file: Some(SEGMENT.to_owned()),
        };
        assert_eq!(Tool::of(&by("pgbackrest", set), Some(&stanza)), Some(kept));
        let kept = |server: &str| {
            Some(Tool::Barman {
                server: Some(server.to_owned()),
                backup: Some("20261121T153817".to_owned()),
            })
        };
        let label = "Barman backup main 20261121T153817";
        assert_eq!(Tool::of(&by("barman", label), None), kept("main"));
        // The archive is the server's own, whatever a label says.
        let other = Source::Barman(PathBuf::from("/barman/other/wals"));
        assert_eq!(Tool::of(&by("barman", label), Some(&other)), kept("other"));
    }

    #[test]
    fn a_label_is_believed_where_the_archive_is_that_tools_own_and_nothing_else_is_known() {
        let stanza = Source::PgBackRest(PathBuf::from("/repo/archive/main"));
        let barman = Source::Barman(PathBuf::from("/barman/main/wals"));
        let plain = Source::Directory(PathBuf::from("/a"));
        let by_pgbackrest = "pgBackRest backup started at 2026-11-21";
        let by_barman = "Barman backup main 20261121T153817";
        let of = |label, has_path, archive| Tool::of(&external(label, has_path), archive);
        let named = of(by_pgbackrest, false, Some(&stanza));
        assert!(matches!(named, Some(Tool::PgBackRest { set: None, .. })), "{named:?}");
        assert!(of(by_barman, false, Some(&barman)).is_some());
        for archive in [Some(&plain), None] {
            assert_eq!(of(by_pgbackrest, false, archive), None);
            assert_eq!(of(by_barman, false, archive), None);
        }
        assert_eq!(of(by_barman, false, Some(&stanza)), None);
        assert_eq!(of(by_pgbackrest, false, Some(&barman)), None);
        assert_eq!(of("Barman backup other 20261121T153817", false, Some(&barman)), None);
        // A backup that is on record where it is, is restored from there.
        assert_eq!(of(by_pgbackrest, true, Some(&stanza)), None);
        assert_eq!(of(by_barman, true, Some(&barman)), None);
        assert!(!external(by_barman, false).says_where() && external("", true).says_where());
    }

    #[test]
    fn what_does_not_look_like_a_name_or_an_id_is_not_taken_from_a_label() {
        for label in [
            "Barman backup $(id) 20261121T153817",
            "Barman backup --remote-ssh-command=x 20261121T153817",
            "Barman backup main latest",
            "Barman backup main 20261121T153817 ; rm -rf /",
            "Barman backup main",
            "Barman backup  20261121T153817",
            "Barman backup main --help0000000000",
        ] {
            assert_eq!(
                Tool::of(&by("barman", label), None),
                Some(Tool::Barman {
                    server: None,
                    backup: None
                }),
                "{label}"
            );
        }
        let odd = Record {
            start_wal_file: Some("LATEST; rm -rf /"),
            ..by("wal-g", "")
        };
        let latest = Tool::of(&odd, None);
        assert!(
            matches!(&latest, Some(Tool::WalG { backup, .. }) if backup == "LATEST"),
            "{latest:?}"
        );
    }

    #[test]
    fn a_backup_without_a_place_is_wal_gs_where_the_archive_is() {
        let walg = Source::WalG(PathBuf::from("/w"));
        assert_eq!(
            Tool::of(&external("", false), Some(&walg)),
            Some(Tool::WalG {
                prefix: Some("/w".to_owned()),
                backup: format!("base_{SEGMENT}"),
            })
        );
        assert_eq!(Tool::of(&external("", true), Some(&walg)), None);
    }

    #[test]
    fn only_a_set_of_pgbackrest_is_one() {
        for label in ["20261121-153817F", "20261121-153817F_20261122-010000I"] {
            assert!(is_set_of_pgbackrest(label), "{label}");
        }
        for label in [
            "",
            "nightly",
            "20261121-153817",
            "20261121153817xF",
            "20261121-153817F_x",
            "é",
        ] {
            assert!(!is_set_of_pgbackrest(label), "{label}");
        }
    }
}
