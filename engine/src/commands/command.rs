//! COMMAND: what the commands are, as programs ask for it. Everything derives from the table.

use crate::command::ArgKind::{self, OneOf};
use crate::command::Flag::{Loading, Readonly};
use crate::command::{Arg, CommandSpec, Context, Flag, Group, Outcome};
use crate::commands;
use crate::error::ClientError;
use crate::glob::{Case, Glob};
use resp::{Protocol, ReplyWriter};

const NAMES: Arg = Arg::new("command-name", ArgKind::String).optional().multiple();

pub(super) const COMMANDS: &[CommandSpec] = &[CommandSpec {
    name: "command",
    summary: "Describes every command.",
    since: "1.0.0",
    group: Group::Server,
    flags: &[Readonly, Loading],
    arguments: &[Arg::new("subcommand", ArgKind::String).optional()],
    subcommands: SUBCOMMANDS,
    run: |ctx| {
        if ctx.request.len() > 1 {
            return Err(ClientError::text("ERR Unknown subcommand or wrong number of arguments."));
        }
        let commands = ctx.node.commands().iter();
        ctx.reply.array(commands.len());
        commands.for_each(|(_, spec)| reply_info(&mut ctx.reply, spec, None));
        Ok(Outcome::Done)
    },
}];

/// A subcommand of COMMAND.
const fn sub(
    name: &'static str,
    since: &'static str,
    summary: &'static str,
    arguments: &'static [Arg],
    run: crate::command::Run,
) -> CommandSpec {
    let flags = &[Readonly, Loading];
    CommandSpec { name, summary, since, group: Group::Server, flags, arguments, subcommands: &[], run }
}

const SUBCOMMANDS: &[CommandSpec] = &[
    sub("count", "1.0.0", "Answers how many commands there are.", &[], |ctx| {
        ctx.reply.integer(ctx.node.commands().iter().len() as i64);
        Ok(Outcome::Done)
    }),
    sub(
        "info",
        "1.0.0",
        "Describes the named commands: arity, flags, where names of counters stand.",
        &[NAMES],
        info,
    ),
    sub("docs", "2.0.0", "Documents the named commands, or all, for people.", &[NAMES], docs),
    sub(
        "list",
        "2.0.0",
        "Answers the names of all commands, or of those that fit.",
        &[Arg::new(
            "filterby",
            OneOf(&[
                Arg::new("module-name", ArgKind::String).after("MODULE"),
                Arg::new("category", ArgKind::String).after("ACLCAT"),
                Arg::new("pattern", ArgKind::Pattern).after("PATTERN"),
            ]),
        )
        .after("FILTERBY")
        .optional()],
        list,
    ),
    sub(
        "getkeys",
        "2.0.0",
        "Answers the names of counters in a command.",
        &[Arg::new("command", ArgKind::String), Arg::new("arg", ArgKind::String).optional().multiple()],
        get_keys,
    ),
    sub("help", "2.0.0", "Answers what the subcommands are.", &[], |ctx| {
        help(ctx, "command");
        Ok(Outcome::Done)
    }),
];

/// The command of this name on this node; `container|subcommand` names a subcommand, of the container that is
/// answered too.
fn find(ctx: &Context<'_>, name: &[u8]) -> Option<(&'static CommandSpec, Option<&'static CommandSpec>)> {
    let mut parts = name.splitn(2, |&byte| byte == b'|');
    let spec = ctx.node.commands().find(parts.next()?)?.spec;
    let Some(wanted) = parts.next() else { return Some((spec, None)) };
    let sub = spec.subcommands.iter().find(|sub| wanted.eq_ignore_ascii_case(sub.name.as_bytes()))?;
    Some((sub, Some(spec)))
}

/// A command's name; a subcommand's with its container's: `client|list`.
fn full_name(spec: &CommandSpec, container: Option<&CommandSpec>) -> String {
    match container {
        Some(container) => format!("{}|{}", container.name, spec.name),
        None => spec.name.to_owned(),
    }
}

fn info(ctx: &mut Context<'_>) -> Result<Outcome, ClientError> {
    ctx.reply.array(ctx.request.len() - 2);
    for name in ctx.request.iter().skip(2) {
        match find(ctx, name) {
            Some((spec, container)) => reply_info(&mut ctx.reply, spec, container),
            None => ctx.reply.null(),
        }
    }
    Ok(Outcome::Done)
}

