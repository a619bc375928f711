//! One connection to another node, and what each side has told the other over it.

use crate::cluster::LinkId;
use crate::cluster::clock::PeerClock;
use crate::cluster::members::DialTarget;
use crate::cluster::names::{NamesIn, NamesOut};
use crate::cluster::nodes_file::ResetEpoch;
use crate::cluster::stream::Stream;
use crate::ids::{MemberIndex, NodeId, Seq};
use crate::keyspace::{Cursor, HandleSet};
use crate::time::Micros;
use std::collections::BTreeMap;
use std::net::IpAddr;

/// Bytes that may wait in the shell's queue of a link before updates are held back. Heartbeats are not.
pub(crate) const MAX_QUEUED: usize = 256 * 1024;

/// A peer that is further behind than this, and than the line's own round trip, is given no more until it has worked off what it
/// has: it would only wait in the system's buffers, and what is newer behind it. Heartbeats alone make it 200 ms. Who hears nothing
/// of that for twice as long stops as well, since the news may wait in such buffers too.
pub(crate) const MAX_BEHIND: Micros = Micros::from_secs(1);

/// How far the two sides have come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// We have asked the shell to connect.
    Dialing,
    /// Connected; the other's Hello has not come.
    Greeting,
    /// It is the link to this member.
    Established(MemberIndex),
}

/// A stream that is sent over a link.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Outgoing {
    /// Everything up to here has been sent.
    pub(crate) position: Seq,
    /// Of a counter that was published more than once since, the peer gets the last only, here or in what follows up to the
    /// head.
    pub(crate) has_gaps: bool,
    /// A walk over all counters, under way because the ring does not reach back to `position`.
    pub(crate) walk: Option<Walk>,
}

/// A walk over all counters on behalf of a peer that is far behind.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Walk {
    pub(crate) cursor: Cursor,
    /// Where the stream was when the walk began; with its end the peer has everything up to here.
    pub(crate) target: Seq,
    /// Beyond that, with everything that we may have had up to here when it began; zero: nothing.
    pub(crate) ahead: Seq,
    /// Shards up to here are not sent; zero sends a copy of everything.
    pub(crate) from: Seq,
    pub(crate) is_first_frame: bool,
}

impl Walk {
    /// For a reader of this stream at `position`. What comes `ahead` of the rest is among it.
    pub(crate) fn begin(stream: &Stream, ahead: Seq, position: Seq) -> Walk {
        let from = if stream.is_below_removed(position) { Seq::ZERO } else { position };
        Walk { cursor: 0, target: stream.head(), ahead, from, is_first_frame: true }
    }
}

/// What a link has carried.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Carried {
    pub(crate) bytes_sent: u64,
    pub(crate) bytes_received: u64,
    pub(crate) updates_sent: u64,
    pub(crate) updates_received: u64,
}

impl Carried {
    /// Adds what another link has carried.
    pub(crate) fn add(&mut self, other: &Carried) {
        self.bytes_sent += other.bytes_sent;
        self.bytes_received += other.bytes_received;
        self.updates_sent += other.updates_sent;
        self.updates_received += other.updates_received;
    }
}

