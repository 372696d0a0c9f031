//! What a command line leaves behind, followed command by command.

use std::path::Path;

use super::arguments::Arguments;
use super::environment;
use super::{Refusal, compressors, pgbackrest, walg};
use crate::compression::Compression;
use crate::shell::{self, Command, SEGMENT_NAME, SEGMENT_PATH, ShellError};
use crate::source::Source;

/// A file that the line has made from the segment so far.
#[derive(Debug, Clone)]
pub(super) struct Copy {
    /// Its path, with marks.
    pub path: String,
    /// Whether the path was named as a directory.
    pub directory_named: bool,
    /// How it is compressed.
    pub compression: Compression,
    /// The program that made it.
    pub program: String,
}

/// What a line has done with the segment.
#[derive(Debug, Clone)]
pub(super) enum Made {
    Copy(Copy),
    /// It gave it to an archiver whose archive is known.
    Archived {
        source: Source,
        because: String,
    },
}

/// Where a copy ends up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Target {
    /// In this directory, under its own name.
    Under(String),
    /// A path without `%f`: a directory if it is one.
    DirectoryOrFile(String),
}

/// What the line makes of the segment.
pub(super) fn follow(command: &str, data_directory: &Path) -> Result<Made, Refusal> {
    let line = shell::substitute(command).map_err(shell_sentence)?;
    let commands = shell::commands(&line).map_err(shell_sentence)?;
    let mut made: Vec<Made> = Vec::new();
    for command in &commands {
        step(command, &mut made, data_directory)?;
    }
    // A line that stores twice keeps either copy whole; the first is as good as the second.
    let first = made.into_iter().next();
    first.ok_or_else(|| "it stores nothing (no command in it takes %p)".into())
}

fn shell_sentence(error: ShellError) -> String {
    match error {
        ShellError::Unbalanced => "its quotes are not balanced".to_owned(),
        ShellError::Computed(what) => format!("it uses {what}"),
        ShellError::Pipe => "it sends the segment through a pipe, which is not followed".to_owned(),
        ShellError::NoTarget => "a redirection in it has no target".to_owned(),
        ShellError::ControlCharacter => "it holds a control character".to_owned(),
    }
}

/// Where a copy can be read from here, under the segment's own name and the suffix of its compression.
pub(super) fn target(copy: &Copy) -> Result<Target, Refusal> {
    let path = copy.path.as_str();
    if path.starts_with('~') {
        return Err("its path starts with ~, which depends on the shell's user".into());
    }
    if path.contains("://") || path.split('/').next().is_some_and(|head| head.contains(':')) {
        return Err(Refusal::fetch(format!(
            "it stores the segment on another host ({path}), where it cannot be read from here"
        )));
    }
    if path.contains(SEGMENT_PATH) {
        return Err(format!("it stores the segment as {path}, a place made from %p").into());
    }
    if !path.contains(SEGMENT_NAME) {
        if copy.compression != Compression::None {
            return Err(format!("it stores every compressed segment as {path}").into());
        }
        return Ok(if copy.directory_named || path.ends_with('/') {
            Target::Under(path.to_owned())
        } else {
            Target::DirectoryOrFile(path.to_owned())
        });
    }
    let (directory, name) = path.rsplit_once('/').unwrap_or((".", path));
    if directory.contains(SEGMENT_NAME) {
        return Err(format!("it gives each segment a directory of its own ({path})").into());
    }
    let suffix = name
        .strip_prefix(SEGMENT_NAME)
        .filter(|rest| !rest.contains(SEGMENT_NAME));
    // Without a suffix the content shows how it is compressed.
    let declared = suffix
        .and_then(|suffix| suffix.strip_prefix('.'))
        .and_then(Compression::of_suffix);
    if suffix != Some("") && (declared.is_none() || declared != Some(copy.compression)) {
        return Err(format!("it stores the segment under another name than its own ({name})").into());
    }
    Ok(Target::Under(match directory {
        "" => "/".to_owned(),
        directory => directory.to_owned(),
    }))
}

/// Programs that leave what is stored alone.
const BYSTANDERS: &[&str] = &[
    "test", "[", "true", "false", ":", "exit", "echo", "printf", "logger", "sync", "mkdir", "chmod", "chown", "chgrp",
    "touch", "sleep", "date", "ls", "rm",
];
const OTHER_COMPRESSORS: &[&str] = &["lzop", "compress", "7z", "zip", "brotli", "lzma"];
const REMOTE: &[&str] = &[
    "scp", "sftp", "ssh", "aws", "s3cmd", "gsutil", "gcloud", "az", "azcopy", "rclone", "mc", "curl", "wget",
    "ncftpput",
];
const ENCRYPTORS: &[&str] = &["gpg", "gpg2", "openssl", "age"];

