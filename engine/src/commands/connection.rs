//! The connection itself: AUTH, HELLO, PING, ECHO, RESET, SELECT. (QUIT is older than the table: see `Node::execute`.)
//!
//! There is one user, `default`, with the password `requirepass` or none.

use crate::cluster::HelloRow;
use crate::command::ArgKind::{self, Block, Integer};
use crate::command::Flag::{Fast, Loading, NoAuth, Readonly, WhileSubscribed};
use crate::command::{Arg, CommandSpec, Context, Group, Outcome, parse_integer};
use crate::commands::client::checked_name;
use crate::error::ClientError;
use crate::session::ReplyMode;
use resp::Protocol;
use std::hint::black_box;

/// The only user.
pub(super) const USER: &[u8] = b"default";

/// Version of the answer to HELLO without arguments.
const NODE_LIST_VERSION: i64 = 1;

pub(super) const COMMANDS: &[CommandSpec] = &[
    CommandSpec {
        name: "auth",
        summary: "Gives the password that the node asks for (requirepass). The only user is default.",
        since: "1.0.0",
        group: Group::Connection,
        flags: &[Readonly, Loading, Fast, NoAuth],
        arguments: &[Arg::new("username", ArgKind::String).optional(), Arg::new("password", ArgKind::String)],
        subcommands: &[],
        run: auth,
    },
    CommandSpec {
        name: "hello",
        summary: "Answers the nodes that this one knows; with a protocol version, begins a conversation as Redis does.",
        since: "1.0.0",
        group: Group::Connection,
        flags: &[Readonly, Fast, Loading, NoAuth],
        arguments: &[Arg::new(
            "arguments",
            Block(&[
                Arg::new("protover", Integer),
                Arg::new(
                    "auth",
                    Block(&[Arg::new("username", ArgKind::String), Arg::new("password", ArgKind::String)]),
                )
                .after("AUTH")
                .optional(),
                Arg::new("clientname", ArgKind::String).after("SETNAME").optional(),
            ]),
        )
        .optional()],
        subcommands: &[],
        run: hello,
    },
    CommandSpec {
        name: "ping",
        summary: "Answers PONG, or the text that it was given.",
        since: "1.0.0",
        group: Group::Connection,
        flags: &[Readonly, Fast, WhileSubscribed],
        arguments: &[Arg::new("message", ArgKind::String).optional()],
        subcommands: &[],
        run: ping,
    },
    CommandSpec {
        name: "echo",
        summary: "Answers the text that it was given.",
        since: "2.0.0",
        group: Group::Connection,
        flags: &[Readonly, Fast, Loading],
        arguments: &[Arg::new("message", ArgKind::String)],
        subcommands: &[],
        run: |ctx| {
            ctx.reply.bulk(ctx.request.arg(1));
            Ok(Outcome::Done)
        },
    },
    CommandSpec {
        name: "reset",
        summary: "Makes the connection as new: RESP2, no name, no rights, no subscriptions, no MONITOR.",
        since: "2.0.0",
        group: Group::Connection,
        flags: &[Readonly, Fast, Loading, NoAuth, WhileSubscribed],
        arguments: &[],
        subcommands: &[],
        run: reset,
    },
    CommandSpec {
        name: "select",
        summary: "Accepts database 0, the only one.",
        since: "2.0.0",
        group: Group::Connection,
        flags: &[Readonly, Fast, Loading],
        arguments: &[Arg::new("index", Integer)],
        subcommands: &[],
        run: |ctx| {
            if ctx.integer(1)? != 0 {
                return Err(ClientError::text("ERR DB index is out of range"));
            }
            ctx.reply.status("OK");
            Ok(Outcome::Done)
        },
    },
];

