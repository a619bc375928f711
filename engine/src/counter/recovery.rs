//! What a node does about its own shards after a start: what it has counted since is kept apart from the state that a peer may
//! still correct (docs/decisions/what-the-departed-leave.md).

use super::{Counter, Full};
use crate::generation::{Observed, Stated, Subtractions};
use crate::ids::{Generation, MemberIndex, Seq};
use crate::prediction::Track;
use crate::state::SinceBase;
use crate::time::Micros;
use crate::value::Value;

/// What an own shard holds beside a state that a peer may still correct. It survives a crash in the middle of the recovery
/// from another: a copy of the own shard holds what was counted in the incarnation that published it and in those before.
#[derive(Clone, Debug, Default)]
pub(crate) struct SinceStart {
    /// Counted since this start, units of 10^-17.
    pub(crate) counted: i128,
    /// Counted in earlier incarnations that crashed before they published: which, and how much.
    pub(crate) earlier: Vec<(u32, i128)>,
    /// How much of both the SET in force, which is one of this start's own, has seen, and in which generation. If another one
    /// wins, that is counted again.
    pub(super) seen: Option<(Generation, i128)>,
    /// How many subtractions there were; what was subtracted since is of the state that a peer may correct.
    pub(super) subtractions: usize,
    /// So many of all subtractions are of former lives, or are what made that state one of this life.
    pub(super) former: usize,
    /// That state; a later one replaces it.
    pub(super) base: Stated,
    /// What had been subtracted from it.
    pub(super) base_subtracted: Subtractions,
    /// It is what the author of a SET took it for; what was published under the same number is better.
    pub(super) is_estimate: bool,
    /// A peer had it, and we did not.
    pub(super) is_from_peer: bool,
}

impl SinceStart {
    /// Nothing has been counted beside this state, from which this has been subtracted.
    pub(super) fn from_state(base: Stated, base_subtracted: Subtractions) -> SinceStart {
        let former = base_subtracted.0.len();
        SinceStart { subtractions: former, former, base, base_subtracted, ..SinceStart::default() }
    }

    /// As the disk has kept it; `own` is in which state the own shard is, from which `subtracted` has been subtracted.
    pub(super) fn from_disk(
        earlier: Vec<(u32, i128)>,
        kept: Option<SinceBase>,
        own: Stated,
        subtracted: &Subtractions,
    ) -> SinceStart {
        let Some(SinceBase { generation, value, subtractions, seen }) = kept else {
            let value = Value::saturating_from_units(own.value.units().saturating_sub(counted_in(&earlier)));
            return SinceStart {
                earlier,
                ..SinceStart::from_state(Stated { value, ..own }, subtracted.clone())
            };
        };
        let before = Subtractions(subtracted.0.iter().take(subtractions).copied().collect());
        let base = Stated { generation, value, ..own };
        SinceStart { earlier, seen, ..SinceStart::from_state(base, before) }
    }

    /// What a copy published in that incarnation does not hold, as the SET in force leaves it.
    pub(super) fn beyond(&self, incarnation: u32) -> i128 {
        let later = self.earlier.iter().filter(|(earlier, _)| *earlier > incarnation);
        self.unseen().saturating_add(counted_in(later))
    }

    /// Counted in this and those earlier incarnations.
    pub(super) fn all(&self) -> i128 {
        self.counted.saturating_add(counted_in(&self.earlier))
    }

    /// Counted since this start, less all that the SET in force has seen.
    pub(crate) fn unseen(&self) -> i128 {
        self.counted - self.seen.map_or(0, |(_, seen)| seen)
    }
}

/// What a peer has kept of an own shard.
#[derive(Clone, Debug)]
pub(crate) struct KeptCopy {
    pub(crate) stated: Stated,
    /// What had been subtracted from it; empty: it is not known.
    pub(crate) subtracted: Subtractions,
    pub(crate) decimals: u8,
}

/// What was counted in these incarnations together. The disk may say anything.
pub(super) fn counted_in<'a>(lives: impl IntoIterator<Item = &'a (u32, i128)>) -> i128 {
    lives.into_iter().fold(0, |sum, (_, counted)| sum.saturating_add(*counted))
}

impl Counter {
    /// To `recover` before anything is published.
    pub(crate) const NO_LIFE: u32 = u32::MAX;

