//! An I/O thread: a current-thread runtime with its own connections.

use crate::calm::Calm;
use crate::connection::{Connection, READ_LEN, Stream};
use crate::crew::{self, Advice, Crew};
use crate::disk::{Disk, Started};
use crate::shell::{Clock, Moment, ServerShell};
use atomic_waker::AtomicWaker;
use engine::clients::Peer;
use engine::cluster::ClusterRequest;
use engine::command::Task;
use engine::time::{Micros, Now};
use engine::{Node, Session, TaskResult};
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::future::poll_fn;
use std::net::SocketAddr;
use std::os::fd::AsRawFd;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Poll, Waker};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::sync::mpsc::{self, UnboundedSender};
use tokio::task::LocalSet;

/// A connection on its way from the acceptor to a worker.
pub(crate) enum Accepted {
    /// Over TCP.
    Tcp(std::net::TcpStream),
    /// Over the unix socket at this path.
    Unix(std::os::unix::net::UnixStream, String),
}

/// One that was let in. The permit counts it until its end.
pub(crate) struct Admitted {
    pub(crate) accepted: Accepted,
    pub(crate) permit: Arc<()>,
}

/// What an I/O thread takes on.
pub(crate) enum Arrival {
    /// A connection from the acceptor.
    New(Admitted),
    /// One that another thread has served so far.
    Moved(Box<Moved>),
}

/// A connection between two threads: at rest, with nothing to execute or to send.
pub(crate) struct Moved {
    pub(crate) accepted: Accepted,
    pub(crate) session: Session,
    pub(crate) waker: Arc<AtomicWaker>,
    pub(crate) permit: Arc<()>,
}

/// What a thread knows of its own load, and what it means to do about it.
#[derive(Default)]
struct Turns {
    /// When it last judged, and its time on a core until then.
    judged_at: Cell<Micros>,
    time_then: Cell<Micros>,
    /// Number of the judgement, and connections that were busy since.
    judgement: Cell<u32>,
    busy: Cell<usize>,
    /// Batches since then.
    count: Cell<u32>,
    /// Connections whose replies have waited for the disk since then.
    crowd: Cell<usize>,
    /// To which thread it gives connections, and how many more.
    to: Cell<usize>,
    left: Cell<usize>,
}

/// What all connections of one thread share.
pub(crate) struct Worker {
    pub(crate) node: Arc<Node>,
    pub(crate) shell: Arc<ServerShell>,
    pub(crate) scratch: RefCell<Vec<u8>>,
    spare_output: RefCell<Vec<u8>>,
    is_stopping: Arc<AtomicBool>,
    clock: Clock,
    /// Its number among the I/O threads.
    number: usize,
    /// `None`: the node keeps nothing.
    pub(crate) disk: Option<Arc<Disk>>,
    /// Connections whose replies wait for a sync, by client: the ticket and whom to wake.
    waiting_for_disk: RefCell<BTreeMap<u64, (u64, Waker)>>,
    /// Connections being served.
    connections: Cell<usize>,
    last_has_left: Notify,
    pub(crate) crew: Arc<Crew>,
    turns: Turns,
    calm: Arc<Calm>,
}

/// The answer to SAVE on a node without a directory.
const NOTHING_KEPT: &str = "ERR saving is not available: this node keeps counters in memory only";

/// How long the look-up of a host may take.
const RESOLVE_LIMIT: Duration = Duration::from_secs(5);

/// Largest output buffer that is kept for the next connection.
const MAX_SPARE_OUTPUT: usize = 256 * 1024;

impl Worker {
    /// The present.
    pub(crate) fn now(&self) -> Now {
        self.clock.now()
    }

    /// The present, to measure from.
    pub(crate) fn moment(&self) -> Moment {
        self.clock.moment()
    }

    /// Whether the server is on its way out.
    pub(crate) fn is_stopping(&self) -> bool {
        self.is_stopping.load(Ordering::Acquire)
    }

