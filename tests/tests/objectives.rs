//! The objectives are judged by what was seen, moment by moment: what was inside, what was outside, and what nobody watched.

use anyhow::{Context, Result};
use rustix::process::Signal;
use tests::cluster::text_in;
use tests::running::signal_process;
use tests::wait::SOON;
use tests::{Cluster, Look, Scene, Settings, Shutdown, process, wait_until, worker};

/// A cluster all of whose archive is verified, whose worker looks ten times a second.
fn watched(settings: &[(&str, &str)]) -> Result<Scene> {
    let mut scene = Scene::stopped()?;
    scene.cluster.set("pg_backstop.check_interval", "100ms")?;
    for (name, value) in settings {
        scene.cluster.set(name, value)?;
    }
    scene.start()?;
    scene.wait_until_ready()?;
    Ok(scene)
}

/// One column of the last 24 hours.
fn compliance(cluster: &Cluster, column: &str) -> Result<String> {
    cluster.text(&format!(
        "SELECT {column} FROM v_objective_compliance WHERE period = '24 h'"
    ))
}

fn seconds(cluster: &Cluster, column: &str) -> Result<f64> {
    let text = compliance(cluster, column)?;
    text.parse().with_context(|| format!("{column} is {text:?}"))
}

/// Waits until a number has grown beyond `least`.
fn grown(cluster: &Cluster, column: &str, least: f64) -> Result<f64> {
    wait_until(&format!("{column} above {least}"), SOON, || {
        let seen = seconds(cluster, column)?;
        Ok(if seen > least {
            Look::Done(seen)
        } else {
            Look::not_yet(seen)
        })
    })
}

#[test]
fn an_outage_of_the_archive_counts_as_outside_from_the_second_the_objective_is_missed() -> Result<()> {
    let mut scene = watched(&[("pg_backstop.target_rpo", "1s")])?;
    let cluster = &mut scene.cluster;
    cluster.archive_now()?;
    cluster.wait_for("SELECT rpo_seconds = 0 FROM recovery_readiness", "t")?;
    grown(cluster, "observed_seconds", 1.0)?;
    let before = seconds(cluster, "rpo_outside_seconds")?;
    // The worker's first looks may have come before all was verified.
    let worst_before = seconds(cluster, "worst_rpo_seconds")?;
    cluster.set("archive_command", "false")?;
    cluster.reload()?;
    cluster.text("CREATE TABLE unprotected AS SELECT 1 AS one")?;
    let committed = "SELECT extract(epoch FROM clock_timestamp())::text";
    let began: f64 = cluster.text(committed)?.parse()?;
    let outside = grown(cluster, "rpo_outside_seconds", before + 3.0)? - before;
    let lasted = cluster.text(committed)?.parse::<f64>()? - began;
    // The first second was within the objective.
    assert!(
        outside <= lasted - 0.5,
        "{outside} s of {lasted} s since the commit are outside"
    );
    let worst = seconds(cluster, "worst_rpo_seconds")?;
    assert!(
        worst >= outside && worst <= worst_before.max(lasted + 1.5),
        "{worst} s at worst, {outside} s outside, {lasted} s in all"
    );
    let share = seconds(cluster, "rpo_share")?;
    assert!(share > 0.0 && share < 1.0, "{share}");

    // A policy that allows more is kept meanwhile, one that allows less is not.
    cluster.text("INSERT INTO backup_policies (policy_name, target_rpo) VALUES ('patient', '1 h'), ('cluster', NULL), ('free', '0')")?;
    assert_eq!(
        cluster.text("SELECT policy_name, rpo_met FROM v_policy_status ORDER BY 1")?,
        "cluster|f\nfree|\npatient|t"
    );

    let command = cluster.archive().command();
    cluster.set("archive_command", &command)?;
    cluster.reload()?;
    cluster.text("SELECT pg_switch_wal()")?;
    cluster.wait_for("SELECT rpo_seconds = 0 FROM recovery_readiness", "t")?;
    let ended = grown(cluster, "observed_seconds", seconds(cluster, "observed_seconds")?)?;
    let outside = seconds(cluster, "rpo_outside_seconds")?;
    grown(cluster, "observed_seconds", ended + 1.0)?;
    assert_eq!(seconds(cluster, "rpo_outside_seconds")?, outside, "it is over");
    let sums = "SELECT bool_and(rpo_inside_seconds + rpo_outside_seconds <= observed_seconds
                    AND observed_seconds <= 3600 AND counted_to BETWEEN hour AND hour + interval '1 h') FROM recovery_hourly";
    assert_eq!(cluster.text(sums)?, "t");
    Ok(())
}

