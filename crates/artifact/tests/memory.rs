//! A manifest of any length is read in a few megabytes. The only test of its process, whose memory is measured.
#![allow(clippy::unwrap_used)]

use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::time::Instant;

use sha2::{Digest, Sha256};

const FILES: u64 = 200_000;
const MOST_KB: u64 = 4 << 10;

/// A manifest that is being written, and the checksum of what was.
struct Sealing {
    out: BufWriter<File>,
    hasher: Sha256,
}

impl Sealing {
    fn put(&mut self, text: &str) {
        self.hasher.update(text.as_bytes());
        self.out.write_all(text.as_bytes()).unwrap();
    }
}

#[test]
fn a_manifest_of_any_length_takes_little_memory() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("backup_manifest");
    let mut manifest = Sealing {
        out: BufWriter::new(File::create(&path).unwrap()),
        hasher: Sha256::new(),
    };
    manifest.put("{ \"PostgreSQL-Backup-Manifest-Version\": 1,\n\"Files\": [\n");
    for number in 0..FILES {
        let comma = if number == 0 { "" } else { ",\n" };
        manifest.put(&format!(
            "{comma}{{ \"Path\": \"base/5/{number}\", \"Size\": 8192, \"Last-Modified\": \"2024-05-01 10:00:00 GMT\", \
             \"Checksum-Algorithm\": \"CRC32C\", \"Checksum\": \"d0a1b2c3\" }}"
        ));
    }
    manifest.put(
        "\n],\n\"WAL-Ranges\": [\n{ \"Timeline\": 1, \"Start-LSN\": \"0/2000028\", \"End-LSN\": \"0/2000100\" }\n],\n",
    );
    let checksum: String = manifest
        .hasher
        .finalize()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    writeln!(manifest.out, "\"Manifest-Checksum\": \"{checksum}\"}}").unwrap();
    manifest.out.flush().unwrap();
    let size = fs::metadata(&path).unwrap().len();

    let before = peak();
    let began = Instant::now();
    let mut visited = 0;
    let read = artifact::read_manifest(&path, &mut |_| visited += 1).unwrap();
    let taken = peak() - before;
    println!("{} MB in {:?}, {taken} kB", size >> 20, began.elapsed());
    assert_eq!((read.files, visited, read.bytes), (FILES, FILES, FILES * 8192));
    assert!(taken < MOST_KB, "{taken} kB");
}

/// The most memory that this process has had, kB.
fn peak() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}
