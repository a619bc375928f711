//! A peer's shard as this node knows it, and how it is read.
//!
//! A resting shard is a value and its seq. A moving one also has a line; it is followed until the owner has been silent
//! for a few heartbeats (its *horizon*) and stands still from there.

use crate::generation::{Record, Stated, Subtractions};
use crate::ids::{Generation, MemberIndex, Seq};
use crate::prediction::Line;
use crate::takeover::TakenOver;
use crate::time::Micros;
use crate::value::Value;
use std::sync::atomic::{AtomicU64, Ordering};

/// Most members that a node can know in its lifetime, departed ones included.
pub const MAX_MEMBERS: usize = 1_024;

/// What every GET must know of each member: until when its lines are followed, and as of when they hold. Moments on our
/// monotonic clock. Written by the cluster alone.
#[derive(Debug)]
pub(crate) struct Horizons {
    follow_until: Box<[AtomicU64]>,
    as_of: Box<[AtomicU64]>,
    /// The oldest of all `as_of`; `NOBODY`: there is no member.
    oldest: AtomicU64,
    /// Of what was before, too little is remembered to claim anything.
    floor: AtomicU64,
}

/// Stands in `as_of` where there is no member.
const NOBODY: u64 = u64::MAX;

/// GET BOUND tells the age in whole milliseconds, so it may speak of a moment that is so much older, in microseconds.
const ROUNDING: u64 = 1_000;

impl Default for Horizons {
    fn default() -> Horizons {
        let all = |value: u64| (0..MAX_MEMBERS).map(|_| AtomicU64::new(value)).collect();
        let oldest = AtomicU64::new(NOBODY);
        Horizons { follow_until: all(0), as_of: all(NOBODY), oldest, floor: AtomicU64::new(0) }
    }
}

impl Horizons {
    /// The latest moment to which this member's lines may be drawn.
    pub(crate) fn of(&self, member: MemberIndex) -> Micros {
        Micros(self.follow_until[usize::from(member.0)].load(Ordering::Relaxed))
    }

    /// From now on this is a member, of which nothing is known yet.
    pub(crate) fn add(&self, member: MemberIndex) {
        let absent = self.as_of[usize::from(member.0)].compare_exchange(
            NOBODY,
            0,
            Ordering::Relaxed,
            Ordering::Relaxed,
        );
        debug_assert!(absent.is_ok() || self.as_of(member).is_some());
        self.note_oldest();
    }

    /// It is no member any more; its lines stand still where they held last. Others may know more of it than we do, so GET BOUND
    /// speaks of no later moment until it is removed.
    pub(crate) fn freeze(&self, member: MemberIndex) {
        if let Some(as_of) = self.as_of(member) {
            self.follow_until[usize::from(member.0)].store(as_of.0, Ordering::Relaxed);
        }
    }

    /// Nobody knows more of it.
    pub(crate) fn remove(&self, member: MemberIndex) {
        self.freeze(member);
        self.as_of[usize::from(member.0)].store(NOBODY, Ordering::Relaxed);
        self.note_oldest();
    }

    /// There are no members any more; the next ones have the same indices.
    pub(crate) fn clear(&self) {
        self.follow_until.iter().for_each(|until| until.store(0, Ordering::Relaxed));
        self.as_of.iter().for_each(|as_of| as_of.store(NOBODY, Ordering::Relaxed));
        self.note_oldest();
    }

    /// The link to it has broken: its lines are followed no further than this.
    pub(crate) fn follow_at_most(&self, member: MemberIndex, until: Micros) {
        self.follow_until[usize::from(member.0)].fetch_min(until.0, Ordering::Relaxed);
    }

    pub(crate) fn follow(&self, member: MemberIndex, until: Micros) {
        self.follow_until[usize::from(member.0)].fetch_max(until.0, Ordering::Relaxed);
    }

    pub(crate) fn set_as_of(&self, member: MemberIndex, as_of: Micros) {
        self.as_of[usize::from(member.0)].store(as_of.0, Ordering::Relaxed);
        self.note_oldest();
    }

    fn note_oldest(&self) {
        let known = self.as_of.iter().map(|at| at.load(Ordering::Relaxed)).min();
        // Whoever sees this sees also what had been merged before it became true.
        self.oldest.store(known.unwrap_or(NOBODY), Ordering::Release);
    }

