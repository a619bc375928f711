//! The door between the world and what runs in it: a node process, and what the judge may look at inside.
//!
//! The world knows `Process` and `Program` only. `real` puts the engine behind them; `toy` a small model that serves to
//! test the world and the judge themselves.

use engine::NodeId;
use engine::cluster::{ClusterRequest, Effect, Input, LinkId};
use engine::time::Now;
use engine::value::Value;
use resp::Reply;
use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;

/// Order of a node's updates: (incarnation, n).
pub type Seq = (u32, u64);

/// A SET's era: (logical clock, the author's `NodeId::author`). `None` before the first SET of a counter.
pub type Generation = Option<(u64, u64)>;

/// The last DEBUG RESET that a node has carried out: (logical clock, author). Zeros before the first.
pub type Epoch = (u64, u64);

/// A shard as somebody knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ShardState {
    /// What its value is relative to.
    pub generation: Generation,
    /// Which update of its owner this is.
    pub seq: Seq,
    /// Own shard: the exact value. Peer shard: the exact value of that update. Observed: what the SET's author took it for.
    pub value: Value,
}

/// A counter as one node knows it: what the judge looks at. It never looks at a line.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CounterState {
    /// The generation in force here.
    pub generation: Generation,
    /// What its SET set.
    pub set_value: Value,
    /// What its author had observed.
    pub observed: BTreeMap<NodeId, ShardState>,
    /// The own shard, if this node counted here.
    pub own: Option<ShardState>,
    /// Others' shards as known here.
    pub peers: BTreeMap<NodeId, ShardState>,
    /// Of those that move: how far the truth may be from the line. The judge asks only what is left of the dead.
    pub slacks: BTreeMap<NodeId, Value>,
}

impl fmt::Display for ShardState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (seq {}.{}", self.value, self.seq.0, self.seq.1)?;
        match self.generation {
            None => write!(f, ")"),
            Some((clock, author)) => write!(f, ", in {clock}-{:x})", author >> 48),
        }
    }
}

impl fmt::Display for CounterState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.own {
            None => write!(f, "no such counter")?,
            Some(own) => write!(f, "own {own}")?,
        }
        self.peers.iter().try_for_each(|(id, shard)| write!(f, ", {id:?} {shard}"))?;
        if let Some((clock, author)) = self.generation {
            write!(f, "; SET {} as {clock}-{:x}, having seen", self.set_value, author >> 48)?;
            self.observed.iter().try_for_each(|(id, shard)| write!(f, " {id:?} {shard}"))?;
        }
        Ok(())
    }
}

/// How a process is started.
#[derive(Clone, Debug)]
pub struct Start {
    /// Its identity if it has no nodes file.
    pub id: NodeId,
    /// Randomness.
    pub seed: u64,
    /// The nodes file as it is on the disk.
    pub nodes_file: Option<Vec<u8>>,
    /// The counters as they are on the disk (from `Process::image`).
    pub image: Option<Vec<u8>>,
    /// The moment of the start.
    pub now: Now,
    /// Where its clients come to; the bus is at this address too, `BUS_PORT_OFFSET` higher.
    pub addr: SocketAddr,
    /// `cluster-node-timeout`.
    pub node_timeout_ms: u64,
    /// `default-precision`.
    pub default_precision: &'static str,
}

/// A running node.
pub trait Process {
    /// Its permanent name. Changes with a hard reset only.
    fn id(&self) -> NodeId;
    /// Executes one request of a client to the end.
    fn execute(&mut self, words: &[&[u8]], now: Now) -> Reply;
    /// As `Cluster::handle`.
    fn handle(&mut self, input: Input<'_>, now: Now);
    /// As `Cluster::pop_effect`.
    fn pop_effect(&mut self) -> Option<Effect>;
    /// When it wants `Input::Timer` (on its own clock); in the past if at once.
    fn deadline(&self) -> engine::time::Micros;
    /// As `Cluster::new_link`.
    fn new_link(&mut self) -> LinkId;
    /// As `Cluster::request`; an error says why it was refused.
    fn request(&mut self, request: ClusterRequest, now: Now) -> Result<(), String>;
    /// What it knows of a counter.
    fn inspect(&self, name: &[u8], now: Now) -> CounterState;
    /// The members that it knows, itself included.
    fn members(&self) -> Vec<NodeId>;
    /// Whether it has received everything from each member at least once. What all members had acknowledged before it joined
    /// is forgotten by then, and it can't be asked what it has seen of that.
    fn is_acquainted(&self) -> bool;
    /// The DEBUG RESET that it has carried out last.
    fn reset_epoch(&self) -> Epoch;
    /// What a disk would hold if it were perfect; `None` if this program has no disk.
    fn image(&self, now: Now) -> Option<Vec<u8>>;
    /// How many things its collections hold, by name: what must not grow in quiet times.
    fn sizes(&self) -> Vec<(&'static str, usize)>;
}

/// What can be run on a host.
pub trait Program: Sync {
    /// Starts it.
    fn start(&self, start: Start) -> Box<dyn Process>;
    /// What it can do; a seed uses nothing else.
    fn abilities(&self) -> Abilities;
}

/// What a program can do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Abilities {
    /// GET BOUND.
    pub has_bound: bool,
    /// Keeps counters on a disk.
    pub has_disk: bool,
    /// Recovers its shards from peers after a crash.
    pub has_recovery: bool,
    /// CLUSTER FORGET and RESET.
    pub has_forget: bool,
    /// DEBUG RESET.
    pub has_reset: bool,
    /// Zero counters disappear.
    pub has_zeros: bool,
}

impl Abilities {
    /// Everything.
    pub const ALL: Abilities = Abilities {
        has_bound: true,
        has_disk: true,
        has_recovery: true,
        has_forget: true,
        has_reset: true,
        has_zeros: true,
    };
}

/// The value in a reply; `None` if it is no bulk with a number.
pub fn value_of(reply: &Reply) -> Option<Value> {
    match reply {
        Reply::Bulk(text) => Value::parse(text).ok(),
        _ => None,
    }
}

/// A reply for people.
pub fn text_of(reply: &Reply) -> String {
    match reply {
        Reply::Bulk(text) | Reply::Status(text) | Reply::Error(text) => {
            String::from_utf8_lossy(text).into_owned()
        }
        Reply::Integer(number) => number.to_string(),
        Reply::Array(parts) => format!("[{}]", parts.iter().map(text_of).collect::<Vec<_>>().join(", ")),
        Reply::Null => "nothing".into(),
        other => format!("{other:?}"),
    }
}
