//! CLUSTER MEETs that are not finished: addresses that have not said yet who they are.
//!
//! A meeting ends when its address has answered (the answer names a member), or is given up after the node timeout, at
//! least `MIN_MEET_TIME`. Until then CLUSTER NODES shows it under a made-up id; afterwards it stands in the log and in a
//! counter of CLUSTER INFO, because CLUSTER MEET has answered OK long before.

use crate::cluster::dialing::{Dialing, Jitter};
use crate::ids::NodeId;
use crate::time::Micros;
use std::fmt;
use std::net::SocketAddr;

/// How long a meeting is tried, if the node timeout is shorter.
pub(crate) const MIN_MEET_TIME: Micros = Micros::from_secs(1);

/// Most meetings at a time; further ones are refused.
pub const MAX_MEETS: usize = 64;

/// Most bytes of a reason that are kept.
const MAX_REASON_LEN: usize = 200;

/// A meeting under way.
#[derive(Clone, Debug)]
pub(crate) struct Meet {
    /// A made-up id, for CLUSTER NODES.
    pub(crate) id: NodeId,
    /// Its bus address.
    pub(crate) bus: SocketAddr,
    /// Its client port, as the operator gave it.
    pub(crate) port: u16,
    pub(crate) started: Micros,
    pub(crate) ping_sent_ms: u64,
    pub(crate) dialing: Dialing,
    pub(crate) last_reason: Box<str>,
}

impl Meet {
    pub(crate) fn new(bus: SocketAddr, port: u16, now: Micros, jitter: &mut Jitter) -> Meet {
        let dialing = Dialing::new(now);
        Meet { id: jitter.id(), bus, port, started: now, ping_sent_ms: 0, dialing, last_reason: "".into() }
    }

    pub(crate) fn end(&self, timeout: Micros) -> Micros {
        self.started + timeout.max(MIN_MEET_TIME)
    }

    pub(crate) fn failed(&mut self, reason: &str, now: Micros, jitter: &mut Jitter) {
        self.last_reason = reason.chars().take(MAX_REASON_LEN).collect();
        self.dialing.failed(now, jitter);
    }

    pub(crate) fn give_up(self, now: Micros) -> FailedMeet {
        FailedMeet {
            bus: self.bus,
            tried_for: now.since(self.started),
            attempts: self.dialing.failures(),
            reason: self.last_reason,
        }
    }
}

/// A meeting that was given up; `Display` is its line in the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FailedMeet {
    /// The bus address.
    pub bus: SocketAddr,
    /// From the command to now.
    pub tried_for: Micros,
    /// Calls that failed.
    pub attempts: u32,
    /// Why the last one did; empty: it was neither answered nor refused.
    pub reason: Box<str>,
}

impl fmt::Display for FailedMeet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let reason: &str = if self.reason.is_empty() { "no answer" } else { &self.reason };
        write!(
            f,
            "CLUSTER MEET with bus address {} given up after {} ms ({} failed calls): {reason}; \
             see that a node listens there and that both have the same cluster-secret, then repeat the command",
            self.bus,
            self.tried_for.millis(),
            self.attempts
        )
    }
}

/// `MAX_MEETS` meetings are under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooManyMeets;

impl fmt::Display for TooManyMeets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{MAX_MEETS} CLUSTER MEETs are under way already; repeat the command when they have ended")
    }
}
