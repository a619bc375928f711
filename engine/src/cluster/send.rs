//! Streams out over links: from the ring, or by a walk over all counters for a peer that is far behind.

use crate::cluster::link::{Link, MAX_QUEUED, Outgoing, Walk};
use crate::cluster::publish::published_line;
use crate::cluster::stream::Stream;
use crate::cluster::updates::{Era, FullCopy, Header, MovingLine, NameRef, Previous, Update};
use crate::cluster::{Cluster, Effect, LENGTH_PREFIX, LinkId, Peer};
use crate::counter::Counter;
use crate::generation::{Record, Subtractions};
use crate::ids::{Generation, MemberIndex, Seq};
use crate::keyspace::Handle;
use crate::shard::Excursion;
use crate::takeover::TakenOver;
use crate::time::Micros;
use crate::value::Value;

/// A frame of updates is closed when it is as long as this; it may be one update longer.
const FRAME_LEN: usize = 32 * 1024;

/// Entries of a ring that one frame passes over at most.
const FRAME_ENTRIES: usize = 2_048;

/// Counters that a walk looks at before other links get their turn.
const WALK_STEP: u64 = 512;

/// Frames of updates under construction.
struct Frames {
    header: Header,
    previous: Previous,
    frame: Vec<u8>,
    updates: u64,
    done: Vec<Vec<u8>>,
}

impl Frames {
    fn new(header: Header) -> Frames {
        let mut frame = Vec::new();
        header.encode(&mut frame);
        Frames { header, previous: Previous::of(&header), frame, updates: 0, done: Vec::new() }
    }

    fn push(&mut self, update: &Update<'_>) {
        update.encode(&mut self.previous, &mut self.frame);
        self.updates += 1;
    }

    /// Begins another frame if this one is long enough.
    fn split(&mut self) {
        if self.frame.len() >= FRAME_LEN {
            let mut next = Vec::new();
            self.header.full_copy.begins = false;
            self.header.encode(&mut next);
            self.previous = Previous::of(&self.header);
            self.done.push(std::mem::replace(&mut self.frame, next));
        }
    }
}

impl Cluster {
    /// Whether something could be sent on a link at once.
    pub(super) fn has_work(&self, link: &Link) -> bool {
        if !is_ready(link) || link.is_behind(self.now.monotonic) && !self.is_leaving {
            return false;
        }
        link.outgoing.iter().any(|(origin, out)| {
            out.walk.is_some() || self.stream_of(*origin).is_some_and(|stream| out.position < stream.head())
        })
    }

    /// Of this member's shards, what is here though not everything before it is; zero: nothing.
    pub(super) fn told_ahead(&self, origin: MemberIndex) -> Seq {
        self.peers.get(&origin).map_or(Seq::ZERO, Peer::told_ahead)
    }

    fn stream_of(&self, origin: MemberIndex) -> Option<&Stream> {
        match origin {
            // What is published for the first time while a walk is under way would be sent twice.
            MemberIndex::SELF => Some(&self.publisher.stream)
                .filter(|_| self.recovery.is_none() && !self.publisher.is_publishing_all()),
            peer => self.peers.get(&peer).map(|peer| &peer.stream),
        }
    }

    /// Sends what there is, as far as the links take it.
    pub(super) fn pump_all(&mut self) {
        let ready: Vec<LinkId> =
            self.links.values().filter(|link| self.has_work(link)).map(|link| link.id).collect();
        for id in ready {
            self.refresh_members(id);
            let Some(mut link) = self.links.remove(&id) else { continue };
            let origins: Vec<MemberIndex> = link.outgoing.keys().copied().collect();
            for origin in origins {
                self.pump(&mut link, origin);
            }
            self.links.insert(id, link);
        }
    }

    /// Sends a frame or a few of one stream.
    fn pump(&mut self, link: &mut Link, origin: MemberIndex) {
        let (Some(&out), Some(stream)) = (link.outgoing.get(&origin), self.stream_of(origin)) else { return };
        if out.walk.is_some() {
            self.pump_walk(link, origin, out);
        } else if out.position >= stream.head() {
        } else if out.position != Seq::ZERO && stream.covers(out.position) {
            self.pump_ring(link, origin, out);
        } else {
            let walk = Walk::begin(stream, self.told_ahead(origin), out.position);
            link.outgoing.insert(origin, Outgoing { walk: Some(walk), ..out });
            self.pump_walk(link, origin, Outgoing { walk: Some(walk), ..out });
        }
    }

