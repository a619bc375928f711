//! How eagerly an I/O thread looks for work: a thread that many clients keep busy, and that is faster than they are, would
//! find one request each time it looks, and spend more on looking than on serving. So, as network cards hold interrupts back,
//! it naps for a moment before it looks again, and finds several.
//!
//! A thread whose replies wait for the disk never naps either: those that have become safe meanwhile would wait for the end
//! of the nap.
//!
//! A nap takes some ten microseconds of a request's time where there are 20,000 requests or more a second from many
//! clients; a thread that has few clients or little to do never naps.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

/// The length of a nap; the system adds up to as much.
const NAP: Duration = Duration::from_micros(50);

/// Busy connections from which on a thread naps: with fewer, their clients would wait for it.
const CROWD: usize = 16;

/// Batches per second from which on it does.
const BUSTLE: u64 = 20_000;

/// Whoever has found so many batches since it last looked need not wait for more.
const ENOUGH: u32 = 8;

/// Whether a thread naps. Shared with the hook that its runtime calls before it sleeps.
#[derive(Debug, Default)]
pub(crate) struct Calm {
    is_on: AtomicBool,
    /// Batches since the thread last looked for work.
    found: AtomicU32,
}

impl Calm {
    /// A batch of some connection was executed.
    pub(crate) fn note_batch(&self) {
        // Only its own thread writes to it.
        self.found.store(self.found.load(Ordering::Relaxed).saturating_add(1), Ordering::Relaxed);
    }

    /// So many connections were busy lately, had so many batches executed per second, and did or did not wait for the disk.
    pub(crate) fn judge(&self, connections: usize, batches_per_sec: u64, awaits_disk: bool) {
        let is_on = connections >= CROWD && batches_per_sec >= BUSTLE && !awaits_disk;
        self.is_on.store(is_on, Ordering::Relaxed);
    }

    /// Called when a thread has nothing to do: naps if it should.
    pub(crate) fn before_looking(&self) {
        if self.is_nap_due() {
            std::thread::sleep(NAP);
        }
    }

    fn is_nap_due(&self) -> bool {
        let found = self.found.load(Ordering::Relaxed);
        self.found.store(0, Ordering::Relaxed);
        self.is_on.load(Ordering::Relaxed) && found < ENOUGH
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_thread_that_many_keep_busy_naps() {
        let naps = |connections, batches_per_sec, found| {
            let calm = Calm::default();
            calm.judge(connections, batches_per_sec, false);
            (0..found).for_each(|_| calm.note_batch());
            calm.is_nap_due()
        };
        assert!(naps(CROWD, BUSTLE, 1));
        assert!(!naps(CROWD - 1, 10 * BUSTLE, 1), "a few clients, however fast, are answered at once");
        assert!(!naps(10 * CROWD, BUSTLE - 1, 1), "so are many who seldom ask");
        assert!(!naps(CROWD, BUSTLE, ENOUGH), "several were found");
    }

    #[test]
    fn a_thread_whose_replies_wait_for_the_disk_does_not_nap() {
        let calm = Calm::default();
        calm.judge(CROWD, BUSTLE, true);
        assert!(!calm.is_nap_due());
    }

    #[test]
    fn what_was_found_counts_once() {
        let calm = Calm::default();
        calm.judge(CROWD, BUSTLE, false);
        (0..ENOUGH).for_each(|_| calm.note_batch());
        assert_eq!([calm.is_nap_due(), calm.is_nap_due()], [false, true]);
    }

    #[test]
    fn naps_end_when_the_crowd_has_gone() {
        let calm = Calm::default();
        calm.judge(CROWD, BUSTLE, false);
        assert!(calm.is_nap_due());
        calm.judge(1, 10, false);
        assert!(!calm.is_nap_due());
    }
}
