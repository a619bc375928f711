//! What a counter was a moment ago: what GET BOUND needs to speak of one moment for all shards.
//!
//! A claim of GET BOUND is about the latest moment for which every member has vouched for its lines, a few hundred
//! milliseconds ago, or longer if a member is silent. A shard that has not changed since then needs no memory. One that has
//! leaves here what it was before: the own shard its values, a peer's shard the line that was replaced. All is freed once
//! every member has vouched for a later moment, so a counter at rest has no trail.
//!
//! Invariants: at most `MAX_OWN` pasts and `MAX_REPLACED` lines per member; at the limit neighbours become one, which
//! makes bounds wider and never wrong. Nothing here changes what GET reads.

use crate::generation::{Observed, Record, Stated};
use crate::ids::{Generation, MemberIndex, Seq};
use crate::shard::{Horizons, PeerShard};
use crate::time::Micros;
use crate::value::Value;
use smallvec::SmallVec;

/// Most remembered pasts of the own shard.
const MAX_OWN: usize = 4;

/// Most remembered lines of one member's shard.
const MAX_REPLACED: usize = 6;

/// Changes of the own shard that are no further apart than this part of what must be remembered become one past.
const OWN_SHARE: u64 = 3;

/// All numbers from `low` to `high`, units of 10^-17.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Span {
    pub(crate) low: i128,
    pub(crate) high: i128,
}

impl Span {
    const ANY: Span = Span { low: i128::MIN, high: i128::MAX };

    pub(crate) fn exactly(units: i128) -> Span {
        Span { low: units, high: units }
    }

    pub(crate) fn including(self, other: Span) -> Span {
        Span { low: self.low.min(other.low), high: self.high.max(other.high) }
    }

    pub(crate) fn widened(self, by: i128) -> Span {
        Span { low: self.low.saturating_sub(by), high: self.high.saturating_add(by) }
    }

    fn shifted(self, by: i128) -> Span {
        Span { low: self.low.saturating_add(by), high: self.high.saturating_add(by) }
    }

    /// How far the furthest of them is from this number.
    pub(crate) fn distance(self, units: i128) -> i128 {
        units.saturating_sub(self.low).max(self.high.saturating_sub(units)).max(0)
    }

    /// By how much it must be widened to include the other.
    fn lacks(self, other: Span) -> i128 {
        self.low.saturating_sub(other.low).max(other.high.saturating_sub(self.high)).max(0)
    }
}

/// What the own shard was until a moment.
#[derive(Clone, Copy, Debug)]
struct Past {
    until: Micros,
    values: Span,
}

/// A peer's shard that a later one has replaced here.
#[derive(Clone, Debug)]
struct Replaced {
    shard: PeerShard,
    /// When the later one arrived.
    until: Micros,
    /// Its owner had vouched for it up to this moment.
    vouched: Micros,
    /// How much further off the truth may have been after `vouched`, since more lines than one are meant.
    spread: i128,
}

/// Where an own shard has been.
#[derive(Clone, Copy, Debug)]
struct Course {
    values: Span,
    /// How far above the published line.
    deviations: Span,
}

/// Stands for a shard of which nothing was known: it counted nothing. Under a SET that has seen some of it since, it counted less
/// than nothing then. How much less is known if the SET has seen it as stated in this generation.
pub(crate) fn nothing_of(member: MemberIndex, generation: Generation, record: Option<&Record>) -> PeerShard {
    let mut nothing = PeerShard::new(member, Seq::ZERO, Value::ZERO, 0, None, Vec::new());
    nothing.base_on(generation.into(), record);
    nothing
}

impl Course {
    fn of(value: i128, line: i128) -> Course {
        Course { values: Span::exactly(value), deviations: Span::exactly(value.saturating_sub(line)) }
    }

    fn including(self, other: Course) -> Course {
        Course {
            values: self.values.including(other.values),
            deviations: self.deviations.including(other.deviations),
        }
    }
}

/// The recent past of one counter.
#[derive(Debug, Default)]
pub(crate) struct Trail {
    own: SmallVec<[Past; MAX_OWN]>,
    replaced: Vec<Replaced>,
    /// Where the own shard has been since the cluster looked at it.
    recent: Option<Course>,
    /// Since when it has been further from its line than was promised, and where, if readers have not been told.
    stray: Option<(Micros, Course)>,
    /// It stands in the cluster's queue of trails.
    pub(crate) is_listed: bool,
}

