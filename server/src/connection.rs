//! One client's connection: reads all that has arrived, executes every complete command in it, writes once.
//!
//! Lacks on purpose: any knowledge of commands. The engine decides; this file moves bytes and waits. An idle
//! connection holds no buffers: reads and replies go through the worker's scratch space, and only what could
//! not be executed or sent yet is kept.

use crate::disk::Disk;
use crate::shell::Moment;
use crate::worker::{Accepted, Arrival, Moved, Worker};
use atomic_waker::AtomicWaker;
use engine::clients::ClientKind;
use engine::command::{Outcome, Task};
use engine::settings::Settings;
use engine::time::Micros;
use engine::{Session, TaskResult};
use resp::{Decoded, Limits, ReplyWriter, RequestDecoder};
use std::future::{Future, poll_fn};
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::mpsc::UnboundedSender;

/// Bytes read at a time, and the scratch space of a worker.
pub(crate) const READ_LEN: usize = 64 * 1024;

/// Most bytes of requests that wait unexecuted on one connection (as Redis's query buffer limit).
const MAX_WAITING_INPUT: usize = 1024 * 1024 * 1024;

/// Above so many bytes of replies that wait for a client to read, nothing more is read or executed for it until it has
/// taken some. A client that writes all of a pipeline before it reads must keep its replies below this.
const MAX_UNREAD_OUTPUT: usize = 64 * 1024 * 1024;

/// Most bytes of replies that wait for one client, whatever `client-output-buffer-limit` allows: one reply alone can be far
/// longer than what nothing is executed above.
const MAX_WAITING_OUTPUT: usize = 1024 * 1024 * 1024;

/// Bytes of replies that count towards no limit, as in Redis, where they fit a buffer of the connection's own: a limit
/// below the size of an ordinary reply must not end the client that gets it.
const UNCOUNTED_OUTPUT: usize = 16 * 1024;

/// Most bytes executed in a row before other connections of the thread get their turn.
const MAX_TURN: usize = 1024 * 1024;

/// Replies written in a row before some are sent.
const MAX_OUTPUT_TURN: usize = 1024 * 1024;

/// How long a stopping server goes on writing to a client that reads slowly.
const DRAIN_LIMIT: std::time::Duration = std::time::Duration::from_secs(2);

/// How long a stopping server waits for the news of what has arrived before.
const LAST_LOOK: std::time::Duration = std::time::Duration::from_millis(20);

/// How long it goes on reading and executing what a client sends that does not stop.
const DRAIN_MICROS: Micros = Micros::from_secs(2);

/// A client's socket.
#[derive(Debug)]
pub(crate) enum Stream {
    /// Over TCP.
    Tcp(TcpStream),
    /// Over the unix socket.
    Unix(UnixStream),
}

impl Stream {
    fn poll_read(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self {
            Stream::Tcp(stream) => Pin::new(stream).poll_read(cx, buf),
            Stream::Unix(stream) => Pin::new(stream).poll_read(cx, buf),
        }
    }

    fn poll_write(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self {
            Stream::Tcp(stream) => Pin::new(stream).poll_write(cx, bytes),
            Stream::Unix(stream) => Pin::new(stream).poll_write(cx, bytes),
        }
    }
}

/// Why a connection ended; for the log at debug level.
#[derive(Debug)]
pub(crate) enum Ending {
    /// The client closed it.
    ClosedByClient,
    /// QUIT, a protocol error, CLIENT KILL or the like: we closed it after the last reply.
    ClosedByUs,
    /// The client does not read its replies.
    OutputTooLarge,
    /// The client sent more than may wait.
    InputTooLarge,
    /// Another thread serves it from now on.
    Moves(UnboundedSender<Arrival>),
    /// The socket failed.
    #[allow(dead_code, reason = "the log shows it by Debug")]
    Failed(io::Error),
}

impl From<io::Error> for Ending {
    fn from(error: io::Error) -> Ending {
        Ending::Failed(error)
    }
}

/// What the connection does next.
enum Step {
    /// Wait for bytes, for room to write, or for somebody's message.
    WaitForEvents,
    /// More is there; go on after others had their turn.
    TakeTurns,
    /// Go on at that moment or when woken.
    WaitUntil(Micros),
    /// Do this, then go on.
    WaitForTask(Task),
    /// Go on once the client has taken some of its replies.
    WaitForReader,
    /// Send what is written, then end.
    Close,
}

