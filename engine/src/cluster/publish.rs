//! Own shards: what is looked at when, and what is published.
//!
//! Client threads only note that an own shard has changed. The thread of the cluster looks at each such counter once per
//! pace interval, however often it was written, asks its `Track`, and publishes what the track says; between writes it asks
//! again at the track's deadlines. A publication gets the next sequence number and an entry in the own stream; the links
//! take it from there.
//!
//! `as_of` is the moment up to which every own shard was within the precision of what is published, or readers know where else
//! it has been: now, unless a shard's publication is held back by its pace, or work is waiting.

use crate::cluster::stream::Stream;
use crate::counter::{Counter, Full};
use crate::ids::Seq;
use crate::keyspace::{Changed, Cursor, Handle, Keyspace};
use crate::node::Node;
use crate::prediction::{Line, Pace, Verdict};
use crate::time::Micros;
use crate::trail::Trail;
use std::cmp::Reverse;
use std::collections::{BTreeSet, BinaryHeap, VecDeque};

/// Between two looks at what clients have changed, when little is changing.
const QUICK: Micros = Micros::from_millis(2);

/// The same when much is changing: more updates share a frame, and fewer looks a counter.
const SLOW: Micros = Micros::from_millis(10);

/// Changes per look above which the slow rhythm is taken.
const MANY: usize = 32;

/// Without any change for this long, a node says of all its moving shards what they are. One that is left alone for a second and
/// then lost has told everything.
const QUIET: Micros = Micros::from_millis(500);

/// Counters looked at in a row before links get their turn.
const STEP: usize = 4_096;

/// Publishes own shards.
#[derive(Debug)]
pub(crate) struct Publisher {
    /// The own stream.
    pub(crate) stream: Stream,
    incarnation: u32,
    next_n: u64,
    /// How many publications INFO has been told of.
    reported: u64,
    /// Changes that the published line has foreseen well enough, since INFO was told.
    kept: u64,
    /// Earliest first; an entry that is not what the counter remembers is stale.
    deadlines: BinaryHeap<Reverse<(Micros, Handle)>>,
    /// Counters whose deviation is over their precision and not published.
    overdue: BTreeSet<(Micros, Handle)>,
    overdue_of: std::collections::BTreeMap<Handle, Micros>,
    /// Counters with a trail, each with the moment before which it is needed; nearly in order of time.
    trails: VecDeque<(Micros, Handle)>,
    /// Where the walk stands that publishes what was never published; `None`: done.
    first_walk: Option<Cursor>,
    next_look: Micros,
    last_look: Micros,
    last_change: Micros,
    /// Stripes with changes that are still to be looked at in this round, and when it began.
    round: Vec<usize>,
    round_began: Micros,
    /// Counters that came to rest and whose parts cancel out; the cluster takes them.
    pub(crate) balanced: Vec<Handle>,
    /// Publications since the start, for INFO.
    pub(crate) published: u64,
}

impl Publisher {
    pub(crate) fn new(incarnation: u32) -> Publisher {
        Publisher {
            stream: Stream::default(),
            incarnation,
            next_n: 1,
            reported: 0,
            kept: 0,
            deadlines: BinaryHeap::new(),
            overdue: BTreeSet::new(),
            overdue_of: std::collections::BTreeMap::new(),
            trails: VecDeque::new(),
            first_walk: None,
            next_look: Micros(0),
            last_look: Micros(0),
            last_change: Micros(0),
            round: Vec::new(),
            round_began: Micros(0),
            balanced: Vec::new(),
            published: 0,
        }
    }

    /// Publishes under this incarnation from now on; called before the first publication, or to go above a higher one that a
    /// peer knows of.
    pub(crate) fn set_incarnation(&mut self, incarnation: u32) {
        if incarnation != self.incarnation {
            (self.incarnation, self.next_n) = (incarnation, 1);
        }
    }

    /// Looks at every own shard once: those that were never published are.
    pub(crate) fn publish_all(&mut self) {
        self.first_walk = Some(0);
    }

    /// Whether that is under way.
    pub(crate) fn is_publishing_all(&self) -> bool {
        self.first_walk.is_some()
    }

