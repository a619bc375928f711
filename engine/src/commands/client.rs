//! CLIENT: who is connected, and what may be done about it.

use crate::clients::{Client, ClientKind};
use crate::command::ArgKind::{self, Integer, OneOf};
use crate::command::Flag::{Admin, Loading, Readonly};
use crate::command::{Arg, CommandSpec, Context, Flag, Group, Outcome, parse_integer};
use crate::commands::client_list::{InfoLine, list, parse_kind};
use crate::commands::command::help;
use crate::commands::connection::USER;
use crate::error::ClientError;
use crate::session::ReplyMode;
use crate::time::Micros;
use std::sync::Arc;

/// Longest name of a connection, and of a library and its version.
const MAX_CLIENT_NAME_LEN: usize = 1_024;

const ON_OFF: Arg = Arg::new("enabled", OneOf(&[Arg::word("on", "ON"), Arg::word("off", "OFF")]));

const TYPE: Arg =
    Arg::new("client-type", OneOf(&[Arg::word("normal", "NORMAL"), Arg::word("pubsub", "PUBSUB")]))
        .after("TYPE");

const KILL_FILTERS: &[Arg] = &[
    Arg::new("client-id", Integer).after("ID"),
    TYPE,
    Arg::new("ip:port", ArgKind::String).after("ADDR"),
    Arg::new("ip:port", ArgKind::String).after("LADDR"),
    Arg::new("username", ArgKind::String).after("USER"),
    Arg::new("seconds", Integer).after("MAXAGE"),
    Arg::new("skip", OneOf(&[Arg::word("yes", "YES"), Arg::word("no", "NO")])).after("SKIPME"),
];

pub(super) const COMMANDS: &[CommandSpec] = &[CommandSpec {
    name: "client",
    summary: "Tells about connections and governs them.",
    since: "1.0.0",
    group: Group::Connection,
    flags: &[Readonly, Admin],
    arguments: &[],
    subcommands: SUBCOMMANDS,
    run: |ctx| {
        if ctx.request.arg(1).eq_ignore_ascii_case(b"KILL") {
            return Err(ClientError::Syntax);
        }
        Err(wrong_words())
    },
}];

/// A subcommand of CLIENT.
const fn sub(
    name: &'static str,
    since: &'static str,
    summary: &'static str,
    flags: &'static [Flag],
    arguments: &'static [Arg],
    run: crate::command::Run,
) -> CommandSpec {
    CommandSpec { name, summary, since, group: Group::Connection, flags, arguments, subcommands: &[], run }
}

