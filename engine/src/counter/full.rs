//! What only some counters need, applied: the SET in force, peers' shards, how far off a read may be.

use super::Full;
use crate::generation::{Record, Stated, Subtractions};
use crate::ids::{Generation, MemberIndex, Seq};
use crate::shard::{Basis, Excursion, Horizons, Merged, PeerShard};
use crate::takeover::{Inheritance, TakenOver};
use crate::time::Micros;
use crate::trail::{self, Trail, View};
use crate::value::Value;
use smallvec::SmallVec;
use std::borrow::Cow;

impl Full {
    pub(super) const UP: u8 = 1;
    pub(super) const DOWN: u8 = 2;

    /// How far `total` may be from the truth of `moment`: how far each part may be, together.
    pub(super) fn bound_units(&self, own: i128, moment: Micros, horizons: &Horizons) -> Option<i128> {
        let view = View { record: self.record(), horizons };
        let none = Trail::default();
        let trail = self.trail.as_deref().unwrap_or(&none);
        let mut bound = trail.own_at(moment, own).distance(own);
        let mut gone: SmallVec<[MemberIndex; 4]> =
            trail.members().filter(|member| self.peer(*member).is_none()).collect();
        gone.dedup();
        for member in self.peers.iter().map(PeerShard::member).chain(gone) {
            let peer = self.peer(member);
            let counted = peer.map_or(0, |peer| {
                let stated = peer.stated(self.record_generation(), moment, horizons);
                self.record().map_or(stated.value.units(), |record| record.counts(&stated))
            });
            let truth = trail.peer_at(member, moment, peer, &view)?;
            bound = bound.saturating_add(truth.distance(counted));
        }
        Some(bound)
    }

    /// Whether a shard adds anything to the total, be it zero.
    pub(super) fn is_counted(&self, shard: &PeerShard) -> bool {
        self.record().is_none_or(|record| record.is_counted(&shard.as_published(record.generation)))
    }

    pub(crate) fn peer(&self, member: MemberIndex) -> Option<&PeerShard> {
        self.peers.iter().find(|peer| peer.member() == member)
    }

    /// The own shard is published. `excursion`: how far it had been outside of all between the line before and this value.
    pub(crate) fn note_excursion(&mut self, excursion: Option<i128>) {
        let has_wavered = self.directions == Full::UP | Full::DOWN;
        self.excursion = match excursion {
            Some(0) if !has_wavered => Excursion::NONE,
            Some(units) => Excursion::at_most(units),
            None if has_wavered => Excursion::ANYWHERE,
            None => Excursion::NONE,
        };
    }

    pub(crate) fn record(&self) -> Option<&Record> {
        self.record.as_deref()
    }

    /// For others: what SETs have subtracted from the own shard, unless that follows from the record.
    pub(crate) fn told_subtractions(&self) -> Option<Subtractions> {
        let all = self.with_inherited(self.inheritance.iter().map(|part| &part.subtracted_since));
        let follows = self.record().is_some_and(|record| {
            record.generation == self.generation && Subtractions::by(record, MemberIndex::SELF) == *all
        });
        (!follows && !all.is_empty()).then(|| all.for_others())
    }

    /// Every member has our stream up to here. If they know the SET in force from it, nobody can ask back what it had subtracted,
    /// and who gives us our shard back after a crash is not to say so: a zero stands for that.
    pub(crate) fn give_up_acknowledged(&mut self, acknowledged: Seq) {
        if !self.is_known_to_all(acknowledged) {
            return;
        }
        let had_some = !self.subtracted.is_empty();
        self.forget_subtractions();
        if had_some && self.subtracted.is_empty() {
            self.subtracted = Subtractions::given_up(self.generation);
        }
    }

    /// Whether every member, which has our stream up to `acknowledged`, knows the SET in force from it. Not said while something
    /// may still come back from a former life, which is compared with what had been subtracted then.
    pub(super) fn is_known_to_all(&self, acknowledged: Seq) -> bool {
        self.record_seq != Seq::ZERO && self.record_seq <= acknowledged && self.since_start.is_none()
    }

    /// The same for a departed member's shard: every member has had its stream up to `given_up`.
    pub(crate) fn give_up_subtractions_of(&mut self, member: MemberIndex, given_up: Seq) {
        let record = self.record.as_deref();
        let Some(shard) = self.peers.iter_mut().find(|shard| shard.member() == member) else { return };
        if shard.seq() <= given_up {
            shard.give_up_subtractions(record);
        }
    }

