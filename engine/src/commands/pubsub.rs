//! SUBSCRIBE, ISUBSCRIBE, UNSUBSCRIBE.

use crate::command::ArgKind::{Integer, Key};
use crate::command::Flag::{Loading, Pubsub, Readonly, WhileSubscribed};
use crate::command::{Arg, CommandSpec, Context, Group, Outcome};
use crate::error::ClientError;
use crate::pubsub::MAX_INTERVAL_SECS;

const NAMES: Arg = Arg::new("name", Key).multiple();

pub(super) const COMMANDS: &[CommandSpec] = &[
    CommandSpec {
        name: "subscribe",
        summary: "Sends a message, at most once a second, when a counter's value has changed.",
        since: "1.0.0",
        group: Group::Pubsub,
        flags: &[Readonly, Pubsub, Loading, WhileSubscribed],
        arguments: &[NAMES],
        subcommands: &[],
        run: |ctx| subscribe(ctx, 1, 1),
    },
    CommandSpec {
        name: "isubscribe",
        summary: "The same with at most one message per that many seconds.",
        since: "1.0.0",
        group: Group::Pubsub,
        flags: &[Readonly, Pubsub, Loading, WhileSubscribed],
        arguments: &[Arg::new("seconds", Integer), NAMES],
        subcommands: &[],
        run: isubscribe,
    },
    CommandSpec {
        name: "unsubscribe",
        summary: "Ends subscriptions, all of them if none is named.",
        since: "1.0.0",
        group: Group::Pubsub,
        flags: &[Readonly, Pubsub, Loading, WhileSubscribed],
        arguments: &[Arg::new("name", Key).multiple().optional()],
        subcommands: &[],
        run: unsubscribe,
    },
];

fn isubscribe(ctx: &mut Context<'_>) -> Result<Outcome, ClientError> {
    let interval_secs = u64::try_from(ctx.integer(1)?)
        .ok()
        .filter(|&secs| secs <= MAX_INTERVAL_SECS)
        .ok_or(ClientError::NotAnInteger)?;
    subscribe(ctx, interval_secs, 2)
}

/// Subscribes to the names from `first` on. Refused as a whole if one of them can't be made.
fn subscribe(ctx: &mut Context<'_>, interval_secs: u64, first: usize) -> Result<Outcome, ClientError> {
    let (node, now) = (ctx.node, ctx.now.monotonic);
    for position in first..ctx.request.len() {
        let name = ctx.name(position)?;
        if !node.has_room() && !node.keyspace.contains(name) {
            return Err(ClientError::OutOfMemory);
        }
    }
    for position in first..ctx.request.len() {
        let name = ctx.request.arg(position);
        if node.pubsub.add(&ctx.session.client, name, interval_secs) {
            node.keyspace.subscribe(name, now, true)?;
        }
        confirm(ctx, "subscribe", Some(name));
    }
    Ok(Outcome::Done)
}

fn unsubscribe(ctx: &mut Context<'_>) -> Result<Outcome, ClientError> {
    let names: Vec<Box<[u8]>> = if ctx.request.len() > 1 {
        ctx.request.iter().skip(1).map(Into::into).collect()
    } else {
        ctx.session.client.subscriptions.lock().iter().cloned().collect()
    };
    for name in &names {
        if ctx.node.pubsub.remove(&ctx.session.client, name) {
            ctx.node.keyspace.unsubscribe(name, ctx.now.monotonic);
        }
        confirm(ctx, "unsubscribe", Some(name));
    }
    if names.is_empty() {
        confirm(ctx, "unsubscribe", None);
    }
    Ok(Outcome::Done)
}

/// `[what, name, how many subscriptions there are now]`.
fn confirm(ctx: &mut Context<'_>, what: &str, name: Option<&[u8]>) {
    ctx.reply.push(3);
    ctx.reply.bulk(what.as_bytes());
    match name {
        Some(name) => ctx.reply.bulk(name),
        None => ctx.reply.null(),
    }
    ctx.reply.integer(ctx.session.client.subscription_count() as i64);
}

#[cfg(test)]
mod tests {
    use crate::commands::harness::Harness;
    use crate::time::Micros;

    /// What the first connection is sent in each of the next seconds, while the other one counts.
    fn messages(harness: &mut Harness, other: usize, seconds: usize) -> Vec<String> {
        let mut messages = Vec::new();
        for _ in 0..seconds {
            harness.run_on(other, "INCR a");
            harness.wait(Micros::from_secs(1));
            messages.push(harness.received(0));
        }
        messages
    }

    fn message(value: &str) -> String {
        format!("*3|$7|message|$1|a|${}|{value}|", value.len())
    }

    #[test]
    fn an_interval_begins_with_a_message() {
        let mut harness = Harness::new();
        let other = harness.connect();
        harness.run("ISUBSCRIBE 3 a");
        let expected = [message("1"), String::new(), String::new(), message("4"), String::new()];
        assert_eq!(messages(&mut harness, other, 5), expected);
    }

    #[test]
    fn an_interval_of_zero_is_one_of_a_second() {
        let mut harness = Harness::new();
        let other = harness.connect();
        harness.run("ISUBSCRIBE 0 a");
        assert_eq!(messages(&mut harness, other, 2), [message("1"), message("2")]);
        harness.wait(Micros::from_secs(1));
        assert_eq!(harness.received(0), "", "nothing has changed");
    }

    #[test]
    fn unsubscribing_without_a_subscription_is_answered() {
        let mut harness = Harness::new();
        assert_eq!(harness.run("UNSUBSCRIBE"), "*3|$11|unsubscribe|$-1|:0|");
        assert_eq!(harness.run("UNSUBSCRIBE x"), "*3|$11|unsubscribe|$1|x|:0|");
    }

    #[test]
    fn the_restricted_mode_of_resp2_ends_with_the_last_subscription() {
        let mut harness = Harness::new();
        assert_eq!(
            harness.run("SUBSCRIBE a b a"),
            "*3|$9|subscribe|$1|a|:1|*3|$9|subscribe|$1|b|:2|*3|$9|subscribe|$1|a|:2|"
        );
        let refusal = "-ERR only SUBSCRIBE / ISUBSCRIBE / UNSUBSCRIBE / QUIT allowed in this context|";
        assert_eq!(harness.run("GET a"), refusal);
        harness.run("UNSUBSCRIBE a");
        assert_eq!(harness.run("HELLO"), refusal);
        harness.run("UNSUBSCRIBE");
        assert_eq!(harness.run("GET a"), "$1|0|");
    }

    #[test]
    fn deleting_all_counters_ends_subscriptions_and_the_mode() {
        let mut harness = Harness::new();
        harness.run("SUBSCRIBE a");
        harness.node.flush();
        assert_eq!(harness.received(0), "*3|$11|unsubscribe|$1|a|:0|");
        assert_eq!(harness.run("GET a"), "$1|0|");
    }
}
