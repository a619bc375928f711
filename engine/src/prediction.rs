//! The prediction of a node's own shard: when to publish a new line, and which.
//!
//! A peer reads a shard off the last [`Line`] that its owner published. The owner keeps a [`Track`] of each
//! shard that moves, shows it every write and asks it again at the deadlines that it names; the answer is a
//! [`Verdict`]. All is pure arithmetic: no clock, no randomness, and no library function whose last digit
//! depends on the machine.
//!
//! Lacks on purpose: frames, peers, the list of deadlines. It never touches a count; floats here are slopes
//! and guesses, and the only exact thing published, the anchor, is the shard's value as it was given.
//!
//! Speaking only when a shared guess fails is dead reckoning (IEEE 1278.1, section 4.2.3.2); raising the
//! threshold instead of slowing the clock is level-triggered sampling (Åström and Bernhardsson, "Comparison
//! of Riemann and Lebesgue sampling for first order stochastic systems", 2002).

mod candidates;
mod line;
mod rhythm;
#[cfg(test)]
mod tests;

use crate::precision::travelling_above;
use crate::time::Micros;
use crate::value::Value;
use candidates::{Candidates, Slope};
pub use line::Line;
use rhythm::Rhythm;

/// How often, and how soon, a counter may and must be published. A busy engine hands in a slower one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pace {
    /// Two updates of a counter are never closer than this.
    pub interval: Micros,
    /// What an update costs the counter's budget: so much time must pass to earn it back.
    pub sustained: Micros,
    /// How many updates the budget holds: with none left, updates are `sustained` apart. At least 1.
    pub burst: u32,
    /// This long after the last change the line is flat and exact.
    pub settle: Micros,
    /// The same if that is a long silence for the counter: what its owner alone knows is then lost by a crash only if the crash
    /// follows the last write at once. At most `settle`.
    pub soon: Micros,
    /// The same for a counter that is not written that often, unless so long a gap or longer silences are usual for it.
    pub quiet: Micros,
    /// The base scale on which slopes are estimated (`history-size`); also how long a counter must be quiet
    /// for its track to be given up. At least `settle`.
    pub history: Micros,
}

impl Default for Pace {
    fn default() -> Pace {
        Pace {
            interval: Micros::from_millis(5),
            sustained: Micros::from_millis(200),
            burst: 32,
            soon: Micros::from_millis(700),
            // Below a second: who has counted nothing for a second loses nothing by a crash.
            quiet: Micros::from_millis(900),
            // The promise is two seconds; the rest is for the way there.
            settle: Micros::from_millis(1_900),
            history: Micros::from_secs(10),
        }
    }
}

/// What to do with a shard now.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Verdict {
    /// The published line will do, or must do for now.
    Wait {
        /// When to call [`Track::on_deadline`] if no write comes first; later than now.
        deadline: Micros,
    },
    /// Publish this line in place of the last one.
    Publish {
        /// The new line, already in force for the track.
        line: Line,
        /// When to call [`Track::on_deadline`] if no write comes first; later than now.
        deadline: Micros,
    },
    /// The published line is flat and exact and nothing has changed for long: the track may be dropped.
    Rest,
}

/// Updates that an early one costs: no counter spends more than a quarter of its earnings on being early.
const EARLY_PRICE: u64 = 4;

/// So many typical gaps without a write are a silence after which a counter may settle soon.
const SILENCE_GAPS: f64 = 5.0;

/// The same for a silence as long as `Pace::quiet`, which hardly any counter that is written several times a second has.
const SHORT_SILENCE_GAPS: f64 = 2.0;

/// The share of the precision that an unspent budget tolerates.
const EARLY_SHARE: f64 = 0.4;

/// A counter writes too seldom for early updates if its gaps are longer than this part of the settle time:
/// settling brings its readers the exact value often enough.
const SELDOM: f64 = 0.125;

/// While less than the first share of the budget is spent, a write that is as large as the precision and would
/// not be seen for long is published at the usual price; up to the second, at three times that.
const UNSEEN_SHARES: [f64; 2] = [0.25, 0.375];
const UNSEEN_PRICE: u64 = 3;