    /// What was subtracted from the own shard, and because of these parts of it.
    pub(super) fn with_inherited<'a>(
        &'a self,
        parts: impl Iterator<Item = &'a Subtractions>,
    ) -> Cow<'a, Subtractions> {
        let mut all = Cow::Borrowed(&self.subtracted);
        parts.filter(|part| !part.is_empty()).for_each(|part| all.to_mut().include(part));
        all
    }

    /// Every member has our stream up to here: what it has told of shards taken over is no part of its own any more.
    pub(crate) fn forget_inherited_before(&mut self, acknowledged: Seq) {
        let parts = self.inheritance.forget_before(acknowledged);
        parts.iter().for_each(|part| self.subtracted.include(part));
    }

    pub(super) fn record_generation(&self) -> Generation {
        self.record().map_or(Generation::ZERO, |record| record.generation)
    }

    pub(crate) fn generation(&self) -> Generation {
        self.generation
    }

    pub(crate) fn peers(&self) -> &[PeerShard] {
        &self.peers
    }

    /// Another SET is in force.
    pub(super) fn replace_record(&mut self, record: Record) {
        let older = self.record.as_deref();
        self.peers.iter_mut().for_each(|peer| peer.note_new_record(older, &record));
        if let Some(trail) = &mut self.trail {
            trail.note_new_record(older, &record);
        }
        self.record = Some(Box::new(record));
        (self.record_seq, self.told_again) = (Seq::ZERO, Seq::ZERO);
    }

    /// A SET is about to be in force. Of some shards that it has seen there is nothing here: until now they counted nothing, and
    /// under that SET less than nothing, by what it has seen.
    pub(crate) fn note_unseen(&mut self, record: &Record, now: Micros, horizons: &Horizons) {
        let known = self.generation.max(self.record_generation());
        for seen in &record.observed {
            let member = seen.member;
            let is_known = self.peer(member).is_some()
                || self.record().and_then(|before| before.observed_of(member)) == Some(seen);
            let is_nothing = seen.value.is_zero() && seen.generation <= known;
            let Some(vouched) = horizons.as_of(member).filter(|_| !is_known && !is_nothing) else { continue };
            let view = View { record: self.record.as_deref(), horizons };
            let nothing = trail::nothing_of(member, seen.generation.min(known), view.record);
            self.trail.get_or_insert_default().note_replaced(nothing, (now, vouched), &view);
        }
    }

    /// What each part of the total adds, in units: the SET's value, the own shard, each peer's. Without horizons, peers' as they
    /// were published.
    pub(super) fn parts(
        &self,
        own: Stated,
        now: Micros,
        horizons: Option<&Horizons>,
    ) -> impl Iterator<Item = i128> {
        let record = self.record.as_deref();
        let generation = record.map_or(Generation::ZERO, |record| record.generation);
        let counts = move |shard: Stated| match record {
            None => shard.value.units(),
            Some(record) => record.counts(&shard),
        };
        let peers = self.peers.iter().map(move |peer| {
            counts(match horizons {
                Some(horizons) => peer.stated(generation, now, horizons),
                None => peer.as_published(generation),
            })
        });
        std::iter::once(record.map_or(0, |record| record.value.units()))
            .chain(std::iter::once(own.value.units()))
            .chain(peers)
    }

    pub(crate) fn inheritance(&self) -> &Inheritance {
        &self.inheritance
    }

    pub(crate) fn inheritance_mut(&mut self) -> &mut Inheritance {
        &mut self.inheritance
    }

    /// See `Counter::merge`. What the shard's owner has taken over is dropped in the same step.
    pub(super) fn merge(&mut self, mut shard: PeerShard, basis: Basis) -> Merged {
        // Later states, too: they hold what was taken over, and what the departed has counted since counts for nobody.
        let is_part_of_another = |taken: &TakenOver| taken.member == shard.member();
        if self.peers.iter().flat_map(PeerShard::taken_over).any(is_part_of_another)
            || self.inheritance.tags().iter().any(is_part_of_another)
        {
            return Merged::Stale;
        }
        for taken in shard.taken_over() {
            self.peers.retain(|peer| peer.member() != taken.member);
        }
        match self.peers.iter_mut().find(|peer| peer.member() == shard.member()) {
            Some(known) => known.merge(shard, basis, self.record.as_deref()),
            None => {
                shard.base_on(basis, self.record.as_deref());
                self.peers.push(shard);
                Merged::Advanced
            }
        }
    }

    /// Whether the owner of a shard may never hear of the SET in force unless we tell it: who made that may have removed the
    /// counter, and the shard be of a cluster that has joined since.
    pub(super) fn must_tell(&self, member: MemberIndex) -> bool {
        let Some(record) = self.record().filter(|record| record.value.is_zero()) else { return false };
        let is_clear = |shard: &PeerShard| record.is_clear(&shard.as_published(record.generation));
        self.record_seq == Seq::ZERO && !self.peer(member).is_none_or(is_clear)
    }

    /// A peer has no such shard any more: it is zero, in the generation that it was in.
    pub(crate) fn void_peer(&mut self, member: MemberIndex, seq: Seq) {
        let record = self.record_generation();
        let Some(place) = self.peers.iter().position(|peer| peer.member() == member) else { return };
        let generation = self.peers[place].generation(record);
        if generation >= record {
            self.peers.swap_remove(place);
            self.void_record(generation);
            return;
        }
        let zero = PeerShard::new(member, seq, Value::ZERO, self.peers[place].decimals(), None, Vec::new());
        self.peers[place].merge(zero, generation.into(), self.record.as_deref());
    }

    /// Somebody who had a shard in that generation has removed the counter since: it read zero by a later SET, which is remembered
    /// nowhere.
    pub(super) fn void_record(&mut self, generation: Generation) {
        if let Some(record) = self.record.as_deref_mut().filter(|record| record.generation <= generation) {
            (record.value, record.is_deletion) = (Value::ZERO, true);
        }
    }

    /// Takes a departed member's shard away and returns it.
    pub(crate) fn take_peer(&mut self, member: MemberIndex) -> Option<PeerShard> {
        let place = self.peers.iter().position(|peer| peer.member() == member)?;
        Some(self.peers.swap_remove(place))
    }
}

