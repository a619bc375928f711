//! A whole node at work on a fake disk, beside a peer that stays alive, and a model of what the disk must give back.
//!
//! The node's log, its snapshots and its nodes file are on the disk, written as the server writes them. Links deliver at
//! once, or are cut. Lacks on purpose: threads; each step ends before the next begins, so what a commit holds is known.

#![allow(clippy::unwrap_used)] // tests
#![allow(dead_code)] // each test file uses its own part

use engine::clients::Peer;
use engine::cluster::inspect::CounterInspection;
use engine::cluster::{Cluster, ClusterConfig, ClusterRequest, Effect, Input, LinkId};
use engine::durable::{Journal, Loader, SnapshotProgress};
use engine::settings::Settings;
use engine::store::{Batch, Disk, Options, SnapshotPolicy, SnapshotStep, Store, StoreError};
use engine::time::{Micros, Now};
use engine::value::Value;
use engine::{Node, NodeConfig, NodeId, ProcessInfo, Session, Shell};
use resp::Request;
use sim::disk::{Dice, FakeDisk};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

/// The node with the disk, and its peer.
pub(crate) const A: usize = 0;
pub(crate) const B: usize = 1;

/// Where the first node's bus listens; the others follow.
const FIRST_BUS_PORT: u16 = 17_000;

/// Counters that are only ever raised: what is left of them can be told exactly.
const RAISED: usize = 8;
/// Counters to which everything happens.
const MIXED: usize = 4;

/// All that is known of all counters, by name.
pub(crate) type Picture = BTreeMap<String, CounterInspection>;

struct Quiet;

impl Shell for Quiet {
    fn process(&self) -> ProcessInfo {
        ProcessInfo::default()
    }

    fn settings_changed(&self, _: &Settings) -> Result<(), String> {
        Ok(())
    }
}

pub(crate) fn names() -> impl Iterator<Item = String> {
    (0..RAISED).map(raised).chain((0..MIXED).map(mixed))
}

fn raised(number: usize) -> String {
    format!("raised:{number}")
}

pub(crate) fn is_raised(name: &str) -> bool {
    name.starts_with("raised:")
}

fn mixed(number: usize) -> String {
    format!("mixed:{number}")
}

/// What of a node the disk's thread has.
struct Log {
    store: Store<FakeDisk>,
    journal: Journal,
    batch: Batch,
    progress: Option<SnapshotProgress>,
}

/// A process.
pub(crate) struct Host {
    pub(crate) node: Arc<Node>,
    pub(crate) cluster: Cluster,
    session: Session,
    ends: BTreeMap<LinkId, (usize, LinkId)>,
    log: Option<Log>,
}

/// Node A on its disk, node B without one, and the truth.
pub(crate) struct World {
    hosts: Vec<Option<Host>>,
    disk: FakeDisk,
    options: Options,
    pub(crate) now: Micros,
    pub(crate) dice: Dice,
    is_cut: bool,
    /// Starts of A so far: a node that finds nothing on its disk takes a new name.
    starts: u8,
    /// What A knew at each commit that was tried since the last one that is known to be safe, that one first.
    pub(crate) tried: Vec<Picture>,
    /// What A knew when the batch that is being tried was collected.
    collected: Picture,
    pub(crate) committed: usize,
    pub(crate) snapshots: u64,
}

impl World {
    pub(crate) fn new(seed: u64, disk: &FakeDisk) -> World {
        if !seed.is_multiple_of(2) {
            disk.make_room(400);
        }
        World {
            hosts: vec![None, None],
            disk: disk.clone(),
            options: Options {
                seed,
                segment_bytes: 1_500,
                snapshot_chunk_bytes: 200,
                compress_snapshots: seed.is_multiple_of(3),
                policy: SnapshotPolicy { growth: 1.0, min_log_bytes: 2_500, max_segments: 8 },
            },
            now: Micros::from_secs(10),
            dice: Dice::new(seed ^ 0xd15c),
            is_cut: false,
            starts: 0,
            tried: vec![Picture::new()],
            collected: Picture::new(),
            committed: 0,
            snapshots: 0,
        }
    }

