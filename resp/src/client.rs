//! The client side of a connection: requests to bytes, bytes to [`Reply`]s. For tools and tests: a reply
//! owns its bytes.
//!
//! | first byte | reply | after it |
//! |---|---|---|
//! | `+` `-` `:` `,` `#` `(` `_` | status, error, integer, double, boolean, big number, null | text, CRLF |
//! | `$` `!` `=` | bulk, error, verbatim text | length, CRLF, bytes, CRLF |
//! | `*` `~` `>` `%` | array, set, push, map | count (of pairs, for a map), CRLF, replies |
//! | `\|` | attribute of the reply behind it, skipped | count of pairs, CRLF, replies |
//!
//! `$-1` and `*-1` are nulls. `2A 31 0D 0A 3A 35 0D 0A` is an array of the integer 5.
//!
//! The decoder is a stack machine, not recursive, so nested replies can arrive in any pieces.

use crate::error::ProtocolError;
use crate::number::{parse_integer, push_header};

/// No length or count is above this, whatever the limits say, so sums of positions can't overflow.
const MAX_LEN: usize = isize::MAX as usize / 4;
/// No reply is nested deeper, whatever the limits say, since dropping one is recursive.
const MAX_DEPTH: usize = 1024;

/// Appends a request as an array of bulks.
pub fn write_request(out: &mut Vec<u8>, args: &[impl AsRef<[u8]>]) {
    push_header(out, b'*', args.len());
    for arg in args {
        let bytes = arg.as_ref();
        push_header(out, b'$', bytes.len());
        out.extend_from_slice(bytes);
        out.extend_from_slice(b"\r\n");
    }
}

/// A reply of any kind.
#[derive(Clone, Debug, PartialEq)]
pub enum Reply {
    /// A short answer such as `OK`.
    Status(Vec<u8>),
    /// An error, its code word included; sent as a line or, in RESP3, as a bulk.
    Error(Vec<u8>),
    /// A whole number.
    Integer(i64),
    /// Any bytes.
    Bulk(Vec<u8>),
    /// There is nothing; the nulls of RESP2 and RESP3 alike.
    Null,
    /// Replies in order.
    Array(Vec<Reply>),
    /// Keys and values in the order in which they came.
    Map(Vec<(Reply, Reply)>),
    /// Replies whose order means nothing.
    Set(Vec<Reply>),
    /// A message that answers no request; the first part names its kind.
    Push(Vec<Reply>),
    /// A number with a fraction, an infinity or not a number.
    Double(f64),
    /// True or false.
    Boolean(bool),
    /// The sign and digits of an integer of any size.
    BigNumber(Vec<u8>),
    /// Text to be shown as it is.
    Verbatim {
        /// `txt` or `mkd`.
        format: [u8; 3],
        /// The text, without the format.
        text: Vec<u8>,
    },
}

/// What a server may send at most. Anything beyond is a [`ProtocolError`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReplyLimits {
    /// Parts of one array, set or push, and pairs of one map.
    pub max_items: usize,
    /// Bytes of one bulk.
    pub max_bulk_len: usize,
    /// Bytes of one line, without the line end.
    pub max_line_len: usize,
    /// Arrays within arrays.
    pub max_depth: usize,
}

impl Default for ReplyLimits {
    fn default() -> Self {
        Self { max_items: 4_294_967_295, max_bulk_len: 536_870_912, max_line_len: 1_048_576, max_depth: 128 }
    }
}

/// The decoder of one connection.
#[derive(Debug)]
pub struct ReplyDecoder {
    limits: ReplyLimits,
    /// Where reading goes on, counted from the start of the reply.
    position: usize,
    /// Bytes from `position` on that are known to hold no line end.
    scanned: usize,
    /// The bulk that starts at `position`, once its header has been read.
    bulk: Option<(BulkKind, usize)>,
    /// The arrays and the like that are not full yet, the innermost last.
    open: Vec<Open>,
}

