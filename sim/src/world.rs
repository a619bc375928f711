//! Virtual time, hosts and what happens to them. One queue of events, one source of chance: a seed is a run.
//!
//! The world knows nothing of counters. It starts and kills processes, carries their frames and gives them the time;
//! what clients and faults do is an `Errand` that it hands back when it is due.
//!
//! Invariant: events of the same moment happen in the order in which they were planned.

use crate::clock::Clock;
use crate::dice::Dice;
use crate::net::{ConnId, Net, NetEvent, Notice, Side};
use crate::plan::{DiskKind, Plan};
use crate::process::{CounterState, Process, Program, Start};
use crate::trace::Trace;
use engine::NodeId;
use engine::cluster::{Effect, Input, LinkId};
use engine::settings::BUS_PORT_OFFSET;
use engine::time::{Micros, Now};
use resp::Reply;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

/// Client port of every node.
const PORT: u16 = 5262;

/// Longest time from a change by a client to the cluster's turn.
const MAX_WAKE_DELAY: Micros = Micros(300);

/// A process that asks to be run again at once does not stop the world: so much time passes all the same.
const MIN_TIMER_GAP: Micros = Micros(20);

/// What others planned to do at a time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Errand {
    /// This client does something.
    Client(usize),
    /// Something goes wrong.
    Fault,
    /// A fault ends: this number names it.
    Mend(usize),
    /// The judge looks at everything.
    Sweep,
    /// The judge looks at what may be about to disappear.
    Glance,
}

#[derive(Debug)]
enum Event {
    Net(NetEvent),
    Timer { host: usize, life: u32 },
    Image { host: usize, life: u32 },
    Errand(Errand),
}

struct Entry {
    at: Micros,
    number: u64,
    event: Event,
}

impl PartialEq for Entry {
    fn eq(&self, other: &Entry) -> bool {
        self.number == other.number
    }
}
impl Eq for Entry {}
impl PartialOrd for Entry {
    fn partial_cmp(&self, other: &Entry) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Entry {
    fn cmp(&self, other: &Entry) -> std::cmp::Ordering {
        (self.at, self.number).cmp(&(other.at, other.number))
    }
}

/// A machine with at most one node process.
pub struct Host {
    /// The process, if it runs.
    pub process: Option<Box<dyn Process>>,
    /// Number of the process on this host.
    pub life: u32,
    /// How often a process here has begun anew without a start.
    pub resets: u32,
    /// It has left its cluster, and nobody has taken it in since.
    pub has_left: bool,
    /// Its clocks.
    pub clock: Clock,
    /// Where clients reach it.
    pub addr: SocketAddr,
    /// Identity that the process has or had last.
    pub id: NodeId,
    /// Since when its process has run without a pause.
    pub well_since: Micros,
    /// Whether the process stands still.
    pub is_paused: bool,
    /// What the process last knew of the counter that is watched.
    watched: CounterState,
    backlog: Vec<Event>,
    links: BTreeMap<LinkId, (ConnId, Side)>,
    sides: BTreeMap<(ConnId, Side), LinkId>,
    timer_at: Micros,
    nodes_file: Option<Vec<u8>>,
    image: Option<Vec<u8>>,
}

impl Host {
    /// Whether a process runs and is not paused.
    pub fn is_answering(&self) -> bool {
        self.process.is_some() && !self.is_paused
    }

    /// Whether clients go there.
    pub fn is_serving(&self) -> bool {
        self.is_answering() && !self.has_left
    }
}

/// The fake world.
pub struct World<'a> {
    program: &'a dyn Program,
    plan: &'a Plan,
    /// World time.
    pub now: Micros,
    /// All hosts.
    pub hosts: Vec<Host>,
    /// The network between them.
    pub net: Net,
    /// What has happened.
    pub trace: Trace,
    queue: BinaryHeap<Reverse<Entry>>,
    planned: u64,
    dice: Dice,
    next_address: u8,
}

