//! LATENCY: delays that clients have felt.

use super::server::help;
use crate::command::ArgKind::String;
use crate::command::Flag::{Admin, Loading, Readonly};
use crate::command::{Arg, CommandSpec, Context, Group, Outcome, Run};
use crate::error::ClientError;

pub(super) const COMMANDS: &[CommandSpec] = &[CommandSpec {
    name: "latency",
    summary: "Tells of delays that clients have felt, above latency-monitor-threshold milliseconds.",
    since: "1.0.0",
    group: Group::Server,
    flags: &[Readonly, Admin, Loading],
    arguments: &[],
    subcommands: SUBCOMMANDS,
    run: |_| Err(ClientError::Syntax),
}];

const EVENT: Arg = Arg::new("event", String);

const SUBCOMMANDS: &[CommandSpec] = &[
    subcommand("history", "Answers time and worst delay of each second with a delay.", &[EVENT], history),
    subcommand("latest", "Answers the last delay and the worst of each event.", &[], latest),
    subcommand("reset", "Forgets events, all if none is named.", &[EVENT.optional().multiple()], reset),
    subcommand("graph", "Draws an event's delays.", &[EVENT], graph),
    subcommand("doctor", "Reports on delays, with advice.", &[], doctor),
    subcommand("help", "Lists the subcommands.", &[], |ctx| help(ctx, "latency")),
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
        flags: &[Readonly, Admin, Loading],
        arguments,
        subcommands: &[],
        run,
    }
}

fn history(ctx: &mut Context<'_>) -> Result<Outcome, ClientError> {
    let samples = ctx.node.latency.history(ctx.request.arg(2));
    ctx.reply.array(samples.len());
    for sample in samples {
        ctx.reply.array(2);
        ctx.reply.integer(sample.unix_secs as i64);
        ctx.reply.integer(sample.ms as i64);
    }
    Ok(Outcome::Done)
}

fn latest(ctx: &mut Context<'_>) -> Result<Outcome, ClientError> {
    let events = ctx.node.latency.latest();
    ctx.reply.array(events.len());
    for latest in events {
        ctx.reply.array(4);
        ctx.reply.bulk(latest.event.as_bytes());
        ctx.reply.integer(latest.sample.unix_secs as i64);
        ctx.reply.integer(latest.sample.ms as i64);
        ctx.reply.integer(latest.worst_ms as i64);
    }
    Ok(Outcome::Done)
}

fn reset(ctx: &mut Context<'_>) -> Result<Outcome, ClientError> {
    let request = ctx.request;
    let names_all = request.len() == 2;
    let count = ctx.node.latency.reset(|event| names_all || request.iter().skip(2).any(|name| name == event));
    ctx.reply.integer(count as i64);
    Ok(Outcome::Done)
}

fn graph(ctx: &mut Context<'_>) -> Result<Outcome, ClientError> {
    let event = ctx.request.arg(2);
    let graph = ctx
        .node
        .latency
        .graph(event, ctx.now.unix.secs())
        .ok_or_else(|| ClientError::quoting("ERR No samples available for event '", event, "'"))?;
    ctx.reply.verbatim(b"txt", graph.as_bytes());
    Ok(Outcome::Done)
}

fn doctor(ctx: &mut Context<'_>) -> Result<Outcome, ClientError> {
    let report = ctx.node.latency.doctor(ctx.settings.latency_monitor_threshold_ms);
    ctx.reply.verbatim(b"txt", report.as_bytes());
    Ok(Outcome::Done)
}

#[cfg(test)]
mod tests {
    use super::super::harness::Harness;

    #[test]
    fn nothing_is_recorded_while_the_threshold_is_zero() {
        let mut harness = Harness::new();
        harness.run("INCR a");
        harness.spend(5_000_000_000);
        assert_eq!(harness.run("LATENCY LATEST"), "*0|");
        assert_eq!(harness.run("LATENCY RESET"), ":0|");
    }

    #[test]
    fn a_slow_command_is_recorded_under_its_kind() {
        let mut harness = Harness::new();
        harness.run("CONFIG SET latency-monitor-threshold 100");
        for (command, ms) in [("DEBUG DIGEST", 150), ("INCR a", 99), ("INCR a", 100)] {
            harness.run(command);
            harness.spend(ms * 1_000_000);
        }
        let secs = harness.now.unix.secs();
        assert_eq!(
            harness.run("LATENCY LATEST"),
            format!(
                "*2|*4|$7|command|:{secs}|:150|:150|\
                 *4|$12|fast-command|:{secs}|:100|:100|"
            )
        );
        assert_eq!(harness.run("LATENCY HISTORY command"), format!("*1|*2|:{secs}|:150|"));
        assert_eq!(harness.run("LATENCY RESET nosuch command"), ":1|");
        assert_eq!(harness.run("LATENCY HISTORY command"), "*0|");
    }

    #[test]
    fn wrong_words_are_a_syntax_error() {
        let mut harness = Harness::new();
        for line in ["LATENCY FOO", "LATENCY HISTORY", "LATENCY LATEST a", "LATENCY GRAPH"] {
            assert_eq!(harness.run(line), "-ERR syntax error|", "{line}");
        }
        assert_eq!(harness.run("LATENCY GRAPH command"), "-ERR No samples available for event 'command'|");
    }
}
