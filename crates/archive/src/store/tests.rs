//! Archives as each tool leaves them, on a real file system.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::symlink;
use std::process::Command;
use std::time::{Duration, SystemTime};

use wal::{Major, SegmentName, SegmentSize, Timeline, WalFileName};

use super::*;
use crate::compression::{Compression, DecompressionError};
use crate::expected::MOST_EXPECTED;

mod bounds;
mod stanza;

const SIZE: SegmentSize = SegmentSize::DEFAULT;
const SYSTEM: u64 = 7_528_731_009_426_112_233;
const SHA1: &str = "da39a3ee5e6b4b0d3255bfef95601890afd80709";
const OTHER_SHA1: &str = "0000000000000000000000000000000000000000";

const LAYOUTS: [Layout; 4] = [Layout::Flat, Layout::PgBackRest, Layout::Barman, Layout::WalG];

fn format() -> WalFormat {
    WalFormat::new(Major::V15, SIZE, SYSTEM)
}

/// An archive in a temporary directory.
struct Archive {
    directory: tempfile::TempDir,
    layout: Layout,
}

impl Archive {
    fn new(layout: Layout) -> Self {
        let archive = Self {
            directory: tempfile::tempdir().unwrap(),
            layout,
        };
        match layout {
            Layout::PgBackRest => {
                archive.info(&[("15", SYSTEM)]);
                fs::create_dir(archive.path("15-1")).unwrap();
            }
            Layout::WalG => fs::create_dir(archive.path(WALG_DIRECTORY)).unwrap(),
            Layout::Flat | Layout::Barman => {}
        }
        archive
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn info(&self, clusters: &[(&str, u64)]) {
        let mut text = format!(
            "[backrest]\nbackrest-checksum=\"x\"\n\n[db]\ndb-id=1\ndb-system-id={SYSTEM}\ndb-version=\"15\"\n\n[db:history]\n"
        );
        for (number, (version, system)) in (1..).zip(clusters) {
            text += &format!("{number}={{\"db-id\":{system},\"db-version\":\"{version}\"}}\n");
        }
        fs::write(self.path("archive.info"), text).unwrap();
    }

    fn source(&self) -> Source {
        let path = self.directory.path().to_owned();
        match self.layout {
            Layout::Flat => Source::Directory(path),
            Layout::PgBackRest => Source::PgBackRest(path),
            Layout::Barman => Source::Barman(path),
            Layout::WalG => Source::WalG(path),
        }
    }

    fn open(&self) -> Store {
        Store::open(&self.source(), &format()).unwrap()
    }

    /// Where this layout stores the WAL file `name`.
    fn stored(&self, name: &str) -> String {
        let is_segment = matches!(
            WalFileName::classify(name, SIZE),
            Some(WalFileName::Segment(_) | WalFileName::Partial(_))
        );
        let group = if name.ends_with(".history") { "" } else { &name[..16] };
        match self.layout {
            Layout::Flat => name.to_owned(),
            Layout::WalG => format!("{WALG_DIRECTORY}/{name}.lz4"),
            Layout::Barman => Path::new(group).join(name).display().to_string(),
            Layout::PgBackRest if is_segment => format!("15-1/{group}/{name}-{SHA1}.gz"),
            Layout::PgBackRest => Path::new("15-1").join(group).join(name).display().to_string(),
        }
    }

    fn store(&self, name: &str) -> PathBuf {
        let path = self.path(&self.stored(name));
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        let mut file = fs::File::create(&path).unwrap();
        match self.layout {
            Layout::PgBackRest if path.extension().is_some_and(|e| e == "gz") => {
                flate2::write::GzEncoder::new(file, flate2::Compression::fast())
                    .write_all(name.as_bytes())
                    .unwrap();
            }
            // Barman compresses without saying so.
            Layout::Barman => zstd::stream::copy_encode(name.as_bytes(), file, 1).unwrap(),
            Layout::WalG => {
                let mut encoder = lz4_flex::frame::FrameEncoder::new(file);
                encoder.write_all(name.as_bytes()).unwrap();
                encoder.finish().unwrap();
            }
            Layout::Flat | Layout::PgBackRest => file.write_all(name.as_bytes()).unwrap(),
        }
        path
    }

    /// Sets every directory's mtime back, as if nothing had happened for a minute.
    fn rest(&self) {
        rest(self.directory.path());
    }
}

fn rest(directory: &Path) {
    for entry in fs::read_dir(directory).unwrap() {
        let entry = entry.unwrap();
        if entry.file_type().unwrap().is_dir() {
            rest(&entry.path());
        }
    }
    let then = SystemTime::now() - Duration::from_secs(60);
    fs::File::open(directory).unwrap().set_modified(then).unwrap();
}

fn segment(timeline: u32, number: u64) -> SegmentName {
    SegmentName {
        timeline: Timeline(timeline),
        number,
        size: SIZE,
    }
}

fn at(number: u64) -> Lsn {
    Lsn(number * SIZE.bytes() + 100)
}

fn root_history() -> TimelineHistory {
    TimelineHistory::root(Timeline(1))
}

fn held(store: &Store) -> Vec<String> {
    store.listing().segments().map(|segment| segment.to_string()).collect()
}

fn text(store: &mut Store, name: &str) -> String {
    let mut text = String::new();
    store.read(name).unwrap().0.read_to_string(&mut text).unwrap();
    text
}

#[test]
fn every_layout_shows_the_same_archive_under_the_servers_own_names() {
    for layout in LAYOUTS {
        let archive = Archive::new(layout);
        let names = [
            "000000010000000000000001",
            "0000000100000000000000FF",
            "000000010000000100000000",
            "000000010000000100000001.partial",
            "00000002.history",
            "0000000100000000000000FF.00000028.backup",
        ];
        for name in names {
            archive.store(name);
        }
        let mut store = archive.open();
        assert!(store.listing().is_empty());
        assert!(store.refresh(&root_history(), at(0x102)).unwrap());
        assert_eq!(
            held(&store),
            [
                "000000010000000000000001",
                "0000000100000000000000FF",
                "000000010000000100000000"
            ]
        );
        assert!(
            store.listing().holds(&segment(1, 1))
                && !store.listing().holds(&segment(1, 2))
                && !store.listing().holds(&segment(2, 1))
        );
        assert!(store.listing().strangers().is_empty() && !store.listing().is_empty());
        let mut others: Vec<_> = store.listing().others().map(|(_, name)| name.to_owned()).collect();
        others.sort();
        assert_eq!(
            others,
            [
                "0000000100000000000000FF.00000028.backup",
                "000000010000000100000001.partial",
                "00000002.history"
            ]
        );
        for name in names {
            let looked_at = store.stat(name).unwrap().unwrap();
            assert_eq!(looked_at.name, archive.stored(name));
            assert_eq!(store.path_of(&looked_at), archive.path(&looked_at.name));
            assert_eq!(text(&mut store, name), name, "{layout:?}");
            assert_eq!(store.read(name).unwrap().1, looked_at);
        }
        assert_eq!(store.stat("000000010000000000000003").unwrap(), None);
        assert!(matches!(
            store.read("000000010000000000000003").err().unwrap(),
            ReadError::Absent { .. }
        ));
    }
}

#[test]
fn nothing_is_read_again_where_nothing_changed() {
    for layout in LAYOUTS {
        let archive = Archive::new(layout);
        archive.store("000000010000000000000001");
        archive.store("000000010000000100000000");
        let mut store = archive.open();
        assert!(store.refresh(&root_history(), at(0x200)).unwrap());
        let first = store.readings();
        assert!(!store.refresh(&root_history(), at(0x200)).unwrap());
        assert!(
            store.readings() > first,
            "what changed this moment could change once more unseen"
        );
        archive.rest();
        store.refresh(&root_history(), at(0x200)).unwrap();
        let at_rest = store.readings();
        assert!(!store.refresh(&root_history(), at(0x201)).unwrap());
        assert_eq!(store.readings(), at_rest);

        archive.store("000000010000000100000001");
        assert!(store.refresh(&root_history(), at(0x201)).unwrap());
        assert!(store.listing().holds(&segment(1, 0x101)));
        assert_eq!(
            store.readings(),
            at_rest + 1,
            "only the directory with the news is read"
        );

        archive.rest();
        store.refresh(&root_history(), at(0x201)).unwrap();
        fs::remove_file(archive.path(&archive.stored("000000010000000000000001"))).unwrap();
        assert!(store.refresh(&root_history(), at(0x201)).unwrap());
        assert_eq!(held(&store), ["000000010000000100000000", "000000010000000100000001"]);
    }
}

#[test]
fn a_directory_that_vanishes_takes_its_segments_along() {
    for layout in [Layout::Barman, Layout::PgBackRest] {
        let archive = Archive::new(layout);
        archive.store("000000010000000000000001");
        archive.store("000000010000000000000001.00000028.backup");
        archive.store("000000010000000100000000");
        archive.store("000000090000000100000000");
        let mut store = archive.open();
        store.refresh(&root_history(), at(0x200)).unwrap();
        assert_eq!(
            (
                held(&store).len(),
                store.listing().others().count(),
                store.listing().strangers().newest.len()
            ),
            (2, 1, 1)
        );
        for name in ["000000010000000000000001", "000000090000000100000000"] {
            fs::remove_dir_all(archive.path(&archive.stored(name)).parent().unwrap()).unwrap();
        }
        assert!(store.refresh(&root_history(), at(0x200)).unwrap());
        assert_eq!(held(&store), ["000000010000000100000000"]);
        assert_eq!(store.listing().others().count(), 0);
        assert!(store.listing().strangers().is_empty());
        assert_eq!(store.stat("000000010000000000000001").unwrap(), None);
    }
}

#[test]
fn what_is_not_on_the_servers_history_is_a_stranger() {
    for layout in LAYOUTS {
        let archive = Archive::new(layout);
        // Timeline 3 began on segment 5 of timeline 1; timeline 2 is another branch.
        let history = TimelineHistory::parse(Timeline(3), "1\t0/5000028\tx\n").unwrap();
        for name in [
            "000000010000000000000004",
            "000000010000000000000005",
            "000000020000000000000005",
            "000000030000000000000005",
            "000000030000000000000006",
        ] {
            archive.store(name);
        }
        let mut store = archive.open();
        store.refresh(&history, at(8)).unwrap();
        assert_eq!(
            held(&store),
            [
                "000000010000000000000004",
                "000000030000000000000005",
                "000000030000000000000006"
            ]
        );
        let strangers: Vec<_> = store.listing().strangers().newest.iter().copied().collect();
        assert_eq!(strangers, [segment(1, 5), segment(2, 5)]);
        assert_eq!(store.listing().strangers().more, 0);
        // They can be looked at all the same.
        assert_eq!(text(&mut store, "000000020000000000000005"), "000000020000000000000005");

        // After a promotion the same files are something else.
        let history = TimelineHistory::parse(Timeline(4), "1\t0/5000028\tx\n2\t0/7000000\ty\n").unwrap();
        assert!(store.refresh(&history, at(8)).unwrap());
        assert_eq!(held(&store), ["000000010000000000000004", "000000020000000000000005"]);
        assert_eq!(store.listing().strangers().newest.len(), 3);
    }
}

#[test]
fn what_lies_ahead_of_the_server_is_a_stranger_until_it_comes_there() {
    for layout in LAYOUTS {
        let archive = Archive::new(layout);
        for number in [10, 11, 12, 13, 20] {
            archive.store(&segment(1, number).to_string());
        }
        archive.rest();
        let mut store = archive.open();
        store.refresh(&root_history(), at(10)).unwrap();
        assert_eq!(held(&store), ["00000001000000000000000A"]);
        assert!(!store.listing().holds(&segment(1, 11)));
        let strangers: Vec<_> = store.listing().strangers().newest.iter().map(|s| s.number).collect();
        assert_eq!(strangers, [13, 20]);
        let readings = store.readings();
        assert!(
            store.refresh(&root_history(), at(13)).unwrap(),
            "what was ahead is there now"
        );
        assert_eq!(held(&store).len(), 4);
        assert_eq!(store.listing().strangers().newest.len(), 1);
        assert_eq!(store.readings(), readings, "all this was known");
        // Back in time, as after a restore from a backup, and far ahead: everything is judged anew.
        assert!(store.refresh(&root_history(), at(9)).unwrap());
        assert_eq!(held(&store), Vec::<String>::new());
        assert!(store.refresh(&root_history(), at(200_000)).unwrap());
        assert_eq!(held(&store).len(), 5);
        assert!(store.listing().strangers().is_empty());
        store.refresh(&root_history(), at(MOST_EXPECTED + 12)).unwrap();
        assert_eq!(held(&store).len(), 3, "older than anything that is expected");
    }
}

#[test]
fn what_is_no_wal_file_is_counted_and_named() {
    for layout in LAYOUTS {
        let archive = Archive::new(layout);
        let top = match layout {
            Layout::Flat | Layout::Barman => archive.directory.path().to_owned(),
            Layout::PgBackRest => archive.path("15-1"),
            Layout::WalG => archive.path(WALG_DIRECTORY),
        };
        archive.store("000000010000000000000001");
        fs::write(top.join("xlog.db"), "x").unwrap();
        fs::write(top.join(std::ffi::OsStr::from_bytes(b"\xff\xfe")), "").unwrap();
        fs::create_dir(top.join("000000010000000000000002")).unwrap();
        let mut store = archive.open();
        store.refresh(&root_history(), at(9)).unwrap();
        let (count, examples) = store.ignored();
        assert_eq!((count, examples.len()), (3, 3), "{layout:?}: {examples:?}");
        assert!(examples.iter().any(|name| name == "xlog.db"), "{examples:?}");
        fs::remove_file(top.join("xlog.db")).unwrap();
        assert!(!store.refresh(&root_history(), at(9)).unwrap());
        assert_eq!(store.ignored().0, 2);
        assert!(!store.ignored().1.iter().any(|name| name == "xlog.db"));
    }
}

#[test]
fn no_link_is_followed_and_nothing_but_a_file_is_opened() {
    for layout in LAYOUTS {
        let archive = Archive::new(layout);
        archive.store("000000010000000000000009");
        let outside = tempfile::tempdir().unwrap();
        let target = outside.path().join("file");
        fs::write(&target, "secret").unwrap();
        symlink(&target, archive.path(&archive.stored("000000010000000000000001"))).unwrap();
        fs::create_dir(archive.path(&archive.stored("000000010000000000000002"))).unwrap();
        let fifo = archive.path(&archive.stored("000000010000000000000003"));
        assert!(Command::new("mkfifo").arg(&fifo).status().unwrap().success());
        let mut store = archive.open();
        store.refresh(&root_history(), at(99)).unwrap();
        assert_eq!(held(&store), ["000000010000000000000009"]);
        assert_eq!(store.ignored().0, 3);
        for number in 1..=3 {
            let name = segment(1, number).to_string();
            assert_eq!(store.stat(&name).unwrap(), None);
            assert!(
                matches!(
                    store.read(&name).err().unwrap(),
                    ReadError::NotRegular { .. } | ReadError::Absent { .. }
                ),
                "{layout:?}"
            );
        }
        if layout.is_grouped() {
            let elsewhere = outside.path().join("000000010000000100000000");
            fs::create_dir(&elsewhere).unwrap();
            let name = "000000010000000100000000";
            fs::write(elsewhere.join(name), "secret").unwrap();
            let group = archive.path(&archive.stored(name)).parent().unwrap().to_owned();
            symlink(&elsewhere, &group).unwrap();
            store.refresh(&root_history(), at(0x200)).unwrap();
            assert_eq!(held(&store), ["000000010000000000000009"]);
            assert!(matches!(store.read(name).err().unwrap(), ReadError::Absent { .. }));
        }
    }
}

#[test]
fn no_name_leads_out_of_the_archive() {
    for layout in LAYOUTS {
        let archive = Archive::new(layout);
        let mut store = archive.open();
        for name in [
            "../secret",
            "/etc/passwd",
            "a/b",
            "a/",
            ".",
            "",
            "..",
            "archive.info",
            "xlog.db",
        ] {
            assert!(
                matches!(store.stat(name), Err(ReadError::NotRegular { .. })),
                "{name:?}"
            );
            assert!(
                matches!(store.read(name), Err(ReadError::NotRegular { .. })),
                "{name:?}"
            );
        }
    }
}

#[test]
fn an_archive_that_is_not_there_is_an_error_and_not_an_empty_one() {
    for layout in LAYOUTS {
        let archive = Archive::new(layout);
        archive.store("000000010000000000000001");
        let mut store = archive.open();
        store.refresh(&root_history(), at(9)).unwrap();
        let away = archive.directory.path().with_extension("away");
        fs::rename(archive.directory.path(), &away).unwrap();
        let error = store.refresh(&root_history(), at(9)).unwrap_err();
        assert!(
            matches!(error, ReadError::NoArchive { .. } | ReadError::NotInLayout { .. }),
            "{error}"
        );
        assert!(store.stat("000000010000000000000001").is_err());
        assert!(store.read("000000010000000000000001").is_err());
        // What is found at a mount point while nothing is mounted there.
        fs::create_dir(archive.directory.path()).unwrap();
        assert!(store.stat("000000010000000000000001").is_err(), "{layout:?}");
        fs::remove_dir(archive.directory.path()).unwrap();
        fs::rename(&away, archive.directory.path()).unwrap();
        store.refresh(&root_history(), at(9)).unwrap();
        assert_eq!(held(&store), ["000000010000000000000001"]);
        assert!(store.stat("000000010000000000000001").unwrap().is_some());
    }
}

#[test]
fn another_directory_under_the_same_path_is_read_anew() {
    let archive = Archive::new(Layout::Flat);
    archive.store("000000010000000000000001");
    let mut store = archive.open();
    store.refresh(&root_history(), at(9)).unwrap();
    let before = store.listing().root();
    let away = archive.directory.path().with_extension("away");
    fs::rename(archive.directory.path(), &away).unwrap();
    fs::create_dir(archive.directory.path()).unwrap();
    assert!(store.refresh(&root_history(), at(9)).unwrap());
    assert!(store.listing().is_empty());
    assert_ne!(store.listing().root(), before);
    fs::remove_dir_all(away).unwrap();
}

#[test]
fn a_path_that_is_no_directory_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("file");
    fs::write(&file, "").unwrap();
    for source in [Source::Directory(file.clone()), Source::Barman(file)] {
        assert!(matches!(
            Store::open(&source, &format()).err().unwrap(),
            ReadError::NotADirectory { .. }
        ));
    }
    let gone = Source::Directory(directory.path().join("gone"));
    let error = Store::open(&gone, &format()).err().unwrap().to_string();
    assert!(error.contains("gone") && error.contains("mounted"), "{error}");
    let walg = Source::WalG(directory.path().to_owned());
    let error = Store::open(&walg, &format()).err().unwrap().to_string();
    assert!(
        error.contains("wal_005") && error.contains("WALG_FILE_PREFIX"),
        "{error}"
    );
    let command = Source::RestoreCommand("cp /a/%f %p".to_owned());
    assert!(Store::open(&command, &format()).is_err());
}

