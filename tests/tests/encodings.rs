//! In every encoding that a database can have, and with a locale that sorts numbers, the worker and the functions go on, whatever
//! bytes strangers have put into names, and the ledger and a dump stay whole.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;

use anyhow::{Context, Result, ensure};
use tests::archive::Fault;
use tests::{Cluster, Look, Settings, Shutdown, process, wait, wait_until, worker};

/// A cluster all of whose databases are of one kind, and what can be said in it.
struct Place {
    /// Options of initdb.
    initdb: &'static [&'static str],
    /// A text in the client's UTF-8 that the encoding has.
    text: &'static str,
    /// How SQL writes bytes that no UTF-8 text has, where the encoding has such.
    raw: Option<&'static str>,
    /// The name of the archive's directory as the encoding can show it.
    shown: &'static str,
    /// Another encoding, in which somebody makes a restore point.
    other: (&'static str, &'static str),
    /// Whether a restore point with that text for a name can be named to a recovery.
    can_be_named: bool,
}

const UTF8: Place = Place {
    initdb: &[],
    text: "Größe 日本",
    raw: None,
    shown: "wäl 日本",
    other: ("SQL_ASCII", r"E'\xff\xfe gr\xf6\xdfe'"),
    can_be_named: true,
};
const LATIN1: Place = Place {
    initdb: &["--encoding=LATIN1"],
    text: "Größe",
    raw: None,
    shown: "wäl ??",
    other: ("UTF8", "'Größe 日本'"),
    can_be_named: false,
};
const EUC_JP: Place = Place {
    initdb: &["--encoding=EUC_JP"],
    text: "日本",
    raw: None,
    shown: "wäl 日本",
    other: ("UTF8", "'Größe ŵ 😀'"),
    can_be_named: false,
};
const SQL_ASCII: Place = Place {
    initdb: &["--encoding=SQL_ASCII"],
    text: "Größe 日本",
    raw: Some(r"E'\xff\xfe gr\xf6\xdfe'"),
    shown: "wäl 日本",
    other: ("SQL_ASCII", r"E'\xe9'"),
    can_be_named: false,
};
/// The archive's directory.
const ARCHIVE: &str = "wäl 日本";
/// The label that a role with nothing but REPLICATION gives its backup: text, a control character, and what is no text at all.
const LABEL: &[u8] = b"B\xc3\xbcro \xe6\x97\xa5\xe6\x9c\xac \x01\x7f \xff\xfe\x80 end";

/// A cluster with that archive, that label and those restore points, all that is archived verified.
fn settled(place: &Place) -> Result<Cluster> {
    let settings = Settings::new().set("pg_backstop.archive_grace", "2s");
    let settings = place
        .initdb
        .iter()
        .fold(settings, |settings, option| settings.initdb(option));
    let mut cluster = Cluster::start(settings)?;
    let archive = cluster.place(ARCHIVE);
    fs::create_dir(&archive)?;
    process::give_to_server(&archive)?;
    cluster.set("archive_command", &format!("cp \"%p\" \"{}/%f\"", archive.display()))?;
    cluster.reload()?;
    cluster.text("CREATE SCHEMA backstop; CREATE EXTENSION pg_backstop SCHEMA backstop")?;
    cluster.text("ALTER DATABASE postgres SET search_path = backstop, public")?;
    cluster.text("CREATE ROLE replicator REPLICATION LOGIN")?;

    let mut backup = cluster.client_command("pg_basebackup")?;
    backup
        .env("PGUSER", "replicator")
        .args(["--checkpoint=fast", "--no-sync", "-l"]);
    process::run(
        backup
            .arg(OsStr::from_bytes(LABEL))
            .arg("-D")
            .arg(cluster.place("backup")),
    )?;
    cluster.text(&format!("SELECT pg_create_restore_point('{}')", place.text))?;
    if let Some(raw) = place.raw {
        cluster.text(&format!("SELECT pg_create_restore_point({raw})"))?;
    }
    let (encoding, name) = place.other;
    cluster.text(&format!(
        "CREATE DATABASE other ENCODING '{encoding}' LOCALE 'C' TEMPLATE template0"
    ))?;
    let mut other = cluster.connect_as("postgres", "other")?;
    tests::cluster::text_in(&mut other, &format!("SELECT pg_create_restore_point({name})"))?;
    for _ in 0..4 {
        cluster.text("CREATE TABLE more AS SELECT 1; DROP TABLE more")?;
        cluster.archive_now()?;
    }
    is_ready(&cluster).context("before anything is wrong")?;
    Ok(cluster)
}

