//! A counter's whole durable state as bytes: what the log and the snapshots hold of it.
//!
//! Payload of a record of kind `COUNTER`, whose key is the counter's name (numbers as in `cluster::wire`):
//!
//! | field | type | when |
//! |---|---|---|
//! | version | u8 | 1 |
//! | flags | unsigned | see `flag`; an unknown one is refused |
//! | own value | value | always |
//! | decimals | u8 | DECIMALS: the own shard once used more than its value does |
//! | precision | bytes: text | PRECISION: set on purpose; otherwise `default-precision` is followed |
//! | seq | seq | SEQ: when the own shard was last published |
//! | record | generation, value | RECORD: the highest SET known |
//! | record's seq | seq | RECORD_SEQ: the publication that carried it first |
//! | observed | count, then each: node, generation, seq, value | OBSERVED |
//! | own generation | generation | GENERATION: it is not the record's |
//! | subtracted | count, then each: generation, signed units | SUBTRACTED |
//! | inherited | count, then each: node, generation, seq, value, counts (signed units), told (seq) | INHERITED: shards of departed members within the own one |
//! | subtracted from those | of each: what before it was inherited, and what since; both: count, then each: generation, signed units | INHERITED_SUBTRACTED: in the same order |
//! | counted since the start | count, then each: incarnation, signed units | SINCE_START: the own shard was being recovered from peers |
//! | what it was counted on | generation, value, count of subtractions before it, then what the SET in force has seen of what was counted: count (at most one), then incarnation, generation left, signed units | SINCE_BASE: a SET of this start has restated it |
//! | peers' shards | count, then each as below | PEERS |
//!
//! | field of a peer's shard | type | when |
//! |---|---|---|
//! | flags | u8 | 1 moving, 2 older generation, 4 taken over, 8 subtracted, 16 moved |
//! | node | unsigned | number of the owner in the table of nodes (`facts`) |
//! | decimals | u8 | |
//! | value | value | as it was published (before there was flag 16: where its line stood at the time of writing) |
//! | seq | seq | |
//! | precision | signed units | moving: how far the truth was from the line |
//! | moved | signed units | moved: how far from the value its line stood when it was last known to hold |
//! | generation | generation | older |
//! | subtracted | count, then each: generation, signed units | subtracted: what its owner had, if that does not follow from the record |
//! | taken over | count, then each: node, seq | taken over: shards of departed members that are part of it |
//!
//! Example: a counter that has only ever been incremented, to 42: `01 00 00 54`.
//!
//! A line's moment can't survive a restart, as no clock does. So a moving shard comes back *unanchored*: it stands
//! where it stood when it was last known to hold, its owner must be asked again, and a copy of the same seq replaces it.
//! If nobody has one any more, all who have it from disk agree at least on what was published.
//!
//! Lacks on purpose: what only the running node needs (tracks, deadlines, subscribers).

use crate::cluster::wire::{DecodeError, Decoded, Put, Reader};
use crate::counter::{Counter, Seen};
use crate::generation::{MAX_SUBTRACTIONS, Observed, Record, Stated, Subtractions};
use crate::ids::{Generation, MemberIndex, Seq};
use crate::precision::Precision;
use crate::shard::{Basis, Horizons, MAX_MEMBERS, Moving, PeerShard};
use crate::takeover::{Inheritance, Inherited, TakenOver};
use crate::time::Micros;
use crate::value::Value;

/// Kind of a counter's record; the key is its name.
pub(crate) const COUNTER: u8 = 1;

/// Version of the payload.
const VERSION: u8 = 1;

/// What a payload has.
mod flag {
    pub(super) const DECIMALS: u32 = 1;
    pub(super) const PRECISION: u32 = 2;
    pub(super) const SEQ: u32 = 4;
    pub(super) const RECORD: u32 = 8;
    /// The record is a DEL.
    pub(super) const DELETION: u32 = 16;
    pub(super) const GENERATION: u32 = 32;
    pub(super) const PEERS: u32 = 64;
    /// What the own shard says is not what was published last.
    pub(super) const UNPUBLISHED: u32 = 128;
    pub(super) const RECORD_SEQ: u32 = 256;
    pub(super) const OBSERVED: u32 = 512;
    pub(super) const SUBTRACTED: u32 = 1024;
    pub(super) const SINCE_START: u32 = 2048;
    pub(super) const INHERITED: u32 = 4096;
    pub(super) const INHERITED_SUBTRACTED: u32 = 8192;
    /// What was published last of the own shard was zero, exactly (files of before there was this flag never say so).
    pub(super) const PUBLISHED_ZERO: u32 = 16_384;
    /// What was counted since the start is beside another state than what the own value leaves.
    pub(super) const SINCE_BASE: u32 = 32_768;
    pub(super) const ALL: u32 = 65_535;
}