/// Follows one command, changing what the line has made so far.
fn step(command: &Command, made: &mut Vec<Made>, data_directory: &Path) -> Result<(), Refusal> {
    let (environment, words) = environment::unwrapped(&command.words, data_directory)?;
    let Some((program, arguments)) = words.split_first() else {
        // A redirection alone makes an empty file.
        return Ok(());
    };
    let name = name_of(program);
    match name {
        _ if BYSTANDERS.contains(&name) => Ok(()),
        "cp" | "mv" | "ln" | "install" | "rsync" => copied(name, arguments, made),
        "cat" => match (&command.stdout, &command.stdin, arguments) {
            (Some(out), None, [from]) | (Some(out), Some(from), []) if is_segment(from) => {
                made.push(copy(out, name));
                Ok(())
            }
            _ => Err("it uses cat in a way that is not a plain copy of %p".into()),
        },
        "dd" => {
            let value = |key: &str| arguments.iter().find_map(|a| a.strip_prefix(key));
            match (value("if="), value("of=")) {
                (Some(from), Some(to)) if is_segment(from) => {
                    made.push(copy(to, name));
                    Ok(())
                }
                _ => Err("it uses dd in a way that is not a plain copy of %p".into()),
            }
        }
        "pgbackrest" => archived(pgbackrest::source(arguments, &environment)?, made),
        "wal-g" => archived(walg::source(arguments, &environment)?, made),
        "barman-wal-archive" | "barman-cloud-wal-archive" => Err(Refusal::fetch(
            "Barman takes the segment to a place that this server's settings do not name",
        )),
        "wal-e" => Err(Refusal::fetch("WAL-E compresses with lzop, which is not read here")),
        _ if compressors::is_known(name) => compressors::step(name, arguments, command, made),
        _ if OTHER_COMPRESSORS.contains(&name) => Err(Refusal::fetch(format!(
            "it compresses the segment with {name}, which is not followed"
        ))),
        _ if ENCRYPTORS.contains(&name) => Err(Refusal::fetch(format!("it encrypts the segment with {name}"))),
        _ if REMOTE.contains(&name) => Err(Refusal::fetch(format!(
            "{name} sends the segment to a place that cannot be read from here"
        ))),
        _ => Err(format!("what {name} does with the segment is not known").into()),
    }
}

fn copied(name: &str, arguments: &[String], made: &mut Vec<Made>) -> Result<(), Refusal> {
    let takes_value = match name {
        "install" => "mogtSC",
        "rsync" => "eTBfM",
        _ => "tS",
    };
    let parsed = Arguments::read(arguments, takes_value)?;
    if parsed.has('s', "symbolic") && name == "ln" || parsed.has('s', "symbolic-link") && name == "cp" {
        return Err(
            "it stores a symbolic link to pg_wal, which is lost as soon as the server recycles the segment".into(),
        );
    }
    let (source, target, directory_named) = parsed.endpoints(name)?;
    if is_segment(source) {
        made.push(Made::Copy(Copy {
            directory_named,
            ..plain(target, name)
        }));
        return Ok(());
    }
    let Some(before) = find(made, source) else {
        return if mentions_segment(arguments) {
            Err(format!("{name} in it takes another file than %p").into())
        } else {
            Ok(())
        };
    };
    let after = Copy {
        path: target.to_owned(),
        directory_named,
        ..before.clone()
    };
    if name == "mv" {
        *before = after;
    } else {
        made.push(Made::Copy(after));
    }
    Ok(())
}

fn archived((source, because): (Source, String), made: &mut Vec<Made>) -> Result<(), Refusal> {
    made.push(Made::Archived { source, because });
    Ok(())
}

/// The copy that the line has made under this path.
pub(super) fn find<'a>(made: &'a mut [Made], path: &str) -> Option<&'a mut Copy> {
    made.iter_mut().find_map(|made| match made {
        Made::Copy(copy) if copy.path == path => Some(copy),
        _ => None,
    })
}

fn copy(path: &str, program: &str) -> Made {
    Made::Copy(plain(path, program))
}

fn plain(path: &str, program: &str) -> Copy {
    Copy {
        path: path.to_owned(),
        directory_named: false,
        compression: Compression::None,
        program: program.to_owned(),
    }
}

/// A program without its directory.
pub(super) fn name_of(program: &str) -> &str {
    Path::new(program)
        .file_name()
        .and_then(|n| n.to_str())
        .unwrap_or(program)
}

/// Whether a word is `%p` and nothing else.
pub(super) fn is_segment(word: &str) -> bool {
    word.chars().eq([SEGMENT_PATH])
}

/// Whether any of these words holds `%p` or `%f`.
pub(super) fn mentions_segment(words: &[String]) -> bool {
    words.iter().any(|w| w.contains([SEGMENT_NAME, SEGMENT_PATH]))
}