#[test]
fn time_without_a_usable_backup_is_outside_and_unprotected() -> Result<()> {
    let settings = Settings::new().set("pg_backstop.check_interval", "100ms");
    let cluster = Cluster::start(settings)?;
    cluster.text("CREATE EXTENSION pg_backstop")?;
    grown(&cluster, "unprotected_seconds", 0.5)?;
    assert_eq!(compliance(&cluster, "rpo_share, rto_share, worst_rpo_seconds")?, "0||");
    Ok(())
}

#[test]
fn time_without_a_worker_is_neither_inside_nor_outside() -> Result<()> {
    let scene = watched(&[])?;
    let cluster = &scene.cluster;
    grown(cluster, "observed_seconds", 1.0)?;
    let clock = "SELECT extract(epoch FROM clock_timestamp())::text";
    let all = "observed_seconds, rpo_outside_seconds, unprotected_seconds";
    assert_eq!(cluster.text("SELECT stop_worker()")?, "t");
    let gone = "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'pg_backstop worker'";
    cluster.wait_for(gone, "0")?;
    let (stopped, since): (String, f64) = (compliance(cluster, all)?, cluster.text(clock)?.parse()?);
    let observed = seconds(cluster, "observed_seconds")?;
    cluster.wait_for(
        &format!("SELECT extract(epoch FROM clock_timestamp()) > {since} + 3"),
        "t",
    )?;
    assert_eq!(compliance(cluster, all)?, stopped, "nobody watches");
    let away = cluster.text(clock)?.parse::<f64>()? - since;
    cluster.text("SELECT start_worker()")?;
    let began = cluster.text(clock)?.parse::<f64>()?;
    // What the worker before had seen is not lost, and what nobody saw is not made up.
    let after = grown(cluster, "observed_seconds", observed + 1.0)?;
    let worked = cluster.text(clock)?.parse::<f64>()? - began;
    assert!(
        after - observed <= worked + 0.5,
        "{after} s after {observed} s, {worked} s of work, {away} s away"
    );
    Ok(())
}

/// A sum that was written is neither lost with the worker nor written twice.
#[test]
fn sums_survive_a_worker_and_a_server_that_are_killed() -> Result<()> {
    let mut scene = watched(&[])?;
    let clock = "SELECT extract(epoch FROM clock_timestamp())::text";
    let began: f64 = scene.cluster.text(clock)?.parse()?;
    let hourly = "SELECT sum(observed_seconds), sum(sample_count) FROM recovery_hourly";
    let numbers = |cluster: &Cluster| -> Result<(f64, u64)> {
        let text = cluster.text(hourly)?;
        let (observed, samples) = text.split_once('|').context("two numbers")?;
        Ok((observed.parse()?, samples.parse()?))
    };
    let sampled = |cluster: &Cluster, least: u64| {
        wait_until("another sample", SOON, || {
            cluster.text("DROP TABLE IF EXISTS busy; CREATE TABLE busy ()")?;
            let (observed, samples) = numbers(cluster)?;
            Ok(if samples > least {
                Look::Done((observed, samples))
            } else {
                Look::not_yet(samples)
            })
        })
    };
    sampled(&scene.cluster, numbers(&scene.cluster)?.1)?;
    for whom in ["worker", "server"] {
        // A checkpoint makes sure of what was committed without waiting for the disk.
        scene.cluster.text("SELECT stop_worker()")?;
        scene.cluster.text("CHECKPOINT")?;
        let before = numbers(&scene.cluster)?;
        scene.cluster.text("SELECT start_worker()")?;
        let pid = worker::pid(&scene.cluster)?;
        if whom == "worker" {
            signal_process(pid, Signal::KILL)?;
            worker::successor(&scene.cluster, pid)?;
        } else {
            scene.cluster.restart(Shutdown::Kill)?;
        }
        let after = sampled(&scene.cluster, before.1)?;
        assert!(
            after.0 >= before.0,
            "{after:?} is less than {before:?} after the end of the {whom}"
        );
    }
    let lasted = scene.cluster.text(clock)?.parse::<f64>()? - began;
    let observed = numbers(&scene.cluster)?.0;
    let earlier = 60.0;
    assert!(
        observed <= lasted + earlier,
        "{observed} s were summed up in {lasted} s"
    );
    Ok(())
}

