//! Synthetic counters: when they are written, and by how much.
//!
//! A [`Workload`] says what kind of counter; its [`Writes`] are the writes of one counter of the kind, the
//! same for the same seed. Rates follow a [`Shape`] over time; writes are spaced along it regularly or at
//! random. Lacks on purpose: nodes, links, and any idea of how the writes are published.
//!
//! Amounts are whole thousandths, so that sums are exact in an `i64`.

use engine::time::Micros;

/// Thousandths in one.
pub const THOUSANDTHS: i64 = 1_000;

/// Rates are constant for so many microseconds.
const STEP_MICROS: u64 = 1_000;

/// Random numbers: xoshiro256++ (Blackman and Vigna, 2019), seeded by splitmix64. A few lines of our own, so
/// that a seed means the same run for as long as this file does.
#[derive(Clone, Debug)]
pub struct Random {
    state: [u64; 4],
}

impl Random {
    /// The sequence of this seed.
    pub fn new(seed: u64) -> Random {
        let mut x = seed;
        Random {
            state: std::array::from_fn(|_| {
                x = x.wrapping_add(0x9e37_79b9_7f4a_7c15);
                let z = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
                let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
                z ^ (z >> 31)
            }),
        }
    }

    /// 64 random bits.
    pub fn bits(&mut self) -> u64 {
        let state = &mut self.state;
        let result = state[0].wrapping_add(state[3]).rotate_left(23).wrapping_add(state[0]);
        let shifted = state[1] << 17;
        state[2] ^= state[0];
        state[3] ^= state[1];
        state[1] ^= state[2];
        state[0] ^= state[3];
        state[2] ^= shifted;
        state[3] = state[3].rotate_left(45);
        result
    }

    /// Uniform, 0 included and 1 not.
    pub fn unit(&mut self) -> f64 {
        (self.bits() >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// Exponentially distributed with mean 1: the gaps of random arrivals.
    pub fn exponential(&mut self) -> f64 {
        -(1.0 - self.unit()).ln()
    }
}

/// Writes per second over time. Each counter has a phase of its own.
#[allow(missing_docs, reason = "the variants explain their fields")]
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Shape {
    /// A single write, some time in the first five minutes.
    Once,
    /// Always this rate.
    Steady(f64),
    /// This rate for `on` seconds, none for `off` seconds.
    Bursts { rate: f64, on: f64, off: f64 },
    /// A sine between zero and twice the mean, with a period in seconds.
    Sine { mean: f64, period: f64 },
    /// A quiet counter that is suddenly on everybody's lips: an exponential rise to the peak, five to ten
    /// minutes in, and an exponential decay, with time constants in seconds.
    Flash { quiet: f64, peak: f64, rise: f64, decay: f64 },
    /// Two rates by turns, so many seconds each.
    Alternating { low: f64, high: f64, each: f64 },
}

/// How writes are placed along the rate.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Spacing {
    /// As evenly as the rate allows.
    Regular,
    /// Evenly, but each late by up to this share of a gap.
    Late(f64),
    /// Evenly, but held until the next multiple of so many microseconds: batches.
    Batched(u64),
    /// At random (Poisson).
    Random,
}

/// What a write adds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Amount {
    /// So many thousandths.
    Always(i64),
    /// One up or one down.
    Coin,
    /// A whole number from 1 to this.
    UpTo(i64),
}

/// A kind of counter.
#[derive(Clone, Copy, Debug)]
pub struct Workload {
    /// What a table calls it.
    pub name: &'static str,
    /// Writes per second over time.
    pub shape: Shape,
    /// How writes are placed along the rate.
    pub spacing: Spacing,
    /// What a write adds.
    pub amount: Amount,
}

impl Workload {
    /// The largest single write.
    pub fn largest_jump(&self) -> f64 {
        match self.amount {
            Amount::Always(thousandths) => thousandths.abs() as f64 / THOUSANDTHS as f64,
            Amount::Coin => 1.0,
            Amount::UpTo(most) => most as f64,
        }
    }

