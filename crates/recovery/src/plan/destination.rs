//! Where a backup is restored to: in the place of the running server, or beside it.

use std::path::{Component, Path};

use archive::printable;

use super::pg_ctl::{self, NOT_FOR_PG_CTL};

/// The data directory to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Destination {
    /// Its absolute path.
    pub path: String,
    /// Whether it is another one than the running server's own.
    pub is_beside: bool,
}

/// Why nothing can be restored there.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DestinationError {
    /// It depends on where the reader stands.
    #[error("data_directory \"{}\" is not an absolute path without \"..\"", printable(.path))]
    NotAbsolute {
        /// As given.
        path: String,
    },
    /// The server could not be started there, or something else would be.
    #[error("data_directory \"{}\" cannot be given to pg_ctl", printable(.path))]
    NotForPgCtl {
        /// Its path.
        path: String,
    },
    /// It lies in something that is used, or holds it.
    #[error("data_directory \"{}\" and {what} \"{}\" lie in one another", printable(.path), printable(.other))]
    Entangled {
        /// As given.
        path: String,
        /// What the other is.
        what: &'static str,
        /// The other.
        other: String,
    },
    /// It would be moved away with a tablespace.
    #[error("tablespace \"{}\" and {what} \"{}\" lie in one another", printable(.tablespace), printable(.other))]
    InTablespace {
        /// Where the running server has the tablespace.
        tablespace: String,
        /// What the other is.
        what: &'static str,
        /// The other.
        other: String,
    },
}

impl DestinationError {
    /// Why that matters.
    pub const fn detail(&self) -> &'static str {
        match self {
            Self::NotAbsolute { .. } | Self::Entangled { .. } => {
                "A backup is restored into a directory of its own, or into that of the running server."
            }
            Self::NotForPgCtl { .. } => NOT_FOR_PG_CTL,
            Self::InTablespace { .. } => {
                "In the running server's place its data directory and tablespaces are moved away before the backup is restored."
            }
        }
    }

    /// What to do.
    pub const fn hint(&self) -> &'static str {
        match self {
            Self::NotAbsolute { .. } | Self::Entangled { .. } => {
                "Pass the absolute path of a directory that is empty or does not exist, or leave data_directory out."
            }
            Self::NotForPgCtl { .. } => "Pass a data_directory whose path has none of these and no control characters.",
            Self::InTablespace { .. } => {
                "Pass a data_directory beside the running server, or move one of the two elsewhere."
            }
        }
    }
}

