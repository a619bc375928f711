//! Many engines in a fake world, and the judge that knows the truth.

pub mod disk;