    /// The decimals of every value of such a counter.
    pub fn decimals(&self) -> i32 {
        match self.amount {
            Amount::Always(thousandths) if thousandths % THOUSANDTHS != 0 => 3,
            Amount::Always(_) | Amount::Coin | Amount::UpTo(_) => 0,
        }
    }

    /// The writes of the counter with this seed.
    pub fn writes(&self, seed: u64) -> Writes {
        let mut random = Random::new(seed);
        let phase = random.unit();
        let next_at = if self.spacing == Spacing::Random { random.exponential() } else { random.unit() };
        Writes { workload: *self, random, phase, now_micros: 0, due: 0.0, step_due: 0.0, next_at }
    }

    /// Writes per second after so many seconds, for a counter with this phase (0 to 1).
    fn rate(&self, seconds: f64, phase: f64) -> f64 {
        match self.shape {
            Shape::Once => 0.0,
            Shape::Steady(rate) => rate,
            Shape::Bursts { rate, on, off } => {
                if (seconds + phase * (on + off)) % (on + off) < on {
                    rate
                } else {
                    0.0
                }
            }
            Shape::Sine { mean, period } => {
                mean * (1.0 + (std::f64::consts::TAU * (seconds / period + phase)).sin())
            }
            Shape::Flash { quiet, peak, rise, decay } => {
                let from_peak = seconds - 300.0 * (1.0 + phase);
                let scale = if from_peak < 0.0 { rise } else { decay };
                quiet + peak * (-from_peak.abs() / scale).exp()
            }
            Shape::Alternating { low, high, each } => {
                if (seconds / each + 2.0 * phase) % 2.0 < 1.0 {
                    low
                } else {
                    high
                }
            }
        }
    }
}

/// The writes of one counter, in the order of time.
#[derive(Clone, Debug)]
pub struct Writes {
    workload: Workload,
    random: Random,
    phase: f64,
    /// The end of the present step.
    now_micros: u64,
    /// Writes that the rate has brought by the end of the present step, and in it.
    due: f64,
    step_due: f64,
    /// The next write comes when `due` reaches this.
    next_at: f64,
}

impl Writes {
    /// The next write before `until`: its moment and the thousandths that it adds. Call it with the same
    /// `until` only.
    pub fn next_before(&mut self, until: Micros) -> Option<(Micros, i64)> {
        if self.workload.shape == Shape::Once {
            let at = Micros((self.phase * 300e6) as u64);
            let is_done = std::mem::replace(&mut self.now_micros, u64::MAX) == u64::MAX;
            return (!is_done && at < until).then(|| (at, self.amount()));
        }
        while self.next_at >= self.due {
            if self.now_micros >= until.0 {
                return None;
            }
            let rate = self.workload.rate(self.now_micros as f64 / 1e6, self.phase);
            self.step_due = rate * STEP_MICROS as f64 / 1e6;
            self.due += self.step_due;
            self.now_micros += STEP_MICROS;
        }
        let mut at = self.now_micros as f64 - (self.due - self.next_at) / self.step_due * STEP_MICROS as f64;
        self.next_at += match self.workload.spacing {
            Spacing::Random => self.random.exponential(),
            Spacing::Regular | Spacing::Late(_) | Spacing::Batched(_) => 1.0,
        };
        match self.workload.spacing {
            Spacing::Late(share) => at += self.random.unit() * share / self.step_due * STEP_MICROS as f64,
            Spacing::Batched(micros) => at = (at / micros as f64).ceil() * micros as f64,
            Spacing::Regular | Spacing::Random => {}
        }
        Some((Micros(at as u64), self.amount()))
    }