impl Destination {
    /// The place that was asked for, or the running server's own. `others`, such as the backup, must not lie in it, nor it in them;
    /// nor in the running server's `tablespaces`, which make room with the data directory.
    ///
    /// # Errors
    /// See [`DestinationError`].
    pub fn choose(
        asked: Option<&str>,
        own: &str,
        tablespaces: &[(u32, String)],
        others: &[(&'static str, &str)],
    ) -> Result<Self, DestinationError> {
        let own_path = tidy(own);
        let path = match asked {
            None => own_path.clone(),
            Some(asked) => {
                let path = Path::new(asked);
                let climbs = path.components().any(|part| part == Component::ParentDir);
                if !path.is_absolute() || climbs || path.parent().is_none() {
                    return Err(DestinationError::NotAbsolute { path: asked.to_owned() });
                }
                tidy(asked)
            }
        };
        if !pg_ctl::passes(&path) {
            return Err(DestinationError::NotForPgCtl { path });
        }
        let is_beside = path != own_path;
        let own = is_beside.then_some(("the running server's", own));
        for (what, other) in own.iter().chain(others) {
            if lie_in_one_another(&path, other) {
                return Err(DestinationError::Entangled {
                    path,
                    what,
                    other: (*other).to_owned(),
                });
            }
        }
        for (_, tablespace) in tablespaces {
            if is_beside && lie_in_one_another(&path, tablespace) {
                return Err(DestinationError::Entangled {
                    path,
                    what: "the running server's tablespace",
                    other: tablespace.clone(),
                });
            }
            let data_directory = ("the data directory", path.as_str());
            let entangled = others
                .iter()
                .chain([&data_directory])
                .find(|(_, other)| !is_beside && lie_in_one_another(tablespace, other));
            if let Some((what, other)) = entangled {
                return Err(DestinationError::InTablespace {
                    tablespace: tablespace.clone(),
                    what,
                    other: (*other).to_owned(),
                });
            }
        }
        Ok(Self { path, is_beside })
    }

    /// The directory of the tablespaces that have no place of their own.
    pub(super) fn tablespaces(&self) -> String {
        format!("{}.tablespaces", self.path)
    }

    /// Where a tablespace goes that has no place of its own.
    pub(super) fn place_of_tablespace(&self, oid: u32) -> String {
        format!("{}/{oid}", self.tablespaces())
    }

    /// The log of the server that is started there.
    pub(super) fn log(&self) -> String {
        format!("{}.log", self.path)
    }
}

fn lie_in_one_another(one: &str, other: &str) -> bool {
    let (one, other) = (tidy(one), tidy(other));
    Path::new(&one).starts_with(&other) || Path::new(&other).starts_with(&one)
}

/// Without doubled or trailing slashes, so that one place has one name.
fn tidy(path: &str) -> String {
    Path::new(path)
        .components()
        .collect::<std::path::PathBuf>()
        .display()
        .to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    const OWN: &str = "/srv/data";

    #[test]
    fn without_a_place_or_with_its_own_it_is_the_servers() {
        for asked in [None, Some("/srv/data"), Some("/srv//data/")] {
            let chosen = Destination::choose(asked, OWN, &[], &[]).unwrap();
            assert_eq!((chosen.path.as_str(), chosen.is_beside), (OWN, false));
        }
        let beside = Destination::choose(Some("/srv/data2/"), OWN, &[], &[("the backup", "/backup/1")]).unwrap();
        assert_eq!((beside.path.as_str(), beside.is_beside), ("/srv/data2", true));
    }

    #[test]
    fn a_place_that_depends_on_the_reader_is_refused() {
        for asked in ["data", "", "./x", "/srv/../etc", "/"] {
            let refused = Destination::choose(Some(asked), OWN, &[], &[]);
            assert!(
                matches!(refused, Err(DestinationError::NotAbsolute { .. })),
                "{asked:?}: {refused:?}"
            );
        }
    }

    #[test]
    fn a_place_that_a_second_shell_would_read_otherwise_is_refused() {
        let refused = |asked, own| {
            let refused = Destination::choose(asked, own, &[], &[]).map_err(|error| error.to_string());
            assert!(
                matches!(&refused, Err(why) if why.contains("cannot be given to pg_ctl") && !why.contains('\n')),
                "{asked:?}, {own}: {refused:?}"
            );
        };
        for path in [
            "/srv/$(touch x)",
            "/srv/`id`",
            "/srv/a\"b",
            "/srv/a\\b",
            "/srv/a\nb",
            "/srv/$HOME",
            "/srv/a\u{7f}",
        ] {
            refused(Some(path), OWN);
            refused(None, path);
        }
        for path in [
            "/srv/my data",
            "/srv/it's",
            "/srv/a;b&c|d<e>(f)*?[g]{h}#~!^%=",
            "/srv/größe",
        ] {
            assert!(Destination::choose(Some(path), OWN, &[], &[]).is_ok(), "{path}");
        }
        // Where the running server's own place will not do, another may.
        assert!(Destination::choose(Some("/srv/copy"), "/srv/$x", &[], &[]).is_ok());
    }

    #[test]
    fn a_place_inside_of_what_is_used_or_around_it_is_refused() {
        let others = [("the backup", "/backup/1")];
        for asked in ["/srv/data/copy", "/srv", "/backup/1", "/backup/1/x", "/backup"] {
            let refused = Destination::choose(Some(asked), OWN, &[], &others);
            assert!(
                matches!(refused, Err(DestinationError::Entangled { .. })),
                "{asked}: {refused:?}"
            );
        }
        assert!(Destination::choose(None, OWN, &[], &[("the backup", "/srv/data/backup")]).is_err());
    }

    #[test]
    fn what_would_be_moved_away_with_a_tablespace_is_refused_and_so_is_a_copy_in_one() {
        let of = |asked, tablespace: &str, other| {
            Destination::choose(asked, OWN, &[(16385, tablespace.to_owned())], &[("the archive", other)])
        };
        for (tablespace, other) in [
            ("/srv/data/fast", "/archive"),
            ("/srv", "/archive"),
            ("/fast", "/fast/archive"),
            ("/fast/ts", "/fast"),
        ] {
            let refused = of(None, tablespace, other);
            assert!(
                matches!(refused, Err(DestinationError::InTablespace { .. })),
                "{tablespace}, {other}: {refused:?}"
            );
        }
        assert!(of(None, "/fast", "/archive").is_ok());
        // Beside the server nothing is moved.
        assert!(of(Some("/srv/copy"), "/srv/data/fast", "/srv/data/fast/archive").is_ok());
        for asked in ["/fast/copy", "/"] {
            assert!(of(Some(asked), "/fast", "/archive").is_err(), "{asked}");
        }
    }
}
