//! DEBUG: for tests and for a look inside.
//!
//! The original's subcommands that crash the process on purpose are refused: a production server need not fall over
//! at a client's word, and an operator can send a signal. Those that would stop and start the program are, too.

use super::server::help;
use crate::cluster::ClusterRequest;
use crate::command::ArgKind::{Double, Integer, Key, String};
use crate::command::Flag::Admin;
use crate::command::{Arg, CommandSpec, Context, Group, Outcome, Run, Task};
use crate::counter::Counter;
use crate::error::ClientError;
use crate::ids::NodeId;
use crate::node::Node;
use crate::prediction::Line;
use crate::time::Micros;
use crate::value::Value;

/// Longest DEBUG SLEEP.
const MAX_SLEEP: Micros = Micros::from_secs(3_600);

/// Most counters that one DEBUG POPULATE makes.
const MAX_POPULATE: i64 = 100_000_000;

pub(super) const COMMANDS: &[CommandSpec] = &[CommandSpec {
    name: "debug",
    summary: "For tests and for a look inside; HELP lists the subcommands.",
    since: "1.0.0",
    group: Group::Server,
    flags: &[Admin],
    arguments: &[],
    subcommands: SUBCOMMANDS,
    run: refuse,
}];

const NAME: Arg = Arg::new("name", Key);
const NODE: Arg = Arg::new("node-id", String);

const SUBCOMMANDS: &[CommandSpec] = &[
    subcommand("counter", "Answers what this node knows of a counter.", &[NAME], counter),
    subcommand("prediction", "Answers a counter's published change per millisecond.", &[NAME], prediction),
    subcommand("flushall", "Deletes every counter on this node.", &[], flush),
    subcommand(
        "reset",
        "Deletes every counter on every member, also on those that come back later.",
        &[],
        reset_all,
    ),
    subcommand("digest", "Answers a digest of all names and values, zero if there are none.", &[], digest),
    subcommand("sleep", "Serves nobody for that long.", &[Arg::new("seconds", Double)], sleep),
    subcommand("error", "Answers the text as an error.", &[Arg::new("text", String)], |ctx| {
        ctx.reply.error_bytes(ctx.request.arg(2));
        Ok(Outcome::Done)
    }),
    subcommand(
        "node",
        "SHARDS: answers how many counters a node has a part in.",
        &[Arg::new("what", String), NODE.optional()],
        node_shards,
    ),
    subcommand("resetshard", "Sets a node's part of a counter to zero.", &[NAME, NODE], reset_shard),
    subcommand("sync", "Sends all counters to a node again.", &[NODE], |ctx| {
        known_node(ctx, 2)?;
        ctx.reply.status("OK");
        Ok(Outcome::Done)
    }),
    subcommand("structsize", "Answers the sizes of what counters are made of.", &[], |ctx| {
        ctx.reply.status(&format!(
            "bits:{} counter:{} value:{}",
            usize::BITS,
            size_of::<Counter>(),
            size_of::<Value>()
        ));
        Ok(Outcome::Done)
    }),
    subcommand(
        "populate",
        "Makes that many counters PREFIX:0, PREFIX:1 and so on, each 1; those that exist stay.",
        &[Arg::new("count", Integer), Arg::new("prefix", String).optional()],
        populate,
    ),
    // What a load would bring is what the memory holds.
    subcommand("reload", "Saves all counters.", &[], |_| Ok(Outcome::Wait(Task::Save))),
    subcommand("restart", "Refused.", &[], needs_restart),
    subcommand("crash-and-recover", "Refused.", &[], needs_restart),
    subcommand("segfault", "Refused.", &[], refuse_crash),
    subcommand("oom", "Refused.", &[], refuse_crash),
    subcommand("assert", "Refused.", &[], refuse_crash),
    subcommand("help", "Lists the subcommands.", &[], |ctx| help(ctx, "debug")),
];

