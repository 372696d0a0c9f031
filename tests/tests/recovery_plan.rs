//! The commands that recovery_plan() prints bring back the moment that was asked for, run as they are; what the server could not
//! reach is refused, with what it could.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use tests::cluster::{refusal_in, text_in};
use tests::past::{ROWS, archived, basebackup, insert, recorded, settings};
use tests::process::{self, OnOurEnd};
use tests::restored::{carried_out, commands, run};
use tests::{Cluster, Past, Restored, Server, Shutdown};

/// Names, sizes and times of all files below a path.
fn fingerprint(path: &Path) -> Result<String> {
    let mut find = process::program("find", OnOurEnd::Kill)?;
    let listed = process::run(find.arg(path).args(["-printf", "%p %s %T@ %l\n"]))?;
    let mut lines: Vec<&str> = listed.lines().collect();
    lines.sort_unstable();
    Ok(lines.join("\n"))
}

#[test]
fn each_kind_of_target_is_reached_by_the_printed_commands() -> Result<()> {
    let past = Past::with(settings(), |cluster, path| cluster.base_backup(path))?;
    let cluster = &past.cluster;
    let archive = fingerprint(cluster.archive().path())?;
    let backup = fingerprint(&cluster.place("the backup"))?;
    let last = cluster.text("SELECT to_time FROM recovery_windows WHERE is_current")?;
    let first = cluster.text("SELECT from_lsn FROM recovery_windows WHERE is_current")?;
    let beyond = cluster.refusal("SELECT * FROM recovery_plan(target_lsn => 'FF/0')")?;
    let furthest = beyond
        .hint()
        .and_then(|hint| hint.split('\'').nth(1))
        .context("no LSN in the hint")?;
    let of = |row: usize| past.moment(row);
    for (name, arguments, rows) in [
        ("by time", format!("target_time => '{}'", of(3)?.time), "1,2,3"),
        ("by lsn", format!("target_lsn => '{}'", of(4)?.lsn), "1,2,3,4"),
        ("by name", "target_name => 'after three'".to_owned(), "1,2,3"),
        ("by xid", format!("target_xid => {}", of(5)?.xid), "1,2,3,4,5"),
        (
            "before the xid",
            format!("target_xid => {}, target_inclusive => false", of(5)?.xid),
            "1,2,3,4",
        ),
        (
            "by time while looking",
            format!("target_time => '{}', target_action => 'pause'", of(2)?.time),
            "1,2",
        ),
        ("by the first lsn", format!("target_lsn => '{first}'"), "1"),
        ("by the last lsn", format!("target_lsn => '{furthest}'"), "1,2,3,4,5,6"),
        ("by the last time", format!("target_time => '{last}'"), "1,2,3,4,5,6"),
        ("latest", String::new(), "1,2,3,4,5,6"),
    ] {
        let restored = carried_out(cluster, name, &arguments).context(name)?;
        assert_eq!(restored.text(ROWS)?, rows, "{name}");
        assert_eq!(restored.text("SELECT pg_is_in_recovery()")?, "f", "{name}");
        // It takes writes, and keeps them to itself.
        restored.text("INSERT INTO events VALUES (99); SELECT pg_switch_wal(); CHECKPOINT")?;
        assert_eq!(restored.text("SHOW archive_mode")?, "off", "{name}");
    }
    let behind = cluster.refusal(&format!(
        "SELECT * FROM recovery_plan(target_lsn => pg_lsn '{furthest}' + 1)"
    ))?;
    assert_eq!(behind.hint(), beyond.hint());
    assert_eq!(cluster.text(ROWS)?, "1,2,3,4,5,6");
    // The worker may have archived more of its own; what was there is as it was.
    let now = fingerprint(cluster.archive().path())?;
    let lost: Vec<&str> = archive
        .lines()
        .skip(1)
        .filter(|line| !now.lines().any(|other| other == *line))
        .collect();
    ensure!(lost.is_empty(), "changed in the archive: {lost:?}");
    ensure!(!now.contains("/00000002"), "the copies archived:\n{now}");
    assert_eq!(fingerprint(&cluster.place("the backup"))?, backup);
    // Each was recorded as the rehearsal that it was.
    let recorded = "SELECT string_agg(recovery_type, ',' ORDER BY id), bool_and(is_drill AND status = 'completed' AND backup_id = 1)
                    FROM recovery_history WHERE is_drill";
    assert_eq!(
        cluster.text(recorded)?,
        "point_in_time,lsn,name,xid,xid,point_in_time,lsn,lsn,lsn,latest|t"
    );
    // With what it took, so that the next one can be predicted.
    let measured = "SELECT bool_and(restore_seconds > 0 AND replay_seconds > 0 AND wal_replayed_bytes > 0
                                    AND rto_seconds >= restore_seconds + replay_seconds + COALESCE(startup_seconds, 0)),
                           count(startup_seconds)
                    FROM recovery_history WHERE is_drill";
    assert_eq!(cluster.text(measured)?, "t|1");
    assert_eq!(
        cluster.text("SELECT predicted_rto_seconds > 0 FROM recovery_readiness")?,
        "t"
    );
    Ok(())
}

