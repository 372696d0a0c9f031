//! The verdict and its sentences.

use std::time::Duration;

use archive::Status;

use super::scenario::*;
use crate::Readiness::{AtRisk, Ready, Unknown, Unrecoverable};
use crate::*;

fn sound() -> Facts {
    cluster(vec![backup(1, 2.25, 2.5), backup(2, 6.0, 6.5)])
}

#[test]
fn a_cluster_in_order_is_ready_without_a_word() {
    let verdict = sound().verdict();
    assert_eq!((verdict.status, verdict.reasons.len()), (Ready, 0));
    assert_eq!((verdict.rpo_seconds, verdict.rpo_bytes), (Some(5.0), Some(8 << 20)));
    assert_eq!(verdict.window.unwrap().backup_id, 1);
    assert_eq!(sound().verdict_with(OldestCommit::None).rpo_seconds, Some(0.0));
}

#[test]
fn a_backup_that_nothing_but_sql_says_is_there_puts_at_risk() {
    let mut facts = sound();
    facts.put_in_by_sql = Some("mallory at 2026-01-01 10:00:00 UTC".to_owned());
    let verdict = facts.verdict();
    assert_eq!(verdict.status, AtRisk);
    verdict.says(
        AtRisk,
        &[
            "Backup 2,",
            "with SQL",
            "by mallory at 2026-01-01",
            "record_backup_start()",
            "origin = 'imported'",
        ],
    );
}

#[test]
fn without_a_backup_nothing_protects_and_the_exposure_is_not_known() {
    let verdict = cluster(Vec::new()).verdict();
    assert_eq!(
        (verdict.status, verdict.rpo_seconds, verdict.rpo_bytes),
        (Unrecoverable, None, None)
    );
    verdict.says(Unrecoverable, &["no completed base backup", "pg_basebackup"]);
}

#[test]
fn a_receiver_without_a_backup_protects_but_is_not_enough() {
    let mut facts = cluster(Vec::new());
    facts.receivers = vec![at(10.5)];
    let verdict = facts.verdict_with(OldestCommit::None);
    assert_eq!(
        (verdict.status, verdict.rpo_bytes, verdict.rpo_seconds),
        (AtRisk, Some(0), Some(0.0))
    );
    verdict.says(AtRisk, &["no completed base backup", "Only the connected receivers"]);
}

#[test]
fn a_missing_segment_after_the_newest_backup_puts_at_risk_and_says_what_is_lost_and_what_to_do() {
    let verdict = sound().with_broken([missing(8)]).verdict();
    assert_eq!(verdict.status, AtRisk);
    verdict.says(
        AtRisk,
        &[
            "Segment 000000010000000000000008 is missing",
            "nothing from 0/8000000 on",
            "backups 1 and 2",
            "put it back into dir:/mnt/archive",
            "take a base backup",
        ],
    );
}

#[test]
fn a_missing_segment_that_only_older_backups_need_is_named_but_does_no_harm() {
    let verdict = sound().with_broken([missing(4)]).verdict();
    assert_eq!(verdict.status, Ready);
    verdict.says(
        Ready,
        &[
            "Segment 000000010000000000000004 is missing",
            "backup 1,",
            "backup 2 and what follows it do not need it",
        ],
    );
}

#[test]
fn the_first_segment_of_the_newest_backup_missing_falls_back_to_the_one_before() {
    let verdict = sound().with_broken([missing(6)]).verdict();
    assert_eq!(verdict.status, AtRisk);
    verdict.says(
        AtRisk,
        &[
            "Backup 2 is not usable: segment 000000010000000000000006",
            "recovery starts from backup 1",
        ],
    );
    assert_eq!(verdict.window.unwrap().backup_id, 1);
}

#[test]
fn with_every_backup_broken_each_is_named_with_its_reason() {
    let verdict = sound()
        .with_broken([missing(6), broken(1, 2, Status::Foreign, "foreign_system")])
        .verdict();
    assert_eq!((verdict.status, verdict.rpo_bytes), (Unrecoverable, None));
    verdict.says(
        Unrecoverable,
        &[
            "No backup can be recovered from",
            "backup 2: segment",
            "backup 1: segment",
            "foreign (foreign_system)",
        ],
    );
}

#[test]
fn a_backup_whose_wal_has_yet_to_be_read_is_worth_a_word_while_an_older_one_holds() {
    let mut facts = sound();
    facts.backups.push(backup(3, 9.5, 10.2));
    let verdict = facts.verdict();
    assert_eq!(verdict.status, Ready);
    verdict.says(Ready, &["Backup 3 is not usable", "not verified yet", "backup 2"]);
    let alone = cluster(vec![backup(3, 9.5, 10.2)]).verdict();
    assert_eq!(alone.status, Unrecoverable);
    alone.says(Unrecoverable, &["wait until its WAL is archived and verified"]);
}

