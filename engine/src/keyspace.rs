//! All counters of a node: one map in many stripes, each under a short lock.
//!
//! A command runs on the thread where its bytes arrived; it takes the lock of one stripe for the time of
//! one counter's change. Counters live in a slab per stripe and never move, so that a walk (SCAN, KEYS,
//! a snapshot) is a plain count over indices that misses nothing that was there all along, however the
//! table beside it grows.
//!
//! Every change ends in `after_change`, which notes what somebody must look at later: counters whose own shard has
//! changed (for the cluster), that have changed at all (for the log), that came to read zero. Nothing scans for them.
//!
//! Invariants: no lock is held across a call out of this file, save the closures given to `with` and
//! `update`; no function takes two stripe locks at once.

mod durable;
mod generations;
mod handles;
mod listening;
mod precisions;
mod prefetch;
mod stripe;
mod walks;

pub(crate) use durable::Noted;
pub(crate) use handles::{Handle, HandleSet};
pub(crate) use listening::Listening;

use crate::counter::{Counter, Full, Marks, OwnStream, PrecisionId};
use crate::ids::{Generation, Seq};
use crate::member_ids::MemberIds;
use crate::precision::{Precision, PrecisionTable, TooManyPrecisions};
use crate::prediction::Track;
use crate::shard::Horizons;
use crate::time::{Micros, Now};
use crate::value::{Value, ValueError};
use foldhash::SharedSeed;
use foldhash::fast::FoldHasher;
use parking_lot::{Mutex, MutexGuard, RwLock};
use std::hash::Hasher;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use stripe::{Lists, Padded, STRIPE_BITS, Stripe};
pub(crate) use stripe::{Place, STRIPES};
pub(crate) use walks::{Changed, Fate};

/// The map from names to counters. Shared by all threads.
pub struct Keyspace {
    stripes: Box<[Padded<Mutex<Stripe>>]>,
    seed: u64,
    shared_seed: SharedSeed,
    /// Counters that users see.
    len: AtomicUsize,
    precisions: RwLock<PrecisionTable>,
    precision_sweep: Mutex<Option<precisions::Sweep>>,
    default_precision: AtomicUsize,
    /// Until when each member's lines are followed.
    pub(crate) horizons: Horizons,
    /// Who stands behind each member index.
    pub(crate) member_ids: MemberIds,
    /// The clock of generations: the highest time seen.
    generation_time: AtomicU64,
    /// Our part of a generation.
    author: AtomicU64,
    /// Peers may still hold later states of own shards than we do: what is counted meanwhile is noted apart.
    is_recovering: AtomicBool,
    own_stream: RwLock<OwnStream>,
    /// The highest floor of all stripes.
    floor: RwLock<Generation>,
    /// For the cluster.
    pub(crate) dirty: Listening,
    /// For the log.
    pub(crate) unlogged: Listening,
    /// For the collection of zeros, which looks by itself.
    zeros: Listening,
}

/// Where a walk over all counters stands. Zero is the beginning; after the end it is zero again.
pub type Cursor = u64;

/// A value with what is known of its error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Bounded {
    pub(crate) value: Value,
    /// The truth at that moment was no further away than this; `None`: it may have been anything.
    pub(crate) bound: Option<Value>,
    /// How long ago that moment was.
    pub(crate) age: Micros,
}

/// Why an own shard changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cause {
    /// A client, or a SET that has arrived.
    Command,
    /// A peer has handed back what we had told it in an earlier life.
    Recovery,
    /// A departed member's shard was made a part of the own one.
    Takeover,
    /// It does not: it was published, by its owner, here or elsewhere.
    Publication,
}

/// What a counter was before a change.
#[derive(Clone, Copy)]
struct Before {
    own: Value,
    generation: Generation,
    is_hidden: bool,
}

impl Before {
    fn of(counter: &Counter) -> Before {
        Before {
            own: counter.own(),
            generation: counter.generation(),
            is_hidden: counter.marks.has(Marks::HIDDEN),
        }
    }
}

impl Keyspace {
    /// An empty keyspace whose hashes are seeded with `seed`, so that names can't be chosen to collide.
    pub fn new(seed: u64, default_precision: Precision) -> Keyspace {
        let mut precisions = PrecisionTable::new();
        let default = precisions.id(default_precision).expect("an empty table has room");
        Keyspace {
            stripes: (0..STRIPES).map(|_| Padded(Mutex::new(Stripe::new()))).collect(),
            seed,
            shared_seed: SharedSeed::from_u64(seed),
            len: AtomicUsize::new(0),
            precisions: RwLock::new(precisions),
            precision_sweep: Mutex::default(),
            default_precision: AtomicUsize::new(usize::from(default.0)),
            horizons: Horizons::default(),
            member_ids: MemberIds::default(),
            generation_time: AtomicU64::new(0),
            author: AtomicU64::new(0),
            is_recovering: AtomicBool::new(false),
            own_stream: RwLock::default(),
            floor: RwLock::default(),
            dirty: Listening::default(),
            unlogged: Listening::default(),
            zeros: Listening::default(),
        }
    }

