//! The truth about one counter: every acknowledged increment, by who made it, and every SET with what its author had
//! seen.
//!
//! The formula of the whole design, in the words of this file: the counter reads
//!
//! ```text
//! value of the winning SET + sum over authors of (counted - seen by the winning SET)
//! ```
//!
//! `counted` is the plain sum of an author's acknowledged increments, which no SET ever changes. A node states its
//! shard relative to a generation; what has been subtracted from it by then (`offset`) is what that generation's SET
//! had seen of it. So any shard, stated in any generation, is turned into the plain sum again by adding the offset:
//! the judge compares only plain sums, and never follows the engine's restating.

use crate::oracle::range::Range;
use crate::process::{CounterState, Generation, Seq, ShardState};
use engine::NodeId;
use engine::time::Micros;
use engine::value::Value;
use std::collections::BTreeMap;

/// What one node has counted on one counter.
#[derive(Clone, Debug, Default)]
pub(crate) struct Author {
    /// The plain sum of its acknowledged increments, as if nothing were ever lost.
    pub(crate) counted: i128,
    /// The same after each increment, in order of time.
    pub(crate) history: Vec<(Micros, i128)>,
    /// What crashes may have changed: the truth is `counted` plus something in this range.
    pub(crate) spread: Range,
    /// At its last crash: `counted`, and the number of the latest state that survived.
    pub(crate) last_crash: Option<(i128, Seq)>,
    /// It has crashed and may not have all its counts back: its own shard is not looked at.
    pub(crate) is_recovering: bool,
    /// What it has taken over from forgotten members, as far as the judge saw its shard move.
    pub(crate) taken: i128,
    /// The highest number that its shard ever had.
    pub(crate) max_seq: Seq,
    /// The same when the counter was last seen to disappear: whatever has a higher one was counted since.
    pub(crate) seq_at_floor: Seq,
}

impl Author {
    /// The truth now.
    pub(crate) fn now(&self) -> Range {
        Range::exactly(self.counted) + self.spread
    }

    /// The truth in the end, given what the SET in force had seen and at which number. That was an estimate. If nothing later
    /// than it survived a crash, what the node really had counted may be known to nobody, and the estimate is what is left.
    pub(crate) fn in_the_end(&self, seen: Option<(Range, Seq)>) -> Range {
        self.or_estimated(self.now(), seen)
    }

    /// A truth of some moment, or what it is if that estimate is what is left.
    pub(crate) fn or_estimated(&self, truth: Range, seen: Option<(Range, Seq)>) -> Range {
        match (self.last_crash, seen) {
            (Some((at_crash, kept)), Some((seen, seq))) if seq >= kept => {
                truth.hull(seen + (truth - self.spread - Range::exactly(at_crash)))
            }
            _ => truth,
        }
    }

    /// Everything that was the truth at some moment from `from` to `to`.
    pub(crate) fn between(&self, from: Micros, to: Micros) -> Range {
        let first = self.history.partition_point(|&(at, _)| at <= from);
        let start = first.checked_sub(1).map_or(0, |index| self.history[index].1);
        let changes = self.history[first..].iter().take_while(|&&(at, _)| at <= to);
        changes.fold(Range::exactly(start), |range, &(_, sum)| range.hull(Range::exactly(sum))) + self.spread
    }

    /// Everything that was the truth since its sum was `sum` for the first time, and `sum` itself.
    pub(crate) fn since(&self, sum: Range) -> Range {
        let (mut all, mut is_found) = (sum, sum.contains(0));
        for &(_, value) in &self.history {
            is_found |= sum.contains(value);
            if is_found {
                all = all.hull(Range::exactly(value));
            }
        }
        if is_found { all } else { self.between(Micros(0), Micros::NEVER).hull(sum) }
    }
}

/// A SET that was acknowledged.
#[derive(Clone, Debug)]
pub(crate) struct SetRecord {
    /// What it set.
    pub(crate) value: Value,
    /// The plain sum of each author that it had seen.
    pub(crate) seen: BTreeMap<NodeId, Range>,
    /// At which number of each author's that was.
    pub(crate) seqs: BTreeMap<NodeId, Seq>,
    /// The generation that its author was in before; what it lacks in `seen` it had seen through that.
    pub(crate) previous: Generation,
    /// When.
    pub(crate) at: Micros,
    /// A crash may have taken it away before anybody else knew it.
    pub(crate) is_maybe_lost: bool,
}

/// One counter.
#[derive(Clone, Debug, Default)]
pub(crate) struct Ledger {
    pub(crate) authors: BTreeMap<NodeId, Author>,
    pub(crate) sets: BTreeMap<(u64, u64), SetRecord>,
    /// The generation in which the counter was last seen to disappear: a node that knows no generation reads what it reads
    /// since then.
    pub(crate) floor: Generation,
}

impl Ledger {
    /// The generation that a node is in.
    pub(crate) fn in_force(&self, known: Generation) -> Generation {
        known.or(self.floor)
    }

