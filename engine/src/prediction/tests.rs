//! The claims of `prediction`, on virtual time.

use super::*;
use proptest::prelude::*;

const ONE: i128 = 100_000_000_000_000_000;

/// An owner that does as it is told, at once, and remembers what it published.
struct Owner {
    track: Option<Track>,
    line: Line,
    value: i128,
    now: Micros,
    deadline: Micros,
    precision: i128,
    pace: Pace,
    published: Vec<Micros>,
    /// How often a deadline has passed.
    asked: usize,
    /// The first moment at which the line in force was seen to be off, since it was last seen not to be.
    seen_off: Micros,
}

impl Owner {
    fn new(precision: i128) -> Owner {
        Owner {
            track: None,
            line: Line::flat(Value::ZERO, Micros(0)),
            value: 0,
            now: Micros::from_secs(1),
            deadline: Micros::NEVER,
            precision,
            pace: Pace::default(),
            published: Vec::new(),
            asked: 0,
            seen_off: Micros::NEVER,
        }
    }

    fn take(&mut self, verdict: Verdict) {
        match verdict {
            Verdict::Wait { deadline } => self.deadline = deadline,
            Verdict::Publish { line, deadline } => {
                assert_eq!(line.anchor.units(), self.value, "the anchor is the exact value");
                self.line = line;
                self.deadline = deadline;
                self.published.push(self.now);
                self.seen_off = Micros::NEVER;
            }
            Verdict::Rest => {
                assert_eq!(self.line.anchor.units(), self.value);
                assert!(self.line.is_flat());
                self.track = None;
                self.deadline = Micros::NEVER;
            }
        }
        assert!(self.deadline > self.now, "a deadline is in the future");
        self.look();
    }

    fn promised(&self) -> i128 {
        self.track.as_ref().map_or(0, Track::promised_units)
    }

    fn look(&mut self) {
        let is_within = self.deviation() <= self.promised();
        self.seen_off = if is_within { Micros::NEVER } else { self.seen_off.min(self.now) };
    }

    fn run_until(&mut self, until: Micros) {
        while self.deadline <= until {
            self.now = self.deadline;
            self.asked += 1;
            let value = Value::saturating_from_units(self.value);
            let mut track = self.track.take().expect("only a track names deadlines");
            let verdict = track.on_deadline(self.now, value, self.precision, &self.pace);
            self.track = Some(track);
            self.take(verdict);
        }
        self.now = until;
        self.look();
    }

    fn run_for(&mut self, time: Micros) {
        self.run_until(self.now + time);
    }

    fn write(&mut self, change: i128) {
        let before = Value::saturating_from_units(self.value);
        let mut track = self.track.take().unwrap_or_else(|| Track::start(self.now, before));
        let value = Value::saturating_from_units(self.value + change);
        self.value = value.units();
        let verdict = track.on_write(self.now, value, self.precision, &self.pace);
        self.track = Some(track);
        self.take(verdict);
    }

    fn stream(&mut self, writes: u64, gap: Micros, change: i128) {
        for _ in 0..writes {
            self.run_for(gap);
            self.write(change);
        }
    }

    fn deviation(&self) -> i128 {
        (self.value - self.line.at(self.now).units()).abs()
    }

    fn is_exact(&self) -> bool {
        self.line.is_flat() && self.line.anchor.units() == self.value
    }

    fn published_since(&self, moment: Micros) -> usize {
        self.published.iter().filter(|at| **at > moment).count()
    }
}

#[test]
fn first_change_after_rest_is_published_at_once() {
    for change in [ONE, -ONE, ONE / 1000, 1_000_000 * ONE] {
        let mut owner = Owner::new(10 * ONE);
        owner.write(change);
        assert!(owner.is_exact());
        assert_eq!(owner.published.len(), 1);
    }
}

#[test]
fn one_jump_needs_at_most_two_updates() {
    for change in [ONE, -7 * ONE, ONE / 2, 12_345_678 * ONE] {
        let mut owner = Owner::new(ONE);
        owner.write(change);
        owner.run_for(Micros::from_secs(60));
        assert!(owner.published.len() <= 2);
        assert!(owner.is_exact());
    }
}

