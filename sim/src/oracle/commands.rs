//! What clients were answered, against what the judge knows.

use super::{CounterId, Oracle, Place};
use crate::oracle::ledger::{By, SetRecord};
use crate::oracle::range::Range;
use crate::process::{CounterState, Generation};
use engine::value::Value;
use std::collections::BTreeMap;

/// A command on one counter, with what was seen around it at the same moment.
#[derive(Clone, Copy, Debug)]
pub struct Around<'a> {
    /// What GET answered just before; `None` if it was not asked.
    pub read_before: Option<Value>,
    /// The counter just before.
    pub before: &'a CounterState,
    /// The counter just after.
    pub after: &'a CounterState,
}

impl Oracle {
    /// An increment was acknowledged with this answer.
    pub fn incremented(
        &mut self,
        place: Place,
        counter: CounterId,
        amount: Value,
        answer: Value,
        around: Around<'_>,
    ) {
        // If the counter has disappeared since anybody looked, this was counted after that.
        self.look(place, counter, around.before);
        let is_forgotten = self.forgotten.contains(&place.id);
        let author = self.ledger(place, counter).author(place.id);
        author.counted += amount.units();
        if is_forgotten {
            // It counts on as long as nobody has told it, for nobody.
            author.spread.low -= amount.units().max(0);
            author.spread.high -= amount.units().min(0);
        }
        author.history.push((place.now, author.counted));
        if let Some(before) = around.read_before
            && before.units() + amount.units() != answer.units()
        {
            self.complain(place, counter, format!("{before} + {amount} was answered as {answer}"));
        }
        self.look(place, counter, around.after);
    }

    /// A SET (or DEL, a SET to zero) was acknowledged.
    pub fn set(&mut self, place: Place, counter: CounterId, value: Value, around: Around<'_>) {
        self.look(place, counter, around.before);
        if value.is_zero() {
            self.fading.insert(counter, place.now);
        }
        let Around { before, after, .. } = around;
        let Some(generation) = after.generation else {
            return self.set_without_generation(place, counter, value, around);
        };
        if after.generation == before.generation {
            return self.set_without_generation(place, counter, value, around);
        }
        if after.generation < before.generation || !place.id.has_signed(generation.1) {
            self.complain(
                place,
                counter,
                format!("SET made generation {generation:?} after {:?}", before.generation),
            );
        }
        let is_forgotten = self.forgotten.contains(&place.id);
        // Who has met nobody yet brings its SET along when it joins.
        let is_ignorant =
            is_forgotten || self.unsettled.contains(&place.id) || !place.is_acquainted || place.is_alone;
        let acquainted = self.acquainted(place.id);
        let ledger = self.ledger(place, counter);
        let previous = ledger.in_force(place.id, before.generation);
        let mut seen: BTreeMap<_, _> =
            after.observed.iter().map(|(&id, shard)| (id, ledger.plain(id, shard))).collect();
        // A node that has told nobody of its shard need not write down that it has seen it.
        let own = ledger.plain_own(place.id, before);
        let known = *seen.entry(place.id).or_insert(own);
        ledger.note_removed(&mut seen, &after.observed, previous, acquainted.as_ref());
        let seqs = after.observed.iter().map(|(&id, shard)| (id, shard.seq)).collect();
        if is_ignorant {
            // What it has counted since it started it has seen as well, though no copy of its shard holds that; of what it counted
            // before, no more than the copy that it has.
            let since = ledger.author(place.id).since_crash();
            seen.insert(place.id, known.hull(own));
            ledger.blur(&mut seen, generation, acquainted.as_ref());
            // That comes on top of whatever earlier ones had seen.
            seen.entry(place.id).and_modify(|seen| *seen = seen.hull(*seen + since));
        }
        let (at, is_maybe_lost) = (place.now, is_forgotten);
        let by = match (is_forgotten, is_ignorant) {
            (true, _) => By::Forgotten,
            (false, true) => By::Starter,
            (false, false) => By::Member,
        };
        let record = SetRecord { value, seen, seqs, previous, acquainted, at, is_maybe_lost, by };
        if ledger.sets.insert(generation, record).is_some() {
            self.complain(place, counter, format!("two SETs made the same generation {generation:?}"));
        }
        // One that was forgotten has not noticed what has disappeared since, and one that has crashed may not have back what it
        // needs to know to which SET its own counts are relative.
        let is_recovering = self.ledger(place, counter).author(place.id).is_recovering;
        if !is_forgotten && !is_recovering && place.is_acquainted {
            self.check_seen(place, counter, previous, around);
        }
        let ledger = self.ledgers.entry((place.epoch, counter)).or_default();
        ledger.note_seen_within_heirs(generation, &self.forgotten);
        self.look(place, counter, after);
    }