/// Name, arity, flags, first key, last key, step. Clients of RESP3 expect what Redis 7 has behind these, too:
/// categories and tips (there are none), key specifications and subcommands.
fn reply_info(reply: &mut ReplyWriter<'_>, spec: &CommandSpec, container: Option<&CommandSpec>) {
    let is_long = reply.protocol() == Protocol::Resp3;
    let in_container = i64::from(container.is_some());
    reply.array(if is_long { 10 } else { 6 });
    reply.bulk(full_name(spec, container).as_bytes());
    reply.integer(spec.arity() + in_container * spec.arity().signum());
    let flags = || spec.flags.iter().filter_map(|flag: &Flag| flag.name());
    reply.set(flags().count());
    flags().for_each(|name| reply.status(name));
    let (first, last, step) = spec.key_positions();
    let offset = if first > 0 { in_container } else { 0 };
    reply.integer(first + offset);
    reply.integer(if last > 0 { last + offset } else { last });
    reply.integer(step);
    if is_long {
        reply.set(0);
        reply.set(0);
        reply_key_specification(reply, spec, first + offset, last);
        reply.array(spec.subcommands.len());
        spec.subcommands.iter().for_each(|sub| reply_info(reply, sub, Some(spec)));
    }
}

/// The positions of names once more, as Redis 7 writes them: clients that read them look at nothing else.
fn reply_key_specification(reply: &mut ReplyWriter<'_>, spec: &CommandSpec, first: i64, last: i64) {
    if first == 0 {
        return reply.array(0);
    }
    let (access, purpose) = if spec.has(Flag::Write) { ("RW", "UPDATE") } else { ("RO", "ACCESS") };
    reply.array(1);
    reply.map(3);
    reply.bulk(b"flags");
    reply.set(2);
    reply.status(access);
    reply.status(purpose);
    reply.bulk(b"begin_search");
    reply_search(reply, "index", &[("index", first)]);
    reply.bulk(b"find_keys");
    let last_from_first = if last < 0 { -1 } else { 0 };
    reply_search(reply, "range", &[("lastkey", last_from_first), ("keystep", 1), ("limit", 0)]);
}

fn reply_search(reply: &mut ReplyWriter<'_>, kind: &str, numbers: &[(&str, i64)]) {
    reply.map(2);
    reply.bulk(b"type");
    reply.bulk(kind.as_bytes());
    reply.bulk(b"spec");
    reply.map(numbers.len());
    for (key, number) in numbers {
        reply.bulk(key.as_bytes());
        reply.integer(*number);
    }
}

fn docs(ctx: &mut Context<'_>) -> Result<Outcome, ClientError> {
    let mut found: Vec<(Vec<u8>, &CommandSpec)> = Vec::new();
    if ctx.request.len() > 2 {
        for name in ctx.request.iter().skip(2) {
            if let Some((spec, _)) = find(ctx, name) {
                found.push((name.to_ascii_lowercase(), spec));
            }
        }
    } else {
        found.extend(ctx.node.commands().iter().map(|(name, spec)| (name.to_vec(), spec)));
    }
    ctx.reply.map(found.len());
    for (name, spec) in found {
        ctx.reply.bulk(&name);
        reply_docs(&mut ctx.reply, spec);
    }
    Ok(Outcome::Done)
}

/// What Redis answers: summary, since, group, arguments, subcommands.
fn reply_docs(reply: &mut ReplyWriter<'_>, spec: &CommandSpec) {
    let has_arguments = !spec.arguments.is_empty() && spec.subcommands.is_empty();
    let has_subcommands = !spec.subcommands.is_empty();
    reply.map(3 + usize::from(has_arguments) + usize::from(has_subcommands));
    for (key, value) in [("summary", spec.summary), ("since", spec.since), ("group", spec.group.name())] {
        reply.bulk(key.as_bytes());
        reply.bulk(value.as_bytes());
    }
    if has_arguments {
        reply.bulk(b"arguments");
        reply_arguments(reply, spec.arguments);
    }
    if has_subcommands {
        reply.bulk(b"subcommands");
        reply.map(spec.subcommands.len());
        for sub in spec.subcommands {
            reply.bulk(full_name(sub, Some(spec)).as_bytes());
            reply_docs(reply, sub);
        }
    }
}

