//! The head of the ledger is where whoever rewrites the chain does not reach at the same time, and what is found there is checked.

use anyhow::{Context, Result};
use tests::cluster::text_in;
use tests::wait::SOON;
use tests::{Cluster, Look, Settings, wait_until, worker};

const HEAD: &str = "SELECT id || '|' || hash FROM ledger_events ORDER BY id DESC LIMIT 1";
const SHOWN: &str = "SELECT ledger_head_id || '|' || ledger_head_hash FROM v_worker_status";
const IS_SHOWN: &str = "SELECT (SELECT ledger_head_id || '|' || ledger_head_hash FROM v_worker_status)
    = (SELECT id || '|' || hash FROM ledger_events ORDER BY id DESC LIMIT 1)";
const DETECTED: &str = "SELECT count(*) FROM backup_history WHERE backup_history_file IS NOT NULL";
const VERDICT: &str = "SELECT status FROM verify_ledger()";

fn cluster() -> Result<Cluster> {
    let cluster = Cluster::start(Settings::new().set("pg_backstop.check_interval", "100ms"))?;
    cluster.text("CREATE EXTENSION pg_backstop")?;
    Ok(cluster)
}

/// Waits until the worker has written the head into WAL, and that has been archived and read.
fn verified(cluster: &Cluster) -> Result<()> {
    worker::ticks(cluster, 2)?;
    let segment = cluster.text("SELECT pg_walfile_name(pg_switch_wal())")?;
    cluster.wait_for(
        &format!("SELECT status FROM wal_archive WHERE segment_name = '{segment}'"),
        "verified",
    )
}

#[test]
fn the_head_is_shown_logged_and_in_the_wal_that_is_archived() -> Result<()> {
    let cluster = cluster()?;
    // There is a base backup to begin with, so that segments are expected.
    cluster.base_backup(&cluster.place("base"))?;
    cluster.wait_for(DETECTED, "1")?;
    cluster.text("SELECT record_backup_complete(backup_id, 1000) FROM record_backup_start('logical')")?;
    cluster.wait_for(IS_SHOWN, "t")?;
    let log = cluster.log()?;
    assert!(log.contains("the newest event of the ledger is "), "{log}");

    verified(&cluster)?;
    cluster.wait_for("SELECT count(*) > 0 FROM ledger_witnesses", "t")?;
    assert_eq!(cluster.text(VERDICT)?, "intact");
    let kept = cluster.text("SELECT event_id FROM ledger_witnesses ORDER BY event_id DESC LIMIT 1")?;

    // Rewritten from its first event on, hashes and all: only the witness knows.
    cluster.text("SELECT stop_worker()")?;
    cluster.text(
        "SET session_replication_role = replica;
         UPDATE ledger_events SET actor = 'somebody else';
         DO $$DECLARE n bigint; BEGIN
             FOR n IN SELECT id FROM ledger_events ORDER BY id LOOP
                 UPDATE ledger_events e SET prev_hash = (SELECT hash FROM ledger_events b WHERE b.id = n - 1) WHERE e.id = n;
                 UPDATE ledger_events SET hash = ledger_hash(prev_hash, id, at, actor, table_name, row_id, operation, via, image)
                  WHERE id = n;
             END LOOP;
         END$$",
    )?;
    let told = cluster.text("SELECT event, what FROM verify_ledger_faults() ORDER BY event DESC LIMIT 1")?;
    assert!(
        told.starts_with(&format!("{kept}|")) && told.contains("rewritten"),
        "{told}"
    );
    // Who removes it from the table has not removed it from the archive.
    cluster.text("DELETE FROM ledger_witnesses")?;
    assert_eq!(cluster.text(VERDICT)?, "intact");
    cluster.text("SELECT count(*) FROM verify_wal_archive()")?;
    assert!(
        cluster.text(VERDICT)?.contains("rewritten"),
        "{}",
        cluster.text(VERDICT)?
    );
    Ok(())
}

#[test]
fn a_ledger_that_is_made_anew_is_not_held_against_the_old_ones_wal() -> Result<()> {
    let cluster = cluster()?;
    cluster.base_backup(&cluster.place("base"))?;
    cluster.wait_for(DETECTED, "1")?;
    cluster.text("SELECT record_backup_complete(backup_id, 1000) FROM record_backup_start('logical')")?;
    // The worker writes the head into WAL in its next tick.
    cluster.wait_for(IS_SHOWN, "t")?;
    worker::ticks(&cluster, 1)?;
    verified(&cluster)?;
    cluster.wait_for("SELECT count(*) > 0 FROM ledger_witnesses", "t")?;
    cluster.text("DROP EXTENSION pg_backstop")?;
    cluster.text("CREATE EXTENSION pg_backstop")?;
    cluster.wait_for(DETECTED, "1")?;
    cluster.text("SELECT record_backup_complete(backup_id, 2000) FROM record_backup_start('logical')")?;
    cluster.wait_for(IS_SHOWN, "t")?;
    worker::ticks(&cluster, 1)?;
    verified(&cluster)?;
    cluster.wait_for("SELECT count(*) > 0 FROM ledger_witnesses", "t")?;
    cluster.text("SELECT count(*) FROM verify_wal_archive()")?;
    assert_eq!(cluster.text(VERDICT)?, "intact");
    Ok(())
}

#[test]
fn a_standby_shows_the_head_that_it_has_and_a_cluster_at_rest_stays_at_rest() -> Result<()> {
    let cluster = cluster()?;
    let standby = cluster.standby(Settings::new().set("pg_backstop.check_interval", "100ms"))?;
    cluster.text("SELECT record_backup_start('logical')")?;
    let head = cluster.text(HEAD)?;
    cluster.wait_for(SHOWN, &head)?;
    standby.wait_for(SHOWN, &head)?;
    let mut session = standby.connect()?;
    let (id, hash) = head.split_once('|').context("a head")?;
    assert_eq!(
        text_in(
            &mut session,
            &format!("SELECT status FROM verify_ledger({id}, '{hash}')")
        )?,
        "intact"
    );
    // Once for each change, however many ticks pass.
    wait_until("the cluster to be at rest", SOON, || {
        let end = cluster.text("SELECT pg_current_wal_insert_lsn()")?;
        worker::ticks(&cluster, 3)?;
        let later = cluster.text("SELECT pg_current_wal_insert_lsn()")?;
        Ok(if later == end {
            Look::Done(())
        } else {
            Look::not_yet(format!("{end}, then {later}"))
        })
    })?;
    Ok(())
}
