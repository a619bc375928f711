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
//! Only the last star is ever retried: when the part between two stars has found its first place, a later place
//! can't help the rest. So the time is at most pattern length times name length, whatever the number of stars.

/// Whether letters must agree in case.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Case {
    /// `a` and `A` differ.
    Exact,
    /// ASCII letters match in either case.
    Ignored,
}

/// Whether the whole of `name` fits `pattern`.
pub(crate) fn is_match(pattern: &[u8], name: &[u8], case: Case) -> bool {
    let mut at = 0;
    let mut read = 0;
    // Where to go on after the last star, and how much of the name that star has taken so far.
    let mut last_star: Option<(usize, usize)> = None;
    while read < name.len() {
        if pattern.get(at) == Some(&b'*') {
            at += 1;
            last_star = Some((at, read));
        } else if let Some(next) = match_byte(pattern, at, name[read], case) {
            at = next;
            read += 1;
        } else if let Some((after, taken)) = last_star {
            at = after;
            read = taken + 1;
            last_star = Some((after, read));
        } else {
            return false;
        }
    }
    pattern[at..].iter().all(|&byte| byte == b'*')
}

/// Matches one byte against the element of the pattern that starts at `at`; answers where the next element starts.
fn match_byte(pattern: &[u8], at: usize, byte: u8, case: Case) -> Option<usize> {
    let (is_hit, next) = match *pattern.get(at)? {
        b'?' => (true, at + 1),
        b'[' => match_class(pattern, at + 1, byte, case),
        b'\\' if at + 1 < pattern.len() => (is_same(pattern[at + 1], byte, case), at + 2),
        literal => (is_same(literal, byte, case), at + 1),
    };
    is_hit.then_some(next)
}

/// Looks a byte up in the class whose inside starts at `at`; answers also where the class has ended.
fn match_class(pattern: &[u8], mut at: usize, byte: u8, case: Case) -> (bool, usize) {
    let is_negated = pattern.get(at) == Some(&b'^');
    at += usize::from(is_negated);
    let mut is_member = false;
    loop {
        match *pattern.get(at..).unwrap_or_default() {
            [] => return (is_member != is_negated, at),
            [b']', ..] => return (is_member != is_negated, at + 1),
            [b'\\', escaped, ..] => {
                is_member |= is_same(escaped, byte, case);
                at += 2;
            }
            [low, b'-', high, ..] => {
                is_member |= is_between(low, high, byte, case);
                at += 3;
            }
            [literal, ..] => {
                is_member |= is_same(literal, byte, case);
                at += 1;
            }
        }
    }
}

fn is_same(wanted: u8, byte: u8, case: Case) -> bool {
    match case {
        Case::Exact => wanted == byte,
        Case::Ignored => wanted.eq_ignore_ascii_case(&byte),
    }
}

fn is_between(low: u8, high: u8, byte: u8, case: Case) -> bool {
    let (low, high) = (low.min(high), low.max(high));
    match case {
        Case::Exact => (low..=high).contains(&byte),
        Case::Ignored => [byte.to_ascii_lowercase(), byte.to_ascii_uppercase()]
            .iter()
            .any(|byte| (low..=high).contains(byte)),
    }
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

    /// The same language, by plain recursion over both.
    fn is_match_by_recursion(pattern: &[u8], name: &[u8]) -> bool {
        match (pattern, name) {
            ([], _) => name.is_empty(),
            ([b'*', rest @ ..], _) => {
                (0..=name.len()).any(|taken| is_match_by_recursion(rest, &name[taken..]))
            }
            (_, []) => false,
            (_, [byte, tail @ ..]) => match_byte(pattern, 0, *byte, Case::Exact)
                .is_some_and(|next| is_match_by_recursion(&pattern[next..], tail)),
        }
    }

    proptest! {
        #[test]
        fn retrying_only_the_last_star_loses_nothing(pattern in "[ab*?\\[\\]^-]{0,8}", name in "[ab-]{0,10}") {
            let (pattern, name) = (pattern.as_bytes(), name.as_bytes());
            prop_assert_eq!(is_match(pattern, name, Case::Exact), is_match_by_recursion(pattern, name));
        }
    }
}
