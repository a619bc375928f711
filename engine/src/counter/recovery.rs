//! What a node does about its own shards after a start: what it has counted since is kept apart from the state that a peer may
//! still correct (docs/decisions/what-the-departed-leave.md).

use super::since_start::{Seen, SinceStart};
use super::{Counter, Full};
use crate::generation::{Observed, Stated, Subtractions};
use crate::ids::{Generation, MemberIndex, Seq};
use crate::import::IMPORTED;
use crate::prediction::Track;
use crate::state::SinceBase;
use crate::time::Micros;
use crate::value::Value;

/// What a peer has kept of an own shard.
#[derive(Clone, Debug)]
pub(crate) struct KeptCopy {
    pub(crate) stated: Stated,
    /// What had been subtracted from it; empty: it is not known.
    pub(crate) subtracted: Subtractions,
    pub(crate) decimals: u8,
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
        // What a dump had of us is less than our own dump has.
        if !is_news || copy.seq.incarnation >= life || copy.seq == IMPORTED {
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
        since.seen = (counted != 0).then_some(Seen::new(Counter::NO_LIFE, left, counted));
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
        let in_force = self.record_generation();
        if let Some(start) = &mut self.since_start {
            start.note_held(&copy, in_force);
            since = start.apart();
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
        let in_force = self.record_generation();
        let seen = self.since_start.as_ref().and_then(|start| start.seen);
        if seen.is_some_and(|seen| seen.life <= copy.seq.incarnation) {
            self.join_since_start();
        }
        let Some(start) = &mut self.since_start else { return 0 };
        let base = std::mem::replace(&mut start.base, copy);
        let base_subtracted = std::mem::replace(&mut start.base_subtracted, subtracted.clone());
        (start.is_estimate, start.is_from_peer) = (false, true);
        // What was counted in lives between, and is in the copy, was on top of the base.
        let held = start.note_held(&copy, in_force);
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
    /// something of it was published, or has come back from a peer that was asked before.
    pub(crate) fn begin_recovery_after_reset(&mut self, own: i128) {
        let has_come_back = self.since_start.as_ref().is_some_and(|start| start.base.seq != Seq::ZERO);
        if self.seq != Seq::ZERO || has_come_back {
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
        if let Some(seen) = self.since_start.as_mut().and_then(|since| since.join()) {
            self.subtracted = self.subtracted_with(seen);
        }
    }

    /// With what a SET of this start, which is in force, has `seen` of what was counted since: part of what was subtracted on
    /// learning of it, unless a peer has handed back a state of a higher generation, from which it has subtracted nothing.
    fn subtracted_with(&self, Seen { left, amount: seen, .. }: Seen) -> Subtractions {
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
        self.since_start.as_mut().and_then(|since| since.seen.take()).map_or(0, |seen| seen.amount)
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
mod tests;
