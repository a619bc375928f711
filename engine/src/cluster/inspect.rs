//! What a node knows, laid open for the simulator's judge: shards, generations, observations, sizes of collections.
//!
//! Nothing here is used by the server, and nothing here changes anything.

use crate::cluster::{Cluster, ResetEpoch};
use crate::counter::Counter;
use crate::ids::{Generation, MemberIndex, NodeId, Seq};
use crate::value::Value;

/// A shard, or what a SET's author took it for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ShardInspection {
    /// Whose it is; `None`: this node has forgotten which member that was.
    pub owner: Option<NodeId>,
    /// What its value is relative to.
    pub generation: Generation,
    /// Which publication of its owner it is.
    pub seq: Seq,
    /// Own shard: exact, now. Peer's: exact, at that publication. Observed: the estimate of that moment.
    pub value: Value,
}

/// All that one node knows of a counter.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CounterInspection {
    /// The highest SET known.
    pub generation: Generation,
    /// What it set.
    pub set_value: Value,
    /// What its author had observed.
    pub observed: Vec<ShardInspection>,
    /// The own shard; `None`: there is no such counter here.
    pub own: Option<ShardInspection>,
    /// The shards of others.
    pub peers: Vec<ShardInspection>,
    /// Of those that move: how far the truth may be from the line, by owner.
    pub slacks: Vec<(NodeId, Value)>,
}

impl Cluster {
    /// What is known here of a counter.
    pub fn inspect(&self, name: &[u8]) -> CounterInspection {
        self.node.keyspace.with(name, |counter| self.lay_open(counter)).unwrap_or_default()
    }

    fn lay_open(&self, counter: &Counter) -> CounterInspection {
        let stated = counter.stated();
        let shard = |member, generation, seq, value| ShardInspection {
            owner: self.id_of(member),
            generation,
            seq,
            value,
        };
        let mut found = CounterInspection {
            generation: counter.generation(),
            own: Some(shard(MemberIndex::SELF, stated.generation, stated.seq, stated.value)),
            set_value: counter.set_value(),
            ..CounterInspection::default()
        };
        if let Some(full) = counter.full() {
            let peers = full.peers().iter();
            let of_peer = |peer: &crate::shard::PeerShard| {
                shard(peer.member(), peer.generation(found.generation), peer.seq(), peer.value())
            };
            found.peers = peers.clone().map(of_peer).collect();
            let slack = |peer: &crate::shard::PeerShard| {
                let (_, error) = peer.drawn(self.now.monotonic, &self.node.keyspace.horizons);
                let error = peer.moving().map(|_| Value::saturating_from_units(error))?;
                Some((self.id_of(peer.member())?, error))
            };
            found.slacks = peers.filter_map(slack).collect();
            let observed = full.record().map_or(&[][..], |record| &record.observed);
            found.observed = observed
                .iter()
                .map(|observed| shard(observed.member, observed.generation, observed.seq, observed.value))
                .collect();
        }
        found
    }

    fn id_of(&self, member: MemberIndex) -> Option<NodeId> {
        self.members.announced(member).map(|announced| announced.id)
    }

    /// The last deletion of all counters that was carried out here.
    pub fn reset_epoch(&self) -> ResetEpoch {
        self.epoch
    }

    /// The ids of all members, this node first.
    pub fn member_ids(&self) -> Vec<NodeId> {
        let peers = self.members.peers().map(|(_, announced)| announced.id);
        std::iter::once(self.members.own().id).chain(peers).collect()
    }

    /// Whether everything that each member had to tell has been received at least once.
    pub fn is_acquainted(&self) -> bool {
        self.peers.iter().all(|(member, peer)| peer.was_complete || !self.members.index_of_live(*member))
    }

    /// How much is kept, by what it is.
    pub fn sizes(&self) -> Vec<(&'static str, usize)> {
        let rings = self.peers.values().map(|peer| peer.stream.len()).sum::<usize>();
        vec![
            ("counters", self.node.keyspace.len()),
            ("links", self.links.values().filter(|link| link.member().is_some()).count()),
            ("peers", self.peers.len()),
            ("own stream", self.publisher.stream.len()),
            ("other streams", rings),
            ("effects", self.effects.len()),
        ]
    }
}
