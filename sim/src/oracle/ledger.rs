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
use std::collections::{BTreeMap, BTreeSet};

/// What one node has counted on one counter.
#[derive(Clone, Debug, Default)]
pub(crate) struct Author {
    /// The plain sum of its acknowledged increments, as if nothing were ever lost.
    pub(crate) counted: i128,
    /// The same after each increment, in order of time.
    pub(crate) history: Vec<(Micros, i128)>,
    /// What crashes may have changed: the truth is `counted` plus something in this range.
    pub(crate) spread: Range,
    /// How far off its line may be that is taken over in the end: part of the spread.
    pub(crate) slack: i128,
    /// At its last crash: `counted`, and the number of the latest state that survived.
    pub(crate) last_crash: Option<(i128, Seq)>,
    /// What each of its crashes may have lost.
    pub(crate) losses: Vec<Loss>,
    /// It was forgotten: heirs may have taken over what it has counted.
    pub(crate) has_departed: bool,
    /// It has crashed and may not have all its counts back: its own shard is not looked at.
    pub(crate) is_recovering: bool,
    /// What it has taken over from forgotten members, as far as the judge saw its shard move.
    pub(crate) taken: i128,
    /// The highest number that its shard ever had.
    pub(crate) max_seq: Seq,
    /// The same when the counter was last seen to disappear: whatever has a higher one was counted since.
    pub(crate) seq_at_floor: Seq,
}

/// Counts that a crash may have lost: all, some or none of them are missing, in the end as at any moment before.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Loss {
    /// How many increments there had been in what was left.
    from: usize,
    /// How many at the crash.
    until: usize,
    /// What was left.
    kept: Range,
}

impl Author {
    /// The truth now.
    pub(crate) fn now(&self) -> Range {
        Range::exactly(self.counted) + self.spread
    }

    /// What is taken over of it may be so far off.
    pub(crate) fn note_slack(&mut self, slack: i128) {
        self.spread = self.spread.widened((slack - self.slack).max(0));
        self.slack = self.slack.max(slack);
    }

    /// What it has counted since its last crash; nothing if there was none.
    pub(crate) fn since_crash(&self) -> Range {
        Range::exactly(self.counted - self.last_crash.map_or(self.counted, |(at_crash, _)| at_crash))
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
        let changes = self.history[first..].iter().take_while(|&&(at, _)| at <= to);
        let last = first + changes.count();
        (first..last).fold(self.after(last), |range, increments| range.hull(self.after(increments)))
    }

    /// The truth after so many increments.
    fn after(&self, increments: usize) -> Range {
        let sum = increments.checked_sub(1).map_or(0, |index| self.history[index].1);
        let lost = self.losses.iter().filter(|loss| (loss.from..=loss.until).contains(&increments));
        lost.fold(Range::exactly(sum) + self.spread, |truth, loss| truth.hull(loss.kept))
    }

    /// A crash has left this.
    pub(crate) fn note_kept(&mut self, kept: Range) {
        let place = self.history.iter().position(|&(_, sum)| kept.contains(sum));
        let from = place.filter(|_| !kept.contains(0)).map_or(0, |place| place + 1);
        let until = self.history.len();
        match self.losses.last_mut().filter(|last| last.until == until) {
            Some(last) => (last.from, last.kept) = (last.from.min(from), last.kept.hull(kept)),
            None => self.losses.push(Loss { from, until, kept }),
        }
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
    /// Whom its author had ever met, or who had been forgotten by then; `None`: everybody.
    pub(crate) acquainted: Option<BTreeSet<NodeId>>,
    /// When.
    pub(crate) at: Micros,
    /// A crash may have taken it away before anybody else knew it.
    pub(crate) is_maybe_lost: bool,
    /// What may be wrong with its author.
    pub(crate) by: By,
}

/// What its author was when it made a SET.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum By {
    /// One who knows all that it has ever acknowledged.
    Member,
    /// It had crashed, or nobody had told it everything yet: it need not have known of SETs that it had acknowledged before.
    Starter,
    /// Owners need not remember what its SET may ask back.
    Forgotten,
}

/// The counter was seen to disappear from a node: all that had been counted by those it knew was zero then.
#[derive(Clone, Debug, Default)]
pub(crate) struct Removal {
    /// The generation that it was in.
    pub(crate) generation: Generation,
    /// Whom the node had ever met, itself included, or who had been forgotten by then; `None`: everybody.
    pub(crate) acquainted: Option<BTreeSet<NodeId>>,
    /// Who had been forgotten by then: nobody asked them.
    pub(crate) forgotten: BTreeSet<NodeId>,
    /// In which generations those had it then.
    pub(crate) kept_in: BTreeSet<Generation>,
}

