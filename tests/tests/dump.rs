//! pg_dump and a restore keep the ledger, its chain and the facts.

use anyhow::Result;
use tests::cluster::text_in;
use tests::{Cluster, Scene, Settings};

const CONTENTS: &str = "SELECT
    (SELECT md5(string_agg(t::text, ',' ORDER BY id)) FROM ledger_events t),
    (SELECT md5(string_agg(t::text, ',' ORDER BY id)) FROM backup_history t),
    (SELECT md5(string_agg(t::text, ',' ORDER BY id)) FROM recovery_history t),
    (SELECT md5(string_agg(t::text, ',' ORDER BY id)) FROM backup_policies t),
    (SELECT md5(string_agg(t::text, ',' ORDER BY segment_name)) FROM wal_archive t)";

#[test]
fn a_dump_and_restore_keeps_the_ledger_and_its_chain() -> Result<()> {
    let scene = Scene::verified()?;
    let cluster = &scene.cluster;
    cluster.text(
        "INSERT INTO backup_policies (policy_name, schedule_cron, target_rpo) VALUES ('nightly', '0 2 * * *', '1 min');
         SELECT record_backup_complete((SELECT backup_id FROM record_backup_start('full', '/nowhere', 'nightly', 'ü ''q''')), 5);
         SELECT record_recovery_complete((SELECT recovery_id FROM record_recovery_start('latest')));
         SELECT stop_worker()",
    )?;
    for format in ["custom", "plain"] {
        let file = cluster.place(format).display().to_string();
        cluster.client("pg_dump", &["--format", format, "--file", &file])?;
        // Into a cluster that shows times in another way; its worker is busy with another database.
        let shown = Settings::new()
            .own_identity()
            .set("timezone", "Asia/Kathmandu")
            .set("datestyle", "SQL, DMY");
        let other = Cluster::start(shown)?;
        other.text("CREATE DATABASE restored")?;
        if format == "plain" {
            other.client("psql", &["-X", "-v", "ON_ERROR_STOP=1", "-d", "restored", "-f", &file])?;
        } else {
            other.client("pg_restore", &["--exit-on-error", "-d", "restored", &file])?;
        }
        let mut restored = other.connect_as("postgres", "restored")?;
        text_in(&mut restored, "SET timezone = 'UTC'; SET datestyle = 'ISO, MDY'")?;
        assert_eq!(text_in(&mut restored, CONTENTS)?, cluster.text(CONTENTS)?, "{format}");
        assert_eq!(
            text_in(&mut restored, "SELECT status FROM verify_ledger()")?,
            "intact",
            "{format}"
        );
        // Sequences go on where they were.
        let next = text_in(&mut restored, "SELECT backup_id FROM record_backup_start()")?;
        let newest = cluster.text("SELECT max(id) FROM backup_history")?;
        assert_eq!(next.parse::<i64>()?, newest.parse::<i64>()? + 1, "{format}");
        assert_eq!(
            text_in(&mut restored, "SELECT status FROM verify_ledger()")?,
            "intact",
            "{format}"
        );
    }
    Ok(())
}