#[test]
fn in_place_of_the_server_not_even_what_was_not_archived_is_lost() -> Result<()> {
    let mut past = Past::with(settings(), |cluster, path| cluster.base_backup(path))?;
    let commands = commands(&past.cluster, "")?;
    insert(&past.cluster, 7)?;
    past.cluster.stop(Shutdown::Immediate)?;
    let restored = Restored::of(&past.cluster, past.cluster.data(), past.cluster.socket().to_owned());
    run(&past.cluster, "in place", &commands)?;
    assert_eq!(restored.text(ROWS)?, "1,2,3,4,5,6,7");
    assert_eq!(restored.text("SHOW archive_mode")?, "on");
    assert_eq!(
        restored.text("SELECT count(*) FROM pg_file_settings WHERE name LIKE 'recovery_target%'")?,
        "0"
    );
    assert_eq!(
        restored.text("SELECT recovery_type, status, is_drill FROM recovery_history WHERE origin = 'recorded'")?,
        "latest|completed|f"
    );
    Ok(())
}

/// With a tablespace, whose rows are `events` too.
fn with_tablespace(take: impl FnOnce(&Cluster, &Path) -> Result<()>) -> Result<Past> {
    let cluster = Cluster::start(settings())?;
    let place = cluster.place("its tablespace");
    process::run(process::program("mkdir", OnOurEnd::Kill)?.arg(&place))?;
    cluster.text(&format!("CREATE TABLESPACE fast LOCATION '{}'", place.display()))?;
    cluster.text("CREATE EXTENSION pg_backstop; CREATE TABLE events (n integer) TABLESPACE fast")?;
    Past::go_on(cluster, take)
}

/// What was restored has the rows, in a tablespace of its own; neither the server's nor the backup's was touched.
fn is_apart(past: &Past) -> Result<()> {
    let cluster = &past.cluster;
    cluster.text("CHECKPOINT")?;
    let own = fingerprint(&cluster.place("its tablespace"))?;
    let backup = fingerprint(&cluster.place("the backup"))?;
    let restored = carried_out(cluster, "apart", &format!("target_xid => {}", past.moment(4)?.xid))?;
    assert_eq!(restored.text(ROWS)?, "1,2,3,4");
    restored.text("INSERT INTO events SELECT generate_series(100, 1000); CHECKPOINT")?;
    let location = restored.text("SELECT pg_tablespace_location(oid) FROM pg_tablespace WHERE spcname = 'fast'")?;
    ensure!(
        location.starts_with(&format!("{}.tablespaces/", restored.data().display())),
        "{location}"
    );
    assert_eq!(fingerprint(&cluster.place("its tablespace"))?, own);
    assert_eq!(fingerprint(&cluster.place("the backup"))?, backup);
    Ok(())
}

fn mapping(cluster: &Cluster) -> String {
    format!(
        "--tablespace-mapping={}={}",
        cluster.place("its tablespace").display(),
        cluster.place("the backup of its tablespace").display()
    )
}

#[test]
fn a_tablespace_of_a_plain_backup_is_copied_apart() -> Result<()> {
    is_apart(&with_tablespace(|cluster, path| {
        basebackup(cluster, &[&mapping(cluster)], path)
    })?)
}

