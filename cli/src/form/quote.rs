//! Bytes between double quotes, and bytes that are safe to show.

/// Appends `bytes` in double quotes, everything but printable ASCII escaped: `\n \r \t \a \b \" \\ \xHH`.
///
/// The result is what the server's inline commands and our own prompt read back as the same bytes.
pub(super) fn write_quoted(out: &mut Vec<u8>, bytes: &[u8]) {
    out.push(b'"');
    for &byte in bytes {
        match byte {
            b'"' | b'\\' => out.extend([b'\\', byte]),
            b'\n' => out.extend(b"\\n"),
            b'\r' => out.extend(b"\\r"),
            b'\t' => out.extend(b"\\t"),
            0x07 => out.extend(b"\\a"),
            0x08 => out.extend(b"\\b"),
            b' '..=b'~' => out.push(byte),
            _ => write_hex(out, byte),
        }
    }
    out.push(b'"');
}

/// Appends `bytes` as text for a terminal: lines and tabs stay, other control characters and bytes that are
/// not UTF-8 become `\xHH`.
pub(super) fn write_shown(out: &mut Vec<u8>, bytes: &[u8]) {
    for chunk in bytes.utf8_chunks() {
        for (start, character) in chunk.valid().char_indices() {
            let encoded = &chunk.valid().as_bytes()[start..start + character.len_utf8()];
            if character.is_control() && !matches!(character, '\n' | '\r' | '\t') {
                encoded.iter().for_each(|&byte| write_hex(out, byte));
            } else {
                out.extend(encoded);
            }
        }
        chunk.invalid().iter().for_each(|&byte| write_hex(out, byte));
    }
}

/// Whether `bytes` are lines of ordinary text, as INFO and CLIENT LIST answer: the last line is ended, and no
/// control character stands among them.
pub(super) fn is_lines_of_text(bytes: &[u8]) -> bool {
    let is_plain = |text: &str| !text.chars().any(|c| c.is_control() && !matches!(c, '\n' | '\r' | '\t'));
    bytes.ends_with(b"\n") && std::str::from_utf8(bytes).is_ok_and(is_plain)
}

fn write_hex(out: &mut Vec<u8>, byte: u8) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    out.extend([b'\\', b'x', DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]]);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(bytes: &[u8]) -> String {
        let mut out = Vec::new();
        write_shown(&mut out, bytes);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn quotes_escape_all_but_printable_ascii() {
        let mut out = Vec::new();
        write_quoted(&mut out, b"a \"b\" \\ \n\r\t\x07\x08\x00\x7f\xff~");
        assert_eq!(out, br#""a \"b\" \\ \n\r\t\a\b\x00\x7f\xff~""#);
    }

    #[test]
    fn shown_text_keeps_lines_and_letters_but_no_control_characters() {
        assert_eq!(shown("a\tb\r\nZürich".as_bytes()), "a\tb\r\nZürich");
        assert_eq!(shown(b"\x1b[31mred \xff"), "\\x1b[31mred \\xff");
        assert_eq!(shown("\u{9b}31m".as_bytes()), "\\xc2\\x9b31m");
    }

    #[test]
    fn lines_of_text_end_in_a_newline_and_are_plain() {
        assert!(is_lines_of_text(b"# Server\r\nport:5262\r\n"));
        assert!(!is_lines_of_text(b"42"));
        assert!(!is_lines_of_text(b"\x1b[2J\n"));
        assert!(!is_lines_of_text(b"\xff\n"));
    }
}
