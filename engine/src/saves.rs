//! What the node knows of its snapshots, its log and its loading, for LASTSAVE, INFO and refusals.
//!
//! Lacks on purpose: writing them. Whoever does tells the node through `Node::set_save_status`; a node that nobody
//! saves goes on saying that it last had nothing unsaved when it started.

use crate::time::Micros;

/// The state of saving.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SaveStatus {
    /// Wall-clock time of the last good snapshot, or of the start.
    pub saved_at_unix: Micros,
    /// `Stats::changes` as that snapshot holds them.
    pub saved_changes: u64,
    /// Whether the last snapshot that was tried is good.
    pub is_last_good: bool,
    /// How long the last background snapshot took; `None` before the first.
    pub last_took: Option<Micros>,
    /// Since when a background snapshot is being written, on the monotonic clock.
    pub running_since: Option<Micros>,
}

impl SaveStatus {
    /// As a node that starts empty at this moment has it.
    pub(crate) fn new(started_unix: Micros) -> SaveStatus {
        SaveStatus {
            saved_at_unix: started_unix,
            saved_changes: 0,
            is_last_good: true,
            last_took: None,
            running_since: None,
        }
    }
}

/// The state of the log, as the thread that writes it last told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LogStatus {
    /// Whether changes are written to a log.
    pub is_on: bool,
    /// Whether the disk refused the last write or sync.
    pub is_failing: bool,
    /// Bytes written and not synced.
    pub unsynced_bytes: u64,
    /// All that had changed at this moment of the monotonic clock is written, and synced as far as `appendfsync` asks for
    /// that.
    pub safe_until: Micros,
    /// Bytes of the log since the last snapshot.
    pub log_bytes: u64,
    /// Segments that they are in.
    pub segments: u64,
    /// Bytes of the last snapshot.
    pub snapshot_bytes: u64,
    /// Since the start: bytes given to the disk for the log.
    pub log_bytes_written: u64,
    /// Since the start: bytes given to the disk for snapshots.
    pub snapshot_bytes_written: u64,
    /// Since the start: states written to the log.
    pub records_written: u64,
    /// Since the start: syncs of the log.
    pub syncs: u64,
    /// Since the start: times that the disk refused something.
    pub failures: u64,
}

/// How far loading has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Loading {
    /// Whether counters are being loaded.
    pub is_on: bool,
    /// Wall-clock time of the begin.
    pub began_unix: Micros,
    /// The begin on the monotonic clock.
    pub began: Micros,
    /// Bytes to read in all.
    pub total_bytes: u64,
    /// Bytes read.
    pub done_bytes: u64,
}

impl Loading {
    /// How much is done, in percent, at most 100.
    pub fn percent(&self) -> f64 {
        if self.total_bytes == 0 {
            0.0
        } else {
            self.done_bytes.min(self.total_bytes) as f64 * 100.0 / self.total_bytes as f64
        }
    }
}
