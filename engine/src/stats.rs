//! Counts of what the node has done, for INFO. Relaxed atomics: nothing is decided by them, save whether
//! there is room for a further counter.
//!
//! Most counts are kept in *lanes*, one per I/O thread, so that two threads never write to one cache line. A
//! session adds up calls of the same command in its own `Tally` and brings them to its lane when another command
//! follows or when its batch ends (`Node::note_time`): a pipeline of a thousand INCRBY costs one atomic addition.

use crate::session::Session;
use crate::time::Micros;
use parking_lot::Mutex;
use std::array;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// Most commands in the table that are counted one by one.
pub(crate) const MAX_COMMANDS: usize = 128;

/// Lanes of counts. More threads than that share them, which costs time and loses nothing.
const LANES: usize = 32;

/// How many samples of about a second the rates are averaged over.
const RATE_SAMPLES: usize = 4;

/// The counts.
#[derive(Debug)]
pub struct Stats {
    connections: AtomicU64,
    rejected: AtomicU64,
    predictions_kept: AtomicU64,
    predictions_made: AtomicU64,
    lanes: Box<[Lane]>,
    is_memory_full: AtomicBool,
    memory: AtomicU64,
    memory_peak: AtomicU64,
    sampler: Mutex<Sampler>,
}

/// What the sessions of one thread have done. Aligned to pairs of cache lines, which are fetched together.
#[derive(Debug)]
#[repr(align(128))]
struct Lane {
    calls: [AtomicU64; MAX_COMMANDS],
    nanos: [AtomicU64; MAX_COMMANDS],
    changes: AtomicU64,
    errors: AtomicU64,
    input_bytes: AtomicU64,
    output_bytes: AtomicU64,
}

impl Lane {
    fn new() -> Lane {
        Lane {
            calls: array::from_fn(|_| AtomicU64::new(0)),
            nanos: array::from_fn(|_| AtomicU64::new(0)),
            changes: AtomicU64::new(0),
            errors: AtomicU64::new(0),
            input_bytes: AtomicU64::new(0),
            output_bytes: AtomicU64::new(0),
        }
    }
}

/// What a session has counted and not yet brought to its lane.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    pub(crate) lane: usize,
    command: u16,
    calls: u64,
    /// Counters changed.
    pub(crate) changes: u64,
}

/// How much happens per second, averaged over the last few seconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rates {
    /// Commands.
    pub calls: u64,
    /// Bytes from clients.
    pub input_bytes: u64,
    /// Bytes to clients.
    pub output_bytes: u64,
}

/// Turns counts into rates.
#[derive(Debug, Default)]
struct Sampler {
    samples: [Rates; RATE_SAMPLES],
    taken: usize,
    last: Rates,
    last_sampled: Option<Micros>,
}

impl Stats {
    /// Counts that begin at this moment.
    pub(crate) fn new(started: Micros) -> Stats {
        Stats {
            connections: AtomicU64::new(0),
            rejected: AtomicU64::new(0),
            predictions_kept: AtomicU64::new(0),
            predictions_made: AtomicU64::new(0),
            lanes: (0..LANES).map(|_| Lane::new()).collect(),
            is_memory_full: AtomicBool::new(false),
            memory: AtomicU64::new(0),
            memory_peak: AtomicU64::new(0),
            sampler: Mutex::new(Sampler { last_sampled: Some(started), ..Sampler::default() }),
        }
    }

    /// Back to zero (CONFIG RESETSTAT). Memory stays, and changes: how many are unsaved depends on them.
    pub(crate) fn reset(&self) {
        self.connections.store(0, Ordering::Relaxed);
        self.rejected.store(0, Ordering::Relaxed);
        self.predictions_kept.store(0, Ordering::Relaxed);
        self.predictions_made.store(0, Ordering::Relaxed);
        for lane in &self.lanes {
            let counts = [&lane.errors, &lane.input_bytes, &lane.output_bytes];
            for count in lane.calls.iter().chain(&lane.nanos).chain(counts) {
                count.store(0, Ordering::Relaxed);
            }
        }
        *self.sampler.lock() = Sampler::default();
    }

    pub(crate) fn note_connection(&self) {
        self.connections.fetch_add(1, Ordering::Relaxed);
    }

    /// A connection was turned away at `maxclients`.
    pub fn note_rejected(&self) {
        self.rejected.fetch_add(1, Ordering::Relaxed);
    }

    /// So many times a counter had changed as its published line said, and so many publications were made.
    pub fn note_predictions(&self, kept: u64, made: u64) {
        if kept > 0 {
            self.predictions_kept.fetch_add(kept, Ordering::Relaxed);
        }
        if made > 0 {
            self.predictions_made.fetch_add(made, Ordering::Relaxed);
        }
    }

    /// The same since the start or the last reset; what INFO calls hits and misses.
    pub fn predictions(&self) -> (u64, u64) {
        (self.predictions_kept.load(Ordering::Relaxed), self.predictions_made.load(Ordering::Relaxed))
    }

    pub(crate) fn note_error(&self, tally: &Tally) {
        self.lane(tally).errors.fetch_add(1, Ordering::Relaxed);
    }

    /// Bytes that went to and fro on a client's connection.
    pub fn note_traffic(&self, session: &Session, input_bytes: usize, output_bytes: usize) {
        let lane = self.lane(&session.tally);
        lane.input_bytes.fetch_add(input_bytes as u64, Ordering::Relaxed);
        lane.output_bytes.fetch_add(output_bytes as u64, Ordering::Relaxed);
    }