fn auth(ctx: &mut Context<'_>) -> Result<Outcome, ClientError> {
    match ctx.request.len() {
        2 if ctx.settings.requirepass.is_empty() => {
            return Err(ClientError::text("ERR Client sent AUTH, but no password is set"));
        }
        2 => {
            if !authenticate(ctx, USER, ctx.request.arg(1)) {
                return Err(ClientError::text("ERR invalid password"));
            }
        }
        3 => authenticate_user(ctx, ctx.request.arg(1), ctx.request.arg(2))?,
        _ => return Err(ClientError::Arity("auth")),
    }
    ctx.reply.status("OK");
    Ok(Outcome::Done)
}

/// AUTH as newer clients send it. Without a password in force `default` gets in with any, as in Redis, and nothing
/// is remembered of it.
fn authenticate_user(ctx: &mut Context<'_>, user: &[u8], password: &[u8]) -> Result<(), ClientError> {
    if authenticate(ctx, user, password) {
        return Ok(());
    }
    Err(ClientError::text("WRONGPASS invalid username-password pair or user is disabled."))
}

/// Whether user and password are right. If not, the connection loses the rights that it had.
fn authenticate(ctx: &mut Context<'_>, user: &[u8], password: &[u8]) -> bool {
    let required = &ctx.settings.requirepass;
    let is_right = user == USER && (required.is_empty() || is_same_secret(required, password));
    ctx.session.has_authenticated = is_right && !required.is_empty();
    is_right
}

/// Compares in a time that depends on the length of what was given alone. `secret` is not empty.
fn is_same_secret(secret: &[u8], given: &[u8]) -> bool {
    let mut difference = secret.len() ^ given.len();
    for (byte, expected) in given.iter().zip(secret.iter().cycle()) {
        difference |= usize::from(byte ^ expected);
    }
    black_box(difference) == 0
}

/// What HELLO asked for besides the protocol.
#[derive(Default)]
struct HelloOptions<'a> {
    login: Option<(&'a [u8], &'a [u8])>,
    name: Option<&'a [u8]>,
}

fn hello(ctx: &mut Context<'_>) -> Result<Outcome, ClientError> {
    if ctx.request.len() == 1 {
        return node_list(ctx);
    }
    let protocol = match parse_integer(ctx.request.arg(1)) {
        Some(2) => Protocol::Resp2,
        Some(3) => Protocol::Resp3,
        Some(_) => return Err(ClientError::text("NOPROTO unsupported protocol version")),
        None => return Err(ClientError::text("ERR Protocol version is not an integer or out of range")),
    };
    let options = hello_options(ctx)?;
    let name = options.name.map(checked_name).transpose()?;
    if let Some((user, password)) = options.login {
        authenticate_user(ctx, user, password)?;
    }
    if ctx.session.is_locked(ctx.settings) {
        return Err(ClientError::text(
            "NOAUTH HELLO must be called with the client already authenticated, otherwise the HELLO <proto> AUTH \
             <user> <pass> option can be used to authenticate the client and select the RESP protocol version at \
             the same time",
        ));
    }
    if let Some(name) = name {
        *ctx.session.client.name.lock() = name;
    }
    ctx.session.set_protocol(protocol);
    ctx.reply.set_protocol(protocol);
    greet(ctx);
    Ok(Outcome::Done)
}

fn hello_options<'a>(ctx: &Context<'a>) -> Result<HelloOptions<'a>, ClientError> {
    let (request, mut options, mut position) = (ctx.request, HelloOptions::default(), 2);
    while position < request.len() {
        let (option, words) = (request.arg(position), request.len() - position);
        if option.eq_ignore_ascii_case(b"AUTH") && words > 2 {
            options.login = Some((request.arg(position + 1), request.arg(position + 2)));
            position += 3;
        } else if option.eq_ignore_ascii_case(b"SETNAME") && words > 1 {
            options.name = Some(request.arg(position + 1));
            position += 2;
        } else {
            return Err(ClientError::quoting("ERR Syntax error in HELLO option '", option, "'"));
        }
    }
    Ok(options)
}

