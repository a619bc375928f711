//! What is known of each member beside membership: how far its stream is here, and what it has last said of others.

use crate::cluster::LinkId;
use crate::cluster::link::Carried;
use crate::cluster::stream::Stream;
use crate::ids::{MemberIndex, Seq};
use crate::time::Micros;
use std::collections::{BTreeMap, BTreeSet};

/// Where we get the stream of a member that we have no link to.
#[derive(Clone, Copy, Debug)]
pub(super) struct Relay {
    pub(super) link: LinkId,
    pub(super) since: Micros,
    /// What was ahead of the rest there when we asked; zero: nothing.
    pub(super) ahead: Seq,
}

/// What is known of a member beside membership.
#[derive(Debug, Default)]
pub(super) struct Peer {
    /// Its stream as far as it has been applied here.
    pub(super) stream: Stream,
    /// The last of its shards that was ever here, though perhaps not everything before it: part of a copy of everything,
    /// or what was on disk.
    pub(super) ahead: Seq,
    /// It has said that it has applied ours up to here, and that nothing of its own was left to tell us.
    pub(super) acknowledged: Seq,
    /// At some moment all that it had published had been applied here.
    pub(super) was_complete: bool,
    /// Every member has its stream up to here, and it knows that.
    pub(super) settled: Seq,
    /// The most that this has been, also in lives before: what can't be asked back any more its owner had forgotten up to here.
    pub(super) given_up: Seq,
    /// Its shards were within the precision of what we have at this moment of our clock.
    pub(super) as_of: Micros,
    /// The link over which we get its stream though it is another member's.
    pub(super) relay: Option<Relay>,
    /// Since when others have more of it from a later life than what we have is of.
    pub(super) anew_since: Option<Micros>,
    /// The last of its lives in which it has vouched for what it says: it had all of its own shards back.
    pub(super) whole_life: u32,
    /// What it had published up to here, in all of its lives, was applied here once: what is not here of that any more was removed.
    pub(super) whole_until: Seq,
    /// In its last heartbeat, what it has of others; those that departed and left nothing there are not mentioned.
    pub(super) holds: BTreeMap<MemberIndex, Seq>,
    /// In its last heartbeat, what it has of others beyond that (see `ahead`).
    pub(super) holds_ahead: BTreeMap<MemberIndex, Seq>,
    /// In its last heartbeat, whom it knows to be removed.
    pub(super) has_buried: BTreeSet<MemberIndex>,
    /// In its last heartbeat, up to where nothing of others was ever missing there: see `told_whole`.
    pub(super) has_whole: BTreeMap<MemberIndex, Seq>,
    /// The moment of our clock at which we had sent the last heartbeat that it had when it sent that one.
    pub(super) answered: Micros,
    /// Since when we know that it has departed, or of what it has left.
    pub(super) departed_at: Micros,
    /// Since when we know that all that it had when it was removed has been taken over; zero: we do not.
    pub(super) buried_at: Micros,
    pub(super) carried: Carried,
}

impl Peer {
    /// Whether, in the life that we have of it, it had got back what it had counted in those before.
    pub(super) fn is_whole(&self) -> bool {
        self.stream.head().incarnation <= self.whole_life
    }

    /// Its stream has been applied further, or it has vouched for that life: see `whole_until`.
    pub(super) fn note_whole(&mut self) {
        let head = self.stream.head();
        if head.incarnation == self.whole_life {
            self.whole_until = head.max(self.whole_until);
        }
    }

    /// Whether a number is of a life before the one that we have of it, and what was published there may never have been here.
    pub(super) fn is_former(&self, seq: Seq) -> bool {
        seq.incarnation < self.stream.head().incarnation && seq > self.whole_until
    }

    /// For others: see `whole_until`; zero where `is_whole` says more.
    pub(super) fn told_whole(&self) -> Seq {
        if self.is_whole() { Seq::ZERO } else { self.whole_until }
    }

    /// For others: see `ahead`; zero if it is not.
    pub(super) fn told_ahead(&self) -> Seq {
        if self.ahead > self.stream.head() { self.ahead } else { Seq::ZERO }
    }

    /// For its owner: see `given_up`; zero if that is not beyond what it says now.
    pub(super) fn told_given_up(&self) -> Seq {
        if self.given_up > self.settled { self.given_up } else { Seq::ZERO }
    }

    /// Whether, by its last heartbeat, it lacks nothing of what the other had published in lives before the one that it has, up
    /// to there.
    pub(super) fn has_whole(&self, of: MemberIndex, seq: Seq) -> bool {
        self.has_whole.get(&of).is_some_and(|until| *until >= seq)
    }

    /// In its last heartbeat, what it has of that one: up to where everything, and beyond that.
    pub(super) fn holds_of(&self, member: MemberIndex) -> (Seq, Seq) {
        let of = |seqs: &BTreeMap<MemberIndex, Seq>| seqs.get(&member).copied().unwrap_or(Seq::ZERO);
        (of(&self.holds), of(&self.holds_ahead))
    }

    /// The last of its shards that may be here.
    pub(super) fn last_held(&self) -> Seq {
        self.stream.head().max(self.ahead)
    }
}
