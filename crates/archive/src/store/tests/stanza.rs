//! What is pgBackRest's own: checksums in names, several directories for one cluster, `archive.info`.

use super::*;

#[test]
fn two_versions_of_a_segment_are_refused_as_pgbackrest_refuses_them() {
    let archive = Archive::new(Layout::PgBackRest);
    let name = "000000010000000000000001";
    archive.store(name);
    let group = archive.path("15-1/0000000100000000");
    let second = group.join(format!("{name}-{OTHER_SHA1}.zst"));
    fs::write(&second, "x").unwrap();
    let mut store = archive.open();
    store.refresh(&root_history(), at(9)).unwrap();
    assert!(store.listing().holds(&segment(1, 1)));
    for error in [store.stat(name).err().unwrap(), store.read(name).err().unwrap()] {
        let ReadError::Duplicates { stored, .. } = &error else {
            panic!("{error}");
        };
        assert_eq!(
            *stored,
            [
                format!("15-1/0000000100000000/{name}-{OTHER_SHA1}.zst"),
                format!("15-1/0000000100000000/{name}-{SHA1}.gz")
            ]
        );
        assert!(error.to_string().contains("several servers"), "{error}");
    }
    fs::remove_file(second).unwrap();
    assert_eq!(text(&mut store, name), name);
    // A partial segment beside a whole one, and the same content twice, are no contradiction.
    fs::write(group.join(format!("{name}.partial-{OTHER_SHA1}")), "x").unwrap();
    fs::write(group.join(format!("{name}-{SHA1}")), name).unwrap();
    assert_eq!(text(&mut store, name), name);
    assert_eq!(text(&mut store, &format!("{name}.partial")), "x");
}

#[test]
fn every_history_of_the_cluster_in_a_stanza_is_looked_into() {
    let archive = Archive::new(Layout::PgBackRest);
    archive.info(&[
        ("14", SYSTEM),
        ("15", SYSTEM),
        ("15", 1),
        ("15", SYSTEM),
        ("15", SYSTEM),
    ]);
    for (place, number) in [("14-1", 1), ("15-2", 2), ("15-3", 3), ("15-4", 4), ("15-4", 2)] {
        let group = archive.path(place).join("0000000100000000");
        fs::create_dir_all(&group).unwrap();
        let name = segment(1, number).to_string();
        fs::write(group.join(format!("{name}-{SHA1}")), place).unwrap();
    }
    let mut store = archive.open();
    store.refresh(&root_history(), at(9)).unwrap();
    assert_eq!(held(&store), ["000000010000000000000002", "000000010000000000000004"]);
    assert_eq!(text(&mut store, "000000010000000000000002"), "15-4", "the newest first");
    fs::remove_dir_all(archive.path("15-4")).unwrap();
    assert!(store.refresh(&root_history(), at(9)).unwrap());
    assert_eq!(held(&store), ["000000010000000000000002"]);
    assert_eq!(text(&mut store, "000000010000000000000002"), "15-2");
    // The stanza is upgraded while it is watched.
    archive.info(&[("14", SYSTEM)]);
    assert!(matches!(
        store.refresh(&root_history(), at(9)),
        Err(ReadError::NotThisCluster { .. })
    ));
}

#[test]
fn a_stanza_that_cannot_be_read_says_what_to_do() {
    let archive = Archive::new(Layout::PgBackRest);
    let info = archive.path("archive.info");
    let copy = archive.path("archive.info.copy");
    let why = || {
        Store::open(&archive.source(), &format())
            .err()
            .map(|error| error.to_string())
    };
    fs::copy(&info, &copy).unwrap();
    for broken in [
        "",
        "nonsense",
        "[db:history]\n",
        "[db:history]\nx=1\n",
        "[db:history]\n1={}\n",
    ] {
        fs::write(&info, broken).unwrap();
        assert_eq!(why(), None, "the copy is as good");
    }
    fs::remove_file(&info).unwrap();
    assert_eq!(why(), None);
    fs::remove_file(&copy).unwrap();
    let error = why().unwrap();
    assert!(
        error.contains("archive.info") && error.contains("pg_backstop.archive_source"),
        "{error}"
    );
    fs::write(&info, "[db:history]\n1={\"db-id\":1,\"db-version\":\"15\"}\n").unwrap();
    let error = why().unwrap();
    assert!(
        error.contains(&SYSTEM.to_string()) && error.contains("stanza"),
        "{error}"
    );
    fs::write(&info, b"Salted__\x12\x34").unwrap();
    let error = why().unwrap();
    assert!(
        error.contains("encrypted") && error.contains("archive_source = restore_command"),
        "{error}"
    );
    fs::write(&info, "[db:history]\nnonsense").unwrap();
    let error = why().unwrap();
    assert!(error.contains("cannot be read"), "{error}");
}

#[test]
fn a_link_in_place_of_the_clusters_directory_does_not_look_like_an_empty_archive() {
    let archive = Archive::new(Layout::PgBackRest);
    archive.store("000000010000000000000001");
    let elsewhere = archive.path("elsewhere");
    fs::rename(archive.path("15-1"), &elsewhere).unwrap();
    symlink(&elsewhere, archive.path("15-1")).unwrap();
    let mut store = archive.open();
    let error = store.refresh(&root_history(), at(9)).unwrap_err();
    assert!(matches!(error, ReadError::NotADirectory { .. }), "{error}");
    assert!(store.stat("000000010000000000000001").is_err());
}
