//! What an archive of any size, or of anybody's making, costs.

use super::*;

#[test]
fn hostile_names_do_not_fill_the_memory() {
    let view = View::new(&root_history(), SIZE, at(2_000_000));
    for layout in [Layout::Flat, Layout::Barman] {
        let mut scan = Scan::new(&view, layout, None);
        for number in 0..100_000_u32 {
            for name in [
                format!("{:08X}{number:08X}000000{:02X}", number % 7 + 2, number % 256),
                format!("{number:08X}.history"),
                format!("00000001{number:08X}00000001.00000028.backup"),
                format!("junk {number}"),
            ] {
                scan.entry(name.as_bytes(), directory::EntryKind::File);
            }
            scan.entry(
                format!("{:08X}{number:08X}", number % 3 + 1).as_bytes(),
                directory::EntryKind::Directory,
            );
        }
        assert!(scan.contents.strangers.newest.len() <= Strangers::MOST);
        assert!(scan.contents.others.iter().count() <= 65_536);
        assert!(scan.groups.len() <= 4400 && scan.strange_groups.len() <= 4096);
        assert_eq!(scan.examples.len(), Scan::EXAMPLES);
        if layout == Layout::Flat {
            assert_eq!(scan.contents.strangers.count(), 100_000);
        } else {
            assert!(scan.unread_groups > 60_000);
        }
    }
}

#[test]
fn a_million_segments_take_about_a_megabyte() {
    let view = View::new(&root_history(), SIZE, at(1_000_000));
    let mut scan = Scan::new(&view, Layout::Flat, None);
    for number in 0..1_000_000 {
        scan.entry(
            format!("{}.gz", segment(1, number)).as_bytes(),
            directory::EntryKind::File,
        );
    }
    assert_eq!(scan.contents.ours.iter(0..=u64::MAX).count(), 1_000_000);
    assert!(scan.contents.ours.bytes() < 1_100_000, "{}", scan.contents.ours.bytes());
    assert!(scan.contents.strangers.is_empty());
}

/// What a tick costs. Run with: cargo test --release -p archive --lib store::tests::speed -- --ignored --nocapture
#[test]
#[ignore = "a measurement"]
fn speed() {
    for (layout, text) in [(Layout::Flat, "flat"), (Layout::Barman, "in 16-digit directories")] {
        let archive = Archive::new(layout);
        for number in 1..=100_000 {
            let path = archive.path(&archive.stored(&segment(1, number).to_string()));
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "").unwrap();
        }
        archive.rest();
        let mut store = archive.open();
        let mut measure = |what: &str| {
            let before = cpu();
            let news = store.refresh(&root_history(), at(100_010)).unwrap();
            println!(
                "100,000 segments {text}, {what}: {:.2} ms of CPU, news: {news}",
                cpu() - before
            );
        };
        measure("first refresh");
        measure("refresh without news");
        archive.store(&segment(1, 100_001).to_string());
        measure("refresh with one new name");
        println!("presence: {} bytes", store.listing().contents.ours.bytes());
    }
}

fn cpu() -> f64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    time.tv_sec as f64 * 1e3 + time.tv_nsec as f64 / 1e6
}