    /// Takes over the state of the own shard that a peer has kept, if it is later than the one that we have started from; what was
    /// counted here since then comes on top. False if ours was as late, or it is of this `life` itself: of that incarnation
    /// or a later one.
    pub(crate) fn recover(&mut self, kept: KeptCopy, life: u32, now: Micros) -> bool {
        let KeptCopy { stated: copy, subtracted, decimals } = kept;
        let own = self.own().units();
        let full = self.make_full();
        let known =
            full.since_start.as_ref().map_or((full.seq, false), |start| (start.base.seq, start.is_estimate));
        let is_news = copy.seq > known.0 || copy.seq == known.0 && known.1;
        if !is_news || copy.seq.incarnation >= life {
            return false;
        }
        full.begin_recovery(own, 0);
        full.has_published_zero = copy.value.is_zero();
        let own = match life {
            Counter::NO_LIFE => full.go_back(copy, subtracted, own, now),
            _ => own.saturating_add(full.regain(copy, subtracted, life)),
        };
        self.put_own(Value::saturating_from_units(own));
        self.widen_decimals(decimals);
        true
    }

    /// A peer that has had the own shard, or a later state, up to `seq` has removed the counter since: all of that was zero. What
    /// was counted since the start is in the generation `anew`, above that of the SET that made it so. Where the disk had more than
    /// a zero that was published under that number it stays: it may be that zero that was removed, and nobody has seen more.
    pub(crate) fn recover_removed(&mut self, seq: Seq, anew: Generation, life: u32, now: Micros) {
        let own = self.own().units();
        let full = self.make_full();
        full.begin_recovery(own, 0);
        let Some(start) = full.since_start.as_deref() else { return };
        if full.is_restated && full.has_published_zero && !start.is_from_peer {
            return;
        }
        let left = start.base.generation;
        let stated = Stated { member: MemberIndex::SELF, generation: anew, seq, value: Value::ZERO };
        let kept = KeptCopy { stated, subtracted: Subtractions::given_up(anew), decimals: 0 };
        if self.recover(kept, life, now)
            && let Some(full) = self.full_mut()
        {
            full.void_record(left);
        }
    }

    /// Takes over what the author of a SET took the own shard for, unless as much of it is known.
    pub(crate) fn recover_observed(&mut self, observed: Observed, life: u32, now: Micros) {
        let Observed { member, generation, seq, value } = observed;
        let stated = Stated { member, generation, seq, value };
        let kept = KeptCopy { stated, subtracted: Subtractions::default(), decimals: value.decimals() };
        let is_news = self.recover(kept, life, now);
        if let Some(start) = self.full_mut().and_then(|full| full.since_start.as_mut()) {
            start.is_estimate |= is_news;
        }
    }

    /// The author of a SET has seen all that it has `counted` since its start, while its shard was in generation `left`. What an
    /// earlier SET had observed that the author has not back yet is set against what peers hand back.
    pub(super) fn see_all_counted_since_start(&mut self, left: Generation, counted: i128) {
        let own = self.own().units();
        let unknown = own - counted;
        let Some(full) = self.full_mut() else { return };
        let Some(since) = &mut full.since_start else { return };
        since.seen = (counted != 0).then_some((left, counted));
        if let Some((_, amount)) = full.subtracted.0.last_mut() {
            *amount = amount.wrapping_add(unknown);
        }
        if let Some(trail) = &mut full.trail {
            trail.shift_own(-own);
        }
        self.put_own(Value::ZERO);
    }
}

impl Full {
    pub(crate) fn since_start(&self) -> Option<&SinceStart> {
        self.since_start.as_deref()
    }

    /// From now on, notes what is counted beside the state that a peer may still correct. The own shard is `own`, of which
    /// `counted` has come since.
    pub(crate) fn begin_recovery(&mut self, own: i128, counted: i128) {
        let value = Value::saturating_from_units(own - counted);
        let base = Stated { member: MemberIndex::SELF, generation: self.generation, seq: self.seq, value };
        self.since_start.get_or_insert_with(|| {
            let begun = SinceStart::from_state(base, self.subtracted.clone());
            Box::new(SinceStart { counted, ..begun })
        });
    }

    /// The same where nothing of the own shard is from before the start: all of it is what was counted since.
    pub(crate) fn begin_recovery_of_all(&mut self, own: i128) {
        self.begin_recovery(own, own);
        if let Some(since) = &mut self.since_start {
            since.base.seq = Seq::ZERO;
        }
    }

