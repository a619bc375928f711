//! The connected clients as everybody may see them: who they are, what waits to be sent to them, and
//! whether somebody wants them gone.
//!
//! A connection's own thread owns its `Session`; what other threads need (CLIENT LIST and KILL, messages
//! for a subscriber, lines for a monitor) stands here behind atomics and one small lock.
//!
//! Lacks on purpose: sockets. The shell gives a `Wake` per connection and drains the outbox itself.

use crate::command::{CommandSpec, Flag};
use crate::time::Micros;
use parking_lot::Mutex;
use resp::Protocol;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, AtomicUsize, Ordering};

/// Gets a connection's thread to look at its client's outbox and flags. Must not block.
pub type Wake = Box<dyn Fn() + Send + Sync>;

/// Where a client comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Peer {
    /// A TCP connection: its address and ours, each `ip:port` (`[ip]:port` for IPv6).
    Tcp {
        /// The client's end.
        addr: String,
        /// Our end.
        local: String,
    },
    /// A connection to the unix socket at this path.
    Unix(String),
}

impl Peer {
    /// Our end of the connection.
    pub(crate) fn local(&self) -> &str {
        match self {
            Peer::Tcp { local, .. } => local,
            Peer::Unix(path) => path,
        }
    }
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Peer::Tcp { addr, .. } => f.write_str(addr),
            Peer::Unix(path) => write!(f, "{path}:0"),
        }
    }
}

/// Which output-buffer limit applies to a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientKind {
    /// Requests and replies only; monitors too.
    Normal,
    /// Subscribes to something.
    Pubsub,
}

/// One connected client.
pub struct Client {
    /// Never given twice in a process.
    pub id: u64,
    /// Where it comes from.
    pub peer: Peer,
    /// File descriptor number, for CLIENT LIST only.
    pub fd: i32,
    /// When it connected.
    pub since: Micros,
    pub(crate) name: Mutex<Vec<u8>>,
    pub(crate) library: Mutex<Library>,
    /// Names of the counters that it subscribes to.
    pub(crate) subscriptions: Mutex<BTreeSet<Box<[u8]>>>,
    pub(crate) subscription_count: AtomicUsize,
    last_active: AtomicU64,
    last_command: AtomicU32,
    pub(crate) is_monitor: AtomicBool,
    protocol: AtomicU8,
    is_killed: AtomicBool,
    /// Bytes that others want sent to this client.
    outbox: Mutex<Vec<u8>>,
    has_mail: AtomicBool,
    /// Bytes of requests received and not executed; set by the shell.
    pub query_bytes: AtomicU32,
    /// Bytes of replies not yet taken by the socket; set by the shell.
    pub output_bytes: AtomicUsize,
    wake: Wake,
}

/// What a client library says of itself (CLIENT SETINFO).
#[derive(Clone, Debug, Default)]
pub(crate) struct Library {
    pub(crate) name: Vec<u8>,
    pub(crate) version: Vec<u8>,
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Client({} {})", self.id, self.peer)
    }
}

impl Client {
    /// Adds bytes to what is sent to this client, and wakes its thread. A client that lets `MAX_OUTBOX` pile up is closed:
    /// what it has missed can't be made up for.
    pub(crate) fn send(&self, bytes: &[u8]) {
        let mut outbox = self.outbox.lock();
        if self.is_killed() {
            return;
        }
        if outbox.len() + bytes.len() > MAX_OUTBOX {
            *outbox = Vec::new();
            drop(outbox);
            self.kill();
            return;
        }
        outbox.extend_from_slice(bytes);
        drop(outbox);
        self.has_mail.store(true, Ordering::Release);
        (self.wake)();
    }

    /// Moves what others want sent to the end of `out`. Cheap when there is nothing.
    pub fn drain_outbox(&self, out: &mut Vec<u8>) {
        if self.has_mail.swap(false, Ordering::Acquire) {
            out.append(&mut self.outbox.lock());
        }
    }

    /// Bytes waiting in the outbox and, as last told by the shell, in its write buffer.
    pub fn waiting_bytes(&self) -> usize {
        self.outbox.lock().len() + self.output_bytes.load(Ordering::Relaxed)
    }

    /// Bytes held for it: requests that wait to be executed and what waits to be sent.
    fn buffered_bytes(&self) -> usize {
        self.waiting_bytes() + self.query_bytes.load(Ordering::Relaxed) as usize
    }

    /// Asks the client's thread to close the connection.
    pub fn kill(&self) {
        self.is_killed.store(true, Ordering::Release);
        (self.wake)();
    }

