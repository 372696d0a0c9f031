//! PostgreSQL WAL as it lies on disk: names, pages, records, and what a segment holds.
#![forbid(unsafe_code)]
