//! Tablespaces in a recovery. Their places are absolute paths, in the backup as in the WAL, so a copy beside a running server must be
//! kept off the running server's own.

use super::shell::{below, word};
use super::{Account, Copied, Destination, Refusal, Site, Tablespace};

/// Where a tablespace goes: to its own place when the server is replaced, beside the copy when there are two.
pub(super) fn place(tablespace: &Tablespace, to: &Destination, site: &Site) -> String {
    own_place(tablespace, to, site).map_or_else(|| to.place_of_tablespace(tablespace.oid), str::to_owned)
}

fn own_place<'a>(tablespace: &Tablespace, to: &Destination, site: &'a Site) -> Option<&'a str> {
    site.tablespaces
        .iter()
        .find(|(oid, _)| *oid == tablespace.oid && !to.is_beside)
        .map(|(_, place)| place.as_str())
}

/// Commands that make directories for those without a place of their own. None of them may be there already: what is in it would
/// become part of the tablespace.
pub(super) fn rooms(tablespaces: &[Tablespace], to: &Destination, site: &Site) -> Result<Vec<String>, Refusal> {
    let mut commands = Vec::new();
    for tablespace in tablespaces {
        if own_place(tablespace, to, site).is_some() {
            continue;
        }
        if commands.is_empty() {
            commands.push(format!("mkdir -p -- {}", word(&to.tablespaces())?));
        }
        let room = word(&to.place_of_tablespace(tablespace.oid))?;
        commands.push(format!("mkdir -m 0700 -- {room}"));
    }
    Ok(commands)
}

/// Refuses a copy beside the server whose replay would make a tablespace of the running server, at the same place: the server
/// takes a directory that is there already (`create_tablespace_directories()`, tablespace.c).
pub(super) fn refuse_newer(account: &Account, site: &Site) -> Result<(), Refusal> {
    let (true, None, Some(last)) = (account.to.is_beside, &account.tool, account.chain.last()) else {
        return Ok(());
    };
    let (Copied::Plain { tablespaces: held, .. } | Copied::Tar { tablespaces: held, .. }) = &last.copied else {
        return Ok(());
    };
    let newer = site
        .tablespaces
        .iter()
        .find(|(oid, _)| held.iter().all(|tablespace| tablespace.oid != *oid));
    match newer {
        None => Ok(()),
        Some((oid, place)) => Err(Refusal::TablespaceNotInBackup {
            backup: last.backup,
            oid: *oid,
            place: place.clone(),
        }),
    }
}

/// Commands that stop where a tablespace of the running server is not in the restored copy, or is the very same one. For backups
/// that could not be looked at; none where that cannot happen.
pub(super) fn stop_unless_apart(account: &Account, site: &Site) -> Result<Vec<String>, Refusal> {
    let is_looked_at = account.tool.is_none()
        && account
            .chain
            .last()
            .is_some_and(|last| matches!(last.copied, Copied::Plain { .. } | Copied::Tar { .. }));
    if is_looked_at || !account.to.is_beside {
        return Ok(Vec::new());
    }
    site.tablespaces
        .iter()
        .map(|(oid, place)| {
            let link = below(&account.to.path, &format!("pg_tblspc/{oid}"))?;
            let map = below(&account.to.path, "tablespace_map")?;
            Ok(format!(
                "if [ ! -d {link} ] || [ {link} -ef {} ] || [ -e {map} ]; then echo 'pg_tblspc/{oid} must lead to a copy of its own, \
                 without a tablespace_map' >&2; false; fi",
                word(place)?
            ))
        })
        .collect()
}
