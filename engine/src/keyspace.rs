//! All counters of a node: one map in many stripes, each under a short lock.
//!
//! A command runs on the thread where its bytes arrived; it takes the lock of one stripe for the time of
//! one counter's change. Counters live in a slab per stripe and never move, so that a walk (SCAN, KEYS,
//! a snapshot) is a plain count over indices that misses nothing that was there all along, however the
//! table beside it grows.
//!
//! Invariants: no lock is held across a call out of this file, save the closures given to `with` and
//! `update`; no function takes two stripe locks at once.

use crate::counter::{Counter, Marks, PrecisionId};
use crate::precision::{Precision, PrecisionTable, TooManyPrecisions};
use crate::slab::Slab;
use crate::time::Micros;
use crate::value::{Value, ValueError};
use foldhash::SharedSeed;
use foldhash::fast::FoldHasher;
use hashbrown::HashTable;
use parking_lot::{Mutex, MutexGuard, RwLock};
use std::collections::VecDeque;
use std::hash::Hasher;
use std::sync::atomic::{AtomicUsize, Ordering};

/// log2 of the number of stripes. With ten million counters a stripe has ten thousand: its table's growth
/// takes tens of microseconds.
const STRIPE_BITS: u32 = 10;
const STRIPES: usize = 1 << STRIPE_BITS;

/// How long a counter must have read zero before it disappears.
pub const ZERO_LINGER: Micros = Micros::from_millis(2_000);

/// The map from names to counters. Shared by all threads.
#[derive(Debug)]
pub struct Keyspace {
    stripes: Box<[Padded<Mutex<Stripe>>]>,
    seed: u64,
    shared_seed: SharedSeed,
    len: AtomicUsize,
    precisions: RwLock<PrecisionTable>,
    default_precision: AtomicUsize,
}

/// Keeps neighbouring locks off each other's cache lines (pairs of lines are fetched together).
#[derive(Debug)]
#[repr(align(128))]
struct Padded<T>(T);

#[derive(Debug)]
struct Stripe {
    table: HashTable<Slot>,
    counters: Slab<Counter>,
    /// Counters that came to read zero, each with the moment to look at it again; in order of time.
    zeros: VecDeque<(Micros, u32)>,
}

/// A table entry: the hash bits save a look at the counter when the table grows or two names collide.
#[derive(Clone, Copy, Debug)]
struct Slot {
    hash: u32,
    index: u32,
}

/// A counter that was found or made, under its stripe's lock.
pub(crate) struct Found<'a> {
    pub(crate) counter: &'a mut Counter,
    pub(crate) is_new: bool,
}

/// Where a walk over all counters stands. Zero is the beginning; after the end it is zero again.
pub type Cursor = u64;

/// Position of one name: its stripe and the hash within it.
#[derive(Clone, Copy)]
struct Place {
    stripe: usize,
    hash: u32,
}

impl Place {
    /// The 64 bits that `HashTable` wants: position from the low end, tag from the high end.
    fn table_hash(hash: u32) -> u64 {
        u64::from(hash) | u64::from(hash) << 32
    }
}

impl Stripe {
    fn find(&self, hash: u32, name: &[u8]) -> Option<u32> {
        self.table
            .find(Place::table_hash(hash), |slot| {
                slot.hash == hash && self.counters.get(slot.index).is_some_and(|c| c.name() == name)
            })
            .map(|slot| slot.index)
    }

    fn insert(&mut self, hash: u32, counter: Counter) -> u32 {
        let index = self.counters.insert(counter);
        self.table.insert_unique(Place::table_hash(hash), Slot { hash, index }, |slot| {
            Place::table_hash(slot.hash)
        });
        index
    }

    fn remove(&mut self, hash: u32, index: u32) -> Option<Counter> {
        let entry = self.table.find_entry(Place::table_hash(hash), |slot| slot.index == index).ok()?;
        entry.remove();
        if self.table.len() < self.table.capacity() / 8 {
            self.table.shrink_to(self.table.len() * 2, |slot| Place::table_hash(slot.hash));
        }
        self.counters.remove(index)
    }

    /// Notes a counter that reads zero now, to be looked at once it has lingered.
    fn note_zero(&mut self, index: u32, now: Micros) {
        let Some(counter) = self.counters.get_mut(index) else { return };
        if counter.is_disposable() && !counter.marks.has(Marks::ZERO_LISTED) {
            counter.marks.set(Marks::ZERO_LISTED, true);
            self.zeros.push_back((now + ZERO_LINGER, index));
        }
    }
}