    #[inline]
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
        let mut table = self.precisions.write();
        let id = table.id(precision)?;
        // Counters may be getting the one that was the default at this moment.
        let last = self.default_precision.swap(usize::from(id.0), Ordering::Relaxed);
        table.keep(PrecisionId(last as u16));
        Ok(())
    }

    /// Calls `look` with the counter, if there is one of that name.
    pub(crate) fn with<R>(&self, name: &[u8], look: impl FnOnce(&Counter) -> R) -> Option<R> {
        let place = self.place(name);
        let stripe = self.lock(place.stripe);
        let index = stripe.find(place.hash, name)?;
        stripe.counters.get(index).map(look)
    }

    /// Whether a counter of that name exists as far as users can see.
    pub fn contains(&self, name: &[u8]) -> bool {
        self.with(name, |counter| !counter.marks.has(Marks::HIDDEN)).unwrap_or(false)
    }

    /// The counter's value, if it exists.
    pub fn total(&self, name: &[u8], now: Micros) -> Option<Value> {
        self.with(name, |counter| counter.total(now, &self.horizons))
    }

    /// The moment of which GET BOUND can speak, if there is one.
    pub(crate) fn moment_known(&self, now: Micros) -> Option<Micros> {
        if self.is_recovering() { None } else { self.horizons.moment_known(now) }
    }

    /// A value of the counter with what is known of its error.
    pub(crate) fn bound(&self, name: &[u8], now: Micros) -> Bounded {
        let place = self.place(name);
        // The moment is looked up under the lock: what it needs is not forgotten before that.
        let stripe = self.lock(place.stripe);
        let moment = self.moment_known(now);
        let counter = stripe.find(place.hash, name).and_then(|index| stripe.counters.get(index));
        let Some(moment) = moment else {
            let value = counter.map(|counter| counter.total(now, &self.horizons)).unwrap_or_default();
            return Bounded { value, bound: None, age: Micros(0) };
        };
        let (value, units) =
            counter.map_or((Value::ZERO, Some(0)), |counter| counter.bounded(moment, &self.horizons));
        Bounded {
            value,
            bound: units.and_then(|units| Value::from_units(units).ok()),
            age: now.since(moment),
        }
    }

    /// Calls `change` with the counter, made if it was missing and `is_creating_allowed`. A counter that was made for a
    /// change that failed is taken away again.
    pub(crate) fn update<R, E: From<NoRoom>>(
        &self,
        name: &[u8],
        now: Micros,
        is_creating_allowed: bool,
        change: impl FnOnce(&mut Counter) -> Result<R, E>,
    ) -> Result<R, E> {
        self.update_named(name, now, is_creating_allowed, Cause::Command, change).map(|(result, _)| result)
    }

    /// The same, for whatever cause; tells where the counter stands, too.
    pub(crate) fn update_named<R, E: From<NoRoom>>(
        &self,
        name: &[u8],
        now: Micros,
        is_creating_allowed: bool,
        cause: Cause,
        change: impl FnOnce(&mut Counter) -> Result<R, E>,
    ) -> Result<(R, Handle), E> {
        let place = self.place(name);
        let handle = |index| Handle { stripe: place.stripe as u16, index };
        let mut stripe = self.lock(place.stripe);
        let stripe = &mut *stripe;
        if let Some(index) = stripe.find(place.hash, name) {
            let counter = stripe.counters.get_mut(index).expect("the table points at counters that live");
            let before = Before::of(counter);
            let result = change(counter)?;
            self.after_change(counter, &mut stripe.lists, handle(index), before, cause, now);
            return Ok((result, handle(index)));
        }
        if !is_creating_allowed {
            return Err(NoRoom.into());
        }
        let floor = if self.dirty.is_on() { stripe.floor } else { Generation::ZERO };
        let mut counter = Counter::new(name, self.default_precision_id()).born_in(floor);
        let before = Before::of(&counter);
        let result = change(&mut counter)?;
        let index = stripe.insert(place.hash, counter);
        self.len.fetch_add(1, Ordering::Relaxed);
        let counter = stripe.counters.get_mut(index).expect("it was inserted a moment ago");
        self.after_change(counter, &mut stripe.lists, handle(index), before, cause, now);
        Ok((result, handle(index)))
    }

    /// The same for a counter that is known by its place. `None` if there is none at that place any more.
    pub(crate) fn update_at<R>(
        &self,
        handle: Handle,
        cause: Cause,
        now: Micros,
        change: impl FnOnce(&mut Counter) -> R,
    ) -> Option<R> {
        let mut stripe = self.lock(usize::from(handle.stripe));
        let stripe = &mut *stripe;
        let counter = stripe.counters.get_mut(handle.index)?;
        let before = Before::of(counter);
        let result = change(counter);
        self.after_change(counter, &mut stripe.lists, handle, before, cause, now);
        Some(result)
    }

    /// Calls `look` with the counter at this place, if there is one. For the bookkeeping of the cluster: nothing that a
    /// change would be noted for may be changed, save that it is published.
    pub(crate) fn with_at<R>(&self, handle: Handle, look: impl FnOnce(&mut Counter) -> R) -> Option<R> {
        let mut stripe = self.lock(usize::from(handle.stripe));
        let Stripe { counters, lists: Lists { unlogged, .. }, .. } = &mut *stripe;
        let counter = counters.get_mut(handle.index)?;
        Some(self.noting_publication(handle, counter, unlogged, look))
    }

    /// A publication changes nothing that users see, but what is on disk must not fall behind it.
    fn noting_publication<R>(
        &self,
        handle: Handle,
        counter: &mut Counter,
        unlogged: &mut Vec<u32>,
        look: impl FnOnce(&mut Counter) -> R,
    ) -> R {
        let published = |counter: &Counter| counter.full().map_or(Seq::ZERO, |full| full.seq);
        let before = published(counter);
        let result = look(counter);
        if self.unlogged.is_on() && published(counter) != before && !counter.marks.has(Marks::UNLOGGED) {
            counter.marks.set(Marks::UNLOGGED, true);
            unlogged.push(handle.index);
            self.unlogged.note(usize::from(handle.stripe));
        }
        result
    }

    /// Notes all that follows from a change of a counter.
    #[inline]
    fn after_change(
        &self,
        counter: &mut Counter,
        lists: &mut Lists,
        handle: Handle,
        before: Before,
        cause: Cause,
        now: Micros,
    ) {
        let (number, index) = (usize::from(handle.stripe), handle.index);
        if self.dirty.is_on() && self.note_own_change(counter, before, cause, now) {
            lists.dirty.push(index);
            self.dirty.note(number);
        }
        if self.unlogged.is_on() && !counter.marks.has(Marks::UNLOGGED) {
            counter.marks.set(Marks::UNLOGGED, true);
            lists.unlogged.push(index);
            self.unlogged.note(number);
        }
        let is_faded = before.is_hidden && (counter.is_disposable() || counter.is_balanced());
        if before.is_hidden != (is_faded || counter.is_deleted()) {
            counter.marks.set(Marks::HIDDEN, !before.is_hidden);
            if before.is_hidden {
                self.len.fetch_add(1, Ordering::Relaxed);
            } else {
                self.len.fetch_sub(1, Ordering::Relaxed);
            }
        }
        if counter.is_own_zero() || (cause != Cause::Command && counter.is_balanced()) {
            lists.note_zero(counter, index, now);
            self.zeros.note(number);
        }
    }

    /// What a change of the own shard means for the cluster; true if the counter must be put on the list of those to look at.
    fn note_own_change(&self, counter: &mut Counter, before: Before, cause: Cause, now: Micros) -> bool {
        let is_restated = counter.generation() != before.generation;
        let (own, is_moved) = (counter.own(), counter.own() != before.own);
        let has_more_to_say = match cause {
            Cause::Takeover => true,
            Cause::Publication => counter.full().is_some_and(|full| full.is_restated),
            Cause::Command | Cause::Recovery => false,
        };
        if !is_restated && !is_moved && !has_more_to_say {
            return false;
        }
        let is_counted = is_moved && !is_restated && matches!(cause, Cause::Command | Cause::Publication);
        let full = counter.make_full();
        let has_something_to_say = match cause {
            Cause::Recovery => full.track.is_some() || full.is_restated,
            Cause::Takeover => true,
            Cause::Command | Cause::Publication => {
                if is_counted {
                    if full.track.is_none() {
                        full.track = Some(Box::new(Track::start(now, before.own)));
                    }
                    if self.is_recovering() {
                        self.begin_recovery_of(full, own.units(), own.units() - before.own.units());
                    }
                }
                true
            }
        };
        if is_counted {
            counter.note_own_moved(before.own, now, &self.horizons);
        }
        let is_listed = counter.marks.has(Marks::DIRTY);
        if has_something_to_say {
            counter.marks.set(Marks::DIRTY, true);
        }
        has_something_to_say && !is_listed
    }

    /// Adds `delta` to the own shard and returns the new total.
    ///
    /// # Errors
    /// `OutOfRange`, or no room for a new counter; nothing has changed then.
    pub fn add(&self, name: &[u8], delta: Value, now: Micros, room: bool) -> Result<Value, ChangeError> {
        self.update(name, now, room, |counter| Ok(counter.add(delta, now, &self.horizons)?))
    }

    /// Makes the counter read `value`.
    ///
    /// # Errors
    /// No room for a new counter; nothing has changed then.
    pub fn set(&self, name: &[u8], value: Value, now: Now, room: bool) -> Result<(), ChangeError> {
        let generation = self.next_generation(now);
        self.update(name, now.monotonic, room, |counter| {
            self.set_counter(counter, value, generation, false, now.monotonic);
            Ok(())
        })
    }

    fn set_counter(
        &self,
        counter: &mut Counter,
        value: Value,
        generation: Generation,
        is_deletion: bool,
        now: Micros,
    ) {
        let is_shared = self.dirty.is_on();
        if is_shared && self.is_recovering() {
            // What a peer may still hand back is a later state of what was here before the SET.
            let own = counter.own().units();
            self.begin_recovery_of(counter.make_full(), own, 0);
        }
        counter.set(value, generation, is_deletion, is_shared, self.own_stream(), now, &self.horizons);
    }

    /// From now on, what is counted is kept apart from the state that a peer may correct: see `Full::begin_recovery`.
    fn begin_recovery_of(&self, full: &mut Full, own: i128, counted: i128) {
        full.give_up_acknowledged(self.acknowledged());
        full.begin_recovery(own, counted);
    }

    /// Makes the counter read zero and disappear. False if there was none of that name.
    pub fn delete(&self, name: &[u8], now: Now) -> bool {
        if !self.contains(name) {
            return false;
        }
        let generation = self.next_generation(now);
        let default = self.default_precision_id();
        let deleted: Result<(), ChangeError> = self.update(name, now.monotonic, false, |counter| {
            self.set_counter(counter, Value::ZERO, generation, true, now.monotonic);
            counter.marks.set(Marks::PRECISION_SET, false);
            counter.precision = default;
            Ok(())
        });
        if !self.dirty.is_on() {
            self.remove_if(name, Counter::is_disposable);
        }
        deleted.is_ok()
    }

    /// Takes a counter away without a trace if it is as it should be for that.
    pub(crate) fn remove_if(&self, name: &[u8], is_to_go: impl FnOnce(&Counter) -> bool) {
        let place = self.place(name);
        let mut stripe = self.lock(place.stripe);
        let Some(index) = stripe.find(place.hash, name) else { return };
        if stripe.counters.get(index).is_some_and(is_to_go) {
            self.remove_at(&mut stripe, place, index);
        }
    }

    fn remove_at(&self, stripe: &mut Stripe, place: Place, index: u32) {
        let Some(counter) = stripe.remove(place.hash, index) else { return };
        if !counter.marks.has(Marks::HIDDEN) {
            self.len.fetch_sub(1, Ordering::Relaxed);
        }
        if self.unlogged.is_on() {
            stripe.lists.removed.push(counter.into_name());
            self.unlogged.note(place.stripe);
        }
    }

    /// The precision of a counter, or the one that it would get.
    pub fn precision(&self, name: &[u8]) -> Precision {
        let id = self.with(name, |counter| counter.precision).unwrap_or_else(|| self.default_precision_id());
        self.precisions.read().precision(id)
    }

    pub(crate) fn precision_of(&self, id: PrecisionId) -> Precision {
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
        self.update(name, now, room, |counter| {
            counter.precision = id;
            counter.marks.set(Marks::PRECISION_SET, !is_default);
            Ok(())
        })
    }

    /// Notes a subscriber; the counter is made if it was missing and kept while somebody subscribes.
    ///
    /// # Errors
    /// No room for a new counter.
    pub(crate) fn subscribe(&self, name: &[u8], now: Micros, room: bool) -> Result<(), ChangeError> {
        self.update(name, now, room, |counter| {
            counter.make_full().subscribers += 1;
            Ok(())
        })
    }

    /// The counterpart of `subscribe`. A counter that was cleared meanwhile is none of our business.
    pub(crate) fn unsubscribe(&self, name: &[u8], now: Micros) {
        let _gone: Result<(), ChangeError> = self.update(name, now, false, |counter| {
            if counter.subscribers() > 0 {
                counter.make_full().subscribers -= 1;
            }
            Ok(())
        });
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
