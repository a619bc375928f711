//! Nodes that start anew without what they had, and nodes that are removed.

use super::*;
use crate::counter::{Counter, PrecisionId};
use crate::generation::{Observed, Record};
use crate::ids::Generation;

#[test]
fn a_node_that_lost_everything_gets_its_counts_back() {
    let mut world = World::joined(3);
    world.ask(0, "INCRBY a 100");
    world.ask(1, "INCRBY a 1");
    world.run(Micros::from_secs(3));
    world.restart(0);
    world.ask(0, "INCRBY a 7");
    world.run(Micros::from_secs(5));
    world.agree("GET a", "108");
    world.ask(0, "INCRBY a 1");
    world.run(Micros::from_secs(3));
    world.agree("GET a", "109");
}

#[test]
fn who_has_got_its_counts_back_is_not_sent_what_it_counts_from_then_on() {
    let mut world = World::joined(2);
    let bytes_of_counting = |world: &mut World| {
        let before = world.bytes;
        for n in 0..300 {
            world.ask(0, &format!("INCRBY a {}", n * n % 1_000));
            world.run(Micros::from_millis(10));
        }
        world.bytes - before
    };
    let at_first = bytes_of_counting(&mut world);
    world.restart(0);
    world.run(Micros::from_secs(6));
    let after_a_start = bytes_of_counting(&mut world);
    assert!(after_a_start < at_first * 11 / 10, "{at_first}, then {after_a_start}");
}

#[test]
fn who_lacks_what_a_former_life_has_counted_does_not_speak_of_removals() {
    let mut world = World::joined(3);
    world.away.insert(2);
    world.kill(2);
    world.ask(0, "SET a 100");
    world.ask(0, "INCRBY a 5");
    world.run(Micros::from_secs(1));
    // Only the second has it; in its next life the first meets only the third.
    world.away = BTreeSet::from([1]);
    world.kill(1);
    world.restart(0);
    world.run(Micros::from_secs(4));
    world.ask(0, "INCRBY b 1");
    world.run(Micros::from_secs(1));
    world.away.clear();
    world.restart(0);
    world.run(Micros::from_secs(6));
    world.agree("GET a", "105");
    world.agree("GET b", "1");
}

#[test]
fn what_only_an_absent_member_has_comes_back_with_it() {
    let mut world = World::joined(3);
    world.ask(0, "INCRBY a 100");
    world.ask(0, "INCRBY b 5");
    world.run(Micros::from_secs(3));
    world.away.insert(1);
    world.kill(1);
    world.restart(0);
    world.restart(2);
    world.ask(0, "INCRBY a 7");
    world.run(Micros::from_secs(6));
    assert_eq!(
        (world.ask(0, "GET a"), world.ask(2, "GET a")),
        ("7".into(), "7".into()),
        "after its patience"
    );
    assert!(world.ask(0, "GET a BOUND").contains("200000000000000000000"), "nothing is claimed meanwhile");
    world.away.clear();
    world.run(Micros::from_secs(6));
    world.agree("GET a", "107");
    world.agree("GET b", "5");
}

#[test]
fn what_lost_sets_had_subtracted_survives_a_crash_of_the_owner() {
    let mut world = World::joined(4);
    world.ask(0, "INCRBY a 4");
    world.run(Micros::from_secs(3));
    world.away.insert(3);
    world.kill(3);
    // What this one SETs wins in the end: it is the last. It has seen 4.
    for (host, words) in
        [(0, "INCRBY a 6"), (1, "SET a 0"), (0, "INCRBY a 3"), (2, "SET a 0"), (3, "SET a 100")]
    {
        world.ask(host, words);
        world.run(Micros::from_secs(1));
    }
    world.restart(0);
    world.run(Micros::from_secs(6));
    assert_eq!(world.ask(0, "GET a"), "0");
    world.away.clear();
    world.run(Micros::from_secs(6));
    world.agree("GET a", "109");
}

