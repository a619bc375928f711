//! Heartbeats: being alive, clocks, as of when lines hold, who has what; and what follows from it.

use crate::cluster::frame::{Digest, Heartbeat, kind};
use crate::cluster::link::{Link, Outgoing};
use crate::cluster::members::Report;
use crate::cluster::wire::{Decoded, Put, Reader};
use crate::cluster::{Cluster, FOLLOW, LinkId, Peer, Planted, Relay};
use crate::ids::{MemberIndex, Seq};
use crate::import::IMPORTED;
use crate::time::Micros;
use std::collections::{BTreeMap, BTreeSet};

/// A relay that has fallen behind is kept for so long.
const RELAY_PATIENCE: Micros = Micros::from_secs(2);

/// A member that has started anew is waited for so long before its stream is taken from others.
const ANEW_PATIENCE: Micros = Micros::from_secs(30);

impl Cluster {
    pub(super) fn send_heartbeats(&mut self) {
        let established: Vec<LinkId> = self.link_of.values().copied().collect();
        established.into_iter().for_each(|id| self.send_heartbeat(id));
    }

    pub(super) fn send_heartbeat(&mut self, id: LinkId) {
        let now = self.now.monotonic;
        let Some(link) = self.links.get(&id) else { return };
        let Some(member) = link.member() else { return };
        let out = link.outgoing.get(&MemberIndex::SELF);
        let head = self.publisher.stream.head();
        let is_complete = self.recovery.is_none()
            && link.is_same_epoch
            && self.publisher.has_looked(&self.node.keyspace, now)
            && out.is_some_and(|out| out.walk.is_none() && out.position >= head);
        let (echo, hold) =
            link.last_stamp.map_or((Micros(0), Micros(0)), |(stamp, at)| (stamp, now.since(at)));
        let heartbeat = Heartbeat {
            stamp: now,
            echo,
            hold,
            is_complete,
            is_recovering: self.recovery.is_some(),
            as_of_age: now.since(self.publisher.as_of(&self.node.keyspace, now)),
            sent: out.map_or(Seq::ZERO, |out| out.position),
            settled: self.node.keyspace.acknowledged(),
            floor: self.node.keyspace.floor(),
            given_up: self.peers.get(&member).map_or(Seq::ZERO, Peer::told_given_up),
            digests: self.digests(member, now),
        };
        if let Some(link) = self.links.get_mut(&id) {
            link.has_echoed |= echo != Micros(0);
        }
        self.refresh_members(id);
        self.members.ping_sent(member, self.now.unix);
        self.send(id, heartbeat.encode());
    }

    /// What we have of everybody else, and what this member has of the departed though all of it was taken over.
    fn digests(&self, to: MemberIndex, now: Micros) -> Vec<Digest> {
        let digest = |(&member, peer): (&MemberIndex, &Peer)| {
            let known = self.members.announced(member).map(|_| self.members.known_of(member, now));
            Digest {
                member,
                applied: match self.planted {
                    Some(Planted::AcknowledgesOneTooMany) => {
                        Seq { n: peer.stream.head().n + 1, ..peer.stream.head() }
                    }
                    _ => peer.stream.head(),
                },
                ahead: peer.told_ahead(),
                evidence: known.map_or((0, Micros(0)), |known| known.evidence),
                heard_age: known.map_or(Micros::from_secs(3_600), |known| known.age),
                as_of_age: now.since(peer.as_of),
                has_link: self.link_of.contains_key(&member),
                is_departed: !self.members.index_of_live(member),
                is_buried: false,
                is_whole: peer.is_whole(),
                whole_until: peer.told_whole(),
            }
        };
        let theirs = self.peers.get(&to).map(|peer| &peer.holds);
        let is_mentioned = |member: &MemberIndex| theirs.is_some_and(|holds| holds.contains_key(member));
        let buried = self.buried.iter().filter(|(member, _)| is_mentioned(member));
        let buried = buried
            .map(|(&member, &applied)| Digest { is_buried: true, ..Digest::of_departed(member, applied) });
        self.peers.iter().map(digest).chain(buried).collect()
    }

