//! The load: connections shared by threads, each sending batches and timing their replies.
//!
//! Each thread waits for readiness of its own connections and shares nothing while it runs. A connection sends
//! a batch, waits for all its replies, and sends the next at once; it never has more than one batch under way.

use std::fmt;
use std::io::{self, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::UnixStream;
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use mio::event::Source;
use mio::{Events, Interest, Poll, Token};
use resp::{ProtocolError, Reply, ReplyDecoder, ReplyLimits, write_request};

use crate::options::Options;
use crate::workload::{Batch, Random, Workload};

/// The longest latency that is told apart from longer ones, in nanoseconds: a minute.
const MAX_LATENCY_NS: u64 = 60_000_000_000;
/// Decimal digits of a latency that are kept.
const LATENCY_DIGITS: u8 = 3;
/// Bytes that a connection reads at once, until a longer reply makes it read more.
const READ_LEN: usize = 64 * 1024;
/// How long nothing may arrive on any connection of a thread before the server counts as stuck.
const SILENCE_LIMIT: Duration = Duration::from_secs(30);

/// Why there is no result.
#[derive(Debug)]
pub(crate) enum LoadError {
    Connect(io::Error),
    Refused(String),
    Io(io::Error),
    Closed,
    Silent,
    Protocol(ProtocolError),
}

impl fmt::Display for LoadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Connect(error) => write!(f, "Could not connect: {error}"),
            Self::Refused(text) => write!(f, "AUTH failed: {text}"),
            Self::Io(error) => write!(f, "The connection failed: {error}"),
            Self::Closed => f.write_str("The server closed a connection"),
            Self::Silent => write!(f, "The server sent nothing for {} seconds", SILENCE_LIMIT.as_secs()),
            Self::Protocol(error) => write!(f, "{error}"),
        }
    }
}

impl From<io::Error> for LoadError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// What was measured.
#[derive(Debug)]
pub(crate) struct Outcome {
    /// Nanoseconds, one entry per reply.
    pub(crate) latencies: Histogram<u64>,
    /// From the first request to the last reply.
    pub(crate) duration: Duration,
    /// Replies that were errors or had one inside.
    pub(crate) errors: u64,
    /// The first of these.
    pub(crate) first_error: Option<String>,
}

impl Outcome {
    fn new() -> Self {
        let latencies = Histogram::new_with_bounds(1, MAX_LATENCY_NS, LATENCY_DIGITS)
            .expect("the bounds are constants that the histogram takes");
        Self { latencies, duration: Duration::ZERO, errors: 0, first_error: None }
    }

    fn merge(&mut self, other: Self) {
        self.latencies.add(&other.latencies).expect("all histograms have the same bounds");
        self.duration = self.duration.max(other.duration);
        self.errors += other.errors;
        self.first_error = self.first_error.take().or(other.first_error);
    }

    fn note(&mut self, reply: &Reply) {
        if let Some(text) = error_in(reply) {
            self.errors += 1;
            self.first_error.get_or_insert_with(|| shown(text));
        }
    }
}

/// Runs one workload with all connections.
pub(crate) fn run(options: &Options, workload: &Workload) -> Result<Outcome, LoadError> {
    let threads = options.threads();
    let start = Barrier::new(threads as usize);
    let has_failed = AtomicBool::new(false);
    // Connected before any thread starts, so that a refusal leaves nobody waiting at the barrier.
    let mut lanes = Vec::new();
    for _ in 0..options.clients {
        lanes.push(Lane::open(options, workload)?);
    }
    let share = |total: u64, index: u32| {
        let (threads, index) = (u64::from(threads), u64::from(index));
        total / threads + u64::from(index < total % threads)
    };
    let outcomes = thread::scope(|scope| {
        let workers: Vec<_> = (0..threads)
            .map(|index| {
                let at = lanes.len() - share(u64::from(options.clients), index) as usize;
                let worker = Worker {
                    lanes: lanes.split_off(at),
                    unsent: share(options.requests, index),
                    names: options.names,
                    pipeline: u64::from(options.pipeline),
                    random: Random::new(options.seed.wrapping_mul(0x1_0000_0001).wrapping_add(index.into())),
                    outcome: Outcome::new(),
                };
                let (start, has_failed) = (&start, &has_failed);
                scope.spawn(move || {
                    let outcome = worker.run(start, has_failed);
                    has_failed.fetch_or(outcome.is_err(), Ordering::Relaxed);
                    outcome
                })
            })
            .collect();
        let join = |worker: thread::ScopedJoinHandle<'_, _>| worker.join().expect("workers do not panic");
        workers.into_iter().map(join).collect::<Vec<_>>()
    });
    let mut total = Outcome::new();
    for outcome in outcomes {
        total.merge(outcome?);
    }
    Ok(total)
}