const SUBCOMMANDS: &[CommandSpec] = &[
    sub(
        "id",
        "2.0.0",
        "Answers the connection's id; no two connections of a process share one.",
        &[Readonly, Loading],
        &[],
        |ctx| {
            ctx.reply.integer(ctx.session.client.id as i64);
            Ok(Outcome::Done)
        },
    ),
    sub("getname", "1.0.0", "Answers the connection's name, or nothing.", &[Readonly, Loading], &[], |ctx| {
        let name = ctx.session.client.name.lock();
        if name.is_empty() {
            ctx.reply.null()
        } else {
            ctx.reply.bulk(&name)
        }
        Ok(Outcome::Done)
    }),
    sub(
        "setname",
        "1.0.0",
        "Names the connection; an empty name takes it away.",
        &[Readonly, Loading],
        &[Arg::new("connection-name", ArgKind::String)],
        |ctx| {
            let name = checked_name(ctx.request.arg(2))?;
            *ctx.session.client.name.lock() = name;
            ctx.reply.status("OK");
            Ok(Outcome::Done)
        },
    ),
    sub(
        "setinfo",
        "2.0.0",
        "Says which library the client uses, or its version.",
        &[Readonly, Loading],
        &[Arg::new(
            "attr",
            OneOf(&[
                Arg::new("libname", ArgKind::String).after("LIB-NAME"),
                Arg::new("libver", ArgKind::String).after("LIB-VER"),
            ]),
        )],
        set_info,
    ),
    sub(
        "info",
        "2.0.0",
        "Answers the connection's line of CLIENT LIST, and some more.",
        &[Readonly, Loading],
        &[],
        |ctx| {
            let line = format!("{}\n", InfoLine(&ctx.session.client, ctx.now.monotonic));
            ctx.reply.verbatim(b"txt", line.as_bytes());
            Ok(Outcome::Done)
        },
    ),
    sub(
        "list",
        "1.0.0",
        "Answers a line per connection.",
        &[Readonly, Admin, Loading],
        &[TYPE.optional(), Arg::new("client-id", Integer).after("ID").optional().multiple()],
        list,
    ),
    sub(
        "kill",
        "1.0.0",
        "Closes connections: that of an address, or all that fit every filter.",
        &[Readonly, Admin, Loading],
        &[Arg::new(
            "filter",
            OneOf(&[
                Arg::new("ip:port", ArgKind::String),
                Arg::new("new-format", OneOf(KILL_FILTERS)).multiple(),
            ]),
        )],
        kill,
    ),
    sub(
        "pause",
        "1.0.0",
        "Executes no command, or none that changes counters, for that many milliseconds.",
        &[Readonly, Admin, Loading],
        &[
            Arg::new("timeout", Integer),
            Arg::new("mode", OneOf(&[Arg::word("write", "WRITE"), Arg::word("all", "ALL")])).optional(),
        ],
        pause,
    ),
    sub("unpause", "2.0.0", "Ends every pause.", &[Readonly, Admin, Loading], &[], |ctx| {
        ctx.node.clients.unpause();
        ctx.reply.status("OK");
        Ok(Outcome::Done)
    }),
    sub(
        "reply",
        "1.0.0",
        "Says whether this connection gets replies; SKIP leaves out that of the next command.",
        &[Readonly, Loading],
        &[Arg::new(
            "action",
            OneOf(&[Arg::word("on", "ON"), Arg::word("off", "OFF"), Arg::word("skip", "SKIP")]),
        )],
        reply,
    ),
    sub(
        "no-evict",
        "2.0.0",
        "Accepted and without effect: no connection is closed to save memory.",
        &[Readonly, Admin, Loading],
        &[ON_OFF],
        accept_on_off,
    ),
    sub(
        "no-touch",
        "2.0.0",
        "Accepted and without effect: reading does not mark a counter.",
        &[Readonly, Loading],
        &[ON_OFF],
        accept_on_off,
    ),
    sub("help", "2.0.0", "Answers what the subcommands are.", &[Readonly, Loading], &[], |ctx| {
        help(ctx, "client");
        Ok(Outcome::Done)
    }),
];

/// The answer to an unknown subcommand and to one with a wrong number of words.
pub(super) fn wrong_words() -> ClientError {
    ClientError::text(
        "ERR Syntax error, try CLIENT (LIST | KILL ip:port | GETNAME | SETNAME connection-name)",
    )
}

/// A name that may stand in a line of CLIENT LIST: printable ASCII without blanks, not too long. Empty is fine.
pub(super) fn checked_name(name: &[u8]) -> Result<Vec<u8>, ClientError> {
    checked(name, "ERR Client names cannot contain spaces, newlines or special characters.")
}

fn checked(text: &[u8], refusal: &'static str) -> Result<Vec<u8>, ClientError> {
    if text.len() > MAX_CLIENT_NAME_LEN {
        return Err(ClientError::text(format!(
            "ERR the text has {} bytes, limit {MAX_CLIENT_NAME_LEN}",
            text.len()
        )));
    }
    if !text.iter().all(u8::is_ascii_graphic) {
        return Err(ClientError::text(refusal));
    }
    Ok(text.to_vec())
}

fn set_info(ctx: &mut Context<'_>) -> Result<Outcome, ClientError> {
    let (attribute, value) = (ctx.request.arg(2), ctx.request.arg(3));
    if attribute.eq_ignore_ascii_case(b"LIB-NAME") {
        let name = checked(value, "ERR lib-name cannot contain spaces, newlines or special characters.")?;
        ctx.session.client.library.lock().name = name;
    } else if attribute.eq_ignore_ascii_case(b"LIB-VER") {
        let version = checked(value, "ERR lib-ver cannot contain spaces, newlines or special characters.")?;
        ctx.session.client.library.lock().version = version;
    } else {
        return Err(ClientError::quoting("ERR Unrecognized option '", attribute, "'"));
    }
    ctx.reply.status("OK");
    Ok(Outcome::Done)
}