fn reply_arguments(reply: &mut ReplyWriter<'_>, arguments: &[Arg]) {
    reply.array(arguments.len());
    for arg in arguments {
        let (kind, parts): (_, &[Arg]) = match arg.kind {
            ArgKind::Key => ("key", &[]),
            ArgKind::String => ("string", &[]),
            ArgKind::Integer => ("integer", &[]),
            ArgKind::Double => ("double", &[]),
            ArgKind::Pattern => ("pattern", &[]),
            ArgKind::PureToken => ("pure-token", &[]),
            OneOf(parts) => ("oneof", parts),
            ArgKind::Block(parts) => ("block", parts),
        };
        let flags = || {
            [(arg.is_optional, "optional"), (arg.is_multiple, "multiple")].into_iter().filter(|(is, _)| *is)
        };
        let has_flags = flags().count() > 0;
        reply.map(
            2 + usize::from(arg.token.is_some()) + usize::from(has_flags) + usize::from(!parts.is_empty()),
        );
        reply.bulk(b"name");
        reply.bulk(arg.name.as_bytes());
        reply.bulk(b"type");
        reply.bulk(kind.as_bytes());
        if let Some(token) = arg.token {
            reply.bulk(b"token");
            reply.bulk(token.as_bytes());
        }
        if has_flags {
            reply.bulk(b"flags");
            reply.set(flags().count());
            flags().for_each(|(_, name)| reply.status(name));
        }
        if !parts.is_empty() {
            reply.bulk(b"arguments");
            reply_arguments(reply, parts);
        }
    }
}

fn list(ctx: &mut Context<'_>) -> Result<Outcome, ClientError> {
    let request = ctx.request;
    let filter = match request.len() {
        2 => None,
        5 if request.arg(2).eq_ignore_ascii_case(b"FILTERBY") => Some((request.arg(3), request.arg(4))),
        _ => return Err(ClientError::Syntax),
    };
    let mut names: Vec<&[u8]> = ctx.node.commands().iter().map(|(name, _)| name).collect();
    match filter {
        None => {}
        Some((by, pattern)) if by.eq_ignore_ascii_case(b"PATTERN") => {
            let glob = Glob::new(pattern, Case::Ignored)?;
            names.retain(|name| glob.is_match(name));
        }
        // There are neither modules nor categories, so nothing belongs to one.
        Some((by, _)) if by.eq_ignore_ascii_case(b"MODULE") || by.eq_ignore_ascii_case(b"ACLCAT") => {
            names.clear()
        }
        Some(_) => return Err(ClientError::Syntax),
    }
    ctx.reply.array(names.len());
    names.iter().for_each(|name| ctx.reply.bulk(name));
    Ok(Outcome::Done)
}

fn get_keys(ctx: &mut Context<'_>) -> Result<Outcome, ClientError> {
    let words: Vec<&[u8]> = ctx.request.iter().skip(2).collect();
    let (mut spec, _) = find(ctx, words[0]).ok_or(ClientError::text("ERR Invalid command specified"))?;
    let mut words = &words[..];
    if let Some(asked) = words.get(1)
        && let Some(sub) = spec.subcommands.iter().find(|sub| asked.eq_ignore_ascii_case(sub.name.as_bytes()))
    {
        (spec, words) = (sub, &words[1..]);
    }
    let (first, last, step) = spec.key_positions();
    if first == 0 {
        return Err(ClientError::text("ERR The command has no key arguments"));
    }
    if !spec.accepts(words.len()) {
        return Err(ClientError::text("ERR Invalid number of arguments specified for command"));
    }
    let end = if last < 0 { words.len() } else { words.len().min(last as usize + 1) };
    let names: Vec<&[u8]> =
        words[..end].iter().skip(first as usize).step_by(step as usize).copied().collect();
    ctx.reply.array(names.len());
    names.iter().for_each(|name| ctx.reply.bulk(name));
    Ok(Outcome::Done)
}

