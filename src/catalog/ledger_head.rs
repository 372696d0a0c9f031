//! The head of the ledger, its newest event: what is told to witnesses, and what they have kept.

use pgrx::pg_sys;
use wal::LedgerHead;

use super::{Scope, Statement};
use crate::error::{Error, Result};

/// So many segments' heads are kept; older ones are bound by the hashes of newer ones.
const KEPT: i64 = 1000;

/// The newest event; `None` before the first.
pub fn newest() -> Result<Option<LedgerHead>> {
    static NEWEST: Statement =
        Statement::new("SELECT id, hash FROM @extschema@.ledger_events ORDER BY id DESC LIMIT 1");
    let scope = Scope::enter()?;
    let Some((event, hash)) = NEWEST.read(&[], |rows| {
        rows.first()
            .map(|row| Ok((row.need::<i64>(1, "an event's id")?, row.need::<Vec<u8>>(2, "a hash")?)))
            .transpose()
    })?
    else {
        return Ok(None);
    };
    Ok(Some(LedgerHead {
        database: database(),
        extension: scope.extension().oid.to_u32(),
        event,
        hash: hash.try_into().map_err(|_| Error::UnexpectedAnswer {
            what: "a hash of 32 bytes",
        })?,
    }))
}

/// Writes a head into WAL. Nobody waits until it is flushed, and it is no transaction.
pub fn emit(head: &LedgerHead) -> Result<()> {
    static EMIT: Statement = Statement::new("SELECT pg_logical_emit_message(false, $1, $2)");
    EMIT.write(&[LedgerHead::PREFIX.into(), head.to_message().into()], |_| Ok(()))
}

/// Keeps what a segment that was verified has to say of this database's ledger.
pub fn store(segment: &str, heads: &[LedgerHead]) -> Result<()> {
    static STORE: Statement = Statement::new(
        "INSERT INTO @extschema@.ledger_witnesses AS known (segment_name, event_id, hash) VALUES ($1, $2, $3)
         ON CONFLICT (segment_name) DO UPDATE SET event_id = EXCLUDED.event_id, hash = EXCLUDED.hash
         WHERE (known.event_id, known.hash) IS DISTINCT FROM (EXCLUDED.event_id, EXCLUDED.hash)",
    );
    static PRUNE: Statement = Statement::new(
        "DELETE FROM @extschema@.ledger_witnesses
          WHERE segment_name IN (SELECT segment_name FROM @extschema@.ledger_witnesses ORDER BY event_id DESC OFFSET $1)",
    );
    let scope = Scope::enter()?;
    let is_ours = |head: &&LedgerHead| head.database == database() && head.extension == scope.extension().oid.to_u32();
    let Some(head) = heads.iter().find(is_ours) else {
        return Ok(());
    };
    STORE.write(&[segment.into(), head.event.into(), head.hash.to_vec().into()], |_| {
        Ok(())
    })?;
    PRUNE.write(&[KEPT.into()], |_| Ok(()))
}

fn database() -> u32 {
    // SAFETY: a plain variable of this process.
    unsafe { pg_sys::MyDatabaseId }.to_u32()
}
