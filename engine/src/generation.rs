//! SET as a generation: what a SET leaves behind, and the three rules by which every node comes to the same value.
//!
//! A SET can't tell everybody to stop counting for a moment. Instead it says which increments it has seen, and everybody
//! else works out what it has not seen. A `Record` holds the generation, the value, and what its author had
//! *observed* of each shard: (the shard's generation, its seq, its value), inheriting from the record before what that had
//! observed at a later seq. The highest generation wins, wholly. Then
//!
//! - total = value + the sum over all shards of what each *counts*;
//! - a shard counts its value if it is stated in the winning generation; nothing if the copy is no newer than what the
//!   winner observed; its value less the observed one if both are stated in the same older generation; else its value;
//! - an owner that learns of a higher generation *restates* its shard: it subtracts what the winner observed of it and
//!   adds back what losing generations had subtracted since that observation. It alone remembers those
//!   (`Subtractions`), so they are part of its shard's state until every member knows the generation.
//!
//! The sum comes to value + every increment that the winner's author had not seen, directly or through an earlier SET
//! that it had seen, after every history that heals (the executable model of the design checks that by brute force,
//! and the simulator checks the real thing).

use crate::ids::{Generation, MemberIndex, Seq};
use crate::value::Value;

/// What a SET's author knew of one shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Observed {
    pub(crate) member: MemberIndex,
    pub(crate) generation: Generation,
    pub(crate) seq: Seq,
    /// The exact value of the own shard, the estimate of a peer's.
    pub(crate) value: Value,
}

/// What a SET leaves behind.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Record {
    pub(crate) generation: Generation,
    pub(crate) value: Value,
    /// It was a DEL: while the counter reads zero it does not exist.
    pub(crate) is_deletion: bool,
    pub(crate) observed: Vec<Observed>,
}

/// A shard as the rules see it: who owns it and what it said last.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Stated {
    pub(crate) member: MemberIndex,
    pub(crate) generation: Generation,
    pub(crate) seq: Seq,
    pub(crate) value: Value,
}

impl Record {
    pub(crate) fn observed_of(&self, member: MemberIndex) -> Option<&Observed> {
        self.observed.iter().find(|observed| observed.member == member)
    }

    /// The record of a SET that replaces this one, by an author that sees these shards.
    pub(crate) fn succeeded_by(
        &self,
        generation: Generation,
        value: Value,
        is_deletion: bool,
        shards: impl Iterator<Item = Stated>,
    ) -> Record {
        let mut observed = self.observed.clone();
        for shard in shards {
            let now = Observed {
                member: shard.member,
                generation: shard.generation,
                seq: shard.seq,
                value: shard.value,
            };
            match observed.iter_mut().find(|before| before.member == shard.member) {
                Some(before) if shard.seq > before.seq || is_ours_now(before, &now) => *before = now,
                // At the seq observed before, the shard counts nothing under this record, however far its line has moved on
                // since: the author has seen no more of it.
                Some(_) => {}
                None => observed.push(now),
            }
        }
        Record { generation, value, is_deletion, observed }
    }

    /// Whether a shard adds anything to the total under this record, be it zero.
    pub(crate) fn is_counted(&self, shard: &Stated) -> bool {
        shard.generation == self.generation
            || self.observed_of(shard.member).is_none_or(|seen| shard.seq > seen.seq)
    }

    /// Whether it is known what a shard counts under this record. If it is stated in another generation than the author has seen,
    /// its owner alone knows what that generation's SET subtracted from it, and counts that again on learning of this one. (Of a
    /// shard of which nothing was known, nothing was subtracted.)
    pub(crate) fn is_clear(&self, shard: &Stated) -> bool {
        shard.generation >= self.generation
            || match self.observed_of(shard.member) {
                None => shard.generation.is_zero() || shard.seq == Seq::ZERO,
                Some(seen) => shard.generation == seen.generation,
            }
    }

    /// What a shard adds to the total in units of 10^-17, under this record.
    pub(crate) fn counts(&self, shard: &Stated) -> i128 {
        let value = shard.value.units();
        if shard.generation == self.generation {
            return value;
        }
        match self.observed_of(shard.member) {
            None => value,
            Some(seen) if shard.seq <= seen.seq => 0,
            Some(seen) if shard.generation == seen.generation => value - seen.value.units(),
            Some(_) => value,
        }
    }