    /// Whether the change with this ticket is on the disk; if not, the waker will be called when it is.
    pub(crate) fn poll_safe(&self, ticket: u64, client: u64, waker: &Waker) -> Poll<()> {
        let Some(disk) = &self.disk else { return Poll::Ready(()) };
        let durability = &disk.durability;
        if durability.is_safe(ticket) {
            return Poll::Ready(());
        }
        let known = self.waiting_for_disk.borrow_mut().insert(client, (ticket, waker.clone()));
        if known.is_none_or(|(known, _)| known != ticket) {
            durability.want(self.number, ticket);
        }
        if durability.is_safe(ticket) { Poll::Ready(()) } else { Poll::Pending }
    }

    /// The connection waits no more.
    pub(crate) fn forget_waiting(&self, client: u64) {
        self.waiting_for_disk.borrow_mut().remove(&client);
    }

    /// Wakes connections whose replies may go; for ever.
    async fn watch_disk(&self) {
        let Some(disk) = &self.disk else { return };
        let durability = &disk.durability;
        poll_fn(|cx| {
            durability.register(self.number, cx.waker());
            self.waiting_for_disk.borrow_mut().retain(|_, (ticket, waker)| {
                let is_safe = durability.is_safe(*ticket);
                if is_safe {
                    waker.wake_by_ref();
                }
                !is_safe
            });
            Poll::<()>::Pending
        })
        .await;
    }

    /// A connection has had its turn; `seen` is what this has left there the last time.
    pub(crate) fn note_turn(&self, now: Micros, seen: &mut u32) {
        let turns = &self.turns;
        self.calm.note_batch();
        turns.count.set(turns.count.get() + 1);
        if *seen != turns.judgement.get() {
            *seen = turns.judgement.get();
            turns.busy.set(turns.busy.get() + 1);
        }
        if now.since(turns.judged_at.get()) >= crew::INTERVAL {
            self.judge(now);
        }
    }

    /// A connection's reply is held back for the disk; `seen` is what this has left there the last time.
    pub(crate) fn note_held(&self, seen: &mut u32) {
        let turns = &self.turns;
        if *seen != turns.judgement.get() {
            *seen = turns.judgement.get();
            turns.crowd.set(turns.crowd.get() + 1);
        }
    }

    /// Looks at what the thread has had to do since it last looked, and decides whether others should do some of it.
    fn judge(&self, now: Micros) {
        let turns = &self.turns;
        let time = crew::thread_time();
        let (spent, elapsed) =
            (time.since(turns.time_then.get()), now.since(turns.judged_at.replace(now)).0.max(1));
        let percent = (spent.0 * 100 / elapsed).min(100) as u32;
        turns.time_then.set(time);
        turns.judgement.set(turns.judgement.get().wrapping_add(1));
        let busy = turns.busy.replace(0);
        let count = u64::from(turns.count.replace(0));
        let crowd = turns.crowd.replace(0);
        if let Some(disk) = &self.disk {
            disk.durability.set_crowd(self.number, crowd, now);
        }
        self.calm.judge(busy, count * 1_000_000 / elapsed, crowd > 0);
        let (to, left) = match self.crew.advise(self.number, percent, now, crew::idle_ticks) {
            Advice::Keep => (0, 0),
            Advice::GiveHalf(to) => (to, busy / 2),
            Advice::GiveAll(to) => (to, usize::MAX),
        };
        turns.to.set(to);
        turns.left.set(left);
    }

    /// Whether a connection at rest should go to another thread, and where that takes it on.
    pub(crate) fn give_away(&self) -> Option<UnboundedSender<Arrival>> {
        let left = self.turns.left.get().checked_sub(1)?;
        if self.is_stopping() {
            return None;
        }
        self.turns.left.set(left);
        self.crew.intake(self.turns.to.get()).filter(|_| self.turns.to.get() != self.number)
    }

    /// Gives a connection that holds no output buffer the thread's spare one.
    pub(crate) fn lend_output(&self, output: &mut Vec<u8>) {
        if output.capacity() == 0 {
            *output = self.spare_output.take();
        }
    }