#[test]
fn a_failed_backup_after_the_newest_usable_one_is_told_with_its_error() {
    let mut facts = sound();
    let mut failed = backup(3, 8.0, 8.5);
    failed.status = BackupStatus::Failed;
    failed.error = Some("could not write: No space left on device.".to_owned());
    facts.backups.push(failed.clone());
    facts.verdict().says(
        AtRisk,
        &["Backup 3 failed: could not write: No space left on device; take another"],
    );
    facts.backups.push(backup(4, 9.0, 9.5));
    assert_eq!(facts.verdict().status, Ready, "a later success heals it");
    failed.status = BackupStatus::Completed;
    failed.verification = Verification::Failed;
    failed.id = 5;
    facts.backups = vec![backup(1, 2.25, 2.5), failed];
    facts
        .verdict()
        .says(AtRisk, &["Backup 5 is not usable: its verification failed"]);
}

#[test]
fn a_silent_worker_makes_the_verdict_unknown_and_not_green() {
    let mut facts = sound();
    facts.worker.last_tick_at = Some(ago(31));
    facts
        .verdict()
        .says(Unknown, &["31 s ago", "every 10 s", "start_worker()"]);
    facts.worker.last_tick_at = Some(ago(30));
    assert_eq!(facts.verdict().status, Ready);
    facts.worker.check_interval = Duration::from_secs(60);
    facts.worker.last_tick_at = Some(ago(180));
    assert_eq!(facts.verdict().status, Ready);
    facts.worker.last_tick_at = None;
    facts
        .verdict()
        .says(Unknown, &["not looked at the archive yet", "shared_preload_libraries"]);
    facts.worker.last_tick_at = Some(ago(-500));
    assert_eq!(facts.verdict().status, Ready, "a clock set back is not a silent worker");
}

#[test]
fn what_was_tried_in_vain_is_not_advised() {
    let why = "no background worker slot is free: raise max_worker_processes and restart the server";
    for last_tick_at in [None, Some(ago(31))] {
        let mut facts = sound();
        facts.worker.last_tick_at = last_tick_at;
        facts.worker.not_started = Some(why.to_owned());
        let verdict = facts.verdict();
        verdict.says(Unknown, &["could not be started", why]);
        assert!(
            verdict
                .reasons
                .iter()
                .all(|reason| !reason.sentence.contains("start_worker")),
            "{verdict:?}"
        );
    }
}

#[test]
fn what_others_have_said_is_without_secrets_and_on_one_line() {
    let mut facts = sound();
    facts.worker.error = Some("it said:\nPGPASSWORD=hunter2\u{1b}[2J".to_owned());
    facts.verdict().says(AtRisk, &[r"it said:\nPGPASSWORD=***"]);
}

#[test]
fn what_keeps_wal_from_the_archive_is_said() {
    let mut facts = sound();
    facts.archiver.unreadable = Some("could not read \"/mnt/archive\": Permission denied".to_owned());
    facts
        .verdict()
        .says(AtRisk, &["dir:/mnt/archive cannot be read", "Permission denied"]);

    let mut facts = sound();
    facts.archiver.failing = Some(ArchiverFailure {
        file: segment(1, 10).to_string(),
        at: ago(90),
    });
    facts
        .verdict()
        .says(AtRisk, &["The archiver fails", "00000001000000000000000A", "90 s ago"]);

    let mut facts = sound();
    facts.archiver.source =
        Err("archive_command \"x\" cannot be followed: …; set pg_backstop.archive_source.".to_owned());
    facts
        .verdict()
        .says(Unknown, &["is not known", "set pg_backstop.archive_source."]);
    facts.archiver.mode_on = false;
    facts.verdict().says(AtRisk, &["archiving is off", "archive_mode = on"]);

    let mut late = broken(1, 10, Status::Pending, "");
    late.noticed_at = ago(120);
    let mut facts = sound().with_broken([late]);
    facts.flush = Some(at(11.5));
    facts.verdict().says(
        AtRisk,
        &["Segment 00000001000000000000000A is late", "v_archiver_status"],
    );
}

#[test]
fn missed_objectives_are_told_with_both_numbers() {
    let verdict = sound().verdict_with(OldestCommit::At(ago(1200)));
    assert_eq!((verdict.status, verdict.rpo_seconds), (AtRisk, Some(1200.0)));
    verdict.says(AtRisk, &["last 20 min", "target_rpo, 5 min", "0/A000000"]);
    let mut facts = sound();
    facts.rates = restores_in(7200.0);
    facts.verdict().says(AtRisk, &["2 h", "target_rto, 60 min"]);
    facts.target_rto = None;
    assert_eq!(facts.verdict().status, Ready);
}