/// Which connections CLIENT KILL means; each filter that is given must fit.
struct KillFilter<'a> {
    id: Option<i64>,
    kind: Option<ClientKind>,
    addr: Option<&'a [u8]>,
    local_addr: Option<&'a [u8]>,
    is_of_nobody: bool,
    min_age: Micros,
    is_sparing_self: bool,
}

impl<'a> KillFilter<'a> {
    const ALL: KillFilter<'a> = KillFilter {
        id: None,
        kind: None,
        addr: None,
        local_addr: None,
        is_of_nobody: false,
        min_age: Micros(0),
        is_sparing_self: true,
    };

    /// The filters behind CLIENT KILL.
    fn parse(ctx: &Context<'a>) -> Result<KillFilter<'a>, ClientError> {
        let (request, mut filter) = (ctx.request, KillFilter::ALL);
        if !request.len().is_multiple_of(2) {
            return Err(ClientError::Syntax);
        }
        for position in (2..request.len()).step_by(2) {
            let (option, value) = (request.arg(position), request.arg(position + 1));
            let is = |word: &str| option.eq_ignore_ascii_case(word.as_bytes());
            if is("ID") {
                filter.id = Some(ctx.integer(position + 1)?);
            } else if is("TYPE") {
                filter.kind = Some(parse_kind(value)?);
            } else if is("ADDR") {
                filter.addr = Some(value);
            } else if is("LADDR") {
                filter.local_addr = Some(value);
            } else if is("USER") {
                filter.is_of_nobody = value != USER;
            } else if is("MAXAGE") {
                let secs =
                    u64::try_from(ctx.integer(position + 1)?).map_err(|_| ClientError::NotAnInteger)?;
                filter.min_age = Micros::from_secs(secs);
            } else if is("SKIPME") && value.eq_ignore_ascii_case(b"yes") {
                filter.is_sparing_self = true;
            } else if is("SKIPME") && value.eq_ignore_ascii_case(b"no") {
                filter.is_sparing_self = false;
            } else {
                return Err(ClientError::Syntax);
            }
        }
        Ok(filter)
    }

    fn fits(&self, client: &Client, own_id: u64, now: Micros) -> bool {
        let is_at = |wanted: &[u8], addr: String| addr.as_bytes() == wanted;
        if client.is_killed() || self.is_of_nobody || (self.is_sparing_self && client.id == own_id) {
            return false;
        }
        self.id.is_none_or(|id| u64::try_from(id) == Ok(client.id))
            && self.kind.is_none_or(|kind| client.kind() == kind)
            && self.addr.is_none_or(|addr| is_at(addr, client.peer.to_string()))
            && self.local_addr.is_none_or(|addr| is_at(addr, client.peer.local().to_owned()))
            && now.since(client.since) >= self.min_age
    }
}

fn kill(ctx: &mut Context<'_>) -> Result<Outcome, ClientError> {
    let is_old_form = ctx.request.len() == 3;
    let filter = if is_old_form {
        KillFilter { addr: Some(ctx.request.arg(2)), is_sparing_self: false, ..KillFilter::ALL }
    } else {
        KillFilter::parse(ctx)?
    };
    let own_id = ctx.session.client.id;
    let mut victims: Vec<Arc<Client>> = ctx.node.clients.all();
    victims.retain(|client| filter.fits(client, own_id, ctx.now.monotonic));
    if !is_old_form {
        ctx.reply.integer(victims.len() as i64);
    } else if victims.is_empty() {
        return Err(ClientError::text("ERR No such client"));
    } else {
        ctx.reply.status("OK");
    }
    let mut outcome = Outcome::Done;
    for victim in victims {
        if victim.id == own_id {
            outcome = Outcome::Close;
        } else {
            victim.kill();
        }
    }
    Ok(outcome)
}

