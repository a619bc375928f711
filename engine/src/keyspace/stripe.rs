//! One of the keyspace's many maps: what is behind one lock.

use crate::counter::{Counter, Marks, Name};
use crate::ids::Generation;
use crate::index::Index;
use crate::slab::Slab;
use crate::time::Micros;
use std::collections::VecDeque;

/// log2 of the number of stripes. With ten million counters a stripe has ten thousand: its table's growth
/// takes tens of microseconds.
pub(super) const STRIPE_BITS: u32 = 10;
pub(crate) const STRIPES: usize = 1 << STRIPE_BITS;

/// How long a counter must have read zero before it disappears.
pub(super) const ZERO_LINGER: Micros = Micros::from_millis(1_000);

/// Keeps neighbouring locks off each other's cache lines (pairs of lines are fetched together).
#[derive(Debug)]
#[repr(align(128))]
pub(super) struct Padded<T>(pub(super) T);

#[derive(Debug)]
pub(super) struct Stripe {
    pub(super) table: Index,
    pub(super) counters: Slab<Counter>,
    pub(super) lists: Lists,
    /// No counter with a SET that was removed here was in a higher generation: see `Keyspace::collect_zeros`.
    pub(super) floor: Generation,
}

/// What somebody must look at later, by index.
#[derive(Debug, Default)]
pub(super) struct Lists {
    /// Counters that came to read zero, each with the moment to look at it again; in order of time.
    pub(super) zeros: VecDeque<(Micros, u32)>,
    /// Counters whose own shard has changed since the cluster looked.
    pub(super) dirty: Vec<u32>,
    /// Counters that have changed since they were logged.
    pub(super) unlogged: Vec<u32>,
    /// Names of counters that are gone since the log was written.
    pub(super) removed: Vec<Name>,
}

/// Position of one name: its stripe and the hash within it.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Place {
    pub(super) stripe: usize,
    pub(super) hash: u32,
}

impl Stripe {
    pub(super) fn new() -> Stripe {
        Stripe {
            table: Index::new(),
            counters: Slab::new(),
            lists: Lists::default(),
            floor: Generation::ZERO,
        }
    }

    #[inline]
    pub(super) fn find(&self, hash: u32, name: &[u8]) -> Option<u32> {
        // Two names of one stripe hardly ever share the hash, so the first entry that has it is it.
        match self.table.likely(hash) {
            Some(index) if self.is_named(index, name) => Some(index),
            _ => self.find_elsewhere(hash, name),
        }
    }

    #[cold]
    fn find_elsewhere(&self, hash: u32, name: &[u8]) -> Option<u32> {
        self.table.find(hash, |index| self.is_named(index, name))
    }

    #[inline]
    fn is_named(&self, index: u32, name: &[u8]) -> bool {
        self.counters.get(index).is_some_and(|counter| counter.is_named(name))
    }

    pub(super) fn insert(&mut self, hash: u32, counter: Counter) -> u32 {
        let index = self.counters.insert(counter);
        self.table.insert(hash, index);
        index
    }

    pub(super) fn remove(&mut self, hash: u32, index: u32) -> Option<Counter> {
        if !self.table.remove(hash, index) {
            return None;
        }
        self.counters.remove(index)
    }
}

impl Lists {
    /// Notes a counter that reads zero now, to be looked at once it has lingered.
    pub(super) fn note_zero(&mut self, counter: &mut Counter, index: u32, now: Micros) {
        if !counter.marks.has(Marks::ZERO_LISTED) && (counter.is_disposable() || counter.is_balanced()) {
            counter.marks.set(Marks::ZERO_LISTED, true);
            self.zeros.push_back((now + ZERO_LINGER, index));
        }
    }
}