#[derive(Clone, Copy, Debug)]
enum BulkKind {
    Plain,
    Error,
    Verbatim,
}

#[derive(Clone, Copy, Debug)]
enum Aggregate {
    Array,
    Map,
    Set,
    Push,
    Attribute,
}

/// An aggregate of which some parts are still to come.
#[derive(Debug)]
struct Open {
    kind: Aggregate,
    missing: usize,
    items: Vec<Reply>,
}

/// What one line, or one bulk, means.
enum Part {
    Whole(Reply),
    BulkHeader(BulkKind, usize),
    Opening(Aggregate, usize),
}

impl ReplyDecoder {
    /// A decoder for a new connection.
    pub fn new(limits: ReplyLimits) -> Self {
        let limits = ReplyLimits {
            max_items: limits.max_items.min(MAX_LEN),
            max_bulk_len: limits.max_bulk_len.min(MAX_LEN),
            max_depth: limits.max_depth.min(MAX_DEPTH),
            ..limits
        };
        Self { limits, position: 0, scanned: 0, bulk: None, open: Vec::new() }
    }

    /// Looks for the next reply at the start of `buf`; returns it with the number of bytes to drop.
    ///
    /// `buf` holds the bytes received and not consumed. `None` means that more are needed: call again
    /// with the same bytes and more behind them.
    ///
    /// # Errors
    /// The bytes are no reply; see [`ProtocolError`]. The place of the next reply is unknown, so close.
    pub fn decode(&mut self, buf: &[u8]) -> Result<Option<(Reply, usize)>, ProtocolError> {
        loop {
            let rest = buf.get(self.position..).unwrap_or_default();
            let whole = match self.read_part(rest)? {
                None => return Ok(None),
                Some(Part::Whole(reply)) => Some(reply),
                Some(Part::BulkHeader(kind, len)) => {
                    self.bulk = Some((kind, len));
                    None
                }
                Some(Part::Opening(kind, missing)) => self.open_aggregate(kind, missing)?,
            };
            if let Some(reply) = whole.and_then(|reply| self.fill(reply)) {
                let consumed = std::mem::take(&mut self.position);
                return Ok(Some((reply, consumed)));
            }
        }
    }

    /// Reads a line or the bytes of a bulk and moves on behind it.
    fn read_part(&mut self, rest: &[u8]) -> Result<Option<Part>, ProtocolError> {
        if let Some((kind, len)) = self.bulk {
            let (Some(bytes), Some(end)) = (rest.get(..len), rest.get(len..len + 2)) else {
                return Ok(None);
            };
            if end != b"\r\n" {
                return Err(ProtocolError::BulkWithoutEnd);
            }
            self.bulk = None;
            self.position += len + 2;
            return bulk_reply(kind, bytes).map(|reply| Some(Part::Whole(reply)));
        }
        let Some((&marker, behind)) = rest.split_first() else {
            return Ok(None);
        };
        if !b"+-:,#(_$!=*~>%|".contains(&marker) {
            return Err(ProtocolError::UnknownReplyKind(marker));
        }
        let Some(len) = self.find_line_end(behind)? else {
            return Ok(None);
        };
        let text = behind[..len].strip_suffix(b"\r").ok_or(ProtocolError::InvalidReplyLine)?;
        self.position += len + 2;
        self.read_line(marker, text).map(Some)
    }

    /// Finds the LF of the line, going on behind the bytes that were searched before.
    fn find_line_end(&mut self, behind: &[u8]) -> Result<Option<usize>, ProtocolError> {
        let max = self.limits.max_line_len.saturating_add(1);
        let is_over = behind.len() > max;
        let allowed = if is_over { &behind[..=max] } else { behind };
        let searched = self.scanned.min(allowed.len());
        match allowed[searched..].iter().position(|&byte| byte == b'\n') {
            Some(at) => {
                self.scanned = 0;
                Ok(Some(searched + at))
            }
            None if is_over => Err(ProtocolError::TooBigReplyLine),
            None => {
                self.scanned = allowed.len();
                Ok(None)
            }
        }
    }

