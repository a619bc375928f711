//! Many clients at once on one node: nothing acknowledged is lost, nothing that is there is missed.

#![allow(clippy::unwrap_used, reason = "a test that can not go on has failed")]

mod support;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use support::{Conn, Random, Server, eventually, request};

/// Runs `each` over and over in threads with connections of their own while `main` runs.
fn meanwhile<R>(
    server: &Server,
    threads: usize,
    each: impl Fn(&mut Conn, usize) + Send + Sync + 'static,
    main: impl FnOnce() -> R,
) -> R {
    let (is_over, each) = (Arc::new(AtomicBool::new(false)), Arc::new(each));
    let running: Vec<_> = (0..threads)
        .map(|number| {
            let (is_over, each, mut conn) = (Arc::clone(&is_over), Arc::clone(&each), server.connect());
            thread::spawn(move || {
                while !is_over.load(Ordering::Relaxed) {
                    each(&mut conn, number);
                }
            })
        })
        .collect();
    let result = main();
    is_over.store(true, Ordering::Relaxed);
    running.into_iter().for_each(|thread| thread.join().unwrap());
    result
}

/// The names and the cursor in a reply to SCAN.
fn scan_page(reply: &str) -> (String, Vec<String>) {
    let mut lines = reply.split('|').skip(2);
    let cursor = lines.next().unwrap().to_owned();
    (cursor, lines.skip(1).skip(1).step_by(2).map(str::to_owned).collect())
}

/// All names that a full SCAN answers.
fn scan(conn: &mut Conn, count: &str) -> Vec<String> {
    let (mut cursor, mut names) = ("0".to_owned(), Vec::new());
    loop {
        let (next, page) = scan_page(&conn.run(&format!("SCAN {cursor} COUNT {count}")));
        names.extend(page);
        if next == "0" {
            return names;
        }
        cursor = next;
    }
}

#[test]
fn scan_and_keys_miss_nothing_that_was_there_throughout() {
    for threads in ["1", "8"] {
        let server = Server::with(&["--io-threads", threads]);
        let mut conn = server.connect();
        conn.run("DEBUG POPULATE 5000 stay");
        let churn = |conn: &mut Conn, number: usize| {
            let names: Vec<String> = (0..500).map(|n| format!("go:{number}:{n}")).collect();
            for command in [&["MINCRBY", "1"][..], &["DEL"]] {
                let words: Vec<&[u8]> = command
                    .iter()
                    .copied()
                    .chain(names.iter().map(String::as_str))
                    .map(str::as_bytes)
                    .collect();
                conn.request(&words);
            }
        };
        meanwhile(&server, 3, churn, || {
            for count in ["1", "7", "1000", "9223372036854775807"] {
                let found = scan(&mut conn, count);
                let stayed = found.iter().filter(|name| name.starts_with("stay:"));
                let distinct: BTreeSet<&String> = stayed.clone().collect();
                assert_eq!((distinct.len(), stayed.count()), (5_000, 5_000), "COUNT {count}");
            }
            for _ in 0..20 {
                assert!(conn.run("KEYS stay:*").starts_with("*5000|"));
            }
        });
        assert_eq!(conn.run("DBSIZE"), ":5000|");
        assert_eq!(scan(&mut conn, "100").len(), 5_000);
    }
}

#[test]
fn scan_takes_any_cursor_and_count() {
    let server = Server::start();
    let mut conn = server.connect();
    conn.run("DEBUG POPULATE 100 n");
    for cursor in ["1", "4294967296", "9223372036854775807", "18446744073709551615"] {
        assert!(conn.run(&format!("SCAN {cursor}")).starts_with("*2|"), "{cursor}");
    }
    for words in [
        "SCAN -1",
        "SCAN x",
        "SCAN 18446744073709551616",
        "SCAN 0 COUNT 0",
        "SCAN 0 COUNT -1",
        "SCAN 0 COUNT",
    ] {
        assert!(conn.run(words).starts_with("-ERR "), "{words}");
    }
    assert_eq!(conn.run("SCAN 0 TYPE string COUNT 1000"), "*2|$1|0|*0|");
    assert_eq!(scan_page(&conn.run("SCAN 0 TYPE COUNTER COUNT 1000 MATCH n:?")).1.len(), 10);
}

#[test]
fn the_removal_of_zeros_loses_no_increment() {
    /// Long enough for the zeros to be collected several times.
    const TURNS: usize = 5;
    let server = Server::with(&["--io-threads", "4"]);
    let (mut admin, mut subscriber) = (server.connect(), server.connect());
    subscriber.run("SUBSCRIBE tick");
    // Each thread moves its own counters and those of all up and down, through zero, and knows what its own must read.
    let sway = |conn: &mut Conn, number: usize| {
        let own = format!("own:{number}");
        assert_eq!(conn.run(&format!("INCR {own}")), "$1|1|");
        conn.run("INCR shared");
        assert_eq!(conn.run(&format!("DECR {own}")), "$1|0|");
        conn.run("DECR shared");
        conn.run(&format!("INCR sum:{number}"));
    };
    meanwhile(&server, 4, sway, || admin.await_ticks(&mut subscriber, TURNS));
    assert_eq!(admin.run("GET shared"), "$1|0|");
    let mut sums = 0;
    for number in 0..4 {
        let reply = admin.run(&format!("GET sum:{number}"));
        sums += reply.split('|').nth(1).unwrap().parse::<u64>().unwrap();
    }
    let info = admin.run("INFO commandstats");
    let calls = |command: &str| -> u64 {
        let (_, rest) = info.split_once(&format!("cmdstat_{command}:calls=")).unwrap();
        rest.split(',').next().unwrap().parse().unwrap()
    };
    assert_eq!(calls("incr"), 3 * sums + TURNS as u64);
    assert_eq!(calls("decr"), 2 * sums);
    eventually("zeros disappear", || admin.run("EXISTS shared own:0 own:1 own:2 own:3") == ":0|");
    assert_eq!(admin.run("DBSIZE"), ":5|", "the sums, and the tick");
}

