//! A server as a value: one node with its listeners and threads. A process may run several.
//!
//! Lacks on purpose: whatever a process has only one of (working directory, log, signals, pid file); that is `main`'s.

use crate::bus::{self, Bus, BusOptions, LockedNodesFile};
use crate::crew::Crew;
use crate::disk::{Directory, Disk, RunningDisk, tools};
use crate::listener::{self, Listeners};
use crate::memory;
use crate::process;
use crate::shell::{Clock, ServerShell};
use crate::worker::{self, Arrival};
use engine::cluster::nodes_file::NodesFile;
use engine::cluster::{Cluster, ClusterConfig};
use engine::command::SaveOnExit;
use engine::settings::{BUS_PORT_OFFSET, Settings};
use engine::{Node, NodeConfig, NodeId};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::sync::mpsc::{self, UnboundedReceiver, UnboundedSender};

/// Who connects while counters are loaded waits for so long before it is told that they are: few are there at once.
const QUIET_LOAD: Duration = Duration::from_millis(100);

/// How long the workers may take to answer what was received before a stopping server ends all the same.
const STOP_LIMIT: Duration = Duration::from_secs(5);

/// What a server is started with.
pub(crate) struct ServerOptions {
    /// Its settings; `dir` in them is not looked at.
    pub(crate) settings: Settings,
    /// For CONFIG REWRITE.
    pub(crate) config_file: Option<PathBuf>,
    /// Where it keeps its files; `None`: nowhere, it forgets all at its end.
    pub(crate) dir: Option<PathBuf>,
}

/// A server that takes connections.
pub(crate) struct Server {
    node: Arc<Node>,
    clock: Clock,
    listeners: Listeners,
    workers: Vec<UnboundedSender<Arrival>>,
    threads: Vec<std::thread::JoinHandle<()>>,
    crew: Arc<Crew>,
    shell: Arc<ServerShell>,
    disk: Option<RunningDisk>,
    /// `None` until the counters are loaded.
    bus: Option<Bus>,
    /// What the bus is started with then.
    bus_start: Option<BusStart>,
    is_stopping: Arc<AtomicBool>,
    asked_to_stop: UnboundedReceiver<SaveOnExit>,
}

impl Server {
    /// Opens the ports and starts the threads. Needs a runtime around it.
    ///
    /// # Errors
    /// A text for the operator; nothing is left open then.
    pub(crate) fn start(options: ServerOptions) -> Result<Server, String> {
        let ServerOptions { settings, config_file, dir } = options;
        let io_threads = match settings.io_threads {
            0 => std::thread::available_parallelism().map_or(1, usize::from),
            threads => usize::from(threads),
        };
        let listeners = Listeners::open(&settings)?;
        let bus_addresses = bus_addresses(&settings)?;
        let bus_listeners = bus::listen(&bus_addresses)?;
        let nodes_path = dir.as_ref().map(|dir| dir.join(&settings.cluster_config_file));
        let nodes = open_nodes_file(nodes_path.as_deref())?;
        let (shutdown, asked_to_stop) = mpsc::unbounded_channel();
        let shell = Arc::new(ServerShell::new(config_file, io_threads, shutdown, settings.dir.clone()));
        let clock = Clock::new();
        let directory = dir.map(|dir| Directory::take(&dir, &settings.appenddirname)).transpose()?;
        let node = make_node(settings, &shell, clock, &nodes, directory.as_ref())?;
        let disk = match directory {
            None => None,
            Some(directory) => {
                let own = nodes.bytes.as_ref().map(|_| nodes.id);
                Some(Disk::start(&node, clock, io_threads, directory, own)?)
            }
        };
        let is_stopping = Arc::new(AtomicBool::new(false));
        let for_workers = disk.as_ref().map(|running| Arc::clone(&running.disk));
        let crew = Arc::new(Crew::new(io_threads));
        let (workers, threads) =
            start_workers(&crew, io_threads, (&node, for_workers.as_ref()), &shell, clock, &is_stopping)?;
        let bus_start = BusStart { addresses: bus_addresses, listeners: bus_listeners, nodes };
        let mut server = Server {
            node,
            clock,
            listeners,
            workers,
            threads,
            crew,
            shell,
            disk,
            bus: None,
            bus_start: Some(bus_start),
            is_stopping,
            asked_to_stop,
        };
        if server.disk.is_none() {
            server.start_bus()?;
        }
        Ok(server)
    }

