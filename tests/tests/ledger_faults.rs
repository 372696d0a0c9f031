//! Every fault of the ledger is named, a known one hides none that comes after it, and who asks from an older snapshot is told of no
//! fault that is none.

use anyhow::{Context, Result};
use tests::cluster::{refusal_in, text_in};
use tests::{Cluster, Settings};

const VERDICT: &str = "SELECT first_broken, status FROM verify_ledger()";
const OPEN: &str = "SELECT string_agg(concat_ws(' ', event, table_name, row_id), ', ' ORDER BY event NULLS LAST)
                    FROM verify_ledger_faults() WHERE NOT acknowledged";

fn cluster() -> Result<Cluster> {
    let cluster = Cluster::start(Settings::new())?;
    cluster.text("CREATE EXTENSION pg_backstop")?;
    Ok(cluster)
}

fn past(cluster: &Cluster, sql: &str) -> Result<String> {
    cluster.text(&format!("SET session_replication_role = replica; {sql}"))
}

/// L1, L3
#[test]
fn every_fault_is_named_and_an_acknowledged_one_hides_no_other() -> Result<()> {
    let cluster = cluster()?;
    for _ in 0..4 {
        cluster.text("SELECT record_backup_complete(backup_id, 1000) FROM record_backup_start()")?;
    }
    assert_eq!(cluster.text("SELECT count(*) FROM verify_ledger_faults()")?, "0");
    cluster.text("UPDATE backup_history SET label = 'by hand' WHERE id = 1")?;
    past(&cluster, "UPDATE backup_history SET backup_size_bytes = 1 WHERE id = 2")?;
    past(&cluster, "DELETE FROM backup_history WHERE id = 3")?;
    past(&cluster, "UPDATE ledger_events SET actor = 'nobody' WHERE id = 1")?;
    // The first is named as ever, and the list has them all.
    assert!(
        cluster.text(VERDICT)?.starts_with("1|event 1 was changed"),
        "{}",
        cluster.text(VERDICT)?
    );
    assert_eq!(
        cluster.text(OPEN)?,
        "1 backup_history 1, 4 backup_history 2, 6 backup_history 3, 9 backup_history 1"
    );

    // Each in its turn is known and accepted; the next one is named then.
    for next in [
        "4|backup_history row 2 is not what event 4",
        "6|backup_history row 3 is gone",
        "9|event 9:",
        "|intact",
    ] {
        let told = cluster.text(
            "SELECT acknowledge_ledger_fault(fault, 'known, ticket 4711') FROM verify_ledger_faults() WHERE NOT acknowledged LIMIT 1",
        )?;
        assert!(!told.is_empty());
        let verdict = cluster.text(VERDICT)?;
        assert!(verdict.starts_with(next), "{verdict}");
    }
    let known = "SELECT count(*), bool_and(acknowledged), min(reason) FROM verify_ledger_faults()";
    assert_eq!(cluster.text(known)?, "4|t|known, ticket 4711");
    let events = "SELECT count(*), min(actor), min(via) FROM ledger_events WHERE operation = 'ACKNOWLEDGE'";
    assert_eq!(cluster.text(events)?, "4|postgres|function");

    // At the same places in another way, and elsewhere.
    past(&cluster, "UPDATE backup_history SET backup_size_bytes = 2 WHERE id = 2")?;
    assert!(
        cluster.text(VERDICT)?.starts_with("4|backup_history row 2"),
        "{}",
        cluster.text(VERDICT)?
    );
    past(&cluster, "UPDATE backup_history SET backup_size_bytes = 1 WHERE id = 2")?;
    assert_eq!(cluster.text(VERDICT)?, "|intact");
    cluster.text("UPDATE backup_history SET label = 'again' WHERE id = 4")?;
    assert_eq!(cluster.text(OPEN)?, "14 backup_history 4");
    assert!(
        cluster.text(VERDICT)?.starts_with("14|event 14:"),
        "{}",
        cluster.text(VERDICT)?
    );

    // Whoever removes the acceptance has the fault back, and another one.
    past(
        &cluster,
        "DELETE FROM ledger_events WHERE operation = 'ACKNOWLEDGE' AND id = 10",
    )?;
    assert!(cluster.text(VERDICT)?.starts_with("1|event 1 was changed"));
    assert!(cluster.text(OPEN)?.contains(", 10, "), "{}", cluster.text(OPEN)?);
    Ok(())
}