#[test]
fn lone_increments_start_no_ramp() {
    let mut owner = Owner::new(ONE);
    for _ in 0..10 {
        owner.run_for(Micros::from_secs(30));
        owner.write(ONE);
        for _ in 0..20 {
            owner.run_for(Micros::from_secs(1));
            assert!(owner.is_exact());
        }
    }
    assert_eq!(owner.published.len(), 10);
}

#[test]
fn a_close_pair_starts_no_ramp() {
    for gap in [Micros(0), Micros(300), Micros(1_000), Micros(4_000), Micros(20_000)] {
        let mut owner = Owner::new(ONE);
        for _ in 0..3 {
            owner.write(ONE);
            owner.run_for(gap);
        }
        for _ in 0..2_000 {
            owner.run_for(Micros::from_millis(1));
            assert!(owner.deviation() <= 2 * ONE, "{gap:?}: {}", owner.deviation());
        }
        assert!(owner.published.len() <= 5, "{gap:?}: {} updates", owner.published.len());
    }
}

#[test]
fn single_increments_are_seen_at_once_with_the_default_precision() {
    let mut owner = Owner::new(ONE);
    for _ in 0..100 {
        owner.run_for(Micros::from_secs(1));
        owner.run_for(Micros(owner.value as u64 % 300_000));
        owner.write(ONE);
        owner.run_for(Micros::from_millis(10));
        assert!(owner.deviation() < ONE, "seen within 10 ms");
    }
}

#[test]
fn a_reader_who_waits_for_each_increment_seldom_waits_20_ms() {
    // Pauses in milliseconds between seeing one and making the next: at least, and at random on top.
    for (pause, more) in
        [(0, 0), (1, 0), (7, 2), (50, 5), (300, 10), (1_100, 20), (300, 90), (50, 450), (1_000, 2_000)]
    {
        let mut owner = Owner::new(ONE);
        let mut waits = Vec::new();
        for round in 0..1_000_u64 {
            owner.run_for(Micros(pause * 1_000 + (round * round * 7_919) % (1 + more * 1_000)));
            owner.write(ONE);
            let written = owner.now;
            // Rounded, as GET reads it.
            while (owner.line.at(owner.now).units() + ONE / 2) / ONE * ONE < owner.value {
                owner.run_for(Micros(200));
            }
            waits.push(owner.now - written);
        }
        waits.sort();
        assert!(waits[990] <= Micros::from_millis(20), "{pause} and up to {more} ms: {:?}", waits[990]);
    }
}

#[test]
fn regular_streams_need_almost_no_updates_and_stay_centred() {
    for (gap, change) in [
        (Micros(1_000_000), ONE),
        (Micros(100_000), ONE),
        (Micros(10_000), -ONE),
        (Micros(7_003), ONE / 4),
        (Micros(1_000), ONE),
        (Micros(10), ONE),
    ] {
        let mut owner = Owner::new(ONE);
        owner.stream(10 + 20_000 / gap.0, gap, change);
        for _ in 0..2_000 {
            owner.run_for(gap);
            assert!(owner.deviation() <= change.abs() * 61 / 100, "{gap:?}: {}", owner.deviation());
            owner.write(change);
        }
        assert!(owner.published.len() <= 5, "{gap:?}: {} updates", owner.published.len());
    }
}

#[test]
fn steady_stream_needs_almost_none_with_a_relative_precision() {
    // 1,000 per second, each up to half a gap late, precision 1%.
    let mut owner = Owner::new(ONE);
    let start = owner.now;
    for n in 1..100_000_u64 {
        owner.precision = (owner.value / 100).max(ONE);
        owner.run_until(start + Micros(n * 1_000 + (n * 7_919) % 500));
        owner.write(ONE);
    }
    assert!(owner.published.len() < 15, "{} updates", owner.published.len());
    assert!(owner.published_since(start + Micros::from_secs(10)) < 5);
}