    fn pump_ring(&mut self, link: &mut Link, origin: MemberIndex, out: Outgoing) {
        let (now, position) = (self.now.monotonic, out.position);
        let Some(stream) = self.stream_of(origin) else { return };
        let head = stream.head();
        let entries: Vec<(Seq, Handle)> = stream.behind(position).take(FRAME_ENTRIES).collect();
        let mut to =
            if entries.len() < FRAME_ENTRIES { head } else { entries.last().map_or(head, |(seq, _)| *seq) };
        let mut header = Header {
            origin,
            stamp: now,
            from: position,
            to,
            ahead: Seq::ZERO,
            is_complete: true,
            is_after_walk: false,
            as_of_age: None,
            full_copy: FullCopy::default(),
        };
        let mut updates = Vec::new();
        let mut len = 0;
        let mut has_gaps = out.has_gaps;
        for &(seq, handle) in &entries {
            let needs_record = |record_seq: Seq| record_seq > position;
            self.node.keyspace.with_at(handle, |counter| {
                let state = state_of(counter, origin, now, needs_record);
                has_gaps |= state.as_ref().is_some_and(|state| state.seq != seq);
                // What this entry told first is not told by the later one that has replaced it, once the peer is past here.
                let is_untold = |state: &State| {
                    let is_first = origin == MemberIndex::SELF && matches!(state.era, Era::Is(_));
                    is_first && state.seq > seq && updates.iter().all(|(other, _)| *other != handle)
                };
                if let Some(state) = state
                    && (state.seq == seq || is_untold(&state))
                {
                    len += state.name.len()
                        + 24
                        + state.record.as_ref().map_or(0, |r| 64 + r.observed.len() * 64);
                    updates.push((handle, state));
                }
            });
            if len >= FRAME_LEN {
                to = seq;
                break;
            }
        }
        header.to = to;
        if origin == MemberIndex::SELF && to == head {
            header.as_of_age = Some(now.since(self.publisher.as_of(&self.node.keyspace, now)));
        }
        let mut frames = Frames::new(header);
        for (handle, state) in &mut updates {
            if has_gaps {
                state.excursion = state.excursion.over_a_gap();
            }
            let name = link.names_out.refer(*handle, &state.name);
            frames.push(&state.update(name, now));
        }
        let has_gaps = has_gaps && to != head;
        link.outgoing.insert(origin, Outgoing { position: to, has_gaps, walk: None });
        self.post(link, frames);
    }

    fn pump_walk(&mut self, link: &mut Link, origin: MemberIndex, out: Outgoing) {
        let now = self.now.monotonic;
        let Some(mut walk) = out.walk else { return };
        let is_handed_back = link.member() == Some(origin);
        // Who lacks what a former life has counted can't say that what is not here was removed.
        let is_whole = !is_handed_back || self.peers.get(&origin).is_some_and(Peer::is_whole);
        let is_full_copy = walk.from == Seq::ZERO && is_whole;
        let mut header = Header {
            origin,
            stamp: now,
            from: walk.from,
            to: walk.target,
            ahead: walk.ahead,
            is_complete: false,
            is_after_walk: false,
            as_of_age: None,
            full_copy: FullCopy { begins: is_full_copy && walk.is_first_frame, ends: false },
        };
        let mut frames = Frames::new(header);
        walk.is_first_frame = false;
        let keyspace = std::sync::Arc::clone(&self.node);
        let given_up = self.peers.get(&origin).filter(|_| is_handed_back).map(|peer| peer.given_up);
        walk.cursor = keyspace.keyspace.walk_all(walk.cursor, WALK_STEP, |handle, counter| {
            if let Some(mut state) = state_of(counter, origin, now, |_| true)
                && state.seq > walk.from
            {
                if let Era::Is(generation) = state.era
                    && given_up.is_some_and(|given_up| state.seq <= given_up)
                {
                    state.subtracted = Subtractions::given_up(generation);
                }
                frames.push(&state.update(link.names_out.refer_once(handle, &state.name), now));
                frames.split();
            }
        });
        if walk.cursor != 0 {
            link.outgoing.insert(origin, Outgoing { walk: Some(walk), ..out });
            if frames.updates > 0 || frames.header.full_copy.begins {
                self.post(link, frames);
            }
            return;
        }
        self.post(link, frames);
        (header.is_complete, header.is_after_walk) = (true, true);
        header.full_copy = FullCopy { begins: false, ends: is_full_copy };
        self.post(link, Frames::new(header));
        link.outgoing.insert(origin, Outgoing { position: walk.target, has_gaps: false, walk: None });
    }

