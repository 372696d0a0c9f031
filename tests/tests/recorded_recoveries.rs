//! What is recorded of a recovery by calls is measured from what was really recovered, never from the clock; what contradicts
//! itself is refused, or is NULL with the reason. What the worker found of the same recovery is not a second one.

use anyhow::{Result, ensure};
use tests::restored::{commands, run};
use tests::wait::SOON;
use tests::{Cluster, Look, Past, Restored, Settings, Shutdown, past, wait_until, worker};

fn cluster() -> Result<Cluster> {
    let cluster = Cluster::start(Settings::new())?;
    cluster.text("CREATE EXTENSION pg_backstop")?;
    Ok(cluster)
}

/// Starts a recovery with these arguments, completes it with those, and gives some columns of its row.
fn recorded(cluster: &Cluster, start: &str, complete: &str, columns: &str) -> Result<String> {
    let id = cluster.text(&format!("SELECT recovery_id FROM record_recovery_start({start})"))?;
    cluster.text(&format!("SELECT record_recovery_complete({id}{complete})"))?;
    cluster.text(&format!("SELECT {columns} FROM recovery_history WHERE id = {id}"))
}

#[test]
fn the_loss_is_from_the_last_recovered_commit_to_the_target_or_the_failure() -> Result<()> {
    let cluster = cluster()?;
    let columns = "rpo_seconds, checks ->> 'rpo_seconds'";
    for (start, complete, expected) in [
        (
            "'point_in_time', '2026-01-01 10:00+00'",
            ", recovered_to_time => '2026-01-01 09:59:30+00'",
            "30.000|",
        ),
        (
            "'latest'",
            ", recovered_to_time => '2026-01-01 09:59+00', failure_time => '2026-01-01 10:00+00'",
            "60.000|",
        ),
        (
            "'point_in_time', '2026-01-01 10:00+00'",
            ", recovered_to_time => '2026-01-01 10:00:01+00'",
            "0|",
        ),
        (
            "'point_in_time', '2026-01-01 10:00+00'",
            "",
            "|not known: nothing tells which commit was the last to be recovered",
        ),
        (
            "'latest'",
            ", recovered_to_time => '2026-01-01 09:59+00'",
            "|not known: there is no target_time, and no failure_time was given",
        ),
    ] {
        assert_eq!(
            recorded(&cluster, start, complete, columns)?,
            expected,
            "{start} {complete}"
        );
    }
    Ok(())
}

#[test]
fn what_has_not_come_yet_can_be_neither_a_target_nor_recovered() -> Result<()> {
    let cluster = cluster()?;
    cluster.text("SELECT record_recovery_start('latest')")?;
    for (call, word) in [
        (
            "record_recovery_start('point_in_time', now() + interval '1 hour')",
            "target_time",
        ),
        (
            "record_recovery_complete(1, recovered_to_time => now() + interval '1 hour')",
            "recovered_to_time",
        ),
        (
            "record_recovery_complete(1, failure_time => now() + interval '1 hour')",
            "failure_time",
        ),
        ("record_recovery_complete(1, startup_seconds => -1)", "startup_seconds"),
        (
            "record_recovery_complete(1, wal_replayed_bytes => -1)",
            "wal_replayed_bytes",
        ),
    ] {
        let error = cluster.refusal(&format!("SELECT {call}"))?;
        ensure!(
            error.code().code() == "22023" && error.message().contains(word) && error.hint().is_some(),
            "{call}: {error:?}"
        );
    }
    assert_eq!(
        cluster.text("SELECT count(*), count(*) FILTER (WHERE status = 'running') FROM recovery_history")?,
        "1|1"
    );
    Ok(())
}

#[test]
fn parts_that_are_longer_than_the_whole_leave_no_duration_but_a_reason() -> Result<()> {
    let cluster = cluster()?;
    let columns = "rto_seconds IS NULL, restore_seconds, checks ->> 'rto_seconds' LIKE 'not known: %500%start_time%'";
    let longer = recorded(
        &cluster,
        "'latest'",
        ", restore_seconds => 300, replay_seconds => 200",
        columns,
    )?;
    assert_eq!(longer, "t|300|t");
    let fits = recorded(
        &cluster,
        "'latest', started_at => now() - interval '10 min'",
        ", restore_seconds => 300, replay_seconds => 200, startup_seconds => 10",
        "rto_seconds >= 600, startup_seconds, checks ? 'rto_seconds'",
    )?;
    assert_eq!(fits, "t|10|f");
    // A clock that was set back between start and end.
    cluster.text("SELECT record_recovery_start('latest')")?;
    cluster.text("UPDATE recovery_history SET start_time = now() + interval '1 hour' WHERE status = 'running'")?;
    cluster.text("SELECT record_recovery_complete(id) FROM recovery_history WHERE status = 'running'")?;
    assert_eq!(
        cluster.text(
            "SELECT rto_seconds IS NULL, duration_seconds IS NULL, checks ->> 'rto_seconds' LIKE '%clock%'
               FROM recovery_history ORDER BY id DESC LIMIT 1"
        )?,
        "t|t|t"
    );
    Ok(())
}