    /// The SET that a shard is relative to: the highest one that is not above the generation in which it is stated. A shard
    /// that was begun anew after the counter had disappeared is stated in a generation that no SET made, and nothing of it
    /// can have been seen before.
    pub(crate) fn relative_to(&self, stated: Generation) -> Generation {
        self.sets.range(..=stated?).next_back().map(|(made, _)| *made)
    }

    /// What the SET of a generation, or one that it had seen, had seen of an author.
    pub(crate) fn offset(&self, author: NodeId, generation: Generation) -> Range {
        let mut at = generation;
        while let Some(record) = at.and_then(|g| self.sets.get(&g)) {
            if let Some(&seen) = record.seen.get(&author) {
                return seen;
            }
            at = record.previous;
        }
        Range::ZERO
    }

    /// What the SET of a generation itself had seen of an author, and at which number of the author's.
    pub(crate) fn seen(&self, author: NodeId, generation: Generation) -> Option<(Range, Seq)> {
        let record = self.sets.get(&generation?)?;
        Some((*record.seen.get(&author)?, *record.seqs.get(&author)?))
    }

    /// The plain sum that a shard stands for.
    pub(crate) fn plain(&self, author: NodeId, shard: &ShardState) -> Range {
        let mut relative_to = self.relative_to(shard.generation);
        // Counted since the counter has disappeared, by one that a crash has made forget in which generation that was.
        if self.authors.get(&author).is_some_and(|known| shard.seq > known.seq_at_floor) {
            relative_to = relative_to.max(self.floor);
        }
        Range::from(shard.value) + self.offset(author, relative_to)
    }

    /// The counter has disappeared somewhere that was in this generation.
    pub(crate) fn raise_floor(&mut self, generation: Generation) {
        if generation > self.floor {
            self.floor = generation;
            self.authors.values_mut().for_each(|author| author.seq_at_floor = author.max_seq);
        }
    }

    /// The plain sum that a node's own shard stands for, whether or not it keeps one.
    pub(crate) fn plain_own(&self, author: NodeId, state: &CounterState) -> Range {
        match &state.own {
            Some(own) if state.generation.is_some() || own.generation.is_some() || own.seq != (0, 0) => {
                self.plain(author, own)
            }
            // It was zero for everybody when it disappeared, and nobody has seen what was counted since.
            fresh => {
                let counted = fresh.as_ref().map_or(Range::ZERO, |own| own.value.into());
                counted + self.offset_in_force(author)
            }
        }
    }

    /// What the last SET had seen of an author, or one before it if a crash may have taken that away.
    fn offset_in_force(&self, author: NodeId) -> Range {
        let mut sets = self.sets.iter().rev();
        let last = sets.next().map(|(made, _)| *made);
        let is_lost = |made: &(u64, u64)| self.sets[made].is_maybe_lost;
        let mut offset = self.offset(author, last);
        if last.as_ref().is_some_and(is_lost) {
            let earlier = self.sets.keys().rev().skip(1).copied();
            let until_sure = earlier
                .scan(true, |goes_on, made| std::mem::replace(goes_on, is_lost(&made)).then_some(made));
            offset = until_sure.fold(offset, |offset, made| offset.hull(self.offset(author, Some(made))));
            if self.sets.values().all(|set| set.is_maybe_lost) {
                offset = offset.hull(Range::ZERO);
            }
        }
        offset
    }

    /// What a SET set; zero before the first.
    pub(crate) fn set_value(&self, generation: Generation) -> Range {
        generation.and_then(|g| self.sets.get(&g)).map_or(Range::ZERO, |record| record.value.into())
    }

    /// The author of a SET has been through a crash: it may have forgotten SETs that it had acknowledged before, and others may
    /// have given up what they would need to undo those. What it has not seen now, it may have seen then.
    pub(crate) fn blur(&self, seen: &mut BTreeMap<NodeId, Range>, generation: (u64, u64)) {
        for author in self.everybody() {
            let earlier = self.sets.range(..generation).filter_map(|(_, set)| set.seen.get(&author));
            let known = seen.entry(author).or_insert(Range::ZERO);
            *known = earlier.fold(*known, |range, &before| range.hull(before));
        }
    }

    /// All authors of increments and all that a SET has seen something of.
    pub(crate) fn everybody(&self) -> Vec<NodeId> {
        let seen = self.sets.values().flat_map(|record| record.seen.keys());
        let mut all: Vec<NodeId> = self.authors.keys().chain(seen).copied().collect();
        all.sort_unstable();
        all.dedup();
        all
    }

    /// The value that the counter must read in a generation, given each author's plain sum.
    pub(crate) fn expected(&self, generation: Generation, counted: impl Fn(NodeId) -> Range) -> Range {
        self.everybody().into_iter().fold(self.set_value(generation), |sum, author| {
            sum + (counted(author) - self.offset(author, generation))
        })
    }

    /// The author, known from now on.
    pub(crate) fn author(&mut self, id: NodeId) -> &mut Author {
        self.authors.entry(id).or_default()
    }
}
