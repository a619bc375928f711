//! The server side of a connection: bytes to [`Request`]s.
//!
//! A request is an array of bulks or an inline command:
//!
//! | bytes | meaning | limit |
//! |---|---|---|
//! | `*` count CRLF | array header; a count of 0 or below is skipped without a reply | [`Limits::max_args`] |
//! | `$` length CRLF | bulk header, as often as the count says | [`Limits::max_bulk_len`] |
//! | length bytes, CRLF | the argument, any bytes | |
//! | words, LF or CRLF | inline command, if the first byte is not `*`; see [`split_words`](crate::split_words) | [`Limits::max_inline_len`] |
//!
//! `2A 31 0D 0A 24 34 0D 0A 50 49 4E 47 0D 0A` is `PING`.
//!
//! The decoder keeps positions, not bytes: arguments are slices of the caller's buffer. Only inline
//! words with quotes are copied, into a buffer that is used again. Decoding allocates nothing per
//! request once the list of positions has grown to the usual number of arguments.

use std::fmt;

use crate::error::ProtocolError;
use crate::number::parse_integer;
use crate::words::{Span, is_plain, split_plain, split_quoted};

/// Positions kept allocated between requests (16 bytes each); a list that grew longer is given back.
const KEPT_ARGS: usize = 1024;
/// Bytes of inline words kept allocated between requests.
const KEPT_SCRATCH: usize = 4096;
/// Most requests that [`RequestDecoder::look_ahead`] finds.
pub const LOOK_AHEAD: usize = 16;
/// A bulk can't be longer than this, whatever the limits say, so sums of positions can't overflow.
const MAX_BULK_LEN: usize = isize::MAX as usize / 2;
/// A smaller limit of lines counts as this one, so that every header fits.
const MIN_LINE_LIMIT: usize = 32;

/// What a client may send at most. Anything beyond is a [`ProtocolError`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Arguments of a request, its name included.
    pub max_args: usize,
    /// Bytes of one argument.
    pub max_bulk_len: usize,
    /// Bytes of an inline command, with the CR of its end but not the LF, and of a header's line, without
    /// its end. A value below 32 counts as 32.
    pub max_inline_len: usize,
    /// The client has still to give the password: what is too large says so.
    pub is_before_password: bool,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_args: 1_048_576,
            max_bulk_len: 536_870_912,
            max_inline_len: 65_536,
            is_before_password: false,
        }
    }
}

impl Limits {
    /// What a client may send before it has given the password, so that strangers can't fill the memory; as in Redis 7.
    pub const BEFORE_PASSWORD: Limits =
        Limits { max_args: 10, max_bulk_len: 16_384, max_inline_len: 65_536, is_before_password: true };

    fn within_reason(self) -> Limits {
        Limits {
            max_bulk_len: self.max_bulk_len.min(MAX_BULK_LEN),
            max_inline_len: self.max_inline_len.max(MIN_LINE_LIMIT),
            ..self
        }
    }
}

/// What [`RequestDecoder::decode`] found.
#[derive(Debug)]
pub enum Decoded<'a> {
    /// A whole request.
    Complete {
        /// Its arguments.
        request: Request<'a>,
        /// Bytes to drop from the start of the buffer: the request and what was skipped before it.
        consumed: usize,
    },
    /// The buffer ends before the request does.
    Incomplete {
        /// Bytes to drop from the start of the buffer: blank lines and empty arrays.
        consumed: usize,
        /// At least so many more bytes are needed; 1 if unknown. A hint for the size of the next read.
        /// It comes from the client, so never allocate it at once.
        wanted: usize,
    },
}

/// The decoder of one connection.
#[derive(Debug)]
pub struct RequestDecoder {
    limits: Limits,
    /// Bulks of the current array that are still to come; 0 between requests.
    missing: usize,
    /// Length of the bulk that starts at `position`, once its header has been read.
    bulk_len: Option<usize>,
    /// Where reading goes on, counted from the start of the request.
    position: usize,
    /// Bytes from `position` on that are known to hold no line end.
    scanned: usize,
    /// The arguments found, counted from the start of the request or of `scratch`.
    spans: Vec<Span>,
    /// Words of an inline command that has quotes.
    scratch: Vec<u8>,
    /// Requests that were found ahead of their turn; `spans` has their arguments.
    ahead: Vec<Ahead>,
    /// How many of these have been handed out.
    handed_out: usize,
}

