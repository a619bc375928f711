//! What a hostile or broken client may do: the server stays up, its memory stays bounded, others are served meanwhile.
//!
//! Each test starts a server of its own, abuses it, and has a well-behaved client count all the while (`Watch`).

#![allow(
    clippy::unwrap_used,
    clippy::print_stderr,
    reason = "a test that can not go on has failed; figures are told"
)]

#[path = "../support/mod.rs"]
mod support;

mod inputs;
mod limits;

use inputs::{RECORDED, RECORDED_LONG};
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use support::{Conn, Random, Server, request};

/// What any abuse below may add to the server's resident memory, if a test does not say otherwise.
const MAX_GROWTH: u64 = 64 << 20;

/// The longest that the well-behaved client may wait for an answer: far more than the server needs, and enough for a
/// machine that is busy with other tests.
const PROMPT: Duration = Duration::from_secs(1);

/// Bytes of noise per connection.
const NOISE_LEN: usize = 1_000_000;

/// A client that counts while others misbehave.
struct Watch {
    is_over: Arc<AtomicBool>,
    thread: JoinHandle<(u64, Duration)>,
}

impl Watch {
    fn start(server: &Server) -> Watch {
        let is_over = Arc::new(AtomicBool::new(false));
        let (stop, mut conn) = (Arc::clone(&is_over), server.connect());
        let thread = std::thread::spawn(move || {
            let (mut count, mut slowest) = (0, Duration::ZERO);
            while !stop.load(Ordering::Relaxed) {
                let asked = Instant::now();
                let reply = conn.run("INCR watched");
                slowest = slowest.max(asked.elapsed());
                count += 1;
                let text = count.to_string();
                assert_eq!(reply, format!("${}|{text}|", text.len()));
                std::thread::sleep(Duration::from_millis(1));
            }
            (count, slowest)
        });
        Watch { is_over, thread }
    }

    /// Ends it and fails if the client was not served, or late.
    fn end(self) {
        self.is_over.store(true, Ordering::Relaxed);
        let (count, slowest) = self.thread.join().expect("the well-behaved client was served");
        eprintln!("{count} answers meanwhile, the slowest after {slowest:?}");
        assert!(count > 0 && slowest < PROMPT, "the slowest of {count} answers took {slowest:?}");
    }
}

/// Fails if the server has ended or has grown by more than `max_growth` since it took `before` bytes.
fn assert_well(server: &mut Server, before: u64, max_growth: u64) {
    server.assert_up();
    let growth = server.resident_bytes().saturating_sub(before);
    eprintln!("grown by {} KiB", growth >> 10);
    assert!(growth < max_growth, "the server has grown by {growth} bytes");
}

/// Writes until the server has had enough; reads what it says meanwhile.
fn pour(server: &Server, bytes: &[u8]) {
    let stream = TcpStream::connect(("127.0.0.1", server.port)).unwrap();
    let mut reader = stream.try_clone().unwrap();
    let reading = std::thread::spawn(move || {
        let mut buf = [0; 64 * 1024];
        while matches!(reader.read(&mut buf), Ok(len) if len > 0) {}
    });
    let mut writer = &stream;
    // The server closes behind a protocol error, which is what most noise is.
    writer.write_all(bytes).ok();
    stream.shutdown(Shutdown::Write).ok();
    reading.join().unwrap();
}

#[test]
fn random_bytes_do_no_harm() {
    let mut server = Server::start();
    let (before, watch, mut random) = (server.resident_bytes(), Watch::start(&server), Random::new());
    for _ in 0..8 {
        std::thread::scope(|scope| {
            for _ in 0..8 {
                let (server, noise) = (&server, random.bytes(NOISE_LEN));
                scope.spawn(move || pour(server, &noise));
            }
        });
    }
    watch.end();
    assert_well(&mut server, before, MAX_GROWTH);
}

/// Noise that the server takes for commands, so that it reads all of it: lines of random bytes without quotes.
#[test]
fn random_lines_do_no_harm() {
    let mut server = Server::start();
    let (before, watch, mut random) = (server.resident_bytes(), Watch::start(&server), Random::new());
    for _ in 0..20 {
        let mut bytes = random.bytes(NOISE_LEN);
        for byte in &mut bytes {
            if matches!(*byte, b'"' | b'\'' | b'*') {
                *byte = b' ';
            }
        }
        bytes.push(b'\n');
        pour(&server, &bytes);
    }
    watch.end();
    assert_well(&mut server, before, MAX_GROWTH);
}