    /// Makes the cluster side of the node, which is possible once its counters are there, and starts its thread.
    fn start_bus(&mut self) -> Result<(), String> {
        let start = self.bus_start.take().expect("the bus is started once");
        let bus = start_bus(&self.node, self.clock, start)?;
        self.shell.set_bus(bus.handle.clone());
        self.bus = Some(bus);
        Ok(())
    }

    /// Its I/O threads as they see each other.
    #[cfg(test)]
    pub(crate) fn crew(&self) -> &Arc<Crew> {
        &self.crew
    }

    /// The node within.
    pub(crate) fn node(&self) -> &Arc<Node> {
        &self.node
    }

    /// For requests to its cluster. Only for a server without a directory, which has its bus at once.
    pub(crate) fn bus(&self) -> &bus::BusHandle {
        &self.bus.as_ref().expect("nothing had to be loaded first").handle
    }

    /// Serves until `ended` yields something or a client asks for SHUTDOWN, and what has to be saved is; then answers what was
    /// received, tells the other nodes what they do not know yet, and ends. `is_ready` is called when the counters are loaded.
    ///
    /// # Errors
    /// The counters can't be loaded. A text for the operator.
    pub(crate) async fn run(
        mut self,
        is_ready: impl FnOnce(),
        mut ended: UnboundedReceiver<()>,
    ) -> Result<(), String> {
        if let Some(mut loaded) = self.disk.as_mut().and_then(|running| running.loaded.take()) {
            let loaded = match tokio::time::timeout(QUIET_LOAD, &mut loaded).await {
                Ok(loaded) => Some(loaded),
                Err(_) => tokio::select! {
                    loaded = loaded => Some(loaded),
                    _ = self.attend(&mut ended) => None,
                },
            };
            // Whoever ends while it loads has nothing to save.
            let Some(loaded) = loaded else { return Ok(()) };
            loaded.unwrap_or_else(|_| Err("the disk's thread has ended".to_owned()))?;
            self.start_bus()?;
        }
        is_ready();
        let save = self.attend(&mut ended).await;
        self.stop(save).await;
        Ok(())
    }

    /// Serves until somebody asks for the end.
    async fn attend(&mut self, ended: &mut UnboundedReceiver<()>) -> SaveOnExit {
        let disk = self.disk.as_ref().map(|running| &*running.disk);
        tokio::select! {
            () = self.listeners.accept(&self.node, &self.workers, (&self.crew, self.clock)) => SaveOnExit::AsConfigured,
            () = run_timers(&self.node, disk, self.clock) => SaveOnExit::AsConfigured,
            () = told_to_end(ended, &self.node, disk) => SaveOnExit::AsConfigured,
            save = shut_down(&mut self.asked_to_stop) => save,
        }
    }

    async fn stop(self, save: SaveOnExit) {
        self.listeners.clean_up();
        drop(self.listeners);
        self.is_stopping.store(true, Ordering::Release);
        drop(self.workers);
        self.node.clients.all().iter().for_each(|client| client.wake());
        if !are_joined(self.threads).await {
            log::warn!("some clients did not take their last replies within {STOP_LIMIT:?}");
        }
        if let Some(bus) = self.bus {
            bus.handle.stop();
            if !are_joined(vec![bus.thread]).await {
                log::warn!("the cluster thread did not end within {STOP_LIMIT:?}");
            }
        }
        if let Some(running) = self.disk {
            running.disk.end(save);
            // However long it takes: what is not written now is lost.
            let joined = tokio::task::spawn_blocking(move || drop(running.thread.join())).await;
            joined.expect("a thread that panics takes the process with it");
        }
    }
}