/// A request that was found ahead of its turn.
#[derive(Clone, Copy, Debug)]
struct Ahead {
    /// Where it starts, counted from where looking ahead began.
    start: usize,
    end: usize,
    /// Its first argument in the list of positions, and the one behind its last.
    first_span: usize,
    end_span: usize,
}

/// One step of the decoder; lengths count from the start of the request.
enum Step {
    Incomplete {
        wanted: usize,
    },
    Skipped(usize),
    /// The arguments are in the buffer.
    InPlace(usize),
    /// The arguments are in `scratch`.
    Unquoted(usize),
}

impl RequestDecoder {
    /// A decoder for a new connection.
    pub fn new(limits: Limits) -> Self {
        Self {
            limits: limits.within_reason(),
            missing: 0,
            bulk_len: None,
            position: 0,
            scanned: 0,
            spans: Vec::new(),
            scratch: Vec::new(),
            ahead: Vec::new(),
            handed_out: 0,
        }
    }

    /// From the next header on, other limits hold.
    pub fn set_limits(&mut self, limits: Limits) {
        self.limits = limits.within_reason();
    }

    /// Looks for the next request at the start of `buf`.
    ///
    /// `buf` holds the bytes received and not consumed. After each call drop the `consumed` bytes; when
    /// the request is incomplete, call again with the rest and at least one more byte behind it.
    ///
    /// # Errors
    /// The bytes are no request; see [`ProtocolError`]. Requests before them have been handed out by
    /// earlier calls. The place of the next request is unknown, so answer and close.
    #[inline]
    pub fn decode<'a>(&'a mut self, buf: &'a [u8]) -> Result<Decoded<'a>, ProtocolError> {
        if let Some(&found) = self.ahead.get(self.handed_out) {
            self.handed_out += 1;
            let len = found.end - found.start;
            let spans = &self.spans[found.first_span..found.end_span];
            let request = Request(Args::Spans { bytes: &buf[..len], spans });
            return Ok(Decoded::Complete { request, consumed: len });
        }
        if self.is_between_requests() {
            self.spans.clear();
            if let Some(len) = read_whole(buf, &self.limits, &mut self.spans) {
                let request = Request(Args::Spans { bytes: &buf[..len], spans: &self.spans });
                return Ok(Decoded::Complete { request, consumed: len });
            }
        }
        self.decode_any(buf)
    }

    /// Finds up to [`LOOK_AHEAD`] requests at the start of `buf` that can be read at a glance, for a caller who wants to
    /// know what is coming; `decode` will hand them out. Returns how many there are: the rest of those that were found
    /// before, if some are left.
    ///
    /// `buf` is what `decode` would be given, and as there, what was not consumed must come again.
    #[inline]
    pub fn look_ahead(&mut self, buf: &[u8]) -> usize {
        if self.handed_out == self.ahead.len() {
            self.ahead.clear();
            self.handed_out = 0;
            if self.is_between_requests() {
                self.find_ahead(buf);
            }
        }
        self.ahead.len() - self.handed_out
    }

    /// Whether `look_ahead` would look, since all that it had found has been handed out.
    #[inline]
    pub fn is_at_end_of_ahead(&self) -> bool {
        self.handed_out == self.ahead.len()
    }

    fn find_ahead(&mut self, buf: &[u8]) {
        self.spans.clear();
        let mut start = 0;
        while self.ahead.len() < LOOK_AHEAD {
            let first_span = self.spans.len();
            let Some(len) = read_whole(&buf[start..], &self.limits, &mut self.spans) else {
                self.spans.truncate(first_span);
                return;
            };
            let end = start + len;
            self.ahead.push(Ahead { start, end, first_span, end_span: self.spans.len() });
            start = end;
        }
    }

    /// The requests that `look_ahead` has counted, in order; `buf` is what it was given.
    pub fn coming<'a>(&'a self, buf: &'a [u8]) -> impl Iterator<Item = Request<'a>> {
        let coming = &self.ahead[self.handed_out..];
        let base = coming.first().map_or(0, |found| found.start);
        coming.iter().map(move |found| {
            let bytes = &buf[found.start - base..found.end - base];
            Request(Args::Spans { bytes, spans: &self.spans[found.first_span..found.end_span] })
        })
    }

