//! The fake network: connections as TCP makes them seem, over paths that delay, stall, throttle and cut.
//!
//! A *path* is one direction between two hosts; everything bad happens to paths, or to one connection. What a
//! connection promises, as TCP does: frames arrive whole, once, in the order of sending, or not at all. What it does not
//! promise: when; nor that both ends learn of its end, nor at the same time.
//!
//! - A cut path holds what is on it; after the heal it arrives late, as after a retransmission.
//! - A socket takes `SOCKET_BUFFER` bytes ahead of the receiver; what is beyond waits, and `Sent` is told when it leaves.
//! - A host without power swallows everything; one without that process answers with a reset.
//!
//! Lacks on purpose: chunks. The door of the engine deals in frames, so a split frame is a late frame.

use crate::dice::Dice;
use engine::time::Micros;
use std::collections::VecDeque;
use std::net::SocketAddr;

/// Bytes that a sender gets rid of before the receiver takes any.
const SOCKET_BUFFER: usize = 128 * 1024;

/// How often a connection is tried before it counts as timed out; the wait doubles from one second.
const CONNECT_ATTEMPTS: u32 = 3;

/// Longest further delay of what a healed path brings.
const RETRANSMISSION: Micros = Micros::from_millis(300);

/// Names a connection in this network.
pub type ConnId = usize;

/// One of the two ends of a connection: 0 dialled, 1 accepted.
pub type Side = usize;

/// The condition of one direction between two hosts.
#[derive(Clone, Debug)]
pub struct Path {
    /// Time that everything takes at least.
    pub latency: Micros,
    /// Up to this is added by chance.
    pub jitter: Micros,
    /// Bytes per second; none: unlimited.
    pub bytes_per_sec: Option<u64>,
    /// Whether nothing gets through.
    pub is_cut: bool,
    /// Until when everything waits.
    pub stalled_until: Micros,
    /// When it was last cut, stalled or slow.
    pub troubled_at: Micros,
}

/// Something that happens at its time.
#[derive(Clone, Debug)]
pub enum NetEvent {
    /// A connection is tried.
    Connect {
        /// Which.
        conn: ConnId,
        /// How often it was tried before.
        attempt: u32,
    },
    /// The first item in flight from `side` is due at the other end.
    Arrive {
        /// On which connection.
        conn: ConnId,
        /// Who has sent it.
        side: Side,
    },
    /// The process at `side` is told something.
    Tell {
        /// About which connection.
        conn: ConnId,
        /// Whose process.
        side: Side,
        /// What.
        notice: Notice,
    },
}

/// What a process is told about a connection.
#[derive(Clone, Debug)]
pub enum Notice {
    /// Somebody has connected from there.
    Accepted(SocketAddr),
    /// Our attempt has succeeded.
    Dialed,
    /// So many bytes of frames have left for the socket.
    Sent(usize),
    /// A frame has arrived.
    Frame(Vec<u8>),
    /// It has ended.
    Closed(&'static str),
}

#[derive(Debug)]
struct End {
    host: usize,
    life: u32,
    is_open: bool,
}

#[derive(Debug)]
enum Item {
    Frame(Vec<u8>),
    End,
}

/// What is on its way from one end to the other.
#[derive(Debug, Default)]
struct Pipe {
    waiting: VecDeque<Vec<u8>>,
    flying: VecDeque<(Micros, Item)>,
    flying_bytes: usize,
    line_free_at: Micros,
    /// Nothing is there before: the answer to the attempt is under way.
    opens_at: Micros,
    is_ending: bool,
    is_scheduled: bool,
    is_held: bool,
}

#[derive(Debug)]
struct Conn {
    ends: [End; 2],
    pipes: [Pipe; 2],
}

#[derive(Clone, Copy, Debug, Default)]
struct Station {
    is_powered: bool,
    /// Number of the process that listens, if one does.
    listening: Option<u32>,
}

/// The network.
#[derive(Debug)]
pub struct Net {
    stations: Vec<Station>,
    paths: Vec<Path>,
    conns: Vec<Conn>,
    dice: Dice,
    /// What shall happen; the world takes it into its queue.
    pub later: Vec<(Micros, NetEvent)>,
    /// Bytes of frames asked to be sent so far, length prefixes included.
    pub bytes: u64,
    /// Frames asked to be sent so far.
    pub frames: u64,
}

impl Net {
    /// A network between so many hosts, each path with a latency of its own up to `max_latency`.
    pub fn new(hosts: usize, max_latency: Micros, max_jitter: Micros, mut dice: Dice) -> Net {
        let path = |dice: &mut Dice| Path {
            latency: Micros(dice.log_between(20, max_latency.0.max(21))),
            jitter: Micros(dice.below(max_jitter.0 + 1)),
            bytes_per_sec: None,
            is_cut: false,
            stalled_until: Micros(0),
            troubled_at: Micros(0),
        };
        let paths = (0..hosts * hosts).map(|_| path(&mut dice)).collect();
        let stations = vec![Station { is_powered: true, listening: None }; hosts];
        Net { stations, paths, conns: Vec::new(), dice, later: Vec::new(), bytes: 0, frames: 0 }
    }

