//! Waiting in a session that is there already: a new one for every look would be part of what is measured.

use anyhow::Result;
use postgres::Client;
use tests::cluster::text_in;
use tests::wait::SOON;
use tests::{Look, wait_until};

/// No worker is running.
const NO_WORKER: &str = "SELECT NOT EXISTS (SELECT FROM pg_stat_activity WHERE backend_type = 'pg_backstop worker')";

/// Waits until a query gives `true`.
///
/// # Errors
/// When it does not within [`SOON`].
pub fn wait_for(session: &mut Client, condition: &str) -> Result<()> {
    wait_until(condition, SOON, || {
        let seen = text_in(session, condition)?;
        Ok(if seen == "t" {
            Look::Done(())
        } else {
            Look::NotYet(seen)
        })
    })
}

/// Stops the worker, and waits for its end.
///
/// # Errors
/// When it does not end.
pub fn stop_worker(session: &mut Client) -> Result<()> {
    session.batch_execute("SELECT stop_worker()")?;
    wait_for(session, NO_WORKER)
}
