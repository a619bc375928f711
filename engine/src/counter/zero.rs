//! Zeros: what users do not see any more, and what may be removed.

use super::{Counter, Full, Marks, Side};
use crate::ids::Generation;
use crate::shard::PeerShard;
use crate::time::Micros;

impl Counter {
    /// Whether it reads zero for good here: no shard counts anything, none moves, and none is still to be restated.
    pub(crate) fn is_zero(&self) -> bool {
        self.reads_zero(|full, shard| {
            // A flat line at zero is not the end: the truth may stray by the precision until the shard rests.
            // One that is zero need not be restated: its owner may have removed it, and has nothing to say any more.
            shard.moving().is_none()
                && (shard.value().is_zero()
                    || shard.generation(full.record_generation()) >= full.record_generation())
        })
    }

    /// Whether users should not see it: it was deleted, and nobody has counted since.
    #[inline]
    pub(crate) fn is_deleted(&self) -> bool {
        matches!(self.side, Side::Full(_)) && self.is_full_and_deleted()
    }

    fn is_full_and_deleted(&self) -> bool {
        self.full().and_then(Full::record).is_some_and(|record| record.is_deletion)
            && self.reads_zero(|full, shard| shard.moving().is_none() || !full.is_counted(shard))
    }

    fn reads_zero(&self, is_as_it_should: impl Fn(&Full, &PeerShard) -> bool) -> bool {
        if !self.own().is_zero() {
            return false;
        }
        match &self.side {
            Side::None => true,
            Side::Plain(plain) => plain.value.is_zero(),
            Side::Full(full) => {
                full.record().is_none_or(|record| record.value.is_zero())
                    && full.peers.iter().all(|shard| {
                        (shard.is_zero() || !full.is_counted(shard)) && is_as_it_should(full, shard)
                    })
            }
        }
    }

    /// Whether somebody may still ask what it was at this moment or later, when it was something else.
    pub(crate) fn past_is_needed(&self, needed: Micros) -> bool {
        self.full().and_then(|full| full.trail.as_deref()).is_some_and(|trail| trail.last() >= needed)
    }

    /// Whether nobody here holds on to it: a zero may go.
    pub(crate) fn is_disposable(&self) -> bool {
        self.is_let_go() && self.is_zero()
    }

    /// The highest generation in which anything of it is stated here.
    pub(crate) fn highest_generation(&self) -> Generation {
        let record = self.generation();
        let of_shards = self.full().into_iter().flat_map(|full| {
            full.peers.iter().map(move |peer| peer.generation(record)).chain([full.generation])
        });
        of_shards.fold(record, Generation::max)
    }

    /// Whether nobody holds on to it, it rests, and its parts cancel out though they are not zero.
    pub(crate) fn is_balanced(&self) -> bool {
        let Some(full) = self.full().filter(|_| self.is_let_go()) else { return false };
        if full.track.is_some() || full.peers.iter().any(|peer| peer.moving().is_some()) {
            return false;
        }
        // Nothing moves, so any moment will do.
        let parts = full.parts(self.stated(), Micros(0), None);
        parts.fold(0, i128::saturating_add) == 0 && !self.is_zero()
    }

    fn is_let_go(&self) -> bool {
        !self.marks.has(Marks::PRECISION_SET) && self.subscribers() == 0
    }
}
