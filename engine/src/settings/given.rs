//! What an operator gave as the value of a setting, and the readers that turn it into types.
//!
//! A value arrives as words: those behind the name in a line of a file or behind an option, or the one text that
//! CONFIG SET has. Readers take the bounds from the setting's [`Kind`], so a bound and the message about it agree.

use super::words::Named;
use std::fmt;
use std::str::FromStr;

/// The values that a setting takes; displays as the remedy in a message.
#[derive(Clone, Copy, Debug)]
pub enum Kind {
    /// `yes` or `no`.
    Flag,
    /// A whole number within bounds, both allowed.
    Number {
        /// The lowest.
        min: u64,
        /// The highest.
        max: u64,
        /// What it counts, or more about it, for messages.
        unit: &'static str,
    },
    /// A number of bytes, perhaps with a unit.
    Memory,
    /// Permission bits, octal.
    Octal {
        /// The highest.
        max: u32,
    },
    /// One of a few words, in any letter case.
    Choice(fn() -> Vec<&'static str>),
    /// A text of UTF-8, or empty.
    Text {
        /// The most bytes.
        max_len: usize,
    },
    /// Any bytes, or none.
    Secret {
        /// The fewest bytes, if there are any.
        min_len: usize,
        /// The most.
        max_len: usize,
    },
    /// Anything else, in words that follow "expected".
    Special(&'static str),
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Kind::Flag => f.write_str("yes or no"),
            Kind::Number { min, max, unit } => write!(f, "a whole number from {min} to {max} ({unit})"),
            Kind::Memory => {
                f.write_str("a number of bytes, with k, kb, m, mb, g or gb if you like (k = 1000, kb = 1024)")
            }
            Kind::Octal { max } => write!(f, "octal permission bits from 0 to {max:o}"),
            Kind::Choice(names) => write!(f, "one of {}", names().join(", ")),
            Kind::Text { max_len } => {
                write!(f, "one text of UTF-8, at most {max_len} bytes (quote it if it has blanks)")
            }
            Kind::Secret { min_len: 0, max_len } => write!(f, "one word of at most {max_len} bytes"),
            Kind::Secret { min_len, max_len } => {
                write!(f, "one word of {min_len} to {max_len} bytes, or \"\" for none")
            }
            Kind::Special(words) => f.write_str(words),
        }
    }
}

/// Where a value was given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// In the first line or option of this name.
    FirstLine,
    /// In a later one.
    LaterLine,
    /// In CONFIG SET.
    Command,
}

/// A value as it was given.
#[derive(Clone, Copy, Debug)]
pub struct Given<'a> {
    pub(crate) kind: &'a Kind,
    pub(crate) place: Place,
    pub(crate) words: &'a [Vec<u8>],
}

/// Why a value was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SettingError {
    /// It is not of the setting's [`Kind`].
    Invalid,
    /// It breaks a rule that this text states.
    Refused(&'static str),
}

impl Given<'_> {
    /// The only word.
    pub(crate) fn word(&self) -> Result<&[u8], SettingError> {
        match self.words {
            [word] => Ok(word),
            _ => Err(SettingError::Invalid),
        }
    }

    /// `yes` or `no`.
    pub(crate) fn flag(&self) -> Result<bool, SettingError> {
        match self.word()? {
            word if word.eq_ignore_ascii_case(b"yes") => Ok(true),
            word if word.eq_ignore_ascii_case(b"no") => Ok(false),
            _ => Err(SettingError::Invalid),
        }
    }

    /// A whole number within the bounds of the kind.
    pub(crate) fn number<T: TryFrom<u64>>(&self) -> Result<T, SettingError> {
        let Kind::Number { min, max, .. } = *self.kind else { return Err(SettingError::Invalid) };
        let number = whole_number(self.word()?)?;
        if !(min..=max).contains(&number) {
            return Err(SettingError::Invalid);
        }
        T::try_from(number).map_err(|_| SettingError::Invalid)
    }

    /// A number of bytes with or without a unit.
    pub(crate) fn memory(&self) -> Result<u64, SettingError> {
        memory_size(self.word()?)
    }

    /// Octal permission bits within the bound of the kind.
    pub(crate) fn octal(&self) -> Result<u32, SettingError> {
        let Kind::Octal { max } = *self.kind else { return Err(SettingError::Invalid) };
        let word = self.word()?;
        let is_octal = !word.is_empty() && word.iter().all(|byte| (b'0'..=b'7').contains(byte));
        let bits = std::str::from_utf8(word).ok().and_then(|text| u32::from_str_radix(text, 8).ok());
        bits.filter(|bits| is_octal && *bits <= max).ok_or(SettingError::Invalid)
    }

    /// One of the names of `T`.
    pub(crate) fn choice<T: Named>(&self) -> Result<T, SettingError> {
        let word = self.word()?;
        let named = T::NAMES.iter().find(|(name, _)| name.as_bytes().eq_ignore_ascii_case(word));
        named.map(|(_, value)| *value).ok_or(SettingError::Invalid)
    }

    /// One text of UTF-8 without NUL, within the bound of the kind.
    pub(crate) fn text(&self) -> Result<String, SettingError> {
        let Kind::Text { max_len } = *self.kind else { return Err(SettingError::Invalid) };
        let word = self.word()?;
        let text = std::str::from_utf8(word).map_err(|_| SettingError::Invalid)?;
        let is_fit = text.len() <= max_len && !text.contains('\0');
        is_fit.then(|| text.to_owned()).ok_or(SettingError::Invalid)
    }

    /// The name of a file in the data directory: a text that is not empty and not a path.
    pub(crate) fn file_name(&self, refusal: &'static str) -> Result<String, SettingError> {
        let name = self.text()?;
        let is_path = name.contains(['/', '\\']) || matches!(name.as_str(), "" | "." | "..");
        if is_path { Err(SettingError::Refused(refusal)) } else { Ok(name) }
    }

    /// Bytes, none or as many as the kind wants.
    pub(crate) fn secret(&self) -> Result<Vec<u8>, SettingError> {
        let Kind::Secret { min_len, max_len } = *self.kind else { return Err(SettingError::Invalid) };
        let word = self.word()?;
        let is_fit = word.is_empty() || (min_len..=max_len).contains(&word.len());
        is_fit.then(|| word.to_vec()).ok_or(SettingError::Invalid)
    }

    /// All words, each split at its blanks, so that `save 60 1` and `CONFIG SET save "60 1"` give the same.
    pub(crate) fn list(&self) -> Vec<&[u8]> {
        let parts = self.words.iter().flat_map(|word| word.split(u8::is_ascii_whitespace));
        parts.filter(|part| !part.is_empty()).collect()
    }
}