    /// When there is something to do next, given whether clients have changed something.
    pub(crate) fn deadline(&self, keyspace: &Keyspace) -> Micros {
        if self.first_walk.is_some() || !self.round.is_empty() {
            return Micros(0);
        }
        let quiet = self.last_change + QUIET;
        let track = self.deadlines.peek().map_or(Micros::NEVER, |Reverse((moment, _))| quiet.min(*moment));
        let look = if keyspace.dirty.is_woken() { self.next_look } else { Micros::NEVER };
        track.min(look)
    }

    /// Looks at what is due; at everything that clients have changed if it `must`.
    pub(crate) fn run(&mut self, node: &Node, pace: &Pace, now: Micros, must: bool) {
        let keyspace = &node.keyspace;
        self.walk(keyspace, now);
        if (keyspace.dirty.is_woken() && (must || now >= self.next_look)) || !self.round.is_empty() {
            self.look(keyspace, pace, now);
        } else if !keyspace.dirty.is_woken() {
            self.last_look = now;
        }
        self.ask_due(keyspace, pace, now);
        if now >= self.last_change + QUIET {
            self.settle(keyspace, STEP, now);
        }
        node.stats.note_predictions(std::mem::take(&mut self.kept), self.published - self.reported);
        self.reported = self.published;
        self.forget_pasts(keyspace);
    }

    /// Whether everything that clients had changed by now has been looked at.
    pub(crate) fn has_looked(&self, keyspace: &Keyspace, now: Micros) -> bool {
        self.first_walk.is_none()
            && self.round.is_empty()
            && (self.last_look == now || !keyspace.dirty.is_woken())
    }

    /// Looks at what has changed. What one look can't do, the next ones go on with before they take what has changed since: so
    /// that each round, however much is written meanwhile, ends, and then all is known to be as of its beginning.
    fn look(&mut self, keyspace: &Keyspace, pace: &Pace, now: Micros) {
        if self.round.is_empty() {
            (self.round, self.round_began) = (keyspace.dirty.take_stripes(), now);
        }
        let mut seen = 0;
        while seen < STEP
            && let Some(stripe) = self.round.pop()
        {
            let has_more = keyspace.drain(Changed::Dirty, stripe, STEP, |handle, counter| {
                seen += 1;
                self.consider(keyspace, handle, counter, pace, now, true);
            });
            if has_more {
                self.round.push(stripe);
            }
        }
        if self.round.is_empty() {
            self.last_look = self.round_began;
        }
        if seen > 0 {
            self.last_change = now;
        }
        self.next_look = now + if seen > MANY { SLOW } else { QUICK };
    }

    fn ask_due(&mut self, keyspace: &Keyspace, pace: &Pace, now: Micros) {
        for _ in 0..STEP {
            let Some(&Reverse((moment, handle))) = self.deadlines.peek() else { break };
            if moment > now {
                break;
            }
            self.deadlines.pop();
            keyspace.with_at(handle, |counter| {
                let Some(full) = counter.full_mut() else { return };
                if full.scheduled != moment {
                    return;
                }
                full.scheduled = Micros(0);
                if full.deadline > now {
                    self.schedule(handle, full);
                } else {
                    self.consider(keyspace, handle, counter, pace, now, false);
                }
            });
        }
    }

    /// Publishes moving shards as they are, so many at most.
    pub(crate) fn settle(&mut self, keyspace: &Keyspace, limit: usize, now: Micros) {
        for _ in 0..limit {
            let Some(Reverse((_, handle))) = self.deadlines.pop() else { break };
            keyspace.with_at(handle, |counter| {
                let Some(full) = counter.full_mut() else { return };
                full.scheduled = Micros(0);
                if full.track.is_some() {
                    self.publish_exact(keyspace, handle, counter, now);
                }
            });
        }
    }

    /// Publishes own shards that were never published, some at a time.
    fn walk(&mut self, keyspace: &Keyspace, now: Micros) {
        let Some(cursor) = self.first_walk else { return };
        let head = self.stream.head();
        let next = keyspace.walk_all(cursor, STEP as u64, |handle, counter| {
            if let Some(full) = counter.full_mut() {
                full.begin_publishing(head);
                if !keyspace.is_recovering() {
                    full.end_recovery();
                }
            }
            counter.begin_at(keyspace.floor());
            let is_ours = !counter.own().is_zero() || !counter.generation().is_zero();
            let is_restated = counter.full().is_some_and(|full| full.is_restated);
            let is_new = is_ours && counter.full().is_none_or(|full| full.seq == Seq::ZERO);
            if (is_restated || is_new) && counter.full().is_none_or(|full| full.track.is_none()) {
                self.publish_exact(keyspace, handle, counter, now);
            }
        });
        self.first_walk = (next != 0).then_some(next);
    }

