//! Whoever may name a restore point, label a backup or choose a directory decides nothing about what the printed commands do.

use std::fs;

use anyhow::{Context, Result, ensure};
use tests::past::{ROWS, archived, basebackup, insert, settings};
use tests::restored::{commands, run};
use tests::{Cluster, Past, Restored};

/// Names of restore points, as SQL writes them.
const NAMES: [&str; 6] = [
    r"E'it''s\nrecovery_target_action = ''shutdown'''",
    r"E'$(touch owned)`touch owned`\\'",
    r"E'tab\there, escape\x1b[2J'",
    r"E'END_OF_SETTINGS\nEND_OF_SQL\ntouch owned\n'",
    r"'!! %p %f 100% {a,b}*?'",
    r"U&'\202Etime\2028'",
];

fn plan(cluster: &Cluster, columns: &str, arguments: &str) -> Result<String> {
    cluster.text(&format!(
        "SELECT string_agg({columns}, E'\\n' ORDER BY step) FROM recovery_plan({arguments})"
    ))
}

/// Nobody has run what a name holds.
fn nothing_was_run(cluster: &Cluster) -> Result<()> {
    let here = std::env::current_dir()?;
    let home = tests::scratch::root()?.to_owned();
    for place in [here, home, cluster.data(), cluster.place("."), std::env::temp_dir()] {
        let made = place.join("owned");
        ensure!(!made.exists(), "{} was made", made.display());
    }
    Ok(())
}

#[test]
fn a_restore_point_of_any_name_is_reached_and_recorded_and_seen_as_it_is() -> Result<()> {
    let past = Past::with(settings(), |cluster, path| cluster.base_backup(path))?;
    let cluster = &past.cluster;
    for (number, name) in NAMES.iter().enumerate() {
        insert(cluster, 10 + number)?;
        cluster.text(&format!("SELECT pg_create_restore_point({name})"))?;
    }
    insert(cluster, 99)?;
    archived(cluster)?;
    for (number, name) in NAMES.iter().enumerate() {
        let data = cluster.place(&format!("copy {number}"));
        let arguments = format!("target_name => {name}, data_directory => '{}'", data.display());
        let seen = plan(cluster, "action || coalesce(command, '')", &arguments)?;
        let acts = |c: char| c != '\n' && (c.is_control() || matches!(c, '\u{202e}' | '\u{2028}'));
        ensure!(!seen.contains(acts), "{seen:?}");
        let script = commands(cluster, &arguments)?;
        let restored = Restored::of(cluster, data.clone(), data);
        run(cluster, &format!("copy {number}"), &script).with_context(|| (*name).to_owned())?;
        let last = restored.text("SELECT max(n) FROM events")?;
        assert_eq!(last, (10 + number).to_string(), "{name}");
        let recorded =
            format!("SELECT count(*) FROM recovery_history WHERE target_name = {name} AND status = 'completed'");
        assert_eq!(cluster.text(&recorded)?, "1", "{name}");
    }
    nothing_was_run(cluster)
}

#[test]
fn a_name_with_a_line_break_leaves_settings_that_the_server_can_read() -> Result<()> {
    let past = Past::with(settings(), |cluster, path| cluster.base_backup(path))?;
    let (cluster, [name, ..]) = (&past.cluster, NAMES);
    cluster.text(&format!("SELECT pg_create_restore_point({name})"))?;
    insert(cluster, 99)?;
    archived(cluster)?;
    let script = commands(cluster, &format!("target_name => {name}"))?;
    let restored = Restored::of(cluster, cluster.data(), cluster.socket().to_owned());
    run(cluster, "in place", &script)?;
    assert_eq!(restored.text(ROWS)?, "1,2,3,4,5,6");
    restored.text("ALTER SYSTEM SET work_mem = '5MB'")?;
    assert_eq!(
        restored.text("SELECT count(*) FROM pg_file_settings WHERE error LIKE 'syntax%'")?,
        "0"
    );
    assert_eq!(
        restored
            .text("SELECT setting FROM pg_file_settings WHERE name = 'work_mem' AND sourcefile LIKE '%auto.conf'")?,
        "5MB"
    );
    let file = fs::read_to_string(cluster.data().join("postgresql.auto.conf"))?;
    ensure!(!file.contains("recovery_target"), "{file}");
    Ok(())
}