    /// The same of a shard that is stated relative to another SET, if it is known what its owner had `subtracted`.
    pub(crate) fn counts_beside(&self, shard: &Stated, subtracted: &Subtractions) -> i128 {
        if subtracted.is_empty() || !self.is_counted(shard) {
            return self.counts(shard);
        }
        self.leaves(shard, subtracted)
    }

    /// What restating leaves of an own shard in units of 10^-17: less than nothing, as long as its owner lacks a part of what was
    /// observed.
    pub(crate) fn leaves(&self, own: &Stated, subtracted: &Subtractions) -> i128 {
        if own.generation == self.generation {
            return own.value.units();
        }
        own.value.units().wrapping_sub(subtracted.amount_for(self.observed_of(own.member), own.generation))
    }
}

/// Whether an observation of the own shard is later than one before. It is, also at the same seq, unless a crash has lost what
/// was observed then.
fn is_ours_now(before: &Observed, now: &Observed) -> bool {
    now.member == MemberIndex::SELF && now.seq >= before.seq
}

/// Most subtractions that an owner remembers of one shard: more SETs than follow each other while a member is away.
pub(crate) const MAX_SUBTRACTIONS: usize = 65_536;

/// Most of them that others keep of it, for the case that its owner loses them in a crash.
pub(crate) const MAX_KEPT: usize = 64;

/// All amounts together, modulo 2^128: many of them may lie beyond the range of a value, what is left in the end does not.
fn sum<'a>(subtractions: impl IntoIterator<Item = &'a (Generation, i128)>) -> i128 {
    subtractions.into_iter().fold(0, |sum, (_, amount)| sum.wrapping_add(*amount))
}

/// What an owner has subtracted from its shard, oldest first: (the generation that it left, the amount).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Subtractions(pub(crate) Vec<(Generation, i128)>);

impl Subtractions {
    /// What the owner of a shard subtracts on learning of this record, if it has subtracted nothing before.
    pub(crate) fn by(record: &Record, member: MemberIndex) -> Subtractions {
        let seen = record.observed_of(member);
        Subtractions(seen.map(|seen| (seen.generation, seen.value.units())).into_iter().collect())
    }

    /// Of a shard stated in this generation, if every member knows the SET behind it, so that nobody can ask back what was subtracted:
    /// a zero stands for that, since nothing would mean that it is not known.
    pub(crate) fn given_up(generation: Generation) -> Subtractions {
        Subtractions(vec![(generation, 0)])
    }

    /// The amount to subtract on learning of a record that observed this of the own shard, which is in generation `own` now.
    ///
    /// What was observed in a generation before all that is remembered says nothing: every member has known a later state
    /// since (see `forget_before`), or the counter has been removed and begun anew.
    pub(crate) fn amount_for(&self, seen: Option<&Observed>, own: Generation) -> i128 {
        self.amount_with(seen, own, self.0.len())
    }

    /// The same if it is known that nothing of the subtractions from number `unseen` on had been observed, whatever generation
    /// they left: a node that has lost its counters in a crash may SET a lower one than before.
    pub(crate) fn amount_with(&self, seen: Option<&Observed>, own: Generation, unseen: usize) -> i128 {
        let oldest = self.oldest().unwrap_or(own);
        match seen.filter(|seen| seen.generation >= oldest) {
            None => sum(&self.0).wrapping_neg(),
            Some(seen) => {
                let numbered = self.0.iter().enumerate();
                let since = numbered.filter(|(n, (left, _))| *left >= seen.generation || *n >= unseen);
                seen.value.units().wrapping_sub(sum(since.map(|(_, subtraction)| subtraction)))
            }
        }
    }

    /// The lowest generation that is remembered to have been left. What a life before had counted may come back after later
    /// ones were.
    pub(crate) fn oldest(&self) -> Option<Generation> {
        self.0.iter().map(|(left, _)| *left).min()
    }

    /// Notes a subtraction.
    pub(crate) fn note(&mut self, left: Generation, amount: i128) {
        self.0.push((left, amount));
        if self.0.len() > MAX_SUBTRACTIONS {
            self.thin_out(MAX_SUBTRACTIONS);
        }
    }

