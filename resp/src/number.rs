//! Decimal integers as the protocol writes them: no plus sign, no leading zero, no blank, no `-0`.

/// Room for a marker, a sign, twenty digits and CRLF.
const LINE_MAX: usize = 24;

/// Appends `<marker><value>CRLF`.
pub(crate) fn push_header(out: &mut Vec<u8>, marker: u8, value: usize) {
    // Nearly every header of a reply has one digit.
    if value < 10 {
        out.extend_from_slice(&[marker, b'0' + value as u8, b'\r', b'\n']);
    } else {
        push_number_line(out, marker, false, value as u64);
    }
}

/// Appends `<marker><value>CRLF` for a signed value.
pub(crate) fn push_integer_line(out: &mut Vec<u8>, marker: u8, value: i64) {
    push_number_line(out, marker, value < 0, value.unsigned_abs());
}

/// The number of decimal digits of `value`.
pub(crate) fn digits(value: usize) -> usize {
    value.checked_ilog10().map_or(1, |log| log as usize + 1)
}

fn push_number_line(out: &mut Vec<u8>, marker: u8, is_negative: bool, mut magnitude: u64) {
    let mut line = [0; LINE_MAX];
    line[LINE_MAX - 2..].copy_from_slice(b"\r\n");
    let mut at = LINE_MAX - 2;
    loop {
        at -= 1;
        line[at] = b'0' + (magnitude % 10) as u8;
        magnitude /= 10;
        if magnitude == 0 {
            break;
        }
    }
    if is_negative {
        at -= 1;
        line[at] = b'-';
    }
    at -= 1;
    line[at] = marker;
    out.extend_from_slice(&line[at..]);
}

/// Reads a whole string as an integer; `None` if it is anything but the one way to write it.
pub(crate) fn parse_integer(text: &[u8]) -> Option<i64> {
    let (is_negative, digits) = match text {
        [b'-', digits @ ..] => (true, digits),
        digits => (false, digits),
    };
    match digits {
        [b'0'] if !is_negative => return Some(0),
        [b'1'..=b'9', ..] => {}
        _ => return None,
    }
    // Negative, since the negative range is the larger one.
    let mut value: i64 = 0;
    for &byte in digits {
        let digit = byte.wrapping_sub(b'0');
        if digit > 9 {
            return None;
        }
        value = value.checked_mul(10)?.checked_sub(i64::from(digit))?;
    }
    if is_negative { Some(value) } else { value.checked_neg() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn integers_have_one_spelling() {
        for (text, value) in [
            ("0", Some(0)),
            ("7", Some(7)),
            ("-7", Some(-7)),
            ("9223372036854775807", Some(i64::MAX)),
            ("-9223372036854775808", Some(i64::MIN)),
            ("9223372036854775808", None),
            ("-9223372036854775809", None),
            ("99999999999999999999", None),
            ("", None),
            ("-", None),
            ("-0", None),
            ("+1", None),
            ("01", None),
            ("1 ", None),
            (" 1", None),
            ("1.0", None),
            ("1a", None),
        ] {
            assert_eq!(parse_integer(text.as_bytes()), value, "{text:?}");
        }
    }

    #[test]
    fn written_integers_read_back() {
        for value in [0, 1, -1, 9, 10, 99, 100, 12345, -12345, i64::MAX, i64::MIN] {
            let mut out = Vec::new();
            push_integer_line(&mut out, b':', value);
            assert_eq!(out, format!(":{value}\r\n").as_bytes());
        }
        for value in [0, 9, 10, 999, 1000, usize::MAX] {
            let mut out = Vec::new();
            push_header(&mut out, b'$', value);
            assert_eq!(out, format!("${value}\r\n").as_bytes());
            assert_eq!(digits(value), value.to_string().len());
        }
    }
}
