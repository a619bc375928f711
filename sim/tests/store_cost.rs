//! Bytes written per changed counter in steady state, snapshots included, by what the disk is given.

use engine::store::{Batch, Block, Options, Sink, SnapshotPolicy, SnapshotStep, Source, Store, StoreError};
use sim::disk::FakeDisk;

struct Nothing;

impl Sink for Nothing {
    fn block(&mut self, _block: Block) -> Result<(), StoreError> {
        Ok(())
    }
}

/// Counters with 16-byte names and payloads of 40 bytes that do not compress well.
struct Counters {
    count: u64,
    changes: u64,
}

impl Counters {
    fn put(&self, number: u64, out: &mut Batch) {
        let mut payload = [0; 40];
        for (word, bytes) in payload.chunks_mut(8).enumerate() {
            let noise =
                (number + self.changes).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(word as u32 * 7);
            bytes.copy_from_slice(&noise.to_le_bytes());
        }
        out.put(1, format!("page:{number:011}").as_bytes(), &payload);
    }
}

impl Source for Counters {
    fn next_chunk(&mut self, cursor: u64, max_bytes: usize, out: &mut Batch) -> Option<u64> {
        for number in cursor..self.count {
            if out.bytes() >= max_bytes as u64 {
                return Some(number);
            }
            self.put(number, out);
        }
        None
    }
}

/// Plays `seconds` with `rate` changes in each and one commit, and returns bytes written per record byte.
fn cost(count: u64, rate: u64, seconds: u64) -> f64 {
    let mut options = Options::new(1);
    options.snapshot_chunk_bytes = 64 << 10;
    options.policy = SnapshotPolicy { min_log_bytes: 256 << 10, ..SnapshotPolicy::default() };
    let disk = FakeDisk::new(1);
    let (mut store, _) = Store::open(disk, options, &mut Nothing).expect("the directory is new");
    let mut counters = Counters { count, changes: 0 };
    let (mut warm, mut record_bytes) = (None, 0);
    for second in 0..seconds {
        let mut batch = Batch::new();
        for _ in 0..rate {
            counters.changes += 1;
            counters.put(counters.changes % count, &mut batch);
        }
        store.commit(&mut batch).expect("the disk has no faults");
        store.sync().expect("the disk has no faults");
        if store.should_snapshot() {
            store.begin_snapshot().expect("the disk has no faults");
        }
        for step in 0.. {
            if store.snapshot_step(&mut counters).expect("the disk has no faults")
                == SnapshotStep::NeedsCommit
            {
                store.snapshot_covered();
            }
            if step >= 4 && !store.is_snapshot_behind() {
                break;
            }
        }
        let counts = store.stats().counts;
        let written = counts.log_bytes + counts.snapshot_bytes;
        // Steady state: from the end of the second snapshot on.
        if counts.snapshots >= 2 {
            let (from, _) = *warm.get_or_insert((written, second));
            record_bytes += if written > from { rate * 59 } else { 0 };
        }
    }
    let counts = store.stats().counts;
    assert!(counts.snapshots >= 4, "too few snapshots to judge by: {counts:?}");
    let (from, _) = warm.expect("there were snapshots");
    (counts.log_bytes + counts.snapshot_bytes - from) as f64 / record_bytes as f64
}

#[test]
fn a_changed_counter_costs_at_most_two_and_a_half_records() {
    for (count, rate, seconds) in [(20_000, 1_000, 150), (20_000, 10_000, 20), (100_000, 100_000, 14)] {
        let cost = cost(count, rate, seconds);
        assert!((1.0..=2.5).contains(&cost), "{count} counters, {rate} changes a second: {cost:.2}");
    }
}
