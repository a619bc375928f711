//! One link at work: frames between a socket and the cluster.
//!
//! Each turn reads once, hands over a bounded number of frames, writes a bounded number of bytes and then lets others
//! have the thread: a peer that sends without pause must not keep the heartbeats of the rest waiting.

use super::Driver;
use super::refusal::Refusal;
use super::wire::{Wire, give_back};
use engine::cluster::{Input, LinkId, MAX_FRAME_LEN};
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::fmt;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker, ready};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::Notify;

/// Bytes read at a time.
pub(super) const READ_LEN: usize = 64 * 1024;

/// Most frames handed over in a turn; what else has arrived waits.
const MAX_FRAMES_PER_TURN: usize = 256;

/// Most bytes written in a turn.
const MAX_WRITTEN_PER_TURN: usize = 256 * 1024;

/// Most bytes of frames that wait to be sent on one link. The cluster keeps far below on its own account (it hears what
/// has left); a peer that has come here does not even read its heartbeats.
pub(super) const MAX_WAITING_OUTPUT: usize = 32 << 20;

/// What the cluster and the link's task share.
pub(super) struct Link {
    /// Its name.
    pub(super) id: LinkId,
    frames: RefCell<VecDeque<Vec<u8>>>,
    waiting_bytes: Cell<usize>,
    is_closing: Cell<bool>,
    closed: Notify,
    waker: Cell<Option<Waker>>,
}

impl Link {
    pub(super) fn new(id: LinkId) -> Link {
        Link {
            id,
            frames: RefCell::default(),
            waiting_bytes: Cell::new(0),
            is_closing: Cell::new(false),
            closed: Notify::new(),
            waker: Cell::new(None),
        }
    }

    /// Takes a frame to send behind the others.
    pub(super) fn send(&self, frame: Vec<u8>) {
        assert!((1..=MAX_FRAME_LEN).contains(&frame.len()), "the cluster makes frames that peers take");
        if !self.is_closing.get() {
            self.waiting_bytes.set(self.waiting_bytes.get() + frame.len());
            self.frames.borrow_mut().push_back(frame);
            self.wake();
        }
    }

    /// Ends the link once all that waits has been sent.
    pub(super) fn close(&self) {
        self.is_closing.set(true);
        self.closed.notify_one();
        self.wake();
    }

    /// Returns once the cluster has closed the link; for one waiter, once.
    pub(super) async fn closed(&self) {
        self.closed.notified().await;
    }

    /// Whether the cluster has done with it and is to hear nothing more.
    pub(super) fn is_closing(&self) -> bool {
        self.is_closing.get()
    }

    /// Whether frames wait that are not on their way into the socket yet.
    fn has_frames(&self) -> bool {
        !self.frames.borrow().is_empty()
    }

    /// Whether frames wait to be taken by the socket.
    pub(super) fn has_waiting(&self) -> bool {
        self.waiting_bytes.get() > 0
    }

    fn wake(&self) {
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }
}

/// How a link has ended.
#[derive(Debug)]
pub(super) enum Ending {
    /// The cluster wanted it to.
    ClosedByUs,
    /// The peer did.
    ClosedByPeer,
    /// The peer is refused.
    Refused(Refusal),
    /// The connection has failed.
    Failed(io::Error),
}

impl fmt::Display for Ending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Ending::ClosedByUs => f.write_str("closed by this node"),
            Ending::ClosedByPeer => f.write_str("closed by the peer"),
            Ending::Refused(refusal) => write!(f, "refused: the peer {refusal}"),
            Ending::Failed(error) => error.fmt(f),
        }
    }
}

impl From<Refusal> for Ending {
    fn from(refusal: Refusal) -> Ending {
        Ending::Refused(refusal)
    }
}

impl From<io::Error> for Ending {
    fn from(error: io::Error) -> Ending {
        Ending::Failed(error)
    }
}

/// A link's socket and what lies on either side of it.
pub(super) struct Carrier {
    driver: Rc<Driver>,
    link: Rc<Link>,
    stream: TcpStream,
    wire: Wire,
    /// Ready for the socket, which has taken the first `written` bytes.
    output: Vec<u8>,
    written: usize,
    /// Bytes of the frames in `output`.
    in_output: usize,
    /// Whether a frame has come: the peer knows the secret and the protocol.
    is_proven: bool,
    /// Whether frames have arrived that had to wait for the next turn.
    has_arrived: bool,
}

impl Carrier {
    pub(super) fn new(driver: Rc<Driver>, link: Rc<Link>, stream: TcpStream, wire: Wire) -> Carrier {
        Carrier {
            driver,
            link,
            stream,
            wire,
            output: Vec::new(),
            written: 0,
            in_output: 0,
            is_proven: false,
            has_arrived: false,
        }
    }

