//! What was verified is read again in good time, at the pace that is allowed, and is not believed because it is remembered.

use std::time::{Duration, Instant};

use anyhow::Result;
use tests::{Scene, worker};

#[test]
fn every_verified_segment_is_read_again_within_the_interval() -> Result<()> {
    let mut scene = Scene::verified()?;
    scene.cluster.set("pg_backstop.reverify_interval", "3s")?;
    scene.cluster.reload()?;
    let cluster = &scene.cluster;
    let before = cluster.text("SELECT clock_timestamp()")?;
    // Others write, so that the worker may, too.
    cluster.text("CREATE TABLE filler AS SELECT 1 AS one")?;
    let unread = format!(
        "SELECT count(*) FROM wal_archive
          WHERE status = 'verified' AND start_lsn IS NOT NULL AND verified_at < '{before}'"
    );
    cluster.wait_for(&unread, "0")?;
    scene.wait_until_ready()
}

#[test]
fn a_segment_that_rotted_without_a_change_of_its_file_is_found() -> Result<()> {
    let mut scene = Scene::verified()?;
    scene.cluster.set("pg_backstop.reverify_interval", "0")?;
    scene.cluster.reload()?;
    let cluster = &scene.cluster;
    let victim = scene.victim()?;
    let fault = cluster.archive().flip_bit(&victim, 300_000, 3)?;
    let row = format!("SELECT status FROM wal_archive WHERE segment_name = '{victim}'");
    cluster.wait_for(&row, "corrupt")?;
    // As if the file had looked like this when it was verified.
    cluster.text(&format!(
        "UPDATE wal_archive SET status = 'verified', problem = NULL, verified_at = verified_at - interval '1 year'
          WHERE segment_name = '{victim}'"
    ))?;
    worker::ticks(cluster, 3)?;
    assert_eq!(cluster.text(&row)?, "verified", "nothing shows that it is to be read");
    scene.cluster.set("pg_backstop.reverify_interval", "30d")?;
    scene.cluster.reload()?;
    scene.cluster.text("CREATE TABLE filler AS SELECT 1 AS one")?;
    scene.cluster.wait_for(&row, "corrupt")?;
    fault.mend()?;
    scene.cluster.wait_for(&row, "verified")
}

#[test]
fn a_backlog_is_read_no_faster_than_the_limit() -> Result<()> {
    let mut scene = Scene::stopped()?;
    scene.cluster.set("pg_backstop.verify_rate_limit", "2MB")?;
    let needed = scene
        .segments
        .iter()
        .filter(|segment| **segment >= scene.backup.start_wal_file);
    let megabytes = needed.count() as f64;
    scene.start()?;
    let began = Instant::now();
    scene.cluster.wait_for(
        "SELECT state, unverified_segments > 0 FROM v_worker_status",
        "verifying|t",
    )?;
    scene.wait_until_ready()?;
    // The worker may have been at it for a tick before.
    let least = Duration::from_secs_f64(megabytes / 2.0 * 0.8);
    assert!(began.elapsed() >= least, "{megabytes} MB in {:?}", began.elapsed());
    Ok(())
}

#[test]
fn segments_that_no_backup_needs_are_read_while_they_are_there_and_not_missed() -> Result<()> {
    let scene = Scene::verified()?;
    let cluster = &scene.cluster;
    let older: Vec<&String> = scene
        .segments
        .iter()
        .filter(|segment| **segment < scene.backup.start_wal_file)
        .collect();
    let rows = format!(
        "SELECT count(*), min(status) FROM wal_archive WHERE start_lsn IS NOT NULL AND segment_name < '{}'",
        scene.backup.start_wal_file
    );
    cluster.wait_for(&rows, &format!("{}|verified", older.len()))?;
    for segment in &older {
        cluster.archive().remove(segment)?.stays();
    }
    cluster.wait_for(&rows, "0|")?;
    assert_eq!(cluster.text("SELECT count(*) FROM wal_archive_gaps")?, "0");
    scene.wait_until_ready()
}

