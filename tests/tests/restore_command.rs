//! A22: the archive read through `restore_command`, whatever that does, is judged as recovery would judge it, and neither the
//! worker nor the server suffers.

use anyhow::{Result, ensure};
use std::fs;
use tests::wait::SOON;
use tests::{Cluster, Look, Scene, Shutdown, wait_until, worker};

/// Rows that say something bad.
const BAD: &str = "SELECT count(*) FROM wal_archive WHERE status NOT IN ('verified', 'pending')";

/// The `restore_command` that fetches from the archive of a cluster.
fn honest(cluster: &Cluster) -> String {
    format!("cp \"{}/%f\" \"%p\"", cluster.archive().path().display())
}

/// A scene all of whose archive was verified through `restore_command`.
fn verified() -> Result<Scene> {
    let mut scene = Scene::stopped()?;
    let command = honest(&scene.cluster);
    scene.cluster.set("restore_command", &command)?;
    scene.cluster.set("pg_backstop.archive_source", "restore_command")?;
    scene.start()?;
    scene.wait_until_ready()?;
    Ok(scene)
}

fn replace_command(scene: &mut Scene, command: &str) -> Result<()> {
    scene.cluster.set("restore_command", command)?;
    scene.cluster.reload()
}

/// Archives a segment that the worker then asks `restore_command` for, and gives its name.
fn archive_one_more(cluster: &Cluster) -> Result<String> {
    cluster.text("CREATE TABLE IF NOT EXISTS filler AS SELECT 1 AS one; INSERT INTO filler VALUES (2)")?;
    cluster.archive_now()
}

fn wait_for_error(cluster: &Cluster, part: &str) -> Result<String> {
    wait_until(&format!("the worker's error to say {part:?}"), SOON, || {
        let error = cluster.text("SELECT last_error FROM v_worker_status")?;
        Ok(if error.contains(part) {
            Look::Done(error)
        } else {
            Look::NotYet(error)
        })
    })
}

/// Nothing that a command wrote or left running remains.
fn nothing_remains(cluster: &Cluster) -> Result<()> {
    cluster.wait_for(
        "SELECT count(*) FROM pg_ls_dir('base/pgsql_tmp', true, false) AS name WHERE name LIKE '%backstop%'",
        "0",
    )?;
    let mark = cluster.data().display().to_string();
    wait_until("the command's processes to end", SOON, || {
        let left = shells_in(&mark)?;
        Ok(if left.is_empty() {
            Look::Done(())
        } else {
            Look::NotYet(left.join("; "))
        })
    })
}

/// Command lines of what runs in this directory and is no server process.
fn shells_in(directory: &str) -> Result<Vec<String>> {
    let mut found = Vec::new();
    for process in fs::read_dir("/proc")?.flatten() {
        let here = fs::read_link(process.path().join("cwd")).is_ok_and(|cwd| cwd.as_os_str() == directory);
        let line = fs::read(process.path().join("cmdline")).unwrap_or_default();
        let line = String::from_utf8_lossy(&line).replace('\0', " ");
        if here && !line.contains("postgres") {
            found.push(line);
        }
    }
    Ok(found)
}

/// After a command that cannot be believed: nothing was concluded, and with an honest one all is well.
fn nothing_was_concluded(mut scene: Scene) -> Result<()> {
    worker::ticks(&scene.cluster, 3)?;
    assert_eq!(scene.cluster.text(BAD)?, "0");
    nothing_remains(&scene.cluster)?;
    let command = honest(&scene.cluster);
    replace_command(&mut scene, &command)?;
    let cluster = &scene.cluster;
    cluster.wait_for("SELECT coalesce(last_error, '') FROM v_worker_status", "")?;
    let newest = archive_one_more(cluster)?;
    let row = format!("SELECT status FROM wal_archive WHERE segment_name = '{newest}'");
    cluster.wait_for(&row, "verified")?;
    scene.wait_until_ready()
}

#[test]
fn an_archive_is_verified_through_restore_command_alone() -> Result<()> {
    let scene = verified()?;
    let cluster = &scene.cluster;
    let newest = archive_one_more(cluster)?;
    let row =
        format!("SELECT status, problem IS NULL, sha256 IS NOT NULL FROM wal_archive WHERE segment_name = '{newest}'");
    cluster.wait_for(&row, "verified|t|t")?;
    let source = cluster.text("SELECT archive_source FROM v_worker_status")?;
    assert!(source.starts_with("restore_command"), "{source}");
    nothing_remains(cluster)
}

#[test]
fn a_fault_is_seen_through_restore_command_at_the_next_look() -> Result<()> {
    let scene = verified()?;
    let (cluster, victim) = (&scene.cluster, scene.victim()?);
    let row = format!(
        "SELECT status, problem FROM verify_wal_archive('{victim}', '{victim}') WHERE segment_name = '{victim}'"
    );
    let whole = cluster.archive().read(&victim)?;
    let half = whole.get(..whole.len() / 2).unwrap_or_default();
    let fault = cluster.archive().replace(&victim, half)?;
    assert_eq!(cluster.text(&row)?, "corrupt|truncated");
    fault.mend()?;
    assert_eq!(cluster.text(&row)?, "verified|");
    scene.wait_until_ready()
}

#[test]
fn a_restore_command_that_exits_0_without_a_file_leaves_the_segment_missing() -> Result<()> {
    let mut scene = verified()?;
    replace_command(&mut scene, "/bin/true")?;
    let lost = archive_one_more(&scene.cluster)?;
    let row = format!("SELECT status FROM wal_archive WHERE segment_name = '{lost}'");
    scene.cluster.wait_for(&row, "missing")?;
    let command = honest(&scene.cluster);
    replace_command(&mut scene, &command)?;
    scene.cluster.wait_for(&row, "verified")?;
    scene.wait_until_ready()
}

