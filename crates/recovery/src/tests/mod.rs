//! Clusters made up of facts, and what is concluded about them.

mod compliance;
mod outline;
mod properties;
mod readiness;
mod scenario;
mod windows;
