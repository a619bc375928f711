//! The cluster side of a node: members, links, and the exchange of shards, without sockets.
//!
//! The shell (or the simulator) carries bytes: it dials when asked to, hands in every frame that arrives, and sends the
//! frames that come out. One thread owns the `Cluster`; client threads only touch the `Node` beside it.
//!
//! Lacks on purpose: sockets, encryption, threads, clocks. A frame here is what stands behind a length prefix on the wire.

mod clock;
mod complaints;
mod dialing;
mod forgotten;
mod frame;
pub mod gossip;
mod meets;
pub mod members;
pub mod nodes_file;
mod updates;
pub mod view;
pub(crate) mod wire;

mod heartbeat;
mod heir;
mod hello;
pub mod inspect;
mod keep;
mod link;
mod names;
mod peer;
mod planted;
mod publish;
mod receive;
mod recovery;
mod send;
mod stream;
mod zeros;

use crate::cluster::gossip::Announcement;
use crate::cluster::link::Link;
use crate::cluster::members::{DialTarget, FailedMeet, Members};
use crate::cluster::nodes_file::NodesFile;
use crate::cluster::peer::{Peer, Relay};
use crate::cluster::publish::Publisher;
use crate::cluster::recovery::Recovery;
use crate::cluster::view::Traffic;
use crate::counter::Counter;
use crate::ids::{Generation, MemberIndex, NodeId, Seq};
use crate::keyspace::Cause;
use crate::node::{Node, TaskResult};
use crate::prediction::Pace;
use crate::time::{Micros, Now};
use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;

pub(crate) use clock::DRIFT_PPM;
pub use members::MemberState;
pub use nodes_file::{NodesFileError, ResetEpoch};
pub use planted::Planted;
pub use view::{ClusterView, HelloRow, MemberView};

/// Longest frame in bytes, without its length prefix. A longer announcement is a fault of the peer.
pub const MAX_FRAME_LEN: usize = 1 << 20;

/// Names one TCP connection between two nodes; never used twice in a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LinkId(pub u64);

/// What happens to the cluster side of a node.
#[derive(Debug)]
pub enum Input<'a> {
    /// A connection that `Effect::Dial` asked for is up.
    Dialed {
        /// As in the effect.
        link: LinkId,
    },
    /// A peer has connected to the bus port; `Cluster::new_link` gave the name.
    Accepted {
        /// The connection.
        link: LinkId,
        /// Where it comes from.
        from: SocketAddr,
    },
    /// A whole frame has arrived.
    Received {
        /// The connection.
        link: LinkId,
        /// Its bytes, without the length prefix.
        frame: &'a [u8],
    },
    /// Frames that came out as `Effect::Send` have left for the socket.
    Sent {
        /// The connection.
        link: LinkId,
        /// Bytes of those frames, without length prefixes.
        bytes: usize,
    },
    /// The connection has ended or could not be made. Nothing else comes from it.
    Closed {
        /// The connection.
        link: LinkId,
        /// For the log.
        reason: &'a str,
    },
    /// `Cluster::deadline` has come, or the node has woken the cluster (a counter has changed).
    Timer,
}

/// What the shell is asked to do.
#[derive(Debug, PartialEq, Eq)]
pub enum Effect {
    /// Connect to a bus port. Answered by `Input::Dialed` or `Input::Closed`.
    Dial {
        /// The name of the connection.
        link: LinkId,
        /// Where to.
        to: SocketAddr,
    },
    /// Send a frame, behind those asked for before on this link.
    Send {
        /// The connection.
        link: LinkId,
        /// Its bytes, without the length prefix; at most `MAX_FRAME_LEN`.
        frame: Vec<u8>,
    },
    /// Send what was asked for, then close. Answered by nothing.
    Close {
        /// The connection.
        link: LinkId,
    },
    /// Write these bytes as the nodes file: temporary file, sync, rename.
    SaveNodes(Vec<u8>),
}

