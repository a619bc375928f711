//! The cluster bus: a thread of its own that owns the node's cluster side and carries its frames.
//!
//! The thread runs a current-thread runtime. Every connection is a task on it; whatever happens (bytes, a deadline, a
//! wake-up from a client thread, an operator's request) is fed to the cluster, and what the cluster wants done is done
//! before the next thing is fed. Client threads never wait for this one: they wake it at most, and only the connection
//! that asks something of the cluster waits for an answer.
//!
//! | file | what |
//! |---|---|
//! | `wire` | frames, Noise messages, limits |
//! | `handshake` | the first bytes of a link: protocol and secret |
//! | `link` | a link at work, in turns |
//! | `strangers` | connections that have not shown who they are |
//! | `refusal` | why a peer is refused; counts and log lines |
//! | `nodes_file` | the lock on the nodes file, and its writing |
//!
//! Lacks on purpose: what frames mean. It decides only who may speak at all.

mod handshake;
mod link;
mod nodes_file;
mod refusal;
mod strangers;
#[cfg(test)]
mod tests;
mod wire;

pub(crate) use nodes_file::LockedNodesFile;

use crate::shell::Clock;
use atomic_waker::AtomicWaker;
use engine::TaskResult;
use engine::cluster::{Cluster, ClusterRequest, Effect, Input, LinkId};
use engine::settings::{BUS_PORT_OFFSET, Secret};
use engine::time::{Micros, Now};
use handshake::{HandshakeError, Psk, VERSION};
use link::{Carrier, Ending, Link, MAX_WAITING_OUTPUT, READ_LEN};
use nodes_file::Saver;
use refusal::{Refusal, RefusalCounts, Refusals};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::future::{Future, poll_fn};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Poll;
use std::time::Duration;
use strangers::{Stranger, Strangers};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::{mpsc, oneshot};
use tokio::task::LocalSet;
use wire::Wire;

/// Most connections at a time whose other side has not shown who it is.
const MAX_STRANGERS: usize = 64;

/// Most links. A cluster of hundreds of nodes stays below; duplicates are closed by the cluster.
const MAX_LINKS: usize = 1_024;

/// How long a connection to a peer may take to come about.
const CONNECT_LIMIT: Duration = Duration::from_secs(2);

/// How long a link that the cluster has closed goes on sending what waits.
const CLOSE_LIMIT: Duration = Duration::from_secs(1);

/// How long a stopping node goes on sending what waits.
const STOP_LIMIT: Duration = Duration::from_millis(500);

/// How long accepting pauses when the process has run out of descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// How long wake-ups are gathered after one has been followed: many changed counters then make one frame.
const WAKE_PAUSE: Duration = Duration::from_millis(1);

/// Unaccepted connections that the system holds.
const BACKLOG: u32 = 128;

/// The cluster as this thread sees it: `engine::cluster::Cluster`, or what tests put in its place.
pub(crate) trait Door {
    /// A name for an accepted connection.
    fn new_link(&mut self) -> LinkId;
    /// Something has happened.
    fn handle(&mut self, input: Input<'_>, now: Now);
    /// The next thing to be done.
    fn pop_effect(&mut self) -> Option<Effect>;
    /// When to hand in `Input::Timer`.
    fn deadline(&self) -> Micros;
    /// An operator wants something.
    fn request(&mut self, request: ClusterRequest, now: Now) -> TaskResult;
    /// The node goes away: whatever its peers only estimate is said exactly.
    fn settle(&mut self, now: Now);
}

impl Door for Cluster {
    fn new_link(&mut self) -> LinkId {
        Cluster::new_link(self)
    }

    fn handle(&mut self, input: Input<'_>, now: Now) {
        Cluster::handle(self, input, now);
    }

    fn pop_effect(&mut self) -> Option<Effect> {
        Cluster::pop_effect(self)
    }

    fn deadline(&self) -> Micros {
        Cluster::deadline(self)
    }

    fn request(&mut self, request: ClusterRequest, now: Now) -> TaskResult {
        Cluster::request(self, request, now)
    }

