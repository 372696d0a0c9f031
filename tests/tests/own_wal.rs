//! A base backup with its own WAL inside counts without an archive, up to its end; one whose WAL is not whole does not.

use std::fs;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use tests::{Cluster, Settings, Shutdown, process};

/// A cluster that archives nothing, with the extension.
fn without_archive() -> Result<Cluster> {
    let cluster = Cluster::start(Settings::new().set("archive_mode", "off").set("archive_command", ""))?;
    cluster.text("CREATE EXTENSION pg_backstop; CREATE TABLE kept AS SELECT 1 AS one")?;
    Ok(cluster)
}

/// Takes a base backup between the two calls, spoils it in between, and gives its id and what psql was told.
fn recorded(
    cluster: &Cluster,
    name: &str,
    options: &[&str],
    spoil: impl FnOnce(&Path) -> Result<()>,
) -> Result<(String, String)> {
    let path = cluster.place(name);
    let id = cluster.text(&format!(
        "SELECT backup_id FROM record_backup_start('full', '{}')",
        path.display()
    ))?;
    let mut command = cluster.client_command("pg_basebackup")?;
    process::run(
        command
            .args(["--checkpoint=fast", "--no-sync", "-D"])
            .arg(&path)
            .args(options),
    )?;
    spoil(&path)?;
    let mut psql = cluster.client_command("psql")?;
    let output = process::output(psql.args([
        "-X",
        "-v",
        "ON_ERROR_STOP=1",
        "-c",
        &format!("SELECT * FROM record_backup_complete({id})"),
    ]))?;
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    ensure!(output.status.success(), "{told}");
    Ok((id, told))
}

fn included(cluster: &Cluster, id: &str) -> Result<String> {
    cluster.text(&format!("SELECT wal_included FROM backup_history WHERE id = {id}"))
}

/// Where a plain backup begins: the segment, and the byte of it.
fn beginning(path: &Path) -> Result<(PathBuf, u64)> {
    let label = fs::read_to_string(path.join("backup_label"))?;
    let words: Vec<&str> = label.split_whitespace().collect();
    let [_, _, _, lsn, _, segment, ..] = words.as_slice() else {
        bail!("{label}");
    };
    let (_, low) = lsn.split_once('/').context("no LSN")?;
    let segment = path.join("pg_wal").join(segment.trim_end_matches(')'));
    Ok((segment, u64::from_str_radix(low, 16)? % (1 << 20)))
}

fn nothing(_: &Path) -> Result<()> {
    Ok(())
}

#[test]
fn without_an_archive_a_backup_with_its_wal_inside_makes_a_window_that_a_recovery_reaches() -> Result<()> {
    let mut cluster = without_archive()?;
    let (id, told) = recorded(&cluster, "base", &["-X", "stream"], nothing)?;
    assert_eq!(told, "");
    assert_eq!(included(&cluster, &id)?, "t");
    let label = fs::read_to_string(cluster.place("base").join("backup_label"))?;
    let start = cluster.text(&format!("SELECT start_lsn FROM backup_history WHERE id = {id}"))?;
    ensure!(
        label.contains(&format!("START WAL LOCATION: {start} ")),
        "{start}: {label}"
    );
    let window =
        "SELECT w.backup_id, w.from_lsn = b.end_lsn, w.to_lsn = b.end_lsn, w.from_time = b.finished_at, w.ended_by
                    FROM recovery_windows w JOIN backup_history b ON b.id = w.backup_id";
    assert_eq!(
        cluster.text(window)?,
        format!("{id}|t|t|t|WAL is not archived any further")
    );
    let readiness = "SELECT status, newest_usable_backup, array_to_string(reasons, ' ') LIKE '%WAL archiving is off%'
                       FROM assess_recovery_readiness()";
    cluster.wait_for(readiness, &format!("at_risk|{id}|t"))?;

    cluster.text("INSERT INTO kept VALUES (2)")?;
    cluster.stop(Shutdown::Fast)?;
    fs::rename(cluster.data(), cluster.place("lost"))?;
    fs::rename(cluster.place("base"), cluster.data())?;
    cluster.start_server()?;
    assert_eq!(cluster.text("SELECT count(*) FROM kept")?, "1");
    ensure!(cluster.log()?.contains("consistent recovery state reached"));
    Ok(())
}

#[test]
fn archiving_that_is_off_is_said_whatever_its_command_would_do() -> Result<()> {
    let cluster = Cluster::start(Settings::new().set("archive_mode", "off"))?;
    cluster.text("CREATE EXTENSION pg_backstop")?;
    let (id, _) = recorded(&cluster, "base", &["-X", "stream"], nothing)?;
    let window = "SELECT backup_id, ended_by FROM recovery_windows";
    assert_eq!(cluster.text(window)?, format!("{id}|WAL is not archived any further"));
    let readiness =
        "SELECT status, array_to_string(reasons, ' ') LIKE '%WAL archiving is off%' FROM recovery_readiness";
    cluster.wait_for(readiness, "at_risk|t")
}