impl Keyspace {
    /// An empty keyspace whose hashes are seeded with `seed`, so that names can't be chosen to collide.
    pub fn new(seed: u64, default_precision: Precision) -> Keyspace {
        let stripe = || Stripe { table: HashTable::new(), counters: Slab::new(), zeros: VecDeque::new() };
        let mut precisions = PrecisionTable::new();
        let default = precisions.id(default_precision).expect("an empty table has room");
        Keyspace {
            stripes: (0..STRIPES).map(|_| Padded(Mutex::new(stripe()))).collect(),
            seed,
            shared_seed: SharedSeed::from_u64(seed),
            len: AtomicUsize::new(0),
            precisions: RwLock::new(precisions),
            default_precision: AtomicUsize::new(usize::from(default.0)),
        }
    }

    fn place(&self, name: &[u8]) -> Place {
        let mut hasher = FoldHasher::with_seed(self.seed, &self.shared_seed);
        hasher.write(name);
        let hash = hasher.finish();
        Place { stripe: (hash >> (64 - STRIPE_BITS)) as usize, hash: hash as u32 }
    }

    fn lock(&self, stripe: usize) -> MutexGuard<'_, Stripe> {
        self.stripes[stripe].0.lock()
    }

    /// How many counters exist.
    pub fn len(&self) -> usize {
        self.len.load(Ordering::Relaxed)
    }

    /// Whether no counter exists.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The precision that new counters get.
    pub fn default_precision(&self) -> Precision {
        self.precisions.read().precision(self.default_precision_id())
    }

    fn default_precision_id(&self) -> PrecisionId {
        PrecisionId(self.default_precision.load(Ordering::Relaxed) as u16)
    }

    /// Changes the precision of counters that will be made from now on.
    ///
    /// # Errors
    /// `TooManyPrecisions` if the table is full; the default stays as it was.
    pub fn set_default_precision(&self, precision: Precision) -> Result<(), TooManyPrecisions> {
        let id = self.precisions.write().id(precision)?;
        self.default_precision.store(usize::from(id.0), Ordering::Relaxed);
        Ok(())
    }

    /// Calls `look` with the counter, if there is one of that name.
    pub(crate) fn with<R>(&self, name: &[u8], look: impl FnOnce(&Counter) -> R) -> Option<R> {
        let place = self.place(name);
        let stripe = self.lock(place.stripe);
        let index = stripe.find(place.hash, name)?;
        stripe.counters.get(index).map(look)
    }

    /// Whether a counter of that name exists.
    pub fn contains(&self, name: &[u8]) -> bool {
        self.with(name, |_| ()).is_some()
    }

    /// The counter's value, if it exists.
    pub fn total(&self, name: &[u8], now: Micros) -> Option<Value> {
        self.with(name, |counter| counter.total(now))
    }

    /// Calls `change` with the counter, made if it was missing and `is_creating_allowed`.
    ///
    /// A counter that was made for a change that failed is taken away again.
    pub(crate) fn update<R, E: From<NoRoom>>(
        &self,
        name: &[u8],
        now: Micros,
        is_creating_allowed: bool,
        change: impl FnOnce(Found<'_>) -> Result<R, E>,
    ) -> Result<R, E> {
        let place = self.place(name);
        let mut stripe = self.lock(place.stripe);
        if let Some(index) = stripe.find(place.hash, name) {
            let counter = stripe.counters.get_mut(index).expect("the table points at counters that live");
            let result = change(Found { counter, is_new: false });
            if counter.own().is_zero() {
                stripe.note_zero(index, now);
            }
            return result;
        }
        if !is_creating_allowed {
            return Err(NoRoom.into());
        }
        let mut counter = Counter::new(name, self.default_precision_id());
        let result = change(Found { counter: &mut counter, is_new: true })?;
        let index = stripe.insert(place.hash, counter);
        stripe.note_zero(index, now);
        self.len.fetch_add(1, Ordering::Relaxed);
        Ok(result)
    }

    /// Adds `delta` to the own shard and returns the new total.
    ///
    /// # Errors
    /// `OutOfRange`, or no room for a new counter; nothing has changed then.
    pub fn add(&self, name: &[u8], delta: Value, now: Micros, room: bool) -> Result<Value, ChangeError> {
        self.update(name, now, room, |found| Ok(found.counter.add(delta, now)?))
    }

    /// Makes the counter read `value`.
    ///
    /// # Errors
    /// No room for a new counter; nothing has changed then.
    pub fn set(&self, name: &[u8], value: Value, now: Micros, room: bool) -> Result<(), ChangeError> {
        self.update(name, now, room, |found| {
            found.counter.set(value, now);
            Ok(())
        })
    }

    /// Makes the counter read zero and leaves nothing behind. False if there was none of that name.
    pub fn delete(&self, name: &[u8], now: Micros) -> bool {
        let place = self.place(name);
        let mut stripe = self.lock(place.stripe);
        let Some(index) = stripe.find(place.hash, name) else { return false };
        let counter = stripe.counters.get_mut(index).expect("the table points at counters that live");
        counter.set(Value::ZERO, now);
        counter.marks.set(Marks::PRECISION_SET, false);
        counter.precision = self.default_precision_id();
        if counter.is_disposable() {
            stripe.remove(place.hash, index);
            self.len.fetch_sub(1, Ordering::Relaxed);
        }
        true
    }

    /// The precision of a counter, or the one that it would get.
    pub fn precision(&self, name: &[u8]) -> Precision {
        let id = self.with(name, |counter| counter.precision).unwrap_or_else(|| self.default_precision_id());
        self.precisions.read().precision(id)
    }

    /// Sets a counter's precision on purpose; the counter is made if it was missing and kept even at zero.
    ///
    /// # Errors
    /// No room for a new counter or a further precision; nothing has changed then.
    pub fn set_precision(
        &self,
        name: &[u8],
        precision: Precision,
        now: Micros,
        room: bool,
    ) -> Result<(), ChangeError> {
        let id = self.precisions.write().id(precision)?;
        let is_default = id == self.default_precision_id();
        self.update(name, now, room, |found| {
            found.counter.precision = id;
            found.counter.marks.set(Marks::PRECISION_SET, !is_default);
            Ok(())
        })
    }

    /// Notes a subscriber; the counter is made if it was missing and kept while somebody subscribes.
    ///
    /// # Errors
    /// No room for a new counter.
    pub(crate) fn subscribe(&self, name: &[u8], now: Micros, room: bool) -> Result<(), ChangeError> {
        self.update(name, now, room, |found| {
            found.counter.add_subscriber();
            Ok(())
        })
    }

    /// The counterpart of `subscribe`. A counter that was cleared meanwhile is none of our business.
    pub(crate) fn unsubscribe(&self, name: &[u8], now: Micros) {
        let gone: Result<(), ChangeError> = self.update(name, now, false, |found| {
            if found.counter.subscribers() > 0 {
                found.counter.drop_subscriber();
            }
            Ok(())
        });
        drop(gone);
    }

    /// Removes counters that have read zero for `ZERO_LINGER` and that nobody holds on to.
    pub fn collect_zeros(&self, now: Micros) {
        for number in 0..STRIPES {
            let mut stripe = self.lock(number);
            while let Some(&(due, index)) = stripe.zeros.front()
                && due <= now
            {
                stripe.zeros.pop_front();
                let Some(counter) = stripe.counters.get_mut(index) else { continue };
                counter.marks.set(Marks::ZERO_LISTED, false);
                if counter.is_disposable() {
                    let hash = self.place(counter.name()).hash;
                    stripe.remove(hash, index);
                    self.len.fetch_sub(1, Ordering::Relaxed);
                }
            }
        }
    }

    /// Forgets every counter.
    pub fn clear(&self) {
        for number in 0..STRIPES {
            let mut stripe = self.lock(number);
            self.len.fetch_sub(stripe.counters.len(), Ordering::Relaxed);
            stripe.table = HashTable::new();
            stripe.counters.clear();
            stripe.zeros = VecDeque::new();
        }
    }

    /// Walks over at least `count` places of the slabs from `cursor` on, calls `see` for each counter met, and
    /// returns where to go on (zero: that was the end). Locks one stripe at a time.
    pub(crate) fn walk(&self, cursor: Cursor, count: u64, mut see: impl FnMut(&Counter)) -> Cursor {
        let (mut number, mut index) = ((cursor >> 32) as usize, cursor as u32);
        let mut left = count.max(1);
        while number < STRIPES {
            let stripe = self.lock(number);
            let bound = stripe.counters.bound();
            while index < bound && left > 0 {
                if let Some(counter) = stripe.counters.get(index) {
                    see(counter);
                    left -= 1;
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
}

/// There is no room for a further counter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoRoom;

/// Why a counter was not changed. Nothing has changed then, and no counter was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChangeError {
    /// The value would leave its range, or the text was no number.
    Value(ValueError),
    /// No room for a further counter.
    NoRoom,
    /// No room for a further precision.
    TooManyPrecisions,
}

impl From<ValueError> for ChangeError {
    fn from(error: ValueError) -> ChangeError {
        ChangeError::Value(error)
    }
}

impl From<NoRoom> for ChangeError {
    fn from(_: NoRoom) -> ChangeError {
        ChangeError::NoRoom
    }
}

impl From<TooManyPrecisions> for ChangeError {
    fn from(_: TooManyPrecisions) -> ChangeError {
        ChangeError::TooManyPrecisions
    }
}
