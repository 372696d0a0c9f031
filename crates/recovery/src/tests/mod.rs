//! Clusters made up of facts, and what is concluded about them.

mod compliance;
mod detected;
mod outline;
mod properties;
mod readiness;
pub(crate) mod scenario;
mod windows;
