//! Equality of short texts: names of counters and commands, compared once or twice per request.
//!
//! What it spares is the call of `memcmp`, which costs more than the comparison of a dozen bytes.

/// Whether two texts are the same.
#[inline]
pub(crate) fn is_same_text(a: &[u8], b: &[u8]) -> bool {
    a.len() == b.len()
        && match a.len() {
            4..8 => are_ends_equal::<4>(a, b),
            8..=16 => are_ends_equal::<8>(a, b),
            _ => a == b,
        }
}

/// Whether the first and the last `N` bytes are equal, which may overlap: of up to twice as many that is all.
#[inline]
fn are_ends_equal<const N: usize>(a: &[u8], b: &[u8]) -> bool {
    a.first_chunk::<N>() == b.first_chunk::<N>() && a.last_chunk::<N>() == b.last_chunk::<N>()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_of_every_length_are_told_apart_at_every_byte() {
        for len in 0..40 {
            let text: Vec<u8> = (0..len).collect();
            assert!(is_same_text(&text, &text.clone()), "{len}");
            assert!(!is_same_text(&text, &[&text[..], b"x"].concat()), "{len}");
            for at in 0..text.len() {
                let mut other = text.clone();
                other[at] ^= 0x80;
                assert!(!is_same_text(&text, &other), "{len}, {at}");
            }
        }
    }
}
