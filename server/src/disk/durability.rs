//! What client threads and the disk's thread share: tickets for replies that wait for a sync.
//!
//! The disk's thread numbers its collections (each takes all that has changed, commits it and syncs it). A change that was
//! made when collection n had begun is in collection n + 1 at the latest; that number is its *ticket*. Whoever holds a reply
//! back asks for the ticket and goes on when it is safe. So one sync serves all who came during the one before.
//!
//! Why a change made before `ticket` is called can't miss the collection: the counter is changed under its stripe's
//! lock, and `begin` comes before the collection takes any of these locks. If the collection found the stripe before the
//! change, the lock hands the new number over to whoever changes.
//!
//! Replies that wait are counted, so that the disk's thread can tell whether it is worth waiting for more of them (see
//! `gather`), and is not woken for each.

use super::seat::{Company, Partner};
use atomic_waker::AtomicWaker;
use engine::time::Micros;
use nix::sched::sched_getcpu;
use nix::unistd::{Pid, gettid};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU64, AtomicUsize, Ordering};
use std::task::Waker;
use std::thread::Thread;

/// What an I/O thread told longer ago than that is over: it has had nothing to do since.
const STALE: Micros = Micros::from_millis(300);

/// So many connections that wait for the disk are many.
const MIN_CROWD: u64 = 8;

/// The tickets of one node.
pub(crate) struct Durability {
    /// The last collection that has begun.
    begun: AtomicU64,
    /// All collections up to this one are safe.
    safe: AtomicU64,
    /// Replies held back since the last collection began.
    waiting: AtomicU64,
    /// How many of them wake the disk's thread.
    enough: AtomicU64,
    /// Whether a change wakes it that nobody waits for.
    heeds_changes: AtomicBool,
    /// One per I/O thread.
    lanes: Box<[Lane]>,
    disk_thread: OnceLock<Thread>,
}

/// What an I/O thread waits for.
#[derive(Default)]
struct Lane {
    /// The highest ticket that it has asked for.
    wanted: AtomicU64,
    /// Connections that have waited for the disk lately, and when that was told.
    crowd: AtomicU64,
    told_at: AtomicU64,
    /// The thread, and the core that it ran on lately.
    thread: AtomicI32,
    core: AtomicUsize,
    /// Woken when something that it has asked for is safe. A thread without such replies is left alone: waking it would cost
    /// more than all else that the disk's thread does between two syncs.
    waker: AtomicWaker,
}

impl Lane {
    fn crowd(&self, now: Micros) -> u64 {
        let told_at = Micros(self.told_at.load(Ordering::Relaxed));
        if now.since(told_at) > STALE { 0 } else { self.crowd.load(Ordering::Relaxed) }
    }
}

impl Durability {
    /// For that many I/O threads.
    pub(crate) fn new(io_threads: usize) -> Durability {
        Durability {
            begun: AtomicU64::new(0),
            safe: AtomicU64::new(0),
            waiting: AtomicU64::new(0),
            enough: AtomicU64::new(1),
            heeds_changes: AtomicBool::new(true),
            lanes: (0..io_threads).map(|_| Lane::default()).collect(),
            disk_thread: OnceLock::new(),
        }
    }

    /// The ticket of all that this thread has changed.
    pub(crate) fn ticket(&self) -> u64 {
        self.begun.load(Ordering::Acquire) + 1
    }

    /// Whether all changes with this ticket are on the disk.
    pub(crate) fn is_safe(&self, ticket: u64) -> bool {
        self.safe.load(Ordering::SeqCst) >= ticket
    }

    /// Asks, for one more reply of an I/O thread, that a ticket become safe soon. Ask `is_safe` afterwards: only what becomes
    /// safe from then on wakes the thread.
    pub(crate) fn want(&self, io_thread: usize, ticket: u64) {
        // In one order for all with `note_safe`: either it sees this ticket, or `is_safe` sees what it has made safe.
        self.lanes[io_thread].wanted.fetch_max(ticket, Ordering::SeqCst);
        // In one order for all with `expect`: either it sees this reply, or this sees what is enough.
        let waiting = self.waiting.fetch_add(1, Ordering::SeqCst) + 1;
        if waiting >= self.enough.load(Ordering::SeqCst) {
            self.wake_disk();
        }
    }

    /// Something has changed that is not in the log.
    pub(crate) fn note_change(&self) {
        if self.heeds_changes.load(Ordering::Relaxed) {
            self.wake_disk();
        }
    }

    /// Whether the disk's thread is to be woken by changes alone. Not under `always`: whoever changes something will ask for
    /// a ticket in a moment, and one waking is enough.
    pub(crate) fn set_heeds_changes(&self, heeds_changes: bool) {
        self.heeds_changes.store(heeds_changes, Ordering::Relaxed);
    }

    /// The disk's thread wants to be woken when this many replies wait; returns how many do.
    pub(crate) fn expect(&self, enough: u64) -> u64 {
        self.enough.store(enough, Ordering::SeqCst);
        self.waiting.load(Ordering::SeqCst)
    }