    fn settle(&mut self, now: Now) {
        Cluster::settle(self, now);
    }
}

/// What the bus needs to know at the start.
pub(crate) struct BusOptions {
    /// What all members share; empty for none.
    pub(crate) secret: Secret,
    /// Whether `protected-mode` is on at this moment.
    pub(crate) is_protected: Box<dyn Fn() -> bool + Send>,
    /// Addresses that the node listens on; links to peers start there too, so that peers see an address they can reach.
    pub(crate) sources: Vec<IpAddr>,
    /// The node's clock.
    pub(crate) clock: Clock,
    /// Where the cluster is kept; `None`: nowhere.
    pub(crate) nodes_file: Option<LockedNodesFile>,
    /// How long a peer may take to show who it is.
    pub(crate) handshake_limit: Duration,
}

/// `BusOptions::handshake_limit` outside of tests.
pub(crate) const HANDSHAKE_LIMIT: Duration = Duration::from_secs(3);

/// What others ask of the bus thread.
enum Order {
    /// Of the cluster; with the place for the answer.
    Request(ClusterRequest, oneshot::Sender<TaskResult>),
    /// To send what waits and end.
    Stop,
}

/// Speaks to the bus from other threads.
#[derive(Clone, Debug)]
pub(crate) struct BusHandle {
    orders: mpsc::UnboundedSender<Order>,
    wake: Arc<Wake>,
    /// Who has been refused.
    #[cfg(test)]
    refused: Arc<RefusalCounts>,
}

impl BusHandle {
    /// Has the cluster do what an operator asks. Each client waits for its answer, so no more wait than there are
    /// clients.
    pub(crate) async fn request(&self, request: ClusterRequest) -> TaskResult {
        let (sender, answer) = oneshot::channel();
        // Neither fails but on the way out, and then the client's connection ends as well.
        self.orders.send(Order::Request(request, sender)).ok();
        answer.await.unwrap_or_else(|_| TaskResult::Error("ERR the server is stopping".into()))
    }

    /// Has the cluster look at the node soon. For client threads: costs next to nothing if it is about to anyway.
    pub(crate) fn wake(&self) {
        self.wake.wake();
    }

    /// Has the bus send what waits and end.
    pub(crate) fn stop(&self) {
        self.orders.send(Order::Stop).ok();
    }
}

/// A wake-up that many threads may give and one follows.
#[derive(Debug, Default)]
struct Wake {
    is_given: AtomicBool,
    waker: AtomicWaker,
}

impl Wake {
    fn wake(&self) {
        if !self.is_given.swap(true, Ordering::AcqRel) {
            self.waker.wake();
        }
    }

    fn take(&self) -> bool {
        self.is_given.swap(false, Ordering::AcqRel)
    }
}

/// Opens the bus port on each address.
///
/// # Errors
/// Names the address that can't be had, and why.
pub(crate) fn listen(addresses: &[SocketAddr]) -> Result<Vec<std::net::TcpListener>, String> {
    addresses
        .iter()
        .map(|&address| {
            let open = || {
                let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
                socket.set_reuseaddr(true)?;
                if address.is_ipv6() {
                    // As where clients are listened to: `0.0.0.0 ::` are two addresses.
                    socket2::SockRef::from(&socket).set_only_v6(true)?;
                }
                socket.bind(address)?;
                socket.listen(BACKLOG)?.into_std()
            };
            open().map_err(|error: io::Error| {
                format!(
                    "can't open the cluster bus on {address}: {error}; it takes the client port + {BUS_PORT_OFFSET}, so \
                     choose another 'port', or end what listens there"
                )
            })
        })
        .collect()
}

/// A bus at work.
pub(crate) struct Bus {
    /// For other threads.
    pub(crate) handle: BusHandle,
    /// Ends some time after `BusHandle::stop`.
    pub(crate) thread: std::thread::JoinHandle<()>,
}

/// Starts the thread.
///
/// # Errors
/// The system has no thread to give.
pub(crate) fn start<C: Door + Send + 'static>(
    cluster: C,
    listeners: Vec<std::net::TcpListener>,
    options: BusOptions,
) -> Result<Bus, String> {
    let (orders, received) = mpsc::unbounded_channel();
    let wake = Arc::<Wake>::default();
    let refused = Arc::<RefusalCounts>::default();
    let handle = BusHandle {
        orders,
        wake: Arc::clone(&wake),
        #[cfg(test)]
        refused: Arc::clone(&refused),
    };
    let thread = std::thread::Builder::new()
        .name("cluster".into())
        .spawn(move || run(Driver::new(Box::new(cluster), options, wake, refused), listeners, received))
        .map_err(|error| format!("can't start the cluster thread: {error}"))?;
    Ok(Bus { handle, thread })
}

