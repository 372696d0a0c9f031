//! The background processes: a launcher that owns no database, and one worker attached to the database of the setting.
//!
//! The launcher exists so that a database that is absent, dropped or created later costs neither a crash loop nor a log
//! full of errors, and so that the worker, killed in whatever way, is started again by somebody.

mod archive;
mod launcher;
mod lives;
mod pace;
mod process;
mod restraint;
mod samples;
mod session;
mod tick;
mod verifier;
pub mod watch;
mod witness;

pub use process::{StartError, start_unattended};
pub use samples::SAMPLE_EVERY;
pub use verifier::verify;

/// Registers the launcher; called from `_PG_init` while the postmaster loads its libraries.
pub fn register() {
    process::register_launcher();
}
