//! What a compressor was told to spend on a segment decides nothing about the WAL in it: it is read, or it is said that it was not.

use anyhow::{Context, Result};
use tests::{Codec, Layout};

/// Stored with the first options it is verified, and with the second not judged.
fn is_read_or_not_judged(codec: Codec, read: &[&str], not_read: &[&str], advice: &str) -> Result<()> {
    let mut stored = Layout::Directory(Some(codec)).scene()?;
    let after = stored.scene.after_the_backup();
    let largest = after.get(1).context("too few segments")?;
    let larger = after.get(3).context("too few segments")?;
    let mut faults = Vec::new();
    for (segment, options) in [(largest, read), (larger, not_read)] {
        let again = codec.compress_with(options, &stored.content(segment)?)?;
        faults.push(stored.archive.replace(&stored.file(segment)?, &again)?);
    }
    stored.watch(false)?;
    let cluster = &stored.scene.cluster;
    let row =
        |columns: &str, segment: &str| format!("SELECT {columns} FROM wal_archive WHERE segment_name = '{segment}'");
    cluster.wait_for(&row("status, problem", larger), "corrupt|unreadable")?;
    let detail = cluster.text(&row("detail", larger))?;
    assert!(
        detail.contains("nothing is known of its content") && detail.contains(advice) && detail.ends_with('.'),
        "{detail}"
    );
    assert_eq!(cluster.text(&row("sha256 IS NULL", larger))?, "t");
    cluster.wait_for(&row("status", largest), "verified")?;
    faults.into_iter().try_for_each(tests::archive::Fault::mend)?;
    stored.scene.wait_until_ready()
}

#[test]
fn what_xz_9_has_compressed_is_verified_and_with_a_larger_dictionary_not_judged() -> Result<()> {
    is_read_or_not_judged(Codec::Xz, &["-9"], &["--lzma2=dict=128MiB"], "compress with -9 or less")
}

#[test]
fn what_zstd_has_compressed_with_a_long_window_is_verified_and_with_a_longer_one_not_judged() -> Result<()> {
    is_read_or_not_judged(
        Codec::Zstd,
        &["--long=26"],
        &["--long=27"],
        "compress with --long=26 or less",
    )
}
