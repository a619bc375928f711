//! Writing replies, in RESP2 or RESP3.
//!
//! | kind | RESP3 | RESP2, where it differs |
//! |---|---|---|
//! | status, error, integer | `+OK`, `-ERR text`, `:5` | |
//! | bulk, array | `$2 ab`, `*2 ...` | |
//! | null | `_` | `$-1`, or `*-1` in place of an array |
//! | map, set, push | `%pairs`, `~len`, `>len` | array; a map becomes keys and values in turn |
//! | double, big number, verbatim | `,1.5`, `(123`, `=7 txt:abc` | bulk of the same text, without the format |
//! | boolean | `#t`, `#f` | integer 1 or 0 |
//!
//! Each line ends with CRLF. The writer counts nothing: who opens an array of three writes three replies.

use std::fmt::{self, Write as _};

use crate::error::ProtocolError;
use crate::number::{digits, push_header, push_integer_line};

/// Bytes of the longest text that [`ReplyWriter::short_bulk`] writes.
pub const SHORT_BULK_LEN: usize = 41;

/// Bytes of the header before a text of two digits' length.
const SHORT_HEADER_LEN: usize = 5;

/// The version that a connection speaks; RESP2 until `HELLO 3`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Protocol {
    /// Version 2.
    #[default]
    Resp2,
    /// Version 3.
    Resp3,
}

/// Appends replies to a buffer.
#[derive(Debug)]
pub struct ReplyWriter<'a> {
    out: &'a mut Vec<u8>,
    protocol: Protocol,
}

impl<'a> ReplyWriter<'a> {
    /// A writer that appends to `out`.
    pub fn new(out: &'a mut Vec<u8>, protocol: Protocol) -> Self {
        Self { out, protocol }
    }

    /// The version in which replies are written.
    pub fn protocol(&self) -> Protocol {
        self.protocol
    }

    /// Changes the version for the replies that follow.
    pub fn set_protocol(&mut self, protocol: Protocol) {
        self.protocol = protocol;
    }

    /// The buffer, for bytes that are a reply already.
    pub fn buffer(&mut self) -> &mut Vec<u8> {
        self.out
    }

    /// `+text`. CR and LF in the text become blanks.
    #[inline]
    pub fn status(&mut self, text: &str) {
        self.line(b'+', |out| out.extend_from_slice(text.as_bytes()));
    }

    /// `-text`. The text starts with a code word such as `ERR`. CR and LF in it become blanks.
    pub fn error(&mut self, text: impl fmt::Display) {
        self.line(b'-', |out| push_display(out, text));
    }

    /// Like [`error`](Self::error), for a text that repeats bytes of the client, which need not be UTF-8.
    pub fn error_bytes(&mut self, text: &[u8]) {
        self.line(b'-', |out| out.extend_from_slice(text));
    }

    /// `-ERR` and the text of the error; close the connection behind it.
    pub fn protocol_error(&mut self, error: &ProtocolError) {
        self.line(b'-', |out| {
            out.extend_from_slice(b"ERR ");
            error.write_text(out);
        });
    }

    /// `:value`.
    #[inline]
    pub fn integer(&mut self, value: i64) {
        push_integer_line(self.out, b':', value);
    }

    /// A bulk of any bytes.
    #[inline]
    pub fn bulk(&mut self, bytes: &[u8]) {
        push_header(self.out, b'$', bytes.len());
        self.out.extend_from_slice(bytes);
        self.out.extend_from_slice(b"\r\n");
    }

    /// A bulk of at most [`SHORT_BULK_LEN`] bytes: `write` puts them at the end of the buffer and returns where they start.
    #[inline]
    pub fn short_bulk(&mut self, write: impl FnOnce(&mut [u8; SHORT_BULK_LEN]) -> usize) {
        // The whole reply is put together here, so that it is copied once.
        let mut line = [0; SHORT_HEADER_LEN + SHORT_BULK_LEN + 2];
        let text: &mut [u8; SHORT_BULK_LEN] =
            line[SHORT_HEADER_LEN..].first_chunk_mut().expect("there is room behind the header");
        let start = write(text);
        let len = SHORT_BULK_LEN - start;
        let start = start + SHORT_HEADER_LEN;
        let end = SHORT_HEADER_LEN + SHORT_BULK_LEN;
        line[end..].copy_from_slice(b"\r\n");
        let begin = if len < 10 {
            line[start - 4..start].copy_from_slice(&[b'$', b'0' + len as u8, b'\r', b'\n']);
            start - 4
        } else {
            let (tens, ones) = (b'0' + (len / 10) as u8, b'0' + (len % 10) as u8);
            line[start - 5..start].copy_from_slice(&[b'$', tens, ones, b'\r', b'\n']);
            start - 5
        };
        self.out.extend_from_slice(&line[begin..]);
    }

    /// A bulk of the text that a value displays as. Allocates nothing but the room in the buffer.
    pub fn bulk_display(&mut self, value: impl fmt::Display) {
        self.bulk_with(|out| push_display(out, value));
    }

