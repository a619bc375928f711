//! Links coming and going: Hello, who is who, which of two links stays, membership gossip.

use crate::cluster::frame::{Hello, MembersFrame, Refusal};
use crate::cluster::gossip::GossipEntry;
use crate::cluster::link::{Link, Outgoing, Phase, Walk};
use crate::cluster::members::{DialTarget, Greeting, News};
use crate::cluster::nodes_file::ResetEpoch;
use crate::cluster::wire::{Decoded, Reader};
use crate::cluster::{Cluster, HEARTBEAT, LinkId};
use crate::ids::{MemberIndex, NodeId, Seq};
use crate::node::TaskResult;
use crate::time::Micros;

/// A link on which something came this recently is alive, whatever a second link says.
const FRESH: Micros = Micros::from_millis(700);

impl Cluster {
    /// A connection is up: says who we are.
    pub(super) fn greet(&mut self, id: LinkId) {
        let Some(link) = self.links.get_mut(&id) else { return };
        link.phase = Phase::Greeting;
        if let Some(DialTarget::Meet(meet)) = link.target {
            self.members.meet_sent(meet, self.now.unix);
        }
        link.told_epoch = Some(self.epoch);
        let calls_for = match link.target {
            Some(DialTarget::Member(index)) => self.members.announced(index).map(|announced| announced.id),
            Some(DialTarget::Meet(_)) | None => None,
        };
        let has_left = self.members.has_left();
        let hello = Hello { epoch: self.epoch, calls_for, has_left, announcement: *self.members.own() };
        self.send(id, hello.encode());
    }

    /// A peer has said who it is.
    pub(super) fn receive_hello(&mut self, id: LinkId, reader: &mut Reader<'_>) -> Decoded<()> {
        let hello = Hello::decode(reader)?;
        let now = self.now.monotonic;
        let peer = hello.announcement;
        match self.members.greet(&peer, now) {
            Greeting::Welcome => {}
            Greeting::Ourselves => {
                self.refuse_quietly(id, Refusal::Other, "that is this node itself");
                return Ok(());
            }
            Greeting::OurClone => {
                let text = format!(
                    "another live node has our id {}: two processes run on copies of one data directory; \
                     stop one of them, or give the copy CLUSTER RESET HARD, which deletes what it has counted",
                    peer.id
                );
                self.refuse(id, Refusal::Clone, &text);
                return Ok(());
            }
            Greeting::Clone => {
                let text = format!(
                    "another live node has the id {}: two processes run on copies of one data directory; \
                     stop one of them, or give the copy CLUSTER RESET HARD, which deletes what it has counted",
                    peer.id
                );
                self.refuse(id, Refusal::Clone, &text);
                return Ok(());
            }
            Greeting::Forgotten if hello.has_left => {
                // Who has counted under it already can't change its name any more.
                let text = format!(
                    "the name {} is that of a removed node; it is taken in under another (CLUSTER RESET HARD)",
                    peer.id
                );
                self.refuse_quietly(id, Refusal::NameSpent, &text);
                return Ok(());
            }
            Greeting::Forgotten => {
                let text = format!(
                    "node {} was removed from the cluster; it must join anew after CLUSTER RESET",
                    peer.id
                );
                self.refuse(id, Refusal::Forgotten, &text);
                return Ok(());
            }
            Greeting::Full => {
                self.refuse(id, Refusal::Other, "the cluster has as many members as it can");
                return Ok(());
            }
        }
        if self.members.index_of(peer.id).is_none()
            && let Some(reason) = self.reason_to_stay_apart(id, &hello)
        {
            self.refuse_quietly(id, Refusal::Other, &reason);
            return Ok(());
        }
        self.take_gossip(GossipEntry::Member(peer));
        let Some(member) = self.members.index_of(peer.id) else {
            self.close(id, "it could not be added to the members");
            return Ok(());
        };
        self.note_target(id, member);
        if self.keeps_other_link(id, member, peer.id) {
            self.close(id, "there is another link to the same node");
            return Ok(());
        }
        if hello.epoch > self.epoch {
            self.adopt_epoch(hello.epoch);
        }
        self.establish(id, member, &hello);
        Ok(())
    }

