//! Why a recovery ended, as the server wrote it into the new timeline's history file (getRecoveryStopReason() in xlogrecovery.c).

use crate::detected::RecoveryType;

/// Why a recovery ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StopReason {
    /// The kind of target that was set; `latest` for none.
    pub kind: RecoveryType,
    /// False where it was ended before the target was reached: by a promotion.
    pub reached: bool,
}

impl StopReason {
    /// Reads the reason in a history file's last line. What nobody wrote there counts as no target.
    #[must_use]
    pub fn parse(reason: &str) -> Self {
        let reason = reason.trim();
        let stopped = reason
            .strip_prefix("before ")
            .or_else(|| reason.strip_prefix("after "))
            .map(str::trim);
        let (kind, reached) = match stopped {
            // Where no record was found to stop at, the server shows what its variables began with.
            Some(rest) if rest.starts_with("transaction ") => (RecoveryType::Xid, rest != "transaction 0"),
            Some(rest) if rest.starts_with("LSN ") => (RecoveryType::Lsn, rest != "LSN 0/0"),
            Some(rest) => (
                RecoveryType::PointInTime,
                !(rest.starts_with("2000-01-01 ") || rest.starts_with("1999-12-31 ")),
            ),
            None if reason.starts_with("at restore point ") => (RecoveryType::Name, reason != "at restore point \"\""),
            None if reason == "reached consistency" => (RecoveryType::Immediate, true),
            None => (RecoveryType::Latest, true),
        };
        Self { kind, reached }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn each_reason_that_the_server_writes_is_understood() {
        for (reason, kind) in [
            ("no recovery target specified", RecoveryType::Latest),
            ("before 2026-11-21 10:00:00.123456+00\n", RecoveryType::PointInTime),
            ("after 2026-11-21 10:00:00+00", RecoveryType::PointInTime),
            ("after transaction 741", RecoveryType::Xid),
            ("before LSN 0/16B3748", RecoveryType::Lsn),
            ("at restore point \"before the change\"", RecoveryType::Name),
            ("reached consistency", RecoveryType::Immediate),
        ] {
            let stop = StopReason::parse(reason);
            assert_eq!((stop.kind, stop.reached), (kind, true), "{reason}");
        }
    }

    #[test]
    fn a_promotion_before_the_target_is_told_apart() {
        for reason in [
            "before 2000-01-01 00:00:00+00",
            "before transaction 0",
            "before LSN 0/0",
            "at restore point \"\"",
        ] {
            assert!(!StopReason::parse(reason).reached, "{reason}");
        }
    }

    proptest! {
        #[test]
        fn any_text_has_a_meaning(reason in ".{0,200}") {
            prop_assert!(!StopReason::parse(&reason).kind.as_str().is_empty());
        }
    }
}