#[test]
fn what_was_subtracted_before_a_counter_was_removed_is_not_handed_back_by_one_who_had_not_removed_it() {
    let mut world = World::joined(3);
    world.ask(0, "INCRBY a 3");
    world.run(Micros::from_secs(3));
    world.ask(1, "SET a 0");
    world.run(Micros::from_millis(500));
    world.restart(2);
    world.run(Micros::from_millis(400));
    world.away.insert(0);
    world.kill(0);
    world.run(Micros::from_millis(500));
    let knows = |host: usize| world.hosts[host].node.keyspace.with(b"a", |_| ()).is_some();
    assert_eq!([1, 2].map(knows), [false, true]);
    world.ask(1, "SET a 1");
    world.run(Micros::from_millis(500));
    world.away.clear();
    world.restart(0);
    world.run(Micros::from_secs(6));
    world.agree("GET a", "1");
}

#[test]
fn what_a_set_has_seen_does_not_come_back_to_who_starts_above_it_since_another_counter_was_removed() {
    let world = World::joined(2);
    let cluster = &world.hosts[0].cluster;
    let generation = |time| Generation { time, author: 3 };
    let seq = Seq { incarnation: cluster.life - 1, n: 5 };
    let seen = Observed {
        member: MemberIndex::SELF,
        generation: Generation::ZERO,
        seq,
        value: Value::from_integer(3),
    };
    let record = Record { generation: generation(7), observed: vec![seen], ..Record::default() };
    for floor in [Generation::ZERO, generation(6), generation(8)] {
        let mut counter = Counter::new(b"a", PrecisionId::default()).born_in(floor);
        cluster.recover_from_record(&mut counter, &record, true);
        counter.learn(record.clone(), Seq::ZERO);
        assert_eq!(counter.own(), Value::ZERO, "begun in {floor:?}");
    }
}

#[test]
fn what_was_subtracted_before_a_counter_was_removed_does_not_come_back_with_the_heir_who_had_kept_it() {
    // The departed has heard that all know the SET, so the other has removed the counter before it departs; or it has not.
    for (keeper, other, has_heard) in [(1, 2, true), (2, 1, true), (1, 2, false), (2, 1, false)] {
        let mut world = World::joined(3);
        world.ask(0, "INCRBY a 3");
        world.run(Micros::from_secs(3));
        world.ask(keeper, "PRECISION a 5");
        world.ask(0, "SET a 0");
        world.run(if has_heard { Micros::from_secs(3) } else { Micros::from_millis(1) });
        let known_to = |world: &World| {
            let knows = |host: usize| world.hosts[host].node.keyspace.with(b"a", |_| ()).is_some();
            [keeper, other].map(knows)
        };
        assert_eq!(known_to(&world), [true, !has_heard]);
        world.away.insert(0);
        world.kill(0);
        let dead = world.hosts[0].node.id();
        let now = world.clock();
        world.hosts[other].cluster.request(ClusterRequest::Forget(dead), now);
        world.run(Micros::from_secs(6));
        assert_eq!(known_to(&world), [true, false]);
        world.ask(other, "SET a 1");
        world.run(Micros::from_secs(1));
        assert_eq!([1, 2].map(|host| world.ask(host, "GET a")), ["1", "1"]);
    }
}

#[test]
fn what_a_member_has_of_a_former_life_is_not_replaced_by_what_others_have_of_the_next() {
    let mut world = World::joined(3);
    world.ask(0, "INCRBY a 100");
    world.run(Micros::from_secs(3));
    world.away.insert(2);
    world.kill(2);
    world.restart(1);
    world.restart(0);
    world.ask(0, "INCRBY a 7");
    world.run(Micros::from_secs(6));
    world.away.clear();
    world.apart.insert([0, 2]);
    world.run(Micros::from_secs(6));
    assert_eq!((world.ask(1, "GET a"), world.ask(2, "GET a")), ("7".into(), "100".into()));
    world.apart.clear();
    world.run(Micros::from_secs(6));
    world.agree("GET a", "107");
}

