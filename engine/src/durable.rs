//! Between the node and the store: what is written of it, and how it comes back.
//!
//! Two kinds of records: one per counter (`state`), and *facts* about the node as a whole (`facts`). A `Journal` collects
//! what has changed into batches for the log, and is the source of snapshots; `Loader`s put blocks back into the
//! node, several side by side: each fills its own stripes from the same blocks, so that order holds for every counter.
//!
//! Invariants:
//! - Facts are collected before the counters they speak of: that a stream is applied up to a number is never on
//!   disk without what was applied.
//! - A record that mentions a node by number stands behind a table of nodes that has the number, in every order in which
//!   a store gives blocks back.
//!
//! Lacks on purpose: files, threads, and when to write.

use crate::cluster::nodes_file::{NodesFile, NodesFileError};
use crate::counter::Counter;
use crate::facts::{self, APPLIED, FACT, NODES, NodeFacts, NodeTable, SELF};
use crate::ids::{MemberIndex, NodeId, Seq};
use crate::keyspace::{Keyspace, Noted};
use crate::node::Node;
use crate::shard::PeerShard;
use crate::state::{self, At, COUNTER};
use crate::store::{Batch, Block, Record, Sink, Source, StoreError};
use crate::time::Micros;
use std::collections::BTreeMap;
use std::sync::Arc;

mod inspect;

pub use inspect::StateInspector;

/// Counters taken from one stripe under one lock.
const DRAIN_STEP: usize = 256;

/// Collects what there is to write.
pub struct Journal {
    node: Arc<Node>,
    numbers: Numbers,
    /// How much of the table of nodes the log has.
    logged_nodes: usize,
    /// The facts as the log has them.
    logged: NodeFacts,
    scratch: Vec<u8>,
}

impl Journal {
    /// The journal of a node whose counters have been loaded.
    pub fn new(node: Arc<Node>) -> Journal {
        let kept = node.kept.lock().clone();
        let numbers =
            Numbers { node: Arc::clone(&node), table: kept.nodes, by_index: Vec::new(), version: None };
        Journal {
            node,
            logged_nodes: numbers.table.0.len(),
            numbers,
            logged: kept.facts,
            scratch: Vec::new(),
        }
    }

    /// The journal for an empty directory.
    pub fn anew(node: Arc<Node>) -> Journal {
        let table = node.kept.lock().nodes.clone();
        let numbers = Numbers { node: Arc::clone(&node), table, by_index: Vec::new(), version: None };
        let logged = NodeFacts::default();
        Journal { node, logged_nodes: 0, numbers, logged, scratch: Vec::new() }
    }

    /// Adds all there is.
    pub fn copy_all(&mut self, batch: &mut Batch, now: Micros) {
        let mut progress = SnapshotProgress::default();
        let end = self.source(&mut progress, now).next_chunk(0, usize::MAX, batch);
        assert!(end.is_none(), "a chunk without limit is the whole");
        self.logged_nodes = progress.written_nodes;
    }

    /// From now on changes are noted; `collect` will find them.
    pub fn start(&self) {
        self.node.keyspace.start_logging();
    }

    /// No longer; what was noted is forgotten.
    pub fn stop(&self) {
        self.node.keyspace.stop_logging();
    }

    /// Whether changes are noted.
    pub fn is_started(&self) -> bool {
        self.node.keyspace.unlogged().is_on()
    }

    /// Whether there is something to collect.
    pub fn has_changes(&self) -> bool {
        self.node.keyspace.unlogged().has_any()
            || !self.is_untouched() && self.node.facts_to_keep() != self.logged
    }

    /// Nothing was ever written here. Then facts alone are not worth a record: a directory without counters stays empty,
    /// so that a dump of the original can still be put beside it.
    fn is_untouched(&self) -> bool {
        self.logged.id.is_none()
    }

    /// Adds all that has changed before this call, and perhaps some of what changes meanwhile. The batch must be committed
    /// sooner or later: nothing of it is collected again.
    pub fn collect(&mut self, batch: &mut Batch, now: Micros) {
        if self.is_untouched() && !self.node.keyspace.unlogged().has_any() {
            return;
        }
        let facts = self.node.facts_to_keep();
        let is_other_self = !facts.is_same_self(&self.logged);
        let is_further = (&facts.applied, &facts.whole) != (&self.logged.applied, &self.logged.whole);
        let mut writer = self.writer(batch, now);
        if is_other_self {
            writer.own_facts(&facts);
        }
        if is_further {
            writer.applied(&facts);
        }
        self.logged = facts;
        self.collect_counters(batch, now);
    }

