//! GET BOUND: `[value, bound, age_ms]` is a promise (`docs/decisions/get-bound.md`), and this is what is checked of it.
//!
//! 1. *The counter as it was `age_ms` ago was within `bound` of `value`*: every part at that one moment, the own one too.
//! 2. *What the node has counted itself is in `value`, all of it*, and every other member's part is what it was at some moment
//!    of the last `age_ms`: who has just incremented a counter reads that, and the bound covers the difference.
//!
//! In particular a line that is drawn out for a dead member breaks it as soon as it is off by more than the bound, since
//! the truth stands still while the age grows.
//!
//! A SET voids what it has seen, so the promise is about the generation that the reader is in; it must know every SET that is
//! older than `age_ms`. If the one that it is in is younger, then what that had seen cannot be told from what was counted
//! before the moment: each part may then be what it was at any time from the moment to the SET.

use super::{CounterId, Oracle, Place, Range};
use crate::process::CounterState;
use engine::NodeId;
use engine::time::Micros;
use engine::value::Value;
use std::collections::BTreeSet;

/// What GET BOUND answered.
#[derive(Clone, Copy, Debug)]
pub struct Claim {
    /// The value.
    pub value: Value,
    /// How far off it may be.
    pub bound: Value,
    /// How old the knowledge is.
    pub age: Micros,
}

/// The age is told in whole milliseconds, and clocks drift.
fn slack(age: Micros) -> Micros {
    Micros(2_000 + age.0 / 1_000)
}

impl Oracle {
    /// A node that knows these members has made a claim. `state` is what it knew at that moment.
    pub fn claimed(
        &mut self,
        place: Place,
        counter: CounterId,
        claim: Claim,
        state: &CounterState,
        members: &[NodeId],
    ) {
        self.bounds_checked += 1;
        self.look(place, counter, state);
        let moment = place.now.since(claim.age);
        let (from, until) = (moment.since(slack(claim.age)), moment + slack(claim.age));
        // What a removed node has counted is with its heir, or waits for one; also for whoever has joined since.
        let has_joined = members.len() > 1 && !self.forgotten.contains(&place.id);
        let removed = if has_joined { self.forgotten.clone() } else { BTreeSet::new() };
        let ledger = self.ledger(place, counter);
        let floor = ledger.floor_of_reader(place.id);
        let generation = state.generation.or(floor);
        let base =
            |id: NodeId| ledger.offset(id, ledger.later(generation, ledger.floor_as_read(id, place.id)));
        let set_at = generation.and_then(|made| ledger.sets.get(&made)).map_or(Micros(0), |set| set.at);
        let counts = |id: NodeId, to: Micros| {
            let Some(author) = ledger.authors.get(&id) else { return base(id) - base(id) };
            let part = author.or_estimated(author.between(from, to), ledger.seen(id, generation));
            let counts = part - base(id);
            let is_known = id == place.id
                || members.contains(&id)
                || removed.contains(&id)
                || state.peers.contains_key(&id);
            if is_known { counts } else { counts.hull(Range::ZERO) }
        };
        let truth = ledger.expected_from(generation, |id| counts(id, until.max(set_at)));
        let fresh = ledger.expected_from(generation, |id| match ledger.authors.get(&id) {
            Some(author) if id == place.id => author.in_the_end(ledger.seen(id, generation)) - base(id),
            Some(_) | None => counts(id, place.now),
        });
        // Who knows no SET need not know one that others have removed, be it that it has joined since.
        // Who has crashed does not know any more what it had removed, and may SET a lower one.
        let known = state.generation.or(ledger.last_removal().max(generation)).max(floor);
        let missed = ledger.sets.range((known.unwrap_or_default())..).find(|(made, set)| {
            Some(**made) > known
                && set.at < from
                && !set.is_maybe_lost
                && members.iter().any(|id| id.has_signed(made.1))
                && !ledger.is_gone_elsewhere(**made, generation)
        });
        let missed = missed
            .map(|(made, set)| format!("SET {} as {made:?}, older than that, is unknown here", set.value));
        let text =
            format!("GET BOUND says {} +-{} as of {} ms ago", claim.value, claim.bound, claim.age.millis());
        let is_within = |truth: Range| truth.widened(claim.bound.units()).contains(claim.value.units());
        if !is_within(truth) {
            self.complain(place, counter, format!("{text}, but the truth was {truth}"));
        } else if !is_within(fresh) {
            self.complain(place, counter, format!("{text}, but since then the truth was {fresh} only"));
        }
        if let Some(missed) = missed {
            self.complain(place, counter, format!("{text}, but {missed}"));
        }
    }
}
