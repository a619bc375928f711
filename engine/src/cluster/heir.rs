//! What becomes of the shards of a member that was removed (CLUSTER FORGET).
//!
//! Once every member knows of the removal, lives, and holds the same last state of the departed, the member with the lowest
//! id is the heir: it adds the departed's shards to its own, some counters at a time (see `takeover`). If some member is
//! away, the departed's shards simply stay, and count, until it is back or is removed as well; so there can't be two heirs.
//! Every node that finds no shard of the departed any more forgets it.

use crate::cluster::members::MemberState;
use crate::cluster::{Cluster, Planted};
use crate::ids::{MemberIndex, NodeId, Seq};
use crate::keyspace::{Cause, Cursor, Handle};
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
    /// Goes on with the shards of departed members.
    pub(super) fn take_over(&mut self) {
        // Shards of a node that nobody has removed wait for it: it may be on its way, or they came from an old dump.
        let is_removed = |departed: &(MemberIndex, NodeId)| self.members.is_forgotten(departed.1);
        let departed = self.members.departed().find(is_removed).map(|(index, _)| index);
        let Some(departed) = self.estate.as_ref().map(|estate| estate.departed).or(departed) else { return };
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
            for handle in handles {
                let (keyspace, now) = (&self.node.keyspace, self.now.monotonic);
                keyspace.update_at(handle, Cause::Takeover, now, |counter| {
                    let before = counter.own().units();
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
        } else if estate.found == 0 && self.nobody_speaks_of(departed) {
            self.release(departed);
        }
    }

    /// Whether it is on us to take over the shards of this departed member, now.
    fn is_heir_of(&self, departed: MemberIndex) -> bool {
        let now = self.now.monotonic;
        let own = self.members.own().id;
        let head = self.peers.get(&departed).map_or(Seq::ZERO, |peer| peer.stream.head());
        let mut others = self.members.peers().filter(|(index, _)| *index != MemberIndex::SELF);
        self.recovery.is_none()
            && others.all(|(member, announced)| {
                let Some(peer) = self.peers.get(&member) else { return false };
                let is_here = self.members.state(member, now, self.timeout) == MemberState::Alive
                    && now.since(peer.as_of) < Micros::from_secs(2)
                    && self.link_of.contains_key(&member);
                let holds = peer.holds.get(&departed).copied().unwrap_or(Seq::ZERO);
                own < announced.id && is_here && peer.has_buried.contains(&departed) && holds == head
            })
    }

    /// Whether no member's digest mentions a departed one as if it still mattered.
    fn nobody_speaks_of(&self, departed: MemberIndex) -> bool {
        let head = self.peers.get(&departed).map_or(Seq::ZERO, |peer| peer.stream.head());
        self.peers
            .iter()
            .filter(|(member, _)| self.members.index_of_live(**member))
            .all(|(_, peer)| peer.holds.get(&departed).is_none_or(|holds| *holds <= head))
    }

    /// Forgets a departed member for good.
    fn release(&mut self, departed: MemberIndex) {
        self.peers.remove(&departed);
        for peer in self.peers.values_mut() {
            peer.holds.remove(&departed);
            peer.has_buried.remove(&departed);
        }
        for link in self.links.values_mut() {
            link.indices.retain(|_, ours| *ours != departed);
            link.outgoing.remove(&departed);
            link.copying.remove(&departed);
        }
        self.members.release(departed);
    }
}