#[test]
fn a_directory_that_pg_ctl_would_hand_to_a_shell_is_refused_before_anything_is_moved() -> Result<()> {
    let past = Past::with(settings(), |cluster, path| cluster.base_backup(path))?;
    let cluster = &past.cluster;
    let mut session = cluster.connect()?;
    for name in [
        "$(touch owned)",
        "`touch owned`",
        "a\"b",
        "$HOME",
        "a\\b",
        "a\nb",
        "a\u{7f}",
    ] {
        let place = cluster.place(name).display().to_string();
        let refused = session.query("SELECT * FROM recovery_plan(data_directory => $1)", &[&place]);
        let error = refused.err().context("a plan")?;
        let error = error.as_db_error().context("no error of the server")?;
        ensure!(error.message().contains("cannot be given to pg_ctl"), "{error}");
        ensure!(!error.message().contains(char::is_control), "{error:?}");
        ensure!(error.detail().unwrap_or_default().contains("second shell"), "{error:?}");
        ensure!(
            error.hint().unwrap_or_default().contains("Pass a data_directory"),
            "{error:?}"
        );
    }
    nothing_was_run(cluster)
}

#[test]
fn a_directory_with_what_one_shell_would_interpret_is_restored_into() -> Result<()> {
    let past = Past::with(settings(), |cluster, path| cluster.base_backup(path))?;
    let cluster = &past.cluster;
    let data = cluster.place("it's (a) [copy]; & | < > * ? {x,y} # ~ ! ^ % = é");
    let mut session = cluster.connect()?;
    let rows = session.query(
        "SELECT command FROM recovery_plan(data_directory => $1) WHERE command IS NOT NULL ORDER BY step",
        &[&data.display().to_string()],
    )?;
    let script: Vec<String> = rows.iter().map(|row| row.get(0)).collect();
    let restored = Restored::of(cluster, data.clone(), data);
    run(cluster, "one shell", &script.join("\n"))?;
    // The commands have waited for the end of recovery, and asked it.
    ensure!(restored.data().join("postmaster.pid").exists(), "it does not run");
    nothing_was_run(cluster)
}

#[test]
fn a_backup_at_a_relative_path_is_not_taken_for_options_nor_moved_away_with_the_data_directory() -> Result<()> {
    let past = Past::with(settings(), |cluster, path| cluster.base_backup(path))?;
    let cluster = &past.cluster;
    cluster.text("UPDATE backup_history SET backup_path = '-rf' WHERE backup_path IS NOT NULL")?;
    let inside = cluster.data().join("-rf").display().to_string();
    let error = cluster.refusal("SELECT * FROM recovery_plan()")?;
    ensure!(
        error.message().contains("lie in one another") && error.message().contains(&inside),
        "{error}"
    );
    let beside = cluster.place("beside").display().to_string();
    let error = cluster.refusal(&format!("SELECT * FROM recovery_plan(data_directory => '{beside}')"));
    let seen = match error {
        Ok(error) => error.to_string(),
        Err(_) => plan(cluster, "command", &format!("data_directory => '{beside}'"))?,
    };
    ensure!(seen.contains(&inside), "{seen}");
    Ok(())
}

#[test]
fn a_label_of_somebody_who_may_only_replicate_does_not_take_the_plan_over() -> Result<()> {
    let past = Past::with(settings(), |cluster, path| cluster.base_backup(path))?;
    let cluster = &past.cluster;
    let recorded = cluster.place("the backup").display().to_string();
    let is_from_record = |what: &str| -> Result<()> {
        let plan = plan(cluster, "command", "")?;
        ensure!(plan.contains(&recorded), "{what}: {plan}");
        ensure!(
            !plan.contains("barman recover") && !plan.contains("pgbackrest"),
            "{what}: {plan}"
        );
        Ok(())
    };
    is_from_record("before")?;
    for (number, label) in [
        "Barman backup main 20261121T153817",
        "Barman backup $(touch owned) 20261121T153817",
        "pgBackRest backup started at 2026-11-21 15:38:17",
    ]
    .iter()
    .enumerate()
    {
        let theirs = cluster.place(&format!("theirs {number}"));
        basebackup(cluster, &["--label", label], &theirs)?;
        archived(cluster)?;
        cluster.wait_for(
            &format!("SELECT count(*) FROM backup_history WHERE label = '{label}' AND origin = 'detected'"),
            "1",
        )?;
        archived(cluster)?;
        is_from_record(label)?;
    }
    // Nor does the label of the very backup whose path is on record.
    cluster
        .text("UPDATE backup_history SET label = 'Barman backup main 20261121T153817' WHERE backup_path IS NOT NULL")?;
    is_from_record("its own label")?;
    nothing_was_run(cluster)
}
