//! When a snapshot pays: the one formula behind the bytes written per changed counter.
//!
//! Let R be the bytes of a record, D those of a snapshot of everything, and let a snapshot begin when the log since
//! the last one has reached L = max(`growth` x D, `min_log_bytes`). Between two snapshots L / R changed counters are
//! logged, and one snapshot of D is written: per changed counter
//!
//! ```text
//! R + D / (L / R) = R x (1 + D / L) <= R x (1 + 1 / growth)
//! ```
//!
//! With `growth` = 1 that is at most 2 R, whatever the rate of change: the rate sets only how often a snapshot is
//! made, and the room up to 2.5 R pays for block headers (32 bytes per commit, not per record) and for states that
//! change while a snapshot is walked. The disk holds at most D (old) + L + D (new) + what is logged during the walk;
//! recovery reads at most D + L + that. While the number of counters grows the new snapshot may be as
//! large as D + L; then a *new* counter costs up to 3 R, once.
//! A larger `growth` writes less, takes more room, and starts slower.

/// When to make a snapshot.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SnapshotPolicy {
    /// Log bytes since the last snapshot, as a share of that snapshot's bytes; above zero.
    pub growth: f64,
    /// No snapshot before the log has this many bytes: reading them back takes a fraction of a second.
    pub min_log_bytes: u64,
    /// A snapshot is also due at this many segments: each start adds one, however little it logs.
    pub max_segments: usize,
}

impl Default for SnapshotPolicy {
    fn default() -> SnapshotPolicy {
        SnapshotPolicy { growth: 1.0, min_log_bytes: 64 << 20, max_segments: 1_000 }
    }
}

impl SnapshotPolicy {
    /// Whether a snapshot should begin, with the log since the last one at `log_bytes` in `segments` files, and
    /// the last one at `snapshot_bytes` (0 if there is none).
    pub fn is_due(&self, log_bytes: u64, segments: usize, snapshot_bytes: u64) -> bool {
        let threshold = (snapshot_bytes as f64 * self.growth).max(self.min_log_bytes as f64);
        log_bytes as f64 >= threshold || segments >= self.max_segments
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Plays the formula: `rate` of `counters` change per second, one commit a second, a walk takes 10 s.
    fn bytes_per_change(counters: u64, rate: u64, record_bytes: u64, policy: SnapshotPolicy) -> f64 {
        let snapshot_bytes = counters * record_bytes;
        let (mut log, mut last, mut written, mut changes) = (0, 0, 0, 0);
        for _ in 0..400_000_000 / rate {
            if policy.is_due(log, 1, last) {
                written += snapshot_bytes;
                last = snapshot_bytes;
                log = 0;
            }
            let bytes = 32 + rate.min(counters) * record_bytes;
            log += bytes;
            written += bytes;
            changes += rate.min(counters);
        }
        written as f64 / (changes * record_bytes) as f64
    }

    #[test]
    fn a_changed_counter_costs_at_most_two_and_a_half_records() {
        for counters in [1_000, 100_000, 1_000_000, 10_000_000] {
            for rate in [1_000, 10_000, 100_000] {
                let cost = bytes_per_change(counters, rate, 60, SnapshotPolicy::default());
                assert!(cost <= 2.5, "{counters} counters, {rate}/s: {cost} records");
            }
        }
    }

    #[test]
    fn many_small_segments_make_a_snapshot_due() {
        let policy = SnapshotPolicy::default();
        assert!(!policy.is_due(1_000, 999, 0));
        assert!(policy.is_due(1_000, 1_000, 0));
    }
}
