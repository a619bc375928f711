//! Leaving by CLUSTER RESET, coming back, being removed, and what newcomers and members may claim meanwhile.

use super::*;

/// CLUSTER RESET.
fn reset(world: &mut World, host: usize, hard: bool) {
    let now = world.clock();
    world.hosts[host].cluster.request(ClusterRequest::Reset { hard }, now);
    world.settle();
}

fn ids(world: &World) -> BTreeSet<NodeId> {
    world.hosts.iter().map(|host| host.node.id()).collect()
}

#[test]
fn who_was_removed_and_joins_anew_is_another_for_all_who_come_later() {
    // Whether it has heard of its removal before it began anew, or not.
    for has_heard in [true, false] {
        let mut world = World::joined(3);
        (0..3).for_each(|host| drop(world.ask(host, &format!("INCRBY a {}", [1, 10, 100][host]))));
        world.run(Micros::from_secs(5));
        let before = world.hosts[2].node.id();
        if !has_heard {
            world.away.insert(2);
            world.kill(2);
        }
        world.forget(&[0], 2);
        world.run(Micros::from_secs(3));
        reset(&mut world, 2, false);
        world.away.clear();
        world.meet(2, 0);
        world.run(Micros::from_secs(5));
        world.ask(2, "INCRBY a 5000");
        world.run(Micros::from_secs(5));
        world.agree("GET a", "5111");
        assert_ne!(world.hosts[2].node.id(), before, "heard: {has_heard}");
        world.add();
        world.meet(3, 1);
        world.run(Micros::from_secs(5));
        world.agree("GET a", "5111");
        world.restart(1);
        world.run(Micros::from_secs(10));
        world.agree("GET a STATE", "*2|$4|5111|$10|CONSISTENT|");
    }
}

#[test]
fn who_joins_anew_by_a_member_that_has_not_heard_of_its_removal_counts_once() {
    let mut world = World::joined(4);
    (0..4).for_each(|host| drop(world.ask(host, &format!("INCRBY a {}", [1, 10, 100, 1_000][host]))));
    world.run(Micros::from_secs(5));
    let before = world.hosts[3].node.id();
    world.apart.extend([[0, 2], [1, 2], [0, 3], [1, 3]]);
    (0..2).for_each(|host| world.kill(host));
    world.run(Micros::from_secs(5));
    world.forget(&[0], 3);
    world.run(Micros::from_secs(3));
    reset(&mut world, 3, false);
    world.meet(3, 2);
    world.run(Micros::from_secs(5));
    assert_eq!((world.hosts[3].node.id(), world.ask(3, "GET a")), (before, "1111".to_owned()));
    world.ask(3, "INCRBY a 10000");
    world.run(Micros::from_secs(3));
    world.apart.clear();
    world.run(Micros::from_secs(20));
    let removed = [world.ask(0, "GET a"), world.ask(1, "GET a"), world.ask(2, "GET a")];
    assert_eq!(removed, ["11111", "11111", "11111"]);
    assert_eq!(world.hosts[2].cluster.members.peers().count(), 2, "its second life has ended with the first");
    reset(&mut world, 3, false);
    world.meet(3, 1);
    world.run(Micros::from_secs(5));
    assert_ne!(world.hosts[3].node.id(), before);
    world.add();
    world.meet(4, 1);
    world.run(Micros::from_secs(10));
    world.agree("GET a STATE", "*2|$5|11111|$10|CONSISTENT|");
}

#[test]
fn who_has_counted_under_the_name_of_a_removed_node_comes_in_by_a_hard_reset_alone() {
    let mut world = World::joined(3);
    world.ask(2, "INCRBY a 7");
    world.run(Micros::from_secs(3));
    world.away.insert(2);
    world.kill(2);
    world.forget(&[0], 2);
    world.run(Micros::from_secs(3));
    reset(&mut world, 2, false);
    world.ask(2, "INCRBY a 100");
    world.away.clear();
    world.meet(2, 0);
    world.run(Micros::from_secs(5));
    assert_eq!(world.all("GET a"), ["7", "7", "100"]);
    reset(&mut world, 2, true);
    world.meet(2, 0);
    world.run(Micros::from_secs(5));
    world.agree("GET a", "7");
}