fn is_ready(cluster: &Cluster) -> Result<()> {
    let ready = cluster.wait_for("SELECT status, reasons FROM recovery_readiness", "ready|{}");
    ready.with_context(|| {
        let seen = "SELECT last_error FROM v_worker_status UNION ALL SELECT w::text FROM wal_archive w
                     WHERE status <> 'verified' OR start_lsn IS NULL";
        cluster.text(seen).unwrap_or_default()
    })
}

/// The worker ticks, and nothing but what is expected is wrong with it.
fn goes_on(cluster: &Cluster) -> Result<()> {
    worker::ticks(cluster, 2)?;
    assert_eq!(cluster.text("SELECT last_error FROM v_worker_status")?, "");
    let log = cluster.log()?;
    for complaint in [
        "invalid byte sequence",
        "has no equivalent",
        "default conversion",
        "\\u0000",
    ] {
        ensure!(!log.contains(complaint), "{complaint} in {log}");
    }
    Ok(())
}

/// Everything that anybody may look at, in the client's UTF-8.
fn looks(cluster: &Cluster) -> Result<()> {
    let views = cluster.text(
        "SELECT c.relname FROM pg_class c WHERE c.relnamespace = 'backstop'::regnamespace AND c.relkind IN ('r', 'v') ORDER BY 1",
    )?;
    ensure!(views.lines().count() > 15, "{views}");
    for view in views.lines() {
        cluster.text(&format!("SELECT * FROM {view}"))?;
    }
    let backup = cluster.place("backup");
    let prepared = cluster.text(&format!(
        "SELECT check_status FROM prepare_recovery('{}')",
        backup.display()
    ))?;
    ensure!(prepared.contains("passed"), "{prepared}");
    let wanted = cluster.text("SELECT * FROM verify_wal_archive()")?;
    ensure!(!wanted.is_empty());
    assert_eq!(cluster.text("SELECT status FROM verify_ledger()")?, "intact");
    Ok(())
}

/// A segment that is missing is weighed, and so is the archive when it is not there at all; both pass.
fn faults(cluster: &mut Cluster, place: &Place) -> Result<()> {
    let archive = cluster.place(ARCHIVE);
    let last = cluster.text("SELECT max(segment_name) FROM wal_archive WHERE start_lsn IS NOT NULL")?;
    let victim = cluster.text(&format!(
        "SELECT segment_name FROM wal_archive WHERE start_lsn IS NOT NULL AND segment_name < '{last}' COLLATE \"C\"
          ORDER BY segment_name DESC LIMIT 1"
    ))?;
    let kept = cluster.place("kept segment");
    fs::rename(archive.join(&victim), &kept)?;
    let rows = cluster
        .text("SELECT segment_name, status FROM verify_wal_archive() WHERE status NOT IN ('verified', 'pending')")?;
    assert_eq!(rows, format!("{victim}|missing"));
    let gap = "SELECT from_segment, to_segment, segments FROM wal_archive_gaps";
    cluster.wait_for(gap, &format!("{victim}|{victim}|1"))?;
    cluster.wait_for("SELECT status FROM recovery_readiness", "at_risk")?;
    looks(cluster)?;
    fs::rename(&kept, archive.join(&victim))?;
    is_ready(cluster).context("with the segment back")?;

    let away = cluster.place("away");
    fs::rename(&archive, &away)?;
    let said = format!(
        "SELECT last_error LIKE '%{}\" does not exist%' FROM v_worker_status",
        place.shown
    );
    cluster.wait_for(&said, "t").with_context(|| {
        cluster
            .text("SELECT last_error FROM v_worker_status")
            .unwrap_or_default()
    })?;
    for view in [
        "recovery_readiness",
        "recovery_windows",
        "wal_archive_gaps",
        "v_rto_prediction",
        "v_worker_status",
    ] {
        cluster.text(&format!("SELECT * FROM {view}"))?;
    }
    let reasons = cluster.text("SELECT array_to_string(reasons, ' ') FROM recovery_readiness")?;
    ensure!(reasons.contains(place.shown), "{reasons}");
    let refused = cluster.refusal("SELECT * FROM verify_wal_archive()")?;
    ensure!(refused.message().contains("does not exist"), "{}", refused.message());
    fs::rename(&away, &archive)?;
    is_ready(cluster).context("with the archive back")
}