#[test]
fn random_stream_needs_almost_none_with_a_relative_precision() {
    // 1,000 random (Poisson) increments per second, precision 1%: fewer than one update per 10 s once learned.
    for seed in 1..4_u64 {
        let mut owner = Owner::new(ONE);
        let start = owner.now;
        let mut random = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let mut at = start.0 as f64;
        while at < 61e6 {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            at -= ((random >> 11) as f64 / (1_u64 << 53) as f64).ln() * 1_000.0;
            owner.precision = (owner.value / 100).max(ONE);
            owner.run_until(Micros(at as u64));
            owner.write(ONE);
        }
        let learned = start + Micros::from_secs(20);
        assert!(owner.published_since(learned) <= 3, "seed {seed}: {}", owner.published_since(learned));
    }
}

#[test]
fn a_jump_does_not_bend_a_learned_stream_for_long() {
    let mut owner = Owner::new(ONE);
    owner.stream(6_000, Micros::from_millis(10), ONE);
    let learned = owner.now;
    owner.write(1_000 * ONE);
    owner.stream(3_000, Micros::from_millis(10), ONE);
    assert!(owner.published_since(learned) <= 20, "{} updates", owner.published_since(learned));
    let later = learned + Micros::from_secs(20);
    assert!(owner.published_since(later) <= 1, "{} updates", owner.published_since(later));
}

#[test]
fn a_stream_that_stops_is_flat_soon() {
    let mut owner = Owner::new(ONE);
    owner.stream(500, Micros::from_millis(10), ONE);
    let stopped = owner.now;
    owner.run_for(Micros::from_millis(50));
    assert!(owner.is_exact());
    owner.run_for(Micros::from_secs(20));
    assert!(owner.published_since(stopped) <= 2);
}

#[test]
fn changes_below_the_precision_become_exact_when_settled() {
    let mut owner = Owner::new(10 * ONE);
    owner.write(ONE);
    owner.run_for(Micros::from_millis(300));
    owner.write(ONE);
    assert_eq!(owner.published.len(), 1);
    owner.run_for(owner.pace.settle);
    assert!(owner.is_exact());
    assert_eq!(owner.published.len(), 2);
}

#[test]
fn what_was_counted_before_a_quiet_second_is_exact_whatever_the_rhythm_was() {
    const SECOND: Micros = Micros::from_secs(1);
    for gaps_ms in [
        &[][..],
        &[300],
        &[300, 310],
        &[20; 100],
        &[400; 30],
        &[90, 1_500, 80, 70, 90, 85],
        &[100, 2_500, 90],
    ] {
        let mut owner = Owner::new(10 * ONE);
        owner.write(3 * ONE);
        for &gap in gaps_ms {
            owner.run_for(Micros::from_millis(gap));
            owner.write(3 * ONE);
        }
        owner.run_for(SECOND);
        assert!(owner.is_exact(), "after gaps of {gaps_ms:?} ms");
    }
}

#[test]
fn a_counter_of_long_silences_costs_nothing_in_the_shorter_ones() {
    let mut owner = Owner::new(10 * ONE);
    let gaps_ms = [2_500, 2_500, 1_200, 2_500, 1_200, 2_500, 1_200];
    for gap in gaps_ms {
        owner.write(ONE);
        owner.run_for(Micros::from_millis(gap));
    }
    // What the first of the four long ones follows was published when it was written.
    let long = gaps_ms.iter().filter(|gap| **gap == 2_500).count();
    assert_eq!(owner.published.len(), long);
    owner.run_for(owner.pace.settle);
    assert!(owner.is_exact());
}

#[test]
fn rests_after_settling() {
    let mut owner = Owner::new(ONE);
    owner.stream(50, Micros::from_millis(33), ONE);
    owner.run_for(owner.pace.history);
    assert!(owner.track.is_none());
    assert!(owner.is_exact());
}

#[test]
fn writes_of_one_moment_cost_one_update() {
    let mut owner = Owner::new(ONE);
    owner.stream(300, Micros::from_millis(50), 10 * ONE);
    let before = owner.published.len();
    for _ in 0..100 {
        owner.run_for(Micros::from_millis(211));
        for _ in 0..10 {
            owner.write(3 * ONE);
        }
    }
    assert!(owner.published.len() - before <= 120);
}

