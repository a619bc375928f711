//! The counters of a dump of the original (`ddb`) become counters of this node.
//!
//! A part of the node itself becomes the own shard; a part of another node becomes a peer's shard, of before
//! everything that such a node will ever publish (`IMPORTED`), so that what it says itself takes its place. Until then, or for good if
//! that node does not come, other members get it from here. Without an identity
//! (no nodes file) it can't be told which part was the node's own, and all are counted as its own.
//!
//! A part whose line was moving when the dump was written stands where it was last seen: nobody knows how old the dump is.

use crate::ddb::{self, DdbError, Dump, Part};
use crate::durable::note_ahead;
use crate::ids::{MemberIndex, NodeId, Seq};
use crate::node::Node;
use crate::precision::Precision;
use crate::shard::{Moving, PeerShard};
use crate::state::State;
use crate::time::Micros;
use crate::value::{Total, Value};
use std::collections::BTreeSet;
use std::fmt;

/// The number of parts of others in a dump. No node has incarnation 0.
pub(crate) const IMPORTED: Seq = Seq { incarnation: 0, n: 1 };

/// What was in a dump.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Imported {
    /// Counters.
    pub counters: u64,
    /// Different nodes whose parts were counted as the node's own.
    pub own_nodes: usize,
    /// Parts that were moving, so that their values are estimates.
    pub moving: u64,
    /// Whether the file carried a checksum.
    pub has_checksum: bool,
}

/// Why a dump can't be taken over. Nothing of it has been.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ImportError {
    /// It is damaged.
    Damaged(DdbError),
    /// A name is longer than names may be.
    NameTooLong {
        /// Where its record begins in the file.
        offset: usize,
        /// Its length in bytes.
        len: usize,
    },
    /// A counter's parts add up to more than a value can be.
    OutOfRange {
        /// Where its record begins in the file.
        offset: usize,
    },
    /// More different precisions, or nodes, than a node can know.
    TooMany(&'static str),
}

impl fmt::Display for ImportError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ImportError::Damaged(error) => error.fmt(f),
            ImportError::NameTooLong { offset, len } => write!(
                f,
                "at byte {offset}: a name of {len} bytes, but names have at most {}; delete that counter in the original and \
                 save again",
                crate::counter::MAX_NAME_LEN
            ),
            ImportError::OutOfRange { offset } => {
                write!(f, "at byte {offset}: the parts of this counter add up to more than 10^20")
            }
            ImportError::TooMany(what) => write!(f, "it has more different {what} than a node can know"),
        }
    }
}

impl std::error::Error for ImportError {}

impl Node {
    /// Takes over a dump. The node must have no counters and serve nobody yet.
    ///
    /// # Errors
    /// See `ImportError`.
    pub fn import_dump(
        &self,
        bytes: &[u8],
        own: Option<NodeId>,
        now: Micros,
    ) -> Result<Imported, ImportError> {
        let dump = ddb::read(bytes).map_err(ImportError::Damaged)?;
        check(&dump, own)?;
        let own_text = own.map(|id| id.to_string().into_bytes());
        let all_nodes: BTreeSet<_> =
            dump.counters.iter().flat_map(|counter| &counter.parts).map(|part| part.node).collect();
        let is_one_node = all_nodes.len() == 1;
        let mut own_nodes = BTreeSet::new();
        let (mut more, mut moving) = (0, 0);
        for counter in &dump.counters {
            let mut state =
                State { precision: self.kept_precision_of(counter.precision), ..State::default() };
            let mut own_total = Total::default();
            for part in &counter.parts {
                let is_own = own_text.as_ref().is_none_or(|own| own.as_slice() == part.node);
                moving += u64::from(!(part.is_settled() || is_own && own.is_some()));
                if !is_own {
                    state.peers.push(self.peer_shard(part, counter.precision)?);
                    continue;
                }
                own_nodes.insert(part.node);
                // The value of the node that wrote the dump is exact; another's is good only where its line stood.
                let is_exact = own.is_some() || is_one_node || !part.is_settled();
                own_total.include(if is_exact { part.value } else { part.predicted });
            }
            state.own = own_total.saturating();
            state.decimals = state.own.decimals();
            let loaded = self.keyspace.load(counter.name, Some(state), now);
            more += loaded.map_err(|_| ImportError::TooMany("precisions"))?;
        }
        self.keyspace.note_loaded(more);
        Ok(Imported {
            counters: dump.counters.len() as u64,
            own_nodes: own_nodes.len(),
            moving,
            has_checksum: dump.has_checksum,
        })
    }

    /// The precision that a counter of a dump had on purpose; `None` of the dump is infinite.
    fn kept_precision_of(&self, precision: Option<Value>) -> Option<Precision> {
        let precision = Precision::Absolute(precision.unwrap_or(Value::MAX));
        (precision != self.keyspace.default_precision()).then_some(precision)
    }

    fn peer_shard(&self, part: &Part<'_>, precision: Option<Value>) -> Result<PeerShard, ImportError> {
        let id = NodeId::parse(part.node).expect("the reader has checked that it is an id");
        let member: MemberIndex =
            self.keyspace.member_ids.index_of(id).map_err(|_| ImportError::TooMany("nodes"))?;
        let (value, moving) = if part.is_settled() {
            (part.predicted, None)
        } else {
            (part.value, Some(Moving::unanchored(0.0, precision.unwrap_or(Value::MAX).units())))
        };
        note_ahead(&mut self.kept.lock().ahead, member, IMPORTED);
        Ok(PeerShard::new(member, IMPORTED, value, value.decimals(), moving, Vec::new()))
    }
}

/// Finds what can't be taken over before anything is.
fn check(dump: &Dump<'_>, own: Option<NodeId>) -> Result<(), ImportError> {
    for counter in &dump.counters {
        if counter.name.len() > crate::counter::MAX_NAME_LEN {
            return Err(ImportError::NameTooLong { offset: counter.offset, len: counter.name.len() });
        }
        let mut total = Total::default();
        counter.parts.iter().for_each(|part| {
            total.include(if part.is_settled() { part.predicted } else { part.value });
        });
        if own.is_none() && total.checked().is_err() {
            return Err(ImportError::OutOfRange { offset: counter.offset });
        }
    }
    Ok(())
}