#[test]
fn replayed_wal_is_the_distance_from_the_backup_where_nobody_says_more() -> Result<()> {
    let cluster = cluster()?;
    let start = cluster.text("SELECT start_lsn FROM record_backup_start()")?;
    cluster.text("SELECT record_backup_complete(1)")?;
    let to = format!(", recovered_to_lsn => '{start}'::pg_lsn + 12345");
    let column = "wal_replayed_bytes";
    assert_eq!(recorded(&cluster, "'latest', backup_id => 1", &to, column)?, "12345");
    assert_eq!(
        recorded(
            &cluster,
            "'latest', backup_id => 1",
            &format!("{to}, wal_replayed_bytes => 7"),
            column
        )?,
        "7"
    );
    assert_eq!(recorded(&cluster, "'latest'", &to, column)?, "");
    assert_eq!(recorded(&cluster, "'latest', backup_id => 1", "", column)?, "");
    Ok(())
}

#[test]
fn a_detected_recovery_becomes_that_of_whoever_records_it() -> Result<()> {
    let mut cluster = Cluster::start(Settings::new().set("pg_backstop.check_interval", "100ms"))?;
    cluster.text("CREATE EXTENSION pg_backstop")?;
    worker::ticks(&cluster, 2)?;
    cluster.text("CREATE TABLE last_commit AS SELECT 1 AS one")?;
    cluster.stop(Shutdown::Kill)?;
    cluster.start_server()?;
    cluster.wait_for("SELECT count(*) FROM recovery_history WHERE origin = 'detected'", "1")?;
    let kept =
        "SELECT recovered_to_time, recovered_to_lsn, replay_seconds, wal_replayed_bytes, failure_time, rpo_seconds,
                       checks - ARRAY['start_time', 'end_time'] FROM recovery_history WHERE id = 1";
    let found = cluster.text(kept)?;
    // These are others: begun now, before the life that crashed, of another kind, a rehearsal.
    let crashed = "(SELECT start_time FROM recovery_history WHERE id = 1)";
    for (arguments, id) in [
        ("'crash'".to_owned(), "2"),
        ("'crash', started_at => now() - interval '1 day'".to_owned(), "3"),
        (format!("'latest', started_at => {crashed}"), "4"),
        (format!("'crash', started_at => {crashed}, is_drill => true"), "5"),
        (format!("'crash', started_at => {crashed} + interval '1 ms'"), "1"),
        (format!("'crash', started_at => {crashed}"), "6"),
    ] {
        let sql = format!("SELECT recovery_id FROM record_recovery_start({arguments})");
        assert_eq!(cluster.text(&sql)?, id, "{arguments}");
    }
    assert_eq!(
        cluster.text(
            "SELECT origin, status, end_time, rto_seconds, start_time - failure_time FROM recovery_history WHERE id = 1"
        )?,
        "recorded|running|||00:00:00.001"
    );
    cluster.text("SELECT record_recovery_complete(1)")?;
    // Nobody said anything else of it.
    assert_eq!(cluster.text(kept)?, found);
    assert_eq!(
        cluster.text(
            "SELECT status, end_time > start_time, rto_seconds = duration_seconds, checks ? 'start_time', checks ? 'end_time'
               FROM recovery_history WHERE id = 1"
        )?,
        "completed|t|t|f|f"
    );
    assert_eq!(cluster.text("SELECT status FROM verify_ledger()")?, "intact");
    Ok(())
}

#[test]
fn a_planned_recovery_in_place_is_one_recovery() -> Result<()> {
    let settings = past::settings().set("pg_backstop.check_interval", "100ms");
    let mut past = Past::with(settings, |cluster, path| cluster.base_backup(path))?;
    let commands = commands(&past.cluster, "")?;
    past.cluster.stop(Shutdown::Immediate)?;
    let restored = Restored::of(&past.cluster, past.cluster.data(), past.cluster.socket().to_owned());
    run(&past.cluster, "in place", &commands)?;
    wait_until("the life that began with it", SOON, || {
        let seen = restored.text("SELECT began, recovery_id FROM server_lives ORDER BY id DESC LIMIT 1")?;
        Ok(if seen == "restore|1" {
            Look::Done(())
        } else {
            Look::NotYet(seen)
        })
    })?;
    assert_eq!(
        restored.text(
            "SELECT recovery_type, origin, status, is_drill, backup_id, recovered_to_lsn IS NOT NULL, rto_seconds > 0
               FROM recovery_history"
        )?,
        "latest|recorded|completed|f|1|t|t"
    );
    assert_eq!(restored.text("SELECT status FROM verify_ledger()")?, "intact");
    Ok(())
}
