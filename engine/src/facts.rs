//! What the disk knows of the node as a whole, beside its counters.
//!
//! Records of kind `FACT`; the key says which (numbers as in `cluster::wire`; each payload begins with a version, 1):
//!
//! | key | payload | meaning |
//! |---|---|---|
//! | `nodes` | count, then each: 20 bytes | the table of nodes: ids by number, from 0. It only ever grows |
//! | `self` | 20 bytes id, incarnation, clock, 20 bytes id [, generation] | whose counters these are; the highest incarnation used; the last deletion of everything, its clock and its author (zeros: none); the highest generation of a counter that was removed, if there was one |
//! | `applied` | count, then each: number of the node, seq [; count, then each: number of the node, incarnation] | up to where each node's stream, the own one too, is on disk; the last life in which a node had got back all that it had counted before, if there was one |
//!
//! Example, `self` of a node in its incarnation 7 (20 bytes of 0x11): `01 11..11 07 00 00..00`.

use crate::cluster::wire::{DecodeError, Decoded, Put, Reader};
use crate::ids::{Generation, MemberIndex, NodeId, Seq};
use crate::shard::MAX_MEMBERS;
use std::collections::BTreeMap;

/// Kind of the records.
pub(crate) const FACT: u8 = 2;

pub(crate) const NODES: &[u8] = b"nodes";
pub(crate) const SELF: &[u8] = b"self";
pub(crate) const APPLIED: &[u8] = b"applied";

const VERSION: u8 = 1;

/// Most nodes in the table: every node that was ever a member, for as long as the directory lives.
const MAX_NODES: usize = u16::MAX as usize;

/// The last deletion of all counters on all members, as the cluster knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LastReset {
    pub(crate) clock: u64,
    pub(crate) author: NodeId,
}

impl Default for LastReset {
    fn default() -> LastReset {
        LastReset { clock: 0, author: NodeId([0; 20]) }
    }
}

/// The facts, as the cluster keeps them up to date and the log writes them. Whoever changes counters and facts together
/// changes the counters first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct NodeFacts {
    /// Whose counters these are; `None` before the first write.
    pub(crate) id: Option<NodeId>,
    /// The highest incarnation used.
    pub(crate) incarnation: u32,
    pub(crate) last_reset: LastReset,
    /// No counter that was removed was in a higher generation: counters made later begin in it.
    pub(crate) floor: Generation,
    /// Up to where each member's stream has been applied; under `MemberIndex::SELF` the last own publication.
    pub(crate) applied: BTreeMap<MemberIndex, Seq>,
    /// The last incarnation of each member in which it had all of its own shards back.
    pub(crate) whole: BTreeMap<MemberIndex, u32>,
}

impl NodeFacts {
    /// Whether the record `SELF` is the same.
    pub(crate) fn is_same_self(&self, other: &NodeFacts) -> bool {
        (self.id, self.incarnation, self.last_reset, self.floor)
            == (other.id, other.incarnation, other.last_reset, other.floor)
    }
}

/// What is kept of the node: the facts, and the table of nodes that the files on disk use.
#[derive(Clone, Debug, Default)]
pub(crate) struct Kept {
    pub(crate) facts: NodeFacts,
    pub(crate) nodes: NodeTable,
    /// Some shard of a peer was moving when it was written.
    pub(crate) has_unanchored: bool,
    /// The last shard of each member that was ever on disk.
    pub(crate) ahead: BTreeMap<MemberIndex, Seq>,
}

/// Ids by their number on disk.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct NodeTable(pub(crate) Vec<NodeId>);

impl NodeTable {
    /// The number of a node, given to it at first use.
    pub(crate) fn number_of(&mut self, id: NodeId) -> u16 {
        let number = self.0.iter().position(|known| *known == id).unwrap_or_else(|| {
            assert!(self.0.len() < MAX_NODES, "a data directory that has known 65535 nodes");
            self.0.push(id);
            self.0.len() - 1
        });
        number as u16
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = vec![VERSION];
        out.put_unsigned(self.0.len() as u128);
        self.0.iter().for_each(|id| out.put_id(*id));
        out
    }

    pub(crate) fn decode(bytes: &[u8]) -> Decoded<NodeTable> {
        let mut reader = versioned(bytes)?;
        let count: usize = reader.number("number of nodes")?;
        if count > MAX_NODES {
            return Err(DecodeError { what: "number of nodes" });
        }
        let mut ids = Vec::new();
        for _ in 0..count {
            ids.push(reader.id("id of a node")?);
        }
        reader.end()?;
        Ok(NodeTable(ids))
    }
}

/// The record `SELF`. The id must be known.
pub(crate) fn encode_self(facts: &NodeFacts, id: NodeId) -> Vec<u8> {
    let mut out = vec![VERSION];
    out.put_id(id);
    out.put_unsigned(facts.incarnation.into());
    out.put_unsigned(facts.last_reset.clock.into());
    out.put_id(facts.last_reset.author);
    if !facts.floor.is_zero() {
        out.put_generation(facts.floor);
    }
    out
}

