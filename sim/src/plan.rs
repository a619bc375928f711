//! What a seed chooses: how many nodes, what clients do, which faults exist. Swarm testing: each seed leaves most of
//! it out, because a run with every fault on hides what a run with two of them shows (Groce et al., 2012).

use crate::dice::Dice;
use crate::process::Abilities;
use engine::time::Micros;
use std::fmt;

/// Most hosts of a run, those that join late included.
pub const MAX_HOSTS: u64 = 7;

/// Percentage of seeds in which nodes leave.
const LEAVE_SHARE: u64 = 20;

/// What a crashed node finds on its disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DiskKind {
    /// Its nodes file, no counters.
    NoCounters,
    /// Everything up to the moment of the crash.
    Exact,
    /// The counters as they were some time ago, at most so much.
    Lagging(Micros),
}

/// A kind of fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    /// A host is cut off from all others, or from one.
    Cut,
    /// One direction between two hosts is cut.
    OneWayCut,
    /// Two halves can't see each other.
    Split,
    /// A connection is forgotten by something in the middle.
    Sever,
    /// A path delivers nothing for a moment.
    Stall,
    /// A path has little bandwidth for a while.
    Slow,
    /// A process dies and is started again.
    Crash,
    /// A host loses power: nobody is told.
    PowerCut,
    /// A process dies for good.
    Death,
    /// A process stands still (SIGSTOP).
    Pause,
    /// A node is added.
    Join,
    /// A living node is forgotten; it must join anew.
    Zombie,
    /// All counters of the cluster are deleted.
    ResetAll,
    /// A wall clock jumps.
    WallJump,
    /// A host has another address after a restart.
    Move,
    /// A node leaves by a soft CLUSTER RESET, and joins again later.
    Leave,
}

impl Fault {
    /// All of them.
    pub const ALL: [Fault; 16] = [
        Fault::Cut,
        Fault::OneWayCut,
        Fault::Split,
        Fault::Sever,
        Fault::Stall,
        Fault::Slow,
        Fault::Crash,
        Fault::PowerCut,
        Fault::Death,
        Fault::Pause,
        Fault::Join,
        Fault::Zombie,
        Fault::ResetAll,
        Fault::WallJump,
        Fault::Move,
        Fault::Leave,
    ];

    fn is_within(self, abilities: Abilities) -> bool {
        match self {
            Fault::Crash | Fault::PowerCut | Fault::Move => abilities.has_recovery || abilities.has_disk,
            Fault::Death | Fault::Leave => abilities.has_recovery,
            Fault::Zombie => abilities.has_forget,
            Fault::ResetAll => abilities.has_reset,
            Fault::Cut
            | Fault::OneWayCut
            | Fault::Split
            | Fault::Sever
            | Fault::Stall
            | Fault::Slow
            | Fault::Pause
            | Fault::Join
            | Fault::WallJump => true,
        }
    }
}

/// What clients may do beside small increments and reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Habit {
    /// Increments of up to 10^15.
    Large,
    /// Decrements.
    Negative,
    /// Increments with decimals.
    Fractional,
    /// Streams with a steady pace.
    Steady,
    /// Many increments at once, then nothing.
    Bursts,
    /// SET to any value.
    Set,
    /// SET of the same counter on several nodes at the same moment.
    ConcurrentSet,
    /// SET to zero and DEL.
    Delete,
    /// PRECISION, absolute and relative.
    Precision,
    /// GET BOUND.
    Bound,
}

impl Habit {
    /// All but GET BOUND, which most seeds have.
    pub const COMMON: [Habit; 9] = [
        Habit::Large,
        Habit::Negative,
        Habit::Fractional,
        Habit::Steady,
        Habit::Bursts,
        Habit::Set,
        Habit::ConcurrentSet,
        Habit::Delete,
        Habit::Precision,
    ];
}

