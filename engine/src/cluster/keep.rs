//! What the disk is told of the cluster, and what the cluster is told by it: who stands behind each index, how far each
//! stream has come, the last reset.

use super::{Cluster, Peer};
use crate::cluster::members::Members;
use crate::cluster::nodes_file::ResetEpoch;
use crate::facts::LastReset;
use crate::ids::{MemberIndex, NodeId, Seq};
use crate::node::Node;
use crate::time::Micros;
use std::collections::BTreeMap;

impl Cluster {
    /// Members whose shards were found on disk keep the indices that the loader gave them; those that the nodes file does not
    /// know have departed.
    pub(super) fn adopt_loaded(members: &mut Members, node: &Node, now: Micros) {
        let ids = &node.keyspace.member_ids;
        for (index, id) in ids.all() {
            if members.announced(index).is_some_and(|announced| announced.id == id) {
                continue;
            }
            let given = members.add_departed(id, now).expect("the loader keeps to the same limit");
            assert_eq!(
                given, index,
                "the nodes file was read before the counters, and has not changed since"
            );
        }
    }

    /// What the disk says of streams is at least as true as what the caller knows.
    pub(super) fn heads_on_disk(&self) -> BTreeMap<MemberIndex, Seq> {
        self.node.kept.lock().facts.applied.clone()
    }

    /// Tells the disk how far everything is. Called when what it speaks of has been done to the counters.
    pub(super) fn keep_facts(&self) {
        let mut kept = self.node.kept.lock();
        let facts = &mut kept.facts;
        facts.incarnation = self.members.own().incarnation;
        facts.last_reset = LastReset { clock: self.epoch.clock, author: self.epoch.author };
        facts.floor = self.node.keyspace.floor().max(facts.floor);
        let mut note = |member, head: Seq| {
            if head != Seq::ZERO {
                facts.applied.insert(member, head);
            }
        };
        note(MemberIndex::SELF, self.publisher.stream.head());
        self.peers.iter().for_each(|(member, Peer { stream, .. })| note(*member, stream.head()));
        for (member, peer) in &self.peers {
            match peer.whole_life {
                0 => facts.whole.remove(member),
                life => facts.whole.insert(*member, life),
            };
        }
        if facts.applied.len() > self.peers.len() + 1 {
            let is_known = |member| member == MemberIndex::SELF || self.peers.contains_key(&member);
            facts.applied.retain(|member, _| is_known(*member));
            facts.whole.retain(|member, _| is_known(*member));
        }
    }

    /// The later of the resets that the nodes file and the disk know. Counters of before a reset that only the file knows go.
    pub(super) fn settle_reset(node: &Node, from_file: ResetEpoch) -> ResetEpoch {
        let LastReset { clock, author } = node.kept.lock().facts.last_reset;
        let on_disk = ResetEpoch { clock, author };
        if from_file > on_disk {
            node.flush();
        }
        from_file.max(on_disk)
    }

    /// Says who stands behind an index.
    pub(super) fn note_member(&self, member: MemberIndex) {
        let id: Option<NodeId> = self.members.announced(member).map(|announced| announced.id);
        self.node.keyspace.member_ids.set(member, id);
    }
}
