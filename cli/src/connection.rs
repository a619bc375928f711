//! One connection to a server: requests out, replies in, and whether it still lives.
//!
//! Knows no command, does not reconnect and does not print. Once anything has failed, the connection is of
//! no use any more.

use std::fmt;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use resp::{ProtocolError, Reply, ReplyDecoder, ReplyLimits, write_request};

use crate::options::Address;

/// How long to wait for each address of a host to take the connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// How often a wait for a reply looks whether Ctrl-C was pressed.
const INTERRUPT_PERIOD: Duration = Duration::from_millis(100);

/// How many bytes one read asks for.
const READ_LEN: usize = 64 * 1024;

/// Why a request got no reply.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The system says so.
    Io(io::Error),
    /// The server closed the connection.
    Closed,
    /// The bytes that came are not the protocol.
    Protocol(ProtocolError),
    /// The user pressed Ctrl-C.
    Interrupted,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io(error) => f.write_str(&reason(error)),
            Self::Closed => f.write_str("the server closed the connection"),
            Self::Protocol(error) => write!(f, "{error}"),
            Self::Interrupted => f.write_str("interrupted"),
        }
    }
}

/// What `error` says, without the number of the system's error code.
pub(crate) fn reason(error: &io::Error) -> String {
    let text = error.to_string();
    text.split(" (os error ").next().unwrap_or_default().to_owned()
}

/// A stream of either kind.
#[derive(Debug)]
enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Stream {
    fn is_set_nonblocking(&self, is_nonblocking: bool) -> bool {
        match self {
            Self::Tcp(stream) => stream.set_nonblocking(is_nonblocking).is_ok(),
            Self::Unix(stream) => stream.set_nonblocking(is_nonblocking).is_ok(),
        }
    }

    fn set_read_timeout(&self, timeout: Duration) -> io::Result<()> {
        match self {
            Self::Tcp(stream) => stream.set_read_timeout(Some(timeout)),
            Self::Unix(stream) => stream.set_read_timeout(Some(timeout)),
        }
    }

    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.read(buffer),
            Self::Unix(stream) => stream.read(buffer),
        }
    }

    fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Self::Tcp(stream) => stream.write_all(bytes),
            Self::Unix(stream) => stream.write_all(bytes),
        }
    }
}

/// A connection and the bytes that have arrived on it.
#[derive(Debug)]
pub(crate) struct Connection {
    stream: Stream,
    decoder: ReplyDecoder,
    /// Received and not decoded yet: what lies from `start` on.
    received: Vec<u8>,
    start: usize,
    interrupt: Option<Arc<AtomicBool>>,
}

impl Connection {
    /// Connects to `address`. With an `interrupt`, waiting for a reply ends soon after it becomes true.
    ///
    /// # Errors
    /// No address of the host took the connection, or there is none.
    pub(crate) fn open(address: &Address, interrupt: Option<Arc<AtomicBool>>) -> io::Result<Self> {
        let stream = match address {
            Address::Tcp { host, port } => Stream::Tcp(connect_tcp(host, *port)?),
            Address::Unix(path) => Stream::Unix(UnixStream::connect(path)?),
        };
        if interrupt.is_some() {
            stream.set_read_timeout(INTERRUPT_PERIOD)?;
        }
        Ok(Self {
            stream,
            decoder: ReplyDecoder::new(ReplyLimits::default()),
            received: Vec::new(),
            start: 0,
            interrupt,
        })
    }

    /// Sends one request.
    pub(crate) fn send(&mut self, args: &[impl AsRef<[u8]>]) -> Result<(), Failure> {
        let mut bytes = Vec::new();
        write_request(&mut bytes, args);
        self.stream.write_all(&bytes).map_err(Failure::Io)
    }

    /// Waits for the next reply or push message.
    pub(crate) fn receive(&mut self) -> Result<Reply, Failure> {
        loop {
            if let Some(reply) = self.decoded()? {
                return Ok(reply);
            }
            // Asked before every read, so that a flood of messages can be interrupted too.
            self.check_interrupt()?;
            match self.fill() {
                Ok(0) => return Err(Failure::Closed),
                Ok(_) => {}
                Err(error) if is_passing(&error) => {}
                Err(error) if error.kind() == ErrorKind::ConnectionReset => return Err(Failure::Closed),
                Err(error) => return Err(Failure::Io(error)),
            }
        }
    }

    /// The next reply among the bytes that are here.
    fn decoded(&mut self) -> Result<Option<Reply>, Failure> {
        let Some((reply, len)) =
            self.decoder.decode(&self.received[self.start..]).map_err(Failure::Protocol)?
        else {
            return Ok(None);
        };
        self.start += len;
        if self.start == self.received.len() {
            self.received.clear();
            self.start = 0;
        }
        Ok(Some(reply))
    }

    /// The push messages and the like that have arrived by themselves, and whether the connection lives on.
    pub(crate) fn take_arrived(&mut self) -> (Vec<Reply>, bool) {
        let mut is_alive = self.stream.is_set_nonblocking(true);
        while is_alive {
            match self.fill() {
                Ok(0) => is_alive = false,
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => is_alive = false,
            }
        }
        is_alive &= self.stream.is_set_nonblocking(false);
        let mut replies = Vec::new();
        loop {
            match self.decoded() {
                Ok(Some(reply)) => replies.push(reply),
                Ok(None) => return (replies, is_alive),
                Err(_) => return (replies, false),
            }
        }
    }

    /// Reads once, as much as is there up to a limit.
    fn fill(&mut self) -> io::Result<usize> {
        self.received.drain(..self.start);
        self.start = 0;
        let len = self.received.len();
        self.received.resize(len + READ_LEN, 0);
        let outcome = self.stream.read(&mut self.received[len..]);
        self.received.truncate(len + *outcome.as_ref().unwrap_or(&0));
        outcome
    }

    fn check_interrupt(&self) -> Result<(), Failure> {
        match &self.interrupt {
            Some(flag) if flag.load(Ordering::Relaxed) => Err(Failure::Interrupted),
            _ => Ok(()),
        }
    }
}

/// Whether a read may simply be tried again.
fn is_passing(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted)
}

fn connect_tcp(host: &str, port: u16) -> io::Result<TcpStream> {
    let mut last = io::Error::new(ErrorKind::NotFound, "the host has no address");
    for address in (host, port).to_socket_addrs()? {
        match TcpStream::connect_timeout(&address, CONNECT_TIMEOUT) {
            Ok(stream) => {
                stream.set_nodelay(true)?;
                return Ok(stream);
            }
            Err(error) => last = error,
        }
    }
    Err(last)
}
