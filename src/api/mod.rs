//! The SQL functions, one module for each noun.

pub mod archive;
pub mod backup;
pub mod ledger;
mod server;
pub mod worker;
