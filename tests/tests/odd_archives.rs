//! Whatever lies in the archive directory, and whatever happens to the directory itself, the worker neither breaks nor
//! blocks, and concludes nothing from what it could not read.

use std::ffi::OsStr;
use std::fs::{self, Permissions};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, symlink};

use anyhow::{Context, Result};
use tests::process::{self, OnOurEnd};
use tests::{Archive, Scene, worker};

fn make_fifo(archive: &Archive, name: &str) -> Result<()> {
    process::run(process::program("mkfifo", OnOurEnd::Kill)?.arg(archive.file(name))).map(drop)
}

#[test]
fn files_that_are_no_wal_are_passed_over() -> Result<()> {
    let mut scene = Scene::stopped()?;
    let archive = scene.cluster.archive().clone();
    let names: [&[u8]; 12] = [
        b"a b",
        b"it's",
        b"\"quoted\"",
        b"two\nlines",
        b"back\\slash",
        b"$(reboot)",
        b"-rf",
        b"\xff\xfe",
        b"00000001000000000000000Z",
        b"000000010000000000000005.partial",
        b"000000010000000000000005.gz",
        b".hidden",
    ];
    for name in names {
        fs::write(archive.file(OsStr::from_bytes(name)), "what is this")?;
    }
    fs::create_dir(archive.file("a directory"))?;
    fs::write(archive.file("a directory/000000010000000000000009"), "inside")?;
    symlink("/etc/passwd", archive.file("a link"))?;
    symlink("nowhere", archive.file("a dangling link"))?;
    make_fifo(&archive, "a pipe")?;
    scene.start()?;
    scene.wait_until_ready()?;
    let odd = "SELECT segment_name FROM wal_archive
               WHERE segment_name !~ '^[0-9A-F]{24}$' AND segment_name !~ '^[0-9A-F]{24}\\.[0-9A-F]{8}\\.backup$'";
    assert_eq!(scene.cluster.text(odd)?, "");
    Ok(())
}

/// Under a name that a segment should have, what is no regular file is neither followed nor waited for.
#[test]
fn what_is_no_regular_file_is_reported_unreadable_and_blocks_nobody() -> Result<()> {
    let mut scene = Scene::stopped()?;
    let archive = scene.cluster.archive().clone();
    let after = scene.after_the_backup();
    let [pipe, link, directory] = after.get(1..4).context("segments")? else {
        anyhow::bail!("three segments")
    };
    let faults = [pipe, link, directory].map(|name| archive.remove(name));
    make_fifo(&archive, pipe)?;
    symlink("/etc/passwd", archive.file(link))?;
    fs::create_dir(archive.file(directory))?;
    scene.start()?;
    let cluster = &scene.cluster;
    let last = scene.segments.last().context("segments")?;
    cluster.wait_for(
        &format!("SELECT status FROM wal_archive WHERE segment_name = '{last}'"),
        "verified",
    )?;
    for name in [pipe, link, directory] {
        let bad = format!("SELECT status IN ('corrupt', 'missing') FROM wal_archive WHERE segment_name = '{name}'");
        cluster.wait_for(&bad, "t")?;
    }
    worker::ticks(cluster, 2)?;
    // In the foreground too.
    cluster.text("SELECT count(*) FROM verify_wal_archive()")?;
    fs::remove_file(archive.file(pipe))?;
    fs::remove_file(archive.file(link))?;
    fs::remove_dir(archive.file(directory))?;
    for fault in faults {
        fault?.mend()?;
    }
    scene.wait_until_ready()
}

/// A18
#[test]
fn an_unreadable_archive_is_the_workers_error_and_nothing_is_marked_missing() -> Result<()> {
    let scene = Scene::verified()?;
    let directory = scene.cluster.archive().path();
    let away = scene.cluster.place("unmounted");
    out_of_reach(
        &scene,
        || fs::set_permissions(directory, Permissions::from_mode(0o000)),
        || fs::set_permissions(directory, Permissions::from_mode(0o755)),
    )
    .context("closed")?;
    out_of_reach(&scene, || fs::rename(directory, &away), || fs::rename(&away, directory)).context("gone")?;
    out_of_reach(
        &scene,
        || fs::rename(directory, &away).and_then(|()| fs::write(directory, "")),
        || fs::remove_file(directory).and_then(|()| fs::rename(&away, directory)),
    )
    .context("a file in its place")
}

fn out_of_reach(
    scene: &Scene,
    take_away: impl Fn() -> std::io::Result<()>,
    bring_back: impl Fn() -> std::io::Result<()>,
) -> Result<()> {
    let cluster = &scene.cluster;
    let directory = cluster.archive().path().display().to_string();
    let bad = "SELECT count(*) FROM wal_archive WHERE status NOT IN ('verified', 'pending')";
    take_away()?;
    cluster.wait_for("SELECT last_error <> '' FROM v_worker_status", "t")?;
    let error = cluster.text("SELECT last_error FROM v_worker_status")?;
    assert!(error.contains(&directory), "{error}");
    // Longer than the grace.
    worker::ticks(cluster, 4)?;
    assert_eq!(cluster.text(bad)?, "0");
    let refusal = cluster.refusal("SELECT * FROM verify_wal_archive()")?;
    assert!(refusal.message().contains(&directory), "{refusal}");
    assert_eq!(cluster.text(bad)?, "0");
    bring_back()?;
    cluster.wait_for("SELECT coalesce(last_error, '') FROM v_worker_status", "")?;
    scene.wait_until_ready()
}

#[test]
fn an_archive_directory_with_an_odd_name_is_found_from_the_archive_command() -> Result<()> {
    for name in ["it's an archive", "with \"quotes\" and \\ and $HOME", "über ärchiv"] {
        let mut scene = Scene::stopped()?;
        let odd = scene.cluster.place(name);
        fs::rename(scene.cluster.archive().path(), &odd)?;
        // As a shell and archive_command want it.
        let quoted = format!("'{}'", odd.display().to_string().replace('\'', r"'\''"));
        scene.cluster.set(
            "archive_command",
            &format!("test ! -f {quoted}/%f && cp %p {quoted}/%f"),
        )?;
        scene.start()?;
        scene.wait_until_ready().context(name)?;
        let new = scene.cluster.archive_now()?;
        let stored =
            format!("SELECT stored_path FROM wal_archive WHERE status = 'verified' AND segment_name = '{new}'");
        scene.cluster.wait_for(&stored, &odd.join(&new).display().to_string())?;
    }
    Ok(())
}
