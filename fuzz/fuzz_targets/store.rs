//! A store whose files were damaged in any way: it is refused, or what is read was written, each key in a state that it once
//! had; and what can be repaired can be opened then. No damage makes the reader panic.
//!
//! The first byte says how many commits are written, the second whether a snapshot is; then each six bytes are one fault:
//! which file, where, what.
#![no_main]

mod memory;

use engine::store::{AnyRecord, Batch, Block, Options, Sink, SnapshotStep, Source, Store, StoreError, check, repair};
use libfuzzer_sys::fuzz_target;
use memory::Memory;
use std::collections::BTreeMap;

const KIND: u8 = 1;
const KEYS: u8 = 5;

#[derive(Default)]
struct Read(BTreeMap<Vec<u8>, Option<Vec<u8>>>);

impl Sink for Read {
    fn block(&mut self, block: Block) -> Result<(), StoreError> {
        block.for_each(|record| {
            self.0.insert(record.key.to_vec(), record.payload.map(<[u8]>::to_vec));
        })?;
        Ok(())
    }
}

/// All keys in their last state, in one step.
struct All(u8);

impl Source for All {
    fn next_chunk(&mut self, _: u64, _: usize, out: &mut Batch) -> Option<u64> {
        (0..KEYS).for_each(|key| out.put(KIND, &[key], &state(key, self.0)));
        None
    }
}

/// What a key is after so many commits.
fn state(key: u8, commit: u8) -> Vec<u8> {
    vec![commit.wrapping_mul(31) ^ key; usize::from(commit % 7) * 9 + 1]
}

fn options() -> Options {
    Options { segment_bytes: 300, snapshot_chunk_bytes: 64, ..Options::new(77) }
}

fn snapshot(store: &mut Store<Memory>, commit: u8) {
    store.begin_snapshot().expect("none is under way");
    loop {
        match store.snapshot_step(&mut All(commit)).expect("memory takes everything") {
            SnapshotStep::Walking | SnapshotStep::Removing => {}
            SnapshotStep::NeedsCommit => {
                // Nothing has changed since the chunks were made, and all of it is committed.
                store.snapshot_covered();
            }
            SnapshotStep::Idle | SnapshotStep::Finished { .. } => return,
        }
    }
}

fn written(commits: u8, has_snapshot: bool) -> Memory {
    let (mut store, _) =
        Store::open(Memory::default(), options(), &mut Read::default()).expect("an empty directory");
    for commit in 0..commits {
        let mut batch = Batch::new();
        (0..KEYS).for_each(|key| batch.put(KIND, &[key], &state(key, commit)));
        store.commit(&mut batch).expect("memory takes everything");
        store.sync().expect("memory takes everything");
        if has_snapshot && commit == commits / 2 {
            snapshot(&mut store, commit);
        }
    }
    store.close().expect("memory takes everything")
}

fuzz_target!(|data: &[u8]| {
    let [commits, choice, faults @ ..] = data else { return };
    let commits = commits % 12 + 1;
    let mut disk = written(commits, choice % 2 == 1);
    for fault in faults.chunks_exact(6).take(16) {
        let [file, high, low, what, with, len] = fault else { unreachable!("chunks of six") };
        let count = disk.0.len().max(1);
        let Some(bytes) = disk.0.values_mut().nth(usize::from(*file) % count) else { continue };
        let at = usize::from(u16::from_be_bytes([*high, *low])) % (bytes.len() + 1);
        match what % 4 {
            0 => bytes.truncate(at),
            1 => bytes.iter_mut().skip(at).take(1).for_each(|byte| *byte ^= with),
            2 => bytes.extend(std::iter::repeat_n(*with, usize::from(*len))),
            _ => drop(bytes.drain(at..(at + usize::from(*len)).min(bytes.len()))),
        }
    }
    let _ = check(&mut disk.clone(), &mut AnyRecord);
    for is_repaired in [false, true] {
        if is_repaired && repair(&mut disk, 5, &mut AnyRecord).is_err() {
            return;
        }
        let mut read = Read::default();
        let opened = Store::open(disk.clone(), options(), &mut read);
        assert!(!is_repaired || opened.is_ok(), "what was repaired can be opened: {:?}", opened.err());
        if opened.is_ok() {
            for (key, found) in &read.0 {
                let found = found.as_ref().expect("nothing was removed");
                assert!(
                    (0..commits).any(|commit| state(key[0], commit) == *found),
                    "a state that was never written"
                );
            }
        }
    }
});
