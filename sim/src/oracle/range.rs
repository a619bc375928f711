//! What the judge knows of a number: exact, or between two ends after a crash that may have lost something.
//!
//! Units are those of `Value`, 10^-17. Sums saturate, since a range only grows less precise by that.

use engine::value::Value;
use std::fmt;

/// All numbers from `low` to `high`, in units of 10^-17.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Range {
    /// Lowest possible.
    pub low: i128,
    /// Highest possible.
    pub high: i128,
}

impl Range {
    /// Zero, exactly.
    pub const ZERO: Range = Range { low: 0, high: 0 };

    /// One number exactly.
    pub const fn exactly(units: i128) -> Range {
        Range { low: units, high: units }
    }

    /// Whether only one number is possible.
    pub const fn is_exact(self) -> bool {
        self.low == self.high
    }

    /// Whether this number is possible.
    pub const fn contains(self, units: i128) -> bool {
        self.low <= units && units <= self.high
    }

    /// The numbers of both and all between.
    pub fn hull(self, other: Range) -> Range {
        Range { low: self.low.min(other.low), high: self.high.max(other.high) }
    }

    /// The same with so much more possible on either side.
    pub fn widened(self, by: i128) -> Range {
        Range { low: self.low.saturating_sub(by), high: self.high.saturating_add(by) }
    }
}

impl std::ops::Add for Range {
    type Output = Range;
    fn add(self, other: Range) -> Range {
        Range { low: self.low.saturating_add(other.low), high: self.high.saturating_add(other.high) }
    }
}

impl std::ops::Sub for Range {
    type Output = Range;
    fn sub(self, other: Range) -> Range {
        Range { low: self.low.saturating_sub(other.high), high: self.high.saturating_sub(other.low) }
    }
}

impl From<Value> for Range {
    fn from(value: Value) -> Range {
        Range::exactly(value.units())
    }
}

impl fmt::Display for Range {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = Value::saturating_from_units;
        if self.is_exact() {
            text(self.low).fmt(f)
        } else {
            write!(f, "{} to {}", text(self.low), text(self.high))
        }
    }
}
