//! The Redis protocol, both directions, without I/O.