/// What was put on record by others, and what is by calls.
fn records(cluster: &Cluster, place: &Place) -> Result<()> {
    let (text, backup) = (place.text, cluster.place("backup"));
    let label = cluster.text("SELECT label FROM backup_history WHERE origin = 'detected'")?;
    ensure!(label.starts_with('B') && label.ends_with(" end"), "{label:?}");
    let known = format!("SELECT count(*) FROM restore_points WHERE name = '{text}'");
    assert_eq!(
        cluster.text(&known)?,
        "1",
        "{}",
        cluster.text("SELECT * FROM restore_points")?
    );

    cluster.text(&format!(
        "INSERT INTO backup_policies (policy_name, options) VALUES ('{text}', '{{\"a\": \"{text}\"}}')"
    ))?;
    let id = cluster.text(&format!(
        "SELECT backup_id FROM record_backup_start('full', '{}', '{text}', E'{text}\\x01')",
        backup.display()
    ))?;
    cluster.text(&format!(
        "SELECT * FROM record_backup_complete({id}, status => 'failed', error => '{text}')"
    ))?;
    let kept = format!("SELECT label = E'{text}\\x01', error = '{text}' FROM backup_history WHERE id = {id}");
    assert_eq!(cluster.text(&kept)?, "t|t");
    let recovery = format!("SELECT recovery_id FROM record_recovery_start('name', target_name => '{text}')");
    let recovery = cluster.text(&recovery)?;
    cluster.text(&format!(
        "SELECT * FROM record_recovery_complete({recovery}, 'failed', error => '{text}')"
    ))?;

    // What is refused is said, whatever it quotes.
    for call in [
        format!("record_backup_start('{text}')"),
        format!("record_backup_start('full', policy_name => '{text} no')"),
        format!("record_backup_complete({id})"),
        format!("verify_wal_archive('{text}')"),
        format!("prepare_recovery('{text}')"),
        format!("recovery_plan(target_name => '{text} no')"),
    ] {
        let refused = cluster.refusal(&format!("SELECT * FROM {call}"))?;
        let code = refused.code().code();
        ensure!(
            !code.starts_with("22P05") && !code.starts_with("22021"),
            "{call}: {refused:?}"
        );
    }
    // What somebody else's code says comes through, too, with a SQLSTATE of its own.
    cluster.text(&format!(
        "CREATE FUNCTION complain() RETURNS trigger LANGUAGE plpgsql AS
             $$BEGIN RAISE EXCEPTION USING MESSAGE = 'no {text} here', ERRCODE = '23514'; END$$;
         CREATE TRIGGER complain BEFORE INSERT ON backup_history FOR EACH ROW EXECUTE FUNCTION complain()"
    ))?;
    let refused = cluster.refusal("SELECT * FROM record_backup_start()")?;
    assert_eq!(refused.code().code(), "23514", "{refused:?}");
    ensure!(
        refused.message().starts_with("no ") && refused.message().ends_with(" here"),
        "{refused:?}"
    );
    cluster.text("DROP TRIGGER complain ON backup_history")?;
    // Long texts are converted in pieces, there and back.
    let long = format!("'x' || repeat('{text}', 700)");
    let id = cluster.text("SELECT backup_id FROM record_backup_start()")?;
    cluster.text(&format!(
        "SELECT * FROM record_backup_complete({id}, status => 'failed', error => {long})"
    ))?;
    let told = format!("SELECT strpos(array_to_string(reasons, ' '), {long}) > 0 FROM recovery_readiness");
    assert_eq!(cluster.text(&told)?, "t");
    if let Some(raw) = place.raw {
        // It is no UTF-8, so a client that wants UTF-8 cannot read it back from SQL; the functions can live with it.
        cluster.text(&format!("SELECT record_backup_start('full', label => {raw})"))?;
        let refused = cluster.refusal(&format!("SELECT record_backup_start({raw})"))?;
        ensure!(
            refused.message().contains("invalid backup_type"),
            "{}",
            refused.message()
        );
    }
    assert_eq!(cluster.text("SELECT status FROM verify_ledger()")?, "intact");
    Ok(())
}

