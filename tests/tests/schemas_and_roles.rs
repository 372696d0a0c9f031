//! The extension works in any schema, whatever the caller's search_path, and gives nobody more than the contract says.

use anyhow::Result;
use tests::cluster::{refusal_in, text_in};
use tests::{Cluster, Scene, Settings};

/// Every view and table of the extension, quoted, one a line.
const RELATIONS: &str = "SELECT c.oid::regclass FROM pg_depend d JOIN pg_class c ON c.oid = d.objid
    WHERE d.classid = 'pg_class'::regclass AND d.refclassid = 'pg_extension'::regclass AND d.deptype = 'e'
      AND d.refobjid = (SELECT oid FROM pg_extension WHERE extname = 'pg_backstop') AND c.relkind IN ('r', 'v') ORDER BY 1";

#[test]
fn in_a_schema_of_its_own_everything_works_with_an_empty_search_path() -> Result<()> {
    let mut scene = Scene::stopped()?;
    scene.cluster.start_server()?;
    let cluster = &scene.cluster;
    cluster.text("CREATE SCHEMA backstop; CREATE EXTENSION pg_backstop SCHEMA backstop")?;
    let relations = cluster.text(RELATIONS)?;
    assert!(relations.lines().count() > 8, "{relations}");
    assert!(
        relations.lines().all(|relation| relation.starts_with("backstop.")),
        "{relations}"
    );

    // Operators and functions of the same names, in the caller's way.
    cluster.text("CREATE SCHEMA trap")?;
    cluster.text(
        "CREATE FUNCTION trap.refuse(a pg_lsn, b pg_lsn) RETURNS boolean LANGUAGE plpgsql AS
             $$ BEGIN RAISE EXCEPTION 'the operator of the caller was used'; END $$;
         CREATE OPERATOR trap.< (LEFTARG = pg_lsn, RIGHTARG = pg_lsn, FUNCTION = trap.refuse);
         CREATE OPERATOR trap.> (LEFTARG = pg_lsn, RIGHTARG = pg_lsn, FUNCTION = trap.refuse);
         CREATE OPERATOR trap.= (LEFTARG = pg_lsn, RIGHTARG = pg_lsn, FUNCTION = trap.refuse);
         CREATE FUNCTION trap.count(bigint) RETURNS bigint LANGUAGE plpgsql AS
             $$ BEGIN RAISE EXCEPTION 'the function of the caller was used'; END $$",
    )?;
    for search_path in ["''", "trap, pg_catalog"] {
        let mut session = cluster.connect()?;
        text_in(&mut session, &format!("SET search_path = {search_path}"))?;
        let id = text_in(&mut session, "SELECT backup_id FROM backstop.record_backup_start()")?;
        text_in(
            &mut session,
            &format!("SELECT backstop.record_backup_complete({id}, 1)"),
        )?;
        let recovery = text_in(
            &mut session,
            "SELECT recovery_id FROM backstop.record_recovery_start('latest')",
        )?;
        text_in(
            &mut session,
            &format!("SELECT backstop.record_recovery_complete({recovery})"),
        )?;
        text_in(
            &mut session,
            &format!("INSERT INTO backstop.backup_policies (policy_name, schedule_cron) VALUES ('p{id}', '0 1 * * *')"),
        )?;
        assert_eq!(
            text_in(&mut session, "SELECT status FROM backstop.verify_ledger()")?,
            "intact"
        );
        assert_ne!(
            text_in(&mut session, "SELECT count(*) FROM backstop.verify_wal_archive()")?,
            "0"
        );
        for relation in relations.lines() {
            text_in(&mut session, &format!("SELECT * FROM {relation}"))?;
        }
    }
    let verified = "SELECT count(*) FROM backstop.wal_archive WHERE status = 'verified' AND start_lsn IS NOT NULL
                    AND segment_name NOT LIKE '%.%'";
    cluster.wait_for(&format!("SELECT ({verified}) >= {}", scene.segments.len()), "t")?;
    cluster.wait_for("SELECT status FROM backstop.recovery_readiness", "ready")
}