/// Writes what the subcommands of a container are: a line each with its arguments, and one with its summary.
pub(super) fn help(ctx: &mut Context<'_>, container: &str) {
    let spec = commands::all().find(|spec| spec.name == container).expect("containers name themselves");
    let container = container.to_ascii_uppercase();
    ctx.reply.array(1 + 2 * spec.subcommands.len());
    ctx.reply.status(&format!("{container} <subcommand> [<arg> [value] [opt] ...]. Subcommands are:"));
    for sub in spec.subcommands {
        let mut line = sub.name.to_ascii_uppercase();
        for arg in sub.arguments {
            line.push_str(&format!(" {arg}"));
        }
        ctx.reply.status(&line);
        ctx.reply.status(&format!("    {}", sub.summary));
    }
}

#[cfg(test)]
mod tests {
    use crate::commands;
    use crate::commands::harness::{Harness, all_specs};
    use crate::settings::{RenamedCommand, Settings};

    /// Arities of the original's commands, recorded. Differences on purpose: `auth` (-2, was 2) takes a user, `hello`
    /// (-1, was 1) a protocol, `decr` (2, was 3) no second argument, `command` (-1, was 0) has a name at least.
    const RECORDED_ARITIES: &[(&str, i64)] = &[
        ("auth", -2),
        ("bgsave", 1),
        ("client", -2),
        ("cluster", -2),
        ("command", -1),
        ("config", -2),
        ("debug", -2),
        ("decr", 2),
        ("decrby", 3),
        ("exists", -2),
        ("get", -2),
        ("hello", -1),
        ("incr", 2),
        ("incrby", 3),
        ("incrbyfloat", 3),
        ("info", -1),
        ("isubscribe", -3),
        ("keys", 2),
        ("lastsave", 1),
        ("latency", -2),
        ("mget", -2),
        ("mincrby", -3),
        ("monitor", 1),
        ("ping", -1),
        ("precision", -2),
        ("save", 1),
        ("set", 3),
        ("shutdown", -1),
        ("subscribe", -2),
        ("time", 1),
        ("unsubscribe", -1),
    ];

    #[test]
    fn arities_agree_with_the_recorded_ones() {
        for spec in commands::all() {
            if let Some((_, arity)) = RECORDED_ARITIES.iter().find(|(name, _)| *name == spec.name) {
                assert_eq!(spec.arity(), *arity, "{}", spec.name);
            }
        }
    }

    #[test]
    fn every_command_is_described() {
        for (name, spec) in all_specs() {
            assert!(
                spec.summary.ends_with('.') && !spec.summary.starts_with(' '),
                "{name}: {:?}",
                spec.summary
            );
            assert!(
                spec.since.split('.').count() == 3 && spec.since.split('.').all(|n| n.parse::<u8>().is_ok()),
                "{name}"
            );
            assert_eq!(spec.name, spec.name.to_ascii_lowercase());
            assert!(!spec.arguments.iter().any(|arg| arg.name.is_empty()), "{name}");
        }
    }

    #[test]
    fn names_stand_once_and_fit_the_counts() {
        let mut names: Vec<String> = all_specs().into_iter().map(|(name, _)| name).collect();
        names.sort();
        let len = names.len();
        names.dedup();
        assert_eq!(names.len(), len);
        assert!(commands::all().count() <= crate::stats::MAX_COMMANDS);
    }

    #[test]
    fn info_has_the_recorded_shape_over_resp2() {
        let mut harness = Harness::new();
        assert_eq!(harness.run("COMMAND INFO set"), "*1|*6|$3|set|:3|*3|+write|+denyoom|+fast|:1|:1|:1|");
        assert_eq!(harness.run("COMMAND INFO MGET"), "*1|*6|$4|mget|:-2|*1|+readonly|:1|:-1|:1|");
        assert_eq!(
            harness.run("COMMAND INFO subscribe"),
            "*1|*6|$9|subscribe|:-2|*3|+readonly|+pubsub|+loading|:1|:-1|:1|"
        );
        assert_eq!(harness.run("COMMAND INFO nosuch quit"), "*2|$-1|$-1|");
        assert_eq!(harness.run("COMMAND INFO"), "*0|");
        assert_eq!(
            harness.run("COMMAND INFO client|setname client|no"),
            "*2|*6|$14|client|setname|:3|*2|+readonly|+loading|:0|:0|:0|$-1|"
        );
    }

