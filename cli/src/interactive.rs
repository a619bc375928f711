//! The prompt: a line at a time, with history, completion and hints.
//!
//! A lost connection never ends it: the prompt says so, and the next command tries again. Lines with
//! passwords are not kept in the history, neither in the file nor in memory.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use resp::split_words;
use rustyline::error::ReadlineError;
use rustyline::history::FileHistory;
use rustyline::{ColorMode, CompletionType, Config, Editor};

use crate::assist::{Assistant, repeat_words};
use crate::client::{Client, Trouble, complain, is_word, write_out};
use crate::form::Form;
use crate::help::help;
use crate::options::{Address, Options};

/// The name of the history file in the home directory.
const HISTORY_FILE: &str = ".discntcli_history";

/// The environment variable that names another history file; empty or `/dev/null` means none.
const HISTORY_VARIABLE: &str = "DISCNTCLI_HISTFILE";

/// Lines of history kept.
const MAX_HISTORY_LINES: usize = 10_000;

/// What to do after a line.
#[derive(Debug)]
enum Next {
    Prompt,
    Leave(ExitCode),
}

/// Runs the prompt until the user leaves.
pub(crate) fn run(options: &Options, form: Form, has_colors: bool) -> ExitCode {
    match Prompt::new(options, form, has_colors) {
        Ok(mut prompt) => prompt.run(),
        Err(error) => {
            complain(&format!("Error: the terminal cannot be used: {error}"));
            ExitCode::FAILURE
        }
    }
}

struct Prompt {
    editor: Editor<Assistant, FileHistory>,
    client: Client,
    address: Address,
    history: Option<PathBuf>,
    /// Whether the commands of the server are still to be asked for.
    has_to_learn: bool,
}

impl Prompt {
    fn new(options: &Options, form: Form, has_colors: bool) -> rustyline::Result<Self> {
        let config = Config::builder()
            .max_history_size(MAX_HISTORY_LINES)?
            .history_ignore_dups(true)?
            .completion_type(CompletionType::List)
            .color_mode(if has_colors { ColorMode::Enabled } else { ColorMode::Disabled })
            .build();
        let mut editor = Editor::with_config(config)?;
        editor.set_helper(Some(Assistant::new(has_colors)));
        let history = history_path(|name| std::env::var_os(name));
        if let Some(path) = &history {
            // The first run has no history.
            let _ = editor.load_history(path);
        }
        let interrupt = Arc::new(AtomicBool::new(false));
        signal_hook::flag::register(signal_hook::consts::SIGINT, Arc::clone(&interrupt))?;
        let client = Client::new(options, form, Some(interrupt));
        Ok(Self { editor, client, address: options.address.clone(), history, has_to_learn: true })
    }

    fn run(&mut self) -> ExitCode {
        if let Err(trouble) = self.client.ensure_connected() {
            complain(&trouble.to_string());
        }
        loop {
            self.learn();
            if let Err(trouble @ Trouble::Output(_)) = self.client.show_arrived() {
                return leave_for(&trouble);
            }
            let prompt = self.prompt();
            let columns = self.editor.dimensions().map_or(usize::MAX, |size| usize::from(size.0));
            if let Some(helper) = self.editor.helper_mut() {
                helper.columns = columns.saturating_sub(prompt.chars().count());
            }
            let line = match self.editor.readline(&prompt) {
                Ok(line) => line,
                Err(ReadlineError::Interrupted) => continue,
                Err(ReadlineError::Eof) => return ExitCode::SUCCESS,
                Err(error) => {
                    complain(&format!("Error: reading the terminal: {error}"));
                    return ExitCode::FAILURE;
                }
            };
            // A paste may bring several lines at once.
            for line in line.lines() {
                if let Next::Leave(code) = self.obey(line) {
                    return code;
                }
            }
        }
    }

    /// Asks a new server, or one that has just let us in, for its commands.
    fn learn(&mut self) {
        if !self.client.is_connected() {
            self.has_to_learn = true;
        } else if self.has_to_learn && !self.client.is_subscribed() {
            self.has_to_learn = false;
            let catalogue = self.client.learn();
            if let Some(helper) = self.editor.helper_mut().filter(|_| !catalogue.is_empty()) {
                helper.catalogue = catalogue;
            }
        }
    }

    fn prompt(&self) -> String {
        let state = if self.client.is_subscribed() { "(subscribed mode)" } else { "" };
        match &self.address {
            _ if !self.client.is_connected() => "not connected> ".to_owned(),
            Address::Tcp { .. } => format!("{}{state}> ", self.address),
            Address::Unix(_) => format!("discnt {}{state}> ", self.address),
        }
    }