/// Reads a dump of the original into the data directory of a node that is not running.
///
/// # Errors
/// A text for the operator; the directory has no counters then.
pub(crate) fn import(settings: Settings, dump: &Path) -> Result<tools::Verdict, String> {
    let dir = PathBuf::from(&settings.dir);
    let nodes = open_nodes_file(Some(&dir.join(&settings.cluster_config_file)))?;
    let directory = Directory::take(&dir, &settings.appenddirname)?;
    let (shutdown, _) = mpsc::unbounded_channel();
    let shell = Arc::new(ServerShell::new(None, 0, shutdown, settings.dir.clone()));
    let clock = Clock::new();
    let node = make_node(settings, &shell, clock, &nodes, Some(&directory))?;
    tools::import(&node, clock, &directory, dump, nodes.bytes.as_ref().map(|_| nodes.id))
}

/// The node, before its counters are loaded.
fn make_node(
    settings: Settings,
    shell: &Arc<ServerShell>,
    clock: Clock,
    nodes: &NodesAtStart,
    directory: Option<&Directory>,
) -> Result<Arc<Node>, String> {
    let hash_seed = match directory {
        None => u64::from_le_bytes(process::random()?),
        Some(directory) => directory.secret()?,
    };
    let node = Node::new(NodeConfig {
        id: nodes.id,
        run_id: process::random()?,
        hash_seed,
        settings,
        now: clock.now(),
        shell: shell.clone(),
    });
    if let Some(bytes) = &nodes.bytes {
        node.recognise(bytes).map_err(|error| format!("the nodes file: {error}"))?;
    }
    Ok(Arc::new(node))
}

/// What the bus is started with.
struct BusStart {
    addresses: Vec<SocketAddr>,
    listeners: Vec<std::net::TcpListener>,
    nodes: NodesAtStart,
}

/// Where the bus listens: where clients are listened to, on another port.
fn bus_addresses(settings: &Settings) -> Result<Vec<SocketAddr>, String> {
    match settings.port {
        0 => Ok(Vec::new()),
        port => match port.checked_add(BUS_PORT_OFFSET) {
            Some(bus_port) => listener::addresses(settings, bus_port),
            None => Err(format!(
                "port {port}: the cluster bus takes the port + {BUS_PORT_OFFSET}, and there is no such port"
            )),
        },
    }
}

/// The nodes file at the start.
struct NodesAtStart {
    /// With its lock.
    file: Option<LockedNodesFile>,
    /// What is in it.
    bytes: Option<Vec<u8>>,
    /// The id in it, or a new one.
    id: NodeId,
}

/// Takes the nodes file and the id in it.
fn open_nodes_file(path: Option<&Path>) -> Result<NodesAtStart, String> {
    let Some(path) = path else {
        return Ok(NodesAtStart { file: None, bytes: None, id: NodeId(process::random()?) });
    };
    let (file, bytes) = LockedNodesFile::open(path)?;
    let id = match &bytes {
        None => NodeId(process::random()?),
        Some(bytes) => {
            let parsed = NodesFile::parse(bytes);
            parsed.map_err(|error| format!("the nodes file {}: {error}", path.display()))?.myself.line.id
        }
    };
    Ok(NodesAtStart { file: Some(file), bytes, id })
}