/// What an operator asks of the cluster (CLUSTER ...); carried out by the thread that owns it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ClusterRequest {
    /// Join the node at this address to ours.
    Meet {
        /// Its bus address.
        bus: SocketAddr,
        /// Its client port.
        port: u16,
    },
    /// Remove a departed member; its counts stay.
    Forget(NodeId),
    /// Leave the cluster and drop all counters; `hard`: under a new id.
    Reset {
        /// Take a new id too.
        hard: bool,
    },
    /// Write the nodes file now.
    SaveConfig,
    /// Delete all counters on every member (DEBUG RESET).
    ResetAll,
}

/// How the cluster side of a node begins.
#[derive(Clone, Debug, Default)]
pub struct ClusterConfig {
    /// For jitter and made-up ids.
    pub seed: u64,
    /// The nodes file as it was found; `None`: there is none.
    pub nodes_file: Option<Vec<u8>>,
    /// Seconds since 1970 at the start; raised above every incarnation that is known.
    pub incarnation: u32,
    /// Everything of our own stream up to here came from the disk.
    pub own_head: Seq,
    /// Other members' streams up to where the disk has them.
    pub heads: Vec<(NodeId, Seq)>,
    /// A bug that the simulator is to find; `None` in every server.
    pub planted: Option<Planted>,
}

/// How long the lines of a member that has fallen silent are followed.
pub const FOLLOW: Micros = Micros::from_millis(600);

/// Between two heartbeats on a link.
pub const HEARTBEAT: Micros = Micros::from_millis(200);

/// A connection on which no Hello has come for this long is closed.
const HELLO_LIMIT: Micros = Micros::from_secs(5);

/// The cluster side of a node. Owned by one thread.
pub struct Cluster {
    node: Arc<Node>,
    members: Members,
    links: BTreeMap<LinkId, Link>,
    link_of: BTreeMap<MemberIndex, LinkId>,
    last_link: u64,
    peers: BTreeMap<MemberIndex, Peer>,
    publisher: Publisher,
    pace: Pace,
    recovery: Option<Recovery>,
    /// Members that could not be asked at the start what they hold of our own shards, and will be; and in which incarnation.
    late: BTreeMap<MemberIndex, u32>,
    /// Others may hold what we have counted in earlier lives.
    has_lived: bool,
    /// Nothing that we had published before the start has come back, from the disk or from others.
    is_blank: bool,
    /// The node goes away: everything is sent, however far behind a peer is.
    is_leaving: bool,
    /// Our incarnation when we began to publish: what has this one or a later is of this life.
    life: u32,
    epoch: ResetEpoch,
    effects: VecDeque<Effect>,
    next_heartbeat: Micros,
    next_housekeeping: Micros,
    saved_revision: u64,
    /// Whose shards are being taken over, or looked for before they are forgotten.
    estate: Option<heir::Estate>,
    /// The one that was looked at last.
    last_estate: MemberIndex,
    /// Departed members of which nothing is left here, with where their streams had come to.
    buried: BTreeMap<MemberIndex, Seq>,
    traffic: Traffic,
    misbehaved: complaints::Complaints,
    refused: complaints::Complaints,
    /// Links of ours that others have refused.
    refused_us: complaints::Complaints,
    timeout: Micros,
    planted: Option<Planted>,
    now: Now,
}

