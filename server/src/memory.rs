//! How much memory is in use, for `maxmemory` and INFO. The allocator adds it up anew for each sample, which costs more than all
//! else that a server at rest does; so a sample is taken only where it may differ from the last.

use engine::time::Micros;
use std::time::Duration;
use tikv_jemalloc_ctl::{epoch, stats};

/// How often it is looked at whether a sample is due.
pub(crate) const LOOK_INTERVAL: Duration = Duration::from_millis(100);

/// The time between samples while no client asks for anything.
const INTERVAL_AT_REST: Micros = Micros::from_secs(1);

/// Bytes between two samples from which on the next look takes another, whoever may be at work.
const MOVES: u64 = 1 << 20;

/// Bytes that the allocator has given out at this moment.
pub(crate) fn allocated_bytes() -> u64 {
    // The figures are a snapshot that is renewed by advancing the epoch; neither call fails once jemalloc runs.
    epoch::advance().ok();
    stats::allocated::read().unwrap_or(0) as u64
}

/// Knows when a sample is due.
#[derive(Debug, Default)]
pub(crate) struct Sampler {
    /// Calls of commands at the last look.
    calls: u64,
    /// Bytes in use in the last sample.
    bytes: u64,
    /// Whether that was far from the one before.
    is_moving: bool,
    /// When the last sample was taken.
    at: Option<Micros>,
}

impl Sampler {
    /// Whether to take a sample: clients have asked for something since the last look, memory was moving, or it is long ago.
    pub(crate) fn is_due(&mut self, calls: u64, now: Micros) -> bool {
        let is_busy = std::mem::replace(&mut self.calls, calls) != calls;
        is_busy || self.is_moving || self.at.is_none_or(|at| now.since(at) >= INTERVAL_AT_REST)
    }

    /// A sample was taken.
    pub(crate) fn note(&mut self, bytes: u64, now: Micros) {
        self.is_moving = bytes.abs_diff(self.bytes) >= MOVES;
        (self.bytes, self.at) = (bytes, Some(now));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sample_is_due_while_clients_work_or_memory_moves_and_once_a_second_at_rest() {
        let mut sampler = Sampler::default();
        let at = Micros::from_millis;
        assert!(sampler.is_due(0, at(100)), "the first");
        sampler.note(100, at(100));
        assert!(!sampler.is_due(0, at(200)), "nothing has happened");
        assert!(sampler.is_due(1, at(300)), "a client has asked for something");
        sampler.note(100 + MOVES, at(300));
        assert!(sampler.is_due(1, at(400)), "memory has moved");
        sampler.note(100 + MOVES, at(400));
        assert!(!sampler.is_due(1, at(1_300)));
        assert!(sampler.is_due(1, at(1_400)), "a second at rest is over");
    }
}
