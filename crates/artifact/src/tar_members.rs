//! The files in a tar of a base backup (`base.tar`, `<tablespace>.tar`, `pg_wal.tar`), one after the other.
//!
//! The server and pg_basebackup write plain ustar headers (src/port/tar.c), so that extensions of the format are not looked for:
//! a damaged header must not make anybody read megabytes of file name.

use std::fs::File;
use std::io::{self, Read};
use std::ops::ControlFlow;
use std::path::PathBuf;

/// A file in a tar.
pub struct Member<'m> {
    /// Its name there. Data from outside: compare it, do not open it.
    pub path: PathBuf,
    /// Its size in bytes.
    pub bytes: u64,
    /// Where it ends in the tar, bytes from the beginning of that.
    pub end: u64,
    /// Whether it is a regular file, rather than a directory or a link.
    pub is_file: bool,
    /// What it holds. What is not read is passed over.
    pub content: &'m mut dyn Read,
}

/// Reads a tar from its beginning and hands each member to `visit`, until that says to stop.
///
/// # Errors
/// What `reader` says, and a clause where what it gives is no whole tar.
pub fn members(reader: impl Read, visit: &mut dyn FnMut(Member<'_>) -> ControlFlow<()>) -> io::Result<()> {
    let mut archive = tar::Archive::new(reader);
    walk(archive.entries()?, visit)
}

/// The same for a tar that is not compressed: what is not read of a member is leapt over.
///
/// # Errors
/// As [`members`].
pub fn members_by_seeking(file: File, visit: &mut dyn FnMut(Member<'_>) -> ControlFlow<()>) -> io::Result<()> {
    let mut archive = tar::Archive::new(file);
    walk(archive.entries_with_seek()?, visit)
}

fn walk<R: Read>(entries: tar::Entries<'_, R>, visit: &mut dyn FnMut(Member<'_>) -> ControlFlow<()>) -> io::Result<()> {
    for entry in entries.raw(true) {
        let mut entry = entry?;
        let member = Member {
            path: entry.path()?.into_owned(),
            bytes: entry.size(),
            end: entry.raw_file_position().saturating_add(entry.size()),
            is_file: entry.header().entry_type().is_file(),
            content: &mut entry,
        };
        if visit(member).is_break() {
            break;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn a_tar() -> Vec<u8> {
        let mut builder = tar::Builder::new(Vec::new());
        for (name, bytes) in [("backup_label", 10_usize), ("base/1/1259", 70_000), ("PG_VERSION", 3)] {
            let mut header = tar::Header::new_ustar();
            header.set_size(bytes as u64);
            header.set_mode(0o600);
            builder.append_data(&mut header, name, &*vec![b'x'; bytes]).unwrap();
        }
        builder.into_inner().unwrap()
    }

    fn seen(
        visit_all: impl FnOnce(&mut dyn FnMut(Member<'_>) -> ControlFlow<()>) -> io::Result<()>,
    ) -> Vec<(String, u64, usize)> {
        let mut seen = Vec::new();
        visit_all(&mut |member| {
            let mut content = Vec::new();
            if member.bytes < 100 {
                member.content.read_to_end(&mut content).unwrap();
            }
            seen.push((member.path.display().to_string(), member.bytes, content.len()));
            ControlFlow::Continue(())
        })
        .unwrap();
        seen
    }

    #[test]
    fn members_come_with_their_content_read_through_or_leapt_over() {
        let expected = [
            ("backup_label".to_owned(), 10, 10),
            ("base/1/1259".to_owned(), 70_000, 0),
            ("PG_VERSION".to_owned(), 3, 3),
        ];
        assert_eq!(seen(|visit| members(&*a_tar(), visit)), expected);
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&a_tar()).unwrap();
        io::Seek::rewind(&mut file).unwrap();
        assert_eq!(seen(|visit| members_by_seeking(file, visit)), expected);
    }

    #[test]
    fn a_cut_or_damaged_tar_is_an_error() {
        let whole = a_tar();
        let all = |bytes: &[u8]| members(bytes, &mut |_| ControlFlow::Continue(()));
        assert!(all(&whole[..40_000]).is_err());
        let mut damaged = whole.clone();
        damaged[2] ^= 1;
        assert!(all(&damaged).is_err());
        let mut first = 0;
        members(&*whole, &mut |_| {
            first += 1;
            ControlFlow::Break(())
        })
        .unwrap();
        assert_eq!(first, 1);
    }
}
