//! From the hash of a name to the place of its counter: the table of one stripe.
//!
//! Eight entries share a cache line, a *bucket*: their hashes, then their places. An entry stands in the bucket that its
//! hash points at or, if that is full, in the next one that is not. So a look-up mostly touches one line, and one that
//! can be called for ahead (`prefetch`): that wait for memory is what most of a look-up among many counters is.
//!
//! Entries are told apart by hash and place; whoever looks compares names. Hashes are kept, so growing looks at no name.
//!
//! Lacks on purpose: names, counters, hashing.
//!
//! Invariant: between the bucket that an entry's hash points at and the one where it stands, all are full.

use prefetch_index::prefetch_index;

/// Entries per bucket: a cache line's worth.
const WIDTH: usize = 8;

/// Of so many places ...
const LOAD_OF: usize = 8;

/// ... at most so many are taken before the table grows.
const MAX_LOAD: usize = 6;

/// A table with fewer entries than this share of its room shrinks.
const SPARSE: usize = 8;

/// Stands where there is no entry.
const VACANT: u32 = u32::MAX;

/// Eight entries.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(64))]
struct Bucket {
    hashes: [u32; WIDTH],
    places: [u32; WIDTH],
}

impl Bucket {
    const EMPTY: Bucket = Bucket { hashes: [0; WIDTH], places: [VACANT; WIDTH] };

    /// A bit for each entry of that hash; vacant ones may be among them.
    #[inline]
    fn candidates(&self, hash: u32) -> u32 {
        let bits = self.hashes.iter().enumerate().map(|(at, &known)| u32::from(known == hash) << at);
        bits.fold(0, |all, bit| all | bit)
    }

    /// A vacant position.
    fn vacant(&self) -> Option<usize> {
        self.places.iter().position(|&place| place == VACANT)
    }

    fn is_full(&self) -> bool {
        !self.places.contains(&VACANT)
    }
}

/// The table.
#[derive(Debug, Default)]
pub(crate) struct Index {
    /// Empty until the first entry comes.
    buckets: Vec<Bucket>,
    len: usize,
}

impl Index {
    /// An empty table, which takes no memory.
    pub(crate) const fn new() -> Index {
        Index { buckets: Vec::new(), len: 0 }
    }

    /// The bucket that a hash points at.
    #[inline]
    fn home(&self, hash: u32) -> usize {
        ((u64::from(hash) * self.buckets.len() as u64) >> 32) as usize
    }

    fn next(&self, bucket: usize) -> usize {
        if bucket + 1 == self.buckets.len() { 0 } else { bucket + 1 }
    }

    /// Has the line fetched in which an entry of that hash would be.
    #[inline]
    pub(crate) fn prefetch(&self, hash: u32) {
        prefetch_index(&self.buckets, self.home(hash));
    }

    /// The place of the first entry of that hash in its own bucket, whatever its name: nearly always the right one.
    #[inline]
    pub(crate) fn likely(&self, hash: u32) -> Option<u32> {
        let bucket = self.buckets.get(self.home(hash))?;
        let candidates = bucket.candidates(hash);
        if candidates == 0 {
            return None;
        }
        Some(bucket.places[candidates.trailing_zeros() as usize % WIDTH]).filter(|&place| place != VACANT)
    }

    /// The place of the entry of that hash that `is_it` accepts.
    #[inline]
    pub(crate) fn find(&self, hash: u32, is_it: impl Fn(u32) -> bool) -> Option<u32> {
        let (bucket, at) = self.position(hash, is_it)?;
        Some(self.buckets[bucket].places[at])
    }

    #[inline]
    fn position(&self, hash: u32, is_it: impl Fn(u32) -> bool) -> Option<(usize, usize)> {
        if self.buckets.is_empty() {
            return None;
        }
        let mut number = self.home(hash);
        loop {
            let bucket = &self.buckets[number];
            let mut candidates = bucket.candidates(hash);
            while candidates != 0 {
                let at = candidates.trailing_zeros() as usize % WIDTH;
                let place = bucket.places[at];
                if place != VACANT && is_it(place) {
                    return Some((number, at));
                }
                candidates &= candidates - 1;
            }
            // Ends, for not all buckets are full.
            if !bucket.is_full() {
                return None;
            }
            number = self.next(number);
        }
    }

    /// Adds an entry that is not in.
    pub(crate) fn insert(&mut self, hash: u32, place: u32) {
        debug_assert_ne!(place, VACANT, "the arena never hands out its last index");
        if self.len == self.room() {
            let more = self.buckets.len() / 2 + 1;
            self.resize(self.buckets.len() + more);
        }
        self.insert_with_room(hash, place);
        self.len += 1;
    }

    fn insert_with_room(&mut self, hash: u32, place: u32) {
        let mut number = self.home(hash);
        loop {
            if let Some(at) = self.buckets[number].vacant() {
                self.buckets[number].hashes[at] = hash;
                self.buckets[number].places[at] = place;
                return;
            }
            number = self.next(number);
        }
    }

    /// Takes an entry out; false if it is not in.
    pub(crate) fn remove(&mut self, hash: u32, place: u32) -> bool {
        let Some((number, at)) = self.position(hash, |known| known == place) else { return false };
        self.vacate(number, at);
        self.len -= 1;
        if self.len < self.room() / SPARSE {
            self.resize(buckets_for(self.len * 2));
        }
        true
    }