    fn amount(&mut self) -> i64 {
        match self.workload.amount {
            Amount::Always(thousandths) => thousandths,
            Amount::Coin => THOUSANDTHS - 2 * THOUSANDTHS * (self.random.bits() >> 63) as i64,
            Amount::UpTo(most) => THOUSANDTHS * (1 + (self.random.unit() * most as f64) as i64),
        }
    }
}

const fn of(name: &'static str, shape: Shape, spacing: Spacing, amount: Amount) -> Workload {
    Workload { name, shape, spacing, amount }
}

const ONE: Amount = Amount::Always(THOUSANDTHS);

/// The kinds by which the prediction is judged.
pub const STANDARD: &[Workload] = &[
    of("one jump of 100", Shape::Once, Spacing::Regular, Amount::Always(100 * THOUSANDTHS)),
    of("constant 100/s", Shape::Steady(100.0), Spacing::Regular, ONE),
    of("Poisson 0.1/s", Shape::Steady(0.1), Spacing::Random, ONE),
    of("Poisson 1/s", Shape::Steady(1.0), Spacing::Random, ONE),
    of("Poisson 10/s", Shape::Steady(10.0), Spacing::Random, ONE),
    of("Poisson 1,000/s", Shape::Steady(1_000.0), Spacing::Random, ONE),
    of("bursts of 100/s", Shape::Bursts { rate: 100.0, on: 5.0, off: 10.0 }, Spacing::Random, ONE),
    of("sine 0-100/s, 2 min", Shape::Sine { mean: 50.0, period: 120.0 }, Spacing::Regular, ONE),
    of("random walk 10/s", Shape::Steady(10.0), Spacing::Random, Amount::Coin),
    of(
        "flash crowd 2,000/s",
        Shape::Flash { quiet: 1.0, peak: 2_000.0, rise: 10.0, decay: 60.0 },
        Spacing::Random,
        ONE,
    ),
];

