//! The SQL functions, one module for each noun.

pub mod archive;
mod argument;
pub mod backup;
mod call;
pub mod clones;
mod incremental;
pub mod ledger;
pub mod policy;
pub mod readiness;
pub mod recovery;
mod storage;
mod trigger;
pub mod worker;
