//! The clocks of a host: none of them shows the world's time.
//!
//! World time is microseconds since the start of the run. A host's monotonic clock starts anywhere and runs a little
//! fast or slow; its wall clock is wrong by hours and may jump.

use engine::time::{Micros, Now};

/// What the wall clocks of hosts without skew show at the start of a run.
pub const WALL_START: Micros = Micros::from_secs(1_700_000_000);

/// Both clocks of a host.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    /// What the monotonic clock shows at world time zero.
    offset: Micros,
    /// How much faster than the world it runs, in parts per million.
    drift_ppm: i64,
    /// Microseconds by which the wall clock is ahead of the world.
    skew: i64,
}

impl Clock {
    /// Clocks that are off by so much.
    pub fn new(offset: Micros, drift_ppm: i64, skew: i64) -> Clock {
        Clock { offset, drift_ppm, skew }
    }

    /// Sets the wall clock to be ahead of the world by so many microseconds.
    pub fn set_skew(&mut self, skew: i64) {
        self.skew = skew;
    }

    /// What both clocks show at a world time.
    pub fn now(&self, world: Micros) -> Now {
        let drifted = world.0 as i64 + (i128::from(world.0) * i128::from(self.drift_ppm) / 1_000_000) as i64;
        let monotonic = Micros(self.offset.0 + drifted as u64);
        let unix = Micros((WALL_START.0 as i64 + drifted + self.skew) as u64);
        Now { monotonic, unix }
    }

    /// The first world time at which the monotonic clock shows `local` or later.
    pub fn world_time(&self, local: Micros) -> Micros {
        if local == Micros::NEVER {
            return Micros::NEVER;
        }
        let since = i128::from(local.since(self.offset).0);
        let mut world = Micros((since * 1_000_000 / (1_000_000 + i128::from(self.drift_ppm))) as u64);
        while self.now(world).monotonic < local {
            world.0 += 1;
        }
        world
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deadline_on_a_drifting_clock_is_never_early() {
        for drift in [-200, -1, 0, 1, 200] {
            let clock = Clock::new(Micros(12_345), drift, 0);
            for local in [12_345, 12_346, 1_000_000, 60_000_001] {
                let world = clock.world_time(Micros(local));
                assert!(clock.now(world).monotonic >= Micros(local), "{drift} {local}");
                assert!(world.0 == 0 || clock.now(Micros(world.0 - 1)).monotonic < Micros(local));
            }
        }
    }
}
