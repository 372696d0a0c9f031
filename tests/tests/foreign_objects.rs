//! Nobody who is no superuser has code run by the extension's statements, whatever they own, may create, or made before: the
//! extension refuses to live where others could exchange its objects, and runs no statement that means anything else.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use anyhow::{Context, Result, ensure};
use postgres::Client;
use tests::cluster::{refusal_in, text_in};
use tests::wait::SOON;
use tests::{Cluster, Look, Settings, wait_until, worker};

const INSTALL: &str = "CREATE SCHEMA backstop; CREATE EXTENSION pg_backstop SCHEMA backstop";
const IS_SUPERUSER: &str = "SELECT rolsuper FROM pg_roles WHERE rolname = 'mallory'";

fn settings() -> Settings {
    Settings::new().set("pg_backstop.check_interval", "100ms")
}

/// The extension in a schema of its own, its worker at work, and a role that owns nothing.
fn installed() -> Result<Cluster> {
    let cluster = Cluster::start(settings())?;
    cluster.text(INSTALL)?;
    cluster.text("CREATE ROLE mallory LOGIN; ALTER ROLE postgres SET search_path = backstop")?;
    worker::ticks(&cluster, 1)?;
    Ok(cluster)
}

/// An error that names these words in its message and detail, and says what to do.
fn refused(session: &mut Client, sql: &str, words: &[&str]) -> Result<()> {
    let error = refusal_in(session, sql)?;
    let said = format!("{error}\n{}", error.detail().unwrap_or_default());
    ensure!(error.code().code() == "55000", "{sql}: {error:?}");
    for word in words {
        ensure!(said.contains(word), "{sql}: no {word:?} in {said}");
    }
    ensure!(error.hint().is_some(), "{sql}: no hint in {error:?}");
    Ok(())
}

#[test]
fn create_extension_refuses_a_schema_in_which_others_could_exchange_its_objects() -> Result<()> {
    let cluster = Cluster::start(settings())?;
    cluster.text("CREATE ROLE mallory LOGIN")?;
    for (preparation, words) in [
        (
            "CREATE SCHEMA theirs AUTHORIZATION mallory",
            ["schema \"theirs\"", "role \"mallory\" owns it"],
        ),
        (
            "CREATE SCHEMA theirs; GRANT CREATE ON SCHEMA theirs TO mallory",
            ["schema \"theirs\"", "role \"mallory\" may create"],
        ),
        (
            "CREATE SCHEMA theirs; GRANT CREATE ON SCHEMA theirs TO PUBLIC",
            ["schema \"theirs\"", "PUBLIC may create"],
        ),
        (
            "CREATE SCHEMA theirs; CREATE FUNCTION theirs.f() RETURNS integer LANGUAGE sql RETURN 1;
             ALTER FUNCTION theirs.f() OWNER TO mallory",
            ["schema \"theirs\"", "role \"mallory\" owns functions"],
        ),
    ] {
        cluster.text(preparation)?;
        let mut session = cluster.connect()?;
        refused(&mut session, "CREATE EXTENSION pg_backstop SCHEMA theirs", &words)?;
        let error = refusal_in(&mut session, "CREATE EXTENSION pg_backstop SCHEMA theirs")?;
        let hint = error.hint().context("no hint")?.to_owned();
        assert!(hint.contains(INSTALL), "{hint}");
        cluster.text("DROP SCHEMA theirs CASCADE")?;
    }
    // The schema public belongs to the owner of the database, whoever that is.
    cluster.text("CREATE DATABASE theirs OWNER mallory")?;
    let mut session = cluster.connect_as("postgres", "theirs")?;
    let words = ["schema \"public\"", "role \"mallory\" owns the database"];
    refused(&mut session, "CREATE EXTENSION pg_backstop", &words)?;
    text_in(&mut session, INSTALL)?;
    assert_eq!(
        text_in(&mut session, "SELECT status FROM backstop.verify_ledger()")?,
        "intact"
    );

    cluster.text("GRANT CREATE ON SCHEMA public TO PUBLIC")?;
    let mut session = cluster.connect()?;
    refused(&mut session, "CREATE EXTENSION pg_backstop", &["PUBLIC may create"])?;
    cluster.text("REVOKE CREATE ON SCHEMA public FROM PUBLIC")?;
    text_in(&mut session, "CREATE EXTENSION pg_backstop")?;
    assert_eq!(text_in(&mut session, "SELECT status FROM verify_ledger()")?, "intact");
    Ok(())
}