impl Cluster {
    /// The cluster side of this node.
    ///
    /// # Errors
    /// The nodes file is damaged.
    pub fn new(node: Arc<Node>, config: ClusterConfig, now: Now) -> Result<Cluster, NodesFileError> {
        let settings = node.settings();
        let used = config.own_head.incarnation.max(node.kept.lock().facts.incarnation);
        let incarnation = config.incarnation.max(used.saturating_add(1)).max(1);
        let own = Announcement::from_settings(node.id(), incarnation, &settings);
        let file = config.nodes_file.as_deref().map(NodesFile::parse).transpose()?;
        let (mut members, epoch) = match &file {
            None => (Members::new(own, config.seed, now.monotonic), ResetEpoch::NONE),
            Some(file) => (Members::load(file, own, config.seed, now.monotonic), file.reset),
        };
        Cluster::adopt_loaded(&mut members, &node, now.monotonic);
        let epoch = Cluster::settle_reset(&node, epoch);
        let incarnation = members.own().incarnation;
        let has_lived = members.own().joined < incarnation;
        let mut publisher = Publisher::new(incarnation);
        let own_head = node.kept.lock().facts.applied.get(&MemberIndex::SELF).copied().unwrap_or_default();
        publisher.stream.restart_at(own_head.max(config.own_head));
        let mut cluster = Cluster {
            timeout: Micros::from_millis(settings.cluster_node_timeout_ms),
            pace: Pace { history: Micros::from_secs(settings.history_size_secs.into()), ..Pace::default() },
            node,
            members,
            links: BTreeMap::new(),
            link_of: BTreeMap::new(),
            last_link: 0,
            peers: BTreeMap::new(),
            publisher,
            recovery: None,
            late: BTreeMap::new(),
            has_lived,
            is_blank: false,
            is_leaving: false,
            life: Counter::NO_LIFE,
            epoch,
            effects: VecDeque::new(),
            next_heartbeat: now.monotonic,
            next_housekeeping: now.monotonic,
            saved_revision: u64::MAX,
            estate: None,
            last_estate: MemberIndex::SELF,
            buried: BTreeMap::new(),
            traffic: Traffic::default(),
            misbehaved: complaints::Complaints::default(),
            refused: complaints::Complaints::default(),
            refused_us: complaints::Complaints::default(),
            planted: config.planted,
            now,
        };
        cluster.node.set_id(cluster.members.own().id);
        cluster.sign();
        cluster.note_epoch();
        let known: Vec<MemberIndex> = cluster.members.peers().map(|(index, _)| index).collect();
        for &member in &known {
            cluster.add_peer(member);
        }
        for (id, head) in config.heads {
            if let Some(peer) = cluster.members.index_of(id).and_then(|index| cluster.peers.get_mut(&index)) {
                peer.stream.restart_at(head);
            }
        }
        let departed: Vec<MemberIndex> = cluster.members.departed().map(|(index, _)| index).collect();
        for member in departed {
            cluster.open_estate(member);
            // Somebody may have taken over meanwhile what we have of it.
            cluster.node.keyspace.horizons.add(member);
        }
        for (member, head) in cluster.heads_on_disk() {
            if let Some(peer) = cluster.peers.get_mut(&member) {
                peer.stream.restart_at(head.max(peer.stream.head()));
            }
        }
        {
            let kept = cluster.node.kept.lock();
            for (member, peer) in &mut cluster.peers {
                peer.ahead = kept.ahead.get(member).copied().unwrap_or_default();
                peer.whole_life = kept.facts.whole.get(member).copied().unwrap_or_default();
                peer.note_whole();
            }
        }
        // What was removed before the start is not known any more.
        for stream in cluster.peers.values_mut().map(|peer| &mut peer.stream) {
            stream.note_removed(stream.head());
        }
        let floor = cluster.node.kept.lock().facts.floor;
        cluster.node.keyspace.raise_floor(floor);
        let own_head = cluster.publisher.stream.head();
        cluster.node.keyspace.set_own_head(own_head);
        cluster.publisher.stream.note_removed(own_head);
        if !known.is_empty() {
            cluster.begin_recovery(&known);
        }
        cluster.keep_facts();
        cluster.housekeep();
        Ok(cluster)
    }

    /// Names a connection that a peer has made.
    pub fn new_link(&mut self) -> LinkId {
        self.last_link += 1;
        LinkId(self.last_link)
    }

    /// Takes what has happened; what follows from it comes out of `pop_effect`.
    pub fn handle(&mut self, input: Input<'_>, now: Now) {
        self.now = now;
        let is_time = matches!(input, Input::Timer);
        match input {
            Input::Dialed { link } => self.greet(link),
            Input::Accepted { link, from } => {
                self.links.insert(link, Link::new(link, None, Some(from.ip()), now.monotonic));
                self.greet(link);
            }
            Input::Received { link, frame } => self.receive(link, frame),
            Input::Sent { link, bytes } => {
                if let Some(link) = self.links.get_mut(&link) {
                    link.queued = link.queued.saturating_sub(bytes);
                }
            }
            Input::Closed { link, reason } => self.drop_link(link, reason),
            Input::Timer => {}
        }
        self.run(is_time);
    }

