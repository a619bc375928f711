//! Numbers of precisions that no counter has any more are taken back.
//!
//! Counters hold a number into a table and nothing counts how many hold which: most of them have the default all their life.
//! When the table has become long, a walk over all counters, in pieces and seldom, finds out which numbers are in use.

use super::{Cursor, Keyspace};
use crate::counter::{Counter, PrecisionId};
use crate::precision::PrecisionTable;
use crate::time::Micros;
use std::sync::atomic::Ordering;

/// A table of fewer precisions is left as it is.
const SWEEP_FROM: usize = PrecisionTable::CAPACITY / 2;

/// Counters that one piece of the walk meets: some milliseconds.
const PIECE: u64 = 50_000;

/// Counters met under one lock.
const AT_ONCE: u64 = 256;

/// A walk under way.
#[derive(Debug)]
pub(super) struct Sweep {
    cursor: Cursor,
    /// By number.
    is_used: Vec<bool>,
    began: Micros,
}

impl Keyspace {
    /// Goes on with the walk over all counters, begins one if the table is long, and takes back what is not in use at its end.
    pub(crate) fn sweep_precisions(&self, now: Micros) {
        let len = {
            let mut table = self.precisions.write();
            table.set_now(now);
            table.len()
        };
        let mut slot = self.precision_sweep.lock();
        if slot.is_none() && len < SWEEP_FROM {
            return;
        }
        let mut sweep = slot.take().unwrap_or_else(|| Sweep {
            cursor: 0,
            is_used: vec![false; PrecisionTable::CAPACITY],
            began: now,
        });
        let mut note = |counter: &Counter| sweep.is_used[usize::from(counter.precision.0)] = true;
        for _ in 0..PIECE / AT_ONCE {
            sweep.cursor = self.walk_all(sweep.cursor, AT_ONCE, |_, counter| note(counter));
            if sweep.cursor == 0 {
                let mut table = self.precisions.write();
                let default = PrecisionId(self.default_precision.load(Ordering::Relaxed) as u16);
                table.keep(default);
                table.take_back(sweep.began, |id| sweep.is_used[usize::from(id.0)]);
                return;
            }
        }
        *slot = Some(sweep);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keyspace::ChangeError;
    use crate::precision::{GRACE, Precision};
    use crate::value::Value;

    fn precision(number: i64) -> Precision {
        Precision::Absolute(Value::from_integer(number))
    }

    #[test]
    fn precisions_that_no_counter_has_any_more_make_room() {
        let keyspace = Keyspace::new(1, Precision::DEFAULT);
        let mut now = Micros::from_secs(1);
        let capacity = PrecisionTable::CAPACITY as i64;
        let set = |name: &[u8], number, now| keyspace.set_precision(name, precision(number), now, true);
        // Number 1 is the default.
        (2..=capacity).for_each(|number| set(b"one", number, now).unwrap());
        assert_eq!(set(b"one", capacity + 1, now), Err(ChangeError::TooManyPrecisions));
        set(b"other", 77, now).unwrap();
        keyspace.sweep_precisions(now);
        assert_eq!(
            set(b"one", capacity + 1, now),
            Err(ChangeError::TooManyPrecisions),
            "too fresh to be sure"
        );
        now = now + GRACE + Micros(1);
        keyspace.sweep_precisions(now);
        (0..capacity - 10).for_each(|number| set(b"third", capacity + 1 + number, now).unwrap());
        assert_eq!(keyspace.precision(b"one"), precision(capacity));
        assert_eq!(keyspace.precision(b"other"), precision(77));
        assert_eq!(keyspace.precision(b"new"), Precision::DEFAULT);
    }

    #[test]
    fn a_precision_that_is_given_while_the_walk_is_under_way_stays() {
        let keyspace = Keyspace::new(1, Precision::DEFAULT);
        let mut now = Micros::from_secs(1);
        (2..=PrecisionTable::CAPACITY as i64)
            .for_each(|number| keyspace.set_precision(b"one", precision(number), now, true).unwrap());
        for number in 0..3 * PIECE {
            keyspace.add(format!("n{number}").as_bytes(), Value::ONE, now, true).unwrap();
        }
        now = now + GRACE + Micros(1);
        keyspace.sweep_precisions(now);
        assert!(keyspace.precision_sweep.lock().is_some(), "it takes several pieces");
        for number in 0..100 {
            keyspace
                .set_precision(format!("n{number}").as_bytes(), precision(500 + number), now, true)
                .unwrap();
        }
        while keyspace.precision_sweep.lock().is_some() {
            now = now + Micros::from_secs(1);
            keyspace.sweep_precisions(now);
        }
        assert!(keyspace.precisions.read().len() < 200);
        for number in 0..100 {
            assert_eq!(keyspace.precision(format!("n{number}").as_bytes()), precision(500 + number));
        }
    }
}