    fn clock(&self) -> Now {
        Now { monotonic: self.now, unix: self.now + Micros::from_secs(1_700_000_000) }
    }

    pub(crate) fn host(&mut self, host: usize) -> &mut Host {
        self.hosts[host].as_mut().expect("the host was started")
    }

    fn node(&self, host: usize) -> Arc<Node> {
        let settings =
            Settings { port: 7000 + host as u16, cluster_node_timeout_ms: 2_000, ..Settings::default() };
        Arc::new(Node::new(NodeConfig {
            id: NodeId([if host == B { 0xbb } else { self.starts }; 20]),
            run_id: [0; 20],
            hash_seed: self.options.seed,
            settings,
            now: self.clock(),
            shell: Arc::new(Quiet),
        }))
    }

    fn begin(&mut self, host: usize, node: Arc<Node>, nodes_file: Option<Vec<u8>>, log: Option<Log>) {
        let now = self.clock();
        let (seed, incarnation) = (host as u64, now.unix.secs() as u32);
        let config = ClusterConfig { seed, nodes_file, incarnation, ..ClusterConfig::default() };
        let cluster = Cluster::new(Arc::clone(&node), config, now).unwrap();
        let session = node.connect(Peer::Unix("test".into()), 0, now, Box::new(|| ()));
        self.hosts[host] = Some(Host { node, cluster, session, ends: BTreeMap::new(), log });
    }

    /// Starts the peer.
    pub(crate) fn start_peer(&mut self) {
        let node = self.node(B);
        self.begin(B, node, None, None);
    }

    /// Starts A from its disk, as the server does. Nothing of the network has reached it when this returns.
    pub(crate) fn start(&mut self) -> Result<(), StoreError> {
        self.starts += 1;
        let node = self.node(A);
        let nodes_file = self.disk.contents("nodes.conf");
        let own = nodes_file.as_deref().map(|bytes| node.recognise(bytes).unwrap());
        let mut loader = Loader::new(&node, (0, 1), own, self.now);
        let (store, opening) = Store::open(self.disk.clone(), self.options.clone(), &mut loader)?;
        loader.finish().unwrap();
        node.finish_loading();
        let journal = Journal::new(Arc::clone(&node));
        journal.start();
        let log = Log { store, journal, batch: Batch::new(), progress: None };
        self.begin(A, node, nodes_file, Some(log));
        let recovered = self.kept_picture(A);
        // A start writes anew what it can't know to be safe; if that was refused the disk is as it was.
        if opening.not_writable.is_none() {
            self.tried.clear();
        }
        self.tried.push(recovered);
        self.committed = self.tried.len() - 1;
        Ok(())
    }

    /// The name of A.
    pub(crate) fn id(&mut self) -> NodeId {
        self.host(A).node.id()
    }

    /// The process A ends. What it had asked the network to carry is gone.
    pub(crate) fn kill(&mut self) {
        let Some(host) = self.hosts[A].take() else { return };
        for (other, link) in host.ends.into_values() {
            let now = self.clock();
            let Some(peer) = &mut self.hosts[other] else { continue };
            peer.ends.remove(&link);
            peer.cluster.handle(Input::Closed { link, reason: "killed" }, now);
        }
    }

    pub(crate) fn picture(&mut self, host: usize) -> Picture {
        let cluster = &self.host(host).cluster;
        let known = names().map(|name| (name.clone(), cluster.inspect(name.as_bytes())));
        known.filter(|(_, known)| known.own.is_some()).collect()
    }

    /// What of it a disk gives back exactly. A moving shard of a peer comes back where its line stood when it was written, and
    /// is asked for anew; which of its publications it is must be right.
    pub(crate) fn kept_picture(&mut self, host: usize) -> Picture {
        let mut picture = self.picture(host);
        picture.values_mut().flat_map(|known| &mut known.peers).for_each(|shard| shard.value = Value::ZERO);
        // Nor how far a line may be off by now.
        picture.values_mut().for_each(|known| known.slacks.clear());
        picture
    }

