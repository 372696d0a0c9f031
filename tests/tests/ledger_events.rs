//! An event of the ledger tells of what came about, and of nothing else, whatever way a row was written and whoever else was
//! writing; and nobody waits for a transaction that is left open.

use std::thread;

use anyhow::{Context, Result};
use tests::cluster::{refusal_in, text_in};
use tests::{Cluster, Settings};

const VERDICT: &str = "SELECT status FROM verify_ledger()";
/// Ids without gaps from 1; each row refers to its newest event.
const SOUND: &str = "SELECT (SELECT count(*) = coalesce(max(id), 0) FROM ledger_events),
    (SELECT count(*) FROM ledger_pending),
    (SELECT count(*) FROM (
        SELECT 'backup_policies' AS t, id, last_event_id FROM backup_policies
        UNION ALL SELECT 'backup_history', id, last_event_id FROM backup_history
        UNION ALL SELECT 'recovery_history', id, last_event_id FROM recovery_history) AS r
      WHERE last_event_id IS DISTINCT FROM
          (SELECT max(e.id) FROM ledger_events e WHERE e.table_name = r.t AND e.row_id = r.id))";

fn cluster() -> Result<Cluster> {
    let cluster = Cluster::start(Settings::new())?;
    cluster.text("CREATE EXTENSION pg_backstop")?;
    Ok(cluster)
}

fn is_sound(cluster: &Cluster, after: &str) -> Result<()> {
    assert_eq!(cluster.text(SOUND)?, "t|0|0", "{after}");
    assert_eq!(cluster.text(VERDICT)?, "intact", "{after}");
    Ok(())
}

/// L2
#[test]
fn every_way_to_write_a_policy_leaves_the_ledger_intact() -> Result<()> {
    let cluster = cluster()?;
    let rows = cluster.place("rows.csv");
    std::fs::write(&rows, "copied,full\n")?;
    for (write, events) in [
        ("INSERT INTO backup_policies (policy_name) VALUES ('a'), ('b')", 2),
        ("INSERT INTO backup_policies (policy_name) VALUES ('a') ON CONFLICT DO NOTHING", 0),
        (
            "INSERT INTO backup_policies (policy_name) VALUES ('a'), ('c') ON CONFLICT (policy_name) DO NOTHING",
            1,
        ),
        (
            "INSERT INTO backup_policies (policy_name, retention_days) VALUES ('a', 9), ('d', 9)
             ON CONFLICT (policy_name) DO UPDATE SET retention_days = EXCLUDED.retention_days",
            2,
        ),
        (
            "INSERT INTO backup_policies (policy_name) VALUES ('a')
             ON CONFLICT (policy_name) DO UPDATE SET retention_days = 1 WHERE backup_policies.retention_days > 100",
            0,
        ),
        (
            "WITH gone AS (DELETE FROM backup_policies WHERE policy_name = 'c' RETURNING *)
             INSERT INTO backup_policies (policy_name) SELECT policy_name || '2' FROM gone",
            2,
        ),
        ("UPDATE backup_policies SET policy_name = upper(policy_name) WHERE id < 3", 2),
        ("UPDATE backup_policies SET last_event_id = 7 WHERE policy_name = 'A'", 1),
        ("DELETE FROM backup_policies WHERE policy_name = 'B'", 1),
        (
            "BEGIN; INSERT INTO backup_policies (policy_name) VALUES ('e'); SAVEPOINT s;
             UPDATE backup_policies SET enabled = false; DELETE FROM backup_policies WHERE policy_name = 'A';
             ROLLBACK TO s; UPDATE backup_policies SET min_backups = 3 WHERE policy_name = 'e'; COMMIT",
            2,
        ),
        (
            "BEGIN; INSERT INTO backup_policies (policy_name) VALUES ('f'); DELETE FROM backup_policies WHERE policy_name = 'f'; COMMIT",
            2,
        ),
        ("BEGIN; INSERT INTO backup_policies (policy_name) VALUES ('g'); ROLLBACK", 0),
        (
            "DO $$BEGIN
                 BEGIN INSERT INTO public.backup_policies (policy_name) VALUES ('i'); RAISE 'no'; EXCEPTION WHEN OTHERS THEN NULL; END;
                 UPDATE public.backup_policies SET enabled = true WHERE policy_name = 'e';
             END$$",
            1,
        ),
        (
            "BEGIN; SET CONSTRAINTS ALL IMMEDIATE; UPDATE backup_policies SET min_backups = 4 WHERE policy_name = 'e'; COMMIT",
            1,
        ),
    ] {
        let before: i64 = cluster.text("SELECT count(*) FROM ledger_events")?.parse()?;
        cluster.text(write)?;
        let after: i64 = cluster.text("SELECT count(*) FROM ledger_events")?.parse()?;
        assert_eq!(after - before, events, "{write}");
        is_sound(&cluster, write)?;
    }
    cluster.text(&format!(
        "COPY backup_policies (policy_name, backup_type) FROM PROGRAM 'cat {}' (FORMAT csv)",
        rows.display()
    ))?;
    if cluster.text("SELECT current_setting('server_version_num')::integer >= 150000")? == "t" {
        cluster.text(
            "MERGE INTO backup_policies p USING (VALUES ('copied'), ('merged')) AS v (name) ON p.policy_name = v.name
             WHEN MATCHED THEN UPDATE SET retention_days = 5 WHEN NOT MATCHED THEN INSERT (policy_name) VALUES (v.name)",
        )?;
        cluster.text(
            "MERGE INTO backup_policies p USING (VALUES ('copied'), ('merged')) AS v (name) ON p.policy_name = v.name
             WHEN MATCHED AND v.name = 'copied' THEN DELETE WHEN MATCHED THEN DO NOTHING",
        )?;
    }
    is_sound(&cluster, "COPY and MERGE")
}