#[test]
fn what_an_hour_has_summed_up_is_not_summed_up_again_when_a_clock_is_set_back() -> Result<()> {
    let scene = watched(&[])?;
    let cluster = &scene.cluster;
    // To the worker this is as if the clock stood before what it has summed up already.
    cluster.text(
        "UPDATE recovery_hourly SET counted_to = hour + interval '1 h', observed_seconds = 3600, rpo_inside_seconds = 3600,
                rpo_outside_seconds = 0, unprotected_seconds = 0, measured_seconds = 3600",
    )?;
    let samples: u64 = cluster.text("SELECT sum(sample_count) FROM recovery_hourly")?.parse()?;
    wait_until("samples", SOON, || {
        cluster.text("DROP TABLE IF EXISTS busy; CREATE TABLE busy ()")?;
        let seen: u64 = cluster.text("SELECT sum(sample_count) FROM recovery_hourly")?.parse()?;
        Ok(if seen > samples + 3 {
            Look::Done(())
        } else {
            Look::not_yet(seen)
        })
    })?;
    assert_eq!(
        cluster.text("SELECT max(observed_seconds) <= 3600 FROM recovery_hourly")?,
        "t"
    );
    // An hour that has yet to come, as a clock that was set back leaves one, does not count.
    let sum = "SELECT observed_seconds < 1000000, coalesce(worst_rpo_bytes, 0) < 1000000000000000 FROM v_objective_compliance WHERE period = '30 d'";
    cluster.text(
        "INSERT INTO recovery_hourly
         SELECT hour + interval '2 d', counted_to + interval '2 d', 1, 2000000, 0, 2000000, 0, 0, 0, 0, NULL, 1000000,
                1000000000000000, NULL, system_identifier FROM recovery_hourly LIMIT 1;
         INSERT INTO recovery_samples (sampled_at, rpo_seconds, rpo_bytes, protected_lsn)
         VALUES (now() + interval '2 d', 1000000, 1000000000000000, '0/1')",
    )?;
    assert_eq!(cluster.text(sum)?, "t|t");
    Ok(())
}

/// What was written between two positions, but for the list of transactions with which the server answers what was written before.
fn records(cluster: &Cluster, from: &str, to: &str) -> Result<String> {
    if from == to {
        return Ok(String::new());
    }
    let mut dump = cluster.server().program("pg_waldump")?;
    let dump = dump.arg("-p").arg(cluster.data().join("pg_wal"));
    let records = process::run(dump.args(["-s", from, "-e", to]))?;
    let others = records.lines().filter(|record| !record.contains("RUNNING_XACTS"));
    Ok(others.collect::<Vec<_>>().join("\n"))
}

/// With no other writes, a simulated hour of ticks writes nothing.
#[test]
fn an_idle_hour_is_watched_without_a_byte_of_wal() -> Result<()> {
    // PostgreSQL's own processes write on their own account.
    let scene = watched(&[
        ("autovacuum", "off"),
        ("checkpoint_timeout", "1h"),
        ("bgwriter_lru_maxpages", "0"),
    ])?;
    let cluster = &scene.cluster;
    let insert = "SELECT pg_current_wal_insert_lsn()";
    // A session that comes by rows that are dead removes them, and writes that down.
    cluster.text("VACUUM")?;
    // It takes a while until the answers to what was written last have come, of the server's and the worker's: news of a segment in
    // which nobody committed waits.
    let settled =
        "SELECT (SELECT w.status FROM wal_archive w, pg_stat_archiver a WHERE w.segment_name = a.last_archived_wal)";
    wait_until("the server to be idle", SOON, || {
        let before = cluster.text(insert)?;
        worker::ticks(cluster, 20)?;
        let after = format!("{} {}", cluster.text(insert)?, cluster.text(settled)?);
        Ok(if after == format!("{before} verified") {
            Look::Done(())
        } else {
            Look::not_yet(after)
        })
    })?;
    let (before, observed) = (cluster.text(insert)?, seconds(cluster, "observed_seconds")?);
    worker::ticks(cluster, 360)?;
    let after = cluster.text(insert)?;
    assert_eq!(records(cluster, &before, &after)?, "");
    assert_eq!(cluster.text("SELECT rpo_seconds FROM recovery_readiness")?, "0");
    // All of that time was watched and is known to have been within the objective, although nothing was written.
    let watched = seconds(cluster, "observed_seconds")? - observed;
    assert!(watched > 30.0, "{watched} s");
    assert_eq!(compliance(cluster, "rpo_outside_seconds = unprotected_seconds")?, "t");
    Ok(())
}

