//! A conversation: commands in, replies printed, across as many connections as it takes.
//!
//! The rule for a lost connection: before a command is sent, the client looks whether the connection still
//! lives and opens a new one if not. Once a command has been sent it is never sent again, because it may
//! have run, and a count that is added twice is worse than one that the user is asked about.
//!
//! Replies are paired with commands here: messages that come by themselves (RESP3) are shown as they come
//! and answer nothing, subscribing answers once per name, and `CLIENT REPLY OFF|SKIP` silences the server.

use std::fmt;
use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use resp::Reply;

use crate::catalogue::Catalogue;
use crate::connection::{Connection, Failure, reason};
use crate::form::Form;
use crate::options::{Address, Credentials, Options, Protocol};

/// Why a command did not come to its end.
#[derive(Debug)]
pub(crate) enum Trouble {
    /// No connection could be had; the command was not sent.
    Connect(Address, io::Error),
    /// The connection was lost after the command had been sent.
    Lost(Failure),
    /// The connection was lost while messages were shown.
    StreamEnded(Failure),
    /// The user pressed Ctrl-C; the connection is closed.
    Interrupted,
    /// What was to be printed could not be.
    Output(io::Error),
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Connect(address, error) => {
                write!(f, "Could not connect to Discnt at {address}: {}", reason(error))
            }
            Self::Lost(failure) => {
                write!(f, "Error: {failure}; the command may or may not have been executed")
            }
            Self::StreamEnded(failure) => write!(f, "Error: {failure}"),
            Self::Interrupted => f.write_str("Interrupted; the command may or may not have been executed"),
            Self::Output(error) => write!(f, "Error: writing the output: {}", reason(error)),
        }
    }
}

/// Who answers the next commands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Answers {
    Always,
    /// After `CLIENT REPLY OFF`.
    Never,
}

/// What one connection is in, beyond request and reply.
#[derive(Debug)]
struct Link {
    connection: Connection,
    protocol: Protocol,
    /// Subscriptions as the server last counted them.
    subscriptions: i64,
    answers: Answers,
    /// Whether the server shall stay silent on the next command.
    is_next_silent: bool,
}

/// A user's conversation with a server.
#[derive(Debug)]
pub(crate) struct Client {
    address: Address,
    credentials: Option<Credentials>,
    protocol: Protocol,
    database: u32,
    form: Form,
    /// Set by Ctrl-C; only an interactive client has one, for others Ctrl-C ends the process.
    interrupt: Option<Arc<AtomicBool>>,
    link: Option<Link>,
    error_replies: u64,
}

impl Client {
    /// A client that is not connected yet.
    pub(crate) fn new(options: &Options, form: Form, interrupt: Option<Arc<AtomicBool>>) -> Self {
        Self {
            address: options.address.clone(),
            credentials: options.credentials.clone(),
            protocol: options.protocol,
            database: options.database,
            form,
            interrupt,
            link: None,
            error_replies: 0,
        }
    }

    /// How many replies were errors so far. An error inside an array does not count.
    pub(crate) fn error_replies(&self) -> u64 {
        self.error_replies
    }

    /// Whether there is a connection, as far as is known.
    pub(crate) fn is_connected(&self) -> bool {
        self.link.is_some()
    }

    /// Whether this connection has subscriptions.
    pub(crate) fn is_subscribed(&self) -> bool {
        self.link.as_ref().is_some_and(|link| link.subscriptions > 0)
    }

    /// Connects if need be, prints what has arrived meanwhile, and answers whether the connection is new.
    ///
    /// # Errors
    /// `Connect` and `Output`.
    pub(crate) fn ensure_connected(&mut self) -> Result<bool, Trouble> {
        self.show_arrived()?;
        if self.link.is_some() {
            return Ok(false);
        }
        let connection = Connection::open(&self.address, self.interrupt.clone())
            .map_err(|error| Trouble::Connect(self.address.clone(), error))?;
        let mut link = Link {
            connection,
            protocol: Protocol::Resp2,
            subscriptions: 0,
            answers: Answers::Always,
            is_next_silent: false,
        };
        self.greet(&mut link).map_err(|failure| {
            Trouble::Connect(self.address.clone(), io::Error::other(failure.to_string()))
        })?;
        self.link = Some(link);
        Ok(true)
    }

