//! What can be wrong with the bytes of a stream.
//!
//! One type for both directions, since the causes overlap. The texts for requests are those that
//! clients of Redis know; they are written as a reply and then the connection is closed.

use std::fmt;

/// Why a stream of requests or replies can't be read any further. `Display` gives the text that
/// follows `-ERR ` in the reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ProtocolError {
    /// The count of an array is no number, is too large, or its line is not ended by CRLF.
    InvalidMultibulkLength,
    /// The length of a bulk is no number, is negative or too large, or its line is not ended by CRLF.
    InvalidBulkLength,
    /// More arguments than a client may send before it has given the password.
    UnauthenticatedMultibulkLength,
    /// A longer argument than a client may send before it has given the password.
    UnauthenticatedBulkLength,
    /// Where the header of an argument should start there is this byte.
    ExpectedDollar(u8),
    /// A quote of an inline command is not closed, or text follows the closing quote directly.
    UnbalancedQuotes,
    /// The line end of an inline command did not come within the limit.
    TooBigInline,
    /// The line end of an array header did not come within the limit.
    TooBigMultibulkCount,
    /// The line end of a bulk header did not come within the limit.
    TooBigBulkCount,
    /// The announced bytes of a bulk are followed by something other than CRLF.
    BulkWithoutEnd,
    /// A reply starts with a byte that names no kind of reply.
    UnknownReplyKind(u8),
    /// The line of a reply is not what its first byte promises, or not ended by CRLF.
    InvalidReplyLine,
    /// The line of a reply did not end within the limit.
    TooBigReplyLine,
    /// Arrays, maps and the like are nested deeper than the limit.
    TooDeepReply,
}

impl ProtocolError {
    /// Appends the text with the offending byte as it was received. `Display` can't do that for bytes
    /// above 127: it has to write characters.
    pub fn write_text(&self, out: &mut Vec<u8>) {
        let (before, byte, after) = self.parts();
        out.extend_from_slice(before.as_bytes());
        out.extend(byte);
        out.extend_from_slice(after.as_bytes());
    }

    /// The text in three pieces: what stands before the offending byte, the byte, the rest.
    fn parts(&self) -> (&'static str, Option<u8>, &'static str) {
        match *self {
            Self::InvalidMultibulkLength => ("Protocol error: invalid multibulk length", None, ""),
            Self::InvalidBulkLength => ("Protocol error: invalid bulk length", None, ""),
            Self::UnauthenticatedMultibulkLength => {
                ("Protocol error: unauthenticated multibulk length", None, "")
            }
            Self::UnauthenticatedBulkLength => ("Protocol error: unauthenticated bulk length", None, ""),
            Self::ExpectedDollar(byte) => ("Protocol error: expected '$', got '", Some(byte), "'"),
            Self::UnbalancedQuotes => ("Protocol error: unbalanced quotes in request", None, ""),
            Self::TooBigInline => ("Protocol error: too big inline request", None, ""),
            Self::TooBigMultibulkCount => ("Protocol error: too big mbulk count string", None, ""),
            Self::TooBigBulkCount => ("Protocol error: too big bulk count string", None, ""),
            Self::BulkWithoutEnd => ("Protocol error: expected CRLF after bulk", None, ""),
            Self::UnknownReplyKind(byte) => ("Protocol error: unknown kind of reply '", Some(byte), "'"),
            Self::InvalidReplyLine => ("Protocol error: invalid line in reply", None, ""),
            Self::TooBigReplyLine => ("Protocol error: too big line in reply", None, ""),
            Self::TooDeepReply => ("Protocol error: too deeply nested reply", None, ""),
        }
    }
}

impl fmt::Display for ProtocolError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (before, byte, after) = self.parts();
        f.write_str(before)?;
        if let Some(byte) = byte {
            write!(f, "{}", char::from(byte))?;
        }
        f.write_str(after)
    }
}

impl std::error::Error for ProtocolError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn offending_byte_is_kept_as_it_was_received() {
        let mut out = Vec::new();
        ProtocolError::ExpectedDollar(0xff).write_text(&mut out);
        assert_eq!(out, b"Protocol error: expected '$', got '\xff'");
        assert_eq!(ProtocolError::ExpectedDollar(b'f').to_string(), "Protocol error: expected '$', got 'f'");
    }
}
