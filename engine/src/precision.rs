//! How far a published line may stray: an absolute amount or a share of the value.
//!
//! Few different precisions are in use at a time, so counters hold a two-byte number into a table.

use crate::counter::PrecisionId;
use crate::time::Micros;
use crate::value::Value;
use std::collections::BTreeMap;
use std::fmt;

/// The allowed deviation of a published line from the truth.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Precision {
    /// In the counter's own unit, zero or more.
    Absolute(Value),
    /// A percentage of the counter's value, zero or more.
    Percent(Value),
}

/// All numbers of the precision table are taken: `PrecisionTable::CAPACITY` different ones are in use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooManyPrecisions;

impl Precision {
    /// What a node uses when nothing else is configured.
    pub const DEFAULT: Precision = Precision::Absolute(Value::ONE);

    /// Highest percentage.
    pub const MAX_PERCENT: Value = Value::from_integer(100);

    /// Reads a number, or a number followed directly by `%`; `None` if it is anything else, negative or too large.
    pub fn parse(text: &[u8]) -> Option<Precision> {
        let (number, is_percent) = match text.strip_suffix(b"%") {
            Some(number) => (number, true),
            None => (text, false),
        };
        let value = Value::parse(number).ok().filter(|value| *value >= Value::ZERO)?;
        match is_percent {
            true => (value <= Precision::MAX_PERCENT).then_some(Precision::Percent(value)),
            false => Some(Precision::Absolute(value)),
        }
    }

    /// Writes it in a way that `parse` reads back to the same precision.
    pub fn text(self) -> Vec<u8> {
        self.to_string().into_bytes()
    }

    /// The allowed deviation in units of 10^-17 for a shard of this size; that of a percentage has `TRAVELLING_DIGITS`.
    pub fn allowed_units(self, shard: Value) -> i128 {
        match self {
            Precision::Absolute(value) => value.units(),
            // The whole hundreds first: each product below stays within 128 bits.
            Precision::Percent(percent) => {
                let hundred = 100 * Value::ONE.units();
                let (whole, rest) = (percent.units() / hundred, percent.units() % hundred);
                let size = shard.units().abs();
                let part = (size / hundred) * rest + (size % hundred) * rest / hundred;
                let allowed = size.saturating_mul(whole).saturating_add(part);
                allowed - allowed % last_travelling_digit(allowed)
            }
        }
    }
}

/// A precision that nobody has given travels with each line: beyond so many significant digits, what they cost is more than
/// they tell.
const TRAVELLING_DIGITS: u32 = 3;

/// The least that is not below `units` (zero or more) and has `TRAVELLING_DIGITS`; `units` itself next to the greatest.
pub(crate) fn travelling_above(units: i128) -> i128 {
    let digit = last_travelling_digit(units);
    match units % digit {
        0 => units,
        rest => units.saturating_add(digit - rest),
    }
}

/// What one is worth in the last of the `TRAVELLING_DIGITS`.
fn last_travelling_digit(units: i128) -> i128 {
    let digits = units.checked_ilog10().map_or(0, |zeros| zeros + 1);
    10i128.pow(digits.saturating_sub(TRAVELLING_DIGITS))
}

impl fmt::Display for Precision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Precision::Absolute(value) => value.fmt(f),
            Precision::Percent(value) => write!(f, "{value}%"),
        }
    }
}

/// How long a number that was given out is kept, whoever has it: whoever has asked for it may be about to give it to a
/// counter.
pub(crate) const GRACE: Micros = Micros::from_secs(60);

/// The precisions in use, by number, and numbers to be used again.
#[derive(Debug)]
pub(crate) struct PrecisionTable {
    places: Vec<Place>,
    numbers: BTreeMap<Precision, u16>,
    vacant: Vec<u16>,
    /// The moment, about.
    now: Micros,
}

#[derive(Clone, Copy, Debug)]
struct Place {
    precision: Precision,
    /// When the number was given out last.
    given: Micros,
}