/// Requests of which some bytes were changed: deeper in than noise comes.
#[test]
fn damaged_requests_do_no_harm() {
    const NAMES: [&[u8]; 24] = [
        b"INCR",
        b"INCRBY",
        b"MINCRBY",
        b"GET",
        b"SET",
        b"MGET",
        b"DEL",
        b"SCAN",
        b"KEYS",
        b"SUBSCRIBE",
        b"ISUBSCRIBE",
        b"UNSUBSCRIBE",
        b"HELLO",
        b"AUTH",
        b"CLIENT",
        b"CONFIG",
        b"COMMAND",
        b"INFO",
        b"LATENCY",
        b"PRECISION",
        b"RESET",
        b"MONITOR",
        b"CLUSTER",
        b"EXISTS",
    ];
    const WORDS: [&[u8]; 24] = [
        b"a",
        b"",
        b"\0",
        b"1",
        b"-1",
        b"1e20",
        b"99999999999999999999",
        b"9223372036854775808",
        b"*",
        b"[",
        b"GET",
        b"LIST",
        b"ID",
        b"COUNT",
        b"MATCH",
        b"TYPE",
        b"3",
        b"STATE",
        b"BOUND",
        b"DOCS",
        b"HELP",
        b"100%",
        b"REPLY",
        b"OFF",
    ];
    let mut server = Server::start();
    let (before, watch, mut random) = (server.resident_bytes(), Watch::start(&server), Random::new());
    for _ in 0..200 {
        let mut bytes = Vec::new();
        for _ in 0..200 {
            let mut words = vec![NAMES[random.below(NAMES.len())]];
            (0..random.below(5)).for_each(|_| words.push(WORDS[random.below(WORDS.len())]));
            bytes.extend_from_slice(&request(&words));
        }
        for _ in 0..random.below(4) {
            let at = random.below(bytes.len());
            bytes[at] = random.number() as u8;
        }
        pour(&server, &bytes);
    }
    watch.end();
    assert_well(&mut server, before, MAX_GROWTH);
}

#[test]
fn recorded_malformed_inputs_do_no_harm() {
    let mut server = Server::start();
    let (before, watch) = (server.resident_bytes(), Watch::start(&server));
    let long =
        RECORDED_LONG.iter().map(|(head, byte, count, tail)| [*head, &vec![*byte; *count], *tail].concat());
    for input in RECORDED.iter().map(|input| input.to_vec()).chain(long) {
        pour(&server, &input);
        // Broken off at every place, up to where that gets dull.
        for end in 0..input.len().min(80) {
            server.connect().send(&input[..end]);
        }
        server.assert_up();
    }
    watch.end();
    assert_well(&mut server, before, MAX_GROWTH);
}

#[test]
fn a_client_that_has_closed_its_half_gets_its_replies() {
    let server = Server::start();
    server.connect().run("DEBUG POPULATE 100000");
    // More than the sockets' buffers hold, so that the end of the requests is seen while replies still wait.
    let wanted = 20;
    let mut conn = server.connect();
    conn.send(request(&[b"KEYS", b"*"]).repeat(wanted));
    conn.stream.shutdown(Shutdown::Write).unwrap();
    for _ in 0..wanted {
        assert!(conn.reply().starts_with("*100000|"));
    }
    assert_eq!(conn.rest(), "");
}

#[test]
fn clients_that_never_read_are_let_go_at_the_limit() {
    let mut server = Server::with(&["--client-output-buffer-limit", "normal", "4mb", "0", "0"]);
    server.connect().run("DEBUG POPULATE 20000");
    let (before, watch) = (server.resident_bytes(), Watch::start(&server));
    let mut deaf: Vec<Conn> = (0..8).map(|_| server.connect()).collect();
    for conn in &mut deaf {
        // Each asks for far more than the limit.
        for _ in 0..200 {
            if conn.stream.write_all(&request(&[b"KEYS", b"*"])).is_err() {
                break;
            }
        }
    }
    let mut admin = server.connect();
    support::eventually("they are gone", || {
        let list = admin.run("CLIENT LIST");
        list.matches("cmd=keys").count() == 0
    });
    watch.end();
    assert_well(&mut server, before, MAX_GROWTH);
}

#[test]
fn clients_over_the_soft_limit_are_let_go_when_its_time_is_over() {
    let mut server = Server::with(&["--client-output-buffer-limit", "normal", "0", "1mb", "1"]);
    server.connect().run("DEBUG POPULATE 20000");
    let (mut deaf, mut reader, mut admin) = (server.connect(), server.connect(), server.connect());
    deaf.run("CLIENT SETNAME deaf");
    // Far more than the sockets hold. Nothing happens on the connection afterwards.
    deaf.send(request(&[b"KEYS", b"*"]).repeat(100));
    support::eventually("it is gone", || !admin.run("CLIENT LIST").contains("name=deaf"));
    for _ in 0..20 {
        assert!(reader.run("KEYS *").starts_with("*20000|"));
    }
    server.assert_up();
}

#[test]
fn a_monitor_that_never_reads_is_let_go_at_the_limit() {
    let mut server = Server::with(&["--client-output-buffer-limit", "normal", "4mb", "0", "0"]);
    let (before, mut monitor) = (server.resident_bytes(), server.connect());
    assert_eq!(monitor.run("MONITOR"), "+OK|");
    let mut busy = server.connect();
    let text = vec![b'x'; 10_000];
    for _ in 0..2_000 {
        busy.request(&[b"ECHO", &text]);
    }
    let mut admin = server.connect();
    support::eventually("it is gone", || !admin.run("CLIENT LIST").contains("flags=O"));
    assert_well(&mut server, before, MAX_GROWTH);
}