    /// Why a node that is no member is none after this greeting either: one of us has called an address for a member, and no CLUSTER
    /// MEET has asked for more.
    fn reason_to_stay_apart(&mut self, id: LinkId, hello: &Hello) -> Option<String> {
        let own = self.members.own().id;
        if let Some(DialTarget::Member(wanted)) = self.links.get(&id)?.target {
            self.members.wrong_id(wanted, self.now.monotonic);
            return Some(format!("node {} answers at the address of another", hello.announcement.id));
        }
        match hello.calls_for? {
            wanted if wanted != own => Some(format!("this is node {own}, which you have not met")),
            _ if self.members.has_left() => {
                Some(format!("node {own} has left by CLUSTER RESET; CLUSTER MEET would bring it back"))
            }
            _ => None,
        }
    }

    /// What was dialled has turned out to be this member.
    fn note_target(&mut self, id: LinkId, member: MemberIndex) {
        let now = self.now.monotonic;
        let Some(link) = self.links.get_mut(&id) else { return };
        match link.target {
            Some(DialTarget::Member(wanted)) if wanted != member => {
                link.target = Some(DialTarget::Member(member));
                self.members.wrong_id(wanted, now);
            }
            Some(DialTarget::Meet(meet)) => {
                self.members.end_meet(meet, Ok(()), now);
            }
            Some(DialTarget::Member(_)) | None => {}
        }
    }

    /// Whether the link to that member that there is already stays, rather than this one.
    fn keeps_other_link(&mut self, id: LinkId, member: MemberIndex, peer: NodeId) -> bool {
        let Some(other) = self.link_of.get(&member).copied().filter(|other| *other != id) else {
            return false;
        };
        let own = self.members.own().id;
        let (Some(new), Some(old)) = (self.links.get(&id), self.links.get(&other)) else { return false };
        let is_old_alive = self.now.monotonic.since(old.last_received) < FRESH;
        let prefers_old = old.is_dialled_by_lower(own, peer) || !new.is_dialled_by_lower(own, peer);
        if is_old_alive && prefers_old {
            return true;
        }
        self.close(other, "a newer link to the same node replaces it");
        false
    }

    fn establish(&mut self, id: LinkId, member: MemberIndex, hello: &Hello) {
        let now = self.now.monotonic;
        self.add_peer(member);
        let Some(link) = self.links.get_mut(&id) else { return };
        link.phase = Phase::Established(member);
        link.last_received = now;
        link.is_same_epoch = hello.epoch == self.epoch;
        let is_told = link.told_epoch == Some(self.epoch);
        let from = link.from;
        self.link_of.insert(member, id);
        self.members.linked(member, from, hello.announcement.ip, now);
        self.send_members(id);
        if !is_told {
            // Our Hello was sent before the last reset.
            self.send_reset(id);
        }
        self.send_heartbeat(id);
    }

    pub(super) fn name_of(&self, member: MemberIndex) -> String {
        self.members.announced(member).map_or_else(|| "?".to_owned(), |announced| announced.id.to_string())
    }

    /// Tells a peer of members again if something has changed.
    pub(super) fn refresh_members(&mut self, id: LinkId) {
        let members = Some((self.members.revision(), self.members.departed_revision()));
        if self.links.get(&id).is_some_and(|link| link.members_sent != members) {
            self.send_members(id);
        }
    }

    /// Who our indices mean, and all we know of members.
    pub(super) fn send_members(&mut self, id: LinkId) {
        let Some(link) = self.links.get_mut(&id) else { return };
        link.members_sent = Some((self.members.revision(), self.members.departed_revision()));
        let mut indices = vec![(MemberIndex::SELF, self.members.own().id)];
        indices.extend(
            self.members.peers().filter(|(index, _)| *index != MemberIndex::SELF).map(|(i, a)| (i, a.id)),
        );
        indices.extend(self.members.departed());
        let frame = MembersFrame { indices, gossip: self.members.gossip() };
        self.send(id, frame.encode());
    }

    pub(super) fn receive_members(&mut self, id: LinkId, reader: &mut Reader<'_>) -> Decoded<()> {
        let frame = MembersFrame::decode(reader)?;
        self.members.note_taken_in();
        for entry in frame.gossip {
            self.take_gossip(entry);
        }
        let mut indices = std::collections::BTreeMap::new();
        for &(theirs, node) in &frame.indices {
            // Others have departed; if anything here is still to be known of them, `index_behind` gives them an index.
            if let Some(ours) = self.members.index_of(node).or_else(|| self.members.departed_index_of(node)) {
                indices.insert(theirs, ours);
            }
        }
        if let Some(link) = self.links.get_mut(&id) {
            link.indices = indices;
            let known = std::mem::replace(&mut link.ids, frame.indices);
            // Not sooner: who is refused has had the peer's Hello as well.
            if let Some(member) = link.member().filter(|_| known.is_empty()) {
                self.node.shell.info(&format!("link to node {} is up", self.name_of(member)));
            }
        }
        Ok(())
    }