    /// Whether nothing of a request has been read, and no list is larger than usual.
    #[inline]
    fn is_between_requests(&self) -> bool {
        self.missing == 0
            && self.scanned == 0
            && self.scratch.is_empty()
            && self.spans.capacity() <= KEPT_ARGS
    }

    /// The same for whatever may come.
    fn decode_any<'a>(&'a mut self, buf: &'a [u8]) -> Result<Decoded<'a>, ProtocolError> {
        let mut start = 0;
        loop {
            let rest = &buf[start..];
            match self.step(rest)? {
                Step::Incomplete { wanted } => return Ok(Decoded::Incomplete { consumed: start, wanted }),
                Step::Skipped(len) => start += len,
                Step::InPlace(len) => {
                    let request = Request(Args::Spans { bytes: &rest[..len], spans: &self.spans });
                    return Ok(Decoded::Complete { request, consumed: start + len });
                }
                Step::Unquoted(len) => {
                    let request = Request(Args::Spans { bytes: &self.scratch, spans: &self.spans });
                    return Ok(Decoded::Complete { request, consumed: start + len });
                }
            }
        }
    }

    fn step(&mut self, rest: &[u8]) -> Result<Step, ProtocolError> {
        if self.missing == 0 {
            match rest.first() {
                None => return Ok(Step::Incomplete { wanted: 1 }),
                Some(b'*') => {
                    let Some((count, len)) = read_header(rest, Kind::Array, &mut self.scanned, &self.limits)?
                    else {
                        return Ok(Step::Incomplete { wanted: 1 });
                    };
                    if count == 0 {
                        return Ok(Step::Skipped(len));
                    }
                    self.forget_last_request();
                    self.missing = count;
                    self.position = len;
                }
                Some(_) => return self.read_inline(rest),
            }
        }
        self.read_bulks(rest)
    }

    /// Reads the arguments of an array, from `position` on.
    fn read_bulks(&mut self, rest: &[u8]) -> Result<Step, ProtocolError> {
        let mut position = self.position;
        while self.missing > 0 {
            let len = match self.bulk_len {
                Some(len) => len,
                None => {
                    let header = rest.get(position..).unwrap_or_default();
                    match read_header(header, Kind::Bulk, &mut self.scanned, &self.limits)? {
                        Some((len, header_len)) => {
                            position += header_len;
                            len
                        }
                        None => {
                            self.position = position;
                            return Ok(Step::Incomplete { wanted: 1 });
                        }
                    }
                }
            };
            let end = position + len;
            match rest.get(end..end + 2) {
                Some(b"\r\n") => {}
                Some(_) => return Err(ProtocolError::BulkWithoutEnd),
                None => {
                    self.bulk_len = Some(len);
                    self.position = position;
                    return Ok(Step::Incomplete { wanted: end + 2 - rest.len() });
                }
            }
            self.spans.push(Span { start: position, end });
            self.bulk_len = None;
            self.missing -= 1;
            position = end + 2;
        }
        self.position = 0;
        Ok(Step::InPlace(position))
    }

    /// Reads an inline command; a line without words is skipped.
    fn read_inline(&mut self, rest: &[u8]) -> Result<Step, ProtocolError> {
        let Some(line_len) =
            find_in_line(rest, b'\n', &mut self.scanned, &self.limits, ProtocolError::TooBigInline)?
        else {
            return Ok(Step::Incomplete { wanted: 1 });
        };
        let line = &rest[..line_len];
        let consumed = line_len + 1;
        self.forget_last_request();
        let step = if is_plain(line) {
            split_plain(line, &mut self.spans);
            Step::InPlace(consumed)
        } else {
            split_quoted(line, &mut self.scratch, &mut self.spans)
                .map_err(|_| ProtocolError::UnbalancedQuotes)?;
            Step::Unquoted(consumed)
        };
        if self.spans.len() > self.limits.max_args {
            return Err(ProtocolError::InvalidMultibulkLength);
        }
        Ok(if self.spans.is_empty() { Step::Skipped(consumed) } else { step })
    }