fn plans(cluster: &Cluster, place: &Place) -> Result<()> {
    let steps = |target: &str| cluster.text(&format!("SELECT command FROM recovery_plan({target})"));
    let whole = cluster.text("SELECT array_to_string(array_agg(command), ' ') FROM recovery_plan()");
    let name = format!("target_name => '{}'", place.text);
    if place.shown == ARCHIVE {
        let whole = whole?;
        ensure!(whole.contains(ARCHIVE), "{whole}");
    } else {
        // A plan that names another directory than the archive's would be worse than none.
        let refused = cluster.refusal("SELECT * FROM recovery_plan()")?;
        ensure!(
            refused.message().contains("encoding of this database"),
            "{}",
            refused.message()
        );
        return Ok(());
    }
    if place.can_be_named {
        ensure!(steps(&name)?.contains(place.text));
    } else {
        let refused = cluster.refusal(&format!("SELECT * FROM recovery_plan({name})"))?;
        ensure!(
            refused.message().contains("cannot be named to a recovery"),
            "{}",
            refused.message()
        );
        let lsn = cluster.text(&format!("SELECT lsn FROM restore_points WHERE name = '{}'", place.text))?;
        ensure!(
            refused.hint().is_some_and(|hint| hint.contains(&lsn)),
            "{:?}",
            refused.hint()
        );
        ensure!(steps(&format!("target_lsn => '{lsn}'"))?.contains(&lsn));
    }
    Ok(())
}

/// A dump of the database goes into another one of its kind, with a ledger that is intact there.
fn is_dumped(cluster: &Cluster) -> Result<()> {
    let dump = cluster.place("dump.sql").display().to_string();
    cluster.client("pg_dump", &["-f", &dump, "postgres"])?;
    cluster.text("CREATE DATABASE restored TEMPLATE template0")?;
    cluster.client(
        "psql",
        &["-X", "-q", "-v", "ON_ERROR_STOP=1", "-d", "restored", "-f", &dump],
    )?;
    let mut restored = cluster.connect_as("postgres", "restored")?;
    assert_eq!(
        tests::cluster::text_in(&mut restored, "SELECT status FROM backstop.verify_ledger()")?,
        "intact"
    );
    Ok(())
}

fn all_is_well_in(place: &Place) -> Result<()> {
    let mut cluster = settled(place)?;
    goes_on(&cluster)?;
    looks(&cluster)?;
    faults(&mut cluster, place)?;
    records(&cluster, place)?;
    plans(&cluster, place)?;
    goes_on(&cluster)?;
    is_dumped(&cluster)?;
    goes_on(&cluster)
}

#[test]
fn in_utf8_the_worker_and_the_functions_live_with_any_bytes() -> Result<()> {
    all_is_well_in(&UTF8)
}

