//! A chunked arena: entries never move while they live, so an index is a stable handle.
//!
//! Grows by one chunk at a time (no doubling, no copy, little slack) and gives a chunk back once all of
//! its entries are gone. SCAN cursors, snapshots and dirty lists rely on indices that stay put.
//!
//! Lacks on purpose: generations in handles. An index may be reused after removal; holders check for
//! themselves that the entry is still the one they meant.

use prefetch_index::prefetch_index;

/// Entries per chunk.
const CHUNK_LEN: usize = 32;

/// The places of a chunk.
type Chunk<T> = Box<[Option<T>; CHUNK_LEN]>;

/// The arena. Indices are `u32`, so it holds at most 2^32 - 1 entries.
#[derive(Debug)]
pub(crate) struct Slab<T> {
    /// Pointers only: those of a small arena fit a cache line.
    chunks: Vec<Option<Chunk<T>>>,
    /// How many entries live in each chunk.
    live: Vec<u8>,
    /// How many places of the last chunk have ever been taken; the others are vacant, too.
    taken_of_last: usize,
    /// Indices of vacant places in chunks that exist, last freed first.
    vacant: Vec<u32>,
    /// Chunk numbers whose memory was given back.
    missing: Vec<u32>,
    len: usize,
}

impl<T> Slab<T> {
    pub(crate) const fn new() -> Slab<T> {
        Slab {
            chunks: Vec::new(),
            live: Vec::new(),
            taken_of_last: CHUNK_LEN,
            vacant: Vec::new(),
            missing: Vec::new(),
            len: 0,
        }
    }

    /// How many entries live here.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// One more than the highest index ever handed out and not given back.
    pub(crate) fn bound(&self) -> u32 {
        (self.chunks.len() * CHUNK_LEN) as u32
    }

    /// Has fetched from memory what `prefetch` reads.
    #[inline]
    pub(crate) fn prefetch_chunks(&self) {
        prefetch_index(&self.chunks, 0);
    }

    /// Has the entry fetched from memory.
    #[inline]
    pub(crate) fn prefetch(&self, index: u32) {
        let (chunk, place) = split(index);
        if let Some(Some(chunk)) = self.chunks.get(chunk) {
            prefetch_index(chunk.as_slice(), place);
        }
    }

    #[inline]
    pub(crate) fn get(&self, index: u32) -> Option<&T> {
        let (chunk, place) = split(index);
        self.chunks.get(chunk)?.as_ref()?[place].as_ref()
    }

    #[inline]
    pub(crate) fn get_mut(&mut self, index: u32) -> Option<&mut T> {
        let (chunk, place) = split(index);
        self.chunks.get_mut(chunk)?.as_mut()?[place].as_mut()
    }

    /// Stores `entry` and returns its handle.
    pub(crate) fn insert(&mut self, entry: T) -> u32 {
        self.len += 1;
        let index = match self.vacant.pop() {
            Some(index) => index,
            None => self.new_place(),
        };
        let (number, place) = split(index);
        let chunk = self.chunks[number].as_mut().expect("vacant places lie in chunks that exist");
        chunk[place] = Some(entry);
        self.live[number] += 1;
        index
    }

    /// A place that is on no list: the next one of the last chunk, the first one of a missing chunk or of a new one. The others
    /// of a missing one become vacant, so that only the last chunk is ever partly taken.
    fn new_place(&mut self) -> u32 {
        if self.taken_of_last < CHUNK_LEN && self.chunks.last().is_some_and(Option::is_some) {
            let place = self.taken_of_last;
            self.taken_of_last += 1;
            return ((self.chunks.len() - 1) * CHUNK_LEN + place) as u32;
        }
        if let Some(number) = self.missing.pop() {
            let base = number * CHUNK_LEN as u32;
            self.vacant.extend((1..CHUNK_LEN as u32).rev().map(|place| base + place));
            self.chunks[number as usize] = Some(empty_chunk());
            return base;
        }
        self.chunks.push(Some(empty_chunk()));
        self.live.push(0);
        self.taken_of_last = 1;
        ((self.chunks.len() - 1) * CHUNK_LEN) as u32
    }

    /// Takes the entry out; its index may be handed out again.
    pub(crate) fn remove(&mut self, index: u32) -> Option<T> {
        let (number, place) = split(index);
        let entry = self.chunks.get_mut(number)?.as_mut()?[place].take()?;
        self.live[number] -= 1;
        self.len -= 1;
        if self.len == 0 {
            *self = Slab::new();
            return Some(entry);
        }
        let is_last = number + 1 == self.chunks.len();
        if self.live[number] == 0 && (!is_last || self.taken_of_last == CHUNK_LEN) {
            self.vacant.retain(|&v| split(v).0 != number);
            self.chunks[number] = None;
            self.missing.push(number as u32);
        } else {
            self.vacant.push(index);
        }
        Some(entry)
    }

    /// All entries, in the order of their indices.
    pub(crate) fn into_entries(self) -> impl Iterator<Item = T> {
        self.chunks.into_iter().flatten().flat_map(|chunk| *chunk).flatten()
    }
}

/// Made on the heap: it would be large for the stack of a thread.
fn empty_chunk<T>() -> Chunk<T> {
    let places: Vec<Option<T>> = std::iter::repeat_with(|| None).take(CHUNK_LEN).collect();
    let Ok(chunk) = places.into_boxed_slice().try_into() else { unreachable!("so many were collected") };
    chunk
}

fn split(index: u32) -> (usize, usize) {
    (index as usize / CHUNK_LEN, index as usize % CHUNK_LEN)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    #[test]
    fn handles_stay_valid_while_others_come_and_go() {
        let mut slab = Slab::new();
        let mut model = BTreeMap::new();
        let mut state = 42u64;
        for step in 0..200_000u64 {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            let pick = (state >> 33) as usize;
            let growing = (step / 20_000) % 2 == 0;
            if model.is_empty() || pick % 100 < if growing { 60 } else { 40 } {
                let index = slab.insert(step);
                assert!(model.insert(index, step).is_none(), "index {index} handed out twice");
            } else {
                let index = *model.keys().nth(pick % model.len().min(50)).unwrap();
                assert_eq!(slab.remove(index), model.remove(&index));
            }
            assert_eq!(slab.len(), model.len());
        }
        for (&index, &entry) in &model {
            assert_eq!(slab.get(index), Some(&entry));
        }
    }

    #[test]
    fn memory_is_given_back_when_a_chunk_empties() {
        let mut slab = Slab::new();
        let indices: Vec<u32> = (0..10_000).map(|n| slab.insert(n)).collect();
        for index in indices {
            slab.remove(index);
        }
        assert!(slab.chunks.iter().flatten().count() <= 1);
        let again = slab.insert(7);
        assert_eq!(slab.get(again), Some(&7));
    }

    #[test]
    fn a_removed_index_is_empty() {
        let mut slab = Slab::new();
        let index = slab.insert("x");
        assert_eq!(slab.remove(index), Some("x"));
        assert_eq!(slab.get(index), None);
        assert_eq!(slab.remove(index), None);
        assert_eq!(slab.get(12345), None);
    }
}
