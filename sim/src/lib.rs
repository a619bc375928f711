//! The simulator: counters and nodes in a world of virtual time, and the judges that know the truth.
//!
//! Everything here is reproduced by its seed. `table` judges the prediction alone, without nodes; `disk` is a disk that
//! loses what it may.

pub mod disk;
pub mod table;
pub mod workloads;