/// Digits alone, as a number.
pub(crate) fn whole_number<T: FromStr>(word: &[u8]) -> Result<T, SettingError> {
    let digits = std::str::from_utf8(word).ok().filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()));
    digits.and_then(|digits| digits.parse().ok()).ok_or(SettingError::Invalid)
}

/// A number of bytes with or without a unit, in any letter case.
pub(crate) fn memory_size(word: &[u8]) -> Result<u64, SettingError> {
    let digits = word.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let (number, unit) = word.split_at(digits);
    let factor: u64 = match unit.to_ascii_lowercase().as_slice() {
        b"" | b"b" => 1,
        b"k" => 1_000,
        b"kb" => 1 << 10,
        b"m" => 1_000_000,
        b"mb" => 1 << 20,
        b"g" => 1_000_000_000,
        b"gb" => 1 << 30,
        _ => return Err(SettingError::Invalid),
    };
    whole_number::<u64>(number)?.checked_mul(factor).ok_or(SettingError::Invalid)
}

/// Writes a word so that it is read back as one word from a line: bare where it can be, else in double quotes.
pub(crate) fn quoted(word: &[u8]) -> Vec<u8> {
    let is_bare = |byte: &u8| byte.is_ascii_graphic() && !b"\"'\\#".contains(byte) || *byte >= 0x80;
    if !word.is_empty() && word.iter().all(is_bare) {
        return word.to_vec();
    }
    let mut text = vec![b'"'];
    for &byte in word {
        match byte {
            b'"' | b'\\' => text.extend([b'\\', byte]),
            b' '..=b'~' | 0x80.. => text.push(byte),
            _ => text.extend(format!("\\x{byte:02x}").bytes()),
        }
    }
    text.push(b'"');
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_units_are_powers_of_1000_and_with_b_of_1024() {
        let sizes: [(&[u8], u64); 9] = [
            (b"100mb", 104_857_600),
            (b"1GB", 1 << 30),
            (b"5k", 5_000),
            (b"1Kb", 1_024),
            (b"2m", 2_000_000),
            (b"3g", 3_000_000_000),
            (b"0", 0),
            (b"3b", 3),
            (b"18446744073709551615", u64::MAX),
        ];
        for (text, bytes) in sizes {
            assert_eq!(memory_size(text), Ok(bytes));
        }
    }

    #[test]
    fn odd_memory_sizes_are_refused() {
        let sizes: [&[u8]; 9] =
            [b"abc", b"-1", b"5x", b"1.5gb", b"", b"mb", b"1 mb", b"+1", b"18446744073709551615k"];
        for text in sizes {
            assert_eq!(memory_size(text), Err(SettingError::Invalid), "{text:?}");
        }
    }

    #[test]
    fn any_word_survives_quoting() {
        let every_byte: Vec<u8> = (0..=255).collect();
        let words: [&[u8]; 7] =
            [b"", b"plain", b"p \"q' \\\xc3\xbc", b"#not-a-comment", b"a\r\nb", b"\0", &every_byte];
        for word in words {
            assert_eq!(resp::split_words(&quoted(word)), Ok(vec![word.to_vec()]));
        }
    }
}
