//! Where the disk's thread and the I/O thread that it works for run.
//!
//! Under `appendfsync always`, where many wait for each sync, the two take turns: what one has done the other goes on with.
//! Where clients take what other cores there are, Linux moves both to and fro, and each then waits behind another's thread
//! while the core that it left is idle; held in place they answer up to a fifth more (docs/decisions/sharing-a-sync.md): on
//! one core together if clients take the rest, each on its own if they leave something of it. So they are held while there is
//! one such I/O thread, it is busy, and the machine has no core to spare. Now and then the other way is tried for a moment;
//! what has answered more stays.

use crate::crew;
use engine::time::Micros;
use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;

/// Fewer replies per second than that are no matter.
const MIN_REPLIES_PER_SEC: u64 = 2_000;

/// They are held if less of the cores has been idle than this, in percent of one ...
const SPARE_PERCENT: u64 = 100;

/// ... and let go if more than this is.
const MUCH_SPARE_PERCENT: u64 = 150;

/// If so much is idle while they are together, the disk's thread may have room elsewhere: that is tried at once.
const ROOM_PERCENT: u64 = 40;

/// A look that is further from the last one says nothing of the time between.
const MAX_INTERVAL: Micros = Micros::from_millis(400);

/// Busy looks from one trial of the other way to the next; twice as many each time that it was not better ...
const TRIAL_EVERY: u32 = 50;

/// ... up to so many.
const MAX_TRIAL_EVERY: u32 = 800;

/// Looks that a trial takes.
const TRIAL_LOOKS: u32 = 4;

/// When nothing has been to do for so many looks, those who come next may be others: what was learned is forgotten ...
const FORGET_LOOKS: u32 = 10;

/// ... and after so many they are free.
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

/// How the two are held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    /// The I/O thread on its core, the disk's on any other.
    Apart,
    /// Both on the I/O thread's core.
    Together,
}

impl Way {
    fn other(self) -> Way {
        match self {
            Way::Apart => Way::Together,
            Way::Together => Way::Apart,
        }
    }
}

/// Where the disk's thread sits.
#[derive(Debug, Default)]
pub(crate) struct Seat {
    choice: Choice,
    /// The last look: when it was, how many replies had been released, and how long cores had been idle if there were many.
    last: Option<(Micros, u64, Option<u64>)>,
    /// Who is held with it and how, and where both might run before.
    held: Option<(Pid, Way, CpuSet)>,
}

