//! Small files of other programs' settings, read whole and without trust.

use std::fs::OpenOptions;
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// Such files are a few lines long; more than this is not read, bytes.
pub(crate) const LONGEST: u64 = 64 << 10;

/// The content of a regular file of at most [`LONGEST`] bytes. Nothing else is waited for: a FIFO would have the server hang.
pub(crate) fn read(path: &Path) -> io::Result<Vec<u8>> {
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY)
        .open(path)?;
    if !file.metadata()?.is_file() {
        return Err(io::Error::other("it is no regular file"));
    }
    let mut content = Vec::new();
    file.take(LONGEST + 1).read_to_end(&mut content)?;
    if content.len() as u64 > LONGEST {
        return Err(io::Error::other(format!("it has more than {} kB", LONGEST >> 10)));
    }
    Ok(content)
}

/// The same, where it is text.
pub(crate) fn read_text(path: &Path) -> io::Result<String> {
    String::from_utf8(read(path)?).map_err(|_| io::Error::other("it is no text in UTF-8"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_small_regular_files_are_read_and_nothing_is_waited_for() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("x");
        std::fs::write(&path, vec![b'x'; LONGEST as usize]).unwrap();
        assert_eq!(read(&path).unwrap().len() as u64, LONGEST);
        std::fs::write(&path, vec![b'x'; LONGEST as usize + 1]).unwrap();
        assert!(read(&path).unwrap_err().to_string().contains("more than 64 kB"));
        std::fs::write(&path, b"\xff").unwrap();
        assert!(read_text(&path).is_err());
        assert!(read(directory.path()).is_err());
        let fifo = directory.path().join("fifo");
        assert!(
            std::process::Command::new("mkfifo")
                .arg(&fifo)
                .status()
                .unwrap()
                .success()
        );
        assert!(read(&fifo).unwrap_err().to_string().contains("no regular file"));
    }
}
