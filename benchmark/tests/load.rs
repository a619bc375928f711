//! `discnt-benchmark` as a process against a server of a few lines: what arrives there, what is printed, and with
//! which status it ends.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::process::{Command, Output};
use std::sync::{Arc, Mutex};
use std::thread;

type Counts = Arc<Mutex<BTreeMap<String, u64>>>;

/// A server that answers every request with `reply`, or closes the connection if that is empty, and counts
/// the requests by their words.
fn serve(reply: &'static [u8]) -> (String, Counts) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port().to_string();
    let counts = Counts::default();
    let its_counts = Arc::clone(&counts);
    thread::spawn(move || {
        for stream in listener.incoming() {
            let (stream, counts) = (stream.unwrap(), Arc::clone(&its_counts));
            thread::spawn(move || {
                let mut writer = stream.try_clone().unwrap();
                let mut reader = BufReader::new(stream);
                while let Some(words) = read_request(&mut reader) {
                    *counts.lock().unwrap().entry(words).or_default() += 1;
                    if reply.is_empty() || writer.write_all(reply).is_err() {
                        return;
                    }
                }
            });
        }
    });
    (port, counts)
}

/// Reads one array of bulks; its words with blanks between.
fn read_request(reader: &mut impl BufRead) -> Option<String> {
    let count = read_number(reader, '*')?;
    let mut words = Vec::new();
    for _ in 0..count {
        let mut bytes = vec![0; read_number(reader, '$')? + 2];
        reader.read_exact(&mut bytes).ok()?;
        bytes.truncate(bytes.len() - 2);
        words.push(String::from_utf8(bytes).unwrap());
    }
    Some(words.join(" "))
}

fn read_number(reader: &mut impl BufRead, mark: char) -> Option<usize> {
    let mut line = String::new();
    reader.read_line(&mut line).ok().filter(|&len| len > 0)?;
    line.trim_end().strip_prefix(mark)?.parse().ok()
}

fn run(port: &str, args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_discnt-benchmark"));
    command.args(["-p", port]).args(args).env_remove("DISCNT_CLI_AUTH").output().unwrap()
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

#[test]
fn exactly_the_requests_asked_for_arrive() {
    let (port, counts) = serve(b"$1\r\n1\r\n");
    let output =
        run(&port, &["-n", "1001", "-c", "7", "-P", "16", "--threads", "3", "-t", "incr,ping", "-q"]);
    assert_eq!((output.status.code(), text(&output.stderr)), (Some(0), ""));
    let expected = [("INCR counter:000000000000".to_owned(), 1001), ("PING".to_owned(), 1001)];
    assert_eq!(*counts.lock().unwrap(), BTreeMap::from(expected));
    assert_eq!(text(&output.stdout).lines().count(), 2);
}

#[test]
fn random_names_stay_below_the_count_and_all_occur() {
    let (port, counts) = serve(b"$1\r\n1\r\n");
    run(&port, &["-n", "500", "-r", "3", "-P", "10", "INCRBY", "k:__rand_int__", "-1"]);
    let counts = counts.lock().unwrap();
    let names: Vec<&str> = counts.keys().map(String::as_str).collect();
    assert_eq!(names, ["INCRBY k:000000000000 -1", "INCRBY k:000000000001 -1", "INCRBY k:000000000002 -1"]);
    assert_eq!(counts.values().sum::<u64>(), 500);
}

#[test]
fn fewer_requests_than_connections_are_no_trouble() {
    let (port, counts) = serve(b"+PONG\r\n");
    assert_eq!(run(&port, &["-n", "2", "-c", "20", "-t", "ping"]).status.code(), Some(0));
    assert_eq!(counts.lock().unwrap()["PING"], 2);
}

#[test]
fn error_replies_end_in_status_1_also_inside_an_array() {
    for reply in [&b"-ERR no\r\n"[..], b"*2\r\n:1\r\n-ERR no\r\n"] {
        let (port, _) = serve(reply);
        let output = run(&port, &["-n", "10", "-c", "2", "-q", "X"]);
        assert_eq!(output.status.code(), Some(1));
        assert_eq!(text(&output.stderr), "X: 10 replies were errors, the first: ERR no\n");
    }
}

#[test]
fn a_lost_connection_ends_in_status_1() {
    let (port, _) = serve(b"");
    let output = run(&port, &["-n", "10", "-c", "2", "--threads", "2", "-t", "ping"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("closed a connection") || text(&output.stderr).contains("failed"));
}

#[test]
fn bytes_that_are_no_reply_end_in_status_1() {
    let (port, _) = serve(b"HTTP/1.1 400 Bad Request\r\n\r\n");
    let output = run(&port, &["-n", "10", "-c", "2", "-t", "ping"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("Protocol error"), "{}", text(&output.stderr));
}

#[test]
fn each_connection_authenticates_first() {
    let (port, counts) = serve(b"+OK\r\n");
    assert_eq!(
        run(&port, &["-a", "x", "--user", "u", "-n", "5", "-c", "3", "-t", "ping"]).status.code(),
        Some(0)
    );
    let expected = [("AUTH u x".to_owned(), 3), ("PING".to_owned(), 5)];
    assert_eq!(*counts.lock().unwrap(), BTreeMap::from(expected));
}

#[test]
fn csv_has_as_many_values_as_columns() {
    let (port, _) = serve(b":1\r\n");
    let output = run(&port, &["--csv", "-n", "5", "-t", "ping,incr"]);
    let lines: Vec<&str> = text(&output.stdout).lines().collect();
    assert_eq!(lines.len(), 3);
    assert!(lines.iter().all(|line| line.split(',').count() == lines[0].split(',').count()), "{lines:?}");
}

#[test]
fn unknown_tests_and_options_end_in_status_2() {
    assert_eq!(run("1", &["-t", "lpush"]).status.code(), Some(2));
    assert_eq!(run("1", &["--frobnicate"]).status.code(), Some(2));
}

#[test]
fn long_replies_are_read_to_their_end() {
    let reply = [b"$300000\r\n".as_slice(), "x".repeat(300_000).as_bytes(), b"\r\n"].concat();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port().to_string();
    thread::spawn(move || {
        let (stream, _) = listener.accept().unwrap();
        let mut writer = stream.try_clone().unwrap();
        let mut reader = BufReader::new(stream);
        while read_request(&mut reader).is_some() {
            writer.write_all(&reply).unwrap();
        }
    });
    let output = run(&port, &["-n", "4", "-c", "1", "-P", "2", "-t", "get"]);
    assert_eq!((output.status.code(), text(&output.stderr)), (Some(0), ""));
}
