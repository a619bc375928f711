//! `Line`: what a peer knows of a shard.
//!
//! Lacks on purpose: the precision that travels with it, and the moment at which a reader stops believing it.

use crate::time::Micros;
use crate::value::Value;

/// A straight line that a shard is expected to follow.
///
/// The anchor is the shard's exact value at publication, so that a settled line, and a shard recovered from a
/// peer, are exact. `moment` is not always the moment of publication: see *Centring* at [`Track`](super::Track).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Line {
    /// The exact value of the shard when the line was published.
    pub anchor: Value,
    /// Units (10^-17) per microsecond.
    pub slope: f64,
    /// When the line passes through the anchor, on the holder's own clock; up to a second after the
    /// publication. Wraps round: a line older than the holder's clock has a moment "before zero".
    pub moment: Micros,
}

impl Line {
    /// A line that stays at `anchor`.
    pub const fn flat(anchor: Value, moment: Micros) -> Line {
        Line { anchor, slope: 0.0, moment }
    }

    /// Whether the line stays at its anchor.
    pub fn is_flat(&self) -> bool {
        self.slope == 0.0
    }

    /// Microseconds since the line passed through its anchor; negative before. This is what travels.
    pub const fn age_micros(&self, now: Micros) -> i64 {
        now.0.wrapping_sub(self.moment.0) as i64
    }

    /// The line that has this age now, on the clock of whoever says `now`.
    pub const fn from_age(anchor: Value, slope: f64, age_micros: i64, now: Micros) -> Line {
        Line { anchor, slope, moment: Micros(now.0.wrapping_sub(age_micros as u64)) }
    }

    /// The expected value, at the end of the range if it lies beyond. The same for owner and reader, bit for
    /// bit, if the age is the same.
    pub fn at(&self, now: Micros) -> Value {
        if self.is_flat() {
            return self.anchor;
        }
        // `as` saturates, so an absurd slope ends at the end of the range.
        let growth = (self.slope * self.age_micros(now) as f64) as i128;
        Value::saturating_from_units(self.anchor.units().saturating_add(growth))
    }
}