/// A sloping line may show a write so late: readers see it once the line has come within half a write of it.
const UNSEEN_MICROS: f64 = 5_000.0;

/// A precision of more writes than this is a wish for few updates, so none is early.
const EARLY_WRITES: f64 = 64.0;

/// So many lines in a row that failed at once mean that writes are coarser than the precision.
const HOPELESS: u8 = 8;

/// The share of a typical write that a line may be off when writes are coarser than the precision. A line
/// through the middle of a staircase is off by half a step.
const STAIR: f64 = 0.75;

/// What the owner of a moving shard remembers to decide when to publish which line.
///
/// **When.** A line has failed when the shard's deviation from it exceeds the precision. The first change
/// after rest is published at once whatever its size. And while little of the budget is spent, a write as
/// large as the precision is published at once if readers would not see it within 5 ms: with the default
/// precision of 1, who writes a one looks for it on a peer.
///
/// **Pace.** Some counters can't be predicted: a thousand random increments per second leave any line within
/// a few milliseconds. Each counter has a budget of `burst` updates that refills at one per `sustained`, and
/// how much deviation is tolerated depends on how much of it is spent:
///
/// ```text
/// spent       0 ..  1/4        1/4 .. 1/2       1/2 .. all          beyond
/// tolerated   0.4 .. 1         1                doubling, 8 times   all        (times the precision)
/// ```
///
/// So a counter that costs little is published early, one that costs more keeps to its precision, and one
/// that would cost too much is published when its deviation is large *for it*. That is much better than a
/// fixed rhythm: of two lines that cost the same number of updates for a random walk, the one renewed when
/// it is off by some level is on average off by about half as much as the one renewed every so often. Early
/// updates cost four, and are made only of counters with many writes and of deviations beyond one write.
/// While the deviation is over what the line promises and not published, [`Track::overdue_since`] says since when.
///
/// **Coarse writes.** When each write is a larger step than the precision, every line fails at the next step.
/// If eight lines in a row have failed at once, publishing does not help: lines within three quarters of a
/// step are then let be as far as they promise no less, and renewed once per history only.
///
/// **Which.** Four candidates, flat and the slopes of three time scales, each keep a virtual line that is
/// redrawn when it fails, as if it had been the published one. A failure costs by how far the line was off;
/// costs fade over the base scale; a failed published line is replaced by that of the candidate with the
/// lowest cost (`candidates`). A lone increment costs the flat line nothing, so no ramp starts.
///
/// **Stopping.** A slope that runs ahead of a shard without writes is replaced by a flat line if the silence
/// is long for the rhythm of the writes, or if it is the second in this silence. `settle` after the last
/// write at the latest the line becomes flat and exact, whatever the budget says.
///
/// **Centring.** Writes come in steps: right after one, an exact line is right, and just before the next it is
/// a whole step ahead. If writes are regular, the line is laid through the middle of the steps instead, by
/// setting its moment half a gap after the last write. A constant stream of ones then stays within 0.5.
///
/// **Jumps.** A write out of all proportion, larger than the precision, moves the line and is left out of the
/// slopes: a stream goes on after it as before.
///
/// A SET is not a movement: give up the track, publish the value as a flat line, start anew with the next write.
#[derive(Clone, Debug)]
pub struct Track {
    line: Line,
    /// Where the coordinates of `rhythm` and `candidates` have their origin.
    start: Micros,
    base: Value,
    published: Micros,
    /// The precision that the last line was published under; lines are renewed by this until a higher one is published.
    wanted: i128,
    /// How far the truth may be from the last line as its readers know it.
    promised: i128,
    /// Since when it has been further than that; `NEVER` if it was not when last looked at.
    broken: Micros,
    /// When it will be if no write comes.
    breaking: Micros,
    /// The moment at which the budget will be full again.
    repaid: Micros,
    /// Since when the deviation has been over the precision; `NEVER` if it was not when last looked at.
    overdue: Micros,
    /// When the line will leave the precision if no write comes.
    crossing: Micros,
    rhythm: Rhythm,
    candidates: Candidates,
    /// Lines in a row that failed within two gaps.
    failures: u8,
    has_failed: bool,
    is_rehearsed: bool,
    is_fresh: bool,
}

