//! The node as a whole: TIME, MONITOR, SAVE, BGSAVE, LASTSAVE, SHUTDOWN; and the HELP of containers.

use crate::command::ArgKind::OneOf;
use crate::command::Flag::{Admin, Fast, Loading, Readonly};
use crate::command::{Arg, ArgKind, CommandSpec, Context, Group, Outcome, SaveOnExit, Task};
use crate::error::ClientError;
use std::fmt::Write;

pub(super) const COMMANDS: &[CommandSpec] = &[
    CommandSpec {
        name: "time",
        summary: "Answers the node's wall clock: seconds since 1970, and microseconds within the second.",
        since: "1.0.0",
        group: Group::Server,
        flags: &[Readonly, Fast],
        arguments: &[],
        subcommands: &[],
        run: time,
    },
    CommandSpec {
        name: "monitor",
        summary: "Shows every command that the node executes, passwords left out, until the connection ends.",
        since: "1.0.0",
        group: Group::Server,
        flags: &[Readonly, Admin],
        arguments: &[],
        subcommands: &[],
        run: |ctx| {
            ctx.node.clients.add_monitor(&ctx.session.client);
            ctx.reply.status("OK");
            Ok(Outcome::Done)
        },
    },
    CommandSpec {
        name: "save",
        summary: "Writes a snapshot and answers when it is on the disk.",
        since: "1.0.0",
        group: Group::Server,
        flags: &[Readonly, Admin],
        arguments: &[],
        subcommands: &[],
        run: |_| Ok(Outcome::Wait(Task::Save)),
    },
    CommandSpec {
        name: "bgsave",
        summary: "Starts to write a snapshot and answers at once.",
        since: "1.0.0",
        group: Group::Server,
        flags: &[Readonly, Admin],
        arguments: &[],
        subcommands: &[],
        run: |_| Ok(Outcome::Wait(Task::SaveInBackground)),
    },
    CommandSpec {
        name: "lastsave",
        summary: "Answers when the last good snapshot was written, or else the node started: seconds since 1970.",
        since: "1.0.0",
        group: Group::Server,
        flags: &[Readonly, Fast],
        arguments: &[],
        subcommands: &[],
        run: |ctx| {
            ctx.reply.integer(ctx.node.save_status().saved_at_unix.secs() as i64);
            Ok(Outcome::Done)
        },
    },
    CommandSpec {
        name: "shutdown",
        summary: "Ends the node; without a word it saves if save points are configured. No reply unless refused.",
        since: "1.0.0",
        group: Group::Server,
        flags: &[Readonly, Admin, Loading],
        arguments: &[
            Arg::new("save", OneOf(&[Arg::word("save", "SAVE"), Arg::word("nosave", "NOSAVE")])).optional(),
            Arg::word("now", "NOW").optional(),
            Arg::word("force", "FORCE").optional(),
            Arg::word("abort", "ABORT").optional(),
        ],
        subcommands: &[],
        run: shutdown,
    },
];

fn time(ctx: &mut Context<'_>) -> Result<Outcome, ClientError> {
    let unix = ctx.now.unix;
    ctx.reply.array(2);
    ctx.reply.bulk(unix.secs().to_string().as_bytes());
    ctx.reply.bulk((unix.0 % 1_000_000).to_string().as_bytes());
    Ok(Outcome::Done)
}

/// NOW and FORCE are taken and mean nothing here: nothing delays the end but the save, and there are no replicas.
fn shutdown(ctx: &mut Context<'_>) -> Result<Outcome, ClientError> {
    let (mut save, mut is_abort) = (None, false);
    for word in ctx.request.iter().skip(1) {
        let is = |expected: &[u8]| word.eq_ignore_ascii_case(expected);
        let asked = if is(b"SAVE") { Some(SaveOnExit::Yes) } else { is(b"NOSAVE").then_some(SaveOnExit::No) };
        match asked {
            Some(asked) if save.is_none_or(|earlier| earlier == asked) => save = Some(asked),
            Some(_) => return Err(ClientError::Syntax),
            None if is(b"ABORT") => is_abort = true,
            None if is(b"NOW") || is(b"FORCE") => {}
            None => return Err(ClientError::Syntax),
        }
    }
    if is_abort {
        let is_alone = ctx.request.len() == 2;
        return Err(if is_alone {
            ClientError::text("ERR No shutdown in progress.")
        } else {
            ClientError::Syntax
        });
    }
    Ok(Outcome::Wait(Task::Shutdown(save.unwrap_or(SaveOnExit::AsConfigured))))
}

