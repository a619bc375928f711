//! What goes over many counters: walks, the counters that have changed, zeros that may go, forgetting all.

use super::{Cause, Cursor, Handle, Keyspace, Lists, STRIPES, Stripe};
use crate::counter::{Counter, Marks};
use crate::ids::Generation;
use crate::index::Index;
use crate::slab::Slab;
use crate::time::Micros;
use crate::value::Value;
use smallvec::SmallVec;
use std::sync::atomic::Ordering;

/// Vacant places that a walk passes for each counter that it may meet: more than there can be beside the only one of a stripe.
const VACANT_PER_COUNTER: u64 = 64;

/// Vacant places that any walk passes.
const MIN_VACANT: u64 = 4_096;

/// Which of a stripe's lists of changed counters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Changed {
    /// Own shard, for the cluster.
    Dirty,
    /// Anything, for the log.
    Unlogged,
}

/// Longest empty list of changed counters that keeps its memory.
pub(super) const MAX_IDLE_LIST: usize = 256;

/// What becomes of a counter that reads zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    /// Some member that lives does not know yet that it is zero.
    Kept,
    /// All that live know; one that is down does not. Users do not see it any more.
    Hidden,
    /// All members know. Users do not see it any more, and nobody can bring it back: it goes.
    Removed,
}

impl Keyspace {
    /// Looks at counters that have read zero for `ZERO_LINGER`, that rest and that nobody holds on to, and does with each what
    /// `judge` says. Those that stay are looked at again after as long.
    ///
    /// A counter that is removed may be counted again here while another member still has the SET that was in force. That SET
    /// may have observed a shard of ours that is no more; so the new shard begins in a generation that is as high, the stripe's
    /// `floor`, in which nobody can have observed anything of it.
    pub(crate) fn collect_zeros(&self, now: Micros, mut judge: impl FnMut(Handle, &Counter) -> Fate) {
        let mut highest = self.floor();
        for number in self.zeros.take_stripes() {
            let mut stripe = self.lock(number);
            let stripe = &mut *stripe;
            while let Some(&(due, index)) = stripe.lists.zeros.front()
                && due <= now
            {
                stripe.lists.zeros.pop_front();
                let Some(counter) = stripe.counters.get_mut(index) else { continue };
                counter.marks.set(Marks::ZERO_LISTED, false);
                let is_disposable = counter.is_disposable();
                if !is_disposable && !counter.is_balanced() {
                    continue;
                }
                let fate = judge(Handle { stripe: number as u16, index }, counter);
                if fate == Fate::Removed && is_disposable {
                    stripe.floor = stripe.floor.max(counter.generation()).max(counter.stated().generation);
                    highest = highest.max(stripe.floor);
                    let place = self.place(counter.name());
                    self.remove_at(stripe, place, index);
                    continue;
                }
                if fate != Fate::Kept && !counter.marks.has(Marks::HIDDEN) {
                    counter.marks.set(Marks::HIDDEN, true);
                    self.len.fetch_sub(1, Ordering::Relaxed);
                }
                stripe.lists.note_zero(counter, index, now);
            }
            if !stripe.lists.zeros.is_empty() {
                self.zeros.note(number);
            }
        }
        *self.floor.write() = highest;
    }

    /// Deletes a counter whose parts cancel out, as a client would, if it is still one. In the lowest generation above all that is
    /// known of it: no client has asked for that, so it must not win over a SET that is not known here.
    pub(crate) fn delete_at(&self, handle: Handle, now: Micros) {
        self.update_at(handle, Cause::Command, now, |counter| {
            if counter.is_balanced() {
                let time = counter.highest_generation().max(self.floor()).time.saturating_add(1);
                let generation = Generation { time, author: self.author.load(Ordering::Relaxed) };
                self.note_generation(generation);
                counter.set(Value::ZERO, generation, true, true, self.own_stream(), now, &self.horizons);
            }
        });
    }

    /// Forgets every counter.
    pub fn clear(&self) {
        for number in 0..STRIPES {
            let mut stripe = self.lock(number);
            // Counted stripe by stripe: others go on making and removing counters meanwhile.
            let visible = (0..stripe.counters.bound())
                .filter_map(|index| stripe.counters.get(index))
                .filter(|counter| !counter.marks.has(Marks::HIDDEN))
                .count();
            self.len.fetch_sub(visible, Ordering::Relaxed);
            stripe.table = Index::new();
            let gone = std::mem::replace(&mut stripe.counters, Slab::new());
            let mut removed = std::mem::take(&mut stripe.lists.removed);
            if self.unlogged.is_on() && gone.len() > 0 {
                removed.extend(gone.into_entries().map(Counter::into_name));
                self.unlogged.note(number);
            }
            stripe.lists = Lists { removed, ..Lists::default() };
        }
    }

    /// Walks over the slabs from `cursor` on until `count` counters are met, calls `see` for each of those that users see, and
    /// returns where to go on (zero: that was the end). Locks one stripe at a time. Where many counters have gone it may end
    /// before: what one call costs depends on `count`, not on what there was once.
    pub(crate) fn walk(&self, cursor: Cursor, count: u64, mut see: impl FnMut(&Counter)) -> Cursor {
        self.walk_all(cursor, count, |_, counter| {
            if !counter.marks.has(Marks::HIDDEN) {
                see(counter);
            }
        })
    }