#[test]
fn only_a_fault_that_is_there_can_be_acknowledged_with_a_reason() -> Result<()> {
    let cluster = cluster()?;
    cluster.text("SELECT record_backup_start()")?;
    past(&cluster, "UPDATE backup_history SET label = 'x'")?;
    let fault = cluster.text("SELECT fault FROM verify_ledger_faults()")?;
    for (arguments, code, named) in [
        ("NULL, 'why'".to_owned(), "22004", "fault"),
        (format!("'{fault}', NULL"), "22004", "reason"),
        (format!("'{fault}', E' \\n'"), "22023", "reason"),
        ("'none', 'why'".to_owned(), "55000", "no such fault"),
    ] {
        let error = cluster.refusal(&format!("SELECT acknowledge_ledger_fault({arguments})"))?;
        let told = format!(
            "{arguments}: {} {:?} {:?}",
            error.message(),
            error.detail(),
            error.hint()
        );
        assert!(
            error.code().code() == code && error.message().contains(named) && error.hint().is_some(),
            "{told}"
        );
    }
    cluster.text("CREATE ROLE reader LOGIN IN ROLE pg_monitor; CREATE ROLE nobody LOGIN")?;
    let mut reader = cluster.connect_as("reader", "postgres")?;
    assert_eq!(
        text_in(&mut reader, "SELECT count(*) FROM verify_ledger_faults()")?,
        "1"
    );
    for role in ["reader", "nobody"] {
        let mut session = cluster.connect_as(role, "postgres")?;
        let error = refusal_in(
            &mut session,
            &format!("SELECT acknowledge_ledger_fault('{fault}', 'why')"),
        )?;
        assert_eq!(error.code().code(), "42501", "{role}: {error}");
    }
    // By SQL nobody accepts anything unseen.
    cluster.text(&format!(
        "INSERT INTO ledger_pending (table_name, image) VALUES ('ledger_events', '{{\"fault\": \"{fault}\", \"reason\": \"forged\"}}')"
    ))?;
    assert_eq!(
        cluster.text("SELECT count(*) FILTER (WHERE NOT acknowledged), count(*) FROM verify_ledger_faults()")?,
        "2|2"
    );
    cluster.text(&format!("SELECT acknowledge_ledger_fault('{fault}', 'why')"))?;
    let again = cluster.refusal(&format!("SELECT acknowledge_ledger_fault('{fault}', 'why')"))?;
    assert_eq!(again.code().code(), "55000", "{again}");
    Ok(())
}

#[test]
fn an_older_snapshot_of_the_asker_is_no_tampering() -> Result<()> {
    let cluster = cluster()?;
    for level in ["READ COMMITTED", "REPEATABLE READ", "SERIALIZABLE"] {
        let mut session = cluster.connect()?;
        text_in(
            &mut session,
            &format!(
                "BEGIN ISOLATION LEVEL {level}; SELECT count(*) FROM pg_class; SELECT count(*) FROM ledger_events"
            ),
        )?;
        cluster.text("SELECT record_backup_complete(backup_id, 1) FROM record_backup_start()")?;
        assert_eq!(text_in(&mut session, VERDICT)?, "|intact", "{level}");
        text_in(
            &mut session,
            "SAVEPOINT s; SELECT record_backup_start(); INSERT INTO backup_policies (policy_name) VALUES ('gone'); ROLLBACK TO s;
             SELECT record_backup_start()",
        )?;
        // With its own changes, which the others do not see yet.
        assert_eq!(text_in(&mut session, VERDICT)?, "|intact", "{level}");
        let own: i64 = text_in(&mut session, "SELECT events FROM verify_ledger()")?.parse()?;
        let others: i64 = cluster.text("SELECT events FROM verify_ledger()")?.parse()?;
        assert_eq!(own, others + 1, "{level}");
        text_in(&mut session, "SELECT record_backup_start()")?;
        assert_eq!(text_in(&mut session, VERDICT)?, "|intact", "{level}");
        text_in(&mut session, "COMMIT")?;
        assert_eq!(cluster.text(VERDICT)?, "|intact", "{level}");
    }
    let mut session = cluster.connect()?;
    text_in(&mut session, "BEGIN READ ONLY")?;
    assert_eq!(text_in(&mut session, VERDICT)?, "|intact");
    Ok(())
}

