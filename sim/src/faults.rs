//! What goes wrong, when it ends, and how everything is mended in the end.
//!
//! Faults come at random moments until the fault phase is over. Most end by themselves after a while; `heal` ends the
//! rest, and does what an operator would: starts what is down, forgets the dead, has the forgotten join anew.

use crate::clients::{Clients, place_of};
use crate::dice::Dice;
use crate::oracle::{Crash, Oracle, Survivor};
use crate::plan::{DiskKind, Fault, Plan};
use crate::process::{Epoch, Process};
use crate::world::{Errand, World};
use engine::NodeId;
use engine::cluster::ClusterRequest;
use engine::time::Micros;
use std::collections::BTreeSet;

/// A node that nobody has written to for so long before its death has lost nothing, if a peer was reachable throughout.
const QUIET_BEFORE_DEATH: Micros = Micros::from_secs(1);

/// How long a path and a peer must have been well for a node to have told the peer everything.
const WELL_BEFORE_DEATH: Micros = Micros::from_secs(5);

/// How a fault ends.
#[derive(Clone, Debug)]
enum Mend {
    /// These paths are well again.
    Paths(Vec<(usize, usize)>),
    /// The process goes on.
    Resume(usize),
    /// A process is started.
    Start(usize),
    /// Somebody forgets this node.
    Forget(NodeId),
    /// A node that has left joins again.
    Return(usize),
}

/// All faults of a run.
#[derive(Debug)]
pub struct Faults {
    mends: Vec<Option<Mend>>,
    dice: Dice,
    /// Hosts whose process never comes back.
    dead: Vec<usize>,
    /// Hosts whose node has been forgotten though it lived.
    zombies: Vec<usize>,
    /// (who, whom): who has known whom at some time, and must find it again by itself unless that has moved.
    acquainted: BTreeSet<(NodeId, NodeId)>,
    /// The only host that ever gets another address.
    mover: Option<usize>,
    /// It has got one.
    has_moved: bool,
    /// Nodes to be forgotten in the end.
    to_forget: Vec<NodeId>,
}

/// All of a run but its faults.
pub struct Stage<'a> {
    /// What the seed has decided.
    pub plan: &'a Plan,
    /// The world.
    pub world: World<'a>,
    /// The judge.
    pub oracle: Oracle,
    /// The clients.
    pub clients: Clients,
}

impl Faults {
    /// The faults of a plan.
    pub fn new(plan: &Plan) -> Faults {
        Faults {
            mends: Vec::new(),
            dice: Dice::new(plan.seed ^ 0xfa17),
            dead: Vec::new(),
            zombies: Vec::new(),
            acquainted: BTreeSet::new(),
            mover: None,
            has_moved: false,
            to_forget: Vec::new(),
        }
    }

    /// Starts the first nodes and introduces them to each other, in a chain.
    pub fn begin(&mut self, stage: &mut Stage<'_>) {
        for host in 0..stage.plan.nodes {
            stage.world.start(host);
        }
        for host in 1..stage.plan.nodes {
            let other = self.dice.below(host as u64) as usize;
            meet(stage, host, other);
        }
    }

    /// Lets something go wrong. Returns when the next thing shall.
    pub fn strike(&mut self, stage: &mut Stage<'_>) -> Micros {
        if !stage.plan.faults.is_empty() {
            let fault = *self.dice.pick(&stage.plan.faults);
            self.commit(fault, stage);
        }
        stage.world.now + Micros(self.dice.gap(stage.plan.fault_gap.0))
    }

