//! Manifests as the server writes them, and everything else that may lie in their place.

use std::fmt::Write;

use proptest::prelude::*;

use super::*;

/// A manifest with its checksum, from its first lines.
fn sealed(body: &str) -> String {
    let checksum = hexadecimal(&Sha256::digest(body.as_bytes()));
    format!("{body}\"Manifest-Checksum\": \"{checksum}\"}}\n")
}

fn files(list: &[(&str, u64)]) -> String {
    let mut text = String::new();
    for (index, (path, size)) in list.iter().enumerate() {
        let comma = if index == 0 { "" } else { ",\n" };
        write!(
            text,
            "{comma}{{ \"Path\": \"{path}\", \"Size\": {size}, \"Last-Modified\": \"2024-05-01 10:00:00 GMT\", \
             \"Checksum-Algorithm\": \"CRC32C\", \"Checksum\": \"d0a1b2c3\" }}"
        )
        .unwrap();
    }
    text
}

fn version_1(list: &[(&str, u64)]) -> String {
    sealed(&format!(
        "{{ \"PostgreSQL-Backup-Manifest-Version\": 1,\n\"Files\": [\n{}\n],\n\"WAL-Ranges\": [\n\
         {{ \"Timeline\": 1, \"Start-LSN\": \"0/2000028\", \"End-LSN\": \"0/2000100\" }}\n],\n",
        files(list)
    ))
}

fn read(text: impl AsRef<[u8]>) -> (Result<Manifest, ManifestError>, Vec<(String, u64)>) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("backup_manifest");
    fs::write(&path, text).unwrap();
    let mut seen = Vec::new();
    let read = read_manifest(&path, &mut |file| {
        seen.push((file.path.display().to_string(), file.bytes));
    });
    (read, seen)
}

fn complaint(text: impl AsRef<[u8]>) -> String {
    read(text).0.unwrap_err().to_string()
}

#[test]
fn a_manifest_of_version_1_tells_its_files_and_its_wal() {
    let (read, seen) = read(version_1(&[("backup_label", 225), ("base/1/1259", 8192)]));
    assert_eq!(
        read.unwrap(),
        Manifest {
            version: 1,
            system_identifier: None,
            wal_ranges: vec![WalRange {
                timeline: Timeline(1),
                start: Lsn(0x200_0028),
                end: Lsn(0x200_0100),
            }],
            files: 2,
            bytes: 8417,
        }
    );
    assert_eq!(
        seen,
        [("backup_label".to_owned(), 225), ("base/1/1259".to_owned(), 8192)]
    );
}

#[test]
fn one_of_version_2_tells_the_cluster_too() {
    let text = sealed(
        "{ \"PostgreSQL-Backup-Manifest-Version\": 2,\n\"System-Identifier\": 17446744073709551615,\n\"Files\": [\n],\n\
         \"WAL-Ranges\": [\n],\n",
    );
    let manifest = read(text).0.unwrap();
    assert_eq!((manifest.version, manifest.files), (2, 0));
    assert_eq!(manifest.system_identifier, Some(17_446_744_073_709_551_615));
}

#[test]
fn a_path_that_is_no_utf_8_comes_encoded() {
    let text = sealed(
        "{ \"PostgreSQL-Backup-Manifest-Version\": 1,\n\"Files\": [\n{ \"Encoded-Path\": \"61ff\", \"Size\": 3 }\n],\n",
    );
    let mut names = Vec::new();
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("backup_manifest");
    fs::write(&path, text).unwrap();
    read_manifest(&path, &mut |file| names.push(file.path.clone())).unwrap();
    assert_eq!(names, [PathBuf::from(OsString::from_vec(b"a\xff".to_vec()))]);
}

#[test]
fn a_path_that_leads_out_of_the_backup_is_refused() {
    for path in ["/etc/passwd", "../../etc/passwd", "base/../../x", "", "base/./x\\u0000"] {
        let said = complaint(version_1(&[(path, 1)]));
        assert!(said.contains("leads out of the backup"), "{path}: {said}");
        assert!(said.contains("backup_manifest"), "{said}");
    }
}

#[test]
fn one_changed_byte_is_noticed() {
    let text = version_1(&[("base/1/1259", 8192)]);
    let said = complaint(text.replace("8192", "8193"));
    assert!(said.contains("its last line says"), "{said}");
    let said = complaint(text.replace("Manifest-Checksum\": \"", "Manifest-Checksum\": \"0"));
    assert!(said.contains("its last line says 0"), "{said}");
}

#[test]
fn what_is_no_manifest_is_told_with_the_place() {
    let text = version_1(&[("base/1/1259", 8192)]);
    for (bad, words) in [
        (String::new(), "does not end in a whole line"),
        (text.trim_end().to_owned(), "does not end in a whole line"),
        (text[..text.len() / 2].to_owned(), "does not end in a whole line"),
        ("{}\n{}\n".to_owned(), "missing field"),
        ("nothing\nat all\n".to_owned(), "line 1 column"),
        (text.replace("Version\": 1", "Version\": 7"), "version 7 is not known"),
        (text.replace("\"Timeline\": 1", "\"Timeline\": 0"), "no WAL from"),
        (text.replace("0/2000100", "0/1"), "no WAL from"),
        (text.replace("0/2000100", "later"), "not a WAL position"),
        (text.replace("\"Size\": 8192", "\"Size\": -1"), "line 3 column"),
        (text.replace("base/1/1259", &"x".repeat(20_000)), "longer than"),
    ] {
        let said = complaint(&bad);
        assert!(said.contains(words), "{said} should say {words:?}");
    }
}

#[test]
fn an_absent_manifest_and_a_link_are_told_by_name() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("backup_manifest");
    let said = read_manifest(&path, &mut |_| {}).unwrap_err();
    assert!(matches!(said, ManifestError::Absent { .. }), "{said}");
    std::os::unix::fs::symlink("/etc/passwd", &path).unwrap();
    let said = read_manifest(&path, &mut |_| {}).unwrap_err().to_string();
    assert!(said.contains("no regular file"), "{said}");
}

proptest! {
    #[test]
    fn what_was_written_is_read(list in prop::collection::vec(("[a-z]{1,9}(/[a-z0-9]{1,9}){0,3}", any::<u32>()), 0..50)) {
        let list: Vec<(&str, u64)> = list.iter().map(|(path, size)| (path.as_str(), u64::from(*size))).collect();
        let (read, seen) = read(version_1(&list));
        let manifest = read.unwrap();
        prop_assert_eq!(manifest.files, list.len() as u64);
        prop_assert_eq!(manifest.bytes, list.iter().map(|(_, size)| size).sum::<u64>());
        prop_assert!(seen.iter().map(|(path, size)| (path.as_str(), *size)).eq(list));
    }

    #[test]
    fn damage_is_never_believed(at in any::<prop::sample::Index>(), bit in 0_u8..8) {
        let text = version_1(&[("backup_label", 225), ("base/1/1259", 8192)]);
        let mut bytes = text.clone().into_bytes();
        // The last line's own punctuation and the case of its digits are covered by no checksum.
        let at = at.index(text.find("\"Manifest-Checksum").unwrap());
        bytes[at] ^= 1 << bit;
        prop_assert!(read(bytes).0.is_err());
    }

    #[test]
    fn any_bytes_are_read_without_harm(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
        prop_assert!(read(bytes).0.is_err());
    }
}
