//! Moments and durations as the engine sees them: microseconds, given by the caller.
//!
//! Lacks on purpose: any way to read a clock. `Now` is made by the shell (or the simulator) and handed in.

use std::ops::{Add, Sub};

/// Microseconds: a moment on the node's own monotonic clock, or the distance between two such moments.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Micros(pub u64);

impl Micros {
    /// The far future: a deadline that never comes.
    pub const NEVER: Micros = Micros(u64::MAX);

    /// `ms` milliseconds.
    pub const fn from_millis(ms: u64) -> Micros {
        Micros(ms.saturating_mul(1_000))
    }

    /// `secs` seconds.
    pub const fn from_secs(secs: u64) -> Micros {
        Micros(secs.saturating_mul(1_000_000))
    }

    /// Whole milliseconds, rounded down.
    pub const fn millis(self) -> u64 {
        self.0 / 1_000
    }

    /// Whole seconds, rounded down.
    pub const fn secs(self) -> u64 {
        self.0 / 1_000_000
    }

    /// Seconds as a float, for slopes and reports.
    pub fn secs_f64(self) -> f64 {
        self.0 as f64 / 1e6
    }

    /// How long ago `earlier` was; zero if it is in the future.
    pub const fn since(self, earlier: Micros) -> Micros {
        Micros(self.0.saturating_sub(earlier.0))
    }
}

impl Add for Micros {
    type Output = Micros;
    fn add(self, rhs: Micros) -> Micros {
        Micros(self.0.saturating_add(rhs.0))
    }
}

impl Sub for Micros {
    type Output = Micros;
    fn sub(self, rhs: Micros) -> Micros {
        Micros(self.0.saturating_sub(rhs.0))
    }
}

/// The present, as given to the engine with each input.
///
/// Nothing that counts depends on `unix`: it is shown to users (TIME, MONITOR, LASTSAVE) and seeds
/// logical clocks.
#[derive(Clone, Copy, Debug, Default)]
pub struct Now {
    /// The node's own monotonic clock; never goes back within a process.
    pub monotonic: Micros,
    /// The wall clock, microseconds since 1970. May jump.
    pub unix: Micros,
}