    pub(super) fn receive_heartbeat(&mut self, id: LinkId, reader: &mut Reader<'_>) -> Decoded<()> {
        let heartbeat = Heartbeat::decode(reader)?;
        let now = self.now.monotonic;
        let Some(link) = self.links.get_mut(&id) else { return Ok(()) };
        let Some(member) = link.member() else { return Ok(()) };
        link.clock.note_arrival(heartbeat.stamp, now);
        if heartbeat.echo != Micros(0) {
            link.clock.note_echo(heartbeat.echo, heartbeat.stamp - heartbeat.hold, now);
            link.round_trip = Some(now.since(heartbeat.echo + heartbeat.hold));
            link.note_behind(heartbeat.stamp, heartbeat.echo);
        }
        link.last_stamp = Some((heartbeat.stamp, now));
        link.is_incoming_complete = heartbeat.is_complete;
        link.is_peer_recovering = heartbeat.is_recovering;
        let (must_echo, is_same_epoch, clock) = (!link.has_echoed, link.is_same_epoch, link.clock);
        let incarnation = self.members.incarnation(member);
        self.members.heard(member, (incarnation, heartbeat.stamp), now);
        self.members.pong_received(member, self.now.unix);
        self.node.keyspace.horizons.follow(member, now + FOLLOW);
        let as_of = |age: Micros| clock.earliest(heartbeat.stamp, age);
        if heartbeat.is_complete && is_same_epoch {
            let has_all = |peer: &&mut Peer| heartbeat.is_vouching() && peer.stream.head() >= heartbeat.sent;
            if let Some(peer) = self.peers.get_mut(&member).filter(has_all) {
                peer.whole_life = peer.whole_life.max(heartbeat.sent.incarnation);
                peer.note_whole();
            }
        }
        if self.recovery.is_some() {
            // What was removed here before the crash may not be known here any more.
            self.node.keyspace.raise_floor(heartbeat.floor);
        }
        if is_same_epoch {
            // Nor may what was forgotten because all knew better; others have acted on it.
            self.node.keyspace.note_acknowledged(heartbeat.given_up);
        }
        if let Some(peer) = self.peers.get_mut(&member).filter(|_| is_same_epoch) {
            peer.settled = heartbeat.settled;
            peer.given_up = peer.given_up.max(heartbeat.settled);
            peer.was_complete |= heartbeat.is_complete && peer.stream.head() >= heartbeat.sent;
        }
        if let Some(peer) = self.peers.get_mut(&member) {
            (peer.holds, peer.has_buried) = (BTreeMap::new(), BTreeSet::new());
            peer.answered = peer.answered.max(heartbeat.echo);
            (peer.holds_ahead, peer.has_whole) = (BTreeMap::new(), BTreeMap::new());
        }
        for digest in &heartbeat.digests {
            let Some(about) = self.note_digest(id, digest) else { continue };
            if about == MemberIndex::SELF {
                self.take_acknowledgement(id, member, digest, &heartbeat);
                continue;
            }
            if let Some(peer) = self.peers.get_mut(&member) {
                peer.holds.insert(about, digest.applied);
                if digest.ahead != Seq::ZERO {
                    peer.holds_ahead.insert(about, digest.ahead);
                }
                match digest.is_departed {
                    true => peer.has_buried.insert(about),
                    false => peer.has_buried.remove(&about),
                };
                peer.has_whole.insert(about, if digest.is_whole { Seq::MAX } else { digest.whole_until });
            }
            // Of one that was removed nobody tells when it was heard.
            if about == member || digest.is_departed || self.members.announced(about).is_none() {
                continue;
            }
            let report = Report { evidence: digest.evidence, age: digest.heard_age };
            self.members.report(member, about, report, now);
            if self.members.index_of_live(about) {
                let age = self.members.known_of(about, now).age;
                self.node.keyspace.horizons.follow(about, (now - age) + FOLLOW);
                if is_same_epoch {
                    self.note_as_of(about, digest.applied, as_of(digest.as_of_age));
                }
            }
        }
        // Not before it is known whose counts there are here and not there.
        if heartbeat.is_complete && is_same_epoch {
            self.note_as_of(member, heartbeat.sent, as_of(heartbeat.as_of_age));
        }
        if must_echo {
            self.send_heartbeat(id);
        }
        Ok(())
    }

