//! CLUSTER: reads are answered from the node's picture of the cluster, changes are left to the thread that owns it.

use crate::cluster::ClusterRequest;
use crate::cluster::view::{ClusterView, LinkStats, MemberView, Role};
use crate::command::ArgKind::{Integer, OneOf, String};
use crate::command::Flag::{Admin, Readonly};
use crate::command::{Arg, CommandSpec, Context, Group, Outcome, Task, parse_integer};
use crate::error::ClientError;
use crate::ids::{NODE_ID_LEN, NodeId};
use crate::settings::BUS_PORT_OFFSET;
use crate::time::Micros;
use std::net::{IpAddr, SocketAddr};

/// Longest host name, as DNS limits it.
const MAX_HOST_LEN: usize = 253;

const ID: Arg = Arg::new("node-id", String);

const HELP: &[&str] = &[
    "CLUSTER <subcommand> [<arg> ...]. Subcommands are:",
    "COUNT-FAILURE-REPORTS <node-id>",
    "    Answer how many other members have not heard of a member for the node timeout.",
    "FORGET <node-id>",
    "    Remove a member everywhere and for good. Its counts stay.",
    "HELP",
    "    Print this help.",
    "INFO",
    "    Answer sizes and message counts.",
    "LINKS",
    "    Answer what has gone over the links to each member, and how near it is.",
    "MEET <ip or host> <port> [<bus-port>]",
    "    Join the node at that address, and with it everybody that it knows.",
    "MYID",
    "    Answer this node's id.",
    "NODES",
    "    Answer a line per node: id, ip:port, flags, ping sent, pong received, link.",
    "RESET [SOFT|HARD]",
    "    Leave the cluster and delete all counters here. HARD takes a new id too.",
    "SAVECONFIG",
    "    Write the nodes file now.",
];

pub(super) const COMMANDS: &[CommandSpec] = &[CommandSpec {
    name: "cluster",
    summary: "Shows and changes who belongs to the cluster.",
    since: "1.0.0",
    group: Group::Cluster,
    flags: &[Readonly, Admin],
    arguments: &[],
    subcommands: SUBCOMMANDS,
    run: |_| Err(wrong_subcommand()),
}];

const fn sub(
    name: &'static str,
    since: &'static str,
    summary: &'static str,
    arguments: &'static [Arg],
    run: crate::command::Run,
) -> CommandSpec {
    let (group, flags) = (Group::Cluster, &[Readonly, Admin]);
    CommandSpec { name, summary, since, group, flags, arguments, subcommands: &[], run }
}

const SUBCOMMANDS: &[CommandSpec] = &[
    sub(
        "count-failure-reports",
        "2.0.0",
        "Answers how many other members have not heard of a member for the node timeout.",
        &[ID],
        |ctx| {
            let view = ctx.node.cluster_view();
            ctx.reply.integer(find(&view, ctx.request.arg(2))?.failure_reports as i64);
            Ok(Outcome::Done)
        },
    ),
    sub("forget", "1.0.0", "Removes a member everywhere and for good. Its counts stay.", &[ID], forget),
    sub("help", "2.0.0", "Prints the subcommands.", &[], |ctx| {
        ctx.reply.array(HELP.len());
        HELP.iter().for_each(|line| ctx.reply.status(line));
        Ok(Outcome::Done)
    }),
    sub("info", "1.0.0", "Answers sizes and message counts.", &[], |ctx| {
        ctx.reply.bulk(ctx.node.cluster_view().info_text().as_bytes());
        Ok(Outcome::Done)
    }),
    sub(
        "links",
        "2.0.0",
        "Answers what has gone over the links to each member, and how near it is.",
        &[],
        links,
    ),
    sub(
        "meet",
        "1.0.0",
        "Joins the node at an address, and with it everybody that it knows. Answers before that is done.",
        &[Arg::new("host", String), Arg::new("port", Integer), Arg::new("bus-port", Integer).optional()],
        meet,
    ),
    sub("myid", "1.0.0", "Answers this node's id.", &[], |ctx| {
        ctx.reply.bulk_display(ctx.node.id());
        Ok(Outcome::Done)
    }),
    sub("nodes", "1.0.0", "Answers a line per node.", &[], |ctx| {
        ctx.reply.bulk(ctx.node.cluster_view().nodes_text().as_bytes());
        Ok(Outcome::Done)
    }),
    sub(
        "reset",
        "1.0.0",
        "Leaves the cluster and deletes all counters here; HARD takes a new id too.",
        &[Arg::new("how", OneOf(&[Arg::word("soft", "SOFT"), Arg::word("hard", "HARD")])).optional()],
        reset,
    ),
    sub("saveconfig", "1.0.0", "Writes the nodes file now.", &[], |_| {
        Ok(Outcome::Wait(Task::Cluster(ClusterRequest::SaveConfig)))
    }),
];

/// Hexadecimal digits of a node's id.
const NODE_ID_TEXT_LEN: usize = 2 * NODE_ID_LEN;

fn wrong_subcommand() -> ClientError {
    ClientError::text("ERR Wrong CLUSTER subcommand or number of arguments")
}

fn find<'a>(view: &'a ClusterView, id: &[u8]) -> Result<&'a MemberView, ClientError> {
    NodeId::parse(id)
        .and_then(|id| view.find(id))
        .ok_or_else(|| ClientError::quoting("ERR Unknown node ", id, ""))
}

