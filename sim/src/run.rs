//! One seed from start to end: faults and clients, then healing, then the demands of the end.

use crate::clients::{Clients, note_balances, place_of};
use crate::faults::{Faults, Stage};
use crate::oracle::{CounterId, Finding, Oracle};
use crate::plan::{Habit, Plan};
use crate::process::{Program, Seq, text_of, value_of};
use crate::trace::Trace;
use crate::world::{Errand, World};
use engine::time::Micros;
use resp::Reply;

/// How often the judge looks at everything.
const SWEEP_INTERVAL: Micros = Micros::from_millis(500);

/// How often it looks at what may disappear: more often than a node can learn of a SET and forget the counter.
const GLANCE_INTERVAL: Micros = Micros::from_millis(40);

/// How long after the heal all must agree.
const HEAL_LIMIT: Micros = Micros::from_secs(60);

/// How often that is asked.
const POLL_INTERVAL: Micros = Micros::from_millis(500);

/// Every so many polls an operator looks at the cluster.
const OPERATOR_POLLS: u64 = 6;

/// How long traffic and memory are watched once all agree. First so long for the last words: a line is given up
/// `history-size` seconds after the last write ...
const CALM_DOWN: Micros = Micros::from_secs(12);

/// ... then twice this long.
const QUIET_WATCH: Micros = Micros::from_secs(3);

/// Most bytes per second from one node to another when nothing moves: heartbeats alone.
const QUIET_BYTES_PER_SEC: u64 = 1_024;

/// How old GET BOUND's knowledge is at most when nothing moves, in milliseconds: a heartbeat, and the slowest way with its stalls.
const QUIET_AGE_MS: i64 = 1_000;

/// What became of a seed.
#[derive(Debug)]
pub struct Report {
    /// What was run.
    pub plan: Plan,
    /// Names the run: two runs of a seed have the same.
    pub hash: u64,
    /// What was wrong; empty if nothing was.
    pub violations: Vec<String>,
    /// World time at the end.
    pub lasted: Micros,
    /// How long it took after the heal until all agreed.
    pub settled_after: Micros,
    /// Requests of clients.
    pub requests: u64,
    /// Claims of GET BOUND that were checked.
    pub bounds_checked: u64,
    /// Answers of GET BOUND that claimed nothing.
    pub bounds_open: u64,
    /// Frames sent.
    pub frames: u64,
    /// The last lines of the trace, if kept.
    pub lines: Vec<String>,
}

struct Run<'a> {
    stage: Stage<'a>,
    faults: Faults,
}

/// Runs a seed's plan.
pub fn run(program: &dyn Program, plan: &Plan, trace: Trace) -> Report {
    let stage = Stage {
        plan,
        world: World::new(program, plan, trace),
        oracle: Oracle::new(program.abilities().has_zeros),
        clients: Clients::new(plan),
    };
    let mut run = Run { stage, faults: Faults::new(plan) };
    run.trouble();
    let healed_at = run.stage.world.now;
    run.settle();
    let settled_after = run.stage.world.now.since(healed_at);
    run.watch_quiet();
    Report {
        plan: plan.clone(),
        hash: run.stage.world.trace.hash(),
        violations: run.stage.oracle.violations,
        lasted: run.stage.world.now,
        settled_after,
        requests: run.stage.clients.requests,
        bounds_checked: run.stage.oracle.bounds_checked,
        bounds_open: run.stage.oracle.bounds_open,
        frames: run.stage.world.net.frames,
        lines: run.stage.world.trace.lines(),
    }
}