    /// Of the counters as they were before `now`, too little is remembered from now on.
    pub(crate) fn forget_past(&self, now: Micros) {
        self.floor.fetch_max(now.0, Ordering::Release);
    }

    /// The moment of which GET BOUND can speak. `None`: of no moment, since a member was never heard of, or what was before is
    /// not remembered.
    pub(crate) fn moment_known(&self, now: Micros) -> Option<Micros> {
        let oldest = self.oldest.load(Ordering::Acquire);
        // In whole milliseconds before now, as it is told.
        let moment = now.since(Micros(now.since(Micros(oldest)).0.div_ceil(1_000) * 1_000));
        let is_known = oldest != 0 && (oldest == NOBODY || moment.0 >= self.floor.load(Ordering::Acquire));
        is_known.then_some(moment)
    }

    /// What was before this moment is asked for by nobody any more. `NEVER`: nor what is now.
    pub(crate) fn past_needed(&self) -> Micros {
        match self.oldest.load(Ordering::Acquire) {
            0 | NOBODY => Micros::NEVER,
            oldest => Micros(oldest.saturating_sub(ROUNDING).max(self.floor.load(Ordering::Acquire))),
        }
    }

    /// The moment as of which what is known of this member holds; `None`: it is no member.
    pub(crate) fn as_of(&self, member: MemberIndex) -> Option<Micros> {
        Some(self.as_of[usize::from(member.0)].load(Ordering::Relaxed)).filter(|&at| at != NOBODY).map(Micros)
    }
}

/// What joining new knowledge with old came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Merged {
    /// It was news.
    Advanced,
    /// It was known already.
    Duplicate,
    /// Something later was known.
    Stale,
}

/// Half a unit of the last of so many decimals, in units of 10^-17.
fn half_of_last(decimals: u8) -> i128 {
    10i128.pow(u32::from(Value::DECIMALS - decimals)) / 2 + 1
}

/// Per microsecond that has passed since a line's moment, so much may our clock and its owner's have drifted apart.
const DRIFT: f64 = crate::cluster::DRIFT_PPM as f64 / 1e6;

/// Where a shard has been between two publications: how far outside of all that lies between the first's line, give or take
/// its precision, and the second's value. In steps that double, rounded up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Excursion(pub(crate) u8);

impl Excursion {
    /// Nowhere, and it has only ever moved in one direction: so not between any two other publications either.
    pub(crate) const NONE: Excursion = Excursion(0);
    /// Nowhere.
    pub(crate) const INSIDE: Excursion = Excursion(1);
    /// It may have been anywhere.
    pub(crate) const ANYWHERE: Excursion = Excursion(u8::MAX);

    /// At most so far, units of 10^-17.
    pub(crate) fn at_most(units: i128) -> Excursion {
        let doublings = i128::BITS - units.max(0).leading_zeros();
        Excursion(Excursion::INSIDE.0 + doublings as u8)
    }

    /// How far at most, units of 10^-17; `None`: anywhere.
    pub(crate) fn units(self) -> Option<i128> {
        match self.0 {
            0 | 1 => Some(0),
            step if u32::from(step) < i128::BITS => Some((1 << (step - 1)) - 1),
            _ => None,
        }
    }

    /// The same if publications between the two were left out.
    pub(crate) fn over_a_gap(self) -> Excursion {
        if self == Excursion::NONE { self } else { Excursion::ANYWHERE }
    }
}

/// A peer's shard.
#[derive(Clone, Debug)]
pub(crate) struct PeerShard {
    member: MemberIndex,
    /// The most decimals that it has ever used; estimates are rounded to as many.
    decimals: u8,
    excursion: Excursion,
    seq: Seq,
    /// Exact at the line's moment.
    value: Value,
    /// `None`: it is stated in the generation of the counter's record, and only that SET has been subtracted from it.
    basis: Option<Box<Basis>>,
    /// `None`: it rests, and `value` is exact.
    moving: Option<Box<Moving>>,
    /// Shards of departed members that are part of it.
    taken_over: Option<Box<[TakenOver]>>,
}

/// What a shard is stated relative to: the generation, and what its owner had subtracted when it published it (empty: it is not
/// known). After a crash without a disk nobody else would know.
#[derive(Clone, Debug, Default)]
pub(crate) struct Basis {
    pub(crate) generation: Generation,
    pub(crate) subtracted: Subtractions,
}