impl Trail {
    /// The own shard has just changed, while its published line stood at `line`. Between two writes the deviation lies between
    /// what it was at them.
    pub(crate) fn note_deviation(&mut self, before: i128, after: i128, line: i128) {
        let both = Course::of(before, line).including(Course::of(after, line));
        self.recent = Some(self.recent.map_or(both, |recent| recent.including(both)));
    }

    /// The own shard was `before` until now; what it was at `needed` or later is still asked for.
    pub(crate) fn note_own(&mut self, before: i128, now: Micros, needed: Micros) {
        if needed == Micros::NEVER {
            return;
        }
        let before = Span::exactly(before);
        let share = Micros(now.since(needed).0 / OWN_SHARE);
        if let [.., earlier, last] = self.own.as_mut_slice()
            && now.since(earlier.until) < share
        {
            last.until = last.until.max(now);
            last.values = last.values.including(before);
            return;
        }
        self.forget_own(needed);
        if self.own.len() == MAX_OWN {
            // The first stays as it is: while a member is silent, it is what is asked for.
            let second = self.own.remove(1);
            self.own[1].values = self.own[1].values.including(second.values);
        }
        let until = self.own.last().map_or(now, |last| now.max(last.until));
        self.own.push(Past { until, values: before });
    }

    /// The own shard was restated: what it was is meant in the new terms from now on.
    pub(crate) fn shift_own(&mut self, by: i128) {
        self.own.iter_mut().for_each(|past| past.values = past.values.shifted(by));
        // It has no line any more, so it may have been any way off that.
        let stray = self.stray.take().map(|(_, course)| course);
        let course = self.recent.into_iter().chain(stray).reduce(Course::including);
        self.recent =
            course.map(|course| Course { values: course.values.shifted(by), deviations: Span::ANY });
    }

    /// Nobody is told where the own shard has been.
    pub(crate) fn forget_course(&mut self) {
        (self.recent, self.stray) = (None, None);
    }

    /// Before anything was published, the state that the own shard began with has turned out to be `anchor`; so what was counted
    /// since stands on that, `by` further up.
    pub(crate) fn rebase_own(&mut self, anchor: i128, by: i128) {
        self.own.iter_mut().for_each(|past| past.values = past.values.shifted(by));
        if let Some(Course { values, deviations }) = &mut self.recent {
            *values = values.shifted(by);
            *deviations = values.shifted(anchor.saturating_neg());
        }
    }

    /// Whether the own shard has moved since the cluster looked at it.
    pub(crate) fn has_moved(&self) -> bool {
        self.recent.is_some()
    }

    /// What the own shard was at a moment, given what it is now.
    pub(crate) fn own_at(&self, moment: Micros, current: i128) -> Span {
        let past = self.own.iter().find(|past| past.until > moment);
        past.map_or(Span::exactly(current), |past| past.values)
    }

    /// The cluster looks at the own shard, which stands at `value` and its line at `line`; that promises `precision`. `since`: the
    /// last look.
    pub(crate) fn note_look(&mut self, value: i128, line: i128, precision: i128, since: Micros) {
        let current = Course::of(value, line);
        let course = self.recent.take().map_or(current, |recent| recent.including(current));
        let Span { low, high } = course.deviations;
        if low < -precision || high > precision {
            let before = self.stray;
            self.stray =
                Some(before.map_or((since, course), |(since, before)| (since, before.including(course))));
        }
    }

    /// Since when the own shard may have been further from its line than that promises, if readers have not been told.
    pub(crate) fn strayed_since(&self) -> Option<Micros> {
        self.stray.map(|(since, _)| since)
    }

    /// The own shard is published as `anchor`. How far it has been, since its line held last, outside of all between that line
    /// (give or take `precision`) and the anchor.
    pub(crate) fn take_excursion(&mut self, anchor: i128, precision: i128) -> i128 {
        let Some((_, Course { values, deviations })) = self.stray.take() else { return 0 };
        let above = deviations.high.saturating_sub(precision).min(values.high.saturating_sub(anchor));
        let below = (-precision).saturating_sub(deviations.low).min(anchor.saturating_sub(values.low));
        above.max(below).max(0)
    }

