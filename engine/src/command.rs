//! The command table: one `CommandSpec` per command, from which arity, COMMAND, COMMAND DOCS, the CLI's
//! help and the reference page derive.

use crate::cluster::ClusterRequest;
use crate::error::ClientError;
use crate::glob::Glob;
use crate::node::Node;
use crate::session::Session;
use crate::settings::Settings;
use crate::time::{Micros, Now};
use crate::value::Value;
use resp::{ReplyWriter, Request, SHORT_BULK_LEN};
use std::fmt;

/// One command, or one subcommand of a container such as CLIENT.
#[derive(Debug)]
pub struct CommandSpec {
    /// Lower case.
    pub name: &'static str,
    /// One sentence for COMMAND DOCS.
    pub summary: &'static str,
    /// First release that had it.
    pub since: &'static str,
    /// For COMMAND DOCS and the CLI's `help @group`.
    pub group: Group,
    /// Properties that decide when it may run.
    pub flags: &'static [Flag],
    /// What follows the name.
    pub arguments: &'static [Arg],
    /// Not empty for a container; its `run` is then never called for a subcommand. A container that works without a
    /// subcommand (COMMAND) says so by an optional argument.
    pub subcommands: &'static [CommandSpec],
    /// Does it. For a container: what an unknown subcommand, or one with a wrong number of words, answers.
    pub run: Run,
}

/// A command's code. An error means that nothing was written to the reply and nothing has changed.
pub type Run = fn(&mut Context<'_>) -> Result<Outcome, ClientError>;

/// Groups of commands, by what they are about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Group {
    /// Counting and reading.
    Counter,
    /// The set of names.
    Generic,
    /// Subscriptions.
    Pubsub,
    /// The connection itself.
    Connection,
    /// The node.
    Server,
    /// Other nodes.
    Cluster,
}

impl Group {
    /// As COMMAND DOCS spells it.
    pub fn name(self) -> &'static str {
        match self {
            Group::Counter => "counter",
            Group::Generic => "generic",
            Group::Pubsub => "pubsub",
            Group::Connection => "connection",
            Group::Server => "server",
            Group::Cluster => "cluster",
        }
    }
}

/// Properties of a command, named as COMMAND INFO shows them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flag {
    /// Changes counters.
    Write,
    /// Changes no counter.
    Readonly,
    /// Refused without room when it would make a counter.
    Denyoom,
    /// For operators.
    Admin,
    /// About subscriptions.
    Pubsub,
    /// Allowed while counters are loaded.
    Loading,
    /// Takes constant or logarithmic time.
    Fast,
    /// Allowed before authentication.
    NoAuth,
    /// Not shown to monitors.
    SkipMonitor,
    /// Allowed on a RESP2 connection that subscribes to something.
    WhileSubscribed,
}

impl Flag {
    /// As COMMAND INFO spells it; `None` for what Redis clients have no name for.
    pub fn name(self) -> Option<&'static str> {
        match self {
            Flag::Write => Some("write"),
            Flag::Readonly => Some("readonly"),
            Flag::Denyoom => Some("denyoom"),
            Flag::Admin => Some("admin"),
            Flag::Pubsub => Some("pubsub"),
            Flag::Loading => Some("loading"),
            Flag::Fast => Some("fast"),
            Flag::NoAuth => Some("no_auth"),
            Flag::SkipMonitor => Some("skip_monitor"),
            Flag::WhileSubscribed => None,
        }
    }
}

/// An argument as COMMAND DOCS describes it.
#[derive(Debug)]
pub struct Arg {
    /// Lower case; what the CLI hints.
    pub name: &'static str,
    /// What kind of text it is.
    pub kind: ArgKind,
    /// A word that stands before it (`MATCH pattern`).
    pub token: Option<&'static str>,
    /// May be left out.
    pub is_optional: bool,
    /// May stand several times.
    pub is_multiple: bool,
}