/// The connections of one thread and what is left to send on them.
struct Worker {
    lanes: Vec<Lane>,
    unsent: u64,
    names: u64,
    pipeline: u64,
    random: Random,
    outcome: Outcome,
}

impl Worker {
    /// Waits for all threads at `start`, then sends and receives to the end, or until another thread fails.
    fn run(mut self, start: &Barrier, has_failed: &AtomicBool) -> Result<Outcome, LoadError> {
        let poll = self.register();
        // Every thread must come here, whatever failed before: the others wait for it.
        start.wait();
        let began = Instant::now();
        let mut poll = poll?;
        let mut events = Events::with_capacity(self.lanes.len());
        let mut busy = 0;
        for index in 0..self.lanes.len() {
            busy += usize::from(self.send_batch(index)?);
        }
        while busy > 0 && !has_failed.load(Ordering::Relaxed) {
            let waiting_since = Instant::now();
            poll.poll(&mut events, Some(SILENCE_LIMIT)).or_else(ignore_interruption)?;
            if events.is_empty() && waiting_since.elapsed() >= SILENCE_LIMIT {
                return Err(LoadError::Silent);
            }
            for event in &events {
                let Token(index) = event.token();
                if event.is_writable() {
                    self.lanes[index].send()?;
                }
                let is_done = event.is_readable() && self.lanes[index].receive(&mut self.outcome)?;
                if is_done && !self.send_batch(index)? {
                    busy -= 1;
                }
            }
        }
        self.outcome.duration = began.elapsed();
        Ok(self.outcome)
    }

    /// Asks for readiness of all connections.
    fn register(&mut self) -> io::Result<Poll> {
        let poll = Poll::new()?;
        for (index, lane) in self.lanes.iter_mut().enumerate() {
            let interest = Interest::READABLE | Interest::WRITABLE;
            poll.registry().register(&mut lane.stream, Token(index), interest)?;
        }
        Ok(poll)
    }

    /// Starts the next batch of a connection; false if nothing is left to send.
    fn send_batch(&mut self, index: usize) -> Result<bool, LoadError> {
        let count = self.unsent.min(self.pipeline);
        if count == 0 {
            return Ok(false);
        }
        self.unsent -= count;
        self.lanes[index].start(count as usize, self.names, &mut self.random)?;
        Ok(true)
    }
}

fn ignore_interruption(error: io::Error) -> io::Result<()> {
    if error.kind() == ErrorKind::Interrupted { Ok(()) } else { Err(error) }
}

/// A stream of either kind.
enum Stream {
    Tcp(mio::net::TcpStream),
    Unix(mio::net::UnixStream),
}

impl Stream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.read(buffer),
            Self::Unix(stream) => stream.read(buffer),
        }
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.write(bytes),
            Self::Unix(stream) => stream.write(bytes),
        }
    }

    fn source(&mut self) -> &mut dyn Source {
        match self {
            Self::Tcp(stream) => stream,
            Self::Unix(stream) => stream,
        }
    }
}

impl Source for Stream {
    fn register(&mut self, registry: &mio::Registry, token: Token, interest: Interest) -> io::Result<()> {
        self.source().register(registry, token, interest)
    }

    fn reregister(&mut self, registry: &mio::Registry, token: Token, interest: Interest) -> io::Result<()> {
        self.source().reregister(registry, token, interest)
    }

    fn deregister(&mut self, registry: &mio::Registry) -> io::Result<()> {
        self.source().deregister(registry)
    }
}

/// One connection with its batch under way.
struct Lane {
    stream: Stream,
    batch: Batch,
    /// Requests of the batch under way.
    count: usize,
    /// Bytes of it that the system has taken.
    sent: usize,
    /// Replies still to come.
    missing: usize,
    started: Instant,
    decoder: ReplyDecoder,
    received: Vec<u8>,
    /// Bytes of `received` that hold something.
    filled: usize,
}