fn pause(ctx: &mut Context<'_>) -> Result<Outcome, ClientError> {
    let mode = ctx.request.iter().nth(3);
    let is_writes_only = match mode {
        None => false,
        Some(word) if word.eq_ignore_ascii_case(b"ALL") => false,
        Some(word) if word.eq_ignore_ascii_case(b"WRITE") => true,
        Some(_) => return Err(wrong_words()),
    };
    if ctx.request.len() > 4 {
        return Err(wrong_words());
    }
    let ms = parse_integer(ctx.request.arg(2))
        .ok_or(ClientError::text("ERR timeout is not an integer or out of range"))?;
    let ms = u64::try_from(ms).map_err(|_| ClientError::text("ERR timeout is negative"))?;
    ctx.node.clients.pause(ctx.now.monotonic + Micros::from_millis(ms), is_writes_only);
    ctx.reply.status("OK");
    Ok(Outcome::Done)
}

fn reply(ctx: &mut Context<'_>) -> Result<Outcome, ClientError> {
    let action = ctx.request.arg(2);
    if action.eq_ignore_ascii_case(b"ON") {
        ctx.session.reply_mode = ReplyMode::On;
        ctx.reply.status("OK");
    } else if action.eq_ignore_ascii_case(b"OFF") {
        ctx.session.reply_mode = ReplyMode::Off;
    } else if action.eq_ignore_ascii_case(b"SKIP") {
        if ctx.session.reply_mode != ReplyMode::Off {
            ctx.session.reply_mode = ReplyMode::SkipNext;
        }
    } else {
        return Err(ClientError::Syntax);
    }
    Ok(Outcome::Done)
}

fn accept_on_off(ctx: &mut Context<'_>) -> Result<Outcome, ClientError> {
    let word = ctx.request.arg(2);
    if !word.eq_ignore_ascii_case(b"ON") && !word.eq_ignore_ascii_case(b"OFF") {
        return Err(ClientError::Syntax);
    }
    ctx.reply.status("OK");
    Ok(Outcome::Done)
}

#[cfg(test)]
mod tests {
    use crate::command::Outcome;
    use crate::commands::harness::Harness;
    use crate::node::TaskResult;
    use crate::settings::Settings;
    use crate::time::Micros;

    const SYNTAX: &str =
        "-ERR Syntax error, try CLIENT (LIST | KILL ip:port | GETNAME | SETNAME connection-name)|";

    #[test]
    fn wrong_subcommands_and_numbers_of_words_answer_the_recorded_text() {
        let mut harness = Harness::new();
        for words in [
            "CLIENT FOO",
            "CLIENT GETNAME a",
            "CLIENT SETNAME",
            "CLIENT SETNAME a b",
            "CLIENT PAUSE",
            "CLIENT PAUSE 1 2",
            "CLIENT REPLY",
            "CLIENT REPLY ON x",
            "CLIENT TRACKING ON",
        ] {
            assert_eq!(harness.run(words), SYNTAX, "{words}");
        }
        assert_eq!(harness.run("CLIENT"), "-ERR wrong number of arguments for 'client' command|");
        assert_eq!(harness.run("CLIENT KILL"), "-ERR syntax error|");
        assert_eq!(harness.run("CLIENT REPLY maybe"), "-ERR syntax error|");
    }

    #[test]
    fn names_are_printable_ascii_of_a_limited_length() {
        let mut harness = Harness::new();
        assert_eq!(harness.run("CLIENT GETNAME"), "$-1|");
        let long = [b'a'; 1_025];
        for name in [&b"a b"[..], b"a\nb", b"a\0b", b"\xfc", b"\x7f", &long] {
            assert!(harness.request(0, &[b"CLIENT", b"SETNAME", name]).0.starts_with("-ERR "), "{name:?}");
        }
        assert_eq!(harness.run("CLIENT SETNAME ~!"), "+OK|");
        assert_eq!(harness.run("CLIENT GETNAME"), "$2|~!|");
        assert_eq!(harness.run("CLIENT SETNAME "), "+OK|");
        assert_eq!(harness.run("CLIENT GETNAME"), "$-1|");
    }