    /// A peer's shard is replaced now. Its owner had vouched for it up to a moment.
    pub(crate) fn note_replaced(
        &mut self,
        shard: PeerShard,
        (now, vouched): (Micros, Micros),
        view: &View<'_>,
    ) {
        let member = shard.member();
        self.replaced.push(Replaced { shard, until: now, vouched, spread: 0 });
        let lines =
            |trail: &Trail| trail.replaced.iter().filter(|line| line.shard.member() == member).count();
        if lines(self) > MAX_REPLACED {
            self.join_closest(member, view);
        }
    }

    /// Makes one of the two neighbouring lines of this member that were replaced closest after each other.
    fn join_closest(&mut self, member: MemberIndex, view: &View<'_>) {
        let places = self.replaced.iter().enumerate().filter(|(_, line)| line.shard.member() == member);
        let places: SmallVec<[usize; MAX_REPLACED]> = places.map(|(place, _)| place).collect();
        let life = |pair: &[usize]| self.replaced[pair[1]].until.since(self.replaced[pair[0]].until);
        // Not the first: while a member is silent, it is what is asked for.
        let Some(pair) = places[1..].windows(2).min_by_key(|pair| life(pair)) else { return };
        let (first, second) = (pair[0], pair[1]);
        let later = self.replaced.remove(second);
        let earlier = &mut self.replaced[first];
        let lacks = view.lacks(earlier, &later).unwrap_or(i128::MAX);
        (earlier.until, earlier.spread) = (later.until, earlier.spread.max(lacks));
    }

    /// All that a member's shard may have counted at a moment, given what is known of it now. `None`: it may be anything.
    pub(crate) fn peer_at(
        &self,
        member: MemberIndex,
        moment: Micros,
        current: Option<&PeerShard>,
        view: &View<'_>,
    ) -> Option<Span> {
        let mut before =
            self.replaced.iter().filter(|line| line.shard.member() == member && line.until > moment);
        let mut found: Option<Span> = None;
        let mut line = before.next();
        while let Some(replaced) = line {
            let part = view.part(Some(&replaced.shard), moment)?;
            let include =
                |found: Option<Span>, span: Span| Some(found.map_or(span, |found| found.including(span)));
            found = include(found, part);
            if moment <= replaced.vouched {
                return found;
            }
            found = include(found, part.widened(replaced.spread));
            // If publications between the two were left out, it may have stood still while its line ran on.
            found = include(found, view.anchor(Some(&replaced.shard))?);
            let next = before.next();
            let (anchor, excursion) = view.said(next.map_or(current, |next| Some(&next.shard)))?;
            found = include(found, part.including(anchor).widened(excursion));
            line = next;
        }
        let last = view.part(current, moment)?;
        Some(found.map_or(last, |found| found.including(last)))
    }

    /// The counter has another record now.
    pub(crate) fn note_new_record(&mut self, before: Option<&Record>, now: &Record) {
        self.replaced.iter_mut().for_each(|line| line.shard.note_new_record(before, now));
    }

    /// Members that have left something here.
    pub(crate) fn members(&self) -> impl Iterator<Item = MemberIndex> {
        self.replaced.iter().map(|line| line.shard.member())
    }

    fn forget_own(&mut self, needed: Micros) {
        self.own.retain(|past| past.until >= needed);
    }

    /// Forgets what nobody asks for any more: all before `needed`. True if nothing is left.
    pub(crate) fn forget_before(&mut self, needed: Micros) -> bool {
        self.forget_own(needed);
        self.replaced.retain(|line| line.until >= needed);
        self.own.is_empty() && self.replaced.is_empty() && self.recent.is_none() && self.stray.is_none()
    }

    /// When its last entry may be forgotten.
    pub(crate) fn last(&self) -> Micros {
        let own = self.own.last().map_or(Micros(0), |past| past.until);
        self.replaced.iter().map(|line| line.until).max().unwrap_or(Micros(0)).max(own)
    }
}

/// How shards count: under this record, drawn as far as the horizons allow.
#[derive(Clone, Copy)]
pub(crate) struct View<'a> {
    pub(crate) record: Option<&'a Record>,
    pub(crate) horizons: &'a Horizons,
}

