//! A store at work on a fake disk, and beside it a model that remembers every state that was ever committed.

#![allow(dead_code)] // each test file uses its own part
#![allow(clippy::print_stderr)] // a random test prints its seed

use std::collections::{BTreeMap, BTreeSet};

use engine::store::{Batch, Block, Options, Sink, SnapshotPolicy, SnapshotStep, Source, Store, StoreError};
use sim::disk::{Dice, FakeDisk};

/// Zeros ahead of the log, where there are any: a few commits fit in.
const ROOM_BYTES: usize = 300;

/// Key numbers run below this.
const KEYS: u64 = 24;

pub(crate) type States = BTreeMap<(u8, Vec<u8>), Vec<u8>>;

/// Collects what start-up reads.
#[derive(Default)]
pub(crate) struct Recovered(pub(crate) States);

impl Sink for Recovered {
    fn block(&mut self, block: Block) -> Result<(), StoreError> {
        let records = block.for_each(|record| {
            let key = (record.kind, record.key.to_vec());
            match record.payload {
                Some(payload) => self.0.insert(key, payload.to_vec()),
                None => self.0.remove(&key),
            };
        });
        records.map(|_| ())
    }
}

/// What the server would have in memory.
#[derive(Clone, Default)]
pub(crate) struct Memory {
    pub(crate) states: States,
    dirty: BTreeSet<(u8, Vec<u8>)>,
    changes: u64,
}

impl Source for Memory {
    fn next_chunk(&mut self, cursor: u64, max_bytes: usize, out: &mut Batch) -> Option<u64> {
        for number in cursor..KEYS {
            if out.bytes() >= max_bytes as u64 {
                return Some(number);
            }
            let (kind, name) = key(number);
            if let Some(payload) = self.states.get(&(kind, name.clone())) {
                out.put(kind, &name, payload);
            }
        }
        None
    }
}

fn key(number: u64) -> (u8, Vec<u8>) {
    ((number % 3) as u8, format!("name:{}", number / 3).into_bytes())
}

/// Small files, so that a short run has many of them.
pub(crate) fn options(seed: u64) -> Options {
    Options {
        seed,
        segment_bytes: 700,
        snapshot_chunk_bytes: 200,
        compress_snapshots: seed.is_multiple_of(2),
        policy: SnapshotPolicy { growth: 1.0, min_log_bytes: 1_500, max_segments: 8 },
    }
}

/// A store, the truth beside it, and the chances of a run.
pub(crate) struct Run {
    store: Option<Store<FakeDisk>>,
    pub(crate) disk: FakeDisk,
    pub(crate) options: Options,
    pub(crate) memory: Memory,
    /// Every state that a commit tried to write since the last one that is known to be safe, that one first.
    pub(crate) tried: Vec<States>,
    /// Which of them the last good commit wrote.
    committed: usize,
    pub(crate) dice: Dice,
    /// Whether some payloads are so large that a commit takes several blocks.
    pub(crate) has_big_payloads: bool,
}

impl Run {
    /// On every other seed's disk the log has room, as under `appendfsync always`.
    pub(crate) fn new(seed: u64, disk: &FakeDisk) -> Run {
        disk.make_room(if seed.is_multiple_of(2) { 0 } else { ROOM_BYTES });
        Run {
            store: None,
            disk: disk.clone(),
            options: options(seed),
            memory: Memory::default(),
            tried: vec![States::new()],
            committed: 0,
            dice: Dice::new(seed ^ 0xfeed),
            has_big_payloads: false,
        }
    }

    /// The same run, not opened, on another disk.
    pub(crate) fn fork(&self, disk: &FakeDisk) -> Run {
        Run {
            store: None,
            disk: disk.clone(),
            options: self.options.clone(),
            memory: self.memory.clone(),
            tried: self.tried.clone(),
            committed: self.committed,
            dice: self.dice.clone(),
            has_big_payloads: self.has_big_payloads,
        }
    }

