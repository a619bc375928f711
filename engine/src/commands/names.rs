//! The set of names: EXISTS, DEL, KEYS, SCAN, DBSIZE, TYPE, TOUCH.

use crate::command::ArgKind::{Integer, Key, Pattern};
use crate::command::Flag::{Fast, Readonly, Write};
use crate::command::{Arg, CommandSpec, Context, Group, Outcome, Task};
use crate::error::ClientError;
use crate::glob::{Case, Glob};
use crate::keyspace::Cursor;

const NAMES: Arg = Arg::new("name", Key).multiple();

/// Names that SCAN looks at when COUNT is not given.
const DEFAULT_SCAN_COUNT: u64 = 10;

/// Most names that one SCAN looks at, whatever COUNT says.
const MAX_SCAN_COUNT: u64 = 100_000;

pub(super) const COMMANDS: &[CommandSpec] = &[
    CommandSpec {
        name: "exists",
        summary: "Answers how many of the named counters exist; a repeated name counts again.",
        since: "1.0.0",
        group: Group::Generic,
        flags: &[Readonly, Fast],
        arguments: &[NAMES],
        subcommands: &[],
        run: exists,
    },
    CommandSpec {
        name: "touch",
        summary: "The same as EXISTS: counters are not evicted, so there is nothing to refresh.",
        since: "2.0.0",
        group: Group::Generic,
        flags: &[Readonly, Fast],
        arguments: &[NAMES],
        subcommands: &[],
        run: exists,
    },
    CommandSpec {
        name: "del",
        summary: "Makes counters read zero and disappear; answers how many existed.",
        since: "2.0.0",
        group: Group::Generic,
        flags: &[Write],
        arguments: &[NAMES],
        subcommands: &[],
        run: del,
    },
    CommandSpec {
        name: "unlink",
        summary: "The same as DEL.",
        since: "2.0.0",
        group: Group::Generic,
        flags: &[Write, Fast],
        arguments: &[NAMES],
        subcommands: &[],
        run: del,
    },
    CommandSpec {
        name: "keys",
        summary: "Answers all names that match a glob. Looks at every counter; SCAN does so in pieces.",
        since: "1.0.0",
        group: Group::Generic,
        flags: &[Readonly],
        arguments: &[Arg::new("pattern", Pattern)],
        subcommands: &[],
        run: |ctx| Ok(Outcome::Wait(Task::Keys(Glob::new(ctx.request.arg(1), Case::Exact)?))),
    },
    CommandSpec {
        name: "scan",
        summary: "Answers some names and a cursor to go on from; zero begins and ends a walk over all.",
        since: "2.0.0",
        group: Group::Generic,
        flags: &[Readonly],
        arguments: &[
            Arg::new("cursor", Integer),
            Arg::new("pattern", Pattern).after("MATCH").optional(),
            Arg::new("count", Integer).after("COUNT").optional(),
            Arg::new("type", crate::command::ArgKind::String).after("TYPE").optional(),
        ],
        subcommands: &[],
        run: scan,
    },
    CommandSpec {
        name: "dbsize",
        summary: "Answers how many counters exist.",
        since: "2.0.0",
        group: Group::Generic,
        flags: &[Readonly, Fast],
        arguments: &[],
        subcommands: &[],
        run: |ctx| {
            ctx.reply.integer(ctx.node.keyspace.len() as i64);
            Ok(Outcome::Done)
        },
    },
    CommandSpec {
        name: "type",
        summary: "Answers counter, or none if there is no such name.",
        since: "2.0.0",
        group: Group::Generic,
        flags: &[Readonly, Fast],
        arguments: &[Arg::new("name", Key)],
        subcommands: &[],
        run: |ctx| {
            let exists = ctx.node.keyspace.contains(ctx.request.arg(1));
            ctx.reply.status(if exists { "counter" } else { "none" });
            Ok(Outcome::Done)
        },
    },
];

fn exists(ctx: &mut Context<'_>) -> Result<Outcome, ClientError> {
    let count = ctx.request.iter().skip(1).filter(|name| ctx.node.keyspace.contains(name)).count();
    ctx.reply.integer(count as i64);
    Ok(Outcome::Done)
}

fn del(ctx: &mut Context<'_>) -> Result<Outcome, ClientError> {
    let now = ctx.now;
    let count = ctx.request.iter().skip(1).filter(|name| ctx.node.keyspace.delete(name, now)).count();
    ctx.session.tally.changes += count as u64;
    ctx.reply.integer(count as i64);
    Ok(Outcome::Done)
}

fn scan(ctx: &mut Context<'_>) -> Result<Outcome, ClientError> {
    let cursor: Cursor = std::str::from_utf8(ctx.request.arg(1))
        .ok()
        .and_then(|text| text.parse().ok())
        .ok_or(ClientError::text("ERR invalid cursor"))?;
    let (mut pattern, mut count, mut is_our_type) = (None, DEFAULT_SCAN_COUNT, true);
    let mut position = 2;
    while position < ctx.request.len() {
        if position + 1 == ctx.request.len() {
            return Err(ClientError::Syntax);
        }
        let (word, argument) = (ctx.request.arg(position), ctx.request.arg(position + 1));
        if word.eq_ignore_ascii_case(b"MATCH") {
            pattern = Some(Glob::new(argument, Case::Exact)?);
        } else if word.eq_ignore_ascii_case(b"COUNT") {
            let asked = ctx.integer(position + 1)?;
            count = u64::try_from(asked).ok().filter(|&n| n > 0).ok_or(ClientError::Syntax)?;
        } else if word.eq_ignore_ascii_case(b"TYPE") {
            is_our_type = argument.eq_ignore_ascii_case(b"counter");
        } else {
            return Err(ClientError::Syntax);
        }
        position += 2;
    }
    let mut names: Vec<Box<[u8]>> = Vec::new();
    let next = ctx.node.look_for_names(cursor, count.min(MAX_SCAN_COUNT), pattern.as_ref(), &mut names);
    if !is_our_type {
        names.clear();
    }
    ctx.reply.array(2);
    ctx.reply.bulk(next.to_string().as_bytes());
    ctx.reply.array(names.len());
    names.iter().for_each(|name| ctx.reply.bulk(name));
    Ok(Outcome::Done)
}

#[cfg(test)]
mod tests {
    use crate::keyspace::Keyspace;
    use crate::precision::Precision;
    use crate::time::{Micros, Now};
    use crate::value::Value;
    use std::collections::BTreeSet;

    #[test]
    fn what_a_scan_costs_does_not_depend_on_what_there_was_once() {
        let keyspace = Keyspace::new(0x1234_5678_9abc_def1, Precision::DEFAULT);
        let now = Now { monotonic: Micros(1), unix: Micros(1) };
        let name = |number: u32| format!("n{number}").into_bytes();
        (0..300_000).for_each(|number| {
            keyspace.add(&name(number), Value::ONE, now.monotonic, true).unwrap();
        });
        // Some at the end of each stripe stay.
        (0..299_000).for_each(|number| assert!(keyspace.delete(&name(number), now)));
        let (mut cursor, mut found, mut calls) = (0, BTreeSet::new(), 0);
        loop {
            let next = keyspace.walk(cursor, 10, |counter| assert!(found.insert(counter.name().to_vec())));
            calls += 1;
            if next == 0 {
                break;
            }
            let stripes = (next >> 32) - (cursor >> 32);
            assert!(stripes < 40, "from {cursor:x} to {next:x} in one call, some 300 places per stripe");
            cursor = next;
        }
        assert_eq!(found, (299_000..300_000).map(name).collect());
        assert!(calls < 300, "{calls}");
    }
}
