//! A real server on a free port, and a client that talks to it byte by byte.
//!
//! Nothing here waits for a time to pass: a server counts as started when it says so, and a reply is awaited until
//! `PATIENCE` is over, which only a failing test reaches.

#![allow(dead_code, reason = "each test file uses its part")]
#![allow(
    clippy::unwrap_used,
    clippy::print_stderr,
    reason = "helpers of tests are test code; seeds are told"
)]

use socket2::{Domain, Socket, Type};
use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::ops::Range;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc;
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// How long anything may take before a test fails.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// From a port to its bus port.
const BUS_PORT_OFFSET: u16 = 10_000;

/// Ports of servers: neither these nor their bus ports are among those that Linux gives to clients' ends (32768 and up).
const PORTS: Range<u16> = 12_000..22_000;

/// How often another port is tried when somebody else was faster.
const PORT_TRIES: usize = 10;

/// A server of our own, ended when dropped.
pub(crate) struct Server {
    child: Child,
    pub(crate) port: u16,
    pub(crate) dir: TempDir,
}

impl Server {
    /// One with defaults.
    pub(crate) fn start() -> Server {
        Server::with(&[])
    }

    /// One with these options.
    pub(crate) fn with(options: &[&str]) -> Server {
        let dir = TempDir::new().unwrap();
        for _ in 0..PORT_TRIES {
            let port = free_port();
            if let Some(child) = spawn(port, dir.path(), &["--bind", "127.0.0.1"], options) {
                return Server { child, port, dir };
            }
        }
        panic!("no server with {options:?} became ready");
    }

    /// One with this configuration file; it names neither a port nor a directory.
    pub(crate) fn from_file(file: &Path) -> Server {
        let dir = TempDir::new().unwrap();
        for _ in 0..PORT_TRIES {
            let port = free_port();
            let mut command = Command::new(env!("CARGO_BIN_EXE_discnt-server"));
            command.arg(file).args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--pidfile", ""]);
            command.arg("--dir").arg(dir.path());
            if let Some(child) = await_ready(command) {
                return Server { child, port, dir };
            }
        }
        panic!("no server with {} became ready", file.display());
    }

    /// A connection to it.
    pub(crate) fn connect(&self) -> Conn {
        Conn::new(TcpStream::connect(("127.0.0.1", self.port)).unwrap())
    }

    pub(crate) fn pid(&self) -> i32 {
        i32::try_from(self.child.id()).unwrap()
    }

    /// Resident memory of the process, bytes.
    pub(crate) fn resident_bytes(&self) -> u64 {
        let text = std::fs::read_to_string(format!("/proc/{}/statm", self.pid())).unwrap();
        text.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 4_096
    }

    /// Sends a signal by name.
    pub(crate) fn signal(&self, name: &str) {
        let status = Command::new("kill").args(["-s", name, &self.pid().to_string()]).status().unwrap();
        assert!(status.success());
    }

