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

use self::quote::{is_lines_of_text, write_shown};

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
        out.push(b'\n');
    }

    /// The same for a command that answers with a report such as INFO: in typed form, a bulk of lines is
    /// shown as these lines and not quoted.
    pub(crate) fn write_report(self, out: &mut Vec<u8>, reply: &Reply) {
        match (self, reply) {
            (Self::Typed { .. }, Reply::Bulk(text)) if is_lines_of_text(text) => write_shown(out, text),
            _ => self.write(out, reply),
        }
    }
}