#[test]
fn a_tar_backup_with_a_tablespace_is_unpacked_apart() -> Result<()> {
    is_apart(&with_tablespace(|cluster, path| {
        basebackup(cluster, &["--format=tar"], path)
    })?)
}

#[test]
fn a_compressed_tar_backup_with_a_tablespace_is_unpacked_apart() -> Result<()> {
    is_apart(&with_tablespace(|cluster, path| {
        basebackup(cluster, &["--format=tar", "--gzip", "--wal-method=fetch"], path)
    })?)
}

#[test]
fn a_compressed_archive_is_recovered_from() -> Result<()> {
    let mut cluster = Cluster::start(settings())?;
    // What was archived so far stays as it is.
    let command = format!("gzip -c \"%p\" > \"{}/%f.gz\"", cluster.archive().path().display());
    cluster.set("archive_command", &command)?;
    cluster.reload()?;
    cluster.text("CREATE EXTENSION pg_backstop; CREATE TABLE events (n integer)")?;
    let past = Past::go_on(cluster, |cluster, path| cluster.base_backup(path))?;
    let restored = carried_out(
        &past.cluster,
        "unpacked",
        &format!("target_time => '{}'", past.moment(4)?.time),
    )?;
    assert_eq!(restored.text(ROWS)?, "1,2,3,4");
    let command = restored.text("SHOW restore_command")?;
    ensure!(command.contains("gzip -dc"), "{command}");
    Ok(())
}

#[test]
fn a_chain_of_incremental_backups_is_put_together() -> Result<()> {
    if Server::chosen()?.major() < 17 {
        return Ok(());
    }
    // Each with its WAL in the archive only.
    let apart = "--wal-method=none";
    let past = Past::with(settings().set("summarize_wal", "on"), |cluster, path| {
        basebackup(cluster, &[apart], path)
    })?;
    let cluster = &past.cluster;
    let incremental = |from: &Path, to: &Path| {
        let option = format!("--incremental={}", from.join("backup_manifest").display());
        recorded(cluster, "incremental", to, |cluster, path| {
            basebackup(cluster, &[apart, &option], path)
        })
    };
    incremental(&cluster.place("the backup"), &cluster.place("monday"))?;
    insert(cluster, 7)?;
    incremental(&cluster.place("monday"), &cluster.place("tuesday"))?;
    let after = insert(cluster, 8)?;
    insert(cluster, 9)?;
    archived(cluster)?;
    let plan = commands(
        cluster,
        &format!("target_lsn => '{}', data_directory => '/x'", after.lsn),
    )?;
    ensure!(plan.contains("pg_combinebackup") && plan.contains("tuesday"), "{plan}");
    let restored = carried_out(cluster, "combined", &format!("target_lsn => '{}'", after.lsn))?;
    assert_eq!(restored.text(ROWS)?, "1,2,3,4,5,6,7,8");
    drop(restored);
    // What a retention by the newest backup's start leaves: the WAL of the others is gone, and their files are enough.
    let newest = cluster.text("SELECT pg_walfile_name(start_lsn) FROM backup_history ORDER BY id DESC LIMIT 1")?;
    for older in cluster
        .archive()
        .segments()?
        .iter()
        .filter(|segment| **segment < newest)
    {
        cluster.archive().remove(older)?.stays();
    }
    cluster.wait_for("SELECT backup_id FROM recovery_windows", "3")?;
    cluster.wait_for("SELECT status FROM recovery_readiness", "ready")?;
    let restored = carried_out(cluster, "without their WAL", &format!("target_lsn => '{}'", after.lsn))?;
    assert_eq!(restored.text(ROWS)?, "1,2,3,4,5,6,7,8");
    // One that was recorded as a full backup, of which nobody said where it is: its backup history file knows better.
    let id = cluster.text("SELECT backup_id FROM record_backup_start('full')")?;
    let option = format!(
        "--incremental={}",
        cluster.place("tuesday").join("backup_manifest").display()
    );
    basebackup(cluster, &[apart, &option], &cluster.place("wednesday"))?;
    cluster.text(&format!("SELECT record_backup_complete({id})"))?;
    cluster.archive_now()?;
    cluster.wait_for(
        &format!("SELECT backup_type, parent_id FROM backup_history WHERE id = {id}"),
        "incremental|3",
    )
}

