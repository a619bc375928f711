//! The simulator: counters and nodes in a world of virtual time, and the judges that know the truth.
//!
//! Everything here is reproduced by its seed. `plan` says what a seed does; `run` does it: `world` gives time, `net`
//! carries frames, `clients` count, `faults` break things, and the `oracle` judges. `process` is the door behind which the
//! engine (`real`) runs, after a crash from an `image` of its disk; `swarm` runs many seeds. `table` judges the
//! prediction alone, without nodes; `disk` is a disk that loses what it may.

pub mod clients;
pub mod clock;
pub mod dice;
pub mod disk;
pub mod faults;
mod image;
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
