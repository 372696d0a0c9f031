//! The SQL functions, one module for each noun.

pub mod backup;
pub mod ledger;
mod server;