#[test]
fn a_backup_whose_own_wal_is_not_whole_is_not_usable_without_an_archive() -> Result<()> {
    let cluster = without_archive()?;
    let remove = |path: &Path| Ok(fs::remove_file(beginning(path)?.0)?);
    let (gone, told) = recorded(&cluster, "gone", &["-X", "stream"], remove)?;
    // Nothing of it is left, as after -X none: that is nobody's mistake.
    assert_eq!((included(&cluster, &gone)?, told), ("f".to_owned(), String::new()));

    let damage = |path: &Path| {
        let (segment, start) = beginning(path)?;
        // Behind the header of the record at which replay begins, in what its CRC covers.
        let at = start + 28;
        let file = fs::OpenOptions::new().read(true).write(true).open(segment)?;
        let mut byte = [0];
        file.read_exact_at(&mut byte, at)?;
        file.write_all_at(&[byte[0] ^ 1], at)?;
        Ok(())
    };
    let (damaged, told) = recorded(&cluster, "damaged", &["-X", "stream"], damage)?;
    assert_eq!(included(&cluster, &damaged)?, "f");
    ensure!(told.contains("bad_record_crc"), "{told}");
    assert_eq!(cluster.text("SELECT count(*) FROM recovery_windows")?, "0");
    let why = "SELECT status, array_to_string(reasons, ' ') LIKE '%is not inside it, and WAL is not archived%'
                 FROM recovery_readiness";
    cluster.wait_for(why, "unrecoverable|t")
}

#[test]
fn wal_is_found_in_every_format_that_pg_basebackup_writes() -> Result<()> {
    let cluster = without_archive()?;
    for (name, options, expected) in [
        ("fetched", &["-X", "fetch"][..], "t"),
        ("none", &["-X", "none"], "f"),
        ("tar", &["-Ft", "-X", "stream"], "t"),
        ("tar-gz", &["-Ft", "-z", "-X", "stream"], "t"),
        ("tar-lz4", &["-Ft", "--compress=server-lz4", "-X", "stream"], "t"),
        ("tar-zstd", &["-Ft", "--compress=client-zstd", "-X", "stream"], "t"),
        ("tar-fetched", &["-Ft", "-X", "fetch"], "t"),
        ("tar-none", &["-Ft", "-X", "none"], "f"),
    ] {
        let (id, told) = recorded(&cluster, name, options, nothing)?;
        assert_eq!(
            (included(&cluster, &id)?.as_str(), told.as_str()),
            (expected, ""),
            "{name}"
        );
    }
    // Whether a compressed tar holds WAL among its data is not worth decompressing all of it.
    let (id, told) = recorded(&cluster, "tar-gz-fetched", &["-Ft", "-z", "-X", "fetch"], nothing)?;
    assert_eq!(included(&cluster, &id)?, "");
    ensure!(told.contains("is not decompressed to look for WAL"), "{told}");
    let cut = |path: &Path| {
        let tar = path.join("pg_wal.tar.gz");
        let whole = fs::read(&tar)?;
        Ok(fs::write(&tar, whole.get(..whole.len() / 2).unwrap_or_default())?)
    };
    let (id, told) = recorded(&cluster, "tar-cut", &["-Ft", "-z", "-X", "stream"], cut)?;
    assert_eq!(included(&cluster, &id)?, "f");
    ensure!(told.contains("the stored file is cut"), "{told}");
    Ok(())
}

#[test]
fn what_a_backup_says_of_itself_is_believed_only_within_what_was_recorded() -> Result<()> {
    let cluster = without_archive()?;
    let (id, _) = recorded(&cluster, "base", &["-X", "stream"], nothing)?;
    assert_eq!(included(&cluster, &id)?, "t");
    // The same backup, said to have been taken later.
    let path = cluster.place("base");
    let path = path.display();
    let again = |complete: &str| -> Result<String> {
        cluster.text("CHECKPOINT; SELECT pg_switch_wal()")?;
        let id = cluster.text(&format!("SELECT backup_id FROM record_backup_start('full', '{path}')"))?;
        cluster.text(&complete.replace("$id", &id))?;
        cluster.text(&format!(
            "SELECT wal_included IS NULL, start_lsn > (SELECT start_lsn FROM backup_history WHERE id = 1) FROM backup_history
              WHERE id = {id}"
        ))
    };
    assert_eq!(again("SELECT record_backup_complete($id)")?, "t|t");
    assert_eq!(again("SELECT record_backup_complete($id, status => 'failed')")?, "t|t");
    let manifest = cluster.place("base").join("backup_manifest");
    let text = fs::read_to_string(&manifest)?;
    fs::write(&manifest, text.replacen("\"Size\": ", "\"Size\": 1", 1))?;
    let id = cluster.text("SELECT backup_id FROM record_backup_start('full')")?;
    cluster.text(&format!("SELECT record_backup_complete({id})"))?;
    assert_eq!(included(&cluster, &id)?, "");
    assert_eq!(cluster.text("SELECT status FROM verify_ledger()")?, "intact");
    // Who may not read the server's files has nothing of them looked at.
    fs::write(&manifest, text)?;
    cluster.text(&format!(
        "CREATE ROLE operator LOGIN; GRANT EXECUTE ON FUNCTION record_backup_start, record_backup_complete TO operator;
         SET ROLE operator; SELECT record_backup_start('full', '{path}')"
    ))?;
    let mut operator = cluster.connect_as("operator", "postgres")?;
    tests::cluster::text_in(&mut operator, "SELECT record_backup_complete(5, 1)")?;
    assert_eq!(included(&cluster, "5")?, "");
    Ok(())
}

#[test]
fn a_dump_is_a_point_and_makes_no_window() -> Result<()> {
    let cluster = without_archive()?;
    let path = cluster.place("dump");
    let path = path.display().to_string();
    cluster.text(&format!("SELECT record_backup_start('logical', '{path}')"))?;
    cluster.client("pg_dump", &["-Fc", "-f", &path])?;
    cluster.text("SELECT record_backup_complete(1)")?;
    assert_eq!(
        cluster.text("SELECT status, wal_included IS NULL FROM backup_history")?,
        "completed|t"
    );
    assert_eq!(cluster.text("SELECT count(*) FROM recovery_windows")?, "0");
    Ok(())
}
