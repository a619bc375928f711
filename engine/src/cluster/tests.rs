//! Clusters in one process, with links that deliver at once: the ordinary course of things. Faults are the simulator's.

mod disks;
mod leaving;
mod lives;

use super::*;
use crate::clients::Peer as ClientPeer;
use crate::durable::{Journal, Loader};
use crate::keyspace::{Fate, NoRoom};
use crate::node::{NodeConfig, ProcessInfo, Shell};
use crate::session::Session;
use crate::settings::Settings;
use crate::shard::PeerShard;
use crate::store::Batch;
use crate::value::Value;
use resp::Request;
use std::collections::BTreeSet;

struct Quiet;

impl Shell for Quiet {
    fn process(&self) -> ProcessInfo {
        ProcessInfo::default()
    }
    fn settings_changed(&self, _: &Settings) -> Result<(), String> {
        Ok(())
    }
}

struct Host {
    node: Arc<Node>,
    cluster: Cluster,
    session: Session,
    ends: BTreeMap<LinkId, (usize, LinkId)>,
    saved: Vec<u8>,
}

struct World {
    hosts: Vec<Host>,
    /// Hosts that nobody reaches.
    away: BTreeSet<usize>,
    /// Pairs that do not reach each other.
    apart: BTreeSet<[usize; 2]>,
    /// From the first nothing arrives at the second.
    deaf: BTreeSet<[usize; 2]>,
    /// What the first has sent waits to be worked off by the second.
    waiting: BTreeMap<[usize; 2], Vec<(LinkId, Vec<u8>)>>,
    /// Hosts whose heartbeats wait behind so much else that they never arrive.
    clogged: BTreeSet<usize>,
    now: Micros,
    bytes: u64,
}

impl World {
    fn new(count: usize) -> World {
        let (away, apart, deaf) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
        let waiting = BTreeMap::new();
        let now = Micros::from_secs(10);
        let mut world =
            World { hosts: Vec::new(), away, apart, deaf, waiting, clogged: BTreeSet::new(), now, bytes: 0 };
        (0..count).for_each(|_| world.add());
        world
    }

    fn clock(&self) -> Now {
        Now { monotonic: self.now, unix: self.now + Micros::from_secs(1_700_000_000) }
    }

    fn make(&self, number: usize, kept: Option<(Vec<u8>, &Batch)>) -> Host {
        let settings =
            Settings { port: 7000 + number as u16, cluster_node_timeout_ms: 2_000, ..Settings::default() };
        let now = self.clock();
        let node = Arc::new(Node::new(NodeConfig {
            id: NodeId([number as u8 + 1; 20]),
            run_id: [0; 20],
            hash_seed: 7,
            settings,
            now,
            shell: Arc::new(Quiet),
        }));
        let incarnation = now.unix.secs() as u32;
        let nodes_file = kept.map(|(nodes_file, disk)| {
            let own = node.recognise(&nodes_file).unwrap();
            let mut loader = Loader::new(&node, (0, 1), Some(own), now.monotonic);
            disk.blocks().for_each(|block| loader.block(&block).unwrap());
            loader.finish().unwrap();
            node.finish_loading();
            nodes_file
        });
        let config =
            ClusterConfig { seed: number as u64, nodes_file, incarnation, ..ClusterConfig::default() };
        let cluster = Cluster::new(node.clone(), config, now).unwrap();
        let peer = ClientPeer::Unix("test".into());
        let session = node.connect(peer, 0, now, Box::new(|| ()));
        Host { node, cluster, session, ends: BTreeMap::new(), saved: Vec::new() }
    }

    fn add(&mut self) {
        let host = self.make(self.hosts.len(), None);
        self.hosts.push(host);
    }

    fn restart(&mut self, host: usize) {
        self.restart_with(host, &Batch::new());
    }

    /// What the disk of a host has at this moment, if it keeps up.
    fn disk(&self, host: usize) -> Batch {
        let mut batch = Batch::new();
        Journal::anew(Arc::clone(&self.hosts[host].node)).copy_all(&mut batch, self.now);
        batch
    }

