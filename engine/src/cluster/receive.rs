//! Frames in: what each kind does, and updates merged into shards.
//!
//! Invariants: only the owner's own link, or a link that we have asked for it, moves a peer's shard; nothing moves an own
//! shard but what we have asked for after a start. Whatever a peer sends, a number of it is checked before it is used.

use crate::cluster::clock::Local;
use crate::cluster::frame::kind;
use crate::cluster::link::Link;
use crate::cluster::updates::{Era, Header, Previous, Update, decode_update};
use crate::cluster::wire::{DecodeError, Decoded, Reader};
use crate::cluster::{Cluster, FOLLOW, LENGTH_PREFIX, LinkId, Planted};
use crate::counter::{Counter, KeptCopy};
use crate::generation::{Record, Stated};
use crate::ids::{Generation, MemberIndex, Seq};
use crate::keyspace::{Cause, Handle, HandleSet, NoRoom};
use crate::shard::{Basis, Merged, Moving, PeerShard};
use crate::takeover::TakenOver;
use crate::time::Micros;
use crate::value::Value;

/// Updates of a frame that are looked at together: the memory of all their counters is fetched at once.
const LOOK_AHEAD: usize = 16;

/// What became of an update.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Applied {
    Advanced,
    Known,
    /// It refers to a copy that is not here.
    Unintelligible,
}

/// An update that is not applied; the counter is not made for it.
enum Dropped {
    Stale,
    Unintelligible,
}

impl From<NoRoom> for Dropped {
    fn from(_: NoRoom) -> Dropped {
        Dropped::Stale
    }
}

impl Cluster {
    /// A frame has arrived.
    pub(super) fn receive(&mut self, id: LinkId, frame: &[u8]) {
        self.traffic.messages_received += 1;
        let now = self.now.monotonic;
        let Some(link) = self.links.get_mut(&id) else { return };
        link.last_received = now;
        link.carried.bytes_received += frame.len() as u64 + LENGTH_PREFIX;
        let is_established = link.member().is_some();
        let mut reader = Reader::new(frame);
        let result = match (reader.u8("kind"), is_established) {
            (Ok(kind::HELLO), false) => self.receive_hello(id, &mut reader),
            (Ok(kind::REFUSAL), _) => self.receive_refusal(id, &mut reader),
            (Ok(kind::MEMBERS), true) => self.receive_members(id, &mut reader),
            (Ok(kind::HEARTBEAT), true) => self.receive_heartbeat(id, &mut reader),
            (Ok(kind::UPDATES), true) => self.receive_updates(id, &mut reader),
            (Ok(kind::SUBSCRIBE), true) => self.receive_subscribe(id, &mut reader),
            (Ok(kind::UNSUBSCRIBE), true) => self.receive_unsubscribe(id, &mut reader),
            (Ok(kind::RESET), true) => self.receive_reset(id, &mut reader),
            // The other side is established already when our Hello arrives, and may send at once.
            (Ok(_), _) => Err(DecodeError { what: "kind of frame" }),
            (Err(error), _) => Err(error),
        };
        if let Err(error) = result {
            let whom = self.links.get(&id).map(|link| link.from.map_or("?".into(), |ip| ip.to_string()));
            let whom = whom.unwrap_or_default();
            if let Some(count) = self.misbehaved.note(now) {
                let text = format!(
                    "a peer at {whom} misbehaves and is unlinked: {error} (number {count} of this kind)"
                );
                self.node.shell.warn(&text);
            }
            self.close(id, "it misbehaved");
        }
    }

    fn receive_updates(&mut self, id: LinkId, reader: &mut Reader<'_>) -> Decoded<()> {
        let header = Header::decode(reader)?;
        let now = self.now.monotonic;
        let Some(mut link) = self.links.remove(&id) else { return Ok(()) };
        link.clock.note_arrival(header.stamp, now);
        if let Some(member) = link.member() {
            // Heartbeats may wait behind many of these on a slow line.
            self.members.heard(member, (self.members.incarnation(member), header.stamp), now);
        }
        if !header.is_complete {
            // For a walk over all counters a trail of each would be too much: of what was before, GET BOUND says nothing.
            self.node.keyspace.horizons.forget_past(now);
        }
        let known = link.indices.get(&header.origin).copied();
        let origin = known.filter(|origin| self.is_wanted(&link, *origin, header.to.max(header.ahead)));
        let result = self.apply_all(&mut link, origin, &header, reader);
        let (member, clock) = (link.member(), link.clock);
        self.links.insert(id, link);
        let is_intelligible = result?;
        let Some(origin) = origin else {
            if let Some(passed_over) = known.filter(|origin| self.is_relay(id, *origin)) {
                // The relay believes that we have it: once we may take it, it is asked for anew.
                self.end_relay(id, passed_over);
            }
            return Ok(());
        };
        if !is_intelligible {
            self.resubscribe(id, origin);
            return Ok(());
        }
        self.note_progress(id, origin, &header);
        if member == Some(origin) {
            self.node.keyspace.horizons.follow(origin, now + FOLLOW);
            if let Some(age) = header.as_of_age.filter(|_| header.is_complete) {
                self.note_as_of(origin, header.to, clock.earliest(header.stamp, age));
            }
        }
        Ok(())
    }

