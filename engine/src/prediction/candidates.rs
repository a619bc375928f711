//! The lines that might be published, and what each would have cost lately.
//!
//! Slopes are running means of the shard's change over time, measured from write to write so that regular
//! writes give an exact slope after two of them. A scale's mean is over all that was seen until that is
//! longer than the scale, then old changes fade. The write that ends a rest is in none: nobody knows how
//! long it took to come.

use super::{Micros, Point, Rhythm, micros};

/// The time scales of the slopes, in histories: with the default of 10 s they are 0.3, 10 and 80 s. The
/// short one follows what bends, the long one is exact for what does not.
const SCALES: [f64; 3] = [0.03125, 1.0, 8.0];

/// Flat, and one for each scale.
const CANDIDATES: usize = SCALES.len() + 1;

/// Slopes are brought up to date so many times per history, and when a line is drawn.
const FOLDS_PER_HISTORY: f64 = 256.0;

/// A failure costs at most this.
const COST_LIMIT: f32 = 1e6;

/// A candidate takes over if it is cheaper by more than this: less than a failure.
const HYSTERESIS: f32 = 0.25;

/// Room for the rounding of floats when a virtual line touches the limit.
const ROUNDING: f64 = 1.0 + 1e-9;

/// One of the candidates.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Slope {
    /// No slope.
    #[default]
    Flat,
    /// The slope of this scale.
    Scale(u8),
}

impl Slope {
    const ALL: [Slope; CANDIDATES] = [Slope::Flat, Slope::Scale(0), Slope::Scale(1), Slope::Scale(2)];

    fn index(self) -> usize {
        match self {
            Slope::Flat => 0,
            Slope::Scale(scale) => usize::from(scale) + 1,
        }
    }
}

/// A candidate's virtual line and its cost.
#[derive(Clone, Copy, Debug, Default)]
struct Rehearsal {
    /// Where the line is at the track's start.
    origin: f64,
    slope: f64,
}

/// The candidates of one track.
#[derive(Clone, Debug, Default)]
pub(super) struct Candidates {
    /// The write up to which the slopes are.
    folded: Point,
    slopes: [f64; SCALES.len()],
    /// Microseconds that each slope is a mean of; zero if there is none.
    windows: [f32; SCALES.len()],
    costs: [f32; CANDIDATES],
    rehearsals: [Rehearsal; CANDIDATES],
    chosen: Slope,
}

impl Candidates {
    /// Takes the first write of a track.
    pub(super) fn restart(&mut self, point: Point) {
        self.folded = point;
        self.settle(point, 0.0);
    }

    /// Takes a write after a silence that has settled the line: the short scale starts anew.
    pub(super) fn resume(&mut self, point: Point, history: Micros) {
        self.advance(point, history);
        self.windows[0] = 0.0;
    }

    /// Leaves the next change by this much out of the slopes.
    pub(super) fn forgive(&mut self, jump: f64) {
        self.folded.value += jump;
    }

    /// Takes a write that the rhythm has taken.
    pub(super) fn wrote(&mut self, rhythm: &Rhythm, history: Micros) {
        let last = rhythm.last();
        if !rhythm.has_any_gap() {
            self.folded.value = last.value;
        } else if last.at - self.folded.at >= micros(history) / FOLDS_PER_HISTORY {
            self.fold(last, history, rhythm);
        }
    }

    /// Brings slopes and costs up to the last write.
    pub(super) fn fold(&mut self, last: Point, history: Micros, rhythm: &Rhythm) {
        let known = self.windows;
        if !self.advance(last, history) {
            return;
        }
        for (scale, window) in known.iter().enumerate() {
            if *window == 0.0 {
                // Its first slope: the line it had was no choice of its own, so redrawing it is free.
                self.draw(scale + 1, last, false, rhythm);
            }
        }
    }

    fn advance(&mut self, last: Point, history: Micros) -> bool {
        let time = last.at - self.folded.at;
        if time <= 0.0 {
            return false;
        }
        let history = micros(history);
        let change = last.value - self.folded.value;
        for ((slope, window), scale) in self.slopes.iter_mut().zip(&mut self.windows).zip(SCALES) {
            let length = (f64::from(*window) + time).min(scale * history).max(time);
            *slope += (change - *slope * time) / length;
            *window = length as f32;
        }
        self.folded = last;
        let kept = (history / (history + time)) as f32;
        for cost in &mut self.costs {
            *cost *= kept;
        }
        true
    }

    fn draw(&mut self, candidate: usize, point: Point, is_flat: bool, rhythm: &Rhythm) {
        let slope = if is_flat { 0.0 } else { self.slope(Slope::ALL[candidate]) };
        let at = rhythm.centre(point.at, slope);
        self.rehearsals[candidate] = Rehearsal { origin: point.value - slope * at, slope };
    }

    /// Charges and redraws the virtual lines that are off by more than `limit`; the charge is in `unit`s.
    pub(super) fn rehearse(
        &mut self,
        point: Point,
        limit: f64,
        unit: f64,
        has_stopped: bool,
        rhythm: &Rhythm,
        history: Micros,
    ) {
        let limit = limit * ROUNDING;
        for candidate in 0..CANDIDATES {
            let line = self.rehearsals[candidate];
            let off = (point.value - (line.origin + line.slope * point.at)).abs();
            if off > limit {
                self.fold(rhythm.last(), history, rhythm);
                self.costs[candidate] += ((off / unit) as f32).min(COST_LIMIT);
                self.draw(candidate, point, has_stopped, rhythm);
            }
        }
    }

    /// Makes all virtual lines flat and exact, at a price for those that were not.
    pub(super) fn settle(&mut self, point: Point, price: f32) {
        for (line, cost) in self.rehearsals.iter_mut().zip(&mut self.costs) {
            if line.slope != 0.0 || line.origin != point.value {
                *line = Rehearsal { origin: point.value, slope: 0.0 };
                *cost += price;
            }
        }
    }

    /// The cheapest candidate; the one chosen before if none is cheaper by a margin. A slope that was measured
    /// over less than `shortest` microseconds does not count: two increments that happen to come within one
    /// millisecond are no stream of a thousand per second.
    pub(super) fn choose(&mut self, shortest: f64) -> Slope {
        let is_measured = |slope: Slope| match slope {
            Slope::Flat => true,
            Slope::Scale(scale) => f64::from(self.windows[usize::from(scale)]) >= shortest,
        };
        let mut best = if is_measured(self.chosen) { self.chosen } else { Slope::Flat };
        for slope in Slope::ALL {
            if is_measured(slope) && self.costs[slope.index()] + HYSTERESIS < self.costs[best.index()] {
                best = slope;
            }
        }
        self.chosen = best;
        best
    }

    /// Units per microsecond.
    pub(super) fn slope(&self, slope: Slope) -> f64 {
        match slope {
            Slope::Flat => 0.0,
            Slope::Scale(scale) => self.slopes[usize::from(scale)],
        }
    }
}