/// One counter.
#[derive(Clone, Debug, Default)]
pub(crate) struct Ledger {
    pub(crate) authors: BTreeMap<NodeId, Author>,
    pub(crate) sets: BTreeMap<(u64, u64), SetRecord>,
    /// The last removal from each node.
    pub(crate) removals: BTreeMap<NodeId, Removal>,
}

/// Whether that is one of them; `None`: everybody is.
fn is_among(acquainted: Option<&BTreeSet<NodeId>>, id: NodeId) -> bool {
    acquainted.is_none_or(|met| met.contains(&id))
}

impl Ledger {
    /// The generation in which the counter has last disappeared from a node, or from another one that had met it: that took
    /// the word of both. A node that knows no generation reads what it reads since then.
    pub(crate) fn floor(&self, id: NodeId) -> Generation {
        self.last(self.removals.values().filter(|removal| is_among(removal.acquainted.as_ref(), id)))
    }

    /// The same as another node reads it that may have been forgotten: it knows nothing of what was removed since.
    pub(crate) fn floor_as_read(&self, id: NodeId, reader: NodeId) -> Generation {
        let is_known = |&(remover, removal): &(&NodeId, &Removal)| {
            is_among(removal.acquainted.as_ref(), id)
                && (*remover == reader || !removal.forgotten.contains(&reader))
        };
        self.last(self.removals.iter().filter(is_known).map(|(_, removal)| removal))
    }

    /// The same for what a node reads that may have been forgotten meanwhile: only what it took part in.
    pub(crate) fn floor_of_reader(&self, id: NodeId) -> Generation {
        let took_part = |&(remover, removal): &(&NodeId, &Removal)| {
            is_among(removal.acquainted.as_ref(), id) && (*remover == id || !removal.forgotten.contains(&id))
        };
        self.last(self.removals.iter().filter(took_part).map(|(_, removal)| removal))
    }

    /// The generation in which the counter has last disappeared anywhere.
    pub(crate) fn last_removal(&self) -> Generation {
        self.last(self.removals.values())
    }

