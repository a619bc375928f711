//! A whole node crashes at every single operation of its disk: commands, gossip, log, snapshots and nodes file together.
//!
//! What comes back must be what the node knew at some commit, all counters at the same one, none older than the last that was
//! synced: so nothing synced is missing, and nothing appears that was never written. With a live peer, what is missing
//! after that is at most what had not been sent.

#![allow(clippy::unwrap_used)] // tests
#![allow(clippy::print_stderr)] // a random test prints its seed

mod node_run;

use node_run::{A, B, Picture, World, is_raised, names};
use sim::disk::{FakeDisk, Fault};

/// How many steps a run has; enough for rotations and snapshots.
const STEPS: usize = 400;

/// Until the name of a new node is safe.
const FIRST_OPERATIONS: u64 = 12;

/// Long enough for a node to be taken back and for counters to settle, ms.
const CALM_MS: u64 = 6_000;

/// Runs the seed on this disk until it crashes or the steps are done.
fn run(seed: u64, disk: &FakeDisk) -> World {
    let mut world = World::new(seed, disk);
    world.start_peer();
    if world.start().is_ok() {
        // Counting begins when each has the other in its nodes file: a node that has forgotten whom it told has nobody to ask.
        world.meet();
        world.pass(1_000);
        world.work(STEPS);
    }
    world
}

/// The run's operations on the disk; how many snapshots it made.
fn measure(seed: u64) -> (u64, u64) {
    let disk = FakeDisk::new(seed);
    let world = run(seed, &disk);
    (disk.operations(), world.snapshots)
}

/// What B has of A's counts.
fn sent(world: &mut World) -> Picture {
    world.picture(B)
}

/// Restarts A and judges; `what` for messages.
fn restart_and_judge(world: &mut World, is_kill: bool, what: &str) {
    // Without a power cut nothing is lost that was written.
    let allowed = world.tried.split_off(if is_kill { world.committed } else { 0 });
    world.start().unwrap_or_else(|error| panic!("{what}: {error}"));
    let recovered = world.kept_picture(A);
    if !allowed.contains(&recovered) {
        let last = allowed.last().cloned().unwrap_or_default();
        for name in names().filter(|name| last.get(name) != recovered.get(name)) {
            eprintln!("{name} was {:?}", last.get(&name));
            eprintln!("{name}  is {:?}", recovered.get(&name));
        }
        panic!("{what}: not what was known at any of {} commits", allowed.len());
    }
}

/// Lets the two nodes find each other and settle: they must agree, and have all that was on the disk or had been sent.
fn converge_and_judge(world: &mut World, had: &Picture, sent: &Picture, what: &str) {
    world.set_cut(false);
    world.meet();
    world.pass(CALM_MS);
    for name in names() {
        let (ours, theirs) = (world.get(A, &name), world.get(B, &name));
        assert_eq!(ours, theirs, "{what}: {name} differs");
    }
    for name in names().filter(|name| is_raised(name)) {
        let of_a = |picture: &Picture| picture.get(&name).and_then(|known| known.own).map(|own| own.value);
        let sent_of_a = sent.get(&name).and_then(|known| known.peers.first()).map(|shard| shard.value);
        let kept = of_a(had).max(sent_of_a).unwrap_or_default();
        let of_b = of_a(sent).unwrap_or_default();
        let found = world.get(A, &name);
        assert_eq!(
            found,
            Some(kept.saturating_add(of_b)),
            "{what}: {name}: on the disk {:?}, sent {sent_of_a:?}, B's {of_b:?}",
            of_a(had)
        );
    }
}

#[test]
fn a_node_that_crashes_at_any_operation_comes_back_as_it_was_at_a_commit() {
    for seed in 2..=3 {
        let (operations, snapshots) = measure(seed);
        assert!(snapshots > 0, "seed {seed}: the run is too short for a snapshot");
        eprintln!("seed {seed}: {operations} operations, {snapshots} snapshots");
        let mut renamed = 0;
        for operation in 0..operations {
            for outcome in 0..3 {
                let what = format!("seed {seed}, crash at operation {operation}, outcome {outcome}");
                let disk = FakeDisk::new(seed * 1_000 + outcome);
                disk.fail_at(operation, Fault::Crash);
                let mut world = run(seed, &disk);
                assert!(disk.is_crashed(), "{what}: never reached");
                let id = world.id();
                world.kill();
                let sent = sent(&mut world);
                if outcome == 0 {
                    disk.kill();
                } else {
                    disk.power_cut();
                    // No machine boots within a second.
                    world.pass(1_500);
                }
                restart_and_judge(&mut world, outcome == 0, &what);
                if world.id() != id {
                    // Nothing of it was left, so it came back as another node.
                    renamed += 1;
                    continue;
                }
                let had = world.picture(A);
                converge_and_judge(&mut world, &had, &sent, &what);
            }
        }
        assert!(renamed <= 3 * FIRST_OPERATIONS, "seed {seed}: {renamed} crashes cost the node its name");
    }
}