    fn writer<'a>(&'a mut self, batch: &'a mut Batch, now: Micros) -> Writer<'a> {
        Writer {
            batch,
            keyspace: &self.node.keyspace,
            numbers: &mut self.numbers,
            written_nodes: &mut self.logged_nodes,
            scratch: &mut self.scratch,
            now,
            incarnation: self.node.kept.lock().facts.incarnation,
        }
    }

    /// The same for counters alone: for a log that does not go on, so that facts must not run ahead of it.
    pub fn collect_counters(&mut self, batch: &mut Batch, now: Micros) {
        let node = Arc::clone(&self.node);
        let keyspace = &node.keyspace;
        let mut writer = self.writer(batch, now);
        for stripe in keyspace.unlogged().take_stripes() {
            let mut see = |noted: Noted<'_>| match noted {
                Noted::Gone(name) => writer.batch.remove(COUNTER, name),
                Noted::Changed(counter) => writer.counter(counter),
            };
            while keyspace.drain_log(stripe, DRAIN_STEP, &mut see) {}
        }
    }

    /// All there is, for a snapshot that is walked from here on.
    pub fn source<'a>(&'a mut self, progress: &'a mut SnapshotProgress, now: Micros) -> Walk<'a> {
        Walk { journal: self, progress, now }
    }
}

/// What a snapshot in the making has already: kept beside the store's cursor from its first chunk to its last.
#[derive(Debug, Default)]
pub struct SnapshotProgress {
    written_nodes: usize,
}

/// The source of a snapshot.
pub struct Walk<'a> {
    journal: &'a mut Journal,
    progress: &'a mut SnapshotProgress,
    now: Micros,
}

impl Source for Walk<'_> {
    fn next_chunk(&mut self, cursor: u64, max_bytes: usize, out: &mut Batch) -> Option<u64> {
        if cursor == 0 {
            self.progress.written_nodes = 0;
        }
        let node = Arc::clone(&self.journal.node);
        let mut writer = Writer {
            batch: out,
            keyspace: &node.keyspace,
            numbers: &mut self.journal.numbers,
            written_nodes: &mut self.progress.written_nodes,
            scratch: &mut self.journal.scratch,
            now: self.now,
            incarnation: node.kept.lock().facts.incarnation,
        };
        if cursor == 0 {
            let facts = node.facts_to_keep();
            writer.own_facts(&facts);
            writer.applied(&facts);
        }
        let mut cursor = cursor;
        loop {
            cursor = node.keyspace.walk_kept(cursor, |counter| writer.counter(counter));
            if cursor == 0 {
                return None;
            }
            if writer.batch.bytes() >= max_bytes as u64 {
                return Some(cursor);
            }
        }
    }
}

/// Writes records in an order in which they can be read.
struct Writer<'a> {
    batch: &'a mut Batch,
    keyspace: &'a Keyspace,
    numbers: &'a mut Numbers,
    /// How much of the table of nodes stands before.
    written_nodes: &'a mut usize,
    scratch: &'a mut Vec<u8>,
    now: Micros,
    incarnation: u32,
}

impl Writer<'_> {
    fn own_facts(&mut self, facts: &NodeFacts) {
        let id = facts.id.expect("facts to keep have an id");
        self.batch.put(FACT, SELF, &facts::encode_self(facts, id));
    }

    fn applied(&mut self, facts: &NodeFacts) {
        self.scratch.clear();
        facts::encode_applied(facts, |member| state::Number::number(self.numbers, member), self.scratch);
        self.put_nodes();
        self.batch.put(FACT, APPLIED, self.scratch);
    }

    fn counter(&mut self, counter: &Counter) {
        self.scratch.clear();
        let precision = self.keyspace.kept_precision(counter);
        let at = At { now: self.now, horizons: &self.keyspace.horizons, incarnation: self.incarnation };
        state::encode(counter, precision, at, self.numbers, self.scratch);
        self.put_nodes();
        self.batch.put(COUNTER, counter.name(), self.scratch);
    }

    /// Writes the table of nodes if it has grown since it was written.
    fn put_nodes(&mut self) {
        let known = self.numbers.table.0.len();
        if *self.written_nodes < known {
            self.batch.put(FACT, NODES, &self.numbers.table.encode());
            *self.written_nodes = known;
        }
    }
}