    /// Whether we take this stream, up to `to`, over this link.
    fn is_wanted(&self, link: &Link, origin: MemberIndex, to: Seq) -> bool {
        if !link.is_same_epoch {
            return false;
        }
        match origin {
            MemberIndex::SELF => self.is_asking(link),
            origin if link.member() == Some(origin) => true,
            origin => self.is_relay(link.id, origin) && !self.must_wait(origin, to, link),
        }
    }

    /// Whether a member's stream is to come over this link from another one.
    fn is_relay(&self, id: LinkId, origin: MemberIndex) -> bool {
        let relay = self.peers.get(&origin).and_then(|peer| peer.relay);
        relay.is_some_and(|relay| relay.link == id)
    }

    /// Whether what the peer holds of our own shards may be later than what we have.
    fn is_asking(&self, link: &Link) -> bool {
        self.recovery.is_some() || link.member().is_some_and(|member| self.late.contains_key(&member))
    }

    /// Applies the updates of a frame, or passes over them if the stream is not wanted. False if one of them could not be
    /// understood.
    fn apply_all(
        &mut self,
        link: &mut Link,
        origin: Option<MemberIndex>,
        header: &Header,
        reader: &mut Reader<'_>,
    ) -> Decoded<bool> {
        let mut previous = Previous::of(header);
        let mut is_intelligible = true;
        let head = origin.and_then(|origin| self.peers.get(&origin)).map(|peer| peer.stream.head());
        let is_next = header.is_complete && head.is_some_and(|head| header.from <= head);
        if let Some(origin) = origin.filter(|_| header.full_copy.begins) {
            link.copying.insert(origin, HandleSet::new());
        }
        let (mut names, mut ahead) = (Vec::new(), Vec::with_capacity(LOOK_AHEAD));
        while !reader.is_empty() {
            names.clear();
            while ahead.len() < LOOK_AHEAD && !reader.is_empty() {
                let update = decode_update(reader, &mut previous)?;
                let name = link.names_in.resolve(update.name)?;
                let start = names.len();
                names.extend_from_slice(name);
                ahead.push((update, start..names.len(), self.node.keyspace.prefetch_stripe(name)));
            }
            let Some(origin) = origin else {
                ahead.clear();
                continue;
            };
            ahead.iter().for_each(|(.., place)| self.node.keyspace.prefetch_entry(*place));
            ahead.iter().for_each(|(.., place)| self.node.keyspace.prefetch_counter(*place));
            for (update, name, _) in ahead.drain(..) {
                is_intelligible &= self.apply_next(link, origin, &names[name], update, header, is_next);
            }
        }
        if let Some(origin) = origin.filter(|_| header.full_copy.ends)
            && let Some(mentioned) = link.copying.remove(&origin)
        {
            self.drop_unmentioned(origin, &mentioned, header.to);
        }
        Ok(is_intelligible)
    }

    /// Merges one update and notes what follows. `is_next`: it belongs at the end of what is remembered of that stream. False if
    /// it could not be understood.
    fn apply_next(
        &mut self,
        link: &mut Link,
        origin: MemberIndex,
        name: &[u8],
        mut update: Update<'_>,
        header: &Header,
        is_next: bool,
    ) -> bool {
        link.carried.updates_received += 1;
        if let Some(record) = &mut update.record {
            self.translate(record, link);
            self.node.keyspace.note_generation(record.generation);
        }
        if let Era::Is(generation) = update.era {
            self.node.keyspace.note_generation(generation);
        }
        update.taken_over.retain_mut(|taken| match self.index_behind(link, taken.member) {
            Some(ours) => {
                taken.member = ours;
                true
            }
            None => false,
        });
        let (applied, handle) = self.apply(link, origin, name, &update, header);
        let is_news = applied == Applied::Advanced;
        if let Some(peer) = self.peers.get_mut(&origin) {
            if is_news {
                peer.ahead = peer.ahead.max(update.seq);
            }
            // Also what was known: it may have come by a walk, which leaves nothing in the ring.
            if let Some(handle) = handle.filter(|_| is_next && update.seq > peer.stream.head()) {
                peer.stream.push(update.seq, handle);
            }
        } else if is_news && let Some(recovery) = &mut self.recovery {
            recovery.recovered = recovery.recovered.max(update.seq);
        }
        if let (Some(mentioned), Some(handle)) = (link.copying.get_mut(&origin), handle) {
            mentioned.insert(handle);
        }
        applied != Applied::Unintelligible
    }

