//! What must be so once everything is healed and quiet: the formula, everywhere.

use super::ledger::Ledger;
use super::{CounterId, Oracle, Place, Range};
use crate::process::{CounterState, Generation, Seq, ShardState};
use engine::NodeId;
use engine::value::Value;
use std::collections::BTreeMap;

/// What one node answers about one counter in the end.
#[derive(Clone, Debug)]
pub struct Finding {
    /// Who.
    pub place: Place,
    /// GET.
    pub value: Value,
    /// EXISTS.
    pub exists: bool,
    /// What it knows.
    pub state: CounterState,
}

impl Oracle {
    /// Whether all living members agree on a counter, and on the right value.
    ///
    /// # Errors
    /// What is wrong, for people; it may become right if more time passes.
    pub fn settled(&self, counter: CounterId, findings: &[Finding]) -> Result<(), String> {
        let Some(first) = findings.first() else { return Ok(()) };
        let text = |finding: &Finding| format!("n{} reads {}", finding.place.host, finding.value);
        let all = || findings.iter().map(text).collect::<Vec<_>>().join(", ");
        if self.stale_line(counter, findings).is_some() {
            return self.same_copies(counter, findings);
        }
        if findings.iter().any(|finding| finding.value != first.value) {
            return Err(format!("c{counter}: they differ: {}", all()));
        }
        // Where its precision was set on purpose it is kept.
        let is_kept = self.precise.contains(&counter);
        if !is_kept && let Some(other) = findings.iter().find(|finding| finding.exists != first.exists) {
            let (with, without) = if first.exists { (first, other) } else { (other, first) };
            let (with, without) = (with.place.host, without.place.host);
            return Err(format!(
                "c{counter}: it reads {} and exists on n{with}, but not on n{without}",
                first.value
            ));
        }
        let unknown = Ledger::default();
        let ledger = self.ledgers.get(&(first.place.epoch, counter)).unwrap_or(&unknown);
        let in_force = |finding: &Finding| ledger.in_force(finding.place.id, finding.state.generation);
        let known = findings.iter().map(|finding| finding.state.generation).max().flatten();
        let generation = known.or(findings.iter().map(in_force).max().flatten());
        if let Some((lost, set)) = ledger.sets.iter().next_back()
            && !set.is_maybe_lost
            && Some(*lost) > generation
            && ledger.later(generation, Some(*lost)) != generation
            && !ledger.may_outlive(generation, Some(*lost))
            && !ledger.is_gone_elsewhere(*lost, generation)
        {
            return Err(format!(
                "c{counter}: SET {} as {lost:?} is lost; {generation:?} is in force",
                set.value
            ));
        }
        let has_heirs = !self.forgotten.is_empty();
        let counted = |id: NodeId| counted_in_the_end(ledger, generation, id, findings, has_heirs);
        let expected = ledger.expected(generation, counted);
        if !expected.contains(first.value.units()) {
            let account = self.account(first.place.epoch, counter);
            return Err(format!("c{counter}: all read {}, but it is {expected} ({account})", first.value));
        }
        if self.has_zeros && first.value.is_zero() && first.exists && !is_kept {
            return Err(format!("c{counter}: it reads zero, but it exists"));
        }
        Ok(())
    }
}

impl Oracle {
    /// A member that died while the counter moved there, and that nobody has been told to forget: its line was followed for
    /// a while and then frozen, on each node at a moment of its own, so reads need not agree. As long as there is one, nobody
    /// takes over the shards of others that were forgotten either.
    fn stale_line(&self, counter: CounterId, findings: &[Finding]) -> Option<NodeId> {
        let ledger = self.ledgers.get(&(findings.first()?.place.epoch, counter))?;
        let is_alive = |id: &NodeId| findings.iter().any(|finding| finding.place.id == *id);
        let is_left = |id: &NodeId| !self.forgotten.contains(id) && !is_alive(id);
        let has_no_heir = self.unsettled.iter().any(is_left);
        let is_waiting = |id: &NodeId| has_no_heir && self.forgotten.contains(id) && !is_alive(id);
        let mut authors = ledger.authors.keys();
        authors.find(|id| is_waiting(id) || (self.unsettled.contains(id) && is_left(id))).copied()
    }

    /// What must be the same all the same: the SET in force and everybody's copy of everybody's shard.
    fn same_copies(&self, counter: CounterId, findings: &[Finding]) -> Result<(), String> {
        let mut known: BTreeMap<NodeId, (&Finding, ShardState)> = BTreeMap::new();
        for finding in findings {
            let own = finding.state.own.map(|own| (finding.place.id, own));
            let all = finding.state.peers.iter().map(|(&id, &shard)| (id, shard)).chain(own);
            for (id, shard) in all.filter(|(_, shard)| shard.seq != Seq::default()) {
                let (first, before) = *known.entry(id).or_insert((finding, shard));
                if before != shard {
                    let (a, b) = (first.place.host, finding.place.host);
                    return Err(format!("c{counter}: of {id:?}, n{a} knows {before}, but n{b} {shard}"));
                }
            }
        }
        Ok(())
    }
}

/// An author's plain sum. After a crash: what itself, or whoever has a copy, states, if that is possible. Where there may be heirs,
/// what a node states itself may hold what others had counted, so it says nothing of its own.
fn counted_in_the_end(
    ledger: &Ledger,
    generation: Generation,
    id: NodeId,
    findings: &[Finding],
    has_heirs: bool,
) -> Range {
    let Some(author) = ledger.authors.get(&id) else { return Range::ZERO };
    let possible = author.in_the_end(ledger.seen(id, generation));
    if possible.is_exact() {
        return possible;
    }
    let own = findings.iter().find(|finding| finding.place.id == id);
    let stated = match own {
        Some(_) if has_heirs => None,
        Some(finding) => Some(ledger.plain_own(id, &finding.state)),
        None => findings.iter().find_map(|f| f.state.peers.get(&id)).map(|copy| ledger.plain(id, copy)),
    };
    let stated = stated.map(|sum| sum - Range::exactly(author.taken));
    stated.filter(|sum| possible.low <= sum.low && sum.high <= possible.high).unwrap_or(possible)
}