/// What Redis clients learn from the handshake. The mode is `standalone` even in a cluster: by `cluster` they
/// understand slots and redirections, and every node here serves every counter.
fn greet(ctx: &mut Context<'_>) {
    let version = i64::from(ctx.session.client.protocol_version());
    let id = ctx.session.client.id as i64;
    let reply = &mut ctx.reply;
    reply.map(7);
    reply.bulk(b"server");
    reply.bulk(b"discnt");
    reply.bulk(b"version");
    reply.bulk(env!("CARGO_PKG_VERSION").as_bytes());
    reply.bulk(b"proto");
    reply.integer(version);
    reply.bulk(b"id");
    reply.integer(id);
    reply.bulk(b"mode");
    reply.bulk(b"standalone");
    reply.bulk(b"role");
    reply.bulk(b"master");
    reply.bulk(b"modules");
    reply.array(0);
}

/// `[1, own id, [id, ip, port, priority] ...]`.
fn node_list(ctx: &mut Context<'_>) -> Result<Outcome, ClientError> {
    if ctx.session.is_locked(ctx.settings) {
        return Err(ClientError::NoAuth);
    }
    let nodes: Vec<HelloRow> = ctx.node.cluster_view().hello().collect();
    ctx.reply.array(2 + nodes.len());
    ctx.reply.integer(NODE_LIST_VERSION);
    ctx.reply.bulk_display(ctx.node.id());
    for node in nodes {
        ctx.reply.array(4);
        ctx.reply.bulk_display(node.id);
        ctx.reply.bulk(node.ip.as_bytes());
        ctx.reply.bulk_display(node.port);
        ctx.reply.bulk_display(node.priority);
    }
    Ok(Outcome::Done)
}

fn ping(ctx: &mut Context<'_>) -> Result<Outcome, ClientError> {
    if ctx.request.len() > 2 {
        return Err(ClientError::Arity("ping"));
    }
    let text = ctx.request.iter().nth(1);
    let is_restricted =
        ctx.session.protocol == Protocol::Resp2 && ctx.session.client.subscription_count() > 0;
    match text {
        _ if is_restricted => {
            ctx.reply.array(2);
            ctx.reply.bulk(b"pong");
            ctx.reply.bulk(text.unwrap_or_default());
        }
        Some(text) => ctx.reply.bulk(text),
        None => ctx.reply.status("PONG"),
    }
    Ok(Outcome::Done)
}

fn reset(ctx: &mut Context<'_>) -> Result<Outcome, ClientError> {
    let (node, client) = (ctx.node, &ctx.session.client);
    node.pubsub.remove_all(client, &node.keyspace, ctx.now.monotonic);
    node.clients.remove_monitor(client);
    client.name.lock().clear();
    ctx.session.has_authenticated = false;
    ctx.session.reply_mode = ReplyMode::On;
    ctx.session.set_protocol(Protocol::Resp2);
    ctx.reply.set_protocol(Protocol::Resp2);
    ctx.reply.status("RESET");
    Ok(Outcome::Done)
}

#[cfg(test)]
mod tests {
    use crate::command::Outcome;
    use crate::commands::harness::Harness;
    use crate::saves::Loading;
    use crate::settings::{Secret, Settings};
    use crate::time::Micros;

    fn locked() -> Harness {
        Harness::with(Settings { requirepass: Secret(b"foobar".to_vec()), ..Settings::default() })
    }

    const NOAUTH: &str = "-NOAUTH Authentication required.|";

    #[test]
    fn auth_without_a_password_in_force_is_an_error() {
        let mut harness = Harness::new();
        assert_eq!(harness.run("AUTH foo"), "-ERR Client sent AUTH, but no password is set|");
        assert_eq!(harness.run("AUTH"), "-ERR wrong number of arguments for 'auth' command|");
        assert_eq!(harness.run("AUTH a b c"), "-ERR wrong number of arguments for 'auth' command|");
        assert_eq!(harness.run("PING"), "+PONG|");
    }

