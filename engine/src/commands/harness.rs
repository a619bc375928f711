//! For tests: a node without a process around it, and clients that talk to it in words.

use crate::clients::Peer;
use crate::command::{CommandSpec, Outcome};
use crate::error::ClientError;
use crate::ids::NodeId;
use crate::node::{Node, NodeConfig, ProcessInfo, Shell, TaskResult};
use crate::session::Session;
use crate::settings::{Secret, Settings};
use crate::time::{Micros, Now};
use resp::Request;
use std::sync::Arc;

/// A shell that knows nothing and accepts everything.
struct NoShell;

impl Shell for NoShell {
    fn process(&self) -> ProcessInfo {
        ProcessInfo::default()
    }

    fn settings_changed(&self, _: &Settings) -> Result<(), String> {
        Ok(())
    }

    fn warn(&self, _: &str) {}

    fn info(&self, _: &str) {}
}

/// A node, its time, and connections by number. The first, 0, is there from the start.
pub(crate) struct Harness {
    pub(crate) node: Node,
    pub(crate) now: Now,
    sessions: Vec<Session>,
}

impl Harness {
    pub(crate) fn new() -> Harness {
        Harness::with(Settings::default())
    }

    pub(crate) fn with(settings: Settings) -> Harness {
        let now = Now { monotonic: Micros::from_secs(100), unix: Micros::from_secs(1_795_354_504) };
        let node = Node::new(NodeConfig {
            id: NodeId([7; 20]),
            run_id: [1; 20],
            hash_seed: 1,
            settings,
            now,
            shell: Arc::new(NoShell),
        });
        let mut harness = Harness { node, now, sessions: Vec::new() };
        harness.connect();
        harness
    }

    /// A further connection; its number.
    pub(crate) fn connect(&mut self) -> usize {
        let number = self.sessions.len();
        let peer = Peer::Tcp {
            addr: format!("127.0.0.1:{}", 4_242 + number),
            local: String::from("127.0.0.1:5262"),
        };
        self.sessions.push(self.node.connect(peer, 9, self.now, Box::new(|| ())));
        number
    }

    pub(crate) fn session(&mut self, number: usize) -> &mut Session {
        &mut self.sessions[number]
    }

    /// Lets time pass.
    pub(crate) fn wait(&mut self, duration: Micros) {
        self.now.monotonic = self.now.monotonic + duration;
        self.now.unix = self.now.unix + duration;
        self.node.run_timers(self.now);
    }

    /// What the first connection gets for these words, separated by blanks: RESP with `\r\n` as `|`.
    pub(crate) fn run(&mut self, words: &str) -> String {
        self.run_on(0, words)
    }

    /// The same on any connection.
    pub(crate) fn run_on(&mut self, number: usize, words: &str) -> String {
        let words: Vec<&[u8]> = words.split(' ').map(str::as_bytes).collect();
        self.request(number, &words).0
    }

    /// The same with any bytes, and what the connection does next.
    pub(crate) fn request(&mut self, number: usize, words: &[&[u8]]) -> (String, Outcome) {
        let (settings, mut out) = (self.node.settings(), Vec::new());
        let session = &mut self.sessions[number];
        let outcome = self.node.execute(session, Request::from_args(words), &settings, self.now, &mut out);
        (String::from_utf8_lossy(&out).replace("\r\n", "|"), outcome)
    }

    /// Ends the first connection's batch of commands, which took that long.
    pub(crate) fn spend(&mut self, nanos: u64) {
        let settings = self.node.settings();
        self.node.note_time(&mut self.sessions[0], &settings, nanos, self.now);
    }

    /// What a connection gets when a task is done.
    pub(crate) fn finish(&mut self, number: usize, result: TaskResult) -> String {
        let mut out = Vec::new();
        self.node.finish(&self.sessions[number], result, &mut out);
        String::from_utf8_lossy(&out).replace("\r\n", "|")
    }

    /// What others have sent to a connection since the last look.
    pub(crate) fn received(&mut self, number: usize) -> String {
        let mut out = Vec::new();
        self.sessions[number].client().drain_outbox(&mut out);
        String::from_utf8_lossy(&out).replace("\r\n", "|")
    }

    /// Sets the password as CONFIG SET does.
    pub(crate) fn set_password(&mut self, password: &str) {
        let mut settings = Settings::clone(&self.node.settings());
        settings.requirepass = Secret(password.into());
        self.node.change_settings(settings).expect("the shell of tests accepts everything");
    }
}

/// Every command and subcommand with the name that it goes by.
pub(crate) fn all_specs() -> Vec<(String, &'static CommandSpec)> {
    let mut specs = Vec::new();
    for spec in super::all() {
        specs.push((spec.name.to_owned(), spec));
        specs.extend(spec.subcommands.iter().map(|sub| (format!("{}|{}", spec.name, sub.name), sub)));
    }
    specs
}

#[test]
fn the_harness_speaks_resp() {
    let mut harness = Harness::new();
    assert_eq!(harness.run("INCR a"), "$1|1|");
    assert_eq!(
        harness.run("NOSUCH"),
        format!("-{}|", ClientError::quoting("ERR unknown command '", b"NOSUCH", "'"))
    );
}
