//! What clients do, and the judge told of every answer.
//!
//! Requests go through the node's own command table, from words to reply. Around a request, at the same moment, the
//! judge is given what the node knew before and after.

use crate::dice::Dice;
use crate::oracle::{Around, Claim, CounterId, Oracle, Place};
use crate::plan::{Habit, Plan};
use crate::process::{CounterState, text_of, value_of};
use crate::world::World;
use engine::time::Micros;
use engine::value::Value;
use resp::Reply;

/// Requests of one burst.
const BURST: u64 = 30;

/// A habit of one client.
#[derive(Clone, Copy, Debug)]
enum Manner {
    /// Everything now and then.
    Mixed,
    /// The same amount to the same counter at an even pace.
    Steady { counter: CounterId, amount: i64 },
    /// Many increments at once, then nothing for long.
    Bursts,
    /// Reads only.
    Reader,
}

#[derive(Debug)]
struct Client {
    host: usize,
    manner: Manner,
    gap: Micros,
}

/// All clients of a run.
#[derive(Debug)]
pub struct Clients {
    clients: Vec<Client>,
    names: Vec<Vec<u8>>,
    dice: Dice,
    /// When a client last changed something on each host.
    pub wrote_at: Vec<Micros>,
    /// Requests answered.
    pub requests: u64,
}

impl Clients {
    /// The clients of a plan.
    pub fn new(plan: &Plan) -> Clients {
        let mut dice = Dice::new(plan.seed ^ 0xc11e);
        let clients = (0..plan.clients)
            .map(|_| {
                let counter = dice.below(plan.counters as u64) as CounterId;
                let manner = match dice.below(10) {
                    0..4 if plan.has(Habit::Steady) => {
                        Manner::Steady { counter, amount: dice.between(1, 20) as i64 }
                    }
                    4 if plan.has(Habit::Bursts) => Manner::Bursts,
                    5 => Manner::Reader,
                    _ => Manner::Mixed,
                };
                let gap = Micros(dice.between(plan.request_gap.0 / 2, plan.request_gap.0 * 2));
                let gap = if let Manner::Bursts = manner { Micros(gap.0 * BURST) } else { gap };
                Client { host: dice.below(plan.hosts as u64) as usize, manner, gap }
            })
            .collect();
        let names = (0..plan.counters).map(|number| format!("c{number}").into_bytes()).collect();
        let wrote_at = vec![Micros(0); plan.hosts];
        Clients { clients, names, dice, wrote_at, requests: 0 }
    }

    /// The name of a counter.
    pub fn name(&self, counter: CounterId) -> &[u8] {
        &self.names[counter]
    }

    /// Lets a client do something. Returns how long it waits before the next time.
    pub fn act(&mut self, number: usize, plan: &Plan, world: &mut World<'_>, oracle: &mut Oracle) -> Micros {
        let Client { host, manner, gap } = self.clients[number];
        let counter = self.dice.below(plan.counters as u64) as CounterId;
        note_balances(counter, world, oracle, self);
        let mut desk = Desk { clients: self, world, oracle, plan };
        if desk.world.hosts[host].is_serving() {
            match manner {
                Manner::Mixed => desk.anything(host, counter),
                Manner::Steady { counter, amount } => {
                    desk.increment(host, counter, Value::from_integer(amount))
                }
                Manner::Bursts => (0..BURST).for_each(|_| desk.increment(host, counter, Value::ONE)),
                Manner::Reader => desk.read(host, counter),
            }
        }
        if let Manner::Steady { .. } = manner { gap } else { Micros(self.dice.gap(gap.0)) }
    }
}

/// Where a client's request is handled.
struct Desk<'a, 'w> {
    clients: &'a mut Clients,
    world: &'a mut World<'w>,
    oracle: &'a mut Oracle,
    plan: &'a Plan,
}