fn run(driver: Driver, listeners: Vec<std::net::TcpListener>, mut orders: mpsc::UnboundedReceiver<Order>) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime needs nothing but an epoll descriptor");
    let local = LocalSet::new();
    runtime.block_on(local.run_until(async {
        let driver = Rc::new(driver);
        for listener in listeners {
            let listener = TcpListener::from_std(listener).expect("the runtime is running");
            tokio::task::spawn_local(Rc::clone(&driver).accept(listener));
        }
        tokio::task::spawn_local(Rc::clone(&driver).keep_time());
        driver.carry_out_effects();
        while let Some(Order::Request(request, answer)) = orders.recv().await {
            driver.request(request, answer);
        }
        driver.drain().await;
    }));
}

/// The cluster, and all that its effects work on. Lives on the bus thread.
pub(crate) struct Driver {
    cluster: RefCell<Box<dyn Door>>,
    links: RefCell<BTreeMap<LinkId, Rc<Link>>>,
    strangers: Strangers,
    refusals: Refusals,
    saver: Rc<Saver>,
    psk: Option<Psk>,
    options: BusOptions,
    wake: Arc<Wake>,
    /// Where links read to; only ever borrowed within a turn.
    scratch: RefCell<Vec<u8>>,
}

impl Driver {
    fn new(
        cluster: Box<dyn Door>,
        mut options: BusOptions,
        wake: Arc<Wake>,
        refused: Arc<RefusalCounts>,
    ) -> Driver {
        Driver {
            cluster: RefCell::new(cluster),
            links: RefCell::default(),
            strangers: Strangers::default(),
            refusals: Refusals::new(refused),
            saver: Rc::new(Saver::new(options.nodes_file.take())),
            psk: (!options.secret.is_empty()).then(|| Psk::derive(&options.secret)),
            options,
            wake,
            scratch: RefCell::new(vec![0; READ_LEN]),
        }
    }

    fn now(&self) -> Now {
        self.options.clock.now()
    }

    /// Tells the cluster what has happened, and does what it wants.
    fn feed(self: &Rc<Driver>, input: Input<'_>) {
        let before = self.cluster.borrow().deadline();
        self.cluster.borrow_mut().handle(input, self.now());
        self.carry_out_effects();
        if self.cluster.borrow().deadline() < before {
            // The timekeeper sleeps towards a later moment.
            self.wake.waker.wake();
        }
    }

    fn carry_out_effects(self: &Rc<Driver>) {
        loop {
            let Some(effect) = self.cluster.borrow_mut().pop_effect() else { return };
            match effect {
                Effect::Dial { link, to } => {
                    tokio::task::spawn_local(Rc::clone(self).dial(link, to));
                }
                Effect::Send { link, frame } => {
                    // A link that has ended since takes nothing; the cluster has been told.
                    if let Some(link) = self.links.borrow().get(&link) {
                        link.send(frame);
                    }
                }
                Effect::Close { link } => {
                    if let Some(link) = self.links.borrow_mut().remove(&link) {
                        link.close();
                    }
                }
                Effect::SaveNodes(bytes) => self.saver.save(bytes),
            }
        }
    }