    /// Nothing has been published in this life: the own shard, which was `own`, is the copy, and what was counted since the start.
    /// Returns its value.
    fn go_back(&mut self, copy: Stated, subtracted: Subtractions, own: i128, now: Micros) -> i128 {
        let mut since = 0;
        if let Some(start) = &mut self.since_start {
            since = start.beyond(copy.seq.incarnation);
            self.subtracted.0.truncate(start.subtractions);
            (start.base, start.is_estimate, start.is_from_peer) = (copy, false, true);
        }
        let subtracted = self.subtracted_from(&copy, subtracted);
        self.subtracted.take(subtracted);
        if let Some(start) = &mut self.since_start {
            start.base_subtracted = self.subtracted.clone();
        }
        self.seq = self.seq.max(copy.seq);
        self.generation = copy.generation;
        let mut units = copy.value.units();
        if let Some(record) = self.record.as_deref()
            && record.generation > copy.generation
        {
            // What had been observed later than this copy is lost, so it is nothing that could be missing.
            let amount = match record.observed_of(copy.member) {
                Some(seen) if (seen.seq, seen.generation) > (copy.seq, copy.generation) => units,
                seen => self.subtracted.amount_for(seen, copy.generation),
            };
            self.subtracted.note(copy.generation, amount);
            self.generation = record.generation;
            self.is_restated = true;
            units = units.wrapping_sub(amount);
        }
        if let Some(start) = &mut self.since_start {
            start.former = self.subtracted.0.len();
        }
        let restated = units.saturating_add(since);
        let trail = self.trail.as_deref_mut().filter(|trail| trail.has_moved());
        let has_moved = since != 0 || trail.is_some();
        if let Some(trail) = trail {
            trail.rebase_own(units, restated - own);
        }
        // Readers have the copy, so where the shard has been is told from there.
        self.track = has_moved.then(|| Box::new(Track::start(now, Value::saturating_from_units(units))));
        restated
    }

    /// What restating subtracts from the own shard, in which generation it is now.
    pub(super) fn amount_for(&self, seen: Option<&Observed>) -> i128 {
        // What a life before this one has published holds nothing of what was subtracted in this one.
        let start = self.since_start.as_ref().map(|start| start.former);
        let is_of_former = seen.is_some_and(|seen| seen.seq.incarnation < self.seq.incarnation);
        let former = start.or(self.former).filter(|_| is_of_former);
        let unseen = former.unwrap_or(usize::MAX);
        let seq = seen.map_or(Seq::ZERO, |seen| seen.seq);
        self.with_inherited(self.inheritance.subtracted_within(seq)).amount_with(
            seen,
            self.generation,
            unseen,
        )
    }

    /// What had been subtracted from a copy: what whoever has kept it says, or what follows from the SET in force.
    fn subtracted_from(&self, copy: &Stated, said: Subtractions) -> Subtractions {
        let record = self.record.as_deref().filter(|record| record.generation == copy.generation);
        match record {
            Some(record) if said.is_empty() => Subtractions::by(record, copy.member),
            Some(_) | None => said,
        }
    }

    /// Others know the own shard as this life has published it: what the copy has that we had not comes on top, as if it were
    /// counted now. Returns how much that is.
    fn regain(&mut self, copy: Stated, subtracted: Subtractions, life: u32) -> i128 {
        let subtracted = self.subtracted_from(&copy, subtracted);
        let Some(start) = &mut self.since_start else { return 0 };
        let base = std::mem::replace(&mut start.base, copy);
        let base_subtracted = std::mem::replace(&mut start.base_subtracted, subtracted.clone());
        (start.is_estimate, start.is_from_peer) = (false, true);
        // What was counted in lives between, and is in the copy, was on top of the base.
        let (held, later) = start.earlier.iter().partition(|(earlier, _)| *earlier <= copy.seq.incarnation);
        start.earlier = later;
        let held = counted_in(&Vec::from_iter(held));
        let (base_units, copy_units) = (base.value.units(), copy.value.units());
        let (before, after) = match self.record.as_deref() {
            // It has seen the shard of this life, in which there was nothing of what comes back.
            Some(record)
                if record.observed_of(copy.member).is_some_and(|seen| seen.seq.incarnation >= life) =>
            {
                let is_comparable = base.generation == copy.generation || base.seq == Seq::ZERO;
                if is_comparable { (base_units, copy_units) } else { (0, 0) }
            }
            Some(record) => (record.leaves(&base, &base_subtracted), record.leaves(&copy, &subtracted)),
            None => (base_units, copy_units),
        };
        let seen = copy_units.wrapping_sub(after).wrapping_sub(base_units.wrapping_sub(before));
        // Noted though it be nothing, if another SET may have seen the copy, which is older than all that is remembered.
        if self.generation > copy.generation
            && (seen != 0 || self.subtracted.oldest().is_none_or(|oldest| oldest > copy.generation))
        {
            self.subtracted.note(copy.generation, seen);
        }
        let gained = after.wrapping_sub(before).saturating_sub(held);
        if gained != 0 {
            // Others have passed over what came before this life: it is said anew.
            (self.is_restated, self.track) = (true, None);
        }
        gained
    }