    /// Whom a digest is about. A departed member that has left something there, of which nothing is here, leaves it to us as well.
    fn note_digest(&mut self, id: LinkId, digest: &Digest) -> Option<MemberIndex> {
        let has_some = digest.applied.max(digest.ahead) > Seq::ZERO;
        let about = match digest.is_departed && has_some {
            true => self.index_over(id, digest.member)?,
            false => *self.links.get(&id)?.indices.get(&digest.member)?,
        };
        let is_left = about != MemberIndex::SELF && !self.members.index_of_live(about);
        if digest.is_buried {
            if self.links.get(&id).is_some_and(|link| link.is_same_epoch) {
                self.note_burial(about, digest.applied);
            }
            return None;
        }
        // Of one that is buried, whatever is later it has counted since, alone.
        if is_left && has_some && !self.buried.contains_key(&about) {
            self.open_estate(about);
            let last_held = self.peers.get(&about).map_or(Seq::ZERO, Peer::last_held);
            let is_same_epoch = self.links.get(&id).is_some_and(|link| link.is_same_epoch);
            if is_same_epoch && digest.applied.max(digest.ahead) > last_held {
                // Who has joined since it was removed knows nothing of it yet, and claims nothing before it does.
                self.node.keyspace.horizons.add(about);
            }
        }
        Some(about)
    }

    /// A member's shards held at this moment, for whoever has its stream up to `sent`.
    pub(super) fn note_as_of(&mut self, member: MemberIndex, sent: Seq, as_of: Option<Micros>) {
        let (Some(peer), Some(as_of)) = (self.peers.get_mut(&member), as_of) else { return };
        if peer.stream.head() >= sent && as_of > peer.as_of && self.members.index_of_live(member) {
            if peer.as_of == Micros(0) {
                self.node.keyspace.horizons.forget_past(self.now.monotonic);
            }
            peer.as_of = as_of;
            self.node.keyspace.horizons.set_as_of(member, as_of);
        }
    }

    /// A member says what it has of our stream.
    fn take_acknowledgement(
        &mut self,
        id: LinkId,
        member: MemberIndex,
        digest: &Digest,
        heartbeat: &Heartbeat,
    ) {
        let (applied, held) = (digest.applied, digest.applied.max(digest.ahead));
        if self.recovery.is_some() && held.incarnation >= self.members.own().incarnation {
            // Nothing was published in this life yet, so another one has had its number: of two starts within a second, the
            // later from an older copy of the disk.
            self.members.raise_incarnation(held.incarnation);
            self.publisher.set_incarnation(self.members.own().incarnation);
        }
        let Some(peer) = self.peers.get_mut(&member) else { return };
        // One that has lost something in a crash has less than it had.
        peer.acknowledged = if heartbeat.is_complete { applied } else { peer.acknowledged.min(applied) };
        let is_from_before = [applied, held].iter().any(|seq| *seq > IMPORTED && seq.incarnation < self.life);
        if self.recovery.is_none()
            && is_from_before
            && self.links.get(&id).is_some_and(|link| link.is_same_epoch && !link.has_asked_for_own)
        {
            self.ask_late(member);
        }
        let is_late = self.late.contains_key(&member);
        if let Some(link) = self.links.get_mut(&id)
            && link.has_echoed
            && !is_late
            && !link.outgoing.contains_key(&MemberIndex::SELF)
        {
            link.outgoing
                .insert(MemberIndex::SELF, Outgoing { position: applied, has_gaps: false, walk: None });
        }
        let recovery = self.recovery.as_ref().filter(|recovery| recovery.waiting.contains_key(&member));
        let is_outdated = self.links.get(&id).is_none_or(|link| heartbeat.echo < link.asked_again);
        if recovery.is_none() && !is_late || is_outdated {
            return;
        }
        // What a late one has of this life it has from others; what of earlier lives lies below that is not known.
        let position = recovery.map_or(Seq::ZERO, |recovery| recovery.position);
        // While there is a link nobody gets our stream from others, so it has nothing that it has not handed back.
        let has_answered = self.links.get(&id).is_some_and(|link| link.has_handed_back);
        if held <= position.max(IMPORTED) || has_answered {
            self.note_answer(member);
        } else if let Some(link) = self.links.get_mut(&id)
            && link.clock.is_known()
            && !link.has_asked_for_own
        {
            (link.has_asked_for_own, link.is_handing_back) = (true, true);
            if held.incarnation < self.members.own().joined {
                self.walk_own(|own, full| full.begin_recovery_after_reset(own));
            }
            self.subscribe(id, MemberIndex::SELF, position);
        }
    }

    fn subscribe(&mut self, id: LinkId, origin: MemberIndex, position: Seq) {
        let mut frame = vec![kind::SUBSCRIBE];
        frame.put_unsigned(origin.0.into());
        frame.put_seq(position);
        self.send(id, frame);
    }

    /// Gets a stream anew from its beginning over the link that it comes over: something that it refers to is not here.
    pub(super) fn resubscribe(&mut self, id: LinkId, origin: MemberIndex) {
        self.subscribe(id, origin, Seq::ZERO);
    }