impl Desk<'_, '_> {
    fn anything(&mut self, host: usize, counter: CounterId) {
        let plan = self.plan;
        match self.clients.dice.below(100) {
            0..2 if plan.has(Habit::ConcurrentSet) => {
                for host in 0..plan.hosts {
                    if self.world.hosts[host].is_serving() && self.clients.dice.chance(60) {
                        self.set(host, counter);
                    }
                }
            }
            2..6 if plan.has(Habit::Set) => self.set(host, counter),
            6..9 if plan.has(Habit::Delete) => self.set_to_zero(host, counter),
            9..11 if plan.has(Habit::Precision) => self.set_precision(host, counter),
            11..35 => self.read(host, counter),
            _ => {
                let amount = self.amount();
                self.increment(host, counter, amount);
            }
        }
    }

    fn amount(&mut self) -> Value {
        let (plan, dice) = (self.plan, &mut self.clients.dice);
        let size = match dice.below(4) {
            0 if plan.has(Habit::Large) => dice.log_between(1_000, 1_000_000_000_000_000),
            1 => dice.log_between(1, 1_000),
            _ => 1,
        };
        let fraction =
            if plan.has(Habit::Fractional) && dice.chance(50) { dice.below(1_000_000_000) } else { 0 };
        // Nine decimals, so that sums show up where a float would lose them.
        let units = i128::from(size) * Value::ONE.units()
            + i128::from(fraction) * (Value::ONE.units() / 1_000_000_000);
        let is_negative = plan.has(Habit::Negative) && dice.chance(45);
        Value::saturating_from_units(if is_negative { -units } else { units })
    }

    fn place(&self, host: usize) -> Place {
        place_of(self.world, host)
    }

    fn inspect(&self, host: usize, counter: CounterId) -> CounterState {
        let process = self.world.hosts[host].process.as_deref().expect("clients ask running nodes only");
        process.inspect(self.clients.name(counter), self.world.local(host))
    }

    fn ask(&mut self, host: usize, words: &[&[u8]]) -> Reply {
        self.clients.requests += 1;
        let reply = self.world.execute(host, words);
        let is_refusal = matches!(&reply, Reply::Error(text) if !text.ends_with(b"out of allowed range"));
        if is_refusal {
            let request: Vec<_> = words.iter().map(|word| String::from_utf8_lossy(word)).collect();
            let text = format!("n{host} answers {} to {}", text_of(&reply), request.join(" "));
            self.oracle.violations.push(text);
        }
        self.world.trace.note(self.world.now, || {
            let request: Vec<_> = words.iter().map(|word| String::from_utf8_lossy(word)).collect();
            format!("n{host} {} = {}", request.join(" "), text_of(&reply))
        });
        reply
    }

    fn get(&mut self, host: usize, counter: CounterId) -> Option<Value> {
        let name = self.clients.names[counter].clone();
        value_of(&self.ask(host, &[b"GET", &name]))
    }

    fn increment(&mut self, host: usize, counter: CounterId, amount: Value) {
        let read_before = if self.clients.dice.chance(30) { self.get(host, counter) } else { None };
        let before = self.inspect(host, counter);
        let name = self.clients.names[counter].clone();
        let reply = self.ask(host, &[b"INCRBY", &name, amount.to_string().as_bytes()]);
        if let Some(answer) = value_of(&reply) {
            let after = self.inspect(host, counter);
            let place = self.place(host);
            let around = Around { read_before, before: &before, after: &after };
            self.oracle.incremented(place, counter, amount, answer, around);
            self.clients.wrote_at[host] = self.world.now;
        }
    }

    fn set(&mut self, host: usize, counter: CounterId) {
        let value = *self.clients.dice.pick(&["0", "0", "1", "100", "-7", "1000000", "0.25"]);
        self.set_with(
            host,
            counter,
            value,
            &[b"SET", &self.clients.names[counter].clone(), value.as_bytes()],
        );
    }

    fn set_to_zero(&mut self, host: usize, counter: CounterId) {
        let name = self.clients.names[counter].clone();
        if self.clients.dice.chance(70) {
            self.set_with(host, counter, "0", &[b"DEL", &name]);
        } else {
            self.set_with(host, counter, "0", &[b"SET", &name, b"0"]);
        }
    }

