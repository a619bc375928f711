//! When writes come and how large they are: the part of a track that knows gaps and steps.
//!
//! Writes of the same microsecond (a pipeline) are one step. Lacks on purpose: any idea of rates.

use super::Point;

/// The weight of the n-th observation in a running mean: all alike at first, then the last eight or so.
const WEIGHTS: [f32; 9] =
    [1.0, 1.0, 1.0 / 2.0, 1.0 / 3.0, 1.0 / 4.0, 1.0 / 5.0, 1.0 / 6.0, 1.0 / 7.0, 1.0 / 8.0];

/// Writes are regular if their gaps differ from the mean by less than this share of it. Random (Poisson)
/// arrivals differ by 0.74, a steady client on a network with delays of half a gap by less than 0.2.
const REGULAR: f32 = 0.45;

/// A silence of so many gaps means that regular writes have stopped.
const SILENCE_REGULAR: f64 = 2.5;

/// The same for irregular ones: at random, one gap in 20,000 is as long.
const SILENCE_RANDOM: f64 = 10.0;

/// A write so many times the mean is a jump, once the mean is one of as many writes as it looks back on.
const JUMP: f32 = 8.0;

/// Running means of the gaps between writes and of their sizes.
#[derive(Clone, Debug, Default)]
pub(super) struct Rhythm {
    /// The shard after the last write.
    last: Point,
    /// The value before the last moment with a write.
    before: f64,
    gap: f32,
    spread: f32,
    step: f32,
    /// Gaps seen, up to 255.
    gaps: u8,
    has_batch: bool,
    had_batch: bool,
    /// Long silences with few writes between them, up to 255; the last one came before the first of the gaps.
    silences: u8,
}

impl Rhythm {
    /// Takes a first write.
    pub(super) fn restart(&mut self, point: Point) {
        *self = Rhythm { last: point, before: point.value, ..Rhythm::default() };
    }

    /// Takes a write after a silence so long that what was known of gaps and steps is of no use.
    pub(super) fn resume(&mut self, point: Point) {
        let before = if usize::from(self.gaps) < WEIGHTS.len() { self.silences } else { 0 };
        self.restart(point);
        self.silences = before.saturating_add(1);
    }

    /// Takes a write.
    pub(super) fn wrote(&mut self, point: Point) {
        let gap = (point.at - self.last.at) as f32;
        if gap > 0.0 {
            let step = (self.last.value - self.before).abs() as f32;
            self.before = self.last.value;
            self.had_batch = std::mem::take(&mut self.has_batch);
            if self.gaps > 0 {
                // The size of the first write after a silence is not part of the rhythm.
                self.step += (step - self.step) * weight(self.gaps);
            }
            self.gaps = self.gaps.saturating_add(1);
            let weight = weight(self.gaps);
            let difference = gap - self.gap;
            self.gap += difference * weight;
            if self.gaps > 1 {
                self.spread += (difference.abs() - self.spread) * weight;
            }
        } else {
            self.has_batch = true;
        }
        self.last = point;
    }

    /// The size of the write that leads to `point` if it is out of proportion and beyond `limit`.
    pub(super) fn jump(&self, point: Point, limit: f64) -> Option<f64> {
        let change = point.value - self.last.value;
        let size = change.abs();
        let is_jump =
            size > limit && size > f64::from(self.step * JUMP) && usize::from(self.gaps) >= WEIGHTS.len();
        is_jump.then_some(change)
    }

    /// The moment and value of the last write.
    pub(super) fn last(&self) -> Point {
        self.last
    }

    /// The mean gap in microseconds.
    pub(super) fn gap(&self) -> f64 {
        f64::from(self.gap)
    }

    /// The mean size of a write in units.
    pub(super) fn step(&self) -> f64 {
        f64::from(self.step)
    }

    /// Whether the mean gap is more than a single one.
    pub(super) fn has_gaps(&self) -> bool {
        self.gaps > 1
    }

    /// Whether there was a gap since the restart.
    pub(super) fn has_any_gap(&self) -> bool {
        self.gaps > 0
    }

    /// Whether long silences are usual, as far as is known: there were two, and the last was followed by a gap at most.
    pub(super) fn is_used_to_silence(&self) -> bool {
        self.silences > 1 && !self.has_gaps()
    }

    /// Whether several writes came at this moment or the one before.
    pub(super) fn is_batched(&self) -> bool {
        self.has_batch || self.had_batch
    }

    /// Where a line of this slope, drawn at `at`, should pass through the last value: if writes are regular and
    /// that is still to come, half a gap after the last write, but never so late that it misses half a write.
    pub(super) fn centre(&self, at: f64, slope: f64) -> f64 {
        if slope == 0.0 || !self.is_regular() {
            return at;
        }
        at.max(self.last.at + 0.5 * self.gap().min(self.step() / slope.abs()))
    }

    fn is_regular(&self) -> bool {
        self.has_gaps() && self.spread < self.gap * REGULAR
    }

    /// Whether, at a moment without a write, the writes seem to be over.
    pub(super) fn has_stopped(&self, at: f64, is_published_since: bool) -> bool {
        let patience = if self.is_regular() { SILENCE_REGULAR } else { SILENCE_RANDOM };
        is_published_since || self.gaps == 0 || at - self.last.at > self.gap() * patience
    }
}

fn weight(count: u8) -> f32 {
    WEIGHTS[usize::from(count).min(WEIGHTS.len() - 1)]
}