    /// A crash, and a start with that disk.
    fn restart_with(&mut self, host: usize, disk: &Batch) {
        let saved = self.hosts[host].saved.clone();
        self.kill(host);
        self.hosts[host] = self.make(host, Some((saved, disk)));
    }

    /// The second works off what the first has sent it.
    fn work_off(&mut self, between: [usize; 2]) {
        let now = self.clock();
        for (link, frame) in self.waiting.remove(&between).unwrap() {
            self.hosts[between[1]].cluster.handle(Input::Received { link, frame: &frame }, now);
        }
        self.settle();
    }

    fn kill(&mut self, host: usize) {
        let ends = std::mem::take(&mut self.hosts[host].ends);
        for (other, link) in ends.into_values() {
            self.hosts[other].ends.remove(&link);
            let now = self.clock();
            self.hosts[other].cluster.handle(Input::Closed { link, reason: "killed" }, now);
        }
    }

    fn settle(&mut self) {
        for _ in 0..10_000 {
            let mut is_quiet = true;
            for from in 0..self.hosts.len() {
                while let Some(effect) = self.hosts[from].cluster.pop_effect() {
                    is_quiet = false;
                    self.carry_out(from, effect);
                }
            }
            if is_quiet {
                return;
            }
        }
        panic!("the nodes never stop talking");
    }

    fn carry_out(&mut self, from: usize, effect: Effect) {
        let now = self.clock();
        match effect {
            Effect::Dial { link, to } => {
                let other = usize::from(to.port()) - 17_000;
                let is_away = self.away.contains(&from) || self.away.contains(&other);
                let is_apart = self.apart.contains(&[from.min(other), from.max(other)]);
                if other >= self.hosts.len() || is_away || is_apart {
                    self.hosts[from].cluster.handle(Input::Closed { link, reason: "refused" }, now);
                    return;
                }
                let theirs = self.hosts[other].cluster.new_link();
                self.hosts[from].ends.insert(link, (other, theirs));
                self.hosts[other].ends.insert(theirs, (from, link));
                self.hosts[from].cluster.handle(Input::Dialed { link }, now);
                let address = SocketAddr::from(([127, 0, 0, 1], 40_000));
                self.hosts[other].cluster.handle(Input::Accepted { link: theirs, from: address }, now);
            }
            Effect::Send { link, frame } => {
                let Some(&(other, theirs)) = self.hosts[from].ends.get(&link) else { return };
                self.bytes += frame.len() as u64 + 4;
                let is_late = self.clogged.contains(&from) && frame.first() == Some(&frame::kind::HEARTBEAT);
                if let Some(waiting) = self.waiting.get_mut(&[from, other]) {
                    waiting.push((theirs, frame.clone()));
                } else if !is_late && !self.deaf.contains(&[from, other]) {
                    self.hosts[other].cluster.handle(Input::Received { link: theirs, frame: &frame }, now);
                }
                self.hosts[from].cluster.handle(Input::Sent { link, bytes: frame.len() }, now);
            }
            Effect::Close { link } => {
                if let Some((other, theirs)) = self.hosts[from].ends.remove(&link) {
                    self.hosts[other].ends.remove(&theirs);
                    self.hosts[other].cluster.handle(Input::Closed { link: theirs, reason: "closed" }, now);
                }
            }
            Effect::SaveNodes(bytes) => self.hosts[from].saved = bytes,
        }
    }

    /// Lets time pass.
    fn run(&mut self, time: Micros) {
        let end = self.now + time;
        while self.now < end {
            self.now = self.now + Micros::from_millis(1);
            let now = self.clock();
            for host in &mut self.hosts {
                if host.cluster.deadline() <= now.monotonic {
                    host.cluster.handle(Input::Timer, now);
                }
            }
            self.settle();
        }
    }