    /// The path from one host to another.
    pub fn path(&self, from: usize, to: usize) -> &Path {
        &self.paths[from * self.stations.len() + to]
    }

    /// Changes a path; what it held flows again if it can.
    pub fn change_path(&mut self, now: Micros, from: usize, to: usize, change: impl FnOnce(&mut Path)) {
        let index = from * self.stations.len() + to;
        change(&mut self.paths[index]);
        self.paths[index].troubled_at = now.max(self.paths[index].stalled_until);
        if self.paths[index].is_cut {
            return;
        }
        let (is_wide, latency) = (self.paths[index].bytes_per_sec.is_none(), self.paths[index].latency);
        for conn in 0..self.conns.len() {
            for side in 0..2 {
                let ends = &self.conns[conn].ends;
                if (ends[side].host, ends[1 - side].host) != (from, to) {
                    continue;
                }
                let pipe = &mut self.conns[conn].pipes[side];
                if is_wide && pipe.line_free_at > now {
                    // What was queued up for a narrow line is on its way now.
                    pipe.line_free_at = now.max(pipe.opens_at);
                    let soonest = pipe.line_free_at + latency;
                    pipe.flying.iter_mut().for_each(|(due, _)| *due = (*due).min(soonest));
                    if pipe.is_scheduled {
                        self.later.push((soonest, NetEvent::Arrive { conn, side }));
                    }
                }
                if self.conns[conn].pipes[side].is_held {
                    self.conns[conn].pipes[side].is_held = false;
                    self.conns[conn].pipes[side].is_scheduled = true;
                    let late = Micros(self.dice.below(RETRANSMISSION.0));
                    self.later.push((now + late, NetEvent::Arrive { conn, side }));
                }
            }
        }
    }

    /// A process has started on a host (`life` numbers it).
    pub fn listen(&mut self, host: usize, life: u32) {
        self.stations[host] = Station { is_powered: true, listening: Some(life) };
    }

    /// The process on a host has died; with the power gone, nobody is told.
    pub fn kill(&mut self, now: Micros, host: usize, is_power_cut: bool) {
        self.stations[host] = Station { is_powered: !is_power_cut, listening: None };
        for conn in 0..self.conns.len() {
            for side in 0..2 {
                if self.conns[conn].ends[side].host != host || !self.conns[conn].ends[side].is_open {
                    continue;
                }
                self.conns[conn].ends[side].is_open = false;
                let is_abrupt = self.dice.chance(50);
                let pipe = &mut self.conns[conn].pipes[side];
                pipe.waiting.clear();
                if !is_power_cut {
                    if is_abrupt {
                        pipe.flying.truncate(1);
                    }
                    pipe.is_ending = true;
                    self.pump(now, conn, side);
                }
            }
        }
    }

