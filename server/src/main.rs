//! The counter server: threads, sockets, files and signals around the engine.
//!
//! It decides nothing that matters to a count. The main thread accepts connections, runs the node's timers and
//! waits for signals; `worker` threads serve the clients.

mod config;
mod connection;
mod disk;
mod listener;
mod logging;
mod process;
mod shell;
mod worker;

use config::{Mode, Startup};
use engine::command::SaveOnExit;
use disk::{Disk, tools};
use engine::settings::{Settings, Supervised};
use engine::{Node, NodeConfig, NodeId};
use listener::Listeners;
use shell::{Clock, ServerShell};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc::{self, UnboundedReceiver, UnboundedSender};
use tokio::sync::oneshot;
use worker::Accepted;

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// How often the memory in use is looked at for `maxmemory`.
const MEMORY_SAMPLE_INTERVAL: Duration = Duration::from_millis(100);

/// How long the workers may take to answer what was received before a stopping server ends all the same.
const STOP_LIMIT: Duration = Duration::from_secs(5);

fn main() -> ExitCode {
    match config::load(std::env::args_os().skip(1)) {
        Err(error) => complain(&error.to_string()),
        Ok(Startup { mode: Mode::Help, .. }) => say(&config::help_text()),
        Ok(Startup { mode: Mode::Version, .. }) => say(&config::version_text()),
        Ok(Startup { mode: Mode::Check(path), settings, .. }) => {
            report(tools::check(&path, &settings.appenddirname))
        }
        Ok(Startup { mode: Mode::Repair(path), settings, .. }) => {
            report(tools::repair(&path, &settings.appenddirname))
        }
        Ok(Startup { mode: Mode::Import(path), settings, .. }) => report(import(settings, &path)),
        Ok(startup) => match start(startup) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => complain(&error),
        },
    }
}

/// Prints what a tool has found or done.
fn report(verdict: Result<tools::Verdict, String>) -> ExitCode {
    match verdict {
        Ok(verdict) if verdict.is_good => say(&verdict.text),
        Ok(verdict) => {
            say(&verdict.text);
            ExitCode::FAILURE
        }
        Err(error) => complain(&error),
    }
}

/// Reads a dump of the original into the data directory.
fn import(mut settings: Settings, dump: &std::path::Path) -> Result<tools::Verdict, String> {
    settings.dir = std::path::absolute(&settings.dir).map_err(|error| error.to_string())?.display().to_string();
    logging::start(settings.loglevel, None);
    let (shutdown, _asked) = mpsc::unbounded_channel();
    let clock = Clock::new();
    let shell = Arc::new(ServerShell::new(None, 0, shutdown, settings.dir.clone()));
    let node = make_node(settings, &shell, clock)?;
    let own = recognise(&node)?;
    tools::import(&node, clock, dump, own)
}

#[allow(clippy::print_stdout, reason = "what was asked for goes to standard output")]
fn say(text: &str) -> ExitCode {
    print!("{text}");
    ExitCode::SUCCESS
}

#[allow(clippy::print_stderr, reason = "before the log is set up, the operator looks here")]
fn complain(text: &str) -> ExitCode {
    eprintln!("discnt-server: {text}");
    ExitCode::FAILURE
}

/// Sets the process up and runs the server to its end.
fn start(startup: Startup) -> Result<(), String> {
    let mut settings = startup.settings;
    if settings.daemonize && process::go_to_background()? {
        return Ok(());
    }
    let dir = settings.dir.clone();
    let config_file = startup.config_file.map(|path| std::path::absolute(&path).unwrap_or(path));
    std::env::set_current_dir(&dir).map_err(|error| format!("can't change to 'dir {dir}': {error}"))?;
    if let Ok(path) = std::env::current_dir() {
        settings.dir = path.display().to_string();
    }
    logging::start(
        settings.loglevel,
        (!settings.logfile.is_empty()).then(|| settings.logfile.clone().into()),
    );
    log::info!("Discnt {} starts, PID: {}", env!("CARGO_PKG_VERSION"), std::process::id());
    match &config_file {
        Some(path) => log::info!("configuration file: {}", path.display()),
        None => log::info!("no configuration file given; defaults and options apply"),
    }
    let pid_file = process::PidFile::write(&settings);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| format!("can't start the runtime: {error}"))?;
    let result = runtime.block_on(run(settings, config_file));
    drop(pid_file);
    match &result {
        Ok(()) => log::info!("bye"),
        Err(error) => log::error!("{error}"),
    }
    result
}

