//! A `restore_command` for an archive, where the server has none of its own.

use archive::{Compression, Source};

use super::Refusal;
use super::shell::posix_word;

/// The server's own, else what the archive's layout and `archive_command` tell. `compressions` are those of the files that are
/// there.
///
/// # Errors
/// Where a path holds what no shell can be given.
pub fn restore_command(
    own: &str,
    source: Option<&Source>,
    archive_command: &str,
    compressions: &[Compression],
) -> Result<Option<String>, Refusal> {
    if !own.is_empty() {
        return Ok(Some(own.to_owned()));
    }
    let Some(source) = source else {
        return Ok(None);
    };
    if let Some(command) = counterpart(archive_command)
        && !matches!(source, Source::Directory(_) | Source::RestoreCommand(_))
    {
        return Ok(Some(command));
    }
    Ok(Some(match source {
        Source::RestoreCommand(command) => command.clone(),
        Source::Directory(path) => copying(&path.display().to_string(), compressions)?,
        Source::PgBackRest(path) => {
            let stanza = posix_word(&last_part(path))?;
            let repository = path
                .parent()
                .and_then(std::path::Path::parent)
                .map_or_else(|| "/".to_owned(), |path| path.display().to_string());
            let repository = posix_word(&repository)?;
            in_percent(&format!(
                "pgbackrest --stanza={stanza} --repo1-path={repository} archive-get"
            )) + " %f \"%p\""
        }
        Source::Barman(path) => {
            let server = path.parent().map_or_else(String::new, last_part);
            in_percent(&format!("barman get-wal {}", posix_word(&server)?)) + " %f > \"%p\""
        }
        Source::WalG(path) => {
            let prefix = posix_word(&path.display().to_string())?;
            in_percent(&format!("WALG_FILE_PREFIX={prefix} wal-g wal-fetch")) + " %f \"%p\""
        }
    }))
}

fn last_part(path: &std::path::Path) -> String {
    path.file_name()
        .map_or_else(String::new, |name| name.to_string_lossy().into_owned())
}

/// A percent sign of a path is no placeholder.
fn in_percent(command: &str) -> String {
    command.replace('%', "%%")
}

/// The other way of the archiver's own program, with the options that `archive_command` gives it.
fn counterpart(archive_command: &str) -> Option<String> {
    const WAYS: [(&str, &str); 3] = [
        ("archive-push", "archive-get %f"),
        ("wal-push", "wal-fetch %f"),
        ("barman-wal-archive", "barman-wal-restore"),
    ];
    let words: Vec<&str> = archive_command.split_whitespace().collect();
    // More than one command, or a redirection, is not simply turned round; nor is what would have to be kept as it is between two
    // words that may be one.
    if archive_command.contains(['|', '&', ';', '<', '>', '\n', '\t']) || archive_command.trim().contains("  ") {
        return None;
    }
    let (there, back) = WAYS.iter().find(|(there, _)| {
        words.iter().any(|word| word.rsplit('/').next() == Some(there))
            && words.last().is_some_and(|last| last.contains("%p"))
    })?;
    let turned: Vec<String> = words
        .iter()
        .map(|word| {
            if word.contains("%p") {
                let name = if *there == "barman-wal-archive" { "%f " } else { "" };
                format!("{name}\"%p\"")
            } else if word.rsplit('/').next() == Some(there) {
                let folder = word.len().saturating_sub(there.len());
                format!("{}{back}", word.get(..folder).unwrap_or_default())
            } else {
                (*word).to_owned()
            }
        })
        .collect();
    Some(turned.join(" "))
}