#[test]
fn a_member_that_stays_out_of_reach_after_a_start_is_heard_of_through_others_in_the_end() {
    let mut world = World::joined(3);
    world.ask(0, "INCRBY a 100");
    world.run(Micros::from_secs(3));
    world.apart.insert([0, 2]);
    world.restart(0);
    world.ask(0, "INCRBY a 7");
    world.run(Micros::from_secs(10));
    assert_eq!((world.ask(0, "GET a"), world.ask(2, "GET a")), ("107".into(), "100".into()));
    world.run(Micros::from_secs(40));
    world.agree("GET a", "107");
}

#[test]
fn members_that_joined_meanwhile_are_asked_for_own_counts_as_well() {
    for patience in [0, 6] {
        let mut world = World::joined(2);
        world.ask(0, "INCRBY a 100");
        world.run(Micros::from_secs(3));
        let before = world.hosts[0].saved.clone();
        world.add();
        world.meet(1, 2);
        world.run(Micros::from_secs(3));
        world.away.insert(2);
        world.kill(2);
        world.restart(1);
        world.hosts[0].saved = before;
        world.restart(0);
        world.ask(0, "INCRBY a 7");
        world.run(Micros::from_secs(patience));
        world.away.clear();
        world.run(Micros::from_secs(6));
        world.agree("GET a", "107");
    }
}

#[test]
fn what_one_who_died_before_it_answered_had_told_others_is_asked_of_them() {
    for is_forgotten in [false, true] {
        let mut world = World::joined(3);
        world.ask(0, "INCRBY b 5");
        world.run(Micros::from_secs(3));
        world.away.insert(1);
        world.kill(1);
        world.ask(0, "INCRBY a 100");
        world.run(Micros::from_secs(1));
        // Host 1 answers that it knows of nothing later than `b`; host 2 is away.
        world.away = BTreeSet::from([2]);
        world.kill(2);
        world.restart(0);
        world.run(Micros::from_secs(6));
        assert_eq!((world.ask(0, "GET a"), world.ask(0, "GET b")), ("0".into(), "5".into()));
        // Then it starts anew and gets everything from host 2, which dies.
        world.away = BTreeSet::from([0]);
        world.kill(0);
        world.restart(1);
        world.run(Micros::from_secs(6));
        assert_eq!(world.ask(1, "GET a"), "100");
        world.away = BTreeSet::from([1]);
        world.kill(1);
        if is_forgotten {
            world.kill(2);
            let dead = world.hosts.pop().unwrap().node.id();
            let now = world.clock();
            world.hosts[0].cluster.request(ClusterRequest::Forget(dead), now);
        } else {
            world.restart(2);
        }
        world.run(Micros::from_secs(6));
        assert!(world.hosts[0].node.keyspace.is_recovering(), "host 1 may have got it");
        world.away.clear();
        world.run(Micros::from_secs(6));
        world.agree("GET a", "100");
        world.agree("GET b", "5");
        assert!(world.hosts.iter().all(|host| host.cluster.late.is_empty()));
        assert!(world.ask(0, "GET a BOUND").contains("|$1|0|"));
    }
}

#[test]
fn what_a_reset_of_all_has_left_unanswered_is_asked_again() {
    let mut world = World::joined(2);
    world.ask(0, "INCRBY a 100");
    world.run(Micros::from_secs(3));
    let cluster = &mut world.hosts[0].cluster;
    let (&member, link) = cluster.link_of.iter().next().unwrap();
    cluster.late.insert(member, cluster.life);
    cluster.links.get_mut(link).unwrap().has_asked_for_own = true;
    let now = world.clock();
    world.hosts[1].cluster.request(ClusterRequest::ResetAll, now);
    world.run(Micros::from_secs(3));
    assert!(world.hosts[0].cluster.late.is_empty());
}