    /// A node deletes a counter by itself if its parts cancel out: that must not change what anybody reads. Called with what
    /// all nodes know before anything that may follow from it is judged.
    pub fn note_balance(&mut self, place: Place, counter: CounterId, state: &CounterState) {
        let Some(generation) = state.generation else { return };
        if self.ledger(place, counter).sets.contains_key(&generation) {
            return;
        }
        let is_forgotten = self.forgotten.contains(&place.id);
        let acquainted = self.acquainted(place.id);
        let ledger = self.ledger(place, counter);
        let earlier = ledger.sets.range(..generation).rev();
        let mut before: Vec<_> = earlier.map(|(made, set)| (Some(*made), set.is_maybe_lost)).collect();
        before.push((None, false));
        // One that a crash may have taken away need not be what it was in before.
        let certain = before.iter().position(|(_, is_maybe_lost)| !is_maybe_lost);
        before.truncate(certain.map_or(before.len(), |place| place + 1));
        let mut read = Range::ZERO;
        for (previous, _) in before {
            let mut seen: BTreeMap<_, _> =
                state.observed.iter().map(|(&id, shard)| (id, ledger.plain(id, shard))).collect();
            ledger.note_removed(&mut seen, &state.observed, previous, acquainted.as_ref());
            if is_forgotten {
                ledger.blur(&mut seen, generation, acquainted.as_ref());
            }
            let seqs = state.observed.iter().map(|(&id, shard)| (id, shard.seq)).collect();
            let (value, at, acquainted) = (Value::ZERO, place.now, acquainted.clone());
            let is_maybe_lost = is_forgotten;
            let by = if is_forgotten { By::Forgotten } else { By::Member };
            let record = SetRecord { value, seen, seqs, previous, acquainted, at, is_maybe_lost, by };
            ledger.sets.insert(generation, record);
            read = ledger.expected(previous, |author| ledger.offset(author, Some(generation)));
            if read.contains(0) {
                break;
            }
        }
        // One that was forgotten does not know what the others have SET and taken over since.
        let is_zero = state.set_value.is_zero() && (is_forgotten || read.contains(0));
        self.fading.insert(counter, place.now);
        if !is_zero {
            let text = format!("nobody has SET what is in force, and what it has seen was {read}, not zero");
            self.complain(place, counter, text);
        }
    }

    /// A SET has seen exactly what its author read: per author of increments its estimate of that moment, together
    /// what GET answered.
    fn check_seen(&mut self, place: Place, counter: CounterId, previous: Generation, around: Around<'_>) {
        let Some(read) = around.read_before.filter(|_| is_estimate_whole(around)) else { return };
        let generation = around.after.generation;
        let ledger = self.ledger(place, counter);
        // Of whom it has never met it reads nothing.
        let seen = ledger.expected(previous, |author| match ledger.has_met(generation, author) {
            true => ledger.offset(author, generation),
            false => ledger.base(author, previous),
        });
        if !seen.contains(read.units()) {
            let account = self.account(place.epoch, counter);
            self.complain(
                place,
                counter,
                format!("SET has seen {seen}, but its node read {read} ({account})"),
            );
        }
    }

    /// A SET that left no generation: it had nothing to do, or it deleted what nobody else had ever heard of.
    fn set_without_generation(&mut self, place: Place, counter: CounterId, value: Value, around: Around<'_>) {
        let Around { read_before, before, after } = around;
        if read_before.is_some_and(|read| read != value) {
            if value.is_zero() && after.own.is_none() && before.peers.is_empty() {
                self.deleted_alone(place, counter);
            } else {
                let text = format!("SET {value} made no generation though the counter read another value");
                self.complain(place, counter, text);
            }
        }
        self.look(place, counter, after);
    }

    /// A node that has never met anybody has deleted a counter: as far as anybody will ever know, it never counted there.
    pub(super) fn deleted_alone(&mut self, place: Place, counter: CounterId) {
        let ledger = self.ledger(place, counter);
        let author = ledger.author(place.id);
        author.counted = 0;
        author.history.clear();
        author.losses.clear();
        ledger.sets.retain(|made, _| !place.id.has_signed(made.1));
        self.view(place, counter).generation = None;
    }
}

/// Whether what the node read was the plain sum of what it had: so unless a shard is stated in a generation that lost,
/// and its owner has not learned yet that it did. What the owner had counted before that SET, only it can add again.
fn is_estimate_whole(around: Around<'_>) -> bool {
    let before = around.before;
    around.after.observed.iter().all(|(id, shard)| match before.observed.get(id) {
        _ if shard.generation == before.generation => true,
        None => shard.generation.is_none(),
        Some(seen) => shard.seq <= seen.seq || shard.generation == seen.generation,
    })
}
