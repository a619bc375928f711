//! A precision as an operator or a client writes it: `0.5`, or `2%`.

use crate::value::Value;

/// How far a published line may be from the truth. Never negative, always finite, exact.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Precision {
    /// This much.
    Absolute(Value),
    /// This many hundredths of the counter's value; at most 100.
    Percent(Value),
}

impl Precision {
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
        let mut buf = [0; Value::MAX_TEXT_LEN];
        match self {
            Precision::Absolute(value) => value.format_bytes(&mut buf).to_vec(),
            Precision::Percent(value) => [value.format_bytes(&mut buf), b"%"].concat(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn round_trip(text: &str) -> Option<String> {
        Precision::parse(text.as_bytes()).map(|precision| String::from_utf8(precision.text()).unwrap())
    }

    #[test]
    fn precisions_are_exact_decimals_or_percentages() {
        for (text, shown) in
            [("1", "1"), ("0.25", "0.25"), ("1e-7", "0.0000001"), ("0", "0"), ("+2.50", "2.5")]
        {
            assert_eq!(round_trip(text).as_deref(), Some(shown));
        }
        for (text, shown) in [("5%", "5%"), ("0.1%", "0.1%"), ("100%", "100%"), ("0%", "0%")] {
            assert_eq!(round_trip(text).as_deref(), Some(shown));
        }
    }

    #[test]
    fn infinite_negative_and_odd_precisions_are_refused() {
        for text in ["inf", "-1", "nan", "", "%", "1 %", "1%%", "101%", "-1%", "1e400", "0x1", " 1"] {
            assert_eq!(round_trip(text), None, "{text:?}");
        }
    }
}
