//! The members of the cluster as this node knows them: who, where, since when silent, and whom to call.
//!
//! One table with stable small indices; what belongs to a member elsewhere (shards, links) is kept under its
//! `MemberIndex`. Index 0 is this node. A removed member keeps its index, as *departed*: its shards are still there for a
//! while, and records of SETs may mention it for good. Nothing here sends or reads a clock; the caller hands in what it hears.
//!
//! Being alive is evidence, not opinion: each heartbeat and each frame of updates carries a stamp of its sender's own clock,
//! members tell each other the highest stamp that they know of everybody, and only a *higher* (incarnation, stamp) counts as
//! having heard from a member. Were ages alone passed on, two members would keep a dead third alive by telling each other, each
//! time a little younger by the time that the message was on its way. (The idea of heartbeat counters is from van Renesse et al., "A
//! Gossip-Style Failure Detection Service", 1998.)

mod calls;
mod picture;

use crate::cluster::dialing::{Dialing, Jitter};
use crate::cluster::forgotten::ForgottenIds;
use crate::cluster::gossip::{Announcement, GossipEntry};
use crate::cluster::meets::Meet;
use crate::cluster::nodes_file::NodesFile;
use crate::ids::{MemberIndex, NodeId};
use crate::time::Micros;
use std::collections::BTreeMap;
use std::fmt;

pub use crate::cluster::forgotten::MAX_FORGOTTEN;
pub use crate::cluster::meets::{FailedMeet, MAX_MEETS, TooManyMeets};
pub use crate::shard::MAX_MEMBERS;

/// Reported ages up to this are not kept: at least as long as the shortest node timeout, so they never count.
const NEGLIGIBLE_AGE: Micros = Micros::from_millis(100);

/// How recently an identity must have been heard of to make another process with it a clone rather than a restart.
pub const CLONE_WINDOW: Micros = Micros::from_secs(1);

/// How a member does, as far as this node knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum MemberState {
    /// Somebody has heard of it within the node timeout.
    Alive,
    /// Nobody we hear of has; shown as `fail?`.
    Suspect,
    /// And a majority of all known members, it and us included, agrees; shown as `fail`.
    Down,
}

/// Whom to call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DialTarget {
    /// A member.
    Member(MemberIndex),
    /// The meeting with that made-up id.
    Meet(NodeId),
}

/// What a piece of gossip has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum News {
    /// Nothing that others must be told.
    None,
    /// A member that was not known.
    Added(MemberIndex),
    /// A member has said something newer about itself.
    Changed(MemberIndex),
    /// A member was removed; its index is departed now.
    Forgotten(MemberIndex),
    /// An id is barred that was not a member here.
    Barred,
    /// The others have removed us: we must begin anew to come back.
    WeAreForgotten,
    /// Somebody uses our id with this later incarnation: a clone, or ourselves before the clock was set back.
    NewerSelf(u32),
    /// There is no room for a further member.
    Full,
}

/// How to answer a Hello.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Greeting {
    /// A member or a newcomer: `merge_gossip` it, then `linked`.
    Welcome,
    /// Our own id in our own incarnation: we have called ourselves.
    Ourselves,
    /// Another process has our id.
    OurClone,
    /// Another process with that id, in another incarnation, was alive a moment ago.
    Clone,
    /// A node of that id was removed: it must begin anew (CLUSTER RESET) and under another to come back.
    Forgotten,
    /// There is no room for a further member.
    Full,
}

/// What a heartbeat says about a third member.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Report {
    /// That member's incarnation and the highest stamp of its own clock that the reporter knows of.
    pub evidence: (u32, Micros),
    /// How long ago that reached the reporter.
    pub age: Micros,
}

/// There are `MAX_MEMBERS` members.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MembersFull;

impl fmt::Display for MembersFull {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "there are {MAX_MEMBERS} members already, departed ones included; remove some with CLUSTER FORGET"
        )
    }
}