impl Run<'_> {
    fn has_failed(&self) -> bool {
        !self.stage.oracle.violations.is_empty()
    }

    /// Clients work and things go wrong.
    fn trouble(&mut self) {
        self.faults.begin(&mut self.stage);
        let end = self.stage.plan.fault_phase;
        for client in 0..self.stage.plan.clients {
            self.stage.world.plan_errand(Micros(client as u64 * 10_007), Errand::Client(client));
        }
        self.stage.world.plan_errand(SWEEP_INTERVAL, Errand::Sweep);
        self.stage.world.plan_errand(GLANCE_INTERVAL, Errand::Glance);
        self.stage.world.plan_errand(self.stage.plan.fault_gap, Errand::Fault);
        while let (Some(errand), false) = (self.stage.world.run(end), self.has_failed()) {
            let now = self.stage.world.now;
            match errand {
                Errand::Client(number) => {
                    let Stage { plan, world, oracle, clients } = &mut self.stage;
                    let wait = clients.act(number, plan, world, oracle);
                    self.stage.world.plan_errand(now + wait, Errand::Client(number));
                }
                Errand::Fault => {
                    let next = self.faults.strike(&mut self.stage);
                    self.stage.world.plan_errand(next, Errand::Fault);
                }
                Errand::Mend(number) => self.faults.mend(number, &mut self.stage),
                Errand::Glance => {
                    self.look_at(&self.stage.oracle.fading(now));
                    self.stage.world.plan_errand(now + GLANCE_INTERVAL, Errand::Glance);
                }
                Errand::Sweep => {
                    self.sweep();
                    self.stage.world.plan_errand(now + SWEEP_INTERVAL, Errand::Sweep);
                }
            }
        }
    }

    /// The judge looks at every counter on every node.
    fn sweep(&mut self) {
        self.faults.note_acquainted(&self.stage);
        self.look_at(&(0..self.stage.plan.counters).collect::<Vec<_>>());
    }

    fn look_at(&mut self, counters: &[CounterId]) {
        let Stage { plan, world, oracle, clients } = &mut self.stage;
        for &counter in counters {
            note_balances(counter, world, oracle, clients);
        }
        for host in 0..plan.hosts {
            let Some(process) = world.hosts[host].process.as_deref() else { continue };
            let place = place_of(world, host);
            for &counter in counters {
                oracle.look(place, counter, &process.inspect(clients.name(counter), world.local(host)));
            }
        }
    }

    /// Everything is healed; all must agree in time.
    fn settle(&mut self) {
        if self.has_failed() {
            return;
        }
        self.faults.heal(&mut self.stage);
        let limit = self.stage.world.now + HEAL_LIMIT;
        for poll in 0.. {
            if poll % OPERATOR_POLLS == 0 {
                self.faults.operate(&mut self.stage);
            }
            self.pass(POLL_INTERVAL);
            self.sweep();
            let verdict = self.verdict();
            if verdict.is_ok() || self.has_failed() {
                return;
            }
            if self.stage.world.now > limit {
                let wrong = verdict.expect_err("it is not settled");
                let text = format!("{} s after everything was healed: {wrong}", HEAL_LIMIT.secs());
                return self.stage.oracle.violations.push(text);
            }
        }
    }

    /// Lets time pass without clients and faults.
    fn pass(&mut self, time: Micros) {
        let until = self.stage.world.now + time;
        while until.since(self.stage.world.now) > POLL_INTERVAL {
            self.pass(POLL_INTERVAL);
            self.sweep();
        }
        while let Some(errand) = self.stage.world.run(until) {
            if errand == Errand::Glance {
                let now = self.stage.world.now;
                self.look_at(&self.stage.oracle.fading(now));
                self.stage.world.plan_errand(now + GLANCE_INTERVAL, Errand::Glance);
            }
        }
    }

    /// Whether the cluster is whole and all agree on everything.
    fn verdict(&mut self) -> Result<(), String> {
        self.faults.note_acquainted(&self.stage);
        let alive = self.faults.alive(&self.stage);
        self.members_agree(&alive)?;
        for counter in 0..self.stage.plan.counters {
            let findings: Vec<Finding> = alive.iter().map(|&host| self.find(host, counter)).collect();
            if let Some(other) = findings.iter().find(|f| f.place.epoch != findings[0].place.epoch) {
                let (a, b) = (findings[0].place, other.place);
                return Err(format!(
                    "n{} is in reset epoch {:?}, n{} in {:?}",
                    a.host, a.epoch, b.host, b.epoch
                ));
            }
            self.stage.oracle.settled(counter, &findings)?;
        }
        self.nothing_hidden(&alive)
    }

    fn members_agree(&self, alive: &[usize]) -> Result<(), String> {
        let gone = self.faults.gone();
        let ids: Vec<_> = alive.iter().map(|&host| self.stage.world.hosts[host].id).collect();
        let mut first = None;
        for &host in alive {
            let process = self.stage.world.hosts[host].process.as_deref().expect("it is alive");
            let mut members = process.members();
            members.sort_unstable();
            if let Some(missing) = ids.iter().find(|id| !members.contains(id)) {
                return Err(format!("n{host} does not know the living member {missing:?}"));
            }
            if let Some(known) = gone.iter().find(|id| members.contains(id)) {
                return Err(format!("n{host} still knows {known:?}, which was forgotten"));
            }
            if first.get_or_insert_with(|| members.clone()) != &members {
                return Err(format!(
                    "n{host} knows other members ({members:?}) than n{} ({first:?})",
                    alive[0]
                ));
            }
        }
        Ok(())
    }

    fn find(&mut self, host: usize, counter: CounterId) -> Finding {
        let name = self.stage.clients.name(counter).to_vec();
        let value =
            value_of(&self.stage.world.execute(host, &[b"GET", &name])).expect("GET answers a number");
        let exists = self.stage.world.execute(host, &[b"EXISTS", &name]) == Reply::Integer(1);
        let process = self.stage.world.hosts[host].process.as_deref().expect("it is alive");
        let state = process.inspect(&name, self.stage.world.local(host));
        Finding { place: place_of(&self.stage.world, host), value, exists, state }
    }

    /// DBSIZE counts what exists and nothing else.
    fn nothing_hidden(&mut self, alive: &[usize]) -> Result<(), String> {
        for &host in alive {
            let names: Vec<Vec<u8>> =
                (0..self.stage.plan.counters).map(|c| self.stage.clients.name(c).to_vec()).collect();
            let mut words: Vec<&[u8]> = vec![b"EXISTS"];
            words.extend(names.iter().map(Vec::as_slice));
            let (exist, size) =
                (self.stage.world.execute(host, &words), self.stage.world.execute(host, &[b"DBSIZE"]));
            if exist != size {
                return Err(format!("n{host}: DBSIZE {size:?}, but {exist:?} exist"));
            }
        }
        Ok(())
    }

    /// When all is quiet, nothing is sent but heartbeats and nothing grows.
    fn watch_quiet(&mut self) {
        if self.has_failed() {
            return;
        }
        self.pass(CALM_DOWN);
        let alive = self.faults.alive(&self.stage);
        self.pass(QUIET_WATCH);
        let (sizes, bytes) = (self.sizes(&alive), self.stage.world.net.bytes);
        let published = self.published(&alive);
        self.pass(QUIET_WATCH);
        let links = (alive.len() * alive.len().saturating_sub(1)) as u64;
        let sent = self.stage.world.net.bytes - bytes;
        if sent > links * QUIET_BYTES_PER_SEC * QUIET_WATCH.secs() {
            let text = format!("{sent} bytes in {} quiet seconds on {links} links", QUIET_WATCH.secs());
            self.stage.oracle.violations.push(text);
        }
        for (before, after) in published.iter().zip(self.published(&alive)) {
            if before.2 != after.2 {
                let (host, counter, seq) = after;
                let text =
                    format!("n{host} publishes c{counter} in quiet times, {seq:?} after {:?}", before.2);
                self.stage.oracle.violations.push(text);
            }
        }
        for (before, after) in sizes.iter().zip(self.sizes(&alive)) {
            if after.2 > before.2 {
                let (host, what, size) = after;
                self.stage
                    .oracle
                    .violations
                    .push(format!("n{host}: {what} grew from {} to {size} in quiet times", before.2));
            }
        }
        self.sweep();
        if let Err(wrong) = self.verdict() {
            self.stage.oracle.violations.push(format!("it was settled, and then: {wrong}"));
        }
        if let Err(wrong) = self.bounds_rest(&alive) {
            self.stage.oracle.violations.push(wrong);
        }
    }

    /// When all is quiet and everybody is there, GET BOUND says that what it reads is exact, and that it has just heard so.
    fn bounds_rest(&mut self, alive: &[usize]) -> Result<(), String> {
        for &host in alive {
            let process = self.stage.world.hosts[host].process.as_deref().expect("it is alive");
            if !self.stage.plan.has(Habit::Bound) || process.members().len() > alive.len() {
                continue;
            }
            for counter in 0..self.stage.plan.counters {
                let name = self.stage.clients.name(counter).to_vec();
                let read = self.stage.world.execute(host, &[b"GET", &name]);
                let claim = self.stage.world.execute(host, &[b"GET", &name, b"BOUND"]);
                let Reply::Array(parts) = &claim else { return Err(format!("n{host} claims {claim:?}")) };
                let is_fresh = matches!(parts.as_slice(), [value, Reply::Bulk(bound), Reply::Integer(ms)]
                    if *value == read && bound.as_slice() == b"0" && *ms <= QUIET_AGE_MS);
                if !is_fresh {
                    let (read, claim) = (text_of(&read), text_of(&claim));
                    return Err(format!(
                        "n{host} reads c{counter} as {read} in quiet times, but claims {claim}"
                    ));
                }
            }
        }
        Ok(())
    }

    /// The number of each own shard's last publication: (host, counter, seq).
    fn published(&self, alive: &[usize]) -> Vec<(usize, CounterId, Seq)> {
        let mut found = Vec::new();
        for &host in alive {
            let process = self.stage.world.hosts[host].process.as_deref().expect("it is alive");
            for counter in 0..self.stage.plan.counters {
                let state = process.inspect(self.stage.clients.name(counter), self.stage.world.local(host));
                found.push((host, counter, state.own.map_or(Seq::default(), |own| own.seq)));
            }
        }
        found
    }

    /// How much each node's collections hold: (host, collection, length).
    fn sizes(&self, alive: &[usize]) -> Vec<(usize, &'static str, usize)> {
        let of = |&host: &usize| {
            let process = self.stage.world.hosts[host].process.as_deref().expect("it is alive");
            process.sizes().into_iter().map(move |(what, size)| (host, what, size))
        };
        alive.iter().flat_map(of).collect()
    }
}