#[test]
fn who_has_left_stays_away_until_somebody_is_met() {
    let mut world = World::joined(3);
    world.ask(1, "INCRBY a 7");
    world.run(Micros::from_secs(3));
    reset(&mut world, 1, false);
    for _ in 0..2 {
        world.run(Micros::from_secs(10));
        assert_eq!(world.hosts[1].cluster.members.peers().count(), 0);
        assert_eq!(world.ask(1, "DBSIZE"), ":0|");
        let disk = world.disk(1);
        world.restart_with(1, &disk);
    }
    world.meet(0, 1);
    world.run(Micros::from_secs(5));
    world.agree("GET a", "7");
    assert_eq!(ids(&world).len(), 3);
}

#[test]
fn who_joins_again_gets_back_what_any_member_knows_and_not_just_the_one_it_meets() {
    let mut world = World::joined(3);
    world.ask(2, "INCRBY a 7");
    world.run(Micros::from_secs(3));
    world.apart.extend([[0, 1], [1, 2]]);
    world.kill(1);
    world.run(Micros::from_secs(3));
    world.ask(2, "INCRBY a 10");
    world.run(Micros::from_secs(3));
    assert_eq!(world.all("GET a"), ["17", "7", "17"]);
    reset(&mut world, 2, false);
    world.apart.remove(&[1, 2]);
    world.meet(2, 1);
    world.settle();
    world.ask(2, "INCRBY a 100");
    world.run(Micros::from_secs(10));
    world.agree("GET a", "117");
}

#[test]
fn what_a_node_has_published_as_zero_since_it_came_back_does_not_hide_what_it_had_counted() {
    for has_a_disk in [false, true] {
        let mut world = World::joined(3);
        world.ask(2, "INCRBY a 3");
        world.run(Micros::from_secs(3));
        world.ask(0, "SET a 100");
        world.run(Micros::from_secs(3));
        world.ask(2, "INCRBY a 7");
        world.run(Micros::from_secs(5));
        if has_a_disk {
            let disk = world.disk(2);
            world.restart_with(2, &disk);
            world.run(Micros::from_secs(5));
        }
        // Two have left, and find each other first: neither can give back anything.
        [1, 2].iter().for_each(|&host| reset(&mut world, host, false));
        world.apart.extend([[0, 1], [0, 2]]);
        world.meet(2, 1);
        world.run(Micros::from_secs(5));
        // By the other one it hears of the SET, and publishes that it has counted nothing in its generation.
        world.apart.remove(&[0, 1]);
        world.run(Micros::from_secs(5));
        assert_eq!(world.ask(2, "GET a"), "100");
        world.apart.clear();
        world.run(Micros::from_secs(10));
        world.agree("GET a", "107");
    }
}

/// What GET BOUND answers: value, bound, age in milliseconds.
fn bound(world: &mut World, host: usize, name: &str) -> (f64, f64, u64) {
    let answer = world.ask(host, &format!("GET {name} BOUND"));
    let mut words = answer.split('|').filter(|word| !word.starts_with(['$', '*']));
    let mut number = || words.next().unwrap().trim_start_matches(':').parse::<f64>().unwrap();
    (number(), number(), number() as u64)
}

#[test]
fn around_a_removal_nothing_wrong_is_claimed_by_members_or_newcomers() {
    for is_counting in [false, true] {
        let mut world = World::joined(4);
        // What the removed one has counted goes the other way, so that it can't hide within what is counted meanwhile.
        (0..4).for_each(|host| drop(world.ask(host, &format!("INCRBY a {}", [100, 100, 100, -100][host]))));
        world.run(Micros::from_secs(5));
        world.away.insert(3);
        world.kill(3);
        // Soon after that the members send heartbeats, and the newcomer later.
        world.run(Micros::from_millis(1_150));
        world.forget(&[1], 3);
        world.add();
        world.meet(4, 1);
        let (mut truths, mut claims) = (vec![(Micros(0), 200.0)], 0);
        for ms in 0..1_500 {
            world.run(Micros::from_millis(1));
            if is_counting && ms % 10 == 0 {
                world.ask(0, "INCRBY a 1000000");
                truths.push((world.now, 200.0 + 1_000_000.0 * truths.len() as f64));
            }
            for host in [0, 1, 2, 4] {
                let (value, bound, age) = bound(&mut world, host, "a");
                let moment = world.now.since(Micros::from_millis(age));
                let truth = truths.iter().rfind(|(since, _)| *since <= moment).unwrap().1;
                let is_alone = world.hosts[host].cluster.members.peers().count() == 0;
                let what =
                    format!("host {host} after {ms} ms: {value} +-{bound} as of {age} ms ago, not {truth}");
                assert!((value - truth).abs() <= bound || is_alone, "{what}");
                claims += u64::from(bound < 1e19 && host == 4 && !is_alone);
                if !is_counting && !is_alone && world.ask(host, "GET a STATE").contains("|CONSISTENT") {
                    assert!(value == truth, "CONSISTENT {what}");
                }
            }
        }
        assert!(claims > 500, "{claims}");
    }
}