#[test]
fn steps_coarser_than_the_precision_are_not_published_in_vain() {
    let mut owner = Owner::new(ONE);
    owner.stream(600, Micros::from_millis(100), 5 * ONE);
    let learned = owner.now;
    owner.stream(600, Micros::from_millis(100), 5 * ONE);
    assert!(owner.published_since(learned) <= 7, "{} updates", owner.published_since(learned));
    assert!(owner.deviation() <= 5 * ONE);
}

#[test]
fn a_counter_of_coarse_writes_does_not_break_its_promise_for_long() {
    // One of many counters that all get 1 to 8 at a time, each about once a second, at a precision of 1.
    const GAPS_MS: [u64; 7] = [310, 1_450, 890, 620, 1_800, 140, 1_170];
    let mut owner = Owner::new(ONE);
    let mut longest = Micros(0);
    for n in 0..600 {
        owner.write(i128::from(n * 5 % 8 + 1) * ONE);
        for _ in 0..GAPS_MS[n as usize % GAPS_MS.len()] / 10 {
            owner.run_for(Micros::from_millis(10));
            let since = owner.track.as_ref().and_then(|track| track.overdue_since(owner.now));
            longest = longest.max(owner.now - since.unwrap_or(owner.now));
        }
    }
    assert!(longest <= Micros::from_millis(20), "{longest:?}");
}

#[test]
fn a_raised_precision_is_claimed_with_the_next_line() {
    let (pace, mut track) = (Pace::default(), Track::start(Micros::from_secs(1), Value::ZERO));
    let write = |track: &mut Track, at, units, precision| {
        track.on_write(at, Value::from_units(units).unwrap(), precision, &pace)
    };
    let at = Micros::from_secs(1);
    assert!(matches!(write(&mut track, at, ONE, ONE), Verdict::Publish { .. }));
    assert_eq!(track.promised_units(), ONE);
    // Readers were told 1: a write of 3 is news to them, whatever the owner thinks by now.
    let later = at + Micros::from_secs(1);
    assert!(matches!(write(&mut track, later, 4 * ONE, 100 * ONE), Verdict::Publish { .. }));
    assert_eq!(track.promised_units(), 100 * ONE);
    let later = later + Micros::from_secs(1);
    assert!(matches!(write(&mut track, later, 90 * ONE, 100 * ONE), Verdict::Wait { .. }));
    assert_eq!(track.overdue_since(later), None);
}

#[test]
fn overdue_is_known_before_the_deadline_is_handled() {
    let mut owner = Owner::new(ONE);
    owner.stream(500, Micros::from_millis(10), ONE);
    let track = owner.track.as_ref().unwrap();
    assert_eq!(track.overdue_since(owner.now), None);
    // The line is in the middle of a step: it is off by 0.5 now and by -1 in 15 ms.
    let since = track.overdue_since(owner.now + Micros::from_secs(1)).unwrap();
    assert!(since > owner.now + Micros::from_millis(14) && since < owner.now + Micros::from_millis(16));
}

#[test]
fn the_age_of_a_line_carries_over_to_another_clock() {
    let line = Line { anchor: Value::from_integer(7), slope: 1e12, moment: Micros(5_000_000) };
    for now in [Micros(4_000_000), Micros(9_000_000)] {
        for their_now in [Micros(0), Micros(3), Micros(1 << 60)] {
            let theirs = Line::from_age(line.anchor, line.slope, line.age_micros(now), their_now);
            assert_eq!(theirs.at(their_now), line.at(now));
            assert_eq!(theirs.at(their_now + Micros(1_000)), line.at(now + Micros(1_000)));
        }
    }
}

#[test]
fn tolerance_doubles() {
    assert_eq!(tolerance(0.0), EARLY_SHARE);
    assert_eq!(tolerance(0.25), 1.0);
    assert_eq!(tolerance(0.5), 1.0);
    assert_eq!(tolerance(0.75), 16.0);
    assert_eq!(tolerance(1.0), f64::INFINITY);
}

#[test]
fn a_counter_of_coarse_writes_is_seldom_asked_between_them() {
    for (gap, size) in [(50, 50), (330, 50), (330, 3), (700, 1_000)] {
        let mut owner = Owner::new(ONE);
        let mut dice = 7u64;
        for _ in 0..500 {
            dice = dice.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let (pause, change) = (1 + (dice >> 33) % (2 * gap), 1 + i128::from(dice >> 40) % (2 * size));
            owner.stream(1, Micros::from_millis(pause), ONE * change);
        }
        let published = owner.published.len();
        assert!(published > 50, "{published} updates, a write each {gap} ms of about {size}");
        assert!(owner.asked < 3 * 500, "asked {} times, a write each {gap} ms of about {size}", owner.asked);
    }
}

