//! A small counter cluster that is right by being dull: every node repeats all that it knows until all know the same.
//!
//! It serves to test the world and the judge: they must find nothing wrong with it, and each bug that is planted in it.
//! It follows the executable model of SET as a generation; no predictions, no crashes, no disappearing counters.

use crate::process::{Abilities, CounterState, Epoch, Generation, Process, Program, Seq, ShardState, Start};
use engine::NodeId;
use engine::cluster::{ClusterRequest, Effect, Input, LinkId};
use engine::time::{Micros, Now};
use engine::value::Value;
use resp::Reply;
use std::collections::BTreeMap;
use std::net::SocketAddr;

const BEAT: Micros = Micros::from_millis(400);
const LINK_TIMEOUT: Micros = Micros::from_secs(2);

/// A bug to be found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Bug {
    None,
    /// A stale copy replaces a later one.
    MergeWithoutSeqCheck,
    /// What others say of our shard is believed.
    PeerMovesOwnShard,
    /// Two SETs add up.
    SetsSum,
    /// An increment is now and then told to one link only.
    Forgetful,
}

pub(crate) struct Toy(pub(crate) Bug);

impl Program for Toy {
    fn start(&self, start: Start) -> Box<dyn Process> {
        let bus = SocketAddr::new(start.addr.ip(), start.addr.port() + engine::settings::BUS_PORT_OFFSET);
        Box::new(Node {
            bug: self.0,
            id: start.id,
            members: BTreeMap::from([(start.id, bus)]),
            counters: BTreeMap::new(),
            links: BTreeMap::new(),
            effects: Vec::new(),
            next_link: 0,
            next_beat: start.now.monotonic,
            n: 0,
            is_dirty: false,
        })
    }

    fn abilities(&self) -> Abilities {
        Abilities {
            has_bound: false,
            has_disk: false,
            has_recovery: false,
            has_forget: false,
            has_reset: false,
            has_zeros: false,
        }
    }
}

#[derive(Clone, Debug, Default, PartialEq)]
struct Counter {
    generation: Generation,
    value: Value,
    observed: BTreeMap<NodeId, ShardState>,
    shards: BTreeMap<NodeId, ShardState>,
    subtracted: Vec<(Generation, i128)>,
}

struct Link {
    member: Option<NodeId>,
    heard: Micros,
    is_up: bool,
}

struct Node {
    bug: Bug,
    id: NodeId,
    members: BTreeMap<NodeId, SocketAddr>,
    counters: BTreeMap<Vec<u8>, Counter>,
    links: BTreeMap<LinkId, Link>,
    effects: Vec<Effect>,
    next_link: u64,
    next_beat: Micros,
    n: u64,
    is_dirty: bool,
}

fn sum(values: impl Iterator<Item = i128>) -> Value {
    Value::saturating_from_units(values.sum())
}

impl Counter {
    fn counts(&self, id: NodeId, shard: &ShardState) -> i128 {
        match self.observed.get(&id) {
            _ if shard.generation == self.generation => shard.value.units(),
            None => shard.value.units(),
            Some(seen) if shard.seq <= seen.seq => 0,
            Some(seen) if seen.generation == shard.generation => shard.value.units() - seen.value.units(),
            Some(_) => shard.value.units(),
        }
    }

    fn total(&self) -> Value {
        sum(self.shards.iter().map(|(&id, shard)| self.counts(id, shard)).chain([self.value.units()]))
    }

    fn own(&mut self, id: NodeId) -> &mut ShardState {
        let generation = self.generation;
        self.shards.entry(id).or_insert(ShardState { generation, seq: (0, 0), value: Value::ZERO })
    }

    /// Takes another's SET if it is above ours; restates the own shard.
    fn learn(&mut self, me: NodeId, next: Seq, other: &Counter) -> bool {
        if other.generation <= self.generation {
            return false;
        }
        (self.generation, self.value) = (other.generation, other.value);
        self.observed = other.observed.clone();
        let Some(own) = self.shards.get_mut(&me) else { return true };
        let left =
            |from: Generation| self.subtracted.iter().filter(move |(g, _)| *g >= from).map(|(_, a)| *a);
        let amount = match self.observed.get(&me) {
            None => -left(None).sum::<i128>(),
            Some(seen) => seen.value.units() - left(seen.generation).sum::<i128>(),
        };
        self.subtracted.push((own.generation, amount));
        let value = Value::saturating_from_units(own.value.units() - amount);
        *own = ShardState { generation: self.generation, seq: next, value };
        true
    }
}

