//! What holds with default settings too: queues that no setting bounds have limits of their own.

use crate::support::{Conn, Server, eventually, request};
use crate::{MAX_GROWTH, Watch, assert_well};
use std::io::{ErrorKind, Write};
use std::time::Duration;

/// What the server holds of replies at most before it executes nothing more for a client, the room that vectors take in
/// advance included.
const MAX_HELD: u64 = 160 << 20;

/// Writes the bytes over and over until the server takes no more. Returns how many that was.
fn write_until_full(conn: &mut Conn, bytes: &[u8], enough: usize) -> usize {
    conn.stream.set_write_timeout(Some(Duration::from_secs(2))).unwrap();
    let mut written = 0;
    while written < enough {
        // A write may end anywhere; the next one goes on from there.
        match conn.stream.write(&bytes[written % bytes.len()..]) {
            Ok(len) => written += len,
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => break,
            Err(error) => panic!("{error} after {written} bytes"),
        }
    }
    written
}

#[test]
fn a_client_that_never_reads_is_not_read_from_either() {
    const ENOUGH: usize = 400 << 20;
    let mut server = Server::start();
    let (before, watch, mut deaf) = (server.resident_bytes(), Watch::start(&server), server.connect());
    let echo = request(&[b"ECHO", &vec![b'x'; 60_000]]);
    // Whole requests only: the write may end in the middle of one.
    let written = write_until_full(&mut deaf, &echo, ENOUGH);
    assert!(written < ENOUGH, "the server has taken all of {written} bytes");
    watch.end();
    assert_well(&mut server, before, MAX_HELD);
    // It goes on where it stood as soon as the client reads.
    for _ in 0..written / echo.len() {
        assert_eq!(deaf.reply().len(), 60_000 + "$60000||".len());
    }
}

#[test]
fn clients_that_hold_too_much_together_are_let_go() {
    const CLIENTS: usize = 16;
    let mut server = Server::start();
    let (before, watch) = (server.resident_bytes(), Watch::start(&server));
    // Requests that never end: nothing of them is executed.
    let chunk = vec![b'x'; 1 << 20];
    let mut open: Vec<Conn> = (0..CLIENTS).map(|_| server.connect()).collect();
    for conn in &mut open {
        conn.send("*2\r\n$4\r\nECHO\r\n$536870912\r\n");
    }
    let mut closed = 0;
    for _ in 0..100 {
        open.retain_mut(|conn| conn.stream.write_all(&chunk).is_ok());
        closed = CLIENTS - open.len();
        if closed > 2 {
            break;
        }
    }
    assert!(closed > 2, "nobody was let go");
    watch.end();
    // Vectors take twice what they need.
    assert_well(&mut server, before, 1_200 << 20);
    drop(open);
    eventually("the memory is given back", || server.resident_bytes().saturating_sub(before) < MAX_GROWTH);
}

#[test]
fn strangers_can_not_send_much() {
    const TOO_MANY: &str = "-ERR Protocol error: unauthenticated multibulk length|";
    const TOO_LONG: &str = "-ERR Protocol error: unauthenticated bulk length|";
    let server = Server::with(&["--requirepass", "sesame"]);
    for (head, reply) in [
        ("*11\r\n", TOO_MANY),
        ("*2\r\n$4\r\nECHO\r\n$16385\r\n", TOO_LONG),
        ("*2\r\n$4\r\nECHO\r\n$536870912\r\n", TOO_LONG),
        ("*1048577\r\n", "-ERR Protocol error: invalid multibulk length|"),
        ("*1\r\n$536870913\r\n", "-ERR Protocol error: invalid bulk length|"),
    ] {
        let mut conn = server.connect();
        conn.send(head);
        assert_eq!(conn.rest(), reply, "{head:?}");
    }
    let long = vec![b'x'; 100_000];
    let many = [&[&b"EXISTS"[..]], &[&b"a"[..]; 50][..]].concat();
    // With the password in the same packet as what needs it.
    let mut conn = server.connect();
    let pipeline = [request(&[b"AUTH", b"sesame"]), request(&[b"ECHO", &long]), request(&many)].concat();
    conn.send(pipeline);
    assert_eq!(conn.reply(), "+OK|");
    assert_eq!(conn.reply().len(), long.len() + "$100000||".len());
    assert_eq!(conn.reply(), ":0|");
    // A wrong password takes the right away again.
    assert_eq!(conn.run("AUTH other"), "-ERR invalid password|");
    conn.send("*11\r\n");
    assert_eq!(conn.rest(), TOO_MANY);
}

#[test]
fn a_password_set_later_limits_who_was_there_before() {
    let server = Server::start();
    let (mut conn, mut admin) = (server.connect(), server.connect());
    assert_eq!(conn.run("PING"), "+PONG|");
    assert_eq!(admin.run("CONFIG SET requirepass sesame"), "+OK|");
    conn.send("*2\r\n$4\r\nECHO\r\n$16385\r\n");
    assert_eq!(conn.rest(), "-ERR Protocol error: unauthenticated bulk length|");
}

#[test]
fn a_monitor_that_never_reads_is_let_go_without_a_setting_too() {
    let mut server = Server::start();
    let (before, mut monitor) = (server.resident_bytes(), server.connect());
    assert_eq!(monitor.run("MONITOR"), "+OK|");
    let (mut busy, mut admin) = (server.connect(), server.connect());
    // Printed as \x00, four bytes for each.
    let text = request(&[b"ECHO", &vec![0; 60_000]]);
    let mut rounds = 0;
    while admin.run("CLIENT LIST").contains("flags=O") {
        busy.raw(text.repeat(20), 20);
        rounds += 1;
        assert!(rounds < 200, "it is still there");
    }
    assert_well(&mut server, before, 2 * MAX_HELD);
}

/// The pattern and the name of which the match takes longest.
#[test]
fn hostile_names_and_patterns_delay_nobody() {
    let mut server = Server::start();
    let (before, mut conn) = (server.resident_bytes(), server.connect());
    for number in 0..50 {
        let name = [vec![b'a'; 60_000], format!("{number}").into_bytes()].concat();
        conn.request(&[b"INCR", &name]);
    }
    let watch = Watch::start(&server);
    let pattern = [b"*a?[ab]".repeat(15_000), b"zz".to_vec()].concat();
    assert_eq!(conn.request(&[b"KEYS", &pattern]), "*0|");
    let mut cursor = String::from("0");
    loop {
        let reply = conn.request(&[b"SCAN", cursor.as_bytes(), b"MATCH", &pattern, b"COUNT", b"1000"]);
        assert!(reply.ends_with("|*0|"), "{reply}");
        cursor = reply.split('|').nth(2).unwrap().to_owned();
        if cursor == "0" {
            break;
        }
    }
    watch.end();
    let long = vec![b'*'; 2 << 20];
    for words in [&[b"KEYS", &long[..]][..], &[b"SCAN", b"0", b"MATCH", &long]] {
        assert_eq!(conn.request(words), "-ERR pattern is too long: 2097152 bytes, limit 1048576|");
    }
    assert_well(&mut server, before, MAX_GROWTH);
}
