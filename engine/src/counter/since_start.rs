//! What was counted since a start, apart from the state that a peer may still correct (docs/decisions/what-the-departed-leave.md).

use super::Counter;
use crate::generation::{Stated, Subtractions};
use crate::ids::Generation;
use crate::state::SinceBase;
use crate::value::Value;

/// What an own shard holds beside a state that a peer may still correct. It survives a crash in the middle of the recovery
/// from another: a copy of the own shard holds what was counted in the incarnation that published it and in those before.
#[derive(Clone, Debug, Default)]
pub(crate) struct SinceStart {
    /// Counted since this start, units of 10^-17.
    pub(crate) counted: i128,
    /// Counted in earlier incarnations that crashed before they published: which, and how much.
    pub(crate) earlier: Vec<(u32, i128)>,
    /// How much of both the SET in force has seen, which this node has made since. If another one wins, that is counted again.
    pub(super) seen: Option<Seen>,
    /// How many subtractions there were; what was subtracted since is of the state that a peer may correct.
    pub(super) subtractions: usize,
    /// So many of all subtractions are of former lives, or are what made that state one of this life.
    pub(super) former: usize,
    /// That state; a later one replaces it.
    pub(super) base: Stated,
    /// What had been subtracted from it.
    pub(super) base_subtracted: Subtractions,
    /// It is what the author of a SET took it for; what was published under the same number is better.
    pub(super) is_estimate: bool,
    /// A peer had it, and we did not.
    pub(super) is_from_peer: bool,
}

/// What a SET has seen of what its author had counted since the start, and nobody had from it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Seen {
    /// The incarnation of the author: what that has published holds the SET. `NO_LIFE`: this one.
    pub(crate) life: u32,
    /// The generation that the shard left.
    pub(crate) left: Generation,
    /// Units of 10^-17.
    pub(crate) amount: i128,
    /// So much of it is in the state that a peer may still correct, since a peer had that.
    pub(super) held: i128,
}

impl Seen {
    /// Nothing of it is known to be in what a peer has.
    pub(crate) fn new(life: u32, left: Generation, amount: i128) -> Seen {
        Seen { life, left, amount, held: 0 }
    }
}

impl SinceStart {
    /// Nothing has been counted beside this state, from which this has been subtracted.
    pub(super) fn from_state(base: Stated, base_subtracted: Subtractions) -> SinceStart {
        let former = base_subtracted.0.len();
        SinceStart { subtractions: former, former, base, base_subtracted, ..SinceStart::default() }
    }

    /// As the disk has kept it; `own` is in which state the own shard is, from which `subtracted` has been subtracted.
    pub(super) fn from_disk(
        earlier: Vec<(u32, i128)>,
        kept: Option<SinceBase>,
        own: Stated,
        subtracted: &Subtractions,
    ) -> SinceStart {
        let Some(SinceBase { generation, value, subtractions, seen }) = kept else {
            let value = Value::saturating_from_units(own.value.units().saturating_sub(counted_in(&earlier)));
            return SinceStart {
                earlier,
                ..SinceStart::from_state(Stated { value, ..own }, subtracted.clone())
            };
        };
        let before = Subtractions(subtracted.0.iter().take(subtractions).copied().collect());
        let base = Stated { generation, value, ..own };
        SinceStart { earlier, seen, ..SinceStart::from_state(base, before) }
    }

    /// What the state that a peer may still correct does not hold, as the SET in force leaves it.
    pub(super) fn apart(&self) -> i128 {
        self.all().saturating_sub(self.seen.map_or(0, |seen| seen.amount))
    }

    /// Counted in this and those earlier incarnations.
    pub(super) fn all(&self) -> i128 {
        self.counted.saturating_add(counted_in(&self.earlier))
    }

    /// This copy is the state that a peer may still correct from now on; the SET in force made the generation `in_force`. What was
    /// counted in its incarnation and those before is not apart any more. Returns how much less that makes `apart`.
    pub(super) fn note_held(&mut self, copy: &Stated, in_force: Generation) -> i128 {
        let before = self.apart();
        let life = copy.seq.incarnation;
        let (held, later) = self.earlier.iter().partition(|(earlier, _)| *earlier <= life);
        self.earlier = later;
        // Who has made a SET publishes what that leaves.
        self.seen = self.seen.filter(|seen| seen.life > life);
        if let Some(seen) = &mut self.seen {
            seen.held = seen.held.saturating_add(counted_in(&Vec::from_iter(held)));
            if copy.generation >= in_force {
                // A shard in that generation holds nothing that the SET could take away.
                seen.amount = seen.amount.saturating_sub(std::mem::take(&mut seen.held));
            }
        }
        before.saturating_sub(self.apart())
    }

    /// What was counted in which incarnations, this one among them, for the disk. What a SET has seen is taken off if it is not
    /// kept by itself.
    pub(crate) fn kept(&self, incarnation: u32, is_seen_kept: bool) -> Vec<(u32, i128)> {
        let mut since = self.clone();
        if !is_seen_kept {
            since.join();
        }
        let now = (since.counted != 0).then_some((incarnation, since.counted));
        since.earlier.into_iter().chain(now).collect()
    }

    /// What a SET has seen is taken off what was counted. Returns it.
    pub(super) fn join(&mut self) -> Option<Seen> {
        let seen = self.seen.take()?;
        match self.earlier.iter_mut().find(|(life, _)| *life == seen.life) {
            Some((_, counted)) => *counted = counted.saturating_sub(seen.amount),
            None if seen.life == Counter::NO_LIFE => self.counted = self.counted.saturating_sub(seen.amount),
            None => self.earlier.push((seen.life, 0i128.saturating_sub(seen.amount))),
        }
        Some(seen)
    }
}

/// What was counted in these incarnations together. The disk may say anything.
pub(super) fn counted_in<'a>(lives: impl IntoIterator<Item = &'a (u32, i128)>) -> i128 {
    lives.into_iter().fold(0, |sum, (_, counted)| sum.saturating_add(*counted))
}