    /// Asks a counter's track what to do, and does it.
    fn consider(
        &mut self,
        keyspace: &Keyspace,
        handle: Handle,
        counter: &mut Counter,
        pace: &Pace,
        now: Micros,
        is_written: bool,
    ) {
        let own = counter.own();
        let precision = keyspace.precision_of(counter.precision).allowed_units(own);
        let Some(full) = counter.full_mut() else { return };
        if !full.inheritance().is_empty() {
            full.forget_inherited_before(keyspace.acknowledged());
        }
        let has_lost_line = full.track.is_none() && full.trail.as_deref().is_some_and(Trail::has_moved);
        if full.is_restated || has_lost_line {
            self.publish_exact(keyspace, handle, counter, now);
            return;
        }
        let Some(track) = &mut full.track else { return };
        let (promised, last_look) = (track.promised_units(), self.last_look.max(track.published()));
        if let Some(trail) = &mut full.trail {
            let since = track.overdue_since(now).map_or(last_look, |overdue| overdue.min(last_look));
            trail.note_look(own.units(), track.line().at(now).units(), promised, since);
        }
        let strayed = full.trail.as_deref().and_then(Trail::strayed_since);
        let mut verdict = match is_written {
            true => track.on_write(now, own, precision, pace),
            false => track.on_deadline(now, own, precision, pace),
        };
        if let (Verdict::Wait { deadline }, Some(_)) = (&mut verdict, strayed) {
            // It is back: readers must still learn where it has been, or nothing can be vouched for.
            let allowed = track.published() + pace.sustained;
            if track.overdue_since(now).is_none() && now >= allowed {
                verdict = track.publish_anyway(now, own, precision, pace);
            } else {
                *deadline = (*deadline).min(allowed.max(now + pace.interval));
            }
        }
        let mut overdue = track.overdue_since(now);
        match verdict {
            Verdict::Wait { deadline } => {
                self.kept += u64::from(is_written);
                full.deadline = deadline.min(track.breaks_at(now));
                self.schedule(handle, full);
                overdue = overdue.into_iter().chain(strayed).min();
            }
            Verdict::Publish { line: _, deadline } => {
                full.deadline = deadline.min(track.breaks_at(now));
                let trail = full.trail.as_deref_mut();
                let excursion = trail.map_or(0, |trail| trail.take_excursion(own.units(), promised));
                full.note_excursion(Some(excursion));
                self.note_published(keyspace, handle, full, own.units(), false, false);
                self.schedule(handle, full);
            }
            // Says once more what was said, without a line: from now on it is exact.
            Verdict::Rest => return self.publish_exact(keyspace, handle, counter, now),
        }
        self.note_overdue(handle, overdue);
        self.note_trail(handle, counter);
    }

    /// Sees to it that what a counter remembers of its past is forgotten in time.
    pub(crate) fn note_trail(&mut self, handle: Handle, counter: &mut Counter) {
        if let Some(trail) = counter.full_mut().and_then(|full| full.trail.as_mut())
            && !trail.is_listed
        {
            trail.is_listed = true;
            self.trails.push_back((trail.last(), handle));
        }
    }

    /// Forgets what nobody asks for any more.
    fn forget_pasts(&mut self, keyspace: &Keyspace) {
        let needed = keyspace.horizons.past_needed();
        for _ in 0..STEP {
            let Some(&(last, handle)) = self.trails.front() else { break };
            if last >= needed {
                break;
            }
            self.trails.pop_front();
            keyspace.with_at(handle, |counter| {
                let Some(full) = counter.full_mut() else { return };
                let Some(trail) = &mut full.trail else { return };
                trail.is_listed = false;
                if trail.forget_before(needed) {
                    full.trail = None;
                }
                self.note_trail(handle, counter);
            });
        }
        if self.trails.is_empty() && self.trails.capacity() > STEP {
            self.trails = VecDeque::new();
        }
    }