impl PrecisionTable {
    /// Most different precisions on one node.
    pub(crate) const CAPACITY: usize = u16::MAX as usize;

    pub(crate) fn new() -> PrecisionTable {
        PrecisionTable {
            places: Vec::new(),
            numbers: BTreeMap::new(),
            vacant: Vec::new(),
            now: Micros::default(),
        }
    }

    /// How many different ones there are.
    pub(crate) fn len(&self) -> usize {
        self.numbers.len()
    }

    /// Tells the time, about; numbers that are given out from now on are kept for `GRACE` from here.
    pub(crate) fn set_now(&mut self, now: Micros) {
        self.now = now;
    }

    /// The number of a precision, given to it at first use.
    pub(crate) fn id(&mut self, precision: Precision) -> Result<PrecisionId, TooManyPrecisions> {
        let place = Place { precision, given: self.now };
        if let Some(&number) = self.numbers.get(&precision) {
            self.places[usize::from(number)] = place;
            return Ok(PrecisionId(number));
        }
        let number = match self.vacant.pop() {
            Some(number) => {
                self.places[usize::from(number)] = place;
                number
            }
            None if self.places.len() == PrecisionTable::CAPACITY => return Err(TooManyPrecisions),
            None => {
                self.places.push(place);
                (self.places.len() - 1) as u16
            }
        };
        self.numbers.insert(precision, number);
        Ok(PrecisionId(number))
    }

    /// Keeps a number as if it were given out at this moment.
    pub(crate) fn keep(&mut self, id: PrecisionId) {
        self.places[usize::from(id.0)].given = self.now;
    }

    /// Takes back the numbers that are not in use and that were given out for the last time long before `moment`.
    pub(crate) fn take_back(&mut self, moment: Micros, is_used: impl Fn(PrecisionId) -> bool) {
        let (places, vacant) = (&self.places, &mut self.vacant);
        self.numbers.retain(|_, &mut number| {
            let is_kept = is_used(PrecisionId(number)) || places[usize::from(number)].given + GRACE >= moment;
            if !is_kept {
                vacant.push(number);
            }
            is_kept
        });
    }

    pub(crate) fn precision(&self, id: PrecisionId) -> Precision {
        self.places[usize::from(id.0)].precision
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allowed(precision: &str, shard: &str) -> Value {
        let precision = Precision::parse(precision.as_bytes()).unwrap();
        Value::from_units(precision.allowed_units(Value::parse(shard.as_bytes()).unwrap())).unwrap()
    }

    #[test]
    fn a_percentage_is_a_share_of_the_value() {
        for (precision, shard, expected) in [
            ("5%", "200", "10"),
            ("1%", "-1000", "10"),
            ("0.5%", "3", "0.015"),
            ("100%", "1e20", "1e20"),
            ("1%", "1e20", "1e18"),
            ("0%", "7", "0"),
            ("1%", "123456", "1230"),
            ("3", "1e20", "3"),
        ] {
            assert_eq!(
                allowed(precision, shard).to_string(),
                Value::parse(expected.as_bytes()).unwrap().to_string()
            );
        }
    }

    #[test]
    fn what_travels_has_three_digits_and_is_not_less() {
        for (units, expected) in [(0, 0), (999, 999), (1_000, 1_000), (1_001, 1_010), (99_901, 100_000)] {
            assert_eq!(travelling_above(units), expected);
        }
        assert_eq!(travelling_above(i128::MAX), i128::MAX);
    }

    #[test]
    fn precisions_print_as_they_were_given() {
        for text in ["0", "0.1", "5%", "0.25%", "12345678.5"] {
            assert_eq!(Precision::parse(text.as_bytes()).unwrap().to_string(), text);
        }
    }

    #[test]
    fn negative_and_odd_precisions_are_refused() {
        for text in ["-1", "-0.1%", "%", "x%", "", "5%%", "inf", "nan"] {
            assert!(Precision::parse(text.as_bytes()).is_none(), "{text}");
        }
    }
}
