//! How CLIENT LIST and CLIENT INFO show a connection.

use crate::clients::{Client, ClientKind, Peer};
use crate::command::{Context, Outcome};
use crate::commands;
use crate::commands::client::wrong_words;
use crate::error::ClientError;
use crate::time::Micros;
use std::fmt::{self, Write};
use std::sync::atomic::Ordering;

/// Waiting output up to this counts as `obl` in CLIENT LIST, what is beyond as `omem`; Redis's sizes.
const STATIC_OUTPUT_LEN: usize = 16 * 1024;

/// A client as CLIENT LIST shows it, at a moment; no line end. The fields are the original's.
struct ListLine<'a>(&'a Client, Micros);

impl fmt::Display for ListLine<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ListLine(client, now) = self;
        let waiting = client.waiting_bytes();
        let beyond = waiting.saturating_sub(STATIC_OUTPUT_LEN);
        let is_blocked = client.output_bytes.load(Ordering::Relaxed) > 0;
        write!(
            f,
            "id={} addr={} fd={} name={} age={} idle={} flags={} sub={} qbuf={} qbuf-free=0 obl={} oll={} omem={} \
             events={} cmd={}",
            client.id,
            client.peer,
            client.fd,
            String::from_utf8_lossy(&client.name.lock()),
            now.since(client.since).secs(),
            now.since(client.last_active()).secs(),
            flags(client),
            client.subscription_count(),
            client.query_bytes.load(Ordering::Relaxed),
            waiting - beyond,
            usize::from(beyond > 0),
            beyond,
            if is_blocked { "rw" } else { "r" },
            last_command(client),
        )
    }
}

/// The same with what newer clients ask for; CLIENT LIST keeps to the fields that its readers know.
pub(super) struct InfoLine<'a>(pub(super) &'a Client, pub(super) Micros);

impl fmt::Display for InfoLine<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let InfoLine(client, now) = self;
        let library = client.library.lock();
        write!(
            f,
            "{} laddr={} db=0 psub=0 multi=-1 argv-mem=0 tot-mem={} user=default resp={} lib-name={} lib-ver={}",
            ListLine(client, *now),
            client.peer.local(),
            client.waiting_bytes() + client.query_bytes.load(Ordering::Relaxed) as usize,
            client.protocol_version(),
            String::from_utf8_lossy(&library.name),
            String::from_utf8_lossy(&library.version),
        )
    }
}

/// `O` monitor, `U` unix socket, `N` neither.
fn flags(client: &Client) -> &'static str {
    match (client.is_monitor(), &client.peer) {
        (false, Peer::Tcp { .. }) => "N",
        (true, Peer::Tcp { .. }) => "O",
        (false, Peer::Unix(_)) => "U",
        (true, Peer::Unix(_)) => "OU",
    }
}

fn last_command(client: &Client) -> &'static str {
    let number = client.last_command().map(usize::from);
    number.and_then(|number| commands::all().nth(number)).map_or("NULL", |spec| spec.name)
}

/// CLIENT LIST.
pub(super) fn list(ctx: &mut Context<'_>) -> Result<Outcome, ClientError> {
    let (mut kind, mut ids) = (None, None);
    match ctx.request.iter().nth(2) {
        None => {}
        Some(word) if word.eq_ignore_ascii_case(b"TYPE") && ctx.request.len() == 4 => {
            kind = Some(parse_kind(ctx.request.arg(3))?);
        }
        Some(word) if word.eq_ignore_ascii_case(b"ID") && ctx.request.len() > 3 => {
            let asked: Result<Vec<i64>, _> = (3..ctx.request.len()).map(|at| ctx.integer(at)).collect();
            ids = Some(asked.map_err(|_| ClientError::text("ERR Invalid client ID"))?);
        }
        Some(_) => return Err(wrong_words()),
    }
    let mut lines = String::new();
    for client in ctx.node.clients.all() {
        let is_wanted = kind.is_none_or(|kind| client.kind() == kind)
            && ids.as_ref().is_none_or(|ids| ids.contains(&(client.id as i64)));
        if is_wanted && !client.is_killed() {
            writeln!(lines, "{}", ListLine(&client, ctx.now.monotonic))
                .expect("a string takes what it is given");
        }
    }
    ctx.reply.verbatim(b"txt", lines.as_bytes());
    Ok(Outcome::Done)
}