#[test]
fn a_node_that_has_nothing_of_its_former_lives_takes_it_from_whom_it_meets() {
    let mut world = World::new(3);
    world.meet(0, 2);
    world.ask(0, "INCRBY a 100");
    world.run(Micros::from_secs(3));
    let before = world.hosts[0].saved.clone();
    world.meet(1, 2);
    world.run(Micros::from_secs(3));
    world.kill(2);
    let dead = world.hosts.pop().unwrap().node.id();
    world.away.insert(1);
    world.kill(1);
    world.hosts[0].saved = before;
    world.restart(0);
    let now = world.clock();
    world.hosts[0].cluster.request(ClusterRequest::Forget(dead), now);
    world.ask(0, "INCRBY a 7");
    world.run(Micros::from_secs(3));
    assert_eq!(world.hosts[0].cluster.peers.len(), 0, "it knows nobody");
    world.away.clear();
    world.run(Micros::from_secs(6));
    world.agree("GET a", "107");
}

#[test]
fn a_member_that_lost_everything_gets_what_a_forgotten_one_has_left() {
    let mut world = World::joined(3);
    world.ask(2, "INCRBY a 100");
    world.run(Micros::from_secs(3));
    world.kill(2);
    let dead = world.hosts.pop().unwrap().node.id();
    world.restart(1);
    let now = world.clock();
    world.hosts[0].cluster.request(ClusterRequest::Forget(dead), now);
    world.run(Micros::from_secs(6));
    world.agree("GET a", "100");
    world.restart(0);
    world.run(Micros::from_secs(6));
    world.agree("GET a", "100");
}

#[test]
fn a_member_is_asked_for_one_that_it_got_to_know_after_who_asks() {
    let mut world = World::joined(2);
    let dead = NodeId([77; 20]);
    let know = |world: &mut World, host: usize| {
        let cluster = &mut world.hosts[host].cluster;
        let departed = cluster.members.add_departed(dead, world.now).unwrap();
        cluster.note_member(departed);
        cluster.open_estate(departed);
        departed
    };
    know(&mut world, 0);
    world.run(Micros::from_secs(1));
    assert_eq!(world.hosts[1].cluster.members.departed().count(), 0);
    let departed = know(&mut world, 1);
    let (now, seq) = (world.now, Seq { incarnation: 5, n: 1 });
    let update = |counter: &mut Counter| {
        counter.merge(
            PeerShard::new(departed, seq, Value::from_integer(100), 0, None, Vec::new()),
            Generation::ZERO.into(),
        );
        Ok::<(), NoRoom>(())
    };
    world.hosts[1].node.keyspace.update_named(b"a", now, true, Cause::Publication, update).unwrap();
    world.hosts[1].cluster.peers.get_mut(&departed).unwrap().stream.restart_at(seq);
    world.run(Micros::from_secs(3));
    world.agree("GET a", "100");
}

/// More than one round of housekeeping looks at.
#[test]
fn many_counters_of_a_forgotten_member_are_taken_over_in_several_rounds() {
    const COUNTERS: usize = 40_000;
    let mut world = World::joined(3);
    let names: Vec<String> = (0..COUNTERS).map(|n| format!("n{n}")).collect();
    world.ask(2, &format!("MINCRBY 3 {}", names.join(" ")));
    world.run(Micros::from_secs(3));
    world.kill(2);
    let dead = world.hosts.pop().unwrap().node.id();
    let now = world.clock();
    world.hosts[1].cluster.request(ClusterRequest::Forget(dead), now);
    world.run(Micros::from_secs(4));
    for name in [&names[0], &names[COUNTERS / 2], &names[COUNTERS - 1]] {
        world.agree(&format!("GET {name}"), "3");
    }
    for host in &world.hosts {
        assert_eq!(host.cluster.peers.len(), 1, "the other one that lives");
        assert!(host.cluster.estate.is_none(), "nothing is left to look at");
    }
}