    fn read_line(&self, marker: u8, text: &[u8]) -> Result<Part, ProtocolError> {
        let invalid = ProtocolError::InvalidReplyLine;
        let reply = match marker {
            b'+' => Reply::Status(text.to_vec()),
            b'-' => Reply::Error(text.to_vec()),
            b':' => Reply::Integer(parse_signed(text).ok_or(invalid)?),
            b',' => Reply::Double(parse_double(text).ok_or(invalid)?),
            b'(' if is_big_number(text) => Reply::BigNumber(text.to_vec()),
            b'#' if text == b"t" => Reply::Boolean(true),
            b'#' if text == b"f" => Reply::Boolean(false),
            b'_' if text.is_empty() => Reply::Null,
            b'$' | b'*' if text == b"-1" => Reply::Null,
            b'$' => return self.bulk_header(BulkKind::Plain, text),
            b'!' => return self.bulk_header(BulkKind::Error, text),
            b'=' => return self.bulk_header(BulkKind::Verbatim, text),
            b'*' => return self.opening(Aggregate::Array, text),
            b'~' => return self.opening(Aggregate::Set, text),
            b'>' => return self.opening(Aggregate::Push, text),
            b'%' => return self.opening(Aggregate::Map, text),
            b'|' => return self.opening(Aggregate::Attribute, text),
            _ => return Err(invalid),
        };
        Ok(Part::Whole(reply))
    }

    fn bulk_header(&self, kind: BulkKind, text: &[u8]) -> Result<Part, ProtocolError> {
        let len = parse_len(text, self.limits.max_bulk_len).ok_or(ProtocolError::InvalidBulkLength)?;
        Ok(Part::BulkHeader(kind, len))
    }

    fn opening(&self, kind: Aggregate, text: &[u8]) -> Result<Part, ProtocolError> {
        let count = parse_len(text, self.limits.max_items).ok_or(ProtocolError::InvalidMultibulkLength)?;
        Ok(Part::Opening(kind, count))
    }

    /// Opens an aggregate; an empty one is a whole reply, unless it is an attribute.
    fn open_aggregate(&mut self, kind: Aggregate, count: usize) -> Result<Option<Reply>, ProtocolError> {
        if count == 0 {
            return Ok(Open { kind, missing: 0, items: Vec::new() }.close());
        }
        if self.open.len() >= self.limits.max_depth {
            return Err(ProtocolError::TooDeepReply);
        }
        let missing = match kind {
            Aggregate::Map | Aggregate::Attribute => 2 * count,
            Aggregate::Array | Aggregate::Set | Aggregate::Push => count,
        };
        self.open.push(Open { kind, missing, items: Vec::new() });
        Ok(None)
    }

    /// Puts a reply into the innermost open aggregate, and those that are full thereby into theirs.
    /// Returns the outermost reply when it is whole.
    fn fill(&mut self, mut reply: Reply) -> Option<Reply> {
        while let Some(open) = self.open.last_mut() {
            // What an attribute says is not kept.
            if !matches!(open.kind, Aggregate::Attribute) {
                open.items.push(reply);
            }
            open.missing -= 1;
            if open.missing > 0 {
                return None;
            }
            reply = self.open.pop()?.close()?;
        }
        Some(reply)
    }
}

impl Open {
    /// The whole reply; `None` for an attribute, in whose place the next reply comes.
    fn close(self) -> Option<Reply> {
        match self.kind {
            Aggregate::Array => Some(Reply::Array(self.items)),
            Aggregate::Set => Some(Reply::Set(self.items)),
            Aggregate::Push => Some(Reply::Push(self.items)),
            Aggregate::Map => {
                let mut items = self.items.into_iter();
                let pairs = std::iter::from_fn(|| Some((items.next()?, items.next()?)));
                Some(Reply::Map(pairs.collect()))
            }
            Aggregate::Attribute => None,
        }
    }
}