/// Flags of a peer's shard.
mod peer_flag {
    pub(super) const MOVING: u8 = 1;
    pub(super) const OLDER: u8 = 2;
    pub(super) const TAKEN_OVER: u8 = 4;
    pub(super) const SUBTRACTED: u8 = 8;
    pub(super) const MOVED: u8 = 16;
    pub(super) const ALL: u8 = 31;
}

/// Most starts in a row that crashed before they had published.
const MAX_STARTS: usize = 65_536;

/// The circumstances of writing.
#[derive(Clone, Copy, Debug)]
pub(crate) struct At<'a> {
    pub(crate) now: Micros,
    pub(crate) horizons: &'a Horizons,
    /// This node's.
    pub(crate) incarnation: u32,
}

/// A counter's state as it is kept.
#[derive(Clone, Debug, Default)]
pub(crate) struct State {
    pub(crate) own: Value,
    /// At least those of `own`.
    pub(crate) decimals: u8,
    /// `None`: not set on purpose.
    pub(crate) precision: Option<Precision>,
    pub(crate) seq: Seq,
    pub(crate) generation: Generation,
    pub(crate) record: Option<Record>,
    pub(crate) record_seq: Seq,
    pub(crate) is_unpublished: bool,
    pub(crate) has_published_zero: bool,
    pub(crate) subtracted: Subtractions,
    pub(crate) inheritance: Inheritance,
    /// By incarnation.
    pub(crate) since_start: Option<Vec<(u32, i128)>>,
    /// If that is not beside what the own shard is without it.
    pub(crate) since_base: Option<SinceBase>,
    pub(crate) peers: Vec<PeerShard>,
}

/// The state of an own shard that a peer may still correct, where a SET of this start has restated it since. Its seq is the own one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SinceBase {
    pub(crate) generation: Generation,
    pub(crate) value: Value,
    /// How many of the subtractions were made before.
    pub(crate) subtractions: usize,
    /// What the SET in force has seen of what was counted since.
    pub(crate) seen: Option<Seen>,
}

/// From this node's index of a member to its number on disk; `None` if nobody stands behind the index any more.
pub(crate) trait Number {
    fn number(&mut self, member: MemberIndex) -> Option<u16>;
}

/// And back; `None` if the number stands for nobody.
pub(crate) trait Member {
    fn member(&self, number: u16) -> Option<MemberIndex>;
}