    /// Prints the messages that have arrived by themselves, and notices when the connection is gone.
    ///
    /// # Errors
    /// `Output`.
    pub(crate) fn show_arrived(&mut self) -> Result<(), Trouble> {
        let Some(link) = &mut self.link else { return Ok(()) };
        let (replies, is_alive) = link.connection.take_arrived();
        if !is_alive {
            self.link = None;
        }
        replies.iter().try_for_each(|reply| self.print(reply))
    }

    /// Authenticates, chooses protocol and database. A refusal is told and the connection kept: the next
    /// command's own error says what is missing.
    fn greet(&self, link: &mut Link) -> Result<(), Failure> {
        if let Some(credentials) = &self.credentials {
            let mut request = vec![b"AUTH".to_vec()];
            request.extend(credentials.user.clone());
            request.push(credentials.password.clone());
            refusal(ask(link, &request)?, "AUTH");
        }
        if self.protocol == Protocol::Resp3 && !refusal(ask(link, &["HELLO", "3"])?, "HELLO 3") {
            link.protocol = Protocol::Resp3;
        }
        if self.database != 0 {
            let database = self.database.to_string();
            refusal(ask(link, &["SELECT", &database])?, &format!("SELECT {database}"));
        }
        Ok(())
    }

    /// Learns the commands of the server; an empty catalogue if it does not tell.
    pub(crate) fn learn(&mut self) -> Catalogue {
        self.forget_interrupt();
        let Some(link) = &mut self.link else { return Catalogue::default() };
        let Ok(docs) = ask(link, &["COMMAND", "DOCS"]) else {
            self.link = None;
            return Catalogue::default();
        };
        let catalogue = Catalogue::from_docs(&docs);
        if !catalogue.is_empty() {
            return catalogue;
        }
        match ask(link, &["COMMAND"]) {
            Ok(names) => Catalogue::from_names(&names),
            Err(_) => {
                self.link = None;
                Catalogue::default()
            }
        }
    }

    /// Runs one command and prints its replies; after SUBSCRIBE, MONITOR and their kin, prints messages until
    /// the connection ends or the user interrupts.
    ///
    /// # Errors
    /// After `Connect` and `Output` the command did not run or was answered; after the others nobody knows.
    pub(crate) fn run(&mut self, args: &[Vec<u8>]) -> Result<(), Trouble> {
        self.forget_interrupt();
        self.ensure_connected()?;
        let outcome = self.converse(args);
        match outcome {
            Err(Trouble::Lost(Failure::Closed)) if is_word(args, 0, "SHUTDOWN") => {
                self.link = None;
                Ok(())
            }
            Err(Trouble::Lost(Failure::Interrupted)) => {
                self.link = None;
                Err(Trouble::Interrupted)
            }
            Err(trouble) => {
                self.link = None;
                Err(trouble)
            }
            Ok(()) => Ok(()),
        }
    }

    /// Sends `args` and prints all that answers it.
    fn converse(&mut self, args: &[Vec<u8>]) -> Result<(), Trouble> {
        let sent = self.connected().connection.send(args);
        if !self.expects_reply(args) {
            return sent.map_err(Trouble::Lost);
        }
        let mut missing = self.replies_expected(args);
        while missing > 0 {
            let reply = match (self.connected().connection.receive(), &sent) {
                (Ok(reply), _) => reply,
                // The write failed and nothing came: the write says why.
                (Err(_), Err(Failure::Io(error))) => {
                    return Err(Trouble::Lost(Failure::Io(io::Error::new(error.kind(), reason(error)))));
                }
                (Err(failure), _) => return Err(Trouble::Lost(failure)),
            };
            self.print_as(&reply, is_report(args))?;
            if matches!(reply, Reply::Error(_)) {
                return Ok(());
            }
            // A push answers nothing, save the commands whose confirmations are pushes.
            if !matches!(reply, Reply::Push(_)) || is_confirmation(&reply, args) {
                missing -= 1;
                self.note_effect(args, &reply);
            }
        }
        let is_streaming = is_word(args, 0, "MONITOR") || (is_subscribing(args) && self.is_subscribed());
        if is_streaming { self.stream(args) } else { Ok(()) }
    }