    /// Whether somebody asked for the connection to be closed.
    pub fn is_killed(&self) -> bool {
        self.is_killed.load(Ordering::Acquire)
    }

    /// Gets the client's thread to look up, for instance after a pause.
    pub fn wake(&self) {
        (self.wake)();
    }

    /// Which limits apply.
    pub fn kind(&self) -> ClientKind {
        if self.subscription_count() > 0 { ClientKind::Pubsub } else { ClientKind::Normal }
    }

    /// How many counters it subscribes to.
    pub fn subscription_count(&self) -> usize {
        self.subscription_count.load(Ordering::Relaxed)
    }

    /// Whether it sees every command (MONITOR).
    pub fn is_monitor(&self) -> bool {
        self.is_monitor.load(Ordering::Relaxed)
    }

    /// The moment of its last request.
    pub fn last_active(&self) -> Micros {
        Micros(self.last_active.load(Ordering::Relaxed))
    }

    /// What messages to this client are written in.
    pub(crate) fn protocol(&self) -> Protocol {
        if self.protocol_version() == 3 { Protocol::Resp3 } else { Protocol::Resp2 }
    }

    /// The same as the number that clients know it by: 2 or 3.
    pub(crate) fn protocol_version(&self) -> u8 {
        self.protocol.load(Ordering::Relaxed)
    }

    pub(crate) fn set_protocol(&self, protocol: Protocol) {
        let version = match protocol {
            Protocol::Resp2 => 2,
            Protocol::Resp3 => 3,
        };
        self.protocol.store(version, Ordering::Relaxed);
    }

    pub(crate) fn note_command(&self, now: Micros, command: u16) {
        self.last_active.store(now.0, Ordering::Relaxed);
        self.last_command.store(u32::from(command), Ordering::Relaxed);
    }

    /// Number of its last command in the table of all commands; `None` before the first.
    pub(crate) fn last_command(&self) -> Option<u16> {
        u16::try_from(self.last_command.load(Ordering::Relaxed)).ok()
    }
}

/// Most bytes of messages and of what monitors see that wait for one client besides its replies: those that its thread has
/// not taken because it waits for the disk or for the client to read.
pub(crate) const MAX_OUTBOX: usize = 64 * 1024 * 1024;

/// Most bytes of requests and replies that are held for all clients together. Above, those that hold most are closed.
pub const MAX_BUFFERED: usize = 512 * 1024 * 1024;

/// Stands for "none yet" where a command's number would stand.
const NO_COMMAND: u32 = u32::MAX;

/// All connected clients, and what holds for all of them.
#[derive(Debug, Default)]
pub struct Clients {
    connected: Mutex<BTreeMap<u64, Arc<Client>>>,
    last_id: AtomicU64,
    monitors: AtomicUsize,
    /// Microseconds of the monotonic clock until which no command is executed; 0: no pause.
    paused_until: AtomicU64,
    /// The same for commands that change something only.
    writes_paused_until: AtomicU64,
}

impl Clients {
    /// Registers a connection.
    pub fn connect(&self, peer: Peer, fd: i32, now: Micros, wake: Wake) -> Arc<Client> {
        let id = self.last_id.fetch_add(1, Ordering::Relaxed) + 1;
        let client = Arc::new(Client {
            id,
            peer,
            fd,
            since: now,
            name: Mutex::default(),
            library: Mutex::default(),
            subscriptions: Mutex::default(),
            subscription_count: AtomicUsize::new(0),
            last_active: AtomicU64::new(now.0),
            last_command: AtomicU32::new(NO_COMMAND),
            is_monitor: AtomicBool::new(false),
            protocol: AtomicU8::new(2),
            is_killed: AtomicBool::new(false),
            outbox: Mutex::default(),
            has_mail: AtomicBool::new(false),
            query_bytes: AtomicU32::new(0),
            output_bytes: AtomicUsize::new(0),
            wake,
        });
        self.connected.lock().insert(id, Arc::clone(&client));
        client
    }

    /// Closes the clients that hold most until what is held for the others is within `limit`; answers whom, with what each
    /// of them held.
    pub(crate) fn close_largest(&self, limit: usize) -> Vec<(Arc<Client>, usize)> {
        let connected = self.connected.lock();
        let held = || connected.values().filter(|client| !client.is_killed());
        let mut sum: usize = held().map(|client| client.buffered_bytes()).sum();
        if sum <= limit {
            return Vec::new();
        }
        let mut holders: Vec<_> = held().map(|client| (client.buffered_bytes(), client)).collect();
        holders.sort_unstable_by_key(|(held, _)| *held);
        let mut closed = Vec::new();
        while sum > limit
            && let Some((held, client)) = holders.pop()
        {
            client.kill();
            sum = sum.saturating_sub(held);
            closed.push((Arc::clone(client), held));
        }
        closed
    }

