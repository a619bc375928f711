//! One counter as one node knows it: its own shard, and beside it what only some counters need.
//!
//! An idle counter that was only ever incremented on a lone node costs one `Counter` (64 bytes) and a table slot.
//! A SET on a lone node adds a `Plain`; everything else (shards of peers, what was published, subscribers) lives in a
//! `Full` that is made when first needed. Within `Full`, what only a *moving* shard needs hangs on further boxes that
//! are freed at rest.
//!
//! The rules of SET are in `generation`; this file applies them. Invariant: nothing but `add`, `set`, `learn` and
//! `recover` changes the own shard.
//!
//! Lacks on purpose: locks, time of its own, and any knowledge of who is told about a change (see `keyspace`).

mod full;
mod recovery;
mod since_start;
mod zero;

use crate::generation::{Observed, Record, Stated, Subtractions};
use crate::ids::{Generation, MemberIndex, Seq};
use crate::prediction::Track;
use crate::shard::{Basis, Excursion, Horizons, Merged, PeerShard};
use crate::state::State;
use crate::takeover::{Inheritance, Inherited};
use crate::text::is_same_text;
use crate::time::Micros;
use crate::trail::{self, Trail, View};
use crate::value::{Total, Value, ValueError};
pub(crate) use recovery::KeptCopy;
pub(crate) use since_start::Seen;
use since_start::SinceStart;
use smallvec::SmallVec;
use std::borrow::Cow;
use std::num::NonZeroU8;

/// Longest counter name in bytes: what fits the two length bytes of the bus and of the dump files.
pub const MAX_NAME_LEN: usize = 65_535;

/// A counter's name; up to 16 bytes stand in the counter itself.
pub(crate) type Name = SmallVec<[u8; 16]>;

/// Which entry of the keyspace's table of precisions a counter uses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct PrecisionId(pub(crate) u16);

/// Marks of a counter, one bit each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Marks(u8);

impl Marks {
    /// Somebody set its precision on purpose: it is kept though it reads zero.
    pub(crate) const PRECISION_SET: Marks = Marks(1);
    /// It stands in its stripe's list of counters to look at for removal.
    pub(crate) const ZERO_LISTED: Marks = Marks(2);
    /// It stands in its stripe's list of counters whose own shard has changed since the cluster looked.
    pub(crate) const DIRTY: Marks = Marks(4);
    /// It stands in its stripe's list of counters that have changed since they were logged.
    pub(crate) const UNLOGGED: Marks = Marks(8);
    /// It was deleted and reads zero: users do not see it any more.
    pub(crate) const HIDDEN: Marks = Marks(32);

    pub(crate) fn has(self, mark: Marks) -> bool {
        self.0 & mark.0 != 0
    }

    pub(crate) fn set(&mut self, mark: Marks, on: bool) {
        if on {
            self.0 |= mark.0;
        } else {
            self.0 &= !mark.0;
        }
    }
}

/// A 128-bit number that does not ask for 16-byte alignment.
#[derive(Clone, Copy, Debug, Default)]
struct Packed([u64; 2]);

impl Packed {
    fn new(value: Value) -> Packed {
        let units = value.units();
        Packed([units as u64, (units >> 64) as u64])
    }

    fn value(self) -> Value {
        let units = i128::from(self.0[1] as i64) << 64 | i128::from(self.0[0]);
        Value::from_units_in_range(units)
    }
}

/// A counter's entry.
#[derive(Debug)]
pub(crate) struct Counter {
    name: Name,
    /// What this node counted itself, exact.
    own: Packed,
    side: Side,
    pub(crate) precision: PrecisionId,
    pub(crate) marks: Marks,
    /// One more than the most decimals that the own shard has ever used; the niche keeps `Option` free.
    decimals_plus_one: NonZeroU8,
}

/// What only some counters need.
#[derive(Debug)]
enum Side {
    None,
    /// A SET on a node that has told nobody of this counter.
    Plain(Box<Plain>),
    Full(Box<Full>),
}

#[derive(Debug)]
struct Plain {
    generation: Generation,
    value: Value,
    /// What SETs have subtracted from the own shard, all of them together: nobody else can have observed a part of it.
    subtracted: i128,
}

