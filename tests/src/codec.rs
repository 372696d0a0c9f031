//! The compressors' command-line programs, as archive commands call them.

use std::fs::{self, File};
use std::io::Write as _;

use anyhow::{Result, ensure};

use crate::process::{self, OnOurEnd};

/// A compressed format.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Codec {
    /// `.gz`
    Gzip,
    /// `.gz`, of several threads
    Pigz,
    /// `.bz2`
    Bzip2,
    /// `.xz`
    Xz,
    /// `.zst`
    Zstd,
    /// `.lz4`
    Lz4,
    /// `.br`
    Brotli,
}

impl Codec {
    /// The program.
    #[must_use]
    pub fn program(self) -> &'static str {
        match self {
            Self::Gzip => "gzip",
            Self::Pigz => "pigz",
            Self::Bzip2 => "bzip2",
            Self::Xz => "xz",
            Self::Zstd => "zstd",
            Self::Lz4 => "lz4",
            Self::Brotli => "brotli",
        }
    }

    /// What it adds to a file's name, with the dot.
    #[must_use]
    pub fn suffix(self) -> &'static str {
        match self {
            Self::Gzip | Self::Pigz => ".gz",
            Self::Bzip2 => ".bz2",
            Self::Xz => ".xz",
            Self::Zstd => ".zst",
            Self::Lz4 => ".lz4",
            Self::Brotli => ".br",
        }
    }

    /// A shell command that compresses what one word names to the file that another names.
    #[must_use]
    pub fn shell(self, from: &str, to: &str) -> String {
        format!("{} -c < {from} > {to}", self.program())
    }

    /// Compresses.
    ///
    /// # Errors
    /// When the program fails.
    pub fn compress(self, bytes: &[u8]) -> Result<Vec<u8>> {
        self.pass(&["-c"], bytes)
    }

    /// Decompresses.
    ///
    /// # Errors
    /// When the program fails.
    pub fn decompress(self, bytes: &[u8]) -> Result<Vec<u8>> {
        self.pass(&["-dc"], bytes)
    }

    /// Compresses with further options.
    ///
    /// # Errors
    /// When the program fails.
    pub fn compress_with(self, options: &[&str], bytes: &[u8]) -> Result<Vec<u8>> {
        self.pass(&[options, &["-c"]].concat(), bytes)
    }

    fn pass(self, options: &[&str], bytes: &[u8]) -> Result<Vec<u8>> {
        let mut input = tempfile::NamedTempFile::new_in(crate::scratch::root()?)?;
        input.write_all(bytes)?;
        fs::set_permissions(input.path(), std::os::unix::fs::PermissionsExt::from_mode(0o644))?;
        let mut command = process::program(self.program(), OnOurEnd::Kill)?;
        let output = process::output(command.args(options).stdin(File::open(input.path())?))?;
        ensure!(
            output.status.success(),
            "{}: {} {}; pgrx-config/setup.sh --peers installs what is missing",
            self.program(),
            output.status,
            String::from_utf8_lossy(&output.stderr)
        );
        Ok(output.stdout)
    }
}
