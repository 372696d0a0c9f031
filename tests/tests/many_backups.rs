//! Of thousands of backups the views say what they would say of a few.
//!
//! The backups and gaps are made up, and no worker runs, since it would find none of them.

use anyhow::{Context, Result, ensure};
use std::fs;
use tests::{Cluster, Settings, Shutdown, many, process};

/// On both sides of where timeline 1 was left, across it, on timelines 2 and 3; every tenth with its WAL inside, every
/// hundredth broken, and of every fiftieth the timeline is not on record.
const BACKUPS: &str = "
    INSERT INTO backup_history (id, backup_type, system_identifier, timeline_id, start_lsn, end_lsn, status, verification,
                                wal_included, origin, started_at, finished_at, last_event_id)
    SELECT n, 'full', (SELECT system_identifier FROM pg_control_system()), CASE WHEN n % 50 <> 7 THEN made.timeline END,
           made.start_lsn, made.start_lsn + made.length, 'completed', CASE n % 100 WHEN 3 THEN 'failed' ELSE 'unverified' END,
           n % 10 = 0, 'detected', now(), now(), 0
      FROM (SELECT n, 1 AS timeline, '0/0'::pg_lsn + n * 100000 AS start_lsn, 70000 AS length
              FROM generate_series(1, 4000::bigint) n
             UNION ALL SELECT 5000, 1, LEFT_AT - 1000, 2000
             UNION ALL SELECT n, 1, LEFT_AT + (n - 5000) * 100000, 70000 FROM generate_series(5001, 5060::bigint) n
             UNION ALL SELECT n, 2, LEFT_AT + (n - 6000) * 100000, 70000 FROM generate_series(6001, 6060::bigint) n
             UNION ALL SELECT n, 3, LEFT_AT + (n - 7000) * 100000, 70000 FROM generate_series(7001, 7060::bigint) n) AS made";

/// What the contract says: the backups from which recovery meets the gap.
const EXPECTED: &str = "
    SELECT string_agg(format('%s %s %s', gap.timeline_id, gap.from_lsn, affected.ids), E'\n' ORDER BY gap.from_lsn, gap.timeline_id)
      FROM wal_archive_gaps gap,
           LATERAL (SELECT array_agg(b.id ORDER BY b.id) AS ids
                      FROM backup_history b,
                           LATERAL (SELECT b.timeline_id = 2 OR b.timeline_id = 1 AND b.end_lsn <= LEFT_AT AS is_ours) AS history
                     WHERE b.verification <> 'failed'
                       AND CASE WHEN b.wal_included THEN b.end_lsn ELSE b.start_lsn END < gap.to_lsn
                       AND CASE WHEN history.is_ours THEN gap.timeline_id = 2 OR gap.from_lsn < LEFT_AT
                                ELSE b.timeline_id = gap.timeline_id END) AS affected";

const SHOWN: &str = "
    SELECT string_agg(format('%s %s %s', timeline_id, from_lsn, affected_backups), E'\n' ORDER BY from_lsn, timeline_id)
      FROM wal_archive_gaps";

/// A server on timeline 2 that left timeline 1 at 1/0 or a little later, and where exactly, as a literal.
fn promoted() -> Result<(Cluster, String)> {
    let mut cluster = Cluster::start(Settings::new().set("pg_backstop.database", "nobody"))?;
    cluster.stop(Shutdown::Fast)?;
    let mut reset = cluster.server().program("pg_resetwal")?;
    process::run(
        reset
            .arg("-l")
            .arg("000000010000000100000000")
            .arg("-D")
            .arg(cluster.data()),
    )?;
    // pg_resetwal leaves wal_level minimal in pg_control until the server has been open once.
    cluster.start_server()?;
    cluster.stop(Shutdown::Fast)?;
    fs::write(cluster.data().join("standby.signal"), "")?;
    cluster.start_server()?;
    cluster.promote()?;
    cluster.text("CREATE EXTENSION pg_backstop")?;
    let history = fs::read_to_string(cluster.data().join("pg_wal/00000002.history"))?;
    let left_at = history.split_whitespace().nth(1).context(history.clone())?;
    let left_at = format!("'{left_at}'::pg_lsn");
    // The server's WAL has to reach behind the gap on timeline 2.
    cluster.text(
        "SELECT count(pg_logical_emit_message(false, 'filler', repeat('x', 1000000))) FROM generate_series(1, 8)",
    )?;
    Ok((cluster, left_at))
}

#[test]
fn of_thousands_of_backups_a_policy_counts_its_own_and_those_that_it_watches() -> Result<()> {
    let cluster = Cluster::start(Settings::new().set("pg_backstop.database", "nobody"))?;
    cluster.text("CREATE EXTENSION pg_backstop")?;
    let mut session = cluster.connect()?;
    // Of each policy's type 1,000 are its own, and 2,000 more were detected that are nobody's; 50 hours are 2 days and 2 hours.
    session.batch_execute(
        "SET session_replication_role = replica;
         INSERT INTO backup_policies (id, policy_name, backup_type, retention_days, min_backups, last_event_id)
         VALUES (1, 'nightly', 'full', 2, 10, 0), (2, 'hourly', 'incremental', 2, 2999, 0), (3, 'both', 'full', 1000, 1, 0);
         INSERT INTO backup_history (policy_id, backup_type, status, verification, origin, started_at, finished_at, last_event_id)
         SELECT CASE WHEN n <= 1000 THEN kind.policy END, kind.backup_type, CASE WHEN n % 100 = 0 THEN 'failed' ELSE 'completed' END,
                CASE WHEN n % 100 = 1 THEN 'failed' ELSE 'unverified' END,
                CASE WHEN n <= 1000 THEN 'recorded' ELSE 'detected' END,
                now() - n % 1000 * interval '1 h', now() - n % 1000 * interval '1 h', 0
           FROM generate_series(1, 3000) n, (VALUES (1, 'full'), (2, 'incremental')) AS kind (policy, backup_type)",
    )?;
    assert_eq!(
        cluster.text(
            "SELECT policy_name, good_count, expendable_count, running_count FROM v_policy_status ORDER BY policy_id"
        )?,
        // Of each hundred 98 are good. Younger than two days are those of hours 2 to 47, three times.
        "nightly|2940|2802|0\nhourly|2940|0|0\nboth|1960|0|0"
    );
    Ok(())
}