#[test]
fn public_gets_nothing_and_monitors_read() -> Result<()> {
    let cluster = Cluster::start(Settings::new())?;
    cluster.text(
        "CREATE EXTENSION pg_backstop; SELECT record_backup_start();
         CREATE ROLE nobody LOGIN; CREATE ROLE monitor LOGIN IN ROLE pg_monitor; CREATE ROLE operator LOGIN",
    )?;
    let relations = cluster.text(RELATIONS)?;
    let mut nobody = cluster.connect_as("nobody", "postgres")?;
    let mut monitor = cluster.connect_as("monitor", "postgres")?;
    for relation in relations.lines() {
        let error = refusal_in(&mut nobody, &format!("SELECT * FROM {relation}"))?;
        assert_eq!(error.code().code(), "42501", "{relation}: {error}");
        text_in(&mut monitor, &format!("SELECT * FROM {relation}"))?;
        let error = refusal_in(&mut monitor, &format!("DELETE FROM {relation}"))?;
        assert!(["42501", "55000"].contains(&error.code().code()), "{relation}: {error}");
    }
    let functions = "SELECT p.oid::regprocedure FROM pg_depend d JOIN pg_proc p ON p.oid = d.objid
        WHERE d.classid = 'pg_proc'::regclass AND d.refclassid = 'pg_extension'::regclass AND d.deptype = 'e'
          AND d.refobjid = (SELECT oid FROM pg_extension WHERE extname = 'pg_backstop')";
    let open = cluster.text(&format!(
        "SELECT * FROM ({functions}) f(name) WHERE has_function_privilege('nobody', f.name::oid, 'EXECUTE')"
    ))?;
    assert_eq!(open, "", "functions that anybody may call");
    let writers = [
        "record_backup_start()",
        "record_backup_complete(1)",
        "incremental_backup('0/1', '0/2', '/tmp')",
        "record_recovery_start('latest')",
        "record_recovery_complete(1)",
        "verify_wal_archive()",
        "prepare_recovery('/base')",
        "acknowledge_wal_gap('0', '1', 'why')",
        "start_worker()",
        "stop_worker()",
    ];
    for writer in writers {
        let error = refusal_in(&mut monitor, &format!("SELECT {writer}"))?;
        assert_eq!(error.code().code(), "42501", "{writer}: {error}");
    }
    assert_eq!(text_in(&mut monitor, "SELECT status FROM verify_ledger()")?, "intact");

    // The owner grants a call to whom it trusts, and the call needs nothing else.
    cluster.text(
        "GRANT EXECUTE ON FUNCTION record_backup_start(text, text, text, text),
                                   record_backup_complete(bigint, bigint, numeric, text, text) TO operator",
    )?;
    Ok(())
}

/// Who writes the ledger says which programs and places are read: that is for superusers.
#[test]
fn settings_that_name_places_are_for_superusers() -> Result<()> {
    let cluster = Cluster::start(Settings::new())?;
    cluster.text("CREATE ROLE nobody LOGIN")?;
    let mut nobody = cluster.connect_as("nobody", "postgres")?;
    for setting in ["pg_backstop.archive_source", "pg_backstop.database"] {
        let error = refusal_in(&mut nobody, &format!("SET {setting} = 'dir:/etc'"))?;
        assert!(["42501", "55P02"].contains(&error.code().code()), "{setting}: {error}");
    }
    for (setting, bad) in [
        ("check_interval", "-1"),
        ("archive_grace", "soon"),
        ("target_rpo", "never"),
        ("archive_source", "nonsense:/x"),
        ("archive_source", "dir:relative"),
    ] {
        let error = cluster.refusal(&format!("ALTER SYSTEM SET pg_backstop.{setting} = '{bad}'"))?;
        assert_eq!(error.code().code(), "22023", "{setting}: {error}");
    }
    // What is only known to be wrong when it is used is told by who uses it.
    cluster.text("CREATE EXTENSION pg_backstop")?;
    cluster.text("ALTER SYSTEM SET pg_backstop.archive_source = 'dir:/nowhere at all'")?;
    cluster.reload()?;
    cluster.wait_for("SELECT last_error LIKE '%/nowhere at all%' FROM v_worker_status", "t")
}
