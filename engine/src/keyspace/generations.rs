//! What the keyspace knows of the node's own stream and of generations: the clock that gives them out, and the floor under them.

use super::{Keyspace, STRIPES};
use crate::counter::OwnStream;
use crate::ids::{Generation, Seq};
use crate::time::Now;
use std::sync::atomic::Ordering;

impl Keyspace {
    /// Who signs generations from now on.
    pub(crate) fn set_author(&self, author: u64) {
        self.author.store(author, Ordering::Relaxed);
    }

    /// A generation higher than every one seen (a hybrid logical clock: the wall clock is a hint, never trusted).
    pub(crate) fn next_generation(&self, now: Now) -> Generation {
        let wall = now.unix.millis() << 12;
        let next = |seen: u64| Some(wall.max(seen + 1));
        let seen = self.generation_time.fetch_update(Ordering::AcqRel, Ordering::Acquire, next);
        let seen = seen.expect("the update always has a value");
        Generation { time: wall.max(seen + 1), author: self.author.load(Ordering::Relaxed) }
    }

    /// Every member has applied our stream up to here.
    pub(crate) fn acknowledged(&self) -> Seq {
        self.own_stream.read().acknowledged
    }

    /// The same; it never goes back: what is forgotten is forgotten.
    pub(crate) fn note_acknowledged(&self, seq: Seq) {
        let acknowledged = &mut self.own_stream.write().acknowledged;
        *acknowledged = seq.max(*acknowledged);
    }

    /// The last publication of any counter.
    pub(crate) fn set_own_head(&self, seq: Seq) {
        self.own_stream.write().head = seq;
    }

    pub(super) fn own_stream(&self) -> OwnStream {
        *self.own_stream.read()
    }

    /// Whether peers may still hold later states of own shards than we do.
    pub(crate) fn is_recovering(&self) -> bool {
        self.is_recovering.load(Ordering::Relaxed)
    }

    /// From now on they may, or not.
    pub(crate) fn set_recovering(&self, is_recovering: bool) {
        self.is_recovering.store(is_recovering, Ordering::Relaxed);
    }

    /// The highest floor of all stripes, for the disk.
    pub(crate) fn floor(&self) -> Generation {
        *self.floor.read()
    }

    /// What was removed before the start was in no higher generation. A SET from now on is in a higher one.
    pub(crate) fn raise_floor(&self, floor: Generation) {
        self.note_generation(floor);
        (0..STRIPES).for_each(|number| {
            let mut stripe = self.lock(number);
            stripe.floor = stripe.floor.max(floor);
        });
        let highest = &mut *self.floor.write();
        *highest = floor.max(*highest);
    }

    /// Takes note of a generation from elsewhere.
    pub(crate) fn note_generation(&self, generation: Generation) {
        self.generation_time.fetch_max(generation.time, Ordering::AcqRel);
    }
}