    /// Takes a closed connection off the list.
    pub(crate) fn remove(&self, client: &Client) {
        if client.is_monitor.swap(false, Ordering::Relaxed) {
            self.monitors.fetch_sub(1, Ordering::Relaxed);
        }
        self.connected.lock().remove(&client.id);
    }

    /// How many are connected.
    pub fn len(&self) -> usize {
        self.connected.lock().len()
    }

    /// Whether nobody is connected.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Everybody who is connected, in order of id.
    pub fn all(&self) -> Vec<Arc<Client>> {
        self.connected.lock().values().cloned().collect()
    }

    /// Makes a client a monitor. False if it was one.
    pub(crate) fn add_monitor(&self, client: &Client) -> bool {
        let is_new = !client.is_monitor.swap(true, Ordering::Relaxed);
        self.monitors.fetch_add(usize::from(is_new), Ordering::Relaxed);
        is_new
    }

    /// The counterpart of `add_monitor` (RESET).
    pub(crate) fn remove_monitor(&self, client: &Client) {
        if client.is_monitor.swap(false, Ordering::Relaxed) {
            self.monitors.fetch_sub(1, Ordering::Relaxed);
        }
    }

    pub(crate) fn has_monitors(&self) -> bool {
        self.monitors.load(Ordering::Relaxed) > 0
    }

    /// Sends a line to every monitor.
    pub(crate) fn tell_monitors(&self, line: &[u8]) {
        for client in self.connected.lock().values().filter(|client| client.is_monitor()) {
            client.send(line);
        }
    }

    /// Stops the execution of commands (or of writes only) until `until`.
    pub(crate) fn pause(&self, until: Micros, writes_only: bool) {
        let which = if writes_only { &self.writes_paused_until } else { &self.paused_until };
        which.fetch_max(until.0, Ordering::Relaxed);
    }

    /// Ends every pause and wakes everybody.
    pub(crate) fn unpause(&self) {
        self.paused_until.store(0, Ordering::Relaxed);
        self.writes_paused_until.store(0, Ordering::Relaxed);
        self.all().iter().for_each(|client| client.wake());
    }

    /// Until when this command waits; in the past when it doesn't. UNPAUSE never waits: it could not end a pause.
    #[inline]
    pub(crate) fn held_until(&self, command: &CommandSpec) -> Micros {
        let all = self.paused_until.load(Ordering::Relaxed);
        let writes = self.writes_paused_until.load(Ordering::Relaxed);
        if all == 0 && writes == 0 {
            return Micros(0);
        }
        let held_until = if command.has(Flag::Write) { all.max(writes) } else { all };
        if held_until > 0 && command.name == "unpause" { Micros(0) } else { Micros(held_until) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(clients: &Clients) -> Arc<Client> {
        clients.connect(Peer::Unix(String::new()), 0, Micros(0), Box::new(|| ()))
    }

    #[test]
    fn whoever_lets_its_mail_pile_up_is_closed_and_forgotten() {
        let clients = Clients::default();
        let client = client(&clients);
        let some = vec![0; MAX_OUTBOX / 2];
        client.send(&some);
        client.send(&some);
        assert_eq!((client.is_killed(), client.waiting_bytes()), (false, MAX_OUTBOX));
        client.send(b"x");
        assert_eq!((client.is_killed(), client.waiting_bytes()), (true, 0));
        client.send(b"x");
        assert_eq!(client.waiting_bytes(), 0);
    }

    #[test]
    fn those_that_hold_most_are_closed_until_the_rest_is_within_the_limit() {
        let clients = Clients::default();
        let all: Vec<_> = [10, 500, 20, 400, 0]
            .iter()
            .map(|&held| {
                let client = client(&clients);
                client.output_bytes.store(held, Ordering::Relaxed);
                client
            })
            .collect();
        assert!(clients.close_largest(930).is_empty());
        let closed: Vec<u64> = clients.close_largest(450).iter().map(|(client, _)| client.id).collect();
        assert_eq!(closed, [all[1].id]);
        assert!(clients.close_largest(450).is_empty(), "who is closed holds nothing any more");
        let closed: Vec<usize> = clients.close_largest(15).iter().map(|(_, held)| *held).collect();
        assert_eq!(closed, [400, 20]);
    }
}
