//! The cluster as client threads see it: one immutable picture, replaced as a whole by the thread that owns the cluster.
//!
//! Holds what CLUSTER NODES, INFO, LINKS, MYID, COUNT-FAILURE-REPORTS, HELLO and GET ... STATE answer from. The line of CLUSTER
//! NODES is also the line of the nodes file (`NodeLine`), which is the original's:
//! `ID IP:PORT FLAGS PING-SENT PONG-RECEIVED LINK`.

use crate::cluster::members::MemberState;
use crate::ids::{NodeId, Seq};
use crate::time::Micros;
use std::fmt;
use std::net::IpAddr;

/// What a line of CLUSTER NODES is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// The node that answers.
    Myself,
    /// Another member.
    Member(MemberState),
    /// An address that CLUSTER MEET named and that has not answered yet; its id is made up.
    Handshake,
}

/// One line of CLUSTER NODES.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeLine {
    /// The node's id.
    pub id: NodeId,
    /// Its address; `None`: unknown.
    pub ip: Option<IpAddr>,
    /// Port for clients; 0 with `is_noaddr`.
    pub port: u16,
    /// Who it is and how it does.
    pub role: Role,
    /// Somebody else answers at its address.
    pub is_noaddr: bool,
    /// When the ping that has no answer yet was sent, unix ms; 0: there is none.
    pub ping_sent_ms: u64,
    /// When the last answer came, unix ms; 0: never.
    pub pong_received_ms: u64,
    /// Whether there is a link.
    pub has_link: bool,
}

impl fmt::Display for NodeLine {
    /// The line without its end.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ", self.id)?;
        if let Some(ip) = self.ip {
            write!(f, "{ip}")?;
        }
        let role = match self.role {
            Role::Myself => "myself",
            Role::Handshake => "handshake",
            Role::Member(MemberState::Suspect) => "fail?",
            Role::Member(MemberState::Down) => "fail",
            Role::Member(MemberState::Alive) if self.is_noaddr => "",
            Role::Member(MemberState::Alive) => "noflags",
        };
        let comma = if self.is_noaddr && !role.is_empty() { "," } else { "" };
        let noaddr = if self.is_noaddr { "noaddr" } else { "" };
        let link = if self.has_link { "connected" } else { "disconnected" };
        let NodeLine { port, ping_sent_ms, pong_received_ms, .. } = self;
        write!(f, ":{port} {role}{comma}{noaddr} {ping_sent_ms} {pong_received_ms} {link}")
    }
}

/// What has gone over the links to one peer since this node started, and how near it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LinkStats {
    /// Bytes sent, framing included.
    pub bytes_sent: u64,
    /// Bytes received, framing included.
    pub bytes_received: u64,
    /// Updates of shards sent.
    pub updates_sent: u64,
    /// Updates of shards received.
    pub updates_received: u64,
    /// Time from a heartbeat to its echo; `None`: not measured yet.
    pub round_trip: Option<Micros>,
    /// How long ago that was which we know of its shards; `None`: nothing is known.
    pub lag: Option<Micros>,
    /// Up to where we have applied its stream.
    pub applied: Seq,
    /// Up to where it has acknowledged ours.
    pub acknowledged: Seq,
}

/// One line of CLUSTER NODES and what else is known of that node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemberView {
    /// Its line.
    pub line: NodeLine,
    /// Port for members.
    pub bus_port: u16,
    /// Members other than this node that have not heard of it for the node timeout.
    pub failure_reports: usize,
    /// Its links; `None` for this node itself and while there has been none.
    pub stats: Option<LinkStats>,
}

/// Frames over all links since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Frames sent.
    pub messages_sent: u64,
    /// Frames received.
    pub messages_received: u64,
}

/// The cluster at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClusterView {
    /// This node, then the other members, then handshakes.
    pub nodes: Vec<MemberView>,
    /// Frames over all links.
    pub traffic: Traffic,
    /// CLUSTER MEETs that were given up.
    pub meets_failed: u64,
}

/// One node as HELLO lists it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HelloRow {
    /// Its id.
    pub id: NodeId,
    /// Its ip; empty if unknown.
    pub ip: String,
    /// Port for clients.
    pub port: u16,
    /// The lower the better for clients: 1 good, 5 no link, 10 suspected, 100 down.
    pub priority: u8,
}

impl ClusterView {
    /// A node that has met nobody.
    pub fn alone(id: NodeId, ip: Option<IpAddr>, port: u16, bus_port: u16) -> ClusterView {
        let line = NodeLine {
            id,
            ip,
            port,
            role: Role::Myself,
            is_noaddr: false,
            ping_sent_ms: 0,
            pong_received_ms: 0,
            has_link: true,
        };
        let nodes = vec![MemberView { line, bus_port, failure_reports: 0, stats: None }];
        ClusterView { nodes, traffic: Traffic::default(), meets_failed: 0 }
    }

    /// The node with that id, handshakes included.
    pub fn find(&self, id: NodeId) -> Option<&MemberView> {
        self.nodes.iter().find(|node| node.line.id == id)
    }

    /// The reply of CLUSTER NODES.
    pub fn nodes_text(&self) -> String {
        self.nodes.iter().map(|node| format!("{}\n", node.line)).collect()
    }