/// A moment and a value as floats, from a track's start: microseconds and units.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Point {
    at: f64,
    value: f64,
}

/// All that a decision looks at.
struct Check<'a> {
    now: Micros,
    value: Value,
    point: Point,
    deviation: i128,
    precision: i128,
    /// The precision of the next line.
    wanted: i128,
    pace: &'a Pace,
    is_first: bool,
}

impl Check<'_> {
    fn size(&self) -> f64 {
        float(self.deviation).abs()
    }

    fn is_within(&self) -> bool {
        self.deviation.unsigned_abs() <= self.precision.unsigned_abs()
    }

    /// The precision to divide by.
    fn unit(&self) -> f64 {
        float(self.precision).max(1.0)
    }
}

impl Track {
    /// A track of a shard that was at rest: its peers know the exact value `known`. Show it the first write next.
    pub fn start(now: Micros, known: Value) -> Track {
        Track {
            line: Line::flat(known, now),
            start: now,
            base: known,
            published: Micros(0),
            wanted: i128::MAX,
            promised: 0,
            broken: Micros::NEVER,
            breaking: Micros::NEVER,
            repaid: Micros(0),
            overdue: Micros::NEVER,
            crossing: Micros::NEVER,
            rhythm: Rhythm::default(),
            candidates: Candidates::default(),
            failures: 0,
            has_failed: false,
            is_rehearsed: false,
            is_fresh: true,
        }
    }

    /// The last published line.
    pub fn line(&self) -> &Line {
        &self.line
    }

    /// How far the truth may be from the last line as it was published, units of 10^-17.
    pub fn promised_units(&self) -> i128 {
        self.promised
    }

    /// When the last line was published; zero: none was yet.
    pub fn published(&self) -> Micros {
        self.published
    }

    /// Since when the shard has been further off its line than was promised; `None` if it is not. Right between deadlines too, if
    /// writes have been shown.
    pub fn overdue_since(&self, now: Micros) -> Option<Micros> {
        let since = self.broken.min(self.breaking);
        (since <= now).then_some(since)
    }

    /// When to look again so that [`Track::overdue_since`] is known in time; later than now.
    pub fn breaks_at(&self, now: Micros) -> Micros {
        match self.broken {
            Micros::NEVER => self.breaking.max(now) + Micros(1),
            _ => Micros::NEVER,
        }
    }

    /// Takes a write that has left the shard at `value`. The precision is in units; below zero is zero.
    pub fn on_write(&mut self, now: Micros, value: Value, precision_units: i128, pace: &Pace) -> Verdict {
        let point = self.point(now, value);
        let is_first = self.is_fresh;
        if is_first || point.at - self.rhythm.last().at >= micros(pace.settle) {
            if is_first {
                self.candidates.restart(point);
                self.rhythm.restart(point);
            } else {
                self.candidates.resume(point, pace.history);
                self.rhythm.resume(point);
            }
            self.failures = 0;
        } else {
            if let Some(jump) = self.rhythm.jump(point, float(precision_units)) {
                self.candidates.forgive(jump);
            }
            self.rhythm.wrote(point);
            self.candidates.wrote(&self.rhythm, pace.history);
        }
        self.check(now, value, point, precision_units, pace, (true, is_first))
    }

    /// Takes the passing of a deadline, or a changed precision, with the shard at `value` as of the last write.
    pub fn on_deadline(&mut self, now: Micros, value: Value, precision_units: i128, pace: &Pace) -> Verdict {
        let point = self.point(now, value);
        self.check(now, value, point, precision_units, pace, (false, false))
    }

    fn point(&self, now: Micros, value: Value) -> Point {
        Point {
            at: micros(now.since(self.start)),
            value: float(value.units().saturating_sub(self.base.units())),
        }
    }

    fn moment(&self, at: f64) -> Micros {
        self.start + Micros(at as u64)
    }

