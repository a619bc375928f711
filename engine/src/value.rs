//! `Value`: the exact decimal number that every counter, increment and precision is.
//!
//! A value is an `i128` count of 10^-17 *units*, between -10^20 and 10^20, both ends allowed. So ten
//! times 0.1 is 1, and the order of increments never matters. Nothing here is a float except the two
//! marked conversions for predicted lines, which are estimates by nature.
//!
//! Lacks on purpose: multiplication and division (no command needs them), infinity, not-a-number and a
//! negative zero. No function here allocates.
//!
//! ```text
//! number   = [ "+" | "-" ] ( digits [ "." [ digits ] ] | "." digits ) [ ( "e" | "E" ) [ "+" | "-" ] digits ]
//! ```
//!
//! Whatever the text's length or exponent, the result is the nearest multiple of 10^-17, and of two equally
//! near ones the even one. Output is the shortest plain decimal: no exponent, no trailing zeros.

use std::fmt;
use std::ops::Neg;

/// Units in one: 10^17.
const UNITS_PER_ONE: u64 = 100_000_000_000_000_000;

/// The largest magnitude in units: 10^20 ones, 10^37 units.
const MAX_UNITS: i128 = 10_i128.pow(37);

/// A number of this many unit digits is out of range whatever its digits are, and a shorter one fits a `u128`.
const MAX_UNIT_DIGITS: i64 = 38;

/// Exponents beyond this mean the same as this one: no text is long enough to make up for it.
const EXPONENT_LIMIT: i64 = 100_000_000_000_000_000;

/// Digits that always fit a `u64`.
const SHORT_DIGITS: usize = 19;

/// Ten to the power of the index, up to one in units.
const POWERS_OF_TEN: [u64; Value::DECIMALS as usize + 1] = {
    let mut powers = [1; Value::DECIMALS as usize + 1];
    let mut index = 1;
    while index < powers.len() {
        powers[index] = powers[index - 1] * 10;
        index += 1;
    }
    powers
};

/// An exact decimal number between [`Value::MIN`] and [`Value::MAX`], in steps of 10^-17.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Value(i128);

/// Why a text or a sum is not a [`Value`]; nothing has changed then. Displays as the client is told it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ValueError {
    /// The text is not a decimal number (empty, blanks, hexadecimal, `inf`, `nan`, anything after the number).
    NotANumber,
    /// The number, rounded to 17 decimals, is below -10^20 or above 10^20.
    OutOfRange,
}

impl fmt::Display for ValueError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            ValueError::NotANumber => "value is not a valid float",
            ValueError::OutOfRange => "Counter value out of allowed range",
        })
    }
}

impl std::error::Error for ValueError {}

impl Value {
    /// Decimals that a value can hold.
    pub const DECIMALS: u8 = 17;
    /// Bytes of the longest text: a sign, 20 digits, a point and 17 decimals.
    pub const MAX_TEXT_LEN: usize = 39;
    /// Zero.
    pub const ZERO: Value = Value(0);
    /// One.
    pub const ONE: Value = Value(UNITS_PER_ONE as i128);
    /// The lowest value, -10^20.
    pub const MIN: Value = Value(-MAX_UNITS);
    /// The highest value, 10^20.
    pub const MAX: Value = Value(MAX_UNITS);

    /// Reads a number as a client writes it (grammar at the top of this file), in time linear in its length.
    ///
    /// # Errors
    /// `NotANumber` if the text does not fit the grammar, else `OutOfRange` if its rounded value does not fit.
    #[inline]
    pub fn parse(text: &[u8]) -> Result<Value, ValueError> {
        // One digit is what most increments are.
        if let &[digit @ b'0'..=b'9'] = text {
            return Ok(Value::from_integer(i64::from(digit - b'0')));
        }
        match parse_short_integer(text) {
            Some(value) => Ok(value),
            None => parse_any(text),
        }
    }

    /// The value of `units` times 10^-17.
    ///
    /// # Errors
    /// `OutOfRange` beyond 10^37 units either way.
    pub const fn from_units(units: i128) -> Result<Value, ValueError> {
        if units < -MAX_UNITS || units > MAX_UNITS { Err(ValueError::OutOfRange) } else { Ok(Value(units)) }
    }

    /// The value of `units` times 10^-17, or the end of the range that it lies beyond.
    pub fn saturating_from_units(units: i128) -> Value {
        Value(units.clamp(-MAX_UNITS, MAX_UNITS))
    }

    /// The value nearest to an estimate in units, or the end of the range; zero for not-a-number.
    ///
    /// For predicted lines only: a count never passes through here.
    pub fn saturating_from_f64_units(units: f64) -> Value {
        // `as` saturates and turns not-a-number into zero; ties do not matter to an estimate.
        Value::saturating_from_units(units.round() as i128)
    }