/// What is known of one member.
#[derive(Clone, Debug)]
struct Member {
    announced: Announcement,
    is_departed: bool,
    is_noaddr: bool,
    /// Highest (incarnation, stamp of its clock) that is known.
    evidence: (u32, Micros),
    /// When that was; at first the moment at which we learned of the member.
    last_heard: Micros,
    /// When its last link ended.
    unlinked: Option<Micros>,
    /// By reporter: when it last said so, and how long it had not heard of this member.
    reports: BTreeMap<MemberIndex, (Micros, Micros)>,
    dialing: Dialing,
    ping_sent_ms: u64,
    pong_received_ms: u64,
}

impl Member {
    fn new(announced: Announcement, now: Micros, dial: Micros) -> Member {
        Member {
            announced,
            is_departed: false,
            is_noaddr: false,
            evidence: (announced.incarnation, Micros(0)),
            last_heard: now,
            unlinked: None,
            reports: BTreeMap::new(),
            dialing: Dialing::new(dial),
            ping_sent_ms: 0,
            pong_received_ms: 0,
        }
    }

    fn incarnation(&self) -> u32 {
        self.announced.incarnation.max(self.evidence.0)
    }

    /// Members that have lately said that they had not heard of it for `timeout`.
    fn votes(&self, now: Micros, timeout: Micros) -> usize {
        self.reports.values().filter(|(said, age)| now.since(*said) <= timeout && *age > timeout).count()
    }
}

/// All members. Invariants: slot 0 is this node and never departed; `live` holds exactly the members that are not
/// departed; an index is never given to another id.
#[derive(Clone, Debug)]
pub struct Members {
    slots: Vec<Option<Member>>,
    live: BTreeMap<NodeId, MemberIndex>,
    meets: Vec<Meet>,
    meets_failed: u64,
    forgotten: ForgottenIds,
    /// The others have removed us.
    is_removed: bool,
    /// By CLUSTER RESET, and nobody has taken us in since.
    has_left: bool,
    jitter: Jitter,
    revision: u64,
    departed_revision: u64,
}

impl Members {
    /// A node that knows nobody. `own.ip` is `cluster-announce-ip`, if any; without it the others see where its calls come from.
    /// `seed` decides jitter and made-up ids.
    pub fn new(own: Announcement, seed: u64, now: Micros) -> Members {
        Members {
            slots: vec![Some(Member::new(own, now, Micros::NEVER))],
            live: BTreeMap::from([(own.id, MemberIndex::SELF)]),
            meets: Vec::new(),
            meets_failed: 0,
            forgotten: ForgottenIds::default(),
            is_removed: false,
            has_left: false,
            jitter: Jitter(seed),
            revision: 0,
            departed_revision: 0,
        }
    }

    /// The node that the file tells of. From `own` come address and incarnation, which is raised above the file's; id and
    /// `joined` come from the file.
    pub fn load(file: &NodesFile, mut own: Announcement, seed: u64, now: Micros) -> Members {
        own.id = file.myself.line.id;
        own.joined = file.myself.joined;
        own.incarnation = own.incarnation.max(file.myself.incarnation.saturating_add(1));
        let mut members = Members::new(own, seed, now);
        members.has_left = file.has_left;
        for forgotten in &file.forgotten {
            members.forgotten.insert(*forgotten);
        }
        for saved in &file.members {
            if let News::Added(index) = members.merge_member(saved.announcement(), now) {
                let member = members.slot_mut(index);
                member.is_noaddr = saved.line.is_noaddr;
                member.pong_received_ms = saved.line.pong_received_ms;
            }
        }
        members.revision = 0;
        members
    }

    // ---- Who ----

    /// Whether that index is a member's, and not a departed one's.
    pub(crate) fn index_of_live(&self, index: MemberIndex) -> bool {
        self.slots
            .get(usize::from(index.0))
            .and_then(Option::as_ref)
            .is_some_and(|member| !member.is_departed)
    }

    /// What this node says about itself.
    pub fn own(&self) -> &Announcement {
        &self.slot(MemberIndex::SELF).announced
    }

    /// The member with that id; not one that has departed.
    pub fn index_of(&self, id: NodeId) -> Option<MemberIndex> {
        self.live.get(&id).copied()
    }

