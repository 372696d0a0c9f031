//! The server's clock as WAL records hold it (datatype/timestamp.h).

/// A TimestampTz: microseconds since 2000-01-01 00:00:00 UTC.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
pub struct PgTimestamp(pub i64);

impl PgTimestamp {
    /// From the Unix epoch to PostgreSQL's, in microseconds: 10,957 days.
    const EPOCH_DIFFERENCE: i64 = 946_684_800_000_000;
    /// MIN_TIMESTAMP: 4714-11-24 00:00:00 UTC BC.
    const MIN: i64 = -211_813_488_000_000_000;
    /// END_TIMESTAMP: the first moment of the year 294277, which is not a timestamp any more.
    const END: i64 = 9_223_371_331_200_000_000;

    /// From microseconds since 1970-01-01 00:00:00 UTC.
    #[must_use]
    pub const fn from_unix_micros(micros: i64) -> Self {
        Self(micros.saturating_sub(Self::EPOCH_DIFFERENCE))
    }

    /// Microseconds since 1970-01-01 00:00:00 UTC; the last moment that an i64 can hold where it would pass it.
    #[must_use]
    pub const fn unix_micros(self) -> i64 {
        self.0.saturating_add(Self::EPOCH_DIFFERENCE)
    }

    /// Whether the server would take it for a (finite) timestamp: IS_VALID_TIMESTAMP.
    #[must_use]
    pub const fn is_valid(self) -> bool {
        self.0 >= Self::MIN && self.0 < Self::END
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_epoch_is_the_year_2000() {
        assert_eq!(PgTimestamp(0).unix_micros(), 946_684_800_000_000);
        assert_eq!(PgTimestamp(i64::MAX).unix_micros(), i64::MAX);
    }

    #[test]
    fn only_what_the_server_can_show_is_valid() {
        assert!(PgTimestamp(0).is_valid());
        assert!(!PgTimestamp(i64::MAX).is_valid());
        assert!(!PgTimestamp(i64::MIN).is_valid());
    }
}
