//! What we know of a peer's monotonic clock: bounds of its distance to ours, from the heartbeats' stamps.
//!
//! Nothing depends on machines agreeing on the time of day. A stamp that arrives tells how little the peer's clock can be
//! ahead, an echo of our own stamp how much (Cristian, "Probabilistic clock synchronization", 1989, without the
//! probability: both are bounds). Bounds widen by `DRIFT_PPM`, since clocks run at slightly different rates.

use crate::time::Micros;

/// How much faster or slower a peer's clock may run than ours, in millionths.
pub(crate) const DRIFT_PPM: i64 = 500;

/// Bounds of (peer's clock - our clock), microseconds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PeerClock {
    at_least: i64,
    at_most: i64,
    /// When the bounds were last widened.
    updated: Micros,
}

/// A moment of a peer's clock on ours, microseconds; negative before our clock began.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Local {
    /// In the middle of what it can be.
    pub(crate) best: i64,
    /// How far `best` may be off.
    pub(crate) error: i64,
}

impl Local {
    /// As the moment of a line, which wraps round below zero.
    pub(crate) fn moment(self) -> Micros {
        Micros(self.best as u64)
    }
}

/// Stands for an unknown bound; far beyond every clock, and far from overflowing.
const UNKNOWN: i64 = i64::MAX / 4;

impl Default for PeerClock {
    fn default() -> PeerClock {
        PeerClock { at_least: -UNKNOWN, at_most: UNKNOWN, updated: Micros(0) }
    }
}

impl PeerClock {
    /// Takes note of a stamp that has arrived now.
    pub(crate) fn note_arrival(&mut self, stamp: Micros, now: Micros) {
        self.widen(now);
        self.at_least = self.at_least.max(stamp.0 as i64 - now.0 as i64);
        self.mend(stamp.0 as i64 - now.0 as i64, false);
    }

    /// Takes note that our stamp `sent` had arrived there at `received` on the peer's clock.
    pub(crate) fn note_echo(&mut self, sent: Micros, received: Micros, now: Micros) {
        self.widen(now);
        self.at_most = self.at_most.min(received.0 as i64 - sent.0 as i64);
        self.mend(received.0 as i64 - sent.0 as i64, true);
    }

    fn widen(&mut self, now: Micros) {
        let elapsed = now.since(self.updated).0 as i64;
        self.updated = self.updated.max(now);
        let drift = elapsed * DRIFT_PPM / 1_000_000 + i64::from(elapsed > 0);
        self.at_least = (self.at_least - drift).max(-UNKNOWN);
        self.at_most = (self.at_most + drift).min(UNKNOWN);
    }

    /// A clock that has jumped contradicts what was known: only the newest bound stands then.
    fn mend(&mut self, newest: i64, is_upper: bool) {
        if self.at_least > self.at_most {
            if is_upper {
                (self.at_least, self.at_most) = (-UNKNOWN, newest);
            } else {
                (self.at_least, self.at_most) = (newest, UNKNOWN);
            }
        }
    }

    /// Whether both bounds are known.
    pub(crate) fn is_known(&self) -> bool {
        self.at_least > -UNKNOWN / 2 && self.at_most < UNKNOWN / 2
    }

    /// The shortest round trip that the bounds allow, as of when they were last widened; zero before the first echo.
    pub(crate) fn least_round_trip(&self) -> Micros {
        if self.is_known() { Micros((self.at_most - self.at_least) as u64) } else { Micros(0) }
    }

    /// A moment of the peer's clock (which may lie before its zero) on ours, or `None` before the first echo.
    pub(crate) fn to_local(self, moment: i64) -> Option<Local> {
        if !self.is_known() {
            return None;
        }
        let middle = self.at_least + (self.at_most - self.at_least) / 2;
        let error = (self.at_most - self.at_least) / 2 + 1;
        Some(Local { best: moment.saturating_sub(middle), error })
    }

    /// The earliest that the moment so long before a stamp of now can be on our clock; its zero if it lies before. The clocks
    /// may have drifted apart during that time too.
    pub(crate) fn earliest(self, stamp: Micros, age: Micros) -> Option<Micros> {
        let Local { best, error } = self.to_local(stamp.0 as i64)?;
        let age = age.0.min(UNKNOWN as u64) as i64;
        let drift = age / 1_000_000 * DRIFT_PPM + age % 1_000_000 * DRIFT_PPM / 1_000_000 + 1;
        Some(Micros(best.saturating_sub(error).saturating_sub(age).saturating_sub(drift).max(0) as u64))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_true_moment_lies_within_the_error() {
        // The peer's clock is 5 s ahead; messages take 3 ms there and 1 ms back.
        let mut clock = PeerClock::default();
        assert_eq!(clock.to_local(5_000_000), None);
        clock.note_echo(Micros(1_000_000), Micros(6_003_000), Micros(1_004_000));
        clock.note_arrival(Micros(6_003_000), Micros(1_004_000));
        let local = clock.to_local(6_003_000).unwrap();
        assert!((local.best - 1_003_000).abs() <= local.error, "{local:?}");
        assert!(local.error <= 2_100, "{local:?}");
    }

    #[test]
    fn what_is_long_ago_may_have_been_earlier_still() {
        let mut clock = PeerClock::default();
        clock.note_echo(Micros(9_000_000), Micros(9_003_000), Micros(9_004_000));
        clock.note_arrival(Micros(9_003_000), Micros(9_004_000));
        let at = |age| clock.earliest(Micros(9_003_000), age).unwrap();
        assert!(
            at(Micros(0)) <= Micros(9_003_000) && at(Micros(0)) >= Micros(8_999_000),
            "{:?}",
            at(Micros(0))
        );
        assert!(at(Micros(2_000_000)) <= Micros(7_003_000 - 1_000), "two seconds at 500 ppm");
        assert_eq!(at(Micros::NEVER), Micros(0));
    }

    #[test]
    fn a_clock_that_has_jumped_is_learned_anew() {
        let mut clock = PeerClock::default();
        clock.note_echo(Micros(1_000), Micros(2_000), Micros(3_000));
        clock.note_arrival(Micros(2_500), Micros(3_000));
        clock.note_arrival(Micros(9_000_000), Micros(4_000));
        assert!(!clock.is_known());
        clock.note_echo(Micros(5_000), Micros(9_002_000), Micros(6_000));
        assert!(clock.is_known());
    }
}