    /// Opens the store and judges what it recovered. `is_kill`: no power was lost since the last run.
    pub(crate) fn open(&mut self, is_kill: bool, what: &str) {
        self.store = None;
        let mut recovered = Recovered::default();
        let opened = Store::open(self.disk.clone(), self.options.clone(), &mut recovered);
        let (store, opening) = opened.unwrap_or_else(|error| panic!("{what}: {error}"));
        let from = if is_kill { self.committed } else { 0 };
        let is_known = self.tried[from..].contains(&recovered.0);
        assert!(is_known, "{what}: lost what was synced, or made up: {:?}", recovered.0);
        if opening.not_writable.is_none() {
            self.tried.clear();
        }
        self.tried.push(recovered.0.clone());
        self.committed = self.tried.len() - 1;
        self.memory.dirty.clear();
        self.memory.states = recovered.0;
        self.store = Some(store);
    }

    /// One chance after the other, until the disk crashes or there have been `steps`.
    pub(crate) fn work(&mut self, steps: usize) {
        for _ in 0..steps {
            if self.disk.is_crashed() {
                return;
            }
            match self.dice.below(10) {
                0..4 => self.change(),
                4..7 => _ = self.commit(),
                7 => _ = self.sync(),
                _ => self.snapshot(),
            }
        }
    }

    pub(crate) fn store(&mut self) -> &mut Store<FakeDisk> {
        self.store.as_mut().expect("the run was opened")
    }

    pub(crate) fn take_store(&mut self) -> Store<FakeDisk> {
        self.store.take().expect("the run was opened")
    }

    pub(crate) fn change(&mut self) {
        for _ in 0..=self.dice.below(5) {
            let key = key(self.dice.number() % KEYS);
            self.memory.changes += 1;
            if self.dice.chance(20) {
                self.memory.states.remove(&key);
            } else {
                let is_big = self.has_big_payloads && self.dice.chance(30);
                let len = if is_big { 700_000 } else { self.dice.below(60) };
                let mut payload = self.memory.changes.to_string().into_bytes();
                payload.resize(payload.len() + len, b'.');
                self.memory.states.insert(key.clone(), payload);
            }
            self.memory.dirty.insert(key);
        }
    }

    pub(crate) fn commit(&mut self) -> bool {
        let mut batch = Batch::new();
        for (kind, name) in &self.memory.dirty {
            match self.memory.states.get(&(*kind, name.clone())) {
                Some(payload) => batch.put(*kind, name, payload),
                None => batch.remove(*kind, name),
            }
        }
        self.tried.push(self.memory.states.clone());
        let records = batch.len();
        if self.store().commit(&mut batch).is_err() {
            assert_eq!(batch.len(), records, "a refused commit leaves the batch as it was");
            return false;
        }
        assert!(batch.is_empty());
        self.memory.dirty.clear();
        self.committed = self.tried.len() - 1;
        true
    }

    pub(crate) fn sync(&mut self) -> bool {
        let is_synced = self.store().sync().is_ok();
        if is_synced {
            self.tried.drain(..self.committed);
            self.committed = 0;
        }
        is_synced
    }

    /// Begins a snapshot if one is due, and takes the next step of one that has begun.
    pub(crate) fn snapshot(&mut self) {
        if self.store().should_snapshot() {
            _ = self.store().begin_snapshot();
        }
        let store = self.store.as_mut().expect("the run was opened");
        let step = store.snapshot_step(&mut self.memory);
        if matches!(step, Ok(SnapshotStep::NeedsCommit)) && self.commit() {
            self.store().snapshot_covered();
        }
    }
}

/// `count` seeds, from the environment's STORE_SEED on, or from 1.
pub(crate) fn seeds(count: u64) -> impl Iterator<Item = u64> {
    let first = std::env::var("STORE_SEED").ok().and_then(|seed| seed.parse().ok());
    let first: u64 = first.unwrap_or(1);
    eprintln!("seeds {first}..{} (STORE_SEED sets the first)", first + count);
    first..first + count
}
