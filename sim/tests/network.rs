//! The fake network keeps TCP's promises and no others.

use engine::time::Micros;
use sim::dice::Dice;
use sim::net::{Net, NetEvent, Notice};
use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

/// Where all attempts come from.
const FROM: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1)), 40_000);

/// A network with its queue of events; everything that a process would be told is written down.
struct Wire {
    net: Net,
    now: Micros,
    queue: BinaryHeap<Reverse<(Micros, u64)>>,
    events: BTreeMap<u64, NetEvent>,
    /// (when, side, what)
    told: Vec<(Micros, usize, String)>,
}

impl Wire {
    /// Two hosts that listen.
    fn new(seed: u64) -> Wire {
        let mut net = Net::new(2, Micros(5_000), Micros(20_000), Dice::new(seed));
        net.listen(0, 1);
        net.listen(1, 1);
        Wire { net, now: Micros(0), queue: BinaryHeap::new(), events: BTreeMap::new(), told: Vec::new() }
    }

    fn run(&mut self, until: Micros) {
        loop {
            for (at, event) in std::mem::take(&mut self.net.later) {
                let number = self.events.len() as u64;
                self.events.insert(number, event);
                self.queue.push(Reverse((at.max(self.now), number)));
            }
            let Some(&Reverse((at, number))) = self.queue.peek() else { break };
            if at > until {
                break;
            }
            self.queue.pop();
            self.now = at;
            match self.events[&number].clone() {
                NetEvent::Connect { conn, attempt } => self.net.connect(at, conn, attempt, FROM),
                NetEvent::Tell { side, notice, .. } => self.note(side, notice),
                NetEvent::Arrive { conn, side } => {
                    if let Some(notice) = self.net.arrive(at, conn, side) {
                        self.note(1 - side, notice);
                    }
                }
            }
        }
        self.now = until;
    }

    fn note(&mut self, side: usize, notice: Notice) {
        let text = match notice {
            Notice::Accepted(_) => String::from("accepted"),
            Notice::Dialed => String::from("dialed"),
            Notice::Sent(_) => return,
            Notice::Frame(frame) => frame[0].to_string(),
            Notice::Closed(reason) => {
                self.net.note_closed(0, side);
                reason.to_owned()
            }
        };
        self.told.push((self.now, side, text));
    }

    fn texts(&self, side: usize) -> Vec<&str> {
        self.told.iter().filter(|(_, at, _)| *at == side).map(|(_, _, text)| text.as_str()).collect()
    }
}

fn connected(seed: u64) -> Wire {
    let mut wire = Wire::new(seed);
    wire.net.dial(Micros(0), (0, 1), Some(1));
    wire.run(Micros::from_secs(1));
    assert_eq!(wire.texts(0), ["dialed"]);
    assert_eq!(wire.texts(1), ["accepted"]);
    wire
}

#[test]
fn frames_arrive_once_and_in_order() {
    for seed in 0..20 {
        let mut wire = connected(seed);
        for number in 0..50 {
            wire.net.send(wire.now, 0, 0, vec![number; 1 + usize::from(number) * 700]);
        }
        wire.run(Micros::from_secs(10));
        let expected: Vec<String> = (0..50).map(|number| number.to_string()).collect();
        assert_eq!(wire.texts(1)[1..], expected, "seed {seed}");
    }
}

#[test]
fn a_cut_holds_back_one_direction_until_it_heals() {
    let mut wire = connected(1);
    wire.net.change_path(wire.now, 0, 1, |path| path.is_cut = true);
    wire.net.send(wire.now, 0, 0, vec![7]);
    wire.net.send(wire.now, 0, 1, vec![8]);
    wire.run(Micros::from_secs(30));
    assert_eq!((wire.texts(0), wire.texts(1)), (vec!["dialed", "8"], vec!["accepted"]));
    wire.net.change_path(wire.now, 0, 1, |path| path.is_cut = false);
    wire.run(Micros::from_secs(31));
    assert_eq!(wire.texts(1), ["accepted", "7"]);
}

#[test]
fn nobody_connects_over_a_cut() {
    let mut wire = Wire::new(3);
    wire.net.change_path(Micros(0), 1, 0, |path| path.is_cut = true);
    wire.net.dial(Micros(0), (0, 1), Some(1));
    wire.run(Micros::from_secs(60));
    assert_eq!((wire.texts(0), wire.texts(1)), (vec!["connection timed out"], vec![]));
}

#[test]
fn without_power_nobody_is_told_until_it_is_back_and_something_is_sent() {
    let mut wire = connected(4);
    wire.net.kill(wire.now, 1, true);
    wire.net.send(wire.now, 0, 0, vec![1]);
    wire.run(Micros::from_secs(20));
    assert_eq!(wire.texts(0), ["dialed"]);
    wire.net.listen(1, 2);
    wire.net.send(wire.now, 0, 0, vec![2]);
    wire.run(Micros::from_secs(21));
    assert_eq!(wire.texts(0), ["dialed", "connection reset by peer"]);
}

#[test]
fn a_dead_process_is_noticed_at_once() {
    let mut wire = connected(5);
    wire.net.kill(wire.now, 1, false);
    wire.run(Micros::from_secs(2));
    assert_eq!(wire.texts(0), ["dialed", "closed by the other side"]);
}

#[test]
fn little_bandwidth_delays_what_is_large() {
    let mut wire = connected(6);
    wire.net.change_path(wire.now, 0, 1, |path| path.bytes_per_sec = Some(10_000));
    (0..5).for_each(|number| wire.net.send(wire.now, 0, 0, vec![number; 20_000]));
    wire.run(Micros::from_secs(5));
    assert_eq!(wire.texts(1), ["accepted", "0"]);
    wire.run(Micros::from_secs(20));
    assert_eq!(wire.texts(1).len(), 6);
}
