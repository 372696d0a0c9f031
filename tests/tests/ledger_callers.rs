//! Who calls the ledger, from where, and how many at once: other schemas, other roles, standbys, strict isolation, races.

use std::thread;

use anyhow::{Context, Result};
use tests::cluster::{refusal_in, text_in};
use tests::{Cluster, Settings};

const VERDICT: &str = "SELECT first_broken IS NULL, status FROM verify_ledger()";

fn cluster() -> Result<Cluster> {
    let cluster = Cluster::start(Settings::new())?;
    cluster.text("CREATE EXTENSION pg_backstop")?;
    Ok(cluster)
}

/// Runs the same in several sessions at once, and fails when one of them does.
fn at_once(
    cluster: &Cluster,
    sessions: usize,
    work: impl Fn(&mut postgres::Client) -> Result<()> + Sync,
) -> Result<()> {
    thread::scope(|scope| {
        let sessions: Vec<_> = (0..sessions)
            .map(|_| scope.spawn(|| work(&mut cluster.connect()?)))
            .collect();
        for session in sessions {
            session.join().map_err(|_| anyhow::anyhow!("a session panicked"))??;
        }
        Ok(())
    })
}

#[test]
fn every_function_works_in_another_schema_whatever_the_search_path_hides() -> Result<()> {
    let cluster = Cluster::start(Settings::new())?;
    cluster.text(r#"CREATE SCHEMA "Back stop"; CREATE EXTENSION pg_backstop SCHEMA "Back stop""#)?;
    // What is found before PostgreSQL's own, and must not be.
    cluster.text(
        "CREATE SCHEMA evil;
         CREATE FUNCTION evil.no(text, text) RETURNS boolean LANGUAGE plpgsql AS $$BEGIN RAISE 'evil'; END$$;
         CREATE FUNCTION evil.no(bigint, bigint) RETURNS boolean LANGUAGE plpgsql AS $$BEGIN RAISE 'evil'; END$$;
         CREATE OPERATOR evil.= (LEFTARG = text, RIGHTARG = text, FUNCTION = evil.no);
         CREATE OPERATOR evil.= (LEFTARG = bigint, RIGHTARG = bigint, FUNCTION = evil.no);
         CREATE FUNCTION evil.clock_timestamp() RETURNS timestamptz LANGUAGE plpgsql AS $$BEGIN RAISE 'evil'; END$$;
         CREATE FUNCTION evil.sha256(bytea) RETURNS bytea LANGUAGE sql AS $$SELECT 'evil'::bytea$$;
         CREATE FUNCTION evil.round(numeric, integer) RETURNS numeric LANGUAGE plpgsql AS $$BEGIN RAISE 'evil'; END$$",
    )?;
    let mut session = cluster.connect()?;
    text_in(
        &mut session,
        r#"SET search_path = evil, pg_catalog;
           CREATE TEMP TABLE backup_history (nothing integer);
           CREATE TEMP TABLE ledger_events (nothing integer)"#,
    )?;
    for (call, answer) in [
        (
            r#"INSERT INTO "Back stop".backup_policies (policy_name) VALUES ('p') RETURNING id"#,
            "1",
        ),
        (
            r#"SELECT backup_id FROM "Back stop".record_backup_start(policy_name => 'p')"#,
            "1",
        ),
        (
            r#"SELECT backup_id, status FROM "Back stop".record_backup_complete(1, 1)"#,
            "1|completed",
        ),
        (
            r#"SELECT recovery_id FROM "Back stop".record_recovery_start('latest')"#,
            "1",
        ),
        (
            r#"SELECT recovery_id FROM "Back stop".record_recovery_complete(1)"#,
            "1",
        ),
        (
            r#"SELECT backup_id FROM "Back stop".incremental_backup(pg_current_wal_flush_lsn() - 100, pg_current_wal_flush_lsn(), NULL)"#,
            "2",
        ),
        (
            r#"SELECT policy_name, last_good_id FROM "Back stop".v_policy_status"#,
            "p|1",
        ),
        (r#"SELECT status FROM "Back stop".verify_ledger()"#, "intact"),
    ] {
        assert_eq!(text_in(&mut session, call)?, answer, "{call}");
    }
    // What a plan was made for may go: the schema gets another name, the extension is made again elsewhere.
    text_in(
        &mut session,
        r#"RESET search_path; ALTER SCHEMA "Back stop" RENAME TO backstop"#,
    )?;
    assert_eq!(
        text_in(&mut session, "SELECT backup_id FROM backstop.record_backup_start()")?,
        "3"
    );
    text_in(
        &mut session,
        "DROP EXTENSION pg_backstop; CREATE EXTENSION pg_backstop SCHEMA evil",
    )?;
    assert_eq!(
        text_in(&mut session, "SELECT backup_id FROM evil.record_backup_start()")?,
        "1"
    );
    assert_eq!(
        text_in(&mut session, "SELECT status FROM evil.verify_ledger()")?,
        "intact"
    );
    Ok(())
}

#[test]
fn public_gets_nothing_pg_monitor_reads_and_a_grant_of_a_function_is_enough() -> Result<()> {
    let cluster = cluster()?;
    cluster.text(
        "CREATE ROLE nobody LOGIN; CREATE ROLE reader LOGIN IN ROLE pg_monitor; CREATE ROLE recorder LOGIN;
         GRANT EXECUTE ON FUNCTION record_backup_start, record_backup_complete TO recorder;
         INSERT INTO backup_policies (policy_name, schedule_cron) VALUES ('nightly', '30 2 * * *')",
    )?;
    let members = "SELECT string_agg(pg_describe_object(classid, objid, 0), ', ') FROM pg_depend
         WHERE refclassid = 'pg_extension'::regclass AND deptype = 'e'
           AND refobjid = (SELECT oid FROM pg_extension WHERE extname = 'pg_backstop')";
    let open = format!(
        "{members} AND CASE classid
            WHEN 'pg_proc'::regclass THEN has_function_privilege('nobody', objid, 'EXECUTE')
            WHEN 'pg_type'::regclass THEN
                (SELECT typtype FROM pg_type WHERE oid = objid) = 'd' AND has_type_privilege('nobody', objid, 'USAGE')
            WHEN 'pg_class'::regclass THEN
                CASE (SELECT relkind FROM pg_class WHERE oid = objid)
                    WHEN 'S' THEN has_sequence_privilege('nobody', objid, 'USAGE, SELECT, UPDATE')
                    ELSE has_table_privilege('nobody', objid, 'SELECT, INSERT, UPDATE, DELETE') END
            ELSE false END"
    );
    assert_eq!(cluster.text(&open)?, "", "open to PUBLIC");
    let closed = format!(
        "{members} AND classid = 'pg_class'::regclass
            AND (SELECT relkind FROM pg_class WHERE oid = objid) IN ('r', 'v')
            AND NOT has_table_privilege('reader', objid, 'SELECT')"
    );
    assert_eq!(cluster.text(&closed)?, "", "closed to pg_monitor");

    let mut nobody = cluster.connect_as("nobody", "postgres")?;
    for call in [
        "SELECT record_backup_start()",
        "SELECT verify_ledger()",
        "SELECT * FROM backup_history",
    ] {
        assert_eq!(refusal_in(&mut nobody, call)?.code().code(), "42501", "{call}");
    }
    let mut reader = cluster.connect_as("reader", "postgres")?;
    assert_eq!(text_in(&mut reader, VERDICT)?, "t|intact");
    for view in [
        "v_backup_status",
        "v_policy_status",
        "v_rto_rpo_monitoring",
        "backup_history",
        "ledger_events",
    ] {
        text_in(&mut reader, &format!("SELECT count(*) FROM (SELECT * FROM {view}) v"))?;
    }
    text_in(&mut reader, "CREATE TEMP TABLE kept AS SELECT * FROM backup_history")?;
    for call in ["SELECT record_backup_start()", "DELETE FROM backup_history"] {
        assert_eq!(refusal_in(&mut reader, call)?.code().code(), "42501", "{call}");
    }
    // Through the functions, and in no other way; what lies on the server's disk stays closed.
    let mut recorder = cluster.connect_as("recorder", "postgres")?;
    let start = "SELECT backup_id FROM record_backup_start('full', '/etc', 'nightly')";
    assert_eq!(text_in(&mut recorder, start)?, "1");
    assert_eq!(
        text_in(&mut recorder, "SELECT status FROM record_backup_complete(1)")?,
        "completed"
    );
    let row = "SELECT backup_size_bytes IS NULL FROM backup_history";
    assert_eq!(cluster.text(row)?, "t");
    let events = "SELECT string_agg(via || ' ' || actor, ', ' ORDER BY id) FROM ledger_events WHERE table_name = 'backup_history'";
    assert_eq!(cluster.text(events)?, "function recorder, function recorder");
    for call in ["UPDATE backup_history SET label = 'x'", "SELECT * FROM backup_policies"] {
        assert_eq!(refusal_in(&mut recorder, call)?.code().code(), "42501", "{call}");
    }
    Ok(())
}

#[test]
fn a_standby_refuses_to_record_and_says_where_to_go() -> Result<()> {
    let cluster = cluster()?;
    cluster.text("SELECT record_backup_start()")?;
    let standby = cluster.standby(Settings::new())?;
    standby.wait_for("SELECT count(*) FROM backup_history", "1")?;
    for call in [
        "SELECT record_backup_start()",
        "SELECT record_backup_complete(1)",
        "SELECT incremental_backup('0/1', '0/2', NULL)",
        "SELECT record_recovery_start('latest')",
        "SELECT record_recovery_complete(1)",
    ] {
        let error = standby.refusal(call)?;
        assert_eq!(error.code().code(), "25006", "{call}: {error}");
        assert!(
            error.hint().is_some_and(|hint| hint.contains("primary")),
            "{call}: {error}"
        );
    }
    assert_eq!(standby.text(VERDICT)?, "t|intact");
    assert_eq!(
        standby.text("SELECT backup_type, running_count FROM v_backup_status")?,
        "full|1"
    );
    Ok(())
}

#[test]
fn of_two_sessions_that_complete_a_backup_exactly_one_wins() -> Result<()> {
    const BACKUPS: usize = 40;
    let cluster = cluster()?;
    cluster.text(&format!(
        "SELECT record_backup_start() FROM generate_series(1, {BACKUPS})"
    ))?;
    at_once(&cluster, 4, |session| {
        for id in 1..=BACKUPS {
            match session.simple_query(&format!("SELECT record_backup_complete({id}, {id})")) {
                Ok(_) => {}
                Err(error) => {
                    let error = error.as_db_error().cloned().context("a broken connection")?;
                    assert_eq!(error.code().code(), "55000", "{error}");
                    assert!(
                        error.detail().is_some_and(|detail| detail.contains("completed")),
                        "{error}"
                    );
                }
            }
        }
        Ok(())
    })?;
    let each_once = "SELECT count(*), bool_and(backup_size_bytes = id) FROM backup_history WHERE status = 'completed'";
    assert_eq!(cluster.text(each_once)?, format!("{BACKUPS}|t"));
    assert_eq!(
        cluster.text("SELECT events, first_broken, status FROM verify_ledger()")?,
        format!("{}||intact", 2 * BACKUPS)
    );
    Ok(())
}

/// Their own snapshots are older than the chain's newest event: it must be found all the same.
#[test]
fn strict_isolation_levels_do_not_fork_the_chain() -> Result<()> {
    const TURNS: usize = 15;
    let cluster = cluster()?;
    for level in ["REPEATABLE READ", "SERIALIZABLE"] {
        at_once(&cluster, 4, |session| {
            for _ in 0..TURNS {
                // The snapshot is taken before the others commit.
                text_in(
                    session,
                    &format!("BEGIN ISOLATION LEVEL {level}; SELECT count(*) FROM pg_class"),
                )?;
                let work = "SELECT record_backup_complete(backup_id, 1) FROM record_backup_start(); COMMIT";
                if let Err(error) = session.simple_query(work) {
                    // A conflict is an answer that such a session must reckon with; a forked chain is not.
                    assert_eq!(error.code().map(|code| code.code()), Some("40001"), "{error}");
                    text_in(session, "ROLLBACK")?;
                }
            }
            Ok(())
        })?;
        assert_eq!(cluster.text(VERDICT)?, "t|intact", "{level}");
    }
    let contiguous = "SELECT count(*) = max(id) AND count(*) > 40 FROM ledger_events";
    assert_eq!(cluster.text(contiguous)?, "t");
    Ok(())
}

/// Images do not depend on how a session likes its times and intervals written.
#[test]
fn sessions_with_other_formats_see_the_same_ledger() -> Result<()> {
    let cluster = cluster()?;
    let odd = "SET TimeZone = 'Asia/Kolkata'; SET IntervalStyle = 'sql_standard'; SET DateStyle = 'German';
               SET bytea_output = 'escape'; SET extra_float_digits = -15";
    let mut session = cluster.connect()?;
    text_in(&mut session, odd)?;
    text_in(
        &mut session,
        "INSERT INTO backup_policies (policy_name, target_rpo, target_rto) VALUES ('p', '-1 mon 2 days -03:04:05.6', '1 h')
         ON CONFLICT DO NOTHING",
    )
    .err()
    .context("a negative objective must be refused")?;
    text_in(
        &mut session,
        "INSERT INTO backup_policies (policy_name, target_rpo) VALUES ('p', '1 mon 2 days 03:04:05.6')",
    )?;
    text_in(
        &mut session,
        "SELECT record_backup_complete(backup_id, 1, 1.50) FROM record_backup_start(policy_name => 'p')",
    )?;
    assert_eq!(text_in(&mut session, VERDICT)?, "t|intact");
    assert_eq!(cluster.text(VERDICT)?, "t|intact");
    Ok(())
}