    /// Hands in `Input::Timer` when it is due or somebody has given a wake-up.
    async fn keep_time(self: Rc<Driver>) {
        let mut next_wake = tokio::time::Instant::now();
        let sleep = tokio::time::sleep_until(next_wake);
        tokio::pin!(sleep);
        loop {
            poll_fn(|cx| {
                self.wake.waker.register(cx.waker());
                loop {
                    let left = self.cluster.borrow().deadline().since(self.now().monotonic);
                    let is_waiting = self.wake.is_given.load(Ordering::Acquire);
                    let now = tokio::time::Instant::now();
                    if left == Micros(0) || is_waiting && next_wake <= now {
                        return Poll::Ready(());
                    }
                    // A deadline that never comes is still looked at once an hour.
                    let until = now + Duration::from_micros(left.0).min(Duration::from_secs(3_600));
                    sleep.as_mut().reset(if is_waiting { until.min(next_wake) } else { until });
                    if sleep.as_mut().poll(cx).is_pending() {
                        return Poll::Pending;
                    }
                }
            })
            .await;
            // Nobody need wake it before it looks again; it would go on at once, and the sockets would have to wait.
            self.wake.waker.take();
            if self.wake.take() {
                next_wake = tokio::time::Instant::now() + WAKE_PAUSE;
            }
            self.feed(Input::Timer);
            if self.cluster.borrow().deadline() <= self.now().monotonic {
                // The links have their turn first.
                tokio::task::yield_now().await;
            }
        }
    }

    /// Asks the cluster, and answers once what it had to write down is on the disk.
    fn request(self: &Rc<Driver>, request: ClusterRequest, answer: oneshot::Sender<TaskResult>) {
        let asked = self.saver.asked();
        let result = self.cluster.borrow_mut().request(request, self.now());
        self.carry_out_effects();
        self.wake.waker.wake();
        if self.saver.asked() == asked || matches!(result, TaskResult::Error(_)) {
            answer.send(result).ok();
            return;
        }
        let saver = Rc::clone(&self.saver);
        tokio::task::spawn_local(async move {
            let result = match saver.settle().await {
                Ok(()) => result,
                Err(error) => TaskResult::Error(format!("ERR {error}")),
            };
            answer.send(result).ok();
        });
    }

