//! Where `pgbackrest archive-push` stores: its command line, its variables, and its configuration files, in that order
//! (config/parse.c of pgBackRest).

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::Refusal;
use super::environment::Environment;
use super::line::is_segment;
use crate::small_file;
use crate::source::{Source, tidy};

type Options = BTreeMap<String, String>;

/// Where the configuration is looked for if nothing else is said: the file, and the place where older versions had it.
const DEFAULT_DIRECTORY: &str = "/etc/pgbackrest";
const OLD_FILE: &str = "/etc/pgbackrest.conf";
const DEFAULT_REPOSITORY: &str = "/var/lib/pgbackrest";
/// Those of the options that decide where WAL goes, but for those of the repositories.
const DECIDING: [&str; 4] = ["stanza", "config", "config-path", "config-include-path"];
/// Parts of a configuration are a handful of files.
const MOST_FILES: usize = 64;

pub(super) fn source(arguments: &[String], environment: &Environment) -> Result<(Source, String), Refusal> {
    let mut layers = vec![from_arguments(arguments)?, from_environment(environment)];
    let stanza = get(&layers, "stanza")
        .ok_or_else(|| Refusal::fetch("pgbackrest in it is called without --stanza"))?
        .to_owned();
    if stanza.is_empty() || stanza.contains('/') || stanza.starts_with('.') {
        return Err(Refusal::fetch(format!("\"{stanza}\" is no name of a stanza")));
    }
    let files = files(&layers)?;
    let mut sections = sections(&files)?;
    for section in [
        format!("{stanza}:archive-push"),
        stanza.clone(),
        "global:archive-push".to_owned(),
        "global".to_owned(),
    ] {
        layers.extend(sections.remove(&section));
    }
    let number = first_repository(&layers);
    let option = |name: &str| get(&layers, &format!("repo{number}-{name}"));
    if let Some(host) = option("host") {
        return Err(Refusal::fetch(format!(
            "pgBackRest's repository is on another host ({host})"
        )));
    }
    if let Some(kind) = option("type").filter(|kind| !matches!(*kind, "posix" | "cifs")) {
        return Err(Refusal::fetch(format!(
            "pgBackRest's repository is of type {kind}, which is no local disk"
        )));
    }
    if let Some(cipher) = option("cipher-type").filter(|cipher| *cipher != "none") {
        return Err(Refusal::fetch(format!(
            "pgBackRest's repository is encrypted ({cipher})"
        )));
    }
    let repository = option("path").unwrap_or(DEFAULT_REPOSITORY);
    if !Path::new(repository).is_absolute() {
        return Err(Refusal::fetch(format!(
            "pgBackRest's repository is at \"{repository}\", which is no absolute path"
        )));
    }
    Ok((
        Source::PgBackRest(tidy(&Path::new(repository).join("archive").join(&stanza))),
        format!("archive_command gives segments to pgBackRest, which stores them there for stanza {stanza}"),
    ))
}

/// The value of an option, from the first layer that has it. Before there were several repositories, `repo1-` was `repo-`.
fn get<'a>(layers: &'a [Options], name: &str) -> Option<&'a str> {
    let old = name.strip_prefix("repo1-").map(|option| format!("repo-{option}"));
    layers
        .iter()
        .find_map(|layer| layer.get(name).or_else(|| layer.get(old.as_ref()?)))
        .map(String::as_str)
}

/// The number of the repository that pgBackRest reads first: the lowest that is configured.
fn first_repository(layers: &[Options]) -> u32 {
    let number = |name: &String| {
        let (number, _) = name.strip_prefix("repo")?.split_once('-')?;
        if number.is_empty() {
            Some(1)
        } else {
            number.parse().ok()
        }
    };
    layers
        .iter()
        .flat_map(Options::keys)
        .filter_map(number)
        .min()
        .unwrap_or(1)
}

fn from_arguments(arguments: &[String]) -> Result<Options, Refusal> {
    let mut options = Options::new();
    let mut operands = Vec::new();
    let mut words = arguments.iter();
    while let Some(word) = words.next() {
        let Some(option) = word.strip_prefix("--") else {
            operands.push(word);
            continue;
        };
        let name = option.split_once('=').map_or(option, |(name, _)| name);
        let is_deciding = DECIDING.contains(&name) || is_repository_option(name);
        // pgBackRest takes the beginning of an option's name for all of it.
        let may_be_deciding = DECIDING.iter().any(|whole| whole.starts_with(name))
            || name.starts_with("repo")
            || ["no-", "reset-"].iter().any(|negation| {
                name.strip_prefix(negation)
                    .is_some_and(|name| name.starts_with("con") || name.starts_with("repo"))
            });
        if !is_deciding && may_be_deciding {
            return Err(Refusal::fetch(format!(
                "what pgbackrest does with its option --{name} is not known"
            )));
        }
        if is_deciding {
            let value = match option.split_once('=') {
                Some((_, value)) => value.to_owned(),
                None => words
                    .next()
                    .cloned()
                    .ok_or_else(|| Refusal::fetch(format!("pgbackrest's option --{name} has no value")))?,
            };
            options.insert(name.to_owned(), value);
        }
    }
    match operands.as_slice() {
        [push, segment] if *push == "archive-push" && is_segment(segment) => Ok(options),
        _ => Err(Refusal::fetch(
            "pgbackrest in it is not called as pgbackrest [options, written --name=value] archive-push %p",
        )),
    }
}

