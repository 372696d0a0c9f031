//! What pg_backstop writes into WAL of its ledger: the id and the hash of the newest event, in a logical decoding message
//! (xl_logical_message, replication/message.h) that replays to nothing.

use crate::bytes::{u32_at, u64_at};

/// The newest event of a ledger at some moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct LedgerHead {
    /// The database that the ledger is in (pg_database.oid).
    pub database: u32,
    /// The extension that the ledger belongs to (pg_extension.oid): another one after DROP and CREATE EXTENSION.
    pub extension: u32,
    /// The event's id.
    pub event: i64,
    /// Its hash.
    pub hash: [u8; 32],
}

impl LedgerHead {
    /// The prefix of the message.
    pub const PREFIX: &str = "pg_backstop";
    /// How long the message is.
    const LENGTH: usize = 44;
    /// offsetof(xl_logical_message, message).
    const HEADER: usize = 24;

    /// The content of the message: short enough that all of it is kept of a record's body, whatever stands before it.
    #[must_use]
    pub fn to_message(&self) -> Vec<u8> {
        let mut message = Vec::with_capacity(Self::LENGTH);
        message.extend_from_slice(&self.extension.to_be_bytes());
        message.extend_from_slice(&self.event.to_be_bytes());
        message.extend_from_slice(&self.hash);
        message
    }

    /// Out of the main data of a record of the resource manager for such messages; `None` for other extensions' messages, and
    /// for what no version of this one has written.
    pub(crate) fn of_record(data: &[u8]) -> Option<Self> {
        let database = u32_at(data, 0)?;
        let prefix = usize::try_from(u64_at(data, 8)?).ok()?;
        let length = usize::try_from(u64_at(data, 16)?).ok()?;
        let text = data.get(Self::HEADER..)?;
        let (name, message) = text.split_at_checked(prefix)?;
        if name.strip_suffix(b"\0") != Some(Self::PREFIX.as_bytes()) || length != Self::LENGTH {
            return None;
        }
        let (extension, rest) = message.split_first_chunk::<4>()?;
        let (event, rest) = rest.split_first_chunk::<8>()?;
        Some(Self {
            database,
            extension: u32::from_be_bytes(*extension),
            event: i64::from_be_bytes(*event),
            hash: *rest.first_chunk::<32>()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(prefix: &[u8], message: &[u8]) -> Vec<u8> {
        let mut data = 5_u32.to_ne_bytes().to_vec();
        data.extend_from_slice(&[0; 4]);
        data.extend_from_slice(&(prefix.len() as u64).to_ne_bytes());
        data.extend_from_slice(&(message.len() as u64).to_ne_bytes());
        data.extend_from_slice(prefix);
        data.extend_from_slice(message);
        data
    }

    #[test]
    fn a_head_comes_back_out_of_the_record_that_it_went_into() {
        let head = LedgerHead {
            database: 5,
            extension: 16_400,
            event: 1 << 40,
            hash: std::array::from_fn(|index| index as u8),
        };
        assert_eq!(
            LedgerHead::of_record(&record(b"pg_backstop\0", &head.to_message())),
            Some(head)
        );
    }

    #[test]
    fn what_is_no_head_is_left_aside() {
        let message = [0; LedgerHead::LENGTH];
        for data in [
            record(b"pglogical\0", &message),
            record(b"pg_backstop", &message),
            record(b"pg_backstop\0", &message[1..]),
            record(b"pg_backstop\0", &[0; 100]),
            record(b"pg_backstop\0", &message)[..60].to_vec(),
            vec![0xFF; 80],
            Vec::new(),
        ] {
            assert_eq!(LedgerHead::of_record(&data), None, "{data:?}");
        }
    }
}
