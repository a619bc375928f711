//! The counter server: threads, sockets, files and signals around the engine.
//!
//! It decides nothing that matters to a count. The main thread accepts connections, runs the node's timers and
//! waits for signals; `worker` threads serve the clients; the `bus` thread speaks with other nodes. Here is what a
//! process has only one of; `server` is what it may have several of.

mod bus;
mod calm;
mod config;
mod connection;
mod crew;
mod disk;
mod listener;
mod local_cluster;
mod logging;
mod memory;
mod process;
mod server;
mod shell;
mod worker;

use config::{Mode, Startup};
use disk::tools;
use engine::settings::{LogLevel, Settings};
use server::{Server, ServerOptions};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    let startup = match config::load(std::env::args_os().skip(1)) {
        Err(error) => return complain(&error.to_string()),
        Ok(startup) => startup,
    };
    let ended = match startup.mode {
        Mode::Help => return say(&config::help_text()),
        Mode::Version => return say(&config::version_text()),
        Mode::Run => run_server(startup),
        Mode::Check(path) => return report(tools::check(&path, &startup.settings.appenddirname)),
        Mode::Repair(path) => return report(tools::repair(&path, &startup.settings.appenddirname)),
        Mode::Import(path) => return report(import(startup.settings, &path)),
        Mode::LocalCluster { nodes, first_port } => run_local_cluster(startup.settings, nodes, first_port),
    };
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => complain(&error),
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
fn import(mut settings: Settings, dump: &Path) -> Result<tools::Verdict, String> {
    let dir = std::path::absolute(&settings.dir).map_err(|error| error.to_string())?;
    settings.dir = dir.display().to_string();
    logging::start(settings.loglevel, None);
    server::import(settings, dump)
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
fn run_server(startup: Startup) -> Result<(), String> {
    let mut settings = startup.settings;
    check_places(&settings)?;
    if settings.daemonize && process::go_to_background(&startup.standard_input)? {
        return Ok(());
    }
    let dir = settings.dir.clone();
    let config_file = startup.config_file.map(|path| std::path::absolute(&path).unwrap_or(path));
    std::env::set_current_dir(&dir).map_err(|error| format!("can't change to 'dir {dir}': {error}"))?;
    if let Ok(path) = std::env::current_dir() {
        settings.dir = path.display().to_string();
    }
    start_logging(settings.loglevel, &settings);
    match &config_file {
        Some(path) => log::info!("configuration file: {}", path.display()),
        None => log::info!("no configuration file given; defaults and options apply"),
    }
    let result = block_on(serve(settings, config_file));
    match &result {
        Ok(()) => log::info!("bye"),
        Err(error) => log::error!("{error}"),
    }
    result
}

/// Whether the data directory and the log file can be used. Asked before the process leaves the terminal or falls silent:
/// afterwards nobody would hear of it.
fn check_places(settings: &Settings) -> Result<(), String> {
    let dir = Path::new(&settings.dir);
    std::fs::metadata(dir.join("."))
        .map_err(|error| format!("can't change to 'dir {}': {error}", settings.dir))?;
    check_log_file(settings, dir)
}

/// Whether the log file, seen from `dir`, can be written.
fn check_log_file(settings: &Settings, dir: &Path) -> Result<(), String> {
    if settings.logfile.is_empty() {
        return Ok(());
    }
    logging::open(&dir.join(&settings.logfile))
        .map(drop)
        .map_err(|error| format!("can't open the log file {}: {error}", settings.logfile))
}

/// Serves until a signal or SHUTDOWN ends it.
async fn serve(settings: Settings, config_file: Option<PathBuf>) -> Result<(), String> {
    let (port, unixsocket, supervised) = (settings.port, settings.unixsocket.clone(), settings.supervised);
    let dir = Some(PathBuf::from(&settings.dir));
    let ended = signalled();
    process::raise_descriptor_limit(settings.maxclients);
    let pidfile = settings.pidfile.clone();
    let server = Server::start(ServerOptions { settings, config_file, dir })?;
    // Only now: a second server that finds its port taken must not touch the pid file of the first.
    let pid_file = process::PidFile::write(&pidfile);
    let is_ready = || {
        // Tools around such servers look for these words, and for the port.
        if port > 0 {
            log::info!("The server is now ready to accept connections on port {port}");
        }
        if !unixsocket.is_empty() {
            log::info!("The server is now ready to accept connections at {unixsocket}");
        }
        process::notify_supervisor(supervised, "READY=1");
    };
    let (sender, asked_to_end) = mpsc::unbounded_channel();
    let result = tokio::select! {
        result = server.run(is_ready, asked_to_end) => result,
        () = pass_on_signals(ended, sender) => unreachable!("it goes on for ever"),
    };
    process::notify_supervisor(supervised, "STOPPING=1");
    drop(pid_file);
    result?;
    Ok(())
}

/// Asks the server to end at every SIGTERM and SIGINT: the first one may have been refused.
async fn pass_on_signals(first: impl Future<Output = ()>, server: mpsc::UnboundedSender<()>) {
    first.await;
    loop {
        server.send(()).ok();
        signalled().await;
    }
}

fn run_local_cluster(settings: Settings, nodes: u16, first_port: u16) -> Result<(), String> {
    check_log_file(&settings, Path::new(""))?;
    start_logging(local_cluster::log_level(&settings), &settings);
    block_on(async move { local_cluster::run(settings, nodes, first_port, signalled()).await })
}

fn start_logging(level: LogLevel, settings: &Settings) {
    logging::start(level, (!settings.logfile.is_empty()).then(|| settings.logfile.clone().into()));
    log::info!("Discnt {} starts, PID: {}", env!("CARGO_PKG_VERSION"), std::process::id());
}

fn block_on(future: impl Future<Output = Result<(), String>>) -> Result<(), String> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| format!("can't start the runtime: {error}"))?;
    let result = runtime.block_on(future);
    // Threads that have not ended within their limits (a client may still sleep) end with the process.
    runtime.shutdown_background();
    result
}

/// Returns when SIGTERM or SIGINT has come since the call; needs a runtime around it. The end of a terminal (SIGHUP) is no
/// reason to stop.
fn signalled() -> impl Future<Output = ()> {
    let mut terminate = signal(SignalKind::terminate()).expect("SIGTERM can be handled");
    let mut interrupt = signal(SignalKind::interrupt()).expect("SIGINT can be handled");
    let hangup = signal(SignalKind::hangup()).expect("SIGHUP can be handled");
    async move {
        tokio::select! {
            _ = terminate.recv() => log::warn!("SIGTERM received, stopping"),
            _ = interrupt.recv() => log::warn!("SIGINT received, stopping"),
        }
        drop(hangup);
    }
}