    /// Prints messages until the connection ends or the user interrupts. Then a RESP3 connection goes on with
    /// its subscriptions; any other is given up, since it could do little else.
    fn stream(&mut self, args: &[Vec<u8>]) -> Result<(), Trouble> {
        if self.interrupt.is_some() && matches!(self.form, Form::Typed { .. }) {
            write_out(b"Reading messages... (Ctrl-C returns to the prompt)\n").map_err(Trouble::Output)?;
        }
        loop {
            match self.connected().connection.receive() {
                Ok(reply) => self.print(&reply)?,
                Err(Failure::Interrupted) => {
                    let link = self.connected();
                    if is_word(args, 0, "MONITOR") || link.protocol == Protocol::Resp2 {
                        self.link = None;
                    }
                    return Ok(());
                }
                Err(failure) => return Err(Trouble::StreamEnded(failure)),
            }
        }
    }

    /// Whether Ctrl-C was pressed since the last command began.
    pub(crate) fn is_interrupted(&self) -> bool {
        self.interrupt.as_ref().is_some_and(|flag| flag.load(Ordering::Relaxed))
    }

    fn forget_interrupt(&self) {
        if let Some(flag) = &self.interrupt {
            flag.store(false, Ordering::Relaxed);
        }
    }

    fn connected(&mut self) -> &mut Link {
        self.link.as_mut().expect("run connects before it converses, and only its end drops the link")
    }

    /// Whether the server will answer `args`; keeps account of `CLIENT REPLY`.
    fn expects_reply(&mut self, args: &[Vec<u8>]) -> bool {
        let link = self.connected();
        let is_client_reply = is_word(args, 0, "CLIENT") && is_word(args, 1, "REPLY");
        if is_client_reply && is_word(args, 2, "ON") {
            link.answers = Answers::Always;
            link.is_next_silent = false;
            return true;
        }
        let was_silent = std::mem::take(&mut link.is_next_silent) || link.answers == Answers::Never;
        if is_client_reply && is_word(args, 2, "OFF") {
            link.answers = Answers::Never;
            return false;
        }
        if is_client_reply && is_word(args, 2, "SKIP") {
            link.is_next_silent = true;
            return false;
        }
        !was_silent
    }

    /// How many replies `args` will get if it is no error.
    fn replies_expected(&mut self, args: &[Vec<u8>]) -> usize {
        let names = |skipped: usize| args.len().saturating_sub(skipped).max(1);
        if is_word(args, 0, "ISUBSCRIBE") {
            names(2)
        } else if is_subscribing(args) || (is_unsubscribing(args) && args.len() > 1) {
            names(1)
        } else if is_unsubscribing(args) {
            usize::try_from(self.connected().subscriptions).unwrap_or(0).max(1)
        } else {
            1
        }
    }

    /// Remembers what a successful command changed, for this connection and for the ones after it.
    fn note_effect(&mut self, args: &[Vec<u8>], reply: &Reply) {
        if is_subscribing(args) || is_unsubscribing(args) {
            if let Reply::Array(items) | Reply::Push(items) = reply
                && let Some(Reply::Integer(count)) = items.last()
            {
                self.connected().subscriptions = *count;
            }
        } else if is_word(args, 0, "AUTH") {
            if let [_, password] = args {
                self.credentials = Some(Credentials { user: None, password: password.clone() });
            } else if let [_, user, password] = args {
                self.credentials = Some(Credentials { user: Some(user.clone()), password: password.clone() });
            }
        } else if is_word(args, 0, "HELLO") && args.len() > 1 {
            self.protocol = if is_word(args, 1, "3") { Protocol::Resp3 } else { Protocol::Resp2 };
            self.connected().protocol = self.protocol;
            if let Some(at) = (2..args.len()).find(|&at| is_word(args, at, "AUTH"))
                && let [_, user, password, ..] = &args[at..]
            {
                self.credentials = Some(Credentials { user: Some(user.clone()), password: password.clone() });
            }
        } else if is_word(args, 0, "SELECT") && args.len() == 2 {
            let number = std::str::from_utf8(&args[1]).ok().and_then(|text| text.parse().ok());
            self.database = number.unwrap_or(self.database);
        } else if is_word(args, 0, "RESET") {
            self.protocol = Protocol::Resp2;
            self.database = 0;
            let link = self.connected();
            link.protocol = Protocol::Resp2;
            link.subscriptions = 0;
        }
    }