    #[test]
    fn kill_by_address_answers_ok_once() {
        let mut harness = Harness::new();
        let other = harness.connect();
        assert_eq!(harness.run("CLIENT KILL 127.0.0.1:4243"), "+OK|");
        assert!(harness.session(other).client().is_killed());
        assert_eq!(harness.run("CLIENT KILL 127.0.0.1:4243"), "-ERR No such client|");
        let own = harness.request(0, &[b"CLIENT", b"KILL", b"127.0.0.1:4242"]);
        assert_eq!(own, ("+OK|".into(), Outcome::Close), "the own connection is closed behind the answer");
    }

    #[test]
    fn kill_counts_those_that_fit_every_filter() {
        let mut harness = Harness::new();
        let (second, third) = (harness.connect(), harness.connect());
        harness.run_on(third, "SUBSCRIBE x");
        assert_eq!(harness.run("CLIENT KILL ID 2 TYPE pubsub"), ":0|");
        assert_eq!(harness.run("CLIENT KILL ADDR 127.0.0.1:4242"), ":0|", "the own connection is spared");
        assert_eq!(harness.run("CLIENT KILL MAXAGE 10 TYPE normal"), ":0|");
        assert_eq!(harness.run("CLIENT KILL USER nobody TYPE normal"), ":0|");
        assert_eq!(harness.run("CLIENT KILL TYPE pubsub"), ":1|");
        assert!(harness.session(third).client().is_killed() && !harness.session(second).client().is_killed());
        assert_eq!(harness.run("CLIENT KILL LADDR 127.0.0.1:5262 USER default"), ":1|");
        let own = harness.request(0, &[b"CLIENT", b"KILL", b"ID", b"1", b"SKIPME", b"no"]);
        assert_eq!(own, (":1|".into(), Outcome::Close));
    }

    #[test]
    fn kill_id_zero_kills_nobody() {
        let mut harness = Harness::new();
        let other = harness.connect();
        for words in ["CLIENT KILL ID 0", "CLIENT KILL ID -1", "CLIENT KILL ID 0 SKIPME no"] {
            assert_eq!(harness.run(words), ":0|", "{words}");
        }
        assert!(!harness.session(other).client().is_killed());
        assert_eq!(harness.run("CLIENT KILL ID abc"), "-ERR value is not an integer or out of range|");
        assert_eq!(harness.run("CLIENT KILL TYPE slave"), "-ERR Unknown client type 'slave'|");
        assert_eq!(harness.run("CLIENT KILL ID 2 SKIPME"), "-ERR syntax error|");
    }

    #[test]
    fn a_pause_holds_back_everybody_until_it_ends() {
        let mut harness = Harness::new();
        let other = harness.connect();
        assert_eq!(harness.run("CLIENT PAUSE 500"), "+OK|");
        let end = harness.now.monotonic + Micros::from_millis(500);
        for number in [0, other] {
            assert_eq!(harness.request(number, &[b"PING"]), (String::new(), Outcome::Later(end)));
        }
        harness.wait(Micros::from_millis(500));
        assert_eq!(harness.run("PING"), "+PONG|");
    }

    #[test]
    fn a_pause_of_writes_lets_reads_through() {
        let mut harness = Harness::new();
        harness.run("CLIENT PAUSE 500 WRITE");
        assert_eq!(harness.run("GET a"), "$1|0|");
        assert!(matches!(harness.request(0, &[b"INCR", b"a"]).1, Outcome::Later(_)));
        let calls = harness.node.stats.all_calls();
        assert!(matches!(harness.request(0, &[b"INCR", b"a"]).1, Outcome::Later(_)));
        assert_eq!(harness.node.stats.all_calls(), calls, "what waits has not been called");
        harness.wait(Micros::from_millis(500));
        assert_eq!(harness.run("INCR a"), "$1|1|");
    }

    #[test]
    fn unpause_ends_a_pause_that_holds_everybody() {
        let mut harness = Harness::new();
        harness.run("CLIENT PAUSE 100000 ALL");
        assert_eq!(harness.run("CLIENT UNPAUSE"), "+OK|");
        assert_eq!(harness.run("INCR a"), "$1|1|");
    }

