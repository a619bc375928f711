//! CONFIG: settings at run time.

use super::server::help;
use crate::command::ArgKind::{Block, Pattern, String};
use crate::command::Flag::{Admin, Loading, Readonly};
use crate::command::{Arg, CommandSpec, Context, Group, Outcome, Run, Task};
use crate::error::ClientError;
use crate::settings::{config_get, config_set};

pub(super) const COMMANDS: &[CommandSpec] = &[CommandSpec {
    name: "config",
    summary: "Reads and changes settings.",
    since: "1.0.0",
    group: Group::Server,
    flags: &[Readonly, Admin],
    arguments: &[],
    subcommands: SUBCOMMANDS,
    run: refuse,
}];

const SUBCOMMANDS: &[CommandSpec] = &[
    CommandSpec {
        // Clients ask at connect, and operators ask a node that takes long to start.
        flags: &[Readonly, Admin, Loading],
        ..subcommand(
            "get",
            "Answers the settings whose names match a glob.",
            &[Arg::new("pattern", Pattern).multiple()],
            get,
        )
    },
    subcommand(
        "set",
        "Changes settings, all of them or none.",
        &[Arg::new("setting", Block(&[Arg::new("name", String), Arg::new("value", String)])).multiple()],
        set,
    ),
    subcommand("resetstat", "Sets the counts of INFO stats and commandstats to zero.", &[], |ctx| {
        ctx.node.stats.reset();
        ctx.reply.status("OK");
        Ok(Outcome::Done)
    }),
    subcommand("rewrite", "Writes the settings in force into the configuration file.", &[], |_| {
        Ok(Outcome::Wait(Task::RewriteConfig))
    }),
    subcommand("help", "Lists the subcommands.", &[], |ctx| help(ctx, "config")),
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
        flags: &[Readonly, Admin],
        arguments,
        subcommands: &[],
        run,
    }
}

/// An unknown subcommand, or a known one with the wrong number of arguments.
fn refuse(ctx: &mut Context<'_>) -> Result<Outcome, ClientError> {
    let asked = ctx.request.arg(1);
    if SUBCOMMANDS.iter().any(|sub| asked.eq_ignore_ascii_case(sub.name.as_bytes())) {
        return Err(ClientError::quoting("ERR Wrong number of arguments for CONFIG ", asked, ""));
    }
    Err(ClientError::text("ERR CONFIG subcommand must be one of GET, SET, RESETSTAT, REWRITE"))
}

fn get(ctx: &mut Context<'_>) -> Result<Outcome, ClientError> {
    let patterns: Vec<&[u8]> = ctx.request.iter().skip(2).collect();
    let found = config_get(ctx.settings, &patterns);
    ctx.reply.map(found.len());
    for (name, value) in found {
        ctx.reply.bulk(name.as_bytes());
        ctx.reply.bulk(&value);
    }
    Ok(Outcome::Done)
}

fn set(ctx: &mut Context<'_>) -> Result<Outcome, ClientError> {
    let words: Vec<&[u8]> = ctx.request.iter().skip(2).collect();
    if words.len() % 2 == 1 {
        return refuse(ctx);
    }
    let pairs: Vec<(&[u8], &[u8])> = words.chunks_exact(2).map(|pair| (pair[0], pair[1])).collect();
    ctx.node
        .edit_settings(|settings| config_set(settings, &pairs).map_err(|error| error.to_string()))
        .map_err(|error| ClientError::text(format!("ERR {error}")))?;
    ctx.reply.status("OK");
    Ok(Outcome::SettingsChanged)
}

#[cfg(test)]
mod tests {
    use super::super::harness::Harness;

    #[test]
    fn what_was_set_is_in_force_and_shown() {
        let mut harness = Harness::new();
        assert_eq!(harness.run("CONFIG SET TIMEOUT 7 hz 20"), "+OK|");
        assert_eq!(harness.run("CONFIG GET timeout"), "*2|$7|timeout|$1|7|");
        assert_eq!(harness.run("CONFIG GET h?"), "*2|$2|hz|$2|20|");
        assert_eq!(harness.node.settings().timeout_secs, 7);
    }

    #[test]
    fn a_refused_value_changes_nothing() {
        let mut harness = Harness::new();
        let error = "-ERR Invalid argument 'x' for CONFIG SET 'hz'|";
        assert_eq!(harness.run("CONFIG SET timeout 7 hz x"), error);
        assert_eq!(harness.run("CONFIG SET port 1"), "-ERR Unsupported CONFIG parameter: port|");
        assert_eq!(harness.node.settings().timeout_secs, 0);
    }

    #[test]
    fn the_number_of_arguments_is_checked_per_subcommand() {
        let mut harness = Harness::new();
        for (line, word) in [
            ("CONFIG GET", "GET"),
            ("CONFIG set a", "set"),
            ("CONFIG SET a b c", "SET"),
            ("CONFIG REWRITE a", "REWRITE"),
        ] {
            let error = format!("-ERR Wrong number of arguments for CONFIG {word}|");
            assert_eq!(harness.run(line), error, "{line}");
        }
        let error = "-ERR CONFIG subcommand must be one of GET, SET, RESETSTAT, REWRITE|";
        assert_eq!(harness.run("CONFIG FOO"), error);
    }

    #[test]
    fn a_limit_of_memory_holds_from_the_next_command_on_and_is_told_first() {
        const OOM: &str = "-OOM command not allowed when used memory > 'maxmemory'.|";
        let mut harness = Harness::new();
        let subscriber = harness.connect();
        harness.node.note_used_memory(1_000);
        harness.run("INCR there");
        harness.run_on(subscriber, "SUBSCRIBE there");
        assert_eq!(harness.run("CONFIG SET maxmemory 1000"), "+OK|");
        assert_eq!((harness.run("INCR new").as_str(), harness.run("INCR there").as_str()), (OOM, "$1|2|"));
        assert_eq!(harness.run_on(subscriber, "INCR there"), OOM);
        assert!(harness.run_on(subscriber, "GET there").starts_with("-ERR only SUBSCRIBE"));
        assert_eq!(harness.run("CONFIG SET maxmemory 0"), "+OK|");
        assert_eq!(harness.run("INCR new"), "$1|1|");
        assert!(harness.run_on(subscriber, "INCR there").starts_with("-ERR only SUBSCRIBE"));
    }

    #[test]
    fn a_new_default_precision_holds_for_new_counters() {
        let mut harness = Harness::new();
        harness.run("CONFIG SET default-precision 0.25");
        assert_eq!(harness.run("PRECISION a"), "$4|0.25|");
    }
}