    fn meet(&mut self, host: usize, other: usize) {
        let bus = SocketAddr::from(([127, 0, 0, 1], 17_000 + other as u16));
        let now = self.clock();
        self.hosts[host].cluster.request(ClusterRequest::Meet { bus, port: 7000 + other as u16 }, now);
    }

    /// A chain of MEETs.
    fn joined(count: usize) -> World {
        let mut world = World::new(count);
        (1..count).for_each(|other| world.meet(other - 1, other));
        world.run(Micros::from_secs(3));
        world
    }

    /// CLUSTER FORGET, on each of these hosts at once.
    fn forget(&mut self, at: &[usize], whom: usize) {
        let (id, now) = (self.hosts[whom].node.id(), self.clock());
        for &host in at {
            self.hosts[host].cluster.request(ClusterRequest::Forget(id), now);
        }
        self.settle();
    }

    fn ask(&mut self, host: usize, words: &str) -> String {
        let words: Vec<&[u8]> = words.split(' ').map(str::as_bytes).collect();
        let now = self.clock();
        let host = &mut self.hosts[host];
        let mut out = Vec::new();
        let settings = host.node.settings();
        host.node.execute(&mut host.session, Request::from_args(&words), &settings, now, &mut out);
        let text = String::from_utf8(out).unwrap();
        match text.strip_prefix('$') {
            Some(bulk) => bulk.split("\r\n").nth(1).unwrap().to_owned(),
            None => text.replace("\r\n", "|"),
        }
    }

    fn all(&mut self, words: &str) -> Vec<String> {
        (0..self.hosts.len()).map(|host| self.ask(host, words)).collect()
    }

    fn agree(&mut self, words: &str, expected: &str) {
        let answers = self.all(words);
        assert!(answers.iter().all(|answer| answer == expected), "{words}: {answers:?}, not {expected}");
    }
}

#[test]
fn a_chain_of_meets_makes_a_full_mesh() {
    let world = World::joined(5);
    for host in &world.hosts {
        assert_eq!(host.ends.len(), 4);
        assert_eq!(host.node.cluster_view().nodes.len(), 5);
        assert!(host.node.is_consistent(world.now));
    }
}

#[test]
fn everybody_reads_the_sum_of_what_everybody_has_counted() {
    let mut world = World::joined(3);
    world.ask(0, "INCRBY a 5");
    world.ask(1, "INCRBY a 7.5");
    world.ask(2, "DECRBY a 1");
    world.run(Micros::from_secs(3));
    world.agree("GET a", "11.5");
}

#[test]
fn a_meet_is_listed_at_once_and_until_it_is_given_up() {
    let mut world = World::new(1);
    world.ask(0, "CONFIG SET cluster-node-timeout 1000");
    world.meet(0, 7);
    world.meet(0, 7);
    let own = world.hosts[0].node.id();
    let nodes = world.ask(0, "CLUSTER NODES");
    assert!(nodes.contains(" 127.0.0.1:7007 handshake ") && nodes.contains(&own.to_string()), "{nodes}");
    assert!(world.hosts[0].node.cluster_view().info_text().contains("cluster_known_nodes:2"));
    world.run(Micros::from_millis(2_500));
    assert_eq!(world.hosts[0].node.cluster_view().nodes.len(), 1);
}

#[test]
fn who_sends_updates_is_alive_though_its_heartbeats_are_late() {
    let mut world = World::joined(3);
    world.all("CONFIG SET cluster-node-timeout 500");
    world.run(Micros::from_secs(1));
    world.clogged = BTreeSet::from([0, 1]);
    for number in 0..80 {
        world.ask(0, &format!("INCR fresh:{number}"));
        world.run(Micros::from_millis(10));
    }
    let (writer, silent) = (world.hosts[0].node.id(), world.hosts[1].node.id());
    let line_of = |nodes: &str, id: NodeId| {
        let line = nodes.split('\n').find(|line| line.starts_with(&id.to_string()));
        line.map_or(String::new(), str::to_owned)
    };
    let seen = world.hosts[2].node.cluster_view().nodes_text();
    assert!(!line_of(&seen, writer).contains("fail"), "{seen}");
    assert!(line_of(&seen, silent).contains("fail"), "{seen}");
}