fn forget(ctx: &mut Context<'_>) -> Result<Outcome, ClientError> {
    let view = ctx.node.cluster_view();
    let id = ctx.request.arg(2);
    if id.len() != NODE_ID_TEXT_LEN {
        return Err(ClientError::text("ERR Invalid node identifier"));
    }
    let node = find(&view, id)?;
    if node.line.role == Role::Myself {
        return Err(ClientError::text("ERR I tried hard but I can't forget myself..."));
    }
    Ok(Outcome::Wait(Task::Cluster(ClusterRequest::Forget(node.line.id))))
}

fn reset(ctx: &mut Context<'_>) -> Result<Outcome, ClientError> {
    let hard = match ctx.request.len() {
        2 => false,
        3 if ctx.request.arg(2).eq_ignore_ascii_case(b"SOFT") => false,
        3 if ctx.request.arg(2).eq_ignore_ascii_case(b"HARD") => true,
        _ => return Err(wrong_subcommand()),
    };
    Ok(Outcome::Wait(Task::Cluster(ClusterRequest::Reset { hard })))
}

fn meet(ctx: &mut Context<'_>) -> Result<Outcome, ClientError> {
    if ctx.request.len() > 5 {
        return Err(wrong_subcommand());
    }
    let (host, port) = (ctx.request.arg(2), ctx.request.arg(3));
    let invalid = || invalid_node_address(host, port);
    let as_port = |number: i64| u16::try_from(number).ok().filter(|&port| port > 0);
    let number = parse_integer(port)
        .ok_or_else(|| ClientError::quoting("ERR Invalid TCP port specified: ", port, ""))?;
    let port = as_port(number).ok_or_else(invalid)?;
    let bus_port = match ctx.request.len() {
        4 => port.checked_add(BUS_PORT_OFFSET).ok_or_else(invalid)?,
        _ => {
            let text = ctx.request.arg(4);
            parse_integer(text)
                .and_then(as_port)
                .ok_or_else(|| ClientError::quoting("ERR Invalid bus port specified: ", text, ""))?
        }
    };
    let host = std::str::from_utf8(host).map_err(|_| invalid())?;
    if let Ok(ip) = host.parse::<IpAddr>() {
        let bus = SocketAddr::new(ip.to_canonical(), bus_port);
        return Ok(Outcome::Wait(Task::Cluster(ClusterRequest::Meet { bus, port })));
    }
    if !is_host_name(host) {
        return Err(invalid());
    }
    Ok(Outcome::Wait(Task::Resolve { host: host.to_owned(), port, bus_port }))
}

/// What CLUSTER MEET answers to an address that is none, or to a name that could not be resolved.
pub(crate) fn invalid_node_address(host: &[u8], port: &[u8]) -> ClientError {
    ClientError::quoting("ERR Invalid node address specified: ", &[host, b":", port].concat(), "")
}

/// Whether a resolver may be asked for it. Names whose last part is a number are mistyped addresses, which some resolvers
/// read in surprising ways (`1.2.3` as `1.2.0.3`, `127.0.0.010` in octal).
fn is_host_name(host: &str) -> bool {
    let is_label = |label: &str| {
        !label.is_empty()
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
    };
    let name = host.strip_suffix('.').unwrap_or(host);
    let last = name.rsplit('.').next().unwrap_or_default();
    let is_number = match last.strip_prefix("0x").or(last.strip_prefix("0X")) {
        Some(digits) => digits.bytes().all(|byte| byte.is_ascii_hexdigit()),
        None => last.bytes().all(|byte| byte.is_ascii_digit()),
    };
    host.len() <= MAX_HOST_LEN && name.split('.').all(is_label) && !is_number
}

fn links(ctx: &mut Context<'_>) -> Result<Outcome, ClientError> {
    let view = ctx.node.cluster_view();
    let peers: Vec<&MemberView> =
        view.nodes.iter().filter(|node| matches!(node.line.role, Role::Member(_))).collect();
    ctx.reply.array(peers.len());
    for peer in peers {
        let LinkStats {
            bytes_sent,
            bytes_received,
            updates_sent,
            updates_received,
            round_trip,
            lag,
            applied,
            acknowledged,
        } = peer.stats.unwrap_or_default();
        let numbers = [
            ("bytes-sent", bytes_sent),
            ("bytes-received", bytes_received),
            ("updates-sent", updates_sent),
            ("updates-received", updates_received),
        ];
        ctx.reply.map(4 + numbers.len() + 4);
        ctx.reply.bulk(b"node");
        ctx.reply.bulk_display(peer.line.id);
        ctx.reply.bulk(b"ip");
        ctx.reply.bulk_display(peer.line.ip.map(|ip| ip.to_string()).unwrap_or_default());
        ctx.reply.bulk(b"bus-port");
        ctx.reply.integer(peer.bus_port.into());
        ctx.reply.bulk(b"link");
        ctx.reply.bulk(if peer.line.has_link { b"connected" } else { b"disconnected" });
        for (name, number) in numbers {
            ctx.reply.bulk(name.as_bytes());
            ctx.reply.integer(i64::try_from(number).unwrap_or(i64::MAX));
        }
        for (name, duration) in [("round-trip-us", round_trip), ("lag-us", lag)] {
            ctx.reply.bulk(name.as_bytes());
            // -1: not known, as a number so that clients need not tell types apart.
            ctx.reply.integer(duration.map_or(-1, |Micros(us)| i64::try_from(us).unwrap_or(i64::MAX)));
        }
        for (name, seq) in [("applied-up-to", applied), ("acknowledged-up-to", acknowledged)] {
            ctx.reply.bulk(name.as_bytes());
            ctx.reply.bulk_display(format_args!("{}:{}", seq.incarnation, seq.n));
        }
    }
    Ok(Outcome::Done)
}