fn start_bus(node: &Arc<Node>, clock: Clock, start: BusStart) -> Result<Bus, String> {
    let BusStart { addresses, listeners, nodes } = start;
    let now = clock.now();
    let config = ClusterConfig {
        seed: u64::from_le_bytes(process::random()?),
        nodes_file: nodes.bytes,
        incarnation: u32::try_from(now.unix.secs()).unwrap_or(u32::MAX),
        ..ClusterConfig::default()
    };
    let cluster =
        Cluster::new(Arc::clone(node), config, now).map_err(|error| format!("the nodes file: {error}"))?;
    let protected = Arc::clone(node);
    let options = BusOptions {
        secret: node.settings().cluster_secret.clone(),
        is_protected: Box::new(move || protected.settings().protected_mode),
        sources: addresses.iter().map(SocketAddr::ip).collect(),
        clock,
        nodes_file: nodes.file,
        handshake_limit: bus::HANDSHAKE_LIMIT,
    };
    let bus = bus::start(cluster, listeners, options)?;
    let handle = bus.handle.clone();
    node.set_cluster_wake(Box::new(move || handle.wake()));
    Ok(bus)
}

/// One thread per core, or as many as configured.
#[allow(clippy::type_complexity, reason = "the two halves of the threads")]
fn start_workers(
    crew: &Arc<Crew>,
    count: usize,
    (node, disk): (&Arc<Node>, Option<&Arc<Disk>>),
    shell: &Arc<ServerShell>,
    clock: Clock,
    is_stopping: &Arc<AtomicBool>,
) -> Result<(Vec<UnboundedSender<Arrival>>, Vec<std::thread::JoinHandle<()>>), String> {
    let (mut workers, mut threads) = (Vec::new(), Vec::new());
    for number in 0..count {
        let (sender, receiver) = mpsc::unbounded_channel();
        let (node, disk) = (node.clone(), disk.cloned());
        let (shell, is_stopping, crew) = (shell.clone(), is_stopping.clone(), crew.clone());
        let thread = std::thread::Builder::new()
            .name(format!("io-{number}"))
            .spawn(move || worker::run(number, (node, disk), shell, clock, is_stopping, crew, receiver))
            .map_err(|error| format!("can't start an I/O thread: {error}"))?;
        workers.push(sender);
        threads.push(thread);
    }
    crew.set_intakes(&workers);
    Ok((workers, threads))
}

/// Does what is due in the node, and tells it how much memory is in use.
async fn run_timers(node: &Node, disk: Option<&Disk>, clock: Clock) {
    let mut memory = memory::Sampler::default();
    loop {
        let now = clock.now();
        if memory.is_due(node.stats.all_calls(), now.monotonic) {
            let bytes = memory::allocated_bytes();
            memory.note(bytes, now.monotonic);
            node.note_used_memory(bytes);
        }
        node.limit_buffers();
        if let Some(disk) = disk {
            disk.watch(node, now.monotonic);
        }
        node.run_timers(now);
        let left = Duration::from_micros(node.deadline().since(clock.now().monotonic).0);
        tokio::time::sleep(left.min(memory::LOOK_INTERVAL)).await;
    }
}

/// Returns when the end is asked for and what must be saved before is.
async fn told_to_end(ended: &mut UnboundedReceiver<()>, node: &Node, disk: Option<&Disk>) {
    loop {
        let asked = ended.recv().await;
        let Some(disk) = disk else { return };
        if asked.is_none() || node.is_loading() {
            return;
        }
        match disk.prepare_end(SaveOnExit::AsConfigured).await {
            Ok(()) => return,
            Err(error) => log::error!(
                "The server goes on: what has to be saved before it ends could not be: {error}. SHUTDOWN NOSAVE ends it \
                 all the same"
            ),
        }
    }
}

/// Returns when a client has asked for SHUTDOWN.
async fn shut_down(asked: &mut UnboundedReceiver<SaveOnExit>) -> SaveOnExit {
    match asked.recv().await {
        Some(save) => {
            log::warn!("SHUTDOWN received, stopping");
            save
        }
        None => std::future::pending().await,
    }
}

/// Waits for threads to end, for at most `STOP_LIMIT`; whether they have.
async fn are_joined(threads: Vec<std::thread::JoinHandle<()>>) -> bool {
    let joined =
        tokio::task::spawn_blocking(move || threads.into_iter().for_each(|thread| drop(thread.join())));
    tokio::time::timeout(STOP_LIMIT, joined).await.is_ok()
}
