//! The archive source read off the server's own settings: what an `archive_command` stores where.
//!
//! Only commands whose effect is plain are followed: a copy of `%p` to a local directory under the name `%f`. Everything else is
//! answered by a sentence that says why, and which setting to make; a wrong guess would prove the wrong archive.

use std::path::{Component, Path, PathBuf};

use crate::shell::{self, Command, SEGMENT_NAME, SEGMENT_PATH, ShellError};
use crate::source::{Source, tidy};

/// A source found, and what it was read from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Derived {
    /// Where archived WAL is.
    pub source: Source,
    /// One English clause that says which setting led there.
    pub because: String,
}

/// Why no source could be read off the server's settings. Each sentence ends with what to do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DeriveError {
    /// `archive_mode` is off: the server shows its command as `(disabled)`.
    #[error(
        "WAL archiving is off; set archive_mode = on with an archive_command or archive_library, and restart the server"
    )]
    Off,
    /// Archiving is on, yet nothing says how.
    #[error(
        "neither archive_command nor archive_library is set, so the server keeps all WAL and archives none; set one of them"
    )]
    NotSet,
    /// `archive_library` is one whose store is not known.
    #[error(
        "archive_library \"{library}\" does not say where it stores WAL; set pg_backstop.archive_source, such as dir:/mnt/archive"
    )]
    UnknownLibrary {
        /// The library's name.
        library: String,
    },
    /// `basic_archive` without its directory: it archives nothing.
    #[error(
        "archive_library is basic_archive, but basic_archive.archive_directory is empty, so nothing is archived; set it"
    )]
    NoBasicDirectory,
    /// The command is not one that can be followed.
    #[error(
        "archive_command \"{command}\" cannot be followed: {why}; set pg_backstop.archive_source, such as dir:/mnt/archive"
    )]
    NotFollowed {
        /// The command as set.
        command: String,
        /// A clause that says what stands in the way.
        why: String,
    },
}

/// Finds where the server archives to. Arguments are the values of the settings of the same names; an unset one is empty.
/// Relative paths are the server's: they start at its data directory.
pub fn derive(
    archive_command: &str,
    archive_library: &str,
    basic_archive_directory: &str,
    data_directory: &Path,
) -> Result<Derived, DeriveError> {
    // The library wins where both are set: 15 says so, later majors refuse the pair.
    if !archive_library.is_empty() {
        let name = Path::new(archive_library)
            .file_stem()
            .and_then(|n| n.to_str())
            .unwrap_or(archive_library);
        if name != "basic_archive" {
            return Err(DeriveError::UnknownLibrary {
                library: archive_library.to_owned(),
            });
        }
        if basic_archive_directory.is_empty() {
            return Err(DeriveError::NoBasicDirectory);
        }
        return Ok(Derived {
            source: Source::Directory(absolute(Path::new(basic_archive_directory), data_directory)),
            because: "basic_archive.archive_directory names it".to_owned(),
        });
    }
    match archive_command.trim() {
        "" => return Err(DeriveError::NotSet),
        "(disabled)" => return Err(DeriveError::Off),
        _ => {}
    }
    let refuse = |why: String| DeriveError::NotFollowed {
        command: archive_command.to_owned(),
        why: shown(&why),
    };
    let stored = follow(archive_command).map_err(refuse)?;
    let directory = match stored.target {
        Target::Under(directory) => absolute(Path::new(&directory), data_directory),
        // `cp %p /mnt/archive`: right for a directory, and a file that every segment overwrites otherwise.
        Target::DirectoryOrFile(path) => {
            let path = absolute(Path::new(&path), data_directory);
            if !path.is_dir() {
                return Err(refuse(format!(
                    "it stores every segment as {}, which is no directory that can be seen from here",
                    path.display()
                )));
            }
            path
        }
    };
    Ok(Derived {
        source: Source::Directory(directory),
        because: format!("archive_command stores segments there with {}", shown(&stored.program)),
    })
}

/// Where one command puts the segment.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Target {
    /// In this directory, as `%f`.
    Under(String),
    /// A path without `%f`: a directory if it is one.
    DirectoryOrFile(String),
}

struct Stored {
    target: Target,
    program: String,
}

/// A file that the line has made from the segment so far: its path, with marks, and the program that made it.
struct Copy {
    path: String,
    directory_named: bool,
    program: String,
}

fn follow(command: &str) -> Result<Stored, String> {
    let line = shell::substitute(command).map_err(shell_sentence)?;
    let commands = shell::commands(&line).map_err(shell_sentence)?;
    let mut copies: Vec<Copy> = Vec::new();
    for command in &commands {
        step(command, &mut copies)?;
    }
    // A line that stores twice keeps either copy whole; the first is as good as the second.
    let Some(copy) = copies.into_iter().next() else {
        return Err("it stores nothing (no command in it takes %p)".to_owned());
    };
    Ok(Stored {
        target: target(&copy)?,
        program: copy.program,
    })
}