/// One connection.
#[derive(Debug)]
pub(crate) struct Link {
    pub(crate) id: LinkId,
    pub(crate) phase: Phase,
    /// What we dialled; `None`: the other side did.
    pub(crate) target: Option<DialTarget>,
    pub(crate) from: Option<IpAddr>,
    pub(crate) opened: Micros,
    pub(crate) last_received: Micros,
    pub(crate) clock: PeerClock,
    /// The last stamp that we have received, and when.
    pub(crate) last_stamp: Option<(Micros, Micros)>,
    /// We have echoed a stamp: from now on the peer can tell our clock, so lines may be sent.
    pub(crate) has_echoed: bool,
    /// When the peer sent its last heartbeat, how long ago that was sent which it had worked off. What waits on the way back does
    /// not count.
    behind: Micros,
    /// The latest of our stamps that it has echoed.
    echoed: Option<Micros>,
    pub(crate) round_trip: Option<Micros>,
    /// Bytes in the shell's queue.
    pub(crate) queued: usize,
    /// The peer's indices of members -> ours.
    pub(crate) indices: BTreeMap<MemberIndex, MemberIndex>,
    /// Who the peer's indices are, as its last `members` frame said.
    pub(crate) ids: Vec<(MemberIndex, NodeId)>,
    pub(crate) names_out: NamesOut,
    pub(crate) names_in: NamesIn,
    /// By owner of the shards: what the peer wants from us. Our own stream is always among them.
    pub(crate) outgoing: BTreeMap<MemberIndex, Outgoing>,
    /// The `members` frame that the peer has.
    pub(crate) members_sent: Option<(u64, u64)>,
    /// The reset epoch that we have told the peer last.
    pub(crate) told_epoch: Option<ResetEpoch>,
    /// The peer's shards are of the same reset epoch as ours.
    pub(crate) is_same_epoch: bool,
    pub(crate) carried: Carried,
    /// In the peer's last heartbeat: it sends us everything up to what it has published.
    pub(crate) is_incoming_complete: bool,
    /// In the peer's last heartbeat: it does not know yet what its own shards are.
    pub(crate) is_peer_recovering: bool,
    /// We have asked the peer what it holds of our own shards.
    pub(crate) has_asked_for_own: bool,
    /// It has answered that.
    pub(crate) has_handed_back: bool,
    /// It goes on to tell us what it gets to know of our own shards.
    pub(crate) is_handing_back: bool,
    /// What it says of that is out of date unless it had heard us since.
    pub(crate) asked_again: Micros,
    /// Streams that we are receiving a copy of everything of, and what was mentioned.
    pub(crate) copying: BTreeMap<MemberIndex, HandleSet>,
}

impl Link {
    pub(crate) fn new(id: LinkId, target: Option<DialTarget>, from: Option<IpAddr>, now: Micros) -> Link {
        Link {
            id,
            phase: if target.is_some() { Phase::Dialing } else { Phase::Greeting },
            target,
            from,
            opened: now,
            last_received: now,
            clock: PeerClock::default(),
            last_stamp: None,
            has_echoed: false,
            behind: Micros(0),
            echoed: None,
            round_trip: None,
            queued: 0,
            indices: BTreeMap::new(),
            ids: Vec::new(),
            names_out: NamesOut::default(),
            names_in: NamesIn::default(),
            outgoing: BTreeMap::new(),
            members_sent: None,
            told_epoch: None,
            is_same_epoch: false,
            carried: Carried::default(),
            is_incoming_complete: false,
            is_peer_recovering: true,
            has_asked_for_own: false,
            has_handed_back: false,
            is_handing_back: false,
            asked_again: Micros(0),
            copying: BTreeMap::new(),
        }
    }

    /// The member at the other end, once the Hellos are exchanged.
    pub(crate) fn member(&self) -> Option<MemberIndex> {
        match self.phase {
            Phase::Established(member) => Some(member),
            Phase::Dialing | Phase::Greeting => None,
        }
    }

    /// At this stamp of its own clock the peer had worked off what we had sent up to `echo`, of ours.
    pub(crate) fn note_behind(&mut self, stamp: Micros, echo: Micros) {
        let sent = self.clock.to_local(stamp.0 as i64).map(|local| Micros(local.best.max(0) as u64));
        self.behind = sent.map_or(Micros(0), |sent| sent.since(echo));
        self.echoed = self.echoed.max(Some(echo));
    }

    /// Whether the peer has too much to work off.
    pub(crate) fn is_behind(&self, now: Micros) -> bool {
        let without_news = self.echoed.map_or(Micros(0), |stamp| now.since(stamp));
        let round_trip = self.clock.least_round_trip();
        self.behind > MAX_BEHIND + round_trip || without_news > MAX_BEHIND + MAX_BEHIND + round_trip
    }

    /// Who has dialled, given who the two are: of two links between the same nodes the one dialled by the lower id stays.
    pub(crate) fn is_dialled_by_lower(&self, own: NodeId, peer: NodeId) -> bool {
        if self.target.is_some() { own < peer } else { peer < own }
    }
}
