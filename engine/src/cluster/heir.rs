//! What becomes of the shards of a member that was removed (CLUSTER FORGET).
//!
//! Once every member knows of the removal, lives, and holds the same last state of the departed, the member with the lowest
//! id is the heir: it adds the departed's shards to its own, some counters at a time (see `takeover`). If some member is
//! away, the departed's shards simply stay, and count, until it is back or is removed as well; so there can't be two heirs.
//! A node that finds no shard of the departed any more, and hears from every member that nobody has more, lets it rest.

use crate::cluster::members::MemberState;
use crate::cluster::{Cluster, Peer, Planted};
use crate::ids::{MemberIndex, Seq};
use crate::keyspace::{Cause, Cursor, Handle};
use crate::shard::PeerShard;
use crate::time::Micros;
use crate::value::Value;

/// Counters looked at per round of housekeeping.
const STEP: u64 = 16_384;

/// A walk over all counters for the shards of a departed member.
#[derive(Debug)]
pub(super) struct Estate {
    departed: MemberIndex,
    cursor: Cursor,
    found: usize,
}

impl Cluster {
    /// A member has departed and may have left something here, or elsewhere.
    pub(super) fn open_estate(&mut self, departed: MemberIndex) {
        let peer = self.peers.entry(departed).or_default();
        if peer.departed_at == Micros(0) {
            peer.departed_at = self.now.monotonic;
        }
    }

    /// Goes on with the shards of departed members.
    pub(super) fn take_over(&mut self) {
        self.drop_leftovers();
        self.note_last_states();
        let Some(departed) =
            self.estate.as_ref().map(|estate| estate.departed).or_else(|| self.next_estate())
        else {
            return;
        };
        self.last_estate = departed;
        let is_heir = self.is_heir_of(departed);
        let mut estate = self.estate.take().unwrap_or(Estate { departed, cursor: 0, found: 0 });
        let mut handles: Vec<Handle> = Vec::new();
        estate.cursor = self.node.keyspace.walk_all(estate.cursor, STEP, |handle, counter| {
            if counter.full().is_some_and(|full| full.peers().iter().any(|peer| peer.member() == departed)) {
                handles.push(handle);
            }
        });
        estate.found += handles.len();
        if is_heir && !handles.is_empty() {
            self.node.keyspace.horizons.forget_past(self.now.monotonic);
            let given_up = self.peers.get(&departed).map_or(Seq::ZERO, |peer| peer.given_up);
            for handle in handles {
                let (keyspace, now) = (&self.node.keyspace, self.now.monotonic);
                keyspace.update_at(handle, Cause::Takeover, now, |counter| {
                    let before = counter.own().units();
                    counter.make_full().give_up_subtractions_of(departed, given_up);
                    counter.inherit(departed, now, &keyspace.horizons);
                    if self.planted == Some(Planted::TakenOverTwice) {
                        let twice = Value::saturating_from_units(counter.own().units() - before);
                        counter.add(twice, now, &keyspace.horizons).ok();
                    }
                });
            }
        }
        if estate.cursor != 0 {
            self.estate = Some(estate);
        } else if estate.found == 0 && self.nobody_has_more_of(departed) {
            self.bury(departed);
        }
    }

    /// A departed member with whose shards something can be done now. Those of a node that nobody has removed wait for it: it may
    /// be on its way, or they came from an old dump.
    fn next_estate(&self) -> Option<MemberIndex> {
        let departed = self.members.departed().filter(|(_, id)| self.members.is_forgotten(*id));
        let ready = departed.map(|(index, _)| index).filter(|index| {
            self.peers.contains_key(index) && (self.is_heir_of(*index) || self.nobody_has_more_of(*index))
        });
        // In turn: one may have to wait until what its heir has made of it arrives here.
        ready.min_by_key(|index| (*index <= self.last_estate, *index))
    }

    /// Whether it is on us to take over the shards of this departed member, now.
    fn is_heir_of(&self, departed: MemberIndex) -> bool {
        let now = self.now.monotonic;
        let own = self.members.own().id;
        let Some(here) = self.peers.get(&departed) else { return false };
        let here = (here.stream.head(), here.told_ahead());
        let mut others = self.members.peers().filter(|(index, _)| *index != MemberIndex::SELF);
        self.recovery.is_none()
            && self.late.is_empty()
            && self.all_agree_who_departed()
            && others.all(|(member, announced)| {
                let Some(peer) = self.peers.get(&member) else { return false };
                let is_here = self.members.state(member, now, self.timeout) == MemberState::Alive
                    && now.since(peer.as_of) < Micros::from_secs(2)
                    && self.link_of.contains_key(&member);
                let is_agreed = peer.holds_of(departed) == here;
                own < announced.id && is_here && peer.has_buried.contains(&departed) && is_agreed
            })
    }