    pub(crate) fn note_call(&self, tally: &mut Tally, command: u16) {
        if tally.command != command {
            self.settle(tally);
            tally.command = command;
        }
        tally.calls += 1;
    }

    /// Brings what a session has counted to its lane.
    pub(crate) fn settle(&self, tally: &mut Tally) {
        let lane = self.lane(tally);
        let calls = std::mem::take(&mut tally.calls);
        if calls > 0 {
            lane.calls[usize::from(tally.command)].fetch_add(calls, Ordering::Relaxed);
        }
        let changes = std::mem::take(&mut tally.changes);
        if changes > 0 {
            lane.changes.fetch_add(changes, Ordering::Relaxed);
        }
    }

    pub(crate) fn note_time(&self, tally: &Tally, command: u16, nanos: u64) {
        self.lane(tally).nanos[usize::from(command)].fetch_add(nanos, Ordering::Relaxed);
    }

    fn lane(&self, tally: &Tally) -> &Lane {
        &self.lanes[tally.lane % LANES]
    }

    /// A count of all lanes together.
    fn sum(&self, count: impl Fn(&Lane) -> &AtomicU64) -> u64 {
        self.lanes.iter().map(|lane| count(lane).load(Ordering::Relaxed)).sum()
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
        self.sum(|lane| &lane.errors)
    }

    /// Changes of counters since the start.
    pub fn changes(&self) -> u64 {
        self.sum(|lane| &lane.changes)
    }

    /// Bytes received from and sent to clients.
    pub fn traffic(&self) -> (u64, u64) {
        (self.sum(|lane| &lane.input_bytes), self.sum(|lane| &lane.output_bytes))
    }

    /// Calls of the command with this number in the table.
    pub fn calls(&self, command: u16) -> u64 {
        self.sum(|lane| &lane.calls[usize::from(command)])
    }

    /// Time spent with the command of this number, as `Node::note_time` attributes it.
    pub fn micros(&self, command: u16) -> u64 {
        self.sum(|lane| &lane.nanos[usize::from(command)]) / 1_000
    }

    /// Calls of all commands.
    pub fn all_calls(&self) -> u64 {
        (0..MAX_COMMANDS as u16).map(|command| self.calls(command)).sum()
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

    /// Takes a sample of the rates; called about once a second.
    pub(crate) fn sample_rates(&self, now: Micros) {
        let (input_bytes, output_bytes) = self.traffic();
        let counts = Rates { calls: self.all_calls(), input_bytes, output_bytes };
        self.sampler.lock().take(counts, now);
    }

    /// How much happens per second.
    pub fn rates(&self) -> Rates {
        self.sampler.lock().average()
    }
}

impl Sampler {
    fn take(&mut self, counts: Rates, now: Micros) {
        if let Some(last_sampled) = self.last_sampled {
            let elapsed = now.since(last_sampled).0.max(1);
            let per_sec = |new: u64, old: u64| new.saturating_sub(old).saturating_mul(1_000_000) / elapsed;
            self.samples[self.taken % RATE_SAMPLES] = Rates {
                calls: per_sec(counts.calls, self.last.calls),
                input_bytes: per_sec(counts.input_bytes, self.last.input_bytes),
                output_bytes: per_sec(counts.output_bytes, self.last.output_bytes),
            };
            self.taken += 1;
        }
        (self.last, self.last_sampled) = (counts, Some(now));
    }

    fn average(&self) -> Rates {
        let count = self.taken.clamp(1, RATE_SAMPLES) as u64;
        let mean = |part: fn(&Rates) -> u64| self.samples.iter().map(part).sum::<u64>() / count;
        Rates {
            calls: mean(|rates| rates.calls),
            input_bytes: mean(|rates| rates.input_bytes),
            output_bytes: mean(|rates| rates.output_bytes),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_command_has_its_own_count() {
        assert!(crate::commands::all().count() <= MAX_COMMANDS, "MAX_COMMANDS must grow");
    }

    #[test]
    fn calls_of_several_lanes_are_added_up() {
        let stats = Stats::new(Micros::default());
        for lane in [0, 1, LANES, LANES + 1] {
            let mut tally = Tally { lane, ..Tally::default() };
            (0..3).for_each(|_| stats.note_call(&mut tally, 7));
            stats.note_call(&mut tally, 8);
            tally.changes = 4;
            stats.settle(&mut tally);
            stats.settle(&mut tally);
        }
        assert_eq!((stats.calls(7), stats.calls(8), stats.all_calls(), stats.changes()), (12, 4, 16, 16));
        stats.reset();
        assert_eq!((stats.calls(7), stats.all_calls(), stats.changes()), (0, 0, 16));
    }

    #[test]
    fn rates_are_per_second_from_the_second_sample_on() {
        let mut sampler = Sampler::default();
        let counts = |calls| Rates { calls, ..Rates::default() };
        sampler.take(counts(1_000), Micros::from_secs(100));
        assert_eq!(sampler.average().calls, 0);
        sampler.take(counts(2_000), Micros::from_secs(102));
        assert_eq!(sampler.average().calls, 500);
        sampler.take(counts(3_500), Micros::from_secs(103));
        assert_eq!(sampler.average().calls, 1_000);
    }

    #[test]
    fn a_rate_is_averaged_over_the_last_samples_only() {
        let mut sampler = Sampler::default();
        for second in 0..20 {
            let calls = if second < 10 { second * 1_000 } else { 10_000 };
            sampler.take(Rates { calls, ..Rates::default() }, Micros::from_secs(second));
        }
        assert_eq!(sampler.average().calls, 0);
    }
}
