//! The node of a counter cluster, deterministic.
//!
//! Bytes of requests come in and bytes of replies go out; time, randomness, files and sockets are
//! given by the caller. Nothing here reads a clock, opens a file or starts a thread, so that a
//! simulator can run many nodes in one process and reproduce a run from a seed (`clippy.toml` beside
//! this crate guards that).
//!
//! The way of a command: `Node::execute` -> `CommandSpec` (`command`, `commands`) -> `Keyspace` -> `Counter`.

pub mod clients;
pub mod cluster;
pub mod command;
mod command_table;
mod commands;
mod counter;
pub mod ddb;
pub mod durable;
mod error;
mod facts;
mod generation;
pub mod glob;
mod ids;
mod import;
mod index;
mod keyspace;
mod latency;
mod member_ids;
mod monitor;
mod node;
mod precision;
pub mod prediction;
mod pubsub;
mod saves;
mod session;
pub mod settings;
mod shard;
mod slab;
mod state;
mod stats;
pub mod store;
mod takeover;
mod text;
pub mod time;
mod trail;
pub mod value;

pub use counter::MAX_NAME_LEN;
pub use error::ClientError;
pub use ids::{Generation, MemberIndex, NodeId, Seq};
pub use keyspace::{ChangeError, Cursor, Keyspace};
pub use node::{Node, NodeConfig, ProcessInfo, Shell, TaskResult};
pub use precision::Precision;
pub use saves::{Loading, LogStatus, SaveStatus};
pub use session::Session;
pub use stats::{Rates, Stats};