    fn set_with(&mut self, host: usize, counter: CounterId, value: &str, words: &[&[u8]]) {
        let value = Value::parse(value.as_bytes()).expect("the values above are numbers");
        let read_before = self.get(host, counter);
        let before = self.inspect(host, counter);
        let reply = self.ask(host, words);
        if let Reply::Error(_) = reply {
            return;
        }
        let (after, place) = (self.inspect(host, counter), self.place(host));
        self.oracle.set(place, counter, value, Around { read_before, before: &before, after: &after });
        self.clients.wrote_at[host] = self.world.now;
        if let Some(read) = self.get(host, counter).filter(|read| *read != value) {
            self.oracle.violations.push(format!("n{host} reads {read} right after SET c{counter} {value}"));
        }
    }

    fn set_precision(&mut self, host: usize, counter: CounterId) {
        let precision = *self.clients.dice.pick(&["0", "0.1", "1", "5", "100", "1%", "5%"]);
        let name = self.clients.names[counter].clone();
        self.oracle.note_precision(counter);
        self.ask(host, &[b"PRECISION", &name, precision.as_bytes()]);
        self.clients.wrote_at[host] = self.world.now;
    }

    fn read(&mut self, host: usize, counter: CounterId) {
        let name = self.clients.names[counter].clone();
        match self.clients.dice.below(10) {
            0 => drop(self.ask(host, &[b"GET", &name, b"STATE"])),
            1 => drop(self.ask(host, &[b"MGET", &name, b"c0"])),
            2..4 => drop(self.get(host, counter)),
            _ if self.plan.has(Habit::Bound) => self.read_with_bound(host, counter),
            _ => {}
        }
    }

    fn read_with_bound(&mut self, host: usize, counter: CounterId) {
        let name = self.clients.names[counter].clone();
        let state = self.inspect(host, counter);
        let process = self.world.hosts[host].process.as_deref().expect("clients ask running nodes only");
        let members = process.members();
        let Reply::Array(parts) = self.ask(host, &[b"GET", &name, b"BOUND"]) else {
            return self
                .oracle
                .violations
                .push(format!("n{host} does not answer GET BOUND with three parts"));
        };
        let [value, bound, age] = parts.as_slice() else { return };
        // A node that can't claim anything says so by a bound that is wider than the range.
        if let (Some(value), Some(bound), Some(age)) = (value_of(value), value_of(bound), millis_of(age)) {
            let place = self.place(host);
            self.oracle.claimed(place, counter, Claim { value, bound, age }, &state, &members);
        } else {
            self.oracle.bounds_open += 1;
        }
    }
}

fn millis_of(reply: &Reply) -> Option<Micros> {
    match reply {
        Reply::Integer(ms) => u64::try_from(*ms).ok().map(Micros::from_millis),
        _ => None,
    }
}

/// Shows the judge whatever nodes have deleted by themselves, before anything that follows from it.
pub fn note_balances(counter: CounterId, world: &World<'_>, oracle: &mut Oracle, clients: &Clients) {
    for host in 0..world.hosts.len() {
        if let Some(process) = world.hosts[host].process.as_deref() {
            let state = process.inspect(clients.name(counter), world.local(host));
            oracle.note_members(process.id(), &process.members());
            oracle.note_balance(place_of(world, host), counter, &state);
        }
    }
}

/// Where and when something happens on a host that runs a process.
pub fn place_of(world: &World<'_>, host: usize) -> Place {
    let process = world.hosts[host].process.as_deref().expect("only running nodes have a place");
    let life = world.hosts[host].life + world.hosts[host].resets;
    let (id, epoch, is_alone) = (process.id(), process.reset_epoch(), process.members().len() == 1);
    let is_acquainted = process.is_acquainted() && !world.hosts[host].has_left;
    Place { host, life, id, epoch, now: world.now, is_alone, is_acquainted }
}
