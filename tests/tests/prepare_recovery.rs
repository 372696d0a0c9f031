//! What prepare_recovery() passes can be recovered, and each fault that would spoil a recovery is found beforehand.

use std::fs;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use sha2::{Digest, Sha256};
use tests::wait::SOON;
use tests::{Cluster, Settings, process};

const ITEMS: &str = "backup_path backup_label backup_manifest backup_files system_identifier server_version wal_segment_size \
    backup_record verification backup_chain wal target timeline disk_space tools restore_command";

/// A cluster with a recorded base backup, and commits and verified WAL behind it.
struct Prepared {
    cluster: Cluster,
    path: PathBuf,
}

impl Prepared {
    fn with(options: &[&str]) -> Result<Self> {
        let mut cluster = Cluster::start(Settings::new().set("pg_backstop.archive_grace", "2s"))?;
        let archive = cluster.archive().path().display().to_string();
        cluster.set("pg_backstop.archive_source", &format!("dir:{archive}"))?;
        cluster.set("restore_command", &format!("cp \"{archive}/%f\" \"%p\""))?;
        cluster.reload()?;
        cluster.text("CREATE EXTENSION pg_backstop; CREATE TABLE kept AS SELECT 1 AS one; SELECT pg_switch_wal()")?;
        let path = cluster.place("base");
        let start = format!(
            "SELECT backup_id FROM record_backup_start('full', '{}')",
            path.display()
        );
        let id = cluster.text(&start)?;
        backup(&cluster, &path, options)?;
        cluster.text(&format!("SELECT record_backup_complete({id})"))?;
        let prepared = Self { cluster, path };
        for _ in 0..4 {
            prepared.cluster.text("INSERT INTO kept VALUES (2)")?;
            prepared.cluster.archive_now()?;
        }
        prepared.is_verified()?;
        Ok(prepared)
    }

    fn is_verified(&self) -> Result<()> {
        let behind = "SELECT count(*) FROM wal_archive WHERE status = 'verified' AND commit_count > 0
                         AND start_lsn >= (SELECT end_lsn FROM backup_history WHERE id = 1)";
        self.cluster.wait_for(&format!("SELECT ({behind}) >= 4"), "t")?;
        self.cluster.wait_for("SELECT status FROM recovery_readiness", "ready")
    }

    fn call(&self, more: &str) -> String {
        format!("prepare_recovery('{}'{more})", self.path.display())
    }

    /// Status and result of one check.
    fn check(&self, item: &str, more: &str) -> Result<(String, String)> {
        let row = self.cluster.text(&format!(
            "SELECT check_status, check_result FROM {} WHERE check_item = '{item}'",
            self.call(more)
        ))?;
        let (status, result) = row.split_once('|').with_context(|| format!("{item}: {row:?}"))?;
        Ok((status.to_owned(), result.to_owned()))
    }

    /// That one check ends so, and says all of these.
    fn says(&self, item: &str, more: &str, status: &str, words: &[&str]) -> Result<()> {
        let (found, result) = self.check(item, more)?;
        ensure!(
            found == status && words.iter().all(|word| result.contains(word)),
            "{item}{more}: {found}, not {status} with {words:?}: {result}"
        );
        Ok(())
    }

    /// Checks that are neither passed nor, as of what nobody has looked into, skipped.
    fn troubles(&self, more: &str) -> Result<String> {
        self.cluster.text(&format!(
            "SELECT check_item, check_status, check_result FROM {} WHERE check_status NOT IN ('passed', 'skipped')",
            self.call(more)
        ))
    }
}

fn backup(cluster: &Cluster, path: &std::path::Path, options: &[&str]) -> Result<()> {
    let mut command = cluster.client_command("pg_basebackup")?;
    process::run(
        command
            .args(["--checkpoint=fast", "--no-sync", "-D"])
            .arg(path)
            .args(options),
    )
    .map(drop)
}

