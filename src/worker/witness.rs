//! The worker's care for witnesses of the ledger: its head goes where whoever rewrites the chain does not reach at the same time. It is
//! in shared memory for monitoring, in the server's log, and in WAL, which archive and standbys keep.

use std::time::{Duration, Instant};

use pgrx::prelude::*;
use wal::LedgerHead;

use crate::catalog::ledger_head;
use crate::error::{Result, tell};
use crate::shmem;
use crate::transaction::in_transaction;
use crate::verification::hexadecimal;

/// The head is logged so often, if it has changed.
const BETWEEN_LOGS: Duration = Duration::from_secs(60 * 60);

/// What the worker remembers of this from tick to tick.
#[derive(Default)]
pub struct WitnessDuty {
    logged: Option<(i64, Instant)>,
    emitted: Option<i64>,
}

impl WitnessDuty {
    /// Shows the head, and writes it into WAL where it has changed: whoever changed it has written WAL too, so a cluster at rest is
    /// not kept awake.
    ///
    /// # Errors
    /// Where the ledger cannot be read.
    pub fn tick(&mut self, is_standby: bool) -> Result<()> {
        let head = in_transaction(ledger_head::newest)?;
        shmem::update(|status| {
            status.ledger_head_id = head.map_or(0, |head| head.event);
            status.ledger_head_hash = head.map_or([0; 32], |head| head.hash);
        });
        let Some(head) = head else {
            return Ok(());
        };
        self.log(&head);
        if !is_standby && self.emitted != Some(head.event) {
            in_transaction(|| ledger_head::emit(&head))?;
            self.emitted = Some(head.event);
        }
        Ok(())
    }

    fn log(&mut self, head: &LedgerHead) {
        let is_due = self
            .logged
            .is_none_or(|(event, at)| event != head.event && at.elapsed() >= BETWEEN_LOGS);
        if is_due {
            let hash = hexadecimal(&head.hash);
            let event = head.event;
            let message = format!("pg_backstop: the newest event of the ledger is {event}, with the hash {hash}");
            tell(PgLogLevel::LOG, message, None, None);
            self.logged = Some((head.event, Instant::now()));
        }
    }
}
