//! The node of a counter cluster, deterministic.
//!
//! Bytes of requests come in and bytes of replies go out; time, randomness, files and sockets are
//! given by the caller. Nothing here reads a clock, opens a file or starts a thread, so that a
//! simulator can run many nodes in one process and reproduce a run from a seed (`clippy.toml` beside
//! this crate guards that).

pub mod ddb;
pub mod prediction;
pub mod time;
pub mod value;