#[test]
fn what_the_server_could_not_reach_is_refused_with_what_it_could() -> Result<()> {
    let past = Past::with(settings(), |cluster, path| cluster.base_backup(path))?;
    let cluster = &past.cluster;
    let ends = cluster.text("SELECT to_time, timeline_id FROM recovery_windows")?;
    let (last, _) = ends.split_once('|').context(ends.clone())?;
    let (soon, early) = ("now() + interval '1 hour'", "now() - interval '1 day'");
    for (arguments, state, message, detail) in [
        (
            "target_xid => 800, target_lsn => '0/1'",
            "22023",
            "more than one recovery target",
            "one target",
        ),
        (&format!("target_time => {soon}"), "22023", "is in the future", last),
        ("target_time => 'infinity'", "22023", "must be a moment", ""),
        (
            &format!("target_time => {early}"),
            "22023",
            "before the first moment",
            "The first moment that can be recovered is",
        ),
        (
            "target_time => clock_timestamp()",
            "22023",
            "after the last moment",
            last,
        ),
        ("target_lsn => '0/1'", "22023", "before the first moment", "timeline 1"),
        ("target_lsn => 'FF/0'", "22023", "after the last moment", last),
        (
            "target_name => 'nobody made this'",
            "P0002",
            "not in the verified WAL",
            "\"the end\", \"after three\"",
        ),
        (
            "target_xid => 3",
            "P0002",
            "transaction 3 is not in the verified WAL",
            last,
        ),
        ("target_xid => 2", "22023", "no transaction", "from 3"),
        ("target_xid => 4000000000", "22023", "has not begun", "The next one is"),
        ("target_xid => 4294968296", "22023", "has not begun", "epoch 0"),
        (
            "target_timeline => 9",
            "P0002",
            "no recovery window ends on timeline 9",
            "timeline 1",
        ),
        ("target_timeline => 0", "22023", "target_timeline", ""),
        ("target_action => 'pause'", "22023", "needs a target", ""),
        (
            "target_action => 'shutdown', target_lsn => '0/1'",
            "22023",
            "target_action",
            "",
        ),
        ("data_directory => 'here'", "22023", "not an absolute path", ""),
        ("data_directory => '/'", "22023", "not an absolute path", ""),
        (
            &format!("data_directory => '{}/copy'", cluster.data().display()),
            "22023",
            "lie in one another",
            "",
        ),
        (
            &format!("data_directory => '{}'", cluster.place("the backup").display()),
            "22023",
            "lie in one another",
            "",
        ),
    ] {
        let error = cluster.refusal(&format!("SELECT * FROM recovery_plan({arguments})"))?;
        let shown = error.detail().unwrap_or_default();
        assert_eq!(error.code().code(), state, "{arguments}: {error}");
        ensure!(error.message().contains(message), "{arguments}: {error}");
        ensure!(shown.contains(detail), "{arguments}: no {detail:?} in {shown:?}");
        ensure!(error.hint().is_some(), "{arguments}: no hint");
    }
    // A full transaction number, and its last 32 bits, are both one.
    cluster.text(&format!(
        "SELECT count(*) FROM recovery_plan(target_xid => {})",
        past.moment(4)?.xid
    ))?;
    Ok(())
}

#[test]
fn a_moment_between_two_windows_is_refused_with_both_neighbours() -> Result<()> {
    let past = Past::with(settings(), |cluster, path| cluster.base_backup(path))?;
    let cluster = &past.cluster;
    let lost = insert(cluster, 7)?;
    let segment = archived(cluster).and_then(|()| {
        cluster.text("SELECT segment_name FROM wal_archive WHERE commit_count > 0 ORDER BY end_lsn DESC LIMIT 1")
    })?;
    recorded(cluster, "full", &cluster.place("another backup"), |cluster, path| {
        cluster.base_backup(path)
    })?;
    insert(cluster, 8)?;
    archived(cluster)?;
    cluster.archive().remove(&segment)?.stays();
    cluster.text("SELECT count(*) FROM verify_wal_archive()")?;
    cluster.wait_for("SELECT count(*) FROM recovery_windows", "2")?;
    let error = cluster.refusal(&format!("SELECT * FROM recovery_plan(target_time => '{}')", lost.time))?;
    let detail = error.detail().unwrap_or_default();
    ensure!(error.message().contains("lies in no recovery window"), "{error}");
    ensure!(
        detail.contains("The window before it ends at") && detail.contains("the next one begins at"),
        "{detail}"
    );
    // Both sides of the gap can still be reached.
    let before = carried_out(
        cluster,
        "before the gap",
        &format!("target_time => '{}'", past.moment(3)?.time),
    )?;
    assert_eq!(before.text(ROWS)?, "1,2,3");
    let after = carried_out(cluster, "after the gap", "")?;
    assert_eq!(after.text(ROWS)?, "1,2,3,4,5,6,7,8");
    Ok(())
}