    /// Sees to it that the stream of every member that we have no link to comes from somebody who has more of it.
    pub(super) fn plan_relays(&mut self) {
        let now = self.now.monotonic;
        let origins: Vec<MemberIndex> = self.peers.keys().copied().collect();
        for origin in origins {
            let head = self.peers[&origin].stream.head();
            let relay = self.peers[&origin].relay;
            if self.link_of.contains_key(&origin) {
                if let Some(relay) = relay {
                    self.end_relay(relay.link, origin);
                }
                continue;
            }
            let holds = |member: MemberIndex| {
                self.peers.get(&member).and_then(|peer| peer.holds.get(&origin)).copied().unwrap_or(Seq::ZERO)
            };
            let usable = |id: &LinkId| self.is_usable(*id);
            let best = self
                .link_of
                .iter()
                .filter(|(_, id)| usable(id))
                .map(|(&member, &id)| (holds(member), id, member))
                .max();
            let has = |id: &LinkId| self.links.get(id).and_then(Link::member).map_or(Seq::ZERO, holds);
            let relayed = relay.map_or(Seq::ZERO, |relay| has(&relay.link));
            let is_former = |seq: Seq| seq != Seq::ZERO && self.peers[&origin].is_former(seq);
            let lacks_former = self.lacks_former_lives(origin);
            let has_former = |member: MemberIndex| {
                let (applied, ahead) =
                    self.peers.get(&member).map(|peer| peer.holds_of(origin)).unwrap_or_default();
                is_former(applied) || is_former(ahead)
            };
            let mut with_former = self.link_of.iter().filter(|(member, _)| has_former(**member));
            if lacks_former && let Some((_, &former)) = with_former.find(|(_, id)| usable(id)) {
                let relayer = relay.and_then(|relay| self.links.get(&relay.link)).and_then(Link::member);
                match relay {
                    Some(_) if relayer.is_some_and(has_former) => {}
                    Some(relay) => self.end_relay(relay.link, origin),
                    None => self.take_from(former, origin, Seq::ZERO),
                }
                continue;
            }
            let Some((most, best, _)) = best.filter(|(most, _, _)| *most > head) else {
                self.take_what_is_ahead(origin);
                continue;
            };
            if self.note_life(origin, most, best) {
                if let Some(relay) = relay {
                    self.end_relay(relay.link, origin);
                }
                continue;
            }
            match relay {
                Some(relay) if relay.link == best => {}
                Some(relay) => {
                    if relayed < most && now.since(relay.since) > RELAY_PATIENCE {
                        self.end_relay(relay.link, origin);
                    }
                }
                None => self.take_from(best, origin, if lacks_former { Seq::ZERO } else { head }),
            }
        }
    }

    /// Nobody has more of a member's stream, but somebody may have shards that came ahead of the rest: from a copy of everything
    /// that was cut, or from disk, where a moving shard was kept. If that member is gone nobody else would tell of them.
    fn take_what_is_ahead(&mut self, origin: MemberIndex) {
        let now = self.now.monotonic;
        let ahead_at = |member| self.peers.get(member)?.holds_ahead.get(&origin).copied();
        let links = self.link_of.iter().filter(|(_, id)| self.is_usable(**id));
        let most = links.filter_map(|(member, &id)| Some((ahead_at(member)?, id))).max();
        let Some(peer) = self.peers.get(&origin) else { return };
        let (head, relay, held) = (peer.stream.head(), peer.relay, peer.last_held());
        let Some((ahead, link)) = most.filter(|(ahead, _)| *ahead > held) else { return };
        let must_wait = self.note_life(origin, ahead, link);
        match relay {
            None if must_wait => {}
            None => self.take_from(link, origin, head),
            // What was asked for is under way.
            Some(relay) if relay.link == link && relay.ahead > held => {}
            Some(relay) => {
                if must_wait || now.since(relay.since) > RELAY_PATIENCE {
                    self.end_relay(relay.link, origin);
                }
            }
        }
    }

    fn is_usable(&self, id: LinkId) -> bool {
        self.links.get(&id).is_some_and(|link| link.is_same_epoch && link.clock.is_known())
    }

    /// From now on the stream of a member comes over this link to another one.
    fn take_from(&mut self, link: LinkId, origin: MemberIndex, position: Seq) {
        self.subscribe(link, origin, position);
        let teller = self.links.get(&link).and_then(Link::member).and_then(|member| self.peers.get(&member));
        let ahead = teller.and_then(|teller| teller.holds_ahead.get(&origin)).copied().unwrap_or_default();
        if let Some(peer) = self.peers.get_mut(&origin) {
            peer.relay = Some(Relay { link, since: self.now.monotonic, ahead });
        }
    }