    fn commit(&mut self, fault: Fault, stage: &mut Stage<'_>) {
        let hosts = stage.plan.hosts as u64;
        let (a, b) = (self.dice.below(hosts) as usize, self.dice.below(hosts) as usize);
        stage.world.trace.note(stage.world.now, || format!("-- {fault:?} (n{a}, n{b})"));
        match fault {
            Fault::Cut if a == b => self.cut(stage, both_ways((0..stage.plan.hosts).map(|other| (a, other)))),
            Fault::Cut => self.cut(stage, both_ways([(a, b)])),
            Fault::OneWayCut => self.cut(stage, vec![(a, b)]),
            Fault::Split => {
                let is_left: Vec<bool> = (0..hosts).map(|_| self.dice.chance(50)).collect();
                let pairs = (0..stage.plan.hosts).flat_map(|x| (0..x).map(move |y| (x, y)));
                self.cut(stage, both_ways(pairs.filter(|&(x, y)| is_left[x] != is_left[y])));
            }
            Fault::Sever => self.sever(stage),
            Fault::Stall => {
                let until = stage.world.now + Micros(self.dice.log_between(1_000, 3_000_000));
                stage.world.net.change_path(stage.world.now, a, b, |path| path.stalled_until = until);
            }
            Fault::Slow => {
                let rate = self.dice.log_between(2_000, 200_000);
                stage.world.net.change_path(stage.world.now, a, b, |path| path.bytes_per_sec = Some(rate));
                self.mend_later(stage, 5_000_000, Mend::Paths(vec![(a, b)]));
            }
            Fault::Crash => self.crash(stage, a, false),
            Fault::PowerCut => self.crash(stage, a, true),
            Fault::Death => self.death(stage, a),
            Fault::Pause => self.pause(stage, a),
            Fault::Join => self.join(stage),
            Fault::Zombie => self.make_zombie(stage, a, b),
            Fault::ResetAll => self.reset_all(stage, a),
            Fault::WallJump => {
                let skew = self.dice.below(4 * 3_600_000_000) as i64 - 2 * 3_600_000_000;
                stage.world.hosts[a].clock.set_skew(skew);
            }
            // What `restart` does.
            Fault::Move => self.crash(stage, a, true),
            Fault::Leave => self.leave(stage, a),
        }
    }

    fn mend_later(&mut self, stage: &mut Stage<'_>, max_us: u64, mend: Mend) {
        let at = stage.world.now + Micros(self.dice.log_between(max_us / 200, max_us));
        stage.world.plan_errand(at, Errand::Mend(self.mends.len()));
        self.mends.push(Some(mend));
    }

    /// Ends a fault, unless it has ended already.
    pub fn mend(&mut self, number: usize, stage: &mut Stage<'_>) {
        match self.mends[number].take() {
            None => {}
            Some(Mend::Paths(paths)) => mend_paths(stage, &paths),
            Some(Mend::Resume(host)) if stage.world.hosts[host].is_paused => stage.world.resume(host),
            Some(Mend::Resume(_)) => {}
            Some(Mend::Start(host)) => self.start(stage, host),
            Some(Mend::Forget(id)) => self.forget(stage, id),
            Some(Mend::Return(host)) => self.come_back(stage, host),
        }
    }

    fn cut(&mut self, stage: &mut Stage<'_>, paths: Vec<(usize, usize)>) {
        for &(from, to) in &paths {
            stage.world.net.change_path(stage.world.now, from, to, |path| path.is_cut = true);
        }
        self.mend_later(stage, 20_000_000, Mend::Paths(paths));
    }

    fn sever(&mut self, stage: &mut Stage<'_>) {
        let open = stage.world.net.open_conns();
        if !open.is_empty() {
            let (conn, side, is_both) =
                (*self.dice.pick(&open), self.dice.below(2) as usize, self.dice.chance(50));
            stage.world.net.sever(stage.world.now, conn, side, is_both);
        }
    }

    fn pause(&mut self, stage: &mut Stage<'_>, host: usize) {
        if stage.world.hosts[host].is_answering() {
            stage.world.pause(host);
            self.mend_later(stage, 15_000_000, Mend::Resume(host));
        }
    }

    fn crash(&mut self, stage: &mut Stage<'_>, host: usize, is_power_cut: bool) {
        if stage.world.hosts[host].process.is_some() {
            kill(stage, host, is_power_cut, false);
            self.mend_later(stage, 8_000_000, Mend::Start(host));
        }
    }

    /// A process dies for good, if enough others are left.
    fn death(&mut self, stage: &mut Stage<'_>, host: usize) {
        let is_in = stage.world.hosts[host].process.is_some() && !self.zombies.contains(&host);
        if !is_in || self.living(stage) <= 2 {
            return;
        }
        let is_power_cut = self.dice.chance(50);
        let id = kill(stage, host, is_power_cut, true);
        self.dead.push(host);
        if stage.plan.is_forgetting {
            self.to_forget.push(id);
            if self.dice.chance(50) {
                self.mend_later(stage, 15_000_000, Mend::Forget(id));
            }
        }
    }

    /// Hosts that are in the cluster and will be in the end.
    fn living(&self, stage: &Stage<'_>) -> usize {
        let is_alive = |host: &usize| {
            stage.world.hosts[*host].life > 0 && !self.dead.contains(host) && !self.zombies.contains(host)
        };
        (0..stage.plan.hosts).filter(is_alive).count()
    }