#[test]
fn moments_on_both_sides_of_a_promotion_are_reached_along_the_servers_own_history() -> Result<()> {
    let mut past = Past::with(settings(), |cluster, path| cluster.base_backup(path))?;
    past.cluster.stop(Shutdown::Fast)?;
    fs::write(past.cluster.data().join("standby.signal"), "")?;
    past.cluster.start_server()?;
    past.cluster.promote()?;
    let cluster = &past.cluster;
    let after = insert(cluster, 7)?;
    insert(cluster, 8)?;
    archived(cluster)?;
    cluster.wait_for("SELECT timeline_id FROM recovery_windows WHERE is_current", "2")?;
    for (name, arguments, rows) in [
        ("before", format!("target_lsn => '{}'", past.moment(4)?.lsn), "1,2,3,4"),
        ("behind", format!("target_time => '{}'", after.time), "1,2,3,4,5,6,7"),
        ("newest", String::new(), "1,2,3,4,5,6,7,8"),
    ] {
        let restored = carried_out(cluster, name, &arguments).context(name)?;
        assert_eq!(restored.text(ROWS)?, rows, "{name}");
        assert_eq!(restored.text("SHOW recovery_target_timeline")?, "2", "{name}");
    }
    let error = cluster.refusal("SELECT * FROM recovery_plan(target_timeline => 1)")?;
    ensure!(error.detail().unwrap_or_default().contains("timeline 2"), "{error:?}");
    let left_at = fs::read_to_string(cluster.data().join("pg_wal/00000002.history"))?;
    let left_at = left_at.split_whitespace().nth(1).context("no switch point")?;
    let is_told = |part: Option<&str>| part.unwrap_or_default().contains(&format!("LSN {left_at}"));
    ensure!(is_told(error.detail()) && is_told(error.hint()), "{error:?}");
    Ok(())
}

#[test]
fn what_a_recovery_to_too_early_a_moment_gave_up_is_reached_as_the_hint_says() -> Result<()> {
    let mut past = Past::with(settings(), |cluster, path| cluster.base_backup(path))?;
    let too_early = commands(&past.cluster, &format!("target_lsn => '{}'", past.moment(4)?.lsn))?;
    past.cluster.stop(Shutdown::Fast)?;
    let restored = Restored::of(&past.cluster, past.cluster.data(), past.cluster.socket().to_owned());
    run(&past.cluster, "too early", &too_early)?;
    assert_eq!(restored.text(ROWS)?, "1,2,3,4");
    let cluster = &past.cluster;
    insert(cluster, 7)?;
    archived(cluster)?;
    let error = cluster.refusal("SELECT * FROM recovery_plan(target_timeline => 1)")?;
    let hint = error.hint().unwrap_or_default();
    ensure!(hint.contains("timeline 1 and the later target"), "{error:?}");
    let (before, later) = (&past.moment(3)?.lsn, &past.moment(5)?.time);
    let data = cluster.place("second");
    let plan = commands(
        cluster,
        &format!("target_lsn => '{before}', data_directory => '{}'", data.display()),
    )?;
    let mut second = plan;
    for (named, instead) in [
        (
            "recovery_target_timeline = '2'",
            "recovery_target_timeline = '1'".to_owned(),
        ),
        (
            &format!("recovery_target_lsn = '{before}'"),
            format!("recovery_target_time = '{later}'"),
        ),
        (
            &format!("'lsn', target_lsn => '{before}', target_timeline => 2"),
            format!("'point_in_time', target_time => '{later}', target_timeline => 1"),
        ),
    ] {
        ensure!(second.contains(named), "no {named:?} in {second}");
        second = second.replace(named, &instead);
    }
    let beside = Restored::of(cluster, data.clone(), data);
    run(cluster, "second", &second)?;
    assert_eq!(beside.text(ROWS)?, "1,2,3,4,5");
    assert_eq!(
        cluster.text("SELECT recovery_type, target_timeline, status FROM recovery_history WHERE is_drill")?,
        "point_in_time|1|completed"
    );
    Ok(())
}

