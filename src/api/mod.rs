//! The SQL functions, one module for each noun.

pub mod archive;
mod argument;
pub mod backup;
mod call;
mod incremental;
pub mod ledger;
mod plan;
pub mod policy;
pub mod readiness;
pub mod recovery;
pub mod storage;
mod trigger;
pub mod worker;