impl Basis {
    /// Of a shard that is stated in the generation of this record, if its owner had subtracted nothing before.
    pub(crate) fn of(record: &Record, member: MemberIndex) -> Basis {
        Basis { generation: record.generation, subtracted: Subtractions::by(record, member) }
    }
}

impl From<Generation> for Basis {
    /// It is not known what was subtracted.
    fn from(generation: Generation) -> Basis {
        Basis { generation, subtracted: Subtractions::default() }
    }
}

/// The line of a shard that moves.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Moving {
    /// Units of 10^-17 per microsecond. Of an unanchored one: how far in all the line had moved, units of 10^-17.
    pub(crate) slope: f64,
    /// When the line passes through the value, on our clock.
    pub(crate) moment: Micros,
    /// How far `moment` may be off, microseconds.
    pub(crate) moment_error: Micros,
    /// How far the truth may be from the line, units of 10^-17.
    pub(crate) precision_units: i128,
}

impl Moving {
    /// Of a shard that was moving when it was written to disk: it stands where its line had come to, so many units from its
    /// value, and how far the truth has moved since is not known.
    pub(crate) fn unanchored(moved: f64, precision_units: i128) -> Moving {
        Moving { slope: moved, moment: Micros(0), moment_error: Micros::NEVER, precision_units }
    }

    fn is_unanchored(&self) -> bool {
        self.moment_error == Micros::NEVER
    }

    /// Where on the line to read it: it is followed up to `horizon` at most (zero: its owner was never heard of), but never back
    /// before its own moment, or before now if that is still to come. An unanchored one stands: it is read one microsecond
    /// after its moment.
    fn until(&self, now: Micros, horizon: Micros) -> Micros {
        if self.is_unanchored() {
            return Micros(self.moment.0.wrapping_add(1));
        }
        // A moment before our clock's zero has wrapped round, so it is compared as a signed number.
        let signed = |moment: Micros| moment.0 as i64;
        let earliest = signed(self.moment).min(signed(now));
        let latest = if horizon == Micros(0) { earliest } else { signed(now.min(horizon)) };
        Micros(latest.max(earliest) as u64)
    }

    /// The line's value there.
    fn at(&self, anchor: Value, now: Micros, horizon: Micros) -> Value {
        Line { anchor, slope: self.slope, moment: self.moment }.at(self.until(now, horizon))
    }
}

impl PeerShard {
    pub(crate) fn new(
        member: MemberIndex,
        seq: Seq,
        value: Value,
        decimals: u8,
        moving: Option<Moving>,
        taken_over: Vec<TakenOver>,
    ) -> PeerShard {
        let taken_over = (!taken_over.is_empty()).then(|| taken_over.into_boxed_slice());
        let moving = moving.map(Box::new);
        PeerShard {
            member,
            decimals,
            excursion: Excursion::NONE,
            seq,
            value,
            basis: None,
            moving,
            taken_over,
        }
    }

    /// The same with what its owner has told of the time before it.
    pub(crate) fn after(self, excursion: Excursion) -> PeerShard {
        PeerShard { excursion, ..self }
    }

    /// Where it has been between the line before it and this one.
    pub(crate) fn excursion(&self) -> Excursion {
        self.excursion
    }

    /// Shards of departed members that are part of it.
    pub(crate) fn taken_over(&self) -> &[TakenOver] {
        self.taken_over.as_deref().unwrap_or_default()
    }

    pub(crate) fn member(&self) -> MemberIndex {
        self.member
    }

    pub(crate) fn seq(&self) -> Seq {
        self.seq
    }

    pub(crate) fn value(&self) -> Value {
        self.value
    }

    pub(crate) fn decimals(&self) -> u8 {
        self.decimals
    }

    pub(crate) fn moving(&self) -> Option<&Moving> {
        self.moving.as_deref()
    }

    /// Whether it was read from disk and had been moving: it stands where its line once stood, and its owner must be
    /// asked for this seq again.
    pub(crate) fn is_unanchored(&self) -> bool {
        self.moving.as_ref().is_some_and(|moving| moving.is_unanchored())
    }