    /// A bulk of the bytes that `write` appends to the buffer. It must only append.
    #[inline]
    pub fn bulk_with(&mut self, write: impl FnOnce(&mut Vec<u8>)) {
        let header = self.out.len();
        // Right for the most usual lengths; others move the bytes by the digits that are missing.
        self.out.extend_from_slice(b"$0\r\n");
        let start = self.out.len();
        write(self.out);
        let len = self.out.len() - start;
        if len < 10 {
            self.out[header + 1] = b'0' + len as u8;
        } else {
            self.widen_header(header, len);
        }
        self.out.extend_from_slice(b"\r\n");
    }

    /// There is nothing: `_`, or `$-1` in RESP2.
    #[inline]
    pub fn null(&mut self) {
        self.by_protocol(b"$-1\r\n", b"_\r\n");
    }

    /// There is nothing where an array was expected: `_`, or `*-1` in RESP2.
    pub fn null_array(&mut self) {
        self.by_protocol(b"*-1\r\n", b"_\r\n");
    }

    /// Opens an array; `len` replies follow.
    #[inline]
    pub fn array(&mut self, len: usize) {
        push_header(self.out, b'*', len);
    }

    /// Opens a map; `pairs` times a key and a value follow.
    pub fn map(&mut self, pairs: usize) {
        match self.protocol {
            Protocol::Resp2 => push_header(self.out, b'*', 2 * pairs),
            Protocol::Resp3 => push_header(self.out, b'%', pairs),
        }
    }

    /// Opens a set; `len` replies follow.
    pub fn set(&mut self, len: usize) {
        self.aggregate(b'~', len);
    }

    /// Opens a message that answers no request; `len` replies follow, the first names the kind.
    pub fn push(&mut self, len: usize) {
        self.aggregate(b'>', len);
    }

    /// A number with a fraction, in as few digits as read back the same; `inf`, `-inf` or `nan` otherwise.
    pub fn double(&mut self, value: f64) {
        let text = DoubleText(value);
        match self.protocol {
            Protocol::Resp2 => self.bulk_display(text),
            Protocol::Resp3 => self.line(b',', |out| push_display(out, text)),
        }
    }

    /// True or false; 1 or 0 in RESP2.
    pub fn boolean(&mut self, value: bool) {
        if value { self.by_protocol(b":1\r\n", b"#t\r\n") } else { self.by_protocol(b":0\r\n", b"#f\r\n") }
    }

    /// An integer of any size; `value` must display as an optional minus and digits.
    pub fn big_number(&mut self, value: impl fmt::Display) {
        match self.protocol {
            Protocol::Resp2 => self.bulk_display(value),
            Protocol::Resp3 => self.line(b'(', |out| push_display(out, value)),
        }
    }

    /// Text for people, to be shown as it is; the format is `txt` or `mkd`.
    pub fn verbatim(&mut self, format: &[u8; 3], text: &[u8]) {
        match self.protocol {
            Protocol::Resp2 => self.bulk(text),
            Protocol::Resp3 => {
                push_header(self.out, b'=', text.len() + 4);
                self.out.extend_from_slice(format);
                self.out.push(b':');
                self.out.extend_from_slice(text);
                self.out.extend_from_slice(b"\r\n");
            }
        }
    }

    fn aggregate(&mut self, marker: u8, len: usize) {
        let marker = if self.protocol == Protocol::Resp3 { marker } else { b'*' };
        push_header(self.out, marker, len);
    }

    fn by_protocol(&mut self, resp2: &[u8], resp3: &[u8]) {
        self.out.extend_from_slice(match self.protocol {
            Protocol::Resp2 => resp2,
            Protocol::Resp3 => resp3,
        });
    }

    /// Writes a line whose text can't end it early.
    #[inline]
    fn line(&mut self, marker: u8, write: impl FnOnce(&mut Vec<u8>)) {
        self.out.push(marker);
        let start = self.out.len();
        write(self.out);
        for byte in &mut self.out[start..] {
            if matches!(byte, b'\r' | b'\n') {
                *byte = b' ';
            }
        }
        self.out.extend_from_slice(b"\r\n");
    }

    /// Makes room in the header `$0 CRLF` at `header` for a length of several digits.
    fn widen_header(&mut self, header: usize, len: usize) {
        let text = header + 4;
        let extra = digits(len) - 1;
        self.out.resize(text + len + extra, 0);
        self.out.copy_within(text..text + len, text + extra);
        let mut rest = len;
        for at in (header + 1..=header + 1 + extra).rev() {
            self.out[at] = b'0' + (rest % 10) as u8;
            rest /= 10;
        }
        self.out[text + extra - 2..text + extra].copy_from_slice(b"\r\n");
    }
}

fn push_display(out: &mut Vec<u8>, value: impl fmt::Display) {
    // An error can only come from the value itself; what it wrote so far is its text then.
    let _ = write!(Appender(out), "{value}");
}

struct Appender<'a>(&'a mut Vec<u8>);