pub(crate) struct Connection {
    worker: Rc<Worker>,
    stream: Stream,
    session: Session,
    decoder: RequestDecoder,
    settings: Arc<Settings>,
    /// Received and not executed.
    input: Vec<u8>,
    /// Written and not sent; the first `sent` bytes have gone.
    output: Vec<u8>,
    sent: usize,
    /// Since when the output has been above the soft limit.
    over_soft_since: Option<Micros>,
    /// The ticket of changes that must be on the disk before the output leaves.
    held: Option<u64>,
    /// Until when a stopping server goes on reading what has been received.
    stops_at: Option<Micros>,
    /// The limits of who has still to give the password are in force.
    is_limited: bool,
    /// See `Worker::note_turn`.
    seen: u32,
    /// See `Worker::note_held`.
    held_seen: u32,
    /// It has executed something on this thread: only then may it go to another, or it might wander for ever unserved.
    was_served: bool,
}

impl Connection {
    pub(crate) fn new(worker: Rc<Worker>, stream: Stream, session: Session) -> Connection {
        let settings = worker.node.settings();
        Connection {
            worker,
            stream,
            session,
            decoder: RequestDecoder::new(Limits::default()),
            settings,
            input: Vec::new(),
            output: Vec::new(),
            sent: 0,
            over_soft_since: None,
            held: None,
            stops_at: None,
            is_limited: false,
            seen: 0,
            held_seen: 0,
            was_served: false,
        }
    }

    /// Serves the client until one side ends it, or until another thread goes on with it. The permit goes with the connection.
    pub(crate) async fn serve(mut self, waker: Arc<AtomicWaker>, permit: Arc<()>) {
        let ending = self.run(&waker).await;
        if let Ending::Moves(to) = ending {
            self.move_to(&to, waker, permit);
            return;
        }
        log::debug!("client {} left: {ending:?}", self.session.client().id);
        self.worker.node.disconnect(self.session, self.worker.now());
    }

    /// Hands the connection, at rest, to another thread.
    fn move_to(self, to: &UnboundedSender<Arrival>, waker: Arc<AtomicWaker>, permit: Arc<()>) {
        let Connection { worker, stream, session, .. } = self;
        let accepted = match stream {
            Stream::Tcp(stream) => stream.into_std().map(Accepted::Tcp),
            // The path is for the list of clients only, and that has it.
            Stream::Unix(stream) => stream.into_std().map(|stream| Accepted::Unix(stream, String::new())),
        };
        match accepted {
            Ok(accepted) => {
                let moved = Arrival::Moved(Box::new(Moved { accepted, session, waker, permit }));
                // Whoever can take connections does so as long as somebody may send one.
                to.send(moved).ok();
            }
            Err(error) => {
                log::debug!("client {} left: {error}", session.client().id);
                worker.node.disconnect(session, worker.now());
            }
        }
    }

    /// Whether nothing is under way here: no part of a request, no reply, no sync.
    fn is_at_rest(&self) -> bool {
        self.input.is_empty() && self.output.is_empty() && self.held.is_none()
    }

    async fn run(&mut self, waker: &AtomicWaker) -> Ending {
        let mut step = Step::WaitForEvents;
        loop {
            if let Step::WaitForEvents = step
                && self.was_served
                && self.is_at_rest()
                && let Some(to) = self.worker.give_away()
            {
                return Ending::Moves(to);
            }
            if let Err(ending) = self.wait_for_disk(waker).await {
                return ending;
            }
            let done = match step {
                Step::WaitForEvents if self.worker.is_stopping() => self.look_once_more(waker).await,
                Step::WaitForEvents => self.wait_for_events(waker).await,
                Step::TakeTurns => {
                    tokio::task::yield_now().await;
                    self.go_on().await
                }
                Step::WaitUntil(moment) => match self.wait_until(moment, waker).await {
                    Ok(()) => self.execute_waiting(),
                    Err(ending) => Err(ending),
                },
                Step::WaitForTask(task) => {
                    if self.unread() > MAX_UNREAD_OUTPUT
                        && let Err(ending) = self.wait_for_reader(waker).await
                    {
                        return ending;
                    }
                    let started = self.worker.moment();
                    let result = self.worker.run_task(task).await;
                    self.finish_task(result);
                    self.note_time(started);
                    self.go_on().await
                }
                Step::WaitForReader => match self.wait_for_reader(waker).await {
                    Ok(()) => self.execute_waiting(),
                    Err(ending) => Err(ending),
                },
                Step::Close => return self.close().await,
            };
            step = match done {
                Ok(step) => step,
                Err(ending) => return ending,
            };
            if self.session.client().is_killed() {
                return Ending::ClosedByUs;
            }
            // The socket is asked first: how much it takes is not known before.
            if self.unread() > MAX_UNREAD_OUTPUT && matches!(step, Step::WaitForEvents | Step::TakeTurns) {
                step = Step::WaitForReader;
            }
            if self.worker.is_stopping() && self.is_stop_due(&step) {
                step = Step::Close;
            }
        }
    }