/// L2: a trigger may swallow or change the row after the ledger's own has seen it.
#[test]
fn triggers_of_users_leave_the_ledger_intact_whatever_they_are_called() -> Result<()> {
    let cluster = cluster()?;
    cluster.text(
        "CREATE FUNCTION swallow() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN RETURN NULL; END$$;
         CREATE FUNCTION change() RETURNS trigger LANGUAGE plpgsql AS
             $$BEGIN NEW.retention_days := coalesce(OLD.retention_days, 0) + 1; NEW.created_at := clock_timestamp(); RETURN NEW; END$$;
         CREATE FUNCTION renumber() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN NEW.id := NEW.id + 1000; RETURN NEW; END$$;
         CREATE FUNCTION follow() RETURNS trigger LANGUAGE plpgsql AS
             $$BEGIN UPDATE public.backup_policies SET options = '{\"seen\": true}' WHERE id = NEW.id AND options = '{}'; RETURN NULL; END$$",
    )?;
    for name in ["aaa", "zzz_last"] {
        for (function, when) in [
            ("swallow", "BEFORE INSERT OR UPDATE OR DELETE"),
            ("change", "BEFORE INSERT OR UPDATE"),
            ("renumber", "BEFORE INSERT"),
            ("follow", "AFTER INSERT OR UPDATE"),
        ] {
            cluster.text(&format!(
                "INSERT INTO backup_policies (policy_name) VALUES ('old {name} {function}');
                 CREATE TRIGGER {name} {when} ON backup_policies FOR EACH ROW EXECUTE FUNCTION {function}();
                 INSERT INTO backup_policies (policy_name) VALUES ('new {name} {function}');
                 UPDATE backup_policies SET enabled = false WHERE policy_name = 'old {name} {function}';
                 DELETE FROM backup_policies WHERE policy_name = 'old {name} {function}'"
            ))?;
            is_sound(&cluster, &format!("{name} {function}"))?;
            cluster.text(&format!("DROP TRIGGER {name} ON backup_policies"))?;
        }
    }
    // A trigger that swallows every change must not keep a row from carrying its event either.
    cluster.text(
        "CREATE FUNCTION swallow_updates() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN RETURN NULL; END$$;
         CREATE TRIGGER zzz BEFORE UPDATE ON backup_history FOR EACH ROW EXECUTE FUNCTION swallow_updates();
         SELECT record_backup_start()",
    )?;
    is_sound(&cluster, "a backup whose every update is swallowed")
}

