//! A dump and its restore keep the ledger: rows, events, what the next row is numbered, and that the chain goes on.

use anyhow::Result;
use tests::{Cluster, Settings, worker};

/// A ledger with something of everything in it: text that wants quoting, JSON null, intervals, rows changed and deleted.
const HISTORY: &[&str] = &[
    r#"CREATE SCHEMA "Back stop""#,
    r#"CREATE EXTENSION pg_backstop SCHEMA "Back stop""#,
    r#"SET search_path = "Back stop";
       INSERT INTO backup_policies (policy_name, schedule_cron, options, target_rpo)
           VALUES ('it''s "nightly"', '30 2 * * *', '{"a": null, "b": 1.50}', '1 mon 2 days 03:04:05.6'), ('gone', NULL, '{}', NULL)"#,
    r#"SET search_path = "Back stop";
       SELECT record_backup_start('full', '/a b/\c', 'it''s "nightly"', E'tab\tand ünïcode')
       FROM generate_series(1, 5)"#,
    r#"SET search_path = "Back stop";
       SELECT record_backup_complete(id, 100, 1.50) FROM backup_history ORDER BY id DESC LIMIT 4"#,
    r#"SET search_path = "Back stop"; UPDATE backup_policies SET retention_days = 9 WHERE id = 1"#,
    r#"SET search_path = "Back stop"; DELETE FROM backup_policies WHERE id = 2"#,
    r#"SET search_path = "Back stop";
       SELECT record_recovery_complete(recovery_id, recovered_to_time => '2026-01-01 09:00+00')
       FROM record_recovery_start('point_in_time', '2026-01-01 10:00+00', is_drill => true, backup_id => 1)"#,
    r#"SET search_path = "Back stop";
       INSERT INTO wal_archive (segment_name, timeline_id, start_lsn, end_lsn, status, handover)
       VALUES ('000000010000000000000001', 1, '0/1000000', '0/2000000', 'verified', '\x0001')"#,
    r#"SET search_path = "Back stop"; INSERT INTO restore_points VALUES ('a', '0/1', '2026-01-01', 1, 'x')"#,
    r#"SET search_path = "Back stop";
       INSERT INTO recovery_hourly VALUES ('2026-01-01', '2026-01-01 00:30', 9, 1800, 1700, 100, 1800, 0, 0, 1800, 1.5, 99, NULL, NULL, 1)"#,
    r#"SET search_path = "Back stop";
       INSERT INTO server_lives (system_identifier, timeline_id, began, started_at, writes_at, host_name, data_directory,
                                 directory_identity)
       VALUES (1, 1, 'start', '2026-01-01', '2026-01-01', 'a', '/b', '1:2')"#,
];

const CONTENTS: &str = r#"SELECT md5(string_agg(line, ' ' ORDER BY line)) FROM (
    SELECT t::text AS line FROM "Back stop".backup_history t UNION ALL SELECT t::text FROM "Back stop".ledger_events t
    UNION ALL SELECT t::text FROM "Back stop".backup_policies t UNION ALL SELECT t::text FROM "Back stop".recovery_history t
    UNION ALL SELECT t::text FROM "Back stop".recovery_hourly t
    UNION ALL SELECT t::text FROM "Back stop".wal_archive t UNION ALL SELECT t::text FROM "Back stop".restore_points t
    UNION ALL SELECT t::text FROM "Back stop".server_lives t) l"#;
const VERDICT: &str = r#"SELECT * FROM "Back stop".verify_ledger()"#;

#[test]
fn a_dump_and_its_restore_keep_the_ledger_and_its_numbers() -> Result<()> {
    let cluster = Cluster::start(Settings::new())?;
    cluster.text("CREATE DATABASE source")?;
    let in_database = |database: &str, sql: &str| {
        let mut session = cluster.connect_as("postgres", database)?;
        tests::cluster::text_in(&mut session, sql)
    };
    for step in HISTORY {
        in_database("source", step)?;
    }
    let (contents, verdict) = (in_database("source", CONTENTS)?, in_database("source", VERDICT)?);
    assert_eq!(verdict, "15||intact");

    let place = |name: &str| cluster.place(name).display().to_string();
    let (plain, inserts, custom) = (place("plain.sql"), place("inserts.sql"), place("custom.dump"));
    cluster.client("pg_dump", &["-f", &plain, "source"])?;
    cluster.client("pg_dump", &["--inserts", "-f", &inserts, "source"])?;
    cluster.client("pg_dump", &["-Fc", "-f", &custom, "source"])?;
    let psql = ["-X", "-q", "-v", "ON_ERROR_STOP=1", "-f"];
    for (name, program, arguments) in [
        ("plain", "psql", [&psql[..], &[plain.as_str()]].concat()),
        ("inserts", "psql", [&psql[..], &[inserts.as_str()]].concat()),
        ("custom", "pg_restore", vec!["--exit-on-error", "-d", "custom", &custom]),
        // Several jobs load the tables of an extension in any order, with their constraints and triggers in place.
        (
            "jobs",
            "pg_restore",
            vec!["--exit-on-error", "--jobs=4", "-d", "jobs", &custom],
        ),
    ] {
        cluster.text(&format!("CREATE DATABASE {name}"))?;
        let arguments = match program {
            "psql" => [&["-d", name][..], &arguments].concat(),
            _ => arguments,
        };
        cluster.client(program, &arguments)?;
        assert_eq!(in_database(name, VERDICT)?, verdict, "{name}");
        assert_eq!(in_database(name, CONTENTS)?, contents, "{name}");
        let next = r#"SELECT (SELECT backup_id FROM "Back stop".record_backup_start()),
                             (SELECT recovery_id FROM "Back stop".record_recovery_start('latest'))"#;
        assert_eq!(in_database(name, next)?, "6|2", "{name}");
        let policy = r#"INSERT INTO "Back stop".backup_policies (policy_name) VALUES ('next') RETURNING id"#;
        assert_eq!(in_database(name, policy)?, "3", "{name}");
        assert_eq!(in_database(name, VERDICT)?, "18||intact", "{name}");
    }
    Ok(())
}

