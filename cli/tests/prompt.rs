//! The prompt on a terminal (a pseudo-terminal without a controlling process, so Ctrl-C outside of line editing
//! is sent as a signal by the test).

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod support;

use std::fs::File;
use std::io::{Read, Write};
use std::path::PathBuf;
use std::process::{Child, Command};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use nix::pty::{Winsize, openpty};
use support::Answer::{Reply, ReplyAndClose};
use support::{Answer, Server, tool};

/// How long a test waits for a text before it fails.
const PATIENCE: Duration = Duration::from_secs(20);

/// The tool on a terminal of its own.
struct Terminal {
    child: Child,
    keyboard: File,
    screen: Arc<Mutex<Vec<u8>>>,
    /// What of the screen has been looked at.
    seen: usize,
    history: PathBuf,
}

impl Terminal {
    fn start(server: &Server, name: &str, args: &[&str]) -> Self {
        let size = Winsize { ws_row: 24, ws_col: 100, ws_xpixel: 0, ws_ypixel: 0 };
        let pty = openpty(&size, None).unwrap();
        let history = std::env::temp_dir().join(format!("discnt-cli-{name}-{}", std::process::id()));
        let mut command = tool(&["-p", &server.port]);
        command.args(args).env("TERM", "xterm").env("DISCNTCLI_HISTFILE", &history).env_remove("NO_COLOR");
        command
            .stdin(pty.slave.try_clone().unwrap())
            .stdout(pty.slave.try_clone().unwrap())
            .stderr(pty.slave);
        let child = command.spawn().unwrap();
        drop(command);
        let screen = Arc::new(Mutex::new(Vec::new()));
        let (mut output, its_screen) = (File::from(pty.master.try_clone().unwrap()), Arc::clone(&screen));
        thread::spawn(move || {
            let mut bytes = [0; 4096];
            while let Ok(len) = output.read(&mut bytes) {
                its_screen.lock().unwrap().extend(&bytes[..len]);
            }
        });
        Self { child, keyboard: File::from(pty.master), screen, seen: 0, history }
    }

    /// Types, then waits for a text behind what was waited for before.
    fn type_and_see(&mut self, keys: &str, text: &str) {
        self.keyboard.write_all(keys.as_bytes()).unwrap();
        self.see(text);
    }

    fn see(&mut self, text: &str) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let screen = self.screen.lock().unwrap().clone();
            let rest = &screen[self.seen..];
            if let Some(at) = rest.windows(text.len()).position(|window| window == text.as_bytes()) {
                self.seen += at + text.len();
                return;
            }
            assert!(Instant::now() < deadline, "{text:?} is not in {:?}", String::from_utf8_lossy(rest));
            thread::sleep(Duration::from_millis(5));
        }
    }

    fn interrupt(&self) {
        let id = self.child.id().to_string();
        assert!(Command::new("kill").args(["-INT", &id]).status().unwrap().success());
    }

    /// Types `quit`; returns the lines of the history file.
    fn quit(mut self) -> Vec<String> {
        self.keyboard.write_all(b"quit\r").unwrap();
        assert_eq!(self.child.wait().unwrap().code(), Some(0));
        let lines = std::fs::read_to_string(&self.history).unwrap();
        std::fs::remove_file(&self.history).unwrap();
        lines.lines().map(str::to_owned).collect()
    }
}

