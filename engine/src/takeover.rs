//! Shards of departed members that have become part of an own shard.
//!
//! When a member is removed (CLUSTER FORGET), its counts must not be lost. One heir adds its shards to its own, counter by
//! counter; the heir's shard then carries a `TakenOver`, and whoever merges that state drops the departed's shard in the
//! same step, so no reader ever counts it twice or not at all. The tag travels with every state of the shard until all
//! members have it.
//!
//! A SET made meanwhile may have observed the departed's shard by itself. Its part of the own shard is therefore kept apart
//! as what it was (`stated`) and what it counts now, and is restated with the shard.

use crate::generation::{Record, Stated};
use crate::ids::{MemberIndex, Seq};

/// A departed member's shard within an own shard.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Inherited {
    /// The departed's last state.
    pub(crate) departed: Stated,
    /// What it counts within the own shard under the present record, units of 10^-17.
    pub(crate) counts: i128,
    /// The own publication that first said so; zero: not yet.
    pub(crate) told: Seq,
}

/// What travels of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TakenOver {
    /// Whose shard it was.
    pub(crate) member: MemberIndex,
    /// The last state of it that is part of the heir's shard.
    pub(crate) seq: Seq,
}

/// All that an own shard has inherited.
#[derive(Clone, Debug, Default)]
pub(crate) struct Inheritance(Vec<Inherited>);

impl Inheritance {
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn add(&mut self, inherited: Inherited) {
        self.0.push(inherited);
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Inherited> {
        self.0.iter()
    }

    pub(crate) fn tags(&self) -> Vec<TakenOver> {
        self.0.iter().map(|part| TakenOver { member: part.departed.member, seq: part.departed.seq }).collect()
    }

    /// The own shard was published: the tags have been said with it.
    pub(crate) fn note_published(&mut self, seq: Seq) {
        self.0.iter_mut().filter(|part| part.told == Seq::ZERO).for_each(|part| part.told = seq);
    }

    /// Every member has our stream up to here: what was said before needs no tag any more.
    pub(crate) fn forget_before(&mut self, acknowledged: Seq) {
        self.0.retain(|part| part.told == Seq::ZERO || part.told > acknowledged);
    }

    /// Restates the inherited parts under another record; returns the change of the own shard, units of 10^-17. A part that the
    /// SET's author has seen as part of our shard is restated with it, so it is no part of its own any more.
    pub(crate) fn restate(&mut self, record: &Record) -> i128 {
        let seen = record.observed_of(MemberIndex::SELF).map_or(Seq::ZERO, |observed| observed.seq);
        self.0.retain(|part| part.told == Seq::ZERO || part.told > seen);
        let mut change = 0;
        for part in &mut self.0 {
            let counts = record.counts(&part.departed);
            change += counts - part.counts;
            part.counts = counts;
        }
        change
    }
}