    fn join(&mut self, stage: &mut Stage<'_>) {
        let serving = |host: &usize| stage.world.hosts[*host].is_serving();
        let known: Vec<usize> = (0..stage.plan.hosts).filter(serving).collect();
        let new = (0..stage.plan.hosts).find(|&host| stage.world.hosts[host].life == 0);
        if let (Some(new), false) = (new, known.is_empty()) {
            stage.world.start(new);
            let other = *self.dice.pick(&known);
            if self.dice.chance(50) { meet(stage, new, other) } else { meet(stage, other, new) }
        }
    }

    fn make_zombie(&mut self, stage: &mut Stage<'_>, host: usize, by: usize) {
        let is_fit = host != by
            && stage.world.hosts[host].process.is_some()
            && stage.world.hosts[by].is_answering()
            && knows(stage, by, stage.world.hosts[host].id)
            && !self.zombies.contains(&host)
            && !self.zombies.contains(&by)
            && self.living(stage) > 2;
        if is_fit {
            let place = place_of(&stage.world, host);
            if stage.world.hosts[host].has_left {
                // It comes back under another id.
                self.to_forget.push(place.id);
            } else {
                self.zombies.push(host);
            }
            note_loss(stage, host, false, Crash::ForGood);
            self.forget(stage, place.id);
        }
    }

    /// A member leaves and gives up what it has; the others keep what they have of it.
    fn leave(&mut self, stage: &mut Stage<'_>, host: usize) {
        let place = match stage.world.hosts[host].is_answering() {
            true => place_of(&stage.world, host),
            false => return,
        };
        if place.is_alone || self.zombies.contains(&host) || self.to_forget.contains(&place.id) {
            return;
        }
        note_lost_estates(stage, host);
        note_loss(stage, host, false, Crash::Sudden);
        begin_anew(stage, host, false);
        self.acquainted.retain(|(who, _)| *who != place.id);
        self.mend_later(stage, 8_000_000, Mend::Return(host));
    }

    fn come_back(&mut self, stage: &mut Stage<'_>, host: usize) {
        let is_member =
            |other: &usize| stage.world.hosts[*other].is_serving() && !self.zombies.contains(other);
        let members: Vec<usize> = (0..stage.plan.hosts).filter(is_member).collect();
        if stage.world.hosts[host].is_answering() && !members.is_empty() {
            meet(stage, host, *self.dice.pick(&members));
        }
    }

    fn reset_all(&mut self, stage: &mut Stage<'_>, host: usize) {
        if stage.world.hosts[host].is_answering() && !self.zombies.contains(&host) {
            // If it dies before anybody hears of it, the others go on without what it has given up.
            note_loss(stage, host, false, Crash::ForGood);
            request(stage, host, ClusterRequest::ResetAll).expect("DEBUG RESET is never refused");
        }
    }

    /// Somebody who knows it forgets it. If nobody can now, it is done in the end.
    fn forget(&mut self, stage: &mut Stage<'_>, id: NodeId) {
        stage.oracle.note_forgotten(id);
        let candidates: Vec<usize> = (0..stage.plan.hosts)
            .filter(|&host| stage.world.hosts[host].is_answering() && stage.world.hosts[host].id != id)
            .filter(|host| !self.zombies.contains(host))
            .filter(|&host| knows(stage, host, id))
            .collect();
        if !candidates.is_empty() {
            let host = *self.dice.pick(&candidates);
            if let Err(refusal) = request(stage, host, ClusterRequest::Forget(id)) {
                stage.oracle.violations.push(format!("n{host} refuses to forget {id:?}: {refusal}"));
            }
        }
    }

    fn start(&mut self, stage: &mut Stage<'_>, host: usize) {
        if stage.world.hosts[host].process.is_none() && !self.dead.contains(&host) {
            // Two that have both moved can't find each other: that takes an operator.
            let may_move = *self.mover.get_or_insert(host) == host;
            if stage.plan.faults.contains(&Fault::Move) && may_move && self.dice.chance(50) {
                stage.world.move_host(host);
                self.has_moved = true;
            }
            stage.world.start(host);
        }
    }

    /// Ends all faults.
    pub fn heal(&mut self, stage: &mut Stage<'_>) {
        stage.world.trace.note(stage.world.now, || "-- everything heals".into());
        self.mends.iter_mut().for_each(|mend| *mend = None);
        let pairs = (0..stage.plan.hosts).flat_map(|x| (0..stage.plan.hosts).map(move |y| (x, y)));
        mend_paths(stage, &pairs.collect::<Vec<_>>());
        for host in 0..stage.plan.hosts {
            if stage.world.hosts[host].is_paused {
                stage.world.resume(host);
            }
            if stage.world.hosts[host].life > 0 {
                self.start(stage, host);
            }
        }
    }

