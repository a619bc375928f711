//! Why the bus refuses a peer; counted by kind, and told in the log at a bounded rate.

use engine::time::Micros;
use std::cell::{Cell, RefCell};
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Lines of one kind in the log per `WINDOW`; each tells how many there were.
const LINES_PER_WINDOW: u32 = 3;

/// See `LINES_PER_WINDOW`.
const WINDOW: Micros = Micros::from_secs(10);

/// What a peer did that ended its connection, or kept it from beginning.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// It is on another machine and nothing shows that it belongs here.
    NotLoopback,
    /// Its first bytes are not those of this bus.
    Garbage,
    /// It speaks another version of the bus.
    Version(u8),
    /// It has no secret and we have.
    NoSecret,
    /// It has a secret and we have none.
    UnknownSecret,
    /// Its secret is another one, or it has none at all and pretends.
    WrongSecret,
    /// It hung up in the middle of a handshake that we began.
    HungUp,
    /// It has not shown who it is in time.
    TooSlow,
    /// Others that have not shown who they are came after it, too many of them.
    Crowded,
    /// More links than a cluster can need.
    TooManyLinks,
    /// A frame of no or too many bytes.
    FrameLength(u32),
    /// A message that was not encrypted by the peer, or not at this place.
    Tampered,
    /// It does not read what it is sent.
    DoesNotRead,
}

/// How many kinds there are.
const KINDS: usize = 13;

impl Refusal {
    fn kind(self) -> usize {
        match self {
            Refusal::NotLoopback => 0,
            Refusal::Garbage => 1,
            Refusal::Version(_) => 2,
            Refusal::NoSecret => 3,
            Refusal::UnknownSecret => 4,
            Refusal::WrongSecret => 5,
            Refusal::HungUp => 6,
            Refusal::TooSlow => 7,
            Refusal::Crowded => 8,
            Refusal::TooManyLinks => 9,
            Refusal::FrameLength(_) => 10,
            Refusal::Tampered => 11,
            Refusal::DoesNotRead => 12,
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Refusal::NotLoopback => {
                "is on another machine, and there is no cluster-secret: set the same cluster-secret on all members, or \
                 'protected-mode no' if the network around them is trusted"
            }
            Refusal::Garbage => "does not speak the protocol of the cluster bus",
            Refusal::Version(version) => {
                return write!(f, "speaks version {version} of the cluster bus, this node version {}", super::VERSION);
            }
            Refusal::NoSecret => "has no cluster-secret, this node has: all members need the same",
            Refusal::UnknownSecret => "has a cluster-secret, this node has none: all members need the same",
            Refusal::WrongSecret => "did not prove the cluster secret: is its cluster-secret the same?",
            Refusal::HungUp => {
                "ended the connection during the handshake: does it have the same cluster-secret, and does it take \
                 members from this address?"
            }
            Refusal::TooSlow => "did not finish the handshake in time",
            Refusal::Crowded => {
                return write!(
                    f,
                    "has to go: more than {} connections have not shown yet who they are",
                    super::MAX_STRANGERS
                );
            }
            Refusal::TooManyLinks => {
                return write!(f, "comes on top of {} links, and there may be no more", super::MAX_LINKS);
            }
            Refusal::FrameLength(len) => {
                let max = engine::cluster::MAX_FRAME_LEN;
                return write!(f, "announced a frame of {len} bytes; they have 1 to {max}");
            }
            Refusal::Tampered => "sent a message that the link's keys do not open",
            Refusal::DoesNotRead => {
                return write!(f, "does not read: {} bytes wait to be sent", super::MAX_WAITING_OUTPUT);
            }
        })
    }
}

/// What has been refused since the start, by kind. Any thread may look.
#[derive(Debug, Default)]
pub(crate) struct RefusalCounts([AtomicU64; KINDS]);

impl RefusalCounts {
    /// How often that kind has happened.
    #[cfg(test)]
    pub(crate) fn count(&self, refusal: Refusal) -> u64 {
        self.0[refusal.kind()].load(Ordering::Relaxed)
    }
}

/// Counts refusals and tells of them.
pub(super) struct Refusals {
    counts: Arc<RefusalCounts>,
    told: RefCell<[Told; KINDS]>,
    /// Who was the last to hang up.
    hung_up: Cell<Option<SocketAddr>>,
}

/// Lines in the log about one kind.
#[derive(Clone, Copy, Default)]
struct Told {
    since: Micros,
    lines: u32,
}

impl Refusals {
    pub(super) fn new(counts: Arc<RefusalCounts>) -> Refusals {
        Refusals { counts, told: RefCell::default(), hung_up: Cell::new(None) }
    }

    /// Counts a refusal and tells the operator, unless enough has been said of its kind.
    ///
    /// A peer that hangs up once may just have ended; one that has something against us does it again.
    pub(super) fn note(&self, peer: SocketAddr, refusal: Refusal, now: Micros) {
        let count = self.counts.0[refusal.kind()].fetch_add(1, Ordering::Relaxed) + 1;
        if refusal == Refusal::HungUp && self.hung_up.replace(Some(peer)) != Some(peer) {
            return log::debug!("cluster bus: no link with {peer}: it {refusal}");
        }
        if self.may_tell(refusal, now) {
            log::warn!("cluster bus: no link with {peer}: it {refusal} (number {count} of this kind)");
        }
    }

    /// Whether a line may be written.
    fn may_tell(&self, refusal: Refusal, now: Micros) -> bool {
        let told = &mut self.told.borrow_mut()[refusal.kind()];
        if told.lines == 0 || now.since(told.since) > WINDOW {
            *told = Told { since: now, lines: 0 };
        }
        told.lines += 1;
        told.lines <= LINES_PER_WINDOW
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_is_counted_and_told_in_a_few_lines() {
        let refusals = Refusals::new(Arc::default());
        let peer = SocketAddr::from(([127, 0, 0, 1], 1));
        let told = |secs| refusals.may_tell(Refusal::Garbage, Micros::from_secs(secs));
        for _ in 0..5 {
            refusals.note(peer, Refusal::Garbage, Micros::from_secs(1));
        }
        assert_eq!(refusals.counts.count(Refusal::Garbage), 5);
        assert!(!told(2));
        assert!(refusals.may_tell(Refusal::TooSlow, Micros::from_secs(2)));
        assert_eq!((told(12), told(12), told(12), told(12)), (true, true, true, false));
    }
}
