//! Patterns with `*`, `?`, `[...]` and `\`, as KEYS, SCAN, CONFIG GET and their kin take them.
//!
//! | pattern | matches |
//! |---|---|
//! | `*` | any bytes, also none |
//! | `?` | one byte |
//! | `[abc]`, `[a-z]`, `[^a]` | one byte that is, or is not, in the class; a reversed range is turned round |
//! | `\x` | the byte `x` itself, in a class too; at the end of the pattern the backslash itself |
//!
//! `]` always closes a class, so `[]` matches nothing and `[^]` any byte; a class that is not closed ends with the
//! pattern. Patterns and names are bytes: nothing is taken for an end, NUL included.
//!
//! A pattern is compiled to a machine with one state per element (Shift-And: Baeza-Yates and Gonnet, *A new approach to text
//! searching*, 1992; a star is a loop on the state that it stands at). The states are bits of words, so a match takes at most
//! name length times pattern length / 64 steps, whatever the pattern and the name.

use crate::counter::MAX_NAME_LEN;
use smallvec::{SmallVec, smallvec};

/// Longest pattern, bytes: any name with each of its bytes escaped, and room for classes.
pub(crate) const MAX_PATTERN_LEN: usize = 1024 * 1024;

/// Whether letters must agree in case.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Case {
    /// `a` and `A` differ.
    Exact,
    /// ASCII letters match in either case.
    Ignored,
}

/// The pattern is longer than `MAX_PATTERN_LEN`: this long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PatternTooLong(pub(crate) usize);

/// A compiled pattern.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Glob {
    /// Elements that take one byte each. In state n the first n of them have been matched.
    elements: usize,
    /// Words of 64 states.
    words: usize,
    /// For each byte value `words` words: the states whose next element takes that byte.
    takes: Vec<u64>,
    /// The states at which a star stands.
    loops: Vec<u64>,
}

impl Glob {
    /// # Errors
    /// The pattern is longer than `MAX_PATTERN_LEN`.
    pub(crate) fn new(pattern: &[u8], case: Case) -> Result<Glob, PatternTooLong> {
        if pattern.len() > MAX_PATTERN_LEN {
            return Err(PatternTooLong(pattern.len()));
        }
        let (mut at, mut elements) = (0, 0);
        while at < pattern.len() && elements <= MAX_NAME_LEN {
            (at, elements) = match pattern[at] {
                b'*' => (at + 1, elements),
                _ => (element(pattern, at, case).1, elements + 1),
            };
        }
        let words = elements / 64 + 1;
        let mut glob = Glob { elements, words, takes: vec![0; 256 * words], loops: vec![0; words] };
        // No name is as long as what this wants.
        if elements > MAX_NAME_LEN {
            return Ok(glob);
        }
        let (mut at, mut state) = (0, 0);
        while at < pattern.len() {
            let (word, bit) = (state / 64, 1 << (state % 64));
            if pattern[at] == b'*' {
                glob.loops[word] |= bit;
                at += 1;
                continue;
            }
            let (taken, next) = element(pattern, at, case);
            taken.each(|byte| glob.takes[usize::from(byte) * words + word] |= bit);
            (at, state) = (next, state + 1);
        }
        Ok(glob)
    }

    /// Whether the whole of `name` fits.
    pub(crate) fn is_match(&self, name: &[u8]) -> bool {
        if self.elements == 0 {
            return name.is_empty() || self.loops[0] != 0;
        }
        if self.words == 1 {
            let mut states = 1_u64;
            for &byte in name {
                states = (states & self.takes[usize::from(byte)]) << 1 | states & self.loops[0];
                if states == 0 {
                    return false;
                }
            }
            return states >> self.elements & 1 != 0;
        }
        self.is_long_match(name)
    }