#[test]
fn a_peer_that_does_not_keep_up_is_not_given_more_until_it_has() {
    let mut world = World::joined(2);
    world.all("CONFIG SET cluster-node-timeout 60000");
    world.waiting.insert([0, 1], Vec::new());
    let is_update = |(_, frame): &&(LinkId, Vec<u8>)| frame.first() == Some(&frame::kind::UPDATES);
    for number in 0..500 {
        world.ask(0, &format!("INCR fresh:{number}"));
        world.run(Micros::from_millis(10));
    }
    let waiting = &world.waiting[&[0, 1]];
    let (updates, all) = (waiting.iter().filter(is_update).count(), waiting.len());
    assert!((50..150).contains(&updates), "{updates} frames of updates: of a second, not of five");
    assert!(all > updates + 20, "heartbeats go on: {} frames in all", all);
    world.work_off([0, 1]);
    world.run(Micros::from_secs(1));
    assert_eq!(world.ask(1, "DBSIZE"), ":500|");
}

#[test]
fn who_leaves_tells_everything_also_to_a_peer_that_is_behind() {
    let mut world = World::joined(2);
    world.waiting.insert([0, 1], Vec::new());
    world.run(Micros::from_millis(1_700));
    world.ask(0, "INCRBY a 7");
    world.run(Micros::from_millis(100));
    let now = world.clock();
    world.hosts[0].cluster.settle(now);
    world.settle();
    world.work_off([0, 1]);
    assert_eq!(world.ask(1, "GET a"), "7");
}

#[test]
fn who_leaves_tells_everything_however_much_has_changed_just_now() {
    for is_joined in [true, false] {
        let mut world = if is_joined { World::joined(2) } else { World::new(2) };
        (0..20_000).for_each(|n| drop(world.ask(0, &format!("INCRBY c{n} 3"))));
        if !is_joined {
            world.meet(0, 1);
            world.run(Micros::from_millis(2));
        }
        let now = world.clock();
        world.hosts[0].cluster.settle(now);
        world.settle();
        assert_eq!(world.ask(1, "DBSIZE"), ":20000|", "joined before: {is_joined}");
        assert!((0..20_000).all(|n| world.ask(1, &format!("GET c{n}")) == "3"));
    }
}

#[test]
fn what_is_known_of_a_node_is_young_also_if_more_changes_than_it_can_look_at_in_a_row() {
    const COUNTERS: usize = 5_000;
    let mut world = World::joined(2);
    (0..COUNTERS).for_each(|n| drop(world.ask(0, &format!("PRECISION c{n} 1000000"))));
    for _ in 0..500 {
        (0..COUNTERS).for_each(|n| drop(world.ask(0, &format!("INCR c{n}"))));
        world.run(Micros::from_millis(1));
    }
    let (host, now) = (&world.hosts[0], world.clock().monotonic);
    let age = now - host.cluster.publisher.as_of(&host.node.keyspace, now);
    assert!(age <= Micros::from_millis(50), "{age:?}");
}

#[test]
fn info_tells_how_often_a_prediction_was_made_and_how_often_it_held() {
    let mut world = World::joined(2);
    let told = |world: &World, host: usize| world.hosts[host].node.stats.predictions();
    assert_eq!((told(&world, 0), told(&world, 1)), ((0, 0), (0, 0)));
    world.ask(0, "INCRBY a 500");
    world.run(Micros::from_millis(500));
    let (_, made) = told(&world, 0);
    assert!(made > 0);
    // Steady steps within the precision: the line that peers have foresees most of them.
    world.ask(0, "PRECISION a 100");
    for _ in 0..500 {
        world.ask(0, "INCRBY a 1");
        world.run(Micros::from_millis(10));
    }
    let (kept, made) = told(&world, 0);
    assert!(kept > 10 * made, "{kept} kept, {made} made");
    assert_eq!(told(&world, 1), (0, 0), "it has changed nothing");
    assert!(world.ask(0, "INFO counters").contains("# Counters"));
    world.ask(0, "CONFIG RESETSTAT");
    assert_eq!(told(&world, 0), (0, 0));
}

