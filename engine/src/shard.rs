//! A peer's shard as this node knows it, and how it is read.
//!
//! A resting shard is a value and its seq. A moving one also has a line; it is followed until the owner has been silent
//! for a few heartbeats (its *horizon*) and stands still from there.

use crate::generation::Stated;
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
pub struct Horizons {
    follow_until: Box<[AtomicU64]>,
    as_of: Box<[AtomicU64]>,
}

/// Stands in `as_of` where there is no member.
const NOBODY: u64 = u64::MAX;

impl Default for Horizons {
    fn default() -> Horizons {
        let all = |value: u64| (0..MAX_MEMBERS).map(|_| AtomicU64::new(value)).collect();
        Horizons { follow_until: all(0), as_of: all(NOBODY) }
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
    }

    /// It is no member any more; its lines stand still where they held last.
    pub(crate) fn remove(&self, member: MemberIndex) {
        if let Some(as_of) = self.as_of(member) {
            self.follow_until[usize::from(member.0)].store(as_of.0, Ordering::Relaxed);
        }
        self.as_of[usize::from(member.0)].store(NOBODY, Ordering::Relaxed);
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
    }

    /// The moment as of which what is known of this member holds; `None`: it is no member.
    pub(crate) fn as_of(&self, member: MemberIndex) -> Option<Micros> {
        Some(self.as_of[usize::from(member.0)].load(Ordering::Relaxed)).filter(|&at| at != NOBODY).map(Micros)
    }

    /// The moment as of which everything that is known of others holds: now, if there are none.
    pub(crate) fn oldest_as_of(&self, now: Micros) -> Micros {
        let known = self.as_of.iter().map(|at| at.load(Ordering::Relaxed)).filter(|&at| at != NOBODY);
        known.min().map_or(now, |oldest| Micros(oldest).min(now))
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

/// A peer's shard.
#[derive(Clone, Debug)]
pub(crate) struct PeerShard {
    member: MemberIndex,
    /// The most decimals that it has ever used; estimates are rounded to as many.
    decimals: u8,
    seq: Seq,
    /// Exact at the line's moment.
    value: Value,
    /// Its generation, if it is not that of the counter's record.
    older: Option<Box<Generation>>,
    /// `None`: it rests, and `value` is exact.
    moving: Option<Box<Moving>>,
    /// Shards of departed members that are part of it.
    taken_over: Option<Box<[TakenOver]>>,
}

/// The line of a shard that moves.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Moving {
    pub(crate) slope: f64,
    /// When the line passes through the value, on our clock.
    pub(crate) moment: Micros,
    /// How far `moment` may be off, microseconds.
    pub(crate) moment_error: Micros,
    /// How far the truth may be from the line, units of 10^-17.
    pub(crate) precision_units: i128,
}

impl Moving {
    /// The line's value, followed up to `horizon` at most, but never back before its own moment if that has come.
    fn at(&self, anchor: Value, now: Micros, horizon: Micros) -> Value {
        let line = Line { anchor, slope: self.slope, moment: self.moment };
        let until = now.min(horizon);
        // A moment before our clock's zero has wrapped round, so it is compared as a signed number.
        let has_come = self.moment.0 as i64 <= now.0 as i64;
        line.at(if has_come && self.moment.0 as i64 > until.0 as i64 { self.moment } else { until })
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
        PeerShard { member, decimals, seq, value, older: None, moving: moving.map(Box::new), taken_over }
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

    /// The generation that it is stated in, given that of the counter's record.
    pub(crate) fn generation(&self, record: Generation) -> Generation {
        self.older.as_ref().map_or(record, |older| **older)
    }

    pub(crate) fn set_generation(&mut self, generation: Generation, record: Generation) {
        self.older = (generation != record).then(|| Box::new(generation));
    }

    /// The counter has another record now: what was its generation has to be written down.
    pub(crate) fn note_new_record(&mut self, before: Generation, now: Generation) {
        let generation = self.generation(before);
        self.set_generation(generation, now);
    }

    /// Its value at this moment, rounded to the decimals that it uses.
    pub(crate) fn estimate(&self, now: Micros, horizons: &Horizons) -> Value {
        match &self.moving {
            None => self.value,
            Some(moving) => moving.at(self.value, now, horizons.of(self.member)).round_to(self.decimals),
        }
    }

    /// How far its estimate may be from the truth at a moment as of which the owner has vouched for it: the precision, what the
    /// line moves while its moment is uncertain, and the rounding.
    pub(crate) fn bound_units(&self) -> i128 {
        match &self.moving {
            None => 0,
            Some(moving) => {
                let skew = (moving.slope.abs() * moving.moment_error.0 as f64) as i128;
                let rounding = if moving.slope == 0.0 { 0 } else { half_of_last(self.decimals) };
                moving.precision_units.saturating_add(skew).saturating_add(rounding)
            }
        }
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

    /// Joins it with what has come. Commutative, associative and idempotent: the later seq stands.
    pub(crate) fn merge(
        &mut self,
        mut shard: PeerShard,
        generation: Generation,
        record: Generation,
        _now: Micros,
    ) -> Merged {
        match shard.seq.cmp(&self.seq) {
            std::cmp::Ordering::Less => Merged::Stale,
            std::cmp::Ordering::Equal => Merged::Duplicate,
            std::cmp::Ordering::Greater => {
                shard.set_generation(generation, record);
                shard.decimals = shard.decimals.max(self.decimals);
                *self = shard;
                Merged::Advanced
            }
        }
    }
}