const fn subcommand(
    name: &'static str,
    summary: &'static str,
    arguments: &'static [Arg],
    run: Run,
) -> CommandSpec {
    CommandSpec {
        name,
        summary,
        since: "1.0.0",
        group: Group::Server,
        flags: &[Admin],
        arguments,
        subcommands: &[],
        run,
    }
}

/// An unknown subcommand, or a known one with the wrong number of arguments.
fn refuse(ctx: &mut Context<'_>) -> Result<Outcome, ClientError> {
    Err(ClientError::quoting(
        "ERR Unknown DEBUG subcommand or wrong number of arguments for '",
        ctx.request.arg(1),
        "'",
    ))
}

fn needs_restart(ctx: &mut Context<'_>) -> Result<Outcome, ClientError> {
    let asked = ctx.request.arg(1);
    Err(ClientError::quoting("ERR DEBUG ", asked, " is not available: stop and start the server instead"))
}

fn refuse_crash(ctx: &mut Context<'_>) -> Result<Outcome, ClientError> {
    let asked = ctx.request.arg(1);
    Err(ClientError::quoting("ERR DEBUG ", asked, " is not available: send the process a signal to end it"))
}

/// What this node has counted. What a SET made the counter read belongs to no node; as long as no other has a part in
/// the counter, it is shown as this one's.
fn own_part(node: &Node, counter: &Counter, now: Micros) -> Value {
    match counter.full() {
        Some(full) if !full.peers().is_empty() => counter.own(),
        _ => counter.total(now, &node.keyspace.horizons),
    }
}

/// One node's part of a counter as `DEBUG COUNTER` shows it.
struct Part {
    node: Option<NodeId>,
    value: Value,
    /// The line that was published for it, if it moves.
    line: Option<Line>,
}

impl Part {
    /// `[node, value, time of the line in unix ms, value of the line, its change per ms]`.
    fn reply(&self, ctx: &mut Context<'_>) {
        let (moment, anchor, slope) = match &self.line {
            None => (0, Value::ZERO, Value::ZERO),
            Some(line) => {
                let age = ctx.now.monotonic.0.wrapping_sub(line.moment.0) as i64 / 1_000;
                let slope = Value::saturating_from_units((line.slope * 1_000.0) as i128);
                (ctx.now.unix.millis() as i64 - age, line.anchor, slope)
            }
        };
        ctx.reply.array(5);
        ctx.reply.bulk(self.node.map(|id| id.to_string()).unwrap_or_default().as_bytes());
        ctx.reply_value(self.value);
        ctx.reply.integer(moment);
        ctx.reply_value(anchor);
        ctx.reply_value(slope);
    }
}

/// This node's part, then those of the others as they are known here.
fn parts_of(node: &Node, counter: &Counter, now: Micros) -> Vec<Part> {
    let own_line = counter.full().and_then(|full| full.track.as_ref()).map(|track| *track.line());
    let own = Part { node: Some(node.id()), value: own_part(node, counter, now), line: own_line };
    let peers = counter.full().map_or(&[][..], |full| full.peers()).iter().map(|shard| Part {
        node: node.keyspace.member_ids.id(shard.member()),
        value: shard.estimate(now, &node.keyspace.horizons),
        line: shard.moving().filter(|_| !shard.is_unanchored()).map(|moving| Line {
            anchor: shard.value(),
            slope: moving.slope,
            moment: moving.moment,
        }),
    });
    std::iter::once(own).chain(peers).collect()
}