    /// Starts to connect. The result is told to side 0.
    pub fn dial(&mut self, now: Micros, from: (usize, u32), to: Option<usize>) -> ConnId {
        let conn = self.conns.len();
        let (host, life) = from;
        // An address without a host: the attempt goes to our own path to nobody, and is refused.
        let target = to.unwrap_or(host);
        let ends = [End { host, life, is_open: true }, End { host: target, life: 0, is_open: false }];
        self.conns.push(Conn { ends, pipes: Default::default() });
        let event = match to {
            Some(_) => NetEvent::Connect { conn, attempt: 0 },
            None => NetEvent::Tell { conn, side: 0, notice: Notice::Closed("no route to host") },
        };
        let delay = self.delay(now, host, target);
        self.later.push((now + delay, event));
        conn
    }

    /// Sends a frame from one end, behind those before it.
    pub fn send(&mut self, now: Micros, conn: ConnId, side: Side, frame: Vec<u8>) {
        self.bytes += frame.len() as u64 + 4;
        self.frames += 1;
        if self.conns[conn].ends[side].is_open && !self.conns[conn].pipes[side].is_ending {
            self.conns[conn].pipes[side].waiting.push_back(frame);
            self.pump(now, conn, side);
        }
    }

    /// Closes one end; the other is told once everything before has arrived.
    pub fn close(&mut self, now: Micros, conn: ConnId, side: Side) {
        if std::mem::take(&mut self.conns[conn].ends[side].is_open) {
            self.conns[conn].pipes[side].is_ending = true;
            self.pump(now, conn, side);
        }
    }

    /// Something in the middle forgets a connection: one end is told now, the other only if `is_both`, else when it sends.
    pub fn sever(&mut self, now: Micros, conn: ConnId, side: Side, is_both: bool) {
        let notice = Notice::Closed("connection reset");
        self.later.push((now, NetEvent::Tell { conn, side, notice: notice.clone() }));
        if is_both {
            self.later.push((now, NetEvent::Tell { conn, side: 1 - side, notice }));
        }
        for pipe in &mut self.conns[conn].pipes {
            pipe.waiting.clear();
            pipe.flying.clear();
            pipe.flying_bytes = 0;
        }
    }

    /// Connections of which both ends are open.
    pub fn open_conns(&self) -> Vec<ConnId> {
        (0..self.conns.len()).filter(|&conn| self.conns[conn].ends.iter().all(|end| end.is_open)).collect()
    }

    /// The host and the process at an end.
    pub fn end(&self, conn: ConnId, side: Side) -> (usize, u32) {
        (self.conns[conn].ends[side].host, self.conns[conn].ends[side].life)
    }

    /// Whether that end may still be told something.
    pub fn is_open(&self, conn: ConnId, side: Side) -> bool {
        self.conns[conn].ends[side].is_open
    }

    /// The end has been told that it is over.
    pub fn note_closed(&mut self, conn: ConnId, side: Side) {
        self.conns[conn].ends[side].is_open = false;
    }

    /// A connection is tried: accepted, refused, or tried again later. `address` is where it comes from.
    pub fn connect(&mut self, now: Micros, conn: ConnId, attempt: u32, address: SocketAddr) {
        let (from, to) = (self.conns[conn].ends[0].host, self.conns[conn].ends[1].host);
        if !self.conns[conn].ends[0].is_open {
            return;
        }
        let tell = |side, notice| NetEvent::Tell { conn, side, notice };
        let is_lost =
            self.path(from, to).is_cut || self.path(to, from).is_cut || !self.stations[to].is_powered;
        let back = self.delay(now, to, from);
        match self.stations[to].listening {
            _ if is_lost && attempt + 1 == CONNECT_ATTEMPTS => {
                self.later.push((now, tell(0, Notice::Closed("connection timed out"))));
            }
            _ if is_lost => {
                let wait = Micros::from_secs(1 << attempt);
                self.later.push((now + wait, NetEvent::Connect { conn, attempt: attempt + 1 }));
            }
            None => self.later.push((now + back, tell(0, Notice::Closed("connection refused")))),
            Some(life) => {
                self.conns[conn].ends[1] = End { host: to, life, is_open: true };
                // Nothing overtakes the answer to the attempt.
                self.conns[conn].pipes[1].line_free_at = now + back;
                self.conns[conn].pipes[1].opens_at = now + back;
                self.later.push((now, tell(1, Notice::Accepted(address))));
                self.later.push((now + back, tell(0, Notice::Dialed)));
            }
        }
    }

