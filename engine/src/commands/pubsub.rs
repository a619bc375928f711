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