#[test]
fn a_clock_that_was_set_back_is_noticed_and_the_lsn_reaches_the_moment() -> Result<()> {
    let past = Past::with(settings(), |cluster, path| cluster.base_backup(path))?;
    let cluster = &past.cluster;
    let first = cluster.text(
        "SELECT segment_name FROM wal_archive WHERE commit_count > 0 AND start_lsn > (SELECT end_lsn FROM backup_history WHERE id = 1)
          ORDER BY end_lsn LIMIT 1",
    )?;
    let moment = insert(cluster, 7)?;
    insert(cluster, 8)?;
    archived(cluster)?;
    // As it would be if the clock had been an hour ahead while this one was written.
    cluster.text(&format!(
        "UPDATE wal_archive SET first_commit_at = first_commit_at + interval '1 hour', last_commit_at = last_commit_at + interval '1 hour'
          WHERE segment_name = '{first}'"
    ))?;
    let error = cluster.refusal(&format!(
        "SELECT * FROM recovery_plan(target_time => '{}')",
        moment.time
    ))?;
    ensure!(error.message().contains("the clock was set back"), "{error}");
    let hint = error.hint().unwrap_or_default();
    let lsn = hint.split('\'').nth(1).context(hint.to_owned())?;
    let restored = carried_out(cluster, "by its lsn", &format!("target_lsn => '{lsn}'"))?;
    assert_eq!(restored.text(ROWS)?, "1,2,3,4,5,6,7");
    Ok(())
}

#[test]
fn a_standby_gives_a_plan_too() -> Result<()> {
    let past = Past::with(settings(), |cluster, path| cluster.base_backup(path))?;
    let standby = past.cluster.standby(settings())?;
    // What the worker has stored on the primary is there too.
    let now = past.cluster.text("SELECT pg_current_wal_flush_lsn()")?;
    standby.wait_for(&format!("SELECT pg_last_wal_replay_lsn() >= '{now}'"), "t")?;
    let restored = carried_out(
        &standby,
        "from the standby",
        &format!("target_xid => {}", past.moment(4)?.xid),
    )?;
    assert_eq!(restored.text(ROWS)?, "1,2,3,4");
    let last = standby.text(&format!(
        "SELECT action FROM recovery_plan(data_directory => '{}') ORDER BY step DESC LIMIT 1",
        standby.place("elsewhere").display()
    ))?;
    ensure!(last.contains("on the primary"), "{last}");
    Ok(())
}

#[test]
fn a_monitor_gets_a_plan_without_anything_on_disk_being_looked_at() -> Result<()> {
    let past = Past::with(settings(), |cluster, path| cluster.base_backup(path))?;
    let cluster = &past.cluster;
    cluster.text("CREATE ROLE monitor LOGIN IN ROLE pg_monitor")?;
    let mut monitor = cluster.connect_as("monitor", "postgres")?;
    let data = cluster.place("for the monitor");
    let sql = format!(
        "SELECT command FROM recovery_plan(data_directory => '{}')",
        data.display()
    );
    let script = text_in(&mut monitor, &sql)?;
    ensure!(script.contains("the backup has links to other places"), "{script}");
    let refused = refusal_in(
        &mut monitor,
        &format!("SELECT * FROM recovery_plan(target_xid => {})", past.moment(4)?.xid),
    )?;
    assert_eq!(refused.code().code(), "42501", "{refused}");
    let restored = Restored::of(cluster, data.clone(), data);
    run(cluster, "for the monitor", &script)?;
    assert_eq!(restored.text(ROWS)?, "1,2,3,4,5,6");
    Ok(())
}
