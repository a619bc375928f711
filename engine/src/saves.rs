//! What the node knows of its snapshots, for LASTSAVE and INFO.
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