    /// While a reply must not leave, waits until what it tells of is on the disk.
    async fn wait_for_disk(&mut self, waker: &AtomicWaker) -> Result<(), Ending> {
        let Some(ticket) = self.held else { return Ok(()) };
        let client = Arc::clone(self.session.client());
        let waited = poll_fn(|cx| {
            waker.register(cx.waker());
            if client.is_killed() {
                return Poll::Ready(Err(Ending::ClosedByUs));
            }
            self.worker.poll_safe(ticket, client.id, cx.waker()).map(Ok)
        })
        .await;
        self.worker.forget_waiting(client.id);
        self.held = None;
        waited
    }

    /// Whether a stopping server has nothing more to do for this client. What the socket holds is still read (waiting for
    /// events ends when there is nothing), but not for ever: the client may go on sending.
    fn is_stop_due(&mut self, step: &Step) -> bool {
        let now = self.worker.now().monotonic;
        let stops_at = *self.stops_at.get_or_insert(now + DRAIN_MICROS);
        match step {
            Step::WaitForEvents => now >= stops_at,
            Step::WaitUntil(_) | Step::WaitForReader => true,
            Step::TakeTurns | Step::WaitForTask(_) | Step::Close => false,
        }
    }

    /// Waits for what a client of a stopping server has sent before; if that is nothing, it is time to close. That a socket
    /// is not known to hold anything does not mean that it is empty: its news may not have come round yet.
    async fn look_once_more(&mut self, waker: &AtomicWaker) -> Result<Step, Ending> {
        let events = self.wait_for_events(waker);
        tokio::time::timeout(LAST_LOOK, events).await.unwrap_or(Ok(Step::Close))
    }

    /// Sends what the socket takes without waiting, then executes what was waiting.
    async fn go_on(&mut self) -> Result<Step, Ending> {
        self.check_output()?;
        poll_fn(|cx| Poll::Ready(self.poll_flush(cx))).await?;
        self.execute_waiting()
    }

    /// Waits until something can be done and does it: sends what waits, reads what has come and executes it.
    async fn wait_for_events(&mut self, waker: &AtomicWaker) -> Result<Step, Ending> {
        poll_fn(|cx| {
            waker.register(cx.waker());
            let client = Arc::clone(self.session.client());
            if client.is_killed() {
                return Poll::Ready(Err(Ending::ClosedByUs));
            }
            // What there is no room for stays where it is; the engine ends clients whose mail piles up.
            if self.unread() <= MAX_UNREAD_OUTPUT {
                client.drain_outbox(&mut self.output);
            }
            self.poll_flush(cx)?;
            if !self.output.is_empty() {
                self.worker.node.refresh_settings(&mut self.settings);
            }
            self.check_output()?;
            let worker = Rc::clone(&self.worker);
            let mut scratch = worker.scratch.borrow_mut();
            let mut buf = ReadBuf::new(&mut scratch);
            match self.stream.poll_read(cx, &mut buf) {
                Poll::Pending if worker.is_stopping() && self.stops_at.is_none() => {
                    Poll::Ready(Ok(Step::WaitForEvents))
                }
                Poll::Pending => Poll::Pending,
                Poll::Ready(Err(error)) => Poll::Ready(Err(error.into())),
                Poll::Ready(Ok(())) if buf.filled().is_empty() => {
                    // It may have closed its half only, and still read.
                    let is_done = self.output.is_empty();
                    Poll::Ready(if is_done { Err(Ending::ClosedByClient) } else { Ok(Step::Close) })
                }
                Poll::Ready(Ok(())) => {
                    let is_full = buf.remaining() == 0;
                    let step = self.execute_arrived(buf.filled());
                    self.poll_flush(cx)?;
                    // Whoever sends faster than we execute must not keep the thread from the others.
                    let has_more = is_full && matches!(step, Ok(Step::WaitForEvents));
                    Poll::Ready(if has_more { Ok(Step::TakeTurns) } else { step })
                }
            }
        })
        .await
    }