#[test]
fn an_increment_is_seen_within_milliseconds() {
    let mut world = World::joined(2);
    world.run(Micros::from_secs(1));
    world.ask(0, "INCR a");
    world.run(Micros::from_millis(4));
    assert_eq!(world.ask(1, "GET a"), "1");
}

#[test]
fn what_was_counted_before_joining_is_known_afterwards() {
    let mut world = World::new(2);
    for n in 0..500 {
        world.ask(0, &format!("INCRBY old{n} {n}"));
        world.ask(1, &format!("INCRBY old{n} 1000"));
    }
    world.meet(0, 1);
    world.run(Micros::from_secs(3));
    for n in [0, 1, 250, 499] {
        world.agree(&format!("GET old{n}"), &format!("{}", n + 1000));
    }
}

#[test]
fn who_joins_with_many_counters_sends_each_once() {
    const COUNTERS: usize = 20_000;
    let mut world = World::new(2);
    (0..COUNTERS).for_each(|n| drop(world.ask(0, &format!("INCRBY c{n} 3"))));
    world.meet(0, 1);
    world.run(Micros::from_secs(3));
    assert_eq!(world.ask(1, "DBSIZE"), format!(":{COUNTERS}|"));
    let sent = world.hosts[0].cluster.links.values().map(|link| link.carried.updates_sent).sum::<u64>();
    assert_eq!(sent, COUNTERS as u64);
}

#[test]
fn a_set_holds_everywhere_and_later_increments_add_to_it() {
    let mut world = World::joined(3);
    world.ask(0, "INCRBY a 5");
    world.run(Micros::from_secs(3));
    world.ask(1, "SET a 100");
    assert_eq!(world.ask(1, "GET a"), "100");
    world.run(Micros::from_millis(20));
    world.agree("GET a", "100");
    world.ask(2, "INCRBY a 3");
    world.ask(0, "INCRBY a 4");
    world.run(Micros::from_secs(3));
    world.agree("GET a", "107");
}

#[test]
fn of_two_sets_at_once_one_wins() {
    let mut world = World::joined(3);
    world.ask(0, "SET a 100");
    world.ask(1, "SET a 50");
    world.ask(2, "INCRBY a 1");
    world.run(Micros::from_secs(3));
    let answers = world.all("GET a");
    assert!(answers.iter().all(|answer| *answer == answers[0]), "{answers:?}");
    assert!(["101", "51"].contains(&answers[0].as_str()), "{answers:?}");
}

#[test]
fn a_steady_stream_is_followed_and_ends_exactly() {
    let mut world = World::joined(2);
    for _ in 0..5_000 {
        world.ask(0, "INCR a");
        world.run(Micros::from_millis(2));
    }
    let seen: f64 = world.ask(1, "GET a").parse().unwrap();
    assert!((seen - 5_000.0).abs() <= 2.0, "{seen}");
    world.run(Micros::from_secs(3));
    world.agree("GET a", "5000");
}

#[test]
fn a_node_that_falls_quiet_says_soon_what_its_counters_are() {
    let mut world = World::joined(2);
    let busy = |world: &mut World| {
        for _ in 0..7 {
            world.ask(0, "INCR b");
            world.run(Micros::from_millis(100));
        }
    };
    world.ask(0, "PRECISION a 1000");
    world.ask(0, "INCRBY a 10");
    busy(&mut world);
    world.ask(0, "INCRBY a 1");
    busy(&mut world);
    assert_eq!(world.ask(1, "GET a"), "10", "while others are counted, within the precision is enough");
    world.run(Micros::from_millis(600));
    assert_eq!(world.ask(1, "GET a"), "11");
}

