//! The SQL functions, one module for each noun.

mod argument;
pub mod backup;
mod incremental;
pub mod ledger;
pub mod policy;
pub mod recovery;
mod server;
mod storage;