    /// The same when the copies that peers hold are from before a CLUSTER RESET: all of the own shard came after them, unless
    /// something of it was published.
    pub(crate) fn begin_recovery_after_reset(&mut self, own: i128) {
        if self.seq != Seq::ZERO {
            return;
        }
        self.join_since_start();
        self.since_start = None;
        self.begin_recovery(own, own);
    }

    /// Publishing begins; others have our stream up to `head`.
    pub(crate) fn begin_publishing(&mut self, head: Seq) {
        if let Some(start) = &mut self.since_start {
            // A life of ours in between had not got it back, so some who know what that has published may not have it.
            let was_passed_over = start.base.seq.incarnation < head.incarnation;
            self.is_restated |= std::mem::take(&mut start.is_from_peer) && was_passed_over;
        }
    }

    /// What a SET of this start has seen is a subtraction like any other once the shard is published.
    pub(crate) fn join_since_start(&mut self) {
        if let Some(since) = &mut self.since_start
            && let Some(seen) = since.seen.take()
        {
            since.counted -= seen.1;
            self.subtracted = self.subtracted_with(seen);
        }
    }

    /// With what a SET of this start, which is in force, has `seen` of what was counted since: part of what was subtracted on
    /// learning of it, unless a peer has handed back a state of a higher generation, from which it has subtracted nothing.
    fn subtracted_with(&self, (left, seen): (Generation, i128)) -> Subtractions {
        let mut subtracted = self.subtracted.clone();
        let is_restated_by_it = self.generation == self.record_generation();
        match subtracted.0.last_mut().filter(|(last, _)| is_restated_by_it && *last >= left) {
            Some((_, amount)) => *amount = amount.wrapping_add(seen),
            None => subtracted.note(left, seen),
        }
        subtracted
    }

    /// What is to be kept of the subtractions on disk, if that is not what they are: where the state that a peer may still correct is
    /// not kept by itself, what a SET of this start has seen is one of them.
    pub(super) fn joined_subtractions(&self, own: Value) -> Option<Subtractions> {
        let seen = self.since_start.as_ref()?.seen?;
        self.since_base(own).is_none().then(|| self.subtracted_with(seen))
    }

    /// The state that a peer may still correct, if nothing was published since the start and it does not follow from what the own
    /// shard is, `own`, and what was counted since.
    pub(crate) fn since_base(&self, own: Value) -> Option<SinceBase> {
        let since = self.since_start.as_deref().filter(|since| since.base.seq == self.seq)?;
        let Stated { generation, value, .. } = since.base;
        let subtractions = since.base_subtracted.0.len();
        let follows = generation == self.generation
            && value == Value::saturating_from_units(own.units().saturating_sub(since.all()))
            && subtractions == self.subtracted.0.len()
            && since.seen.is_none();
        (!follows && subtractions <= self.subtracted.0.len()).then_some(SinceBase {
            generation,
            value,
            subtractions,
            seen: since.seen,
        })
    }

    /// Another SET is in force: what one of this start had seen is counted again.
    pub(super) fn take_seen(&mut self) -> i128 {
        self.since_start.as_mut().and_then(|since| since.seen.take()).map_or(0, |(_, seen)| seen)
    }

    /// No peer can hold a later state any more.
    pub(crate) fn end_recovery(&mut self) {
        self.join_since_start();
        if let Some(since) = self.since_start.take() {
            let later = self.subtracted.0.iter().skip(since.former);
            let is_mixed = later.map(|(left, _)| *left).any(|left| left < since.base.generation);
            self.former = is_mixed.then_some(since.former);
        }
    }