    /// What an operator does every few seconds until all is well: introduces who has never been in, or has moved where nobody
    /// who lives can know; forgets the dead.
    pub fn operate(&mut self, stage: &mut Stage<'_>) {
        // A node that did not know that it was removed keeps its name in the first, soft reset, and may have to have a second one.
        let mut removed = std::mem::take(&mut self.zombies);
        removed.extend(
            self.alive(stage)
                .into_iter()
                .filter(|&host| self.to_forget.contains(&stage.world.hosts[host].id)),
        );
        for host in removed {
            let place = place_of(&stage.world, host);
            note_lost_estates(stage, host);
            note_loss(stage, host, false, Crash::ForGood);
            let hard = place.id.0[0].is_multiple_of(2);
            begin_anew(stage, host, hard);
            self.to_forget.push(place.id);
        }
        self.note_acquainted(stage);
        let alive = self.alive(stage);
        let group = self.group_of(stage, alive[0]);
        if let Some(&stranger) = alive.iter().find(|host| !group.contains(host)) {
            meet(stage, stranger, *self.dice.pick(&group));
        }
        for id in self.to_forget.clone() {
            if alive.iter().any(|&host| knows(stage, host, id)) {
                self.forget(stage, id);
            }
        }
    }

    /// Hosts that find this one, or that it finds, directly or through others.
    fn group_of(&self, stage: &Stage<'_>, host: usize) -> Vec<usize> {
        let id = |host: usize| stage.world.hosts[host].id;
        let moved = self.mover.filter(|_| self.has_moved);
        let is_out = |host: usize| self.to_forget.contains(&id(host)) || stage.world.hosts[host].has_left;
        let finds = |who: usize, whom: usize| {
            moved != Some(whom)
                && !is_out(who)
                && !is_out(whom)
                && self.acquainted.contains(&(id(who), id(whom)))
        };
        let mut group = vec![host];
        let mut next = 0;
        while let Some(&from) = group.get(next) {
            next += 1;
            for other in self.alive(stage) {
                if (finds(from, other) || finds(other, from)) && !group.contains(&other) {
                    group.push(other);
                }
            }
        }
        group
    }

    /// Hosts with a process that belongs to the cluster in the end.
    pub fn alive(&self, stage: &Stage<'_>) -> Vec<usize> {
        (0..stage.plan.hosts).filter(|&host| stage.world.hosts[host].process.is_some()).collect()
    }

    /// Nodes that nobody may know any more in the end.
    pub fn gone(&self) -> &[NodeId] {
        &self.to_forget
    }

    /// Notes who knows whom by now.
    pub fn note_acquainted(&mut self, stage: &Stage<'_>) {
        for host in self.alive(stage) {
            let process = stage.world.hosts[host].process.as_deref().expect("it is alive");
            let id = process.id();
            self.acquainted.extend(process.members().into_iter().map(|member| (id, member)));
        }
    }
}

fn both_ways(pairs: impl IntoIterator<Item = (usize, usize)>) -> Vec<(usize, usize)> {
    pairs.into_iter().flat_map(|(a, b)| [(a, b), (b, a)]).collect()
}

fn mend_paths(stage: &mut Stage<'_>, paths: &[(usize, usize)]) {
    let now = stage.world.now;
    for &(from, to) in paths {
        stage.world.net.change_path(now, from, to, |path| {
            path.is_cut = false;
            path.bytes_per_sec = None;
            path.stalled_until = path.stalled_until.min(now);
        });
    }
}

fn request(stage: &mut Stage<'_>, host: usize, request: ClusterRequest) -> Result<(), String> {
    stage.world.trace.note(stage.world.now, || format!("n{host} is asked: {request:?}"));
    stage.world.drive(host, |process, now| process.request(request, now))
}

/// CLUSTER RESET.
fn begin_anew(stage: &mut Stage<'_>, host: usize, hard: bool) {
    request(stage, host, ClusterRequest::Reset { hard }).expect("CLUSTER RESET is never refused");
    let target = &mut stage.world.hosts[host];
    (target.resets, target.has_left) = (target.resets + 1, true);
}

fn meet(stage: &mut Stage<'_>, host: usize, other: usize) {
    let (bus, port) = (stage.world.bus(other), stage.world.hosts[other].addr.port());
    if let Err(refusal) = request(stage, host, ClusterRequest::Meet { bus, port }) {
        stage.oracle.violations.push(format!("n{host} refuses to meet n{other}: {refusal}"));
    }
}

