//! Many nodes in a fake world, and the judge that knows the truth.
//!
//! `plan` says what a seed does; `run` does it: `world` gives time, `net` carries frames, `clients` count, `faults`
//! break things, and the `oracle` judges. `process` is the door behind which the engine (`real`) runs; `swarm` runs many
//! seeds. `disk` is a world of its own: a disk that does its worst. `table` judges the prediction alone, without nodes.

pub mod clients;
pub mod clock;
pub mod dice;
pub mod disk;
pub mod faults;
pub mod net;
pub mod oracle;
pub mod plan;
pub mod process;
pub mod real;
pub mod run;
pub mod swarm;
pub mod table;
pub mod trace;
pub mod workloads;
pub mod world;

#[cfg(test)]
mod toy;