#[test]
fn in_latin1_the_worker_and_the_functions_live_with_any_bytes() -> Result<()> {
    all_is_well_in(&LATIN1)
}

#[test]
fn in_euc_jp_the_worker_and_the_functions_live_with_any_bytes() -> Result<()> {
    all_is_well_in(&EUC_JP)
}

#[test]
fn in_sql_ascii_the_worker_and_the_functions_live_with_any_bytes() -> Result<()> {
    all_is_well_in(&SQL_ASCII)
}

/// The client is answered in the database's own encoding there.
#[test]
fn in_an_encoding_without_a_way_to_utf8_the_worker_and_the_functions_live_with_any_bytes() -> Result<()> {
    let mut cluster = Cluster::start(Settings::new())?;
    cluster.text("CREATE DATABASE mule ENCODING 'MULE_INTERNAL' LOCALE 'C' TEMPLATE template0")?;
    cluster.set("pg_backstop.database", "mule")?;
    cluster.restart(Shutdown::Fast)?;
    let ask = |sql: &str| cluster.client("psql", &["-XAt", "-v", "ON_ERROR_STOP=1", "-d", "mule", "-c", sql]);
    let wait_for = |sql: &str, expected: &str| {
        wait_until(&format!("{expected:?} from {sql}"), wait::SOON, || {
            let seen = ask(sql)?;
            Ok(if seen.trim() == expected {
                Look::Done(())
            } else {
                Look::NotYet(format!(
                    "{seen} {}",
                    ask("SELECT last_error FROM backstop.v_worker_status")?
                ))
            })
        })
    };
    ask("CREATE SCHEMA backstop; CREATE EXTENSION pg_backstop SCHEMA backstop")?;
    let mut backup = cluster.client_command("pg_basebackup")?;
    backup.args(["--checkpoint=fast", "--no-sync", "-l"]);
    process::run(
        backup
            .arg(OsStr::from_bytes(LABEL))
            .arg("-D")
            .arg(cluster.place("backup")),
    )?;
    cluster.text("SELECT pg_create_restore_point('Größe 日本')")?;
    cluster.archive_now()?;
    wait_for("SELECT status, reasons FROM backstop.recovery_readiness", "ready|{}")?;
    wait_for("SELECT name FROM backstop.restore_points", "Gr??e ??")?;
    assert_eq!(
        ask("SELECT label LIKE 'B?ro ??%end' FROM backstop.backup_history")?.trim(),
        "t"
    );
    cluster.text("ALTER SYSTEM SET pg_backstop.archive_source = 'dir:/nowhere/wäl'")?;
    cluster.reload()?;
    wait_for(
        "SELECT last_error FROM backstop.v_worker_status",
        "archive directory \"/nowhere/w?l\" does not exist, or is not mounted",
    )?;
    ask("SELECT backstop.record_backup_start('full', label => convert_from('\\x81c4', 'MULE_INTERNAL'))")?;
    assert_eq!(ask("SELECT status FROM backstop.verify_ledger()")?.trim(), "intact");
    cluster
        .client(
            "pg_dump",
            &["-f", &cluster.place("dump.sql").display().to_string(), "mule"],
        )
        .map(drop)
}