    /// The generation of the last of these.
    fn last<'a>(&self, removals: impl Iterator<Item = &'a Removal>) -> Generation {
        let generations = removals.map(|removal| removal.generation);
        generations.reduce(|one, other| self.later(one.min(other), one.max(other))).flatten()
    }

    /// The generation that a node is in.
    pub(crate) fn in_force(&self, id: NodeId, known: Generation) -> Generation {
        known.or(self.floor(id))
    }

    /// Whether a SET has gone with the counter, where nobody had met the author of the lower one that is in force, or a node that had
    /// been forgotten still had that: it lives on where it was not removed, since nobody remembers the other any more.
    pub(crate) fn is_gone_elsewhere(&self, set: (u64, u64), in_force: Generation) -> bool {
        let Some((_, author)) = in_force else { return false };
        let is_unknown = |met: &BTreeSet<NodeId>| met.iter().all(|id| !id.has_signed(author));
        self.removals.values().any(|removal| {
            removal.generation >= Some(set)
                && (removal.acquainted.as_ref().is_some_and(is_unknown)
                    || removal.kept_in.contains(&in_force))
        })
    }

    /// The SET that a shard is relative to: the highest one that is not above the generation in which it is stated. A shard
    /// that was begun anew after the counter had disappeared is stated in a generation that no SET made, and nothing of it
    /// can have been seen before.
    pub(crate) fn relative_to(&self, stated: Generation) -> Generation {
        self.sets.range(..=stated?).next_back().map(|(made, _)| *made)
    }

    /// What the SET of a generation, or one that it had seen, had seen of an author.
    ///
    /// Whom the author of the SET had never met has a history of its own. What earlier SETs there had seen of it may be
    /// forgotten, if all members there had acknowledged it; else it comes back. The same goes for a SET by a forgotten node that
    /// somebody brings along, since members do not wait for what it acknowledges. What that had seen of departed ones by themselves
    /// heirs may have taken over before it came, and nobody remembers any more how much of the heir's shard that is.
    pub(crate) fn offset(&self, author: NodeId, generation: Generation) -> Range {
        let mut at = generation;
        while let Some((made, record)) = at.and_then(|g| self.sets.get_key_value(&g)) {
            let is_member = record.by != By::Forgotten;
            match record.seen.get(&author).copied() {
                Some(seen) if is_member => return seen,
                None if is_member && is_among(record.acquainted.as_ref(), author) => at = record.previous,
                // Also what lower ones had seen that were made later.
                known => {
                    let lower = self.sets.range(..made).filter_map(|(_, set)| set.seen.get(&author));
                    let is_taken_over = self.authors.get(&author).is_some_and(|author| author.has_departed);
                    let unseen = is_taken_over.then_some(Range::ZERO);
                    let first = known.unwrap_or(Range::ZERO);
                    return lower.copied().chain(unseen).fold(first, Range::hull);
                }
            }
        }
        Range::ZERO
    }

    /// The same for what an author adds under that generation. What it had counted where the counter was removed in a later one is
    /// zero for good.
    pub(crate) fn base(&self, author: NodeId, generation: Generation) -> Range {
        let floor = self.floor(author);
        let base = self.offset(author, self.later(generation, floor));
        if self.may_outlive(generation, floor) { base.hull(self.offset(author, generation)) } else { base }
    }

    /// Whether a lower SET, by a node that had crashed and was not told of the other yet, may be in force after a removal: when it
    /// comes the other is remembered nowhere.
    pub(crate) fn may_outlive(&self, generation: Generation, removed: Generation) -> bool {
        let record = generation.and_then(|made| self.sets.get(&made));
        generation < removed
            && record.is_some_and(|record| record.by != By::Member)
            && self.removals.values().any(|removal| removal.generation == removed)
    }

    /// Which of two generations came later, of which the second is that of a removal. The higher one, unless all who knew of the
    /// removal have crashed since: then a SET after it may be lower.
    pub(crate) fn later(&self, generation: Generation, floor: Generation) -> Generation {
        let mut at = generation;
        while let Some(record) = at.and_then(|made| self.sets.get(&made)) {
            if at < floor && record.previous == floor {
                return generation;
            }
            at = record.previous;
        }
        generation.max(floor)
    }

    /// Whether the author of a SET had ever met another author.
    pub(crate) fn has_met(&self, generation: Generation, author: NodeId) -> bool {
        let record = generation.and_then(|made| self.sets.get(&made));
        record.is_none_or(|record| is_among(record.acquainted.as_ref(), author))
    }

    /// What the SET of a generation, or one that it had seen, had seen of an author, and at which number of the author's.
    pub(crate) fn seen(&self, author: NodeId, generation: Generation) -> Option<(Range, Seq)> {
        let mut record = self.sets.get(&generation?)?;
        while !record.seen.contains_key(&author) && is_among(record.acquainted.as_ref(), author) {
            record = self.sets.get(&record.previous?)?;
        }
        Some((*record.seen.get(&author)?, *record.seqs.get(&author)?))
    }

    /// The plain sum that a shard stands for.
    ///
    /// One that was begun in a generation that no SET made is relative to the SET before that; if a crash may have taken that one
    /// away, perhaps to one before.
    pub(crate) fn plain(&self, author: NodeId, shard: &ShardState) -> Range {
        // Counted since the counter has disappeared, by one that a crash has made forget in which generation that was.
        let is_since = self.authors.get(&author).is_some_and(|known| shard.seq > known.seq_at_floor);
        let floor = if is_since { self.floor(author) } else { None };
        let offset = |relative_to| self.offset(author, self.later(relative_to, floor));
        let is_made = shard.generation.is_none_or(|made| self.sets.contains_key(&made));
        let mut possible = offset(self.relative_to(shard.generation));
        let mut earlier = shard.generation.into_iter().flat_map(|made| self.sets.range(..=made).rev());
        while !is_made
            && let Some((_, set)) = earlier.next()
            && set.is_maybe_lost
        {
            let before = earlier.clone().next().map(|(made, _)| *made);
            possible = possible.hull(offset(before));
        }
        Range::from(shard.value) + possible
    }

    /// Whether a counter disappeared in the one generation after it had in the other.
    fn is_after(&self, generation: Generation, floor: Generation) -> bool {
        generation != floor && self.later(generation.min(floor), generation.max(floor)) == generation
    }

    /// The counter has disappeared from a node.
    pub(crate) fn note_removal(&mut self, id: NodeId, removal: Removal) {
        let ids: Vec<NodeId> = self.authors.keys().copied().collect();
        for author in ids.into_iter().filter(|author| is_among(removal.acquainted.as_ref(), *author)) {
            if self.is_after(removal.generation, self.floor(author)) {
                let author = self.author(author);
                author.seq_at_floor = author.max_seq;
            }
        }
        let last = self.removals.get(&id).and_then(|removal| removal.generation);
        if self.is_after(removal.generation, last) {
            self.removals.insert(id, removal);
        }
    }

    /// The plain sum that a node's own shard stands for, whether or not it keeps one.
    pub(crate) fn plain_own(&self, author: NodeId, state: &CounterState) -> Range {
        match &state.own {
            Some(own) if state.generation.is_some() || own.seq != (0, 0) => self.plain(author, own),
            // It was zero for everybody when it disappeared, and nobody has seen what was counted since. The generation in which it
            // begins is that of any counter that has disappeared.
            fresh => {
                let counted = fresh.as_ref().map_or(Range::ZERO, |own| own.value.into());
                counted + self.offset_in_force(author)
            }
        }
    }

    /// What the last SET by somebody who had met an author, or the one that has disappeared there, had seen of it; or one before it if a
    /// crash may have taken that away.
    fn offset_in_force(&self, author: NodeId) -> Range {
        let floor = self.floor(author);
        let mut offset: Option<Range> = None;
        for (made, set) in self.sets.iter().rev() {
            if Some(*made) != floor && !is_among(set.acquainted.as_ref(), author) {
                continue;
            }
            let seen = self.offset(author, Some(*made));
            let possible = offset.map_or(seen, |offset| offset.hull(seen));
            if !set.is_maybe_lost {
                return possible;
            }
            offset = Some(possible);
        }
        offset.map_or(Range::ZERO, |offset| offset.hull(Range::ZERO))
    }

    /// What a SET set; zero before the first.
    pub(crate) fn set_value(&self, generation: Generation) -> Range {
        generation.and_then(|g| self.sets.get(&g)).map_or(Range::ZERO, |record| record.value.into())
    }

    /// The author of a SET has been through a crash: it may have forgotten SETs that it had acknowledged before, and others may
    /// have given up what they would need to undo those. What it has not seen now, it may have seen then. (Whom it has never met:
    /// see `offset`.)
    pub(crate) fn blur(
        &self,
        seen: &mut BTreeMap<NodeId, Range>,
        generation: (u64, u64),
        acquainted: Option<&BTreeSet<NodeId>>,
    ) {
        for author in self.everybody().into_iter().filter(|author| is_among(acquainted, *author)) {
            // Those that were made before, though a crash may have made their author forget how late it was.
            let before = self.sets.iter().filter(|(made, _)| **made != generation);
            let earlier = before.filter_map(|(_, set)| set.seen.get(&author));
            let known = seen.entry(author).or_insert(Range::ZERO);
            *known = earlier.fold(*known, |range, &before| range.hull(before));
        }
    }

    /// What a SET had seen of authors who count anew since the counter was removed in a generation that the author of the SET, if it
    /// has met them, need not have known: also where it brings along what a lower one, back from a disk, had seen of them before.
    pub(crate) fn note_removed(
        &self,
        seen: &mut BTreeMap<NodeId, Range>,
        observed: &BTreeMap<NodeId, ShardState>,
        previous: Generation,
        acquainted: Option<&BTreeSet<NodeId>>,
    ) {
        for author in self.everybody().into_iter().filter(|author| is_among(acquainted, *author)) {
            if self.floor(author) <= previous {
                continue;
            }
            let at_floor = self.authors.get(&author).map_or(Seq::default(), |known| known.seq_at_floor);
            if observed.get(&author).is_some_and(|shard| shard.seq != Seq::default() && shard.seq <= at_floor)
            {
                seen.remove(&author);
            }
            seen.entry(author).or_insert_with(|| self.base(author, previous));
        }
    }

    /// Where the SET before had seen a departed member within its heir's shard, and the author of this one had not heard of the
    /// takeover, it has seen the same twice; that counts once.
    pub(crate) fn note_seen_within_heirs(&mut self, made: (u64, u64), forgotten: &BTreeSet<NodeId>) {
        let Some(record) = self.sets.get(&made) else { return };
        let previous = record.previous;
        let is_heir =
            |(id, author): (&NodeId, &Author)| author.taken != 0 && self.seen(*id, previous).is_some();
        if !self.authors.iter().any(is_heir) {
            return;
        }
        let departed = record.seen.keys().filter(|id| forgotten.contains(id));
        let before: Vec<_> = departed.map(|id| (*id, self.offset(*id, previous))).collect();
        for (id, before) in before {
            self.sets.entry(made).and_modify(|record| {
                record.seen.entry(id).and_modify(|seen| *seen = seen.hull(before));
            });
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
        self.expected_from(generation, |author| counted(author) - self.base(author, generation))
    }

    /// The same given what each author adds to what the SET set.
    pub(crate) fn expected_from(&self, generation: Generation, counts: impl Fn(NodeId) -> Range) -> Range {
        self.everybody().into_iter().fold(self.set_value(generation), |sum, author| sum + counts(author))
    }

    /// The author, known from now on.
    pub(crate) fn author(&mut self, id: NodeId) -> &mut Author {
        self.authors.entry(id).or_default()
    }
}