impl View<'_> {
    fn generation(&self) -> Generation {
        self.record.map_or(Generation::ZERO, |record| record.generation)
    }

    /// All that a shard may have counted at a moment at which its line held. `None`, here and below: it may be anything.
    fn part(&self, shard: Option<&PeerShard>, moment: Micros) -> Option<Span> {
        let Some(shard) = shard else { return Some(Span::exactly(0)) };
        let (value, error) = shard.drawn(moment, self.horizons);
        Some(self.counted(&Stated { value, ..shard.as_published(self.generation()) })?.widened(error))
    }

    /// What a shard counted when it was published, and how far it had been outside of all between that and the line before.
    fn said(&self, shard: Option<&PeerShard>) -> Option<(Span, i128)> {
        let excursion = shard.map_or(Some(0), |shard| shard.excursion().units())?;
        Some((self.anchor(shard)?, excursion))
    }

    /// What a shard counted when it was published.
    fn anchor(&self, shard: Option<&PeerShard>) -> Option<Span> {
        shard.map_or(Some(Span::exactly(0)), |shard| self.counted(&shard.as_published(self.generation())))
    }

    /// By how much what an earlier line says must be widened so that it includes the line that replaced it.
    fn lacks(&self, earlier: &Replaced, later: &Replaced) -> Option<i128> {
        let part = |line: &Replaced, at| self.part(Some(&line.shard), at);
        let (anchor, excursion) = self.said(Some(&later.shard))?;
        let said = anchor.widened(excursion);
        let mut lacks =
            part(earlier, earlier.vouched)?.lacks(said).max(part(earlier, earlier.until)?.lacks(said));
        for at in [earlier.vouched, later.until] {
            lacks = lacks.max(part(earlier, at)?.lacks(part(later, at)?.widened(later.spread)));
        }
        Some(lacks)
    }

    /// What a shard counts. One that the SET's author has seen may have moved on since, along the same line: then its copy
    /// counts nothing here, and the truth the difference.
    fn counted(&self, shard: &Stated) -> Option<Span> {
        let Some(record) = self.record else { return Some(Span::exactly(shard.value.units())) };
        let counted = Span::exactly(record.counts(shard));
        let seen = record.observed_of(shard.member).filter(|_| shard.generation < record.generation);
        let since = |seen: &Observed| Span::exactly(shard.value.units().saturating_sub(seen.value.units()));
        record.is_clear(shard).then(|| seen.map_or(counted, |seen| counted.including(since(seen))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shard::{Excursion, Moving};

    const OTHER: MemberIndex = MemberIndex(1);

    fn ms(ms: u64) -> Micros {
        Micros::from_millis(ms)
    }

    fn span(low: i128, high: i128) -> Span {
        Span { low, high }
    }

    fn shard(n: u64, units: i128, precision: Option<i128>) -> PeerShard {
        let value = Value::from_units(units).unwrap();
        let moving = precision.map(|precision_units| Moving {
            slope: 0.0,
            moment: ms(n),
            moment_error: Micros(0),
            precision_units,
        });
        PeerShard::new(OTHER, Seq { incarnation: 1, n }, value, 17, moving, Vec::new())
    }

    #[test]
    fn the_own_shard_is_remembered_as_it_was_at_a_moment() {
        let mut trail = Trail::default();
        for (at, before) in [(1_000, 0), (1_100, 5), (1_200, 3)] {
            trail.note_own(before, ms(at), ms(900));
        }
        assert_eq!(trail.own_at(ms(950), 9), span(0, 0));
        assert_eq!(trail.own_at(ms(1_050), 9), span(5, 5));
        assert_eq!(trail.own_at(ms(1_150), 9), span(3, 3));
        assert_eq!(trail.own_at(ms(1_250), 9), span(9, 9));
        assert!(!trail.forget_before(ms(1_200)));
        assert!(trail.forget_before(ms(1_201)));
    }

    #[test]
    fn many_changes_widen_what_is_remembered_and_keep_it_right() {
        let mut trail = Trail::default();
        for step in 0..1_000 {
            trail.note_own(step, ms(1_000 + step as u64), ms(990));
            assert!(trail.own.len() <= MAX_OWN);
        }
        assert_eq!(trail.own_at(ms(995), 1_000), span(0, 0), "the moment asked for stays exact");
        for at in 0..999 {
            let Span { low, high } = trail.own_at(ms(1_000 + at), 1_000);
            assert!(low <= i128::from(at) + 1 && high > i128::from(at), "{at}: {low} to {high}");
        }
    }

    #[test]
    fn a_replaced_line_answers_for_its_time() {
        let horizons = Horizons::default();
        let view = View { record: None, horizons: &horizons };
        let mut trail = Trail::default();
        let current = shard(2, 100, None);
        trail.note_replaced(shard(1, 10, Some(2)), (ms(2_000), ms(1_500)), &view);
        let at = |moment| trail.peer_at(OTHER, moment, Some(&current), &view).unwrap();
        assert_eq!(at(ms(1_400)), span(8, 12), "its owner has vouched for it");
        assert_eq!(at(ms(1_900)), span(8, 100), "it was replaced some time between");
        assert_eq!(at(ms(2_000)), span(100, 100));
    }

    #[test]
    fn a_line_that_ran_on_alone_does_not_hide_where_it_began() {
        let horizons = Horizons::default();
        horizons.follow(OTHER, Micros::from_secs(9));
        let view = View { record: None, horizons: &horizons };
        let steep = Moving { slope: 1e-3, moment: ms(1_000), moment_error: Micros(0), precision_units: 1 };
        let seq = Seq { incarnation: 1, n: 1 };
        let line = PeerShard::new(OTHER, seq, Value::from_units(30).unwrap(), 17, Some(steep), Vec::new());
        let mut trail = Trail::default();
        trail.note_replaced(line, (ms(5_000), ms(1_100)), &view);
        // A flat line at 30 was left out between the two: the link was cut.
        let told = trail.peer_at(OTHER, ms(4_000), Some(&shard(9, 40, None)), &view).unwrap();
        assert!(told.low <= 30 && told.high >= 40, "{told:?}");
    }

    #[test]
    fn an_excursion_counts_until_the_line_was_replaced() {
        let horizons = Horizons::default();
        let view = View { record: None, horizons: &horizons };
        let mut trail = Trail::default();
        trail.note_replaced(shard(1, 0, None), (ms(2_000), ms(1_500)), &view);
        let at = |excursion, moment| {
            let current = shard(2, 0, None).after(excursion);
            trail.peer_at(OTHER, moment, Some(&current), &view)
        };
        assert_eq!(at(Excursion::at_most(100), ms(1_900)), Some(span(-127, 127)));
        assert_eq!(at(Excursion::ANYWHERE, ms(1_900)), None);
        assert_eq!(at(Excursion::ANYWHERE, ms(1_400)), Some(span(0, 0)));
    }

    #[test]
    fn joined_lines_say_no_less_than_each() {
        let horizons = Horizons::default();
        let view = View { record: None, horizons: &horizons };
        let (mut trail, mut all) = (Trail::default(), Vec::new());
        for n in 1..=20_u64 {
            let value = i128::from(n * n * 37 % 101);
            let line = shard(n, value, (n % 3 == 0).then_some(3));
            all.push((line.clone(), ms(n * 100 + 90)));
            trail.note_replaced(line, (ms(n * 100 + 90), ms(n * 100 + 40)), &view);
        }
        assert!(trail.replaced.len() <= MAX_REPLACED);
        let current = shard(21, 0, None);
        for (line, until) in all {
            let before = Micros(until.0 - 60_000);
            let told = trail.peer_at(OTHER, before, Some(&current), &view).unwrap();
            assert_eq!(
                told.lacks(view.part(Some(&line), before).unwrap()),
                0,
                "{line:?} is not within {told:?}"
            );
        }
    }

    #[test]
    fn an_excursion_is_what_lies_outside_of_line_and_anchor() {
        let mut trail = Trail::default();
        // Up to 100 and back to 3 between two looks, with a line at 0 that promises 2.
        trail.note_deviation(0, 100, 0);
        trail.note_deviation(100, 3, 0);
        trail.note_look(3, 0, 2, ms(7));
        assert_eq!(trail.strayed_since(), Some(ms(7)));
        assert_eq!(trail.take_excursion(3, 2), 97);
        // Up to 100 and published as that.
        trail.note_deviation(3, 100, 3);
        trail.note_look(100, 3, 2, ms(8));
        assert_eq!(trail.take_excursion(100, 2), 0);
        trail.note_deviation(100, 101, 100);
        trail.note_look(101, 100, 2, ms(9));
        assert_eq!(trail.strayed_since(), None, "as promised");
    }
}