/// `[[[node, value, time of the line, value of the line, its change per ms]...], total, history, revision, precision,
/// hits, misses]`, as the original answers. A part at rest has no line, so that is zero since never; no history is kept
/// per second.
fn counter(ctx: &mut Context<'_>) -> Result<Outcome, ClientError> {
    let now = ctx.now.monotonic;
    let node = ctx.node;
    let (parts, total, revision) = node
        .keyspace
        .with(ctx.request.arg(2), |counter| {
            let revision = counter.full().map_or(0, |full| full.seq.n);
            (parts_of(node, counter, now), counter.total(now, &node.keyspace.horizons), revision)
        })
        .ok_or(ClientError::text("ERR Unknown counter"))?;
    let precision = node.keyspace.precision(ctx.request.arg(2)).to_string();
    ctx.reply.array(7);
    ctx.reply.array(parts.len());
    parts.iter().for_each(|part| part.reply(ctx));
    ctx.reply_value(total);
    ctx.reply.array(0);
    ctx.reply.integer(revision as i64);
    ctx.reply.bulk(precision.as_bytes());
    ctx.reply.integer(0);
    ctx.reply.integer(0);
    Ok(Outcome::Done)
}

/// Nothing is published by a node alone, so every line is flat.
fn prediction(ctx: &mut Context<'_>) -> Result<Outcome, ClientError> {
    ctx.reply_value(Value::ZERO);
    Ok(Outcome::Done)
}

fn flush(ctx: &mut Context<'_>) -> Result<Outcome, ClientError> {
    ctx.session.tally.changes += ctx.node.keyspace.len() as u64;
    ctx.node.flush();
    ctx.reply.status("OK");
    Ok(Outcome::Done)
}

/// The sum of a hash per counter, so that the order of a walk does not matter. Nodes that agree on every value answer
/// the same.
fn digest(ctx: &mut Context<'_>) -> Result<Outcome, ClientError> {
    let now = ctx.now.monotonic;
    let (mut low, mut high) = (0_u128, 0_u32);
    let mut cursor = 0;
    loop {
        cursor = ctx.node.keyspace.walk(cursor, u64::MAX, |counter| {
            let value = counter.total(now, &ctx.node.keyspace.horizons);
            // One that reads zero is as good as missing; other nodes may have removed it already.
            if !value.is_zero() {
                let hash = fnv1a(counter.name(), value);
                low = low.wrapping_add(hash);
                high = high.wrapping_add((hash >> 7) as u32 ^ (hash >> 96) as u32);
            }
        });
        if cursor == 0 {
            break;
        }
    }
    ctx.reply.status(&format!("{high:08x}{low:032x}"));
    Ok(Outcome::Done)
}

/// FNV-1a in 128 bits (Fowler, Noll, Vo; draft-eastlake-fnv-17, section 5) of the name, its length and the value.
fn fnv1a(name: &[u8], value: Value) -> u128 {
    const OFFSET: u128 = 0x6c62_272e_07bb_0142_62b8_2175_6295_c58d;
    const PRIME: u128 = 0x0000_0000_0100_0000_0000_0000_0000_013b;
    let (len, units) = ((name.len() as u64).to_le_bytes(), value.units().to_le_bytes());
    name.iter()
        .chain(&len)
        .chain(&units)
        .fold(OFFSET, |hash, &byte| (hash ^ u128::from(byte)).wrapping_mul(PRIME))
}

fn sleep(ctx: &mut Context<'_>) -> Result<Outcome, ClientError> {
    let seconds = ctx.value(2)?;
    let units_per_micro = Value::ONE.units() / 1_000_000;
    let micros = u64::try_from(seconds.units() / units_per_micro).ok().map(Micros);
    match micros.filter(|&micros| micros <= MAX_SLEEP) {
        Some(micros) => Ok(Outcome::Wait(Task::Sleep(micros))),
        None => Err(ClientError::text(format!(
            "ERR seconds to sleep are {seconds}, must be from 0 to {}",
            MAX_SLEEP.secs()
        ))),
    }
}