    /// Executes what has arrived, behind what was waiting.
    fn execute_arrived(&mut self, bytes: &[u8]) -> Result<Step, Ending> {
        if !self.input.is_empty() {
            self.input.extend_from_slice(bytes);
            return self.execute_waiting();
        }
        let (step, consumed) = self.execute(bytes);
        self.input.extend_from_slice(&bytes[consumed..]);
        self.note_input()?;
        self.check_output()?;
        Ok(step)
    }

    /// Executes what was waiting.
    fn execute_waiting(&mut self) -> Result<Step, Ending> {
        if self.input.is_empty() {
            return Ok(Step::WaitForEvents);
        }
        let input = std::mem::take(&mut self.input);
        let (step, consumed) = self.execute(&input);
        self.input = input;
        if consumed == self.input.len() {
            self.input = Vec::new();
        } else {
            self.input.drain(..consumed);
        }
        self.note_input()?;
        self.check_output()?;
        Ok(step)
    }

    fn note_input(&self) -> Result<(), Ending> {
        let len = self.input.len();
        self.session.client().query_bytes.store(len.min(u32::MAX as usize) as u32, Ordering::Relaxed);
        if len > MAX_WAITING_INPUT { Err(Ending::InputTooLarge) } else { Ok(()) }
    }

    /// Executes every complete command in `bytes`; returns what to do next and how many bytes are done with.
    fn execute(&mut self, bytes: &[u8]) -> (Step, usize) {
        let worker = Rc::clone(&self.worker);
        let node = &*worker.node;
        let started = worker.moment();
        let now = started.now;
        node.refresh_settings(&mut self.settings);
        self.worker.lend_output(&mut self.output);
        self.limit_requests();
        let (mut consumed, output_before) = (0, self.output.len());
        let output_turn_end = output_before + MAX_OUTPUT_TURN;
        let step = loop {
            let held_until = node.sleeping_until();
            if held_until > now.monotonic && consumed < bytes.len() {
                break Step::WaitUntil(held_until);
            }
            if consumed >= MAX_TURN || self.output.len() >= output_turn_end {
                break Step::TakeTurns;
            }
            if self.decoder.is_at_end_of_ahead() && self.decoder.look_ahead(&bytes[consumed..]) > 1 {
                node.prefetch(self.decoder.coming(&bytes[consumed..]));
            }
            match self.decoder.decode(&bytes[consumed..]) {
                Ok(Decoded::Incomplete { consumed: skipped, .. }) => {
                    consumed += skipped;
                    break Step::WaitForEvents;
                }
                Ok(Decoded::Complete { request, consumed: used }) => {
                    let outcome =
                        node.execute(&mut self.session, request, &self.settings, now, &mut self.output);
                    if let Outcome::Later(moment) = outcome {
                        self.decoder = RequestDecoder::new(self.limits());
                        break Step::WaitUntil(moment);
                    }
                    consumed += used;
                    if self.is_limited {
                        self.limit_requests();
                    }
                    match outcome {
                        Outcome::Done => {}
                        Outcome::Close => break Step::Close,
                        Outcome::Wait(task) => break Step::WaitForTask(task),
                        Outcome::Later(_) => unreachable!("handled above"),
                        Outcome::SettingsChanged => node.refresh_settings(&mut self.settings),
                    }
                }
                Err(error) => {
                    ReplyWriter::new(&mut self.output, self.session.protocol()).protocol_error(&error);
                    break Step::Close;
                }
            }
        };
        node.stats.note_traffic(&self.session, consumed, self.output.len() - output_before);
        if self.session.take_written()
            && Disk::must_wait(&self.settings)
            && let Some(disk) = &worker.disk
        {
            self.held = Some(disk.durability.ticket());
            worker.note_held(&mut self.held_seen);
        }
        if consumed > 0 {
            self.note_time(started);
            self.worker.note_turn(now.monotonic, &mut self.seen);
            self.was_served = true;
        }
        (step, consumed)
    }

    /// What the client may send at this moment.
    fn limits(&self) -> Limits {
        if self.is_limited { Limits::BEFORE_PASSWORD } else { Limits::default() }
    }

    /// Limits what a client may send to what it has the right to.
    fn limit_requests(&mut self) {
        let is_limited = self.session.is_locked(&self.settings);
        if is_limited != self.is_limited {
            self.is_limited = is_limited;
            self.decoder.set_limits(self.limits());
        }
    }

    /// Bytes of replies that the socket has not taken.
    fn unread(&self) -> usize {
        self.output.len() - self.sent
    }

    /// Tells the node how long it was busy for this client.
    fn note_time(&mut self, started: Moment) {
        let node = &self.worker.node;
        node.note_time(&mut self.session, &self.settings, started.elapsed_nanos(), started.now);
    }