fn shell_sentence(error: ShellError) -> String {
    match error {
        ShellError::Unbalanced => "its quotes are not balanced".to_owned(),
        ShellError::Computed(what) => format!("it uses {what}"),
        ShellError::Pipe => {
            "it sends the segment through a pipe, so that what is stored is not the plain segment".to_owned()
        }
        ShellError::NoTarget => "a redirection in it has no target".to_owned(),
        ShellError::ControlCharacter => "it holds a control character".to_owned(),
    }
}

/// A text with the placeholders as they were typed.
fn shown(text: &str) -> String {
    text.replace(SEGMENT_NAME, "%f").replace(SEGMENT_PATH, "%p")
}

fn target(copy: &Copy) -> Result<Target, String> {
    let path = copy.path.as_str();
    if path.starts_with('~') {
        return Err("its path starts with ~, which depends on the shell's user".to_owned());
    }
    if path.contains("://") || path.split('/').next().is_some_and(|head| head.contains(':')) {
        return Err(format!(
            "it stores the segment on another host ({}), where it cannot be read from here",
            path
        ));
    }
    if path.contains(SEGMENT_PATH) {
        return Err(format!("it stores the segment as {}, a place made from %p", path));
    }
    if !path.contains(SEGMENT_NAME) {
        return Ok(if copy.directory_named || path.ends_with('/') {
            Target::Under(path.to_owned())
        } else {
            Target::DirectoryOrFile(path.to_owned())
        });
    }
    let (directory, name) = path.rsplit_once('/').unwrap_or((".", path));
    if directory.contains(SEGMENT_NAME) {
        return Err(format!("it gives each segment a directory of its own ({})", path));
    }
    if name.chars().ne([SEGMENT_NAME]) {
        return Err(format!(
            "it stores the segment under another name than its own ({})",
            name
        ));
    }
    Ok(Target::Under(if directory.is_empty() {
        "/".to_owned()
    } else {
        directory.to_owned()
    }))
}

/// Programs that only run the one named after them.
const WRAPPERS: &[&str] = &["exec", "command", "nice", "ionice", "nocache", "chronic", "!"];
/// Programs that leave what is stored alone.
const BYSTANDERS: &[&str] = &[
    "test", "[", "true", "false", ":", "exit", "echo", "printf", "logger", "sync", "mkdir", "chmod", "chown", "chgrp",
    "touch", "sleep", "date", "ls", "rm",
];
const COMPRESSORS: &[&str] = &[
    "gzip", "pigz", "bzip2", "pbzip2", "xz", "zstd", "lz4", "lzop", "compress", "7z", "zip", "brotli",
];
const REMOTE: &[&str] = &[
    "scp", "sftp", "ssh", "aws", "s3cmd", "gsutil", "gcloud", "az", "azcopy", "rclone", "mc", "curl", "wget",
    "ncftpput",
];
const ENCRYPTORS: &[&str] = &["gpg", "gpg2", "openssl", "age"];

/// Follows one command, changing what the line has made so far.
fn step(command: &Command, copies: &mut Vec<Copy>) -> Result<(), String> {
    let words = unwrapped(&command.words);
    let Some((program, arguments)) = words.split_first() else {
        // A redirection alone makes an empty file.
        return Ok(());
    };
    let name = Path::new(program)
        .file_name()
        .and_then(|n| n.to_str())
        .unwrap_or(program);
    let copy = |path: &str, directory_named: bool| Copy {
        path: path.to_owned(),
        directory_named,
        program: name.to_owned(),
    };
    match name {
        _ if BYSTANDERS.contains(&name) => Ok(()),
        "cp" | "mv" | "ln" | "install" | "rsync" => {
            let parsed = Arguments::read(arguments, takes_value(name))?;
            if parsed.has('s', "symbolic") && name == "ln" || parsed.has('s', "symbolic-link") && name == "cp" {
                return Err(
                    "it stores a symbolic link to pg_wal, which is lost as soon as the server recycles the segment"
                        .to_owned(),
                );
            }
            let (source, target, directory_named) = parsed.endpoints(name)?;
            if source == SEGMENT_PATH.to_string() {
                copies.push(copy(target, directory_named));
                return Ok(());
            }
            let Some(made) = copies.iter_mut().find(|made| made.path == source) else {
                return if mentions_segment(arguments) {
                    Err(format!("{name} in it takes another file than %p"))
                } else {
                    Ok(())
                };
            };
            if name == "mv" {
                *made = Copy {
                    path: target.to_owned(),
                    directory_named,
                    program: made.program.clone(),
                };
            } else {
                copies.push(copy(target, directory_named));
            }
            Ok(())
        }
        "cat" => match (&command.stdout, &command.stdin, arguments) {
            (Some(out), None, [one]) if one.chars().eq([SEGMENT_PATH]) => {
                copies.push(copy(out, false));
                Ok(())
            }
            (Some(out), Some(from), []) if from.chars().eq([SEGMENT_PATH]) => {
                copies.push(copy(out, false));
                Ok(())
            }
            _ => Err("it uses cat in a way that is not a plain copy of %p".to_owned()),
        },
        "dd" => {
            let value = |key: &str| arguments.iter().find_map(|a| a.strip_prefix(key));
            match (value("if="), value("of=")) {
                (Some(from), Some(to)) if from.chars().eq([SEGMENT_PATH]) => {
                    copies.push(copy(to, false));
                    Ok(())
                }
                _ => Err("it uses dd in a way that is not a plain copy of %p".to_owned()),
            }
        }
        "pgbackrest" => {
            Err("pgBackRest keeps WAL in a repository of its own layout, which is not a plain directory".to_owned())
        }
        "barman-wal-archive" | "barman-cloud-wal-archive" => {
            Err("Barman takes the segment to a place that this server's settings do not name".to_owned())
        }
        "wal-g" | "wal-e" | "envdir" => Err("WAL-G and WAL-E keep WAL compressed in a layout of their own".to_owned()),
        _ if COMPRESSORS.contains(&name) => Err(format!(
            "it compresses the segment with {name}, so that no plain segment is stored"
        )),
        _ if ENCRYPTORS.contains(&name) => Err(format!("it encrypts the segment with {name}")),
        _ if REMOTE.contains(&name) => Err(format!(
            "{name} sends the segment to a place that cannot be read from here"
        )),
        _ => Err(format!("what {name} does with the segment is not known")),
    }
}