fn node_shards(ctx: &mut Context<'_>) -> Result<Outcome, ClientError> {
    let what = ctx.request.arg(2);
    if ctx.request.len() != 4 || !what.eq_ignore_ascii_case(b"SHARDS") {
        return Err(ClientError::quoting(
            "ERR Unknown DEBUG NODE subcommand or wrong number of arguments for '",
            what,
            "'",
        ));
    }
    known_node(ctx, 3)?;
    let now = ctx.now.monotonic;
    let (mut count, mut cursor) = (0, 0);
    loop {
        cursor = ctx.node.keyspace.walk(cursor, u64::MAX, |counter| {
            count += i64::from(!own_part(ctx.node, counter, now).is_zero());
        });
        if cursor == 0 {
            break;
        }
    }
    ctx.reply.integer(count);
    Ok(Outcome::Done)
}

/// The node named at this position; a node alone knows itself.
fn known_node(ctx: &Context<'_>, position: usize) -> Result<NodeId, ClientError> {
    NodeId::parse(ctx.request.arg(position))
        .filter(|&id| id == ctx.node.id())
        .ok_or(ClientError::text("ERR Unknown node"))
}

/// Takes back what this node has counted. Another node's part is that node's alone to change, so nothing happens then.
fn reset_all(ctx: &mut Context<'_>) -> Result<Outcome, ClientError> {
    ctx.session.tally.changes += ctx.node.keyspace.len() as u64;
    Ok(Outcome::Wait(Task::Cluster(ClusterRequest::ResetAll)))
}

fn reset_shard(ctx: &mut Context<'_>) -> Result<Outcome, ClientError> {
    let now = ctx.now.monotonic;
    let own = ctx.node.keyspace.with(ctx.request.arg(2), |counter| own_part(ctx.node, counter, now));
    if let Some(own) = own
        && known_node(ctx, 3).is_ok()
    {
        ctx.node.keyspace.add(ctx.request.arg(2), own.neg(), now, false)?;
        ctx.session.tally.changes += 1;
    }
    ctx.reply.status("OK");
    Ok(Outcome::Done)
}

fn populate(ctx: &mut Context<'_>) -> Result<Outcome, ClientError> {
    let count = ctx.integer(2)?;
    if !(0..=MAX_POPULATE).contains(&count) {
        return Err(ClientError::text(format!("ERR count is {count}, must be from 0 to {MAX_POPULATE}")));
    }
    let prefix: &[u8] = if ctx.request.len() > 3 { ctx.request.arg(3) } else { b"counter" };
    if prefix.len() > crate::counter::MAX_NAME_LEN - 10 {
        return Err(ClientError::NameTooLong(prefix.len() + 10));
    }
    for number in 0..count {
        let name = [prefix, b":", number.to_string().as_bytes()].concat();
        if !ctx.node.keyspace.contains(&name) {
            ctx.node.keyspace.add(&name, Value::ONE, ctx.now.monotonic, ctx.node.has_room())?;
            ctx.session.tally.changes += 1;
        }
    }
    ctx.reply.status("OK");
    Ok(Outcome::Done)
}

#[cfg(test)]
mod tests {
    use super::super::harness::Harness;
    use crate::command::{Outcome, Task};
    use crate::time::Micros;

    const EMPTY: &str = "+0000000000000000000000000000000000000000|";

    #[test]
    fn the_digest_depends_on_names_and_values_and_not_on_their_order() {
        let (mut one, mut other) = (Harness::new(), Harness::new());
        assert_eq!(one.run("DEBUG DIGEST"), EMPTY);
        one.run("SET a 1");
        one.run("SET b 2");
        other.run("SET b 2");
        assert_ne!(one.run("DEBUG DIGEST"), other.run("DEBUG DIGEST"));
        other.run("SET a 1");
        assert_eq!(one.run("DEBUG DIGEST"), other.run("DEBUG DIGEST"));
        one.run("SET a 2");
        one.run("SET b 1");
        assert_ne!(one.run("DEBUG DIGEST"), other.run("DEBUG DIGEST"));
        one.run("DEBUG FLUSHALL");
        assert_eq!(one.run("DEBUG DIGEST"), EMPTY);
    }

