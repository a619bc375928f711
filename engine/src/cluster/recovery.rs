//! A node that starts asks the others what they hold of its own shards, before it publishes anything, and who can't be reached in
//! time later (docs/decisions/what-the-departed-leave.md). What becomes of the answers is in `counter/recovery.rs`.

use crate::cluster::link::Link;
use crate::cluster::{Cluster, LinkId};
use crate::counter::{Counter, Full};
use crate::generation::Record;
use crate::ids::{MemberIndex, Seq};
use crate::import::IMPORTED;
use crate::time::Micros;
use std::collections::BTreeMap;

/// How long a starting node waits for members it can't reach before it publishes.
const RECOVERY_LIMIT: Micros = Micros::from_secs(3);

/// While a starting node asks what others hold of its own shards.
#[derive(Debug)]
pub(super) struct Recovery {
    since: Micros,
    /// Who has not answered, and in which incarnation it was to be asked.
    pub(super) waiting: BTreeMap<MemberIndex, u32>,
    /// Everything up to here we had ourselves.
    pub(super) position: Seq,
    /// Everything up to here we have with what was handed back.
    pub(super) recovered: Seq,
}

impl Recovery {
    /// Whether all have answered, or enough time has passed.
    pub(super) fn is_over(&self, now: Micros) -> bool {
        self.waiting.is_empty() || now.since(self.since) > RECOVERY_LIMIT
    }
}

impl Cluster {
    /// Asks everybody what they hold of our own shards before anything is published.
    pub(super) fn begin_recovery(&mut self, members: &[MemberIndex]) {
        self.node.keyspace.set_recovering(true);
        self.life = Counter::NO_LIFE;
        let (head, own) = (self.publisher.stream.head(), MemberIndex::SELF);
        // What is on disk may have been published after the head that stands there.
        let ahead = self.node.kept.lock().ahead.get(&own).copied().unwrap_or_default();
        self.recovery = Some(Recovery {
            since: self.now.monotonic,
            waiting: members.iter().map(|member| (*member, self.members.incarnation(*member))).collect(),
            position: head,
            recovered: head.max(ahead),
        });
    }

    /// A member has joined while this node was away, and may have got from others what this node counted before; or this node joins
    /// again after a CLUSTER RESET, and learns of the others one by one.
    pub(super) fn ask_newcomer(&mut self, member: MemberIndex) {
        let incarnation = self.members.incarnation(member);
        if let Some(recovery) = self.recovery.as_mut().filter(|_| self.has_lived) {
            recovery.waiting.insert(member, incarnation);
        }
    }

    /// A member that was not known at the start has something of our earlier lives. It is asked for that if what was counted since
    /// is still kept apart, or is all that there is.
    pub(super) fn ask_late(&mut self, member: MemberIndex) {
        if std::mem::take(&mut self.is_blank) {
            self.walk_own(|own, full| full.begin_recovery_of_all(own));
            self.node.keyspace.set_recovering(true);
            self.node.keyspace.horizons.forget_past(self.now.monotonic);
        } else if self.late.is_empty() {
            return;
        }
        self.late.insert(member, self.members.incarnation(member));
    }

    /// Visits all own shards of which something is known here, in units of 10^-17: they are not zero, or were published as that.
    pub(super) fn walk_own(&self, visit: impl Fn(i128, &mut Full)) {
        let mut cursor = 0;
        loop {
            cursor = self.node.keyspace.walk_all(cursor, 4_096, |_, counter| {
                let own = counter.own();
                if !own.is_zero() || counter.full().is_some_and(|full| full.seq != Seq::ZERO) {
                    visit(own.units(), counter.make_full());
                }
            });
            if cursor == 0 {
                return;
            }
        }
    }

