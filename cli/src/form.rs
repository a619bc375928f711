//! Replies as text: typed for eyes, raw for scripts, CSV, and JSON.
//!
//! The forms are those of `redis-cli`, with three deliberate differences: JSON is valid JSON also for errors
//! and for bytes that are not UTF-8, an error in raw form is one line without an empty one behind it, and
//! whatever goes to a terminal in typed form has its control characters escaped, so a server cannot steer
//! the terminal. Nothing here can fail: every reply has a text.

mod csv;
mod json;
mod quote;
mod raw;
mod typed;

use resp::Reply;

/// How replies are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    /// Quoted, typed and numbered; errors in red if coloured.
    Typed {
        /// Whether ANSI colours may be used.
        has_colors: bool,
    },
    /// Bare bytes; elements on lines of their own.
    Raw,
    /// Comma-separated, one line.
    Csv,
    /// JSON, one line.
    Json,
}

impl Form {
    /// Appends `reply` to `out`, ended by a newline.
    pub(crate) fn write(self, out: &mut Vec<u8>, reply: &Reply) {
        match self {
            Self::Typed { has_colors } => typed::write(out, reply, has_colors),
            Self::Raw => raw::write(out, reply),
            Self::Csv => csv::write(out, reply),
            Self::Json => json::write(out, reply),
        }
        if !(out.ends_with(b"\n") && matches!(self, Self::Typed { .. })) {
            out.push(b'\n');
        }
    }
}