    /// Lets the cluster say what it has to say, and sends what waits.
    async fn drain(self: &Rc<Driver>) {
        self.cluster.borrow_mut().settle(self.now());
        self.carry_out_effects();
        let sent = async {
            while self.links.borrow().values().any(|link| link.has_waiting()) {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        tokio::time::timeout(STOP_LIMIT, sent).await.ok();
        if let Ok(Err(error)) = tokio::time::timeout(STOP_LIMIT, self.saver.settle()).await {
            log::warn!("{error}");
        }
    }

    /// Accepts for ever.
    async fn accept(self: Rc<Driver>, listener: TcpListener) {
        loop {
            match listener.accept().await {
                Ok((stream, from)) => {
                    if let Err(refusal) = self.check_peer(from.ip()) {
                        self.refusals.note(from, refusal, self.now().monotonic);
                    } else {
                        tokio::task::spawn_local(Rc::clone(&self).welcome(stream, from));
                    }
                }
                Err(error) => {
                    log::warn!("cluster bus: can't accept a connection: {error}");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    /// Whether there may be a link with this address at all.
    fn check_peer(&self, ip: IpAddr) -> Result<(), Refusal> {
        let is_open = self.psk.is_some() || ip.to_canonical().is_loopback() || !(self.options.is_protected)();
        if !is_open {
            Err(Refusal::NotLoopback)
        } else if self.links.borrow().len() >= MAX_LINKS {
            Err(Refusal::TooManyLinks)
        } else {
            Ok(())
        }
    }

    /// A connection that a peer has made, from the first byte to the last.
    async fn welcome(self: Rc<Driver>, mut stream: TcpStream, from: SocketAddr) {
        stream.set_nodelay(true).ok();
        let stranger = self.strangers.admit();
        let deadline = tokio::time::Instant::now() + self.options.handshake_limit;
        let handshake = tokio::select! {
            done = handshake::accept(&mut stream, self.psk.as_ref()) => done,
            refusal = stranger.expire(self.options.handshake_limit) => Err(refusal.into()),
        };
        match handshake {
            Ok(wire) => {
                let id = self.cluster.borrow_mut().new_link();
                let link = self.add_link(id);
                self.feed(Input::Accepted { link: id, from });
                let left = deadline.saturating_duration_since(tokio::time::Instant::now());
                self.carry(link, stream, wire, from, Some((&stranger, left))).await;
            }
            Err(HandshakeError::Refused(refusal)) => self.refusals.note(from, refusal, self.now().monotonic),
            Err(HandshakeError::Failed(error)) => log::debug!("cluster bus: {from} left: {error}"),
        }
        self.strangers.dismiss(&stranger);
    }

    /// A connection that the cluster has asked for.
    async fn dial(self: Rc<Driver>, id: LinkId, to: SocketAddr) {
        // Known from now on, so that the cluster can close it meanwhile.
        let link = self.add_link(id);
        let connected = match self.check_peer(to.ip()) {
            Err(refusal) => Err(refusal.into()),
            Ok(()) => {
                let limit = self.options.handshake_limit;
                let connect = async {
                    let mut stream = self.connect(to).await?;
                    let shaken = tokio::time::timeout(limit, handshake::dial(&mut stream, self.psk.as_ref()));
                    Ok((shaken.await.unwrap_or(Err(Refusal::TooSlow.into()))?, stream))
                };
                connect.await
            }
        };
        let ending = match connected {
            Ok(_) if link.is_closing() => return,
            Ok((wire, stream)) => {
                self.feed(Input::Dialed { link: id });
                return self.carry(link, stream, wire, to, None).await;
            }
            Err(HandshakeError::Refused(refusal)) => Ending::Refused(refusal),
            Err(HandshakeError::Failed(error)) => Ending::Failed(error),
        };
        self.end_link(&link, to, &ending);
    }

    async fn connect(&self, to: SocketAddr) -> Result<TcpStream, HandshakeError> {
        let socket = if to.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
        if let Some(source) = source_for(to.ip(), &self.options.sources) {
            socket.bind(SocketAddr::new(source, 0))?;
        }
        let stream = tokio::time::timeout(CONNECT_LIMIT, socket.connect(to))
            .await
            .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))?;
        stream.set_nodelay(true)?;
        Ok(stream)
    }

    fn add_link(&self, id: LinkId) -> Rc<Link> {
        let link = Rc::new(Link::new(id));
        self.links.borrow_mut().insert(id, Rc::clone(&link));
        link
    }

    /// Carries frames until the link ends. An accepted one ends also when its stranger's time is up.
    async fn carry(
        self: &Rc<Driver>,
        link: Rc<Link>,
        stream: TcpStream,
        wire: Wire,
        peer: SocketAddr,
        stranger: Option<(&Rc<Stranger>, Duration)>,
    ) {
        let proven = || {
            if let Some((stranger, _)) = stranger {
                stranger.prove();
                self.strangers.dismiss(stranger);
            }
        };
        let expired = async {
            match stranger {
                Some((stranger, left)) => stranger.expire(left).await,
                None => std::future::pending().await,
            }
        };
        let ending = tokio::select! {
            ending = Carrier::new(Rc::clone(self), Rc::clone(&link), stream, wire).run(proven) => ending,
            refusal = expired => Ending::Refused(refusal),
            () = closed_for(&link, CLOSE_LIMIT) => Ending::ClosedByUs,
        };
        self.end_link(&link, peer, &ending);
    }

    /// Lets a link go, and tells the cluster unless it was the one to close it.
    fn end_link(self: &Rc<Driver>, link: &Link, peer: SocketAddr, ending: &Ending) {
        if let Ending::Refused(refusal) = ending {
            self.refusals.note(peer, *refusal, self.now().monotonic);
        }
        log::debug!("cluster bus: link {} with {peer} has ended: {ending}", link.id.0);
        if !link.is_closing() {
            self.links.borrow_mut().remove(&link.id);
            self.feed(Input::Closed { link: link.id, reason: &ending.to_string() });
        }
    }
}

/// Returns `limit` after the cluster has closed the link.
async fn closed_for(link: &Link, limit: Duration) {
    link.closed().await;
    tokio::time::sleep(limit).await;
}

/// The address to start from: one that the node listens on, of the same kind as the target.
fn source_for(to: IpAddr, sources: &[IpAddr]) -> Option<IpAddr> {
    sources
        .iter()
        .copied()
        .filter(|source| !source.is_unspecified())
        .find(|source| source.is_ipv4() == to.is_ipv4() && source.is_loopback() == to.is_loopback())
}