#[test]
fn deleted_counters_are_gone_everywhere() {
    let mut world = World::joined(3);
    world.ask(0, "INCRBY a 5");
    world.ask(1, "INCRBY b 5");
    world.run(Micros::from_secs(3));
    world.ask(2, "DEL a");
    assert_eq!(world.ask(2, "EXISTS a"), ":0|");
    world.ask(2, "SET b 0");
    world.run(Micros::from_secs(20));
    for host in 0..3 {
        assert_eq!(world.ask(host, "DBSIZE"), ":0|");
    }
}

#[test]
fn a_set_that_others_have_removed_already_is_told_to_a_cluster_that_joins() {
    let mut world = World::new(4);
    world.meet(0, 1);
    world.meet(2, 3);
    world.run(Micros::from_secs(3));
    // What is counted here is stated in the generation in which the counter had disappeared.
    world.ask(2, "INCRBY a 5");
    world.ask(2, "DEL a");
    world.run(Micros::from_secs(20));
    world.ask(2, "INCRBY a 7");
    world.ask(0, "INCRBY a 1");
    world.ask(0, "DEL a");
    world.run(Micros::from_millis(20));
    world.hosts[0].node.keyspace.collect_zeros(Micros::NEVER, |_, _| Fate::Removed);
    for (one, other) in [(0, 2), (0, 3), (1, 2), (1, 3)] {
        world.meet(one, other);
    }
    world.run(Micros::from_secs(6));
    world.agree("GET a", "7");
    for answer in world.all("GET a BOUND") {
        assert!(answer.contains("|$1|0|"), "all is known: {answer}");
    }
}

/// How far host 0's shard of `a` has been outside of what it says, as host 1 is told within this time; the furthest.
fn excursion_told(world: &mut World, time: Micros) -> i128 {
    let mut furthest = 0;
    for _ in 0..time.millis() {
        world.run(Micros::from_millis(1));
        let cluster = &world.hosts[1].cluster;
        let member = cluster.members.index_of(world.hosts[0].node.id()).unwrap();
        cluster.node.keyspace.walk_all(0, u64::MAX, |_, counter| {
            let shard = counter.full().and_then(|full| full.peers().iter().find(|p| p.member() == member));
            furthest = furthest.max(shard.and_then(|shard| shard.excursion().units()).unwrap_or(i128::MAX));
        });
    }
    furthest / Value::ONE.units()
}

#[test]
fn readers_are_told_where_a_shard_was_while_its_node_asked_for_it() {
    let cases = [(true, 50, 50), (true, 50, 70), (false, 100, 300)];
    // Under a SET that comes back together with it.
    let all = [false, true].map(|is_set| cases.map(|case| (is_set, case)));
    for (is_set, (is_resting, up, down)) in all.into_iter().flatten() {
        let mut world = World::joined(2);
        if is_set {
            world.ask(1, "SET a 0");
            world.run(Micros::from_secs(1));
        }
        world.ask(0, "INCRBY a 100");
        world.run(if is_resting { Micros::from_secs(15) } else { Micros::from_millis(100) });
        world.restart(0);
        world.ask(0, &format!("INCRBY a {up}"));
        world.ask(0, &format!("DECRBY a {down}"));
        let told = excursion_told(&mut world, Micros::from_secs(5));
        assert!((up..2 * up).contains(&told), "{told} of {up}");
        world.agree("GET a", &format!("{}", 100 + up - down));
    }
}

#[test]
fn a_quiet_cluster_sends_little() {
    let mut world = World::joined(3);
    (0..100).for_each(|n| drop(world.ask(0, &format!("INCR c{n}"))));
    world.run(Micros::from_secs(30));
    world.bytes = 0;
    world.run(Micros::from_secs(10));
    let per_link_and_second = world.bytes / 10 / 3;
    assert!(per_link_and_second < 1_024, "{per_link_and_second} bytes");
}