    fn check(
        &mut self,
        now: Micros,
        value: Value,
        point: Point,
        precision_units: i128,
        pace: &Pace,
        (is_write, is_first): (bool, bool),
    ) -> Verdict {
        let deviation = value.units().saturating_sub(self.line.at(now).units());
        let wanted = precision_units.max(0);
        let precision = wanted.min(self.wanted);
        let check = Check { now, value, point, deviation, precision, wanted, pace, is_first };
        self.note_promise(now, deviation);
        self.note_deviation(&check);
        if now >= self.settle_at(pace) {
            return self.settle(&check);
        }
        let spent = self.spent(now, pace);
        let stair = if self.failures >= HOPELESS { self.rhythm.step() * STAIR } else { 0.0 };
        let let_be = if now - self.published < pace.history { stair.min(float(self.promised)) } else { 0.0 };
        let tolerated = (check.unit() * tolerance(spent)).max(let_be);
        let has_stopped = !is_write
            && self.rhythm.has_stopped(point.at, self.published > self.moment(self.rhythm.last().at));
        if is_write || !self.is_rehearsed {
            self.is_rehearsed = !is_write;
            let limit = tolerated.max(check.unit()).max(stair);
            self.candidates.rehearse(point, limit, check.unit(), has_stopped, &self.rhythm, pace.history);
        }
        let Some(price) = self.price(&check, spent, tolerated) else {
            return Verdict::Wait { deadline: self.deadline(&check, spent, let_be) };
        };
        let mut allowed = self.published + pace.interval;
        if is_write && !is_first && self.rhythm.is_batched() {
            // More writes of this moment are likely to follow; one update will do for all of them.
            allowed = allowed.max(now + Micros(1));
        }
        if now < allowed && !is_first {
            return Verdict::Wait { deadline: allowed.min(self.settle_at(pace)) };
        }
        let slope =
            if has_stopped { Slope::Flat } else { self.candidates.choose(2.0 * micros(pace.interval)) };
        self.publish(&check, slope, price)
    }

    /// Publishes a line though the last one would do: readers must learn where the shard has been meanwhile.
    pub fn publish_anyway(
        &mut self,
        now: Micros,
        value: Value,
        precision_units: i128,
        pace: &Pace,
    ) -> Verdict {
        let (point, wanted) = (self.point(now, value), precision_units.max(0));
        let deviation = value.units().saturating_sub(self.line.at(now).units());
        let check = Check { now, value, point, deviation, precision: wanted, wanted, pace, is_first: false };
        let slope = self.candidates.choose(2.0 * micros(pace.interval));
        self.publish(&check, slope, 1)
    }

    /// Keeps the books on what readers were promised.
    fn note_promise(&mut self, now: Micros, deviation: i128) {
        if deviation.unsigned_abs() <= self.promised.unsigned_abs() {
            self.broken = Micros::NEVER;
            self.breaking = self.crossing_after(now, deviation, float(self.promised));
        } else if self.broken == Micros::NEVER {
            self.broken = self.breaking.min(now);
        }
    }

    /// Keeps the books on the deviation: since when it is overdue or when it will be, and how often lines fail.
    fn note_deviation(&mut self, check: &Check) {
        if check.is_within() {
            self.overdue = Micros::NEVER;
            self.crossing = self.crossing_after(check.now, check.deviation, float(check.precision));
            return;
        }
        if self.overdue == Micros::NEVER {
            self.overdue = self.crossing.min(check.now);
        }
        self.crossing = self.overdue;
        if !self.has_failed {
            self.has_failed = true;
            let gaps_lived = micros(check.now - self.published) / self.rhythm.gap().max(1.0);
            if gaps_lived <= 2.0 {
                self.failures = self.failures.saturating_add(1);
            } else if gaps_lived > 8.0 {
                self.failures = 0;
            }
        }
    }

    /// The price of an update, if the deviation deserves one and the interval allows it.
    fn price(&self, check: &Check, spent: f64, tolerated: f64) -> Option<u64> {
        if check.is_first {
            return (check.deviation != 0).then_some(1);
        }
        if !check.is_within() {
            return (check.size() > tolerated).then_some(1);
        }
        if self.is_unseen(check) && spent < UNSEEN_SHARES[1] {
            return Some(if spent < UNSEEN_SHARES[0] { 1 } else { UNSEEN_PRICE });
        }
        let step = self.rhythm.step();
        let is_frequent = self.rhythm.gap() < micros(check.pace.settle) * SELDOM && self.rhythm.has_gaps();
        let is_early =
            is_frequent && check.unit() <= step * EARLY_WRITES && check.size() > tolerated.max(step);
        is_early.then_some(EARLY_PRICE)
    }