    #[test]
    fn an_idle_connection_is_closed_after_its_timeout_unless_it_listens() {
        let mut harness = Harness::with(Settings { timeout_secs: 2, ..Settings::default() });
        let (idle, subscriber) = (harness.connect(), harness.connect());
        harness.run_on(subscriber, "SUBSCRIBE x");
        for _ in 0..3 {
            assert!(!harness.session(idle).client().is_killed());
            harness.run("PING");
            harness.wait(Micros::from_secs(1));
        }
        let mut is_killed = |number| harness.session(number).client().is_killed();
        assert!(is_killed(idle) && !is_killed(subscriber) && !is_killed(0));
    }

    #[test]
    fn bad_pauses_are_refused() {
        let mut harness = Harness::new();
        assert_eq!(harness.run("CLIENT PAUSE -1"), "-ERR timeout is negative|");
        for bad in ["abc", "1.5"] {
            let reply = harness.run(&format!("CLIENT PAUSE {bad}"));
            assert_eq!(reply, "-ERR timeout is not an integer or out of range|");
        }
        assert_eq!(harness.run("CLIENT PAUSE 0"), "+OK|");
        assert_eq!(harness.run("PING"), "+PONG|");
    }

    #[test]
    fn reply_skip_leaves_out_the_next_reply_only() {
        let mut harness = Harness::new();
        assert_eq!(harness.run("CLIENT REPLY SKIP"), "");
        assert_eq!(harness.run("INCR a"), "");
        assert_eq!(harness.run("INCR a"), "$1|2|");
        harness.run("CLIENT REPLY SKIP");
        assert_eq!(harness.run("CLIENT REPLY SKIP"), "");
        assert_eq!(harness.run("NOSUCH"), "");
        assert_eq!(harness.run("PING"), "+PONG|");
        harness.run("CLIENT REPLY SKIP");
        assert_eq!(harness.run("CLIENT REPLY ON"), "+OK|");
    }

    #[test]
    fn reply_off_silences_until_it_is_on_again() {
        let mut harness = Harness::new();
        for words in ["CLIENT REPLY OFF", "INCR a", "NOSUCH", "CLIENT REPLY SKIP", "INCR a"] {
            assert_eq!(harness.run(words), "", "{words}");
        }
        assert_eq!(harness.run("CLIENT REPLY on"), "+OK|");
        assert_eq!(harness.run("GET a"), "$1|2|");
    }

    #[test]
    fn a_skipped_reply_stays_skipped_when_its_command_has_to_wait() {
        let mut harness = Harness::new();
        harness.run("CLIENT PAUSE 10 WRITE");
        harness.run("CLIENT REPLY SKIP");
        assert!(matches!(harness.request(0, &[b"INCR", b"a"]).1, Outcome::Later(_)));
        harness.wait(Micros::from_millis(10));
        assert_eq!(harness.run("INCR a"), "");
        assert_eq!(harness.run("GET a"), "$1|1|");
    }

    #[test]
    fn a_skipped_task_is_not_answered_when_it_is_done() {
        let mut harness = Harness::new();
        harness.run("CLIENT REPLY SKIP");
        assert!(matches!(harness.request(0, &[b"KEYS", b"*"]).1, Outcome::Wait(_)));
        assert_eq!(harness.finish(0, TaskResult::Names(Vec::new())), "");
        harness.run("PING");
        assert_eq!(harness.finish(0, TaskResult::Ok), "+OK|");
    }

    #[test]
    fn help_lists_every_subcommand() {
        let mut harness = Harness::new();
        let help = harness.run("CLIENT HELP");
        for sub in super::SUBCOMMANDS {
            assert!(help.contains(&format!("+{}", sub.name.to_ascii_uppercase())), "{}", sub.name);
        }
        assert!(help.contains("+PAUSE timeout [<WRITE | ALL>]|"), "{help}");
        assert_eq!(harness.run("CLIENT NO-EVICT on"), "+OK|");
        assert_eq!(harness.run("CLIENT NO-TOUCH maybe"), "-ERR syntax error|");
    }
}