    #[test]
    fn sleep_takes_fractions_of_a_second_within_its_limit() {
        let mut harness = Harness::new();
        for (seconds, micros) in [("0.15", 150_000), ("1", 1_000_000), ("0", 0), ("3600", 3_600_000_000)] {
            let (reply, outcome) = harness.request(0, &[b"DEBUG", b"SLEEP", seconds.as_bytes()]);
            assert_eq!((reply.as_str(), outcome), ("", Outcome::Wait(Task::Sleep(Micros(micros)))));
        }
        for seconds in ["-1", "3600.1", "1e20"] {
            let reply = harness.run(&format!("DEBUG SLEEP {seconds}"));
            assert!(reply.starts_with("-ERR seconds to sleep are "), "{reply}");
        }
        assert_eq!(harness.run("DEBUG SLEEP x"), "-ERR value is not a valid float|");
    }

    #[test]
    fn an_error_is_answered_as_given() {
        let mut harness = Harness::new();
        for (text, reply) in [(&b"a\r\nb c"[..], "-a  b c|"), (b"", "-|"), (b"ERR x", "-ERR x|")] {
            assert_eq!(harness.request(0, &[b"DEBUG", b"ERROR", text]).0, reply);
        }
    }

    #[test]
    fn reload_saves() {
        let mut harness = Harness::new();
        let (reply, outcome) = harness.request(0, &[b"DEBUG", b"RELOAD"]);
        assert_eq!((reply.as_str(), outcome), ("", Outcome::Wait(Task::Save)));
    }

    #[test]
    fn crashes_are_refused() {
        let mut harness = Harness::new();
        for what in ["SEGFAULT", "OOM", "ASSERT"] {
            let error = format!("-ERR DEBUG {what} is not available: send the process a signal to end it|");
            assert_eq!(harness.run(&format!("DEBUG {what}")), error);
        }
    }

    #[test]
    fn unknown_and_extra_words_are_refused() {
        let mut harness = Harness::new();
        for (line, word) in [("DEBUG foo", "foo"), ("DEBUG FLUSHALL now", "FLUSHALL"), ("DEBUG NODE", "NODE")]
        {
            let error = format!("-ERR Unknown DEBUG subcommand or wrong number of arguments for '{word}'|");
            assert_eq!(harness.run(line), error);
        }
        let error = "-ERR Unknown DEBUG NODE subcommand or wrong number of arguments for 'FOO'|";
        assert_eq!(harness.run("DEBUG NODE FOO x"), error);
    }

    #[test]
    fn a_node_knows_its_own_shards() {
        let mut harness = Harness::new();
        harness.run("SET a 5");
        harness.run("SET b 2");
        harness.run("SET zero 0");
        let id = harness.node.id();
        assert_eq!(harness.run(&format!("DEBUG NODE SHARDS {id}")), ":2|");
        assert_eq!(harness.run("DEBUG NODE SHARDS x"), "-ERR Unknown node|");
        assert_eq!(harness.run(&format!("DEBUG RESETSHARD a {id}")), "+OK|");
        assert_eq!(harness.run(&format!("DEBUG RESETSHARD nosuch {id}")), "+OK|");
        assert_eq!(harness.run("EXISTS nosuch"), ":0|");
        assert_eq!(harness.run("MGET a b"), "*2|$1|0|$1|2|");
        assert_eq!(harness.run("DEBUG COUNTER nosuch"), "-ERR Unknown counter|");
    }

    #[test]
    fn populate_leaves_alone_what_exists() {
        let mut harness = Harness::new();
        harness.run("SET p:1 7");
        assert_eq!(harness.run("DEBUG POPULATE 3 p"), "+OK|");
        assert_eq!(harness.run("MGET p:0 p:1 p:2 p:3"), "*4|$1|1|$1|7|$1|1|$1|0|");
        assert_eq!(harness.run("DBSIZE"), ":3|");
    }
}
