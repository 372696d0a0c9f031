//! Recoveries that nobody recorded, from made-up traces.

use chrono::{DateTime, Duration, Utc};
use proptest::prelude::*;
use wal::{Lsn, Timeline};

use crate::detected::RecoveryType;
use crate::lives::Beginning;
use crate::traces::{Branch, Durability, Traces};

/// So many seconds into the story.
fn at(seconds: i64) -> DateTime<Utc> {
    DateTime::UNIX_EPOCH + Duration::seconds(1_000_000_000 + seconds)
}

/// A server that was last alive at 100, crashed, and was started at 120.
fn crashed() -> Traces {
    Traces {
        beginning: Beginning::Crash,
        began_at: at(120),
        writes_at: at(125),
        no_writes_at: None,
        heartbeat_at: Some(at(100)),
        control_written_at: Some(at(60)),
        checkpoint_timeout: Duration::seconds(300),
        same_boot: Some(true),
        redo: Some(Lsn(1000)),
        recovered_to: Some(Lsn(5000)),
        last_commit_at: Some(at(99)),
        unread: None,
        durability: Durability {
            fsync: true,
            full_page_writes: true,
            synchronous_commit: true,
        },
        is_copy: false,
        primary_heard_at: None,
        primary_end: None,
        received: None,
        primary_shut_down: false,
        branch: None,
        target_time: None,
        target_unread: None,
        paused_at: None,
        backup_start: None,
    }
}

fn branched(beginning: Beginning, reason: &str) -> Traces {
    Traces {
        beginning,
        branch: Some(Branch {
            parent: Timeline(1),
            timeline: Timeline(2),
            at: Lsn(9000),
            reason: reason.to_owned(),
            written_at: Some(at(123)),
        }),
        ..crashed()
    }
}

fn remark<'a>(found: &'a crate::detected::Detected, column: &str) -> &'a str {
    found
        .remarks
        .iter()
        .find(|(name, _)| *name == column)
        .map_or("", |(_, text)| text.as_str())
}

#[test]
fn a_crash_lasts_from_the_last_sign_of_life_until_writes() {
    let found = crashed().recovery().unwrap();
    assert_eq!(found.kind, RecoveryType::Crash);
    assert_eq!((found.start, found.end), (at(100), at(125)));
    assert_eq!((found.rto_seconds, found.rpo_seconds), (Some(25.0), Some(0.0)));
    assert_eq!(found.wal_replayed_bytes, Some(4000));
    assert!(remark(&found, "start_time").contains("last heartbeat before the crash"));
    // The heartbeat did not survive.
    let lost = Traces {
        heartbeat_at: None,
        ..crashed()
    };
    let found = lost.recovery().unwrap();
    assert_eq!(found.start, at(99));
    assert!(remark(&found, "start_time").starts_with("the last commit"));
    let lost = Traces {
        last_commit_at: None,
        ..lost
    };
    let found = lost.recovery().unwrap();
    assert_eq!(found.start, at(60));
    assert!(remark(&found, "start_time").contains("pg_control"));
    assert!(remark(&found, "recovered_to_time").contains("nothing was committed"));
    // A heartbeat from the future is of a clock that was set back.
    let odd = Traces {
        heartbeat_at: Some(at(999)),
        ..crashed()
    };
    assert_eq!(odd.recovery().unwrap().start, at(99));
}

