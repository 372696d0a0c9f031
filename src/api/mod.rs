//! The SQL functions, one module for each noun.

mod argument;
pub mod backup;
pub mod ledger;
pub mod recovery;
mod server;
