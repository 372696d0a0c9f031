//! Where archived WAL comes from, and whether its chain is whole.
#![forbid(unsafe_code)]