fn copying(directory: &str, compressions: &[Compression]) -> Result<String, Refusal> {
    let files = in_percent(&posix_word(&format!("{}/", directory.trim_end_matches('/')))?);
    let copy = format!("cp {files}%f \"%p\"");
    let mut branches = Vec::new();
    for compression in compressions {
        let program = match compression {
            Compression::None => continue,
            Compression::Gzip => "gzip -dc",
            Compression::Bzip2 => "bzip2 -dc",
            Compression::Xz => "xz -dc",
            Compression::Zstd => "zstd -dcq",
            Compression::Lz4 => "lz4 -dcq",
            Compression::Brotli => "brotli -dc",
            Compression::Lzma => "xz --format=lzma -dc",
        };
        let file = format!("{files}%f.{}", compression.suffix());
        branches.push(format!("elif [ -e {file} ]; then {program} {file} > \"%p\";"));
    }
    if branches.is_empty() {
        return Ok(copy);
    }
    // History files are never compressed by some archivers, and a file that is not there must be told from one that is damaged.
    Ok(format!(
        "if [ -e {files}%f ]; then {copy}; {} else exit 1; fi",
        branches.join(" ")
    ))
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;

    fn made(source: &Source, archive_command: &str, compressions: &[Compression]) -> String {
        restore_command("", Some(source), archive_command, compressions)
            .unwrap()
            .unwrap()
    }

    #[test]
    fn the_servers_own_command_comes_first() {
        let source = Source::Directory(PathBuf::from("/a"));
        let own = restore_command("fetch %f %p", Some(&source), "", &[]).unwrap();
        assert_eq!(own.as_deref(), Some("fetch %f %p"));
        assert_eq!(restore_command("", None, "cp %p /a/%f", &[]), Ok(None));
    }

    #[test]
    fn a_directory_is_copied_from_whatever_its_name() {
        let of = |path: &str| {
            made(
                &Source::Directory(PathBuf::from(path)),
                "cp %p /x/%f",
                &[Compression::None],
            )
        };
        assert_eq!(of("/mnt/archive"), "cp /mnt/archive/%f \"%p\"");
        assert_eq!(of("/mnt/my archive"), "cp '/mnt/my archive/'%f \"%p\"");
        assert_eq!(of("/mnt/100%"), "cp '/mnt/100%%/'%f \"%p\"");
    }

    #[test]
    fn a_compressed_directory_is_unpacked_from() {
        let command = made(
            &Source::Directory(PathBuf::from("/a")),
            "gzip -c %p > /a/%f.gz",
            &[Compression::None, Compression::Gzip, Compression::Zstd],
        );
        assert_eq!(
            command,
            "if [ -e /a/%f ]; then cp /a/%f \"%p\"; elif [ -e /a/%f.gz ]; then gzip -dc /a/%f.gz > \"%p\"; \
             elif [ -e /a/%f.zst ]; then zstd -dcq /a/%f.zst > \"%p\"; else exit 1; fi"
        );
    }

    #[test]
    fn the_archivers_own_program_fetches_with_its_own_options() {
        let repository = Source::PgBackRest(PathBuf::from("/repo/archive/main"));
        assert_eq!(
            made(
                &repository,
                "/usr/bin/pgbackrest --stanza=main --config=/etc/b.conf archive-push %p",
                &[]
            ),
            "/usr/bin/pgbackrest --stanza=main --config=/etc/b.conf archive-get %f \"%p\""
        );
        assert_eq!(
            made(&repository, "true", &[]),
            "pgbackrest --stanza=main --repo1-path=/repo archive-get %f \"%p\""
        );
        let walg = Source::WalG(PathBuf::from("/w"));
        assert_eq!(
            made(&walg, "envdir /etc/wal-g /opt/wal-g wal-push \"%p\"", &[]),
            "envdir /etc/wal-g /opt/wal-g wal-fetch %f \"%p\""
        );
        assert_eq!(made(&walg, "", &[]), "WALG_FILE_PREFIX=/w wal-g wal-fetch %f \"%p\"");
        let barman = Source::Barman(PathBuf::from("/var/lib/barman/main/wals"));
        assert_eq!(
            made(&barman, "barman-wal-archive -U barman backup main %p", &[]),
            "barman-wal-restore -U barman backup main %f \"%p\""
        );
        assert_eq!(
            made(&barman, "rsync %p barman@host:x", &[]),
            "barman get-wal main %f > \"%p\""
        );
    }

    #[test]
    fn what_is_more_than_one_command_is_not_turned_round() {
        let walg = Source::WalG(PathBuf::from("/w"));
        assert_eq!(
            made(&walg, "wal-g wal-push %p && echo %p", &[]),
            "WALG_FILE_PREFIX=/w wal-g wal-fetch %f \"%p\""
        );
        // Of two spaces within quotes one would be lost.
        assert_eq!(
            made(&walg, "wal-g --config '/etc/two  spaces' wal-push %p", &[]),
            "WALG_FILE_PREFIX=/w wal-g wal-fetch %f \"%p\""
        );
    }
}