    /// Says everything exactly before the node goes away: no line is left that nobody keeps. The frames come out as effects.
    pub fn settle(&mut self, now: Now) {
        self.now = now;
        self.is_leaving = true;
        if self.is_publishing() {
            let node = Arc::clone(&self.node);
            // Some at a time, as always; one round that has begun now sees all that clients have changed.
            self.publisher.run(&node, &self.pace, now.monotonic, true);
            while !self.publisher.has_looked(&node.keyspace, now.monotonic) {
                self.publisher.run(&node, &self.pace, now.monotonic, true);
            }
            self.publisher.settle(&node.keyspace, usize::MAX, now.monotonic);
        }
        self.pump_all();
        self.send_heartbeats();
    }

    /// What the shell is to do next.
    pub fn pop_effect(&mut self) -> Option<Effect> {
        self.effects.pop_front()
    }

    /// When `Input::Timer` is due.
    pub fn deadline(&self) -> Micros {
        let mut deadline =
            self.next_heartbeat.min(self.next_housekeeping).min(self.members.deadline(self.timeout));
        if self.is_publishing() {
            deadline = deadline.min(self.publisher.deadline(&self.node.keyspace));
        }
        if self.links.values().any(|link| self.has_work(link)) {
            deadline = Micros(0);
        }
        deadline
    }

    /// Carries out what an operator asks.
    pub fn request(&mut self, request: ClusterRequest, now: Now) -> TaskResult {
        self.now = now;
        let result = match request {
            ClusterRequest::Meet { bus, port } => match self.members.meet(bus, port, now.monotonic) {
                Ok(_) => TaskResult::Ok,
                Err(error) => TaskResult::Error(format!("ERR {error}")),
            },
            ClusterRequest::Forget(id) => self.forget(id),
            ClusterRequest::Reset { hard } => self.reset(hard),
            ClusterRequest::SaveConfig => {
                self.save_nodes();
                TaskResult::Ok
            }
            ClusterRequest::ResetAll => {
                let clock = self.node.keyspace.next_generation(now).time;
                self.adopt_epoch(ResetEpoch { clock, author: self.members.own().id });
                TaskResult::Ok
            }
        };
        self.run(false);
        // Whoever is answered sees what became of it.
        self.refresh_view();
        result
    }

    /// Does everything that is due; looks at own shards if it `is_time`, since frames that come and go by the hundred must not wait
    /// for that each time.
    fn run(&mut self, is_time: bool) {
        let now = self.now.monotonic;
        if self.recovery.as_ref().is_some_and(|recovery| recovery.is_over(now)) {
            self.end_recovery();
        }
        for (target, to) in self.members.dials_due(now) {
            self.dial(target, to);
        }
        // What a heartbeat acknowledges must not overtake a SET that was made without it.
        let is_beating = now >= self.next_heartbeat;
        if (is_time || is_beating) && self.is_publishing() {
            let node = Arc::clone(&self.node);
            self.publisher.run(&node, &self.pace, now, is_beating);
            for handle in std::mem::take(&mut self.publisher.balanced) {
                // It is noted among those that read zero.
                node.keyspace.update_at(handle, Cause::Publication, now, |_| ());
            }
        }
        self.pump_all();
        if is_beating {
            self.next_heartbeat = now + HEARTBEAT;
            self.send_heartbeats();
            self.plan_relays();
        }
        if now >= self.next_housekeeping {
            self.housekeep();
        }
        self.keep_facts();
    }

    /// Whether own shards are looked at: somebody might want to know, and we know what they are.
    fn is_publishing(&self) -> bool {
        self.node.keyspace.dirty.is_on() && self.recovery.is_none()
    }