#[test]
fn a_restore_command_that_exits_with_1_leaves_the_segment_missing() -> Result<()> {
    let mut scene = verified()?;
    replace_command(&mut scene, "exit 1")?;
    let lost = archive_one_more(&scene.cluster)?;
    let row = format!("SELECT status FROM wal_archive WHERE segment_name = '{lost}'");
    scene.cluster.wait_for(&row, "missing")?;
    let command = honest(&scene.cluster);
    replace_command(&mut scene, &command)?;
    scene.cluster.wait_for(&row, "verified")?;
    scene.wait_until_ready()
}

#[test]
fn a_restore_command_that_hangs_is_ended_at_the_deadline_and_proves_nothing() -> Result<()> {
    let mut scene = verified()?;
    scene.cluster.set("pg_backstop.restore_command_timeout", "1s")?;
    replace_command(&mut scene, "sleep 1000; true")?;
    archive_one_more(&scene.cluster)?;
    let error = wait_for_error(&scene.cluster, "pg_backstop.restore_command_timeout")?;
    assert!(error.contains("1 s"), "{error}");
    nothing_was_concluded(scene)
}

#[test]
fn a_restore_command_that_hangs_holds_up_neither_termination_nor_shutdown() -> Result<()> {
    let mut scene = verified()?;
    let hanging = scene.cluster.place("hanging");
    replace_command(
        &mut scene,
        &format!("while true; do touch \"{}\"; sleep 0.1; done", hanging.display()),
    )?;
    archive_one_more(&scene.cluster)?;
    let until_it_hangs = || {
        wait_until("restore_command to hang", SOON, || {
            Ok(if hanging.exists() {
                Look::Done(())
            } else {
                Look::not_yet("it does not run")
            })
        })
    };
    until_it_hangs()?;
    let first = worker::pid(&scene.cluster)?;
    assert_eq!(
        scene
            .cluster
            .text(&format!("SELECT pg_terminate_backend({first}, 10000)"))?,
        "t"
    );
    worker::successor(&scene.cluster, first)?;
    for shutdown in [Shutdown::Fast, Shutdown::Immediate, Shutdown::Kill] {
        fs::remove_file(&hanging).ok();
        until_it_hangs()?;
        // Returns when no process is left that has the data directory as its own.
        scene.cluster.stop(shutdown)?;
        scene.cluster.start_server()?;
    }
    scene.cluster.set("pg_backstop.restore_command_timeout", "1s")?;
    scene.cluster.restart(Shutdown::Fast)?;
    nothing_was_concluded(scene)
}

#[test]
fn what_a_canceled_look_has_started_is_ended_with_it() -> Result<()> {
    let mut scene = verified()?;
    // The worker may have a segment of its own to ask for, and hangs as well then.
    scene.cluster.set("pg_backstop.restore_command_timeout", "5s")?;
    replace_command(&mut scene, "sleep 1000; true")?;
    let victim = scene.victim()?;
    let refusal = scene.cluster.refusal(&format!(
        "SET statement_timeout = '500ms'; SELECT * FROM verify_wal_archive('{victim}', '{victim}')"
    ))?;
    assert_eq!(refusal.code().code(), "57014", "{refusal}");
    nothing_was_concluded(scene)
}

#[test]
fn a_restore_command_that_prints_megabytes_and_fetches_is_believed() -> Result<()> {
    let mut scene = verified()?;
    let command = format!(
        "head -c 20000000 /dev/zero | tr '\\0' x >&2; {}",
        honest(&scene.cluster)
    );
    replace_command(&mut scene, &command)?;
    let newest = archive_one_more(&scene.cluster)?;
    let row = format!("SELECT status FROM wal_archive WHERE segment_name = '{newest}'");
    scene.cluster.wait_for(&row, "verified")?;
    scene.wait_until_ready()
}

#[test]
fn of_what_a_failing_restore_command_prints_only_the_end_is_kept_and_no_secret() -> Result<()> {
    let mut scene = verified()?;
    replace_command(
        &mut scene,
        "yes filling | head -c 5000000; echo PGPASSWORD=hunter2 was refused; exit 255",
    )?;
    let before = scene.cluster.log()?.len();
    archive_one_more(&scene.cluster)?;
    wait_for_error(&scene.cluster, "code 255")?;
    let log = scene.cluster.log()?;
    let said = log.get(before..).unwrap_or_default();
    ensure!(said.contains("PGPASSWORD=*** was refused"), "{said}");
    ensure!(!said.contains("hunter2"), "{said}");
    ensure!(said.len() < 200_000, "{} bytes in the log", said.len());
    nothing_was_concluded(scene)
}

#[test]
fn a_restore_command_that_is_killed_proves_nothing() -> Result<()> {
    let mut scene = verified()?;
    replace_command(&mut scene, "kill -9 $$")?;
    archive_one_more(&scene.cluster)?;
    wait_for_error(&scene.cluster, "signal 9")?;
    nothing_was_concluded(scene)
}

#[test]
fn a_restore_command_whose_program_is_not_there_proves_nothing() -> Result<()> {
    let mut scene = verified()?;
    replace_command(&mut scene, "/nowhere/fetch %f %p")?;
    archive_one_more(&scene.cluster)?;
    wait_for_error(&scene.cluster, "code 127")?;
    nothing_was_concluded(scene)
}

#[test]
fn a_restore_command_that_writes_without_end_is_ended_before_the_disk_is_full() -> Result<()> {
    let mut scene = verified()?;
    replace_command(&mut scene, "cat /dev/zero > %p")?;
    archive_one_more(&scene.cluster)?;
    wait_for_error(&scene.cluster, "had written")?;
    nothing_was_concluded(scene)
}