    /// Prints `reply` at once.
    fn print(&mut self, reply: &Reply) -> Result<(), Trouble> {
        self.print_as(reply, false)
    }

    fn print_as(&mut self, reply: &Reply, is_report: bool) -> Result<(), Trouble> {
        if matches!(reply, Reply::Error(_)) {
            self.error_replies += 1;
        }
        let mut text = Vec::new();
        if is_report {
            self.form.write_report(&mut text, reply);
        } else {
            self.form.write(&mut text, reply);
        }
        write_out(&text).map_err(Trouble::Output)
    }
}

/// Writes to standard output and flushes, so that a reader behind a pipe sees each reply as it comes.
pub(crate) fn write_out(bytes: &[u8]) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(bytes)?;
    out.flush()
}

/// Writes a line to standard error, where it can.
pub(crate) fn complain(text: &str) {
    // There is nowhere left to say that standard error is closed.
    let _ = writeln!(io::stderr().lock(), "{text}");
}

/// One request and its reply, past messages that come by themselves; nothing is printed.
fn ask<W: AsRef<[u8]>>(link: &mut Link, args: &[W]) -> Result<Reply, Failure> {
    let sent = link.connection.send(args);
    loop {
        match (link.connection.receive(), &sent) {
            (Ok(Reply::Push(_)), _) => {}
            (Ok(reply), _) => return Ok(reply),
            (Err(_), Err(_)) => return Err(sent.expect_err("matched as an error")),
            (Err(failure), Ok(())) => return Err(failure),
        }
    }
}

/// Whether `reply` is an error; tells it if so.
fn refusal(reply: Reply, what: &str) -> bool {
    let Reply::Error(text) = reply else { return false };
    let text: String = String::from_utf8_lossy(&text).chars().filter(|c| !c.is_control()).collect();
    complain(&format!("{what} failed: {text}"));
    true
}

/// Whether word `at` of a command is `word`, in any case of letters.
pub(crate) fn is_word(args: &[Vec<u8>], at: usize, word: &str) -> bool {
    args.get(at).is_some_and(|arg| arg.eq_ignore_ascii_case(word.as_bytes()))
}

/// Whether the command is among those that answer with lines of text. RESP3 says so by itself.
fn is_report(args: &[Vec<u8>]) -> bool {
    ["INFO", "CLIENT", "CLUSTER", "LATENCY", "DEBUG"].iter().any(|word| is_word(args, 0, word))
}

fn is_subscribing(args: &[Vec<u8>]) -> bool {
    ["SUBSCRIBE", "ISUBSCRIBE", "PSUBSCRIBE", "SSUBSCRIBE"].iter().any(|word| is_word(args, 0, word))
}

fn is_unsubscribing(args: &[Vec<u8>]) -> bool {
    ["UNSUBSCRIBE", "PUNSUBSCRIBE", "SUNSUBSCRIBE"].iter().any(|word| is_word(args, 0, word))
}

/// Whether a push confirms a subscription, or the end of one, that `args` asked for.
fn is_confirmation(push: &Reply, args: &[Vec<u8>]) -> bool {
    let Reply::Push(items) = push else { return false };
    let Some(Reply::Bulk(kind) | Reply::Status(kind)) = items.first() else { return false };
    (is_subscribing(args) && kind.ends_with(b"subscribe") && !kind.ends_with(b"unsubscribe"))
        || (is_unsubscribing(args) && kind.ends_with(b"unsubscribe"))
}