    fn forget_last_request(&mut self) {
        self.spans.clear();
        if self.spans.capacity() > KEPT_ARGS {
            self.spans.shrink_to(KEPT_ARGS);
        }
        self.scratch.clear();
        if self.scratch.capacity() > KEPT_SCRATCH {
            self.scratch.shrink_to(KEPT_SCRATCH);
        }
    }
}

/// Reads a request that is all there, well-formed and small: an array of up to nine bulks of up to 99 bytes, as nearly
/// every request is. Returns its length, and adds the arguments to `spans`. `None` says nothing but that one must look
/// closer; some arguments may have been added then.
#[inline]
fn read_whole(buf: &[u8], limits: &Limits, spans: &mut Vec<Span>) -> Option<usize> {
    let &[b'*', count @ b'1'..=b'9', b'\r', b'\n'] = buf.first_chunk()? else { return None };
    let count = usize::from(count - b'0');
    if count > limits.max_args || limits.max_bulk_len < 100 {
        return None;
    }
    let mut position = 4;
    for _ in 0..count {
        let (len, header_len) = match *buf.get(position..)?.first_chunk()? {
            [b'$', a @ b'0'..=b'9', b'\r', b'\n', _] => (usize::from(a - b'0'), 4),
            [b'$', a @ b'1'..=b'9', b @ b'0'..=b'9', b'\r', b'\n'] => {
                (usize::from(a - b'0') * 10 + usize::from(b - b'0'), 5)
            }
            _ => return None,
        };
        let start = position + header_len;
        let end = start + len;
        position = end + 2;
        if *buf.get(end..position)? != *b"\r\n" {
            return None;
        }
        spans.push(Span { start, end });
    }
    Some(position)
}

/// The two headers of a request.
#[derive(Clone, Copy)]
enum Kind {
    Array,
    Bulk,
}

/// Reads the header at the start of `line`: its number, and its length with the line end. `None` if it
/// is incomplete. The number is within the limits; a count below 0 reads as 0.
#[inline]
fn read_header(
    line: &[u8],
    kind: Kind,
    scanned: &mut usize,
    limits: &Limits,
) -> Result<Option<(usize, usize)>, ProtocolError> {
    let (marker, max) = match kind {
        Kind::Array => (b'*', limits.max_args),
        Kind::Bulk => (b'$', limits.max_bulk_len),
    };
    match read_quick_header(line, marker) {
        Some((number, len)) if number <= max => {
            *scanned = 0;
            Ok(Some((number, len)))
        }
        _ => read_any_header(line, kind, scanned, limits),
    }
}

/// Reads a complete and well-formed header of up to three digits: nearly all of them.
#[inline]
fn read_quick_header(line: &[u8], marker: u8) -> Option<(usize, usize)> {
    let digit = |byte: u8| Some(usize::from(byte.wrapping_sub(b'0'))).filter(|&digit| digit <= 9);
    let &[first, a, b, c] = line.first_chunk()?;
    if first != marker {
        return None;
    }
    if [b, c] == *b"\r\n" {
        return Some((digit(a)?, 4));
    }
    let tens = digit(a).filter(|&digit| digit > 0)? * 10 + digit(b)?;
    let &[d, e] = line.get(4..)?.first_chunk()?;
    match [c, d, e] {
        [b'\r', b'\n', _] => Some((tens, 5)),
        [_, b'\r', b'\n'] => Some((tens * 10 + digit(c)?, 6)),
        _ => None,
    }
}

