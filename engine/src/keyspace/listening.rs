//! Which stripes have something to look at, for one who looks when woken: the cluster for own shards that have changed, the
//! disk's side for all that has.

use super::STRIPES;
use crate::clients::Wake;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// Somebody who wants to know which stripes have something for them.
#[derive(Default)]
pub(crate) struct Listening {
    is_on: AtomicBool,
    is_woken: AtomicBool,
    /// A bit per stripe.
    stripes: [AtomicU64; STRIPES / 64],
    wake: OnceLock<Wake>,
}

impl Listening {
    /// Whether anybody wants to know.
    pub(crate) fn is_on(&self) -> bool {
        self.is_on.load(Ordering::Relaxed)
    }

    pub(crate) fn set_on(&self, is_on: bool) {
        self.is_on.store(is_on, Ordering::Relaxed);
    }

    /// Sets how to be woken; once.
    pub(crate) fn set_wake(&self, wake: Wake) {
        self.wake.set(wake).ok();
    }

    /// Notes a stripe whose lock the caller holds.
    pub(super) fn note(&self, stripe: usize) {
        let (word, bit) = (&self.stripes[stripe / 64], 1 << (stripe % 64));
        // A bit that stands is read under the lock that the listener must take after taking the bit away, so it will
        // still see what was noted; and whoever set the bit has woken it.
        if word.load(Ordering::Relaxed) & bit != 0 {
            return;
        }
        word.fetch_or(bit, Ordering::AcqRel);
        if !self.is_woken.load(Ordering::Acquire)
            && !self.is_woken.swap(true, Ordering::AcqRel)
            && let Some(wake) = self.wake.get()
        {
            wake();
        }
    }

    /// Whether there is something, or will be before the next wake-up.
    pub(crate) fn is_woken(&self) -> bool {
        self.is_woken.load(Ordering::Acquire)
    }

    /// Whether a stripe has something at this moment.
    pub(crate) fn has_any(&self) -> bool {
        self.stripes.iter().any(|bits| bits.load(Ordering::Acquire) != 0)
    }

    /// The stripes that have something; forgets them. What is noted from now on wakes again.
    pub(crate) fn take_stripes(&self) -> Vec<usize> {
        self.is_woken.store(false, Ordering::Release);
        let mut stripes = Vec::new();
        for (word, bits) in self.stripes.iter().enumerate() {
            let mut bits = bits.swap(0, Ordering::AcqRel);
            while bits != 0 {
                stripes.push(word * 64 + bits.trailing_zeros() as usize);
                bits &= bits - 1;
            }
        }
        stripes
    }
}
