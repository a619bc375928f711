//! When a peer is called, and how long to wait after a call that failed.
//!
//! Of two members the one with the lower id calls at once; the other calls too when there is no link after
//! `HIGHER_ID_WAIT` (perhaps only its direction works). Waits after failures double up to `MAX_BACKOFF`, spread by jitter so
//! that a cluster that starts again does not call in step.

use crate::ids::{NODE_ID_LEN, NodeId};
use crate::time::Micros;

/// How long the member with the higher id waits for the other's call.
pub(crate) const HIGHER_ID_WAIT: Micros = Micros::from_secs(1);

/// The wait after the first failure.
const FIRST_BACKOFF: Micros = Micros::from_millis(100);

/// The longest wait between two calls, before jitter.
pub(crate) const MAX_BACKOFF: Micros = Micros::from_secs(2);

/// A link that ended sooner than this counts as a failed call, so that a peer that hangs up is not called in a loop.
const SHORT_LINK: Micros = Micros::from_secs(1);

/// Numbers from a seed (splitmix64), for jitter and passing ids; nothing secret comes from it.
#[derive(Clone, Debug)]
pub(crate) struct Jitter(pub(crate) u64);

impl Jitter {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Three quarters to five quarters of `wait`.
    fn spread(&mut self, wait: Micros) -> Micros {
        Micros(wait.0 - wait.0 / 4 + self.next() % (wait.0 / 2 + 1))
    }

    /// An id for something that has none yet.
    pub(crate) fn id(&mut self) -> NodeId {
        let mut id = [0; NODE_ID_LEN];
        id.chunks_mut(8).for_each(|part| part.copy_from_slice(&self.next().to_le_bytes()[..part.len()]));
        NodeId(id)
    }
}

/// The calls to one peer.
#[derive(Clone, Debug)]
pub(crate) struct Dialing {
    next: Micros,
    failures: u32,
    is_under_way: bool,
    linked_since: Option<Micros>,
}

impl Dialing {
    /// The first call is due at `next`.
    pub(crate) fn new(next: Micros) -> Dialing {
        Dialing { next, failures: 0, is_under_way: false, linked_since: None }
    }

    /// When to call; `NEVER` while there is a link or a call is under way.
    pub(crate) fn deadline(&self) -> Micros {
        if self.has_link() || self.is_under_way { Micros::NEVER } else { self.next }
    }

    pub(crate) fn begin(&mut self) {
        self.is_under_way = true;
    }

    /// The call was not answered, or by somebody else.
    pub(crate) fn failed(&mut self, now: Micros, jitter: &mut Jitter) {
        let wait = Micros(FIRST_BACKOFF.0 << self.failures.min(8)).min(MAX_BACKOFF);
        self.failures = self.failures.saturating_add(1);
        self.is_under_way = false;
        self.next = now + jitter.spread(wait);
    }

    pub(crate) fn linked(&mut self, now: Micros) {
        self.linked_since.get_or_insert(now);
        self.is_under_way = false;
    }

    /// The last link has ended; calls are due after `wait`.
    pub(crate) fn unlinked(&mut self, now: Micros, wait: Micros, jitter: &mut Jitter) {
        match self.linked_since.take() {
            Some(since) if now.since(since) < SHORT_LINK => self.failed(now, jitter),
            Some(_) | None => self.failures = 0,
        }
        self.is_under_way = false;
        self.next = self.next.max(now + wait);
    }

    /// There is a new address to try: calls at once, unless one is under way.
    pub(crate) fn retry(&mut self, now: Micros) {
        self.failures = 0;
        self.next = self.next.min(now);
    }

    pub(crate) fn has_link(&self) -> bool {
        self.linked_since.is_some()
    }

    /// Calls that failed since the last link that lasted.
    pub(crate) fn failures(&self) -> u32 {
        self.failures
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_the_limit_and_keep_within_a_quarter() {
        let mut jitter = Jitter(7);
        let mut dialing = Dialing::new(Micros(0));
        for expected in [100, 200, 400, 800, 1600, 2000, 2000] {
            let now = Micros::from_secs(10);
            dialing.begin();
            assert_eq!(dialing.deadline(), Micros::NEVER);
            dialing.failed(now, &mut jitter);
            let wait = dialing.deadline().since(now).millis();
            assert!((expected * 3 / 4..=expected * 5 / 4).contains(&wait), "{wait} for {expected}");
        }
    }

    #[test]
    fn a_peer_that_hangs_up_is_called_ever_more_seldom() {
        let (mut jitter, mut now) = (Jitter(1), Micros(0));
        let mut dialing = Dialing::new(now);
        for _ in 0..6 {
            dialing.begin();
            dialing.linked(now);
            dialing.unlinked(now, Micros(0), &mut jitter);
            now = dialing.deadline();
        }
        let before = now;
        dialing.begin();
        dialing.linked(now);
        dialing.unlinked(now, Micros(0), &mut jitter);
        assert!(dialing.deadline().since(before) >= Micros::from_millis(1500));
        dialing.begin();
        dialing.linked(now);
        now = now + Micros::from_secs(5);
        dialing.unlinked(now, Micros(0), &mut jitter);
        assert_eq!(dialing.deadline(), now);
    }

    #[test]
    fn the_same_seed_gives_the_same_ids() {
        assert_eq!(Jitter(3).id(), Jitter(3).id());
        assert_ne!(Jitter(3).id(), Jitter(4).id());
    }
}
