//! A gap that is known and accepted still ends a recovery window, alarms no more, and is forgotten by nobody.

use anyhow::{Context, Result};
use tests::cluster::text_in;
use tests::{Cluster, Scene, worker};

const VERDICT: &str = "SELECT status, open_alerts FROM recovery_readiness";
const GAPS: &str =
    "SELECT from_segment, to_segment, segments, state, problem FROM wal_archive_gaps WHERE state <> 'late'";

fn acknowledge(from: &str, to: &str) -> String {
    format!("SELECT acknowledge_wal_gap('{from}', '{to}', 'the old disk died, ticket 4711')")
}

fn status_of(cluster: &Cluster, segment: &str) -> Result<String> {
    cluster.text(&format!(
        "SELECT status, problem FROM wal_archive WHERE segment_name = '{segment}'"
    ))
}

/// Everything that an acknowledgement may change.
fn contents(cluster: &Cluster) -> Result<String> {
    cluster.text(
        "SELECT (SELECT count(*) FROM ledger_events), string_agg(concat(segment_name, status, problem, detail), ' '
                ORDER BY segment_name) FROM wal_archive WHERE status NOT IN ('verified', 'pending')",
    )
}

#[test]
fn an_acknowledged_gap_ends_its_window_without_an_alarm_and_a_newer_backup_heals_readiness() -> Result<()> {
    let scene = Scene::verified()?;
    let (cluster, lost) = (&scene.cluster, scene.victim()?);
    let fault = cluster.archive().remove(&lost)?;
    let found = format!("SELECT status FROM verify_wal_archive('{lost}', '{lost}') WHERE segment_name = '{lost}'");
    assert_eq!(cluster.text(&found)?, "missing");
    let before = cluster.text(VERDICT)?;
    let alerts: u32 = before
        .strip_prefix("at_risk|")
        .with_context(|| before.clone())?
        .parse()?;
    assert_eq!(cluster.text(&acknowledge(&lost, &lost))?, "1");

    assert_eq!(status_of(cluster, &lost)?, "acknowledged|missing");
    let detail = format!(
        "SELECT detail LIKE '{lost} %. Acknowledged by postgres: the old disk died, ticket 4711.',
                status_since > now() - interval '1 min' FROM wal_archive WHERE segment_name = '{lost}'"
    );
    assert_eq!(cluster.text(&detail)?, "t|t");
    assert_eq!(cluster.text(GAPS)?, format!("{lost}|{lost}|1|acknowledged|missing"));
    let windows = "SELECT ended_by, is_current FROM recovery_windows ORDER BY from_lsn";
    let broken = format!("gap at segment {lost}: acknowledged as lost|f");
    let still = |cluster: &Cluster| -> Result<()> {
        assert_eq!(cluster.text(windows)?, broken);
        // Nothing behind the gap can be recovered, and that is said; but nobody is called.
        assert_eq!(cluster.text(VERDICT)?, format!("at_risk|{}", alerts - 1));
        let reasons = cluster.text("SELECT array_to_string(reasons, ' ') FROM recovery_readiness")?;
        assert!(
            reasons.contains(&lost)
                && reasons.contains("acknowledged as lost")
                && reasons.contains("take a base backup"),
            "{reasons}"
        );
        Ok(())
    };
    still(cluster)?;
    worker::ticks(cluster, 3)?;
    cluster.text("SELECT count(*) FROM verify_wal_archive()")?;
    assert_eq!(status_of(cluster, &lost)?, "acknowledged|missing");
    still(cluster)?;

    cluster.base_backup(&cluster.place("newer"))?;
    cluster.archive_now()?;
    cluster.wait_for("SELECT status, reasons FROM recovery_readiness", "ready|{}")?;
    assert_eq!(cluster.text(windows)?, format!("{broken}\nnow|t"));
    let from = "SELECT recoverable_from = (SELECT max(from_time) FROM recovery_windows) FROM recovery_readiness";
    assert_eq!(cluster.text(from)?, "t");
    assert_eq!(cluster.text(GAPS)?, format!("{lost}|{lost}|1|acknowledged|missing"));

    // What comes back is judged like any other.
    fault.mend()?;
    let row = format!("SELECT status, problem IS NULL FROM wal_archive WHERE segment_name = '{lost}'");
    cluster.wait_for(&row, "verified|t")?;
    assert_eq!(cluster.text(GAPS)?, "");
    assert_eq!(cluster.text(windows)?, "now|t");
    assert_eq!(cluster.text("SELECT status FROM verify_ledger()")?, "intact");
    Ok(())
}