#[test]
fn dbsize_stays_right_when_all_counters_are_deleted_amid_changes() {
    let server = Server::with(&["--io-threads", "4"]);
    let mut admin = server.connect();
    let seed = Random::new().number();
    let churn = move |conn: &mut Conn, number: usize| {
        let mut random = Random(seed ^ number as u64);
        let name = format!("n{}", random.below(1_000_000));
        let mut bytes = Vec::new();
        for n in 0..50 {
            bytes.extend_from_slice(&request(&[b"INCR", format!("{name}{n}").as_bytes()]));
            bytes.extend_from_slice(&request(&[b"DEL", format!("{name}{n}").as_bytes()]));
        }
        conn.raw(&bytes, 100);
    };
    meanwhile(&server, 4, churn, || {
        for _ in 0..300 {
            assert_eq!(admin.run("DEBUG FLUSHALL"), "+OK|");
        }
    });
    let keys = admin.run("KEYS *");
    let count = keys[1..].split('|').next().unwrap();
    assert_eq!(admin.run("DBSIZE"), format!(":{count}|"));
    admin.run("DEBUG FLUSHALL");
    assert_eq!(admin.run("DBSIZE"), ":0|");
}

#[test]
fn names_of_any_allowed_length_count() {
    let server = Server::start();
    let mut conn = server.connect();
    for len in [0, 1, 16, 17, 65_535] {
        let name = vec![b'n'; len];
        assert_eq!(conn.request(&[b"INCR", &name]), "$1|1|", "{len}");
        assert_eq!(conn.request(&[b"GET", &name]), "$1|1|", "{len}");
        assert_eq!(conn.request(&[b"SUBSCRIBE", &name]).matches(":1|").count(), 1);
        assert!(conn.request(&[b"UNSUBSCRIBE", &name]).ends_with(":0|"));
    }
    let name = vec![b'n'; 65_536];
    for words in [
        &[&b"INCR"[..], &name][..],
        &[b"SET", &name, b"1"],
        &[b"SUBSCRIBE", &name],
        &[b"PRECISION", &name, b"1"],
    ] {
        assert!(conn.request(words).starts_with("-ERR "));
    }
    assert_eq!(conn.request(&[b"GET", &name]), "$1|0|");
    assert_eq!(conn.run("DBSIZE"), ":5|");
}

#[test]
fn mincrby_takes_a_hundred_thousand_names() {
    let server = Server::start();
    let mut conn = server.connect();
    let names: Vec<String> = (0..100_000).map(|n| format!("n{n}")).collect();
    let words: Vec<&[u8]> =
        ["MINCRBY", "2"].into_iter().chain(names.iter().map(String::as_str)).map(str::as_bytes).collect();
    assert_eq!(conn.request(&words), format!("*100000|{}", "$1|2|".repeat(100_000)));
    assert_eq!((conn.run("DBSIZE"), conn.run("GET n99999")), (":100000|".into(), "$1|2|".into()));
}

#[test]
fn clients_on_all_threads_see_one_count() {
    for threads in ["1", "8"] {
        let server = Server::with(&["--io-threads", threads]);
        let adding: Vec<_> = (0..16)
            .map(|_| {
                let mut conn = server.connect();
                thread::spawn(move || conn.raw(request(&[b"INCR", b"a"]).repeat(2_000), 2_000).len())
            })
            .collect();
        adding.into_iter().for_each(|thread| assert!(thread.join().unwrap() > 0));
        assert_eq!(server.connect().run("GET a"), "$5|32000|", "{threads} threads");
    }
}

#[test]
fn messages_and_replies_do_not_mix_in_resp3() {
    let server = Server::start();
    let (mut conn, mut writer) = (server.connect(), server.connect());
    assert!(conn.run("HELLO 3").starts_with('%'));
    assert_eq!(conn.run("SUBSCRIBE a b"), ">3|$9|subscribe|$1|a|:1|");
    assert_eq!(conn.reply(), ">3|$9|subscribe|$1|b|:2|");
    let mut messages = 0;
    while messages < 3 {
        writer.run("INCR a");
        conn.send("ECHO hello\r\n");
        loop {
            let reply = conn.reply();
            match reply.as_bytes()[0] {
                b'>' => messages += usize::from(reply.starts_with(">3|$7|message|$1|a|")),
                _ => {
                    assert_eq!(reply, "$5|hello|");
                    break;
                }
            }
        }
    }
    assert_eq!(conn.raw("RESET\r\n", 1), "+RESET|");
    assert_eq!(conn.run("UNSUBSCRIBE"), "*3|$11|unsubscribe|$-1|:0|");
}