    pub(crate) fn get(&mut self, host: usize, name: &str) -> Option<Value> {
        let reply = self.ask(host, &["GET", name]);
        let text = String::from_utf8(reply).unwrap();
        let value = text.strip_prefix('$')?.split("\r\n").nth(1)?;
        Value::parse(value.as_bytes()).ok()
    }

    pub(crate) fn ask(&mut self, host: usize, words: &[&str]) -> Vec<u8> {
        let now = self.clock();
        let host = self.host(host);
        let words: Vec<&[u8]> = words.iter().map(|word| word.as_bytes()).collect();
        let settings = host.node.settings();
        let mut reply = Vec::new();
        host.node.execute(&mut host.session, Request::from_args(&words), &settings, now, &mut reply);
        reply
    }

    pub(crate) fn meet(&mut self) {
        let now = self.clock();
        let bus = SocketAddr::from(([127, 0, 0, 1], FIRST_BUS_PORT + A as u16));
        self.host(B).cluster.request(ClusterRequest::Meet { bus, port: 7000 }, now);
    }

    /// Lets time pass, links and timers work.
    pub(crate) fn pass(&mut self, millis: u64) {
        let end = self.now + Micros::from_millis(millis);
        while self.now < end && !self.disk.is_crashed() {
            self.now = end.min(self.now + Micros::from_millis(10));
            let now = self.clock();
            for host in [A, B] {
                if let Some(host) = &mut self.hosts[host] {
                    host.node.run_timers(now);
                    host.cluster.handle(Input::Timer, now);
                }
            }
            self.carry();
        }
    }

