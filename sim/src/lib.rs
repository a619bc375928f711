//! Many engines in a fake world, and the judge that knows the truth.

pub mod disk;
//! The simulator: counters and nodes in a world of virtual time, and the judges that know the truth.
//!
//! Everything here is reproduced by its seed. `table` judges the prediction alone, without nodes.

pub mod table;
pub mod workloads;