#[test]
fn a_good_plain_backup_passes_every_check() -> Result<()> {
    let prepared = Prepared::with(&["-X", "stream"])?;
    let cluster = &prepared.cluster;
    let skipped = "SELECT string_agg(check_item, ' ') FROM prepare_recovery($path) WHERE check_status = 'skipped'";
    let path = format!("'{}'", prepared.path.display());
    assert_eq!(prepared.troubles("")?, "");
    assert_eq!(cluster.text(&skipped.replace("$path", &path))?, "verification");
    let items = format!("SELECT string_agg(check_item, ' ') FROM {}", prepared.call(""));
    assert_eq!(cluster.text(&items)?, ITEMS);
    prepared.says(
        "backup_files",
        "",
        "passed",
        &["files that the manifest lists are there"],
    )?;
    prepared.says("restore_command", "", "passed", &["the same content"])?;
    prepared.says("wal", "", "passed", &["is inside it", "ended by: now"])?;
    prepared.says("timeline", "", "passed", &["recovery_target_timeline = '1'"])?;
    // Both ends of the window belong to it, in LSN and in time.
    let ends = cluster.text("SELECT from_lsn, to_lsn, from_time, to_time FROM recovery_windows")?;
    let ends: Vec<&str> = ends.split('|').collect();
    let [from_lsn, to_lsn, from_time, to_time] = ends.as_slice() else {
        anyhow::bail!("{ends:?}");
    };
    for target in [
        format!(", target_lsn => '{from_lsn}'"),
        format!(", target_lsn => '{to_lsn}'"),
        format!(", target_time => '{from_time}'"),
    ] {
        assert_eq!(prepared.troubles(&target)?, "", "{target}");
        prepared.says("target", &target, "passed", &["lies inside"])?;
    }
    // No later commit makes the server stop at the very last one.
    let instead = format!("recovery_target_lsn = '{to_lsn}'");
    prepared.says(
        "target",
        &format!(", target_time => '{to_time}'"),
        "warning",
        &["lies inside", &instead],
    )?;
    Ok(())
}

/// `incremental_backup()` records where the WAL lies, which may be the backup's own directory.
#[test]
fn a_range_of_wal_recorded_at_the_same_path_is_not_the_backup() -> Result<()> {
    let prepared = Prepared::with(&["-X", "stream"])?;
    let range = prepared.cluster.text(&format!(
        "SELECT backup_id FROM incremental_backup((SELECT start_lsn FROM backup_history WHERE id = 1),
                                                  (SELECT end_lsn FROM backup_history WHERE id = 1), '{}')",
        prepared.path.display()
    ))?;
    assert_eq!(
        prepared
            .cluster
            .text(&format!("SELECT status FROM backup_history WHERE id = {range}"))?,
        "completed"
    );
    prepared.says("backup_record", "", "passed", &["Backup 1 of backup_history, full"])
}

#[test]
fn a_good_tar_backup_passes_what_can_be_seen_of_it() -> Result<()> {
    let prepared = Prepared::with(&["-Ft", "-X", "stream"])?;
    assert_eq!(prepared.troubles("")?, "");
    prepared.says("backup_files", "", "passed", &["The tars hold"])?;
    prepared.says("server_version", "", "passed", &[])?;
    prepared.says("system_identifier", "", "passed", &[])?;
    let tar = prepared.path.join("base.tar");
    let whole = fs::read(&tar)?;
    fs::write(&tar, whole.get(..whole.len() / 2).context("an empty tar")?)?;
    prepared.says("backup_files", "", "failed", &["base.tar"])?;

    let second = prepared.cluster.place("base");
    fs::remove_dir_all(&second)?;
    backup(&prepared.cluster, &second, &["-Ft", "-z", "-X", "none"])?;
    prepared.cluster.archive_now()?;
    prepared.says("backup_path", "", "passed", &["tar base backup"])?;
    prepared.says("backup_label", "", "passed", &["pg_basebackup base backup"])?;
    prepared.says("backup_files", "", "skipped", &["decompressing"])?;
    prepared.says("tools", "", "passed", &["tar", "gzip"])?;
    // What lies there now is another backup than the one that was recorded.
    prepared.says("backup_record", "", "failed", &["taken elsewhere"])
}