    #[test]
    fn the_password_is_compared_exactly() {
        let mut harness = locked();
        assert_eq!(harness.run("PING"), NOAUTH);
        for wrong in ["FOOBAR", "foobar2", "fooba", "", "foobar\0xyz", "foobarfoobar", &"x".repeat(5_000)] {
            let (reply, _) = harness.request(0, &[b"AUTH", wrong.as_bytes()]);
            assert_eq!(reply, "-ERR invalid password|", "{wrong:?}");
            assert_eq!(harness.run("PING"), NOAUTH);
        }
        assert_eq!(harness.run("AUTH foobar"), "+OK|");
        assert_eq!(harness.run("PING"), "+PONG|");
        let other = harness.connect();
        assert_eq!(harness.run_on(other, "PING"), NOAUTH);
    }

    #[test]
    fn a_failed_auth_drops_the_rights_that_the_connection_had() {
        let mut harness = locked();
        for wrong in ["AUTH nope", "AUTH default nope", "AUTH somebody foobar", "HELLO 2 AUTH default nope"] {
            assert_eq!(harness.run("AUTH default foobar"), "+OK|");
            assert!(harness.run(wrong).starts_with('-'), "{wrong}");
            assert_eq!(harness.run("PING"), NOAUTH, "{wrong}");
        }
    }

    #[test]
    fn a_password_set_at_run_time_locks_and_its_removal_unlocks() {
        let mut harness = Harness::new();
        assert_eq!(harness.run("AUTH default any"), "+OK|");
        harness.set_password("secret");
        assert_eq!(harness.run("PING"), NOAUTH);
        assert_eq!(harness.run("AUTH secret"), "+OK|");
        harness.set_password("other");
        assert_eq!(harness.run("PING"), "+PONG|");
        let second = harness.connect();
        assert_eq!(harness.run_on(second, "AUTH secret"), "-ERR invalid password|");
        harness.set_password("");
        assert_eq!(harness.run_on(second, "PING"), "+PONG|");
    }

    #[test]
    fn hello_alone_lists_the_nodes() {
        let id = "07".repeat(20);
        let expected = format!("*3|:1|$40|{id}|*4|$40|{id}|$0||$4|5262|$1|1|");
        assert_eq!(Harness::new().run("HELLO"), expected);
        assert_eq!(locked().run("HELLO"), NOAUTH);
    }

    #[test]
    fn hello_switches_the_protocol_and_greets_in_it() {
        let mut harness = Harness::new();
        let version = env!("CARGO_PKG_VERSION");
        let greeting = |header: &str, proto: u8| {
            format!(
                "{header}|$6|server|$6|discnt|$7|version|${}|{version}|$5|proto|:{proto}|$2|id|:1|$4|mode|$10|standalone|\
                 $4|role|$6|master|$7|modules|*0|",
                version.len()
            )
        };
        assert_eq!(harness.run("HELLO 3 SETNAME app"), greeting("%7", 3));
        assert_eq!(harness.run("CLIENT GETNAME"), "$3|app|");
        assert_eq!(harness.run("HELLO 2"), greeting("*14", 2));
    }

    #[test]
    fn hello_refuses_what_it_does_not_know_and_changes_nothing() {
        let mut harness = Harness::new();
        assert_eq!(harness.run("HELLO 4"), "-NOPROTO unsupported protocol version|");
        assert_eq!(harness.run("HELLO x"), "-ERR Protocol version is not an integer or out of range|");
        assert_eq!(harness.run("HELLO 3 AUTH a"), "-ERR Syntax error in HELLO option 'AUTH'|");
        assert_eq!(harness.run("HELLO 3 FOO"), "-ERR Syntax error in HELLO option 'FOO'|");
        assert!(harness.request(0, &[b"HELLO", b"3", b"SETNAME", b"a b"]).0.starts_with("-ERR Client names"));
        assert_eq!(harness.run("CLIENT GETNAME"), "$-1|");
    }