/// Reads any header, or says what is wrong with it.
#[cold]
fn read_any_header(
    line: &[u8],
    kind: Kind,
    scanned: &mut usize,
    limits: &Limits,
) -> Result<Option<(usize, usize)>, ProtocolError> {
    let (invalid, too_big) = match kind {
        Kind::Array => (ProtocolError::InvalidMultibulkLength, ProtocolError::TooBigMultibulkCount),
        Kind::Bulk => (ProtocolError::InvalidBulkLength, ProtocolError::TooBigBulkCount),
    };
    match (line.first(), kind) {
        (None, _) => return Ok(None),
        (Some(b'$'), Kind::Bulk) | (Some(_), Kind::Array) => {}
        (Some(&byte), Kind::Bulk) => return Err(ProtocolError::ExpectedDollar(byte)),
    }
    let Some(end) = find_in_line(line, b'\r', scanned, limits, too_big)? else {
        return Ok(None);
    };
    match line.get(end + 1) {
        None => {
            *scanned = end;
            return Ok(None);
        }
        Some(b'\n') => {}
        Some(_) => return Err(invalid),
    }
    let number = parse_integer(&line[1..end]).ok_or(invalid)?;
    match (kind, usize::try_from(number)) {
        (Kind::Array, Err(_)) => Ok(Some((0, end + 2))),
        (Kind::Array, Ok(count)) if count <= limits.max_args => Ok(Some((count, end + 2))),
        (Kind::Bulk, Ok(len)) if len <= limits.max_bulk_len => Ok(Some((len, end + 2))),
        (Kind::Array, Ok(count)) if limits.is_before_password && count <= Limits::default().max_args => {
            Err(ProtocolError::UnauthenticatedMultibulkLength)
        }
        (Kind::Bulk, Ok(len)) if limits.is_before_password && len <= Limits::default().max_bulk_len => {
            Err(ProtocolError::UnauthenticatedBulkLength)
        }
        _ => Err(invalid),
    }
}

/// Finds the byte that ends a line, going on behind the bytes that were searched before. The line must
/// end within the limit, however many bytes came at once.
fn find_in_line(
    line: &[u8],
    wanted: u8,
    scanned: &mut usize,
    limits: &Limits,
    too_big: ProtocolError,
) -> Result<Option<usize>, ProtocolError> {
    let is_over = line.len() > limits.max_inline_len;
    let allowed = if is_over { &line[..=limits.max_inline_len] } else { line };
    let searched = (*scanned).min(allowed.len());
    match allowed[searched..].iter().position(|&byte| byte == wanted) {
        Some(at) => {
            *scanned = 0;
            Ok(Some(searched + at))
        }
        None if is_over => Err(too_big),
        None => {
            *scanned = allowed.len();
            Ok(None)
        }
    }
}

/// The arguments of a request, the name first. There is always a name, though it may be empty.
#[derive(Clone, Copy)]
pub struct Request<'a>(Args<'a>);

#[derive(Clone, Copy)]
enum Args<'a> {
    Spans { bytes: &'a [u8], spans: &'a [Span] },
    Slices(&'a [&'a [u8]]),
}

#[expect(clippy::len_without_is_empty, reason = "a request is never empty")]
impl<'a> Request<'a> {
    /// A request made of given arguments, for tests and for callers within the process.
    ///
    /// # Panics
    /// If there is no argument.
    pub fn from_args(args: &'a [&'a [u8]]) -> Self {
        assert!(!args.is_empty(), "a request has at least a name");
        Self(Args::Slices(args))
    }

    /// The number of arguments, the name included.
    #[inline]
    pub fn len(&self) -> usize {
        match self.0 {
            Args::Spans { spans, .. } => spans.len(),
            Args::Slices(args) => args.len(),
        }
    }

    /// The name of the command, as sent.
    #[inline]
    pub fn name(&self) -> &'a [u8] {
        self.arg(0)
    }

    /// An argument; 0 is the name.
    ///
    /// # Panics
    /// If `index` is not below [`len`](Self::len).
    #[inline]
    pub fn arg(&self, index: usize) -> &'a [u8] {
        match self.0 {
            Args::Spans { bytes, spans } => {
                let span = spans[index];
                &bytes[span.start..span.end]
            }
            Args::Slices(args) => args[index],
        }
    }

    /// All arguments, the name first.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &'a [u8]> + DoubleEndedIterator + Clone + use<'a> {
        let request = *self;
        (0..request.len()).map(move |index| request.arg(index))
    }
}

