//! Counting and reading: INCR and its kin, GET, MGET, SET, PRECISION.

use crate::command::ArgKind::{Double, Key, OneOf, String};
use crate::command::Flag::{Denyoom, Fast, Readonly, Write};
use crate::command::{Arg, CommandSpec, Context, Group, Outcome};
use crate::error::ClientError;
use crate::precision::Precision;
use crate::value::{Value, ValueError};

const NAME: Arg = Arg::new("name", Key);
const GET_OPTIONS: &[Arg] = &[Arg::word("state", "STATE"), Arg::word("bound", "BOUND")];
const AMOUNT: Arg = Arg::new("amount", Double);

/// The bound where nothing can be said: as far as the two ends of the range are apart.
const ANYTHING: &[u8] = b"200000000000000000000";

pub(super) const COMMANDS: &[CommandSpec] = &[
    CommandSpec {
        name: "incr",
        summary: "Adds one to a counter and answers its value; a missing counter starts at zero.",
        since: "1.0.0",
        group: Group::Counter,
        flags: &[Write, Denyoom, Fast],
        arguments: &[NAME],
        subcommands: &[],
        run: |ctx| add(ctx, Value::ONE),
    },
    CommandSpec {
        name: "decr",
        summary: "Subtracts one from a counter and answers its value.",
        since: "1.0.0",
        group: Group::Counter,
        flags: &[Write, Denyoom, Fast],
        arguments: &[NAME],
        subcommands: &[],
        run: |ctx| add(ctx, Value::ONE.neg()),
    },
    CommandSpec {
        name: "incrby",
        summary: "Adds an amount, which may be negative or a fraction, and answers the counter's value.",
        since: "1.0.0",
        group: Group::Counter,
        flags: &[Write, Denyoom, Fast],
        arguments: &[NAME, AMOUNT],
        subcommands: &[],
        run: incrby,
    },
    CommandSpec {
        name: "incrbyfloat",
        summary: "The same as INCRBY: every counter may hold a fraction.",
        since: "1.0.0",
        group: Group::Counter,
        flags: &[Write, Denyoom, Fast],
        arguments: &[NAME, AMOUNT],
        subcommands: &[],
        run: incrby,
    },
    CommandSpec {
        name: "decrby",
        summary: "Subtracts an amount and answers the counter's value.",
        since: "1.0.0",
        group: Group::Counter,
        flags: &[Write, Denyoom, Fast],
        arguments: &[NAME, AMOUNT],
        subcommands: &[],
        run: |ctx| {
            let amount = ctx.value(2)?.neg();
            add(ctx, amount)
        },
    },
    CommandSpec {
        name: "mincrby",
        summary: "Adds an amount to several counters; answers each one's value or error in its place.",
        since: "1.0.0",
        group: Group::Counter,
        flags: &[Write, Denyoom],
        arguments: &[AMOUNT, NAME.multiple()],
        subcommands: &[],
        run: mincrby,
    },
    CommandSpec {
        name: "get",
        summary: "Answers a counter's value, zero if it does not exist. STATE adds whether every node is heard of; \
                  BOUND answers a value, how far the counter was from it at most at a moment, and how many \
                  milliseconds ago that was; a bound of 200000000000000000000 says that it is not known.",
        since: "1.0.0",
        group: Group::Counter,
        flags: &[Readonly, Fast],
        arguments: &[NAME, Arg::new("option", OneOf(GET_OPTIONS)).optional()],
        subcommands: &[],
        run: get,
    },
    CommandSpec {
        name: "mget",
        summary: "Answers the values of several counters.",
        since: "1.0.0",
        group: Group::Counter,
        flags: &[Readonly],
        arguments: &[NAME.multiple()],
        subcommands: &[],
        run: mget,
    },
    CommandSpec {
        name: "set",
        summary: "Makes a counter read a value, everywhere, and answers it.",
        since: "1.0.0",
        group: Group::Counter,
        flags: &[Write, Denyoom, Fast],
        arguments: &[NAME, Arg::new("value", Double)],
        subcommands: &[],
        run: set,
    },
    CommandSpec {
        name: "precision",
        summary: "Answers or sets how far other nodes' view of this node's part may stray: an amount or a percentage.",
        since: "1.0.0",
        group: Group::Counter,
        flags: &[Write, Denyoom, Fast],
        arguments: &[NAME, Arg::new("precision", String).optional()],
        subcommands: &[],
        run: precision,
    },
];