/// NORMAL or PUBSUB.
pub(super) fn parse_kind(word: &[u8]) -> Result<ClientKind, ClientError> {
    if word.eq_ignore_ascii_case(b"normal") {
        Ok(ClientKind::Normal)
    } else if word.eq_ignore_ascii_case(b"pubsub") {
        Ok(ClientKind::Pubsub)
    } else {
        Err(ClientError::quoting("ERR Unknown client type '", word, "'"))
    }
}

#[cfg(test)]
mod tests {
    use crate::commands::harness::Harness;
    use crate::time::Micros;
    use std::sync::atomic::Ordering;

    const SYNTAX: &str =
        "-ERR Syntax error, try CLIENT (LIST | KILL ip:port | GETNAME | SETNAME connection-name)|";

    /// The text of a bulk.
    fn text(reply: &str) -> &str {
        reply.split_once('|').expect("a bulk has a header").1.trim_end_matches('|')
    }

    #[test]
    fn list_shows_a_line_per_connection_in_the_recorded_format() {
        let mut harness = Harness::new();
        let (named, subscriber) = (harness.connect(), harness.connect());
        harness.run_on(named, "CLIENT SETNAME me");
        harness.run_on(subscriber, "SUBSCRIBE x y");
        harness.wait(Micros::from_secs(5));
        harness.session(named).client().query_bytes.store(7, Ordering::Relaxed);
        harness.session(named).client().output_bytes.store(20_000, Ordering::Relaxed);
        let reply = harness.run("CLIENT LIST");
        let expected = "id=1 addr=127.0.0.1:4242 fd=9 name= age=5 idle=0 flags=N sub=0 qbuf=0 qbuf-free=0 obl=0 oll=0 omem=0 events=r cmd=client\n\
             id=2 addr=127.0.0.1:4243 fd=9 name=me age=5 idle=5 flags=N sub=0 qbuf=7 qbuf-free=0 obl=16384 oll=1 omem=3616 events=rw cmd=client\n\
             id=3 addr=127.0.0.1:4244 fd=9 name= age=5 idle=5 flags=N sub=2 qbuf=0 qbuf-free=0 obl=0 oll=0 omem=0 events=r cmd=subscribe\n";
        assert_eq!(text(&reply), expected);
        assert_eq!(text(&harness.run("CLIENT LIST TYPE pubsub")).lines().count(), 1);
        assert_eq!(text(&harness.run("CLIENT LIST ID 1 3 99")).lines().count(), 2);
        assert_eq!(harness.run("CLIENT LIST TYPE master"), "-ERR Unknown client type 'master'|");
        assert_eq!(harness.run("CLIENT LIST ID x"), "-ERR Invalid client ID|");
        assert_eq!(harness.run("CLIENT LIST a"), SYNTAX);
    }

    #[test]
    fn info_shows_the_library() {
        let mut harness = Harness::new();
        assert_eq!(harness.run("CLIENT ID"), ":1|");
        assert_eq!(harness.run("CLIENT SETINFO LIB-NAME lib"), "+OK|");
        assert_eq!(harness.run("CLIENT SETINFO lib-ver 1.2"), "+OK|");
        assert_eq!(harness.run("CLIENT SETINFO OTHER x"), "-ERR Unrecognized option 'OTHER'|");
        let reply = harness.run("CLIENT INFO");
        assert!(
            text(&reply).ends_with(
                "cmd=client laddr=127.0.0.1:5262 db=0 psub=0 multi=-1 argv-mem=0 tot-mem=0 user=default resp=2 lib-name=lib lib-ver=1.2\n"
            ),
            "{reply}"
        );
    }
}