#[test]
fn calls_and_worker_refuse_as_long_as_others_could_exchange_the_objects() -> Result<()> {
    let cluster = installed()?;
    let mut session = cluster.connect()?;
    // Plans are kept: what was asked before must be asked again.
    text_in(&mut session, "SELECT status FROM verify_ledger()")?;
    for (change, undo, words) in [
        (
            "ALTER SCHEMA backstop OWNER TO mallory",
            "ALTER SCHEMA backstop OWNER TO postgres",
            "role \"mallory\" owns it",
        ),
        (
            "GRANT CREATE ON SCHEMA backstop TO mallory",
            "REVOKE CREATE ON SCHEMA backstop FROM mallory",
            "role \"mallory\" may create",
        ),
        (
            "GRANT CREATE ON SCHEMA backstop TO PUBLIC",
            "REVOKE CREATE ON SCHEMA backstop FROM PUBLIC",
            "PUBLIC may create",
        ),
        (
            "ALTER SCHEMA backstop OWNER TO pg_database_owner; ALTER DATABASE postgres OWNER TO mallory",
            "ALTER DATABASE postgres OWNER TO postgres",
            "role \"mallory\" owns the database",
        ),
    ] {
        cluster.text(change)?;
        for call in [
            "SELECT record_backup_start()",
            "SELECT * FROM verify_ledger()",
            "SELECT * FROM recovery_readiness",
            "INSERT INTO backup_policies (policy_name) VALUES ('p')",
        ] {
            refused(&mut session, call, &["schema \"backstop\"", words])?;
        }
        let said = format!("SELECT state, last_error LIKE '%{words}%' FROM v_worker_status");
        cluster.wait_for(&said, "failing|t")?;
        cluster.text(undo)?;
        assert_eq!(text_in(&mut session, "SELECT status FROM verify_ledger()")?, "intact");
        cluster.wait_for("SELECT state, last_error FROM v_worker_status", "idle|")?;
    }
    Ok(())
}

#[test]
fn an_owner_who_is_no_superuser_any_more_is_refused_and_named() -> Result<()> {
    let cluster = Cluster::start(settings())?;
    cluster.text("CREATE ROLE admin LOGIN SUPERUSER")?;
    let mut admin = cluster.connect_as("admin", "postgres")?;
    text_in(&mut admin, "CREATE EXTENSION pg_backstop")?;
    worker::ticks(&cluster, 1)?;
    cluster.text("ALTER ROLE admin NOSUPERUSER")?;
    let mut session = cluster.connect()?;
    refused(
        &mut session,
        "SELECT * FROM recovery_readiness",
        &["role \"admin\"", "owner"],
    )?;
    cluster.wait_for(
        "SELECT state, last_error LIKE '%role \"admin\"%' FROM v_worker_status",
        "failing|t",
    )?;
    cluster.text("ALTER ROLE admin SUPERUSER")?;
    cluster.wait_for("SELECT state, last_error FROM v_worker_status", "idle|")
}

/// Waits until a process waits for a lock on a relation.
fn waits(cluster: &Cluster, pid: &str) -> Result<()> {
    let sql = format!("SELECT count(*) > 0 FROM pg_locks WHERE pid = {pid} AND locktype = 'relation' AND NOT granted");
    cluster.wait_for(&sql, "t")
}

/// Puts another schema in the place of the extension's, as whoever owns it can, with a view of the same columns in place of a table
/// that makes its owner a superuser when a superuser reads it.
fn exchange_schema(cluster: &Cluster, table: &str) -> Result<()> {
    let columns = cluster.text(&format!(
        "SELECT string_agg(format('NULL::%s AS %I', format_type(coalesce(nullif(t.typbasetype, 0), t.oid), -1), attname), ', '
                           ORDER BY attnum)
         FROM pg_attribute JOIN pg_type AS t ON t.oid = atttypid WHERE attrelid = 'backstop.{table}'::regclass AND attnum > 0"
    ))?;
    cluster.text("ALTER SCHEMA backstop OWNER TO mallory; GRANT CREATE ON DATABASE postgres TO mallory")?;
    let mut mallory = cluster.connect_as("mallory", "postgres")?;
    text_in(
        &mut mallory,
        &format!(
            "ALTER SCHEMA backstop RENAME TO before;
             CREATE SCHEMA backstop;
             CREATE FUNCTION backstop.steal() RETURNS boolean LANGUAGE plpgsql AS
                 $$BEGIN ALTER ROLE mallory SUPERUSER; RETURN true; END$$;
             CREATE FUNCTION backstop.ledger_hash(bytea, bigint, timestamptz, text, text, bigint, text, text, jsonb) RETURNS bytea
                 LANGUAGE sql AS 'SELECT NULL::bytea';
             CREATE VIEW backstop.{table} AS SELECT {columns} WHERE backstop.steal()"
        ),
    )
    .map(drop)
}