    /// What no SET can ask back any more is forgotten: every member knows the one in force.
    pub(super) fn forget_subtractions(&mut self) {
        self.subtracted.forget_before(self.generation);
        self.inheritance.forget_subtractions_before(self.generation);
        self.former = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::counter::{OwnStream, PrecisionId};
    use crate::generation::{Observed, Record};
    use crate::shard::Horizons;
    use crate::state;

    const NOW: Micros = Micros(1);

    fn seq(incarnation: u32, n: u64) -> Seq {
        Seq { incarnation, n }
    }

    fn generation(time: u64) -> Generation {
        Generation { time, ..Generation::ZERO }
    }

    /// What a peer has kept.
    fn copy(generation: Generation, seq: Seq, value: i64) -> KeptCopy {
        let stated = Stated { member: MemberIndex::SELF, generation, seq, value: Value::from_integer(value) };
        KeptCopy { stated, subtracted: Subtractions::default(), decimals: 0 }
    }

    /// A SET to zero by somebody else.
    fn record(time: u64, observed: &[(Generation, Seq, i64)]) -> Record {
        let observed = observed.iter().map(|&(generation, seq, value)| {
            let value = Value::from_integer(value);
            Observed { member: MemberIndex::SELF, generation, seq, value }
        });
        Record { generation: generation(time), observed: observed.collect(), ..Record::default() }
    }

    /// A counter of which nothing is left after a crash.
    fn started() -> Counter {
        let mut counter = Counter::new(b"a", PrecisionId(0));
        counter.make_full().begin_recovery(0, 0);
        counter
    }

    fn add(counter: &mut Counter, delta: i64) {
        counter.add(Value::from_integer(delta), NOW, &Horizons::default()).unwrap();
    }

    fn set(counter: &mut Counter, time: u64) {
        let (stream, horizons) = (OwnStream::default(), Horizons::default());
        counter.set(Value::ZERO, generation(time), false, true, stream, NOW, &horizons);
    }

    /// The shard is published as it is, as the first of this life.
    fn publish(counter: &mut Counter, life: u32) {
        let full = counter.make_full();
        full.seq = seq(life, 1);
        full.join_since_start();
    }

    fn own(counter: &Counter) -> String {
        counter.own().to_string()
    }

    #[test]
    fn what_comes_back_is_on_top_of_what_was_counted_since() {
        let mut counter = started();
        add(&mut counter, 5);
        assert!(counter.recover(copy(Generation::ZERO, seq(1, 3), 10), Counter::NO_LIFE, NOW));
        assert!(!counter.recover(copy(Generation::ZERO, seq(1, 2), 9), Counter::NO_LIFE, NOW), "older");
        assert_eq!(own(&counter), "15");
        assert!(counter.recover(copy(Generation::ZERO, seq(1, 4), 11), Counter::NO_LIFE, NOW));
        assert_eq!(own(&counter), "16");
    }

    #[test]
    fn a_set_before_anything_has_come_back_voids_what_was_counted_since_and_no_more() {
        let mut counter = started();
        add(&mut counter, 5);
        set(&mut counter, 1);
        assert_eq!(own(&counter), "0");
        add(&mut counter, 3);
        counter.recover(copy(Generation::ZERO, seq(1, 3), 10), Counter::NO_LIFE, NOW);
        assert_eq!(own(&counter), "13");
    }

    #[test]
    fn what_a_set_of_this_start_had_seen_is_counted_again_if_another_wins() {
        for is_published in [false, true] {
            for has_come_back in [false, true] {
                let mut counter = started();
                add(&mut counter, 5);
                set(&mut counter, 1);
                add(&mut counter, 3);
                if has_come_back {
                    counter.recover(copy(Generation::ZERO, seq(1, 3), 10), Counter::NO_LIFE, NOW);
                }
                if is_published {
                    publish(&mut counter, 2);
                }
                counter.learn(record(2, &[(Generation::ZERO, seq(1, 3), 10)]), Seq::ZERO);
                if !has_come_back {
                    let life = if is_published { 2 } else { Counter::NO_LIFE };
                    counter.recover(copy(Generation::ZERO, seq(1, 3), 10), life, NOW);
                }
                assert_eq!(own(&counter), "8", "published: {is_published}, back: {has_come_back}");
            }
        }
    }

    #[test]
    fn what_comes_back_late_was_not_seen_by_a_set_that_had_seen_this_life() {
        let mut counter = started();
        add(&mut counter, 5);
        publish(&mut counter, 2);
        counter.learn(record(1, &[(Generation::ZERO, seq(2, 1), 5)]), Seq::ZERO);
        add(&mut counter, 1);
        assert!(counter.recover(copy(Generation::ZERO, seq(1, 3), 10), 2, NOW));
        assert_eq!(own(&counter), "11");
        assert!(counter.recover(copy(Generation::ZERO, seq(1, 4), 12), 2, NOW), "another had more");
        assert_eq!(own(&counter), "13");
        assert!(!counter.recover(copy(Generation::ZERO, seq(2, 1), 5), 2, NOW), "of this life");
    }

    #[test]
    fn what_comes_back_late_and_a_set_had_seen_in_the_life_before_stays_void() {
        let mut counter = started();
        add(&mut counter, 5);
        publish(&mut counter, 2);
        counter.learn(record(1, &[(Generation::ZERO, seq(1, 3), 10)]), Seq::ZERO);
        counter.recover(copy(Generation::ZERO, seq(1, 4), 12), 2, NOW);
        assert_eq!(own(&counter), "7");
    }

    #[test]
    fn what_a_life_between_has_counted_is_counted_once() {
        let mut counter = started();
        let units = |integer| Value::from_integer(integer).units();
        counter.make_full().since_start.as_mut().unwrap().earlier = vec![(2, units(4)), (3, units(1))];
        // What the disk had kept of both, and 5 of this life.
        add(&mut counter, 5);
        add(&mut counter, 5);
        publish(&mut counter, 4);
        counter.recover(copy(Generation::ZERO, seq(2, 7), 14), 4, NOW);
        assert_eq!(
            own(&counter),
            "20",
            "10 of the first life, 4 of the second, 1 of the third, 5 of the fourth"
        );
    }

    #[test]
    fn what_lost_sets_had_subtracted_comes_back_with_the_copy() {
        let units = |integer| Value::from_integer(integer).units();
        // One SET had observed 100 of it, and perhaps another 5 of what came then; the one in force, by somebody who knew
        // neither, 30 of the 100.
        let in_force = record(3, &[(Generation::ZERO, seq(1, 1), 30)]);
        let both = Subtractions(vec![(Generation::ZERO, units(100)), (generation(1), units(5))]);
        let first = Subtractions(both.0[..1].to_vec());
        for (subtracted, stated_in, left) in [(first, generation(1), "71"), (both, generation(2), "76")] {
            for life in [Counter::NO_LIFE, 2] {
                let mut counter = started();
                counter.learn(in_force.clone(), Seq::ZERO);
                if life == 2 {
                    publish(&mut counter, 2);
                }
                let subtracted = subtracted.clone();
                counter.recover(KeptCopy { subtracted, ..copy(stated_in, seq(1, 9), 1) }, life, NOW);
                assert_eq!(own(&counter), left, "all but the 30 that the SET in force has seen ({life})");
            }
        }
    }

    #[test]
    fn what_was_subtracted_before_a_counter_was_removed_does_not_come_back_with_the_copy() {
        let mut before = Counter::new(b"a", PrecisionId(0));
        add(&mut before, 31);
        publish(&mut before, 1);
        set(&mut before, 1);
        // All others know that, and remove it; then it is counted again.
        let full = before.make_full();
        (full.seq, full.record_seq) = (seq(1, 2), seq(1, 2));
        add(&mut before, 2);
        let full = before.make_full();
        full.give_up_acknowledged(seq(1, 2));
        let subtracted = full.told_subtractions().unwrap_or_default();
        // One who has removed it SETs it, without having seen any of that.
        let mut counter = started();
        counter.learn(record(2, &[]), Seq::ZERO);
        let copy = copy(generation(1), seq(1, 3), 2);
        let subtracted = match subtracted.is_empty() {
            true => Subtractions::by(before.full().and_then(Full::record).unwrap(), MemberIndex::SELF),
            false => subtracted,
        };
        counter.recover(KeptCopy { subtracted, ..copy }, Counter::NO_LIFE, NOW);
        assert_eq!(own(&counter), "2");
    }

    #[test]
    fn a_set_has_not_seen_what_a_later_life_has_subtracted_in_a_lower_generation() {
        let mut counter = started();
        // A life that knows of no SET yet counts 4, and SETs to zero in a low generation.
        add(&mut counter, 4);
        publish(&mut counter, 2);
        set(&mut counter, 1);
        publish(&mut counter, 2);
        // The life before had counted 15 in a higher one, of which the SET that wins has seen all.
        counter.recover(copy(generation(5), seq(1, 7), 15), 2, NOW);
        counter.learn(record(6, &[(generation(5), seq(1, 7), 15)]), Seq::ZERO);
        assert_eq!(own(&counter), "4");
        // The same again by SETs that knew nothing of it; the second by somebody who has nothing to hand back.
        counter.learn(record(7, &[(generation(5), seq(1, 7), 15)]), Seq::ZERO);
        assert_eq!(own(&counter), "4");
        counter.make_full().end_recovery();
        counter.learn(record(8, &[(generation(5), seq(1, 7), 15)]), Seq::ZERO);
        assert_eq!(own(&counter), "4");
    }

    #[test]
    fn what_a_low_set_of_this_start_had_seen_is_no_part_of_what_was_subtracted_before() {
        for former in [Subtractions::given_up(generation(5)), Subtractions(vec![(generation(3), 7)])] {
            for set_has_seen_this_life in [true, false] {
                let mut counter = started();
                add(&mut counter, 1);
                set(&mut counter, 1);
                add(&mut counter, 2);
                let copy = copy(generation(5), seq(1, 3), 90);
                let kept = KeptCopy { subtracted: former.clone(), ..copy };
                counter.recover(kept, Counter::NO_LIFE, NOW);
                publish(&mut counter, 2);
                counter.make_full().end_recovery();
                assert_eq!(own(&counter), "92");
                let (seen, left) = match set_has_seen_this_life {
                    true => ((generation(5), seq(2, 1), 92), "0"),
                    // Nor had it seen the SET of this start, nor what that had seen.
                    false => ((generation(5), seq(1, 3), 90), "3"),
                };
                counter.learn(record(6, &[seen]), Seq::ZERO);
                assert_eq!(own(&counter), left, "{former:?}");
            }
        }
    }

    #[test]
    fn what_this_life_has_seen_of_the_one_before_stays_void_if_another_set_has_seen_only_that() {
        let mut counter = started();
        counter.recover(copy(Generation::ZERO, seq(1, 3), 61), Counter::NO_LIFE, NOW);
        counter.learn(record(1, &[(Generation::ZERO, seq(1, 3), 61)]), Seq::ZERO);
        add(&mut counter, 31);
        set(&mut counter, 2);
        publish(&mut counter, 2);
        // By somebody who knew of the SET of this start, and nothing that this life has published.
        let seen = counter.full().and_then(Full::record).unwrap().observed.clone();
        counter.learn(Record { generation: generation(4), observed: seen, ..Record::default() }, Seq::ZERO);
        assert_eq!(own(&counter), "31");
    }

    #[test]
    fn what_comes_back_late_beyond_what_a_set_of_this_start_had_seen_is_counted() {
        let mut counter = started();
        // One member had 302 of it, which the SET in force and those of this start have seen.
        counter.recover(copy(generation(1), seq(1, 3), 302), Counter::NO_LIFE, NOW);
        counter.learn(record(3, &[(generation(1), seq(1, 3), 302)]), Seq::ZERO);
        set(&mut counter, 4);
        set(&mut counter, 5);
        publish(&mut counter, 2);
        // Another had 303 of it, and 511 that came after a SET that had seen those.
        let subtracted = Subtractions(vec![(generation(1), Value::from_integer(303).units())]);
        counter.recover(KeptCopy { subtracted, ..copy(generation(2), seq(1, 9), 511) }, 2, NOW);
        assert_eq!(own(&counter), "512");
    }

    #[test]
    fn what_comes_back_below_a_set_of_this_life_may_have_been_seen_by_the_one_that_wins() {
        let mut counter = started();
        set(&mut counter, 5);
        publish(&mut counter, 2);
        counter.recover(copy(Generation::ZERO, seq(1, 3), 30), 2, NOW);
        assert_eq!(own(&counter), "30", "the own SET has not seen it");
        counter.learn(record(6, &[(Generation::ZERO, seq(1, 3), 30)]), Seq::ZERO);
        assert_eq!(own(&counter), "0");
    }

    /// What the disk would have of it is all that is left.
    fn crash(counter: &mut Counter, incarnation: u32) {
        struct Nobody;
        impl state::Number for Nobody {
            fn number(&mut self, _: MemberIndex) -> Option<u16> {
                Some(0)
            }
        }
        impl state::Member for Nobody {
            fn member(&self, _: u16) -> Option<MemberIndex> {
                Some(MemberIndex::SELF)
            }
        }
        let (mut bytes, horizons) = (Vec::new(), Horizons::default());
        let at = state::At { now: NOW, horizons: &horizons, incarnation };
        state::encode(counter, None, at, &mut Nobody, &mut bytes);
        *counter = Counter::new(b"a", PrecisionId(0));
        counter.restore(state::decode(&bytes, &Nobody).unwrap());
        let own = counter.own().units();
        counter.make_full().begin_recovery(own, 0);
    }

    #[test]
    fn what_a_set_of_a_start_that_crashed_too_had_seen_is_not_counted_again() {
        for (is_published, another_wins, left) in
            [(false, false, "4"), (true, false, "4"), (false, true, "9"), (true, true, "9")]
        {
            let mut counter = Counter::new(b"a", PrecisionId(0));
            add(&mut counter, 10);
            publish(&mut counter, 1);
            crash(&mut counter, 1);
            // The second life counts 5, SETs to zero, and counts 3, before anybody has handed back an 11th of the first.
            add(&mut counter, 5);
            set(&mut counter, 1);
            add(&mut counter, 3);
            crash(&mut counter, 2);
            assert_eq!(own(&counter), "3");
            if is_published {
                publish(&mut counter, 3);
            }
            let life = if is_published { 3 } else { Counter::NO_LIFE };
            assert!(counter.recover(copy(Generation::ZERO, seq(1, 2), 11), life, NOW));
            if another_wins {
                // By somebody who had seen those 11, and knew nothing of the one of the second life, nor what that had counted.
                counter.learn(record(2, &[(Generation::ZERO, seq(1, 2), 11)]), Seq::ZERO);
                add(&mut counter, 1);
            }
            assert_eq!(own(&counter), left, "published: {is_published}, another wins: {another_wins}");
        }
    }

    #[test]
    fn a_removal_voids_the_set_that_was_published_and_none_that_came_after_it() {
        for (published_in, left) in [(1, 100), (2, 0)] {
            let mut counter = started();
            let hundred = Record { value: Value::from_integer(100), ..record(2, &[]) };
            counter.learn(hundred, Seq::ZERO);
            counter.recover(copy(generation(published_in), seq(1, 3), 5), Counter::NO_LIFE, NOW);
            add(&mut counter, 7);
            counter.recover_removed(seq(1, 9), generation(3), Counter::NO_LIFE, NOW);
            assert_eq!((own(&counter).as_str(), counter.set_value()), ("7", Value::from_integer(left)));
        }
    }

    #[test]
    fn a_removal_does_not_void_what_the_disk_has_beyond_a_zero_that_was_published() {
        // What was there beyond something else was part of the zero that followed.
        for (is_published, was_zero, left) in [(true, false, "0"), (false, false, "0"), (false, true, "5")] {
            let mut counter = Counter::new(b"a", PrecisionId(0));
            add(&mut counter, 5);
            let full = counter.make_full();
            (full.seq, full.is_restated, full.has_published_zero) = (seq(1, 3), !is_published, was_zero);
            counter.recover_removed(seq(1, 9), generation(3), Counter::NO_LIFE, NOW);
            assert_eq!(own(&counter), left);
        }
    }

    #[test]
    fn what_was_published_is_better_than_what_a_set_took_it_for() {
        let mut counter = started();
        let seen = Observed {
            member: MemberIndex::SELF,
            generation: Generation::ZERO,
            seq: seq(1, 3),
            value: Value::from_integer(9),
        };
        counter.recover_observed(seen, Counter::NO_LIFE, NOW);
        assert_eq!(own(&counter), "9");
        assert!(counter.recover(copy(Generation::ZERO, seq(1, 3), 10), Counter::NO_LIFE, NOW));
        assert!(!counter.recover(copy(Generation::ZERO, seq(1, 3), 11), Counter::NO_LIFE, NOW), "once");
        assert_eq!(own(&counter), "10");
    }
}