    /// The departed member with that id.
    pub fn departed_index_of(&self, id: NodeId) -> Option<MemberIndex> {
        self.departed().find(|(_, departed)| *departed == id).map(|(index, _)| index)
    }

    /// What the member at that index last said about itself; `None` if there is none. Departed ones included.
    pub fn announced(&self, index: MemberIndex) -> Option<&Announcement> {
        self.slots.get(usize::from(index.0))?.as_ref().map(|member| &member.announced)
    }

    /// The member's highest known incarnation; a link that speaks for a lower one is out of date.
    pub fn incarnation(&self, index: MemberIndex) -> u32 {
        self.slot(index).incarnation()
    }

    /// The other members, by id.
    pub fn peers(&self) -> impl Iterator<Item = (MemberIndex, &Announcement)> {
        self.live
            .values()
            .filter(|index| **index != MemberIndex::SELF)
            .map(|index| (*index, &self.slot(*index).announced))
    }

    /// Members that were removed, and others that shards or records found here are of.
    pub fn departed(&self) -> impl Iterator<Item = (MemberIndex, NodeId)> {
        self.slots.iter().enumerate().filter_map(|(index, slot)| match slot {
            Some(member) if member.is_departed => Some((MemberIndex(index as u16), member.announced.id)),
            Some(_) | None => None,
        })
    }

    /// Changes whenever `departed` does.
    pub(crate) fn departed_revision(&self) -> u64 {
        self.departed_revision
    }

    /// Whether this node has left by CLUSTER RESET and nobody has taken it in since: others that still know it do not get it back
    /// by calling it.
    pub(crate) fn has_left(&self) -> bool {
        self.has_left
    }

    /// Another member has sent us what only members get.
    pub(crate) fn note_taken_in(&mut self) {
        self.revision += u64::from(self.has_left);
        self.has_left = false;
    }

    /// Another node says that we were removed.
    pub(crate) fn note_removed(&mut self) {
        self.is_removed = true;
    }

    /// Whether the others have removed this node.
    pub(crate) fn is_removed(&self) -> bool {
        self.is_removed
    }

    /// Whether a node of that id was removed from the cluster, however long ago.
    pub(crate) fn is_forgotten(&self, id: NodeId) -> bool {
        self.forgotten.holds(id)
    }

    /// An index for a departed member whose shards were found on disk, or that a peer speaks of.
    ///
    /// # Errors
    /// `MembersFull`; nothing has changed.
    pub fn add_departed(&mut self, id: NodeId, now: Micros) -> Result<MemberIndex, MembersFull> {
        if let Some(index) = self.departed_index_of(id) {
            return Ok(index);
        }
        let announced =
            Announcement { id, incarnation: 0, joined: 0, number: 0, ip: None, port: 0, bus_port: 0 };
        let mut member = Member::new(announced, now, Micros::NEVER);
        member.is_departed = true;
        self.departed_revision += 1;
        self.put(member)
    }

    fn drop_reports_by(&mut self, index: MemberIndex) {
        for member in self.slots.iter_mut().flatten() {
            member.reports.remove(&index);
        }
    }

    /// Rises whenever something changed that the nodes file and other members should have.
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// A peer knows an incarnation of ours that is higher than the present one (the clock was set back): goes above it.
    pub fn raise_incarnation(&mut self, above: u32) {
        let own = &mut self.slot_mut(MemberIndex::SELF).announced;
        let raised = own.incarnation.max(above.saturating_add(1));
        if raised != own.incarnation {
            (own.incarnation, own.number) = (raised, 0);
            self.revision += 1;
        }
    }

    /// An id that nobody has, from the seed.
    pub fn made_up_id(&mut self) -> NodeId {
        self.jitter.id()
    }

    /// Begins anew, knowing nobody: CLUSTER RESET. `id`: a new one for HARD. The incarnation is raised at least by one.
    pub fn reset(&mut self, id: Option<NodeId>, incarnation: u32, now: Micros) {
        let mut own = *self.own();
        own.id = id.unwrap_or(own.id);
        own.incarnation = incarnation.max(own.incarnation.saturating_add(1));
        (own.joined, own.number) = (own.incarnation, 0);
        let revision = self.revision + 1;
        let meets_failed = self.meets_failed;
        *self = Members::new(own, self.jitter.0, now);
        (self.meets_failed, self.revision) = (meets_failed, revision);
        self.has_left = true;
    }

