//! The judge finds every bug that is planted in the engine, in the faults that bring it to light.

use engine::cluster::Planted;
use engine::time::Micros;
use sim::plan::{Fault, Habit, Plan};
use sim::process::Program;
use sim::real::Real;
use sim::run::run;
use sim::trace::Trace;

/// Seeds tried for each bug: several times as many as the bug that is hardest to find needs.
const SEEDS: u64 = 400;

/// What a bug needs to show: everything else is left to the seed.
fn circumstances(bug: Planted) -> (&'static [Fault], &'static [Habit]) {
    match bug {
        Planted::MergeWithoutSeqCheck => (&[Fault::OneWayCut, Fault::Cut, Fault::Sever], &[]),
        Planted::PeerMovesOwnShard => (&[], &[]),
        Planted::SetsSum => (&[], &[Habit::Set, Habit::ConcurrentSet]),
        Planted::AcknowledgesOneTooMany => {
            (&[Fault::Sever, Fault::Cut], &[Habit::Set, Habit::ConcurrentSet, Habit::Delete])
        }
        Planted::LineIsNotFrozen => (&[Fault::Death], &[Habit::Steady]),
        Planted::ZeroComesBack => (&[Fault::OneWayCut, Fault::Cut], &[Habit::Delete]),
        Planted::TakenOverTwice => (&[Fault::Death], &[]),
    }
}

fn plan_of(bug: Planted, seed: u64) -> Plan {
    let (faults, habits) = circumstances(bug);
    let mut plan = Plan::new(seed, Real::default().abilities());
    plan.faults = faults.to_vec();
    plan.habits = habits.to_vec();
    plan.is_forgetting = true;
    if faults.len() > 1 {
        // Slow paths that change often, so that old news arrives late.
        (plan.nodes, plan.hosts, plan.counters) = (4, 4, plan.counters.min(4));
        plan.fault_gap = Micros::from_millis(300);
        (plan.max_latency, plan.max_jitter) = (Micros::from_millis(150), Micros::from_millis(50));
    }
    plan
}

fn is_found(planted: Option<Planted>, plan: &Plan) -> bool {
    !run(&Real { planted, ..Real::default() }, plan, Trace::silent()).violations.is_empty()
}

fn seed_that_finds(bug: Planted) -> Option<u64> {
    (0..SEEDS).find(|&seed| is_found(Some(bug), &plan_of(bug, seed)))
}

#[test]
fn every_planted_bug_is_found_and_is_all_that_is_found() {
    for bug in Planted::ALL {
        let seed = seed_that_finds(bug);
        let seed = seed.unwrap_or_else(|| panic!("{bug:?} is not found by any of {SEEDS} seeds"));
        assert!(!is_found(None, &plan_of(bug, seed)), "seed {seed} fails without {bug:?} as well");
    }
}