#[test]
fn the_directory_inside_a_walg_storage_can_be_named_itself() {
    let archive = Archive::new(Layout::WalG);
    archive.store("000000010000000000000001");
    let mut store = Store::open(&Source::WalG(archive.path(WALG_DIRECTORY)), &format()).unwrap();
    store.refresh(&root_history(), at(9)).unwrap();
    assert_eq!(held(&store), ["000000010000000000000001"]);
    let stored = store.stat("000000010000000000000001").unwrap().unwrap();
    assert_eq!(stored.name, "000000010000000000000001.lz4");
}

#[test]
fn several_forms_of_one_segment_are_one_segment() {
    let archive = Archive::new(Layout::Flat);
    fs::write(archive.path("000000010000000000000001.gz"), "x").unwrap();
    fs::write(archive.path("000000010000000000000001.zst"), "yy").unwrap();
    let mut store = archive.open();
    store.refresh(&root_history(), at(9)).unwrap();
    assert_eq!(held(&store).len(), 1);
    let name = "000000010000000000000001";
    assert_eq!(store.stat(name).unwrap().unwrap().name, format!("{name}.gz"));
    // What is not known yet is found all the same, and what is gone is looked past.
    fs::rename(archive.path("000000010000000000000001.zst"), archive.path(name)).unwrap();
    fs::remove_file(archive.path("000000010000000000000001.gz")).unwrap();
    assert_eq!(store.stat(name).unwrap().unwrap().name, name);
    store.refresh(&root_history(), at(9)).unwrap();
    assert_eq!(text(&mut store, name), "yy");
}

