//! What stands before a program on a command line: variables for it, and programs that only run the one named after them.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use super::line::name_of;
use super::{Refusal, absolute};
use crate::small_file;

/// Variables that a program is given on its command line.
pub(super) type Environment = BTreeMap<String, String>;

/// Programs that only run the one named after them.
const WRAPPERS: &[&str] = &["exec", "command", "nice", "ionice", "nocache", "chronic", "!"];
/// A directory of variables holds a few dozen.
const MOST_VARIABLES: usize = 1000;

/// The words from the program on, past wrappers and their options, and the variables that were set before it.
pub(super) fn unwrapped<'a>(
    words: &'a [String],
    data_directory: &Path,
) -> Result<(Environment, &'a [String]), Refusal> {
    let mut environment = Environment::new();
    let mut rest = words;
    while let Some((first, tail)) = rest.split_first() {
        if let Some((name, value)) = assignment(first) {
            environment.insert(name.to_owned(), value.to_owned());
            rest = tail;
            continue;
        }
        match name_of(first) {
            // What follows is read as if there were no `env`: variables, then the program.
            "env" => {
                rest = tail;
                if let Some(option) = rest.first().filter(|word| word.starts_with('-')) {
                    let name = option.split(['=', ' ']).next().unwrap_or_default();
                    return Err(format!("it uses env with the option {name}").into());
                }
            }
            "envdir" => {
                let Some((directory, tail)) = tail.split_first() else {
                    return Err("envdir in it names no directory".into());
                };
                let directory = absolute(Path::new(directory), data_directory);
                environment.append(&mut from_directory(&directory)?);
                rest = tail;
            }
            name if WRAPPERS.contains(&name) => {
                rest = tail;
                // `nice -n 10`, `ionice -c3`, `ionice -c 2 -n 7`
                while let Some((option, tail)) = rest.split_first() {
                    if !(option.starts_with('-') || option.parse::<i32>().is_ok()) {
                        break;
                    }
                    rest = tail;
                }
            }
            _ => break,
        }
    }
    Ok((environment, rest))
}

/// `NAME=value` with a name that the shell takes for a variable's.
fn assignment(word: &str) -> Option<(&str, &str)> {
    let (name, value) = word.split_once('=')?;
    let mut characters = name.chars();
    let first = characters.next()?;
    let is_name = (first.is_ascii_alphabetic() || first == '_')
        && characters.all(|character| character.is_ascii_alphanumeric() || character == '_');
    is_name.then_some((name, value))
}

/// What envdir reads: for each file a variable of its name, with its first line as the value; an empty file unsets it.
fn from_directory(directory: &Path) -> Result<Environment, Refusal> {
    let refuse = |error: std::io::Error| {
        Refusal::fetch(format!(
            "the variables in {} cannot be read ({error})",
            directory.display()
        ))
    };
    let mut environment = Environment::new();
    for (count, entry) in fs::read_dir(directory).map_err(refuse)?.enumerate() {
        if count >= MOST_VARIABLES {
            return Err(Refusal::fetch(format!(
                "{} holds more files than a directory of variables would",
                directory.display()
            )));
        }
        let entry = entry.map_err(refuse)?;
        let name = entry.file_name().to_string_lossy().into_owned();
        // Only these matter, and the directory may hold other programs' secrets.
        if !name.starts_with("WAL") && !name.starts_with("PGBACKREST_") && name != "GPG_KEY_ID" {
            continue;
        }
        let content = small_file::read_text(&entry.path()).map_err(refuse)?;
        if let Some(value) = content.lines().next() {
            environment.insert(name, value.trim_end_matches([' ', '\t']).to_owned());
        }
    }
    Ok(environment)
}
