//! Splitting a line into words: inline commands, the lines of a configuration file, the prompt of the CLI.
//!
//! Rules:
//! - Words are separated by blanks: space, tab, CR, LF, vertical tab, form feed. All other bytes,
//!   NUL among them, are ordinary.
//! - `"..."`: `\xHH` is a byte, `\n \r \t \b \a` are control bytes, any other escaped byte is itself.
//! - `'...'`: only `\'` is special.
//! - A quoted part may follow unquoted text directly (`a"b c"` is one word); a closing quote is
//!   followed by a blank or the end. An empty quoted part makes an empty word.
//! - Outside quotes a backslash is an ordinary byte.

use std::fmt;

/// Part of a buffer: from `start` up to, but without, `end`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Span {
    pub(crate) start: usize,
    pub(crate) end: usize,
}

/// Why a line can't be split. Positions are bytes from the start of the line, from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SplitError {
    /// The quote that opens here is not closed.
    OpenQuote(usize),
    /// The quote that closes here is followed by something other than a blank.
    TextAfterQuote(usize),
}

impl fmt::Display for SplitError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OpenQuote(at) => write!(f, "the quote at column {} is not closed", at + 1),
            Self::TextAfterQuote(at) => {
                write!(f, "the closing quote at column {} must be followed by a blank", at + 1)
            }
        }
    }
}

impl std::error::Error for SplitError {}

/// Splits a line into words by the rules of inline commands.
///
/// # Errors
/// A quote that is not closed, or that has text directly behind its closing quote.
pub fn split_words(line: &[u8]) -> Result<Vec<Vec<u8>>, SplitError> {
    let mut bytes = Vec::new();
    let mut spans = Vec::new();
    split_quoted(line, &mut bytes, &mut spans)?;
    Ok(spans.iter().map(|span| bytes[span.start..span.end].to_vec()).collect())
}

/// Splits a line without quotes; the spans are positions in the line.
pub(crate) fn split_plain(line: &[u8], spans: &mut Vec<Span>) {
    let mut at = 0;
    while let Some(start) = word_start(line, at) {
        at = line[start..].iter().position(|&byte| is_blank(byte)).map_or(line.len(), |len| start + len);
        spans.push(Span { start, end: at });
    }
}

/// Splits any line; the words are appended to `bytes`, and the spans are positions in `bytes`.
pub(crate) fn split_quoted(
    line: &[u8],
    bytes: &mut Vec<u8>,
    spans: &mut Vec<Span>,
) -> Result<(), SplitError> {
    let mut at = 0;
    while let Some(word) = word_start(line, at) {
        at = word;
        let start = bytes.len();
        while let Some(&byte) = line.get(at) {
            match byte {
                b'"' => at = double_quoted(line, at, bytes)?,
                b'\'' => at = single_quoted(line, at, bytes)?,
                _ if is_blank(byte) => break,
                _ => {
                    bytes.push(byte);
                    at += 1;
                }
            }
        }
        spans.push(Span { start, end: bytes.len() });
    }
    Ok(())
}

/// Whether `split_plain` is enough for this line.
pub(crate) fn is_plain(line: &[u8]) -> bool {
    !line.iter().any(|&byte| byte == b'"' || byte == b'\'')
}

fn is_blank(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t'..=b'\r')
}

/// Where the next word starts, at or behind `at`.
fn word_start(line: &[u8], at: usize) -> Option<usize> {
    line[at..].iter().position(|&byte| !is_blank(byte)).map(|skipped| at + skipped)
}

/// Reads the part in double quotes that opens at `open`; returns the position behind it.
fn double_quoted(line: &[u8], open: usize, bytes: &mut Vec<u8>) -> Result<usize, SplitError> {
    let mut at = open + 1;
    loop {
        let (byte, len) = match line[at..] {
            [] => return Err(SplitError::OpenQuote(open)),
            [b'"', ..] => return behind_quote(line, at),
            [b'\\', b'x', high, low, ..] if high.is_ascii_hexdigit() && low.is_ascii_hexdigit() => {
                (hex_digit(high) << 4 | hex_digit(low), 4)
            }
            [b'\\', escaped, ..] => (unescape(escaped), 2),
            [byte, ..] => (byte, 1),
        };
        bytes.push(byte);
        at += len;
    }
}