    fn dial(&mut self, target: DialTarget, to: SocketAddr) {
        let id = self.new_link();
        self.links.insert(id, Link::new(id, Some(target), Some(to.ip()), self.now.monotonic));
        self.effects.push_back(Effect::Dial { link: id, to });
    }

    fn send(&mut self, id: LinkId, frame: Vec<u8>) {
        let Some(link) = self.links.get_mut(&id) else { return };
        link.queued += frame.len();
        link.carried.bytes_sent += frame.len() as u64 + LENGTH_PREFIX;
        self.traffic.messages_sent += 1;
        self.effects.push_back(Effect::Send { link: id, frame });
    }

    /// Closes a link for a reason that the operator may want to know.
    fn close(&mut self, id: LinkId, reason: &str) {
        if self.links.contains_key(&id) {
            self.effects.push_back(Effect::Close { link: id });
            self.drop_link(id, reason);
        }
    }

    /// Makes room for what is kept of a member.
    fn add_peer(&mut self, member: MemberIndex) {
        self.peers.entry(member).or_default();
        self.note_member(member);
        let keyspace = &self.node.keyspace;
        keyspace.horizons.add(member);
        if !keyspace.dirty.is_on() {
            keyspace.dirty.set_on(true);
            keyspace.horizons.forget_past(self.now.monotonic);
            // After a CLUSTER RESET under the same id, others may hold what was counted before it.
            self.begin_recovery(&[member]);
        }
    }

    /// What need not be done at once: the picture for clients, the nodes file, what is remembered for too long.
    fn housekeep(&mut self) {
        let now = self.now.monotonic;
        self.next_housekeeping = now + HOUSEKEEPING;
        let settings = self.node.settings();
        self.timeout = Micros::from_millis(settings.cluster_node_timeout_ms);
        self.pace.history = Micros::from_secs(settings.history_size_secs.into());
        let late: Vec<LinkId> = self.late_links(now);
        for id in late {
            self.close(id, "nothing was heard on it for too long");
        }
        for failed in self.members.expire_meets(now, self.timeout) {
            self.note_failed_meet(&failed);
        }
        if self.planted == Some(Planted::LineIsNotFrozen) {
            self.peers.keys().for_each(|member| self.node.keyspace.horizons.follow(*member, Micros::NEVER));
        }
        self.trim_streams();
        self.collect_zeros();
        self.take_over();
        if self.members.revision() != self.saved_revision {
            self.save_nodes();
        }
        self.refresh_view();
    }

    /// Links that should have said something by now.
    fn late_links(&self, now: Micros) -> Vec<LinkId> {
        let is_late = |link: &&Link| match link.member() {
            Some(_) => now.since(link.last_received) > self.timeout,
            None => now.since(link.opened) > HELLO_LIMIT.max(self.timeout),
        };
        self.links.values().filter(is_late).map(|link| link.id).collect()
    }

    fn note_failed_meet(&mut self, failed: &FailedMeet) {
        self.node.shell.warn(&failed.to_string());
    }

    fn save_nodes(&mut self) {
        self.saved_revision = self.members.revision();
        let file = self.members.nodes_file(self.now.monotonic, self.timeout, self.epoch);
        self.effects.push_back(Effect::SaveNodes(file.write()));
    }

    fn refresh_view(&mut self) {
        let now = self.now.monotonic;
        let stats = |member: MemberIndex| self.link_stats(member);
        let view = self.members.view((now, self.timeout), self.traffic, stats);
        self.node.set_cluster_view(view);
    }

    fn link_stats(&self, member: MemberIndex) -> Option<view::LinkStats> {
        let peer = self.peers.get(&member)?;
        let link = self.link_of.get(&member).and_then(|id| self.links.get(id));
        let mut carried = peer.carried;
        if let Some(link) = link {
            carried.add(&link.carried);
        }
        Some(view::LinkStats {
            bytes_sent: carried.bytes_sent,
            bytes_received: carried.bytes_received,
            updates_sent: carried.updates_sent,
            updates_received: carried.updates_received,
            round_trip: link.and_then(|link| link.round_trip),
            lag: (peer.as_of != Micros(0)).then(|| self.now.monotonic.since(peer.as_of)),
            applied: peer.stream.head(),
            acknowledged: peer.acknowledged,
        })
    }