#[test]
fn each_fault_of_the_backup_is_found() -> Result<()> {
    let prepared = Prepared::with(&["-X", "stream"])?;
    let kept = prepared.cluster.place("good");
    process::run(
        std::process::Command::new("cp")
            .arg("-a")
            .arg(&prepared.path)
            .arg(&kept),
    )?;
    let mend = || -> Result<()> {
        if prepared.path.exists() {
            fs::remove_dir_all(&prepared.path)?;
        }
        process::run(
            std::process::Command::new("cp")
                .arg("-a")
                .arg(&kept)
                .arg(&prepared.path),
        )
        .map(drop)
    };
    let victim = prepared.path.join("base/1/PG_VERSION");

    let bytes = fs::metadata(&victim)?.len();
    fs::File::options().write(true).open(&victim)?.set_len(bytes - 1)?;
    let expected = format!("has {} bytes, where the manifest says {bytes}", bytes - 1);
    prepared.says("backup_files", "", "failed", &["1 of", "base/1/PG_VERSION", &expected])?;

    fs::remove_file(&victim)?;
    prepared.says(
        "backup_files",
        "",
        "failed",
        &["1 of", "base/1/PG_VERSION", "is missing"],
    )?;

    std::os::unix::fs::symlink("/etc/passwd", &victim)?;
    prepared.says("backup_files", "", "failed", &["is no regular file"])?;
    mend()?;

    let manifest = prepared.path.join("backup_manifest");
    let text = fs::read_to_string(&manifest)?;
    fs::write(&manifest, text.replacen("CRC32C", "CRC32D", 1))?;
    prepared.says("backup_manifest", "", "failed", &["its last line says"])?;
    prepared.says("backup_files", "", "skipped", &[])?;

    // One that is right in itself, and asks for more than any disk holds.
    let huge = text.replacen("\"Size\": ", "\"Size\": 4000000000000000", 1);
    let covered = huge.rfind("\"Manifest-Checksum\"").context("no checksum")?;
    let (body, _) = huge.split_at(covered);
    let checksum: String = Sha256::digest(body.as_bytes())
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    fs::write(&manifest, format!("{body}\"Manifest-Checksum\": \"{checksum}\"}}\n"))?;
    prepared.says("backup_manifest", "", "passed", &[])?;
    prepared.says("disk_space", "", "failed", &["bytes free", "are needed"])?;

    let second = prepared.cluster.place("second");
    backup(&prepared.cluster, &second, &["-X", "stream"])?;
    fs::copy(second.join("backup_manifest"), &manifest)?;
    prepared.says("backup_manifest", "", "failed", &["of a backup that begins at LSN"])?;

    fs::remove_file(&manifest)?;
    prepared.says("backup_manifest", "", "warning", &["does not exist"])?;
    mend()?;

    fs::remove_file(prepared.path.join("backup_label"))?;
    prepared.says("backup_label", "", "failed", &["backup_label", "does not exist"])?;
    mend()?;

    fs::write(prepared.path.join("PG_VERSION"), "12\n")?;
    prepared.says("server_version", "", "failed", &["PostgreSQL 12"])?;
    mend()?;

    let control = prepared.path.join("global/pg_control");
    let mut bytes = fs::read(&control)?;
    *bytes.get_mut(100).context("a short control file")? ^= 1;
    fs::write(&control, bytes)?;
    prepared.says("system_identifier", "", "failed", &["its checksum is wrong"])?;
    mend()?;

    let other = Cluster::start(Settings::new().own_identity())?;
    fs::remove_dir_all(&prepared.path)?;
    backup(&other, &prepared.path, &["-X", "stream"])?;
    prepared.says("system_identifier", "", "failed", &["of the cluster", "and this is"])?;
    prepared.says("wal", "", "skipped", &["another cluster's"])?;

    fs::remove_dir_all(&prepared.path)?;
    prepared.says("backup_path", "", "failed", &["does not exist"])?;
    prepared.says("backup_record", "", "passed", &["Backup 1 of"])?;
    prepared.says("wal", "", "passed", &["By the ledger"])?;
    mend()?;
    assert_eq!(prepared.troubles("")?, "");

    prepared
        .cluster
        .text("UPDATE backup_history SET backup_path = '/elsewhere'")?;
    prepared.says("backup_record", "", "warning", &["No row of backup_history"])?;
    prepared.says("wal", "", "passed", &["is inside it"])?;
    prepared.says("target", "", "passed", &["The end of WAL"])
}

