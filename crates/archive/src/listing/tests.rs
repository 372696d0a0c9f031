//! Directories as archives really look.

use std::ffi::OsStr;
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::process::Command;

use super::*;

const SIZE: SegmentSize = SegmentSize::DEFAULT;

fn archive() -> (tempfile::TempDir, Source) {
    let directory = tempfile::tempdir().unwrap();
    let source = Source::Directory(directory.path().to_owned());
    (directory, source)
}

fn segment(number: u64) -> SegmentName {
    SegmentName {
        timeline: wal::Timeline(1),
        number,
        size: SIZE,
    }
}

/// Sets the directory's mtime back, as if nothing had happened in it for a minute.
fn rest(source: &Source) {
    let then = SystemTime::now() - Duration::from_secs(60);
    File::open(source.root().unwrap()).unwrap().set_modified(then).unwrap();
}

#[test]
fn every_kind_of_wal_file_is_listed_and_everything_else_is_counted() {
    let (directory, source) = archive();
    let root = directory.path();
    for name in [
        "000000010000000000000002",
        "000000010000000000000001",
        "000000010000000000000003.partial",
        "00000002.history",
        "000000010000000000000002.00000028.backup",
        "000000010000000000000004.gz",
        "000000010000000000000005.tmp",
        "it's a \"file\"",
    ] {
        fs::write(root.join(name), "abc").unwrap();
    }
    fs::write(root.join(OsStr::from_bytes(b"\xff\xfe")), "").unwrap();
    let listing = list(&source, SIZE).unwrap();
    assert_eq!(
        listing.segments.keys().copied().collect::<Vec<_>>(),
        [segment(1), segment(2)]
    );
    assert_eq!(listing.segments[&segment(1)].bytes, 3);
    assert!(listing.segments[&segment(1)].changed_at.unix_micros() > 1_600_000_000_000_000);
    let others: Vec<_> = listing.others.iter().map(|(_, file)| file.name.as_str()).collect();
    assert_eq!(
        others,
        [
            "000000010000000000000002.00000028.backup",
            "000000010000000000000003.partial",
            "00000002.history"
        ]
    );
    assert_eq!(listing.ignored, 4);
    assert_eq!(listing.ignored_examples.len(), 4);
}

#[test]
fn links_subdirectories_and_fifos_are_no_segments_and_are_never_opened() {
    let (directory, source) = archive();
    let root = directory.path();
    let outside = tempfile::NamedTempFile::new().unwrap();
    symlink(outside.path(), root.join("000000010000000000000001")).unwrap();
    fs::create_dir(root.join("000000010000000000000002")).unwrap();
    let fifo = root.join("000000010000000000000003");
    assert!(Command::new("mkfifo").arg(&fifo).status().unwrap().success());
    let listing = list(&source, SIZE).unwrap();
    assert!(listing.is_empty());
    assert_eq!(listing.ignored, 3);
    for number in 1..=3 {
        let name = segment(number).to_string();
        assert_eq!(stat_one(&source, &name).unwrap(), None);
        let error = open(&source, &name).unwrap_err();
        assert!(matches!(error, ReadError::NotRegular { .. }), "{error}");
    }
}

#[test]
fn a_file_is_opened_with_what_it_is_at_that_moment() {
    let (directory, source) = archive();
    fs::write(directory.path().join("000000010000000000000001"), "hello").unwrap();
    let (mut file, stored) = open(&source, "000000010000000000000001").unwrap();
    let mut text = String::new();
    file.read_to_string(&mut text).unwrap();
    assert_eq!((text.as_str(), stored.bytes), ("hello", 5));
    assert_eq!(stat_one(&source, "000000010000000000000001").unwrap(), Some(stored));
    assert!(matches!(
        open(&source, "000000010000000000000002").unwrap_err(),
        ReadError::Absent { .. }
    ));
}

#[test]
fn no_name_leads_out_of_the_archive() {
    let (directory, source) = archive();
    fs::create_dir(directory.path().join("inside")).unwrap();
    for name in ["../secret", "/etc/passwd", "inside/../../x", "a/b", "a/", ".", "", ".."] {
        assert!(
            matches!(open(&source, name).unwrap_err(), ReadError::NotRegular { .. }),
            "{name:?}"
        );
        assert!(stat_one(&source, name).is_err(), "{name:?}");
    }
}

#[test]
fn an_archive_that_cannot_be_listed_is_an_error_that_names_it() {
    let (directory, source) = archive();
    let gone = Source::Directory(directory.path().join("gone"));
    let error = list(&gone, SIZE).unwrap_err();
    assert!(matches!(error, ReadError::NoArchive { .. }));
    assert!(
        error.to_string().contains("gone") && error.to_string().contains("mounted"),
        "{error}"
    );
    assert!(stat_one(&gone, "000000010000000000000001").is_err());
    let file = directory.path().join("file");
    fs::write(&file, "").unwrap();
    assert!(matches!(
        list(&Source::Directory(file), SIZE).unwrap_err(),
        ReadError::NotADirectory { .. }
    ));
    fs::set_permissions(source.root().unwrap(), fs::Permissions::from_mode(0o000)).unwrap();
    let listed = list(&source, SIZE);
    fs::set_permissions(source.root().unwrap(), fs::Permissions::from_mode(0o700)).unwrap();
    // Root may read it all the same.
    if let Err(error) = listed {
        assert!(matches!(error, ReadError::Io { .. }), "{error}");
    }
}

#[test]
fn an_unchanged_stamp_means_an_unchanged_listing() {
    let (directory, source) = archive();
    fs::write(directory.path().join("000000010000000000000001"), "").unwrap();
    assert_eq!(
        list(&source, SIZE).unwrap().stamp,
        None,
        "a change this moment could be followed by one of the same time"
    );
    rest(&source);
    let listing = list(&source, SIZE).unwrap();
    assert_eq!(listing.stamp, Some(stamp(&source).unwrap()));
    fs::write(directory.path().join("000000010000000000000002"), "").unwrap();
    assert_ne!(listing.stamp, Some(stamp(&source).unwrap()));
    rest(&source);
    let listing = list(&source, SIZE).unwrap();
    fs::remove_file(directory.path().join("000000010000000000000002")).unwrap();
    assert_ne!(listing.stamp, Some(stamp(&source).unwrap()));
}