#[test]
fn an_acknowledged_damage_is_judged_anew_only_when_something_else_is_found() -> Result<()> {
    let scene = Scene::verified()?;
    let (cluster, victim) = (&scene.cluster, scene.victim()?);
    let now = "SELECT count(*) FROM verify_wal_archive()";
    let half = cluster
        .archive()
        .change(&victim, |bytes| bytes.truncate(bytes.len() / 2))?;
    cluster.text(now)?;
    assert_eq!(status_of(cluster, &victim)?, "corrupt|truncated");
    cluster.text(&acknowledge(&victim, &victim))?;
    cluster.text(now)?;
    worker::ticks(cluster, 3)?;
    assert_eq!(status_of(cluster, &victim)?, "acknowledged|truncated");
    half.mend()?;

    let empty = cluster.archive().change(&victim, Vec::clear)?;
    cluster.text(now)?;
    assert_eq!(status_of(cluster, &victim)?, "corrupt|empty");
    cluster.text(&acknowledge(&victim, &victim))?;
    assert_eq!(status_of(cluster, &victim)?, "acknowledged|empty");
    empty.mend()?;
    scene.wait_until_ready()
}

#[test]
fn only_the_bad_segments_of_a_range_are_acknowledged() -> Result<()> {
    let scene = Scene::verified()?;
    let cluster = &scene.cluster;
    let after = scene.after_the_backup();
    let [a, b, sound, c] = after.get(..4).context("four segments")? else {
        anyhow::bail!("four segments");
    };
    for lost in [a, b] {
        cluster.archive().remove(lost)?.stays();
    }
    cluster.archive().change(c, Vec::clear)?.stays();
    cluster.text("SELECT count(*) FROM verify_wal_archive()")?;
    assert_eq!(cluster.text(&acknowledge(a, c))?, "3");
    assert_eq!(
        cluster.text(GAPS)?,
        format!("{a}|{b}|2|acknowledged|missing\n{c}|{c}|1|acknowledged|empty")
    );
    assert_eq!(status_of(cluster, sound)?, "verified|");
    let event = "SELECT table_name, row_id, operation, via, actor, image FROM ledger_events ORDER BY id DESC LIMIT 1";
    let said = cluster.text(event)?;
    let (columns, image) = said.split_once('{').context("an image")?;
    assert_eq!(columns, "wal_archive|0|ACKNOWLEDGE|function|postgres|");
    let run = |from: &str, to: &str, segments: u32, problem: &str| {
        format!(r#"{{"problem": "{problem}", "segments": {segments}, "to_segment": "{to}", "from_segment": "{from}"}}"#)
    };
    for part in [
        r#""reason": "the old disk died, ticket 4711""#,
        r#""segments": 3"#,
        &format!(r#""from_segment": "{a}""#),
        &format!(r#""to_segment": "{c}""#),
        &run(a, b, 2, "missing"),
        &run(c, c, 1, "empty"),
    ] {
        assert!(image.contains(part), "{part} in {image}");
    }
    Ok(())
}

#[test]
fn what_cannot_be_acknowledged_is_refused_with_a_reason_and_changes_nothing() -> Result<()> {
    let scene = Scene::verified()?;
    let (cluster, lost) = (&scene.cluster, scene.victim()?);
    cluster.archive().remove(&lost)?.stays();
    cluster.text("SELECT count(*) FROM verify_wal_archive()")?;
    let sound = scene.backup.start_wal_file.clone();
    let elsewhere = format!("00000002{}", lost.get(8..).context("a segment")?);
    let before = contents(cluster)?;
    for (arguments, code, named) in [
        (format!("NULL, '{lost}', 'why'"), "22004", "from_segment"),
        (format!("'{lost}', NULL, 'why'"), "22004", "to_segment"),
        (format!("'{lost}', '{lost}', NULL"), "22004", "reason"),
        (format!("'{lost}', '{lost}', ''"), "22023", "reason"),
        (format!("'{lost}', '{lost}', E' \\n'"), "22023", "reason"),
        (format!("'the lost one', '{lost}', 'why'"), "22023", "the lost one"),
        (format!("'{lost}', '{lost}.gz', 'why'"), "22023", ".gz"),
        (format!("'{lost}', '{sound}', 'why'"), "22023", "after"),
        (format!("'{lost}', '{elsewhere}', 'why'"), "22023", "timelines"),
        (
            format!("'{sound}', '{sound}', 'why'"),
            "55000",
            "missing, corrupt or foreign",
        ),
    ] {
        let call = format!("SELECT acknowledge_wal_gap({arguments})");
        let error = cluster.refusal(&call)?;
        let told = format!("{call}: {} {:?} {:?}", error.message(), error.detail(), error.hint());
        assert_eq!(error.code().code(), code, "{told}");
        assert!(error.message().contains(named) && error.hint().is_some(), "{told}");
        assert_eq!(contents(cluster)?, before, "{told}");
    }
    let nothing = cluster.refusal(&acknowledge(&sound, &sound))?;
    assert!(
        nothing.hint().is_some_and(|hint| hint.contains("wal_archive_gaps")),
        "{nothing:?}"
    );
    let read_only = cluster.refusal(&format!("BEGIN READ ONLY; {}", acknowledge(&lost, &lost)))?;
    assert_eq!(read_only.code().code(), "25006", "{read_only}");

    // Once is enough.
    cluster.text(&acknowledge(&lost, &lost))?;
    assert_eq!(cluster.refusal(&acknowledge(&lost, &lost))?.code().code(), "55000");
    Ok(())
}

#[test]
fn whoever_is_granted_the_call_is_named_and_needs_nothing_else() -> Result<()> {
    let scene = Scene::verified()?;
    let (cluster, lost) = (&scene.cluster, scene.victim()?);
    cluster.archive().remove(&lost)?.stays();
    cluster.text("SELECT count(*) FROM verify_wal_archive()")?;
    cluster
        .text("CREATE ROLE alice LOGIN; GRANT EXECUTE ON FUNCTION acknowledge_wal_gap(text, text, text) TO alice")?;
    let mut alice = cluster.connect_as("alice", "postgres")?;
    assert_eq!(text_in(&mut alice, &acknowledge(&lost, &lost))?, "1");
    assert_eq!(
        cluster.text("SELECT actor, operation FROM ledger_events ORDER BY id DESC LIMIT 1")?,
        "alice|ACKNOWLEDGE"
    );
    let detail =
        format!("SELECT detail LIKE '%Acknowledged by alice: %' FROM wal_archive WHERE segment_name = '{lost}'");
    assert_eq!(cluster.text(&detail)?, "t");
    Ok(())
}

#[test]
fn an_acknowledgement_that_is_tampered_with_or_made_up_is_found() -> Result<()> {
    let scene = Scene::verified()?;
    let (cluster, lost) = (&scene.cluster, scene.victim()?);
    cluster.archive().remove(&lost)?.stays();
    cluster.text("SELECT count(*) FROM verify_wal_archive()")?;
    // Past the function: no event says so.
    let update = format!("UPDATE wal_archive SET status = 'acknowledged' WHERE segment_name = '{lost}'");
    cluster.text(&update)?;
    let verdict = "SELECT first_broken, status FROM verify_ledger()";
    let told = cluster.text(verdict)?;
    assert!(
        told.starts_with('|') && told.contains(&lost) && told.contains("no event"),
        "{told}"
    );
    cluster.text(&update.replace("'acknowledged'", "'missing'"))?;

    cluster.text(&acknowledge(&lost, &lost))?;
    assert_eq!(cluster.text(verdict)?, "|intact");
    let event = cluster.text("SELECT max(id) FROM ledger_events")?;
    for forgery in [
        r#"image = image || '{"reason": "nothing was lost"}'"#,
        "actor = 'mallory'",
        "operation = 'UPDATE'",
    ] {
        let mut session = cluster.connect()?;
        text_in(
            &mut session,
            &format!(
                "BEGIN; SET LOCAL session_replication_role = replica; UPDATE ledger_events SET {forgery} WHERE id = {event}"
            ),
        )?;
        let told = text_in(&mut session, verdict)?;
        assert!(
            told.starts_with(&format!("{event}|event {event} ")),
            "{forgery}: {told}"
        );
        text_in(&mut session, "ROLLBACK")?;
    }
    assert_eq!(cluster.text(verdict)?, "|intact");
    Ok(())
}

#[test]
fn a_dump_and_its_restore_keep_what_was_acknowledged() -> Result<()> {
    let scene = Scene::verified()?;
    let (cluster, lost) = (&scene.cluster, scene.victim()?);
    cluster.archive().remove(&lost)?.stays();
    cluster.text("SELECT count(*) FROM verify_wal_archive()")?;
    cluster.text(&acknowledge(&lost, &lost))?;
    let kept = format!(
        "SELECT (SELECT concat(status, problem, detail) FROM wal_archive WHERE segment_name = '{lost}'),
                (SELECT image FROM ledger_events WHERE operation = 'ACKNOWLEDGE'), (SELECT status FROM verify_ledger())"
    );
    let before = cluster.text(&kept)?;
    assert!(before.ends_with("|intact"), "{before}");
    let dump = cluster.place("a.dump").display().to_string();
    cluster.client("pg_dump", &["-Fc", "-f", &dump, "postgres"])?;
    cluster.text("CREATE DATABASE restored")?;
    cluster.client("pg_restore", &["--exit-on-error", "--jobs=4", "-d", "restored", &dump])?;
    let mut session = cluster.connect_as("postgres", "restored")?;
    assert_eq!(text_in(&mut session, &kept)?, before);
    Ok(())
}
