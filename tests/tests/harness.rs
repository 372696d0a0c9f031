//! The ground under the other tests: a cluster starts, archives, is backed up, is followed, and leaves nothing behind.

use anyhow::Result;
use tests::{Cluster, Settings, Shutdown};

#[test]
fn a_cluster_archives_is_backed_up_survives_a_kill_and_is_gone_afterwards() -> Result<()> {
    let mut cluster = Cluster::start(Settings::new().without_library())?;
    cluster.client("pgbench", &["-q", "-i", "-s", "1"])?;
    let segment = cluster.archive_now()?;
    assert!(cluster.archive().segments()?.contains(&segment));
    assert_eq!(cluster.archive().read(&segment)?.len(), 1 << 20);

    let backup = cluster.place("backup");
    cluster.base_backup(&backup)?;
    assert!(backup.join("backup_manifest").exists());
    cluster.archive_now()?;
    assert_eq!(cluster.archive().backup_files()?.len(), 1);

    cluster.restart(Shutdown::Kill)?;
    assert_eq!(cluster.text("SELECT count(*) FROM pgbench_accounts")?, "100000");
    cluster.stop(Shutdown::Fast)?;
    let copy = {
        let mut copy = cluster.copy()?;
        copy.start_server()?;
        assert_eq!(copy.text("SELECT count(*), 'a b' FROM pgbench_branches")?, "1|a b");
        copy.data()
    };
    assert!(!copy.exists());
    Ok(())
}

#[test]
fn a_standby_follows_and_is_promoted() -> Result<()> {
    let primary = Cluster::start(Settings::new().without_library().own_identity())?;
    let standby = primary.standby(Settings::new().without_library())?;
    primary.text("CREATE TABLE seen AS SELECT 1 AS one")?;
    standby.wait_for("SELECT count(*) FROM pg_class WHERE relname = 'seen'", "1")?;
    assert_eq!(standby.refusal("DROP TABLE seen")?.code().code(), "25006");
    standby.promote()?;
    standby.text("DROP TABLE seen")?;
    Ok(())
}