    pub(super) fn end_recovery(&mut self) {
        if let Some(recovery) = self.recovery.take() {
            // What was handed back is part of our stream again: whoever lacks it gets it from us.
            self.publisher.stream.restart_at(recovery.recovered);
            self.publisher.stream.note_removed(recovery.recovered);
            self.late = recovery.waiting;
            self.is_blank = recovery.recovered == Seq::ZERO;
        }
        self.node.keyspace.horizons.forget_past(self.now.monotonic);
        self.publisher.set_incarnation(self.members.own().incarnation);
        self.life = self.members.own().incarnation;
        self.sign();
        self.end_late_recovery();
    }

    /// A member has answered what it holds of our own shards, or is none any more.
    pub(super) fn note_answer(&mut self, member: MemberIndex) {
        let waiting = self.recovery.as_mut().and_then(|recovery| recovery.waiting.remove(&member));
        let late = self.late.remove(&member);
        let is_in_another_life = |asked: u32| self.members.incarnation(member) > asked;
        let is_gone = !self.members.index_of_live(member);
        if waiting.or(late).is_some_and(|asked| is_gone || is_in_another_life(asked)) {
            self.ask_others_again(member);
        }
        if late.is_some() {
            self.end_late_recovery();
        }
    }

    /// A member did not live to say what it held of our own shards. Others may have got that from it since they have answered.
    fn ask_others_again(&mut self, lost: MemberIndex) {
        let others = self.members.peers().filter(|(member, _)| *member != lost);
        let others = others.map(|(member, _)| (member, self.members.incarnation(member)));
        let asked = self.recovery.as_mut().map_or(&mut self.late, |recovery| &mut recovery.waiting);
        others.for_each(|(member, incarnation)| _ = asked.entry(member).or_insert(incarnation));
        for link in self.links.values_mut() {
            link.asked_again = self.now.monotonic;
            if !link.is_handing_back {
                (link.has_asked_for_own, link.has_handed_back) = (false, false);
            }
        }
    }

    /// While somebody may still hold a later state of own shards, what is counted beside it is kept apart.
    fn end_late_recovery(&mut self) {
        self.node.keyspace.set_recovering(!self.late.is_empty());
        self.node.keyspace.horizons.forget_past(self.now.monotonic);
        self.publisher.publish_all();
        self.end_handing_back();
    }

    /// Who has answered is not to tell us of our own shards any more: it would be what we publish from now on.
    fn end_handing_back(&mut self) {
        let is_asked = |link: &Link| link.member().is_some_and(|member| self.late.contains_key(&member));
        let over = self.links.values_mut().filter(|link| link.is_handing_back && !is_asked(link));
        let over: Vec<LinkId> = over
            .map(|link| {
                link.is_handing_back = false;
                link.id
            })
            .collect();
        over.into_iter().for_each(|id| self.unsubscribe(id, MemberIndex::SELF));
    }

    /// What a SET took our shard for is a copy of it as well, and may be all that is left after a crash.
    pub(super) fn recover_from_record(&self, counter: &mut Counter, record: &Record, is_asking: bool) {
        let own = counter.own().units();
        let is_blank = counter.full().is_none_or(|full| full.seq == Seq::ZERO);
        if is_asking {
            counter.make_full().begin_recovery(own, 0);
        }
        let Some(&seen) = record.observed_of(MemberIndex::SELF) else { return };
        // Restating passes over what was observed in a generation before ours: the counter was removed in between.
        let is_before_ours = seen.generation < counter.stated().generation;
        let is_lost = is_blank && !is_before_ours && seen.seq > IMPORTED && seen.seq.incarnation < self.life;
        if !is_asking && is_lost {
            counter.make_full().begin_recovery(own, own);
        }
        // Where ours begins above this SET, it will not be restated: all of this has been seen.
        let is_above = counter.stated().generation >= record.generation;
        if (is_asking || is_lost) && !is_above {
            counter.recover_observed(seen, self.life, self.now.monotonic);
        }
        if let Some(full) = counter.full_mut().filter(|_| !is_asking && !self.node.keyspace.is_recovering()) {
            full.end_recovery();
        }
    }
}