impl<'a> World<'a> {
    /// A world for a plan, with all hosts and no process.
    pub fn new(program: &'a dyn Program, plan: &'a Plan, trace: Trace) -> World<'a> {
        let mut dice = Dice::new(plan.seed ^ 0x5eed);
        let hosts = (0..plan.hosts).map(|index| new_host(index, plan, &mut dice)).collect();
        World {
            program,
            plan,
            now: Micros(0),
            hosts,
            net: Net::new(plan.hosts, plan.max_latency, plan.max_jitter, dice.fork()),
            trace,
            queue: BinaryHeap::new(),
            planned: 0,
            dice,
            next_address: plan.hosts as u8 + 1,
        }
    }

    /// The time on a host.
    pub fn local(&self, host: usize) -> Now {
        self.hosts[host].clock.now(self.now)
    }

    /// Plans something for later.
    pub fn plan_errand(&mut self, at: Micros, errand: Errand) {
        self.push(at, Event::Errand(errand));
    }

    fn push(&mut self, at: Micros, event: Event) {
        self.planned += 1;
        let at = at.max(self.now);
        self.queue.push(Reverse(Entry { at, number: self.planned, event }));
    }

    /// Lets time pass until something planned by others is due (returned) or until `until` (`None`).
    pub fn run(&mut self, until: Micros) -> Option<Errand> {
        loop {
            self.take_net_events();
            if self.queue.peek().is_none_or(|Reverse(entry)| entry.at > until) {
                self.now = self.now.max(until);
                return None;
            }
            let Reverse(entry) = self.queue.pop()?;
            self.now = entry.at;
            match entry.event {
                Event::Errand(errand) => return Some(errand),
                Event::Net(event) => self.run_net(event),
                Event::Timer { host, life } => self.run_timer(host, life),
                Event::Image { host, life } => self.take_image(host, life),
            }
        }
    }

    fn take_net_events(&mut self) {
        let mut later = std::mem::take(&mut self.net.later);
        for (at, event) in later.drain(..) {
            self.push(at, Event::Net(event));
        }
        self.net.later = later;
    }

    fn run_timer(&mut self, host: usize, life: u32) {
        let planned = &mut self.hosts[host];
        if planned.life != life || planned.timer_at != self.now || planned.process.is_none() {
            return;
        }
        if planned.is_paused {
            planned.backlog.push(Event::Timer { host, life });
            return;
        }
        self.drive(host, |process, now| process.handle(Input::Timer, now));
    }

    fn run_net(&mut self, event: NetEvent) {
        let (conn, side) = match event {
            NetEvent::Connect { conn, attempt } => {
                let (from, _) = self.net.end(conn, 0);
                let port = 40_000 + (conn % 20_000) as u16;
                let address = SocketAddr::new(self.hosts[from].addr.ip(), port);
                return self.net.connect(self.now, conn, attempt, address);
            }
            NetEvent::Arrive { conn, side } => (conn, 1 - side),
            NetEvent::Tell { conn, side, .. } => (conn, side),
        };
        let (host, _) = self.net.end(conn, side);
        if self.hosts[host].is_paused && self.hosts[host].process.is_some() {
            self.hosts[host].backlog.push(Event::Net(event));
            return;
        }
        let notice = match event {
            NetEvent::Arrive { conn, side } => self.net.arrive(self.now, conn, side),
            NetEvent::Tell { notice, .. } => Some(notice),
            NetEvent::Connect { .. } => None,
        };
        if let Some(notice) = notice {
            self.tell(conn, side, notice);
        }
    }

    /// Tells a process about one of its connections, if both still live.
    fn tell(&mut self, conn: ConnId, side: Side, notice: Notice) {
        let (host, life) = self.net.end(conn, side);
        let target = &mut self.hosts[host];
        let Some(process) = target.process.as_mut() else { return };
        if target.life != life || !self.net.is_open(conn, side) {
            return;
        }
        let link = match (&notice, target.sides.get(&(conn, side))) {
            (Notice::Accepted(_), _) => {
                let link = process.new_link();
                target.links.insert(link, (conn, side));
                target.sides.insert((conn, side), link);
                link
            }
            (_, Some(&link)) => link,
            (_, None) => return,
        };
        self.trace.note(self.now, || format!("n{host} {link:?} {}", describe(&notice)));
        match notice {
            Notice::Accepted(from) => {
                self.drive(host, |p, now| p.handle(Input::Accepted { link, from }, now))
            }
            Notice::Dialed => self.drive(host, |p, now| p.handle(Input::Dialed { link }, now)),
            Notice::Sent(bytes) => self.drive(host, |p, now| p.handle(Input::Sent { link, bytes }, now)),
            Notice::Frame(frame) => {
                self.trace.mix_bytes(&frame);
                self.drive(host, |p, now| p.handle(Input::Received { link, frame: &frame }, now));
            }
            Notice::Closed(reason) => {
                self.net.note_closed(conn, side);
                self.forget_link(host, link);
                self.drive(host, |p, now| p.handle(Input::Closed { link, reason }, now));
            }
        }
    }

    fn forget_link(&mut self, host: usize, link: LinkId) {
        if let Some(end) = self.hosts[host].links.remove(&link) {
            self.hosts[host].sides.remove(&end);
        }
    }

    /// Does something with a process, then what the process asks for. The process must run.
    pub fn drive<R>(&mut self, host: usize, act: impl FnOnce(&mut dyn Process, Now) -> R) -> R {
        let now = self.local(host);
        self.trace.mix(self.now.0 << 8 | host as u64);
        let mut process = self.hosts[host].process.take().expect("only running processes are driven");
        let result = act(&mut *process, now);
        while let Some(effect) = process.pop_effect() {
            self.carry_out(host, effect);
        }
        if let Some(name) = self.trace.watched() {
            let state = process.inspect(name, now);
            if state != self.hosts[host].watched {
                self.trace.note(self.now, || format!("n{host} knows {state}"));
                self.hosts[host].watched = state;
            }
        }
        let deadline = process.deadline();
        let known = &mut self.hosts[host];
        known.id = process.id();
        known.has_left = known.has_left && process.members().len() == 1;
        known.process = Some(process);
        let mut at = self.hosts[host].clock.world_time(deadline);
        if at <= self.now {
            at = self.now + MIN_TIMER_GAP + Micros(self.dice.below(MAX_WAKE_DELAY.0));
        }
        let is_planned = self.hosts[host].timer_at > self.now && self.hosts[host].timer_at <= at;
        if at != Micros::NEVER && !is_planned {
            self.hosts[host].timer_at = at;
            self.push(at, Event::Timer { host, life: self.hosts[host].life });
        }
        result
    }

    fn carry_out(&mut self, host: usize, effect: Effect) {
        match effect {
            Effect::Dial { link, to } => {
                let target = (0..self.hosts.len()).find(|&other| bus_of(self.hosts[other].addr) == to);
                let life = self.hosts[host].life;
                let conn = self.net.dial(self.now, (host, life), target);
                self.hosts[host].links.insert(link, (conn, 0));
                self.hosts[host].sides.insert((conn, 0), link);
                self.trace.note(self.now, || format!("n{host} {link:?} dials {to}"));
            }
            Effect::Send { link, frame } => {
                assert!(
                    frame.len() <= engine::cluster::MAX_FRAME_LEN,
                    "a frame of {} bytes is too long",
                    frame.len()
                );
                if let Some(&(conn, side)) = self.hosts[host].links.get(&link) {
                    self.net.send(self.now, conn, side, frame);
                }
            }
            Effect::Close { link } => {
                if let Some(&(conn, side)) = self.hosts[host].links.get(&link) {
                    self.net.close(self.now, conn, side);
                    self.forget_link(host, link);
                    self.trace.note(self.now, || format!("n{host} {link:?} closes"));
                }
            }
            Effect::SaveNodes(bytes) => self.hosts[host].nodes_file = Some(bytes),
        }
    }

    /// Executes a client's request. The process must run.
    pub fn execute(&mut self, host: usize, words: &[&[u8]]) -> Reply {
        self.drive(host, |process, now| process.execute(words, now))
    }

    /// Starts the process of a host with what is on its disk.
    pub fn start(&mut self, host: usize) {
        let now = self.local(host);
        let target = &mut self.hosts[host];
        assert!(target.process.is_none(), "a host runs one process");
        target.life += 1;
        target.well_since = self.now;
        target.timer_at = Micros(0);
        let process = self.program.start(Start {
            id: target.id,
            seed: self.dice.bits(),
            nodes_file: target.nodes_file.clone(),
            image: target.image.clone(),
            now,
            addr: target.addr,
            node_timeout_ms: self.plan.node_timeout_ms,
            default_precision: self.plan.default_precision,
        });
        target.process = Some(process);
        let life = target.life;
        self.net.listen(host, life);
        self.trace.note(self.now, || format!("n{host} starts, life {life}"));
        self.drive(host, |_, _| ());
        if let DiskKind::Lagging(_) = self.plan.disk {
            self.take_image(host, life);
        }
    }

    /// What a crash at this moment would leave of the counters.
    fn take_image(&mut self, host: usize, life: u32) {
        let DiskKind::Lagging(lag) = self.plan.disk else { return };
        if self.hosts[host].life != life {
            return;
        }
        let now = self.local(host);
        if let Some(process) = &self.hosts[host].process {
            self.hosts[host].image = process.image(now);
            self.push(self.now + lag, Event::Image { host, life });
        }
    }

    /// Ends the process of a host without warning. Returns it, for a look at what is lost.
    pub fn kill(&mut self, host: usize, is_power_cut: bool) -> Box<dyn Process> {
        let now = self.local(host);
        let target = &mut self.hosts[host];
        let process = target.process.take().expect("only running processes are killed");
        match self.plan.disk {
            DiskKind::Exact => target.image = process.image(now),
            DiskKind::NoCounters => target.image = None,
            DiskKind::Lagging(_) => {}
        }
        target.links.clear();
        target.sides.clear();
        target.backlog.clear();
        target.is_paused = false;
        self.net.kill(self.now, host, is_power_cut);
        process
    }

    /// What is on a host's disk, as a process started from it would know it.
    pub fn revive(&self, host: usize) -> Option<Box<dyn Process>> {
        let target = &self.hosts[host];
        let image = target.image.clone()?;
        let (id, addr, now) = (target.id, target.addr, self.local(host));
        let (node_timeout_ms, default_precision) = (self.plan.node_timeout_ms, self.plan.default_precision);
        let nodes_file = target.nodes_file.clone();
        let start = Start {
            id,
            seed: 0,
            nodes_file,
            image: Some(image),
            now,
            addr,
            node_timeout_ms,
            default_precision,
        };
        Some(self.program.start(start))
    }

    /// Lets a process stand still.
    pub fn pause(&mut self, host: usize) {
        self.hosts[host].is_paused = true;
        self.trace.note(self.now, || format!("n{host} stands still"));
    }

    /// Lets it go on: everything that has come meanwhile comes now.
    pub fn resume(&mut self, host: usize) {
        self.hosts[host].is_paused = false;
        self.hosts[host].well_since = self.now;
        self.trace.note(self.now, || format!("n{host} goes on"));
        for event in std::mem::take(&mut self.hosts[host].backlog) {
            if let Event::Timer { .. } = event {
                self.hosts[host].timer_at = self.now;
            }
            self.push(self.now, event);
        }
    }

    /// Gives a host that runs nothing an address that nobody had before.
    pub fn move_host(&mut self, host: usize) {
        self.next_address += 1;
        self.hosts[host].addr = address(self.next_address);
    }

    /// The bus address of a host.
    pub fn bus(&self, host: usize) -> SocketAddr {
        bus_of(self.hosts[host].addr)
    }
}

