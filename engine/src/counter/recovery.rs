//! What a node does about its own shards after a start: what it has counted since is kept apart from the state that a peer may
//! still correct (docs/decisions/what-the-departed-leave.md).

use super::{Counter, Full};
use crate::generation::Stated;
use crate::ids::Seq;
use crate::prediction::Track;
use crate::time::Micros;
use crate::value::Value;

/// What an own shard holds beside a state that a peer may still correct. It survives a crash in the middle of the recovery
/// from another: a copy of the own shard holds what was counted in the incarnation that published it and in those before.
#[derive(Clone, Debug, Default)]
pub(crate) struct SinceStart {
    /// Counted since this start, units of 10^-17.
    pub(crate) counted: i128,
    /// Counted in earlier incarnations that crashed before they published: which, and how much.
    pub(crate) earlier: Vec<(u32, i128)>,
    /// How many subtractions there were; what was subtracted since is of the state that a peer may correct.
    pub(super) subtractions: usize,
    /// The number of that state; a later one replaces it.
    pub(super) from: Seq,
    /// A peer had it, and we did not.
    pub(super) is_from_peer: bool,
}

impl SinceStart {
    /// What a copy published in that incarnation does not hold.
    pub(super) fn beyond(&self, incarnation: u32) -> i128 {
        let later = self.earlier.iter().filter(|(earlier, _)| *earlier > incarnation);
        self.counted + later.map(|(_, counted)| counted).sum::<i128>()
    }
}

impl Counter {
    /// To `recover` before anything is published.
    pub(crate) const NO_LIFE: u32 = u32::MAX;

    /// Takes over the state of the own shard that a peer has kept, if it is later than the one that we have started from; what was
    /// counted here since then comes on top. False if ours was as late, or it is of this `life` itself: of that incarnation
    /// or a later one.
    pub(crate) fn recover(&mut self, copy: Stated, life: u32, decimals: u8, now: Micros) -> bool {
        let before = (self.own(), self.stated().generation);
        let full = self.make_full();
        let known = full.since_start.as_ref().map_or(full.seq, |start| start.from);
        if copy.seq <= known || copy.seq.incarnation >= life {
            return false;
        }
        full.begin_recovery(0);
        let mut since = 0;
        if let Some(start) = &mut full.since_start {
            since = start.beyond(copy.seq.incarnation);
            full.subtracted.0.truncate(start.subtractions);
            (start.from, start.is_from_peer) = (copy.seq, true);
        }
        full.seq = full.seq.max(copy.seq);
        full.generation = copy.generation;
        let mut units = copy.value.units();
        if let Some(record) = full.record.as_deref()
            && record.generation > copy.generation
        {
            let counted = record.counts(&copy);
            full.subtracted.note(copy.generation, units - counted);
            full.generation = record.generation;
            full.is_restated = true;
            units = counted;
        }
        let own = Value::saturating_from_units(units + since);
        if life == Counter::NO_LIFE {
            full.track =
                (since != 0).then(|| Box::new(Track::start(now, Value::saturating_from_units(units))));
        } else if (own, full.generation) != before {
            // Others have passed over what came before this life: it is said anew.
            (full.is_restated, full.track) = (true, None);
        }
        self.put_own(own);
        self.widen_decimals(decimals);
        true
    }

    /// The author of a SET that does not know yet what an earlier one had observed of its shard has seen what it counted itself since
    /// its start. What that had observed is set against what peers hand back.
    pub(super) fn see_all_counted_since_start(&mut self) {
        let left = self.own().units();
        let Some(full) = self.full_mut().filter(|full| left != 0 && full.since_start.is_some()) else {
            return;
        };
        if let Some((_, amount)) = full.subtracted.0.last_mut() {
            *amount += left;
        }
        self.put_own(Value::ZERO);
    }
}

impl Full {
    pub(crate) fn since_start(&self) -> Option<&SinceStart> {
        self.since_start.as_deref()
    }

    /// From now on, notes what is counted beside the state that a peer may still correct.
    pub(crate) fn begin_recovery(&mut self, counted: i128) {
        let (subtractions, from) = (self.subtracted.0.len(), self.seq);
        self.since_start.get_or_insert_with(|| {
            Box::new(SinceStart { counted, earlier: Vec::new(), subtractions, from, is_from_peer: false })
        });
    }

    /// The same when the copies that peers hold are from before a CLUSTER RESET: all of the own shard came after them, unless
    /// something of it was published.
    pub(crate) fn begin_recovery_after_reset(&mut self, own: i128) {
        if self.seq != Seq::ZERO {
            return;
        }
        self.begin_recovery(0);
        if let Some(since) = &mut self.since_start {
            since.counted = own;
            since.earlier.clear();
        }
    }

    /// Publishing begins; others have our stream up to `head`.
    pub(crate) fn begin_publishing(&mut self, head: Seq) {
        if let Some(start) = &mut self.since_start {
            // A life of ours in between had not got it back, so some who know what that has published may not have it.
            let was_passed_over = start.from.incarnation < head.incarnation;
            self.is_restated |= std::mem::take(&mut start.is_from_peer) && was_passed_over;
        }
    }

    /// No peer can hold a later state any more.
    pub(crate) fn end_recovery(&mut self) {
        self.since_start = None;
    }
}
