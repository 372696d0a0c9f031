//! Clusters made up of facts, and what is concluded about them.

mod detected;
mod properties;
mod readiness;
mod scenario;
mod windows;