    /// Takes back an output buffer whose bytes have gone, so that a connection at rest holds none.
    pub(crate) fn recycle(&self, output: &mut Vec<u8>) {
        let mut output = std::mem::take(output);
        output.clear();
        if output.capacity() <= MAX_SPARE_OUTPUT && output.capacity() > self.spare_output.borrow().capacity()
        {
            self.spare_output.replace(output);
        }
    }

    async fn save(&self) -> TaskResult {
        match &self.disk {
            None => TaskResult::Error(NOTHING_KEPT.into()),
            Some(disk) => match disk.save().await {
                Ok(()) => TaskResult::Ok,
                // The original answers the bare code; the log of the server tells why.
                Err(_) => TaskResult::Error("ERR".into()),
            },
        }
    }

    async fn save_in_background(&self) -> TaskResult {
        match &self.disk {
            None => TaskResult::Error(NOTHING_KEPT.into()),
            Some(disk) => match disk.save_in_background().await {
                Started::Yes => TaskResult::Status("Background saving started"),
                Started::AlreadyRunning => {
                    TaskResult::Error("ERR Background save already in progress".into())
                }
            },
        }
    }

    /// Does what a command has asked the shell to do; `None`: there is no reply.
    pub(crate) async fn run_task(&self, task: Task) -> Option<TaskResult> {
        match task {
            Task::RewriteConfig => {
                let shell = Arc::clone(&self.shell);
                let settings = self.node.settings();
                let done = tokio::task::spawn_blocking(move || shell.rewrite_config(&settings)).await;
                Some(match done.expect("rewriting does not panic") {
                    Ok(()) => TaskResult::Ok,
                    Err(error) => TaskResult::Error(format!("ERR {error}")),
                })
            }
            Task::Keys(pattern) => {
                let (mut names, mut cursor) = (Vec::new(), 0);
                loop {
                    cursor = self.node.keys_step(&pattern, cursor, &mut names);
                    if cursor == 0 {
                        return Some(TaskResult::Names(names));
                    }
                    tokio::task::yield_now().await;
                }
            }
            Task::Sleep(duration) => {
                self.node.sleep_until(self.now().monotonic + duration);
                tokio::time::sleep(Duration::from_micros(duration.0)).await;
                Some(TaskResult::Ok)
            }
            Task::Shutdown(save) => {
                if let Some(disk) = &self.disk
                    && !self.node.is_loading()
                    && let Err(error) = disk.prepare_end(save).await
                {
                    log::error!(
                        "The server goes on: what has to be saved before it ends could not be: {error}"
                    );
                    return Some(TaskResult::Error("ERR Errors trying to SHUTDOWN. Check logs.".into()));
                }
                self.shell.request_shutdown(save);
                None
            }
            Task::Save => Some(self.save().await),
            Task::SaveInBackground => Some(self.save_in_background().await),
            Task::Cluster(request) => Some(self.ask_cluster(request).await),
            Task::Resolve { host, port, bus_port } => Some(match resolve(&host, bus_port).await {
                Some(bus) => self.ask_cluster(ClusterRequest::Meet { bus, port }).await,
                None => TaskResult::unresolved(&host, port),
            }),
        }
    }

    async fn ask_cluster(&self, request: ClusterRequest) -> TaskResult {
        match self.shell.bus() {
            Some(bus) => bus.request(request).await,
            None => TaskResult::Error("ERR the cluster is not up yet, try again".into()),
        }
    }
}

/// The first address of a host. Other connections of the thread go on meanwhile.
async fn resolve(host: &str, port: u16) -> Option<SocketAddr> {
    let looked_up = tokio::time::timeout(RESOLVE_LIMIT, tokio::net::lookup_host((host, port)));
    looked_up.await.ok()?.ok()?.next()
}

