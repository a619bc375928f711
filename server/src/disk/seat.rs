//! Whether the disk's thread shares a core with the I/O thread that it works for.
//!
//! Under `appendfsync always`, where many wait for each sync, the two take turns: what one has done the other goes on with.
//! Where clients take what other cores there are, Linux moves both to and fro, and each then waits behind a client's thread
//! while the core that it left is idle; on one core together they answer a fifth more (docs/decisions/sharing-a-sync.md). So
//! they are held on one core while that is so: while there is one such I/O thread, it is busy, and the machine has no core to spare. Now
//! and then the other way is tried for a moment; what has answered more stays.

use crate::crew;
use engine::time::Micros;
use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;

/// Fewer replies per second than that are no matter.
const MIN_REPLIES_PER_SEC: u64 = 2_000;

/// They are brought together if less of the cores has been idle than this, in percent of one ...
const SPARE_PERCENT: u64 = 100;

/// ... and apart if more than this is.
const MUCH_SPARE_PERCENT: u64 = 150;

/// A look that is further from the last one says nothing of the time between.
const MAX_INTERVAL: Micros = Micros::from_millis(400);

/// Between two trials of the other way.
const TRIAL_INTERVAL: Micros = Micros::from_secs(5);

/// Looks that a trial takes.
const TRIAL_LOOKS: u32 = 4;

/// The I/O thread whose connections wait for the disk, if there is just one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Partner {
    pub(crate) thread: Pid,
    /// Where it ran last.
    pub(crate) core: usize,
}

/// Where the disk's thread sits.
#[derive(Debug, Default)]
pub(crate) struct Seat {
    choice: Choice,
    /// The last look: when it was, how many replies had been released, and how long cores had been idle if there were many.
    last: Option<(Micros, u64, Option<u64>)>,
    /// Whom it sits beside, and where both might run before.
    beside: Option<(Pid, CpuSet)>,
}

impl Seat {
    /// `replies`: those that the disk's thread has released since its start. `partner`: `None` also if it has other work to do.
    pub(crate) fn look(&mut self, now: Micros, replies: u64, partner: Option<Partner>) {
        let seen = partner.and_then(|_| self.measure(now, replies));
        if partner.is_none() {
            self.last = None;
        }
        match (self.choice.choose(now, seen), partner) {
            (true, Some(partner)) => self.sit_beside(partner),
            _ => self.leave(),
        }
    }

    /// What has been idle since the last look, percent of a core, and the replies per second. `None`: it can't be known, or they
    /// are so few that it is no matter.
    fn measure(&mut self, now: Micros, replies: u64) -> Option<(u64, u64)> {
        let (at, replies_then, idle_then) = self.last.unwrap_or((now, replies, None));
        let interval = now.since(at);
        let rate = (replies - replies_then) * 1_000_000 / interval.0.max(1);
        let is_busy = interval <= MAX_INTERVAL && rate >= MIN_REPLIES_PER_SEC;
        let idle = if is_busy { crew::idle_ticks() } else { None };
        self.last = Some((now, replies, idle));
        Some((crew::idle_percent(idle?.saturating_sub(idle_then?), interval), rate))
    }

    fn sit_beside(&mut self, partner: Partner) {
        if self.beside.as_ref().is_some_and(|(thread, _)| *thread == partner.thread) {
            return;
        }
        self.leave();
        let Ok(allowed) = sched_getaffinity(partner.thread) else { return };
        let mut core = CpuSet::new();
        if allowed.is_set(partner.core) != Ok(true) || core.set(partner.core).is_err() {
            return;
        }
        if hold(partner.thread, &core) {
            self.beside = Some((partner.thread, allowed));
        }
    }

    fn leave(&mut self) {
        if let Some((thread, allowed)) = self.beside.take() {
            hold(thread, &allowed);
        }
    }
}

/// Has that thread and the calling one run on these cores only. If the system refuses, they stay as they are.
fn hold(thread: Pid, cores: &CpuSet) -> bool {
    let this = Pid::from_raw(0);
    sched_setaffinity(thread, cores).and_then(|()| sched_setaffinity(this, cores)).is_ok()
}

/// Which way has answered more.
#[derive(Debug, Default)]
struct Choice {
    is_together: bool,
    /// Replies per second, apart and together, as they have been lately.
    rates: [u64; 2],
    /// Looks since the way was changed or found to make sense; zero: it makes none.
    looks: u32,
    /// What the last look has seen: it counts if the next one finds them busy, too.
    seen: Option<u64>,
    /// When the other way is tried next; `None`: it is being tried.
    next_trial: Option<Micros>,
}