/// The same kinds with other numbers: what holds for the standard ones must not be luck.
pub const VARIATIONS: &[Workload] = &[
    of("one jump of 1", Shape::Once, Spacing::Regular, ONE),
    of("one jump of -7.5", Shape::Once, Spacing::Regular, Amount::Always(-7_500)),
    of("one jump of 0.5", Shape::Once, Spacing::Regular, Amount::Always(500)),
    of("constant 1/s", Shape::Steady(1.0), Spacing::Regular, ONE),
    of("constant 2/s", Shape::Steady(2.0), Spacing::Regular, ONE),
    of("constant 7/s", Shape::Steady(7.0), Spacing::Regular, ONE),
    of("constant 1,000/s", Shape::Steady(1_000.0), Spacing::Regular, ONE),
    of("constant 20,000/s", Shape::Steady(20_000.0), Spacing::Regular, ONE),
    of("constant 100/s of -1", Shape::Steady(100.0), Spacing::Regular, Amount::Always(-THOUSANDTHS)),
    of("constant 100/s of 0.25", Shape::Steady(100.0), Spacing::Regular, Amount::Always(250)),
    of("constant 10/s of 5", Shape::Steady(10.0), Spacing::Regular, Amount::Always(5 * THOUSANDTHS)),
    of("constant 10/s, late", Shape::Steady(10.0), Spacing::Late(0.2), ONE),
    of("constant 100/s, late", Shape::Steady(100.0), Spacing::Late(0.5), ONE),
    of("constant 1,000/s in 1 ms", Shape::Steady(1_000.0), Spacing::Batched(1_000), ONE),
    of("constant 1,000/s in 10 ms", Shape::Steady(1_000.0), Spacing::Batched(10_000), ONE),
    of("Poisson 0.5/s", Shape::Steady(0.5), Spacing::Random, ONE),
    of("Poisson 100/s", Shape::Steady(100.0), Spacing::Random, ONE),
    of("Poisson 10/s of 1-10", Shape::Steady(10.0), Spacing::Random, Amount::UpTo(10)),
    of("bursts of 10/s", Shape::Bursts { rate: 10.0, on: 5.0, off: 10.0 }, Spacing::Random, ONE),
    of("bursts of 10/s, even", Shape::Bursts { rate: 10.0, on: 5.0, off: 10.0 }, Spacing::Regular, ONE),
    of("bursts of 100/s, even", Shape::Bursts { rate: 100.0, on: 5.0, off: 10.0 }, Spacing::Regular, ONE),
    of("bursts of 1,000/s", Shape::Bursts { rate: 1_000.0, on: 5.0, off: 10.0 }, Spacing::Random, ONE),
    of("sine 0-100/s, random", Shape::Sine { mean: 50.0, period: 120.0 }, Spacing::Random, ONE),
    of("sine 0-20/s, 5 min", Shape::Sine { mean: 10.0, period: 300.0 }, Spacing::Regular, ONE),
    of("sine 0-2,000/s, 1 min", Shape::Sine { mean: 1_000.0, period: 60.0 }, Spacing::Regular, ONE),
    of("sine 0-2,000/s, 10 min", Shape::Sine { mean: 1_000.0, period: 600.0 }, Spacing::Regular, ONE),
    of("random walk 1/s", Shape::Steady(1.0), Spacing::Regular, Amount::Coin),
    of("random walk 100/s", Shape::Steady(100.0), Spacing::Regular, Amount::Coin),
    of("random walk 1,000/s", Shape::Steady(1_000.0), Spacing::Random, Amount::Coin),
    of(
        "flash crowd 200/s",
        Shape::Flash { quiet: 0.1, peak: 200.0, rise: 20.0, decay: 60.0 },
        Spacing::Random,
        ONE,
    ),
    of(
        "flash crowd 5,000/s, even",
        Shape::Flash { quiet: 1.0, peak: 5_000.0, rise: 3.0, decay: 30.0 },
        Spacing::Regular,
        ONE,
    ),
    of(
        "10 and 50/s by turns",
        Shape::Alternating { low: 10.0, high: 50.0, each: 7.0 },
        Spacing::Regular,
        ONE,
    ),
    of(
        "100 and 1,000/s by turns",
        Shape::Alternating { low: 100.0, high: 1_000.0, each: 20.0 },
        Spacing::Random,
        ONE,
    ),
];

#[cfg(test)]
mod tests {
    use super::*;

    fn count(workload: &Workload, seed: u64, seconds: u64) -> (usize, Micros) {
        let until = Micros::from_secs(seconds);
        let mut writes = workload.writes(seed);
        let mut last = Micros(0);
        let mut count = 0;
        while let Some((at, _)) = writes.next_before(until) {
            assert!(at >= last || matches!(workload.spacing, Spacing::Late(_)));
            last = at;
            count += 1;
        }
        (count, last)
    }

    #[test]
    fn a_seed_is_a_run() {
        for workload in STANDARD {
            assert_eq!(count(workload, 7, 60), count(workload, 7, 60));
        }
        assert_ne!(count(&STANDARD[5], 7, 60), count(&STANDARD[5], 8, 60));
    }

    #[test]
    fn rates_are_what_their_names_say() {
        let near = |name: &str, expected: f64| {
            let workload = STANDARD.iter().find(|workload| workload.name == name).unwrap();
            let total: usize = (0..10).map(|seed| count(workload, seed, 120).0).sum();
            let rate = total as f64 / 1_200.0;
            assert!((rate / expected - 1.0).abs() < 0.1, "{name}: {rate} per second");
        };
        near("constant 100/s", 100.0);
        near("Poisson 10/s", 10.0);
        near("Poisson 1,000/s", 1_000.0);
        near("bursts of 100/s", 100.0 / 3.0);
        near("sine 0-100/s, 2 min", 50.0);
    }

    #[test]
    fn one_jump_is_one_write() {
        assert_eq!(count(&STANDARD[0], 3, 300).0, 1);
    }
}