    /// Waits for the process to end by itself.
    pub(crate) fn wait(&mut self) -> ExitStatus {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(Instant::now() < deadline, "the server does not end");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Ends it with SIGTERM and starts it again in the same directory; returns when it can be connected to, be it still
    /// loading.
    pub(crate) fn start_again(&mut self) {
        self.signal("TERM");
        assert!(self.wait().success());
        let mut command = command(self.port, self.dir.path(), &["--bind", "127.0.0.1"], &[]);
        self.child = command.stdout(Stdio::null()).spawn().unwrap();
        eventually("the server takes connections again", || {
            TcpStream::connect(("127.0.0.1", self.port)).is_ok()
        });
    }

    /// Fails if the process has ended.
    pub(crate) fn assert_up(&mut self) {
        assert!(self.child.try_wait().unwrap().is_none(), "the server has ended");
        assert_eq!(self.connect().run("PING"), "+PONG|");
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// A port that nobody has, nor its bus port, and that no other test of this process has been given.
pub(crate) fn free_port() -> u16 {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    loop {
        // Each process begins elsewhere.
        let number = std::process::id().wrapping_mul(61).wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed));
        let port = PORTS.start + (number % u32::from(PORTS.end - PORTS.start)) as u16;
        if [port, port + BUS_PORT_OFFSET].into_iter().all(is_free) {
            return port;
        }
    }
}

/// Without listening there: another test may be waiting for its own server to listen, and would be taken in by this.
fn is_free(port: u16) -> bool {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.set_reuse_address(true).unwrap();
    socket.bind(&SocketAddr::from(([127, 0, 0, 1], port)).into()).is_ok()
}

/// The command line of a server.
pub(crate) fn command(port: u16, dir: &Path, bind: &[&str], options: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_discnt-server"));
    command.args(["--port", &port.to_string()]).args(bind).arg("--dir").arg(dir);
    command.args(["--pidfile", ""]).args(options);
    command
}

/// Starts a server and waits until it is ready; none if it ended before.
pub(crate) fn spawn(port: u16, dir: &Path, bind: &[&str], options: &[&str]) -> Option<Child> {
    await_ready(command(port, dir, bind, options))
}

/// Starts a server and waits until it is ready; none if it ended before.
pub(crate) fn await_ready(mut command: Command) -> Option<Child> {
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::inherit()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let (ready, is_ready) = mpsc::channel();
    // Goes on reading for as long as the server lives: a full pipe would stop its log.
    std::thread::spawn(move || {
        while let Some(Ok(line)) = lines.next() {
            if line.contains("ready to accept connections") {
                ready.send(()).ok();
            }
        }
    });
    match is_ready.recv_timeout(PATIENCE) {
        Ok(()) => Some(child),
        Err(_) => {
            child.kill().ok();
            child.wait().unwrap();
            None
        }
    }
}

/// Runs a server that is to refuse its start; what it printed, and its exit status.
pub(crate) fn refused(mut command: Command) -> Output {
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let deadline = Instant::now() + PATIENCE;
    while child.try_wait().unwrap().is_none() {
        if Instant::now() > deadline {
            child.kill().unwrap();
            child.wait().unwrap();
            panic!("the server runs, but was to end: {command:?}");
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    child.wait_with_output().unwrap()
}

/// A client.
pub(crate) struct Conn<S = TcpStream> {
    pub(crate) stream: S,
    received: Vec<u8>,
    taken: usize,
}

impl Conn<TcpStream> {
    pub(crate) fn new(stream: TcpStream) -> Conn<TcpStream> {
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        stream.set_nodelay(true).unwrap();
        Conn { stream, received: Vec::new(), taken: 0 }
    }
}

impl Conn<std::os::unix::net::UnixStream> {
    pub(crate) fn unix(path: &Path) -> Conn<std::os::unix::net::UnixStream> {
        let stream = std::os::unix::net::UnixStream::connect(path).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        Conn { stream, received: Vec::new(), taken: 0 }
    }
}

impl<S: Read + Write> Conn<S> {
    /// Sends bytes as they are.
    pub(crate) fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.stream.write_all(bytes.as_ref()).unwrap();
    }

    /// Sends a request and answers its reply, each line end shown as `|`.
    pub(crate) fn request(&mut self, words: &[&[u8]]) -> String {
        self.send(request(words));
        self.reply()
    }

    /// The same for words without blanks.
    pub(crate) fn run(&mut self, words: &str) -> String {
        let words: Vec<&[u8]> = words.split(' ').map(str::as_bytes).collect();
        self.request(&words)
    }

    /// Sends bytes and answers that many replies in a row.
    pub(crate) fn raw(&mut self, bytes: impl AsRef<[u8]>, replies: usize) -> String {
        self.send(bytes);
        (0..replies).map(|_| self.reply()).collect()
    }

    /// The next reply, each line end shown as `|`.
    pub(crate) fn reply(&mut self) -> String {
        let mut reply = Vec::new();
        self.read_reply(&mut reply);
        String::from_utf8_lossy(&reply).replace("\r\n", "|")
    }

    fn read_reply(&mut self, reply: &mut Vec<u8>) {
        let line = self.line();
        reply.extend_from_slice(&line);
        reply.extend_from_slice(b"\r\n");
        let len: i64 = std::str::from_utf8(&line[1..]).unwrap_or("").parse().unwrap_or(0);
        match line[0] {
            b'$' | b'=' if len >= 0 => {
                let bytes = self.exactly(len as usize + 2);
                reply.extend_from_slice(&bytes);
            }
            b'*' | b'>' => (0..len).for_each(|_| self.read_reply(reply)),
            b'%' => (0..2 * len).for_each(|_| self.read_reply(reply)),
            _ => {}
        }
    }

    fn line(&mut self) -> Vec<u8> {
        let mut searched = 0;
        loop {
            let rest = &self.received[self.taken..];
            if let Some(at) = rest[searched..].windows(2).position(|pair| pair == b"\r\n") {
                let line = rest[..searched + at].to_vec();
                self.taken += searched + at + 2;
                return line;
            }
            searched = rest.len().saturating_sub(1);
            assert!(self.receive(), "the server closed the connection");
        }
    }

    fn exactly(&mut self, len: usize) -> Vec<u8> {
        while self.received.len() - self.taken < len {
            assert!(self.receive(), "the server closed the connection");
        }
        let bytes = self.received[self.taken..self.taken + len].to_vec();
        self.taken += len;
        bytes
    }

    /// Waits for more bytes. False at the end of the connection.
    fn receive(&mut self) -> bool {
        self.received.drain(..self.taken);
        self.taken = 0;
        let mut buf = [0; 64 * 1024];
        match self.stream.read(&mut buf) {
            Ok(0) => false,
            Ok(len) => {
                self.received.extend_from_slice(&buf[..len]);
                true
            }
            Err(error) if error.kind() == ErrorKind::ConnectionReset => false,
            Err(error) if error.kind() == ErrorKind::Interrupted => self.receive(),
            Err(error) => panic!("nothing came: {error}"),
        }
    }

    /// Asks for PONG; false if the server closes the connection instead.
    pub(crate) fn is_served(&mut self) -> bool {
        self.stream.write_all(b"PING\r\n").is_ok() && (self.receive() && self.reply() == "+PONG|")
    }

    /// Waits for the end of the connection; answers what came before.
    pub(crate) fn rest(&mut self) -> String {
        while self.receive_more() {}
        String::from_utf8_lossy(&self.received[self.taken..]).replace("\r\n", "|")
    }

    fn receive_more(&mut self) -> bool {
        let mut buf = [0; 64 * 1024];
        match self.stream.read(&mut buf) {
            Ok(0) => false,
            Ok(len) => {
                self.received.extend_from_slice(&buf[..len]);
                true
            }
            Err(error) if error.kind() == ErrorKind::ConnectionReset => false,
            Err(error) => panic!("the connection stays open: {error}"),
        }
    }

    /// Waits until the server's timer has gone round `count` times more, as a subscriber learns of it.
    pub(crate) fn await_ticks(&mut self, subscriber: &mut Conn, count: usize) {
        for _ in 0..count {
            self.run("INCR tick");
            assert!(subscriber.reply().contains("message"));
        }
    }
}

/// A request as an array of bulks.
pub(crate) fn request(words: &[&[u8]]) -> Vec<u8> {
    let mut bytes = format!("*{}\r\n", words.len()).into_bytes();
    for word in words {
        bytes.extend_from_slice(format!("${}\r\n", word.len()).as_bytes());
        bytes.extend_from_slice(word);
        bytes.extend_from_slice(b"\r\n");
    }
    bytes
}

/// Calls `is_true` until it is.
pub(crate) fn eventually(what: &str, mut is_true: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !is_true() {
        assert!(Instant::now() < deadline, "never came true: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Random numbers that a seed repeats (Vigna, splitmix64).
pub(crate) struct Random(pub(crate) u64);

impl Random {
    /// From `DISCNT_TEST_SEED`, or from the clock. The seed is printed.
    pub(crate) fn new() -> Random {
        let given = std::env::var("DISCNT_TEST_SEED").ok().and_then(|text| text.parse().ok());
        let seed = given.unwrap_or_else(|| {
            std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_nanos() as u64
        });
        eprintln!("DISCNT_TEST_SEED={seed}");
        Random(seed)
    }

    pub(crate) fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }

    /// Below `bound`.
    pub(crate) fn below(&mut self, bound: usize) -> usize {
        (self.number() % bound as u64) as usize
    }

    pub(crate) fn bytes(&mut self, len: usize) -> Vec<u8> {
        let mut bytes: Vec<u8> = (0..len.div_ceil(8)).flat_map(|_| self.number().to_le_bytes()).collect();
        bytes.truncate(len);
        bytes
    }
}