impl Lane {
    fn open(options: &Options, workload: &Workload) -> Result<Self, LoadError> {
        let stream = match &options.socket {
            Some(path) => {
                let mut stream = UnixStream::connect(path).map_err(LoadError::Connect)?;
                authenticate(options, &mut stream)?;
                stream.set_nonblocking(true)?;
                Stream::Unix(mio::net::UnixStream::from_std(stream))
            }
            None => {
                let host = (options.host.as_str(), options.port);
                let mut stream = TcpStream::connect(host).map_err(LoadError::Connect)?;
                stream.set_nodelay(true)?;
                authenticate(options, &mut stream)?;
                stream.set_nonblocking(true)?;
                Stream::Tcp(mio::net::TcpStream::from_std(stream))
            }
        };
        Ok(Self {
            stream,
            batch: workload.batch(options.pipeline as usize),
            count: 0,
            sent: 0,
            missing: 0,
            started: Instant::now(),
            decoder: ReplyDecoder::new(ReplyLimits::default()),
            received: vec![0; READ_LEN],
            filled: 0,
        })
    }

    fn start(&mut self, count: usize, names: u64, random: &mut Random) -> Result<(), LoadError> {
        self.batch.prepare(count, names, random);
        self.count = count;
        self.sent = 0;
        self.missing = count;
        self.started = Instant::now();
        self.send()
    }

    /// Sends as much of the batch as the system takes.
    fn send(&mut self) -> Result<(), LoadError> {
        let bytes = self.batch.first(self.count);
        while self.sent < bytes.len() {
            match self.stream.write(&bytes[self.sent..]) {
                Ok(len) => self.sent += len,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// Reads what has arrived; true when it was the end of a batch.
    fn receive(&mut self, outcome: &mut Outcome) -> Result<bool, LoadError> {
        let was_busy = self.missing > 0;
        loop {
            if self.filled == self.received.len() {
                self.received.resize(2 * self.filled, 0);
            }
            let room = self.received.len() - self.filled;
            match self.stream.read(&mut self.received[self.filled..]) {
                Ok(0) => return Err(LoadError::Closed),
                Ok(len) => {
                    self.filled += len;
                    self.decode(outcome)?;
                    // A short read has emptied the socket; what comes later is announced anew.
                    if len < room {
                        break;
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(was_busy && self.missing == 0)
    }

    /// Takes the whole replies out of what was received, all of the same age.
    fn decode(&mut self, outcome: &mut Outcome) -> Result<(), LoadError> {
        let latency_ns = u64::try_from(self.started.elapsed().as_nanos()).unwrap_or(u64::MAX);
        let (mut used, mut replies) = (0, 0);
        while let Some((reply, len)) =
            self.decoder.decode(&self.received[used..self.filled]).map_err(LoadError::Protocol)?
        {
            used += len;
            replies += 1;
            outcome.note(&reply);
        }
        self.received.copy_within(used..self.filled, 0);
        self.filled -= used;
        self.missing = self.missing.saturating_sub(replies);
        outcome.latencies.saturating_record_n(latency_ns.max(1), replies as u64);
        Ok(())
    }
}

/// Sends the password, if there is one, and waits for the answer.
fn authenticate(options: &Options, stream: &mut (impl Read + Write)) -> Result<(), LoadError> {
    let Some(password) = &options.password else { return Ok(()) };
    let mut args = vec![&b"AUTH"[..]];
    args.extend(options.user.as_ref().map(|user| user.as_bytes()));
    args.push(password.as_bytes());
    let mut request = Vec::new();
    write_request(&mut request, &args);
    stream.write_all(&request)?;
    let mut decoder = ReplyDecoder::new(ReplyLimits::default());
    let mut received = Vec::new();
    let mut chunk = [0; 512];
    loop {
        match decoder.decode(&received).map_err(LoadError::Protocol)? {
            Some((Reply::Error(text), _)) => {
                return Err(LoadError::Refused(shown(&text)));
            }
            Some(_) => return Ok(()),
            None => {}
        }
        match stream.read(&mut chunk)? {
            0 => return Err(LoadError::Closed),
            len => received.extend(&chunk[..len]),
        }
    }
}

/// An error's text without what could steer a terminal.
fn shown(text: &[u8]) -> String {
    String::from_utf8_lossy(text).chars().filter(|c| !c.is_control()).collect()
}

/// The first error in `reply`, at any depth.
fn error_in(reply: &Reply) -> Option<&[u8]> {
    match reply {
        Reply::Error(text) => Some(text),
        Reply::Array(items) | Reply::Set(items) | Reply::Push(items) => items.iter().find_map(error_in),
        Reply::Map(pairs) => pairs.iter().find_map(|(key, value)| error_in(key).or_else(|| error_in(value))),
        _ => None,
    }
}
