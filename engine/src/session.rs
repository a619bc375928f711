//! A client's conversation as its own thread keeps it: protocol, rights, reply mode.

use crate::clients::Client;
use crate::settings::Settings;
use crate::stats::Tally;
use resp::Protocol;
use std::sync::Arc;

/// Whether replies are sent (CLIENT REPLY).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum ReplyMode {
    /// As usual.
    #[default]
    On,
    /// None until switched on again.
    Off,
    /// None for the next command.
    SkipNext,
    /// None for the command that is being executed.
    Skip,
}

/// One connection's state. Made by `Node::connect`, given to `Node::execute` with each request, and ended by
/// `Node::disconnect`.
#[derive(Debug)]
pub struct Session {
    pub(crate) client: Arc<Client>,
    pub(crate) protocol: Protocol,
    /// Has given the password that was in force at the time. As in Redis, a later change of one password to
    /// another does not throw it out; the first password of a node locks everybody, for nobody has given one.
    pub(crate) has_authenticated: bool,
    pub(crate) reply_mode: ReplyMode,
    /// Whether the client gets the reply of the request that was executed last; `Node::finish` asks.
    pub(crate) is_reply_due: bool,
    pub(crate) tally: Tally,
    /// Where the table has the command of the last request: mostly the next one is the same.
    pub(crate) command_hint: u16,
    /// Something that may change counters was executed since `take_written`.
    pub(crate) has_written: bool,
}

impl Session {
    pub(crate) fn new(client: Arc<Client>) -> Session {
        Session {
            client,
            protocol: Protocol::Resp2,
            has_authenticated: false,
            reply_mode: ReplyMode::On,
            is_reply_due: true,
            tally: Tally::default(),
            command_hint: 0,
            has_written: false,
        }
    }

    /// Whether only commands that need no password are executed.
    pub fn is_locked(&self, settings: &Settings) -> bool {
        !settings.requirepass.is_empty() && !self.has_authenticated
    }

    /// Speaks this protocol from the next reply on.
    pub(crate) fn set_protocol(&mut self, protocol: Protocol) {
        self.protocol = protocol;
        self.client.set_protocol(protocol);
    }

    /// Whether something that may change counters was executed since the last call.
    pub fn take_written(&mut self) -> bool {
        std::mem::take(&mut self.has_written)
    }

    /// Tells which of the shell's threads serves this connection, so that threads do not write to the same counts.
    pub fn set_lane(&mut self, thread: usize) {
        self.tally.lane = thread;
    }

    /// What other threads see of this connection.
    pub fn client(&self) -> &Arc<Client> {
        &self.client
    }

    /// The protocol that replies are written in.
    pub fn protocol(&self) -> Protocol {
        self.protocol
    }
}