/// `repo1-path` and the like, of which any has a value.
fn is_repository_option(name: &str) -> bool {
    let option = name.strip_prefix("repo").and_then(|rest| {
        rest.trim_start_matches(|digit: char| digit.is_ascii_digit())
            .strip_prefix('-')
    });
    option.is_some_and(|option| matches!(option, "path" | "type" | "host" | "cipher-type"))
}

/// `PGBACKREST_REPO1_PATH` and the like.
fn from_environment(environment: &Environment) -> Options {
    environment
        .iter()
        .filter_map(|(name, value)| {
            let name = name.strip_prefix("PGBACKREST_")?.to_lowercase().replace('_', "-");
            Some((name, value.clone()))
        })
        .collect()
}

/// The configuration, part by part (cfgFileLoad): a file that is named must exist, those at the default places need not. Parts
/// in the include directory are read unless only a file is named.
fn files(layers: &[Options]) -> Result<Vec<String>, Refusal> {
    let path_of = |name: &str| match get(layers, name) {
        Some(path) if !Path::new(path).is_absolute() => Err(Refusal::fetch(format!(
            "pgbackrest's option --{name} names no absolute path"
        ))),
        path => Ok(path.map(PathBuf::from)),
    };
    let (file, base, include) = (
        path_of("config")?,
        path_of("config-path")?,
        path_of("config-include-path")?,
    );
    let directory = base.clone().unwrap_or_else(|| PathBuf::from(DEFAULT_DIRECTORY));
    let mut parts = Vec::new();
    match &file {
        Some(file) => {
            parts.push(read_part(file)?.ok_or_else(|| {
                Refusal::fetch(format!("pgBackRest's configuration {} does not exist", file.display()))
            })?)
        }
        None => {
            let part = match read_part(&directory.join("pgbackrest.conf"))? {
                None if base.is_none() => read_part(Path::new(OLD_FILE))?,
                part => part,
            };
            parts.extend(part);
        }
    }
    if file.is_none() || base.is_some() || include.is_some() {
        parts.extend(included(&include.unwrap_or_else(|| directory.join("conf.d")))?);
    }
    if parts.iter().map(String::len).sum::<usize>() as u64 > small_file::LONGEST {
        return Err(Refusal::fetch(format!(
            "pgBackRest's configuration has more than {} kB",
            small_file::LONGEST >> 10
        )));
    }
    Ok(parts)
}

fn included(directory: &Path) -> Result<Vec<String>, Refusal> {
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(cannot_be_read(directory, &error)),
    };
    let mut parts = Vec::new();
    for entry in entries {
        let path = entry.map_err(|error| cannot_be_read(directory, &error))?.path();
        if path.extension().is_none_or(|extension| extension != "conf") {
            continue;
        }
        if parts.len() >= MOST_FILES {
            return Err(Refusal::fetch(format!(
                "{} holds more than {MOST_FILES} files",
                directory.display()
            )));
        }
        parts.extend(read_part(&path)?);
    }
    Ok(parts)
}

fn read_part(path: &Path) -> Result<Option<String>, Refusal> {
    match small_file::read_text(path) {
        Ok(content) => Ok(Some(content)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(cannot_be_read(path, &error)),
    }
}

fn cannot_be_read(path: &Path, error: &io::Error) -> Refusal {
    Refusal::fetch(format!(
        "pgBackRest's configuration {} cannot be read ({error})",
        path.display()
    ))
}

/// The options in each section (common/ini.c). What is written twice with two values has no meaning that could be relied on.
pub(super) fn sections(parts: &[String]) -> Result<BTreeMap<String, Options>, Refusal> {
    let mut sections: BTreeMap<String, Options> = BTreeMap::new();
    for part in parts {
        let mut section = String::new();
        for line in part.lines().map(str::trim) {
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            if let Some(name) = line.strip_prefix('[').and_then(|line| line.strip_suffix(']')) {
                name.clone_into(&mut section);
                continue;
            }
            let Some((name, value)) = line.split_once('=') else {
                return Err(Refusal::fetch(
                    "pgBackRest's configuration has a line that is no setting",
                ));
            };
            let (name, value) = (name.trim(), value.trim());
            let options = sections.entry(section.clone()).or_default();
            let before = options.insert(name.to_owned(), value.to_owned());
            if before.is_some_and(|before| before != value) && is_repository_option(name) {
                return Err(Refusal::fetch(format!(
                    "pgBackRest's configuration sets {name} twice in section [{section}]"
                )));
            }
        }
    }
    Ok(sections)
}