/// How far the own stream has come.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct OwnStream {
    /// The last publication of any counter.
    pub(crate) head: Seq,
    /// Every member has applied it up to here.
    pub(crate) acknowledged: Seq,
}

/// What a counter needs that other nodes know of, or that somebody watches.
#[derive(Debug, Default)]
pub(crate) struct Full {
    /// How many clients subscribe to this counter here.
    pub(crate) subscribers: u32,
    /// When the own shard was last published; zero: never.
    pub(crate) seq: Seq,
    /// The generation that the own shard is stated in.
    generation: Generation,
    /// The highest SET known; `None`: there was none.
    record: Option<Box<Record>>,
    /// The publication that first carried the record, or the generation if there is no record.
    pub(crate) record_seq: Seq,
    /// A later publication that carried it again; zero: none.
    pub(crate) told_again: Seq,
    /// The last publication said zero, exactly: others may have removed the counter since.
    pub(crate) has_published_zero: bool,
    subtracted: Subtractions,
    /// Shards of departed members within the own one.
    inheritance: Inheritance,
    /// While the own shard moves.
    pub(crate) track: Option<Box<Track>>,
    /// The own shard was restated, or is the seat of a new SET, and that is not published yet.
    pub(crate) is_restated: bool,
    /// In which directions the own shard has ever moved since the start: 1 up, 2 down.
    directions: u8,
    /// Where the own shard has been before its last publication.
    pub(crate) excursion: Excursion,
    /// What was a moment ago, while anybody asks for it.
    pub(crate) trail: Option<Box<Trail>>,
    /// When the track must be asked again.
    pub(crate) deadline: Micros,
    /// The moment for which it stands in the cluster's list of deadlines; zero: it does not.
    pub(crate) scheduled: Micros,
    /// What was counted since the start, while peers may still hold a later state of the own shard.
    since_start: Option<Box<SinceStart>>,
    /// So many subtractions are of lives before, if SETs of this one are below those: members who know nothing of this life yet may
    /// still SET what they had.
    former: Option<usize>,
    peers: Vec<PeerShard>,
}

impl Counter {
    pub(crate) fn new(name: &[u8], precision: PrecisionId) -> Counter {
        Counter {
            name: Name::from_slice(name),
            own: Packed::default(),
            side: Side::None,
            precision,
            marks: Marks::default(),
            decimals_plus_one: NonZeroU8::MIN,
        }
    }

    /// A counter that begins in a generation: see `Keyspace::floor_of`.
    pub(crate) fn born_in(mut self, generation: Generation) -> Counter {
        if !generation.is_zero() {
            self.make_full().generation = generation;
        }
        self
    }

    /// A node that has started anew knows now what it may have removed before: what it has counted since, on a counter of
    /// which it knew nothing and which nobody knows yet, begins there.
    pub(crate) fn begin_at(&mut self, floor: Generation) {
        let is_fresh = self.generation().is_zero()
            && self.full().is_none_or(|full| full.seq == Seq::ZERO && full.generation.is_zero());
        if is_fresh && !floor.is_zero() && !self.is_own_zero() {
            self.make_full().generation = floor;
        }
    }

    pub(crate) fn name(&self) -> &[u8] {
        &self.name
    }

    /// Whether that is its name.
    #[inline]
    pub(crate) fn is_named(&self, name: &[u8]) -> bool {
        is_same_text(&self.name, name)
    }

    pub(crate) fn into_name(self) -> Name {
        self.name
    }

    /// What this node counted itself.
    pub(crate) fn own(&self) -> Value {
        self.own.value()
    }

    /// Whether this node's part is zero.
    pub(crate) fn is_own_zero(&self) -> bool {
        self.own.0 == [0, 0]
    }

    /// The most decimals that the own shard has ever used.
    pub(crate) fn decimals(&self) -> u8 {
        self.decimals_plus_one.get() - 1
    }

    pub(crate) fn full(&self) -> Option<&Full> {
        match &self.side {
            Side::Full(full) => Some(full),
            Side::None | Side::Plain(_) => None,
        }
    }

    pub(crate) fn full_mut(&mut self) -> Option<&mut Full> {
        match &mut self.side {
            Side::Full(full) => Some(full),
            Side::None | Side::Plain(_) => None,
        }
    }

