//! Whether the disk's thread shares a core with the I/O thread that it works for.
//!
//! Under `appendfsync always`, where many wait for each sync, the two take turns: what one has done the other goes on with.
//! Where clients take what other cores there are, Linux moves both to and fro, and each then waits behind a client's thread
//! while the core that it left is idle; on one core together they answer a fifth more (docs/decisions/sharing-a-sync.md). So
//! they are held on one core while there is one such I/O thread, it is busy, and the machine has no core to spare. Now and
//! then the other way is tried for a moment; what has answered more stays.

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

/// Busy looks from one trial of the other way to the next; twice as many each time that it was not better ...
const TRIAL_EVERY: u32 = 50;

/// ... up to so many.
const MAX_TRIAL_EVERY: u32 = 800;

/// Looks that a trial takes.
const TRIAL_LOOKS: u32 = 4;

/// When nothing is to be done they stay where they are for so many looks.
const LINGER_LOOKS: u32 = 100;

/// Which I/O threads the disk's thread works for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Company {
    /// There is nothing to do.
    Nobody,
    /// One, for whose connections there is much to do.
    One(Partner),
    /// Several, or one with few connections; or the disk's thread does something else.
    Unfit,
}

/// An I/O thread.
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
    /// `replies`: those that the disk's thread has released since its start.
    pub(crate) fn look(&mut self, now: Micros, replies: u64, company: Company) {
        let seen = match company {
            Company::Unfit => Seen::Unfit,
            Company::Nobody | Company::One(_) => self.measure(now, replies),
        };
        match (self.choice.choose(seen), company) {
            (true, Company::One(partner)) => self.sit_beside(partner),
            (true, Company::Nobody) => {}
            (true, Company::Unfit) | (false, _) => self.leave(),
        }
    }

    fn measure(&mut self, now: Micros, replies: u64) -> Seen {
        let (at, replies_then, idle_then) = self.last.unwrap_or((now, replies, None));
        let interval = now.since(at);
        let rate = (replies - replies_then) * 1_000_000 / interval.0.max(1);
        let is_busy = interval <= MAX_INTERVAL && rate >= MIN_REPLIES_PER_SEC;
        let idle = if is_busy { crew::idle_ticks() } else { None };
        self.last = Some((now, replies, idle));
        match (idle, idle_then) {
            (Some(idle), Some(then)) => {
                Seen::Busy { rate, idle_percent: crew::idle_percent(idle.saturating_sub(then), interval) }
            }
            _ => Seen::Quiet,
        }
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
        // Also if the system has refused it for one of the two: so the other is let go in the next step.
        self.beside = Some((partner.thread, allowed));
        if !hold(partner.thread, &core) {
            self.leave();
        }
    }

    fn leave(&mut self) {
        if let Some((thread, allowed)) = self.beside.take() {
            hold(thread, &allowed);
        }
    }
}

/// Has that thread and the calling one run on these cores only. False if the system refuses that for one of them.
fn hold(thread: Pid, cores: &CpuSet) -> bool {
    let this = Pid::from_raw(0);
    [thread, this].map(|thread| sched_setaffinity(thread, cores).is_ok()) == [true; 2]
}

/// What there was to see since the last look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Seen {
    /// There is no such pair.
    Unfit,
    /// There was nothing to do, or it is not known.
    Quiet,
    /// Replies per second, and the idle time of all cores, percent of one.
    Busy { rate: u64, idle_percent: u64 },
}

/// Which way has answered more.
#[derive(Debug)]
struct Choice {
    is_together: bool,
    /// Replies per second, apart and together, as they have been lately.
    rates: [u64; 2],
    /// Busy looks since the way was changed, or since they were quiet.
    looks: u32,
    /// What the last look has seen: it counts if the next one finds them busy, too.
    rate: Option<u64>,
    /// Busy looks until the other way is tried; `None`: it is being tried.
    until_trial: Option<u32>,
    trial_every: u32,
    /// Looks in a row at which there was a core to spare, and at which there was nothing to do.
    spare: u32,
    quiet: u32,
}

impl Default for Choice {
    fn default() -> Choice {
        Choice {
            is_together: false,
            rates: [0; 2],
            looks: 0,
            rate: None,
            until_trial: Some(TRIAL_EVERY),
            trial_every: TRIAL_EVERY,
            spare: 0,
            quiet: 0,
        }
    }
}

