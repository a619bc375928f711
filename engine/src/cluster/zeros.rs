//! Counters that read zero disappear, once nobody can bring them back.
//!
//! A counter may go when every member has acknowledged the state in which all its shards are zero, and every owner knows that
//! of its own: then no SET that is still to come can have observed anything else, and nobody remembers subtractions
//! that such a SET, made by a node for which the counter is new, would undo. While a member is silent that is not known; the counter is hidden from users
//! meanwhile and costs memory until the member is back or is forgotten. Parts that cancel out (+1 here, -1 there) are not
//! zero: the member with the lowest id deletes such a counter as a client would, which makes them so; but any client's SET wins
//! over that.
//!
//! A counter waits as well for a shard that the SET in force has seen and that is not here yet: its owner may remember
//! subtractions of it for as long as it does not know that all have that state.
//!
//! Each stream remembers the seq of the last counter that was removed from it: a reader below that, which has lost
//! something in a crash, is sent a copy of everything, since it can't be told of what is no more.

use crate::cluster::members::MemberState;
use crate::cluster::{Cluster, Peer, Planted};
use crate::counter::{Counter, Full};
use crate::ids::{MemberIndex, Seq};
use crate::keyspace::{Fate, Handle};
use std::collections::BTreeMap;

/// Counters that one round deletes because their parts cancel out; the others follow in the next.
const MAX_BALANCED: usize = 1_024;

/// Up to where everybody's stream has come somewhere, by its owner.
struct Reached(BTreeMap<MemberIndex, Seq>);

impl Reached {
    /// Whether every shard of a counter is there as it is here.
    fn holds(&self, counter: &Counter) -> bool {
        let Some(full) = counter.full() else { return true };
        let is_there = |member, seq| seq <= self.0.get(&member).copied().unwrap_or(Seq::ZERO);
        is_there(MemberIndex::SELF, full.seq)
            && full.peers().iter().all(|shard| is_there(shard.member(), shard.seq()))
    }

    /// Whether what the SET in force has seen of these members is there.
    fn holds_seen(&self, counter: &Counter, is_live: impl Fn(MemberIndex) -> bool) -> bool {
        let record = counter.full().and_then(Full::record);
        let mut seen = record.iter().flat_map(|record| &record.observed).filter(|seen| is_live(seen.member));
        seen.all(|seen| self.0.get(&seen.member).is_some_and(|reached| seen.seq <= *reached))
    }
}

impl Cluster {
    /// Removes what reads zero and is known to everybody, and sees to it that what cancels out becomes zero.
    pub(super) fn collect_zeros(&mut self) {
        if !self.node.keyspace.dirty.is_on() || self.recovery.is_some() {
            return;
        }
        let now = self.now.monotonic;
        let is_up = |member: MemberIndex| self.members.state(member, now, self.timeout) == MemberState::Alive;
        let live = self.peers.keys().copied().filter(|member| self.members.index_of_live(*member));
        let up: Vec<MemberIndex> = live.filter(|member| is_up(*member)).collect();
        let (by_all, by_up) = (self.settled(), self.held_by(&up));
        let own = self.members.own().id;
        let is_lowest = up
            .iter()
            .all(|member| self.members.announced(*member).is_none_or(|announced| own < announced.id));
        let needed = self.node.keyspace.horizons.past_needed();
        let mut removed: BTreeMap<MemberIndex, Seq> = BTreeMap::new();
        let mut balanced: Vec<Handle> = Vec::new();
        self.node.keyspace.collect_zeros(now, |handle, counter| {
            if counter.full().is_some_and(|full| full.track.is_some() || full.is_restated) {
                return Fate::Kept;
            }
            // What a late member hands back may make it another number.
            let is_live = |member| member != MemberIndex::SELF && self.members.index_of_live(member);
            let is_settled =
                self.late.is_empty() && by_all.holds(counter) && by_all.holds_seen(counter, is_live);
            if !is_settled && self.planted != Some(Planted::ZeroComesBack) {
                return if by_up.holds(counter) { Fate::Hidden } else { Fate::Kept };
            }
            if !counter.is_zero() {
                if is_lowest && balanced.len() < MAX_BALANCED {
                    balanced.push(handle);
                }
                return Fate::Hidden;
            }
            if counter.past_is_needed(needed) && self.planted != Some(Planted::ZeroComesBack) {
                return Fate::Hidden;
            }
            if let Some(full) = counter.full() {
                let own = std::iter::once((MemberIndex::SELF, full.seq));
                for (member, seq) in own.chain(full.peers().iter().map(|peer| (peer.member(), peer.seq()))) {
                    let last = removed.entry(member).or_default();
                    *last = seq.max(*last);
                }
            }
            Fate::Removed
        });
        for (member, seq) in removed {
            match member {
                MemberIndex::SELF => self.publisher.stream.note_removed(seq),
                member => {
                    if let Some(peer) = self.peers.get_mut(&member) {
                        peer.stream.note_removed(seq);
                    }
                }
            }
        }
        for handle in balanced {
            self.node.keyspace.delete_at(handle, now);
        }
    }

    /// What all members have, as each owner knows.
    fn settled(&self) -> Reached {
        let own = (MemberIndex::SELF, self.node.keyspace.acknowledged());
        let of_peer = |(member, peer): (&MemberIndex, &Peer)| match self.members.index_of_live(*member) {
            true => (*member, peer.settled),
            false => (*member, self.least_held(*member, self.peers.keys())),
        };
        Reached(std::iter::once(own).chain(self.peers.iter().map(of_peer)).collect())
    }

    /// What these members have, as they have said.
    fn held_by(&self, members: &[MemberIndex]) -> Reached {
        let own = members.iter().map(|member| self.peers[member].acknowledged).min().unwrap_or(EVERYTHING);
        let peers = self.peers.keys().map(|origin| (*origin, self.least_held(*origin, members.iter())));
        Reached(std::iter::once((MemberIndex::SELF, own)).chain(peers).collect())
    }

    /// Up to where the last of these members has a stream.
    fn least_held<'a>(&self, origin: MemberIndex, by: impl Iterator<Item = &'a MemberIndex>) -> Seq {
        let others = by.filter(|member| **member != origin && self.members.index_of_live(**member));
        let held = others.map(|member| self.peers[member].holds.get(&origin).copied().unwrap_or_default());
        held.min().unwrap_or(EVERYTHING)
    }
}

/// After every publication.
const EVERYTHING: Seq = Seq { incarnation: u32::MAX, n: u64::MAX };

#[cfg(test)]
mod tests {
    use super::*;
    use crate::counter::PrecisionId;
    use crate::generation::{Observed, Record};
    use crate::ids::Generation;
    use crate::value::Value;

    #[test]
    fn a_counter_stays_until_the_shard_that_its_set_has_seen_is_known_to_all() {
        let (owner, seq) = (MemberIndex(1), Seq { incarnation: 1, n: 5 });
        let seen = Observed { member: owner, generation: Generation::ZERO, seq, value: Value::ONE };
        let generation = Generation { time: 7, author: 3 };
        let mut counter = Counter::new(b"a", PrecisionId(0));
        counter.learn(Record { generation, observed: vec![seen], ..Record::default() }, Seq::ZERO);
        let is_held = |n, is_live: bool| {
            let reached = Reached(BTreeMap::from([(owner, Seq { incarnation: 1, n })]));
            reached.holds(&counter) && reached.holds_seen(&counter, |_| is_live)
        };
        assert!(!is_held(4, true));
        assert!(is_held(5, true));
        assert!(is_held(4, false), "nobody waits for what a departed member may have said");
    }
}