    /// What was subtracted at the same times because of a part of the shard is a part of these.
    pub(crate) fn include(&mut self, parts: &Subtractions) {
        for (left, amount) in &parts.0 {
            match self.0.iter_mut().rfind(|(known, _)| known == left) {
                Some((_, sum)) => *sum = sum.wrapping_add(*amount),
                None => self.note(*left, *amount),
            }
        }
    }

    /// What others keep of them.
    pub(crate) fn for_others(&self) -> Subtractions {
        let mut kept = self.clone();
        kept.thin_out(MAX_KEPT);
        kept
    }

    /// Makes one of as many in the middle as there are too many: who is cut off has observed what was before the oldest, who is
    /// not, what was before the newest.
    fn thin_out(&mut self, max: usize) {
        let excess = self.0.len().saturating_sub(max);
        if excess > 0 {
            let middle = max / 2;
            let excess = sum(&self.0.drain(middle..middle + excess).collect::<Vec<_>>());
            let before = &mut self.0[middle - 1].1;
            *before = before.wrapping_add(excess);
        }
    }

    /// What is known of the same subtractions from somebody else, from some generation on, replaces what is known here.
    pub(crate) fn take(&mut self, known: Subtractions) {
        if let Some((first, _)) = known.0.first() {
            self.0.retain(|(left, _)| left < first);
            known.0.into_iter().for_each(|(left, amount)| self.note(left, amount));
        }
    }

    /// Forgets what no SET can ask back any more: every member knows `known` or a higher generation.
    pub(crate) fn forget_before(&mut self, known: Generation) {
        self.0.retain(|(left, _)| *left >= known);
    }

    /// Makes one of all: nobody can have observed the shard between two of them.
    pub(crate) fn collapse(&mut self) {
        let sum = sum(&self.0);
        self.0.truncate(1);
        match self.0.first_mut() {
            Some((_, amount)) if sum != 0 => *amount = sum,
            Some(_) | None => self.0.clear(),
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The amount, if it is one that nobody can have observed a part of (see `collapse`); zero if there is none.
    pub(crate) fn sum_if_one(&self) -> Option<i128> {
        match self.0.as_slice() {
            [] => Some(0),
            [(Generation::ZERO, amount)] => Some(*amount),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_beyond_all_range_come_out_right_where_what_is_left_is_within() {
        let generation = |time| Generation { time, ..Generation::ZERO };
        // 40 times as much as a value can be has been counted and SET away.
        let most = Value::MAX.units();
        let subtracted = Subtractions((1..=40).map(|time| (generation(time), most)).collect());
        let (member, seq) = (MemberIndex::SELF, Seq::ZERO);
        let seen = Observed { member, generation: generation(2), seq, value: Value::ZERO };
        let record = Record { generation: generation(42), observed: vec![seen], ..Record::default() };
        let own = Stated { member, generation: generation(41), seq, value: Value::ZERO };
        assert_eq!(record.leaves(&own, &subtracted), (39i128).wrapping_mul(most));
        // And SET away the other way round: nothing is left.
        let mut both = subtracted.clone();
        (41..=79).for_each(|time| both.note(generation(time), -most));
        assert_eq!(record.leaves(&Stated { generation: generation(80), ..own }, &both), 0);
    }

    #[test]
    fn of_too_many_subtractions_those_in_the_middle_become_one() {
        let mut subtracted = Subtractions::default();
        let generation = |time| Generation { time, ..Generation::ZERO };
        (1..=100).for_each(|time| subtracted.note(generation(time), i128::from(time)));
        let kept = subtracted.for_others();
        assert_eq!(kept.0.len(), MAX_KEPT);
        let amount = |subtracted: &Subtractions, time| {
            let seen = Observed {
                member: MemberIndex::SELF,
                generation: generation(time),
                seq: Seq::ZERO,
                value: Value::ZERO,
            };
            subtracted.amount_for(Some(&seen), generation(101))
        };
        for time in (1..=32).chain(69..=100) {
            assert_eq!(amount(&kept, time), amount(&subtracted, time), "observed in {time}");
        }
        assert_eq!(kept.amount_for(None, generation(101)), -5_050);
    }
}
