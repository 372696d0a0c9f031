//! The ledger: what the runbook's calls record, what they refuse, and that nobody changes it unseen.

use std::thread;

use anyhow::{Context, Result};
use tests::cluster::text_in;
use tests::{Cluster, Settings, Shutdown};

/// A cluster with the extension, of whose archive the tests here want nothing.
fn cluster() -> Result<Cluster> {
    let cluster = Cluster::start(Settings::new())?;
    cluster.text("CREATE EXTENSION pg_backstop")?;
    Ok(cluster)
}

fn is_intact(cluster: &Cluster) -> Result<()> {
    assert_eq!(
        cluster.text("SELECT first_broken IS NULL, status FROM verify_ledger()")?,
        "t|intact"
    );
    Ok(())
}

/// Everything that the ledger holds, to see that a refused call has changed none of it.
const CONTENTS: &str = "SELECT (SELECT count(*) FROM ledger_events), (SELECT max(id) FROM ledger_events),
    (SELECT string_agg(b::text, E'\\n' ORDER BY id) FROM backup_history b),
    (SELECT string_agg(r::text, E'\\n' ORDER BY id) FROM recovery_history r),
    (SELECT string_agg(p::text, E'\\n' ORDER BY id) FROM backup_policies p)";

#[test]
fn a_base_backup_is_recorded_from_its_start_to_its_end_with_measured_sizes() -> Result<()> {
    let cluster = cluster()?;
    let path = cluster.place("a base backup's place");
    let quoted = path.display().to_string().replace('\'', "''");

    let before = cluster.text("SELECT pg_current_wal_flush_lsn()")?;
    let started = cluster.text(&format!(
        "SELECT backup_id, start_lsn BETWEEN '{before}' AND pg_current_wal_lsn() FROM record_backup_start('full', '{quoted}')"
    ))?;
    let id = started.strip_suffix("|t").with_context(|| started.clone())?.to_owned();
    let running = format!(
        "SELECT status, timeline_id, system_identifier = (SELECT system_identifier FROM pg_control_system()),
                start_wal_file = pg_walfile_name(start_lsn + 1), end_lsn IS NULL, origin, verification
         FROM backup_history WHERE id = {id}"
    );
    assert_eq!(cluster.text(&running)?, "running|1|t|t|t|recorded|unverified");

    cluster.base_backup(&path)?;
    let completed = cluster.text(&format!("SELECT backup_id, status FROM record_backup_complete({id})"))?;
    assert_eq!(completed, format!("{id}|completed"));
    let bytes: u64 = tree_size(&path)?;
    let facts = format!(
        "SELECT backup_size_bytes, end_lsn > start_lsn, wal_bytes = end_lsn - start_lsn, duration_seconds > 0,
                finished_at > started_at, file_count > 900, end_wal_file IS NOT NULL
         FROM backup_history WHERE id = {id}"
    );
    assert_eq!(cluster.text(&facts)?, format!("{bytes}|t|t|t|t|t|t"));
    let status = "SELECT last_good_id, last_good_size_bytes FROM v_backup_status WHERE backup_type = 'full'";
    assert_eq!(cluster.text(status)?, format!("{id}|{bytes}"));
    is_intact(&cluster)
}

/// The bytes of the files below a directory.
fn tree_size(directory: &std::path::Path) -> Result<u64> {
    let mut bytes = 0;
    for entry in std::fs::read_dir(directory)? {
        let entry = entry?;
        let data = entry.metadata()?;
        bytes += if data.is_dir() {
            tree_size(&entry.path())?
        } else {
            data.len()
        };
    }
    Ok(bytes)
}

