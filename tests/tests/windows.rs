//! Recovery windows hold what they promise: PostgreSQL itself recovers to just inside each end, and refuses just outside.

use std::path::{Path, PathBuf};
use std::process::Child;

use anyhow::{Context, Result, bail};
use std::fs;
use tests::wait::SOON;
use tests::{Cluster, Look, Recovery, Settings, Shutdown, wait_until, waldump};

/// Writers that go on until they are dropped, so that a backup has commits in it.
struct Load(Child);

impl Load {
    fn on(cluster: &Cluster) -> Result<Self> {
        let mut pgbench = cluster.client_command("pgbench")?;
        let before = cluster.text("SELECT count(*) FROM pgbench_history")?;
        let load = Self(pgbench.args(["-n", "-c", "2", "-T", "300"]).spawn()?);
        wait_until("the load to begin", SOON, || {
            let now = cluster.text("SELECT count(*) FROM pgbench_history")?;
            Ok(if now == before {
                Look::NotYet(now)
            } else {
                Look::Done(())
            })
        })?;
        Ok(load)
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

/// A base backup taken while others write; then some more is written and archived.
fn backup_under_load(cluster: &Cluster, name: &str) -> Result<PathBuf> {
    let backup = cluster.place(name);
    let load = Load::on(cluster)?;
    cluster.base_backup(&backup)?;
    drop(load);
    Ok(backup)
}

/// Writes a few segments, and gives the one in the middle, full of records, with others around it.
fn victim(cluster: &Cluster) -> Result<String> {
    for transactions in ["700", "2000", "6000"] {
        let before = cluster.archive_now()?;
        cluster.client("pgbench", &["-n", "-c", "2", "-t", transactions])?;
        let last = cluster.archive_now()?;
        let written: Vec<String> = cluster
            .archive()
            .segments()?
            .into_iter()
            .filter(|segment| *segment > before && *segment < last)
            .collect();
        if let (3.., Some(middle)) = (written.len(), written.get(written.len() / 2)) {
            return Ok(middle.clone());
        }
    }
    bail!("thousands of transactions fit into less than three segments")
}

/// One row of recovery_windows.
#[derive(Debug)]
struct Window {
    timeline: String,
    from_time: String,
    to_time: String,
    from_lsn: String,
    to_lsn: String,
    ended_by: String,
}

fn windows(cluster: &Cluster) -> Result<Vec<Window>> {
    let rows = cluster.text(
        "SELECT timeline_id, from_time, to_time, from_lsn, to_lsn, ended_by FROM recovery_windows ORDER BY from_lsn",
    )?;
    rows.lines()
        .map(|row| {
            let columns: Vec<&str> = row.split('|').collect();
            let [timeline, from_time, to_time, from_lsn, to_lsn, ended_by] = columns[..] else {
                bail!("{row}");
            };
            Ok(Window {
                timeline: timeline.to_owned(),
                from_time: from_time.to_owned(),
                to_time: to_time.to_owned(),
                from_lsn: from_lsn.to_owned(),
                to_lsn: to_lsn.to_owned(),
                ended_by: ended_by.to_owned(),
            })
        })
        .collect()
}

/// What a recovery of this window's backup to a target comes to.
fn recover(cluster: &Cluster, backup: &Path, window: &Window, setting: &str, target: &str) -> Result<Recovery> {
    cluster
        .recover(
            backup,
            &[("recovery_target_timeline", &window.timeline), (setting, target)],
        )
        .with_context(|| format!("{setting} = {target}"))
}

const TOO_EARLY: &str = "requested recovery stop point is before consistent recovery point";
const TOO_LATE: &str = "recovery ended before configured recovery target was reached";

/// Both ends in time: inside works, and has what was committed by then and nothing more; a microsecond outside does not.
fn ends_in_time_hold(cluster: &Cluster, backup: &Path, window: &Window) -> Result<()> {
    let moved = |time: &str, by: &str| cluster.text(&format!("SELECT timestamptz '{time}' {by} interval '1 us'"));
    let to = |target: &str| recover(cluster, backup, window, "recovery_target_time", target);
    for inside in [window.from_time.clone(), moved(&window.to_time, "-")?] {
        let recovered = to(&inside)?.reached()?;
        // pgbench writes the time at which its transaction began.
        let late = recovered.text(&format!(
            "SELECT count(*) FROM pgbench_history WHERE mtime > timestamptz '{inside}' AT TIME ZONE current_setting('TimeZone')"
        ))?;
        assert_eq!(late, "0", "commits later than {inside}");
    }
    let early = to(&moved(&window.from_time, "-")?)?
        .refused()
        .context("just before its beginning")?;
    assert_eq!(early, TOO_EARLY, "just before {}", window.from_time);
    let late = to(&moved(&window.to_time, "+")?)?
        .refused()
        .context("just after its end")?;
    assert_eq!(late, TOO_LATE, "just after {}", window.to_time);
    Ok(())
}

/// Both ends in WAL. A recovery stops behind the record that begins at its target or after it, so that just outside the lower
/// end is where the record begins that precedes the one which ends the backup.
fn ends_in_wal_hold(cluster: &Cluster, backup: &Path, window: &Window) -> Result<()> {
    let to = |target: &str| recover(cluster, backup, window, "recovery_target_lsn", target);
    for inside in [&window.from_lsn, &window.to_lsn] {
        to(inside)?.reached()?;
    }
    let early = to(&record_before_the_end(cluster, window)?)?
        .refused()
        .context("just before its first LSN")?;
    assert_eq!(early, TOO_EARLY, "just before {}", window.from_lsn);
    let beyond = cluster.text(&format!("SELECT pg_lsn '{}' + 1", window.to_lsn))?;
    let late = to(&beyond)?.refused().context("just after its last LSN")?;
    assert_eq!(late, TOO_LATE, "just after {}", window.to_lsn);
    Ok(())
}

/// Where the record begins that precedes the backup's last one.
fn record_before_the_end(cluster: &Cluster, window: &Window) -> Result<String> {
    let segment = cluster.text(&format!("SELECT pg_walfile_name(pg_lsn '{}' - 1)", window.from_lsn))?;
    let segment = format!(
        "{:0>8}{}",
        window.timeline,
        segment.get(8..).context("no segment name")?
    );
    // The backup lies on the timeline that the window begins on.
    let file = [segment.clone(), format!("00000001{}", &segment[8..])]
        .iter()
        .map(|name| cluster.archive().file(name))
        .find(|file| file.exists())
        .with_context(|| format!("no segment {segment}"))?;
    let records = waldump::records(cluster.server(), &file)?;
    let end = records
        .iter()
        .position(|record| record.description.starts_with("BACKUP_END"))
        .context("no BACKUP_END")?;
    let before = end.checked_sub(1).and_then(|before| records.get(before));
    Ok(before.context("nothing before the backup's end")?.lsn.clone())
}

#[test]
fn a_recovery_reaches_just_inside_each_end_of_each_window_and_fails_just_outside() -> Result<()> {
    let mut cluster = Cluster::start(Settings::new().set("pg_backstop.archive_grace", "1s"))?;
    cluster.client("pgbench", &["-i", "-q", "-s", "1"])?;
    let first = backup_under_load(&cluster, "first")?;
    let lost = victim(&cluster)?;
    let second = backup_under_load(&cluster, "second")?;
    cluster.client("pgbench", &["-n", "-t", "200"])?;
    cluster.stop(Shutdown::Fast)?;
    fs::write(cluster.data().join("standby.signal"), "")?;
    cluster.start_server()?;
    cluster.promote()?;
    let damaged = victim(&cluster)?;
    let third = backup_under_load(&cluster, "third")?;
    let given_up = victim(&cluster)?;

    cluster.archive().remove(&lost)?.stays();
    let middle = |bytes: &mut Vec<u8>| {
        let at = bytes.len() / 2;
        bytes[at] ^= 1;
    };
    cluster.archive().change(&damaged, middle)?.stays();
    cluster.archive().remove(&given_up)?.stays();
    cluster.text("CREATE EXTENSION pg_backstop")?;
    let state = |segment: &str| format!("SELECT status FROM wal_archive WHERE segment_name = '{segment}'");
    cluster.wait_for(&state(&lost), "missing")?;
    cluster.wait_for(&state(&damaged), "corrupt")?;
    cluster.wait_for(&state(&given_up), "missing")?;
    cluster.wait_for("SELECT count(*) FROM backup_history", "3")?;
    cluster.wait_for("SELECT count(*) FROM wal_archive WHERE status = 'pending'", "0")?;
    cluster.text(&format!(
        "SELECT acknowledge_wal_gap('{given_up}', '{given_up}', 'known')"
    ))?;

    let windows = windows(&cluster)?;
    let shown: Vec<(&str, &str)> = windows
        .iter()
        .map(|window| (window.timeline.as_str(), window.ended_by.as_str()))
        .collect();
    let problem = cluster.text(&format!(
        "SELECT problem FROM wal_archive WHERE segment_name = '{damaged}'"
    ))?;
    assert_eq!(
        shown,
        [
            ("1", format!("gap at segment {lost}: missing").as_str()),
            ("2", format!("gap at segment {damaged}: {problem}").as_str()),
            ("2", format!("gap at segment {given_up}: acknowledged as lost").as_str()),
        ]
    );
    for (window, backup) in windows.iter().zip([&first, &second, &third]) {
        let which = || format!("the window of {}: {window:?}", backup.display());
        ends_in_time_hold(&cluster, backup, window).with_context(which)?;
        ends_in_wal_hold(&cluster, backup, window).with_context(which)?;
    }
    Ok(())
}