/// Appends a counter's state. `precision` is the one set on purpose.
pub(crate) fn encode(
    counter: &Counter,
    precision: Option<Precision>,
    at: At<'_>,
    numbers: &mut impl Number,
    out: &mut Vec<u8>,
) {
    let own = counter.own();
    let has_decimals = counter.decimals() > own.decimals();
    let mut flags = if has_decimals { flag::DECIMALS } else { 0 };
    let full = counter.full();
    let generation = counter.generation();
    let (record, own_generation) = counter.kept_record();
    if precision.is_some() {
        flags |= flag::PRECISION;
    }
    if let Some((_, is_deletion, observed)) = record {
        flags |= flag::RECORD;
        flags |= if is_deletion { flag::DELETION } else { 0 };
        flags |= if observed.is_empty() { 0 } else { flag::OBSERVED };
    }
    if own_generation != generation {
        flags |= flag::GENERATION;
    }
    let subtracted = counter.kept_subtractions();
    if !subtracted.is_empty() {
        flags |= flag::SUBTRACTED;
    }
    if let Some(full) = full {
        let marks = [
            (full.seq != Seq::ZERO, flag::SEQ),
            (full.record_seq != Seq::ZERO && record.is_some(), flag::RECORD_SEQ),
            (full.is_restated || full.track.is_some(), flag::UNPUBLISHED),
            (full.has_published_zero, flag::PUBLISHED_ZERO),
            (!full.inheritance().is_empty(), flag::INHERITED),
            (full.inheritance().has_subtractions(), flag::INHERITED_SUBTRACTED),
            (full.since_start().is_some(), flag::SINCE_START),
            (full.since_base(own).is_some(), flag::SINCE_BASE),
            (!full.peers().is_empty(), flag::PEERS),
        ];
        flags |= marks.iter().map(|&(has, flag)| if has { flag } else { 0 }).sum::<u32>();
    }
    out.put_u8(VERSION);
    out.put_unsigned(flags.into());
    out.put_value(own);
    if has_decimals {
        out.put_u8(counter.decimals());
    }
    if let Some(precision) = precision {
        out.put_bytes(&precision.text());
    }
    let seq = full.map_or(Seq::ZERO, |full| full.seq);
    if seq != Seq::ZERO {
        out.put_seq(seq);
    }
    if let Some((value, _, observed)) = record {
        out.put_generation(generation);
        out.put_value(value);
        if flags & flag::RECORD_SEQ != 0 {
            out.put_seq(full.expect("only it has this flag").record_seq);
        }
        put_observed(observed, numbers, out);
    }
    if own_generation != generation {
        out.put_generation(own_generation);
    }
    if !subtracted.is_empty() {
        out.put_subtractions(&subtracted);
    }
    let Some(full) = full else { return };
    put_inheritance(full.inheritance(), numbers, out);
    if let Some(since) = full.since_start() {
        let base = full.since_base(own);
        let kept = since.kept(at.incarnation, base.is_some());
        out.put_unsigned(kept.len() as u128);
        for (incarnation, units) in kept {
            out.put_unsigned(incarnation.into());
            out.put_signed(units);
        }
        if let Some(SinceBase { generation, value, subtractions, seen }) = base {
            out.put_generation(generation);
            out.put_value(value);
            out.put_unsigned(subtractions as u128);
            out.put_unsigned(u128::from(seen.is_some()));
            if let Some(Seen { life, left, amount, .. }) = seen {
                out.put_unsigned(if life == Counter::NO_LIFE { at.incarnation } else { life }.into());
                out.put_generation(left);
                out.put_signed(amount);
            }
        }
    }
    if flags & flag::PEERS != 0 {
        out.put_unsigned(full.peers().len() as u128);
        full.peers().iter().for_each(|peer| put_peer(peer, generation, at, numbers, out));
    }
}

/// Nothing at all if there are none.
fn put_observed(observed: &[Observed], numbers: &mut impl Number, out: &mut Vec<u8>) {
    if observed.is_empty() {
        return;
    }
    // What was observed of a node that is gone for good, shards and all, has nothing to be compared with.
    let known: Vec<(u16, &Observed)> =
        observed.iter().filter_map(|observed| Some((numbers.number(observed.member)?, observed))).collect();
    out.put_unsigned(known.len() as u128);
    for (number, observed) in known {
        out.put_unsigned(number.into());
        out.put_generation(observed.generation);
        out.put_seq(observed.seq);
        out.put_value(observed.value);
    }
}

/// Nothing at all if there is nothing.
fn put_inheritance(inheritance: &Inheritance, numbers: &mut impl Number, out: &mut Vec<u8>) {
    if inheritance.is_empty() {
        return;
    }
    // Of a node that is gone for good everywhere, no SET can have seen a shard by itself any more.
    let known: Vec<(u16, &Inherited)> =
        inheritance.iter().filter_map(|part| Some((numbers.number(part.departed.member)?, part))).collect();
    out.put_unsigned(known.len() as u128);
    for (number, part) in &known {
        out.put_unsigned((*number).into());
        out.put_generation(part.departed.generation);
        out.put_seq(part.departed.seq);
        out.put_value(part.departed.value);
        out.put_signed(part.counts);
        out.put_seq(part.told);
    }
    if inheritance.has_subtractions() {
        for (_, part) in known {
            out.put_subtractions(&part.subtracted);
            out.put_subtractions(&part.subtracted_since);
        }
    }
}