#[test]
fn the_backups_that_a_gap_affects_are_found_among_thousands() -> Result<()> {
    let (cluster, left_at) = promoted()?;
    let mut session = cluster.connect()?;
    session.batch_execute("SET session_replication_role = replica")?;
    session.batch_execute(&BACKUPS.replace("LEFT_AT", &left_at))?;
    for (timeline, megabyte) in [(1, "100"), (1, "250"), (1, "4096 + 3"), (2, "4096 + 4")] {
        session.batch_execute(&format!(
            "INSERT INTO wal_archive (segment_name, timeline_id, start_lsn, end_lsn, status, problem, first_seen_at)
             SELECT upper(format('%s%s%s', lpad(to_hex({timeline}), 8, '0'), lpad(to_hex(mb / 4096), 8, '0'),
                                 lpad(to_hex(mb % 4096), 8, '0'))),
                    {timeline}, '0/0'::pg_lsn + mb * 1048576, '0/0'::pg_lsn + (mb + 1) * 1048576, 'missing', 'missing', now()
               FROM (SELECT ({megabyte})::bigint AS mb) AS gap"
        ))?;
    }
    let expected = cluster.text(&EXPECTED.replace("LEFT_AT", &left_at))?;
    ensure!(expected.lines().count() == 4, "gaps: {expected}");
    assert_eq!(cluster.text(SHOWN)?, expected);
    let reasons = cluster.text("SELECT reasons FROM recovery_readiness")?;
    ensure!(
        reasons.contains("with backups 1, 2, 4 and at least 997 more"),
        "{reasons}"
    );
    Ok(())
}

/// The backup that a plan names, and a newer one of which it is not on record where it is.
fn planned(cluster: &Cluster, target: &str) -> Result<String> {
    cluster.text(&format!(
        "SELECT substring(action FROM '^Backup (\\d+)'), substring(action FROM 'Backup (\\d+) is newer')
           FROM recovery_plan({target}, data_directory => '/srv/copy') WHERE step = 1"
    ))
}

/// The same by a look at every backup: the newest that is consistent there, and up to there has all of its WAL.
fn found(cluster: &Cluster, is_consistent: &str, place: &str) -> Result<String> {
    cluster.text(&format!(
        "WITH suitable AS (
             SELECT b.id, b.backup_path FROM backup_history b,
                    LATERAL (SELECT max(w.latest_xact_at) FROM wal_archive w
                              WHERE w.status = 'verified' AND w.end_lsn > b.start_lsn
                                AND w.start_lsn < b.end_lsn) AS latest (at)
              WHERE b.status = 'completed' AND b.verification <> 'failed' AND {is_consistent}
                AND NOT EXISTS (SELECT FROM wal_archive w
                                 WHERE w.status <> 'verified' AND w.start_lsn < {place}
                                   AND w.end_lsn > CASE WHEN b.wal_included THEN b.end_lsn ELSE b.start_lsn END)
         ), chosen AS (SELECT max(id) AS id FROM suitable WHERE backup_path IS NOT NULL)
         SELECT c.id, (SELECT max(s.id) FROM suitable s WHERE s.id > c.id) FROM chosen c"
    ))
}

#[test]
fn a_plan_among_thousands_begins_with_the_newest_backup_that_leads_there() -> Result<()> {
    let cluster = many::cluster_at_4_gb(Settings::new())?;
    many::fill(&mut cluster.connect()?, 4_000)?;
    for megabyte in [17, 777, 1499, 1503, 2799, 3456] {
        let lsn = cluster.text(&format!("SELECT '0/0'::pg_lsn + {megabyte}.5 * 1048576"))?;
        let expected = found(&cluster, &format!("b.end_lsn <= '{lsn}'"), &format!("'{lsn}'::pg_lsn"))?;
        assert_eq!(planned(&cluster, &format!("target_lsn => '{lsn}'"))?, expected, "{lsn}");
        if megabyte == 1499 || megabyte == 2799 {
            continue;
        }
        // Between the only commits of this segment and the next.
        let (time, place) = (
            cluster.text(&format!(
                "SELECT latest_xact_at + interval '1 min' FROM wal_archive WHERE end_lsn = '0/0'::pg_lsn + ({megabyte} + 1)::bigint * 1048576"
            ))?,
            format!("('0/0'::pg_lsn + ({megabyte} + 1)::bigint * 1048576)"),
        );
        let expected = found(&cluster, &format!("latest.at <= '{time}'"), &place)?;
        assert_eq!(
            planned(&cluster, &format!("target_time => '{time}'"))?,
            expected,
            "{time}"
        );
    }
    Ok(())
}