    /// A whole number; each fits.
    pub const fn from_integer(integer: i64) -> Value {
        Value(integer as i128 * UNITS_PER_ONE as i128)
    }

    /// How many times 10^-17 this is.
    pub const fn units(self) -> i128 {
        self.0
    }

    /// The float nearest to [`Value::units`], for predicted lines only.
    pub const fn units_f64(self) -> f64 {
        self.0 as f64
    }

    /// Whether this is zero.
    pub const fn is_zero(self) -> bool {
        self.0 == 0
    }

    /// The exact sum.
    ///
    /// # Errors
    /// `OutOfRange` if the sum is beyond either end.
    pub const fn checked_add(self, other: Value) -> Result<Value, ValueError> {
        // Two values in range never overflow an i128.
        Value::from_units(self.0 + other.0)
    }

    /// The exact difference.
    ///
    /// # Errors
    /// `OutOfRange` if the difference is beyond either end.
    pub const fn checked_sub(self, other: Value) -> Result<Value, ValueError> {
        Value::from_units(self.0 - other.0)
    }

    /// The sum, or the end of the range that it lies beyond. Not associative at the ends: see [`Total`].
    pub fn saturating_add(self, other: Value) -> Value {
        Value::saturating_from_units(self.0 + other.0)
    }

    /// The difference, or the end of the range that it lies beyond.
    pub fn saturating_sub(self, other: Value) -> Value {
        Value::saturating_from_units(self.0 - other.0)
    }

    /// The same magnitude with the other sign; the range is symmetric, so it always fits.
    pub const fn neg(self) -> Value {
        Value(-self.0)
    }

    /// The magnitude.
    pub const fn abs(self) -> Value {
        Value(self.0.abs())
    }

    /// How many decimals are needed to write this exactly, 0 to 17.
    pub const fn decimals(self) -> u8 {
        let (_, fraction) = split(self.0.unsigned_abs());
        shortest_fraction(fraction).1
    }

    /// The nearest value with at most `decimals` decimals; of two equally near ones the even one.
    pub const fn round_to(self, decimals: u8) -> Value {
        if decimals >= Value::DECIMALS {
            return self;
        }
        let (ones, fraction) = split(self.0.unsigned_abs());
        let step = POWERS_OF_TEN[(Value::DECIMALS - decimals) as usize];
        let (steps, rest) = (fraction / step, fraction % step);
        // With decimals to keep, the ones make an even number of steps; with none, they are the steps.
        let is_odd = if decimals == 0 { ones & 1 == 1 } else { steps & 1 == 1 };
        let is_up = rest > step / 2 || (rest == step / 2 && is_odd);
        // The ends of the range are whole numbers, so rounding never passes them.
        let fraction = (steps + is_up as u64) * step;
        Value::signed(self.0 < 0, ones * UNITS_PER_ONE as u128 + fraction as u128)
    }

    /// Writes the shortest plain decimal text into `buf` and returns it.
    pub fn format(self, buf: &mut [u8; Value::MAX_TEXT_LEN]) -> &str {
        std::str::from_utf8(self.format_bytes(buf)).expect("only digits, a sign and a point were written")
    }

    /// [`Value::format`] as bytes, without the check that they are UTF-8.
    pub fn format_bytes(self, buf: &mut [u8; Value::MAX_TEXT_LEN]) -> &[u8] {
        let start = self.write_at_end(buf);
        &buf[start..]
    }

    /// Writes the same text to the end of a buffer and returns where it starts.
    #[inline]
    pub fn write_at_end<const N: usize>(self, buf: &mut [u8; N]) -> usize {
        const { assert!(N >= Value::MAX_TEXT_LEN, "the longest text needs as much room") }
        let (ones, fraction) = split(self.0.unsigned_abs());
        let mut start = buf.len();
        if fraction != 0 {
            let (digits, len) = shortest_fraction(fraction);
            let begin = start - usize::from(len);
            // A shorter number leaves its leading zeros to be filled.
            let written = write_digits(buf, start, digits);
            buf[begin..written].fill(b'0');
            start = begin - 1;
            buf[start] = b'.';
        }
        start = match u64::try_from(ones) {
            Ok(ones) => write_digits(buf, start, ones),
            Err(_) => {
                // At most 21 digits: the last 17, then what is left.
                let (high, low) = split(ones);
                let begin = start - usize::from(Value::DECIMALS);
                let written = write_digits(buf, start, low);
                buf[begin..written].fill(b'0');
                write_digits(buf, begin, high as u64)
            }
        };
        if self.0 < 0 {
            start -= 1;
            buf[start] = b'-';
        }
        start
    }