    /// CLUSTER RESET: alone again, without counters.
    fn reset(&mut self, hard: bool) -> TaskResult {
        // Until nothing of the members is left, nothing is claimed of counters that are going away.
        self.node.keyspace.set_recovering(true);
        let links: Vec<LinkId> = self.links.keys().copied().collect();
        links.into_iter().for_each(|id| self.close(id, "CLUSTER RESET"));
        self.node.keyspace.horizons.clear();
        self.peers.clear();
        self.node.keyspace.dirty.set_on(false);
        self.node.flush();
        self.publisher.clear();
        self.publisher.stream.restart_at(Seq::ZERO);
        {
            let mut kept = self.node.kept.lock();
            kept.facts.applied.clear();
            kept.ahead.clear();
        }
        // The name of a node that was removed is spent: what is left of that one must not be taken for this one's.
        let id = (hard || self.members.is_removed()).then(|| self.members.made_up_id());
        let incarnation = (self.now.unix.secs() as u32).max(self.members.own().incarnation + 1);
        self.members.reset(id, incarnation, self.now.monotonic);
        self.publisher.set_incarnation(self.members.own().incarnation);
        self.node.set_id(self.members.own().id);
        self.sign();
        self.recovery = None;
        self.late.clear();
        (self.has_lived, self.is_blank) = (id.is_none(), false);
        self.estate = None;
        self.buried.clear();
        self.save_nodes();
        self.refresh_view();
        self.node.keyspace.set_recovering(false);
        TaskResult::Ok
    }

    /// We have begun anew, but under a name that the cluster which we are to join has removed. Only without counters: on disk they stand
    /// under the name that they were counted under.
    fn take_another_name(&mut self) {
        let id = self.members.made_up_id();
        self.members.rename(id);
        self.has_lived = false;
        self.node.set_id(id);
        self.sign();
        self.save_nodes();
        self.refresh_view();
        self.node.shell.info(&format!("the cluster has removed a node of our name: we are {id} from now on"));
    }

    /// Generations of ours are signed with what we are now.
    fn sign(&self) {
        let own = self.members.own();
        self.node.keyspace.set_author(own.id.author(own.incarnation));
    }

    /// The clock of generations never falls behind the epoch, so that the next one is higher.
    fn note_epoch(&self) {
        self.node.keyspace.note_generation(Generation { time: self.epoch.clock, author: 0 });
    }

    /// Everything that was counted in an older epoch is void.
    fn adopt_epoch(&mut self, epoch: ResetEpoch) {
        self.epoch = epoch;
        self.note_epoch();
        self.node.keyspace.horizons.forget_past(self.now.monotonic);
        self.node.flush();
        self.publisher.clear();
        let members: Vec<(LinkId, Option<MemberIndex>)> =
            self.links.values().map(|link| (link.id, link.member())).collect();
        for (id, member) in members {
            if member.is_none() {
                continue;
            }
            if let Some(link) = self.links.get_mut(&id) {
                link.is_same_epoch = false;
                link.outgoing.retain(|origin, _| *origin == MemberIndex::SELF);
                link.outgoing.values_mut().for_each(|out| out.walk = None);
            }
            self.send_reset(id);
        }
        for peer in self.peers.values_mut() {
            (peer.relay, peer.buried_at) = (None, Micros(0));
        }
        // What was taken over is void, and what a removed member has counted since the reset was not part of it.
        self.buried.clear();
        self.save_nodes();
    }
}

/// Bytes before each frame on the wire.
const LENGTH_PREFIX: u64 = 4;

/// Between two rounds of what need not be done at once.
const HOUSEKEEPING: Micros = Micros::from_millis(100);

#[cfg(test)]
mod tests;
