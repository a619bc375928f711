//! Shards of departed members that have become part of an own shard.
//!
//! When a member is removed (CLUSTER FORGET), its counts must not be lost. One heir adds its shards to its own, counter by
//! counter; the heir's shard then carries a `TakenOver`, and whoever merges that state drops the departed's shard in the
//! same step, so no reader ever counts it twice or not at all. The tag travels with every state of the shard until all
//! members have it.
//!
//! A SET made meanwhile may have observed the departed's shard by itself. Its part of the own shard is therefore kept apart
//! as what it was (`stated`) and what it counts now, and is restated with the shard.

use crate::generation::{Record, Stated, Subtractions};
use crate::ids::{MemberIndex, Seq};

/// A departed member's shard within an own shard.
#[derive(Clone, Debug)]
pub(crate) struct Inherited {
    /// The departed's last state.
    pub(crate) departed: Stated,
    /// What had been subtracted from it; empty: it is not known.
    pub(crate) subtracted: Subtractions,
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

impl FromIterator<Inherited> for Inheritance {
    fn from_iter<I: IntoIterator<Item = Inherited>>(parts: I) -> Inheritance {
        Inheritance(parts.into_iter().collect())
    }
}

impl Inheritance {
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn add(&mut self, inherited: Inherited) {
        self.0.push(inherited);
    }

    /// Whether it is known of any of them what had been subtracted.
    pub(crate) fn has_subtractions(&self) -> bool {
        self.0.iter().any(|part| !part.subtracted.is_empty())
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
            let counts = record.counts_beside(&part.departed, &part.subtracted);
            change += counts - part.counts;
            part.counts = counts;
        }
        change
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::counter::{Counter, PrecisionId};
    use crate::generation::Observed;
    use crate::ids::Generation;
    use crate::shard::{Basis, Horizons, PeerShard};
    use crate::time::Micros;
    use crate::value::Value;

    #[test]
    fn what_an_outvoted_set_had_subtracted_from_the_departed_is_counted_again() {
        let departed = MemberIndex(1);
        let set = |time, n, seen| {
            let (seq, value) = (Seq { incarnation: 1, n }, Value::from_integer(seen));
            let observed = vec![Observed { member: departed, generation: Generation::ZERO, seq, value }];
            Record { generation: Generation { time, author: 1 }, observed, ..Record::default() }
        };
        // Of its 35, one SET has seen 30, and the one that wins, by somebody who knew neither, 20.
        let (first, last) = (set(1, 3, 30), set(2, 2, 20));
        let in_first = Basis::from(first.generation);
        let told = Basis { subtracted: Subtractions::by(&first, departed), ..in_first.clone() };
        for basis in [in_first, told] {
            let horizons = Horizons::default();
            horizons.add(departed);
            let mut counter = Counter::new(b"a", PrecisionId(0));
            counter.learn(first.clone(), Seq::ZERO);
            let (seq, left) = (Seq { incarnation: 1, n: 5 }, Value::from_integer(5));
            counter.merge(PeerShard::new(departed, seq, left, 0, None, Vec::new()), basis);
            assert!(counter.inherit(departed, Micros(1), &horizons));
            assert_eq!(counter.own(), left);
            counter.learn(last.clone(), Seq::ZERO);
            assert_eq!(counter.own(), Value::from_integer(15));
        }
    }
}