#[cfg(test)]
mod tests {
    use crate::counter::{Counter, PrecisionId};
    use crate::generation::{Observed, Record};
    use crate::ids::{Generation, MemberIndex, Seq};
    use crate::shard::{Horizons, PeerShard};
    use crate::takeover::TakenOver;
    use crate::time::Micros;
    use crate::value::Value;

    const OTHER: MemberIndex = MemberIndex(1);
    const FIRST: Seq = Seq { incarnation: 1, n: 1 };

    fn ms(ms: u64) -> Micros {
        Micros::from_millis(ms)
    }

    fn vouched_until(moment: Micros) -> Horizons {
        let horizons = Horizons::default();
        horizons.add(OTHER);
        horizons.set_as_of(OTHER, moment);
        horizons
    }

    fn five() -> Value {
        Value::from_units(5).unwrap()
    }

    /// A SET to 100 that has seen 5 of the other.
    fn set() -> Record {
        let seen = Observed { member: OTHER, generation: Generation::ZERO, seq: FIRST, value: five() };
        let (generation, value) = (Generation { time: 7, author: 3 }, Value::from_units(100).unwrap());
        Record { generation, value, is_deletion: false, observed: vec![seen] }
    }

    #[test]
    fn what_a_departed_member_has_counted_since_it_was_taken_over_counts_for_nobody() {
        let (heir, later) = (MemberIndex(2), Seq { n: 9, ..FIRST });
        let of = |member, seq, taken: &[TakenOver]| {
            PeerShard::new(member, seq, Value::from_integer(5), 0, None, taken.to_vec())
        };
        let of_heir = || of(heir, FIRST, &[TakenOver { member: OTHER, seq: FIRST }]);
        for is_late in [false, true] {
            let mut counter = Counter::new(b"a", PrecisionId(0));
            let mut shards = [of(OTHER, later, &[]), of_heir()];
            if is_late {
                shards.reverse();
            }
            for shard in shards {
                counter.merge(shard, Generation::ZERO.into());
            }
            assert_eq!(counter.total(ms(1), &Horizons::default()), Value::from_integer(5), "{is_late}");
        }
    }