    /// Publishes the own shard as it is: flat and exact.
    fn publish_exact(&mut self, keyspace: &Keyspace, handle: Handle, counter: &mut Counter, now: Micros) {
        let is_zero = counter.is_own_zero();
        let own = counter.own().units();
        let full = counter.make_full();
        let is_restated = std::mem::take(&mut full.is_restated);
        // A shard that is restated has lost its line: where it has been beside that is not known.
        let track = full.track.take();
        let excursion = full.trail.as_deref_mut().map_or(Some(0), |trail| {
            let Some(track) = track else {
                trail.forget_course();
                return None;
            };
            let (line, promised) = (track.line().at(now).units(), track.promised_units());
            trail.note_look(own, line, promised, now);
            Some(trail.take_excursion(own, promised))
        });
        full.note_excursion(excursion);
        full.deadline = Micros::NEVER;
        self.note_published(keyspace, handle, full, own, is_zero, is_restated);
        self.note_overdue(handle, None);
        if counter.is_balanced() {
            self.balanced.push(handle);
        }
        self.note_trail(handle, counter);
    }

    fn note_published(
        &mut self,
        keyspace: &Keyspace,
        handle: Handle,
        full: &mut Full,
        own: i128,
        is_zero: bool,
        is_restated: bool,
    ) {
        // Others may have removed a counter that was zero, and what they knew of its SET; they are told again. So they are what
        // has been subtracted, if that may have changed.
        let may_be_removed =
            full.has_published_zero && full.record().is_none_or(|record| record.value.is_zero());
        let is_told_again = is_restated || may_be_removed;
        if may_be_removed && !is_restated {
            full.give_up_acknowledged(keyspace.acknowledged());
        }
        full.has_published_zero = is_zero;
        if keyspace.is_recovering() {
            full.begin_recovery(own, 0);
        }
        let seq = Seq { incarnation: self.incarnation, n: self.next_n };
        self.next_n += 1;
        self.published += 1;
        full.seq = seq;
        full.join_since_start();
        if full.record_seq == Seq::ZERO && !full.generation().is_zero() {
            full.record_seq = seq;
        } else if is_told_again && !full.generation().is_zero() {
            full.told_again = seq;
        }
        full.inheritance_mut().note_published(seq);
        self.stream.push(seq, handle);
        self.stream.advance(seq);
        keyspace.set_own_head(seq);
    }

    fn schedule(&mut self, handle: Handle, full: &mut Full) {
        let is_later = full.scheduled != Micros(0) && full.scheduled <= full.deadline;
        if !is_later && full.deadline != Micros::NEVER {
            full.scheduled = full.deadline;
            self.deadlines.push(Reverse((full.deadline, handle)));
        }
    }

    fn note_overdue(&mut self, handle: Handle, since: Option<Micros>) {
        let before = match since {
            Some(since) => self.overdue_of.insert(handle, since),
            None if self.overdue_of.is_empty() => None,
            None => self.overdue_of.remove(&handle),
        };
        if before == since {
            return;
        }
        if let Some(before) = before {
            self.overdue.remove(&(before, handle));
        }
        if let Some(since) = since {
            self.overdue.insert((since, handle));
        }
    }

    /// The moment up to which every own shard was within the precision of what is published.
    pub(crate) fn as_of(&self, keyspace: &Keyspace, now: Micros) -> Micros {
        // Nor does it vouch for what somebody may still hand back.
        if self.first_walk.is_some() || keyspace.is_recovering() {
            return Micros(0);
        }
        let mut as_of =
            if keyspace.dirty.is_woken() || !self.round.is_empty() { self.last_look } else { now };
        if let Some(Reverse((moment, _))) = self.deadlines.peek() {
            as_of = as_of.min(*moment);
        }
        if let Some((since, _)) = self.overdue.first() {
            as_of = as_of.min(*since);
        }
        as_of
    }

    /// Forgets everything that was planned, as when all counters are deleted.
    pub(crate) fn clear(&mut self) {
        self.deadlines.clear();
        self.overdue.clear();
        self.overdue_of.clear();
        self.trails.clear();
        self.first_walk = None;
        let head = self.stream.head();
        self.stream.restart_at(head);
    }
}

/// The line that an own shard has published last, and how far the truth may be from it.
pub(crate) fn published_line(counter: &Counter, now: Micros) -> (Line, Option<i128>) {
    match counter.full().and_then(|full| full.track.as_deref()) {
        None => (Line::flat(counter.own(), now), None),
        Some(track) => (*track.line(), Some(track.promised_units())),
    }
}