    /// How far its line has moved from its value, units of 10^-17: what is written of it, for a line's moment can't be. As of the
    /// last moment of which its owner has said that it held: should nobody hear of the owner again, that is all that is known.
    pub(crate) fn moved(&self, now: Micros, horizons: &Horizons) -> f64 {
        match &self.moving {
            Some(moving) if moving.is_unanchored() => moving.slope,
            Some(moving) => {
                // A moment before our clock's zero has wrapped round.
                let at_least = Micros((moving.moment.0 as i64).max(0) as u64);
                let held = horizons.as_of(self.member).map_or(now, |as_of| as_of.max(at_least).min(now));
                self.estimate(held, horizons).units().saturating_sub(self.value.units()) as f64
            }
            None => 0.0,
        }
    }

    /// The generation that it is stated in, given that of the counter's record.
    pub(crate) fn generation(&self, record: Generation) -> Generation {
        self.basis.as_ref().map_or(record, |basis| basis.generation)
    }

    /// What it is stated relative to, beside the counter's record.
    pub(crate) fn base_on(&mut self, basis: Basis, record: Option<&Record>) {
        let Basis { generation, subtracted } = &basis;
        let is_plain = match record {
            None => generation.is_zero(),
            Some(record) => {
                *generation == record.generation
                    && (subtracted.is_empty() || *subtracted == Subtractions::by(record, self.member))
            }
        };
        self.basis = (!is_plain).then(|| Box::new(basis));
    }

    /// The counter has another record now: what followed from the one before has to be written down.
    pub(crate) fn note_new_record(&mut self, before: Option<&Record>, now: &Record) {
        let basis = match (self.basis.take(), before) {
            (Some(basis), _) => *basis,
            (None, Some(before)) => Basis::of(before, self.member),
            (None, None) => Basis::default(),
        };
        self.base_on(basis, Some(now));
    }

    /// Nobody can ask back what its owner had subtracted from it: every member knows the SET that it is stated under.
    pub(crate) fn give_up_subtractions(&mut self, record: Option<&Record>) {
        let generation = self.generation(record.map_or(Generation::ZERO, |record| record.generation));
        if !generation.is_zero() {
            self.base_on(Basis { generation, subtracted: Subtractions::given_up(generation) }, record);
        }
    }

    /// What its owner had subtracted from it, unless that follows from the counter's record, or is not known.
    pub(crate) fn subtracted(&self) -> Option<&Subtractions> {
        self.basis.as_ref().map(|basis| &basis.subtracted).filter(|subtracted| !subtracted.is_empty())
    }

    /// Its value at this moment, rounded to the decimals that it uses.
    pub(crate) fn estimate(&self, now: Micros, horizons: &Horizons) -> Value {
        match &self.moving {
            None => self.value,
            Some(moving) => moving.at(self.value, now, horizons.of(self.member)).round_to(self.decimals),
        }
    }

    /// Its line at a moment, also before its own, and how far the truth may have been from that if the line held then: the
    /// precision, what the line moves while its moment is uncertain, the clocks' drift and the rounding.
    pub(crate) fn drawn(&self, moment: Micros, horizons: &Horizons) -> (Value, i128) {
        let Some(moving) = &self.moving else { return (self.value, 0) };
        if moving.is_unanchored() {
            let is_unknown = horizons.as_of(self.member).is_some();
            let error = if is_unknown { i128::MAX } else { moving.precision_units };
            return (self.estimate(moment, horizons), error);
        }
        let line = Line { anchor: self.value, slope: moving.slope, moment: moving.moment };
        let horizon = horizons.of(self.member);
        let until = if moment > horizon { moving.until(moment, horizon) } else { moment };
        let mut error = moving.precision_units;
        if moving.slope != 0.0 {
            let drift = line.age_micros(until).unsigned_abs() as f64 * DRIFT;
            let skew = (moving.slope.abs() * (moving.moment_error.0 as f64 + drift + 1.0)) as i128;
            error = error.saturating_add(skew).saturating_add(half_of_last(self.decimals));
        }
        (line.at(until), error)
    }

    /// As the rules of SET see it at this moment.
    pub(crate) fn stated(&self, record: Generation, now: Micros, horizons: &Horizons) -> Stated {
        Stated {
            member: self.member,
            generation: self.generation(record),
            seq: self.seq,
            value: self.estimate(now, horizons),
        }
    }

    /// As the rules of SET see it, with its value as it was published.
    pub(crate) fn as_published(&self, record: Generation) -> Stated {
        Stated { member: self.member, generation: self.generation(record), seq: self.seq, value: self.value }
    }

