//! Any frames over a link, with and without the courtesies before: a node may close the link, but goes on, answers and counts.
//!
//! Two nodes are joined first. Then the input is a list of steps: frames made of its bytes, frames of the other node with some
//! bytes of them changed, time that passes, and counts on both.
#![no_main]

mod memory;

use engine::clients::Peer;
use engine::cluster::{Cluster, ClusterConfig, ClusterRequest, Effect, Input, LinkId, MAX_FRAME_LEN};
use engine::{Node, Session};
use libfuzzer_sys::fuzz_target;
use memory::{moment, node};
use resp::Request;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

struct Host {
    node: Arc<Node>,
    cluster: Cluster,
    session: Session,
    /// Our end of a link -> the other host's.
    ends: BTreeMap<LinkId, LinkId>,
}

impl Host {
    fn new(number: u8) -> Host {
        let node = node(number);
        let config =
            ClusterConfig { seed: u64::from(number), incarnation: 1_700_000_000, ..ClusterConfig::default() };
        let cluster = Cluster::new(Arc::clone(&node), config, moment(0)).expect("there is no nodes file");
        let session = node.connect(Peer::Unix("fuzz".into()), 0, moment(0), Box::new(|| ()));
        Host { node, cluster, session, ends: BTreeMap::new() }
    }

    fn run(&mut self, words: &[&[u8]], ms: u64) -> Vec<u8> {
        let mut out = Vec::new();
        let settings = self.node.settings();
        self.node.execute(&mut self.session, Request::from_args(words), &settings, moment(ms), &mut out);
        out
    }
}

struct World {
    hosts: [Host; 2],
    ms: u64,
    /// The last frames that the second host sent.
    sent: Vec<Vec<u8>>,
}

impl World {
    fn joined() -> World {
        let mut world = World { hosts: [Host::new(1), Host::new(2)], ms: 0, sent: Vec::new() };
        let bus = SocketAddr::from(([127, 0, 0, 1], 17_001));
        world.hosts[1].cluster.request(ClusterRequest::Meet { bus, port: 7_001 }, moment(0));
        for _ in 0..5 {
            world.pass(200);
        }
        world
    }

    fn pass(&mut self, ms: u64) {
        self.ms += ms;
        for host in &mut self.hosts {
            host.node.run_timers(moment(self.ms));
            host.cluster.handle(Input::Timer, moment(self.ms));
        }
        // Bounded: whatever frames were made up, the two must not keep each other talking for ever.
        for _ in 0..200 {
            let mut is_quiet = true;
            for from in 0..2 {
                while let Some(effect) = self.hosts[from].cluster.pop_effect() {
                    is_quiet = false;
                    self.carry_out(from, effect);
                }
            }
            if is_quiet {
                return;
            }
        }
    }

    fn carry_out(&mut self, from: usize, effect: Effect) {
        let now = moment(self.ms);
        let [first, second] = &mut self.hosts;
        let (own, other) = if from == 0 { (first, second) } else { (second, first) };
        match effect {
            Effect::Dial { link, to } if to.port() == 17_001 || to.port() == 17_002 => {
                let theirs = other.cluster.new_link();
                own.ends.insert(link, theirs);
                other.ends.insert(theirs, link);
                own.cluster.handle(Input::Dialed { link }, now);
                let address = SocketAddr::from(([127, 0, 0, 1], 40_000));
                other.cluster.handle(Input::Accepted { link: theirs, from: address }, now);
            }
            Effect::Dial { link, .. } => own.cluster.handle(Input::Closed { link, reason: "nobody" }, now),
            Effect::Send { link, frame } => {
                assert!((1..=MAX_FRAME_LEN).contains(&frame.len()));
                own.cluster.handle(Input::Sent { link, bytes: frame.len() }, now);
                if let Some(&theirs) = own.ends.get(&link) {
                    other.cluster.handle(Input::Received { link: theirs, frame: &frame }, now);
                }
                if from == 1 {
                    self.sent.truncate(15);
                    self.sent.insert(0, frame);
                }
            }
            Effect::Close { link } => {
                if let Some(theirs) = own.ends.remove(&link) {
                    other.ends.remove(&theirs);
                    other.cluster.handle(Input::Closed { link: theirs, reason: "closed" }, now);
                }
            }
            Effect::SaveNodes(_) => {}
        }
    }

    /// A frame for the first host, over a link that there is or over one that nobody has introduced.
    fn receive(&mut self, frame: &[u8], is_stranger: bool) {
        let host = &mut self.hosts[0];
        let known = host.ends.keys().next().copied().filter(|_| !is_stranger);
        let link = known.unwrap_or_else(|| {
            let link = host.cluster.new_link();
            let from = SocketAddr::from(([127, 0, 0, 1], 41_000));
            host.cluster.handle(Input::Accepted { link, from }, moment(self.ms));
            link
        });
        host.cluster.handle(Input::Received { link, frame }, moment(self.ms));
    }
}

fuzz_target!(|data: &[u8]| {
    let mut world = World::joined();
    let mut rest = data;
    while let [what, len, bytes @ ..] = rest {
        let (bytes, behind) = bytes.split_at(usize::from(*len).min(bytes.len()));
        rest = behind;
        match what % 8 {
            0 => world.pass(u64::from(*len) * 20 + 1),
            1 => drop(world.hosts[1].run(&[b"INCRBY", &bytes[..bytes.len().min(8)], b"3"], world.ms)),
            2 => drop(world.hosts[0].run(&[b"SET", &bytes[..bytes.len().min(8)], b"7.5"], world.ms)),
            3 | 4 if !bytes.is_empty() => world.receive(bytes, what & 8 != 0),
            _ => {
                let Some(mut frame) = world.sent.get(usize::from(what >> 4)).cloned() else { continue };
                for change in bytes.chunks_exact(2) {
                    let at = usize::from(change[0]) % frame.len();
                    frame[at] = change[1];
                }
                world.receive(&frame, what & 8 != 0);
            }
        }
    }
    world.pass(100);
    let before = world.hosts[0].run(&[b"GET", b"fuzz's own"], world.ms);
    assert!(before.starts_with(b"$"), "{before:?}");
    let after = world.hosts[0].run(&[b"INCRBY", b"fuzz's own", b"1"], world.ms);
    assert!(after.starts_with(b"$") || after.starts_with(b"-ERR Counter value out"), "{after:?}");
});