#[test]
fn the_runbooks_shortest_calls_hold() -> Result<()> {
    let cluster = cluster()?;
    assert_eq!(cluster.text("SELECT backup_id FROM record_backup_start()")?, "1");
    assert_eq!(
        cluster.text("SELECT status FROM record_backup_complete(1, 12345, 67.5)")?,
        "completed"
    );
    let row = "SELECT backup_type, backup_size_bytes, duration_seconds FROM backup_history";
    assert_eq!(cluster.text(row)?, "full|12345|67.5");
    cluster.text("SELECT record_backup_start('logical', label => 'nightly')")?;
    let failed = "SELECT status FROM record_backup_complete(2, status => 'failed', error => 'no space left')";
    assert_eq!(cluster.text(failed)?, "failed");
    let failed = "SELECT last_failed_id, last_failed_error FROM v_backup_status WHERE backup_type = 'logical'";
    assert_eq!(cluster.text(failed)?, "2|no space left");

    let id = cluster.text("SELECT recovery_id FROM record_recovery_start('latest')")?;
    let done = format!("SELECT rto_seconds > 0 FROM record_recovery_complete({id})");
    assert_eq!(cluster.text(&done)?, "t");
    let seen = "SELECT recovery_type, recovery_count, min_rto_seconds > 0, min_rto_seconds = max_rto_seconds
                FROM v_rto_rpo_monitoring WHERE recovery_count > 0";
    assert_eq!(cluster.text(seen)?, "latest|1|t|t");

    let from = cluster.text("SELECT pg_current_wal_lsn()")?;
    cluster.text("CREATE TABLE filler AS SELECT repeat('x', 100) FROM generate_series(1, 30000)")?;
    let incremental = format!(
        "SELECT wal_files_count >= 3, backup_size_bytes = wal_files_count * 1048576
         FROM incremental_backup('{from}', pg_current_wal_lsn(), '{}')",
        cluster.data().join("pg_wal").display()
    );
    assert_eq!(cluster.text(&incremental)?, "t|t");
    is_intact(&cluster)
}

#[test]
fn what_cannot_be_meant_is_refused_with_a_reason_and_changes_nothing() -> Result<()> {
    let cluster = cluster()?;
    cluster.text("SELECT record_backup_start(); SELECT record_backup_complete(1); SELECT record_backup_start()")?;
    cluster.text("SELECT record_recovery_start('latest'); SELECT record_recovery_complete(1)")?;
    cluster.text("INSERT INTO backup_policies (policy_name, schedule_cron) VALUES ('nightly', '30 2 * * *')")?;
    let before = cluster.text(CONTENTS)?;
    // What is asked for, and what the message must name.
    let refused = [
        ("SELECT record_backup_complete(4711)", "4711"),
        ("SELECT record_backup_complete(NULL)", "backup_id"),
        ("SELECT record_backup_complete(1)", "backup 1"),
        ("SELECT record_backup_complete(2, status => 'done')", "done"),
        ("SELECT record_backup_complete(2, status => 'running')", "running"),
        ("SELECT record_backup_complete(2, -1)", "-1"),
        ("SELECT record_backup_complete(2, duration_seconds => -0.5)", "-0.5"),
        ("SELECT record_backup_complete(2, duration_seconds => 'NaN')", "NaN"),
        ("SELECT record_backup_start('fulll')", "fulll"),
        ("SELECT record_backup_start(NULL)", "backup_type"),
        ("SELECT record_backup_start(policy_name => 'weekly')", "weekly"),
        (
            "SELECT incremental_backup('0/2000000', '0/1000000', '/tmp')",
            "0/1000000",
        ),
        ("SELECT incremental_backup('0/0', 'FFFF/0', '/tmp')", "FFFF/0"),
        ("SELECT record_recovery_start('sideways')", "sideways"),
        ("SELECT record_recovery_complete(4711)", "4711"),
        ("SELECT record_recovery_complete(1)", "recovery 1"),
    ];
    for (call, named) in refused {
        let error = cluster.refusal(call)?;
        let told = format!("{call}: {} {:?} {:?}", error.message(), error.detail(), error.hint());
        assert!(error.message().contains(named), "{told}");
        assert!(
            error.code().code() != "XX000" && error.detail().is_some() | error.hint().is_some(),
            "{told}"
        );
        assert_eq!(cluster.text(CONTENTS)?, before, "{told}");
    }
    is_intact(&cluster)
}

