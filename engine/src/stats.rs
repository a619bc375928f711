//! Counts of what the node has done, for INFO. Relaxed atomics: nothing is decided by them, save whether
//! there is room for a further counter.

use crate::time::Micros;
use parking_lot::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// Most commands in the table that are counted one by one.
pub(crate) const MAX_COMMANDS: usize = 128;

/// How many one-second samples the rate of commands is averaged over.
const RATE_SAMPLES: usize = 16;

/// The counts.
#[derive(Debug)]
pub struct Stats {
    connections: AtomicU64,
    rejected: AtomicU64,
    errors: AtomicU64,
    input_bytes: AtomicU64,
    output_bytes: AtomicU64,
    calls: Box<[CommandCalls]>,
    is_memory_full: AtomicBool,
    memory: AtomicU64,
    memory_peak: AtomicU64,
    rate: Mutex<Rate>,
}

#[derive(Debug, Default)]
struct CommandCalls {
    calls: AtomicU64,
    micros: AtomicU64,
}

#[derive(Debug, Default)]
struct Rate {
    samples: [u64; RATE_SAMPLES],
    next: usize,
    last_calls: u64,
    last_sampled: Micros,
}

impl Stats {
    pub(crate) fn new() -> Stats {
        Stats {
            connections: AtomicU64::new(0),
            rejected: AtomicU64::new(0),
            errors: AtomicU64::new(0),
            input_bytes: AtomicU64::new(0),
            output_bytes: AtomicU64::new(0),
            calls: (0..MAX_COMMANDS).map(|_| CommandCalls::default()).collect(),
            is_memory_full: AtomicBool::new(false),
            memory: AtomicU64::new(0),
            memory_peak: AtomicU64::new(0),
            rate: Mutex::default(),
        }
    }

    /// Back to zero (CONFIG RESETSTAT); memory stays.
    pub(crate) fn reset(&self) {
        for count in [&self.connections, &self.rejected, &self.errors, &self.input_bytes, &self.output_bytes]
        {
            count.store(0, Ordering::Relaxed);
        }
        for calls in &self.calls {
            calls.calls.store(0, Ordering::Relaxed);
            calls.micros.store(0, Ordering::Relaxed);
        }
        *self.rate.lock() = Rate::default();
    }

    pub(crate) fn note_connection(&self) {
        self.connections.fetch_add(1, Ordering::Relaxed);
    }

    /// A connection was turned away at `maxclients`.
    pub fn note_rejected(&self) {
        self.rejected.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn note_error(&self) {
        self.errors.fetch_add(1, Ordering::Relaxed);
    }

    /// Bytes that went to and fro on client connections.
    pub fn note_traffic(&self, input_bytes: usize, output_bytes: usize) {
        self.input_bytes.fetch_add(input_bytes as u64, Ordering::Relaxed);
        self.output_bytes.fetch_add(output_bytes as u64, Ordering::Relaxed);
    }

    pub(crate) fn note_call(&self, command: u16) {
        self.calls[usize::from(command)].calls.fetch_add(1, Ordering::Relaxed);
    }

    /// Connections accepted since the start or the last reset.
    pub fn connections(&self) -> u64 {
        self.connections.load(Ordering::Relaxed)
    }

    /// Connections turned away.
    pub fn rejected(&self) -> u64 {
        self.rejected.load(Ordering::Relaxed)
    }

    /// Error replies.
    pub fn errors(&self) -> u64 {
        self.errors.load(Ordering::Relaxed)
    }

    /// Bytes received from and sent to clients.
    pub fn traffic(&self) -> (u64, u64) {
        (self.input_bytes.load(Ordering::Relaxed), self.output_bytes.load(Ordering::Relaxed))
    }

    /// Calls of the command with this number in the table.
    pub fn calls(&self, command: u16) -> u64 {
        self.calls[usize::from(command)].calls.load(Ordering::Relaxed)
    }

    /// Calls of all commands.
    pub fn all_calls(&self) -> u64 {
        self.calls.iter().map(|calls| calls.calls.load(Ordering::Relaxed)).sum()
    }

    pub(crate) fn set_memory_full(&self, is_full: bool, bytes: u64) {
        self.is_memory_full.store(is_full, Ordering::Relaxed);
        self.memory.store(bytes, Ordering::Relaxed);
        self.memory_peak.fetch_max(bytes, Ordering::Relaxed);
    }

    pub(crate) fn is_memory_full(&self) -> bool {
        self.is_memory_full.load(Ordering::Relaxed)
    }

    /// Bytes in use as last told by the shell, and the most ever told.
    pub fn memory(&self) -> (u64, u64) {
        (self.memory.load(Ordering::Relaxed), self.memory_peak.load(Ordering::Relaxed))
    }

    /// Takes a sample of the rate of commands; called about once a second.
    pub(crate) fn sample_rates(&self, now: Micros) {
        let calls = self.all_calls();
        let mut rate = self.rate.lock();
        let elapsed = now.since(rate.last_sampled).0.max(1);
        let per_sec = calls.saturating_sub(rate.last_calls).saturating_mul(1_000_000) / elapsed;
        let next = rate.next;
        rate.samples[next] = per_sec;
        rate.next = (next + 1) % RATE_SAMPLES;
        (rate.last_calls, rate.last_sampled) = (calls, now);
    }

    /// Commands per second over the last samples.
    pub fn calls_per_sec(&self) -> u64 {
        self.rate.lock().samples.iter().sum::<u64>() / RATE_SAMPLES as u64
    }
}