/// Runs the node until a signal or SHUTDOWN ends it.
async fn run(settings: Settings, config_file: Option<std::path::PathBuf>) -> Result<(), String> {
    let listeners = Listeners::open(&settings)?;
    let io_threads = match settings.io_threads {
        0 => std::thread::available_parallelism().map_or(1, usize::from),
        threads => usize::from(threads),
    };
    let (port, supervised) = (settings.port, settings.supervised);
    let (shutdown, mut asked) = mpsc::unbounded_channel();
    let shell = Arc::new(ServerShell::new(config_file, io_threads, shutdown, settings.dir.clone()));
    let clock = Clock::new();
    let node = make_node(settings, &shell, clock)?;
    let own = recognise(&node)?;
    let (disk, disk_thread, loaded) = Disk::start(&node, clock, io_threads, own)?;
    let is_stopping = Arc::new(AtomicBool::new(false));
    let (workers, threads) = start_workers(io_threads, &node, &disk, &shell, clock, &is_stopping)?;
    let save = tokio::select! {
        failed = say_when_loaded(loaded, port, supervised) => return Err(failed),
        () = listeners.accept(&node, &workers) => SaveOnExit::AsConfigured,
        () = run_timers(&node, &disk, clock) => SaveOnExit::AsConfigured,
        () = signalled(&node, &disk) => SaveOnExit::AsConfigured,
        save = asked_to_stop(&mut asked) => save,
    };
    process::notify_supervisor(supervised, "STOPPING=1");
    listeners.clean_up();
    drop(listeners);
    let was_loading = node.is_loading();
    stop(&node, &is_stopping, workers, threads).await;
    if !was_loading {
        disk.end(save);
        let ended = tokio::task::spawn_blocking(move || disk_thread.join()).await;
        ended.map_err(|error| error.to_string())?.expect("a thread that panics takes the process with it");
    }
    Ok(())
}

fn make_node(settings: Settings, shell: &Arc<ServerShell>, clock: Clock) -> Result<Arc<Node>, String> {
    Ok(Arc::new(Node::new(NodeConfig {
        id: NodeId(process::random()?),
        run_id: process::random()?,
        hash_seed: u64::from_le_bytes(process::random()?),
        settings,
        now: clock.now(),
        shell: shell.clone(),
    })))
}

/// The identity that the nodes file gives the node, if there is one.
fn recognise(node: &Node) -> Result<Option<NodeId>, String> {
    let settings = node.settings();
    let path = std::path::Path::new(&settings.dir).join(&settings.cluster_config_file);
    match std::fs::read(&path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(format!("can't read {}: {error}", path.display())),
        Ok(bytes) => {
            node.recognise(&bytes).map(Some).map_err(|error| format!("{}: {error}", path.display()))
        }
    }
}

/// Says that the node is ready once its counters are loaded, and goes on for ever; returns why they can't be.
async fn say_when_loaded(
    loaded: oneshot::Receiver<Result<(), String>>,
    port: u16,
    supervised: Supervised,
) -> String {
    match loaded.await {
        Ok(Ok(())) => {
            log::info!("The server is now ready to accept connections on port {port}");
            process::notify_supervisor(supervised, "READY=1");
            std::future::pending().await
        }
        Ok(Err(error)) => error,
        Err(_) => "the disk's thread has ended".to_owned(),
    }
}

type Threads = Vec<std::thread::JoinHandle<()>>;

/// One thread per core, or as many as configured.
fn start_workers(
    count: usize,
    node: &Arc<Node>,
    disk: &Arc<Disk>,
    shell: &Arc<ServerShell>,
    clock: Clock,
    is_stopping: &Arc<AtomicBool>,
) -> Result<(Vec<UnboundedSender<Accepted>>, Threads), String> {
    let (mut workers, mut threads) = (Vec::new(), Vec::new());
    for number in 0..count {
        let (sender, receiver) = mpsc::unbounded_channel();
        let (node, disk) = (node.clone(), disk.clone());
        let (shell, is_stopping) = (shell.clone(), is_stopping.clone());
        let thread = std::thread::Builder::new()
            .name(format!("io-{number}"))
            .spawn(move || worker::run(number, (node, disk), shell, clock, is_stopping, receiver))
            .map_err(|error| format!("can't start an I/O thread: {error}"))?;
        workers.push(sender);
        threads.push(thread);
    }
    Ok((workers, threads))
}

/// Does what is due in the node, and tells it how much memory is in use.
async fn run_timers(node: &Node, disk: &Disk, clock: Clock) {
    loop {
        node.note_used_memory(shell::allocated_bytes());
        let now = clock.now();
        disk.watch(node, now.monotonic);
        node.run_timers(now);
        let left = Duration::from_micros(node.deadline().since(clock.now().monotonic).0);
        tokio::time::sleep(left.min(MEMORY_SAMPLE_INTERVAL)).await;
    }
}

/// Returns when SIGTERM or SIGINT has come and what must be saved is.
async fn signalled(node: &Node, disk: &Disk) {
    let mut terminate = signal(SignalKind::terminate()).expect("SIGTERM can be handled");
    let mut interrupt = signal(SignalKind::interrupt()).expect("SIGINT can be handled");
    loop {
        tokio::select! {
            _ = terminate.recv() => log::warn!("SIGTERM received, stopping"),
            _ = interrupt.recv() => log::warn!("SIGINT received, stopping"),
        }
        if node.is_loading() {
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
async fn asked_to_stop(asked: &mut UnboundedReceiver<SaveOnExit>) -> SaveOnExit {
    match asked.recv().await {
        Some(save) => {
            log::warn!("SHUTDOWN received, stopping");
            save
        }
        None => std::future::pending().await,
    }
}

/// Answers what was received, then ends the workers.
async fn stop(
    node: &Arc<Node>,
    is_stopping: &AtomicBool,
    workers: Vec<UnboundedSender<Accepted>>,
    threads: Threads,
) {
    is_stopping.store(true, Ordering::Release);
    drop(workers);
    node.clients.all().iter().for_each(|client| client.wake());
    let joined =
        tokio::task::spawn_blocking(move || threads.into_iter().for_each(|thread| drop(thread.join())));
    if tokio::time::timeout(STOP_LIMIT, joined).await.is_err() {
        log::warn!("some clients did not take their last replies within {STOP_LIMIT:?}");
    }
}
