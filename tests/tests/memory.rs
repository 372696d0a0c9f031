//! Where memory runs out, a call ends with PostgreSQL's own error, and the server goes on; and no call takes much of it.

use anyhow::{Context, Result, bail, ensure};
use postgres::error::SqlState;
use tests::cluster::text_in;
use tests::{Cluster, Scene, Settings, many, memory, worker};

/// What is asked under each limit: all that reads what grows.
const QUESTIONS: &[&str] = &[
    "SELECT count(*) FROM recovery_plan(data_directory => '/srv/copy')",
    "SELECT count(*) FROM recovery_plan(target_lsn => '0/40000000', data_directory => '/srv/copy')",
    "SELECT count(*) FROM recovery_plan(target_time => now() - interval '20 d', data_directory => '/srv/copy')",
    "SELECT count(*) FROM prepare_recovery('/backups/7')",
    "SELECT count(*) FROM wal_archive_gaps",
    "SELECT status FROM recovery_readiness",
    "SELECT count(*) FROM recovery_windows",
    "SELECT count(*) FROM v_rto_prediction",
    "SELECT count(*) FROM v_objective_compliance",
    "SELECT status FROM verify_ledger()",
    "SELECT count(*) FROM verify_wal_archive()",
];

/// Address space beyond what a new session has, kB: too little for anything, then in small steps from what the extension sets aside.
fn limits() -> impl Iterator<Item = u64> {
    [0, 1024]
        .into_iter()
        .chain((0..14).map(|step| 8250 + step * 350))
        .chain([16 << 10, 32 << 10])
}

/// What the extension sets aside for the way to an error, kB.
const SET_ASIDE_KB: u64 = 8 << 10;

/// Whether the question was answered under this limit.
fn is_answered(cluster: &Cluster, question: &str, more_kb: u64) -> Result<bool> {
    let mut session = cluster.connect()?;
    let process = memory::process_of(&mut session)?;
    memory::limit(process, Some(more_kb))?;
    let error = match session.simple_query(question) {
        Ok(_) => return Ok(true),
        Err(error) => error,
    };
    let said = error
        .as_db_error()
        .with_context(|| format!("{question} with {more_kb} kB more: {error}"))?;
    ensure!(
        said.code() == &SqlState::OUT_OF_MEMORY,
        "{question} with {more_kb} kB more: {said:?}"
    );
    // Without room for what the extension sets aside, an error may find none for itself, and then ends the session.
    if more_kb < SET_ASIDE_KB && said.severity() == "FATAL" {
        return Ok(false);
    }
    ensure!(
        said.severity() == "ERROR",
        "{question} with {more_kb} kB more: {said:?}"
    );
    // The session goes on, and answers once there is room.
    memory::limit(process, None)?;
    let answer = session.simple_query(question);
    ensure!(answer.is_ok(), "{question} after {more_kb} kB: {answer:?}");
    Ok(false)
}

/// How often memory ran out.
fn swept(cluster: &Cluster, question: &str) -> Result<usize> {
    let mut failures = 0;
    for limit in limits() {
        if !is_answered(cluster, question, limit)? {
            failures += 1;
        }
    }
    Ok(failures)
}

#[test]
fn where_memory_runs_out_a_call_fails_as_postgresqls_own_do_and_nobody_else_notices() -> Result<()> {
    let cluster = many::cluster_at_4_gb(Settings::new())?;
    let mut witness = cluster.connect()?;
    many::fill(&mut witness, 20_000)?;
    let own = "SELECT array_length(array_agg(n), 1) FROM generate_series(1, 2000000) n";
    ensure!(swept(&cluster, own)? > 0, "no limit was too small for PostgreSQL's own");
    for question in QUESTIONS {
        let failures = swept(&cluster, question).with_context(|| log_of(&cluster))?;
        ensure!(failures > 2, "only {failures} limits were too small for {question}");
    }
    let long = "SELECT cron_next(repeat('*', n), now()) FROM generate_series(60000000, 60000000) n";
    let mut session = cluster.connect()?;
    let process = memory::process_of(&mut session)?;
    for (more_kb, code) in [
        (Some(100 << 10), SqlState::OUT_OF_MEMORY),
        // With room for it, it is too long for what it is to be.
        (None, SqlState::INVALID_PARAMETER_VALUE),
    ] {
        memory::limit(process, more_kb)?;
        let refused = tests::cluster::refusal_in(&mut session, long)?;
        ensure!(refused.code() == &code, "{long}: {refused}");
    }
    // A crash of one process would have ended this session too.
    assert_eq!(text_in(&mut witness, "SELECT 1")?, "1");
    let log = cluster.log()?;
    ensure!(!log.contains("was terminated by signal"), "{log}");
    Ok(())
}

fn log_of(cluster: &Cluster) -> String {
    let log = cluster.log().unwrap_or_default();
    let told: Vec<&str> = log
        .lines()
        .filter(|line| {
            ["signal", "PANIC", "FATAL", "memory allocation"]
                .iter()
                .any(|word| line.contains(word))
        })
        .collect();
    told.join("\n")
}

/// By how much a session's memory grows at most while it asks, kB.
fn growth(cluster: &Cluster, question: &str) -> Result<u64> {
    let mut session = cluster.connect()?;
    let process = memory::process_of(&mut session)?;
    let of_its_own = |line: &str| -> Result<u64> {
        Ok(memory::status_kb(process, line)?.saturating_sub(memory::status_kb(process, "RssShmem")?))
    };
    let before = of_its_own("VmRSS")?;
    text_in(&mut session, question)?;
    Ok(of_its_own("VmHWM")?.saturating_sub(before))
}

#[test]
fn of_two_hundred_thousand_backups_a_question_holds_a_handful() -> Result<()> {
    const MOST_KB: u64 = 30 << 10;
    let cluster = many::cluster_at_4_gb(Settings::new())?;
    many::fill(&mut cluster.connect()?, 200_000)?;
    let mut too_much = Vec::new();
    for question in QUESTIONS.iter().take(8) {
        let kb = growth(&cluster, question)?;
        println!("{kb} kB: {question}");
        if kb > MOST_KB {
            too_much.push(format!("{kb} kB: {question}"));
        }
    }
    if !too_much.is_empty() {
        bail!("more than {MOST_KB} kB:\n{}", too_much.join("\n"));
    }
    Ok(())
}

#[test]
fn a_worker_whose_memory_runs_out_says_so_and_goes_on_once_there_is_room() -> Result<()> {
    let scene = Scene::verified()?;
    let cluster = &scene.cluster;
    let process = i32::try_from(worker::pid(cluster)?)?;
    let state = "SELECT state, last_error LIKE '%out of memory%' FROM v_worker_status";
    for (more_kb, segment) in [0, 512, 4096, 9000, 12_000].into_iter().zip(scene.after_the_backup()) {
        memory::limit(process, Some(more_kb))?;
        // Whatever the limit leaves undone, a tick comes to its end.
        cluster.archive().change(&segment, |_| ())?.stays();
        worker::ticks(cluster, 2)?;
    }
    memory::limit(process, Some(0))?;
    cluster.wait_for(state, "failing|t")?;
    memory::limit(process, None)?;
    cluster.wait_for("SELECT state, last_error FROM v_worker_status", "idle|")?;
    assert_eq!(i32::try_from(worker::pid(cluster)?)?, process);
    ensure!(!cluster.log()?.contains("terminated by signal"), "{}", log_of(cluster));
    Ok(())
}