fn add(ctx: &mut Context<'_>, amount: Value) -> Result<Outcome, ClientError> {
    let total = ctx.node.keyspace.add(ctx.name(1)?, amount, ctx.now.monotonic, ctx.node.has_room())?;
    ctx.session.tally.changes += 1;
    ctx.reply_value(total);
    Ok(Outcome::Done)
}

fn incrby(ctx: &mut Context<'_>) -> Result<Outcome, ClientError> {
    let amount = ctx.value(2)?;
    add(ctx, amount)
}

fn mincrby(ctx: &mut Context<'_>) -> Result<Outcome, ClientError> {
    // An amount that is out of range is refused name by name, as a total out of range is.
    let amount = match Value::parse(ctx.request.arg(1)) {
        Err(error @ ValueError::OutOfRange) => Err(error),
        other => Ok(other?),
    };
    ctx.reply.array(ctx.request.len() - 2);
    for position in 2..ctx.request.len() {
        let total = ctx.name(position).and_then(|name| {
            Ok(ctx.node.keyspace.add(name, amount?, ctx.now.monotonic, ctx.node.has_room())?)
        });
        match total {
            Ok(total) => {
                ctx.session.tally.changes += 1;
                ctx.reply_value(total);
            }
            Err(error) => error.write(&mut ctx.reply),
        }
    }
    Ok(Outcome::Done)
}

fn get(ctx: &mut Context<'_>) -> Result<Outcome, ClientError> {
    if ctx.request.len() > 3 {
        return Err(ClientError::Syntax);
    }
    let (node, now, name) = (ctx.node, ctx.now.monotonic, ctx.request.arg(1));
    match ctx.request.iter().nth(2) {
        None => ctx.reply_value(node.keyspace.total(name, now).unwrap_or_default()),
        Some(word) if word.eq_ignore_ascii_case(b"STATE") => {
            let total = node.keyspace.total(name, now).unwrap_or_default();
            ctx.reply.array(2);
            ctx.reply_value(total);
            ctx.reply.bulk(if node.is_consistent(now) { b"CONSISTENT" } else { b"INCONSISTENT" });
        }
        Some(word) if word.eq_ignore_ascii_case(b"BOUND") => {
            let bounded = node.keyspace.bound(name, now);
            ctx.reply.array(3);
            ctx.reply_value(bounded.value);
            match bounded.bound {
                Some(bound) => ctx.reply_value(bound),
                None => ctx.reply.bulk(ANYTHING),
            }
            ctx.reply.integer(bounded.age.0.div_ceil(1_000) as i64);
        }
        Some(word) => return Err(ClientError::quoting("ERR Unknown GET option '", word, "'")),
    }
    Ok(Outcome::Done)
}

fn mget(ctx: &mut Context<'_>) -> Result<Outcome, ClientError> {
    ctx.reply.array(ctx.request.len() - 1);
    for position in 1..ctx.request.len() {
        let name = ctx.request.arg(position);
        let total = ctx.node.keyspace.total(name, ctx.now.monotonic).unwrap_or_default();
        ctx.reply_value(total);
    }
    Ok(Outcome::Done)
}

fn set(ctx: &mut Context<'_>) -> Result<Outcome, ClientError> {
    let value = ctx.value(2)?;
    ctx.node.keyspace.set(ctx.name(1)?, value, ctx.now, ctx.node.has_room())?;
    ctx.session.tally.changes += 1;
    ctx.reply_value(value);
    Ok(Outcome::Done)
}

fn precision(ctx: &mut Context<'_>) -> Result<Outcome, ClientError> {
    let precision = match ctx.request.len() {
        2 => ctx.node.keyspace.precision(ctx.request.arg(1)),
        3 => {
            let precision =
                Precision::parse(ctx.request.arg(2)).ok_or(ClientError::Value(ValueError::NotANumber))?;
            let (name, now) = (ctx.name(1)?, ctx.now.monotonic);
            ctx.node.keyspace.set_precision(name, precision, now, ctx.node.has_room())?;
            ctx.session.tally.changes += 1;
            precision
        }
        _ => return Err(ClientError::Arity("precision")),
    };
    ctx.reply.bulk(precision.to_string().as_bytes());
    Ok(Outcome::Done)
}