    /// Whether readers do not see the last write although its size is the precision or more.
    fn is_unseen(&self, check: &Check) -> bool {
        if self.line.is_flat() {
            check.deviation != 0 && check.deviation.unsigned_abs() == check.precision.unsigned_abs()
        } else {
            let step = if self.rhythm.has_gaps() { self.rhythm.step() } else { check.unit() };
            let behind = float(check.deviation) * self.line.slope.signum() - step * 0.5;
            check.unit() <= step * 1.01 && behind > self.line.slope.abs() * UNSEEN_MICROS
        }
    }

    /// Of the burst, how much is spent: 0 is nothing, 1 all of it, and it may be overdrawn.
    fn spent(&self, now: Micros, pace: &Pace) -> f64 {
        if self.repaid <= now {
            return 0.0;
        }
        micros(self.repaid - now) / (micros(pace.sustained) * f64::from(pace.burst.max(1)))
    }

    /// When to look again if nothing is published now.
    fn deadline(&self, check: &Check, spent: f64, let_be: f64) -> Micros {
        let settle_at = self.settle_at(check.pace);
        let burst = f64::from(check.pace.burst.max(1));
        if check.is_within() {
            if check.deviation == 0 && self.line.is_flat() {
                return self.rest_at(check.pace).max(check.now + Micros(1));
            }
            let mut next = self.crossing + Micros(1);
            if self.is_unseen(check) {
                let refill = (spent - UNSEEN_SHARES[1]).max(0.0) * micros(check.pace.sustained) * burst;
                next = next.min(check.now + Micros(refill as u64 + 1));
            }
            let earliest = (self.published + check.pace.interval).max(check.now + Micros(1));
            return next.max(earliest).min(settle_at);
        }
        let limit = settle_at.since(check.now);
        let wait = self.ripe_after(check, let_be, limit).max(check.pace.interval).max(Micros(1));
        check.now + wait.min(limit)
    }

    /// When the deviation will be beyond what is tolerated if no write comes, as seen from now: the budget refills while the
    /// line runs on. Late by a quarter of the interval at most; too soon if the line runs towards the shard, or if a step that is
    /// `let_be` (units) no longer is. At most `limit`.
    fn ripe_after(&self, check: &Check, let_be: f64, mut limit: Micros) -> Micros {
        let pace = check.pace;
        let slope = self.line.slope;
        let is_running_away = (check.deviation > 0) != (slope > 0.0);
        let growth = if is_running_away { slope.abs() } else { 0.0 };
        if !is_running_away {
            // By then it is as far beyond the shard as it is behind now. `as` saturates.
            limit = limit.min(Micros((2.0 * check.size() / slope.abs()) as u64));
        }
        if let_be > 0.0 {
            limit = limit.min((self.published + pace.history).since(check.now));
        }
        let is_ripe = |wait: Micros| {
            let tolerated = check.unit() * tolerance(self.spent(check.now + wait, pace));
            check.size() + growth * micros(wait) > tolerated.max(let_be)
        };
        let (mut early, mut late) = (Micros(0), limit);
        if is_ripe(late) {
            while late - early > Micros((pace.interval.0 / 4).max(1)) {
                let middle = Micros(u64::midpoint(early.0, late.0));
                if is_ripe(middle) { late = middle } else { early = middle }
            }
        }
        late
    }

    /// When the deviation reaches `limit` units if no write comes.
    fn crossing_after(&self, now: Micros, deviation: i128, limit: f64) -> Micros {
        let slope = self.line.slope;
        if slope == 0.0 {
            return Micros::NEVER;
        }
        let room = limit + if slope > 0.0 { float(deviation) } else { -float(deviation) };
        // `as` saturates: a slope next to nothing never gets there.
        now + Micros((room / slope.abs()).max(0.0) as u64)
    }