#[test]
fn a_witness_of_an_event_is_heard() -> Result<()> {
    let cluster = cluster()?;
    for _ in 0..3 {
        cluster.text("SELECT record_backup_complete(backup_id, 1000) FROM record_backup_start()")?;
    }
    let noted = cluster.text("SELECT id || ', ''' || hash || '''' FROM ledger_events WHERE id = 5")?;
    let asked = format!("SELECT first_broken, status FROM verify_ledger({noted})");
    assert_eq!(cluster.text(&asked)?, "|intact");
    for arguments in ["5", "known_hash => '\\x00'"] {
        let error = cluster.refusal(&format!("SELECT * FROM verify_ledger({arguments})"))?;
        assert!(error.code().code() == "22004" && error.hint().is_some(), "{error}");
    }
    // Cut off with all that it tells of: the chain itself is sound.
    past(
        &cluster,
        "CREATE TABLE kept AS TABLE ledger_events; CREATE TABLE rows AS TABLE backup_history;
         DELETE FROM ledger_events WHERE id > 4; DELETE FROM backup_history WHERE id = 3",
    )?;
    assert_eq!(cluster.text(VERDICT)?, "|intact");
    let told = cluster.text(&asked)?;
    assert!(told.starts_with("5|") && told.contains("missing"), "{told}");
    // Rewritten to its end, hashes and all.
    past(
        &cluster,
        "INSERT INTO ledger_events SELECT * FROM kept WHERE id > 4; INSERT INTO backup_history SELECT * FROM rows WHERE id = 3;
         UPDATE backup_history SET backup_size_bytes = 1 WHERE id = 2;
         UPDATE ledger_events SET image = image || '{\"backup_size_bytes\": 1}' WHERE id = 4;
         DO $$DECLARE n bigint; BEGIN
             FOR n IN SELECT id FROM ledger_events ORDER BY id LOOP
                 UPDATE ledger_events e SET prev_hash = (SELECT hash FROM ledger_events b WHERE b.id = n - 1) WHERE e.id = n;
                 UPDATE ledger_events SET hash = ledger_hash(prev_hash, id, at, actor, table_name, row_id, operation, via, image)
                  WHERE id = n;
             END LOOP;
         END$$",
    )?;
    assert_eq!(cluster.text(VERDICT)?, "|intact");
    let told = cluster.text(&asked)?;
    assert!(told.starts_with("5|") && told.contains("rewritten"), "{told}");
    let (_, hash) = noted.split_once(", ").context("a hash")?;
    let told = cluster.text(&format!("SELECT status FROM verify_ledger(99, {hash})"))?;
    assert!(told.contains("99") && told.contains("missing"), "{told}");
    Ok(())
}

/// The made-up backup is believed by whoever does not look; verify_ledger() says who made it up.
#[test]
fn a_row_put_in_by_sql_is_named_unless_it_is_imported() -> Result<()> {
    let cluster = cluster()?;
    cluster.text("INSERT INTO backup_policies (policy_name) VALUES ('p')")?;
    cluster
        .text("INSERT INTO backup_history (backup_type, status, origin) VALUES ('full', 'completed', 'imported')")?;
    assert_eq!(cluster.text(VERDICT)?, "|intact");
    cluster.text("CREATE ROLE mallory SUPERUSER LOGIN")?;
    let mut session = cluster.connect_as("mallory", "postgres")?;
    text_in(
        &mut session,
        "INSERT INTO backup_history (backup_type, status) VALUES ('full', 'completed')",
    )?;
    let told = cluster.text(VERDICT)?;
    assert!(
        told.starts_with("3|") && told.contains("backup_history row 2 was inserted past") && told.contains("mallory"),
        "{told}"
    );
    Ok(())
}
