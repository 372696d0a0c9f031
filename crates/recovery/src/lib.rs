//! Recoverability in numbers: pure sums over recorded facts.
#![forbid(unsafe_code)]