    #[test]
    fn what_every_member_knew_to_be_subtracted_does_not_come_back_with_a_departed_one() {
        let (before, later) = (Seq { n: 1, ..FIRST }, Seq { n: 2, ..FIRST });
        for (given_up, counts) in [(before, 105), (later, 100)] {
            let mut counter = Counter::new(b"a", PrecisionId(0));
            counter.learn(set(), Seq::ZERO);
            let restated = PeerShard::new(OTHER, later, Value::ZERO, 0, None, Vec::new());
            counter.merge(restated, set().generation.into());
            let anew = Generation { time: 9, ..set().generation };
            counter.learn(Record { generation: anew, observed: Vec::new(), ..set() }, Seq::ZERO);
            counter.make_full().give_up_subtractions_of(OTHER, given_up);
            assert!(counter.inherit(OTHER, ms(1), &Horizons::default()));
            assert_eq!(counter.total(ms(1), &Horizons::default()).units(), counts);
        }
    }

    #[test]
    fn a_zero_is_kept_while_somebody_may_ask_what_it_was_before() {
        let horizons = vouched_until(ms(900));
        let mut counter = Counter::new(b"a", PrecisionId(0));
        for (n, value, at) in [(1, five(), ms(800)), (2, Value::ZERO, ms(1_000))] {
            let shard = PeerShard::new(OTHER, Seq { n, ..FIRST }, value, 0, None, Vec::new());
            counter.merge_remembering(shard, Generation::ZERO.into(), (at, ms(900)), &horizons);
        }
        assert!(counter.is_disposable());
        assert!(counter.past_is_needed(horizons.past_needed()), "at 900 ms it was 5");
        horizons.set_as_of(OTHER, ms(1_100));
        assert!(!counter.past_is_needed(horizons.past_needed()));
    }

    #[test]
    fn what_a_set_has_seen_is_missing_before_it_was_there() {
        let horizons = vouched_until(ms(900));
        let mut counter = Counter::new(b"a", PrecisionId(0));
        let shard = PeerShard::new(OTHER, FIRST, five(), 0, None, Vec::new());
        counter.merge_remembering(shard, Generation::ZERO.into(), (ms(1_000), ms(900)), &horizons);
        counter.make_full().note_unseen(&set(), ms(1_100), &horizons);
        counter.learn(set(), Seq::ZERO);
        let at = |moment| counter.bounded(moment, &horizons).1;
        assert_eq!(at(ms(900)), Some(5), "it had counted nothing, and the SET has seen 5 of it");
        assert_eq!(at(ms(1_000)), Some(0), "the SET has seen all of it");
    }

    #[test]
    fn a_shard_that_counts_again_what_a_set_has_seen_of_it_says_something_else() {
        let horizons = vouched_until(ms(900));
        let mut counter = Counter::new(b"a", PrecisionId(0));
        let copy = |n| PeerShard::new(OTHER, Seq { n, ..FIRST }, five(), 0, None, Vec::new());
        counter.merge_remembering(copy(1), Generation::ZERO.into(), (ms(800), ms(700)), &horizons);
        counter.learn(set(), Seq::ZERO);
        // Counted before its owner knew of the SET, so it stands again where it stood.
        let restated = set().generation;
        counter.merge_remembering(copy(2), restated.into(), (ms(1_000), ms(900)), &horizons);
        let at = |moment| counter.bounded(moment, &horizons).1;
        assert_eq!((at(ms(900)), at(ms(1_000))), (Some(5), Some(0)));
    }

    #[test]
    fn what_a_set_has_seen_is_missing_before_that_also_where_nothing_of_it_was_known() {
        let horizons = vouched_until(ms(900));
        let mut counter = Counter::new(b"a", PrecisionId(0));
        counter.make_full().note_unseen(&set(), ms(1_100), &horizons);
        counter.learn(set(), Seq::ZERO);
        let at = |counter: &Counter, moment| counter.bounded(moment, &horizons).1;
        assert_eq!(at(&counter, ms(900)), Some(5));
        assert_eq!(at(&counter, ms(1_100)), Some(0));
        let shard = PeerShard::new(OTHER, FIRST, five(), 0, None, Vec::new());
        counter.merge_remembering(shard, Generation::ZERO.into(), (ms(1_200), ms(900)), &horizons);
        assert_eq!(at(&counter, ms(900)), Some(5), "also once it has arrived");
        assert_eq!(at(&counter, ms(1_100)), Some(0));
    }
}