/// From indices of members to numbers on disk.
struct Numbers {
    node: Arc<Node>,
    table: NodeTable,
    /// What has been looked up since the ids behind the indices last changed.
    by_index: Vec<Option<u16>>,
    version: Option<u64>,
}

impl state::Number for Numbers {
    fn number(&mut self, member: MemberIndex) -> Option<u16> {
        if member == MemberIndex::SELF {
            return Some(self.table.number_of(self.node.id()));
        }
        let ids = &self.node.keyspace.member_ids;
        if self.version != Some(ids.version()) {
            self.version = Some(ids.version());
            self.by_index.clear();
        }
        let place = usize::from(member.0);
        if let Some(Some(number)) = self.by_index.get(place) {
            return Some(*number);
        }
        let id = ids.id(member)?;
        let number = self.table.number_of(id);
        if self.by_index.len() <= place {
            self.by_index.resize(place + 1, None);
        }
        self.by_index[place] = Some(number);
        Some(number)
    }
}

/// Puts blocks back into a node; one of several that share the work.
pub struct Loader<'a> {
    node: &'a Node,
    part: usize,
    parts: usize,
    own: Option<NodeId>,
    facts: NodeFacts,
    table: NodeTable,
    members: Members,
    /// Whose counters the records at this place are.
    mapped_for: Option<NodeId>,
    more: isize,
    has_unanchored: bool,
    ahead: BTreeMap<MemberIndex, Seq>,
    now: Micros,
}

/// Indices by number on disk.
struct Members(Vec<MemberIndex>);

impl state::Member for Members {
    fn member(&self, number: u16) -> Option<MemberIndex> {
        self.0.get(usize::from(number)).copied()
    }
}

impl<'a> Loader<'a> {
    /// Loader number `part` of `parts`: each must be given every block, in order. `own` is the node's identity, if it has
    /// one already; else the node takes that of the files.
    pub fn new(
        node: &'a Node,
        (part, parts): (usize, usize),
        own: Option<NodeId>,
        now: Micros,
    ) -> Loader<'a> {
        Loader {
            node,
            part,
            parts,
            own,
            facts: NodeFacts::default(),
            table: NodeTable::default(),
            members: Members(Vec::new()),
            mapped_for: None,
            more: 0,
            has_unanchored: false,
            ahead: BTreeMap::new(),
            now,
        }
    }

    /// Takes over a block's records.
    ///
    /// # Errors
    /// The block, or a record in it, can't be read; what stands before it has been taken over.
    pub fn block(&mut self, block: &Block) -> Result<(), StoreError> {
        let mut problem = None;
        block.for_each(|record| {
            if problem.is_none() {
                problem = self.record(record).err();
            }
        })?;
        problem.map_or(Ok(()), |problem| Err(block.refused(problem)))
    }

    /// All blocks have been given.
    ///
    /// # Errors
    /// The counters are another node's; a text for the operator.
    pub fn finish(self) -> Result<(), String> {
        self.node.keyspace.note_loaded(self.more);
        {
            let mut kept = self.node.kept.lock();
            kept.has_unanchored |= self.has_unanchored;
            self.ahead.into_iter().for_each(|(member, seq)| note_ahead(&mut kept.ahead, member, seq));
        }
        if let (Some(own), Some(id)) = (self.own, self.facts.id)
            && own != id
        {
            return Err(format!(
                "the counters are those of node {id}, but the nodes file says that this is node {own}: put the nodes \
                 file of {id} back, or give this node a directory of its own"
            ));
        }
        if self.part == 0 {
            if let Some(id) = self.facts.id {
                self.node.set_id(id);
            }
            let facts = self.facts;
            let mut kept = self.node.kept.lock();
            (kept.facts, kept.nodes) = (facts, self.table);
        }
        Ok(())
    }

    fn record(&mut self, record: Record<'_>) -> Result<(), String> {
        match (record.kind, record.key, record.payload) {
            (COUNTER, name, payload) => {
                if !self.node.keyspace.is_in_part(name, self.part, self.parts) {
                    return Ok(());
                }
                let state = payload.map(|bytes| state::decode(bytes, &self.members)).transpose();
                let state = state.map_err(|error| format!("counter {}: {error}", shown(name)))?;
                if let Some(state) = &state {
                    self.has_unanchored |= state.peers.iter().any(PeerShard::is_unanchored);
                    let own = (state.seq != Seq::ZERO).then_some((MemberIndex::SELF, state.seq));
                    let peers = state.peers.iter().map(|peer| (peer.member(), peer.seq()));
                    peers.chain(own).for_each(|(member, seq)| note_ahead(&mut self.ahead, member, seq));
                }
                let loaded = self.node.keyspace.load(name, state, self.now);
                self.more += loaded.map_err(|_| "more than 65535 different precisions".to_owned())?;
                Ok(())
            }
            (FACT, NODES, Some(bytes)) => self.set_table(bytes),
            (FACT, SELF, Some(bytes)) => {
                let id = facts::decode_self(bytes, &mut self.facts).map_err(|error| error.to_string())?;
                if self.mapped_for != Some(id) {
                    self.mapped_for = Some(id);
                    self.map_numbers()?;
                }
                Ok(())
            }
            (FACT, APPLIED, Some(bytes)) => {
                let member = |number| state::Member::member(&self.members, number);
                facts::decode_applied(bytes, member, &mut self.facts).map_err(|error| error.to_string())
            }
            (kind, key, _) => Err(format!("record {} of kind {kind}: {}", shown(key), state::NEWER)),
        }
    }

    /// A longer table of nodes.
    fn set_table(&mut self, bytes: &[u8]) -> Result<(), String> {
        let table = NodeTable::decode(bytes).map_err(|error| error.to_string())?;
        if !table.0.starts_with(&self.table.0) {
            return Err("a table of nodes that contradicts the one before".to_owned());
        }
        self.table = table;
        self.map_numbers()
    }

    /// Finds the index behind each number of the table.
    fn map_numbers(&mut self) -> Result<(), String> {
        self.members.0.clear();
        for id in &self.table.0 {
            let index = match self.mapped_for {
                Some(own) if own == *id => Ok(MemberIndex::SELF),
                Some(_) | None => self.node.keyspace.member_ids.index_of(*id),
            };
            self.members.0.push(index.map_err(|_| "more nodes than a node can know".to_owned())?);
        }
        Ok(())
    }
}