#[test]
fn a_cron_expression_that_does_not_parse_is_refused_with_the_position_of_the_fault() -> Result<()> {
    let cluster = cluster()?;
    // The expression, and the position of its first bad character, counted from 1.
    for (cron, position) in [
        ("30 25 * * *", 4),
        ("x 2 * * *", 1),
        ("0 2 * * mon-", 9),
        ("0 2 * *", 8),
    ] {
        let insert = format!("INSERT INTO backup_policies (policy_name, schedule_cron) VALUES ('p', '{cron}')");
        let error = cluster.refusal(&insert)?;
        let told = format!("{cron}: {} {:?} {:?}", error.message(), error.detail(), error.hint());
        assert!(told.contains(&format!("position {position} ")), "{told}");
        assert_eq!(error.code().code(), "22023", "{told}");
    }
    cluster.text("INSERT INTO backup_policies (policy_name, schedule_cron) VALUES ('p', '*/15 2-4 1,15 * mon-fri')")?;
    assert_eq!(
        cluster
            .refusal("UPDATE backup_policies SET drill_cron = '61 * * * *'")?
            .code()
            .code(),
        "22023"
    );
    is_intact(&cluster)
}

/// Many sessions at once, some of which give up: the chain has no gap and no fork.
#[test]
fn concurrent_calls_never_break_the_chain() -> Result<()> {
    const SESSIONS: usize = 6;
    const BACKUPS: usize = 20;
    let cluster = cluster()?;
    thread::scope(|scope| {
        let sessions: Vec<_> = (0..SESSIONS)
            .map(|_| {
                scope.spawn(|| -> Result<()> {
                    let mut session = cluster.connect()?;
                    for turn in 0..BACKUPS {
                        let id = text_in(&mut session, "SELECT backup_id FROM record_backup_start('full')")?;
                        let end = if turn % 4 == 3 { "ROLLBACK" } else { "COMMIT" };
                        let complete = format!("SELECT record_backup_complete({id}, 1)");
                        text_in(&mut session, &format!("BEGIN; {complete}; {end}"))?;
                    }
                    Ok(())
                })
            })
            .collect();
        for session in sessions {
            session.join().map_err(|_| anyhow::anyhow!("a session panicked"))??;
        }
        anyhow::Ok(())
    })?;
    let (backups, completed) = (SESSIONS * BACKUPS, SESSIONS * BACKUPS * 3 / 4);
    let counted = "SELECT count(*), count(*) FILTER (WHERE status = 'completed') FROM backup_history";
    assert_eq!(cluster.text(counted)?, format!("{backups}|{completed}"));
    let events = backups + completed;
    assert_eq!(
        cluster.text("SELECT * FROM verify_ledger()")?,
        format!("{events}||intact")
    );
    Ok(())
}

/// L1
#[test]
fn a_row_changed_past_the_functions_is_named_by_its_event() -> Result<()> {
    let cluster = cluster()?;
    for _ in 0..3 {
        cluster.text("SELECT record_backup_complete((SELECT backup_id FROM record_backup_start()), 1000)")?;
    }
    is_intact(&cluster)?;
    let events =
        |id: u32| format!("SELECT max(id) FROM ledger_events WHERE table_name = 'backup_history' AND row_id = {id}");
    let second = cluster.text(&events(2))?;
    // What a superuser does who wants nobody to know, and what must then be said; each is undone before the next.
    let past = |sql: &str| cluster.text(&format!("SET session_replication_role = replica; {sql}"));
    let named = || cluster.text("SELECT first_broken, status <> 'intact' FROM verify_ledger()");
    past("UPDATE backup_history SET backup_size_bytes = 1 WHERE id = 2")?;
    assert_eq!(named()?, format!("{second}|t"));
    past("UPDATE backup_history SET backup_size_bytes = 1000 WHERE id = 2")?;
    is_intact(&cluster)?;

    cluster.text("CREATE TABLE kept AS TABLE ledger_events")?;
    past(&format!(
        "UPDATE ledger_events SET image = image || '{{\"backup_size_bytes\": 1}}' WHERE id = {second}"
    ))?;
    assert_eq!(named()?, format!("{second}|t"));
    past(&format!(
        "UPDATE ledger_events e SET image = k.image FROM kept k WHERE e.id = k.id AND e.id = {second}"
    ))?;
    is_intact(&cluster)?;

    past(&format!("DELETE FROM ledger_events WHERE id = {second}"))?;
    let first_broken: i64 = cluster.text("SELECT first_broken FROM verify_ledger()")?.parse()?;
    let gap: i64 = second.parse()?;
    assert!(
        first_broken == gap || first_broken == gap + 1,
        "{first_broken} for the missing {gap}"
    );
    past(&format!(
        "INSERT INTO ledger_events SELECT * FROM kept WHERE id = {second}"
    ))?;
    is_intact(&cluster)?;

    past("DELETE FROM backup_history WHERE id = 2")?;
    assert_eq!(named()?, format!("{second}|t"));
    let status = cluster.text("SELECT status FROM verify_ledger()")?;
    assert!(status.contains("backup_history row 2 is gone"), "{status}");
    Ok(())
}