#[test]
fn each_fault_of_the_way_to_the_target_is_found() -> Result<()> {
    let mut prepared = Prepared::with(&["-X", "stream"])?;
    let cluster = &prepared.cluster;
    let window = cluster.text("SELECT from_lsn, to_lsn, from_time, to_time FROM recovery_windows")?;
    let window: Vec<String> = window.split('|').map(str::to_owned).collect();
    let [from_lsn, to_lsn, _, to_time] = window.as_slice() else {
        anyhow::bail!("{window:?}");
    };
    let before = format!(", target_lsn => pg_lsn '{from_lsn}' - 1");
    prepared.says(
        "target",
        &before,
        "failed",
        &["before this backup is consistent", &format!("LSN {from_lsn}")],
    )?;
    let early = ", target_time => '2020-01-01'";
    prepared.says(
        "target",
        early,
        "failed",
        &["before this backup is consistent", "nearest moment", "backup 1"],
    )?;
    // Committed, and not archived yet.
    cluster.text("INSERT INTO kept VALUES (3)")?;
    let behind = ", target_lsn => pg_current_wal_flush_lsn()";
    prepared.says("wal", behind, "failed", &[to_lsn])?;
    prepared.says(
        "target",
        behind,
        "failed",
        &["lies behind", &format!("LSN {to_lsn} (backup 1)")],
    )?;
    let late = format!(", target_time => timestamptz '{to_time}' + interval '1 microsecond'");
    prepared.says("target", &late, "failed", &["lies behind", "nearest moment"])?;

    let lost = cluster.text(
        "SELECT segment_name FROM wal_archive
          WHERE status = 'verified' AND commit_count > 0 AND start_lsn > (SELECT end_lsn FROM backup_history WHERE id = 1)
          ORDER BY start_lsn OFFSET 1 LIMIT 1",
    )?;
    let fault = cluster.archive().remove(&lost)?;
    cluster.wait_for(
        &format!("SELECT status FROM wal_archive WHERE segment_name = '{lost}'"),
        "missing",
    )?;
    let behind_it = format!(", target_lsn => '{to_lsn}'");
    prepared.says("wal", &behind_it, "failed", &[&lost, "missing"])?;
    prepared.says("target", &behind_it, "failed", &["lies behind"])?;
    prepared.says("wal", "", "warning", &[&lost])?;
    fault.mend()?;
    cluster.wait_for(
        &format!("SELECT status FROM wal_archive WHERE segment_name = '{lost}'"),
        "verified",
    )?;

    let archive = cluster.archive().path().display().to_string();
    let needed = cluster.text("SELECT pg_walfile_name(end_lsn) FROM backup_history WHERE id = 1")?;
    for (command, status, words) in [
        (
            "exit 3".to_owned(),
            "failed",
            &["did not bring", "exited with code 3"][..],
        ),
        ("/bin/true".to_owned(), "failed", &["left no file"]),
        ("/nowhere/fetch %f".to_owned(), "failed", &["code 127"]),
        (
            format!("cp \"{archive}/{lost}\" \"%p\""),
            "failed",
            &["address", needed.as_str()],
        ),
        (
            format!("head -c 1000 \"{archive}/%f\" > \"%p\""),
            "failed",
            &["corrupt"],
        ),
        (String::new(), "warning", &["is not set", needed.as_str()]),
    ] {
        prepared.cluster.set("restore_command", &command)?;
        prepared.cluster.reload()?;
        prepared.says("restore_command", "", status, words)?;
    }
    Ok(())
}

#[test]
fn an_incremental_backup_wants_all_that_it_builds_on() -> Result<()> {
    let prepared = Prepared::with(&["-X", "stream"])?;
    let cluster = &prepared.cluster;
    if cluster.server().major() < 17 {
        return Ok(());
    }
    cluster.text("ALTER SYSTEM SET summarize_wal = on")?;
    cluster.reload()?;
    let full = cluster.place("full");
    let incremental = cluster.place("incremental");
    let manifest = format!("--incremental={}", full.join("backup_manifest").display());
    for (path, options) in [(&full, vec![]), (&incremental, vec![manifest.as_str()])] {
        let start = format!(
            "SELECT backup_id FROM record_backup_start('full', '{}')",
            path.display()
        );
        let id = cluster.text(&start)?;
        backup(cluster, path, &options)?;
        cluster.text(&format!("SELECT record_backup_complete({id})"))?;
    }
    // Whatever its recorder called it, the backup itself says what it builds on.
    let parent =
        "SELECT c.backup_type, p.backup_path FROM backup_history c JOIN backup_history p ON p.id = c.parent_id";
    assert_eq!(cluster.text(parent)?, format!("incremental|{}", full.display()));
    cluster.archive_now()?;
    let check = |item: &str| {
        cluster.text(&format!(
            "SELECT check_status, check_result FROM prepare_recovery('{}') WHERE check_item = '{item}'",
            incremental.display()
        ))
    };
    let chain = check("backup_chain")?;
    ensure!(chain.starts_with("passed|It builds on backups"), "{chain}");
    let tools = check("tools")?;
    ensure!(tools == "passed|Found: pg_combinebackup.", "{tools}");
    let wal = check("wal")?;
    ensure!(wal.starts_with("passed|"), "{wal}");
    fs::rename(&full, cluster.place("moved"))?;
    let chain = check("backup_chain")?;
    ensure!(
        chain.starts_with("failed|") && chain.contains("does not exist"),
        "{chain}"
    );
    Ok(())
}