fn bus_of(addr: SocketAddr) -> SocketAddr {
    SocketAddr::new(addr.ip(), addr.port() + BUS_PORT_OFFSET)
}

fn address(number: u8) -> SocketAddr {
    SocketAddr::new(IpAddr::V4(Ipv4Addr::new(10, 0, 0, number)), PORT)
}

fn new_host(index: usize, plan: &Plan, dice: &mut Dice) -> Host {
    let drift = dice.below(2 * plan.max_drift_ppm + 1) as i64 - plan.max_drift_ppm as i64;
    let skew = dice.below(2 * plan.max_skew.0 + 1) as i64 - plan.max_skew.0 as i64;
    let offset = Micros(dice.log_between(1_000_000, 1_000_000_000_000));
    Host {
        process: None,
        life: 0,
        resets: 0,
        has_left: false,
        clock: Clock::new(offset, drift, skew),
        addr: address(index as u8 + 1),
        id: new_id(dice),
        well_since: Micros(0),
        is_paused: false,
        watched: CounterState::default(),
        backlog: Vec::new(),
        links: BTreeMap::new(),
        sides: BTreeMap::new(),
        timer_at: Micros(0),
        nodes_file: None,
        image: None,
    }
}

fn new_id(dice: &mut Dice) -> NodeId {
    NodeId(std::array::from_fn(|_| dice.bits() as u8))
}

fn describe(notice: &Notice) -> String {
    match notice {
        Notice::Accepted(from) => format!("accepts {from}"),
        Notice::Dialed => "is connected".into(),
        Notice::Sent(bytes) => format!("has sent {bytes} bytes"),
        Notice::Frame(frame) => {
            format!("receives {} bytes, kind {}", frame.len(), frame.first().copied().unwrap_or_default())
        }
        Notice::Closed(reason) => format!("is closed: {reason}"),
    }
}