#[test]
fn the_ends_of_the_range_and_odd_precisions_are_harmless() {
    for precision in [i128::MIN, -1, 0, 1, i128::MAX] {
        let mut owner = Owner::new(precision);
        for change in [Value::MAX.units(), -ONE, Value::MIN.units(), Value::MIN.units(), ONE, 1, -1] {
            owner.write(change);
            owner.run_for(Micros::from_millis(3));
        }
        owner.run_for(Micros::from_secs(20));
        assert!(owner.is_exact());
    }
}

/// Gaps of all sizes, mostly alike for a while, and changes of all sizes.
fn writes() -> impl Strategy<Value = Vec<(u64, i64)>> {
    let gap = prop_oneof![0..3_u64, 50..5_000_u64, 5_000..200_000_u64, 200_000..3_000_000_u64];
    let change = prop_oneof![Just(1_000_i64), -3_000..3_000_i64, -1_000_000..1_000_000_i64];
    let run = (1..40_usize, gap, change, any::<bool>()).prop_map(|(n, gap, change, is_varied)| {
        (0..n as u64)
            .map(|i| {
                if is_varied {
                    (gap * (1 + i * i % 7) / 3, change - (i as i64 * 377) % 1_000)
                } else {
                    (gap, change)
                }
            })
            .collect::<Vec<_>>()
    });
    prop::collection::vec(run, 1..12).prop_map(|runs| runs.concat())
}

proptest! {
    #[test]
    fn deviation_never_exceeds_what_was_promised_without_being_overdue(
        writes in writes(),
        precision in prop_oneof![Just(ONE), Just(0), Just(ONE / 10), Just(20 * ONE)],
    ) {
        let mut owner = Owner::new(precision);
        for (gap, change) in writes {
            for part in 0..5 {
                if part < 4 {
                    owner.run_for(Micros(gap / 4 + part % 2));
                } else {
                    owner.write(i128::from(change) * ONE / 1_000);
                }
                if owner.deviation() > owner.promised() {
                    let since = owner.track.as_ref().and_then(|track| track.overdue_since(owner.now));
                    prop_assert!(since.is_some(), "off by {} and not overdue", owner.deviation());
                    prop_assert!(since.is_some_and(|since| since <= owner.seen_off));
                }
            }
        }
    }

    #[test]
    fn settles_exactly_within_settle_time(writes in writes(), precision in prop_oneof![Just(ONE), Just(0), Just(1_000 * ONE)]) {
        let mut owner = Owner::new(precision);
        for (gap, change) in writes {
            owner.run_for(Micros(gap));
            owner.write(i128::from(change) * ONE / 1_000);
        }
        owner.run_for(owner.pace.settle + owner.pace.interval);
        prop_assert!(owner.is_exact());
        let settled = owner.published.len();
        owner.run_for(Micros::from_secs(60));
        prop_assert_eq!(owner.published.len(), settled);
        prop_assert!(owner.track.is_none());
    }

    #[test]
    fn pace_is_respected(writes in writes(), precision in prop_oneof![Just(ONE), Just(0), Just(20 * ONE)]) {
        let mut owner = Owner::new(precision);
        for (gap, change) in writes {
            owner.run_for(Micros(gap));
            owner.write(i128::from(change) * ONE / 1_000);
        }
        owner.run_for(Micros::from_secs(20));
        for pair in owner.published.windows(2) {
            prop_assert!(pair[1] - pair[0] >= owner.pace.interval, "{:?}", pair);
        }
        let allowance = owner.pace.burst as usize + 2;
        for (first, from) in owner.published.iter().enumerate() {
            for (last, to) in owner.published.iter().enumerate().skip(first) {
                let earned = ((*to - *from).0 / owner.pace.sustained.0) as usize;
                prop_assert!(last - first <= earned + allowance);
            }
        }
    }
}
