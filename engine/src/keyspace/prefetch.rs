//! Memory called for ahead, in three steps of which each needs what the one before has fetched. Whoever looks at several counters
//! takes each step for all of them, and waits for memory once instead of once for each.

use super::{Keyspace, Place};
use prefetch_index::prefetch_index;

impl Keyspace {
    /// Where a name belongs; has the memory fetched that `prefetch_entry` reads.
    #[inline]
    pub(crate) fn prefetch_stripe(&self, name: &[u8]) -> Place {
        let place = self.place(name);
        prefetch_index(&*self.stripes, place.stripe);
        place
    }

    /// Has the memory fetched that `prefetch_counter` reads.
    #[inline]
    pub(crate) fn prefetch_entry(&self, place: Place) {
        if let Some(stripe) = self.stripes[place.stripe].0.try_lock() {
            stripe.table.prefetch(place.hash);
            stripe.counters.prefetch_chunks();
        }
    }

    /// Has the counter fetched that probably belongs there. Nothing depends on it but time.
    #[inline]
    pub(crate) fn prefetch_counter(&self, place: Place) {
        if let Some(stripe) = self.stripes[place.stripe].0.try_lock()
            && let Some(index) = stripe.table.likely(place.hash)
        {
            stripe.counters.prefetch(index);
        }
    }
}
