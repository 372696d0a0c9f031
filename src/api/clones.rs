//! Saying of a restored copy that it is the cluster from now on.

use super::argument;
use super::call;
use crate::catalog::{Scope, Text, ledger, lives};
use crate::error::{Error, Result, sayably};
use crate::server::Server;
use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::*;

/// Makes this server the cluster itself where it calls itself a clone, and returns the id of its life in server_lives. The reason
/// and who gave it become an event of the ledger; v_worker_status shows it from the worker's next tick on.
#[pg_extern(volatile, parallel_unsafe)]
fn adopt_cluster(reason: default!(Option<Text>, "NULL")) -> Result<i64, ErrorReport> {
    Ok(sayably(|| adopt(reason.as_ref()))?)
}

fn adopt(reason: Option<&Text>) -> Result<i64> {
    call::require_primary("adopt_cluster")?;
    argument::no_longer_than(argument::LONGEST_REASON, "reason", reason)?;
    let server = Server::observe()?;
    let _scope = Scope::enter()?;
    let Some((life, image)) = lives::adopt(server.system_identifier(), reason)? else {
        return Err(Error::WrongState {
            message: "this server is no clone".to_owned(),
            detail:
                "It has recorded no start of its own from a restored backup or a copied directory in another place, or \
                     that was adopted before."
                    .to_owned(),
            hint: "See cluster_role in v_worker_status, and server_lives for the lives that are known.".to_owned(),
        });
    };
    ledger::acknowledge("server_lives", image)?;
    Ok(life)
}