#[test]
fn what_a_removed_member_left_is_not_dropped_since_somebody_else_knew_nothing_of_it() {
    let mut world = World::new(3);
    world.meet(0, 2);
    world.ask(2, "INCRBY a 100");
    world.run(Micros::from_secs(3));
    let announced = *world.hosts[2].cluster.members.own();
    world.kill(2);
    let dead = world.hosts.pop().unwrap().node.id();
    let now = world.clock();
    world.hosts[1].cluster.take_gossip(gossip::GossipEntry::Member(announced));
    world.hosts[1].cluster.request(ClusterRequest::Forget(dead), now);
    world.run(Micros::from_secs(1));
    assert!(world.hosts[1].cluster.peers.is_empty(), "nothing is to be waited for");
    world.meet(1, 0);
    world.run(Micros::from_secs(6));
    world.agree("GET a", "100");
    assert_eq!(world.hosts[0].cluster.peers.len(), 1, "the other one that lives");
}

#[test]
fn what_a_removed_member_had_not_got_back_is_taken_over_with_what_it_has_counted_since() {
    // Who has lost its counters and knows the next life of the removed one only, and who knows only the former.
    for (blank, knowing) in [(0, 1), (1, 0)] {
        let mut world = World::joined(3);
        world.ask(2, "INCRBY a 100");
        world.run(Micros::from_secs(3));
        world.apart.extend([[0, 1], [knowing, 2]]);
        world.restart(blank);
        world.restart(2);
        world.ask(2, "INCRBY b 7");
        world.run(Micros::from_secs(6));
        assert_eq!((world.ask(blank, "GET a"), world.ask(blank, "GET b")), ("0".into(), "7".into()));
        assert_eq!((world.ask(knowing, "GET a"), world.ask(knowing, "GET b")), ("100".into(), "0".into()));
        world.kill(2);
        let dead = world.hosts.pop().unwrap().node.id();
        let now = world.clock();
        world.hosts[knowing].cluster.request(ClusterRequest::Forget(dead), now);
        world.apart.clear();
        world.run(Micros::from_secs(6));
        world.agree("GET a", "100");
        world.agree("GET b", "7");
        assert!(world.hosts.iter().all(|host| host.cluster.peers.len() == 1), "it rests");
    }
}

#[test]
fn what_a_removed_member_has_counted_after_it_had_everything_back_is_waited_for_by_nobody() {
    let mut world = World::joined(3);
    world.ask(2, "INCRBY a 100");
    world.run(Micros::from_secs(3));
    world.restart(2);
    world.run(Micros::from_secs(3));
    world.apart.extend([[0, 1], [1, 2]]);
    world.kill(1);
    world.ask(2, "INCRBY a 7");
    world.run(Micros::from_secs(3));
    assert_eq!((world.ask(0, "GET a"), world.ask(1, "GET a")), ("107".into(), "100".into()));
    world.kill(2);
    let dead = world.hosts.pop().unwrap().node.id();
    let now = world.clock();
    world.hosts[0].cluster.request(ClusterRequest::Forget(dead), now);
    world.apart.clear();
    world.run(Micros::from_secs(5));
    world.agree("GET a", "107");
}

#[test]
fn what_a_removed_member_counted_after_a_reset_of_all_was_not_taken_over_before_it() {
    let mut world = World::new(3);
    world.meet(1, 2);
    world.ask(2, "INCRBY a 100");
    world.run(Micros::from_secs(3));
    world.apart.extend([[0, 1], [1, 2]]);
    world.kill(1);
    world.meet(0, 2);
    world.run(Micros::from_secs(1));
    let now = world.clock();
    world.hosts[0].cluster.request(ClusterRequest::ResetAll, now);
    world.run(Micros::from_secs(1));
    world.ask(2, "INCRBY a 8");
    world.run(Micros::from_secs(3));
    world.kill(2);
    let dead = world.hosts.pop().unwrap().node.id();
    let now = world.clock();
    world.hosts[1].cluster.request(ClusterRequest::Forget(dead), now);
    world.run(Micros::from_secs(3));
    assert_eq!((world.ask(1, "GET a"), world.hosts[1].cluster.peers.len()), ("100".into(), 0));
    world.apart.clear();
    world.run(Micros::from_secs(6));
    world.agree("GET a", "8");
}