impl fmt::Write for Appender<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.0.extend_from_slice(text.as_bytes());
        Ok(())
    }
}

struct DoubleText(f64);

impl fmt::Display for DoubleText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let value = self.0;
        if value.is_nan() {
            f.write_str("nan")
        } else if value == 0.0 || !value.is_finite() || (1e-5..1e17).contains(&value.abs()) {
            write!(f, "{value}")
        } else {
            write!(f, "{value:e}")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(protocol: Protocol, write: impl FnOnce(&mut ReplyWriter<'_>)) -> String {
        let mut out = Vec::new();
        write(&mut ReplyWriter::new(&mut out, protocol));
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn each_kind_has_its_bytes_in_both_versions() {
        type Case = (fn(&mut ReplyWriter<'_>), &'static str, &'static str);
        let cases: [Case; 19] = [
            (|w| w.status("OK"), "+OK\r\n", "+OK\r\n"),
            (|w| w.error("ERR no"), "-ERR no\r\n", "-ERR no\r\n"),
            (|w| w.integer(-5), ":-5\r\n", ":-5\r\n"),
            (|w| w.bulk(b""), "$0\r\n\r\n", "$0\r\n\r\n"),
            (|w| w.bulk(b"a\r\nb"), "$4\r\na\r\nb\r\n", "$4\r\na\r\nb\r\n"),
            (|w| w.null(), "$-1\r\n", "_\r\n"),
            (|w| w.null_array(), "*-1\r\n", "_\r\n"),
            (|w| w.array(0), "*0\r\n", "*0\r\n"),
            (|w| w.map(6), "*12\r\n", "%6\r\n"),
            (|w| w.set(2), "*2\r\n", "~2\r\n"),
            (|w| w.push(3), "*3\r\n", ">3\r\n"),
            (|w| w.double(1.5), "$3\r\n1.5\r\n", ",1.5\r\n"),
            (|w| w.double(f64::NEG_INFINITY), "$4\r\n-inf\r\n", ",-inf\r\n"),
            (|w| w.double(f64::NAN), "$3\r\nnan\r\n", ",nan\r\n"),
            (|w| w.double(1e300), "$5\r\n1e300\r\n", ",1e300\r\n"),
            (|w| w.boolean(true), ":1\r\n", "#t\r\n"),
            (|w| w.boolean(false), ":0\r\n", "#f\r\n"),
            (
                |w| w.big_number(10_i128.pow(20)),
                "$21\r\n100000000000000000000\r\n",
                "(100000000000000000000\r\n",
            ),
            (|w| w.verbatim(b"txt", b"abc"), "$3\r\nabc\r\n", "=7\r\ntxt:abc\r\n"),
        ];
        for (write, resp2, resp3) in cases {
            assert_eq!(written(Protocol::Resp2, write), resp2);
            assert_eq!(written(Protocol::Resp3, write), resp3);
        }
    }

    #[test]
    fn line_ends_in_an_error_become_blanks() {
        let text =
            written(Protocol::Resp2, |w| w.error(format_args!("ERR unknown command '{}'", "PI\r\nNG")));
        assert_eq!(text, "-ERR unknown command 'PI  NG'\r\n");
        assert_eq!(written(Protocol::Resp2, |w| w.status("a\nb")), "+a b\r\n");
        let text = written(Protocol::Resp2, |w| w.protocol_error(&ProtocolError::ExpectedDollar(b'\n')));
        assert_eq!(text, "-ERR Protocol error: expected '$', got ' '\r\n");
    }

    #[test]
    fn error_bytes_are_written_as_they_are() {
        let mut out = Vec::new();
        ReplyWriter::new(&mut out, Protocol::Resp2).error_bytes(b"ERR unknown command '\xff\xfe'");
        assert_eq!(out, b"-ERR unknown command '\xff\xfe'\r\n");
    }

    #[test]
    fn short_bulk_equals_the_bulk_of_its_text() {
        for len in 0..=SHORT_BULK_LEN {
            let text = "7".repeat(len);
            let short = written(Protocol::Resp2, |w| {
                w.integer(1);
                w.short_bulk(|buf| {
                    buf[SHORT_BULK_LEN - len..].copy_from_slice(text.as_bytes());
                    SHORT_BULK_LEN - len
                });
            });
            let plain = written(Protocol::Resp2, |w| {
                w.integer(1);
                w.bulk(text.as_bytes());
            });
            assert_eq!(short, plain, "{len}");
        }
    }

    #[test]
    fn bulk_of_a_displayed_value_equals_the_bulk_of_its_text() {
        for len in [0, 1, 9, 10, 11, 99, 100, 101, 999, 1000, 12345] {
            let text = "7".repeat(len);
            let shown = written(Protocol::Resp2, |w| {
                w.integer(1);
                w.bulk_display(&text);
                w.integer(2);
            });
            let plain = written(Protocol::Resp2, |w| {
                w.integer(1);
                w.bulk(text.as_bytes());
                w.integer(2);
            });
            assert_eq!(shown, plain, "{len}");
        }
    }
}