/// Answers the subcommands of a container: a line with the arguments and one with the summary for each.
pub(super) fn help(ctx: &mut Context<'_>, container: &str) -> Result<Outcome, ClientError> {
    let container = super::all().find(|spec| spec.name == container).expect("containers ask for themselves");
    let name = container.name.to_ascii_uppercase();
    ctx.reply.array(1 + 2 * container.subcommands.len());
    ctx.reply.status(&format!("{name} <subcommand> [<arg> ...]. Subcommands are:"));
    for sub in container.subcommands {
        let mut usage = sub.name.to_ascii_uppercase();
        sub.arguments.iter().for_each(|arg| push_usage(arg, &mut usage));
        ctx.reply.status(&usage);
        ctx.reply.status(&format!("    {}", sub.summary));
    }
    Ok(Outcome::Done)
}

/// ` <name>`, ` [<name> ...]` and the like.
fn push_usage(arg: &Arg, usage: &mut String) {
    let mut text = String::new();
    if let Some(token) = arg.token {
        text.push_str(token);
    }
    match arg.kind {
        ArgKind::PureToken => {}
        ArgKind::Block(parts) => parts.iter().for_each(|part| push_usage(part, &mut text)),
        OneOf(_) | ArgKind::Key | ArgKind::String | ArgKind::Integer | ArgKind::Double | ArgKind::Pattern => {
            write!(text, " <{}>", arg.name).expect("writing to a string does not fail");
        }
    }
    let text = text.trim_start();
    let text = if arg.is_multiple { format!("{text} [{text} ...]") } else { text.to_owned() };
    let text = if arg.is_optional { format!("[{text}]") } else { text };
    usage.push(' ');
    usage.push_str(&text);
}

#[cfg(test)]
mod tests {
    use super::super::harness::Harness;
    use crate::command::{Outcome, SaveOnExit, Task};

    #[test]
    fn time_is_the_wall_clock() {
        let mut harness = Harness::new();
        harness.now.unix.0 = 1_795_354_504_000_042;
        assert_eq!(harness.run("TIME"), "*2|$10|1795354504|$2|42|");
    }

    #[test]
    fn monitor_twice_is_answered_twice() {
        let mut harness = Harness::new();
        assert_eq!(harness.run("MONITOR"), "+OK|");
        let second = harness.run("MONITOR");
        assert!(second.ends_with(" [127.0.0.1:4242] \"MONITOR\"|+OK|"), "{second}");
    }

    #[test]
    fn a_monitor_sees_its_own_failing_command() {
        let mut harness = Harness::new();
        harness.run("MONITOR");
        let reply = harness.run("INCRBY a abc");
        assert!(reply.ends_with("\"INCRBY\" \"a\" \"abc\"|-ERR value is not a valid float|"), "{reply}");
    }

    #[test]
    fn shutdown_says_nothing_and_passes_on_whether_to_save() {
        let mut harness = Harness::new();
        for (line, save) in [
            ("SHUTDOWN", SaveOnExit::AsConfigured),
            ("shutdown nosave", SaveOnExit::No),
            ("SHUTDOWN SAVE NOW FORCE", SaveOnExit::Yes),
        ] {
            let words: Vec<&[u8]> = line.split(' ').map(str::as_bytes).collect();
            let expected = (String::new(), Outcome::Wait(Task::Shutdown(save)));
            assert_eq!(harness.request(0, &words), expected, "{line}");
        }
        for line in ["SHUTDOWN foo", "SHUTDOWN SAVE NOSAVE", "SHUTDOWN NOW ABORT"] {
            assert_eq!(harness.run(line), "-ERR syntax error|", "{line}");
        }
        assert_eq!(harness.run("SHUTDOWN ABORT"), "-ERR No shutdown in progress.|");
    }

    #[test]
    fn lastsave_is_the_start_until_something_was_saved() {
        let mut harness = Harness::new();
        let started = harness.now.unix.secs();
        harness.now.unix.0 += 5_000_000;
        assert_eq!(harness.run("LASTSAVE"), format!(":{started}|"));
    }

    #[test]
    fn help_shows_arguments_and_summaries() {
        let mut harness = Harness::new();
        let help = harness.run("CONFIG HELP");
        assert!(help.contains("+GET <pattern> [<pattern> ...]|+    Answers the settings"), "{help}");
        assert!(help.contains("+SET <name> <value> [<name> <value> ...]|"), "{help}");
        assert!(harness.run("DEBUG HELP").contains("+POPULATE <count> [<prefix>]|"));
    }
}
