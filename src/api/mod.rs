//! The SQL functions, one module for each noun.

pub mod archive;
mod argument;
pub mod backup;
mod call;
pub mod clones;
mod incremental;
pub mod ledger;
pub mod ledger_trigger;
pub mod objectives;
mod own_wal;
mod plan;
pub mod policy;
mod prepare;
pub mod readiness;
pub mod recovery;
pub mod rto;
pub mod storage;
mod trigger;
pub mod worker;