    fn carry(&mut self) {
        for _ in 0..10_000 {
            let mut is_quiet = true;
            for from in [A, B] {
                while let Some(effect) = self.hosts[from].as_mut().and_then(|host| host.cluster.pop_effect())
                {
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
                let other = usize::from(to.port() - FIRST_BUS_PORT);
                if self.is_cut || self.hosts[other].is_none() {
                    self.host(from).cluster.handle(Input::Closed { link, reason: "refused" }, now);
                    return;
                }
                let theirs = self.host(other).cluster.new_link();
                self.host(from).ends.insert(link, (other, theirs));
                self.host(other).ends.insert(theirs, (from, link));
                self.host(from).cluster.handle(Input::Dialed { link }, now);
                let address = SocketAddr::from(([127, 0, 0, 1], 40_000));
                self.host(other).cluster.handle(Input::Accepted { link: theirs, from: address }, now);
            }
            Effect::Send { link, frame } => {
                let Some(&(other, theirs)) = self.host(from).ends.get(&link) else { return };
                self.host(other).cluster.handle(Input::Received { link: theirs, frame: &frame }, now);
                self.host(from).cluster.handle(Input::Sent { link, bytes: frame.len() }, now);
            }
            Effect::Close { link } => {
                if let Some((other, theirs)) = self.host(from).ends.remove(&link) {
                    self.host(other).ends.remove(&theirs);
                    self.host(other).cluster.handle(Input::Closed { link: theirs, reason: "closed" }, now);
                }
            }
            Effect::SaveNodes(bytes) => {
                if from == A {
                    _ = save_nodes(&mut self.disk, &bytes);
                }
            }
        }
    }

    /// Cuts the link, or heals it.
    pub(crate) fn set_cut(&mut self, is_cut: bool) {
        self.is_cut = is_cut;
        if is_cut {
            let links: Vec<LinkId> = self.host(A).ends.keys().copied().collect();
            let now = self.clock();
            for link in links {
                let (other, theirs) = self.host(A).ends.remove(&link).unwrap();
                self.host(other).ends.remove(&theirs);
                self.host(A).cluster.handle(Input::Closed { link, reason: "cut" }, now);
                self.host(other).cluster.handle(Input::Closed { link: theirs, reason: "cut" }, now);
            }
        }
    }

    /// One chance after the other, until the disk crashes or there have been `steps`.
    pub(crate) fn work(&mut self, steps: usize) {
        for _ in 0..steps {
            if self.disk.is_crashed() {
                return;
            }
            match self.dice.below(16) {
                0..4 => self.count(A),
                4 => self.count(B),
                5 => self.change(),
                6..9 => _ = self.commit(),
                9 => _ = self.sync(),
                10..13 => self.snapshot(),
                13 if self.dice.chance(30) => {
                    let is_cut = !self.is_cut;
                    self.set_cut(is_cut);
                }
                _ => {
                    let millis = self.dice.below(60) as u64;
                    self.pass(millis);
                }
            }
        }
    }

    fn count(&mut self, host: usize) {
        for _ in 0..=self.dice.below(4) {
            let (name, by) = (raised(self.dice.below(RAISED)), (1 + self.dice.below(9)).to_string());
            self.ask(host, &["INCRBY", &name, &by]);
        }
    }

    fn change(&mut self) {
        let name = mixed(self.dice.below(MIXED));
        let host = if self.dice.chance(70) { A } else { B };
        let number = self.dice.below(100).to_string();
        match self.dice.below(5) {
            0 => self.ask(host, &["SET", &name, &number]),
            1 => self.ask(host, &["DEL", &name]),
            2 => self.ask(host, &["PRECISION", &name, &number]),
            3 => self.ask(host, &["DECRBY", &name, &number]),
            _ => self.ask(host, &["INCRBYFLOAT", &name, "0.125"]),
        };
    }

    fn log(&mut self) -> &mut Log {
        self.host(A).log.as_mut().expect("A has a disk")
    }

    /// As the disk's thread commits: what it could not write is tried again before anything else is collected.
    pub(crate) fn commit(&mut self) -> bool {
        let now = self.now;
        if self.log().batch.is_empty() {
            self.collected = self.kept_picture(A);
            let Log { journal, batch, .. } = self.log();
            journal.collect(batch, now);
        }
        self.tried.push(self.collected.clone());
        let log = self.log();
        if log.store.commit(&mut log.batch).is_err() {
            return false;
        }
        self.committed = self.tried.len() - 1;
        true
    }

    pub(crate) fn sync(&mut self) -> bool {
        let is_synced = self.log().store.sync().is_ok();
        if is_synced {
            self.tried.drain(..self.committed);
            self.committed = 0;
        }
        is_synced
    }

    fn snapshot(&mut self) {
        let now = self.now;
        let log = self.log();
        if log.store.should_snapshot() && log.store.begin_snapshot().is_ok() {
            log.progress = Some(SnapshotProgress::default());
        }
        let Some(progress) = &mut log.progress else { return };
        match log.store.snapshot_step(&mut log.journal.source(progress, now)) {
            Ok(SnapshotStep::NeedsCommit) => {
                let is_clear = self.log().batch.is_empty() || self.commit();
                if is_clear && self.commit() {
                    self.log().store.snapshot_covered();
                } else {
                    self.log().store.abandon_snapshot();
                    self.log().progress = None;
                }
            }
            Ok(SnapshotStep::Finished { .. }) => {
                self.snapshots += 1;
                self.log().progress = None;
            }
            Ok(SnapshotStep::Idle) | Err(_) => self.log().progress = None,
            Ok(SnapshotStep::Walking | SnapshotStep::Removing) => {}
        }
    }
}

/// As the server does it.
fn save_nodes(disk: &mut FakeDisk, bytes: &[u8]) -> std::io::Result<()> {
    const TEMPORARY: &str = "nodes.conf.tmp";
    if disk.contents(TEMPORARY).is_some() {
        disk.remove(TEMPORARY)?;
    }
    disk.create(TEMPORARY)?;
    disk.append(TEMPORARY, bytes)?;
    disk.sync(TEMPORARY)?;
    disk.rename(TEMPORARY, "nodes.conf")?;
    disk.sync_dir()
}