impl Node {
    fn next_seq(&mut self) -> Seq {
        self.n += 1;
        (1, self.n)
    }

    fn add(&mut self, name: &[u8], amount: Value) -> Value {
        let (seq, id) = (self.next_seq(), self.id);
        let counter = self.counters.entry(name.to_vec()).or_default();
        let own = counter.own(id);
        own.value = Value::saturating_from_units(own.value.units() + amount.units());
        own.seq = seq;
        self.is_dirty = true;
        self.counters[name].total()
    }

    fn set(&mut self, name: &[u8], value: Value) {
        let (seq, id) = (self.next_seq(), self.id);
        let counter = self.counters.entry(name.to_vec()).or_default();
        let mut other = Counter { value, observed: counter.observed.clone(), ..Counter::default() };
        other.generation = Some((counter.generation.map_or(1, |(clock, _)| clock + 1), id.author(0)));
        for (&id, shard) in &counter.shards {
            if other.observed.get(&id).is_none_or(|seen| shard.seq >= seen.seq) {
                other.observed.insert(id, *shard);
            }
        }
        counter.learn(id, seq, &other);
        self.is_dirty = true;
    }

    fn merge(&mut self, name: &[u8], other: Counter) {
        let (seq, id, bug) = (self.next_seq(), self.id, self.bug);
        let counter = self.counters.entry(name.to_vec()).or_default();
        let before = counter.clone();
        if counter.learn(id, seq, &other) && bug == Bug::SetsSum && before.generation.is_some() {
            counter.value = Value::saturating_from_units(counter.value.units() + before.value.units());
        }
        for (from, shard) in other.shards {
            let known = counter.shards.get(&from).map(|known| known.seq);
            let is_believed = match bug {
                Bug::MergeWithoutSeqCheck => from != id,
                Bug::PeerMovesOwnShard => known < Some(shard.seq) || from == id,
                Bug::None | Bug::SetsSum | Bug::Forgetful => from != id && known < Some(shard.seq),
            };
            if is_believed {
                counter.shards.insert(from, shard);
            }
        }
        self.is_dirty |= before != *counter;
    }

    fn send_all(&mut self, state: bool) {
        let mut frame = vec![u8::from(state)];
        put_id(&mut frame, self.id);
        frame.push(self.members.len() as u8);
        for (&id, addr) in &self.members {
            put_id(&mut frame, id);
            put_text(&mut frame, addr.to_string().as_bytes());
        }
        let body: Vec<u8> = self.counters.iter().flat_map(|(name, counter)| encode(name, counter)).collect();
        match state {
            true => frame.extend(body),
            false => frame.extend(hash(&body).to_le_bytes()),
        }
        let up = self.links.iter().filter(|(_, link)| link.is_up);
        let skip = usize::from(self.bug == Bug::Forgetful && state && self.n.is_multiple_of(5));
        self.effects.extend(up.skip(skip).map(|(&link, _)| Effect::Send { link, frame: frame.clone() }));
    }

    fn receive(&mut self, link: LinkId, frame: &[u8], now: Micros) {
        let mut rest = &frame[1..];
        let from = take_id(&mut rest);
        if let Some(link) = self.links.get_mut(&link) {
            (link.member, link.heard) = (Some(from), now);
        }
        for _ in 0..take(&mut rest, 1)[0] {
            let id = take_id(&mut rest);
            let addr = String::from_utf8_lossy(take_text(&mut rest)).parse().unwrap();
            if self.members.insert(id, addr).is_none() {
                self.is_dirty = true;
            }
        }
        if frame[0] == 1 {
            while !rest.is_empty() {
                let (name, counter) = decode(&mut rest);
                self.merge(&name, counter);
            }
        } else if self.bug != Bug::Forgetful {
            let body: Vec<u8> =
                self.counters.iter().flat_map(|(name, counter)| encode(name, counter)).collect();
            self.is_dirty |= hash(&body).to_le_bytes() != rest;
        }
    }

    fn dial(&mut self, to: SocketAddr, now: Micros) -> LinkId {
        let link = self.new_link();
        self.links.insert(link, Link { member: None, heard: now, is_up: false });
        self.effects.push(Effect::Dial { link, to });
        link
    }