    /// Takes another id; only while this node has left, so that nobody knows it by the one that it has.
    pub(crate) fn rename(&mut self, id: NodeId) {
        debug_assert!(self.has_left, "others know this node by its id");
        let own = self.slot_mut(MemberIndex::SELF);
        let before = std::mem::replace(&mut own.announced.id, id);
        self.live.remove(&before);
        self.live.insert(id, MemberIndex::SELF);
        self.revision += 1;
    }

    // ---- Gossip ----

    /// Everything that other members should know: all members whose bus port is known, ourselves first, then removed ones.
    pub fn gossip(&self) -> Vec<GossipEntry> {
        let others = self.peers().map(|(_, announced)| *announced);
        std::iter::once(*self.own())
            .chain(others)
            .filter(|announced| announced.bus_port != 0)
            .map(GossipEntry::Member)
            .chain(self.forgotten.iter().map(GossipEntry::Forgotten))
            .collect()
    }

    /// Takes what another member tells. Idempotent; the order of news does not matter, but for ips that only observers know.
    pub fn merge_gossip(&mut self, entry: GossipEntry, now: Micros) -> News {
        match entry {
            GossipEntry::Member(announced) => self.merge_member(announced, now),
            GossipEntry::Forgotten(id) => self.merge_forgotten(id),
        }
    }

    fn merge_member(&mut self, mut told: Announcement, now: Micros) -> News {
        told.ip = told.ip.map(|ip| ip.to_canonical()).filter(|ip| !ip.is_unspecified() && !ip.is_multicast());
        if self.forgotten.holds(told.id) {
            return News::None;
        }
        let Some(index) = self.index_of(told.id) else {
            let dial = now + self.wait_for(told.id);
            return match self.put(Member::new(told, now, dial)) {
                Ok(index) => News::Added(index),
                Err(MembersFull) => News::Full,
            };
        };
        let known = self.slot(index).announced;
        let is_newer = told.version() > known.version();
        if index == MemberIndex::SELF {
            let is_later = told.incarnation > known.incarnation;
            return if is_later { News::NewerSelf(told.incarnation) } else { News::None };
        }
        let fills_ip = told.version() == known.version() && known.ip.is_none() && told.ip.is_some();
        if !is_newer && !fills_ip {
            return News::None;
        }
        let member = self.slot_mut(index);
        member.announced = told;
        if told.bus() != known.bus() || is_newer {
            member.is_noaddr = false;
            member.dialing.retry(now);
        }
        self.revision += 1;
        News::Changed(index)
    }

    fn merge_forgotten(&mut self, id: NodeId) -> News {
        if id == self.own().id {
            self.is_removed = true;
            return News::WeAreForgotten;
        }
        let is_news = self.forgotten.insert(id);
        self.revision += u64::from(is_news);
        match self.index_of(id) {
            Some(index) => {
                self.live.remove(&id);
                self.slot_mut(index).is_departed = true;
                self.departed_revision += 1;
                self.drop_reports_by(index);
                News::Forgotten(index)
            }
            None if is_news => News::Barred,
            None => News::None,
        }
    }

    /// Removes a member for good. `None` for ids that are no other member's. Ends a meeting that is shown under that id.
    pub fn forget(&mut self, id: NodeId) -> Option<MemberIndex> {
        self.meets.retain(|meet| meet.id != id);
        let index = self.index_of(id).filter(|index| *index != MemberIndex::SELF)?;
        self.merge_forgotten(id);
        Some(index)
    }

