//! What `pg_ctl` can pass on. It starts the server through a shell of its own, with the data directory, the log and the program
//! within double quotes, and not escaped (`start_postmaster()`, pg_ctl.c); the server leaves its arguments in postmaster.opts in the
//! same way, for `pg_ctl restart`. That file and postmaster.pid are read by line.

use archive::is_hidden;

use super::{Refusal, Site};

/// Why some paths cannot be used.
pub(super) const NOT_FOR_PG_CTL: &str = "pg_ctl hands it to a second shell within double quotes, where $, `, \" and \\ have a \
                                         meaning, and to files that are read line by line.";

/// Whether the shell that `pg_ctl` starts takes this path for what it is.
pub(super) fn passes(path: &str) -> bool {
    !path.contains(['$', '`', '"', '\\']) && !path.contains(is_hidden)
}

/// Refuses a server whose own places it would not.
pub(super) fn refuse_unsafe(site: &Site) -> Result<(), Refusal> {
    let config_file = site.config_file.as_ref().map(|file| ("configuration file", file));
    for (what, path) in config_file.into_iter().chain([("program directory", &site.bindir)]) {
        if !passes(path) {
            return Err(Refusal::NotForPgCtl {
                what,
                path: path.clone(),
            });
        }
    }
    Ok(())
}
