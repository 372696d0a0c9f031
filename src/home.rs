//! Where this server lives: machine, data directory, and what tells a directory from a copy of it.

use crate::error::{Error, Result};
use recovery::lives::Home;
use std::ffi::{CStr, c_char};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// Longest name that POSIX allows for a machine, and its end (HOST_NAME_MAX).
const LONGEST_NAME: usize = 256;

/// Where the server with this data directory lives.
///
/// # Errors
/// What the system says.
pub fn of(data_directory: &Path) -> Result<Home> {
    let metadata = fs::metadata(data_directory).map_err(|error| Error::server_file(data_directory, error))?;
    Ok(Home {
        host: host_name()?,
        directory: data_directory.display().to_string(),
        identity: format!("{}:{}", metadata.dev(), metadata.ino()),
    })
}

fn host_name() -> Result<String> {
    let mut buffer = [0_u8; LONGEST_NAME + 1];
    // SAFETY: the buffer is one byte longer than said, so that it ends in a zero byte whatever the system writes.
    let failed = unsafe { libc::gethostname(buffer.as_mut_ptr().cast::<c_char>(), LONGEST_NAME) } != 0;
    match CStr::from_bytes_until_nul(&buffer) {
        Ok(name) if !failed => Ok(name.to_string_lossy().into_owned()),
        _ => Err(Error::Server(format!(
            "gethostname: {}",
            std::io::Error::last_os_error()
        ))),
    }
}

/// The machine's boot, another one after each start of its kernel; empty where the system does not tell.
pub fn boot() -> String {
    fs::read_to_string("/proc/sys/kernel/random/boot_id").map_or_else(|_| String::new(), |id| id.trim().to_owned())
}