impl fmt::Debug for Request<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter().map(|arg| arg.escape_ascii().to_string())).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decoder() -> RequestDecoder {
        RequestDecoder::new(Limits::default())
    }

    #[test]
    fn announced_counts_and_lengths_allocate_nothing() {
        let mut decoder = decoder();
        let decoded = decoder.decode(b"*1048576\r\n$536870912\r\nabc").unwrap();
        assert!(matches!(decoded, Decoded::Incomplete { consumed: 0, wanted: 536_870_911 }));
        assert_eq!(decoder.spans.capacity(), 0);
        assert_eq!(decoder.scratch.capacity(), 0);
    }

    #[test]
    fn a_large_request_leaves_no_large_memory_behind() {
        let mut decoder = decoder();
        let mut bytes = b"*100000\r\n".to_vec();
        bytes.extend(b"$1\r\nx\r\n".repeat(100_000));
        assert!(matches!(decoder.decode(&bytes).unwrap(), Decoded::Complete { .. }));
        let quoted = format!("PING '{}'\n", "y".repeat(60_000));
        assert!(matches!(decoder.decode(quoted.as_bytes()).unwrap(), Decoded::Complete { .. }));
        assert!(matches!(decoder.decode(b"PING\n").unwrap(), Decoded::Complete { .. }));
        assert!(decoder.spans.capacity() <= KEPT_ARGS);
        assert!(decoder.scratch.capacity() <= KEPT_SCRATCH);
    }

    #[test]
    fn requests_of_usual_size_use_the_same_memory_again() {
        let mut decoder = decoder();
        let bytes = b"*3\r\n$6\r\nINCRBY\r\n$1\r\na\r\n$1\r\n1\r\n";
        assert!(decoder.decode(bytes).is_ok());
        let before = (decoder.spans.as_ptr(), decoder.spans.capacity());
        for _ in 0..10 {
            assert!(decoder.decode(bytes).is_ok());
        }
        assert_eq!((decoder.spans.as_ptr(), decoder.spans.capacity()), before);
    }

    #[test]
    fn requests_found_ahead_are_handed_out_in_order() {
        let mut bytes = Vec::new();
        for number in 10..50 {
            bytes.extend(format!("*2\r\n$4\r\nECHO\r\n$2\r\n{number}\r\n").into_bytes());
        }
        bytes.extend(b"ECHO 50\r\n*2\r\n$4\r\nECHO\r\n$2\r\n51\r\n*1\r\n");
        let (mut decoder, mut at, mut seen, mut counts) = (decoder(), 0, Vec::new(), Vec::new());
        loop {
            let count = decoder.look_ahead(&bytes[at..]);
            counts.push(count);
            let coming: Vec<Vec<u8>> =
                decoder.coming(&bytes[at..]).map(|request| request.arg(1).to_vec()).collect();
            assert_eq!(coming.len(), count);
            match decoder.decode(&bytes[at..]).unwrap() {
                Decoded::Incomplete { .. } => break,
                Decoded::Complete { request, consumed } => {
                    assert!(coming.first().is_none_or(|first| first == request.arg(1)));
                    seen.push(String::from_utf8(request.arg(1).to_vec()).unwrap());
                    at += consumed;
                }
            }
        }
        assert_eq!(seen, (10..52).map(|number| number.to_string()).collect::<Vec<_>>());
        assert_eq!(
            (counts[0], counts[1], counts[16], counts[39], counts[40]),
            (LOOK_AHEAD, 15, LOOK_AHEAD, 1, 0)
        );
    }

    #[test]
    fn lengths_at_the_end_of_the_number_range_do_not_overflow() {
        let limits = Limits {
            max_args: usize::MAX,
            max_bulk_len: usize::MAX,
            max_inline_len: usize::MAX,
            ..Limits::default()
        };
        let mut decoder = RequestDecoder::new(limits);
        let decoded = decoder.decode(b"*9223372036854775807\r\n$4611686018427387903\r\nabc").unwrap();
        assert!(matches!(decoded, Decoded::Incomplete { consumed: 0, .. }));
        let mut decoder = RequestDecoder::new(limits);
        let error = decoder.decode(b"*1\r\n$9223372036854775807\r\n").unwrap_err();
        assert_eq!(error, ProtocolError::InvalidBulkLength);
        let mut decoder = RequestDecoder::new(limits);
        assert!(matches!(decoder.decode(&[b'a'; 100]).unwrap(), Decoded::Incomplete { .. }));
    }

    #[test]
    fn request_made_of_slices_reads_like_a_decoded_one() {
        let request = Request::from_args(&[b"GET", b"a"]);
        assert_eq!((request.len(), request.name(), request.arg(1)), (2, &b"GET"[..], &b"a"[..]));
        assert_eq!(request.iter().rev().collect::<Vec<_>>(), [&b"a"[..], b"GET"]);
        assert_eq!(format!("{request:?}"), r#"["GET", "a"]"#);
    }
}