    /// The reply of CLUSTER INFO. `cluster_meets_failed` is shown from the first one on: a node without trouble answers
    /// the six lines of old.
    pub fn info_text(&self) -> String {
        let reachable =
            |node: &&MemberView| matches!(node.line.role, Role::Member(state) if state == MemberState::Alive);
        let mut text = format!(
            "cluster_state:ok\r\ncluster_known_nodes:{}\r\ncluster_reachable_nodes:{}\r\ncluster_size:{}\r\n\
             cluster_stats_messages_sent:{}\r\ncluster_stats_messages_received:{}\r\n",
            self.nodes.len(),
            self.nodes.iter().filter(reachable).count(),
            self.nodes.iter().filter(|node| node.line.role != Role::Handshake).count(),
            self.traffic.messages_sent,
            self.traffic.messages_received,
        );
        if self.meets_failed > 0 {
            text += &format!("cluster_meets_failed:{}\r\n", self.meets_failed);
        }
        text
    }

    /// The nodes as HELLO lists them.
    pub fn hello(&self) -> impl Iterator<Item = HelloRow> {
        self.nodes.iter().map(|node| HelloRow {
            id: node.line.id,
            ip: node.line.ip.map(|ip| ip.to_string()).unwrap_or_default(),
            port: node.line.port,
            priority: match node.line.role {
                Role::Member(MemberState::Down) => 100,
                Role::Member(MemberState::Suspect) => 10,
                Role::Member(MemberState::Alive) | Role::Handshake if !node.line.has_link => 5,
                Role::Member(MemberState::Alive) | Role::Handshake | Role::Myself => 1,
            },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(byte: u8) -> NodeId {
        NodeId([byte; 20])
    }

    fn node(byte: u8, role: Role, has_link: bool) -> MemberView {
        let mut view = ClusterView::alone(id(byte), Some(IpAddr::from([127, 0, 0, 1])), 7000, 17000);
        let mut node = view.nodes.remove(0);
        (node.line.role, node.line.has_link) = (role, has_link);
        (node.line.ping_sent_ms, node.line.pong_received_ms) = (5, 6);
        node
    }

    #[test]
    fn lines_are_those_of_the_original() {
        let aa = "aa".repeat(20);
        for (role, has_link, expected) in [
            (Role::Member(MemberState::Alive), true, "127.0.0.1:7000 noflags 5 6 connected"),
            (Role::Member(MemberState::Suspect), false, "127.0.0.1:7000 fail? 5 6 disconnected"),
            (Role::Member(MemberState::Down), false, "127.0.0.1:7000 fail 5 6 disconnected"),
            (Role::Handshake, false, "127.0.0.1:7000 handshake 5 6 disconnected"),
        ] {
            assert_eq!(node(0xaa, role, has_link).line.to_string(), format!("{aa} {expected}"));
        }
        let mut noaddr = node(0xaa, Role::Member(MemberState::Alive), false).line;
        (noaddr.ip, noaddr.port, noaddr.is_noaddr) = (None, 0, true);
        assert_eq!(noaddr.to_string(), format!("{aa} :0 noaddr 5 6 disconnected"));
        noaddr.role = Role::Member(MemberState::Suspect);
        assert_eq!(noaddr.to_string(), format!("{aa} :0 fail?,noaddr 5 6 disconnected"));
    }

    #[test]
    fn a_node_alone_answers_what_the_original_answers() {
        let view = ClusterView::alone(id(0xbb), None, 19328, 29328);
        assert_eq!(view.nodes_text(), format!("{} :19328 myself 0 0 connected\n", "bb".repeat(20)));
        assert_eq!(
            view.info_text(),
            "cluster_state:ok\r\ncluster_known_nodes:1\r\ncluster_reachable_nodes:0\r\ncluster_size:1\r\n\
             cluster_stats_messages_sent:0\r\ncluster_stats_messages_received:0\r\n"
        );
    }

    #[test]
    fn handshakes_are_known_but_not_counted_in_the_size() {
        let mut view = ClusterView::alone(id(1), None, 7000, 17000);
        view.nodes.push(node(2, Role::Member(MemberState::Alive), true));
        view.nodes.push(node(3, Role::Member(MemberState::Down), false));
        view.nodes.push(node(4, Role::Handshake, false));
        view.meets_failed = 2;
        let info = view.info_text();
        for line in [
            "cluster_known_nodes:4\r\n",
            "cluster_reachable_nodes:1\r\n",
            "cluster_size:3\r\n",
            "cluster_meets_failed:2\r\n",
        ] {
            assert!(info.contains(line), "{line} in {info}");
        }
    }

    #[test]
    fn hello_tells_clients_whom_to_prefer() {
        let mut view = ClusterView::alone(id(1), None, 7000, 17000);
        view.nodes.push(node(2, Role::Member(MemberState::Alive), true));
        view.nodes.push(node(3, Role::Member(MemberState::Alive), false));
        view.nodes.push(node(4, Role::Member(MemberState::Suspect), true));
        view.nodes.push(node(5, Role::Member(MemberState::Down), false));
        view.nodes.push(node(6, Role::Handshake, false));
        let priorities: Vec<u8> = view.hello().map(|row| row.priority).collect();
        assert_eq!(priorities, [1, 1, 5, 10, 100, 5]);
        assert_eq!(view.hello().next().unwrap().ip, "");
    }
}