#[test]
fn rows_that_somebody_deletes_are_found_out_anew() -> Result<()> {
    let scene = Scene::verified()?;
    let cluster = &scene.cluster;
    let rows = "SELECT count(*) FROM wal_archive WHERE status = 'verified'";
    let before = cluster.text(rows)?;
    cluster.text(&format!(
        "DELETE FROM wal_archive WHERE segment_name > '{}'",
        scene.backup.start_wal_file
    ))?;
    cluster.wait_for(&format!("SELECT ({rows}) >= {before}"), "t")?;
    scene.wait_until_ready()
}

/// The record that goes on from one segment into the next is checked in the next one.
#[test]
fn what_follows_upon_a_mended_segment_is_read_again_with_it() -> Result<()> {
    let scene = Scene::verified()?;
    let cluster = &scene.cluster;
    let victim = scene.victim()?;
    let after = scene.after_the_backup();
    let next = after.iter().find(|segment| **segment > victim).expect("a next segment");
    cluster.text("SELECT stop_worker()")?;
    let fault = cluster.archive().flip_bit(&victim, 300_000, 3)?;
    let look = format!("SELECT status FROM verify_wal_archive('{victim}', '{victim}')");
    assert_eq!(cluster.text(&look)?, "corrupt");
    fault.mend()?;
    let before = cluster.text("SELECT clock_timestamp()")?;
    assert_eq!(cluster.text(&look)?, "verified");
    let read_again = format!("SELECT status, verified_at > '{before}' FROM wal_archive WHERE segment_name = '{next}'");
    assert_eq!(cluster.text(&read_again)?, "verified|t");
    Ok(())
}

#[test]
fn what_another_server_left_in_the_archive_is_forgotten_when_it_goes() -> Result<()> {
    let scene = Scene::verified()?;
    let cluster = &scene.cluster;
    let ours = scene.victim()?;
    let theirs =
        ["00000007", "00000001000000AA"].map(|start| format!("{start}{}", ours.get(start.len()..).unwrap_or_default()));
    let content = cluster.archive().read(&ours)?;
    let faults = theirs
        .iter()
        .map(|name| cluster.archive().replace(name, &content))
        .collect::<Result<Vec<_>>>()?;
    let rows = "SELECT count(*) FROM wal_archive WHERE status = 'foreign' AND problem = 'foreign_timeline'";
    cluster.wait_for(rows, "2")?;
    assert_eq!(
        cluster.text("SELECT from_segment, state FROM wal_archive_gaps WHERE problem = 'foreign_timeline'")?,
        ""
    );
    scene.wait_until_ready()?;
    for fault in faults {
        fault.mend()?;
    }
    cluster.wait_for(rows, "0")
}

#[test]
fn an_acknowledgement_whose_transaction_stays_open_does_not_pass_for_a_worker_without_news() -> Result<()> {
    let scene = Scene::verified()?;
    let cluster = &scene.cluster;
    let victim = scene.victim()?;
    let gone = cluster.archive().remove(&victim)?;
    let status = |segment: &str| format!("SELECT status FROM wal_archive WHERE segment_name = '{segment}'");
    cluster.wait_for(&status(&victim), "missing")?;
    let mut session = cluster.connect()?;
    let pid = tests::cluster::text_in(&mut session, "SELECT pg_backend_pid()")?;
    session.batch_execute(&format!(
        "BEGIN; SELECT acknowledge_wal_gap('{victim}', '{victim}', 'a test')"
    ))?;
    gone.mend()?;
    let said =
        format!("SELECT last_error LIKE '%the transaction of process {pid}%is still open%' FROM v_worker_status");
    cluster.wait_for(&said, "t")?;
    assert_eq!(cluster.text("SELECT status FROM recovery_readiness")?, "at_risk");
    session.batch_execute("COMMIT")?;
    cluster.wait_for(&status(&victim), "verified")?;
    cluster.wait_for("SELECT last_error IS NULL OR last_error = '' FROM v_worker_status", "t")
}