impl Choice {
    /// `seen`: what share of a core has been idle since the last look, percent, and the replies per second; `None`: sitting
    /// together makes no sense.
    fn choose(&mut self, now: Micros, seen: Option<(u64, u64)>) -> bool {
        let limit = if self.is_together { MUCH_SPARE_PERCENT } else { SPARE_PERCENT };
        let Some((_, rate)) = seen.filter(|(idle, _)| *idle < limit) else {
            (self.looks, self.seen, self.is_together) = (0, None, false);
            return false;
        };
        if self.looks == 0 {
            self.take_the_better(now);
            return self.is_together;
        }
        self.looks += 1;
        if let Some(rate) = self.seen.replace(rate).filter(|_| self.looks > 2) {
            let known = &mut self.rates[usize::from(self.is_together)];
            *known = if *known == 0 { rate } else { (*known * 3 + rate) / 4 };
        }
        match self.next_trial {
            Some(at) if now >= at => {
                self.next_trial = None;
                self.change(!self.is_together);
            }
            None if self.looks > TRIAL_LOOKS => self.take_the_better(now),
            Some(_) | None => {}
        }
        self.is_together
    }

    /// What is not known is tried: first together.
    fn take_the_better(&mut self, now: Micros) {
        self.next_trial = Some(now + TRIAL_INTERVAL);
        self.change(self.rates[1] >= self.rates[0] || self.rates[1] == 0);
    }

    fn change(&mut self, is_together: bool) {
        (self.is_together, self.looks, self.seen) = (is_together, 1, None);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A look every 100 ms, of which each answers so much as it is, apart or together.
    fn looks(choice: &mut Choice, count: u64, now: &mut Micros, rates: [u64; 2], idle: u64) -> u64 {
        let mut together = 0;
        for _ in 0..count {
            *now = *now + Micros::from_millis(100);
            let rate = rates[usize::from(choice.is_together)];
            together += u64::from(choice.choose(*now, Some((idle, rate))));
        }
        together
    }

    #[test]
    fn they_sit_together_while_that_answers_more() {
        let (mut choice, mut now) = (Choice::default(), Micros::from_secs(1));
        let together = looks(&mut choice, 600, &mut now, [60_000, 72_000], 20);
        assert!(together > 550, "{together} of 600 looks");
        // What was learned lasts: the other way answers more now.
        looks(&mut choice, 600, &mut now, [72_000, 60_000], 20);
        let together = looks(&mut choice, 600, &mut now, [72_000, 60_000], 20);
        assert!(together < 50, "{together} of 600 looks");
    }

    #[test]
    fn they_sit_apart_where_a_core_is_to_spare() {
        let (mut choice, mut now) = (Choice::default(), Micros::from_secs(1));
        assert_eq!(looks(&mut choice, 100, &mut now, [60_000, 72_000], 100), 0);
        assert_eq!(looks(&mut choice, 1, &mut now, [60_000, 72_000], 99), 1);
        // A little more is idle once they share one.
        assert_eq!(looks(&mut choice, 40, &mut now, [60_000, 72_000], 120), 40);
        assert_eq!(looks(&mut choice, 100, &mut now, [60_000, 72_000], 150), 0);
    }

    #[test]
    fn nobody_sits_together_at_rest_and_the_end_of_a_rush_does_not_count() {
        let (mut choice, mut now) = (Choice::default(), Micros::from_secs(1));
        for _ in 0..20 {
            looks(&mut choice, 10, &mut now, [60_000, 72_000], 20);
            looks(&mut choice, 1, &mut now, [3_000, 3_000], 20);
            now = now + Micros::from_millis(100);
            assert!(!choice.choose(now, None));
        }
        assert!(choice.rates.iter().all(|rate| [0, 60_000, 72_000].contains(rate)), "{choice:?}");
    }

    #[test]
    fn both_threads_are_held_on_one_core_and_let_go() {
        let (tell, told) = std::sync::mpsc::channel();
        let (end, ended) = std::sync::mpsc::channel::<()>();
        let partner = std::thread::spawn(move || {
            tell.send((nix::unistd::gettid(), nix::sched::sched_getcpu().unwrap())).unwrap();
            ended.recv().ok();
        });
        let (thread, core) = told.recv().unwrap();
        let cores = |thread| {
            let set = sched_getaffinity(thread).unwrap();
            (0..CpuSet::count()).filter(|core| set.is_set(*core) == Ok(true)).collect::<Vec<_>>()
        };
        let (this, before) = (Pid::from_raw(0), cores(thread));
        let mut seat = Seat::default();
        seat.sit_beside(Partner { thread, core });
        assert_eq!((cores(thread), cores(this)), (vec![core], vec![core]));
        seat.leave();
        assert_eq!((cores(thread), cores(this)), (before.clone(), before));
        drop(end);
        partner.join().unwrap();
    }
}