#[test]
fn the_id_of_a_row_cannot_be_changed() -> Result<()> {
    let cluster = cluster()?;
    cluster.text("INSERT INTO backup_policies (policy_name) VALUES ('p'); SELECT record_backup_start()")?;
    cluster.text(
        "CREATE FUNCTION renumber() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN NEW.id := NEW.id + 1; RETURN NEW; END$$",
    )?;
    for change in [
        "UPDATE backup_policies SET id = id + 1",
        "UPDATE backup_history SET id = 7",
        "CREATE TRIGGER zzz BEFORE UPDATE ON backup_policies FOR EACH ROW EXECUTE FUNCTION renumber();
         UPDATE backup_policies SET enabled = false",
    ] {
        let error = cluster.refusal(change)?;
        let told = format!("{} {:?} {:?}", error.message(), error.detail(), error.hint());
        assert!(
            error.code().code() == "22023" && error.message().contains("id 1 of"),
            "{told}"
        );
        assert!(error.detail().is_some() && error.hint().is_some(), "{told}");
        is_sound(&cluster, change)?;
    }
    Ok(())
}

/// S5, with what people write around a long backup.
#[test]
fn a_transaction_that_is_left_open_after_a_call_keeps_nobody_from_recording() -> Result<()> {
    let cluster = cluster()?;
    let mut open = cluster.connect()?;
    text_in(&mut open, "BEGIN; SELECT record_backup_start(label => 'long')")?;
    text_in(&mut open, "SELECT record_recovery_start('latest', is_drill => true)")?;
    let mut other = cluster.connect()?;
    text_in(&mut other, "SET statement_timeout = '10s'")?;
    text_in(
        &mut other,
        "SELECT record_backup_complete(backup_id, 1) FROM record_backup_start(label => 'short');
         SELECT record_recovery_complete(recovery_id) FROM record_recovery_start('latest', is_drill => true);
         INSERT INTO backup_policies (policy_name) VALUES ('p')",
    )?;
    is_sound(&cluster, "others")?;
    assert_eq!(text_in(&mut open, VERDICT)?, "intact");
    text_in(&mut open, "COMMIT")?;
    is_sound(&cluster, "the long one")?;
    let order = "SELECT string_agg(image ->> 'label', ' ' ORDER BY id) FROM ledger_events WHERE operation = 'INSERT'
                 AND table_name = 'backup_history'";
    assert_eq!(cluster.text(order)?, "short long");
    Ok(())
}

/// Of backups that nobody completed, one that another session is changing is left to that session.
#[test]
fn a_backup_that_another_session_holds_keeps_nobody_from_recording() -> Result<()> {
    let cluster = Cluster::start(Settings::new())?;
    cluster.text("CREATE EXTENSION pg_backstop")?;
    cluster.text("SELECT stop_worker()")?;
    cluster.text("SELECT record_backup_start(label => 'abandoned') FROM generate_series(1, 3)")?;
    cluster.text("UPDATE backup_history SET started_at = now() - interval '2 days'")?;
    let mut open = cluster.connect()?;
    text_in(&mut open, "BEGIN; SELECT FROM backup_history WHERE id = 2 FOR UPDATE")?;
    let mut other = cluster.connect()?;
    text_in(
        &mut other,
        "SET statement_timeout = '10s'; SELECT record_backup_start()",
    )?;
    let failed = "SELECT string_agg(id::text, ' ' ORDER BY id) FROM backup_history WHERE status = 'failed'";
    assert_eq!(cluster.text(failed)?, "1 3");
    text_in(&mut open, "COMMIT")?;
    cluster.text("SELECT record_backup_start()")?;
    assert_eq!(cluster.text(failed)?, "1 2 3");
    assert_eq!(cluster.text(SOUND)?, "t|0|0");
    Ok(())
}

