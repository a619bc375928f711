//! The commands, a file per group. `all` goes over the whole table.

mod counters;
mod names;
mod pubsub;

use crate::command::CommandSpec;

/// Tables of all groups, in the order in which COMMAND lists them.
const TABLES: &[&[CommandSpec]] = &[counters::COMMANDS, names::COMMANDS, pubsub::COMMANDS];

/// Every command; its position is its number.
pub(crate) fn all() -> impl Iterator<Item = &'static CommandSpec> {
    TABLES.iter().copied().flatten()
}