    fn is_long_match(&self, name: &[u8]) -> bool {
        let mut states: SmallVec<[u64; 16]> = smallvec![0; self.words];
        states[0] = 1;
        for &byte in name {
            let takes = &self.takes[usize::from(byte) * self.words..][..self.words];
            let (mut carried, mut any) = (0, 0);
            for ((states, takes), loops) in states.iter_mut().zip(takes).zip(&self.loops) {
                let advanced = *states & takes;
                *states = advanced << 1 | carried | *states & loops;
                carried = advanced >> 63;
                any |= *states;
            }
            if any == 0 {
                return false;
            }
        }
        states[self.elements / 64] >> (self.elements % 64) & 1 != 0
    }

    /// What it takes at most to match a name of this length, in steps of about a nanosecond.
    pub(crate) fn max_steps(&self, name_len: usize) -> usize {
        self.words * name_len
    }
}

/// A set of byte values.
#[derive(Clone, Copy, Default)]
struct Bytes([u64; 4]);

impl Bytes {
    const ALL: Bytes = Bytes([u64::MAX; 4]);

    fn of(byte: u8) -> Bytes {
        let mut bytes = Bytes::default();
        bytes.add(byte);
        bytes
    }

    fn add(&mut self, byte: u8) {
        self.0[usize::from(byte / 64)] |= 1 << (byte % 64);
    }

    fn has(self, byte: u8) -> bool {
        self.0[usize::from(byte / 64)] >> (byte % 64) & 1 != 0
    }

    fn negated(self) -> Bytes {
        Bytes(self.0.map(|word| !word))
    }

    /// With each letter the other case of it, if case is ignored.
    fn in_case(self, case: Case) -> Bytes {
        let mut bytes = self;
        if case == Case::Ignored {
            self.each(|byte| {
                bytes.add(byte.to_ascii_lowercase());
                bytes.add(byte.to_ascii_uppercase());
            });
        }
        bytes
    }

    fn each(self, mut see: impl FnMut(u8)) {
        (0..=u8::MAX).filter(|&byte| self.has(byte)).for_each(&mut see);
    }
}

/// The bytes that the element starting at `at` takes, and where the next one starts.
fn element(pattern: &[u8], at: usize, case: Case) -> (Bytes, usize) {
    match pattern[at] {
        b'?' => (Bytes::ALL, at + 1),
        b'[' => class(pattern, at + 1, case),
        b'\\' if at + 1 < pattern.len() => (Bytes::of(pattern[at + 1]).in_case(case), at + 2),
        literal => (Bytes::of(literal).in_case(case), at + 1),
    }
}

