//! Shards of departed members that have become part of an own shard.
//!
//! When a member is removed (CLUSTER FORGET), its counts must not be lost. One heir adds its shards to its own, counter by
//! counter; the heir's shard then carries a `TakenOver`, and whoever merges that state drops the departed's shard in the
//! same step, so no reader ever counts it twice or not at all. The tag travels with every state of the shard until all
//! members have it.
//!
//! A SET made meanwhile may have observed the departed's shard by itself. Its part of the own shard is therefore kept apart
//! as what it was (`departed`) and what it counts now, and restated beside the rest; a SET that has seen it as part of the
//! own shard restates both together. Either may come after the other, until all have the tag.

use crate::generation::{Record, Stated, Subtractions};
use crate::ids::{Generation, MemberIndex, Seq};

/// A departed member's shard within an own shard.
#[derive(Clone, Debug)]
pub(crate) struct Inherited {
    /// The departed's last state.
    pub(crate) departed: Stated,
    /// What had been subtracted from it; empty: it is not known.
    pub(crate) subtracted: Subtractions,
    /// What it counts within the own shard under the present record, units of 10^-17, unless the SET's author has seen it there.
    pub(crate) counts: i128,
    /// What SETs have subtracted from the own shard because of it since it is a part of that.
    pub(crate) subtracted_since: Subtractions,
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

    /// Whether anything is known to have been subtracted.
    pub(crate) fn has_subtractions(&self) -> bool {
        self.0.iter().any(|part| !part.subtracted.is_empty() || !part.subtracted_since.is_empty())
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

    /// Every member has our stream up to here: what was said before needs no tag any more. Returns what was subtracted because of
    /// it, which is a subtraction like any other now.
    pub(crate) fn forget_before(&mut self, acknowledged: Seq) -> Vec<Subtractions> {
        let is_over = |part: &mut Inherited| part.told != Seq::ZERO && part.told <= acknowledged;
        self.0.extract_if(.., is_over).map(|part| part.subtracted_since).collect()
    }

    /// What no SET can ask back any more is forgotten, as of the own shard.
    pub(crate) fn forget_subtractions_before(&mut self, known: Generation) {
        self.0.iter_mut().for_each(|part| part.subtracted_since.forget_before(known));
    }

    /// What was subtracted because of those parts that were told by the own publication `seen`.
    pub(crate) fn subtracted_within(&self, seen: Seq) -> impl Iterator<Item = &Subtractions> {
        self.0.iter().filter(move |part| part.is_within(seen)).map(|part| &part.subtracted_since)
    }

    /// Restates the inherited parts under another record, in generation `left` until now; returns the change of the own shard,
    /// units of 10^-17. A part that the SET's author has seen as part of our shard is restated with that.
    pub(crate) fn restate(&mut self, record: &Record, left: Generation) -> i128 {
        let seen = record.observed_of(MemberIndex::SELF).map_or(Seq::ZERO, |observed| observed.seq);
        let mut change = 0i128;
        for part in self.0.iter_mut().filter(|part| !part.is_within(seen)) {
            let counts = record.counts_beside(&part.departed, &part.subtracted);
            let subtracted = part.counts.wrapping_sub(counts);
            if subtracted != 0 {
                part.subtracted_since.note(left, subtracted);
            }
            change = change.wrapping_sub(subtracted);
            part.counts = counts;
        }
        change
    }
}

impl Inherited {
    fn is_within(&self, seen: Seq) -> bool {
        self.told != Seq::ZERO && self.told <= seen
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::counter::{Counter, PrecisionId};
    use crate::generation::Observed;
    use crate::shard::{Basis, Horizons, PeerShard};
    use crate::time::Micros;
    use crate::value::Value;

    #[test]
    fn of_concurrent_sets_some_may_have_seen_the_departed_by_itself_and_some_within_its_heir() {
        let departed = MemberIndex(1);
        let (of_departed, before, told) =
            (Seq { incarnation: 1, n: 3 }, Seq { incarnation: 2, n: 5 }, Seq { incarnation: 2, n: 6 });
        let set = |time, observed: &[(MemberIndex, Seq, i64)]| {
            let observed = observed.iter().map(|&(member, seq, value)| {
                let value = Value::from_integer(value);
                Observed { member, generation: Generation::ZERO, seq, value }
            });
            let generation = Generation { time, author: 1 };
            Record { generation, observed: observed.collect(), ..Record::default() }
        };
        let apart = |time| set(time, &[(MemberIndex::SELF, before, 10), (departed, of_departed, 132)]);
        let within = |time| set(time, &[(MemberIndex::SELF, told, 142)]);
        let histories =
            [[apart(1), apart(2)], [within(1), apart(2)], [apart(1), within(2)], [within(1), within(2)]];
        for (sets, has_forgotten) in histories.into_iter().zip([false, false, true, true]) {
            let horizons = Horizons::default();
            horizons.add(departed);
            let mut counter = Counter::new(b"a", PrecisionId(0));
            let ten = Value::from_integer(10);
            counter.add(ten, Micros(1), &horizons).unwrap();
            let shard = PeerShard::new(departed, of_departed, Value::from_integer(132), 0, None, Vec::new());
            counter.merge(shard, Basis::default());
            assert!(counter.inherit(departed, Micros(1), &horizons));
            let full = counter.make_full();
            full.seq = told;
            full.inheritance_mut().note_published(told);
            for set in sets {
                assert!(counter.learn(set.clone(), Seq::ZERO));
                assert_eq!(counter.own(), Value::ZERO, "all had been seen by {set:?}");
                if has_forgotten {
                    counter.make_full().forget_inherited_before(told);
                }
            }
        }
    }

    #[test]
    fn what_was_set_away_of_the_departed_does_not_come_back_once_all_have_it_within_the_heirs_shard() {
        let departed = MemberIndex(1);
        let (of_departed, told) = (Seq { incarnation: 1, n: 3 }, Seq { incarnation: 2, n: 6 });
        let set = |time| Record { generation: Generation { time, author: 1 }, ..Record::default() };
        for (acknowledged, comes_back) in [(Seq { n: 5, ..told }, 12), (told, 0)] {
            let horizons = Horizons::default();
            let mut counter = Counter::new(b"a", PrecisionId(0));
            counter.learn(set(1), Seq::ZERO);
            // It had counted 12 when it learned of the SET, and has not heard that all know it.
            let subtracted = Subtractions(vec![(Generation::ZERO, Value::from_integer(12).units())]);
            let shard = PeerShard::new(departed, of_departed, Value::ZERO, 0, None, Vec::new());
            counter.merge(shard, Basis { generation: set(1).generation, subtracted });
            assert!(counter.inherit(departed, Micros(1), &horizons));
            let full = counter.make_full();
            full.seq = told;
            full.inheritance_mut().note_published(told);
            // By somebody who had removed the counter, so it has seen nothing.
            counter.learn(set(2), acknowledged);
            assert_eq!(counter.own(), Value::from_integer(comes_back), "{acknowledged:?}");
        }
    }

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