#[test]
fn slow_senders_delay_nobody() {
    let mut server = Server::start();
    let (before, watch) = (server.resident_bytes(), Watch::start(&server));
    let mut slow: Vec<Conn> = (0..200).map(|_| server.connect()).collect();
    let bytes = request(&[b"INCRBY", b"slow", b"1"]);
    for byte in &bytes {
        slow.iter_mut().for_each(|conn| conn.send([*byte]));
    }
    slow.iter_mut().for_each(|conn| assert!(conn.reply().starts_with('$')));
    assert_eq!(server.connect().run("GET slow"), "$3|200|");
    watch.end();
    assert_well(&mut server, before, MAX_GROWTH);
}

#[test]
fn announced_lengths_cost_nothing() {
    let mut server = Server::start();
    let (before, watch) = (server.resident_bytes(), Watch::start(&server));
    let heads: [&[u8]; 3] = [
        b"*1048576\r\n$536870912\r\nx",
        b"*2\r\n$3\r\nGET\r\n$536870912\r\nabc",
        b"*1048576\r\n$1\r\na\r\n$1\r\nb\r\n",
    ];
    let open: Vec<Conn> = (0..600)
        .map(|number| {
            let mut conn = server.connect();
            conn.send(heads[number % heads.len()]);
            conn
        })
        .collect();
    assert_well(&mut server, before, MAX_GROWTH);
    drop(open);
    watch.end();
    assert_well(&mut server, before, MAX_GROWTH);
}

#[test]
fn a_request_of_many_megabytes_is_answered_and_forgotten() {
    let mut server = Server::start();
    let (before, watch, mut conn) = (server.resident_bytes(), Watch::start(&server), server.connect());
    let text = vec![b'x'; 100 << 20];
    assert_eq!(conn.request(&[b"ECHO", &text]).len(), text.len() + "$104857600||".len());
    let names = vec![&b"n"[..]; 1_000_000];
    let words = [&[&b"EXISTS"[..]], &names[..]].concat();
    assert_eq!(conn.request(&words), ":0|");
    watch.end();
    support::eventually("the memory is given back", || {
        server.resident_bytes().saturating_sub(before) < MAX_GROWTH
    });
    server.assert_up();
}

#[test]
fn ten_thousand_idle_connections_come_and_go() {
    /// For each connection: session, task, sockets' bookkeeping on our side.
    const PER_CONNECTION: u64 = 8 << 10;
    let mut server = Server::with(&["--maxclients", "20000"]);
    let (before, watch, mut admin) = (server.resident_bytes(), Watch::start(&server), server.connect());
    let mut idle = Vec::new();
    // As many as this process may have; the server has the same limit.
    while idle.len() < 10_000 {
        match TcpStream::connect(("127.0.0.1", server.port)) {
            Ok(stream) => idle.push(stream),
            Err(error) if idle.len() > 500 => {
                eprintln!("{} connections, then {error}", idle.len());
                idle.truncate(idle.len() - 100);
                break;
            }
            Err(error) => panic!("{error}"),
        }
    }
    let expected = idle.len();
    support::eventually("all are there", || {
        admin.run("INFO clients").contains(&format!("connected_clients:{}|", expected + 2))
    });
    assert_well(&mut server, before, MAX_GROWTH + PER_CONNECTION * expected as u64);
    drop(idle);
    support::eventually("all are gone", || admin.run("INFO clients").contains("connected_clients:2|"));
    watch.end();
    assert_well(&mut server, before, MAX_GROWTH + PER_CONNECTION * expected as u64);
}

/// Neither side may wait for the other for ever.
#[test]
fn a_million_commands_may_be_sent_before_a_reply_is_read() {
    const COMMANDS: usize = 1_000_000;
    let mut server = Server::start();
    let (before, watch, mut conn) = (server.resident_bytes(), Watch::start(&server), server.connect());
    let some = request(&[b"INCR", b"piped"]).repeat(1_000);
    (0..COMMANDS / 1_000).for_each(|_| conn.send(&some));
    // The replies are as long as the numbers in them.
    let wanted: usize = (1..=COMMANDS).map(|number| number.to_string().len() + "$7\r\n\r\n".len()).sum();
    let (mut len, mut buf) = (0, vec![0; 1 << 20]);
    while len < wanted {
        match conn.stream.read(&mut buf) {
            Ok(0) => panic!("closed after {len} bytes"),
            Ok(more) => len += more,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => panic!("{error} after {len} bytes"),
        }
    }
    assert_eq!(len, wanted);
    assert_eq!(conn.run("GET piped"), "$7|1000000|");
    watch.end();
    assert_well(&mut server, before, MAX_GROWTH);
}
