//! Throw-away PostgreSQL clusters for the tests, the demo and the benchmarks.