    /// Whether it reads zero and does not move.
    pub(crate) fn is_zero(&self) -> bool {
        self.value.is_zero() && self.moving.as_ref().is_none_or(|moving| moving.slope == 0.0)
    }

    /// Joins it with what has come. Commutative, associative and idempotent: the later seq stands; of one
    /// seq, the copy that knows its line.
    pub(crate) fn merge(&mut self, mut shard: PeerShard, basis: Basis, record: Option<&Record>) -> Merged {
        match shard.seq.cmp(&self.seq) {
            std::cmp::Ordering::Less => Merged::Stale,
            std::cmp::Ordering::Equal if !self.is_unanchored() || shard.is_unanchored() => Merged::Duplicate,
            std::cmp::Ordering::Equal | std::cmp::Ordering::Greater => {
                let in_force = record.map_or(Generation::ZERO, |record| record.generation);
                let mut basis = basis;
                if basis.subtracted.is_empty()
                    && self.generation(in_force) == basis.generation
                    && let Some(known) = self.subtracted()
                {
                    basis.subtracted = known.clone();
                }
                shard.base_on(basis, record);
                shard.decimals = shard.decimals.max(self.decimals);
                *self = shard;
                Merged::Advanced
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_excursion_is_rounded_up() {
        for units in [0, 1, 2, 3, 100, 1 << 64, (1 << 90) + 1] {
            let told = Excursion::at_most(units).units().unwrap();
            assert!(told >= units && told <= units * 2, "{units} is told as {told}");
        }
        assert_eq!(Excursion::at_most(i128::MAX).units(), None);
        assert_eq!(Excursion::INSIDE.over_a_gap(), Excursion::ANYWHERE);
        assert_eq!(Excursion::NONE.over_a_gap(), Excursion::NONE);
    }

    #[test]
    fn a_line_of_a_member_never_heard_of_is_not_drawn_back_to_the_clocks_zero() {
        let (horizons, now) = (Horizons::default(), Micros::from_secs(100));
        // The last but one is before the clock's zero.
        for ahead in [-5_000i64, 0, 5_000, -200_000_000, -99_000_000] {
            let moving = Moving {
                slope: Value::ONE.units() as f64,
                moment: Micros((now.0 as i64 + ahead) as u64),
                moment_error: Micros(0),
                precision_units: 0,
            };
            let value = Value::from_integer(10_000);
            let shard = PeerShard::new(
                MemberIndex(1),
                Seq { incarnation: 1, n: 1 },
                value,
                0,
                Some(moving),
                Vec::new(),
            );
            // It holds at its own moment; if that is still to come, the line is read where it is now.
            let expected = 10_000 - ahead.max(0);
            assert_eq!(shard.estimate(now, &horizons), Value::from_integer(expected), "{ahead}");
            assert_eq!(shard.drawn(now, &horizons).0, Value::from_integer(expected), "{ahead}");
        }
    }

    #[test]
    fn members_after_a_reset_inherit_nothing_of_those_before() {
        let (horizons, member) = (Horizons::default(), MemberIndex(1));
        horizons.add(member);
        horizons.follow(member, Micros::from_secs(9));
        horizons.set_as_of(member, Micros::from_secs(8));
        horizons.clear();
        assert_eq!((horizons.of(member), horizons.as_of(member)), (Micros(0), None));
        assert_eq!(horizons.moment_known(Micros::from_secs(9)), Some(Micros::from_secs(9)), "alone");
    }

    #[test]
    fn a_moment_is_known_once_every_member_has_vouched() {
        let (horizons, now) = (Horizons::default(), Micros::from_millis(1_000));
        assert_eq!(horizons.moment_known(now), Some(now), "alone, all is known");
        horizons.add(MemberIndex(1));
        assert_eq!(horizons.moment_known(now), None, "it was never heard of");
        horizons.forget_past(Micros::from_millis(900));
        horizons.set_as_of(MemberIndex(1), Micros::from_millis(800));
        assert_eq!(horizons.moment_known(now), None, "what was then is not remembered");
        horizons.set_as_of(MemberIndex(1), Micros(950_500));
        assert_eq!(horizons.moment_known(now), Some(Micros::from_millis(950)), "in whole milliseconds");
        assert!(horizons.past_needed() <= Micros::from_millis(950));
        horizons.remove(MemberIndex(1));
        assert_eq!(horizons.moment_known(now), Some(now));
    }
}
