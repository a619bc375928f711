//! For tests: the built server as a process of its own, on a free port and in a directory that goes away with it.

#![allow(dead_code, reason = "each test file uses a part of it")]

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// How long anything may take before a test gives up.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// Ports above leave no room for the bus, which is 10,000 higher.
const MAX_PORT: u16 = 55_535;

/// How often another port is tried when somebody was faster.
const MAX_STARTS: usize = 5;

/// A running server. It ends with the test.
pub(crate) struct Server {
    pub(crate) port: u16,
    dir: TempDir,
    child: Child,
    log: Receiver<String>,
}

impl Server {
    /// Starts a server with these words behind its port and directory.
    pub(crate) fn start(words: &[&str]) -> Server {
        Server::start_with_file("", words)
    }

    /// Starts a server with a configuration file, unless its text is empty, and these words.
    pub(crate) fn start_with_file(text: &str, words: &[&str]) -> Server {
        for _ in 0..MAX_STARTS {
            if let Some(server) = Server::try_start(text, words) {
                return server;
            }
        }
        panic!("the server did not start {MAX_STARTS} times");
    }

    fn try_start(text: &str, words: &[&str]) -> Option<Server> {
        let dir = TempDir::new().unwrap();
        let port = free_port();
        let mut command = program();
        if !text.is_empty() {
            std::fs::write(dir.path().join("discnt.conf"), text).unwrap();
            command.arg(dir.path().join("discnt.conf"));
        }
        command.args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--pidfile", ""]);
        command.arg("--dir").arg(dir.path()).args(words);
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
        let output = child.stdout.take().unwrap();
        let (sender, log) = channel();
        thread::spawn(move || {
            BufReader::new(output).lines().map_while(Result::ok).for_each(|line| drop(sender.send(line)));
        });
        let mut server = Server { port, dir, child, log };
        server.is_logged("ready to accept connections").then_some(server)
    }

    /// Waits until a line of the log holds this text; false when the server ends before.
    pub(crate) fn is_logged(&mut self, text: &str) -> bool {
        let end = Instant::now() + PATIENCE;
        while let Ok(line) = self.log.recv_timeout(end.saturating_duration_since(Instant::now())) {
            if line.contains(text) {
                return true;
            }
        }
        false
    }

    /// The data directory.
    pub(crate) fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// The configuration file of `start_with_file`.
    pub(crate) fn config_file(&self) -> PathBuf {
        self.dir().join("discnt.conf")
    }

    /// The URL for the redis crate, with what follows the slash.
    pub(crate) fn url(&self, rest: &str) -> String {
        format!("redis://127.0.0.1:{}/{rest}", self.port)
    }

    /// A connection of the redis crate, with its defaults.
    pub(crate) fn connect(&self) -> redis::Connection {
        redis::Client::open(self.url("")).unwrap().get_connection().unwrap()
    }

    /// A bare connection.
    pub(crate) fn socket(&self) -> TcpStream {
        let socket = TcpStream::connect(("127.0.0.1", self.port)).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        socket
    }

    /// Sends a signal.
    pub(crate) fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(i32::try_from(self.child.id()).unwrap()), signal).unwrap();
    }

    /// Waits for the end of the process.
    pub(crate) fn wait(&mut self) -> ExitStatus {
        let end = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(Instant::now() < end, "the server does not end");
            thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended already.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// The server's program.
pub(crate) fn program() -> Command {
    Command::new(env!("CARGO_BIN_EXE_discnt-server"))
}

/// Runs the server with these words and this standard input, for starts that are to fail.
pub(crate) fn run(words: &[&str], input: &str) -> Output {
    let mut child = program()
        .args(words)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // A server that does not read its input is free to do so.
    drop(child.stdin.take().unwrap().write_all(input.as_bytes()));
    let end = Instant::now() + PATIENCE;
    while child.try_wait().unwrap().is_none() {
        if Instant::now() > end {
            child.kill().unwrap();
            panic!("the server runs, but was to end: {words:?}");
        }
        thread::sleep(Duration::from_millis(5));
    }
    child.wait_with_output().unwrap()
}

/// A port that was free a moment ago, with room for the bus.
pub(crate) fn free_port() -> u16 {
    loop {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        if port <= MAX_PORT && TcpListener::bind(("127.0.0.1", port + 10_000)).is_ok() {
            return port;
        }
    }
}

/// All that comes until the other side closes.
pub(crate) fn read_to_end(mut socket: impl Read) -> String {
    let mut text = Vec::new();
    socket.read_to_end(&mut text).unwrap();
    String::from_utf8(text).unwrap()
}
