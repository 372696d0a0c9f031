//! Every way to store archived WAL: read as its own tool wrote it, and faults in it are found and named as in a plain directory.

use anyhow::{Context, Result};
use tests::archive::Fault;
use tests::layout::Stored;
use tests::waldump;
use tests::{Codec, Layout};

type Make = Box<dyn Fn(&Stored) -> Result<Fault>>;

/// A fault in one segment, and what must be said of it.
struct Case {
    segment: String,
    make: Make,
    /// Status and problem, as `status|problem`.
    verdicts: Vec<&'static str>,
    /// What `detail` must contain.
    detail: String,
}

const DECOMPRESSION: &str = "corrupt|decompression_failed";

/// A1, A4, A7, A15: five segments, none beside another.
fn cases(layout: Layout, stored: &Stored) -> Result<Vec<Case>> {
    let after = stored.scene.after_the_backup();
    let mut free = after.iter().skip(1).step_by(2).cloned();
    let mut segment = || free.next().context("too few segments");
    let case = |segment: &String, make: Make, verdict| Case {
        segment: segment.clone(),
        make,
        verdicts: vec![verdict],
        detail: segment.clone(),
    };

    let name = segment()?;
    let (gone, cut, flipped) = (name.clone(), segment()?, segment()?);
    let mut cases = vec![case(
        &name,
        Box::new(move |stored| stored.archive.remove(&stored.file(&gone)?)),
        "missing|missing",
    )];

    let name = cut.clone();
    cases.push(case(
        &cut,
        Box::new(move |stored| stored.change(&name, |bytes| bytes.truncate(bytes.len() / 2))),
        "corrupt|truncated",
    ));

    let (lsn, end) = record_on_one_page(stored, &flipped)?;
    let name = flipped.clone();
    cases.push(Case {
        detail: lsn,
        ..case(
            &flipped,
            Box::new(move |stored| {
                stored.change(&name, |bytes| {
                    if let Some(byte) = bytes.get_mut(end - 5) {
                        *byte ^= 8;
                    }
                })
            }),
            "corrupt|bad_record_crc",
        )
    });
    if layout.codec().is_none() {
        return Ok(cases);
    }

    // Who asks a restore_command learns only that it failed: recovery, too, would take the segment for missing.
    let failed = if matches!(layout, Layout::RestoreCommand(_)) {
        "missing|missing"
    } else {
        DECOMPRESSION
    };
    let (cut, damaged) = (segment()?, segment()?);
    let name = cut.clone();
    cases.push(case(
        &cut,
        Box::new(move |stored| {
            let file = stored.file(&name)?;
            stored.archive.change(&file, |bytes| bytes.truncate(bytes.len() / 2))
        }),
        failed,
    ));
    let name = damaged.clone();
    let damaged = case(
        &damaged,
        Box::new(move |stored| {
            let file = stored.file(&name)?;
            stored.archive.change(&file, |bytes| {
                let middle = bytes.len() / 2;
                bytes.iter_mut().skip(middle).take(16).for_each(|byte| *byte = !*byte);
            })
        }),
        failed,
    );
    let verdicts = if layout.is_checksummed() {
        vec![failed]
    } else {
        // The decompressor may let it pass; then it shows in what comes out.
        vec![
            DECOMPRESSION,
            "corrupt|bad_record_crc",
            "corrupt|bad_record_length",
            "corrupt|bad_record_link",
            "corrupt|bad_page_header",
            "corrupt|bad_page_address",
            "corrupt|truncated",
            "corrupt|oversized",
        ]
    };
    cases.push(Case { verdicts, ..damaged });
    Ok(cases)
}

/// LSN and end, within its segment, of a record with a body to damage.
fn record_on_one_page(stored: &Stored, segment: &str) -> Result<(String, usize)> {
    let plain = stored.scene.cluster.place(segment);
    std::fs::write(&plain, stored.content(segment)?)?;
    let records = waldump::records(stored.scene.cluster.server(), &plain)?;
    let on_one_page = records
        .iter()
        .find(|record| record.length > 60 && record.offset % 8192 + record.length < 8192);
    let record = on_one_page.context("no such record")?;
    Ok((record.lsn.clone(), usize::try_from(record.offset + record.length)?))
}