#[test]
fn a_newcomer_claims_nothing_while_the_counts_of_a_removed_member_are_on_their_way() {
    // One of these sends them, and everything that it sends is late; the others vouch for it.
    for late in [0, 1, 2] {
        let mut world = World::joined(4);
        (0..4).for_each(|host| drop(world.ask(host, "INCRBY a 100")));
        world.run(Micros::from_secs(5));
        world.away.insert(3);
        world.kill(3);
        world.run(Micros::from_millis(1_150));
        world.forget(&[1], 3);
        world.add();
        world.meet(4, 1);
        world.run(Micros::from_millis(60));
        assert_eq!(world.ask(4, "GET a"), "300");
        world.waiting.insert([late, 4], Vec::new());
        for ms in 0..900 {
            world.run(Micros::from_millis(1));
            let (value, bound, _) = bound(&mut world, 4, "a");
            assert!((value - 400.0).abs() <= bound, "late: {late}, after {ms} ms: {value} +-{bound}");
        }
        world.work_off([late, 4]);
        world.run(Micros::from_secs(3));
        for host in [0, 1, 2, 4] {
            assert_eq!(world.ask(host, "GET a STATE"), "*2|$3|400|$10|CONSISTENT|", "host {host}");
        }
    }
}

#[test]
fn a_newcomer_is_not_consistent_before_it_has_everything_of_everybody() {
    let mut world = World::joined(2);
    (0..20_000).for_each(|n| drop(world.ask(0, &format!("INCRBY k{n} 5"))));
    world.run(Micros::from_secs(3));
    world.add();
    world.ask(2, "CONFIG SET cluster-node-timeout 60000");
    assert_eq!(world.ask(2, "GET k19999 STATE"), "*2|$1|0|$10|CONSISTENT|", "it is alone");
    world.meet(2, 1);
    let (mut early, mut is_over) = (0, false);
    for _ in 0..3_000 {
        world.run(Micros::from_millis(1));
        let all: Vec<String> = [0, 7, 19_999].map(|n| world.ask(2, &format!("GET k{n} STATE"))).into();
        is_over = all.iter().all(|answer| answer == "*2|$1|5|$10|CONSISTENT|");
        if is_over {
            break;
        }
        let has_joined = world.hosts[2].cluster.members.peers().count() > 0;
        assert!(!has_joined || all.iter().all(|answer| answer.contains("INCONSISTENT")), "{all:?}");
        early += u64::from(has_joined);
    }
    assert!(is_over && early > 0, "after {early} ms");
}

#[test]
fn a_stranger_at_the_address_of_a_member_becomes_none() {
    let mut world = World::joined(3);
    world.ask(0, "INCRBY a 7");
    world.run(Micros::from_secs(3));
    let dead = world.hosts[2].node.id();
    world.kill(2);
    // What is there now has another name, and a cluster of its own.
    world.hosts[2] = world.make(9, None);
    world.add();
    world.meet(2, 3);
    world.ask(2, "INCRBY a 900000");
    world.run(Micros::from_secs(20));
    assert_eq!([world.ask(0, "GET a"), world.ask(1, "GET a"), world.ask(3, "GET a")], ["7", "7", "900000"]);
    let nodes = world.hosts[0].node.cluster_view().nodes_text();
    let line = nodes.lines().find(|line| line.starts_with(&dead.to_string())).unwrap();
    assert!(line.contains("noaddr"), "{nodes}");
}
