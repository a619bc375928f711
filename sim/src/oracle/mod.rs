//! The judge. It is told every acknowledged command and looks into every node; it never looks at a line, a frame or a
//! link, and shares no arithmetic with the engine save `Value`.
//!
//! What it demands, and where that stands:
//!
//! | demand | where |
//! |---|---|
//! | an increment answers what was read before plus its amount; a SET answers and reads its value | `commands` |
//! | a SET has seen what its author read at that moment, and its generation is above the author's former one | `commands` |
//! | nobody else's message moves an own shard | `Oracle::look` |
//! | sequence numbers never go back, neither a shard's own nor a copy's | `Oracle::look` |
//! | GET BOUND: the truth is within the bound | `bound` |
//! | a crash loses at most what nobody alive and no disk had | `crashes` |
//! | in the end every node reads the same, and it is the formula of `ledger` | `finale` |
//! | in the end zero counters are gone | `finale` |
//!
//! A demand that fails is noted once as a violation; the run ends with it.

mod bound;
mod commands;
mod crashes;
mod finale;
mod ledger;
mod range;

#[cfg(test)]
mod tests;

use crate::process::{CounterState, Epoch, Generation, Seq};
pub use bound::Claim;
pub use commands::Around;
pub use crashes::{Crash, Survivor};
use engine::NodeId;
use engine::time::Micros;
pub use finale::Finding;
use ledger::{Ledger, Removal};
pub use range::Range;
use std::collections::{BTreeMap, BTreeSet};

/// Names a counter of the run.
pub type CounterId = usize;

/// Who, where and when.
#[derive(Clone, Copy, Debug)]
pub struct Place {
    /// The host, for messages.
    pub host: usize,
    /// Number of its life: rises with each start and each CLUSTER RESET.
    pub life: u32,
    /// The node on it.
    pub id: NodeId,
    /// The last DEBUG RESET that it has carried out.
    pub epoch: Epoch,
    /// World time.
    pub now: Micros,
    /// The node knows no other member.
    pub is_alone: bool,
    /// It has received everything from each member at least once.
    pub is_acquainted: bool,
}

/// What was last seen of a counter on one process.
#[derive(Clone, Debug, Default)]
struct View {
    generation: Generation,
    was_alone: bool,
    own_seq: Seq,
    copies: BTreeMap<NodeId, Seq>,
}

/// The judge of a run.
#[derive(Debug, Default)]
pub struct Oracle {
    ledgers: BTreeMap<(Epoch, CounterId), Ledger>,
    /// By (node, number of its process, epoch, counter).
    views: BTreeMap<(NodeId, u32, Epoch, CounterId), View>,
    /// Whom each node has ever met.
    met: BTreeMap<NodeId, BTreeSet<NodeId>>,
    /// Nodes that have been forgotten: somebody may take over their counts.
    forgotten: BTreeSet<NodeId>,
    /// When each counter was last set to zero: it may disappear.
    fading: BTreeMap<CounterId, Micros>,
    /// Counters of which a client has set the precision: they may stay at zero.
    precise: BTreeSet<CounterId>,
    /// Highest reset epoch of each node, by id.
    epochs: BTreeMap<NodeId, Epoch>,
    /// Nodes that have crashed at some time: what is left of their shards is asked again at each crash.
    unsettled: BTreeSet<NodeId>,
    has_zeros: bool,
    /// What has been found wrong.
    pub violations: Vec<String>,
    /// How many claims of GET BOUND were checked.
    pub bounds_checked: u64,
    /// How often GET BOUND answered that it can say nothing.
    pub bounds_open: u64,
}

impl Oracle {
    /// A judge who knows nothing yet. `has_zeros`: counters that read zero must disappear.
    pub fn new(has_zeros: bool) -> Oracle {
        Oracle { has_zeros, ..Oracle::default() }
    }

    fn complain(&mut self, place: Place, counter: CounterId, what: String) {
        let Place { host, id, now, .. } = place;
        let at = format!("{}.{:06}", now.secs(), now.0 % 1_000_000);
        self.violations.push(format!("at {at} on n{host} ({id:?}), counter c{counter}: {what}"));
    }

