//! One counter as one node knows it: its own shard, and beside it what only some counters need.
//!
//! An idle counter that was only ever incremented here costs one `Counter` (64 bytes) and a table slot.
//! Everything else (a precision of its own, peers' shards, subscribers) lives in `Side`, which is made when
//! first needed.
//!
//! Lacks on purpose: locks, time, and any knowledge of who is told about a change (see `keyspace`).

use crate::time::Micros;
use crate::value::{Value, ValueError};
use smallvec::SmallVec;
use std::num::NonZeroU8;

/// Longest counter name in bytes: what fits the two length bytes of the bus and of the dump files.
pub const MAX_NAME_LEN: usize = 65_535;

/// A counter's name; up to 16 bytes stand in the counter itself.
pub(crate) type Name = SmallVec<[u8; 16]>;

/// Which entry of the keyspace's table of precisions a counter uses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct PrecisionId(pub(crate) u16);

/// Marks of a counter, one bit each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Marks(u8);

impl Marks {
    /// Somebody set its precision on purpose: it is kept though it reads zero.
    pub(crate) const PRECISION_SET: Marks = Marks(1);
    /// It stands in its stripe's list of counters to look at for removal.
    pub(crate) const ZERO_LISTED: Marks = Marks(2);

    pub(crate) fn has(self, mark: Marks) -> bool {
        self.0 & mark.0 != 0
    }

    pub(crate) fn set(&mut self, mark: Marks, on: bool) {
        if on {
            self.0 |= mark.0;
        } else {
            self.0 &= !mark.0;
        }
    }
}

/// A counter's entry.
#[derive(Debug)]
pub(crate) struct Counter {
    name: Name,
    /// What this node counted itself, exact.
    own: Value,
    side: Option<Box<Side>>,
    pub(crate) precision: PrecisionId,
    pub(crate) marks: Marks,
    /// One more than the most decimals that the own shard has ever used; the niche keeps `Option` free.
    decimals_plus_one: NonZeroU8,
}

/// What only some counters need.
#[derive(Debug, Default)]
pub(crate) struct Side {
    /// How many clients subscribe to this counter here.
    pub(crate) subscribers: u32,
}

impl Side {
    fn is_empty(&self) -> bool {
        self.subscribers == 0
    }
}

impl Counter {
    pub(crate) fn new(name: &[u8], precision: PrecisionId) -> Counter {
        Counter {
            name: Name::from_slice(name),
            own: Value::ZERO,
            side: None,
            precision,
            marks: Marks::default(),
            decimals_plus_one: NonZeroU8::MIN,
        }
    }

    pub(crate) fn name(&self) -> &[u8] {
        &self.name
    }

    /// What this node counted itself.
    pub(crate) fn own(&self) -> Value {
        self.own
    }

    /// The value of the counter at this moment: own shard plus every peer's line.
    pub(crate) fn total(&self, _now: Micros) -> Value {
        self.own
    }

    /// Adds to the own shard and returns the new total.
    ///
    /// # Errors
    /// `OutOfRange` if the shard or the total would leave the range; nothing has changed then.
    pub(crate) fn add(&mut self, delta: Value, now: Micros) -> Result<Value, ValueError> {
        let own = self.own.checked_add(delta)?;
        let total = self.total(now).checked_add(delta)?;
        self.put_own(own);
        Ok(total)
    }

    /// Makes the counter read `value`.
    pub(crate) fn set(&mut self, value: Value, _now: Micros) {
        self.put_own(value);
    }

    fn put_own(&mut self, own: Value) {
        self.own = own;
        let decimals = own.decimals() + 1;
        if decimals > self.decimals_plus_one.get() {
            self.decimals_plus_one = NonZeroU8::new(decimals).expect("one more than a count is not zero");
        }
    }

    /// How many clients subscribe to it here.
    pub(crate) fn subscribers(&self) -> u32 {
        self.side.as_ref().map_or(0, |side| side.subscribers)
    }

    pub(crate) fn add_subscriber(&mut self) {
        self.side.get_or_insert_default().subscribers += 1;
    }

    /// The counterpart of `add_subscriber`.
    pub(crate) fn drop_subscriber(&mut self) {
        let side = self.side.as_mut().expect("a subscriber was added before");
        side.subscribers -= 1;
        if side.is_empty() {
            self.side = None;
        }
    }

    /// Whether nothing would be lost if it disappeared: it reads zero and nobody holds on to it.
    pub(crate) fn is_disposable(&self) -> bool {
        self.own.is_zero() && !self.marks.has(Marks::PRECISION_SET) && self.subscribers() == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_idle_counter_costs_64_bytes() {
        assert_eq!(size_of::<Counter>(), 64);
        assert_eq!(size_of::<Option<Counter>>(), 64, "the slab's places must not grow by a tag");
    }
}
