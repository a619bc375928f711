//! The keyspace's side of the disk: what has changed or gone since the log was written, every counter for a snapshot,
//! and counters coming back at the start.
//!
//! While logging is on, each stripe lists the counters that have changed (once, however often they do) and the names of
//! those that are gone. A counter that is removed and made again stands in both; whoever drains gets the removals first.

use super::walks::MAX_IDLE_LIST;
use super::{Changed, Cursor, Keyspace, Listening, STRIPES};
use crate::clients::Wake;
use crate::counter::{Counter, Marks};
use crate::ids::{MemberIndex, Seq};
use crate::precision::{Precision, TooManyPrecisions};
use crate::state::State;
use crate::time::Micros;
use std::collections::BTreeMap;
use std::sync::atomic::Ordering;

/// Counters seen by a walk under one lock: the lock is held for tens of microseconds.
const WALK_STEP: u64 = 256;

/// What the log hears of a counter.
pub(crate) enum Noted<'a> {
    /// There is none of this name any more.
    Gone(&'a [u8]),
    /// It is not what it was.
    Changed(&'a Counter),
}

impl Keyspace {
    /// From now on changes and removals are noted for the log.
    pub(crate) fn start_logging(&self) {
        self.unlogged.set_on(true);
    }

    /// Changes are no longer noted, and those that were are forgotten.
    pub(crate) fn stop_logging(&self) {
        self.unlogged.set_on(false);
        self.unlogged.take_stripes();
        for number in 0..STRIPES {
            self.drain_log(number, usize::MAX, |_| ());
        }
    }

    /// Sets how the writer of the log is told that there is something for it, once.
    pub(crate) fn set_log_wake(&self, wake: Wake) {
        self.unlogged.set_wake(wake);
    }

    /// What the log listens to.
    pub(crate) fn unlogged(&self) -> &Listening {
        &self.unlogged
    }

    /// How many counters have changed or gone and are not written.
    pub(crate) fn unlogged_len(&self) -> usize {
        (0..STRIPES)
            .map(|number| {
                let stripe = self.lock(number);
                stripe.lists.unlogged.len() + stripe.lists.removed.len()
            })
            .sum()
    }

    /// Takes a stripe's removed names and then at most `limit` of its changed counters off their lists. True if some are left.
    pub(crate) fn drain_log(&self, number: usize, limit: usize, mut see: impl FnMut(Noted<'_>)) -> bool {
        let mut stripe = self.lock(number);
        stripe.lists.removed.drain(..).for_each(|name| see(Noted::Gone(&name)));
        if stripe.lists.removed.capacity() > MAX_IDLE_LIST {
            stripe.lists.removed = Vec::new();
        }
        !stripe.lists.unlogged.is_empty()
            && self.drain_locked(&mut stripe, Changed::Unlogged, number, limit, |_, counter| {
                see(Noted::Changed(counter));
            })
    }

    /// Calls `see` with some hundred counters from `cursor` on, those included that users do not see; returns where to go
    /// on, zero at the end.
    pub(crate) fn walk_kept(&self, cursor: Cursor, mut see: impl FnMut(&Counter)) -> Cursor {
        self.walk_all(cursor, WALK_STEP, |_, counter| see(counter))
    }

    /// The precision to keep for a counter: one that was set on purpose.
    pub(crate) fn kept_precision(&self, counter: &Counter) -> Option<Precision> {
        counter.marks.has(Marks::PRECISION_SET).then(|| self.precision_of(counter.precision))
    }

    /// Makes room for that many counters, so that tables do not grow step by step while they are loaded.
    pub(crate) fn reserve(&self, counters: u64) {
        let per_stripe = (counters as usize / STRIPES).saturating_add(1);
        for number in 0..STRIPES {
            let mut stripe = self.lock(number);
            stripe.table.reserve(per_stripe);
        }
    }

    /// Whether the stripe of this name is one of those that loader `part` of `parts` fills.
    pub(crate) fn is_in_part(&self, name: &[u8], part: usize, parts: usize) -> bool {
        self.place(name).stripe % parts == part
    }

    /// Gives a counter the state that the disk remembers, `None`: takes it away. Only before logging and the cluster have
    /// begun to listen. Returns by how many more or fewer counters users see; the caller tells it to `note_loaded`.
    ///
    /// # Errors
    /// `TooManyPrecisions`; nothing has changed.
    pub(crate) fn load(
        &self,
        name: &[u8],
        state: Option<State>,
        now: Micros,
    ) -> Result<isize, TooManyPrecisions> {
        let precision = match state.as_ref().and_then(|state| state.precision) {
            Some(precision) => Some(self.precision_id(precision)?),
            None => None,
        };
        let place = self.place(name);
        let mut stripe = self.lock(place.stripe);
        let found = stripe.find(place.hash, name);
        let was_seen =
            |counter: Option<&Counter>| counter.is_some_and(|counter| !counter.marks.has(Marks::HIDDEN));
        let Some(state) = state else {
            let Some(index) = found else { return Ok(0) };
            // A client may have subscribed to it while it was loading.
            if stripe.counters.get(index).is_some_and(|counter| counter.subscribers() > 0) {
                stripe.counters.get_mut(index).expect("just looked at").restore(State::default());
                return Ok(0);
            }
            let gone = stripe.remove(place.hash, index);
            return Ok(-isize::from(was_seen(gone.as_ref())));
        };
        let was = was_seen(found.and_then(|index| stripe.counters.get(index)));
        let index = match found {
            Some(index) => index,
            None => stripe.insert(place.hash, Counter::new(name, self.default_precision_id())),
        };
        let counter = stripe.counters.get_mut(index).expect("found or just inserted");
        if let Some(time) = state.record.as_ref().map(|record| record.generation) {
            self.note_generation(time);
        }
        // A shard that was begun anew after the counter was removed is in a higher one.
        self.note_generation(state.generation);
        counter.restore(state);
        counter.marks.set(Marks::PRECISION_SET, precision.is_some());
        counter.precision = precision.unwrap_or_else(|| self.default_precision_id());
        let is_hidden = counter.is_deleted();
        counter.marks.set(Marks::HIDDEN, is_hidden);
        if counter.own().is_zero() {
            let super::Stripe { counters, lists, .. } = &mut *stripe;
            let counter = counters.get_mut(index).expect("found or just inserted");
            lists.note_zero(counter, index, now);
            self.zeros.note(place.stripe);
        }
        Ok(isize::from(!is_hidden) - isize::from(was))
    }

    /// Adds what `load` has returned in all to the number of counters.
    pub(crate) fn note_loaded(&self, more: isize) {
        self.len.fetch_add(more as usize, Ordering::Relaxed);
    }

    fn precision_id(&self, precision: Precision) -> Result<crate::counter::PrecisionId, TooManyPrecisions> {
        self.precisions.write().id(precision)
    }

    /// For each member the lowest seq of its shards that came back unanchored.
    pub(crate) fn unanchored(&self) -> BTreeMap<MemberIndex, Seq> {
        let mut lowest = BTreeMap::new();
        let mut cursor = 0;
        loop {
            cursor = self.walk_kept(cursor, |counter| {
                for peer in counter.full().map_or(&[][..], |full| full.peers()) {
                    if peer.is_unanchored() {
                        let seq = lowest.entry(peer.member()).or_insert(peer.seq());
                        *seq = peer.seq().min(*seq);
                    }
                }
            });
            if cursor == 0 {
                return lowest;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::Generation;
    use crate::precision::Precision;
    use crate::time::Now;

    #[test]
    fn a_set_is_above_all_that_was_removed_though_the_wall_clock_is_behind() {
        let now = Now { monotonic: Micros::from_secs(1), unix: Micros::from_secs(1) };
        let ahead = Generation { time: Micros::from_secs(2).millis() << 12, author: 9 };
        let keyspace = Keyspace::new(1, Precision::DEFAULT);
        keyspace.raise_floor(ahead);
        assert!(keyspace.next_generation(now) > ahead, "somebody has told");
        let keyspace = Keyspace::new(1, Precision::DEFAULT);
        let begun_anew = State { generation: ahead, ..State::default() };
        keyspace.load(b"a", Some(begun_anew), now.monotonic).unwrap();
        assert!(keyspace.next_generation(now) > ahead, "the disk has told");
    }
}