impl Seat {
    /// `replies`: those that the disk's thread has released since its start.
    pub(crate) fn look(&mut self, now: Micros, replies: u64, company: Company) {
        let seen = match company {
            Company::Unfit => Seen::Unfit,
            Company::Nobody | Company::One(_) => self.measure(now, replies),
        };
        match (self.choice.choose(seen), company) {
            (Some(way), Company::One(partner)) => self.take(way, partner),
            (Some(_), Company::Nobody) => {}
            (Some(_), Company::Unfit) | (None, _) => self.leave(),
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

    fn take(&mut self, way: Way, partner: Partner) {
        if self.held.as_ref().is_some_and(|(thread, held, _)| (*thread, *held) == (partner.thread, way)) {
            return;
        }
        self.leave();
        let Ok(allowed) = sched_getaffinity(partner.thread) else { return };
        let (mut core, mut others) = (CpuSet::new(), allowed);
        if allowed.is_set(partner.core) != Ok(true)
            || core.set(partner.core).is_err()
            || others.unset(partner.core).is_err()
        {
            return;
        }
        // Also if the system refuses it for one of the two: so the other is let go.
        self.held = Some((partner.thread, way, allowed));
        let own = if way == Way::Together { &core } else { &others };
        if !hold(partner.thread, &core) || !hold(THIS_THREAD, own) {
            self.leave();
        }
    }

    fn leave(&mut self) {
        if let Some((thread, _, allowed)) = self.held.take() {
            hold(thread, &allowed);
            hold(THIS_THREAD, &allowed);
        }
    }
}

/// As the system names the calling thread.
const THIS_THREAD: Pid = Pid::from_raw(0);

/// Has that thread run on these cores only. False if the system refuses that.
fn hold(thread: Pid, cores: &CpuSet) -> bool {
    sched_setaffinity(thread, cores).is_ok()
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
    /// How they are held; `None`: they are free.
    way: Option<Way>,
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
            way: None,
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
    /// How to hold them, if at all.
    fn choose(&mut self, seen: Seen) -> Option<Way> {
        match seen {
            Seen::Unfit => self.let_go(),
            Seen::Quiet => {
                // The last look has seen the end of something.
                (self.rate, self.spare, self.looks) = (None, 0, 0);
                self.quiet += 1;
                if self.quiet >= FORGET_LOOKS {
                    let way = self.way.filter(|_| self.quiet < LINGER_LOOKS).map(|_| Way::Together);
                    *self = Choice { way, quiet: self.quiet, ..Choice::default() };
                }
            }
            Seen::Busy { rate, idle_percent } => {
                let limit = if self.way.is_some() { MUCH_SPARE_PERCENT } else { SPARE_PERCENT };
                self.quiet = 0;
                self.spare = if idle_percent < limit { 0 } else { self.spare + 1 };
                if self.spare == 0 {
                    match self.way {
                        Some(way) => self.learn(way, rate, idle_percent),
                        None => self.change(self.better()),
                    }
                } else if self.spare > 1 {
                    self.let_go();
                }
            }
        }
        self.way
    }

    fn learn(&mut self, way: Way, rate: u64, idle_percent: u64) {
        self.looks += 1;
        // The first look has seen how it began.
        if let Some(rate) = self.rate.replace(rate).filter(|_| self.looks > 2) {
            let known = &mut self.rates[way as usize];
            *known = if *known == 0 { rate } else { (*known * 3 + rate) / 4 };
        }
        match &mut self.until_trial {
            Some(0) => {
                self.until_trial = None;
                self.change(way.other());
            }
            Some(looks) => {
                let has_room = way == Way::Together && idle_percent >= ROOM_PERCENT;
                let is_news = self.rates[Way::Apart as usize] == 0 && self.rates[way as usize] != 0;
                *looks = if has_room && is_news { 0 } else { *looks - 1 };
            }
            None if self.looks > TRIAL_LOOKS => {
                let was_better = self.better() == way;
                let twice = (self.trial_every * 2).min(MAX_TRIAL_EVERY);
                self.trial_every = if was_better { TRIAL_EVERY } else { twice };
                self.until_trial = Some(self.trial_every);
                self.change(self.better());
            }
            None => {}
        }
    }

    /// The way that has answered more; where that is not known, together.
    fn better(&self) -> Way {
        let [apart, together] = self.rates;
        if together >= apart || together == 0 { Way::Together } else { Way::Apart }
    }

    /// What is better is looked at again when holding them makes sense again.
    fn let_go(&mut self) {
        (self.way, self.looks, self.rate) = (None, 0, None);
    }

    fn change(&mut self, way: Way) {
        if self.way != Some(way) {
            (self.way, self.looks, self.rate) = (Some(way), 1, None);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// So many looks, at which each way answers what it does, apart or together (free: as apart); how often they were together.
    fn looks(choice: &mut Choice, count: u64, rates: [u64; 2], idle_percent: u64) -> u64 {
        let mut look = || {
            let rate = rates[choice.way.unwrap_or(Way::Apart) as usize];
            u64::from(choice.choose(Seen::Busy { rate, idle_percent }) == Some(Way::Together))
        };
        (0..count).map(|_| look()).sum()
    }

    #[test]
    fn they_are_held_in_the_way_that_answers_more() {
        let mut choice = Choice::default();
        let together = looks(&mut choice, 600, [60_000, 72_000], 20);
        assert!(together > 580, "{together} of 600 looks");
        // What was learned lasts until the other way answers more.
        looks(&mut choice, 2_000, [72_000, 60_000], 20);
        let together = looks(&mut choice, 600, [72_000, 60_000], 20);
        assert!(together < 30, "{together} of 600 looks");
        assert_eq!(choice.way, Some(Way::Apart));
    }

    #[test]
    fn they_are_soon_tried_apart_where_the_disks_thread_has_room_elsewhere() {
        let mut choice = Choice::default();
        looks(&mut choice, 5, [90_000, 80_000], ROOM_PERCENT);
        assert_eq!(looks(&mut choice, 40, [90_000, 80_000], ROOM_PERCENT), 0);
        assert_eq!(choice.way, Some(Way::Apart));
        // Where they turn out to answer less so, they are brought together again, and it is not tried again at once.
        let mut choice = Choice::default();
        looks(&mut choice, 5, [80_000, 90_000], ROOM_PERCENT);
        let together = looks(&mut choice, 100, [80_000, 90_000], ROOM_PERCENT);
        assert!((90..100).contains(&together), "{together} of 100 looks");
    }

    #[test]
    fn they_are_free_where_a_core_is_to_spare() {
        let mut choice = Choice::default();
        assert_eq!(looks(&mut choice, 40, [60_000, 72_000], 100), 0);
        assert_eq!(choice.way, None);
        assert_eq!(looks(&mut choice, 1, [60_000, 72_000], 99), 1);
        // A little more is idle once they share one.
        choice.rates = [60_000, 72_000];
        assert_eq!(looks(&mut choice, 40, [60_000, 72_000], 120), 40);
        assert_eq!(looks(&mut choice, 40, [60_000, 72_000], 150), 1, "once may be the end of a rush");
        assert_eq!(choice.way, None);
        assert!(looks(&mut choice, 40, [60_000, 72_000], 20) > 30);
    }

    #[test]
    fn a_pause_does_not_free_them_and_the_end_of_a_rush_does_not_count() {
        let mut choice = Choice::default();
        let mut together = 0;
        for _ in 0..20 {
            together += looks(&mut choice, 9, [60_000, 72_000], 20);
            looks(&mut choice, 1, [3_000, 3_000], 180);
            (0..FORGET_LOOKS - 1).for_each(|_| _ = choice.choose(Seen::Quiet));
        }
        assert!(together > 160, "{together} of 180 looks");
        assert!(choice.rates.iter().all(|rate| [60_000, 72_000].contains(rate)), "{choice:?}");
        // A longer one may bring others, who are tried anew.
        choice.choose(Seen::Quiet);
        assert_eq!((choice.way, choice.rates), (Some(Way::Together), [0, 0]));
        (FORGET_LOOKS..LINGER_LOOKS - 1).for_each(|_| _ = choice.choose(Seen::Quiet));
        assert_eq!(choice.way, Some(Way::Together));
        choice.choose(Seen::Quiet);
        assert_eq!(choice.way, None);
        looks(&mut choice, 1, [60_000, 72_000], 20);
        assert_eq!(choice.way, Some(Way::Together));
        assert_eq!(choice.choose(Seen::Unfit), None);
    }

    #[test]
    fn both_threads_are_held_and_let_go() {
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
        let before = cores(THIS_THREAD);
        let others: Vec<usize> = before.iter().copied().filter(|other| *other != core).collect();
        let mut seat = Seat::default();
        seat.take(Way::Together, Partner { thread, core });
        assert_eq!((cores(thread), cores(THIS_THREAD)), (vec![core], vec![core]));
        seat.take(Way::Apart, Partner { thread, core });
        // On a machine with one core there is nowhere else to be.
        let apart = if others.is_empty() { (before.clone(), before.clone()) } else { (vec![core], others) };
        assert_eq!((cores(thread), cores(THIS_THREAD)), apart);
        seat.leave();
        assert_eq!((cores(thread), cores(THIS_THREAD)), (before.clone(), before));
        drop(end);
        partner.join().unwrap();
    }
}