    fn ledger(&mut self, place: Place, counter: CounterId) -> &mut Ledger {
        self.ledgers.entry((place.epoch, counter)).or_default()
    }

    /// A node knows these members, itself included.
    pub fn note_members(&mut self, id: NodeId, members: &[NodeId]) {
        self.met.entry(id).or_default().extend(members);
    }

    /// Whom a node has ever met, or need not meet any more; `None` if nobody has said.
    fn acquainted(&self, id: NodeId) -> Option<BTreeSet<NodeId>> {
        Some(self.met.get(&id)? | &self.forgotten)
    }

    /// A client has set the precision of a counter somewhere.
    pub fn note_precision(&mut self, counter: CounterId) {
        self.precise.insert(counter);
    }

    /// An operator has had a member forgotten.
    pub fn note_forgotten(&mut self, id: NodeId) {
        self.forgotten.insert(id);
        for author in self.ledgers.values_mut().filter_map(|ledger| ledger.authors.get_mut(&id)) {
            author.has_departed = true;
        }
    }

    /// The reset epochs before this one in which anything was counted.
    pub fn epochs_before(&self, epoch: Epoch) -> BTreeSet<Epoch> {
        self.ledgers.keys().map(|(of, _)| *of).filter(|of| *of < epoch).collect()
    }

    /// Counters that may disappear these days. What a counter's last generation was can't be seen once it has gone, so they
    /// must be looked at often.
    pub fn fading(&self, now: Micros) -> Vec<CounterId> {
        /// Longer than it usually takes.
        const FADING: Micros = Micros::from_secs(5);
        self.fading
            .iter()
            .filter(|(_, set_at)| now.since(**set_at) < FADING)
            .map(|(&counter, _)| counter)
            .collect()
    }

    /// Looks at a counter on a node: what must hold at every moment, whatever has just happened.
    pub fn look(&mut self, place: Place, counter: CounterId, state: &CounterState) {
        self.check_epoch(place, counter);
        self.check_seqs(place, counter, state);
        self.note_disappearance(place, counter, state);
        self.note_late_lines(place, counter, state);
        self.check_own(place, counter, state);
    }

    /// A removed node that has not heard of it goes on publishing, to some who have not either: such a line may be taken over.
    fn note_late_lines(&mut self, place: Place, counter: CounterId, state: &CounterState) {
        for (&id, slack) in state.slacks.iter().filter(|(id, _)| self.forgotten.contains(id)) {
            if let Some(ledger) = self.ledgers.get_mut(&(place.epoch, counter)) {
                ledger.author(id).note_slack(slack.units());
            }
        }
    }

    /// A node never goes back behind a DEBUG RESET.
    fn check_epoch(&mut self, place: Place, counter: CounterId) {
        let known = self.epochs.entry(place.id).or_default();
        if place.epoch < *known {
            let known = *known;
            self.complain(place, counter, format!("reset epoch {:?} after {known:?}", place.epoch));
        } else {
            *known = place.epoch;
        }
    }

    fn view(&mut self, place: Place, counter: CounterId) -> &mut View {
        self.views.entry((place.id, place.life, place.epoch, counter)).or_default()
    }

    /// Sequence numbers never go back.
    fn check_seqs(&mut self, place: Place, counter: CounterId, state: &CounterState) {
        let view = self.view(place, counter);
        let mut wrong = Vec::new();
        // An own shard that has not been published yet, or is counted anew after it disappeared, has no number.
        if let Some(own) = state.own.as_ref().filter(|own| own.seq != Seq::default()) {
            if own.seq < view.own_seq {
                wrong.push(format!("own seq {:?} after {:?}", own.seq, view.own_seq));
            }
            view.own_seq = own.seq;
        }
        for (&id, copy) in &state.peers {
            let known = view.copies.entry(id).or_default();
            if copy.seq < *known {
                wrong.push(format!("copy of {id:?} has seq {:?} after {known:?}", copy.seq));
            }
            *known = copy.seq;
        }
        if let Some(own) = &state.own {
            let author = self.ledger(place, counter).author(place.id);
            author.max_seq = author.max_seq.max(own.seq);
        }
        for what in wrong {
            self.complain(place, counter, what);
        }
    }

