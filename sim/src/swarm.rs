//! Many seeds on all cores: one seed is one thread's job, and each is the same whatever the others do.

use crate::plan::Plan;
use crate::process::Program;
use crate::run::{Report, run};
use crate::trace::Trace;
use std::cell::Cell;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

thread_local! {
    /// The seed that this thread runs, for a panic's message.
    static SEED: Cell<Option<u64>> = const { Cell::new(None) };
}

/// The seed that the calling thread runs.
pub fn current_seed() -> Option<u64> {
    SEED.get()
}

/// Runs what a seed has planned.
pub fn run_plan(program: &dyn Program, plan: &Plan, trace: Trace) -> Report {
    SEED.set(Some(plan.seed));
    let report = run(program, plan, trace);
    SEED.set(None);
    report
}

/// Runs all seeds from `first` to before `end`, as `plan_of` plans them, and hands each report to `see`, in the order of
/// completion. Stops early once `see` answers false.
pub fn run_all(
    program: &dyn Program,
    (first, end): (u64, u64),
    threads: usize,
    plan_of: impl Fn(u64) -> Plan + Sync,
    see: impl FnMut(Report) -> bool + Send,
) {
    let (next, see) = (AtomicU64::new(first), Mutex::new(see));
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= end {
                        return;
                    }
                    let report = run_plan(program, &plan_of(seed), Trace::silent());
                    let mut see = see.lock().expect("a panic ends the process");
                    if !see(report) {
                        next.store(end, Ordering::Relaxed);
                    }
                }
            });
        }
    });
}