fn mentions_segment(words: &[String]) -> bool {
    words.iter().any(|w| w.contains([SEGMENT_NAME, SEGMENT_PATH]))
}

/// The words from the program on, past wrappers and their options.
fn unwrapped(words: &[String]) -> &[String] {
    let mut rest = words;
    while let Some((first, tail)) = rest.split_first() {
        let name = Path::new(first).file_name().and_then(|n| n.to_str()).unwrap_or(first);
        if !WRAPPERS.contains(&name) {
            break;
        }
        rest = tail;
        // `nice -n 10`, `ionice -c3`, `ionice -c 2 -n 7`
        while let Some((option, tail)) = rest.split_first() {
            if !(option.starts_with('-') || option.parse::<i32>().is_ok()) {
                break;
            }
            rest = tail;
        }
    }
    rest
}

/// The short options of a program that take a value.
fn takes_value(program: &str) -> &'static str {
    match program {
        "install" => "mogtSC",
        "cp" | "mv" | "ln" => "tS",
        "rsync" => "eTBfM",
        _ => "",
    }
}

/// A command's arguments, options told from operands.
struct Arguments<'a> {
    short: String,
    long: Vec<&'a str>,
    directory: Option<&'a str>,
    operands: Vec<&'a str>,
}

impl<'a> Arguments<'a> {
    fn read(words: &'a [String], takes_value: &str) -> Result<Self, String> {
        let mut read = Self {
            short: String::new(),
            long: Vec::new(),
            directory: None,
            operands: Vec::new(),
        };
        let mut words = words.iter().map(String::as_str);
        while let Some(word) = words.next() {
            if word == "--" {
                read.operands.extend(words.by_ref());
            } else if let Some(long) = word.strip_prefix("--") {
                match long.split_once('=') {
                    Some(("target-directory", directory)) => read.directory = Some(directory),
                    _ if long == "target-directory" => read.directory = words.next(),
                    _ => read.long.push(long),
                }
            } else if let Some(flags) = word.strip_prefix('-').filter(|flags| !flags.is_empty()) {
                let mut chars = flags.chars();
                while let Some(flag) = chars.next() {
                    read.short.push(flag);
                    if takes_value.contains(flag) {
                        let attached = chars.as_str();
                        let value = if attached.is_empty() {
                            words.next()
                        } else {
                            Some(attached)
                        };
                        let value = value.ok_or_else(|| format!("its option -{flag} has no value"))?;
                        // rsync's -T is a place for temporary files.
                        if flag == 't' {
                            read.directory = Some(value);
                        }
                        break;
                    }
                }
            } else {
                read.operands.push(word);
            }
        }
        Ok(read)
    }

    fn has(&self, short: char, long: &str) -> bool {
        self.short.contains(short) || self.long.contains(&long)
    }

    /// What is copied, to where, and whether the target was named as a directory.
    fn endpoints(&self, program: &str) -> Result<(&'a str, &'a str, bool), String> {
        match (self.directory, self.operands.as_slice()) {
            (Some(directory), [source]) => Ok((source, directory, true)),
            (None, [source, target]) => Ok((source, target, false)),
            _ => Err(format!("{program} in it does not have one source and one target")),
        }
    }
}

fn absolute(path: &Path, data_directory: &Path) -> PathBuf {
    // The server runs in its data directory, so `../archive` is beside it. The step up is taken here, for a name that reads well,
    // where no link can lie in between: the data directory's own path is the server's and real.
    let joined = data_directory.join(path);
    let mut out = PathBuf::new();
    let mut own = data_directory.components().count();
    for component in tidy(&joined).components() {
        if component == Component::ParentDir && own > 0 && out.components().count() <= own && out.pop() {
            own = out.components().count();
        } else {
            out.push(component);
        }
    }
    out
}

#[cfg(test)]
mod tests;
