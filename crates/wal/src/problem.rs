//! What can be wrong with a WAL file, in the words that users see.

use std::fmt;

use crate::lsn::Lsn;

/// Whether a file is damaged, or sound but not ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Status {
    /// `corrupt`: recovery that needs the file fails at it.
    Corrupt,
    /// `foreign`: another cluster's, timeline's, place's or version's file under this name.
    Foreign,
}

impl Status {
    /// The word in `wal_archive.status`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Corrupt => "corrupt",
            Self::Foreign => "foreign",
        }
    }
}

macro_rules! problems {
    ($($(#[$doc:meta])* $name:ident = $word:literal, $status:ident;)*) => {
        /// What is wrong with a file that is there.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
        pub enum Problem { $($(#[$doc])* $name,)* }

        impl Problem {
            /// All of them.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// The word in `wal_archive.problem`.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$name => $word,)* }
            }

            /// What the problem makes of the file.
            #[must_use]
            pub const fn status(self) -> Status {
                match self { $(Self::$name => Status::$status,)* }
            }
        }
    };
}

problems! {
    /// A file of 0 bytes.
    Empty = "empty", Corrupt;
    /// Shorter than a segment.
    Truncated = "truncated", Corrupt;
    /// Longer than a segment.
    Oversized = "oversized", Corrupt;
    /// A segment's size, and nothing but zeros.
    Zeroed = "zeroed", Corrupt;
    /// A page header that does not hold what it must, or contradicts the record that continues in its page.
    BadPageHeader = "bad_page_header", Corrupt;
    /// A page of another place in WAL, such as an old page in a recycled segment.
    BadPageAddress = "bad_page_address", Corrupt;
    /// xl_tot_len of a record cannot be, or the pages that the record spans contradict it.
    BadRecordLength = "bad_record_length", Corrupt;
    /// xl_prev of a record does not point to the record before.
    BadRecordLink = "bad_record_link", Corrupt;
    /// A record's contents do not give its CRC.
    BadRecordCrc = "bad_record_crc", Corrupt;
    /// What holds the segment could not be decompressed.
    DecompressionFailed = "decompression_failed", Corrupt;
    /// Sound, but not the bytes that are in pg_wal or were verified earlier.
    ContentDiffers = "content_differs", Corrupt;
    /// A timeline history file that does not parse.
    BadHistory = "bad_history", Corrupt;
    /// Reading failed.
    Unreadable = "unreadable", Corrupt;
    /// Another cluster's.
    ForeignSystem = "foreign_system", Foreign;
    /// Of a timeline that this one did not descend from there.
    ForeignTimeline = "foreign_timeline", Foreign;
    /// Another segment under this name.
    WrongSegment = "wrong_segment", Foreign;
    /// Of a cluster with segments of another size.
    WrongSegmentSize = "wrong_segment_size", Foreign;
    /// Written by another major of PostgreSQL.
    WrongVersion = "wrong_version", Foreign;
}

impl Problem {
    /// Whether recovery replays the segment up to the fault and stops there. Of a file that is not whole, or is another one, it
    /// replays nothing.
    #[must_use]
    pub const fn is_met_in_replay(self) -> bool {
        matches!(
            self,
            Self::BadPageHeader
                | Self::BadPageAddress
                | Self::BadRecordLength
                | Self::BadRecordLink
                | Self::BadRecordCrc
        )
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The first thing found wrong in a segment.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{sentence}")]
pub struct Fault {
    /// What it is.
    pub problem: Problem,
    /// Where in the file it shows, bytes from its start.
    pub offset: u64,
    /// The LSN that it concerns: a record's own start (which can lie in an earlier segment), else that of `offset`.
    pub lsn: Lsn,
    /// What was found where, and what was expected: one English sentence with its full stop.
    pub sentence: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_words_are_those_that_scripts_rely_on() {
        let words = |status| {
            let mut words: Vec<_> = Problem::ALL
                .iter()
                .filter(|problem| problem.status() == status)
                .map(|problem| problem.as_str())
                .collect();
            words.sort_unstable();
            words.join(" ")
        };
        assert_eq!(
            words(Status::Corrupt),
            "bad_history bad_page_address bad_page_header bad_record_crc bad_record_length bad_record_link content_differs \
             decompression_failed empty oversized truncated unreadable zeroed"
        );
        assert_eq!(
            words(Status::Foreign),
            "foreign_system foreign_timeline wrong_segment wrong_segment_size wrong_version"
        );
    }
}