#[test]
fn an_exposure_that_cannot_be_measured_is_not_called_zero() {
    let verdict = sound().verdict_with(OldestCommit::Unknown("segment 8 is no longer in pg_wal".to_owned()));
    assert_eq!(
        (verdict.status, verdict.rpo_seconds, verdict.rpo_bytes),
        (Unknown, None, Some(8 << 20))
    );
    verdict.says(Unknown, &["segment 8 is no longer in pg_wal"]);
}

#[test]
fn a_standby_sends_to_its_primary() {
    let mut facts = sound();
    facts.is_standby = true;
    facts.verdict().says(Unknown, &["standby", "primary"]);
}

#[test]
fn an_acknowledged_gap_alarms_no_more_and_still_is_no_readiness_until_a_newer_backup() {
    let lost = sound().with_broken([missing(8)]);
    let alarms = |facts: &Facts| facts.verdict().reasons.iter().filter(|reason| reason.alarms).count();
    assert_eq!((lost.verdict().status, alarms(&lost)), (AtRisk, 1));

    let mut facts = sound().with_broken([broken(1, 8, Status::Acknowledged, "missing")]);
    let verdict = facts.verdict();
    verdict.says(AtRisk, &["acknowledged as lost", "take a base backup"]);
    assert_eq!((verdict.status, alarms(&facts)), (AtRisk, 0));
    let window = verdict.window.unwrap();
    assert_eq!((window.to_lsn, window.is_current), (at(8.0), false));
    // What is lost with this host grows behind the gap all the same.
    let exposed = facts.verdict_with(OldestCommit::At(ago(1200)));
    exposed.says(AtRisk, &["last 20 min"]);
    assert!(exposed.reasons.iter().any(|reason| reason.alarms));

    facts.backups.push(backup(3, 9.0, 9.5));
    let healed = facts.verdict();
    assert_eq!((healed.status, healed.reasons), (Ready, vec![]));
    assert_eq!(healed.window.unwrap().from_lsn, at(9.5));
    let windows = survey(&facts).windows;
    assert_eq!((windows.len(), windows[0].to_lsn), (2, at(8.0)), "the break stays");
}

#[test]
fn a_backup_that_an_acknowledged_loss_has_broken_is_told_and_alarms_no_more() {
    // The sound cluster's newest backup needs segment 6; the one before it does not get past it either.
    let facts = cluster(vec![backup(1, 2.25, 2.5), backup(2, 6.0, 6.5)]).with_broken([broken(
        1,
        6,
        Status::Acknowledged,
        "zeroed",
    )]);
    let verdict = facts.verdict();
    verdict.says(AtRisk, &["Backup 2 is not usable", "acknowledged as lost (zeroed)"]);
    assert!(verdict.reasons.iter().all(|reason| !reason.alarms), "{verdict:#?}");
    assert_eq!(verdict.status, AtRisk);
}

#[test]
fn a_rescuable_gap_asks_for_a_copy() {
    let facts = sound().with_broken([broken(1, 8, Status::Missing, "not_archived")]);
    facts
        .verdict()
        .says(AtRisk, &["still in pg_wal", "copy it from pg_wal to dir:/mnt/archive"]);
}

#[test]
fn many_gaps_are_summed_up() {
    let facts = cluster(vec![backup(1, 1.0, 1.5)]).with_broken((1..8).map(|n| {
        let problem = if n % 2 == 0 { "truncated" } else { "zeroed" };
        broken(1, n + 1, Status::Corrupt, problem)
    }));
    let verdict = facts.verdict();
    verdict.says(AtRisk, &["There are 2 more gaps", "wal_archive_gaps"]);
    verdict.says(AtRisk, &["corrupt (truncated)", "put a sound copy of it"]);
}

#[test]
fn the_gravest_reason_comes_first() {
    let mut facts = cluster(Vec::new());
    facts.worker.last_tick_at = None;
    facts.archiver.unreadable = Some("x".to_owned());
    let weights: Vec<Readiness> = facts.verdict().reasons.iter().map(|r| r.weight).collect();
    assert_eq!(weights, [Unrecoverable, Unknown, AtRisk]);
}

#[test]
fn without_archiving_a_backup_with_its_wal_inside_is_something_but_not_enough() {
    let mut own = backup(1, 2.25, 2.5);
    own.wal_included = true;
    let mut facts = cluster(vec![own]);
    facts.extents.clear();
    facts.archiver.mode_on = false;
    facts.archiver.source = Err("no archive_command is set".to_owned());
    let verdict = facts.verdict();
    assert_eq!(verdict.status, Readiness::AtRisk);
    verdict.says(Readiness::AtRisk, &["WAL archiving is off", "after a backup ends"]);
    assert_eq!(verdict.window.map(|window| window.to_lsn), Some(at(2.5)));
    facts.backups[0].wal_included = false;
    let verdict = facts.verdict();
    assert_eq!(verdict.status, Readiness::Unrecoverable);
    verdict.says(
        Readiness::Unrecoverable,
        &["backup 1", "is not inside it", "take a base backup"],
    );
}