#[test]
fn how_long_an_idle_server_was_down_is_not_known_without_a_heartbeat() {
    let hour = 3600;
    let idle = Traces {
        heartbeat_at: None,
        control_written_at: Some(at(60 - hour)),
        last_commit_at: Some(at(99 - hour)),
        ..crashed()
    };
    let found = idle.recovery().unwrap();
    assert_eq!(
        (found.start, found.rto_seconds, found.failure_time),
        (at(99 - hour), None, None)
    );
    assert!(
        remark(&found, "rto_seconds").contains("3621 s older") && remark(&found, "rto_seconds").contains("(300 s)")
    );
    // What was lost does not depend on it.
    assert_eq!(found.rpo_seconds, Some(0.0));
    // It gave heartbeats, and then it was down for an hour.
    let down = Traces {
        heartbeat_at: Some(at(98 - hour)),
        ..idle.clone()
    };
    let found = down.recovery().unwrap();
    assert_eq!((found.start, found.rto_seconds), (at(99 - hour), Some(3626.0)));
    // Its worker had been stopped long before.
    let unwatched = Traces {
        heartbeat_at: Some(at(-2 * hour)),
        ..idle.clone()
    };
    assert_eq!(unwatched.recovery().unwrap().rto_seconds, None);
    let unknown = Traces {
        control_written_at: None,
        last_commit_at: None,
        ..idle
    };
    let found = unknown.recovery().unwrap();
    assert_eq!(
        (found.start, found.rto_seconds, found.failure_time),
        (at(120), None, None)
    );
    assert!(remark(&found, "rto_seconds").contains("nothing tells"));
}

#[test]
fn what_a_crash_lost_is_nothing_only_where_that_is_sure() {
    let with = |change: fn(&mut Traces)| {
        let mut traces = crashed();
        change(&mut traces);
        let found = traces.recovery().unwrap();
        (found.rpo_seconds, remark(&found, "rpo_seconds").to_owned())
    };
    assert_eq!(with(|t| t.same_boot = Some(false)).0, Some(0.0));
    // The kernel kept what was written.
    assert_eq!(with(|t| t.durability.fsync = false).0, Some(0.0));
    for (change, word) in [
        (
            (|t| {
                t.durability.fsync = false;
                t.same_boot = None;
            }) as fn(&mut Traces),
            "fsync",
        ),
        (
            |t| {
                t.durability.full_page_writes = false;
                t.same_boot = Some(false);
            },
            "full_page_writes",
        ),
        (|t| t.durability.synchronous_commit = false, "synchronous_commit"),
        (|t| t.is_copy = true, "copy"),
    ] {
        let (rpo, because) = with(change);
        assert!(rpo.is_none() && because.contains(word), "{because}");
    }
}

#[test]
fn a_failover_lost_what_the_primary_had_said_to_have() {
    let mut traces = Traces {
        primary_heard_at: Some(at(110)),
        primary_end: Some(Lsn(9500)),
        last_commit_at: Some(at(104)),
        ..branched(Beginning::Standby, "no recovery target specified")
    };
    let found = traces.recovery().unwrap();
    assert_eq!(found.kind, RecoveryType::Failover);
    assert_eq!((found.start, found.end), (at(110), at(123)));
    assert_eq!((found.rto_seconds, found.rpo_seconds), (Some(13.0), Some(6.0)));
    assert_eq!(remark(&found, "lost_bytes"), "500");
    assert_eq!(
        (found.recovered_to, found.target_timeline),
        (Some(Lsn(9000)), Some(Timeline(1)))
    );
    traces.primary_end = Some(Lsn(9000));
    let found = traces.recovery().unwrap();
    assert!(found.rpo_seconds.is_none() && remark(&found, "rpo_seconds").contains("all arrived"));
    // The beginning of a record that never was finished.
    traces.primary_end = Some(Lsn(9500));
    traces.received = Some(Lsn(9500));
    assert!(traces.recovery().unwrap().rpo_seconds.is_none());
    traces.primary_shut_down = true;
    let found = traces.recovery().unwrap();
    assert_eq!((found.rpo_seconds, found.failure_time), (Some(0.0), None));
    traces.primary_shut_down = false;
    traces.primary_heard_at = None;
    let found = traces.recovery().unwrap();
    assert_eq!((found.start, found.rto_seconds), (at(123), None));
    assert!(remark(&found, "start_time").contains("never saw itself connected"));
    assert!(found.failure_time.is_none());
}

