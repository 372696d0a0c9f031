//! The commands that recovery_plan() prints harm no living server, and bring back nothing but the server's own history.

use std::fs;
use std::path::Path;

use anyhow::{Result, ensure};
use tests::cluster::text_in;
use tests::past::{ROWS, archived, insert, settings};
use tests::process::{self, OnOurEnd};
use tests::restored::{carried_out, commands, run};
use tests::{Cluster, Past, Restored, Shutdown};

fn program(name: &str, arguments: &[&Path]) -> Result<()> {
    process::run(process::program(name, OnOurEnd::Kill)?.args(arguments)).map(drop)
}

/// A base backup as `cp` makes it: links stay links.
fn copied(cluster: &Cluster, path: &Path) -> Result<()> {
    let mut session = cluster.connect()?;
    text_in(&mut session, "SELECT pg_backup_start('cp', true)")?;
    program("cp", &[Path::new("-a"), &cluster.data(), path])?;
    let label = text_in(&mut session, "SELECT labelfile FROM pg_backup_stop()")?;
    fs::write(path.join("backup_label"), label)?;
    fs::remove_file(path.join("postmaster.pid"))?;
    Ok(())
}

#[test]
fn a_backup_whose_link_leads_into_the_living_servers_pg_wal_is_restored_without_it() -> Result<()> {
    let mut cluster = Cluster::start(settings())?;
    cluster.text("CREATE EXTENSION pg_backstop; CREATE TABLE events (n integer)")?;
    cluster.stop(Shutdown::Fast)?;
    let (link, wal) = (cluster.data().join("pg_wal"), cluster.place("its wal"));
    program("mv", &[&link, &wal])?;
    std::os::unix::fs::symlink(&wal, &link)?;
    cluster.start_server()?;
    let past = Past::go_on(cluster, copied)?;
    let cluster = &past.cluster;
    let copied = cluster.place("the backup").join("pg_wal");
    ensure!(copied.is_symlink(), "the backup has no link");
    let restored = carried_out(cluster, "apart", &format!("target_xid => {}", past.moment(4)?.xid))?;
    assert_eq!(restored.text(ROWS)?, "1,2,3,4");
    ensure!(!restored.data().join("pg_wal").is_symlink(), "the link was kept");
    restored.text("INSERT INTO events VALUES (99); SELECT pg_switch_wal(); CHECKPOINT")?;
    // Nothing of the other timeline is where the living server writes, and that goes on.
    for entry in fs::read_dir(&wal)? {
        let name = entry?.file_name();
        ensure!(!name.to_string_lossy().starts_with("00000002"), "{name:?} in {wal:?}");
    }
    insert(cluster, 7)?;
    archived(cluster)?;
    assert_eq!(cluster.text(ROWS)?, "1,2,3,4,5,6,7");
    Ok(())
}

#[test]
fn what_the_server_has_left_behind_is_not_brought_back_before_its_new_timeline_is_archived() -> Result<()> {
    let mut past = Past::with(settings(), |cluster, path| cluster.base_backup(path))?;
    // Rows 5 and 6 are given up, and still lie in the archive.
    let script = commands(&past.cluster, &format!("target_lsn => '{}'", past.moment(4)?.lsn))?;
    past.cluster.stop(Shutdown::Fast)?;
    let restored = Restored::of(&past.cluster, past.cluster.data(), past.cluster.socket().to_owned());
    run(&past.cluster, "back to row four", &script)?;
    assert_eq!(restored.text(ROWS)?, "1,2,3,4");
    let cluster = &past.cluster;
    cluster.wait_for("SELECT count(*) FROM recovery_windows", "1")?;
    assert_eq!(cluster.text("SELECT timeline_id FROM recovery_windows")?, "1");
    let beside = carried_out(cluster, "beside", "")?;
    assert_eq!(beside.text(ROWS)?, "1");
    insert(cluster, 7)?;
    let script = commands(cluster, "")?;
    run(cluster, "in place", &script)?;
    assert_eq!(restored.text(ROWS)?, "1,2,3,4,7");
    Ok(())
}

