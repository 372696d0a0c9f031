//! What is said to callers, in views and in the log tells nobody's password, moves no cursor, and is as long as somebody reads.

use std::time::Instant;

use anyhow::{Result, ensure};
use tests::{Cluster, Past, Settings, Shutdown, past, worker};

const SECRET: &str = "hunter2hunter2";

fn started(settings: Settings) -> Result<Cluster> {
    let cluster = Cluster::start(settings.set("pg_backstop.check_interval", "1s"))?;
    cluster.text("CREATE EXTENSION pg_backstop")?;
    Ok(cluster)
}

/// Nothing that shows what the worker met has it.
fn tells_no_secret(cluster: &Cluster, hint_of_it: &str) -> Result<()> {
    let mut said = vec![cluster.log()?];
    for view in [
        "v_worker_status",
        "recovery_readiness",
        "v_archiver_status",
        "wal_archive",
    ] {
        said.push(cluster.text(&format!("SELECT coalesce(string_agg(v::text, '|'), '') FROM {view} v"))?);
    }
    if let Err(error) = cluster.text("SELECT * FROM verify_wal_archive()") {
        said.push(format!("{error:?}"));
    }
    ensure!(
        said.iter().any(|said| said.contains(hint_of_it)),
        "nobody says {hint_of_it:?}: {said:?}"
    );
    for said in said {
        ensure!(!said.contains(SECRET), "{said}");
    }
    Ok(())
}

#[test]
fn a_password_in_archive_command_is_told_to_nobody() -> Result<()> {
    let command =
        format!("PGPASSWORD={SECRET} true %p --password {SECRET} 'https://me:{SECRET}@h/x?sig={SECRET}' {SECRET}");
    let cluster = started(Settings::new().set("archive_command", &command))?;
    let said = "archive_command (\"true\" …) cannot be followed";
    cluster.wait_for(&format!("SELECT last_error LIKE '%{said}%' FROM v_worker_status"), "t")?;
    tells_no_secret(&cluster, said)
}

#[test]
fn a_password_that_restore_command_prints_is_told_to_nobody() -> Result<()> {
    let command = format!(
        "echo 'cannot read https://me:{SECRET}@h/x?X-Amz-Signature={SECRET}&X-Amz-Credential={SECRET} with -p {SECRET}' >&2; exit 200"
    );
    let mut past = Past::with(
        Settings::new().set("max_prepared_transactions", "5"),
        |cluster, path| cluster.base_backup(path),
    )?;
    past.cluster.set("restore_command", &command)?;
    past.cluster.restart(Shutdown::Fast)?;
    let cluster = &past.cluster;
    past::insert(cluster, 7)?;
    cluster.archive_now()?;
    cluster.wait_for(
        "SELECT last_error LIKE '%X-Amz-Signature=***%' FROM v_worker_status",
        "t",
    )?;
    tells_no_secret(
        cluster,
        "https://me:***@h/x?X-Amz-Signature=***&X-Amz-Credential=*** with -p ***",
    )
}

#[test]
fn an_error_of_the_server_carries_no_backtrace() -> Result<()> {
    let cluster = started(Settings::new())?;
    cluster.text("ALTER TABLE backup_history ADD CHECK (label <> 'refused') NOT VALID")?;
    let error = cluster.refusal("SELECT record_backup_start(label => 'refused')")?;
    let said = format!("{} {}", error.message(), error.detail().unwrap_or_default());
    ensure!(said.contains("violates check constraint"), "{said}");
    ensure!(
        !said.contains('\n') && !said.contains("backtrace") && !said.contains(".rs"),
        "{said}"
    );
    // In the worker it goes through two functions of ours.
    cluster.text(
        "CREATE FUNCTION public.refuse() RETURNS trigger LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
         BEGIN PERFORM record_backup_start(label => 'refused'); RETURN NULL; END $$;
         CREATE TRIGGER refuse AFTER INSERT OR UPDATE ON wal_archive EXECUTE FUNCTION public.refuse();
         CREATE TABLE t AS SELECT 1; SELECT pg_switch_wal()",
    )?;
    cluster.wait_for(
        "SELECT last_error LIKE '%violates check constraint%' FROM v_worker_status",
        "t",
    )?;
    let error = cluster.text("SELECT last_error FROM v_worker_status")?;
    ensure!(!error.contains('\n') && !error.contains(".rs"), "{error}");
    ensure!(!cluster.log()?.contains("std::backtrace"), "the log has one");
    Ok(())
}

#[test]
fn what_somebody_passes_is_quoted_without_what_moves_a_cursor_and_in_brief() -> Result<()> {
    let cluster = started(Settings::new())?;
    for call in [
        r"record_backup_start(policy_name => E'x\nLOG:  forged\x1b[2J')",
        r"record_backup_start(E'x\nLOG:  forged\x1b[2J')",
        r"recovery_plan(data_directory => E'x\nLOG:  forged\x1b[2J')",
        r"recovery_plan(target_name => E'x\nLOG:  forged\x1b[2J')",
        r"prepare_recovery(E'x\nLOG:  forged\x1b[2J')",
        r"acknowledge_wal_gap(E'x\nLOG:  forged\x1b[2J', 'x', 'x')",
    ] {
        let error = cluster.refusal(&format!("SELECT * FROM {call}"))?;
        for said in [Some(error.message()), error.detail(), error.hint()]
            .into_iter()
            .flatten()
        {
            ensure!(!said.contains(['\n', '\u{1b}']), "{call}: {said:?}");
        }
    }
    let long = cluster.refusal("SELECT record_backup_start(policy_name => repeat('x', 10000000))")?;
    ensure!(long.message().len() < 1000, "{} bytes", long.message().len());
    Ok(())
}

#[test]
fn texts_that_nobody_would_read_are_refused_before_anything_is_made_of_them() -> Result<()> {
    let cluster = started(Settings::new())?;
    let begun = Instant::now();
    for (call, bytes) in [
        ("SELECT cron_next(repeat('* ', 50000000), now())", 100_000_000),
        (
            "INSERT INTO backup_policies (policy_name, backup_type, schedule_cron) VALUES ('x', 'full', repeat('* ', 50000000))",
            100_000_000,
        ),
        ("SELECT record_backup_start(label => repeat('x', 1025))", 1025),
        ("SELECT record_backup_start(backup_path => repeat('/x', 10000))", 20_000),
        (
            "SELECT record_backup_complete(1, status => 'failed', error => repeat('x', 10001))",
            10_001,
        ),
        (
            "SELECT acknowledge_wal_gap('000000010000000000000001', '000000010000000000000001', repeat('x', 10001))",
            10_001,
        ),
        (
            "SELECT * FROM recovery_plan(target_name => repeat('x', 100000000))",
            100_000_000,
        ),
    ] {
        let error = cluster.refusal(call)?;
        assert_eq!(error.code().code(), "22023", "{call}");
        ensure!(error.message().contains("too long"), "{error}");
        let said = format!("{} {:?}", error.message(), error.detail());
        ensure!(
            said.contains(&format!("{bytes} bytes")) && said.len() < 1000,
            "{}",
            said.len()
        );
    }
    ensure!(begun.elapsed().as_secs() < 60, "{:?}", begun.elapsed());
    assert_eq!(cluster.text("SELECT count(*) FROM backup_history")?, "0");
    assert_eq!(cluster.text("SELECT cron_next('nonsense', now()) IS NULL")?, "t");
    worker::ticks(&cluster, 1)
}
