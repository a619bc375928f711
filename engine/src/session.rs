//! A client's conversation as its own thread keeps it: protocol, rights, reply mode.

use crate::clients::Client;
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
}

/// One connection's state. Made by `Node::connect`, given to `Node::execute` with each request, and ended by
/// `Node::disconnect`.
#[derive(Debug)]
pub struct Session {
    pub(crate) client: Arc<Client>,
    pub(crate) protocol: Protocol,
    pub(crate) has_authenticated: bool,
    pub(crate) reply_mode: ReplyMode,
}

impl Session {
    pub(crate) fn new(client: Arc<Client>) -> Session {
        Session { client, protocol: Protocol::Resp2, has_authenticated: false, reply_mode: ReplyMode::On }
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