    /// Takes an entry away and closes the gap that it would be for those behind it.
    fn vacate(&mut self, mut hole: usize, mut at: usize) {
        loop {
            let was_full = self.buckets[hole].is_full();
            self.buckets[hole].hashes[at] = 0;
            self.buckets[hole].places[at] = VACANT;
            let Some((from, from_at)) = was_full.then(|| self.find_overflow(hole)).flatten() else { return };
            self.buckets[hole].hashes[at] = self.buckets[from].hashes[from_at];
            self.buckets[hole].places[at] = self.buckets[from].places[from_at];
            (hole, at) = (from, from_at);
        }
    }

    /// An entry behind this bucket that would stand in it or before it, had there been room.
    fn find_overflow(&self, hole: usize) -> Option<(usize, usize)> {
        let count = self.buckets.len();
        let steps = |from: usize, to: usize| if to >= from { to - from } else { to + count - from };
        let mut number = self.next(hole);
        while number != hole {
            let bucket = &self.buckets[number];
            let is_over = |at: &usize| {
                let is_taken = bucket.places[*at] != VACANT;
                is_taken && steps(self.home(bucket.hashes[*at]), number) >= steps(hole, number)
            };
            if let Some(at) = (0..WIDTH).find(is_over) {
                return Some((number, at));
            }
            if !bucket.is_full() {
                return None;
            }
            number = self.next(number);
        }
        None
    }

    /// Makes room for so many further entries.
    pub(crate) fn reserve(&mut self, more: usize) {
        let wanted = buckets_for(self.len + more);
        if wanted > self.buckets.len() {
            self.resize(wanted);
        }
    }

    /// How many entries it holds before it grows. At least one place stays vacant, so that looking ends.
    fn room(&self) -> usize {
        self.buckets.len() * WIDTH * MAX_LOAD / LOAD_OF
    }

    fn resize(&mut self, buckets: usize) {
        let before = std::mem::replace(&mut self.buckets, vec![Bucket::EMPTY; buckets]);
        for bucket in before {
            for at in 0..WIDTH {
                if bucket.places[at] != VACANT {
                    self.insert_with_room(bucket.hashes[at], bucket.places[at]);
                }
            }
        }
    }
}

/// How many buckets hold so many entries.
fn buckets_for(entries: usize) -> usize {
    (entries * LOAD_OF).div_ceil(WIDTH * MAX_LOAD)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    impl Index {
        fn check(&self) {
            let mut len = 0;
            for (number, bucket) in self.buckets.iter().enumerate() {
                for at in (0..WIDTH).filter(|&at| bucket.places[at] != VACANT) {
                    len += 1;
                    let mut passed = self.home(bucket.hashes[at]);
                    while passed != number {
                        assert!(self.buckets[passed].is_full(), "an entry stands behind a gap");
                        passed = self.next(passed);
                    }
                }
            }
            assert_eq!(len, self.len);
            assert!(self.len <= self.room());
        }
    }

    #[test]
    fn a_bucket_is_a_cache_line() {
        assert_eq!((size_of::<Bucket>(), align_of::<Bucket>()), (64, 64));
    }

    #[test]
    fn an_empty_table_finds_nothing_and_takes_no_memory() {
        let index = Index::new();
        index.prefetch(7);
        assert_eq!((index.likely(7), index.find(7, |_| true), index.buckets.capacity()), (None, None, 0));
    }

    #[test]
    fn a_vacant_place_is_never_found() {
        let mut index = Index::new();
        index.insert(5, 1);
        // The hash that stands in vacant places.
        assert_eq!((index.likely(0), index.find(0, |_| true)), (None, None));
        index.insert(0, 2);
        assert_eq!(index.find(0, |_| true), Some(2));
    }

    #[test]
    fn memory_is_given_back() {
        let mut index = Index::new();
        (0..10_000u32).for_each(|n| index.insert(n.wrapping_mul(0x9E37_79B9), n));
        let before = index.buckets.len();
        (0..9_990u32).for_each(|n| assert!(index.remove(n.wrapping_mul(0x9E37_79B9), n)));
        assert!(index.buckets.len() < before / 100, "{} of {before}", index.buckets.len());
        index.check();
    }

    proptest! {
        /// Few hashes, so that buckets overflow and entries share hashes.
        #[test]
        fn it_holds_what_a_map_holds(steps in prop::collection::vec((any::<bool>(), 0..40_u32, 0..300_u32), 0..600)) {
            let mut index = Index::new();
            let mut model = BTreeMap::new();
            let spread = |hash: u32| hash.wrapping_mul(0x0666_6667);
            for (is_insert, hash, place) in steps {
                let hash = spread(hash);
                if is_insert && !model.contains_key(&place) {
                    index.insert(hash, place);
                    model.insert(place, hash);
                } else {
                    let is_in = model.get(&place) == Some(&hash);
                    prop_assert_eq!(index.remove(hash, place), is_in);
                    if is_in {
                        model.remove(&place);
                    }
                }
                index.check();
            }
            for (&place, &hash) in &model {
                prop_assert_eq!(index.find(hash, |known| known == place), Some(place));
                if let Some(likely) = index.likely(hash) {
                    prop_assert_eq!(model.get(&likely), Some(&hash));
                }
            }
            prop_assert_eq!(index.len, model.len());
        }
    }
}