#[test]
fn which_receivers_protect_is_for_the_administrator_to_say() -> Result<()> {
    let mut scene = watched(&[])?;
    let exposure = "SELECT rpo_bytes = 0 FROM recovery_readiness";
    let standby = scene
        .cluster
        .standby(Settings::new().set("pg_backstop.database", "nobody"))?;
    scene.cluster.text("CREATE TABLE fresh AS SELECT 1 AS one")?;
    scene.cluster.wait_for(exposure, "t")?;
    let cluster = &mut scene.cluster;
    for (counted, names, protected) in [
        ("synchronous", "", "f"),
        ("synchronous", "*", "t"),
        ("none", "*", "f"),
        ("all", "", "t"),
    ] {
        cluster.set("pg_backstop.counted_receivers", counted)?;
        cluster.set("synchronous_standby_names", names)?;
        cluster.reload()?;
        cluster.text("SET synchronous_commit = off; DROP TABLE fresh; CREATE TABLE fresh AS SELECT 1 AS one")?;
        cluster
            .wait_for(exposure, protected)
            .with_context(|| format!("{counted}, with synchronous_standby_names = '{names}'"))?;
        let streamed = "SELECT streamed_lsn IS NOT NULL FROM recovery_samples ORDER BY sampled_at DESC LIMIT 1";
        cluster.wait_for(streamed, protected)?;
    }
    // There are no samples on a standby, and what is asked of them there has an answer all the same.
    assert_eq!(standby.text("SELECT count(*) FROM v_objective_compliance")?, "3");
    assert_eq!(standby.text("SELECT count(*) FROM v_policy_status")?, "0");
    let error = cluster.refusal("ALTER SYSTEM SET pg_backstop.counted_receivers = 'some'")?;
    assert!(
        error.hint().is_some_and(|hint| hint.contains("all, synchronous, none")),
        "{error:?}"
    );
    Ok(())
}

#[test]
fn pg_receivewal_protects_what_it_has_flushed() -> Result<()> {
    let mut scene = watched(&[])?;
    let cluster = &mut scene.cluster;
    let place = cluster.place("received");
    process::run(process::program("mkdir", process::OnOurEnd::Kill)?.arg(&place))?;
    let mut receiver = cluster.client_command("pg_receivewal")?;
    receiver
        .args(["--synchronous", "--no-loop", "--status-interval=1", "-D"])
        .arg(&place);
    let mut receiver = process::spawn(&mut receiver)?;
    let exposure = "SELECT rpo_bytes = 0 AND rpo_seconds = 0 FROM recovery_readiness";
    cluster.text("CREATE TABLE fresh AS SELECT 1 AS one")?;
    cluster.wait_for(exposure, "t")?;
    cluster.set("pg_backstop.counted_receivers", "none")?;
    cluster.reload()?;
    cluster.wait_for(exposure, "f")?;
    receiver.kill()?;
    receiver.wait()?;
    Ok(())
}

#[test]
fn recoveries_are_held_against_the_objective_of_their_policy() -> Result<()> {
    let settings = Settings::new().set("pg_backstop.target_rto", "100s");
    let cluster = Cluster::start(settings)?;
    cluster.text("CREATE EXTENSION pg_backstop")?;
    let mut session = cluster.connect()?;
    text_in(
        &mut session,
        "INSERT INTO backup_policies (policy_name, target_rto) VALUES ('slow', '1 h')",
    )?;
    let backup = text_in(
        &mut session,
        "SELECT backup_id FROM record_backup_start(policy_name => 'slow')",
    )?;
    for (took, predicted, backup) in [("50", "60", "NULL"), ("200", "100", "NULL"), ("1000", "1000", &*backup)] {
        text_in(
            &mut session,
            &format!(
                "INSERT INTO recovery_history (recovery_type, status, rto_seconds, rpo_seconds, predicted_rto_seconds, backup_id)
                 VALUES ('latest', 'completed', {took}, 10, {predicted}, {backup})"
            ),
        )?;
    }
    let shown = "SELECT median_rto_seconds, p95_rto_seconds, median_rpo_seconds, p95_rpo_seconds, rto_within_target,
                        rpo_within_target, predicted_count, avg_prediction_error_percent, max_prediction_error_percent
                   FROM v_rto_rpo_monitoring";
    assert_eq!(
        text_in(&mut session, shown)?,
        "200.000|920.000|10.000|10.000|0.666667|1.000000|3|23.3|50.0"
    );
    Ok(())
}
