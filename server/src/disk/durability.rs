//! What client threads and the disk's thread share: tickets for replies that wait for a sync.
//!
//! The disk's thread numbers its collections (each takes all that has changed, commits it and syncs it). A change that was
//! made when collection n had begun is in collection n + 1 at the latest; that number is its *ticket*. Whoever holds a reply
//! back asks for the ticket and goes on when it is safe. So one sync serves all who came during the one before.
//!
//! Why a change made before `ticket` is called can't miss the collection: the counter is changed under its stripe's
//! lock, and `begin` comes before the collection takes any of these locks. If the collection found the stripe before the
//! change, the lock hands the new number over to whoever changes.

use atomic_waker::AtomicWaker;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::Waker;
use std::thread::Thread;

/// The tickets of one node.
pub(crate) struct Durability {
    /// The last collection that has begun.
    begun: AtomicU64,
    /// All collections up to this one are safe.
    safe: AtomicU64,
    /// The highest ticket that somebody waits for.
    wanted: AtomicU64,
    /// One per I/O thread: woken when `safe` has grown.
    lanes: Box<[AtomicWaker]>,
    disk_thread: OnceLock<Thread>,
}

impl Durability {
    /// For that many I/O threads.
    pub(crate) fn new(io_threads: usize) -> Durability {
        Durability {
            begun: AtomicU64::new(0),
            safe: AtomicU64::new(0),
            wanted: AtomicU64::new(0),
            lanes: (0..io_threads).map(|_| AtomicWaker::new()).collect(),
            disk_thread: OnceLock::new(),
        }
    }

    /// The ticket of all that this thread has changed.
    pub(crate) fn ticket(&self) -> u64 {
        self.begun.load(Ordering::Acquire) + 1
    }

    /// Whether all changes with this ticket are on the disk.
    pub(crate) fn is_safe(&self, ticket: u64) -> bool {
        self.safe.load(Ordering::Acquire) >= ticket
    }

    /// Asks for a ticket to become safe soon.
    pub(crate) fn want(&self, ticket: u64) {
        if self.wanted.fetch_max(ticket, Ordering::AcqRel) < ticket {
            self.wake_disk();
        }
    }

    /// Has this I/O thread woken when more is safe.
    pub(crate) fn register(&self, io_thread: usize, waker: &Waker) {
        self.lanes[io_thread].register(waker);
    }

    /// Wakes the disk's thread.
    pub(crate) fn wake_disk(&self) {
        if let Some(thread) = self.disk_thread.get() {
            thread.unpark();
        }
    }

    /// Called by the disk's thread when it starts.
    pub(crate) fn set_disk_thread(&self, thread: Thread) {
        self.disk_thread.set(thread).expect("there is one disk's thread");
    }

    /// Whether somebody waits for something that is not safe.
    pub(crate) fn is_wanted(&self) -> bool {
        self.wanted.load(Ordering::Acquire) > self.safe.load(Ordering::Acquire)
    }

    /// The disk's thread begins a collection.
    pub(crate) fn begin(&self) {
        self.begun.fetch_add(1, Ordering::AcqRel);
    }

    /// All collections that have begun are safe.
    pub(crate) fn note_safe(&self) {
        let begun = self.begun.load(Ordering::Acquire);
        if self.safe.swap(begun, Ordering::AcqRel) < begun {
            self.lanes.iter().for_each(AtomicWaker::wake);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ticket_taken_during_a_collection_is_safe_after_the_next() {
        let durability = Durability::new(1);
        let early = durability.ticket();
        durability.begin();
        let late = durability.ticket();
        durability.want(early);
        durability.want(late);
        durability.note_safe();
        assert!(durability.is_safe(early) && !durability.is_safe(late) && durability.is_wanted());
        durability.begin();
        durability.note_safe();
        assert!(durability.is_safe(late) && !durability.is_wanted());
    }
}