    /// Has this I/O thread woken when more of what it wants is safe.
    pub(crate) fn register(&self, io_thread: usize, waker: &Waker) {
        self.lanes[io_thread].waker.register(waker);
    }

    /// An I/O thread tells how many of its connections have waited for the disk since it told last.
    pub(crate) fn set_crowd(&self, io_thread: usize, connections: usize, now: Micros) {
        let lane = &self.lanes[io_thread];
        lane.told_at.store(now.0, Ordering::Relaxed);
        if connections > 0 {
            lane.thread.store(gettid().as_raw(), Ordering::Relaxed);
            lane.core.store(sched_getcpu().unwrap_or(usize::MAX), Ordering::Relaxed);
        }
        lane.crowd.store(connections as u64, Ordering::Relaxed);
    }

    /// The I/O threads whose connections have waited for the disk lately.
    pub(crate) fn company(&self, now: Micros) -> Company {
        let mut lanes = self.lanes.iter().filter(|lane| lane.crowd(now) > 0);
        let Some(lane) = lanes.next() else { return Company::Nobody };
        if lanes.next().is_some() || lane.crowd(now) < MIN_CROWD {
            return Company::Unfit;
        }
        let thread = Pid::from_raw(lane.thread.load(Ordering::Relaxed));
        Company::One(Partner { thread, core: lane.core.load(Ordering::Relaxed) })
    }

    /// Connections that have waited for the disk lately.
    pub(crate) fn crowd(&self, now: Micros) -> u64 {
        self.lanes.iter().map(|lane| lane.crowd(now)).sum()
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
        let safe = self.safe.load(Ordering::Acquire);
        self.lanes.iter().any(|lane| lane.wanted.load(Ordering::Acquire) > safe)
    }

    /// The disk's thread begins a collection; returns how many replies wait for it, about.
    pub(crate) fn begin(&self) -> u64 {
        self.begun.fetch_add(1, Ordering::AcqRel);
        self.waiting.swap(0, Ordering::SeqCst)
    }

    /// All collections that have begun are safe.
    pub(crate) fn note_safe(&self) {
        let begun = self.begun.load(Ordering::Acquire);
        let before = self.safe.swap(begun, Ordering::SeqCst);
        for lane in &self.lanes {
            if before < begun && lane.wanted.load(Ordering::SeqCst) > before {
                lane.waker.wake();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    #[test]
    fn a_ticket_taken_during_a_collection_is_safe_after_the_next() {
        let durability = Durability::new(1);
        let early = durability.ticket();
        durability.begin();
        let late = durability.ticket();
        durability.want(0, early);
        durability.want(0, late);
        durability.note_safe();
        assert!(durability.is_safe(early) && !durability.is_safe(late) && durability.is_wanted());
        durability.begin();
        durability.note_safe();
        assert!(durability.is_safe(late) && !durability.is_wanted());
    }

    /// Counts how often it is woken.
    #[derive(Default)]
    struct Woken(AtomicU64);

    impl std::task::Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn only_threads_that_wait_for_something_are_woken() {
        let durability = Durability::new(2);
        let woken: [Arc<Woken>; 2] = Default::default();
        let counts_after_sync = || {
            for (io_thread, woken) in woken.iter().enumerate() {
                durability.register(io_thread, &Arc::clone(woken).into());
            }
            durability.begin();
            durability.note_safe();
            [0, 1].map(|io_thread: usize| woken[io_thread].0.load(Ordering::Relaxed))
        };
        durability.want(1, durability.ticket());
        assert_eq!(counts_after_sync(), [0, 1]);
        assert_eq!(counts_after_sync(), [0, 1], "what it waited for is safe");
        durability.want(0, durability.ticket());
        assert_eq!(counts_after_sync(), [1, 1]);
    }

    #[test]
    fn company_is_one_thread_with_many_that_wait_now() {
        let (durability, now) = (Durability::new(2), Micros::from_secs(1));
        assert_eq!(durability.company(now), Company::Nobody);
        durability.set_crowd(0, 7, now);
        assert_eq!(durability.company(now), Company::Unfit, "few");
        durability.set_crowd(0, 50, now);
        assert!(matches!(durability.company(now), Company::One(partner) if partner.thread == gettid()));
        durability.set_crowd(1, 1, now);
        assert_eq!((durability.company(now), durability.crowd(now)), (Company::Unfit, 51), "two threads");
        let later = now + STALE + Micros(1);
        durability.set_crowd(1, 20, later);
        assert!(
            matches!(durability.company(later), Company::One(_)),
            "one of them has nothing to do any more"
        );
        assert_eq!(durability.crowd(later), 20);
        assert_eq!(durability.company(later + STALE + Micros(1)), Company::Nobody);
    }

    #[test]
    fn replies_that_wait_are_counted_until_a_collection_begins() {
        let durability = Durability::new(1);
        assert_eq!(durability.expect(2), 0);
        durability.want(0, durability.ticket());
        durability.want(0, durability.ticket());
        assert_eq!(durability.expect(3), 2);
        assert_eq!(durability.begin(), 2);
        assert_eq!(durability.expect(1), 0);
    }
}