    /// The same with counters that users do not see, and with their places.
    pub(crate) fn walk_all(
        &self,
        cursor: Cursor,
        count: u64,
        mut see: impl FnMut(Handle, &mut Counter),
    ) -> Cursor {
        let (mut number, mut index) = ((cursor >> 32) as usize, cursor as u32);
        let mut left = count.max(1);
        let mut vacant_left = left.saturating_mul(VACANT_PER_COUNTER).max(MIN_VACANT);
        while number < STRIPES && vacant_left > 0 {
            let mut stripe = self.lock(number);
            let Stripe { counters, lists: Lists { unlogged, .. }, .. } = &mut *stripe;
            let bound = counters.bound();
            while index < bound && left > 0 && vacant_left > 0 {
                if let Some(counter) = counters.get_mut(index) {
                    let handle = Handle { stripe: number as u16, index };
                    self.noting_publication(handle, counter, unlogged, |counter| see(handle, counter));
                    left -= 1;
                } else {
                    vacant_left -= 1;
                }
                index += 1;
            }
            if index < bound {
                return (number as u64) << 32 | u64::from(index);
            }
            (number, index) = (number + 1, 0);
            if left == 0 {
                break;
            }
        }
        if number < STRIPES { (number as u64) << 32 } else { 0 }
    }

    /// Empties a stripe's list of changed counters into `see`; each is off the list when it is seen. Stops at `limit`; true if
    /// some are left.
    pub(crate) fn drain(
        &self,
        which: Changed,
        number: usize,
        limit: usize,
        see: impl FnMut(Handle, &mut Counter),
    ) -> bool {
        self.drain_locked(&mut self.lock(number), which, number, limit, see)
    }

    pub(super) fn drain_locked(
        &self,
        stripe: &mut Stripe,
        which: Changed,
        number: usize,
        limit: usize,
        mut see: impl FnMut(Handle, &mut Counter),
    ) -> bool {
        let Stripe { counters, lists, .. } = stripe;
        let Lists { dirty, unlogged, .. } = lists;
        let handle = |index| Handle { stripe: number as u16, index };
        let (list, listening) = match which {
            Changed::Dirty => (&mut *dirty, &self.dirty),
            Changed::Unlogged => (&mut *unlogged, &self.unlogged),
        };
        let from = list.len().saturating_sub(limit);
        let some: SmallVec<[u32; 64]> = list.drain(from..).collect();
        some.iter().for_each(|index| counters.prefetch(*index));
        for index in some {
            let Some(counter) = counters.get_mut(index) else { continue };
            match which {
                Changed::Unlogged => {
                    counter.marks.set(Marks::UNLOGGED, false);
                    see(handle(index), counter);
                }
                Changed::Dirty => {
                    counter.marks.set(Marks::DIRTY, false);
                    let look = |counter: &mut Counter| see(handle(index), counter);
                    self.noting_publication(handle(index), counter, unlogged, look);
                }
            }
        }
        let list = match which {
            Changed::Dirty => dirty,
            Changed::Unlogged => unlogged,
        };
        let is_rest = !list.is_empty();
        if is_rest {
            listening.note(number);
        } else if list.capacity() > MAX_IDLE_LIST {
            *list = Vec::new();
        }
        is_rest
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::{MemberIndex, Seq};
    use crate::keyspace::ChangeError;
    use crate::precision::Precision;
    use crate::shard::{Basis, PeerShard};
    use crate::time::Now;

    #[test]
    fn what_is_deleted_because_it_cancels_out_gives_way_to_a_set_that_was_not_known() {
        let (here, there) = (Keyspace::new(1, Precision::DEFAULT), Keyspace::new(1, Precision::DEFAULT));
        let now = Now { monotonic: Micros::from_secs(1), unix: Micros::from_secs(1) };
        let floor = Generation { time: 77, author: 5 };
        here.raise_floor(floor);
        let minus_one = Value::ZERO.checked_sub(Value::ONE).unwrap();
        let seq = Seq { incarnation: 1, n: 1 };
        let balance = |counter: &mut Counter| -> Result<(), ChangeError> {
            counter.add(Value::ONE, now.monotonic, &here.horizons)?;
            let shard = PeerShard::new(MemberIndex(1), seq, minus_one, 0, None, Vec::new());
            counter.merge(shard, Basis::default());
            Ok(())
        };
        here.update(b"a", now.monotonic, true, balance).unwrap();
        let stripe = here.place(b"a").stripe as u16;
        here.delete_at(Handle { stripe, index: 0 }, now.monotonic);
        let deleted = here.with(b"a", Counter::generation).unwrap();
        assert!(deleted > floor);
        there.set(b"a", Value::ONE, now, true).unwrap();
        assert!(there.with(b"a", Counter::generation).unwrap() > deleted);
        assert!(here.next_generation(now) > deleted);
    }
}
