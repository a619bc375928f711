//! What a crash may have lost: at most what was neither on the node's disk nor received by anybody who lives.
//!
//! The judge asks all who are left for the latest state that they have of the dead node's shards. What was counted up to
//! that state must never be missing again; of what was counted after it, any amount may be. If the one who had it dies
//! too before it is given back, the judge asks again.

use super::ledger::Ledger;
use super::{CounterId, Oracle, Range};
use crate::process::{CounterState, Epoch, Seq, ShardState};
use engine::NodeId;
use std::collections::BTreeSet;

/// How a node has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Crash {
    /// It comes back.
    Sudden,
    /// It is gone for good: of it the others know no more than its lines, within their precision.
    ForGood,
    /// Somebody who lives had been told all that it had counted and SET itself. What it knew of others dies with it.
    Told,
}

/// Who is left after a crash, and what it knows of one counter.
#[derive(Clone, Debug)]
pub struct Survivor {
    /// Whose state this is: a living node, or the disk of a dead one.
    pub id: NodeId,
    /// What it knows.
    pub state: CounterState,
}

impl Survivor {
    /// Its copy of a shard, or the shard itself.
    fn shard(&self, of: NodeId) -> Option<&ShardState> {
        if self.id == of { self.state.own.as_ref() } else { self.state.peers.get(&of) }
    }
}

impl Oracle {
    /// A node has died, or has given up all that it had. `left(counter)` is what the living, and the disk of the dead
    /// node, know of a counter in that reset epoch.
    pub fn crashed(
        &mut self,
        id: NodeId,
        epoch: Epoch,
        crash: Crash,
        left: impl Fn(CounterId) -> Vec<Survivor>,
    ) {
        self.unsettled.insert(id);
        for (&(_, counter), ledger) in self.ledgers.range_mut((epoch, 0)..=(epoch, CounterId::MAX)) {
            let survivors = left(counter);
            if crash == Crash::Told {
                ledger.note_nothing_lost(id);
            }
            let is_asked = |author: &NodeId| match *author == id {
                true => crash != Crash::Told,
                false => !self.forgotten.contains(author),
            };
            for &author in self.unsettled.iter().filter(|author| is_asked(author)) {
                ledger.note_loss(author, &survivors, &self.forgotten, author == id);
            }
            let is_lost = |author: &NodeId| ledger.is_lost(*author, &survivors);
            if self.unsettled.iter().filter(|known| !self.forgotten.contains(known)).any(is_lost) {
                self.forgotten.iter().for_each(|departed| ledger.note_lost_estate(*departed, &survivors));
            }
            if crash == Crash::ForGood {
                ledger.note_line(id, &survivors);
            }
            let in_force = |survivor: &Survivor| ledger.in_force(survivor.id, survivor.state.generation);
            let members = survivors.iter().filter(|left| !self.forgotten.contains(&left.id));
            let known: Vec<_> = members.map(|left| (in_force(left), self.met.get(&left.id))).collect();
            for (&made, set) in &mut ledger.sets {
                // A higher one by somebody whom its author had never met says nothing of it.
                let is_known = known.iter().any(|&(generation, met)| {
                    let is_met = || met.is_none_or(|met| met.iter().any(|id| id.has_signed(made.1)));
                    generation == Some(made) || generation > Some(made) && is_met()
                });
                let is_told = crash == Crash::Told && id.has_signed(made.1);
                set.is_maybe_lost |= !is_known && !is_told;
            }
        }
    }
}