/// The same for the class whose inside starts at `at`.
fn class(pattern: &[u8], mut at: usize, case: Case) -> (Bytes, usize) {
    let is_negated = pattern.get(at) == Some(&b'^');
    at += usize::from(is_negated);
    let mut bytes = Bytes::default();
    loop {
        match *pattern.get(at..).unwrap_or_default() {
            [] => break,
            [b']', ..] => {
                at += 1;
                break;
            }
            [b'\\', escaped, ..] => {
                bytes.add(escaped);
                at += 2;
            }
            [low, b'-', high, ..] => {
                (low.min(high)..=low.max(high)).for_each(|byte| bytes.add(byte));
                at += 3;
            }
            [literal, ..] => {
                bytes.add(literal);
                at += 1;
            }
        }
    }
    let bytes = bytes.in_case(case);
    (if is_negated { bytes.negated() } else { bytes }, at)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The counters of the recorded conversations.
    const NAMES: &[&str] = &[
        "a", "b", "c", "d", "abc", "abd", "abbc", "aXc", "a*c", "a?c", "a[b]c", "a\\c", "ABC", "hello",
        "hallo", "hxllo", "hllo", "heello", "key:1", "key:2", "key:10", "key:", "x-y", "x]y", "^", "-", "]",
        "[", "\\", "", "aa", "1", "12", "123",
    ];

    /// Pattern, and the names that KEYS answered for it, in the order of `NAMES`.
    const RECORDED: &[(&str, &[&str])] = &[
        ("?", &["a", "b", "c", "d", "^", "-", "]", "[", "\\", "1"]),
        ("??", &["aa", "12"]),
        ("???", &["abc", "abd", "aXc", "a*c", "a?c", "a\\c", "ABC", "x-y", "x]y", "123"]),
        ("a?c", &["abc", "aXc", "a*c", "a?c", "a\\c"]),
        ("h?llo", &["hello", "hallo", "hxllo"]),
        ("key:?", &["key:1", "key:2"]),
        ("?bc", &["abc"]),
        ("key:??", &["key:10"]),
        ("[a-c]", &["a", "b", "c"]),
        ("[abc]", &["a", "b", "c"]),
        ("h[ae]llo", &["hello", "hallo"]),
        ("a[a-zA-Z]c", &["abc", "aXc"]),
        ("[a-z]", &["a", "b", "c", "d"]),
        ("[0-9]", &["1"]),
        ("key:[0-9]", &["key:1", "key:2"]),
        ("key:[12]", &["key:1", "key:2"]),
        ("[c-a]", &["a", "b", "c"]),
        ("[b-b]", &["b"]),
        ("[^a]", &["b", "c", "d", "^", "-", "]", "[", "\\", "1"]),
        ("h[^e]llo", &["hallo", "hxllo"]),
        ("[^a-c]", &["d", "^", "-", "]", "[", "\\", "1"]),
        ("a[^b]c", &["aXc", "a*c", "a?c", "a\\c"]),
        ("[^^]", &["a", "b", "c", "d", "-", "]", "[", "\\", "1"]),
        ("[^a-zA-Z]", &["^", "-", "]", "[", "\\", "1"]),
        ("[]", &[]),
        ("[^]", &["a", "b", "c", "d", "^", "-", "]", "[", "\\", "1"]),
        ("[", &[]),
        ("[a", &["a"]),
        ("[^a", &["b", "c", "d", "^", "-", "]", "[", "\\", "1"]),
        ("a[", &[]),
        ("[a-", &["a", "-"]),
        ("[a-]", &["a", "^", "]"]),
        ("[-a]", &["a", "-"]),
        ("[]a]", &[]),
        ("[\\]]", &["]"]),
        ("[\\a]", &["a"]),
        ("[^\\]]", &["a", "b", "c", "d", "^", "-", "[", "\\", "1"]),
        ("x[]]y", &[]),
        ("x[\\]]y", &["x]y"]),
        ("\\*", &[]),
        ("a\\*c", &["a*c"]),
        ("a\\?c", &["a?c"]),
        ("a\\[b\\]c", &["a[b]c"]),
        ("\\a", &["a"]),
        ("a\\\\c", &["a\\c"]),
        ("\\", &["\\"]),
        ("\\\\", &["\\"]),
        ("a\\", &[]),
        ("\\[", &["["]),
        ("\\]", &["]"]),
        ("h\\ello", &["hello"]),
        ("abc", &["abc"]),
        ("ABC", &["ABC"]),
        ("Abc", &[]),
        ("", &[""]),
        ("nothere", &[]),
        ("a[b]c", &["abc"]),
    ];

    fn is_match(pattern: &[u8], name: &[u8], case: Case) -> bool {
        Glob::new(pattern, case).unwrap().is_match(name)
    }

    fn names_matching(pattern: &str, case: Case) -> Vec<&'static str> {
        NAMES.iter().copied().filter(|name| is_match(pattern.as_bytes(), name.as_bytes(), case)).collect()
    }

    #[test]
    fn recorded_patterns_find_the_recorded_names() {
        for (pattern, names) in RECORDED {
            assert_eq!(names_matching(pattern, Case::Exact), *names, "pattern {pattern:?}");
        }
    }

    #[test]
    fn star_matches_everything_and_one_more_byte_excludes_only_the_empty_name() {
        assert_eq!(names_matching("*", Case::Exact), NAMES);
        for pattern in ["?*", "*?"] {
            assert_eq!(names_matching(pattern, Case::Exact).len(), NAMES.len() - 1);
        }
    }

    #[test]
    fn nul_and_high_bytes_are_ordinary_bytes() {
        let matches = |pattern: &[u8], name: &[u8]| is_match(pattern, name, Case::Exact);
        assert!(matches(b"a*b", b"a\0b") && matches(b"a?b", b"a\nb") && matches(b"a\0b", b"a\0b"));
        assert!(matches(b"[\xfe-\xff]", b"\xff") && matches(b"*\0*", b"a\0b"));
        assert!(!matches(b"*\0*", b"\xff") && !matches(b"*\0zzz", b"a\0b"));
    }

    #[test]
    fn case_is_ignored_only_on_request() {
        assert_eq!(names_matching("AbC", Case::Ignored), ["abc", "ABC"]);
        assert_eq!(names_matching("[A-B]bc", Case::Ignored), ["abc", "ABC"]);
        assert_eq!(names_matching("\\ABC", Case::Ignored), ["abc", "ABC"]);
    }

    #[test]
    fn many_stars_take_no_exponential_time() {
        let pattern = b"a*".repeat(2_000);
        let name = vec![b'a'; 20_000];
        assert!(is_match(&pattern, &name, Case::Exact));
        assert!(!is_match(&[&pattern[..], b"b"].concat(), &name, Case::Exact));
    }

    #[test]
    fn the_longest_pattern_takes_bounded_time_on_the_longest_name() {
        let pattern = b"*a?[ab]".repeat(MAX_PATTERN_LEN / 7);
        let glob = Glob::new(&pattern, Case::Exact).unwrap();
        assert!(!glob.is_match(&[b'a'; MAX_NAME_LEN]));
        let glob = Glob::new(&pattern[..7 * (MAX_NAME_LEN / 4)], Case::Exact).unwrap();
        let name = [b'a'; MAX_NAME_LEN];
        assert!(glob.is_match(&name) && !glob.is_match(&[b'b'; MAX_NAME_LEN]));
        assert!(glob.max_steps(name.len()) < 70_000_000);
    }

    #[test]
    fn a_name_is_found_however_long_it_is() {
        for len in [62, 63, 64, 65, 127, 128, 129, 1_000, MAX_NAME_LEN] {
            let name = vec![b'n'; len];
            let escaped: Vec<u8> = name.iter().flat_map(|&byte| [b'\\', byte]).collect();
            for pattern in [&name[..], &escaped, &[&name[1..], b"*"].concat(), &[b"*", &name[..]].concat()] {
                assert!(is_match(pattern, &name, Case::Exact), "{len}");
                let other = [b"x", &name[2..], b"x"].concat();
                assert!(!is_match(pattern, &other, Case::Exact), "{len}");
            }
        }
    }

    #[test]
    fn patterns_have_a_longest_length() {
        let pattern = vec![b'*'; MAX_PATTERN_LEN + 1];
        assert_eq!(Glob::new(&pattern, Case::Exact), Err(PatternTooLong(MAX_PATTERN_LEN + 1)));
        assert!(is_match(&pattern[1..], b"any", Case::Exact));
    }

    /// The same language, by plain recursion over both.
    fn is_match_by_recursion(pattern: &[u8], name: &[u8]) -> bool {
        match (pattern, name) {
            ([], _) => name.is_empty(),
            ([b'*', rest @ ..], _) => {
                (0..=name.len()).any(|taken| is_match_by_recursion(rest, &name[taken..]))
            }
            (_, []) => false,
            (_, [byte, tail @ ..]) => {
                let (taken, next) = element(pattern, 0, Case::Exact);
                taken.has(*byte) && is_match_by_recursion(&pattern[next..], tail)
            }
        }
    }

    proptest! {
        #[test]
        fn the_machine_takes_what_the_pattern_says(pattern in "[ab*?\\[\\]^-]{0,8}", name in "[ab-]{0,10}") {
            let (pattern, name) = (pattern.as_bytes(), name.as_bytes());
            prop_assert_eq!(is_match(pattern, name, Case::Exact), is_match_by_recursion(pattern, name));
        }
    }
}
