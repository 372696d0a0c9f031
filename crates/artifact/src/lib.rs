//! Backups on disk: what they weigh and whether they are whole.
#![forbid(unsafe_code)]