    /// Whether every member is there, has heard of the removal, and says that it has nothing of the departed that is not here.
    fn nobody_has_more_of(&self, departed: MemberIndex) -> bool {
        let (now, own) = (self.now.monotonic, &self.peers[&departed]);
        let mut others = self.members.peers().filter_map(|(index, _)| Some((index, self.peers.get(&index)?)));
        self.all_agree_who_departed()
            && others.all(|(member, peer)| {
                // It knew what we have of the departed, and would have said that this was taken over.
                let is_heard = peer.answered > own.departed_at
                    && self.members.state(member, now, self.timeout) == MemberState::Alive;
                let (holds, ahead) = peer.holds_of(departed);
                let has_no_more = || holds <= own.stream.head() && ahead <= own.last_held();
                let is_silent = !peer.holds.contains_key(&departed);
                is_heard && (is_silent || peer.has_buried.contains(&departed) && has_no_more())
            })
    }

    /// From when all members agree on the last state of a departed one, GET BOUND need not wait for it any more.
    fn note_last_states(&self) {
        let horizons = &self.node.keyspace.horizons;
        for (departed, _) in self.members.departed().filter(|(index, _)| horizons.as_of(*index).is_some()) {
            let peer = self.peers.get(&departed);
            if peer.is_none_or(|peer| peer.buried_at == Micros(0) && self.nobody_has_more_of(departed)) {
                if horizons.as_of(departed) == Some(Micros(0)) {
                    // Nothing could be claimed until now, so nothing was remembered.
                    horizons.forget_past(self.now.monotonic);
                }
                horizons.remove(departed);
            }
        }
    }

    /// Whether no member takes anything from one that we know to be removed: it could bring more of another one.
    fn all_agree_who_departed(&self) -> bool {
        let departed = |index: &MemberIndex| !self.members.index_of_live(*index);
        let mut others = self.members.peers().filter_map(|(index, _)| self.peers.get(&index));
        others.all(|peer| {
            peer.holds.keys().filter(|index| departed(index)).all(|index| peer.has_buried.contains(index))
        })
    }

    /// All that a departed member had when it was removed has been taken over, as of where its stream was at `last`. What we have
    /// beyond that it has counted since, alone, and told somebody who did not know of the removal.
    pub(super) fn note_burial(&mut self, departed: MemberIndex, last: Seq) {
        let (is_live, now) = (self.members.index_of_live(departed), self.now.monotonic);
        let Some(peer) = self.peers.get_mut(&departed).filter(|_| !is_live) else { return };
        if peer.buried_at == Micros(0) {
            peer.buried_at = now;
        }
        if peer.last_held() > last {
            let head = peer.stream.head().min(last);
            peer.stream.restart_at(head);
            peer.ahead = peer.ahead.min(last);
            self.drop_shards_behind(departed, last);
        }
    }

    /// Drops what is left of those who were taken over: whatever the heirs have made of it has arrived here since we know of it.
    fn drop_leftovers(&mut self) {
        let live = |index: &&MemberIndex| self.members.index_of_live(**index);
        let vouched = self.peers.keys().filter(live).map(|index| self.peers[index].as_of).min();
        let is_over =
            |peer: &Peer| peer.buried_at != Micros(0) && vouched.is_none_or(|at| at > peer.buried_at);
        let over: Vec<MemberIndex> =
            self.peers.iter().filter(|(_, peer)| is_over(peer)).map(|(index, _)| *index).collect();
        for departed in over {
            self.drop_shards_behind(departed, Seq::ZERO);
            self.bury(departed);
        }
    }

    fn drop_shards_behind(&mut self, departed: MemberIndex, last: Seq) {
        let mut late: Vec<Handle> = Vec::new();
        let is_late = |peer: &PeerShard| peer.member() == departed && peer.seq() > last;
        self.node.keyspace.walk_all(0, u64::MAX, |handle, counter| {
            if counter.full().is_some_and(|full| full.peers().iter().any(is_late)) {
                late.push(handle);
            }
        });
        let now = self.now.monotonic;
        self.node.keyspace.horizons.forget_past(now);
        for handle in late {
            self.node.keyspace.update_at(handle, Cause::Takeover, now, |counter| {
                if let Some(full) = counter.full_mut() {
                    full.take_peer(departed);
                    // A SET that came with it may be known to nobody else.
                    full.is_restated |= full.record().is_some();
                }
            });
        }
    }

    /// Nothing of a departed member is left.
    fn bury(&mut self, departed: MemberIndex) {
        let Some(peer) = self.peers.remove(&departed) else { return };
        let last = peer.last_held();
        // Where nothing had ever arrived from it nothing was taken over, so what turns up later is not what it has counted since.
        if last != Seq::ZERO {
            self.buried.insert(departed, last);
        }
        // Somebody else's word may have ended what a walk over many counters had begun.
        self.estate.take_if(|estate| estate.departed == departed);
        for link in self.links.values_mut() {
            link.outgoing.remove(&departed);
            link.copying.remove(&departed);
        }
    }
}