    fn beat(&mut self, now: Micros) {
        self.next_beat = now + BEAT;
        let stale: Vec<LinkId> =
            self.links.iter().filter(|(_, l)| now.since(l.heard) > LINK_TIMEOUT).map(|(&id, _)| id).collect();
        for link in stale {
            self.links.remove(&link);
            self.effects.push(Effect::Close { link });
        }
        for (id, addr) in self.members.clone() {
            if id > self.id && !self.links.values().any(|link| link.member == Some(id)) {
                let link = self.dial(addr, now);
                self.links.get_mut(&link).unwrap().member = Some(id);
            }
        }
        self.send_all(false);
    }
}

impl Process for Node {
    fn id(&self) -> NodeId {
        self.id
    }

    fn execute(&mut self, words: &[&[u8]], _now: Now) -> Reply {
        let bulk = |value: Value| Reply::Bulk(value.to_string().into_bytes());
        let total = |name: &[u8]| self.counters.get(name).map_or(Value::ZERO, Counter::total);
        match (words[0], words.len()) {
            (b"GET", _) => bulk(total(words[1])),
            (b"INCRBY", _) => bulk(self.add(words[1], Value::parse(words[2]).unwrap())),
            (b"SET", _) => {
                self.set(words[1], Value::parse(words[2]).unwrap());
                bulk(Value::parse(words[2]).unwrap())
            }
            (b"DEL", _) => {
                self.set(words[1], Value::ZERO);
                Reply::Integer(1)
            }
            (b"EXISTS", _) => {
                let is_there = |name: &&&[u8]| self.counters.get(**name).is_some_and(|c| !c.is_nothing());
                Reply::Integer(words[1..].iter().filter(is_there).count() as i64)
            }
            (b"DBSIZE", _) => {
                Reply::Integer(self.counters.values().filter(|c| !c.is_nothing()).count() as i64)
            }
            _ => Reply::Null,
        }
    }

    fn handle(&mut self, input: Input<'_>, now: Now) {
        let now = now.monotonic;
        match input {
            Input::Dialed { link } | Input::Accepted { link, .. } => {
                let member = self.links.get(&link).and_then(|link| link.member);
                self.links.insert(link, Link { member, heard: now, is_up: true });
                self.is_dirty = true;
            }
            Input::Received { link, frame } => self.receive(link, frame, now),
            Input::Closed { link, .. } => drop(self.links.remove(&link)),
            Input::Sent { .. } => {}
            Input::Timer => {
                if std::mem::take(&mut self.is_dirty) {
                    self.send_all(true);
                }
                if now >= self.next_beat {
                    self.beat(now);
                }
            }
        }
    }

    fn pop_effect(&mut self) -> Option<Effect> {
        (!self.effects.is_empty()).then(|| self.effects.remove(0))
    }

    fn deadline(&self) -> Micros {
        if self.is_dirty { Micros(0) } else { self.next_beat }
    }

    fn new_link(&mut self) -> LinkId {
        self.next_link += 1;
        LinkId(self.next_link)
    }

    fn request(&mut self, request: ClusterRequest, now: Now) -> Result<(), String> {
        if let ClusterRequest::Meet { bus, .. } = request {
            self.dial(bus, now.monotonic);
        }
        Ok(())
    }

    fn inspect(&self, name: &[u8], _now: Now) -> CounterState {
        let Some(counter) = self.counters.get(name) else { return CounterState::default() };
        let mut peers = counter.shards.clone();
        CounterState {
            generation: counter.generation,
            set_value: counter.value,
            observed: counter.observed.clone(),
            own: peers.remove(&self.id),
            peers,
            // What it tells of a shard is exact.
            slacks: BTreeMap::new(),
        }
    }

    fn members(&self) -> Vec<NodeId> {
        self.members.keys().copied().collect()
    }

    fn is_acquainted(&self) -> bool {
        true
    }

    fn reset_epoch(&self) -> Epoch {
        (0, 0)
    }

    fn image(&self, _now: Now) -> Option<Vec<u8>> {
        None
    }

    fn sizes(&self) -> Vec<(&'static str, usize)> {
        vec![("counters", self.counters.len()), ("links", self.links.len())]
    }
}

impl Counter {
    fn is_nothing(&self) -> bool {
        self.value.is_zero() && self.shards.iter().all(|(&id, shard)| self.counts(id, shard) == 0)
    }
}

fn hash(bytes: &[u8]) -> u64 {
    bytes.iter().fold(7, |hash: u64, &byte| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3))
}