impl Choice {
    /// Whether to sit together.
    fn choose(&mut self, seen: Seen) -> bool {
        match seen {
            Seen::Unfit => self.part(),
            Seen::Quiet => {
                // The last look has seen the end of something.
                (self.rate, self.spare, self.looks) = (None, 0, 0);
                self.quiet += 1;
                self.is_together &= self.quiet < LINGER_LOOKS;
            }
            Seen::Busy { rate, idle_percent } => {
                let limit = if self.is_together { MUCH_SPARE_PERCENT } else { SPARE_PERCENT };
                self.quiet = 0;
                self.spare = if idle_percent < limit { 0 } else { self.spare + 1 };
                if self.spare == 0 {
                    self.learn(rate);
                } else if self.spare > 1 {
                    self.part();
                }
            }
        }
        self.is_together
    }

    fn learn(&mut self, rate: u64) {
        self.looks += 1;
        // The first look has seen how it began.
        if let Some(rate) = self.rate.replace(rate).filter(|_| self.looks > 2) {
            let known = &mut self.rates[usize::from(self.is_together)];
            *known = if *known == 0 { rate } else { (*known * 3 + rate) / 4 };
        }
        match &mut self.until_trial {
            Some(0) => {
                self.until_trial = None;
                self.change(!self.is_together);
            }
            Some(looks) => {
                *looks -= 1;
                // Apart without having chosen to be.
                if self.looks == 1 {
                    self.change(self.better());
                }
            }
            None if self.looks > TRIAL_LOOKS => {
                let was_better = self.better() == self.is_together;
                let twice = (self.trial_every * 2).min(MAX_TRIAL_EVERY);
                self.trial_every = if was_better { TRIAL_EVERY } else { twice };
                self.until_trial = Some(self.trial_every);
                self.change(self.better());
            }
            None => {}
        }
    }

    /// Whether it is better to sit together; where that is not known, yes.
    fn better(&self) -> bool {
        self.rates[1] >= self.rates[0] || self.rates[1] == 0
    }

    /// What is better is looked at again when sitting together makes sense again.
    fn part(&mut self) {
        (self.is_together, self.looks, self.rate) = (false, 0, None);
    }

    fn change(&mut self, is_together: bool) {
        if is_together != self.is_together {
            (self.is_together, self.looks, self.rate) = (is_together, 1, None);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// So many looks, at which each way answers what it does, apart or together; how often they sat together.
    fn looks(choice: &mut Choice, count: u64, rates: [u64; 2], idle_percent: u64) -> u64 {
        let mut look = || {
            let rate = rates[usize::from(choice.is_together)];
            u64::from(choice.choose(Seen::Busy { rate, idle_percent }))
        };
        (0..count).map(|_| look()).sum()
    }

    #[test]
    fn they_sit_together_while_that_answers_more() {
        let mut choice = Choice::default();
        let together = looks(&mut choice, 600, [60_000, 72_000], 20);
        assert!(together > 580, "{together} of 600 looks");
        // What was learned lasts until the other way answers more.
        looks(&mut choice, 2_000, [72_000, 60_000], 20);
        let together = looks(&mut choice, 600, [72_000, 60_000], 20);
        assert!(together < 30, "{together} of 600 looks");
    }

    #[test]
    fn they_sit_apart_where_a_core_is_to_spare() {
        let mut choice = Choice::default();
        assert_eq!(looks(&mut choice, 40, [60_000, 72_000], 100), 0);
        assert_eq!(looks(&mut choice, 1, [60_000, 72_000], 99), 1);
        // A little more is idle once they share one.
        assert_eq!(looks(&mut choice, 40, [60_000, 72_000], 120), 40);
        assert_eq!(looks(&mut choice, 40, [60_000, 72_000], 150), 1, "once may be the end of a rush");
        assert!(looks(&mut choice, 40, [60_000, 72_000], 20) > 30);
    }

    #[test]
    fn a_pause_does_not_part_them_and_the_end_of_a_rush_does_not_count() {
        let mut choice = Choice::default();
        let mut together = 0;
        for _ in 0..20 {
            together += looks(&mut choice, 9, [60_000, 72_000], 20);
            looks(&mut choice, 1, [3_000, 3_000], 180);
            (0..LINGER_LOOKS - 1).for_each(|_| _ = choice.choose(Seen::Quiet));
        }
        assert!(together > 160, "{together} of 180 looks");
        assert!(choice.rates.iter().all(|rate| [0, 60_000, 72_000].contains(rate)), "{choice:?}");
        assert!(choice.is_together);
        choice.choose(Seen::Quiet);
        assert!(!choice.is_together);
        looks(&mut choice, 1, [60_000, 72_000], 20);
        assert!(choice.is_together);
        assert!(!choice.choose(Seen::Unfit));
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