    /// Merges one update.
    fn apply(
        &mut self,
        link: &Link,
        origin: MemberIndex,
        name: &[u8],
        update: &Update<'_>,
        header: &Header,
    ) -> (Applied, Option<Handle>) {
        let now = self.now.monotonic;
        let peer = self.peers.get(&origin);
        let head = peer.map_or(Seq::ZERO, |peer| peer.stream.head());
        let cause = if origin == MemberIndex::SELF { Cause::Recovery } else { Cause::Publication };
        let moving = update.moving.map(|line| {
            let moment = (header.stamp.0 as i64).saturating_sub(line.age);
            let local = link.clock.to_local(moment).unwrap_or(Local {
                best: (now.0 as i64).saturating_sub(line.age),
                error: i64::from(u32::MAX),
            });
            Moving {
                slope: f64::from(line.slope),
                moment: local.moment(),
                moment_error: Micros(local.error.unsigned_abs()) + line.error,
                precision_units: line.precision.units(),
            }
        });
        let horizons = &self.node.keyspace.horizons;
        // A copy of everything leaves no trail of what was before, see `receive_updates`; nor does who is no member any more.
        let as_of = horizons.as_of(origin);
        let vouched = as_of.filter(|as_of| *as_of != Micros(0) && header.is_complete);
        let result = self.node.keyspace.update_named(name, now, true, cause, |counter| {
            let copy =
                counter.full().and_then(|full| full.peers().iter().find(|peer| peer.member() == origin));
            let is_former =
                || peer.is_some_and(|peer| peer.is_former(update.seq)) && self.lacks_former_lives(origin);
            let is_stale =
                origin != MemberIndex::SELF && copy.is_none() && update.seq <= head && !is_former();
            if is_stale && self.planted != Some(Planted::ZeroComesBack) {
                return Err(Dropped::Stale);
            }
            let generation = match (update.era, copy) {
                (Era::Zero, _) => Generation::ZERO,
                (Era::Is(generation), _) => generation,
                (Era::AsBefore, Some(copy)) => copy.generation(counter.generation()),
                (Era::AsBefore, None) => return Err(Dropped::Unintelligible),
            };
            let acknowledged = self.node.keyspace.acknowledged();
            if let Some(full) = counter.full_mut().filter(|_| self.is_asking(link)) {
                full.give_up_acknowledged(acknowledged);
            }
            if let Some(record) = &update.record {
                if record.generation > counter.generation() {
                    self.recover_from_record(counter, record, self.is_asking(link));
                    if header.is_complete {
                        counter.make_full().note_unseen(record, now, horizons);
                    }
                }
                let mut record = record.clone();
                if self.planted == Some(Planted::SetsSum) && record.generation > counter.generation() {
                    record.value = record.value.saturating_add(counter.set_value());
                }
                counter.learn(record, acknowledged);
            }
            let record = update.record.as_ref().filter(|record| record.generation == generation);
            let mut basis = record.map_or(Basis::from(generation), |record| Basis::of(record, origin));
            if !update.subtracted.is_empty() {
                basis.subtracted = update.subtracted.clone();
            }
            if origin == MemberIndex::SELF {
                let copy = Stated { member: origin, generation, seq: update.seq, value: update.value };
                let copy = KeptCopy { stated: copy, subtracted: basis.subtracted, decimals: update.decimals };
                let is_later = counter.recover(copy, self.life, now);
                if let (true, true, Some(full)) = (is_later, moving.is_some(), counter.full_mut()) {
                    // Whoever has the copy draws its line on until it hears where the shard stands.
                    full.is_restated = true;
                }
                return Ok(is_later);
            }
            match self.planted {
                Some(Planted::MergeWithoutSeqCheck) => {
                    counter.make_full().take_peer(origin);
                }
                Some(Planted::PeerMovesOwnShard) => {
                    counter.add(Value::ONE, now, &self.node.keyspace.horizons).ok();
                }
                _ => {}
            }
            let taken = update.taken_over.clone();
            let is_here =
                |taken: &TakenOver| counter.full().is_some_and(|full| full.peer(taken.member).is_some());
            if taken.iter().any(is_here) {
                // What goes away with that is remembered nowhere.
                horizons.forget_past(now);
            }
            let shard = PeerShard::new(origin, update.seq, update.value, update.decimals, moving, taken);
            let shard = shard.after(update.excursion);
            let merged = match vouched {
                Some(vouched) => counter.merge_remembering(shard, basis, (now, vouched), horizons),
                None => counter.merge(shard, basis),
            };
            Ok(merged == Merged::Advanced)
        });
        if let Ok((is_news, handle)) = result {
            if is_news && as_of.is_none() && origin != MemberIndex::SELF {
                horizons.forget_past(now);
            }
            let publisher = &mut self.publisher;
            self.node.keyspace.with_at(handle, |counter| publisher.note_trail(handle, counter));
        }
        match result {
            Ok((true, handle)) => (Applied::Advanced, Some(handle)),
            Ok((false, handle)) => (Applied::Known, Some(handle)),
            Err(Dropped::Stale) => (Applied::Known, None),
            Err(Dropped::Unintelligible) => (Applied::Unintelligible, None),
        }
    }