    fn post(&mut self, link: &mut Link, frames: Frames) {
        link.carried.updates_sent += frames.updates;
        for frame in frames.done.into_iter().chain(std::iter::once(frames.frame)) {
            link.queued += frame.len();
            link.carried.bytes_sent += frame.len() as u64 + LENGTH_PREFIX;
            self.traffic.messages_sent += 1;
            self.effects.push_back(Effect::Send { link: link.id, frame });
        }
    }
}

/// Whether updates may be sent on a link now.
fn is_ready(link: &Link) -> bool {
    link.member().is_some() && link.has_echoed && link.is_same_epoch && link.queued < MAX_QUEUED
}

/// A shard's state, taken out from under its stripe's lock.
struct State {
    name: Vec<u8>,
    seq: Seq,
    value: Value,
    decimals: u8,
    excursion: Excursion,
    subtracted: Subtractions,
    /// Slope, moment, error, precision.
    moving: Option<(f32, Micros, Micros, Value)>,
    era: Era,
    record: Option<Record>,
    /// Members in it are our indices.
    taken_over: Vec<TakenOver>,
}

impl State {
    fn update<'a>(&'a self, name: NameRef<'a>, stamp: Micros) -> Update<'a> {
        Update {
            name,
            seq: self.seq,
            value: self.value,
            decimals: self.decimals,
            excursion: self.excursion,
            subtracted: self.subtracted.clone(),
            moving: self.moving.map(|(slope, moment, error, precision)| MovingLine {
                slope,
                age: stamp.0.wrapping_sub(moment.0) as i64,
                error,
                precision,
            }),
            era: self.era,
            record: self.record.clone(),
            taken_over: self.taken_over.clone(),
        }
    }
}

/// The state of a counter's shard of this owner as it was published; `None`: there is none.
fn state_of(
    counter: &Counter,
    origin: MemberIndex,
    now: Micros,
    needs_record: impl Fn(Seq) -> bool,
) -> Option<State> {
    let full = counter.full()?;
    let record = full.record();
    let record_generation = record.map_or(Generation::ZERO, |record| record.generation);
    let era_of = |generation: Generation| match generation.is_zero() {
        true => Era::Zero,
        false => Era::Is(generation),
    };
    if origin == MemberIndex::SELF {
        if full.seq == Seq::ZERO {
            return None;
        }
        let is_told = !needs_record(full.record_seq.max(full.told_again));
        let (line, precision) = published_line(counter, now);
        let moving = precision
            .map(|units| (line.slope as f32, line.moment, Micros(0), Value::saturating_from_units(units)));
        let generation = full.generation();
        return Some(State {
            name: counter.name().to_vec(),
            seq: full.seq,
            value: line.anchor,
            decimals: counter.decimals().max(line.anchor.decimals()),
            excursion: full.excursion,
            subtracted: if is_told { None } else { full.told_subtractions() }.unwrap_or_default(),
            moving,
            era: if is_told && !generation.is_zero() { Era::AsBefore } else { era_of(generation) },
            record: record.filter(|_| !is_told).cloned(),
            taken_over: full.inheritance().tags(),
        });
    }
    let shard = full.peers().iter().find(|shard| shard.member() == origin)?;
    let moving = shard.moving().map(|moving| {
        let precision = Value::saturating_from_units(moving.precision_units);
        (moving.slope as f32, moving.moment, moving.moment_error, precision)
    });
    Some(State {
        name: counter.name().to_vec(),
        seq: shard.seq(),
        value: shard.value(),
        decimals: shard.decimals().max(shard.value().decimals()),
        excursion: shard.excursion(),
        subtracted: shard.subtracted().cloned().unwrap_or_default(),
        moving,
        era: era_of(shard.generation(record_generation)),
        record: record.cloned(),
        taken_over: shard.taken_over().to_vec(),
    })
}
