//! Clusters made up of facts, and what is concluded about them.

mod compliance;
mod detected;
mod outline;
mod plan;
mod properties;
mod readiness;
pub(crate) mod scenario;
mod windows;