/// Whoever forges the rows in a dump does not get them past verify_ledger().
#[test]
fn a_restored_row_that_is_not_what_its_event_says_is_named() -> Result<()> {
    let cluster = Cluster::start(Settings::new())?;
    cluster.text("CREATE EXTENSION pg_backstop")?;
    cluster.text("SELECT record_backup_complete(backup_id, 1000) FROM record_backup_start()")?;
    let dump = cluster.place("forged.sql").display().to_string();
    cluster.text("SET session_replication_role = replica; UPDATE backup_history SET backup_size_bytes = 1")?;
    cluster.client("pg_dump", &["-f", &dump, "postgres"])?;
    cluster.text("CREATE DATABASE restored")?;
    cluster.client(
        "psql",
        &["-X", "-q", "-v", "ON_ERROR_STOP=1", "-d", "restored", "-f", &dump],
    )?;
    let mut session = cluster.connect_as("postgres", "restored")?;
    let status = tests::cluster::text_in(&mut session, "SELECT first_broken, status FROM verify_ledger()")?;
    assert!(
        status.contains("backup_history row 1") && !status.starts_with('|'),
        "{status}"
    );
    Ok(())
}

/// In the worker's own database it must not write before what is restored does.
#[test]
fn a_ledger_can_be_restored_into_the_database_that_the_worker_serves() -> Result<()> {
    let settings = || Settings::new().set("pg_backstop.check_interval", "10ms");
    let source = Cluster::start(settings())?;
    source.text("CREATE EXTENSION pg_backstop")?;
    source.text("SELECT record_backup_complete(backup_id, 1000) FROM record_backup_start()")?;
    source.wait_for("SELECT count(*) FROM server_lives", "1")?;
    let target = Cluster::start(settings().own_identity())?;
    let place = |name: &str| target.place(name).display().to_string();
    let (plain, custom) = (place("plain.sql"), place("custom.dump"));
    source.client("pg_dump", &["-f", &plain])?;
    source.client("pg_dump", &["-Fc", "-f", &custom])?;
    let events = source.text("SELECT count(*) FROM ledger_events")?;
    for (program, arguments) in [
        (
            "psql",
            [
                "-X",
                "-q",
                "-v",
                "ON_ERROR_STOP=1",
                "--single-transaction",
                "-f",
                &plain,
            ]
            .as_slice(),
        ),
        (
            "pg_restore",
            &["--exit-on-error", "--single-transaction", "-d", "postgres", &custom],
        ),
        (
            "pg_restore",
            &["--exit-on-error", "--jobs=4", "-d", "postgres", &custom],
        ),
    ] {
        let is_one_transaction = arguments.contains(&"--single-transaction");
        if !is_one_transaction {
            target.text("BEGIN; CREATE EXTENSION pg_backstop; SELECT stop_worker(); ROLLBACK")?;
        }
        target.client(program, arguments)?;
        if !is_one_transaction {
            target.text("SELECT start_worker()")?;
        }
        // The worker goes on where the dump ends.
        target.wait_for(
            "SELECT id FROM server_lives WHERE system_identifier = (SELECT system_identifier FROM pg_control_system())",
            "2",
        )?;
        worker::ticks(&target, 2)?;
        assert_eq!(
            target.text("SELECT e.events >= 2, e.status, w.last_error FROM verify_ledger() e, v_worker_status w")?,
            "t|intact|"
        );
        assert_eq!(
            target.text(&format!("SELECT count(*) FROM ledger_events WHERE id <= {events}"))?,
            events
        );
        target.text("DROP EXTENSION pg_backstop")?;
    }
    Ok(())
}
