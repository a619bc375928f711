//! The counter server: threads, sockets, files and signals around the engine.
//!
//! It decides nothing that matters to a count. The main thread accepts connections, runs the node's timers and
//! waits for signals; `worker` threads serve the clients.

mod config;
mod connection;
#[allow(dead_code, unused_imports, reason = "until the node keeps its counters on it")]
mod disk;
mod listener;
mod logging;
mod process;
mod shell;
mod worker;

use config::{Mode, Startup};
use engine::command::SaveOnExit;
use engine::settings::Settings;
use engine::{Node, NodeConfig, NodeId};
use listener::Listeners;
use shell::{Clock, ServerShell};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc::{self, UnboundedReceiver, UnboundedSender};
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
        Ok(startup) => match start(startup) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => complain(&error),
        },
    }
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
    let node = Arc::new(Node::new(NodeConfig {
        id: NodeId(process::random()?),
        run_id: process::random()?,
        hash_seed: u64::from_le_bytes(process::random()?),
        settings,
        now: clock.now(),
        shell: shell.clone(),
    }));
    let is_stopping = Arc::new(AtomicBool::new(false));
    let (workers, threads) = start_workers(io_threads, &node, &shell, clock, &is_stopping)?;
    log::info!("The server is now ready to accept connections on port {port}");
    process::notify_supervisor(supervised, "READY=1");
    tokio::select! {
        () = listeners.accept(&node, &workers) => {}
        () = run_timers(&node, clock) => {}
        () = signalled() => {}
        () = asked_to_stop(&mut asked) => {}
    }
    process::notify_supervisor(supervised, "STOPPING=1");
    listeners.clean_up();
    drop(listeners);
    stop(&node, &is_stopping, workers, threads).await;
    Ok(())
}

type Threads = Vec<std::thread::JoinHandle<()>>;

/// One thread per core, or as many as configured.
fn start_workers(
    count: usize,
    node: &Arc<Node>,
    shell: &Arc<ServerShell>,
    clock: Clock,
    is_stopping: &Arc<AtomicBool>,
) -> Result<(Vec<UnboundedSender<Accepted>>, Threads), String> {
    let (mut workers, mut threads) = (Vec::new(), Vec::new());
    for number in 0..count {
        let (sender, receiver) = mpsc::unbounded_channel();
        let (node, shell, is_stopping) = (node.clone(), shell.clone(), is_stopping.clone());
        let thread = std::thread::Builder::new()
            .name(format!("io-{number}"))
            .spawn(move || worker::run(number, node, shell, clock, is_stopping, receiver))
            .map_err(|error| format!("can't start an I/O thread: {error}"))?;
        workers.push(sender);
        threads.push(thread);
    }
    Ok((workers, threads))
}

/// Does what is due in the node, and tells it how much memory is in use.
async fn run_timers(node: &Node, clock: Clock) {
    loop {
        node.note_used_memory(shell::allocated_bytes());
        let now = clock.now();
        node.run_timers(now);
        let left = Duration::from_micros(node.deadline().since(clock.now().monotonic).0);
        tokio::time::sleep(left.min(MEMORY_SAMPLE_INTERVAL)).await;
    }
}

/// Returns when SIGTERM or SIGINT has come.
async fn signalled() {
    let mut terminate = signal(SignalKind::terminate()).expect("SIGTERM can be handled");
    let mut interrupt = signal(SignalKind::interrupt()).expect("SIGINT can be handled");
    tokio::select! {
        _ = terminate.recv() => log::warn!("SIGTERM received, stopping"),
        _ = interrupt.recv() => log::warn!("SIGINT received, stopping"),
    }
}

/// Returns when a client has asked for SHUTDOWN.
async fn asked_to_stop(asked: &mut UnboundedReceiver<SaveOnExit>) {
    match asked.recv().await {
        Some(_) => log::warn!("SHUTDOWN received, stopping"),
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