    /// Takes what has arrived from `side`, if it gets through; it is for the process at the other end.
    pub fn arrive(&mut self, now: Micros, conn: ConnId, side: Side) -> Option<Notice> {
        let (from, to) = (self.conns[conn].ends[side].host, self.conns[conn].ends[1 - side].host);
        let path = self.path(from, to);
        let (is_cut, stalled_until) = (path.is_cut, path.stalled_until);
        let pipe = &mut self.conns[conn].pipes[side];
        pipe.is_scheduled = false;
        let &(due, _) = pipe.flying.front()?;
        let ready = due.max(stalled_until);
        if is_cut || ready > now {
            pipe.is_held = is_cut;
            pipe.is_scheduled = true;
            if !is_cut {
                self.later.push((ready, NetEvent::Arrive { conn, side }));
            }
            return None;
        }
        let (_, item) = pipe.flying.pop_front()?;
        let notice = match item {
            Item::Frame(frame) => {
                pipe.flying_bytes -= frame.len();
                Notice::Frame(frame)
            }
            Item::End => Notice::Closed("closed by the other side"),
        };
        self.pump(now, conn, side);
        self.schedule(now, conn, side);
        if self.conns[conn].ends[1 - side].is_open {
            return Some(notice);
        }
        if let (Notice::Frame(_), true) = (notice, self.stations[to].is_powered)
            && !self.path(to, from).is_cut
        {
            let back = self.delay(now, to, from);
            let notice = Notice::Closed("connection reset by peer");
            self.later.push((now + back, NetEvent::Tell { conn, side, notice }));
        }
        None
    }

    /// Moves frames from the sender's queue into the socket as far as it takes them.
    fn pump(&mut self, now: Micros, conn: ConnId, side: Side) {
        let (from, to) = (self.conns[conn].ends[side].host, self.conns[conn].ends[1 - side].host);
        let path = self.path(from, to);
        let (latency, jitter, bandwidth) = (path.latency, path.jitter, path.bytes_per_sec);
        let mut sent = 0;
        let pipe = &mut self.conns[conn].pipes[side];
        while pipe.flying_bytes < SOCKET_BUFFER
            && let Some(frame) = pipe.waiting.pop_front()
        {
            sent += frame.len();
            pipe.flying_bytes += frame.len();
            let on_wire = bandwidth.map_or(0, |rate| (frame.len() as u64 + 4) * 1_000_000 / rate);
            pipe.line_free_at = pipe.line_free_at.max(now) + Micros(on_wire);
            let last = pipe.flying.back().map_or(Micros(0), |&(due, _)| due);
            let due = pipe.line_free_at + latency + Micros(self.dice.below(jitter.0 + 1));
            pipe.flying.push_back((due.max(last), Item::Frame(frame)));
        }
        if pipe.is_ending && pipe.waiting.is_empty() {
            pipe.is_ending = false;
            let last = pipe.flying.back().map_or(Micros(0), |&(due, _)| due);
            pipe.flying.push_back((last.max(now + latency), Item::End));
        }
        if sent > 0 {
            self.later.push((now + Micros(5), NetEvent::Tell { conn, side, notice: Notice::Sent(sent) }));
        }
        self.schedule(now, conn, side);
    }

    fn schedule(&mut self, now: Micros, conn: ConnId, side: Side) {
        let pipe = &mut self.conns[conn].pipes[side];
        if let (Some(&(due, _)), false) = (pipe.flying.front(), pipe.is_scheduled) {
            pipe.is_scheduled = true;
            self.later.push((due.max(now), NetEvent::Arrive { conn, side }));
        }
    }

    fn delay(&mut self, now: Micros, from: usize, to: usize) -> Micros {
        let path = self.path(from, to);
        let (latency, jitter, stall) = (path.latency, path.jitter, path.stalled_until.since(now));
        latency + stall + Micros(self.dice.below(jitter.0 + 1))
    }
}