/// Reads it into `facts`.
pub(crate) fn decode_self(bytes: &[u8], facts: &mut NodeFacts) -> Decoded<NodeId> {
    let mut reader = versioned(bytes)?;
    let id = reader.id("own id")?;
    facts.incarnation = reader.number("incarnation")?;
    facts.last_reset =
        LastReset { clock: reader.number("clock of the last reset")?, author: reader.id("author of it")? };
    facts.id = Some(id);
    if !reader.is_empty() {
        facts.floor = reader.generation("highest generation removed")?;
    }
    reader.end()?;
    Ok(id)
}

/// The record `APPLIED`.
pub(crate) fn encode_applied(
    facts: &NodeFacts,
    mut number: impl FnMut(MemberIndex) -> Option<u16>,
    out: &mut Vec<u8>,
) {
    let known: Vec<(u16, &Seq)> =
        facts.applied.iter().filter_map(|(member, seq)| Some((number(*member)?, seq))).collect();
    let whole: Vec<(u16, u32)> =
        facts.whole.iter().filter_map(|(member, life)| Some((number(*member)?, *life))).collect();
    out.put_u8(VERSION);
    out.put_unsigned(known.len() as u128);
    for (number, seq) in known {
        out.put_unsigned(number.into());
        out.put_seq(*seq);
    }
    if !whole.is_empty() {
        out.put_unsigned(whole.len() as u128);
        for (number, life) in whole {
            out.put_unsigned(number.into());
            out.put_unsigned(life.into());
        }
    }
}

/// Reads it into `facts`.
pub(crate) fn decode_applied(
    bytes: &[u8],
    member: impl Fn(u16) -> Option<MemberIndex>,
    facts: &mut NodeFacts,
) -> Decoded<()> {
    let mut reader = versioned(bytes)?;
    facts.applied = read_by_member(&mut reader, &member, |reader| reader.seq("seq of a stream"))?;
    facts.whole = match reader.is_empty() {
        true => BTreeMap::new(),
        false => read_by_member(&mut reader, &member, |reader| reader.number("incarnation of a stream"))?,
    };
    reader.end()
}

/// A count, then for each: the number of a node, and something of it.
fn read_by_member<T>(
    reader: &mut Reader<'_>,
    member: impl Fn(u16) -> Option<MemberIndex>,
    read: impl Fn(&mut Reader<'_>) -> Decoded<T>,
) -> Decoded<BTreeMap<MemberIndex, T>> {
    let count: usize = reader.number("streams")?;
    if count > MAX_MEMBERS {
        return Err(DecodeError { what: "streams" });
    }
    let mut by_member = BTreeMap::new();
    for _ in 0..count {
        let number = reader.number("node of a stream")?;
        let member = member(number).ok_or(DecodeError { what: "node of a stream" })?;
        by_member.insert(member, read(reader)?);
    }
    Ok(by_member)
}

fn versioned(bytes: &[u8]) -> Decoded<Reader<'_>> {
    let mut reader = Reader::new(bytes);
    match reader.u8("version of a fact")? {
        VERSION => Ok(reader),
        _ => Err(DecodeError { what: crate::state::NEWER }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(byte: u8) -> NodeId {
        NodeId([byte; 20])
    }

    #[test]
    fn facts_read_back_what_was_put() {
        for whole in [BTreeMap::new(), BTreeMap::from([(MemberIndex(5), 9)])] {
            facts_with(whole);
        }
    }

    fn facts_with(whole: BTreeMap<MemberIndex, u32>) {
        let facts = NodeFacts {
            id: Some(id(1)),
            incarnation: 7,
            last_reset: LastReset { clock: 1 << 60, author: id(2) },
            floor: Generation { time: 1 << 50, author: 3 },
            applied: BTreeMap::from([(MemberIndex(3), Seq { incarnation: 4, n: 5 })]),
            whole,
        };
        let mut read = NodeFacts::default();
        assert_eq!(decode_self(&encode_self(&facts, id(1)), &mut read).unwrap(), id(1));
        let mut bytes = Vec::new();
        encode_applied(&facts, |member| Some(member.0 * 2), &mut bytes);
        decode_applied(&bytes, |number| Some(MemberIndex(number / 2)), &mut read).unwrap();
        assert_eq!(read, facts);
        assert!(decode_applied(&bytes, |_| None, &mut read).is_err());
        let mut table = NodeTable::default();
        assert_eq!((table.number_of(id(5)), table.number_of(id(6)), table.number_of(id(5))), (0, 1, 0));
        assert_eq!(NodeTable::decode(&table.encode()).unwrap(), table);
    }

    #[test]
    fn the_example_of_the_table_is_true() {
        let mut bytes = vec![1];
        bytes.extend([0x11; 20]);
        bytes.extend([7, 0]);
        bytes.extend([0; 20]);
        let facts = NodeFacts { incarnation: 7, ..NodeFacts::default() };
        assert_eq!(encode_self(&facts, id(0x11)), bytes);
    }

    #[test]
    fn cut_and_later_facts_are_refused() {
        let table = NodeTable(vec![id(1), id(2)]).encode();
        for len in 0..table.len() {
            assert!(NodeTable::decode(&table[..len]).is_err());
        }
        let mut later = table;
        later[0] = 2;
        assert_eq!(NodeTable::decode(&later).unwrap_err().what, crate::state::NEWER);
    }
}
