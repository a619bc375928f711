//! Nodes that start anew from what their disks had at some moment before.

use super::*;

#[test]
fn what_all_have_removed_does_not_come_back_with_a_disk_that_does_not_know_of_it() {
    for (before, who) in [("SET a 100", 0), ("SET a 100", 1), ("INCRBY a 5", 0), ("INCRBY a 5", 1)] {
        for deleter in 0..3 {
            let mut world = World::joined(3);
            world.ask(who, before);
            world.run(Micros::from_secs(1));
            // Another start in between: what it has is of a former life.
            let disk = world.disk(0);
            world.restart_with(0, &disk);
            world.run(Micros::from_secs(3));
            let disk = world.disk(0);
            world.ask(deleter, "DEL a");
            world.run(Micros::from_secs(6));
            world.agree("EXISTS a", ":0|");
            world.restart_with(0, &disk);
            world.ask(0, "INCRBY a 7");
            world.run(Micros::from_secs(6));
            let what = format!("{before} on {who}, DEL on {deleter}");
            assert_eq!(world.all("GET a"), ["7"; 3], "{what}");
            world.ask(1, "SET a 1");
            world.run(Micros::from_secs(1));
            assert_eq!(world.all("GET a"), ["1"; 3], "{what}");
        }
    }
}

#[test]
fn what_moved_when_it_was_written_to_disk_and_was_removed_before_the_crash_does_not_come_back() {
    for deleter in 0..3 {
        let mut world = World::joined(3);
        world.ask(0, "INCRBY a 5");
        world.run(Micros::from_millis(20));
        world.ask(0, "INCRBY a 1");
        let disk = world.disk(0);
        world.run(Micros::from_secs(1));
        world.ask(deleter, "DEL a");
        world.run(Micros::from_secs(6));
        world.agree("EXISTS a", ":0|");
        world.restart_with(0, &disk);
        world.ask(0, "INCRBY a 7");
        world.run(Micros::from_secs(6));
        assert_eq!(world.all("GET a"), ["7"; 3], "DEL on {deleter}");
    }
}

#[test]
fn what_was_removed_is_told_by_one_who_starts_at_the_same_time() {
    let mut world = World::joined(2);
    world.ask(1, "INCRBY a 5");
    world.run(Micros::from_secs(1));
    let older = world.disk(1);
    world.ask(1, "DEL a");
    world.run(Micros::from_secs(6));
    world.agree("EXISTS a", ":0|");
    let disk = world.disk(0);
    world.restart_with(0, &disk);
    world.restart_with(1, &older);
    world.run(Micros::from_secs(6));
    world.agree("GET a", "0");
}

#[test]
fn a_set_just_after_a_start_has_seen_what_the_disk_had_and_not_what_comes_back() {
    for command in ["SET a 0", "DEL a"] {
        let mut world = World::joined(3);
        world.ask(0, "INCRBY a 100");
        world.run(Micros::from_secs(1));
        let disk = world.disk(0);
        world.ask(0, "INCRBY a 7");
        world.run(Micros::from_secs(1));
        world.restart_with(0, &disk);
        world.ask(0, command);
        world.run(Micros::from_secs(6));
        assert_eq!(world.all("GET a"), ["7"; 3], "{command}");
    }
}

#[test]
fn what_was_forgotten_since_all_knew_better_is_not_remembered_by_a_disk_from_before() {
    for author in 0..3 {
        let mut world = World::joined(3);
        world.ask(0, "INCRBY a 15");
        world.run(Micros::from_secs(1));
        world.ask(author, "SET a 0");
        world.run(Micros::from_millis(5));
        let disk = world.disk(0);
        world.run(Micros::from_secs(6));
        world.restart_with(0, &disk);
        world.ask(1, "SET a -7");
        world.run(Micros::from_secs(6));
        assert_eq!(world.all("GET a"), ["-7"; 3], "the first SET was made on {author}");
    }
}

#[test]
fn a_bound_is_not_claimed_while_what_was_taken_over_may_be_counted_twice() {
    let mut world = World::joined(3);
    world.ask(2, "INCRBY a 900");
    world.run(Micros::from_secs(3));
    let disk = world.disk(1);
    world.kill(2);
    world.away.insert(2);
    world.forget(&[0, 1], 2);
    world.run(Micros::from_secs(3));
    // Its inheritance is forgotten, since all have been told.
    world.ask(0, "INCRBY a 10");
    world.run(Micros::from_secs(3));
    world.away.insert(0);
    world.restart_with(1, &disk);
    // Its lines are heard of through others before its word that it has taken over.
    let host = &world.hosts[1];
    let heir = host.cluster.members.index_of(world.hosts[0].node.id()).unwrap();
    host.node.keyspace.horizons.set_as_of(heir, world.now);
    assert_eq!(host.node.keyspace.horizons.moment_known(world.now), None);
    world.away.remove(&0);
    world.run(Micros::from_secs(6));
    assert!(world.ask(1, "GET a BOUND").starts_with("*3|$3|910|$1|0|"));
}