/// Everything that a seed has decided before the run starts.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Where it comes from.
    pub seed: u64,
    /// Nodes at the start.
    pub nodes: usize,
    /// Nodes at the start and those that may join.
    pub hosts: usize,
    /// Counters that clients use.
    pub counters: usize,
    /// Clients.
    pub clients: usize,
    /// Mean time between two requests of one client.
    pub request_gap: Micros,
    /// How long clients work and faults happen.
    pub fault_phase: Micros,
    /// Mean time between two faults.
    pub fault_gap: Micros,
    /// What clients do.
    pub habits: Vec<Habit>,
    /// What goes wrong.
    pub faults: Vec<Fault>,
    /// What survives a crash.
    pub disk: DiskKind,
    /// Whether the dead are forgotten in the end.
    pub is_forgetting: bool,
    /// Highest latency of a path.
    pub max_latency: Micros,
    /// Highest jitter of a path.
    pub max_jitter: Micros,
    /// Highest drift of a monotonic clock.
    pub max_drift_ppm: u64,
    /// Highest error of a wall clock.
    pub max_skew: Micros,
    /// `cluster-node-timeout` of all nodes.
    pub node_timeout_ms: u64,
    /// `default-precision` of all nodes.
    pub default_precision: &'static str,
}

impl Plan {
    /// What this seed runs on a program that can do so much.
    pub fn new(seed: u64, abilities: Abilities) -> Plan {
        let mut dice = Dice::new(seed);
        let dice = &mut dice;
        let nodes = dice.between(2, MAX_HOSTS) as usize;
        let share = *dice.pick(&[15, 30, 50]);
        let older = Fault::ALL.into_iter().filter(|fault| *fault != Fault::Leave);
        let mut faults: Vec<Fault> =
            older.filter(|fault| dice.chance(share) && fault.is_within(abilities)).collect();
        // From dice of its own: the plans of seeds that have shown something stay what they were.
        if Dice::new(seed ^ 0x1eaf).chance(LEAVE_SHARE) && Fault::Leave.is_within(abilities) {
            faults.push(Fault::Leave);
        }
        let spare = if faults.contains(&Fault::Join) { dice.between(1, 2) } else { 0 };
        let hosts = (nodes as u64 + spare).min(MAX_HOSTS) as usize;
        let share = *dice.pick(&[20, 40, 70]);
        let habits: Vec<Habit> = Habit::COMMON.into_iter().filter(|_| dice.chance(share)).collect();
        let is_fast = dice.chance(50);
        let disk = match dice.below(3) {
            0 if abilities.has_disk => DiskKind::Exact,
            1 if abilities.has_disk => DiskKind::Lagging(Micros(dice.log_between(10_000, 2_000_000))),
            _ => DiskKind::NoCounters,
        };
        let mut plan = Plan {
            seed,
            nodes,
            hosts,
            counters: dice.log_between(1, 200) as usize,
            clients: dice.between(1, 10) as usize,
            request_gap: Micros(dice.log_between(10_000, 400_000)),
            fault_phase: Micros::from_secs(dice.between(5, 30)),
            fault_gap: Micros(dice.log_between(400_000, 8_000_000)),
            habits,
            faults,
            disk,
            is_forgetting: abilities.has_forget && dice.chance(60),
            max_latency: Micros(if is_fast { 500 } else { dice.log_between(1_000, 150_000) }),
            max_jitter: Micros(if is_fast { 100 } else { dice.log_between(1_000, 50_000) }),
            max_drift_ppm: if dice.chance(50) { 200 } else { 0 },
            max_skew: Micros::from_secs(if dice.chance(50) { 7_200 } else { 0 }),
            node_timeout_ms: dice.log_between(1_500, 6_000),
            default_precision: dice.pick::<&str>(&["1", "1", "1", "0", "10", "0.5", "5%"]),
        };
        if abilities.has_bound && dice.chance(80) {
            plan.habits.push(Habit::Bound);
        }
        plan
    }

    /// Whether clients do this.
    pub fn has(&self, habit: Habit) -> bool {
        self.habits.contains(&habit)
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} nodes (of {} hosts), {} counters, {} clients every {} ms, {} s of faults {:?} every {} ms, \
             disk {:?}, {}habits {:?}, latency up to {} us, jitter {} us, drift {} ppm, skew {} s, node timeout {} ms, \
             precision {}",
            self.nodes,
            self.hosts,
            self.counters,
            self.clients,
            self.request_gap.millis(),
            self.fault_phase.secs(),
            self.faults,
            self.fault_gap.millis(),
            self.disk,
            if self.is_forgetting { "the dead are forgotten, " } else { "" },
            self.habits,
            self.max_latency.0,
            self.max_jitter.0,
            self.max_drift_ppm,
            self.max_skew.secs(),
            self.node_timeout_ms,
            self.default_precision,
        )
    }
}
