//! Positions in the write-ahead log, and the timelines that they lie on (xlogdefs.h).

use std::fmt;
use std::str::FromStr;

/// Records start at multiples of this many bytes: MAXALIGN of the 64-bit servers that are supported.
pub(crate) const RECORD_ALIGNMENT: u64 = 8;

/// A byte position in the write-ahead log: XLogRecPtr, SQL's `pg_lsn`. Shown as PostgreSQL shows it, `0/16B3748`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
pub struct Lsn(pub u64);

impl Lsn {
    /// No position: InvalidXLogRecPtr. No record ever lies there.
    pub const INVALID: Self = Self(0);
    /// The last position that can be written down.
    pub const MAX: Self = Self(u64::MAX);

    /// The position `bytes` further on, or the last one there is.
    #[must_use]
    pub const fn plus(self, bytes: u64) -> Self {
        Self(self.0.saturating_add(bytes))
    }

    /// The position `bytes` before, or 0/0.
    #[must_use]
    pub const fn less(self, bytes: u64) -> Self {
        Self(self.0.saturating_sub(bytes))
    }

    /// How many bytes lie from `earlier` to here; 0 when `earlier` is not earlier.
    #[must_use]
    pub const fn bytes_since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }

    /// Whether this is InvalidXLogRecPtr.
    #[must_use]
    pub const fn is_invalid(self) -> bool {
        self.0 == 0
    }

    /// Here, or the next position at which a record can start.
    #[must_use]
    pub(crate) const fn aligned(self) -> Self {
        Self(self.0.saturating_add(RECORD_ALIGNMENT - 1) & !(RECORD_ALIGNMENT - 1))
    }

    /// The greatest multiple of `unit` (a power of two) that is not after here.
    #[must_use]
    pub(crate) const fn floor(self, unit: u64) -> Self {
        Self(self.0 & !unit.saturating_sub(1))
    }

    /// How far here is behind a multiple of `unit` (a power of two).
    #[must_use]
    pub(crate) const fn within(self, unit: u64) -> u64 {
        self.0 & unit.saturating_sub(1)
    }
}

impl fmt::Display for Lsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:X}/{:X}", self.0 >> 32, self.0 & 0xFFFF_FFFF)
    }
}

/// A text that is not a position in WAL.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a WAL position: \"{0}\" (one to eight hex digits, a slash, one to eight hex digits)")]
pub struct LsnError(pub String);

impl FromStr for Lsn {
    type Err = LsnError;

    /// What pg_lsn's input function takes (pg_lsn.c).
    fn from_str(text: &str) -> Result<Self, LsnError> {
        let refuse = || LsnError(text.chars().take(64).collect());
        let (high, low) = text.split_once('/').ok_or_else(refuse)?;
        let high = hex_u32(high.as_bytes()).ok_or_else(refuse)?;
        let low = hex_u32(low.as_bytes()).ok_or_else(refuse)?;
        Ok(Self(u64::from(high) << 32 | u64::from(low)))
    }
}

/// One to eight hex digits and nothing else.
pub(crate) fn hex_u32(digits: &[u8]) -> Option<u32> {
    if digits.is_empty() || digits.len() > 8 {
        return None;
    }
    digits.iter().try_fold(0_u32, |value, digit| {
        Some(value << 4 | char::from(*digit).to_digit(16)?)
    })
}

/// A timeline: TimeLineID. The first one of a cluster is 1; every recovery that ends in a promotion begins another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
pub struct Timeline(pub u32);

impl fmt::Display for Timeline {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_lsn_reads_and_prints_as_postgresql_does() {
        for (text, value) in [
            ("0/16B3748", 0x16B_3748),
            ("FF/0", 0xFF_0000_0000),
            ("FFFFFFFF/FFFFFFFF", u64::MAX),
        ] {
            assert_eq!(text.parse(), Ok(Lsn(value)));
            assert_eq!(Lsn(value).to_string(), text);
        }
        assert_eq!("a/b".parse(), Ok(Lsn(0xA_0000_000B)));
    }

    #[test]
    fn what_is_no_lsn_is_refused() {
        for text in [
            "",
            "/",
            "0",
            "0/",
            "/0",
            "0/0/0",
            "000000000/0",
            "0/000000000",
            "g/0",
            "+1/0",
            " 0/0",
            "0/0 ",
            "0x1/0",
        ] {
            assert!(text.parse::<Lsn>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn arithmetic_at_the_ends_stays_there() {
        assert_eq!(Lsn::MAX.plus(1), Lsn::MAX);
        assert_eq!(Lsn(5).less(6), Lsn(0));
        assert_eq!(Lsn(5).bytes_since(Lsn(6)), 0);
        assert_eq!(Lsn(1).aligned(), Lsn(8));
        assert_eq!(Lsn(8).aligned(), Lsn(8));
        assert_eq!(Lsn::MAX.aligned(), Lsn(u64::MAX - 7));
    }
}
