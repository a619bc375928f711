//! The commands, a file per group. `all` goes over the whole table.

mod client;
mod client_list;
pub(crate) mod cluster;
mod command;
mod config;
mod connection;
mod counters;
mod debug;
#[cfg(test)]
mod harness;
mod info;
mod latency;
mod names;
mod pubsub;
#[cfg(test)]
mod reference;
mod server;

use crate::command::CommandSpec;

/// Tables of all groups.
const TABLES: &[&[CommandSpec]] = &[
    counters::COMMANDS,
    names::COMMANDS,
    pubsub::COMMANDS,
    connection::COMMANDS,
    client::COMMANDS,
    command::COMMANDS,
    cluster::COMMANDS,
    server::COMMANDS,
    config::COMMANDS,
    info::COMMANDS,
    latency::COMMANDS,
    debug::COMMANDS,
];

/// Every command; its position is its number.
pub(crate) fn all() -> impl Iterator<Item = &'static CommandSpec> {
    TABLES.iter().copied().flatten()
}
