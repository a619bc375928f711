//! What has happened in a run: a hash of all of it, and, when asked for, lines for people.
//!
//! Two runs of a seed are the same run if their hashes are the same. Lines cost time, so a failing seed is run again
//! with lines on.

use engine::time::Micros;
use std::collections::VecDeque;

/// The record of a run.
#[derive(Debug)]
pub struct Trace {
    hash: u64,
    lines: VecDeque<String>,
    /// Lines kept; zero: none are made.
    kept: usize,
    is_printing: bool,
    /// The counter whose every change on every node makes a line.
    watched: Option<Vec<u8>>,
}

impl Trace {
    /// Keeps the hash alone.
    pub fn silent() -> Trace {
        Trace::keeping(0)
    }

    /// Keeps the last lines too.
    pub fn keeping(kept: usize) -> Trace {
        Trace { hash: 0x9e37_79b9_7f4a_7c15, lines: VecDeque::new(), kept, is_printing: false, watched: None }
    }

    /// Prints every line as it comes; among them, what each node knows of `watched` whenever that changes.
    pub fn printing(watched: Option<Vec<u8>>) -> Trace {
        Trace { is_printing: true, watched, ..Trace::silent() }
    }

    /// The counter to be watched.
    pub fn watched(&self) -> Option<&[u8]> {
        self.watched.as_deref()
    }

    /// Takes a number into the hash.
    pub fn mix(&mut self, number: u64) {
        self.hash = (self.hash ^ number).wrapping_mul(0xff51_afd7_ed55_8ccd).rotate_left(29);
    }

    /// Takes bytes into the hash.
    pub fn mix_bytes(&mut self, bytes: &[u8]) {
        self.mix(bytes.len() as u64);
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.mix(u64::from_le_bytes(word));
        }
    }

    /// The hash of everything so far.
    pub fn hash(&self) -> u64 {
        self.hash
    }

    /// Notes a line, if lines are kept; `line` is not called otherwise.
    #[allow(clippy::print_stdout, reason = "the trace of `-v` goes to standard output")]
    pub fn note(&mut self, now: Micros, line: impl FnOnce() -> String) {
        if self.kept == 0 && !self.is_printing {
            return;
        }
        let line = format!("{:>3}.{:06} {}", now.secs(), now.0 % 1_000_000, line());
        if self.is_printing {
            println!("{line}");
        }
        if self.kept > 0 {
            if self.lines.len() == self.kept {
                self.lines.pop_front();
            }
            self.lines.push_back(line);
        }
    }

    /// The last lines.
    pub fn lines(self) -> Vec<String> {
        self.lines.into()
    }
}
