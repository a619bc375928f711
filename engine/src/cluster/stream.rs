//! The stream of a node's updates: which counters it has published lately, in order.
//!
//! Each counter stands in it once, at its latest sequence number: an entry whose counter has moved on since is passed over
//! when the stream is read. A reader at a position that the ring still covers goes on from there; one further behind walks
//! over all counters once and goes on from where the stream was at the beginning of the walk.

use crate::ids::Seq;
use crate::keyspace::Handle;
use std::collections::VecDeque;

/// Entries that are kept for members that are away.
const MAX_KEPT: usize = 1 << 16;

/// Entries that are kept for links that are slow.
const MAX_WAITED: usize = 1 << 20;

/// What was published by one node, as far as it is known here.
#[derive(Debug, Default)]
pub(crate) struct Stream {
    /// (seq, counter), seqs rising.
    ring: VecDeque<(Seq, Handle)>,
    /// The ring holds everything behind this.
    floor: Seq,
    /// Everything up to here is known here ("applied up to").
    head: Seq,
    /// No counter that was removed had a higher seq. A reader below may hold one of them, and can only be told by a copy of
    /// everything.
    removed: Seq,
}

impl Stream {
    /// Everything up to here is known here.
    pub(crate) fn head(&self) -> Seq {
        self.head
    }

    /// Whether a reader at this position can go on from the ring.
    pub(crate) fn covers(&self, position: Seq) -> bool {
        position >= self.floor && !self.is_below_removed(position)
    }

    /// Whether a reader at this position may hold what was removed here.
    pub(crate) fn is_below_removed(&self, position: Seq) -> bool {
        position < self.removed
    }

    /// A counter was removed that had this seq.
    pub(crate) fn note_removed(&mut self, seq: Seq) {
        self.removed = self.removed.max(seq);
    }

    /// Notes a publication. Later than all before, unless something is missing between and comes again, or a peer has its
    /// numbers in disorder: the ring stays in order, and what it has already counts.
    pub(crate) fn push(&mut self, seq: Seq, handle: Handle) {
        if self.ring.back().is_none_or(|(last, _)| *last < seq) {
            self.ring.push_back((seq, handle));
        } else if let Err(at) = self.ring.binary_search_by_key(&seq, |(seq, _)| *seq) {
            self.ring.insert(at, (seq, handle));
        }
        while self.ring.len() > MAX_WAITED {
            self.drop_oldest();
        }
    }

    /// Everything up to `seq` is known now.
    pub(crate) fn advance(&mut self, seq: Seq) {
        self.head = self.head.max(seq);
    }

    /// Begins anew at a position, with nothing in the ring.
    pub(crate) fn restart_at(&mut self, seq: Seq) {
        self.ring.clear();
        self.floor = seq;
        self.head = seq;
    }

    /// The entries behind a position that the ring covers, as far as everything is known here: a counter that has been told ahead
    /// of its turn, for the sake of its SET, stands further on.
    pub(crate) fn behind(&self, position: Seq) -> impl Iterator<Item = (Seq, Handle)> {
        let start = self.ring.partition_point(|(seq, _)| *seq <= position);
        let end = self.ring.partition_point(|(seq, _)| *seq <= self.head);
        self.ring.range(start..end.max(start)).copied()
    }

    /// Forgets what nobody needs: all of it up to `everybody_has`, and what exceeds the limit up to `links_have`.
    pub(crate) fn trim(&mut self, everybody_has: Seq, links_have: Seq) {
        while let Some(&(seq, _)) = self.ring.front() {
            let is_needless = seq <= everybody_has;
            let is_too_much = self.ring.len() > MAX_KEPT && seq <= links_have;
            if !is_needless && !is_too_much {
                break;
            }
            self.drop_oldest();
        }
        if self.ring.is_empty() && self.ring.capacity() > 1_024 {
            self.ring = VecDeque::new();
        }
    }

    /// How many entries are kept.
    pub(crate) fn len(&self) -> usize {
        self.ring.len()
    }

    fn drop_oldest(&mut self) {
        if let Some((seq, _)) = self.ring.pop_front() {
            self.floor = self.floor.max(seq);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seq(n: u64) -> Seq {
        Seq { incarnation: 1, n }
    }

    fn place(index: u32) -> Handle {
        Handle { stripe: 0, index }
    }

    #[test]
    fn a_reader_goes_on_where_it_was() {
        let mut stream = Stream::default();
        (1..=5).for_each(|n| stream.push(seq(n), place(n as u32)));
        stream.advance(seq(5));
        let rest: Vec<u64> = stream.behind(seq(3)).map(|(seq, _)| seq.n).collect();
        assert_eq!(rest, [4, 5]);
        assert!(stream.covers(Seq::ZERO) && stream.behind(seq(5)).next().is_none());
    }

    #[test]
    fn numbers_out_of_turn_are_put_in_order() {
        let mut stream = Stream::default();
        [2, 5, 3, 5, 1].into_iter().for_each(|n| stream.push(seq(n), place(n as u32)));
        stream.advance(seq(5));
        let all: Vec<u64> = stream.behind(Seq::ZERO).map(|(seq, _)| seq.n).collect();
        assert_eq!(all, [1, 2, 3, 5]);
    }

    #[test]
    fn what_was_told_ahead_of_its_turn_is_not_passed_on_before_it() {
        let mut stream = Stream::default();
        [1, 2, 9].into_iter().for_each(|n| stream.push(seq(n), place(n as u32)));
        stream.advance(seq(2));
        let passed_on = |stream: &Stream| stream.behind(seq(1)).map(|(seq, _)| seq.n).collect::<Vec<_>>();
        assert_eq!(passed_on(&stream), [2], "or a reader would believe that it has all up to 9");
        assert!(stream.behind(seq(3)).next().is_none());
        (3..=8).for_each(|n| stream.push(seq(n), place(n as u32)));
        stream.advance(seq(9));
        assert_eq!(passed_on(&stream), [2, 3, 4, 5, 6, 7, 8, 9]);
    }

    #[test]
    fn what_everybody_has_is_forgotten() {
        let mut stream = Stream::default();
        (1..=5).for_each(|n| stream.push(seq(n), place(n as u32)));
        stream.trim(seq(3), seq(5));
        assert_eq!(stream.len(), 2);
        assert!(!stream.covers(seq(2)) && stream.covers(seq(3)));
    }
}