    /// Over this link there is a member's stream up to `most`. Whether that has to wait: see `must_wait`.
    fn note_life(&mut self, origin: MemberIndex, most: Seq, best: LinkId) -> bool {
        let must_wait = self.links.get(&best).is_some_and(|link| self.must_wait(origin, most, link));
        let now = self.now.monotonic;
        let Some(peer) = self.peers.get_mut(&origin) else { return false };
        let is_anew = most.incarnation > peer.last_held().incarnation;
        peer.anew_since = is_anew.then(|| peer.anew_since.unwrap_or(now));
        must_wait
    }

    /// Whether a member that has published `seq`, which is to come over this link, has started anew since what we have of it, so
    /// that this may be all that is left of what it had counted before: it asks for that as soon as there is a link, and what
    /// comes over others would replace it. Of one that was removed before that, whoever has the later life takes the earlier ones
    /// from us.
    pub(super) fn must_wait(&self, origin: MemberIndex, seq: Seq, link: &Link) -> bool {
        let Some(peer) = self.peers.get(&origin) else { return false };
        let (head, held) = (peer.stream.head(), peer.last_held());
        let has_patience =
            peer.anew_since.is_none_or(|since| self.now.monotonic.since(since) < ANEW_PATIENCE);
        let is_to_come = self.members.index_of_live(origin) || {
            let theirs = link.member().and_then(|member| self.peers.get(&member));
            let is_taken =
                link.outgoing.get(&origin).is_some_and(|out| out.walk.is_none() && out.position >= head);
            theirs.is_some_and(|theirs| !theirs.has_whole(origin, held)) && !is_taken
        };
        held != Seq::ZERO && seq.incarnation > held.incarnation && has_patience && is_to_come
    }

    /// Whether a member was removed before it had got back, in the life that we have of it, what it had counted in those before:
    /// others may still have that.
    pub(super) fn lacks_former_lives(&self, origin: MemberIndex) -> bool {
        !self.members.index_of_live(origin) && self.peers.get(&origin).is_some_and(|peer| !peer.is_whole())
    }

    pub(super) fn unsubscribe(&mut self, id: LinkId, origin: MemberIndex) {
        let mut frame = vec![kind::UNSUBSCRIBE];
        frame.put_unsigned(origin.0.into());
        self.send(id, frame);
    }

    pub(super) fn end_relay(&mut self, id: LinkId, origin: MemberIndex) {
        self.unsubscribe(id, origin);
        if let Some(peer) = self.peers.get_mut(&origin) {
            peer.relay = None;
        }
    }

    /// Forgets what nobody needs of the streams.
    pub(super) fn trim_streams(&mut self) {
        // Until all agree on the last state of a removed member, a SET may be on its way through others that it made before it
        // had heard what we have told since it acknowledged us last.
        let counts = |member: MemberIndex| {
            self.members.index_of_live(member) || self.node.keyspace.horizons.as_of(member).is_some()
        };
        let acknowledged = self.peers.iter().filter(|(member, _)| counts(**member));
        let everybody = acknowledged.map(|(_, peer)| peer.acknowledged).min().unwrap_or(Seq::ZERO);
        let links = self.slowest_link(MemberIndex::SELF);
        self.publisher.stream.trim(everybody, links.unwrap_or_else(|| self.publisher.stream.head()));
        self.node.keyspace.note_acknowledged(everybody);
        let origins: Vec<MemberIndex> = self.peers.keys().copied().collect();
        for origin in origins {
            let others = self.peers.iter().filter(|(m, _)| **m != origin && self.members.index_of_live(**m));
            let head = self.peers[&origin].stream.head();
            let everybody = others
                .map(|(_, peer)| peer.holds.get(&origin).copied().unwrap_or(Seq::ZERO))
                .min()
                .unwrap_or(head);
            let links = self.slowest_link(origin).unwrap_or(head);
            if let Some(peer) = self.peers.get_mut(&origin) {
                peer.stream.trim(everybody, links);
            }
        }
    }

    fn slowest_link(&self, origin: MemberIndex) -> Option<Seq> {
        let outgoing = self.links.values().filter_map(|link| link.outgoing.get(&origin));
        outgoing.map(|out| out.walk.map_or(out.position, |walk| walk.target)).min()
    }
}