#[test]
fn whoever_exchanges_the_schema_while_a_call_waits_gains_nothing() -> Result<()> {
    for has_kept_plans in [false, true] {
        let cluster = installed()?;
        let mut caller = cluster.connect()?;
        if has_kept_plans {
            text_in(&mut caller, "SELECT status FROM verify_ledger()")?;
        }
        let pid = text_in(&mut caller, "SELECT pg_backend_pid()")?;
        let mut holder = cluster.connect()?;
        text_in(
            &mut holder,
            "BEGIN; LOCK TABLE backstop.ledger_events IN ACCESS EXCLUSIVE MODE",
        )?;
        let call = thread::spawn(move || text_in(&mut caller, "SELECT status FROM verify_ledger()"));
        waits(&cluster, &pid)?;
        exchange_schema(&cluster, "ledger_events")?;
        text_in(&mut holder, "COMMIT")?;
        let answer = call.join().map_err(|_| anyhow::anyhow!("a session panicked"))?;
        assert_eq!(cluster.text(IS_SUPERUSER)?, "f", "kept plans: {has_kept_plans}");
        // Either the view is found in the place of a table, or the table under the schema's new name.
        match answer {
            Ok(status) => assert_eq!(status, "intact", "kept plans: {has_kept_plans}"),
            Err(error) => {
                let said = format!("{error:#}");
                let found = [
                    "does not belong to extension \"pg_backstop\"",
                    "not safe in schema \"before\"",
                ];
                assert!(found.iter().any(|found| said.contains(found)), "{said}");
            }
        }
        let mut session = cluster.connect()?;
        refused(&mut session, "SELECT before.record_backup_start()", &["mallory"])?;
    }
    Ok(())
}

#[test]
fn whoever_exchanges_the_schema_while_the_worker_waits_gains_nothing() -> Result<()> {
    let cluster = installed()?;
    let pid = worker::pid(&cluster)?.to_string();
    let mut holder = cluster.connect()?;
    text_in(
        &mut holder,
        "BEGIN; LOCK TABLE backstop.backup_history IN ACCESS EXCLUSIVE MODE",
    )?;
    waits(&cluster, &pid)?;
    exchange_schema(&cluster, "backup_history")?;
    text_in(&mut holder, "COMMIT")?;
    cluster.text("ALTER ROLE postgres SET search_path = before")?;
    worker::ticks(&cluster, 1)?;
    assert_eq!(cluster.text(IS_SUPERUSER)?, "f");
    cluster.wait_for(
        "SELECT state, last_error LIKE '%mallory%' FROM v_worker_status",
        "failing|t",
    )
}