    /// Our index of a member that the peer speaks of. A departed one of whom nothing is kept here gets one: there is something of
    /// it elsewhere, or a SET has seen it.
    pub(super) fn index_behind(&mut self, link: &mut Link, theirs: MemberIndex) -> Option<MemberIndex> {
        if let Some(&ours) = link.indices.get(&theirs) {
            return Some(ours);
        }
        let (_, node) = *link.ids.iter().find(|(index, _)| *index == theirs)?;
        let known = self.members.index_of(node);
        let ours = known.or_else(|| self.members.add_departed(node, self.now.monotonic).ok())?;
        if ours != MemberIndex::SELF {
            self.note_member(ours);
        }
        link.indices.insert(theirs, ours);
        Some(ours)
    }

    /// The same, for a link that stays where it is.
    pub(super) fn index_over(&mut self, id: LinkId, theirs: MemberIndex) -> Option<MemberIndex> {
        let mut link = self.links.remove(&id)?;
        let ours = self.index_behind(&mut link, theirs);
        self.links.insert(id, link);
        ours
    }

    /// Takes a piece of gossip and what follows from it.
    pub(super) fn take_gossip(&mut self, entry: GossipEntry) {
        let now = self.now.monotonic;
        match self.members.merge_gossip(entry, now) {
            News::None | News::Barred | News::Full => {}
            News::Added(member) => {
                self.add_peer(member);
                self.ask_newcomer(member);
                self.node.shell.info(&format!("node {} is a member now", self.name_of(member)));
            }
            News::Changed(_) => {}
            News::Forgotten(member) => self.note_departure(member),
            News::WeAreForgotten => {
                self.node.shell.warn(
                    "the cluster has removed this node; its links are refused until it begins anew: \
                     CLUSTER RESET, then CLUSTER MEET",
                );
            }
            News::NewerSelf(incarnation) => {
                self.members.raise_incarnation(incarnation);
                if self.recovery.is_some() || self.publisher.published == 0 {
                    self.publisher.set_incarnation(self.members.own().incarnation);
                }
            }
        }
        if self.saved_revision != self.members.revision() {
            self.next_housekeeping = now;
        }
    }

    /// A member is none any more: its shards stay until somebody has taken them over.
    pub(super) fn note_departure(&mut self, member: MemberIndex) {
        self.open_estate(member);
        self.node.keyspace.horizons.freeze(member);
        if let Some(id) = self.link_of.get(&member).copied() {
            self.close(id, "the node was removed from the cluster");
        }
        self.note_answer(member);
    }

    /// CLUSTER FORGET.
    pub(super) fn forget(&mut self, id: NodeId) -> TaskResult {
        match self.members.forget(id) {
            None => TaskResult::Error(format!("ERR Unknown node {id}")),
            Some(member) => {
                self.note_departure(member);
                self.housekeep();
                TaskResult::Ok
            }
        }
    }

    fn refuse(&mut self, id: LinkId, refusal: Refusal, text: &str) {
        if let Some(count) = self.refused.note(self.now.monotonic) {
            self.node.shell.warn(&format!("{text} (number {count} of this kind)"));
        }
        self.refuse_quietly(id, refusal, text);
    }

    fn refuse_quietly(&mut self, id: LinkId, refusal: Refusal, text: &str) {
        self.send(id, refusal.encode(text));
        self.close(id, text);
    }

    pub(super) fn receive_refusal(&mut self, id: LinkId, reader: &mut Reader<'_>) -> Decoded<()> {
        let (refusal, text) = Refusal::decode(reader)?;
        let shown: String = text.chars().filter(|c| !c.is_control()).collect();
        if let Some(count) = self.refused_us.note(self.now.monotonic) {
            let text = format!("a node has refused our link: {shown} (number {count} of this kind)");
            self.node.shell.warn(&text);
        }
        self.close(id, &shown);
        match refusal {
            Refusal::Forgotten => self.members.note_removed(),
            Refusal::NameSpent if self.members.has_left() && self.node.keyspace.is_empty() => {
                self.take_another_name();
            }
            Refusal::NameSpent | Refusal::Clone | Refusal::Other => {}
        }
        Ok(())
    }