/// Every case shows, with its place, and weighs.
fn are_found(stored: &Stored, cases: &[Case]) -> Result<()> {
    let cluster = &stored.scene.cluster;
    for case in cases {
        let row = |columns: &str| {
            format!(
                "SELECT {columns} FROM wal_archive WHERE segment_name = '{}'",
                case.segment
            )
        };
        let allowed = case.verdicts.join("', '");
        cluster
            .wait_for(
                &row(&format!("status || '|' || coalesce(problem, '') IN ('{allowed}')")),
                "t",
            )
            .with_context(|| {
                let seen = cluster.text(&row("status, problem, detail")).unwrap_or_default();
                format!("{} should be {allowed}, and is {seen}", case.segment)
            })?;
        let detail = cluster.text(&row("detail"))?;
        assert!(detail.contains(&case.detail), "no {:?} in {detail:?}", case.detail);
        let gap = format!(
            "SELECT state, affected_backups <> '{{}}' FROM wal_archive_gaps WHERE '{}' BETWEEN from_segment AND to_segment",
            case.segment
        );
        assert_eq!(cluster.text(&gap)?, "lost|t", "{}", case.segment);
    }
    cluster.wait_for("SELECT status FROM recovery_readiness", "at_risk")
}

fn make(stored: &Stored, cases: &[Case]) -> Result<Vec<Fault>> {
    cases.iter().map(|case| (case.make)(stored)).collect()
}

fn mend(stored: &Stored, faults: Vec<Fault>) -> Result<()> {
    faults.into_iter().try_for_each(Fault::mend)?;
    stored.scene.wait_until_ready().context("after the mend")
}

/// The worker finds faults that are there before it, and faults in verified segments are found at once. Both are mended.
fn every_fault_is_found_and_mended(layout: Layout) -> Result<()> {
    let mut stored = layout.scene()?;
    let cases = cases(layout, &stored)?;
    let faults = make(&stored, &cases)?;
    stored.watch(false)?;
    are_found(&stored, &cases)?;
    mend(&stored, faults)?;

    let faults = make(&stored, &cases)?;
    let found = stored
        .scene
        .cluster
        .text("SELECT segment_name FROM verify_wal_archive() WHERE status NOT IN ('verified', 'pending') ORDER BY 1")?;
    let made: Vec<&str> = cases.iter().map(|case| case.segment.as_str()).collect();
    assert_eq!(found.lines().collect::<Vec<_>>(), made);
    are_found(&stored, &cases)?;
    mend(&stored, faults)
}

/// What the server is set up with is enough.
fn it_is_found_by_itself(layout: Layout) -> Result<()> {
    let mut stored = layout.scene()?;
    stored.watch(true)?;
    stored.scene.wait_until_ready().with_context(|| format!("{layout:?}"))?;
    let source = layout.source(&stored.scene.cluster);
    let chosen = stored
        .scene
        .cluster
        .text("SELECT archive_source FROM v_worker_status")?;
    assert!(chosen.starts_with(&source), "{chosen:?}, where {source:?} was expected");
    Ok(())
}