/// Makes overloads of each function of the extension: with its first argument, or one that it lacks, of each row type and domain of
/// the extension and of each type like text, and with all its texts of such a type.
const OVERLOADS: &str = r#"DO $overloads$
    DECLARE
        member record; kind text; arguments text[]; kinds text[]; list text;
        made integer := 0;
    BEGIN
        SELECT array_agg(t.oid::regtype::text) INTO kinds
        FROM pg_type AS t JOIN pg_namespace AS n ON n.oid = t.typnamespace
        WHERE n.nspname = 'backstop' AND t.typtype IN ('c', 'd');
        kinds := kinds || ARRAY['text', 'varchar', 'name', 'bpchar', '"char"', 'json', 'cstring', 'record', 'anyelement', 'regclass'];
        FOR member IN
            SELECT p.proname, p.proretset, p.prorettype::regtype AS result,
                ARRAY(SELECT a::regtype::text FROM unnest(p.proargtypes) WITH ORDINALITY AS u(a, i) ORDER BY i) AS arguments
            FROM pg_proc AS p JOIN pg_depend AS d ON d.classid = 'pg_proc'::regclass AND d.objid = p.oid AND d.deptype = 'e'
            WHERE p.pronamespace = 'backstop'::regnamespace AND p.prorettype <> 'trigger'::regtype
        LOOP
            FOREACH kind IN ARRAY kinds LOOP
                FOREACH list IN ARRAY ARRAY[
                    array_to_string(kind || member.arguments[2:], ', '),
                    array_to_string(array_replace(member.arguments, 'text', kind), ', ')]
                LOOP
                    BEGIN
                        EXECUTE format('CREATE FUNCTION backstop.%I(%s) RETURNS %s %s LANGUAGE plpgsql AS
                                        $$BEGIN RAISE EXCEPTION ''an overload ran''; END$$',
                            member.proname, list, CASE WHEN member.proretset THEN 'SETOF' ELSE '' END, member.result);
                        made := made + 1;
                    EXCEPTION WHEN duplicate_function OR syntax_error OR invalid_function_definition OR feature_not_supported THEN NULL;
                    END;
                END LOOP;
            END LOOP;
        END LOOP;
        ASSERT made > 500, made;
    END $overloads$"#;

#[test]
fn overloads_that_would_fit_better_do_not_run() -> Result<()> {
    let cluster = installed()?;
    cluster.text("GRANT USAGE, CREATE ON SCHEMA backstop TO mallory")?;
    cluster.text(
        "DO $$DECLARE t regtype; BEGIN
             FOR t IN SELECT oid FROM pg_type WHERE typnamespace = 'backstop'::regnamespace AND typtype IN ('c', 'd') LOOP
                 EXECUTE format('GRANT USAGE ON TYPE %s TO mallory', t);
             END LOOP; END$$",
    )?;
    let mut mallory = cluster.connect_as("mallory", "postgres")?;
    text_in(&mut mallory, OVERLOADS)?;
    cluster.text("REVOKE CREATE ON SCHEMA backstop FROM mallory")?;

    let mut session = cluster.connect()?;
    for (call, answer) in [
        (
            "INSERT INTO backup_policies (policy_name, schedule_cron) VALUES ('p', '30 2 * * *') RETURNING id",
            "1",
        ),
        (
            "SELECT backup_id FROM record_backup_start('full'::text, NULL::text, 'p'::text, 'l'::text)",
            "1",
        ),
        (
            "SELECT status FROM record_backup_complete(1::bigint, 1::bigint, 1::numeric, 'completed'::text, NULL::text)",
            "completed",
        ),
        (
            "SELECT backup_id FROM incremental_backup('0/1'::pg_lsn, pg_current_wal_flush_lsn(), NULL::text)",
            "2",
        ),
        (
            "UPDATE backup_history SET label = 'm' WHERE id = 2 RETURNING label",
            "m",
        ),
        (
            "SELECT count(*) FROM ledger_events WHERE hash = ledger_hash(prev_hash, id, at, actor, table_name, row_id, operation, via, image)",
            "5",
        ),
        (
            "SELECT count(*) FROM backup_history AS h JOIN ledger_events AS e ON e.id = h.last_event_id AND e.image = ledger_image(h)",
            "2",
        ),
        ("SELECT cron_next('@daily'::text, now()) > now()", "t"),
    ] {
        assert_eq!(text_in(&mut session, call)?, answer, "{call}");
    }
    let verdict = "SELECT status LIKE '%past the functions%' FROM verify_ledger()";
    assert_eq!(text_in(&mut session, verdict)?, "t");
    let views = text_in(
        &mut session,
        "SELECT oid::regclass FROM pg_class WHERE relnamespace = 'backstop'::regnamespace AND relkind = 'v'",
    )?;
    for view in views.lines() {
        text_in(
            &mut session,
            &format!("SELECT count(*) FROM (SELECT * FROM {view}) AS v"),
        )?;
    }
    worker::ticks(&cluster, 2)?;
    assert_eq!(cluster.text("SELECT state, last_error FROM v_worker_status")?, "idle|");
    let log = cluster.log()?;
    assert!(!log.contains("an overload ran"), "{log}");
    Ok(())
}