    /// Carries frames until one side ends the link. `proven` is called at the first frame.
    pub(super) async fn run(mut self, proven: impl Fn()) -> Ending {
        loop {
            if let Err(ending) = poll_fn(|cx| self.poll_turn(cx, &proven)).await {
                return ending;
            }
            // Not by waking itself: that would be before anybody has asked the system which sockets have something.
            tokio::task::yield_now().await;
        }
    }

    /// One turn; ready if there is more to do at once, or the link has ended.
    fn poll_turn(&mut self, cx: &mut Context<'_>, proven: &impl Fn()) -> Poll<Result<(), Ending>> {
        self.link.waker.take();
        let mut has_more = self.poll_flush(cx)?;
        if self.link.is_closing() {
            if self.output.is_empty() && !self.link.has_waiting() {
                return self.poll_hang_up(cx);
            }
        } else {
            has_more |= self.poll_receive(cx, proven)?;
            if self.link.waiting_bytes.get() > MAX_WAITING_OUTPUT {
                return Poll::Ready(Err(Refusal::DoesNotRead.into()));
            }
            // What has arrived often has an answer; it need not wait for the next turn.
            has_more |= self.poll_flush(cx)?;
            // By what was handed over: nobody could wake it before this turn is over.
            has_more |= self.link.is_closing();
        }
        if has_more {
            return Poll::Ready(Ok(()));
        }
        self.link.waker.set(Some(cx.waker().clone()));
        Poll::Pending
    }

    /// Reads what is there and hands over frames. True if more may be there.
    fn poll_receive(&mut self, cx: &mut Context<'_>, proven: &impl Fn()) -> Result<bool, Ending> {
        if !self.has_arrived {
            let mut scratch = self.driver.scratch.borrow_mut();
            let mut buf = ReadBuf::new(&mut scratch);
            match Pin::new(&mut self.stream).poll_read(cx, &mut buf) {
                Poll::Pending => return Ok(false),
                Poll::Ready(Err(error)) => return Err(error.into()),
                Poll::Ready(Ok(())) if buf.filled().is_empty() => return Err(Ending::ClosedByPeer),
                Poll::Ready(Ok(())) => self.wire.take_in(buf.filled())?,
            }
        }
        self.has_arrived = false;
        let mut frames = 0;
        while let Some(frame) = self.wire.next_frame()? {
            if !self.is_proven {
                self.is_proven = true;
                proven();
            }
            self.driver.feed(Input::Received { link: self.link.id, frame });
            frames += 1;
            if self.link.is_closing() {
                break;
            }
            if frames == MAX_FRAMES_PER_TURN {
                self.has_arrived = true;
                break;
            }
        }
        self.wire.compact();
        Ok(true)
    }

    /// Ends what we send and passes over what still comes until the peer hangs up too: closing a socket with unread
    /// bytes in it would take our last frames from the peer.
    fn poll_hang_up(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Ending>> {
        ready!(Pin::new(&mut self.stream).poll_shutdown(cx))?;
        let mut scratch = self.driver.scratch.borrow_mut();
        let mut buf = ReadBuf::new(&mut scratch);
        ready!(Pin::new(&mut self.stream).poll_read(cx, &mut buf))?;
        if buf.filled().is_empty() {
            return Poll::Ready(Err(Ending::ClosedByUs));
        }
        Poll::Ready(Ok(()))
    }

    /// Gives the socket as much as it takes, within bounds, and tells the cluster once. True if it would take more.
    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Result<bool, Ending> {
        let mut budget = MAX_WRITTEN_PER_TURN;
        let mut sent = 0;
        loop {
            while self.written < self.output.len() {
                match Pin::new(&mut self.stream).poll_write(cx, &self.output[self.written..]) {
                    Poll::Pending => {
                        self.tell_sent(sent);
                        return Ok(false);
                    }
                    Poll::Ready(Ok(0)) => return Err(Ending::ClosedByPeer),
                    Poll::Ready(Ok(len)) => self.written += len,
                    Poll::Ready(Err(error)) => return Err(error.into()),
                }
            }
            budget = budget.saturating_sub(self.output.len());
            self.output.clear();
            self.written = 0;
            sent += std::mem::take(&mut self.in_output);
            if budget == 0 || !self.link.has_frames() {
                break;
            }
            self.in_output = self.wire.put_out(&mut self.link.frames.borrow_mut(), &mut self.output)?;
        }
        give_back(&mut self.output);
        // More may be there to send once the cluster knows.
        self.tell_sent(sent);
        Ok(self.link.has_frames())
    }

    /// Tells the cluster that the socket has taken so many bytes of frames.
    fn tell_sent(&self, bytes: usize) {
        if bytes > 0 {
            self.link.waiting_bytes.set(self.link.waiting_bytes.get() - bytes);
            if !self.link.is_closing() {
                self.driver.feed(Input::Sent { link: self.link.id, bytes });
            }
        }
    }
}