/// A server that knows GET and CONFIG, and says so.
fn answer(_: usize, words: &str) -> Answer {
    match words {
        "COMMAND DOCS" => Reply(
            b"*4\r\n$3\r\nget\r\n*4\r\n$7\r\nsummary\r\n$8\r\nReads it\r\n$9\r\narguments\r\n*2\r\n\
              *4\r\n$4\r\nname\r\n$3\r\nkey\r\n$4\r\ntype\r\n$3\r\nkey\r\n\
              *8\r\n$4\r\nname\r\n$5\r\nstate\r\n$4\r\ntype\r\n$10\r\npure-token\r\n\
              $5\r\ntoken\r\n$5\r\nSTATE\r\n$5\r\nflags\r\n*1\r\n+optional\r\n\
              $6\r\nconfig\r\n*2\r\n$11\r\nsubcommands\r\n*2\r\n$10\r\nconfig|get\r\n*0\r\n",
        ),
        "GET k" | "get k" => Reply(b"$1\r\n5\r\n"),
        "SUBSCRIBE k" => {
            Reply(b"*3\r\n$9\r\nsubscribe\r\n$1\r\nk\r\n:1\r\n*3\r\n+message\r\n+k\r\n$2\r\n77\r\n")
        }
        "SILENCE" => Reply(b""),
        "CLOSE" => ReplyAndClose(b""),
        "AUTH sesame" => Reply(b"+OK\r\n"),
        _ => Reply(b"-ERR no such thing\r\n"),
    }
}

#[test]
fn the_prompt_hints_completes_and_answers() {
    let server = Server::start(answer);
    let mut terminal = Terminal::start(&server, "hints", &[]);
    terminal.see(&format!("127.0.0.1:{}> ", server.port));
    terminal.type_and_see("ge\t", "\x1b[90m key [STATE]\x1b[0m");
    terminal.type_and_see(" k", "\x1b[90m [STATE]\x1b[0m");
    terminal.type_and_see("\r", "\r\n\"5\"\r\n");
    terminal.type_and_see("conf\t \t", "config get");
    // Ctrl-C at the prompt drops the line only.
    terminal.type_and_see("\x03", "> ");
    terminal.type_and_see("help get\r", "GET key [STATE]\r\n  Reads it\r\n");
    terminal.type_and_see("frob\r", "\x1b[31m(error) ERR no such thing\x1b[0m");
    // Lines typed ahead or pasted together are run one after the other.
    terminal.type_and_see("frob\rGET k\r", "no such thing");
    terminal.see("\"5\"");
    terminal.type_and_see("\x1b[200~frob\rGET k\r\x1b[201~\r", "no such thing");
    terminal.see("\"5\"");
    terminal.type_and_see("2 GET k\r", "\"5\"\r\n\"5\"\r\n");
    terminal.type_and_see("get \"k\r", "the quote at column 5 is not closed");
    assert!(terminal.quit().contains(&"frob".to_owned()));
    assert_eq!(server.requests()[..2], ["0:COMMAND DOCS", "0:get k"].map(str::to_owned));
}

#[test]
fn a_lost_server_is_found_again_and_passwords_stay_out_of_the_history() {
    let server = Server::start(answer);
    let mut terminal = Terminal::start(&server, "lost", &["--no-color"]);
    terminal.type_and_see("AUTH sesame\r", "OK\r\n");
    terminal.type_and_see("CLOSE\r", "may or may not have been executed");
    terminal.see("not connected> ");
    terminal.type_and_see("GET k\r", "\"5\"");
    terminal.see(&format!("127.0.0.1:{}> ", server.port));
    let history = terminal.quit();
    assert!(history.contains(&"GET k".to_owned()));
    assert!(!history.iter().any(|line| line.contains("sesame")), "{history:?}");
    let requests = server.requests();
    let reconnected: Vec<&str> =
        requests.iter().filter_map(|request| request.strip_prefix("1:")).take(2).collect();
    assert_eq!(reconnected, ["AUTH sesame", "GET k"]);
}

#[test]
fn ctrl_c_ends_what_is_running_and_not_the_prompt() {
    let server = Server::start(answer);
    let mut terminal = Terminal::start(&server, "ctrl-c", &[]);
    terminal.type_and_see("SUBSCRIBE k\r", "\"77\"\r\n");
    terminal.interrupt();
    terminal.see("not connected> ");
    terminal.type_and_see("SILENCE\r", "\r\n");
    while !server.requests().iter().any(|request| request.ends_with("SILENCE")) {
        thread::sleep(Duration::from_millis(5));
    }
    terminal.interrupt();
    terminal.see("Interrupted; the command may or may not have been executed");
    terminal.type_and_see("GET k\r", "\"5\"");
    terminal.quit();
}
