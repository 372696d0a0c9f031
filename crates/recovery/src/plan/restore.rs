//! The commands that make a data directory of a backup, so that the server in it writes into nothing but its own copy.

use archive::printable;

use super::shell::{below, each, word};
use super::tablespaces::{place, rooms};
use super::{Copied, Destination, Link, Refusal, Site, Tablespace};

/// Makes the data directory of the backups of a chain, full one first; of one backup where there is one.
pub(super) fn restore(chain: &[Link], to: &Destination, site: &Site) -> Result<(String, Option<String>), Refusal> {
    match chain {
        [] => Ok((no_place(), None)),
        [only] => match &only.copied {
            Copied::Nowhere => Ok((no_place(), None)),
            Copied::Unseen { path, why } => Ok((
                format!(
                    "Restore backup {} from {}. It could not be looked at ({}), so that it is taken for a plain copy without \
                     links to other places; where it has some, this stops, since the restored server would write there.",
                    only.backup,
                    printable(path),
                    printable(why)
                ),
                Some(unseen(path, &to.path)?),
            )),
            Copied::Plain { path, tablespaces, wal } => Ok((
                format!(
                    "Restore backup {} from {}{}. Nothing in the backup itself is changed.",
                    only.backup,
                    printable(path),
                    with_tablespaces(tablespaces)
                ),
                Some(plain(path, tablespaces, wal.as_deref(), to, site)?),
            )),
            Copied::Tar {
                path,
                base,
                wal,
                tablespaces,
            } => Ok((
                format!(
                    "Unpack backup {} from {}{}.",
                    only.backup,
                    printable(path),
                    with_tablespaces(tablespaces)
                ),
                Some(tar(path, base, wal.as_deref(), tablespaces, to, site)?),
            )),
        },
        [.., last] => combine(chain, last, to, site),
    }
}

fn no_place() -> String {
    "Restore the backup into the data directory. Where it is, is not on record: see the label and the times of this backup in \
     backup_history, and what took it."
        .to_owned()
}

fn with_tablespaces(tablespaces: &[Tablespace]) -> &'static str {
    if tablespaces.is_empty() {
        ""
    } else {
        ", and its tablespaces into directories of their own"
    }
}

fn copy(from: &str, to: &str) -> Result<String, Refusal> {
    Ok(format!("cp -a -- {} {}", below(from, ".")?, below(to, "")?))
}

fn plain(
    path: &str,
    tablespaces: &[Tablespace],
    wal: Option<&str>,
    to: &Destination,
    site: &Site,
) -> Result<String, Refusal> {
    let mut commands = rooms(tablespaces, to, site)?;
    commands.push(copy(path, &to.path)?);
    for tablespace in tablespaces {
        let place = place(tablespace, to, site);
        let link = below(&to.path, &format!("pg_tblspc/{}", tablespace.oid))?;
        commands.push(copy(&tablespace.from, &place)?);
        commands.push(format!("rm -rf -- {link}"));
        commands.push(format!("ln -s -- {} {link}", word(&place)?));
    }
    // It would have the server make the links as they were where the backup was taken.
    commands.push(format!("rm -f -- {}", below(&to.path, "tablespace_map")?));
    commands.extend(own_wal(wal, to)?);
    Ok(each(&commands))
}

/// A directory for WAL in the place of a link, which may lead into the pg_wal of a running server: that in the copy would recycle
/// what lies there.
fn own_wal(wal: Option<&str>, to: &Destination) -> Result<Vec<String>, Refusal> {
    let own = below(&to.path, "pg_wal")?;
    let mut commands = vec![
        format!("if [ -L {own} ]; then rm -f -- {own}; fi"),
        format!("mkdir -p -m 0700 -- {own}"),
    ];
    if let Some(wal) = wal {
        commands.push(copy(wal, &format!("{}/pg_wal", to.path))?);
    }
    Ok(commands)
}

fn unseen(path: &str, to: &str) -> Result<String, Refusal> {
    let directory = word(to)?;
    Ok(each(&[
        copy(path, to)?,
        format!(
            "if [ -n \"$(find {directory} -maxdepth 2 -type l)\" ] || [ -e {} ]; then echo 'the backup has links to other places' >&2; false; fi",
            below(to, "tablespace_map")?
        ),
    ]))
}

fn unpack(file: &str, to: &str) -> Result<String, Refusal> {
    let how = match file.rsplit('.').next() {
        Some("gz") => "-z ",
        Some("lz4") => "-I lz4 ",
        Some("zst") => "-I zstd ",
        Some("bz2") => "-j ",
        Some("xz") => "-J ",
        _ => "",
    };
    Ok(format!("tar -x -p {how}-f {} -C {}", word(file)?, word(to)?))
}