fn put_id(out: &mut Vec<u8>, id: NodeId) {
    out.extend(id.0);
}

fn put_text(out: &mut Vec<u8>, text: &[u8]) {
    out.push(text.len() as u8);
    out.extend(text);
}

fn put_generation(out: &mut Vec<u8>, generation: Generation) {
    let (clock, author) = generation.unwrap_or_default();
    out.extend(clock.to_le_bytes());
    out.extend(author.to_le_bytes());
}

fn put_shards(out: &mut Vec<u8>, shards: &BTreeMap<NodeId, ShardState>) {
    out.push(shards.len() as u8);
    for (&id, shard) in shards {
        put_id(out, id);
        put_generation(out, shard.generation);
        out.extend(shard.seq.1.to_le_bytes());
        out.extend(shard.value.units().to_le_bytes());
    }
}

fn encode(name: &[u8], counter: &Counter) -> Vec<u8> {
    let mut out = Vec::new();
    put_text(&mut out, name);
    put_generation(&mut out, counter.generation);
    out.extend(counter.value.units().to_le_bytes());
    put_shards(&mut out, &counter.observed);
    put_shards(&mut out, &counter.shards);
    out
}

fn take<'a>(rest: &mut &'a [u8], len: usize) -> &'a [u8] {
    let (head, tail) = rest.split_at(len);
    *rest = tail;
    head
}

fn take_id(rest: &mut &[u8]) -> NodeId {
    NodeId(take(rest, 20).try_into().unwrap())
}

fn take_text<'a>(rest: &mut &'a [u8]) -> &'a [u8] {
    let len = take(rest, 1)[0];
    take(rest, usize::from(len))
}

fn take_generation(rest: &mut &[u8]) -> Generation {
    let clock = u64::from_le_bytes(take(rest, 8).try_into().unwrap());
    let author = u64::from_le_bytes(take(rest, 8).try_into().unwrap());
    (clock > 0).then_some((clock, author))
}

fn take_value(rest: &mut &[u8]) -> Value {
    Value::saturating_from_units(i128::from_le_bytes(take(rest, 16).try_into().unwrap()))
}

fn take_shards(rest: &mut &[u8]) -> BTreeMap<NodeId, ShardState> {
    (0..take(rest, 1)[0])
        .map(|_| {
            let (id, generation) = (take_id(rest), take_generation(rest));
            let seq = (1, u64::from_le_bytes(take(rest, 8).try_into().unwrap()));
            (id, ShardState { generation, seq, value: take_value(rest) })
        })
        .collect()
}

fn decode(rest: &mut &[u8]) -> (Vec<u8>, Counter) {
    let name = take_text(rest).to_vec();
    let (generation, value) = (take_generation(rest), take_value(rest));
    let (observed, shards) = (take_shards(rest), take_shards(rest));
    (name, Counter { generation, value, observed, shards, subtracted: Vec::new() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::Plan;
    use crate::run::{Report, run};
    use crate::trace::Trace;
    use std::collections::BTreeSet;

    /// A seed with few counters: the toy repeats everything again and again.
    fn run_small(bug: Bug, seed: u64) -> Report {
        let plan = Plan::new(seed, Toy(bug).abilities());
        let plan = Plan { counters: plan.counters.min(6), ..plan };
        run(&Toy(bug), &plan, Trace::silent())
    }

    #[test]
    fn the_judge_finds_nothing_wrong_with_a_right_cluster() {
        for seed in 0..60 {
            let report = run_small(Bug::None, seed);
            assert!(report.violations.is_empty(), "seed {seed}: {} {:?}", report.plan, report.violations);
        }
    }

    #[test]
    fn the_judge_finds_every_planted_bug() {
        for bug in [Bug::MergeWithoutSeqCheck, Bug::PeerMovesOwnShard, Bug::SetsSum, Bug::Forgetful] {
            let is_found = |seed| !run_small(bug, seed).violations.is_empty();
            assert!((0..40).any(is_found), "{bug:?}");
        }
    }

    #[test]
    fn a_seed_is_the_same_run_every_time() {
        let hashes: Vec<u64> = (0..5).map(|seed| run_small(Bug::None, seed).hash).collect();
        let again: Vec<u64> = (0..5).map(|seed| run_small(Bug::None, seed).hash).collect();
        assert_eq!(hashes, again);
        assert_eq!(
            hashes.into_iter().collect::<BTreeSet<_>>().len(),
            5,
            "different seeds are different runs"
        );
    }
}