    /// A counter that has lost its generation has disappeared: whoever counts anew counts from there.
    fn note_disappearance(&mut self, place: Place, counter: CounterId, state: &CounterState) {
        let view = self.view(place, counter);
        let before = std::mem::replace(&mut view.generation, state.generation);
        // It may have joined since it deleted the counter.
        let was_alone = std::mem::replace(&mut view.was_alone, place.is_alone) || place.is_alone;
        if state.generation < before {
            // Where a counter was removed, it begins anew above all that was; its record may be a lower one of others.
            let has_begun_anew = state.own.as_ref().is_some_and(|own| own.generation >= before);
            if state.generation.is_some() && !has_begun_anew {
                self.complain(place, counter, format!("generation {:?} after {before:?}", state.generation));
            }
            if was_alone && before.is_some_and(|made| place.id.has_signed(made.1)) {
                return self.deleted_alone(place, counter);
            }
            let acquainted = self.acquainted(place.id);
            let kept_in = self.kept_by_forgotten(place.epoch, counter);
            let removal =
                Removal { generation: before, acquainted, forgotten: self.forgotten.clone(), kept_in };
            self.ledger(place, counter).note_removal(place.id, removal);
        }
    }

    /// The generations in which nodes that were forgotten have a counter, in the last life of each.
    fn kept_by_forgotten(&self, epoch: Epoch, counter: CounterId) -> BTreeSet<Generation> {
        let of_forgotten = self
            .views
            .iter()
            .filter(|((id, _, of, name), _)| (*of, *name) == (epoch, counter) && self.forgotten.contains(id));
        let last: BTreeMap<_, _> = of_forgotten.map(|((id, ..), view)| (*id, view.generation)).collect();
        last.into_values().collect()
    }

    /// Nobody else's message moves an own shard: it is always what this node's clients have counted.
    fn check_own(&mut self, place: Place, counter: CounterId, state: &CounterState) {
        let is_heir_possible = !self.forgotten.is_empty();
        let has_departed = self.forgotten.contains(&place.id);
        let ledger = self.ledger(place, counter);
        let stated = ledger.plain_own(place.id, state);
        let author = ledger.author(place.id);
        author.has_departed = has_departed;
        let expected = author.now() + Range::exactly(author.taken);
        let is_right = stated.low <= expected.high && stated.high >= expected.low;
        // A crash that has lost nothing ends once everything is back; until all have been asked, zero may be an accident. Where
        // there may be heirs, what is there beyond that by then was taken over.
        let is_back = expected.is_exact() && place.is_acquainted && (is_right || is_heir_possible);
        author.is_recovering &= !is_back;
        if author.is_recovering || is_right {
            return;
        }
        if is_heir_possible {
            author.taken += stated.low - expected.low;
            return;
        }
        let what =
            format!("own shard stands for {stated}, but its clients have counted {expected} ({state:?})");
        self.complain(place, counter, what);
    }

    /// A short account of a counter, for a failing seed.
    pub fn account(&self, epoch: Epoch, counter: CounterId) -> String {
        /// More would hide what matters.
        const LAST_SETS: usize = 4;
        let Some(ledger) = self.ledgers.get(&(epoch, counter)) else { return "never touched".into() };
        let counted = ledger.authors.iter().map(|(id, author)| format!("{id:?} counted {}", author.now()));
        let mut parts: Vec<String> = counted.collect();
        let hidden = ledger.sets.len().saturating_sub(LAST_SETS);
        parts.extend((hidden > 0).then(|| format!("{hidden} SETs")));
        parts.extend(ledger.sets.iter().skip(hidden).map(|(generation, set)| {
            let seen: Vec<String> = set.seen.iter().map(|(id, sum)| format!("{id:?} {sum}")).collect();
            let (at, seen) = (set.at.millis(), seen.join(", "));
            format!("SET {} at {at} ms as {generation:?}, having seen [{seen}]", set.value)
        }));
        parts.join("; ")
    }
}