macro_rules! promises {
    ($($(#[$attribute:meta])* $promise:ident($check:ident): $layout:expr;)*) => {
        $(#[test]
        $(#[$attribute])*
        fn $promise() -> Result<()> {
            $check($layout)
        })*
    };
}

promises! {
    faults_in_a_directory_filled_by_cp_are_found(every_fault_is_found_and_mended): Layout::Directory(None);
    faults_in_a_directory_filled_by_gzip_are_found(every_fault_is_found_and_mended): Layout::Directory(Some(Codec::Gzip));
    #[ignore = "a further compression of a layout: tested with the newest server of a run"]
    faults_in_a_directory_filled_by_bzip2_are_found(every_fault_is_found_and_mended): Layout::Directory(Some(Codec::Bzip2));
    #[ignore = "a further compression of a layout: tested with the newest server of a run"]
    faults_in_a_directory_filled_by_xz_are_found(every_fault_is_found_and_mended): Layout::Directory(Some(Codec::Xz));
    #[ignore = "a further compression of a layout: tested with the newest server of a run"]
    faults_in_a_directory_filled_by_zstd_are_found(every_fault_is_found_and_mended): Layout::Directory(Some(Codec::Zstd));
    #[ignore = "a further compression of a layout: tested with the newest server of a run"]
    faults_in_a_directory_filled_by_lz4_are_found(every_fault_is_found_and_mended): Layout::Directory(Some(Codec::Lz4));
    faults_in_a_directory_of_basic_archive_are_found(every_fault_is_found_and_mended): Layout::BasicArchive;
    faults_in_a_directory_of_pg_receivewal_are_found(every_fault_is_found_and_mended): Layout::ReceiveWal(None);
    faults_in_a_directory_of_pg_receivewal_with_gzip_are_found(every_fault_is_found_and_mended): Layout::ReceiveWal(Some(Codec::Gzip));
    #[ignore = "a further compression of a layout: tested with the newest server of a run"]
    faults_in_a_directory_of_pg_receivewal_with_lz4_are_found(every_fault_is_found_and_mended): Layout::ReceiveWal(Some(Codec::Lz4));
    faults_in_a_repository_of_pgbackrest_are_found(every_fault_is_found_and_mended): Layout::PgBackRest(None);
    faults_in_a_repository_of_pgbackrest_with_gz_are_found(every_fault_is_found_and_mended): Layout::PgBackRest(Some(Codec::Gzip));
    #[ignore = "a further compression of a layout: tested with the newest server of a run"]
    faults_in_a_repository_of_pgbackrest_with_lz4_are_found(every_fault_is_found_and_mended): Layout::PgBackRest(Some(Codec::Lz4));
    #[ignore = "a further compression of a layout: tested with the newest server of a run"]
    faults_in_a_repository_of_pgbackrest_with_zst_are_found(every_fault_is_found_and_mended): Layout::PgBackRest(Some(Codec::Zstd));
    #[ignore = "a further compression of a layout: tested with the newest server of a run"]
    faults_in_a_repository_of_pgbackrest_with_bz2_are_found(every_fault_is_found_and_mended): Layout::PgBackRest(Some(Codec::Bzip2));
    faults_in_barmans_wals_are_found(every_fault_is_found_and_mended): Layout::Barman(None);
    faults_in_barmans_wals_with_gzip_are_found(every_fault_is_found_and_mended): Layout::Barman(Some(Codec::Gzip));
    #[ignore = "a further compression of a layout: tested with the newest server of a run"]
    faults_in_barmans_wals_with_bzip2_are_found(every_fault_is_found_and_mended): Layout::Barman(Some(Codec::Bzip2));
    #[ignore = "a further compression of a layout: tested with the newest server of a run"]
    faults_in_barmans_wals_with_pigz_are_found(every_fault_is_found_and_mended): Layout::Barman(Some(Codec::Pigz));
    faults_in_wal_gs_directory_with_lz4_are_found(every_fault_is_found_and_mended): Layout::WalG(Codec::Lz4);
    #[ignore = "a further compression of a layout: tested with the newest server of a run"]
    faults_in_wal_gs_directory_with_zstd_are_found(every_fault_is_found_and_mended): Layout::WalG(Codec::Zstd);
    #[ignore = "a further compression of a layout: tested with the newest server of a run"]
    faults_in_wal_gs_directory_with_brotli_are_found(every_fault_is_found_and_mended): Layout::WalG(Codec::Brotli);
    faults_behind_restore_command_are_found(every_fault_is_found_and_mended): Layout::RestoreCommand(None);
    faults_behind_a_decompressing_restore_command_are_found(every_fault_is_found_and_mended): Layout::RestoreCommand(Some(Codec::Gzip));
    auto_follows_cp(it_is_found_by_itself): Layout::Directory(None);
    auto_follows_gzip(it_is_found_by_itself): Layout::Directory(Some(Codec::Gzip));
    auto_follows_basic_archive(it_is_found_by_itself): Layout::BasicArchive;
    auto_follows_pgbackrest(it_is_found_by_itself): Layout::PgBackRest(Some(Codec::Lz4));
    auto_follows_the_archive_command_of_barmans_manual(it_is_found_by_itself): Layout::BarmanCron;
    auto_prefers_restore_command(it_is_found_by_itself): Layout::RestoreCommand(None);
}