    /// Sends as much as the socket takes.
    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Result<(), Ending> {
        if self.held.is_some() {
            return Ok(());
        }
        while self.sent < self.output.len() {
            match self.stream.poll_write(cx, &self.output[self.sent..]) {
                Poll::Pending => break,
                Poll::Ready(Ok(0)) => return Err(Ending::ClosedByClient),
                Poll::Ready(Ok(len)) => self.sent += len,
                Poll::Ready(Err(error)) => return Err(error.into()),
            }
        }
        if self.sent == self.output.len() {
            self.worker.recycle(&mut self.output);
            self.sent = 0;
        } else if self.sent > READ_LEN {
            self.output.drain(..self.sent);
            self.sent = 0;
        }
        self.session.client().output_bytes.store(self.unread(), Ordering::Relaxed);
        Ok(())
    }

    /// Ends a client for which more waits than may, by the settings as they were when it was last looked at.
    fn check_output(&mut self) -> Result<(), Ending> {
        let waiting = self.unread();
        if waiting == 0 {
            self.over_soft_since = None;
            return Ok(());
        }
        let limits = &self.settings.client_output_buffer_limit;
        let limit = match self.session.client().kind() {
            ClientKind::Normal => &limits.normal,
            ClientKind::Pubsub => &limits.pubsub,
        };
        let counted = waiting.saturating_sub(UNCOUNTED_OUTPUT) as u64;
        let is_over_hard = limit.hard_bytes > 0 && counted > limit.hard_bytes;
        let mut is_soft_expired = false;
        if limit.soft_bytes > 0 && counted > limit.soft_bytes {
            let now = self.worker.now().monotonic;
            let since = *self.over_soft_since.get_or_insert(now);
            is_soft_expired = now.since(since) > Micros::from_secs(limit.soft_secs.into());
        } else {
            self.over_soft_since = None;
        }
        if is_over_hard || is_soft_expired || waiting > MAX_WAITING_OUTPUT {
            log::warn!(
                "client {} ({}) closed: {waiting} bytes of replies wait to be read, over client-output-buffer-limit",
                self.session.client().id,
                self.session.client().peer,
            );
            return Err(Ending::OutputTooLarge);
        }
        Ok(())
    }

    /// Waits until the client has taken enough of its replies for more to be made.
    async fn wait_for_reader(&mut self, waker: &AtomicWaker) -> Result<(), Ending> {
        let client = Arc::clone(self.session.client());
        poll_fn(|cx| {
            waker.register(cx.waker());
            if client.is_killed() {
                return Poll::Ready(Err(Ending::ClosedByUs));
            }
            self.poll_flush(cx)?;
            self.worker.node.refresh_settings(&mut self.settings);
            self.check_output()?;
            if self.unread() <= MAX_UNREAD_OUTPUT || self.worker.is_stopping() {
                return Poll::Ready(Ok(()));
            }
            Poll::Pending
        })
        .await
    }

    /// Waits for a moment, a wake-up, or the end of the connection; goes on sending meanwhile.
    ///
    /// # Errors
    /// The socket failed. Going on would only fail again, at once and for as long as the wait.
    async fn wait_until(&mut self, moment: Micros, waker: &AtomicWaker) -> Result<(), Ending> {
        let left = moment.since(self.worker.now().monotonic);
        let sleep = tokio::time::sleep(std::time::Duration::from_micros(left.0));
        tokio::pin!(sleep);
        let mut is_first = true;
        poll_fn(|cx| {
            waker.register(cx.waker());
            let woken = !std::mem::take(&mut is_first);
            if woken || self.session.client().is_killed() {
                return Poll::Ready(Ok(()));
            }
            self.poll_flush(cx)?;
            ready!(sleep.as_mut().poll(cx));
            Poll::Ready(Ok(()))
        })
        .await
    }

    fn finish_task(&mut self, result: Option<TaskResult>) {
        if let Some(result) = result {
            self.worker.node.finish(&self.session, result, &mut self.output);
        }
    }

    /// Sends what is written, for at most `DRAIN_LIMIT`.
    async fn close(&mut self) -> Ending {
        let flush = poll_fn(|cx| {
            if let Err(ending) = self.poll_flush(cx) {
                return Poll::Ready(ending);
            }
            if self.output.is_empty() { Poll::Ready(Ending::ClosedByUs) } else { Poll::Pending }
        });
        tokio::time::timeout(DRAIN_LIMIT, flush).await.unwrap_or(Ending::OutputTooLarge)
    }
}