    /// How to answer a Hello with this announcement.
    pub fn greet(&self, hello: &Announcement, now: Micros) -> Greeting {
        if hello.id == self.own().id {
            let is_same = hello.incarnation == self.own().incarnation;
            return if is_same { Greeting::Ourselves } else { Greeting::OurClone };
        }
        if self.forgotten.holds(hello.id) {
            return Greeting::Forgotten;
        }
        let Some(index) = self.index_of(hello.id) else {
            let has_room = self.slots.len() < MAX_MEMBERS;
            return if has_room { Greeting::Welcome } else { Greeting::Full };
        };
        let member = self.slot(index);
        let was_heard = member.evidence.1 > Micros(0) && now.since(member.last_heard) < CLONE_WINDOW;
        let has_ended =
            member.unlinked.is_some_and(|end| member.last_heard <= end) && !member.dialing.has_link();
        if hello.incarnation != member.incarnation() && was_heard && !has_ended {
            return Greeting::Clone;
        }
        Greeting::Welcome
    }

    // ---- Alive, suspect, down ----

    /// A heartbeat of the member itself, or updates of it, with its incarnation and a stamp of its own clock.
    pub fn heard(&mut self, index: MemberIndex, evidence: (u32, Micros), when: Micros) {
        let member = self.slot_mut(index);
        if index != MemberIndex::SELF && evidence > member.evidence {
            if evidence.0 > member.evidence.0 {
                member.reports.clear();
            }
            member.evidence = evidence;
            member.last_heard = member.last_heard.max(when);
        }
    }

    /// A heartbeat of `by` tells of `about`.
    pub fn report(&mut self, by: MemberIndex, about: MemberIndex, report: Report, now: Micros) {
        if about == MemberIndex::SELF || about == by {
            return;
        }
        self.heard(about, report.evidence, now - report.age);
        let reports = &mut self.slot_mut(about).reports;
        if report.age > NEGLIGIBLE_AGE {
            reports.insert(by, (now, report.age));
        } else {
            reports.remove(&by);
        }
    }

    /// What to report of a member to others.
    pub fn known_of(&self, index: MemberIndex, now: Micros) -> Report {
        let member = self.slot(index);
        Report { evidence: member.evidence, age: now.since(member.last_heard) }
    }

    /// How a member does. The match is the specification.
    pub fn state(&self, index: MemberIndex, now: Micros, timeout: Micros) -> MemberState {
        if index == MemberIndex::SELF {
            return MemberState::Alive;
        }
        let member = self.slot(index);
        let is_silent = now.since(member.last_heard) > timeout;
        let is_agreed = (1 + member.votes(now, timeout)) * 2 > self.live.len();
        match (is_silent, is_agreed) {
            (false, false | true) => MemberState::Alive,
            (true, false) => MemberState::Suspect,
            (true, true) => MemberState::Down,
        }
    }

    /// Other members that have lately said that they had not heard of this one for the node timeout.
    pub fn failure_reports(&self, index: MemberIndex, now: Micros, timeout: Micros) -> usize {
        self.slot(index).votes(now, timeout)
    }

    // ---- Slots ----

    fn put(&mut self, member: Member) -> Result<MemberIndex, MembersFull> {
        // A node whose shards were found on disk, and that nobody has forgotten, has come back: they are its shards.
        if !member.is_departed
            && let Some(index) = self.departed_index_of(member.announced.id)
        {
            self.live.insert(member.announced.id, index);
            self.slots[usize::from(index.0)] = Some(member);
            return Ok(index);
        }
        // An index is not given again: records of SETs may still mention it.
        if self.slots.len() >= MAX_MEMBERS {
            return Err(MembersFull);
        }
        let position = self.slots.len();
        self.slots.push(None);
        let index = MemberIndex(u16::try_from(position).expect("MAX_MEMBERS is far below 65536"));
        if !member.is_departed {
            self.live.insert(member.announced.id, index);
            self.revision += 1;
        }
        self.slots[position] = Some(member);
        Ok(index)
    }

    /// The caller holds an index that was given out.
    fn slot(&self, index: MemberIndex) -> &Member {
        self.slots[usize::from(index.0)].as_ref().expect("an index that was given out")
    }

    fn slot_mut(&mut self, index: MemberIndex) -> &mut Member {
        self.slots[usize::from(index.0)].as_mut().expect("an index that was given out")
    }
}