#[test]
fn a_walk_over_an_estate_ends_when_it_is_buried_meanwhile() {
    let mut world = World::joined(3);
    let names: Vec<String> = (0..40_000).map(|n| format!("n{n}")).collect();
    world.ask(0, &format!("MINCRBY 3 {}", names.join(" ")));
    world.run(Micros::from_secs(3));
    world.kill(2);
    let dead = world.hosts.pop().unwrap().node.id();
    let now = world.clock();
    let cluster = &mut world.hosts[0].cluster;
    let departed = cluster.members.index_of(dead).unwrap();
    cluster.request(ClusterRequest::Forget(dead), now);
    for _ in 0..1_000 {
        if world.hosts[0].cluster.estate.is_some() {
            break;
        }
        world.run(Micros::from_millis(1));
    }
    let cluster = &mut world.hosts[0].cluster;
    assert!(cluster.estate.is_some(), "the walk takes more than a round");
    cluster.note_burial(departed, Seq::ZERO);
    world.run(Micros::from_secs(3));
    let cluster = &world.hosts[0].cluster;
    assert!(cluster.estate.is_none() && cluster.peers.len() == 1);
}

#[test]
fn an_heir_knows_what_a_set_has_seen_that_comes_late_from_one_who_was_removed_meanwhile() {
    let mut world = World::joined(4);
    world.ask(3, "INCRBY a 100");
    world.run(Micros::from_secs(3));
    world.kill(3);
    world.away.insert(3);
    world.forget(&[0, 1, 2], 3);
    world.deaf.insert([0, 2]);
    world.run(Micros::from_secs(1));
    let own = std::cell::Cell::new(Value::ZERO);
    world.hosts[0].node.keyspace.walk_all(0, u64::MAX, |_, counter| own.set(counter.own()));
    assert_eq!(own.get(), Value::parse(b"100").unwrap(), "it has been taken over");
    world.deaf.insert([2, 0]);
    world.ask(2, "SET a 0");
    world.run(Micros::from_millis(5));
    assert_eq!((world.ask(1, "GET a"), world.ask(0, "GET a")), ("100".into(), "100".into()));
    world.kill(2);
    world.away.insert(2);
    world.forget(&[0, 1], 2);
    world.run(Micros::from_secs(3));
    let read = [0, 1].map(|host| world.ask(host, "GET a"));
    assert_eq!(read, ["0", "0"], "what was taken over had been seen by the SET");
}

#[test]
fn a_forgotten_node_leaves_its_counts() {
    let mut world = World::joined(3);
    world.ask(0, "INCRBY a 1");
    world.ask(2, "INCRBY a 100");
    world.ask(2, "INCRBY b 7.5");
    world.run(Micros::from_secs(3));
    world.kill(2);
    let dead = world.hosts.pop().unwrap();
    world.run(Micros::from_secs(4));
    assert_eq!(world.ask(0, "GET a STATE"), "*2|$3|101|$12|INCONSISTENT|");
    let id = dead.node.id();
    let now = world.clock();
    world.hosts[1].cluster.request(ClusterRequest::Forget(id), now);
    for _ in 0..30 {
        world.run(Micros::from_millis(100));
        world.agree("GET a", "101");
        world.agree("GET b", "7.5");
    }
    assert_eq!(world.ask(0, "GET a STATE"), "*2|$3|101|$10|CONSISTENT|");
    for host in &world.hosts {
        assert_eq!(host.cluster.peers.len(), 1, "the other one that lives");
        assert!(
            !host
                .cluster
                .members
                .gossip()
                .iter()
                .any(|entry| matches!(entry, gossip::GossipEntry::Member(member) if member.id == id))
        );
        let shards = std::cell::Cell::new(0);
        host.node.keyspace.walk_all(0, u64::MAX, |_, counter| {
            shards.set(shards.get() + counter.full().map_or(0, |full| full.peers().len()));
        });
        assert!(shards.get() <= 2, "{} shards", shards.get());
    }
    world.ask(1, "SET a 5");
    world.run(Micros::from_secs(3));
    world.agree("GET a", "5");
}