/// Runs an I/O thread until the acceptor hangs up and the last of its connections has ended.
pub(crate) fn run(
    number: usize,
    (node, disk): (Arc<Node>, Option<Arc<Disk>>),
    shell: Arc<ServerShell>,
    clock: Clock,
    is_stopping: Arc<AtomicBool>,
    crew: Arc<Crew>,
    mut arrivals: mpsc::UnboundedReceiver<Arrival>,
) {
    let calm = Arc::new(Calm::default());
    let before_sleep = Arc::clone(&calm);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .on_thread_park(move || before_sleep.before_looking())
        .build()
        .expect("a runtime needs nothing but an epoll descriptor");
    let worker = Rc::new(Worker {
        node,
        shell,
        scratch: RefCell::new(vec![0; READ_LEN]),
        spare_output: RefCell::default(),
        is_stopping,
        clock,
        number,
        disk,
        waiting_for_disk: RefCell::default(),
        connections: Cell::new(0),
        last_has_left: Notify::new(),
        crew,
        turns: Turns::default(),
        calm,
    });
    let local = LocalSet::new();
    let watching = Rc::clone(&worker);
    local.spawn_local(async move { watching.watch_disk().await });
    runtime.block_on(local.run_until(async {
        while let Some(arrival) = arrivals.recv().await {
            let taken_on = match arrival {
                Arrival::New(connection) => take_on(&worker, connection),
                Arrival::Moved(connection) => take_over(&worker, *connection),
            };
            if let Err(error) = taken_on {
                log::debug!("a connection ended before it was served: {error}");
            }
        }
        while worker.connections.get() > 0 {
            worker.last_has_left.notified().await;
        }
    }));
}

/// Starts to serve a connection.
fn take_on(worker: &Rc<Worker>, Admitted { accepted, permit }: Admitted) -> std::io::Result<()> {
    let (stream, peer, fd) = match accepted {
        Accepted::Tcp(stream) => {
            let peer =
                Peer::Tcp { addr: stream.peer_addr()?.to_string(), local: stream.local_addr()?.to_string() };
            let fd = stream.as_raw_fd();
            (Stream::Tcp(tokio::net::TcpStream::from_std(stream)?), peer, fd)
        }
        Accepted::Unix(stream, path) => {
            let fd = stream.as_raw_fd();
            (Stream::Unix(tokio::net::UnixStream::from_std(stream)?), Peer::Unix(path), fd)
        }
    };
    let waker = Arc::new(AtomicWaker::new());
    let wake = Arc::clone(&waker);
    let mut session = worker.node.connect(peer, fd, worker.now(), Box::new(move || wake.wake()));
    session.set_lane(worker.number);
    serve(worker, stream, session, waker, permit);
    Ok(())
}

/// Goes on serving a connection that another thread has served.
fn take_over(worker: &Rc<Worker>, moved: Moved) -> std::io::Result<()> {
    let Moved { accepted, mut session, waker, permit } = moved;
    let stream = match accepted {
        Accepted::Tcp(stream) => tokio::net::TcpStream::from_std(stream).map(Stream::Tcp),
        Accepted::Unix(stream, _) => tokio::net::UnixStream::from_std(stream).map(Stream::Unix),
    };
    match stream {
        Ok(stream) => {
            #[cfg(test)]
            worker.crew.moves.fetch_add(1, Ordering::Relaxed);
            session.set_lane(worker.number);
            serve(worker, stream, session, waker, permit);
            Ok(())
        }
        Err(error) => {
            worker.node.disconnect(session, worker.now());
            Err(error)
        }
    }
}

fn serve(worker: &Rc<Worker>, stream: Stream, session: Session, waker: Arc<AtomicWaker>, permit: Arc<()>) {
    let connection = Connection::new(Rc::clone(worker), stream, session);
    worker.connections.set(worker.connections.get() + 1);
    let worker = Rc::clone(worker);
    tokio::task::spawn_local(async move {
        connection.serve(waker, permit).await;
        worker.connections.set(worker.connections.get() - 1);
        if worker.connections.get() == 0 {
            worker.last_has_left.notify_one();
        }
    });
}