    /// Makes room for what only some counters need.
    pub(crate) fn make_full(&mut self) -> &mut Full {
        if !matches!(self.side, Side::Full(_)) {
            let mut full = Full::default();
            if let Side::Plain(plain) = &self.side {
                full.generation = plain.generation;
                full.is_restated = true;
                if plain.subtracted != 0 {
                    full.subtracted.note(Generation::ZERO, plain.subtracted);
                }
                full.record = Some(Box::new(Record {
                    generation: plain.generation,
                    value: plain.value,
                    is_deletion: false,
                    observed: Vec::new(),
                }));
            }
            self.side = Side::Full(Box::new(full));
        }
        match &mut self.side {
            Side::Full(full) => full,
            Side::None | Side::Plain(_) => unreachable!("made above"),
        }
    }

    /// The generation of the highest SET known.
    pub(crate) fn generation(&self) -> Generation {
        match &self.side {
            Side::None => Generation::ZERO,
            Side::Plain(plain) => plain.generation,
            Side::Full(full) => full.record.as_ref().map_or(Generation::ZERO, |record| record.generation),
        }
    }

    /// For the disk: the record behind the counter (value, whether a DEL, what its author had observed), and the
    /// generation that the own shard is stated in.
    #[allow(clippy::type_complexity, reason = "the parts of a record, for the one that writes them down")]
    pub(crate) fn kept_record(&self) -> (Option<(Value, bool, &[Observed])>, Generation) {
        match &self.side {
            Side::None => (None, Generation::ZERO),
            Side::Plain(plain) => (Some((plain.value, false, &[])), plain.generation),
            Side::Full(full) => {
                let record =
                    full.record().map(|kept| (kept.value, kept.is_deletion, kept.observed.as_slice()));
                (record, full.generation)
            }
        }
    }