/// Reads the part in single quotes that opens at `open`; returns the position behind it.
fn single_quoted(line: &[u8], open: usize, bytes: &mut Vec<u8>) -> Result<usize, SplitError> {
    let mut at = open + 1;
    loop {
        let (byte, len) = match line[at..] {
            [] => return Err(SplitError::OpenQuote(open)),
            [b'\'', ..] => return behind_quote(line, at),
            [b'\\', b'\'', ..] => (b'\'', 2),
            [byte, ..] => (byte, 1),
        };
        bytes.push(byte);
        at += len;
    }
}

fn behind_quote(line: &[u8], close: usize) -> Result<usize, SplitError> {
    match line.get(close + 1) {
        Some(&byte) if !is_blank(byte) => Err(SplitError::TextAfterQuote(close)),
        _ => Ok(close + 1),
    }
}

fn unescape(byte: u8) -> u8 {
    match byte {
        b'n' => b'\n',
        b'r' => b'\r',
        b't' => b'\t',
        b'b' => 0x08,
        b'a' => 0x07,
        other => other,
    }
}

/// The value of a byte that is known to be a hexadecimal digit.
fn hex_digit(byte: u8) -> u8 {
    match byte {
        b'0'..=b'9' => byte - b'0',
        _ => (byte | 0x20) - b'a' + 10,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &str) -> Vec<Vec<u8>> {
        split_words(line.as_bytes()).unwrap()
    }

    #[test]
    fn blanks_separate_words_and_nul_does_not() {
        assert_eq!(words("  INCR\t a \r\n"), [b"INCR".to_vec(), b"a".to_vec()]);
        assert_eq!(words("INCR a\0b"), [b"INCR".to_vec(), b"a\0b".to_vec()]);
        assert_eq!(words("\0"), [b"\0".to_vec()]);
        assert!(words("").is_empty());
        assert!(words(" \t\x0b\x0c ").is_empty());
    }

    #[test]
    fn double_quotes_know_escapes() {
        for (line, word) in [
            (r#""a b""#, &b"a b"[..]),
            (r#""q\"q""#, b"q\"q"),
            (r#""a\x41b""#, b"aAb"),
            (r#""n\nr\rt\tb\ba\a""#, b"n\nr\rt\tb\x08a\x07"),
            (r#""\x00\xff\xFf""#, b"\0\xff\xff"),
            (r#""\q\\""#, b"q\\"),
            (r#""\x4""#, b"x4"),
            (r#""\xzz""#, b"xzz"),
            (r#"a"b c""#, b"ab c"),
            (r#"a'b c'"#, b"ab c"),
        ] {
            assert_eq!(words(line), [word], "{line}");
        }
    }

    #[test]
    fn single_quotes_know_only_the_quote() {
        assert_eq!(words(r"'it\'s'"), [b"it's"]);
        assert_eq!(words(r"'a\nb'"), [br"a\nb"]);
        assert_eq!(words(r#"'say "x"'"#), [br#"say "x""#]);
    }

    #[test]
    fn backslash_outside_quotes_is_ordinary() {
        assert_eq!(words(r"a\nb \x41"), [br"a\nb".to_vec(), br"\x41".to_vec()]);
    }

    #[test]
    fn empty_quoted_words_are_kept() {
        assert_eq!(words(r#"SET "" '' x"#), [b"SET".to_vec(), vec![], vec![], b"x".to_vec()]);
    }

    #[test]
    fn quotes_must_be_closed_and_followed_by_a_blank() {
        assert_eq!(split_words(b"SET 'a 5"), Err(SplitError::OpenQuote(4)));
        assert_eq!(split_words(br#"SET "a"#), Err(SplitError::OpenQuote(4)));
        assert_eq!(split_words(br#"SET "a\"#), Err(SplitError::OpenQuote(4)));
        assert_eq!(split_words(br#"SET "a\""#), Err(SplitError::OpenQuote(4)));
        assert_eq!(split_words(br#"set """k""" v"#), Err(SplitError::TextAfterQuote(5)));
        assert_eq!(split_words(b"'a'b"), Err(SplitError::TextAfterQuote(2)));
        assert_eq!(
            split_words(b"'a'b").unwrap_err().to_string(),
            "the closing quote at column 3 must be followed by a blank"
        );
    }

    #[test]
    fn plain_lines_split_alike_both_ways() {
        for line in ["", " a", "a  b\tc ", "\0 \0", r"a\b"] {
            let mut spans = Vec::new();
            split_plain(line.as_bytes(), &mut spans);
            let plain: Vec<_> = spans.iter().map(|s| line.as_bytes()[s.start..s.end].to_vec()).collect();
            assert!(is_plain(line.as_bytes()));
            assert_eq!(plain, words(line), "{line:?}");
        }
    }
}