/// What kind of text an argument is.
#[derive(Debug)]
pub enum ArgKind {
    /// The name of a counter.
    Key,
    /// Any bytes.
    String,
    /// A whole number.
    Integer,
    /// A decimal number.
    Double,
    /// A glob.
    Pattern,
    /// The token alone.
    PureToken,
    /// One of several.
    OneOf(&'static [Arg]),
    /// Several that belong together.
    Block(&'static [Arg]),
}

impl Arg {
    /// A required argument.
    pub const fn new(name: &'static str, kind: ArgKind) -> Arg {
        Arg { name, kind, token: None, is_optional: false, is_multiple: false }
    }

    /// A word that stands for itself.
    pub const fn word(name: &'static str, token: &'static str) -> Arg {
        Arg { name, kind: ArgKind::PureToken, token: Some(token), is_optional: false, is_multiple: false }
    }

    /// The same, led by a word.
    pub const fn after(mut self, token: &'static str) -> Arg {
        self.token = Some(token);
        self
    }

    /// The same, optional.
    pub const fn optional(mut self) -> Arg {
        self.is_optional = true;
        self
    }

    /// The same, repeatable.
    pub const fn multiple(mut self) -> Arg {
        self.is_multiple = true;
        self
    }

    /// How many words it is at least.
    const fn min_words(&self) -> usize {
        if self.is_optional {
            return 0;
        }
        let own = match self.kind {
            ArgKind::PureToken => return 1,
            ArgKind::Block(parts) => {
                let (mut sum, mut i) = (0, 0);
                while i < parts.len() {
                    sum += parts[i].min_words();
                    i += 1;
                }
                sum
            }
            ArgKind::OneOf(choices) => {
                let (mut min, mut i) = (usize::MAX, 0);
                while i < choices.len() {
                    let words = choices[i].min_words();
                    min = if words < min { words } else { min };
                    i += 1;
                }
                min
            }
            ArgKind::Key | ArgKind::String | ArgKind::Integer | ArgKind::Double | ArgKind::Pattern => 1,
        };
        own + self.token.is_some() as usize
    }

    const fn is_of_one_size(&self) -> bool {
        let inner = match self.kind {
            ArgKind::OneOf(parts) | ArgKind::Block(parts) => {
                let is_choice = matches!(self.kind, ArgKind::OneOf(_));
                let mut i = 0;
                while i < parts.len()
                    && parts[i].is_of_one_size()
                    && (!is_choice || parts[i].min_words() == parts[0].min_words())
                {
                    i += 1;
                }
                i == parts.len()
            }
            ArgKind::Key
            | ArgKind::String
            | ArgKind::Integer
            | ArgKind::Double
            | ArgKind::Pattern
            | ArgKind::PureToken => true,
        };
        inner && !self.is_optional && !self.is_multiple
    }
}

/// As a manual writes it: `name [name ...]`, `[MATCH pattern]`, `[ID id [id ...]]`, `<ON | OFF>`.
impl fmt::Display for Arg {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_optional {
            f.write_str("[")?;
        }
        f.write_str(self.token.unwrap_or(""))?;
        if self.token.is_some() && !matches!(self.kind, ArgKind::PureToken) {
            f.write_str(" ")?;
        }
        self.fmt_once(f)?;
        if self.is_multiple {
            f.write_str(" [")?;
            self.fmt_once(f)?;
            f.write_str(" ...]")?;
        }
        if self.is_optional {
            f.write_str("]")?;
        }
        Ok(())
    }
}

impl Arg {
    /// The argument without the word that stands before it.
    fn fmt_once(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.kind {
            ArgKind::PureToken => Ok(()),
            ArgKind::OneOf(choices) => {
                f.write_str("<")?;
                fmt_list(choices, " | ", f)?;
                f.write_str(">")
            }
            ArgKind::Block(parts) => fmt_list(parts, " ", f),
            ArgKind::Key | ArgKind::String | ArgKind::Integer | ArgKind::Double | ArgKind::Pattern => {
                f.write_str(self.name)
            }
        }
    }
}

fn fmt_list(args: &[Arg], separator: &str, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    for (position, arg) in args.iter().enumerate() {
        f.write_str(if position == 0 { "" } else { separator })?;
        write!(f, "{arg}")?;
    }
    Ok(())
}

impl CommandSpec {
    /// Number of words with the name; negative: at least that many. As COMMAND INFO shows it.
    pub fn arity(&self) -> i64 {
        if !self.subcommands.is_empty() {
            return if self.arguments.is_empty() { -2 } else { -1 };
        }
        let min = 1 + self.arguments.iter().map(Arg::min_words).sum::<usize>() as i64;
        if self.arguments.iter().all(Arg::is_of_one_size) { min } else { -min }
    }

    /// Whether that many words, name included, are acceptable. For a subcommand, its own name counts as the first.
    pub fn accepts(&self, words: usize) -> bool {
        CommandSpec::is_arity_met(self.arity(), words)
    }

    /// The same for what `arity` has answered.
    pub(crate) fn is_arity_met(arity: i64, words: usize) -> bool {
        let words = words as i64;
        if arity >= 0 { words == arity } else { words >= -arity }
    }

    /// Whether it has a property.
    pub fn has(&self, flag: Flag) -> bool {
        self.flags.contains(&flag)
    }