    /// Does what one line says.
    fn obey(&mut self, line: &str) -> Next {
        let words = match split_words(line.as_bytes()) {
            Ok(words) if words.is_empty() => return Next::Prompt,
            Ok(words) => words,
            Err(error) => {
                self.remember(line, is_secret_text(line));
                complain(&format!("Invalid line: {error}"));
                return Next::Prompt;
            }
        };
        self.remember(line, is_secret(&words));
        let skipped = repeat_words(&words);
        let command = &words[skipped..];
        if command.len() == 1 && (is_word(command, 0, "quit") || is_word(command, 0, "exit")) {
            return Next::Leave(ExitCode::SUCCESS);
        }
        if command.len() == 1 && is_word(command, 0, "clear") {
            // A terminal that cannot be cleared is left as it is.
            let _ = self.editor.clear_screen();
            return Next::Prompt;
        }
        if is_word(command, 0, "help") || is_word(command, 0, "?") {
            let known = self.editor.helper().map(|helper| help(&helper.catalogue, &command[1..]));
            return match write_out(known.unwrap_or_default().as_bytes()) {
                Ok(()) => Next::Prompt,
                Err(error) => Next::Leave(leave_for(&Trouble::Output(error))),
            };
        }
        let repeat = std::str::from_utf8(&words[0]).ok().filter(|_| skipped == 1);
        self.execute(command, repeat.and_then(|digits| digits.parse().ok()).unwrap_or(1))
    }

    fn execute(&mut self, command: &[Vec<u8>], repeat: u64) -> Next {
        for _ in 0..repeat {
            match self.client.run(command) {
                Ok(()) if self.client.is_interrupted() => break,
                Ok(()) => {}
                Err(trouble @ Trouble::Output(_)) => return Next::Leave(leave_for(&trouble)),
                Err(trouble) => {
                    complain(&trouble.to_string());
                    break;
                }
            }
        }
        self.has_to_learn |= is_word(command, 0, "AUTH") || is_word(command, 0, "HELLO");
        Next::Prompt
    }

    fn remember(&mut self, line: &str, is_secret: bool) {
        if is_secret || !self.editor.add_history_entry(line).unwrap_or(false) {
            return;
        }
        if let Some(path) = &self.history {
            // A history that cannot be written is no reason to stop.
            let _ = self.editor.append_history(path);
        }
    }
}

/// The exit status when the output cannot be written; a closed pipe is an ordinary end.
pub(crate) fn leave_for(trouble: &Trouble) -> ExitCode {
    match trouble {
        Trouble::Output(error) if error.kind() == std::io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        _ => {
            complain(&trouble.to_string());
            ExitCode::FAILURE
        }
    }
}

fn history_path(environment: impl Fn(&str) -> Option<OsString>) -> Option<PathBuf> {
    match environment(HISTORY_VARIABLE) {
        Some(path) if path.is_empty() || path == "/dev/null" => None,
        Some(path) => Some(path.into()),
        None => environment("HOME").map(|home| PathBuf::from(home).join(HISTORY_FILE)),
    }
}

/// Whether a command holds a password: AUTH anywhere in it, users and their passwords, secret settings.
fn is_secret(words: &[Vec<u8>]) -> bool {
    let command = &words[repeat_words(words)..];
    let has_auth = (0..command.len()).any(|at| is_word(command, at, "AUTH"));
    let is_secret_setting = |word: &Vec<u8>| {
        let name = String::from_utf8_lossy(word).to_ascii_lowercase();
        ["pass", "auth", "secret"].iter().any(|part| name.contains(part))
    };
    let sets_secret = is_word(command, 0, "CONFIG")
        && is_word(command, 1, "SET")
        && command[2..].iter().step_by(2).any(is_secret_setting);
    has_auth || sets_secret || is_word(command, 0, "ACL")
}

/// The same guess for a line that cannot be split.
fn is_secret_text(line: &str) -> bool {
    let line = line.to_ascii_lowercase();
    ["auth", "pass", "secret", "acl"].iter().any(|part| line.contains(part))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_with_passwords_are_secret() {
        for line in [
            "auth x",
            "AUTH user x",
            "hello 3 auth u p",
            "config set requirepass x",
            "config set maxclients 5 cluster-secret x",
            "2 auth x",
            "acl setuser a >x",
        ] {
            assert!(is_secret(&split_words(line.as_bytes()).unwrap()), "{line}");
        }
        for line in ["incr author", "get a", "config get requirepass", "config set maxclients 5", "config"] {
            assert!(!is_secret(&split_words(line.as_bytes()).unwrap()), "{line}");
        }
        assert!(is_secret_text("auth \"x"));
        assert!(!is_secret_text("get \"x"));
    }

    #[test]
    fn the_history_file_can_be_moved_and_refused() {
        let with = |variables: &[(&str, &str)]| {
            history_path(|name| variables.iter().find(|v| v.0 == name).map(|v| OsString::from(v.1)))
        };
        assert_eq!(with(&[("HOME", "/h")]), Some(PathBuf::from("/h/.discntcli_history")));
        assert_eq!(with(&[("HOME", "/h"), (HISTORY_VARIABLE, "/x")]), Some(PathBuf::from("/x")));
        assert_eq!(with(&[("HOME", "/h"), (HISTORY_VARIABLE, "/dev/null")]), None);
        assert_eq!(with(&[("HOME", "/h"), (HISTORY_VARIABLE, "")]), None);
        assert_eq!(with(&[]), None);
    }
}