#[test]
fn a_member_whose_disk_has_a_line_hands_back_also_what_came_after_it() {
    let mut world = World::joined(3);
    world.ask(0, "INCRBY resting 1");
    world.run(Micros::from_secs(3));
    let older = [world.disk(0), world.disk(2)];
    world.ask(0, "INCRBY moving 5");
    world.run(Micros::from_millis(20));
    world.ask(0, "INCRBY a 7");
    world.run(Micros::from_millis(20));
    let disk = world.disk(1);
    world.restart_with(1, &disk);
    world.restart_with(2, &older[1]);
    world.restart_with(0, &older[0]);
    world.run(Micros::from_secs(6));
    for (name, counted) in [("resting", "1"), ("moving", "5"), ("a", "7")] {
        world.agree(&format!("GET {name}"), counted);
    }
}

#[test]
fn what_a_member_has_from_disk_of_one_that_is_gone_is_told_to_others() {
    let mut world = World::joined(3);
    // A disk with a line knows that it has all from before the line.
    world.ask(0, "INCRBY line 5");
    world.run(Micros::from_millis(20));
    world.ask(0, "INCRBY moving 5");
    world.run(Micros::from_millis(20));
    let older = world.disk(2);
    world.ask(0, "INCRBY moving 7");
    world.run(Micros::from_millis(20));
    let disk = world.disk(1);
    world.kill(0);
    world.away.insert(0);
    world.restart_with(1, &disk);
    world.restart_with(2, &older);
    world.run(Micros::from_secs(6));
    let read = |world: &mut World| [1, 2].map(|host| world.ask(host, "GET moving"));
    assert_eq!(read(&mut world), ["12", "12"]);
    world.forget(&[1, 2], 0);
    world.run(Micros::from_secs(6));
    assert_eq!(read(&mut world), ["12", "12"]);
    let kept = |host: &Host| host.cluster.peers.len();
    assert_eq!([1, 2].map(|host| kept(&world.hosts[host])), [1, 1], "it has been taken over");
}

#[test]
fn what_a_member_has_of_a_stream_that_broke_off_is_handed_back_and_told_to_others() {
    for has_disk in [false, true] {
        let mut world = World::joined(3);
        world.ask(0, "INCRBY a 1");
        world.run(Micros::from_secs(3));
        let disks = match has_disk {
            true => [world.disk(0), world.disk(2)],
            false => [Batch::new(), Batch::new()],
        };
        let owner = world.hosts[1].cluster.members.index_of(world.hosts[0].node.id()).unwrap();
        let head = if has_disk { world.hosts[0].cluster.publisher.stream.head() } else { Seq::ZERO };
        world.ask(0, "INCRBY b 7");
        world.run(Micros::from_secs(3));
        world.hosts[1].cluster.peers.get_mut(&owner).unwrap().stream.restart_at(head);
        world.apart.insert([1, 2]);
        world.restart_with(0, &disks[0]);
        world.restart_with(2, &disks[1]);
        world.ask(0, "INCRBY c 1");
        world.run(Micros::from_secs(6));
        for (name, counted) in [("a", "1"), ("b", "7"), ("c", "1")] {
            world.agree(&format!("GET {name}"), counted);
        }
    }
}

#[test]
fn what_was_published_while_it_was_written_to_disk_is_told_after_a_crash() {
    let mut world = World::joined(2);
    world.ask(0, "INCRBY a 1");
    world.run(Micros::from_secs(1));
    let before = world.disk(0);
    world.away.insert(1);
    world.kill(1);
    world.ask(0, "INCRBY a 5");
    world.run(Micros::from_secs(5));
    // Facts are collected before counters.
    let mut disk = world.disk(0);
    for block in before.blocks() {
        let facts = |record: crate::store::Record<'_>| {
            if record.kind == crate::facts::FACT {
                disk.push(record)
            }
        };
        block.for_each(facts).unwrap();
    }
    world.restart_with(0, &disk);
    world.away.clear();
    world.run(Micros::from_secs(6));
    world.agree("GET a", "6");
}

#[test]
fn what_was_removed_does_not_come_back_from_a_disk_with_a_former_life_of_one_that_is_gone() {
    let mut world = World::joined(3);
    world.ask(0, "INCRBY a 1");
    world.run(Micros::from_secs(3));
    let (older, disk) = (world.disk(2), world.disk(0));
    world.ask(1, "DEL a");
    world.run(Micros::from_secs(6));
    world.agree("EXISTS a", ":0|");
    world.kill(2);
    world.away.insert(2);
    // In this life it never has all answers.
    world.restart_with(0, &disk);
    world.ask(0, "INCRBY b 5");
    world.run(Micros::from_secs(6));
    world.kill(0);
    world.away.insert(0);
    world.forget(&[1], 0);
    world.away.remove(&2);
    world.restart_with(2, &older);
    world.run(Micros::from_secs(6));
    for host in [1, 2] {
        assert_eq!(world.ask(host, "EXISTS a"), ":0|");
        assert_eq!(world.ask(host, "GET b"), "5");
    }
}