    #[test]
    fn clients_can_connect_while_counters_are_loaded() {
        let mut harness = Harness::new();
        harness.node.set_loading(Loading { is_on: true, ..Loading::default() });
        for words in [
            "HELLO 3 SETNAME app",
            "CLIENT SETINFO LIB-NAME lib",
            "CLIENT SETNAME app",
            "CLIENT ID",
            "CONFIG GET timeout",
            "INFO replication",
            "SELECT 0",
            "ECHO a",
            "COMMAND DOCS get",
            "SUBSCRIBE a",
            "RESET",
        ] {
            let reply = harness.run(words);
            assert!(!reply.is_empty() && !reply.starts_with('-'), "{words}: {reply}");
        }
        // What no node knows is told as ever, so that clients do without it and don't try again.
        assert!(harness.run("CLIENT MAINT_NOTIFICATIONS ON").starts_with("-ERR Syntax error, try CLIENT"));
        assert!(harness.run("SENTINEL masters").starts_with("-ERR unknown command"));
        for words in ["PING", "GET a", "INCR a", "CLUSTER NODES", "CONFIG SET timeout 1", "DEBUG SLEEP 0"] {
            assert!(harness.run(words).starts_with("-LOADING "), "{words}");
        }
    }

    #[test]
    fn hello_authenticates_before_anything_else() {
        let mut harness = locked();
        assert!(harness.run("HELLO 3").starts_with("-NOAUTH HELLO must be called"));
        assert!(harness.run("HELLO 3 AUTH default nope").starts_with("-WRONGPASS "));
        assert!(harness.run("HELLO 3 AUTH default foobar").starts_with("%7|"));
        assert_eq!(harness.run("PING"), "+PONG|");
    }

    #[test]
    fn ping_answers_a_pair_to_a_subscriber_over_resp2_only() {
        let mut harness = Harness::new();
        assert_eq!(harness.run("PING hi"), "$2|hi|");
        assert_eq!(harness.run("PING a b"), "-ERR wrong number of arguments for 'ping' command|");
        harness.run("SUBSCRIBE x");
        assert_eq!(harness.run("PING"), "*2|$4|pong|$0||");
        assert_eq!(harness.run("PING hi"), "*2|$4|pong|$2|hi|");
        let newer = harness.connect();
        harness.run_on(newer, "HELLO 3");
        harness.run_on(newer, "SUBSCRIBE x");
        assert_eq!(harness.run_on(newer, "PING"), "+PONG|");
        assert_eq!(harness.run_on(newer, "INCR a"), "$1|1|");
    }

    #[test]
    fn reset_makes_the_connection_as_new() {
        let mut harness = locked();
        harness.run("HELLO 3 AUTH default foobar SETNAME app");
        harness.run("SUBSCRIBE x");
        harness.run("CLIENT REPLY OFF");
        assert_eq!(harness.run("RESET"), "+RESET|");
        assert_eq!(harness.run("PING"), NOAUTH);
        harness.run("AUTH foobar");
        assert_eq!(harness.run("CLIENT GETNAME"), "$-1|");
        harness.run("INCR x");
        harness.wait(Micros::from_secs(3));
        assert_eq!(harness.received(0), "", "the subscription has ended");
    }

    #[test]
    fn select_accepts_the_only_database() {
        let mut harness = Harness::new();
        assert_eq!(harness.run("SELECT 0"), "+OK|");
        assert_eq!(harness.run("SELECT 1"), "-ERR DB index is out of range|");
        assert_eq!(harness.run("SELECT x"), "-ERR value is not an integer or out of range|");
        assert_eq!(harness.run("ECHO hi"), "$2|hi|");
    }

    #[test]
    fn quit_answers_and_closes_even_a_locked_connection() {
        let mut harness = locked();
        assert_eq!(harness.request(0, &[b"QUIT", b"x"]), ("+OK|".into(), Outcome::Close));
    }
}