impl Oracle {
    /// A node dies that knew this of each counter. If it was the last member to hold the shard of one that was forgotten, and
    /// nobody had taken that over, those counts are lost.
    pub fn lost_estates(
        &mut self,
        id: NodeId,
        epoch: Epoch,
        known: impl Fn(CounterId) -> CounterState,
        left: impl Fn(CounterId) -> Vec<Survivor>,
    ) {
        for (&(_, counter), ledger) in self.ledgers.range_mut((epoch, 0)..=(epoch, CounterId::MAX)) {
            let (known, survivors) = (known(counter), left(counter));
            if let Some(own) = &known.own {
                // What it has taken over a moment ago nobody may have looked at.
                let author = ledger.author(id);
                author.max_seq = author.max_seq.max(own.seq);
            }
            for (departed, shard) in known.peers.iter().filter(|(id, _)| self.forgotten.contains(id)) {
                let members = survivors.iter().filter(|left| !self.forgotten.contains(&left.id));
                let held = members.filter_map(|left| left.shard(*departed)).max_by_key(|shard| shard.seq);
                if held.is_none_or(|held| held.seq < shard.seq) {
                    let kept = held.map_or(Range::ZERO, |held| ledger.plain(*departed, held));
                    let author = ledger.author(*departed);
                    author.spread = author.spread.hull(kept - Range::exactly(author.counted));
                }
            }
        }
    }

    /// A node has died of which its disk keeps everything: it must all come back.
    pub fn crashed_with_nothing_lost(&mut self, id: NodeId, epoch: Epoch) {
        self.unsettled.insert(id);
        for (_, ledger) in self.ledgers.range_mut((epoch, 0)..=(epoch, CounterId::MAX)) {
            ledger.note_nothing_lost(id);
        }
    }
}

impl Ledger {
    /// All that it has counted must come back.
    fn note_nothing_lost(&mut self, id: NodeId) {
        if let Some(author) = self.authors.get_mut(&id) {
            author.is_recovering = true;
            author.last_crash = Some((author.counted, author.max_seq));
        }
    }

    /// What is taken over in the end is where a line was when its owner was last heard of.
    fn note_line(&mut self, id: NodeId, survivors: &[Survivor]) {
        let slack = survivors.iter().filter_map(|survivor| survivor.state.slacks.get(&id)).max();
        if let (Some(slack), Some(author)) = (slack, self.authors.get_mut(&id)) {
            author.note_slack(slack.units());
        }
    }

    /// Whether nobody has the latest state of an author's shard that was seen.
    fn is_lost(&self, author: NodeId, survivors: &[Survivor]) -> bool {
        let best =
            survivors.iter().filter_map(|survivor| survivor.shard(author)).map(|shard| shard.seq).max();
        self.authors.get(&author).is_some_and(|known| best.unwrap_or_default() < known.max_seq)
    }

    /// Something of the living is lost, and nobody has the shard of one that has departed: its heir may have been the one who
    /// lost it, after all others had dropped it.
    fn note_lost_estate(&mut self, departed: NodeId, survivors: &[Survivor]) {
        if survivors.iter().all(|survivor| survivor.shard(departed).is_none())
            && let Some(author) = self.authors.get_mut(&departed)
        {
            author.spread = author.spread.hull(Range::exactly(-author.counted));
        }
    }

    /// A forgotten node may still give back what it has, or be turned away before.
    fn note_loss(
        &mut self,
        id: NodeId,
        survivors: &[Survivor],
        forgotten: &BTreeSet<NodeId>,
        is_crash: bool,
    ) {
        let latest = |members_only: bool| {
            let asked = survivors.iter().filter(|left| !members_only || !forgotten.contains(&left.id));
            asked.filter_map(|survivor| survivor.shard(id)).max_by_key(|shard| shard.seq)
        };
        let taken = self.authors.get(&id).map_or(0, |author| author.taken);
        let kept_in = |best: Option<&ShardState>| match best {
            Some(shard) => self.plain(id, shard) - Range::exactly(taken),
            None => Range::ZERO,
        };
        let (best, by_members) = (latest(false), latest(true));
        let kept = kept_in(best).hull(kept_in(by_members));
        let Some(author) = self.authors.get_mut(&id) else { return };
        let possible = author.since(kept) + author.spread;
        let all = possible.hull(kept);
        author.is_recovering = true;
        if is_crash {
            let seq = by_members.map_or(Seq::default(), |shard| shard.seq);
            author.last_crash = Some((author.counted, seq));
        }
        author.spread = all - Range::exactly(author.counted);
        author.note_kept(kept);
    }
}
