//! A server of a few lines, for tests: it answers what each test's own function says, and remembers every
//! request with the number of the connection that it came on.

#![allow(dead_code, reason = "each test file uses a part of it")]

use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::process::{Command, Output, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;

/// What the server does about one request.
pub(crate) enum Answer {
    /// These bytes.
    Reply(&'static [u8]),
    /// These bytes, and the end of the connection.
    ReplyAndClose(&'static [u8]),
}

/// Requests in order, with their connections.
pub(crate) type Log = Arc<Mutex<Vec<(usize, String)>>>;

/// A server on a free port.
pub(crate) struct Server {
    pub(crate) port: String,
    log: Log,
}

impl Server {
    /// Starts a server whose `answer` gets the connection's number, from 0, and the request's words.
    pub(crate) fn start(answer: impl Fn(usize, &str) -> Answer + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port().to_string();
        let log = Log::default();
        let (answer, its_log) = (Arc::new(answer), Arc::clone(&log));
        thread::spawn(move || {
            for (number, stream) in listener.incoming().enumerate() {
                let (answer, log) = (Arc::clone(&answer), Arc::clone(&its_log));
                let stream = stream.unwrap();
                thread::spawn(move || {
                    let writer = stream.try_clone().unwrap();
                    serve(number, BufReader::new(stream), writer, &*answer, &log);
                });
            }
        });
        Self { port, log }
    }

    /// All requests so far: `connection:words`.
    pub(crate) fn requests(&self) -> Vec<String> {
        self.log.lock().unwrap().iter().map(|(number, words)| format!("{number}:{words}")).collect()
    }

    /// The tool, told to talk to this server.
    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = tool(&["-p", &self.port]);
        command.args(args);
        command
    }

    /// Runs the tool to its end without any input.
    pub(crate) fn run(&self, args: &[&str]) -> Output {
        finish(self.command(args), b"")
    }

    /// Runs the tool to its end.
    pub(crate) fn run_with_input(&self, args: &[&str], input: &[u8]) -> Output {
        finish(self.command(args), input)
    }
}

/// Answers the requests of one connection.
pub(crate) fn serve(
    number: usize,
    mut reader: impl BufRead,
    mut writer: impl Write,
    answer: &dyn Fn(usize, &str) -> Answer,
    log: &Log,
) {
    while let Some(words) = read_request(&mut reader) {
        log.lock().unwrap().push((number, words.clone()));
        let (bytes, is_last) = match answer(number, &words) {
            Answer::Reply(bytes) => (bytes, false),
            Answer::ReplyAndClose(bytes) => (bytes, true),
        };
        if writer.write_all(bytes).is_err() || is_last {
            return;
        }
    }
}

/// Reads one array of bulks; its words with blanks between, bytes that are no text escaped.
pub(crate) fn read_request(reader: &mut impl BufRead) -> Option<String> {
    let mut number = |mark: char| {
        let mut line = String::new();
        reader.read_line(&mut line).ok().filter(|&len| len > 0)?;
        let len: usize = line.trim_end().strip_prefix(mark).unwrap().parse().unwrap();
        let mut bytes = Vec::new();
        if mark == '$' {
            bytes.resize(len + 2, 0);
            reader.read_exact(&mut bytes).unwrap();
            bytes.truncate(len);
        }
        Some((len, bytes.escape_ascii().to_string()))
    };
    let (count, _) = number('*')?;
    let words: Option<Vec<String>> = (0..count).map(|_| number('$').map(|(_, word)| word)).collect();
    Some(words?.join(" "))
}

/// The tool with pipes, and without the variables of whoever runs the tests.
pub(crate) fn tool(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_discnt-cli"));
    command.args(args);
    for variable in ["DISCNT_CLI_AUTH", "REDISCLI_AUTH"] {
        command.env_remove(variable);
    }
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// Runs a tool to its end.
pub(crate) fn finish(mut command: Command, input: &[u8]) -> Output {
    let mut child = command.spawn().unwrap();
    // A tool that does not read its input to the end is free to do so.
    let _ = child.stdin.take().unwrap().write_all(input);
    child.wait_with_output().unwrap()
}