    /// The value of units that are known to be in range.
    pub(crate) const fn from_units_in_range(units: i128) -> Value {
        debug_assert!(-MAX_UNITS <= units && units <= MAX_UNITS);
        Value(units)
    }

    const fn signed(is_negative: bool, magnitude: u128) -> Value {
        let units = magnitude as i128;
        Value(if is_negative { -units } else { units })
    }
}

impl Neg for Value {
    type Output = Value;
    fn neg(self) -> Value {
        Value(-self.0)
    }
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.format(&mut [0; Value::MAX_TEXT_LEN]))
    }
}

impl fmt::Debug for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Value({self})")
    }
}

/// The exact sum of any number of values, however far it strays beyond the range on the way.
///
/// Shards are each in range but their sum need not be. Adding them one by one would refuse or cut off at
/// moments that depend on their order, and nodes that hold the same shards would read differently.
///
/// Two halves of the units are summed apart, so 2^63 values could be included without an overflow.
#[derive(Clone, Copy, Debug, Default)]
pub struct Total {
    high: i128,
    low: u128,
}

impl Total {
    /// Adds `value`; to take one off again, include its negative.
    pub const fn include(&mut self, value: Value) {
        self.high += value.0 >> 64;
        self.low += (value.0 as u64) as u128;
    }

    /// The sum.
    ///
    /// # Errors
    /// `OutOfRange` if the sum is beyond either end.
    pub const fn checked(self) -> Result<Value, ValueError> {
        let high = self.high + (self.low >> 64) as i128;
        // Beyond 64 bits the sum is out of range in any case, and shifting would lose that.
        if high < i64::MIN as i128 || high > i64::MAX as i128 {
            return Err(ValueError::OutOfRange);
        }
        Value::from_units((high << 64) + (self.low as u64) as i128)
    }

    /// The sum, or the end of the range that it lies beyond.
    pub const fn saturating(self) -> Value {
        match self.checked() {
            Ok(value) => value,
            Err(_) if self.high + ((self.low >> 64) as i128) < 0 => Value::MIN,
            Err(_) => Value::MAX,
        }
    }
}

impl FromIterator<Value> for Total {
    fn from_iter<I: IntoIterator<Item = Value>>(values: I) -> Total {
        let mut total = Total::default();
        values.into_iter().for_each(|value| total.include(value));
        total
    }
}

/// The usual increment: at most 19 digits, perhaps with a minus. `None` is any other text, good or bad.
fn parse_short_integer(text: &[u8]) -> Option<Value> {
    let (is_negative, digits) = match text {
        [b'-', digits @ ..] => (true, digits),
        digits => (false, digits),
    };
    if digits.is_empty() || digits.len() > SHORT_DIGITS {
        return None;
    }
    let mut ones: u64 = 0;
    for byte in digits {
        let digit = byte.wrapping_sub(b'0');
        if digit > 9 {
            return None;
        }
        ones = ones * 10 + u64::from(digit);
    }
    Some(Value::signed(is_negative, u128::from(ones) * u128::from(UNITS_PER_ONE)))
}

/// The whole grammar. Syntax is checked to the last byte before the range is.
fn parse_any(text: &[u8]) -> Result<Value, ValueError> {
    let (is_negative, unsigned) = split_sign(text);
    let (whole, rest) = split_digits(unsigned);
    let (fraction, rest) = match rest {
        [b'.', rest @ ..] => split_digits(rest),
        rest => (&[][..], rest),
    };
    if whole.is_empty() && fraction.is_empty() {
        return Err(ValueError::NotANumber);
    }
    let exponent = match rest {
        [] => 0,
        [b'e' | b'E', rest @ ..] => parse_exponent(rest)?,
        _ => return Err(ValueError::NotANumber),
    };
    let magnitude = round_to_units(whole, fraction, exponent)?;
    Ok(Value::signed(is_negative, magnitude))
}

fn parse_exponent(text: &[u8]) -> Result<i64, ValueError> {
    let (is_negative, unsigned) = split_sign(text);
    let (digits, rest) = split_digits(unsigned);
    if digits.is_empty() || !rest.is_empty() {
        return Err(ValueError::NotANumber);
    }
    let magnitude = digits
        .iter()
        .fold(0, |magnitude: i64, digit| (magnitude * 10 + i64::from(digit - b'0')).min(EXPONENT_LIMIT));
    Ok(if is_negative { -magnitude } else { magnitude })
}

