//! What is recorded of a recovery by calls is measured from what was really recovered, never from the clock; what contradicts
//! itself is refused, or is NULL with the reason.

use anyhow::{Result, ensure};
use tests::{Cluster, Settings};

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