    /// A connection has ended.
    pub(super) fn drop_link(&mut self, id: LinkId, reason: &str) {
        let now = self.now.monotonic;
        let Some(link) = self.links.remove(&id) else { return };
        match link.phase {
            Phase::Dialing | Phase::Greeting => {
                if let Some(target) = link.target {
                    self.members.dial_failed(target, reason, now);
                }
            }
            Phase::Established(member) => {
                if let Some(peer) = self.peers.get_mut(&member) {
                    peer.carried.add(&link.carried);
                }
                if self.link_of.get(&member) == Some(&id) {
                    self.link_of.remove(&member);
                    let as_of = self.peers.get(&member).map_or(Micros(0), |peer| peer.as_of);
                    self.node.keyspace.horizons.follow_at_most(member, as_of + HEARTBEAT);
                    self.members.unlinked(member, now);
                    if !link.ids.is_empty() {
                        let text = format!("link to node {} is down: {reason}", self.name_of(member));
                        self.node.shell.info(&text);
                    }
                }
            }
        }
        for peer in self.peers.values_mut() {
            if peer.relay.is_some_and(|relay| relay.link == id) {
                peer.relay = None;
            }
        }
    }

    /// What a peer wants from us.
    pub(super) fn receive_subscribe(&mut self, id: LinkId, reader: &mut Reader<'_>) -> Decoded<()> {
        let theirs = MemberIndex(reader.number("origin")?);
        let position = reader.seq("position")?;
        reader.end()?;
        // Since the peer has named its indices we may have got to know this one from others.
        if let Some(origin) = self.index_over(id, theirs)
            && let Some(link) = self.links.get_mut(&id)
        {
            // What came ahead of the rest is not in the ring.
            let ahead = self.peers.get(&origin).filter(|peer| peer.told_ahead() > position);
            let walk = ahead.map(|peer| Walk::begin(&peer.stream, peer.told_ahead(), position));
            link.outgoing.insert(origin, Outgoing { position, has_gaps: false, walk });
        }
        Ok(())
    }

    pub(super) fn receive_unsubscribe(&mut self, id: LinkId, reader: &mut Reader<'_>) -> Decoded<()> {
        let theirs = MemberIndex(reader.number("origin")?);
        reader.end()?;
        if let Some(origin) = self.index_over(id, theirs).filter(|origin| *origin != MemberIndex::SELF)
            && let Some(link) = self.links.get_mut(&id)
        {
            link.outgoing.remove(&origin);
        }
        Ok(())
    }

    /// Tells a peer that what we send from now on is of the present epoch.
    pub(super) fn send_reset(&mut self, id: LinkId) {
        use crate::cluster::wire::Put;
        let epoch = self.epoch;
        let Some(link) = self.links.get_mut(&id) else { return };
        link.told_epoch = Some(epoch);
        let sent = link.outgoing.get(&MemberIndex::SELF).map_or(Seq::ZERO, |out| out.position);
        let mut frame = vec![crate::cluster::frame::kind::RESET];
        frame.put_unsigned(self.epoch.clock.into());
        frame.put_id(self.epoch.author);
        frame.put_seq(sent);
        self.send(id, frame);
    }

    pub(super) fn receive_reset(&mut self, id: LinkId, reader: &mut Reader<'_>) -> Decoded<()> {
        let epoch = ResetEpoch { clock: reader.number("epoch")?, author: reader.id("epoch")? };
        let sent = reader.seq("sent")?;
        reader.end()?;
        if epoch > self.epoch {
            self.node.shell.info("all counters are deleted: another node has asked for it");
            self.adopt_epoch(epoch);
        }
        if epoch == self.epoch
            && let Some(link) = self.links.get_mut(&id)
            && let Some(member) = link.member()
        {
            link.is_same_epoch = true;
            // What we had asked for was of the former epoch, and the peer has dropped the question.
            (link.has_asked_for_own, link.has_handed_back, link.is_handing_back) = (false, false, false);
            if let Some(peer) = self.peers.get_mut(&member) {
                let head = peer.stream.head();
                peer.stream.restart_at(head.max(sent));
            }
        }
        Ok(())
    }
}