#[test]
fn a_point_in_time_recovery_is_measured_from_its_start_and_loses_up_to_its_target() {
    let traces = Traces {
        target_time: Some(at(90)),
        last_commit_at: Some(at(88)),
        backup_start: Some(Lsn(2000)),
        ..branched(Beginning::Archive, "before 2001-09-09 01:48:10+00")
    };
    let found = traces.recovery().unwrap();
    assert_eq!(found.kind, RecoveryType::PointInTime);
    assert_eq!(found.rpo_seconds, Some(2.0));
    assert_eq!((found.replay_seconds, found.startup_seconds), (Some(3.0), Some(2.0)));
    assert_eq!((found.rto_seconds, found.wal_replayed_bytes), (Some(5.0), Some(7000)));
    let paused = Traces {
        paused_at: Some(at(121)),
        ..traces.clone()
    };
    assert_eq!(paused.recovery().unwrap().replay_seconds, Some(1.0));
    let unread = Traces {
        target_time: None,
        target_unread: Some("an error".to_owned()),
        ..traces.clone()
    };
    let found = unread.recovery().unwrap();
    assert_eq!(found.rpo_seconds, None);
    assert_eq!(remark(&found, "target_time"), "not known: an error");
    assert!(remark(&found, "rpo_seconds").contains("could not be read"));
    let empty = Traces {
        last_commit_at: None,
        ..traces
    };
    assert!(empty.recovery().unwrap().rpo_seconds.is_none());
}

#[test]
fn without_a_time_to_measure_against_the_loss_is_not_known() {
    for reason in [
        "no recovery target specified",
        "at restore point \"x\"",
        "after transaction 9",
        "after LSN 0/9",
        "reached consistency",
    ] {
        let found = branched(Beginning::Archive, reason).recovery().unwrap();
        assert!(
            found.rpo_seconds.is_none() && !remark(&found, "rpo_seconds").is_empty(),
            "{reason}"
        );
    }
}

#[test]
fn a_planned_start_and_a_recovery_that_goes_on_are_none() {
    for beginning in [Beginning::Planned, Beginning::Unknown] {
        assert_eq!(branched(beginning, "x").recovery(), None);
    }
    for beginning in [Beginning::Standby, Beginning::Archive] {
        let traces = Traces { beginning, ..crashed() };
        assert_eq!(traces.recovery(), None);
    }
}

#[test]
fn a_clock_that_was_set_back_gives_no_duration() {
    let traces = Traces {
        writes_at: at(50),
        ..crashed()
    };
    let found = traces.recovery().unwrap();
    assert_eq!(found.rto_seconds, None);
    assert!(remark(&found, "rto_seconds").contains("clock"));
}

proptest! {
    #[test]
    fn nothing_is_ever_negative_and_what_is_unknown_has_its_reason(
        beginning in prop_oneof![Just(Beginning::Crash), Just(Beginning::Archive), Just(Beginning::Standby), Just(Beginning::Backup)],
        times in proptest::collection::vec(proptest::option::of(-500_i64..500), 9),
        lsns in proptest::collection::vec(proptest::option::of(0_u64..1000), 4),
        reason in "(no recovery target specified|before 2026-01-01 00:00:00\\+00|reached consistency)",
        is_copy in any::<bool>(),
    ) {
        let time = |place: usize| times[place].map(at);
        let traces = Traces {
            beginning,
            began_at: time(0).unwrap_or(at(0)),
            writes_at: time(1).unwrap_or(at(0)),
            no_writes_at: time(2),
            heartbeat_at: time(3),
            control_written_at: time(4),
            last_commit_at: time(5),
            primary_heard_at: time(6),
            target_time: time(7),
            paused_at: time(8),
            redo: lsns[0].map(Lsn),
            recovered_to: lsns[1].map(Lsn),
            primary_end: lsns[2].map(Lsn),
            backup_start: lsns[3].map(Lsn),
            is_copy,
            ..branched(beginning, &reason)
        };
        let found = traces.recovery().unwrap();
        for seconds in [found.rto_seconds, found.rpo_seconds, found.replay_seconds, found.startup_seconds].into_iter().flatten() {
            prop_assert!(seconds >= 0.0);
        }
        prop_assert!(found.rto_seconds.is_some() || !remark(&found, "rto_seconds").is_empty());
        prop_assert!(!remark(&found, "rpo_seconds").is_empty());
        prop_assert!(!remark(&found, "start_time").is_empty());
    }
}
