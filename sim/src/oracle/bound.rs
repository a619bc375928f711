//! GET BOUND: `[value, bound, age_ms]` is a promise, and this is the only place that says which.
//!
//! *Every other member's part was, at some moment of the last `age_ms`, what `value` takes it for, give or take `bound`
//! for all parts together; the own part is exact.* Whatever a stricter reading of DESIGN.md section 2 is agreed on
//! implies this one. In particular a line that is drawn out for a dead member breaks it as soon as it is off by more
//! than the bound, since the truth stands still while the age grows.
//!
//! The promise is about the generation that the reader is in; but it must know every SET that is older than `age_ms`.

use super::{CounterId, Oracle, Place};
use crate::process::CounterState;
use engine::NodeId;
use engine::time::Micros;
use engine::value::Value;

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
        let from = place.now.since(claim.age + slack(claim.age));
        let ledger = self.ledger(place, counter);
        let generation = ledger.in_force(state.generation);
        let truth = ledger.expected(generation, |id| {
            let Some(author) = ledger.authors.get(&id) else { return ledger.offset(id, generation) };
            if id == place.id {
                return author.now();
            }
            let moment = author.between(from, place.now);
            let is_known = members.contains(&id) || state.peers.contains_key(&id);
            if is_known { moment } else { moment.hull(ledger.offset(id, generation)) }
        });
        let missed = ledger.sets.range((generation.unwrap_or_default())..).find(|(made, set)| {
            Some(**made) > generation
                && set.at < from
                && !set.is_maybe_lost
                && members.iter().any(|id| id.has_signed(made.1))
        });
        let missed = missed
            .map(|(made, set)| format!("SET {} as {made:?}, older than that, is unknown here", set.value));
        let is_within = truth.widened(claim.bound.units()).contains(claim.value.units());
        let text =
            format!("GET BOUND says {} +-{} as of {} ms ago", claim.value, claim.bound, claim.age.millis());
        if !is_within {
            self.complain(place, counter, format!("{text}, but the truth was {truth}"));
        }
        if let Some(missed) = missed {
            self.complain(place, counter, format!("{text}, but {missed}"));
        }
    }
}