#[test]
fn a_compressed_partial_of_pg_receivewal_is_understood() {
    let archive = Archive::new(Layout::Flat);
    fs::write(archive.path("000000010000000000000001.gz.partial"), "").unwrap();
    let mut store = archive.open();
    store.refresh(&root_history(), at(9)).unwrap();
    let name = "000000010000000000000001.partial";
    assert_eq!(
        store.listing().others().map(|(_, name)| name).collect::<Vec<_>>(),
        [name]
    );
    let stored = store.stat(name).unwrap().unwrap();
    assert_eq!(
        (stored.name.as_str(), stored.bytes),
        ("000000010000000000000001.gz.partial", 0)
    );
}

#[test]
fn damage_inside_a_compressed_file_is_told_from_a_disk_that_fails() {
    for layout in [Layout::PgBackRest, Layout::Barman, Layout::WalG] {
        let archive = Archive::new(layout);
        let path = archive.store("000000010000000000000001");
        let whole = fs::read(&path).unwrap();
        fs::write(&path, &whole[..whole.len() - 3]).unwrap();
        let mut store = archive.open();
        let (mut content, stored) = store.read("000000010000000000000001").unwrap();
        assert_eq!(stored.bytes, whole.len() as u64 - 3);
        let error = content.read_to_end(&mut Vec::new()).unwrap_err();
        let error = error.downcast::<DecompressionError>().unwrap();
        assert_ne!(error.compression, Compression::None);
    }
}
