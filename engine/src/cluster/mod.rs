//! The cluster side of a node: members, links, and the exchange of shards, without sockets.
//!
//! The shell (or the simulator) carries bytes: it dials when asked to, hands in every frame that arrives, and sends the
//! frames that come out. One thread owns the `Cluster`; client threads only touch the `Node` beside it.
//!
//! Lacks on purpose: sockets, encryption, threads, clocks. A frame here is what stands behind a length prefix on the wire.

mod clock;
mod dialing;
mod forgotten;
mod frame;
mod gossip;
mod meets;
mod members;
mod nodes_file;
mod updates;
mod view;
pub(crate) mod wire;

use crate::ids::NodeId;
use std::net::SocketAddr;

/// Longest frame in bytes, without its length prefix. A longer announcement is a fault of the peer.
pub const MAX_FRAME_LEN: usize = 1 << 20;

/// Names one TCP connection between two nodes; never used twice in a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LinkId(pub u64);

/// What happens to the cluster side of a node.
#[derive(Debug)]
pub enum Input<'a> {
    /// A connection that `Effect::Dial` asked for is up.
    Dialed {
        /// As in the effect.
        link: LinkId,
    },
    /// A peer has connected to the bus port; `Cluster::new_link` gave the name.
    Accepted {
        /// The connection.
        link: LinkId,
        /// Where it comes from.
        from: SocketAddr,
    },
    /// A whole frame has arrived.
    Received {
        /// The connection.
        link: LinkId,
        /// Its bytes, without the length prefix.
        frame: &'a [u8],
    },
    /// Frames that came out as `Effect::Send` have left for the socket.
    Sent {
        /// The connection.
        link: LinkId,
        /// Bytes of those frames, without length prefixes.
        bytes: usize,
    },
    /// The connection has ended or could not be made. Nothing else comes from it.
    Closed {
        /// The connection.
        link: LinkId,
        /// For the log.
        reason: &'a str,
    },
    /// `Cluster::deadline` has come, or the node has woken the cluster (a counter has changed).
    Timer,
}

/// What the shell is asked to do.
#[derive(Debug, PartialEq, Eq)]
pub enum Effect {
    /// Connect to a bus port. Answered by `Input::Dialed` or `Input::Closed`.
    Dial {
        /// The name of the connection.
        link: LinkId,
        /// Where to.
        to: SocketAddr,
    },
    /// Send a frame, behind those asked for before on this link.
    Send {
        /// The connection.
        link: LinkId,
        /// Its bytes, without the length prefix; at most `MAX_FRAME_LEN`.
        frame: Vec<u8>,
    },
    /// Send what was asked for, then close. Answered by nothing.
    Close {
        /// The connection.
        link: LinkId,
    },
    /// Write these bytes as the nodes file: temporary file, sync, rename.
    SaveNodes(Vec<u8>),
}

/// What an operator asks of the cluster (CLUSTER ...); carried out by the thread that owns it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ClusterRequest {
    /// Join the node at this address (bus port already worked out) to ours.
    Meet {
        /// Its bus address.
        bus: SocketAddr,
        /// Its client port.
        port: u16,
    },
    /// Remove a departed member; its counts stay.
    Forget(NodeId),
    /// Leave the cluster and drop all counters; `hard`: under a new id.
    Reset {
        /// Take a new id too.
        hard: bool,
    },
    /// Write the nodes file now.
    SaveConfig,
    /// Delete all counters on every member (DEBUG RESET).
    ResetAll,
}