/// What is looked up when the extension is created, in views, defaults, constraints and SQL functions, is its own or PostgreSQL's.
#[test]
fn nothing_of_the_extension_rests_on_an_object_of_somebody_elses() -> Result<()> {
    let cluster = Cluster::start(settings())?;
    // A schema that a superuser owns, and in which another one has been careless.
    cluster.text(
        "CREATE SCHEMA backstop;
         CREATE FUNCTION backstop.count(bigint) RETURNS bigint LANGUAGE sql RETURN 1;
         CREATE FUNCTION backstop.round(numeric, integer) RETURNS numeric LANGUAGE sql RETURN 1;
         CREATE FUNCTION backstop.trim_scale(double precision) RETURNS numeric LANGUAGE sql RETURN 1;
         CREATE FUNCTION backstop.encode(bytea, varchar) RETURNS text LANGUAGE sql RETURN 'x';
         DO $$DECLARE kind text; name text; BEGIN
             FOREACH kind IN ARRAY ARRAY['text, varchar', 'varchar, text', 'bigint, smallint', 'numeric, integer', 'numeric, bigint',
                                         'timestamptz, time', 'interval, text', 'pg_lsn, text'] LOOP
                 EXECUTE format('CREATE FUNCTION backstop.no(%s) RETURNS boolean LANGUAGE sql RETURN false', kind);
                 FOREACH name IN ARRAY ARRAY['=', '<>', '<', '>', '<=', '>='] LOOP
                     EXECUTE format('CREATE OPERATOR backstop.%s (LEFTARG = %s, RIGHTARG = %s, FUNCTION = backstop.no)',
                                    name, split_part(kind, ', ', 1), split_part(kind, ', ', 2));
                 END LOOP;
             END LOOP;
         END$$",
    )?;
    cluster.text("CREATE EXTENSION pg_backstop SCHEMA backstop")?;
    let rests = "WITH RECURSIVE members AS (
            SELECT classid, objid FROM pg_depend
            WHERE refclassid = 'pg_extension'::regclass AND deptype = 'e'
              AND refobjid = (SELECT oid FROM pg_extension WHERE extname = 'pg_backstop')
            UNION
            SELECT part.classid, part.objid FROM pg_depend AS part JOIN members AS whole
                ON part.refclassid = whole.classid AND part.refobjid = whole.objid AND part.deptype IN ('a', 'i')
        )
        SELECT string_agg(DISTINCT pg_describe_object(d.refclassid, d.refobjid, 0), ', ')
        FROM members AS m JOIN pg_depend AS d ON d.classid = m.classid AND d.objid = m.objid
        WHERE d.refclassid NOT IN ('pg_extension'::regclass, 'pg_namespace'::regclass) AND d.refobjid >= 16384
          AND NOT EXISTS (SELECT FROM members AS own WHERE own.classid = d.refclassid AND own.objid = d.refobjid)";
    assert_eq!(cluster.text(rests)?, "");
    Ok(())
}

#[test]
fn nobody_can_hang_a_column_or_a_function_on_a_row_type() -> Result<()> {
    let cluster = installed()?;
    cluster.text("GRANT USAGE ON SCHEMA backstop TO PUBLIC; CREATE SCHEMA theirs AUTHORIZATION mallory")?;
    let kinds = cluster.text(
        "SELECT 'backstop.' || typname FROM pg_type WHERE typnamespace = 'backstop'::regnamespace AND typtype IN ('c', 'd')",
    )?;
    let mut mallory = cluster.connect_as("mallory", "postgres")?;
    for kind in kinds.lines() {
        for sql in [
            format!("CREATE TABLE theirs.t (x {kind})"),
            format!("CREATE TABLE theirs.t (x {kind}[])"),
            format!("CREATE FUNCTION theirs.f({kind}) RETURNS integer LANGUAGE sql RETURN 1"),
        ] {
            assert_eq!(refusal_in(&mut mallory, &sql)?.code().code(), "42501", "{sql}");
        }
    }
    Ok(())
}

