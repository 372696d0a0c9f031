//! Where a backup is restored to: in the place of the running server, or beside it.

use std::path::{Component, Path};

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
    #[error("data_directory \"{path}\" is not an absolute path without \"..\"")]
    NotAbsolute {
        /// As given.
        path: String,
    },
    /// It lies in something that is used, or holds it.
    #[error("data_directory \"{path}\" and {what} \"{other}\" lie in one another")]
    Entangled {
        /// As given.
        path: String,
        /// What the other is.
        what: &'static str,
        /// The other.
        other: String,
    },
}

impl Destination {
    /// The place that was asked for, or the running server's own. `others` must not lie in it, nor it in them.
    ///
    /// # Errors
    /// See [`DestinationError`].
    pub fn choose(asked: Option<&str>, own: &str, others: &[(&'static str, &str)]) -> Result<Self, DestinationError> {
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
        let is_beside = path != own_path;
        let own = is_beside.then_some(("the running server's", own));
        for (what, other) in own.iter().chain(others) {
            let (this, that) = (Path::new(&path), tidy(other));
            if this.starts_with(&that) || Path::new(&that).starts_with(this) {
                return Err(DestinationError::Entangled {
                    path,
                    what,
                    other: (*other).to_owned(),
                });
            }
        }
        Ok(Self { path, is_beside })
    }

    /// Where a tablespace goes that has no place of its own.
    pub(super) fn place_of_tablespace(&self, oid: u32) -> String {
        format!("{}.tablespaces/{oid}", self.path)
    }

    /// The log of the server that is started there.
    pub(super) fn log(&self) -> String {
        format!("{}.log", self.path)
    }
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
            let chosen = Destination::choose(asked, OWN, &[]).unwrap();
            assert_eq!((chosen.path.as_str(), chosen.is_beside), (OWN, false));
        }
        let beside = Destination::choose(Some("/srv/data2/"), OWN, &[("the backup", "/backup/1")]).unwrap();
        assert_eq!((beside.path.as_str(), beside.is_beside), ("/srv/data2", true));
    }

    #[test]
    fn a_place_that_depends_on_the_reader_is_refused() {
        for asked in ["data", "", "./x", "/srv/../etc", "/"] {
            let refused = Destination::choose(Some(asked), OWN, &[]);
            assert!(
                matches!(refused, Err(DestinationError::NotAbsolute { .. })),
                "{asked:?}: {refused:?}"
            );
        }
    }

    #[test]
    fn a_place_inside_of_what_is_used_or_around_it_is_refused() {
        let others = [("the backup", "/backup/1")];
        for asked in ["/srv/data/copy", "/srv", "/backup/1", "/backup/1/x", "/backup"] {
            let refused = Destination::choose(Some(asked), OWN, &others);
            assert!(
                matches!(refused, Err(DestinationError::Entangled { .. })),
                "{asked}: {refused:?}"
            );
        }
        assert!(Destination::choose(None, OWN, &[("the backup", "/srv/data/backup")]).is_err());
    }
}
