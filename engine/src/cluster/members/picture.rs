//! Members as people, client threads and the nodes file see them.

use super::Members;
use crate::cluster::gossip::Announcement;
use crate::cluster::nodes_file::{NodesFile, ResetEpoch, SavedMember};
use crate::cluster::view::{ClusterView, LinkStats, MemberView, NodeLine, Role, Traffic};
use crate::ids::{MemberIndex, NodeId};
use crate::time::Micros;

impl Members {
    /// A ping was sent to that member; kept until it is answered.
    pub fn ping_sent(&mut self, index: MemberIndex, unix: Micros) {
        let member = self.slot_mut(index);
        if member.ping_sent_ms == 0 {
            member.ping_sent_ms = unix.millis();
        }
    }

    /// That member has answered.
    pub fn pong_received(&mut self, index: MemberIndex, unix: Micros) {
        let member = self.slot_mut(index);
        (member.ping_sent_ms, member.pong_received_ms) = (0, unix.millis());
    }

    /// A Hello was sent in that meeting.
    pub fn meet_sent(&mut self, id: NodeId, unix: Micros) {
        if let Some(meet) = self.meets.iter_mut().find(|meet| meet.id == id) {
            meet.ping_sent_ms = unix.millis();
        }
    }

    /// The picture for client threads.
    pub fn view(
        &self,
        (now, timeout): (Micros, Micros),
        traffic: Traffic,
        stats: impl Fn(MemberIndex) -> Option<LinkStats>,
    ) -> ClusterView {
        let own = self.own();
        let mut view = ClusterView::alone(own.id, own.ip, own.port, own.bus_port);
        (view.traffic, view.meets_failed) = (traffic, self.meets_failed);
        view.nodes.extend(self.peers().map(|(index, announced)| MemberView {
            line: self.line(index, now, timeout),
            bus_port: announced.bus_port,
            failure_reports: self.failure_reports(index, now, timeout),
            stats: stats(index),
        }));
        view.nodes.extend(self.meets.iter().map(|meet| MemberView {
            line: NodeLine {
                id: meet.id,
                ip: Some(meet.bus.ip()),
                port: meet.port,
                role: Role::Handshake,
                is_noaddr: false,
                ping_sent_ms: meet.ping_sent_ms,
                pong_received_ms: 0,
                has_link: false,
            },
            bus_port: meet.bus.port(),
            failure_reports: 0,
            stats: None,
        }));
        view
    }

    fn line(&self, index: MemberIndex, now: Micros, timeout: Micros) -> NodeLine {
        let member = self.slot(index);
        let Announcement { id, ip, port, .. } = member.announced;
        let is_self = index == MemberIndex::SELF;
        NodeLine {
            id,
            ip: ip.filter(|_| !member.is_noaddr),
            port: if member.is_noaddr { 0 } else { port },
            role: if is_self { Role::Myself } else { Role::Member(self.state(index, now, timeout)) },
            is_noaddr: member.is_noaddr,
            ping_sent_ms: member.ping_sent_ms,
            pong_received_ms: member.pong_received_ms,
            has_link: is_self || member.dialing.has_link(),
        }
    }

    /// What the nodes file should hold.
    pub fn nodes_file(&self, now: Micros, timeout: Micros, reset: ResetEpoch) -> NodesFile {
        let saved = |index: MemberIndex| {
            let Announcement { incarnation, joined, number, bus_port, .. } = self.slot(index).announced;
            SavedMember { line: self.line(index, now, timeout), incarnation, joined, number, bus_port }
        };
        NodesFile {
            myself: saved(MemberIndex::SELF),
            members: self.peers().map(|(index, _)| saved(index)).collect(),
            forgotten: self.forgotten.iter().collect(),
            reset,
            has_left: self.has_left(),
        }
    }
}