#[test]
fn no_trigger_and_no_foreign_key_of_others_runs_with_the_owners_rights() -> Result<()> {
    let cluster = installed()?;
    cluster.text(
        "GRANT USAGE ON SCHEMA backstop TO mallory; CREATE SCHEMA theirs AUTHORIZATION mallory;
         GRANT TRIGGER, REFERENCES ON backup_history, backup_policies TO mallory;
         INSERT INTO backup_policies (policy_name) VALUES ('p')",
    )?;
    let mut mallory = cluster.connect_as("mallory", "postgres")?;
    text_in(
        &mut mallory,
        "CREATE FUNCTION theirs.steal() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN ALTER ROLE mallory SUPERUSER; RETURN NEW; END$$;
         CREATE FUNCTION theirs.test() RETURNS boolean LANGUAGE plpgsql AS $$BEGIN ALTER ROLE mallory SUPERUSER; RETURN true; END$$",
    )?;
    let condition = |condition: &str| {
        format!(
            "CREATE TRIGGER theirs BEFORE UPDATE ON backstop.backup_history FOR EACH ROW {condition}
                 EXECUTE FUNCTION suppress_redundant_updates_trigger()"
        )
    };
    let drop_trigger = "DROP TRIGGER theirs ON backup_history";
    for (made, gone, said) in [
        (
            "CREATE TRIGGER theirs BEFORE INSERT ON backstop.backup_history FOR EACH ROW EXECUTE FUNCTION theirs.steal()"
                .to_owned(),
            drop_trigger,
            "mallory",
        ),
        (condition("WHEN (theirs.test())"), drop_trigger, "has a condition"),
        // PostgreSQL's own functions run what they are told to.
        (
            condition("WHEN (ts_rewrite('a'::tsquery, 'SELECT theirs.test()::text::tsquery, ''b''::tsquery') IS NULL)"),
            drop_trigger,
            "has a condition",
        ),
        (condition(""), drop_trigger, "that anybody can attach"),
        (
            "CREATE TABLE theirs.child (id bigint REFERENCES backstop.backup_history ON DELETE CASCADE)".to_owned(),
            "DROP TABLE theirs.child",
            "mallory",
        ),
    ] {
        text_in(&mut mallory, &made)?;
        let mut session = cluster.connect()?;
        refused(&mut session, "SELECT record_backup_start()", &["backup_history", said])?;
        assert_eq!(cluster.text(IS_SUPERUSER)?, "f", "{made}");
        cluster.text(gone)?;
        cluster.text("SELECT record_backup_start()")?;
    }
    // What superusers attach is theirs to answer for.
    cluster.text(
        "CREATE FUNCTION audit() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN RETURN NEW; END$$;
         CREATE TRIGGER audit BEFORE INSERT ON backup_history FOR EACH ROW EXECUTE FUNCTION audit()",
    )?;
    cluster.text("SELECT record_backup_start()").map(drop)
}

#[test]
fn default_privileges_give_nobody_a_part_in_the_extension() -> Result<()> {
    let cluster = Cluster::start(settings())?;
    cluster.text(
        "CREATE ROLE app LOGIN; CREATE SCHEMA backstop;
         ALTER DEFAULT PRIVILEGES GRANT ALL ON TABLES TO app;
         ALTER DEFAULT PRIVILEGES GRANT ALL ON SEQUENCES TO app;
         ALTER DEFAULT PRIVILEGES GRANT ALL ON FUNCTIONS TO app;
         CREATE EXTENSION pg_backstop SCHEMA backstop",
    )?;
    let open = "SELECT string_agg(pg_describe_object(classid, objid, 0), ', ') FROM pg_depend
        WHERE refclassid = 'pg_extension'::regclass AND deptype = 'e'
          AND refobjid = (SELECT oid FROM pg_extension WHERE extname = 'pg_backstop')
          AND CASE classid
              WHEN 'pg_proc'::regclass THEN has_function_privilege('app', objid, 'EXECUTE')
              WHEN 'pg_class'::regclass THEN CASE (SELECT relkind FROM pg_class WHERE oid = objid)
                  WHEN 'S' THEN has_sequence_privilege('app', objid, 'USAGE, SELECT, UPDATE')
                  ELSE has_table_privilege('app', objid, 'SELECT, INSERT, UPDATE, DELETE, TRUNCATE, TRIGGER, REFERENCES') END
              ELSE false END";
    assert_eq!(cluster.text(open)?, "");
    Ok(())
}

