//! W4: a disk that is full while the worker writes stops nothing but the worker's writing, and that only for as long.

use anyhow::Result;
use tests::full_disk::SmallDisk;
use tests::{Scene, worker};

#[test]
fn a_full_disk_is_an_error_in_the_log_and_the_worker_catches_up_once_there_is_room() -> Result<()> {
    let mut scene = Scene::stopped()?;
    scene.cluster.give_small_disk();
    scene.start()?;
    scene.wait_until_ready()?;
    let cluster = &scene.cluster;
    let disk = SmallDisk::of(cluster);
    cluster.text(&format!("CREATE TABLESPACE small LOCATION '{}'", disk.path().display()))?;
    // The extension's own tables and nothing else: what others write has room.
    cluster.text(
        "DO $$ DECLARE each record; BEGIN
           FOR each IN SELECT c.relname, c.relkind FROM pg_class c
                         JOIN pg_depend d ON d.objid = c.oid AND d.classid = 'pg_class'::regclass AND d.deptype = 'e'
                        WHERE c.relkind = 'r' LOOP
             EXECUTE format('ALTER TABLE %I SET TABLESPACE small', each.relname);
           END LOOP;
         END $$",
    )?;
    disk.fill()?;
    cluster.client("pgbench", &["-c", "2", "-t", "3000"])?;
    let newest = cluster.archive_now()?;
    cluster.wait_for(
        "SELECT last_error LIKE '%No space left on device%' FROM v_worker_status",
        "t",
    )?;
    assert!(cluster.log()?.contains("No space left on device"));
    // It goes on trying, and nobody else is concerned.
    worker::ticks(cluster, 2)?;
    cluster.client("pgbench", &["-t", "10"])?;
    assert_ne!(cluster.text("SELECT status FROM recovery_readiness")?, "ready");
    assert!(!cluster.log()?.contains("PANIC"));

    disk.free()?;
    let row = format!("SELECT status FROM wal_archive WHERE segment_name = '{newest}'");
    cluster.wait_for(&row, "verified")?;
    cluster.wait_for("SELECT coalesce(last_error, '') FROM v_worker_status", "")?;
    assert_eq!(
        cluster.text("SELECT count(*) FROM wal_archive WHERE status NOT IN ('verified', 'pending')")?,
        "0"
    );
    scene.wait_until_ready()
}