    /// First key, last key, step: where the names of counters stand.
    pub fn key_positions(&self) -> (i64, i64, i64) {
        for (position, arg) in (1..).zip(self.arguments) {
            if let ArgKind::Key = arg.kind {
                return (position, if arg.is_multiple { -1 } else { position }, 1);
            }
        }
        (0, 0, 0)
    }
}

/// What a command sees while it runs.
pub struct Context<'a> {
    /// The node it runs on.
    pub node: &'a Node,
    /// The connection that sent it.
    pub session: &'a mut Session,
    /// The command and its arguments.
    pub request: Request<'a>,
    /// The moment of execution.
    pub now: Now,
    /// Where the reply goes.
    pub reply: ReplyWriter<'a>,
    /// The settings in force.
    pub settings: &'a Settings,
}

impl Context<'_> {
    /// The counter name at this position.
    ///
    /// # Errors
    /// `NameTooLong`.
    #[inline]
    pub fn name(&self, position: usize) -> Result<&[u8], ClientError> {
        let name = self.request.arg(position);
        if name.len() > crate::counter::MAX_NAME_LEN {
            return Err(ClientError::NameTooLong(name.len()));
        }
        Ok(name)
    }

    /// The number at this position.
    ///
    /// # Errors
    /// As `Value::parse`.
    #[inline]
    pub fn value(&self, position: usize) -> Result<Value, ClientError> {
        Ok(Value::parse(self.request.arg(position))?)
    }

    /// The whole number at this position.
    ///
    /// # Errors
    /// `NotAnInteger`.
    pub fn integer(&self, position: usize) -> Result<i64, ClientError> {
        parse_integer(self.request.arg(position)).ok_or(ClientError::NotAnInteger)
    }

    /// Writes a value as the reply.
    #[inline]
    pub fn reply_value(&mut self, value: Value) {
        self.reply.short_bulk(|buf: &mut [u8; SHORT_BULK_LEN]| value.write_at_end(buf));
    }
}

/// A whole number as Redis reads it: an optional minus, digits without leading zeros.
pub fn parse_integer(text: &[u8]) -> Option<i64> {
    let digits = text.strip_prefix(b"-").unwrap_or(text);
    let is_plain = match digits {
        [] => false,
        [b'0'] => digits.len() == text.len(),
        [first, ..] => *first != b'0' && digits.iter().all(u8::is_ascii_digit),
    };
    if !is_plain {
        return None;
    }
    std::str::from_utf8(text).ok()?.parse().ok()
}

/// What the connection does after a command.
#[derive(Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Go on with the next command; the reply is written.
    Done,
    /// Send what is written, then close.
    Close,
    /// The shell must do something that takes time before the next command; it gives the result to
    /// `Node::finish`, which writes the reply.
    Wait(Task),
    /// Nothing was done; the same request is to be given again at this moment or when the client is woken.
    Later(Micros),
    /// Done, and settings may have changed.
    SettingsChanged,
}

/// Work that may take long and is not done on the spot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Task {
    /// Write the settings into the configuration file.
    RewriteConfig,
    /// Collect the names that match a glob; `Node::keys_step` does a piece at a time.
    Keys(Glob),
    /// End the process.
    Shutdown(SaveOnExit),
    /// Serve nobody for this long.
    Sleep(Micros),
    /// Write a snapshot and wait for it.
    Save,
    /// Start a snapshot.
    SaveInBackground,
    /// Give it to the thread that owns the cluster, and its result to the client.
    Cluster(ClusterRequest),
    /// CLUSTER MEET with a host name: find its address, then go on with `Cluster(ClusterRequest::Meet)`. If there is none,
    /// the result is `TaskResult::unresolved`.
    Resolve {
        /// The host, checked to be a name.
        host: String,
        /// Its client port.
        port: u16,
        /// Its bus port.
        bus_port: u16,
    },
}

/// Whether to save before the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SaveOnExit {
    /// If save points are configured.
    AsConfigured,
    /// In any case.
    Yes,
    /// In no case.
    No,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn integers_are_read_as_redis_reads_them() {
        for (text, expected) in [
            ("0", Some(0)),
            ("7", Some(7)),
            ("-7", Some(-7)),
            ("9223372036854775807", Some(i64::MAX)),
            ("-9223372036854775808", Some(i64::MIN)),
            ("9223372036854775808", None),
            ("-0", None),
            ("07", None),
            ("+7", None),
            ("", None),
            ("-", None),
            (" 7", None),
            ("7 ", None),
            ("1.5", None),
        ] {
            assert_eq!(parse_integer(text.as_bytes()), expected, "{text:?}");
        }
    }
}