fn bulk_reply(kind: BulkKind, bytes: &[u8]) -> Result<Reply, ProtocolError> {
    match kind {
        BulkKind::Plain => Ok(Reply::Bulk(bytes.to_vec())),
        BulkKind::Error => Ok(Reply::Error(bytes.to_vec())),
        BulkKind::Verbatim => match bytes {
            [a, b, c, b':', text @ ..] => Ok(Reply::Verbatim { format: [*a, *b, *c], text: text.to_vec() }),
            _ => Err(ProtocolError::InvalidReplyLine),
        },
    }
}

fn parse_len(text: &[u8], max: usize) -> Option<usize> {
    usize::try_from(parse_integer(text)?).ok().filter(|&len| len <= max)
}

/// An integer; in replies a plus sign is allowed.
fn parse_signed(text: &[u8]) -> Option<i64> {
    match text {
        [b'+', digits @ ..] if digits.first() != Some(&b'-') => parse_integer(digits),
        _ => parse_integer(text),
    }
}

fn parse_double(text: &[u8]) -> Option<f64> {
    std::str::from_utf8(text).ok()?.parse().ok()
}

fn is_big_number(text: &[u8]) -> bool {
    let digits = text.strip_prefix(b"-").or(text.strip_prefix(b"+")).unwrap_or(text);
    !digits.is_empty() && digits.iter().all(u8::is_ascii_digit)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decoder() -> ReplyDecoder {
        ReplyDecoder::new(ReplyLimits::default())
    }

    fn decode(bytes: &[u8]) -> Result<Option<(Reply, usize)>, ProtocolError> {
        decoder().decode(bytes)
    }

    #[test]
    fn announced_counts_and_lengths_allocate_nothing() {
        let mut decoder = decoder();
        assert_eq!(decoder.decode(b"*4294967295\r\n%4294967295\r\n$536870912\r\nabc"), Ok(None));
        assert!(decoder.open.iter().all(|open| open.items.capacity() == 0));
    }

    #[test]
    fn line_limit_counts_the_text_without_its_end() {
        let limits = ReplyLimits { max_line_len: 3, ..ReplyLimits::default() };
        let decode = |bytes: &[u8]| ReplyDecoder::new(limits).decode(bytes);
        assert_eq!(decode(b"+abc\r\n"), Ok(Some((Reply::Status(b"abc".to_vec()), 6))));
        assert_eq!(decode(b"+abcd\r\n"), Err(ProtocolError::TooBigReplyLine));
        assert_eq!(decode(b"+abcd"), Ok(None));
        assert_eq!(decode(b"+abcde"), Err(ProtocolError::TooBigReplyLine));
    }

    #[test]
    fn attributes_are_skipped_wherever_they_stand() {
        let bytes = b"|1\r\n+ttl\r\n:5\r\n*2\r\n|1\r\n+a\r\n*1\r\n+b\r\n:1\r\n|0\r\n:2\r\n";
        let (reply, consumed) = decode(bytes).unwrap().unwrap();
        assert_eq!(reply, Reply::Array(vec![Reply::Integer(1), Reply::Integer(2)]));
        assert_eq!(consumed, bytes.len());
    }

    #[test]
    fn lengths_at_the_end_of_the_number_range_do_not_overflow() {
        let limits = ReplyLimits {
            max_items: usize::MAX,
            max_bulk_len: usize::MAX,
            max_line_len: usize::MAX,
            max_depth: usize::MAX,
        };
        for bytes in ["*1\r\n$2305843009213693951\r\nab", "%2305843009213693951\r\n+a\r\n", "+abc"] {
            assert_eq!(ReplyDecoder::new(limits).decode(bytes.as_bytes()), Ok(None), "{bytes}");
        }
    }
}