/// The header of a file in a tar (src/port/tar.c).
fn tar_header(name: &str, octal_size: &str) -> [u8; 512] {
    let mut header = [0_u8; 512];
    let mut put = |at: usize, text: &str| {
        for (byte, value) in header.iter_mut().skip(at).zip(text.bytes()) {
            *byte = value;
        }
    };
    put(0, name);
    put(100, "0000600");
    put(124, octal_size);
    put(148, "        ");
    put(156, "0");
    put(257, "ustar");
    put(263, "00");
    let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
    for (byte, value) in header.iter_mut().skip(148).zip(format!("{sum:06o}\0 ").bytes()) {
        *byte = value;
    }
    header
}

#[test]
fn what_takes_long_can_be_canceled() -> Result<()> {
    let cluster = Cluster::start(Settings::new())?;
    cluster.text("CREATE EXTENSION pg_backstop")?;
    // Half a terabyte of zeros that take no room, and no label among the first files.
    let path = cluster.place("base");
    fs::create_dir(&path)?;
    let tar = fs::File::create(path.join("base.tar"))?;
    let each = (8_u64 << 30) - 512;
    for number in 0..64 {
        tar.write_all_at(
            &tar_header(&format!("base/1/{number}"), &format!("{each:011o}")),
            number * (each + 512),
        )?;
    }
    tar.set_len(64 * (each + 512))?;
    let began = Instant::now();
    let error = cluster.refusal(&format!(
        "SET statement_timeout = '1s'; SELECT * FROM prepare_recovery('{}')",
        path.display()
    ))?;
    assert_eq!(error.code().code(), "57014", "{error}");
    ensure!(began.elapsed() < SOON, "it took {:?}", began.elapsed());
    // The session is as good as before.
    let absent = "SELECT check_status FROM prepare_recovery('/nowhere') WHERE check_item = 'backup_path'";
    assert_eq!(cluster.text(absent)?, "failed");
    Ok(())
}

#[test]
fn what_cannot_be_meant_is_refused() -> Result<()> {
    let cluster = Cluster::start(Settings::new())?;
    cluster.text("CREATE EXTENSION pg_backstop; CREATE ROLE operator LOGIN")?;
    for (arguments, code, words) in [
        ("NULL", "22004", "backup_path must not be null"),
        ("''", "22023", "not an absolute path"),
        ("'base'", "22023", "not an absolute path"),
        ("'/base', now(), '0/1'", "22023", "are both given"),
        ("'/base', 'infinity'", "22023", "target_time must be a moment"),
        ("'/base', now() + interval '1 hour'", "22023", "in the future"),
        ("'/base', target_lsn => 'FFFFFFFF/0'", "22023", "has not been reached"),
    ] {
        let error = cluster.refusal(&format!("SELECT * FROM prepare_recovery({arguments})"))?;
        assert_eq!(error.code().code(), code, "{arguments}: {error}");
        assert!(error.message().contains(words), "{arguments}: {error}");
        assert!(error.hint().is_some(), "{arguments}: {error}");
        assert!(error.detail().is_some() || code == "22004", "{arguments}: {error}");
    }
    let absent =
        "SELECT check_status, check_result FROM prepare_recovery('/nowhere/base') WHERE check_item = 'backup_path'";
    assert_eq!(cluster.text(absent)?, "failed|Backup \"/nowhere/base\" does not exist.");
    let statuses =
        "SELECT string_agg(DISTINCT check_status, ' ' ORDER BY check_status) FROM prepare_recovery('/nowhere/base')";
    assert_eq!(cluster.text(statuses)?, "failed skipped warning");
    cluster.text("GRANT EXECUTE ON FUNCTION prepare_recovery TO operator")?;
    let mut operator = cluster.connect_as("operator", "postgres")?;
    let call = "SELECT * FROM prepare_recovery('/nowhere/base')";
    let error = tests::cluster::refusal_in(&mut operator, call)?;
    assert_eq!(error.code().code(), "42501", "{error}");
    cluster.text("GRANT pg_read_server_files TO operator")?;
    tests::cluster::text_in(&mut operator, call)?;
    // What a directory without a backup in it is.
    let data = cluster.data().display().to_string();
    let sql = format!("SELECT check_result FROM prepare_recovery('{data}') WHERE check_item = 'backup_path'");
    assert!(cluster.text(&sql)?.contains("data directory without a backup label"));
    Ok(())
}