    /// A stream has been applied further.
    fn note_progress(&mut self, id: LinkId, origin: MemberIndex, header: &Header) {
        if !header.is_complete {
            return;
        }
        if origin == MemberIndex::SELF {
            if let Some(recovery) = &mut self.recovery {
                recovery.recovered = recovery.recovered.max(header.to);
            }
            let link = self.links.get_mut(&id);
            if let Some(link) = link
                && let Some(sender) = link.member()
            {
                link.has_handed_back = true;
                // If it was asked again meanwhile, its next heartbeat says whether this was all.
                if link.asked_again == Micros(0) {
                    self.note_answer(sender);
                }
            }
            return;
        }
        let Some(peer) = self.peers.get_mut(&origin) else { return };
        if header.from > peer.stream.head() {
            // Something between is missing: ask again from where we are.
            peer.relay = None;
            return;
        }
        if header.is_after_walk {
            peer.ahead = peer.ahead.max(header.ahead);
        }
        if !header.is_after_walk {
            peer.stream.advance(header.to);
        } else if header.to > peer.stream.head() {
            peer.stream.restart_at(header.to);
        } else if header.to.incarnation < peer.stream.head().incarnation {
            // What came of former lives is not in the ring.
            peer.stream.restart_at(peer.stream.head());
        }
        peer.note_whole();
    }

    /// After a copy of everything: shards of that owner that were not mentioned are no more, so zero. Of our own, those of former
    /// lives that the peer had: it has removed the counter since, with our consent, which our disk does not know of.
    fn drop_unmentioned(&mut self, origin: MemberIndex, mentioned: &HandleSet, to: Seq) {
        let now = self.now.monotonic;
        let life = self.life;
        let is_old = |seq: Seq| seq != Seq::ZERO && seq <= to && seq.incarnation < life;
        let mut gone = Vec::new();
        let mut cursor = 0;
        loop {
            cursor = self.node.keyspace.walk_all(cursor, 4_096, |handle, counter| {
                let is_gone = counter.full().is_some_and(|full| match origin {
                    MemberIndex::SELF => is_old(full.seq),
                    peer => full.peer(peer).is_some_and(|shard| shard.seq() <= to),
                });
                if is_gone && !mentioned.contains(handle) {
                    gone.push(handle);
                }
            });
            if cursor == 0 {
                break;
            }
        }
        let keyspace = &self.node.keyspace;
        if origin == MemberIndex::SELF {
            // Above all that was SET before it was removed.
            let anew = keyspace.next_generation(self.now);
            for handle in gone {
                let void = |counter: &mut Counter| counter.recover_removed(to, anew, life, now);
                keyspace.update_at(handle, Cause::Recovery, now, void);
            }
            return;
        }
        for handle in gone {
            keyspace.update_at(handle, Cause::Publication, now, |counter| {
                if let Some(full) = counter.full_mut() {
                    full.void_peer(origin, to);
                }
            });
        }
    }

    /// Puts our indices of members in the place of the peer's.
    fn translate(&mut self, record: &mut Record, link: &mut Link) {
        record.observed.retain_mut(|observed| match self.index_behind(link, observed.member) {
            Some(ours) => {
                observed.member = ours;
                true
            }
            None => false,
        });
    }
}
