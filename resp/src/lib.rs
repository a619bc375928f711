//! The Redis protocol, both directions, without I/O: RESP2, RESP3 and inline commands.
//!
//! The server side turns bytes into [`Request`]s ([`RequestDecoder`]) and writes replies
//! ([`ReplyWriter`]); the client side writes requests ([`write_request`]) and turns bytes into
//! [`Reply`]s ([`ReplyDecoder`]). Nothing here reads a socket, knows a command or a clock, or logs.
//!
//! What holds everywhere:
//! - Incomplete input is an ordinary outcome. A decoder goes on where it stopped, so the cost is
//!   linear in the bytes however they were cut, and the outcome does not depend on the cuts.
//! - Memory is bounded by the bytes that have arrived, never by a length that was announced.
//! - No input panics. After a [`ProtocolError`] the stream has no known boundaries any more: say so and close.
//!
//! Formats: <https://redis.io/docs/latest/develop/reference/protocol-spec/>. Not supported, because no
//! server sends them: streamed strings and aggregates of RESP3 (`$?`, `*?`).

mod client;
mod error;
mod number;
mod reply;
mod request;
mod words;

pub use client::{Reply, ReplyDecoder, ReplyLimits, write_request};
pub use error::ProtocolError;
pub use reply::{Protocol, ReplyWriter, SHORT_BULK_LEN};
pub use request::{Decoded, LOOK_AHEAD, Limits, Request, RequestDecoder};
pub use words::{SplitError, split_words};
