//! Commands without a prompt: the one on the command line, or one per line from a pipe.
//!
//! An error reply does not stop a script; the exit status tells of it at the end. A server that cannot be
//! reached stops it, since the lines behind would fare no better.

use std::io::{self, BufRead, BufReader, Read};
use std::process::ExitCode;
use std::thread::sleep;

use resp::split_words;

use crate::client::{Client, Trouble, complain, is_word};
use crate::form::Form;
use crate::interactive::leave_for;
use crate::options::{Options, Repeat};

/// The longest line of a script, in bytes; a longer one ends it.
const MAX_LINE_LEN: usize = 64 * 1024 * 1024;

/// The longest last argument that `-x` reads, in bytes: what a server takes for one argument.
const MAX_ARGUMENT_LEN: usize = 512 * 1024 * 1024;

/// Why no more commands are run.
#[derive(Debug)]
enum Stop {
    Trouble(Trouble),
    Input(String),
}

/// Runs the command of the command line.
pub(crate) fn run_command(options: &Options, form: Form) -> ExitCode {
    let mut script = Script { client: Client::new(options, form, None), options, has_failed: false };
    let outcome = script.command_line();
    script.end(outcome)
}

/// Runs the commands that standard input brings.
pub(crate) fn run_pipe(options: &Options, form: Form) -> ExitCode {
    let mut script = Script { client: Client::new(options, form, None), options, has_failed: false };
    let outcome = script.lines(BufReader::new(io::stdin().lock()));
    script.end(outcome)
}

struct Script<'a> {
    client: Client,
    options: &'a Options,
    /// Whether something went wrong that was no error reply.
    has_failed: bool,
}

impl Script<'_> {
    fn command_line(&mut self) -> Result<(), Stop> {
        let mut command = self.options.command.clone();
        if self.options.has_argument_on_stdin {
            command.push(last_argument(io::stdin().lock())?);
        }
        self.repeat(&command)
    }

    fn lines(&mut self, mut input: impl BufRead) -> Result<(), Stop> {
        let mut line = Vec::new();
        for number in 1_u64.. {
            line.clear();
            let len = (&mut input).take(MAX_LINE_LEN as u64 + 1).read_until(b'\n', &mut line);
            match len {
                Ok(0) => break,
                Ok(len) if len > MAX_LINE_LEN => {
                    return Err(Stop::Input(format!("line {number} is longer than {MAX_LINE_LEN} bytes")));
                }
                Ok(_) => {}
                Err(error) => return Err(Stop::Input(format!("reading the commands: {error}"))),
            }
            let words = match split_words(&line) {
                Ok(words) if words.is_empty() => continue,
                Ok(words) => words,
                Err(error) => {
                    complain(&format!("Invalid line {number}: {error}"));
                    self.has_failed = true;
                    continue;
                }
            };
            if words.len() == 1 && (is_word(&words, 0, "quit") || is_word(&words, 0, "exit")) {
                break;
            }
            if number > 1 {
                sleep(self.options.interval);
            }
            self.repeat(&words)?;
        }
        Ok(())
    }

    /// Runs `command` as often as `-r` says, with the pause of `-i` between.
    fn repeat(&mut self, command: &[Vec<u8>]) -> Result<(), Stop> {
        let mut runs: u64 = 0;
        while self.options.repeat == Repeat::Forever || Repeat::Times(runs) != self.options.repeat {
            if runs > 0 {
                sleep(self.options.interval);
            }
            match self.client.run(command) {
                Ok(()) => {}
                Err(trouble @ (Trouble::Lost(_) | Trouble::StreamEnded(_))) => {
                    complain(&trouble.to_string());
                    self.has_failed = true;
                }
                Err(trouble) => return Err(Stop::Trouble(trouble)),
            }
            runs += 1;
        }
        Ok(())
    }

    fn end(&self, outcome: Result<(), Stop>) -> ExitCode {
        match outcome {
            Ok(()) if self.has_failed || self.client.error_replies() > 0 => ExitCode::FAILURE,
            Ok(()) => ExitCode::SUCCESS,
            Err(Stop::Trouble(trouble)) => leave_for(&trouble),
            Err(Stop::Input(text)) => {
                complain(&format!("Error: {text}"));
                ExitCode::FAILURE
            }
        }
    }
}

/// All of `input`, as it is, a newline at its end included.
fn last_argument(input: impl Read) -> Result<Vec<u8>, Stop> {
    let mut bytes = Vec::new();
    match input.take(MAX_ARGUMENT_LEN as u64 + 1).read_to_end(&mut bytes) {
        Ok(len) if len > MAX_ARGUMENT_LEN => Err(Stop::Input(format!(
            "the argument on standard input is longer than {MAX_ARGUMENT_LEN} bytes"
        ))),
        Ok(_) => Ok(bytes),
        Err(error) => Err(Stop::Input(format!("reading the last argument: {error}"))),
    }
}