fn put_peer(peer: &PeerShard, record: Generation, at: At<'_>, numbers: &mut impl Number, out: &mut Vec<u8>) {
    let generation = peer.generation(record);
    let moving = peer.moving().map_or(0, |_| peer_flag::MOVING);
    let units = peer.moved(at.now, at.horizons) as i128;
    let moved = if units == 0 { 0 } else { peer_flag::MOVED };
    let older = if generation == record { 0 } else { peer_flag::OLDER };
    let taken_over = if peer.taken_over().is_empty() { 0 } else { peer_flag::TAKEN_OVER };
    let subtracted = peer.subtracted().map_or(0, |_| peer_flag::SUBTRACTED);
    out.put_u8(moving | older | taken_over | subtracted | moved);
    let number = numbers.number(peer.member()).expect("an index has its id while a shard has the index");
    out.put_unsigned(number.into());
    out.put_u8(peer.decimals());
    out.put_value(peer.value());
    out.put_seq(peer.seq());
    if let Some(moving) = peer.moving() {
        out.put_signed(moving.precision_units);
    }
    if units != 0 {
        out.put_signed(units);
    }
    if generation != record {
        out.put_generation(generation);
    }
    if let Some(subtracted) = peer.subtracted() {
        out.put_subtractions(subtracted);
    }
    if !peer.taken_over().is_empty() {
        let known: Vec<(u16, Seq)> = (peer.taken_over().iter())
            .filter_map(|taken| Some((numbers.number(taken.member)?, taken.seq)))
            .collect();
        out.put_unsigned(known.len() as u128);
        for (number, seq) in known {
            out.put_unsigned(number.into());
            out.put_seq(seq);
        }
    }
}

/// Reads a state back.
///
/// # Errors
/// The bytes are not a state that this version writes.
pub(crate) fn decode(bytes: &[u8], members: &impl Member) -> Decoded<State> {
    let mut reader = Reader::new(bytes);
    if reader.u8("version of a counter's state")? != VERSION {
        return Err(DecodeError { what: NEWER });
    }
    let flags: u32 = reader.number("flags of a counter's state")?;
    if flags & !flag::ALL != 0 {
        return Err(DecodeError { what: NEWER });
    }
    let has = |flag: u32| flags & flag != 0;
    let own = reader.value("own value")?;
    let mut state = State { own, decimals: own.decimals(), ..State::default() };
    if has(flag::DECIMALS) {
        state.decimals = read_decimals(&mut reader)?.max(state.decimals);
    }
    if has(flag::PRECISION) {
        let text = reader.bytes(MAX_PRECISION_LEN, "precision")?;
        state.precision = Some(Precision::parse(text).ok_or(DecodeError { what: "precision" })?);
    }
    if has(flag::SEQ) {
        state.seq = reader.seq("seq")?;
    }
    if has(flag::RECORD) {
        let (generation, value) = (reader.generation("record")?, reader.value("record")?);
        if has(flag::RECORD_SEQ) {
            state.record_seq = reader.seq("record's seq")?;
        }
        let observed = if has(flag::OBSERVED) { read_observed(&mut reader, members)? } else { Vec::new() };
        state.generation = generation;
        state.record = Some(Record { generation, value, is_deletion: has(flag::DELETION), observed });
    }
    if has(flag::GENERATION) {
        state.generation = reader.generation("own generation")?;
    }
    if has(flag::SUBTRACTED) {
        state.subtracted = reader.subtractions(MAX_SUBTRACTIONS)?;
    }
    if has(flag::INHERITED) {
        state.inheritance = read_inheritance(&mut reader, members, has(flag::INHERITED_SUBTRACTED))?;
    }
    if has(flag::SINCE_START) {
        let mut since = Vec::new();
        for _ in 0..read_count(&mut reader, MAX_STARTS, "counted since the start")? {
            let incarnation = reader.number("counted since the start")?;
            since.push((incarnation, reader.signed("counted since the start")?));
        }
        state.since_start = Some(since);
    }
    if has(flag::SINCE_BASE) {
        state.since_base = Some(SinceBase {
            generation: reader.generation("what was counted on")?,
            value: reader.value("what was counted on")?,
            subtractions: read_count(&mut reader, state.subtracted.0.len(), "subtractions before")?,
            seen: match read_count(&mut reader, 1, "what a SET has seen")? {
                0 => None,
                _ => {
                    let life = reader.number("what a SET has seen")?;
                    let left = reader.generation("what a SET has seen")?;
                    Some(Seen::new(life, left, reader.signed("what a SET has seen")?))
                }
            },
        });
    }
    if has(flag::PEERS) {
        for _ in 0..read_count(&mut reader, MAX_MEMBERS, "peers' shards")? {
            state.peers.push(read_peer(&mut reader, state.record.as_ref(), members)?);
        }
    }
    state.is_unpublished = has(flag::UNPUBLISHED);
    state.has_published_zero = has(flag::PUBLISHED_ZERO);
    reader.end()?;
    Ok(state)
}