    fn settle_at(&self, pace: &Pace) -> Micros {
        let gap = self.rhythm.gap();
        let after = if self.rhythm.has_gaps() && gap * SILENCE_GAPS <= micros(pace.soon) {
            pace.soon
        } else if gap * SHORT_SILENCE_GAPS <= micros(pace.quiet) && !self.rhythm.is_used_to_silence() {
            pace.quiet
        } else {
            pace.settle
        };
        self.moment(self.rhythm.last().at) + after
    }

    fn rest_at(&self, pace: &Pace) -> Micros {
        self.moment(self.rhythm.last().at) + pace.history
    }

    fn settle(&mut self, check: &Check) -> Verdict {
        let rest_at = self.rest_at(check.pace);
        if self.line.is_flat() && check.deviation == 0 {
            self.candidates.settle(check.point, 0.0);
            return if check.now >= rest_at { Verdict::Rest } else { Verdict::Wait { deadline: rest_at } };
        }
        let allowed = self.published + check.pace.interval;
        if check.now < allowed {
            return Verdict::Wait { deadline: allowed };
        }
        self.candidates.settle(check.point, 1.0);
        self.publish(check, Slope::Flat, 1)
    }

    fn publish(&mut self, check: &Check, slope: Slope, price: u64) -> Verdict {
        let pace = check.pace;
        self.candidates.fold(self.rhythm.last(), pace.history, &self.rhythm);
        // As many digits as travel: owner and readers must draw the very same line.
        let slope = f64::from(self.candidates.slope(slope) as f32);
        let ahead = self.rhythm.centre(check.point.at, slope) - check.point.at;
        let moment = check.now + Micros(ahead as u64);
        self.line = Line { anchor: check.value, slope, moment };
        self.published = check.now;
        self.repaid = self.repaid.max(check.now) + Micros(pace.sustained.0.saturating_mul(price));
        self.has_failed = false;
        self.is_fresh = false;
        let deviation = check.value.units().saturating_sub(self.line.at(check.now).units());
        let stair = if self.failures >= HOPELESS { self.rhythm.step() * STAIR } else { 0.0 };
        // `as` saturates. A step beyond the precision is promised as such, or nobody could say for when the line holds.
        let strays = (stair as i128).max(deviation.saturating_abs());
        self.promised = if strays > check.wanted { travelling_above(strays) } else { check.wanted };
        self.wanted = check.wanted;
        self.broken = Micros::NEVER;
        self.note_promise(check.now, deviation);
        if deviation.unsigned_abs() <= check.precision.unsigned_abs() {
            self.overdue = Micros::NEVER;
            self.crossing = self.crossing_after(check.now, deviation, float(check.precision));
        } else {
            // Centred on steps that are larger than the precision allows.
            self.overdue = check.now;
            self.crossing = check.now;
        }
        let deadline = if self.line.is_flat() {
            self.rest_at(pace)
        } else {
            (self.crossing + Micros(1)).max(check.now + pace.interval).min(self.settle_at(pace))
        };
        Verdict::Publish { line: self.line, deadline: deadline.max(check.now + Micros(1)) }
    }
}

/// What is tolerated, in precisions, at this share of the budget spent.
fn tolerance(spent: f64) -> f64 {
    if spent < 0.25 {
        EARLY_SHARE + spent * 4.0 * (1.0 - EARLY_SHARE)
    } else if spent < 0.5 {
        1.0
    } else if spent < 1.0 {
        // 2 to the power of `doublings`, with straight lines between the whole powers.
        let doublings = (spent - 0.5) * 16.0;
        let whole = doublings.floor();
        (1.0 + doublings - whole) * f64::from(1u32 << whole as u32)
    } else {
        f64::INFINITY
    }
}

fn micros(time: Micros) -> f64 {
    time.0 as f64
}

/// Near enough the float nearest to `units`, by two conversions and a multiplication instead of a library call.
fn float(units: i128) -> f64 {
    ((units >> 64) as i64 as f64) * 18_446_744_073_709_551_616.0 + (units as u64 as f64)
}
