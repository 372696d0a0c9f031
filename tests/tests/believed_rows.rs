//! A backup that somebody has put on record with SQL is no proof that there is one: readiness does not take their word for it.

use std::fs;

use anyhow::Result;
use tests::cluster::text_in;
use tests::scene::Scene;

const STATUS: &str = "SELECT status, newest_usable_backup FROM assess_recovery_readiness()";

#[test]
fn a_made_up_backup_does_not_make_ready_until_it_is_accepted_or_declared_an_import() -> Result<()> {
    let scene = Scene::verified()?;
    let cluster = &scene.cluster;
    cluster.text("CREATE ROLE mallory SUPERUSER LOGIN")?;
    let mut session = cluster.connect_as("mallory", "postgres")?;
    let made_up = |origin: &str| {
        format!(
            "INSERT INTO backup_history (backup_type, system_identifier, timeline_id, start_lsn, end_lsn, status, finished_at, origin)
             SELECT 'full', c.system_identifier, 1, w.start_lsn + 1, w.end_lsn, 'completed', now(), '{origin}'
               FROM pg_control_system() c, wal_archive w
              WHERE segment_name = '{}' RETURNING id",
            scene.after_the_backup().first().map_or("", String::as_str)
        )
    };
    let id = text_in(&mut session, &made_up("recorded"))?;
    cluster.wait_for(STATUS, &format!("at_risk|{id}"))?;
    let reasons = cluster.text("SELECT reasons FROM recovery_readiness")?;
    for part in [
        &format!("Backup {id},"),
        "with SQL",
        "by mallory at ",
        "record_backup_start()",
    ] {
        assert!(reasons.contains(part), "{part} in {reasons}");
    }
    assert_eq!(cluster.text("SELECT open_alerts FROM recovery_readiness")?, "1");
    assert!(
        cluster
            .text("SELECT status FROM verify_ledger()")?
            .contains("was inserted past")
    );

    cluster
        .text("SELECT acknowledge_ledger_fault(fault, 'copied from the old catalog') FROM verify_ledger_faults()")?;
    cluster.wait_for(STATUS, &format!("ready|{id}"))?;
    assert_eq!(cluster.text("SELECT status FROM verify_ledger()")?, "intact");

    let imported = text_in(&mut session, &made_up("imported"))?;
    cluster.wait_for(STATUS, &format!("ready|{imported}"))?;
    assert_eq!(cluster.text("SELECT status FROM verify_ledger()")?, "intact");
    Ok(())
}

/// An acknowledgement of a gap is for the problem and the bytes that were there.
#[test]
fn an_acknowledgement_is_for_what_was_wrong_then() -> Result<()> {
    let scene = Scene::verified()?;
    let (cluster, victim) = (&scene.cluster, scene.victim()?);
    let half = |bytes: &mut Vec<u8>| bytes.truncate(bytes.len() / 2);
    cluster.archive().change(&victim, half)?.stays();
    cluster.text("SELECT count(*) FROM verify_wal_archive()")?;
    cluster.text(&format!(
        "SELECT acknowledge_wal_gap('{victim}', '{victim}', 'ticket 4711')"
    ))?;
    let named = "SELECT image -> 'sha256' ->> 'S' = sha256, image -> 'runs' -> 0 ->> 'problem'
                   FROM ledger_events, wal_archive WHERE operation = 'ACKNOWLEDGE' AND segment_name = 'S'";
    assert_eq!(
        cluster.text(&named.replace("'S'", &format!("'{victim}'")))?,
        "t|truncated"
    );
    for change in ["problem = 'zeroed'", "sha256 = 'another'"] {
        let mut session = cluster.connect()?;
        text_in(
            &mut session,
            &format!("BEGIN; UPDATE wal_archive SET {change} WHERE segment_name = '{victim}'"),
        )?;
        let told = text_in(&mut session, "SELECT status FROM verify_ledger()")?;
        assert!(told.contains(&victim) && told.contains("no event"), "{change}: {told}");
        text_in(&mut session, "ROLLBACK")?;
    }
    assert_eq!(cluster.text("SELECT status FROM verify_ledger()")?, "intact");
    // The same problem of other bytes is news.
    let stored = cluster.archive().path().join(&victim);
    let length = fs::metadata(&stored)?.len();
    fs::OpenOptions::new().write(true).open(&stored)?.set_len(length / 2)?;
    cluster.text("SELECT count(*) FROM verify_wal_archive()")?;
    let status = format!("SELECT status, problem FROM wal_archive WHERE segment_name = '{victim}'");
    assert_eq!(cluster.text(&status)?, "corrupt|truncated");
    Ok(())
}
