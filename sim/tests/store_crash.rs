//! The store under a crash or a fault at every operation of a run.
//!
//! Whatever happens, what is recovered must be the state after some commit, none older than the last synced one.

#![allow(clippy::unwrap_used)] // tests

mod store_run;

use engine::store::{Batch, Store};
use sim::disk::{Dice, FakeDisk, Fault};
use store_run::{Recovered, Run, options, seeds};

/// How many steps a run has; enough for rotations and snapshots.
const STEPS: usize = 260;

/// How many operations a run without faults has.
fn operations(seed: u64) -> u64 {
    let disk = FakeDisk::new(seed);
    let mut run = Run::new(seed, &disk);
    run.open(false, "no fault");
    run.work(STEPS);
    assert!(run.store().stats().counts.snapshots > 0, "seed {seed}: the run is too short for a snapshot");
    disk.operations()
}

#[test]
fn a_crash_at_any_operation_recovers_to_a_commit_not_before_the_last_sync() {
    for seed in seeds(6) {
        for operation in 0..operations(seed) {
            let disk = FakeDisk::new(seed);
            disk.fail_at(operation, Fault::Crash);
            let mut run = Run::new(seed, &disk);
            run.open(false, "first start");
            run.work(STEPS);
            assert!(disk.is_crashed(), "seed {seed}: operation {operation} was never reached");
            for outcome in 0..6 {
                let what = format!("seed {seed}, crash at operation {operation}, outcome {outcome}");
                let disk = disk.fork(operation * 100 + outcome);
                let is_kill = outcome == 0;
                if is_kill {
                    disk.kill()
                } else {
                    disk.power_cut()
                }
                let mut again = run.fork(&disk);
                again.open(is_kill, &what);
                // A second life, with another crash somewhere in it.
                disk.fail_at(disk.operations() + outcome * 7, Fault::Crash);
                again.work(40);
                disk.power_cut();
                again.open(false, &format!("{what}, second crash"));
            }
        }
    }
}

#[test]
fn a_fault_at_any_operation_loses_nothing_and_needs_no_restart() {
    for seed in seeds(4) {
        for operation in 0..operations(seed) {
            for (fault, distance) in [(Fault::NoSpace, 0), (Fault::Io, 0), (Fault::Io, 1), (Fault::Io, 3)] {
                let what = format!("seed {seed}, {fault:?} at operation {operation} and {distance} later");
                let disk = FakeDisk::new(seed + operation);
                disk.fail_at(operation, fault);
                disk.fail_at(operation + distance, fault);
                let mut run = Run::new(seed, &disk);
                run.open(false, &what);
                run.work(STEPS);
                disk.heal();
                if operation % 2 == 0 {
                    assert!(run.commit() && run.sync(), "{what}: it works again");
                }
                let is_kill = operation % 3 == 0;
                if !is_kill {
                    disk.power_cut();
                }
                run.open(is_kill, &what);
                disk.power_cut();
                run.open(false, &what);
            }
        }
    }
}

#[test]
fn many_faults_and_crashes_in_a_row_lose_nothing() {
    for seed in seeds(300) {
        let disk = FakeDisk::new(seed);
        let mut run = Run::new(seed, &disk);
        let mut dice = Dice::new(seed ^ 0xabba);
        for life in 0..12 {
            let is_kill = dice.chance(30);
            if is_kill {
                disk.kill()
            } else {
                disk.power_cut()
            }
            disk.heal();
            let now = disk.operations();
            for _ in 0..dice.below(12) {
                let fault = if dice.chance(50) { Fault::Io } else { Fault::NoSpace };
                disk.fail_at(now + dice.below(120) as u64, fault);
            }
            disk.fail_at(now + dice.below(160) as u64, Fault::Crash);
            run.open(is_kill, &format!("seed {seed}, life {life}"));
            run.work(200);
        }
    }
}

#[test]
fn a_commit_of_several_blocks_is_there_wholly_or_not_at_all() {
    for seed in seeds(30) {
        let disk = FakeDisk::new(seed);
        let mut run = Run::new(seed, &disk);
        run.has_big_payloads = true;
        run.options.segment_bytes = 8 << 20;
        run.options.policy.min_log_bytes = 16 << 20;
        for life in 0..3 {
            disk.fail_at(disk.operations() + 5 + Dice::new(seed + life).below(25) as u64, Fault::Crash);
            run.open(false, &format!("seed {seed}, life {life}"));
            run.work(60);
            disk.power_cut();
        }
        run.open(false, &format!("seed {seed}, at the end"));
    }
}

#[test]
fn a_full_disk_is_an_error_and_room_mends_it_without_a_restart() {
    let mut failures = 0;
    for seed in seeds(20) {
        let disk = FakeDisk::new(seed);
        let mut run = Run::new(seed, &disk);
        run.open(false, "first start");
        run.work(150);
        disk.set_capacity(disk.used() + seed % 20 * 13);
        for _ in 0..40 {
            run.change();
            failures += u32::from(!run.commit());
            run.sync();
            run.snapshot();
        }
        disk.set_capacity(u64::MAX);
        assert!(run.commit() && run.sync(), "seed {seed}");
        assert!(!run.store().stats().is_failing);
        disk.power_cut();
        let expected = run.memory.states.clone();
        run.open(false, &format!("seed {seed}"));
        assert_eq!(run.memory.states, expected);
    }
    assert!(failures > 100, "the disk was rarely full: {failures}");
}

#[test]
fn a_disk_that_can_only_be_read_still_starts() {
    let disk = FakeDisk::new(7);
    let mut run = Run::new(7, &disk);
    run.open(false, "first start");
    run.work(100);
    assert!(run.commit() && run.sync());
    disk.set_capacity(0);
    let mut recovered = Recovered::default();
    let (mut store, opening) = Store::open(disk.clone(), options(7), &mut recovered).unwrap();
    assert!(opening.not_writable.is_some());
    assert_eq!(recovered.0, run.memory.states);
    disk.set_capacity(u64::MAX);
    let mut batch = Batch::new();
    batch.put(1, b"name", b"state");
    store.commit(&mut batch).unwrap();
    store.sync().unwrap();
}

#[test]
fn a_failed_sync_is_answered_by_writing_anew_not_by_asking_again() {
    for seed in seeds(50) {
        let disk = FakeDisk::new(seed);
        let (mut store, _) = Store::open(disk.clone(), options(seed), &mut Recovered::default()).unwrap();
        let mut batch = Batch::new();
        batch.put(1, b"name", b"state");
        store.commit(&mut batch).unwrap();
        disk.fail_at(disk.operations(), Fault::Io);
        store.sync().unwrap_err();
        assert!(store.stats().is_failing);
        store.sync().unwrap();
        disk.power_cut();
        let mut recovered = Recovered::default();
        Store::open(disk.clone(), options(seed), &mut recovered).unwrap();
        assert_eq!(recovered.0.get(&(1, b"name".to_vec())), Some(&b"state".to_vec()), "seed {seed}");
    }
}