fn tar(
    path: &str,
    base: &str,
    wal: Option<&str>,
    tablespaces: &[Tablespace],
    to: &Destination,
    site: &Site,
) -> Result<String, Refusal> {
    let inside = |name: &str| format!("{}/{name}", path.trim_end_matches('/'));
    let mut commands = rooms(tablespaces, to, site)?;
    commands.push(unpack(&inside(base), &to.path)?);
    let mut map = Vec::new();
    for tablespace in tablespaces {
        let place = place(tablespace, to, site);
        commands.push(unpack(&tablespace.from, &place)?);
        map.push(word(&format!("{} {}", tablespace.oid, in_map(&place)))?);
    }
    // The server makes the links from it (read_tablespace_map, xlogrecovery.c), to where they led when the backup was taken.
    let in_base = below(&to.path, "tablespace_map")?;
    commands.push(if map.is_empty() {
        format!("rm -f -- {in_base}")
    } else {
        format!("printf '%s\\n' {} > {in_base}", map.join(" "))
    });
    if let Some(wal) = wal {
        let directory = format!("{}/pg_wal", to.path);
        commands.push(format!("mkdir -p -m 0700 -- {}", word(&directory)?));
        commands.push(unpack(&inside(wal), &directory)?);
    }
    Ok(each(&commands))
}

/// A path as tablespace_map has it (do_pg_backup_start, xlog.c).
fn in_map(path: &str) -> String {
    let mut escaped = String::with_capacity(path.len());
    for character in path.chars() {
        if matches!(character, '\n' | '\r' | '\\') {
            escaped.push('\\');
        }
        escaped.push(character);
    }
    escaped
}

fn combine(chain: &[Link], last: &Link, to: &Destination, site: &Site) -> Result<(String, Option<String>), Refusal> {
    if site.major < 17 {
        return Err(Refusal::NoCombining {
            backup: last.backup,
            major: site.major,
        });
    }
    let (mut rooms, mut commands) = (Vec::new(), Vec::new());
    let mut paths = Vec::new();
    let mut unpacked = Vec::new();
    let mut mappings = Vec::new();
    for link in chain {
        match &link.copied {
            Copied::Nowhere => {
                return Ok((
                    format!(
                        "Put the chain of backups {} together with pg_combinebackup, the full one first. Where backup {} is, is \
                         not on record.",
                        ids(chain),
                        link.backup
                    ),
                    None,
                ));
            }
            Copied::Plain { path, .. } | Copied::Unseen { path, .. } => paths.push(word(path)?),
            Copied::Tar { tablespaces, .. } if !tablespaces.is_empty() => {
                return Err(Refusal::TarChain { backup: link.backup });
            }
            Copied::Tar { path, base, wal, .. } => {
                let plain = format!("{}.backup-{}", to.path, link.backup);
                let unpacking = Destination {
                    path: plain.clone(),
                    is_beside: true,
                };
                // It is removed in the end, so it must not be there already.
                rooms.push(format!("mkdir -m 0700 -- {}", word(&plain)?));
                commands.push(tar(path, base, wal.as_deref(), &[], &unpacking, site)?);
                // It is not in the tar file.
                commands.push(format!(
                    "cp -a -- {} {}",
                    below(path, "backup_manifest")?,
                    below(&plain, "")?
                ));
                paths.push(word(&plain)?);
                unpacked.push(word(&plain)?);
            }
        }
    }
    if let Copied::Plain { tablespaces, .. } = &last.copied {
        for tablespace in tablespaces {
            let mapping = format!(
                "{}={}",
                in_mapping(&tablespace.from)?,
                in_mapping(&place(tablespace, to, site))?
            );
            mappings.push(format!(" -T {}", word(&mapping)?));
        }
    }
    commands.push(format!(
        "{} -o {}{} -- {}",
        below(&site.bindir, "pg_combinebackup")?,
        word(&to.path)?,
        mappings.concat(),
        paths.join(" ")
    ));
    if let Copied::Plain { wal, .. } = &last.copied {
        commands.extend(own_wal(wal.as_deref(), to)?);
    }
    if !unpacked.is_empty() {
        commands.push(format!("rm -rf -- {}", unpacked.join(" ")));
    }
    Ok((
        format!("Put the chain of backups {} together, the full one first.", ids(chain)),
        Some(each(&[rooms, commands].concat())),
    ))
}

/// An equals sign within a path must not end it, nor a backslash at its end take the one behind it for part of the path
/// (`add_tablespace_mapping()`, pg_combinebackup.c).
fn in_mapping(path: &str) -> Result<String, Refusal> {
    if path.ends_with('\\') {
        return Err(Refusal::NotQuotable);
    }
    Ok(path.replace('=', "\\="))
}

fn ids(chain: &[Link]) -> String {
    let ids: Vec<String> = chain.iter().map(|link| link.backup.to_string()).collect();
    ids.join(", ")
}