/// L1, by somebody who does not know of the triggers: the change becomes an event of its own, which says so.
#[test]
fn a_row_changed_by_sql_is_named_with_who_did_it() -> Result<()> {
    let cluster = cluster()?;
    cluster.text("CREATE ROLE mallory SUPERUSER LOGIN")?;
    for (change, named) in [
        ("UPDATE backup_history SET label = 'by hand' WHERE id = 1", "updated"),
        ("DELETE FROM backup_history WHERE id = 1", "deleted"),
    ] {
        cluster.text("DROP EXTENSION pg_backstop; CREATE EXTENSION pg_backstop")?;
        cluster.text("SELECT record_backup_complete((SELECT backup_id FROM record_backup_start()), 1000)")?;
        // Policies are made and changed by SQL: there is no function for it.
        cluster.text("INSERT INTO backup_policies (policy_name) VALUES ('p')")?;
        cluster.text("UPDATE backup_policies SET enabled = false")?;
        is_intact(&cluster)?;
        cluster.text(&format!("SET SESSION AUTHORIZATION mallory; {change}"))?;
        let event = "SELECT id, via, actor FROM ledger_events ORDER BY id DESC LIMIT 1";
        assert_eq!(cluster.text(event)?, "5|sql|mallory");
        let verdict = cluster.text("SELECT first_broken, status FROM verify_ledger()")?;
        let told = verdict.starts_with("5|")
            && ["backup_history row 1", named, "mallory"]
                .iter()
                .all(|s| verdict.contains(s));
        assert!(told, "{verdict}");
    }
    Ok(())
}

#[test]
fn the_chain_cannot_be_rewritten_by_sql() -> Result<()> {
    let cluster = cluster()?;
    cluster.text("SELECT record_backup_start()")?;
    for rewrite in [
        "UPDATE ledger_events SET actor = 'nobody'",
        "DELETE FROM ledger_events",
        "TRUNCATE ledger_events CASCADE",
        "TRUNCATE backup_history CASCADE",
    ] {
        let error = cluster.refusal(rewrite)?;
        assert!(
            error.message().contains("ledger_events") || error.message().contains("backup_history"),
            "{error}"
        );
        assert!(error.hint().is_some(), "{error}");
    }
    is_intact(&cluster)
}

#[test]
fn a_backup_left_running_by_a_crash_is_marked_failed_with_the_reason() -> Result<()> {
    let mut cluster = cluster()?;
    cluster.text("SELECT record_backup_start('full', label => 'interrupted')")?;
    cluster.restart(Shutdown::Immediate)?;
    cluster.wait_for(
        "SELECT status, error IS NOT NULL, finished_at IS NOT NULL FROM backup_history",
        "failed|t|t",
    )?;
    let error = cluster.text("SELECT error FROM backup_history")?;
    assert!(error.contains("restart") || error.contains("started"), "{error}");
    is_intact(&cluster)
}
