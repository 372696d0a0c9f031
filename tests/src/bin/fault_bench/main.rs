//! `make fault-bench`: each fault of the project's list made for real, and what every tool says of the very same fault.
//!
//! Prints a table in Markdown and puts it into `docs/faults.md`. Ends with status 0 only if pg_backstop said what it must.

mod faults;
mod said;
mod site;

use std::fs;
use std::process::ExitCode;

use anyhow::{Context, Result, ensure};
use said::{Said, Stretch};
use site::{Change, Site};
use tests::progress::step;
use tests::{Cluster, Codec, Settings, Shutdown, process, scratch};

const PAGE: &str = "docs/faults.md";
const BEGIN: &str = "<!-- make fault-bench writes from here -->";
const END: &str = "<!-- to here -->";

fn main() -> ExitCode {
    match bench() {
        Ok(0) => ExitCode::SUCCESS,
        Ok(wrong) => {
            eprintln!("\npg_backstop did not say what it must of {wrong} faults.");
            ExitCode::FAILURE
        }
        Err(error) => {
            scratch::leave_to_signal_handler();
            eprintln!("\nThe fault bench failed: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// A fault and what was said of it.
struct Row {
    number: &'static str,
    what: &'static str,
    ours: String,
    is_right: bool,
    peers: [String; 6],
}

fn bench() -> Result<usize> {
    let mut rows = Vec::new();
    let mut site = step("archiving a cluster with pgBackRest and Barman", || Site::start(None))?;
    let versions = versions(&site)?;
    watch(&site.cluster)?;
    rows.push(step("no fault", || sound(&site))?);
    for fault in faults::in_segments(&site)? {
        rows.push(step(fault.what, || in_place(&site, &fault))?);
    }
    let (other, clone) = step("copying the cluster twice", || twins(&mut site))?;
    rows.push(step(other.what, || in_place(&site, &other))?);
    rows.push(step("a clone is promoted", || clone_archives(&site, clone))?);
    drop(site);

    let site = step("the same with compression", || Site::start(Some(Codec::Gzip)))?;
    watch(&site.cluster)?;
    for fault in faults::in_compressed_segments(&site)? {
        rows.push(step(fault.what, || in_place(&site, &fault))?);
    }
    drop(site);

    let mut site = step("the same with a promotion", || Site::start(None))?;
    promote(&mut site)?;
    watch(&site.cluster)?;
    for fault in in_history(&site)? {
        rows.push(step(fault.what, || in_place(&site, &fault))?);
    }
    rows.push(step("a failover", || failover(site))?);

    rows.sort_by_key(|row| row.number.get(1..).and_then(|digits| digits.parse::<u32>().ok()));
    let table = table(&rows);
    println!("{versions}\n\n{table}");
    let path = process::repository().join(PAGE);
    let page = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
    let (before, rest) = page.split_once(BEGIN).context("no place for the table")?;
    let (_, after) = rest.split_once(END).context("no place for the table")?;
    fs::write(&path, format!("{before}{BEGIN}\n{versions}\n\n{table}{END}{after}"))?;
    Ok(rows.iter().filter(|row| !row.is_right).count())
}

fn versions(site: &Site) -> Result<String> {
    let mut pgbackrest = process::program(process::tool("pgbackrest")?, process::OnOurEnd::Kill)?;
    let mut barman = process::program(process::tool("barman")?, process::OnOurEnd::Kill)?;
    let first = |said: String| {
        said.split_whitespace()
            .find(|word| word.starts_with(|c: char| c.is_ascii_digit()))
            .unwrap_or_default()
            .to_owned()
    };
    Ok(format!(
        "PostgreSQL {}, pgBackRest {}, Barman {}.",
        site.cluster
            .text("SHOW server_version")?
            .split(' ')
            .next()
            .unwrap_or_default(),
        first(process::run(pgbackrest.arg("version"))?),
        first(process::run(barman.arg("--version"))?),
    ))
}

fn table(rows: &[Row]) -> String {
    let mut text = "| | fault | pg_backstop | pgBackRest `verify` | the same, archived as it is | pgBackRest `check` | Barman `check` | Barman `check-backup` | `pg_waldump` |\n|---|---|---|---|---|---|---|---|---|\n".to_owned();
    for row in rows {
        let [verify, as_archived, check, barman, check_backup, waldump] = &row.peers;
        text.push_str(&format!(
            "| {} | {} | {} | {verify} | {as_archived} | {check} | {barman} | {check_backup} | {waldump} |\n",
            row.number, row.what, row.ours
        ));
    }
    text
}

fn watch(cluster: &Cluster) -> Result<()> {
    cluster.text("CREATE EXTENSION pg_backstop")?;
    is_ready(cluster)
}

fn is_ready(cluster: &Cluster) -> Result<()> {
    cluster.wait_for("SELECT count(*) > 0 FROM wal_archive WHERE status = 'verified'", "t")?;
    cluster
        .wait_for("SELECT status, reasons FROM recovery_readiness", "ready|{}")
        .with_context(|| {
            let bad = "SELECT segment_name, status, problem, detail FROM wal_archive WHERE status NOT IN ('verified', 'pending')";
            cluster.text(bad).unwrap_or_default()
        })
}

/// What pg_backstop has on record, as a cell and as kinds of findings.
fn ours(cluster: &Cluster) -> Result<(String, Vec<String>)> {
    let kinds = |columns: &str| -> Result<Vec<String>> {
        let found = cluster.text(&format!(
            "SELECT DISTINCT {columns} FROM wal_archive WHERE status NOT IN ('verified', 'pending') ORDER BY 1"
        ))?;
        Ok(found.lines().map(str::to_owned).collect())
    };
    let problems = kinds("'`' || problem || '`'")?.join(" and ");
    let seen = if problems.is_empty() {
        "not seen".to_owned()
    } else {
        format!("**seen**: {problems}")
    };
    let readiness = cluster.text("SELECT status FROM recovery_readiness")?;
    Ok((format!("{seen}; {readiness}"), kinds("status, problem")?))
}

fn row(
    site: &Site,
    (number, what): (&'static str, &'static str),
    verdict: Option<(&str, &str)>,
    as_archived: Option<&Said>,
    stretch: Option<&Stretch>,
) -> Result<Row> {
    let (ours, found) = ours(&site.cluster)?;
    let verdict = verdict.map(|(status, problem)| format!("{status}|{problem}"));
    let does_not_apply = || "–".to_owned();
    let waldump = match stretch {
        Some(stretch) => said::pg_waldump(site, stretch)?.cell(),
        None => does_not_apply(),
    };
    Ok(Row {
        number,
        what,
        is_right: found.iter().eq(&verdict),
        ours,
        peers: [
            said::pgbackrest_verify(site)?.cell(),
            as_archived.map_or_else(does_not_apply, Said::cell),
            // Barman's own check first: its other one changes what this one says.
            said::pgbackrest_check(site)?.cell(),
            said::barman_check(site)?.cell(),
            said::barman_check_backup(site)?.cell(),
            waldump,
        ],
    })
}

/// Nobody may complain of an archive without faults.
fn sound(site: &Site) -> Result<Row> {
    let segments = site.segments()?;
    let middle = segments.get(segments.len() / 2).context("no segments")?;
    let stretch = Stretch::of(site, middle)?;
    let row = row(site, ("", "none"), None, None, Some(&stretch))?;
    ensure!(row.is_right, "pg_backstop says {} of a sound archive", row.ours);
    Ok(row)
}

/// Makes a fault, asks everybody, and mends it.
fn in_place(site: &Site, fault: &faults::Fault) -> Result<Row> {
    let segment = match &fault.change {
        Change::Gone(names) => names.first(),
        Change::Content(name, _) | Change::Stored(name, _) => Some(name),
    };
    let stretch = match segment.filter(|name| name.len() == 24 && site.codec.is_none()) {
        Some(segment) => Some(Stretch::of(site, segment)?),
        None => None,
    };
    let as_archived = match &fault.change {
        Change::Content(name, content) if name.len() == 24 => {
            let faults = site.make_as_archived(name, content)?;
            let said = said::pgbackrest_verify(site)?;
            faults.into_iter().rev().try_for_each(|fault| fault.mend())?;
            Some(said)
        }
        _ => None,
    };
    // What came between was for pgBackRest alone.
    site.cluster.text("SELECT count(*) FROM verify_wal_archive()")?;
    is_ready(&site.cluster)?;
    let faults = site.make(&fault.change)?;
    site.cluster.text("SELECT count(*) FROM verify_wal_archive()")?;
    let row = row(
        site,
        (fault.number, fault.what),
        Some(fault.verdict),
        as_archived.as_ref(),
        stretch.as_ref(),
    )?;
    faults.into_iter().try_for_each(|fault| fault.mend())?;
    site.cluster.text("SELECT count(*) FROM verify_wal_archive()")?;
    is_ready(&site.cluster).context("after the mend")?;
    Ok(row)
}

/// A14: a copy goes on from the same moment and writes another segment of the same name. And another copy, for [`clone_archives`].
fn twins(site: &mut Site) -> Result<(faults::Fault, Cluster)> {
    site.archive_now()?;
    site.cluster.stop(Shutdown::Fast)?;
    let mut other = site.cluster.copy()?;
    let clone = site.cluster.copy()?;
    let command = other.archive().command();
    other.set("archive_command", &command)?;
    other.start_server()?;
    let segment = other.text("SELECT pg_walfile_name(pg_current_wal_insert_lsn())")?;
    other.client("pgbench", &["-t", "50"])?;
    other.archive_now()?;
    site.cluster.start_server()?;
    while site.archive_now()? < segment {
        site.cluster.client("pgbench", &["-t", "50"])?;
    }
    // One more, so that something follows.
    site.cluster.client("pgbench", &["-t", "50"])?;
    site.archive_now()?;
    is_ready(&site.cluster)?;
    let fault = faults::Fault {
        number: "A14",
        what: "a sound segment of a copy of the cluster",
        change: Change::Content(segment.clone(), other.archive().read(&segment)?),
        verdict: ("corrupt", "content_differs"),
    };
    Ok((fault, clone))
}

/// A21
fn clone_archives(site: &Site, mut clone: Cluster) -> Result<Row> {
    clone.set("archive_command", &site.command_of(&clone)?)?;
    fs::write(clone.data().join("standby.signal"), "")?;
    clone.start_server()?;
    clone.promote()?;
    clone.client("pgbench", &["-t", "100"])?;
    let theirs = clone.archive_now()?;
    clone.stop(Shutdown::Fast)?;
    let found = format!("SELECT problem FROM wal_archive WHERE segment_name = '{theirs}'");
    site.cluster.wait_for(&found, "foreign_timeline")?;
    is_ready(&site.cluster)?;
    row(
        site,
        ("A21", "a promoted clone archives into the same place"),
        Some(("foreign", "foreign_timeline")),
        None,
        None,
    )
}

fn promote(site: &mut Site) -> Result<()> {
    site.cluster.stop(Shutdown::Fast)?;
    fs::write(site.cluster.data().join("standby.signal"), "")?;
    site.cluster.start_server()?;
    site.cluster.promote()?;
    site.cluster.client("pgbench", &["-t", "100"])?;
    site.archive_now().map(drop)
}

/// A19
fn in_history(site: &Site) -> Result<Vec<faults::Fault>> {
    const HISTORY: &str = "00000002.history";
    let told = String::from_utf8(site.content(HISTORY)?)?;
    let branch = told.split('\t').nth(1).context("no branch point")?;
    let (high, low) = branch.split_once('/').context("no LSN")?;
    let earlier = u32::from_str_radix(low, 16)?.saturating_sub(1 << 20);
    Ok(vec![
        faults::Fault {
            number: "A19",
            what: "a timeline's history file deleted",
            change: Change::Gone(vec![HISTORY.to_owned()]),
            verdict: ("missing", "missing_history"),
        },
        faults::Fault {
            number: "A19",
            what: "another branch point in a history file",
            change: Change::Content(
                HISTORY.to_owned(),
                told.replace(branch, &format!("{high}/{earlier:X}")).into_bytes(),
            ),
            verdict: ("corrupt", "bad_history"),
        },
    ])
}

/// A20. Ends the site's cluster; the tools then look at the new primary.
fn failover(mut site: Site) -> Result<Row> {
    let settings = Settings::new()
        .set("pg_backstop.archive_grace", "2s")
        .set("wal_keep_size", "256MB")
        .set(
            "pg_backstop.archive_source",
            &format!("pgbackrest:{}", site.pgbackrest.archive().display()),
        );
    let mut standby = site.cluster.standby(settings)?;
    standby.set("archive_command", &site.command_of(&standby)?)?;
    standby.reload()?;
    site.cluster.set("archive_command", "false")?;
    site.cluster.reload()?;
    site.cluster.client("pgbench", &["-t", "50"])?;
    site.cluster.text("SELECT pg_switch_wal()")?;
    site.cluster.text("CREATE TABLE last_words AS SELECT 1 AS one")?;
    let end = site.cluster.text("SELECT pg_current_wal_flush_lsn()")?;
    standby.wait_for(&format!("SELECT pg_last_wal_replay_lsn() >= '{end}'"), "t")?;
    site.cluster.stop(Shutdown::Kill)?;
    standby.promote()?;
    standby.archive_now()?;
    standby.wait_for(
        "SELECT count(*) > 0 FROM wal_archive WHERE problem = 'not_archived'",
        "t",
    )?;
    standby.wait_for("SELECT status FROM recovery_readiness", "at_risk")?;
    site.pgbackrest = site.pgbackrest.shared_with(&standby)?;
    site.barman = site.barman.shared_with(&standby)?;
    std::mem::swap(&mut site.cluster, &mut standby);
    row(
        &site,
        ("A20", "a failover: segments streamed, never archived"),
        Some(("missing", "not_archived")),
        None,
        None,
    )
}