/// Sessions that write in all ways at once, give up in all ways, and take their rows in all orders.
#[test]
fn whatever_sessions_do_at_once_the_chain_has_no_gap_and_no_fork() -> Result<()> {
    const SESSIONS: u64 = 5;
    const TURNS: u64 = 60;
    let cluster = cluster()?;
    cluster.text("INSERT INTO backup_policies (policy_name) SELECT 'p' || n FROM generate_series(1, 6) AS n")?;
    thread::scope(|scope| {
        let sessions: Vec<_> = (0..SESSIONS)
            .map(|number| {
                let cluster = &cluster;
                scope.spawn(move || -> Result<()> {
                    let mut session = cluster.connect()?;
                    // As random as it has to be, and the same each time.
                    let mut state = number + 1;
                    let mut dice = |sides: u64| {
                        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                        (state >> 33) % sides
                    };
                    for turn in 0..TURNS {
                        let level = ["READ COMMITTED", "REPEATABLE READ", "SERIALIZABLE"][dice(3) as usize % 3];
                        let mut work = format!("BEGIN ISOLATION LEVEL {level}; ");
                        for step in 0..=dice(4) {
                            let policy = dice(6) + 1;
                            work.push_str(&match dice(7) {
                                0 => "SELECT record_backup_complete(backup_id, 1) FROM record_backup_start(); ".to_owned(),
                                1 => format!("UPDATE backup_policies SET retention_days = {turn} WHERE policy_name = 'p{policy}'; "),
                                2 => format!(
                                    "INSERT INTO backup_policies (policy_name) VALUES ('p{policy}') ON CONFLICT (policy_name)
                                     DO UPDATE SET min_backups = {turn}; "
                                ),
                                3 => format!("INSERT INTO backup_policies (policy_name) VALUES ('p{policy}') ON CONFLICT DO NOTHING; "),
                                4 => format!("DELETE FROM backup_policies WHERE policy_name = 'p{policy}'; "),
                                5 => format!(
                                    "SAVEPOINT s{step}; UPDATE backup_policies SET enabled = NOT enabled; ROLLBACK TO s{step}; "
                                ),
                                _ => format!("SAVEPOINT s{step}; SELECT record_backup_start(); RELEASE s{step}; "),
                            });
                            if dice(8) == 0 {
                                work.push_str("SELECT status FROM verify_ledger(); ");
                            }
                        }
                        work.push_str(if dice(4) == 0 { "ROLLBACK" } else { "COMMIT" });
                        if let Err(error) = session.simple_query(&work) {
                            let code = error.code().map(|code| code.code().to_owned()).context("a broken connection")?;
                            // What sessions in each other's way must reckon with: rows of policies taken in any order.
                            assert!(["40001", "40P01", "23505"].contains(&code.as_str()), "{work}: {error:?}");
                            text_in(&mut session, "ROLLBACK")?;
                        }
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
    assert_eq!(cluster.text("SELECT count(*) > 100 FROM ledger_events")?, "t");
    is_sound(&cluster, "all sessions")
}

#[test]
fn an_event_that_a_row_is_said_to_have_must_be_there() -> Result<()> {
    let cluster = cluster()?;
    for ledger in ["empty", "in use"] {
        for insert in [
            "INSERT INTO backup_policies (policy_name, last_event_id) VALUES ('made up', 4711)",
            "INSERT INTO backup_policies (id, policy_name, last_event_id) VALUES (9, 'made up', 4711)",
            "INSERT INTO backup_history (backup_type, status, last_event_id) VALUES ('full', 'completed', 4711)",
        ] {
            let mut session = cluster.connect()?;
            let error = refusal_in(&mut session, insert)?;
            let told = format!("{ledger}: {} {:?} {:?}", error.message(), error.detail(), error.hint());
            assert!(
                error.code().code() == "22023" && error.message().contains("4711"),
                "{told}"
            );
            assert!(error.detail().is_some() && error.hint().is_some(), "{told}");
        }
        is_sound(&cluster, ledger)?;
        cluster.text("SELECT record_backup_start()")?;
    }
    // Anybody can make a session look like one that restores a dump, and write the mark of a function.
    cluster.text("CREATE ROLE clerk LOGIN; GRANT INSERT ON backup_history TO clerk")?;
    let mut clerk = cluster.connect_as("clerk", "postgres")?;
    text_in(
        &mut clerk,
        "SET check_function_bodies = off; SELECT set_config('search_path', '', false)",
    )?;
    for told in [4711, 0, -1] {
        let insert = format!(
            "INSERT INTO public.backup_history (id, backup_type, status, last_event_id) VALUES (77, 'full', 'completed', {told})"
        );
        assert_eq!(refusal_in(&mut clerk, &insert)?.code().code(), "22023", "{told}");
    }
    is_sound(&cluster, "a clerk's")?;
    // What was removed past the ledger may be put back as it was.
    cluster.text("CREATE TABLE kept AS TABLE backup_history")?;
    cluster.text("SET session_replication_role = replica; DELETE FROM backup_history WHERE id = 1")?;
    cluster.text("INSERT INTO backup_history SELECT * FROM kept WHERE id = 1")?;
    is_sound(&cluster, "put back")?;
    assert_eq!(cluster.text("SELECT count(*) FROM ledger_events")?, "2");
    Ok(())
}