#[test]
fn a_tablespace_made_after_the_backup_is_recovered_in_place_and_refused_beside() -> Result<()> {
    let past = Past::with(settings(), |cluster, path| cluster.base_backup(path))?;
    let place = past.cluster.place("its tablespace");
    program("mkdir", &[&place])?;
    past.cluster
        .text(&format!("CREATE TABLESPACE late LOCATION '{}'", place.display()))?;
    past.cluster
        .text("CREATE TABLE in_it TABLESPACE late AS SELECT 42 AS n")?;
    archived(&past.cluster)?;
    let beside = past.cluster.place("beside");
    let error = past.cluster.refusal(&format!(
        "SELECT * FROM recovery_plan(data_directory => '{}')",
        beside.display()
    ))?;
    ensure!(error.message().contains("is without tablespace"), "{error}");
    ensure!(
        error
            .detail()
            .unwrap_or_default()
            .contains(&place.display().to_string()),
        "{error:?}"
    );
    ensure!(error.hint().unwrap_or_default().contains("new backup"), "{error:?}");
    // Who may not have the backup looked at gets commands, and they stop in time.
    past.cluster.text("CREATE ROLE monitor LOGIN IN ROLE pg_monitor")?;
    let mut monitor = past.cluster.connect_as("monitor", "postgres")?;
    let script = text_in(
        &mut monitor,
        &format!(
            "SELECT command FROM recovery_plan(data_directory => '{}')",
            beside.display()
        ),
    )?;
    drop(monitor);
    let copy = Restored::of(&past.cluster, beside.clone(), beside.clone());
    let stopped = run(&past.cluster, "not looked at", &script)
        .err()
        .map(|error| format!("{error:?}"));
    ensure!(
        stopped
            .as_ref()
            .is_some_and(|why| why.contains("must lead to a copy of its own, without a tablespace_map\n")),
        "{stopped:?}"
    );
    ensure!(!beside.join("postmaster.pid").exists(), "it was started");
    drop(copy);
    let script = commands(&past.cluster, "")?;
    let restored = Restored::of(&past.cluster, past.cluster.data(), past.cluster.socket().to_owned());
    run(&past.cluster, "in place", &script)?;
    assert_eq!(restored.text("SELECT n FROM in_it")?, "42");
    Ok(())
}

#[test]
fn a_tablespace_or_a_backup_that_would_be_moved_away_is_refused_before_the_first_step() -> Result<()> {
    let past = Past::with(settings(), |cluster, path| cluster.base_backup(path))?;
    let cluster = &past.cluster;
    let inside = cluster.data().join("inside");
    program("mkdir", &[&inside])?;
    cluster.text(&format!("CREATE TABLESPACE inside LOCATION '{}'", inside.display()))?;
    let error = cluster.refusal("SELECT * FROM recovery_plan()")?;
    ensure!(error.message().contains("lie in one another"), "{error}");
    ensure!(
        error.detail().unwrap_or_default().contains("are moved away"),
        "{error:?}"
    );
    Ok(())
}

#[test]
fn a_late_abort_in_the_segment_of_a_moment_is_no_clock_set_back() -> Result<()> {
    let past = Past::with(settings(), |cluster, path| cluster.base_backup(path))?;
    let cluster = &past.cluster;
    let moment = past.moment(6)?;
    insert(cluster, 7)?;
    archived(cluster)?;
    // As it would be if a transaction had been rolled back an hour later at the segment's end.
    let changed = cluster.text(&format!(
        "UPDATE wal_archive SET latest_xact_at = latest_xact_at + interval '1 hour'
          WHERE segment_name = pg_walfile_name('{}') RETURNING segment_name",
        moment.lsn
    ))?;
    ensure!(!changed.is_empty(), "no segment holds row 6");
    let restored = carried_out(cluster, "by time", &format!("target_time => '{}'", moment.time))?;
    assert_eq!(restored.text(ROWS)?, "1,2,3,4,5,6");
    Ok(())
}