#[test]
fn drop_extension_never_deadlocks_with_sessions_that_look() -> Result<()> {
    const TURNS: usize = 10;
    let cluster = Cluster::start(settings())?;
    let (ended, deadlocks) = (AtomicBool::new(false), std::sync::Mutex::new(Vec::new()));
    thread::scope(|scope| {
        let look = |sql: &'static str| -> Result<()> {
            let mut session = cluster.connect()?;
            text_in(&mut session, "SET client_min_messages = error")?;
            while !ended.load(Ordering::Relaxed) {
                let Err(error) = session.simple_query(sql) else {
                    continue;
                };
                let error = error.as_db_error().context("a broken connection")?.clone();
                // Gone, or going.
                if error.code().code() == "40P01" {
                    deadlocks
                        .lock()
                        .map_err(|_| anyhow::anyhow!("a session panicked"))?
                        .push(sql);
                }
                session.simple_query("ROLLBACK")?;
            }
            Ok(())
        };
        let looks: Vec<_> = [
            "SELECT * FROM recovery_readiness",
            "SELECT * FROM wal_archive_gaps",
            "BEGIN; SELECT count(*) FROM backup_history; SELECT record_backup_start(); COMMIT",
            "SELECT record_backup_start()",
        ]
        .into_iter()
        .map(|sql| scope.spawn(move || look(sql)))
        .collect();
        let turns = || -> Result<()> {
            for _ in 0..TURNS {
                cluster.text("CREATE EXTENSION pg_backstop")?;
                // All of them are at it.
                let looked = "SELECT count(*) > 3 FROM pg_stat_activity WHERE backend_type = 'client backend'";
                cluster.wait_for(looked, "t")?;
                cluster.wait_for("SELECT count(*) >= 20 FROM backup_history", "t")?;
                wait_until("DROP EXTENSION", SOON, || {
                    cluster.text("DROP EXTENSION pg_backstop").map(|_| Look::Done(()))
                })?;
            }
            Ok(())
        };
        let done = turns();
        ended.store(true, Ordering::Relaxed);
        for look in looks {
            look.join().map_err(|_| anyhow::anyhow!("a session panicked"))??;
        }
        done
    })?;
    let log = cluster.log()?;
    let deadlock = log
        .find("deadlock detected")
        .map(|at| log.split_at(at).1.chars().take(2000).collect::<String>());
    assert_eq!(deadlock, None);
    assert!(deadlocks.lock().is_ok_and(|deadlocks| deadlocks.is_empty()));
    Ok(())
}

#[test]
fn settings_of_the_database_do_not_reach_the_worker() -> Result<()> {
    let mut cluster = Cluster::start(settings().set("pg_backstop.database", "shop"))?;
    cluster.text("CREATE ROLE mallory LOGIN")?;
    cluster.text("CREATE DATABASE shop OWNER mallory")?;
    let mut session = cluster.connect_as("postgres", "shop")?;
    text_in(&mut session, INSTALL)?;
    text_in(
        &mut session,
        "CREATE ROLE victim SUPERUSER; SELECT backstop.record_backup_start()",
    )?;
    let mut mallory = cluster.connect_as("mallory", "shop")?;
    for setting in [
        "session_authorization = 'victim'",
        "role = 'victim'",
        "exit_on_error = on",
        "default_transaction_read_only = on",
        "TimeZone = 'Asia/Kolkata'",
        "DateStyle = 'German'",
        "IntervalStyle = 'sql_standard'",
        "standard_conforming_strings = off",
        "transform_null_equals = on",
        "enable_indexscan = off",
        "work_mem = '64kB'",
    ] {
        text_in(&mut mallory, &format!("ALTER DATABASE shop SET {setting}"))?;
    }
    drop(session);
    drop(mallory);
    // The backup that was under way is one that nobody will complete.
    cluster.restart(tests::Shutdown::Fast)?;
    let mut session = cluster.connect_as("postgres", "shop")?;
    text_in(
        &mut session,
        "SET SESSION AUTHORIZATION postgres; SET default_transaction_read_only = off",
    )?;
    wait_until("the abandoned backup to be marked failed", SOON, || {
        let sql = "SELECT actor, operation FROM backstop.ledger_events ORDER BY id DESC LIMIT 1";
        let seen = text_in(&mut session, sql)?;
        Ok(match seen.as_str() {
            "postgres|UPDATE" => Look::Done(()),
            _ => Look::NotYet(seen),
        })
    })?;
    let status = text_in(&mut session, "SELECT state, last_error FROM backstop.v_worker_status")?;
    assert!(!status.starts_with("failing"), "{status}");
    assert_eq!(
        text_in(&mut session, "SELECT status FROM backstop.verify_ledger()")?,
        "intact"
    );
    Ok(())
}