/// ALTER SYSTEM in such a database writes the path in the database's encoding, and the server takes it byte for byte.
#[test]
fn a_path_is_the_bytes_that_the_setting_has() -> Result<()> {
    let cluster = Cluster::start(
        Settings::new()
            .initdb("--encoding=LATIN1")
            .set("archive_command", "false"),
    )?;
    let archive = cluster.place("archive").with_file_name(OsStr::from_bytes(b"w\xe4l"));
    fs::create_dir(&archive)?;
    process::give_to_server(&archive)?;
    let beside = cluster.place("wäl").display().to_string();
    // The lines of postgresql.auto.conf come last.
    cluster.text(&format!(
        "ALTER SYSTEM SET archive_command = 'cp \"%p\" \"{beside}/%f\"'"
    ))?;
    cluster.reload()?;
    cluster.text("CREATE EXTENSION pg_backstop")?;
    cluster.base_backup(&cluster.place("backup"))?;
    cluster.archive_now()?;
    is_ready(&cluster)?;
    ensure!(fs::read_dir(&archive)?.count() > 2);
    cluster.text(&format!(
        "ALTER SYSTEM SET restore_command = 'cp \"{beside}/%f\" \"%p\"'"
    ))?;
    cluster.reload()?;
    cluster.wait_for(
        "SELECT archive_source LIKE 'restore_command%' FROM v_worker_status",
        "t",
    )?;
    is_ready(&cluster)?;
    let read = "SELECT count(*) FROM verify_wal_archive() WHERE status <> 'verified'";
    assert_eq!(cluster.text(read)?, "0");
    goes_on(&cluster)
}

/// The client's encoding need not be the database's.
#[test]
fn a_message_comes_out_in_a_client_encoding_that_lacks_its_characters() -> Result<()> {
    let cluster = Cluster::start(Settings::new())?;
    cluster.text("CREATE EXTENSION pg_backstop")?;
    let mut psql = cluster.client_command("psql")?;
    psql.env("PGCLIENTENCODING", "LATIN1");
    let refused = process::output(psql.args(["-X", "-c", r"SELECT record_backup_start(U&'\5168\00e4')"]))?;
    let said = String::from_utf8_lossy(&refused.stderr);
    ensure!(said.contains("invalid backup_type: \"?\u{FFFD}\""), "{said}");
    Ok(())
}

/// In the order of such a locale `…0A` comes before `…09`, for it takes the digits for numbers.
#[test]
fn with_a_locale_that_sorts_numbers_segments_are_in_their_order() -> Result<()> {
    let settings = ["--locale-provider=icu", "--icu-locale=en-u-kn-true"];
    let settings = settings
        .iter()
        .fold(Settings::new(), |settings, option| settings.initdb(option));
    let cluster = Cluster::start(settings.set("pg_backstop.archive_grace", "2s"))?;
    cluster.text("CREATE EXTENSION pg_backstop")?;
    cluster.base_backup(&cluster.place("backup"))?;
    for _ in 0..40 {
        cluster.text("CREATE TABLE more AS SELECT 1; DROP TABLE more")?;
        cluster.text("SELECT pg_switch_wal()")?;
    }
    cluster.archive_now()?;
    is_ready(&cluster)?;
    let name = |digits: &str| format!("0000000100000000000000{digits}");
    let (first, last) = (name("18"), name("21"));
    assert!(
        cluster.text(&format!("SELECT '{first}' < '{}'", name("1A")))? == "f",
        "the locale does not sort numbers"
    );
    let faults = (0x18..=0x21).map(|number| cluster.archive().remove(&name(&format!("{number:02X}"))));
    let faults = faults.collect::<Result<Vec<_>>>()?;
    let count = "SELECT count(*) FROM verify_wal_archive()";
    cluster.text(count)?;
    let gaps = "SELECT from_segment, to_segment, segments FROM wal_archive_gaps";
    cluster.wait_for(gaps, &format!("{first}|{last}|10"))?;
    let some = format!(
        "SELECT count(*) FROM verify_wal_archive('{}', '{}')",
        name("19"),
        name("20")
    );
    assert_eq!(cluster.text(&some)?, "8");
    let acknowledged = format!("SELECT acknowledge_wal_gap('{first}', '{last}', 'lost')");
    assert_eq!(cluster.text(&acknowledged)?, "10");
    assert_eq!(cluster.text("SELECT status FROM verify_ledger()")?, "intact");
    assert_eq!(
        cluster.text("SELECT max(segment_name) > min(segment_name) FROM wal_archive WHERE start_lsn IS NOT NULL")?,
        "t"
    );
    faults.into_iter().try_for_each(Fault::mend)
}
