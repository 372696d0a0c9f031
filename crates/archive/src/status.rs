//! What is known of one file of the archive, as the column `wal_archive.status` says it.

use std::fmt;
use std::str::FromStr;

/// The verdict on one segment, history or backup-history file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, serde::Serialize, serde::Deserialize)]
pub enum Status {
    /// Expected, or seen, and not verified yet.
    #[default]
    Pending,
    /// Read and found whole.
    Verified,
    /// Not in the archive, and nothing says that it will still come.
    Missing,
    /// There, but damaged.
    Corrupt,
    /// There, but not this cluster's or not what its name says.
    Foreign,
    /// Known to be lost, and accepted as such by the DBA.
    Acknowledged,
}

/// A status outside the list.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "\"{0}\" is no status of an archived file; one is pending, verified, missing, corrupt, foreign or acknowledged"
)]
pub struct UnknownStatus(pub String);

impl Status {
    /// What a problem makes of a file that is there.
    pub const fn of(problem: wal::Problem) -> Self {
        match problem.status() {
            wal::Status::Corrupt => Self::Corrupt,
            wal::Status::Foreign => Self::Foreign,
        }
    }

    /// The word in the table.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Verified => "verified",
            Self::Missing => "missing",
            Self::Corrupt => "corrupt",
            Self::Foreign => "foreign",
            Self::Acknowledged => "acknowledged",
        }
    }

    /// Whether recovery cannot pass this segment, as far as is known. A pending one is merely not proven.
    pub const fn is_bad(self) -> bool {
        matches!(self, Self::Missing | Self::Corrupt | Self::Foreign | Self::Acknowledged)
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Status {
    type Err = UnknownStatus;

    fn from_str(word: &str) -> Result<Self, UnknownStatus> {
        [
            Self::Pending,
            Self::Verified,
            Self::Missing,
            Self::Corrupt,
            Self::Foreign,
            Self::Acknowledged,
        ]
        .into_iter()
        .find(|status| status.as_str() == word)
        .ok_or_else(|| UnknownStatus(word.to_owned()))
    }
}
