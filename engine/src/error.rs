//! What a client is told when a command can't be done: the text of a RESP error.

use crate::glob::{MAX_PATTERN_LEN, PatternTooLong};
use crate::keyspace::{ChangeError, NoRoom};
use crate::precision::TooManyPrecisions;
use crate::value::ValueError;
use resp::ReplyWriter;
use std::borrow::Cow;
use std::fmt;

/// Why a command was refused. `Display` gives the text behind the `-` of the reply, code first.
/// Nothing has changed when a command answers one of these.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ClientError {
    /// `ERR wrong number of arguments for 'name' command`
    Arity(&'static str),
    /// The same for a subcommand: container and name.
    SubcommandArity(&'static str, &'static str),
    /// A text that repeats some of the client's bytes.
    Quoting {
        /// Text before them, code included.
        before: &'static str,
        /// At most `MAX_QUOTED_LEN` bytes of the client.
        quoted: Vec<u8>,
        /// Text behind them.
        after: &'static str,
    },
    /// The connection has not authenticated.
    NoAuth,
    /// `ERR value is not an integer or out of range`
    NotAnInteger,
    /// The value is no number or out of range.
    Value(ValueError),
    /// The memory limit does not allow a further counter.
    OutOfMemory,
    /// The table of different precisions is full.
    TooManyPrecisions,
    /// The name is longer than `MAX_NAME_LEN`.
    NameTooLong(usize),
    /// The pattern is longer than `MAX_PATTERN_LEN`.
    PatternTooLong(usize),
    /// `ERR syntax error`
    Syntax,
    /// Any other text; it starts with its code (`ERR ...`).
    Text(Cow<'static, str>),
}

/// Most bytes of a client that an error repeats: any name in full, as the original shows it.
const MAX_QUOTED_LEN: usize = crate::counter::MAX_NAME_LEN;

impl ClientError {
    /// An error that repeats some of the client's bytes, cut at `MAX_QUOTED_LEN`.
    pub fn quoting(before: &'static str, quoted: &[u8], after: &'static str) -> ClientError {
        let quoted = quoted[..quoted.len().min(MAX_QUOTED_LEN)].to_vec();
        ClientError::Quoting { before, quoted, after }
    }

    /// Writes it as an error reply, quoted bytes as they came (line ends become blanks).
    pub fn write(&self, reply: &mut ReplyWriter<'_>) {
        match self {
            ClientError::Quoting { before, quoted, after } => {
                reply.error_bytes(&[before.as_bytes(), quoted, after.as_bytes()].concat());
            }
            other => reply.error(other),
        }
    }

    /// An error with a text made for the occasion, code included.
    pub fn text(text: impl Into<Cow<'static, str>>) -> ClientError {
        ClientError::Text(text.into())
    }
}

impl From<ValueError> for ClientError {
    fn from(error: ValueError) -> ClientError {
        ClientError::Value(error)
    }
}

impl From<PatternTooLong> for ClientError {
    fn from(PatternTooLong(len): PatternTooLong) -> ClientError {
        ClientError::PatternTooLong(len)
    }
}

impl From<NoRoom> for ClientError {
    fn from(_: NoRoom) -> ClientError {
        ClientError::OutOfMemory
    }
}

impl From<TooManyPrecisions> for ClientError {
    fn from(_: TooManyPrecisions) -> ClientError {
        ClientError::TooManyPrecisions
    }
}

impl From<ChangeError> for ClientError {
    fn from(error: ChangeError) -> ClientError {
        match error {
            ChangeError::Value(error) => ClientError::Value(error),
            ChangeError::NoRoom => ClientError::OutOfMemory,
            ChangeError::TooManyPrecisions => ClientError::TooManyPrecisions,
        }
    }
}

impl fmt::Display for ClientError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ClientError::Arity(name) => write!(f, "ERR wrong number of arguments for '{name}' command"),
            ClientError::SubcommandArity(container, name) => {
                write!(f, "ERR wrong number of arguments for '{container}|{name}' command")
            }
            ClientError::NoAuth => f.write_str("NOAUTH Authentication required."),
            ClientError::NotAnInteger => f.write_str("ERR value is not an integer or out of range"),
            ClientError::Value(error) => write!(f, "ERR {error}"),
            ClientError::OutOfMemory => {
                f.write_str("OOM command not allowed when used memory > 'maxmemory'.")
            }
            ClientError::TooManyPrecisions => {
                f.write_str("ERR too many different precisions in use (limit 65535); use one that is")
            }
            ClientError::NameTooLong(len) => {
                write!(f, "ERR counter name is too long: {len} bytes, limit {}", crate::counter::MAX_NAME_LEN)
            }
            ClientError::PatternTooLong(len) => {
                write!(f, "ERR pattern is too long: {len} bytes, limit {MAX_PATTERN_LEN}")
            }
            ClientError::Syntax => f.write_str("ERR syntax error"),
            ClientError::Text(text) => f.write_str(text),
            ClientError::Quoting { before, quoted, after } => {
                write!(f, "{before}{}{after}", String::from_utf8_lossy(quoted))
            }
        }
    }
}