    #[test]
    fn info_has_the_shape_of_redis_over_resp3() {
        let mut harness = Harness::new();
        harness.run("HELLO 3");
        assert_eq!(
            harness.run("COMMAND INFO get nosuch"),
            "*2|*10|$3|get|:-2|~2|+readonly|+fast|:1|:1|:1|~0|~0|*1|%3|$5|flags|~2|+RO|+ACCESS|\
             $12|begin_search|%2|$4|type|$5|index|$4|spec|%1|$5|index|:1|\
             $9|find_keys|%2|$4|type|$5|range|$4|spec|%3|$7|lastkey|:0|$7|keystep|:1|$5|limit|:0|*0|_|"
        );
    }

    #[test]
    fn command_alone_lists_as_many_as_it_counts() {
        let mut harness = Harness::new();
        let count = commands::all().count();
        assert_eq!(harness.run("COMMAND COUNT"), format!(":{count}|"));
        assert!(harness.run("COMMAND").starts_with(&format!("*{count}|*6|")));
        let refusal = "-ERR Unknown subcommand or wrong number of arguments.|";
        assert_eq!(harness.run("COMMAND NOSUCH"), refusal);
        assert_eq!(harness.run("COMMAND COUNT x"), refusal);
    }

    #[test]
    fn docs_describe_arguments_and_subcommands() {
        let mut harness = Harness::new();
        assert_eq!(
            harness.run("COMMAND DOCS MGET nosuch"),
            "*2|$4|mget|*8|$7|summary|$39|Answers the values of several counters.|$5|since|$5|1.0.0|$5|group|$7|counter|\
             $9|arguments|*1|*6|$4|name|$4|name|$4|type|$3|key|$5|flags|*1|+multiple|"
        );
        let docs = harness.run("COMMAND DOCS client");
        assert!(docs.contains("$11|subcommands|") && docs.contains("$14|client|setname|"), "{docs}");
        assert!(harness.run("COMMAND DOCS").starts_with(&format!("*{}|", 2 * commands::all().count())));
    }

    #[test]
    fn list_filters_by_pattern() {
        let mut harness = Harness::new();
        assert_eq!(harness.run("COMMAND LIST FILTERBY PATTERN *INCRBY"), "*2|$6|incrby|$7|mincrby|");
        assert_eq!(harness.run("COMMAND LIST FILTERBY MODULE x"), "*0|");
        assert_eq!(harness.run("COMMAND LIST FILTERBY x y"), "-ERR syntax error|");
        assert!(harness.run("COMMAND LIST").starts_with(&format!("*{}|", commands::all().count())));
    }

    #[test]
    fn getkeys_finds_the_names_of_counters() {
        let mut harness = Harness::new();
        assert_eq!(harness.run("COMMAND GETKEYS GET a"), "*1|$1|a|");
        assert_eq!(harness.run("COMMAND GETKEYS MINCRBY 5 a b"), "*2|$1|a|$1|b|");
        assert_eq!(harness.run("COMMAND GETKEYS PING"), "-ERR The command has no key arguments|");
        assert_eq!(harness.run("COMMAND GETKEYS NOSUCH a"), "-ERR Invalid command specified|");
        assert_eq!(
            harness.run("COMMAND GETKEYS SET a"),
            "-ERR Invalid number of arguments specified for command|"
        );
        assert_eq!(harness.run("COMMAND GETKEYS"), "-ERR Unknown subcommand or wrong number of arguments.|");
    }

    #[test]
    fn a_renamed_command_is_found_by_its_new_name_and_shows_its_own() {
        let renamed =
            |command: &str, name: &str| RenamedCommand { command: command.into(), name: name.into() };
        let mut harness = Harness::with(Settings {
            rename_command: vec![renamed("GET", "fetch"), renamed("KEYS", "")],
            ..Settings::default()
        });
        assert_eq!(harness.run("COMMAND INFO get keys"), "*2|$-1|$-1|");
        assert!(harness.run("COMMAND INFO FETCH").starts_with("*1|*6|$3|get|"));
        assert_eq!(harness.run("COMMAND COUNT"), format!(":{}|", commands::all().count() - 1));
        assert!(harness.run("COMMAND DOCS").contains("$5|fetch|"));
    }
}