/// For a store that is read by one thread.
impl Sink for Loader<'_> {
    fn block(&mut self, block: Block) -> Result<(), StoreError> {
        Loader::block(self, &block)
    }
}

/// A shard of that member stands on disk.
pub(crate) fn note_ahead(ahead: &mut BTreeMap<MemberIndex, Seq>, member: MemberIndex, seq: Seq) {
    let known = ahead.entry(member).or_default();
    *known = seq.max(*known);
}

/// A name as an operator can read it, cut to a readable length.
fn shown(name: &[u8]) -> String {
    /// Longest part of a name in a message.
    const MAX_SHOWN: usize = 64;
    name[..name.len().min(MAX_SHOWN)].escape_ascii().to_string()
}

impl Node {
    /// Takes the identity from a nodes file, and gives the members in it their indices. Before anything is loaded.
    ///
    /// # Errors
    /// The file is damaged.
    pub fn recognise(&self, nodes_file: &[u8]) -> Result<NodeId, NodesFileError> {
        let file = NodesFile::parse(nodes_file)?;
        let id = file.myself.line.id;
        self.set_id(id);
        for (place, member) in (1..).zip(&file.members) {
            self.keyspace.member_ids.set(MemberIndex(place), Some(member.line.id));
        }
        Ok(id)
    }

    /// All loaders have finished: shards that were moving when they were written must come anew, so their owners' streams are
    /// applied only up to the one before.
    pub fn finish_loading(&self) {
        if !self.kept.lock().has_unanchored {
            return;
        }
        let unanchored = self.keyspace.unanchored();
        let mut kept = self.kept.lock();
        for (member, seq) in unanchored {
            if let Some(applied) = kept.facts.applied.get_mut(&member) {
                let before = Seq { incarnation: seq.incarnation, n: seq.n.saturating_sub(1) };
                *applied = before.min(*applied);
            }
        }
    }

    /// Whether something has changed that the log does not have yet.
    pub fn has_unlogged_changes(&self) -> bool {
        self.keyspace.unlogged().has_any() || self.log_status().unsynced_bytes > 0
    }

    /// The facts with the node's own id.
    pub(crate) fn facts_to_keep(&self) -> NodeFacts {
        let mut facts = self.kept.lock().facts.clone();
        facts.id = Some(self.id());
        facts
    }

    /// Sets how the writer of the log is told that there is something for it, once. It may be called under a short lock and
    /// must not block.
    pub fn set_log_wake(&self, wake: crate::clients::Wake) {
        self.keyspace.set_log_wake(wake);
    }

    /// Makes room for that many counters before they are loaded.
    pub fn reserve_counters(&self, counters: u64) {
        self.keyspace.reserve(counters);
    }
}