/// `whole.fraction * 10^exponent` in units, rounded half to even. Both are runs of ASCII digits.
fn round_to_units(whole: &[u8], fraction: &[u8], exponent: i64) -> Result<u128, ValueError> {
    let unit_exponent = exponent - fraction.len() as i64 + i64::from(Value::DECIMALS);
    // Leading zeros go, so that the number of digits tells the size; trailing ones keep their place.
    let whole = without_leading_zeros(whole);
    let fraction = if whole.is_empty() { without_leading_zeros(fraction) } else { fraction };
    let len = whole.len() + fraction.len();
    let unit_digits = len as i64 + unit_exponent;
    if len == 0 || unit_digits < 0 {
        // Zero, or below a tenth of a unit.
        return Ok(0);
    }
    if unit_digits > MAX_UNIT_DIGITS {
        return Err(ValueError::OutOfRange);
    }
    let unit_digits = unit_digits as usize;
    let kept = unit_digits.min(len);
    let mut digits = whole.iter().chain(fraction).map(|byte| byte - b'0');
    let kept_value = digits.by_ref().take(kept).fold(0, |sum: u128, digit| sum * 10 + u128::from(digit));
    let mut units = kept_value * 10_u128.pow((unit_digits - kept) as u32);
    let is_up = match digits.next() {
        None | Some(0..5) => false,
        Some(5) => units & 1 == 1 || digits.any(|digit| digit != 0),
        Some(_) => true,
    };
    units += u128::from(is_up);
    if units > MAX_UNITS as u128 { Err(ValueError::OutOfRange) } else { Ok(units) }
}

fn split_sign(text: &[u8]) -> (bool, &[u8]) {
    match text {
        [b'-', rest @ ..] => (true, rest),
        [b'+', rest @ ..] => (false, rest),
        rest => (false, rest),
    }
}

fn split_digits(text: &[u8]) -> (&[u8], &[u8]) {
    text.split_at(text.iter().take_while(|byte| byte.is_ascii_digit()).count())
}

fn without_leading_zeros(digits: &[u8]) -> &[u8] {
    &digits[digits.iter().take_while(|digit| **digit == b'0').count()..]
}

/// `units` / 10^17 and the rest, for up to 2^122 units.
///
/// 128-bit division is a slow call. 10^17 is 2^17 * 5^17, so after a shift the divisor has 40 bits, and
/// schoolbook division in 24-bit digits stays within `u64`, where the compiler multiplies by a constant.
#[inline]
const fn split(units: u128) -> (u128, u64) {
    // Up to 184, where counters that are young or seldom used are.
    if units >> 64 == 0 {
        let units = units as u64;
        return ((units / UNITS_PER_ONE) as u128, units % UNITS_PER_ONE);
    }
    split_any(units)
}

/// The same for more than 64 bits.
#[inline]
const fn split_any(units: u128) -> (u128, u64) {
    const FIVES: u64 = 5_u64.pow(17);
    const DIGIT_BITS: u32 = 24;
    const DIGIT: u64 = (1 << DIGIT_BITS) - 1;
    let shifted = units >> 17;
    let high = (shifted >> (2 * DIGIT_BITS)) as u64;
    let middle = ((high % FIVES) << DIGIT_BITS) | ((shifted >> DIGIT_BITS) as u64 & DIGIT);
    let low = ((middle % FIVES) << DIGIT_BITS) | (shifted as u64 & DIGIT);
    let quotient = (((high / FIVES) as u128) << (2 * DIGIT_BITS))
        + (((middle / FIVES) as u128) << DIGIT_BITS)
        + (low / FIVES) as u128;
    // The rest is below 10^17, so the lowest 64 bits are all of it.
    let rest = (units as u64).wrapping_sub((quotient as u64).wrapping_mul(UNITS_PER_ONE));
    (quotient, rest)
}

/// A fraction in units without its trailing zeros, and the decimals left.
#[inline]
const fn shortest_fraction(fraction: u64) -> (u64, u8) {
    if fraction == 0 {
        return (0, 0);
    }
    let (mut digits, mut len) = (fraction, Value::DECIMALS);
    while digits.is_multiple_of(1000) {
        digits /= 1000;
        len -= 3;
    }
    while digits.is_multiple_of(10) {
        digits /= 10;
        len -= 1;
    }
    (digits, len)
}

/// Writes `number` so that it ends before `end`; returns where it starts.
#[inline]
fn write_digits<const N: usize>(buf: &mut [u8; N], end: usize, mut number: u64) -> usize {
    let mut start = end;
    while number >= 100 {
        let pair = (number % 100) as u8;
        number /= 100;
        start -= 2;
        buf[start] = b'0' + pair / 10;
        buf[start + 1] = b'0' + pair % 10;
    }
    if number >= 10 {
        start -= 1;
        buf[start] = b'0' + (number % 10) as u8;
        number /= 10;
    }
    start -= 1;
    buf[start] = b'0' + number as u8;
    start
}