    /// For the disk: what SETs have subtracted from the own shard.
    pub(crate) fn kept_subtractions(&self) -> Cow<'_, Subtractions> {
        match &self.side {
            Side::None => Cow::Owned(Subtractions::default()),
            Side::Plain(plain) => {
                let mut subtracted = Subtractions::default();
                if plain.subtracted != 0 {
                    subtracted.note(Generation::ZERO, plain.subtracted);
                }
                Cow::Owned(subtracted)
            }
            Side::Full(full) => {
                full.joined_subtractions(self.own()).map_or(Cow::Borrowed(&full.subtracted), Cow::Owned)
            }
        }
    }

    /// Becomes what the disk remembers. Who subscribes now goes on to; what is not kept is as in a new counter.
    pub(crate) fn restore(&mut self, state: State) {
        let subscribers = self.subscribers();
        self.decimals_plus_one = NonZeroU8::MIN;
        self.put_own(state.own);
        self.widen_decimals(state.decimals);
        self.side = Side::None;
        let State {
            seq,
            generation,
            record,
            record_seq,
            is_unpublished,
            has_published_zero,
            subtracted,
            inheritance,
            since_start,
            since_base,
            peers,
            ..
        } = state;
        let is_plain = peers.is_empty()
            && inheritance.is_empty()
            && since_start.is_none()
            && seq == Seq::ZERO
            && subscribers == 0
            && !is_unpublished
            && !has_published_zero;
        let own = self.own();
        let sum = subtracted.sum_if_one();
        match record {
            None if is_plain && generation.is_zero() && subtracted.is_empty() => {}
            Some(record)
                if is_plain
                    && sum.is_some()
                    && !record.is_deletion
                    && record.observed.is_empty()
                    && generation == record.generation =>
            {
                let subtracted = sum.unwrap_or_default();
                self.side = Side::Plain(Box::new(Plain { generation, value: record.value, subtracted }));
            }
            record => {
                let full = self.make_full();
                *full = Full {
                    subscribers,
                    seq,
                    generation,
                    record: record.map(Box::new),
                    record_seq,
                    has_published_zero,
                    inheritance,
                    is_restated: is_unpublished,
                    since_start: since_start.map(|earlier| {
                        let stated = Stated { member: MemberIndex::SELF, generation, seq, value: own };
                        Box::new(SinceStart::from_disk(earlier, since_base, stated, &subtracted))
                    }),
                    subtracted,
                    peers,
                    ..Full::default()
                };
            }
        }
    }

    /// What the highest SET known set; zero before any.
    pub(crate) fn set_value(&self) -> Value {
        match &self.side {
            Side::None => Value::ZERO,
            Side::Plain(plain) => plain.value,
            Side::Full(full) => full.record.as_ref().map_or(Value::ZERO, |record| record.value),
        }
    }

    /// The own shard as the rules of SET see it.
    pub(crate) fn stated(&self) -> Stated {
        let (generation, seq) = match &self.side {
            Side::None => (Generation::ZERO, Seq::ZERO),
            Side::Plain(plain) => (plain.generation, Seq::ZERO),
            Side::Full(full) => (full.generation, full.seq),
        };
        Stated { member: MemberIndex::SELF, generation, seq, value: self.own() }
    }

    /// The value of the counter at this moment: own shard plus every peer's line. If the sum of the shards lies beyond the
    /// range, the end of the range.
    pub(crate) fn total(&self, now: Micros, horizons: &Horizons) -> Value {
        match &self.side {
            Side::None => self.own(),
            Side::Plain(plain) => self.own().saturating_add(plain.value),
            Side::Full(full) => {
                let mut total = Total::default();
                for units in full.parts(self.stated(), now, Some(horizons)) {
                    total.include(Value::saturating_from_units(units));
                }
                total.saturating()
            }
        }
    }

    /// A value, and how far it may be from the truth of `moment`, units of 10^-17: the own shard as it is, and what is known of
    /// the others, drawn to that moment. `None`: it may be anything.
    pub(crate) fn bounded(&self, moment: Micros, horizons: &Horizons) -> (Value, Option<i128>) {
        let Some(full) = self.full() else { return (self.total(moment, horizons), Some(0)) };
        (self.total(moment, horizons), full.bound_units(self.own().units(), moment, horizons))
    }

    /// Adds to the own shard and returns the new total.
    ///
    /// # Errors
    /// `OutOfRange` if the shard or the total would leave the range; nothing has changed then.
    #[inline]
    pub(crate) fn add(
        &mut self,
        delta: Value,
        now: Micros,
        horizons: &Horizons,
    ) -> Result<Value, ValueError> {
        let own = self.own().checked_add(delta)?;
        let total = match &self.side {
            Side::None => own,
            Side::Plain(_) | Side::Full(_) => self.total(now, horizons).checked_add(delta)?,
        };
        if let Side::Full(full) = &mut self.side
            && let Some(since) = &mut full.since_start
        {
            since.counted += delta.units();
        }
        self.own = Packed::new(own);
        // Where the sum needs more decimals than were ever used, it needs as many as what was added.
        self.note_decimals(delta);
        Ok(total)
    }

    /// Makes the counter read `value`: a new generation of which this node is the author. `is_shared`: there are members
    /// who must be told.
    #[allow(
        clippy::too_many_arguments,
        reason = "what a SET needs to know; each is given by name at its two callers"
    )]
    pub(crate) fn set(
        &mut self,
        value: Value,
        generation: Generation,
        is_deletion: bool,
        is_shared: bool,
        stream: OwnStream,
        now: Micros,
        horizons: &Horizons,
    ) {
        self.note_decimals(value);
        if !matches!(self.side, Side::Full(_)) && !is_shared {
            let own = self.own().units();
            self.put_own(Value::ZERO);
            match &mut self.side {
                Side::Plain(plain) => {
                    (plain.generation, plain.value) = (generation, value);
                    plain.subtracted += own;
                }
                Side::None | Side::Full(_) => {
                    self.side = Side::Plain(Box::new(Plain { generation, value, subtracted: own }));
                }
            }
            return;
        }
        let mut own = self.stated();
        // What is not published yet is seen as well. Whatever is published of it later has a higher seq than this.
        own.seq = own.seq.max(stream.head);
        let full = self.make_full();
        // What was counted since the start is in no copy that a peer may still hand back, so it is not seen in one.
        let unpublished = full.since_start.as_deref().filter(|since| since.base.seq == full.seq);
        let (apart, counted) = unpublished.map_or((0, 0), |since| (since.apart(), since.all()));
        let left = full.generation;
        match unpublished.map(|since| since.base).filter(|base| base.seq != Seq::ZERO) {
            // Of what it has from a life before, all is seen; said as that life has stated it, as later copies of it are.
            Some(base) => (own.generation, own.value) = (base.generation, base.value),
            None => own.value = Value::saturating_from_units(own.value.units().saturating_sub(apart)),
        }
        let before = full.record.take().unwrap_or_default();
        let peers = full.peers.iter().map(|peer| peer.stated(before.generation, now, horizons));
        let record = before.succeeded_by(generation, value, is_deletion, std::iter::once(own).chain(peers));
        full.record = Some(before);
        self.learn(record, stream.acknowledged);
        self.make_full().is_restated = true;
        self.see_all_counted_since_start(left, counted);
    }

    /// Takes over a higher generation and restates the own shard relative to it. False if it is not higher. Every member has
    /// applied our stream up to `acknowledged`, so what only older generations could ask back is forgotten.
    pub(crate) fn learn(&mut self, record: Record, acknowledged: Seq) -> bool {
        if record.generation <= self.generation() {
            return false;
        }
        let before = self.own().units();
        let own = before + self.make_full().take_seen();
        let full = self.make_full();
        // An own shard at rest is not published again, while others may have removed the counter and know nothing of the departed.
        full.forget_inherited_before(acknowledged);
        // Others may still have what was zero when the counter was removed here; it is no longer said in an older generation.
        let is_born_anew = full.seq == Seq::ZERO && !full.generation.is_zero();
        full.is_restated |= is_born_anew;
        if full.generation >= record.generation {
            self.learn_older(record);
            return true;
        }
        if full.is_known_to_all(acknowledged) {
            full.forget_subtractions();
        }
        let seen = record.observed_of(MemberIndex::SELF);
        let amount = full.amount_for(seen);
        let is_counted = full.seq != Seq::ZERO || own != 0 || !full.subtracted.is_empty();
        // After a crash the SET may have observed it in a generation that is not known here any more.
        let left = seen.map_or(full.generation, |seen| seen.generation.max(full.generation));
        if is_counted {
            full.subtracted.note(left, amount);
        }
        let amount = amount.wrapping_sub(full.inheritance.restate(&record, left));
        if full.seq == Seq::ZERO {
            full.subtracted.collapse();
        }
        let restated = own.wrapping_sub(amount);
        if let Some(trail) = &mut full.trail {
            trail.shift_own(restated.wrapping_sub(before));
        }
        full.generation = record.generation;
        full.replace_record(record);
        full.is_restated = is_counted || is_born_anew;
        full.track = None;
        self.put_own(Value::saturating_from_units(restated));
        true
    }

    /// Takes over a generation that is higher than the one known, but not above that of the own shard: nothing of this shard
    /// was there to be observed.
    fn learn_older(&mut self, record: Record) {
        let own = self.own().units();
        let full = self.make_full();
        let left = full.record_generation();
        let inherited = full.inheritance.restate(&record, left);
        full.replace_record(record);
        if inherited != 0 {
            if let Some(trail) = &mut full.trail {
                trail.shift_own(inherited);
            }
            full.is_restated = true;
            full.track = None;
            self.put_own(Value::saturating_from_units(own + inherited));
        }
    }

    /// Makes a departed member's shard a part of the own one, as it is read here: its line stands where it held last. True if
    /// there was one.
    pub(crate) fn inherit(&mut self, departed: MemberIndex, now: Micros, horizons: &Horizons) -> bool {
        let own = self.own().units();
        let Some(full) = self.full_mut() else { return false };
        let Some(shard) = full.take_peer(departed) else { return false };
        let generation = full.record_generation();
        let stated = shard.stated(generation, now, horizons);
        // Nobody else will restate it, so what follows from the record in force has to be written down.
        let in_force = full.record().filter(|record| record.generation == stated.generation);
        let subtracted = match shard.subtracted() {
            Some(subtracted) => subtracted.clone(),
            None => in_force.map(|record| Subtractions::by(record, departed)).unwrap_or_default(),
        };
        let counts =
            full.record().map_or(stated.value.units(), |record| record.counts_beside(&stated, &subtracted));
        full.inheritance.add(Inherited {
            departed: stated,
            subtracted,
            counts,
            subtracted_since: Subtractions::default(),
            told: Seq::ZERO,
        });
        if let Some(trail) = &mut full.trail {
            trail.shift_own(counts);
        }
        full.track = None;
        full.is_restated = true;
        self.put_own(Value::saturating_from_units(own + counts));
        self.widen_decimals(shard.decimals());
        true
    }

    /// Joins what is known of a peer's shard with what has come.
    pub(crate) fn merge(&mut self, shard: PeerShard, basis: Basis) -> Merged {
        let member = shard.member();
        let full = self.make_full();
        let merged = full.merge(shard, basis);
        full.is_restated |= merged == Merged::Advanced && full.must_tell(member);
        merged
    }

    /// The same, and remembers the line that is replaced for those who ask what it said. Its owner has vouched for it up to
    /// `vouched`.
    pub(crate) fn merge_remembering(
        &mut self,
        shard: PeerShard,
        basis: Basis,
        (now, vouched): (Micros, Micros),
        horizons: &Horizons,
    ) -> Merged {
        let member = shard.member();
        let before = self.full().and_then(|full| full.peer(member)).cloned();
        let is_resting = |shard: &PeerShard| shard.moving().is_none();
        let in_force = self.generation();
        let says_the_same = before.as_ref().is_some_and(|before| {
            let is_of_same = before.generation(in_force) == basis.generation;
            is_of_same && is_resting(before) && is_resting(&shard) && before.value() == shard.value()
        }) && basis.generation == in_force;
        let generation = basis.generation;
        let merged = self.merge(shard, basis);
        if merged == Merged::Advanced && !says_the_same {
            let full = self.make_full();
            let view = View { record: full.record.as_deref(), horizons };
            // It may begin where the counter was removed.
            let begun = generation.min(full.generation).max(full.record_generation());
            let before = before.unwrap_or_else(|| trail::nothing_of(member, begun, view.record));
            let trail = full.trail.get_or_insert_default();
            trail.forget_before(horizons.past_needed());
            trail.note_replaced(before, (now, vouched), &view);
        }
        merged
    }

    /// The own shard was moved by a client, from `before` to what it is.
    pub(crate) fn note_own_moved(&mut self, before: Value, now: Micros, horizons: &Horizons) {
        let own = self.own();
        let full = self.make_full();
        full.directions |= if own > before { Full::UP } else { Full::DOWN };
        let trail = full.trail.get_or_insert_default();
        if let Some(track) = &full.track {
            trail.note_deviation(before.units(), own.units(), track.line().at(now).units());
        }
        trail.note_own(before.units(), now, horizons.past_needed());
    }

    fn put_own(&mut self, own: Value) {
        self.own = Packed::new(own);
        self.note_decimals(own);
    }

    fn note_decimals(&mut self, value: Value) {
        self.widen_decimals(value.decimals());
    }

    fn widen_decimals(&mut self, decimals: u8) {
        if decimals >= self.decimals_plus_one.get() {
            self.decimals_plus_one = NonZeroU8::new(decimals + 1).expect("one more than a count is not zero");
        }
    }

    /// How many clients subscribe to it here.
    pub(crate) fn subscribers(&self) -> u32 {
        self.full().map_or(0, |full| full.subscribers)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_most_decimals_ever_used_are_those_of_the_own_shards_values() {
        let values = ["0.1", "0.25", "-0.15", "0.000001", "3", "-0.250001", "1e-17", "-1e-17", "100"]
            .map(|text| Value::parse(text.as_bytes()).unwrap());
        for first in values {
            for second in values {
                for third in values {
                    let (mut counter, mut most) = (Counter::new(b"a", PrecisionId(0)), 0);
                    for delta in [first, second, third] {
                        counter.add(delta, Micros(1), &Horizons::default()).unwrap();
                        most = counter.own().decimals().max(most);
                        assert_eq!(counter.decimals(), most, "{first} {second} {third}");
                    }
                }
            }
        }
    }

    #[test]
    fn an_idle_counter_costs_64_bytes() {
        assert_eq!(size_of::<Counter>(), 64);
        assert_eq!(size_of::<Option<Counter>>(), 64, "the slab's places must not grow by a tag");
    }
}
