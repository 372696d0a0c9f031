//! Transaction numbers as WAL has them: 32 bits that wrap around.

/// A stretch of transaction numbers, both ends included. `lowest` is the larger number where the stretch passes the wraparound.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct XidRange {
    /// The oldest.
    pub lowest: u32,
    /// The newest.
    pub highest: u32,
}

impl XidRange {
    /// A single one.
    #[must_use]
    pub const fn of(xid: u32) -> Self {
        Self {
            lowest: xid,
            highest: xid,
        }
    }

    /// The stretch that also holds `xid`. Numbers that are in use at the same time lie less than 2^31 apart
    /// (TransactionIdPrecedes, transam.c), so which end it extends is not in doubt.
    #[must_use]
    pub const fn with(self, xid: u32) -> Self {
        if precedes(xid, self.lowest) {
            Self { lowest: xid, ..self }
        } else if precedes(self.highest, xid) {
            Self { highest: xid, ..self }
        } else {
            self
        }
    }

    /// Whether `xid` lies in it.
    #[must_use]
    pub const fn contains(self, xid: u32) -> bool {
        xid.wrapping_sub(self.lowest) <= self.highest.wrapping_sub(self.lowest)
    }
}

const fn precedes(a: u32, b: u32) -> bool {
    a.wrapping_sub(b).cast_signed() < 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stretch_holds_what_it_was_given_and_all_between() {
        let range = XidRange::of(800).with(790).with(805).with(801);
        assert_eq!((range.lowest, range.highest), (790, 805));
        assert!(range.contains(790) && range.contains(795) && range.contains(805));
        assert!(!range.contains(789) && !range.contains(806) && !range.contains(4_000_000_000));
    }

    #[test]
    fn a_stretch_passes_the_wraparound() {
        let range = XidRange::of(u32::MAX - 1).with(7).with(u32::MAX - 20);
        assert_eq!((range.lowest, range.highest), (u32::MAX - 20, 7));
        assert!(range.contains(u32::MAX) && range.contains(3) && range.contains(7));
        assert!(!range.contains(8) && !range.contains(u32::MAX - 21));
    }
}