fn knows(stage: &Stage<'_>, host: usize, id: NodeId) -> bool {
    let process = stage.world.hosts[host].process.as_deref();
    process.is_some_and(|process| process.id() != id && process.members().contains(&id))
}

/// Kills a process and tells the judge who is left. Returns the identity of the dead.
fn kill(stage: &mut Stage<'_>, host: usize, is_power_cut: bool, is_for_good: bool) -> NodeId {
    let place = place_of(&stage.world, host);
    let is_told = stage.world.now.since(stage.clients.wrote_at[host]) > QUIET_BEFORE_DEATH
        && has_well_peer(stage, host);
    stage
        .world
        .trace
        .note(stage.world.now, || format!("n{host} dies{}", if is_told { ", quiet" } else { "" }));
    note_lost_estates(stage, host);
    if stage.plan.disk == DiskKind::Exact && !is_for_good {
        stage.oracle.crashed_with_nothing_lost(place.id, place.epoch);
    } else {
        let crash = match (is_told, is_for_good) {
            (true, _) => Crash::Told,
            (false, true) => Crash::ForGood,
            (false, false) => Crash::Sudden,
        };
        note_loss(stage, host, !is_for_good, crash);
    }
    stage.world.kill(host, is_power_cut);
    place.id
}

/// Whether somebody who lives has been in touch with this host without any trouble for a while.
fn has_well_peer(stage: &Stage<'_>, host: usize) -> bool {
    let since = stage.world.now.since(WELL_BEFORE_DEATH);
    let is_well = |other: usize| {
        let target = &stage.world.hosts[other];
        let paths = [stage.world.net.path(host, other), stage.world.net.path(other, host)];
        target.is_answering()
            && target.well_since < since
            && paths
                .iter()
                .all(|path| path.troubled_at < since && !path.is_cut && path.bytes_per_sec.is_none())
            && knows(stage, other, stage.world.hosts[host].id)
            && knows(stage, host, target.id)
    };
    let is_self_well = stage.world.hosts[host].is_answering() && stage.world.hosts[host].well_since < since;
    is_self_well && since.0 > 0 && (0..stage.plan.hosts).any(|other| other != host && is_well(other))
}

/// Tells the judge that what the node on this host knows is gone, and what is left of it: what the others know, and its
/// disk, if it comes back with that.
fn note_loss(stage: &mut Stage<'_>, host: usize, has_disk: bool, crash: Crash) {
    let place = place_of(&stage.world, host);
    let Stage { world, oracle, clients, .. } = stage;
    let revived = if has_disk { world.revive(host) } else { None };
    let mut left = living(world, host, place.epoch);
    let revived = revived.as_deref().filter(|process| process.reset_epoch() == place.epoch);
    left.extend(revived.map(|process| (process, world.local(host))));
    oracle.crashed(place.id, place.epoch, crash, |counter| survivors(&left, clients.name(counter)));
    // With it may go the last who knew of a DEBUG RESET. Then what it had given up for that is missing from where all stood before;
    // otherwise nobody stays there for long.
    for epoch in oracle.epochs_before(place.epoch) {
        let left = living(world, host, epoch);
        oracle.crashed(place.id, epoch, Crash::ForGood, |counter| survivors(&left, clients.name(counter)));
    }
}

/// Tells the judge what dies with the node on this host that others had left behind.
fn note_lost_estates(stage: &mut Stage<'_>, host: usize) {
    let place = place_of(&stage.world, host);
    let Stage { world, oracle, clients, .. } = stage;
    let Some(process) = world.hosts[host].process.as_deref() else { return };
    let (now, left) = (world.local(host), living(world, host, place.epoch));
    let known = |counter| process.inspect(clients.name(counter), now);
    oracle.lost_estates(place.id, place.epoch, known, |counter| survivors(&left, clients.name(counter)));
}

type Living<'a> = Vec<(&'a dyn Process, engine::time::Now)>;

/// All processes but that on this host that are in that reset epoch, each with the time there.
fn living<'a>(world: &'a World<'_>, host: usize, epoch: Epoch) -> Living<'a> {
    let others = (0..world.hosts.len()).filter(|&other| other != host).filter_map(|other| {
        let process = world.hosts[other].process.as_deref()?;
        Some((process, world.local(other)))
    });
    others.filter(|(process, _)| process.reset_epoch() == epoch).collect()
}

/// What each of them knows of a counter.
fn survivors(left: &Living<'_>, name: &[u8]) -> Vec<Survivor> {
    let survivor = |(process, now): &(&dyn Process, engine::time::Now)| Survivor {
        id: process.id(),
        state: process.inspect(name, *now),
    };
    left.iter().map(survivor).collect()
}