/// What is said of bytes with a version or a flag that is not known here.
pub(crate) const NEWER: &str = "a state written by a later version of the server";

/// Longest text of a precision: sign, 21 digits, point, 17 decimals, percent sign, with room to spare.
const MAX_PRECISION_LEN: usize = 64;

fn read_decimals(reader: &mut Reader<'_>) -> Decoded<u8> {
    let decimals = reader.u8("decimals")?;
    if decimals > Value::DECIMALS { Err(DecodeError { what: "decimals" }) } else { Ok(decimals) }
}

fn read_count(reader: &mut Reader<'_>, max: usize, what: &'static str) -> Decoded<usize> {
    let count: usize = reader.number(what)?;
    if count > max { Err(DecodeError { what }) } else { Ok(count) }
}

fn read_member(reader: &mut Reader<'_>, members: &impl Member) -> Decoded<MemberIndex> {
    let what = "node";
    members
        .member(reader.number(what)?)
        .ok_or(DecodeError { what: "a node that is not in the table of nodes" })
}

fn read_observed(reader: &mut Reader<'_>, members: &impl Member) -> Decoded<Vec<Observed>> {
    let mut observed = Vec::new();
    for _ in 0..read_count(reader, MAX_MEMBERS, "observations")? {
        observed.push(Observed {
            member: read_member(reader, members)?,
            generation: reader.generation("observation")?,
            seq: reader.seq("observation")?,
            value: reader.value("observation")?,
        });
    }
    Ok(observed)
}

fn read_peer(reader: &mut Reader<'_>, record: Option<&Record>, members: &impl Member) -> Decoded<PeerShard> {
    let flags = reader.u8("flags of a peer's shard")?;
    if flags & !peer_flag::ALL != 0 {
        return Err(DecodeError { what: NEWER });
    }
    let member = read_member(reader, members)?;
    let decimals = read_decimals(reader)?;
    let (value, seq) = (reader.value("value of a peer's shard")?, reader.seq("seq of a peer's shard")?);
    let precision = match flags & peer_flag::MOVING {
        0 => None,
        _ => Some(reader.signed("precision of a peer's shard")?),
    };
    let moved = match flags & peer_flag::MOVED {
        0 => 0.0,
        _ => reader.signed("how far a peer's shard had moved")? as f64,
    };
    let moving = precision.map(|precision| Moving::unanchored(moved, precision));
    let generation = match flags & peer_flag::OLDER {
        0 => record.map_or(Generation::ZERO, |record| record.generation),
        _ => reader.generation("generation of a peer's shard")?,
    };
    let mut basis = Basis::from(generation);
    if flags & peer_flag::SUBTRACTED != 0 {
        basis.subtracted = reader.subtractions(MAX_SUBTRACTIONS)?;
    }
    let mut taken_over = Vec::new();
    if flags & peer_flag::TAKEN_OVER != 0 {
        for _ in 0..read_count(reader, MAX_MEMBERS, "taken over")? {
            let member = read_member(reader, members)?;
            taken_over.push(TakenOver { member, seq: reader.seq("taken over")? });
        }
    }
    let mut peer = PeerShard::new(member, seq, value, decimals, moving, taken_over);
    peer.base_on(basis, record);
    Ok(peer)
}

fn read_inheritance(
    reader: &mut Reader<'_>,
    members: &impl Member,
    has_subtractions: bool,
) -> Decoded<Inheritance> {
    let mut parts = Vec::new();
    for _ in 0..read_count(reader, MAX_MEMBERS, "inherited")? {
        let departed = Stated {
            member: read_member(reader, members)?,
            generation: reader.generation("inherited")?,
            seq: reader.seq("inherited")?,
            value: reader.value("inherited")?,
        };
        let (counts, told) = (reader.signed("inherited")?, reader.seq("inherited")?);
        let (subtracted, subtracted_since) = Default::default();
        parts.push(Inherited { departed, subtracted, counts, subtracted_since, told });
    }
    if has_subtractions {
        for part in &mut parts {
            part.subtracted = reader.subtractions(MAX_SUBTRACTIONS)?;
            part.subtracted_since = reader.subtractions(MAX_SUBTRACTIONS)?;
        }
    }
    Ok(parts.into_iter().collect())
}

#[cfg(test)]
mod tests;
