//! Backups that a tool keeps in a form of its own: its own command restores them.

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

impl Tool {
    /// The tool that keeps a backup, by what is on record of it. `stanza`, `server` and `prefix` are those of the archive.
    pub fn of(
        method: &str,
        label: Option<&str>,
        start_wal_file: Option<&str>,
        archive: Option<&archive::Source>,
        has_path: bool,
    ) -> Option<Self> {
        let label = label.unwrap_or_default();
        // As Barman labels its backups: "Barman backup <server> <id>".
        let mut by_barman = label.strip_prefix("Barman backup ").map(|rest| rest.split(' '));
        let named = by_barman
            .as_mut()
            .and_then(|parts| Some((parts.next()?.to_owned(), parts.next()?.to_owned())));
        let by_pgbackrest = label.starts_with("pgBackRest backup started at ");
        let at = |path: &std::path::Path| {
            let name = path.file_name()?.to_str()?;
            Some(name.to_owned())
        };
        let is_foreign_place = !has_path && method == "external";
        match archive {
            _ if method == "pgbackrest" || by_pgbackrest => Some(Self::PgBackRest {
                stanza: match archive {
                    Some(archive::Source::PgBackRest(path)) => at(path),
                    _ => None,
                },
                set: Some(label)
                    .filter(|label| is_set_of_pgbackrest(label))
                    .map(str::to_owned),
                start_wal_file: start_wal_file.map(str::to_owned),
            }),
            _ if method == "barman" || named.is_some() => {
                let (server, backup) = named.unzip();
                Some(Self::Barman {
                    server: server.or_else(|| match archive {
                        Some(archive::Source::Barman(path)) => path.parent().and_then(at),
                        _ => None,
                    }),
                    backup,
                })
            }
            Some(archive::Source::WalG(_)) if is_foreign_place => Self::wal_g(archive, start_wal_file),
            _ if method == "wal-g" => Self::wal_g(archive, start_wal_file),
            _ => None,
        }
    }

    fn wal_g(archive: Option<&archive::Source>, start_wal_file: Option<&str>) -> Option<Self> {
        Some(Self::WalG {
            prefix: match archive {
                Some(archive::Source::WalG(path)) => Some(path.display().to_string()),
                _ => None,
            },
            // Full backups are called after the segment that they begin in.
            backup: start_wal_file.map_or_else(|| "LATEST".to_owned(), |segment| format!("base_{segment}")),
        })
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

/// `20261121-153817F`, `20261121-153817F_20261122-010000D`.
fn is_set_of_pgbackrest(label: &str) -> bool {
    label.split('_').count() <= 2
        && label.split('_').all(|part| {
            let (digits, kind) = part.split_at_checked(15).unwrap_or_default();
            matches!(kind, "F" | "D" | "I")
                && digits.bytes().enumerate().all(|(place, byte)| {
                    if place == 8 {
                        byte == b'-'
                    } else {
                        byte.is_ascii_digit()
                    }
                })
        })
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use archive::Source;

    use super::*;

    #[test]
    fn a_backup_is_its_tools_by_method_label_or_archive() {
        let stanza = Source::PgBackRest(PathBuf::from("/repo/archive/main"));
        assert_eq!(
            Tool::of(
                "external",
                Some("pgBackRest backup started at 2026-11-21"),
                None,
                Some(&stanza),
                false
            ),
            Some(Tool::PgBackRest {
                stanza: Some("main".to_owned()),
                set: None,
                start_wal_file: None
            })
        );
        assert_eq!(
            Tool::of(
                "pgbackrest",
                Some("20261121-153817F_20261122-010000D"),
                None,
                Some(&stanza),
                false
            ),
            Some(Tool::PgBackRest {
                stanza: Some("main".to_owned()),
                set: Some("20261121-153817F_20261122-010000D".to_owned()),
                start_wal_file: None
            })
        );
        assert_eq!(
            Tool::of(
                "external",
                Some("Barman backup main 20261121T153817"),
                None,
                None,
                false
            ),
            Some(Tool::Barman {
                server: Some("main".to_owned()),
                backup: Some("20261121T153817".to_owned())
            })
        );
        let walg = Source::WalG(PathBuf::from("/w"));
        let of = |has_path| {
            Tool::of(
                "external",
                None,
                Some("000000010000000000000004"),
                Some(&walg),
                has_path,
            )
        };
        assert_eq!(
            of(false),
            Some(Tool::WalG {
                prefix: Some("/w".to_owned()),
                backup: "base_000000010000000000000004".to_owned()
            })
        );
        assert_eq!(of(true), None);
        let plain = Source::Directory(PathBuf::from("/a"));
        assert_eq!(
            Tool::of("external", Some("pg_basebackup base backup"), None, Some(&plain), false),
            None
        );
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
